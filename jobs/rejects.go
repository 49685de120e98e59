package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/manifests"
)

// RejectedRow is one refused row and how to mend it.
type RejectedRow struct {
	Month string `json:"month"`
	sample.Reject
	Remedy string `json:"remedy"`
	Key    string `json:"key"`
}

// RejectsReport lists what was refused.
type RejectsReport struct {
	Rows   []RejectedRow `json:"rejects"`
	Failed []Failure     `json:"failed"`
}

// ListRejects lists the refused rows of the months that days touches (all for
// the zero value, the undated ones always), each row once.
func ListRejects(ctx context.Context, env Env, days utc.Days) (RejectsReport, error) {
	r := RejectsReport{Rows: []RejectedRow{}, Failed: []Failure{}}
	seen := make(map[string]bool)
	for f, err := range manifests.Rejects(ctx, env.Store) {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		if err != nil {
			fl := failure(err)
			fl.Path = string(f.Key)
			r.Failed = append(r.Failed, fl)
		}
		if m, err := utc.ParseMonth(f.Month); err == nil && days != (utc.Days{}) && m.Days().Intersect(days).Empty() {
			continue
		}
		for _, row := range f.Rows {
			id, err := json.Marshal(row)
			if err != nil || seen[string(id)] {
				continue
			}
			seen[string(id)] = true
			r.Rows = append(r.Rows, RejectedRow{Month: f.Month, Reject: row, Remedy: mend(row), Key: string(f.Key)})
		}
	}
	slices.SortStableFunc(r.Rows, func(a, b RejectedRow) int { return strings.Compare(a.Month, b.Month) })
	return r, nil
}

// ofFile is how the reason of a row of history begins: FILE:LINE or FILE: row N.
var ofFile = regexp.MustCompile(`^.+?:(?: row )?\d+: `)

// mend says how to mend a refused row: by SQL, where the value is for a person
// to fill in, or in the file that it came from.
func mend(r sample.Reject) string {
	if at := ofFile.FindString(r.Reason); at != "" {
		return fmt.Sprintf("change %s in the file; `etl rearchive --input` of its day takes it", strings.TrimSuffix(at, ": "))
	}
	where := fmt.Sprintf("WHERE point_id = %s AND timestamp = %s", literal(r.PointID), literal(r.Timestamp))
	column, want := "value", "<number or NULL>"
	ts, isInt := r.Timestamp.V.(int64)
	switch {
	case !isInteger32(r.PointID):
		column, want = "point_id", "<id from points>"
	case !isInt || !plausible(ts):
		column, want = "timestamp", "<Unix milliseconds>"
		if isInt && plausible(ts*1000) {
			want = fmt.Sprint(ts * 1000) // seconds stored as milliseconds
		}
	case !inRange(r.Quality, 255):
		column, want = "quality", "<0 to 255>"
	case !inRange(r.Flags, 65535):
		column, want = "flags", "<0 to 65535>"
	default:
		if s, ok := r.Value.V.(string); ok && numeric(s) {
			want = strings.TrimSpace(s)
		}
	}
	return fmt.Sprintf("UPDATE timeseries SET %s = %s %s; the next archive takes it", column, want, where)
}

func isInteger32(c sample.Cell) bool {
	v, ok := c.V.(int64)
	return ok && v == int64(int32(v))
}

func plausible(ms int64) bool {
	return ms >= source.Earliest.Start() && ms < time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
}

func inRange(c sample.Cell, max int64) bool {
	v, ok := c.V.(int64)
	return ok && v >= 0 && v <= max
}

func numeric(s string) bool {
	var f json.Number
	return json.Unmarshal([]byte(strings.TrimSpace(s)), &f) == nil
}

// literal writes a cell as an SQL literal.
func literal(c sample.Cell) string {
	switch v := c.V.(type) {
	case nil:
		return "NULL"
	case string:
		return "'" + strings.ReplaceAll(v, "'", "''") + "'"
	case []byte:
		return fmt.Sprintf("x'%x'", v)
	}
	return fmt.Sprint(c.V)
}
