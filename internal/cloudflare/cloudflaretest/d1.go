package cloudflaretest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// query is one statement of a request.
type query struct {
	SQL    string `json:"sql"`
	Params []any  `json:"params"`
}

func parse(body []byte) ([]query, error) {
	if len(body) == 0 {
		return nil, errors.New("there is no body")
	}
	var r struct {
		query
		Batch []query `json:"batch"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	switch {
	case (r.SQL == "") == (len(r.Batch) == 0):
		return nil, errors.New("either sql or batch is wanted")
	case r.SQL != "":
		return []query{r.query}, nil
	}
	return r.Batch, nil
}

// d1Error is an error as D1 gives it.
type d1Error struct {
	status, code int
	message      string
}

func (e *d1Error) Error() string { return e.message }
func (e *d1Error) reply() reply  { return failure(e.status, e.code, e.message) }

func sqlError(format string, a ...any) *d1Error {
	return &d1Error{400, 7500, fmt.Sprintf(format, a...)}
}

// sqliteError words an error of SQLite as D1 does: "no such table: x: SQLITE_ERROR".
func sqliteError(err error) *d1Error {
	code := sqlite.ErrCode(err)
	message := err.Error()
	if _, detail, ok := strings.Cut(message, code.ToPrimary().Message()+": "); ok {
		message = detail
	}
	if primary := code.ToPrimary(); code != primary {
		return sqlError("%s: %s (extended: %s)", message, primary, code)
	}
	return sqlError("%s: %s", message, code)
}

// database runs statements with D1's limits.
type database struct {
	conn      *sqlite.Conn
	maxAnswer int
	own       bool // what is prepared is the server's own, nothing is refused
}

func newDatabase(conn *sqlite.Conn, maxAnswer int) *database {
	d := &database{conn: conn, maxAnswer: maxAnswer}
	for limit, n := range map[sqlite.Limit]int32{
		sqlite.LimitLength: 2_000_000, sqlite.LimitSQLLength: 100_000, sqlite.LimitColumn: 100,
		sqlite.LimitVariableNumber: 100, sqlite.LimitLikePatternLength: 50,
	} {
		conn.Limit(limit, n)
	}
	if err := conn.SetAuthorizer(sqlite.AuthorizeFunc(d.authorize)); err != nil {
		panic(err) // of an open connection
	}
	return d
}

// exec runs a statement of the server's own.
func (d *database) exec(statement string) error {
	d.own = true
	defer func() { d.own = false }()
	return sqlitex.ExecuteTransient(d.conn, statement, nil)
}

// pragmas are those that D1 allows.
// Source: developers.cloudflare.com/d1/sql-api/sql-statements.
var pragmas = []string{
	"table_list", "table_info", "table_xinfo", "index_list", "index_info", "index_xinfo", "quick_check",
	"foreign_key_list", "foreign_key_check", "defer_foreign_keys", "ignore_check_constraints", "case_sensitive_like",
	"legacy_alter_table", "recursive_triggers", "reverse_unordered_selects", "optimize", "function_list", "data_version",
}

func (d *database) authorize(a sqlite.Action) sqlite.AuthResult {
	if d.own {
		return sqlite.AuthResultOK
	}
	switch a.Type() {
	case sqlite.OpTransaction, sqlite.OpSavepoint, sqlite.OpAttach, sqlite.OpDetach:
		return sqlite.AuthResultDeny
	case sqlite.OpPragma:
		if !slices.Contains(pragmas, strings.ToLower(a.Pragma())) {
			return sqlite.AuthResultDeny
		}
	}
	return sqlite.AuthResultOK
}

// changes is how many rows were changed since the file was opened.
func (d *database) changes() int64 { return d.number("SELECT total_changes()") }

// size is how many bytes the database takes.
func (d *database) size() int64 {
	d.own = true // D1 lets nobody ask so
	defer func() { d.own = false }()
	return d.number("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
}

func (d *database) number(query string) int64 {
	var n int64
	st, _, err := d.conn.PrepareTransient(query)
	if err == nil {
		if _, err = st.Step(); err == nil {
			n = st.ColumnInt64(0)
		}
		err = errors.Join(err, st.Finalize())
	}
	if err != nil {
		panic(err)
	}
	return n
}

// run runs statements, several as one transaction, and returns the body of the
// answer. The error is a *d1Error.
func (d *database) run(queries []query, raw bool, maxRows int) (body []byte, err error) {
	if len(queries) > 1 {
		if err := d.exec("BEGIN IMMEDIATE"); err != nil {
			return nil, sqliteError(err)
		}
		defer func() {
			end := "COMMIT"
			if err != nil {
				end = "ROLLBACK"
			}
			if e := d.exec(end); e != nil && err == nil {
				err = errors.Join(sqliteError(e), d.exec("ROLLBACK"))
			}
		}()
	}
	b := []byte(`{"result":[`)
	for i, q := range queries {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = d.statement(b, q, raw, maxRows); err != nil {
			return nil, err
		}
	}
	return append(b, `],"errors":[],"messages":[],"success":true}`...), nil
}

// statement runs one and appends its element of result.
func (d *database) statement(b []byte, q query, raw bool, maxRows int) (_ []byte, err error) {
	start, before := time.Now(), d.changes()
	if len(q.SQL) > 100_000 {
		return nil, sqlError("statement too long: SQLITE_TOOBIG")
	}
	st, trailing, err := d.conn.PrepareTransient(q.SQL)
	if err != nil {
		return nil, sqliteError(err)
	}
	defer func() {
		if e := st.Finalize(); e != nil && err == nil {
			err = sqliteError(e)
		}
	}()
	if !blank(q.SQL[len(q.SQL)-trailing:]) {
		return nil, sqlError("there are several statements in one string")
	}
	if n := st.BindParamCount(); n != len(q.Params) {
		return nil, sqlError("Wrong number of parameter bindings for SQL query.")
	}
	for i, p := range q.Params {
		switch v := p.(type) {
		case string:
			st.BindText(i+1, v)
		case float64:
			st.BindFloat(i+1, v)
		case nil:
			st.BindNull(i + 1)
		default:
			return nil, &d1Error{400, 7400, fmt.Sprintf("params[%d] is a %T", i, v)}
		}
	}

	names := make([][]byte, st.ColumnCount())
	for i := range names {
		names[i] = appendString(nil, []byte(st.ColumnName(i)))
	}
	b = append(b, `{"results":`...)
	if raw {
		b = append(b, `{"columns":[`...)
		b = append(b, bytes.Join(names, []byte{','})...)
		b = append(b, `],"rows":`...)
	}
	b = append(b, '[')
	rows, size := 0, len(b)
	for {
		row, err := st.Step()
		if err != nil {
			return nil, sqliteError(err)
		}
		if !row {
			break
		}
		if rows++; maxRows > 0 && rows > maxRows {
			return nil, &d1Error{500, 7500, "D1 DB's isolate exceeded its memory limit and was reset."}
		}
		if rows > 1 {
			b = append(b, ',')
		}
		open, end := byte('['), byte(']')
		if !raw {
			open, end = '{', '}'
		}
		b = append(b, open)
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			if !raw {
				b = append(append(b, name...), ':')
			}
			b = appendCell(b, st, i)
		}
		if b = append(b, end); len(b) > d.maxAnswer {
			return nil, sqlError("Serialized RPC arguments or return values are limited to 32MiB, but the size of this value was: %d bytes.", len(b)-size)
		}
	}
	b = append(b, ']')
	if raw {
		b = append(b, '}')
	}
	changed := d.changes() - before
	meta, err := json.Marshal(map[string]any{
		"served_by": "cloudflaretest", "served_by_region": "WEUR", "served_by_primary": true,
		"duration": float64(time.Since(start).Microseconds()) / 1000,
		"changes":  changed, "last_row_id": d.conn.LastInsertRowID(), "changed_db": changed > 0, "size_after": d.size(),
		"rows_read": rows, "rows_written": changed,
	})
	if err != nil {
		panic(err)
	}
	b = append(append(b, `,"success":true,"meta":`...), meta...)
	return append(b, '}'), nil
}

// blank reports whether there is no statement in what follows one.
func blank(sql string) bool {
	for {
		sql = strings.TrimLeft(sql, " \t\r\n\f;")
		switch {
		case sql == "":
			return true
		case strings.HasPrefix(sql, "--"):
			_, sql, _ = strings.Cut(sql, "\n")
		case strings.HasPrefix(sql, "/*"):
			_, sql, _ = strings.Cut(sql[2:], "*/")
		default:
			return false
		}
	}
}

// appendCell appends a value as it is after JavaScript had it: numbers are
// float64, and what JSON has no word for is lost.
func appendCell(b []byte, st *sqlite.Stmt, i int) []byte {
	switch st.ColumnType(i) {
	case sqlite.TypeInteger:
		n := st.ColumnInt64(i)
		if n > -1<<53 && n < 1<<53 {
			return strconv.AppendInt(b, n, 10)
		}
		return appendNumber(b, float64(n))
	case sqlite.TypeFloat:
		return appendNumber(b, st.ColumnFloat(i))
	case sqlite.TypeText:
		text := make([]byte, st.ColumnLen(i))
		st.ColumnBytes(i, text)
		return appendString(b, text)
	case sqlite.TypeBlob:
		blob := make([]byte, st.ColumnLen(i))
		st.ColumnBytes(i, blob)
		b = append(b, '[')
		for i, c := range blob {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendUint(b, uint64(c), 10)
		}
		return append(b, ']')
	}
	return append(b, "null"...)
}

// appendNumber appends f as JSON.stringify does (ECMA-262, Number::toString).
func appendNumber(b []byte, f float64) []byte {
	abs := math.Abs(f)
	switch {
	case math.IsInf(f, 0) || math.IsNaN(f):
		return append(b, "null"...)
	case f == 0:
		return append(b, '0')
	case abs >= 1e21 || abs < 1e-6:
		b = strconv.AppendFloat(b, f, 'e', -1, 64)
		// Go writes two digits of an exponent, JavaScript one.
		if n := len(b); b[n-2] == '0' && (b[n-3] == '-' || b[n-3] == '+') {
			b = append(b[:n-2], b[n-1])
		}
		return b
	}
	return strconv.AppendFloat(b, f, 'f', -1, 64)
}

// appendString appends text as JSON.stringify does, U+FFFD for what is not UTF-8.
func appendString(b, text []byte) []byte {
	b = append(b, '"')
	for len(text) > 0 {
		switch c := text[0]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ' && c < utf8.RuneSelf:
			b = append(b, c)
		case c < ' ':
			if short := strings.IndexByte("\b\t\n\f\r", c); short >= 0 {
				b = append(b, '\\', "btnfr"[short])
			} else {
				b = fmt.Appendf(b, `\u%04x`, c)
			}
		default:
			r, n := utf8.DecodeRune(text)
			b = utf8.AppendRune(b, r)
			text = text[n:]
			continue
		}
		text = text[1:]
	}
	return append(b, '"')
}
