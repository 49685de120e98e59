package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	etlsql "etl/sql"
)

// TestNamedQueriesAreSelective: every named query runs on the engine, and what it
// can touch is read off its plan: each scan of samples and of latest that a point
// or a range could narrow is narrowed.
func TestNamedQueriesAreSelective(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "d1.sqlite")
	env := map[string]string{"ETL_SOURCE": "sqlite:" + db, "ETL_STORE": "file:" + filepath.Join(dir, "r2"),
		"ETL_CACHE": filepath.Join(dir, "cache"), "ETL_NOW": "2024-02-21T02:00:00Z"}
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
		`INSERT INTO points (name, interval_ms) VALUES ('Building1.a', 60000), ('c', 60000)`,
		`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i < 24*30-1)
		 INSERT INTO timeseries (point_id, timestamp, value) SELECT p.id, unixepoch('2024-01-22')*1000 + i*3600000, i FROM n, points p`,
	}, new(strings.Builder)); err != nil {
		t.Fatal(err)
	}
	do("archive")
	for _, q := range etlsql.Queries() {
		t.Run(q.Name, func(t *testing.T) {
			args := []string{"query", "@" + q.Name}
			narrowing := false
			for _, p := range q.Params {
				if p.Required {
					args = append(args, "--param", p.Name+"=Building1.a")
				}
				narrowing = narrowing || p.Name == "point" || p.Name == "from"
			}
			do(args...)
			var e struct {
				Planned bool
				Why     string
				Scans   []string
			}
			if err := json.Unmarshal([]byte(do(append(args, "--explain", "--json")...)), &e); err != nil {
				t.Fatal(err)
			}
			if !e.Planned {
				t.Fatalf("not planned: %s", e.Why)
			}
			for _, s := range e.Scans {
				if table, where, _ := strings.Cut(s, " WHERE "); narrowing && (table == "samples" || table == "latest") && (where == "TRUE" || where == "") {
					t.Errorf("not narrowed: %s", s)
				}
			}
			t.Log(e.Scans)
		})
	}
}
