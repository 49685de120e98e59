package lake

import (
	"strings"
	"testing"

	"etl/internal/object"
	"etl/internal/utc"
)

// TestSimplify: what is left out holds for every row, and nothing else is left out.
func TestSimplify(t *testing.T) {
	w := newWorld(t)
	conn, err := w.lake.db.Conn(t.Context())
	w.must(err)
	defer conn.Close()
	var zone string
	w.must(conn.QueryRowContext(t.Context(), "SELECT current_setting('TimeZone')").Scan(&zone))
	if zone != "UTC" {
		t.Errorf("another connection has the time zone %s", zone)
	}
	month, err := utc.ParseMonth("2024-02")
	if err != nil {
		t.Fatal(err)
	}
	files := make([]selectedFile, simplifyFrom)
	for i := range files {
		files[i] = selectedFile{File{Month: month, Point: int32(i), Key: object.Key("x")}, utc.SetOf(month, month.Days())}
	}
	for _, c := range []struct {
		sql  string
		left string // what of it must be there still; "" for nothing
		gone string // what must not
	}{
		{"SELECT avg(value) FROM samples WHERE ts >= '2024-02-01' AND ts < '2024-03-01'", "", "2024"},
		{"SELECT avg(value) FROM samples WHERE ts >= '2024-02-01'", "", "2024"},
		{"SELECT avg(value) FROM samples s WHERE s.ts BETWEEN '2024-02-01' AND TIMESTAMP '2024-03-01' AND value > 3", "3", "2024"},
		{"SELECT avg(value) FROM samples WHERE timestamp >= 1706745600000 AND timestamp < 1709251200000", "", "170"},
		{"SELECT avg(value) FROM samples WHERE '2024-02-01' <= ts", "", "2024"},
		{"WITH x AS (SELECT * FROM samples WHERE ts >= '2024-01-01') SELECT avg(value) FROM x WHERE ts < '2024-02-05'", "2024-02-05", "2024-01-01"},
		{"SELECT avg(value) FROM samples WHERE ts >= '2024-02-01 00:00:00.001'", "2024-02-01", "none"},
		{"SELECT avg(value) FROM samples WHERE ts > '2024-02-01'", "2024-02-01", "none"},
		{"SELECT avg(value) FROM samples WHERE ts <= '2024-02-29 23:59:59.998'", "2024-02-29", "none"},
		{"SELECT avg(value) FROM samples WHERE ts <> '2025-02-01'", "2025-02-01", "none"},
		{"SELECT avg(value) FROM samples WHERE ts >= '2024-02-01' OR value > 3", "2024-02-01", "none"},
		{"SELECT avg(value) FROM samples WHERE NOT (ts >= '2024-02-01')", "2024-02-01", "none"},
		{"SELECT avg(value) FROM samples JOIN points USING (point_id) WHERE ts >= '2024-01-01'", "2024-01-01", "none"},
		{"SELECT avg(ts) FROM samples t(ts) WHERE ts >= 0", "0", "none"},
		{"WITH samples AS (SELECT TIMESTAMP '2020-01-01' AS ts) SELECT count(*) FROM samples WHERE ts >= '2024-01-01'", "2024-01-01", "none"},
		{"SELECT count(*) FROM samples WHERE ts >= NULL", "NULL", "none"},
		{"SELECT count(*) FROM samples WHERE ts >= (SELECT min(created_at)::TIMESTAMP FROM (SELECT '2024-01-01' AS created_at))", "created_at", "none"},
	} {
		s, err := parse(t.Context(), w.lake.conn, c.sql, nil)
		if err != nil {
			t.Fatalf("%s: %v", c.sql, err)
		}
		got := w.lake.simplify(t.Context(), &plan{stmt: s, files: files})
		if !strings.Contains(got, c.left) || strings.Contains(got, c.gone) {
			t.Errorf("%s became %s", c.sql, got)
		}
		if _, err := parse(t.Context(), w.lake.conn, got, nil); err != nil {
			t.Errorf("%s became %s: %v", c.sql, got, err)
		}
	}
}
