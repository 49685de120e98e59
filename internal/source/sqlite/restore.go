package sqlite

import (
	"context"
	"fmt"
	"strings"

	"zombiezen.com/go/sqlite"

	"etl/internal/sample"
	"etl/internal/source"
)

// RestorePoints implements source.Restorer: one transaction.
func (s *Source) RestorePoints(ctx context.Context, points []sample.Point) error {
	doing := fmt.Sprintf("restore %d points", len(points))
	points, err := source.Distinct(points)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return s.write(ctx, doing, func(c *conn) error {
		t, err := s.inspected(c)
		if err != nil {
			return err
		}
		columns, values := source.PointColumns(t.Points)
		insert := source.InsertPoint(columns) + " VALUES (?, ?" + strings.Repeat(", ?", len(columns)) + ")"
		for _, p := range points {
			exists := false
			if err := query(c, "SELECT id, name FROM points WHERE id = ?1 OR name = ?2", func(st *sqlite.Stmt) error {
				id, name := cell(st, 0), ""
				if st.ColumnType(1) == sqlite.TypeText {
					name = st.ColumnText(1)
				}
				switch same := id == int64(p.ID); {
				case same && name == p.Name:
					exists = true
				case same:
					return source.OtherName(p.ID, p.Name, name)
				default:
					return source.OtherID(p.Name, p.ID, id)
				}
				return nil
			}, int64(p.ID), p.Name); err != nil {
				return err
			}
			if exists {
				continue
			}
			if err := exec(c, insert, append([]any{int64(p.ID), p.Name}, values(p)...)...); err != nil {
				return err
			}
		}
		return nil
	})
}

// Restore implements source.Restorer: a transaction for each 100,000 rows.
func (s *Source) Restore(ctx context.Context, b *sample.Batch, keep bool) error {
	doing := fmt.Sprintf("restore %d samples", b.Len())
	for i, n := 0, b.Len(); i < n; i += int(s.chunkRows) {
		if err := s.write(ctx, doing, func(c *conn) error { return upsert(c, b, i, min(i+int(s.chunkRows), n), keep) }); err != nil {
			return err
		}
	}
	return nil
}

// Correct implements source.Restorer: a transaction for each 100,000 rows.
func (s *Source) Correct(ctx context.Context, from, to *sample.Batch) error {
	doing := fmt.Sprintf("correct %d samples", from.Len())
	for i, n := 0, from.Len(); i < n; i += int(s.chunkRows) {
		if err := s.write(ctx, doing, func(c *conn) error {
			for k := i; k < min(i+int(s.chunkRows), n); k++ {
				if err := exec(c, "UPDATE timeseries SET value = ?6, quality = ?7, flags = ?8 WHERE point_id = ?1 AND timestamp = ?2 AND value IS ?3 AND quality IS ?4 AND flags IS ?5",
					int64(from.PointID[k]), from.TS[k], from.Value[k], int64(from.Quality[k]), int64(from.Flags[k]),
					to.Value[k], int64(to.Quality[k]), int64(to.Flags[k])); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// upsert writes the samples [i, j), as Restore says. Many rows go in a statement:
// with triggers on the table SQLite keeps a journal for each statement, which
// costs more than the row.
func upsert(c *conn, b *sample.Batch, i, j int, keep bool) error {
	const many = 400
	for ; i < j; i += many {
		n := min(many, j-i)
		st, err := c.Prepare("INSERT INTO timeseries (point_id, timestamp, value, quality, flags) VALUES (?, ?, ?, ?, ?)" +
			strings.Repeat(", (?, ?, ?, ?, ?)", n-1) + source.UpsertSample(keep))
		if err != nil {
			return err
		}
		for k := range n {
			st.BindInt64(5*k+1, int64(b.PointID[i+k]))
			st.BindInt64(5*k+2, b.TS[i+k])
			st.BindFloat(5*k+3, b.Value[i+k]) // SQLite stores NaN as NULL
			st.BindInt64(5*k+4, int64(b.Quality[i+k]))
			st.BindInt64(5*k+5, int64(b.Flags[i+k]))
		}
		if _, err := st.Step(); err != nil {
			return err
		}
		if err := st.Reset(); err != nil {
			return err
		}
	}
	return nil
}

// Load puts points and samples into the tables in one transaction, over what
// they held of the same id and of the same (point, timestamp). It is meant for
// demonstrations and tests, and fires the triggers as every writer does.
func (s *Source) Load(ctx context.Context, points []sample.Point, b *sample.Batch) error {
	return s.write(ctx, "load", func(c *conn) error {
		t, err := s.inspected(c)
		if err != nil {
			return err
		}
		columns, values := source.PointColumns(t.Points)
		load := source.InsertPoint(columns) + " VALUES (?, ?" + strings.Repeat(", ?", len(columns)) + ") ON CONFLICT (id) DO UPDATE SET name = excluded.name"
		for _, col := range columns {
			load += ", " + col + " = excluded." + col
		}
		for _, p := range points {
			if err := exec(c, load, append([]any{int64(p.ID), p.Name}, values(p)...)...); err != nil {
				return err
			}
		}
		return upsert(c, b, 0, b.Len(), false)
	})
}
