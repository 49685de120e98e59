package files

import (
	"bytes"
	"cmp"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/duckdb/duckdb-go/v2"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/source/sqlite"
	"etl/internal/utc"
)

// now is the clock of the tests.
var now = time.Date(2024, 2, 10, 2, 0, 0, 0, time.UTC)

// all is a range that holds every day that can be staged.
var all = utc.Days{From: firstDay, To: utc.DayOfTime(now) + 2}

// authority is a hot tier with points of these names, ids from 1.
func authority(t testing.TB, names ...string) *sqlite.Source {
	t.Helper()
	src, err := sqlite.Open(filepath.Join(t.TempDir(), "d1.sqlite"), sqlite.Options{Create: true, Now: func() time.Time { return now }})
	must(t, err)
	t.Cleanup(func() { src.Close() })
	_, err = src.Migrate(t.Context())
	must(t, err)
	for _, n := range names {
		_, err = src.CreatePoints(t.Context(), []string{n})
		must(t, err)
	}
	return src
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func gz(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(text))
	w.Close()
	return b.String()
}

func zst(text string) string {
	w, _ := zstd.NewWriter(nil)
	return string(w.EncodeAll([]byte(text), nil))
}

// folder writes files, and returns their paths by name.
func folder(t testing.TB, texts map[string]string) []string {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		p := filepath.Join(dir, name)
		must(t, os.WriteFile(p, []byte(texts[name]), 0o600))
		paths = append(paths, p)
	}
	return paths
}

func open(t testing.TB, src source.Source, paths []string, o Options) *Source {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return now }
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := Open(t.Context(), src, paths, o)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// sampleRow is a sample with its key.
type sampleRow struct {
	point   string
	ts      int64
	bits    uint64
	quality uint8
	flags   uint16
}

// contents are all samples, in order, and the reasons of all rejects, sorted.
func contents(t testing.TB, s *Source) (rows []sampleRow, reasons []string) {
	t.Helper()
	points, rejects, err := s.Points(t.Context())
	must(t, err)
	names := make(map[int32]string)
	var ids []int32
	for _, p := range points {
		names[p.ID] = p.Name
		ids = append(ids, p.ID)
	}
	strays, err := s.Strays(t.Context(), ids, all)
	must(t, err)
	for _, r := range append(rejects, strays...) {
		reasons = append(reasons, r.Reason)
	}
	last := sampleRow{}
	var lastID int32
	stats, err := s.Read(t.Context(), source.Query{Points: ids, Days: all}, func(b *sample.Batch) error {
		for i, ts := range b.TS {
			if id := b.PointID[i]; id < lastID || id == lastID && ts <= last.ts {
				t.Fatalf("point %d at %d came behind point %d at %d", id, ts, lastID, last.ts)
			}
			lastID, last = b.PointID[i], sampleRow{names[b.PointID[i]], ts, math.Float64bits(b.Value[i]), b.Quality[i], b.Flags[i]}
			rows = append(rows, last)
		}
		for _, r := range b.Rejects {
			reasons = append(reasons, r.Reason)
		}
		return nil
	})
	must(t, err)
	if want := len(rows) + len(reasons) - len(rejects) - len(strays); stats.Rows != int64(want) {
		t.Errorf("Read counted %d rows, and delivered %d", stats.Rows, want)
	}
	slices.Sort(reasons)
	return rows, reasons
}

// model is what a naive reader makes of the same rows: a map, the last one wins.
type model struct {
	rows    map[[2]any]sampleRow
	place   map[[2]any]string   // of the row that won
	earlier map[[2]any][]placed // the rows before it
	reasons []string            // of bad rows, as places
}

type placed struct {
	at string
	sampleRow
}

func (m *model) put(at string, r sampleRow) {
	k := [2]any{r.point, r.ts}
	m.earlier[k] = append(m.earlier[k], placed{at, r})
	m.rows[k], m.place[k] = r, at
}

// want are the rows in order, and the reasons of all rejects as far as a place.
func (m *model) want(ids map[string]int32) (rows []sampleRow, reasons []string) {
	reasons = slices.Clone(m.reasons)
	for k, r := range m.rows {
		rows = append(rows, r)
		for _, e := range m.earlier[k] {
			if e.sampleRow != r {
				reasons = append(reasons, e.at+": superseded by "+m.place[k])
			}
		}
	}
	slices.SortFunc(rows, func(a, b sampleRow) int {
		return cmp.Or(cmp.Compare(ids[a.point], ids[b.point]), cmp.Compare(a.ts, b.ts))
	})
	slices.Sort(reasons)
	return rows, reasons
}

// TestSameAsNaive stages random rows, good and bad, in files of every kind with
// memory for a few of them, and compares with a map.
func TestSameAsNaive(t *testing.T) {
	for range 12 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) { sameAsNaive(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func sameAsNaive(t *testing.T, r *rand.Rand) {
	m := &model{map[[2]any]sampleRow{}, map[[2]any]string{}, map[[2]any][]placed{}, nil}
	dir := t.TempDir()
	names := []string{"a", "Building 1, floor 2", `the "big" one`, "ß/temp", "never.seen.before"}
	values := []float64{0, math.Copysign(0, -1), 1.5, 23.7, math.Inf(1), math.Inf(-1), 4.9e-324, math.MaxFloat64, sample.Null}
	span := int64(1 + r.IntN(100*86400_000)) // some have many equal timestamps
	if r.IntN(2) == 0 {
		span = int64(1 + r.IntN(300))
	}
	var paths []string
	for f := range 1 + r.IntN(4) {
		kind := []string{"csv", "csv.gz", "csv.zst", "parquet"}[r.IntN(4)]
		path := filepath.Join(dir, fmt.Sprintf("%d.%s", f, kind))
		paths = append(paths, path)
		hasQuality, hasFlags, hasExtra := r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0
		columns := []string{"point_name", []string{"timestamp", "timestamp_ms", " Timestamp "}[r.IntN(3)], "value"}
		if hasQuality {
			columns = append(columns, "quality")
		}
		if hasFlags {
			columns = append(columns, "flags")
		}
		if hasExtra {
			columns = append(columns, "comment")
		}
		order := r.Perm(len(columns))
		newline := []string{"\n", "\r\n"}[r.IntN(2)]
		var text strings.Builder
		if r.IntN(2) == 0 {
			text.WriteString(mark)
		}
		line := 1
		write := func(cells []string) {
			for i, c := range order {
				if i > 0 {
					text.WriteByte(',')
				}
				cell := cells[c]
				if strings.ContainsAny(cell, ",\"\n") || r.IntN(4) == 0 {
					cell = `"` + strings.ReplaceAll(cell, `"`, `""`) + `"`
				}
				text.WriteString(cell)
			}
			text.WriteString(newline)
			line++
		}
		write(columns)
		var table [][]any
		for n := r.IntN(1500); n > 0; n-- {
			s := sampleRow{point: names[r.IntN(len(names))], ts: 1704412800000 - int64(r.IntN(int(span))), quality: 192}
			v := values[r.IntN(len(values))]
			if r.IntN(2) == 0 {
				v = math.Float64frombits(r.Uint64())
			}
			s.bits = bitsOf(v)
			if hasQuality {
				s.quality = uint8(r.IntN(256))
			}
			if hasFlags {
				s.flags = uint16(r.IntN(65536))
			}
			if kind == "parquet" {
				table = append(table, []any{s.point, s.ts, v, int32(s.quality), int32(s.flags)})
				m.put(fmt.Sprintf("%s: row %d", path, len(table)), s)
				continue
			}
			at := fmt.Sprintf("%s:%d", path, line)
			stamp := strconv.FormatInt(s.ts, 10)
			if r.IntN(3) == 0 {
				stamp = time.UnixMilli(s.ts).In(time.FixedZone("", r.IntN(24)*3600-12*3600)).Format("2006-01-02T15:04:05.000Z07:00")
			}
			number := strconv.FormatFloat(v, 'g', -1, 64)
			if v != v {
				number = []string{"", "NaN"}[r.IntN(2)]
			}
			cells := []string{s.point, stamp, number}
			if hasQuality {
				cells = append(cells, strconv.Itoa(int(s.quality)))
			}
			if hasFlags {
				cells = append(cells, strconv.Itoa(int(s.flags)))
			}
			lines := 0
			if hasExtra {
				cells = append(cells, []string{"", "so", "so, la la", "two\nlines"}[r.IntN(4)])
				lines = strings.Count(cells[len(cells)-1], "\n")
			}
			if r.IntN(8) == 0 { // a bad row
				bad := r.IntN(3)
				cells[bad] = [][]string{{"", "\x00", "\xff"}, {"", "noon", "1704412800", "17044128000000000", "2024-01-05T00:00:00"}, {"x", "1,5", "9007199254740993", "1e999", "0x1p4"}}[bad][r.IntN(3)]
				m.reasons = append(m.reasons, at)
				write(cells)
				line += lines
				continue
			}
			write(cells)
			line += lines
			m.put(at, s)
			switch r.IntN(40) {
			case 0:
				m.reasons = append(m.reasons, fmt.Sprintf("%s:%d", path, line))
				text.WriteString("too,few" + newline)
				line++
			case 1:
				m.reasons = append(m.reasons, fmt.Sprintf("%s:%d", path, line))
				text.WriteString(`a,"b"c,d` + newline)
				line++
			case 2:
				text.WriteString(newline)
				line++
			}
		}
		switch kind {
		case "csv":
			must(t, os.WriteFile(path, []byte(text.String()), 0o600))
		case "csv.gz":
			half := text.Len() / 2 // two members
			must(t, os.WriteFile(path, []byte(gz(text.String()[:half])+gz(text.String()[half:])), 0o600))
		case "csv.zst":
			must(t, os.WriteFile(path, []byte(zst(text.String())), 0o600))
		case "parquet":
			writeParquet(t, path, "point_name VARCHAR, timestamp BIGINT, value DOUBLE, quality INTEGER, flags INTEGER", table)
		}
	}
	src := authority(t, "z", "ß/temp", "y")
	work := t.TempDir()
	s := open(t, src, paths, Options{Unknown: Create, Dir: work, Memory: 3 * rowBytes * 1024, Ignore: []string{"Comment"}, Progress: func(Progress) { empty(t, work) }})
	empty(t, work)
	points, _, err := s.Points(t.Context())
	must(t, err)
	ids := make(map[string]int32)
	for _, p := range points {
		ids[p.Name] = p.ID
	}
	rows, reasons := contents(t, s)
	want, wantReasons := m.want(ids)
	if !slices.Equal(rows, want) {
		t.Errorf("%d rows, want %d", len(rows), len(want))
		for i := range min(len(rows), len(want)) {
			if rows[i] != want[i] {
				t.Fatalf("row %d: %v, want %v", i, rows[i], want[i])
			}
		}
	}
	for i, text := range reasons {
		if !strings.Contains(text, ": superseded by ") { // what else is wrong the other tests check
			at := strings.Index(text[len(dir)+2:], ":") + len(dir) + 2
			at += 1 + strings.Index(text[at+1:], ":")
			reasons[i] = text[:at]
		}
	}
	slices.Sort(reasons)
	if !slices.Equal(reasons, wantReasons) {
		t.Errorf("rejects:\n%s\nwant\n%s", strings.Join(reasons, "\n"), strings.Join(wantReasons, "\n"))
	}
	sum := s.Summary()
	if got := sum.Samples + sum.Repeated + sum.Superseded + sum.Bad; got != sum.Rows || sum.Samples != int64(len(want)) || sum.Superseded+sum.Bad != int64(len(wantReasons)) {
		t.Errorf("%+v does not add up", sum)
	}
	checkParts(t, s, r, want, ids)
}

// checkParts reads random parts, and compares Held, Count and Span with the rows.
func checkParts(t *testing.T, s *Source, r *rand.Rand, rows []sampleRow, ids map[string]int32) {
	span, err := s.Span(t.Context())
	must(t, err)
	for range 20 {
		var q source.Query
		for _, id := range slices.Sorted(maps.Values(ids)) {
			if r.IntN(3) > 0 {
				q.Points = append(q.Points, id)
			}
		}
		q.Days.From = span.From - 2 + utc.Day(r.IntN(span.Len()+4))
		q.Days.To = q.Days.From + utc.Day(r.IntN(span.Len()+4))
		var want []sampleRow
		held := make(map[source.Slice]bool)
		for _, row := range rows {
			if d := utc.DayOf(row.ts); q.Days.Contains(d) && slices.Contains(q.Points, ids[row.point]) {
				want = append(want, row)
				held[source.Slice{Point: ids[row.point], Day: d}] = true
			}
		}
		var got []sampleRow
		all := make(map[int32]int64)
		_, err := s.Read(t.Context(), q, func(b *sample.Batch) error {
			for i, ts := range b.TS {
				got = append(got, sampleRow{"", ts, math.Float64bits(b.Value[i]), b.Quality[i], b.Flags[i]})
				all[b.PointID[i]]++
			}
			for _, rej := range b.Rejects {
				d, ok := rej.Day()
				if !ok || !q.Days.Contains(d) {
					t.Errorf("a reject of no day of %s: %+v", q.Days, rej)
				}
				held[source.Slice{Point: int32(rej.PointID.V.(int64)), Day: d}] = true
				all[int32(rej.PointID.V.(int64))]++
			}
			return nil
		})
		must(t, err)
		for i := range want {
			want[i].point = ""
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s of %v: %d rows, want %d", q.Days, q.Points, len(got), len(want))
		}
		counts, err := s.Count(t.Context(), q)
		if must(t, err); !maps.Equal(counts, all) {
			t.Errorf("counts of %s: %v, want %v", q.Days, counts, all)
		}
		var last source.Slice
		must(t, s.Held(t.Context(), q.Points, q.Days, func(sl source.Slice) {
			if !held[sl] || cmp.Or(cmp.Compare(sl.Point, last.Point), cmp.Compare(sl.Day, last.Day)) <= 0 {
				t.Errorf("%v is held, behind %v", sl, last)
			}
			delete(held, sl)
			last = sl
		}))
		if len(held) > 0 {
			t.Errorf("not held: %v", held)
		}
	}
	if len(rows) == 0 {
		return
	}
	for _, row := range rows {
		if !span.Contains(utc.DayOf(row.ts)) {
			t.Errorf("%s lies outside of the span %s", utc.DayOf(row.ts), span)
		}
	}
}

// empty checks that a work folder holds nothing: what is staged has no name.
func empty(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the work folder holds %v, %v", left, err)
	}
}

// writeParquet has DuckDB write rows of a table.
func writeParquet(t testing.TB, path, columns string, rows [][]any) {
	t.Helper()
	db, err := sql.Open("duckdb", "")
	must(t, err)
	defer db.Close()
	conn, err := db.Conn(t.Context())
	must(t, err)
	defer conn.Close()
	_, err = conn.ExecContext(t.Context(), "CREATE TABLE t ("+columns+")")
	must(t, err)
	must(t, conn.Raw(func(c any) error {
		a, err := duckdb.NewAppenderFromConn(c.(driver.Conn), "", "t")
		must(t, err)
		for _, r := range rows {
			vals := make([]driver.Value, len(r))
			for i, v := range r {
				if vals[i] = v; v != nil && bitsIfNull(v) {
					vals[i] = nil
				}
			}
			must(t, a.AppendRow(vals...))
		}
		return a.Close()
	}))
	_, err = conn.ExecContext(t.Context(), "COPY t TO '"+path+"' (FORMAT parquet, ROW_GROUP_SIZE 2048)")
	must(t, err)
}

// bitsIfNull reports whether v is the value that stands for NULL.
func bitsIfNull(v any) bool {
	f, ok := v.(float64)
	return ok && math.Float64bits(f) == math.Float64bits(sample.Null)
}

// duckDB runs statements in a database of their own.
func duckDB(t testing.TB, statements ...string) {
	t.Helper()
	db, err := sql.Open("duckdb", "")
	must(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, text := range statements {
		_, err := db.ExecContext(t.Context(), text)
		must(t, err)
	}
}
