package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"etl/internal/fault"
	"etl/jobs"
)

func (a *app) rejects() *cobra.Command {
	var (
		p     places
		s     span
		limit int
	)
	cmd := &cobra.Command{
		Use:   "rejects",
		Short: "List the rows that could not be archived, why, and how to mend them",
		Long: `rejects lists what the archiving jobs recorded under _rejects/: rows whose value,
timestamp, quality, flags or point id no sample can hold, as the source has them.
A row that is mended in the source is archived by the next run; its record stays.`,
		Example: `  etl rejects
  etl rejects --month 2024-01 --json`,
	}
	p.addStore(cmd)
	s.add(cmd)
	cmd.Flags().IntVar(&limit, "limit", 50, "rows to print; --json prints all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.resolve(a, cmd); err != nil {
			return err
		}
		env, done, err := p.open(cmd.Context(), a, access{store: needed})
		if err != nil {
			return err
		}
		defer done()
		rng, err := s.filter(env)
		if err != nil {
			return err
		}
		r, err := jobs.ListRejects(cmd.Context(), env, rng)
		if err != nil {
			return err
		}
		if len(r.Failed) > 0 {
			a.code = fault.ExitCorrupt
		}
		return a.print(r, func(w io.Writer) { printRejects(w, r, limit) })
	}
	return cmd
}

func printRejects(w io.Writer, r jobs.RejectsReport, limit int) {
	if len(r.Rows) == 0 && len(r.Failed) == 0 {
		fmt.Fprintln(w, "no rejected rows")
		return
	}
	cell := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(b)
	}
	t := newTable("month", "point>", "timestamp>", "value>", "quality>", "flags>", "reason")
	for i, row := range r.Rows {
		if i == limit {
			break
		}
		t.row(row.Month, cell(row.PointID), cell(row.Timestamp), cell(row.Value), cell(row.Quality), cell(row.Flags), whole(row.Reason))
	}
	t.print(w)
	if len(r.Rows) > limit {
		fmt.Fprintf(w, "… and %s more (--limit, or --json for all)\n", comma(int64(len(r.Rows)-limit)))
	}
	if len(r.Rows) > 0 {
		fmt.Fprintf(w, "\nTo mend the first one: %s\n", printableLine(r.Rows[0].Remedy))
	}
	printFailures(w, r.Failed)
}
