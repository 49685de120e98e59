package manifests

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"path"
	"strings"
	"time"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/sample"
)

// Undated stands for the month of rejects whose timestamp lies in no month.
const Undated = "undated"

const rejectsPrefix = "_rejects/"

// PutRejects records rows that the archive can not hold, verbatim, and returns
// the key of the first object. There is one object per point and day, named by
// the hash of its content, so that recording the same rows again, in whatever
// portions, changes nothing. month is one like 2024-01, or Undated.
func PutRejects(ctx context.Context, store object.Store, month string, rows []sample.Reject) (object.Key, error) {
	type group struct {
		point string
		day   string
	}
	var order []group
	lines := make(map[group]*bytes.Buffer)
	for _, r := range rows {
		g := group{point: fmt.Sprint(r.PointID.V)}
		if d, ok := r.Day(); ok && month != Undated {
			g.day = d.String()
		}
		b := lines[g]
		if b == nil {
			b = new(bytes.Buffer)
			lines[g] = b
			order = append(order, g)
		}
		line, err := json.Marshal(r)
		if err != nil {
			return "", fmt.Errorf("reject of point %s: %w", g.point, err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	var first object.Key
	for _, g := range order {
		data := lines[g].Bytes()
		sum := sha256.Sum256(data)
		key := object.Key(rejectsPrefix + month + "/" + hex.EncodeToString(sum[:]) + ".jsonl")
		err := putRejects(ctx, store, key, data)
		if err != nil {
			return "", fmt.Errorf("record rejects: %w", err)
		}
		if first == "" {
			first = key
		}
	}
	return first, nil
}

// putRejects makes sure that the object is there. Its name is the hash of its
// content, so writing it again is harmless.
func putRejects(ctx context.Context, store object.Store, key object.Key, data []byte) error {
	var err error
	for range 5 {
		_, err = store.Put(ctx, key, data, object.PutOptions{IfAbsent: true, Type: "application/x-ndjson"})
		if fault.Is(err, fault.Unknown) {
			continue
		}
		if !fault.Is(err, fault.Conflict) {
			return err
		}
		// A conflict is also what S3 answers while another conditional write is
		// under way (409), of which nothing need have come.
		if err = mendRejects(ctx, store, key, data); !fault.Is(err, fault.NotExist) {
			return err
		}
	}
	return fault.Wrap(fault.Transient, err)
}

// mendRejects looks whether the object, which is there, has the content of its
// name. A damaged one, or the empty one that a repair has put in its place, is
// written again.
func mendRejects(ctx context.Context, store object.Store, key object.Key, data []byte) error {
	old, attrs, err := store.Get(ctx, key)
	if err != nil || bytes.Equal(old, data) {
		return err
	}
	if len(old) > 0 {
		if _, err := SetAside(ctx, store, key, old); err != nil {
			return err
		}
	}
	_, err = store.Put(ctx, key, data, object.PutOptions{IfMatch: attrs.ETag, Type: "application/x-ndjson"})
	if fault.Is(err, fault.Conflict) || fault.Is(err, fault.Unknown) {
		err = nil // another run did the same, or the next one does
	}
	return err
}

// CountRejects counts the objects of rejects and tells when the newest was written, by
// listing them alone.
func CountRejects(ctx context.Context, store object.Store) (files int64, newest time.Time, err error) {
	for a, err := range store.List(ctx, rejectsPrefix) {
		if err != nil {
			return 0, time.Time{}, fmt.Errorf("list rejects: %w", err)
		}
		if !strings.HasSuffix(string(a.Key), ".jsonl") {
			continue
		}
		files++
		if a.Modified.After(newest) {
			newest = a.Modified
		}
	}
	return files, newest, nil
}

// RejectFile is one object of rejects.
type RejectFile struct {
	Month string // 2024-01, or Undated
	Key   object.Key
	Rows  []sample.Reject
}

// Rejects yields the recorded rejects in order of their keys. A file that can
// not be read, or that is not what its name says, is yielded with its error and
// what it holds, and the others go on.
func Rejects(ctx context.Context, store object.Store) iter.Seq2[RejectFile, error] {
	return func(yield func(RejectFile, error) bool) {
		for a, err := range store.List(ctx, rejectsPrefix) {
			if err != nil {
				yield(RejectFile{}, err)
				return
			}
			month, name, ok := strings.Cut(strings.TrimPrefix(string(a.Key), rejectsPrefix), "/")
			if !ok || !strings.HasSuffix(name, ".jsonl") {
				continue
			}
			f := RejectFile{Month: month, Key: a.Key}
			data, _, err := store.Get(ctx, a.Key)
			if err == nil {
				f.Rows, err = parseRejects(data)
				// An empty one stands for one that could not be read.
				if err == nil && len(data) > 0 && !NamedByContent(a.Key, data) {
					err = fault.Errorf(fault.Corrupt, "its content is not that which its name says")
				}
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", a.Key, err)
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

// NamedByContent reports whether a file of rejects holds what was written.
func NamedByContent(key object.Key, data []byte) bool {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]) == strings.TrimSuffix(path.Base(string(key)), ".jsonl")
}

func parseRejects(data []byte) ([]sample.Reject, error) {
	var rows []sample.Reject
	sc := bufio.NewScanner(bytes.NewReader(data))
	sc.Buffer(nil, 16<<20) // a row of D1 holds at most 2 MB, twice that as hex
	for n := 1; sc.Scan(); n++ {
		var r sample.Reject
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			return rows, fault.Errorf(fault.Corrupt, "line %d: %w", n, err)
		}
		rows = append(rows, r)
	}
	if err := sc.Err(); err != nil {
		return rows, fault.Wrap(fault.Corrupt, err) // a line that is no row of any source
	}
	return rows, nil
}
