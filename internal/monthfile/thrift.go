package monthfile

import "encoding/binary"

// Types of Thrift's compact protocol, in which Parquet writes its metadata.
const (
	tTrue   = 1
	tFalse  = 2
	tI8     = 3
	tI16    = 4
	tI32    = 5
	tI64    = 6
	tDouble = 7
	tBinary = 8
	tList   = 9
	tSet    = 10
	tMap    = 11
	tStruct = 12
)

// tWriter appends Thrift structs to b. Field ids of a struct must ascend.
type tWriter struct {
	b     []byte
	last  int // id of the last field written in the open struct
	stack [8]int
	depth int
}

func (w *tWriter) field(id int, typ byte) {
	if d := id - w.last; d > 0 && d < 16 {
		w.b = append(w.b, byte(d)<<4|typ)
	} else {
		w.b = binary.AppendVarint(append(w.b, typ), int64(id))
	}
	w.last = id
}

func (w *tWriter) i32(id int, v int32) {
	w.field(id, tI32)
	w.b = binary.AppendVarint(w.b, int64(v))
}

func (w *tWriter) i64(id int, v int64) {
	w.field(id, tI64)
	w.b = binary.AppendVarint(w.b, v)
}

func (w *tWriter) boolean(id int, v bool) {
	if v {
		w.field(id, tTrue)
	} else {
		w.field(id, tFalse)
	}
}

func (w *tWriter) bytes(id int, v []byte) {
	w.field(id, tBinary)
	w.rawBytes(v)
}

func (w *tWriter) text(id int, v string) {
	w.field(id, tBinary)
	w.b = append(binary.AppendUvarint(w.b, uint64(len(v))), v...)
}

// rawBytes writes an element of a list of binary.
func (w *tWriter) rawBytes(v []byte) {
	w.b = append(binary.AppendUvarint(w.b, uint64(len(v))), v...)
}

// list begins a list of n elements, which the caller writes next.
func (w *tWriter) list(id int, elem byte, n int) {
	w.field(id, tList)
	if n < 15 {
		w.b = append(w.b, byte(n)<<4|elem)
	} else {
		w.b = binary.AppendUvarint(append(w.b, 0xf0|elem), uint64(n))
	}
}

// begin opens a struct that is a field; open one that is an element of a list; end closes either.
func (w *tWriter) begin(id int) {
	w.field(id, tStruct)
	w.open()
}

func (w *tWriter) open() {
	w.stack[w.depth] = w.last
	w.depth++
	w.last = 0
}

func (w *tWriter) end() {
	w.b = append(w.b, 0)
	w.depth--
	w.last = w.stack[w.depth]
}

// tReader reads Thrift structs from b. After the first fault bad is set,
// everything reads as zero, and every struct and list is at its end.
type tReader struct {
	b   []byte
	pos int
	bad bool
}

func (r *tReader) fail() { r.bad, r.pos = true, len(r.b) }

func (r *tReader) byte() byte {
	if r.pos >= len(r.b) {
		r.fail()
		return 0
	}
	r.pos++
	return r.b[r.pos-1]
}

func (r *tReader) uvarint() uint64 {
	if r.pos < len(r.b) && r.b[r.pos] < 0x80 {
		r.pos++
		return uint64(r.b[r.pos-1])
	}
	v, n := binary.Uvarint(r.b[r.pos:])
	if n <= 0 {
		r.fail()
		return 0
	}
	r.pos += n
	return v
}

func (r *tReader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// next moves to the next field of a struct; *last is 0 before the first. It
// reports false at the struct's end.
func (r *tReader) next(last *int) (id int, typ byte, ok bool) {
	h := r.byte()
	if h == 0 {
		return 0, 0, false
	}
	if d := int(h >> 4); d != 0 {
		id = *last + d
	} else {
		v := r.varint()
		if v < -1<<15 || v >= 1<<15 {
			r.fail()
			return 0, 0, false
		}
		id = int(v)
	}
	*last = id
	return id, h & 15, !r.bad
}

func (r *tReader) i32(typ byte) int32 {
	v := r.varint()
	if typ != tI32 || int64(int32(v)) != v {
		r.fail()
		return 0
	}
	return int32(v)
}

func (r *tReader) i64(typ byte) int64 {
	if typ != tI64 {
		r.fail()
		return 0
	}
	return r.varint()
}

// bytes returns a part of the input.
func (r *tReader) bytes(typ byte) []byte {
	n := r.uvarint()
	if typ != tBinary || n > uint64(len(r.b)-r.pos) {
		r.fail()
		return nil
	}
	r.pos += int(n)
	return r.b[r.pos-int(n) : r.pos]
}

// list begins a list of elem and returns its length, which is at most the
// number of bytes left: every element takes one at least.
func (r *tReader) list(typ, elem byte) int {
	h := r.byte()
	n := uint64(h >> 4)
	if n == 15 {
		n = r.uvarint()
	}
	if typ != tList && typ != tSet || h&15 != elem || n > uint64(len(r.b)-r.pos) {
		r.fail()
		return 0
	}
	return int(n)
}

// skip passes over a value of a type that nobody asked for.
func (r *tReader) skip(typ byte) { r.skipDeep(typ, 16) }

func (r *tReader) skipDeep(typ byte, depth int) {
	if depth == 0 {
		r.fail()
	}
	switch typ {
	case tTrue, tFalse: // the type is the value
	case tI8:
		r.byte()
	case tI16, tI32, tI64:
		r.varint()
	case tDouble:
		if len(r.b)-r.pos < 8 {
			r.fail()
			return
		}
		r.pos += 8
	case tBinary:
		r.bytes(typ)
	case tList, tSet:
		elem := byte(0)
		if r.pos < len(r.b) {
			elem = r.b[r.pos] & 15
		}
		for range r.list(typ, elem) {
			r.skipElement(elem, depth-1)
			if r.bad {
				return
			}
		}
	case tMap:
		n := r.uvarint()
		if n == 0 {
			return
		}
		kv := r.byte()
		if n > uint64(len(r.b)-r.pos) {
			r.fail()
			return
		}
		for range n {
			r.skipElement(kv>>4, depth-1)
			r.skipElement(kv&15, depth-1)
			if r.bad {
				return
			}
		}
	case tStruct:
		for last := 0; ; {
			_, t, ok := r.next(&last)
			if !ok {
				return
			}
			r.skipDeep(t, depth-1)
		}
	default:
		r.fail()
	}
}

// skipElement passes over an element of a list or map, where a boolean is a byte.
func (r *tReader) skipElement(typ byte, depth int) {
	if typ == tTrue || typ == tFalse {
		r.byte()
		return
	}
	r.skipDeep(typ, depth)
}
