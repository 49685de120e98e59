package main

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"etl/internal/source"
	"etl/internal/source/files"
	"etl/internal/utc"
	"etl/jobs"
)

// archiving is the common part of archive, backfill and rearchive.
type archiving struct {
	places
	span
	engine
	history
	opts   jobs.ArchiveOptions
	dryRun bool
	strict bool
}

func (a *app) archive() *cobra.Command {
	return a.archiveCommand(&cobra.Command{
		Use:   "archive",
		Short: "The nightly job: archive every complete day of the hot window that is not archived, or has changed",
		Long: `archive brings the cold tier up to date with the source: yesterday, days that
earlier runs missed, and days in which rows arrived or changed after they were
archived. It looks back over the hot window (35 days); --from, --to and the other
ranges narrow that. A day is complete one hour (--grace) after its end, UTC.

Running it again is safe: it does what is left, and nothing twice.`,
		Example: `  etl archive --source sqlite:d1.sqlite --store file:archive
  etl archive --dry-run                # what would be read, and what is archived already
  etl archive --last 3d --json         # only the last three complete days, result as JSON`,
	}, jobs.Archive)
}

func (a *app) backfill() *cobra.Command {
	return a.archiveCommand(&cobra.Command{
		Use:   "backfill",
		Short: "Archive a range of days, skipping what is archived already",
		Long: `backfill archives the (point, day)s of a range that the cold tier does not hold
yet. It is cut into months and batches of points: an interrupted run keeps what
it finished, and running it again does the rest.

With --input the rows come from files of history instead: CSV (plain, gzip, zstd)
or Parquet with the columns point_name, timestamp or timestamp_ms, value and, if
there are any, quality and flags. Names that the source's points lack are made
there first. Without a range it takes the days that the files hold. A line that
can not be archived is a rejected row with its file and line. The files are sorted
first, which takes about 30 bytes of disk a row in --work-dir.`,
		Example: `  etl backfill --month 2024-01 --dry-run
  etl backfill --input 'history/*.csv.gz' --dry-run       # years before D1, from files
  etl backfill --from 2023-06-01 --to 2024-01-01          # --to is exclusive
  etl backfill --last 30d --points 'Building1.*' --memory 1GiB`,
	}, jobs.Backfill)
}

func (a *app) rearchive() *cobra.Command {
	return a.archiveCommand(&cobra.Command{
		Use:   "rearchive",
		Short: "Archive a range of days again, all of it",
		Long: `rearchive reads a range of days again and merges it with what is archived: new
rows are added, changed ones corrected, and nothing is removed. Files whose rows
stay the same are not written again.

With --replace the source is authoritative: archived samples of the range that it
no longer has are removed. It refuses days that the source may have trimmed (older
than 30 days, or recorded as pruned), since their only copy may be the archive;
--allow-loss overrides that and prints how many samples would go.

With --input the rows come from files of history, as with backfill, and win over
what is archived.`,
		Example: `  etl rearchive --day 2024-01-05
  etl rearchive --month 2024-01 --points '*Zone1*'
  etl rearchive --day 2024-01-05 --replace --dry-run`,
	}, jobs.Rearchive)
}

func (a *app) archiveCommand(cmd *cobra.Command, mode jobs.Mode) *cobra.Command {
	var c archiving
	c.addSource(cmd)
	c.addStore(cmd)
	c.addNoState(cmd)
	c.span.add(cmd)
	c.engine.add(cmd)
	addPoints(cmd, &c.opts.Points)
	f := cmd.Flags()
	f.BoolVar(&c.dryRun, "dry-run", false, "print the plan and do nothing")
	f.BoolVar(&c.strict, "strict", false, "rejected rows are findings: exit 3")
	f.BoolVar(&c.opts.Adopt, "adopt", false, "write into a cold tier that another source began")
	if mode != jobs.Archive {
		c.history.add(cmd)
	}
	if mode == jobs.Rearchive {
		f.BoolVar(&c.opts.Replace, "replace", false, "remove archived samples of the range that the source no longer has")
		f.BoolVar(&c.opts.AllowLoss, "allow-loss", false, "with --replace: also on days that the source may have trimmed")
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.runArchive(cmd.Context(), cmd, &c, mode) }
	return cmd
}

func (a *app) runArchive(ctx context.Context, cmd *cobra.Command, c *archiving, mode jobs.Mode) error {
	if err := c.resolve(a, cmd); err != nil {
		return err
	}
	if err := cmp.Or(c.span.check(), c.history.checkInput(&c.opts)); err != nil {
		return err
	}
	// The folder of the store is made only once there is a plan to run.
	env, done, err := c.open(ctx, a, access{source: true, store: perhaps, readers: int(c.extract) + 2})
	if err != nil {
		return err
	}
	defer done()
	o := c.engine.options(mode)
	o.Points, o.Replace, o.AllowLoss, o.Adopt = c.opts.Points, c.opts.Replace, c.opts.AllowLoss, c.opts.Adopt
	begin, end, err := jobs.Complete(ctx, env, o)
	if err != nil {
		return err
	}
	if mode != jobs.Archive {
		begin = 0 // a range must be meant
	}
	if o.Days, err = c.span.days(begin, end); err != nil {
		return err
	}
	var input *files.Source
	if len(c.input) > 0 {
		if o.Days != (utc.Days{}) { // a wrong range should not cost reading the files
			if err := jobs.CheckRange(ctx, env, o); err != nil {
				return err
			}
		}
		if input, err = c.history.stage(ctx, a, &env, c, mode); err != nil {
			return err
		}
		defer input.Close()
	}
	plan, err := jobs.PlanArchive(ctx, env, o)
	if err != nil {
		return err
	}
	if input != nil {
		plan.Warnings = append(plan.Warnings, input.Summary().Warnings()...)
	}
	if c.dryRun {
		if err := plan.Estimate(ctx, env); err != nil {
			return err
		}
		plan.Billed = env.Billed()
		a.code = plan.ExitCode()
		return a.print(plan, func(w io.Writer) {
			if input != nil {
				printInput(w, input.Summary(), true)
			}
			printPlan(w, plan)
		})
	}
	if plan.AtRisk > 0 {
		fmt.Fprintf(a.stderr, "etl: %s archived samples are no longer in the source and will be removed from the archive\n", humanize.Comma(plan.AtRisk))
	}
	if env.Store, err = c.openStore(ctx, created); err != nil {
		return err
	}
	if ctx, err = a.finishing(); err != nil {
		return err
	}
	var stop func()
	env.Notify, stop = a.watch(string(mode))
	report, err := plan.Run(ctx, env)
	stop()
	a.code = report.ExitCode(c.strict)
	perr := a.print(report, func(w io.Writer) {
		if err == nil || report.PointDays > 0 || len(report.Failed) > 0 { // else the error says it all
			if input != nil {
				printInput(w, input.Summary(), false)
			}
			printReport(w, plan, report)
			if input != nil && mode == jobs.Backfill && plan.Archived > 0 {
				fmt.Fprintf(w, "left alone: %s point-days of the input are archived already; `etl rearchive --input` merges them\n", comma(plan.Archived))
			}
		}
	})
	return cmp.Or(err, perr)
}

func printPlan(w io.Writer, p *jobs.ArchivePlan) {
	if p.Empty() {
		fmt.Fprintln(w, nothing(p))
		printFailures(w, p.Failed)
		return
	}
	days := fmt.Sprintf("from %s to %s, both included", *p.FirstDay, *p.LastDay)
	if *p.FirstDay == *p.LastDay {
		days = fmt.Sprintf("of %s", *p.FirstDay)
	}
	fmt.Fprintf(w, "%s would read %s point-days %s.\n\n", p.Command, comma(p.PointDays), days)
	t := newTable("month", "days", "points>", "point-days to read>", "archived already>")
	for _, m := range p.Months {
		t.row(m.Month, fmt.Sprintf("%s to %s", m.FirstDay, m.LastDay), comma(int64(m.Points)), comma(m.PointDays), comma(m.Archived))
	}
	t.row("total", "", "", comma(p.PointDays), comma(p.Archived))
	t.print(w)
	fmt.Fprintf(w, "\nAbout %s rows to read.", comma(p.EstimatedRows))
	if p.Late > 0 {
		fmt.Fprintf(w, "\n%s of the point-days are archived already; rows arrived or changed since, or were rejected.", comma(p.Late))
	}
	if p.AtRisk > 0 {
		fmt.Fprintf(w, "\nREPLACE WOULD REMOVE about %s archived samples that the source no longer has.", comma(p.AtRisk))
	}
	fmt.Fprintln(w)
	for _, text := range p.Warnings {
		fmt.Fprintf(w, "warning: %s\n", printableLine(text))
	}
	printBilled(w, p.Billed)
	fmt.Fprintln(w, "Nothing was changed (--dry-run).")
	printFailures(w, p.Failed)
}

// nothing says why there is nothing to do.
func nothing(p *jobs.ArchivePlan) string {
	switch {
	case p.Points == 0:
		return fmt.Sprintf("Nothing to %s: the source has no points yet.", p.Command)
	case len(p.Failed) > 0:
		return fmt.Sprintf("Nothing to %s in the months that can be read.", p.Command)
	case p.Command == jobs.Archive:
		return fmt.Sprintf("Nothing to archive: all %s point-days from %s to %s are archived and unchanged.", comma(p.Archived), p.Range.From, p.Range.To-1)
	}
	return fmt.Sprintf("Nothing to %s: all %s point-days from %s to %s are archived already.", p.Command, comma(p.Archived), p.Range.From, p.Range.To-1)
}

func printReport(w io.Writer, p *jobs.ArchivePlan, r jobs.Report) {
	if p.Empty() && len(r.Failed) == 0 {
		fmt.Fprintln(w, nothing(p))
		printRejected(w, r)
		printBilled(w, r.Billed)
		return
	}
	if len(r.Months) > 0 {
		t := newTable("month", "days", "points>", "point-days>", "samples read>", "files written>", "bytes>", "B/sample>")
		for _, m := range r.Months {
			t.row(m.Month, fmt.Sprintf("%s to %s", m.FirstDay, m.LastDay), comma(int64(m.Points)), comma(m.Slices), comma(m.SamplesRead),
				comma(m.FilesWritten), humanize.IBytes(uint64(m.BytesWritten)), perSample(m.BytesWritten, m.SamplesWritten))
		}
		t.print(w)
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%s: %s samples read, %s added, %s corrected", r.Command, comma(r.SamplesRead), comma(r.SamplesAdded), comma(r.SamplesReplaced))
	if r.SamplesRemoved > 0 {
		fmt.Fprintf(w, ", %s REMOVED", comma(r.SamplesRemoved))
	}
	checked := "checked"
	if r.FilesChecked < r.FilesWritten { // it was stopped at once, or a commit failed
		checked = fmt.Sprintf("%s of them committed and checked", comma(r.FilesChecked))
	}
	fmt.Fprintf(w, "; %s files written (%s, %s), %s unchanged; %s, %s samples/s\n", comma(r.FilesWritten), humanize.IBytes(uint64(r.BytesWritten)), checked,
		comma(r.FilesUnchanged), seconds(r.Elapsed), comma(int64(float64(r.SamplesRead)/max(r.Elapsed, 1e-3))))
	if p.Late > 0 {
		fmt.Fprintf(w, "late: %s of the point-days were archived before; rows arrived or changed since, or were rejected\n", comma(p.Late))
	}
	printRejected(w, r)
	printBilled(w, r.Billed)
	printFailures(w, r.Failed)
	if r.Stopped != "" {
		fmt.Fprintln(w, "stopped: the rest was not tried; what was committed stays, and running the command again does the rest")
	}
	if r.Interrupted {
		fmt.Fprintln(w, "interrupted: what was committed stays; run the command again for the rest")
	}
}

func printRejected(w io.Writer, r jobs.Report) {
	if r.SamplesRejected > 0 {
		fmt.Fprintf(w, "rejected: %s rows can not be archived; `etl rejects` shows them and how to mend them\n", comma(r.SamplesRejected))
	}
}

// printBilled says what the source was asked for, where that is billed.
func printBilled(w io.Writer, u *source.Usage) {
	if u == nil {
		return
	}
	fmt.Fprintf(w, "billed by D1: %s rows read, %s rows written, in %s requests", comma(u.RowsRead), comma(u.RowsWritten), comma(u.Requests))
	if u.Retries > 0 {
		fmt.Fprintf(w, " (%s of them repeated)", comma(u.Retries))
	}
	fmt.Fprintln(w)
}

// printFailures lists what failed, at most 20 of it.
func printFailures(w io.Writer, failed []jobs.Failure) {
	if len(failed) == 0 {
		return
	}
	fmt.Fprintf(w, "\nFAILED (%d):\n", len(failed))
	hint := ""
	for i, f := range failed {
		if i == 20 {
			fmt.Fprintf(w, "  … and %d more; --json lists them all\n", len(failed)-i)
			break
		}
		fmt.Fprintf(w, "  %s: %s\n", f.Kind, oneLine(f.Error))
		if f.Hint != hint && f.Hint != "" {
			fmt.Fprintf(w, "    → %s\n", oneLine(f.Hint))
			hint = f.Hint
		}
	}
}
