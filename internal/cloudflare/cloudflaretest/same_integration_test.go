//go:build integration

package cloudflaretest_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"etl/internal/cloudflare"
	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/fault"
	"etl/internal/testserver"
)

// The server says what Cloudflare's own runtime says, byte for byte: for values
// of all kinds, what triggers change, and what is refused, but for the words in
// which a transaction is.
func TestIntegrationSameAsWorkerd(t *testing.T) {
	m := testserver.Miniflare(t, testserver.Options{})
	real, err := cloudflare.New(m.Account, m.Token, cloudflare.Options{
		URL: m.URL, Rate: 10_000, Burst: 10_000, Retry: fault.Policy{Attempts: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, ours := start(t, cloudflaretest.Options{})
	theirs := real.Database(m.DatabaseID)

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var values []string
	for range 3000 {
		f := math.Float64frombits(r.Uint64())
		if r.IntN(2) == 0 { // what sensors say
			f = math.Round(r.NormFloat64()*1e6) / math.Pow10(r.IntN(12))
		}
		if !math.IsNaN(f) && !math.IsInf(f, 0) {
			values = append(values, fmt.Sprintf("%.17g", f))
		}
		values = append(values, fmt.Sprint(int64(r.Uint64())>>r.IntN(64)))
		b := make([]byte, r.IntN(9))
		for i := range b {
			b[i] = byte(r.Uint32() >> r.IntN(9))
		}
		// A NUL ends the text for some of SQLite's functions: it is not for tests of JSON.
		blob := hex.EncodeToString(b)
		values = append(values, "x'"+blob+"'", "'"+strings.NewReplacer("'", "", "\x00", "").Replace(strings.ToValidUTF8(string(b), "é"))+"'")
	}
	var statements [][]string
	for len(values) > 0 {
		n := min(90, len(values))
		sql := "SELECT "
		for i, v := range values[:n] {
			sql += fmt.Sprintf("%s AS c%d, ", v, i)
		}
		statements = append(statements, []string{strings.TrimSuffix(sql, ", ")})
		values = values[n:]
	}
	statements = append(statements, [][]string{
		{"CREATE TABLE t (a INTEGER PRIMARY KEY, b REAL NOT NULL DEFAULT 0)"},
		{"CREATE TABLE log (a)"},
		{"CREATE TRIGGER tr AFTER INSERT ON t BEGIN DELETE FROM log WHERE a = NEW.a; INSERT INTO log VALUES (NEW.a); END"},
		{"INSERT INTO t (a) VALUES (1), (2) RETURNING a, b AS c"},
		{"INSERT INTO t (a) VALUES (3)", "SELECT * FROM t", "DELETE FROM t WHERE a = 9", "SELECT count(*) FROM log"},
		{"INSERT INTO t (a) VALUES (4)", "INSERT INTO t (a) VALUES (1)"},
		{"INSERT OR REPLACE INTO t (a) VALUES (1)"},
		{"SELECT max(a) FROM t"},
		{"UPDATE t SET b = 1"}, {"SELECT changes()"},
		{"SELECT 1 ; "}, {"SELECT 1 -- and no more"},
		{"SELECT ?"}, {"SELECT * FROM absent"}, {"SELEC"}, {"INSERT INTO t (b) VALUES (NULL)"}, {"SELECT abs(-9223372036854775807 - 1)"},
		{"BEGIN"}, {"SAVEPOINT a"}, {"ATTACH 'x' AS y"}, {"PRAGMA journal_mode = DELETE"}, {"PRAGMA table_info(t)"}, {"SELECT name FROM pragma_table_info('t')"},
		{"SELECT 'x' LIKE '" + strings.Repeat("x", 51) + "'"}, {"SELECT " + strings.Repeat("1,", 100) + "1"},
		{"SELECT '" + strings.Repeat("x", 100_000) + "'"},
	}...)
	for _, sql := range statements {
		var stmts []cloudflare.Statement
		for _, q := range sql {
			stmts = append(stmts, cloudflare.Statement{SQL: q})
		}
		what := fmt.Sprintf("%.100q", sql)
		if got, want := result(t, ours, stmts), result(t, theirs, stmts); got != want {
			t.Errorf("%s:\n%.2000s\nworkerd:\n%.2000s", what, got, want)
		}
	}
	stmts := []cloudflare.Statement{{SQL: "SELECT typeof(?1), ?1, typeof(?2), ?2 || 'é'", Params: []string{"1.50", "\u2028\"\\\t"}}}
	if got, want := result(t, ours, stmts), result(t, theirs, stmts); got != want {
		t.Errorf("parameters: %s, workerd: %s", got, want)
	}
}

// result is what an answer says: columns, rows and changes of each statement, or
// the kind of its error.
func result(t *testing.T, db *cloudflare.Database, stmts []cloudflare.Statement) string {
	t.Helper()
	var b strings.Builder
	err := db.Raw(t.Context(), cloudflare.Once, stmts, func(r io.Reader) error {
		var answer struct {
			Result []struct {
				Results struct {
					Columns []string
					Rows    json.RawMessage
				}
				Meta struct {
					Changes int
				}
			}
		}
		if err := json.NewDecoder(r).Decode(&answer); err != nil {
			return err
		}
		for _, r := range answer.Result {
			fmt.Fprintf(&b, "%q %s %d changes\n", r.Results.Columns, r.Results.Rows, r.Meta.Changes)
		}
		return nil
	})
	if err != nil {
		_, detail, _ := strings.Cut(err.Error(), ": HTTP")
		detail = regexp.MustCompile(" at offset [0-9]+").ReplaceAllString(detail, "")
		if strings.Contains(detail, "To execute a transaction, please use") {
			detail = " 400: not authorized: SQLITE_AUTH (7500)"
		}
		return fmt.Sprintf("%s: %s", fault.KindOf(err), detail)
	}
	return b.String()
}
