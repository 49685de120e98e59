//go:build integration

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/sample"
	"etl/internal/utc"
	"etl/manifests"
)

// binary is the program under test, built by `go build`. GOFLAGS=-race builds
// it with the race detector.
var binary string

func init() {
	around = func(run func() int) int {
		tmp, err := os.MkdirTemp("", "etl-integration-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(tmp)
		binary = filepath.Join(tmp, "etl")
		if out, err := exec.Command("go", "build", "-tags", "duckdb_arrow", "-o", binary, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build etl: %v\n%s", err, out)
			return 1
		}
		return run()
	}
}

// place is a hot tier and a cold tier that real processes work on.
type place struct {
	t   *testing.T
	dir string // working directory of the processes: d1.sqlite, r2
	now string
	// Where the tiers are elsewhere: the file of the database, the bucket, and
	// what tells the processes of them.
	file   string
	bucket object.Store
	env    []string
	conn   *sqlite.Conn // what the sensors write with
	rng    *rand.Rand
}

func newPlace(t *testing.T, seed uint64, now string) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir(), now: now, rng: rand.New(rand.NewPCG(seed, 1))}
	p.ok("migrate")
	p.conn = p.open()
	return p
}

func (p *place) db() string { return cmp.Or(p.file, filepath.Join(p.dir, "d1.sqlite")) }

// open opens a connection of its own to the database.
func (p *place) open() *sqlite.Conn {
	p.t.Helper()
	c, err := sqlite.OpenConn(p.db(), sqlite.OpenReadWrite)
	p.must(err)
	c.SetBlockOnBusy()
	p.must(sqlitex.Execute(c, "PRAGMA synchronous = off", nil)) // the tests kill processes, not the machine
	p.t.Cleanup(func() { c.Close() })
	return c
}

func (p *place) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) exec(sql string, args ...any) {
	p.t.Helper()
	p.must(sqlitex.Execute(p.conn, sql, &sqlitex.ExecOptions{Args: args}))
}

// command is etl, not started yet.
func (p *place) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "ETL_SOURCE=sqlite:d1.sqlite", "ETL_STORE=file:r2", "GORACE=atexit_sleep_ms=0")
	if p.now != "" {
		cmd.Env = append(cmd.Env, "ETL_NOW="+p.now)
	}
	cmd.Env = append(cmd.Env, p.env...)
	return cmd
}

// finished is what a process left behind.
type finished struct {
	args           []string
	stdout, stderr string
	code           int // -1 if a signal ended it
}

func (r finished) String() string {
	return fmt.Sprintf("etl %s: exit code %d\n%s%s", strings.Join(r.args, " "), r.code, r.stdout, r.stderr)
}

func finish(cmd *exec.Cmd) finished {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	r := finished{cmd.Args[1:], out.String(), errs.String(), cmd.ProcessState.ExitCode()}
	if err != nil && cmd.ProcessState == nil {
		r.stderr = err.Error()
	}
	return r
}

func (p *place) etl(args ...string) finished { return finish(p.command(args...)) }

// ok runs etl and wants exit code 0.
func (p *place) ok(args ...string) finished {
	p.t.Helper()
	r := p.etl(args...)
	if r.code != 0 {
		p.t.Fatal(r)
	}
	return r
}

// report decodes the result of a command with --json.
func (r finished) report(t *testing.T) (v struct {
	FilesWritten    int64 `json:"files_written"`
	PointDays       int64 `json:"point_days"`
	PointDaysMarked int64 `json:"point_days_marked"`
	SamplesRead     int64 `json:"samples_read"`
	SamplesAdded    int64 `json:"samples_added"`
	SamplesReplaced int64 `json:"samples_replaced"`
	SamplesRejected int64 `json:"samples_rejected"`
	Interrupted     bool  `json:"interrupted"`
	Billed          struct {
		Requests    int64 `json:"requests"`
		RowsRead    int64 `json:"rows_read"`
		RowsWritten int64 `json:"rows_written"`
	} `json:"billed"`
}) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		t.Fatalf("%v in %s", err, r)
	}
	return v
}

// insert upserts one sample by a connection.
func (p *place) insert(c *sqlite.Conn, point int32, ts int64, value float64) {
	if err := sqlitex.Execute(c, `INSERT INTO timeseries (point_id, timestamp, value) VALUES (?, ?, ?)
		ON CONFLICT DO UPDATE SET value = excluded.value`, &sqlitex.ExecOptions{Args: []any{point, ts, value}}); err != nil {
		p.t.Errorf("point %d at %d: %v", point, ts, err)
	}
}

// points adds n points.
func (p *place) points(n int) {
	p.t.Helper()
	for i := range n {
		p.exec("INSERT INTO points (name) VALUES (?)", fmt.Sprintf("Building1/AHU%d/Point %d", i%4, i))
	}
}

// fill gives each point a sample every step from the first day to the day before to.
func (p *place) fill(from, to string, step time.Duration) {
	p.t.Helper()
	p.exec(`WITH RECURSIVE n(ts) AS (SELECT unixepoch(?1)*1000 UNION ALL SELECT ts + ?3 FROM n WHERE ts + ?3 < unixepoch(?2)*1000)
		INSERT INTO timeseries (point_id, timestamp, value)
		SELECT p.id, n.ts, iif(n.ts % 7 = 0, NULL, round(20 + p.id + (n.ts / ?3 % 96) / 9.7, 2)) FROM points p, n`, from, to, step.Milliseconds())
}

// late writes one transaction of rows into random places of the days: new ones,
// corrections, and rows that say the same again. It returns what they say now.
func (p *place) late(c *sqlite.Conn, rng *rand.Rand, n, points int, from, to string) (rows map[key]row) {
	rows = make(map[key]row, n)
	first, last := mustDay(from).Start(), mustDay(to).Start()
	err := func() (err error) {
		end, err := sqlitex.ImmediateTransaction(c)
		if err != nil {
			return err
		}
		defer end(&err)
		for range n {
			ts := first + rng.Int64N(last-first)
			if rng.IntN(3) > 0 {
				ts -= ts % 900_000 // one that exists
			}
			id, v := int32(1+rng.IntN(points)), rng.NormFloat64()
			p.insert(c, id, ts, v)
			rows[key{id, ts}] = row{bitsOf(v), 192, 0}
		}
		return nil
	}()
	if err != nil {
		p.t.Errorf("late rows: %v", err)
	}
	return rows
}

func mustDay(s string) utc.Day {
	d, err := utc.ParseDay(s)
	if err != nil {
		panic(err)
	}
	return d
}

type key struct {
	point int32
	ts    int64
}

type row struct {
	value   uint64 // bits, one pattern for NULL
	quality uint8
	flags   uint16
}

func bitsOf(v float64) uint64 {
	if v != v {
		v = sample.Null
	}
	return math.Float64bits(v)
}

// hot reads the whole source.
func (p *place) hot() map[key]row {
	p.t.Helper()
	rows := make(map[key]row)
	p.must(sqlitex.Execute(p.conn, "SELECT point_id, timestamp, value, quality, flags FROM timeseries", &sqlitex.ExecOptions{ResultFunc: func(st *sqlite.Stmt) error {
		v := sample.Null
		if !st.ColumnIsNull(2) {
			v = st.ColumnFloat(2)
		}
		rows[key{st.ColumnInt32(0), st.ColumnInt64(1)}] = row{math.Float64bits(v), uint8(st.ColumnInt(3)), uint16(st.ColumnInt(4))}
		return nil
	}}))
	return rows
}

type slice struct {
	point int32
	day   utc.Day
}

// marks are the slices that the ledger says are archived and unchanged, and
// those that a run claims.
func (p *place) marks() (done, claimed map[slice]bool) {
	p.t.Helper()
	done, claimed = make(map[slice]bool), make(map[slice]bool)
	p.must(sqlitex.Execute(p.conn, "SELECT point_id, day, done FROM archive_marks", &sqlitex.ExecOptions{ResultFunc: func(st *sqlite.Stmt) error {
		into := claimed
		if st.ColumnInt(2) != 0 {
			into = done
		}
		into[slice{st.ColumnInt32(0), utc.Day(st.ColumnInt64(1))}] = true
		return nil
	}}))
	return done, claimed
}

// cold reads the archive as a reader must: the manifest says which (point,
// day)s count, the object gives their rows. Each object must be the one that
// the manifest names, or a whole and newer version of it.
func (p *place) cold() (rows map[key]row, days map[slice]int32) {
	p.t.Helper()
	rows, days = make(map[key]row), make(map[slice]int32)
	store := p.bucket
	if store == nil {
		root := filepath.Join(p.dir, "r2")
		if _, err := os.Stat(root); err != nil {
			return rows, days
		}
		folder, err := dir.Open(root)
		p.must(err)
		defer folder.Close() // or a file system mounted there would stay busy
		store = folder
	}
	ctx := context.Background()
	months, err := manifests.Months(ctx, store)
	p.must(err)
	dec := monthfile.NewDecoder()
	for _, m := range months {
		man, _, err := manifests.Load(ctx, store, m)
		p.must(err)
		for _, e := range man.Points {
			for i, n := range e.Days {
				if n != sample.NotArchived {
					days[slice{e.ID, m.First() + utc.Day(i)}] = n
				}
			}
			if e.Path == "" {
				continue
			}
			data, attrs, err := store.Get(ctx, e.Path)
			p.must(err)
			var s sample.Series
			info, err := dec.Decode(data, &s)
			if err != nil || info.PointID != e.ID || info.Month != m {
				p.t.Fatalf("%s: %v; it holds point %d of %s", e.Path, err, info.PointID, info.Month)
			}
			counts := make(map[utc.Day]int32)
			for i, ts := range s.TS {
				d := utc.DayOf(ts)
				if _, ok := days[slice{e.ID, d}]; !ok {
					continue
				}
				counts[d]++
				rows[key{e.ID, ts}] = row{bitsOf(s.Value[i]), s.Quality[i], s.Flags[i]}
			}
			if attrs.ETag != e.ETag {
				continue // a run stored it and was cut off before the manifest
			}
			for i, n := range e.Days {
				if d := m.First() + utc.Day(i); n > 0 && counts[d] != n {
					p.t.Fatalf("%s: %s holds %d samples, the manifest says %d", e.Path, d, counts[d], n)
				}
			}
		}
	}
	return rows, days
}

// same compares rows bit by bit.
func same(t *testing.T, got, want map[key]row) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	n := 0
	for k, w := range want {
		if g, ok := got[k]; !ok || g != w {
			if n++; n <= 10 {
				t.Errorf("point %d at %s: archived %v (%v), want %v", k.point, time.UnixMilli(k.ts).UTC(), g, ok, w)
			}
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			if n++; n <= 20 {
				t.Errorf("point %d at %s is archived, and never was in the source", k.point, time.UnixMilli(k.ts).UTC())
			}
		}
	}
	t.Fatalf("%d rows archived, want %d; %d differ", len(got), len(want), n)
}

// safe checks what must hold at every moment while no process runs: what the
// ledger marks is in the manifest and equals the source, row by row.
func (p *place) safe() {
	p.t.Helper()
	rows, days := p.cold()
	done, _ := p.marks()
	hot := p.hot()
	for s := range done {
		if _, ok := days[s]; !ok {
			p.t.Fatalf("the ledger marks point %d on %s, which no manifest counts", s.point, s.day)
		}
	}
	for k, want := range hot {
		if done[slice{k.point, utc.DayOf(k.ts)}] && rows[k] != want {
			p.t.Fatalf("the ledger marks point %d on %s, but its row at %d is %v in the archive and %v in the source", k.point, utc.DayOf(k.ts), k.ts, rows[k], want)
		}
	}
	for k := range rows {
		if _, ok := hot[k]; !ok {
			p.t.Fatalf("the archive holds point %d at %d, which the source never had", k.point, k.ts)
		}
	}
}

// settled runs one quiet archive and checks that the two tiers are the same,
// that all is marked, and that there is nothing left to do. The days lie in the
// hot window, which archive takes by itself.
func (p *place) settled(from, to string, points int) {
	p.t.Helper()
	p.ok("archive", "--quiet")
	rows, days := p.cold()
	same(p.t, rows, p.hot())
	done, claimed := p.marks()
	if len(claimed) > 0 {
		p.t.Fatalf("%d slices are claimed by no one", len(claimed))
	}
	for d := mustDay(from); d < mustDay(to); d++ {
		for id := range int32(points) {
			if s := (slice{id + 1, d}); !done[s] {
				p.t.Fatalf("point %d on %s is not marked", s.point, s.day)
			} else if _, ok := days[s]; !ok {
				p.t.Fatalf("point %d on %s is not in the manifest", s.point, s.day)
			}
		}
	}
	if r := p.ok("archive", "--json").report(p.t); r.FilesWritten != 0 || r.PointDays != 0 {
		p.t.Fatalf("another archive read %d point-days and wrote %d files", r.PointDays, r.FilesWritten)
	}
	if r := p.ok("verify", "--deep", "--quiet"); !strings.Contains(r.stdout, "whole: no findings") {
		p.t.Fatal(r)
	}
}

func seeds(t *testing.T, n int) []uint64 {
	base := uint64(time.Now().UnixNano() % 1_000_000)
	t.Logf("seeds %d to %d", base, base+uint64(n)-1)
	var s []uint64
	for i := range n {
		s = append(s, base+uint64(i))
	}
	return s
}

// TestIntegrationRaces lets two to four processes work on one month while rows
// keep arriving.
func TestIntegrationRaces(t *testing.T) {
	const points = 24
	from, to := "2024-01-12", "2024-02-10"
	whole := []string{"--from", from, "--to", to}
	crews := [][][]string{
		{append([]string{"backfill"}, whole...), append([]string{"backfill"}, whole...)},
		{{"backfill", "--from", "2024-01-12", "--to", "2024-01-22"}, {"backfill", "--from", "2024-01-22", "--to", "2024-02-01"}, {"archive", "--from", "2024-02-01", "--to", to}},
		{{"archive"}, append([]string{"rearchive"}, whole...), append([]string{"backfill"}, whole...)},
		{{"archive"}, {"archive"}, {"rearchive", "--month", "2024-01"}, {"rearchive", "--last", "15d", "--codec", "snappy"}},
	}
	for _, seed := range seeds(t, 2) {
		for i, crew := range crews {
			t.Run(fmt.Sprintf("crew%d-seed%d", i, seed), func(t *testing.T) {
				p := newPlace(t, seed, "2024-02-10T02:00:00Z")
				p.points(points)
				p.fill(from, to, 15*time.Minute)
				for round := range 2 {
					var wg sync.WaitGroup
					results := make([]finished, len(crew))
					for k, args := range crew {
						wg.Go(func() { results[k] = p.etl(append(slices.Clone(args), "--quiet")...) })
					}
					stop := make(chan struct{})
					var writer sync.WaitGroup
					c, rng := p.open(), rand.New(rand.NewPCG(seed, uint64(round)+7))
					batches := 0
					writer.Go(func() {
						for {
							p.late(c, rng, 300, points, from, to)
							batches++
							select {
							case <-stop:
								return
							case <-time.After(time.Duration(rng.IntN(20)) * time.Millisecond):
							}
						}
					})
					wg.Wait()
					close(stop)
					writer.Wait()
					for _, r := range results {
						// A run may give up on a file that others keep replacing; nothing else may go wrong.
						if r.code != fault.ExitOK && r.code != fault.ExitTransient {
							t.Error(r)
						}
					}
					t.Logf("round %d: %d transactions of late rows", round, batches)
					p.safe()
				}
				p.settled(from, to, points)
			})
		}
	}
}

// TestIntegrationInterrupt: the first Ctrl-C finishes and commits what is in
// flight and exits 130; the next run does the rest, and nothing twice.
func TestIntegrationInterrupt(t *testing.T) {
	const points = 200
	from, to := "2024-01-12", "2024-02-10"
	p := newPlace(t, 1, "2024-02-10T02:00:00Z")
	p.points(points)
	p.fill(from, to, 15*time.Minute)
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		var r finished
		delay := 400 * time.Millisecond
		for range 12 {
			p.must(os.RemoveAll(filepath.Join(p.dir, "r2")))
			p.exec("DELETE FROM archive_marks")
			cmd := p.command("backfill", "--from", from, "--to", to, "--json")
			timer := time.AfterFunc(delay, func() { cmd.Process.Signal(sig) })
			r = finish(cmd)
			timer.Stop()
			if r.code == fault.ExitInterrupted && strings.HasPrefix(r.stdout, "{") && r.report(t).SamplesAdded > 0 {
				break
			}
			if delay = delay * 2 / 3; r.code == fault.ExitInterrupted {
				delay = delay * 5 / 2 // it came before anything was in flight
			}
		}
		if r.code != fault.ExitInterrupted || !strings.Contains(r.stderr, "stopping: what is in flight is being finished and committed") {
			t.Fatalf("%v: %s", sig, r)
		}
		rep := r.report(t)
		rows, _ := p.cold()
		if !rep.Interrupted || rep.SamplesAdded == 0 || int64(len(rows)) != rep.SamplesAdded || rep.PointDaysMarked != rep.PointDays {
			t.Fatalf("%v: %d samples are committed, %d point-days marked: %s", sig, len(rows), rep.PointDaysMarked, r)
		}
		p.safe()
		rest := p.ok("backfill", "--from", from, "--to", to, "--json").report(t)
		if want := int64(len(p.hot())); rest.SamplesAdded != want-rep.SamplesAdded {
			t.Fatalf("%v: the second run added %d samples, want %d", sig, rest.SamplesAdded, want-rep.SamplesAdded)
		}
		p.settled(from, to, points)
	}

	// A command that changes nothing ends at once.
	for range 5 {
		cmd := p.command("verify", "--deep", "--workers", "1", "--quiet")
		timer := time.AfterFunc(15*time.Millisecond, func() { cmd.Process.Signal(os.Interrupt) })
		r := finish(cmd)
		timer.Stop()
		if r.code == fault.ExitInterrupted && strings.Contains(r.stderr, "etl: interrupted") {
			return
		}
		if r.code != 0 && r.code != -1 { // -1: the signal came before it was handled
			t.Fatal(r)
		}
	}
	t.Log("verify was always faster than the interrupt")
}

// TestIntegrationLocked: a database that another program holds is waited for,
// and after ten seconds given up with exit code 5.
func TestIntegrationLocked(t *testing.T) {
	p := newPlace(t, 1, "2024-02-10T02:00:00Z")
	p.points(3)
	p.fill("2024-02-08", "2024-02-10", time.Hour)
	p.exec("PRAGMA journal_mode = delete") // in WAL mode a writer keeps no reader out
	p.exec("BEGIN EXCLUSIVE")
	locked := time.Now()
	timer := time.AfterFunc(1500*time.Millisecond, func() { p.exec("COMMIT") })
	p.ok("archive", "--quiet")
	timer.Stop()
	if d := time.Since(locked); d < 1500*time.Millisecond {
		t.Fatalf("it did not wait: %s", d)
	}
	p.exec("BEGIN EXCLUSIVE")
	r := p.etl("rearchive", "--last", "2d")
	if r.code != fault.ExitTransient || !strings.Contains(r.stderr, "database is locked") || !strings.Contains(r.stderr, "another program holds a lock on d1.sqlite: run again when it is done") {
		t.Fatal(r)
	}
	p.exec("COMMIT")
	p.settled("2024-02-08", "2024-02-10", 3)
}

// TestIntegrationDisk: a disk that is full or may not be written. What was
// committed stays, the error says what to do, and the next run completes it.
func TestIntegrationDisk(t *testing.T) {
	const points = 60
	from, to := "2024-02-01", "2024-02-10"
	fresh := func(t *testing.T) *place {
		p := newPlace(t, 1, "2024-02-10T02:00:00Z")
		p.points(points)
		p.fill(from, to, 15*time.Minute)
		p.exec("UPDATE timeseries SET value = random() / 1e9") // noise: 8 bytes a sample
		return p
	}
	// broken runs archive on the broken disk and checks what it says.
	broken := func(t *testing.T, r finished, want string) {
		t.Helper()
		if r.code != fault.ExitError || !strings.Contains(r.stderr+r.stdout, want) || !strings.Contains(r.stderr+r.stdout, "run the command again") {
			t.Fatalf("want %q: %s", want, r)
		}
	}

	t.Run("full", func(t *testing.T) {
		p := fresh(t)
		r2 := filepath.Join(p.dir, "r2")
		mount(t, r2, "size=200k")
		broken(t, p.etl("archive", "--quiet"), "no space left on device")
		p.safe()
		remount(t, r2, "size=64m")
		p.settled(from, to, points)
	})
	t.Run("file-size-limit", func(t *testing.T) {
		p := fresh(t)
		p.exec("PRAGMA journal_mode = delete") // or SQLite itself would need a larger file
		cmd := p.command("archive", "--quiet", "--no-state")
		cmd.Args = append([]string{"sh", "-c", `ulimit -f 12; exec "$0" "$@"`, binary}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
		broken(t, finish(cmd), "file too large")
		p.safe()
		p.settled(from, to, points)
	})
	t.Run("read-only", func(t *testing.T) {
		p := fresh(t)
		p.ok("archive", "--quiet")
		p.late(p.conn, p.rng, 100, points, from, to)
		r2 := filepath.Join(p.dir, "r2")
		why := "permission denied"
		if os.Getuid() == 0 { // to whom permissions mean nothing
			was := filepath.Join(p.dir, "was")
			p.must(os.Rename(r2, was))
			mount(t, r2, "size=64m")
			if out, err := exec.Command("cp", "-a", was+"/.", r2).CombinedOutput(); err != nil {
				t.Fatal(string(out))
			}
			remount(t, r2, "ro")
			why = "read-only file system"
		} else {
			for _, d := range []string{r2, filepath.Join(r2, ".etl/tmp"), filepath.Join(r2, "_manifests")} {
				p.must(os.Chmod(d, 0o555))
			}
		}
		broken(t, p.etl("archive", "--quiet"), why)
		p.safe()
		p.ok("verify", "--deep", "--quiet") // reading needs no writing
		if os.Getuid() == 0 {
			remount(t, r2, "rw")
		} else {
			for _, d := range []string{r2, filepath.Join(r2, ".etl/tmp"), filepath.Join(r2, "_manifests")} {
				p.must(os.Chmod(d, 0o755))
			}
		}
		p.settled(from, to, points)
	})
}

// TestIntegrationRetention: the retention trigger takes archived days out of the
// source while rows of any age arrive and etl runs. The archive then is the
// only copy of many rows, and has to hold every row that there ever was.
func TestIntegrationRetention(t *testing.T) {
	const points = 6
	seed := seeds(t, 1)[0]
	first, last := mustDay("2023-12-01"), mustDay("2024-02-10")
	p := newPlace(t, seed, "2023-12-31T02:00:00Z")
	p.points(points)
	p.fill(first.String(), "2023-12-31", 15*time.Minute)
	model := p.hot()
	p.ok("backfill", "--from", first.String(), "--to", "2023-12-31", "--quiet")
	put := func(ts int64) {
		id, v := int32(1+p.rng.IntN(points)), p.rng.NormFloat64()
		p.exec("INSERT OR REPLACE INTO timeseries (point_id, timestamp, value) VALUES (?, ?, ?)", int64(id), ts, v)
		model[key{id, ts}] = row{math.Float64bits(v), 192, 0}
	}
	for d := mustDay("2023-12-31"); d < last; d++ {
		p.now = d.Time().Add(2 * time.Hour).Format(time.RFC3339)
		cmd := p.command([][]string{{"archive", "-q"}, {"rearchive", "-q", "--last", "33d"}}[p.rng.IntN(2)]...)
		done := make(chan finished)
		go func() { done <- finish(cmd) }()
		for i := range 1000 {
			if ts := d.Start() + p.rng.Int64N(utc.DayMillis); i%50 != 0 {
				put(ts)
			} else { // late, into any day
				put(ts - p.rng.Int64N(int64(d-first)+1)*utc.DayMillis)
			}
		}
		if r := <-done; r.code != 0 {
			t.Fatal(r)
		}
	}
	p.now = last.Time().Add(2 * time.Hour).Format(time.RFC3339)
	trimmed := len(model) - len(p.hot())
	if trimmed == 0 {
		t.Error("retention took nothing: the test shows nothing")
	}
	p.ok("rearchive", "-q", "--from", first.String(), "--to", last.String())
	rows, _ := p.cold()
	same(t, rows, model)
	if r := p.ok("verify", "--deep", "-q"); !strings.Contains(r.stdout, "whole: no findings") {
		t.Fatal(r)
	}
	t.Logf("%d rows arrived, retention took %d of them out of the source", len(model), trimmed)
}
