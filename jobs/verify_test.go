package jobs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/objecttest"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/manifests"
)

func (w *world) verify(o VerifyOptions) VerifyReport {
	w.t.Helper()
	r, err := Verify(w.t.Context(), w.env(), o)
	w.must(err)
	for _, f := range r.Findings {
		if f.Text == "" || (f.Severity != Info && f.Remedy == "" && f.Code != "foreign") {
			w.t.Errorf("a finding without a text or a remedy: %+v", f)
		}
	}
	return r
}

// codes are the findings as "severity code point", in order.
func codes(r VerifyReport) []string {
	out := []string{}
	for _, f := range r.Findings {
		out = append(out, fmt.Sprintf("%s %s %d", f.Severity, f.Code, f.PointID))
	}
	return out
}

func (w *world) wantCodes(o VerifyOptions, want ...string) VerifyReport {
	w.t.Helper()
	r := w.verify(o)
	if got := codes(r); !slices.Equal(got, append([]string{}, want...)) {
		w.t.Errorf("%+v: %v, want %v\n%+v", o, got, want, r.Findings)
	}
	return r
}

// TestVerifyAgainstSource: late rows wait, lost rows are findings, rows of the
// archive alone are neither.
func TestVerifyAgainstSource(t *testing.T) {
	for _, how := range []Against{AgainstRows, AgainstCounts} {
		w := newWorld(t)
		a, b := w.point("a"), w.point("b")
		w.fill(a, daysOf("2024-01-28", "2024-02-10"))
		w.fill(b, daysOf("2024-01-28", "2024-02-10"))
		w.run(ArchiveOptions{Mode: Archive})
		against := VerifyOptions{Against: how}
		r := w.wantCodes(against)
		// The days archived empty are compared too: 35 days of two points.
		if r.Compared != 70 || r.HotRows != 2*13*24 {
			t.Errorf("%s: %d (point, day)s and %d rows compared", how, r.Compared, r.HotRows)
		}

		// A late row is waiting, and a changed one too; then nothing is.
		w.put(a, "2024-02-03 00:30", 1)
		if how == AgainstRows {
			w.put(b, "2024-01-30 01:00", -5)
		}
		want := []string{"info waiting 1"}
		if how == AgainstRows {
			want = []string{"info waiting 2", "info waiting 1"}
		}
		if r := w.wantCodes(against, want...); r.ExitCode() != 0 || int(r.Waiting) != len(want) {
			t.Errorf("%s: exit %d, %d waiting", how, r.ExitCode(), r.Waiting)
		}
		w.run(ArchiveOptions{Mode: Archive})
		w.wantCodes(against)

		// Out of the hot window nobody takes it.
		w.now = w.now.Add(34 * 24 * time.Hour)
		w.put(a, "2024-01-29 00:30", 1)
		old := VerifyOptions{Against: how, Days: daysOf("2024-01-28", "2024-02-10")}
		if r := w.wantCodes(old, "finding source-missing 1"); !strings.Contains(r.Findings[0].Remedy, "etl rearchive --from 2024-01-29 --to 2024-01-30 --points 'a'") {
			t.Errorf("remedy %q", r.Findings[0].Remedy)
		}
		w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-29", "2024-01-30")})
		w.wantCodes(old)

		// Rows that left the source are no finding.
		w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp < ?", b, at("2024-02-05 05:00"))
		w.wantCodes(old)

		// A row that the archive should have: a trigger that did not fire.
		w.exec("CREATE TEMP TABLE kept AS SELECT * FROM archive_marks")
		w.put(a, "2024-02-04 00:30", 7)
		w.put(a, "2024-02-04 01:00", 8)
		w.put(a, "2024-02-06 00:30", 7)
		w.exec("INSERT OR REPLACE INTO archive_marks SELECT * FROM kept")
		r = w.wantCodes(old, "finding source-missing 1", "finding mark 1")
		if f := r.Findings[0]; r.ExitCode() != fault.ExitFindings || !slices.Equal(f.Days, []utc.Day{day("2024-02-04"), day("2024-02-06")}) {
			t.Errorf("%+v", f)
		}
		if how == AgainstRows && !strings.Contains(r.Findings[0].Text, "2 rows that the archive lacks and 1 rows that the archive has with other values") {
			t.Errorf("%s", r.Findings[0].Text)
		}
		// What verify does not change: everything, unless it is told to revoke.
		if w.mark(a, day("2024-02-04")) != "marked" {
			t.Error("verify took a mark back by itself")
		}
		old.Revoke = true
		if r := w.wantCodes(old, "finding source-missing 1", "info mark 1"); r.Revoked != 2 {
			t.Errorf("%d marks taken back", r.Revoked)
		}
		if w.mark(a, day("2024-02-04")) != "" || w.mark(a, day("2024-02-05")) != "marked" {
			t.Error("other marks taken back than those of the two days")
		}
		old.Revoke = false
		w.run(ArchiveOptions{Mode: Rearchive, Days: old.Days})
		w.wantCodes(old)

		// Without the ledger it can not be told.
		w.now = w.now.Add(-34 * 24 * time.Hour)
		w.put(a, "2024-02-09 00:30", 1)
		env := w.env()
		env.Ledger = nil
		r, err := Verify(t.Context(), env, against)
		w.must(err)
		if got := codes(r); !slices.Equal(got, []string{"finding source-missing 1"}) || !strings.Contains(r.Findings[0].Text, "without the ledger") {
			t.Errorf("without the ledger: %+v", r.Findings)
		}
	}
}

// TestVerifyRevoke: whatever is not whole loses its marks, and nothing else.
func TestVerifyRevoke(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.point("a"), w.point("b"), w.point("c")
	for _, p := range []int32{a, b, c} {
		w.fill(p, daysOf("2024-01-28", "2024-02-10"))
	}
	w.run(ArchiveOptions{Mode: Archive})
	marked := func(p int32) (n int) {
		w.must(w.src.Marks(t.Context(), []int32{p}, daysOf("2024-01-01", "2024-03-01"), func(m source.Mark) {
			if m.State == source.Marked {
				n++
			}
		}))
		return n
	}
	before := marked(a)
	path := func(p int32, month string) object.Key { return w.manifest(month).Entry(p).Path }
	data, _, err := w.dir.Get(t.Context(), path(a, "2024-02"))
	w.must(err)
	bad := slices.Clone(data)
	bad[len(bad)/2] ^= 1
	w.putOver(path(a, "2024-02"), bad)
	w.wantCodes(VerifyOptions{Deep: true}, "corrupt corrupt 1")
	r := w.wantCodes(VerifyOptions{Deep: true, Revoke: true}, "corrupt corrupt 1", "info mark 1")
	if r.Revoked != 9 || marked(a) != before-9 || marked(b) != before || r.ExitCode() != fault.ExitCorrupt {
		t.Errorf("%d taken back, %d of %d left of a, %d of b", r.Revoked, marked(a), before, marked(b))
	}
	w.wantCodes(VerifyOptions{Deep: true, Revoke: true}, "corrupt corrupt 1") // again: nothing more
	// The comparison with the source finds it too, once.
	w.wantCodes(VerifyOptions{Against: AgainstRows}, "corrupt corrupt 1")
	w.putOver(path(a, "2024-02"), data)

	// A month whose manifest can not be read.
	man, _, err := w.dir.Get(t.Context(), manifests.KeyOf(utc.MonthOf(2024, 1)))
	w.must(err)
	w.putOver(manifests.KeyOf(utc.MonthOf(2024, 1)), man[:len(man)-9])
	w.wantCodes(VerifyOptions{Against: AgainstCounts}, "corrupt manifest 0", "finding mark 0", "info version 0")
	r = w.wantCodes(VerifyOptions{Revoke: true, Days: daysOf("2024-01-01", "2024-02-01")}, "corrupt manifest 0", "info mark 0")
	if r.Revoked != int64(3*(before-9)) {
		t.Errorf("%d taken back, want %d", r.Revoked, 3*(before-9))
	}
	w.putOver(manifests.KeyOf(utc.MonthOf(2024, 1)), man)
	w.run(ArchiveOptions{Mode: Archive})
	w.wantCodes(VerifyOptions{Deep: true, Against: AgainstRows})

	// A mark over days that the manifest does not have: an older copy of it.
	w.fill(b, daysOf("2024-02-10", "2024-02-13"))
	feb := manifests.KeyOf(utc.MonthOf(2024, 2))
	older, _, err := w.dir.Get(t.Context(), feb)
	w.must(err)
	w.now = w.now.Add(3 * 24 * time.Hour)
	w.run(ArchiveOptions{Mode: Archive})
	w.putOver(feb, older)
	r = w.verify(VerifyOptions{Against: AgainstRows})
	if got := codes(r); !slices.Contains(got, "finding mark 1") || !slices.Contains(got, "finding mark 2") || !slices.Contains(got, "finding mark 3") {
		t.Errorf("an older manifest: %v", got)
	}
	w.verify(VerifyOptions{Revoke: true})
	w.run(ArchiveOptions{Mode: Archive})
	w.wantCodes(VerifyOptions{Deep: true, Against: AgainstRows})
}

// putOver puts bytes where others are, as no job would.
func (w *world) putOver(key object.Key, data []byte) {
	w.t.Helper()
	_, err := w.dir.Put(w.t.Context(), key, data, object.PutOptions{})
	w.must(err)
}

// TestVerifyWhileArchiving: a running archive raises no alarm, at any of its
// operations.
func TestVerifyWhileArchiving(t *testing.T) {
	w := newWorld(t)
	for i := range 8 {
		w.fill(w.point(fmt.Sprint("p", i)), daysOf("2024-01-29", "2024-02-10"))
	}
	w.backfill("2024-01-29", "2024-02-03")
	runs, days := 0, daysOf("2024-01-29", "2024-02-10")
	w.over = func(env *Env) {
		env.Store = besidePut{env.Store, func() {
			r, err := Verify(t.Context(), Env{Source: w.src, Ledger: w.src, Store: w.dir, Now: func() time.Time { return w.now }}, VerifyOptions{Deep: true, Against: AgainstRows, Days: days})
			if err != nil || r.ExitCode() != 0 {
				t.Errorf("exit %d, %v: %+v", r.ExitCode(), err, r.Findings)
			}
			runs++
		}}
	}
	w.now = time.Now() // the clock of the files
	w.run(ArchiveOptions{Mode: Rearchive, Days: days, WriteWorkers: 1, ExtractWorkers: 1})
	if runs < 8 {
		t.Errorf("%d verifications", runs)
	}
	reliability(t, "verify while archiving", int64(runs), "verifications, none of which raised an alarm")
}

// TestVerifyBesideWriters: rows come late and archives run while the source is
// compared, for some seconds; nothing of that is a finding.
func TestVerifyBesideWriters(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := newWorld(t)
	for i := range 6 {
		w.fill(w.point(fmt.Sprint("p", i)), daysOf("2024-01-28", "2024-02-10"))
	}
	w.run(ArchiveOptions{Mode: Archive})
	env := Env{Source: w.src, Ledger: w.src, Store: w.dir, Now: func() time.Time { return w.now }}
	done := make(chan struct{})
	var late, archives int
	var writers errgroup.Group
	writers.Go(func() error {
		rnd := rand.New(rand.NewPCG(seed, 0))
		for {
			select {
			case <-done:
				return nil
			default:
			}
			for range 1 + rnd.IntN(20) {
				err := sqlitex.Execute(w.conn, "INSERT OR REPLACE INTO timeseries (point_id, timestamp, value) VALUES (?, ?, ?)",
					&sqlitex.ExecOptions{Args: []any{1 + rnd.IntN(6), day("2024-01-28").Start() + rnd.Int64N(13*24*60)*60_000, rnd.Float64()}})
				if err != nil {
					return err
				}
				late++
			}
			time.Sleep(time.Duration(rnd.IntN(5)) * time.Millisecond)
		}
	})
	writers.Go(func() error {
		for {
			select {
			case <-done:
				return nil
			default:
			}
			p, err := PlanArchive(t.Context(), env, ArchiveOptions{Mode: Archive, CommitEvery: time.Millisecond})
			if err != nil {
				return err
			}
			if _, err := p.Run(t.Context(), env); err != nil {
				return err
			}
			archives++
		}
	})
	runs, waiting := 0, int64(0)
	for start := time.Now(); time.Since(start) < 4*time.Second || runs < 5; runs++ {
		o := VerifyOptions{Deep: runs%2 == 0, Against: AgainstRows}
		if runs%3 == 0 {
			o.Against = AgainstCounts
		}
		r, err := Verify(t.Context(), env, o)
		if err != nil || r.ExitCode() != 0 {
			t.Errorf("exit %d, %v: %+v", r.ExitCode(), err, r.Findings)
			break
		}
		waiting += r.Waiting
	}
	close(done)
	w.must(writers.Wait())
	reliability(t, "verify beside writers", int64(runs), "verifications beside %d late rows and %d archives; %d (point, day)s were waiting", late, archives, waiting)
	if archives < 2 || waiting == 0 {
		t.Error("nothing went on meanwhile")
	}
}

// TestVerifyBetweenMarks: an archive that ends between the last look at the tiers
// and the last look at the marks makes no late row a lost one, be its day marked
// before or not.
func TestVerifyBetweenMarks(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.point("another")
	w.fill(p, daysOf("2024-01-28", "2024-02-10"))
	w.run(ArchiveOptions{Mode: Archive})
	w.put(p, "2024-02-03 00:30", 1) // its day is not marked
	env := w.env()
	looks := 0
	env.Ledger = lookedAt{w.src, func(marks func() error) error {
		looks++
		if looks == 2 {
			w.run(ArchiveOptions{Mode: Archive})
		}
		err := marks()
		if looks == 1 {
			w.put(p, "2024-02-05 00:30", 1) // its day was marked a moment ago
		}
		return err
	}}
	r, err := Verify(t.Context(), env, VerifyOptions{Against: AgainstRows})
	w.must(err)
	if got := codes(r); !slices.Equal(got, []string{"info waiting 1"}) || looks < 2 || r.Waiting != 2 {
		t.Errorf("%v after %d looks, %d days waiting: %+v", got, looks, r.Waiting, r.Findings)
	}
	w.wantCodes(VerifyOptions{Deep: true, Against: AgainstRows})
}

// lookedAt hands each look at the marks of one point alone to f.
type lookedAt struct {
	source.Ledger
	f func(marks func() error) error
}

func (l lookedAt) Marks(ctx context.Context, points []int32, days utc.Days, f func(source.Mark)) error {
	marks := func() error { return l.Ledger.Marks(ctx, points, days, f) }
	if len(points) > 1 {
		return marks()
	}
	return l.f(marks)
}

// besidePut calls f after each write.
type besidePut struct {
	object.Store
	f func()
}

func (s besidePut) Put(ctx context.Context, key object.Key, data []byte, o object.PutOptions) (object.Attrs, error) {
	a, err := s.Store.Put(ctx, key, data, o)
	s.f()
	return a, err
}

// TestVerifyUnreadable: what the store can not read is a finding, and the others
// are read; what may pass ends the verification.
func TestVerifyUnreadable(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"a", "b", "c"} {
		w.fill(w.point(name), daysOf("2024-02-01", "2024-02-03"))
	}
	w.backfill("2024-02-01", "2024-02-03")
	fail := func(k fault.Kind) {
		w.store.Reset()
		w.store.Inject(objecttest.On("get", "timeseries/2024/02/b.parquet"), objecttest.Fail(k))
	}
	fail(fault.Unavailable)
	if r := w.wantCodes(VerifyOptions{Deep: true, Workers: 1}, "corrupt unreadable 2"); r.FilesRead != 2 || r.Revoked != 0 {
		t.Errorf("%d files read", r.FilesRead)
	}
	fail(fault.Transient)
	if _, err := Verify(t.Context(), w.env(), VerifyOptions{Deep: true}); !fault.Is(err, fault.Transient) {
		t.Errorf("an outage: %v", err)
	}
	w.store.Reset()
	w.wantCodes(VerifyOptions{Deep: true})

	// What is beside the month files, and files without a manifest: an outage says
	// nothing of any of them.
	w.exec("INSERT INTO timeseries (point_id, timestamp, value) VALUES (1, ?, x'00')", at("2024-02-02 00:45"))
	w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-02-01", "2024-02-03")})
	w.must(os.WriteFile(w.file("timeseries/2024/02/stranger.parquet"), []byte("no Parquet"), 0o644))
	var reject object.Key
	for k := range w.objects() {
		if strings.HasPrefix(string(k), "_rejects/") {
			reject = k
		}
	}
	for _, key := range []object.Key{reject, "timeseries/2024/02/stranger.parquet"} {
		for k, want := range map[fault.Kind]string{fault.Transient: "", fault.Unavailable: "finding unreadable 0"} {
			w.store.Reset()
			w.store.Inject(objecttest.On("get", key), objecttest.Fail(k))
			r, err := Verify(t.Context(), w.env(), VerifyOptions{Deep: true})
			if want == "" && !fault.Is(err, fault.Transient) || want != "" && (err != nil || !slices.Contains(codes(r), want)) {
				t.Errorf("%s, %s: %v, %v", key, k, err, codes(r))
			}
		}
	}
	w.must(os.Remove(w.file("_manifests/2024-02.json")))
	for k, want := range map[fault.Kind]string{fault.Transient: "", fault.Unavailable: "corrupt unreadable 0"} {
		w.store.Reset()
		w.store.Inject(objecttest.On("get", "timeseries/2024/02/b.parquet"), objecttest.Fail(k))
		r, err := Verify(t.Context(), w.env(), VerifyOptions{Deep: true})
		if want == "" && !fault.Is(err, fault.Transient) || want != "" && (err != nil || !slices.Contains(codes(r), want)) {
			t.Errorf("without a manifest, %s: %v, %v", k, err, codes(r))
		}
	}
}

// TestVerifyPending: a file that is newer than the manifest is information for an
// hour, and then a finding.
func TestVerifyPending(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-02-01", "2024-02-05"))
	w.backfill("2024-02-01", "2024-02-03")
	feb := manifests.KeyOf(utc.MonthOf(2024, 2))
	older, _, err := w.dir.Get(t.Context(), feb)
	w.must(err)
	w.backfill("2024-02-03", "2024-02-05")
	w.putOver(feb, older)
	for _, o := range []VerifyOptions{{}, {Deep: true}} {
		w.now = time.Now()
		w.wantCodes(o, "info pending 1")
		w.now = time.Now().Add(61 * time.Minute)
		if r := w.wantCodes(o, "finding pending 1"); !strings.Contains(r.Findings[0].Remedy, "etl repair --month 2024-02") {
			t.Errorf("remedy %q", r.Findings[0].Remedy)
		}
	}
	// No manifest at all: one finding, not one a file.
	w.must(os.Remove(filepath.Join(w.root, string(feb))))
	w.now = time.Now()
	w.wantCodes(VerifyOptions{}, "info manifest 0")
	w.now = time.Now().Add(2 * time.Hour)
	w.wantCodes(VerifyOptions{Deep: true}, "finding manifest 0")
}

// TestSampleCoversAll: N percent a day are every file within ceil(100/N) days, from
// any day on, and about N percent each day.
func TestSampleCoversAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		percent := rapid.IntRange(1, 100).Draw(t, "percent")
		first := utc.Day(rapid.IntRange(0, 100_000).Draw(t, "day"))
		n := (100 + percent - 1) / percent
		most := 0
		seen := make(map[string]bool)
		const files = 1000
		for d := range n {
			today := 0
			for i := range files {
				name := fmt.Sprintf("timeseries/2024/01/p-%d.parquet", i)
				if inSample(name, int64(first)+int64(d), percent) {
					seen[name] = true
					today++
				}
			}
			most = max(most, today)
		}
		if len(seen) != files {
			t.Fatalf("%d %% from day %d: %d of %d files within %d days", percent, first, len(seen), files, n)
		}
		if most > files*percent/100+files/8 {
			t.Fatalf("%d %%: %d of %d files on one day", percent, most, files)
		}
	})
	if !inSample("x", 0, 0) {
		t.Error("0 is not all")
	}
	w := newWorld(t)
	for i := range 30 {
		w.fill(w.point(fmt.Sprint("p", i)), daysOf("2024-02-01", "2024-02-02"))
	}
	w.backfill("2024-02-01", "2024-02-02")
	read := int64(0)
	for range 4 {
		r := w.wantCodes(VerifyOptions{Deep: true, Against: AgainstRows, Sample: 25, Days: daysOf("2024-02-01", "2024-02-02")})
		if r.FilesRead%2 != 0 || r.Compared*2 != r.FilesRead {
			t.Errorf("%d files read, %d (point, day)s compared", r.FilesRead, r.Compared)
		}
		read += r.FilesRead
		w.now = w.now.Add(24 * time.Hour)
	}
	if read != 2*30 { // once deeply, once to be compared
		t.Errorf("%d files read in 4 days, want 60", read)
	}
}

// TestVerifyOptions: what can not be is refused before anything is read.
func TestVerifyOptions(t *testing.T) {
	w := newWorld(t)
	w.point("a")
	env := w.env()
	for name, c := range map[string]struct {
		o    VerifyOptions
		edit func(*Env)
	}{
		"against":       {VerifyOptions{Against: "columns"}, nil},
		"percent":       {VerifyOptions{Deep: true, Sample: 101}, nil},
		"only names":    {VerifyOptions{Sample: 10}, nil},
		"no source":     {VerifyOptions{Against: AgainstRows}, func(e *Env) { e.Source = nil }},
		"no ledger":     {VerifyOptions{Revoke: true}, func(e *Env) { e.Ledger = nil }},
		"group":         {VerifyOptions{Points: Points{Group: "g"}}, func(e *Env) { e.Source = nil }},
		"unknown group": {VerifyOptions{Points: Points{Group: "g"}}, nil},
	} {
		env := env
		if c.edit != nil {
			c.edit(&env)
		}
		if _, err := Verify(t.Context(), env, c.o); !fault.Is(err, fault.Usage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMissed compares with what maps say.
func TestMissed(t *testing.T) {
	m := utc.MonthOf(2024, 2)
	rapid.Check(t, func(t *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		series := func() *sample.Series {
			var s sample.Series
			for ts := m.First().Start() + rnd.Int64N(3)*1000; s.Len() < 50; ts += (1 + rnd.Int64N(3)*rnd.Int64N(40_000)) * 1000 {
				v := float64(rnd.IntN(2))
				if v == 0 && rnd.IntN(3) == 0 {
					v = sample.Null
				}
				if ts >= m.Days().To.Start() {
					break
				}
				s.Append(ts, v, 0, 0)
			}
			return &s
		}
		hot, cold := series(), series()
		have := make(map[int64]row)
		for i, ts := range cold.TS {
			have[ts] = rowOf(cold, i)
		}
		want := make(map[int]differences)
		for i, ts := range hot.TS {
			k := int(utc.DayOf(ts) - m.First())
			d := want[k]
			r, ok := have[ts]
			switch {
			case ok && r == rowOf(hot, i):
				continue
			case ok:
				d.other++
			default:
				d.missing++
			}
			if d.missing+d.other == 1 {
				d.first = ts
			}
			want[k] = d
		}
		got := missed(m, hot, cold)
		if len(got) != len(want) {
			t.Fatalf("%v, want %v", got, want)
		}
		for k := range want {
			if got[k] != want[k] {
				t.Fatalf("day %d: %+v, want %+v", k, got[k], want[k])
			}
		}
	})
}
