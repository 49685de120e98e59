// Package sample owns the vocabulary of measured data: points, samples in
// columns (Series for one point, Batch for an extraction), the merge of two
// series, and rejects, the rows that no series can hold.
//
// Values are float64 and NULL is NaN: SQLite, and so D1, stores every NaN as
// NULL, so no source can hold a NaN that is not one.
package sample

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"

	"etl/internal/utc"
)

// Point is a sensor series as the source's points table describes it.
// Pointers are nil where the table holds NULL or lacks the column.
type Point struct {
	ID         int32    `json:"id"`
	Name       string   `json:"name"`
	Site       *string  `json:"site,omitempty"`
	System     *string  `json:"system,omitempty"`
	Equipment  *string  `json:"equipment,omitempty"`
	Unit       *string  `json:"unit,omitempty"`
	IntervalMS *int64   `json:"interval_ms,omitempty"` // expected interval; 0: change of value
	MinValue   *float64 `json:"min_value,omitempty"`
	MaxValue   *float64 `json:"max_value,omitempty"`
	CreatedAt  *int64   `json:"created_at,omitempty"` // Unix milliseconds
	RetiredAt  *int64   `json:"retired_at,omitempty"` // no samples are expected from then on
	// Orphan is set for an id that timeseries holds and points lacks; its name is then point-<id>.
	Orphan bool `json:"-"`
}

// Null is the value that stands for SQL NULL: the quiet NaN 0x7ff8000000000000.
var Null = math.Float64frombits(0x7ff8000000000000)

// Series holds the samples of one point in columns of equal length, ascending
// by timestamp with no timestamp twice.
type Series struct {
	TS      []int64   // Unix milliseconds
	Value   []float64 // NaN is NULL
	Quality []uint8
	Flags   []uint16
}

// RowBytes is the memory that one sample takes in a Series.
const RowBytes = 8 + 8 + 1 + 2

// Len is the number of samples.
func (s *Series) Len() int { return len(s.TS) }

// Reset empties the series and keeps its memory.
func (s *Series) Reset() {
	s.TS, s.Value, s.Quality, s.Flags = s.TS[:0], s.Value[:0], s.Quality[:0], s.Flags[:0]
}

// Grow makes room for n more samples.
func (s *Series) Grow(n int) {
	s.TS, s.Value = slices.Grow(s.TS, n), slices.Grow(s.Value, n)
	s.Quality, s.Flags = slices.Grow(s.Quality, n), slices.Grow(s.Flags, n)
}

// Append adds one sample; the caller keeps the order.
func (s *Series) Append(ts int64, value float64, quality uint8, flags uint16) {
	s.TS, s.Value = append(s.TS, ts), append(s.Value, value)
	s.Quality, s.Flags = append(s.Quality, quality), append(s.Flags, flags)
}

// AppendRange adds the samples o[i:j]; the caller keeps the order.
func (s *Series) AppendRange(o *Series, i, j int) {
	s.TS, s.Value = append(s.TS, o.TS[i:j]...), append(s.Value, o.Value[i:j]...)
	s.Quality, s.Flags = append(s.Quality, o.Quality[i:j]...), append(s.Flags, o.Flags[i:j]...)
}

// Slice is the samples [i, j), sharing memory with s.
func (s *Series) Slice(i, j int) Series {
	return Series{s.TS[i:j:j], s.Value[i:j:j], s.Quality[i:j:j], s.Flags[i:j:j]}
}

// EqualAt reports whether sample i of s and sample j of o are the same, bit for
// bit, any two NULLs being equal.
func (s *Series) EqualAt(i int, o *Series, j int) bool {
	return s.TS[i] == o.TS[j] && sameValue(s.Value[i], o.Value[j]) && s.Quality[i] == o.Quality[j] && s.Flags[i] == o.Flags[j]
}

func sameValue(a, b float64) bool {
	return math.Float64bits(a) == math.Float64bits(b) || (a != a && b != b)
}

// Equal reports whether both hold the same samples, bit for bit.
func (s *Series) Equal(o *Series) bool {
	if s.Len() != o.Len() {
		return false
	}
	for i := range s.TS {
		if !s.EqualAt(i, o, i) {
			return false
		}
	}
	return true
}

// RowsSHA256 is the hex SHA-256 of the canonical rows: for each sample in order
// 19 bytes, little-endian: timestamp int64, value IEEE 754 binary64 (NULL as
// 0x7ff8000000000000), quality uint8, flags uint16. docs/format.md describes it
// for other readers.
func (s *Series) RowsSHA256() string {
	const row = 8 + 8 + 1 + 2
	h := sha256.New()
	buf := make([]byte, 0, 512*row)
	for i, ts := range s.TS {
		v := s.Value[i]
		if v != v {
			v = Null
		}
		buf = binary.LittleEndian.AppendUint64(buf, uint64(ts))
		buf = binary.LittleEndian.AppendUint64(buf, math.Float64bits(v))
		buf = append(buf, s.Quality[i])
		buf = binary.LittleEndian.AppendUint16(buf, s.Flags[i])
		if len(buf) == cap(buf) {
			h.Write(buf)
			buf = buf[:0]
		}
	}
	h.Write(buf)
	return hex.EncodeToString(h.Sum(nil))
}

// DayCounts says, for each day of a month, how many samples of a point are
// archived: a number, 0 for a day archived empty, or NotArchived. Its length is
// the number of days of the month.
type DayCounts []int32

// NotArchived marks a day that was never archived; JSON shows it as null.
const NotArchived = -1

// NewDayCounts is a month of days that were never archived.
func NewDayCounts(m utc.Month) DayCounts {
	d := make(DayCounts, m.Len())
	for i := range d {
		d[i] = NotArchived
	}
	return d
}

// Archived is the set of the days that have a number.
func (d DayCounts) Archived() utc.Set {
	var s utc.Set
	for i, n := range d {
		if n != NotArchived {
			s = s.With(i)
		}
	}
	return s
}

// Samples is the number of samples over all days.
func (d DayCounts) Samples() int64 {
	var n int64
	for _, c := range d {
		n += int64(max(c, 0))
	}
	return n
}

// MarshalJSON writes an array of numbers and nulls.
func (d DayCounts) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 5*len(d)+2), '[')
	for i, n := range d {
		if i > 0 {
			b = append(b, ',')
		}
		if n == NotArchived {
			b = append(b, "null"...)
		} else {
			b = appendInt(b, int64(n))
		}
	}
	return append(b, ']'), nil
}
