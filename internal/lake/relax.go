package lake

import (
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"etl/internal/utc"
)

// This file turns expressions of a plan into SQL over regions: exactly where
// they are of the point alone, relaxed where they are of time.

const (
	always      = "TRUE"
	notDistinct = "IS NOT DISTINCT FROM"
)

// testMutation makes a rule unsound, to prove that the fuzz notices.
var testMutation string

var comparisons = map[string]string{
	"COMPARE_EQUAL": "=", "COMPARE_NOTEQUAL": "<>", "COMPARE_LESSTHAN": "<", "COMPARE_GREATERTHAN": ">",
	"COMPARE_LESSTHANOREQUALTO": "<=", "COMPARE_GREATERTHANOREQUALTO": ">=",
	"COMPARE_DISTINCT_FROM": "IS DISTINCT FROM", "COMPARE_NOT_DISTINCT_FROM": notDistinct,
}

var (
	flipped = map[string]string{"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "<>": "<>", "IS DISTINCT FROM": "IS DISTINCT FROM", notDistinct: notDistinct}
	negated = map[string]string{"<": ">=", ">": "<=", "<=": ">", ">=": "<", "=": "<>", "<>": "=", "IS DISTINCT FROM": notDistinct, notDistinct: "IS DISTINCT FROM"}
)

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
func ident(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// numeric types of the plan whose constants are JSON numbers.
var numeric = map[string]bool{"TINYINT": true, "SMALLINT": true, "INTEGER": true, "BIGINT": true, "UTINYINT": true, "USMALLINT": true, "UINTEGER": true, "UBIGINT": true, "FLOAT": true, "DOUBLE": true}

// literal is a constant as SQL of the same type, but for a TIMESTAMPTZ, which
// becomes a TIMESTAMP: the session's time zone is UTC.
func literal(v planValue) (string, bool) {
	id := v.Type.ID
	if v.Null {
		return "NULL", true
	}
	switch {
	case id == "VARCHAR":
		var s string
		if json.Unmarshal(v.Value, &s) != nil || strings.ContainsRune(s, 0) {
			return "", false
		}
		return quote(s), true
	case id == "BOOLEAN":
		var b bool
		if json.Unmarshal(v.Value, &b) != nil || string(v.Value) == "null" {
			return "", false
		}
		return strconv.FormatBool(b), true
	case numeric[id]:
		if _, err := strconv.ParseFloat(string(v.Value), 64); err != nil {
			return "", false
		}
		return "(" + string(v.Value) + ")::" + id, true
	}
	if list, ok := elements(v); ok && len(list) > 0 {
		all := make([]string, len(list))
		for i, e := range list {
			if all[i], ok = literal(e); !ok {
				return "", false
			}
		}
		return "[" + strings.Join(all, ", ") + "]", true
	}
	n, ok := integer(v)
	switch {
	case !ok:
	case id == "DATE" && n > math.MinInt32 && n < math.MaxInt32-1:
		return "(DATE '1970-01-01' + (" + strconv.FormatInt(n, 10) + ")::INTEGER)", true
	case id == "TIMESTAMP" || id == "TIMESTAMP WITH TIME ZONE":
		// In UTC both are the same count, and a TIMESTAMPTZ is a hundred times slower.
		s := "make_timestamp((" + strconv.FormatInt(n, 10) + ")::BIGINT)"
		switch {
		case n == math.MaxInt64:
			s = "'infinity'::TIMESTAMP"
		case n <= -math.MaxInt64:
			s = "'-infinity'::TIMESTAMP"
		}
		return s, true
	}
	return "", false
}

// elements are those of a constant list.
func elements(v planValue) ([]planValue, bool) {
	var list struct {
		Children []planValue `json:"children"`
	}
	ok := v.Type.ID == "LIST" && !v.Null && json.Unmarshal(v.Value, &list) == nil
	return list.Children, ok
}

func integer(v planValue) (int64, bool) {
	n, err := strconv.ParseInt(string(v.Value), 10, 64)
	return n, err == nil && !v.Null
}

// interval is a constant interval.
type interval struct{ Months, Days, Micros int64 }

func intervalOf(e *planExpr) (i interval, ok bool) {
	if e == nil || e.Class != "BOUND_CONSTANT" || e.Value.Type.ID != "INTERVAL" || e.Value.Null {
		return i, false
	}
	return i, json.Unmarshal(e.Value.Value, &i) == nil && string(e.Value.Value) != "null"
}

func text(e *planExpr) (s string, ok bool) {
	if e == nil || e.Class != "BOUND_CONSTANT" || e.Value.Type.ID != "VARCHAR" || e.Value.Null {
		return "", false
	}
	return s, json.Unmarshal(e.Value.Value, &s) == nil
}

// renderer writes an expression as the same expression over other columns.
type renderer struct {
	rel  *relation
	leaf func(*column) (string, bool)
	// time, if not nil, stands for a column of time within a function whose value
	// is the same for a whole grain.
	time   func(*column) (string, bool)
	within bool // such a function
	grain  string
	raises bool // evaluating it can fail
}

// Functions that can be evaluated twice with the same result and never fail.
var exact = func() map[string]bool {
	m := map[string]bool{}
	for _, n := range strings.Fields(`prefix suffix contains starts_with ends_with ~~ !~~ ~~* !~~* ~~~ ^@ lower upper lcase ucase
		regexp_matches regexp_full_match regexp_extract regexp_replace like_escape ilike_escape not_like_escape not_ilike_escape
		substring substr left right length len strlen || concat trim ltrim rtrim replace reverse instr strpos % mod greatest least list_contains array_contains list_has array_has`) {
		m[n] = true
	}
	return m
}()

// Functions of time that have one value for a whole month or day.
var grains = map[string]string{
	"year": "month", "month": "month", "quarter": "month", "monthname": "month", "last_day": "month", "decade": "month", "century": "month", "millennium": "month", "era": "month",
	"day": "day", "dayofmonth": "day", "dayofweek": "day", "isodow": "day", "weekday": "day", "dayofyear": "day", "dayname": "day", "week": "day", "weekofyear": "day", "yearweek": "day", "isoyear": "day",
}

var (
	monthFormat = regexp.MustCompile(`^([^%]|%[YymBb])*$`)
	dayFormat   = regexp.MustCompile(`^([^%]|%[YymBbdjaAuw])*$`)
)

// grainOf is the grain that a function call has one value in, or "".
func grainOf(e *planExpr) string {
	switch {
	case grains[e.Name] != "" && len(e.Children) == 1:
		return grains[e.Name]
	case e.Name == "date_trunc" && len(e.Children) == 2:
		switch unit, _ := text(e.Children[0]); strings.TrimSuffix(strings.ToLower(unit), "s") {
		case "month", "quarter", "year", "decade":
			return "month"
		case "week", "day":
			return "day"
		}
	case e.Name == "strftime" && len(e.Children) == 2:
		format, ok := text(e.Children[1])
		switch {
		case ok && monthFormat.MatchString(format):
			return "month"
		case ok && dayFormat.MatchString(format):
			return "day"
		}
	}
	return ""
}

// arithmetic can overflow.
var arithmetic = map[string]bool{"+": true, "-": true, "*": true, "/": true, "//": true, "abs": true}

// castable are the types that are cast between; a cast can fail.
var castable = map[string]bool{"TINYINT": true, "SMALLINT": true, "INTEGER": true, "BIGINT": true, "DOUBLE": true, "FLOAT": true, "VARCHAR": true, "BOOLEAN": true, "DATE": true, "TIMESTAMP": true}

// rank orders the types that a cast up never fails in.
var rank = map[string]int{"BOOLEAN": 1, "TINYINT": 2, "SMALLINT": 3, "INTEGER": 4, "BIGINT": 5, "FLOAT": 6, "DOUBLE": 7, "VARCHAR": 8}

func (x *renderer) all(es []*planExpr) ([]string, bool) {
	out := make([]string, len(es))
	for i, e := range es {
		var ok bool
		if out[i], ok = x.render(e); !ok {
			return nil, false
		}
	}
	return out, len(out) > 0
}

func (x *renderer) render(e *planExpr) (string, bool) {
	if e == nil {
		return "", false
	}
	within := x.within
	switch e.Class {
	case "BOUND_REF":
		c := x.rel.column(e)
		if c == nil {
			return "", false
		}
		if x.within && x.time != nil {
			if s, ok := x.time(c); ok {
				return s, true
			}
		}
		return x.leaf(c)
	case "BOUND_CONSTANT":
		return literal(e.Value)
	case "BOUND_CAST":
		if e.Child == nil {
			return "", false
		}
		from, to := e.Child.Return.ID, e.Return.ID
		isTime := from == "TIMESTAMP" || from == "TIMESTAMP WITH TIME ZONE"
		switch {
		case isTime && to == "DATE" && x.time != nil:
			x.grow("day")
		case isTime && within: // the time zone is UTC
		default:
			x.within = false
		}
		s, ok := x.render(e.Child)
		total := x.within && isTime || rank[from] > 0 && rank[from] <= rank[to]
		x.within = within
		if !ok || !total && !(castable[from] && castable[to]) {
			return "", false
		}
		if e.Try {
			return "TRY_CAST(" + s + " AS " + to + ")", true
		}
		if isTime && to != "DATE" && total { // the same in UTC
			return s, true
		}
		x.raises = x.raises || !total
		return "CAST(" + s + " AS " + to + ")", true
	case "BOUND_FUNCTION":
		grain := grainOf(e)
		switch {
		case grain != "" && x.time != nil:
			x.grow(grain)
		case e.Name == "epoch_ms" && within: // the same time in another type
		case !exact[e.Name] && !arithmetic[e.Name]:
			return "", false
		default:
			x.within = false
		}
		a, ok := x.all(e.Children)
		x.within = within
		if !ok {
			return "", false
		}
		pattern := strings.HasPrefix(e.Name, "regexp_") && (len(e.Children) < 2 || e.Children[1].Class != "BOUND_CONSTANT")
		x.raises = x.raises || arithmetic[e.Name] || pattern
		if strings.Trim(e.Name, "~!*|%+-/^@") == "" {
			return "(" + strings.Join(a, " "+e.Name+" ") + ")", len(a) == 2
		}
		return ident(e.Name) + "(" + strings.Join(a, ", ") + ")", true
	}
	x.within = false
	defer func() { x.within = within }()
	switch e.Class {
	case "BOUND_COMPARISON":
		op := comparisons[e.Type]
		a, ok := x.all([]*planExpr{e.Left, e.Right})
		if !ok || op == "" {
			return "", false
		}
		return "(" + a[0] + " " + op + " " + a[1] + ")", true
	case "BOUND_CONJUNCTION":
		a, ok := x.all(e.Children)
		op := " OR "
		if e.Type == "CONJUNCTION_AND" {
			op = " AND "
		}
		return "(" + strings.Join(a, op) + ")", ok
	case "BOUND_BETWEEN":
		a, ok := x.all([]*planExpr{e.Input, e.Lower, e.Upper})
		if !ok {
			return "", false
		}
		lo, hi := betweenOps(e)
		return "(" + a[0] + " " + lo + " " + a[1] + " AND " + a[0] + " " + hi + " " + a[2] + ")", true
	case "BOUND_OPERATOR":
		a, ok := x.all(e.Children)
		if !ok {
			return "", false
		}
		switch {
		case e.Type == "COMPARE_IN" && len(a) > 1:
			return "(" + a[0] + " IN (" + strings.Join(a[1:], ", ") + "))", true
		case e.Type == "COMPARE_NOT_IN" && len(a) > 1:
			return "(" + a[0] + " NOT IN (" + strings.Join(a[1:], ", ") + "))", true
		case e.Type == "OPERATOR_NOT" && len(a) == 1:
			return "(NOT " + a[0] + ")", true
		case e.Type == "OPERATOR_IS_NULL" && len(a) == 1:
			return "(" + a[0] + " IS NULL)", true
		case e.Type == "OPERATOR_IS_NOT_NULL" && len(a) == 1:
			return "(" + a[0] + " IS NOT NULL)", true
		case e.Type == "OPERATOR_COALESCE":
			return "coalesce(" + strings.Join(a, ", ") + ")", true
		}
	}
	return "", false
}

// grow enters a function that has one value in each grain.
func (x *renderer) grow(grain string) {
	x.within = true
	if x.grain != "day" {
		x.grain = grain
	}
}

func betweenOps(e *planExpr) (lo, hi string) {
	lo, hi = ">", "<"
	if e.LowerInclusive {
		lo = ">="
	}
	if e.UpperInclusive {
		hi = "<="
	}
	return lo, hi
}

// tableFilter is a filter that the plan pushed into the scan of a local table.
func tableFilter(f *planFilter, name string) (string, bool) {
	if f == nil {
		return "", false
	}
	switch f.Type {
	case "CONSTANT_COMPARISON":
		v, ok := literal(f.Constant)
		op := comparisons[f.Comparison]
		return "(" + name + " " + op + " " + v + ")", ok && op != ""
	case "IS_NOT_NULL":
		return "(" + name + " IS NOT NULL)", true
	case "IS_NULL":
		return "(" + name + " IS NULL)", true
	case "CONJUNCTION_AND", "CONJUNCTION_OR":
		var all []string
		for _, c := range f.Children {
			s, ok := tableFilter(c, name)
			switch {
			case ok:
				all = append(all, s)
			case f.Type == "CONJUNCTION_OR":
				return "", false
			}
		}
		op := " AND "
		if f.Type == "CONJUNCTION_OR" {
			op = " OR "
		}
		return "(" + strings.Join(all, op) + ")", len(all) > 0
	case "IN_FILTER":
		all := make([]string, len(f.Values))
		for i, v := range f.Values {
			var ok bool
			if all[i], ok = literal(v); !ok {
				return "", false
			}
		}
		return "(" + name + " IN (" + strings.Join(all, ", ") + "))", len(all) > 0
	case "EXPRESSION_FILTER":
		c := &column{sql: name, locals: []*local{nil}}
		x := renderer{rel: &relation{cols: []*column{c}}, leaf: func(c *column) (string, bool) { return c.sql, true }}
		s, ok := x.render(f.Expr)
		if x.raises {
			s = "coalesce(TRY(" + s + "), TRUE)"
		}
		return s, ok
	}
	return "", false
}

// relaxer turns conditions on a relation into conditions on the regions of one of its scans.
type relaxer struct {
	rel *relation
	src *origin
}

// pointColumn is a column that has one value in a region.
func (x relaxer) pointColumn(c *column) (string, bool) {
	return c.name, c.src == x.src && (c.name == "point_id" || c.name == "point_name")
}

// timeOf says of a column of time which it is. The time of a row of latest is not
// that of a region; of the archive's tables nothing is said.
func (x relaxer) timeOf(c *column) string {
	if c != nil && c.src == x.src && x.src.table == "samples" && (c.name == "ts" || c.name == "timestamp") {
		return c.name
	}
	return ""
}

// pointSQL is an expression of the point alone, as SQL over regions.
type pointSQL struct {
	sql    string
	on     string // the only column in it, else ""
	raises bool
}

func (x relaxer) point(e *planExpr) (p pointSQL, ok bool) {
	some := false
	r := renderer{rel: x.rel, leaf: func(c *column) (string, bool) {
		s, ok := x.pointColumn(c)
		switch {
		case !some:
			p.on = s
		case p.on != s:
			p.on = ""
		}
		some = some || ok
		return s, ok
	}}
	if p.sql, ok = r.render(e); !ok || !some {
		return pointSQL{}, false
	}
	p.raises = r.raises
	return p, true
}

// relax is a condition on regions that is TRUE for each region that may hold a
// row for which e is want.
func (x relaxer) relax(e *planExpr, want bool) string {
	if e == nil {
		return always
	}
	if p, ok := x.point(e); ok {
		return decided(p.sql, p.raises, want)
	}
	switch {
	case e.Class == "BOUND_REF":
		if c := x.rel.column(e); c != nil && c.src == x.src && c.mark != "" && want {
			return c.mark
		}
		return always
	case e.Class == "BOUND_CONJUNCTION":
		var all []string
		for _, c := range e.Children {
			all = append(all, x.relax(c, want))
		}
		if (e.Type == "CONJUNCTION_AND") == want {
			return and(all)
		}
		return or(all)
	case e.Class == "BOUND_OPERATOR" && e.Type == "OPERATOR_NOT" && len(e.Children) == 1:
		return x.relax(e.Children[0], !want)
	}
	return and([]string{x.relaxTime(e, want), x.relaxGrain(e, want)})
}

// decided is a condition that every row of a region decides alike.
func decided(sql string, raises, want bool) string {
	if !want {
		sql = "NOT " + sql
	}
	if raises {
		return "coalesce(TRY(" + sql + "), TRUE)"
	}
	return "coalesce(" + sql + ", FALSE)"
}

func and(all []string) string {
	all = slices.DeleteFunc(all, func(s string) bool { return s == always })
	switch len(all) {
	case 0:
		return always
	case 1:
		return all[0]
	}
	return "(" + strings.Join(all, " AND ") + ")"
}

func or(all []string) string {
	if len(all) == 0 || slices.Contains(all, always) {
		return always
	}
	return "(" + strings.Join(all, " OR ") + ")"
}

// relaxGrain takes e as it is if all of a region is in one month, or day, and the
// functions of time in e have one value there.
func (x relaxer) relaxGrain(e *planExpr, want bool) string {
	r := renderer{rel: x.rel, leaf: x.pointColumn, time: func(c *column) (string, bool) {
		switch x.timeOf(c) {
		case "ts":
			return "t_min", true
		case "timestamp":
			return "epoch_ms(t_min)", true
		}
		return "", false
	}}
	sql, ok := r.render(e)
	if !ok || r.grain == "" {
		return always
	}
	return "(datediff('" + r.grain + "', t_min, t_max) <> 0 OR " + decided(sql, r.raises, want) + ")"
}

// relaxTime compares the bounds of a region with constants.
func (x relaxer) relaxTime(e *planExpr, want bool) string {
	switch e.Class {
	case "BOUND_COMPARISON":
		l, r, op := e.Left, e.Right, comparisons[e.Type]
		if l != nil && l.Class == "BOUND_CONSTANT" {
			l, r, op = r, l, flipped[op]
		}
		if !want {
			op = negated[op]
		}
		return x.possible(l, op, r)
	case "BOUND_BETWEEN":
		lo, hi := betweenOps(e)
		if want {
			return and([]string{x.possible(e.Input, lo, e.Lower), x.possible(e.Input, hi, e.Upper)})
		}
		return or([]string{x.possible(e.Input, negated[lo], e.Lower), x.possible(e.Input, negated[hi], e.Upper)})
	case "BOUND_OPERATOR":
		if e.Type == "COMPARE_IN" && want && len(e.Children) > 1 {
			var all []string
			for _, c := range e.Children[1:] {
				all = append(all, x.possible(e.Children[0], "=", c))
			}
			return or(all)
		}
	case "BOUND_FUNCTION":
		if e.Name == "prefix" && want && len(e.Children) == 2 {
			lo, hi, ok := x.bounds(e.Children[0])
			p, ok2 := text(e.Children[1])
			v, ok3 := literal(e.Children[1].Value)
			if ok && ok2 && ok3 {
				n := strconv.Itoa(len([]rune(p)))
				return "(left(" + lo + ", " + n + ") <= " + v + " AND left(" + hi + ", " + n + ") >= " + v + ")"
			}
		}
	}
	return always
}

// possible is whether e, between its bounds in a region, can be op the constant c.
func (x relaxer) possible(e *planExpr, op string, c *planExpr) string {
	lo, hi, ok := x.bounds(e)
	if !ok || c == nil || c.Class != "BOUND_CONSTANT" {
		return always
	}
	v, ok := literal(c.Value)
	if !ok {
		return always
	}
	if testMutation == "time" {
		hi = lo
	}
	switch op {
	case "=", notDistinct:
		return "(" + lo + " <= " + v + " AND " + hi + " >= " + v + ")"
	case "<", "<=":
		return "(" + lo + " " + op + " " + v + ")"
	case ">", ">=":
		return "(" + hi + " " + op + " " + v + ")"
	}
	return always
}

// rising are the casts that keep order, in a session whose time zone is UTC.
var rising = map[string][]string{
	"TIMESTAMP":                {"TIMESTAMP WITH TIME ZONE", "DATE", "VARCHAR"},
	"TIMESTAMP WITH TIME ZONE": {"TIMESTAMP", "DATE"},
	"DATE":                     {"TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "VARCHAR"},
	"BIGINT":                   {"DOUBLE"},
	"DOUBLE":                   {"BIGINT"},
}

// sortedFormat is a strftime format whose texts sort as the times do.
var sortedFormat = regexp.MustCompile(`^%Y([-/.]?%m([-/.]?%d([ T]?%H(:?%M(:?%S)?)?)?)?)?Z?$`)

// bounds is SQL over regions between which e is for every row of a region: e is a
// function of ts that never falls.
func (x relaxer) bounds(e *planExpr) (lo, hi string, ok bool) {
	if e == nil {
		return "", "", false
	}
	wrap := func(e *planExpr, before, after string) (string, string, bool) {
		lo, hi, ok := x.bounds(e)
		return before + lo + after, before + hi + after, ok
	}
	arg := func(i int) *planExpr {
		if i < len(e.Children) {
			return e.Children[i]
		}
		return nil
	}
	switch e.Class {
	case "BOUND_REF":
		switch x.timeOf(x.rel.column(e)) {
		case "ts":
			return "t_min", "t_max", true
		case "timestamp":
			return "epoch_ms(t_min)", "epoch_ms(t_max)", true
		}
	case "BOUND_CAST":
		if e.Child == nil || !slices.Contains(rising[e.Child.Return.ID], e.Return.ID) {
			return "", "", false
		}
		if e.Return.ID == "TIMESTAMP WITH TIME ZONE" || e.Child.Return.ID == "TIMESTAMP WITH TIME ZONE" && e.Return.ID == "TIMESTAMP" { // as literal does
			if e.Child.Return.ID != "DATE" {
				return x.bounds(e.Child)
			}
			return wrap(e.Child, "CAST(", " AS TIMESTAMP)")
		}
		return wrap(e.Child, "CAST(", " AS "+e.Return.ID+")")
	case "BOUND_FUNCTION":
		n := len(e.Children)
		switch e.Name {
		case "epoch_ms", "epoch_us", "epoch", "year", "make_timestamp", "last_day":
			if n == 1 {
				return wrap(arg(0), e.Name+"(", ")")
			}
		case "to_timestamp":
			if n == 1 {
				return wrap(arg(0), "make_timestamp(CAST(", " * 1000000.0::DOUBLE AS BIGINT))")
			}
		case "date_trunc":
			if unit, ok := text(arg(0)); ok && n == 2 {
				return wrap(arg(1), "date_trunc("+quote(unit)+", ", ")")
			}
		case "time_bucket":
			if i, ok := intervalOf(arg(0)); ok && n == 2 && i.positive() && e.Return.ID != "TIMESTAMP WITH TIME ZONE" {
				return wrap(arg(1), "time_bucket("+i.sql()+", ", ")")
			}
		case "strftime":
			if f, ok := text(arg(1)); ok && n == 2 && sortedFormat.MatchString(f) && grainOf(e) != "month" {
				return wrap(arg(0), "strftime(", ", "+quote(f)+")")
			}
		case "timezone": // wall time: no zone is more than 16 hours off
			if zone, ok := text(arg(0)); ok && n == 2 {
				lo, hi, ok := x.bounds(arg(1))
				if strings.EqualFold(zone, "UTC") {
					return lo, hi, ok
				}
				return "(" + lo + " - INTERVAL 16 HOUR)", "(" + hi + " + INTERVAL 16 HOUR)", ok
			}
		case "+", "-":
			if i, ok := intervalOf(arg(1)); ok && n == 2 && i.Months == 0 && i.small() {
				return wrap(arg(0), "(", " "+e.Name+" "+i.sql()+")")
			}
		case "*", "/", "//":
			c := arg(1)
			if n != 2 || c == nil || c.Class != "BOUND_CONSTANT" || !numeric[c.Value.Type.ID] {
				return "", "", false
			}
			f, err := strconv.ParseFloat(string(c.Value.Value), 64)
			v, ok := literal(c.Value)
			if err == nil && ok && f >= 1 && f <= 10_000 { // ms of the year 9999 times 10,000 fit in a BIGINT
				return wrap(arg(0), "(", " "+e.Name+" "+v+")")
			}
		}
	}
	return "", "", false
}

// positive intervals are of one kind of unit, as time_bucket wants them.
func (i interval) positive() bool {
	return i.small() && i.Months >= 0 && i.Days >= 0 && i.Micros >= 0 && (i.Months > 0) != (i.Days > 0 || i.Micros > 0)
}

// small intervals do not take a time of the archive out of range.
func (i interval) small() bool {
	const years = 1000
	return abs(i.Months) <= 12*years && abs(i.Days) <= 365*years && abs(i.Micros) <= 365*years*utc.DayMillis*1000
}

func abs(n int64) int64 { return max(n, -n) }

func (i interval) sql() string {
	return "(to_months((" + strconv.FormatInt(i.Months, 10) + ")::INTEGER) + to_days((" + strconv.FormatInt(i.Days, 10) + ")::INTEGER) + to_microseconds((" + strconv.FormatInt(i.Micros, 10) + ")::BIGINT))"
}

// span is a range of time in Unix milliseconds, both ends inclusive.
type span struct{ from, to int64 }

var (
	everything = span{math.MinInt64, math.MaxInt64}
	nothing    = span{math.MaxInt64, math.MinInt64}
)

func (s span) and(o span) span { return span{max(s.from, o.from), min(s.to, o.to)} }
func (s span) or(o span) span  { return span{min(s.from, o.from), max(s.to, o.to)} }

// span bounds ts for all rows for which e is want.
func (x relaxer) span(e *planExpr, want bool) span {
	if e == nil {
		return everything
	}
	switch e.Class {
	case "BOUND_CONJUNCTION":
		both := (e.Type == "CONJUNCTION_AND") == want
		out := nothing
		if both {
			out = everything
		}
		for _, c := range e.Children {
			if both {
				out = out.and(x.span(c, want))
			} else {
				out = out.or(x.span(c, want))
			}
		}
		return out
	case "BOUND_COMPARISON":
		l, r, op := e.Left, e.Right, comparisons[e.Type]
		if l != nil && l.Class == "BOUND_CONSTANT" {
			l, r, op = r, l, flipped[op]
		}
		if !want {
			op = negated[op]
		}
		return x.compared(l, op, r)
	case "BOUND_BETWEEN":
		lo, hi := betweenOps(e)
		if want {
			return x.compared(e.Input, lo, e.Lower).and(x.compared(e.Input, hi, e.Upper))
		}
		return x.compared(e.Input, negated[lo], e.Lower).or(x.compared(e.Input, negated[hi], e.Upper))
	case "BOUND_OPERATOR":
		switch {
		case e.Type == "OPERATOR_NOT" && len(e.Children) == 1:
			return x.span(e.Children[0], !want)
		case e.Type == "COMPARE_IN" && want && len(e.Children) > 1:
			out := nothing
			for _, c := range e.Children[1:] {
				out = out.or(x.compared(e.Children[0], "=", c))
			}
			return out
		}
	}
	return everything
}

// compared bounds ts by a comparison of e with a constant.
func (x relaxer) compared(e *planExpr, op string, c *planExpr) span {
	unit, width, ok := x.floor(e)
	if !ok || c == nil || c.Class != "BOUND_CONSTANT" || c.Value.Type.ID != e.Return.ID {
		return everything
	}
	n, ok := integer(c.Value)
	if limit := int64(1<<62) / max(1, unit); !ok || n > limit || n < -limit { // 'infinity', and what would overflow
		return everything
	}
	n *= unit
	// e <= ts < e + width, or e = ts where width is 0; all in microseconds.
	last := n + max(0, width-1)
	out := everything
	switch op {
	case "=":
		out = span{n, last}
	case ">=":
		out.from = n
	case ">":
		out.from = n + 1
	case "<=":
		out.to = last
	case "<":
		out.to = last - 1
		if width > 0 {
			out.to = last // e + unit <= c is not known of every e
		}
	}
	if testMutation == "span" && width > 0 {
		out.to = min(out.to, n-1)
	}
	// ts is of whole milliseconds.
	if out.from != math.MinInt64 {
		out.from = floorDiv(out.from+999, 1000)
	}
	if out.to != math.MaxInt64 {
		out.to = floorDiv(out.to, 1000)
	}
	return out
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// floor says that e is ts rounded down: by less than width, in units, both in microseconds.
func (x relaxer) floor(e *planExpr) (unit, width int64, ok bool) {
	const day = utc.DayMillis * 1000
	if e == nil {
		return 0, 0, false
	}
	arg := func(i int) *planExpr {
		if i < len(e.Children) {
			return e.Children[i]
		}
		return nil
	}
	switch e.Class {
	case "BOUND_REF":
		switch x.timeOf(x.rel.column(e)) {
		case "ts":
			return 1, 0, true
		case "timestamp":
			return 1000, 0, true
		}
	case "BOUND_CAST":
		if e.Child == nil {
			return 0, 0, false
		}
		unit, width, ok = x.floor(e.Child)
		switch from, to := e.Child.Return.ID, e.Return.ID; {
		case from == "TIMESTAMP" && to == "TIMESTAMP WITH TIME ZONE", from == "TIMESTAMP WITH TIME ZONE" && to == "TIMESTAMP":
			return unit, width, ok
		case to == "DATE" && (from == "TIMESTAMP" || from == "TIMESTAMP WITH TIME ZONE"):
			return day, width + day, ok
		case from == "DATE" && (to == "TIMESTAMP" || to == "TIMESTAMP WITH TIME ZONE"):
			return 1, width, ok
		}
	case "BOUND_FUNCTION":
		switch n := len(e.Children); {
		case e.Name == "epoch_ms" && n == 1 && e.Return.ID == "BIGINT":
			_, width, ok = x.floor(arg(0))
			return 1000, width, ok
		case e.Name == "epoch_ms" && n == 1 && e.Return.ID == "TIMESTAMP":
			_, width, ok = x.floor(arg(0))
			return 1, width, ok
		case e.Name == "date_trunc" && n == 2:
			name, _ := text(arg(0))
			w := map[string]int64{"second": day / 86400, "minute": day / 1440, "hour": day / 24, "day": day, "week": 7 * day, "month": 31 * day, "quarter": 92 * day, "year": 366 * day}[strings.ToLower(name)]
			unit, width, ok = x.floor(arg(1))
			if e.Return.ID == "DATE" {
				unit = day
			}
			return unit, width + w, ok && w > 0
		case e.Name == "time_bucket" && n == 2:
			i, isConst := intervalOf(arg(0))
			unit, width, ok = x.floor(arg(1))
			if e.Return.ID == "DATE" {
				unit = day
			}
			return unit, width + i.Months*31*day + i.Days*day + i.Micros, ok && isConst && i.positive()
		}
	}
	return 0, 0, false
}
