package main

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"etl/jobs"
)

func (a *app) points() *cobra.Command {
	var (
		p   places
		sel jobs.Points
	)
	cmd := &cobra.Command{
		Use:   "points",
		Short: "List the points: id, name, first and last sample, hot rows, cold months and bytes",
		Example: `  etl points
  etl points --points '*Zone*' --json`,
	}
	p.addSource(cmd)
	p.addStore(cmd)
	addPoints(cmd, &sel)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.resolve(a, cmd); err != nil {
			return err
		}
		env, done, err := p.open(cmd.Context(), a, access{store: needed})
		if err != nil {
			return err
		}
		defer done()
		r, err := jobs.ListPoints(cmd.Context(), env, sel)
		if err != nil {
			return err
		}
		a.code = r.ExitCode()
		return a.print(r, func(w io.Writer) { printPoints(w, r) })
	}
	return cmd
}

func printPoints(w io.Writer, r jobs.PointsReport) {
	t := newTable("id>", "name", "first", "last", "hot rows>", "cold months>", "cold samples>", "cold bytes>", "B/sample>")
	var samples, bytes int64
	rows := new(int64)
	for _, p := range r.Points {
		t.row(p.ID, named(p.Name), moment(p.First), moment(p.Last), counted(p.HotRows), p.ColdMonths, comma(p.ColdSamples), humanize.IBytes(uint64(p.ColdBytes)), perSample(p.ColdBytes, p.ColdSamples))
		if p.HotRows == nil {
			rows = nil
		} else if rows != nil {
			*rows += *p.HotRows
		}
		samples, bytes = samples+p.ColdSamples, bytes+p.ColdBytes
	}
	t.row("", fmt.Sprintf("%d points", len(r.Points)), "", "", counted(rows), "", comma(samples), humanize.IBytes(uint64(bytes)), perSample(bytes, samples))
	t.print(w)
	printFailures(w, r.Failed)
}

// counted is a number, or that nobody counted: on D1 each row counted is billed.
func counted(n *int64) string {
	if n == nil {
		return "not counted"
	}
	return comma(*n)
}

// named is a point's name for a table, visible even if it is empty.
func named(name string) string { return cmp.Or(name, `""`) }

// moment writes Unix milliseconds for a person.
func moment(ms *int64) string {
	if ms == nil {
		return "–"
	}
	return time.UnixMilli(*ms).UTC().Format("2006-01-02 15:04:05")
}
