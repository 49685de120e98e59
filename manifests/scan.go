package manifests

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
)

// A query that meets a year of 4,500 points for the first time parses 40 MB of
// JSON, for which encoding/json takes 18 µs a point. So what Encode and
// EncodePoints write is read by a scanner of exactly that layout, in 2 µs.
//
// INVARIANT: where the scanner reports ok, encoding/json reads the same text
// without an error and to the same value; of anything else it reports nothing
// at all and encoding/json decides. TestScan… and FuzzScan… hold it to that.

// scanner reads a text from the front. Once something is not as it must be, ok
// is false for good and what is read means nothing.
type scanner struct {
	rest string
	ok   bool
}

// scanManifest reads what Encode writes. All strings of the manifest are parts of
// the text.
func scanManifest(text string) (*Manifest, bool) {
	s := scanner{text, true}
	m := &Manifest{Format: Format, Version: FormatVersion}
	s.expect("{\n\"format\":\"" + Format + "\",\n\"version\":" + strconv.Itoa(FormatVersion) + ",\n\"commit\":")
	m.Commit = s.text()
	s.expect(",\n\"month\":")
	var err error
	if m.Month, err = utc.ParseMonth(s.text()); err != nil {
		return nil, false
	}
	s.expect(",\n\"totals\":{\"points\":")
	m.Totals.Points = int(s.integer(math.MinInt, math.MaxInt))
	s.expect(",\"files\":")
	m.Totals.Files = int(s.integer(math.MinInt, math.MaxInt))
	s.expect(",\"samples\":")
	m.Totals.Samples = s.int64()
	s.expect(",\"bytes\":")
	m.Totals.Bytes = s.int64()
	s.expect("},\n\"points\":[")
	// The count is as little to be trusted as the rest: no entry has less than 100 bytes.
	n := max(0, min(m.Totals.Points, len(s.rest)/100))
	m.Points = make([]Entry, 0, n)
	bounds := make([]int64, 0, 2*n) // of all entries, which point into it
	days := make(sample.DayCounts, 0, n*m.Month.Len())
	for s.ok && !s.skip("\n]") {
		if len(m.Points) > 0 {
			s.expect(",")
		}
		m.Points = append(m.Points, Entry{})
		s.entry(&m.Points[len(m.Points)-1], &bounds, &days)
	}
	m.Checksum = s.checksum()
	if !s.ok {
		return nil, false
	}
	return m, true
}

// entry reads what appendJSON writes, on a line of its own. Where bounds or days
// has to grow, older entries keep pointing into what it was, which no one changes.
func (s *scanner) entry(e *Entry, bounds *[]int64, days *sample.DayCounts) {
	s.expect("\n{\"id\":")
	e.ID = int32(s.integer(math.MinInt32, math.MaxInt32))
	s.expect(`,"name":`)
	e.Name = s.text()
	s.expect(`,"path":`)
	e.Path = object.Key(s.text())
	s.expect(`,"bytes":`)
	e.Bytes = s.int64()
	s.expect(`,"etag":`)
	e.ETag = s.text()
	s.expect(`,"sha256":`)
	e.SHA256 = s.text()
	s.expect(`,"rows_sha256":`)
	e.RowsSHA256 = s.text()
	s.expect(`,"samples":`)
	e.Samples = s.int64()
	optional := func() *int64 {
		if s.skip("null") {
			return nil
		}
		*bounds = append(*bounds, s.int64())
		return &(*bounds)[len(*bounds)-1]
	}
	s.expect(`,"first":`)
	e.First = optional()
	s.expect(`,"last":`)
	e.Last = optional()
	s.expect(`,"days":[`)
	from := len(*days)
	for s.ok && !s.skip("]") {
		if n := len(*days) - from; n == 31 {
			s.ok = false
		} else if n > 0 {
			s.expect(",")
		}
		if s.skip("null") {
			*days = append(*days, sample.NotArchived)
		} else {
			*days = append(*days, int32(s.integer(0, math.MaxInt32)))
		}
	}
	e.Days = (*days)[from:len(*days):len(*days)]
	s.expect("}")
}

// scanPoints reads what EncodePoints writes.
func scanPoints(data []byte) (*Catalog, bool) {
	s := scanner{string(data), true}
	c := &Catalog{Format: PointsFormat, Version: PointsVersion}
	s.expect("{\n\"format\":\"" + PointsFormat + "\",\n\"version\":" + strconv.Itoa(PointsVersion) + ",\n\"source_id\":")
	c.SourceID = s.text()
	s.expect(",\n\"points\":[")
	c.Points = make([]sample.Point, 0, strings.Count(s.rest, "\n"))
	for s.ok && !s.skip("\n]") {
		if len(c.Points) > 0 {
			s.expect(",")
		}
		c.Points = append(c.Points, sample.Point{})
		s.point(&c.Points[len(c.Points)-1])
	}
	c.Checksum = s.checksum()
	if !s.ok {
		return nil, false
	}
	return c, true
}

// point reads what pointLine writes: the fields of a sample.Point in their order,
// those that are nil left out.
func (s *scanner) point(p *sample.Point) {
	s.expect("\n{\"id\":")
	p.ID = int32(s.integer(math.MinInt32, math.MaxInt32))
	s.expect(`,"name":`)
	p.Name = s.text()
	for _, f := range [...]struct {
		key string
		to  **string
	}{{`,"site":`, &p.Site}, {`,"system":`, &p.System}, {`,"equipment":`, &p.Equipment}, {`,"unit":`, &p.Unit}} {
		if s.skip(f.key) {
			*f.to = new(s.text())
		}
	}
	if s.skip(`,"interval_ms":`) {
		p.IntervalMS = new(s.int64())
	}
	if s.skip(`,"min_value":`) {
		p.MinValue = new(s.float())
	}
	if s.skip(`,"max_value":`) {
		p.MaxValue = new(s.float())
	}
	if s.skip(`,"created_at":`) {
		p.CreatedAt = new(s.int64())
	}
	if s.skip(`,"retired_at":`) {
		p.RetiredAt = new(s.int64())
	}
	s.expect("}")
}

// checksum reads what seal adds, and the end of the text.
func (s *scanner) checksum() string {
	s.expect(closing[:len(closing)-1])
	sum := s.text()
	s.expect("\n}\n")
	s.ok = s.ok && s.rest == ""
	return sum
}

// skip goes past a prefix of the rest, if it is there.
func (s *scanner) skip(prefix string) (there bool) {
	if s.rest, there = strings.CutPrefix(s.rest, prefix); there {
		return true
	}
	return false
}

// expect goes past what must come.
func (s *scanner) expect(prefix string) { s.ok = s.skip(prefix) && s.ok }

// plainByte is true of the bytes of ASCII that stand for themselves in a JSON string.
var plainByte = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// text reads a string.
func (s *scanner) text() string {
	if !s.skip(`"`) {
		s.ok = false
		return ""
	}
	i, ascii := 0, true
	for ; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case plainByte[c]:
		case c == '"':
			t := s.rest[:i]
			s.rest = s.rest[i+1:]
			// In place of what is not UTF-8 encoding/json reads something else.
			s.ok = s.ok && (ascii || utf8.ValidString(t))
			return t
		case c == '\\':
			return s.escaped(i)
		case c >= utf8.RuneSelf:
			ascii = false
		default: // a control character
			s.ok = false
			return ""
		}
	}
	s.ok = false
	return ""
}

// escaped reads the rest of a string whose first backslash is the i-th byte of it:
// a name with a quote in it, which is rare.
func (s *scanner) escaped(i int) (t string) {
	for ; i < len(s.rest); i++ {
		switch s.rest[i] {
		case '\\':
			i++
		case '"':
			s.ok = s.ok && json.Unmarshal([]byte(`"`+s.rest[:i+1]), &t) == nil
			s.rest = s.rest[i+1:]
			return t
		}
	}
	s.ok = false
	return ""
}

func (s *scanner) int64() int64 { return s.integer(math.MinInt64, math.MaxInt64) }

// integer reads a number without fraction and exponent, from least to most.
func (s *scanner) integer(least, most int64) int64 {
	i, negative := 0, false
	if s.rest != "" && s.rest[0] == '-' {
		i, negative = 1, true
	}
	from, n := i, int64(0)
	for ; i < len(s.rest) && s.rest[i] >= '0' && s.rest[i] <= '9'; i++ {
		d := int64(s.rest[i] - '0')
		if n > (math.MaxInt64-d)/10 {
			s.ok = false // math.MinInt64 too: encoding/json reads it
			return 0
		}
		n = n*10 + d
	}
	if negative {
		n = -n
	}
	// JSON has no 007; "-0" is 0.
	s.ok = s.ok && i > from && (s.rest[from] != '0' || i == from+1) && n >= least && n <= most
	s.rest = s.rest[i:]
	return n
}

// float reads any number of JSON.
func (s *scanner) float() float64 {
	i := strings.IndexAny(s.rest, ",}")
	// encoding/json checks the syntax, which is narrower than that of strconv.
	if i < 0 || !json.Valid([]byte(s.rest[:i])) {
		s.ok = false
		return 0
	}
	v, err := strconv.ParseFloat(s.rest[:i], 64)
	s.ok = s.ok && err == nil
	s.rest = s.rest[i:]
	return v
}
