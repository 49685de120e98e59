package jobs

import (
	"context"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/object/objecttest"
	"etl/internal/sample"
	"etl/internal/source"
	sqlitesource "etl/internal/source/sqlite"
	"etl/internal/utc"
	"etl/manifests"
)

// world is a hot tier, a cold tier and a clock to run jobs in.
type world struct {
	t      testing.TB
	db     string
	conn   *sqlite.Conn // what the sensors write with
	src    *sqlitesource.Source
	dir    object.Store // what is stored, read without faults
	root   string       // of dir, where it is a folder
	store  *objecttest.Faults
	over   func(*Env) // puts another way to the tiers into env; may be nil
	now    time.Time
	events []Event
}

// day is a day of 2024, the year that the tests play in.
func day(s string) utc.Day {
	d, err := utc.ParseDay(s)
	if err != nil {
		panic(err)
	}
	return d
}

func daysOf(from, to string) utc.Days { return utc.Days{From: day(from), To: day(to)} }

// at is an instant as Unix milliseconds, written like "2024-01-05 12:00".
func at(s string) int64 {
	t, err := time.Parse("2006-01-02 15:04", s)
	if err != nil {
		panic(err)
	}
	return t.UnixMilli()
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, db: filepath.Join(t.TempDir(), "d1.sqlite"), now: time.Date(2024, 2, 10, 2, 0, 0, 0, time.UTC)}
	src, err := sqlitesource.Open(w.db, sqlitesource.Options{Create: true, Readers: 3, Now: func() time.Time { return w.now }})
	w.must(err)
	t.Cleanup(func() { src.Close() })
	_, err = src.Migrate(t.Context())
	w.must(err)
	w.src = src
	w.conn, err = sqlite.OpenConn(w.db, sqlite.OpenReadWrite)
	w.must(err)
	w.conn.SetBlockOnBusy()
	t.Cleanup(func() { w.conn.Close() })
	w.root = filepath.Join(t.TempDir(), "r2")
	w.dir, err = dir.Open(w.root)
	w.must(err)
	w.store = objecttest.NewFaults(w.dir)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	w.must(sqlitex.Execute(w.conn, sql, &sqlitex.ExecOptions{Args: args}))
}

// point adds a point and returns its id.
func (w *world) point(name string) int32 {
	w.t.Helper()
	w.exec("INSERT INTO points (name) VALUES (?)", name)
	return int32(w.conn.LastInsertRowID())
}

// put upserts one sample.
func (w *world) put(point int32, when string, value float64) {
	w.t.Helper()
	w.exec("INSERT OR REPLACE INTO timeseries (point_id, timestamp, value) VALUES (?, ?, ?)", point, at(when), value)
}

// fill writes a sample every hour of the days, its value telling day and hour.
func (w *world) fill(point int32, days utc.Days) {
	w.t.Helper()
	for d := days.From; d < days.To; d++ {
		for h := range int64(24) {
			w.exec("INSERT OR REPLACE INTO timeseries (point_id, timestamp, value) VALUES (?, ?, ?)", point, d.Start()+h*3600_000, float64(d)+float64(h)/100)
		}
	}
}

func (w *world) env() Env {
	env := Env{Source: w.src, Ledger: w.src, Journal: w.src, Store: w.store, Now: func() time.Time { return w.now },
		Notify: func(e Event) { w.events = append(w.events, e) }}
	if w.over != nil {
		w.over(&env)
	}
	return env
}

// run plans and runs a job and fails the test on an error or a failure.
func (w *world) run(o ArchiveOptions) Report {
	w.t.Helper()
	r, err := w.try(w.env(), o)
	w.must(err)
	for _, f := range r.Failed {
		w.t.Errorf("%s: failed: %s", o.Mode, f.Error)
	}
	return r
}

func (w *world) try(env Env, o ArchiveOptions) (Report, error) {
	w.t.Helper()
	p, err := PlanArchive(w.t.Context(), env, o)
	if err != nil {
		return Report{}, err
	}
	return p.Run(w.t.Context(), env)
}

func (w *world) backfill(from, to string) Report {
	w.t.Helper()
	return w.run(ArchiveOptions{Mode: Backfill, Days: daysOf(from, to)})
}

// row is a sample without its key.
type row struct {
	value   uint64 // bits, one pattern for NULL
	quality uint8
	flags   uint16
}

type key struct {
	point int32
	ts    int64
}

func rowOf(s *sample.Series, i int) row {
	v := s.Value[i]
	if v != v {
		v = sample.Null
	}
	return row{math.Float64bits(v), s.Quality[i], s.Flags[i]}
}

// cold reads the archive as a reader must: the manifest says which (point,
// day)s count, the object gives the rows, and its bytes must be those that the
// manifest names.
func (w *world) cold() map[key]row {
	w.t.Helper()
	return readCold(w.t, w.dir)
}

func readCold(t testing.TB, store object.Store) map[key]row {
	t.Helper()
	rows := make(map[key]row)
	months, err := manifests.Months(context.Background(), store)
	if err != nil {
		t.Fatal(err)
	}
	dec := monthfile.NewDecoder()
	for _, m := range months {
		man, _, err := manifests.Load(context.Background(), store, m)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range man.Points {
			if e.Path == "" {
				continue
			}
			data, _, err := store.Get(context.Background(), e.Path)
			if err != nil {
				t.Errorf("%s: %v", e.Path, err)
				continue
			}
			var s sample.Series
			info, err := dec.Decode(data, &s)
			if err != nil {
				t.Errorf("%s: %v", e.Path, err)
				continue
			}
			if info.PointID != e.ID || info.Month != m {
				t.Errorf("%s: holds point %d of %s, want %d of %s", e.Path, info.PointID, info.Month, e.ID, m)
			}
			for i, ts := range s.TS {
				if e.Days[utc.DayOf(ts)-m.First()] == sample.NotArchived {
					continue
				}
				k := key{e.ID, ts}
				if _, twice := rows[k]; twice {
					t.Errorf("point %d has %d twice", e.ID, ts)
				}
				rows[k] = rowOf(&s, i)
			}
		}
	}
	return rows
}

// hot reads what the source holds of the days.
func (w *world) hot(days utc.Days) map[key]row {
	w.t.Helper()
	rows := make(map[key]row)
	pts, _, err := w.src.Points(w.t.Context())
	w.must(err)
	var ids []int32
	for _, p := range pts {
		ids = append(ids, p.ID)
	}
	_, err = w.src.Read(w.t.Context(), source.Query{Points: ids, Days: days}, func(b *sample.Batch) error {
		for i, ts := range b.TS {
			rows[key{b.PointID[i], ts}] = rowOf(&b.Series, i)
		}
		return nil
	})
	w.must(err)
	return rows
}

// sameRows compares two tiers row by row and bit by bit.
func sameRows(t testing.TB, got, want map[key]row) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	n := 0
	for _, k := range slices.SortedFunc(maps.Keys(want), compareKeys) {
		if g, ok := got[k]; !ok {
			t.Errorf("lost: point %d at %s", k.point, time.UnixMilli(k.ts).UTC())
			n++
		} else if g != want[k] {
			t.Errorf("point %d at %s: archived %v, want %v", k.point, time.UnixMilli(k.ts).UTC(), g, want[k])
			n++
		}
		if n > 10 {
			break
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok && n < 20 {
			t.Errorf("extra: point %d at %s", k.point, time.UnixMilli(k.ts).UTC())
			n++
		}
	}
	t.Errorf("%d rows archived, want %d", len(got), len(want))
}

func compareKeys(a, b key) int {
	if a.point != b.point {
		return int(a.point) - int(b.point)
	}
	return int(min(max(a.ts-b.ts, -1), 1))
}

// whole verifies deeply and fails the test on anything but information.
func (w *world) whole() {
	w.t.Helper()
	r, err := Verify(w.t.Context(), Env{Store: w.dir, Now: time.Now}, VerifyOptions{Deep: true})
	w.must(err)
	for _, f := range r.Findings {
		if f.Code == "version" {
			continue // the test copied the folder
		}
		w.t.Errorf("verify --deep: %s %s %s: %s", f.Severity, f.Code, f.Path, f.Text)
	}
}

// mark is the ledger's entry of a slice: "", "claimed", "marked" or "trimmed".
func (w *world) mark(point int32, d utc.Day) string {
	w.t.Helper()
	state := ""
	w.must(w.src.Marks(w.t.Context(), []int32{point}, utc.Days{From: d, To: d + 1}, func(m source.Mark) {
		state = [...]string{"claimed", "marked", "trimmed"}[m.State]
	}))
	return state
}

// objects lists the keys and versions that the store holds.
func (w *world) objects() map[object.Key]string {
	w.t.Helper()
	m := make(map[object.Key]string)
	for a, err := range w.dir.List(w.t.Context(), "") {
		w.must(err)
		m[a.Key] = a.ETag
	}
	return m
}

func (w *world) manifest(month string) *manifests.Manifest {
	w.t.Helper()
	m, err := utc.ParseMonth(month)
	w.must(err)
	man, _, err := manifests.Load(w.t.Context(), w.dir, m)
	w.must(err)
	return man
}

// wantFailure checks that a report has exactly one failure, of the kind.
func wantFailure(t testing.TB, r Report, k fault.Kind) Failure {
	t.Helper()
	if len(r.Failed) != 1 || fault.KindOf(r.Failed[0].Err()) != k {
		t.Fatalf("failures: %+v, want one of kind %s", r.Failed, k)
	}
	return r.Failed[0]
}

// reliability logs how much of something was tried, for docs/reliability.md: `make
// reliability` collects these lines.
func reliability(t testing.TB, what string, n int64, format string, a ...any) {
	t.Helper()
	t.Logf("reliability: %s: %d %s", what, n, fmt.Sprintf(format, a...))
}
