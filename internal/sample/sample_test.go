package sample_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"pgregory.net/rapid"

	"etl/internal/sample"
	"etl/internal/utc"
)

// row is one sample; bits are the value's, so that rows compare bit for bit.
type row struct {
	bits    uint64
	quality uint8
	flags   uint16
}

var nullBits = math.Float64bits(sample.Null)

// build makes a Series of a map, rows those of a Series, every NULL alike.
func build(m map[int64]row) sample.Series {
	var s sample.Series
	for _, ts := range slices.Sorted(maps.Keys(m)) {
		r := m[ts]
		s.Append(ts, math.Float64frombits(r.bits), r.quality, r.flags)
	}
	return s
}

func rows(t *rapid.T, s sample.Series) map[int64]row {
	if len(s.Value) != s.Len() || len(s.Quality) != s.Len() || len(s.Flags) != s.Len() {
		t.Fatalf("columns of %d, %d, %d and %d rows", s.Len(), len(s.Value), len(s.Quality), len(s.Flags))
	}
	m := map[int64]row{}
	for i, ts := range s.TS {
		if i > 0 && s.TS[i-1] >= ts {
			t.Fatalf("timestamp %d follows %d", ts, s.TS[i-1])
		}
		bits := math.Float64bits(s.Value[i])
		if s.Value[i] != s.Value[i] {
			bits = nullBits
		}
		m[ts] = row{bits, s.Quality[i], s.Flags[i]}
	}
	return m
}

var month = utc.MonthOf(2024, 2)

// drawSeries draws rows on few timestamps and few values, so that two series
// meet often, in the month, on its borders and, seldom, outside.
func drawSeries(t *rapid.T, name string) map[int64]row {
	ts := rapid.Custom(func(t *rapid.T) int64 {
		day := month.First() + utc.Day(rapid.IntRange(-1, 30).Draw(t, "day"))
		return day.Start() + rapid.SampledFrom([]int64{0, 1, 60_000, utc.DayMillis / 2, utc.DayMillis - 1}).Draw(t, "ms")
	})
	values := []uint64{0, 1 << 63, nullBits, math.Float64bits(math.Inf(1)), 1, math.Float64bits(21.5)}
	val := rapid.Custom(func(t *rapid.T) row {
		return row{rapid.SampledFrom(values).Draw(t, "value"), rapid.SampledFrom([]uint8{192, 0}).Draw(t, "quality"), rapid.SampledFrom([]uint16{0, 65535}).Draw(t, "flags")}
	})
	return rapid.MapOfN(ts, val, 0, 60).Draw(t, name)
}

func TestMergeAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old, fresh := drawSeries(t, "old"), drawSeries(t, "fresh")
		replace := utc.Set(rapid.SampledFrom([]uint32{0, 0, 1, 1 << 28, 0b110, math.MaxUint32}).Draw(t, "replace"))
		if rapid.Bool().Draw(t, "random days") {
			replace |= utc.Set(rapid.Uint32().Draw(t, "days"))
		}

		// The model: a map, day by day.
		want := map[int64]row{}
		var d sample.Delta
		for ts, r := range old {
			f, again := fresh[ts]
			day := utc.DayOf(ts)
			switch {
			case again && f != r:
				d.Replaced++
			case !again && month.Days().Contains(day) && replace.Has(int(day-month.First())):
				d.Removed++
				continue
			}
			want[ts] = r
		}
		for ts, r := range fresh {
			if _, there := old[ts]; !there {
				d.Added++
			}
			want[ts] = r
		}

		o, f := build(old), build(fresh)
		// dst may hold rows already and has memory of its own.
		var dst sample.Series
		if rapid.Bool().Draw(t, "dst has rows") {
			dst.Append(-5, 5, 5, 5)
		}
		head := dst.Len()
		got, delta := sample.Merge(dst, o, f, month, replace)
		merged := got.Slice(head, got.Len())
		if delta != d {
			t.Fatalf("delta %+v, want %+v", delta, d)
		}
		if r := rows(t, merged); !maps.Equal(r, want) {
			t.Fatalf("merged %v, want %v", r, want)
		}
		if !maps.Equal(rows(t, o), old) || !maps.Equal(rows(t, f), fresh) {
			t.Fatal("an input changed")
		}
		if merged.Equal(&o) == delta.Changed() {
			t.Fatalf("rows equal the old ones: %v, delta %+v", merged.Equal(&o), delta)
		}
		if replace == 0 {
			for ts := range old {
				if _, there := want[ts]; !there {
					t.Fatalf("sample at %d is lost", ts)
				}
			}
		}
		// Again changes nothing, whatever is replaced on days that fresh covers.
		again, delta := sample.Merge(sample.Series{}, merged, f, month, 0)
		if delta.Changed() || !again.Equal(&merged) {
			t.Fatalf("merging again: %+v", delta)
		}
	})
}

func TestMergeReplaceOutsideCalendar(t *testing.T) {
	// Timestamps that no day can count are kept and end no loop.
	o := build(map[int64]row{math.MinInt64: {}, -1: {}, month.First().Start(): {}, math.MaxInt64: {}})
	got, d := sample.Merge(sample.Series{}, o, sample.Series{}, month, math.MaxUint32)
	if d != (sample.Delta{Removed: 1}) || !slices.Equal(got.TS, []int64{math.MinInt64, -1, math.MaxInt64}) {
		t.Fatalf("%v, %+v", got.TS, d)
	}
}

func TestDeltaAdd(t *testing.T) {
	a := sample.Delta{Added: 1, Replaced: 2, Removed: 3}
	if got := a.Add(sample.Delta{Added: 10, Replaced: 20, Removed: 30}); got != (sample.Delta{Added: 11, Replaced: 22, Removed: 33}) {
		t.Fatal(got)
	}
	for _, d := range []sample.Delta{{Added: 1}, {Replaced: 1}, {Removed: 1}} {
		if !d.Changed() {
			t.Errorf("%+v changed nothing", d)
		}
	}
}

func TestEqual(t *testing.T) {
	otherNaN := math.Float64frombits(0xfff8dead00000000)
	mk := func(ts int64, v float64, q uint8, f uint16) sample.Series {
		var s sample.Series
		s.Append(ts, v, q, f)
		return s
	}
	a := mk(1, sample.Null, 2, 3)
	if b := mk(1, otherNaN, 2, 3); !a.Equal(&b) || a.RowsSHA256() != b.RowsSHA256() {
		t.Error("two NULLs differ")
	}
	for _, b := range []sample.Series{mk(2, sample.Null, 2, 3), mk(1, 0, 2, 3), mk(1, sample.Null, 1, 3), mk(1, sample.Null, 2, 4), {}} {
		if a.Equal(&b) || a.RowsSHA256() == b.RowsSHA256() {
			t.Errorf("%v equals %v", a, b)
		}
	}
	z, n := mk(1, 0, 2, 3), mk(1, math.Copysign(0, -1), 2, 3)
	if z.Equal(&n) || z.RowsSHA256() == n.RowsSHA256() {
		t.Error("0 and -0 are told apart by no bit")
	}
}

func TestRowsSHA256Golden(t *testing.T) {
	var s sample.Series
	s.Append(1704412800000, 21.5, 192, 0)
	s.Append(1704412860000, math.NaN(), 0, 0x1234)
	s.Append(-1, math.Inf(-1), 255, 65535) // order is not its business
	// Written by hand: timestamp, value, quality, flags, little-endian.
	raw := "" +
		"00 64 eb d6 8c 01 00 00" + "00 00 00 00 00 80 35 40" + "c0" + "00 00" +
		"60 4e ec d6 8c 01 00 00" + "00 00 00 00 00 00 f8 7f" + "00" + "34 12" +
		"ff ff ff ff ff ff ff ff" + "00 00 00 00 00 00 f0 ff" + "ff" + "ff ff"
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(raw), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%x", sha256.Sum256(b))
	if got := s.RowsSHA256(); got != want {
		t.Errorf("hash %s, want that of the bytes by hand %s", got, want)
	}
	const golden = "c956e8a32fcf50881b633100b05d4a9cc4d2c05eb955623d2562e45e6dcba4ce"
	if want != golden {
		t.Errorf("the bytes by hand hash to %s, want %s", want, golden)
	}
	var none sample.Series
	if got := none.RowsSHA256(); got != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("no rows hash to %s", got)
	}
	// Across the buffer's border the rows are the same as in one piece.
	var long sample.Series
	var all []byte
	for i := range 1300 {
		long.Append(int64(i), 0, 0, 0)
		all = append(all, byte(i), byte(i>>8), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	if got, want := long.RowsSHA256(), fmt.Sprintf("%x", sha256.Sum256(all)); got != want {
		t.Errorf("1,300 rows hash to %s, want %s", got, want)
	}
}

func TestSeriesMemory(t *testing.T) {
	s := build(map[int64]row{1: {}, 2: {}, 3: {}})
	p := s.Slice(0, 2)
	p.Append(9, 9, 9, 9) // must not write into s
	if s.TS[2] != 3 || p.Len() != 3 {
		t.Errorf("a slice wrote into its series: %v", s.TS)
	}
	before := &s.TS[0]
	s.Reset()
	s.Append(7, 7, 7, 7)
	if s.Len() != 1 || &s.TS[0] != before {
		t.Error("Reset gave the memory away")
	}
}

func TestCountDaysAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := utc.Month(rapid.Int32Range(0, 700).Draw(t, "month"))
		start, end := m.First().Start(), m.Days().To.Start()
		ts := rapid.SliceOfN(rapid.Int64Range(start-rapid.SampledFrom([]int64{0, 0, 1}).Draw(t, "before"), end-rapid.SampledFrom([]int64{1, 1, 0}).Draw(t, "after")), 0, 80).Draw(t, "ts")
		if rapid.IntRange(0, 4).Draw(t, "unsorted") > 0 {
			slices.Sort(ts)
			ts = slices.Compact(ts)
		}
		counts := sample.NewDayCounts(m)
		for i := range counts {
			counts[i] = rapid.SampledFrom([]int32{sample.NotArchived, 0, 7}).Draw(t, "count")
		}
		want := slices.Clone(counts)
		ok := true
		seen := map[utc.Day]bool{}
		for i, v := range ts {
			d := utc.DayOf(v)
			if !m.Days().Contains(d) || i > 0 && ts[i-1] >= v {
				ok = false
				break
			}
			if !seen[d] {
				want[d-m.First()] = 0
			}
			seen[d] = true
			want[d-m.First()]++
		}
		if !ok {
			want = slices.Clone(counts)
		}
		if got := sample.CountDays(counts, m, ts); got != ok || !slices.Equal(counts, want) {
			t.Fatalf("%v: %v, want %v: %v", got, counts, ok, want)
		}
	})
}

func TestDayCounts(t *testing.T) {
	d := sample.NewDayCounts(month)
	if len(d) != 29 || d.Archived() != 0 || d.Samples() != 0 {
		t.Fatalf("a new month: %v", d)
	}
	d[0], d[1], d[28] = 0, 1440, math.MaxInt32
	if d.Archived() != 0b11|1<<28 || d.Samples() != 1440+math.MaxInt32 {
		t.Fatalf("archived %b, %d samples", d.Archived(), d.Samples())
	}
	if b, err := json.Marshal(d[:3]); err != nil || string(b) != "[0,1440,null]" {
		t.Fatalf("%s, %v", b, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		in := sample.DayCounts(rapid.SliceOfN(rapid.Int32Range(-1, math.MaxInt32), 0, 31).Draw(t, "counts"))
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		out := sample.DayCounts{5}
		if err := json.Unmarshal(b, &out); err != nil || !slices.Equal(in, out) {
			t.Fatalf("%s is read as %v, %v", b, out, err)
		}
	})
	keep := sample.DayCounts{5}
	for _, bad := range []string{"[-1]", "[2147483648]", "[1.5]", `["1"]`, "{}", "5", "[1,", "[" + string(bytes.Repeat([]byte("0,"), 31)) + "0]", "[99999999999999999999]"} {
		if err := json.Unmarshal([]byte(bad), &keep); err == nil || !slices.Equal(keep, sample.DayCounts{5}) {
			t.Errorf("%s is read as %v, %v", bad, keep, err)
		}
	}
}

func FuzzDayCounts(f *testing.F) {
	for _, s := range []string{"[]", "[0,null,7]", "[-1]", "null", "[2147483647,2147483648]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d, again sample.DayCounts
		if json.Unmarshal(b, &d) != nil {
			return
		}
		out, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &again); err != nil || !slices.Equal(d, again) || len(d) > 31 {
			t.Fatalf("%s is written as %s: %v, %v", b, out, again, err)
		}
	})
}

func sameCell(a, b sample.Cell) bool {
	if x, ok := a.V.(float64); ok {
		y, ok := b.V.(float64)
		return ok && (math.Float64bits(x) == math.Float64bits(y) || x != x && y != y)
	}
	return reflect.DeepEqual(a.V, b.V)
}

// cells is one of each storage class and of each form that JSON has trouble with.
var cells = map[string]any{
	"null": nil, "0": int64(0), "-1": int64(-1), "9223372036854775807": int64(math.MaxInt64), "-9223372036854775808": int64(math.MinInt64),
	"5.0": 5.0, "-0.0": math.Copysign(0, -1), "5e-324": 5e-324, "1.7976931348623157e+308": math.MaxFloat64, "0.1": 0.1,
	"9.223372036854776e+18": 9223372036854775808.0, "1e+06": 1e6, "123456.0": 123456.0,
	`{"real":"Infinity"}`: math.Inf(1), `{"real":"-Infinity"}`: math.Inf(-1), `{"real":"NaN"}`: math.NaN(),
	`""`: "", `"5"`: "5", `"null"`: "null", `"a\u0000\n"`: "a\x00\n", `"🌡️"`: "🌡️", `"{\"real\":\"Infinity\"}"`: `{"real":"Infinity"}`,
	`{"text_hex":"ff61"}`: "\xffa", `{"blob_hex":""}`: []byte{}, `{"blob_hex":"00ff"}`: []byte{0, 255}, `"` + "\ufffd" + `"`: "\ufffd",
}

func TestCellGolden(t *testing.T) {
	for want, v := range cells {
		in := sample.Cell{V: v}
		b, err := in.MarshalJSON()
		if err != nil || string(b) != want {
			t.Errorf("%#v is written as %s, %v; want %s", v, b, err, want)
			continue
		}
		var out sample.Cell
		if err := json.Unmarshal(b, &out); err != nil || !sameCell(in, out) {
			t.Errorf("%s is read as %#v, %v; want %#v", b, out.V, err, v)
		}
	}
	if b, err := json.Marshal(sample.Cell{V: int(5)}); err == nil {
		t.Errorf("an int, which no source delivers, is written as %s", b)
	}
	for _, bad := range []string{"true", "[]", "{}", `{"real":5}`, `{"real":"x"}`, `{"blob_hex":"0"}`, `{"text_hex":"zz"}`, "1e999", "", "-"} {
		var c sample.Cell
		if err := c.UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%s is read as %#v", bad, c.V)
		}
	}
}

func drawCell(t *rapid.T, name string) sample.Cell {
	return sample.Cell{V: rapid.OneOf(
		rapid.Just[any](nil), rapid.Int64().AsAny(), rapid.Float64().AsAny(), rapid.String().AsAny(),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) any { return string(b) }),
		rapid.SliceOf(rapid.Byte()).AsAny(),
		rapid.Map(rapid.Uint64(), func(u uint64) any { return math.Float64frombits(u) }),
	).Draw(t, name)}
}

func TestRejectRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := sample.Reject{
			PointID: drawCell(t, "id"), Timestamp: drawCell(t, "ts"), Value: drawCell(t, "value"),
			Quality: drawCell(t, "quality"), Flags: drawCell(t, "flags"), Reason: rapid.String().Draw(t, "reason"),
		}
		b, err := json.Marshal(in)
		if err != nil || bytes.ContainsRune(b, '\n') {
			t.Fatalf("%#v is written as %s, %v", in, b, err)
		}
		// Read over other values: a null must not leave what was there.
		out := sample.Reject{PointID: sample.Cell{V: int64(1)}, Value: sample.Cell{V: "x"}}
		if err := json.Unmarshal(b, &out); err != nil {
			t.Fatal(err)
		}
		if !sameCell(in.PointID, out.PointID) || !sameCell(in.Timestamp, out.Timestamp) || !sameCell(in.Value, out.Value) ||
			!sameCell(in.Quality, out.Quality) || !sameCell(in.Flags, out.Flags) || in.Reason != out.Reason {
			t.Fatalf("%s is read as %#v, want %#v", b, out, in)
		}
	})
}

func FuzzCell(f *testing.F) {
	for s := range cells {
		f.Add([]byte(s))
	}
	for _, s := range []string{"true", "1e999", `{"real":"0x1p-2"}`, `{"real":"1_0"}`, "[1]", "1 2", " 5 ", `"\ud800"`, `{"real":"5","blob_hex":"00"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// What can be read can be written, and comes back as it was.
		var c, again sample.Cell
		if c.UnmarshalJSON(b) != nil {
			return
		}
		out, err := c.MarshalJSON()
		if err != nil || !json.Valid(out) {
			t.Fatalf("%q is read as %#v and written as %q, %v", b, c.V, out, err)
		}
		if err := json.Unmarshal(out, &again); err != nil || !sameCell(c, again) {
			t.Fatalf("%q is written as %q and read as %#v, %v", b, out, again.V, err)
		}
	})
}

func TestRejectDay(t *testing.T) {
	day := func(d utc.Day) *utc.Day { return &d }
	for _, tc := range []struct {
		ts   any
		want *utc.Day
	}{
		{int64(1704412800000), day(19727)}, {1704412800000.5, day(19727)}, {int64(0), day(0)}, {int64(253402300799999), day(2932896)},
		{int64(253402300800000), nil}, {int64(-1), nil}, {-0.5, nil}, {math.NaN(), nil}, {math.Inf(1), nil}, {math.MaxFloat64, nil},
		{int64(math.MaxInt64), nil}, {"1704412800000", nil}, {nil, nil}, {[]byte{1}, nil},
	} {
		d, ok := sample.Reject{Timestamp: sample.Cell{V: tc.ts}}.Day()
		if ok != (tc.want != nil) || ok && d != *tc.want {
			t.Errorf("day of %#v: %s, %v", tc.ts, d, ok)
		}
	}
}

func TestBatchRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b sample.Batch
		for range rapid.IntRange(0, 40).Draw(t, "n") {
			b.PointID = append(b.PointID, rapid.Int32().Draw(t, "id"))
			v := math.Float64frombits(rapid.Uint64().Draw(t, "bits"))
			if rapid.IntRange(0, 3).Draw(t, "null") == 0 {
				v = sample.Null
			}
			b.Append(rapid.Int64().Draw(t, "ts"), v, rapid.Uint8().Draw(t, "quality"), rapid.Uint16().Draw(t, "flags"))
		}
		r := b.Record()
		defer r.Release()
		if !r.Schema().Equal(sample.Schema) || r.NumRows() != int64(b.Len()) {
			t.Fatalf("%d rows of %s", r.NumRows(), r.Schema())
		}
		id, ts, val := r.Column(0).(*array.Int32), r.Column(1).(*array.Timestamp), r.Column(2).(*array.Float64)
		q, f := r.Column(3).(*array.Uint8), r.Column(4).(*array.Uint16)
		nulls := 0
		for i := range b.Len() {
			isNull := b.Value[i] != b.Value[i]
			if isNull {
				nulls++
			}
			if id.Value(i) != b.PointID[i] || ts.Value(i) != arrow.Timestamp(b.TS[i]) || q.Value(i) != b.Quality[i] || f.Value(i) != b.Flags[i] ||
				val.IsNull(i) != isNull || !isNull && math.Float64bits(val.Value(i)) != math.Float64bits(b.Value[i]) {
				t.Fatalf("row %d differs", i)
			}
			if id.IsNull(i) || ts.IsNull(i) || q.IsNull(i) || f.IsNull(i) {
				t.Fatalf("row %d has a null where none can be", i)
			}
		}
		if val.NullN() != nulls {
			t.Fatalf("%d nulls, want %d", val.NullN(), nulls)
		}
		b.Rejects = append(b.Rejects, sample.Reject{})
		b.Reset()
		if b.Len() != 0 || len(b.PointID) != 0 || len(b.Rejects) != 0 || b.Record().NumRows() != 0 {
			t.Fatal("Reset left rows")
		}
	})
}

// series makes n samples a day on the days, the values of which depend on seed.
func series(days utc.Days, n int, offset int64, seed uint64) sample.Series {
	r := rand.New(rand.NewPCG(seed, 1))
	var s sample.Series
	for d := days.From; d < days.To; d++ {
		for i := range n {
			s.Append(d.Start()+offset+int64(i)*utc.DayMillis/int64(n), math.Round(r.Float64()*300)/10, 192, 0)
		}
	}
	return s
}

func BenchmarkMerge(b *testing.B) {
	const perDay = 1440
	jan := utc.MonthOf(2024, 1)
	first := jan.First()
	old := series(utc.Days{From: first, To: first + 29}, perDay, 0, 1)
	for _, bc := range []struct {
		name    string
		fresh   sample.Series
		replace utc.Set
		want    sample.Delta
	}{
		{"append day", series(utc.Days{From: first + 29, To: first + 30}, perDay, 0, 2), 0, sample.Delta{Added: perDay}},
		{"same day", func() sample.Series { s := old; return s.Slice(10*perDay, 11*perDay) }(), 0, sample.Delta{}},
		{"replace day", series(utc.Days{From: first + 10, To: first + 11}, perDay, 1, 2), utc.Set(0).With(10), sample.Delta{Added: perDay, Removed: perDay}},
		{"interleaved", series(utc.Days{From: first, To: first + 29}, perDay, 1, 2), 0, sample.Delta{Added: 29 * perDay}},
		{"all again", old, 0, sample.Delta{}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			var dst sample.Series
			b.ReportAllocs()
			for b.Loop() {
				dst.Reset()
				var d sample.Delta
				if dst, d = sample.Merge(dst, old, bc.fresh, jan, bc.replace); d != bc.want {
					b.Fatalf("%+v, want %+v", d, bc.want)
				}
			}
			n := old.Len() + bc.fresh.Len()
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
		})
	}
}

func BenchmarkRowsSHA256(b *testing.B) {
	jan := utc.MonthOf(2024, 1)
	s := series(jan.Days(), 1440, 0, 1)
	b.SetBytes(int64(s.Len() * sample.RowBytes))
	for b.Loop() {
		s.RowsSHA256()
	}
	b.ReportMetric(float64(s.Len())*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
}

func BenchmarkCountDays(b *testing.B) {
	jan := utc.MonthOf(2024, 1)
	s := series(jan.Days(), 1440, 0, 1)
	counts := sample.NewDayCounts(jan)
	for b.Loop() {
		if !sample.CountDays(counts, jan, s.TS) {
			b.Fatal("not counted")
		}
	}
	b.ReportMetric(float64(s.Len())*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
}
