package monthfile

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"etl/internal/sample"
	"etl/internal/timing"
)

// Inspect reads the footer of a whole month file, checks that it is consistent
// in itself, and returns what it says. The rows are not read. Info.Samples
// bounds the memory that decoding takes: a regular series of many million
// samples may fit in a file of a few kilobytes.
//
// The error is Corrupt if the file begins as a Parquet file but is damaged or
// truncated, and Invalid if it is no month file (ErrForeign) or one of another
// version (VersionError).
func Inspect(data []byte) (Info, error) {
	info, _, err := parseFooter(data, nil)
	return info, err
}

// Decoder decodes month files. It keeps its scratch memory, a few pages, and is
// not safe for concurrent use.
type Decoder struct {
	rec    *timing.Recorder
	zstd   *zstd.Decoder
	groups []group
	pages  []pageMeta

	page    []byte // the page, decompressed
	dict    []uint64
	codes   []uint32
	present []uint32 // definition levels
	nulls   []int32  // rows without a value, where Times asks for no values
	tmp     [1024]uint64
	index   tWriter
}

// NewDecoder returns a Decoder.
func NewDecoder() *Decoder {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true), // a page never grows beyond what its header says
		zstd.WithDecoderMaxMemory(maxPageRows*maxPageBytesPerRow+maxPageBytesExtra))
	if err != nil {
		panic(err) // the options are constants
	}
	return &Decoder{zstd: z}
}

// Decode reads a whole month file into s, replacing what s holds, and checks
// all that the file says: the order of its rows, its month, point and day
// counts, its statistics and page index, and the hash of its rows. Errors are
// as for Inspect; s is then empty.
//
// INVARIANT: when Decode returns nil, the rows are those that were encoded, for
// as long as SHA-256 holds.
func (d *Decoder) Decode(data []byte, s *sample.Series) (Info, error) {
	return d.decode(data, s, true)
}

// DecodeTrusted is Decode for a caller who knows the bytes to be those that
// were written (their SHA-256 is in the manifest). It saves computing the hash
// of the rows and the statistics; structure, order, month, point and day counts
// are checked still.
func (d *Decoder) DecodeTrusted(data []byte, s *sample.Series) (Info, error) {
	return d.decode(data, s, false)
}

// Timed makes d record how long it decodes, if rec is not nil, and returns it.
func (d *Decoder) Timed(rec *timing.Recorder) *Decoder {
	d.rec = rec
	return d
}

// Times is DecodeTrusted for a caller who wants to know no more than when there
// is a sample, and where its value is NULL. It appends the timestamps of all rows to ts and returns
// the positions in it, ascending, of those whose value is NULL, which are valid until the next
// call. Nothing but the timestamps is decompressed, unless there are NULLs.
func (d *Decoder) Times(data []byte, ts []int64) (rows []int64, nulls []int32, info Info, err error) {
	defer d.rec.End(timing.Decode, d.rec.Start())
	info, groups, err := parseFooter(data, d.groups[:0])
	if err != nil {
		return ts, nil, Info{}, err
	}
	d.groups, d.nulls = groups, d.nulls[:0]
	first := len(ts)
	for i := range groups {
		g := &groups[i]
		at := len(ts)
		ts = slices.Grow(ts, int(g.rows))[:at+int(g.rows)]
		to := sample.Series{TS: ts}
		for _, col := range []int{colTime, colValue} {
			if col == colValue && g.cols[col].stats.nulls == 0 {
				continue
			}
			if err := d.chunk(data, col, &g.cols[col], info.PointID, &to, at, false); err != nil {
				return ts[:first], nil, Info{}, err
			}
		}
	}
	if what := checkDays(&info.Meta, ts[first:]); what != "" {
		return ts[:first], nil, Info{}, corrupt("%s", what)
	}
	return ts, d.nulls, info, nil
}

func (d *Decoder) decode(data []byte, s *sample.Series, verify bool) (Info, error) {
	defer d.rec.End(timing.Decode, d.rec.Start())
	s.Reset()
	info, groups, err := parseFooter(data, d.groups[:0])
	if err != nil {
		return Info{}, err
	}
	d.groups = groups
	for i := range groups {
		if err := d.group(data, &groups[i], info.PointID, s, verify); err != nil {
			s.Reset()
			return Info{}, err
		}
	}
	what := checkDays(&info.Meta, s.TS)
	if what == "" && verify && s.RowsSHA256() != info.RowsSHA256 {
		what = "its rows are not those whose hash it has"
	}
	if what != "" {
		s.Reset()
		return Info{}, corrupt("%s", what)
	}
	return info, nil
}

// group appends the samples of one row group to s.
func (d *Decoder) group(data []byte, g *group, pointID int32, s *sample.Series, verify bool) error {
	at, n := s.Len(), int(g.rows)
	s.Grow(n)
	to := sample.Series{TS: s.TS[:at+n], Value: s.Value[:at+n], Quality: s.Quality[:at+n], Flags: s.Flags[:at+n]}
	for col := range g.cols {
		if err := d.chunk(data, col, &g.cols[col], pointID, &to, at, verify); err != nil {
			return err
		}
		// The footer's ranges ascend; holding each group to its own keeps
		// groups from sharing pages, and so the rows within what the file holds.
		if t := &g.cols[colTime].stats; col == colTime && (to.TS[at] != int64(t.min) || to.TS[at+n-1] != int64(t.max)) {
			return corrupt("column timestamp: its statistics are not those of its values")
		}
	}
	*s = to
	return nil
}

// chunk decodes a chunk into its column of s, from row at on.
func (d *Decoder) chunk(data []byte, col int, c *chunkMeta, pointID int32, s *sample.Series, at int, verify bool) error {
	bad := func(what string) error { return corrupt("column %s: %s", columns[col].name, what) }
	d.pages, d.dict = d.pages[:0], d.dict[:0]
	pos, end, row := c.start(), c.start()+c.size, int64(0)
	var total stats
	raw := int64(0)
	for pos < end {
		h, size := parsePageHeader(data[pos:end])
		if size == 0 {
			return bad("a page header is damaged")
		}
		isDict := h.kind == 2
		if isDict != (pos == c.dict) || h.kind != 0 && !isDict || row == 0 && !isDict && pos != c.data {
			return bad("its pages are not in order")
		}
		body := data[pos+size : end]
		if h.size < 0 || int64(h.size) > int64(len(body)) {
			return bad("a page is truncated")
		}
		if h.rows < 1 || int64(h.rows) > c.rows-row || h.raw < 0 || int64(h.raw) > maxPageBytesPerRow*int64(h.rows)+maxPageBytesExtra {
			return bad("a page header is out of bounds")
		}
		page, ok := d.decompress(c.codec, body[:h.size], int(h.raw))
		if !ok {
			return bad("a page can not be decompressed")
		}
		raw += size + int64(h.raw)
		if isDict {
			if h.encoding != int32(Plain) || !d.dictionary(col, page, int(h.rows), pointID) {
				return bad("its dictionary is damaged")
			}
		} else {
			if h.encoding != int32(c.encoding) || h.levels != encRLE {
				return bad("a page has another encoding than its chunk")
			}
			from := at + int(row)
			if !d.data(col, c.encoding, page, s, from, from+int(h.rows)) {
				return bad("a page is damaged")
			}
			if verify {
				st := pageStats(s, col, pointID, from, from+int(h.rows))
				total.add(st, col)
				d.pages = append(d.pages, pageMeta{pos, int32(size) + h.size, int64(h.rows), st})
			}
			row += int64(h.rows)
		}
		pos += size + int64(h.size)
	}
	switch {
	case row != c.rows:
		return bad("its pages hold fewer rows than it says")
	case !verify:
		return nil
	case raw != c.raw:
		return bad("its size is not that of its pages")
	case total != c.stats:
		return bad("its statistics are not those of its values")
	case !checkPageIndex(&d.index, data, col, c, d.pages):
		return bad("its page index is not that of its pages")
	}
	return nil
}

type pageHeader struct {
	kind      int32 // 0 for a data page, 2 for a dictionary
	raw, size int32
	rows      int32
	encoding  int32
	levels    int32
}

// parsePageHeader reads the header of a page and returns its length, 0 if it is damaged.
func parsePageHeader(b []byte) (h pageHeader, size int64) {
	h = pageHeader{kind: -1, raw: -1, size: -1, encoding: -1}
	r := tReader{b: b}
	for last := 0; ; {
		id, typ, ok := r.next(&last)
		if !ok {
			break
		}
		switch {
		case id == 1:
			h.kind = r.i32(typ)
		case id == 2:
			h.raw = r.i32(typ)
		case id == 3:
			h.size = r.i32(typ)
		case (id == 5 && h.kind == 0 || id == 7 && h.kind == 2) && typ == tStruct:
			for last := 0; ; {
				id, typ, ok := r.next(&last)
				if !ok {
					break
				}
				switch id {
				case 1:
					h.rows = r.i32(typ)
				case 2:
					h.encoding = r.i32(typ)
				case 3:
					if h.kind == 0 {
						h.levels = r.i32(typ)
					} else {
						r.skip(typ)
					}
				default:
					r.skip(typ)
				}
			}
		default:
			r.skip(typ)
		}
	}
	if r.bad {
		return h, 0
	}
	return h, int64(r.pos)
}

// decompress returns the raw bytes of a page, which are valid until the next call.
func (d *Decoder) decompress(c Codec, b []byte, raw int) ([]byte, bool) {
	if c == Uncompressed {
		return b, len(b) == raw
	}
	d.page = slices.Grow(d.page[:0], raw)
	if c == Snappy {
		n, err := snappy.DecodedLen(b)
		if err != nil || n != raw {
			return nil, false
		}
		page, err := snappy.Decode(d.page[:raw], b)
		return page, err == nil
	}
	page, err := d.zstd.DecodeAll(b, d.page[:0:raw])
	return page, err == nil && len(page) == raw
}

// dictionary sets d.dict to the n values of a dictionary page. Those that the
// column can not have are refused.
func (d *Decoder) dictionary(col int, page []byte, n int, pointID int32) bool {
	width := columns[col].width
	if len(page) != n*width {
		return false
	}
	d.dict = slices.Grow(d.dict, n)[:n]
	limit := uint64(math.MaxUint64)
	switch col {
	case colQuality:
		limit = math.MaxUint8
	case colFlags:
		limit = math.MaxUint16
	}
	for i := range d.dict {
		v, _ := getBits(page[i*width:(i+1)*width], col)
		if v > limit || col == colPoint && v != uint64(uint32(pointID)) || col == colValue && isNaN(v) {
			return false
		}
		d.dict[i] = v
	}
	return true
}

func isNaN(bits uint64) bool { return bits&(1<<63-1) > 0x7ff<<52 }

// data decodes a data page into the rows [from, to) of a column of s.
func (d *Decoder) data(col int, enc Encoding, page []byte, s *sample.Series, from, to int) bool {
	switch col {
	case colTime:
		return decodeDelta(s.TS[from:to], page, d.tmp[:])
	case colValue:
		if s.Value == nil {
			return d.levels(page, from, to)
		}
		return d.values(enc, page, s.Value[from:to])
	case colQuality:
		return gather(d, page, s.Quality[from:to], func(v uint64) uint8 { return uint8(v) })
	case colFlags:
		return gather(d, page, s.Flags[from:to], func(v uint64) uint16 { return uint16(v) })
	}
	// The dictionary holds no other point than the right one.
	_, ok := d.indexes(page, to-from)
	return ok
}

// indexes reads n indexes into the dictionary. If all are the same it returns
// one alone.
func (d *Decoder) indexes(page []byte, n int) ([]uint32, bool) {
	if len(page) == 0 || page[0] > 32 {
		return nil, false
	}
	w := int(page[0])
	d.codes = slices.Grow(d.codes[:0], n)[:n]
	if count, v, groups, _, ok := readRun(page[1:], w, n); ok && !groups && count == n {
		d.codes = d.codes[:1]
		d.codes[0] = v
	} else if !decodeHybrid(d.codes, page[1:], w) {
		return nil, false
	}
	return d.codes, uint64(slices.Max(d.codes)) < uint64(len(d.dict))
}

// gather looks the indexes of a page up in the dictionary.
func gather[T uint8 | uint16 | float64](d *Decoder, page []byte, out []T, convert func(uint64) T) bool {
	codes, ok := d.indexes(page, len(out))
	if !ok {
		return false
	}
	if len(codes) == 1 {
		v := convert(d.dict[codes[0]])
		for i := range out {
			out[i] = v
		}
		return true
	}
	for i, c := range codes {
		out[i] = convert(d.dict[c])
	}
	return true
}

// splitLevels cuts a page of the value column into its definition levels and its values.
func splitLevels(page []byte) (levels, body []byte, ok bool) {
	if len(page) < 4 {
		return nil, nil, false
	}
	size := binary.LittleEndian.Uint32(page)
	if uint64(size) > uint64(len(page)-4) {
		return nil, nil, false
	}
	return page[4 : 4+size], page[4+size:], true
}

// levels notes which of the rows [from, to) have no value, by a page of the value column.
func (d *Decoder) levels(page []byte, from, to int) bool {
	levels, _, ok := splitLevels(page)
	if !ok {
		return false
	}
	for from < to {
		n, v, groups, rest, ok := readRun(levels, 1, to-from)
		if !ok {
			return false
		}
		levels = rest
		switch {
		case groups:
			for i := range n {
				if levels[i>>3]>>(i&7)&1 == 0 {
					d.nulls = append(d.nulls, int32(from+i))
				}
			}
			levels = levels[min(len(levels), (n+7)/8):]
		case v == 0:
			for i := range n {
				d.nulls = append(d.nulls, int32(from+i))
			}
		}
		from += n
	}
	return true
}

// values decodes a page of the value column.
func (d *Decoder) values(enc Encoding, page []byte, out []float64) bool {
	levels, body, ok := splitLevels(page)
	if !ok {
		return false
	}
	if n, v, groups, _, ok := readRun(levels, 1, len(out)); ok && !groups && n == len(out) && v == 1 {
		return d.denseValues(enc, body, out)
	}
	// NULLs: decode the others, then spread them out from the end.
	d.present = slices.Grow(d.present[:0], len(out))[:len(out)]
	if !decodeHybrid(d.present, levels, 1) {
		return false
	}
	count := 0
	for _, l := range d.present {
		count += int(l)
	}
	if count > len(out) || !d.denseValues(enc, body, out[:count]) {
		return false
	}
	for i := len(out) - 1; i >= 0; i-- {
		if d.present[i] != 0 {
			count--
			out[i] = out[count]
		} else {
			out[i] = sample.Null
		}
	}
	return true
}

// denseValues decodes values of which none is NULL. It refuses NaN.
func (d *Decoder) denseValues(enc Encoding, body []byte, out []float64) bool {
	n := len(out)
	if enc == Dictionary {
		// The dictionary holds no NaN. A page without values has no indexes.
		return n == 0 || gather(d, body, out, math.Float64frombits)
	}
	if len(body) != 8*n {
		return false
	}
	if enc == Plain {
		for i := range out {
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(body[8*i:]))
		}
	} else {
		joinSplit(out, body)
	}
	for _, x := range out {
		if x != x {
			return false
		}
	}
	return true
}

// joinSplit is the inverse of appendSplit; len(src) is 8*len(out).
func joinSplit(out []float64, src []byte) {
	n := len(out)
	b0, b1, b2, b3 := src[:n], src[n:2*n], src[2*n:3*n], src[3*n:4*n]
	b4, b5, b6, b7 := src[4*n:5*n], src[5*n:6*n], src[6*n:7*n], src[7*n:8*n]
	for i := range out {
		out[i] = math.Float64frombits(uint64(b0[i]) | uint64(b1[i])<<8 | uint64(b2[i])<<16 | uint64(b3[i])<<24 |
			uint64(b4[i])<<32 | uint64(b5[i])<<40 | uint64(b6[i])<<48 | uint64(b7[i])<<56)
	}
}

// pageStats computes the statistics of the rows [from, to) of a column.
func pageStats(s *sample.Series, col int, pointID int32, from, to int) stats {
	switch col {
	case colTime:
		// Ascending is checked for the whole file.
		return stats{min: uint64(s.TS[from]), max: uint64(s.TS[to-1]), ok: true}
	case colValue:
		return valueStats(s.Value[from:to])
	case colQuality:
		return stats{min: uint64(slices.Min(s.Quality[from:to])), max: uint64(slices.Max(s.Quality[from:to])), ok: true}
	case colFlags:
		return stats{min: uint64(slices.Min(s.Flags[from:to])), max: uint64(slices.Max(s.Flags[from:to])), ok: true}
	}
	return stats{min: uint64(uint32(pointID)), max: uint64(uint32(pointID)), ok: true}
}
