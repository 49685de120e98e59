package jobs

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/object/objecttest"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

func (w *world) prune(o PruneOptions) PruneReport {
	w.t.Helper()
	r, err := w.tryPrune(w.t.Context(), w.env(), o)
	w.must(err)
	for _, f := range r.Failed {
		w.t.Errorf("prune: failed: %s", f.Error)
	}
	return r
}

func (w *world) tryPrune(ctx context.Context, env Env, o PruneOptions) (PruneReport, error) {
	p, err := PlanPrune(ctx, env, o)
	if err != nil {
		return PruneReport{}, err
	}
	return p.Run(ctx, env)
}

// reasonsOf are the deferrals of a report, as "reason point-days/rows".
func reasonsOf(list []Deferral) string {
	var s []string
	for _, d := range list {
		s = append(s, fmt.Sprintf("%s %d/%d", d.Reason, d.PointDays, d.Rows))
	}
	return strings.Join(s, ", ")
}

// all is what either tier holds: where both have a row, the hot one.
func (w *world) all() map[key]row {
	w.t.Helper()
	rows := w.cold()
	maps.Copy(rows, w.hot(everything))
	return rows
}

// old makes a world of two points with three days that are old enough.
func old(t *testing.T) (w *world, a, b int32) {
	w = newWorld(t)
	w.now = day("2024-04-01").Time()
	a, b = w.point("a"), w.point("b")
	for _, p := range []int32{a, b} {
		w.fill(p, daysOf("2024-01-30", "2024-02-02"))
	}
	w.backfill("2024-01-30", "2024-02-02")
	return w, a, b
}

// What may not go stays, is told, and does not keep the rest.
func TestPruneDefers(t *testing.T) {
	mark := func(w *world, p int32, d string) {
		w.exec("INSERT INTO archive_marks (point_id, day, run, done) VALUES (?, ?, 'x', 1) ON CONFLICT DO UPDATE SET done = 1, run = 'x'", p, int64(day(d)))
	}
	for _, c := range []struct {
		name, want string
		left       int64 // rows
		exit       int
		do         func(w *world, a int32)
	}{
		{"nothing", "", 0, 0, func(*world, int32) {}},
		{"a late row", "unmarked 1/25", 25, 0, func(w *world, a int32) { w.put(a, "2024-01-31 00:30", 1) }},
		{"a claim", "claimed 1/24", 24, 0, func(w *world, a int32) {
			w.must(w.src.Claim(t.Context(), "x", []source.Slice{{Point: a, Day: day("2024-01-31")}}))
		}},
		{"not archived", "unarchived 1/1", 1, 0, func(w *world, a int32) { w.put(a, "2024-02-02 00:00", 1) }},
		{"a row that the archive lacks under a mark", "differs 1/25", 25, 3, func(w *world, a int32) {
			w.put(a, "2024-01-31 00:30", 1)
			mark(w, a, "2024-01-31")
		}},
		{"a row that differs in its last bit under a mark", "differs 1/24", 24, 3, func(w *world, a int32) {
			w.exec("UPDATE timeseries SET flags = 1 WHERE point_id = ? AND timestamp = ?", a, at("2024-01-31 05:00"))
			mark(w, a, "2024-01-31")
		}},
		{"NULL for a number under a mark", "differs 1/24", 24, 3, func(w *world, a int32) {
			w.exec("UPDATE timeseries SET value = NULL WHERE point_id = ? AND timestamp = ?", a, at("2024-01-31 05:00"))
			mark(w, a, "2024-01-31")
		}},
		{"a reject under a mark", "rejects 1/25", 25, 0, func(w *world, a int32) {
			w.exec("INSERT INTO timeseries (point_id, timestamp, value) VALUES (?, ?, 'hot')", a, at("2024-01-31 05:30"))
			mark(w, a, "2024-01-31")
		}},
		{"a row that only the archive has", "", 0, 0, func(w *world, a int32) {
			w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp = ?", a, at("2024-01-31 05:00"))
		}},
		{"a day without rows", "", 0, 0, func(w *world, a int32) {
			w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ?", a, at("2024-01-31 00:00"), at("2024-02-01 00:00"))
		}},
		{"a damaged month file", "damaged 2/0", 48, 4, func(w *world, a int32) { w.damage("timeseries/2024/01/a.parquet") }},
		{"a missing month file", "damaged 2/0", 48, 4, func(w *world, a int32) { w.remove("timeseries/2024/01/a.parquet") }},
		{"a damaged manifest", "", 96, 4, func(w *world, a int32) { w.overwrite("_manifests/2024-01.json", []byte("{")) }},
		{"a file newer than the manifest", "pending 2/0", 48, 0, func(w *world, a int32) {
			w.rewrite("2024-01", "a", false, func(s *sample.Series) { s.Value[0]++ })
		}},
		{"a file that another one was put over", "damaged 2/0", 48, 4, func(w *world, a int32) {
			data, _, err := w.dir.Get(t.Context(), "timeseries/2024/01/b.parquet")
			w.must(err)
			w.overwrite("timeseries/2024/01/a.parquet", data)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, a, _ := old(t)
			c.do(w, a)
			truth := w.hot(everything)
			r, err := w.tryPrune(t.Context(), w.env(), PruneOptions{})
			w.must(err)
			if got := reasonsOf(r.Deferred); got != c.want || r.ExitCode() != c.exit {
				t.Errorf("deferred %q, exit %d; want %q, %d\n%+v", got, r.ExitCode(), c.want, c.exit, r.Failed)
			}
			for _, d := range r.Deferred {
				if d.Remedy == "" || d.Text == "" || d.Example != "a" {
					t.Errorf("%+v", d)
				}
			}
			if n := w.rowsOf("timeseries"); n != c.left || int64(len(truth)) != r.Rows+c.left && c.want != "rejects 1/25" {
				t.Errorf("%d rows left, %d deleted, of %d; want %d left", n, r.Rows, len(truth), c.left)
			}
			if c.exit == 4 {
				return // what is left is the only copy, and all of it is left
			}
			got := w.all()
			for k, v := range truth {
				if got[k] != v {
					t.Errorf("lost: %v", k)
				}
			}
		})
	}
}

// Only what is older than it says goes, and of it only what was chosen.
func TestPruneSelects(t *testing.T) {
	w, a, _ := old(t)
	w.now = day("2024-03-06").Time().Add(23 * time.Hour) // 35 days after the end of 2024-01-30, and not of 2024-01-31
	if r := w.prune(PruneOptions{Points: Points{Globs: []string{"a"}}}); r.PointDays != 1 || w.mark(a, day("2024-01-30")) != "trimmed" {
		t.Errorf("%+v", r)
	}
	if _, err := w.tryPrune(t.Context(), w.env(), PruneOptions{Days: daysOf("2024-01-30", "2024-02-01")}); !fault.Is(err, fault.Usage) {
		t.Errorf("a range that is not old enough: %v", err)
	}
	if r := w.prune(PruneOptions{OlderThan: 30, Days: daysOf("2024-01-31", "2024-02-01")}); r.PointDays != 2 {
		t.Errorf("%+v", r)
	}
	if r := w.prune(PruneOptions{OlderThan: 30, MaxRows: 24}); r.Rows != 24 || !r.Limited {
		t.Errorf("%+v", r)
	}
	if r := w.prune(PruneOptions{OlderThan: 30}); r.Rows != 48 || r.Limited {
		t.Errorf("%+v", r)
	}
	env := w.env()
	env.Ledger = nil
	if _, err := PlanPrune(t.Context(), env, PruneOptions{}); !fault.Is(err, fault.Usage) {
		t.Errorf("without a ledger: %v", err)
	}
	w.exec("UPDATE archive_source SET source_id = 'another'")
	if _, err := PlanPrune(t.Context(), w.env(), PruneOptions{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("of another archive: %v", err)
	}
}

// What happens between the comparison and the delete keeps a day, or finds it gone.
func TestPruneRaces(t *testing.T) {
	mid := at("2024-01-31 00:30")
	for _, c := range []struct {
		name, want string
		rows       int64 // that the prune deletes
		do         func(w *world, a int32)
	}{
		{"a row arrives", "changed 1/24", 120, func(w *world, a int32) { w.put(a, "2024-01-31 00:30", 9) }},
		{"a row changes", "changed 1/24", 120, func(w *world, a int32) { w.put(a, "2024-01-31 01:00", 9) }},
		{"a row arrives and one goes", "changed 1/24", 120, func(w *world, a int32) {
			w.put(a, "2024-01-31 00:30", 9)
			w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp = ?", a, mid+1800_000)
		}},
		{"a row goes", "changed 1/24", 120, func(w *world, a int32) {
			w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp = ?", a, at("2024-01-31 01:00"))
		}},
		{"a run claims it", "changed 1/24", 120, func(w *world, a int32) {
			w.must(w.src.Claim(t.Context(), "x", []source.Slice{{Point: a, Day: day("2024-01-31")}}))
		}},
		{"a row arrives and is archived", "changed 2/48", 96, func(w *world, a int32) {
			w.put(a, "2024-01-31 00:30", 9)
			w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-31", "2024-02-01")})
		}},
		{"the retention trigger takes it", "changed 1/24", 120, func(w *world, a int32) {
			d := day("2024-01-31")
			w.exec("INSERT INTO archive_trims (point_id, day) VALUES (?, ?)", a, int64(d))
			w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ?", a, d.Start(), d.End())
			w.exec("UPDATE archive_marks SET done = 2 WHERE point_id = ? AND day = ?", a, int64(d))
		}},
		{"another prune takes all of them", "changed 4/96", 0, func(w *world, a int32) { w.prune(PruneOptions{Days: daysOf("2024-01-30", "2024-02-01")}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, a, _ := old(t)
			fired := false
			truth := w.hot(everything)
			b := &beside{Source: w.src}
			b.beforePrune = func() {
				if !fired {
					fired = true
					before := w.all()
					c.do(w, a)
					if !strings.HasPrefix(c.name, "a row") {
						return
					}
					truth = before // what was deleted by hand is in the archive
					maps.Copy(truth, w.hot(everything))
				}
			}
			r, err := w.tryPrune(t.Context(), w.envOf(b), PruneOptions{})
			w.must(err)
			if c.rows == 0 {
				c.rows = 48 // of February
			}
			if got := reasonsOf(r.Deferred); got != c.want || r.Rows != c.rows || !fired {
				t.Errorf("deferred %q, %d rows; want %q, %d", got, r.Rows, c.want, c.rows)
			}
			sameRows(t, w.all(), truth)
			w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-30", "2024-02-02")})
			w.prune(PruneOptions{})
			if n := w.rowsOf("timeseries"); n != 0 {
				t.Errorf("%d rows are left after the next archive and prune", n)
			}
			sameRows(t, w.cold(), truth)
		})
	}
}

// A manifest that was replaced after the comparison keeps its days for the next run.
func TestPruneLooksAtTheManifestAgain(t *testing.T) {
	w, _, _ := old(t)
	n := 0
	b := &reading{beside{Source: w.src}, func() {
		if n++; n == 1 {
			w.rewrite("2024-01", "a", true, func(s *sample.Series) { s.Append(at("2024-01-31 23:30"), 1, 192, 0) })
		}
	}}
	env := w.env()
	env.Source, env.Ledger = b, b
	r, err := w.tryPrune(t.Context(), env, PruneOptions{})
	w.must(err)
	if got := reasonsOf(r.Deferred); got != "changed 2/48" || r.Rows != 96 {
		t.Errorf("deferred %q, %d rows", got, r.Rows)
	}
	if r = w.prune(PruneOptions{}); r.Rows != 48 {
		t.Errorf("the next run: %+v", r)
	}
}

// A row that arrives after the marks were read and before the rows are is a change,
// and no finding: the ledger does not vouch for its day any more.
func TestPruneBesideARow(t *testing.T) {
	w, a, _ := old(t)
	b := &marking{beside{Source: w.src}, func() {}}
	env := w.env()
	env.Source, env.Ledger = b, b
	p, err := PlanPrune(t.Context(), env, PruneOptions{})
	w.must(err)
	n := 0
	b.after = func() {
		if n++; n == 2 { // the first are those of the month, the second those of its points
			w.put(a, "2024-01-31 00:30", 9)
		}
	}
	r, err := p.Run(t.Context(), env)
	w.must(err)
	if got := reasonsOf(r.Deferred); got != "changed 1/25" || r.Rows != 120 || r.ExitCode() != fault.ExitOK {
		t.Errorf("deferred %q, %d rows, exit %d", got, r.Rows, r.ExitCode())
	}
}

type marking struct {
	beside
	after func()
}

func (m *marking) Marks(ctx context.Context, points []int32, days utc.Days, f func(source.Mark)) error {
	err := m.beside.Marks(ctx, points, days, f)
	m.after()
	return err
}

type reading struct {
	beside
	after func()
}

func (r *reading) Read(ctx context.Context, q source.Query, f func(*sample.Batch) error) (source.Stats, error) {
	s, err := r.beside.Read(ctx, q, f)
	r.after()
	return s, err
}

// Archives, late rows, the retention trigger and three prunes at once: at the end
// every sample is in one tier or the other, and what is in both is the same.
func TestPruneBesideEverything(t *testing.T) {
	w := newWorld(t)
	w.now = day("2024-05-01").Time()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	days := daysOf("2024-01-25", "2024-02-06")
	ids := w.points(6)
	truth := w.scatter(rng, ids, days)
	w.run(ArchiveOptions{Mode: Backfill, Days: days})
	var g sync.WaitGroup
	for range 3 {
		g.Go(func() {
			for range 6 {
				env := w.env()
				env.Notify = nil
				if _, err := w.tryPrune(context.Background(), env, PruneOptions{chunk: 25}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	g.Go(func() {
		for range 6 {
			env := w.env()
			env.Notify = nil
			if _, err := w.try(env, ArchiveOptions{Mode: Rearchive, Days: days}); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 150 { // late rows, by whom the trigger runs as well
		p, ts := ids[rng.IntN(len(ids))], days.From.Start()+rng.Int64N(int64(days.Len())*utc.DayMillis)
		w.exec("INSERT OR REPLACE INTO timeseries (point_id, timestamp, value) VALUES (?, ?, ?)", p, ts, float64(i))
		s := sample.Series{Value: []float64{float64(i)}, Quality: []uint8{192}, Flags: []uint16{0}}
		truth[key{p, ts}] = rowOf(&s, 0)
		time.Sleep(time.Millisecond)
	}
	g.Wait()
	sameRows(t, w.all(), truth)
	w.run(ArchiveOptions{Mode: Rearchive, Days: days})
	sameRows(t, w.cold(), truth)
	w.prune(PruneOptions{})
	if n := w.rowsOf("timeseries"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	w.whole()
}

// Two prunes delete each row once between them.
func TestTwoPrunes(t *testing.T) {
	w, _, _ := old(t)
	var mu sync.Mutex
	var rows, slices int64
	var g sync.WaitGroup
	for range 2 {
		g.Go(func() {
			env := w.env()
			env.Notify = nil
			r, err := w.tryPrune(context.Background(), env, PruneOptions{chunk: 24})
			if err != nil || r.ExitCode() != 0 {
				t.Error(err, r)
			}
			mu.Lock()
			rows, slices = rows+r.Rows, slices+r.PointDays
			mu.Unlock()
		})
	}
	g.Wait()
	if rows != 144 || slices != 6 {
		t.Errorf("%d rows of %d point-days, want 144 of 6", rows, slices)
	}
}

// Stopped, it finishes the part in flight; run again, it does the rest.
func TestPruneAndRestoreStop(t *testing.T) {
	w, _, _ := old(t)
	truth := w.hot(everything)
	for _, job := range []string{"prune", "restore"} {
		stop := make(chan struct{})
		b := &beside{Source: w.src}
		closing := sync.OnceFunc(func() { close(stop) })
		b.beforePrune, b.afterRestore = closing, closing
		env := w.envOf(b)
		env.Stop = stop
		if job == "prune" {
			r, err := w.tryPrune(t.Context(), env, PruneOptions{chunk: 24})
			if err != nil || !r.Interrupted || r.ExitCode() != fault.ExitInterrupted || r.Rows == 0 || r.Rows == 144 {
				t.Fatal(err, r)
			}
			sameRows(t, w.all(), truth)
			if more := w.prune(PruneOptions{}); more.Rows != 144-r.Rows {
				t.Errorf("the rest: %+v", more)
			}
			continue
		}
		r, err := w.tryRestore(t.Context(), env, RestoreOptions{chunk: 24})
		if err != nil || !r.Interrupted || r.ExitCode() != fault.ExitInterrupted || r.Written == 0 || r.Written == 144 {
			t.Fatal(err, r)
		}
		if more := w.restore(RestoreOptions{}); more.Written != 144-r.Written || more.Already != r.Written {
			t.Errorf("the rest: %+v", more)
		}
		sameRows(t, w.hot(everything), truth)
	}
	runs, err := w.src.Runs(t.Context())
	w.must(err)
	var log []string
	for _, r := range runs {
		if r.Command == "prune" || r.Command == "restore" {
			log = append(log, r.Command+" "+r.Status)
		}
	}
	slices.Sort(log)
	if got := strings.Join(log, ", "); got != "prune done, prune interrupted, restore done, restore interrupted" {
		t.Errorf("log: %s", got)
	}
}

// tier is flaky with the abilities to restore and to prune.
type tier struct {
	*flaky
	hot interface {
		source.Pruner
		source.Restorer
		source.Summarizer
	}
}

func (t *tier) Prune(ctx context.Context, cuts []source.Cut) (cut []source.Slice, rows int64, err error) {
	err = t.wrap("prune", func() (err error) { cut, rows, err = t.hot.Prune(ctx, cuts); return err })
	return cut, rows, err
}

func (t *tier) Restore(ctx context.Context, b *sample.Batch, keep bool) error {
	return t.wrap("restore", func() error { return t.hot.Restore(ctx, b, keep) })
}

func (t *tier) Correct(ctx context.Context, from, to *sample.Batch) error {
	return t.wrap("correct", func() error { return t.hot.Correct(ctx, from, to) })
}

func (t *tier) RestorePoints(ctx context.Context, p []sample.Point) error {
	return t.wrap("restore points", func() error { return t.hot.RestorePoints(ctx, p) })
}

func (t *tier) Summaries(ctx context.Context, p []int32, f func(int32, source.Summary)) error {
	return t.wrap("summaries", func() error { return t.hot.Summaries(ctx, p, f) })
}

// Every store operation and every source call of prune and restore fails once, in
// every way. At any moment every sample is in one tier or the other; running it
// again completes it.
func TestFaultAtEveryStepOfPruneAndRestore(t *testing.T) {
	s := newScene(t)
	bases := make(map[string]*scene)
	for _, job := range []string{"prune", "restore"} {
		w := s.open(t)
		w.run(ArchiveOptions{Mode: Archive})
		if job == "restore" {
			w.now = day("2024-04-01").Time()
			w.prune(PruneOptions{})
			w.exec("DELETE FROM points WHERE id = 1")
		}
		w.exec("PRAGMA wal_checkpoint(TRUNCATE)")
		bases[job] = &scene{t: t, base: t.TempDir()}
		copyFile(t, w.db, filepath.Join(bases[job].base, "d1.sqlite"))
		w.must(os.CopyFS(filepath.Join(bases[job].base, "r2"), os.DirFS(w.root)))
	}
	prepare := func(t *testing.T, job string) *world {
		w := bases[job].open(t)
		if job == "prune" {
			w.now = day("2024-04-01").Time()
		}
		return w
	}
	run := func(ctx context.Context, env Env, job string) (code int, warnings int, err error) {
		if job == "prune" {
			p, err := PlanPrune(ctx, env, PruneOptions{Workers: 1, chunk: 100})
			if err != nil {
				return 0, 0, err
			}
			r, err := p.Run(ctx, env)
			return r.ExitCode(), len(r.Warnings) + len(r.Deferred), err
		}
		p, err := PlanRestore(ctx, env, RestoreOptions{Days: sceneDays, Workers: 1, chunk: 100})
		if err != nil {
			return 0, 0, err
		}
		r, err := p.Run(ctx, env)
		return r.ExitCode(), len(r.Warnings), err
	}
	for _, job := range []string{"prune", "restore"} {
		clean := prepare(t, job)
		counted := &tier{&flaky{Source: clean.src, Ledger: clean.src}, clean.src}
		env := clean.env()
		env.Source, env.Ledger, env.Journal = counted, counted, counted
		if _, _, err := run(t.Context(), env, job); err != nil {
			t.Fatal(err)
		}
		ops, calls, tried := clean.store.Count(), counted.calls, 0
		end := clean.hot(sceneDays)
		check := func(t *testing.T, w *world) {
			t.Helper()
			sameRows(t, w.all(), s.want)
			w.store.Reset()
			if code, _, err := run(t.Context(), w.env(), job); err != nil || code != 0 {
				t.Errorf("the second run: exit %d, %v", code, err)
			}
			sameRows(t, w.hot(sceneDays), end)
			sameRows(t, w.cold(), s.want)
			w.whole()
		}
		for way, action := range map[string]func(cancel func()) objecttest.Action{
			"transient":    func(func()) objecttest.Action { return objecttest.Fail(fault.Transient) },
			"unavailable":  func(func()) objecttest.Action { return objecttest.Fail(fault.Unavailable) },
			"crash before": func(c func()) objecttest.Action { return objecttest.Before(c) },
			"crash after":  func(c func()) objecttest.Action { return objecttest.After(c) },
		} {
			for i := 1; i <= ops; i++ {
				if testing.Short() && i%5 != 0 {
					continue
				}
				tried++
				t.Run(fmt.Sprintf("%s: store, %s at %d", job, way, i), func(t *testing.T) {
					w := prepare(t, job)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					w.store.Inject(objecttest.At(i), action(cancel))
					code, _, err := run(ctx, w.env(), job)
					if len(w.store.Fired()) != 1 {
						t.Fatalf("the fault at operation %d of %d did not fire", i, ops)
					}
					if err == nil && code == 0 && way[:5] != "crash" {
						t.Error("it went unnoticed")
					}
					check(t, w)
				})
			}
		}
		for _, way := range []string{"transient", "transient, done", "invalid", "crash", "crash, done"} {
			for i := 1; i <= calls; i++ {
				if testing.Short() && i%3 != 0 {
					continue
				}
				tried++
				t.Run(fmt.Sprintf("%s: source, %s at %d", job, way, i), func(t *testing.T) {
					w := prepare(t, job)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					f := &flaky{Source: w.src, Ledger: w.src, failAt: i, kind: fault.Transient, late: strings.HasSuffix(way, "done")}
					if way == "invalid" {
						f.kind = fault.Invalid
					}
					if way[:5] == "crash" {
						f.cancel = cancel
					}
					hot := &tier{f, w.src}
					env := w.env()
					env.Source, env.Ledger, env.Journal = hot, hot, hot
					code, warnings, err := run(ctx, env, job)
					if f.fired == "" {
						t.Fatalf("the fault at call %d of %d did not fire", i, calls)
					}
					if err == nil && code == 0 && warnings == 0 {
						t.Errorf("a failed %s went unnoticed", f.fired)
					}
					check(t, w)
				})
			}
		}
		reliability(t, "faults of "+job, int64(tried), "faults, 4 ways at %d operations of the store, 5 at %d calls of the source", ops, calls)
	}
}
