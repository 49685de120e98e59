package files

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/utc"
)

// row is a line of the input, as it is staged.
type row struct {
	key     uint64 // keyOf
	ts      int64  // Unix milliseconds, on a day of the staging window
	seq     uint64 // file<<lineBits | line
	bits    uint64 // of the value; of a bad row the offset of its reject
	quality uint8
	flags   uint16
	kind    kind
}

// rowBytes is the memory of a row: five words.
const rowBytes = 40

type kind uint8

const (
	good       kind = iota // a sample
	superseded             // a row like a sample that a later one replaces
	bad                    // a row that no sample can hold
)

// lineBits of a sequence number are the line: 10^12 lines, 16 million files.
const lineBits = 40

// keyOf puts the month before the staged number of the point, since months are
// archived one after another.
func keyOf(m utc.Month, point uint32) uint64 { return uint64(m)<<32 | uint64(point) }

// compareRows orders by key and timestamp, and where these are equal the last
// row first, so that the winner is known when the others come.
func compareRows(a, b *row) int {
	switch {
	case a.key != b.key:
		return cmp.Compare(a.key, b.key)
	case a.ts != b.ts:
		return cmp.Compare(a.ts, b.ts)
	}
	return cmp.Compare(b.seq, a.seq)
}

// sorter sorts runs. Nearly all exports are in order of time, so rows are
// distributed by key, and then only the keys whose rows are out of order are
// sorted: a fifth of the time of sorting them all.
type sorter struct {
	out   []row
	slots []slot           // by staged number of the point, its last key
	ids   map[uint64]int32 // of the keys of the run, as they came
	keys  []uint64         // by id
	next  []int            // by id, where its next row goes
}

type slot struct {
	key uint64
	id  int32
}

// sort returns the rows in order, in memory that is used again by the next call.
func (s *sorter) sort(rows []row) []row {
	if cap(s.out) < len(rows) {
		s.out = make([]row, cap(rows))
	}
	s.out = s.out[:len(rows)]
	clear(s.slots)
	clear(s.ids)
	if s.ids == nil {
		s.ids = make(map[uint64]int32)
	}
	s.keys, s.next = s.keys[:0], s.next[:0]
	id := func(key uint64) int32 {
		point := int(uint32(key))
		if point >= len(s.slots) {
			s.slots = append(s.slots, make([]slot, point+1-len(s.slots))...)
		}
		if s.slots[point].key == key { // no key is 0
			return s.slots[point].id
		}
		n, ok := s.ids[key]
		if !ok {
			n = int32(len(s.keys))
			s.ids[key] = n
			s.keys, s.next = append(s.keys, key), append(s.next, 0)
		}
		s.slots[point] = slot{key, n}
		return n
	}
	for i := range rows {
		s.next[id(rows[i].key)]++
	}
	begin := 0
	for _, key := range slices.Sorted(slices.Values(s.keys)) {
		n := s.ids[key]
		begin, s.next[n] = begin+s.next[n], begin
	}
	for i := range rows {
		n := id(rows[i].key)
		s.out[s.next[n]] = rows[i]
		s.next[n]++
	}
	for i := 0; i < len(s.out); {
		j := i + 1
		ordered := true
		for j < len(s.out) && s.out[j].key == s.out[i].key {
			ordered = ordered && s.out[j].ts > s.out[j-1].ts
			j++
		}
		if !ordered {
			slices.SortFunc(s.out[i:j], func(a, b row) int { return compareRows(&a, &b) })
		}
		i = j
	}
	return s.out
}

// Rows in files: differences to the row before as varints, the value as it is.
// A difference of the key that is not 0 begins a block, which is read without
// what is before it. Keys are never 0: the first month is 2000-01.
const maxRowLen = 3*binary.MaxVarintLen64 + 8 + binary.MaxVarintLen32

// common is the quality of nearly every row; it is stored as 0.
const common = 192

func appendRow(dst []byte, r, prev *row) []byte {
	dst = binary.AppendUvarint(dst, r.key-prev.key)
	ts, seq := prev.ts, prev.seq
	if r.key != prev.key {
		ts, seq = 0, 0
	}
	dst = binary.AppendVarint(dst, r.ts-ts)
	dst = binary.AppendVarint(dst, int64(r.seq-seq))
	dst = binary.LittleEndian.AppendUint64(dst, r.bits)
	return binary.AppendUvarint(dst, uint64(r.kind)|uint64(r.quality^common)<<2|uint64(r.flags)<<10)
}

// errShort says that a staged file ends within a row, or holds none where one must be.
var errShort = fault.Errorf(fault.Internal, "a staged file is not what was written")

// next decodes the row at the beginning of b over r, the row before it, and
// returns its length.
func (r *row) next(b []byte) (int, error) {
	key, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, errShort
	}
	if key != 0 {
		r.key, r.ts, r.seq = r.key+key, 0, 0
	}
	ts, k := binary.Varint(b[n:])
	if k <= 0 {
		return 0, errShort
	}
	n += k
	seq, k := binary.Varint(b[n:])
	if n += k; k <= 0 || len(b) < n+9 {
		return 0, errShort
	}
	r.ts, r.seq, r.bits = r.ts+ts, r.seq+uint64(seq), binary.LittleEndian.Uint64(b[n:])
	n += 8
	rest, k := binary.Uvarint(b[n:])
	if k <= 0 {
		return 0, errShort
	}
	r.kind, r.quality, r.flags = kind(rest&3), uint8(rest>>2)^common, uint16(rest>>10)
	return n + k, nil
}

// scratch is a file without a name: it takes no place in a folder, and its disk
// is free when the process ends, even if it is killed.
type scratch struct{ *os.File }

func newScratch(dir string) (scratch, error) {
	f, err := os.CreateTemp(dir, "etl-stage-*")
	if err != nil {
		return scratch{}, diskError(err)
	}
	_ = os.Remove(f.Name()) // where that is not possible for an open file, close does it
	return scratch{f}, nil
}

func (s scratch) close() {
	if s.File != nil {
		_ = s.Close()
		_ = os.Remove(s.Name())
	}
}

func diskError(err error) error {
	return fault.Hint(fault.Wrap(fault.Unavailable, fmt.Errorf("stage the input: %w", err)),
		"staging takes about 30 bytes of disk a row; --work-dir chooses another folder")
}

// spill are runs of sorted rows, one behind the other in one file.
type spill struct {
	file scratch
	ends []int64
}

// add writes sorted rows as a run.
func (s *spill) add(rows []row) error {
	w := bufio.NewWriterSize(s.file, 1<<20)
	var prev row
	buf := make([]byte, 0, maxRowLen)
	for i := range rows {
		buf = appendRow(buf[:0], &rows[i], &prev)
		if _, err := w.Write(buf); err != nil {
			return diskError(err)
		}
		prev = rows[i]
	}
	if err := w.Flush(); err != nil {
		return diskError(err)
	}
	end, err := s.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return diskError(err)
	}
	s.ends = append(s.ends, end)
	return nil
}

// run is a sorted sequence of rows: in memory, or what is left of a spilled one.
type run struct {
	row  row // the next one
	rows []row
	in   *bufio.Reader
}

// advance sets r.row to the next row; false at the end.
func (r *run) advance() (bool, error) {
	if r.in == nil {
		if len(r.rows) == 0 {
			return false, nil
		}
		r.row, r.rows = r.rows[0], r.rows[1:]
		return true, nil
	}
	b, err := r.in.Peek(maxRowLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, diskError(err)
	}
	if len(b) == 0 {
		return false, nil
	}
	n, err := r.row.next(b)
	if err != nil {
		return false, err
	}
	_, err = r.in.Discard(n)
	return true, err
}

// runs are the runs of s, and mem if it holds any, to be read with buffers of
// about memory bytes in all.
func (s *spill) runs(mem []row, memory int64) []*run {
	size := int(min(256<<10, max(4<<10, memory/int64(len(s.ends)+1))))
	var rs []*run
	start := int64(0)
	for _, end := range s.ends {
		rs = append(rs, &run{in: bufio.NewReaderSize(io.NewSectionReader(s.file, start, end-start), size)})
		start = end
	}
	if len(mem) > 0 {
		rs = append(rs, &run{rows: mem})
	}
	return rs
}

// merge calls f with the rows of all runs in order.
func merge(ctx context.Context, rs []*run, f func(*row) error) error {
	var h []*run // a heap by row
	down := func(i int) {
		for {
			k := 2*i + 1
			if k >= len(h) {
				return
			}
			if k+1 < len(h) && compareRows(&h[k+1].row, &h[k].row) < 0 {
				k++
			}
			if compareRows(&h[i].row, &h[k].row) <= 0 {
				return
			}
			h[i], h[k] = h[k], h[i]
			i = k
		}
	}
	for _, r := range rs {
		ok, err := r.advance()
		if err != nil {
			return err
		}
		if ok {
			h = append(h, r)
		}
	}
	for i := len(h)/2 - 1; i >= 0; i-- {
		down(i)
	}
	for n := 0; len(h) > 0; n++ {
		if n%(1<<16) == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := f(&h[0].row); err != nil {
			return err
		}
		ok, err := h[0].advance()
		if err != nil {
			return err
		}
		if !ok {
			h[0] = h[len(h)-1]
			h = h[:len(h)-1]
		}
		down(0)
	}
	return nil
}

// block is what is staged of a point in a month.
type block struct {
	key  uint64
	off  int64
	rows int64   // rejects included
	days utc.Set // that hold rows
}

// staged are the sorted rows, each (point, timestamp) with one good row at most.
type staged struct {
	file    scratch
	blocks  []block // ascending by key
	end     int64
	rejects *rejectFile
}

// settle writes the rows of the runs, deciding which of the good rows of a
// (point, timestamp) is the sample, and counts what it decided.
func settle(ctx context.Context, dir string, rs []*run, sum *Summary) (*staged, error) {
	file, err := newScratch(dir)
	if err != nil {
		return nil, err
	}
	s := &staged{file: file}
	w := bufio.NewWriterSize(file, 1<<20)
	var prev, winner row // winner.key is 0 before the first
	buf := make([]byte, 0, maxRowLen)
	var days utc.Days // of the block's month
	err = merge(ctx, rs, func(r *row) error {
		if r.kind == good {
			if winner.key == r.key && winner.ts == r.ts {
				if winner.bits == r.bits && winner.quality == r.quality && winner.flags == r.flags {
					sum.Repeated++
					return nil
				}
				r.kind = superseded
				sum.Superseded++
			} else {
				winner = *r
				sum.Samples++
			}
		}
		if r.key != prev.key {
			s.blocks = append(s.blocks, block{key: r.key, off: s.end})
			days = utc.Month(r.key >> 32).Days()
		}
		b := &s.blocks[len(s.blocks)-1]
		b.rows++
		b.days = b.days.With(int(utc.DayOf(r.ts) - days.From))
		buf = appendRow(buf[:0], r, &prev)
		prev = *r
		s.end += int64(len(buf))
		_, err := w.Write(buf)
		return err
	})
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		file.close()
		if fault.KindOf(err) == fault.Internal && ctx.Err() == nil && !errors.Is(err, errShort) {
			err = diskError(err)
		}
		return nil, err
	}
	return s, nil
}

// find returns the block of a key, nil if there is none.
func (s *staged) find(key uint64) *block {
	i, ok := slices.BinarySearchFunc(s.blocks, key, func(b block, k uint64) int { return cmp.Compare(b.key, k) })
	if !ok {
		return nil
	}
	return &s.blocks[i]
}

// read calls f with the rows of a block, ascending by timestamp.
func (s *staged) read(b *block, f func(*row) error) error {
	size := int(min(256<<10, max(4<<10, b.rows*16)))
	r := run{in: bufio.NewReaderSize(io.NewSectionReader(s.file, b.off, s.end-b.off), size)}
	for range b.rows {
		ok, err := r.advance()
		if err != nil {
			return err
		}
		if !ok {
			return errShort
		}
		if err := f(&r.row); err != nil {
			return err
		}
	}
	return nil
}

func (s *staged) close() error {
	s.file.close()
	s.rejects.file.close()
	return nil
}

// rejectFile holds rejects as JSON, each behind its length.
type rejectFile struct {
	file scratch
	end  int64
	buf  []byte
}

// add writes a reject and returns its offset.
func (f *rejectFile) add(r *sample.Reject) (off int64, err error) {
	text, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	f.buf = append(binary.LittleEndian.AppendUint32(f.buf[:0], uint32(len(text))), text...)
	if _, err := f.file.WriteAt(f.buf, f.end); err != nil {
		return 0, diskError(err)
	}
	off = f.end
	f.end += int64(len(f.buf))
	return off, nil
}

// get reads the reject at an offset.
func (f *rejectFile) get(off int64) (r sample.Reject, err error) {
	var size [4]byte
	if _, err := f.file.ReadAt(size[:], off); err != nil {
		return r, diskError(err)
	}
	text := make([]byte, binary.LittleEndian.Uint32(size[:]))
	if _, err := f.file.ReadAt(text, off+4); err != nil {
		return r, diskError(err)
	}
	return r, json.Unmarshal(text, &r)
}
