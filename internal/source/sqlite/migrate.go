package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/fault"
	"etl/internal/source"
	"etl/sql"
)

// Pending implements source.Migrator. A ledger that lost a table or a trigger
// counts as not applied.
func (s *Source) Pending(ctx context.Context) ([]string, error) {
	if err := s.stat(); errors.Is(err, fs.ErrNotExist) && s.o.Create {
		return sql.Pending(nil, true), nil
	}
	var names []string
	err := s.with(ctx, s.readers, "list the pending migrations", func(c *conn) error {
		applied, ledger, err := booked(c)
		names = sql.Pending(applied, ledger)
		return err
	})
	return names, err
}

// booked are the names in d1_migrations, and whether the ledger is whole.
func booked(c *conn) (applied []string, ledger bool, err error) {
	cols, err := columnsOf(c, "d1_migrations")
	if err != nil {
		return nil, false, err
	}
	if len(cols) > 0 {
		if err := query(c, "SELECT name FROM d1_migrations", func(st *sqlite.Stmt) error {
			applied = append(applied, st.ColumnText(0))
			return nil
		}); err != nil {
			return nil, false, err
		}
	}
	ledger, err = hasLedger(c)
	return applied, ledger, err
}

// Migrate implements source.Migrator. Tables that other hands made are given the
// columns and the unique key that they lack first, in one transaction and losing
// no row; where that is not possible an Invalid error says what is in the way. A database that is empty is put in WAL mode; the mode of
// another one stays. Any number of processes may migrate at a time.
func (s *Source) Migrate(ctx context.Context) ([]string, error) {
	if s.o.ReadOnly {
		return nil, fault.Errorf(fault.Unavailable, "migrate: the source was opened read-only")
	}
	var names []string
	err := s.with(ctx, s.writer, "migrate", func(c *conn) error {
		if err := s.beginWAL(ctx, c); err != nil {
			return err
		}
		if err := transaction(c, func() error { return adopt(c) }); err != nil {
			return err
		}
		for _, m := range sql.Migrations() {
			done := false
			if err := transaction(c, func() (err error) { done, err = apply(c, m); return err }); err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			if done {
				names = append(names, m.Name)
			}
		}
		return nil
	})
	s.mu.Lock()
	s.tables = nil
	s.mu.Unlock()
	return names, err
}

// beginWAL puts an empty database in WAL mode. SQLite does not wait for a lock
// there when two processes try at once: the one that was refused looks again.
func (s *Source) beginWAL(ctx context.Context, c *conn) error {
	for deadline := time.Now().Add(s.o.BusyTimeout); ; {
		var pages int
		err := query(c, "PRAGMA page_count", func(st *sqlite.Stmt) error { pages = st.ColumnInt(0); return nil })
		if err == nil && pages == 0 {
			err = exec(c, "PRAGMA journal_mode = wal")
		}
		if sqlite.ErrCode(err).ToPrimary() != sqlite.ResultBusy || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// apply applies a migration with its line in d1_migrations unless it was
// applied, within the caller's transaction.
func apply(c *conn, m sql.Migration) (bool, error) {
	if err := exec(c, sql.BookTable); err != nil {
		return false, err
	}
	applied, ledger, err := booked(c)
	if err != nil || !slices.Contains(sql.Pending(applied, ledger), m.Name) {
		return false, err
	}
	if err := sqlitex.ExecuteScript(c.Conn, m.SQL, nil); err != nil {
		return false, err
	}
	return true, exec(c, "INSERT INTO d1_migrations (name) VALUES (?) ON CONFLICT (name) DO NOTHING", m.Name)
}

// adopt brings existing tables to what the migrations and the reads expect.
func adopt(c *conn) error {
	for _, table := range sql.AdoptedTables() {
		cols, err := columnsOf(c, table)
		if err != nil {
			return err
		}
		if len(cols) == 0 {
			continue
		}
		if err := source.FitToAdopt(table, cols); err != nil {
			return err
		}
		added := sql.AddColumns(table, cols.Names())
		for _, stmt := range added {
			if err := exec(c, stmt); err != nil {
				return err
			}
		}
		switch {
		case table == "timeseries":
			if err := addUniqueKey(c); err != nil {
				return err
			}
		case table == "archive_state" && len(added) > 0:
			for _, stmt := range sql.ProbeLog() {
				if err := exec(c, stmt); err != nil {
					return cmp.Or(source.LogInTheWay(err), err)
				}
			}
		}
	}
	return nil
}

// addUniqueKey gives a timeseries that has no unique key one, unless samples
// are there twice.
func addUniqueKey(c *conn) error {
	unique, err := hasUniqueKey(c)
	if err != nil || unique {
		return err
	}
	if err := query(c, source.FindTwice, func(st *sqlite.Stmt) error {
		return source.Twice(fmt.Sprintf("%d rows of point %s at %s", st.ColumnInt64(0), st.ColumnText(1), st.ColumnText(2)))
	}); err != nil {
		return err
	}
	return exec(c, source.MakeUnique)
}
