package lake

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"etl/internal/fault"

	duckdb "github.com/duckdb/duckdb-go/v2"
)

// This file reads off an optimized plan which regions each scan of a statement
// can need. It over-approximates: a region that is left out holds no row that
// could change the answer, whatever the rows of the lake are.
//
// The plan is walked from the leaves up. A relation is what an operator yields,
// its columns traced back to where they come from: a scan of the lake, or a
// local table (points, point_groups, a TEMP table, a VALUES list), whose rows
// are at hand while planning. Only operators that work row by row hand columns
// on; any other hands on columns of unknown origin.
//
// INVARIANT: whatever condition an operator above puts on a traced column, the
// rows of the scan that cannot satisfy it can be left out. So a column is
// traced through an operator only if leaving out rows that the operators above
// drop anyway leaves all its other output as it was: through a filter, an inner
// join, the kept side of a LEFT, SEMI, ANTI or MARK join, a grouping key; never
// through a window, a limit, a sample or the null-supplying side of a join.
//
// Unknown operators trace nothing, unknown expressions are TRUE.

// scan is one reference of a statement to a table of the lake.
type scan struct {
	Table string // samples, latest, archive_files, archive_days or archive_state
	// Where is a condition on regions(point_id, point_name, t_min, t_max), which
	// are inclusive: TRUE for each region that may hold a row which the scan needs.
	// It refers to local tables, so it holds for the connection that planned it.
	Where   string
	Columns []string // columns of Table that the plan reads
	// From and To bound ts, in Unix milliseconds, inclusive, for all rows that the
	// scan needs; MinInt64 and MaxInt64 where there is no bound.
	From, To int64
}

// stubSuffix makes the name of the table function that stands for a table while planning.
const stubSuffix = "_stub"

type stubColumn struct {
	name string
	typ  duckdb.Type
}

var sampleColumns = []stubColumn{
	{"point_id", duckdb.TYPE_INTEGER}, {"point_name", duckdb.TYPE_VARCHAR}, {"ts", duckdb.TYPE_TIMESTAMP}, {"timestamp", duckdb.TYPE_BIGINT},
	{"value", duckdb.TYPE_DOUBLE}, {"quality", duckdb.TYPE_INTEGER}, {"flags", duckdb.TYPE_INTEGER}, {"tier", duckdb.TYPE_VARCHAR},
}

// stubTables are the tables of the lake whose rows are not there while planning.
var stubTables = map[string][]stubColumn{
	"samples": sampleColumns,
	"latest":  sampleColumns,
	"archive_files": {
		{"month", duckdb.TYPE_VARCHAR}, {"point_id", duckdb.TYPE_INTEGER}, {"point_name", duckdb.TYPE_VARCHAR}, {"path", duckdb.TYPE_VARCHAR},
		{"bytes", duckdb.TYPE_BIGINT}, {"etag", duckdb.TYPE_VARCHAR}, {"sha256", duckdb.TYPE_VARCHAR}, {"rows_sha256", duckdb.TYPE_VARCHAR},
		{"samples", duckdb.TYPE_BIGINT}, {"first_ts", duckdb.TYPE_TIMESTAMP}, {"last_ts", duckdb.TYPE_TIMESTAMP},
	},
	"archive_days": {
		{"point_id", duckdb.TYPE_INTEGER}, {"point_name", duckdb.TYPE_VARCHAR}, {"day", duckdb.TYPE_DATE}, {"samples", duckdb.TYPE_INTEGER},
	},
	"archive_state": {
		{"run", duckdb.TYPE_VARCHAR}, {"command", duckdb.TYPE_VARCHAR}, {"status", duckdb.TYPE_VARCHAR},
		{"started_at", duckdb.TYPE_BIGINT}, {"heartbeat_at", duckdb.TYPE_BIGINT}, {"archived_at", duckdb.TYPE_BIGINT},
		{"first_day", duckdb.TYPE_VARCHAR}, {"last_day", duckdb.TYPE_VARCHAR},
		{"records_archived", duckdb.TYPE_BIGINT}, {"files_written", duckdb.TYPE_BIGINT}, {"bytes_written", duckdb.TYPE_BIGINT}, {"error", duckdb.TYPE_VARCHAR},
	},
}

// stub is a table function of many rows, says its cardinality, and of none in
// fact. An empty table would fold to nothing, one with statistics would lose
// count(*) and max() to them.
type stub []duckdb.ColumnInfo

func (s stub) ColumnInfos() []duckdb.ColumnInfo { return s }
func (stub) Init()                              {}
func (stub) FillChunk(c duckdb.DataChunk) error { return c.SetSize(0) }
func (stub) Cardinality() *duckdb.CardinalityInfo {
	return &duckdb.CardinalityInfo{Cardinality: 2_000_000_000}
}

// registerStubs makes the functions samples_stub(), latest_stub() and so on.
func registerStubs(conn *sql.Conn) error {
	for table, columns := range stubTables {
		var s stub
		for _, c := range columns {
			t, err := duckdb.NewTypeInfo(c.typ)
			if err != nil {
				return fmt.Errorf("stub of %s: %w", table, err)
			}
			s = append(s, duckdb.ColumnInfo{Name: c.name, T: t})
		}
		f := duckdb.ChunkTableFunction{BindArguments: func(map[string]any, ...any) (duckdb.ChunkTableSource, error) { return s, nil }}
		if err := duckdb.RegisterTableUDF(conn, table+stubSuffix, f); err != nil {
			return fmt.Errorf("stub of %s: %w", table, err)
		}
	}
	return nil
}

// scans plans the statement against the stubs, which must be what the views
// point to, and lists its references to tables of the lake. None at all means
// that it needs no data of the lake. A Usage error is the analyst's: the statement
// can not be answered. Any other error means that nothing is known: take every region.
//
// now() and current_date become constants of the plan: plan and run in one
// transaction, where they stay the same, else rows of the moment in between are
// missed. The time zone of the session must be UTC.
func scans(ctx context.Context, conn *sql.Conn, query string) ([]scan, error) {
	var text []byte
	// The function takes a literal only.
	err := conn.QueryRowContext(ctx, "SELECT json_serialize_plan("+quote(query)+", optimize := true)::VARCHAR").Scan(&text)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	plans, err := readPlan(text)
	if err != nil {
		return nil, err
	}
	// A constant that can not be what it is compared with (ts > 'soon') is still in
	// the plan as a cast, which fails when it is run. Say so before files are fetched.
	for _, n := range plans {
		for _, c := range n.casts() {
			v, ok := literal(c.Child.Value)
			if !ok {
				continue
			}
			if _, err := conn.ExecContext(ctx, "SELECT CAST("+v+" AS "+c.Return.ID+")"); err != nil {
				return nil, queryError(err)
			}
		}
	}
	return needed(plans), nil
}

// casts lists the constants of conditions that the optimizer could not cast.
func (n *planNode) casts() (out []*planExpr) {
	if n == nil {
		return nil
	}
	if es, ok := n.expressions(); ok && n.Type == "LOGICAL_FILTER" {
		for _, e := range es {
			out = append(out, e.casts()...)
		}
	}
	for _, c := range n.Children {
		out = append(out, c.casts()...)
	}
	return out
}

func (e *planExpr) casts() (out []*planExpr) {
	if e == nil {
		return nil
	}
	switch e.Class {
	case "BOUND_CONJUNCTION":
		for _, c := range e.Children {
			out = append(out, c.casts()...)
		}
	case "BOUND_COMPARISON", "BOUND_BETWEEN":
		for _, c := range []*planExpr{e.Left, e.Right, e.Lower, e.Upper} {
			if c != nil && c.Class == "BOUND_CAST" && !c.Try && c.Child != nil && c.Child.Class == "BOUND_CONSTANT" && castable[c.Return.ID] {
				out = append(out, c)
			}
		}
	}
	return out
}

func readPlan(text []byte) ([]*planNode, error) {
	var plan struct {
		Error   bool        `json:"error"`
		Type    string      `json:"error_type"`
		Message string      `json:"error_message"`
		Plans   []*planNode `json:"plans"`
	}
	if err := json.Unmarshal(finite(text), &plan); err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	switch {
	case !plan.Error && len(plan.Plans) > 0:
		return plan.Plans, nil
	case slices.Contains([]string{"binder", "catalog", "parser", "invalid input", "conversion", "out of range"}, strings.ToLower(plan.Type)):
		return nil, fault.Errorf(fault.Usage, "%s", stubName.ReplaceAllString(plan.Message, "$1"))
	}
	return nil, fmt.Errorf("plan: %s", plan.Message)
}

// needed is what the plans need of the lake.
func needed(plans []*planNode) []scan {
	w := &walker{ctes: map[uint64]*relation{}}
	for _, n := range plans {
		w.walk(n)
	}
	var out []scan
	for _, s := range w.scans {
		ts := s.span()
		out = append(out, scan{Table: s.table, Where: s.where(), Columns: s.columns, From: ts.from, To: ts.to})
	}
	return out
}

// finite turns the numbers that JSON has not, which DuckDB writes for constants
// such as 'inf'::DOUBLE, into nulls, which are unknown values.
func finite(text []byte) []byte {
	words := [][]byte{[]byte("-Infinity"), []byte("Infinity"), []byte("NaN"), []byte("-NaN")}
	if !bytes.Contains(text, words[1]) && !bytes.Contains(text, words[2]) {
		return text
	}
	var out []byte
	inString := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inString && c == '\\' && i+1 < len(text):
			out = append(out, c)
			i++
			c = text[i]
		case c == '"':
			inString = !inString
		case !inString:
			k := slices.IndexFunc(words, func(w []byte) bool { return bytes.HasPrefix(text[i:], w) })
			if k >= 0 {
				out = append(out, "null"...)
				i += len(words[k]) - 1
				continue
			}
		}
		out = append(out, c)
	}
	return out
}

// What of the plan is decoded. The JSON is that of DuckDB's serializer, which is
// not documented: the version is pinned, and a fuzz of queries holds this file to it.
type (
	planNode struct {
		Type     string      `json:"type"`
		Children []*planNode `json:"children"`

		// Filters, projections, aggregates, windows: one list; VALUES: a list of lists.
		Expressions json.RawMessage `json:"expressions"`
		Projection  []int           `json:"projection_map"`

		// Scans.
		Name          string       `json:"name"`
		Names         []string     `json:"names"`
		ProjectionIDs []int        `json:"projection_ids"`
		ColumnIndexes []planColumn `json:"column_indexes"`
		Ordinality    uint64       `json:"ordinality_idx"`
		TableFilters  struct {
			Filters []struct {
				Key   int         `json:"key"`
				Value *planFilter `json:"value"`
			} `json:"filters"`
		} `json:"table_filters"`
		Function struct {
			Catalog string `json:"catalog"`
			Schema  string `json:"schema"`
			Table   string `json:"table"`
		} `json:"function_data"`

		// Joins.
		JoinType   string `json:"join_type"`
		Conditions []struct {
			Left       *planExpr `json:"left"`
			Right      *planExpr `json:"right"`
			Comparison string    `json:"comparison"`
		} `json:"conditions"`
		Condition    *planExpr   `json:"condition"`
		Left         []int       `json:"left_projection_map"`
		Right        []int       `json:"right_projection_map"`
		DelimColumns []*planExpr `json:"duplicate_eliminated_columns"`
		DelimFlipped bool        `json:"delim_flipped"`

		// Aggregates and DISTINCT.
		Groups       []*planExpr `json:"groups"`
		GroupingSets [][]int     `json:"grouping_sets"`
		Groupings    [][]int     `json:"grouping_functions"`
		DistinctType string      `json:"distinct_type"`

		// CTEs, constants, set operations.
		TableIndex  uint64            `json:"table_index"`
		CTEIndex    uint64            `json:"cte_index"`
		ColumnCount int               `json:"column_count"`
		ChunkTypes  []json.RawMessage `json:"chunk_types"`
		ExprTypes   []json.RawMessage `json:"expr_types"`
		ReturnTypes []json.RawMessage `json:"return_types"`
		Collection  struct {
			Values [][]planValue `json:"values"` // by column
		} `json:"collection"`
	}
	planColumn struct {
		Index    uint64            `json:"index"`
		Children []json.RawMessage `json:"child_indexes"`
	}
	planType struct {
		ID string `json:"id"`
	}
	planValue struct {
		Type  planType        `json:"type"`
		Null  bool            `json:"is_null"`
		Value json.RawMessage `json:"value"`
	}
	planExpr struct {
		Class    string      `json:"expression_class"`
		Type     string      `json:"type"`
		Return   planType    `json:"return_type"`
		Children []*planExpr `json:"children"`
		Index    uint64      `json:"index"`
		Value    planValue   `json:"value"`
		Name     string      `json:"name"`

		Left, Right *planExpr // comparison

		Child *planExpr `json:"child"` // cast, unnest
		Try   bool      `json:"try_cast"`

		Input          *planExpr `json:"input"` // BETWEEN
		Lower          *planExpr `json:"lower"`
		Upper          *planExpr `json:"upper"`
		LowerInclusive bool      `json:"lower_inclusive"`
		UpperInclusive bool      `json:"upper_inclusive"`

		Checks []struct {
			Then *planExpr `json:"then_expr"`
		} `json:"case_checks"`
		Else *planExpr `json:"else_expr"`
	}
	planFilter struct {
		Type       string        `json:"filter_type"`
		Comparison string        `json:"comparison_type"`
		Constant   planValue     `json:"constant"`
		Children   []*planFilter `json:"child_filters"`
		Values     []planValue   `json:"values"`
		Expr       *planExpr     `json:"expr"`
	}
)

// expressions are the operator's expressions, unless they are not understood.
func (n *planNode) expressions() (es []*planExpr, ok bool) {
	ok = json.Unmarshal(n.Expressions, &es) == nil
	return es, ok
}

// origin is a scan of the lake, or one reference to a CTE that holds one.
type origin struct {
	table   string
	columns []string
	conds   []cond
	links   []link
	equals  []equal
	// refs are the references to the CTE that this scan is in the definition of: a
	// row that none of them needs is not needed.
	refs []*origin
}

// cond is a condition on the regions of a source, and what it says about ts.
type cond struct {
	sql string
	on  string // the column of the point that alone it is of, else ""
	span
}

// equal says that rows of a source are needed only with a row of another one that
// has the same value in the column on.
type equal struct {
	other *origin
	on    string
}

// link is a condition of a source on the rows of a group; it is written down at
// the end, when all that these satisfy is known.
type link struct {
	on     string // as in cond
	group  *group
	locals []*local
	sql    func(from string) string // from: FROM … WHERE …
}

// local is a table whose rows are at hand; sql is what stands after FROM.
type local struct{ sql, alias string }

// group is the local tables that the rows of a relation are joined from, and what these satisfy.
type group struct {
	into   *group // the group that this one was merged into
	locals []*local
	conds  []localCond
}

type localCond struct {
	sql    string
	locals []*local
}

func (g *group) root() *group {
	for g.into != nil {
		g = g.into
	}
	return g
}

func (g *group) merge(o *group) {
	g, o = g.root(), o.root()
	if g != o {
		g.locals, g.conds, o.into = append(g.locals, o.locals...), append(g.conds, o.conds...), g
	}
}

// from is FROM and WHERE over the locals that are used and all that conditions tie to them.
func (g *group) from(used []*local) string {
	g = g.root()
	used = slices.Clone(used)
	for grown := true; grown; {
		grown = false
		for _, c := range g.conds {
			if !slices.ContainsFunc(c.locals, func(l *local) bool { return slices.Contains(used, l) }) {
				continue
			}
			for _, l := range c.locals {
				if !slices.Contains(used, l) {
					used, grown = append(used, l), true
				}
			}
		}
	}
	var tables, conds []string
	for _, l := range g.locals {
		if slices.Contains(used, l) {
			tables = append(tables, l.sql+" AS "+l.alias)
		}
	}
	for _, c := range g.conds {
		if slices.Contains(used, c.locals[0]) {
			conds = append(conds, c.sql)
		}
	}
	out := " FROM " + strings.Join(tables, ", ")
	if len(conds) > 0 {
		out += " WHERE " + strings.Join(conds, " AND ")
	}
	return out
}

// column is where a column of a relation comes from: a column of a scan; a value
// over local tables; or whether a row of a scan has a partner in a MARK join.
type column struct {
	src  *origin
	name string // of the scan's column, else ""
	mark string // condition on regions that may hold a row with a partner

	sql    string
	locals []*local
}

// relation is what an operator yields; a nil column is of unknown origin. A nil
// relation has an unknown number of columns.
type relation struct {
	cols  []*column
	group *group
	// tied: rows of scans are in it, or are restricted by its group. Then nothing
	// may be traced through an operator that makes its rows depend on each other.
	tied bool
}

func unknown(width int) *relation {
	return &relation{cols: make([]*column, max(0, width)), group: &group{}}
}

// project picks columns, where an operator says which.
func (r *relation) project(indexes []int) *relation {
	if r == nil || len(indexes) == 0 {
		return r
	}
	cols := make([]*column, len(indexes))
	for i, k := range indexes {
		if k >= 0 && k < len(r.cols) {
			cols[i] = r.cols[k]
		}
	}
	return &relation{cols, r.group, r.tied}
}

// untied is the relation beyond an operator that keeps rows depending on others.
// Local rows stay a superset of what passes; scans end here.
func (r *relation) untied() *relation {
	if r == nil || !r.tied || testMutation == "limit" {
		return r
	}
	return unknown(len(r.cols))
}

// sources lists the scans that columns come from.
func (r *relation) sources() []*origin {
	var out []*origin
	for _, c := range r.cols {
		if c != nil && c.src != nil && !slices.Contains(out, c.src) {
			out = append(out, c.src)
		}
	}
	return out
}

// column is the column that e refers to, or nil.
func (r *relation) column(e *planExpr) *column {
	if r == nil || e == nil || e.Class != "BOUND_REF" || e.Index >= uint64(len(r.cols)) {
		return nil
	}
	return r.cols[e.Index]
}

// trace is where the value of e comes from, or nil.
func (r *relation) trace(e *planExpr) *column {
	if r == nil || e == nil {
		return nil
	}
	if e.Class == "BOUND_REF" {
		return r.column(e)
	}
	if e.Class == "BOUND_CASE" { // a scalar subquery: CASE WHEN count > 1 THEN error('…') ELSE first END
		for _, c := range e.Checks {
			if c.Then == nil || c.Then.Class != "BOUND_FUNCTION" || c.Then.Name != "error" {
				return nil
			}
		}
		return r.trace(e.Else)
	}
	if sql, locals, raises, ok := r.local(e); ok && !raises {
		return &column{sql: sql, locals: locals}
	}
	return nil
}

// local is e as SQL over local tables alone.
func (r *relation) local(e *planExpr) (sql string, locals []*local, raises, ok bool) {
	x := renderer{rel: r, leaf: func(c *column) (string, bool) {
		for _, l := range c.locals {
			if !slices.Contains(locals, l) {
				locals = append(locals, l)
			}
		}
		return c.sql, c.sql != ""
	}}
	sql, ok = x.render(e)
	return sql, locals, x.raises, ok && len(locals) > 0
}

// filter takes in that only rows with e go on.
func (r *relation) filter(e *planExpr) {
	if e == nil {
		return
	}
	if e.Class == "BOUND_CONJUNCTION" && e.Type == "CONJUNCTION_AND" {
		for _, c := range e.Children {
			r.filter(c)
		}
		return
	}
	for _, s := range r.sources() {
		x := relaxer{r, s}
		p, _ := x.point(e)
		s.conds = append(s.conds, cond{x.relax(e, true), p.on, x.span(e, true)})
	}
	if sql, locals, raises, ok := r.local(e); ok {
		if raises {
			sql = "coalesce(TRY(" + sql + "), TRUE)"
		}
		g := r.group.root()
		g.conds = append(g.conds, localCond{sql, locals})
	}
}

type walker struct {
	scans   []*origin
	aliases int
	ctes    map[uint64]*relation
	delims  []*delim
}

// delim is a DELIM join that is being walked: what a DELIM_GET below it yields.
type delim struct {
	rel    *relation
	nested bool // a DELIM_GET does not say which join it belongs to
}

func (w *walker) walk(n *planNode) *relation {
	if n == nil {
		return nil
	}
	switch n.Type {
	case "LOGICAL_GET":
		return w.get(n)
	case "LOGICAL_FILTER":
		r := w.child(n)
		if r == nil {
			return nil
		}
		es, _ := n.expressions()
		for _, e := range es {
			r.filter(e)
		}
		return r.project(n.Projection)
	case "LOGICAL_PROJECTION":
		r := w.child(n)
		es, ok := n.expressions()
		if !ok {
			return nil
		}
		out := unknown(len(es))
		if r == nil {
			return out
		}
		out.group, out.tied = r.group, r.tied
		for i, e := range es {
			out.cols[i] = r.trace(e)
		}
		return out
	case "LOGICAL_COMPARISON_JOIN", "LOGICAL_CROSS_PRODUCT", "LOGICAL_ANY_JOIN", "LOGICAL_ASOF_JOIN":
		if len(n.Children) == 2 {
			l := w.walk(n.Children[0])
			return w.join(n, l, w.walk(n.Children[1]))
		}
	case "LOGICAL_DELIM_JOIN":
		if len(n.Children) == 2 {
			return w.delimJoin(n)
		}
	case "LOGICAL_DELIM_GET":
		if k := len(w.delims); k == 1 && !w.delims[0].nested && len(w.delims[0].rel.cols) == len(n.ChunkTypes) {
			return w.snapshot(w.delims[0].rel)
		}
		return unknown(len(n.ChunkTypes))
	case "LOGICAL_AGGREGATE_AND_GROUP_BY":
		return w.aggregate(n)
	case "LOGICAL_UNNEST":
		return w.unnest(n)
	case "LOGICAL_DISTINCT":
		if n.DistinctType == "DISTINCT" {
			return w.child(n)
		}
		return w.child(n).untied()
	case "LOGICAL_ORDER_BY":
		return w.child(n).untied().project(n.Projection)
	case "LOGICAL_LIMIT", "LOGICAL_TOP_N":
		return w.child(n).untied()
	case "LOGICAL_MATERIALIZED_CTE":
		if len(n.Children) == 2 {
			w.ctes[n.TableIndex] = w.walk(n.Children[0])
			return w.walk(n.Children[1])
		}
	case "LOGICAL_CTE_REF":
		if def := w.ctes[n.CTEIndex]; def != nil && len(def.cols) == len(n.ChunkTypes) {
			return w.reference(def)
		}
		return unknown(len(n.ChunkTypes))
	case "LOGICAL_CHUNK_GET":
		return w.constants(n.Collection.Values, len(n.ChunkTypes))
	case "LOGICAL_EXPRESSION_GET":
		return w.values(n)
	case "LOGICAL_DUMMY_SCAN":
		return unknown(1)
	case "LOGICAL_EMPTY_RESULT":
		return unknown(len(n.ReturnTypes))
	}
	w.child(n)
	switch n.Type {
	case "LOGICAL_UNION", "LOGICAL_EXCEPT", "LOGICAL_INTERSECT", "LOGICAL_RECURSIVE_CTE":
		return unknown(n.ColumnCount)
	}
	return nil
}

// child walks all inputs; it is the relation of the only one.
func (w *walker) child(n *planNode) *relation {
	var r *relation
	for _, c := range n.Children {
		r = w.walk(c)
	}
	if len(n.Children) != 1 {
		return nil
	}
	return r
}

func (w *walker) get(n *planNode) *relation {
	w.child(n) // the input of a table function that has one
	names := make([]string, len(n.ColumnIndexes))
	for i, c := range n.ColumnIndexes {
		if c.Index < uint64(len(n.Names)) && len(c.Children) == 0 {
			names[i] = n.Names[c.Index]
		}
	}
	if len(n.ProjectionIDs) > 0 {
		all := names
		names = make([]string, len(n.ProjectionIDs))
		for i, k := range n.ProjectionIDs {
			if k >= 0 && k < len(all) {
				names[i] = all[k]
			}
		}
	}
	out := unknown(len(names))
	table, isStub := strings.CutSuffix(n.Name, stubSuffix)
	if isStub && stubTables[table] != nil {
		src := &origin{table: table}
		w.scans = append(w.scans, src)
		for _, c := range n.ColumnIndexes {
			if c.Index < uint64(len(n.Names)) && !slices.Contains(src.columns, n.Names[c.Index]) {
				src.columns = append(src.columns, n.Names[c.Index])
			}
		}
		out.tied = true
		for i, name := range names {
			if name != "" {
				out.cols[i] = &column{src: src, name: name}
			}
		}
	}
	if len(n.Children) > 0 || n.Ordinality != math.MaxUint64 || len(n.ColumnIndexes) == 0 {
		return nil // its columns are not what column_indexes says
	}
	if n.Name == "seq_scan" && n.Function.Table != "" {
		l := w.local(ident(n.Function.Catalog) + "." + ident(n.Function.Schema) + "." + ident(n.Function.Table))
		out.group.locals = []*local{l}
		for i, name := range names {
			if name != "" {
				out.cols[i] = &column{sql: l.alias + "." + ident(name), locals: []*local{l}}
			}
		}
		for _, f := range n.TableFilters.Filters {
			if f.Key < 0 || f.Key >= len(n.Names) {
				continue
			}
			if sql, ok := tableFilter(f.Value, l.alias+"."+ident(n.Names[f.Key])); ok {
				out.group.conds = append(out.group.conds, localCond{sql, []*local{l}})
			}
		}
	}
	return out
}

// picking are the aggregates whose value is one of the values of their argument.
var picking = setOf("first last any_value arbitrary min max")

func (w *walker) aggregate(n *planNode) *relation {
	r := w.child(n)
	es, ok := n.expressions()
	if !ok {
		return nil
	}
	out := unknown(len(n.Groups) + len(es) + len(n.Groupings))
	// With several grouping sets a row is also in groups that have not all keys.
	if r == nil || len(n.GroupingSets) > 1 || len(n.GroupingSets) == 1 && len(n.GroupingSets[0]) != len(n.Groups) {
		return out
	}
	if len(n.Groups) > 0 {
		out.group, out.tied = r.group, r.tied
		for i, g := range n.Groups {
			out.cols[i] = r.trace(g)
		}
		return out
	}
	if r.tied {
		return out
	}
	for i, e := range es {
		if e == nil || !picking[e.Name] || len(e.Children) != 1 {
			continue
		}
		if c := r.trace(e.Children[0]); c != nil { // each of them may pick another row
			one := w.snapshot(&relation{[]*column{c}, r.group, false})
			out.cols[i] = one.cols[0]
			out.group.merge(one.group)
		}
	}
	return out
}

// unnest multiplies each row by the elements of a list.
func (w *walker) unnest(n *planNode) *relation {
	r := w.child(n)
	es, ok := n.expressions()
	if r == nil || !ok {
		return nil
	}
	out := &relation{slices.Clone(r.cols), r.group, r.tied}
	for _, e := range es {
		var c *column
		if e != nil && e.Class == "BOUND_UNNEST" && e.Child != nil && e.Child.Class == "BOUND_CONSTANT" {
			if list, ok := elements(e.Child.Value); ok {
				one := w.constants([][]planValue{list}, 1)
				c = one.cols[0]
				out.group.merge(one.group)
			}
		}
		out.cols = append(out.cols, c)
	}
	return out
}

func (w *walker) local(sql string) *local {
	w.aliases++
	return &local{sql, "l" + strconv.Itoa(w.aliases)}
}

// values is a VALUES list.
func (w *walker) values(n *planNode) *relation {
	w.child(n)
	var rows [][]*planExpr
	columns := make([][]planValue, len(n.ExprTypes))
	if json.Unmarshal(n.Expressions, &rows) != nil {
		return unknown(len(columns))
	}
	for _, row := range rows {
		for i := range columns {
			if i >= len(row) || row[i] == nil || row[i].Class != "BOUND_CONSTANT" {
				return unknown(len(columns))
			}
			columns[i] = append(columns[i], row[i].Value)
		}
	}
	return w.constants(columns, len(columns))
}

// constants is a relation of rows that the plan itself holds, by column.
func (w *walker) constants(columns [][]planValue, width int) *relation {
	out := unknown(width)
	if len(columns) != width || width == 0 || len(columns[0]) == 0 {
		return out
	}
	rows := make([]string, len(columns[0]))
	for i := range rows {
		cells := make([]string, width)
		for k, c := range columns {
			var ok bool
			if i >= len(c) {
				return out
			}
			if cells[k], ok = literal(c[i]); !ok {
				return out
			}
		}
		rows[i] = "(" + strings.Join(cells, ", ") + ")"
	}
	l := w.local("(VALUES " + strings.Join(rows, ", ") + ")")
	out.group.locals = []*local{l}
	for i := range columns {
		out.cols[i] = &column{sql: l.alias + ".col" + strconv.Itoa(i), locals: out.group.locals}
	}
	return out
}

// snapshot is the local columns of a relation as it is now, as a relation of its own.
func (w *walker) snapshot(r *relation) *relation {
	out := unknown(len(r.cols))
	var items []string
	var used []*local
	for i, c := range r.cols {
		if c != nil && c.sql != "" {
			items = append(items, c.sql+" AS c"+strconv.Itoa(i))
			used = append(used, c.locals...)
		}
	}
	if len(items) == 0 {
		return out
	}
	l := w.local("(SELECT DISTINCT " + strings.Join(items, ", ") + r.group.from(used) + ")")
	out.group.locals = []*local{l}
	for i, c := range r.cols {
		if c != nil && c.sql != "" {
			out.cols[i] = &column{sql: l.alias + ".c" + strconv.Itoa(i), locals: out.group.locals}
		}
	}
	return out
}

// reference is one reference to a CTE.
func (w *walker) reference(def *relation) *relation {
	if !def.tied {
		return w.snapshot(def)
	}
	out := unknown(len(def.cols))
	out.tied = true
	shadows := map[*origin]*origin{}
	for _, s := range def.sources() {
		shadows[s] = &origin{table: s.table}
		s.refs = append(s.refs, shadows[s])
	}
	for i, c := range def.cols {
		if c != nil && c.name != "" {
			out.cols[i] = &column{src: shadows[c.src], name: c.name}
		}
	}
	return out
}

// delimJoin is a join whose inner side depends on the distinct rows of the outer
// one, which a DELIM_GET in it stands for.
func (w *walker) delimJoin(n *planNode) *relation {
	outer, inner := 0, 1
	if n.DelimFlipped {
		outer, inner = 1, 0
	}
	var sides [2]*relation
	sides[outer] = w.walk(n.Children[outer])
	d := &delim{rel: unknown(len(n.DelimColumns)), nested: hasDelimJoin(n.Children[inner])}
	if r := sides[outer]; r != nil {
		d.rel.group = r.group
		for i, e := range n.DelimColumns {
			d.rel.cols[i] = r.trace(e)
		}
	}
	w.delims = append(w.delims, d)
	sides[inner] = w.walk(n.Children[inner])
	w.delims = w.delims[:len(w.delims)-1]
	return w.join(n, sides[0], sides[1])
}

func hasDelimJoin(n *planNode) bool {
	return n != nil && (n.Type == "LOGICAL_DELIM_JOIN" || slices.ContainsFunc(n.Children, hasDelimJoin))
}

// joins says of each join which sides' rows are not needed without a partner, and
// which sides' columns can be traced on. Not in it is FULL. The right side of
// MARK and SINGLE is needed in full: NOT IN asks whether anything is there at all.
var joins = map[string]struct{ needL, needR, keepL, keepR bool }{
	"INNER":      {true, true, true, true},
	"LEFT":       {false, true, true, false},
	"RIGHT":      {true, false, false, true},
	"SEMI":       {true, true, true, false},
	"ANTI":       {false, true, true, false},
	"RIGHT_SEMI": {true, true, false, true},
	"RIGHT_ANTI": {true, false, false, true},
	"MARK":       {false, false, true, false},
	"SINGLE":     {false, false, true, false},
}

func (w *walker) join(n *planNode, l, r *relation) *relation {
	kind := n.JoinType
	if n.Type == "LOGICAL_CROSS_PRODUCT" {
		kind = "INNER"
	}
	j := joins[kind]
	if testMutation == "outer" && kind == "LEFT" {
		j.needL = true
	}
	if n.Type == "LOGICAL_ASOF_JOIN" { // a partner is the nearest row: those of the right side depend on each other
		j.needL, j.needR, j.keepR = false, false, false
	}
	known := l != nil && r != nil
	if l == nil {
		l = unknown(0)
	}
	if r == nil {
		r = unknown(0)
	}

	var mark *column
	if kind == "MARK" && len(n.Conditions) == 1 && n.Conditions[0].Comparison == "COMPARE_EQUAL" {
		c := n.Conditions[0]
		if src, k, ok := linked(l, c.Left, "=", r, c.Right); ok {
			mark = &column{src: src, mark: k.sql(r.group.from(k.locals))}
		}
	}
	// A row that needs a partner is restricted by the group that the partner's rows are of.
	if j.needL && j.needR {
		l.group.merge(r.group)
	}
	for _, c := range n.Conditions {
		op, ok := comparisons[c.Comparison]
		if !ok {
			continue
		}
		a, b := l.column(c.Left), r.column(c.Right)
		same := op == "=" && a != nil && b != nil && a.src != nil && b.src != nil && a.name == b.name && (a.name == "point_id" || a.name == "point_name")
		if same && j.needL {
			a.src.equals = append(a.src.equals, equal{b.src, a.name})
		}
		if same && j.needR {
			b.src.equals = append(b.src.equals, equal{a.src, a.name})
		}
		if j.needL {
			if src, k, ok := linked(l, c.Left, op, r, c.Right); ok {
				src.links = append(src.links, k)
			}
		}
		if j.needR {
			if src, k, ok := linked(r, c.Right, flipped[op], l, c.Left); ok {
				src.links = append(src.links, k)
			}
		}
		if j.needL && j.needR {
			a, la, raiseA, okA := l.local(c.Left)
			b, lb, raiseB, okB := r.local(c.Right)
			if okA && okB && !raiseA && !raiseB {
				g := l.group.root()
				g.conds = append(g.conds, localCond{"(" + a + " " + op + " " + b + ")", append(la, lb...)})
			}
		}
	}

	lcols, rcols := l.project(n.Left).cols, r.project(n.Right).cols
	if !j.keepL {
		lcols = make([]*column, len(lcols))
	}
	if !j.keepR {
		rcols = make([]*column, len(rcols))
	}
	out := &relation{nil, l.group, l.tied || r.tied}
	if !j.keepL {
		out.group = r.group
	}
	if !j.keepL && !j.keepR {
		out.group = &group{}
	}
	switch kind {
	case "SEMI", "ANTI":
		out.cols = lcols
	case "MARK":
		out.cols = append(slices.Clone(lcols), mark)
	case "RIGHT_SEMI", "RIGHT_ANTI":
		out.cols = rcols
	default:
		if !known {
			return nil
		}
		out.cols = append(slices.Clone(lcols), rcols...)
	}
	if n.Type == "LOGICAL_ANY_JOIN" && kind == "INNER" && len(n.Left) == 0 && len(n.Right) == 0 {
		out.filter(n.Condition)
	}
	return out
}

// linked is the condition on the scan that e of r comes from which says that a
// row of the other side satisfies e op o. It holds if o is local and e is of the
// point or of time.
func linked(r *relation, e *planExpr, op string, other *relation, o *planExpr) (*origin, link, bool) {
	value, locals, raises, ok := other.local(o)
	if !ok || raises {
		return nil, link{}, false
	}
	for _, s := range r.sources() {
		x := relaxer{r, s}
		k := link{group: other.group, locals: locals}
		p, isPoint := x.point(e)
		if isPoint && p.raises {
			continue
		}
		lo, hi := p.sql, p.sql
		if k.on = p.on; !isPoint {
			if lo, hi, ok = x.bounds(e); !ok {
				continue
			}
		}
		least := func(from string) string { return "(SELECT min(" + value + ")" + from + ")" }
		most := func(from string) string { return "(SELECT max(" + value + ")" + from + ")" }
		switch in := func(from string) string { return lo + " IN (SELECT " + value + from + ")" }; {
		case op == "=" && isPoint:
			k.sql = func(from string) string { return "(" + in(from) + ")" }
		case op == notDistinct && isPoint:
			k.sql = func(from string) string { return "(" + in(from) + " OR " + lo + " IS NULL)" }
		case op == "=":
			k.sql = func(from string) string {
				return "(" + hi + " >= " + least(from) + " AND " + lo + " <= " + most(from) + ")"
			}
		case op == ">" || op == ">=":
			k.sql = func(from string) string { return "(" + hi + " " + op + " " + least(from) + ")" }
		case op == "<" || op == "<=":
			k.sql = func(from string) string { return "(" + lo + " " + op + " " + most(from) + ")" }
		default:
			continue
		}
		return s, k, true
	}
	return nil, link{}, false
}

// where is the condition on the regions that the source needs.
func (s *origin) where() string {
	var all []string
	add := func(c string) {
		if c != always && !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	for _, c := range s.conds {
		add(c.sql)
	}
	for _, k := range s.links {
		add(k.sql(k.group.from(k.locals)))
	}
	for _, on := range []string{"point_id", "point_name"} {
		for _, o := range s.partners(on, []*origin{s})[1:] {
			for _, c := range o.conds {
				if c.on == on {
					add(c.sql)
				}
			}
			for _, k := range o.links {
				if k.on == on {
					add(k.sql(k.group.from(k.locals)))
				}
			}
		}
	}
	var refs []string
	for _, r := range s.refs {
		refs = append(refs, r.where())
	}
	if len(refs) > 0 && !slices.Contains(refs, always) {
		add("(" + strings.Join(refs, " OR ") + ")")
	}
	if len(all) == 0 {
		return always
	}
	return strings.Join(all, " AND ")
}

// partners are the sources that a row is needed with only if they have the same
// value in the column on, also by way of others; seen are those known.
func (s *origin) partners(on string, seen []*origin) []*origin {
	for _, e := range s.equals {
		if e.on == on && !slices.Contains(seen, e.other) {
			seen = e.other.partners(on, append(seen, e.other))
		}
	}
	return seen
}

// span is what the conditions say about ts.
func (s *origin) span() span {
	out := everything
	for _, c := range s.conds {
		out = out.and(c.span)
	}
	if len(s.refs) == 0 {
		return out
	}
	refs := nothing
	for _, r := range s.refs {
		refs = refs.or(r.span())
	}
	return out.and(refs)
}
