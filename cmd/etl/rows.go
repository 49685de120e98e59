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
	gutter   = 2  // between two columns
	goodText = 12 // texts are cut down to this before numbers are cut, the widest first
	minText  = 4  // and down to this after
)

// printRows aligns an answer in columns that fit the width, 0 for any: cells are
// cut with …, of numbers only digits after the point; where even that is not
// enough, columns are left out on the right. It returns how many are shown.
func printRows(w io.Writer, columns []lake.Column, cells [][]sql.NullString, width int) (shown int) {
	rows := make([][]string, 0, len(cells)+1)
	head := make([]string, len(columns))
	widths := make([]int, len(columns))
	least := make([]int, len(columns))
	for i, c := range columns {
		head[i] = printableLine(c.Name)
		widths[i] = runewidth.StringWidth(head[i])
		least[i] = minText
	}
	for _, r := range cells {
		row := make([]string, len(columns))
		for i, c := range r {
			row[i] = cell(c)
			widths[i] = max(widths[i], runewidth.StringWidth(row[i]))
			if columns[i].Numeric {
				least[i] = max(least[i], integral(row[i]))
			}
		}
		rows = append(rows, row)
	}
	shown = fit(widths, least, columns, width)
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

// integral is the width of a number without digits that may be cut, and the … for them.
func integral(number string) int {
	if point := strings.IndexByte(number, '.'); point >= 0 && point+2 < len(number) && !strings.ContainsAny(number, "eE") {
		return point + 2
	}
	return runewidth.StringWidth(number)
}

// fit narrows the columns, of which none may be less wide than least, until they
// fit the width, and returns how many do.
func fit(widths, least []int, columns []lake.Column, width int) int {
	if width <= 0 {
		return len(widths)
	}
	whole := slices.Clone(widths)
	narrow := func(numbers bool, least func(i int) int) {
		for over := total(widths) - width; over > 0; over-- {
			widest := -1
			for i, n := range widths {
				if columns[i].Numeric == numbers && n > least(i) && (widest < 0 || n > widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				return
			}
			widths[widest]--
		}
	}
	narrow(false, func(int) int { return goodText })
	narrow(true, func(i int) int { return least[i] })
	narrow(false, func(i int) int { return least[i] })
	shown := len(widths)
	for shown > 1 && total(widths[:shown]) > width {
		shown--
	}
	if shown < len(widths) { // what is left may be wider now
		copy(widths, whole)
		return fit(widths[:shown], least, columns, width)
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

var markdownEscaper = strings.NewReplacer(`\`, `\\`, "|", `\|`, "\r\n", "<br>", "\n", "<br>", "\r", "<br>", "<", "&lt;", "&", "&amp;", "*", `\*`, "`", "\\`", "[", `\[`)

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
