package lake

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/duckdb/duckdb-go/v2"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/object/objecttest"
	"etl/internal/sample"
	"etl/internal/source"
	sqlitesource "etl/internal/source/sqlite"
	"etl/internal/utc"
	"etl/jobs"
)

// world is a hot tier, a cold tier, a clock, a lake over both, and the truth:
// every sample that the sensors ever wrote, in one plain table of DuckDB.
type world struct {
	t     testing.TB
	db    string
	conn  *sqlite.Conn // what the sensors write with
	src   hotTier
	dir   *dir.Store // nil where the store is another one
	root  string     // of dir
	store *objecttest.Faults
	now   time.Time
	truth map[key]row
	cache *Cache
	lake  *Lake
}

// hotTier is what a database offers.
type hotTier interface {
	source.Source
	source.Ledger
	source.Migrator
	source.Grouper
	source.Latester
	source.Historian
}

type key struct {
	point int32
	ts    int64
}

type row struct {
	value   float64 // NaN is NULL
	quality uint8
	flags   uint16
}

func day(s string) utc.Day {
	d, err := utc.ParseDay(s)
	if err != nil {
		panic(err)
	}
	return d
}

// newWorld is the embedded default.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, db: filepath.Join(t.TempDir(), "d1.sqlite")}
	src, err := sqlitesource.Open(w.db, sqlitesource.Options{Create: true, Readers: 3, Now: func() time.Time { return w.now }})
	w.must(err)
	w.root = filepath.Join(t.TempDir(), "r2")
	w.dir, err = dir.Open(w.root)
	w.must(err)
	w.build(src, w.dir)
	return w
}

// build makes the rest of a world around the source in the file w.db and a store.
func (w *world) build(src hotTier, store object.Store) {
	w.t.Helper()
	w.now, w.truth = time.Date(2024, 3, 10, 12, 0, 0, 0, time.UTC), map[key]row{}
	w.t.Cleanup(func() { src.Close() })
	_, err := src.Migrate(w.t.Context())
	w.must(err)
	w.src = src
	w.conn, err = sqlite.OpenConn(w.db, sqlite.OpenReadWrite)
	w.must(err)
	w.conn.SetBlockOnBusy()
	w.t.Cleanup(func() { w.conn.Close() })
	w.store = objecttest.NewFaults(store)
	w.cache, err = OpenCache(filepath.Join(w.t.TempDir(), "cache"), 1<<30)
	w.must(err)
	w.lake = w.open(w.options())
}

func (w *world) options() Options {
	return Options{Store: w.store, StoreName: "test", Source: w.src, Ledger: w.src, Cache: w.cache, Threads: 2, Now: func() time.Time { return w.now }}
}

func (w *world) open(o Options) *Lake {
	w.t.Helper()
	l, err := Open(context.Background(), o)
	w.must(err)
	w.t.Cleanup(func() { w.must(l.Close()) })
	return l
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exec(text string, args ...any) {
	w.t.Helper()
	w.must(sqlitex.Execute(w.conn, text, &sqlitex.ExecOptions{Args: args}))
}

// point adds a point and returns its id.
func (w *world) point(name, system string) int32 {
	w.t.Helper()
	w.exec("INSERT INTO points (name, system, site) VALUES (?, ?, 'West')", name, system)
	return int32(w.conn.LastInsertRowID())
}

// put upserts one sample.
func (w *world) put(point int32, ts int64, r row) {
	w.t.Helper()
	var v any = r.value
	if r.value != r.value {
		v = nil
	}
	w.exec("INSERT OR REPLACE INTO timeseries (point_id, timestamp, value, quality, flags) VALUES (?, ?, ?, ?, ?)", point, ts, v, int(r.quality), int(r.flags))
	w.truth[key{point, ts}] = r
}

// fill writes n samples a day on the days.
func (w *world) fill(point int32, from, to utc.Day, n int64) {
	w.t.Helper()
	w.exec("BEGIN")
	for d := from; d < to; d++ {
		for i := range n {
			w.put(point, d.Start()+i*utc.DayMillis/n, row{float64(d) + float64(i)/16, 192, 0})
		}
	}
	w.exec("COMMIT")
}

func (w *world) env() jobs.Env {
	return jobs.Env{Source: w.src, Ledger: w.src, Journal: w.src, Store: w.store, Now: func() time.Time { return w.now }}
}

// job runs an archiving job. Its failures are returned, errors end the test.
func (w *world) job(o jobs.ArchiveOptions) jobs.Report {
	w.t.Helper()
	p, err := jobs.PlanArchive(w.t.Context(), w.env(), o)
	w.must(err)
	r, err := p.Run(w.t.Context(), w.env())
	w.must(err)
	return r
}

func (w *world) archive(from, to utc.Day, globs ...string) {
	w.t.Helper()
	if r := w.job(jobs.ArchiveOptions{Mode: jobs.Backfill, Days: utc.Days{From: from, To: to}, Points: jobs.Points{Globs: globs}}); len(r.Failed) > 0 {
		w.t.Fatalf("archive: %s", r.Failed[0].Error)
	}
}

// trim takes marked days out of the hot tier, as retention does.
func (w *world) trim(point int32, d utc.Day) {
	w.t.Helper()
	marked := false
	w.must(w.src.Marks(w.t.Context(), []int32{point}, utc.Days{From: d, To: d + 1}, func(m source.Mark) { marked = m.State == source.Marked }))
	if !marked {
		return
	}
	w.exec("BEGIN")
	w.exec("INSERT OR IGNORE INTO archive_trims (point_id, day) VALUES (?, ?)", point, int(d))
	w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ?", point, d.Start(), d.End())
	w.exec("UPDATE archive_marks SET done = 2 WHERE point_id = ? AND day = ? AND done = 1", point, int(d))
	w.exec("COMMIT")
}

// oracle is a plain DuckDB with the truth in it.
func (w *world) oracle() *sql.Conn {
	w.t.Helper()
	connector, err := duckdb.NewConnector("", nil)
	w.must(err)
	db := sql.OpenDB(connector)
	w.t.Cleanup(func() { db.Close() })
	conn, err := db.Conn(w.t.Context())
	w.must(err)
	for _, s := range []string{"SET TimeZone = 'UTC'",
		"CREATE TABLE rows (point_id INTEGER, ts TIMESTAMP, value DOUBLE, quality INTEGER, flags INTEGER)",
		"CREATE TABLE points (point_id INTEGER, point_name VARCHAR, id INTEGER, name VARCHAR, site VARCHAR, system VARCHAR)",
		"CREATE TABLE point_groups (name VARCHAR, point_id INTEGER)",
		`CREATE VIEW samples AS SELECT point_id, point_name, ts, epoch_ms(ts) AS timestamp, value, quality, flags FROM rows JOIN points USING (point_id)`,
		`CREATE VIEW latest AS SELECT point_id, point_name, s.ts AS ts, epoch_ms(s.ts) AS timestamp, s.value AS value, s.quality AS quality, s.flags AS flags FROM
			(SELECT point_id, point_name, arg_max(struct_pack(ts, value, quality, flags), ts) AS s FROM samples GROUP BY ALL)`,
	} {
		_, err := conn.ExecContext(w.t.Context(), s)
		w.must(err)
	}
	fill := func(table string, rows [][]driver.Value) {
		w.must(conn.Raw(func(c any) error {
			a, err := duckdb.NewAppender(c.(driver.Conn), "", "main", table)
			if err != nil {
				return err
			}
			for _, r := range rows {
				if err := a.AppendRow(r...); err != nil {
					return err
				}
			}
			return a.Close()
		}))
	}
	var rows, points, groups [][]driver.Value
	for k, r := range w.truth {
		var v driver.Value = r.value
		if r.value != r.value {
			v = nil
		}
		rows = append(rows, []driver.Value{k.point, time.UnixMilli(k.ts).UTC(), v, int32(r.quality), int32(r.flags)})
	}
	fill("rows", rows)
	w.must(sqlitex.Execute(w.conn, "SELECT id, name, site, system FROM points", &sqlitex.ExecOptions{ResultFunc: func(st *sqlite.Stmt) error {
		points = append(points, []driver.Value{st.ColumnInt32(0), st.ColumnText(1), st.ColumnInt32(0), st.ColumnText(1), st.ColumnText(2), st.ColumnText(3)})
		return nil
	}}))
	fill("points", points)
	w.must(sqlitex.Execute(w.conn, "SELECT name, point_id FROM point_groups", &sqlitex.ExecOptions{ResultFunc: func(st *sqlite.Stmt) error {
		groups = append(groups, []driver.Value{st.ColumnText(0), st.ColumnInt32(1)})
		return nil
	}}))
	fill("point_groups", groups)
	return conn
}

// reply is the rows of a statement in an order of their own.
func reply(t testing.TB, conn *sql.Conn, text string) ([]string, error) {
	t.Helper()
	rows, err := conn.QueryContext(t.Context(), text)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, _ := rows.Columns()
	var out []string
	for rows.Next() {
		cells, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range cells {
			into[i] = &cells[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		out = append(out, line(cells))
	}
	slices.Sort(out)
	return out, rows.Err()
}

func line(cells []sql.NullString) string {
	parts := make([]string, len(cells))
	for i, c := range cells {
		parts[i] = "NULL"
		if c.Valid {
			parts[i] = c.String
		}
	}
	return strings.Join(parts, " | ")
}

// ask is what a lake answers, like reply.
func ask(t testing.TB, l *Lake, q Query) ([]string, Stats, error) {
	t.Helper()
	r, err := l.Rows(t.Context(), q, 1_000_000)
	if err != nil {
		return nil, Stats{}, err
	}
	var out []string
	for _, c := range r.Cells {
		out = append(out, line(c))
	}
	slices.Sort(out)
	return out, r.Stats, nil
}

// varchar wraps a statement of named columns so that both sides print alike.
func varchar(text string) string { return "SELECT CAST(COLUMNS(*) AS VARCHAR) FROM (" + text + ")" }

// same compares the lake's answer with that of one table that holds the truth.
func (w *world) same(oracle *sql.Conn, q Query) Stats {
	w.t.Helper()
	want, err := reply(w.t, oracle, varchar(q.SQL))
	if err != nil {
		w.t.Fatalf("the oracle: %v\n%s", err, q.SQL)
	}
	got, stats, err := ask(w.t, w.lake, q)
	if err != nil {
		w.t.Fatalf("%v\n%s", err, q.SQL)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("%s\n%d rows, want %d\n%s", q.SQL, len(got), len(want), diff(got, want))
	}
	return stats
}

func diff(got, want []string) string {
	var b strings.Builder
	n := 0
	for _, g := range got {
		if _, ok := slices.BinarySearch(want, g); !ok && n < 5 {
			fmt.Fprintln(&b, "  extra:", g)
			n++
		}
	}
	for _, g := range want {
		if _, ok := slices.BinarySearch(got, g); !ok && n < 10 {
			fmt.Fprintln(&b, "  lacks:", g)
			n++
		}
	}
	return b.String()
}

var null = math.Float64frombits(math.Float64bits(sample.Null))

func init() { simplifyFrom = 1 } // so that every test of answers is one of simplified ones, too
