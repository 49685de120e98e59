package sql_test

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"etl/sql"
)

func TestStatements(t *testing.T) {
	const trigger = "CREATE TRIGGER t AFTER INSERT ON x\nBEGIN\n  DELETE FROM y WHERE a = ';' OR b = CASE 1 WHEN 2 THEN 3 END;\n  SELECT 1; -- why; END;\nEND"
	for _, tt := range []struct {
		script string
		want   []string
	}{
		{"", nil},
		{" ;; -- nothing; here\n/* nor; here */ ;", nil},
		{"SELECT 1", []string{"SELECT 1"}},
		{"SELECT 1;", []string{"SELECT 1"}},
		{"-- why\nSELECT 1 ; /* and */ SELECT 2 -- two\n;\n", []string{"SELECT 1", "SELECT 2 -- two"}},
		{"CREATE TABLE x (a, -- a; b\n b /* ; */ )", []string{"CREATE TABLE x (a, -- a; b\n b /* ; */ )"}},
		{`SELECT 'a;''b;', "c;""d;", ` + "`e;`" + `, [f;]; SELECT 2`, []string{`SELECT 'a;''b;', "c;""d;", ` + "`e;`" + `, [f;]`, "SELECT 2"}},
		{"SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 2", []string{"SELECT CASE 1 WHEN 1 THEN 2 END", "SELECT 2"}},
		{trigger + ";\nSELECT 1", []string{trigger, "SELECT 1"}},
		{strings.ToLower(trigger) + " ; SELECT 1;", []string{strings.ToLower(trigger), "SELECT 1"}},
		{"CREATE TEMP TRIGGER t BEGIN SELECT 1; END; SELECT 2", []string{"CREATE TEMP TRIGGER t BEGIN SELECT 1; END", "SELECT 2"}},
		{"CREATE /* temp */ TEMPORARY TRIGGER t BEGIN SELECT 1; END; SELECT 2", []string{"CREATE /* temp */ TEMPORARY TRIGGER t BEGIN SELECT 1; END", "SELECT 2"}},
		{"CREATE TABLE trigger_x (a); SELECT 2", []string{"CREATE TABLE trigger_x (a)", "SELECT 2"}},
		{"CREATE TABLE x (trigger); SELECT 2", []string{"CREATE TABLE x (trigger)", "SELECT 2"}},
		{"DROP TRIGGER x; SELECT 2", []string{"DROP TRIGGER x", "SELECT 2"}},
		{"SELECT 'no end; SELECT 2;", []string{"SELECT 'no end; SELECT 2;"}},
		{"SELECT 1 /* no end; SELECT 2;", []string{"SELECT 1 /* no end; SELECT 2;"}},
		{"CREATE TRIGGER t BEGIN SELECT 1; SELECT 2;", []string{"CREATE TRIGGER t BEGIN SELECT 1; SELECT 2;"}},
	} {
		if got := sql.Statements(tt.script); !slices.Equal(got, tt.want) {
			t.Errorf("%q\n is cut into %q\nwant %q", tt.script, got, tt.want)
		}
	}
}

// SQLite itself says where a statement ends: it prepares the first one of a
// script and returns how much it did not read.
func TestStatementsAsSQLite(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	c := memory(t)
	exec(t, c, "CREATE TABLE x (a, b, \"c;d\")")
	all := []string{
		"SELECT 1", "select 'a;b', 'it''s; -- no'", `SELECT "c;d" FROM x`, "SELECT a AS [;] FROM x", "SELECT /* ; */ 2 -- ;\n, 3",
		"SELECT CASE WHEN 1 THEN 2 ELSE 3 END", "INSERT INTO x (a) VALUES (';')", "DELETE FROM x WHERE a = 1",
		"CREATE TRIGGER IF NOT EXISTS t AFTER INSERT ON x BEGIN DELETE FROM x WHERE b = ';'; END",
		"create temp trigger u after update of a on x when new.a > 1\nbegin\n select case when 1 then 2 end; -- end;\n delete from x; end",
		"CREATE TABLE IF NOT EXISTS z (begin_, endx, triggers)", "DROP TRIGGER IF EXISTS t",
	}
	gaps := []string{";", " ; ", ";\n-- a; comment\n", "; /* BEGIN; */ "}
	for range 300 {
		var script strings.Builder
		for range r.IntN(6) {
			script.WriteString(all[r.IntN(len(all))] + gaps[r.IntN(len(gaps))])
		}
		script.WriteString("SELECT 5;")
		var want []string
		for rest := script.String(); strings.Trim(rest, "; \n") != ""; {
			st, left, err := c.PrepareTransient(rest)
			if err != nil {
				t.Fatalf("%v in\n%s", err, rest)
			}
			st.Finalize()
			if left == len(rest) {
				t.Fatalf("SQLite reads nothing of\n%s", rest)
			}
			want = append(want, rest[:len(rest)-left])
			rest = rest[len(rest)-left:]
		}
		bare := func(ss []string) (out []string) { // comments in front and the semicolon may differ
			for _, s := range ss {
				if s = strings.TrimRight(regexp.MustCompile(`^(\s|;|--[^\n]*\n|/\*.*?\*/)*`).ReplaceAllString(s, ""), "; \n"); s != "" {
					out = append(out, s)
				}
			}
			return out
		}
		if got := sql.Statements(script.String()); !slices.Equal(bare(got), bare(want)) {
			t.Fatalf("%q\n is cut into %q\nSQLite reads %q", script.String(), got, want)
		}
	}
}

func FuzzStatements(f *testing.F) {
	for _, m := range sql.Migrations() {
		f.Add(m.SQL)
	}
	f.Add("CREATE TRIGGER a BEGIN b; END; 'c;''d' [e;] -- f;\n/* g; */ h")
	f.Fuzz(func(t *testing.T, script string) {
		rest := script
		for _, s := range sql.Statements(script) {
			_, after, ok := strings.Cut(rest, s)
			if !ok || s == "" {
				t.Fatalf("%q is not the next part of %q", s, rest)
			}
			rest = after
			if again := sql.Statements(s); len(again) != 1 || again[0] != s {
				t.Fatalf("%q is cut again into %q", s, again)
			}
		}
	})
}
