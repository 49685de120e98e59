package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"etl/internal/utc"
	"etl/jobs"
)

func (a *app) verify() *cobra.Command {
	var (
		p places
		s span
		o jobs.VerifyOptions
	)
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that the cold tier holds what its manifests say; changes nothing",
		Long: `verify lists every finding: files that are missing, damaged or unknown to the
manifest. Without --deep it compares names, sizes and versions with one listing;
with --deep it reads every byte: SHA-256, Parquet structure, order, uniqueness,
point and month, samples per day, and the hash of the rows.

Exit 0: whole. 3: something to look at, no archived sample is lost. 4: archived
samples can not be read. A file that a running job has just written is "info".`,
		Example: `  etl verify --store file:archive
  etl verify --deep --month 2024-01
  etl verify --deep --points 'Building1.*' --json`,
	}
	p.addSource(cmd)
	p.addStore(cmd)
	s.add(cmd)
	addPoints(cmd, &o.Points)
	cmd.Flags().BoolVar(&o.Deep, "deep", false, "read every byte")
	workers := count(4)
	cmd.Flags().Var(&workers, "workers", "files at a time")
	cmd.Flags().Lookup("workers").DefValue = "4, for r2: and s3: 32"
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.resolve(a, cmd); err != nil {
			return err
		}
		if !cmd.Flags().Changed("workers") && !strings.HasPrefix(p.store, "file:") {
			workers = 32 // each waits for the network most of the time
		}
		o.Workers = int(workers)
		if o.Points.Group == "" {
			p.source, p.noSource = "", true // only groups need it
		}
		env, done, err := p.open(cmd.Context(), a, access{store: needed})
		if err != nil {
			return err
		}
		defer done()
		if o.Days, err = s.filter(env); err != nil {
			return err
		}
		var stop func()
		env.Notify, stop = a.watch("verify")
		r, err := jobs.Verify(cmd.Context(), env, o)
		stop()
		if err != nil {
			return err
		}
		a.code = r.ExitCode()
		return a.print(r, func(w io.Writer) { printVerify(w, r) })
	}
	return cmd
}

func printVerify(w io.Writer, r jobs.VerifyReport) {
	how := "names, sizes and versions compared (--deep reads every byte)"
	if r.Deep {
		how = fmt.Sprintf("every byte read (%s)", humanize.IBytes(uint64(r.Read)))
	}
	fmt.Fprintf(w, "verify: %d months, %s files, %s samples, %s: %s, %s\n", r.Months, comma(r.Files), comma(r.Samples),
		humanize.IBytes(uint64(r.Bytes)), how, seconds(r.Elapsed))
	if r.Rejects > 0 {
		fmt.Fprintf(w, "%s files of rejected rows (`etl rejects` lists them)\n", comma(r.Rejects))
	}
	if len(r.Findings) == 0 {
		fmt.Fprintln(w, "whole: no findings")
		return
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "\n%s", f.Severity)
		if f.Code != string(f.Severity) {
			fmt.Fprintf(w, ", %s", f.Code)
		}
		if f.Path != "" {
			fmt.Fprintf(w, "  %s", printableLine(f.Path))
		}
		if f.Point != "" {
			fmt.Fprintf(w, "  (point %d %s)", f.PointID, printable(f.Point))
		}
		fmt.Fprintf(w, "\n  %s\n", printableLine(f.Text))
		if f.Remedy != "" {
			fmt.Fprintf(w, "  → %s\n", f.Remedy)
		}
	}
}

// filter is the range as a filter of what exists: the zero value is everything.
func (s *span) filter(env jobs.Env) (utc.Days, error) {
	const firstDay = 1 // the default of --from: 1970-01-02 stands for the beginning
	return s.days(firstDay, utc.DayOfTime(env.Now()))
}
