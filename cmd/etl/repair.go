package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"etl/internal/utc"
	"etl/jobs"
)

func (a *app) repair() *cobra.Command {
	var (
		p       places
		s       span
		e       engine
		from    second
		o       jobs.RepairOptions
		dryRun  bool
		without bool
	)
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Mend the cold tier: from the source what is still hot, from a replica what is not",
		Long: `repair reads every byte of the cold tier and mends what is not whole:

  - marks over (point, day)s that are not whole are revoked, so that nothing trims
    from D1 what may be the only copy;
  - a manifest that is missing or can not be read is rebuilt from the footers of
    the month's files, points.json from the source and the manifests;
  - whole month files that no manifest names are adopted;
  - a month file that is missing, can not be read, or lacks days is made anew: of
    what is readable in it, of what a replica has (--replica), and of what the
    source still holds.

Nothing is deleted: what can not be read is copied to _quarantine/ before it is
overwritten. It prints its plan first; --dry-run stops there. Running it again is
safe, and finds nothing to do where all is mended.

Exit 0: all is mended. 3: archived samples are lost; each (point, day) is named. A
replica that turns up later brings them back: run it again with --replica. 1, 4: a
person has to look first; the rest was mended.`,
		Example: `  etl repair --dry-run
  etl repair --month 2024-01
  etl repair --replica file:/mnt/backup/archive
  etl repair --replica r2://backup --without-source     # D1 is gone, or not to be asked`,
	}
	p.addSource(cmd)
	p.addStore(cmd)
	p.addNoState(cmd)
	s.add(cmd)
	e.add(cmd)
	addPoints(cmd, &o.Points)
	from.add(cmd, &p, "replica", "take what is lost from this copy of the cold tier: `URL`, as --store")
	f := cmd.Flags()
	f.BoolVar(&dryRun, "dry-run", false, "print the plan and do nothing")
	f.BoolVar(&without, "without-source", false, "do not ask the source, even if one is set")
	f.BoolVar(&o.Engine.Adopt, "adopt", false, "repair a cold tier that another source began")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.resolve(a, cmd); err != nil {
			return err
		}
		if without {
			p.source, p.noSource = "", true
		}
		ctx := cmd.Context()
		env, done, err := p.open(ctx, a, access{store: needed, readers: int(e.extract) + 2})
		if err != nil {
			return err
		}
		defer done()
		if from.url != "" {
			if o.Replica, err = from.open(ctx, &p, "replica", needed); err != nil {
				return err
			}
		}
		adopt := o.Engine.Adopt
		o.Engine = e.options(jobs.Rearchive)
		o.Engine.Adopt, o.Workers = adopt, o.Engine.WriteWorkers
		if o.Days, err = s.filter(env); err != nil {
			return err
		}
		var stop func()
		env.Notify, stop = a.watch("repair")
		plan, err := jobs.PlanRepair(ctx, env, o)
		if err != nil || dryRun {
			stop()
			if err != nil {
				return err
			}
			a.code = plan.ExitCode()
			return a.print(plan, func(w io.Writer) {
				printRepairPlan(w, plan)
				fmt.Fprintln(w, "Nothing was changed (--dry-run).")
			})
		}
		if !a.json && !plan.Empty() {
			printRepairPlan(a.stdout, plan)
		}
		if ctx, err = a.finishing(); err != nil {
			stop()
			return err
		}
		r, err := plan.Run(ctx, env)
		stop()
		a.code = r.ExitCode()
		return cmp.Or(err, a.print(r, func(w io.Writer) { printRepair(w, plan, r) }))
	}
	return cmd
}

func printRepairPlan(w io.Writer, p *jobs.RepairPlan) {
	fmt.Fprintf(w, "looked at %d months, %s month files, every byte (%s).\n", p.Months, comma(p.Files), humanize.IBytes(uint64(p.Read)))
	if p.Empty() && len(p.Blocked) == 0 {
		fmt.Fprintln(w, "Nothing to repair.")
	}
	if p.Marks > 0 {
		fmt.Fprintf(w, "revoke %s marks in the ledger: their (point, day)s are not whole\n", comma(int64(p.Marks)))
	}
	printFixes(w, p.Fixes)
	printFixes(w, p.Left)
	for _, text := range p.Warnings {
		fmt.Fprintf(w, "warning: %s\n", printableLine(text))
	}
	printFailures(w, p.Blocked)
}

// printFixes lists what is done, at most 50 of it.
func printFixes(w io.Writer, fixes []jobs.Fix) {
	for i, f := range fixes {
		if i == 50 {
			fmt.Fprintf(w, "  … and %d more; --json lists them all\n", len(fixes)-i)
			return
		}
		fmt.Fprint(w, f.Action)
		if f.Path != "" {
			fmt.Fprintf(w, "  %s", printableLine(f.Path))
		} else if f.Month != "" {
			fmt.Fprintf(w, "  %s", f.Month)
		}
		if f.PointID != 0 {
			fmt.Fprintf(w, "  (point %d %s)", f.PointID, printable(f.Point))
		}
		fmt.Fprintf(w, "\n  %s", printableLine(f.Text))
		if f.Days > 0 {
			fmt.Fprintf(w, "; %d days to be found, %d of them in the replica", f.Days, f.Replica)
		}
		fmt.Fprintln(w)
	}
}

func printRepair(w io.Writer, p *jobs.RepairPlan, r jobs.RepairReport) {
	if p.Empty() && len(r.Failed) == 0 {
		fmt.Fprintf(w, "Nothing to repair: %d months, %s month files, every byte read (%s).\n", p.Months, comma(p.Files), humanize.IBytes(uint64(p.Read)))
		printFixes(w, r.Left)
		return
	}
	fmt.Fprintf(w, "repair: %s month files written (%s samples), %d manifests rebuilt, %d entries refreshed, %s marks revoked; %s point-days read from the source; %s\n",
		comma(r.FilesWritten), comma(r.SamplesWritten), r.Manifests, r.Entries, comma(int64(r.Revoked)), comma(r.PointDaysRead), seconds(r.Elapsed))
	for i, l := range r.Lost {
		if i == 50 {
			fmt.Fprintf(w, "  … and %d more; --json lists them all\n", len(r.Lost)-i)
			break
		}
		fmt.Fprintf(w, "LOST: point %d %s, %s: ", l.PointID, printable(l.Point), l.Month)
		if l.Text != "" {
			fmt.Fprintf(w, "%s. ", printableLine(l.Text))
		}
		for j, d := range l.Days {
			if j > 0 {
				fmt.Fprint(w, ", ")
			}
			switch {
			case d.Samples < 0:
				fmt.Fprint(w, d.Day)
			case d.Left > 0:
				fmt.Fprintf(w, "%s (%d samples, %d are left)", d.Day, d.Samples, d.Left)
			default:
				fmt.Fprintf(w, "%s (%d samples)", d.Day, d.Samples)
			}
		}
		fmt.Fprintln(w)
	}
	if len(r.Lost) > 0 {
		fmt.Fprintln(w, "Neither the source nor a replica holds these; a replica that turns up later brings them back: `etl repair --replica URL`.")
	}
	printBilled(w, r.Billed)
	printFailures(w, r.Failed)
	printCutOff(w, r.Stopped, r.Interrupted)
}

// rangesText names days as ranges.
func rangesText(days []utc.Day) string {
	var parts []string
	for i := 0; i < len(days); {
		j := i
		for j+1 < len(days) && days[j+1] == days[j]+1 {
			j++
		}
		parts = append(parts, utc.Days{From: days[i], To: days[j] + 1}.String())
		i = j + 1
	}
	return strings.Join(parts, ", ")
}
