package files

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// records reads all records as "LINE: FIELD|FIELD" or "LINE! WHY".
func records(t testing.TB, in io.Reader) (got []string) {
	t.Helper()
	r := newCSVReader(in)
	for {
		fields, raw, why, err := r.record()
		switch {
		case errors.Is(err, io.EOF):
			return got
		case err != nil:
			t.Fatal(err)
		case why != "":
			if len(raw) > maxRecord {
				t.Fatalf("line %d: %d bytes of it are kept", r.line, len(raw))
			}
			got = append(got, fmt.Sprintf("%d! %s", r.line, why))
		default:
			got = append(got, fmt.Sprintf("%d: %s", r.line, bytes.Join(fields, []byte{'|'})))
		}
	}
}

func TestCSV(t *testing.T) {
	const unclosed, inside, behind = "a quote that is not closed", "a quote inside of a field that does not begin with one", "text behind a closing quote"
	long := strings.Repeat("x", maxRecord)
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"plain":             {"a,b\nc,d\n", []string{"1: a|b", "2: c|d"}},
		"no final newline":  {"a,b\nc,d", []string{"1: a|b", "2: c|d"}},
		"CRLF":              {"a,b\r\nc,d\r\n", []string{"1: a|b", "2: c|d"}},
		"CR at the end":     {"a,b\r", []string{"1: a|b"}},
		"byte order mark":   {"\ufeffa,b\nc\n", []string{"1: a|b", "2: c"}},
		"only a mark":       {"\ufeff", nil},
		"a mark later":      {"a\n\ufeffb\n", []string{"1: a", "2: \ufeffb"}},
		"nothing":           {"", nil},
		"empty lines":       {"\n\na\n\r\n\nb\n\n", []string{"3: a", "6: b"}},
		"empty fields":      {",\n,,\n", []string{"1: |", "2: ||"}},
		"quotes":            {`"a","b"` + "\n" + `"","c,d"` + "\n", []string{"1: a|b", "2: |c,d"}},
		"doubled":           {`"a""b","""","c"` + "\n" + `""""""` + "\n", []string{`1: a"b|"|c`, `2: ""`}},
		"a line end inside": {"\"a\nb\",c\nd\n", []string{"1: a\nb|c", "3: d"}},
		"CRLF inside":       {"\"a\r\nb\",c\r\nd\r\n", []string{"1: a\r\nb|c", "3: d"}},
		"quotes and CRLF":   {"\"a\",\"b\"\r\n\"c\",d\r\n", []string{"1: a|b", "2: c|d"}},
		"quote at the end":  {`a,"b"`, []string{"1: a|b"}},
		"never closed":      {"a,\"b\nc,d\ne,f\n", []string{"1! " + unclosed, "2: c|d", "3: e|f"}},
		"closed too late":   {"a,\"b\nc,\"d\ne,f\n", []string{"1! " + behind, "2! " + unclosed, "3: e|f"}},
		"behind a quote":    {"\"a\"b,c\nd\n", []string{"1! " + behind, "2: d"}},
		"inside":            {"a\"b,c\nd\n", []string{"1! " + inside, "2: d"}},
		"a quote alone":     {"\"", []string{"1! " + unclosed}},
		"NUL, no UTF-8":     {"a\x00b,\xff\n", []string{"1: a\x00b|\xff"}},
		"just not long":     {long + "\nb\n", []string{"1: " + long, "2: b"}},
		"long":              {"a\n" + long + "x\nb\n", []string{"1: a", "2! a line of more than 64 KiB", "3: b"}},
		"2 MB":              {"a\n" + strings.Repeat("12345,", 350_000) + "\nb\n", []string{"1: a", "2! a line of more than 64 KiB", "3: b"}},
		"long at the end":   {"a\n" + long + "xyz", []string{"1: a", "2! a line of more than 64 KiB"}},
		"long, quoted":      {"\"" + strings.Repeat("x\n", 40_000) + "\"\n", append([]string{"1! " + unclosed}, xs(40_000)...)},
	} {
		t.Run(name, func(t *testing.T) {
			for kind, in := range map[string]io.Reader{"whole": strings.NewReader(c.in), "halves": iotest.HalfReader(strings.NewReader(c.in)), "data with error": iotest.DataErrReader(strings.NewReader(c.in))} {
				if got := records(t, in); !slices.Equal(got, c.want) {
					t.Errorf("%s: %.300q\nwant %.300q", kind, got, c.want)
				}
			}
			if len(c.in) < 100 {
				if got := records(t, iotest.OneByteReader(strings.NewReader(c.in))); !slices.Equal(got, c.want) {
					t.Errorf("byte by byte: %q\nwant %q", got, c.want)
				}
			}
		})
	}
}

// xs are lines of an x from line 2, and the quote behind them.
func xs(n int) (want []string) {
	for i := range n - 1 {
		want = append(want, fmt.Sprintf("%d: x", i+2))
	}
	return append(want, fmt.Sprintf("%d! a quote that is not closed", n+1))
}

// naive reads CSV with the standard library, false if it finds a fault.
func naive(in string) (want []string, ok bool) {
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(in, mark)))
	r.FieldsPerRecord = -1
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return want, true
		}
		if err != nil {
			return nil, false
		}
		line, _ := r.FieldPos(0)
		want = append(want, fmt.Sprintf("%d: %s", line, strings.Join(fields, "|")))
	}
}

// FuzzCSV compares with the standard library where that finds no fault, and
// checks for every input that no line is lost: good or bad, each line that is
// not empty belongs to a record.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{"a,b\r\n\"c\"\"d\",e\n\n\"f\ng\",h", "\ufeffa\n", "\"", "a\"b\n\"c\nd\"e\n", "\"a\"\r\n\r\n\"b\rc\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got := records(t, strings.NewReader(in))
		// The standard library turns CRLF inside of quotes into LF, and takes a
		// line that is only a CR at the end of the input for a field.
		if want, ok := naive(in); ok && !strings.Contains(in, "\r") && !slices.Equal(got, want) {
			t.Fatalf("%q\ngot  %q\nwant %q", in, got, want)
		}
		if parts := records(t, iotest.HalfReader(strings.NewReader(in))); !slices.Equal(parts, got) {
			t.Fatalf("%q\nin parts %q\nat once  %q", in, parts, got)
		}
	})
}

// TestCSVAtBufferEnds has records of every length come to lie over the end of
// the reader's buffer.
func TestCSVAtBufferEnds(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var b strings.Builder
	for b.Len() < 5<<20 {
		for f := range 1 + r.IntN(3) {
			if f > 0 {
				b.WriteByte(',')
			}
			text := strings.Repeat("ab,\n\"c"[r.IntN(3):], r.IntN(1+r.IntN(2000)))
			if r.IntN(2) == 0 {
				b.WriteString(`"` + strings.ReplaceAll(text, `"`, `""`) + `"`)
			} else {
				b.WriteString("x" + strings.NewReplacer(",", "", "\n", "", `"`, "").Replace(text))
			}
		}
		b.WriteByte('\n')
	}
	want, ok := naive(b.String())
	if !ok {
		t.Fatal("the text is not well formed")
	}
	if got := records(t, strings.NewReader(b.String())); !slices.Equal(got, want) {
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				t.Fatalf("record %d of %d: %.200q, want %.200q", i, len(want), got[i], want[i])
			}
		}
	}
}
