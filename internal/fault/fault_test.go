package fault_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"etl/internal/fault"
)

var kinds = []fault.Kind{
	fault.Internal, fault.Usage, fault.Invalid, fault.NotExist, fault.Conflict, fault.Corrupt, fault.Transient, fault.Unknown, fault.Unavailable,
}

func TestKinds(t *testing.T) {
	base := errors.New("no such thing")
	names := map[string]bool{}
	for _, k := range kinds {
		names[k.String()] = true
		for what, err := range map[string]error{
			"Wrap":            fault.Wrap(k, base),
			"Errorf":          fault.Errorf(k, "a: %w", base),
			"wrapped":         fmt.Errorf("get x: %w", fault.Wrap(k, base)),
			"hinted":          fault.Hint(fault.Wrap(k, base), "do %d things", 2),
			"joined":          errors.Join(errors.New("first"), fault.Wrap(k, base)),
			"outermost rules": fault.Wrap(k, fmt.Errorf("b: %w", fault.Wrap(fault.Corrupt, base))),
		} {
			if fault.KindOf(err) != k || !fault.Is(err, k) || !errors.Is(err, base) {
				t.Errorf("%s of %s: %v is of kind %s", what, k, err, fault.KindOf(err))
			}
			for _, other := range kinds {
				if fault.Is(err, other) != (other == k) {
					t.Errorf("%s of %s also is %s", what, k, other)
				}
			}
		}
		if text := fault.Wrap(k, base).Error(); text != base.Error() {
			t.Errorf("Wrap changes the text to %q", text)
		}
	}
	if len(names) != len(kinds) {
		t.Errorf("%d kinds have the names %v", len(kinds), names)
	}
	if fault.KindOf(base) != fault.Internal || fault.KindOf(nil) != fault.Internal || fault.Is(nil, fault.Internal) {
		t.Error("an unclassified error is Internal, nil is nothing")
	}
	if fault.Wrap(fault.Corrupt, nil) != nil || fault.Hint(nil, "x") != nil {
		t.Error("nil does not stay nil")
	}
}

func TestHints(t *testing.T) {
	base := errors.New("full")
	inner := fault.Hint(fault.Wrap(fault.Unavailable, base), "free %s", "space")
	for want, err := range map[string]error{
		"":           nil,
		"free space": fmt.Errorf("put: %w", fault.Wrap(fault.Unknown, fmt.Errorf("sync: %w", inner))),
		"look again": fault.Hint(fmt.Errorf("put: %w", inner), "look again"),
	} {
		if got := fault.HintOf(err); got != want {
			t.Errorf("hint of %v is %q, want %q", err, got, want)
		}
	}
	if fault.HintOf(base) != "" || fault.HintOf(fault.Wrap(fault.Corrupt, base)) != "" {
		t.Error("a hint from nowhere")
	}
	if err := fault.Hint(inner, "x"); fault.KindOf(err) != fault.Unavailable || err.Error() != "full" {
		t.Errorf("a hint makes %v of kind %s", err, fault.KindOf(err))
	}
	// Of several errors at once the first hint there is.
	both := errors.Join(fault.Wrap(fault.Transient, base), inner)
	if got := fault.HintOf(fmt.Errorf("many: %w", both)); got != "free space" {
		t.Errorf("hint of a join is %q", got)
	}
}

func TestExitCode(t *testing.T) {
	for k, want := range map[fault.Kind]int{
		fault.Internal: 1, fault.Usage: 2, fault.Invalid: 1, fault.NotExist: 1, fault.Conflict: 5,
		fault.Corrupt: 4, fault.Transient: 5, fault.Unknown: 5, fault.Unavailable: 1,
	} {
		if got := fault.ExitCode(fmt.Errorf("x: %w", fault.Errorf(k, "y"))); got != want {
			t.Errorf("%s exits with %d, want %d", k, got, want)
		}
		if got := fault.ExitCode(fault.Wrap(k, fmt.Errorf("x: %w", context.Canceled))); got != 130 {
			t.Errorf("a cancelled %s exits with %d", k, got)
		}
	}
	if fault.ExitCode(nil) != 0 || fault.ExitCode(errors.New("x")) != 1 {
		t.Error("nil exits with 0, an unclassified error with 1")
	}
}

func TestWorse(t *testing.T) {
	// Each beats all before it.
	order := []int{fault.ExitOK, fault.ExitFindings, fault.ExitTransient, fault.ExitError, fault.ExitCorrupt, fault.ExitInterrupted}
	if !slices.Equal(order, []int{0, 3, 5, 1, 4, 130}) {
		t.Fatalf("exit codes %v", order)
	}
	for i, a := range order {
		for j, b := range order {
			if got := fault.Worse(a, b); got != order[max(i, j)] {
				t.Errorf("Worse(%d, %d) = %d", a, b, got)
			}
		}
	}
	if fault.Worse(fault.ExitUsage, fault.ExitOK) != fault.ExitUsage {
		t.Error("a usage error is lost")
	}
}
