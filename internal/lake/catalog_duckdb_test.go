//go:build duckdb_arrow

package lake

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/duckdb/duckdb-go/v2"

	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
	"etl/manifests"
)

func duck(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Exec("SET TimeZone='UTC'; SET threads=2"); err != nil {
		t.Fatal(err)
	}
	return db
}

// TestCatalogInDuckDB reads back what the manifests say, in the types that
// were agreed.
func TestCatalogInDuckDB(t *testing.T) {
	db := duck(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	s := newRAM()
	for i, n := range []int{0, 1, 300} {
		man := manifestOf(january+utc.Month(i), n, r)
		if n > 1 {
			man.Points[0].Name = "Ünï \"quoted\" '\x01 name"
			man.Points[1].ETag = "odd ' etag"
			// A file that no day is archived of, and a name without a file.
			e := &man.Points[2]
			man.Totals.Samples -= e.Samples
			man.Totals.Bytes -= e.Bytes
			*e = manifests.Entry{ID: 3, Name: "none", Path: keyOf(man.Month, 3), Bytes: 5, ETag: "e", SHA256: shaOf(nil), RowsSHA256: shaOf(nil), Days: sample.NewDayCounts(man.Month)}
			man.Totals.Bytes += 5
			e = &man.Points[3]
			man.Totals.Samples -= e.Samples
			man.Totals.Bytes -= e.Bytes
			if e.Path != "" {
				man.Totals.Files--
			}
			*e = manifests.Entry{ID: 4, Name: "empty", Days: sample.NewDayCounts(man.Month)}
			e.Days[7] = 0
		}
		if man.Points == nil {
			man.Points = []manifests.Entry{}
		}
		if _, err := s.Put(t.Context(), manifests.KeyOf(man.Month), manifests.Encode(man), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	cat := mustCatalog(t, pinned(t, openCache(t, t.TempDir(), large)), s)
	if len(cat.Months) != 3 {
		t.Fatalf("%+v", cat.Bad)
	}
	for _, m := range cat.Months {
		man, _, err := manifests.Load(t.Context(), s, m.Month)
		if err != nil {
			t.Fatal(err)
		}
		var types []string
		rows, err := db.Query("SELECT column_name || ' ' || column_type FROM (DESCRIBE FROM read_parquet('" + m.Path + "'))")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			types = append(types, s)
		}
		want := "month VARCHAR, point_id INTEGER, name VARCHAR, path VARCHAR, bytes BIGINT, etag VARCHAR, sha256 VARCHAR, rows_sha256 VARCHAR, " +
			"samples BIGINT, first BIGINT, last BIGINT, days INTEGER[], archived UINTEGER, t_min TIMESTAMP, t_max TIMESTAMP"
		if got := strings.Join(types, ", "); got != want {
			t.Fatalf("columns\n%s\nwant\n%s", got, want)
		}
		rows, err = db.Query(`SELECT month, point_id, name, path, bytes, etag, sha256, rows_sha256, samples, first, last,
			array_to_string(list_transform(days, lambda x: coalesce(x, -1)), ' '), archived, epoch_ms(t_min), epoch_ms(t_max) FROM read_parquet('` + m.Path + `')`)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for ; rows.Next(); i++ {
			var month, days string
			var archived uint32
			var got manifests.Entry
			var tMin, tMax *int64
			if err := rows.Scan(&month, &got.ID, &got.Name, &got.Path, &got.Bytes, &got.ETag, &got.SHA256, &got.RowsSHA256, &got.Samples, &got.First, &got.Last, &days, &archived, &tMin, &tMax); err != nil {
				t.Fatal(err)
			}
			for f := range strings.FieldsSeq(days) {
				var n int32
				fmt.Sscan(f, &n)
				got.Days = append(got.Days, n)
			}
			e := &man.Points[i]
			if !got.Equal(e) || month != m.Month.String() || utc.Set(archived) != e.Days.Archived() {
				t.Fatalf("row %d: %s, %+v, want %+v", i, month, got, *e)
			}
			// The region holds each archived day, and no day too many.
			first := slices.IndexFunc(e.Days, func(n int32) bool { return n >= 0 })
			if first < 0 {
				if tMin != nil || tMax != nil {
					t.Fatalf("row %d: %v to %v without an archived day", i, tMin, tMax)
				}
				continue
			}
			last := first
			for d, n := range e.Days {
				if n >= 0 {
					last = d
				}
			}
			if *tMin != (m.Month.First()+utc.Day(first)).Start() || *tMax != (m.Month.First()+utc.Day(last)).End()-1 {
				t.Fatalf("row %d: %d to %d, days %v", i, *tMin, *tMax, e.Days)
			}
		}
		if err := rows.Err(); err != nil || i != len(man.Points) {
			t.Fatalf("%d rows of %d, %v", i, len(man.Points), err)
		}
	}
}

// BenchmarkCatalogInDuckDB reads what selecting files needs of 157,500 rows.
func BenchmarkCatalogInDuckDB(b *testing.B) {
	s, _ := putYears(b)
	cat := mustCatalog(b, pinned(b, openCache(b, b.TempDir(), large)), s)
	db := duck(b)
	var paths []string
	for _, m := range cat.Months {
		paths = append(paths, "'"+m.Path+"'")
	}
	list := "read_parquet([" + strings.Join(paths, ",") + "])"
	for name, q := range map[string]string{
		"select": "CREATE OR REPLACE TEMP TABLE r AS SELECT point_id, month, t_min, t_max, samples, bytes FROM " + list,
		"all":    "CREATE OR REPLACE TEMP TABLE r AS FROM " + list,
	} {
		b.Run(name, func(b *testing.B) {
			start, stop := cpu(b)
			best := time.Hour
			for range b.N {
				start()
				at := time.Now()
				if _, err := db.Exec(q); err != nil {
					b.Fatal(err)
				}
				best = min(best, time.Since(at))
				stop()
			}
			b.ReportMetric(float64(best.Microseconds())/1000, "best-ms/op")
		})
	}
}
