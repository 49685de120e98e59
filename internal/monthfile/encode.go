package monthfile

import (
	"encoding/binary"
	"math"
	"runtime"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"etl/internal/fault"
	"etl/internal/sample"
)

// The zstd encoders are shared by all Encoders, so that each core has tables,
// not each of many more writers that wait for the network. The levels are
// chosen for tables that stay in the cache between two files: 256 KiB for the
// pages of a day, 1.1 MB for those of a month. The next better level saves 0.6 %
// over the real data sets, and a day of 4,500 points then took 4.4 s of user CPU
// instead of 3.5 s.
var (
	zstdSmall = newZstd(zstd.SpeedFastest)
	zstdLarge = newZstd(zstd.SpeedDefault)
)

// smallPage bounds the pages, in bytes, that zstdSmall compresses: 2,048 doubles.
const smallPage = 16 << 10

func newZstd(level zstd.EncoderLevel) func() *zstd.Encoder {
	return sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil,
			zstd.WithEncoderLevel(level),
			zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
			zstd.WithAllLitEntropyCompression(true),
			zstd.WithSingleSegment(true),
			zstd.WithEncoderCRC(false)) // the rows have a hash of their own
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
}

// Encoder encodes month files. It keeps its scratch memory, about 70 bytes per
// row of the largest row group so far, and is not safe for concurrent use.
type Encoder struct {
	o      Options
	tryAll bool // no sampling: the test that measures what it costs sets this

	keys    []uint64 // bits of the values that are not NULL, or of any column
	deltas  []uint64
	rank    []uint64
	codes   []uint64 // index into dict of each key
	dict    []uint64 // distinct keys, ascending
	table   []uint32 // hash table: index into dict + 1
	repeats bool     // some key comes eight times in a row
	tries   []candidate

	levels     []byte
	levelEnds  []int
	bodies     [2]body // the best candidate so far, and the one being tried
	pageCounts []int   // keys on each page

	meta   tWriter
	facts  []byte
	groups []group
	pages  [numColumns][]pageMeta // of all groups
}

// NewEncoder returns an Encoder with the given options.
func NewEncoder(o Options) *Encoder { return &Encoder{o: o} }

// body is a chunk's pages, raw and compressed, without headers. The dictionary page, if any, is the first.
type body struct {
	encoding Encoding
	dict     int // entries of the dictionary, 0 for none
	raw      []byte
	rawEnds  []int
	comp     []byte
	compEnds []int
}

func (b *body) reset(e Encoding, dict int) {
	b.encoding, b.dict = e, dict
	b.raw, b.rawEnds, b.comp, b.compEnds = b.raw[:0], b.rawEnds[:0], b.comp[:0], b.compEnds[:0]
}

func (b *body) endPage() { b.rawEnds = append(b.rawEnds, len(b.raw)) }

// dictCost is what a dictionary page costs in headers and metadata.
const dictCost = 16

// cost is the number of bytes that the chunk takes, but for what all chunks take.
func (b *body) cost() int {
	n := min(len(b.raw), len(b.comp))
	if b.dict > 0 {
		n += dictCost
	}
	return n
}

func (e *Encoder) compress(b *body) {
	b.comp, b.compEnds = b.comp[:0], b.compEnds[:0]
	from := 0
	for _, end := range b.rawEnds {
		if e.o.Codec == Snappy {
			n := len(b.comp)
			b.comp = slices.Grow(b.comp, snappy.MaxEncodedLen(end-from))
			b.comp = b.comp[:n+len(snappy.Encode(b.comp[n:cap(b.comp)], b.raw[from:end]))]
		} else {
			enc := zstdLarge
			if end-from <= smallPage {
				enc = zstdSmall
			}
			b.comp = enc().EncodeAll(b.raw[from:end], b.comp)
		}
		b.compEnds = append(b.compEnds, len(b.comp))
		from = end
	}
}

// Encode appends the month file of the samples to dst. It does not keep or
// change s. The error is Invalid if s is not in strictly ascending order,
// leaves the month, has more than 1<<26 samples or does not fit m.Days; dst is
// then returned as it was. Each byte of the name that is not UTF-8 becomes
// U+FFFD, in Info too.
func (e *Encoder) Encode(dst []byte, m Meta, s *sample.Series) ([]byte, Info, error) {
	if what := check(&m, s); what != "" {
		return dst, Info{}, fault.Errorf(fault.Invalid, "encode month file of point %d, %s: %s", m.PointID, m.Month, what)
	}
	if !utf8.ValidString(m.PointName) {
		m.PointName = string([]rune(m.PointName))
	}
	dst, info := e.encode(dst, m, s, s.RowsSHA256())
	return dst, info, nil
}

// check returns what keeps the samples from being encoded, if anything does.
func check(m *Meta, s *sample.Series) string {
	switch {
	case len(s.Value) != s.Len() || len(s.Quality) != s.Len() || len(s.Flags) != s.Len():
		return "its columns are not of equal length"
	case s.Len() > maxRows:
		return "it has more samples than a month file can hold"
	case m.Month < 0 || m.Month.Year() > 9999:
		return "its month is not one from 1970 to 9999"
	}
	return checkDays(m, s.TS)
}

// checkDays returns what is wrong with the timestamps, or with the day counts as theirs.
func checkDays(m *Meta, ts []int64) string {
	if len(m.Days) != m.Month.Len() {
		return "its day counts are not of its month"
	}
	var days [31]int32
	if !sample.CountDays(days[:], m.Month, ts) {
		return "its timestamps are not ascending, or not of its month"
	}
	for i, n := range m.Days {
		if n != days[i] && (n != sample.NotArchived || days[i] != 0) {
			return "its day counts are not those of its samples"
		}
	}
	return ""
}

// encode appends the file without checking that m and the hash are those of the samples.
func (e *Encoder) encode(dst []byte, m Meta, s *sample.Series, rowsSHA256 string) ([]byte, Info) {
	n := s.Len()
	info := Info{Meta: m, RowsSHA256: rowsSHA256, Samples: int64(n), Codec: Uncompressed, CreatedBy: Writer}
	info.Days = slices.Clone(m.Days)
	if n > 0 {
		info.First, info.Last = s.TS[0], s.TS[n-1]
	}

	base := len(dst)
	dst = append(dst, magic...)
	e.groups = e.groups[:0]
	for col := range e.pages {
		e.pages[col] = e.pages[col][:0]
	}
	// Groups, and the pages of each, are of about equal length.
	count := (n + groupRows - 1) / groupRows
	for i := range count {
		part := s.Slice(i*n/count, (i+1)*n/count)
		dst = e.appendGroup(dst, base, m.PointID, &part)
	}
	if count > 0 {
		info.RowGroups = count
		v := &e.groups[0].cols[colValue]
		info.Codec, info.ValueEncoding = v.codec, v.encoding
	}

	dst = e.appendPageIndex(dst, base)
	e.facts = appendFacts(e.facts[:0], &m, rowsSHA256)
	footer := len(dst)
	e.meta.b = dst
	writeFooter(&e.meta, e.groups, int64(n), e.facts)
	dst = e.meta.b
	e.meta.b = nil
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(dst)-footer))
	return append(dst, magic...), info
}

// appendGroup appends the chunks of one row group of at least one sample.
func (e *Encoder) appendGroup(dst []byte, base int, pointID int32, s *sample.Series) []byte {
	n := s.Len()
	e.groups = append(e.groups, group{rows: int64(n)})
	g := &e.groups[len(e.groups)-1]
	k := (n + pageRows - 1) / pageRows
	ends := make([]int, k)
	for i := range ends {
		ends[i] = (i + 1) * n / k
	}
	dst = e.constantChunk(dst, base, g, colPoint, ends, uint64(uint32(pointID)))
	dst = e.timeChunk(dst, base, g, ends, s.TS)
	dst = e.valueChunk(dst, base, g, ends, s.Value)
	dst = intChunk(e, dst, base, g, colQuality, ends, s.Quality)
	return intChunk(e, dst, base, g, colFlags, ends, s.Flags)
}

// appendChunk appends a chunk and records its metadata. ends are the rows at
// which its pages end, st the statistics of each page.
func (e *Encoder) appendChunk(dst []byte, base int, g *group, col int, ends []int, st []stats, b *body) []byte {
	c := &g.cols[col]
	*c = chunkMeta{codec: e.o.Codec, encoding: b.encoding, rows: int64(ends[len(ends)-1])}
	bytes, byteEnds := b.comp, b.compEnds
	if len(b.compEnds) == 0 || len(b.comp) >= len(b.raw) {
		bytes, byteEnds = b.raw, b.rawEnds
		c.codec = Uncompressed
	}
	w := &e.meta
	w.b, w.last = dst, 0
	from, rawFrom, row := 0, 0, 0
	for i, end := range byteEnds {
		off := len(w.b)
		isDict := b.dict > 0 && i == 0
		if isDict {
			w.i32(1, 2)
		} else {
			w.i32(1, 0)
		}
		raw := b.rawEnds[i] - rawFrom
		w.i32(2, int32(raw))
		w.i32(3, int32(end-from))
		if isDict {
			w.begin(7)
			w.i32(1, int32(b.dict))
			w.i32(2, int32(Plain))
			w.end()
			c.dict = int64(off - base)
		} else {
			p := i
			if b.dict > 0 {
				p--
			}
			w.begin(5)
			w.i32(1, int32(ends[p]-row))
			w.i32(2, int32(b.encoding))
			w.i32(3, encRLE)
			w.i32(4, encRLE)
			w.end()
			if p == 0 {
				c.data = int64(off - base)
			}
		}
		w.b = append(w.b, 0)
		w.last = 0
		c.raw += int64(len(w.b) - off + raw)
		w.b = append(w.b, bytes[from:end]...)
		c.size += int64(len(w.b) - off)
		if !isDict {
			p := i
			if b.dict > 0 {
				p--
			}
			e.pages[col] = append(e.pages[col], pageMeta{int64(off - base), int32(len(w.b) - off), int64(ends[p] - row), st[p]})
			c.stats.add(st[p], col)
			row = ends[p]
		}
		from, rawFrom = end, b.rawEnds[i]
	}
	dst = w.b
	w.b = nil
	return dst
}

// appendPageIndex appends the indexes of all chunks and records where they are.
func (e *Encoder) appendPageIndex(dst []byte, base int) []byte {
	w := &e.meta
	w.b = dst
	for _, offsets := range []bool{false, true} {
		var next [numColumns]int
		for i := range e.groups {
			g := &e.groups[i]
			k := int((g.rows + pageRows - 1) / pageRows)
			for col := range g.cols {
				pages := e.pages[col][next[col] : next[col]+k]
				next[col] += k
				off := len(w.b)
				if c := &g.cols[col]; offsets {
					writeOffsetIndex(w, pages)
					c.offIndex, c.offLen = int64(off-base), int64(len(w.b)-off)
				} else {
					writeColumnIndex(w, col, pages)
					c.colIndex, c.colLen = int64(off-base), int64(len(w.b)-off)
				}
			}
		}
	}
	dst = w.b
	w.b = nil
	return dst
}

// constantChunk appends a chunk that has one value throughout.
func (e *Encoder) constantChunk(dst []byte, base int, g *group, col int, ends []int, v uint64) []byte {
	b := &e.bodies[0]
	b.reset(Dictionary, 1)
	b.raw = putBits(b.raw, col, v)
	b.endPage()
	st := make([]stats, len(ends))
	from := 0
	for i, end := range ends {
		// One entry has indexes of no bits.
		b.raw = appendRun(append(b.raw, 0), end-from, 0, 0)
		b.endPage()
		st[i] = stats{min: v, max: v, ok: true}
		from = end
	}
	return e.appendChunk(dst, base, g, col, ends, st, b)
}

// intChunk appends a chunk of small integers.
func intChunk[T uint8 | uint16](e *Encoder, dst []byte, base int, g *group, col int, ends []int, v []T) []byte {
	same := true
	for _, x := range v {
		if x != v[0] {
			same = false
			break
		}
	}
	if same {
		return e.constantChunk(dst, base, g, col, ends, uint64(v[0]))
	}
	e.keys = slices.Grow(e.keys[:0], len(v))[:len(v)]
	for i, x := range v {
		e.keys[i] = uint64(x)
	}
	st := make([]stats, len(ends))
	e.pageCounts = e.pageCounts[:0]
	from := 0
	for i, end := range ends {
		st[i] = stats{min: uint64(slices.Min(v[from:end])), max: uint64(slices.Max(v[from:end])), ok: true}
		e.pageCounts = append(e.pageCounts, end-from)
		from = end
	}
	e.buildDict(len(v), func(k uint64) uint64 { return k }, func(k uint64) uint64 { return k })
	e.levels, e.levelEnds = e.levels[:0], e.levelEnds[:0]
	e.tries = e.dictCandidates(e.tries[:0])
	return e.appendChunk(dst, base, g, col, ends, st, e.smallest(col))
}

// timeChunk appends the chunk of timestamps.
func (e *Encoder) timeChunk(dst []byte, base int, g *group, ends []int, ts []int64) []byte {
	st := make([]stats, len(ends))
	from := 0
	regular := true
	for i, end := range ends {
		st[i] = stats{min: uint64(ts[from]), max: uint64(ts[end-1]), ok: true}
		for k := from + 2; k < end && regular; k++ {
			regular = ts[k]-ts[k-1] == ts[k-1]-ts[k-2]
		}
		from = end
	}
	layouts := timeLayouts
	if regular {
		layouts = layouts[:1]
	}
	var best *body
	for _, l := range layouts {
		b := &e.bodies[0]
		if b == best {
			b = &e.bodies[1]
		}
		b.reset(Delta, 0)
		from := 0
		for _, end := range ends {
			var smallest int64
			e.deltas, smallest = deltas(e.deltas, ts[from:end])
			b.raw = appendDelta(b.raw, ts[from], e.deltas, smallest, l)
			b.endPage()
			from = end
		}
		e.compress(b)
		if best == nil || b.cost() < best.cost() {
			best = b
		}
	}
	return e.appendChunk(dst, base, g, colTime, ends, st, best)
}

// timeLayouts are tried for timestamps; the first is also best when all deltas are equal.
var timeLayouts = []deltaLayout{{0, 8}, {32, 8}, {32, 1}}

// valueChunk appends the chunk of values in the smallest of the encodings.
func (e *Encoder) valueChunk(dst []byte, base int, g *group, ends []int, v []float64) []byte {
	// Levels, keys and statistics of each page.
	st := make([]stats, len(ends))
	e.keys = slices.Grow(e.keys[:0], len(v))[:len(v)]
	e.pageCounts = e.pageCounts[:0]
	e.levels, e.levelEnds = e.levels[:0], e.levelEnds[:0]
	from, k := 0, 0
	for i, end := range ends {
		first := k
		for _, x := range v[from:end] {
			e.keys[k] = math.Float64bits(x)
			if x == x {
				k++
			}
		}
		st[i] = valueStats(v[from:end])
		e.appendLevels(v[from:end], k-first)
		e.pageCounts = append(e.pageCounts, k-first)
		from = end
	}
	e.keys = e.keys[:k]

	tries := append(e.tries[:0], candidate{Plain, 0}, candidate{ByteStreamSplit, 0})
	if k > 0 && e.buildDict(max(16, k/2), ordered, unordered) {
		tries = e.dictCandidates(tries)
	}
	e.tries = tries
	return e.appendChunk(dst, base, g, colValue, ends, st, e.smallest(colValue))
}

// valueStats are the statistics of a page of values.
func valueStats(v []float64) stats {
	lo, hi, count := math.Inf(1), math.Inf(-1), 0
	for _, x := range v {
		if x == x {
			count++
		}
		if x < lo {
			lo = x
		}
		if x > hi {
			hi = x
		}
	}
	if count == 0 {
		return stats{nulls: int64(len(v))}
	}
	if lo == 0 {
		lo = math.Copysign(0, -1)
	}
	if hi == 0 {
		hi = 0
	}
	return stats{math.Float64bits(lo), math.Float64bits(hi), true, int64(len(v) - count)}
}

// appendLevels appends the definition levels of a page to e.levels: 1 for a
// value, 0 for NULL, hybrid, behind their length.
func (e *Encoder) appendLevels(v []float64, count int) {
	at := len(e.levels)
	e.levels = append(e.levels, 0, 0, 0, 0)
	switch count {
	case len(v):
		e.levels = appendRun(e.levels, len(v), 1, 1)
	case 0:
		e.levels = appendRun(e.levels, len(v), 0, 1)
	default:
		e.deltas = slices.Grow(e.deltas[:0], len(v))[:len(v)]
		for i, x := range v {
			e.deltas[i] = 0
			if x == x {
				e.deltas[i] = 1
			}
		}
		e.levels = appendHybrid(e.levels, e.deltas, 1)
	}
	binary.LittleEndian.PutUint32(e.levels[at:], uint32(len(e.levels)-at-4))
	e.levelEnds = append(e.levelEnds, len(e.levels))
}

// candidate is a way to encode a chunk: an encoding and, of a dictionary, how
// the indexes are written.
type candidate struct {
	encoding Encoding
	layout   indexLayout
}

type indexLayout uint8

const (
	// wholeBytes packs indexes in a multiple of eight bits, more than they
	// need, so that zstd sees bytes that mean something.
	wholeBytes indexLayout = iota
	// packed packs them in as few bits as they need.
	packed
	// runs is packed with repetitions as run lengths.
	runs
)

// dictCandidates appends the ways to encode with e.dict that differ.
func (e *Encoder) dictCandidates(to []candidate) []candidate {
	to = append(to, candidate{Dictionary, wholeBytes})
	if widthOf(uint64(len(e.dict)-1))%8 != 0 {
		to = append(to, candidate{Dictionary, packed})
	}
	if e.repeats {
		to = append(to, candidate{Dictionary, runs})
	}
	return to
}

// appendPage appends the encoded keys [from, to).
func (e *Encoder) appendPage(dst []byte, c candidate, from, to int) []byte {
	switch c.encoding {
	case Plain:
		for _, k := range e.keys[from:to] {
			dst = binary.LittleEndian.AppendUint64(dst, k)
		}
		return dst
	case ByteStreamSplit:
		return appendSplit(dst, e.keys[from:to])
	}
	w := widthOf(uint64(len(e.dict) - 1))
	if c.layout == wholeBytes {
		w = (w + 7) / 8 * 8
	}
	dst = append(dst, byte(w))
	if c.layout == runs {
		return appendHybrid(dst, e.codes[from:to], w)
	}
	return appendGroups(dst, e.codes[from:to], w)
}

// Of long chunks only the candidates that come close to the best one on a
// sample are tried in full. On the real data sets this changes no choice and
// takes half the time.
const (
	sampleKeys  = 2048 // at a quarter, and again at three quarters of the chunk
	sampleSlack = 1.25
)

// smallest encodes and compresses the chunk in each of the ways e.tries and
// returns the smallest result.
func (e *Encoder) smallest(col int) *body {
	if n := len(e.keys); n > 8*sampleKeys && len(e.tries) > 1 && !e.tryAll {
		b := &e.bodies[0]
		costs := make([]float64, 0, 8)
		for _, c := range e.tries {
			b.reset(c.encoding, 0)
			for _, at := range []int{n / 4, n / 4 * 3} {
				b.raw = e.appendPage(b.raw, c, at, at+sampleKeys)
				b.endPage()
			}
			e.compress(b)
			cost := float64(b.cost())
			if c.encoding == Dictionary { // its share of a dictionary that shrinks to a half
				cost += float64(len(e.dict)*columns[col].width) / 2 * 2 * sampleKeys / float64(n)
			}
			costs = append(costs, cost)
		}
		limit := slices.Min(costs) * sampleSlack
		i := 0
		e.tries = slices.DeleteFunc(e.tries, func(candidate) bool { i++; return costs[i-1] > limit })
	}

	var best *body
	for _, c := range e.tries {
		b := &e.bodies[0]
		if b == best {
			b = &e.bodies[1]
		}
		b.reset(c.encoding, 0)
		if c.encoding == Dictionary {
			b.dict = len(e.dict)
			for _, v := range e.dict {
				b.raw = putBits(b.raw, col, v)
			}
			b.endPage()
		}
		from, levels := 0, 0
		for i, n := range e.pageCounts {
			if len(e.levelEnds) > 0 {
				b.raw = append(b.raw, e.levels[levels:e.levelEnds[i]]...)
				levels = e.levelEnds[i]
			}
			b.raw = e.appendPage(b.raw, c, from, from+n)
			b.endPage()
			from += n
		}
		e.compress(b)
		if best == nil || b.cost() < best.cost() {
			best = b
		}
	}
	return best
}

// buildDict sets e.dict to the distinct keys, ascending by order, and e.codes to the place
// of each key there. It reports false, at once, when there are more than limit.
func (e *Encoder) buildDict(limit int, order, inverse func(uint64) uint64) bool {
	bits := widthOf(uint64(2*min(limit, len(e.keys)) - 1))
	if size := 1 << bits; cap(e.table) < size {
		e.table = make([]uint32, size)
	} else {
		e.table = e.table[:size]
		clear(e.table)
	}
	mask, shift := uint64(len(e.table)-1), 64-bits
	slot := func(k uint64) uint64 { return k * 0x9e3779b97f4a7c15 >> shift }
	e.dict = e.dict[:0]
	e.codes = slices.Grow(e.codes[:0], len(e.keys))[:len(e.keys)]
	e.repeats = false
	last, code, since := uint64(0), uint64(0), 0
	for i, k := range e.keys {
		if i > 0 && k == last {
			e.codes[i] = code
			e.repeats = e.repeats || i-since >= 7
			continue
		}
		since = i
		at := slot(k)
		for e.table[at] != 0 && e.dict[e.table[at]-1] != k {
			at = (at + 1) & mask
		}
		if e.table[at] == 0 {
			if len(e.dict) == limit {
				return false
			}
			e.dict = append(e.dict, k)
			e.table[at] = uint32(len(e.dict))
		}
		last, code = k, uint64(e.table[at]-1)
		e.codes[i] = code
	}

	e.rank = slices.Grow(e.rank[:0], len(e.dict))[:len(e.dict)]
	e.deltas = slices.Grow(e.deltas[:0], len(e.dict))[:len(e.dict)]
	for i, k := range e.dict {
		e.deltas[i] = order(k)
	}
	slices.Sort(e.deltas)
	for i, o := range e.deltas {
		k := inverse(o)
		at := slot(k)
		for e.dict[e.table[at]-1] != k {
			at = (at + 1) & mask
		}
		e.rank[e.table[at]-1] = uint64(i)
	}
	for i, c := range e.codes {
		e.codes[i] = e.rank[c]
	}
	for i, o := range e.deltas {
		e.dict[i] = inverse(o)
	}
	return true
}

// appendSplit appends the first bytes of all keys, then the second bytes, and so on.
func appendSplit(dst []byte, keys []uint64) []byte {
	n := len(keys)
	at := len(dst)
	dst = append(dst, make([]byte, 8*n)...)
	out := dst[at:]
	for i, k := range keys {
		out[i] = byte(k)
		out[n+i] = byte(k >> 8)
		out[2*n+i] = byte(k >> 16)
		out[3*n+i] = byte(k >> 24)
		out[4*n+i] = byte(k >> 32)
		out[5*n+i] = byte(k >> 40)
		out[6*n+i] = byte(k >> 48)
		out[7*n+i] = byte(k >> 56)
	}
	return dst
}
