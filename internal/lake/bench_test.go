package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"path/filepath"
	"testing"
	"time"

	"etl/internal/fleet"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/source/sqlite"
	"etl/internal/utc"
	"etl/manifests"
)

// slowList is a store whose listings take as long as those of a bucket.
type slowList struct {
	object.Store
	delay time.Duration
}

func (s slowList) List(ctx context.Context, prefix string) iter.Seq2[object.Attrs, error] {
	time.Sleep(s.delay)
	return s.Store.List(ctx, prefix)
}

// benchNow is noon after the last archived day.
var benchNow = time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)

// benchLake is a session over manifests of so many months and points up to
// yesterday, and a hot tier with the rows of today. Only the first point has month files.
func benchLake(b *testing.B, months, points int, list time.Duration) *Lake {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	ctx, root := context.Background(), b.TempDir()
	today := utc.DayOfTime(benchNow)
	f, err := fleet.New(fleet.Options{Seed: 1, Points: points, Start: (today.Month() - utc.Month(months)).First(), Days: months*31 + 2, Steady: true})
	must(err)
	store, err := dir.Open(filepath.Join(root, "r2"))
	must(err)
	enc := monthfile.NewEncoder(monthfile.Options{})
	var s sample.Series
	for m := today.Month() - utc.Month(months); m < today.Month(); m++ {
		man := &manifests.Manifest{Format: manifests.Format, Version: manifests.FormatVersion, Commit: "bench", Month: m}
		namer := manifests.NewNamer(m, f.Points(), man)
		days := sample.NewDayCounts(m)
		for d := range days {
			days[d] = 1440
		}
		for i, p := range f.Points() {
			data := []byte("none")
			etag := "none"
			facts := manifests.Facts{Point: p.ID, Name: p.Name, Month: m, Days: days, Samples: days.Samples(),
				First: m.First().Start(), Last: (m + 1).First().Start() - 60_000, RowsSHA256: fmt.Sprintf("%064d", i)}
			for key := range namer.Paths(p) {
				if i == 0 {
					s.Reset()
					f.Series(i, m.Days(), &s)
					data, _, err = enc.Encode(nil, monthfile.Meta{PointID: p.ID, PointName: p.Name, Month: m, Days: days}, &s)
					must(err)
					a, err := store.Put(ctx, key, data, object.PutOptions{})
					must(err)
					etag = a.ETag
				}
				e, err := manifests.NewEntry(key, data, etag, facts)
				must(err)
				man.Points = append(man.Points, e)
				man.Totals.Points++
				man.Totals.Files++
				man.Totals.Samples += e.Samples
				man.Totals.Bytes += e.Bytes
				break
			}
		}
		_, err := store.Put(ctx, manifests.KeyOf(m), manifests.Encode(man), object.PutOptions{})
		must(err)
	}
	_, err = manifests.Register(ctx, store, "bench", f.Points(), false)
	must(err)

	path := filepath.Join(root, "d1.sqlite")
	src, err := sqlite.Open(path, sqlite.Options{Create: true})
	must(err)
	_, err = src.Migrate(ctx)
	must(err)
	must(src.Close())
	_, err = fleet.Write(ctx, path, f.Points(), func(yield func(int32, *sample.Series) bool) {
		for i, p := range f.Points() {
			s.Reset()
			f.Series(i, utc.Days{From: today, To: today + 1}, &s)
			if cut := s.Slice(0, 720); !yield(p.ID, &cut) {
				return
			}
		}
	}, fleet.WriteOptions{Bulk: true})
	must(err)
	src, err = sqlite.Open(path, sqlite.Options{})
	must(err)
	b.Cleanup(func() { src.Close() })
	for id := int32(1); id <= 10; id++ {
		var marks []source.Slice
		for d := today - 35; d < today; d++ {
			marks = append(marks, source.Slice{Point: id, Day: d})
		}
		must(src.Claim(ctx, "bench", marks))
		_, err := src.Confirm(ctx, "bench", marks)
		must(err)
	}
	cache, err := OpenCache(filepath.Join(root, "cache"), 1<<40)
	must(err)
	l, err := Open(ctx, Options{Store: slowList{store, list}, StoreName: "bench", Source: src, Ledger: src, Cache: cache, Threads: 2, Now: func() time.Time { return benchNow }})
	must(err)
	b.Cleanup(func() { l.Close() })
	return l
}

// BenchmarkWarm is queries asked again in a session: nothing is to be fetched,
// and a listing takes 40 ms.
func BenchmarkWarm(b *testing.B) {
	l := benchLake(b, 12, 4500, 40*time.Millisecond)
	one := func(days int) string {
		return fmt.Sprintf("SELECT ts, value FROM samples WHERE point_id = 1 AND ts >= '%s' AND ts < '2024-05-01 12:00'", benchNow.AddDate(0, 0, -days).Format(time.DateTime))
	}
	for _, q := range []struct{ name, sql string }{
		{"latest", "SELECT point_name, ts, value FROM latest JOIN points USING (point_id) WHERE system = 'Electrical'"},
		{"24h", one(1)},
		{"90d", one(90)},
		{"1y", one(365)},
		{"cold", "SELECT count(*) FROM samples WHERE point_id = 1 AND ts < '2024-02-01'"},
	} {
		b.Run(q.name, func(b *testing.B) {
			ask := func() Stats {
				stats, err := l.Write(context.Background(), Query{SQL: q.sql}, io.Discard, CSV)
				if err != nil {
					b.Fatal(err)
				}
				return stats
			}
			ask()
			b.ResetTimer()
			var sum Stats
			for range b.N {
				s := ask()
				sum.Plan, sum.Catalog, sum.Fetch, sum.Extract, sum.Run = sum.Plan+s.Plan, sum.Catalog+s.Catalog, sum.Fetch+s.Fetch, sum.Extract+s.Extract, sum.Run+s.Run
			}
			for unit, d := range map[string]time.Duration{"plan-ms": sum.Plan, "catalog-ms": sum.Catalog, "fetch-ms": sum.Fetch, "extract-ms": sum.Extract, "run-ms": sum.Run} {
				b.ReportMetric(d.Seconds()*1e3/float64(b.N), unit)
			}
		})
	}
}

// BenchmarkFirst is the first query of a session, as each of a command line is,
// with all in the cache and with nothing; a listing takes 40 ms.
func BenchmarkFirst(b *testing.B) {
	o := benchLake(b, 12, 4500, 40*time.Millisecond).o
	first := func(b *testing.B) Stats {
		b.StopTimer()
		l, err := Open(context.Background(), o)
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		b.StartTimer()
		s, err := l.Write(context.Background(), Query{SQL: "SELECT ts, value FROM samples WHERE point_id = 1 AND ts >= '2024-04-30 12:00' AND ts < '2024-05-01 12:00'"}, io.Discard, CSV)
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	for _, name := range []string{"cached", "empty"} {
		b.Run(name, func(b *testing.B) {
			var sum Stats
			first(b)
			b.ResetTimer()
			for range b.N {
				if name == "empty" {
					if _, err := o.Cache.Clear(); err != nil {
						b.Fatal(err)
					}
				}
				s := first(b)
				sum.Plan, sum.Catalog, sum.Extract, sum.Run = sum.Plan+s.Plan, sum.Catalog+s.Catalog, sum.Extract+s.Extract, sum.Run+s.Run
			}
			for unit, d := range map[string]time.Duration{"plan-ms": sum.Plan, "catalog-ms": sum.Catalog, "extract-ms": sum.Extract, "run-ms": sum.Run} {
				b.ReportMetric(d.Seconds()*1e3/float64(b.N), unit)
			}
		})
	}
}

// BenchmarkCatalogYear makes a year of 4,500 points local: fresh, as a query over an
// empty cache has it, and out of the cache.
func BenchmarkCatalogYear(b *testing.B) {
	o := benchLake(b, 12, 4500, 0).o
	for _, name := range []string{"cached", "fresh"} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				if name == "fresh" {
					if _, err := o.Cache.Clear(); err != nil {
						b.Fatal(err)
					}
				}
				l, err := Open(context.Background(), o)
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				_, err = l.refresh(context.Background())
				if err == nil {
					_, err = l.loadMonths(context.Background(), math.MinInt64, math.MaxInt64)
				}
				b.StopTimer()
				if err := errors.Join(err, l.pins.settle(), l.Close()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkPlan is planning and selection over 35 months of 4,500 points.
func BenchmarkPlan(b *testing.B) {
	l := benchLake(b, 35, 4500, 0)
	for _, q := range []struct{ name, sql string }{
		{"one", "SELECT ts, value FROM samples WHERE point_name = 'Building1.HVAC.AHU1.FanStatus' AND ts >= '2024-04-01' AND ts < '2024-05-01'"},
		{"point", "SELECT avg(value) FROM samples WHERE point_id = 3"},
		{"month", "SELECT point_id, avg(value) FROM samples WHERE ts >= '2024-02-01' AND ts < '2024-03-01' GROUP BY ALL"},
	} {
		b.Run(q.name, func(b *testing.B) {
			for range b.N {
				if _, err := l.Explain(context.Background(), Query{SQL: q.sql}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
