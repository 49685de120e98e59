package files

import (
	"bytes"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"etl/internal/sample"
	"etl/internal/source"
)

// The forms of a cell that is text. Each parser returns why a cell is refused,
// "" if it is not. Spaces around a number or a time do not count.

// maxName bounds the name of a point in bytes; a slug has 150.
const maxName = 1024

// whyInteger refuses an integer that may not be what the source meant once it is a double.
const whyInteger = "value is an integer beyond 2^53, which no REAL holds exactly"

func checkName(name []byte) (why string) {
	switch {
	case len(name) == 0:
		return "point_name is empty"
	case len(name) > maxName:
		return "point_name has more than 1024 bytes"
	case !utf8.Valid(name):
		return "point_name is no UTF-8"
	case bytes.IndexByte(name, 0) >= 0:
		return "point_name holds a NUL"
	}
	return ""
}

// parseTime reads Unix milliseconds, an integer, or an instant of ISO 8601 with
// its zone, like 2024-01-05T12:00:00.5Z or 2024-01-05 12:00:00+01:00.
func parseTime(b []byte) (ms int64, why string) {
	const form = "timestamp is neither milliseconds nor like 2024-01-05T12:00:00Z"
	b = bytes.TrimSpace(b)
	digits := b
	if len(b) > 0 && b[0] == '-' {
		digits = b[1:]
	}
	switch n, ok := digitsOf(digits); {
	case len(b) == 0:
		return 0, "timestamp is empty"
	case ok && len(digits) <= 18:
		if len(digits) < len(b) {
			n = -n
		}
		return n, ""
	case ok:
		return 0, "timestamp is no number of milliseconds that a day holds"
	}
	// 0123-56-89T12:45:78
	if len(b) < 19 || b[4] != '-' || b[7] != '-' || b[10] != 'T' && b[10] != ' ' || b[13] != ':' || b[16] != ':' {
		return 0, form
	}
	var at [6]int64
	for i, part := range [6][]byte{b[0:4], b[5:7], b[8:10], b[11:13], b[14:16], b[17:19]} {
		n, ok := digitsOf(part)
		if !ok {
			return 0, form
		}
		at[i] = n
	}
	t := time.Date(int(at[0]), time.Month(at[1]), int(at[2]), int(at[3]), int(at[4]), int(at[5]), 0, time.UTC)
	if t.Year() != int(at[0]) || t.Month() != time.Month(at[1]) || t.Day() != int(at[2]) || t.Hour() != int(at[3]) || t.Minute() != int(at[4]) || t.Second() != int(at[5]) {
		return 0, "timestamp is no date and time that there is"
	}
	ms = t.UnixMilli()
	b = b[19:]
	if len(b) > 1 && b[0] == '.' {
		k := 1
		for k < len(b) && b[k]-'0' <= 9 {
			if k <= 3 {
				ms += int64(b[k]-'0') * [...]int64{100, 10, 1}[k-1]
			} else if b[k] != '0' {
				return 0, "timestamp is finer than a millisecond"
			}
			k++
		}
		if k == 1 {
			return 0, form
		}
		b = b[k:]
	}
	switch {
	case len(b) == 0:
		return 0, "timestamp has no zone"
	case len(b) == 1 && b[0] == 'Z':
		return ms, ""
	case b[0] != '+' && b[0] != '-':
		return 0, form
	}
	// +01, +0130 or +01:30
	hours, minutes := b[1:], []byte("00")
	if len(hours) > 2 {
		hours, minutes = b[1:3], bytes.TrimPrefix(b[3:], []byte{':'})
	}
	h, ok := digitsOf(hours)
	m, ok2 := digitsOf(minutes)
	if !ok || !ok2 || len(hours) != 2 || len(minutes) != 2 || h > 23 || m > 59 {
		return 0, form
	}
	offset := (h*60 + m) * 60_000
	if b[0] == '-' {
		offset = -offset
	}
	return ms - offset, ""
}

// digitsOf is the number that b writes, if b is digits and nothing else; it
// overflows with more than 18 of them.
func digitsOf(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if c-'0' > 9 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, len(b) > 0
}

// parseValue reads a number as SQLite does: the nearest double. An empty cell
// and NaN are NULL, which is what D1 makes of a NaN. Infinity is inf or
// infinity, with a sign or without, in capitals or not. An integer that not
// every double can tell from its neighbours, beyond 2^53, is refused.
func parseValue(b []byte) (v float64, why string) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return sample.Null, ""
	}
	integer := true
	for i, c := range b {
		switch {
		case c-'0' <= 9, i == 0 && (c == '-' || c == '+'):
		case c == 'x' || c == 'X' || c == '_': // Go would read 0x1p4
			return 0, "value is no number"
		default:
			integer = false
		}
	}
	v, err := strconv.ParseFloat(string(b), 64)
	switch {
	case err != nil && math.IsInf(v, 0):
		return 0, "value is a number that no double holds"
	case err != nil:
		return 0, "value is no number"
	case v != v:
		return sample.Null, ""
	case integer && len(b) > 15 && !exactInteger(b): // fewer digits are always exact
		return 0, whyInteger
	}
	return v, ""
}

func exactInteger(b []byte) bool {
	n, err := strconv.ParseInt(string(b), 10, 64)
	return err == nil && source.Exact(n)
}

// parseSmall reads quality or flags: an integer from 0 to most. An empty cell is
// the default of the column.
func parseSmall(b []byte, byDefault, most int64) (n int64, ok bool) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return byDefault, true
	}
	n, ok = digitsOf(b)
	return n, ok && len(b) <= 6 && n <= most
}
