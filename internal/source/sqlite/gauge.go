package sqlite

import (
	"context"

	"zombiezen.com/go/sqlite"

	"etl/internal/source"
	"etl/internal/utc"
)

var _ source.Gauger = (*Source)(nil)

// Size implements source.Gauger: the pages of the file, free ones included.
func (s *Source) Size(ctx context.Context) (int64, error) {
	var bytes int64
	err := s.with(ctx, s.readers, "measure the database", func(c *conn) error {
		return query(c, "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()", func(st *sqlite.Stmt) error {
			bytes = st.ColumnInt64(0)
			return nil
		})
	})
	return bytes, err
}

// Marked implements source.Gauger. Bits are summed up by SQLite: a callback for each
// mark would take as long again.
func (s *Source) Marked(ctx context.Context, points []int32, days utc.Days, f func(id int32, days uint64)) error {
	return s.read(ctx, "read the marks of "+days.String(), func(c *conn, _ *source.Tables) error {
		if err := s.requireLedger(c); err != nil {
			return err
		}
		found := make([]uint64, len(points)) // so that no statement is open while f runs
		for i, id := range points {
			if err := query(c, "SELECT sum(1 << (day - ?2)) FROM archive_marks WHERE point_id = ?1 AND day >= ?2 AND day < ?3 AND done > 0",
				func(st *sqlite.Stmt) error {
					found[i] = uint64(st.ColumnInt64(0))
					return nil
				}, int64(id), int64(days.From), int64(days.To)); err != nil {
				return err
			}
		}
		for i, id := range points {
			if found[i] != 0 {
				f(id, found[i])
			}
		}
		return nil
	})
}

// Newest implements source.Gauger.
func (s *Source) Newest(ctx context.Context, points []int32, from, to int64, f func(id int32, ts int64)) error {
	found := make([]*int64, len(points)) // so that no statement is open while f runs
	err := s.read(ctx, "find the newest samples", func(c *conn, _ *source.Tables) error {
		return seeks(c, func() error {
			for i, id := range points {
				if err := query(c, "SELECT timestamp FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ? AND "+source.HoldsSample+" ORDER BY timestamp DESC LIMIT 1",
					func(st *sqlite.Stmt) error {
						found[i] = new(st.ColumnInt64(0))
						return nil
					}, int64(id), from, to); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for i, id := range points {
		if found[i] != nil {
			f(id, *found[i])
		}
	}
	return nil
}

// Quality implements source.Gauger.
func (s *Source) Quality(ctx context.Context, points []int32, from, to int64, perPoint int, f func(id int32, looked, bad int)) error {
	type counts struct{ looked, bad int }
	found := make([]counts, len(points))
	err := s.read(ctx, "look at the quality of readings", func(c *conn, _ *source.Tables) error {
		return seeks(c, func() error {
			for i, id := range points {
				n := &found[i]
				for k := range perPoint {
					if err := query(c, "SELECT quality < 192 FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp <= ? ORDER BY timestamp DESC LIMIT 1",
						func(st *sqlite.Stmt) error {
							n.looked++
							n.bad += st.ColumnInt(0)
							return nil
						}, int64(id), from, source.QualityInstant(id, k, perPoint, from, to)); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for i, id := range points {
		f(id, found[i].looked, found[i].bad)
	}
	return nil
}
