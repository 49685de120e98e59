package d1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"etl/internal/cloudflare"
	"etl/internal/fault"
	"etl/internal/sample"
)

func random(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func envelope(results string) string {
	return `{"result":[{"results":` + results + `,"success":true,"meta":{"changes":3,"last_row_id":4,"rows_read":5,"rows_written":6,"duration":0.25}}],"errors":[],"messages":[],"success":true}`
}

func TestAnswers(t *testing.T) {
	one := answer{columns: []string{"a", "b"}, changes: 3, lastRowID: 4, rowsRead: 5, rowsWritten: 6, duration: 0.25}
	with := func(rows ...[]any) answer { a := one; a.rows = rows; return a }
	for _, c := range []struct {
		name, body string
		want       answer
		kind       fault.Kind // of the error, where text is set
		text       string
	}{
		{name: "values", body: envelope(`{"columns":["a","b"],"rows":[[1,null],[-9223372036854775808,1.5],["x\"\u00e9\ud83c\udf21",[0,255]],[1e3,9223372036854775808]]}`),
			want: with([]any{int64(1), nil}, []any{int64(math.MinInt64), 1.5}, []any{"x\"é🌡", []byte{0, 255}}, []any{1e3, 9223372036854775808.0})},
		{name: "order and space", body: ` { "x" : {"y":[1,{"z":"]"}]} , "success" : true ,"result":[ {"meta":{"duration":0.25,"served_by":"q","rows_written":6,"rows_read":5,"x":[],"last_row_id":4,"changes":3},"results":{"rows":[ [ 1 , 2 ] ],"columns":[ "a","b" ]}}] } ` + "\n",
			want: with([]any{int64(1), int64(2)})},
		{name: "no rows", body: envelope(`{"columns":["a","b"],"rows":[]}`), want: with()},
		{name: "null", body: envelope(`null`), want: answer{changes: 3, lastRowID: 4, rowsRead: 5, rowsWritten: 6, duration: 0.25}},
		{name: "empty array", body: envelope(`[]`), want: answer{changes: 3, lastRowID: 4, rowsRead: 5, rowsWritten: 6, duration: 0.25}},

		{name: "no success", body: `{"result":[],"errors":[{"code":7500,"message":"near \"x\": syntax error"}],"success":false}`, kind: fault.Invalid, text: `near "x": syntax error`},
		{name: "overloaded", body: `{"errors":[{"code":7429,"message":"D1 DB is overloaded"}],"success":false,"result":null}`, kind: fault.Transient, text: "overloaded"},
		{name: "a result without success", body: `{"result":[{"success":false}],"success":true}`, kind: fault.Transient, text: "failed"},
		{name: "no word of success", body: `{"result":[{}]}`, kind: fault.Invalid, text: "success"},
		{name: "two results", body: `{"result":[{},{}],"success":true}`, kind: fault.Invalid, text: "2 results, want 1"},
		{name: "no result", body: `{"success":true}`, kind: fault.Invalid, text: "0 results"},
		{name: "ragged", body: envelope(`{"columns":["a","b"],"rows":[[1]]}`), kind: fault.Invalid, text: "1 cells and 2 columns"},
		{name: "too large a number", body: envelope(`{"columns":["a"],"rows":[[1e999]]}`), kind: fault.Invalid, text: "too large"},
		{name: "a row that is none", body: envelope(`{"columns":["a"],"rows":[{"a":1}]}`), kind: fault.Invalid, text: "an array"},
		{name: "a cell that is none", body: envelope(`{"columns":["a"],"rows":[[true]]}`), kind: fault.Invalid, text: "a column"},
		{name: "no blob", body: envelope(`{"columns":["a"],"rows":[[[256]]]}`), kind: fault.Invalid, text: "256 for a byte"},
		{name: "deep", body: `{"x":` + strings.Repeat("[", 1000), kind: fault.Invalid, text: "nested"},
		{name: "more", body: envelope(`null`) + "x", kind: fault.Transient, text: "no JSON"},
		{name: "twice", body: envelope(`null`) + envelope(`null`), kind: fault.Transient, text: "no JSON"},
		{name: "HTML", body: "<html>", kind: fault.Transient, text: "no JSON"},
		{name: "nothing", body: "", kind: fault.Transient, text: "ends after 0 bytes"},
		{name: "a comma too many", body: `{"success":true,}`, kind: fault.Transient, text: "no JSON"},
		{name: "a comma too few", body: `{"success":true "x":1}`, kind: fault.Transient, text: "no JSON"},
		{name: "no colon", body: `{"success" true}`, kind: fault.Transient, text: "no JSON"},
		{name: "a leading zero", body: envelope(`{"columns":["a"],"rows":[[01]]}`), kind: fault.Transient, text: "no JSON"},
		{name: "a bare word", body: `{"success":trux}`, kind: fault.Transient, text: "no JSON"},
		{name: "a bad escape", body: `{"\x":1}`, kind: fault.Transient, text: "no JSON"},
		{name: "a control character", body: "{\"\n\":1}", kind: fault.Transient, text: "no JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(c.body), iotest.OneByteReader(strings.NewReader(c.body)), iotest.DataErrReader(strings.NewReader(c.body))} {
				got, err := readAnswers(r, 1)
				if c.text != "" {
					if fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) {
						t.Errorf("%s: %v, want %s and %q", fault.KindOf(err), err, c.kind, c.text)
					}
				} else if err != nil || len(got) != 1 || fmt.Sprintf("%#v", got[0]) != fmt.Sprintf("%#v", c.want) {
					t.Errorf("got %#v, %v; want %#v", got, err, c.want)
				}
			}
		})
	}
}

func TestAnswersOfABatch(t *testing.T) {
	body := `{"result":[{"results":{"columns":["a"],"rows":[[1]]}},{"results":{"columns":[],"rows":[]},"meta":{"changes":2}}],"success":true}`
	got, err := readAnswers(strings.NewReader(body), 2)
	if err != nil || len(got) != 2 || len(got[0].rows) != 1 || got[1].changes != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestCut: wherever an answer ends or its reader fails, the error is Transient
// and nothing else comes out.
func TestCut(t *testing.T) {
	body := envelope(`{"columns":["p","ts","val","qual","flag"],"rows":[[1,5,1.5,192,0],[1,6,"rInf",1,"rt6162"],[2,5,null,0,65535]]}`)
	p := &page{from: 0, to: 10}
	start := cursor{ids: []int32{1, 2}}
	broken := errors.New("reset by peer")
	for n := range len(body) {
		for what, r := range map[string]io.Reader{
			"cut":    strings.NewReader(body[:n]),
			"broken": io.MultiReader(strings.NewReader(body[:n]), iotest.ErrReader(broken)),
		} {
			_, err := p.scan(r, start, 10)
			if !fault.Is(err, fault.Transient) || what == "broken" && !errors.Is(err, broken) {
				t.Fatalf("%s at %d: %v", what, n, err)
			}
		}
	}
	if _, err := p.scan(strings.NewReader(body), start, 10); err != nil || p.Len() != 2 || len(p.Rejects) != 1 {
		t.Fatalf("whole: %d rows, %v", p.rows(), err)
	}
	if _, err := p.scan(io.MultiReader(strings.NewReader(body), iotest.ErrReader(broken)), start, 10); !errors.Is(err, broken) {
		t.Errorf("broken after the end: %v", err)
	}
}

// rowText is a row as D1 sends it.
type rowText struct {
	id, ts                int64
	value, quality, flags string
	time                  string // the timestamp where it is no integer
}

func (r rowText) cells() []string {
	if r.time == "" {
		r.time = strconv.FormatInt(r.ts, 10)
	}
	return []string{strconv.FormatInt(r.id, 10), r.time, r.value, r.quality, r.flags}
}

func TestScanPage(t *testing.T) {
	row := func(id, ts int64) rowText { return rowText{id, ts, "1.5", "192", "0", ""} }
	odd := func(r rowText, f func(*rowText)) rowText { f(&r); return r }
	start := cursor{ids: []int32{-4, 1, 2, 5}}
	behind := cursor{ids: []int32{1, 2}, inside: true, after: 4.5}
	for _, c := range []struct {
		name  string
		start cursor
		rows  []rowText
		text  string // of the error, "" for none
	}{
		{"in order", start, []rowText{row(-4, 0), row(-4, 1), row(1, 9), row(5, 0)}, ""},
		{"none", start, nil, ""},
		{"behind a REAL", behind, []rowText{row(1, 5), row(2, 0)}, ""},
		{"REALs", start, []rowText{row(1, 3), odd(row(1, 0), func(r *rowText) { r.time = `"rr3.5"` }), row(1, 4)}, ""},
		{"twice", start, []rowText{row(1, 3), row(1, 3)}, "out of order: 3.000000 does not come after 3.000000"},
		{"backwards", start, []rowText{row(1, 3), row(1, 2), row(1, 4)}, "out of order"},
		{"a point before", start, []rowText{row(2, 3), row(1, 4), row(5, 1)}, "point 1 at 4.000000, which was not asked for"},
		{"an unknown point", start, []rowText{row(3, 3), row(5, 1)}, "point 3"},
		{"too early", start, []rowText{row(1, -1), row(1, 1)}, "not asked for"},
		{"too late", start, []rowText{row(1, 1), row(1, 10), row(1, 2)}, "not asked for"},
		{"again", behind, []rowText{row(1, 4), row(2, 1)}, "out of order: 4.000000 does not come after 4.5"},
		{"REALs backwards", start, []rowText{row(1, 4), odd(row(1, 0), func(r *rowText) { r.time = `"rr3.5"` })}, "out of order"},
		{"a text", start, []rowText{odd(row(1, 0), func(r *rowText) { r.time = `"rt61"` })}, "not asked for"},
		{"infinity", start, []rowText{odd(row(1, 0), func(r *rowText) { r.time = `"rrInf"` })}, "not asked for"},
		{"too many", start, []rowText{row(1, 1), row(1, 2), row(1, 3), row(1, 4), row(1, 5), row(1, 6)}, "more rows than the 5"},
		{"a bare string", start, []rowText{odd(row(1, 1), func(r *rowText) { r.value = `"abc"` })}, "no literal"},
		{"no class", start, []rowText{odd(row(1, 1), func(r *rowText) { r.flags = `""` })}, "no literal"},
		{"a wide point", start, []rowText{row(1<<32+1, 1)}, "not asked for"},
	} {
		for _, space := range []string{"", " "} { // without space by the fast way where there is one
			t.Run(c.name+space, func(t *testing.T) {
				var b strings.Builder
				for i, r := range c.rows {
					if i > 0 {
						b.WriteString("," + space)
					}
					b.WriteString("[" + space + strings.Join(r.cells(), space+","+space) + "]")
				}
				p := &page{from: 0, to: 10}
				_, err := p.scan(strings.NewReader(envelope(`{"columns":["p","ts","val","qual","flag"],"rows":[`+b.String()+`]}`)), c.start, 5)
				if c.text == "" && (err != nil || p.rows() != len(c.rows)) {
					t.Errorf("%d rows, %v", p.rows(), err)
				} else if c.text != "" && (err == nil || !strings.Contains(err.Error(), c.text)) {
					t.Errorf("%v, want %q", err, c.text)
				}
			})
		}
	}
	for columns, text := range map[string]string{`["p","ts","val","qual","flag","more"]`: `"more"`, `["ts","p","val","qual","flag"]`: `["ts" "p"`, `[]`: `columns []`} {
		p := &page{from: 0, to: 10}
		_, err := p.scan(strings.NewReader(envelope(`{"rows":[[1,1,1,1,1]],"columns":`+columns+`}`)), start, 5)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("columns %s: %v", columns, err)
		}
	}
	for _, row := range []string{"[1,1,1,1]", "[1,1,1,1,1,1]", "[]", `["i1",1,1,1,1]`, "[1.5,1,1,1,1]", "[null,1,1,1,1]"} {
		p := &page{from: 0, to: 10}
		_, err := p.scan(strings.NewReader(envelope(`{"columns":["p","ts","val","qual","flag"],"rows":[`+row+`]}`)), start, 5)
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("the row %s: %v", row, err)
		}
	}
}

// TestScanModel scans random rows, in pieces of random size, by either way, and
// compares what comes out with what went in, bit for bit.
func TestScanModel(t *testing.T) {
	r := random(t)
	ids := []int32{math.MinInt32, -1, 0, 1, 9, 10, 1234, math.MaxInt32}
	for round := range 400 {
		var want sample.Batch
		var b strings.Builder
		rows := r.IntN(200)
		k, ts := 0, int64(-3)
		spaced := r.IntN(4) == 0
		for range rows {
			if r.IntN(20) == 0 && k+1 < len(ids) {
				k, ts = k+1, -3
			}
			ts += 1 + r.Int64N(1<<r.IntN(40))
			v := randomFloat(r)
			text := strconv.FormatFloat(v, "gef"[r.IntN(3)], -1, 64)
			if len(text) > 40 {
				text = strconv.FormatFloat(v, 'g', -1, 64)
			}
			switch {
			case r.IntN(10) == 0:
				v, text = sample.Null, "null"
			case math.IsInf(v, 0):
				text = fmt.Sprintf(`"r%g"`, v)
			}
			q, f := uint8(r.Uint32()), uint16(r.Uint32())
			want.PointID = append(want.PointID, ids[k])
			want.Append(ts, v, q, f)
			if b.Len() > 0 {
				b.WriteByte(',')
			}
			format := "[%d,%d,%s,%d,%d]"
			if spaced && r.IntN(3) == 0 {
				format = " [%d , %d,\n%s\t, %d,%d]"
			}
			fmt.Fprintf(&b, format, ids[k], ts, text, q, f)
		}
		body := envelope(`{"columns":["p","ts","val","qual","flag"],"rows":[` + b.String() + `]}`)
		p := &page{from: -3, to: exact, window: make([]byte, 1+r.IntN(3000))}
		var rd io.Reader = strings.NewReader(body)
		if r.IntN(2) == 0 {
			rd = pieces{rd, r}
		}
		limit := rows + r.IntN(2)
		if _, err := p.scan(rd, cursor{ids: ids}, limit); err != nil {
			t.Fatalf("round %d: %v in\n%s", round, err, body)
		}
		if !slices.Equal(p.PointID, want.PointID) || !p.Series.Equal(&want.Series) || len(p.Rejects) > 0 {
			t.Fatalf("round %d: rows differ in\n%s", round, body)
		}
		if more := len(p.next.ids) > 0; more != (rows == limit) {
			t.Fatalf("round %d: %d rows of %d, more to come: %v", round, rows, limit, more)
		} else if more && rows > 0 && (p.next.ids[0] != ids[k] || p.next.after != float64(ts)) {
			t.Fatalf("round %d: the next page starts at %+v", round, p.next)
		}
	}
}

// pieces reads a few bytes at a time.
type pieces struct {
	io.Reader
	r *rand.Rand
}

func (p pieces) Read(b []byte) (int, error) { return p.Reader.Read(b[:min(len(b), p.r.IntN(700))]) }

// randomFloat is a float64 of any size, or one as sensors send them.
func randomFloat(r *rand.Rand) float64 {
	for {
		v := math.Float64frombits(r.Uint64())
		switch r.IntN(6) {
		case 0:
			v = math.Round(r.NormFloat64()*1e6) / math.Pow10(r.IntN(7))
		case 1:
			v = r.NormFloat64() * math.Pow10(r.IntN(30)-15)
		case 2:
			v = float64(r.Int64N(1<<54) >> r.IntN(54))
		case 3:
			v = []float64{0, 5e-324, -5e-324, math.MaxFloat64, math.Inf(1), math.Inf(-1), 1 << 53, 1e22, 1e23}[r.IntN(9)]
		}
		if v == v && !(v == 0 && math.Signbit(v)) {
			return v
		}
	}
}

func TestLiterals(t *testing.T) {
	for text, want := range map[string]any{
		"n": nil, "i5": int64(5), "i-9223372036854775808": int64(math.MinInt64), "r5": 5.0, "rInf": math.Inf(1), "r-Inf": math.Inf(-1),
		"r4.94065645841246544177e-324": 5e-324, "t": "", "t00FF": "\x00\xff", "b": []byte{}, "b00FF": []byte{0, 255},
	} {
		got, err := literal(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %#v, %v; want %#v", text, got, err, want)
		}
	}
	for raw, want := range map[string]any{"tab": "ab", "t": "", "b\x00": []byte{0}} {
		got, err := literal([]byte(raw))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("the bytes %q are %#v, %v; want %#v", raw, got, err, want)
		}
	}
	for _, bad := range []any{"", "x", "n1", "i", "i1.5", "i9223372036854775808", "r", "rx", "r1e999", "t0", "tzz", "b0", nil, int64(5), 5.0, []byte(""), []byte("i5")} {
		if got, err := literal(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%#v is %#v, %v", bad, got, err)
		}
	}
}

// TestTimeLiteral: a REAL is written as an expression that is exactly it.
func TestTimeLiteral(t *testing.T) {
	r := random(t)
	for range 20_000 {
		v := randomFloat(r)
		if r.IntN(2) == 0 {
			v = 1.7e12 + r.Float64()*1e11
		}
		if math.Abs(v) > exact {
			continue
		}
		text, got := timeLiteral(v), 0.0
		for i, f := range strings.Split(text, "/") {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(f, "CAST("), " AS REAL)"), 10, 64)
			if err != nil || n > exact || n < -exact {
				t.Fatalf("%v is %s: %v", v, text, err)
			}
			if i == 0 {
				got = float64(n)
			} else {
				got /= float64(n)
			}
		}
		if got != v {
			t.Fatalf("%v is %s, which is %v", v, text, got)
		}
	}
}

// FuzzScan: no answer makes the scanner panic; what it accepts is JSON; and what
// encoding/json makes of it is the same.
func FuzzScan(f *testing.F) {
	f.Add([]byte(envelope(`{"columns":["p","ts","val","qual","flag"],"rows":[[1,5,1.5,192,0],[1,6,"rInf",1,"rt6162"],[1,7,12345.678901234567,1,1],[2,5,null,0,65535]]}`)))
	f.Add([]byte(`{"result":[{"results":{"rows":[["\u00e9\ud83c\udf21",-0,1E5,[1,2]]],"columns":["a","b","c","d"]},"success":false}],"success":true,"errors":[{"code":7500}]}`))
	f.Add([]byte(`{"result":null,"success":false,"errors":[{"code":1e3,"message":null}],"x":[{"y":[]}]} `))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &page{from: 0, to: 100, window: make([]byte, 140)}
		_, perr := p.scan(bytes.NewReader(b), cursor{ids: []int32{1, 2, 3}}, 5)
		got, err := readAnswers(bytes.NewReader(b), 1)
		if err != nil {
			if perr == nil {
				t.Fatalf("only as a page is it accepted: %v", err)
			}
			if want, ok := reference(b); ok {
				t.Fatalf("%v, but it is %+v", err, want)
			}
			return
		}
		if !json.Valid(b) {
			t.Fatal("accepted, and no JSON")
		}
		want, ok := reference(b)
		if !ok {
			return
		}
		if fmt.Sprintf("%#v", got[0].rows) != fmt.Sprintf("%#v", want.rows) || !slices.Equal(got[0].columns, want.columns) {
			t.Fatalf("got %+v, want %+v", got[0], want)
		}
		if perr == nil && p.rows() != len(want.rows) {
			t.Fatalf("%d rows of a page, want %d", p.rows(), len(want.rows))
		}
		for i, j := 0, 0; perr == nil && i < len(want.rows); i++ {
			c := want.rows[i]
			ts, ok := c[1].(int64)
			if !ok || j >= p.Len() || p.TS[j] != ts || int64(p.PointID[j]) != c[0] {
				continue // a reject
			}
			v := p.Value[j]
			switch x := c[2].(type) {
			case nil:
				ok = v != v
			case int64:
				ok = v == float64(x)
			case float64:
				ok = math.Float64bits(v) == math.Float64bits(x)
			}
			if !ok || int64(p.Quality[j]) != c[3] || int64(p.Flags[j]) != c[4] {
				t.Fatalf("row %d is %v %d %d, want %v", i, v, p.Quality[j], p.Flags[j], c)
			}
			j++
		}
	})
}

// reference is the answer in b by encoding/json, if it is one that must be accepted.
func reference(b []byte) (a answer, ok bool) {
	if !json.Valid(b) || !utf8.Valid(b) || bytes.Contains(b, []byte("[[[[[[[[")) || bytes.ContainsRune(b, utf8.RuneError) || keyTwice(b) {
		return a, false // deep, or judged differently on purpose
	}
	var top struct {
		Result  []map[string]json.RawMessage
		Success *bool
		Errors  []cloudflare.Message
	}
	var keys map[string]json.RawMessage
	if json.Unmarshal(b, &keys) != nil {
		return a, false
	}
	for k := range keys { // encoding/json ignores case
		if l := strings.ToLower(k); l != k && (l == "result" || l == "success" || l == "errors") {
			return a, false
		}
	}
	if json.Unmarshal(b, &top) != nil || top.Success == nil || !*top.Success || len(top.Errors) > 0 || len(top.Result) != 1 {
		return a, false
	}
	if string(keys["errors"]) == "null" || top.Result[0] == nil {
		return a, false
	}
	for k, v := range top.Result[0] {
		switch k {
		case "success":
			if string(v) != "true" {
				return a, false
			}
		case "meta":
			if d := json.NewDecoder(bytes.NewReader(v)); d.Decode(new(map[string]any)) != nil { // has a number that is too large
				return a, false
			}
		}
	}
	var results map[string]json.RawMessage
	if json.Unmarshal(top.Result[0]["results"], &results) != nil || results == nil || results["columns"] == nil || results["rows"] == nil {
		return a, false
	}
	var columns []*string
	var rows [][]any
	d := json.NewDecoder(bytes.NewReader(results["rows"]))
	d.UseNumber()
	if json.Unmarshal(results["columns"], &columns) != nil || d.Decode(&rows) != nil {
		return a, false
	}
	for _, c := range columns {
		if c == nil {
			return a, false
		}
		a.columns = append(a.columns, *c)
	}
	number := func(n json.Number) (any, bool) {
		if i, err := strconv.ParseInt(string(n), 10, 64); err == nil && n != "-0" {
			return i, true
		}
		f, err := n.Float64()
		return f, err == nil
	}
	for _, row := range rows {
		if row == nil || len(row) != len(a.columns) {
			return a, false
		}
		cells := make([]any, len(row))
		for i, c := range row {
			switch c := c.(type) {
			case json.Number:
				if cells[i], ok = number(c); !ok {
					return a, false
				}
			case []any:
				blob := []byte{}
				for _, e := range c {
					n, ok := e.(json.Number)
					if !ok {
						return a, false
					}
					v, _ := number(n)
					i, ok := v.(int64)
					if !ok || i < 0 || i > 255 {
						return a, false
					}
					blob = append(blob, byte(i))
				}
				cells[i] = blob
			case nil, string:
				cells[i] = c
			default:
				return a, false
			}
		}
		a.rows = append(a.rows, cells)
	}
	return a, true
}

// keyTwice reports whether an object in b, which is JSON, has a key twice.
func keyTwice(b []byte) bool {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var walk func() bool
	walk = func() bool {
		t, err := d.Token()
		if err != nil {
			return false
		}
		seen := map[json.Token]bool{}
		twice := false
		switch t {
		case json.Delim('{'):
			for d.More() {
				k, err := d.Token()
				if err != nil {
					return twice
				}
				twice = seen[k] || twice
				seen[k] = true
				twice = walk() || twice
			}
			_, _ = d.Token()
		case json.Delim('['):
			for d.More() {
				twice = walk() || twice
			}
			_, _ = d.Token()
		}
		return twice
	}
	return walk()
}
