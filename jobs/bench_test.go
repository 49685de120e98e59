package jobs

import (
	"path/filepath"
	"testing"
	"time"

	"etl/internal/fleet"
	"etl/internal/object/dir"
	sqlitesource "etl/internal/source/sqlite"
	"etl/internal/utc"
)

// BenchmarkArchive runs the engine over a made-up fleet of 500 points at one
// sample a minute: a day into a fresh month, and a day into a month of nine.
func BenchmarkArchive(b *testing.B) {
	const points, days = 500, 10
	f, err := fleet.New(fleet.Bench(points, days))
	if err != nil {
		b.Fatal(err)
	}
	all := f.Days()
	db := filepath.Join(b.TempDir(), "d1.sqlite")
	now := func() time.Time { return all.To.Time().Add(2 * time.Hour) }
	tables, err := sqlitesource.Open(db, sqlitesource.Options{Create: true})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := tables.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := tables.Close(); err != nil {
		b.Fatal(err)
	}
	src, err := sqlitesource.Open(db, sqlitesource.Options{Readers: 3, Now: now})
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	if _, err := f.WriteSQLite(b.Context(), db, all, fleet.WriteOptions{Bulk: true}); err != nil {
		b.Fatal(err)
	}
	last := utc.Days{From: all.To - 1, To: all.To}
	for name, before := range map[string]utc.Days{"fresh": {}, "after 9 days": {From: all.From, To: last.From}} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				store, err := dir.Open(b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				env := Env{Source: src, Ledger: src, Journal: src, Store: store, Now: time.Now}
				job := func(days utc.Days) Report {
					plan, err := PlanArchive(b.Context(), env, ArchiveOptions{Mode: Backfill, Days: days})
					if err != nil {
						b.Fatal(err)
					}
					r, err := plan.Run(b.Context(), env)
					if err != nil || len(r.Failed) > 0 {
						b.Fatal(err, r.Failed)
					}
					return r
				}
				if !before.Empty() {
					job(before)
				}
				b.StartTimer()
				if r := job(last); r.FilesWritten != points {
					b.Fatalf("%d files written", r.FilesWritten)
				}
			}
			b.ReportMetric(float64(b.N)*points*1440/b.Elapsed().Seconds()/1e6, "Mrows/s")
			b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/points, "µs/file")
		})
	}
}
