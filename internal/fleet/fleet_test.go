package fleet

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/utc"
)

func newFleet(t testing.TB, o Options) *Fleet {
	t.Helper()
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestGolden pins the demo's bytes: a change of generator must be meant.
func TestGolden(t *testing.T) {
	f := newFleet(t, Demo())
	if got := f.Days().String(); got != "2024-01-12 to 2024-02-20" {
		t.Errorf("demo days: %s", got)
	}
	var s sample.Series
	var n int64
	for i := range f.Len() {
		s.Reset()
		f.Series(i, f.Days(), &s)
		n += int64(s.Len())
	}
	t.Logf("%d samples, %d gaps", n, len(f.Gaps()))
	if n < 2_900_000 || n > 3_100_000 {
		t.Errorf("demo has %d samples, want about 3 M", n)
	}
	for i, want := range map[int]string{
		0: "Building1.HVAC.AHU1.SupplyAirTemp", 8: "Building1.HVAC.Zone 1", 18: "Building1.HVAC.Zone-1",
		16: "Building1.Electrical.Meter1.Energy", 199: "Building1.Plant.Boiler10.HotWaterTemp",
	} {
		if got := f.Points()[i].Name; got != want {
			t.Errorf("point %d is %q, want %q", i, got, want)
		}
	}
	if runtime.GOARCH != "amd64" {
		return // other processors fuse multiply and add, and round once less
	}
	for i, want := range map[int]string{0: "e35d0cac7231b09d", 11: "5331b8ab132501ea", 16: "86c70ac1a93291f3"} {
		s.Reset()
		f.Series(i, utc.Days{From: f.Days().From, To: f.Days().From + 3}, &s)
		if got := s.RowsSHA256()[:16]; got != want {
			t.Errorf("point %d: rows hash %s, want %s", i, got, want)
		}
	}
}

// TestSeriesIsChunkFree compares arbitrary cuts of the days with one call.
func TestSeriesIsChunkFree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{
			Seed: rapid.Uint64().Draw(t, "seed"), Points: rapid.IntRange(20, 60).Draw(t, "points"),
			Start: utc.Day(rapid.IntRange(int(epoch), int(epoch)+4000).Draw(t, "start")),
			Days:  rapid.IntRange(minPlantedDays, 30).Draw(t, "days"), Steady: rapid.Bool().Draw(t, "steady"),
		}
		f, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := New(o)
		i := rapid.IntRange(0, o.Points-1).Draw(t, "point")
		var want, got sample.Series
		f.Series(i, utc.Days{From: o.Start - 5, To: f.Days().To + 5}, &want)
		for d := f.Days().From - 1; d <= f.Days().To; {
			n := utc.Day(rapid.IntRange(1, 5).Draw(t, "chunk"))
			again.Series(i, utc.Days{From: d, To: d + n}, &got)
			d += n
		}
		if !want.Equal(&got) {
			t.Fatalf("point %d of %+v: %d samples at once, %d in chunks, or others", i, o, want.Len(), got.Len())
		}
		checkSeries(t, f, i, &want)
	})
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

// checkSeries holds whatever a whole point must be: ordered, inside its days,
// in its limits, with exactly the gaps that Gaps tells.
func checkSeries(t fataler, f *Fleet, i int, s *sample.Series) {
	t.Helper()
	p := &f.points[i]
	days := f.Days()
	var gaps []Gap
	for k, ts := range s.TS {
		if ts < days.From.Start() || ts >= days.To.Start() {
			t.Fatalf("point %d: sample %d at %d is outside %s", i, k, ts, days)
		}
		if k == 0 {
			continue
		}
		delta := ts - s.TS[k-1]
		if delta <= 0 {
			t.Fatalf("point %d: sample %d at %d after %d", i, k, ts, s.TS[k-1])
		}
		if p.interval > 0 && delta > p.interval*3/2 {
			missing := int64(math.Round(float64(delta)/float64(p.interval))) - 1
			gaps = append(gaps, Gap{Index: i, Point: p.ID, From: s.TS[k-1], To: ts, Missing: missing})
		}
		if p.kind == Counter && s.Value[k] < s.Value[k-1] {
			t.Fatalf("point %d: counter falls from %v to %v at %d", i, s.Value[k-1], s.Value[k], ts)
		}
	}
	var want []Gap
	missing := int64(0)
	for _, g := range f.Gaps() {
		if g.Index == i {
			missing += g.Missing
			g.Filled = false
			want = append(want, g)
		}
	}
	if !slices.Equal(gaps, want) {
		t.Fatalf("point %d: gaps found %v, planted %v", i, gaps, want)
	}
	if p.interval > 0 {
		if due := int64(f.o.Days) * utc.DayMillis / p.interval; int64(s.Len()) != due-missing {
			t.Fatalf("point %d: %d samples, want %d − %d", i, s.Len(), due, missing)
		}
	}
	for _, v := range s.Value {
		if math.IsInf(v, 0) || v != v {
			if f.o.Steady {
				t.Fatalf("point %d: %v in a steady fleet", i, v)
			}
			continue
		}
		if v < *p.MinValue || (p.MaxValue != nil && v > *p.MaxValue) {
			t.Fatalf("point %d %s: %v is outside its limits", i, p.Name, v)
		}
	}
}

func TestDemoPlants(t *testing.T) {
	f := newFleet(t, Demo())
	var nulls, infs, bad, alarms int
	var s sample.Series
	for i := range f.Len() {
		s.Reset()
		f.Series(i, f.Days(), &s)
		checkSeries(t, f, i, &s)
		for k, v := range s.Value {
			switch {
			case v != v:
				nulls++
			case math.IsInf(v, 0):
				infs++
			}
			if s.Quality[k] < Good {
				bad++
			}
			if s.Flags[k]&Alarm != 0 {
				alarms++
			}
		}
	}
	t.Logf("nulls %d, infinities %d, bad quality %d, alarms %d", nulls, infs, bad, alarms)
	if nulls == 0 || infs == 0 || bad <= nulls || alarms == 0 {
		t.Error("something planted is missing")
	}

	gaps := f.Gaps()
	crossing, wholeDays, single, filled := 0, 0, 0, 0
	for _, g := range gaps {
		if utc.DayOf(g.From).Month() != utc.DayOf(g.To).Month() {
			crossing++
		}
		if utc.DayOf(g.To)-utc.DayOf(g.From) >= 3 {
			wholeDays++
		}
		if g.Missing == 1 {
			single++
		}
		if g.Filled {
			filled++
		}
	}
	if crossing == 0 || wholeDays == 0 || single == 0 || filled != 1 {
		t.Errorf("%d gaps: %d cross the month's end, %d hold two whole days, %d miss one sample, %d are filled",
			len(gaps), crossing, wholeDays, single, filled)
	}
	if !slices.IsSortedFunc(gaps, func(a, b Gap) int {
		return int(a.Point-b.Point)<<40 + int(a.From/minute-b.From/minute)
	}) {
		t.Error("gaps are not in order")
	}

	r, ok := f.Rename()
	if !ok || f.Points()[r.Index].Name != r.Old || f.Points()[r.Index].ID != r.Point || r.Old == r.New || !f.Days().Contains(r.On) {
		t.Errorf("rename: %+v", r)
	}
	names := map[string]bool{r.New: true}
	slugs := map[string]int{}
	for _, p := range f.Points() {
		if names[p.Name] {
			t.Errorf("name %q twice", p.Name)
		}
		names[p.Name] = true
		slugs[strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
				return r
			}
			return '-'
		}, strings.ToLower(p.Name))]++
	}
	if slugs["building1-hvac-zone-1"] != 2 || len(slugs) != f.Len()-1 {
		t.Errorf("%d names make %d slugs", f.Len(), len(slugs))
	}
}

func TestLate(t *testing.T) {
	for seed := range uint64(20) {
		o := Demo()
		o.Seed, o.Days = seed, minPlantedDays+int(seed)*2
		f := newFleet(t, o)
		late := f.Late()
		if len(late) != 3 {
			t.Fatalf("seed %d: late rows of %d points", seed, len(late))
		}
		for _, l := range late {
			var old sample.Series
			f.Series(l.Index, f.Days(), &old)
			_, d := merged(old, l.Rows)
			if int(d.Added) != l.Inserted || int(d.Replaced) != l.Corrected || l.Inserted+l.Corrected != l.Rows.Len() || l.Rows.Len() == 0 {
				t.Errorf("seed %d point %d: merge %+v, told %d inserted, %d corrected of %d", seed, l.Point, d, l.Inserted, l.Corrected, l.Rows.Len())
			}
		}
		// The filled gap is no gap any more, and nothing else has changed.
		var s sample.Series
		f.Series(lateIndex, f.Days(), &s)
		s, _ = merged(s, late[2].Rows)
		whole := *f
		whole.gaps = slices.DeleteFunc(f.Gaps(), func(g Gap) bool { return g.Filled })
		checkSeries(t, &whole, lateIndex, &s)
	}
}

// merged is the union by timestamp, fresh winning, month by month.
func merged(old, fresh sample.Series) (out sample.Series, d sample.Delta) {
	return sample.Merge(sample.Series{}, old, fresh, utc.DayOf(fresh.TS[0]).Month(), 0)
}

func TestShapes(t *testing.T) {
	f := newFleet(t, Bench(40, 5))
	distinct := map[Kind]map[float64]bool{}
	changes := map[Kind]int{}
	var mean float64
	var s sample.Series
	for i := range f.Len() {
		s.Reset()
		f.Series(i, f.Days(), &s)
		if s.Len() != 5*1440 {
			t.Fatalf("point %d has %d samples", i, s.Len())
		}
		k := f.Kind(i)
		if distinct[k] == nil {
			distinct[k] = map[float64]bool{}
		}
		for j, v := range s.Value {
			distinct[k][v] = true
			if j > 0 && v != s.Value[j-1] {
				changes[k]++
			}
			if k == Temperature && v != math.Round(v*10)/10 {
				t.Fatalf("temperature %v is not a tenth", v)
			}
			// No jump between samples, midnight included: a walk, not noise.
			if k == Temperature && j > 0 && math.Abs(v-s.Value[j-1]) > 0.6 {
				t.Fatalf("temperature jumps from %v to %v at %d", s.Value[j-1], v, s.TS[j])
			}
		}
		if i == 0 {
			for _, v := range s.Value {
				mean += v / float64(s.Len())
			}
		}
	}
	if mean < 12 || mean > 20 {
		t.Errorf("mean supply air temperature %v", mean)
	}
	for k, bounds := range map[Kind][2]int{ // distinct values over all points of the kind
		Temperature: {50, 1000}, Pressure: {50, 2000}, Counter: {5000, 40_000},
		Switch: {2, 2}, Setpoint: {3, 20}, Noise: {28_000, 28_800},
	} {
		if n := len(distinct[k]); n < bounds[0] || n > bounds[1] {
			t.Errorf("%s: %d distinct values, want %v", k, n, bounds)
		}
		t.Logf("%-12s %6d distinct values, %6d changes", k, len(distinct[k]), changes[k])
	}
	// gauss is close to standard normal.
	rng := rand.New(rand.NewPCG(1, 2))
	var sum, squares float64
	for range 100_000 {
		x := gauss(rng.Uint64())
		sum, squares = sum+x, squares+x*x
	}
	if math.Abs(sum) > 2000 || math.Abs(squares-100_000) > 3000 {
		t.Errorf("gauss: sum %v, sum of squares %v of 100,000", sum, squares)
	}
}

func TestValidate(t *testing.T) {
	ok := Demo()
	for name, change := range map[string]func(*Options){
		"no points": func(o *Options) { o.Points = 0 }, "too many": func(o *Options) { o.Points = 2_000_000 },
		"no days": func(o *Options) { o.Days = 0 }, "too early": func(o *Options) { o.Start = epoch - 1 },
		"no room": func(o *Options) { o.Points = 19 }, "no time": func(o *Options) { o.Days = 7 },
		"centuries": func(o *Options) { o.Days = 36_600 },
	} {
		o := ok
		change(&o)
		if _, err := New(o); !fault.Is(err, fault.Usage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f := newFleet(t, Bench(1, 1)); len(f.Gaps()) != 0 || f.Late() != nil {
		t.Error("a steady fleet has something planted")
	} else if _, ok := f.Rename(); ok {
		t.Error("a steady fleet has a rename")
	}
}

func BenchmarkSeries(b *testing.B) {
	f := newFleet(b, Bench(20, 30))
	var s sample.Series
	b.Run("mix", func(b *testing.B) {
		benchSeries(b, f, &s, func(n int) int { return n % 20 })
	})
	for k, i := range map[Kind]int{Temperature: 0, Pressure: 3, Switch: 4, Setpoint: 5, Noise: 7, Counter: 16} {
		b.Run(k.String(), func(b *testing.B) {
			benchSeries(b, f, &s, func(int) int { return i })
		})
	}
	b.Run("demo", func(b *testing.B) {
		demo := newFleet(b, Demo())
		start, rows := time.Now(), 0
		for b.Loop() {
			for i := range demo.Len() {
				s.Reset()
				demo.Series(i, demo.Days(), &s)
				rows += s.Len()
			}
		}
		b.ReportMetric(float64(rows)/time.Since(start).Seconds()/1e6, "Mrows/s")
	})
}

func benchSeries(b *testing.B, f *Fleet, s *sample.Series, index func(int) int) {
	start, rows := time.Now(), 0
	for n := 0; b.Loop(); n++ {
		s.Reset()
		f.Series(index(n), f.Days(), s)
		rows += s.Len()
	}
	b.ReportMetric(float64(rows)/time.Since(start).Seconds()/1e6, "Mrows/s")
}
