package monthfile

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	_ "github.com/duckdb/duckdb-go/v2"

	"etl/internal/sample"
	"etl/internal/utc"
)

// realSets are the real data sets, which lie beside the project where they are available.
var realSets = []string{"ddvav_bas_5min", "lbnl_b33_ahu_5s", "uci_household_1min", "uci_occupancy_1min"}

const dataDir = "../../../shared/data"

// pointMonth is the content of one month file.
type pointMonth struct {
	meta   Meta
	series sample.Series
}

// metaOf describes the samples, with every day of the month from the first sample on archived.
func metaOf(id int32, name string, m utc.Month, s *sample.Series) Meta {
	days := sample.NewDayCounts(m)
	if s.Len() > 0 {
		for d := utc.DayOf(s.TS[0]); d <= utc.DayOf(s.TS[s.Len()-1]); d++ {
			days[d-m.First()] = 0
		}
	}
	sample.CountDays(days, m, s.TS)
	return Meta{id, name, m, days}
}

// loadSet reads a real data set: of rows with the same timestamp the last one stays.
func loadSet(t testing.TB, set string) []pointMonth {
	t.Helper()
	f, err := os.Open(filepath.Join(dataDir, set+".csv.gz"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the data set %s is not beside the project", set)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		ts int64
		v  float64
	}
	rows := map[string][]row{}
	var names []string
	sc := bufio.NewScanner(z)
	for sc.Scan(); sc.Scan(); {
		p := strings.Split(sc.Text(), ",")
		ts, err := strconv.ParseInt(p[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		v := sample.Null
		if p[2] != "" {
			if v, err = strconv.ParseFloat(p[2], 64); err != nil {
				t.Fatal(err)
			}
		}
		if rows[p[0]] == nil {
			names = append(names, p[0])
		}
		rows[p[0]] = append(rows[p[0]], row{ts, v})
	}
	if sc.Err() != nil {
		t.Fatal(sc.Err())
	}
	var out []pointMonth
	for i, name := range names {
		r := rows[name]
		slices.SortStableFunc(r, func(a, b row) int { return cmp.Compare(a.ts, b.ts) })
		first := len(out)
		for k, x := range r {
			if k+1 < len(r) && r[k+1].ts == x.ts {
				continue
			}
			m := utc.DayOf(x.ts).Month()
			if len(out) == first || out[len(out)-1].meta.Month != m {
				out = append(out, pointMonth{meta: Meta{PointID: int32(i + 1), PointName: name, Month: m}})
			}
			out[len(out)-1].series.Append(x.ts, x.v, 192, 0)
		}
		for k := first; k < len(out); k++ {
			out[k].meta = metaOf(int32(i+1), name, out[k].meta.Month, &out[k].series)
		}
	}
	return out
}

// openDuckDB opens a database in memory with one connection.
func openDuckDB(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

func exec(t testing.TB, db *sql.DB, q string, a ...any) {
	t.Helper()
	if _, err := db.Exec(q, a...); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}

// TestSizeOfRealSets compares our files with those that DuckDB writes for the
// same rows, file by file, and has DuckDB read ours: the rows must be the same.
func TestSizeOfRealSets(t *testing.T) {
	db := openDuckDB(t)
	dir := t.TempDir()
	e, d := NewEncoder(Options{}), NewDecoder()
	var ours, theirs int64
	var table strings.Builder
	for _, set := range realSets {
		files := loadSet(t, set)
		exec(t, db, fmt.Sprintf(`CREATE OR REPLACE TABLE s AS
			SELECT point_name, epoch_ms(timestamp_ms) AS ts, last(value ORDER BY i) AS value
			FROM (SELECT row_number() OVER () AS i, * FROM read_csv('%s/%s.csv.gz', types={'value': 'DOUBLE', 'timestamp_ms': 'BIGINT'}))
			GROUP BY ALL`, dataDir, set))
		var a, b, rows int64
		by := map[Encoding]int{}
		for i, f := range files {
			data, info, err := e.Encode(nil, f.meta, &f.series)
			if err != nil {
				t.Fatal(err)
			}
			var back sample.Series
			if got, err := d.Decode(data, &back); err != nil || !back.Equal(&f.series) || got.Samples != info.Samples {
				t.Fatalf("%s %s: decoding gave %+v, %v", f.meta.PointName, f.meta.Month, got, err)
			}
			by[info.ValueEncoding]++
			mine := filepath.Join(dir, fmt.Sprintf("%s-%d.parquet", set, i))
			if err := os.WriteFile(mine, data, 0o600); err != nil {
				t.Fatal(err)
			}
			first := f.meta.Month.First()
			path := filepath.Join(dir, "duckdb.parquet")
			exec(t, db, fmt.Sprintf(`COPY (SELECT %d::INTEGER AS point_id, ts AS timestamp, value, 192::INTEGER AS quality, 0::INTEGER AS flags
				FROM s WHERE point_name = '%s' AND ts >= '%s' AND ts < '%s' ORDER BY ts)
				TO '%s' (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION V2)`,
				f.meta.PointID, f.meta.PointName, first, (f.meta.Month+1).First(), path))
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			a, b, rows = a+int64(len(data)), b+st.Size(), rows+info.Samples
		}
		// Neither side has a row that the other lacks, and ours has none twice.
		var n, odd int64
		mine := fmt.Sprintf("read_parquet('%s/%s-*.parquet')", dir, set)
		if err := db.QueryRow(`SELECT count(*) FROM ` + mine).Scan(&n); err != nil {
			t.Fatal(err)
		}
		exec(t, db, `SET TimeZone = 'UTC'`)
		if err := db.QueryRow(`SELECT count(*) FROM (SELECT timestamp::TIMESTAMP AS ts, value FROM ` + mine + ` WHERE quality = 192 AND flags = 0
			EXCEPT ALL SELECT ts, value FROM s)`).Scan(&odd); err != nil {
			t.Fatal(err)
		}
		if n != rows || odd != 0 {
			t.Errorf("%s: DuckDB reads %d rows of %d, %d of them others", set, n, rows, odd)
		}
		fmt.Fprintf(&table, "%-20s %4d files %7d rows  ours %7d (%.3f B/row)  DuckDB V2 zstd %7d (%.3f B/row)  ratio %.3f  %v\n",
			set, len(files), rows, a, float64(a)/float64(rows), b, float64(b)/float64(rows), float64(a)/float64(b), by)
		if a > b {
			t.Errorf("%s: our files are larger than DuckDB's", set)
		}
		ours, theirs = ours+a, theirs+b
	}
	ratio := float64(ours) / float64(theirs)
	t.Logf("\n%stotal: ours %d, DuckDB's %d, ratio %.3f", table.String(), ours, theirs, ratio)
	if ratio > 0.85 {
		t.Errorf("ratio %.3f, want at most 0.85", ratio)
	}
}
