package cloudflaretest_test

import (
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"etl/internal/cloudflare"
	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/fault"
)

func start(t testing.TB, o cloudflaretest.Options) (*cloudflaretest.Server, *cloudflare.Database) {
	s := cloudflaretest.Start(t, filepath.Join(t.TempDir(), "d1.sqlite"), o)
	return s, s.Client(t).Database(cloudflaretest.Database)
}

// raw is the answer to statements.
func raw(t testing.TB, db *cloudflare.Database, a cloudflare.Access, stmts ...cloudflare.Statement) (string, error) {
	t.Helper()
	var body []byte
	err := db.Raw(context.Background(), a, stmts, func(r io.Reader) (err error) {
		body, err = io.ReadAll(r)
		return err
	})
	return string(body), err
}

// rows is what is between "rows": and the end of it, of each statement.
func rows(t testing.TB, db *cloudflare.Database, sql ...string) []string {
	t.Helper()
	var stmts []cloudflare.Statement
	for _, s := range sql {
		stmts = append(stmts, cloudflare.Statement{SQL: s})
	}
	body, err := raw(t, db, cloudflare.Once, stmts...)
	if err != nil {
		t.Fatalf("%q: %v", sql, err)
	}
	var answer struct {
		Result []struct {
			Results struct {
				Columns []string
				Rows    json.RawMessage
			}
			Success bool
		}
		Success bool
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || !answer.Success || len(answer.Result) != len(sql) {
		t.Fatalf("%q: %v: %.200s", sql, err, body)
	}
	var all []string
	for _, r := range answer.Result {
		all = append(all, string(r.Results.Rows))
	}
	return all
}

// What JSON makes of values, as Cloudflare's own runtime does.
func TestValues(t *testing.T) {
	_, db := start(t, cloudflaretest.Options{})
	for sql, want := range map[string]string{
		"5.0": "5", "-0.0": "0", "0.1": "0.1", "9e999": "null", "-9e999": "null", "NULL": "null", "9e999 - 9e999": "null",
		"9007199254740991": "9007199254740991", "9007199254740993": "9007199254740992", "9223372036854775807": "9223372036854776000",
		"-9007199254740993": "-9007199254740992",
		"1e20":              "100000000000000000000", "1e21": "1e+21", "1.5e300": "1.5e+300", "1e-6": "0.000001", "1.5e-7": "1.5e-7", "5e-324": "5e-324", "-2.5e-10": "-2.5e-10",
		"x'00ff10'": "[0,255,16]", "x''": "[]", "CAST(x'61ff62' AS TEXT)": "\"a\ufffdb\"",
		`'a"b\c' || char(1, 8, 10, 233, 8232, 60)`: "\"a\\\"b\\\\c\\u0001\\b\\n\u00e9\u2028<\"",
	} {
		if got := rows(t, db, "SELECT "+sql)[0]; got != "[["+want+"]]" {
			t.Errorf("%s is %s, want %s", sql, got, want)
		}
	}
	body, err := raw(t, db, cloudflare.Read, cloudflare.Statement{SQL: "SELECT typeof(?), typeof(?2), ?1", Params: []string{"1", "é"}})
	if err != nil || !strings.Contains(body, `"rows":[["text","text","1"]]`) {
		t.Errorf("parameters: %v %s", err, body)
	}
}

func TestRefusals(t *testing.T) {
	s, db := start(t, cloudflaretest.Options{MaxAnswer: 1 << 14})
	s.Exec(t, "CREATE TABLE t (a INTEGER PRIMARY KEY, b);"+strings.Repeat(" ", 200_000)+"INSERT INTO t VALUES (1, 2)")
	for sql, want := range map[string]string{
		"SELECT 1; SELECT 2":                                "several statements",
		"SELECT * FROM absent":                              ": no such table: absent: SQLITE_ERROR (7500)",
		"INSERT INTO t VALUES (1, 3)":                       "UNIQUE constraint failed",
		"BEGIN":                                             "not authorized",
		"ATTACH 'x' AS y":                                   "not authorized",
		"PRAGMA journal_mode = DELETE":                      "not authorized",
		"SELECT ?":                                          "parameter bindings",
		"SELECT '" + strings.Repeat("x", 100_000):           "SQLITE_TOOBIG",
		"SELECT length(zeroblob(2000001))":                  "too big",
		"SELECT 'x' LIKE '" + strings.Repeat("x", 51) + "'": "too complex",
		"SELECT " + strings.Repeat("1,", 100) + "1":         "too many columns",
	} {
		_, err := raw(t, db, cloudflare.Once, cloudflare.Statement{SQL: sql})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "(7500)") {
			t.Errorf("%.60q: %v", sql, err)
		}
	}
	big := "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 10000) SELECT i FROM n"
	if _, err := raw(t, db, cloudflare.Read, cloudflare.Statement{SQL: big}); !cloudflare.Shrink(err) {
		t.Errorf("an answer that is too large: %v", err)
	}
	rows(t, db, "SELECT 1 ; -- and no more\n /* none */ ", "SELECT name FROM pragma_table_info('t')")
}

// A batch is one transaction.
func TestBatch(t *testing.T) {
	s, db := start(t, cloudflaretest.Options{})
	s.Exec(t, "CREATE TABLE t (a INTEGER PRIMARY KEY)")
	if got := rows(t, db, "INSERT INTO t VALUES (1) RETURNING a", "INSERT INTO t VALUES (2)", "SELECT count(*) FROM t"); strings.Join(got, " ") != "[[1]] [] [[2]]" {
		t.Errorf("a batch: %q", got)
	}
	if _, err := raw(t, db, cloudflare.Once, cloudflare.Statement{SQL: "INSERT INTO t VALUES (3)"}, cloudflare.Statement{SQL: "INSERT INTO t VALUES (1)"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a batch that fails: %v", err)
	}
	if got := rows(t, db, "SELECT max(a) FROM t")[0]; got != "[[2]]" {
		t.Errorf("after a batch that failed: %s", got)
	}
}

func BenchmarkRaw(b *testing.B) {
	s, db := start(b, cloudflaretest.Options{MaxAnswer: 1 << 30})
	s.Exec(b, `CREATE TABLE t (point_id INTEGER, timestamp INTEGER, value REAL, quality INTEGER, flags INTEGER, PRIMARY KEY (point_id, timestamp)) WITHOUT ROWID;
		WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
		INSERT INTO t SELECT 7, 1704412800000 + i * 60000, round(20 + i % 97 * 0.1, 1), 192, 0 FROM n`)
	n := int64(0)
	for b.Loop() {
		err := db.Raw(context.Background(), cloudflare.Read, []cloudflare.Statement{{SQL: "SELECT * FROM t"}}, func(r io.Reader) (err error) {
			n, err = io.Copy(io.Discard, r)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(n)
	b.ReportMetric(200000*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
