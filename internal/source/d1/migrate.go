package d1

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"etl/internal/cloudflare"
	"etl/internal/fault"
	"etl/internal/source"
	"etl/sql"
)

var _ source.Migrator = (*Source)(nil)

// Statements that make a trigger reach D1's REST interface as wrangler sends
// them: BEGIN and END in capitals, lines that end in LF, a semicolon after END. Its
// splitter is known to cut other triggers at their first semicolon (workers-sdk
// issues 10998, 14991 and 15314); the files of package sql keep to this. Each
// statement is an entry of a batch of its own all the same.

// Pending implements source.Migrator. A ledger that lost a table or a trigger
// counts as not applied.
func (s *Source) Pending(ctx context.Context) ([]string, error) {
	applied, ledger, err := s.booked(ctx, "list the pending migrations")
	if err != nil {
		return nil, err
	}
	return sql.Pending(applied, ledger), nil
}

// booked are the names in d1_migrations, and whether the ledger is whole.
func (s *Source) booked(ctx context.Context, doing string) (applied []string, ledger bool, err error) {
	look := one("SELECT " + sql.LedgerWhole + ", (SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND lower(name) = 'd1_migrations')")
	answers, err := s.query(ctx, doing, cloudflare.Read, look)
	if err != nil {
		return nil, false, err
	}
	if err := answers[0].check(doing, 2); err != nil {
		return nil, false, err
	}
	if len(answers[0].rows) != 1 {
		return nil, false, fault.Errorf(fault.Invalid, "%s: the answer has %d rows, want 1", doing, len(answers[0].rows))
	}
	if integer(answers[0].rows[0][1]) == 0 {
		return nil, whole(answers[0]), nil
	}
	// Both as of one moment: a ledger that is made between them is not one that
	// is booked and got lost.
	if answers, err = s.query(ctx, doing, cloudflare.Read, append(one("SELECT name FROM d1_migrations"), isWhole)); err != nil {
		return nil, false, err
	}
	applied, err = answers[0].texts(doing)
	return applied, whole(answers[1]), err
}

// Migrate implements source.Migrator. Tables that other hands made are given the
// columns and the unique key that they lack first, in one batch and losing no
// row; where that is not possible an Invalid error says what is in the way.
//
// Any number of processes may migrate at a time, wrangler among them: a batch
// that fails, or whose outcome is unknown, is looked for before it is tried again.
func (s *Source) Migrate(ctx context.Context) ([]string, error) {
	const doing = "migrate"
	if err := s.begin(ctx, doing, cloudflare.Once); err != nil {
		return nil, err
	}
	defer s.tables.Store(nil)
	if err := s.adopt(ctx, doing); err != nil {
		return nil, err
	}
	var names []string
	for _, m := range sql.Migrations() {
		done, err := s.apply(ctx, doing+": "+m.Name, m)
		if err != nil {
			return names, err
		}
		if done {
			names = append(names, m.Name)
		}
	}
	return names, nil
}

// apply applies a migration with its line in d1_migrations as one batch, unless
// it was applied.
//
// INVARIANT: the line is written with the statements or not at all, and a second
// line of that name fails the batch. So a batch that D1 executes late, after its
// repeat or that of another process, changes nothing. Where the ledger lost a
// trigger its migration is applied without a line; doing that again takes marks
// away, and so is safe at any time.
func (s *Source) apply(ctx context.Context, doing string, m sql.Migration) (bool, error) {
	stmts := one(sql.BookTable)
	for _, text := range sql.Statements(m.SQL) {
		stmts = append(stmts, cloudflare.Statement{SQL: text + ";"})
	}
	var last error
	for try := 1; ; try++ {
		applied, ledger, err := s.booked(ctx, doing)
		if err != nil {
			return false, err
		}
		if !slices.Contains(sql.Pending(applied, ledger), m.Name) {
			return fault.Is(last, fault.Unknown), nil
		}
		if last != nil && (!fault.Is(last, fault.Unknown) || try > repeats) {
			return false, last
		}
		batch := stmts
		if !slices.Contains(applied, m.Name) {
			batch = append(slices.Clip(stmts), one("INSERT INTO d1_migrations (name) VALUES (?1)", m.Name)...)
		}
		if _, last = s.write(ctx, doing, cloudflare.Once, batch); last == nil {
			return true, nil
		}
		// Unknown: look whether it was done. Invalid: another one was ahead, or it is in the way.
		if ctx.Err() != nil || !fault.Is(last, fault.Unknown) && !fault.Is(last, fault.Invalid) {
			return false, last
		}
	}
}

// adopt brings existing tables to what the migrations and the reads expect, by
// one batch, which fails as a whole if another process was ahead.
func (s *Source) adopt(ctx context.Context, doing string) error {
	var last error
	before := -1
	for try := 1; ; try++ {
		lacking, err := s.lacking(ctx, doing)
		if err != nil || len(lacking) == 0 {
			return err
		}
		if last != nil && (try > repeats || !fault.Is(last, fault.Unknown) && len(lacking) == before) {
			return s.inTheWay(ctx, doing, last)
		}
		before = len(lacking)
		if _, last = s.write(ctx, doing, cloudflare.Once, lacking); last == nil {
			return nil
		}
		if ctx.Err() != nil || !fault.Is(last, fault.Unknown) && !fault.Is(last, fault.Invalid) {
			return last
		}
	}
}

// lacking are the statements that give existing tables what they lack.
func (s *Source) lacking(ctx context.Context, doing string) ([]cloudflare.Statement, error) {
	tables := sql.AdoptedTables()
	answers, err := s.query(ctx, doing, cloudflare.Read, append(tableInfo(tables...), cloudflare.Statement{SQL: "PRAGMA index_list(timeseries)"}))
	if err != nil {
		return nil, err
	}
	var stmts []cloudflare.Statement
	for i, table := range tables {
		cols := columnsOf(answers[i])
		if len(cols) == 0 {
			continue
		}
		if err := source.FitToAdopt(table, cols); err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
		added := sql.AddColumns(table, cols.Names())
		if table == "archive_state" && len(added) > 0 {
			added = append(added, sql.ProbeLog()...)
		}
		for _, text := range added {
			stmts = append(stmts, cloudflare.Statement{SQL: text})
		}
		if table != "timeseries" {
			continue
		}
		unique, err := s.unique(ctx, doing, cols, answers[len(tables)])
		if err != nil {
			return nil, err
		}
		if !unique {
			stmts = append(stmts, cloudflare.Statement{SQL: source.MakeUnique})
		}
	}
	return stmts, nil
}

// inTheWay is err, or what it means: a log that takes no line of a run, a sample
// that is there twice and so forbids a key. The latter is looked for only now:
// finding it may take D1 longer than a statement may.
func (s *Source) inTheWay(ctx context.Context, doing string, err error) error {
	if log := source.LogInTheWay(err); log != nil {
		return fmt.Errorf("%s: %w", doing, log)
	}
	if !strings.Contains(err.Error(), "UNIQUE constraint failed: timeseries.") {
		return err
	}
	which := "samples twice"
	if answers, ferr := s.query(ctx, doing, cloudflare.Read, one(source.FindTwice)); ferr == nil && len(answers[0].rows) == 1 && answers[0].check(doing, 3) == nil {
		row := answers[0].rows[0]
		which = fmt.Sprintf("%v rows of point %v at %v", row[0], row[1], row[2])
	}
	return fmt.Errorf("%s: %w", doing, source.Twice(which))
}
