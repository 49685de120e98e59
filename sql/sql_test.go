package sql_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/sql"
)

func memory(t *testing.T) *sqlite.Conn {
	t.Helper()
	c, err := sqlite.OpenConn(":memory:", sqlite.OpenReadWrite, sqlite.OpenCreate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func exec(t *testing.T, c *sqlite.Conn, script string) {
	t.Helper()
	if err := sqlitex.ExecuteScript(c, script, nil); err != nil {
		t.Fatalf("%v in\n%s", err, script)
	}
}

// rows are the rows of a query, columns joined by "|".
func rows(t *testing.T, c *sqlite.Conn, query string, args ...any) []string {
	t.Helper()
	var out []string
	err := sqlitex.ExecuteTransient(c, query, &sqlitex.ExecOptions{Args: args, ResultFunc: func(s *sqlite.Stmt) error {
		cols := make([]string, s.ColumnCount())
		for i := range cols {
			cols[i] = s.ColumnText(i)
		}
		out = append(out, strings.Join(cols, "|"))
		return nil
	}})
	if err != nil {
		t.Fatalf("%v in\n%s", err, query)
	}
	return out
}

func migrated(t *testing.T) *sqlite.Conn {
	t.Helper()
	c := memory(t)
	for _, m := range sql.Migrations() {
		exec(t, c, m.SQL)
	}
	return c
}

// splitNaively cuts a script into statements as the splitters of wrangler do: at
// each semicolon outside quotes, comments and the BEGIN … END of a trigger, whose
// keywords only count in upper case. It drops the comments.
func splitNaively(script string) []string {
	var out []string
	var cur strings.Builder
	deep := false
	for script != "" {
		n := 1
		switch {
		case strings.HasPrefix(script, "--"):
			n = strings.IndexByte(script, '\n')
			script = script[n:]
			continue
		case script[0] == '\'' || script[0] == '"':
			n = 2 + strings.IndexByte(script[1:], script[0])
		case !deep && regexp.MustCompile(`^\sBEGIN\s`).MatchString(script):
			deep, n = true, len(" BEGIN")
		case deep && regexp.MustCompile(`^\sEND;`).MatchString(script):
			deep, n = false, len(" END")
		case script[0] == ';' && !deep:
			out = append(out, strings.TrimSpace(cur.String()))
			cur.Reset()
			script = script[1:]
			continue
		}
		cur.WriteString(script[:n])
		script = script[n:]
	}
	if rest := strings.TrimSpace(cur.String()); rest != "" {
		out = append(out, rest)
	}
	return out
}

func TestMigrationFilesSuitWrangler(t *testing.T) {
	ms := sql.Migrations()
	if len(ms) == 0 {
		t.Fatal("no migrations")
	}
	comment := regexp.MustCompile(`--[^\n]*`)
	for i, m := range ms {
		if want := fmt.Sprintf("%04d_", i+1); !strings.HasPrefix(m.Name, want) {
			t.Errorf("%s: want the prefix %s", m.Name, want)
		}
		if strings.Contains(m.SQL, "\r") {
			t.Errorf("%s: has CR", m.Name)
		}
		if len(m.SQL) > 100_000 {
			t.Errorf("%s: %d bytes, D1 takes 100,000", m.Name, len(m.SQL))
		}
		for _, c := range comment.FindAllString(m.SQL, -1) {
			if strings.ContainsAny(c, ";'\"`$") || regexp.MustCompile(`(?i)\b(begin|case|end)\b`).MatchString(c) {
				t.Errorf("%s: a splitter could trip over the comment %q", m.Name, c)
			}
		}
		code := comment.ReplaceAllString(m.SQL, "")
		for _, w := range regexp.MustCompile(`(?i)\b(begin|case|end)\b`).FindAllString(code, -1) {
			if w != "BEGIN" && w != "END" {
				t.Errorf("%s: %q: want BEGIN and END in upper case and no CASE", m.Name, w)
			}
		}
		if regexp.MustCompile(`(?i)BEGIN\s+TRANSACTION|COMMIT|PRAGMA`).MatchString(code) {
			t.Errorf("%s: has a transaction or a pragma of its own", m.Name)
		}
	}
}

func TestMigrationsWholeSplitAndAgain(t *testing.T) {
	const schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
	whole := migrated(t)
	want := rows(t, whole, schema)

	strip := func(rs []string) []string { // comments do not count
		for i, r := range rs {
			rs[i] = strings.Join(strings.Fields(regexp.MustCompile(`--[^\n]*`).ReplaceAllString(r, "")), " ")
		}
		return rs
	}

	apart := memory(t)
	for _, m := range sql.Migrations() {
		stmts := sql.Statements(m.SQL)
		for _, s := range stmts {
			if err := sqlitex.ExecuteTransient(apart, s, nil); err != nil {
				t.Fatalf("%s: %v in\n%s", m.Name, err, s)
			}
		}
		// A naive splitter finds the same statements.
		if naive := splitNaively(m.SQL); !slices.Equal(strip(slices.Clone(stmts)), strip(naive)) {
			t.Errorf("%s: the statements are\n%s\nsplit naively\n%s", m.Name, strings.Join(stmts, "\n;\n"), strings.Join(naive, "\n;\n"))
		}
	}
	if got := rows(t, apart, schema); !slices.Equal(strip(got), strip(slices.Clone(want))) {
		t.Errorf("split, the schema is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	exec(t, whole, "INSERT INTO points (name) VALUES ('a'); INSERT INTO timeseries VALUES (1, 5, 1.5, 192, 0)")
	id := rows(t, whole, "SELECT source_id FROM archive_source")
	for _, m := range sql.Migrations() {
		exec(t, whole, m.SQL)
	}
	if got := rows(t, whole, schema); !slices.Equal(strip(got), strip(want)) {
		t.Errorf("applied again, the schema is\n%s", strings.Join(got, "\n"))
	}
	if got := rows(t, whole, "SELECT source_id FROM archive_source"); len(got) != 1 || len(got[0]) != 32 || !slices.Equal(got, id) {
		t.Errorf("source_id %v, was %v", got, id)
	}
	if got := rows(t, whole, "SELECT count(*) FROM timeseries JOIN points ON id = point_id"); got[0] != "1" {
		t.Errorf("applied again, rows were lost")
	}
}

func TestLedgerObjectsExist(t *testing.T) {
	c := migrated(t)
	for _, name := range sql.LedgerObjects {
		if got := rows(t, c, "SELECT count(*) FROM sqlite_schema WHERE name = ?", name); got[0] != "1" {
			t.Errorf("%s is missing", name)
		}
	}
	if !slices.ContainsFunc(sql.Migrations(), func(m sql.Migration) bool { return m.Name == sql.LedgerMigration }) {
		t.Errorf("no migration %s", sql.LedgerMigration)
	}
}

// A table that has its key columns only gets, by AddColumns, what a fresh one has.
func TestAddColumns(t *testing.T) {
	keys := map[string]string{
		"points":        "id INTEGER PRIMARY KEY, name TEXT",
		"timeseries":    "point_id INTEGER, timestamp INTEGER, PRIMARY KEY (point_id, timestamp)",
		"archive_state": "id INTEGER PRIMARY KEY",
	}
	fresh := migrated(t)
	for _, table := range sql.AdoptedTables() {
		old := memory(t)
		exec(t, old, fmt.Sprintf("CREATE TABLE %s (%s); INSERT INTO %[1]s DEFAULT VALUES", table, keys[table]))
		for _, s := range sql.AddColumns(table, []string{"ID", "Name"}) {
			exec(t, old, s)
		}
		columns := func(c *sqlite.Conn) map[string]string {
			m := map[string]string{}
			for _, r := range rows(t, c, "SELECT name, type FROM pragma_table_info(?)", table) {
				name, typ, _ := strings.Cut(r, "|")
				m[name] = typ
			}
			return m
		}
		got, want := columns(old), columns(fresh)
		if table == "archive_state" {
			delete(got, "id")
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: columns %v, a fresh one has %v", table, got, want)
		}
		if again := sql.AddColumns(table, slices.Collect(maps.Keys(got))); again != nil {
			t.Errorf("%s: still lacking: %v", table, again)
		}
	}
}

// Every index serves its query, and the query patterns of the architecture
// seek by primary key without any further index.
func TestQueryPlans(t *testing.T) {
	c := migrated(t)
	exec(t, c, `
		INSERT INTO points (name, site, system) WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 50)
		SELECT 'p' || n, 's' || n % 3, 'y' || n % 5 FROM i;
		INSERT INTO timeseries WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 20)
		SELECT id, n * 60000, n, 192, n = 7 FROM points CROSS JOIN i;`)
	const seek = "SEARCH timeseries USING PRIMARY KEY (point_id=?"
	tests := []struct {
		name, query string
		want        []string // parts of lines of the plan
	}{
		{"range of a point", `SELECT timestamp, value, quality FROM timeseries
			WHERE point_id = 123 AND timestamp BETWEEN 1704067200000 AND 1704153600000 ORDER BY timestamp`,
			[]string{seek + " AND timestamp>? AND timestamp<?)"}},
		{"newest first", "SELECT * FROM timeseries WHERE point_id = 5 ORDER BY timestamp DESC LIMIT 10",
			[]string{seek + ")"}},
		{"per-point statistics", `SELECT point_id, count(*), min(timestamp), max(timestamp) FROM timeseries
			WHERE point_id = 5 AND timestamp BETWEEN 1 AND 2`, []string{seek}},
		{"latest values of a system", `SELECT p.name, ts.value, ts.quality FROM points p
			INNER JOIN v_latest_values ts ON p.id = ts.point_id WHERE p.system = 'HVAC'`,
			[]string{"SEARCH p USING INDEX idx_points_hierarchy (system=?)", "SEARCH t USING PRIMARY KEY (point_id=? AND timestamp=?)",
				"SEARCH l USING PRIMARY KEY (point_id=? AND timestamp<?)"}},
		{"latest values of all", "SELECT * FROM v_latest_values",
			[]string{"SCAN p", "SEARCH t USING PRIMARY KEY (point_id=? AND timestamp=?)", "SEARCH l USING PRIMARY KEY (point_id=? AND timestamp<?)"}},
		{"alarms of an hour", `SELECT p.name, ts.timestamp, ts.value FROM timeseries ts
			INNER JOIN points p ON ts.point_id = p.id
			WHERE (ts.flags & 1) = 1 AND ts.timestamp > (unixepoch('now') * 1000 - 3600000)`,
			[]string{"SEARCH ts USING INDEX idx_timeseries_alarms (timestamp>?)", "SEARCH p USING INTEGER PRIMARY KEY"}},
		{"points of a system at a site", "SELECT id FROM points WHERE system = 'a' AND site = 'b' ORDER BY equipment",
			[]string{"idx_points_hierarchy (system=? AND site=?)"}},
	}
	for _, tt := range tests {
		plan := rows(t, c, "EXPLAIN QUERY PLAN "+tt.query)
		all := strings.Join(plan, "\n")
		for _, w := range tt.want {
			if !strings.Contains(all, w) {
				t.Errorf("%s: no %q in the plan\n%s", tt.name, w, all)
			}
		}
		if regexp.MustCompile(`SCAN (timeseries|ts|t|l)\b`).MatchString(all) || strings.Contains(all, "TEMP B-TREE") {
			t.Errorf("%s: scans or sorts\n%s", tt.name, all)
		}
	}
}

// The statements inside the triggers seek by primary key and never scan timeseries.
func TestTriggerPlans(t *testing.T) {
	c := migrated(t)
	for _, m := range sql.Migrations() {
		for _, s := range sql.Statements(m.SQL) {
			_, body, ok := strings.Cut(s, "\nBEGIN\n")
			if !ok {
				continue
			}
			body = strings.TrimSuffix(body, "END")
			body = regexp.MustCompile(`\b(NEW|OLD)\.\w+`).ReplaceAllString(body, "?1")
			for _, stmt := range sql.Statements(body) {
				plan := strings.Join(rows(t, c, "EXPLAIN QUERY PLAN "+stmt, 5), "\n")
				if regexp.MustCompile(`SCAN (timeseries|archive_marks|archive_trims|[motrx])\b`).MatchString(plan) || !strings.Contains(plan, "SEARCH") {
					t.Errorf("%s scans:\n%s\n%s", m.Name, stmt, plan)
				}
			}
		}
	}
}

// The monitoring query of the architecture runs on the log as it is kept here.
func TestArchiveStateMonitor(t *testing.T) {
	c := migrated(t)
	exec(t, c, `INSERT INTO archive_state (run, status, archived_at, records_archived) VALUES
		('a', 'done', unixepoch('now') * 1000, 10), ('b', 'failed', unixepoch('now') * 1000, 5), ('c', 'running', NULL, NULL)`)
	got := rows(t, c, `SELECT COUNT(*), SUM(records_archived), SUM(CASE WHEN status = 'failed' THEN 1 ELSE 0 END)
		FROM archive_state WHERE archived_at > (unixepoch('now') * 1000 - 86400000 * 7) GROUP BY DATE(archived_at / 1000, 'unixepoch')`)
	if !slices.Equal(got, []string{"2|15|1"}) {
		t.Errorf("got %v", got)
	}
}

// The trigger of the architecture, which deletes by age alone, is replaced.
func TestOldRetentionTriggerGoes(t *testing.T) {
	c := memory(t)
	exec(t, c, `CREATE TABLE timeseries (point_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, value REAL,
		quality INTEGER, flags INTEGER, PRIMARY KEY (point_id, timestamp)) WITHOUT ROWID;
		CREATE TRIGGER tr_timeseries_retention AFTER INSERT ON timeseries
		BEGIN
			DELETE FROM timeseries WHERE timestamp < (NEW.timestamp - 2592000000) AND ABS(RANDOM() % 1000) = 0;
		END;`)
	for _, m := range sql.Migrations() {
		exec(t, c, m.SQL)
	}
	got := rows(t, c, "SELECT sql FROM sqlite_schema WHERE name = 'tr_timeseries_retention'")
	if len(got) != 1 || !strings.Contains(got[0], "archive_marks") {
		t.Errorf("the trigger is %v", got)
	}
}
