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
	"testing"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

func restorer(t *testing.T, h Harness) source.Restorer {
	t.Helper()
	r, ok := h.Source.(source.Restorer)
	if !ok {
		t.Skip("the source does not restore")
	}
	return r
}

// AwkwardValues are doubles that a conversion over decimals, or over numbers of
// another kind, would not give back.
func AwkwardValues() []float64 {
	vs := []float64{0, 1, 0.1, 0.2, 0.1 + 0.2, 1. / 3, 5, 1e22, 1e23, 8.5e22, 9007199254740991, 9007199254740992, 9007199254740994, 9007199254740993 * 2,
		1 << 62, 1 << 63, 1 << 64, 18446744073709549568, 1e15, 1e16, 1e17, 123456789012345678, 1e308, math.MaxFloat64, math.SmallestNonzeroFloat64,
		0x1p-1022, 0x1p-1022 - 0x1p-1074, 0x1.fffffffffffffp-1023, 0x1p-1073, 3 * 0x1p-1074, 0x1p-537, 0x1p1023, 0x1.8p1023, 0x1p971, 0x1p970, 0x1.fffffffffffffp52,
		2.2250738585072011e-308, 2.2250738585072012e-308, 4.35, 0.000001, 1e-7, 5e-324, 1.7976931348623157e308, 4.9406564584124654e-324,
		math.Inf(1), math.Pi, math.E, 100 * 1.1, 21.37, 1e100, 1e-100, 6.02214076e23, 9.999999999999999e22, 0.30000000000000004}
	for _, v := range vs {
		vs = append(vs, -v)
	}
	return append(vs, sample.Null)
}

// randomDouble is any double but -0, every exponent as likely as another; one of
// eight is a decimal of few digits.
func randomDouble(r *rand.Rand) float64 {
	if r.IntN(8) == 0 {
		return math.Round(r.NormFloat64()*1e5) / 1000
	}
	v := math.Float64frombits(r.Uint64())
	if v != v {
		return sample.Null
	}
	if r.IntN(16) == 0 { // a denormal
		v = math.Float64frombits(math.Float64bits(v) &^ (0x7ff << 52))
	}
	return v + 0
}

func batchOf(rows []Sample) *sample.Batch {
	b := &sample.Batch{}
	for _, r := range rows {
		b.PointID = append(b.PointID, r.Point)
		b.Append(r.TS, math.Float64frombits(r.Value), r.Quality, r.Flags)
	}
	return b
}

func restore(t testing.TB, r source.Restorer, keep bool, rows ...Sample) {
	t.Helper()
	if err := r.Restore(t.Context(), batchOf(rows), keep); err != nil {
		t.Fatalf("restore: %v", err)
	}
}

// testRestoreValues: every value comes back bit for bit.
func testRestoreValues(t *testing.T, h Harness) {
	s := restorer(t, h)
	r := random(t)
	vs := AwkwardValues()
	for range 20_000 {
		vs = append(vs, randomDouble(r))
	}
	var rows []Sample
	for i, v := range vs {
		rows = append(rows, Sample{int32(i % 7), d0.Start() + int64(i), canonical(v + 0), uint8(r.Uint32()), uint16(r.Uint32())})
	}
	rows = append(rows, Sample{1, d0.End() - 1, canonical(math.Copysign(0, -1)), 255, 65535}, row(math.MinInt32, d0.Start(), 1), row(math.MaxInt32, d0.Start(), 1), row(-7, d0.Start(), 1))
	for _, keep := range []bool{true, false} {
		h.Exec(t, "DELETE FROM timeseries")
		shuffled := slices.Clone(rows)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		restore(t, s, keep, shuffled...)
		want := slices.SortedFunc(slices.Values(rows), cmpKey)
		for i := range want {
			if want[i].Value == 1<<63 {
				want[i].Value = 0 // SQLite makes 0 of -0
			}
		}
		got, rejects := ReadAll(t, h.Source, source.Query{Points: []int32{math.MinInt32, -7, 0, 1, 2, 3, 4, 5, 6, math.MaxInt32}, Days: days(d0, d0+1)})
		equalRows(t, fmt.Sprintf("keep %t", keep), got, want)
		if len(rejects) > 0 {
			t.Errorf("rejects %v", rejects)
		}
	}
	h.Exec(t, "CREATE TABLE checked (ok CHECK (ok = 1)); INSERT INTO checked SELECT sum(typeof(value) NOT IN ('real', 'null')) = 0 FROM timeseries")
}

// testRestore: what is there stays or goes, and what becomes of the marks.
func testRestore(t *testing.T, h Harness) {
	s := restorer(t, h)
	l := ledger(t, h)
	at := d0.Start()
	is := Sample{1, at, canonical(20.5), 192, 3}
	null := Sample{1, at, canonical(sample.Null), 192, 3}
	tests := []struct {
		name        string
		before, new Sample
		changes     bool // where it replaces
	}{
		{"equal", is, is, false},
		{"NULL and NULL", null, null, false},
		{"another value", is, Sample{1, at, canonical(20.500000000000004), 192, 3}, true},
		{"another quality", is, Sample{1, at, canonical(20.5), 191, 3}, true},
		{"other flags", is, Sample{1, at, canonical(20.5), 192, 2}, true},
		{"NULL over a value", is, null, true},
		{"a value over NULL", null, is, true},
		{"infinity over infinity", Sample{1, at, canonical(math.Inf(1)), 1, 1}, Sample{1, at, canonical(math.Inf(-1)), 1, 1}, true},
		{"the same infinity", Sample{1, at, canonical(math.Inf(1)), 1, 1}, Sample{1, at, canonical(math.Inf(1)), 1, 1}, false},
	}
	a, b, c := source.Slice{Point: 1, Day: d0}, source.Slice{Point: 1, Day: d0 + 1}, source.Slice{Point: 2, Day: d0}
	all := []source.Slice{a, b, c}
	for _, tt := range tests {
		for _, keep := range []bool{true, false} {
			name := fmt.Sprintf("%s, keep %t", tt.name, keep)
			h.Exec(t, "DELETE FROM timeseries; DELETE FROM archive_marks")
			other := row(2, at, 5)
			restore(t, s, keep, tt.before, other)
			claim(t, l, "r", all...)
			confirm(t, l, "r", 3, all...)
			changes := tt.changes && !keep
			for range 2 { // again, it changes nothing
				restore(t, s, keep, tt.new)
				want := []Sample{tt.before, other}
				if changes {
					want[0] = tt.new
				}
				got, _ := ReadAll(t, h.Source, source.Query{Points: []int32{1, 2}, Days: days(d0, d0+2)})
				equalRows(t, name, got, want)
				m := marks(t, l, days(d0, d0+2), 1, 2)
				if _, ok := m[a]; ok == changes || len(m) != 3-map[bool]int{true: 1}[changes] {
					t.Errorf("%s: marks %v", name, m)
				}
			}
			// A new row unmarks its day, whatever becomes of the others of the call.
			claim(t, l, "r", all...)
			confirm(t, l, "r", 3, all...)
			restore(t, s, keep, row(1, d0.End(), 7), other)
			m := marks(t, l, days(d0, d0+2), 1, 2)
			if _, ok := m[b]; ok || len(m) != 2 {
				t.Errorf("%s, a new row: marks %v", name, m)
			}
		}
	}
	restore(t, s, false)
	rejects := &sample.Batch{Rejects: []sample.Reject{{PointID: sample.Cell{V: int64(1)}, Timestamp: sample.Cell{V: "x"}, Reason: "text"}}}
	before, _ := ReadAll(t, h.Source, source.Query{Points: []int32{1, 2}, Days: days(d0, d0+2)})
	if err := s.Restore(t.Context(), rejects, false); err != nil {
		t.Errorf("rejects: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Restore(ctx, batchOf([]Sample{row(1, at+9, 1)}), false); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	after, _ := ReadAll(t, h.Source, source.Query{Points: []int32{1, 2}, Days: days(d0, d0+2)})
	equalRows(t, "after nothing", after, before)

	h.Exec(t, "DROP TABLE timeseries")
	if err := s.Restore(t.Context(), batchOf([]Sample{row(1, at, 1)}), true); !fault.Is(err, fault.Invalid) && fault.KindOf(err) != fault.Internal {
		t.Errorf("without the table: %v", err)
	}
}

// testCorrect: a row that still is what it was is replaced, whatever else stands
// there stays, and what is not there is not made.
func testCorrect(t *testing.T, h Harness) {
	s := restorer(t, h)
	l := ledger(t, h)
	r := random(t)
	vs := AwkwardValues()
	for range 3000 {
		vs = append(vs, randomDouble(r))
	}
	var there, from, to, want []Sample
	for i, v := range vs {
		was := Sample{1 + int32(i%3), d0.Start() + int64(i), canonical(v + 0), uint8(i), uint16(i)}
		now, stands := was, was
		switch i % 4 {
		case 0:
			now.Value = canonical(vs[r.IntN(len(vs))] + 0)
		case 1:
			now.Quality++
		case 2:
			now.Flags++
		default:
			now.Value, now.Flags = canonical(sample.Null), now.Flags+1
		}
		switch way := i / 4 % 5; way {
		case 0: // not there
			from, to = append(from, was), append(to, now)
			continue
		case 1: // another one since
			stands.Value = canonical(randomDouble(r))
		case 2:
			stands.Quality += 3
		case 3: // not asked for
			there, want = append(there, was), append(want, was)
			continue
		}
		if there, from, to = append(there, stands), append(from, was), append(to, now); stands == was {
			stands = now
		}
		want = append(want, stands)
	}
	restore(t, s, true, there...)
	untouched := row(9, d0.Start(), 1)
	restore(t, s, true, untouched)
	all := []source.Slice{{Point: 1, Day: d0}, {Point: 9, Day: d0}}
	claim(t, l, "r", all...)
	confirm(t, l, "r", 2, all...)
	for range 2 { // again, it changes nothing
		if err := s.Correct(t.Context(), batchOf(from), batchOf(to)); err != nil {
			t.Fatal(err)
		}
		got, _ := ReadAll(t, h.Source, source.Query{Points: []int32{1, 2, 3}, Days: days(d0, d0+1)})
		equalRows(t, "corrected", got, slices.SortedFunc(slices.Values(want), cmpKey))
	}
	m := marks(t, l, days(d0, d0+1), 1, 9)
	if _, ok := m[all[1]]; !ok || len(m) != 1 {
		t.Errorf("marks %v", m)
	}
	if err := s.Correct(t.Context(), &sample.Batch{}, &sample.Batch{}); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Correct(ctx, batchOf(to[:1]), batchOf(from[:1])); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// testRestoreModel restores random batches over random rows, of more rows than
// one statement takes.
func testRestoreModel(t *testing.T, h Harness) {
	s := restorer(t, h)
	r := random(t)
	type key struct {
		p  int32
		ts int64
	}
	model := map[key]Sample{}
	pick := func() Sample {
		return Sample{1 + r.Int32N(3), d0.Start() + r.Int64N(3)*43_200_000 + r.Int64N(300), canonical(randomDouble(r)), uint8(r.Uint32()), uint16(r.Uint32())}
	}
	for range 8 {
		batch := map[key]Sample{}
		for range 900 {
			x := pick()
			batch[key{x.Point, x.TS}] = x
		}
		keep := r.IntN(2) == 0
		restore(t, s, keep, slices.Collect(maps.Values(batch))...)
		for k, x := range batch {
			if _, ok := model[k]; !ok || !keep {
				model[k] = x
			}
		}
		got, _ := ReadAll(t, h.Source, source.Query{Points: []int32{1, 2, 3}, Days: days(d0, d0+2)})
		equalRows(t, fmt.Sprintf("keep %t", keep), got, slices.SortedFunc(maps.Values(model), cmpKey))
	}
	many := cmp.Or(h.ManyRows, 43_200)
	var rows []Sample
	for i := range many {
		rows = append(rows, Sample{9, d0.Start() + int64(i)*utc.DayMillis/int64(many), canonical(randomDouble(r)), 192, 0})
	}
	restore(t, s, true, rows...)
	got, _ := ReadAll(t, h.Source, source.Query{Points: []int32{9}, Days: days(d0, d0+1)})
	equalRows(t, "many", got, rows)
}

// described are points with every kind of description.
func described() []sample.Point {
	return []sample.Point{
		{ID: 50, Name: `Bldg/äöü "quoted" 'name'\x`, Site: new("s"), System: new("y"), Equipment: new(""), Unit: new("°C"),
			IntervalMS: new(int64(60000)), MinValue: new(-0.1), MaxValue: new(math.MaxFloat64), CreatedAt: new(int64(1700000000000)), RetiredAt: new(int64(math.MaxInt64))},
		{ID: 2, Name: "bare"},
		{ID: 7, Name: "seven", MinValue: new(math.Inf(-1)), MaxValue: new(5e-324), IntervalMS: new(int64(0)), CreatedAt: new(int64(9007199254740993))},
	}
}

func pointsOf(t testing.TB, s source.Source) map[int32]sample.Point {
	t.Helper()
	ps, _, err := s.Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[int32]sample.Point{}
	for _, p := range ps {
		got[p.ID] = p
	}
	return got
}

func testRestorePoints(t *testing.T, h Harness) {
	s := restorer(t, h)
	h.Exec(t, "INSERT INTO points (id, name, site, created_at) VALUES (9, 'nine', 'there', 5)")
	all := append(described(), sample.Point{ID: 9, Name: "nine", Site: new("elsewhere")})
	want := map[int32]sample.Point{9: {ID: 9, Name: "nine", Site: new("there"), CreatedAt: new(int64(5))}}
	for _, p := range described() {
		want[p.ID] = p
	}
	same := func(after string) {
		t.Helper()
		if got := pointsOf(t, h.Source); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: points %+v, want %+v", after, got, want)
		}
	}
	if err := s.RestorePoints(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.RestorePoints(t.Context(), append(all, all[0])); err != nil {
			t.Fatal(err)
		}
		same("restored")
	}
	// One of many is refused: nothing is written, and both are named.
	for _, tt := range []struct {
		points []sample.Point
		names  []string
	}{
		{[]sample.Point{{ID: 100, Name: "new"}, {ID: 9, Name: "ten"}}, []string{"9", `"ten"`, `"nine"`}},
		{[]sample.Point{{ID: 100, Name: "new"}, {ID: 10, Name: "nine"}}, []string{"9", "10", `"nine"`}},
		{[]sample.Point{{ID: 100, Name: "new"}, {ID: 9, Name: "seven"}}, []string{`"seven"`, "9"}},
		{[]sample.Point{{ID: 9, Name: "seven"}, {ID: 7, Name: "nine"}}, []string{"7", `"nine"`, `"seven"`}},
		{[]sample.Point{{ID: 100, Name: "new"}, {ID: 101, Name: "new"}}, []string{`"new"`, "100", "101"}},
		{[]sample.Point{{ID: 100, Name: "new"}, {ID: 100, Name: "other"}}, []string{"100", `"new"`, `"other"`}},
	} {
		err := s.RestorePoints(t.Context(), tt.points)
		if !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%+v: %v", tt.points, err)
			continue
		}
		for _, name := range tt.names {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%+v: %v does not name %s", tt.points, err, name)
			}
		}
		same("refused")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.RestorePoints(ctx, []sample.Point{{ID: 100, Name: "new"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	same("cancelled")
	if r, ok := h.Source.(source.Registrar); ok {
		if ids, err := r.CreatePoints(t.Context(), []string{"next"}); err != nil || ids["next"] != 51 {
			t.Errorf("the next point gets the id %v, %v; want 51: ids are never used again", ids, err)
		}
	}

	var many []sample.Point
	for i := range int32(3000) {
		many = append(many, sample.Point{ID: 1000 + i, Name: fmt.Sprintf("many %d %s", i, strings.Repeat("x", 600)), MinValue: new(float64(i) / 3)})
	}
	if err := s.RestorePoints(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	got := pointsOf(t, h.Source)
	for _, p := range many {
		if !reflect.DeepEqual(got[p.ID], p) {
			t.Fatalf("point %+v, want %+v", got[p.ID], p)
		}
	}
	many[2999].ID = 1000
	many[0].ID = 9999
	many[0].Name = "not written"
	if err := s.RestorePoints(t.Context(), many); !fault.Is(err, fault.Invalid) {
		t.Errorf("one of many refused: %v", err)
	}
	if len(pointsOf(t, h.Source)) != len(got) {
		t.Error("some were written")
	}
}

// testRestorePointsOlder: a table that other hands made, with fewer columns.
func testRestorePointsOlder(t *testing.T, h Harness) {
	s := restorer(t, h)
	h.Exec(t, "DROP INDEX idx_points_hierarchy; DROP VIEW v_latest_values; DROP TABLE points; CREATE TABLE points (id INTEGER PRIMARY KEY, name TEXT, unit TEXT, max_value REAL)")
	for range 2 {
		if err := s.RestorePoints(t.Context(), described()); err != nil {
			t.Fatal(err)
		}
	}
	want := map[int32]sample.Point{}
	for _, p := range described() {
		want[p.ID] = sample.Point{ID: p.ID, Name: p.Name, Unit: p.Unit, MaxValue: p.MaxValue}
	}
	if got := pointsOf(t, h.Source); !reflect.DeepEqual(got, want) {
		t.Errorf("points %+v, want %+v", got, want)
	}
	// Without a unique name too.
	if err := s.RestorePoints(t.Context(), []sample.Point{{ID: 3, Name: "seven"}}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "7") {
		t.Errorf("the name of another: %v", err)
	}
}
