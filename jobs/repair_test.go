package jobs

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/object/objecttest"
	"etl/manifests"
)

// file is the path of an object of the cold tier on disk.
func (w *world) file(key string) string { return filepath.Join(w.root, filepath.FromSlash(key)) }

// spoil flips a bit in the middle of an object, as a bad disk does.
func (w *world) spoil(key string) {
	w.t.Helper()
	data, err := os.ReadFile(w.file(key))
	w.must(err)
	data[len(data)/2] ^= 0x40
	w.must(os.WriteFile(w.file(key), data, 0o644))
}

// copyTier copies the cold tier as it is now: a replica.
func (w *world) copyTier() object.Store {
	w.t.Helper()
	root := filepath.Join(w.t.TempDir(), "replica")
	w.must(os.CopyFS(root, os.DirFS(w.root)))
	s, err := dir.Open(root)
	w.must(err)
	return s
}

func (w *world) repair(o RepairOptions) RepairReport {
	w.t.Helper()
	p, err := PlanRepair(w.t.Context(), w.env(), o)
	w.must(err)
	r, err := p.Run(w.t.Context(), w.env())
	w.must(err)
	return r
}

// mended repairs, and checks that nothing is lost, that all is whole, and that
// doing it again does nothing.
func (w *world) mended(o RepairOptions) RepairReport {
	w.t.Helper()
	r := w.repair(o)
	if r.ExitCode() != 0 {
		w.t.Errorf("exit code %d: lost %+v, failed %+v", r.ExitCode(), r.Lost, r.Failed)
	}
	w.whole()
	w.idle(o)
	return r
}

// idle checks that a repair has nothing to do.
func (w *world) idle(o RepairOptions) {
	w.t.Helper()
	before := w.objects()
	p, err := PlanRepair(w.t.Context(), w.env(), o)
	w.must(err)
	if !p.Empty() {
		w.t.Errorf("a second repair would: %+v, %d marks", p.Fixes, p.Marks)
	}
	if r := w.repair(o); r.ExitCode() != 0 {
		w.t.Errorf("a second repair: %+v", r)
	}
	if after := w.objects(); !maps.Equal(before, after) {
		w.t.Errorf("a second repair wrote: %v, before %v", after, before)
	}
}

// quarantined lists what was set aside.
func (w *world) quarantined() []object.Key {
	var keys []object.Key
	for k := range w.objects() {
		if strings.HasPrefix(string(k), "_quarantine/") {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

const (
	fileA = "timeseries/2024/01/a.parquet"
	manJ  = "_manifests/2024-01.json"
)

// archived is a world with two points, two weeks of them archived.
func archived(t *testing.T) (*world, int32, int32) {
	w := newWorld(t)
	a, b := w.point("a"), w.point("b")
	w.fill(a, daysOf("2024-01-20", "2024-02-03"))
	w.fill(b, daysOf("2024-01-22", "2024-02-03"))
	w.backfill("2024-01-20", "2024-02-03")
	return w, a, b
}

func TestRepairFromSource(t *testing.T) {
	for name, damage := range map[string]func(*world){
		"nothing":            func(*world) {},
		"a spoilt file":      func(w *world) { w.spoil(fileA) },
		"an empty file":      func(w *world) { w.must(os.WriteFile(w.file(fileA), nil, 0o644)) },
		"garbage":            func(w *world) { w.must(os.WriteFile(w.file(fileA), []byte("no Parquet"), 0o644)) },
		"a missing file":     func(w *world) { w.must(os.Remove(w.file(fileA))) },
		"a spoilt manifest":  func(w *world) { w.must(os.WriteFile(w.file(manJ), []byte("{"), 0o644)) },
		"a missing manifest": func(w *world) { w.must(os.Remove(w.file(manJ))) },
		"manifest and file missing": func(w *world) {
			w.must(os.Remove(w.file(manJ)))
			w.must(os.Remove(w.file(fileA)))
		},
		"the month is gone": func(w *world) {
			w.must(os.Remove(w.file(manJ)))
			w.must(os.RemoveAll(w.file("timeseries/2024/01")))
		},
		"spoilt points.json":  func(w *world) { w.spoil(string(manifests.PointsKey)) },
		"missing points.json": func(w *world) { w.must(os.Remove(w.file(string(manifests.PointsKey)))) },
		"everything is gone": func(w *world) {
			w.must(os.RemoveAll(w.file("timeseries")))
			w.must(os.RemoveAll(w.file("_manifests")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, _ := archived(t)
			want := w.cold()
			damage(w)
			w.mended(RepairOptions{})
			sameRows(t, w.cold(), want)
			if got := w.mark(a, day("2024-01-25")); got != "marked" {
				t.Errorf("the mark of a day that is whole again: %q", got)
			}
		})
	}
}

// With its manifest gone too, nothing says what a spoilt file held: what can be
// found is archived again, and the rest is told.
func TestRepairUnknown(t *testing.T) {
	for _, with := range []bool{false, true} {
		w, a, _ := archived(t)
		want := w.cold()
		o := RepairOptions{}
		if with {
			o.Replica = w.copyTier()
		}
		w.must(os.WriteFile(w.file(manJ), []byte("{"), 0o644))
		w.spoil(fileA)
		r := w.repair(o)
		if told := len(r.Lost) == 1 && r.Lost[0].PointID == a && r.Lost[0].Text != "" && r.ExitCode() == fault.ExitFindings; told == with {
			t.Errorf("with a replica %t: %+v", with, r)
		}
		w.whole()
		w.idle(o)
		sameRows(t, w.cold(), want)
	}
}

// What D1 has trimmed comes from a replica, or is named; an older replica helps
// as far as it goes.
func TestRepairOfTrimmedDays(t *testing.T) {
	trim := func(w *world, p int32, to string) {
		for d := day("2024-01-20"); d < day(to); d++ {
			w.exec("INSERT INTO archive_trims (point_id, day) VALUES (?, ?)", p, int64(d))
			w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ?", p, d.Start(), d.End())
			w.exec("UPDATE archive_marks SET done = 2 WHERE point_id = ? AND day = ?", p, int64(d))
		}
	}
	for name, damage := range map[string]func(*world){
		"spoilt":  func(w *world) { w.spoil(fileA) },
		"missing": func(w *world) { w.must(os.Remove(w.file(fileA))) },
		"the month is gone": func(w *world) {
			w.must(os.Remove(w.file(manJ)))
			w.must(os.RemoveAll(w.file("timeseries/2024/01")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, _ := archived(t)
			trim(w, a, "2024-01-24") // four days
			want := w.cold()
			replica := w.copyTier()
			damage(w)

			r := w.repair(RepairOptions{})
			if r.ExitCode() != fault.ExitFindings || len(r.Lost) != 1 || r.Lost[0].PointID != a || len(r.Lost[0].Days) != 4 || r.Lost[0].Days[0].Day != day("2024-01-20") {
				t.Fatalf("exit %d, lost %+v, failed %+v; want the four trimmed days of a", r.ExitCode(), r.Lost, r.Failed)
			}
			w.whole()
			some := maps.Clone(want)
			for k := range want {
				if k.point == a && k.ts < day("2024-01-24").Start() {
					delete(some, k)
				}
			}
			sameRows(t, w.cold(), some)
			if d := w.manifest("2024-01").Entry(a).Days[19]; d != -1 {
				t.Errorf("a lost day counts %d, want null", d)
			}
			// The replica turns up later.
			w.mended(RepairOptions{Replica: replica})
			sameRows(t, w.cold(), want)
		})
		t.Run(name+", replica alone", func(t *testing.T) {
			w, _, _ := archived(t)
			want := w.cold()
			manifest := w.manifest("2024-01")
			replica := w.copyTier()
			damage(w)
			w.over = func(e *Env) { e.Source, e.Ledger, e.Journal = nil, nil, nil }
			w.mended(RepairOptions{Replica: replica})
			sameRows(t, w.cold(), want)
			if got := w.manifest("2024-01").Entry(1); got.SHA256 != manifest.Entry(1).SHA256 {
				t.Errorf("the bytes are not those of the replica")
			}
		})
		t.Run(name+", older replica", func(t *testing.T) {
			w, a, _ := archived(t)
			replica := w.copyTier()
			w.put(a, "2024-01-25 10:30", 77)
			w.run(ArchiveOptions{Mode: Archive})
			trim(w, a, "2024-01-24")
			want := w.cold()
			damage(w)
			w.mended(RepairOptions{Replica: replica})
			sameRows(t, w.cold(), want)
		})
	}
}

// An old copy that someone put over a month file lacks days: they are found again.
func TestRepairOldCopy(t *testing.T) {
	w := newWorld(t)
	a := w.point("a")
	w.fill(a, daysOf("2024-01-20", "2024-01-30"))
	w.backfill("2024-01-20", "2024-01-25")
	old, err := os.ReadFile(w.file(fileA))
	w.must(err)
	w.backfill("2024-01-25", "2024-01-30")
	want := w.cold()
	w.must(os.WriteFile(w.file(fileA), old, 0o644))
	w.mended(RepairOptions{})
	sameRows(t, w.cold(), want)

	// The same, where the source has only a part of what is gone.
	w.must(os.WriteFile(w.file(fileA), old, 0o644))
	d := day("2024-01-27")
	w.exec("DELETE FROM timeseries WHERE timestamp >= ? AND timestamp < ?", d.Start(), d.Start()+10*3600_000)
	r := w.repair(RepairOptions{})
	if len(r.Lost) != 1 || len(r.Lost[0].Days) != 1 || r.Lost[0].Days[0] != (LostDay{d, 24, 14}) {
		t.Errorf("lost %+v, want 10 of 24 samples of %s", r.Lost, d)
	}
	w.whole()
}

// Whichever bit of a month file flips, repair brings the very bytes back that were
// archived, from D1 or from the rows that are there.
func TestRepairEachPart(t *testing.T) {
	w, _, _ := archived(t)
	good, err := os.ReadFile(w.file(fileA))
	w.must(err)
	step := 23
	if testing.Short() {
		step = 211
	}
	for i := 0; i < len(good); i += step {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		w.must(os.WriteFile(w.file(fileA), bad, 0o644))
		if r := w.repair(RepairOptions{Points: Points{Globs: []string{"a"}}, Days: daysOf("2024-01-01", "2024-01-02")}); r.ExitCode() != 0 {
			t.Fatalf("byte %d: %+v", i, r)
		}
		if now, err := os.ReadFile(w.file(fileA)); err != nil || !bytes.Equal(now, good) {
			t.Fatalf("byte %d of %d: the file is another one now, %v", i, len(good), err)
		}
	}
	w.whole()
	w.idle(RepairOptions{})
	t.Logf("%d of %d bytes tried", (len(good)+step-1)/step, len(good))
}

// Nothing that can be read is overwritten, and nothing at all without a copy.
func TestRepairKeepsWhatItCanNotUse(t *testing.T) {
	w, _, b := archived(t)
	good, err := os.ReadFile(w.file(fileA))
	w.must(err)
	w.spoil(fileA)
	bad, err := os.ReadFile(w.file(fileA))
	w.must(err)
	w.mended(RepairOptions{})
	kept := w.quarantined()
	if len(kept) != 1 {
		t.Fatalf("set aside: %v", kept)
	}
	if data, err := os.ReadFile(w.file(string(kept[0]))); err != nil || !bytes.Equal(data, bad) {
		t.Errorf("the copy that was set aside is another: %v", err)
	}

	// The file of another point lies there: a person has to look.
	w.must(os.WriteFile(w.file("timeseries/2024/01/b.parquet"), good, 0o644))
	p, err := PlanRepair(t.Context(), w.env(), RepairOptions{})
	w.must(err)
	if len(p.Blocked) != 1 || p.Blocked[0].PointID != b || p.ExitCode() != fault.ExitCorrupt {
		t.Errorf("blocked: %+v", p.Blocked)
	}
	r, err := p.Run(t.Context(), w.env())
	w.must(err)
	if data, err := os.ReadFile(w.file("timeseries/2024/01/b.parquet")); err != nil || !bytes.Equal(data, good) || r.ExitCode() != fault.ExitCorrupt {
		t.Errorf("another point's file was touched, or exit %d: %v", r.ExitCode(), err)
	}
	if got := w.mark(b, day("2024-01-25")); got != "" {
		t.Errorf("the mark over a file that is another's: %q", got)
	}
	w.must(os.Remove(w.file("timeseries/2024/01/b.parquet")))
	w.mended(RepairOptions{})
}

// A file that was written and not committed is adopted; a newer version of a known
// one is taken into the manifest.
func TestRepairAdopts(t *testing.T) {
	w, a, _ := archived(t)
	want := w.cold()
	old, err := os.ReadFile(w.file(manJ))
	w.must(err)
	c := w.point("c")
	w.fill(c, daysOf("2024-01-20", "2024-01-30"))
	w.put(a, "2024-01-25 10:30", 77)
	w.run(ArchiveOptions{Mode: Archive})
	w.must(os.WriteFile(w.file(manJ), old, 0o644)) // as if that commit had never come
	w.over = func(e *Env) { e.Source, e.Ledger, e.Journal = nil, nil, nil }
	p, err := PlanRepair(t.Context(), w.env(), RepairOptions{})
	w.must(err)
	var did []string
	for _, f := range p.Fixes {
		did = append(did, f.Action+" "+f.Path)
	}
	if s := strings.Join(did, ", "); s != "refresh "+fileA+", adopt timeseries/2024/01/c.parquet" {
		t.Errorf("planned: %s", s)
	}
	r := w.mended(RepairOptions{})
	if r.Entries != 2 || r.FilesWritten != 0 {
		t.Errorf("%+v", r)
	}
	maps.Copy(want, w.hot(daysOf("2024-01-20", "2024-02-03")))
	sameRows(t, w.cold(), want)
}

// Days that the manifest alone knew to be empty become unknown with it, but not
// those that a replica knows, too.
func TestRepairZeros(t *testing.T) {
	for _, with := range []bool{false, true} {
		w, a, _ := archived(t)
		w.backfill("2024-01-18", "2024-01-20") // empty: only the manifest says so
		if d := w.manifest("2024-01").Entry(a).Days[17]; d != 0 {
			t.Fatalf("day 18 counts %d", d)
		}
		o := RepairOptions{}
		if with {
			o.Replica = w.copyTier()
		}
		w.exec("DELETE FROM archive_marks WHERE day < ?", int64(day("2024-01-20")))
		w.spoil(manJ)
		w.must(os.WriteFile(w.file(manJ), []byte("{}"), 0o644))
		w.mended(o)
		if d := w.manifest("2024-01").Entry(a).Days[17]; d != map[bool]int32{false: -1, true: 0}[with] {
			t.Errorf("with a replica %t: the empty day counts %d", with, d)
		}
	}
}

// The reply to the write of a mended file is lost: what is stored then is whole, and
// neither set aside nor overwritten.
func TestRepairLosesAReply(t *testing.T) {
	w, _, _ := archived(t)
	want := w.cold()
	w.spoil(fileA)
	first := true
	w.store.Inject(func(op objecttest.Op) bool {
		hit := first && objecttest.On("put", fileA)(op)
		first = first && !hit
		return hit
	}, objecttest.LoseReply())
	w.mended(RepairOptions{})
	if got := w.quarantined(); len(got) != 1 || len(w.store.Fired()) != 1 {
		t.Errorf("set aside: %v; %v", got, w.store.Fired())
	}
	sameRows(t, w.cold(), want)
}

// A damaged record of rejects is set aside, and written again when its rows are
// rejected again, or taken from a replica.
func TestRepairRejects(t *testing.T) {
	w, a, _ := archived(t)
	w.exec("INSERT INTO timeseries (point_id, timestamp, value) VALUES (?, ?, x'00')", a, at("2024-01-26 00:45"))
	w.run(ArchiveOptions{Mode: Archive})
	replica := w.copyTier()
	var key string
	for k := range w.objects() {
		if strings.HasPrefix(string(k), "_rejects/") {
			key = string(k)
		}
	}
	good, err := os.ReadFile(w.file(key))
	w.must(err)
	// What can be read is no better, if it is not what was written.
	w.must(os.WriteFile(w.file(key), bytes.Replace(good, []byte(`"00"`), []byte(`"01"`), 1), 0o644))
	w.wantCodes(VerifyOptions{}, "finding reject 0")
	w.mended(RepairOptions{Replica: replica})
	w.wantCodes(VerifyOptions{})
	w.spoil(key)
	w.mended(RepairOptions{Replica: replica})
	if now, err := os.ReadFile(w.file(key)); err != nil || !bytes.Equal(now, good) {
		t.Errorf("from the replica: %q, %v", now, err)
	}
	w.spoil(key)
	if r := w.mended(RepairOptions{}); len(r.Warnings) != 1 {
		t.Errorf("%+v", r)
	}
	w.run(ArchiveOptions{Mode: Archive}) // a day with rejects is read each night
	if now, err := os.ReadFile(w.file(key)); err != nil || !bytes.Equal(now, good) {
		t.Errorf("after the next archive: %q, %v", now, err)
	}
	w.whole()
	w.idle(RepairOptions{})
}

func TestRepairRefuses(t *testing.T) {
	w, _, _ := archived(t)
	other, _, _ := archived(t)
	if _, err := PlanRepair(t.Context(), w.env(), RepairOptions{Replica: other.dir}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a replica of another source: %v", err)
	}
	env := w.env()
	env.Source = other.src
	if _, err := PlanRepair(t.Context(), env, RepairOptions{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("another source: %v", err)
	}
	data, err := os.ReadFile(w.file(manJ))
	w.must(err)
	w.must(os.WriteFile(w.file(manJ), bytes.Replace(data, []byte(`"version":1`), []byte(`"version":2`), 1), 0o644))
	before := w.objects()
	r := w.repair(RepairOptions{})
	if len(r.Failed) != 1 || r.ExitCode() != fault.ExitError || !maps.Equal(before, w.objects()) {
		t.Errorf("a manifest of a newer etl: %+v", r)
	}
}

// Only what was chosen is looked at.
func TestRepairChosen(t *testing.T) {
	w, _, b := archived(t)
	want := w.cold()
	w.spoil(fileA)
	w.spoil("timeseries/2024/01/b.parquet")
	w.spoil("timeseries/2024/02/a.parquet")
	r := w.repair(RepairOptions{Points: Points{Globs: []string{"a"}}, Days: daysOf("2024-01-05", "2024-01-06")})
	if r.FilesWritten != 1 || r.ExitCode() != 0 {
		t.Errorf("%+v", r)
	}
	if got := w.mark(b, day("2024-01-25")); got != "marked" {
		t.Errorf("mark of a point that was not chosen: %q", got)
	}
	w.mended(RepairOptions{})
	sameRows(t, w.cold(), want)
}

// Each call of the source fails once, in each way.
func TestRepairSourceFaults(t *testing.T) {
	w, _, _ := archived(t)
	want := w.cold()
	w.spoil(fileA)
	w.must(os.Remove(w.file("timeseries/2024/02/b.parquet")))
	w.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	base := t.TempDir()
	copyFile(t, w.db, filepath.Join(base, "d1.sqlite"))
	w.must(os.CopyFS(filepath.Join(base, "r2"), os.DirFS(w.root)))
	s := &scene{t: t, base: base, want: want}
	o := RepairOptions{Workers: 1, Engine: ArchiveOptions{WriteWorkers: 1, ExtractWorkers: 1}}
	n := 1 << 30
	for _, way := range []string{"transient", "transient, done", "invalid", "crash", "crash, done"} {
		for i := 1; i <= n; i++ {
			v := s.open(t)
			v.now = w.now
			ctx, cancel := context.WithCancel(t.Context())
			f := &flaky{Source: v.src, Ledger: v.src, failAt: i, kind: fault.Transient, late: strings.HasSuffix(way, "done")}
			if way == "invalid" {
				f.kind = fault.Invalid
			}
			if strings.HasPrefix(way, "crash") {
				f.cancel = cancel
			}
			env := v.env()
			env.Source, env.Ledger, env.Journal = f, f, f
			p, err := PlanRepair(ctx, env, o)
			if err == nil {
				var r RepairReport
				if r, err = p.Run(ctx, env); err == nil && f.fired != "" && r.ExitCode() == 0 && len(r.Warnings) == 0 {
					t.Errorf("%s at %d: a failed %s went unnoticed", way, i, f.fired)
				}
			}
			cancel()
			if f.fired == "" {
				n = i - 1
				if err != nil {
					t.Fatal(err)
				}
			}
			if r := v.repair(o); r.ExitCode() != 0 {
				t.Errorf("%s at %d, %s: the repair after it: %+v", way, i, f.fired, r)
			}
			v.whole()
			sameRows(t, v.cold(), want)
			if t.Failed() {
				t.Fatalf("%s at %d: %s", way, i, f.fired)
			}
		}
	}
	reliability(t, "faults of repair, source", int64(5*n), "faults, 5 ways at %d calls", n)
}

// Jobs that archive, repair and replicate at once end with what the source holds.
func TestRepairBesideOthers(t *testing.T) {
	w, a, b := archived(t)
	replica := w.copyTier()
	_, dest := w.replicaOf()
	for round := range 4 {
		w.put(a, "2024-01-25 10:30", float64(round))
		w.put(b, "2024-02-01 10:30", float64(round))
		w.spoil(fileA)
		if round%2 == 1 {
			w.must(os.Remove(w.file("timeseries/2024/02/b.parquet")))
		}
		var wg sync.WaitGroup
		env := w.env()
		env.Notify = nil
		for range 2 {
			wg.Go(func() {
				if p, err := PlanArchive(t.Context(), env, ArchiveOptions{Mode: Archive}); err == nil {
					_, _ = p.Run(t.Context(), env)
				}
			})
			wg.Go(func() {
				if p, err := PlanRepair(t.Context(), env, RepairOptions{Replica: replica}); err == nil {
					_, _ = p.Run(t.Context(), env)
				}
			})
			wg.Go(func() {
				if p, err := PlanReplicate(t.Context(), env, dest.dir, ReplicateOptions{}); err == nil {
					_, _ = p.Run(t.Context(), env)
				}
			})
		}
		wg.Wait()
		readCold(t, dest.dir)
	}
	if r := w.repair(RepairOptions{Replica: replica}); r.ExitCode() != 0 {
		t.Errorf("%+v", r)
	}
	w.run(ArchiveOptions{Mode: Archive})
	sameRows(t, w.cold(), w.hot(daysOf("2024-01-20", "2024-02-03")))
	w.whole()
	w.replicated(dest.dir, ReplicateOptions{})
	dest.whole()
	sameRows(t, dest.cold(), w.cold())
}
