// Package object is the contract of the cold tier's object store: whole objects
// under flat keys, read, listed, and written conditionally. Backends live below
// it (object/dir), decorators beside it.
//
// A backend never retries, and deletes only as a Deleter. It reports Conflict when a
// condition did not hold (nothing was written) and Unknown when it can not tell
// whether a write happened; the caller settles both by reading again.
package object

import (
	"context"
	"errors"
	"iter"
	"strings"
	"time"
	"unicode/utf8"

	"etl/internal/fault"
)

// Key names an object: one or more non-empty segments joined by "/".
type Key string

// Check returns an Invalid error unless the key is safe for every backend:
// 1 to 1,024 bytes of UTF-8, no empty, "." or ".." segment, no NUL and no backslash.
func (k Key) Check() error {
	s := string(k)
	switch {
	case s == "" || len(s) > 1024:
		return fault.Errorf(fault.Invalid, "object key %.80q: want 1 to 1,024 bytes, it has %d", s, len(s))
	case !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\\"):
		return fault.Errorf(fault.Invalid, "object key %.80q: want UTF-8 without NUL or backslash", s)
	}
	for seg := range strings.SplitSeq(s, "/") {
		if seg == "" || seg == "." || seg == ".." {
			return fault.Errorf(fault.Invalid, "object key %.80q: a segment is empty, %q or %q", s, ".", "..")
		}
	}
	return nil
}

// Attrs describes one version of an object.
type Attrs struct {
	Key  Key
	Size int64 // bytes
	// ETag names this version within its store, without quotes; it says
	// nothing about integrity and does not survive a copy to another store.
	ETag     string
	Modified time.Time
	// Meta is the user metadata. A store that has none, and List, leave it nil.
	Meta map[string]string
}

// PutOptions are the condition and the metadata of a write. The zero value
// overwrites unconditionally. IfMatch and IfAbsent exclude each other.
type PutOptions struct {
	IfMatch  string // write only over the version with this ETag
	IfAbsent bool   // write only where there is no object
	Meta     map[string]string
	Type     string // media type, "" for application/octet-stream
}

// Check returns an Invalid error if the options contradict each other; every
// backend asks it before it writes.
func (o PutOptions) Check() error {
	if o.IfAbsent && o.IfMatch != "" {
		return fault.Errorf(fault.Invalid, "IfAbsent and IfMatch %q exclude each other", o.IfMatch)
	}
	return nil
}

// Store is an object store.
//
// All methods are safe for concurrent use, within a process and between
// processes. Reads see every write that returned before they began. A
// cancelled context starts no write.
type Store interface {
	// Get returns one version of an object, whole, and that version's
	// attributes. An absent object is a NotExist error. Nobody changes the bytes
	// afterwards.
	Get(context.Context, Key) ([]byte, Attrs, error)

	// Put writes an object atomically and durably: a reader sees the old or the
	// new version, whole, and once Put returned nil a crash does not lose it.
	// Of any number of conditional writers on one version exactly one wins;
	// the others get Conflict, also IfMatch on an absent key. Unknown means
	// that the object may have been written. The caller must not change data
	// until Put returns.
	Put(ctx context.Context, key Key, data []byte, o PutOptions) (Attrs, error)

	// List yields the objects whose key begins with prefix, a plain string
	// ("" for all), in ascending byte order of the keys. After an error it ends.
	// An object written or replaced while listing may or may not be seen.
	List(ctx context.Context, prefix string) iter.Seq2[Attrs, error]
}

// Deleter is a Store that can delete objects. The archive itself never does: it
// is for the one who prunes a copy of an archive and has looked first.
type Deleter interface {
	Store

	// Delete removes an object, whatever its version, and is durable once it
	// returned nil. That none is there is no error, so it may be repeated, also
	// after a Transient error, which leaves open whether it was done.
	Delete(context.Context, Key) error
}

// Delete deletes an object of a store, or returns an Invalid error if the store
// can not delete.
func Delete(ctx context.Context, s Store, key Key) error {
	if d, ok := s.(Deleter); ok {
		return d.Delete(ctx, key)
	}
	return fault.Errorf(fault.Invalid, "delete %s: this store can not delete", key)
}

// Linker is a Store whose objects are local files.
type Linker interface {
	Store

	// Link makes each local path in to, at which there must be nothing, a hard
	// link to the current version of the object with the key at the same place.
	// Later writes of the key make other files, so what the path shows stays
	// this version: to look at the path is to look at exactly what was linked.
	// Whoever writes through it, or changes its mode or times, damages the store.
	//
	// The errors come in the same order, nil where a link was made. An absent
	// object is a NotExist error. ErrNoLink is in the chain if the path can not
	// be such a link; then Get tells more.
	Link(ctx context.Context, keys []Key, to []string) []error
}

// ErrNoLink says that an object can not be hard-linked to a path: it is on
// another file system, on one without links, or belongs to someone else. Its
// kind is Invalid.
var ErrNoLink = errors.New("can not be hard-linked there")
