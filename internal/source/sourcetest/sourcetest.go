// Package sourcetest is the conformance suite of sources: every sentence of
// package source, tried on a real database with the migrations applied. It
// assumes no snapshot, no number of requests and no size of a batch, so that a
// source that pages over HTTP passes it as well as one that reads a file.
package sourcetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

// Harness is a source and a way into its database beside it.
type Harness struct {
	// Source is open on a database to which the migrations were applied, and
	// which holds no rows. It is closed by whoever made the harness.
	Source source.Source
	// Exec runs a script of SQL statements in the same database, not over a
	// connection of Source, each statement by itself or all in one
	// transaction. It is safe for concurrent use and fails the test on an error.
	Exec func(t testing.TB, script string)
	// ManyRows is the number of rows of each of three points that make more
	// than a batch or a page, 43,200 if zero: a day of one every two seconds.
	ManyRows int
}

// Run tries the source that open makes, a new one for each part of the suite.
// What Source offers beside source.Source is tried if it is there.
func Run(t *testing.T, open func(*testing.T) Harness) {
	parts := []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"Info", testInfo},
		{"Points", testPoints},
		{"PointsRejects", testPointsRejects},
		{"List", testList},
		{"ReadHalfOpenDays", testReadHalfOpen},
		{"ReadValues", testReadValues},
		{"ReadRejects", testReadRejects},
		{"ReadManyRows", testReadManyRows},
		{"ReadModel", testReadModel},
		{"ReadStops", testReadStops},
		{"ReadBesideAWriter", testReadBesideWriter},
		{"ReadConcurrently", testReadConcurrently},
		{"Strays", testStrays},
		{"Summaries", testSummaries},
		{"Latest", testLatest},
		{"LatestModel", testLatestModel},
		{"Size", testSize},
		{"Marked", testMarked},
		{"Newest", testNewest},
		{"Quality", testQuality},
		{"Group", testGroup},
		{"Groups", testGroups},
		{"Migrate", testMigrate},
		{"LedgerArrivals", testArrivals},
		{"LedgerClaims", testClaims},
		{"LedgerRange", testLedgerRange},
		{"LedgerModel", testLedgerModel},
		{"LedgerManySlices", testManySlices},
		{"Log", testLog},
		{"LogCrashed", testCrashed},
		{"CreatePoints", testCreatePoints},
		{"Revoke", testRevoke},
		{"Prune", testPrune},
		{"PruneModel", testPruneModel},
		{"PruneBesideWriters", testPruneBesideWriters},
		{"RestorePoints", testRestorePoints},
		{"RestorePointsOlderTable", testRestorePointsOlder},
		{"Restore", testRestore},
		{"RestoreValues", testRestoreValues},
		{"Correct", testCorrect},
		{"RestoreModel", testRestoreModel},
		{"RetentionBounds", testRetentionBounds},
		{"RetentionAgain", testRetentionAgain},
		{"RetentionModel", testRetentionModel},
		{"RetentionGate", testRetentionGate},
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) { p.run(t, open(t)) })
	}
}

// d0 is the day that most rows of the suite lie in, 2024-01-05.
const d0 = utc.Day(19727)

// Sample is one row, for comparisons.
type Sample struct {
	Point   int32
	TS      int64
	Value   uint64 // bits, NULL as sample.Null
	Quality uint8
	Flags   uint16
}

// ReadAll reads a query to its end and checks what holds for every read: the
// order, that a timestamp comes once, that all lies in the query, that rejects
// come in time and that the rows are counted.
func ReadAll(t testing.TB, s source.Source, q source.Query) ([]Sample, []sample.Reject) {
	t.Helper()
	var out []Sample
	var rejects []sample.Reject
	stats, err := s.Read(t.Context(), q, func(b *sample.Batch) error {
		if len(b.PointID) != b.Len() || len(b.Value) != b.Len() || len(b.Quality) != b.Len() || len(b.Flags) != b.Len() {
			t.Fatalf("a batch whose columns differ in length")
		}
		if b.Len() == 0 && len(b.Rejects) == 0 {
			t.Errorf("an empty batch")
		}
		for _, r := range b.Rejects {
			id, ok := r.PointID.V.(int64)
			if !ok || !slices.Contains(q.Points, int32(id)) {
				t.Errorf("a reject of point %v, which was not asked for", r.PointID.V)
			}
			if n := len(out); n > 0 && int64(out[n-1].Point) > id {
				t.Errorf("a reject of point %d comes after a batch with point %d", id, out[n-1].Point)
			}
			if r.Reason == "" {
				t.Errorf("a reject without a reason: %+v", r)
			}
		}
		for i, id := range b.PointID {
			out = append(out, Sample{id, b.TS[i], canonical(b.Value[i]), b.Quality[i], b.Flags[i]})
		}
		rejects = append(rejects, b.Rejects...)
		return nil
	})
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	for i, r := range out {
		if !slices.Contains(q.Points, r.Point) || !q.Days.Contains(utc.DayOf(r.TS)) {
			t.Fatalf("row %d: %+v is not in the query", i, r)
		}
		if i > 0 && cmpKey(out[i-1], r) >= 0 {
			t.Fatalf("row %d: %+v does not come after %+v", i, r, out[i-1])
		}
	}
	if want := int64(len(out) + len(rejects)); stats.Rows != want {
		t.Errorf("stats count %d rows, %d were delivered", stats.Rows, want)
	}
	if len(out) > 0 && stats.Requests == 0 {
		t.Errorf("stats count no request")
	}
	counts, err := s.Count(t.Context(), q)
	if err != nil {
		t.Fatalf("count: %v", err)
	}
	delivered := map[int32]int64{}
	for _, r := range out {
		delivered[r.Point]++
	}
	for _, r := range rejects {
		delivered[int32(r.PointID.V.(int64))]++
	}
	if _, busy := t.(beside); !maps.Equal(counts, delivered) && !busy {
		t.Errorf("count says %v rows, read delivered %v", counts, delivered)
	}
	return out, rejects
}

// beside marks a test in which rows arrive between Read and Count.
type beside struct{ testing.TB }

func cmpKey(a, b Sample) int {
	switch {
	case a.Point != b.Point:
		return int(int64(a.Point) - int64(b.Point))
	case a.TS < b.TS:
		return -1
	case a.TS > b.TS:
		return 1
	}
	return 0
}

func canonical(v float64) uint64 {
	if v != v {
		v = sample.Null
	}
	return math.Float64bits(v)
}

func days(from, to utc.Day) utc.Days { return utc.Days{From: from, To: to} }

func row(p int32, ts int64, v float64) Sample { return Sample{p, ts, canonical(v), 192, 0} }

func insert(h Harness, t testing.TB, rows ...Sample) {
	t.Helper()
	for chunk := range slices.Chunk(rows, 500) {
		var b strings.Builder
		b.WriteString("INSERT INTO timeseries (point_id, timestamp, value, quality, flags) VALUES ")
		for i, r := range chunk {
			if i > 0 {
				b.WriteString(", ")
			}
			v := "NULL"
			if f := math.Float64frombits(r.Value); math.IsInf(f, 0) {
				v = fmt.Sprintf("%de999", map[bool]int{true: 1, false: -1}[f > 0])
			} else if f == f {
				v = fmt.Sprintf("%.17e", f)
			}
			fmt.Fprintf(&b, "(%d, %d, %s, %d, %d)", r.Point, r.TS, v, r.Quality, r.Flags)
		}
		h.Exec(t, b.String())
	}
}

func equalRows(t testing.TB, what string, got, want []Sample) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("%s: row %d is %+v, want %+v", what, i, got[i], want[i])
		}
	}
	t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
}

func random(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func testInfo(t *testing.T, h Harness) {
	a, err := h.Source.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if a.ID == "" || !a.Ledger || a.Now.IsZero() {
		t.Errorf("info of a migrated database: %+v", a)
	}
	if m, ok := h.Source.(source.Migrator); ok {
		if _, err := m.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	b, err := h.Source.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b.ID != a.ID || b.Now.Before(a.Now) {
		t.Errorf("info was %+v and is %+v", a, b)
	}
	h.Exec(t, "DROP TRIGGER tr_timeseries_update_unmarks")
	if c, err := h.Source.Info(t.Context()); err != nil || c.Ledger {
		t.Errorf("without a trigger of the ledger: %+v, %v", c, err)
	}
	h.Exec(t, "DROP TABLE archive_source")
	if c, err := h.Source.Info(t.Context()); err != nil || c.ID != "" {
		t.Errorf("without a source_id: %+v, %v", c, err)
	}
}

func testPoints(t *testing.T, h Harness) {
	ps, rejects, err := h.Source.Points(t.Context())
	if err != nil || len(ps) != 0 || len(rejects) != 0 {
		t.Fatalf("points of an empty database: %v, %v, %v", ps, rejects, err)
	}
	h.Exec(t, `INSERT INTO points (id, name, site, system, equipment, unit, interval_ms, min_value, max_value, created_at) VALUES
		(7, 'Bldg/äöü "quoted" ''name''', 's', 'y', 'e', '°C', 60000, -5, 1e300, 1700000000000),
		(2, 'plain', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
		(2147483647, 'last', '', 'y', NULL, NULL, 0, NULL, NULL, 0)`)
	insert(h, t, row(7, d0.Start(), 1), row(5, d0.Start(), 1), row(5, d0.Start()+1, 1), row(-3, 0, 1), row(math.MinInt32, 5, 1), row(100, 5, 1))
	ps, rejects, err = h.Source.Points(t.Context())
	if err != nil || len(rejects) != 0 {
		t.Fatalf("points: %v, rejects %v", err, rejects)
	}
	var got []string
	for _, p := range ps {
		got = append(got, fmt.Sprintf("%d %s %t", p.ID, p.Name, p.Orphan))
	}
	want := []string{"-2147483648 point--2147483648 true", "-3 point--3 true", "2 plain false", "5 point-5 true",
		`7 Bldg/äöü "quoted" 'name' false`, "100 point-100 true", "2147483647 last false"}
	if !slices.Equal(got, want) {
		t.Fatalf("points\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	plain, full, last := ps[2], ps[4], ps[6]
	if plain.Site != nil || plain.System != nil || plain.Equipment != nil || plain.Unit != nil ||
		plain.IntervalMS != nil || plain.MinValue != nil || plain.MaxValue != nil || plain.CreatedAt != nil {
		t.Errorf("NULLs are not nil: %+v", plain)
	}
	if *full.Site != "s" || *full.System != "y" || *full.Equipment != "e" || *full.Unit != "°C" || *full.IntervalMS != 60000 ||
		*full.MinValue != -5 || *full.MaxValue != 1e300 || *full.CreatedAt != 1700000000000 {
		t.Errorf("columns of %+v", full)
	}
	if *last.Site != "" || *last.IntervalMS != 0 || *last.CreatedAt != 0 {
		t.Errorf("empty is not NULL: %+v", last)
	}
}

func testPointsRejects(t *testing.T, h Harness) {
	insert(h, t, row(1, d0.Start(), 1), row(3, d0.Start(), 1))
	h.Exec(t, `INSERT INTO timeseries (point_id, timestamp, value) VALUES
		(2147483648, 5, 1.5), (-2147483649, 6, 2.5), (2.5, 7, 3.5), (2.5, 8, 3.5), ('abc', 9, 4.5), (x'6162', 10, NULL)`)
	ps, rejects, err := h.Source.Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(ps) != 2 || ps[0].ID != 1 || ps[1].ID != 3 {
		t.Errorf("points %+v", ps)
	}
	got := map[string]bool{}
	for _, r := range rejects {
		got[fmt.Sprintf("%T %v %v %v %v %v", r.PointID.V, r.PointID.V, r.Timestamp.V, r.Value.V, r.Quality.V, r.Flags.V)] = true
		if !strings.Contains(r.Reason, "point_id") {
			t.Errorf("reason %q of %+v", r.Reason, r)
		}
	}
	for _, w := range []string{"int64 2147483648 5 1.5 192 0", "int64 -2147483649 6 2.5 192 0", "float64 2.5 7 3.5 192 0",
		"float64 2.5 8 3.5 192 0", "string abc 9 4.5 192 0", "[]uint8 [97 98] 10 <nil> 192 0"} {
		if !got[w] {
			t.Errorf("no reject %s in %v", w, got)
		}
	}
	if len(rejects) != 6 {
		t.Errorf("%d rejects, want 6", len(rejects))
	}
	h.Exec(t, `INSERT INTO timeseries (point_id, timestamp) SELECT 3000000000 + value % 7, value FROM (
		WITH RECURSIVE i(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM i WHERE value < 10100) SELECT value FROM i)`)
	if _, rejects, err = h.Source.Points(t.Context()); err != nil || len(rejects) != source.MaxStrays {
		t.Errorf("%d rejects, want %d at most; %v", len(rejects), source.MaxStrays, err)
	}
}

// testList: List says what Points says, wherever the ids that the points table
// lacks lie, but that it may not see fractions between two neighbouring ids.
func testList(t *testing.T, h Harness) {
	l, ok := h.Source.(source.Lister)
	if !ok {
		t.Skip("not a Lister")
	}
	same := func(what string, unseen int) {
		t.Helper()
		ps, rejects, err := h.Source.Points(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, gotRejects, err := l.List(t.Context())
		if err != nil || !reflect.DeepEqual(got, ps) {
			t.Errorf("%s: %+v, %v; Points says %+v", what, got, err, ps)
		}
		if n := len(rejects) - len(gotRejects); n < 0 || n > unseen {
			t.Errorf("%s: rejects %v, Points has %v", what, gotRejects, rejects)
		}
	}
	same("nothing", 0)
	insert(h, t, row(math.MinInt32, 5, 1), row(7, d0.Start(), 1), row(8, d0.Start(), 1), row(math.MaxInt32, 5, 1))
	same("orphans alone", 0)
	h.Exec(t, "INSERT INTO points (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c'), (6, 'f'), (9, 'i')")
	insert(h, t, row(2, d0.Start(), 1), row(5, d0.Start(), 1), row(100, d0.Start(), 1), row(101, d0.Start()+1, 1), row(0, d0.Start(), 1))
	same("orphans in gaps", 0)
	h.Exec(t, "INSERT INTO timeseries (point_id, timestamp) VALUES (4.5, 1), (4.5, 2), (5.5, 3), (99.5, 4), (100.5, 5), (3000000000, 6), (-3000000000, 7), ('x', 8)")
	same("rejects in gaps", 0)
	h.Exec(t, "INSERT INTO timeseries (point_id, timestamp) VALUES (2.5, 1)")
	same("a fraction between neighbours", 1)
	h.Exec(t, "INSERT INTO points (id, name) VALUES (2147483647, 'last'), (-2147483648, 'first')")
	same("the first and the last id", 1)
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		id := rnd.Int32N(40)
		if rnd.IntN(2) == 0 {
			h.Exec(t, fmt.Sprintf("INSERT INTO points (id, name) VALUES (%d, 'p%d') ON CONFLICT DO NOTHING", id, id))
		} else {
			h.Exec(t, fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (%d, 1) ON CONFLICT DO NOTHING", id))
		}
	}
	h.Exec(t, "DELETE FROM timeseries WHERE typeof(point_id) = 'real'")
	same("any ids", 0)
}

func testReadHalfOpen(t *testing.T, h Harness) {
	var all []Sample
	for _, p := range []int32{-7, 1, 2, 9} {
		for d := d0 - 1; d <= d0+2; d++ {
			all = append(all, row(p, d.Start(), 1), row(p, d.Start()+1, 2), row(p, d.End()-1, 3))
		}
	}
	insert(h, t, all...)
	for from := d0 - 2; from <= d0+3; from++ {
		for to := from; to <= d0+3; to++ {
			for _, points := range [][]int32{{1}, {-7, 2, 3, 9}, {5}, nil} {
				q := source.Query{Points: points, Days: days(from, to)}
				var want []Sample
				for _, r := range all {
					if slices.Contains(points, r.Point) && r.TS >= from.Start() && r.TS < to.Start() {
						want = append(want, r)
					}
				}
				got, _ := ReadAll(t, h.Source, q)
				equalRows(t, fmt.Sprint(q), got, want)
			}
		}
	}
}

func testReadValues(t *testing.T, h Harness) {
	vs := []float64{0, 1, -1, 0.1, 1.0 / 3, math.Pi, 1e-300, math.SmallestNonzeroFloat64, -math.SmallestNonzeroFloat64, math.MaxFloat64,
		-math.MaxFloat64, math.Inf(1), math.Inf(-1), sample.Null, 1 << 53, 1<<53 + 2, 123456789.123456789, 9007199254740993, 1e22, 1e23, 5e-324, 2.2250738585072011e-308}
	var want []Sample
	for i, v := range vs {
		r := row(1, d0.Start()+int64(i), v)
		r.Quality, r.Flags = uint8(i*37), uint16(i*3001)
		want = append(want, r)
	}
	want = append(want, Sample{1, d0.Start() + 1000, 0, 0, 0}, Sample{1, d0.Start() + 1001, 0, 255, 65535})
	insert(h, t, want...)
	got, _ := ReadAll(t, h.Source, source.Query{Points: []int32{1}, Days: days(d0, d0+1)})
	equalRows(t, "values", got, want)
}

func testReadRejects(t *testing.T, h Harness) {
	bad := []struct {
		ts, value, quality, flags string
		cells                     [4]any
		about                     string
	}{
		{"%d", "'abc'", "192", "0", [4]any{nil, "abc", int64(192), int64(0)}, "value"},
		{"%d", "x'00ff'", "192", "0", [4]any{nil, []byte{0, 255}, int64(192), int64(0)}, "value"},
		{"%d", "'it''s; \"x\" \u00e9'", "192", "0", [4]any{nil, "it's; \"x\" \u00e9", int64(192), int64(0)}, "value"},
		{"%d", "''", "192", "0", [4]any{nil, "", int64(192), int64(0)}, "value"},
		{"%d.5", "1.5", "192", "0", [4]any{0.5, 1.5, int64(192), int64(0)}, "timestamp"},
		{"%d", "1.5", "256", "0", [4]any{nil, 1.5, int64(256), int64(0)}, "quality"},
		{"%d", "1.5", "-1", "0", [4]any{nil, 1.5, int64(-1), int64(0)}, "quality"},
		{"%d", "1.5", "1.5", "0", [4]any{nil, 1.5, 1.5, int64(0)}, "quality"},
		{"%d", "1.5", "'good'", "0", [4]any{nil, 1.5, "good", int64(0)}, "quality"},
		{"%d", "1.5", "192", "65536", [4]any{nil, 1.5, int64(192), int64(65536)}, "flags"},
		{"%d", "1.5", "192", "-1", [4]any{nil, 1.5, int64(192), int64(-1)}, "flags"},
		{"%d", "NULL", "192", "x'01'", [4]any{nil, nil, int64(192), []byte{1}}, "flags"},
		{"%d", "9e999", "192", "9007199254740993", [4]any{nil, math.Inf(1), int64(192), int64(9007199254740993)}, "flags"},
	}
	var want []Sample
	var script strings.Builder
	for i, b := range bad {
		ts := d0.Start() + int64(i)*1000
		fmt.Fprintf(&script, "INSERT INTO timeseries VALUES (3, "+b.ts+", %s, %s, %s);\n", ts, b.value, b.quality, b.flags)
		want = append(want, row(3, ts+500, float64(i)))
	}
	h.Exec(t, script.String())
	want = append(want, row(4, d0.Start(), 1))
	insert(h, t, want...)
	got, rejects := ReadAll(t, h.Source, source.Query{Points: []int32{1, 3, 4}, Days: days(d0, d0+1)})
	equalRows(t, "the rows beside", got, want)
	if len(rejects) != len(bad) {
		t.Fatalf("%d rejects, want %d", len(rejects), len(bad))
	}
	for i, b := range bad {
		r := rejects[i]
		cells := [4]any{r.Timestamp.V, r.Value.V, r.Quality.V, r.Flags.V}
		wants := b.cells
		wants[0] = d0.Start() + int64(i)*1000
		if b.cells[0] != nil {
			wants[0] = float64(d0.Start()+int64(i)*1000) + 0.5
		}
		if fmt.Sprintf("%T%#v", r.PointID.V, r.PointID.V) != "int643" || fmt.Sprintf("%#v", cells) != fmt.Sprintf("%#v", wants) {
			t.Errorf("reject %d is %#v of %#v, want %#v", i, cells, r.PointID.V, wants)
		}
		if !strings.Contains(r.Reason, b.about) {
			t.Errorf("reject %d: reason %q does not name %s", i, r.Reason, b.about)
		}
	}
}

func testReadManyRows(t *testing.T, h Harness) {
	n := cmp.Or(h.ManyRows, 43_200) // with rejects on both sides of the end of a batch
	h.Exec(t, fmt.Sprintf(`WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < %d)
		INSERT INTO timeseries (point_id, timestamp, value, quality, flags)
		SELECT p.p, %d + n * 2000, CASE WHEN n %% 499 = 498 THEN 'bad' ELSE p.p * 1000.5 + n END, n %% 256, n
		FROM (SELECT 1 p UNION SELECT 2 UNION SELECT 3) p CROSS JOIN i`, n-1, d0.Start()))
	var want []Sample
	for p := range int32(3) {
		for i := range int64(n) {
			if i%499 != 498 {
				want = append(want, Sample{p + 1, d0.Start() + i*2000, math.Float64bits(float64(p+1)*1000.5 + float64(i)), uint8(i % 256), uint16(i)})
			}
		}
	}
	q := source.Query{Points: []int32{1, 2, 3}, Days: days(d0, d0+1)}
	got, rejects := ReadAll(t, h.Source, q)
	equalRows(t, "many rows", got, want)
	if len(rejects) != 3*(n/499) {
		t.Errorf("%d rejects, want %d", len(rejects), 3*(n/499))
	}
}

// testReadModel reads random ranges of random rows, some with a real for a timestamp.
func testReadModel(t *testing.T, h Harness) {
	r := random(t)
	var want []Sample
	odd := map[int32][]float64{}
	var script strings.Builder
	for p := int32(1); p <= 12; p++ {
		seen := map[int64]bool{}
		for range r.IntN(60) {
			ts := (d0 + utc.Day(r.IntN(6))).Start() + int64(r.IntN(5))*17_280_000 + int64(r.IntN(3)) - 1
			if seen[ts] {
				continue
			}
			seen[ts] = true
			if r.IntN(8) == 0 {
				odd[p] = append(odd[p], float64(ts)+0.5)
				fmt.Fprintf(&script, "INSERT INTO timeseries (point_id, timestamp) VALUES (%d, %d.5);", p, ts)
			} else {
				want = append(want, row(p, ts, r.Float64()))
			}
		}
	}
	if script.Len() > 0 {
		h.Exec(t, script.String())
	}
	slices.SortFunc(want, cmpKey)
	insert(h, t, want...)
	for range 60 {
		from := d0 - 1 + utc.Day(r.IntN(8))
		q := source.Query{Days: days(from, from+utc.Day(r.IntN(4)))}
		for p := int32(0); p <= 13; p++ {
			if r.IntN(3) > 0 {
				q.Points = append(q.Points, p)
			}
		}
		var sel []Sample
		n := 0
		for _, s := range want {
			if slices.Contains(q.Points, s.Point) && q.Days.Contains(utc.DayOf(s.TS)) {
				sel = append(sel, s)
			}
		}
		for _, p := range q.Points {
			for _, ts := range odd[p] {
				if ts >= float64(q.Days.From.Start()) && ts < float64(q.Days.To.Start()) {
					n++
				}
			}
		}
		got, rejects := ReadAll(t, h.Source, q)
		equalRows(t, fmt.Sprint(q), got, sel)
		if len(rejects) != n {
			t.Fatalf("%v: %d rejects, want %d", q, len(rejects), n)
		}
	}
}

func testReadStops(t *testing.T, h Harness) {
	insert(h, t, row(1, d0.Start(), 1), row(2, d0.Start(), 1))
	q := source.Query{Points: []int32{1, 2}, Days: days(d0, d0+1)}
	enough := errors.New("enough")
	calls := 0
	_, err := h.Source.Read(t.Context(), q, func(*sample.Batch) error { calls++; return enough })
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("an error of f: %v after %d calls", err, calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = h.Source.Read(ctx, q, func(*sample.Batch) error { t.Error("f was called"); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	if _, _, err = h.Source.Points(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("points, cancelled: %v", err)
	}
	if l, ok := h.Source.(source.Ledger); ok {
		if err := l.Claim(ctx, "r", []source.Slice{{Point: 1, Day: d0}}); !errors.Is(err, context.Canceled) {
			t.Errorf("claim, cancelled: %v", err)
		}
		if got := marks(t, l, days(d0, d0+1), 1); len(got) != 0 {
			t.Errorf("a cancelled claim was written: %v", got)
		}
	}
	if got, _ := ReadAll(t, h.Source, q); len(got) != 2 {
		t.Errorf("after a cancelled read: %d rows", len(got))
	}
}

// testReadBesideWriter: rows committed before a read are delivered while others
// arrive around them.
func testReadBesideWriter(t *testing.T, h Harness) {
	const n = 600
	h.Exec(t, fmt.Sprintf(`WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < %d)
		INSERT INTO timeseries (point_id, timestamp, value) SELECT p.p, %d + n * 10, n + 0.25
		FROM (SELECT 1 p UNION SELECT 2 UNION SELECT 3) p CROSS JOIN i`, n-1, d0.Start()))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				h.Exec(t, fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp, value) VALUES (%d, %d, 0.5)",
					1+i%3, d0.Start()+int64(i*7919%(n*10)/10*10)+1+int64(i/n)))
			}
		}
	})
	for range 15 {
		got, _ := ReadAll(beside{t}, h.Source, source.Query{Points: []int32{1, 2, 3}, Days: days(d0, d0+1)})
		base := 0
		for _, s := range got {
			if (s.TS-d0.Start())%10 == 0 {
				base++
			}
		}
		if base != 3*n {
			t.Errorf("%d of the %d rows from before the read", base, 3*n)
		}
	}
	close(stop)
	wg.Wait()
}

func testReadConcurrently(t *testing.T, h Harness) {
	var want []Sample
	for p := int32(1); p <= 8; p++ {
		for i := range int64(300) {
			want = append(want, row(p, d0.Start()+i*60_000, float64(p)+float64(i)/7))
		}
	}
	insert(h, t, want...)
	var wg sync.WaitGroup
	for p := int32(1); p <= 8; p++ {
		wg.Go(func() {
			for range 5 {
				got, _ := ReadAll(t, h.Source, source.Query{Points: []int32{p}, Days: days(d0, d0+1)})
				if !slices.Equal(got, want[(p-1)*300:p*300]) {
					t.Errorf("point %d: the rows differ", p)
				}
			}
		})
	}
	wg.Wait()
}

func testStrays(t *testing.T, h Harness) {
	window := days(d0, d0+10)
	insert(h, t, row(1, window.From.Start(), 1), row(1, window.To.Start()-1, 1), row(2, window.From.Start()+5, 1))
	if got, err := h.Source.Strays(t.Context(), []int32{1, 2, 3}, window); err != nil || len(got) != 0 {
		t.Fatalf("strays where there are none: %v, %v", got, err)
	}
	insert(h, t, row(1, window.From.Start()-1, 1), row(1, window.To.Start(), 2), row(2, window.From.Start()/1000+5, 3),
		row(2, window.From.Start()*1000+5, 4), row(3, -5, 5), row(4, -5, 6), row(2, math.MaxInt64, 7), row(3, math.MinInt64, 8))
	h.Exec(t, `INSERT INTO timeseries (point_id, timestamp, value) VALUES (2, 'yesterday', 9), (3, x'00', 'x'), (3, 0.5, 10)`)
	got, err := h.Source.Strays(t.Context(), []int32{1, 2, 3}, window)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, r := range got {
		seen[fmt.Sprintf("%v %#v %#v %v %v", r.PointID.V, r.Timestamp.V, r.Value.V, r.Quality.V, r.Flags.V)] = r.Reason
	}
	want := []string{
		fmt.Sprintf("1 %d 1 192 0", window.From.Start()-1), fmt.Sprintf("1 %d 2 192 0", window.To.Start()),
		fmt.Sprintf("2 %d 3 192 0", window.From.Start()/1000+5), fmt.Sprintf("2 %d 4 192 0", window.From.Start()*1000+5),
		fmt.Sprintf("2 %d 7 192 0", int64(math.MaxInt64)), fmt.Sprintf("3 %d 8 192 0", int64(math.MinInt64)),
		"3 -5 5 192 0", `2 "yesterday" 9 192 0`, `3 []byte{0x0} "x" 192 0`, "3 0.5 10 192 0",
	}
	for _, w := range want {
		if seen[w] == "" {
			t.Errorf("no stray %s with a reason in %v", w, seen)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d strays, want %d: %v", len(got), len(want), seen)
	}
	h.Exec(t, `WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 10100)
		INSERT INTO timeseries (point_id, timestamp) SELECT 5 + n % 3, n FROM i`)
	if got, err = h.Source.Strays(t.Context(), []int32{1, 2, 3, 5, 6, 7}, window); err != nil || len(got) != source.MaxStrays {
		t.Errorf("%d strays, want %d at most; %v", len(got), source.MaxStrays, err)
	}
}

func testSummaries(t *testing.T, h Harness) {
	s, ok := h.Source.(source.Summarizer)
	if !ok {
		t.Skip("the source makes no summaries")
	}
	insert(h, t, row(1, 5, 1), row(1, d0.Start(), 1), row(1, d0.End(), 1), row(3, -4, 1))
	var got []string
	if err := s.Summaries(t.Context(), []int32{1, 2, 3}, func(id int32, s source.Summary) {
		rows := s.Rows
		if rows == source.NotCounted { // where counting is billed
			rows = map[int32]int64{1: 3, 3: 1}[id]
		}
		got = append(got, fmt.Sprintf("%d: %d to %d, %d", id, s.First, s.Last, rows))
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{fmt.Sprintf("1: 5 to %d, 3", d0.End()), "2: 0 to 0, 0", "3: -4 to -4, 1"}
	if !slices.Equal(got, want) {
		t.Errorf("summaries %q, want %q", got, want)
	}
}

// latest is what Latest delivers, in its order.
func latest(t testing.TB, s source.Source, points []int32, d utc.Days) []Sample {
	t.Helper()
	return outermost(t, s.(source.Latester).Latest, points, d)
}

func outermost(t testing.TB, find func(context.Context, []int32, utc.Days, func(*sample.Batch) error) error, points []int32, d utc.Days) []Sample {
	t.Helper()
	var got []Sample
	if err := find(t.Context(), points, d, func(b *sample.Batch) error {
		for i, id := range b.PointID {
			got = append(got, Sample{id, b.TS[i], canonical(b.Value[i]), b.Quality[i], b.Flags[i]})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func testLatest(t *testing.T, h Harness) {
	if _, ok := h.Source.(source.Latester); !ok {
		t.Skip("the source does not find latest samples")
	}
	d := days(d0, d0+10)
	if got := latest(t, h.Source, []int32{1, 2}, d); len(got) != 0 {
		t.Errorf("latest of nothing: %v", got)
	}
	insert(h, t, row(-7, d.From.Start(), 1), row(1, d.From.Start()-1, 1), row(2, d.From.Start(), 2), row(2, d.From.Start()+1, 3),
		row(3, d.To.Start()-1, 4), row(3, d.To.Start(), 5), row(4, d.From.Start(), 6), row(5, d.From.Start()+9, math.Inf(-1)), row(6, d.From.Start(), 8))
	// Newer rows that are no samples.
	at := d.From.Start() + 100
	h.Exec(t, fmt.Sprintf(`INSERT INTO timeseries (point_id, timestamp, value, quality, flags) VALUES
		(2, %d, 'text', 192, 0), (2, %d, x'00', 192, 0), (2, %d, 1, 256, 0), (2, %d, 1, 192, -1), (2, %d.5, 1, 192, 0), (2, 'x', 1, 192, 0),
		(4, %d, NULL, 0, 65535)`, at, at+1, at+2, at+3, at, at))
	want := []Sample{row(-7, d.From.Start(), 1), row(2, d.From.Start()+1, 3), row(3, d.To.Start()-1, 4),
		{4, at, canonical(sample.Null), 0, 65535}, row(5, d.From.Start()+9, math.Inf(-1))}
	equalRows(t, "latest", latest(t, h.Source, []int32{-7, 1, 2, 3, 4, 5}, d), want)
	failed := errors.New("enough")
	if err := h.Source.(source.Latester).Latest(t.Context(), []int32{2}, d, func(*sample.Batch) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("the callback's error became %v", err)
	}
}

// testLatestModel compares Latest and Oldest with the last and the first sample of Read on random rows.
func testLatestModel(t *testing.T, h Harness) {
	if _, ok := h.Source.(source.Latester); !ok {
		t.Skip("the source does not find latest samples")
	}
	r := random(t)
	values := []string{"1.5", "NULL", "'x'", "x'00'", "9e999", "-9e999", "9007199254740993", "9007199254740992", "7"}
	small := []string{"192", "0", "255", "256", "-1", "1.0", "'a'", "NULL"}
	for range 20 {
		h.Exec(t, "DELETE FROM timeseries")
		for range r.IntN(60) {
			h.Exec(t, fmt.Sprintf("INSERT OR IGNORE INTO timeseries (point_id, timestamp, value, quality, flags) VALUES (%d, %d, %s, %s, %s)",
				r.IntN(4), d0.Start()+int64(r.IntN(50))*utc.DayMillis/10, values[r.IntN(len(values))], small[r.IntN(len(small))], small[r.IntN(2)]))
		}
		d := days(d0+utc.Day(r.IntN(3)), d0+utc.Day(3+r.IntN(3)))
		points := []int32{0, 1, 2, 3}
		first, last := map[int32]Sample{}, map[int32]Sample{}
		all, _ := ReadAll(t, h.Source, source.Query{Points: points, Days: d})
		for _, s := range all {
			if _, later := first[s.Point]; !later {
				first[s.Point] = s
			}
			last[s.Point] = s
		}
		if o, ok := h.Source.(source.Oldester); ok {
			equalRows(t, "oldest", outermost(t, o.Oldest, points, d), slices.SortedFunc(maps.Values(first), cmpKey))
		}
		want := slices.SortedFunc(maps.Values(last), cmpKey)
		equalRows(t, "latest", latest(t, h.Source, points, d), want)
	}
}

func testGroups(t *testing.T, h Harness) {
	g, ok := h.Source.(source.Grouper)
	if !ok {
		t.Skip("the source has no groups")
	}
	list := func() (got []string) {
		t.Helper()
		if err := g.Groups(t.Context(), func(name string, id int32) { got = append(got, fmt.Sprintf("%s %d", name, id)) }); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := list(); len(got) != 0 {
		t.Errorf("groups where there are none: %q", got)
	}
	h.Exec(t, "INSERT INTO point_groups (name, point_id) VALUES ('b', 9), ('a', 2), ('a', -4), ('a', 'x'), ('a', 99999999999), ('it''s', 7)")
	if got, want := list(), []string{"a -4", "a 2", "b 9", "it's 7"}; !slices.Equal(got, want) {
		t.Errorf("groups %q, want %q", got, want)
	}
	h.Exec(t, "DROP TABLE point_groups")
	if got := list(); len(got) != 0 {
		t.Errorf("groups without the table: %q", got)
	}
}

func testGroup(t *testing.T, h Harness) {
	g, ok := h.Source.(source.Grouper)
	if !ok {
		t.Skip("the source has no groups")
	}
	if _, err := g.Group(t.Context(), "ahu"); !fault.Is(err, fault.NotExist) {
		t.Errorf("a group where there are none: %v", err)
	}
	h.Exec(t, "INSERT INTO point_groups (name, point_id) VALUES ('ahu', 9), ('ahu', 2), ('ahu', -4), ('it''s', 7)")
	if ids, err := g.Group(t.Context(), "ahu"); err != nil || !slices.Equal(ids, []int32{-4, 2, 9}) {
		t.Errorf("group: %v, %v", ids, err)
	}
	if ids, err := g.Group(t.Context(), "it's"); err != nil || !slices.Equal(ids, []int32{7}) {
		t.Errorf("group: %v, %v", ids, err)
	}
	_, err := g.Group(t.Context(), "AHU")
	if !fault.Is(err, fault.NotExist) || !strings.Contains(err.Error(), "ahu") || !strings.Contains(err.Error(), "it's") {
		t.Errorf("an unknown group: %v", err)
	}
}

func testCreatePoints(t *testing.T, h Harness) {
	r, ok := h.Source.(source.Registrar)
	if !ok {
		t.Skip("the source makes no points")
	}
	h.Exec(t, "INSERT INTO points (id, name, site) VALUES (41, 'old', 'kept')")
	const quoted = `it's "new"; -- äöü`
	names := []string{quoted, "old"}
	for i := range 1200 { // more than a statement takes
		names = append(names, fmt.Sprintf("n%d", i))
	}
	ids, err := r.CreatePoints(t.Context(), names)
	if err != nil || len(ids) != len(names) || ids["old"] != 41 || ids[quoted] <= 41 {
		t.Fatalf("created %d of %d, %d and %d; %v", len(ids), len(names), ids["old"], ids[quoted], err)
	}
	again, err := r.CreatePoints(t.Context(), names)
	if err != nil || !maps.Equal(ids, again) {
		t.Errorf("again: %v, %v", again, err)
	}
	ps, _, err := h.Source.Points(t.Context())
	if err != nil || len(ps) != len(names) {
		t.Fatalf("%d points, %v", len(ps), err)
	}
	for _, p := range ps {
		if ids[p.Name] != p.ID || (p.ID == 41 && *p.Site != "kept") {
			t.Errorf("point %d is %q, want the id %d", p.ID, p.Name, ids[p.Name])
		}
	}
	if ids, err := r.CreatePoints(t.Context(), nil); err != nil || len(ids) != 0 {
		t.Errorf("no names: %v, %v", ids, err)
	}
}

func testMigrate(t *testing.T, h Harness) {
	m, ok := h.Source.(source.Migrator)
	if !ok {
		t.Skip("the source does not migrate")
	}
	if names, err := m.Pending(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("pending on a migrated database: %v, %v", names, err)
	}
	if names, err := m.Migrate(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("migrated again: %v, %v", names, err)
	}
	// A ledger that lost a trigger is made anew, and its marks go: rows may
	// have come unseen. What was trimmed stays known.
	insert(h, t, row(1, d0.Start(), 1))
	if l, ok := h.Source.(source.Ledger); ok {
		claim(t, l, "before", source.Slice{Point: 2, Day: d0})
	}
	h.Exec(t, fmt.Sprintf("INSERT INTO archive_marks VALUES (1, %d, 'r', 1); INSERT INTO archive_trims VALUES (1, 5); DROP TRIGGER tr_timeseries_insert_unmarks", d0))
	names, err := m.Pending(t.Context())
	if err != nil || len(names) != 1 {
		t.Fatalf("pending without a trigger: %v, %v", names, err)
	}
	if l, ok := h.Source.(source.Ledger); ok {
		if err := l.Claim(t.Context(), "r", []source.Slice{{Point: 1, Day: d0}}); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("a claim without a trigger: %v", err)
		}
		if n, err := l.Confirm(t.Context(), "before", []source.Slice{{Point: 2, Day: d0}}); n != 0 || !fault.Is(err, fault.Invalid) {
			t.Errorf("a confirmation without a trigger: %d, %v", n, err)
		}
	}
	if again, err := m.Migrate(t.Context()); err != nil || !slices.Equal(again, names) {
		t.Fatalf("migrated %v, %v; pending were %v", again, err, names)
	}
	if l, ok := h.Source.(source.Ledger); ok {
		if got := marks(t, l, days(0, d0+1), 1, 2); len(got) != 0 {
			t.Errorf("marks %v", got)
		}
		if got := trims(t, l, days(0, d0+1), 1); len(got) != 1 {
			t.Errorf("trims %v", got)
		}
	}
	if got, _ := ReadAll(t, h.Source, source.Query{Points: []int32{1}, Days: days(d0, d0+1)}); len(got) != 1 {
		t.Errorf("%d rows", len(got))
	}
}
