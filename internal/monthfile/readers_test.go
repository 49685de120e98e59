package monthfile

import (
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"etl/internal/sample"
)

// readerFiles are files of every shape that the format has, for other readers to read.
func readerFiles(t testing.TB) map[string]pointMonth {
	r := rand.New(rand.NewPCG(13, 14))
	files := map[string]pointMonth{}
	add := func(name string, m Meta, s sample.Series) { files[name] = pointMonth{m, s} }
	for _, n := range []int{0, 1, 2, 1000} {
		m, s := oddSeries(n)
		add(fmt.Sprintf("odd-%d", n), m, s)
	}
	for _, kind := range kindNames {
		m, s := kindSeries(kind, 43200)
		add(kind, m, s)
	}
	start := march.First().Start()
	series := func(name string, n int, f func(i int) (int64, float64, uint8, uint16)) {
		var s sample.Series
		for i := range n {
			ts, v, q, fl := f(i)
			s.Append(start+ts, v, q, fl)
		}
		add(name, metaOf(3, name, march, &s), s)
	}
	series("null", 100, func(i int) (int64, float64, uint8, uint16) { return int64(i), sample.Null, 192, 0 })
	series("constant", 3*pageRows, func(i int) (int64, float64, uint8, uint16) { return int64(i) * 10, 7, 192, 0 })
	// Deltas of every width, indexes wider than 16 bits, pages of NULL alone among others.
	at := int64(0)
	series("wide", 3*pageRows+77, func(i int) (int64, float64, uint8, uint16) {
		at += 1 + r.Int64N(1<<(i%14))
		v := float64(r.IntN(80_000)) * 1.1
		if i/pageRows == 1 || i%11 == 0 {
			v = sample.Null
		}
		return at, v, uint8(192 * (i % 2)), uint16(i / 5000)
	})
	late := int64(0)
	series("groups", groupRows+500_000, func(i int) (int64, float64, uint8, uint16) {
		late = r.Int64N(20)
		return int64(i)*1000 + late, math.Floor(100*math.Sin(float64(i)/5000)) / 10, 192, uint16(i / 700_000)
	})
	return files
}

// writeFiles encodes the files into a folder and returns their paths by name.
func writeFiles(t testing.TB, files map[string]pointMonth, o Options) map[string]string {
	dir := t.TempDir()
	paths := map[string]string{}
	e := NewEncoder(o)
	for name, f := range files {
		data, _, err := e.Encode(nil, f.meta, &f.series)
		if err != nil {
			t.Fatal(err)
		}
		paths[name] = filepath.Join(dir, name+".parquet")
		if err := os.WriteFile(paths[name], data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

func queryStrings(t testing.TB, db *sql.DB, q string) []string {
	t.Helper()
	rows, err := db.Query(q)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for rows.Next() {
		vals := make([]any, len(cols))
		for i := range vals {
			vals[i] = new(sql.NullString)
		}
		if err := rows.Scan(vals...); err != nil {
			t.Fatal(err)
		}
		var line []string
		for _, v := range vals {
			line = append(line, v.(*sql.NullString).String)
		}
		out = append(out, strings.Join(line, " "))
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return out
}

// TestDuckDBReads has DuckDB read every shape of file, bit for bit.
func TestDuckDBReads(t *testing.T) {
	db := openDuckDB(t)
	files := readerFiles(t)
	for _, codec := range []Codec{Zstd, Snappy} {
		paths := writeFiles(t, files, Options{Codec: codec})
		for name, f := range files {
			if codec == Snappy && f.series.Len() > 100_000 {
				continue
			}
			rows, err := db.Query(fmt.Sprintf(`SELECT point_id, epoch_ms(timestamp), value, quality, flags FROM read_parquet('%s')`, paths[name]))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var got sample.Series
			for rows.Next() {
				var id, quality, flags int32
				var ts int64
				var v sql.NullFloat64
				if err := rows.Scan(&id, &ts, &v, &quality, &flags); err != nil {
					t.Fatal(err)
				}
				if !v.Valid {
					v.Float64 = sample.Null
				}
				if id != f.meta.PointID {
					t.Fatalf("%s: point %d", name, id)
				}
				got.Append(ts, v.Float64, uint8(quality), uint16(flags))
			}
			if err := rows.Err(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !got.Equal(&f.series) {
				t.Errorf("%s, %v: DuckDB reads other rows, %d of %d", name, codec, got.Len(), f.series.Len())
			}
		}
		// A list of files of all shapes reads as one table.
		all := fmt.Sprintf("read_parquet('%s/*.parquet')", filepath.Dir(paths["odd-0"]))
		want := 0
		for _, f := range files {
			want += f.series.Len()
		}
		if got := queryStrings(t, db, "SELECT count(*), count(timestamp) FROM "+all); got[0] != fmt.Sprint(want, " ", want) {
			t.Errorf("all files: %v rows, want %d", got, want)
		}
	}
}

// TestDuckDBFilters compares filtered answers, for which DuckDB uses statistics, with a scan of the rows.
func TestDuckDBFilters(t *testing.T) {
	db := openDuckDB(t)
	files := readerFiles(t)
	paths := writeFiles(t, files, Options{})
	r := rand.New(rand.NewPCG(15, 16))
	for name, f := range files {
		s := &f.series
		if s.Len() == 0 {
			continue
		}
		for range 4 {
			from, to := s.TS[r.IntN(s.Len())], s.TS[r.IntN(s.Len())]
			v := s.Value[r.IntN(s.Len())]
			if v != v || math.IsInf(v, 0) {
				v = 0
			}
			want := [4]int{}
			for i, ts := range s.TS {
				if ts >= from && ts <= to {
					want[0]++
				}
				if s.Value[i] > v {
					want[1]++
				}
				if s.Value[i] == v {
					want[2]++
				}
				if s.Value[i] != s.Value[i] {
					want[3]++
				}
			}
			for i, where := range []string{
				fmt.Sprintf("timestamp BETWEEN make_timestamptz(%d) AND make_timestamptz(%d)", from*1000, to*1000),
				fmt.Sprintf("value > %g", v), fmt.Sprintf("value = %g", v), "value IS NULL"} {
				got := queryStrings(t, db, fmt.Sprintf("SELECT count(*) FROM read_parquet('%s') WHERE %s", paths[name], where))
				if got[0] != fmt.Sprint(want[i]) {
					t.Errorf("%s, %s: %v rows, want %d", name, where, got, want[i])
				}
			}
		}
	}
}

// TestDuckDBMetadata checks what DuckDB understands of the footer.
func TestDuckDBMetadata(t *testing.T) {
	db := openDuckDB(t)
	m, s := oddSeries(1000)
	finiteMeta, finite := kindSeries("temperature", 1000)
	paths := writeFiles(t, map[string]pointMonth{"f": {m, s}, "finite": {finiteMeta, finite}}, Options{})
	path := paths["f"]
	schema := queryStrings(t, db, fmt.Sprintf(`SELECT name, type, repetition_type, converted_type, field_id, logical_type FROM parquet_schema('%s')`, path))
	want := []string{
		"sample     ",
		"point_id INT32 REQUIRED  1 ",
		"timestamp INT64 REQUIRED TIMESTAMP_MILLIS 2 TimestampType(isAdjustedToUTC=1, unit=TimeUnit(MILLIS=MilliSeconds(), MICROS=<null>, NANOS=<null>))",
		"value DOUBLE OPTIONAL  3 ",
		"quality INT32 REQUIRED  4 ",
		"flags INT32 REQUIRED  5 ",
	}
	if !slices.Equal(schema, want) {
		t.Errorf("schema:\n%s", strings.Join(schema, "\n"))
	}
	chunks := queryStrings(t, db, fmt.Sprintf(`SELECT path_in_schema, num_values, stats_null_count, stats_min_value, stats_max_value FROM parquet_metadata('%s') ORDER BY column_id`, path))
	nulls := 0
	for _, v := range s.Value {
		if v != v {
			nulls++
		}
	}
	want = []string{
		"point_id 1000 0 -5 -5",
		fmt.Sprintf("timestamp 1000 0 %s %s", queryStrings(t, db, fmt.Sprintf("SELECT make_timestamp(%d)::VARCHAR || '+00'", s.TS[0]*1000))[0],
			queryStrings(t, db, fmt.Sprintf("SELECT make_timestamp(%d)::VARCHAR || '+00'", s.TS[999]*1000))[0]),
		fmt.Sprintf("value 1000 %d  ", nulls), // DuckDB takes no bound that is infinite
		"quality 1000 0 0 249",
		"flags 1000 0 0 " + fmt.Sprint(slices.Max(s.Flags)),
	}
	if !slices.Equal(chunks, want) {
		t.Errorf("chunks:\n%s\nwant\n%s", strings.Join(chunks, "\n"), strings.Join(want, "\n"))
	}
	bounds := queryStrings(t, db, fmt.Sprintf(`SELECT stats_min_value::DOUBLE, stats_max_value::DOUBLE FROM parquet_metadata('%s') WHERE path_in_schema = 'value'`, paths["finite"]))
	if want := fmt.Sprint(slices.Min(finite.Value), " ", slices.Max(finite.Value)); len(bounds) != 1 || bounds[0] != want {
		t.Errorf("bounds of the values %v, want %s", bounds, want)
	}
	facts := queryStrings(t, db, fmt.Sprintf(`SELECT decode(value) FROM parquet_kv_metadata('%s') WHERE decode(key) = 'etl'`, path))
	if len(facts) != 1 || !strings.HasPrefix(facts[0], `{"v":1,"id":-5,"name":"Gebäude 1/`) {
		t.Errorf("facts: %v", facts)
	}
}
