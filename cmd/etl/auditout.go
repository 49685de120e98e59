package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/spf13/cobra"

	"etl/internal/auditpage"
	"etl/internal/fault"
	"etl/jobs"
)

// auditOutput are the flags of where a report goes.
type auditOutput struct {
	format string // of standard output
	out    string // a file for the gaps
	as     string // its format
	html   string // a file for the page
	limit  int
	made   time.Time
}

var auditFormats = []string{"table", "json", "csv", "parquet"}

func (o *auditOutput) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", "`FORMAT`: table or json of the report, csv or parquet of the gaps")
	f.StringVarP(&o.out, "output", "o", "", "write the gaps to `FILE`, .csv or .parquet, beside the report")
	f.StringVar(&o.html, "html", "", "write the report as one page for a browser to `FILE`, beside the report")
	f.IntVar(&o.limit, "limit", 20, "points and gaps that a table shows, 0 for all; the other formats hold all")
	complete(cmd, "format", auditFormats...)
}

func (o *auditOutput) resolve(a *app) error {
	if a.json {
		if o.format != "" && o.format != "json" {
			return fault.Errorf(fault.Usage, "--json and --format %s exclude each other", o.format)
		}
		o.format = "json"
	}
	if o.format != "" && !slices.Contains(auditFormats, o.format) {
		return fault.Errorf(fault.Usage, "--format: want %s, got %q", strings.Join(auditFormats, ", "), o.format)
	}
	if o.limit < 0 {
		return fault.Errorf(fault.Usage, "--limit: want a number of rows, 0 for all, got %d", o.limit)
	}
	if o.out == "" {
		if o.format == "parquet" && isTerminal(a.stdout) {
			return fault.Hint(fault.Errorf(fault.Usage, "parquet is nothing for a terminal"), "give -o FILE.parquet")
		}
		return nil
	}
	switch o.as = strings.TrimPrefix(strings.ToLower(filepath.Ext(o.out)), "."); {
	case o.format == "csv" || o.format == "parquet":
		o.as, o.format = o.format, "table" // the file has it
	case o.as != "csv" && o.as != "parquet":
		return fault.Hint(fault.Errorf(fault.Usage, "-o %s: gaps are written as CSV or Parquet", o.out), "give a name that ends in .csv or .parquet, or --format; the whole report is JSON with --json")
	}
	return nil
}

func (o *auditOutput) print(a *app, r *jobs.AuditReport) error {
	if o.out != "" {
		if err := intoFile("-o", o.out, func(w io.Writer) error { return writeGaps(w, r, o.as) }); err != nil {
			return err
		}
	}
	if o.html != "" {
		if err := intoFile("--html", o.html, func(w io.Writer) error {
			return auditpage.Render(w, r, auditpage.Options{Made: o.made, Program: "etl " + currentVersion()})
		}); err != nil {
			return err
		}
	}
	switch o.format {
	case "csv", "parquet":
		return writeGaps(a.stdout, r, o.format)
	case "json":
		a.json = true
	}
	return a.print(r, func(w io.Writer) {
		width := terminalWidth(w)
		colour := width > 0 && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
		if width == 0 {
			width = 120
		}
		printAudit(w, r, o.limit, width, colour)
		if o.out != "" {
			fmt.Fprintf(w, "\n%s written to %s\n", plural(len(r.Gaps), "gap"), printableLine(o.out))
		}
		if o.html != "" {
			fmt.Fprintf(w, "\nthe page is %s\n", printableLine(o.html))
		}
	})
}

// gapColumns are those of the gaps as CSV and Parquet; times are UTC.
var gapColumns = arrow.NewSchema([]arrow.Field{
	{Name: "point_id", Type: arrow.PrimitiveTypes.Int32},
	{Name: "point_name", Type: arrow.BinaryTypes.String},
	{Name: "kind", Type: arrow.BinaryTypes.String},
	{Name: "after", Type: arrow.FixedWidthTypes.Timestamp_ms, Nullable: true},
	{Name: "before", Type: arrow.FixedWidthTypes.Timestamp_ms, Nullable: true},
	{Name: "from", Type: arrow.FixedWidthTypes.Timestamp_ms},
	{Name: "to", Type: arrow.FixedWidthTypes.Timestamp_ms},
	{Name: "length_ms", Type: arrow.PrimitiveTypes.Int64},
	{Name: "missing", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	{Name: "known", Type: arrow.FixedWidthTypes.Boolean},
	{Name: "note", Type: arrow.BinaryTypes.String},
}, nil)

func writeGaps(w io.Writer, r *jobs.AuditReport, format string) error {
	if format == "parquet" {
		return writeGapsParquet(w, r.Gaps)
	}
	c := csv.NewWriter(w)
	var names []string
	for _, f := range gapColumns.Fields() {
		names = append(names, f.Name)
	}
	if err := c.Write(names); err != nil {
		return err
	}
	number := func(n *int64) string {
		if n == nil {
			return ""
		}
		return strconv.FormatInt(*n, 10)
	}
	at := func(ms *int64) string {
		if ms == nil {
			return ""
		}
		return time.UnixMilli(*ms).UTC().Format("2006-01-02T15:04:05.000Z")
	}
	for _, g := range r.Gaps {
		if err := c.Write([]string{number(new(int64(g.PointID))), g.Point, g.Kind, at(g.After), at(g.Before), at(&g.From), at(&g.To),
			number(&g.Length), number(g.Missing), strconv.FormatBool(g.Known), g.Note}); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

func writeGapsParquet(w io.Writer, gaps []jobs.Gap) error {
	b := array.NewRecordBuilder(memory.DefaultAllocator, gapColumns)
	defer b.Release()
	text := func(i int, s string) { b.Field(i).(*array.StringBuilder).Append(s) }
	at := func(i int, ms *int64) {
		t := b.Field(i).(*array.TimestampBuilder)
		if ms == nil {
			t.AppendNull()
			return
		}
		t.Append(arrow.Timestamp(*ms))
	}
	for _, g := range gaps {
		b.Field(0).(*array.Int32Builder).Append(g.PointID)
		text(1, g.Point)
		text(2, g.Kind)
		at(3, g.After)
		at(4, g.Before)
		at(5, &g.From)
		at(6, &g.To)
		b.Field(7).(*array.Int64Builder).Append(g.Length)
		if m := b.Field(8).(*array.Int64Builder); g.Missing == nil {
			m.AppendNull()
		} else {
			m.Append(*g.Missing)
		}
		b.Field(9).(*array.BooleanBuilder).Append(g.Known)
		text(10, g.Note)
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	// The writer closes what it writes to, if that can be closed: standard output must stay open.
	pw, err := pqarrow.NewFileWriter(gapColumns, struct{ io.Writer }{w}, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd)), pqarrow.DefaultWriterProps())
	if err != nil {
		return err
	}
	if err := pw.Write(rec); err != nil {
		return err
	}
	return pw.Close()
}
