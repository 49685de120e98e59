package lake

import (
	"fmt"
	"os"
	"strings"
	"testing"
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
