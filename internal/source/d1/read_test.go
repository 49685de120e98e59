package d1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	zsqlite "zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/cloudflare"
	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/source/sourcetest"
	"etl/internal/source/sqlite"
	"etl/internal/utc"
)

// pagesOf are pages of so many rows, always.
func pagesOf(rows int) *pages { return &pages{least: rows, rows: rows, most: rows, limit: rows} }

// loose is a timeseries in which any column takes values of any class, as a
// database may have that was there before the schema of this program.
const loose = `DROP TABLE timeseries; CREATE TABLE timeseries (point_id, timestamp, value, quality, flags, UNIQUE (point_id, timestamp));`

// both opens a database as a D1 source and, beside it, as a file.
func both(t testing.TB, script string) (*cloudflaretest.Server, *Source, *sqlite.Source, *zsqlite.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hot.db")
	srv := cloudflaretest.Start(t, path, cloudflaretest.Options{})
	srv.Exec(t, schema()+script)
	file, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	conn, err := zsqlite.OpenConn(path, zsqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return srv, reopen(t, srv, Options{}), file, conn
}

// row is a row as any source may deliver it.
type anyRow struct {
	id, ts, value, quality, flags any
	reason                        string
}

// readAny is everything that a read delivers, samples and rejects apart, both in order.
func readAny(ctx context.Context, s source.Source, q source.Query) (samples, rejects []anyRow, stats source.Stats, err error) {
	stats, err = s.Read(ctx, q, func(b *sample.Batch) error {
		for i, id := range b.PointID {
			v := b.Value[i]
			if v != v {
				v = sample.Null
			}
			samples = append(samples, anyRow{id: id, ts: b.TS[i], value: math.Float64bits(v), quality: b.Quality[i], flags: b.Flags[i]})
		}
		for _, r := range b.Rejects {
			rejects = append(rejects, anyRow{r.PointID.V, r.Timestamp.V, r.Value.V, r.Quality.V, r.Flags.V, r.Reason})
		}
		return nil
	})
	return samples, rejects, stats, err
}

func equalRows(t testing.TB, what string, got, want []anyRow) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("%s: row %d is %#v, want %#v", what, i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
}

// randomCell is a value of any class, with a liking for the edges.
func randomCell(r *rand.Rand) any {
	switch r.IntN(8) {
	case 0:
		return nil
	case 1:
		return []int64{0, 255, 256, 65535, 65536, -1, 1 << 53, 1<<53 + 1, -1 << 53, -1<<53 - 1, math.MaxInt64, math.MinInt64}[r.IntN(12)]
	case 2:
		return int64(r.Uint64()) >> r.IntN(64)
	case 3:
		return float64(r.IntN(600) - 100) // an integer of class REAL
	case 4, 5:
		return randomFloat(r)
	case 6:
		b := make([]byte, r.IntN(6))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	return []string{"", "5", "abc", "a\x00b", "\xff\xfe", "it's", `"\`, "\u00e9\U0001f321", "n", "i5", "rInf", "\ufffd", "NULL", "9e999"}[r.IntN(14)]
}

func insertAny(t testing.TB, conn *zsqlite.Conn, rows []anyRow) {
	t.Helper()
	defer sqlitex.Save(conn)(new(error))
	for _, r := range rows {
		if err := sqlitex.Execute(conn, "INSERT OR IGNORE INTO timeseries VALUES (?,?,?,?,?)",
			&sqlitex.ExecOptions{Args: []any{r.id, r.ts, r.value, r.quality, r.flags}}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReadModel: whatever the table holds, in pages of whatever size, what comes
// over JSON is what the file holds, cell by cell, rejects and their reasons
// included. The model is the source that reads files.
func TestReadModel(t *testing.T) {
	for name, script := range map[string]string{"strict": "", "loose": loose} {
		t.Run(name, func(t *testing.T) {
			_, s, file, conn := both(t, script)
			r := random(t)
			for range 12 {
				if err := sqlitex.ExecuteTransient(conn, "DELETE FROM timeseries", nil); err != nil {
					t.Fatal(err)
				}
				var rows []anyRow
				for id := int64(-1); id < 6; id++ {
					ts := d0.Start() - 2
					for range r.IntN(40) {
						ts += []int64{0, 1, 1, 1, 7, utc.DayMillis / 9}[r.IntN(6)]
						row := anyRow{id: id, ts: ts, value: randomFloat(r), quality: int64(r.IntN(256)), flags: int64(r.IntN(65536))}
						switch r.IntN(4) {
						case 0:
							row.ts = float64(ts) + []float64{0, 0.5, 1.0 / 4096, 0.9997, r.Float64()}[r.IntN(5)]
						case 1:
							row.value = randomCell(r)
						case 2:
							cell := []*any{&row.value, &row.quality, &row.flags}[r.IntN(3)]
							*cell = randomCell(r)
						}
						if name == "strict" && (row.quality == nil || row.flags == nil) {
							continue // NOT NULL
						}
						rows = append(rows, row)
					}
				}
				insertAny(t, conn, rows)
				for range 6 {
					q := source.Query{Days: utc.Days{From: d0 - utc.Day(r.IntN(2)), To: d0 + utc.Day(r.IntN(3))}}
					for id := int32(-2); id < 7; id++ {
						if r.IntN(4) > 0 {
							q.Points = append(q.Points, id)
						}
					}
					wantS, wantR, wantStats, err := readAny(t.Context(), file, q)
					if err != nil {
						t.Fatal(err)
					}
					s.pages = pagesOf([]int{1, 2, 3, 7, 1000}[r.IntN(5)])
					gotS, gotR, stats, err := readAny(t.Context(), s, q)
					if err != nil {
						t.Fatalf("pages of %d: %v", s.pages.rows, err)
					}
					equalRows(t, "samples", gotS, wantS)
					equalRows(t, "rejects", gotR, wantR)
					if pages := int64(len(gotS)+len(gotR))/int64(s.pages.rows) + 1; stats.Rows != wantStats.Rows || len(q.Points) > 0 && !q.Days.Empty() && stats.Requests != pages {
						t.Errorf("stats %+v, want %d rows in %d pages", stats, wantStats.Rows, pages)
					}
				}
			}
		})
	}
}

// TestReadReals: a hundred thousand reals of any size come over as they are, as
// values and, where a literal carries them, in a reject.
func TestReadReals(t *testing.T) {
	_, s, file, conn := both(t, loose)
	r := random(t)
	var rows []anyRow
	for i := range int64(50_000) {
		rows = append(rows, anyRow{id: int64(1), ts: d0.Start() + i, value: randomFloat(r), quality: int64(192), flags: int64(0)},
			anyRow{id: int64(2), ts: d0.Start() + i, value: int64(0), quality: randomFloat(r), flags: int64(0)})
	}
	insertAny(t, conn, rows)
	q := source.Query{Points: []int32{1, 2}, Days: oneDay}
	wantS, wantR, _, err := readAny(t.Context(), file, q)
	if err != nil {
		t.Fatal(err)
	}
	gotS, gotR, _, err := readAny(t.Context(), s, q)
	if err != nil || len(gotR) < 40_000 {
		t.Fatalf("%d rejects, %v", len(gotR), err)
	}
	equalRows(t, "samples", gotS, wantS)
	equalRows(t, "rejects", gotR, wantR)
}

// TestReadLargeCells: text and blobs as large as D1 holds are recorded whole.
func TestReadLargeCells(t *testing.T) {
	_, s, file, conn := both(t, "")
	text := strings.Repeat("\x00\xffé", 499_980) // 1,999,920 bytes, a row has 2,000,000
	short := text[:hexBytes]
	for i, row := range []anyRow{{value: text}, {value: []byte(text)}, {value: 1.5, flags: text}, {value: 1.5, quality: []byte(text)}, {value: short}, {value: int64(5), flags: short + "x"}, {value: 2.5}} {
		row.id, row.ts = int64(1), d0.Start()+int64(i)
		for _, c := range []*any{&row.quality, &row.flags} {
			if *c == nil {
				*c = int64(i)
			}
		}
		insertAny(t, conn, []anyRow{row})
	}
	q := source.Query{Points: []int32{1}, Days: oneDay}
	wantS, wantR, _, err := readAny(t.Context(), file, q)
	if err != nil {
		t.Fatal(err)
	}
	s.pages = pagesOf(2)
	gotS, gotR, _, err := readAny(t.Context(), s, q)
	if err != nil || len(gotR) != 6 {
		t.Fatalf("%d rejects, %v", len(gotR), err)
	}
	equalRows(t, "samples", gotS, wantS)
	equalRows(t, "rejects", gotR, wantR)
}

// small is a database of three points with ten rows each, some rejects, and what
// a read of it delivers.
func small(t testing.TB) (srv *cloudflaretest.Server, s *Source, q source.Query, samples, rejects []anyRow) {
	t.Helper()
	srv, s, file, _ := both(t, fmt.Sprintf(`WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < 9)
		INSERT INTO timeseries SELECT p.value, %d + n * 60000 + iif(n %% 4 = 3, 0.5, 0), iif(n %% 3 = 0, NULL, n / 8.0), 192, iif(n = 5, 'x', n)
		FROM json_each('[1,2,3]') p CROSS JOIN i`, d0.Start()))
	q = source.Query{Points: []int32{1, 2, 3}, Days: oneDay}
	samples, rejects, _, err := readAny(t.Context(), file, q)
	if err != nil || len(samples) != 21 || len(rejects) != 9 {
		t.Fatalf("%d samples, %d rejects, %v", len(samples), len(rejects), err)
	}
	if _, err := s.inspected(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	return srv, s, q, samples, rejects
}

// TestReadFaults: each fault that passes, at each request of a read, leaves the
// result as it is, and costs one more request.
func TestReadFaults(t *testing.T) {
	srv, s, q, samples, rejects := small(t)
	tried := 0
	for _, f := range cloudflaretest.Faults() {
		for at := range 4 {
			s.pages = pagesOf(9)
			srv.On(func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
				if n == at {
					return f.Fault
				}
				return nil
			})
			gotS, gotR, stats, err := readAny(t.Context(), s, q)
			if err != nil {
				t.Errorf("%s at request %d: %v", f.Name, at, err)
				continue
			}
			equalRows(t, f.Name, gotS, samples)
			equalRows(t, f.Name, gotR, rejects)
			if stats.Requests != int64(srv.Requests()) || stats.Requests < 4 {
				t.Errorf("%s at request %d: stats count %d requests, the server %d", f.Name, at, stats.Requests, srv.Requests())
			}
			tried++
		}
	}
	t.Logf("%d faults", tried)
}

// TestReadCut: wherever an answer is cut, the read repeats it.
func TestReadCut(t *testing.T) {
	srv, s, q, samples, rejects := small(t)
	for cut := 1; cut < 1200; cut += 13 {
		s.pages = pagesOf(17)
		srv.On(func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
			if n == 1 {
				return &cloudflaretest.Fault{Cut: cut}
			}
			return nil
		})
		gotS, gotR, _, err := readAny(t.Context(), s, q)
		if err != nil || srv.Requests() != 3 {
			t.Fatalf("cut after %d bytes: %v, %d requests", cut, err, srv.Requests())
		}
		equalRows(t, "cut", gotS, samples)
		equalRows(t, "cut", gotR, rejects)
	}
}

// TestReadFails: what does not pass ends the read with the right error, and what
// was delivered before is a prefix.
func TestReadFails(t *testing.T) {
	srv, s, q, samples, _ := small(t)
	edit := func(old, new string) *cloudflaretest.Fault {
		return &cloudflaretest.Fault{Edit: func(b []byte) []byte { return []byte(strings.Replace(string(b), old, new, 1)) }}
	}
	for _, c := range []struct {
		name     string
		fault    *cloudflaretest.Fault
		kind     fault.Kind
		text     string
		requests int // at most
	}{
		{"an expired token", cloudflaretest.ExpiredToken(), fault.Unavailable, "Authentication", 1},
		{"wrong columns", cloudflaretest.WrongColumns("ts"), fault.Invalid, `"something_else"`, 1},
		{"an error of SQL", cloudflaretest.Fails(400, 7500, "no such table: timeseries: SQLITE_ERROR"), fault.Invalid, "no such table", 1},
		{"no database", cloudflaretest.Fails(404, 7404, "The database could not be found"), fault.NotExist, "could not be found", 1},
		{"the daily limit", cloudflaretest.Fails(429, 7500, "exceeded the daily row read limit"), fault.Unavailable, "daily", 1},
		{"overloaded for good", cloudflaretest.Fails(429, 7429, "D1 DB is overloaded"), fault.Transient, "overloaded", 20},
		{"resets for good", &cloudflaretest.Fault{Reset: true}, fault.Transient, "given up", 20},
		{"another order", edit(fmt.Sprintf(",%d,", d0.Start()+60_000), fmt.Sprintf(",%d,", d0.Start()-1)), fault.Internal, "not asked for", 1},
		{"rows twice", &cloudflaretest.Fault{Edit: func(b []byte) []byte {
			head, rest, _ := strings.Cut(string(b), `"rows":[`)
			row, _, _ := strings.Cut(rest, "]")
			return []byte(head + `"rows":[` + row + "]," + rest)
		}}, fault.Internal, "out of order", 1},
		{"a wide row", edit(`"rows":[[`, `"rows":[[7,`), fault.Invalid, "5 cells", 1},
	} {
		for at := range 2 {
			s.pages = pagesOf(9)
			srv.On(func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
				if n >= at && (at == 0 || c.name != "another order") {
					return c.fault
				}
				return nil
			})
			got, _, _, err := readAny(t.Context(), s, q)
			if at == 1 && c.name == "another order" {
				continue // the row is in the first page
			}
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) || !strings.HasPrefix(err.Error(), "read 2024-01-05") {
				t.Errorf("%s: %s: %v; want %s and %q", c.name, fault.KindOf(err), err, c.kind, c.text)
			}
			if n := srv.Requests() - at; n > c.requests {
				t.Errorf("%s: %d requests, want at most %d", c.name, n, c.requests)
			}
			equalRows(t, c.name, got, samples[:min(len(got), at*9)])
		}
	}
	srv.On(nil)
	if gotS, _, _, err := readAny(t.Context(), s, q); err != nil || len(gotS) != len(samples) {
		t.Errorf("after the faults: %d rows, %v", len(gotS), err)
	}
}

// TestReadCancelled: a cancelled read ends at once, during a request and between two.
func TestReadCancelled(t *testing.T) {
	srv, s, q, _, _ := small(t)
	s.pages = pagesOf(5)
	for at := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		srv.On(func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
			if n == at {
				cancel()
			}
			return nil
		})
		if _, _, _, err := readAny(ctx, s, q); !errors.Is(err, context.Canceled) || srv.Requests() > at+1 {
			t.Errorf("cancelled in request %d: %v after %d requests", at, err, srv.Requests())
		}
	}
	srv.On(nil)
	enough := errors.New("enough")
	if _, err := s.Read(t.Context(), q, func(*sample.Batch) error { return enough }); err != enough || srv.Requests() != 1 {
		t.Errorf("an error of f: %v after %d requests", err, srv.Requests())
	}
}

// TestReadBesideWriter: rows that arrive before each request, anywhere, hide no
// row that was there, and none comes twice.
func TestReadBesideWriter(t *testing.T) {
	srv, s, q, samples, _ := small(t)
	r := random(t)
	for range 20 {
		s.pages = pagesOf(1 + r.IntN(4))
		srv.On(func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
			if n%3 > 0 || n > 60 { // else the rows come as fast as pages of one row are read
				return nil
			}
			srv.Exec(t, fmt.Sprintf("INSERT OR IGNORE INTO timeseries VALUES (%d, %d + %d, 0, 1, 2)", 1+r.IntN(3), d0.Start(), 1+10*r.IntN(60_000)))
			return nil
		})
		got, _ := sourcetest.ReadAll(discard{t}, s, q)
		base := 0
		for _, row := range got {
			if (row.TS-d0.Start())%60_000 == 0 {
				base++
			}
		}
		if base != len(samples) {
			t.Fatalf("%d of the %d rows from before", base, len(samples))
		}
	}
}

// discard drops the one complaint of ReadAll that does not hold here: that
// Count, which comes later, counts what Read delivered.
type discard struct{ testing.TB }

func (d discard) Errorf(format string, a ...any) {
	if !strings.HasPrefix(format, "count says") {
		d.TB.Errorf(format, a...)
	}
}

// TestReadShrinks: a page that is too much for D1 is asked for in smaller ones,
// and that size is not tried again before many were good.
func TestReadShrinks(t *testing.T) {
	srv, s, file, _ := both(t, fmt.Sprintf(`WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < 19999)
		INSERT INTO timeseries SELECT 1 + n / 4000, %d + n %% 4000, n, 192, 0 FROM i`, d0.Start()))
	q := source.Query{Points: []int32{1, 2, 3, 4, 5}, Days: oneDay}
	want, _, _, err := readAny(t.Context(), file, q)
	if err != nil {
		t.Fatal(err)
	}
	var limits []int
	srv.On(func(_ int, r cloudflaretest.Request) *cloudflaretest.Fault {
		n := 0
		if _, limit, ok := strings.Cut(r.SQL[0], "LIMIT "); ok {
			fmt.Sscan(strings.TrimSuffix(limit, ")"), &n)
			limits = append(limits, n)
		}
		return &cloudflaretest.Fault{MaxRows: 1700}
	})
	s.pages = newPages()
	s.pages.least, s.pages.rows = 100, 16_000
	got, _, _, err := readAny(t.Context(), s, q)
	if err != nil {
		t.Fatalf("%v; asked for %v", err, limits)
	}
	equalRows(t, "rows", got, want)
	if !slices.Equal(limits[:5], []int{16_000, 8_000, 4_000, 2_000, 1_000}) || slices.Max(limits[5:]) != 1_000 || len(limits) != 4+21 {
		t.Errorf("asked for %v", limits)
	}

	// What no page is small enough for ends with a word on it.
	s.pages = newPages()
	srv.On(func(int, cloudflaretest.Request) *cloudflaretest.Fault { return &cloudflaretest.Fault{MaxRows: 1} })
	_, _, _, err = readAny(t.Context(), s, q)
	if !fault.Is(err, fault.Transient) || !strings.Contains(fault.HintOf(err), "a page of 1000 rows") || srv.Requests() > 20 {
		t.Errorf("%v, hint %q, after %d requests", err, fault.HintOf(err), srv.Requests())
	}
}

func TestPages(t *testing.T) {
	p := newPages()
	page := func(bytesPerRow int64, ms float64) int {
		n := p.size()
		p.done(n, n, int64(n)*bytesPerRow, ms)
		return p.size()
	}
	for i, c := range []struct {
		bytes int64
		ms    float64
		want  int
	}{
		{32, 900, 200_000}, {32, 1_800, 400_000}, {32, 3_600, aimBytes / 32}, // as many as fit
		{64, 3_600, aimBytes / 64}, // and fewer of those that are larger
		{16, 6_000, 2 * (aimBytes / 64)}, {8, 6_000, mostRows},
		{8, quickMS + 1, mostRows}, {8, 2*quickMS + 1, mostRows / 2}, // slow ones do not grow
	} {
		if got := page(c.bytes, c.ms); got != c.want {
			t.Fatalf("after page %d: %d rows, want %d", i, got, c.want)
		}
	}
	p.done(p.size(), 5, 1<<10, 1) // the last page of a read tells nothing
	p.done(p.size(), 0, 300, 1)
	if got := p.size(); got != mostRows/2 {
		t.Errorf("after short pages: %d", got)
	}
	if got := p.tooLarge(mostRows / 2); got != mostRows/4 || p.size() != got {
		t.Errorf("after too much: %d", got)
	}
	for i := range forgiveAfter - 1 {
		if got := page(8, 1); got != mostRows/4 {
			t.Fatalf("%d pages after too much: %d", i, got)
		}
	}
	page(8, 1)
	if got := page(8, 1); got != mostRows/2 {
		t.Errorf("forgiven: %d", got)
	}
	for range 30 {
		p.tooLarge(p.size())
	}
	if p.size() != leastRows {
		t.Errorf("the least: %d", p.size())
	}
	if p.done(leastRows, 1, 30<<20, 1); p.size() != leastRows {
		t.Errorf("after a row of 30 MiB: %d", p.size())
	}
}

// TestPlans: every statement of Read and Count seeks once for each point, in the
// primary key or the unique key, whatever SQLite knows of the table: nothing is
// scanned, nothing sorted.
func TestPlans(t *testing.T) {
	cursors := map[string]cursor{
		"one":           {ids: []int32{5}},
		"some":          {ids: []int32{-3, 1, 5}},
		"rest":          {ids: []int32{5}, inside: true, after: 1704412800000},
		"rest, REAL":    {ids: []int32{5}, inside: true, after: 1704412800000.5},
		"rest and more": {ids: []int32{5, 6, 7}, inside: true, after: 1704412800000.25},
		"many":          {ids: worstIDs(maxIDs)},
		"rest and many": {ids: worstIDs(maxIDs), inside: true, after: -1e-300},
	}
	statements := map[string]string{}
	for name, c := range cursors {
		statements[name] = rowsOf(c, d0.Start(), d0.End(), mostRows)
		q := source.Query{Points: c.ids, Days: utc.Days{From: d0, To: d0 + 40}}
		for i, text := range countsOf(q) {
			statements[fmt.Sprintf("count %s %d", name, i)] = text
		}
	}
	for name, script := range map[string]string{"schema": schema(), "unique": schema() + strings.Replace(loose, "timestamp,", "timestamp INTEGER,", 1)} {
		conn, err := zsqlite.OpenConn(":memory:", zsqlite.OpenReadWrite)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// The limits of D1, and one that its runtime has had.
		for limit, n := range map[zsqlite.Limit]int32{zsqlite.LimitSQLLength: 100_000, zsqlite.LimitVDBEOp: 25_000, zsqlite.LimitExprDepth: 100, zsqlite.LimitCompoundSelect: 5} {
			defer conn.Limit(limit, conn.Limit(limit, n))
		}
		for _, filled := range []string{"", `WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 9999)
			INSERT INTO timeseries SELECT n % 3, n, n, 192, 0 FROM i; ANALYZE;`, "UPDATE sqlite_stat1 SET stat = '1000000 2 1'; ANALYZE sqlite_schema;"} {
			if err := sqlitex.ExecuteScript(conn, script+filled, nil); err != nil {
				t.Fatal(err)
			}
			script = ""
			for what, text := range statements {
				seeks := 0
				err := sqlitex.ExecuteTransient(conn, "EXPLAIN QUERY PLAN "+text, &sqlitex.ExecOptions{ResultFunc: func(st *zsqlite.Stmt) error {
					step := st.ColumnText(3)
					switch {
					case strings.HasPrefix(step, "SEARCH timeseries USING ") && strings.HasSuffix(step, "(point_id=? AND timestamp>? AND timestamp<?)"):
						seeks++
					case step == "MERGE (UNION ALL)", step == "LEFT", step == "RIGHT", strings.HasPrefix(step, "CO-ROUTINE"), strings.HasPrefix(step, "SCAN (subquery-"):
					default:
						t.Errorf("%s, %s: %s", name, what, step)
					}
					return nil
				}})
				want := 1
				if strings.HasPrefix(what, "rest and") {
					want = 2
				}
				if err != nil || seeks != want {
					t.Errorf("%s, %s: %d seeks, want %d; %v", name, what, seeks, want, err)
				}
			}
		}
	}
}

// worstIDs are n ids of the longest text.
func worstIDs(n int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = math.MinInt32 + int32(i)
	}
	return ids
}

// TestReadManyPoints: points beyond those that a statement names, most without rows.
func TestReadManyPoints(t *testing.T) {
	srv, s, file, _ := both(t, fmt.Sprintf(`WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < 199)
		INSERT INTO timeseries SELECT -2147483648 + n * 101, %d, n, 192, 0 FROM i`, d0.Start()))
	q := source.Query{Points: worstIDs(2*maxIDs + 500), Days: oneDay}
	want, _, _, err := readAny(t.Context(), file, q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.inspected(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	srv.On(nil)
	s.pages = pagesOf(1000)
	got, _, stats, err := readAny(t.Context(), s, q)
	if err != nil || stats.Requests != 3 || srv.Requests() != 3 {
		t.Fatalf("%+v, %d requests, %v", stats, srv.Requests(), err)
	}
	equalRows(t, "rows", got, want)
	counts, err := s.Count(t.Context(), q)
	if err != nil || len(counts) != len(want) {
		t.Errorf("%d counts, want %d; %v", len(counts), len(want), err)
	}
}

func TestCount(t *testing.T) {
	srv, s, q, samples, rejects := small(t)
	for _, days := range []utc.Day{1, 40, 3 * countRows / 1440} {
		q.Days = utc.Days{From: d0 - days/2, To: d0 - days/2 + days}
		got, err := s.Count(t.Context(), q)
		if err != nil || got[1]+got[2]+got[3] != int64(len(samples)+len(rejects)) || len(got) != 3 {
			t.Errorf("%d days: %v, %v", days, got, err)
		}
		for _, text := range countsOf(source.Query{Points: worstIDs(5_000), Days: q.Days}) {
			var from, to int64
			_, window, _ := strings.Cut(text, "timestamp >= ")
			if _, err := fmt.Sscanf(window, "%d AND timestamp < %d", &from, &to); err != nil {
				t.Fatal(err)
			}
			points := strings.Count(text, ",")
			if rows := int64(points) * (to - from) / 60_000; points > 1 && rows > countRows {
				t.Fatalf("a statement counts %d rows of %d points", rows, points)
			}
		}
	}
	srv.On(func(int, cloudflaretest.Request) *cloudflaretest.Fault {
		return &cloudflaretest.Fault{Edit: func(b []byte) []byte { return []byte(strings.Replace(string(b), `[[1,`, `[["1",`, 1)) }}
	})
	if _, err := s.Count(t.Context(), q); !fault.Is(err, fault.Invalid) {
		t.Errorf("a count of no point: %v", err)
	}
}

// TestBilled: what D1 says that it read is in the use of the source.
func TestBilled(t *testing.T) {
	srv, s, q, samples, rejects := small(t)
	s.pages = pagesOf(9)
	before := s.Usage()
	if _, _, _, err := readAny(t.Context(), s, q); err != nil {
		t.Fatal(err)
	}
	u := s.Usage()
	if u.Requests-before.Requests != 4 || u.RowsRead-before.RowsRead != int64(len(samples)+len(rejects)) || u.Retries != before.Retries {
		t.Errorf("usage %+v, before %+v", u, before)
	}
	srv.On(func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
		if n == 0 {
			return cloudflaretest.Fails(500, 7500, "internal error")
		}
		return nil
	})
	if _, _, _, err := readAny(t.Context(), s, q); err != nil || s.Usage().Retries != before.Retries+1 {
		t.Errorf("usage %+v, %v", s.Usage(), err)
	}
}

func TestFarDays(t *testing.T) {
	_, s, _, _, _ := small(t)
	q := source.Query{Points: []int32{1}, Days: utc.Days{From: 0, To: 1 << 30}}
	if _, _, _, err := readAny(t.Context(), s, q); !fault.Is(err, fault.Usage) {
		t.Errorf("days beyond 2^53: %v", err)
	}
}

// TestReadRefuses: a closed source, and tables in which a sample could be missed
// or be there twice.
func TestReadRefuses(t *testing.T) {
	srv, s, q, _, _ := small(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := readAny(t.Context(), s, q); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("closed: %v", err)
	}
	srv.Exec(t, "DROP TABLE timeseries; CREATE TABLE timeseries (point_id, timestamp TEXT, value, quality, flags, UNIQUE (point_id, timestamp))")
	s = reopen(t, srv, Options{})
	if _, _, _, err := readAny(t.Context(), s, q); !fault.Is(err, fault.Invalid) {
		t.Errorf("timestamps of text: %v", err)
	}
	if _, err := s.Count(t.Context(), q); !fault.Is(err, fault.Invalid) {
		t.Errorf("timestamps of text, counted: %v", err)
	}
}

// BenchmarkExpressions is what it costs SQLite to tell what JSON carries, beside
// the bare columns.
func BenchmarkExpressions(b *testing.B) {
	conn, err := zsqlite.OpenConn(":memory:", zsqlite.OpenReadWrite)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	const rows = 200_000
	if err := sqlitex.ExecuteScript(conn, schema()+fmt.Sprintf(`WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < %d)
		INSERT INTO timeseries SELECT n / 1000, %d + n %% 1000, iif(n %% 50 = 0, NULL, n / 7.0), 192, 0 FROM i`, rows-1, d0.Start()), nil); err != nil {
		b.Fatal(err)
	}
	var ids []int32
	for id := range int32(rows / 1000) {
		ids = append(ids, id)
	}
	text := rowsOf(cursor{ids: ids}, d0.Start(), d0.End(), rows)
	_, inner, _ := strings.Cut(text, " FROM (")
	more := rowsOf(cursor{ids: append([]int32{-1}, ids...), inside: true}, d0.Start(), d0.End(), rows)
	for _, c := range []struct{ name, text string }{{"bare", "SELECT p,t,v,q,f FROM (" + inner}, {"first page", text}, {"next page", more}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				n := 0
				if err := sqlitex.ExecuteTransient(conn, c.text, &sqlitex.ExecOptions{ResultFunc: func(*zsqlite.Stmt) error { n++; return nil }}); err != nil || n != rows {
					b.Fatal(n, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
			b.ReportMetric(0, "ns/op")
		})
	}
}

var _ = io.Discard
var _ = cloudflare.Read
