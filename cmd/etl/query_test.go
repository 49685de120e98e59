package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"etl/internal/lake"
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

// TestIntoFile: a file is there whole or not at all, whatever was there before.
func TestIntoFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.csv")
	fill := func(text string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			if _, werr := io.WriteString(w, text); werr != nil {
				return werr
			}
			return err
		}
	}
	check := func(want string) {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
		if all, _ := os.ReadDir(dir); len(all) > 2 {
			t.Errorf("left behind: %v", all)
		}
	}
	late := errors.New("late")
	if err := intoFile("-o", path, fill("half", late)); !errors.Is(err, late) {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("half a file is there")
	}
	if err := intoFile("-o", path, fill("one", nil)); err != nil {
		t.Error(err)
	}
	check("one")
	if err := intoFile("-o", path, fill("half", late)); !errors.Is(err, late) {
		t.Error(err)
	}
	check("one")
	// A link stays one.
	link := filepath.Join(dir, "link.csv")
	if err := os.Symlink("a.csv", link); err != nil {
		t.Skip(err)
	}
	if err := intoFile("-o", link, fill("two", nil)); err != nil {
		t.Error(err)
	}
	check("two")
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v, %v", st, err)
	}
	if err := intoFile("-o", os.DevNull, fill("x", nil)); err != nil {
		t.Error(err)
	}
}

func TestWhatAQueryCost(t *testing.T) {
	st := lake.Stats{Rows: 1, Files: 1200, BytesFetched: 3 << 20, HotRows: 1, Plan: 5 * time.Millisecond, Fetch: 900 * time.Millisecond, Run: 300 * time.Millisecond, Total: 1250 * time.Millisecond}
	if got := costText(st); got != "(1 row, 1.25 s; 1,200 files, 3.0 MiB fetched; 1 hot row; plan 0.01 s, catalog 0.00 s, fetch 0.90 s, extract 0.00 s, run 0.30 s)" {
		t.Error(got)
	}
	if got := costText(lake.Stats{Rows: 2}); got != "(2 rows, 0.00 s)" {
		t.Error(got)
	}
	// Without a terminal what is slow is logged, and only that.
	for total, want := range map[time.Duration]bool{2 * time.Second: true, time.Second: false} {
		var b bytes.Buffer
		st.Total = total
		(&answer{}).footer(&app{stderr: &b}, st, true)
		if want != strings.Contains(b.String(), `"fetch_ms":900`) || !want && b.Len() > 0 {
			t.Errorf("%v: %q", total, b.String())
		}
	}
	for want, ev := range map[string]lake.Event{
		"query: fetched 3 of 1,000 files, 1.0 MiB of 2.0 MiB":  lake.FetchProgress{Files: 3, NFiles: 1000, Bytes: 1 << 20, NBytes: 2 << 20},
		"query: read 10 of about 2,000 rows from the hot tier": lake.ExtractProgress{Rows: 10, NRows: 2000},
	} {
		if got := lakeProgress("query", ev); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
