package jobs

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"

	"etl/internal/fault"
	"etl/internal/object/dir"
	"etl/internal/object/objecttest"
	"etl/internal/sample"
	"etl/internal/source"
	sqlitesource "etl/internal/source/sqlite"
	"etl/internal/utc"
	"etl/manifests"
)

// flaky is a source whose n-th call fails; a read fails after its first batch,
// if it has one, so that what was delivered must be thrown away.
type flaky struct {
	source.Source
	source.Ledger
	mu     sync.Mutex
	calls  int
	failAt int
	kind   fault.Kind
	late   bool // the call is done before it fails
	cancel func()
	fired  string
}

// call counts a call; it returns the error that takes the place of its outcome.
func (f *flaky) call(name string) (before, after error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.calls != f.failAt {
		return nil, nil
	}
	f.fired = name
	err := fault.Errorf(f.kind, "%s: injected %s", name, f.kind)
	if f.cancel != nil {
		f.cancel()
		err = context.Canceled
	}
	if f.late {
		return nil, err
	}
	return err, nil
}

func (f *flaky) Points(ctx context.Context) ([]sample.Point, []sample.Reject, error) {
	before, after := f.call("points")
	if before != nil {
		return nil, nil, before
	}
	p, r, err := f.Source.Points(ctx)
	return p, r, orElse(after, err)
}

func (f *flaky) Read(ctx context.Context, q source.Query, fn func(*sample.Batch) error) (source.Stats, error) {
	before, after := f.call("read")
	if before != nil {
		return source.Stats{}, before
	}
	s, err := f.Source.Read(ctx, q, func(b *sample.Batch) error {
		if err := fn(b); err != nil {
			return err
		}
		return after // in the middle
	})
	return s, orElse(after, err)
}

func (f *flaky) Info(ctx context.Context) (source.Info, error) {
	before, after := f.call("info")
	if before != nil {
		return source.Info{}, before
	}
	i, err := f.Source.Info(ctx)
	return i, orElse(after, err)
}

func (f *flaky) Strays(ctx context.Context, p []int32, d utc.Days) ([]sample.Reject, error) {
	before, after := f.call("strays")
	if before != nil {
		return nil, before
	}
	r, err := f.Source.Strays(ctx, p, d)
	return r, orElse(after, err)
}

func (f *flaky) Marks(ctx context.Context, p []int32, d utc.Days, fn func(source.Mark)) error {
	return f.wrap("marks", func() error { return f.Ledger.Marks(ctx, p, d, fn) })
}

func (f *flaky) Claim(ctx context.Context, run string, s []source.Slice) error {
	return f.wrap("claim", func() error { return f.Ledger.Claim(ctx, run, s) })
}

func (f *flaky) Confirm(ctx context.Context, run string, s []source.Slice) (n int, err error) {
	err = f.wrap("confirm", func() (err error) { n, err = f.Ledger.Confirm(ctx, run, s); return err })
	return n, err
}

func (f *flaky) Revoke(ctx context.Context, s []source.Slice) (n int, err error) {
	err = f.wrap("revoke", func() (err error) { n, err = f.Ledger.Revoke(ctx, s); return err })
	return n, err
}

func (f *flaky) Log(ctx context.Context, r source.Run) error {
	return f.wrap("log", func() error { return f.Ledger.Log(ctx, r) })
}

func (f *flaky) CloseCrashed(ctx context.Context, silent time.Duration) (ids []string, err error) {
	err = f.wrap("close crashed runs", func() (err error) { ids, err = f.Ledger.CloseCrashed(ctx, silent); return err })
	return ids, err
}

func (f *flaky) wrap(name string, do func() error) error {
	before, after := f.call(name)
	if before != nil {
		return before
	}
	return orElse(after, do())
}

func orElse(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// scene is a prepared world on disk, copied for each fault: two months, a day
// archived already, a late row in it, a correction, a reject, a trimmed point.
type scene struct {
	t    *testing.T
	base string
	want map[key]row
}

var sceneDays = daysOf("2024-01-29", "2024-02-04")

func newScene(t *testing.T) *scene {
	w := newWorld(t)
	s := &scene{t: t, base: t.TempDir(), want: plant(w)}
	copyFile(t, w.db, filepath.Join(s.base, "d1.sqlite"))
	w.must(os.CopyFS(filepath.Join(s.base, "r2"), os.DirFS(w.root)))
	return s
}

// plant fills a new world and returns what has to be archived in the end. The
// database file is whole without its log.
func plant(w *world) map[key]row {
	a, b, c := w.point("a"), w.point("b"), w.point("c")
	for _, p := range []int32{a, b, c} {
		w.fill(p, sceneDays)
	}
	w.backfill("2024-01-30", "2024-02-02")
	want := w.hot(sceneDays)
	w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp < ?", c, at("2024-01-31 00:00")) // trimmed: cold has the only copy
	w.exec("UPDATE archive_marks SET done = 2 WHERE point_id = ? AND day = ?", c, int64(day("2024-01-30")))
	for ts := at("2024-01-29 00:00"); ts < at("2024-01-30 00:00"); ts += 3600_000 {
		delete(want, key{c, ts}) // that day was never archived
	}
	w.put(a, "2024-01-30 00:30", 5)
	w.put(b, "2024-02-01 05:00", 6)
	w.exec("INSERT INTO timeseries (point_id, timestamp, value) VALUES (?, ?, x'00')", b, at("2024-02-02 00:45"))
	maps.Copy(want, w.hot(sceneDays))
	w.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	return want
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// open copies the scene and opens the copy.
func (s *scene) open(t *testing.T) *world {
	t.Helper()
	w := s.openDB(t)
	w.root = filepath.Join(t.TempDir(), "r2")
	w.must(os.CopyFS(w.root, os.DirFS(filepath.Join(s.base, "r2"))))
	var err error
	w.dir, err = dir.Open(w.root)
	w.must(err)
	w.store = objecttest.NewFaults(w.dir)
	return w
}

// openDB copies the hot tier of the scene alone and opens the copy.
func (s *scene) openDB(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, db: filepath.Join(t.TempDir(), "d1.sqlite"), now: day("2024-02-05").Time().Add(2 * Grace)}
	copyFile(t, filepath.Join(s.base, "d1.sqlite"), w.db)
	var err error
	w.src, err = sqlitesource.Open(w.db, sqlitesource.Options{Readers: 3, Now: w.env().Now})
	w.must(err)
	t.Cleanup(func() { w.src.Close() })
	w.conn, err = sqlite.OpenConn(w.db, sqlite.OpenReadWrite)
	w.must(err)
	w.conn.SetBlockOnBusy()
	t.Cleanup(func() { w.conn.Close() })
	return w
}

// settled checks what must hold at any moment: what the manifests count is
// readable and right, and the ledger marks nothing that they do not count.
func (s *scene) settled(t *testing.T, w *world) {
	t.Helper()
	for k, r := range w.cold() {
		// What the source has changed since may still be old in the archive.
		if want, ok := s.want[k]; !ok || (r != want && w.mark(k.point, utc.DayOf(k.ts)) == "marked") {
			t.Errorf("archived point %d at %d: %v, want %v, %t", k.point, k.ts, r, want, ok)
		}
	}
	months := map[utc.Month]*manifests.Manifest{}
	w.must(w.src.Marks(context.Background(), []int32{1, 2, 3}, utc.Days{From: 0, To: 30000}, func(m source.Mark) {
		man := months[m.Day.Month()]
		if man == nil {
			man = w.manifest(m.Day.Month().String())
			months[m.Day.Month()] = man
		}
		e := man.Entry(m.Point)
		if m.State != source.Claimed && (e == nil || e.Days[m.Day-m.Day.Month().First()] == sample.NotArchived) {
			t.Errorf("point %d, %s is marked and no manifest counts it", m.Point, m.Day)
		}
	}))
}

// completed runs the job again and checks that everything is there, once, and marked.
func (s *scene) completed(t *testing.T, w *world) {
	t.Helper()
	w.store.Reset()
	w.run(ArchiveOptions{Mode: Archive})
	sameRows(t, w.cold(), s.want)
	w.whole()
	reject := day("2024-02-02")
	for p := int32(1); p <= 3; p++ {
		for d := sceneDays.From; d < sceneDays.To; d++ {
			if m := w.mark(p, d); m != "marked" && m != "trimmed" && !(p == 2 && d == reject) {
				t.Errorf("point %d, %s is %q after the second run", p, d, m)
			}
		}
	}
	w.store.Reset()
	w.run(ArchiveOptions{Mode: Archive})
	for _, op := range w.store.Trace() {
		if op[:3] == "put" && !strings.Contains(op, "_rejects/") {
			t.Errorf("a third run still did: %s", op)
		}
	}
}

// Every store operation of a job fails once, in every way; each time nothing is
// lost or doubled, and running again completes the archive.
func TestFaultAtEveryStoreOperation(t *testing.T) {
	s := newScene(t)
	clean := s.open(t)
	clean.run(ArchiveOptions{Mode: Archive, WriteWorkers: 1, ExtractWorkers: 1})
	n := clean.store.Count()
	s.completed(t, clean)
	ways := map[string]func(cancel func()) objecttest.Action{
		"transient":    func(func()) objecttest.Action { return objecttest.Fail(fault.Transient) },
		"unavailable":  func(func()) objecttest.Action { return objecttest.Fail(fault.Unavailable) },
		"lost reply":   func(func()) objecttest.Action { return objecttest.LoseReply() },
		"crash before": func(c func()) objecttest.Action { return objecttest.Before(c) },
		"crash after":  func(c func()) objecttest.Action { return objecttest.After(c) },
	}
	tried := 0
	for way, action := range ways {
		for i := 1; i <= n; i++ {
			if testing.Short() && i%5 != 0 {
				continue
			}
			tried++
			t.Run(fmt.Sprintf("%s at %d", way, i), func(t *testing.T) {
				w := s.open(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				w.store.Inject(objecttest.At(i), action(cancel))
				plan, err := PlanArchive(ctx, w.env(), ArchiveOptions{Mode: Archive, WriteWorkers: 1, ExtractWorkers: 1})
				if err == nil {
					_, _ = plan.Run(ctx, w.env())
				}
				if len(w.store.Fired()) != 1 {
					t.Fatalf("the fault at operation %d of %d did not fire", i, n)
				}
				s.settled(t, w)
				s.completed(t, w)
			})
		}
	}
	reliability(t, "faults of archive, store", int64(tried), "faults, %d ways at %d operations", len(ways), n)
}

// The same for every call of the source and its ledger.
func TestFaultAtEverySourceCall(t *testing.T) {
	s := newScene(t)
	clean := s.open(t)
	counted := &flaky{Source: clean.src, Ledger: clean.src}
	env := clean.env()
	env.Source, env.Ledger, env.Journal = counted, counted, counted
	opts := ArchiveOptions{Mode: Archive, WriteWorkers: 1, ExtractWorkers: 1}
	if _, err := clean.try(env, opts); err != nil {
		t.Fatal(err)
	}
	n, tried := counted.calls, 0
	for _, way := range []string{"transient", "transient, done", "invalid", "crash", "crash, done"} {
		for i := 1; i <= n; i++ {
			if testing.Short() && i%3 != 0 {
				continue
			}
			tried++
			t.Run(fmt.Sprintf("%s at %d", way, i), func(t *testing.T) {
				w := s.open(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				f := &flaky{Source: w.src, Ledger: w.src, failAt: i, kind: fault.Transient}
				switch way {
				case "transient, done":
					f.late = true
				case "invalid":
					f.kind = fault.Invalid
				case "crash":
					f.cancel = cancel
				case "crash, done":
					f.cancel, f.late = cancel, true
				}
				env := w.env()
				env.Source, env.Ledger, env.Journal = f, f, f
				plan, err := PlanArchive(ctx, env, opts)
				var r Report
				if err == nil {
					r, err = plan.Run(ctx, env)
				}
				if f.fired == "" {
					t.Fatalf("the fault at call %d of %d did not fire", i, n)
				}
				if err == nil && r.ExitCode(false) == fault.ExitOK && len(r.Warnings) == 0 {
					t.Errorf("a failed %s went unnoticed", f.fired)
				}
				s.settled(t, w)
				s.completed(t, w)
			})
		}
	}
	reliability(t, "faults of archive, source", int64(tried), "faults, 5 ways at %d calls", n)
}
