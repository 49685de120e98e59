package sample

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"etl/internal/utc"
)

func appendInt(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }

// UnmarshalJSON reads an array of non-negative numbers and nulls.
func (d *DayCounts) UnmarshalJSON(b []byte) error {
	var raw []*int64
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	if len(raw) > 31 {
		return fmt.Errorf("%d days in a month", len(raw))
	}
	out := make(DayCounts, len(raw))
	for i, n := range raw {
		switch {
		case n == nil:
			out[i] = NotArchived
		case *n < 0 || *n > math.MaxInt32:
			return fmt.Errorf("day %d: %d samples", i+1, *n)
		default:
			out[i] = int32(*n)
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
