package d1

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

// marked is a script that puts so many rows into each of two days of the points
// 1 to 5, and marks of the run r in this state.
func marked(rows, state int) string {
	return fmt.Sprintf(`WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < %d)
		INSERT INTO timeseries (point_id, timestamp, value) SELECT p.value, d.value * 86400000 + i.n, 1 FROM json_each('[1,2,3,4,5]') p, json_each('[%d,%d]') d, i;
		INSERT INTO archive_marks SELECT DISTINCT point_id, timestamp / 86400000, 'r', %d FROM timeseries;`, rows-1, d0, d0+1, state)
}

// held is what the days that marked fills hold of each point, in words.
func held(t testing.TB, s *Source) string {
	t.Helper()
	n := map[source.Slice]int{}
	sum := 0.
	if _, err := s.Read(t.Context(), source.Query{Points: []int32{1, 2, 3, 4, 5}, Days: utc.Days{From: d0, To: d0 + 2}}, func(b *sample.Batch) error {
		for i, id := range b.PointID {
			n[source.Slice{Point: id, Day: utc.DayOf(b.TS[i])}]++
			sum += b.Value[i]
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(n, sum)
}

// The outcome of a prune is unknown to its end: the error says so, and what was
// cut before is told.
func TestPruneOfUnknownOutcome(t *testing.T) {
	srv, s := serve(t, schema()+marked(7, 1), Options{})
	s.sizes.prune = 7
	var cuts []source.Cut
	for id := int32(1); id <= 5; id++ {
		cuts = append(cuts, source.Cut{Slice: source.Slice{Point: id, Day: d0}, Run: "r", Rows: 7})
	}
	n := 0
	srv.On(func(_ int, r cloudflaretest.Request) *cloudflaretest.Fault {
		if slices.Contains(r.SQL, pruneRowsSQL) {
			if n++; n > 2 {
				return &cloudflaretest.Fault{Reset: true}
			}
		}
		return nil
	})
	cut, rows, err := s.Prune(t.Context(), cuts)
	if !fault.Is(err, fault.Unknown) || len(cut) != 2 || rows != 14 || n != 2+repeats {
		t.Errorf("cut %v, %d rows, %v after %d batches", cut, rows, err, n)
	}
}

// What is too much for D1 is asked for in smaller parts.
func TestPruneShrinks(t *testing.T) {
	srv, s := serve(t, schema()+marked(7, 1), Options{})
	var cuts []source.Cut
	for id := int32(1); id <= 5; id++ {
		cuts = append(cuts, source.Cut{Slice: source.Slice{Point: id, Day: d0}, Run: "r", Rows: 7})
	}
	s.sizes.prune = 40
	var asked []int
	srv.On(func(_ int, r cloudflaretest.Request) *cloudflaretest.Fault {
		if slices.Contains(r.SQL, pruneRowsSQL) {
			asked = append(asked, 1)
			if len(asked) <= 2 {
				return cloudflaretest.Fails(504, 0, "gateway timeout")
			}
		}
		return nil
	})
	cut, rows, err := s.Prune(t.Context(), cuts)
	if err != nil || len(cut) != 5 || rows != 35 || len(asked) != 2+5 { // 40, 20, then 10: one of 7 each
		t.Errorf("cut %v, %d rows, %v in %d batches", cut, rows, err, len(asked))
	}
}

// INVARIANT: on a line on which any request may get lost and be executed at any
// later time, a row that nobody compared never goes, and what was cut is recorded.
func TestPruneOverLateLine(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	lost, arrived, cutAll := 0, 0, 0
	for range 15 {
		srv, _ := serve(t, schema()+marked(3, 1), Options{})
		line, s := overLate(t, srv, Options{})
		s.sizes.prune = int64(3 + r.IntN(9))
		line.lose = func(body string) (bool, bool) {
			if !strings.Contains(body, "DELETE FROM timeseries") || r.IntN(3) > 0 {
				return false, false
			}
			lost++
			return r.IntN(3) == 0, true
		}
		// Rows that arrived after the comparison, and the slices that were compared
		// again with them by a later run.
		late := map[source.Slice]int{}
		now := func() map[source.Slice]int {
			n := map[source.Slice]int{}
			if _, err := s.Read(t.Context(), source.Query{Points: []int32{1, 2, 3, 4, 5}, Days: utc.Days{From: d0, To: d0 + 2}}, func(b *sample.Batch) error {
				for i, id := range b.PointID {
					n[source.Slice{Point: id, Day: utc.DayOf(b.TS[i])}]++
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return n
		}
		between := func() {
			for r.IntN(3) > 0 {
				if n := len(line.waiting); n > 0 && r.IntN(2) == 0 {
					arrived++
					line.arrive(t, r.IntN(n))
				} else {
					sl := source.Slice{Point: 1 + r.Int32N(5), Day: d0 + utc.Day(r.IntN(2))}
					late[sl]++
					srv.Exec(t, fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (%d, %d)", sl.Point, sl.Day.Start()+1000+int64(late[sl])))
				}
			}
		}
		told := map[source.Slice]bool{}
		for range 6 {
			var cuts []source.Cut
			for id := int32(1); id <= 5; id++ {
				for d := d0; d < d0+2; d++ {
					cuts = append(cuts, source.Cut{Slice: source.Slice{Point: id, Day: d}, Run: "r", Rows: 3})
				}
			}
			between()
			cut, _, err := s.Prune(t.Context(), cuts)
			if err != nil && !fault.Is(err, fault.Unknown) {
				t.Fatal(err)
			}
			for _, sl := range cut {
				told[sl] = true
			}
			between()
		}
		for len(line.waiting) > 0 {
			line.arrive(t, r.IntN(len(line.waiting)))
		}
		gone := map[source.Slice]bool{}
		if err := s.Pruned(t.Context(), []int32{1, 2, 3, 4, 5}, utc.Days{From: d0, To: d0 + 2}, func(sl source.Slice) { gone[sl] = true }); err != nil {
			t.Fatal(err)
		}
		rows := now()
		for id := int32(1); id <= 5; id++ {
			for d := d0; d < d0+2; d++ {
				sl := source.Slice{Point: id, Day: d}
				want := 3 + late[sl]
				if gone[sl] {
					want = late[sl]
					cutAll++
				}
				if rows[sl] != want || (told[sl] && !gone[sl]) {
					t.Fatalf("%v has %d rows, %d of them late; recorded %t, told %t", sl, rows[sl], late[sl], gone[sl], told[sl])
				}
			}
		}
	}
	t.Logf("%d requests lost, %d arrived late, %d slices cut", lost, arrived, cutAll)
	if lost == 0 || arrived == 0 || cutAll == 0 {
		t.Error("nothing was tried")
	}
}

// A parameter has 2,000,000 bytes at most, whatever is in it.
func TestListsFitAParameter(t *testing.T) {
	const most = 2_000_000
	var cuts []source.Cut
	for i := range 100_000 {
		cuts = append(cuts, source.Cut{Slice: source.Slice{Point: math.MinInt32, Day: -100_000}, Run: strings.Repeat("\"", 50), Rows: int64(i % 2)})
	}
	for rest := cuts; len(rest) > 0; {
		list, n := jsonCuts(rest, 1_000_000)
		if len(list) > most || n == 0 || !json.Valid([]byte(list)) {
			t.Fatalf("%d cuts in %d bytes", n, len(list))
		}
		rest = rest[n:]
	}
	if _, n := jsonCuts([]source.Cut{{Rows: 7_000_000}, {Rows: 1}}, 100_000); n != 1 {
		t.Errorf("a cut of many rows goes with %d", n)
	}
	b := &sample.Batch{}
	for range 100_000 {
		b.PointID = append(b.PointID, math.MinInt32)
		b.Append(math.MinInt64, -math.SmallestNonzeroFloat64*0x1.fffffffffffffp51, 255, 65535)
	}
	for i := 0; i < b.Len(); {
		list, end := appendSamples(nil, b, i, 100_000)
		if len(list) > most || end == i || !json.Valid(list) {
			t.Fatalf("%d samples in %d bytes", end-i, len(list))
		}
		i = end
	}
	var points []sample.Point
	for i := range int32(5_000) {
		points = append(points, sample.Point{ID: i, Name: strings.Repeat("n", 1000)})
	}
	lists, err := jsonPoints(points, func(sample.Point) []any { return nil })
	if err != nil || slices.ContainsFunc(lists, func(l string) bool { return len(l) > most || !json.Valid([]byte(l)) }) {
		t.Error(len(lists), err)
	}
}

func BenchmarkPrune(b *testing.B) {
	srv, s := serve(b, schema(), Options{})
	const points, rows = 100, 1440
	var cuts []source.Cut
	for id := range int32(points) {
		cuts = append(cuts, source.Cut{Slice: source.Slice{Point: id, Day: d0}, Run: "r", Rows: rows})
	}
	for b.Loop() {
		b.StopTimer()
		srv.Exec(b, fmt.Sprintf(`DELETE FROM archive_marks; WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < %d), p(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM p WHERE id < %d)
			INSERT INTO timeseries (point_id, timestamp, value) SELECT id, %d + n * 60000, n FROM p, i;
			INSERT INTO archive_marks SELECT DISTINCT point_id, %d, 'r', 1 FROM timeseries`, rows-1, points-1, d0.Start(), d0))
		b.StartTimer()
		if cut, n, err := s.Prune(b.Context(), cuts); err != nil || len(cut) != points || n != points*rows {
			b.Fatal(len(cut), n, err)
		}
	}
	b.ReportMetric(float64(b.N)*points*rows/b.Elapsed().Seconds(), "rows/s")
}
