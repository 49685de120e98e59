package sample

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"etl/internal/utc"
)

// Cell is one value as the source stores it, of any SQLite storage class:
// nil (NULL), int64, float64, string (TEXT) or []byte (BLOB).
type Cell struct{ V any }

// MarshalJSON writes NULL, integers, finite reals and UTF-8 text as themselves
// and what JSON can not hold as {"real":"Infinity"}, {"text_hex":"…"} or
// {"blob_hex":"…"}. A real always has a point or an exponent, so that 5.0 is
// told from 5.
func (c Cell) MarshalJSON() ([]byte, error) {
	switch v := c.V.(type) {
	case nil:
		return []byte("null"), nil
	case int64:
		return strconv.AppendInt(nil, v, 10), nil
	case float64:
		switch {
		case math.IsInf(v, 1):
			return []byte(`{"real":"Infinity"}`), nil
		case math.IsInf(v, -1):
			return []byte(`{"real":"-Infinity"}`), nil
		case v != v:
			return []byte(`{"real":"NaN"}`), nil
		}
		b := strconv.AppendFloat(nil, v, 'g', -1, 64)
		if !bytes.ContainsAny(b, ".e") {
			b = append(b, ".0"...)
		}
		return b, nil
	case string:
		if !utf8.ValidString(v) {
			return json.Marshal(map[string]string{"text_hex": hex.EncodeToString([]byte(v))})
		}
		return json.Marshal(v)
	case []byte:
		return json.Marshal(map[string]string{"blob_hex": hex.EncodeToString(v)})
	}
	return nil, fmt.Errorf("no JSON form for a cell of type %T", c.V)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *Cell) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return err
	}
	switch v := v.(type) {
	case nil:
		c.V = nil
		return nil
	case string:
		c.V = v
		return nil
	case json.Number:
		if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			c.V = i
			return nil
		}
		f, err := v.Float64()
		c.V = f
		return err
	case map[string]any:
		if s, ok := v["real"].(string); ok {
			f, err := strconv.ParseFloat(s, 64)
			c.V = f
			return err
		}
		if s, ok := v["text_hex"].(string); ok {
			raw, err := hex.DecodeString(s)
			c.V = string(raw)
			return err
		}
		if s, ok := v["blob_hex"].(string); ok {
			raw, err := hex.DecodeString(s)
			c.V = raw
			return err
		}
	}
	return fmt.Errorf("%.40q is not a cell", b)
}

// Reject is a row of timeseries that the archive can not hold, verbatim, and
// why. Its JSON is one line of a file under _rejects/.
type Reject struct {
	PointID   Cell   `json:"point_id"`
	Timestamp Cell   `json:"timestamp"`
	Value     Cell   `json:"value"`
	Quality   Cell   `json:"quality"`
	Flags     Cell   `json:"flags"`
	Reason    string `json:"reason"`
}

// Day is the day that the row's timestamp lies in; false if it is no number or
// lies in no day from 1970 to 9999.
func (r Reject) Day() (utc.Day, bool) {
	const end = 253402300800000 // 10000-01-01 in Unix milliseconds
	var ms int64
	switch ts := r.Timestamp.V.(type) {
	case int64:
		ms = ts
	case float64:
		if !(ts >= 0 && ts < end) {
			return 0, false
		}
		ms = int64(ts)
	default:
		return 0, false
	}
	if ms < 0 || ms >= end {
		return 0, false
	}
	return utc.DayOf(ms), true
}
