package jobs

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/object/objecttest"
	"etl/internal/sample"
	"etl/internal/source"
	sqlitesource "etl/internal/source/sqlite"
	"etl/internal/utc"
	"etl/manifests"
)

// everything is a range that holds all days of the tests.
var everything = daysOf("2023-01-01", "2024-12-31")

func (w *world) restore(o RestoreOptions) RestoreReport {
	w.t.Helper()
	r, err := w.tryRestore(w.t.Context(), w.env(), o)
	w.must(err)
	for _, f := range r.Failed {
		w.t.Errorf("restore: failed: %s", f.Error)
	}
	return r
}

func (w *world) tryRestore(ctx context.Context, env Env, o RestoreOptions) (RestoreReport, error) {
	if o.Days == (utc.Days{}) {
		o.Days = everything
	}
	p, err := PlanRestore(ctx, env, o)
	if err != nil {
		return RestoreReport{}, err
	}
	return p.Run(ctx, env)
}

// rowsOf counts the rows of a table.
func (w *world) rowsOf(table string) (n int64) {
	w.t.Helper()
	st, _, err := w.conn.PrepareTransient("SELECT count(*) FROM " + table)
	w.must(err)
	defer st.Finalize()
	_, err = st.Step()
	w.must(err)
	return st.ColumnInt64(0)
}

// empty is another, empty hot tier over the same cold tier.
func (w *world) empty() *world {
	w.t.Helper()
	e := newWorld(w.t)
	e.dir, e.root, e.store, e.now = w.dir, w.root, objecttest.NewFaults(w.dir), w.now
	return e
}

// odd are values that decimals, or careless code, spoil.
var odd = []float64{0, 1.0 / 3, math.Inf(1), math.Inf(-1), math.SmallestNonzeroFloat64, -math.SmallestNonzeroFloat64, math.MaxFloat64, 5e-324 * 12345,
	sample.Null, 0.1, 1e300, -1e-300, 9007199254740993, math.Nextafter(1, 2), 5}

// scatter writes random rows of the points on the days and returns the truth.
func (w *world) scatter(rng *rand.Rand, points []int32, days utc.Days) map[key]row {
	w.t.Helper()
	w.exec("BEGIN")
	for _, p := range points {
		for d := days.From; d < days.To; d++ {
			if rng.IntN(8) == 0 {
				continue // an empty day
			}
			for range 1 + rng.IntN(12) {
				ts := d.Start() + rng.Int64N(utc.DayMillis)
				switch rng.IntN(8) {
				case 0:
					ts = d.Start()
				case 1:
					ts = d.End() - 1
				}
				v := odd[rng.IntN(len(odd))]
				if rng.IntN(2) == 0 {
					v = math.Float64frombits(rng.Uint64())
				}
				var value any
				if v == v {
					value = v + 0
				}
				w.exec("INSERT OR REPLACE INTO timeseries (point_id, timestamp, value, quality, flags) VALUES (?, ?, ?, ?, ?)", p, ts, value, rng.IntN(256), rng.IntN(65536))
			}
		}
	}
	w.exec("COMMIT")
	return w.hot(days)
}

func (w *world) points(n int) []int32 {
	w.t.Helper()
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = w.point(fmt.Sprintf("Site.P%d", i))
	}
	return ids
}

// Prune and then restore give back what was there, bit for bit, over ends of
// months and years and a leap day; and each of them, done again, does nothing.
func TestPruneThenRestoreIsIdentity(t *testing.T) {
	for _, days := range []utc.Days{daysOf("2023-12-29", "2024-01-04"), daysOf("2024-02-27", "2024-03-03")} {
		t.Run(days.String(), func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 1))
			w := newWorld(t)
			w.now = (days.To + 60).Time()
			ids := w.points(5)
			truth := w.scatter(rng, ids, days)
			w.run(ArchiveOptions{Mode: Backfill, Days: days})

			chunk := 1 + rng.Int64N(60)
			r := w.prune(PruneOptions{chunk: chunk})
			if r.Rows != int64(len(truth)) || r.Compared != r.Rows || len(r.Deferred) > 0 {
				t.Errorf("pruned %+v, want all %d rows", r, len(truth))
			}
			if n := w.rowsOf("timeseries"); n > 0 {
				t.Errorf("%d rows are left", n)
			}
			if r := w.prune(PruneOptions{}); r.Rows != 0 || r.Compared != 0 {
				t.Errorf("pruned again: %+v", r)
			}
			sameRows(t, w.cold(), truth)

			rr := w.restore(RestoreOptions{chunk: chunk})
			if rr.Written != int64(len(truth)) || rr.Samples != rr.Written || rr.Already != 0 || rr.DaysMarked != 0 || rr.PointsMade != 0 {
				t.Errorf("restored %+v, want %d rows and no mark: the days are old", rr, len(truth))
			}
			sameRows(t, w.hot(everything), truth)
			sameRows(t, w.cold(), truth)
			if rr = w.restore(RestoreOptions{Overwrite: true}); rr.Written != 0 || rr.Already != int64(len(truth)) {
				t.Errorf("restored again: %+v", rr)
			}
			// Unmarked, they stay; archived again, they may go.
			if r := w.prune(PruneOptions{}); r.Rows != 0 || len(r.Deferred) != 1 || r.Deferred[0].Reason != "unmarked" {
				t.Errorf("pruned unmarked days: %+v", r)
			}
			w.run(ArchiveOptions{Mode: Rearchive, Days: days})
			if r := w.prune(PruneOptions{}); r.Rows != int64(len(truth)) {
				t.Errorf("pruned after rearchive: %+v", r)
			}
			rr = w.restore(RestoreOptions{MarkOld: true})
			sameRows(t, w.hot(everything), truth)
			if rr.DaysMarked == 0 {
				t.Error("nothing was marked with MarkOld")
			}
			if r := w.prune(PruneOptions{}); r.Rows != int64(len(truth)) {
				t.Errorf("pruned what was restored with marks: %+v", r)
			}
			w.whole()
		})
	}
}

// A lost database: points come back with their ids, rows bit for bit, recent days
// marked, so that the next archive has nothing to read.
func TestRestoreIntoAnEmptyDatabase(t *testing.T) {
	w := newWorld(t) // 2024-02-10
	rng := rand.New(rand.NewPCG(7, 7))
	ids := w.points(3)
	w.exec("DELETE FROM points WHERE id = ?", ids[1]) // its rows stay: an orphan
	w.exec("UPDATE points SET unit = '°C', min_value = -40.1, interval_ms = 5000 WHERE id = ?", ids[2])
	retired := w.point("Site.Retired") // has no row in the range
	truth := w.scatter(rng, ids, daysOf("2024-01-05", "2024-02-10"))
	w.run(ArchiveOptions{Mode: Backfill, Days: daysOf("2024-01-05", "2024-02-10")})

	e := w.empty()
	plan, err := PlanRestore(t.Context(), e.env(), RestoreOptions{Days: everything})
	e.must(err)
	if plan.Samples != int64(len(truth)) || len(plan.NewPoints) != 4 || plan.Old != 4*6 || plan.ColdEnd == nil || *plan.ColdEnd != day("2024-02-10") || len(plan.Warnings) != 1 {
		t.Errorf("plan: %+v", plan)
	}
	if n := e.rowsOf("points"); n != 0 {
		t.Errorf("the plan made %d points", n)
	}
	r := e.restore(RestoreOptions{})
	sameRows(t, e.hot(everything), truth)
	if r.PointsMade != 4 || r.DaysMarked != plan.PointDays-plan.Old {
		t.Errorf("report: %+v", r)
	}
	points, _, err := e.src.Points(t.Context())
	e.must(err)
	if len(points) != 4 || points[1].Name != "point-2" || points[2].MinValue == nil || *points[2].MinValue != -40.1 || points[3].ID != retired {
		t.Errorf("points: %+v", points)
	}
	if e.mark(ids[0], day("2024-01-10")) != "" || e.mark(ids[0], day("2024-01-11")) != "marked" || e.mark(ids[0], day("2024-02-09")) != "marked" {
		t.Error("marks are not those of the last 30 days")
	}
	p, err := PlanArchive(t.Context(), e.env(), ArchiveOptions{Mode: Archive, Adopt: true})
	e.must(err)
	for _, m := range p.Months {
		if m.LastDay >= day("2024-01-11") && m.Month == day("2024-02-01").Month() {
			t.Errorf("the next archive reads %+v again", m)
		}
	}
	if id := e.point("a new one"); id != 5 {
		t.Errorf("a new point has the id %d, which was another's", id)
	}
	e.run(ArchiveOptions{Mode: Archive, Adopt: true})
	sameRows(t, e.cold(), truth)
	e.whole()
	runs, err := e.src.Runs(t.Context())
	e.must(err)
	if len(runs) != 2 || !slices.ContainsFunc(runs, func(r source.Run) bool { return r.Command == "restore" && r.Status == "done" }) {
		t.Errorf("log: %+v", runs)
	}
}

func TestRestoreKeepAndOverwrite(t *testing.T) {
	for _, overwrite := range []bool{false, true} {
		t.Run(fmt.Sprintf("overwrite %t", overwrite), func(t *testing.T) {
			w := newWorld(t)
			a, b := w.point("a"), w.point("b")
			days := daysOf("2024-02-05", "2024-02-08")
			w.fill(a, days)
			w.fill(b, days)
			w.backfill("2024-02-05", "2024-02-08")
			cold := w.cold()
			w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp < ?", a, at("2024-02-05 12:00"))
			w.exec("UPDATE timeseries SET value = 77 WHERE point_id = ? AND timestamp = ?", a, at("2024-02-06 03:00"))
			w.put(b, "2024-02-07 00:30", 5) // the archive lacks it
			w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp = ?", b, at("2024-02-07 01:00"))
			before := w.hot(everything)
			r := w.restore(RestoreOptions{Overwrite: overwrite})
			want := maps.Clone(cold)
			want[key{b, at("2024-02-07 00:30")}] = before[key{b, at("2024-02-07 00:30")}]
			changed := key{a, at("2024-02-06 03:00")}
			wantReport := [4]int64{14, 2*72 - 14, 0, 2} // written, already, kept, marked
			if !overwrite {
				want[changed] = before[changed]
				wantReport = [4]int64{13, 2*72 - 14, 1, 1}
			}
			sameRows(t, w.hot(everything), want)
			if got := [4]int64{r.Written, r.Already, r.Kept, r.DaysMarked}; got != wantReport {
				t.Errorf("written, already, kept, marked: %v, want %v", got, wantReport)
			}
			sameRows(t, w.cold(), cold)
			marks := map[string]string{"a 2024-02-05": "marked", "a 2024-02-07": "marked", "b 2024-02-05": "marked", "b 2024-02-07": "", "a 2024-02-06": ""}
			if overwrite {
				marks["a 2024-02-06"] = "marked"
			}
			for k, want := range marks {
				p := map[string]int32{"a": a, "b": b}[k[:1]]
				if got := w.mark(p, day(k[2:])); got != want {
					t.Errorf("%s is %q, want %q", k, got, want)
				}
			}
			w.run(ArchiveOptions{Mode: Archive})
			sameRows(t, w.cold(), want)
		})
	}
}

// -0 may be archived from files; SQLite can not hold it, and that is no failure.
func TestRestoreNegativeZero(t *testing.T) {
	w := newWorld(t)
	a := w.point("a")
	w.put(a, "2024-02-05 00:00", 1)
	w.backfill("2024-02-05", "2024-02-06")
	w.rewrite("2024-02", "a", true, func(s *sample.Series) { s.Value[0] = math.Copysign(0, -1) })
	w.exec("DELETE FROM timeseries")
	r := w.restore(RestoreOptions{Overwrite: true})
	if r.Written != 1 || r.Samples != 1 || r.DaysMarked != 0 {
		t.Errorf("%+v", r)
	}
	if r = w.restore(RestoreOptions{Overwrite: true}); r.Written != 0 {
		t.Errorf("written again: %+v", r)
	}
}

func TestRestoreRefusesOtherPoints(t *testing.T) {
	w := newWorld(t)
	w.points(3)
	w.fill(1, daysOf("2024-02-05", "2024-02-06"))
	w.backfill("2024-02-05", "2024-02-06")
	for name, sql := range map[string]string{
		"another name": "INSERT INTO points (id, name) VALUES (2, 'else')",
		"another id":   "INSERT INTO points (id, name) VALUES (9, 'Site.P1')",
	} {
		t.Run(name, func(t *testing.T) {
			e := w.empty()
			e.exec(sql)
			_, err := e.tryRestore(t.Context(), e.env(), RestoreOptions{})
			if !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" || !strings.Contains(err.Error(), "Site.P1") {
				t.Errorf("%v, hint %q", err, fault.HintOf(err))
			}
			if e.rowsOf("points") != 1 || e.rowsOf("timeseries") != 0 {
				t.Error("something was written")
			}
			// Others can be restored.
			e.restore(RestoreOptions{Points: Points{Globs: []string{"*P0"}}})
			if e.rowsOf("points") != 2 || e.rowsOf("timeseries") != 24 {
				t.Error("the other point was not restored")
			}
		})
	}
}

// A damaged file is named, and the rest restored; a whole newer one is used, of
// the days that the manifest counts.
func TestRestoreFromDamagedAndNewerFiles(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.point("a"), w.point("b"), w.point("c")
	days := daysOf("2024-02-05", "2024-02-07")
	for _, p := range []int32{a, b, c} {
		w.fill(p, days)
	}
	w.backfill("2024-02-05", "2024-02-06")
	truth := w.cold()
	w.damage(object.Key("timeseries/2024/02/a.parquet"))
	w.rewrite("2024-02", "b", false, func(s *sample.Series) { s.Append(at("2024-02-06 00:00"), 1, 192, 0) })
	e := w.empty()
	r, err := e.tryRestore(t.Context(), e.env(), RestoreOptions{})
	e.must(err)
	f := wantReportFailure(t, r.Failed, fault.Corrupt)
	if f.Point != "a" || f.Path != "timeseries/2024/02/a.parquet" || !strings.Contains(f.Hint, "etl repair") || r.ExitCode() != fault.ExitCorrupt {
		t.Errorf("%+v, exit %d", f, r.ExitCode())
	}
	maps.DeleteFunc(truth, func(k key, _ row) bool { return k.point == a })
	sameRows(t, e.hot(everything), truth)
	if r.FilesNewer != 1 || e.mark(b, day("2024-02-05")) == "marked" || e.mark(c, day("2024-02-05")) != "marked" {
		t.Errorf("%d newer files; b %q, c %q", r.FilesNewer, e.mark(b, day("2024-02-05")), e.mark(c, day("2024-02-05")))
	}
	// A month whose manifest is damaged fails alone.
	w.must(os.WriteFile(filepath.Join(w.root, "_manifests/2024-02.json"), []byte("{"), 0o644))
	r, err = e.tryRestore(t.Context(), e.env(), RestoreOptions{})
	e.must(err)
	wantReportFailure(t, r.Failed, fault.Corrupt)
}

func wantReportFailure(t testing.TB, failed []Failure, k fault.Kind) Failure {
	t.Helper()
	return wantFailure(t, Report{Failed: failed}, k)
}

// damage flips a bit of an object.
func (w *world) damage(k object.Key) {
	w.t.Helper()
	path := filepath.Join(w.root, string(k))
	data, err := os.ReadFile(path)
	w.must(err)
	data[len(data)/3] ^= 4
	w.must(os.WriteFile(path, data, 0o644))
}

// rewrite changes the rows of a month file, stores it and, if commit is set,
// commits it.
func (w *world) rewrite(month, point string, commit bool, change func(*sample.Series)) {
	w.t.Helper()
	m, err := utc.ParseMonth(month)
	w.must(err)
	man := w.manifest(month)
	e := man.Points[slices.IndexFunc(man.Points, func(e manifests.Entry) bool { return e.Name == point })]
	data, attrs, err := w.dir.Get(w.t.Context(), e.Path)
	w.must(err)
	var rows sample.Series
	info, err := monthfile.NewDecoder().Decode(data, &rows)
	w.must(err)
	change(&rows)
	sample.CountDays(info.Days, m, rows.TS)
	data, info, err = monthfile.NewEncoder(monthfile.Options{}).Encode(nil, info.Meta, &rows)
	w.must(err)
	attrs, err = w.dir.Put(w.t.Context(), e.Path, data, object.PutOptions{IfMatch: attrs.ETag})
	w.must(err)
	if !commit {
		return
	}
	n, err := entry(e.Path, data, attrs.ETag, info)
	w.must(err)
	c := manifests.NewCommitter(w.dir, m, describe, manifests.Options{})
	_, err = c.Load(w.t.Context())
	w.must(err)
	c.Add(manifests.Change{Point: e.ID, Name: e.Name, Base: &e, Entry: n})
	_, err = c.Commit(w.t.Context())
	w.must(err)
}

// beside calls a function before or after each of some calls of a hot tier.
type beside struct {
	*sqlitesource.Source
	beforePrune, beforeConfirm, beforeClaim, beforeRestore, afterRestore, afterRead func()
}

func (b *beside) Read(ctx context.Context, q source.Query, f func(*sample.Batch) error) (source.Stats, error) {
	stats, err := b.Source.Read(ctx, q, f)
	if b.afterRead != nil {
		b.afterRead()
	}
	return stats, err
}

func (b *beside) Prune(ctx context.Context, cuts []source.Cut) ([]source.Slice, int64, error) {
	if b.beforePrune != nil {
		b.beforePrune()
	}
	return b.Source.Prune(ctx, cuts)
}

func (b *beside) Claim(ctx context.Context, run string, s []source.Slice) error {
	if b.beforeClaim != nil {
		b.beforeClaim()
	}
	return b.Source.Claim(ctx, run, s)
}

func (b *beside) Confirm(ctx context.Context, run string, s []source.Slice) (int, error) {
	if b.beforeConfirm != nil {
		b.beforeConfirm()
	}
	return b.Source.Confirm(ctx, run, s)
}

func (b *beside) Restore(ctx context.Context, rows *sample.Batch, keep bool) error {
	if b.beforeRestore != nil {
		b.beforeRestore()
	}
	err := b.Source.Restore(ctx, rows, keep)
	if b.afterRestore != nil {
		b.afterRestore()
	}
	return err
}

func (w *world) envOf(b *beside) Env {
	env := w.env()
	env.Source, env.Ledger = b, b
	return env
}

// A row that arrives at any moment of a restore keeps its day from being marked,
// and the next archive finds it.
func TestRowArrivesDuringRestore(t *testing.T) {
	for _, when := range []string{"after the rows are in", "before the claim", "before the confirmation"} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t)
			a := w.point("a")
			w.fill(a, daysOf("2024-02-05", "2024-02-07"))
			w.backfill("2024-02-05", "2024-02-07")
			truth := w.cold()
			w.exec("DELETE FROM timeseries")
			b := &beside{Source: w.src}
			once := func() { w.put(a, "2024-02-05 00:30", 9) }
			switch when {
			case "after the rows are in":
				b.afterRestore = once
			case "before the claim":
				b.beforeClaim = once
			default:
				b.beforeConfirm = once
			}
			r, err := w.tryRestore(t.Context(), w.envOf(b), RestoreOptions{})
			w.must(err)
			if r.Written != 48 || w.mark(a, day("2024-02-05")) == "marked" || w.mark(a, day("2024-02-06")) != "marked" {
				t.Errorf("%+v; %q, %q", r, w.mark(a, day("2024-02-05")), w.mark(a, day("2024-02-06")))
			}
			w.run(ArchiveOptions{Mode: Archive})
			truth[key{a, at("2024-02-05 00:30")}] = w.hot(everything)[key{a, at("2024-02-05 00:30")}]
			sameRows(t, w.cold(), truth)
		})
	}
}

// What others do to the rows while they are written is seen when they are read
// back: once it is mended, always it is told.
func TestRestoreReadsBack(t *testing.T) {
	for name, do := range map[string]struct {
		sql       string
		overwrite bool
	}{
		"deleted": {"DELETE FROM timeseries WHERE timestamp % 86400000 = 3600000", false},
		"changed": {"UPDATE timeseries SET value = value + 1 WHERE timestamp % 86400000 = 3600000", true},
	} {
		for _, times := range []int{1, 100} {
			t.Run(fmt.Sprintf("%s %d", name, times), func(t *testing.T) {
				w := newWorld(t)
				w.fill(w.point("a"), daysOf("2024-02-05", "2024-02-07"))
				w.backfill("2024-02-05", "2024-02-07")
				w.exec("DELETE FROM timeseries")
				n := 0
				b := &beside{Source: w.src, afterRestore: func() {
					if n++; n <= times {
						w.exec(do.sql)
					}
				}}
				r, err := w.tryRestore(t.Context(), w.envOf(b), RestoreOptions{Overwrite: do.overwrite})
				w.must(err)
				if times == 1 {
					if len(r.Failed) > 0 || r.DaysMarked != 2 {
						t.Errorf("%+v", r)
					}
					sameRows(t, w.hot(everything), w.cold())
					return
				}
				wantReportFailure(t, r.Failed, fault.Transient)
				if r.Samples != 0 || r.DaysMarked != 0 || r.ExitCode() != fault.ExitTransient {
					t.Errorf("it counts as restored: %+v", r)
				}
			})
		}
	}
}

// A correction that came, was archived and left the hot tier again, all between the
// reading of a month file and the writing of its rows, is not undone.
func TestRestoreIsOvertaken(t *testing.T) {
	for _, overwrite := range []bool{false, true} {
		w, a, _ := old(t)
		truth := w.hot(everything)
		w.prune(PruneOptions{})
		b := &beside{Source: w.src, beforeRestore: sync.OnceFunc(func() {
			w.put(a, "2024-01-31 03:00", 77)
			k := key{a, at("2024-01-31 03:00")}
			truth[k] = w.hot(everything)[k]
			w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-31", "2024-02-01")})
			w.prune(PruneOptions{})
		})}
		r, err := w.tryRestore(t.Context(), w.envOf(b), RestoreOptions{Overwrite: overwrite})
		w.must(err)
		if len(r.Failed) > 0 {
			t.Errorf("%+v", r.Failed)
		}
		sameRows(t, w.hot(everything), truth)
		w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-30", "2024-02-02")})
		sameRows(t, w.cold(), truth)
		w.whole()
	}
}

// A correction that comes after the rows were written stays, also where the month
// file was replaced meanwhile, by something else.
func TestRestoreKeepsWhatComesAfter(t *testing.T) {
	for _, overwrite := range []bool{false, true} {
		w, a, _ := old(t)
		truth := w.hot(everything)
		w.prune(PruneOptions{})
		put := func(when string, v float64) {
			w.put(a, when, v)
			k := key{a, at(when)}
			truth[k] = w.hot(everything)[k]
		}
		readBack := sync.OnceFunc(func() {
			put("2024-01-31 05:00", 78) // by which the file is replaced
			w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-31", "2024-02-01")})
			put("2024-01-31 03:00", 77) // which the archive does not have
		})
		written := false
		b := &beside{Source: w.src, afterRestore: func() { written = true }, afterRead: func() {
			if written {
				readBack()
			}
		}}
		_, err := w.tryRestore(t.Context(), w.envOf(b), RestoreOptions{Overwrite: overwrite})
		w.must(err)
		sameRows(t, w.hot(everything), truth)
		w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-30", "2024-02-02")})
		sameRows(t, w.cold(), truth)
		w.whole()
	}
}

// remove and overwrite change the folder behind the back of the store.
func (w *world) remove(k object.Key) {
	w.t.Helper()
	w.must(os.Remove(filepath.Join(w.root, string(k))))
}

func (w *world) overwrite(k object.Key, data []byte) {
	w.t.Helper()
	w.must(os.WriteFile(filepath.Join(w.root, string(k)), data, 0o644))
}

// The drill of a database that was taken back by Time Travel: days that were
// archived since come from the archive, the hours after its end from nowhere else.
func TestDrillDatabaseTakenBack(t *testing.T) {
	w := newWorld(t) // 2024-02-10 02:00
	a, b := w.point("a"), w.point("b")
	w.fill(a, daysOf("2024-02-01", "2024-02-07"))
	w.backfill("2024-02-01", "2024-02-07")
	w.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	taken := filepath.Join(t.TempDir(), "taken.sqlite")
	copyFile(t, w.db, taken)

	w.fill(a, daysOf("2024-02-07", "2024-02-10"))
	w.fill(b, daysOf("2024-02-05", "2024-02-10"))
	w.put(a, "2024-02-03 00:30", 9) // late
	w.run(ArchiveOptions{Mode: Archive})
	truth := w.hot(everything)
	w.put(a, "2024-02-10 01:00", 1) // after the archive's end: only Time Travel has it

	s := &scene{t: t, base: filepath.Dir(taken)}
	w.must(os.Rename(taken, filepath.Join(s.base, "d1.sqlite")))
	back := s.openDB(t)
	back.dir, back.root, back.store, back.now = w.dir, w.root, w.store, w.now
	plan, err := PlanRestore(t.Context(), back.env(), RestoreOptions{Days: everything})
	w.must(err)
	if plan.ColdEnd == nil || *plan.ColdEnd != day("2024-02-10") || plan.Now.Sub(plan.ColdEnd.Time()) != 2*time.Hour || len(plan.Warnings) > 0 {
		t.Errorf("the window: %v, %v, %v", plan.ColdEnd, plan.Now, plan.Warnings)
	}
	r := back.restore(RestoreOptions{})
	if r.Written != 3*24+5*24+1 {
		t.Errorf("%+v", r)
	}
	sameRows(t, back.hot(everything), truth)
	p, err := PlanArchive(t.Context(), back.env(), ArchiveOptions{Mode: Archive, Days: daysOf("2024-02-01", "2024-02-10")})
	w.must(err)
	if !p.Empty() {
		t.Errorf("the next archive reads %d point-days again", p.PointDays)
	}
	back.run(ArchiveOptions{Mode: Archive})
	sameRows(t, back.cold(), truth)
	back.whole()
}

// The drill of everything lost but a copy: it is a complete cold tier, whatever
// its ETags are.
func TestDrillOnlyACopyIsLeft(t *testing.T) {
	w := newWorld(t)
	truth := w.scatter(rand.New(rand.NewPCG(1, 2)), w.points(3), daysOf("2024-01-20", "2024-02-10"))
	w.run(ArchiveOptions{Mode: Archive})
	e := newWorld(t)
	for a, err := range w.dir.List(t.Context(), "") {
		w.must(err)
		data, _, err := w.dir.Get(t.Context(), a.Key)
		w.must(err)
		_, err = e.dir.Put(t.Context(), a.Key, data, object.PutOptions{IfAbsent: true})
		w.must(err)
	}
	r := e.restore(RestoreOptions{})
	if r.Written != int64(len(truth)) || r.FilesNewer != 0 {
		t.Errorf("%+v", r)
	}
	sameRows(t, e.hot(everything), truth)
	e.run(ArchiveOptions{Mode: Archive, Adopt: true})
	sameRows(t, e.cold(), truth)
	if r := e.prune(PruneOptions{OlderThan: 5}); r.Rows == 0 || len(r.Deferred) > 0 {
		t.Errorf("%+v", r)
	}
	sameRows(t, e.all(), truth)
	e.whole()
}

// A manifest that gives a file, with its right hash, to another point: nothing of it
// is restored or deleted.
func TestFileOfAnotherPoint(t *testing.T) {
	w, _, _ := old(t)
	man := w.manifest("2024-01")
	points := slices.Clone(man.Points)
	points[0], points[1] = points[1], points[0]
	for i := range points {
		points[i].ID, points[i].Name = man.Points[i].ID, man.Points[i].Name
	}
	swapped := *man
	swapped.Points = points
	w.overwrite("_manifests/2024-01.json", manifests.Encode(&swapped))
	truth := w.hot(everything)
	r, err := w.tryPrune(t.Context(), w.env(), PruneOptions{})
	w.must(err)
	if got := reasonsOf(r.Deferred); got != "damaged 4/0" || r.Rows != 48 || r.ExitCode() != fault.ExitCorrupt {
		t.Errorf("deferred %q, %d rows, exit %d", got, r.Rows, r.ExitCode())
	}
	e := w.empty()
	rr, err := e.tryRestore(t.Context(), e.env(), RestoreOptions{})
	w.must(err)
	if rr.Written != 48 || len(rr.Failed) != 2 || rr.ExitCode() != fault.ExitCorrupt {
		t.Errorf("%+v", rr)
	}
	maps.DeleteFunc(truth, func(k key, _ row) bool { return k.ts < at("2024-02-01 00:00") })
	sameRows(t, e.hot(everything), truth)
}
