package lake

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"etl/internal/fault"

	"pgregory.net/rapid"
)

func TestGateRefuses(t *testing.T) {
	p := newPlanner(t)
	for _, c := range []struct{ sql, says string }{
		{``, "empty"},
		{`-- nothing`, "empty"},
		{`SELECT 1; SELECT 2`, "2 statements"},
		{`SELECT 1; DROP TABLE lake.points`, "only one SELECT"},
		{`DROP TABLE lake.points`, "only one SELECT"},
		{`CREATE TABLE x AS SELECT 1`, "only one SELECT"},
		{`INSERT INTO lake.points (id) VALUES (1)`, "only one SELECT"},
		{`COPY (SELECT 1) TO 'x.parquet'`, "only one SELECT"},
		{`COPY lake.points FROM '/etc/passwd'`, "only one SELECT"},
		{`ATTACH 'x.db'`, "only one SELECT"},
		{`INSTALL httpfs`, "only one SELECT"},
		{`LOAD httpfs`, "only one SELECT"},
		{`SET memory_limit='1TB'`, "only one SELECT"},
		{`RESET memory_limit`, "only one SELECT"},
		{`PRAGMA database_list`, "only one SELECT"},
		{`CALL checkpoint()`, "only one SELECT"},
		{`CHECKPOINT`, "only one SELECT"},
		{`EXPLAIN ANALYZE SELECT 1`, "only one SELECT"},
		{`EXPORT DATABASE 'x'`, "only one SELECT"},
		{`BEGIN`, "only one SELECT"},
		{`PREPARE x AS SELECT 1`, "only one SELECT"},
		{`PIVOT samples ON point_name USING avg(value)`, "PIVOT"},
		{`SELECT * FROM read_csv('/etc/passwd')`, "read_csv()"},
		{`SELECT * FROM ReAd_TeXt('/etc/passwd')`, "read_text()"},
		{`SELECT * FROM system.main.read_blob('/etc/passwd')`, "read_blob()"},
		{`SELECT (SELECT count(*) FROM read_parquet('*.parquet'))`, "read_parquet()"},
		{`WITH x AS (SELECT * FROM glob('*')) SELECT 1`, "glob()"},
		{`SELECT 1 WHERE EXISTS (FROM parquet_metadata('x'))`, "parquet_metadata()"},
		{`SELECT * FROM samples, LATERAL (SELECT * FROM sniff_csv('x'))`, "sniff_csv()"},
		{`PIVOT (FROM read_json('x')) ON a IN (1) USING count(*)`, "read_json()"},
		{`SELECT 1 UNION ALL SELECT 1 FROM parquet_scan('x')`, "parquet_scan()"},
		{`WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r, read_csv('x')) FROM r`, "read_csv()"},
		{`SELECT list_transform([1], lambda x: (SELECT count(*) FROM read_csv('x')))`, "read_csv()"},
		{`SELECT * FROM arrow_scan(1, 1, 1)`, "arrow_scan()"},
		{`SELECT * FROM query('DROP TABLE lake.points')`, "query()"},
		{`SELECT * FROM query_table('x.parquet')`, "query_table()"},
		{`SELECT * FROM json_execute_serialized_sql('x')`, "json_execute_serialized_sql()"},
		{`SELECT * FROM enable_logging()`, "enable_logging()"},
		{`SELECT * FROM checkpoint()`, "checkpoint()"},
		{`SELECT * FROM samples_stub()`, "samples_stub()"},
		{`SELECT * FROM seq_scan('x')`, "seq_scan()"},
		{`SELECT * FROM histogram('samples', value)`, "histogram()"},
		{`SELECT * FROM 'x.parquet'`, "is a file"},
		{`SELECT * FROM "/etc/passwd"`, "is a file"},
		{`FROM 'https://example.com/x'`, "is a file"},
		{`FROM data.parquet`, "is a file"},
		{`FROM "x.CSV.gz"`, "is a file"},
		{`DESCRIBE 'x.parquet'`, "is a file"},
		{`SUMMARIZE 'x.csv'`, "is a file"},
		{`SELECT * FROM lake.points`, "no table lake.points"},
		{`SELECT * FROM memory.lake.points`, "no table memory.lake.points"},
		{`SELECT json_serialize_plan('SELECT * FROM arrow_scan(1, 1, 1)')`, "json_serialize_plan()"},
		{`SELECT sleep_ms(1000000)`, "sleep_ms()"},
		{`SELECT pg_sleep(1000000)`, "pg_sleep()"},
		{`SELECT (1000).sleep_ms()`, "sleep_ms()"},
		{`SELECT write_log('x')`, "write_log()"},
		{`SELECT setseed(0.5)`, "setseed()"},
		{`SELECT __internal_compress_integral_utinyint(1, 1)`, "__internal"},
		{`SELECT sum(nextval('x')) OVER ()`, "nextval()"},
		{"SELECT '\x00'", "not UTF-8"},
		{"SELECT '\xff'", "not UTF-8"},
		{`SELEC 1`, `at or near "SELEC" (line 1, column 1)`},
		{"SELECT 1,\n  'é' FRM x y", `(line 2, column 11)`},
		{`SELECT nothing FROM samples`, `"nothing" not found`},
		{`SELECT * FROM sample`, `Did you mean "samples"`},
		{`SELECT nosuch(1)`, "nosuch"},
		{`SELECT point_name + 1 FROM samples`, "+"},
	} {
		_, err := parse(t.Context(), p.Conn, c.sql, nil)
		switch {
		case err == nil:
			t.Errorf("%s: accepted", c.sql)
		case !fault.Is(err, fault.Usage):
			t.Errorf("%s: %v is %v", c.sql, err, fault.KindOf(err))
		case !strings.Contains(err.Error(), c.says):
			t.Errorf("%s: %v\n\tdoes not say %q", c.sql, err, c.says)
		case strings.Contains(err.Error(), "_stub") && !strings.Contains(c.sql, "_stub"):
			t.Errorf("%s: %v\n\tnames a stub", c.sql, err)
		}
	}
	if n := listed(t, p.Conn, `SELECT count(*) FROM duckdb_tables() WHERE table_name = 'points'`); n[0] != "1" {
		t.Error("a refused statement ran")
	}
}

func TestGateAccepts(t *testing.T) {
	p := newPlanner(t)
	p.execute(t, `CREATE TEMP TABLE mine AS SELECT 1 AS x`)
	for _, c := range []struct{ sql, tables string }{
		{`SELECT 1`, ""},
		{`SELECT 1;`, ""},
		{`VALUES (1), (2)`, ""},
		{`FROM samples`, "samples"},
		{`WITH x AS (SELECT * FROM Samples) SELECT * FROM x JOIN points USING (point_id)`, "points samples"},
		{`WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 3) FROM r`, ""},
		{`PIVOT samples ON point_name IN ('a', 'b') USING avg(value) GROUP BY ts`, "samples"},
		{`UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b`, ""},
		{`DESCRIBE samples`, "samples"},
		{`DESCRIBE SELECT * FROM latest`, "latest"},
		{`SHOW TABLES`, ""},
		{`SHOW ALL TABLES`, ""},
		{`SUMMARIZE samples`, "samples"},
		{`SELECT * FROM mine, temp.mine m`, "mine"},
		{`SELECT * FROM range(3), generate_series(1, 3), unnest([1, 2]), repeat(1, 2)`, ""},
		{`SELECT * FROM json_each('{"a": 1}')`, ""},
		{`SELECT * FROM duckdb_functions()`, ""},
		{`SELECT column_name FROM information_schema.columns`, "columns"},
		{`SELECT 'a; DROP TABLE x', "point_name" FROM samples -- ; DROP`, "samples"},
		{`SELECT * FROM samples TABLESAMPLE 1%`, "samples"},
		{`SELECT point_name.upper().length() FROM samples`, "samples"},
		{`SELECT list_transform([1, 2], lambda x: x + 1)`, ""},
		{`SELECT avg(value) OVER (PARTITION BY point_id ORDER BY ts ROWS 3 PRECEDING) FROM samples QUALIFY row_number() OVER () < 5`, "samples"},
		{`SELECT timestamp, value FROM timeseries WHERE point_id = 1`, "timeseries"},
		{`SELECT current_setting('TimeZone'), now(), random(), version()`, ""},
		{`SELECT CASE WHEN value > 5 THEN error('high') END FROM samples`, "samples"},
	} {
		s, err := parse(t.Context(), p.Conn, c.sql, nil)
		if err != nil {
			t.Errorf("%s: %v", c.sql, err)
			continue
		}
		if got := strings.Join(s.Tables, " "); got != c.tables || s.SQL != strings.TrimSuffix(c.sql, ";") {
			t.Errorf("%s: %q, tables %q, want %q", c.sql, s.SQL, got, c.tables)
		}
	}
}

// TestFunctionsKnown: each function of this DuckDB was judged. A new one, after an
// upgrade, is to be judged too: then FUNCTIONS=1 writes the list anew.
func TestFunctionsKnown(t *testing.T) {
	p := newPlanner(t)
	got := listed(t, p.Conn, `SELECT DISTINCT CASE WHEN function_type IN ('table', 'table_macro') THEN 'from ' ELSE '' END || function_name AS f FROM duckdb_functions()
		WHERE function_type <> 'pragma' AND function_name NOT LIKE '%`+stubSuffix+`' ORDER BY f`)
	for i, f := range got {
		name, isTable := strings.CutPrefix(f, "from ")
		if isTable && tableFunctions[name] || !isTable && functionAllowed(name) {
			got[i] = "allowed " + f
		} else {
			got[i] = "refused " + f
		}
	}
	const file = "testdata/functions.txt"
	if os.Getenv("FUNCTIONS") != "" {
		if err := os.WriteFile(file, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(strings.ReplaceAll(strings.TrimSpace(string(text)), " ", "_"))
	for i := range got {
		got[i] = strings.ReplaceAll(got[i], " ", "_")
	}
	for _, f := range got {
		if !slices.Contains(known, f) {
			t.Errorf("%s: not judged", f)
		}
	}
	for _, f := range known {
		if !slices.Contains(got, f) {
			t.Errorf("%s: is not there any more, or is judged otherwise now", f)
		}
	}
	for name := range tableFunctions {
		if !slices.Contains(got, "allowed_from_"+name) {
			t.Errorf("%s is allowed after FROM, but there is no such function", name)
		}
	}
}

func TestParameters(t *testing.T) {
	p := newPlanner(t)
	for _, c := range []struct {
		sql    string
		params map[string]string
		want   string // the first cell, or what the error says
	}{
		{`SELECT $a`, map[string]string{"a": "it's"}, "it's"},
		{`SELECT $a || $b || $a`, map[string]string{"a": "x", "b": "$a"}, "x$ax"},
		{`SELECT i FROM range(10) t(i) LIMIT $n OFFSET $o`, map[string]string{"n": "1", "o": "4"}, "4"},
		{`SELECT TIMESTAMP '2024-01-05' >= $from`, map[string]string{"from": "2024-01-05"}, "true"},
		{`SELECT TIMESTAMP '2024-01-05' >= $from`, map[string]string{"from": "soon"}, `parameter from: "soon" is not a TIMESTAMP`},
		{`SELECT 5.5::DOUBLE > $x`, map[string]string{"x": "5"}, "true"},
		{`SELECT 5.5::DOUBLE > $x`, map[string]string{"x": "five"}, `parameter x: "five" is not a DOUBLE`},
		{`SELECT 5 + $x::INTEGER`, map[string]string{"x": "7"}, "12"},
		{`SELECT i FROM range(3) t(i) LIMIT $n`, map[string]string{"n": "some"}, `parameter n: "some" is not a`},
		{`SELECT 'P0001' GLOB $p`, map[string]string{"p": "P*"}, "true"},
		{`SELECT 'P0001' LIKE $p`, map[string]string{"p": "P%"}, "true"},
		{`SELECT time_bucket(CAST($b AS INTERVAL), TIMESTAMP '2024-01-05 10:20:00')::VARCHAR`, map[string]string{"b": "1 hour"}, "2024-01-05 10:00:00"},
		{`SELECT ($b::INTERVAL)::VARCHAR`, map[string]string{"b": "90 minutes"}, "01:30:00"},
		{`SELECT (DATE '2024-01-01' + INTERVAL ($n) DAY)::VARCHAR`, map[string]string{"n": "3"}, "2024-01-04 00:00:00"},
		{`SELECT 1 WHERE 3 IN ($a, $b)`, map[string]string{"a": "3", "b": "4"}, "1"},
		{`SELECT 1 WHERE 3 BETWEEN $a AND $b`, map[string]string{"a": "3", "b": "4"}, "1"},
		{`SELECT $größe`, map[string]string{"größe": "ü"}, "ü"},
		{"SELECT '$a' || $$ $a $$ || $t$ $a $t$ || E'\\'$a' /* $a /* $a */ */ || $a -- $a\n", map[string]string{"a": "v"}, "$a $a  $a '$av"},
		{`SELECT "$a" || $a FROM (SELECT 'c' AS "$a")`, map[string]string{"a": "v"}, "cv"},
		{`SELECT x$a || $a FROM (SELECT 'c' AS x$a)`, map[string]string{"a": "v"}, "cv"},
		{`SELECT $a AS b`, map[string]string{"a": "v"}, "v"},
		{`SELECT struct_pack(k := $a).k`, map[string]string{"a": "v"}, "v"},
		{`SELECT $a`, nil, "parameter $a has no value"},
		{`SELECT $a`, map[string]string{"b": "1"}, "parameter b is given, but the SQL has only $a"},
		{`SELECT 1`, map[string]string{"b": "1"}, "the SQL has no parameters"},
		{`SELECT ?`, map[string]string{"1": "1"}, "need names"},
		{`SELECT $1`, map[string]string{"1": "1"}, "need names"},
		{`SELECT $a, ?`, map[string]string{"a": "1"}, "need names"},
		{`SELECT $a`, map[string]string{"a": "\x00"}, "not UTF-8"},
		{`SELECT * FROM $a`, map[string]string{"a": "points"}, "syntax error"},
	} {
		s, err := parse(t.Context(), p.Conn, c.sql, c.params)
		got := ""
		if err != nil {
			got = err.Error()
			if !fault.Is(err, fault.Usage) {
				t.Errorf("%s: %v is %v", c.sql, err, fault.KindOf(err))
			}
		} else {
			got = strings.Join(listed(t, p.Conn, s.SQL), ",")
		}
		if err != nil && !strings.Contains(got, c.want) || err == nil && got != c.want {
			t.Errorf("%s %q: %s, want %s", c.sql, c.params, got, c.want)
		}
	}
}

// TestParameterValues: whatever a value holds, it is that value and nothing else.
func TestParameterValues(t *testing.T) {
	p := newPlanner(t)
	nasty := rapid.StringOf(rapid.OneOf(rapid.SampledFrom([]rune("'\"\\$;-/*\n\t%_?:()é€𝄞 ab1")), rapid.Rune()))
	rapid.Check(t, func(r *rapid.T) {
		a, b := nasty.Draw(r, "a"), nasty.Draw(r, "b")
		if strings.ContainsRune(a+b, 0) {
			return
		}
		text := rapid.SampledFrom([]string{
			`SELECT $a || chr(1) || $b`,
			"SELECT /* $b */ $a||chr(1)||$b -- $a",
			`SELECT x.v FROM (SELECT $a || chr(1) || $b AS v, '$a' AS w) x WHERE w <> $b || '$b'`,
			"SELECT concat($a, chr(1), $b, substr($$ $a $$, 1, 0), E'' )",
		}).Draw(r, "text")
		s, err := parse(t.Context(), p.Conn, text, map[string]string{"a": a, "b": b})
		if err != nil {
			r.Fatalf("%s: %v", text, err)
		}
		got := listed(t, p.Conn, s.SQL)
		if len(got) != 1 || got[0] != a+"\x01"+b {
			r.Fatalf("%q: %q", s.SQL, got)
		}
	})
}

// FuzzGate: no text makes it panic, and what it lets through is one SELECT.
func FuzzGate(f *testing.F) {
	for _, s := range selections {
		f.Add(s.query, "v")
	}
	f.Add("SELECT $a, $$ $a $$, E'\\'$a', \"$a\" /* $a */ -- $a", "'")
	f.Add(`SELECT 1; SELECT $a`, "x")
	p := newPlanner(f)
	f.Fuzz(func(t *testing.T, text, value string) {
		s, err := parse(t.Context(), p.Conn, text, map[string]string{"a": value})
		if err != nil {
			s, err = parse(t.Context(), p.Conn, text, nil)
		}
		if err != nil {
			return
		}
		if _, err := syntax(t.Context(), p.Conn, s.SQL); err != nil {
			t.Fatalf("%q became %q: %v", text, s.SQL, err)
		}
	})
}

// FuzzToken: tokens cover the text, whatever it is.
func FuzzToken(f *testing.F) {
	f.Add("SELECT $a, $$ $a $$, E'\\'$a', \"$a\" /* $a */ -- $a")
	f.Fuzz(func(t *testing.T, text string) {
		for text != "" {
			n, name := token(text)
			if n <= 0 || n > len(text) || name != "" && text[:n] != "$"+name {
				t.Fatalf("token of %d bytes, %q, in %q", n, name, text)
			}
			text = text[n:]
		}
	})
}

// FuzzPlan: no plan makes the reader panic.
func FuzzPlan(f *testing.F) {
	p := smallLake(f)
	for _, s := range selections {
		f.Add([]byte(listed(f, p.Conn, "SELECT json_serialize_plan("+quote(s.query)+", optimize := true)::VARCHAR")[0]))
	}
	f.Add([]byte(`{"error":false,"plans":[{"type":"LOGICAL_GET","name":"samples_stub"},null]}`))
	f.Fuzz(func(t *testing.T, plan []byte) {
		plans, err := readPlan(plan)
		if err != nil {
			return
		}
		for _, n := range plans {
			n.casts()
		}
		for _, s := range needed(plans) {
			if s.Where == "" || !utf8.ValidString(s.Table) {
				t.Fatalf("%+v", s)
			}
		}
	})
}

func TestFinite(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":NaN,"b":-Infinity,"c":[Infinity,-NaN]}`: `{"a":null,"b":null,"c":[null,null]}`,
		`{"a":"NaN \" Infinity","b":NaN}`:             `{"a":"NaN \" Infinity","b":null}`,
		`{"a":"x\\","b":Infinity}`:                    `{"a":"x\\","b":null}`,
		`{"a":1}`:                                     `{"a":1}`,
	} {
		if got := string(finite([]byte(in))); got != want || !json.Valid([]byte(got)) {
			t.Errorf("%s: %s", in, got)
		}
	}
}
