package sourcetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"etl/internal/source"
)

// gauger is the source as a Gauger, or nil.
func gauger(t *testing.T, h Harness) source.Gauger {
	t.Helper()
	g, ok := h.Source.(source.Gauger)
	if !ok {
		t.Skip("the source is not measured")
	}
	return g
}

func testSize(t *testing.T, h Harness) {
	g := gauger(t, h)
	before, err := g.Size(t.Context())
	if err != nil || before < 4096 {
		t.Fatalf("%d, %v", before, err)
	}
	h.Exec(t, `INSERT INTO points (id, name) VALUES (1, 'a');
		INSERT INTO timeseries (point_id, timestamp, value) WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) SELECT 1, i, i * 0.1 FROM n`)
	after, err := g.Size(t.Context())
	if err != nil || after < before+10_000*20 || after > before+10_000*60 {
		t.Errorf("10,000 rows made %d of %d, %v", after, before, err)
	}
	// Also of a database that is fit for nothing.
	h.Exec(t, "DROP TABLE timeseries")
	if n, err := g.Size(t.Context()); err != nil || n < 4096 {
		t.Errorf("without tables: %d, %v", n, err)
	}
}

func testMarked(t *testing.T, h Harness) {
	g, l := gauger(t, h), ledger(t, h)
	a, b, c := source.Slice{Point: 1, Day: d0}, source.Slice{Point: 1, Day: d0 + 62}, source.Slice{Point: 7, Day: d0 + 1}
	claim(t, l, "r", a, b, c, source.Slice{Point: 1, Day: d0 + 63}, source.Slice{Point: 1, Day: d0 - 1}, source.Slice{Point: 3, Day: d0})
	confirm(t, l, "r", 5, a, b, c, source.Slice{Point: 1, Day: d0 + 63}, source.Slice{Point: 1, Day: d0 - 1})
	claim(t, l, "q", source.Slice{Point: 3, Day: d0}) // a claim is no mark
	h.Exec(t, fmt.Sprintf("UPDATE archive_marks SET done = 2 WHERE point_id = 7 AND day = %d", d0+1))
	got := make(map[int32]uint64)
	var order []int32
	if err := g.Marked(t.Context(), []int32{1, 3, 7, 9}, days(d0, d0+source.MaxBits), func(id int32, days uint64) {
		got[id] = days
		order = append(order, id)
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[1] != 1|1<<62 || got[7] != 2 || !slices.IsSorted(order) {
		t.Errorf("%b in the order %v", got, order)
	}
	h.Exec(t, "DROP TRIGGER tr_timeseries_update_unmarks")
	if err := g.Marked(t.Context(), []int32{1}, days(d0, d0+1), func(int32, uint64) {}); err == nil || !strings.Contains(err.Error(), "ledger") {
		t.Errorf("a ledger without its triggers: %v", err)
	}
}

func testNewest(t *testing.T, h Harness) {
	g := gauger(t, h)
	from, to := d0.Start()+5_000, d0.Start()+90_000 // no whole days
	insert(h, t, row(-7, from, 1), row(1, from-1, 1), row(2, from, 2), row(2, to-1, 3), row(2, to, 4), row(2, to+1, 5), row(3, to, 6), row(6, to-2, 7))
	// Newer rows that are no samples, and a NULL, which is one.
	h.Exec(t, fmt.Sprintf(`INSERT INTO timeseries (point_id, timestamp, value, quality, flags) VALUES
		(6, %d, 'text', 192, 0), (6, %d.5, 1, 192, 0), (6, 'x', 1, 192, 0), (8, %d, NULL, 0, 65535)`, to-1, to-2, from+1))
	var got []string
	if err := g.Newest(t.Context(), []int32{-7, 1, 2, 3, 4, 6, 8}, from, to, func(id int32, ts int64) {
		got = append(got, fmt.Sprint(id, " ", ts-d0.Start()))
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"-7 5000", "2 89999", "6 89998", "8 5001"}; !slices.Equal(got, want) {
		t.Errorf("newest %q, want %q", got, want)
	}
	if err := g.Newest(t.Context(), nil, from, to, func(int32, int64) { t.Error("of no point") }); err != nil {
		t.Error(err)
	}
}

// testQuality compares with what a reader of all rows finds at the same instants.
func testQuality(t *testing.T, h Harness) {
	g := gauger(t, h)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	ids := []int32{-5, 1, 2, 3, 40000, 2147483647}
	from, to := d0.Start(), d0.End()
	type reading struct {
		ts  int64
		bad bool
	}
	rows := make(map[int32][]reading)
	var insert []string
	for _, id := range ids[:len(ids)-1] { // the last one has none
		for ts := from - 3_600_000; ts < to+3_600_000; ts += 1 + rng.Int64N(4_000_000) {
			q := []int{0, 64, 191, 192, 255}[rng.IntN(5)]
			rows[id] = append(rows[id], reading{ts, q < 192})
			insert = append(insert, fmt.Sprintf("(%d, %d, 1, %d)", id, ts, q))
		}
	}
	h.Exec(t, "INSERT INTO timeseries (point_id, timestamp, value, quality) VALUES "+strings.Join(insert, ", "))
	for _, n := range []int{1, 3, 24, source.MaxInstants} {
		var order []int32
		if err := g.Quality(t.Context(), ids, from, to, n, func(id int32, looked, bad int) {
			order = append(order, id)
			wantLooked, wantBad := 0, 0
			for k := range n {
				at := source.QualityInstant(id, k, n, from, to)
				if lo := from + int64(k)*((to-from)/int64(n)); at < lo || at >= lo+(to-from)/int64(n) {
					t.Fatalf("instant %d of %d of point %d is not in its part", k, n, id)
				}
				i, _ := slices.BinarySearchFunc(rows[id], at+1, func(r reading, ts int64) int { return int(r.ts - ts) })
				if i == 0 || rows[id][i-1].ts < from {
					continue
				}
				wantLooked++
				if rows[id][i-1].bad {
					wantBad++
				}
			}
			if looked != wantLooked || bad != wantBad {
				t.Errorf("point %d, %d instants: %d looked at, %d bad, want %d and %d", id, n, looked, bad, wantLooked, wantBad)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(order, ids) {
			t.Errorf("the points came as %v", order)
		}
	}
}
