package utc_test

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"etl/internal/utc"
)

func TestDayOf(t *testing.T) {
	for ms, want := range map[int64]utc.Day{
		0: 0, 1: 0, utc.DayMillis - 1: 0, utc.DayMillis: 1, -1: -1, -utc.DayMillis: -1, -utc.DayMillis - 1: -2,
		1704412800000: 19727, // 2024-01-05T00:00Z
		// No day counts these; none may pass for a plausible one.
		1704412800000 * 1e6: math.MaxInt32, math.MaxInt64: math.MaxInt32, math.MinInt64: math.MinInt32,
	} {
		if got := utc.DayOf(ms); got != want {
			t.Errorf("DayOf(%d) = %d, want %d", ms, got, want)
		}
	}
	if d := utc.Day(math.MaxInt32); d.End()-d.Start() != utc.DayMillis {
		t.Errorf("the last day begins at %d and ends at %d", d.Start(), d.End())
	}
}

func TestDaysAndMonthsMatchTime(t *testing.T) {
	// From 1583 to 9999, against package time.
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(-12212553600000, 253402300799999).Draw(t, "ms")
		at := time.UnixMilli(ms).UTC()
		d := utc.DayOf(ms)
		if d != utc.DayOfTime(at) || d.String() != at.Format(time.DateOnly) {
			t.Fatalf("day of %s is %s", at, d)
		}
		if ms < d.Start() || ms >= d.End() || d.Time().UnixMilli() != d.Start() {
			t.Fatalf("%d is not in [%d, %d)", ms, d.Start(), d.End())
		}
		m := d.Month()
		if m != utc.MonthOf(at.Year(), at.Month()) || m.Year() != at.Year() || m.Number() != int(at.Month()) || m.String() != at.Format("2006-01") {
			t.Fatalf("month of %s is %s", at, m)
		}
		if next := time.Date(at.Year(), at.Month()+1, 1, 0, 0, 0, 0, time.UTC); m.Days().To.Time() != next || m.Days().From != m.First() || m.Len() != next.AddDate(0, 0, -1).Day() {
			t.Fatalf("%s has %d days, %v", m, m.Len(), m.Days())
		}
		if !m.Days().Contains(d) || m.Days().Contains(m.First()-1) || m.Days().Contains(m.Days().To) {
			t.Fatalf("%s and its days %v", d, m.Days())
		}
	})
}

func TestLeapYears(t *testing.T) {
	for month, want := range map[string]int{"2024-02": 29, "2023-02": 28, "2000-02": 29, "2100-02": 28, "1970-01": 31, "2024-04": 30, "9999-12": 31} {
		m, err := utc.ParseMonth(month)
		if err != nil || m.Len() != want || m.String() != month {
			t.Errorf("%s: %d days, %v; want %d", m, m.Len(), err, want)
		}
	}
	if d, err := utc.ParseDay("2024-02-29"); err != nil || (d+1).String() != "2024-03-01" {
		t.Errorf("%s, %v", d+1, err)
	}
}

func TestParse(t *testing.T) {
	for _, s := range []string{
		"", "2024", "2024-01", "2024-1-5", "2024-13-01", "2024-02-30", "2023-02-29", "2024-01-05T00:00:00Z", " 2024-01-05", "2024-01-05 ",
		"1969-12-31", "0000-01-01", "-2024-01-01", "10000-01-01", "20240105", "2024-00-01", "2024-01-00", "٢٠٢٤-٠١-٠٥",
	} {
		if d, err := utc.ParseDay(s); err == nil {
			t.Errorf("ParseDay(%q) = %s", s, d)
		}
	}
	for _, s := range []string{"", "2024", "2024-1", "2024-13", "2024-00", "1969-12", "2024-01-05", "2024-01 ", "10000-01"} {
		if m, err := utc.ParseMonth(s); err == nil {
			t.Errorf("ParseMonth(%q) = %s", s, m)
		}
	}
	for _, s := range []string{"1970-01-01", "9999-12-31", "2024-02-29"} {
		if d, err := utc.ParseDay(s); err != nil || d.String() != s {
			t.Errorf("ParseDay(%q) = %s, %v", s, d, err)
		}
	}
}

func FuzzParseDay(f *testing.F) {
	for _, s := range []string{"2024-01-05", "2024-02-30", "1969-12-31", "9999-12-31", "2024-1-5", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := utc.ParseDay(s); err == nil && (d.String() != s || d < 0) {
			t.Fatalf("ParseDay(%q) = %s", s, d)
		}
		if m, err := utc.ParseMonth(s); err == nil && (m.String() != s || m < 0) {
			t.Fatalf("ParseMonth(%q) = %s", s, m)
		}
	})
}

func TestJSON(t *testing.T) {
	type doc struct {
		Day   utc.Day          `json:"day"`
		Month utc.Month        `json:"month"`
		Days  utc.Days         `json:"days"`
		By    map[utc.Day]bool `json:"by"`
	}
	in := doc{19727, utc.MonthOf(2024, 2), utc.Days{From: 19727, To: 19729}, map[utc.Day]bool{0: true}}
	b, err := json.Marshal(in)
	const want = `{"day":"2024-01-05","month":"2024-02","days":{"from":"2024-01-05","to":"2024-01-07"},"by":{"1970-01-01":true}}`
	if err != nil || string(b) != want {
		t.Fatalf("%s, %v", b, err)
	}
	var out doc
	if err := json.Unmarshal(b, &out); err != nil || out.Day != in.Day || out.Month != in.Month || out.Days != in.Days || !out.By[0] {
		t.Fatalf("%+v, %v", out, err)
	}
	for _, bad := range []string{`{"day":"x"}`, `{"month":"2024-13"}`, `{"day":5}`} {
		if err := json.Unmarshal([]byte(bad), &out); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func drawDays(t *rapid.T, name string) utc.Days {
	return utc.Days{From: utc.Day(rapid.Int32Range(-100, 400).Draw(t, name+".from")), To: utc.Day(rapid.Int32Range(-100, 400).Draw(t, name+".to"))}
}

func TestDaysAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawDays(t, "a"), drawDays(t, "b")
		x := a.Intersect(b)
		n, months := 0, []utc.Month(nil)
		for d := utc.Day(-101); d <= 401; d++ {
			in := d >= a.From && d < a.To
			if a.Contains(d) != in || x.Contains(d) != (in && b.Contains(d)) {
				t.Fatalf("%d in %v or in %v", d, a, x)
			}
			if in {
				n++
				if m := d.Month(); len(months) == 0 || months[len(months)-1] != m {
					months = append(months, m)
				}
			}
		}
		if a.Len() != n || a.Empty() != (n == 0) || !slices.Equal(a.Months(), months) || x.Len() > n {
			t.Fatalf("%v: %d days, want %d; months %v, want %v", a, a.Len(), n, a.Months(), months)
		}
	})
	if n := (utc.Days{From: math.MinInt32, To: math.MaxInt32}).Len(); n != math.MaxUint32 {
		t.Errorf("all days: %d", n)
	}
}

func TestDaysString(t *testing.T) {
	for want, r := range map[string]utc.Days{
		"no days":                  {From: 5, To: 5},
		"2024-01-05":               {From: 19727, To: 19728},
		"2024-01-05 to 2024-01-06": {From: 19727, To: 19729},
	} {
		if got := r.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestSetAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := utc.Month(rapid.Int32Range(0, 1200).Draw(t, "month"))
		// Ranges around the month, some of which miss it.
		from := m.First() + utc.Day(rapid.IntRange(-40, 40).Draw(t, "from"))
		r := utc.Days{From: from, To: from + utc.Day(rapid.IntRange(-5, 80).Draw(t, "len"))}
		s := utc.SetOf(m, r)
		for _, i := range rapid.SliceOf(rapid.IntRange(0, m.Len()-1)).Draw(t, "with") {
			if s = s.With(i); !s.Has(i) {
				t.Fatalf("day %d is not in %b", i, s)
			}
		}
		// The runs are what the bits say, in order, and never touch.
		runs := s.Runs(m)
		n, in := 0, utc.Set(0)
		for k, run := range runs {
			if run.Empty() || k > 0 && runs[k-1].To >= run.From {
				t.Fatalf("runs %v", runs)
			}
			n += run.Len()
			in |= utc.SetOf(m, run)
		}
		if in != s || n != s.Len() {
			t.Fatalf("runs %v of the set %b", runs, s)
		}
		for i := -3; i < 40; i++ {
			d := m.First() + utc.Day(i)
			inside := i >= 0 && i < m.Len()
			if s.Has(i) && !inside || r.Contains(d) && inside && !s.Has(i) {
				t.Fatalf("day %d of %s, range %v, set %b", i, m, r, s)
			}
		}
		if utc.SetOf(m, m.Days()).Len() != m.Len() || len(utc.Set(0).Runs(m)) != 0 {
			t.Fatal("the whole month or the empty set is wrong")
		}
	})
}
