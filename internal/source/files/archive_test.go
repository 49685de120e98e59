package files

import (
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/sample"
	"etl/internal/source/sqlite"
	"etl/internal/utc"
	"etl/jobs"
	"etl/manifests"
)

// tier is a hot tier and a cold one that history is archived into.
type tier struct {
	*testing.T
	src   *sqlite.Source
	store *dir.Store
	now   time.Time
}

func newTier(t *testing.T, names ...string) *tier {
	store, err := dir.Open(filepath.Join(t.TempDir(), "r2"))
	must(t, err)
	return &tier{t, authority(t, names...), store, now}
}

// archive does what the command does.
func (w *tier) archive(mode jobs.Mode, days utc.Days, paths ...string) (*jobs.ArchivePlan, jobs.Report) {
	w.Helper()
	s := open(w, w.src, paths, Options{Unknown: Create})
	env := jobs.Env{Source: s, Journal: w.src, Store: w.store, Now: func() time.Time { return w.now }}
	plan, err := jobs.PlanArchive(w.Context(), env, jobs.ArchiveOptions{Mode: mode, Days: days})
	must(w, err)
	r, err := plan.Run(w.Context(), env)
	must(w, err)
	if len(r.Failed) > 0 {
		w.Fatalf("failed: %+v", r.Failed)
	}
	return plan, r
}

// cold reads the archive.
func (w *tier) cold() map[string]map[int64]uint64 {
	w.Helper()
	rows := make(map[string]map[int64]uint64)
	months, err := manifests.Months(w.Context(), w.store)
	must(w, err)
	for _, m := range months {
		man, _, err := manifests.Load(w.Context(), w.store, m)
		must(w, err)
		for _, e := range man.Points {
			if rows[e.Name] == nil {
				rows[e.Name] = make(map[int64]uint64)
			}
			if e.Path == "" {
				continue
			}
			data, _, err := w.store.Get(w.Context(), e.Path)
			must(w, err)
			var s sample.Series
			_, err = monthfile.NewDecoder().Decode(data, &s)
			must(w, err)
			for i, ts := range s.TS {
				if e.Days[utc.DayOf(ts)-m.First()] != sample.NotArchived {
					rows[e.Name][ts] = bitsOf(s.Value[i])
				}
			}
		}
	}
	return rows
}

// objects are the keys under a prefix.
func (w *tier) objects(prefix string) (keys []object.Key) {
	for a, err := range w.store.List(w.Context(), prefix) {
		must(w, err)
		keys = append(keys, a.Key)
	}
	return keys
}

// TestRealSets archives the real sets, and compares with reading them line by line.
func TestRealSets(t *testing.T) {
	paths, err := filepath.Glob("../../../../shared/data/*.csv.gz")
	if must(t, err); len(paths) == 0 {
		t.Skip("the real sets are not in ../shared/data")
	}
	want := make(map[string]map[int64]uint64)
	n := 0
	for _, path := range paths {
		f, err := os.Open(path)
		must(t, err)
		defer f.Close()
		z, err := gzip.NewReader(f)
		must(t, err)
		r := csv.NewReader(z)
		_, err = r.Read()
		must(t, err)
		for {
			rec, err := r.Read()
			if err == io.EOF {
				break
			}
			must(t, err)
			ts, err := strconv.ParseInt(rec[1], 10, 64)
			must(t, err)
			v := sample.Null
			if rec[2] != "" {
				v, err = strconv.ParseFloat(rec[2], 64)
				must(t, err)
			}
			if want[rec[0]] == nil {
				want[rec[0]] = make(map[int64]uint64)
			}
			want[rec[0]][ts] = bitsOf(v)
			n++
		}
	}
	w := newTier(t)
	plan, report := w.archive(jobs.Backfill, utc.Days{}, paths...)
	if len(plan.Warnings) != 0 || report.SamplesRejected != 0 {
		t.Errorf("warnings %q, %d rejects", plan.Warnings, report.SamplesRejected)
	}
	if got := w.cold(); !maps.EqualFunc(got, want, maps.Equal) {
		t.Error("the archive differs from the files")
	}
	t.Logf("%d rows of %d points, %d month files", n, len(want), report.FilesWritten)
	before := w.objects("")
	if plan, report := w.archive(jobs.Backfill, utc.Days{}, paths...); !plan.Empty() || report.FilesWritten != 0 || !slices.Equal(w.objects(""), before) {
		t.Errorf("again: %d point-days, %d files", plan.PointDays, report.FilesWritten)
	}
	if _, report := w.archive(jobs.Rearchive, utc.Days{}, paths...); report.FilesWritten != 0 || report.SamplesRead != int64(n) {
		t.Errorf("rearchived: %d files, %d samples", report.FilesWritten, report.SamplesRead)
	}
}

// TestArchive goes through what becomes of history beside what the hot tier holds.
func TestArchive(t *testing.T) {
	const day = 1704412800000 // 2024-01-05
	w := newTier(t, "hot")
	hour := func(d, h int) int64 { return day + int64(d*24+h)*3600_000 }
	var b sample.Batch
	b.PointID = append(b.PointID, 1, 1)
	b.Append(hour(0, 1), 10, 192, 0)
	b.Append(hour(30, 1), 11, 192, 0) // 2024-02-04
	must(t, w.src.Load(t.Context(), nil, &b))
	line := func(name string, ts int64, v string) string { return fmt.Sprintf("%s,%d,%s\n", name, ts, v) }
	paths := folder(t, map[string]string{
		"a.csv": header3 + line("hot", hour(0, 1), "1") + line("hot", hour(0, 2), "2") + line("new", hour(1, 0), "3") + line("new", hour(2, 0), "x") +
			line("hot", hour(30, 1), "4") + line("hot", hour(30, 2), "5") + line("new", hour(36, 1), "6") + "torn,\n" + line("new", day/1000, "7"),
	})
	want := map[string]map[int64]uint64{
		"hot": {hour(0, 1): bitsOf(1), hour(0, 2): bitsOf(2), hour(30, 1): bitsOf(4), hour(30, 2): bitsOf(5)},
		"new": {hour(1, 0): bitsOf(3)}, // its other days hold rejects alone, or are not over
	}
	plan, report := w.archive(jobs.Backfill, utc.Days{}, paths...)
	if report.SamplesRejected != 3 || len(plan.Warnings) != 1 || !strings.Contains(plan.Warnings[0], "2024-02-09") {
		t.Errorf("%d rejects, warnings %q", report.SamplesRejected, plan.Warnings)
	}
	if got := w.cold(); !maps.EqualFunc(got, want, maps.Equal) {
		t.Errorf("archived %v, want %v", got, want)
	}
	rejects := w.objects("_rejects/")
	for range 2 { // the same lines are recorded in the same objects: one for each point and day
		w.archive(jobs.Backfill, utc.Days{}, paths...)
		if got := w.objects("_rejects/"); len(rejects) != 3 || !slices.Equal(got, rejects) {
			t.Errorf("rejects in %v, then in %v", rejects, got)
		}
	}
	list, err := jobs.ListRejects(t.Context(), jobs.Env{Store: w.store}, utc.Days{})
	if must(t, err); len(list.Rows) != 3 {
		t.Errorf("rejects: %+v", list.Rows)
	}
	// The nightly merges what the hot tier holds of such days, and it wins.
	env := jobs.Env{Source: w.src, Ledger: w.src, Journal: w.src, Store: w.store, Now: func() time.Time { return now }}
	nightly, err := jobs.PlanArchive(t.Context(), env, jobs.ArchiveOptions{Mode: jobs.Archive, HotWindow: 20})
	must(t, err)
	_, err = nightly.Run(t.Context(), env)
	must(t, err)
	want["hot"][hour(30, 1)] = bitsOf(11)
	got := w.cold()
	if !maps.Equal(got["hot"], want["hot"]) {
		t.Errorf("after the nightly: %v, want %v", got["hot"], want["hot"])
	}
	// Files again: backfill leaves them alone, rearchive lets the files win.
	w.archive(jobs.Backfill, utc.Days{}, paths...)
	if !maps.Equal(w.cold()["hot"], want["hot"]) {
		t.Error("a backfill changed what is archived")
	}
	w.archive(jobs.Rearchive, utc.Days{From: utc.DayOf(hour(30, 0)), To: utc.DayOf(hour(31, 0))}, paths...)
	want["hot"][hour(30, 1)] = bitsOf(4)
	if !maps.Equal(w.cold()["hot"], want["hot"]) {
		t.Error("a rearchive did not merge the files")
	}
	for _, o := range []jobs.ArchiveOptions{{Mode: jobs.Archive}, {Mode: jobs.Rearchive, Replace: true, Days: all}, {Mode: jobs.Backfill, Days: utc.Days{From: firstDay, To: utc.DayOfTime(now) + 1}}} {
		s := open(t, w.src, paths, Options{})
		if _, err := jobs.PlanArchive(t.Context(), jobs.Env{Source: s, Store: w.store, Now: func() time.Time { return now }}, o); !fault.Is(err, fault.Usage) {
			t.Errorf("%+v: %v, want it refused", o, err)
		}
	}
}
