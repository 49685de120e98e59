package monthfile

import (
	"bytes"
	"encoding/binary"
	"slices"
)

const magic = "PAR1"

// Columns by their position in the schema.
const (
	colPoint = iota
	colTime
	colValue
	colQuality
	colFlags
	numColumns
)

// Physical types of Parquet.
const (
	typeInt32  = 1
	typeInt64  = 2
	typeDouble = 5
)

type column struct {
	name     string
	typ      int32
	width    int // bytes of a PLAIN value
	optional bool
}

var columns = [numColumns]column{
	{"point_id", typeInt32, 4, false},
	{"timestamp", typeInt64, 8, false},
	{"value", typeDouble, 8, true},
	{"quality", typeInt32, 4, false},
	{"flags", typeInt32, 4, false},
}

// Numbers of the codecs in Parquet.
const (
	parquetUncompressed = 0
	parquetSnappy       = 1
	parquetZstd         = 6
)

func (c Codec) parquet() int32 {
	return [...]int32{Zstd: parquetZstd, Snappy: parquetSnappy, Uncompressed: parquetUncompressed}[c]
}

// stats are the statistics of a page or a chunk. min and max are the bits of
// the PLAIN value, in the low bytes; of doubles, zero is -0 in min and +0 in
// max, as Parquet wants it. ok is false if there is no value but NULL.
type stats struct {
	min, max uint64
	ok       bool
	nulls    int64
}

// add widens s by o, a later page of the same column.
func (s *stats) add(o stats, col int) {
	switch {
	case !o.ok:
	case !s.ok:
		s.min, s.max, s.ok = o.min, o.max, true
	default:
		if less(col, o.min, s.min) {
			s.min = o.min
		}
		if less(col, s.max, o.max) {
			s.max = o.max
		}
	}
	s.nulls += o.nulls
}

// less orders the bits of two values of a column.
func less(col int, a, b uint64) bool {
	switch columns[col].typ {
	case typeInt32:
		return int32(a) < int32(b)
	case typeInt64:
		return int64(a) < int64(b)
	}
	return ordered(a) < ordered(b)
}

// ordered maps the bits of a double that is no NaN to an integer of the same
// order, with -0 just below +0; unordered is its inverse.
func ordered(b uint64) uint64 {
	return b ^ (uint64(int64(b)>>63) | 1<<63)
}

func unordered(o uint64) uint64 {
	return o ^ (uint64(int64(^o)>>63) | 1<<63)
}

// pageMeta is where a data page lies, header included, and what it holds.
type pageMeta struct {
	off   int64
	size  int32
	rows  int64
	stats stats
}

// chunkMeta is the metadata of a chunk. Offsets count from the file's start.
type chunkMeta struct {
	codec            Codec
	encoding         Encoding // of the data pages
	rows             int64
	raw, size        int64 // bytes of all pages with their headers, before and after compression
	dict, data       int64 // offsets of the dictionary page, 0 if there is none, and of the first data page
	stats            stats
	colIndex, colLen int64
	offIndex, offLen int64
}

func (c *chunkMeta) start() int64 {
	if c.dict > 0 {
		return c.dict
	}
	return c.data
}

type group struct {
	rows int64
	cols [numColumns]chunkMeta
}

// schemaBytes is the list of schema elements: every month file has it, byte for byte.
var schemaBytes = func() []byte {
	var w tWriter
	w.list(2, tStruct, 1+numColumns)
	w.open()
	w.text(4, "sample")
	w.i32(5, numColumns)
	w.end()
	for i, c := range columns {
		w.open()
		w.i32(1, c.typ)
		if c.optional {
			w.i32(3, 1)
		} else {
			w.i32(3, 0)
		}
		w.text(4, c.name)
		if i == colTime {
			w.i32(6, 9) // converted type TIMESTAMP_MILLIS, for older readers
		}
		w.i32(9, int32(i+1)) // field id
		if i == colTime {
			w.begin(10) // logical type
			w.begin(8)  // TIMESTAMP
			w.boolean(1, true)
			w.begin(2) // unit
			w.begin(1) // MILLIS
			w.end()
			w.end()
			w.end()
			w.end()
		}
		w.end()
	}
	return w.b[1:] // without the field header
}()

// putBits appends the PLAIN bytes of a value of the column.
func putBits(b []byte, col int, v uint64) []byte {
	if columns[col].width == 4 {
		return binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return binary.LittleEndian.AppendUint64(b, v)
}

func getBits(b []byte, col int) (uint64, bool) {
	if len(b) != columns[col].width {
		return 0, false
	}
	if len(b) == 4 {
		return uint64(binary.LittleEndian.Uint32(b)), true
	}
	return binary.LittleEndian.Uint64(b), true
}

// writeColumnIndex writes the ColumnIndex of a chunk with the given pages.
func writeColumnIndex(w *tWriter, col int, pages []pageMeta) {
	w.last = 0
	w.list(1, tTrue, len(pages))
	for _, p := range pages {
		if p.stats.ok {
			w.b = append(w.b, tFalse)
		} else {
			w.b = append(w.b, tTrue)
		}
	}
	var tmp [8]byte
	w.list(2, tBinary, len(pages))
	for _, p := range pages {
		if p.stats.ok {
			w.rawBytes(putBits(tmp[:0], col, p.stats.min))
		} else {
			w.rawBytes(nil)
		}
	}
	w.list(3, tBinary, len(pages))
	for _, p := range pages {
		if p.stats.ok {
			w.rawBytes(putBits(tmp[:0], col, p.stats.max))
		} else {
			w.rawBytes(nil)
		}
	}
	w.i32(4, boundaryOrder(col, pages))
	w.list(5, tI64, len(pages))
	for _, p := range pages {
		w.b = binary.AppendVarint(w.b, p.stats.nulls)
	}
	w.b = append(w.b, 0)
}

// boundaryOrder is 1 if the bounds of the pages ascend and 0 if they do not;
// pages of NULL alone do not count.
func boundaryOrder(col int, pages []pageMeta) int32 {
	var last *stats
	for i := range pages {
		s := &pages[i].stats
		if !s.ok {
			continue
		}
		if last != nil && (less(col, s.min, last.min) || less(col, s.max, last.max)) {
			return 0
		}
		last = s
	}
	return 1
}

// writeOffsetIndex writes the OffsetIndex of a chunk with the given pages.
func writeOffsetIndex(w *tWriter, pages []pageMeta) {
	w.last = 0
	w.list(1, tStruct, len(pages))
	row := int64(0)
	for _, p := range pages {
		w.open()
		w.i64(1, p.off)
		w.i32(2, p.size)
		w.i64(3, row)
		w.end()
		row += p.rows
	}
	w.b = append(w.b, 0)
}

// writeFooter writes the FileMetaData.
func writeFooter(w *tWriter, groups []group, rows int64, facts []byte) {
	w.last = 0
	w.i32(1, 2) // version
	w.field(2, tList)
	w.b = append(w.b, schemaBytes...)
	w.i64(3, rows)
	w.list(4, tStruct, len(groups))
	for i := range groups {
		g := &groups[i]
		w.open()
		w.list(1, tStruct, numColumns)
		total := int64(0)
		for col := range g.cols {
			w.open()
			writeChunk(w, col, &g.cols[col])
			w.end()
			total += g.cols[col].raw
		}
		w.i64(2, total)
		w.i64(3, g.rows)
		w.list(4, tStruct, 1) // sorted by timestamp, ascending, nulls last
		w.open()
		w.i32(1, colTime)
		w.boolean(2, false)
		w.boolean(3, false)
		w.end()
		w.end()
	}
	w.list(5, tStruct, 1)
	w.open()
	w.text(1, factsKey)
	w.bytes(2, facts)
	w.end()
	w.text(6, Writer)
	w.list(7, tStruct, numColumns) // column orders: all TYPE_ORDER
	for range numColumns {
		w.open()
		w.begin(1)
		w.end()
		w.end()
	}
	w.b = append(w.b, 0)
}

func writeChunk(w *tWriter, col int, c *chunkMeta) {
	w.i64(2, 0) // file_offset is required and deprecated
	w.begin(3)
	w.i32(1, columns[col].typ)
	encodings := [3]byte{byte(c.encoding)}
	n := 1
	if c.dict > 0 {
		encodings[n] = byte(Plain)
		n++
	}
	if columns[col].optional {
		encodings[n] = encRLE
		n++
	}
	w.list(2, tI32, n)
	for _, e := range encodings[:n] {
		w.b = binary.AppendVarint(w.b, int64(e))
	}
	w.list(3, tBinary, 1)
	w.b = append(binary.AppendUvarint(w.b, uint64(len(columns[col].name))), columns[col].name...)
	w.i32(4, c.codec.parquet())
	w.i64(5, c.rows)
	w.i64(6, c.raw)
	w.i64(7, c.size)
	w.i64(9, c.data)
	if c.dict > 0 {
		w.i64(11, c.dict)
	}
	w.begin(12)
	w.i64(3, c.stats.nulls)
	if c.stats.ok {
		var tmp [8]byte
		w.bytes(5, putBits(tmp[:0], col, c.stats.max))
		w.bytes(6, putBits(tmp[:0], col, c.stats.min))
	}
	w.end()
	w.end()
	w.i64(4, c.offIndex)
	w.i32(5, int32(c.offLen))
	w.i64(6, c.colIndex)
	w.i32(7, int32(c.colLen))
}

// parseFooter reads the footer of a whole file and checks that it is
// consistent in itself. The groups are appended to groups.
func parseFooter(data []byte, groups []group) (Info, []group, error) {
	if !bytes.HasPrefix(data, []byte(magic)) {
		if bytes.HasPrefix([]byte(magic), data) {
			return Info{}, nil, corrupt("truncated to %d bytes", len(data))
		}
		return Info{}, nil, foreign("it does not begin as a Parquet file does")
	}
	if len(data) < 3*4 || string(data[len(data)-4:]) != magic {
		return Info{}, nil, corrupt("truncated: its %d bytes do not end as a Parquet file does", len(data))
	}
	size := int64(binary.LittleEndian.Uint32(data[len(data)-8:]))
	start := int64(len(data)) - 8 - size // of the footer, and the end of everything before it
	if start < 4 {
		return Info{}, nil, corrupt("footer of %d bytes in a file of %d", size, len(data))
	}
	r := tReader{b: data[start : len(data)-8]}

	// The facts are read first, as they say whether the rest is known here.
	var info Info
	var schema, facts, rowGroups []byte
	rows, found := int64(-1), 0
	for last := 0; ; {
		id, typ, ok := r.next(&last)
		if !ok {
			break
		}
		from := r.pos
		switch id {
		case 2:
			r.skip(typ)
			schema = r.b[from:r.pos]
		case 3:
			rows = r.i64(typ)
		case 4:
			r.skip(typ)
			rowGroups = r.b[from:r.pos]
		case 5:
			for range r.list(typ, tStruct) {
				var key, value []byte
				for last := 0; ; {
					id, typ, ok := r.next(&last)
					if !ok {
						break
					}
					switch id {
					case 1:
						key = r.bytes(typ)
					case 2:
						value = r.bytes(typ)
					default:
						r.skip(typ)
					}
				}
				if string(key) == factsKey {
					facts = value
					found++
				}
			}
		case 6:
			info.CreatedBy = string(r.bytes(typ))
		default:
			r.skip(typ)
		}
	}
	switch {
	case r.bad || r.pos != len(r.b):
		return Info{}, nil, corrupt("its footer is damaged")
	case found == 0:
		return Info{}, nil, foreign("its footer has no key " + factsKey)
	case found > 1:
		return Info{}, nil, corrupt("its footer has the key %s %d times", factsKey, found)
	}
	var err error
	if info.Meta, info.RowsSHA256, err = parseFacts(facts); err != nil {
		return Info{}, nil, err
	}
	if !bytes.Equal(schema, schemaBytes) {
		return Info{}, nil, corrupt("its schema is not that of version %d", Version)
	}
	if groups, err = parseGroups(rowGroups, groups, start); err != nil {
		return Info{}, nil, err
	}

	info.RowGroups = len(groups)
	info.Codec = Uncompressed
	info.ValueEncoding = Plain
	for i := range groups {
		g := &groups[i]
		t := g.cols[colTime].stats
		if !t.ok || int64(t.min) > int64(t.max) || i > 0 && int64(t.min) <= info.Last {
			return Info{}, nil, corrupt("row group %d: its range of timestamps is out of order", i)
		}
		if i == 0 {
			info.First = int64(t.min)
			info.Codec, info.ValueEncoding = g.cols[colValue].codec, g.cols[colValue].encoding
		}
		info.Last = int64(t.max)
		info.Samples += g.rows
	}
	month := info.Month.Days()
	switch {
	case info.Samples > maxRows:
		return Info{}, nil, corrupt("%d rows are more than a month file can hold", info.Samples)
	case info.Samples != rows:
		return Info{}, nil, corrupt("its row groups have %d rows, its footer says %d", info.Samples, rows)
	case info.Samples != info.Days.Samples():
		return Info{}, nil, corrupt("it has %d rows, its days add up to %d", info.Samples, info.Days.Samples())
	case info.Samples > 0 && (info.First < month.From.Start() || info.Last >= month.To.Start()):
		return Info{}, nil, corrupt("its timestamps are not those of %s", info.Month)
	}
	return info, groups, nil
}

// parseGroups reads the list of row groups. limit is where the footer begins.
func parseGroups(b []byte, groups []group, limit int64) ([]group, error) {
	r := tReader{b: b}
	for i := range r.list(tList, tStruct) {
		var g group
		n := 0
		for last := 0; ; {
			id, typ, ok := r.next(&last)
			if !ok {
				break
			}
			switch id {
			case 1:
				if n = r.list(typ, tStruct); n != numColumns {
					return nil, corrupt("row group %d has %d columns", i, n)
				}
				for col := range g.cols {
					if err := parseChunk(&r, col, &g.cols[col], limit); err != nil {
						return nil, err
					}
				}
			case 3:
				g.rows = r.i64(typ)
			default:
				r.skip(typ)
			}
		}
		if r.bad {
			break
		}
		if n == 0 || g.rows < 1 || g.rows > maxGroupRows {
			return nil, corrupt("row group %d has %d columns and %d rows", i, n, g.rows)
		}
		for col := range g.cols {
			if c := &g.cols[col]; c.rows != g.rows || c.stats.nulls < 0 || c.stats.nulls > c.rows ||
				c.stats.ok != (c.stats.nulls < c.rows) || c.stats.nulls > 0 && !columns[col].optional {
				return nil, corrupt("row group %d of %d rows: column %s has %d, %d of them NULL", i, g.rows, columns[col].name, c.rows, c.stats.nulls)
			}
		}
		groups = append(groups, g)
	}
	if r.bad || r.pos != len(r.b) {
		return nil, corrupt("its row groups are damaged")
	}
	return groups, nil
}

func parseChunk(r *tReader, col int, c *chunkMeta, limit int64) error {
	name := columns[col].name
	bad := func(what string) error { return corrupt("column %s: %s", name, what) }
	for last := 0; ; {
		id, typ, ok := r.next(&last)
		if !ok {
			break
		}
		switch id {
		case 1:
			return bad("it lies in another file")
		case 3:
			if typ != tStruct {
				r.fail()
			}
			if what := parseChunkMeta(r, col, c); what != "" {
				return bad(what)
			}
		case 4:
			c.offIndex = r.i64(typ)
		case 5:
			c.offLen = int64(r.i32(typ))
		case 6:
			c.colIndex = r.i64(typ)
		case 7:
			c.colLen = int64(r.i32(typ))
		default:
			r.skip(typ)
		}
	}
	inside := func(off, size int64) bool { return off >= 4 && size > 0 && off <= limit && size <= limit-off }
	switch {
	case r.bad:
		return bad("its metadata is damaged")
	case !inside(c.start(), c.size) || c.data < c.start() || c.data >= c.start()+c.size:
		return bad("its pages lie outside the file")
	case !inside(c.offIndex, c.offLen) || !inside(c.colIndex, c.colLen):
		return bad("its page index lies outside the file")
	}
	return nil
}

// parseChunkMeta reads a ColumnMetaData and returns what is wrong with it, if
// anything but damage is.
func parseChunkMeta(r *tReader, col int, c *chunkMeta) string {
	codec, encodings := int32(-1), uint32(0)
	typeOf, path := int32(-1), false
	for last := 0; ; {
		id, typ, ok := r.next(&last)
		if !ok {
			break
		}
		switch id {
		case 1:
			typeOf = r.i32(typ)
		case 2:
			for range r.list(typ, tI32) {
				if e := r.varint(); e >= 0 && e < 32 {
					encodings |= 1 << e
				}
			}
		case 3:
			path = r.list(typ, tBinary) == 1 && string(r.bytes(tBinary)) == columns[col].name
			if !path {
				return "its path is another"
			}
		case 4:
			codec = r.i32(typ)
		case 5:
			c.rows = r.i64(typ)
		case 6:
			c.raw = r.i64(typ)
		case 7:
			c.size = r.i64(typ)
		case 9:
			c.data = r.i64(typ)
		case 11:
			c.dict = r.i64(typ)
		case 12:
			if typ != tStruct {
				r.fail()
			}
			if !parseStats(r, col, &c.stats) {
				return "its statistics are damaged"
			}
		default:
			r.skip(typ)
		}
	}
	if r.bad {
		return ""
	}
	switch codec {
	case parquetUncompressed:
		c.codec = Uncompressed
	case parquetSnappy:
		c.codec = Snappy
	case parquetZstd:
		c.codec = Zstd
	default:
		return "its codec is not one of version 1"
	}
	i := slices.IndexFunc(dataEncodings[col], func(e Encoding) bool { return encodings&(1<<e) != 0 })
	if i < 0 {
		return "its encoding is not one of version 1"
	}
	c.encoding = dataEncodings[col][i]
	if !path || typeOf != columns[col].typ || (c.dict != 0) != (c.encoding == Dictionary) {
		return "its metadata contradicts itself"
	}
	return ""
}

// dataEncodings are the encodings that the data pages of a column may have. PLAIN
// comes last, as a chunk with a dictionary lists it for the dictionary page.
var dataEncodings = [numColumns][]Encoding{
	colPoint:   {Dictionary},
	colTime:    {Delta},
	colValue:   {Dictionary, ByteStreamSplit, Plain},
	colQuality: {Dictionary},
	colFlags:   {Dictionary},
}

func parseStats(r *tReader, col int, s *stats) bool {
	var okMin, okMax bool
	for last := 0; ; {
		id, typ, ok := r.next(&last)
		if !ok {
			break
		}
		switch id {
		case 3:
			s.nulls = r.i64(typ)
		case 5:
			if s.max, okMax = getBits(r.bytes(typ), col); !okMax {
				return false
			}
		case 6:
			if s.min, okMin = getBits(r.bytes(typ), col); !okMin {
				return false
			}
		default:
			r.skip(typ)
		}
	}
	s.ok = okMin
	return okMin == okMax
}

// checkPageIndex reports whether the page index of a chunk is the one of the
// pages that were found: it has one form, so its bytes are compared. w is scratch.
func checkPageIndex(w *tWriter, data []byte, col int, c *chunkMeta, pages []pageMeta) bool {
	w.b = w.b[:0]
	writeColumnIndex(w, col, pages)
	n := len(w.b)
	writeOffsetIndex(w, pages)
	return bytes.Equal(w.b[:n], data[c.colIndex:c.colIndex+c.colLen]) &&
		bytes.Equal(w.b[n:], data[c.offIndex:c.offIndex+c.offLen])
}
