package sql_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/duckdb/duckdb-go/v2"

	"etl/internal/fleet"
	"etl/internal/sample"
	"etl/internal/utc"
	etlsql "etl/sql"
)

var update = flag.Bool("update", false, "write the golden answers of the named queries")

// goldenPoints are the demo's first points, which hold all that it plants.
const goldenPoints = 20

// lake is a plain DuckDB with the tables of the lake, filled with the truth of
// the demo's first points. It is made once and never changed.
var lake = sync.OnceValues(func() (*sql.DB, error) {
	f, err := fleet.New(fleet.Demo())
	if err != nil {
		return nil, err
	}
	series := make([]sample.Series, goldenPoints)
	points := f.Points()[:goldenPoints]
	if r, ok := f.Rename(); ok {
		points[r.Index].Name = r.New
	}
	late := f.Late()
	for i := range series {
		f.Series(i, f.Days(), &series[i])
		for _, l := range late {
			if l.Index == i {
				series[i], _ = sample.Merge(sample.Series{}, series[i], l.Rows, utc.MonthOf(2024, 2), 0)
			}
		}
	}
	return newLake(points, series, f.Days())
})

// newLake makes the tables of the lake with the samples of points. One thread adds
// in one order, so that sums come out the same to the last bit.
func newLake(points []sample.Point, series []sample.Series, days utc.Days) (*sql.DB, error) {
	ctx := context.Background()
	c, err := duckdb.NewConnector("", nil)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`SET TimeZone='UTC'; SET threads=1;
CREATE TABLE raw(point_id INTEGER, point_name VARCHAR, timestamp BIGINT, value DOUBLE, quality INTEGER, flags INTEGER);
CREATE TABLE point_table(point_id INTEGER, point_name VARCHAR, id INTEGER, name VARCHAR, site VARCHAR, system VARCHAR, equipment VARCHAR, unit VARCHAR,
  interval_ms BIGINT, min_value DOUBLE, max_value DOUBLE, created_at BIGINT, retired_at BIGINT);
CREATE VIEW points AS SELECT * EXCLUDE (point_name) FROM point_table;
CREATE TABLE point_groups(name VARCHAR, point_id INTEGER);
CREATE TABLE archive_days(point_id INTEGER, point_name VARCHAR, day DATE, samples INTEGER);
CREATE TABLE archive_state(run VARCHAR, command VARCHAR, status VARCHAR, started_at BIGINT, heartbeat_at BIGINT, archived_at BIGINT,
  first_day VARCHAR, last_day VARCHAR, records_archived BIGINT, files_written BIGINT, bytes_written BIGINT, error VARCHAR);
CREATE VIEW samples AS SELECT point_id, point_name, make_timestamp_ms(timestamp) AS ts, timestamp, value, quality, flags, 'cold' AS tier FROM raw;
CREATE VIEW timeseries AS SELECT point_id, timestamp, value, quality, flags FROM samples;
CREATE VIEW latest AS SELECT point_id, point_name, ts, timestamp, value, quality, flags, tier FROM samples
  QUALIFY row_number() OVER (PARTITION BY point_id ORDER BY timestamp DESC) = 1;
CREATE VIEW v_latest_values AS SELECT point_id, timestamp, value, quality, flags FROM latest`); err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	appendTo := func(table string, f func(row func(...driver.Value) error) error) error {
		return conn.Raw(func(c any) error {
			a, err := duckdb.NewAppenderFromConn(c.(driver.Conn), "", table)
			if err != nil {
				return err
			}
			if err := f(a.AppendRow); err != nil {
				return err
			}
			return a.Close()
		})
	}
	err = appendTo("raw", func(row func(...driver.Value) error) error {
		for i, p := range points {
			s := &series[i]
			for k, ts := range s.TS {
				var v driver.Value
				if s.Value[k] == s.Value[k] {
					v = s.Value[k]
				}
				if err := row(p.ID, p.Name, ts, v, int32(s.Quality[k]), int32(s.Flags[k])); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = appendTo("point_table", func(row func(...driver.Value) error) error {
		for _, p := range points {
			if err := row(p.ID, p.Name, p.ID, p.Name, deref(p.Site), deref(p.System), deref(p.Equipment), deref(p.Unit),
				deref(p.IntervalMS), deref(p.MinValue), deref(p.MaxValue), deref(p.CreatedAt), nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	// Everything is archived but the last three days.
	_, err = conn.ExecContext(ctx, fmt.Sprintf(`INSERT INTO archive_days
SELECT p.point_id, p.name, d.day::DATE, CASE WHEN d.day < DATE '%s' - 3 THEN count(r.timestamp) END
FROM points p CROSS JOIN (SELECT unnest(generate_series(DATE '%s', DATE '%s' - INTERVAL 1 DAY, INTERVAL 1 DAY)) AS day) d
LEFT JOIN raw r ON r.point_id = p.point_id AND r.timestamp >= epoch_ms(d.day) AND r.timestamp < epoch_ms(d.day) + 86400000
GROUP BY p.point_id, p.name, d.day;
INSERT INTO archive_state VALUES
  ('a', 'backfill', 'done', epoch_ms(TIMESTAMP '2024-02-19 01:00'), epoch_ms(TIMESTAMP '2024-02-19 01:10'), epoch_ms(TIMESTAMP '2024-02-19 01:10'), '2024-01-12', '2024-02-18', 1000, 40, 4000, NULL),
  ('b', 'archive', 'partial', epoch_ms(TIMESTAMP '2024-02-20 02:00'), epoch_ms(TIMESTAMP '2024-02-20 02:01'), epoch_ms(TIMESTAMP '2024-02-20 02:01'), '2024-02-19', '2024-02-19', 20, 19, 400, 'a point failed'),
  ('c', 'archive', 'crashed', epoch_ms(TIMESTAMP '2024-02-20 03:00'), epoch_ms(TIMESTAMP '2024-02-20 03:01'), NULL, '2024-02-19', '2024-02-19', NULL, NULL, NULL, NULL),
  ('d', 'archive', 'running', epoch_ms(TIMESTAMP '2024-02-21 02:00'), epoch_ms(TIMESTAMP '2024-02-21 02:00'), NULL, '2024-02-20', '2024-02-20', NULL, NULL, NULL, NULL);
INSERT INTO point_groups SELECT 'ahu-1', point_id FROM points WHERE equipment = 'AHU1'`, days.To, days.From, days.To))
	return db, err
}

func deref[T any](p *T) driver.Value {
	if p == nil {
		return nil
	}
	return *p
}

// now is the moment at which the demo ends.
var now = time.Date(2024, 2, 21, 2, 0, 0, 0, time.UTC)

// run binds a named query, puts the values in as string literals and returns the
// header and the rows, as DuckDB prints them.
func run(t *testing.T, db *sql.DB, q etlsql.Query, given map[string]string) (columns []string, rows [][]string) {
	t.Helper()
	bound, err := q.Bind(given, now)
	if err != nil {
		t.Fatal(err)
	}
	return query(t, db, substitute(q.SQL, bound))
}

func substitute(text string, bound map[string]string) string {
	return regexp.MustCompile(`\$[a-z]+`).ReplaceAllStringFunc(text, func(p string) string {
		return "'" + strings.ReplaceAll(bound[p[1:]], "'", "''") + "'"
	})
}

func query(t *testing.T, db *sql.DB, text string) (columns []string, rows [][]string) {
	t.Helper()
	rs, err := db.Query("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM (" + text + "\n)")
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	defer rs.Close()
	if columns, err = rs.Columns(); err != nil {
		t.Fatal(err)
	}
	for rs.Next() {
		cells := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range cells {
			into[i] = &cells[i]
		}
		if err := rs.Scan(into...); err != nil {
			t.Fatal(err)
		}
		row := make([]string, len(columns))
		for i, c := range cells {
			if row[i] = c.String; !c.Valid {
				row[i] = "NULL"
			}
		}
		rows = append(rows, row)
	}
	if err := rs.Err(); err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return columns, rows
}

// exampleParams are the --param of a query's example.
func exampleParams(t *testing.T, q etlsql.Query) map[string]string {
	rest, ok := strings.CutPrefix(q.Example, "etl query @"+q.Name)
	if !ok {
		t.Errorf("@%s: the example is of another query: %s", q.Name, q.Example)
	}
	given := make(map[string]string)
	for arg := range strings.SplitSeq(rest, " --param ") {
		if name, value, ok := strings.Cut(strings.TrimSpace(arg), "="); ok {
			given[name] = strings.Trim(value, "'")
		}
	}
	return given
}

// golden are the questions whose answers on the demo's first points are kept in
// testdata, beside each query's own example.
var golden = map[string]map[string]string{
	"trend-downsampled": {"point": "Building1.Plant.Chiller1.*Pressure", "from": "2024-01-28", "to": "2024-02-05", "bucket": "1d"}, // two of the days are an outage
	"alarms":            {"from": "2024-02-01", "to": "2024-02-03"},
	"time-in-state":     {"point": "*.PumpStatus", "from": "2024-02-12 06:30", "to": "2024-02-13 06:30"},
	"runtime-hours":     {"point": "*Status", "from": "2024-02-12 06:30", "to": "2024-02-14"},
	"top-movers":        {"n": "7"},
}

func TestNamedQueries(t *testing.T) {
	db, err := lake()
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range etlsql.Queries() {
		t.Run(q.Name, func(t *testing.T) {
			given := golden[q.Name]
			var b strings.Builder
			for _, given := range []map[string]string{exampleParams(t, q), given} {
				if given == nil {
					continue
				}
				columns, rows := run(t, db, q, given)
				var names []string
				for _, c := range q.Columns {
					names = append(names, c.Name)
					if c.Meaning == "" {
						t.Errorf("column %s has no meaning", c.Name)
					}
				}
				if !slices.Equal(columns, names) {
					t.Errorf("columns %v, the header says %v", columns, names)
				}
				fmt.Fprintf(&b, "%v\n%s\n", given, strings.Join(columns, "|"))
				for i, row := range rows {
					if len(rows) > 60 && i >= 40 && i < len(rows)-10 {
						if i == 40 {
							fmt.Fprintf(&b, "… %d rows in all\n", len(rows))
						}
						continue
					}
					fmt.Fprintln(&b, strings.Join(row, "|"))
				}
				if len(rows) == 0 {
					t.Errorf("no rows for %v: a golden answer of nothing proves nothing", given)
				}
				fmt.Fprintln(&b)
			}
			path := filepath.Join("testdata", "queries", q.Name+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("the answer is another one than in %s (-update writes it):\n%s", path, b.String())
			}

			// A range that holds nothing is no error, and answers with no row or one of NULLs and
			// zeros; to @gaps it is one gap of each point.
			empty := exampleParams(t, q)
			for _, p := range q.Params {
				switch p.Name {
				case "from":
					empty[p.Name] = "2031-01-01"
				case "to":
					empty[p.Name] = "2031-01-02"
				}
			}
			if _, rows := run(t, db, q, empty); len(rows) > 1 && empty["from"] != "" && q.Name != "gaps" {
				t.Errorf("an empty range answers %v", rows)
			}
		})
	}
}

// TestNoFilterInWindows: DuckDB counts count(*) FILTER (…) OVER (…) anew for each row,
// which for 3 million rows of 200 points is a minute in place of a second.
func TestNoFilterInWindows(t *testing.T) {
	filtered := regexp.MustCompile(`(?is)\bFILTER\s*\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\s*OVER\b`)
	if !filtered.MatchString("count(*) FILTER (a IS NULL OR f(a) <> (b))\n OVER (ORDER BY c)") {
		t.Fatal("the pattern does not find one")
	}
	for _, q := range etlsql.Queries() {
		if found := filtered.FindString(q.SQL); found != "" {
			t.Errorf("@%s: %s: want an aggregate of CASE or CAST(condition AS INTEGER)", q.Name, found)
		}
	}
}

// TestGapsFindsWhatWasPlanted holds gaps.sql against the fleet's own list.
func TestGapsFindsWhatWasPlanted(t *testing.T) {
	db, err := lake()
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(fleet.Demo())
	if err != nil {
		t.Fatal(err)
	}
	// A NULL is a row to the fleet and no reading to the query: points that have any are left out.
	var nulls []string
	_, rows := query(t, db, "SELECT DISTINCT point_id FROM samples WHERE value IS NULL")
	for _, r := range rows {
		nulls = append(nulls, r[0])
	}
	var want []string
	for _, g := range f.Gaps() {
		if g.Index < goldenPoints && !g.Filled && !slices.Contains(nulls, fmt.Sprint(g.Point)) {
			want = append(want, fmt.Sprint(g.Point, " ", text(g.From), " ", text(g.To), " ", g.Missing))
		}
	}
	_, rows = run(t, db, named(t, "gaps"), map[string]string{"from": "2024-01-01", "to": f.Days().To.String()})
	var got []string
	for _, r := range rows {
		if slices.Contains(nulls, r[0]) {
			continue
		}
		if r[7] != "inner" {
			t.Errorf("%v: the fleet is never silent at its ends", r)
		}
		got = append(got, fmt.Sprint(r[0], " ", r[2], " ", r[3], " ", r[6]))
	}
	if !slices.Equal(got, want) || len(want) < 12 {
		t.Errorf("found\n%s\nplanted\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// text is a moment as DuckDB prints it.
func text(ms int64) string {
	return strings.TrimSuffix(time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05.000"), ".000")
}

func named(t *testing.T, name string) etlsql.Query {
	t.Helper()
	qs := etlsql.Queries()
	i := slices.IndexFunc(qs, func(q etlsql.Query) bool { return q.Name == name })
	if i < 0 {
		t.Fatalf("no query %s", name)
	}
	return qs[i]
}

// TestGapsIrregular: no interval known, changes only, NULLs and a lone reading.
func TestGapsIrregular(t *testing.T) {
	const minute = 60_000
	start := time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	points := []sample.Point{{ID: 1, Name: "median"}, {ID: 2, Name: "cov", IntervalMS: new(int64)}, {ID: 3, Name: "null", IntervalMS: new(int64(minute))}, {ID: 4, Name: "lone"}}
	series := make([]sample.Series, len(points))
	for _, m := range []int64{0, 5, 10, 15, 20, 35, 40, 47} { // 7 is less than 1.5 × 5
		series[0].Append(start+m*minute, 1, 192, 0)
	}
	for _, m := range []int64{0, 1, 2, 300} {
		series[1].Append(start+m*minute, 1, 192, 0)
	}
	for m := range int64(6) {
		v := 1.0
		if m == 2 || m == 3 {
			v = math.NaN()
		}
		series[2].Append(start+m*minute, v, 192, 0)
	}
	series[3].Append(start, 1, 192, 0)
	db, err := newLake(points, series, utc.Days{From: utc.DayOf(start), To: utc.DayOf(start) + 1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, test := range []struct {
		given map[string]string
		want  string
	}{
		{map[string]string{}, "1|median|2024-03-01 00:20:00|2024-03-01 00:35:00|900.0|300.0|2|inner;1|median|2024-03-01 00:47:00|NULL|780.0|300.0|2|tail;" +
			"3|null|2024-03-01 00:01:00|2024-03-01 00:04:00|180.0|60.0|2|inner;3|null|2024-03-01 00:05:00|NULL|3300.0|60.0|54|tail"},
		{map[string]string{"silence": "4h", "point": "c*", "to": "2024-03-02"}, "2|cov|2024-03-01 00:02:00|2024-03-01 05:00:00|17880.0|NULL|NULL|inner;2|cov|2024-03-01 05:00:00|NULL|68400.0|NULL|NULL|tail"},
		{map[string]string{"tolerance": "1.3", "point": "median", "to": "2024-03-01T00:50:00Z"}, "1|median|2024-03-01 00:20:00|2024-03-01 00:35:00|900.0|300.0|2|inner;1|median|2024-03-01 00:40:00|2024-03-01 00:47:00|420.0|300.0|0|inner"},
		// What went before it in the range of since lets the coverage begin with the range.
		{map[string]string{"point": "median", "from": "2024-03-01T00:16:00Z", "since": "2024-02-01", "to": "2024-03-01T00:21:00Z"}, ""},
		{map[string]string{"point": "null", "from": "2024-03-01T00:02:00Z", "to": "2024-03-01T00:06:00Z"}, "3|null|NULL|2024-03-01 00:04:00|120.0|60.0|2|head"},
		{map[string]string{"point": "?????n", "from": "2024-03-01T01:00:00Z", "since": "2024-02-01", "to": "2024-03-02"}, "1|median|NULL|NULL|82800.0|NULL|NULL|empty"},
	} {
		for _, d := range [][2]string{{"from", "2024-03-01"}, {"to", "2024-03-01T01:00:00Z"}} {
			if test.given[d[0]] == "" {
				test.given[d[0]] = d[1]
			}
		}
		_, rows := run(t, db, named(t, "gaps"), test.given)
		var got []string
		for _, r := range rows {
			got = append(got, strings.Join(r, "|"))
		}
		if strings.Join(got, ";") != test.want {
			t.Errorf("%v: got %v\nwant %s", test.given, got, test.want)
		}
	}

	// What changes of clocks do: 2024-03-31 has 23 hours in Berlin.
	_, rows := run(t, db, named(t, "runtime-hours"), map[string]string{"point": "cov", "from": "2024-03-01", "to": "2024-03-02", "hold": "1d"})
	if got := fmt.Sprint(rows); got != "[[cov 2024-03-01 24.0 24.0 0]]" {
		t.Error(got)
	}
}

// TestDaylightSaving: a switch that is on all the time runs 23 hours on the day
// when clocks go forward, and the profile lacks the hour that they skip.
func TestDaylightSaving(t *testing.T) {
	start := time.Date(2024, 3, 29, 0, 0, 0, 0, time.UTC).UnixMilli()
	var s sample.Series
	for i := range int64(4 * 24 * 60) {
		s.Append(start+i*60_000, 1, 192, 0)
	}
	db, err := newLake([]sample.Point{{ID: 1, Name: "p"}}, []sample.Series{s}, utc.Days{From: utc.DayOf(start), To: utc.DayOf(start) + 4})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	given := map[string]string{"point": "p", "from": "2024-03-29T23:00:00Z", "to": "2024-04-01T22:00:00Z", "tz": "Europe/Berlin"}
	_, rows := run(t, db, named(t, "runtime-hours"), given)
	if got := fmt.Sprint(rows); got != "[[p 2024-03-30 24.0 24.0 0] [p 2024-03-31 23.0 23.0 0] [p 2024-04-01 24.0 24.0 0]]" {
		t.Error(got)
	}
	_, rows = run(t, db, named(t, "daily-profile"), given)
	if len(rows) != 24 || rows[2][5] != "2" || rows[3][5] != "3" {
		t.Error(rows)
	}
}

// TestArchitecturePatterns runs the three query patterns of the architecture, the
// third one with the clock of DuckDB instead of SQLite's unixepoch.
func TestArchitecturePatterns(t *testing.T) {
	db, err := lake()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		sql  string
		rows int
	}{
		{`SELECT timestamp, value, quality
FROM timeseries
WHERE point_id = 13
  AND timestamp BETWEEN 1707696000000 AND 1707782400000
ORDER BY timestamp`, 0},
		{`SELECT p.name, ts.value, ts.quality
FROM points p
INNER JOIN v_latest_values ts ON p.id = ts.point_id
WHERE p.system = 'HVAC'`, 13},
		{`SELECT p.name, ts.timestamp, ts.value
FROM timeseries ts
INNER JOIN points p ON ts.point_id = p.id
WHERE (ts.flags & 1) = 1
  AND ts.timestamp > (epoch_ms(now()) - 3600000)`, -1},
	} {
		_, rows := query(t, db, test.sql)
		if test.rows > 0 && len(rows) != test.rows || test.rows == 0 && len(rows) < 97 || test.rows < 0 && len(rows) > 0 {
			t.Errorf("%s: %d rows", test.sql, len(rows))
		}
	}
}

func TestBind(t *testing.T) {
	q := named(t, "trend-downsampled")
	bound, err := q.Bind(map[string]string{"point": "it's", "from": "-36h", "bucket": "1d12h"}, now)
	want := map[string]string{"point": "it's", "from": "2024-02-19 14:00:00.000", "to": "2024-02-21 02:00:00.000", "bucket": "129600000 milliseconds"}
	if err != nil || fmt.Sprint(bound) != fmt.Sprint(want) {
		t.Errorf("%v, %v", bound, err)
	}
	for _, text := range []string{"2024-02-18", "2024-02-18 00:00", "2024-02-18T00:00:00Z", "2024-02-18T01:00:00+01:00", "2024-02-18 00:00:00.000"} {
		bound, err := q.Bind(map[string]string{"point": "p", "from": text}, now)
		if err != nil || bound["from"] != "2024-02-18 00:00:00.000" {
			t.Errorf("%s: %v, %v", text, bound, err)
		}
	}
	cover := named(t, "coverage")
	if bound, err := cover.Bind(nil, now); err != nil || bound["from"] != "2024-01-22" || bound["to"] != "2024-02-21" {
		t.Errorf("%v, %v", bound, err)
	}
	for _, test := range []struct {
		query, param, value, want string
	}{
		{"trend", "", "", "@trend needs the parameter point (glob): names of the points"},
		{"trend", "form", "x", `@trend has no parameter "form", it has point, from, to`},
		{"trend", "from", "yesterday", "parameter from: want a time like"},
		{"trend", "from", "-7", "how long ago like -7d"},
		{"trend", "from", "2024-02-30", "want a time"},
		{"trend", "point", "", "want a glob, it is empty"},
		{"trend-downsampled", "bucket", "0s", "want a duration like 15m"},
		{"trend-downsampled", "bucket", "-1h", "want a duration like 15m"},
		{"trend-downsampled", "bucket", "999999999999d", "want a duration like 15m"},
		{"alarms", "bit", "one", "want a whole number"},
		{"alarms", "bit", "16", `parameter bit: want a whole number from 0 to 15, got "16"`},
		{"alarms", "bit", "-1", "want a whole number from 0 to 15"},
		{"top-movers", "n", "-1", "want a whole number from 1 on"},
		{"bad-share", "share", "200", `parameter share: want a number from 0 to 1, got "200"`},
		{"spikes", "score", "-1", "want a number from 0 on"},
		{"trend", "from", "2024-02-22", "the range is empty: from 2024-02-22 00:00:00.000 is not before to 2024-02-21 02:00:00.000"},
		{"trend", "from", "now", "the range is empty"},
		{"coverage", "from", "today", "the range is empty: from 2024-02-21 is not before to 2024-02-21"},
		{"gaps", "tolerance", "inf", "want a number"},
		{"daily-profile", "days", "sunday", `want all or weekdays or weekends, got "sunday"`},
		{"coverage", "from", "2024-02-18 06:00", "want a day like 2024-02-18"},
	} {
		q := named(t, test.query)
		given := map[string]string{}
		for _, p := range q.Params {
			if p.Required && test.param != "" {
				given[p.Name] = "p"
			}
		}
		if test.param != "" {
			given[test.param] = test.value
		}
		if _, err := q.Bind(given, now); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("@%s %s=%s: %v, want %q", test.query, test.param, test.value, err, test.want)
		}
	}
}

func FuzzMoment(f *testing.F) {
	for _, s := range []string{"now", "today", "-7d", "-1d12h", "2024-02-18T01:00:00+01:00", "-99999d", "-100000d23h", "9999-12-31", "0000-01-01", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, name := range []string{"trend", "coverage"} {
			q := named(t, name)
			bound, err := q.Bind(map[string]string{"point": "p", "from": s}, now)
			if err != nil {
				continue
			}
			// What is bound is a moment itself, and the same one.
			again, err := q.Bind(map[string]string{"point": "p", "from": bound["from"]}, now)
			if err != nil || again["from"] != bound["from"] {
				t.Errorf("%q is bound to %q, which is %v, %v", s, bound["from"], again, err)
			}
		}
	})
}
