package monthfile

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// naivePack packs bit by bit.
func naivePack(vals []uint64, w int) []byte {
	out := make([]byte, packedLen(len(vals), w))
	for i, v := range vals {
		for k := range w {
			if v>>k&1 != 0 {
				out[(i*w+k)/8] |= 1 << ((i*w + k) % 8)
			}
		}
	}
	return out
}

func TestPackedAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for w := range 65 {
		for _, n := range []int{0, 1, 7, 8, 9, 33, 100} {
			vals := make([]uint64, n)
			for i := range vals {
				if vals[i] = r.Uint64(); w < 64 {
					vals[i] &= 1<<w - 1
				}
			}
			want := naivePack(vals, w)
			if got := appendPacked([]byte{1}, vals, w); !slices.Equal(got[1:], want) {
				t.Fatalf("width %d, %d values: packed % x, want % x", w, n, got[1:], want)
			}
			back := make([]uint64, n)
			unpack(back, want, w)
			if !slices.Equal(back, vals) {
				t.Fatalf("width %d, %d values: unpacked %v, want %v", w, n, back, vals)
			}
			if w <= 32 {
				small := make([]uint32, n)
				unpack(small, append(want, 0xff, 0xff, 0xff), w)
				for i, v := range small {
					if uint64(v) != vals[i] {
						t.Fatalf("width %d, value %d: unpacked %d, want %d", w, i, v, vals[i])
					}
				}
			}
		}
	}
}

// naiveHybrid decodes bit by bit.
func naiveHybrid(src []byte, n, w int) []uint32 {
	var out []uint32
	for len(out) < n {
		h, k := binary.Uvarint(src)
		src = src[k:]
		if h&1 == 0 {
			v := uint32(0)
			for k := range (w + 7) / 8 {
				v |= uint32(src[k]) << (8 * k)
			}
			src = src[(w+7)/8:]
			for range h >> 1 {
				out = append(out, v)
			}
			continue
		}
		for i := range int(h>>1) * 8 {
			v := uint32(0)
			for k := range w {
				v |= uint32(src[(i*w+k)/8]>>((i*w+k)%8)&1) << k
			}
			out = append(out, v)
		}
		src = src[int(h>>1)*w:]
	}
	return out[:n]
}

func TestHybridAgainstNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.IntRange(0, 32).Draw(t, "width")
		var vals []uint64
		for range rapid.IntRange(1, 12).Draw(t, "runs") {
			v := rapid.Uint64Range(0, 1<<w-1).Draw(t, "value")
			for range rapid.IntRange(1, 20).Draw(t, "length") {
				vals = append(vals, v)
			}
		}
		for _, src := range [][]byte{appendHybrid(nil, vals, w), appendGroups(nil, vals, w)} {
			got := make([]uint32, len(vals))
			if !decodeHybrid(got, src, w) {
				t.Fatalf("% x: damaged", src)
			}
			if want := naiveHybrid(src, len(vals), w); !slices.Equal(got, want) {
				t.Fatalf("% x: got %v, naively %v", src, got, want)
			}
			for i, v := range got {
				if uint64(v) != vals[i] {
					t.Fatalf("% x: value %d is %d, want %d", src, i, v, vals[i])
				}
			}
		}
	})
}

func TestDeltaRoundTrip(t *testing.T) {
	var tmp [64]uint64
	layouts := append(slices.Clone(timeLayouts), deltaLayout{128, 1}, deltaLayout{0, 1})
	rapid.Check(t, func(t *rapid.T) {
		var ts []int64
		if rapid.Bool().Draw(t, "wild") {
			ts = rapid.SliceOfN(rapid.Int64(), 1, 300).Draw(t, "values") // differences wrap around
		} else {
			at := rapid.Int64Range(-1e15, 1e15).Draw(t, "first")
			step := rapid.Int64Range(1, 1e6).Draw(t, "step")
			jitter := rapid.Int64Range(0, 1e4).Draw(t, "jitter")
			for range rapid.IntRange(1, 600).Draw(t, "count") {
				ts = append(ts, at)
				at += step + rapid.Int64Range(0, jitter).Draw(t, "late")
			}
		}
		d, smallest := deltas(nil, ts)
		for _, l := range layouts {
			src := appendDelta(nil, ts[0], d, smallest, l)
			out := make([]int64, len(ts))
			if !decodeDelta(out, src, tmp[:]) || !slices.Equal(out, ts) {
				t.Fatalf("layout %v: got %v, want %v", l, out, ts)
			}
			if decodeDelta(make([]int64, len(ts)+1), src, tmp[:]) {
				t.Fatalf("layout %v: decoded a value too many", l)
			}
		}
	})
}

// TestDeltaSeveralBlocks decodes what other writers make: blocks of 128 in miniblocks of 32.
func TestDeltaSeveralBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	ts := make([]int64, 1000)
	for i := range ts {
		ts[i] = r.Int64N(1 << (1 + i/20))
	}
	src := binary.AppendUvarint(nil, 128)
	src = binary.AppendUvarint(src, 4)
	src = binary.AppendUvarint(src, uint64(len(ts)))
	src = binary.AppendVarint(src, ts[0])
	for i := 0; i+1 < len(ts); i += 128 {
		d, smallest := deltas(nil, ts[i:min(len(ts), i+129)])
		src = binary.AppendVarint(src, smallest)
		widths := len(src)
		src = append(src, 0, 0, 0, 0)
		for k := 0; k*32 < len(d); k++ {
			part := slices.Clone(d[k*32 : min(len(d), k*32+32)])
			w := widthOf(slices.Max(part))
			src[widths+k] = byte(w)
			src = append(src, naivePack(append(part, make([]uint64, 32-len(part))...), w)...)
		}
	}
	out := make([]int64, len(ts))
	var tmp [8]uint64
	if !decodeDelta(out, src, tmp[:]) || !slices.Equal(out, ts) {
		t.Fatalf("got %v, want %v", out, ts)
	}
}

func TestOrdered(t *testing.T) {
	v := []float64{math.Inf(-1), -math.MaxFloat64, -1, -5e-324, math.Copysign(0, -1), 0, 5e-324, 1, math.MaxFloat64, math.Inf(1)}
	for i, x := range v {
		b := math.Float64bits(x)
		if unordered(ordered(b)) != b {
			t.Errorf("%v does not come back", x)
		}
		if i > 0 && ordered(math.Float64bits(v[i-1])) >= ordered(b) {
			t.Errorf("%v is not before %v", v[i-1], x)
		}
	}
}

func TestSplitRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	keys := make([]uint64, 77)
	for i := range keys {
		keys[i] = r.Uint64() >> 2 // no NaN
	}
	raw := appendSplit(nil, keys)
	out := make([]float64, len(keys))
	joinSplit(out, raw)
	for i, k := range keys {
		if raw[3*len(keys)+i] != byte(k>>24) || math.Float64bits(out[i]) != k {
			t.Fatalf("value %d: %x, want %x", i, math.Float64bits(out[i]), k)
		}
	}
}

// FuzzPages feeds the decoders of pages. They must not panic, and must not
// accept a NaN or an index outside the dictionary.
func FuzzPages(f *testing.F) {
	d, smallest := deltas(nil, []int64{5, 9, 11, 400})
	f.Add(uint16(4), byte(0), appendDelta(nil, 5, d, smallest, deltaLayout{32, 1}))
	f.Add(uint16(9), byte(3), appendHybrid([]byte{3}, []uint64{1, 2, 3, 3, 3, 3, 3, 3, 3}, 3))
	f.Add(uint16(2), byte(0), append([]byte{2, 0, 0, 0, 4, 1}, make([]byte, 16)...))
	f.Add(uint16(3), byte(4), []byte{2, 0, 0, 0, 3, 5, 1, 3, 2})
	dec := NewDecoder()
	f.Fuzz(func(t *testing.T, n uint16, dict byte, src []byte) {
		rows := int(n)%5000 + 1
		decodeDelta(make([]int64, rows), src, dec.tmp[:])
		dec.dict = dec.dict[:0]
		for i := range int(dict) {
			dec.dict = append(dec.dict, uint64(i))
		}
		gather(dec, src, make([]uint8, rows), func(v uint64) uint8 { return uint8(v) })
		for _, enc := range []Encoding{Plain, ByteStreamSplit, Dictionary} {
			out := make([]float64, rows)
			if dec.values(enc, src, out) {
				for i, x := range out {
					if x != x && (len(dec.present) != rows || dec.present[i] != 0) {
						t.Fatalf("%v: row %d is NaN and not NULL", enc, i)
					}
				}
			}
		}
	})
}

// FuzzThrift skips through any bytes as a struct, to its end or to a fault.
func FuzzThrift(f *testing.F) {
	var w tWriter
	writeFooter(&w, nil, 0, []byte("{}"))
	f.Add(w.b)
	f.Add([]byte{0x1b, 2, 0x85, 1, 1, 2, 2, 0, 0x17, 1, 2, 3, 4, 5, 6, 7, 8, 0x1c, 0x11, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := tReader{b: b}
		r.skip(tStruct)
		if r.pos > len(b) {
			t.Fatal("read beyond the end")
		}
		parsePageHeader(b)
	})
}
