package lake

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"etl/internal/fault"
)

// Table is a table or view that a statement may name.
type Table struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"` // view, or temporary table, temporary view
	Columns []Column `json:"columns"`
}

// Tables lists the views of the lake and what the session has made, by kind and name.
func (l *Lake) Tables(ctx context.Context) ([]Table, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rows, err := l.conn.QueryContext(ctx, `SELECT c.table_name, CASE WHEN NOT temporary THEN 'view' WHEN is_view THEN 'temporary view' ELSE 'temporary table' END AS kind,
			column_name, data_type
		FROM duckdb_columns() c JOIN (
			SELECT table_oid AS oid, table_name, temporary, FALSE AS is_view FROM duckdb_tables() WHERE temporary
			UNION ALL SELECT view_oid, view_name, temporary, TRUE FROM duckdb_views() WHERE NOT internal) t
			ON c.table_oid = t.oid AND c.table_name = t.table_name
		WHERE c.schema_name = 'main' ORDER BY kind DESC, c.table_name, column_index`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var tables []Table
	for rows.Next() {
		var name, kind string
		var c Column
		if err := rows.Scan(&name, &kind, &c.Name, &c.Type); err != nil {
			return nil, err
		}
		c.Numeric = isNumeric(c.Type)
		if n := len(tables); n == 0 || tables[n-1].Name != name {
			tables = append(tables, Table{Name: name, Kind: kind})
		}
		t := &tables[len(tables)-1]
		t.Columns = append(t.Columns, c)
	}
	return tables, rows.Err()
}

var (
	createTemp = regexp.MustCompile(`(?is)^\s*CREATE\s+(?:OR\s+REPLACE\s+)?TEMP(?:ORARY)?\s+(TABLE|VIEW)\s+([a-z_][a-z0-9_]*|"(?:[^"]|"")+")\s+AS\s+(.*)$`)
	dropTemp   = regexp.MustCompile(`(?is)^\s*DROP\s+(TABLE|VIEW)\s+(IF\s+EXISTS\s+)?([a-z_][a-z0-9_]*|"(?:[^"]|"")+")\s*;?\s*$`)
)

// IsExec reports whether Exec is what runs a statement.
func IsExec(text string) bool { return createTemp.MatchString(text) || dropTemp.MatchString(text) }

// reserved are the names that temporary tables and views may not take.
var reserved = append([]string{"points", "point_groups", "timeseries", "v_latest_values"}, stubbed...)

// Exec carries out what changes the session alone, and says what it did:
//
//	CREATE [OR REPLACE] TEMP TABLE|VIEW name AS SELECT …
//	DROP TABLE|VIEW [IF EXISTS] name
//
// A table holds the rows of now; a view asks anew each time it is used. Other
// statements are a Usage error.
func (l *Lake) Exec(ctx context.Context, text string) (what string, err error) {
	if m := dropTemp.FindStringSubmatch(text); m != nil {
		kind, name := strings.ToUpper(m[1]), unquote(m[3])
		if err := free(name); err != nil {
			return "", err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if err := l.exec(ctx, fmt.Sprintf("DROP %s %stemp.%s", kind, strings.ToUpper(m[2]), ident(name))); err != nil {
			return "", userError(ctx, err)
		}
		return "dropped " + strings.ToLower(kind) + " " + name, nil
	}
	m := createTemp.FindStringSubmatch(text)
	if m == nil {
		return "", fault.Hint(fault.Errorf(fault.Usage, "only SELECT, CREATE TEMP TABLE … AS SELECT, CREATE TEMP VIEW … AS SELECT and DROP of those are carried out"),
			"the archive is changed by the other commands of etl alone")
	}
	kind, name, query := strings.ToUpper(m[1]), unquote(m[2]), m[3]
	if err := free(name); err != nil {
		return "", err
	}
	made := "made temporary " + strings.ToLower(kind) + " " + name
	create := func(ctx context.Context, text string) error {
		return l.exec(ctx, fmt.Sprintf("CREATE OR REPLACE TEMP %s %s AS %s", kind, ident(name), text))
	}
	if kind == "VIEW" {
		l.mu.Lock()
		defer l.mu.Unlock()
		s, err := parse(ctx, l.conn, query, nil)
		if err != nil {
			return "", err
		}
		return made, userError(ctx, create(ctx, s.SQL))
	}
	var stats Stats
	return made, l.run(ctx, Query{SQL: query}, false, func(ctx context.Context, p *plan) error {
		return p.ownLines(create(ctx, "FROM (\n"+p.sql+"\n) lake_result"))
	}, &stats)
}

// free refuses the names of the lake's own views.
func free(name string) error {
	low := strings.ToLower(name)
	if slices.Contains(reserved, low) || strings.HasPrefix(low, "lake_") || strings.HasSuffix(low, "_stub") {
		return fault.Hint(fault.Errorf(fault.Usage, "the name %s is taken", name), "choose another one")
	}
	return nil
}

func unquote(name string) string {
	if s, ok := strings.CutPrefix(name, `"`); ok {
		return strings.ReplaceAll(strings.TrimSuffix(s, `"`), `""`, `"`)
	}
	return strings.ToLower(name)
}
