package manifests

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
)

const quarantinePrefix = "_quarantine/"

// SetAside keeps a copy of an object that is about to be overwritten because it
// can not be used, as _quarantine/<16 digits of its SHA-256>/<its key>. The name
// is of the content, so doing it again changes nothing.
//
// INVARIANT: no byte that cannot be read is overwritten before it was copied.
func SetAside(ctx context.Context, store object.Store, key object.Key, data []byte) (object.Key, error) {
	sum := sha256.Sum256(data)
	to := object.Key(quarantinePrefix + hex.EncodeToString(sum[:8]) + "/" + string(key))
	for range 3 {
		_, err := store.Put(ctx, to, data, object.PutOptions{IfAbsent: true})
		if err == nil || fault.Is(err, fault.Conflict) {
			return to, nil
		}
		if !fault.Is(err, fault.Unknown) {
			return "", fmt.Errorf("set %s aside: %w", key, err)
		}
	}
	return "", fault.Errorf(fault.Transient, "set %s aside: it is not known whether %s was written", key, to)
}

// Adopt is the manifest that the month files of a month make by their footers,
// whatever manifest there is; nothing is written. What lies in the month's folder
// and is no sound month file of the month, or of a point that another file has,
// is returned as warnings.
func Adopt(ctx context.Context, store object.Store, month utc.Month, describe Describe) (*Manifest, []error, error) {
	return NewCommitter(store, month, describe, Options{}).adopt(ctx, nil)
}

// Rebuild puts what Adopt finds in the place of a manifest that can not be read,
// which it sets aside first. If it can be read by now, that one stays. A month
// whose manifest is missing needs no rebuilding: a Committer adopts its files.
func Rebuild(ctx context.Context, store object.Store, month utc.Month, describe Describe) (*Manifest, []error, error) {
	var warnings []error
	var last error
	for n := range 10 {
		if n > 0 {
			if err := pause(ctx, n); err != nil {
				return nil, warnings, err
			}
		}
		data, attrs, err := store.Get(ctx, KeyOf(month))
		var version string
		switch {
		case fault.Is(err, fault.NotExist):
		case err != nil:
			return nil, warnings, fmt.Errorf("load the manifest of %s: %w", month, err)
		default:
			m, err := Decode(month, data)
			if !fault.Is(err, fault.Corrupt) {
				return m, warnings, err // whole, or of a newer etl
			}
			if _, err := SetAside(ctx, store, KeyOf(month), data); err != nil {
				return nil, warnings, err
			}
			version = attrs.ETag
		}
		m, found, err := Adopt(ctx, store, month, describe)
		if err != nil {
			return nil, warnings, err
		}
		warnings = found
		m = newManifest(month, rand.Text(), m.Points)
		_, err = store.Put(ctx, KeyOf(month), Encode(m), object.PutOptions{IfMatch: version, IfAbsent: version == "", Type: "application/json"})
		if err == nil {
			return m, warnings, nil
		}
		last = fmt.Errorf("write the manifest of %s: %w", month, err)
		if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Unknown) {
			return nil, warnings, last
		}
	}
	return nil, warnings, fault.Errorf(fault.Transient, "the manifest of %s kept changing: %w", month, last)
}

// Replace writes the manifest of a month whole, over the version that it was
// made for ("" for none). It is for a caller who owns the whole month, such as a
// copy of another cold tier; who adds to one uses a Committer. The entries are
// checked. It is not tried twice: Conflict means that another version is stored,
// and what was decided by the one before has to be decided again.
func Replace(ctx context.Context, store object.Store, month utc.Month, version Version, entries []Entry) (*Manifest, Version, error) {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int { return int(a.ID) - int(b.ID) })
	m := newManifest(month, rand.Text(), entries)
	data := Encode(m)
	if _, err := Decode(month, data); err != nil {
		return nil, "", fault.Errorf(fault.Internal, "the manifest to be written: %w", err)
	}
	attrs, err := store.Put(ctx, KeyOf(month), data, object.PutOptions{IfMatch: string(version), IfAbsent: version == "", Type: "application/json"})
	if fault.Is(err, fault.Conflict) || fault.Is(err, fault.Unknown) {
		// It may be our own, whose answer was lost.
		if now, v, lerr := Load(ctx, store, month); lerr == nil && now.Commit == m.Commit {
			return now, v, nil
		} else if lerr == nil {
			err = fault.Wrap(fault.Conflict, err)
		}
	}
	if err != nil {
		return nil, "", fmt.Errorf("write the manifest of %s: %w", month, err)
	}
	return m, Version(attrs.ETag), nil
}

// RebuildPoints puts a catalog of the points, the last description of each
// counting, in the place of one that can not be read, which it sets aside first,
// or that is missing. One that can be read stays.
func RebuildPoints(ctx context.Context, store object.Store, sourceID string, points []sample.Point) error {
	merged, _, err := union(nil, points)
	if err != nil {
		return err
	}
	data, err := EncodePoints(&Catalog{Format: PointsFormat, Version: PointsVersion, SourceID: Clean(sourceID), Points: merged})
	if err != nil {
		return err
	}
	var last error
	for n := range 10 {
		if n > 0 {
			if err := pause(ctx, n); err != nil {
				return err
			}
		}
		old, attrs, err := store.Get(ctx, PointsKey)
		o := object.PutOptions{IfAbsent: true, Type: "application/json"}
		switch {
		case fault.Is(err, fault.NotExist):
		case err != nil:
			return fmt.Errorf("load the catalog of points: %w", err)
		default:
			if _, err := DecodePoints(old); !fault.Is(err, fault.Corrupt) {
				return err
			}
			if _, err := SetAside(ctx, store, PointsKey, old); err != nil {
				return err
			}
			o.IfAbsent, o.IfMatch = false, attrs.ETag
		}
		_, err = store.Put(ctx, PointsKey, data, o)
		if err == nil {
			return nil
		}
		last = fmt.Errorf("write the catalog of points: %w", err)
		if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Unknown) {
			return last
		}
	}
	return fault.Errorf(fault.Transient, "%s kept changing: %w", PointsKey, last)
}
