//go:build integration

package d1

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/cloudflare"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/testserver"
	"etl/internal/utc"
)

// TestIntegrationRestoreAndPrune: a million doubles of every kind go through
// Cloudflare's own runtime and are bit for bit what its file then holds; and pruning them
// reads no more than a small multiple of the rows.
func TestIntegrationRestoreAndPrune(t *testing.T) {
	cf := testserver.Miniflare(t, testserver.Options{})
	client, err := cloudflare.New(cf.Account, cf.Token, cloudflare.Options{URL: cf.URL, HTTP: testserver.Client(t, cf.CAFile), Rate: 10_000, Burst: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	s := Open(client.Database(cf.DatabaseID), Options{})
	defer s.Close()
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const perDay, points, days = 5_000, 40, 5
	b := &sample.Batch{}
	var cuts []source.Cut
	var sls []source.Slice
	for id := range int32(points) {
		for d := d0; d < d0+days; d++ {
			for i := range int64(perDay) {
				v := math.Float64frombits(r.Uint64())
				switch r.IntN(4) {
				case 0:
					v = math.Float64frombits(r.Uint64() >> 12) // a denormal
				case 1:
					v = math.Round(r.NormFloat64()*1e4) / 100
				}
				if v != v {
					v = sample.Null
				}
				b.PointID = append(b.PointID, id)
				b.Append(d.Start()+i*10_000, v+0, 192, 0)
			}
			sls = append(sls, source.Slice{Point: id, Day: d})
			cuts = append(cuts, source.Cut{Slice: sls[len(sls)-1], Run: "r", Rows: perDay})
		}
	}
	begin := s.Usage()
	start := time.Now()
	if err := s.Restore(t.Context(), b, false); err != nil {
		t.Fatal(err)
	}
	took, used := time.Since(start), s.Usage()
	t.Logf("restored %d rows by %d requests, %.0f rows/s; %.2f rows billed as written for each, %.2f as read", b.Len(), used.Requests-begin.Requests,
		float64(b.Len())/took.Seconds(), float64(used.RowsWritten-begin.RowsWritten)/float64(b.Len()), float64(used.RowsRead-begin.RowsRead)/float64(b.Len()))
	if err := s.Restore(t.Context(), b, false); err != nil {
		t.Fatal(err)
	}
	if again := s.Usage().RowsWritten - used.RowsWritten; again != 0 {
		t.Errorf("restoring again is billed %d rows", again)
	}

	c, err := sqlite.OpenConn(cf.SQLitePath, sqlite.OpenReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	i, wrong := 0, 0
	if err := sqlitex.ExecuteTransient(c, "SELECT value FROM timeseries ORDER BY point_id, timestamp", &sqlitex.ExecOptions{ResultFunc: func(st *sqlite.Stmt) error {
		got, want := sample.Null, b.Value[i]
		if st.ColumnType(0) != sqlite.TypeNull {
			got = st.ColumnFloat(0)
		}
		if math.Float64bits(got) != math.Float64bits(want) {
			if wrong++; wrong < 5 {
				t.Errorf("%x is %x", want, got)
			}
		}
		i++
		return nil
	}}); err != nil || i != b.Len() || wrong > 0 {
		t.Errorf("%d of %d rows, %d wrong, %v", i, b.Len(), wrong, err)
	}

	if err := s.Claim(t.Context(), "r", sls); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Confirm(t.Context(), "r", sls); err != nil || n != len(sls) {
		t.Fatal(n, err)
	}
	used, start = s.Usage(), time.Now()
	cut, rows, err := s.Prune(t.Context(), cuts)
	if err != nil || len(cut) != len(cuts) || rows != int64(b.Len()) {
		t.Fatal(len(cut), rows, err)
	}
	took = time.Since(start)
	read := float64(s.Usage().RowsRead-used.RowsRead) / float64(rows)
	t.Logf("pruned %d rows by %d requests, %.0f rows/s; %.2f rows billed as written for each, %.2f as read", rows, s.Usage().Requests-used.Requests,
		float64(rows)/took.Seconds(), float64(s.Usage().RowsWritten-used.RowsWritten)/float64(rows), read)
	if read > 8 {
		t.Errorf("%.2f rows are read for each that goes", read)
	}
	counts, err := s.Count(t.Context(), source.Query{Points: []int32{0, 1, points - 1}, Days: utc.Days{From: d0, To: d0 + days}})
	if err != nil || len(counts) > 0 {
		t.Errorf("rows are left: %v, %v", counts, err)
	}
}
