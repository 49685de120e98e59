package lake

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"etl/internal/fault"
)

// small is a lake over one point with an old month that is archived and days that are hot.
func small(t *testing.T) *world {
	w := newWorld(t)
	a := w.point("A", "HVAC")
	w.fill(a, day("2024-02-01"), day("2024-03-11"), 4)
	w.archive(day("2024-02-01"), day("2024-03-01"))
	return w
}

// TestLakeText: whatever ends a statement, and whatever it selects, it can be run in all ways.
func TestLakeText(t *testing.T) {
	w := small(t)
	for _, text := range []string{
		"SELECT 1 AS x", "SELECT 1 AS x;", "SELECT 1 AS x -- one", "SELECT 1 AS x; -- one\n", "/* a */ SELECT 1 AS x /* b */;\n\n", "FROM (VALUES (1)) t(x)", "VALUES (1)",
		"WITH a AS (SELECT 1 AS x) SELECT x FROM a", "SELECT 1 AS x UNION ALL SELECT 1 WHERE false ORDER BY x LIMIT 3", "SELECT 1 AS \"a b\"", "SELECT 1 AS \"x\"\"y'\"",
	} {
		got, _, err := ask(t, w.lake, Query{SQL: text})
		if err != nil || !slices.Equal(got, []string{"1"}) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
		var b bytes.Buffer
		if _, err := w.lake.Write(t.Context(), Query{SQL: text}, &b, CSV); err != nil || !strings.HasSuffix(b.String(), "\n1\n") {
			t.Errorf("%q as CSV: %q, %v", text, b.String(), err)
		}
	}
	r, err := w.lake.Rows(t.Context(), Query{SQL: "SELECT 1 AS x, 'a' AS x, NULL AS y, [1, 2] AS z, {'a': 1.5} AS s, INTERVAL 1 DAY AS i, DATE '2024-02-29' AS d, 1.50::DECIMAL(5,2) AS m, '\\x00'::BLOB AS b"}, 10)
	if err != nil || line(r.Cells[0]) != `1 | a | NULL | [1, 2] | {'a': 1.5} | 1 day | 2024-02-29 | 1.50 | \x00` {
		t.Errorf("types: %+v, %v", r, err)
	}
	if r.Columns[0] != (Column{"x", "INTEGER", true}) || r.Columns[1].Name != "x_1" || r.Columns[7].Type != "DECIMAL(5,2)" || !r.Columns[7].Numeric {
		t.Errorf("columns: %+v", r.Columns)
	}
	for _, text := range []string{"DESCRIBE samples", "SHOW TABLES", "SUMMARIZE SELECT 1 AS x", "DESCRIBE SELECT * FROM samples"} {
		if _, _, err := ask(t, w.lake, Query{SQL: text}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		for _, f := range []Format{CSV, JSON, JSONL, Parquet} {
			var b bytes.Buffer
			if stats, err := w.lake.Write(t.Context(), Query{SQL: text}, &b, f); err != nil || stats.Rows == 0 || b.Len() == 0 {
				t.Errorf("%s as format %d: %d rows, %d bytes, %v", text, f, stats.Rows, b.Len(), err)
			}
		}
	}
}

// TestLakeErrorLine: an error shows the line that was asked, however the statement was run.
func TestLakeErrorLine(t *testing.T) {
	w := small(t)
	for text, want := range map[string]string{
		"SELECT CAST('x' AS INT) AS a":                           "LINE 1: SELECT CAST('x' AS INT) AS a\n               ^",
		"SELECT 1,\n CAST('x' AS INT) AS a":                      "LINE 2:  CAST('x' AS INT) AS a\n         ^",
		strings.Repeat("\n", 8) + "SELECT CAST('x' AS INT) AS a": "LINE 9: SELECT CAST('x' AS INT) AS a\n               ^",
		"SELECT nope FROM samples":                               "LINE 1: SELECT nope FROM samples\n               ^",
		"SELECT CAST(tier AS INT) FROM samples":                  "LINE 1: SELECT CAST(tier AS INT) FROM samples\n               ^",
	} {
		_, rows := w.lake.Rows(t.Context(), Query{SQL: text}, 10)
		_, written := w.lake.Write(t.Context(), Query{SQL: text}, io.Discard, CSV)
		_, made := w.lake.Exec(t.Context(), "CREATE TEMP TABLE t AS "+strings.TrimLeft(text, "\n"))
		for how, err := range map[string]error{"rows": rows, "written": written, "made": made} {
			if how == "made" && strings.HasPrefix(text, "\n") {
				continue
			}
			if err == nil || !fault.Is(err, fault.Usage) || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%q, %s: %v", text, how, err)
			}
		}
	}
}

// TestLakeOrder: a result keeps the order that the statement asks for, and its limit.
func TestLakeOrder(t *testing.T) {
	w := small(t)
	w.fill(2, day("2024-03-01"), day("2024-03-10"), 2000)
	r, err := w.lake.Rows(t.Context(), Query{SQL: "SELECT ts FROM samples ORDER BY ts DESC"}, 5000)
	if err != nil || len(r.Cells) != 5000 || !r.More {
		t.Fatalf("%d rows, more %v, %v", len(r.Cells), r.More, err)
	}
	if !slices.IsSortedFunc(r.Cells, func(a, b []sql.NullString) int { return strings.Compare(b[0].String, a[0].String) }) {
		t.Error("out of order")
	}
	var b bytes.Buffer
	s, err := w.lake.Write(t.Context(), Query{SQL: "SELECT timestamp AS t FROM samples ORDER BY ts"}, &b, JSONL)
	if err != nil || s.Rows != int64(len(w.truth)) {
		t.Fatalf("%d rows of %d, %v", s.Rows, len(w.truth), err)
	}
	last := int64(0)
	for l := range strings.Lines(b.String()) {
		var row struct{ T int64 }
		if err := json.Unmarshal([]byte(l), &row); err != nil || row.T < last {
			t.Fatalf("%q after %d: %v", l, last, err)
		}
		last = row.T
	}
}

func TestLakeFormats(t *testing.T) {
	w := newWorld(t)
	w.point("A, \"x\"\nü", "HVAC")
	w.put(1, day("2024-03-01").Start(), row{1.0 / 3, 192, 0})
	w.put(1, day("2024-03-01").Start()+1, row{null, 0, 1})
	write := func(f Format) string {
		t.Helper()
		var b bytes.Buffer
		if _, err := w.lake.Write(t.Context(), Query{SQL: "SELECT point_name, ts, value, tier FROM samples ORDER BY ts"}, &b, f); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if got, want := write(CSV), "point_name,ts,value,tier\n\"A, \"\"x\"\"\nü\",2024-03-01 00:00:00,0.3333333333333333,hot\n\"A, \"\"x\"\"\nü\",2024-03-01 00:00:00.001,,hot\n"; got != want {
		t.Errorf("CSV: %q, want %q", got, want)
	}
	var rows []struct {
		Name  string `json:"point_name"`
		TS    string
		Value *float64
	}
	if err := json.Unmarshal([]byte(write(JSON)), &rows); err != nil || len(rows) != 2 || rows[0].Name != "A, \"x\"\nü" || *rows[0].Value != 1.0/3 || rows[1].Value != nil || rows[0].TS != "2024-03-01 00:00:00" {
		t.Errorf("JSON: %+v, %v", rows, err)
	}
	if p := write(Parquet); !strings.HasPrefix(p, "PAR1") || !strings.HasSuffix(p, "PAR1") {
		t.Errorf("Parquet: %d bytes, %.4q", len(p), p)
	}
	var b bytes.Buffer
	if _, err := w.lake.Write(t.Context(), Query{SQL: "SELECT value FROM samples WHERE false"}, &b, JSON); err != nil || !json.Valid(b.Bytes()) {
		t.Errorf("nothing as JSON: %q, %v", b.String(), err)
	}
}

// failing fails after some bytes, as a closed pipe does.
type failing struct{ left int }

var errClosed = errors.New("closed")

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errClosed
	}
	return len(p), nil
}

// TestLakeStops: a reader that goes away and a cancelled context end a query at
// once, and the next one is answered.
func TestLakeStops(t *testing.T) {
	w := small(t)
	endless := Query{SQL: "SELECT count(*) FROM range(100000000000) a"}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := w.lake.Rows(ctx, endless, 1); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 5*time.Second {
		t.Errorf("cancelled: %v after %s", err, time.Since(begin))
	}
	if _, err := w.lake.Write(t.Context(), Query{SQL: "SELECT * FROM range(100000000000)"}, &failing{1 << 20}, CSV); !errors.Is(err, errClosed) {
		t.Errorf("a reader that went away: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := w.lake.Write(ctx, Query{SQL: "SELECT * FROM range(100000000000)"}, io.Discard, Parquet); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled while writing: %v", err)
	}
	if got, _, err := ask(t, w.lake, Query{SQL: "SELECT count(*) FROM samples"}); err != nil || got[0] != fmt.Sprint(len(w.truth)) {
		t.Errorf("after that: %q, %v", got, err)
	}
}

func TestLakeErrors(t *testing.T) {
	w := small(t)
	for text, want := range map[string]struct {
		kind fault.Kind
		says string
	}{
		"SELEC 1":                  {fault.Usage, "syntax error"},
		"SELECT nope FROM samples": {fault.Usage, "nope"},
		"SELECT * FROM sample":     {fault.Usage, "sample"},
		"SELECT 1; SELECT 2":       {fault.Usage, "one select"},
		"SELECT CAST(point_name AS INTEGER) FROM samples": {fault.Usage, "Could not convert"},
		"SELECT * FROM archive_state":                     {-1, ""},
	} {
		_, _, err := ask(t, w.lake, Query{SQL: text})
		if want.kind < 0 {
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if !fault.Is(err, want.kind) || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(want.says)) || strings.Contains(err.Error(), "_stub") {
			t.Errorf("%s: %v (%s), want %s and %q", text, err, fault.KindOf(err), want.kind, want.says)
		}
	}
	o := w.options()
	o.Source, o.Ledger = nil, nil
	cold := w.open(o)
	if _, _, err := ask(t, cold, Query{SQL: "SELECT * FROM archive_state"}); !fault.Is(err, fault.Usage) {
		t.Errorf("the log of runs without a source: %v", err)
	}
	if got, _, err := ask(t, cold, Query{SQL: "SELECT count(*), any_value(tier) FROM samples"}); err != nil || got[0] != "116 | cold" {
		t.Errorf("the cold tier alone: %q, %v", got, err)
	}
	o = w.options()
	o.Store = nil
	hot := w.open(o)
	if got, _, err := ask(t, hot, Query{SQL: "SELECT count(*), any_value(tier) FROM samples"}); err != nil || got[0] != "156 | hot" {
		t.Errorf("the hot tier alone: %q, %v", got, err)
	}
	if got, _, err := ask(t, hot, Query{SQL: "SELECT (SELECT count(*) FROM archive_files), (SELECT count(*) FROM archive_days)"}); err != nil || got[0] != "0 | 0" {
		t.Errorf("the archive without a store: %q, %v", got, err)
	}
}

// TestLakeArchiveViews compares archive_files and archive_days with the manifests.
func TestLakeArchiveViews(t *testing.T) {
	w := small(t)
	w.point("B", "ELEC")
	w.archive(day("2024-02-03"), day("2024-02-05"), "B")
	got, _, err := ask(t, w.lake, Query{SQL: "SELECT point_name, month, path, samples, first_ts, last_ts, length(sha256) AS n FROM archive_files"})
	if want := []string{"A | 2024-02 | timeseries/2024/02/a.parquet | 116 | 2024-02-01 00:00:00 | 2024-02-29 18:00:00 | 64"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("archive_files: %q, %v", got, err)
	}
	got, _, err = ask(t, w.lake, Query{SQL: `SELECT point_name, count(*) AS n, count(samples) AS archived, sum(samples) AS s, min(day) FILTER (samples IS NOT NULL) AS a, max(day) AS b
		FROM archive_days GROUP BY ALL`})
	if want := []string{"A | 29 | 29 | 116 | 2024-02-01 | 2024-02-29", "B | 29 | 2 | 0 | 2024-02-03 | 2024-02-29"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("archive_days: %q, %v", got, err)
	}
	got, _, err = ask(t, w.lake, Query{SQL: "SELECT command, status, first_day, last_day, records_archived FROM archive_state"})
	if want := []string{"backfill | done | 2024-02-01 | 2024-02-29 | 116", "backfill | done | 2024-02-03 | 2024-02-04 | 0"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("archive_state: %q, %v", got, err)
	}
}

// TestLakeSession: temporary tables and views, also over samples, are planned like anything else.
func TestLakeSession(t *testing.T) {
	w := small(t)
	exec := func(text, want string) {
		t.Helper()
		if what, err := w.lake.Exec(t.Context(), text); err != nil || what != want {
			t.Errorf("%s: %q, %v", text, what, err)
		}
	}
	exec("CREATE TEMP VIEW march AS SELECT * FROM samples WHERE ts >= '2024-03-01';", "made temporary view march")
	exec("create or replace temporary table Feb as from samples where ts < '2024-03-01'", "made temporary table feb")
	check := func(text string, files int, want string) {
		t.Helper()
		got, s, err := ask(t, w.lake, Query{SQL: text})
		if err != nil || got[0] != want || s.Files != files {
			t.Errorf("%s: %q from %d files, %v; want %q from %d", text, got, s.Files, err, want, files)
		}
	}
	check("SELECT count(*) FROM march", 0, "40")
	check("SELECT count(*) FROM feb", 0, "116")
	check("SELECT count(*) FROM samples s WHERE ts IN (SELECT ts FROM feb WHERE ts > '2024-02-28')", 1, "7")
	check("SELECT count(*) FROM (FROM march UNION ALL FROM feb)", 0, "156")
	tables, err := w.lake.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tab := range tables {
		names = append(names, tab.Kind+" "+tab.Name)
	}
	if want := []string{"view archive_days", "view archive_files", "view archive_state", "view latest", "view point_groups", "view points", "view samples", "view timeseries",
		"view v_latest_values", "temporary view march", "temporary table feb"}; !slices.Equal(names, want) {
		t.Errorf("tables: %q", names)
	}
	exec("DROP VIEW march", "dropped view march")
	exec("DROP TABLE IF EXISTS nothing", "dropped table nothing")
	for _, text := range []string{"DROP VIEW samples", "CREATE TEMP TABLE samples AS SELECT 1", "CREATE TABLE x AS SELECT 1", "CREATE TEMP TABLE x AS SELECT 1; DROP TABLE feb",
		"CREATE TEMP TABLE x AS DELETE FROM feb", "DROP VIEW march", "SET threads = 1", "CREATE TEMP VIEW v AS SELECT * FROM read_csv('/etc/passwd')", "INSERT INTO feb SELECT * FROM feb",
		"CREATE TEMP TABLE lake_x AS SELECT 1", "CREATE TEMP MACRO f() AS 1", "DROP TABLE lake.hot"} {
		if what, err := w.lake.Exec(t.Context(), text); !fault.Is(err, fault.Usage) {
			t.Errorf("%s: %q, %v", text, what, err)
		}
	}
	check("SELECT count(*) FROM feb", 0, "116")
}

// TestLakeSandbox goes around the gate: the instance itself reaches nothing
// outside the session's folder, and can not be let out.
func TestLakeSandbox(t *testing.T) {
	w := small(t)
	if _, _, err := ask(t, w.lake, Query{SQL: "SELECT count(*) FROM samples"}); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(outside, []byte("a\n1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_text(" + quote(outside) + ")", "SELECT * FROM glob('/etc/*')", "FROM " + quote(outside+".csv"),
		"SELECT * FROM read_parquet(" + quote(w.root+"/timeseries/2024/02/a.parquet") + ")", "SELECT * FROM read_text(" + quote(w.lake.pins.Dir()+"/../../../x") + ")",
		"COPY (SELECT 1) TO " + quote(outside), "COPY (SELECT 1) TO " + quote(outside+"-new"), "EXPORT DATABASE " + quote(outside+"-db"),
		"ATTACH " + quote(outside+".db"), "ATTACH 'https://example.com/x.db'", "INSTALL httpfs", "LOAD httpfs", "LOAD " + quote(outside),
		"SET enable_external_access = true", "SET allowed_directories = ['/']", "SET allowed_paths = ['/etc/passwd']", "SET lock_configuration = false", "RESET enable_external_access",
		"SET temp_directory = '/'", "PRAGMA temp_directory = '/'", "SET autoload_known_extensions = true", "SET memory_limit = '1TB'", "SET TimeZone = 'Europe/Berlin'",
	} {
		if _, err := w.lake.conn.ExecContext(t.Context(), text); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
	if data, err := os.ReadFile(outside); err != nil || string(data) != "a\n1\n" {
		t.Errorf("a file outside became %q, %v", data, err)
	}
	// What is fetched can not be written over, and so not be answered from.
	files, err := filepath.Glob(w.lake.pins.Dir() + "/*.parquet")
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, f := range files {
		before, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range []string{"SELECT * FROM samples", "SELECT 1"} {
			_, err := w.lake.Write(t.Context(), Query{SQL: "COPY (" + q + ") TO " + quote(f)}, io.Discard, CSV)
			if !fault.Is(err, fault.Usage) {
				t.Errorf("COPY over %s: %v", f, err)
			}
		}
		if after, err := os.ReadFile(f); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s has changed, %v", f, err)
		}
	}
}
