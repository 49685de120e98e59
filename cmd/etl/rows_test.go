package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"

	"etl/internal/lake"
)

func cells(rows ...[]any) (out [][]sql.NullString) {
	for _, r := range rows {
		var row []sql.NullString
		for _, c := range r {
			row = append(row, sql.NullString{String: fmt.Sprint(c), Valid: c != nil})
		}
		out = append(out, row)
	}
	return out
}

func TestPrintRows(t *testing.T) {
	columns := []lake.Column{{Name: "point"}, {Name: "value", Numeric: true}, {Name: "note"}}
	rows := cells([]any{"Zone 温度 🌡", 1.5, nil}, []any{"a", -12345.25, "NULL"}, []any{"line\nbreak\x1b[31m", nil, "long long long long text"})
	for _, test := range []struct {
		width int
		want  string
	}{
		{0, `
point                value  note
───────────────  ─────────  ────────────────────────
Zone 温度 🌡            1.5  NULL
a                -12345.25  "NULL"
line·break·[31m       NULL  long long long long text
`}, {40, `
point              value  note
─────────────  ─────────  ──────────────
Zone 温度 🌡          1.5  NULL
a              -12345.25  "NULL"
line·break·[…       NULL  long long lon…
`}, {24, `
point      value  note
──────  ────────  ──────
Zone …       1.5  NULL
a       -12345.…  "NULL"
line·…      NULL  long …
`}, {17, `
point       value
───────  ────────
Zone …        1.5
a        -12345.…
line·b…      NULL
`}, {9, `
point
─────────
Zone 温…
a
line·bre…
`},
	} {
		var b bytes.Buffer
		shown := printRows(&b, columns, rows, test.width)
		if want := strings.TrimPrefix(test.want, "\n"); b.String() != want {
			t.Errorf("width %d:\n%s\nwant\n%s", test.width, b.String(), want)
		}
		if test.width == 9 && shown != 1 || test.width >= 24 && shown != 3 {
			t.Errorf("width %d: %d columns are shown", test.width, shown)
		}
	}
	// No column at all, and no row.
	var b bytes.Buffer
	printRows(&b, columns[:1], nil, 80)
	if b.String() != "point\n─────\n" {
		t.Errorf("%q", b.String())
	}
}

// TestRowsFit: whatever the cells, no line is wider than the terminal, each cell
// is whole or ends in …, and nothing is cut that would have fitted.
func TestRowsFit(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	alphabet := []rune("abc 1.-温🌡é\t\x1b")
	for range 2000 {
		columns := make([]lake.Column, 1+r.IntN(8))
		rows := make([][]any, r.IntN(4))
		for i := range rows {
			rows[i] = make([]any, len(columns))
		}
		for i := range columns {
			columns[i] = lake.Column{Name: strings.Repeat("n", 1+r.IntN(12)), Numeric: r.IntN(2) == 0}
			for j := range rows {
				if r.IntN(5) == 0 {
					continue
				}
				text := make([]rune, r.IntN(40))
				for k := range text {
					text[k] = alphabet[r.IntN(len(alphabet))]
				}
				rows[j][i] = string(text)
			}
		}
		width := 1 + r.IntN(120)
		var b, free bytes.Buffer
		data := cells(rows...)
		shown := printRows(&b, columns, data, width)
		printRows(&free, columns, data, 0)
		widest := 0
		for line := range strings.Lines(free.String()) {
			widest = max(widest, runewidth.StringWidth(strings.TrimRight(line, "\n")))
		}
		if shown < 1 || widest <= width && b.String() != free.String() {
			t.Fatalf("width %d, %d columns shown: cut without need\n%s", width, shown, b.String())
		}
		for line := range strings.Lines(b.String()) {
			if w := runewidth.StringWidth(strings.TrimRight(line, "\n")); w > width {
				t.Fatalf("width %d: %d wide: %q", width, w, line)
			}
			if strings.ContainsAny(line, "\x1b\t") {
				t.Fatalf("a control character reached the terminal: %q", line)
			}
		}
		if lines := strings.Count(b.String(), "\n"); lines != len(rows)+2 {
			t.Fatalf("%d lines for %d rows", lines, len(rows))
		}
	}
}

func TestPrintMarkdown(t *testing.T) {
	var b bytes.Buffer
	printMarkdown(&b, []lake.Column{{Name: "a|b"}, {Name: "n", Numeric: true}}, cells([]any{"x|y\nz <b> *_", 1}, []any{nil, nil}))
	const want = "| a\\|b | n |\n| --- | ---: |\n| x\\|y<br>z &lt;b> \\*_ | 1 |\n| NULL | NULL |\n"
	if b.String() != want {
		t.Errorf("%q\nwant\n%q", b.String(), want)
	}
}
