package fleet

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/sample"
	"etl/internal/utc"
	etlsql "etl/sql"
)

func newDatabase(t testing.TB, wal bool) (path string, conn *sqlite.Conn) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "d1.sqlite")
	flags := sqlite.OpenReadWrite | sqlite.OpenCreate
	if wal {
		flags |= sqlite.OpenWAL
	}
	conn, err := sqlite.OpenConn(path, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for _, m := range etlsql.Migrations() {
		if err := sqlitex.ExecuteScript(conn, m.SQL, nil); err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
	}
	return path, conn
}

func one(t testing.TB, conn *sqlite.Conn, q string) string {
	t.Helper()
	var out []string
	err := sqlitex.ExecuteTransient(conn, q, &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		for i := range s.ColumnCount() {
			out = append(out, s.ColumnText(i))
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func readPoint(t testing.TB, conn *sqlite.Conn, id int32) (s sample.Series) {
	t.Helper()
	err := sqlitex.Execute(conn, `SELECT timestamp, value, quality, flags FROM timeseries WHERE point_id = ? ORDER BY timestamp`, &sqlitex.ExecOptions{
		Args: []any{id},
		ResultFunc: func(r *sqlite.Stmt) error {
			v := r.ColumnFloat(1)
			if r.ColumnType(1) == sqlite.TypeNull {
				v = sample.Null
			}
			s.Append(r.ColumnInt64(0), v, uint8(r.ColumnInt(2)), uint16(r.ColumnInt(3)))
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestWrite loads the same fleet both ways and reads it back bit for bit.
func TestWrite(t *testing.T) {
	o := Demo()
	o.Points, o.Days = 20, 10
	f := newFleet(t, o)
	days := utc.Days{From: f.Days().From + 4, To: f.Days().From + 6} // in the outage
	for _, wal := range []bool{false, true} {
		for _, bulk := range []bool{false, true} {
			path, conn := newDatabase(t, wal)
			journal := one(t, conn, `PRAGMA journal_mode`)
			before := one(t, conn, `SELECT type, name, sql FROM sqlite_schema ORDER BY name`)
			conn.Close()
			ctx := t.Context()
			// In two parts of days: nothing is doubled, points are left alone.
			half := utc.Days{From: days.From, To: days.From + 1}
			a, err := f.WriteSQLite(ctx, path, half, WriteOptions{Bulk: bulk})
			if err != nil {
				t.Fatal(err)
			}
			b, err := f.WriteSQLite(ctx, path, utc.Days{From: half.To, To: days.To}, WriteOptions{Bulk: bulk})
			if err != nil {
				t.Fatal(err)
			}
			conn, err = sqlite.OpenConn(path, sqlite.OpenReadWrite)
			if err != nil {
				t.Fatal(err)
			}
			var rows int64
			for i, p := range f.Points() {
				var want sample.Series
				f.Series(i, days, &want)
				rows += int64(want.Len())
				got := readPoint(t, conn, p.ID)
				if !got.Equal(&want) {
					t.Fatalf("wal %t bulk %t: point %d differs", wal, bulk, p.ID)
				}
			}
			if a+b != rows {
				t.Errorf("wal %t bulk %t: %d + %d rows written, %d generated", wal, bulk, a, b, rows)
			}
			if got := one(t, conn, `SELECT type, name, sql FROM sqlite_schema ORDER BY name`); got != before {
				t.Errorf("wal %t bulk %t: schema is now %s", wal, bulk, got)
			}
			if got := one(t, conn, `PRAGMA journal_mode`); got != journal {
				t.Errorf("bulk %t: journal mode %s, was %s", bulk, got, journal)
			}
			if got := one(t, conn, `PRAGMA integrity_check`); got != "ok" {
				t.Errorf("wal %t bulk %t: %s", wal, bulk, got)
			}
			if got, want := one(t, conn, `SELECT name, site, system, equipment, unit, interval_ms, min_value, max_value FROM points WHERE id = 13`),
				"Building1.Plant.Chiller1.SupplyWaterTemp Building1 Plant Chiller1 degC"; !strings.HasPrefix(got, want) {
				t.Errorf("point 13: %s", got)
			}
			conn.Close()
		}
	}
}

func TestWriteLate(t *testing.T) {
	o := Demo()
	o.Points, o.Days = 20, 8
	f := newFleet(t, o)
	path, conn := newDatabase(t, true)
	days := utc.Days{From: f.lateDay(), To: f.lateDay() + 1}
	if _, err := f.WriteSQLite(t.Context(), path, days, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := sqlitex.ExecuteTransient(conn, `INSERT INTO archive_marks SELECT DISTINCT point_id, timestamp / 86400000, 'r', 1 FROM timeseries`, nil); err != nil {
		t.Fatal(err)
	}
	marks := one(t, conn, `SELECT count(*) FROM archive_marks`)
	late := f.Late()
	var want int64
	for _, l := range late {
		want += int64(l.Rows.Len())
	}
	for range 2 { // an upsert may be repeated
		if n, err := WriteLate(t.Context(), path, late); err != nil || n != want {
			t.Fatalf("%d rows, %v; want %d", n, err, want)
		}
	}
	for _, l := range late {
		var s sample.Series
		f.Series(l.Index, days, &s)
		s, _ = merged(s, l.Rows)
		if got := readPoint(t, conn, l.Point); !got.Equal(&s) {
			t.Errorf("point %d differs after late rows", l.Point)
		}
	}
	if after := one(t, conn, `SELECT count(*) FROM archive_marks`); after == marks {
		t.Errorf("no mark of %s fell", marks)
	}
}

func TestWriteRename(t *testing.T) {
	o := Demo()
	o.Points, o.Days = 20, 8
	f := newFleet(t, o)
	path, conn := newDatabase(t, true)
	if _, err := Write(t.Context(), path, f.Points(), func(func(int32, *sample.Series) bool) {}, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	r, _ := f.Rename()
	if err := WriteRename(t.Context(), path, r); err != nil {
		t.Fatal(err)
	}
	if got := one(t, conn, `SELECT id, name FROM points WHERE id = 1`); got != "1 Building1.HVAC.AHU1.SupplyAirTemperature" {
		t.Errorf("renamed point: %s", got)
	}
	if err := WriteRename(t.Context(), path, r); err == nil {
		t.Error("a point was renamed twice")
	}
	// Loading days later leaves the new name alone.
	if _, err := f.WriteSQLite(t.Context(), path, utc.Days{From: o.Start, To: o.Start + 1}, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := one(t, conn, `SELECT name FROM points WHERE id = 1`); got != r.New {
		t.Errorf("after loading: %s", got)
	}
}

func TestWriteErrors(t *testing.T) {
	f := newFleet(t, Bench(2, 2))
	missing := filepath.Join(t.TempDir(), "none.sqlite")
	if _, err := f.WriteSQLite(t.Context(), missing, f.Days(), WriteOptions{}); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing database: %v", err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("a missing database was made")
	}
	path, conn := newDatabase(t, false)
	day := utc.Days{From: f.Days().From, To: f.Days().From + 1}
	if _, err := f.WriteSQLite(t.Context(), path, day, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	// The second day of point 1 is new, but its first day is there: nothing of it stays.
	if _, err := f.WriteSQLite(t.Context(), path, f.Days(), WriteOptions{}); err == nil {
		t.Error("rows were doubled or replaced")
	}
	if got := one(t, conn, `SELECT count(*) FROM timeseries`); got != "2880" {
		t.Errorf("%s rows after a write that was refused", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.WriteSQLite(ctx, path, utc.Days{From: day.To, To: day.To + 1}, WriteOptions{}); err == nil {
		t.Error("a cancelled write ended well")
	}
	if got := one(t, conn, `SELECT count(*) FROM timeseries`); got != "2880" {
		t.Errorf("%s rows after a write that was cancelled", got)
	}
}

func BenchmarkWrite(b *testing.B) {
	for name, o := range map[string]WriteOptions{"triggers": {}, "bulk": {Bulk: true}} {
		b.Run(name, func(b *testing.B) {
			f := newFleet(b, Bench(40, 10))
			var rows int64
			var took time.Duration
			for b.Loop() {
				path, conn := newDatabase(b, true)
				conn.Close()
				start := time.Now()
				n, err := f.WriteSQLite(b.Context(), path, f.Days(), o)
				if err != nil {
					b.Fatal(err)
				}
				took += time.Since(start)
				rows += n
			}
			b.ReportMetric(float64(rows)/took.Seconds()/1e6, "Mrows/s")
		})
	}
}
