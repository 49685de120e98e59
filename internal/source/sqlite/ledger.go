package sqlite

import (
	"context"
	"fmt"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"

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

// Revoke implements source.Ledger: one transaction, durable when it returns nil.
func (s *Source) Revoke(ctx context.Context, slices []source.Slice) (int, error) {
	n := 0
	if len(slices) == 0 {
		return n, nil
	}
	err := s.write(ctx, fmt.Sprintf("revoke the marks of %d slices", len(slices)), func(c *conn) error {
		if err := s.requireLedger(c); err != nil {
			return err
		}
		for _, sl := range slices {
			if err := exec(c, "DELETE FROM archive_marks WHERE point_id = ? AND day = ? AND done = 1", int64(sl.Point), int64(sl.Day)); err != nil {
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

// chunkRows is how many rows one transaction deletes or writes: other writers
// wait for some tenths of a second, and the log of a database in WAL mode grows
// by some megabytes.
const chunkRows = 100_000

// Prune implements source.Pruner: a transaction for each 100,000 rows. What it
// decides by can not change before it deletes, for it holds the lock.
func (s *Source) Prune(ctx context.Context, cuts []source.Cut) (cut []source.Slice, rows int64, err error) {
	for rest := source.SortCuts(cuts); len(rest) > 0; {
		n := 0
		for size := int64(0); n < len(rest) && (n == 0 || size+rest[n].Rows <= s.chunkRows); n++ {
			size += max(rest[n].Rows, 0)
		}
		some, gone, err := s.prune(ctx, rest[:n])
		cut, rows = append(cut, some...), rows+gone
		if err != nil {
			return cut, rows, err
		}
		rest = rest[n:]
	}
	return cut, rows, nil
}

// prune is Prune in one transaction.
func (s *Source) prune(ctx context.Context, cuts []source.Cut) (cut []source.Slice, rows int64, err error) {
	err = s.write(ctx, fmt.Sprintf("prune %d slices", len(cuts)), func(c *conn) error {
		if err := s.requireLedger(c); err != nil {
			return err
		}
		for _, u := range cuts {
			point, day, from, to := int64(u.Point), int64(u.Day), u.Day.Start(), u.Day.End()
			if err := exec(c, `UPDATE archive_marks SET done = 2 WHERE point_id = ?1 AND day = ?2 AND run = ?3 AND done = 1 AND ?4 > 0
				AND (SELECT count(*) FROM timeseries WHERE point_id = ?1 AND timestamp >= ?5 AND timestamp < ?6) = ?4`,
				point, day, u.Run, u.Rows, from, to); err != nil {
				return err
			}
			if c.Changes() == 0 {
				continue
			}
			if err := exec(c, "INSERT INTO archive_trims (point_id, day) VALUES (?, ?) ON CONFLICT DO NOTHING", point, day); err != nil {
				return err
			}
			if err := exec(c, "DELETE FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ?", point, from, to); err != nil {
				return err
			}
			// INVARIANT: what was counted is what goes.
			if n := int64(c.Changes()); n != u.Rows {
				return fmt.Errorf("point %d, %s: %d rows were counted, %d deleted", u.Point, u.Day, u.Rows, n)
			}
			cut, rows = append(cut, u.Slice), rows+u.Rows
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return cut, rows, nil
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
