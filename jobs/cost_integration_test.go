//go:build integration

package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"etl/internal/cloudflare"
	"etl/internal/cost"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/source/d1"
	"etl/internal/testserver"
)

// operations counts what R2 would bill of a store.
type operations struct {
	object.Store
	a, b atomic.Int64
}

func (o *operations) Get(ctx context.Context, k object.Key) ([]byte, object.Attrs, error) {
	o.b.Add(1)
	return o.Store.Get(ctx, k)
}

func (o *operations) Put(ctx context.Context, k object.Key, data []byte, p object.PutOptions) (object.Attrs, error) {
	o.a.Add(1)
	return o.Store.Put(ctx, k, data, p)
}

func (o *operations) List(ctx context.Context, prefix string) iter.Seq2[object.Attrs, error] {
	o.a.Add(1) // of up to 1,000 names
	return o.Store.List(ctx, prefix)
}

// TestIntegrationCost compares what etl cost tells with what Cloudflare's local runtime
// bills: of sensors and retention, a night, a look of etl status, a backfill. Each limit is
// near what was measured, so that a change of the engine's habits is noticed here.
func TestIntegrationCost(t *testing.T) {
	cf := testserver.Miniflare(t, testserver.Options{})
	client, err := cloudflare.New(cf.Account, cf.Token, cloudflare.Options{URL: cf.URL, HTTP: testserver.Client(t, cf.CAFile), Rate: 10_000, Burst: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	const points = 150
	first := day("2024-02-25")
	now := (first + 6).Time().Add(2 * time.Hour) // 2024-03-02
	db := client.Database(cf.DatabaseID)
	s := d1.Open(db, d1.Options{Now: func() time.Time { return now }})
	defer s.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Migrate(t.Context())
	must(err)
	var read, written float64
	raw := func(stmt string) {
		t.Helper()
		must(db.Raw(t.Context(), cloudflare.Once, []cloudflare.Statement{{SQL: stmt}}, func(r io.Reader) error {
			var a struct {
				Result []struct {
					Meta struct {
						RowsRead    float64 `json:"rows_read"`
						RowsWritten float64 `json:"rows_written"`
					} `json:"meta"`
				} `json:"result"`
			}
			if err := json.NewDecoder(r).Decode(&a); err != nil {
				return err
			}
			read, written = read+a.Result[0].Meta.RowsRead, written+a.Result[0].Meta.RowsWritten
			return nil
		}))
	}
	const perDay = 240
	fill := func(d int64) {
		t.Helper()
		raw(fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
			INSERT INTO timeseries (point_id, timestamp, value, flags) SELECT p.id, %d + i * 360000, i * 0.1, i %% 100 = 0 FROM n CROSS JOIN points p`, perDay-1, d))
	}
	// As a Worker writes: values, a thousand rows a statement, and one of a hundred in alarm.
	var names, rows []string
	for i := range points {
		names = append(names, fmt.Sprintf("('p%d', 360000)", i))
	}
	raw("INSERT INTO points (name, interval_ms) VALUES " + strings.Join(names, ","))

	l := cost.Default()
	l.Points, l.SamplesPerDay, l.Late, l.Looks = points, points*perDay, 0, 1000
	tell := func(what string, told, billed, within float64) {
		t.Helper()
		off := (told - billed) / math.Max(1, billed)
		t.Logf("%-36s told %8.0f, billed %8.0f: %+.1f %%", what, told, billed, 100*off)
		if math.Abs(off) > within {
			t.Errorf("%s: told %.0f, billed %.0f: %.1f %% apart, want at most %.0f %%", what, told, billed, 100*math.Abs(off), 100*within)
		}
	}

	read, written = 0, 0
	for i := range points * perDay {
		rows = append(rows, fmt.Sprintf("(%d,%d,%g,%d)", i%points+1, first.Start()+int64(i/points)*360000, float64(i)*0.1, (i/points%100)/99))
		if len(rows) == 1000 {
			raw("INSERT INTO timeseries (point_id, timestamp, value, flags) VALUES " + strings.Join(rows, ","))
			rows = rows[:0]
		}
	}
	inserts, _ := l.Sensors()
	tell("a day of inserts: rows written", inserts.RowsWritten, written, 0.02)
	tell("a day of inserts: rows read", inserts.RowsRead, read, 0.02)
	for d := first + 1; d < first+6; d++ {
		fill(d.Start())
	}

	folder, err := dir.Open(t.TempDir())
	must(err)
	store := &operations{Store: folder}
	env := Env{Source: s, Ledger: s, Journal: s, Store: store, Now: func() time.Time { return now }}
	run := func(o ArchiveOptions) (cost.Usage, Report) {
		t.Helper()
		before := s.Usage()
		store.a.Store(0)
		store.b.Store(0)
		_, err := s.Info(t.Context()) // as the command does
		must(err)
		p, err := PlanArchive(t.Context(), env, o)
		must(err)
		r, err := p.Run(t.Context(), env)
		must(err)
		if len(r.Failed) > 0 {
			t.Fatalf("%+v", r.Failed)
		}
		u := s.Usage()
		return cost.Usage{RowsRead: float64(u.RowsRead - before.RowsRead), RowsWritten: float64(u.RowsWritten - before.RowsWritten),
			Requests: float64(u.Requests - before.Requests), ClassA: float64(store.a.Load()), ClassB: float64(store.b.Load())}, r
	}
	compare := func(what string, told, billed cost.Usage) {
		t.Helper()
		tell(what+": rows read", told.RowsRead, billed.RowsRead, 0.05)
		tell(what+": rows written", told.RowsWritten, billed.RowsWritten, 0.05)
		tell(what+": requests", told.Requests, billed.Requests, 0.25)
		tell(what+": Class A", told.ClassA, billed.ClassA, 0.10)
		tell(what+": Class B", told.ClassB, billed.ClassB, 0.10)
	}

	// A backfill of the six days, which touch two months.
	billed, _ := run(ArchiveOptions{Mode: Backfill, Days: daysOf("2024-02-25", "2024-03-02")})
	b, err := cost.ComputeBackfill(l, cost.Cloudflare(), 6, 2)
	must(err)
	compare("backfill", b.Usage, billed)
	// The days of the window before it are archived empty, then comes a night like all others.
	run(ArchiveOptions{Mode: Archive})
	fill((first + 6).Start())
	now = now.Add(24 * time.Hour)
	billed, r := run(ArchiveOptions{Mode: Archive})
	if r.PointDays != points {
		t.Fatalf("the night reads %d point-days", r.PointDays)
	}
	compare("night", l.Nightly(), billed)

	// A look: the bound that docs/operations.md states, and what cost tells.
	for _, looks := range []int{300, 3000} {
		before := s.Usage()
		st, err := Status(t.Context(), env, StatusOptions{Limits: DefaultStatusLimits(), Looks: looks})
		must(err)
		if len(st.Failed) > 0 {
			t.Fatalf("%+v", st.Failed)
		}
		u := s.Usage()
		l.Looks = float64(looks)
		got := float64(u.RowsRead - before.RowsRead)
		tell(fmt.Sprintf("status, %d looks: rows read", looks), l.Status(2).RowsRead, got, 0.15)
		if bound := float64(10*points + 35*points + looks + 300); got > bound {
			t.Errorf("status reads %g rows of %d points, want at most %g", got, points, bound)
		}
		if u.RowsWritten != before.RowsWritten {
			t.Error("status writes")
		}
	}

	// Retention: rows a month later take the old days out, by and by.
	now = now.Add(40 * 24 * time.Hour)
	var told cost.Usage
	_, deletes := l.Sensors()
	left := func() (n float64) {
		var a answerOf
		must(db.Raw(t.Context(), cloudflare.Read, []cloudflare.Statement{{SQL: fmt.Sprintf("SELECT count(*) FROM timeseries WHERE timestamp < %d", (first + 7).Start())}}, func(r io.Reader) error {
			return json.NewDecoder(r).Decode(&a)
		}))
		return a.Result[0].Results.Rows[0][0]
	}
	before := left()
	read, written = 0, 0
	inserted := 0.0
	for i := 0; left() > before/10 && i < 60; i++ {
		now = now.Add(24 * time.Hour)
		raw(fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
			INSERT INTO timeseries (point_id, timestamp, value) SELECT p.id, %d + i * 360000, 1 FROM n CROSS JOIN points p`, perDay-1, now.UnixMilli()))
		inserted += points * perDay
	}
	gone := (before - left()) / (points * perDay) // days
	if gone < 5 {
		t.Fatalf("only %g days are gone", gone)
	}
	told.RowsWritten = inserted + deletes.RowsWritten*gone
	tell("retention: rows written", told.RowsWritten, written, 0.05)
	t.Logf("%.1f days of rows gone, read %.1f rows for each row deleted and %.1f for each inserted", gone, (read-2*inserted)/(gone*points*perDay), read/inserted)
}

type answerOf struct {
	Result []struct {
		Results struct {
			Rows [][]float64 `json:"rows"`
		} `json:"results"`
	} `json:"result"`
}
