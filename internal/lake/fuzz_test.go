package lake

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// stubs is a lake whose rows are at hand: the same statement is answered over all
// of them, and over the regions, columns and times alone that it was found to need.
type stubs struct {
	*planner
	full, pruned *sql.Conn
}

func newStubs(t testing.TB) *stubs {
	w := &stubs{planner: newPlanner(t)}
	w.execute(t, `INSERT INTO lake.points (point_id, point_name, id, name, site, system, equipment, unit, interval_ms, min_value)
		SELECT i, 'P' || lpad(i::VARCHAR, 4, '0'), i, 'P' || lpad(i::VARCHAR, 4, '0'), 'B' || i % 5, ['HVAC', 'ELEC', 'WATER', 'AIR'][1 + i % 4], 'E' || i % 3,
			CASE WHEN i % 3 > 0 THEN 'C' END, 60000, i * 7 % 50 FROM range(1, 13) t(i)`)
	// Points without samples, and keys that are NULL.
	w.execute(t, `INSERT INTO lake.points (point_id, point_name, site, system) VALUES (NULL, NULL, 'B9', 'HVAC'), (77, 'P0077', 'B9', 'HVAC'), (78, NULL, 'B1', 'ELEC')`)
	w.execute(t, `INSERT INTO lake.point_groups SELECT 'g' || i % 3, i FROM range(1, 13) t(i) WHERE i % 5 > 0`)
	w.execute(t, `INSERT INTO lake.point_groups VALUES ('g1', 3), ('g1', NULL), ('none', 77), (NULL, 4)`)
	w.execute(t, `CREATE TABLE events AS SELECT i AS n, (i * 5 % 12 + 1)::INTEGER AS point_id, TIMESTAMP '2024-01-10' + to_days((i * 17)::INTEGER) AS since,
		TIMESTAMP '2024-01-20' + to_days((i * 17)::INTEGER) AS until FROM range(0, 8) t(i)`)
	w.execute(t, `INSERT INTO events VALUES (99, NULL, NULL, NULL)`)
	// A row every 31 hours and some at the very ends of months and days.
	w.execute(t, `CREATE TABLE data AS SELECT DISTINCT point_id, point_name, ts, epoch_ms(ts) AS timestamp,
			nullif(((point_id * 37 + epoch_ms(ts) // 3600000 * 13) % 101)::DOUBLE, 7) AS value, (point_id % 3)::INTEGER AS quality,
			(epoch_ms(ts) // 3600000 % 4)::INTEGER AS flags, CASE WHEN ts < '2024-05-20' THEN 'cold' ELSE 'hot' END AS tier
		FROM (SELECT point_id, point_name FROM lake.points WHERE point_id < 13), (
			SELECT unnest(generate_series(TIMESTAMP '2024-01-01', TIMESTAMP '2024-06-30 23:59:59', INTERVAL 31 HOUR)) AS ts
			UNION ALL SELECT unnest(generate_series(TIMESTAMP '2024-01-01', TIMESTAMP '2024-06-01', INTERVAL 1 MONTH)) - INTERVAL 1 MILLISECOND
			UNION ALL SELECT unnest(generate_series(TIMESTAMP '2024-05-25', TIMESTAMP '2024-06-05', INTERVAL 1 DAY)))
		WHERE ts >= '2024-01-01' AND (point_id <> 5 OR month(ts) <> 3) AND (point_id <> 11 OR ts < '2024-03-01')`)
	// Months; from May 20 on days; one point in a region of all time; bounds that are those of the rows for another.
	w.execute(t, `CREATE TABLE regions AS
		SELECT row_number() OVER () AS region, point_id, point_name, t_min, t_max FROM (
			SELECT point_id, point_name,
				CASE WHEN point_id = 12 THEN TIMESTAMP '2023-12-01' WHEN point_id = 7 THEN min(ts) ELSE span END AS t_min,
				CASE WHEN point_id = 12 THEN TIMESTAMP '2024-07-15' WHEN point_id = 7 THEN max(ts)
					WHEN span = date_trunc('month', span) AND span < '2024-05-20' THEN least(span + INTERVAL 1 MONTH, TIMESTAMP '2024-05-20') - INTERVAL 1 MILLISECOND
					ELSE span + INTERVAL 1 DAY - INTERVAL 1 MILLISECOND END AS t_max
			FROM (SELECT *, CASE WHEN point_id = 12 THEN NULL WHEN ts < '2024-05-20' THEN date_trunc('month', ts) ELSE date_trunc('day', ts) END AS span FROM data)
			GROUP BY point_id, point_name, span)`)
	w.execute(t, `CREATE TABLE located AS SELECT d.*, NULL::INTEGER AS no_point_id, NULL::VARCHAR AS no_point_name, NULL::TIMESTAMP AS no_ts, NULL::BIGINT AS no_timestamp,
			NULL::DOUBLE AS no_value, NULL::INTEGER AS no_quality, NULL::INTEGER AS no_flags, NULL::VARCHAR AS no_tier, r.region FROM data d JOIN regions r ON d.point_id = r.point_id AND d.ts BETWEEN r.t_min AND r.t_max ORDER BY point_id, ts`)
	if n := listed(t, w.Conn, `SELECT (SELECT count(*) FROM data) || ' ' || count(*) || ' ' || count(DISTINCT (point_id, ts)) FROM located`)[0]; strings.Fields(n)[0] != strings.Fields(n)[1] || strings.Fields(n)[0] != strings.Fields(n)[2] {
		t.Fatalf("rows, rows in a region, different ones: %s", n)
	}
	w.execute(t, `CREATE TABLE selected (region BIGINT)`)
	w.full, w.pruned = w.connect(t), w.connect(t)
	execute(t, w.full, `CREATE TEMP VIEW samples AS SELECT point_id, point_name, ts, timestamp, value, quality, flags, tier FROM located`)
	execute(t, w.full, latestOf("data"))
	execute(t, w.full, `CREATE TEMP VIEW timeseries AS SELECT point_id, timestamp, value, quality, flags FROM samples`)
	w.execute(t, `CREATE TABLE latest_points (point_id INTEGER)`)
	w.prune(t, nil)
	execute(t, w.pruned, latestOf("(FROM data SEMI JOIN latest_points USING (point_id))"))
	execute(t, w.pruned, `CREATE TEMP VIEW timeseries AS SELECT point_id, timestamp, value, quality, flags FROM samples`)
	return w
}

func latestOf(from string) string {
	return `CREATE TEMP VIEW latest AS SELECT unnest(arg_max(d, ts)) FROM ` + from + ` d GROUP BY point_id`
}

// prune makes what was found to be needed all there is, and counts the regions.
func (w *stubs) prune(t testing.TB, all []scan) (regions int) {
	wheres := map[string][]string{"samples": {"FALSE"}, "latest": {"FALSE"}}
	columns := map[string]bool{}
	ts := nothing
	for _, s := range all {
		wheres[s.Table] = append(wheres[s.Table], "("+s.Where+")")
		if s.Table == "samples" {
			ts = ts.or(span{s.From, s.To})
			for _, c := range s.Columns {
				columns[c] = true
			}
		}
	}
	var items []string
	for _, c := range sampleColumns {
		if columns[c.name] {
			items = append(items, c.name)
		} else {
			items = append(items, "no_"+c.name+" AS "+c.name)
		}
	}
	w.execute(t, `TRUNCATE selected`)
	result, err := w.ExecContext(t.Context(), `INSERT INTO selected SELECT region FROM regions WHERE `+strings.Join(wheres["samples"], " OR "))
	if err != nil {
		t.Fatalf("%v: %v", wheres["samples"], err)
	}
	if len(wheres["latest"]) > 1 {
		w.execute(t, `CREATE OR REPLACE TABLE latest_points AS SELECT DISTINCT point_id FROM regions WHERE `+strings.Join(wheres["latest"], " OR "))
	}
	execute(t, w.pruned, fmt.Sprintf(`CREATE OR REPLACE TEMP VIEW samples AS SELECT %s FROM (
		FROM located SEMI JOIN selected USING (region) WHERE timestamp BETWEEN (%d) AND (%d))`, strings.Join(items, ", "), ts.from, ts.to))
	n, err := result.RowsAffected()
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// answer is the rows of a query as a bag.
func answer(conn *sql.Conn, query string, t testing.TB) (string, error) {
	var n int64
	var sum string
	err := conn.QueryRowContext(t.Context(), "SELECT count(*), coalesce(sum(hash(x::VARCHAR))::VARCHAR, '') FROM ("+query+") x").Scan(&n, &sum)
	return fmt.Sprint(n, " rows, sum ", sum), err
}

type fuzzResult struct{ queries, invalid, unplanned, unsound, selected, all, empty int }

// fuzz answers n random queries both ways; report is told of each difference.
func (w *stubs) fuzz(t testing.TB, seed uint64, n int, report func(query, detail string) (goOn bool)) (res fuzzResult) {
	g := generator{rand.New(rand.NewPCG(seed, 1))}
	total, _ := strconv.Atoi(listed(t, w.Conn, `SELECT count(*) FROM regions`)[0])
	for res.queries < n {
		q := g.query()
		want, err := answer(w.full, q, t)
		if err != nil {
			if res.invalid++; res.invalid < 4 {
				t.Logf("invalid: %v\n\t%s", err, q)
			}
			if res.invalid > n/4+20 {
				t.Fatalf("too many invalid queries")
			}
			continue
		}
		res.queries++
		all, err := scans(t.Context(), w.Conn, q)
		if err != nil {
			if res.unplanned++; res.unplanned < 4 {
				t.Logf("not planned: %v\n\t%s", err, q)
			}
			continue
		}
		k := w.prune(t, all)
		res.selected += k
		res.all += total
		if k == 0 {
			res.empty++
		}
		got, err := answer(w.pruned, q, t)
		if err != nil || got != want {
			res.unsound++
			var where []string
			for _, s := range all {
				where = append(where, fmt.Sprintf("%+v", s))
			}
			if !report(q, fmt.Sprintf("got  %s %v\n\twant %s\n\t%s", got, err, want, strings.Join(where, "\n\t"))) {
				return res
			}
		}
	}
	return res
}

// TestFuzzSelection: LAKE_FUZZ is how many queries, LAKE_SEED where to begin.
func TestFuzzSelection(t *testing.T) {
	n, seed := 2000, uint64(time.Now().UnixNano())
	if testing.Short() {
		n = 300
	}
	if s := os.Getenv("LAKE_FUZZ"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	if s := os.Getenv("LAKE_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	const workers = 2
	var results [workers]fuzzResult
	t.Run("workers", func(t *testing.T) {
		for i := range workers {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				bad := 0
				results[i] = newStubs(t).fuzz(t, seed+uint64(i), (n+workers-1)/workers, func(q, detail string) bool {
					t.Errorf("other answer over what was selected\n\t%s\n\t%s", q, detail)
					bad++
					return bad < 5
				})
			})
		}
	})
	var res fuzzResult
	for _, r := range results {
		res.queries, res.invalid, res.unplanned = res.queries+r.queries, res.invalid+r.invalid, res.unplanned+r.unplanned
		res.selected, res.all, res.empty = res.selected+r.selected, res.all+r.all, res.empty+r.empty
	}
	t.Logf("LAKE_SEED=%d: %d queries compared (%d more were not valid), %d not planned, %.0f%% of the regions selected, %d selected nothing",
		seed, res.queries, res.invalid, res.unplanned, 100*float64(res.selected)/float64(max(1, res.all)), res.empty)
	if !t.Failed() && res.queries < n {
		t.Errorf("%d queries were compared, not %d", res.queries, n)
	}
	if res.unplanned > n/100 {
		t.Errorf("%d of %d queries could not be planned", res.unplanned, n)
	}
	if res.selected*100 > res.all*65 {
		t.Errorf("%d of %d regions selected: the rules have become weak", res.selected, res.all)
	}
}

// TestFuzzNotices: rules that are not sound are found, soon.
func TestFuzzNotices(t *testing.T) {
	w := newStubs(t)
	for _, rule := range []string{"time", "outer", "limit", "span"} {
		t.Run(rule, func(t *testing.T) {
			testMutation = rule
			defer func() { testMutation = "" }()
			found := ""
			res := w.fuzz(t, 1, 1500, func(q, _ string) bool { found = q; return false })
			if found == "" {
				t.Fatalf("%d queries did not notice", res.queries)
			}
			t.Logf("found by query %d: %s", res.queries, found)
		})
	}
}

type generator struct{ *rand.Rand }

func (g generator) pick(a ...string) string { return a[g.IntN(len(a))] }
func (g generator) op() string              { return g.pick("=", "<>", "<", "<=", ">", ">=") }
func (g generator) date() string {
	return fmt.Sprintf("2024-%02d-%02d", 1+g.IntN(7), []int{1, 1, 1, 5, 15, 20, 28}[g.IntN(7)])
}
func (g generator) ts() string {
	return "TIMESTAMP '" + g.date() + " " + g.pick("00:00:00", "00:00:00", "12:00:00", "06:30:00", "23:59:59.999") + "'"
}
func (g generator) name() string  { return fmt.Sprintf("'P%04d'", 1+g.IntN(13)) }
func (g generator) month() string { return strconv.Itoa(1 + g.IntN(7)) }
func (g generator) names(n int) string {
	var all []string
	for range n {
		all = append(all, g.name())
	}
	return strings.Join(all, ", ")
}

// point is a condition on points p, or on a local table of points.
func (g generator) point(a string) string {
	return a + g.pick("system = 'HVAC'", "site IN ('B1', 'B2')", "point_name < 'P0005'", "system <> 'ELEC'", "point_id > 6", "unit IS NULL", "min_value > 20",
		"equipment LIKE 'E%'", "system IN ('HVAC', 'AIR', 'X', 'Y', 'Z', 'U')", "point_id % 2 = 0", "point_name ILIKE 'p000%'", "system || site = 'HVACB3'")
}

// pred is a condition on samples, with alias a.
func (g generator) pred(a string, depth int) string {
	if depth > 0 && g.IntN(3) > 0 {
		x, y := g.pred(a, depth-1), g.pred(a, depth-1)
		switch g.IntN(7) {
		case 0:
			return "NOT (" + x + ")"
		case 1:
			return "NOT (" + x + " OR " + y + ")"
		case 2, 3:
			return "(" + x + " OR " + y + ")"
		default:
			return "(" + x + " AND " + y + ")"
		}
	}
	ts, ms := a+"ts", a+"timestamp"
	switch g.IntN(34) {
	case 0, 1:
		return a + "point_name " + g.op() + " " + g.name()
	case 2:
		return a + "point_name " + g.pick("", "NOT ") + "IN (" + g.names(1+g.IntN(9)) + ")"
	case 3:
		return a + "point_name " + g.pick("LIKE 'P000%'", "LIKE '%1'", "LIKE 'P__0_'", "LIKE 'p%'", "NOT LIKE '%2'", "GLOB 'P00[01]*'", "ILIKE 'p001%'", "SIMILAR TO 'P00.[12]'")
	case 4, 5, 6:
		return ts + " " + g.op() + " " + g.ts()
	case 7:
		return ts + g.pick("", " NOT") + " BETWEEN " + g.ts() + " AND " + g.ts()
	case 8:
		return ms + " " + g.op() + " epoch_ms(" + g.ts() + ")"
	case 9:
		return "epoch_ms(" + ts + ") " + g.op() + " " + strconv.Itoa(1704067200000+g.IntN(180)*86400000)
	case 10:
		return g.pick("month", "quarter", "year", "day", "isodow", "week", "dayofyear") + "(" + ts + ") " + g.op() + " " + g.pick(g.month(), g.month(), "2024", "20")
	case 11:
		return "date_trunc('" + g.pick("month", "day", "hour", "quarter", "week", "year") + "', " + ts + ") " + g.op() + " " + g.ts()
	case 12:
		return ts + "::DATE " + g.op() + " DATE '" + g.date() + "'"
	case 13:
		return a + "value " + g.op() + " " + strconv.Itoa(g.IntN(100))
	case 14:
		return a + "point_id" + g.pick(" % 3 = 1", " + 1 > 5", " IS NULL", " IS NOT NULL", " IN (1, 2, 5)", " BETWEEN 3 AND 7", " IS DISTINCT FROM 4", "::VARCHAR = '7'", " // 4 = 1")
	case 15:
		return ts + " " + g.op() + " TIMESTAMPTZ '" + g.date() + " 00:00:00+02'"
	case 16:
		return "coalesce(" + a + "quality, 0) " + g.op() + " " + strconv.Itoa(g.IntN(3))
	case 17:
		return a + "point_id " + g.pick("", "NOT ") + "IN (SELECT point_id FROM points WHERE " + g.point("") + g.pick("", " AND point_id IS NOT NULL") + ")"
	case 18:
		return a + "point_name " + g.pick("", "NOT ") + "IN (SELECT point_name FROM points JOIN point_groups g USING (point_id) WHERE g.name = '" + g.pick("g0", "g1", "g2", "none", "x") + "')"
	case 19:
		return "strftime(" + ts + ", '" + g.pick("%Y-%m", "%Y-%m-%d", "%m/%Y", "%d", "%Y") + "') " + g.op() + " '" + g.pick("2024-0"+g.month(), g.date(), "0"+g.month()+"/2024", "2024", "15") + "'"
	case 20:
		return "time_bucket(INTERVAL '" + g.pick("1 hour", "1 day", "5 days", "1 month", "3 months", "90 minutes") + "', " + ts + ") " + g.op() + " " + g.ts()
	case 21:
		return g.pick("to_timestamp("+ms+" / 1000)", "epoch_ms("+ms+")", "make_timestamp("+ms+" * 1000)", ts+" + INTERVAL 10 DAY", ts+" - INTERVAL 36 HOUR", ts+" + INTERVAL 1 MONTH",
			"timezone('Europe/Berlin', timezone('UTC', "+ts+"))", ts+" AT TIME ZONE 'Asia/Kolkata'", ts+" AT TIME ZONE 'UTC'", "last_day("+ts+")") + " " + g.op() + " '" + g.date() + "'"
	case 22:
		return g.pick(ms+" / 1000", ms+" // 1000", "epoch("+ts+")") + " " + g.op() + " " + strconv.Itoa(1704067200+g.IntN(180)*86400)
	case 23:
		return ts + "::VARCHAR LIKE '" + g.pick("2024-03%", "2024-0%", "2024-05-2%", "%15%", "2024-06-01 %") + "'"
	case 24:
		return "year(" + ts + ") * 100 + month(" + ts + ") " + g.op() + " 20240" + g.month()
	case 25:
		return ts + " IN (" + g.ts() + ", " + g.ts() + ", TIMESTAMP '2024-05-28')"
	case 26:
		return "(" + a + "point_name, " + a + "quality) IN ((" + g.name() + ", 1), (" + g.name() + ", 2))"
	case 27:
		return "CASE WHEN " + a + "point_id > 5 THEN " + ts + " < " + g.ts() + " ELSE " + a + "value > 50 END"
	case 28:
		return a + "point_id " + g.pick("=", ">=", "<", "<>") + " (SELECT " + g.pick("min", "max", "any_value", "first") + "(point_id" + ") FROM points WHERE point_id = " + strconv.Itoa(1+g.IntN(13)) + ")"
	case 29:
		return ts + " " + g.pick(">=", "<", ">", "<=") + " (SELECT " + g.pick("min(since)", "max(until)", "max(since)") + " FROM events WHERE n " + g.op() + " " + strconv.Itoa(g.IntN(9)) + ")"
	case 30:
		return ts + " " + g.op() + " now()::TIMESTAMP - INTERVAL " + strconv.Itoa(1+g.IntN(2000)) + " DAY"
	case 31:
		return a + "point_name = ANY([" + g.names(2) + "])"
	case 32:
		return a + "tier = '" + g.pick("hot", "cold") + "'"
	default:
		return "list_contains([" + g.names(3) + "], " + a + "point_name)"
	}
}

func (g generator) query() string {
	agg := g.pick("count(*) c, sum(value) v, min(ts) a, max(ts) b", "count(*) c", "max(ts) b, min(point_name)", "sum(flags), count(DISTINCT tier)")
	join := g.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
	key := g.pick("s.point_id = p.point_id", "s.point_name = p.point_name", "s.point_id = p.point_id AND s.quality < 2", "s.point_id IS NOT DISTINCT FROM p.point_id", "lower(s.point_name) = lower(p.name)")
	switch g.IntN(40) {
	case 0, 1, 2, 3:
		return "SELECT " + agg + " FROM samples WHERE " + g.pred("", 3)
	case 4, 5:
		return "SELECT point_name, count(*), sum(value), max(ts) FROM samples WHERE " + g.pred("", 2) + " GROUP BY ALL HAVING " + g.pick("count(*) > 3", "point_name > 'P0004'", "max(ts) > TIMESTAMP '2024-03-01'")
	case 6:
		return "WITH x AS (SELECT * FROM samples WHERE " + g.pred("", 1) + ") SELECT point_name, count(*), sum(value) FROM x WHERE " + g.pred("", 2) + " GROUP BY ALL"
	case 7, 8:
		return "SELECT p.system, p.site, count(s.ts), sum(s.value) FROM samples s " + join + " points p ON " + key + " AND " + g.pick("TRUE", g.pred("s.", 1), g.point("p.")) +
			" WHERE " + g.pick(g.point("p."), g.pred("s.", 2), g.point("p.")+" AND "+g.pred("s.", 1), g.point("p.")+" OR "+g.pred("s.", 1)) + " GROUP BY ALL"
	case 9, 10:
		return "SELECT p.system, p.site, count(s.ts), sum(s.value) FROM points p " + join + " samples s ON " + key + " AND " + g.pick("TRUE", g.pred("s.", 1), g.point("p.")) +
			" WHERE " + g.pick(g.point("p."), g.pred("s.", 2), "TRUE", "s.ts IS NULL") + " GROUP BY ALL"
	case 11:
		return "SELECT * FROM points p WHERE " + g.pick("", "NOT ") + "EXISTS (SELECT 1 FROM samples s WHERE s.point_id = p.point_id AND " + g.pred("s.", 1) + ") AND " + g.point("p.")
	case 12:
		return "SELECT * FROM points p WHERE p.point_id " + g.pick("", "NOT ") + "IN (SELECT point_id FROM samples s WHERE " + g.pred("s.", 2) + ") AND " + g.pick("TRUE", g.point("p."))
	case 13, 14:
		return "SELECT p.point_name, (SELECT " + g.pick("max(ts)", "count(*)", "sum(value)", "arg_max(value, ts)") + " FROM samples s WHERE s.point_id = p.point_id AND " + g.pred("s.", 1) + ") z FROM points p WHERE " + g.point("p.")
	case 15:
		return "SELECT a.point_name, b.point_name bn, count(*), sum(a.value - b.value) FROM samples a " + g.pick("JOIN", "LEFT JOIN", "FULL JOIN") + " samples b ON a.ts = b.ts AND " + g.pick(g.pred("b.", 1), "a.point_id = b.point_id") +
			" WHERE " + g.pred("a.", 1) + " AND " + g.pred("a.", 1) + " AND " + g.pick("TRUE", g.pred("b.", 1)) + " AND a.point_id < 6 GROUP BY ALL"
	case 16:
		return "SELECT * FROM (SELECT point_name, ts, value, lag(value) OVER (PARTITION BY point_name ORDER BY ts) lg, row_number() OVER (ORDER BY ts, point_name) rn FROM samples WHERE " + g.pred("", 1) +
			") WHERE " + g.pick("point_name = 'P0003'", "ts >= TIMESTAMP '2024-03-01'", "rn < 20", "lg > 50 AND point_name LIKE 'P000%'")
	case 17, 18:
		return "WITH x AS " + g.pick("", "MATERIALIZED ", "NOT MATERIALIZED ") + "(SELECT * FROM samples WHERE " + g.pred("", 1) + ") SELECT 1 k, count(*), sum(value) FROM x WHERE " + g.pred("", 1) +
			" UNION ALL SELECT 2, count(*), max(value) FROM x " + g.pick("", "JOIN points p USING (point_id) ", "SEMI JOIN points p USING (point_id) ") + "WHERE " + g.pred("x.", 1)
	case 19:
		return "SELECT point_name, ts, value FROM samples WHERE " + g.pred("", 2) + " ORDER BY ts " + g.pick("DESC", "ASC") + ", point_name LIMIT 7"
	case 20:
		return "SELECT s.point_name, s.ts, value FROM samples s, (SELECT max(ts) m, min(point_name) pn FROM samples WHERE " + g.pred("", 1) + ") t WHERE s.ts > t.m - INTERVAL 20 DAY AND s.point_name >= t.pn AND " + g.pred("s.", 1)
	case 21:
		return "SELECT g.name, p.system, count(*), sum(value) FROM samples s JOIN point_groups g ON g.point_id = s.point_id " + g.pick("JOIN", "LEFT JOIN") + " points p ON p.point_id = " + g.pick("s", "g") + ".point_id WHERE " +
			g.pick("g.name = 'g1'", "g.name > 'g0' AND "+g.point("p."), g.pred("s.", 1)+" OR g.name = 'g2'") + " GROUP BY ALL"
	case 22:
		return "SELECT p.point_name, x.* FROM points p" + g.pick(" JOIN", " LEFT JOIN") + " LATERAL (SELECT ts, value FROM samples s WHERE s.point_id = p.point_id AND " + g.pred("s.", 1) + " ORDER BY ts DESC LIMIT " + g.pick("1", "3") + ") x ON TRUE WHERE " + g.point("p.")
	case 23:
		return "SELECT * FROM (SELECT point_id, max(ts) m, count(*) FROM samples WHERE " + g.pred("", 1) + " GROUP BY " + g.pick("point_id", "ALL", "ROLLUP (point_id)") + ") " + join + " points p USING (point_id) WHERE " + g.pick(g.point("p."), "m > '2024-04-01'")
	case 24:
		return "SELECT count(*), sum(s.value), max(s.ts) FROM samples s " + g.pick("JOIN", "LEFT JOIN", "SEMI JOIN", "ANTI JOIN", "RIGHT JOIN") + " events e ON s.point_id = e.point_id AND s.ts >= e.since AND s.ts < e.until WHERE " + g.pred("s.", 1)
	case 25:
		return "SELECT e.n, count(s.ts), avg(s.value) FROM events e LEFT JOIN samples s ON s.ts BETWEEN e.since AND e.until AND s.point_id = e.point_id WHERE e.n " + g.op() + " 3 GROUP BY ALL"
	case 26: // of several nearest rows any may be taken: only their time is the same
		if g.IntN(2) == 0 {
			return "SELECT a.point_name, a.ts, b.ts FROM samples a ASOF " + g.pick("JOIN", "LEFT JOIN") + " samples b ON a.ts " + g.pick(">=", "<=", ">") + " b.ts AND a." + g.pick("flags = b.flags", "quality = b.quality") +
				" WHERE " + g.pred("a.", 1) + " AND a.point_id IN (1, 5)"
		}
		return "SELECT a.point_name, a.ts, b.ts, b.value FROM samples a ASOF " + g.pick("JOIN", "LEFT JOIN") + " samples b ON a.ts " + g.pick(">=", "<=", ">") + " b.ts AND a.point_id = b.point_id" +
			" WHERE " + g.pred("a.", 1) + " AND a.point_id IN (1, 5) AND " + g.pick("TRUE", g.pred("b.", 0))
	case 27:
		return "SELECT a.ts, b.n FROM (SELECT * FROM samples WHERE " + g.pred("", 1) + " ORDER BY ts, point_id) a POSITIONAL JOIN events b WHERE " + g.pick("TRUE", "b.n > 2", "a.point_id > 4")
	case 28:
		return "SELECT l.point_id, l.ts, p.system FROM latest l " + join + " points p ON p.point_id = l.point_id AND " + g.point("p.") + " WHERE " + g.pick(g.pred("l.", 1), g.point("p."))
	case 29:
		return "SELECT s.point_id, count(*) FROM samples s JOIN latest l ON l.point_id = s.point_id AND s.ts > l.ts - INTERVAL 3 DAY WHERE " + g.pick(g.pred("s.", 1), g.pred("l.", 1)) + " GROUP BY ALL"
	case 30:
		return "PIVOT (SELECT * FROM samples WHERE " + g.pred("", 1) + ") ON point_name IN ('P0001', 'P0005', 'P0012') USING " + g.pick("avg(value)", "count(*)") + " GROUP BY " + g.pick("flags", "quality", "flags, quality")
	case 31:
		return "SELECT point_id, max(timestamp), sum(value) FROM timeseries WHERE " + g.pick("point_id = 3", "TRUE", "point_id IN (SELECT point_id FROM points WHERE "+g.point("")+")") + " AND timestamp " + g.op() + " 1709251200000 GROUP BY 1"
	case 32:
		return "SELECT count(*) FROM (SELECT point_id, ts FROM samples WHERE " + g.pred("", 1) + " " + g.pick("EXCEPT", "INTERSECT", "UNION", "UNION ALL", "EXCEPT ALL") + " SELECT point_id, ts FROM samples WHERE " + g.pred("", 1) + ") u " +
			g.pick("WHERE point_id > 3", "JOIN points p USING (point_id) WHERE "+g.point("p."), "")
	case 33:
		return "SELECT * FROM (SELECT s.point_id, s.ts, p.system FROM samples s JOIN points p USING (point_id) WHERE " + g.pred("s.", 1) + " ORDER BY s.ts, s.point_id LIMIT " + g.pick("5", "50") + ") x " +
			g.pick("WHERE system = 'HVAC'", "JOIN point_groups g ON g.point_id = x.point_id AND g.name = 'g1'", "JOIN points q ON q.point_id = x.point_id WHERE q.site = 'B1'")
	case 34:
		return "WITH x AS MATERIALIZED (SELECT p.point_id, p.system FROM points p " + g.pick("JOIN", "LEFT JOIN") + " point_groups g USING (point_id) WHERE " + g.pick("g.name = 'g1'", g.point("p.")) + ") SELECT count(*), (SELECT count(*) FROM x) FROM samples s " +
			g.pick("JOIN", "SEMI JOIN", "ANTI JOIN", "LEFT JOIN") + " x ON s.point_id = x.point_id WHERE " + g.pred("s.", 1)
	case 35:
		return "WITH RECURSIVE r AS (SELECT 1 AS i, 0::DOUBLE AS v UNION ALL SELECT i + 1, coalesce((SELECT sum(value) FROM samples s WHERE s.point_id = i AND " + g.pick("TRUE", "s.ts < "+g.ts()) + "), 0) FROM r WHERE i < 5) SELECT * FROM r"
	case 36:
		return "SELECT point_name, ts, value FROM samples WHERE " + g.pred("", 1) + " QUALIFY row_number() OVER (PARTITION BY " + g.pick("point_name", "quality", "point_id, flags") + " ORDER BY ts DESC, point_name) <= " + g.pick("1", "2") +
			g.pick("", " AND point_name > 'P0004'")
	case 37:
		return "SELECT DISTINCT " + g.pick("", "ON (s.point_id) ") + "s.point_id, p.system FROM samples s JOIN points p USING (point_id) WHERE " + g.pred("s.", 1) + " AND " + g.point("p.") + " ORDER BY ALL"
	case 38:
		return "SELECT u.x, s.point_id, count(*) FROM samples s, unnest([1, 3, 20]) u(x) WHERE " + g.pick("s.point_id = u.x", "s.point_id <> u.x", "TRUE") + " AND " + g.pred("s.", 1) + " GROUP BY ALL"
	default:
		return "SELECT count(*), sum(a.value) FROM samples a " + g.pick("JOIN", "LEFT JOIN", "SEMI JOIN") + " samples b USING (" + g.pick("point_id, ts", "point_name, ts", "ts") + ") JOIN points p ON p.point_id = a.point_id WHERE " + g.point("p.") + " AND " + g.pred("a.", 1)
	}
}
