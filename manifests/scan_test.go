package manifests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"etl/internal/sample"
	"etl/internal/utc"
)

// agrees fails the test if the scanner reads a text that encoding/json refuses, or
// reads it to another value. It reports whether the scanner reads it at all.
func agrees(t *testing.T, data []byte) (month, points bool) {
	t.Helper()
	m, month := scanManifest(string(data))
	if month {
		want := &Manifest{}
		if err := json.Unmarshal(data, want); err != nil || !reflect.DeepEqual(m, want) {
			t.Fatalf("%s\nscanned: %+v\nwant:    %+v, %v", data, m, want, err)
		}
	}
	c, points := scanPoints(data)
	if points {
		want := &Catalog{}
		if err := json.Unmarshal(data, want); err != nil || !reflect.DeepEqual(c, want) {
			t.Fatalf("%s\nscanned: %+v\nwant:    %+v, %v", data, c, want, err)
		}
	}
	return month, points
}

// randomPoints is a catalog of n points.
func randomPoints(rnd *rand.Rand, n int) *Catalog {
	c := &Catalog{Format: PointsFormat, Version: PointsVersion, SourceID: fmt.Sprintf("source \"%d\"", rnd.IntN(9)), Points: []sample.Point{}}
	text := func() *string {
		return []*string{nil, new(""), new("plain"), new("°C <&>"), new("a\\b\"c\n\x01\u2028"), new("\xff")}[rnd.IntN(6)]
	}
	number := func() *float64 {
		return []*float64{nil, new(0.0), new(math.Copysign(0, -1)), new(-5.0), new(1e300), new(5e-324), new(rnd.NormFloat64()), new(math.MaxFloat64)}[rnd.IntN(8)]
	}
	integer := func() *int64 {
		return []*int64{nil, new(int64(0)), new(int64(60_000)), new(rnd.Int64()), new(int64(math.MinInt64)), new(int64(math.MaxInt64))}[rnd.IntN(6)]
	}
	id := int32(math.MinInt32)
	for range n {
		id += 1 + rnd.Int32N(1000)
		p := sample.Point{ID: id, Site: text(), System: text(), Equipment: text(), Unit: text(), IntervalMS: integer(),
			MinValue: number(), MaxValue: number(), CreatedAt: integer(), RetiredAt: integer()}
		if s := text(); s != nil {
			p.Name = *s
		}
		c.Points = append(c.Points, p)
	}
	return c
}

// TestScan: the scanner reads whatever the encoders write, and of whatever it reads
// that was changed in a place or two, encoding/json reads the same.
func TestScan(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	changed, read := 0, 0
	for range 300 {
		month := utc.MonthOf(2023, 1) + utc.Month(rnd.IntN(24))
		manifest := Encode(random(rnd, month, rnd.IntN(5)))
		if ok, _ := agrees(t, manifest); !ok {
			t.Fatalf("not scanned:\n%s", manifest)
		}
		catalog, err := EncodePoints(randomPoints(rnd, rnd.IntN(5)))
		if err != nil {
			t.Fatal(err)
		}
		// The one number that is left to encoding/json.
		if _, ok := agrees(t, catalog); !ok && !bytes.Contains(catalog, []byte("-9223372036854775808")) {
			t.Fatalf("not scanned:\n%s", catalog)
		}
		for _, data := range [][]byte{manifest, catalog} {
			for range 30 {
				bad := bytes.Clone(data)
				for range 1 + rnd.IntN(2) {
					switch i := rnd.IntN(len(bad)); rnd.IntN(4) {
					case 0:
						bad[i] = byte(rnd.IntN(256))
					case 1:
						bad[i] = `0123456789-+.eE",:[]{}\untru `[rnd.IntN(28)]
					case 2:
						bad = append(bad[:i], bad[i+1:]...)
					default:
						j := i + rnd.IntN(min(20, len(bad)-i))
						bad = append(bad[:j:j], bad[i:]...) // a piece again
					}
				}
				changed++
				if m, c := agrees(t, bad); m || c {
					read++
				}
			}
		}
	}
	if read < changed/20 || read > changed*19/20 {
		t.Errorf("of %d changed texts the scanner reads %d: the changes are too coarse, or too fine", changed, read)
	}
}

// TestScanLeaves: what the encoders never write is left to encoding/json, which
// reads it or refuses it.
func TestScanLeaves(t *testing.T) {
	good := string(Encode(example()))
	for _, c := range [][2]string{
		{`"version":1`, `"version": 1`}, {`"version":1`, `"version":2`}, {`"version":1`, `"version":1.0`}, {`{"id":1,`, `{"name":"x","id":1,`}, {`"id":2`, `"id":02`},
		{`"id":2`, `"id":2e0`}, {`"id":2`, `"id":2147483648`}, {`"id":2`, `"id":null`}, {`"samples":86403`, `"samples":9223372036854775808`}, {`"samples":86403`, `"samples":+1`},
		{`"days":[43200,`, `"days":[-1,`}, {`"days":[43200,`, `"days":[2147483648,`}, {`"days":[43200,`, `"days":[43200,0,`}, {`"days":[43200,`, `"days":[,`}, {`null]}`, `null,]}`},
		{"emptied", "emp\xfftied"}, {"emptied", "emp\ntied"}, {"emptied", "emp\\xtied"}, {`"emptied"`, `"emptied`}, {"2024-01\"", "2024-13\""}, {"\n}\n", "\n}\n\n"}, {"\n}\n", "\n}"},
		{"\n}\n", ",\"more\":1}\n"}, {"\n]", "]"}, {"\n]", ",\n]"}, {",\n\"checksum\"", "\n\"checksum\""},
	} {
		bad := strings.Replace(good, c[0], c[1], 1)
		if bad == good {
			t.Fatalf("no %q in the example", c[0])
		}
		if ok, _ := agrees(t, []byte(bad)); ok {
			t.Errorf("%q in place of %q is scanned", c[1], c[0])
		}
	}
	for i := range good {
		if ok, _ := agrees(t, []byte(good[:i])); ok {
			t.Errorf("the first %d bytes are scanned", i)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add(Encode(example()))
	f.Add(Encode(newManifest(jan, "c", []Entry{})))
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 3 {
		points, err := EncodePoints(randomPoints(rnd, 3))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(points)
		f.Add(Encode(random(rnd, jan, 2)))
	}
	f.Fuzz(func(t *testing.T, data []byte) { agrees(t, data) })
}

// BenchmarkScan is the scanner beside encoding/json, over 10,000 points.
func BenchmarkScan(b *testing.B) {
	data := Encode(big(10_000))
	for name, read := range map[string]func() bool{
		"scanner": func() bool { _, ok := scanManifest(string(data)); return ok },
		"json":    func() bool { return json.Unmarshal(data, &Manifest{}) == nil },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if !read() {
					b.Fatal("not read")
				}
			}
		})
	}
}
