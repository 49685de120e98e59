//go:build integration

// Package worker_test runs the Worker in Cloudflare's runtime, over an archive
// that the real program makes of the runtime's own D1 database, and compares each
// value it answers with that database.
package worker_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/object/s3"
	"etl/internal/testserver"
	"etl/internal/utc"
)

const (
	readToken, writeToken = "may-read", "may-write"
	hotWindow             = 35 // days, as in series.js
)

// row is a sample; value holds its bits, or null.
type row struct {
	ts, value      int64
	quality, flags int
}

const null = math.MinInt64 // as bits it is -0, which SQLite does not store

// etl is the program.
var etl string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		tmp, err := os.MkdirTemp("", "etl-worker-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(tmp)
		etl = filepath.Join(tmp, "etl")
		if out, err := exec.Command("go", "build", "-tags", "duckdb_arrow", "-o", etl, "etl/cmd/etl").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build etl: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// world is a hot tier in D1, a cold tier in a folder, its copy in R2, and the
// Worker over D1 and R2.
type world struct {
	*testing.T
	cf    *testserver.Cloudflare
	conn  *sqlite.Conn // D1's file, beside the runtime
	store string       // folder of the cold tier
	r2    object.Store
	// truth is what D1 has held of each point, the newest version of each row.
	truth map[string]map[int64]row
}

func newWorld(t *testing.T, prefix string) *world {
	t.Helper()
	w := &world{T: t, store: filepath.Join(t.TempDir(), "store"), truth: map[string]map[int64]row{}}
	vars := map[string]string{"READ_TOKEN": readToken, "WRITE_TOKEN": writeToken}
	if prefix != "" {
		vars["ARCHIVE_PREFIX"] = prefix + "/"
	}
	w.cf = testserver.MiniflareWorker(t, testserver.Options{}, testserver.Worker{Dir: ".", Main: "src/worker.js", D1: "DB", R2: "ARCHIVE", Vars: vars})
	b := w.cf.R2
	var err error
	if w.r2, err = s3.Open(s3.Options{Endpoint: b.URL, Region: b.Region, Bucket: b.Bucket, Prefix: prefix, AccessKey: b.AccessKey, Secret: b.Secret, PathStyle: true}); err != nil {
		t.Fatal(err)
	}
	w.run("migrate")
	if w.conn, err = sqlite.OpenConn(w.cf.SQLitePath, sqlite.OpenReadWrite); err != nil {
		t.Fatal(err)
	}
	w.conn.SetBusyTimeout(10 * time.Second)
	t.Cleanup(func() { w.conn.Close() })
	return w
}

// run runs etl.
func (w *world) run(args ...string) {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), etl, args...)
	cmd.Env = append(os.Environ(), "ETL_SOURCE=sqlite:"+w.cf.SQLitePath, "ETL_STORE=file:"+w.store,
		"AWS_ACCESS_KEY_ID="+w.cf.R2.AccessKey, "AWS_SECRET_ACCESS_KEY="+w.cf.R2.Secret)
	cmd.Dir = w.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("etl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func days(d utc.Days) []string { return []string{"--from", d.From.String(), "--to", d.To.String()} }

func (w *world) exec(sql string, args ...any) {
	w.Helper()
	if err := sqlitex.Execute(w.conn, sql, &sqlitex.ExecOptions{Args: args}); err != nil {
		w.Fatal(err)
	}
}

// script runs statements in one transaction.
func (w *world) script(sql string) {
	w.Helper()
	if err := sqlitex.ExecuteScript(w.conn, sql, nil); err != nil {
		w.Fatal(err)
	}
}

// insert writes samples into D1, all at once. An Infinity is a float64 here, a NULL nil.
func (w *world) insert(point string, n int, sample func(i int) (ts int64, value any, quality, flags int)) {
	w.Helper()
	end, err := sqlitex.ImmediateTransaction(w.conn)
	if err != nil {
		w.Fatal(err)
	}
	defer end(&err)
	w.exec("INSERT INTO points (name) SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM points WHERE name = ?1)", point)
	for i := range n {
		ts, value, quality, flags := sample(i)
		w.exec(`INSERT INTO timeseries SELECT id, ?2, ?3, ?4, ?5 FROM points WHERE name = ?1
			ON CONFLICT DO UPDATE SET value = excluded.value, quality = excluded.quality, flags = excluded.flags`, point, ts, value, quality, flags)
	}
}

// note adds what D1 holds now to the truth.
func (w *world) note() {
	w.Helper()
	if err := sqlitex.Execute(w.conn, "SELECT p.name, t.timestamp, t.value, t.quality, t.flags FROM points p JOIN timeseries t ON t.point_id = p.id",
		&sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
			r := row{s.ColumnInt64(1), null, s.ColumnInt(3), s.ColumnInt(4)}
			if s.ColumnType(2) != sqlite.TypeNull {
				r.value = int64(math.Float64bits(s.ColumnFloat(2)))
			}
			name := s.ColumnText(0)
			if w.truth[name] == nil {
				w.truth[name] = map[int64]row{}
			}
			w.truth[name][r.ts] = r
			return nil
		}}); err != nil {
		w.Fatal(err)
	}
}

// upload copies the cold tier into R2, month files first; only what f wants.
func (w *world) upload(f func(object.Key) bool) {
	w.Helper()
	cold, err := dir.Open(w.store)
	if err != nil {
		w.Fatal(err)
	}
	var keys []object.Key
	for a, err := range cold.List(w.Context(), "") {
		if err != nil {
			w.Fatal(err)
		}
		if f(a.Key) {
			keys = append(keys, a.Key)
		}
	}
	slices.SortFunc(keys, func(a, b object.Key) int {
		return cmp.Or(cmp.Compare(b[:1], a[:1]), cmp.Compare(a, b)) // "t" before "_"
	})
	for _, k := range keys {
		data, _, err := cold.Get(w.Context(), k)
		if err != nil {
			w.Fatal(err)
		}
		w.put(k, data)
	}
}

func all(object.Key) bool { return true }

func monthFiles(k object.Key) bool { return strings.HasPrefix(string(k), "timeseries/") }

func (w *world) put(k object.Key, data []byte) {
	w.Helper()
	if _, err := w.r2.Put(w.Context(), k, data, object.PutOptions{}); err != nil {
		w.Fatal(err)
	}
}

// ask sends a request to the Worker.
func (w *world) ask(method, token, path, body string) (int, string, error) {
	r, err := http.NewRequestWithContext(w.Context(), method, w.cf.WorkerURL+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

func (w *world) call(method, token, path, body string) (int, string) {
	w.Helper()
	status, answer, err := w.ask(method, token, path, body)
	if err != nil {
		w.Fatal(err)
	}
	return status, answer
}

func seriesPath(point string, from, to any) string {
	return "/series?" + url.Values{"point": {point}, "from": {fmt.Sprint(from)}, "to": {fmt.Sprint(to)}}.Encode()
}

// series asks the Worker for [from, to) of a point.
func (w *world) series(point string, from, to any) ([]row, error) {
	status, body, err := w.ask("GET", readToken, seriesPath(point, from, to), "")
	if err != nil || status != 200 {
		return nil, fmt.Errorf("GET %s: %d %.300s %w", seriesPath(point, from, to), status, body, err)
	}
	var answer struct {
		Samples []struct {
			Timestamp      int64
			Value          json.RawMessage
			Quality, Flags int
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return nil, fmt.Errorf("%w in %.300s", err, body)
	}
	out := make([]row, len(answer.Samples))
	for i, s := range answer.Samples {
		out[i] = row{s.Timestamp, null, s.Quality, s.Flags}
		if string(s.Value) != "null" {
			f, err := strconv.ParseFloat(strings.Trim(string(s.Value), `"`), 64)
			if err != nil {
				return nil, err
			}
			out[i].value = int64(math.Float64bits(f))
		}
	}
	return out, nil
}

// differs says where an answer is not what the rows of a point are.
func (w *world) differs(point string, from, to int64, rows map[int64]row) error {
	got, err := w.series(point, from, to)
	if err != nil {
		return err
	}
	var want []row
	for _, ts := range slices.Sorted(maps.Keys(rows)) {
		if ts >= from && ts < to {
			want = append(want, rows[ts])
		}
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			return fmt.Errorf("%s from %d to %d: %d rows, want %d; from row %d they are %+v, want %+v", point, from, to, len(got), len(want),
				i, got[min(i, len(got)):min(i+2, len(got))], want[min(i, len(want)):min(i+2, len(want))])
		}
	}
	return nil
}

func (w *world) compare(point string, from, to int64, rows map[int64]row) {
	w.Helper()
	if err := w.differs(point, from, to, rows); err != nil {
		w.Fatal(err)
	}
}

// check compares a point's rows of each month of span, and of windows at random
// whose edges lie on and beside rows and midnights, with the truth.
func (w *world) check(point string, span utc.Days, rng *rand.Rand) {
	w.Helper()
	want := w.truth[point]
	for _, m := range span.Months() {
		w.compare(point, m.First().Start(), (m + 1).First().Start(), want)
	}
	edges := slices.Sorted(maps.Keys(want))
	edge := func() int64 {
		at := (span.From + utc.Day(rng.IntN(int(span.To-span.From)))).Start()
		if len(edges) > 0 && rng.IntN(2) == 0 {
			at = edges[rng.IntN(len(edges))]
		}
		return at + int64(rng.IntN(3)) - 1
	}
	for range 12 {
		from := edge()
		to := from + 1 + rng.Int64N(5*utc.DayMillis)
		if rng.IntN(3) == 0 {
			to = max(edge(), from+1)
			to = min(to, from+20*utc.DayMillis)
		}
		w.compare(point, from, to, want)
	}
}
