package source

import (
	"fmt"
	"math"
	"strings"

	"etl/internal/sample"
	"etl/internal/utc"
)

// Exact reports whether n is a float64 without loss, whatever the conversion:
// up to 2^53 every integer is.
func Exact(n int64) bool { return n >= -1<<53 && n <= 1<<53 }

// RejectWeight is about the memory of a reject in bytes.
func RejectWeight(r *sample.Reject) int {
	n := 256
	for _, c := range []sample.Cell{r.Timestamp, r.Value, r.Quality, r.Flags} {
		switch v := c.V.(type) {
		case string:
			n += len(v)
		case []byte:
			n += len(v)
		}
	}
	return n
}

// class names the storage class of a cell as SQLite does.
func class(c sample.Cell) string {
	switch c.V.(type) {
	case int64:
		return "INTEGER"
	case float64:
		return "REAL"
	case string:
		return "TEXT"
	case []byte:
		return "BLOB"
	}
	return "NULL"
}

// RowReason says why no sample can hold a row of a day.
func RowReason(r *sample.Reject) string {
	var why []string
	if _, ok := r.Timestamp.V.(int64); !ok {
		why = append(why, fmt.Sprintf("timestamp is %s, want an INTEGER of milliseconds", class(r.Timestamp)))
	}
	switch v := r.Value.V.(type) {
	case nil, float64:
	case int64:
		if !Exact(v) {
			why = append(why, fmt.Sprintf("value is the integer %d, which no REAL holds exactly", v))
		}
	default:
		why = append(why, fmt.Sprintf("value is %s, want a number or NULL", class(r.Value)))
	}
	for _, c := range []struct {
		name string
		cell sample.Cell
		max  int64
	}{{"quality", r.Quality, math.MaxUint8}, {"flags", r.Flags, math.MaxUint16}} {
		switch v, ok := c.cell.V.(int64); {
		case !ok:
			why = append(why, fmt.Sprintf("%s is %s, want an INTEGER from 0 to %d", c.name, class(c.cell), c.max))
		case v < 0 || v > c.max:
			why = append(why, fmt.Sprintf("%s is %d, want 0 to %d", c.name, v, c.max))
		}
	}
	return strings.Join(why, "; ")
}

// IDReason says why no point can hold a row.
func IDReason(r *sample.Reject) string {
	if id, ok := r.PointID.V.(int64); ok {
		return fmt.Sprintf("point_id is %d, want a 32-bit integer", id)
	}
	return fmt.Sprintf("point_id is %s, want a 32-bit integer", class(r.PointID))
}

// StrayReason says why no day of window holds a row, and what its timestamp
// looks like in another unit.
func StrayReason(r *sample.Reject, window utc.Days) string {
	ts, ok := r.Timestamp.V.(int64)
	if !ok {
		return fmt.Sprintf("timestamp is %s, want an INTEGER of milliseconds", class(r.Timestamp))
	}
	from, to := window.From.Start(), window.To.Start()
	why := fmt.Sprintf("timestamp %d is before %s", ts, window.From)
	if ts >= to {
		why = fmt.Sprintf("timestamp %d is after %s", ts, window.To-1)
	}
	switch {
	case ts >= from/1000 && ts < to/1000:
		why += ", and looks like seconds"
	case ts/1000 >= from && ts/1000 < to:
		why += ", and looks like microseconds"
	case ts/1_000_000 >= from && ts/1_000_000 < to:
		why += ", and looks like nanoseconds"
	}
	return why
}
