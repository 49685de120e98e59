package sql

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed duckdb/*.sql
var library embed.FS

// Query is a named query: one SELECT over the tables of the lake in DuckDB's
// SQL, with parameters as $name. Its file opens with a header of comments:
//
//	-- title: one line
//	-- about: more, if there is more to say                  (optional)
//	-- param: NAME TYPE[MIN,MAX] [= DEFAULT]  meaning, after two spaces or after the default
//	-- column: NAME  meaning
//	-- example: etl query @NAME …
type Query struct {
	Name    string   `json:"name"` // trend, of duckdb/trend.sql
	Title   string   `json:"title"`
	About   string   `json:"about,omitempty"`
	Params  []Param  `json:"params"`
	Columns []Column `json:"columns"`
	Example string   `json:"example"`
	SQL     string   `json:"sql"` // without the header
}

// Param is a parameter of a named query. Its type is one of
//
//	text          as it is
//	glob          a pattern of names: * is any text, ? any one character
//	time          a moment in UTC: 2024-02-18, 2024-02-18 06:00, RFC 3339, or relative: now, today, -7d, -90m
//	day           2024-02-18, or relative: today, -7d
//	duration      30s, 15m, 1h30m, 7d
//	int, number   a whole or any finite number
//	zone          a time zone, like Europe/Berlin
//	a|b|c         one of these words
//
// The header bounds an int or number by [MIN,MAX], inclusive; either may be left
// out, as in int[1,].
//
// A statement casts what it is given to the type that it needs, so that a
// parameter may be put in as a string.
type Param struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Default  string `json:"default,omitempty"`
	Required bool   `json:"required"` // it has no default
	Meaning  string `json:"meaning"`
	// Least and Most bound a number, nil for no bound.
	Least *float64 `json:"least,omitempty"`
	Most  *float64 `json:"most,omitempty"`
}

// Column is a column of a named query's answer.
type Column struct {
	Name    string `json:"name"`
	Meaning string `json:"meaning"`
}

// Queries are the named queries, by name.
func Queries() []Query {
	names, err := fs.Glob(library, "duckdb/*.sql")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	qs := make([]Query, len(names))
	for i, name := range names {
		text, err := library.ReadFile(name)
		if err != nil {
			panic(err) // the file is part of the program
		}
		base := strings.TrimSuffix(strings.TrimPrefix(name, "duckdb/"), ".sql")
		if qs[i], err = parseQuery(base, string(text)); err != nil {
			panic(err) // a test parses them all
		}
	}
	slices.SortFunc(qs, func(a, b Query) int { return cmp.Compare(a.Name, b.Name) }) // not as the files: trend before trend-downsampled
	return qs
}

// parseQuery reads the text of a file.
func parseQuery(name, text string) (Query, error) {
	q := Query{Name: name}
	for n := 1; ; n++ {
		line, rest, _ := strings.Cut(text, "\n")
		field, ok := strings.CutPrefix(line, "-- ")
		if !ok {
			break
		}
		key, value, ok := strings.Cut(field, ": ")
		if value = strings.TrimSpace(value); !ok || value == "" {
			return q, fmt.Errorf("%s.sql:%d: want `-- key: value`", name, n)
		}
		switch key {
		case "title":
			q.Title = value
		case "about":
			q.About = value
		case "example":
			q.Example = value
		case "column":
			column, meaning, _ := strings.Cut(value, " ")
			q.Columns = append(q.Columns, Column{column, strings.TrimSpace(meaning)})
		case "param":
			p, err := parseParam(value)
			if err != nil {
				return q, fmt.Errorf("%s.sql:%d: %w", name, n, err)
			}
			q.Params = append(q.Params, p)
		default:
			return q, fmt.Errorf("%s.sql:%d: unknown key %q", name, n, key)
		}
		text = rest
	}
	q.SQL = strings.TrimSuffix(strings.TrimSpace(text), ";")
	if q.Title == "" || q.Example == "" || len(q.Columns) == 0 || q.SQL == "" {
		return q, fmt.Errorf("%s.sql: want a title, columns, an example and a statement", name)
	}
	return q, nil
}

// parseParam reads NAME TYPE [= DEFAULT] MEANING.
func parseParam(text string) (Param, error) {
	words := strings.Fields(text)
	if len(words) < 3 {
		return Param{}, fmt.Errorf("parameter %q: want a name, a type and a meaning", text)
	}
	p := Param{Name: words[0], Type: words[1], Required: true}
	if typ, bounds, ok := strings.Cut(words[1], "["); ok {
		p.Type = typ
		least, most, ok := strings.Cut(strings.TrimSuffix(bounds, "]"), ",")
		if !ok || !strings.HasSuffix(bounds, "]") || typ != "int" && typ != "number" {
			return Param{}, fmt.Errorf("parameter %s: type %q: want int[MIN,MAX] or number[MIN,MAX]", p.Name, words[1])
		}
		for _, b := range []struct {
			text string
			to   **float64
		}{{least, &p.Least}, {most, &p.Most}} {
			if b.text == "" {
				continue
			}
			x, err := strconv.ParseFloat(b.text, 64)
			if err != nil {
				return Param{}, fmt.Errorf("parameter %s: type %q: %w", p.Name, words[1], err)
			}
			*b.to = &x
		}
	}
	words = words[2:]
	if words[0] == "=" && len(words) > 2 {
		p.Default, p.Required = words[1], false
		words = words[2:]
	}
	p.Meaning = strings.Join(words, " ")
	if !p.Required {
		if _, err := p.value(p.Default, time.Unix(0, 0)); err != nil {
			return p, fmt.Errorf("parameter %s: default: %w", p.Name, err)
		}
	}
	return p, nil
}

// Bind gives each parameter of q its value: that in given, or its default, in the
// form that the statement takes: relative times are worked out from now. Its
// errors say what is wrong with what was given.
func (q *Query) Bind(given map[string]string, now time.Time) (map[string]string, error) {
	for name := range given {
		if !slices.ContainsFunc(q.Params, func(p Param) bool { return p.Name == name }) {
			return nil, fmt.Errorf("@%s has no parameter %q, it has %s", q.Name, name, cmp.Or(strings.Join(q.names(), ", "), "none"))
		}
	}
	bound := make(map[string]string, len(q.Params))
	for _, p := range q.Params {
		text, ok := given[p.Name]
		if !ok {
			if p.Required {
				return nil, fmt.Errorf("@%s needs the parameter %s (%s): %s", q.Name, p.Name, p.Type, p.Meaning)
			}
			text = p.Default
		}
		v, err := p.value(text, now)
		if err != nil {
			return nil, fmt.Errorf("parameter %s: %w", p.Name, err)
		}
		bound[p.Name] = v
	}
	// Both are moments or both are days, so that their texts compare as they do.
	if from, to := bound["from"], bound["to"]; from != "" && to != "" && from >= to {
		return nil, fmt.Errorf("the range is empty: from %s is not before to %s", from, to)
	}
	return bound, nil
}

func (q *Query) names() []string {
	var names []string
	for _, p := range q.Params {
		names = append(names, p.Name)
	}
	return names
}

// value checks text and brings it into the form that a statement casts from.
func (p *Param) value(text string, now time.Time) (string, error) {
	now = now.UTC()
	switch p.Type {
	case "text", "glob", "zone":
		if text == "" {
			return "", fmt.Errorf("want a %s, it is empty", p.Type)
		}
		if p.Type == "glob" { // only * and ? are special, as everywhere in etl
			text = strings.ReplaceAll(text, "[", "[[]")
		}
		return text, nil
	case "time":
		t, err := moment(text, now)
		return t.Format("2006-01-02 15:04:05.000"), err
	case "day":
		t, err := moment(text, midnight(now))
		if err == nil && !t.Equal(midnight(t)) {
			err = fmt.Errorf("want a day like 2024-02-18, today or -7d, got %q", text)
		}
		return t.Format(time.DateOnly), err
	case "duration":
		d, err := duration(text)
		return strconv.FormatInt(d.Milliseconds(), 10) + " milliseconds", err
	case "int":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return "", fmt.Errorf("want a whole number, got %q", text)
		}
		if err := p.within(float64(n), text); err != nil {
			return "", err
		}
		return strconv.FormatInt(n, 10), nil
	case "number":
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
			return "", fmt.Errorf("want a number, got %q", text)
		}
		if err := p.within(x, text); err != nil {
			return "", err
		}
		return strconv.FormatFloat(x, 'g', -1, 64), nil
	}
	words := strings.Split(p.Type, "|")
	if len(words) < 2 {
		return "", fmt.Errorf("unknown type %q", p.Type)
	}
	if !slices.Contains(words, text) {
		return "", fmt.Errorf("want %s, got %q", strings.Join(words, " or "), text)
	}
	return text, nil
}

// within refuses a number that is out of bounds.
func (p *Param) within(x float64, text string) error {
	if (p.Least == nil || x >= *p.Least) && (p.Most == nil || x <= *p.Most) {
		return nil
	}
	kind := map[string]string{"int": "a whole number", "number": "a number"}[p.Type]
	return fmt.Errorf("want %s%s, got %q", kind, p.Range(), text)
}

// Range is what bounds a number, to be read after its type; "" for nothing.
func (p *Param) Range() string {
	number := func(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }
	switch {
	case p.Least != nil && p.Most != nil:
		return " from " + number(*p.Least) + " to " + number(*p.Most)
	case p.Least != nil:
		return " from " + number(*p.Least) + " on"
	case p.Most != nil:
		return " up to " + number(*p.Most)
	}
	return ""
}

func midnight(t time.Time) time.Time { return t.Truncate(24 * time.Hour) }

// layouts are the ways to write a moment; without a zone it is UTC.
var layouts = []string{
	time.DateOnly, "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02T15:04:05",
	"2006-01-02 15:04:05Z07:00", "2006-01-02 15:04Z07:00", "2006-01-02T15:04Z07:00", time.RFC3339,
}

// moment parses a time, relative ones being counted from now.
func moment(text string, now time.Time) (time.Time, error) {
	if text == "now" {
		return now, nil
	}
	if text == "today" {
		return midnight(now), nil
	}
	if ago, ok := strings.CutPrefix(text, "-"); ok {
		d, err := duration(ago)
		if err != nil {
			return time.Time{}, fmt.Errorf("want a time, or how long ago like -7d, got %q", text)
		}
		return now.Add(-d), nil
	}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, text); err == nil && t.Year() > 0 {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("want a time like 2024-02-18 or 2024-02-18T06:00:00Z (UTC), now, or how long ago like -7d; got %q", text)
}

// duration is time.ParseDuration with days before the rest: 7d, 1d12h.
func duration(text string) (time.Duration, error) {
	bad := fmt.Errorf("want a duration like 15m, 1h or 7d, got %q", text)
	var d time.Duration
	if days, rest, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 32)
		if err != nil || n > 100_000 { // 292 years are all that a Duration holds
			return 0, bad
		}
		if d = time.Duration(n) * 24 * time.Hour; rest == "" && d > 0 {
			return d, nil
		}
		text = rest
	}
	rest, err := time.ParseDuration(text)
	if err != nil || rest < 0 || d+rest < time.Millisecond || d+rest < d {
		return 0, bad
	}
	return d + rest, nil
}
