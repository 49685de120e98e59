//go:build integration

package worker_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/utc"
)

const (
	temp   = "AHU-1/Supply Air Temp °C" // all 53 bits, every ten minutes
	odd    = "odd"                      // what is not a plain number, every half hour
	fan    = "fan"                      // one value, every 36 s in its first month: more than a page holds
	walk   = "walk"                     // steps of 0.1 every minute, which both codecs shrink, in its third month
	silent = "silent"                   // no samples
)

// odds are the values of the point odd, with NULL as nil.
var odds = []any{
	math.Inf(1), math.Inf(-1), nil, 5e-324, -5e-324, 2.2250738585072011e-308, math.MaxFloat64, -math.MaxFloat64, 0.0,
	0.1, 1.0 / 3, 1e-9, 1e300, 4.35, 1 << 53, -(1<<53 - 1), 123456789.12345679, 8.41, 1e21, 1e-7, 100.0,
}

// fill writes samples from the first of a month up to now.
func (w *world) fill(first utc.Day, rng *rand.Rand) {
	w.Helper()
	start, now := first.Start(), time.Now().UnixMilli()
	w.insert(temp, int((now-start)/600_000), func(i int) (int64, any, int, int) {
		return start + int64(i)*600_000, 20 + rng.NormFloat64(), 192, 0
	})
	w.insert(odd, int((now-start)/1_800_000), func(i int) (int64, any, int, int) {
		return start + int64(i)*1_800_000, odds[i%len(odds)], (i * 64) % 256, i % 65536
	})
	dense := first.Month().Len() * 24 * 100
	w.insert(fan, dense+int((now-(first.Month()+1).First().Start())/600_000), func(i int) (int64, any, int, int) {
		if i < dense {
			return start + int64(i)*36_000, 1.0, 192, 0
		}
		return (first.Month() + 1).First().Start() + int64(i-dense)*600_000, 1.0, 192, 0
	})
	level := 200.0
	w.insert(walk, 6*1440, func(i int) (int64, any, int, int) {
		level += float64(rng.IntN(3) - 1)
		return (first.Month() + 2).First().Start() + int64(i)*60_000, level / 10, 192, 0
	})
	w.exec("INSERT INTO points (name) VALUES (?)", silent)
	w.note()
}

// TestIntegrationSeries walks an archive through all that a (point, day) can be,
// and after each step compares the Worker's answers with what D1 has held.
func TestIntegrationSeries(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(t, "")
	today := utc.DayOfTime(time.Now())
	m0 := (today - 100).Month()
	first := m0.First()
	span := utc.Days{From: first - 1, To: today + 1}
	w.fill(first, rng)
	checkAll := func(what string) {
		t.Helper()
		began := time.Now()
		for _, p := range []string{temp, odd, fan, walk, silent} {
			w.check(p, span, rng)
		}
		t.Logf("%s: equal, %v", what, time.Since(began).Round(time.Millisecond))
	}
	checkAll("hot only")

	// Three months archived, some of it with snappy; the others are hot only.
	m1, m2 := m0+1, m0+2
	snappy := utc.Days{From: m2.First(), To: m2.First() + 3}
	w.run(append([]string{"backfill"}, days(utc.Days{From: first, To: m2.First()})...)...)
	w.run(append([]string{"backfill", "--codec", "snappy"}, days(snappy)...)...)
	data, err := os.ReadFile(filepath.Join(w.store, "timeseries", strings.ReplaceAll(m2.String(), "-", "/"), walk+".parquet"))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := monthfile.Inspect(data); err != nil || info.Codec != monthfile.Snappy {
		t.Fatalf("codec %v, %v; want snappy", info.Codec, err)
	}
	w.upload(all)
	checkAll("cold and hot beside each other")

	// Rows leave D1: as the retention trigger does it, and only the rows.
	ids := w.ids()
	w.exec("UPDATE archive_marks SET done = 2 WHERE day < ?", int64(m1.First()))
	w.exec("DELETE FROM timeseries WHERE timestamp < ?", m1.First().Start())
	w.exec("DELETE FROM timeseries WHERE timestamp >= ? AND timestamp < ?", (m1.First() + 3).Start(), (m1.First() + 9).Start())
	checkAll("cold alone")

	// The hot window is archived, but for the last three days. Then rows arrive late, and change.
	recent := utc.Days{From: today - hotWindow, To: today - 3}
	w.run(append([]string{"archive"}, days(recent)...)...)
	w.upload(all)
	for _, d := range []utc.Day{today - hotWindow + 1, today - 20, today - 4, today - 2, today} {
		w.insert(temp, 40, func(i int) (int64, any, int, int) {
			return d.Start() + int64(i)*150_000, rng.NormFloat64(), 100, 1 // every other one is an update
		})
	}
	w.note()
	checkAll("late rows")

	// A late row before the hot window waits until its day is archived again.
	old := m1.First() + 12
	before := maps.Clone(w.truth[temp])
	w.insert(temp, 1, func(int) (int64, any, int, int) { return old.Start() + 1, 7.5, 192, 0 })
	w.note()
	w.compare(temp, old.Start(), old.End(), before)
	w.run("rearchive", "--day", old.String())
	w.upload(all)
	w.compare(temp, old.Start(), old.End(), w.truth[temp])

	// Month files without their manifest, as a run leaves them that died: one is
	// newer than its entry, and has a day that the manifest does not.
	w.run(append([]string{"archive"}, days(utc.Days{From: today - hotWindow, To: today - 2})...)...)
	w.upload(monthFiles)
	w.exec("DELETE FROM archive_marks WHERE day = ?", int64(today-3)) // it never came to confirm the new day
	checkAll("pending files")
	w.upload(all)
	checkAll("committed")

	// A rename keeps the series; a point that D1 has dropped keeps what is cold.
	w.exec("UPDATE points SET name = 'renamed' WHERE name = ?", odd)
	w.truth["renamed"] = w.truth[odd]
	w.check("renamed", span, rng)
	w.run("archive", "--grace", "1ms")
	w.upload(all)
	w.check("renamed", span, rng)
	if status, body := w.call("GET", readToken, seriesPath(odd, first, today), ""); status != 404 || !strings.Contains(body, "odd") {
		t.Errorf("the old name: %d %s", status, body)
	}
	w.exec("DELETE FROM timeseries WHERE point_id = ?", ids[fan])
	w.exec("DELETE FROM points WHERE id = ?", ids[fan])
	never := utc.Days{From: snappy.To, To: recent.From}
	maps.DeleteFunc(w.truth[fan], func(ts int64, _ row) bool { d := utc.DayOf(ts); return d >= today || never.Contains(d) })
	w.check(fan, span, rng)
}

// ids are the ids of the points by name.
func (w *world) ids() map[string]int64 {
	w.Helper()
	out := map[string]int64{}
	if err := sqlitex.Execute(w.conn, "SELECT name, id FROM points", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		out[s.ColumnText(0)] = s.ColumnInt64(1)
		return nil
	}}); err != nil {
		w.Fatal(err)
	}
	return out
}

// TestIntegrationDamage: what can not be answered is named, never left out.
func TestIntegrationDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	w := newWorld(t, "site-1/cold") // and a prefix
	today := utc.DayOfTime(time.Now())
	m := (today - 62).Month()
	first, next := m.First(), (m + 1).First()
	w.fill(first, rng)
	w.run(append([]string{"backfill"}, days(utc.Days{From: first, To: next + 2})...)...)
	w.upload(all)
	want := maps.Clone(w.truth[temp])
	w.compare(temp, first.Start(), (next + 5).Start(), want)

	var file object.Key
	var good []byte
	refused := func(what string, status int, texts ...string) {
		t.Helper()
		got, body := w.call("GET", readToken, seriesPath(temp, first.Start(), next.Start()), "")
		if got != status {
			t.Errorf("%s: status %d, want %d", what, got, status)
		}
		for _, text := range texts {
			if !strings.Contains(body, text) {
				t.Errorf("%s: %.300s does not say %q", what, body, text)
			}
		}
		w.compare(odd, next.Start(), (next + 3).Start(), w.truth[odd]) // others are answered
	}
	manifest := object.Key("_manifests/" + m.String() + ".json")
	doc, _, err := w.r2.Get(t.Context(), manifest)
	if err != nil {
		t.Fatal(err)
	}
	var entries struct {
		Points []struct {
			Name string
			Path object.Key
		}
	}
	if err := json.Unmarshal(doc, &entries); err != nil {
		t.Fatal(err)
	}
	paths := map[string]object.Key{}
	for _, p := range entries.Points {
		paths[p.Name] = p.Path
	}
	file = paths[temp]
	if good, _, err = w.r2.Get(t.Context(), file); err != nil {
		t.Fatal(err)
	}

	// Damage outside of the rows and the facts (statistics, page index) is all that
	// a file may have that does not match its manifest and is taken for pending.
	named := 0
	for range 20 {
		bad := slices.Clone(good)
		at := 4 + rng.IntN(len(bad)-16)
		bad[at] ^= byte(1 + rng.IntN(255))
		w.put(file, bad)
		if status, _ := w.call("GET", readToken, seriesPath(temp, first.Start(), next.Start()), ""); status == 200 {
			w.compare(temp, first.Start(), next.Start(), want)
			continue
		}
		refused(fmt.Sprintf("byte %d of %d", at, len(bad)), 500, string(file), "corrupt")
		named++
	}
	if named < 10 {
		t.Errorf("%d of 20 damaged files were named", named)
	}
	for _, n := range []int{0, 3, 7, len(good) / 2, len(good) - 1} {
		w.put(file, good[:n])
		refused(fmt.Sprintf("cut to %d bytes", n), 500, string(file), "corrupt")
	}
	other, _, err := w.r2.Get(t.Context(), paths[odd])
	if err != nil {
		t.Fatal(err)
	}
	w.put(file, other)
	refused("another point's file", 500, string(file), "corrupt", "footer does not name point")
	w.put(file, good)

	for _, tc := range []struct{ what, old, new, want string }{
		{"a file that is missing", string(file), string(file[:len(file)-8]) + "-x.parquet", "missing"},
		{"a path out of the folder", string(file), "timeseries/../" + string(file), "malformed"},
		{"a later version", `"version":1`, `"version":2`, "version 2"},
		{"another month", m.String(), (m + 1).String(), "no manifest of"},
		{"not JSON", `"points"`, `points"`, "corrupt"},
	} {
		if !strings.Contains(string(doc), tc.old) {
			t.Fatalf("the manifest does not have %s", tc.old)
		}
		w.put(manifest, []byte(strings.ReplaceAll(string(doc), tc.old, tc.new)))
		got, body := w.call("GET", readToken, seriesPath(temp, first.Start(), next.Start()), "")
		if got != 500 || !strings.Contains(body, tc.want) {
			t.Errorf("%s: %d %.300s, want %q", tc.what, got, body, tc.want)
		}
	}

	// Without its entry the days are not archived: D1 has them still, and then no more.
	w.put(manifest, []byte(`{"format":"etl-manifest","version":1,"month":"`+m.String()+`","points":[]}`))
	w.compare(temp, first.Start(), (next + 5).Start(), want)
	w.exec("UPDATE archive_marks SET done = 2 WHERE day = ?", int64(first+4))
	refused("a day that is nowhere", 500, (first + 4).String(), "left D1")
	w.put(manifest, doc)
	w.compare(temp, first.Start(), (next + 5).Start(), want)
}

// TestIntegrationReadsBesideArchive asks for one series while a run archives it
// day by day straight into R2, days are touched, and rows leave D1. No sample
// changes meanwhile, so each answer must be the same.
func TestIntegrationReadsBesideArchive(t *testing.T) {
	w := newWorld(t, "")
	today := utc.DayOfTime(time.Now().Add(-time.Hour)) // yesterday is complete by then
	span := utc.Days{From: today - 12, To: today}
	rng := rand.New(rand.NewPCG(3, 1))
	w.insert(temp, span.Len()*288, func(i int) (int64, any, int, int) {
		return span.From.Start() + int64(i)*300_000, rng.NormFloat64(), 192, 0
	})
	w.note()
	rows := w.truth[temp]
	stop := make(chan struct{})
	var readers sync.WaitGroup
	var asked atomic.Int64
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := w.differs(temp, span.From.Start(), span.To.Start(), rows); err != nil {
					t.Error(err)
					return
				}
				asked.Add(1)
			}
		})
	}
	defer readers.Wait()
	defer close(stop)
	b := w.cf.R2
	store := fmt.Sprintf("s3://%s?endpoint=%s&region=%s", b.Bucket, url.QueryEscape(b.URL), b.Region)
	for d := span.From; d < span.To && !t.Failed(); d++ {
		// Days that are not gone lose their marks, as by samples that are sent again.
		w.exec("UPDATE timeseries SET quality = quality WHERE timestamp >= ? AND timestamp < ?", max(span.From, d-2).Start(), d.Start())
		w.run("archive", "--store", store, "--from", span.From.String(), "--to", (d + 1).String())
		w.script(fmt.Sprintf(`
			UPDATE archive_marks SET done = 2 WHERE day < %d AND done = 1;
			DELETE FROM timeseries WHERE EXISTS (
				SELECT 1 FROM archive_marks m WHERE m.point_id = timeseries.point_id AND m.day = timestamp / 86400000 AND m.done = 2)`, d-2))
	}
	t.Logf("%d answers were equal", asked.Load())
}

func TestIntegrationSamples(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	w := newWorld(t, "")
	today := utc.DayOfTime(time.Now())
	day := today - 3
	post := func(body string) (int, string) {
		t.Helper()
		return w.call("POST", writeToken, "/samples", body)
	}
	type sample struct {
		Point     string `json:"point"`
		Timestamp int64  `json:"timestamp"`
		Value     any    `json:"value"`
		Quality   *int   `json:"quality,omitempty"`
		Flags     *int   `json:"flags,omitempty"`
	}
	send := func(samples ...sample) {
		t.Helper()
		b, err := json.Marshal(samples)
		if err != nil {
			t.Fatal(err)
		}
		if status, body := post(string(b)); status != 200 || body != fmt.Sprintf(`{"samples":%d}`, len(samples)) {
			t.Fatalf("POST: %d %s", status, body)
		}
		for _, s := range samples {
			r := row{s.Timestamp, null, 192, 0}
			switch v := s.Value.(type) {
			case float64:
				r.value = int64(math.Float64bits(v))
			case string:
				r.value = int64(math.Float64bits(map[string]float64{"Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}[v]))
			}
			if s.Quality != nil {
				r.quality = *s.Quality
			}
			if s.Flags != nil {
				r.flags = *s.Flags
			}
			if w.truth[s.Point] == nil {
				w.truth[s.Point] = map[int64]row{}
			}
			w.truth[s.Point][s.Timestamp] = r
		}
	}
	same := func() {
		t.Helper()
		posted := maps.Clone(w.truth)
		w.truth = map[string]map[int64]row{}
		w.note()
		for p, rows := range posted {
			if !maps.Equal(rows, w.truth[p]) {
				t.Errorf("%q: D1 has not the %d rows that were posted", p, len(rows))
			}
			w.compare(p, day.Start(), (today + 1).Start(), rows)
		}
	}

	// 10,000 doubles of all kinds, among them denormals, in one request.
	var many []sample
	for i := range 10_000 {
		v := math.Float64frombits(rng.Uint64())
		switch i % 4 {
		case 0:
			v = rng.NormFloat64() * 100
		case 1:
			v = math.Float64frombits(rng.Uint64N(1 << 52))
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			v = 0
		}
		many = append(many, sample{Point: []string{"a", "b '\"; -- ü", "C"}[i%3], Timestamp: day.Start() + int64(i)*1000, Value: v})
	}
	send(many...)
	same()
	q, f := 0, 65535
	send(sample{"a", day.Start(), nil, &q, &f}, sample{"a", day.Start() + 1, "Infinity", nil, nil}, sample{"odd", day.Start() + 2, "-Infinity", nil, &f},
		sample{"odd", day.Start() + 3, 1.0, nil, nil}, sample{"odd", day.Start() + 3, 2.0, nil, nil}) // the last one stays
	same()
	ids := w.ids()
	send(many[:100]...)
	send(sample{"one more", today.Start(), 1.0, nil, nil})
	if now := w.ids(); now["a"] != ids["a"] || now["one more"] != int64(len(ids)+1) {
		t.Errorf("ids %v after %v: an id was used up", now, ids)
	}
	same()

	// What is archived is archived again if, and only if, it changed.
	w.run("archive", "--day", day.String())
	w.upload(all)
	marked := func(point string) bool {
		t.Helper()
		n, err := sqlitex.ResultInt64(w.conn.Prep(fmt.Sprintf("SELECT count(*) FROM archive_marks WHERE point_id = %d AND day = %d AND done = 1", ids[point], day)))
		if err != nil {
			t.Fatal(err)
		}
		return n == 1
	}
	if !marked("a") || !marked("odd") {
		t.Fatal("not marked after archive")
	}
	send(sample{"odd", day.Start() + 3, 2.0, nil, nil})
	if !marked("odd") {
		t.Error("a sample that was there already unmarked its day")
	}
	send(sample{"odd", day.Start() + 3, 2.5, nil, nil})
	if marked("odd") || !marked("a") {
		t.Errorf("after a change: odd is marked %v, a %v", marked("odd"), marked("a"))
	}
	same()

	for _, tc := range []struct{ body, want string }{
		{`[`, "not JSON"},
		{`{}`, "array"},
		{`[1]`, "sample 0: want an object"},
		{`[{"point":"x","timestamp":1,"value":1}]`, "timestamp"},
		{fmt.Sprintf(`[{"point":"x","timestamp":%d,"value":1}]`, time.Now().Unix()), "look like seconds"},
		{fmt.Sprintf(`[{"point":"x","timestamp":%d,"value":1}]`, (today + 3).Start()), "to tomorrow"},
		{fmt.Sprintf(`[{"point":"x","timestamp":%d.5,"value":1}]`, day.Start()), "integer"},
		{fmt.Sprintf(`[{"point":"x","timestamp":"%d","value":1}]`, day.Start()), "integer"},
		{fmt.Sprintf(`[{"point":"x","timestamp":%d,"value":"1"}]`, day.Start()), "value"},
		{fmt.Sprintf(`[{"point":"x","timestamp":%d,"value":1e999}]`, day.Start()), "value"},
		{fmt.Sprintf(`[{"point":"x","timestamp":%d,"value":true}]`, day.Start()), "value"},
		{fmt.Sprintf(`[{"point":"x","timestamp":%d}]`, day.Start()), "value"},
		{fmt.Sprintf(`[{"point":"x","timestamp":%d,"value":"toString"}]`, day.Start()), "value"},
		{fmt.Sprintf(`[{"point":"","timestamp":%d,"value":1}]`, day.Start()), "point"},
		{fmt.Sprintf(`[{"point":"a\u0000b","timestamp":%d,"value":1}]`, day.Start()), "point"},
		{fmt.Sprintf(`[{"point":"\ud800","timestamp":%d,"value":1}]`, day.Start()), "point"},
		{fmt.Sprintf(`[{"point":"%s","timestamp":%d,"value":1}]`, strings.Repeat("x", 251), day.Start()), "point"},
		{fmt.Sprintf(`[{"point":"x","timestamp":%d,"value":1,"quality":256}]`, day.Start()), "quality"},
		{fmt.Sprintf(`[{"point":"x","timestamp":%d,"value":1,"quality":null}]`, day.Start()), "quality"},
		{fmt.Sprintf(`[{"point":"x","timestamp":%d,"value":1,"flags":-1}]`, day.Start()), "flags"},
		{fmt.Sprintf(`[{"point":"x","timestamp":%d,"value":1,"ts":2}]`, day.Start()), `unknown field \"ts\"`},
		{fmt.Sprintf(`[{"point":"x","timestamp":%d,"value":1},{"point":"x","timestamp":%d}]`, day.Start(), day.Start()), "sample 1"},
		{"[" + strings.TrimSuffix(strings.Repeat("0,", 10_001), ",") + "]", "10000 at most"},
	} {
		if status, body := post(tc.body); status != 400 || !strings.Contains(body, tc.want) {
			t.Errorf("POST %.100s: %d %s, want %q", tc.body, status, body, tc.want)
		}
	}
	if _, ok := w.ids()["x"]; ok {
		t.Error("a request that was refused created a point")
	}
	same()

	from, to := day.Start(), day.End()
	for _, tc := range []struct {
		method, token, path string
		status              int
		want                string
	}{
		{"GET", "", seriesPath("a", from, to), 401, "Authorization"},
		{"GET", "wrong", seriesPath("a", from, to), 401, "Authorization"},
		{"POST", readToken, "/samples", 401, "Authorization"},
		{"GET", writeToken, seriesPath("a", from, to), 200, "samples"},
		{"GET", readToken, seriesPath("nobody", from, to), 404, "nobody"},
		{"GET", readToken, seriesPath("", from, to), 400, "point"},
		{"GET", readToken, seriesPath("a", to, from), 400, "before"},
		{"GET", readToken, seriesPath("a", from, from), 400, "before"},
		{"GET", readToken, seriesPath("a", day-366, day+1), 400, "366 days"},
		{"GET", readToken, seriesPath("a", day-366, day), 200, "samples"},
		{"GET", readToken, seriesPath("a", "yesterday", to), 400, "from"},
		{"GET", readToken, seriesPath("a", from, "2024-01-05T06:30:00"), 400, "to"}, // whose time?
		{"GET", readToken, seriesPath("a", day, day+1), 200, "samples"},
		{"GET", readToken, seriesPath("a", day.String()+"T00:00:00.000Z", day.String()+"T01:00+01:00"), 400, "before"},
		{"GET", readToken, "/other", 404, "want GET"},
		{"PUT", writeToken, "/samples", 404, "want GET"},
	} {
		if status, body := w.call(tc.method, tc.token, tc.path, ""); status != tc.status || !strings.Contains(body, tc.want) {
			t.Errorf("%s %s: %d %.200s, want %d %q", tc.method, tc.path, status, body, tc.status, tc.want)
		}
	}
	series := func(point string, from, to any) []row {
		t.Helper()
		rows, err := w.series(point, from, to)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	if a, b := series("a", day, day+1), series("a", from, to); !slices.Equal(a, b) {
		t.Error("days and milliseconds differ")
	}

	// A point of one second has more than an answer may hold.
	w.insert("fast", 250_001, func(i int) (int64, any, int, int) { return day.Start() + int64(i)*1000, 1.0, 192, 0 })
	if n := len(series("fast", day, day+2)); n != 172_800 {
		t.Errorf("%d samples of two days, want 172,800", n)
	}
	if status, body := w.call(http.MethodGet, readToken, seriesPath("fast", day, today+1), ""); status != 400 || !strings.Contains(body, "250000") {
		t.Errorf("too many: %d %.200s", status, body)
	}
}
