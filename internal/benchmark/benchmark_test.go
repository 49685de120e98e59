package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"etl/internal/cloudflare"
	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/fleet"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/source/d1"
	"etl/internal/source/sqlite"
	"etl/internal/utc"
	"etl/manifests"
)

// fakeEtl makes this test binary act as the etl; its value "lossy" makes it lose
// a sample, "wrong" change one that comes from D1.
const fakeEtl = "BENCHMARK_TEST_ETL"

// TestMain lets the test binary stand for both kinds of child.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == childArg:
		main()
	case os.Getenv(fakeEtl) != "" && len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-"):
		if err := actAsEtl(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		os.Exit(m.Run())
	}
}

type fakePoint struct {
	ID      int64  `json:"id"`
	Path    string `json:"path"`
	Bytes   int64  `json:"bytes"`
	Samples int64  `json:"samples"`
	Rows    string `json:"rows_sha256"` // the sum of the values
}

// actAsStatus says how many samples the manifests count.
func actAsStatus(root string) error {
	names, err := filepath.Glob(filepath.Join(root, "_manifests", "*-*.json"))
	if err != nil {
		return err
	}
	var samples int64
	for _, name := range names {
		var manifest struct{ Points []fakePoint }
		data, err := os.ReadFile(name)
		if err == nil {
			err = json.Unmarshal(data, &manifest)
		}
		if err != nil {
			return err
		}
		for _, p := range manifest.Points {
			samples += p.Samples
		}
	}
	var lines []map[string]any
	for _, name := range []string{"backlog", "late", "silent", "quality", "size", "freshness"} {
		lines = append(lines, map[string]any{"name": name, "value": 0})
	}
	lines = append(lines, map[string]any{"name": "cold", "text": fmt.Sprintf("files, %s samples", count(samples))})
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"lines": lines})
}

// actAsEtl counts rows instead of archiving them: a month file is one byte a sample.
func actAsEtl(command string, args []string) error {
	if command == "query" {
		fmt.Print("one\n1\n")
		return nil
	}
	fl := flag.NewFlagSet(command, flag.ContinueOnError)
	place, store := fl.String("source", "", ""), fl.String("store", "", "")
	day, from, to := fl.String("day", "", ""), fl.String("from", "", ""), fl.String("to", "", "")
	now := fl.String("now", "", "")
	fl.Bool("json", false, "")
	fl.String("limit-freshness", "", "")
	if err := fl.Parse(args); err != nil {
		return err
	}
	if command == "version" {
		fmt.Println("etl 9.9.9 (fake)")
		return nil
	}
	src, err := openSource(*place)
	if err != nil {
		return err
	}
	defer src.Close()
	ctx := context.Background()
	if command == "migrate" {
		_, err := src.(source.Migrator).Migrate(ctx)
		return err
	}
	root := strings.TrimPrefix(*store, "file:")
	if command == "status" {
		return actAsStatus(root)
	}
	if *day != "" {
		*from = *day
	} else if *from == "" { // the hot window
		t, err := time.Parse(time.RFC3339, *now)
		if err != nil {
			return err
		}
		*from, *to = (utc.DayOfTime(t) - 35).String(), utc.DayOfTime(t).String()
	}
	a, err := utc.ParseDay(*from)
	if err != nil {
		return err
	}
	b := a + 1
	if *to != "" {
		if b, err = utc.ParseDay(*to); err != nil {
			return err
		}
	}
	for _, m := range (utc.Days{From: a, To: b}).Months() {
		days := m.Days().Intersect(utc.Days{From: a, To: b})
		name := filepath.Join(root, "_manifests", m.String()+".json")
		var manifest struct {
			Points []fakePoint `json:"points"`
		}
		if data, err := os.ReadFile(name); err == nil {
			if err := json.Unmarshal(data, &manifest); err != nil {
				return err
			}
		}
		old := map[int64]int64{}
		for _, p := range manifest.Points {
			old[p.ID] = p.Samples
		}
		manifest.Points = nil
		points, _, err := src.Points(ctx)
		if err != nil {
			return err
		}
		for _, point := range points {
			p := fakePoint{ID: int64(point.ID), Path: fmt.Sprintf("timeseries/%s/p%d.parquet", m, point.ID), Samples: old[int64(point.ID)]}
			sum := 0.0
			_, err := src.Read(ctx, source.Query{Points: []int32{point.ID}, Days: days}, func(b *sample.Batch) error {
				p.Samples += int64(b.Len())
				for _, v := range b.Value {
					sum += v
				}
				return nil
			})
			if err != nil {
				return err
			}
			p.Bytes, p.Rows = p.Samples, fmt.Sprint(sum)
			manifest.Points = append(manifest.Points, p)
			if err := replace(filepath.Join(root, p.Path), make([]byte, p.Bytes)); err != nil {
				return err
			}
		}
		switch {
		case os.Getenv(fakeEtl) == "lossy":
			manifest.Points[0].Samples--
		case os.Getenv(fakeEtl) == "wrong" && strings.HasPrefix(*place, "d1:"):
			manifest.Points[0].Rows += "1"
		}
		data, err := json.Marshal(manifest)
		if err != nil {
			return err
		}
		if err := replace(name, data); err != nil {
			return err
		}
	}
	fmt.Println(`{"billed":{"requests":42,"rows_read":8000,"rows_written":9}}`)
	return nil
}

type fakeSource interface {
	source.Source
	Close() error
}

func openSource(text string) (fakeSource, error) {
	kind, place, _ := strings.Cut(text, ":")
	if kind == "sqlite" {
		return sqlite.Open(place, sqlite.Options{Create: true})
	}
	c, err := cloudflare.New(os.Getenv("CLOUDFLARE_ACCOUNT_ID"), os.Getenv("CLOUDFLARE_API_TOKEN"), cloudflare.Options{URL: os.Getenv("CLOUDFLARE_API_BASE_URL")})
	if err != nil {
		return nil, err
	}
	return d1.Open(c.Database(strings.TrimPrefix(place, "//")), d1.Options{}), nil
}

// replace writes a file as a store does: never in place.
func replace(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(name+".tmp", data, 0o644); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

// writeSet makes a data set: two points over a month's end, a value replaced, one missing.
func writeSet(t *testing.T, path string) {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	start := utc.MonthOf(2021, 2).First().Start() - 10*60_000
	fmt.Fprintln(z, "point_name,timestamp_ms,value")
	for k := range int64(20) {
		fmt.Fprintf(z, "a,%d,%d.5\nb,%d,\n", start+k*60_000, k, start+k*60_000)
	}
	fmt.Fprintf(z, "a,%d,-1\n", start)
	if err := errors.Join(z.Close(), os.WriteFile(path, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestReadSet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.csv.gz")
	writeSet(t, path)
	names, series, err := readSet(path)
	if err != nil || fmt.Sprint(names) != "[a b]" || series[0].Len() != 20 || series[1].Len() != 20 {
		t.Fatalf("%v %v %d", err, names, len(series))
	}
	if series[0].Value[0] != -1 || series[0].Value[19] != 19.5 || series[1].Value[3] == series[1].Value[3] || series[1].Quality[0] != 192 {
		t.Errorf("%v", series)
	}
	if err := os.WriteFile(path, []byte("no gzip"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readSet(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("not gzip: %v", err)
	}
}

// TestRun runs the whole program on a toy fleet, this binary standing for the etl.
func TestRun(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(fakeEtl, "1")
	root := t.TempDir()
	sets := filepath.Join(root, "it's sets")
	if err := os.Mkdir(sets, 0o755); err != nil {
		t.Fatal(err)
	}
	writeSet(t, filepath.Join(sets, "toy.csv.gz"))
	dir, md := filepath.Join(root, "it's bench"), filepath.Join(root, "b.md")
	args := []string{"-quick", "-points", "5", "-days", "2", "-dir", dir, "-etl", self, "-md", md, "-sets", sets, "-versitygw", filepath.Join(root, "none")}
	var out, log bytes.Buffer
	if err := run(t.Context(), args, &out, &log); err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	for _, want := range []string{
		"one day, 5 points (0.0072 M rows), fresh month", "one day, 10 points", "one day from D1, 5 points", "its requests (8,000 rows read, 9 written)", "  42  ", "into a month of 1 days", "backfill of 2 days",
		"etl query", "planning and selection, 1 of 175 catalog rows",
		"etl status, 5 points, 0.0144 M rows in SQLite, archived",
		"audit of 0.216 M rows, nothing cached", "beside DuckDB's average by point", "audit --fast, 366 days of 5 points",
		"bytes of toy (40 samples, 4 files)", "bytes of all 1 sets", "not judged",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &out)
		}
	}
	text, err := os.ReadFile(md)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"etl 9.9.9 (fake)", "DuckDB v1.", " cores", "| backfill of 2 days", "run 3", "merge over S3: skipped, versitygw is not installed"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the document lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), root) {
		t.Errorf("the document names a path of this machine:\n%s", text)
	}
	if !strings.Contains(log.String(), "building fleet-5x2.sqlite") {
		t.Errorf("log:\n%s", &log)
	}
	if _, err := os.Stat(filepath.Join(dir, "runs")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("runs were left behind: %v", err)
	}

	// The data is taken again, and a store that lacks a sample is no figure.
	log.Reset()
	t.Setenv(fakeEtl, "lossy")
	err = run(t.Context(), args, io.Discard, &log)
	if err == nil || !strings.Contains(err.Error(), "holds 7199 samples, want 7200") {
		t.Errorf("a lossy etl: %v", err)
	}
	if strings.Contains(log.String(), "building") {
		t.Errorf("data was built again:\n%s", &log)
	}
	t.Setenv(fakeEtl, "wrong")
	err = run(t.Context(), args, io.Discard, &log)
	if err == nil || !strings.Contains(err.Error(), "holds other rows") {
		t.Errorf("an etl that changes what comes from D1: %v", err)
	}
	// Without its stamp a database is not trusted.
	if err := os.Remove(filepath.Join(dir, "fleet-5x2.sqlite.stamp")); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	_ = run(t.Context(), args, io.Discard, &log)
	if !strings.Contains(log.String(), "building fleet-5x2.sqlite") {
		t.Errorf("data without a stamp was taken:\n%s", &log)
	}
}

// TestPages reads the same day from prepared bytes and from SQLite. It is more
// than a page, the first of which ends within a point.
func TestPages(t *testing.T) {
	ctx := t.Context()
	f, err := fleet.New(fleet.Bench(80, 2))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "d1.sqlite")
	db, err := sqlite.Open(path, sqlite.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteSQLite(ctx, path, f.Days(), fleet.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	day := f.Days().From + 1
	a, stop, err := serveD1(ctx, d1Options{path, f.Options(), day})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	c, err := cloudflare.New(cloudflaretest.Account, cloudflaretest.Token, cloudflare.Options{URL: a.URL})
	if err != nil {
		t.Fatal(err)
	}
	remote := d1.Open(c.Database(cloudflaretest.Database), d1.Options{})
	q := source.Query{Days: utc.Days{From: day, To: day + 1}}
	for _, p := range f.Points() {
		q.Points = append(q.Points, p.ID)
	}
	all := func(s source.Source) (b sample.Batch) {
		pages := 0
		if _, err := s.Read(ctx, q, func(page *sample.Batch) error {
			pages++
			b.PointID = append(b.PointID, page.PointID...)
			b.AppendRange(&page.Series, 0, page.Len())
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if pages < 2 {
			t.Errorf("all rows came in %d pages", pages)
		}
		return b
	}
	got, want := all(remote), all(db)
	if got.Len() != 80*1440 || !slices.Equal(got.PointID, want.PointID) || got.RowsSHA256() != want.RowsSHA256() {
		t.Errorf("%d rows of the pages are not the %d rows of the database", got.Len(), want.Len())
	}
	q.Days = utc.Days{From: day - 1, To: day}
	if _, err := remote.Read(ctx, q, func(*sample.Batch) error { return nil }); err == nil || !strings.Contains(err.Error(), "another day") {
		t.Errorf("a day that is not prepared: %v", err)
	}
	for _, text := range []string{"SELECT p, 1", "SELECT p,x FROM (SELECT point_id p FROM timeseries WHERE point_id IN (2,1) AND timestamp >= 0 AND timestamp < 1 ORDER BY 1,2 LIMIT 5)"} {
		if _, err := parseRead(text); err == nil {
			t.Errorf("%s is taken for a read", text)
		}
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{
		{"-days", "1"}, {"-days", "31"}, {"-points", "0"}, {"rest"}, {"-nonsense"}, {"-etl", "/nonexistent/etl"}, {childArg}, {childArg, "what", "{}"}, {childArg, "load", "{"},
	} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

func TestMeasure(t *testing.T) {
	c, err := measure(t.Context(), nil, io.Discard, io.Discard, "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.05")
	if err != nil {
		t.Skipf("no shell to measure: %v", err)
	}
	if c.Wall < 50*time.Millisecond || c.CPU <= 0 || c.CPU > c.Wall+time.Second || c.RSS < 1<<19 || c.RSS > 1<<30 {
		t.Errorf("%+v", c)
	}
	_, err = measure(t.Context(), nil, io.Discard, io.Discard, "sh", "-c", "echo why >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "why") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("failing program: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := measure(ctx, nil, io.Discard, io.Discard, "sleep", "60"); err == nil {
		t.Error("a cancelled run ended well")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []int64
		want int64
	}{{[]int64{5}, 5}, {[]int64{9, 1, 5}, 5}, {[]int64{4, 3, 2, 1}, 2}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median of %v is %d", c.in, got)
		}
	}
	m := medianCost([]cost{{3, 10, 7}, {1, 30, 9}, {2, 20, 8}})
	if m != (cost{2, 20, 9}) {
		t.Errorf("%+v", m)
	}
}

func TestVerdicts(t *testing.T) {
	r := report{}
	r.ratio("a", "1", "2", 0.849, 0.85)
	r.ratio("b", "1", "2", 1.01, 1)
	r.most("c", 512<<20, 512<<20)
	r.size("d", 86, 100, 10, 1, 0.85)
	var got []string
	for _, row := range r.table()[1:] {
		got = append(got, row[3]+" "+row[4]+" "+row[5])
	}
	want := "0.85× ≤ 0.85× met|1.01× ≤ 1× missed| ≤ 512 MiB met|0.86× ≤ 0.85× missed"
	if strings.Join(got, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "|"), want)
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 194400000: "194,400,000"} {
		if count(n) != want {
			t.Errorf("count(%d) = %s", n, count(n))
		}
	}
}

func TestBaselineRows(t *testing.T) {
	ctx := t.Context()
	db, conn, err := openDuck(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	defer conn.Close()
	s := sample.Series{TS: []int64{-1, 0, 1_712_000_000_123}, Value: []float64{1.5, sample.Null, -2}, Quality: []uint8{192, 0, 255}, Flags: []uint16{0, 65535, 1}}
	err = fill(ctx, conn, "t", func(yield func(int32, *sample.Series) error) error { return yield(7, &s) })
	if err != nil {
		t.Fatal(err)
	}
	var got string
	err = conn.QueryRowContext(ctx, `SELECT string_agg(concat_ws(' ', point_id, epoch_ms(timestamp), coalesce(value::text, 'NULL'), quality, flags), '|' ORDER BY timestamp) FROM t`).Scan(&got)
	if want := "7 -1 1.5 192 0|7 0 NULL 0 65535|7 1712000000123 -2.0 255 1"; err != nil || got != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
	}
}

// TestLake makes a small lake in a folder and asks it all queries of the table.
func TestLake(t *testing.T) {
	ctx, root := t.Context(), t.TempDir()
	o := lakeOptions{Points: 20, Full: 10, Store: storeOptions{Bucket: filepath.Join(root, "store")}, Hot: filepath.Join(root, "hot.sqlite")}
	size, err := makeLake(ctx, o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if size.Files != 20*lakeMonths || size.LastRows != 20*30*1440 || size.HotRows != 20*36*60 {
		t.Errorf("%+v", size)
	}
	rows := map[string]int64{"latest value of every point of one system": 2, "24 h of one point": 1440, "90 days of one point": 90 * 1440,
		"1 year of one point": 365 * 1440, "1 year, 10 points, hourly averages": 365 * 24 * 10, "one month, all points, average by point": 20}
	cache := filepath.Join(root, "cache")
	for _, q := range allQueries() {
		a, err := query(ctx, queryOptions{Store: o.Store, Hot: o.Hot, Cache: cache, SQL: q.sql, Manifests: true, Runs: 2}, io.Discard)
		if err != nil {
			t.Fatalf("%s: %v", q.name, err)
		}
		for i, r := range a.Runs {
			if r.Stats.Rows != rows[q.name] {
				t.Errorf("%s, run %d: %d rows, want %d", q.name, i, r.Stats.Rows, rows[q.name])
			}
		}
	}
	month := filepath.Join(root, "month")
	qs := allQueries()
	a, err := query(ctx, queryOptions{Store: o.Store, Hot: o.Hot, Cache: month, SQL: qs[len(qs)-1].sql, Runs: 1}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if a.Runs[0].Stats.HotRows != 0 || a.Runs[0].Stats.Files != 20 {
		t.Errorf("a marked month: %+v", a.Runs[0].Stats)
	}
	p, err := pull(ctx, pullOptions{o.Store, manifests.DirOf(lastMonth), 4}, io.Discard)
	if err != nil || p.Files != 20 || p.Bytes != size.LastBytes {
		t.Errorf("%+v %v, want 20 files of %d bytes", p, err, size.LastBytes)
	}
}
