package files

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/klauspost/compress/gzip"

	"etl/internal/sample"
	"etl/internal/source"
)

// writeHistory writes a CSV file of rows rows of points points, a sample a
// minute each, in order of time, as an export is.
func writeHistory(b testing.TB, path string, rows, points int) {
	f, err := os.Create(path)
	must(b, err)
	z, err := gzip.NewWriterLevel(f, 1)
	must(b, err)
	w := bufio.NewWriterSize(z, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	fmt.Fprintln(w, "point_name,timestamp_ms,value")
	line := make([]byte, 0, 100)
	for i := range rows {
		p := i % points
		line = append(append(line[:0], "Building1.HVAC.AHU"...), strconv.Itoa(p)...)
		line = strconv.AppendInt(append(line, ".SupplyTemp,"...), 1672531200000+int64(i/points)*60_000, 10)
		line = strconv.AppendFloat(append(line, ','), float64(r.IntN(5000))/10, 'f', -1, 64)
		w.Write(append(line, '\n'))
	}
	must(b, w.Flush())
	must(b, z.Close())
	must(b, f.Close())
}

const benchRows, benchPoints = 4_000_000, 500

// BenchmarkStage stages 4 M rows of 500 points from one gzip file.
func BenchmarkStage(b *testing.B) {
	path := filepath.Join(b.TempDir(), "history.csv.gz")
	writeHistory(b, path, benchRows, benchPoints)
	src := authority(b)
	for b.Loop() {
		s, err := Open(b.Context(), src, []string{path}, Options{Unknown: Create, Dir: b.TempDir()})
		must(b, err)
		if s.Summary().Samples != benchRows {
			b.Fatalf("%+v", s.Summary())
		}
		must(b, s.Close())
	}
	b.ReportMetric(benchRows*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
}

// BenchmarkRead reads them.
func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "history.csv.gz")
	writeHistory(b, path, benchRows, benchPoints)
	s := open(b, authority(b), []string{path}, Options{Unknown: Create})
	var ids []int32
	for _, p := range s.points {
		ids = append(ids, p.ID)
	}
	for b.Loop() {
		n := 0
		_, err := s.Read(b.Context(), source.Query{Points: ids, Days: s.span}, func(batch *sample.Batch) error {
			n += batch.Len()
			return nil
		})
		if must(b, err); n != benchRows {
			b.Fatal(n)
		}
	}
	b.ReportMetric(benchRows*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
}
