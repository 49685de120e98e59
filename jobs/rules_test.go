package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/object/objecttest"
	"etl/internal/sample"
	"etl/internal/utc"
	"etl/manifests"
)

const january = object.Key("timeseries/2024/01/a.parquet")

// Rule 1: a stale extraction must never win. Another runner stores a correction
// after this one has extracted and before it writes; this one meets the newer
// version when it reads its base.
func TestStaleExtractionLosesAtMerge(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-01-05", "2024-01-07"))
	w.backfill("2024-01-05", "2024-01-07")

	w.put(p, "2024-01-05 03:00", 1) // this run extracts it
	fired := false
	w.store.Inject(objecttest.First(1, objecttest.On("get", january)), objecttest.Before(func() {
		fired = true
		w.put(p, "2024-01-05 03:00", 2) // the correction
		other := w.env()
		other.Store, other.Notify = w.dir, nil
		r, err := w.try(other, ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-05", "2024-01-06")})
		if err != nil || len(r.Failed) > 0 || r.FilesWritten != 1 {
			t.Errorf("the other runner: %v, %+v", err, r)
		}
	}))
	w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-05", "2024-01-06")})
	if !fired {
		t.Fatal("the race did not happen")
	}
	sameRows(t, w.cold(), w.hot(daysOf("2024-01-01", "2024-02-01")))
	w.whole()
}

// The same, met when the conditional write is refused.
func TestStaleExtractionLosesAtPut(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-01-05", "2024-01-07"))
	w.backfill("2024-01-05", "2024-01-07")

	w.put(p, "2024-01-05 03:00", 1)
	w.store.Inject(objecttest.First(1, objecttest.On("put", january)), objecttest.Before(func() {
		w.put(p, "2024-01-05 03:00", 2)
		other := w.env()
		other.Store, other.Notify = w.dir, nil
		if r, err := w.try(other, ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-05", "2024-01-06")}); err != nil || r.FilesWritten != 1 {
			t.Errorf("the other runner: %v, %+v", err, r)
		}
	}))
	r := w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-05", "2024-01-06")})
	if len(w.store.Fired()) == 0 {
		t.Fatal("the race did not happen")
	}
	if r.FilesWritten != 0 {
		t.Errorf("the overtaken run wrote %d files, want 0: the other one had everything", r.FilesWritten)
	}
	sameRows(t, w.cold(), w.hot(daysOf("2024-01-01", "2024-02-01")))
	w.whole()
}

// Rule 1, first file of a month: two runners create it at once, with different days.
func TestTwoRunnersCreateOneFile(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-01-05", "2024-01-07"))
	w.store.Inject(objecttest.First(1, objecttest.On("put", january)), objecttest.Before(func() {
		other := w.env()
		other.Store, other.Notify = w.dir, nil
		if r, err := w.try(other, ArchiveOptions{Mode: Backfill, Days: daysOf("2024-01-06", "2024-01-07")}); err != nil || r.FilesWritten != 1 {
			t.Errorf("the other runner: %v, %+v", err, r)
		}
	}))
	w.backfill("2024-01-05", "2024-01-06")
	if len(w.store.Fired()) == 0 {
		t.Fatal("the race did not happen")
	}
	sameRows(t, w.cold(), w.hot(daysOf("2024-01-05", "2024-01-07")))
	w.whole()
	if got := w.manifest("2024-01").Entry(p).Days; got[4] != 24 || got[5] != 24 {
		t.Errorf("days %v, want 24 on the 5th and the 6th", got)
	}
}

// Rule 1: attempts are capped; a file that always changes ends as transient.
func TestWriterGivesUp(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-01-05", "2024-01-06"))
	w.store.Inject(objecttest.On("put", january), objecttest.Fail(fault.Conflict))
	r, err := w.try(w.env(), ArchiveOptions{Mode: Backfill, Days: daysOf("2024-01-05", "2024-01-06")})
	w.must(err)
	wantFailure(t, r, fault.Transient)
	if r.ExitCode(false) != fault.ExitTransient {
		t.Errorf("exit code %d, want %d", r.ExitCode(false), fault.ExitTransient)
	}
	if n := len(w.store.Fired()); n != writeAttempts {
		t.Errorf("%d attempts, want %d", n, writeAttempts)
	}
	if got := w.mark(p, day("2024-01-05")); got != "claimed" {
		t.Errorf("the slice is %q, want it claimed and not marked", got)
	}
}

// Rule 2: what the source has dropped stays archived.
func TestUnionKeepsWhatTheSourceDropped(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	all := daysOf("2024-01-05", "2024-01-07")
	w.fill(p, all)
	want := w.hot(all)
	w.backfill("2024-01-05", "2024-01-07")
	w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp < ?", p, at("2024-01-05 20:00"))
	r := w.run(ArchiveOptions{Mode: Rearchive, Days: all})
	if r.FilesWritten != 0 || r.SamplesRemoved != 0 {
		t.Errorf("%d files written, %d removed; want none", r.FilesWritten, r.SamplesRemoved)
	}
	w.put(p, "2024-01-05 00:30", 7) // and a late row merges into what is left
	want[key{p, at("2024-01-05 00:30")}] = row{value: 0x401c000000000000, quality: 192}
	w.run(ArchiveOptions{Mode: Archive, Days: all})
	sameRows(t, w.cold(), want)
	w.whole()
}

// Rule 2: --replace makes the source authoritative on young, whole days.
func TestReplace(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	all := daysOf("2024-02-01", "2024-02-04")
	w.fill(p, all)
	w.backfill("2024-02-01", "2024-02-04")
	w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ?", p, at("2024-02-02 00:00"), at("2024-02-02 10:00"))
	w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp >= ?", p, at("2024-02-03 00:00")) // not in the range
	r := w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-02-01", "2024-02-03"), Replace: true})
	if r.SamplesRemoved != 10 {
		t.Errorf("%d removed, want 10", r.SamplesRemoved)
	}
	e := w.manifest("2024-02").Entry(p)
	if e.Days[0] != 24 || e.Days[1] != 14 || e.Days[2] != 24 {
		t.Errorf("days %v, want 24, 14, 24", e.Days[:3])
	}
	w.whole()

	// A whole day gone: an emptied day is 0, and an emptied file one of zero rows.
	w.exec("DELETE FROM timeseries")
	w.run(ArchiveOptions{Mode: Rearchive, Days: all, Replace: true})
	e = w.manifest("2024-02").Entry(p)
	if e.Days[0] != 0 || e.Days[2] != 0 || e.Samples != 0 || e.Path == "" || e.First != nil {
		t.Errorf("entry %+v, want a file of zero rows and three days of 0", e)
	}
	w.whole()
}

// Rule 2: --replace is refused where the source may have trimmed: by age, or by record.
func TestReplaceIsRefused(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-01-05", "2024-01-07"))
	w.fill(p, daysOf("2024-02-01", "2024-02-03"))
	w.backfill("2024-01-05", "2024-02-03")

	old := ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-05", "2024-01-06"), Replace: true}
	_, err := w.try(w.env(), old)
	if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "30 days") {
		t.Fatalf("an old day: %v, want a refusal that names the limit", err)
	}
	// Recorded as pruned, though young.
	w.exec("DELETE FROM timeseries WHERE timestamp >= ? AND timestamp < ?", at("2024-02-01 00:00"), at("2024-02-02 00:00"))
	w.exec("INSERT INTO archive_trims (point_id, day) VALUES (?, ?)", p, int64(day("2024-02-01")))
	young := ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-02-01", "2024-02-03"), Replace: true}
	if _, err = w.try(w.env(), young); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "pruned") {
		t.Fatalf("a pruned day: %v, want a refusal", err)
	}
	// Without the ledger nobody can tell.
	env := w.env()
	env.Ledger, env.Journal = nil, nil
	if _, err = w.try(env, ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-02-02", "2024-02-03"), Replace: true}); !fault.Is(err, fault.Usage) {
		t.Fatalf("without the ledger: %v, want a refusal", err)
	}
	if e := w.manifest("2024-02").Entry(p); e.Days[0] != 24 {
		t.Fatalf("a refused replace changed the archive: %v", e.Days)
	}
	// Allowed, it says how many rows would go, and does it.
	young.AllowLoss = true
	plan, err := PlanArchive(t.Context(), w.env(), young)
	w.must(err)
	if plan.AtRisk != 24 {
		t.Errorf("at risk: %d samples, want 24", plan.AtRisk)
	}
	r, err := plan.Run(t.Context(), w.env())
	w.must(err)
	if r.SamplesRemoved != 24 {
		t.Errorf("%d removed, want 24", r.SamplesRemoved)
	}
	w.whole()
}

// Rule 2: a day that is trimmed between the plan and the claim is not replaced.
func TestReplaceAgainstADayTrimmedMeanwhile(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-02-01", "2024-02-03"))
	w.backfill("2024-02-01", "2024-02-03")
	want := w.cold()
	plan, err := PlanArchive(t.Context(), w.env(), ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-02-01", "2024-02-03"), Replace: true})
	w.must(err)
	w.exec("DELETE FROM timeseries WHERE timestamp < ?", at("2024-02-02 00:00"))
	w.exec("INSERT INTO archive_trims (point_id, day) VALUES (?, ?)", p, int64(day("2024-02-01")))
	r, err := plan.Run(t.Context(), w.env())
	w.must(err)
	if r.SamplesRemoved != 0 || len(r.Warnings) == 0 {
		t.Errorf("%d removed, warnings %q; want none removed and a warning", r.SamplesRemoved, r.Warnings)
	}
	sameRows(t, w.cold(), want)
}

// Rule 3: the same rows are not written again, whatever wrote them first.
func TestUnchangedIsNotWritten(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-01-05", "2024-01-07"))
	w.run(ArchiveOptions{Mode: Backfill, Days: daysOf("2024-01-05", "2024-01-07"), Codec: monthfile.Snappy})
	before := w.objects()
	r := w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-05", "2024-01-07")}) // zstd now
	if r.FilesUnchanged != 1 || r.FilesWritten != 0 {
		t.Errorf("%d written, %d unchanged; want 0 and 1", r.FilesWritten, r.FilesUnchanged)
	}
	if after := w.objects(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the store changed:\n%v\n%v", before, after)
	}
}

// A run that changes nothing writes nothing at all.
func TestIdleRunsPutNothing(t *testing.T) {
	w := newWorld(t)
	w.fill(w.point("a"), daysOf("2024-02-01", "2024-02-09"))
	w.point("never reports")
	w.run(ArchiveOptions{Mode: Archive})
	w.store.Reset()
	w.run(ArchiveOptions{Mode: Archive})
	w.run(ArchiveOptions{Mode: Backfill, Days: daysOf("2024-01-10", "2024-02-09")})
	w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-10", "2024-02-09")})
	for _, op := range w.store.Trace() {
		if strings.HasPrefix(op, "put") {
			t.Errorf("an idle run did: %s", op)
		}
	}
	if w.store.Count() == 0 {
		t.Error("nothing was looked at")
	}
}

// Rule 3: a lost reply is settled by reading back.
func TestLostReplyOfAMonthFile(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-01-05", "2024-01-06"))
	w.store.Inject(objecttest.First(1, objecttest.On("put", january)), objecttest.LoseReply())
	r := w.backfill("2024-01-05", "2024-01-06")
	if len(w.store.Fired()) != 1 || r.FilesWritten != 1 {
		t.Fatalf("fired %v, written %d", w.store.Fired(), r.FilesWritten)
	}
	puts := 0
	for _, op := range w.store.Trace() {
		if strings.HasPrefix(op, "put "+string(january)) {
			puts++
		}
	}
	if puts != 1 {
		t.Errorf("%d puts of the file, want 1: the first one did happen", puts)
	}
	sameRows(t, w.cold(), w.hot(daysOf("2024-01-05", "2024-01-06")))
	if got := w.mark(p, day("2024-01-05")); got != "marked" {
		t.Errorf("the slice is %q, want marked", got)
	}
}

// Rule 4: rejects before month files, month files before the manifest, the
// manifest before the ledger's confirmation.
func TestOrderOfWrites(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-01-05", "2024-01-06"))
	w.exec("INSERT INTO timeseries (point_id, timestamp, value) VALUES (?, ?, 'broken')", p, at("2024-01-05 00:30"))
	q := w.point("b")
	w.fill(q, daysOf("2024-01-05", "2024-01-06"))
	manifestAt, marked := -1, ""
	w.store.Inject(objecttest.On("put", manifests.KeyOf(day("2024-01-05").Month())), objecttest.After(func() {
		manifestAt = w.store.Count()
		marked = w.mark(q, day("2024-01-05"))
	}))
	r := w.backfill("2024-01-05", "2024-01-06")
	var kinds []string
	for _, op := range w.store.Trace() {
		if rest, ok := strings.CutPrefix(op, "put "); ok {
			kinds = append(kinds, strings.SplitN(rest, "/", 2)[0])
		}
	}
	if got := strings.Join(kinds, " "); got != "_manifests _rejects timeseries timeseries _manifests" && got != "_manifests timeseries _rejects timeseries _manifests" {
		t.Errorf("puts: %s", got)
	}
	if manifestAt < 0 || marked != "claimed" {
		t.Errorf("when the manifest was written the slice was %q, want claimed", marked)
	}
	if got := w.mark(q, day("2024-01-05")); got != "marked" {
		t.Errorf("after the run the slice is %q, want marked", got)
	}
	// A day with rejects is archived, but never marked: nothing may trim it.
	if got := w.mark(p, day("2024-01-05")); got != "claimed" || r.SamplesRejected != 1 {
		t.Errorf("the day with a reject is %q, %d rejected; want it unmarked and 1", got, r.SamplesRejected)
	}
	if n := w.manifest("2024-01").Entry(p).Days[4]; n != 24 {
		t.Errorf("the day with a reject counts %d, want its 24 samples", n)
	}
}

// Rule 4: a manifest conflict must not regress another's entry.
func TestManifestConflict(t *testing.T) {
	w := newWorld(t)
	a, b := w.point("a"), w.point("b")
	w.fill(a, daysOf("2024-01-05", "2024-01-08"))
	w.fill(b, daysOf("2024-01-05", "2024-01-08"))
	key := manifests.KeyOf(day("2024-01-05").Month())
	w.store.Inject(objecttest.First(1, objecttest.On("put", key)), objecttest.Before(func() {
		other := w.env()
		other.Store, other.Notify = w.dir, nil
		// The other run adds a day to both files, over this run's versions.
		if r, err := w.try(other, ArchiveOptions{Mode: Backfill, Days: daysOf("2024-01-06", "2024-01-08")}); err != nil || len(r.Failed) > 0 || r.FilesWritten != 2 {
			t.Errorf("the other runner: %v, %+v", err, r)
		}
	}))
	w.backfill("2024-01-05", "2024-01-06")
	if len(w.store.Fired()) == 0 {
		t.Fatal("the race did not happen")
	}
	for _, id := range []int32{a, b} {
		if d := w.manifest("2024-01").Entry(id).Days; d[4] != 24 || d[5] != 24 || d[6] != 24 {
			t.Errorf("point %d: days %v, want 24 on three", id, d)
		}
	}
	sameRows(t, w.cold(), w.hot(daysOf("2024-01-05", "2024-01-08")))
	w.whole()
}

// Rule 5: a month without a manifest adopts the files that are there.
func TestMissingManifestBesideFiles(t *testing.T) {
	w := newWorld(t)
	a, b := w.point("a"), w.point("b")
	w.fill(a, daysOf("2024-01-05", "2024-01-07"))
	w.fill(b, daysOf("2024-01-05", "2024-01-07"))
	w.backfill("2024-01-05", "2024-01-07")
	want := w.hot(daysOf("2024-01-05", "2024-01-07"))
	w.must(os.Remove(filepath.Join(w.root, "_manifests", "2024-01.json")))
	w.exec("DELETE FROM timeseries") // the files are the only copy

	// Another point of the month is archived: the files of a and b are not forgotten.
	c := w.point("c")
	w.fill(c, daysOf("2024-01-20", "2024-01-21"))
	for k, v := range w.hot(daysOf("2024-01-20", "2024-01-21")) {
		want[k] = v
	}
	w.run(ArchiveOptions{Mode: Backfill, Days: daysOf("2024-01-20", "2024-01-21"), Points: Points{Globs: []string{"c"}}})
	sameRows(t, w.cold(), want)
	w.whole()
}

// Rule 5: a corrupt manifest stops its month, names the repair, and the other months go on.
func TestCorruptManifestStopsItsMonth(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-01-30", "2024-02-03"))
	w.backfill("2024-01-30", "2024-01-31")
	path := filepath.Join(w.root, "_manifests", "2024-01.json")
	good, err := os.ReadFile(path)
	w.must(err)
	w.must(os.WriteFile(path, good[:len(good)/2], 0o644))
	r, err := w.try(w.env(), ArchiveOptions{Mode: Backfill, Days: daysOf("2024-01-30", "2024-02-03")})
	w.must(err)
	f := wantFailure(t, r, fault.Corrupt)
	if r.ExitCode(false) != fault.ExitCorrupt || !strings.Contains(f.Hint, "etl repair") || f.Month != "2024-01" {
		t.Errorf("exit %d, failure %+v", r.ExitCode(false), f)
	}
	if e := w.manifest("2024-02").Entry(p); e == nil || e.Days[0] != 24 {
		t.Errorf("February did not go on: %+v", e)
	}
	if now, _ := os.ReadFile(path); string(now) != string(good[:len(good)/2]) {
		t.Error("the corrupt manifest was written over")
	}
	// The repair that the hint names works.
	w.must(os.Rename(path, path+".damaged"))
	w.backfill("2024-01-30", "2024-02-03")
	sameRows(t, w.cold(), w.hot(daysOf("2024-01-30", "2024-02-03")))
	w.whole()
}

// An unknown version of a manifest or a month file is refused, not guessed at.
func TestUnknownVersionsAreRefused(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-01-05", "2024-01-07"))
	w.backfill("2024-01-05", "2024-01-06")
	path := filepath.Join(w.root, "_manifests", "2024-01.json")
	data, err := os.ReadFile(path)
	w.must(err)
	w.must(os.WriteFile(path, []byte(strings.Replace(string(data), `"version":1`, `"version":2`, 1)), 0o644))
	if _, err := w.try(w.env(), ArchiveOptions{Mode: Backfill, Days: daysOf("2024-01-05", "2024-01-07")}); !fault.Is(err, fault.Invalid) {
		t.Fatalf("version 2: %v, want it refused", err)
	}
}

// A foreign object at the wanted path is left alone and another name is used;
// so is the file of another point.
func TestForeignFileAtThePath(t *testing.T) {
	for name, content := range map[string]func(w *world) []byte{
		"not Parquet": func(*world) []byte { return []byte("a note of the operator\n") },
		"another point's": func(w *world) []byte {
			m := day("2024-01-05").Month()
			var s sample.Series
			s.Append(at("2024-01-09 00:00"), 5, 192, 0)
			days := sample.NewDayCounts(m)
			days[8] = 1
			data, _, err := monthfile.NewEncoder(monthfile.Options{}).Encode(nil, monthfile.Meta{PointID: 77, PointName: "x", Month: m, Days: days}, &s)
			w.must(err)
			return data
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.point("a")
			w.fill(p, daysOf("2024-01-05", "2024-01-06"))
			// The month has a manifest already, so nothing is adopted.
			w.fill(w.point("b"), daysOf("2024-01-05", "2024-01-06"))
			w.run(ArchiveOptions{Mode: Backfill, Days: daysOf("2024-01-05", "2024-01-06"), Points: Points{Globs: []string{"b"}}})
			foreign := content(w)
			_, err := w.dir.Put(t.Context(), january, foreign, object.PutOptions{})
			w.must(err)
			r := w.backfill("2024-01-05", "2024-01-06")
			if e := w.manifest("2024-01").Entry(p); e == nil || e.Path != "timeseries/2024/01/a-p1.parquet" {
				t.Errorf("entry %+v, want its file at a-p1.parquet", e)
			}
			if now, _, err := w.dir.Get(t.Context(), january); err != nil || string(now) != string(foreign) {
				t.Errorf("the foreign object changed: %v", err)
			}
			if len(r.Warnings) == 0 {
				t.Error("nobody was told")
			}
			sameRows(t, w.cold(), w.hot(daysOf("2024-01-05", "2024-01-06")))
		})
	}
}

// A truncated month file stops its point with exit 4; the others go on, and it
// is never written over.
func TestDamagedFileStopsItsPoint(t *testing.T) {
	w := newWorld(t)
	a, b := w.point("a"), w.point("b")
	w.fill(a, daysOf("2024-01-05", "2024-01-07"))
	w.fill(b, daysOf("2024-01-05", "2024-01-07"))
	w.backfill("2024-01-05", "2024-01-06")
	path := filepath.Join(w.root, string(january))
	good, err := os.ReadFile(path)
	w.must(err)
	for name, damaged := range map[string][]byte{"truncated": good[:len(good)-9], "a byte flipped": flip(good, len(good)/3), "absent": nil} {
		t.Run(name, func(t *testing.T) {
			w.must(os.RemoveAll(path))
			if damaged != nil {
				w.must(os.WriteFile(path, damaged, 0o644))
			}
			w.put(b, "2024-01-06 05:30", 1)
			r, err := w.try(w.env(), ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-06", "2024-01-07")})
			w.must(err)
			f := wantFailure(t, r, fault.Corrupt)
			if r.ExitCode(false) != fault.ExitCorrupt || f.Hint == "" || f.PointID != a {
				t.Errorf("exit %d, failure %+v", r.ExitCode(false), f)
			}
			if e := w.manifest("2024-01").Entry(b); e.Days[5] != 25 {
				t.Errorf("point b did not go on: %v", e.Days)
			}
			if now, err := os.ReadFile(path); damaged != nil && (err != nil || string(now) != string(damaged)) {
				t.Error("the damaged file was changed")
			}
			if got := w.mark(a, day("2024-01-06")); got == "marked" {
				t.Error("the failed slice was marked")
			}
			v, err := Verify(t.Context(), Env{Store: w.dir, Now: w.env().Now}, VerifyOptions{Deep: true})
			w.must(err)
			if v.ExitCode() != fault.ExitCorrupt {
				t.Errorf("verify --deep: exit %d, findings %+v", v.ExitCode(), v.Findings)
			}
			w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp = ?", b, at("2024-01-06 05:30"))
			w.run(ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-01-06", "2024-01-07"), Points: Points{Globs: []string{"b"}}, Replace: true, AllowLoss: true})
		})
	}
}

func flip(b []byte, i int) []byte {
	c := append([]byte(nil), b...)
	c[i] ^= 0x40
	return c
}

// Reading: a whole newer object than the manifest names is pending: merged
// into, adopted by the next run; readers may use it.
func TestPendingFileOfACrashedRun(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-01-05", "2024-01-07"))
	w.backfill("2024-01-05", "2024-01-06")
	// The crash: the month file is stored, the manifest is not.
	ctx, cancel := context.WithCancel(t.Context())
	w.store.Inject(objecttest.First(1, objecttest.On("put", january)), objecttest.After(cancel))
	plan, err := PlanArchive(t.Context(), w.env(), ArchiveOptions{Mode: Backfill, Days: daysOf("2024-01-06", "2024-01-07")})
	w.must(err)
	r, _ := plan.Run(ctx, w.env())
	if !r.Interrupted || r.ExitCode(false) != fault.ExitInterrupted {
		t.Fatalf("report %+v, want it interrupted", r)
	}
	if e := w.manifest("2024-01").Entry(p); e.Days[5] != sample.NotArchived {
		t.Fatalf("the manifest was committed: %v", e.Days)
	}
	v, err := Verify(t.Context(), Env{Store: w.dir, Now: time.Now}, VerifyOptions{})
	w.must(err)
	if len(v.Findings) != 1 || v.Findings[0].Code != "pending" || v.Findings[0].Severity != Info || v.ExitCode() != 0 {
		t.Errorf("verify while it is young: %+v", v.Findings)
	}
	v, err = Verify(t.Context(), Env{Store: w.dir, Now: func() time.Time { return time.Now().Add(2 * pendingFor) }}, VerifyOptions{})
	w.must(err)
	if len(v.Findings) != 1 || v.Findings[0].Severity != Notice || v.ExitCode() != fault.ExitFindings {
		t.Errorf("verify when it is old: %+v", v.Findings)
	}
	w.store.Reset()
	r = w.backfill("2024-01-06", "2024-01-07")
	if r.FilesWritten != 0 || r.FilesUnchanged != 1 {
		t.Errorf("%d written, %d unchanged; want the pending file taken as it is", r.FilesWritten, r.FilesUnchanged)
	}
	sameRows(t, w.cold(), w.hot(daysOf("2024-01-05", "2024-01-07")))
	w.whole()
	if got := w.mark(p, day("2024-01-06")); got != "marked" {
		t.Errorf("the slice is %q, want marked", got)
	}
}

// Rule 7: an unfinished day is not archived; asking for it is a usage error.
func TestUnfinishedDay(t *testing.T) {
	w := newWorld(t) // now is 2024-02-10 02:00
	p := w.point("a")
	w.fill(p, daysOf("2024-02-08", "2024-02-11"))
	for _, mode := range []Mode{Archive, Backfill, Rearchive} {
		_, err := w.try(w.env(), ArchiveOptions{Mode: mode, Days: daysOf("2024-02-08", "2024-02-11")})
		if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "2024-02-09") {
			t.Errorf("%s of an unfinished day: %v, want a refusal that names the last complete day", mode, err)
		}
	}
	w.run(ArchiveOptions{Mode: Archive})
	if d := w.manifest("2024-02").Entry(p).Days; d[7] != 24 || d[8] != 24 || d[9] != sample.NotArchived {
		t.Errorf("days %v, want the 8th and 9th archived and the 10th not", d)
	}
	// Neither clock alone makes a day look complete.
	env := w.env()
	env.Now = func() time.Time { return w.now.AddDate(0, 0, 5) }
	if _, err := w.try(env, ArchiveOptions{Mode: Backfill, Days: daysOf("2024-02-10", "2024-02-11")}); !fault.Is(err, fault.Usage) {
		t.Errorf("a runner whose clock is ahead: %v, want a refusal", err)
	}
	env.Now = func() time.Time { return w.now.AddDate(0, 0, -5) }
	if _, err := w.try(env, ArchiveOptions{Mode: Backfill, Days: daysOf("2024-02-08", "2024-02-09")}); !fault.Is(err, fault.Usage) {
		t.Errorf("a runner whose clock is behind: %v, want a refusal", err)
	}
	// Grace: an hour after midnight, not before.
	w.now = day("2024-02-11").Time().Add(Grace - 1)
	if _, err := w.try(w.env(), ArchiveOptions{Mode: Backfill, Days: daysOf("2024-02-10", "2024-02-11")}); !fault.Is(err, fault.Usage) {
		t.Errorf("just before the grace ends: %v, want a refusal", err)
	}
	w.now = day("2024-02-11").Time().Add(Grace)
	w.backfill("2024-02-10", "2024-02-11")
}

// Rule 7: ids that only timeseries knows are archived as point-<id>.
func TestOrphanPoint(t *testing.T) {
	w := newWorld(t)
	w.fill(42, daysOf("2024-02-05", "2024-02-06"))
	w.run(ArchiveOptions{Mode: Archive})
	e := w.manifest("2024-02").Entry(42)
	if e == nil || e.Name != "point-42" || e.Path != "timeseries/2024/02/point-42.parquet" || e.Days[4] != 24 {
		t.Errorf("entry %+v", e)
	}
}

// Rule 7: rows that no day would ever see are recorded once, and only once.
func TestStrayRows(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-02-05", "2024-02-06"))
	for _, ts := range []int64{-5, 1_707_091_200, at("2024-02-05 00:00") * 1000} { // negative, seconds, microseconds
		w.exec("INSERT INTO timeseries (point_id, timestamp, value) VALUES (?, ?, 1)", p, ts)
	}
	r := w.run(ArchiveOptions{Mode: Archive})
	if r.SamplesRejected != 3 || r.ExitCode(false) != 0 || r.ExitCode(true) != fault.ExitFindings {
		t.Errorf("%d rejected, exit %d, strict %d; want 3, 0 and 3", r.SamplesRejected, r.ExitCode(false), r.ExitCode(true))
	}
	w.run(ArchiveOptions{Mode: Archive})
	l, err := ListRejects(t.Context(), w.env(), utc.Days{})
	w.must(err)
	if len(l.Rows) != 3 {
		t.Fatalf("%d rejects listed, want 3: %+v", len(l.Rows), l.Rows)
	}
	var remedies []string
	for _, r := range l.Rows {
		remedies = append(remedies, r.Remedy)
	}
	if all := strings.Join(remedies, "\n"); !strings.Contains(all, "SET timestamp = 1707091200000 WHERE point_id = 1 AND timestamp = 1707091200;") {
		t.Errorf("no remedy for seconds stored as milliseconds:\n%s", all)
	}
}

// Rule 7: another source is refused without --adopt.
func TestAnotherSource(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	w.fill(w.point("a"), daysOf("2024-02-05", "2024-02-06"))
	w.run(ArchiveOptions{Mode: Archive})
	env := other.env()
	env.Store = w.store
	other.fill(other.point("z"), daysOf("2024-02-05", "2024-02-06"))
	_, err := other.try(env, ArchiveOptions{Mode: Archive})
	if !fault.Is(err, fault.Invalid) || !strings.Contains(fault.HintOf(err), "--adopt") {
		t.Fatalf("another source: %v, want it refused with a hint", err)
	}
	if _, err := other.try(env, ArchiveOptions{Mode: Archive, Adopt: true}); err != nil {
		t.Fatalf("adopted: %v", err)
	}
}

// Rule 8: a slice larger than the whole budget is admitted alone.
func TestSliceLargerThanTheBudget(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		p := w.point(fmt.Sprint("p", i))
		w.exec("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 86399) INSERT INTO timeseries (point_id, timestamp, value) SELECT ?, ? + i * 1000, i FROM n", p, at("2024-02-05 00:00"))
	}
	r := w.run(ArchiveOptions{Mode: Archive, Memory: 1 << 20}) // 86,400 rows take 1.6 MB
	if r.SamplesRead != 3*86400 {
		t.Errorf("%d samples read", r.SamplesRead)
	}
	sameRows(t, w.cold(), w.hot(daysOf("2024-02-05", "2024-02-06")))
}

// Late rows are found by the ledger, and only their days are read.
func TestLateRowsAndOnlyThose(t *testing.T) {
	w := newWorld(t)
	a, b := w.point("a"), w.point("b")
	w.fill(a, daysOf("2024-02-01", "2024-02-10"))
	w.fill(b, daysOf("2024-02-01", "2024-02-10"))
	w.run(ArchiveOptions{Mode: Archive})
	w.put(a, "2024-02-03 00:30", 1)
	w.put(b, "2024-02-07 05:00", 2) // a correction
	plan, err := PlanArchive(t.Context(), w.env(), ArchiveOptions{Mode: Archive})
	w.must(err)
	if plan.PointDays != 2 || plan.Late != 2 {
		t.Errorf("the plan has %d point-days, %d late; want 2 and 2", plan.PointDays, plan.Late)
	}
	r, err := plan.Run(t.Context(), w.env())
	w.must(err)
	if r.SamplesRead != 25+24 || r.SamplesAdded != 1 || r.SamplesReplaced != 1 || r.FilesWritten != 2 {
		t.Errorf("report %+v", r)
	}
	sameRows(t, w.cold(), w.hot(daysOf("2024-02-01", "2024-02-10")))
	w.whole()
}

// Without the ledger everything but late rows works.
func TestWithoutLedger(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-02-01", "2024-02-09"))
	env := w.env()
	env.Ledger, env.Journal = nil, nil
	r, err := w.try(env, ArchiveOptions{Mode: Archive})
	w.must(err)
	if r.SamplesRead == 0 || w.mark(p, day("2024-02-05")) != "" {
		t.Errorf("%d read, mark %q; want rows and no mark", r.SamplesRead, w.mark(p, day("2024-02-05")))
	}
	w.put(p, "2024-02-03 00:30", 1)
	if r, err = w.try(env, ArchiveOptions{Mode: Archive}); err != nil || r.SamplesRead != 0 {
		t.Errorf("a late row without the ledger: %v, %d read; want nothing seen", err, r.SamplesRead)
	}
	if r, err = w.try(env, ArchiveOptions{Mode: Rearchive, Days: daysOf("2024-02-03", "2024-02-04")}); err != nil || r.SamplesAdded != 1 {
		t.Errorf("reading again: %v, %+v", err, r)
	}
	sameRows(t, w.cold(), w.hot(daysOf("2024-02-01", "2024-02-09")))
}

// A row that arrives between extraction and confirmation leaves its day unmarked.
func TestRowBetweenExtractionAndConfirmation(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-02-05", "2024-02-07"))
	w.store.Inject(objecttest.First(1, objecttest.On("put", "timeseries/2024/02/a.parquet")), objecttest.After(func() { w.put(p, "2024-02-05 00:30", 9) }))
	w.run(ArchiveOptions{Mode: Archive})
	if five, six := w.mark(p, day("2024-02-05")), w.mark(p, day("2024-02-06")); five != "" || six != "marked" {
		t.Errorf("the 5th is %q, the 6th %q; want unmarked and marked", five, six)
	}
	w.run(ArchiveOptions{Mode: Archive})
	sameRows(t, w.cold(), w.hot(daysOf("2024-02-05", "2024-02-07")))
	if got := w.mark(p, day("2024-02-05")); got != "marked" {
		t.Errorf("the 5th is %q, want marked", got)
	}
}

// A renamed point keeps its file in a month that has one; the next month has the new name.
func TestRenamedPoint(t *testing.T) {
	w := newWorld(t)
	p := w.point("old")
	w.fill(p, daysOf("2024-01-30", "2024-02-03"))
	w.backfill("2024-01-30", "2024-01-31")
	w.exec("UPDATE points SET name = 'new' WHERE id = ?", p)
	w.backfill("2024-01-30", "2024-02-03")
	if e := w.manifest("2024-01").Entry(p); e.Path != "timeseries/2024/01/old.parquet" || e.Name != "new" {
		t.Errorf("January: %+v", e)
	}
	if e := w.manifest("2024-02").Entry(p); e.Path != "timeseries/2024/02/new.parquet" {
		t.Errorf("February: %+v", e)
	}
	w.whole()
}

// Names that no file system likes.
func TestNames(t *testing.T) {
	w := newWorld(t)
	names := []string{"", "a/b", "a.b", "A-B", `quo"te'`, "🔥/temp", strings.Repeat("x", 500), strings.Repeat("x", 499) + "y", "..", "../../etc/passwd", "new\nline", "a-p2"}
	for i, n := range names {
		p := w.point(n)
		w.put(p, "2024-02-05 00:00", float64(i))
	}
	w.run(ArchiveOptions{Mode: Archive})
	man := w.manifest("2024-02")
	seen := map[object.Key]bool{}
	for i, n := range names {
		e := man.Entry(int32(i + 1))
		if e == nil || e.Name != n || seen[e.Path] {
			t.Errorf("%q: entry %+v", n, e)
			continue
		}
		seen[e.Path] = true
	}
	sameRows(t, w.cold(), w.hot(daysOf("2024-02-05", "2024-02-06")))
	w.whole()
}

// The report is one JSON object with at least the documented fields.
func TestReportJSON(t *testing.T) {
	w := newWorld(t)
	w.fill(w.point("a"), daysOf("2024-02-01", "2024-02-09"))
	b, err := json.Marshal(w.run(ArchiveOptions{Mode: Archive}))
	w.must(err)
	var m map[string]any
	w.must(json.Unmarshal(b, &m))
	for _, k := range []string{"samples_read", "samples_added", "samples_replaced", "samples_rejected", "files_written", "files_unchanged", "bytes_written", "bytes_per_sample", "elapsed_seconds", "months", "failed"} {
		if _, ok := m[k]; !ok {
			t.Errorf("no %q in %s", k, b)
		}
	}
	if m["samples_added"] != float64(8*24) || m["bytes_per_sample"].(float64) <= 0 {
		t.Errorf("%s", b)
	}
}

// A day whose rows have left the source is not declared empty when the archive
// has lost it: it stays unarchived, and somebody is told.
func TestTrimmedDayIsNotDeclaredEmpty(t *testing.T) {
	w := newWorld(t)
	p := w.point("a")
	w.fill(p, daysOf("2024-01-05", "2024-01-08"))
	w.backfill("2024-01-05", "2024-01-08")
	w.exec("DELETE FROM timeseries WHERE timestamp < ?", at("2024-01-06 00:00"))
	w.exec("INSERT INTO archive_trims (point_id, day) VALUES (?, ?)", p, int64(day("2024-01-05")))
	w.must(os.Remove(filepath.Join(w.root, string(january))))
	w.must(os.Remove(filepath.Join(w.root, "_manifests", "2024-01.json")))
	r := w.backfill("2024-01-04", "2024-01-08")
	if d := w.manifest("2024-01").Entry(p).Days; d[3] != 0 || d[4] != sample.NotArchived || d[5] != 24 || d[6] != 24 {
		t.Errorf("days %v, want 0 on the 4th, null on the 5th and 24 after", d[:8])
	}
	if len(r.Warnings) != 1 {
		t.Errorf("warnings %q, want one", r.Warnings)
	}
	if got := w.mark(p, day("2024-01-05")); got != "claimed" {
		t.Errorf("the lost day is %q, want it unmarked", got)
	}
	w.whole()
	// A late row of that day is archived all the same.
	w.put(p, "2024-01-05 12:00", 1)
	w.backfill("2024-01-04", "2024-01-08")
	if d := w.manifest("2024-01").Entry(p).Days; d[4] != 1 {
		t.Errorf("days %v, want the late row on the 5th", d[:8])
	}
}
