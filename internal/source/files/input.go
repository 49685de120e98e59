package files

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

// The columns of an input, and the fields of a row in this order.
const (
	colName = iota
	colTime
	colValue
	colQuality
	colFlags
	columns
)

var columnNames = map[string]int{"point_name": colName, "timestamp": colTime, "timestamp_ms": colTime, "value": colValue, "quality": colQuality, "flags": colFlags}

// columnsOf finds the places of the columns among the names, -1 for a column
// that is not there.
func columnsOf(names []string, ignore []string) (at [columns]int, err error) {
	const hint = "the columns are point_name, timestamp or timestamp_ms, value and, if there are any, quality and flags, in any order"
	at = [columns]int{-1, -1, -1, -1, -1}
	for i, n := range names {
		n = strings.ToLower(strings.TrimSpace(n))
		if slices.ContainsFunc(ignore, func(s string) bool { return strings.EqualFold(strings.TrimSpace(s), n) }) {
			continue
		}
		c, ok := columnNames[n]
		if !ok {
			return at, fault.Hint(fault.Errorf(fault.Invalid, "unknown column %.60q", n), "%s; --ignore-column %.60s leaves it out", hint, n)
		}
		if at[c] >= 0 {
			return at, fault.Hint(fault.Errorf(fault.Invalid, "the column %.60q is there twice", n), hint)
		}
		at[c] = i
	}
	for _, c := range []struct {
		at   int
		name string
	}{{colName, "point_name"}, {colTime, "timestamp"}, {colValue, "value"}} {
		if at[c.at] < 0 {
			return at, fault.Hint(fault.Errorf(fault.Invalid, "there is no column %s", c.name), hint)
		}
	}
	return at, nil
}

// stray is a bad row that lies in no day. Its point is the staged number, or
// -1 if no point holds it.
type stray struct {
	sample.Reject
	point int32
}

// maxNames bounds the different names in an input, which are kept in memory.
const maxNames = 1 << 20

// stager reads the files one after another and stages their rows.
type stager struct {
	o      Options
	window utc.Days
	source *Source

	names  map[string]int32 // staged number, -1 for a point that is left out
	points []string         // by staged number

	rows    []row // the run being filled
	spare   []row // the run that is being sorted and spilled, once it is
	limit   int   // rows of a run
	sorter  sorter
	writing errgroup.Group
	spill   spill
	rejects *rejectFile
	duck    *duck // nil until there is a Parquet file

	file     int // being read
	month    utc.Month
	from, to int64 // of month

	bytes    atomic.Int64 // read; another goroutine reads ahead
	progress Progress
	reported time.Time
}

// stage reads all files.
func (s *stager) stage(ctx context.Context) (result *staged, err error) {
	src := s.source
	// Columns first: a wrong one in the last file should not cost hours.
	defer func() {
		if s.duck != nil {
			s.duck.close()
		}
	}()
	var tables []*table // nil for CSV
	for _, path := range src.paths {
		t, err := s.inspect(ctx, path)
		if err != nil {
			return nil, inFile(path, err)
		}
		tables = append(tables, t)
		src.parquet = append(src.parquet, t != nil)
	}
	s.progress.Total = len(src.paths)
	// One run is filled while another is sorted into a third place, and spilled.
	s.limit = int(max(s.o.Memory/3/rowBytes, 1024))
	if s.spill.file, err = newScratch(s.o.Dir); err != nil {
		return nil, err
	}
	defer s.spill.file.close()
	file, err := newScratch(s.o.Dir)
	if err != nil {
		return nil, err
	}
	s.rejects = &rejectFile{file: file}
	defer func() {
		if err != nil {
			file.close()
		}
	}()
	for i, path := range src.paths {
		s.file = i
		s.progress.File = path
		if tables[i] != nil {
			err = s.readParquet(ctx, tables[i])
		} else {
			err = s.readCSV(ctx, path)
		}
		if err != nil {
			_ = s.writing.Wait() // it is the error, or of less interest
			return nil, inFile(path, err)
		}
		s.progress.Files++
	}
	s.report(true)
	if err := s.writing.Wait(); err != nil {
		return nil, err
	}
	last := s.sorter.sort(s.rows)
	s.rows, s.spare = nil, nil
	result, err = settle(ctx, s.o.Dir, s.spill.runs(last, s.o.Memory/3), &src.summary)
	if err != nil {
		return nil, err
	}
	result.rejects = s.rejects
	for _, b := range result.blocks {
		runs := b.days.Runs(utc.Month(b.key >> 32))
		first, end := runs[0].From, runs[len(runs)-1].To
		if src.span.Empty() {
			src.span = utc.Days{From: first, To: end}
		}
		src.span = utc.Days{From: min(src.span.From, first), To: max(src.span.To, end)}
	}
	src.summary.Files, src.summary.Points, src.summary.Rows = len(src.paths), len(s.points), s.progress.Rows
	return result, nil
}

func inFile(path string, err error) error {
	if e := new(fs.PathError); errors.As(err, &e) && e.Path == path {
		return fmt.Errorf("read the input: %w", err) // it names the file
	}
	return fmt.Errorf("read the input %s: %w", path, err)
}

// inspect reads the columns of a file. A Parquet file has a table.
func (s *stager) inspect(ctx context.Context, path string) (*table, error) {
	in, err := openInput(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	info, err := in.file.Stat()
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err)
	}
	s.progress.Size += info.Size()
	if !in.parquet {
		_, err = readHeader(newCSVReader(in), s.o.Ignore)
		return nil, err
	}
	if s.duck == nil {
		if s.duck, err = openDuck(ctx, s.o.Memory); err != nil {
			return nil, err
		}
	}
	t, err := s.duck.table(ctx, path, s.o.Ignore)
	if err != nil {
		return nil, err
	}
	t.size = info.Size()
	return t, nil
}

// readHeader reads the line that names the columns and returns their places and number.
func readHeader(r *csvReader, ignore []string) (h header, err error) {
	fields, _, why, err := r.record()
	switch {
	case errors.Is(err, io.EOF):
		return h, fault.Hint(fault.Errorf(fault.Invalid, "it is empty"), "a CSV file begins with a line that names its columns; remove the file if it holds nothing")
	case err != nil:
		return h, brokenOff(r, err)
	case why != "":
		return h, fault.Errorf(fault.Invalid, "line %d, which names the columns: %s", r.line, why)
	}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = strings.ToValidUTF8(string(f), "\ufffd")
	}
	h.fields = len(names)
	h.at, err = columnsOf(names, ignore)
	return h, err
}

type header struct {
	at     [columns]int
	fields int
}

// brokenOff classifies an error that ended a file before its end.
func brokenOff(r *csvReader, err error) error {
	if e := new(fs.PathError); errors.As(err, &e) {
		return fault.Wrap(fault.Unavailable, err)
	}
	return fault.Hint(fault.Errorf(fault.Corrupt, "behind line %d: %w", r.next-1, err), "is the file whole? `gzip -t` and `zstd -t` tell")
}

// readCSV stages a CSV file.
func (s *stager) readCSV(ctx context.Context, path string) error {
	in, err := openInput(path)
	if err != nil {
		return err
	}
	defer in.Close()
	in.read = &s.bytes
	ahead := readAhead(in)
	defer ahead.stop()
	r := newCSVReader(ahead)
	h, err := readHeader(r, s.o.Ignore)
	if err != nil {
		return err
	}
	var empty []byte
	var cell [columns][]byte
	for n := 0; ; n++ {
		if n%4096 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			s.report(false)
		}
		fields, raw, why, err := r.record()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return brokenOff(r, err)
		}
		s.progress.Rows++
		if why == "" && len(fields) != h.fields {
			why = fmt.Sprintf("%d fields, want %d", len(fields), h.fields)
		}
		if why != "" {
			s.stray(r.line, -1, sample.Reject{Value: sample.Cell{V: excerpt(raw)}, Reason: why})
			continue
		}
		for c, at := range h.at {
			cell[c] = empty
			if at >= 0 {
				cell[c] = fields[at]
			}
		}
		ts, whyTime := parseTime(cell[colTime])
		value, whyValue := parseValue(cell[colValue])
		quality, okQuality := parseSmall(cell[colQuality], common, 255)
		flags, okFlags := parseSmall(cell[colFlags], 0, 65535)
		if whyTime == "" && whyValue == "" && okQuality && okFlags {
			if err := s.add(r.line, cell[colName], ts, value, uint8(quality), uint16(flags)); err != nil {
				return err
			}
			continue
		}
		rej := sample.Reject{
			Timestamp: cellOf(ts, cell[colTime], whyTime == ""), Value: cellOf(value, cell[colValue], whyValue == ""),
			Quality: cellOf(quality, cell[colQuality], okQuality), Flags: cellOf(flags, cell[colFlags], okFlags),
		}
		if err := s.bad(r.line, cell[colName], rej, whyTime, whyValue); err != nil {
			return err
		}
	}
}

// maxText bounds the text of a cell that a reject keeps.
const maxText = 1000

// excerpt is the text of a cell, cut if it is long.
func excerpt(b []byte) string {
	if len(b) <= maxText {
		return string(b)
	}
	n := maxText
	for n > maxText-utf8.UTFMax && !utf8.RuneStart(b[n]) {
		n--
	}
	return string(b[:n]) + "…"
}

// cellOf is what a cell of a reject holds: the number if the text is one.
func cellOf[T int64 | float64](n T, text []byte, ok bool) sample.Cell {
	switch {
	case !ok:
		return sample.Cell{V: excerpt(text)}
	case n != n:
		return sample.Cell{}
	}
	return sample.Cell{V: n}
}

// add stages a good row, unless its point is left out or its timestamp lies in no day.
func (s *stager) add(line int64, name []byte, ts int64, value float64, quality uint8, flags uint16) error {
	if n, ok := s.names[string(name)]; ok && n >= 0 && s.inMonth(ts) {
		return s.put(row{key: keyOf(s.month, uint32(n)), ts: ts, seq: s.seq(line), bits: bitsOf(value), quality: quality, flags: flags})
	}
	rej := sample.Reject{Timestamp: sample.Cell{V: ts}, Value: cellOf(value, nil, true), Quality: sample.Cell{V: int64(quality)}, Flags: sample.Cell{V: int64(flags)}}
	n, why, err := s.number(name)
	switch {
	case err != nil:
		return err
	case n < 0 && why == "":
		s.source.summary.Skipped++
	case why != "":
		s.stray(line, -1, named(rej, name, why))
	case !s.inMonth(ts):
		s.stray(line, n, named(rej, name, source.StrayReason(&rej, s.window)))
	default:
		return s.put(row{key: keyOf(s.month, uint32(n)), ts: ts, seq: s.seq(line), bits: bitsOf(value), quality: quality, flags: flags})
	}
	return nil
}

// bad records a row that no sample can hold. Its cells hold numbers where they
// are such as they should be.
func (s *stager) bad(line int64, name []byte, rej sample.Reject, whys ...string) error {
	n, why, err := s.number(name)
	if err != nil {
		return err
	}
	if n < 0 && why == "" {
		s.source.summary.Skipped++
		return nil
	}
	ts, dated := rej.Timestamp.V.(int64)
	if dated && !s.inMonth(ts) {
		dated = false
		whys = append(whys, source.StrayReason(&rej, s.window))
	}
	whys = append(whys, why)
	for _, c := range []struct {
		name string
		cell sample.Cell
		most int64
	}{{"quality", rej.Quality, 255}, {"flags", rej.Flags, 65535}} {
		if v, ok := c.cell.V.(int64); !ok || v < 0 || v > c.most {
			whys = append(whys, fmt.Sprintf("%s is no integer from 0 to %d", c.name, c.most))
		}
	}
	rej = named(rej, name, strings.Join(slices.DeleteFunc(whys, func(w string) bool { return w == "" }), "; "))
	if n < 0 || !dated {
		s.stray(line, n, rej)
		return nil
	}
	s.source.summary.Bad++
	rej.Reason = s.source.where(s.seq(line)) + rej.Reason
	off, err := s.rejects.add(&rej)
	if err != nil {
		return err
	}
	return s.put(row{key: keyOf(s.month, uint32(n)), ts: ts, seq: s.seq(line), bits: uint64(off), kind: bad})
}

func named(r sample.Reject, name []byte, why string) sample.Reject {
	r.PointID.V, r.Reason = excerpt(name), why
	return r
}

// stray records a bad row that lies in no day.
func (s *stager) stray(line int64, point int32, r sample.Reject) {
	s.source.summary.Bad++
	if len(s.source.strays) == source.MaxStrays {
		s.source.summary.Unrecorded++
		return
	}
	r.Reason = s.source.where(s.seq(line)) + r.Reason
	s.source.strays = append(s.source.strays, stray{r, point})
}

// number is the staged number of a point, -1 with why for a name that no point
// can have, and without for one that is left out.
func (s *stager) number(name []byte) (n int32, why string, err error) {
	if n, ok := s.names[string(name)]; ok {
		return n, "", nil
	}
	if why := checkName(name); why != "" {
		return -1, why, nil
	}
	if len(s.names) == maxNames {
		return -1, "", fault.Hint(fault.Errorf(fault.Invalid, "more than %d different names of points", maxNames), "is point_name the right column? --points takes a part of them at a time")
	}
	n = -1
	if s.o.Match == nil || s.o.Match(string(name)) {
		n = int32(len(s.points))
		s.points = append(s.points, string(name))
	}
	s.names[string(name)] = n
	return n, "", nil
}

// inMonth sets s.month to that of ts; false if it lies outside of the window.
func (s *stager) inMonth(ts int64) bool {
	if ts >= s.from && ts < s.to { // nearly always
		return true
	}
	d := utc.DayOf(ts)
	if !s.window.Contains(d) {
		return false
	}
	s.month = d.Month()
	days := s.month.Days().Intersect(s.window)
	s.from, s.to = days.From.Start(), days.To.Start()
	return true
}

func (s *stager) seq(line int64) uint64 { return uint64(s.file)<<lineBits | uint64(line) }

// put adds a row to the run, and spills the run when it is full.
func (s *stager) put(r row) error {
	if s.rows == nil {
		s.rows = make([]row, 0, s.limit) // the system gives memory as it is touched
	}
	s.rows = append(s.rows, r)
	if len(s.rows) < s.limit {
		return nil
	}
	if err := s.writing.Wait(); err != nil {
		return err
	}
	full := s.rows
	s.rows, s.spare = s.spare[:0], full
	s.writing.Go(func() error { return s.spill.add(s.sorter.sort(full)) })
	return nil
}

// report tells how far staging is, five times a second.
func (s *stager) report(now bool) {
	if s.o.Progress != nil && (now || time.Since(s.reported) > 200*time.Millisecond) {
		s.reported, s.progress.Bytes = time.Now(), s.bytes.Load()
		s.o.Progress(s.progress)
	}
}

// bitsOf are the bits of a value, one pattern for NULL.
func bitsOf(v float64) uint64 {
	if v != v {
		v = sample.Null
	}
	return math.Float64bits(v)
}

// input is an open file of the input. What it is its first bytes tell, not its name.
type input struct {
	io.Reader // text, where it is CSV
	parquet   bool
	file      *os.File
	read      *atomic.Int64 // counts the bytes that were read, as they are stored
	close     func()
}

func openInput(path string) (*input, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err)
	}
	in := &input{file: f, close: func() {}}
	raw := bufio.NewReaderSize(counted{f, in}, 256<<10)
	magic, err := raw.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, fault.Wrap(fault.Unavailable, err)
	}
	in.Reader = raw
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(raw)
		if err != nil {
			f.Close()
			return nil, fault.Wrap(fault.Corrupt, err)
		}
		in.Reader = z
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			f.Close()
			return nil, fault.Wrap(fault.Corrupt, err)
		}
		in.Reader, in.close = z, z.Close
	case string(magic) == "PAR1":
		in.parquet = true
	}
	return in, nil
}

func (in *input) Close() {
	in.close()
	in.file.Close()
}

// counted tells its input what was read.
type counted struct {
	*os.File
	in *input
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.File.Read(b)
	if c.in.read != nil {
		c.in.read.Add(int64(n))
	}
	return n, err
}
