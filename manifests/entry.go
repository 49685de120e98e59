package manifests

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
)

// Facts is what a month file's footer says of it.
type Facts struct {
	Point       int32
	Name        string // the point's name when the file was written
	Month       utc.Month
	Days        sample.DayCounts
	Samples     int64
	First, Last int64 // Unix milliseconds, inclusive; 0 if Samples is 0
	RowsSHA256  string
}

// Describe reads the facts of a month file from its bytes, which it must not
// keep. An error means that the bytes are no sound month file. It must be safe
// for concurrent use.
type Describe func(data []byte) (Facts, error)

// NewEntry is the entry of the month file that a store holds under the key, in
// the version that the ETag names. It returns a Corrupt error if the facts
// contradict themselves or no entry of their month can have them.
func NewEntry(key object.Key, data []byte, etag string, f Facts) (Entry, error) {
	sum := sha256.Sum256(data)
	e := Entry{
		ID: f.Point, Name: Clean(f.Name), Path: key, Bytes: int64(len(data)), ETag: etag,
		SHA256: hex.EncodeToString(sum[:]), RowsSHA256: f.RowsSHA256,
		Samples: f.Samples, Days: slices.Clone(f.Days),
	}
	if f.Samples > 0 {
		e.First, e.Last = new(f.First), new(f.Last)
	}
	if err := e.check(f.Month, DirOf(f.Month)); err != nil {
		return Entry{}, fault.Errorf(fault.Corrupt, "%s: point %d: %w", key, f.Point, err)
	}
	return e, nil
}

// inspect is the entry of a month file as read from a store.
func inspect(describe Describe, month utc.Month, key object.Key, data []byte, etag string) (Entry, error) {
	f, err := describe(data)
	if err != nil {
		return Entry{}, fmt.Errorf("%s: %w", key, err)
	}
	if f.Month != month {
		return Entry{}, fault.Errorf(fault.Corrupt, "%s: its footer names month %s, not %s", key, f.Month, month)
	}
	return NewEntry(key, data, etag, f)
}

// newest is the name of a point after a run knew it as fresh: a name made up
// for an id that the points table lacks never replaces a real one.
func newest(id int32, old, fresh string) string {
	fresh = Clean(fresh)
	if old != "" && (fresh == "" || fresh == orphanName(id)) {
		return old
	}
	return fresh
}
