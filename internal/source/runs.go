package source

import (
	"fmt"
	"time"

	"etl/internal/utc"
)

// RunCells is the number of columns of SelectRuns.
const RunCells = 12

// SelectRuns is the query of Runs, the newest first.
var SelectRuns = fmt.Sprintf(`SELECT run, command, status, started_at, heartbeat_at, archived_at,
	first_day, last_day, records_archived, files_written, bytes_written, error
FROM archive_state ORDER BY started_at DESC, run DESC LIMIT %d`, MaxRuns)

// RunOf is a line of SelectRuns. A cell of another class than its column's, as
// a log made by other hands may have, is taken for NULL.
func RunOf(cells [RunCells]any) Run {
	text := func(i int) string { t, _ := cells[i].(string); return t }
	number := func(i int) int64 { n, _ := cells[i].(int64); return n }
	instant := func(i int) time.Time {
		if ms, ok := cells[i].(int64); ok {
			return time.UnixMilli(ms).UTC()
		}
		return time.Time{}
	}
	r := Run{ID: text(0), Command: text(1), Status: text(2), Started: instant(3), Heartbeat: instant(4), Finished: instant(5),
		Records: number(8), Files: number(9), Bytes: number(10), Error: text(11)}
	first, err := utc.ParseDay(text(6))
	last, lerr := utc.ParseDay(text(7))
	if err == nil && lerr == nil {
		r.Days = utc.Days{From: first, To: last + 1}
	}
	return r
}
