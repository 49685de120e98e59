package lake

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"etl/internal/utc"
)

// simplifyFrom, less in tests, is how many month files a query must touch to be
// simplified: it costs three parses, and what it saves is time per row.
var simplifyFrom = 64

// simplify leaves out of a statement those conditions on ts and timestamp that
// hold for every row that was brought: in a query over whole months all of
// them, and then the column is not even read, which halves an average over
// 4,500 files. It returns the statement as it is where that can not be shown.
//
// A condition is left out only where it is one of the ANDed conditions of a
// SELECT from samples alone, compares the bare column with a constant, and is
// true for the first and the last instant that a row can have: comparisons other
// than <> are true on an interval.
func (l *Lake) simplify(ctx context.Context, p *plan) string {
	if len(p.files) < simplifyFrom || strings.Contains(strings.Join(p.stmt.Tables, " "), "timeseries") {
		return p.stmt.SQL
	}
	// A connection beside the query's: an error here must not spoil its transaction.
	conn, err := l.db.Conn(ctx)
	if err != nil {
		return p.stmt.SQL
	}
	defer conn.Close()
	tree, err := syntax(ctx, conn, p.stmt.SQL)
	if err != nil {
		return p.stmt.SQL
	}
	s := simplifier{days: p.span()}
	s.walk(tree)
	if s.shadowed || len(s.found) == 0 {
		return p.stmt.SQL
	}
	for _, c := range s.found {
		whole, err := holds(ctx, conn, c.get(), s.days)
		if err != nil {
			return p.stmt.SQL
		}
		if whole {
			c.set(yes)
		}
	}
	text, err := textOf(ctx, conn, tree)
	if err != nil {
		return p.stmt.SQL
	}
	// What DuckDB makes of the tree must be the same tree.
	after, err := syntax(ctx, conn, text)
	if err != nil || !reflect.DeepEqual(plain(tree, nil, nil), plain(after, nil, nil)) {
		return p.stmt.SQL
	}
	return text
}

// span is the days that hold every row that was brought.
func (p *plan) span() utc.Days {
	var span utc.Days
	add := func(d utc.Days) {
		if span.Empty() {
			span = d
		}
		span.From, span.To = min(span.From, d.From), max(span.To, d.To)
	}
	for _, f := range p.files {
		if runs := f.archived.Runs(f.Month); len(runs) > 0 {
			add(utc.Days{From: runs[0].From, To: runs[len(runs)-1].To})
		}
	}
	if p.hot != nil {
		for _, r := range p.hot.reads {
			add(r.Days)
		}
	}
	return span
}

// yes is the constant TRUE of a syntax tree, as DuckDB parses it.
var yes = map[string]any{"class": "CAST", "type": "OPERATOR_CAST", "alias": "", "query_location": json.Number("0"),
	"child": map[string]any{"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "query_location": json.Number("0"),
		"value": map[string]any{"type": map[string]any{"id": "VARCHAR", "type_info": nil}, "is_null": false, "value": "t"}},
	"cast_type": map[string]any{"id": "BOOLEAN", "type_info": nil}, "try_cast": false}

// condition is where a condition stands in a tree.
type condition struct {
	get func() map[string]any
	set func(map[string]any)
}

// simplifier finds the conditions that may be left out.
type simplifier struct {
	days     utc.Days
	found    []condition
	shadowed bool // something else is called samples
}

func (s *simplifier) walk(v any) {
	switch v := v.(type) {
	case []any:
		for _, c := range v {
			s.walk(c)
		}
	case map[string]any:
		if entries, ok := v["map"].([]any); ok { // of a WITH
			for _, e := range entries {
				if e, ok := e.(map[string]any); ok {
					name, _ := e["key"].(string)
					s.shadowed = s.shadowed || strings.EqualFold(name, "samples")
				}
			}
		}
		if v["type"] == "SELECT_NODE" {
			s.node(v)
		}
		for _, c := range v {
			s.walk(c)
		}
	}
}

// node looks at the conditions of a SELECT from samples alone.
func (s *simplifier) node(n map[string]any) {
	from, _ := n["from_table"].(map[string]any)
	table, _ := from["table_name"].(string)
	names, _ := from["column_name_alias"].([]any)
	where, _ := n["where_clause"].(map[string]any)
	if from["type"] != "BASE_TABLE" || !strings.EqualFold(table, "samples") || from["schema_name"] != "" || len(names) > 0 || where == nil {
		return
	}
	name := table
	if alias, _ := from["alias"].(string); alias != "" {
		name = alias
	}
	if where["type"] == "CONJUNCTION_AND" {
		children, _ := where["children"].([]any)
		for i, c := range children {
			if c, ok := c.(map[string]any); ok && bare(c, name) {
				s.found = append(s.found, condition{func() map[string]any { return c }, func(to map[string]any) { children[i] = to }})
			}
		}
	} else if bare(where, name) {
		s.found = append(s.found, condition{func() map[string]any { return where }, func(to map[string]any) { n["where_clause"] = to }})
	}
}

// bare reports whether a condition compares ts or timestamp of the table with constants.
func bare(c map[string]any, table string) bool {
	var column any
	var others []any
	switch t, _ := c["type"].(string); {
	case c["class"] == "COMPARISON" && slices.Contains([]string{"COMPARE_EQUAL", "COMPARE_LESSTHAN", "COMPARE_GREATERTHAN", "COMPARE_LESSTHANOREQUALTO", "COMPARE_GREATERTHANOREQUALTO"}, t):
		column, others = c["left"], []any{c["right"]}
	case c["class"] == "BETWEEN" && t == "COMPARE_BETWEEN":
		column, others = c["input"], []any{c["lower"], c["upper"]}
	default:
		return false
	}
	if len(others) == 1 && !isTime(column, table) {
		column, others[0] = others[0], column
	}
	return isTime(column, table) && !slices.ContainsFunc(others, func(o any) bool { return !isConstant(o) })
}

func isTime(v any, table string) bool {
	c, _ := v.(map[string]any)
	names, _ := c["column_names"].([]any)
	if c["class"] != "COLUMN_REF" || len(names) == 0 || len(names) > 2 {
		return false
	}
	last, _ := names[len(names)-1].(string)
	first, _ := names[0].(string)
	return (strings.EqualFold(last, "ts") || strings.EqualFold(last, "timestamp")) && (len(names) == 1 || strings.EqualFold(first, table))
}

func isConstant(v any) bool {
	c, _ := v.(map[string]any)
	for c["class"] == "CAST" {
		c, _ = c["child"].(map[string]any)
	}
	return c["class"] == "CONSTANT"
}

// holds reports whether a condition holds at both ends of the days.
func holds(ctx context.Context, conn *sql.Conn, c map[string]any, days utc.Days) (bool, error) {
	template, err := syntax(ctx, conn, "SELECT 1")
	if err != nil {
		return false, err
	}
	list := template.(map[string]any)["node"].(map[string]any)["select_list"].([]any)
	list[0] = c
	text, err := textOf(ctx, conn, template)
	if err != nil {
		return false, err
	}
	both := true
	for _, ms := range []int64{days.From.Start(), days.To.Start() - 1} {
		var one bool
		// The table that the column is qualified with may have any name: an alias for each.
		q := fmt.Sprintf("%s FROM (SELECT make_timestamp(%d) AS ts, %d::BIGINT AS timestamp) AS %s", text, ms*1000, ms, ident(qualifier(c)))
		if err := conn.QueryRowContext(ctx, q).Scan(&one); err != nil {
			return false, err
		}
		both = both && one
	}
	return both, nil
}

// qualifier is the table that the column of a bare condition names, or any.
func qualifier(c map[string]any) string {
	for _, k := range []string{"left", "right", "input"} {
		r, _ := c[k].(map[string]any)
		if names, _ := r["column_names"].([]any); len(names) == 2 {
			return names[0].(string)
		}
	}
	return "lake_row"
}

// textOf is the SQL of a syntax tree.
func textOf(ctx context.Context, conn *sql.Conn, tree any) (string, error) {
	data, err := json.Marshal(map[string]any{"error": false, "statements": []any{tree}})
	if err != nil {
		return "", err
	}
	var text string
	return text, conn.QueryRowContext(ctx, "SELECT json_deserialize_sql(?::JSON)", string(data)).Scan(&text)
}
