package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/utc"
	"etl/jobs"
)

// heldList is a store whose next listing of the manifests calls hold before it
// begins, once.
type heldList struct {
	object.Store
	mu   sync.Mutex
	hold func() error
}

func (h *heldList) List(ctx context.Context, prefix string) iter.Seq2[object.Attrs, error] {
	h.mu.Lock()
	hold := h.hold
	h.hold = nil
	h.mu.Unlock()
	if hold != nil && prefix == "_manifests/" {
		if err := hold(); err != nil {
			return func(yield func(object.Attrs, error) bool) { yield(object.Attrs{}, err) }
		}
	}
	return h.Store.List(ctx, prefix)
}

func (h *heldList) next(hold func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold = hold
}

// guarded is a writer that must not be written to while it is closed.
type guarded struct {
	t  *testing.T
	mu sync.Mutex
	b  bytes.Buffer
	no bool
}

func (g *guarded) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.no {
		g.t.Errorf("before the listing has ended the reader got %.80q", p)
	}
	return g.b.Write(p)
}

func (g *guarded) set(no bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.no = no
}

// TestLakeHeldBack: a session answers while the manifests are listed, and the
// reader gets nothing of that before the listing has shown that it is right; if it
// shows that it is not, nothing at all.
func TestLakeHeldBack(t *testing.T) {
	defer func(n int) { maxHeld = n }(maxHeld)
	maxHeld = 64 << 10
	w := small(t)
	store := &heldList{Store: w.store}
	o := w.options()
	o.Store = store
	l := w.open(o)
	const rows = "SELECT count(*) AS n, count(*) FILTER (tier = 'cold') AS cold FROM samples"
	const wide = "SELECT value, tier, r.range, repeat('x', 100) FROM samples, range(100) r ORDER BY ALL"
	ask := func(out *guarded, query string) Stats {
		t.Helper()
		s, err := l.Write(t.Context(), Query{SQL: query}, out, CSV)
		w.must(err)
		return s
	}
	// answering waits until DuckDB writes an answer: its pipe is there until that is read.
	answering := func() {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			if pipes, _ := filepath.Glob(l.pins.Dir() + "/result-*"); len(pipes) > 0 {
				time.Sleep(20 * time.Millisecond) // the answer may be there by now
				return
			}
			if time.Now().After(end) {
				t.Error("no answer is made while the manifests are listed")
				return
			}
		}
	}
	want := func(query string) string {
		t.Helper()
		var b bytes.Buffer
		_, err := w.open(w.options()).Write(t.Context(), Query{SQL: query}, &b, CSV)
		w.must(err)
		return b.String()
	}
	ask(&guarded{t: t}, rows) // from here on the session knows a catalog
	first := day("2024-03-01")
	for _, query := range []string{rows, wide} {
		for _, changes := range []bool{false, true} {
			out := &guarded{t: t, no: true}
			store.next(func() error {
				answering()
				if changes {
					w.archive(first, first+2)
					for d := first; d < first+2; d++ {
						w.trim(1, d) // what was hot is cold now
					}
					first += 2
				}
				out.set(false)
				return nil
			})
			s := ask(out, query)
			if got := out.b.String(); got != want(query) || (s.Replans > 0) != changes || s.Rows != int64(strings.Count(got, "\n"))-1 {
				t.Errorf("changes %v: %d rows after %d replans: %.200q, want %.200q", changes, s.Rows, s.Replans, got, want(query))
			}
		}
	}

	// Rows and temporary tables are of the one that counts, too.
	store.next(func() error { w.archive(first, first+1); w.trim(1, first); return nil })
	r, err := l.Rows(t.Context(), Query{SQL: "SELECT ts FROM samples ORDER BY ts"}, 1000)
	if err != nil || len(r.Cells) != len(w.truth) || r.Stats.Rows != int64(len(w.truth)) || len(r.Columns) != 1 {
		t.Errorf("%d rows of %d, %v", len(r.Cells), len(w.truth), err)
	}
	store.next(func() error { w.archive(first+1, first+2); w.trim(1, first+1); return nil })
	_, err = l.Exec(t.Context(), "CREATE TEMP TABLE x AS SELECT * FROM samples")
	w.must(err)
	out := &guarded{t: t}
	if ask(out, "SELECT count(*) AS n FROM x"); out.b.String() != fmt.Sprintf("n\n%d\n", len(w.truth)) {
		t.Errorf("a temporary table has %q rows, want %d", out.b.String(), len(w.truth))
	}

	// What can not be confirmed is not given, and the session goes on.
	out = &guarded{t: t, no: true}
	store.next(func() error { answering(); return fault.Errorf(fault.Unavailable, "no listing") })
	if _, err := l.Write(t.Context(), Query{SQL: rows}, out, CSV); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a listing that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	store.next(func() error { answering(); cancel(); return nil })
	if _, err := l.Write(ctx, Query{SQL: rows}, out, CSV); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while the manifests are listed: %v", err)
	}
	out.set(false)
	if ask(out, rows); out.b.String() != want(rows) {
		t.Errorf("after that: %q, want %q", out.b.String(), want(rows))
	}
}

// TestVerdict: nothing passes before the verdict, all of it after a yes, none after a no.
func TestVerdict(t *testing.T) {
	defer func(n int) { maxHeld = n }(maxHeld)
	maxHeld = 100
	text := strings.Repeat("0123456789", 100_000)
	for _, ok := range []bool{true, false} {
		v := &verdict{known: make(chan struct{})}
		out := &guarded{t: t, no: true}
		r, pipe := io.Pipe()
		var work sync.WaitGroup
		work.Go(func() {
			if err := v.pass(out, r); err != nil {
				t.Error(err)
			}
		})
		work.Go(func() {
			_, err := io.WriteString(pipe, text)
			if err != nil {
				t.Error(err)
			}
			pipe.Close()
		})
		time.Sleep(20 * time.Millisecond)
		if v.refused() || !v.pending() {
			t.Error("it is known already")
		}
		out.set(!ok)
		v.ok = ok
		close(v.known)
		work.Wait()
		if got := out.b.String(); ok && got != text || !ok && got != "" {
			t.Errorf("after %v: %d bytes passed of %d", ok, len(got), len(text))
		}
		if v.refused() == ok || v.passed() != ok {
			t.Errorf("refused %v after %v", v.refused(), ok)
		}
	}
}

// TestLakeBeforeListing: over an empty cache the manifests of the months that a
// statement names, and points.json, are fetched while they are listed, and count if
// they are what was listed; a session that another one has left a memo for, and a
// statement without a beginning, ask for nothing that is not listed.
func TestLakeBeforeListing(t *testing.T) {
	w := small(t)
	gets := func(key string) (n int) {
		for _, op := range w.store.Trace() {
			if op == "get _manifests/"+key+".json" {
				n++
			}
		}
		return n
	}
	cache := func() *Cache { return openCache(t, t.TempDir(), large) }
	open := func(c *Cache) (*Lake, *heldList) {
		store := &heldList{Store: w.store}
		o := w.options()
		o.Store, o.Cache = store, c
		return w.open(o), store
	}
	const bounded = "SELECT count(*) AS n FROM samples WHERE ts >= '2024-01-05' AND ts < '2024-03-20'"
	const endless = "SELECT count(*) AS n FROM samples WHERE ts >= '2024-02-01'"
	const whole = "SELECT count(*) AS n FROM samples"
	count := func(l *Lake, query string) {
		t.Helper()
		if got, _, err := ask(t, l, Query{SQL: query}); err != nil || !slices.Equal(got, []string{fmt.Sprint(len(w.truth))}) {
			t.Errorf("%s: %q, %v, want %d", query, got, err, len(w.truth))
		}
	}
	late := day("2024-02-03").Start()
	for _, query := range []string{bounded, endless} {
		for _, changes := range []bool{false, true} {
			c := cache()
			l, store := open(c)
			w.store.Reset()
			store.next(func() error {
				for end := time.Now().Add(20 * time.Second); gets("points") == 0 || gets("2024-02") == 0; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Error("nothing is fetched before it is listed:", w.store.Trace())
						break
					}
				}
				if changes {
					late += 7
					w.put(1, late, row{3, 192, 0})
					w.job(jobs.ArchiveOptions{Mode: jobs.Rearchive, Days: utc.Days{From: day("2024-02-03"), To: day("2024-02-04")}})
				}
				return nil
			})
			count(l, query)
			if !changes && (gets("points") != 1 || gets("2024-02") != 1) {
				t.Errorf("%s: %d and %d gets: %q", query, gets("points"), gets("2024-02"), w.store.Trace())
			}
			// The next session knows what to ask for, once this one has written it.
			l.behind.Wait()
			l, store = open(c)
			w.store.Reset()
			store.next(func() error {
				time.Sleep(50 * time.Millisecond)
				if w.store.Count() > 1 {
					t.Errorf("asked for before it was listed: %q", w.store.Trace())
				}
				return nil
			})
			count(l, query)
		}
	}
	l, store := open(cache())
	w.store.Reset()
	store.next(func() error {
		time.Sleep(50 * time.Millisecond)
		if gets("2024-02") > 0 {
			t.Errorf("asked for before it was listed: %q", w.store.Trace())
		}
		return nil
	})
	count(l, whole)
}

// TestLakeAsksEarly: a text without a table of the lake asks nothing, whatever is
// wrong with it, and one that can not be parsed leaves nothing behind.
func TestLakeAsksEarly(t *testing.T) {
	w := small(t)
	w.store.Reset()
	for _, text := range []string{"SELECT 1", "SELEC 1", "SELECT * FROM nothing"} {
		_, err := w.lake.Write(t.Context(), Query{SQL: text}, io.Discard, CSV)
		if n := w.store.Count(); n > 0 {
			t.Errorf("%s asks the store: %q (%v)", text, w.store.Trace(), err)
		}
	}
	if _, err := w.lake.Write(t.Context(), Query{SQL: "SELECT FROM samples WHERE"}, io.Discard, CSV); !fault.Is(err, fault.Usage) {
		t.Error(err)
	}
	if got, _, err := ask(t, w.lake, Query{SQL: "SELECT count(*) FROM samples"}); err != nil || got[0] != fmt.Sprint(len(w.truth)) {
		t.Errorf("after that: %q, %v", got, err)
	}
}
