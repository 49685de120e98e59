package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duckdb/duckdb-go/v2"
)

// etl runs the program in this process and returns what it prints.
func runETL(t *testing.T, env map[string]string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx := t.Context()
	code = run(ctx, ctx, args, func(k string) string { return env[k] }, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), code
}

// TestViews: a DuckDB that knows nothing of etl answers from what `etl views`
// prints as etl does, also where the folder's name is odd, and rows of days that
// the manifests do not count stay out.
func TestViews(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's [a] 'fol*der'?")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	db := filepath.Join(dir, "d1.sqlite")
	env := map[string]string{"ETL_SOURCE": "sqlite:" + db, "ETL_STORE": "file:" + filepath.Join(dir, "r2"),
		"ETL_CACHE": filepath.Join(t.TempDir(), "cache"), "ETL_NOW": "2024-03-05T02:00:00Z"}
	do := func(args ...string) string {
		t.Helper()
		out, errs, code := runETL(t, env, append(args, "--quiet")...)
		if code != 0 {
			t.Fatalf("etl %v: exit %d: %s", args, code, errs)
		}
		return out
	}
	do("migrate")
	if err := runSQL(db, []string{
		`INSERT INTO points (name, site, system, interval_ms, max_value) VALUES ('A''s', 's', 'HVAC', 3600000, 100), ('b', NULL, NULL, 0, NULL), ('none', NULL, NULL, NULL, NULL)`,
		`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i < 24*60-1)
		 INSERT INTO timeseries (point_id, timestamp, value, quality, flags)
		 SELECT p.id, unixepoch('2024-01-05')*1000 + i*3600000 + p.id, CASE WHEN i % 7 = 0 THEN NULL ELSE p.id + i/10.0 END, 192 - i % 2, i % 3 FROM n, points p WHERE p.id < 3`,
		`INSERT INTO point_groups VALUES ('g', 1)`,
	}, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	do("backfill", "--from", "2024-01-05", "--to", "2024-02-03")
	do("backfill", "--from", "2024-02-10", "--to", "2024-02-20") // days between are not archived

	plain := func(views string) *sql.DB {
		t.Helper()
		c, err := duckdb.NewConnector("", nil)
		if err != nil {
			t.Fatal(err)
		}
		p := sql.OpenDB(c)
		t.Cleanup(func() { p.Close() })
		if _, err := p.ExecContext(context.Background(), "SET TimeZone = 'America/New_York';\n"+views); err != nil {
			t.Fatalf("%v\n%s", err, views)
		}
		return p
	}
	rows := func(p *sql.DB, q string) string {
		t.Helper()
		rs, err := p.Query("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM (" + q + ")")
		if err != nil {
			t.Fatal(err)
		}
		defer rs.Close()
		names, err := rs.Columns()
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		fmt.Fprintln(&b, strings.Join(names, ","))
		for rs.Next() {
			cells, into := make([]sql.NullString, len(names)), make([]any, len(names))
			for i := range cells {
				into[i] = &cells[i]
			}
			if err := rs.Scan(into...); err != nil {
				t.Fatal(err)
			}
			for i, c := range cells {
				if i > 0 {
					b.WriteByte(',')
				}
				b.WriteString(c.String)
			}
			b.WriteByte('\n')
		}
		if err := rs.Err(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}

	for _, test := range []struct {
		flags   []string
		samples string // the same selection in SQL
	}{
		{nil, "true"},
		{[]string{"--month", "2024-02"}, "ts >= '2024-02-01' AND ts < '2024-03-01'"},
		{[]string{"--from", "2024-01-30", "--to", "2024-02-12", "--points", "A*"}, "ts >= '2024-01-30' AND ts < '2024-02-12' AND point_name = 'A''s'"},
		{[]string{"--group", "g"}, "point_id = 1"},
		{[]string{"--month", "2023-12"}, "false"},
	} {
		views := do(append([]string{"views"}, test.flags...)...)
		p := plain(views)
		queries := map[string]string{
			"samples":    "SELECT * FROM samples WHERE " + test.samples + " ORDER BY point_id, ts",
			"timeseries": "SELECT t.* FROM timeseries t SEMI JOIN (SELECT * FROM samples WHERE " + test.samples + ") s ON t.point_id = s.point_id AND t.timestamp = s.timestamp ORDER BY ALL",
		}
		if test.flags == nil {
			queries["latest"] = "SELECT * FROM latest ORDER BY ALL"
			queries["points"] = "SELECT * EXCLUDE created_at FROM points ORDER BY ALL"
			queries["archive_days"] = "SELECT * FROM archive_days ORDER BY ALL"
			queries["archive_files"] = "SELECT * FROM archive_files ORDER BY ALL"
		}
		for name, q := range queries {
			got, want := rows(p, q), do("query", "--tier", "cold", "--format", "csv", "SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ("+q+")")
			if want = strings.ReplaceAll(want, `"`, ""); got != want {
				t.Errorf("views %v: %s:\n%.600s\netl:\n%.600s", test.flags, name, got, want)
			}
			if test.flags == nil && strings.Count(got, "\n") < 3 {
				t.Errorf("%s: nothing: %s", name, got)
			}
		}
		// The latest ones are those of the selection.
		got := rows(p, "SELECT point_id, max(ts) FROM samples GROUP BY 1 ORDER BY 1")
		if latest := rows(p, "SELECT point_id, ts FROM latest ORDER BY 1"); strings.Join(strings.Split(got, "\n")[1:], "\n") != strings.Join(strings.Split(latest, "\n")[1:], "\n") {
			t.Errorf("views %v: latest\n%s, of the samples\n%s", test.flags, latest, got)
		}
	}
}

// TestViewsSecrets: what a DuckDB needs to reach each kind of store.
func TestViewsSecrets(t *testing.T) {
	for store, want := range map[string]struct{ prefix, secret string }{
		"r2://archive/a/b":                {"r2://archive/a/b/", "TYPE r2,\n  KEY_ID 'ACCESS_KEY_ID', SECRET 'SECRET_ACCESS_KEY',  -- your own: reading is enough\n  ACCOUNT_ID 'ACCOUNT_ID', SCOPE 'r2://archive');"},
		"r2://archive?jurisdiction=eu":    {"s3://archive/", "REGION 'auto', ENDPOINT 'ACCOUNT_ID.eu.r2.cloudflarestorage.com', USE_SSL true, URL_STYLE 'path', SCOPE 's3://archive');"},
		"s3://b-1?endpoint=http://h:9000": {"s3://b-1/", "ENDPOINT 'h:9000', USE_SSL false, URL_STYLE 'path', SCOPE 's3://b-1');"},
		"s3://b-1?region=eu-central-1":    {"s3://b-1/", "REGION 'eu-central-1', URL_STYLE 'vhost', SCOPE 's3://b-1');"},
	} {
		l, err := (&places{store: store}).location()
		if err != nil || l.prefix != want.prefix || !strings.Contains(l.secret, want.secret) {
			t.Errorf("%s: %+v, %v", store, l, err)
		}
	}
	if _, err := (&places{store: "s3://b-1/a*b?region=x"}).location(); err == nil {
		t.Error("a prefix with a pattern passes")
	}
}
