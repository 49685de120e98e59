package main

import (
	"database/sql"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/mattn/go-runewidth"

	"etl/internal/lake"
)

// null is how a person sees NULL; the text NULL is seen in quotes.
const null = "NULL"

const (
	gutter   = 2 // between two columns
	minText  = 8 // a column is not cut below this
	minWidth = 4 // unless only numbers are left to cut
)

// printRows aligns an answer in columns that fit the width, 0 for any: cells are
// cut with …, texts before numbers and the widest first; where even that is not
// enough, columns are left out on the right. It returns how many are shown.
func printRows(w io.Writer, columns []lake.Column, cells [][]sql.NullString, width int) (shown int) {
	rows := make([][]string, 0, len(cells)+1)
	head := make([]string, len(columns))
	widths := make([]int, len(columns))
	for i, c := range columns {
		head[i] = printableLine(c.Name)
		widths[i] = runewidth.StringWidth(head[i])
	}
	for _, r := range cells {
		row := make([]string, len(columns))
		for i, c := range r {
			row[i] = cell(c)
			widths[i] = max(widths[i], runewidth.StringWidth(row[i]))
		}
		rows = append(rows, row)
	}
	shown = fit(widths, columns, width)
	line := func(row []string) {
		var b strings.Builder
		for i, text := range row[:shown] {
			if i > 0 {
				b.WriteString(strings.Repeat(" ", gutter))
			}
			text = runewidth.Truncate(text, widths[i], "…")
			pad := strings.Repeat(" ", widths[i]-runewidth.StringWidth(text))
			if columns[i].Numeric {
				b.WriteString(pad + text)
			} else {
				b.WriteString(text + pad)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	line(head)
	rule := make([]string, len(columns))
	for i, n := range widths {
		rule[i] = strings.Repeat("─", n)
	}
	line(rule)
	for _, row := range rows {
		line(row)
	}
	return shown
}

// cell is what a table shows of a value.
func cell(c sql.NullString) string {
	switch {
	case !c.Valid:
		return null
	case c.String == null:
		return `"NULL"`
	}
	return printableLine(c.String)
}

// fit narrows the columns until they fit the width and returns how many do.
func fit(widths []int, columns []lake.Column, width int) int {
	if width <= 0 {
		return len(widths)
	}
	// narrow cuts one from the widest column that may be cut, and reports whether there was one.
	narrow := func(texts bool, least int) bool {
		widest := -1
		for i, n := range widths {
			if n > least && (!texts || !columns[i].Numeric) && (widest < 0 || n > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return false
		}
		// At once down to the next lower width, or as far as it takes.
		over, next := total(widths)-width, least
		for i, n := range widths {
			if i != widest && n < widths[widest] && (!texts || !columns[i].Numeric) {
				next = max(next, n)
			}
		}
		widths[widest] = max(widths[widest]-max(over, 1), min(next, widths[widest]-1))
		return true
	}
	for total(widths) > width && narrow(true, minText) {
	}
	for total(widths) > width && narrow(false, minWidth) {
	}
	shown := len(widths)
	for shown > 1 && total(widths[:shown]) > width {
		shown--
	}
	if shown == 1 {
		widths[0] = min(widths[0], width)
	}
	return shown
}

func total(widths []int) int {
	n := gutter * (len(widths) - 1)
	for _, w := range widths {
		n += w
	}
	return n
}

var markdownEscaper = strings.NewReplacer(`\`, `\\`, "|", `\|`, "\r\n", "<br>", "\n", "<br>", "\r", "<br>", "<", "&lt;", "&", "&amp;", "*", `\*`, "_", `\_`, "`", "\\`", "[", `\[`)

// printMarkdown writes an answer as a table of GitHub's Markdown.
func printMarkdown(w io.Writer, columns []lake.Column, cells [][]sql.NullString) {
	line := func(row []string) { fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | ")) }
	var head, rule []string
	for _, c := range columns {
		head = append(head, printableLine(markdownEscaper.Replace(c.Name)))
		if c.Numeric {
			rule = append(rule, "---:")
		} else {
			rule = append(rule, "---")
		}
	}
	line(head)
	line(rule)
	for _, r := range cells {
		row := slices.Clone(head)
		for i, c := range r {
			if row[i] = null; c.Valid {
				row[i] = printableLine(markdownEscaper.Replace(c.String))
			}
		}
		line(row)
	}
}
