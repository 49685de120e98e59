package jobs

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/source/d1"
)

// rowsIn reads all that a source holds of the tests' days.
func rowsIn(t testing.TB, s source.Source) map[key]row {
	t.Helper()
	points, _, err := s.Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []int32
	for _, p := range points {
		ids = append(ids, p.ID)
	}
	rows := make(map[key]row)
	if _, err := s.Read(t.Context(), source.Query{Points: ids, Days: everything}, func(b *sample.Batch) error {
		for i, ts := range b.TS {
			rows[key{b.PointID[i], ts}] = rowOf(&b.Series, i)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return rows
}

// Over D1's REST interface: pruned, lost, and restored into another database.
func TestPruneAndRestoreD1(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	w := newWorld(t) // 2024-02-10; its SQLite file is what D1 serves
	days := daysOf("2023-12-20", "2024-02-10")
	truth := w.scatter(rng, w.points(4), days)
	open := func(w *world) (Env, *d1.Source) {
		srv := cloudflaretest.Start(t, w.db, cloudflaretest.Options{})
		s := d1.Open(srv.Client(t).Database(cloudflaretest.Database), d1.Options{Now: func() time.Time { return w.now }})
		t.Cleanup(func() { s.Close() })
		env := w.env()
		env.Source, env.Ledger, env.Journal = s, s, s
		return env, s
	}
	env, s := open(w)
	if _, err := w.try(env, ArchiveOptions{Mode: Backfill, Days: days}); err != nil {
		t.Fatal(err)
	}
	o := PruneOptions{OlderThan: 30, chunk: 70, Pace: Pace{Rate: 4, Burst: 1}}
	plan, err := PlanPrune(t.Context(), env, o)
	w.must(err)
	if e := plan.Estimate; plan.Billed == nil || e.RowsWritten < plan.Rows+2*plan.PointDays || e.Requests == 0 || e.Minutes <= 0 || e.Dollars <= 0 {
		t.Errorf("estimate: %+v", e)
	}
	w.events = nil
	r, err := plan.Run(t.Context(), env)
	w.must(err)
	if r.Rows == 0 || r.Rows != plan.Rows || len(r.Deferred)+len(r.Failed) > 0 || r.Bookmark == "" || r.Billed == nil {
		t.Errorf("%+v", r)
	}
	if _, ok := w.events[0].(Bookmarked); !ok {
		t.Errorf("the first event is %#v, not the bookmark", w.events[0])
	}
	left := rowsIn(t, s)
	if int64(len(left)) != int64(len(truth))-r.Rows {
		t.Errorf("%d rows are left of %d, %d were deleted", len(left), len(truth), r.Rows)
	}
	for k, v := range readCold(t, w.dir) {
		if _, ok := left[k]; !ok {
			left[k] = v
		}
	}
	sameRows(t, left, truth)

	e := w.empty()
	env, s = open(e)
	ro := RestoreOptions{Days: everything, chunk: 70, Pace: o.Pace}
	rp, err := PlanRestore(t.Context(), env, ro)
	w.must(err)
	if rp.Estimate.RowsWritten < rp.Samples || rp.Estimate.Minutes <= 0 || rp.Bytes <= 0 {
		t.Errorf("estimate: %+v", rp.Estimate)
	}
	rr, err := rp.Run(t.Context(), env)
	w.must(err)
	if rr.Written != int64(len(truth)) || len(rr.Failed) > 0 || rr.Bookmark == "" || rr.PointsMade != 4 {
		t.Errorf("%+v", rr)
	}
	sameRows(t, rowsIn(t, s), truth)
	before := s.Usage().RowsWritten
	if rr, err = e.tryRestore(t.Context(), env, RestoreOptions{Overwrite: true}); err != nil || rr.Written != 0 {
		t.Errorf("again: %v, %+v", err, rr)
	}
	if n := s.Usage().RowsWritten - before; n > 8 {
		t.Errorf("a restore that has nothing to do is billed %d rows written, want the lines of its log alone", n)
	}
	if strings.Join(rp.NewPoints, " ") != "Site.P0 Site.P1 Site.P2 Site.P3" {
		t.Errorf("%v", rp.NewPoints)
	}
}
