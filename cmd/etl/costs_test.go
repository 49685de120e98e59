package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"etl/internal/cost"
)

// TestCostsPage holds docs/costs.md equal to what etl cost computes: each block that begins
// with `$ etl cost`, and each table between <!-- NAME --> and <!-- end -->. With
// ETL_UPDATE=1 it writes them.
func TestCostsPage(t *testing.T) {
	page, err := filepath.Abs(filepath.Join("..", "..", "docs", "costs.md"))
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	fresh := regexp.MustCompile("(?s)```\n\\$ (etl cost[^\n]*)\n.*?```").ReplaceAllStringFunc(string(old), func(block string) string {
		found++
		command, _, _ := strings.Cut(strings.TrimPrefix(block, "```\n$ "), "\n")
		t.Chdir(t.TempDir()) // where no etl.yaml is
		var out, errs bytes.Buffer
		if code := run(t.Context(), t.Context(), strings.Fields(command)[1:], func(string) string { return "" }, strings.NewReader(""), &out, &errs); code != 0 {
			t.Fatalf("%s: exit %d: %s", command, code, errs.String())
		}
		return "```\n$ " + command + "\n" + out.String() + "```"
	})
	tables := costTables(t)
	fresh = regexp.MustCompile(`(?s)<!-- ([a-z]+) -->\n.*?<!-- end -->`).ReplaceAllStringFunc(fresh, func(block string) string {
		found++
		name := strings.TrimSuffix(strings.TrimPrefix(block[:strings.Index(block, "\n")], "<!-- "), " -->")
		text, ok := tables[name]
		if !ok {
			t.Fatalf("there is no table %s", name)
		}
		return "<!-- " + name + " -->\n" + text + "<!-- end -->"
	})
	if found != 2+len(tables) {
		t.Errorf("the page has %d blocks, want %d", found, 2+len(tables))
	}
	if fresh == string(old) {
		return
	}
	if os.Getenv("ETL_UPDATE") == "" {
		t.Fatal("docs/costs.md is not what etl cost computes: ETL_UPDATE=1 go test -tags duckdb_arrow -run TestCostsPage ./cmd/etl")
	}
	if err := os.WriteFile(page, []byte(fresh), 0o644); err != nil {
		t.Fatal(err)
	}
}

// costTables are the tables of the page: those of the design beside what is computed.
func costTables(t *testing.T) map[string]string {
	t.Helper()
	compute := func(change func(*cost.Load)) cost.Report {
		t.Helper()
		l := cost.Default()
		change(&l)
		r, err := cost.Compute(l, cost.Cloudflare())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := compute(func(*cost.Load) {})
	line := func(r cost.Report, name string) cost.Line {
		i := slices.IndexFunc(r.Lines, func(l cost.Line) bool { return l.Name == name })
		return r.Lines[i]
	}
	gb := func(v float64) string { return fmt.Sprintf("%.2f GB", v/1e9) }
	mb := func(v float64) string { return fmt.Sprintf("%.1f MB", v/1e6) }
	usd := func(v float64) string { return fmt.Sprintf("$%.2f", v) }
	million := func(v float64) string { return fmt.Sprintf("%.1f M", v/1e6) }
	table := func(rows ...[]string) string {
		var b strings.Builder
		for i, row := range rows {
			b.WriteString("| " + strings.Join(row, " | ") + " |\n")
			if i == 0 {
				b.WriteString(strings.Repeat("|---", len(row)) + "|\n")
			}
		}
		return b.String()
	}
	l := r.Load
	day := l.SamplesPerDay * l.BytesPerSample
	tables := make(map[string]string)
	tables["capacity"] = table(
		[]string{"D1, 30 days", "the design said", "computed", "how"},
		[]string{"points, samples a day", "4,500, 6,480,000", cost.Comma(float64(l.Points)) + ", " + cost.Comma(l.SamplesPerDay), "4,500 × 1,440"},
		[]string{"rows of 30 days", "194,400,000", cost.Comma(r.D1.Rows), "× 30"},
		[]string{"bytes a row", "50", fmt.Sprintf("%.0f", l.BytesPerRow), "27 of a cell, pages 87 % full"},
		[]string{"data", "9.72 GB", gb(r.D1.Data), ""},
		[]string{"indexes", "1.46 GB", gb(r.D1.Indexes), "alarms alone, 1 % of the rows at 15 B: the key is the table"},
		[]string{"ledger", "–", gb(r.D1.Ledger), "after a year: a mark and a trim for each (point, day), 52 B"},
		[]string{"total", "“~9.7 GB” (its sum is 11.18)", gb(r.D1.Total), "of 10 GB"},
	) + "\n" + table(
		[]string{"R2, a year", "the design said", "computed", "how"},
		[]string{"a day", "32.4 MB", mb(day), fmt.Sprintf("%s × %.3f B", cost.Comma(l.SamplesPerDay), l.BytesPerSample)},
		[]string{"a month", "972 MB", mb(l.ColdPerMonth()), "30 days and the manifest"},
		[]string{"a month of a point", "216 KB (“each file ~4 MB”)", fmt.Sprintf("%.1f KB", day*cost.DaysPerMonth/float64(l.Points)/1e3), ""},
		[]string{"a year", "11.7 GB", gb(12 * l.ColdPerMonth()), ""},
		[]string{"storage cost", "$0.18 a year", usd(12*l.ColdPerMonth()/1e9*0.015) + " a month", "once a year is stored, if nothing were included"},
	)
	of := func(name string) (string, string, string) {
		x := line(r, name)
		return million(x.Usage), usd(x.Dollars), usd(x.Full)
	}
	reads, readsDollars, readsFull := of(cost.D1Reads)
	writes, writesDollars, writesFull := of(cost.D1Writes)
	a, aDollars, aFull := of(cost.R2ClassA)
	b, bDollars, bFull := of(cost.R2ClassB)
	storage, cold := line(r, cost.D1Storage), line(r, cost.R2Storage)
	tables["bill"] = table(
		[]string{"a month", "the design said", "its dollars", "asked for", "dollars", "nothing included"},
		[]string{"D1 rows read", "~10 M a day", "$5.00", reads, readsDollars, readsFull},
		[]string{"D1 rows written", "6.48 M a day", "$6.48", writes, writesDollars, writesFull},
		[]string{"D1 storage", "9.7 GB", "$3.53", gb(storage.Usage), usd(storage.Dollars), usd(storage.Full)},
		[]string{"R2 storage", "11.7 GB", "$0.18 a year", gb(cold.Usage), usd(cold.Dollars), usd(cold.Full)},
		[]string{"R2 Class A", "~5 k", "free", a, aDollars, aFull},
		[]string{"R2 Class B", "~150 k", "free", b, bDollars, bFull},
		[]string{"Workers Paid", "–", "–", "", usd(line(r, cost.Plan).Dollars), usd(line(r, cost.Plan).Full)},
		[]string{"**total**", "", "**$15.01**", "", "**" + usd(r.Dollars) + "**", usd(r.Full)},
	)
	indexes := [][]string{{"index on `timeseries`", "rows written a month", "bytes in D1", "dollars a month", "what it buys"}}
	for _, x := range []struct {
		name, buys string
		change     func(*cost.Load)
		more       bool
	}{
		{"alarms, partial, 1 % of the rows (kept)", "alarms of all points: an hour of them without it reads each row of the hour, 270,000; asked every 10 s these are 70 billion a month, $45", func(l *cost.Load) { l.Alarms = 0 }, false},
		{"bad quality, partial, 5 % (dropped)", "a list of bad readings; the share of them needs a count of all rows anyway, or a sample (`etl status`)", func(l *cost.Load) { l.Alarms += 0.05 }, true},
		{"(point_id, timestamp DESC) (dropped)", "nothing: SQLite walks the primary key backwards", func(l *cost.Load) { l.Indexes = 1 }, true},
	} {
		o := compare{less: compute(x.change), more: r}
		if x.more {
			o = compare{less: r, more: compute(x.change)}
		}
		indexes = append(indexes, []string{x.name, million(line(o.more, cost.D1Writes).Usage - line(o.less, cost.D1Writes).Usage),
			gb(o.more.D1.Total - o.less.D1.Total), usd(o.more.Dollars - o.less.Dollars), x.buys})
	}
	tables["indexes"] = table(indexes...)
	less := [][]string{{"instead", "rows written a month", "dollars a month"}}
	for _, x := range []struct {
		name   string
		change func(*cost.Load)
	}{
		{"a sample a minute", func(*cost.Load) {}},
		{"a sample every 5 minutes", func(l *cost.Load) { l.SamplesPerDay /= 5 }},
		{"a sample every 15 minutes, or on change as often", func(l *cost.Load) { l.SamplesPerDay /= 15 }},
		{"1,000 points, a sample a minute", func(l *cost.Load) { l.Points, l.SamplesPerDay = 1000, 1000*1440 }},
		{"7 days in D1 instead of 30", func(l *cost.Load) { l.Retention = 7 }},
	} {
		o := compute(x.change)
		less = append(less, []string{x.name, million(line(o, cost.D1Writes).Usage), usd(o.Dollars)})
	}
	tables["instead"] = table(less...)
	return tables
}

// compare is two reports, of which one has an index more.
type compare struct{ less, more cost.Report }
