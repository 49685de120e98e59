//go:build integration

package main

import (
	"compress/gzip"
	"context"
	"database/sql"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/duckdb/duckdb-go/v2"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/object/dir"
	"etl/internal/sample"
	"etl/internal/utc"
	"etl/manifests"
)

const realData = "../../../shared/data"

// reading is one line of a set, in arrival order.
type reading struct {
	point int32
	ts    int64
	value float64 // NaN: the reading was missing
}

// readSet reads a set as it arrived: out of order, duplicates included.
func readSet(t *testing.T, path string) (names []string, rows []reading) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	r := csv.NewReader(z)
	r.ReuseRecord = true
	if head, err := r.Read(); err != nil || strings.Join(head, ",") != "point_name,timestamp_ms,value" {
		t.Fatalf("%s: header %v, %v", path, head, err)
	}
	ids := make(map[string]int32)
	for {
		rec, err := r.Read()
		if err == io.EOF {
			return names, rows
		}
		if err != nil {
			t.Fatal(err)
		}
		id, ok := ids[rec[0]]
		if !ok {
			names = append(names, strings.Clone(rec[0]))
			id = int32(len(names))
			ids[names[id-1]] = id
		}
		ts, err := strconv.ParseInt(rec[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		v := sample.Null
		if rec[2] != "" {
			if v, err = strconv.ParseFloat(rec[2], 64); err != nil || v != v {
				t.Fatalf("%v: %v", rec, err)
			}
			if v == 0 {
				v = 0 // SQLite keeps no sign of zero
			}
		}
		rows = append(rows, reading{id, ts, v})
	}
}

// upsert writes readings as a gateway does, the last one winning, in
// transactions of 10,000, and does the same to model.
func (p *place) upsert(rows []reading, model map[key]row) {
	p.t.Helper()
	for len(rows) > 0 {
		part := rows[:min(len(rows), 10_000)]
		rows = rows[len(part):]
		p.must(func() (err error) {
			defer sqlitex.Save(p.conn)(&err)
			for _, r := range part {
				st, err := p.conn.Prepare("INSERT INTO timeseries (point_id, timestamp, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value")
				if err != nil {
					return err
				}
				st.BindInt64(1, int64(r.point))
				st.BindInt64(2, r.ts)
				if st.BindFloat(3, r.value); r.value != r.value {
					st.BindNull(3)
				}
				if _, err := st.Step(); err != nil {
					return err
				}
				if err := st.Reset(); err != nil {
					return err
				}
				model[key{r.point, r.ts}] = row{bitsOf(r.value), 192, 0}
			}
			return nil
		}())
	}
}

// duck reads every month file that a manifest names with DuckDB.
func (p *place) duck() map[key]row {
	p.t.Helper()
	store, err := dir.Open(filepath.Join(p.dir, "r2"))
	p.must(err)
	defer store.Close()
	ctx := context.Background()
	months, err := manifests.Months(ctx, store)
	p.must(err)
	var files []string
	for _, m := range months {
		man, _, err := manifests.Load(ctx, store, m)
		p.must(err)
		for _, e := range man.Points {
			if e.Path != "" {
				files = append(files, "'"+strings.ReplaceAll(filepath.Join(p.dir, "r2", string(e.Path)), "'", "''")+"'")
			}
		}
	}
	db, err := sql.Open("duckdb", "")
	p.must(err)
	defer db.Close()
	res, err := db.Query("SELECT point_id, epoch_ms(timestamp), value, quality, flags FROM read_parquet([" + strings.Join(files, ", ") + "])")
	p.must(err)
	defer res.Close()
	rows := make(map[key]row)
	for res.Next() {
		var k key
		var v sql.NullFloat64
		var quality, flags int32
		p.must(res.Scan(&k.point, &k.ts, &v, &quality, &flags))
		if !v.Valid {
			v.Float64 = sample.Null
		} else if v.Float64 != v.Float64 {
			p.t.Fatalf("point %d at %d is NaN, which DuckDB tells from NULL", k.point, k.ts)
		}
		if _, twice := rows[k]; twice {
			p.t.Fatalf("point %d has %d twice", k.point, k.ts)
		}
		rows[k] = row{math.Float64bits(v.Float64), uint8(quality), uint16(flags)}
	}
	p.must(res.Err())
	return rows
}

// TestIntegrationRealData archives real sensor data, a part of which arrives
// after the first archive, and reads all of it back with DuckDB, bit for bit.
func TestIntegrationRealData(t *testing.T) {
	sets, err := filepath.Glob(filepath.Join(realData, "*.csv.gz"))
	if err != nil || len(sets) == 0 {
		t.Skipf("there are no real data sets in %s", realData)
	}
	for i, path := range sets {
		name := strings.TrimSuffix(filepath.Base(path), ".csv.gz")
		seed := uint64(time.Now().UnixNano() % 1_000_000)
		t.Run(fmt.Sprintf("%s-seed%d", name, seed), func(t *testing.T) {
			names, rows := readSet(t, path)
			first, last := rows[0].ts, rows[0].ts
			for _, r := range rows {
				first, last = min(first, r.ts), max(last, r.ts)
			}
			days := utc.Days{From: utc.DayOf(first), To: utc.DayOf(last) + 1}
			p := newPlace(t, seed, days.To.Time().Add(2*time.Hour).Format(time.RFC3339))
			for _, n := range names {
				p.exec("INSERT INTO points (name) VALUES (?)", n)
			}
			// About a row in twenty comes late, in any order.
			rng := rand.New(rand.NewPCG(seed, 2))
			var punctual, late []reading
			for _, r := range rows {
				if rng.IntN(20) == 0 {
					late = append(late, r)
				} else {
					punctual = append(punctual, r)
				}
			}
			rng.Shuffle(len(late), func(i, j int) { late[i], late[j] = late[j], late[i] })

			codec := [...]string{"zstd", "snappy"}[i%2]
			model := make(map[key]row)
			p.upsert(punctual, model)
			back := p.ok("backfill", "--from", days.From.String(), "--to", days.To.String(), "--codec", codec, "--json").report(t)
			if back.SamplesAdded != int64(len(model)) {
				t.Fatalf("backfill added %d samples of %d", back.SamplesAdded, len(model))
			}
			same(t, p.duck(), model)

			p.upsert(late, model)
			again := [...]string{"rearchive", "archive"}[i/2%2]
			r := p.ok(again, "--from", days.From.String(), "--to", days.To.String(), "--json").report(t)
			same(t, p.duck(), model)
			if v := p.ok("verify", "--deep"); !strings.Contains(v.stdout, "whole: no findings") {
				t.Fatal(v)
			}
			if r := p.ok("archive", "--from", days.From.String(), "--to", days.To.String(), "--json").report(t); r.PointDays != 0 || r.FilesWritten != 0 {
				t.Fatalf("another archive read %d point-days and wrote %d files", r.PointDays, r.FilesWritten)
			}
			var left int64
			p.must(sqlitex.Execute(p.conn, "SELECT count(*) FROM timeseries", &sqlitex.ExecOptions{ResultFunc: func(st *sqlite.Stmt) error {
				left = st.ColumnInt64(0)
				return nil
			}}))
			t.Logf("%s: %d lines, %d points, %s: %d samples (%s); %d lines late, by %s: %d point-days, %d added; retention has taken %d rows from the source meanwhile",
				name, len(rows), len(names), days, len(model), codec, len(late), again, r.PointDays, r.SamplesAdded, int64(len(model))-left)
		})
	}
}
