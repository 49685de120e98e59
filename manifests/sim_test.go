package manifests

import (
	"context"
	"errors"
	"flag"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
)

var simSeed = flag.Uint64("seed", 0, "first seed of the simulations; 0 chooses one")

// simRuns take about a second; 15,000 found nothing more.
const simRuns = 600

// TestSimulation runs two to four runners on one month in random interleavings
// of their store operations, with lost replies, writes that never happened and
// crashes, and holds the store against a naive model.
func TestSimulation(t *testing.T) {
	first := *simSeed
	if first == 0 {
		first = rand.Uint64N(1 << 32)
	}
	t.Logf("-seed %d", first)
	puts, crashes := 0, 0
	for seed := first; seed < first+simRuns; seed++ {
		var s *sim
		synctest.Test(t, func(t *testing.T) {
			s = newSim(t, seed)
			s.run()
		})
		if t.Failed() {
			t.Fatalf("with -seed %d", seed)
		}
		puts += s.f.count("put _manifests")
		crashes += s.crashes
	}
	t.Logf("reliability: committers of one manifest: %d interleavings of two to four runners, with %d manifest writes and %d crashes", simRuns, puts, crashes)
	if crashes == 0 {
		t.Error("nothing ever crashed")
	}
}

type sim struct {
	t     *testing.T
	rnd   *rand.Rand
	f     *fake
	table []sample.Point
	// faulty and crashing say what the scheduler may do beside letting operations happen.
	faulty, crashing bool
	crashes          int

	mu      sync.Mutex
	waiting []*gated
	// The model: what was stored, and which days were reported as committed.
	rows map[int32]map[int64]bool
	days map[int32]utc.Set
}

type verdict int

const (
	happen verdict = iota
	loseRequest
	loseReply
	crashBefore
	crashAfter
)

// gated is one runner's view of the store: each operation waits for a verdict.
type gated struct {
	*sim
	verdict chan verdict
	dead    bool
}

var errCrash = fault.Wrap(fault.Unavailable, errors.New("crashed"))

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), f: newFake(), rows: map[int32]map[int64]bool{}, days: map[int32]utc.Set{}}
	s.table = []sample.Point{{ID: 1, Name: "A b"}, {ID: 2, Name: "a-b"}, {ID: 3, Name: "c"}, {ID: 4, Name: "c p3"}}
	s.faulty, s.crashing = s.rnd.IntN(2) == 0, s.rnd.IntN(2) == 0
	if s.rnd.IntN(2) == 0 { // somebody else's object lies where point 3's file should be
		put(t, s.f, key("c"), "-", toy{Point: 99, Name: "c", Month: jan, TS: []int64{at(4, 0)}})
	}
	s.f.after = s.checkStep
	return s
}

func (g *gated) wait() verdict {
	if g.dead {
		return crashBefore
	}
	g.mu.Lock()
	g.waiting = append(g.waiting, g)
	g.mu.Unlock()
	v := <-g.verdict
	g.dead = v == crashBefore || v == crashAfter
	return v
}

func (g *gated) Get(ctx context.Context, k object.Key) ([]byte, object.Attrs, error) {
	if g.wait() >= crashBefore {
		return nil, object.Attrs{}, errCrash
	}
	return g.f.Get(ctx, k)
}

func (g *gated) Put(ctx context.Context, k object.Key, data []byte, o object.PutOptions) (object.Attrs, error) {
	v := g.wait()
	switch v {
	case crashBefore:
		return object.Attrs{}, errCrash
	case loseRequest:
		return object.Attrs{}, errLost
	}
	a, err := g.f.Put(ctx, k, data, o)
	switch {
	case v == crashAfter:
		return object.Attrs{}, errCrash
	case v == loseReply:
		return object.Attrs{}, errLost
	}
	return a, err
}

func (g *gated) List(ctx context.Context, prefix string) iter.Seq2[object.Attrs, error] {
	return func(yield func(object.Attrs, error) bool) {
		if g.wait() >= crashBefore {
			yield(object.Attrs{}, errCrash)
			return
		}
		for a, err := range g.f.List(ctx, prefix) {
			if !yield(a, err) {
				return
			}
		}
	}
}

func (s *sim) run() {
	var live sync.WaitGroup
	n, running := 2+s.rnd.IntN(3), 0
	done := make(chan struct{}, n)
	for range n {
		g := &gated{sim: s, verdict: make(chan verdict)}
		rnd := rand.New(rand.NewPCG(s.rnd.Uint64(), 2))
		running++
		live.Go(func() { s.runner(g, rnd); done <- struct{}{} })
	}
	for running > 0 {
		synctest.Wait()
		for len(done) > 0 {
			<-done
			running--
		}
		s.mu.Lock()
		if len(s.waiting) == 0 {
			s.mu.Unlock()
			time.Sleep(time.Second) // a runner backs off
			continue
		}
		i := s.rnd.IntN(len(s.waiting))
		g := s.waiting[i]
		s.waiting = slices.Delete(s.waiting, i, i+1)
		s.mu.Unlock()
		v := happen
		if s.faulty && s.rnd.IntN(12) == 0 {
			v = loseRequest + verdict(s.rnd.IntN(2))
		}
		if s.crashing && s.rnd.IntN(60) == 0 {
			v = crashBefore + verdict(s.rnd.IntN(2))
			s.crashes++
		}
		g.verdict <- v
	}
	live.Wait()
	if s.crashes > 0 {
		s.again()
	}
	s.checkEnd()
}

// runner archives random days of random points as a job would.
func (s *sim) runner(g *gated, rnd *rand.Rand) {
	ctx := s.t.Context()
	c := NewCommitter(g, jan, describeToy, Options{Attempts: 50, Workers: 1})
	if _, err := c.Load(ctx); err != nil {
		s.failed("load", err)
		return
	}
	commit := func() bool {
		res, err := c.Commit(ctx)
		if err != nil {
			s.failed("commit", err)
			return false
		}
		for _, f := range res.Failed {
			s.failed("change", f.Err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, ch := range res.Committed {
			s.days[ch.Point] |= ch.Empty
			if ch.Entry != nil {
				s.days[ch.Point] |= ch.Entry.Days.Archived()
			}
		}
		return true
	}
	for range 1 + rnd.IntN(6) {
		p := s.table[rnd.IntN(len(s.table))]
		ch := Change{Point: p.ID, Name: p.Name, Base: c.Manifest().Entry(p.ID)}
		var fresh []int64
		for range 1 + rnd.IntN(2) {
			if day := rnd.IntN(6); rnd.IntN(3) == 0 {
				ch.Empty = ch.Empty.With(day)
			} else {
				fresh = append(fresh, at(day, rnd.Int64N(5)))
			}
		}
		if len(fresh) > 0 {
			e, ok := s.store(g, c, p, fresh, ch.Empty)
			if !ok {
				return
			}
			ch.Entry = e
		}
		c.Add(ch)
		if rnd.IntN(2) == 0 && !commit() {
			return
		}
	}
	commit()
}

// store merges the rows into the point's file.
func (s *sim) store(g *gated, c *Committer, p sample.Point, fresh []int64, empty utc.Set) (*Entry, bool) {
	ctx := s.t.Context()
	for k := range NewNamer(jan, s.table, c.Manifest()).Paths(p) {
		for {
			o := object.PutOptions{IfAbsent: true}
			y := toy{Point: p.ID, Name: p.Name, Month: jan}
			data, a, err := g.Get(ctx, k)
			if err == nil {
				if y, err = parseToy(data); err != nil || y.Point != p.ID {
					break // foreign
				}
				o = object.PutOptions{IfMatch: a.ETag}
			} else if !fault.Is(err, fault.NotExist) {
				s.failed("get", err)
				return nil, false
			}
			old := y.encode()
			y.TS = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(y.TS), fresh...))))
			y.Zeros |= empty
			etag := a.ETag
			if !o.IfAbsent && slices.Equal(old, y.encode()) {
				err = nil // unchanged
			} else if a, err = g.Put(ctx, k, y.encode(), o); err == nil {
				etag = a.ETag
			}
			switch {
			case fault.Is(err, fault.Conflict), fault.Is(err, fault.Unknown):
				continue
			case err != nil:
				s.failed("put", err)
				return nil, false
			}
			s.mu.Lock()
			if s.rows[p.ID] == nil {
				s.rows[p.ID] = map[int64]bool{}
			}
			for _, ts := range fresh {
				s.rows[p.ID][ts] = true
			}
			s.mu.Unlock()
			e, err := NewEntry(k, y.encode(), etag, y.facts())
			if err != nil {
				s.t.Error(err)
			}
			return &e, err == nil
		}
	}
	s.t.Error("no path left")
	return nil, false
}

// again is the run after crashes: it looks at every point's file.
func (s *sim) again() {
	c := NewCommitter(s.f, jan, describeToy, Options{})
	if _, err := c.Load(s.t.Context()); err != nil {
		s.t.Error(err)
		return
	}
	namer := NewNamer(jan, s.table, c.Manifest())
	for _, p := range s.table {
		for k := range namer.Paths(p) {
			data, a, err := s.f.Get(s.t.Context(), k)
			if err != nil {
				break
			}
			if y, _ := parseToy(data); y.Point == p.ID {
				e, err := NewEntry(k, data, a.ETag, y.facts())
				if err != nil {
					s.t.Error(err)
				}
				c.Add(Change{Point: p.ID, Name: p.Name, Base: c.Manifest().Entry(p.ID), Entry: &e})
				break
			}
		}
	}
	if res, err := c.Commit(s.t.Context()); err != nil || len(res.Failed) > 0 {
		s.t.Error(res, err)
	}
}

func (s *sim) failed(what string, err error) {
	if !errors.Is(err, errCrash) {
		s.t.Errorf("%s: %v", what, err)
	}
}

// checkStep holds each new manifest against the one it replaces.
func (s *sim) checkStep(k object.Key, old, new []byte) error {
	if k != KeyOf(jan) {
		return nil
	}
	m, err := Decode(jan, new)
	if err != nil {
		s.t.Error(err)
		return nil
	}
	if old == nil {
		return nil
	}
	was, err := Decode(jan, old)
	if err != nil {
		s.t.Error(err)
		return nil
	}
	for _, e := range was.Points {
		if now := m.Entry(e.ID); now == nil || e.Days.Archived()&^now.Days.Archived() != 0 {
			s.t.Errorf("point %d went from %+v to %+v", e.ID, e, now)
		}
	}
	return nil
}

// checkEnd holds the store against the model.
func (s *sim) checkEnd() {
	m := stored(s.t, s.f)
	for _, p := range s.table {
		e := m.Entry(p.ID)
		if e == nil {
			if len(s.rows[p.ID]) > 0 || s.days[p.ID] != 0 {
				s.t.Errorf("point %d has no entry", p.ID)
			}
			continue
		}
		if missing := s.days[p.ID] &^ e.Days.Archived(); missing != 0 {
			s.t.Errorf("point %d: days %b were committed and are null", p.ID, missing)
		}
		if e.Path == "" {
			if len(s.rows[p.ID]) > 0 {
				s.t.Errorf("point %d: its file is not in the manifest", p.ID)
			}
			continue
		}
		v := s.f.objects[e.Path]
		y, err := parseToy(v.data)
		if err != nil {
			s.t.Error(err)
			continue
		}
		for ts := range s.rows[p.ID] {
			if !slices.Contains(y.TS, ts) {
				s.t.Errorf("point %d: row %d is lost", p.ID, ts)
			}
		}
		want, err := NewEntry(e.Path, v.data, v.etag, y.facts())
		if err != nil {
			s.t.Error(err)
		}
		want.Days = slices.Clone(want.Days)
		for i, n := range e.Days {
			if n == 0 && want.Days[i] == sample.NotArchived {
				want.Days[i] = 0
			}
		}
		if !e.Equal(&want) {
			s.t.Errorf("point %d: manifest %+v, object %+v", p.ID, *e, want)
		}
	}
}
