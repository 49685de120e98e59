package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"etl/internal/fault"
	"etl/internal/utc"
	"etl/jobs"
)

// pruning are the flags of prune.
type pruning struct {
	places
	span
	opts    jobs.PruneOptions
	older   days
	most    rowCount
	yes     bool
	dryRun  bool
	workers count
	memory  size
}

func (a *app) prune() *cobra.Command {
	var c pruning
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Free space in the source: delete days that are safely archived",
		Long: `prune deletes rows of days older than --older-than from D1 (or the SQLite file
that is the source). A day of a point goes only if the ledger has it marked as
archived, the month file's bytes are read and are those that the manifest names,
and every row of the day equals a row of that file, bit for bit. The statement that
deletes checks once more that the mark is the same and that the rows are as many as
were compared. So a row that arrives in between keeps its day.

Other days stay, and the result says how many and why. Before the first delete the
Time Travel bookmark of a D1 database is printed: it is the way back for 30 days.

On a terminal it asks; elsewhere it wants --yes. It can be stopped at any moment.
Exit 3: a marked day differs from its month file. 4: a month file is damaged.`,
		Example: `  etl prune --dry-run                       # days, rows, what D1 bills, minutes
  etl prune --yes                           # in cron, after etl archive and etl verify
  etl prune --older-than 60d --points 'Building1.*'
  etl prune --max-rows 10000000 --yes       # a part of it, the rest another night`,
	}
	c.addSource(cmd)
	c.addStore(cmd)
	c.addNoState(cmd)
	c.span.add(cmd)
	addPoints(cmd, &c.opts.Points)
	f := cmd.Flags()
	c.older = jobs.HotWindow
	f.Var(&c.older, "older-than", "how old a day must be")
	f.Var(&c.most, "max-rows", "stop after about so many rows")
	f.Lookup("max-rows").DefValue = ""
	f.BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&c.dryRun, "dry-run", false, "print the plan and do nothing")
	c.workers, c.memory = 4, 512<<20
	f.Var(&c.workers, "workers", "month files read at a time")
	f.Lookup("workers").DefValue = "4, for r2: and s3: 32"
	f.Var(&c.memory, "memory", "memory to stay within; half of it is for month files being read")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.runPrune(cmd.Context(), cmd, &c) }
	return cmd
}

func (a *app) runPrune(ctx context.Context, cmd *cobra.Command, c *pruning) error {
	if err := c.resolve(a, cmd); err != nil {
		return err
	}
	env, done, err := c.open(ctx, a, access{source: true, store: needed, readers: 2})
	if err != nil {
		return err
	}
	defer done()
	o := &c.opts
	o.OlderThan, o.MaxRows = int(c.older), int64(c.most)
	o.Workers, o.Memory, o.Pace = c.workersFor(cmd, c.workers), int64(c.memory)/2, c.pace()
	if o.Days, err = c.span.days(1, utc.DayOfTime(env.Now())-utc.Day(c.older)); err != nil {
		return err
	}
	plan, err := jobs.PlanPrune(ctx, env, *o)
	if err != nil {
		return err
	}
	if c.dryRun {
		a.code = plan.ExitCode()
		return a.print(plan, func(w io.Writer) {
			printPrunePlan(w, c, plan)
			fmt.Fprintln(w, "Nothing was changed (--dry-run).")
			printFailures(w, plan.Failed)
		})
	}
	if !plan.Empty() && !c.yes {
		if err := a.askPrune(c, plan); err != nil {
			return err
		}
	}
	if ctx, err = a.finishing(); err != nil {
		return err
	}
	var stop func()
	env.Notify, stop = a.watch("prune")
	report, err := plan.Run(ctx, env)
	stop()
	a.code = report.ExitCode()
	perr := a.print(report, func(w io.Writer) {
		if err == nil || report.Rows > 0 || len(report.Failed) > 0 {
			printPrune(w, c, plan, report)
		}
	})
	return cmp.Or(err, perr)
}

// askPrune shows the plan on standard error and asks for a yes.
func (a *app) askPrune(c *pruning, plan *jobs.PrunePlan) error {
	in, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return fault.Hint(fault.Errorf(fault.Usage, "prune: about %s rows would be deleted from %s, and there is no terminal to ask", comma(plan.Rows), c.source),
			"look at `etl prune --dry-run`, then give --yes")
	}
	printPrunePlan(a.stderr, c, plan)
	fmt.Fprintf(a.stderr, "Delete them from %s? [y/N] ", c.source)
	answer := make(chan string, 1)
	go func() { // ends with the line, or with the process
		line, _ := bufio.NewReader(in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-answer:
		if line == "y" || line == "yes" {
			return nil
		}
	case <-a.stop.Done():
		return context.Canceled
	}
	return fault.Errorf(fault.Invalid, "prune: nothing was deleted: the answer was not yes")
}

func printPrunePlan(w io.Writer, c *pruning, p *jobs.PrunePlan) {
	if p.Empty() {
		fmt.Fprintf(w, "Nothing to prune: no marked day before %s of %s points has rows here.\n", p.Before, comma(int64(p.Points)))
	} else {
		fmt.Fprintf(w, "prune would delete up to %s rows of %s point-days from %s to %s, both included (older than %d days),\neach day after it was compared with the archive.\n\n",
			comma(p.Rows), comma(p.PointDays), *p.FirstDay, *p.LastDay, p.OlderThan)
		t := newTable("month", "days", "points>", "point-days>", "rows>")
		for _, m := range p.Months {
			t.row(m.Month, fmt.Sprintf("%s to %s", m.FirstDay, m.LastDay), comma(int64(m.Points)), comma(m.PointDays), comma(m.Rows))
		}
		t.row("total", "", "", comma(p.PointDays), comma(p.Rows))
		t.print(w)
		fmt.Fprintln(w)
	}
	if c.most > 0 && p.Rows > int64(c.most) {
		fmt.Fprintf(w, "It would stop after about %s rows (--max-rows).\n", comma(int64(c.most)))
	}
	if p.Billed != nil && !p.Empty() {
		e := p.Estimate
		fmt.Fprintf(w, "At most %s rows written as D1 bills them (%.1f %% of the rows have an index entry too), %s read: %s beyond what is included;\n%s requests, %s at the API rate, or as long as D1 takes.\n",
			comma(e.RowsWritten), 100*e.Alarms, comma(e.RowsRead), dollars(e.Dollars), comma(e.Requests), minutes(e.Minutes))
	}
	printDeferred(w, p.Deferred)
	for _, text := range p.Warnings {
		fmt.Fprintf(w, "warning: %s\n", text)
	}
	printBilled(w, p.Billed)
}

func printDeferred(w io.Writer, list []jobs.Deferral) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(w, "These stay:")
	for _, d := range list {
		fmt.Fprintf(w, "  %s point-days", comma(d.PointDays))
		if d.Rows > 0 {
			fmt.Fprintf(w, " (%s rows)", comma(d.Rows))
		}
		fmt.Fprintf(w, " from %s to %s, %s: %s (%s)\n    → %s\n", d.FirstDay, d.LastDay, printable(d.Example), d.Text, d.Reason, d.Remedy)
	}
}

func printPrune(w io.Writer, c *pruning, p *jobs.PrunePlan, r jobs.PruneReport) {
	if p.Empty() {
		printPrunePlan(w, c, p)
		printFailures(w, r.Failed)
		return
	}
	fmt.Fprintf(w, "prune: %s rows of %s point-days deleted from %s, each equal to an archived one; %s compared with %s month files; %s, %s rows/s\n",
		comma(r.Rows), comma(r.PointDays), c.source, comma(r.Compared), comma(r.FilesRead), seconds(r.Elapsed), comma(int64(float64(r.Rows)/max(r.Elapsed, 1e-3))))
	if r.Limited {
		fmt.Fprintln(w, "stopped at --max-rows; running it again does more")
	}
	printDeferred(w, r.Deferred)
	printBilled(w, r.Billed)
	printFailures(w, r.Failed)
	printEnd(w, r.Stopped, r.Interrupted)
}

// rowCount is a flag of a number of rows.
type rowCount int64

func (n *rowCount) String() string { return strconv.FormatInt(int64(*n), 10) }
func (n *rowCount) Type() string   { return "rows" }
func (n *rowCount) Set(v string) error {
	i, err := strconv.ParseInt(v, 10, 64)
	if err != nil || i < 1 {
		return fault.Errorf(fault.Usage, "want a number of rows, at least 1, got %q", v)
	}
	*n = rowCount(i)
	return nil
}
