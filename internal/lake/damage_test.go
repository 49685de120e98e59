package lake

import (
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/manifests"
)

var thorough = flag.Bool("thorough", false, "try every byte, where else a sample is tried")

// spoil damages bytes in a way of its own: a bit, a byte, a cut, a block of zeros,
// bytes added.
func spoil(rnd *rand.Rand, data []byte) []byte {
	at := rnd.IntN(len(data))
	bad := slices.Clone(data)
	switch rnd.IntN(10) {
	case 0:
		return bad[:at]
	case 1:
		return append(bad, byte(rnd.Uint32()))
	case 2:
		clear(bad[at:min(len(bad), at+1+rnd.IntN(64))])
	case 3:
		bad[at] = byte(rnd.Uint32())
	default:
		bad[at] ^= 1 << rnd.IntN(8)
	}
	return bad
}

// TestDamagedIsNeverFetched: each byte of a month file, changed.
func TestDamagedIsNeverFetched(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := newRAM()
	files := putMonth(t, s, january, 2)
	data, _, err := s.Get(t.Context(), files[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	c := openCache(t, t.TempDir(), large)
	p := pinned(t, c)
	n := 0
	for at := range data {
		if !*thorough && rnd.IntN(4) > 0 {
			continue
		}
		bad := slices.Clone(data)
		bad[at] ^= byte(1 + rnd.IntN(255))
		if _, err := s.Put(t.Context(), files[0].Key, bad, object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		got, err := p.Fetch(t.Context(), s, files, 2, nil)
		if got != nil || !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), string(files[0].Key)) {
			t.Errorf("byte %d of %d, %#02x instead of %#02x: %v, %v", at, len(data), bad[at], data[at], got, err)
		}
		n++
	}
	t.Logf("reliability: damages below queries, files: %d damages of a file of %d bytes, none fetched", n, len(data))
	wantSound(t, c)
}

// TestLakeDamage: no query is answered from a month file that is damaged, nor
// otherwise than before from a manifest or a catalog of points that is.
func TestLakeDamage(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	for _, name := range []string{"A", "B", "C"} {
		w.fill(w.point(name, "HVAC"), day("2024-02-01"), day("2024-03-05"), 4)
	}
	w.archive(day("2024-02-01"), day("2024-03-04"))
	o := w.options()
	o.Store = w.dir
	l := w.open(o)
	queries := []Query{{SQL: allSamples, Tier: Cold}, {SQL: "SELECT point_name, count(*) AS n, sum(value) AS v FROM samples WHERE ts < '2024-02-20' GROUP BY ALL", Tier: Cold},
		{SQL: "SELECT * FROM latest", Tier: Cold}}
	var want [][]string
	for _, q := range queries {
		a, _, err := ask(t, l, q)
		w.must(err)
		want = append(want, a)
	}
	rounds := 40
	if *thorough {
		rounds = 400
	}
	for _, key := range []string{"timeseries/2024/02/b.parquet", "_manifests/2024-02.json", string(manifests.PointsKey)} {
		path := w.root + "/" + key
		data, err := os.ReadFile(path)
		w.must(err)
		refused, same := 0, 0
		for range rounds {
			bad := spoil(rnd, data)
			if slices.Equal(bad, data) {
				continue
			}
			w.must(os.WriteFile(path, bad, 0o644))
			i := rnd.IntN(2)
			got, _, err := ask(t, l, queries[i])
			switch {
			case err != nil && (fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid)) && strings.Contains(err.Error(), key):
				refused++
			case err == nil && slices.Equal(got, want[i]) && !strings.HasSuffix(key, ".parquet"):
				same++ // what it says is the same
			default:
				t.Errorf("%s: %d bytes of %d: %v, %d rows of %d", key, len(bad), len(data), err, len(got), len(want[i]))
			}
		}
		w.must(os.WriteFile(path, data, 0o644))
		t.Logf("reliability: damages below queries, answers: %d damages of %s: %d refused, %d leave what it says", refused+same, key, refused, same)
	}
	for i, q := range queries {
		if got, _, err := ask(t, l, q); err != nil || !slices.Equal(got, want[i]) {
			t.Errorf("mended: %v, %d rows of %d", err, len(got), len(want[i]))
		}
	}
}
