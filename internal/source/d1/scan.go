package d1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"etl/internal/cloudflare"
	"etl/internal/fault"
)

const (
	// windowBytes is what a scanner reads at a time. A token that is longer makes
	// the window grow.
	windowBytes = 128 << 10
	// maxToken is the longest token: D1 holds values of 2,000,000 bytes, and
	// each byte may be escaped by six.
	maxToken = 6 * 2_000_000
	// maxDepth bounds nesting. D1's own answers have a depth of 6.
	maxDepth = 64
)

// scanner reads the JSON of an answer from a stream, through a window. Slices
// that it returns are valid until its next call.
type scanner struct {
	r        io.Reader
	buf      []byte // buf[pos:end] was read and not used yet
	pos, end int
	base     int64 // how many bytes came before buf
	eof      error // how the stream ended, nil until it has
	scratch  []byte
}

func newScanner(r io.Reader, buf []byte) *scanner { return &scanner{r: r, buf: buf} }

// fill reads more into the window and reports whether there was more.
func (s *scanner) fill() bool {
	if s.eof != nil {
		return false
	}
	if s.pos > 0 {
		copy(s.buf, s.buf[s.pos:s.end])
		s.base += int64(s.pos)
		s.end -= s.pos
		s.pos = 0
	}
	if s.end == len(s.buf) {
		if s.end > maxToken {
			s.eof = fault.Errorf(fault.Invalid, "the answer has a token of more than %d bytes at byte %d", maxToken, s.base)
			return false
		}
		s.buf = append(s.buf, make([]byte, max(windowBytes, len(s.buf)))...)
	}
	for range 100 { // a Reader may return nothing, but not for ever
		n, err := s.r.Read(s.buf[s.end:])
		s.end += n
		if err != nil {
			s.eof = err
		}
		if n > 0 || err != nil {
			return n > 0
		}
	}
	s.eof = io.ErrNoProgress
	return false
}

// offset is how many bytes of the answer were used.
func (s *scanner) offset() int64 { return s.base + int64(s.pos) }

// ended is the error of an answer that ends too early.
func (s *scanner) ended() error {
	if fault.Is(s.eof, fault.Invalid) {
		return s.eof
	}
	err := s.eof
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fault.Wrap(fault.Transient, fmt.Errorf("the answer ends after %d bytes: %w", s.base+int64(s.end), err))
}

// malformed is the error of an answer that is no JSON. It was damaged on its
// way, so it is worth another try.
func (s *scanner) malformed() error {
	return fault.Errorf(fault.Transient, "the answer is no JSON at byte %d: %.40q", s.offset(), s.buf[s.pos:s.end])
}

// unexpected is the error of JSON that is not what D1 is known to send.
func (s *scanner) unexpected(want string) error {
	if s.pos < s.end && !strings.ContainsRune("{[\"-0123456789tfn", rune(s.buf[s.pos])) {
		return s.malformed()
	}
	return fault.Errorf(fault.Invalid, "the answer has something else than %s at byte %d: %.40q", want, s.offset(), s.buf[s.pos:s.end])
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// peek is the next byte that is not white space.
func (s *scanner) peek() (byte, error) {
	for {
		for ; s.pos < s.end; s.pos++ {
			if c := s.buf[s.pos]; !isSpace(c) {
				return c, nil
			}
		}
		if !s.fill() {
			return 0, s.ended()
		}
	}
}

// finish checks that nothing but white space follows.
func (s *scanner) finish() error {
	for {
		for ; s.pos < s.end; s.pos++ {
			if !isSpace(s.buf[s.pos]) {
				return s.malformed()
			}
		}
		if !s.fill() {
			break
		}
	}
	if s.eof != io.EOF {
		return s.ended()
	}
	return nil
}

// need makes sure that n bytes are in the window.
func (s *scanner) need(n int) error {
	for s.end-s.pos < n {
		if !s.fill() {
			return s.ended()
		}
	}
	return nil
}

// word reads null, true or false.
func (s *scanner) word(w string) error {
	if err := s.need(len(w)); err != nil {
		return err
	}
	if string(s.buf[s.pos:s.pos+len(w)]) != w {
		return s.malformed()
	}
	s.pos += len(w)
	return nil
}

// number reads a number and returns its text.
func (s *scanner) number() ([]byte, error) {
	for i := 0; ; i++ {
		if s.pos+i == s.end && !s.fill() {
			return nil, s.ended() // no answer ends with a number
		}
		switch c := s.buf[s.pos+i]; {
		case c >= '0' && c <= '9', c == '-', c == '+', c == '.', c == 'e', c == 'E':
		default:
			text := s.buf[s.pos : s.pos+i]
			if !isNumber(text) {
				return nil, s.malformed()
			}
			s.pos += i
			return text, nil
		}
	}
}

// isNumber reports whether b is a number by the grammar of RFC 8259.
func isNumber(b []byte) bool {
	digits := func() bool {
		n := 0
		for n < len(b) && b[n] >= '0' && b[n] <= '9' {
			n++
		}
		b = b[n:]
		return n > 0
	}
	b = bytes.TrimPrefix(b, []byte("-"))
	if len(b) > 1 && b[0] == '0' && b[1] >= '0' && b[1] <= '9' || !digits() {
		return false
	}
	if len(b) > 0 && b[0] == '.' {
		b = b[1:]
		if !digits() {
			return false
		}
	}
	if len(b) > 0 && (b[0] == 'e' || b[0] == 'E') {
		b = b[1:]
		if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		return digits() && len(b) == 0
	}
	return len(b) == 0
}

// numeric is a number as an int64 if it is written as an integer and fits, else
// as a float64.
func (s *scanner) numeric() (any, error) {
	b, err := s.number()
	if err != nil {
		return nil, err
	}
	if string(b) != "-0" {
		if n, err := strconv.ParseInt(string(b), 10, 64); err == nil {
			return n, nil
		}
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return nil, fault.Errorf(fault.Invalid, "the answer has the number %.40s, which is too large, at byte %d", b, s.offset())
	}
	return f, nil
}

// text reads a string and returns it without its escapes.
func (s *scanner) text() ([]byte, error) {
	if c, err := s.peek(); err != nil {
		return nil, err
	} else if c != '"' {
		return nil, s.unexpected("a string")
	}
	escaped := false
	for i := 1; ; i++ {
		if s.pos+i == s.end && !s.fill() {
			return nil, s.ended()
		}
		switch c := s.buf[s.pos+i]; {
		case c == '"':
			raw := s.buf[s.pos+1 : s.pos+i]
			if escaped {
				if s.scratch = unescape(s.scratch[:0], raw); s.scratch == nil {
					return nil, s.malformed()
				}
				raw = s.scratch
			}
			s.pos += i + 1
			return raw, nil
		case c == '\\':
			escaped = true
			if i++; s.pos+i == s.end && !s.fill() {
				return nil, s.ended()
			}
		case c < ' ':
			return nil, s.malformed()
		}
	}
}

// unescape appends the bytes that raw, the inside of a JSON string, stands for;
// nil if an escape is wrong. A half of a surrogate pair becomes U+FFFD.
func unescape(dst, raw []byte) []byte {
	dst = slices.Grow(dst, len(raw)+1) // so that it is not nil
	hex := func(i int) rune {
		if i+6 > len(raw) || raw[i] != '\\' || raw[i+1] != 'u' {
			return -1
		}
		n, err := strconv.ParseUint(string(raw[i+2:i+6]), 16, 16)
		if err != nil {
			return -1
		}
		return rune(n)
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			dst = append(dst, raw[i])
			continue
		}
		if raw[i+1] == 'u' {
			r := hex(i)
			if r < 0 {
				return nil
			}
			i += 5
			if utf16.IsSurrogate(r) {
				pair := utf16.DecodeRune(r, hex(i+1))
				if pair != utf8.RuneError {
					i += 6
				}
				r = pair
			}
			dst = utf8.AppendRune(dst, r)
			continue
		}
		i++
		k := bytes.IndexByte([]byte(`"\/bfnrt`), raw[i])
		if k < 0 {
			return nil
		}
		dst = append(dst, "\"\\/\b\f\n\r\t"[k])
	}
	return dst
}

// array calls item at the start of each item.
func (s *scanner) array(item func() error) error {
	return s.list('[', ']', "an array", item)
}

// object calls member at the start of each value. The key is valid until then.
func (s *scanner) object(member func(key []byte) error) error {
	return s.list('{', '}', "an object", func() error {
		if c, err := s.peek(); err != nil {
			return err
		} else if c != '"' {
			return s.malformed()
		}
		key, err := s.text()
		if err != nil {
			return err
		}
		key = slices.Clone(key)
		if c, err := s.peek(); err != nil {
			return err
		} else if c != ':' {
			return s.malformed()
		}
		s.pos++
		if _, err := s.peek(); err != nil {
			return err
		}
		return member(key)
	})
}

// list reads what is between two brackets, separated by commas.
func (s *scanner) list(open, shut byte, want string, item func() error) error {
	c, err := s.peek()
	if err != nil {
		return err
	}
	if c != open {
		return s.unexpected(want)
	}
	s.pos++
	for first := true; ; first = false {
		c, err := s.peek()
		switch {
		case err != nil:
			return err
		case first && c == shut:
			s.pos++
			return nil
		case !first:
			s.pos++
			if c == shut {
				return nil
			}
			if c != ',' {
				s.pos--
				return s.malformed()
			}
			if _, err := s.peek(); err != nil {
				return err
			}
		}
		if err := item(); err != nil {
			return err
		}
	}
}

// skip reads any value.
func (s *scanner) skip(depth int) error {
	if depth > maxDepth {
		return fault.Errorf(fault.Invalid, "the answer is nested more than %d deep at byte %d", maxDepth, s.offset())
	}
	c, err := s.peek()
	if err != nil {
		return err
	}
	switch c {
	case '{':
		return s.object(func([]byte) error { return s.skip(depth + 1) })
	case '[':
		return s.array(func() error { return s.skip(depth + 1) })
	case '"':
		_, err = s.text()
	case 'n':
		err = s.word("null")
	case 't':
		err = s.word("true")
	case 'f':
		err = s.word("false")
	default:
		_, err = s.number()
	}
	return err
}

// boolean reads true or false.
func (s *scanner) boolean() (bool, error) {
	switch c, err := s.peek(); {
	case err != nil:
		return false, err
	case c == 't':
		return true, s.word("true")
	case c == 'f':
		return false, s.word("false")
	}
	return false, s.unexpected("true or false")
}

// null reads null if that is what comes.
func (s *scanner) null() (bool, error) {
	if c, err := s.peek(); err != nil || c != 'n' {
		return false, err
	}
	return true, s.word("null")
}

// blob reads an array of bytes, which is how D1 sends a BLOB.
func (s *scanner) blob() ([]byte, error) {
	b := []byte{}
	err := s.array(func() error {
		v, err := s.numeric()
		if err != nil {
			return err
		}
		n, ok := v.(int64)
		if !ok || n < 0 || n > 255 {
			return fault.Errorf(fault.Invalid, "the answer has %v for a byte of a BLOB before byte %d", v, s.offset())
		}
		b = append(b, byte(n))
		return nil
	})
	return b, err
}

// value reads one cell: nil, int64, float64, string or []byte.
func (s *scanner) value() (any, error) {
	c, err := s.peek()
	if err != nil {
		return nil, err
	}
	switch {
	case c == 'n':
		return nil, s.word("null")
	case c == '"':
		b, err := s.text()
		return string(b), err
	case c == '[':
		return s.blob()
	case c == '-' || c >= '0' && c <= '9':
		return s.numeric()
	case c == '{' || c == 't' || c == 'f':
		return nil, s.unexpected("a value of a column")
	}
	return nil, s.malformed()
}

// answer is what one statement gave.
type answer struct {
	columns []string
	// rows have a cell for each column: nil, int64 (a number that is written as
	// an integer), float64, string or []byte. See the package comment for what
	// JSON makes of the values of the database.
	rows [][]any

	changes               int64 // rows inserted, updated and deleted
	lastRowID             int64
	rowsRead, rowsWritten int64   // as billed
	duration              float64 // milliseconds that D1 took
	size                  int64   // of the database in bytes
}

// readAnswers reads the answers of n statements, rows and all.
func readAnswers(r io.Reader, n int) ([]answer, error) {
	answers, err := newScanner(r, make([]byte, 16<<10)).answers(n, func(s *scanner, a *answer) error {
		a.rows = nil
		return s.array(func() error {
			row := make([]any, 0, len(a.columns))
			err := s.array(func() error {
				v, err := s.value()
				row = append(row, v)
				return err
			})
			a.rows = append(a.rows, row)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	for _, a := range answers {
		for _, row := range a.rows {
			if len(row) != len(a.columns) {
				return nil, fault.Errorf(fault.Invalid, "the answer has a row of %d cells and %d columns", len(row), len(a.columns))
			}
		}
	}
	return answers, nil
}

// answers reads the whole answer of a request of n statements: the envelope,
// and by rows, which is called at the array of the rows of a statement, what it
// encloses. Keys may come in any order, unknown ones are skipped.
func (s *scanner) answers(n int, rows func(*scanner, *answer) error) ([]answer, error) {
	var answers []answer
	var errs []cloudflare.Message
	good, told := true, false // success, everywhere and at all
	success := func() error {
		ok, err := s.boolean()
		good = good && ok
		return err
	}
	results := func(a *answer) error {
		if c, err := s.peek(); err != nil || c != '{' {
			return s.skip(0) // null where there are no rows; /query sends an array
		}
		return s.object(func(key []byte) error {
			null, err := s.null()
			if err != nil || null {
				return err
			}
			switch string(key) {
			case "columns":
				a.columns = nil
				return s.array(func() error {
					name, err := s.text()
					a.columns = append(a.columns, string(name))
					return err
				})
			case "rows":
				return rows(s, a)
			}
			return s.skip(0)
		})
	}
	result := func() error {
		var a answer
		err := s.object(func(key []byte) error {
			null, err := s.null()
			if err != nil || null {
				return err
			}
			switch string(key) {
			case "results":
				return results(&a)
			case "success":
				return success()
			case "meta":
				return s.meta(&a)
			}
			return s.skip(0)
		})
		answers = append(answers, a)
		return err
	}
	err := s.object(func(key []byte) error {
		null, err := s.null()
		if err != nil || null {
			return err
		}
		switch string(key) {
		case "result":
			answers = nil
			if c, err := s.peek(); err != nil || c != '[' {
				return s.skip(0) // an object goes with an error
			}
			return s.array(result)
		case "success":
			told = true
			return success()
		case "errors":
			errs, err = s.messages()
			return err
		}
		return s.skip(0)
	})
	if err == nil {
		err = s.finish()
	}
	switch {
	case err != nil:
		return nil, err
	case !good || len(errs) > 0:
		return nil, cloudflare.Classify(200, nil, errs)
	case !told:
		return nil, fault.Errorf(fault.Invalid, "the answer does not say whether it is a success")
	case len(answers) != n:
		return nil, fault.Errorf(fault.Invalid, "the answer has %d results, want %d", len(answers), n)
	}
	return answers, nil
}

// messages reads the errors of an answer; they have a code and a message each.
func (s *scanner) messages() ([]cloudflare.Message, error) {
	var list []cloudflare.Message
	err := s.array(func() error {
		var m cloudflare.Message
		err := s.object(func(key []byte) error {
			v, ok := any(nil), false
			c, err := s.peek()
			switch k := string(key); {
			case err != nil:
				return err
			case k == "code" && (c == '-' || c >= '0' && c <= '9'):
				v, err = s.numeric()
				var n int64
				if n, ok = v.(int64); ok {
					m.Code = int(n)
				}
				return err
			case k == "message" && c == '"':
				b, err := s.text()
				m.Message = string(b)
				return err
			}
			return s.skip(0)
		})
		list = append(list, m)
		return err
	})
	return list, err
}

// meta reads what D1 says of a statement. Numbers that it can not use it leaves 0.
func (s *scanner) meta(a *answer) error {
	if c, err := s.peek(); err != nil || c != '{' {
		return s.skip(0)
	}
	return s.object(func(key []byte) error {
		if c, err := s.peek(); err != nil || c != '-' && (c < '0' || c > '9') {
			return s.skip(0)
		}
		v, err := s.numeric()
		if err != nil {
			return err
		}
		n, _ := v.(int64)
		switch string(key) {
		case "changes":
			a.changes = n
		case "last_row_id":
			a.lastRowID = n
		case "rows_read":
			a.rowsRead = n
		case "rows_written":
			a.rowsWritten = n
		case "size_after":
			a.size = n
		case "duration":
			a.duration, _ = v.(float64)
			a.duration += float64(n)
		}
		return nil
	})
}

var errNoLiteral = errors.New("no literal")
