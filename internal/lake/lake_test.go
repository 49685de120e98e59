package lake

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/object/objecttest"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/jobs"
	"etl/manifests"
)

const allSamples = "SELECT point_id, point_name, ts, timestamp, value, quality, flags FROM samples"

// TestLakeTiers walks a fleet through the states that a day can be in.
func TestLakeTiers(t *testing.T) {
	w := newWorld(t)
	a, b := w.point("B1.AHU1.Temp", "HVAC"), w.point("B1.AHU1.Fan", "HVAC")
	c := w.point("B2.Meter", "ELEC")
	w.fill(a, day("2024-01-20"), day("2024-03-11"), 4)
	w.fill(b, day("2024-02-25"), day("2024-03-11"), 4)
	w.fill(c, day("2024-03-01"), day("2024-03-03"), 2)
	w.put(a, day("2024-03-09").Start()+7, row{null, 0, 65535})
	w.put(b, day("2024-03-09").Start()+7, row{math.Inf(1), 255, 1})
	check := func(what string, wantHot bool) {
		t.Helper()
		s := w.same(w.oracle(), Query{SQL: allSamples})
		if (s.HotRows > 0) != wantHot {
			t.Errorf("%s: %d rows from the hot tier", what, s.HotRows)
		}
	}
	check("nothing archived", true)
	w.archive(day("2024-01-20"), day("2024-03-01"))
	check("old days archived", true)
	w.archive(day("2024-03-01"), day("2024-03-10"))
	check("all but today archived", true)
	for d := day("2024-01-20"); d < day("2024-02-20"); d++ {
		w.trim(a, d)
	}
	check("trimmed", true)
	if s := w.same(w.oracle(), Query{SQL: allSamples + " WHERE ts < '2024-03-10'"}); s.HotRows != 0 || s.Files != 6 {
		t.Errorf("marked days alone: %+v, want no rows from the hot tier and 6 files", s)
	}
	// A late row, and one that corrects: their days are read from both tiers.
	w.put(a, day("2024-03-05").Start()+1, row{99, 192, 0})
	w.put(a, day("2024-03-05").Start(), row{98, 192, 0})
	if s := w.same(w.oracle(), Query{SQL: allSamples + " WHERE ts < '2024-03-10'"}); s.HotRows != 5 {
		t.Errorf("late rows: %d rows from the hot tier, want the 5 of one day", s.HotRows)
	}
	// A run that claimed a day and died: the day may hold rows that are not archived.
	w.put(a, day("2024-03-07").Start()+1, row{97, 192, 0})
	w.must(w.src.Claim(t.Context(), "dead", []source.Slice{{Point: a, Day: day("2024-03-07")}}))
	w.same(w.oracle(), Query{SQL: allSamples + " WHERE ts < '2024-03-10'"})
	hot, _, err := ask(t, w.lake, Query{SQL: "SELECT count(*), min(ts) FROM samples WHERE point_id = 1", Tier: Hot})
	if err != nil || len(hot) != 1 || !strings.HasPrefix(hot[0], "83 | 2024-02-20") {
		t.Errorf("--tier hot: %q, %v", hot, err)
	}
	cold, _, err := ask(t, w.lake, Query{SQL: "SELECT count(*), max(ts) FROM samples WHERE point_id = 1 AND tier = 'cold'", Tier: Cold})
	if err != nil || len(cold) != 1 || cold[0] != "201 | 2024-03-09 18:00:00" {
		t.Errorf("--tier cold: %q, %v", cold, err)
	}
	w.same(w.oracle(), Query{SQL: "SELECT point_name, ts, value, quality FROM latest"})
}

// TestLakeModel plays random histories and asks random questions after each step.
func TestLakeModel(t *testing.T) {
	histories := 3
	if testing.Short() {
		histories = 1
	}
	playHistories(t, histories, newWorld)
}

func playHistories(t *testing.T, histories int, newWorld func(testing.TB) *world) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("ETL_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("seed %d (ETL_SEED)", seed)
	questions := 0
	for n := range histories {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		w := newWorld(t)
		for i := range 5 {
			w.point(fmt.Sprintf("B%d.%s.P%d", i%2, []string{"AHU", "VAV"}[i%2], i), []string{"HVAC", "ELEC"}[i%2])
		}
		w.exec("INSERT INTO point_groups (name, point_id) VALUES ('ahu', 1), ('ahu', 3), ('none', 77)")
		first, today := day("2024-01-25"), utc.DayOfTime(w.now)
		for id := int32(1); id <= 4; id++ { // the fifth has none
			w.fill(id, first+utc.Day(r.IntN(30)), today+1, 1+r.Int64N(4))
		}
		open := today - 33 // late rows come after it
		for range 14 {
			id := 1 + r.Int32N(4)
			d := open + utc.Day(r.IntN(int(today-open)+1))
			switch op := r.IntN(10); op {
			case 0, 1, 2: // late rows, new and corrected
				for range 1 + r.IntN(4) {
					w.put(id, d.Start()+r.Int64N(4)*utc.DayMillis/4+r.Int64N(2), row{[]float64{r.Float64(), null, math.Inf(-1), 5}[r.IntN(4)], uint8(r.IntN(256)), uint16(r.IntN(65536))})
				}
			case 3, 4: // a part is archived
				from := first + utc.Day(r.IntN(int(today-first)))
				w.archive(from, min(today, from+1+utc.Day(r.IntN(40))), []string{"*", "*", "B0.*", "B1.VAV.P1"}[r.IntN(4)])
			case 5: // the nightly job
				w.job(jobs.ArchiveOptions{Mode: jobs.Archive})
			case 6: // again, over what is archived
				if d == today {
					continue
				}
				w.job(jobs.ArchiveOptions{Mode: jobs.Rearchive, Days: utc.Days{From: d, To: min(today, d+5)}, Points: jobs.Points{Globs: []string{fmt.Sprintf("*P%d", id-1)}}})
			case 7: // retention
				for e := first; e < today-1; e++ {
					if r.IntN(3) > 0 {
						w.trim(id, e)
					}
				}
			case 8: // a crash between month file and manifest
				if d == today {
					continue
				}
				w.store.Inject(objecttest.On("put", manifests.KeyOf(d.Month())), objecttest.Fail(fault.Unavailable))
				p, err := jobs.PlanArchive(t.Context(), w.env(), jobs.ArchiveOptions{Mode: jobs.Rearchive, Days: utc.Days{From: d, To: d + 1}})
				w.must(err)
				_, _ = p.Run(t.Context(), w.env())
				w.store.Reset()
			case 9: // another session, with an empty memory
				w.lake = w.open(w.options())
			}
			oracle := w.oracle()
			for range 4 {
				w.same(oracle, Query{SQL: question(r)})
				questions++
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	t.Logf("reliability: questions to both tiers: %d questions over %d histories", questions, histories)
}

// question is a random statement of named, deterministic columns.
func question(r *rand.Rand) string {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	at := func() string {
		return "TIMESTAMP '" + utc.Day(day("2024-01-20")+utc.Day(r.IntN(55))).String() + pick("'", " 06:00:00'", " 23:59:59.999'")
	}
	condition := func() string {
		return pick(
			"ts >= "+at(), "ts < "+at(), "ts BETWEEN "+at()+" AND "+at(), "timestamp >= epoch_ms("+at()+")", "date_trunc('month', ts) = TIMESTAMP '2024-02-01'",
			"point_id = "+pick("1", "2", "3", "9"), "point_name = 'B0.AHU.P0'", "point_name LIKE 'B1%'", "point_name GLOB '*.P[23]'",
			"point_id IN (SELECT point_id FROM points WHERE system = 'HVAC')", "point_id IN (SELECT point_id FROM point_groups WHERE name = 'ahu')",
			"value > 19800", "value IS NULL", "quality < 192", "ts::DATE = DATE '2024-03-08'", "ts >= "+at()+" AND ts < "+at(), "month(ts) = 3")
	}
	where := condition()
	for range r.IntN(3) {
		where = "(" + where + ") " + pick("AND", "AND", "OR") + " (" + condition() + ")"
	}
	switch r.IntN(8) {
	case 0, 1, 2:
		return allSamples + " WHERE " + where
	case 3:
		return "SELECT point_name, count(*) AS n, min(ts) AS a, max(ts) AS b, count(value) AS c, sum(quality) AS q FROM samples WHERE " + where + " GROUP BY ALL"
	case 4:
		return "SELECT p.system, count(*) AS n, max(s.flags) AS f FROM samples s JOIN points p ON s.point_id = p.id WHERE " + strings.NewReplacer("point_id", "s.point_id", "point_name", "s.point_name").Replace(
			pick("point_id = 1", "ts >= "+at(), "ts < "+at()+" AND value > 3")) + " GROUP BY ALL"
	case 5:
		return "SELECT point_id, point_name, ts, timestamp, value, quality, flags FROM latest WHERE " + pick("TRUE", "point_id > 2", "point_name LIKE 'B0%'", "ts > "+at(), "point_id IN (SELECT point_id FROM points WHERE system = 'ELEC')")
	case 6:
		return "WITH x AS (" + allSamples + " WHERE " + where + ") SELECT a.point_id AS p, b.point_id AS q, count(*) AS n FROM x a JOIN x b ON a.ts = b.ts AND a.point_id < b.point_id GROUP BY ALL"
	default:
		return "SELECT p.name AS name, count(s.ts) AS n, max(s.ts) AS last FROM points p LEFT JOIN samples s ON s.point_id = p.id AND s.ts >= " + at() + " GROUP BY ALL"
	}
}

// TestLakePending reads a month file that is newer than the manifest: its rows of
// days that the manifest does not count are not in the answer twice.
func TestLakePending(t *testing.T) {
	w := newWorld(t)
	a := w.point("A", "HVAC")
	w.fill(a, day("2024-03-01"), day("2024-03-11"), 4)
	w.archive(day("2024-03-01"), day("2024-03-04"))
	w.store.Inject(objecttest.On("put", "_manifests/2024-03.json"), objecttest.Fail(fault.Unavailable))
	p, err := jobs.PlanArchive(t.Context(), w.env(), jobs.ArchiveOptions{Mode: jobs.Backfill, Days: utc.Days{From: day("2024-03-04"), To: day("2024-03-08")}})
	w.must(err)
	if r, err := p.Run(t.Context(), w.env()); err == nil && len(r.Failed) == 0 {
		t.Fatal("the manifest was written")
	}
	w.store.Reset()
	w.same(w.oracle(), Query{SQL: allSamples})
	got, _, err := ask(t, w.lake, Query{SQL: "SELECT count(*) FROM samples", Tier: Cold})
	if err != nil || !slices.Equal(got, []string{"12"}) {
		t.Errorf("the cold tier alone: %q, %v; want the 12 samples that the manifest counts", got, err)
	}
}

// TestLakeCorrupt: a month file that is damaged is named and never answered from,
// also where the cache holds a link to it.
func TestLakeCorrupt(t *testing.T) {
	w := newWorld(t)
	a := w.point("A", "HVAC")
	w.fill(a, day("2024-02-01"), day("2024-03-05"), 4)
	w.archive(day("2024-02-01"), day("2024-03-04"))
	o := w.options()
	o.Store = w.dir
	w.lake = w.open(o)
	w.same(w.oracle(), Query{SQL: allSamples}) // all of it is cached
	path := w.root + "/timeseries/2024/02/a.parquet"
	data, err := os.ReadFile(path)
	w.must(err)
	data[len(data)/2] ^= 1
	w.must(os.WriteFile(path, data, 0o644))
	for _, l := range []*Lake{w.lake, w.open(o)} {
		if _, _, err := ask(t, l, Query{SQL: allSamples}); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "timeseries/2024/02/a.parquet") {
			t.Errorf("a damaged month file: %v", err)
		}
		w.same(w.oracle(), Query{SQL: allSamples + " WHERE ts >= '2024-03-01'"})
	}
}

// TestLakeUnreadableManifest: a query that does not touch the month is answered.
func TestLakeUnreadableManifest(t *testing.T) {
	w := newWorld(t)
	a := w.point("A", "HVAC")
	w.fill(a, day("2024-01-30"), day("2024-03-05"), 4)
	w.archive(day("2024-01-30"), day("2024-03-04"))
	w.must(os.WriteFile(w.root+"/_manifests/2024-01.json", []byte("{}"), 0o644))
	if _, _, err := ask(t, w.lake, Query{SQL: allSamples}); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "2024-01") {
		t.Errorf("a manifest that can not be read: %v", err)
	}
	w.same(w.oracle(), Query{SQL: allSamples + " WHERE ts >= '2024-02-01'"})
}

// TestLakeGuard: a query that would fetch or extract too much is refused before it does.
func TestLakeGuard(t *testing.T) {
	w := newWorld(t)
	a := w.point("A", "HVAC")
	w.fill(a, day("2024-02-01"), day("2024-03-10"), 24)
	w.archive(day("2024-02-01"), day("2024-03-01"))
	o := w.options()
	o.MaxBytes = 10
	if _, _, err := ask(t, w.open(o), Query{SQL: "SELECT count(*) FROM samples"}); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "--max-bytes") {
		t.Errorf("too many bytes: %v", err)
	}
	o = w.options()
	o.MaxHotRows = 100
	l := w.open(o)
	if _, _, err := ask(t, l, Query{SQL: "SELECT count(*) FROM samples"}); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "--max-hot-rows") {
		t.Errorf("too many rows: %v", err)
	}
	// The estimate can be wrong; what comes is counted.
	w.fill(a, day("2024-03-09"), day("2024-03-10"), 2000)
	if _, _, err := ask(t, l, Query{SQL: "SELECT count(*) FROM samples WHERE ts >= '2024-03-09'"}); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "--max-hot-rows") {
		t.Errorf("more rows than estimated: %v", err)
	}
	if got, _, err := ask(t, l, Query{SQL: "SELECT count(*) FROM samples WHERE ts >= '2024-02-10' AND ts < '2024-02-20'"}); err != nil || got[0] != "240" {
		t.Errorf("after a refusal: %q, %v", got, err)
	}
}

// TestLakeChanged: a mark that goes while rows are extracted makes the query plan again.
func TestLakeChanged(t *testing.T) {
	w := newWorld(t)
	a := w.point("A", "HVAC")
	w.fill(a, day("2024-03-01"), day("2024-03-11"), 4)
	w.archive(day("2024-03-01"), day("2024-03-10"))
	o := w.options()
	once := false
	o.Notify = func(e Event) {
		if _, ok := e.(ExtractProgress); ok && !once {
			once = true
			w.put(a, day("2024-03-05").Start()+5, row{1, 192, 0})
		}
	}
	l := w.open(o)
	got, stats, err := ask(t, l, Query{SQL: "SELECT count(*) FROM samples"})
	if err != nil || stats.Replans != 1 || got[0] != "41" {
		t.Errorf("%q after %d replans, %v; want 41 rows after 1", got, stats.Replans, err)
	}
}

// movingSource archives and trims days before they are read for the first time.
type movingSource struct {
	hotTier
	move func()
}

func (m *movingSource) Read(ctx context.Context, q source.Query, f func(*sample.Batch) error) (source.Stats, error) {
	if m.move != nil {
		move := m.move
		m.move = nil
		move()
	}
	return m.hotTier.Read(ctx, q, f)
}

// TestLakeMoved: days that leave the hot tier for the cold one between planning
// and reading are not missed.
func TestLakeMoved(t *testing.T) {
	w := newWorld(t)
	a := w.point("A", "HVAC")
	w.fill(a, day("2024-02-20"), day("2024-03-11"), 4)
	w.archive(day("2024-02-20"), day("2024-03-01"))
	o := w.options()
	o.Source = &movingSource{w.src, func() {
		w.archive(day("2024-03-01"), day("2024-03-09"))
		for d := day("2024-02-20"); d < day("2024-03-09"); d++ {
			w.trim(a, d)
		}
	}}
	w.lake = w.open(o)
	if s := w.same(w.oracle(), Query{SQL: allSamples}); s.Replans != 1 {
		t.Errorf("planned again %d times, want once", s.Replans)
	}
}

// TestLakeRefused: what a query that failed had learnt is not taken for known by the next one.
func TestLakeRefused(t *testing.T) {
	w := newWorld(t)
	a := w.point("A", "HVAC")
	w.fill(a, day("2024-02-01"), day("2024-03-10"), 24)
	w.archive(day("2024-02-01"), day("2024-03-01"))
	for d := day("2024-02-01"); d < day("2024-03-01"); d++ {
		w.trim(a, d)
	}
	o := w.options()
	o.MaxHotRows = 100
	l := w.open(o)
	for range 2 {
		if _, _, err := ask(t, l, Query{SQL: "SELECT count(*) FROM samples"}); !fault.Is(err, fault.Usage) {
			t.Errorf("too many rows: %v", err)
		}
		if got, _, err := ask(t, l, Query{SQL: "SELECT count(*) FROM samples WHERE ts >= '2024-02-10' AND ts < '2024-02-20'"}); err != nil || !slices.Equal(got, []string{"240"}) {
			t.Errorf("after a refusal: %q, %v, want 240", got, err)
		}
	}
}

// TestLakeLoadsFewManifests: a query loads the manifests of the months that it
// can touch, once, and learns from the listing which of them have changed.
func TestLakeLoadsFewManifests(t *testing.T) {
	w := newWorld(t)
	a := w.point("A", "HVAC")
	w.fill(a, day("2023-06-10"), day("2024-03-11"), 2)
	w.archive(day("2023-06-10"), day("2024-03-09"))
	w.lake = w.open(w.options()) // the cache is empty
	oracle := w.oracle()
	loads := func(query string, months ...string) {
		t.Helper()
		w.store.Reset()
		w.same(oracle, Query{SQL: query})
		var got []string
		for _, op := range w.store.Trace() {
			if m, ok := strings.CutPrefix(op, "get _manifests/"); ok && m != "points.json" {
				got = append(got, strings.TrimSuffix(m, ".json"))
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, months) {
			t.Errorf("%s\nloads the manifests %q, want %q", query, got, months)
		}
	}
	loads("SELECT name FROM points")
	loads("SELECT point_id, ts, value FROM latest")
	loads(allSamples+" WHERE ts >= '2024-03-09'", "2024-03")
	loads(allSamples + " WHERE ts >= '2024-03-09'")
	loads(allSamples+" WHERE ts >= '2023-08-31' AND ts < '2023-10-01'", "2023-08", "2023-09")
	loads(allSamples+" WHERE timestamp = epoch_ms(TIMESTAMP '2024-02-29 12:00:00')", "2024-02")
	w.job(jobs.ArchiveOptions{Mode: jobs.Backfill, Days: utc.Days{From: day("2024-03-09"), To: day("2024-03-10")}})
	loads(allSamples+" WHERE ts < '2023-09-10'", "2023-06", "2023-07")
	loads(allSamples+" WHERE ts >= '2024-02-09'", "2024-03")
	w.lake = w.open(w.options())
	loads(allSamples, "2023-10", "2023-11", "2023-12", "2024-01")
	loads("SELECT point_name, ts FROM samples WHERE value > 0")

	o := w.options()
	o.StoreName, o.Source, o.Ledger = "cold", nil, nil
	w.lake = w.open(o)
	w.store.Reset()
	got, _, err := ask(t, w.lake, Query{SQL: "SELECT count(DISTINCT month) FROM archive_files"})
	if err != nil || got[0] != "10" || w.store.Count() != 12 {
		t.Errorf("archive_files: %q, %v, by %q", got, err, w.store.Trace())
	}
}

// TestLakeStrangers: samples of points that the manifests alone know are in the answer,
// whatever has become of points.json.
func TestLakeStrangers(t *testing.T) {
	w := newWorld(t)
	a, b := w.point("A", "HVAC"), w.point("B", "HVAC")
	w.fill(a, day("2024-01-30"), day("2024-03-05"), 4)
	w.fill(b, day("2024-01-30"), day("2024-02-02"), 4)
	w.archive(day("2024-01-30"), day("2024-03-04"))
	path := w.root + "/_manifests/points.json"
	whole, err := os.ReadFile(path)
	w.must(err)
	c, err := manifests.DecodePoints(whole)
	w.must(err)
	c.Points = c.Points[:1] // without B
	part, err := manifests.EncodePoints(c)
	w.must(err)
	w.same(w.oracle(), Query{SQL: allSamples})
	old := w.lake
	for what, data := range map[string][]byte{"lost": nil, "damaged": []byte("{"), "without it": part} {
		w.must(os.RemoveAll(path))
		if data != nil {
			w.must(os.WriteFile(path, data, 0o644))
		}
		o := w.options()
		o.Source, o.Ledger = nil, nil
		for _, explain := range []bool{false, true} {
			l := w.open(o)
			if explain {
				e, err := l.Explain(t.Context(), Query{SQL: allSamples})
				if err != nil || e.Points != 2 {
					t.Errorf("points.json %s: %+v, %v", what, e, err)
				}
			}
			for range 2 {
				if got, _, err := ask(t, l, Query{SQL: "SELECT point_name, count(*) AS n FROM samples WHERE ts >= '2024-02-01' GROUP BY ALL"}); err != nil || !slices.Equal(got, []string{"A | 128", "B | 4"}) {
					t.Errorf("points.json %s: %q, %v", what, got, err)
				}
			}
		}
		if got, _, err := ask(t, old, Query{SQL: "SELECT point_name, count(*) AS n FROM samples WHERE ts >= '2024-02-01' GROUP BY ALL"}); err != nil || !slices.Equal(got, []string{"A | 132", "B | 4"}) {
			t.Errorf("points.json %s, an old session: %q, %v", what, got, err)
		}
		if what != "without it" {
			if got, _, err := ask(t, w.open(o), Query{SQL: "SELECT name FROM points"}); err != nil || !slices.Equal(got, []string{"A", "B"}) {
				t.Errorf("points.json %s: the points %q, %v", what, got, err)
			}
		}
	}
}

// TestLakeLoadsNewer: a manifest that is replaced between the listing and its
// load, and one that can not be loaded for now.
func TestLakeLoadsNewer(t *testing.T) {
	w := newWorld(t)
	a := w.point("A", "HVAC")
	w.fill(a, day("2024-02-01"), day("2024-03-11"), 4)
	w.archive(day("2024-02-01"), day("2024-03-04"))
	w.lake = w.open(w.options())
	w.same(w.oracle(), Query{SQL: allSamples + " WHERE ts < '2024-02-20'"})
	moved := false
	w.store.Inject(objecttest.First(1, objecttest.On("get", "_manifests/2024-03.json")), objecttest.Before(func() {
		moved = true
		w.archive(day("2024-03-04"), day("2024-03-09"))
		for d := day("2024-03-01"); d < day("2024-03-09"); d++ {
			w.trim(a, d)
		}
	}))
	w.same(w.oracle(), Query{SQL: allSamples})
	if !moved {
		t.Fatal("nothing was moved")
	}
	w.store.Reset()
	w.same(w.oracle(), Query{SQL: allSamples})
	if tr := w.store.Trace(); slices.ContainsFunc(tr, func(op string) bool { return strings.HasPrefix(op, "get _manifests/") }) {
		t.Errorf("what was loaded is loaded again: %q", tr)
	}
	if _, err := w.cache.Clear(); err != nil {
		t.Fatal(err)
	}
	w.lake = w.open(w.options())
	w.store.Inject(objecttest.On("get", "_manifests/2024-02.json"), objecttest.Fail(fault.Unavailable))
	w.same(w.oracle(), Query{SQL: allSamples + " WHERE ts >= '2024-03-01'"})
	if _, _, err := ask(t, w.lake, Query{SQL: allSamples}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a manifest that can not be loaded: %v", err)
	}
	w.store.Reset()
	w.same(w.oracle(), Query{SQL: allSamples})
}
