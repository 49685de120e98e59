package sqlite

import (
	"context"
	"fmt"
	"math"

	"zombiezen.com/go/sqlite"

	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

const (
	// batchRows is where a batch of Read ends: 64 Ki rows of 23 bytes are 1.5 MB.
	batchRows = 64 << 10
	// rejectBytes bounds the rejects of a batch, which may hold text of any length.
	rejectBytes = 4 << 20

	// One prepared statement rebound for each point is as fast as one with a
	// list of the points (5.9 and 5.6 M rows/s, BenchmarkRead), and its snapshot
	// spans one point.
	readFrom = "SELECT timestamp, value, quality, flags FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ? ORDER BY timestamp"
	readOn   = "SELECT timestamp, value, quality, flags FROM timeseries WHERE point_id = ? AND timestamp > ? AND timestamp < ? ORDER BY timestamp"
)

// Read implements source.Source. No statement is open while f runs.
func (s *Source) Read(ctx context.Context, q source.Query, f func(*sample.Batch) error) (source.Stats, error) {
	var stats source.Stats
	if q.Days.Empty() {
		return stats, nil
	}
	err := s.read(ctx, fmt.Sprintf("read %s", q.Days), func(c *conn, _ *source.Tables) error {
		b := &c.batch
		b.Reset()
		deliver := func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			stats.Rows += int64(b.Len() + len(b.Rejects))
			err := f(b)
			clear(b.Rejects) // so that their text can be freed
			b.Reset()
			if err != nil {
				return callbackError{err}
			}
			return nil
		}
		for _, id := range q.Points {
			text, after := readFrom, any(q.Days.From.Start())
			for after != nil {
				st, err := c.Prepare(text)
				if err != nil {
					return err
				}
				st.BindInt64(1, int64(id))
				bind(st, 2, after)
				st.BindInt64(3, q.Days.To.Start())
				stats.Requests++
				if after, err = fill(st, id, b, s.batchRows); err != nil {
					return fmt.Errorf("point %d: %w", id, err)
				}
				if after != nil {
					text = readOn
					if err := deliver(); err != nil {
						return err
					}
				}
			}
		}
		if b.Len() > 0 || len(b.Rejects) > 0 {
			return deliver()
		}
		return nil
	})
	return stats, err
}

// fill appends rows of a readFrom or readOn to b until it has as many as rows,
// and resets the statement. It returns the timestamp of the last row if there may be more, else nil.
func fill(st *sqlite.Stmt, id int32, b *sample.Batch, rows int) (last any, err error) {
	defer st.Reset()
	weight := 0
	for i := range b.Rejects {
		weight += source.RejectWeight(&b.Rejects[i])
	}
	for {
		if b.Len() >= rows || weight >= rejectBytes {
			return cell(st, 0), nil // a batch is never full before the first step
		}
		ok, err := st.Step()
		if err != nil || !ok {
			return nil, err
		}
		if st.ColumnType(0) == sqlite.TypeInteger {
			var value float64
			fits := true
			switch st.ColumnType(1) {
			case sqlite.TypeFloat:
				value = st.ColumnFloat(1)
			case sqlite.TypeNull:
				value = sample.Null
			case sqlite.TypeInteger:
				n := st.ColumnInt64(1)
				value, fits = float64(n), source.Exact(n)
			default:
				fits = false
			}
			quality, flags := st.ColumnInt64(2), st.ColumnInt64(3)
			if fits && uint64(quality) <= math.MaxUint8 && uint64(flags) <= math.MaxUint16 &&
				st.ColumnType(2) == sqlite.TypeInteger && st.ColumnType(3) == sqlite.TypeInteger {
				b.PointID = append(b.PointID, id)
				b.Append(st.ColumnInt64(0), value, uint8(quality), uint16(flags))
				continue
			}
		}
		r := sample.Reject{PointID: sample.Cell{V: int64(id)}, Timestamp: sample.Cell{V: cell(st, 0)},
			Value: sample.Cell{V: cell(st, 1)}, Quality: sample.Cell{V: cell(st, 2)}, Flags: sample.Cell{V: cell(st, 3)}}
		r.Reason = source.RowReason(&r)
		b.Rejects = append(b.Rejects, r)
		weight += source.RejectWeight(&r)
	}
}

// cell is a column of the current row as it is stored. The classes must be
// asked before the values: asking for a value may convert it.
func cell(st *sqlite.Stmt, i int) any {
	switch st.ColumnType(i) {
	case sqlite.TypeInteger:
		return st.ColumnInt64(i)
	case sqlite.TypeFloat:
		return st.ColumnFloat(i)
	case sqlite.TypeText:
		return st.ColumnText(i)
	case sqlite.TypeBlob:
		b := make([]byte, st.ColumnLen(i))
		st.ColumnBytes(i, b)
		return b
	}
	return nil
}

// appendRejects appends the rows of timeseries that match where, up to
// MaxStrays in all.
func appendRejects(c *conn, rejects []sample.Reject, reason func(*sample.Reject) string, where string, args ...any) ([]sample.Reject, error) {
	room := source.MaxStrays - len(rejects)
	if room <= 0 {
		return rejects, nil
	}
	err := query(c, "SELECT point_id, timestamp, value, quality, flags FROM timeseries WHERE "+where+" LIMIT ?", func(st *sqlite.Stmt) error {
		r := sample.Reject{PointID: sample.Cell{V: cell(st, 0)}, Timestamp: sample.Cell{V: cell(st, 1)},
			Value: sample.Cell{V: cell(st, 2)}, Quality: sample.Cell{V: cell(st, 3)}, Flags: sample.Cell{V: cell(st, 4)}}
		r.Reason = reason(&r)
		rejects = append(rejects, r)
		return nil
	}, append(args, room)...)
	return rejects, err
}

// bounds is the first and the last timestamp of a point, NULL if it has no rows.
const bounds = `SELECT
	(SELECT timestamp FROM timeseries WHERE point_id = ?1 ORDER BY timestamp LIMIT 1),
	(SELECT timestamp FROM timeseries WHERE point_id = ?1 ORDER BY timestamp DESC LIMIT 1)`

// Strays implements source.Source.
func (s *Source) Strays(ctx context.Context, points []int32, window utc.Days) ([]sample.Reject, error) {
	var rejects []sample.Reject
	reason := func(r *sample.Reject) string { return source.StrayReason(r, window) }
	from, to := window.From.Start(), window.To.Start()
	err := s.read(ctx, "look for rows outside of all days", func(c *conn, t *source.Tables) (err error) {
		for _, id := range points {
			if len(rejects) >= source.MaxStrays {
				return nil
			}
			// Nearly every point has none: its first and its last row tell.
			outside := t.NullKey
			if err := query(c, bounds, func(st *sqlite.Stmt) error {
				for i := range 2 {
					switch st.ColumnType(i) {
					case sqlite.TypeNull: // no rows
					case sqlite.TypeInteger:
						outside = outside || st.ColumnInt64(i) < from || st.ColumnInt64(i) >= to
					default:
						outside = true
					}
				}
				return nil
			}, int64(id)); err != nil {
				return err
			}
			if !outside {
				continue
			}
			if rejects, err = appendRejects(c, rejects, reason, "point_id = ? AND timestamp < ?", int64(id), from); err != nil {
				return err
			}
			// Text and blobs sort behind all numbers, so this finds them too.
			if rejects, err = appendRejects(c, rejects, reason, "point_id = ? AND timestamp >= ?", int64(id), to); err != nil {
				return err
			}
			if t.NullKey {
				if rejects, err = appendRejects(c, rejects, reason, "point_id = ? AND timestamp IS NULL", int64(id)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rejects, nil
}

// Count implements source.Source.
func (s *Source) Count(ctx context.Context, q source.Query) (map[int32]int64, error) {
	counts := make(map[int32]int64)
	if q.Days.Empty() {
		return counts, nil
	}
	err := s.read(ctx, fmt.Sprintf("count %s", q.Days), func(c *conn, _ *source.Tables) error {
		for _, id := range q.Points {
			if err := query(c, "SELECT count(*) FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ?",
				func(st *sqlite.Stmt) error {
					if n := st.ColumnInt64(0); n > 0 {
						counts[id] = n
					}
					return nil
				}, int64(id), q.Days.From.Start(), q.Days.To.Start()); err != nil {
				return err
			}
		}
		return nil
	})
	return counts, err
}

// Summaries implements source.Summarizer. First and Last leave out rows whose
// timestamp is no number.
func (s *Source) Summaries(ctx context.Context, points []int32, f func(id int32, s source.Summary)) error {
	return s.read(ctx, "summarize the points", func(c *conn, _ *source.Tables) error {
		for _, id := range points {
			var sum source.Summary
			if err := query(c, `SELECT
				(SELECT min(timestamp) FROM timeseries WHERE point_id = ?1 AND timestamp <= 9223372036854775807),
				(SELECT max(timestamp) FROM timeseries WHERE point_id = ?1 AND timestamp <= 9223372036854775807),
				(SELECT count(*) FROM timeseries WHERE point_id = ?1)`, func(st *sqlite.Stmt) error {
				sum = source.Summary{First: st.ColumnInt64(0), Last: st.ColumnInt64(1), Rows: st.ColumnInt64(2)}
				return nil
			}, int64(id)); err != nil {
				return err
			}
			f(id, sum)
		}
		return nil
	})
}

// Latest implements source.Latester.
func (s *Source) Latest(ctx context.Context, points []int32, days utc.Days, f func(*sample.Batch) error) error {
	return s.outermost(ctx, "find the latest samples", "DESC", points, days, f)
}

// Oldest implements source.Oldester.
func (s *Source) Oldest(ctx context.Context, points []int32, days utc.Days, f func(*sample.Batch) error) error {
	return s.outermost(ctx, "find the oldest samples", "ASC", points, days, f)
}

// outermost calls f with the first sample of each point in an order of time.
func (s *Source) outermost(ctx context.Context, doing, order string, points []int32, days utc.Days, f func(*sample.Batch) error) error {
	first := "SELECT timestamp, value, quality, flags FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ? AND " +
		source.HoldsSample + " ORDER BY timestamp " + order + " LIMIT 1"
	return s.read(ctx, doing, func(c *conn, _ *source.Tables) error {
		b := &c.batch
		b.Reset()
		err := seeks(c, func() error {
			for _, id := range points {
				if err := query(c, first, func(st *sqlite.Stmt) error {
					value := sample.Null
					if st.ColumnType(1) != sqlite.TypeNull {
						value = st.ColumnFloat(1)
					}
					b.PointID = append(b.PointID, id)
					b.Append(st.ColumnInt64(0), value, uint8(st.ColumnInt64(2)), uint16(st.ColumnInt64(3)))
					return nil
				}, int64(id), days.From.Start(), days.To.Start()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := f(b); err != nil {
			return callbackError{err}
		}
		return nil
	})
}
