//go:build integration

package jobs

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"etl/internal/cloudflare"
	"etl/internal/object/dir"
	"etl/internal/sample"
	"etl/internal/source/d1"
	"etl/internal/testserver"
)

// TestIntegrationPruneAndRestore archives a million rows from Cloudflare's own
// runtime, prunes all of them and restores all of them; they are compared row by row.
func TestIntegrationPruneAndRestore(t *testing.T) {
	cf := testserver.Miniflare(t, testserver.Options{})
	client, err := cloudflare.New(cf.Account, cf.Token, cloudflare.Options{URL: cf.URL, HTTP: testserver.Client(t, cf.CAFile), Rate: 10_000, Burst: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	days := daysOf("2024-01-15", "2024-02-05")
	now := day("2024-04-01").Time()
	s := d1.Open(client.Database(cf.DatabaseID), d1.Options{Now: func() time.Time { return now }})
	defer s.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Migrate(t.Context())
	must(err)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	const points, perDay = 34, 1440
	var names []sample.Point
	truth := make(map[key]row, points*perDay*days.Len())
	for id := range int32(points) {
		names = append(names, sample.Point{ID: id + 1, Name: "Site.P" + string(rune('A'+id))})
	}
	must(s.RestorePoints(t.Context(), names))
	for d := days.From; d < days.To; d++ {
		b := &sample.Batch{}
		for id := range int32(points) {
			for i := range int64(perDay) {
				v := math.Float64frombits(rng.Uint64())
				if rng.IntN(2) == 0 {
					v = odd[rng.IntN(len(odd))]
				}
				if v != v {
					v = sample.Null
				}
				b.PointID = append(b.PointID, id+1)
				b.Append(d.Start()+i*60_000, v+0, uint8(rng.IntN(256)), uint16(rng.IntN(100)/99))
				truth[key{id + 1, d.Start() + i*60_000}] = rowOf(&b.Series, b.Len()-1)
			}
		}
		must(s.Restore(t.Context(), b, false))
	}
	store, err := dir.Open(t.TempDir())
	must(err)
	env := Env{Source: s, Ledger: s, Journal: s, Store: store, Now: func() time.Time { return now }}
	p, err := PlanArchive(t.Context(), env, ArchiveOptions{Mode: Backfill, Days: days})
	must(err)
	ar, err := p.Run(t.Context(), env)
	must(err)
	if len(ar.Failed) > 0 || ar.SamplesAdded != int64(len(truth)) {
		t.Fatalf("archive: %+v", ar)
	}

	used, start := s.Usage(), time.Now()
	pp, err := PlanPrune(t.Context(), env, PruneOptions{})
	must(err)
	pr, err := pp.Run(t.Context(), env)
	must(err)
	if pr.Rows != int64(len(truth)) || len(pr.Failed)+len(pr.Deferred) > 0 {
		t.Fatalf("prune: %+v", pr)
	}
	took, now2 := time.Since(start), s.Usage()
	t.Logf("pruned %d rows in %.1f s (%.0f rows/s) with %d requests (told: %d); billed %d written (told: %d), %d read (told: %d)", pr.Rows, took.Seconds(), float64(pr.Rows)/took.Seconds(),
		now2.Requests-used.Requests, pp.Estimate.Requests, now2.RowsWritten-used.RowsWritten, pp.Estimate.RowsWritten, now2.RowsRead-used.RowsRead, pp.Estimate.RowsRead)
	if left := rowsIn(t, s); len(left) > 0 {
		t.Errorf("%d rows are left", len(left))
	}
	sameRows(t, readCold(t, store), truth)

	used, start = s.Usage(), time.Now()
	rp, err := PlanRestore(t.Context(), env, RestoreOptions{Days: days, MarkOld: true})
	must(err)
	rr, err := rp.Run(t.Context(), env)
	must(err)
	if rr.Written != int64(len(truth)) || len(rr.Failed) > 0 || rr.DaysMarked != points*int64(days.Len()) {
		t.Fatalf("restore: %+v", rr)
	}
	took, now2 = time.Since(start), s.Usage()
	t.Logf("restored %d rows in %.1f s (%.0f rows/s) with %d requests (told: %d); billed %d written (told: %d), %d read (told: %d)", rr.Written, took.Seconds(), float64(rr.Written)/took.Seconds(),
		now2.Requests-used.Requests, rp.Estimate.Requests, now2.RowsWritten-used.RowsWritten, rp.Estimate.RowsWritten, now2.RowsRead-used.RowsRead, rp.Estimate.RowsRead)
	sameRows(t, rowsIn(t, s), truth)
	used = s.Usage()
	rp, err = PlanRestore(t.Context(), env, RestoreOptions{Days: days})
	must(err)
	if rr, err = rp.Run(t.Context(), env); err != nil || rr.Written != 0 || s.Usage().RowsWritten-used.RowsWritten > 10 {
		t.Errorf("again: %v, %+v, billed %d", err, rr, s.Usage().RowsWritten-used.RowsWritten)
	}
}
