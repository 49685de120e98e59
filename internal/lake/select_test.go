package lake

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"etl/internal/fault"
)

// smallLake has 8 points × 6 months, a region for each.
func smallLake(t testing.TB) *planner {
	p := newPlanner(t)
	p.execute(t, `INSERT INTO lake.points (point_id, point_name, id, name, site, system, equipment)
		SELECT i, 'P000' || i, i, 'P000' || i, 'S' || i % 2, ['HVAC', 'ELEC', 'WATER', 'AIR'][1 + i % 4], 'E' || i FROM range(1, 9) t(i)`)
	p.execute(t, `INSERT INTO lake.point_groups VALUES ('plant', 2), ('plant', 4), ('comfort', 1), ('comfort', 4)`)
	p.execute(t, `CREATE TABLE regions AS SELECT point_id, point_name, m AS t_min, m + INTERVAL 1 MONTH - INTERVAL 1 MILLISECOND AS t_max
		FROM lake.points, generate_series(TIMESTAMP '2024-01-01', TIMESTAMP '2024-06-01', INTERVAL 1 MONTH) s(m)`)
	p.execute(t, `CREATE TEMP TABLE watched AS SELECT 5 AS point_id, TIMESTAMP '2024-03-10' AS since`)
	return p
}

// selected says which months of which points a scan needs: "12 34-6" is months 3
// to 6 of points 1 and 2 … in short form points: months.
func selected(t testing.TB, p *planner, where string) string {
	t.Helper()
	rows := listed(t, p.Conn, `SELECT points || ':' || months FROM (
		SELECT string_agg(point_id::VARCHAR, '' ORDER BY point_id) AS points, months FROM (
			SELECT point_id, string_agg(month(t_min)::VARCHAR, '' ORDER BY t_min) AS months FROM regions WHERE `+where+` GROUP BY point_id)
		GROUP BY months) ORDER BY points`)
	return strings.Join(rows, " ")
}

func TestSelection(t *testing.T) {
	p := smallLake(t)
	write := os.Getenv("SELECTION") != ""
	for _, c := range selections {
		var got []string
		sc, err := scans(t.Context(), p.Conn, c.query)
		if err != nil {
			t.Errorf("%s\n\t%v", c.query, err)
			continue
		}
		for _, s := range sc {
			g := selected(t, p, s.Where)
			if s.Table != "samples" {
				g = s.Table + " " + g
			}
			got = append(got, g)
		}
		g := strings.Join(got, " | ")
		if write {
			fmt.Printf("\t{`%s`,\n\t\t%q},\n", c.query, g)
			if os.Getenv("SELECTION") == "where" {
				for _, s := range sc {
					fmt.Println("//", s.Where)
				}
			}
		} else if g != c.want {
			t.Errorf("%s\n\tgot  %s\n\twant %s\n\t%+v", c.query, g, c.want, sc)
		}
	}
}

// TestSpan: what is said about ts, to clip what is read from the hot tier.
func TestSpan(t *testing.T) {
	p := smallLake(t)
	ms := func(s string) int64 {
		v, err := time.Parse("2006-01-02 15:04:05.999", s)
		if err != nil {
			t.Fatal(err)
		}
		return v.UnixMilli()
	}
	const none = "none"
	for _, c := range []struct{ where, from, to string }{
		{`TRUE`, none, none},
		{`ts >= '2024-03-01'`, "2024-03-01 00:00:00", none},
		{`ts > '2024-03-01'`, "2024-03-01 00:00:00.001", none},
		{`ts < '2024-03-01'`, none, "2024-02-29 23:59:59.999"},
		{`ts <= '2024-03-01 00:00:00.0005'`, none, "2024-03-01 00:00:00"},
		{`ts = '2024-03-01'`, "2024-03-01 00:00:00", "2024-03-01 00:00:00"},
		{`ts >= '2024-03-01' AND ts < '2024-03-02' AND point_id = 1`, "2024-03-01 00:00:00", "2024-03-01 23:59:59.999"},
		{`ts BETWEEN '2024-03-01' AND '2024-03-02'`, "2024-03-01 00:00:00", "2024-03-02 00:00:00"},
		{`NOT (ts < '2024-03-01' OR ts > '2024-03-02')`, "2024-03-01 00:00:00", "2024-03-02 00:00:00"},
		{`NOT ts BETWEEN '2024-03-01' AND '2024-03-02'`, none, none},
		{`(point_id = 1 AND ts = '2024-03-01') OR (point_id = 2 AND ts = '2024-05-01')`, "2024-03-01 00:00:00", "2024-05-01 00:00:00"},
		{`ts = '2024-03-01' OR point_id = 1`, none, none},
		{`ts IN ('2024-03-01', '2024-05-01', '2024-04-01')`, "2024-03-01 00:00:00", "2024-05-01 00:00:00"},
		{`timestamp BETWEEN 1709251200000 AND 1709251200001`, "2024-03-01 00:00:00", "2024-03-01 00:00:00.001"},
		{`epoch_ms(ts) < 1709251200000`, none, "2024-02-29 23:59:59.999"},
		{`epoch_ms(timestamp) >= '2024-03-01'`, "2024-03-01 00:00:00", none},
		{`ts::DATE = '2024-03-01'`, "2024-03-01 00:00:00", "2024-03-01 23:59:59.999"},
		{`date_trunc('month', ts) = '2024-03-01'`, "2024-03-01 00:00:00", "2024-03-31 23:59:59.999"},
		{`time_bucket(INTERVAL 1 DAY, ts) = '2024-03-01'`, "2024-03-01 00:00:00", "2024-03-01 23:59:59.999"},
		{`ts > TIMESTAMPTZ '2024-03-01 00:00:00+01'`, "2024-02-29 23:00:00.001", none},
		{`ts < 'infinity'`, none, none},
		{`value > 5 AND ts + INTERVAL 1 DAY > '2024-03-01'`, none, none},
	} {
		got, err := scans(t.Context(), p.Conn, `SELECT * FROM samples WHERE `+c.where)
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %v %v", c.where, got, err)
			continue
		}
		from, to := int64(math.MinInt64), int64(math.MaxInt64)
		if c.from != none {
			from = ms(c.from)
		}
		if c.to != none {
			to = ms(c.to)
		}
		if got[0].From != from || got[0].To != to {
			t.Errorf("%s: %v to %v, want %s to %s", c.where, time.UnixMilli(got[0].From).UTC(), time.UnixMilli(got[0].To).UTC(), c.from, c.to)
		}
	}
}

func TestColumns(t *testing.T) {
	p := smallLake(t)
	for query, want := range map[string]string{
		`SELECT avg(value) FROM samples WHERE ts > '2024-01-01'`:                 "ts value",
		`SELECT count(*) FROM samples s JOIN points p USING (point_id)`:          "point_id",
		`SELECT p.point_name, value FROM samples JOIN points p USING (point_id)`: "point_id value",
		`SELECT timestamp FROM timeseries ORDER BY value LIMIT 1`:                "timestamp value",
	} {
		got, err := scans(t.Context(), p.Conn, query)
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %v %v", query, got, err)
			continue
		}
		slices.Sort(got[0].Columns)
		if s := strings.Join(got[0].Columns, " "); s != want {
			t.Errorf("%s: %s, want %s", query, s, want)
		}
	}
}

// TestScansRefuse: what can not be run is said before anything is fetched.
func TestScansRefuse(t *testing.T) {
	p := smallLake(t)
	for query, says := range map[string]string{
		`SELECT * FROM samples WHERE ts > 'soon'`:                                              "soon",
		`SELECT * FROM samples WHERE point_id = 1 OR ts BETWEEN '2024-01-01' AND '2024-13-01'`: "2024-13-01",
		`SELECT * FROM samples WHERE regexp_matches(point_name, '(')`:                          "missing )",
		`SELECT nothing FROM samples`:                                                          "nothing",
	} {
		_, err := scans(t.Context(), p.Conn, query)
		if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v (%v), want %q", query, err, fault.KindOf(err), says)
		}
	}
	for _, query := range []string{`SELECT * FROM samples WHERE TRY_CAST('soon' AS TIMESTAMP) < ts`, `SELECT 'soon'::TIMESTAMP FROM samples`} {
		if _, err := scans(t.Context(), p.Conn, query); err != nil {
			t.Errorf("%s: %v", query, err)
		}
	}
}

// TestNow: within a transaction now() of the plan is that of the run.
func TestNow(t *testing.T) {
	p := smallLake(t)
	p.execute(t, `BEGIN`)
	defer p.execute(t, `ROLLBACK`)
	now := listed(t, p.Conn, `SELECT epoch_us(now())`)
	time.Sleep(5 * time.Millisecond)
	got, err := scans(t.Context(), p.Conn, `SELECT * FROM samples WHERE ts <= now()::TIMESTAMP`)
	if err != nil || len(got) != 1 || !strings.Contains(got[0].Where, now[0]) {
		t.Errorf("%v %v, want %s in it", got, err, now[0])
	}
	time.Sleep(5 * time.Millisecond)
	if again := listed(t, p.Conn, `SELECT epoch_us(now())`); again[0] != now[0] {
		t.Errorf("now() moved from %s to %s", now[0], again[0])
	}
}

// BenchmarkSelection: 35 months of 4,500 points, from the text to the regions.
func BenchmarkSelection(b *testing.B) {
	p := newPlanner(b)
	p.execute(b, `SET threads=2`)
	p.execute(b, `INSERT INTO lake.points (point_id, point_name, id, name, site, system, equipment) SELECT i, 'Building' || i % 7 || '.HVAC.AHU' || i % 40 || '.Point' || i, i,
		'Building' || i % 7 || '.HVAC.AHU' || i % 40 || '.Point' || i, 'S' || i % 3, ['HVAC', 'ELEC', 'WATER', 'AIR'][1 + i % 4], 'E' || i FROM range(1, 4501) t(i)`)
	p.execute(b, `CREATE TABLE regions AS SELECT point_id, point_name, m AS t_min, m + INTERVAL 1 MONTH - INTERVAL 1 MILLISECOND AS t_max
		FROM lake.points, generate_series(TIMESTAMP '2022-01-01', TIMESTAMP '2024-11-01', INTERVAL 1 MONTH) s(m) ORDER BY m, point_id`)
	for _, c := range []struct{ name, query string }{
		{"point", `SELECT avg(value) FROM samples WHERE point_id = 17 AND ts >= '2024-03-01' AND ts < '2024-04-01'`},
		{"name", `SELECT avg(value) FROM samples WHERE point_name LIKE 'Building1.%Point1%' AND ts BETWEEN '2024-01-05' AND '2024-02-03'`},
		{"system", `SELECT p.site, avg(value) FROM samples s JOIN points p USING (point_id) WHERE p.system = 'HVAC' AND year(ts) = 2024 AND month(ts) = 3 GROUP BY 1`},
		{"month", `SELECT point_id, avg(value) FROM samples WHERE date_trunc('month', ts) = '2024-03-01' GROUP BY 1`},
		{"regexp", `SELECT count(*) FROM samples WHERE regexp_matches(point_name, 'AHU1[0-9]\.') OR lower(point_name) LIKE '%point99'`},
		{"strftime", `SELECT count(*) FROM samples WHERE strftime(ts, '%Y-%m') = '2024-03' AND point_name ILIKE 'building1%'`},
		{"all", `SELECT count(*) FROM samples`},
	} {
		b.Run(c.name, func(b *testing.B) {
			var n int
			best := time.Hour
			for b.Loop() {
				start := time.Now()
				s, err := parse(b.Context(), p.Conn, c.query, nil)
				if err != nil {
					b.Fatal(err)
				}
				all, err := scans(b.Context(), p.Conn, s.SQL)
				if err != nil {
					b.Fatal(err)
				}
				if err := p.QueryRowContext(b.Context(), `SELECT count(*) FROM regions WHERE `+all[0].Where).Scan(&n); err != nil {
					b.Fatal(err)
				}
				best = min(best, time.Since(start))
			}
			b.ReportMetric(float64(n), "regions")
			b.ReportMetric(best.Seconds()*1000, "best-ms")
		})
	}
}
