//go:build linux || darwin

package object_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/object/objecttest"
)

func openDir(t *testing.T) object.Store {
	t.Helper()
	s, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// atOnce repeats without waiting.
func atOnce(p fault.Policy) fault.Policy {
	p.Sleep = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return p
}

// TestConformanceOfDecorators has each second operation fail below them: the
// suite must not notice.
func TestConformanceOfDecorators(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store {
		f := objecttest.NewFaults(openDir(t))
		f.Inject(func(o objecttest.Op) bool { return o.N%2 == 0 }, objecttest.Fail(fault.Transient))
		return object.Retry(object.Pace(f, time.Millisecond), atOnce(fault.Policy{Attempts: 1000}))
	})
}

// TestRetryRepeatsOnlyTransient tries each operation with each kind of error.
func TestRetryRepeatsOnlyTransient(t *testing.T) {
	for _, k := range []fault.Kind{
		fault.Internal, fault.Usage, fault.Invalid, fault.NotExist, fault.Conflict, fault.Corrupt,
		fault.Transient, fault.Unknown, fault.Unavailable,
	} {
		for name, do := range map[string]func(object.Store) error{
			"get": func(s object.Store) error {
				data, a, err := s.Get(t.Context(), "k")
				if err != nil && (data != nil || a.ETag != "") {
					t.Errorf("get returned %q, %+v beside %v", data, a, err)
				}
				return err
			},
			"put": func(s object.Store) error {
				a, err := s.Put(t.Context(), "k", []byte("new"), object.PutOptions{})
				if err != nil && a.ETag != "" {
					t.Errorf("put returned %+v beside %v", a, err)
				}
				return err
			},
			"list": func(s object.Store) error {
				for _, err := range s.List(t.Context(), "") {
					if err != nil {
						return err
					}
				}
				return nil
			},
		} {
			below := openDir(t)
			if _, err := below.Put(t.Context(), "k", []byte("old"), object.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			f := objecttest.NewFaults(below)
			f.Inject(objecttest.First(2, objecttest.On(name, "")), objecttest.Fail(k))
			var retries fault.Counter
			err := do(object.Retry(f, atOnce(fault.Policy{Notify: retries.Count})))
			tries, want := f.Count(), 1
			if k == fault.Transient {
				want = 3
			}
			if tries != want || int(retries.Load()) != want-1 || (err == nil) != (want == 3) || err != nil && !fault.Is(err, k) {
				t.Errorf("%s, %s: tried %d times, want %d; %v", name, k, tries, want, err)
			}
		}
	}
}

// TestRetryGivesUp counts attempts, and shows that a conditional put which was
// never done leaves what was there.
func TestRetryGivesUp(t *testing.T) {
	f := objecttest.NewFaults(openDir(t))
	s := object.Retry(f, atOnce(fault.Policy{Attempts: 4}))
	a, err := s.Put(t.Context(), "k", []byte("old"), object.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.Reset()
	f.Inject(objecttest.From(1), objecttest.Fail(fault.Transient))
	if _, err := s.Put(t.Context(), "k", []byte("new"), object.PutOptions{IfMatch: a.ETag}); !fault.Is(err, fault.Transient) {
		t.Fatal(err)
	}
	want := []string{"put k if-match", "put k if-match", "put k if-match", "put k if-match"}
	if !slices.Equal(f.Trace(), want) {
		t.Fatalf("operations %q, want %q", f.Trace(), want)
	}
	f.Reset()
	if data, b, err := s.Get(t.Context(), "k"); err != nil || string(data) != "old" || b.ETag != a.ETag {
		t.Fatalf("%q, %+v, %v", data, b, err)
	}
}

func TestRetryEndsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := objecttest.NewFaults(openDir(t))
	f.Inject(objecttest.On("", ""), objecttest.Fail(fault.Transient))
	s := object.Retry(f, fault.Policy{Base: time.Hour, Cap: time.Hour, Budget: 10 * time.Hour, Notify: func(fault.Retry) { cancel() }})
	if _, err := s.Put(ctx, "k", nil, object.PutOptions{}); !errors.Is(err, context.Canceled) || f.Count() != 1 {
		t.Fatalf("%v after %d operations", err, f.Count())
	}
}

// brittle is a store whose listings break off after a few objects.
type brittle struct {
	object.Store
	rand   *rand.Rand
	breaks int
}

func (b *brittle) List(ctx context.Context, prefix string) iter.Seq2[object.Attrs, error] {
	return b.list(ctx, prefix, "")
}

func (b *brittle) list(ctx context.Context, prefix string, after object.Key) iter.Seq2[object.Attrs, error] {
	return func(yield func(object.Attrs, error) bool) {
		n := b.rand.IntN(60)
		for a, err := range b.Store.List(ctx, prefix) {
			if a.Key <= after {
				continue
			}
			if n--; n < 0 {
				b.breaks++
				yield(object.Attrs{}, fault.Errorf(fault.Transient, "broken off"))
				return
			}
			if !yield(a, err) {
				return
			}
		}
	}
}

type brittleAfter struct{ *brittle }

func (b brittleAfter) ListAfter(ctx context.Context, prefix string, after object.Key) iter.Seq2[object.Attrs, error] {
	return b.list(ctx, prefix, after)
}

// TestRetryOfLists compares listings that break off anywhere with whole ones.
func TestRetryOfLists(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	store := openDir(t)
	var want []object.Key
	for range 40 {
		k := object.Key(fmt.Sprintf("%c/%d", 'a'+r.IntN(3), r.IntN(1000)))
		if _, err := store.Put(t.Context(), k, nil, object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		want = append(want, k)
	}
	slices.Sort(want)
	want = slices.Compact(want)
	b := &brittle{Store: store, rand: r}
	for _, s := range []object.Store{b, brittleAfter{b}, object.Pace(brittleAfter{b}, time.Second)} {
		b.breaks = 0
		for range 50 {
			stop := r.IntN(2 * len(want)) // some callers stop early
			var got []object.Key
			for a, err := range object.Retry(s, atOnce(fault.Policy{Attempts: 1000})).List(t.Context(), "") {
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, a.Key); len(got) == stop {
					break
				}
			}
			if n := min(len(want), max(1, stop)); stop > 0 && !slices.Equal(got, want[:n]) {
				t.Fatalf("%d keys, want %d:\n got %q\nwant %q", len(got), n, got, want[:n])
			}
		}
		if b.breaks == 0 {
			t.Fatal("no listing broke off")
		}
	}
}

// TestRetryOfSlowReader gives a caller that takes hours between two objects the
// whole budget for each.
func TestRetryOfSlowReader(t *testing.T) {
	store := openDir(t)
	for _, k := range []object.Key{"a", "b", "c"} {
		if _, err := store.Put(t.Context(), k, nil, object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	now := time.Now()
	b := &brittle{Store: store, rand: rand.New(rand.NewPCG(seed, 0))}
	n := 0
	for b.breaks < 5 {
		for _, err := range object.Retry(b, atOnce(fault.Policy{Now: func() time.Time { return now }, Attempts: 1000})).List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			n++
			now = now.Add(5 * time.Hour)
		}
	}
	if n%3 != 0 {
		t.Fatalf("%d objects", n)
	}
}

// clocked records when puts of a key were under way.
type clocked struct {
	object.Store
	mu    sync.Mutex
	began map[object.Key][]time.Time
	err   error
	takes time.Duration
	live  map[object.Key]int
	t     *testing.T
}

func (c *clocked) Put(ctx context.Context, key object.Key, data []byte, o object.PutOptions) (object.Attrs, error) {
	if err := ctx.Err(); err != nil {
		return object.Attrs{}, err
	}
	c.mu.Lock()
	c.began[key] = append(c.began[key], time.Now())
	if c.live[key]++; c.live[key] > 1 {
		c.t.Errorf("two puts of %s at once", key)
	}
	c.mu.Unlock()
	time.Sleep(c.takes)
	c.mu.Lock()
	c.live[key]--
	c.mu.Unlock()
	return object.Attrs{}, c.err
}

// TestPace runs in a bubble, where time passes as soon as all wait.
func TestPace(t *testing.T) {
	const takes = 300 * time.Millisecond
	for _, tc := range []struct {
		name string
		err  error
		gap  time.Duration // between the beginnings of two puts of a key
	}{
		{"done", nil, time.Second + takes},
		{"transient", fault.Errorf(fault.Transient, "x"), time.Second + takes},
		{"unknown", fault.Errorf(fault.Unknown, "x"), time.Second + takes},
		{"conflict", fault.Errorf(fault.Conflict, "x"), takes},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &clocked{began: map[object.Key][]time.Time{}, live: map[object.Key]int{}, err: tc.err, takes: takes, t: t}
				s := object.Pace(c, time.Second)
				start := time.Now()
				var wg sync.WaitGroup
				for i := range 30 {
					wg.Go(func() {
						if _, err := s.Put(t.Context(), object.Key(fmt.Sprint("k", i%3)), nil, object.PutOptions{}); err != tc.err {
							t.Errorf("put: %v", err)
						}
					})
				}
				wg.Wait()
				for key, began := range c.began {
					if len(began) != 10 || began[0] != start {
						t.Errorf("%s: %d puts, the first after %v", key, len(began), began[0].Sub(start))
					}
					for i := 1; i < len(began); i++ {
						if gap := began[i].Sub(began[i-1]); gap != tc.gap {
							t.Errorf("%s: put %d began %v after the one before, want %v", key, i, gap, tc.gap)
						}
					}
				}
			})
		})
	}
}

func TestPaceCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clocked{began: map[object.Key][]time.Time{}, live: map[object.Key]int{}, takes: 10 * time.Minute, t: t}
		s := object.Pace(c, time.Hour)
		var wg sync.WaitGroup
		wg.Go(func() { s.Put(t.Context(), "k", nil, object.PutOptions{}) })
		synctest.Wait()
		// One in the queue, one that waits for its time, one that comes late.
		ctx, cancel := context.WithCancel(t.Context())
		var ended atomic.Int64
		start := time.Now()
		for _, after := range []time.Duration{time.Minute, 20 * time.Minute} {
			wg.Go(func() {
				time.Sleep(after)
				if _, err := s.Put(ctx, "k", nil, object.PutOptions{}); !errors.Is(err, context.Canceled) {
					t.Errorf("put: %v", err)
				}
				ended.Add(1)
			})
		}
		time.Sleep(30 * time.Minute)
		cancel()
		synctest.Wait()
		if n, d := ended.Load(), time.Since(start); n != 2 || d != 30*time.Minute {
			t.Errorf("%d have ended after %v", n, d)
		}
		// The key is not blocked by those that left.
		s.Put(t.Context(), "k", nil, object.PutOptions{})
		wg.Wait()
		if began := c.began["k"]; len(began) != 2 || began[1].Sub(began[0]) != 70*time.Minute {
			t.Errorf("puts at %v", began)
		}
	})
}
