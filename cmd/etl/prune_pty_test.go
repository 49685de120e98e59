//go:build unix

package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// On a terminal prune shows its plan and asks; only yes deletes.
func TestPruneAsks(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "d1.sqlite")
	env := []string{"ETL_SOURCE=sqlite:d1.sqlite", "ETL_STORE=file:r2", "ETL_NOW=2024-03-10T02:00:00Z"}
	etl := func(want string, args ...string) {
		t.Helper()
		x := startTerminal(t, dir, env, args...)
		x.expect(want)
		if err := x.cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	rows := func() string {
		t.Helper()
		var b bytes.Buffer
		if err := runSQL(db, []string{"SELECT count(*) FROM timeseries"}, &b); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(b.String())
	}
	etl("applied", "migrate")
	if err := runSQL(db, []string{"INSERT INTO points (name) VALUES ('a')", "INSERT INTO timeseries (point_id, timestamp, value) VALUES (1, unixepoch('2024-01-01')*1000, 1)"}, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	etl("1 files written", "backfill", "--day", "2024-01-01")
	for _, answer := range []string{"n", "", "yesterday"} {
		x := startTerminal(t, dir, env, "prune")
		x.expect("prune would delete up to 1 rows of 1 point-days")
		x.expect("Delete them from sqlite:d1.sqlite? [y/N] ")
		x.send(answer + "\n")
		x.expect("nothing was deleted")
		if err := x.cmd.Wait(); err == nil || rows() != "1" {
			t.Errorf("answer %q: %v, %s rows", answer, err, rows())
		}
	}
	x := startTerminal(t, dir, env, "prune")
	x.expect("[y/N] ")
	x.send("y\n")
	x.expect("prune: 1 rows of 1 point-days deleted")
	if err := x.cmd.Wait(); err != nil || rows() != "0" {
		t.Errorf("%v, %s rows", err, rows())
	}
}
