package manifests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
)

// fake is an object.Store in memory. Every version has an ETag of its own, also
// when the bytes are the same.
type fake struct {
	mu      sync.Mutex
	objects map[object.Key]version
	n       int
	// before, if set, is called with each operation before it happens and may
	// delay it or make it fail. after is called once a Put has happened.
	before func(op string, k object.Key) error
	after  func(k object.Key, old, new []byte) error
	ops    []string
}

type version struct {
	data []byte
	etag string
}

func newFake() *fake { return &fake{objects: map[object.Key]version{}} }

func (f *fake) enter(ctx context.Context, op string, k object.Key) error {
	if f.before != nil {
		if err := f.before(op, k); err != nil {
			return err
		}
	}
	f.mu.Lock()
	f.ops = append(f.ops, op+" "+string(k))
	f.mu.Unlock()
	return ctx.Err()
}

func (f *fake) Get(ctx context.Context, k object.Key) ([]byte, object.Attrs, error) {
	if err := f.enter(ctx, "get", k); err != nil {
		return nil, object.Attrs{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.objects[k]
	if !ok {
		return nil, object.Attrs{}, fault.Errorf(fault.NotExist, "get %s: no such object", k)
	}
	return bytes.Clone(v.data), object.Attrs{Key: k, Size: int64(len(v.data)), ETag: v.etag}, nil
}

func (f *fake) Put(ctx context.Context, k object.Key, data []byte, o object.PutOptions) (object.Attrs, error) {
	if err := f.enter(ctx, "put", k); err != nil {
		return object.Attrs{}, err
	}
	f.mu.Lock()
	old, ok := f.objects[k]
	if (o.IfAbsent && ok) || (o.IfMatch != "" && old.etag != o.IfMatch) {
		f.mu.Unlock()
		return object.Attrs{}, fault.Errorf(fault.Conflict, "put %s: another version", k)
	}
	f.n++
	etag := fmt.Sprintf("v%d", f.n)
	f.objects[k] = version{bytes.Clone(data), etag}
	f.mu.Unlock()
	if f.after != nil {
		if err := f.after(k, old.data, data); err != nil {
			return object.Attrs{}, err
		}
	}
	return object.Attrs{Key: k, Size: int64(len(data)), ETag: etag}, nil
}

func (f *fake) List(ctx context.Context, prefix string) iter.Seq2[object.Attrs, error] {
	return func(yield func(object.Attrs, error) bool) {
		if err := f.enter(ctx, "list", object.Key(prefix)); err != nil {
			yield(object.Attrs{}, err)
			return
		}
		f.mu.Lock()
		snap := maps.Clone(f.objects)
		f.mu.Unlock()
		for _, k := range slices.Sorted(maps.Keys(snap)) {
			if strings.HasPrefix(string(k), prefix) && !yield(object.Attrs{Key: k, Size: int64(len(snap[k].data)), ETag: snap[k].etag}, nil) {
				return
			}
		}
	}
}

// count is the number of operations so far that begin with s.
func (f *fake) count(s string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, op := range f.ops {
		if strings.HasPrefix(op, s) {
			n++
		}
	}
	return n
}

// toy stands for a month file: timestamps, and the days archived empty.
type toy struct {
	Point int32
	Name  string
	Month utc.Month
	Zeros utc.Set
	TS    []int64 // ascending
}

func (t toy) encode() []byte {
	b, err := json.Marshal(t)
	if err != nil {
		panic(err)
	}
	return b
}

func (t toy) facts() Facts {
	f := Facts{Point: t.Point, Name: t.Name, Month: t.Month, Days: sample.NewDayCounts(t.Month), Samples: int64(len(t.TS))}
	for i := range f.Days {
		if t.Zeros.Has(i) {
			f.Days[i] = 0
		}
	}
	if !sample.CountDays(f.Days, t.Month, t.TS) {
		panic("toy rows")
	}
	if len(t.TS) > 0 {
		f.First, f.Last = t.TS[0], t.TS[len(t.TS)-1]
	}
	sum := sha256.Sum256(fmt.Append(nil, t.TS))
	f.RowsSHA256 = hex.EncodeToString(sum[:])
	return f
}

func parseToy(data []byte) (t toy, err error) {
	if err := json.Unmarshal(data, &t); err != nil {
		return t, fault.Wrap(fault.Corrupt, err)
	}
	return t, nil
}

func describeToy(data []byte) (Facts, error) {
	t, err := parseToy(data)
	if err != nil {
		return Facts{}, err
	}
	return t.facts(), nil
}

var jan = utc.MonthOf(2024, time.January)

// at is an instant on the i-th day of January 2024, i from 0.
func at(i int, ms int64) int64 { return (jan.First() + utc.Day(i)).Start() + ms }

// put stores a toy at the key, on the condition that etag names ("" none, "-" absence).
func put(t testing.TB, f *fake, key object.Key, etag string, y toy) Entry {
	t.Helper()
	o := object.PutOptions{IfMatch: etag}
	if etag == "-" {
		o = object.PutOptions{IfAbsent: true}
	}
	a, err := f.Put(t.Context(), key, y.encode(), o)
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEntry(key, y.encode(), a.ETag, y.facts())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func key(slug string) object.Key { return object.Key(DirOf(jan) + slug + ".parquet") }

// ready is a loaded committer of January 2024.
func ready(t testing.TB, f *fake) *Committer {
	t.Helper()
	c := NewCommitter(f, jan, describeToy, Options{})
	if w, err := c.Load(t.Context()); err != nil || len(w) > 0 {
		t.Fatal(w, err)
	}
	return c
}

// commit adds the changes and commits all that is pending, which must succeed.
func commit(t testing.TB, c *Committer, changes ...Change) Result {
	t.Helper()
	for _, ch := range changes {
		c.Add(ch)
	}
	res, err := c.Commit(t.Context())
	if err != nil || len(res.Failed) > 0 || len(res.Committed) < len(changes) {
		t.Fatalf("%+v, %v", res, err)
	}
	return res
}

// stored is the manifest of January 2024 as it lies in the store.
func stored(t testing.TB, f *fake) *Manifest {
	t.Helper()
	m, _, err := Load(t.Context(), f, jan)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var errLost = fault.Wrap(fault.Unknown, errors.New("connection reset"))
