package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"etl/internal/fault"
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
		Long: `verify lists every finding, what it means, and the command that mends it. Without
--deep it compares names, sizes and versions with one listing, manifest by
manifest; with --deep it reads every byte: SHA-256, Parquet structure, page index
and statistics, order, uniqueness, point and month, samples per day, and the hash
of the rows.

--against-source reads the rows of the hot window (or of the range that is given)
from the source once more and compares them bit for bit with the archive, as far
as their days are archived; =counts compares only how many there are. A row that
the archive lacks is "waiting" if it came after its day was archived and the next
archive takes it, else a finding. A row that only the archive has is none.

--sample 10% looks at another tenth of the month files each day, and in 10 days at
all of them. --revoke takes back the ledger's marks of days that are not whole, so
that nothing trims their last copy; that is all that verify ever writes, but for its
line in the log of runs: where a source with a ledger is set, a verification of all
months and points leaves one, which etl status reads (not with --no-state, nor if
--store on the command line names another store than the source's own).

What does not fit together is read again before it is a finding, so a running
archive raises no alarm. A file newer than its manifest is "info" for an hour.

Exit 0: whole. 3: something to look at, no archived sample is lost, or nothing is
archived of the days and points that were chosen. 4: archived samples can not be read.`,
		Example: `  etl verify                                        # each night, after archive
  etl verify --deep --sample 4%                     # and every byte within 25 days
  etl verify --deep --month 2024-01
  etl verify --deep --points 'Building1.*' --json
  etl verify --against-source                       # is all of D1's hot window safe?
  etl verify --against-source=counts --last 7d
  etl verify --deep --against-source --revoke       # and let nothing be trimmed that is not`,
	}
	p.addSource(cmd)
	p.addStore(cmd)
	p.addNoState(cmd)
	s.add(cmd)
	addPoints(cmd, &o.Points)
	f := cmd.Flags()
	f.BoolVar(&o.Deep, "deep", false, "read every byte")
	window, grace := count(jobs.HotWindow), wait(jobs.Grace)
	f.Var(&window, "hot-window", "of --against-source: how many days back archive looks for days missed and late rows")
	f.Var(&grace, "grace", "of --against-source: how long after its end a day is taken to be complete")
	f.Var(&against{&o.Against}, "against-source", "compare with the source: its `rows`, or only their counts")
	f.Lookup("against-source").NoOptDefVal = string(jobs.AgainstRows)
	f.Var((*percent)(&o.Sample), "sample", "of --deep and --against-source, look at this part of the month files, another one each day, like 10%")
	f.BoolVar(&o.Revoke, "revoke", false, "take back the marks of (point, day)s that are not whole, so that nothing trims them")
	workers := count(4)
	f.Var(&workers, "workers", "files at a time")
	f.Lookup("workers").DefValue = "4, for r2: and s3: 32"
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.resolve(a, cmd); err != nil {
			return err
		}
		if !cmd.Flags().Changed("workers") && !strings.HasPrefix(p.store, "file:") {
			workers = 32 // each waits for the network most of the time
		}
		o.Workers, o.ExtractWorkers = int(workers), 2
		o.Grace, o.HotWindow = time.Duration(grace), int(window)
		if strings.HasPrefix(p.source, "d1:") {
			o.ExtractWorkers = 1 // D1 runs one query at a time
		}
		source := p.source
		if o.Points.Group == "" && o.Against == "" && !o.Revoke {
			p.source, p.noSource = "", true
		}
		env, done, err := p.open(cmd.Context(), a, access{source: o.Revoke, store: needed, readers: o.ExtractWorkers})
		if err != nil {
			return err
		}
		defer done()
		if o.Days, err = s.filter(env); err != nil {
			return err
		}
		if cmd.Flags().Changed("store") && !cmd.Flags().Changed("source") {
			env.Journal = nil // of another store: the log is about the source's own
		} else if env.Source == nil && o.Days == (utc.Days{}) && o.Points.All() {
			defer p.openJournal(cmd.Context(), source, &env)()
		}
		var stop func()
		env.Notify, stop = a.watch("verify")
		r, err := jobs.Verify(cmd.Context(), env, o)
		stop()
		if err != nil && len(r.Findings) == 0 {
			return err
		}
		a.code = r.ExitCode()
		if perr := a.print(r, func(w io.Writer) { printVerify(w, r, err == nil) }); perr != nil {
			return perr
		}
		return err // what was found until then is told all the same
	}
	return cmd
}

// openJournal opens the log of runs of a source for a job that needs nothing else of
// it. A source that can not be opened is only warned of.
func (p *places) openJournal(ctx context.Context, source string, env *jobs.Env) (done func()) {
	done = func() {}
	if source == "" || p.noState {
		return done
	}
	p.source = source
	src, err := p.openSource(1, false)
	if err == nil {
		done = func() { src.Close() }
		info, ierr := src.Info(ctx)
		if err = ierr; info.Ledger {
			env.Journal = src
		}
	}
	if err != nil && ctx.Err() == nil {
		p.app.warn(fmt.Sprintf("this verification is not logged: %v", err))
	}
	return done
}

func printVerify(w io.Writer, r jobs.VerifyReport, finished bool) {
	how := "names, sizes and versions compared (--deep reads every byte)"
	if r.Deep {
		how = fmt.Sprintf("every byte read (%s)", humanize.IBytes(uint64(r.Read)))
		if r.Sample > 0 {
			how = fmt.Sprintf("every byte of today's %d %% read (%s)", r.Sample, humanize.IBytes(uint64(r.Read)))
		}
	}
	fmt.Fprintf(w, "verify: %d months, %s files, %s samples, %s: %s, %s\n", r.Months, comma(r.Files), comma(r.Samples),
		humanize.IBytes(uint64(r.Bytes)), how, seconds(r.Elapsed))
	if r.Against != "" {
		what := map[jobs.Against]string{jobs.AgainstRows: "bit for bit", jobs.AgainstCounts: "by their number"}[r.Against]
		fmt.Fprintf(w, "compared with the source %s: %s rows of %s archived (point, day)s", what, comma(r.HotRows), comma(r.Compared))
		if r.Waiting > 0 {
			fmt.Fprintf(w, "; %s wait for the next archive", comma(r.Waiting))
		}
		fmt.Fprintln(w)
	}
	printBilled(w, r.Billed)
	if r.Rejects > 0 {
		fmt.Fprintf(w, "%s files of rejected rows (`etl rejects` lists them)\n", comma(r.Rejects))
	}
	if !finished {
		fmt.Fprintln(w, "it could not be carried out to its end; until then it found:")
	} else if len(r.Findings) == 0 && r.Months == 0 {
		fmt.Fprintln(w, "nothing is archived yet: nothing was verified")
		return
	} else if len(r.Findings) == 0 {
		fmt.Fprintln(w, "whole: no findings")
		return
	}
	const most = 20 // of what needs nobody's attention
	infos := 0
	for _, f := range r.Findings {
		if f.Severity == jobs.Info {
			if infos++; infos > most {
				continue
			}
		}
		fmt.Fprintf(w, "\n%s", f.Severity)
		if f.Code != string(f.Severity) {
			fmt.Fprintf(w, ", %s", f.Code)
		}
		if f.Path != "" {
			fmt.Fprintf(w, "  %s", printableLine(f.Path))
		} else if f.Month != "" {
			fmt.Fprintf(w, "  %s", f.Month)
		}
		if f.Point != "" {
			fmt.Fprintf(w, "  (point %d %s)", f.PointID, printable(f.Point))
		}
		fmt.Fprintf(w, "\n  %s\n", printableLine(f.Text))
		if len(f.Days) > 0 {
			fmt.Fprintf(w, "  %s\n", rangesText(f.Days))
		}
		if f.Remedy != "" {
			fmt.Fprintf(w, "  → %s\n", printableLine(f.Remedy))
		}
	}
	if infos > most {
		fmt.Fprintf(w, "\n%s more of the kind info (--json lists them)\n", comma(int64(infos-most)))
	}
	if r.Revoked > 0 {
		fmt.Fprintf(w, "\n%s marks taken back: `etl archive` reads these days again while they are hot\n", comma(r.Revoked))
	}
}

// against is the flag --against-source.
type against struct{ to *jobs.Against }

func (v *against) String() string {
	if v.to == nil {
		return ""
	}
	return string(*v.to)
}
func (v *against) Type() string { return "rows|counts" }
func (v *against) Set(s string) error {
	if *v.to = jobs.Against(s); *v.to != jobs.AgainstRows && *v.to != jobs.AgainstCounts {
		return fault.Errorf(fault.Usage, "want rows or counts, got %q", s)
	}
	return nil
}

// percent is a flag of a part, like 10%.
type percent int

func (v *percent) String() string {
	if *v == 0 {
		return ""
	}
	return strconv.Itoa(int(*v)) + "%"
}
func (v *percent) Type() string { return "N%" }
func (v *percent) Set(s string) error {
	n, err := strconv.Atoi(strings.TrimSuffix(s, "%"))
	if err != nil || n < 1 || n > 100 {
		return fault.Errorf(fault.Usage, "want whole percent from 1%% to 100%%, got %q", s)
	}
	*v = percent(n)
	return nil
}

// filter is the range as a filter of what exists: the zero value is everything.
func (s *span) filter(env jobs.Env) (utc.Days, error) {
	const firstDay = 1 // the default of --from: 1970-01-02 stands for the beginning
	return s.days(firstDay, utc.DayOfTime(env.Now()))
}
