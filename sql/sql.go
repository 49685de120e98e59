// Package sql owns the schema of the hot tier: the migrations in d1/, written
// so that wrangler, D1's REST interface and etl migrate apply the same files and
// keep the same book of them, and what a database that was made without them
// lacks; and the library of named queries for analysts in duckdb/. It runs
// nothing.
package sql

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed d1/[0-9][0-9][0-9][0-9]_*.sql
var files embed.FS

// Migration is one file of wrangler's convention: it is applied once, together
// with the line for its name in d1_migrations.
type Migration struct {
	Name string // 0001_timeseries.sql
	SQL  string // statements, without a transaction around them
}

// BookTable creates the table in which wrangler and etl migrate book the
// migrations that were applied.
const BookTable = `CREATE TABLE IF NOT EXISTS "d1_migrations"(
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	name TEXT UNIQUE,
	applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL
)`

// LedgerMigration makes the ledger. It may be applied again, and must be where
// one of LedgerObjects got lost (a table that is rebuilt loses its triggers):
// it then clears the marks, for which nothing vouches any more.
const LedgerMigration = "0002_ledger.sql"

// LedgerObjects are the tables and triggers without all of which no mark can be
// trusted, as sqlite_schema names them.
var LedgerObjects = []string{
	"archive_source", "archive_state", "archive_marks", "archive_trims",
	"tr_timeseries_insert_unmarks", "tr_timeseries_update_unmarks",
}

// LedgerWhole is an expression that is 1 if all of LedgerObjects exist, the
// triggers on timeseries, and else 0.
var LedgerWhole = fmt.Sprintf("(SELECT count(*) FROM sqlite_schema WHERE name IN ('%s')"+
	" AND (type = 'table' OR (type = 'trigger' AND lower(tbl_name) = 'timeseries'))) = %d", strings.Join(LedgerObjects, "', '"), len(LedgerObjects))

// Pending are the names of the migrations to apply, in order, where the book
// says that those of applied were, and where the ledger is whole or not.
func Pending(applied []string, ledger bool) []string {
	var names []string
	for _, m := range Migrations() {
		if !slices.Contains(applied, m.Name) || (m.Name == LedgerMigration && !ledger) {
			names = append(names, m.Name)
		}
	}
	return names
}

// Migrations are the migrations in the order in which they are applied.
func Migrations() []Migration {
	names, err := fs.Glob(files, "d1/*.sql")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	slices.Sort(names)
	ms := make([]Migration, len(names))
	for i, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			panic(err) // the file is part of the program
		}
		ms[i] = Migration{strings.TrimPrefix(name, "d1/"), string(text)}
	}
	return ms
}

// columns are the columns that ALTER TABLE can add to a table that was made
// without the migrations, with the declarations that it accepts: no key, no
// default that is computed, and NOT NULL only with a default.
var columns = map[string][][2]string{
	"points": {
		{"site", "TEXT"}, {"system", "TEXT"}, {"equipment", "TEXT"}, {"unit", "TEXT"},
		{"interval_ms", "INTEGER"}, {"min_value", "REAL"}, {"max_value", "REAL"},
		{"created_at", "INTEGER"}, {"retired_at", "INTEGER"},
	},
	"timeseries": {
		{"value", "REAL"}, {"quality", "INTEGER NOT NULL DEFAULT 192"}, {"flags", "INTEGER NOT NULL DEFAULT 0"},
	},
	"archive_state": {
		{"run", "TEXT"}, {"command", "TEXT"}, {"status", "TEXT"},
		{"started_at", "INTEGER"}, {"heartbeat_at", "INTEGER"}, {"archived_at", "INTEGER"},
		{"first_day", "TEXT"}, {"last_day", "TEXT"},
		{"records_archived", "INTEGER"}, {"files_written", "INTEGER"}, {"bytes_written", "INTEGER"},
		{"error", "TEXT"},
	},
}

// AdoptedTables are the tables that a database made by other hands may have
// already, in order.
func AdoptedTables() []string { return []string{"points", "timeseries", "archive_state"} }

// Columns are the columns of one of AdoptedTables but for its key.
func Columns(table string) []string {
	var names []string
	for _, c := range columns[table] {
		names = append(names, c[0])
	}
	return names
}

// AddColumns are the statements that give an existing table, one of
// AdoptedTables with the columns have, those that it lacks. No row is lost.
func AddColumns(table string, have []string) []string {
	var stmts []string
	for _, c := range columns[table] {
		if !slices.ContainsFunc(have, func(h string) bool { return strings.EqualFold(h, c[0]) }) {
			stmts = append(stmts, fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s %s", table, c[0], c[1]))
		}
	}
	return stmts
}

// ProbeLog are statements that write a line into an archive_state of other hands
// as a run does when it begins, and take it away again. They fail where a
// declaration of the table (NOT NULL, CHECK) is in the way of that.
func ProbeLog() []string {
	return []string{
		`INSERT INTO archive_state (run, command, status, started_at, heartbeat_at, archived_at,
	first_day, last_day, records_archived, files_written, bytes_written, error)
VALUES ('etl migrate', 'archive', 'running', 0, 0, NULL, NULL, NULL, 0, 0, 0, NULL)`,
		"DELETE FROM archive_state WHERE run = 'etl migrate'",
	}
}
