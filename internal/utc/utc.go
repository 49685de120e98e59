// Package utc owns the calendar of the archive: UTC days, UTC months and
// half-open ranges of days. Nothing here knows local time: a day is exactly
// 86,400,000 ms long and begins at a multiple of that since 1970-01-01T00:00Z.
package utc

import (
	"fmt"
	"math"
	"math/bits"
	"time"
)

// DayMillis is the length of every UTC day in milliseconds (Unix time has no leap seconds).
const DayMillis = 24 * 60 * 60 * 1000

// Day is a UTC day, counted from 1970-01-01 = 0.
type Day int32

// DayOf returns the day that holds the instant ms (Unix milliseconds), also
// before 1970. What no Day can count (nanoseconds taken for milliseconds) is the
// last or the first Day there is, never a plausible one.
func DayOf(ms int64) Day {
	d := ms / DayMillis
	if ms%DayMillis < 0 {
		d--
	}
	return Day(min(max(d, math.MinInt32), math.MaxInt32))
}

// DayOfTime returns the UTC day that holds t.
func DayOfTime(t time.Time) Day { return DayOf(t.UnixMilli()) }

// Start is the day's first instant in Unix milliseconds, inclusive.
func (d Day) Start() int64 { return int64(d) * DayMillis }

// End is the first instant after the day in Unix milliseconds, exclusive.
func (d Day) End() int64 { return (int64(d) + 1) * DayMillis }

// Time is the day's first instant.
func (d Day) Time() time.Time { return time.UnixMilli(d.Start()).UTC() }

// Month returns the month that the day lies in.
func (d Day) Month() Month {
	t := d.Time()
	return MonthOf(t.Year(), t.Month())
}

// String formats the day as 2024-01-05.
func (d Day) String() string { return d.Time().Format(time.DateOnly) }

// MarshalText and UnmarshalText write and read the day as 2024-01-05.
func (d Day) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is described at MarshalText.
func (d *Day) UnmarshalText(b []byte) (err error) { *d, err = ParseDay(string(b)); return err }

// ParseDay reads a day written as 2024-01-05.
func ParseDay(s string) (Day, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil || !plausible(t) {
		return 0, fmt.Errorf("%q is not a day: want a date like 2024-01-05, from 1970 to 9999", s)
	}
	return DayOfTime(t), nil
}

// Month is a UTC month, counted from 1970-01 = 0.
type Month int32

// MonthOf returns the month of a year.
func MonthOf(year int, m time.Month) Month { return Month((year-1970)*12 + int(m) - 1) }

// Year and Number give the calendar year and the month 1–12.
func (m Month) Year() int { return m.First().Time().Year() }

// Number is described at Year.
func (m Month) Number() int { return int(m.First().Time().Month()) }

// First is the month's first day.
func (m Month) First() Day {
	return DayOfTime(time.Date(1970, time.January+time.Month(m), 1, 0, 0, 0, 0, time.UTC))
}

// Len is the number of days in the month, 28 to 31.
func (m Month) Len() int { return int((m + 1).First() - m.First()) }

// Days is the half-open range of the month's days.
func (m Month) Days() Days { return Days{m.First(), (m + 1).First()} }

// String formats the month as 2024-01.
func (m Month) String() string { return m.First().Time().Format("2006-01") }

// MarshalText and UnmarshalText write and read the month as 2024-01.
func (m Month) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is described at MarshalText.
func (m *Month) UnmarshalText(b []byte) (err error) { *m, err = ParseMonth(string(b)); return err }

// ParseMonth reads a month written as 2024-01.
func ParseMonth(s string) (Month, error) {
	t, err := time.Parse("2006-01", s)
	if err != nil || !plausible(t) {
		return 0, fmt.Errorf("%q is not a month: want one like 2024-01, from 1970 to 9999", s)
	}
	return MonthOf(t.Year(), t.Month()), nil
}

func plausible(t time.Time) bool { return t.Year() >= 1970 && t.Year() <= 9999 }

// Days is a half-open range of days, [From, To).
type Days struct {
	From Day `json:"from"`
	To   Day `json:"to"`
}

// Len is the number of days in the range, never negative.
func (r Days) Len() int { return max(0, int(r.To)-int(r.From)) }

// Empty reports whether the range holds no day.
func (r Days) Empty() bool { return r.To <= r.From }

// Contains reports whether d lies in the range.
func (r Days) Contains(d Day) bool { return d >= r.From && d < r.To }

// Intersect is the range of the days in both.
func (r Days) Intersect(o Days) Days {
	x := Days{max(r.From, o.From), min(r.To, o.To)}
	if x.Empty() {
		return Days{x.From, x.From}
	}
	return x
}

// Months lists, in order, the months that the range touches.
func (r Days) Months() []Month {
	var ms []Month
	if r.Empty() {
		return nil
	}
	for m := r.From.Month(); m <= (r.To - 1).Month(); m++ {
		ms = append(ms, m)
	}
	return ms
}

// String names the first and the last day that the range includes.
func (r Days) String() string {
	switch r.Len() {
	case 0:
		return "no days"
	case 1:
		return r.From.String()
	}
	return fmt.Sprintf("%s to %s", r.From, r.To-1)
}

// Set is a set of days of one month: bit i stands for the i-th day, counted from 0.
type Set uint32

// SetOf is the set of the days of m that lie in r.
func SetOf(m Month, r Days) Set {
	days := m.Days()
	x := r.Intersect(days)
	// The days below To less those below From.
	return Set(1<<(x.To-days.From) - 1<<(x.From-days.From))
}

// With returns the set with the i-th day of the month in it.
func (s Set) With(i int) Set { return s | 1<<i }

// Has reports whether the i-th day of the month is in the set; no day outside the month is.
func (s Set) Has(i int) bool { return i >= 0 && s&(1<<i) != 0 }

// Runs lists, in order, the contiguous ranges of days of m that make up the set.
func (s Set) Runs(m Month) []Days {
	var runs []Days
	all := m.Days()
	rest := uint64(s) & (1<<all.Len() - 1)
	for d := all.From; rest != 0; {
		d += Day(bits.TrailingZeros64(rest))
		rest >>= bits.TrailingZeros64(rest)
		n := bits.TrailingZeros64(^rest)
		runs = append(runs, Days{d, d + Day(n)})
		d += Day(n)
		rest >>= n
	}
	return runs
}

// Len is the number of days in the set.
func (s Set) Len() int { return bits.OnesCount32(uint32(s)) }
