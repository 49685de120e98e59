package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"etl/internal/fault"
	"etl/internal/source"
	"etl/internal/source/sqlite"
	"etl/internal/utc"
	"etl/jobs"
	"etl/manifests"
)

// restoring are the flags of restore.
type restoring struct {
	places
	span
	opts    jobs.RestoreOptions
	keepHot bool
	file    string
	dryRun  bool
	workers count
	memory  size
}

func (a *app) restore() *cobra.Command {
	var c restoring
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Put archived days back into the source, or into a new SQLite file",
		Long: `restore writes the archived samples of a range back into D1 (or the SQLite file
that is the source), bit for bit, makes the points that it lacks with their ids,
and reads everything back. What is there already is not written again, so an
interrupted restore goes on where it stopped, and running it twice changes nothing.

A row that the source has, but otherwise, stays (--keep-hot, the default) or
yields to the archived one (--overwrite). A day that then equals the archive is
marked as archived, unless it is older than 30 days: the retention trigger would
take it out again. Old days stay until they are archived again (etl rearchive) and
pruned; --mark-old marks them, too.

--to-file writes a new SQLite file with tables, points and samples instead; it
needs no source. A file that exists is refused, unless the same restore began it. If
nothing is archived of the range no file is made (exit 1).

The archive ends with the last archived midnight. What D1 held of the hours after
it comes from D1's Time Travel alone; the plan says since when.`,
		Example: `  etl restore --last 30d --dry-run                     # rows, requests, what D1 bills, minutes
  etl restore --from 2024-01-05 --to 2024-02-01 --points 'Building1.*'
  etl restore --day 2024-01-05 --overwrite             # the archive is right, D1 is not
  etl restore --month 2024-01 --to-file january.sqlite # a slice to take home`,
	}
	c.addSource(cmd)
	c.addStore(cmd)
	c.span.add(cmd)
	addPoints(cmd, &c.opts.Points)
	f := cmd.Flags()
	f.BoolVar(&c.keepHot, "keep-hot", false, "where the source has another row, that stays (the default)")
	f.BoolVar(&c.opts.Overwrite, "overwrite", false, "where the source has another row, the archived one replaces it")
	f.BoolVar(&c.opts.MarkOld, "mark-old", false, "mark days older than 30 days too: retention and prune take them out again")
	f.StringVar(&c.file, "to-file", "", "write a new SQLite `FILE` instead of the source")
	f.BoolVar(&c.dryRun, "dry-run", false, "print the plan and do nothing")
	c.workers, c.memory = 4, 512<<20
	f.Var(&c.workers, "workers", "month files read at a time")
	f.Lookup("workers").DefValue = "4, for r2: and s3: 32"
	f.Var(&c.memory, "memory", "memory to stay within; half of it is for month files being read")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.runRestore(cmd.Context(), cmd, &c) }
	return cmd
}

func (a *app) runRestore(ctx context.Context, cmd *cobra.Command, c *restoring) error {
	if err := c.resolve(a, cmd); err != nil {
		return err
	}
	switch {
	case c.keepHot && c.opts.Overwrite:
		return fault.Errorf(fault.Usage, "--keep-hot and --overwrite exclude each other")
	case c.file != "" && (c.opts.Points.Group != "" || c.opts.MarkOld):
		return fault.Errorf(fault.Usage, "--to-file goes with neither --group nor --mark-old: a new file has no groups and no retention")
	case c.day+c.month+c.last+c.from+c.to == "":
		return fault.Hint(fault.Errorf(fault.Usage, "restore: which days?"),
			"give --day 2024-01-05, --month 2024-01, --last 7d, or --from 2024-01-05 --to 2024-02-01 (--to is exclusive)")
	}
	c.opts.Workers, c.opts.Memory = c.workersFor(cmd, c.workers), int64(c.memory)/2
	need := access{source: c.file == "", store: needed, readers: 2}
	if c.file != "" {
		c.source, c.noSource = "", true
	}
	env, done, err := c.open(ctx, a, need)
	if err != nil {
		return err
	}
	defer done()
	if c.opts.Days, err = c.span.days(0, utc.DayOfTime(env.Now())); err != nil {
		return err
	}
	discard := func() {}
	if c.file != "" {
		var closeFile func()
		if closeFile, discard, err = c.openFile(ctx, a, &env); err != nil {
			return err
		}
		defer closeFile()
	}
	c.opts.Pace = c.pace()
	plan, err := jobs.PlanRestore(ctx, env, c.opts)
	if err != nil {
		discard()
		return err
	}
	if c.file != "" && !c.dryRun && plan.PointDays == 0 {
		discard()
		if len(plan.Failed) > 0 {
			a.code = plan.ExitCode()
			return a.print(plan, func(w io.Writer) {
				fmt.Fprintf(w, "No file was made: what is archived of these days can not be read.\n")
				printFailures(w, plan.Failed)
			})
		}
		return fault.Hint(fault.Errorf(fault.NotExist, "--to-file %s: no file was made: nothing is archived of these points from %s to %s, both included", c.file, c.opts.Days.From, c.opts.Days.To-1),
			"`etl points` lists the first and the last sample of each point")
	}
	if c.dryRun {
		a.code = plan.ExitCode()
		return a.print(plan, func(w io.Writer) { printRestorePlan(w, c, plan) })
	}
	if !a.json && !a.quiet {
		printColdEnd(a.stderr, c, plan)
	}
	if ctx, err = a.finishing(); err != nil {
		return err
	}
	var stop func()
	env.Notify, stop = a.watch("restore")
	report, err := plan.Run(ctx, env)
	stop()
	a.code = report.ExitCode()
	perr := a.print(report, func(w io.Writer) {
		if err == nil || report.PointDays > 0 || len(report.Failed) > 0 {
			printRestore(w, c, plan, report)
		}
	})
	return cmp.Or(err, perr)
}

// workersFor is how many month files to read at a time: each waits for the
// network most of the time, where there is one.
func (p *places) workersFor(cmd *cobra.Command, n count) int {
	if !cmd.Flags().Changed("workers") && !strings.HasPrefix(p.store, "file:") {
		return 32
	}
	return int(n)
}

// pace is how many requests the source takes.
func (p *places) pace() jobs.Pace {
	if !strings.HasPrefix(p.source, "d1:") {
		return jobs.Pace{}
	}
	return jobs.Pace{Rate: float64(p.rate), Burst: float64(p.burst)}
}

// openFile makes the new file the source of env, or goes on with one that the same
// restore began: its log says so. discard closes it, and removes one that was made here:
// where nothing is written it would stand in the way of the next run.
func (c *restoring) openFile(ctx context.Context, a *app, env *jobs.Env) (done, discard func(), err error) {
	catalog, _, err := manifests.LoadPoints(ctx, env.Store)
	if err != nil {
		return nil, nil, err
	}
	// What is restored, and not from where: an archive may have moved.
	what, err := json.Marshal([]any{catalog.SourceID, c.opts.Days, c.opts.Points.Globs})
	if err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(what)
	c.opts.ID = "restore-" + hex.EncodeToString(sum[:8])
	_, err = os.Stat(c.file)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fault.Errorf(fault.Usage, "--to-file: %w", err)
	}
	path, clean := c.file, func() {}
	if c.dryRun && !exists { // an empty database that nobody sees
		dir, err := os.MkdirTemp("", "etl-restore-")
		if err != nil {
			return nil, nil, fault.Wrap(fault.Unavailable, err)
		}
		path, clean = filepath.Join(dir, "new.sqlite"), func() { os.RemoveAll(dir) }
	}
	file, err := sqlite.Open(path, sqlite.Options{Create: !exists, Readers: 2, ReadOnly: c.dryRun && exists, Now: c.clock()})
	if err != nil {
		clean()
		return nil, nil, err
	}
	done = sync.OnceFunc(func() { file.Close(); clean() })
	discard = func() {
		done()
		if !exists && !c.dryRun {
			for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
				os.Remove(path + suffix)
			}
		}
	}
	if exists {
		err = c.begun(ctx, file)
	} else if _, err = file.Migrate(ctx); err == nil {
		err = file.Log(ctx, source.Run{ID: c.opts.ID, Command: "restore", Status: "running", Started: env.Now(), Days: c.opts.Days})
	}
	if err != nil {
		discard()
		return nil, nil, err
	}
	env.Source, env.Ledger, env.Journal = file, nil, file
	return done, discard, nil
}

// begun refuses a file that another restore, or something else, made.
func (c *restoring) begun(ctx context.Context, file *sqlite.Source) error {
	refuse := fault.Hint(fault.Errorf(fault.Usage, "--to-file %s: there is a file already, and it was not begun by this restore", c.file),
		"name another file, or move that one away; a restore goes on only with the same range, points and archive")
	runs, err := file.Runs(ctx)
	if err != nil || !slices.ContainsFunc(runs, func(r source.Run) bool { return r.ID == c.opts.ID }) {
		return refuse
	}
	return nil
}

func (c *restoring) target() string {
	return cmp.Or(c.file, c.source)
}

func printRestorePlan(w io.Writer, c *restoring, p *jobs.RestorePlan) {
	if p.PointDays == 0 {
		fmt.Fprintf(w, "Nothing to restore: the archive holds none of these days of %s points.\n", comma(int64(p.Points)))
	} else {
		fmt.Fprintf(w, "restore would compare %s archived samples of %s point-days from %s to %s, both included, with %s,\nand write what it lacks", comma(p.Samples), comma(p.PointDays), *p.FirstDay, *p.LastDay, c.target())
		if c.opts.Overwrite {
			fmt.Fprint(w, " OR HAS OTHERWISE (--overwrite)")
		}
		fmt.Fprint(w, ".\n\n")
		t := newTable("month", "days", "points>", "point-days>", "samples>")
		for _, m := range p.Months {
			t.row(m.Month, fmt.Sprintf("%s to %s", m.FirstDay, m.LastDay), comma(int64(m.Points)), comma(m.PointDays), comma(m.Samples))
		}
		t.row("total", "", "", comma(p.PointDays), comma(p.Samples))
		t.print(w)
		fmt.Fprintf(w, "\nAbout %s in the database, if it has none of them.\n", humanize.Bytes(uint64(p.Bytes)))
	}
	if p.Billed != nil && p.Samples > 0 {
		e := p.Estimate
		fmt.Fprintf(w, "At most: %s rows written as D1 bills them (%.1f %% of the rows have an index entry too), %s read: %s beyond what is included;\n%s requests, %s at the API rate, or as long as D1 takes.\n",
			comma(e.RowsWritten), 100*e.Alarms, comma(e.RowsRead), dollars(e.Dollars), comma(e.Requests), minutes(e.Minutes))
	}
	if n := len(p.NewPoints); n > 0 {
		fmt.Fprintf(w, "%s points are missing and would be made with their ids: %s\n", comma(int64(n)), few(p.NewPoints))
	}
	if p.Old > 0 && c.file == "" {
		if c.opts.MarkOld {
			fmt.Fprintf(w, "%s point-days are older than 30 days and would be marked: the retention trigger takes them out again as rows arrive.\n", comma(p.Old))
		} else {
			fmt.Fprintf(w, "%s point-days are older than 30 days: they would stay unmarked, so that retention leaves them in. `etl rearchive` of them, then `etl prune`, takes them out.\n", comma(p.Old))
		}
	}
	printColdEnd(w, c, p)
	for _, text := range p.Warnings {
		fmt.Fprintf(w, "warning: %s\n", text)
	}
	printBilled(w, p.Billed)
	fmt.Fprintln(w, "Nothing was changed (--dry-run).")
	printFailures(w, p.Failed)
}

// printColdEnd says which window no archive can give back.
func printColdEnd(w io.Writer, c *restoring, p *jobs.RestorePlan) {
	if p.ColdEnd == nil || c.file != "" {
		return
	}
	fmt.Fprintf(w, "The archive ends at %s 00:00 UTC. The %.1f hours since then are in D1 and its Time Travel alone (`wrangler d1 time-travel`).\n",
		*p.ColdEnd, max(0, p.Now.Sub(p.ColdEnd.Time()).Hours()))
	if p.Behind > 0 {
		fmt.Fprintf(w, "Of %s points it ends earlier.\n", comma(int64(p.Behind)))
	}
}

func printRestore(w io.Writer, c *restoring, p *jobs.RestorePlan, r jobs.RestoreReport) {
	fmt.Fprintf(w, "restore: %s samples of %s point-days are in %s: %s written and read back, %s were there", comma(r.Samples), comma(r.PointDays), c.target(), comma(r.Written), comma(r.Already))
	if r.Kept > 0 {
		fmt.Fprintf(w, ", %s are there otherwise and stayed (--overwrite replaces them)", comma(r.Kept))
	}
	fmt.Fprintf(w, "; %s, %s samples/s\n", seconds(r.Elapsed), comma(int64(float64(r.Samples)/max(r.Elapsed, 1e-3))))
	if r.PointsMade > 0 {
		fmt.Fprintf(w, "points: %s were made, with their ids\n", comma(int64(r.PointsMade)))
	}
	if r.FilesNewer > 0 {
		fmt.Fprintf(w, "%s month files are newer than their manifest; only the days that it counts were taken\n", comma(r.FilesNewer))
	}
	if c.file == "" {
		fmt.Fprintf(w, "marked as archived: %s point-days", comma(r.DaysMarked))
		if p.Old > 0 && !c.opts.MarkOld {
			fmt.Fprintf(w, "; %s are older than 30 days and stay unmarked, so that retention leaves them in", comma(p.Old))
		}
		fmt.Fprintln(w)
	}
	printBilled(w, r.Billed)
	printFailures(w, r.Failed)
	printEnd(w, r.Stopped, r.Interrupted)
}

// printEnd says why a job did not come to its end.
func printEnd(w io.Writer, stopped string, interrupted bool) {
	if stopped != "" {
		fmt.Fprintln(w, "stopped: the rest was not tried; what was done stays, and running the command again does the rest")
	}
	if interrupted {
		fmt.Fprintln(w, "interrupted: what was done stays; run the command again for the rest")
	}
}

// few names some of a list.
func few(names []string) string {
	const most = 5
	shown := make([]string, 0, most)
	for _, n := range names[:min(len(names), most)] {
		shown = append(shown, printable(n))
	}
	if len(names) > most {
		shown = append(shown, "…")
	}
	return strings.Join(shown, ", ")
}

func dollars(d float64) string {
	if d > 0 && d < 0.01 {
		return "less than $0.01"
	}
	return fmt.Sprintf("$%.2f", d)
}

func minutes(m float64) string {
	if m < 1 {
		return "less than a minute"
	}
	return fmt.Sprintf("%.0f minutes", m)
}
