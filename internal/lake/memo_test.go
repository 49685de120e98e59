package lake

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

// countedSource counts the rows that are read.
type countedSource struct {
	hotTier
	rows int64
}

func (c *countedSource) Read(ctx context.Context, q source.Query, f func(*sample.Batch) error) (source.Stats, error) {
	return c.hotTier.Read(ctx, q, func(b *sample.Batch) error { c.rows += int64(b.Len()); return f(b) })
}

func (c *countedSource) Latest(ctx context.Context, points []int32, days utc.Days, f func(*sample.Batch) error) error {
	return c.hotTier.Latest(ctx, points, days, func(b *sample.Batch) error { c.rows += int64(b.Len()); return f(b) })
}

// memos are the files of the cache that a memo can be in.
func (w *world) memos(name string) []string {
	w.t.Helper()
	paths, err := filepath.Glob(filepath.Join(w.cache.dir, catalogDir, catalogID(name, memoKey, "")+"-*"))
	w.must(err)
	return paths
}

// TestLakeMemo: a new session answers ahead by what the last one heard, and right
// whatever that was.
func TestLakeMemo(t *testing.T) {
	w := small(t)
	b := w.point("B", "ELEC")
	w.fill(b, day("2024-03-09"), day("2024-03-11"), 4)
	oracle := w.oracle()
	store := &heldList{Store: w.store}
	src := &countedSource{hotTier: w.src}
	o := w.options()
	o.Store, o.Source = store, src
	// first asks a question that is the first of a session, and says whether all was
	// there before the manifests were listed.
	first := func(o Options, query string) (s Stats, ahead bool) {
		t.Helper()
		l, err := Open(t.Context(), o)
		w.must(err)
		defer func() { w.must(l.Close()) }()
		store.next(func() error {
			for range 200 {
				if pipes, _ := filepath.Glob(l.pins.Dir() + "/result-*"); len(pipes) > 0 {
					ahead = true
					break
				}
				if l.o.StoreName == "other" {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			return nil
		})
		src.rows = 0
		s, err = l.Write(t.Context(), Query{SQL: query}, io.Discard, CSV)
		w.must(err)
		if src.rows != s.HotRows {
			t.Errorf("%d rows were read of the hot tier, the query counts %d", src.rows, s.HotRows)
		}
		store.next(nil)
		w.lake = l
		w.same(oracle, Query{SQL: query})
		return s, ahead
	}
	const recent = allSamples + " WHERE ts >= '2024-03-08'"
	if _, ahead := first(o, recent); ahead {
		t.Error("the first session of all knows something")
	}
	s, ahead := first(o, recent)
	if !ahead || s.Replans != 0 || s.HotRows != 20 {
		t.Errorf("by the memo: ahead %v, %+v; want 20 rows of the hot tier", ahead, s)
	}
	if len(w.memos("test")) != 1 {
		t.Errorf("memos: %q", w.memos("test"))
	}

	// One that is stale: planned twice, read once. After rows of days that have ended
	// the manifests are listed once more, which ends it before there is an answer.
	w.archive(day("2024-03-01"), day("2024-03-03"))
	oracle = w.oracle()
	if s, ahead := first(o, recent); ahead || s.HotRows != 20 {
		t.Errorf("by a memo that is stale: ahead %v, %+v; want 20 rows of the hot tier, once", ahead, s)
	}
	w.archive(day("2024-03-03"), day("2024-03-04"))
	w.point("C", "HVAC")
	oracle = w.oracle()
	if s, ahead := first(o, "SELECT point_id, ts, value FROM latest"); !ahead || s.HotRows != 2 {
		t.Errorf("latest, by a memo that is stale: ahead %v, %+v; want 2 seeks that found a row", ahead, s)
	}
	// A day that is cold by now is left out of what was read.
	w.archive(day("2024-03-08"), day("2024-03-09"))
	w.trim(1, day("2024-03-08"))
	oracle = w.oracle()
	if s, _ := first(o, recent); s.HotRows != 16 {
		t.Errorf("a day has become cold: %+v, want the 16 rows that are hot, once", s)
	}
	if len(w.memos("test")) != 1 {
		t.Errorf("memos: %q", w.memos("test"))
	}

	// One of another store is none.
	other := o
	other.StoreName = "other"
	if _, ahead := first(other, recent); ahead {
		t.Error("the memo of another store is used")
	}

	// Damaged, or made up: what it says is in no answer.
	good, err := os.ReadFile(w.memos("test")[0])
	w.must(err)
	for what, data := range map[string]string{
		"empty": "", "half": string(good[:len(good)/2]), "no JSON": "{\n" + string(good), "months": strings.Replace(string(good), "2024-02", "2024-01", 1),
		"ETags": strings.Replace(string(good), `"etag":"`, `"etag":"x`, 1), "names": strings.Replace(string(good), `"name":"A"`, `"name":"Z"`, 1),
		"no point": strings.Replace(string(good), `{"id":1,`, `{"id":7,`, 1), "points.json": strings.Replace(string(good), `"points":"`, `"points":"x`, 1),
	} {
		for _, p := range w.memos("test") {
			w.must(os.Remove(p))
		}
		pins, err := w.cache.Pin()
		w.must(err)
		w.must(pins.keepMemo(catalogID("test", memoKey, ""), []byte(data)))
		w.must(pins.Close())
		first(o, allSamples)
		if now, err := os.ReadFile(w.memos("test")[0]); err != nil || !slices.Equal(now, good) {
			t.Errorf("%s: the memo was not put right: %q, %v", what, now, err)
		}
	}
	path := w.memos("test")[0]
	w.must(os.Chmod(path, 0o600))
	w.must(os.WriteFile(path, slices.Concat(good[:20], []byte("#"), good[21:]), 0o600))
	if _, ahead := first(o, allSamples); ahead {
		t.Error("a memo with another CRC is used")
	}
}
