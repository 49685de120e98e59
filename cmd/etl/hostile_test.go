package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/duckdb/duckdb-go/v2"

	"etl/internal/object"
	"etl/internal/utc"
	"etl/manifests"
)

// hostileNames are names of points that would do harm where they reach SQL, a
// path, a pattern, a template, or a terminal as they are.
var hostileNames = []string{
	"x'); DROP VIEW samples; --", `"; ATTACH 'evil.db'; --`, "$$; SELECT 1; $$", `\'; --`, "../../../../etc/passwd", "/etc/passwd", "C:\\x", "*", "[a-z]?{b}",
	"esc \x1b[2J\x1b]0;title\x07", "c1 \u009b2J", "line\nbreak\r\ttab", "nul\x00nul", "bad \xff\xfe utf", "\u202ereversed", "{point} :point $1 ?", strings.Repeat("long", 1<<12), "-- comment", "/* comment",
}

// clean fails the test if a terminal could take a part of the output for a command.
func wantClean(t *testing.T, what, out string) {
	t.Helper()
	for i, r := range out {
		if (r < ' ' && r != '\n') || r >= 0x7f && r < 0xa0 {
			t.Errorf("%s: %q reaches the terminal: …%.60q", what, r, out[max(0, i-30):])
			return
		}
	}
}

// TestHostileNames: whatever names the source and the manifests hold, the commands
// print them harmlessly, and the SQL of views reads the files that are meant.
func TestHostileNames(t *testing.T) {
	root := t.TempDir()
	db, store := filepath.Join(root, "d1.sqlite"), filepath.Join(root, "r2")
	env := map[string]string{"ETL_SOURCE": "sqlite:" + db, "ETL_STORE": "file:" + store, "ETL_CACHE": filepath.Join(root, "cache"), "ETL_NOW": "2024-02-10T02:00:00Z"}
	do := func(want int, args ...string) string {
		t.Helper()
		out, errs, code := runETL(t, env, append(args, "--quiet")...)
		if code != want {
			t.Fatalf("etl %v: exit %d, want %d: %.500s%.500s", args, code, want, out, errs)
		}
		what := "etl " + strings.Join(args[:min(2, len(args))], " ")
		wantClean(t, what, errs)
		if args[0] != "views" {
			wantClean(t, what, out)
		}
		return out
	}
	do(0, "migrate")
	var inserts []string
	for i, name := range hostileNames {
		lit := fmt.Sprintf("CAST(x'%x' AS TEXT)", name)
		inserts = append(inserts, fmt.Sprintf("INSERT INTO points (id, name, site, unit) VALUES (%d, %s, %s, %s)", i+1, lit, lit, lit),
			fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp, value) VALUES (%d, unixepoch('2024-02-08')*1000, %d), (%d, unixepoch('2024-02-08')*1000+1, 'x')", i+1, i, i+1))
	}
	inserts = append(inserts, "INSERT INTO point_groups SELECT name, id FROM points")
	if err := runSQL(db, inserts, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	do(0, "archive", "--dry-run")
	do(0, "archive")
	if out := do(0, "verify", "--deep", "--against-source"); !strings.Contains(out, "whole: no findings") {
		t.Error(out)
	}
	all := func() {
		t.Helper()
		do(0, "points")
		do(0, "rejects")
		do(0, "points", "--json")
		do(0, "rejects", "--json")
		do(0, "query", "SELECT * FROM points", "--format", "table")
		do(0, "query", "SELECT point_name, value FROM samples", "--format", "markdown")
		do(0, "query", "--explain", "SELECT * FROM samples")
	}
	all()
	months := filepath.Join(store, "timeseries", "2024", "02")
	if files, err := os.ReadDir(months); err != nil || len(files) != len(hostileNames) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 7 { // nothing beside the database, the store, the cache
		t.Errorf("%v, %v", entries, err)
	}

	// The catalog gives the names to an empty database, and nothing else comes of them.
	again := "sqlite:" + filepath.Join(root, "again.sqlite")
	do(0, "migrate", "--source", again)
	do(0, "restore", "--source", again, "--month", "2024-02")
	do(0, "restore", "--month", "2024-02")
	do(0, "verify", "--deep", "--against-source", "--source", again)
	do(0, "restore", "--month", "2024-02", "--to-file", filepath.Join(root, "slice.sqlite"))
	do(0, "replicate", "--to", "file:"+filepath.Join(root, "copy"))
	do(0, "repair", "--dry-run")

	// Now the store is somebody else's: the names of files are as hostile.
	feb := utc.MonthOf(2024, 2)
	manifest := filepath.Join(store, string(manifests.KeyOf(feb)))
	data, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	man, err := manifests.Decode(feb, data)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"'); DROP VIEW samples; --", "*", "?", "[a-c]", `"quoted"`, "%s%n", "{a,b}", "a b", "$(touch x)", "ünï", "x--y"} {
		e := &man.Points[i]
		to := object.Key(manifests.DirOf(feb) + name + ".parquet")
		if err := os.Rename(filepath.Join(store, string(e.Path)), filepath.Join(store, string(to))); err != nil {
			t.Fatal(err)
		}
		e.Path = to
	}
	man.Commit = "x\n; DROP VIEW samples; --"
	if err := os.WriteFile(manifest, manifests.Encode(man), 0o644); err != nil {
		t.Fatal(err)
	}
	do(0, "verify", "--deep", "--against-source")
	all()
	const q = "SELECT point_id, value FROM samples ORDER BY 1"
	want := do(0, "query", q, "--tier", "cold", "--format", "csv")
	views := do(0, "views")
	c, err := duckdb.NewConnector("", nil)
	if err != nil {
		t.Fatal(err)
	}
	p := sql.OpenDB(c)
	defer p.Close()
	if _, err := p.ExecContext(context.Background(), views); err != nil {
		t.Fatalf("%v\n%.2000s", err, views)
	}
	rows, err := p.Query(q)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	got := "point_id,value\n"
	for rows.Next() {
		var id int
		var v float64
		if err := rows.Scan(&id, &v); err != nil {
			t.Fatal(err)
		}
		got += fmt.Sprintf("%d,%.1f\n", id, v)
	}
	if err := rows.Err(); err != nil || got != want || strings.Count(got, "\n") != 1+len(hostileNames) {
		t.Errorf("views: %v\n%s\netl query:\n%s", err, got, want)
	}
	// Where DuckDB knows no way to say that a name is no pattern, views refuses.
	v := &coldViews{groups: []fileGroup{{paths: []string{string(man.Points[1].Path)}}}}
	if err := v.check(location{prefix: "s3://b/"}); err == nil {
		t.Error("a pattern passes for a name")
	}
	// Damage is named harmlessly too.
	if err := os.WriteFile(filepath.Join(store, string(man.Points[0].Path)), []byte("PAR1"), 0o644); err != nil {
		t.Fatal(err)
	}
	do(4, "verify", "--deep", "--against-source")
	do(4, "query", "SELECT * FROM samples")
	// A manifest that leads elsewhere is refused by each command.
	refused := 0
	entries := slices.Clone(man.Points)
	for _, path := range []string{"../../../../etc/passwd", "s3://other/x.parquet", "timeseries/2024/01/x.parquet", "timeseries/2024/02/\x1b[2J.parquet"} {
		man.Points[0].Path = object.Key(path)
		if err := os.WriteFile(manifest, manifests.Encode(man), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"verify"}, {"views"}, {"points"}, {"query", "SELECT * FROM samples"}, {"archive"}, {"backfill", "--month", "2024-02"}, {"rearchive", "--day", "2024-02-08"},
			{"replicate", "--to", "file:" + filepath.Join(root, "copy1")}, {"restore", "--month", "2024-02"}, {"restore", "--month", "2024-02", "--to-file", filepath.Join(root, "slice2.sqlite")}, {"prune", "--older-than", "1d", "--yes"}} {
			refused++
			if out := do(4, args...); strings.Contains(out, "root:") {
				t.Errorf("%v shows another file", args)
			}
		}
		if out := do(0, "repair", "--dry-run"); !strings.Contains(out, "_manifests/2024-02.json") { // it is written anew from the files
			t.Errorf("repair: %s", out)
		}
	}
	// The file of a point, which is right in itself, is given to another one.
	for i := range man.Points {
		man.Points[i] = entries[i]
	}
	man.Points[2].Path, man.Points[3].Path = entries[3].Path, entries[2].Path
	if err := os.WriteFile(manifest, manifests.Encode(man), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"verify", "--deep"}, {"query", "SELECT * FROM samples"}, {"replicate", "--to", "file:" + filepath.Join(root, "copy2")}, {"restore", "--month", "2024-02", "--overwrite"}} {
		refused++
		do(4, args...)
	}
	// And the catalog: what is no catalog is named, and names in one are only names.
	catalog := filepath.Join(store, string(manifests.PointsKey))
	for _, text := range []string{
		`{"format":"etl-points","version":1,"points":[{"id":1,"name":"a"},{"id":1,"name":"b"}]}`,
		`{"format":"etl-points","version":1,"points":[{"id":4294967297,"name":"a"}]}`,
		`{"format":"etl-points","version":1,"points":` + strings.Repeat("[", 100_000),
		`{"format":"\u001b[2J","version":1,"points":[]}`, "\x1b[2J",
	} {
		if err := os.WriteFile(catalog, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"archive"}, {"replicate", "--to", "file:" + filepath.Join(root, "copy3")}, {"restore", "--month", "2024-02"}} {
			refused++
			do(4, args...)
		}
	}
	for _, rejects := range []string{"undated/x\x1b[2J.jsonl", "2024-02/'; DROP TABLE points; --.jsonl", "2024-02/" + strings.Repeat("0", 64) + ".jsonl"} {
		name := filepath.Join(store, "_rejects", rejects)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(`{"point_id":1,"timestamp":"\u001b[2J","value":{"real":"\u001b"},"quality":1,"flags":1,"reason":"<script>\u009b"}`+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, _, code := runETL(t, env, "rejects")
	if code != 3 && code != 4 {
		t.Errorf("rejects that are not what their names say: exit %d", code)
	}
	do(code, "rejects")
	do(code, "rejects", "--json")
	for _, name := range []string{"copy1", "copy2", "copy3"} { // nothing of it was copied
		_ = filepath.WalkDir(filepath.Join(root, name), func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.Contains(path, "passwd") {
				t.Errorf("%s was written", path)
			}
			return nil
		})
	}
	t.Logf("reliability: hostile manifests and catalogs, by command: %d runs refused", refused)
}
