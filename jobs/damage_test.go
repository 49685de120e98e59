package jobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
	"etl/manifests"
)

var thorough = flag.Bool("thorough", false, "try every byte, where else a sample is tried")

// memory is a store that only reads.
type memory map[object.Key][]byte

func (m memory) attrs(key object.Key) object.Attrs {
	sum := sha256.Sum256(m[key])
	return object.Attrs{Key: key, Size: int64(len(m[key])), ETag: hex.EncodeToString(sum[:8]), Modified: time.Now()}
}

func (m memory) Get(_ context.Context, key object.Key) ([]byte, object.Attrs, error) {
	data, ok := m[key]
	if !ok {
		return nil, object.Attrs{}, fault.Errorf(fault.NotExist, "get %s: there is none", key)
	}
	return data, m.attrs(key), nil
}

func (memory) Put(_ context.Context, key object.Key, _ []byte, _ object.PutOptions) (object.Attrs, error) {
	return object.Attrs{}, fault.Errorf(fault.Internal, "put %s: a verification writes nothing", key)
}

func (m memory) List(_ context.Context, prefix string) iter.Seq2[object.Attrs, error] {
	return func(yield func(object.Attrs, error) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if strings.HasPrefix(string(k), prefix) && !yield(m.attrs(k), nil) {
				return
			}
		}
	}
}

// shapes are month files of every kind, by their names.
func shapes(t testing.TB) (memory, map[string]manifests.Entry) {
	t.Helper()
	m := utc.MonthOf(2024, 2)
	rnd := rand.New(rand.NewPCG(3, 4))
	series := func(n int, step int64, value func(i int) float64) sample.Series {
		var s sample.Series
		for i := range n {
			s.Append(m.First().Start()+int64(i)*step, value(i), 192, uint16(i%3))
		}
		return s
	}
	noise := func(int) float64 { return rnd.NormFloat64() }
	odd := []float64{0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), 5e-324, math.MaxFloat64, sample.Null}
	var jittered sample.Series
	for ts := m.First().Start(); jittered.Len() < 300; ts += 1 + rnd.Int64N(5_000_000) {
		jittered.Append(ts, odd[rnd.IntN(len(odd))], uint8(rnd.IntN(256)), uint16(rnd.IntN(65536)))
	}
	store, entries, list := memory{}, map[string]manifests.Entry{}, []manifests.Entry{}
	encodings := map[string]bool{}
	for i, f := range []struct {
		name  string
		codec monthfile.Codec
		s     sample.Series
	}{
		{"empty", monthfile.Zstd, sample.Series{}},
		{"one", monthfile.Zstd, series(1, 1, func(int) float64 { return 21.5 })},
		{"nulls", monthfile.Zstd, series(200, 60_000, func(int) float64 { return sample.Null })},
		{"constant", monthfile.Zstd, series(700, 60_000, func(int) float64 { return 1 })},
		{"odd", monthfile.Zstd, jittered},
		{"plain", monthfile.Zstd, series(40, 60_000, noise)},
		{"snappy", monthfile.Snappy, series(500, 60_000, func(i int) float64 { return float64(i/10) / 10 })},
		{"split", monthfile.Zstd, series(3000, 600_000, func(i int) float64 { return 20 + rnd.Float64()/1024 })},
		{"full", monthfile.Zstd, series(29*1440, 60_000, func(i int) float64 {
			if i%97 == 0 {
				return sample.Null
			}
			return math.Round(200+50*math.Sin(float64(i)/700)+float64(rnd.IntN(3))) / 10
		})},
	} {
		days := sample.NewDayCounts(m)
		for d := range 5 {
			days[d] = 0
		}
		if !sample.CountDays(days, m, f.s.TS) {
			t.Fatal(f.name)
		}
		data, info, err := monthfile.NewEncoder(monthfile.Options{Codec: f.codec}).Encode(nil, monthfile.Meta{PointID: int32(i + 1), PointName: f.name, Month: m, Days: days}, &f.s)
		if err != nil {
			t.Fatal(err)
		}
		key := object.Key(manifests.DirOf(m) + f.name + ".parquet")
		store[key] = data
		e, err := entry(key, data, store.attrs(key).ETag, info)
		if err != nil {
			t.Fatal(err)
		}
		encodings[info.ValueEncoding.String()+" "+info.Codec.String()] = true
		entries[f.name] = *e
		list = append(list, *e)
	}
	t.Logf("value columns: %v", slices.Sorted(maps.Keys(encodings)))
	man := &manifests.Manifest{Format: manifests.Format, Version: manifests.FormatVersion, Commit: "C", Month: m, Points: list}
	for _, e := range list {
		man.Totals.Points++
		man.Totals.Files++
		man.Totals.Samples += e.Samples
		man.Totals.Bytes += e.Bytes
	}
	store[manifests.KeyOf(m)] = manifests.Encode(man)
	return store, entries
}

// spoilings are the ways to damage bytes: each byte of what is small, those of the
// ends and a sample of the rest of what is large, and each class of lengths. If
// they are not to be thorough some 200 of the bytes are enough.
func spoilings(rnd *rand.Rand, data []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		bad := make([]byte, 0, len(data)+4096)
		flip := func(at int, bits byte) bool {
			bad = append(bad[:0], data...)
			bad[at] ^= bits
			return yield(fmt.Sprintf("byte %d of %d ^ %#02x", at, len(data), bits), bad)
		}
		for at := range data {
			if !*thorough && rnd.IntN(len(data)) > 200 {
				continue
			}
			if len(data) > 4096 && at > 256 && at < len(data)-2048 && rnd.IntN(len(data)/1000) > 0 {
				continue
			}
			if !flip(at, 1<<rnd.IntN(8)) || !flip(at, byte(1+rnd.IntN(255))) {
				return
			}
		}
		footer := len(data) - 8 - int(binary.LittleEndian.Uint32(data[len(data)-8:]))
		cuts := []int{0, 1, 3, 4, 5, 8, 11, 12, len(data) / 3, len(data) / 2, len(data) - 1, len(data) - 4, len(data) - 5, len(data) - 8, len(data) - 9, footer - 1, footer, footer + 1}
		for range 50 {
			cuts = append(cuts, rnd.IntN(len(data)))
		}
		for _, n := range cuts {
			if n >= 0 && n < len(data) && !yield(fmt.Sprintf("cut to %d of %d", n, len(data)), data[:n:n]) {
				return
			}
		}
		for _, n := range []int{1, 4, 8, 4096} {
			tail := make([]byte, n)
			for i := range tail {
				tail[i] = byte(rnd.Uint32())
			}
			if !yield(fmt.Sprintf("%d bytes more", n), slices.Concat(data, tail)) || !yield(fmt.Sprintf("%d zeros more", n), slices.Concat(data, make([]byte, n))) ||
				!yield(fmt.Sprintf("%d bytes before", n), slices.Concat(tail, data)) {
				return
			}
		}
		for range 50 { // a block that was never written, or written elsewhere
			from := rnd.IntN(len(data))
			to := min(len(data), from+1+rnd.IntN(512))
			bad = append(bad[:0], data...)
			clear(bad[from:to])
			if !bytes.Equal(bad, data) && !yield(fmt.Sprintf("bytes %d to %d zeroed", from, to), bad) {
				return
			}
			bad = append(append(bad[:0], data[:from]...), data[to:]...)
			if !yield(fmt.Sprintf("bytes %d to %d cut out", from, to), bad) {
				return
			}
		}
		yield("zeros", make([]byte, len(data)))
	}
}

// TestDamagedFiles: whatever happens to the bytes of a month file, verify --deep
// names it, and takes no more memory than a file may need.
func TestDamagedFiles(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	store, entries := shapes(t)
	if r, err := Verify(t.Context(), Env{Store: store, Now: time.Now}, VerifyOptions{Deep: true}); err != nil || r.ExitCode() != 0 || r.Files != int64(len(entries)) {
		t.Fatalf("%+v, %v", r, err)
	}
	tried, largest := 0, uint64(0)
	for name, e := range entries {
		data := store[e.Path]
		n := 0
		for what, bad := range spoilings(rnd, data) {
			store[e.Path] = bad
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r, err := Verify(t.Context(), Env{Store: store, Now: time.Now}, VerifyOptions{Deep: true, Points: Points{Globs: []string{name}}, Workers: 1})
			runtime.ReadMemStats(&after)
			if err != nil || r.ExitCode() != fault.ExitCorrupt || len(r.Findings) != 1 || r.Findings[0].Path != string(e.Path) || r.Findings[0].Code != "corrupt" || r.Findings[0].Remedy == "" {
				t.Errorf("%s: %s: exit %d, %v: %+v", name, what, r.ExitCode(), err, r.Findings)
			}
			// A group of rows, a page of it, and zstd's own.
			if grown := after.TotalAlloc - before.TotalAlloc; grown > largest {
				if largest = grown; grown > 128<<20 {
					t.Errorf("%s: %s: %d bytes were allocated", name, what, grown)
				}
			}
			n++
		}
		store[e.Path] = data
		t.Logf("%-8s %6d bytes, %5d damages", name, len(data), n)
		tried += n
	}
	reliability(t, "damages of month files", int64(tried), "damages of %d files, all found; the most memory that one took: %d KiB", len(entries), largest>>10)
}

// TestDamagedManifest: whatever happens to the bytes of a manifest is detected, or
// leaves what it says. Without the checksum, as another writer may leave it out,
// verify --deep finds what the entries say wrongly of the files; names and ETags,
// which prove nothing, are all that may differ unseen.
func TestDamagedManifest(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	store, entries := shapes(t)
	m := utc.MonthOf(2024, 2)
	key := manifests.KeyOf(m)
	for _, name := range []string{"empty", "nulls", "constant", "plain", "split", "full"} { // a few entries are enough
		delete(store, entries[name].Path)
	}
	whole, err := manifests.Decode(m, store[key])
	if err != nil {
		t.Fatal(err)
	}
	few := *whole
	few.Points, few.Totals = nil, manifests.Totals{}
	for _, e := range whole.Points {
		if store[e.Path] != nil {
			few.Points = append(few.Points, e)
			few.Totals = manifests.Totals{Points: few.Totals.Points + 1, Files: few.Totals.Files + 1, Samples: few.Totals.Samples + e.Samples, Bytes: few.Totals.Bytes + e.Bytes}
		}
	}
	summed := manifests.Encode(&few)
	plain := slices.Concat(summed[:bytes.Index(summed, []byte(",\n\"checksum\""))], []byte("\n}\n"))
	for how, data := range map[string][]byte{"summed": summed, "plain": plain} {
		tried, same, found, unseen := 0, 0, 0, 0
		for what, bad := range spoilings(rnd, data) {
			tried++
			store[key] = bad
			r, err := Verify(t.Context(), Env{Store: store, Now: time.Now}, VerifyOptions{Deep: true, Workers: 1})
			if err != nil {
				t.Errorf("%s: %s: %v", how, what, err)
				continue
			}
			got, err := manifests.Decode(m, bad)
			if err != nil {
				if k := fault.KindOf(err); k != fault.Corrupt && k != fault.Invalid {
					t.Errorf("%s: %s: %v is %v", how, what, err, k)
				}
				if r.ExitCode() != fault.ExitCorrupt || r.Findings[0].Path != string(key) || r.Findings[0].Remedy == "" {
					t.Errorf("%s: %s: %v: %+v", how, what, err, r.Findings)
				}
				continue
			}
			if reflect.DeepEqual(got, &few) {
				if same++; r.ExitCode() != 0 {
					t.Errorf("%s: %s: it says the same, but: %+v", how, what, r.Findings)
				}
				continue
			}
			if how == "summed" {
				t.Errorf("%s: passes, and says something else", what)
			}
			if r.ExitCode() == fault.ExitCorrupt {
				found++
				continue
			}
			unseen++
			got.Commit = few.Commit
			for i := range got.Points {
				got.Points[i].Name, got.Points[i].ETag = few.Points[i].Name, few.Points[i].ETag
			}
			if !reflect.DeepEqual(got, &few) {
				t.Errorf("%s: %s: nobody notices: %+v", how, what, r.Findings)
			}
		}
		reliability(t, "damages of manifests, "+how, int64(tried), "damages of %d bytes: %d refused, %d that leave what it says, %d found in the files, %d of a name, a commit or an ETag",
			len(data), tried-same-found-unseen, same, found, unseen)
	}
}
