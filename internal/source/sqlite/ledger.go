package sqlite

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"

	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/sql"
)

// requireLedger refuses a ledger of which a table or a trigger is missing.
func (s *Source) requireLedger(c *conn) error {
	ok, err := hasLedger(c)
	if err != nil || ok {
		return err
	}
	return s.migrateHint(source.NoLedger())
}

// Marks implements source.Ledger.
func (s *Source) Marks(ctx context.Context, points []int32, days utc.Days, f func(source.Mark)) error {
	return s.read(ctx, fmt.Sprintf("read the marks of %s", days), func(c *conn, _ *source.Tables) error {
		if err := s.requireLedger(c); err != nil {
			return err
		}
		var marks []source.Mark // of one point, so that no statement is open while f runs
		run := ""               // of the last mark: most share it
		for _, id := range points {
			marks = marks[:0]
			if err := query(c, "SELECT day, run, done FROM archive_marks WHERE point_id = ? AND day >= ? AND day < ? ORDER BY day",
				func(st *sqlite.Stmt) error {
					if r := st.ColumnText(1); r != run {
						run = r
					}
					marks = append(marks, source.Mark{Slice: source.Slice{Point: id, Day: utc.Day(st.ColumnInt64(0))},
						Run: run, State: source.State(st.ColumnInt64(2))})
					return nil
				}, int64(id), int64(days.From), int64(days.To)); err != nil {
				return err
			}
			for _, m := range marks {
				f(m)
			}
		}
		return nil
	})
}

// Pruned implements source.Ledger, in order of (point, day).
func (s *Source) Pruned(ctx context.Context, points []int32, days utc.Days, f func(source.Slice)) error {
	return s.read(ctx, fmt.Sprintf("read what was trimmed of %s", days), func(c *conn, _ *source.Tables) error {
		if err := s.requireLedger(c); err != nil {
			return err
		}
		var trimmed []source.Slice
		for _, id := range points {
			trimmed = trimmed[:0]
			if err := query(c, "SELECT day FROM archive_trims WHERE point_id = ? AND day >= ? AND day < ? ORDER BY day",
				func(st *sqlite.Stmt) error {
					trimmed = append(trimmed, source.Slice{Point: id, Day: utc.Day(st.ColumnInt64(0))})
					return nil
				}, int64(id), int64(days.From), int64(days.To)); err != nil {
				return err
			}
			for _, t := range trimmed {
				f(t)
			}
		}
		return nil
	})
}

// Claim implements source.Ledger: one transaction, durable when it returns nil.
func (s *Source) Claim(ctx context.Context, run string, slices []source.Slice) error {
	if len(slices) == 0 {
		return nil
	}
	return s.write(ctx, fmt.Sprintf("claim %d slices", len(slices)), func(c *conn) error {
		if err := s.requireLedger(c); err != nil {
			return err
		}
		for _, sl := range slices {
			// Not an upsert: on a table without rowid SQLite makes a temporary
			// table for each row that one updates, five times the work.
			if err := exec(c, "REPLACE INTO archive_marks (point_id, day, run, done) VALUES (?, ?, ?, 0)",
				int64(sl.Point), int64(sl.Day), run); err != nil {
				return err
			}
		}
		return nil
	})
}

// Confirm implements source.Ledger: one transaction, durable when it returns nil.
func (s *Source) Confirm(ctx context.Context, run string, slices []source.Slice) (int, error) {
	n := 0
	if len(slices) == 0 {
		return n, nil
	}
	err := s.write(ctx, fmt.Sprintf("confirm %d slices", len(slices)), func(c *conn) error {
		// A table that was rebuilt since the claim has lost its triggers, and
		// with them the rows that came since.
		if err := s.requireLedger(c); err != nil {
			return err
		}
		for _, sl := range slices {
			if err := exec(c, "UPDATE archive_marks SET done = 1 WHERE point_id = ? AND day = ? AND run = ? AND done = 0",
				int64(sl.Point), int64(sl.Day), run); err != nil {
				return err
			}
			n += c.Changes()
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Log implements source.Ledger.
func (s *Source) Log(ctx context.Context, r source.Run) error {
	var finished, first, last, failure any
	if !r.Finished.IsZero() {
		finished = r.Finished.UnixMilli()
	}
	if !r.Days.Empty() {
		first, last = r.Days.From.String(), (r.Days.To - 1).String()
	}
	if r.Error != "" {
		failure = r.Error
	}
	return s.write(ctx, "log the run", func(c *conn) error {
		if err := s.requireLedger(c); err != nil {
			return err
		}
		return exec(c, `INSERT INTO archive_state (run, command, status, started_at, heartbeat_at, archived_at,
				first_day, last_day, records_archived, files_written, bytes_written, error)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (run) DO UPDATE SET command = excluded.command, status = excluded.status,
				started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at, archived_at = excluded.archived_at,
				first_day = excluded.first_day, last_day = excluded.last_day, records_archived = excluded.records_archived,
				files_written = excluded.files_written, bytes_written = excluded.bytes_written, error = excluded.error`,
			r.ID, r.Command, r.Status, r.Started.UnixMilli(), s.o.Now().UnixMilli(), finished,
			first, last, r.Records, r.Files, r.Bytes, failure)
	})
}

// Runs implements source.Historian.
func (s *Source) Runs(ctx context.Context) ([]source.Run, error) {
	var runs []source.Run
	err := s.read(ctx, "read the log of runs", func(c *conn, _ *source.Tables) error {
		cols, err := columnsOf(c, "archive_state")
		if err != nil || len(cols) == 0 {
			return err
		}
		if err := cols.Require("archive_state", append([]string{"run"}, sql.Columns("archive_state")...)...); err != nil {
			return s.migrateHint(err)
		}
		return query(c, source.SelectRuns, func(st *sqlite.Stmt) error {
			var cells [source.RunCells]any
			for i := range cells {
				cells[i] = cell(st, i)
			}
			runs = append(runs, source.RunOf(cells))
			return nil
		})
	})
	slices.Reverse(runs)
	return runs, err
}

// CloseCrashed implements source.Journal.
func (s *Source) CloseCrashed(ctx context.Context, silent time.Duration) ([]string, error) {
	var runs []string
	err := s.write(ctx, "close crashed runs", func(c *conn) error {
		if err := s.requireLedger(c); err != nil {
			return err
		}
		now := s.o.Now()
		return query(c, `UPDATE archive_state SET status = 'crashed', archived_at = ?1, error = 'no heartbeat; closed by a later run'
			WHERE status = 'running' AND (heartbeat_at IS NULL OR heartbeat_at < ?2) RETURNING run`, func(st *sqlite.Stmt) error {
			runs = append(runs, st.ColumnText(0))
			return nil
		}, now.UnixMilli(), now.Add(-silent).UnixMilli())
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(runs)
	return runs, nil
}

// CreatePoints implements source.Registrar: one transaction.
func (s *Source) CreatePoints(ctx context.Context, names []string) (map[string]int32, error) {
	ids := make(map[string]int32, len(names))
	err := s.write(ctx, fmt.Sprintf("create %d points", len(names)), func(c *conn) error {
		for _, name := range names {
			if err := exec(c, "INSERT INTO points (name) SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM points WHERE name = ?1)", name); err != nil {
				return err
			}
			if err := query(c, "SELECT id FROM points WHERE name = ? LIMIT 1", func(st *sqlite.Stmt) error {
				id := st.ColumnInt64(0)
				if id != int64(int32(id)) {
					return source.BadPointID(name, id)
				}
				ids[name] = int32(id)
				return nil
			}, name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}

// Load puts points and samples into the tables in one transaction, over what
// they held of the same id and of the same (point, timestamp). It is meant for
// demonstrations and tests, and fires the triggers as every writer does.
func (s *Source) Load(ctx context.Context, points []sample.Point, b *sample.Batch) error {
	return s.write(ctx, "load", func(c *conn) error {
		for _, p := range points {
			if err := exec(c, `INSERT INTO points (id, name, site, system, equipment, unit, interval_ms, min_value, max_value, created_at)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (id) DO UPDATE SET name = excluded.name, site = excluded.site, system = excluded.system,
					equipment = excluded.equipment, unit = excluded.unit, interval_ms = excluded.interval_ms,
					min_value = excluded.min_value, max_value = excluded.max_value, created_at = excluded.created_at`,
				int64(p.ID), p.Name, orNull(p.Site), orNull(p.System), orNull(p.Equipment), orNull(p.Unit),
				orNull(p.IntervalMS), orNull(p.MinValue), orNull(p.MaxValue), orNull(p.CreatedAt)); err != nil {
				return err
			}
		}
		// Many rows in a statement: with triggers on the table SQLite keeps a
		// journal for each statement, which costs more than the row.
		const many = 400
		for i := 0; i < b.Len(); i += many {
			n := min(many, b.Len()-i)
			st, err := c.Prepare("REPLACE INTO timeseries (point_id, timestamp, value, quality, flags) VALUES (?, ?, ?, ?, ?)" +
				strings.Repeat(", (?, ?, ?, ?, ?)", n-1))
			if err != nil {
				return err
			}
			for j := range n {
				st.BindInt64(5*j+1, int64(b.PointID[i+j]))
				st.BindInt64(5*j+2, b.TS[i+j])
				st.BindFloat(5*j+3, b.Value[i+j]) // SQLite stores NaN as NULL
				st.BindInt64(5*j+4, int64(b.Quality[i+j]))
				st.BindInt64(5*j+5, int64(b.Flags[i+j]))
			}
			if _, err := st.Step(); err != nil {
				return err
			}
			if err := st.Reset(); err != nil {
				return err
			}
		}
		return nil
	})
}

func orNull[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}
