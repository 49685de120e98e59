package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"etl/internal/fault"
	"etl/jobs"
)

func (a *app) replicate() *cobra.Command {
	var (
		p      places
		s      span
		to     second
		o      jobs.ReplicateOptions
		from   string
		dryRun bool
		memory = size(512 << 20)
	)
	cmd := &cobra.Command{
		Use:   "replicate",
		Short: "Copy the cold tier to another store; only what has changed",
		Long: `replicate makes another store a complete copy of the cold tier: a folder, a
bucket, of the same kind or not. It compares the manifests of both and copies the
month files whose hash differs, then the manifest of each month, made of what was
copied; also the catalog of points and the rejected rows. No file is copied whose
bytes are not those that were archived. An interrupted run is taken up by the next.

What the destination holds and this cold tier lacks is named, and nothing of it is
overwritten: exit 1. --prune-destination removes it; nothing else ever deletes a
month file.

The copy is a cold tier of its own: verify, query and archive work on it with
--store. Its keys are the store's, or ETL_REPLICA_ACCESS_KEY_ID and
ETL_REPLICA_SECRET_ACCESS_KEY. replica: URL in etl.yaml is the default of --to.

Exit 0: it is a copy now. 3: a file is newer than its manifest, and is copied next
time. 4: a file here is damaged: repair it.`,
		Example: `  etl replicate --to file:/mnt/backup/archive
  etl replicate --to s3://backup/etl?region=eu-central-1 --dry-run
  etl verify    --deep --store file:/mnt/backup/archive
  etl replicate --from-store file:/mnt/backup/archive --to r2://archive   # the way back`,
	}
	p.addStore(cmd)
	to.add(cmd, &p, "to", "destination: `URL`, as --store")
	f := cmd.Flags()
	f.StringVar(&s.month, "month", "", "only one `MONTH`, like 2024-01") // --from and --to are places here
	f.StringVar(&from, "from-store", "", "copy this store, `URL`, instead of --store")
	f.BoolVar(&o.Prune, "prune-destination", false, "REMOVE from the destination what this cold tier does not have")
	f.BoolVar(&dryRun, "dry-run", false, "print the plan and do nothing")
	workers := count(4)
	f.Var(&workers, "workers", "files at a time")
	f.Lookup("workers").DefValue = "4, for r2: and s3: 32"
	f.Var(&memory, "memory", "memory to stay within; half of it is for files in flight")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.resolve(a, cmd); err != nil {
			return err
		}
		if from != "" {
			p.store, p.storeFlag = from, "from-store"
		}
		if to.url == "" {
			return fault.Hint(fault.Errorf(fault.Usage, "replicate: where to?"), "give --to URL, or write `replica: URL` into etl.yaml")
		}
		if !cmd.Flags().Changed("workers") && !(strings.HasPrefix(p.store, "file:") && strings.HasPrefix(to.url, "file:")) {
			workers = 32 // each waits for the network most of the time
		}
		o.Workers, o.Memory = int(workers), int64(memory)/2
		p.source, p.noSource = "", true
		ctx := cmd.Context()
		env, done, err := p.open(ctx, a, access{store: needed})
		if err != nil {
			return err
		}
		defer done()
		dest, err := to.open(ctx, &p, "to", perhaps)
		if err != nil {
			return err
		}
		if o.Days, err = s.filter(env); err != nil {
			return err
		}
		plan, err := jobs.PlanReplicate(ctx, env, dest, o)
		if err != nil {
			return err
		}
		if dryRun {
			a.code = plan.ExitCode()
			return a.print(plan, func(w io.Writer) { printReplicatePlan(w, plan) })
		}
		if err := plan.Err(); err != nil {
			a.code = plan.ExitCode()
			return cmp.Or(a.print(plan, func(w io.Writer) { printReplicatePlan(w, plan) }), err)
		}
		if dest, err = to.open(ctx, &p, "to", created); err != nil {
			return err
		}
		plan.To(dest)
		if ctx, err = a.finishing(); err != nil {
			return err
		}
		var stop func()
		env.Notify, stop = a.watch("replicate")
		r, err := plan.Run(ctx, env)
		stop()
		a.code = r.ExitCode()
		return cmp.Or(err, a.print(r, func(w io.Writer) { printReplicate(w, plan, r) }))
	}
	return cmd
}

func printReplicatePlan(w io.Writer, p *jobs.ReplicatePlan) {
	for i, r := range p.Refused {
		if i == 20 {
			fmt.Fprintf(w, "  … and %d more; --json lists them all\n", len(p.Refused)-i)
			break
		}
		fmt.Fprintf(w, "REFUSED: the destination holds what the source lacks: point %d %s, %s: %s\n", r.PointID, printable(r.Point), r.Month, rangesText(r.Days))
	}
	if p.Empty() {
		fmt.Fprintf(w, "Nothing to replicate: all %s month files are in the destination.\n", comma(int64(p.Same)))
		return
	}
	if len(p.Months) > 0 {
		t := newTable("month", "files to copy>", "bytes>", "same>", "to remove>")
		for _, m := range p.Months {
			t.row(m.Month, comma(int64(m.Files)), humanize.IBytes(uint64(m.Bytes)), comma(int64(m.Same)), comma(int64(m.Remove)))
		}
		t.print(w)
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "replicate would copy %s month files (%s) and %s files of rejected rows; %s are there already", comma(int64(p.Files)), humanize.IBytes(uint64(p.Bytes)), comma(int64(p.Rejects)), comma(int64(p.Same)))
	if p.Remove > 0 {
		fmt.Fprintf(w, "; it would REMOVE %s month files from the destination", comma(int64(p.Remove)))
	}
	fmt.Fprintln(w, ".\nNothing was changed.")
	printFailures(w, p.Failed)
}

func printReplicate(w io.Writer, p *jobs.ReplicatePlan, r jobs.ReplicateReport) {
	if p.Empty() {
		fmt.Fprintf(w, "Nothing to replicate: all %s month files are in the destination.\n", comma(int64(p.Same)))
		return
	}
	fmt.Fprintf(w, "replicate: %s month files copied (%s), %s there already; %s manifests written; %s files of rejected rows; %s\n", comma(r.Files), humanize.IBytes(uint64(r.Bytes)),
		comma(int64(r.Same)), comma(int64(r.Manifests)), comma(int64(r.Rejects)), seconds(r.Elapsed))
	if r.Removed > 0 {
		fmt.Fprintf(w, "removed from the destination: %s month files\n", comma(int64(r.Removed)))
	}
	for i, f := range r.Pending {
		if i == 20 {
			fmt.Fprintf(w, "  … and %d more\n", len(r.Pending)-i)
			break
		}
		fmt.Fprintf(w, "left: %s: %s\n", printableLine(f.Path), f.Text)
	}
	printFailures(w, r.Failed)
	printCutOff(w, r.Stopped, r.Interrupted)
}

func printCutOff(w io.Writer, stopped string, interrupted bool) {
	if stopped != "" {
		fmt.Fprintln(w, "stopped: the rest was not tried; running the command again does the rest")
	}
	if interrupted {
		fmt.Fprintln(w, "interrupted: what was done stays; run the command again for the rest")
	}
}
