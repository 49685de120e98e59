package sample

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"etl/internal/utc"
)

func appendInt(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }

// UnmarshalJSON reads an array of non-negative numbers and nulls. It scans by
// itself: a manifest of 10,000 points has 310,000 of them.
func (d *DayCounts) UnmarshalJSON(b []byte) error {
	in := bytes.TrimSpace(b)
	if len(in) < 2 || in[0] != '[' || in[len(in)-1] != ']' {
		return fmt.Errorf("%.40q is no array of days", b)
	}
	out := make(DayCounts, 0, 31)
	if in = bytes.TrimSpace(in[1 : len(in)-1]); len(in) > 0 {
		for f := range bytes.SplitSeq(in, []byte{','}) {
			f = bytes.TrimSpace(f)
			if len(out) == 31 {
				return errors.New("more than 31 days in a month")
			}
			if string(f) == "null" {
				out = append(out, NotArchived)
				continue
			}
			n, err := strconv.ParseInt(string(f), 10, 32)
			if err != nil || n < 0 {
				return fmt.Errorf("day %d: %.40q samples", len(out)+1, f)
			}
			out = append(out, int32(n))
		}
	}
	*d = out
	return nil
}

// CountDays sets, in counts, the number of samples of each day of m that s
// holds; days without samples keep what they have. It reports false, having
// changed nothing, if a timestamp lies outside m or the order is not strictly
// ascending.
func CountDays(counts DayCounts, m utc.Month, ts []int64) bool {
	start, end := m.First().Start(), m.Days().To.Start()
	for i, t := range ts {
		if t < start || t >= end || (i > 0 && t <= ts[i-1]) {
			return false
		}
	}
	for i := 0; i < len(ts); {
		day := utc.DayOf(ts[i])
		j := i + 1
		for end := day.End(); j < len(ts) && ts[j] < end; j++ {
		}
		counts[day-m.First()] = int32(j - i)
		i = j
	}
	return true
}
