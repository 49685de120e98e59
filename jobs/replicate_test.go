package jobs

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/object/objecttest"
	"etl/internal/utc"
	"etl/manifests"
)

// replicaOf opens an empty destination.
func (w *world) replicaOf() (*objecttest.Faults, *world) {
	w.t.Helper()
	r := &world{t: w.t, now: w.now, root: filepath.Join(w.t.TempDir(), "replica")}
	var err error
	r.dir, err = dir.Open(r.root)
	w.must(err)
	r.store = objecttest.NewFaults(r.dir)
	return r.store, r
}

func (w *world) replicate(to object.Store, o ReplicateOptions) (ReplicateReport, error) {
	w.t.Helper()
	return w.replicating(w.t.Context(), to, o)
}

func (w *world) replicating(ctx context.Context, to object.Store, o ReplicateOptions) (ReplicateReport, error) {
	w.t.Helper()
	p, err := PlanReplicate(ctx, w.env(), to, o)
	if err != nil {
		return ReplicateReport{Failed: []Failure{failure(err)}}, err
	}
	return p.Run(ctx, w.env())
}

// replicated replicates and fails the test unless all went well.
func (w *world) replicated(to object.Store, o ReplicateOptions) ReplicateReport {
	w.t.Helper()
	r, err := w.replicate(to, o)
	w.must(err)
	if r.ExitCode() != 0 {
		w.t.Fatalf("replicate: exit %d: %+v", r.ExitCode(), r)
	}
	return r
}

func puts(f *objecttest.Faults) (n int) {
	for _, op := range f.Trace() {
		if strings.HasPrefix(op, "put") || strings.HasPrefix(op, "delete") {
			n++
		}
	}
	return n
}

func TestReplicate(t *testing.T) {
	w, a, _ := archived(t)
	w.exec("INSERT INTO timeseries (point_id, timestamp, value) VALUES (?, ?, x'00')", a, at("2024-01-26 00:45"))
	w.run(ArchiveOptions{Mode: Archive})
	to, r := w.replicaOf()
	first := w.replicated(to, ReplicateOptions{})
	if first.Files != 4 || first.Manifests != 2 || first.Rejects != 1 {
		t.Errorf("%+v", first)
	}
	r.whole()
	sameRows(t, r.cold(), w.cold())
	for _, m := range []string{"2024-01", "2024-02"} {
		for i, e := range r.manifest(m).Points {
			src := w.manifest(m).Points[i]
			_, attrs, err := r.dir.Get(t.Context(), e.Path)
			w.must(err)
			if e.ETag != attrs.ETag || e.SHA256 != src.SHA256 {
				t.Errorf("%s: entry %+v, stored version %s", m, e, attrs.ETag)
			}
		}
	}
	// Data first, the manifest of each month last.
	for i, op := range to.Trace() {
		if strings.HasPrefix(op, "put _manifests/2024-01.json") {
			for _, later := range to.Trace()[i:] {
				if strings.HasPrefix(later, "put timeseries/2024/01") {
					t.Errorf("%s after the manifest", later)
				}
			}
		}
	}
	to.Reset()
	again := w.replicated(to, ReplicateOptions{})
	if n := puts(to); n != 0 || again.Files != 0 || again.Same != 4 {
		t.Errorf("a second replication wrote %d times: %+v", n, again)
	}

	// What has changed, and nothing else.
	w.put(a, "2024-02-01 10:30", 5)
	w.run(ArchiveOptions{Mode: Archive})
	to.Reset()
	if rep := w.replicated(to, ReplicateOptions{}); rep.Files != 1 || rep.Manifests != 1 || puts(to) != 2 {
		t.Errorf("%d writes: %+v", puts(to), rep)
	}
	r.whole()
	sameRows(t, r.cold(), w.cold())

	// The replica is a cold tier of its own: the source may go on with it.
	if c, _, err := manifests.LoadPoints(t.Context(), r.dir); err != nil || c.SourceID == "" {
		t.Fatalf("source id %+v, %v", c, err)
	}
	w.fill(a, daysOf("2024-02-03", "2024-02-05"))
	env := w.env()
	env.Store = r.dir
	rep, err := w.try(env, ArchiveOptions{Mode: Archive})
	w.must(err)
	if len(rep.Failed) > 0 {
		t.Errorf("archive into the replica: %+v", rep.Failed)
	}
	r.whole()
	// Now it holds more than the first tier, which must not go over it.
	before := r.objects()
	if _, err := w.replicate(r.dir, ReplicateOptions{}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "2024-02-03") {
		t.Errorf("a destination that holds more: %v", err)
	}
	if !maps.Equal(before, r.objects()) {
		t.Errorf("a refused replication wrote")
	}
	// Back the other way it is an ordinary replication.
	w2 := &world{t: t, now: w.now, root: r.root, dir: r.dir, store: objecttest.NewFaults(r.dir), over: func(e *Env) { e.Source, e.Ledger, e.Journal = nil, nil, nil }}
	w2.replicated(w.dir, ReplicateOptions{})
	w.whole()
	sameRows(t, w.cold(), r.cold())
}

// Rows that the destination alone has are never overwritten.
func TestReplicateRefusesRows(t *testing.T) {
	w, a, b := archived(t)
	to, r := w.replicaOf()
	w.replicated(to, ReplicateOptions{})
	// A day loses a row here, deliberately, and gains another; so does another point.
	w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp = ?", a, at("2024-01-25 10:00"))
	w.put(a, "2024-01-25 10:15", 4)
	w.put(b, "2024-01-25 10:30", 5)
	w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-25", "2024-01-26"), Replace: true})
	want := r.cold()
	rep, err := w.replicate(to, ReplicateOptions{})
	w.must(err)
	if len(rep.Failed) != 1 || rep.Failed[0].PointID != a || rep.ExitCode() != fault.ExitError || !strings.Contains(rep.Failed[0].Error, "1 samples") || rep.Files != 1 {
		t.Errorf("%+v", rep)
	}
	for k, v := range w.cold() {
		if k.point == b {
			want[k] = v
		}
	}
	sameRows(t, r.cold(), want)
	r.whole()
	w.replicated(to, ReplicateOptions{Prune: true})
	sameRows(t, r.cold(), w.cold())
	r.whole()
}

func TestReplicatePrunes(t *testing.T) {
	w, _, _ := archived(t)
	to, r := w.replicaOf()
	w.replicated(to, ReplicateOptions{})
	// Another cold tier of the same source, with less.
	_, less := w.replicaOf()
	env := w.env()
	env.Store = less.dir
	_, err := w.try(env, ArchiveOptions{Mode: Backfill, Days: daysOf("2024-01-22", "2024-01-25"), Points: Points{Globs: []string{"a"}}})
	w.must(err)
	w.must(os.WriteFile(r.file("timeseries/2024/01/notes.txt"), []byte("a person's"), 0o644))
	less.over = func(e *Env) { e.Source, e.Ledger, e.Journal = nil, nil, nil }

	p, err := PlanReplicate(t.Context(), less.env(), to, ReplicateOptions{})
	w.must(err)
	if len(p.Refused) != 4 || p.ExitCode() != fault.ExitError { // a and b, in two months
		t.Errorf("refused: %+v", p.Refused)
	}
	full := r.objects()
	clean := -1
	// A prune that is cut off at each of its operations, and done again.
	for i := 1; clean < 0; i++ {
		for k := range r.objects() {
			w.must(os.Remove(r.file(string(k))))
		}
		w.replicated(r.dir, ReplicateOptions{})
		w.must(os.WriteFile(r.file("timeseries/2024/01/notes.txt"), []byte("a person's"), 0o644))
		ctx, cancel := context.WithCancel(t.Context())
		to.Reset()
		to.Inject(objecttest.At(i), objecttest.After(cancel))
		_, _ = less.replicating(ctx, to, ReplicateOptions{Prune: true, Workers: 1})
		if len(to.Fired()) == 0 {
			clean = i - 1
		}
		cancel()
		to.Reset()
		readCold(t, r.dir) // whole at any moment
		less.replicated(to, ReplicateOptions{Prune: true})
		sameRows(t, r.cold(), less.cold())
		for k := range r.objects() {
			if _, ok := less.objects()[k]; !ok && k != "timeseries/2024/01/notes.txt" && k != manifests.PointsKey {
				t.Errorf("cut off at %d: %s is left", i, k)
			}
		}
		to.Reset()
		less.replicated(to, ReplicateOptions{Prune: true})
		if n := puts(to); n != 0 {
			t.Errorf("pruning again wrote %d times", n)
		}
	}
	reliability(t, "cuts of replicate --prune-destination", int64(clean), "operations, cut off at each; the destination had %d objects", len(full))
}

// A damaged or uncommitted file is never copied, a damaged one of the
// destination is replaced, and kept.
func TestReplicateDamage(t *testing.T) {
	w, a, b := archived(t)
	to, r := w.replicaOf()
	good, err := os.ReadFile(w.file(fileA))
	w.must(err)
	w.spoil(fileA)
	rep, err := w.replicate(to, ReplicateOptions{})
	w.must(err)
	if len(rep.Failed) != 1 || rep.Failed[0].PointID != a || rep.ExitCode() != fault.ExitCorrupt || rep.Files != 3 {
		t.Errorf("%+v", rep)
	}
	r.whole() // without the damaged point
	w.must(os.WriteFile(w.file(fileA), good, 0o644))
	w.replicated(to, ReplicateOptions{})
	sameRows(t, r.cold(), w.cold())

	// Newer than the manifest.
	old, err := os.ReadFile(w.file(manJ))
	w.must(err)
	w.put(b, "2024-01-25 10:30", 5)
	w.run(ArchiveOptions{Mode: Archive})
	newer, err := os.ReadFile(w.file(manJ))
	w.must(err)
	w.must(os.WriteFile(w.file(manJ), old, 0o644))
	if rep, err = w.replicate(to, ReplicateOptions{}); err != nil || len(rep.Failed) > 0 || rep.Files != 0 {
		t.Errorf("%+v, %v", rep, err) // it is there already: nothing asks for the newer one
	}
	_, r2 := w.replicaOf()
	if rep, err = w.replicate(r2.dir, ReplicateOptions{}); err != nil || len(rep.Pending) != 1 || rep.ExitCode() != fault.ExitFindings {
		t.Errorf("%+v, %v", rep, err)
	}
	r2.whole()
	w.must(os.WriteFile(w.file(manJ), newer, 0o644))
	w.replicated(r2.dir, ReplicateOptions{})
	sameRows(t, r2.cold(), w.cold())

	// The destination's own damage.
	w.replicated(to, ReplicateOptions{})
	data, err := os.ReadFile(r.file(fileA))
	w.must(err)
	w.must(os.WriteFile(r.file(fileA), data[:len(data)/2], 0o644))
	w.must(os.Remove(r.file("timeseries/2024/02/b.parquet")))
	if rep := w.replicated(to, ReplicateOptions{}); rep.Files != 2 {
		t.Errorf("%+v", rep)
	}
	if q := r.quarantined(); len(q) != 1 {
		t.Errorf("set aside: %v", q)
	}
	r.whole()
	sameRows(t, r.cold(), w.cold())

	// A manifest that can not be read stops its month alone.
	w.must(os.WriteFile(w.file(manJ), []byte("{"), 0o644))
	if rep, err = w.replicate(to, ReplicateOptions{}); err != nil || len(rep.Failed) != 1 || rep.ExitCode() != fault.ExitCorrupt {
		t.Errorf("%+v, %v", rep, err)
	}
}

func TestReplicateRefusesOthers(t *testing.T) {
	w, _, _ := archived(t)
	other, _, _ := archived(t)
	if _, err := w.replicate(other.dir, ReplicateOptions{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("another source's cold tier: %v", err)
	}
	to, r := w.replicaOf()
	w.must(os.MkdirAll(r.file("timeseries/2024/01"), 0o755))
	theirs, err := os.ReadFile(w.file("timeseries/2024/01/b.parquet"))
	w.must(err)
	w.must(os.WriteFile(r.file(fileA), theirs, 0o644)) // b's, at a's path
	rep, err := w.replicate(to, ReplicateOptions{})
	data, rerr := os.ReadFile(r.file(fileA))
	w.must(rerr)
	if !bytes.Equal(data, theirs) {
		t.Errorf("another point's file was overwritten: %+v, %v", rep, err)
	}
}

// An interrupt leaves a destination that reads correctly, and what was copied in it.
func TestReplicateInterrupted(t *testing.T) {
	w, _, _ := archived(t)
	to, r := w.replicaOf()
	stop := make(chan struct{})
	w.over = func(e *Env) { e.Stop = stop }
	to.Inject(objecttest.First(1, objecttest.On("put", "timeseries/2024/01/a.parquet")), objecttest.After(func() { close(stop) }))
	rep, err := w.replicate(to, ReplicateOptions{Workers: 1})
	w.must(err)
	if !rep.Interrupted || rep.ExitCode() != fault.ExitInterrupted || rep.Manifests != 1 {
		t.Errorf("%+v", rep)
	}
	r.whole()
	if len(r.manifest("2024-01").Points) == 0 {
		t.Error("what was in flight was not committed")
	}
	w.over = nil
	w.replicated(to, ReplicateOptions{})
	sameRows(t, r.cold(), w.cold())
}

// faultsAt runs a job with a fault at each operation of a store in turn, checks
// what it left, runs it again without faults, and checks the end.
func faultsAt(t *testing.T, what string, n int, run func(t *testing.T, inject func(*objecttest.Faults) (cancel func()), ctx func() context.Context) (fired int)) {
	tried, ways := 0, []string{"transient", "unavailable", "lost reply", "crash", "crash after", "gone from there on"}
	for _, way := range ways {
		for i := 1; i <= n; i++ {
			if testing.Short() && i%5 != 0 {
				continue
			}
			tried++
			t.Run(fmt.Sprintf("%s at %d", way, i), func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				inject := func(f *objecttest.Faults) func() {
					switch way {
					case "transient":
						f.Inject(objecttest.At(i), objecttest.Fail(fault.Transient))
					case "unavailable":
						f.Inject(objecttest.At(i), objecttest.Fail(fault.Unavailable))
					case "lost reply":
						f.Inject(objecttest.At(i), objecttest.LoseReply())
					case "crash":
						f.Inject(objecttest.At(i), objecttest.Before(cancel))
					case "crash after":
						f.Inject(objecttest.At(i), objecttest.After(cancel))
					case "gone from there on":
						f.Inject(objecttest.From(i), objecttest.Fail(fault.Transient))
					}
					return cancel
				}
				if run(t, inject, func() context.Context { return ctx }) == 0 {
					t.Fatalf("the fault at operation %d of %d did not fire", i, n)
				}
			})
		}
	}
	reliability(t, "faults of "+what, int64(tried), "faults, %d ways at %d operations", len(ways), n)
}

func TestReplicateFaults(t *testing.T) {
	w, a, _ := archived(t)
	_, stale := w.replicaOf()
	w.replicated(stale.dir, ReplicateOptions{})
	w.put(a, "2024-02-01 10:30", 5)
	w.exec("INSERT INTO timeseries (point_id, timestamp, value) VALUES (?, ?, x'00')", a, at("2024-01-26 00:45"))
	w.point("c")
	w.fill(3, daysOf("2024-01-30", "2024-02-02"))
	w.run(ArchiveOptions{Mode: Archive})
	want := w.cold()
	copyOf := func(t *testing.T) (*objecttest.Faults, *world) {
		r := &world{t: t, now: w.now, root: filepath.Join(t.TempDir(), "replica")}
		r.must(os.CopyFS(r.root, os.DirFS(stale.root)))
		var err error
		r.dir, err = dir.Open(r.root)
		r.must(err)
		r.store = objecttest.NewFaults(r.dir)
		return r.store, r
	}
	o := ReplicateOptions{Workers: 1}
	to, _ := copyOf(t)
	w.store.Reset()
	w.replicated(to, o)
	for side, n := range map[string]int{"source": w.store.Count(), "destination": to.Count()} {
		t.Run(side, func(t *testing.T) {
			faultsAt(t, "replicate, "+side, n, func(t *testing.T, inject func(*objecttest.Faults) func(), ctx func() context.Context) int {
				to, r := copyOf(t)
				w.store.Reset()
				f := to
				if side == "source" {
					f = w.store
				}
				inject(f)
				w2 := &world{t: t, store: w.store, dir: w.dir, now: w.now, over: func(e *Env) { e.Source, e.Ledger, e.Journal = nil, nil, nil }}
				_, _ = w2.replicating(ctx(), to, o)
				fired := len(f.Fired())
				w.store.Reset()
				to.Reset()
				readCold(t, r.dir) // whole at any moment
				w2.replicated(to, o)
				sameRows(t, r.cold(), want)
				r.whole()
				return fired
			})
		})
	}
}

func TestRepairFaults(t *testing.T) {
	w, a, b := archived(t)
	w.exec("INSERT INTO timeseries (point_id, timestamp, value) VALUES (?, ?, x'00')", b, at("2024-01-26 00:45"))
	w.run(ArchiveOptions{Mode: Archive})
	replica := w.copyTier()
	d := day("2024-01-20")
	w.exec("INSERT INTO archive_trims (point_id, day) VALUES (?, ?)", a, int64(d))
	w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ?", a, d.Start(), d.End())
	w.exec("UPDATE archive_marks SET done = 2 WHERE point_id = ? AND day = ?", a, int64(d))
	want := w.cold()
	w.spoil(fileA)                                                             // from D1 and from the replica
	w.must(os.Remove(w.file("timeseries/2024/02/b.parquet")))                  // from D1
	w.must(os.WriteFile(w.file("_manifests/points.json"), []byte("{"), 0o644)) // anew
	w.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	base := t.TempDir()
	copyFile(t, w.db, filepath.Join(base, "d1.sqlite"))
	w.must(os.CopyFS(filepath.Join(base, "r2"), os.DirFS(w.root)))
	s := &scene{t: t, base: base, want: want}

	o := RepairOptions{Replica: replica, Workers: 1, Engine: ArchiveOptions{WriteWorkers: 1, ExtractWorkers: 1}}
	clean := s.open(t)
	clean.now = w.now
	if r := clean.repair(o); r.ExitCode() != 0 {
		t.Fatalf("%+v", r)
	}
	sameRows(t, clean.cold(), want)
	n := clean.store.Count()
	faultsAt(t, "repair, store", n, func(t *testing.T, inject func(*objecttest.Faults) func(), ctx func() context.Context) int {
		v := s.open(t)
		v.now = w.now
		inject(v.store)
		if p, err := PlanRepair(ctx(), v.env(), o); err == nil {
			_, _ = p.Run(ctx(), v.env())
		}
		fired := len(v.store.Fired())
		v.store.Reset()
		// Whatever was done, nothing that is not whole is marked.
		months, err := manifests.Months(t.Context(), v.dir)
		v.must(err)
		for k := range want {
			if v.mark(k.point, utc.DayOf(k.ts)) != "marked" {
				continue
			}
			if e := v.manifest(utc.DayOf(k.ts).Month().String()).Entry(k.point); e == nil || len(months) == 0 {
				t.Errorf("point %d, %s is marked and not archived", k.point, utc.DayOf(k.ts))
			}
			break
		}
		r := v.repair(o)
		if r.ExitCode() != 0 {
			t.Errorf("the repair after it: %+v", r)
		}
		v.whole()
		sameRows(t, v.cold(), want)
		return fired
	})
}
