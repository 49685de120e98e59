package lake

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"etl/internal/fault"

	duckdb "github.com/duckdb/duckdb-go/v2"
)

// This file lets through one SELECT that reads nothing but tables of the session.
// The text is only parsed until it has passed: binding some functions is enough
// to open a file, or to crash.

// statement is one SELECT that the gate let through, its parameters replaced by literals.
type statement struct {
	SQL    string
	Tables []string // tables and views that its text refers to, in lower case, sorted
	Shows  bool     // it is a DESCRIBE, SHOW or SUMMARIZE, which COPY takes only after FROM
}

// parse checks the text, replaces its parameters and binds it, on a connection
// whose views are what planning needs. What is wrong with the text or with a
// parameter is a Usage error.
func parse(ctx context.Context, conn *sql.Conn, text string, params map[string]string) (*statement, error) {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return nil, fault.Errorf(fault.Usage, "the SQL is not UTF-8 text")
	}
	node, err := syntax(ctx, conn, text)
	if err != nil {
		return nil, err
	}
	g := gate{tables: map[string]bool{}, ctes: map[string]bool{}, params: map[string]bool{}}
	g.check(node)
	if g.err != nil {
		return nil, g.err
	}
	if err := g.names(params); err != nil {
		return nil, err
	}
	text = single(text)
	s := &statement{SQL: text, Shows: shows(node)}
	for t := range g.tables {
		if !g.ctes[t] {
			s.Tables = append(s.Tables, t)
		}
	}
	slices.Sort(s.Tables)
	types, err := bind(ctx, conn, text)
	if err != nil {
		return nil, err
	}
	if len(params) > 0 {
		if s.SQL, err = substitute(ctx, conn, text, node, params, types); err != nil {
			return nil, err
		}
		if _, err := bind(ctx, conn, s.SQL); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// syntax is the syntax tree of the one SELECT that the text is.
func syntax(ctx context.Context, conn *sql.Conn, text string) (any, error) {
	var out []byte
	if err := conn.QueryRowContext(ctx, "SELECT json_serialize_sql(?::VARCHAR)::VARCHAR", text).Scan(&out); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	var tree struct {
		Error      bool   `json:"error"`
		Type       string `json:"error_type"`
		Message    string `json:"error_message"`
		Position   string `json:"position"`
		Statements []any  `json:"statements"`
	}
	d := json.NewDecoder(strings.NewReader(string(finite(out))))
	d.UseNumber() // a constant keeps all its digits
	if err := d.Decode(&tree); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	switch {
	case tree.Error && strings.Contains(tree.Message, "Only SELECT"):
		if pivot.MatchString(text) {
			return nil, fault.Hint(fault.Errorf(fault.Usage, "PIVOT without the values of its columns is more than one statement"),
				"name them: PIVOT … ON point_name IN ('a', 'b') USING …")
		}
		return nil, fault.Hint(fault.Errorf(fault.Usage, "only one SELECT can be run, it reads and changes nothing"),
			"SELECT, WITH, FROM, VALUES, PIVOT, DESCRIBE, SHOW and SUMMARIZE are accepted; in the shell CREATE TEMP TABLE keeps a result")
	case tree.Error && strings.Contains(tree.Message, "Mixing named and positional"):
		return nil, positional()
	case tree.Error:
		return nil, fault.Errorf(fault.Usage, "%s%s", tree.Message, place(text, tree.Position))
	case len(tree.Statements) == 0:
		return nil, fault.Errorf(fault.Usage, "the SQL is empty")
	case len(tree.Statements) > 1:
		return nil, fault.Hint(fault.Errorf(fault.Usage, "%d statements: only one SELECT can be run at a time", len(tree.Statements)), "run them one by one")
	}
	return tree.Statements[0], nil
}

// shows reports whether a syntax tree is that of DESCRIBE, SHOW or SUMMARIZE, or of
// SELECT from one.
func shows(tree any) bool {
	s, _ := tree.(map[string]any)
	node, _ := s["node"].(map[string]any)
	from, _ := node["from_table"].(map[string]any)
	return from["type"] == "SHOW_REF"
}

var pivot = regexp.MustCompile(`(?i)\bpivot\b`)

func positional() error {
	return fault.Hint(fault.Errorf(fault.Usage, "parameters need names, not ? or $1"), "write $name, and --param name=value")
}

// place says where in the text an error is, from DuckDB's offset in characters.
func place(text, position string) string {
	n, err := strconv.Atoi(position)
	before := []rune(text)
	if err != nil || n < 0 || n > len(before) {
		return ""
	}
	before = before[:n]
	line, col := 1, 1
	for _, r := range before {
		if col++; r == '\n' {
			line, col = line+1, 1
		}
	}
	return fmt.Sprintf(" (line %d, column %d)", line, col)
}

// tableFunctions are those that may stand after FROM: they make rows of their
// arguments or say what the session knows.
var tableFunctions = setOf(`range generate_series unnest repeat repeat_row json_each json_tree
	pragma_table_info duckdb_columns duckdb_tables duckdb_views duckdb_functions duckdb_settings duckdb_types duckdb_keywords
	pg_timezone_names icu_calendar_names`)

// forbidden are functions that change a state, stall, run other SQL, or are DuckDB's own.
var forbidden = setOf(`sleep_ms pg_sleep write_log nextval currval setseed json_serialize_plan json_serialize_sql json_deserialize_sql
	parse_duckdb_log_message variant_bytes_to_variant create_sort_key stats vector_type
	combine finalize remap_struct constant_or_null`)

func setOf(names string) map[string]bool {
	m := map[string]bool{}
	for n := range strings.FieldsSeq(names) {
		m[n] = true
	}
	return m
}

// functionAllowed reports whether a function that is not in FROM may be called.
func functionAllowed(name string) bool {
	return !forbidden[name] && !strings.HasPrefix(name, "__internal")
}

// tableKinds are the ways to name rows after FROM.
var tableKinds = setOf("EMPTY BASE_TABLE TABLE_FUNCTION SUBQUERY JOIN EXPRESSION_LIST PIVOT SHOW_REF")

// schemas that a table may be qualified with.
var schemas = setOf("main temp memory system information_schema pg_catalog")

// fileLike is what DuckDB would take for a file to read.
var fileLike = regexp.MustCompile(`(?i)[/\\:*?\[\]]|\.(parquet|parq|csv|tsv|txt|json|jsonl|ndjson|gz|zst|duckdb|db|sqlite|arrow|arrows|ipc|xlsx|avro|shp|geojson)$`)

// gate walks a syntax tree, whatever its shape: nothing of it is left out.
type gate struct {
	tables, ctes, params map[string]bool
	err                  error
}

func (g *gate) refuse(hint, format string, a ...any) {
	if g.err == nil {
		g.err = fault.Errorf(fault.Usage, format, a...)
		if hint != "" {
			g.err = fault.Hint(g.err, "%s", hint)
		}
	}
}

const readHint = "ask the tables of the lake: samples, latest, points, point_groups, archive_files, archive_days, archive_state"

func (g *gate) check(v any) {
	switch v := v.(type) {
	case []any:
		for _, c := range v {
			g.check(c)
		}
	case map[string]any:
		g.object(v)
		for _, c := range v {
			g.check(c)
		}
	}
}

func (g *gate) object(o map[string]any) {
	str := func(key string) string { s, _ := o[key].(string); return s }
	class, kind := str("class"), str("type")
	_, sample := o["sample"]
	_, alias := o["alias"]
	switch {
	case class == "FUNCTION" || class == "WINDOW":
		if name := strings.ToLower(str("function_name")); !functionAllowed(name) {
			g.refuse("", "function %s() is not allowed here", name)
		}
	case class == "PARAMETER":
		g.params[str("identifier")] = true
	case class == "" && sample && alias && !tableKinds[kind]:
		g.refuse("", "%s is not allowed after FROM", strings.ToLower(kind))
	case kind == "TABLE_FUNCTION":
		f, _ := o["function"].(map[string]any)
		name, _ := f["function_name"].(string)
		if name = strings.ToLower(name); !tableFunctions[name] {
			g.refuse(readHint, "function %s() is not allowed after FROM: only tables of the lake are read", name)
		}
	case kind == "BASE_TABLE":
		g.table(str("catalog_name"), str("schema_name"), str("table_name"))
	case kind == "SHOW_REF":
		if name := strings.Trim(str("table_name"), `"`); fileLike.MatchString(name) {
			g.refuse(readHint, "%q is a file: only tables of the lake are read", name)
		}
	}
	if ctes, ok := o["cte_map"].(map[string]any); ok {
		list, _ := ctes["map"].([]any)
		for _, c := range list {
			if c, ok := c.(map[string]any); ok {
				if name, ok := c["key"].(string); ok {
					g.ctes[strings.ToLower(name)] = true
				}
			}
		}
	}
}

func (g *gate) table(catalog, schema, name string) {
	full := name
	for _, q := range []string{schema, catalog} {
		if q != "" {
			full = q + "." + full
		}
	}
	switch {
	case fileLike.MatchString(full):
		g.refuse(readHint, "%q is a file: only tables of the lake are read", full)
	case schema != "" && !schemas[strings.ToLower(schema)], catalog != "" && !schemas[strings.ToLower(catalog)]:
		g.refuse("leave the schema out", "no table %s", full)
	default:
		g.tables[strings.ToLower(name)] = true
	}
}

// names checks that exactly the parameters of the text are given.
func (g *gate) names(params map[string]string) error {
	var missing, unknown []string
	for p := range g.params {
		if strings.Trim(p, "0123456789") == "" {
			return positional()
		}
		if _, ok := params[p]; !ok {
			missing = append(missing, p)
		}
	}
	for p := range params {
		if !g.params[p] {
			unknown = append(unknown, p)
		}
	}
	slices.Sort(missing)
	slices.Sort(unknown)
	switch {
	case len(unknown) > 0 && len(g.params) == 0:
		return fault.Errorf(fault.Usage, "parameter %s is given, but the SQL has no parameters", unknown[0])
	case len(unknown) > 0:
		return fault.Errorf(fault.Usage, "parameter %s is given, but the SQL has only $%s", unknown[0], strings.Join(slices.Sorted(maps.Keys(g.params)), ", $"))
	case len(missing) > 0:
		return fault.Hint(fault.Errorf(fault.Usage, "parameter $%s has no value", missing[0]), "give it: --param %s=…", missing[0])
	}
	return nil
}

// bind has DuckDB resolve all names and types, and tells the types of parameters.
func bind(ctx context.Context, conn *sql.Conn, text string) (map[string]duckdb.Type, error) {
	types := map[string]duckdb.Type{}
	err := conn.Raw(func(c any) error {
		p, ok := c.(driver.ConnPrepareContext)
		if !ok {
			return fmt.Errorf("not a DuckDB connection: %T", c)
		}
		ps, err := p.PrepareContext(ctx, text)
		if err != nil {
			return err
		}
		defer ps.Close()
		s, ok := ps.(*duckdb.Stmt)
		if !ok {
			return fmt.Errorf("not a DuckDB statement: %T", ps)
		}
		for i := 1; i <= ps.NumInput(); i++ {
			name, err := s.ParamName(i)
			if err != nil {
				return err
			}
			if types[name], err = s.ParamType(i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, queryError(err)
	}
	return types, nil
}

var stubName = regexp.MustCompile(`\b(` + strings.Join(slices.Sorted(maps.Keys(stubTables)), "|") + `)` + stubSuffix + `\b`)

// queryError makes an error of DuckDB one for the analyst: what is wrong with the
// SQL is a Usage error, and no name of ours is in it.
func queryError(err error) error {
	d, ok := errors.AsType[*duckdb.Error](err)
	if !ok {
		return err
	}
	text := strings.TrimRight(stubName.ReplaceAllString(d.Msg, "$1"), "\n ")
	switch d.Type {
	case duckdb.ErrorTypeInternal, duckdb.ErrorTypeFatal, duckdb.ErrorTypeIO, duckdb.ErrorTypeInterrupt, duckdb.ErrorTypeOutOfMemory:
		return fmt.Errorf("%s", text)
	}
	return fault.Errorf(fault.Usage, "%s", text)
}

// typeNames are the types that a parameter's text is converted to, as the
// statement expects. A parameter of another type, or of none, is a string
// literal, which DuckDB converts where it stands.
var typeNames = map[duckdb.Type]string{
	duckdb.TYPE_BOOLEAN: "BOOLEAN",
	duckdb.TYPE_TINYINT: "TINYINT", duckdb.TYPE_SMALLINT: "SMALLINT", duckdb.TYPE_INTEGER: "INTEGER", duckdb.TYPE_BIGINT: "BIGINT", duckdb.TYPE_HUGEINT: "HUGEINT",
	duckdb.TYPE_UTINYINT: "UTINYINT", duckdb.TYPE_USMALLINT: "USMALLINT", duckdb.TYPE_UINTEGER: "UINTEGER", duckdb.TYPE_UBIGINT: "UBIGINT",
	duckdb.TYPE_FLOAT: "FLOAT", duckdb.TYPE_DOUBLE: "DOUBLE",
	duckdb.TYPE_TIMESTAMP: "TIMESTAMP", duckdb.TYPE_TIMESTAMP_TZ: "TIMESTAMP WITH TIME ZONE", duckdb.TYPE_DATE: "DATE", duckdb.TYPE_TIME: "TIME", duckdb.TYPE_INTERVAL: "INTERVAL",
}

// substitute replaces the parameters in the text by literals. That the result is
// the same statement with constants for parameters is proved, not assumed: its
// syntax tree must be that of the text with the parameters replaced.
func substitute(ctx context.Context, conn *sql.Conn, text string, node any, params map[string]string, types map[string]duckdb.Type) (string, error) {
	literals := map[string]string{}
	for name, value := range params {
		if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
			return "", fault.Errorf(fault.Usage, "parameter %s is not UTF-8 text", name)
		}
		literals[name] = quote(value)
		typ := typeNames[types[name]]
		if typ == "" {
			continue
		}
		var ok bool
		if err := conn.QueryRowContext(ctx, "SELECT TRY_CAST(?::VARCHAR AS "+typ+") IS NOT NULL", value).Scan(&ok); err != nil {
			return "", fmt.Errorf("parameter %s: %w", name, err)
		}
		if !ok {
			return "", fault.Errorf(fault.Usage, "parameter %s: %q is not a %s%s", name, value, typ, example[typ])
		}
		literals[name] = "(CAST(" + quote(value) + " AS " + typ + "))"
	}
	var out strings.Builder
	rest := text
	for rest != "" {
		n, name := token(rest)
		if name != "" {
			out.WriteString(literals[name])
		} else {
			out.WriteString(rest[:n])
		}
		rest = rest[n:]
	}
	after, err := syntax(ctx, conn, out.String())
	if err != nil {
		return "", fault.Hint(err, "a parameter can stand where a value can")
	}
	if !reflect.DeepEqual(plain(node, params, types), plain(after, nil, nil)) {
		return "", fault.Hint(fault.Errorf(fault.Usage, "the parameters can not be put into this SQL"), "write the values into it")
	}
	return out.String(), nil
}

var example = map[string]string{
	"TIMESTAMP": ": want one like 2024-01-05 or 2024-01-05 13:30:00", "TIMESTAMP WITH TIME ZONE": ": want one like 2024-01-05 or 2024-01-05 13:30:00+01",
	"DATE": ": want one like 2024-01-05", "INTERVAL": ": want one like 1 hour or 7 days", "BOOLEAN": ": want true or false",
}

// plain is a syntax tree without positions, its parameters replaced.
func plain(v any, params map[string]string, types map[string]duckdb.Type) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i, c := range v {
			out[i] = plain(c, params, types)
		}
		return out
	case map[string]any:
		if name, _ := v["identifier"].(string); v["class"] == "PARAMETER" {
			value, ok := params[name]
			if !ok {
				return nil
			}
			varchar := func(id string) any { return map[string]any{"id": id, "type_info": nil} }
			c := map[string]any{"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": v["alias"],
				"value": map[string]any{"type": varchar("VARCHAR"), "is_null": false, "value": value}}
			if typ := typeNames[types[name]]; typ != "" {
				c["alias"] = ""
				return map[string]any{"class": "CAST", "type": "OPERATOR_CAST", "alias": v["alias"], "child": c, "cast_type": varchar(typ), "try_cast": false}
			}
			return c
		}
		out := map[string]any{}
		for k, c := range v {
			if k != "query_location" && k != "named_param_map" {
				out[k] = plain(c, params, types)
			}
		}
		return out
	}
	return v
}

var (
	paramToken  = regexp.MustCompile(`^\$([A-Za-z_\x80-\x{10FFFF}][A-Za-z0-9_\x80-\x{10FFFF}]*)`)
	dollarToken = regexp.MustCompile(`^\$([A-Za-z_\x80-\x{10FFFF}][A-Za-z0-9_\x80-\x{10FFFF}]*)?\$`)
	wordToken   = regexp.MustCompile(`^[A-Za-z0-9_\x80-\x{10FFFF}][A-Za-z0-9_$\x80-\x{10FFFF}]*`)
)

// token is the length of the token that s begins with, and its name if it is a
// parameter. It knows just enough of the language to skip what may hold a $.
func token(s string) (int, string) {
	until := func(from int, end string) int {
		if i := strings.Index(s[from:], end); i >= 0 {
			return from + i + len(end)
		}
		return len(s)
	}
	switch {
	case strings.HasPrefix(s, "--"):
		return until(0, "\n"), ""
	case strings.HasPrefix(s, "/*"):
		depth := 0
		for i := 0; i+1 < len(s); i++ {
			switch s[i : i+2] {
			case "/*":
				depth++
				i++
			case "*/":
				depth--
				i++
				if depth == 0 {
					return i + 1, ""
				}
			}
		}
		return len(s), ""
	case (s[0] == 'e' || s[0] == 'E') && strings.HasPrefix(s[1:], "'"):
		for i := 2; i < len(s); i++ {
			switch {
			case s[i] == '\\', strings.HasPrefix(s[i:], "''"):
				i++
			case s[i] == '\'':
				return i + 1, ""
			}
		}
		return len(s), ""
	case s[0] == '\'' || s[0] == '"': // a doubled quote begins the next token
		return until(1, s[:1]), ""
	case s[0] == '$':
		if tag := dollarToken.FindString(s); tag != "" {
			return until(len(tag), tag), ""
		}
		if m := paramToken.FindStringSubmatch(s); m != nil {
			return len(m[0]), m[1]
		}
	}
	if w := wordToken.FindString(s); w != "" {
		return len(w), ""
	}
	_, n := utf8.DecodeRuneInString(s)
	return n, ""
}

// single is the text of one statement without the semicolon behind it and what
// follows that, so that it can stand within another statement.
func single(text string) string {
	for i := 0; i < len(text); {
		if text[i] == ';' {
			return text[:i]
		}
		n, _ := token(text[i:])
		i += n
	}
	return text
}
