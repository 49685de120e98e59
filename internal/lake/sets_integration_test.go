//go:build integration

package lake

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"etl/internal/sample"
	"etl/internal/source/sqlite"
	"etl/internal/utc"
)

// sets are real sensor data that is not part of this repository.
const sets = "../../../shared/data"

// TestIntegrationLakeSets splits each real set between the tiers, its last fifth
// hot and a part of that in both, and compares every sample with what arrived.
func TestIntegrationLakeSets(t *testing.T) {
	paths, _ := filepath.Glob(sets + "/*.csv.gz")
	if len(paths) == 0 {
		t.Skipf("no real sets in %s", sets)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			w := newWorld(t)
			first, last := w.loadSet(path)
			w.now = (last + 1).Time().Add(12 * time.Hour)
			split := first + (last-first)*4/5
			w.archive(first, split)
			// A late row: its day is read from both tiers.
			w.put(1, (split-1).Start()+1, row{0.1, 192, 0})
			oracle := w.oracle()
			for _, q := range []string{
				"SELECT point_name, count(*) AS n, count(value) AS v, sum(hash(ts, value)) AS h, min(ts) AS a, max(ts) AS b FROM samples GROUP BY ALL",
				"SELECT date_trunc('day', ts) AS d, count(*) AS n, min(value) AS a, max(value) AS b FROM samples WHERE ts >= TIMESTAMP '" + (split - 3).String() + "' GROUP BY ALL",
				allSamples + " WHERE ts >= TIMESTAMP '" + (split - 1).String() + "' AND ts < TIMESTAMP '" + (split + 1).String() + "'",
				"SELECT point_name, ts, value FROM latest",
			} {
				w.same(oracle, Query{SQL: q})
			}
			s := w.same(oracle, Query{SQL: "SELECT count(*) AS n FROM samples"})
			t.Logf("%d samples, %d of them from the hot tier, %d month files", len(w.truth), s.HotRows, s.Files)
			if s.HotRows == 0 || s.Files == 0 {
				t.Error("the set was not split")
			}
		})
	}
}

// loadSet writes a set as it arrived, out of order and duplicates included, and
// returns its first and its last day.
func (w *world) loadSet(path string) (first, last utc.Day) {
	w.t.Helper()
	f, err := os.Open(path)
	w.must(err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	w.must(err)
	r := csv.NewReader(z)
	_, err = r.Read() // point_name, timestamp_ms, value
	w.must(err)
	ids := map[string]int32{}
	first, last = 1<<30, 0
	var b sample.Batch
	load := func() {
		w.must(w.src.(*sqlite.Source).Load(w.t.Context(), nil, &b))
		b.Reset()
	}
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		w.must(err)
		id, ok := ids[rec[0]]
		if !ok {
			id = w.point(rec[0], "")
			ids[rec[0]] = id
		}
		ts, err := strconv.ParseInt(rec[1], 10, 64)
		w.must(err)
		v := null
		if rec[2] != "" {
			v, err = strconv.ParseFloat(rec[2], 64)
			w.must(err)
		}
		b.PointID = append(b.PointID, id)
		b.Append(ts, v, 192, 0)
		w.truth[key{id, ts}] = row{v, 192, 0}
		if b.Len() == 50_000 {
			load()
		}
		first, last = min(first, utc.DayOf(ts)), max(last, utc.DayOf(ts))
	}
	load()
	return first, last
}
