package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxRecord bounds a CSV record in bytes, line ends inside quotes included. A
// sample takes about 50; what is longer is no sample.
const maxRecord = 64 << 10

// mark is the byte order mark that some programs begin UTF-8 with.
const mark = "\ufeff"

// csvReader splits CSV as RFC 4180 describes it: fields separated by commas,
// records by LF or CRLF, a field in double quotes may hold both and a doubled
// quote. Empty lines are passed over, as is a byte order mark at the beginning.
//
// A record that is not well formed costs its first line and no more: reading
// goes on with the next line.
type csvReader struct {
	in         io.Reader
	buf        []byte
	start, end int // of what is in buf and not read yet
	err        error
	began      bool

	line int64 // of the record that next returned, counted from 1
	next int64 // of what is at start

	fields  [][]byte
	scratch []byte
}

func newCSVReader(in io.Reader) *csvReader {
	return &csvReader{in: in, buf: make([]byte, 16*maxRecord), next: 1}
}

// fill reads more, if there is more, behind what is in the buffer.
func (r *csvReader) fill() {
	if r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	var n int
	n, r.err = r.in.Read(r.buf[r.end:])
	r.end += n
}

// take consumes n bytes that hold lines line ends.
func (r *csvReader) take(n int, lines int64) []byte {
	b := r.buf[r.start : r.start+n]
	r.start += n
	r.line, r.next = r.next, r.next+lines
	return b
}

// record returns the fields of the next record and the bytes it is made of,
// valid until the next call. why says why it can not be split; raw is then its
// first line, or the beginning of that. The error is that of the input, io.EOF
// at its end.
func (r *csvReader) record() (fields [][]byte, raw []byte, why string, err error) {
	if !r.began {
		for r.end < len(mark) && r.err == nil {
			r.fill()
		}
		if r.began = true; bytes.HasPrefix(r.buf[:r.end], []byte(mark)) {
			r.start = len(mark)
		}
	}
	for {
		rest := r.buf[r.start:r.end]
		n := bytes.IndexByte(rest, '\n')
		switch {
		case n < 0 && r.err == nil && len(rest) <= maxRecord:
			r.fill()
			continue
		case n < 0 && len(rest) > maxRecord || n > maxRecord:
			raw, err := r.long()
			return nil, raw, fmt.Sprintf("a line of more than %d KiB", maxRecord>>10), err
		case n < 0 && (len(rest) == 0 || !errors.Is(r.err, io.EOF)):
			return nil, nil, "", r.err // the rest of a file that broke off is not read
		}
		size := n + 1
		if n < 0 {
			n, size = len(rest), len(rest)
		}
		line := trimCR(rest[:n])
		if len(line) == 0 {
			r.take(size, 1)
			continue
		}
		r.fields = r.fields[:0]
		if bytes.IndexByte(line, '"') < 0 {
			r.take(size, 1)
			for {
				i := bytes.IndexByte(line, ',')
				if i < 0 {
					break
				}
				r.fields = append(r.fields, line[:i])
				line = line[i+1:]
			}
			r.fields = append(r.fields, line)
			return r.fields, trimCR(rest[:n]), "", nil
		}
		length, why := r.quoted(rest)
		if length < 0 && r.err == nil && len(rest) <= maxRecord {
			r.fill() // the quote may be closed on a line that is not here yet
			continue
		}
		if why != "" {
			return nil, trimCR(r.take(size, 1)[:n]), why, nil
		}
		raw = r.take(length, int64(bytes.Count(rest[:length], []byte{'\n'})))
		return r.fields, trimCR(bytes.TrimSuffix(raw, []byte{'\n'})), "", nil
	}
}

// quoted splits the record that b begins with into r.fields and returns its
// length with the line end. Without a whole one it says why; the length is -1
// if more of b could change that.
func (r *csvReader) quoted(b []byte) (length int, why string) {
	r.scratch = r.scratch[:0]
	limit := min(len(b), maxRecord)
	i := 0
	for {
		if i < limit && b[i] == '"' {
			// Fields with a doubled quote are put together in scratch; one that
			// moves scratch leaves the earlier fields in the old memory, unharmed.
			i++
			from, copied := i, -1
			for {
				k := bytes.IndexByte(b[i:limit], '"')
				if k < 0 {
					return -1, "a quote that is not closed"
				}
				i += k
				if i+1 < limit && b[i+1] == '"' {
					if copied < 0 {
						copied = len(r.scratch)
					}
					r.scratch = append(r.scratch, b[from:i+1]...)
					i += 2
					from = i
					continue
				}
				break
			}
			field := b[from:i]
			if copied >= 0 {
				r.scratch = append(r.scratch, field...)
				field = r.scratch[copied:len(r.scratch):len(r.scratch)]
			}
			r.fields = append(r.fields, field)
			i++
		} else {
			k := bytes.IndexAny(b[i:limit], ",\n")
			if k < 0 {
				k = limit - i
			}
			field := b[i : i+k]
			i += k
			if i < limit && b[i] == '\n' || i == len(b) {
				field = trimCR(field)
			}
			if bytes.IndexByte(field, '"') >= 0 {
				return 0, "a quote inside of a field that does not begin with one"
			}
			r.fields = append(r.fields, field)
		}
		if i < limit && b[i] == '\r' && (i+1 == len(b) || b[i+1] == '\n') {
			i++
		}
		switch {
		case i == len(b) && r.err == nil && i < maxRecord:
			return -1, "a quote that is not closed" // it goes on in what was not read yet
		case i == len(b):
			return i, ""
		case i >= limit:
			return 0, fmt.Sprintf("a record of more than %d KiB", maxRecord>>10)
		case b[i] == '\n':
			return i + 1, ""
		case b[i] != ',':
			return 0, "text behind a closing quote"
		}
		i++
	}
}

// long passes over a line that does not fit and returns its beginning.
func (r *csvReader) long() ([]byte, error) {
	begin := bytes.Clone(r.buf[r.start : r.start+maxText])
	for {
		rest := r.buf[r.start:r.end]
		if n := bytes.IndexByte(rest, '\n'); n >= 0 {
			r.take(n+1, 1)
			return begin, nil
		}
		r.start = r.end
		if r.err != nil {
			r.take(0, 1)
			if errors.Is(r.err, io.EOF) {
				return begin, nil
			}
			return nil, r.err
		}
		r.fill()
	}
}

func trimCR(b []byte) []byte {
	if len(b) > 0 && b[len(b)-1] == '\r' {
		return b[:len(b)-1]
	}
	return b
}
