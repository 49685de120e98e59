// Package fault owns the kinds of error that the archive tells apart, and the
// hints that tell a person how to mend one. An error is classified once, where
// it arises (a store, a source, a parser); jobs and commands decide by its kind.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what can be done about an error.
type Kind int

const (
	// Internal is every error that nobody classified: a defect or an unforeseen fault.
	Internal Kind = iota
	// Usage is a wrong flag, range or selection: nothing was done.
	Usage
	// Invalid is input that can not be accepted: a missing column, a foreign source.
	Invalid
	// NotExist says that the thing asked for is not there.
	NotExist
	// Conflict says that a conditional write found another version; nothing was written.
	Conflict
	// Corrupt says that bytes are not what was written: named, never used.
	Corrupt
	// Transient may pass by itself: run again.
	Transient
	// Unknown says that a write may or may not have happened: look before repeating it.
	Unknown
	// Unavailable says that nothing more can succeed until a person acts:
	// a full disk, a read-only folder, a missing permission.
	Unavailable
)

var kindNames = [...]string{"internal", "usage", "invalid", "not-exist", "conflict", "corrupt", "transient", "unknown-outcome", "unavailable"}

// String names the kind as logs and JSON do.
func (k Kind) String() string { return kindNames[k] }

type fault struct {
	kind Kind
	hint string
	err  error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// Errorf makes an error of a kind; format may wrap with %w.
func Errorf(k Kind, format string, a ...any) error {
	return &fault{kind: k, err: fmt.Errorf(format, a...)}
}

// Wrap classifies err, which keeps its text. A nil error stays nil.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &fault{kind: k, err: err}
}

// Hint adds to err what a person can do about it; the kind stays. A nil error stays nil.
func Hint(err error, format string, a ...any) error {
	if err == nil {
		return nil
	}
	return &fault{kind: KindOf(err), hint: fmt.Sprintf(format, a...), err: err}
}

// KindOf is the kind of the outermost classified error in err's chain, else Internal.
func KindOf(err error) Kind {
	if f, ok := errors.AsType[*fault](err); ok {
		return f.kind
	}
	return Internal
}

// Is reports whether err is of kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }

// HintOf is the outermost hint in err's chain, or "". Of joined errors the first that has one counts.
func HintOf(err error) string {
	switch e := err.(type) {
	case *fault:
		if e.hint != "" {
			return e.hint
		}
		return HintOf(e.err)
	case interface{ Unwrap() error }:
		return HintOf(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			if h := HintOf(err); h != "" {
				return h
			}
		}
	}
	return ""
}

// Exit codes of the program. When several apply the worst one wins, in the
// order 130 > 4 > 1 > 5 > 3.
const (
	ExitOK          = 0
	ExitError       = 1
	ExitUsage       = 2
	ExitFindings    = 3
	ExitCorrupt     = 4
	ExitTransient   = 5
	ExitInterrupted = 130
)

// ExitCode is the exit code that an error alone asks for.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	}
	switch KindOf(err) {
	case Usage:
		return ExitUsage
	case Corrupt:
		return ExitCorrupt
	case Transient, Conflict, Unknown:
		return ExitTransient
	}
	return ExitError
}

// Worse is the exit code that wins of two.
func Worse(a, b int) int {
	rank := map[int]int{ExitOK: 0, ExitFindings: 1, ExitTransient: 2, ExitError: 3, ExitUsage: 4, ExitCorrupt: 5, ExitInterrupted: 6}
	if rank[b] > rank[a] {
		return b
	}
	return a
}
