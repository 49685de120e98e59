// Command etl archives time series from Cloudflare D1 to R2 and proves the
// archive whole. `etl --help` lists its commands.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"etl/internal/fault"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	stop := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // lives as long as the process
		<-signals
		fmt.Fprintln(os.Stderr, "\netl: stopping: what is in flight is being finished and committed; press Ctrl-C again to stop at once")
		close(stop)
		<-signals
		cancel()
	}()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, stop, os.Stdin, os.Stdout, os.Stderr))
}

// app is what the commands share.
type app struct {
	getenv         func(string) string
	stop           <-chan struct{}
	stdin          io.Reader
	stdout, stderr io.Writer
	json           bool
	quiet          bool
	// result also receives the result of a command, if it is set: the demo reads it.
	result func(any)
	// code is the exit code of a command that ran to its end.
	code int
}

// run is the whole program: it returns the exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stop <-chan struct{}, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{getenv: getenv, stop: stop, stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return a.code
	}
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "etl: stopped; what was committed stays, and running the command again does the rest")
		return fault.ExitInterrupted
	}
	fmt.Fprintf(stderr, "etl: %s\n", oneLine(err.Error()))
	if h := fault.HintOf(err); h != "" {
		fmt.Fprintf(stderr, "     %s\n", h)
	}
	return fault.Worse(a.code, fault.ExitCode(err))
}

func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n     ") }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "etl",
		Short: "Archive time series from Cloudflare D1 to R2, and prove the archive whole",
		Long: `etl moves each UTC day of samples from Cloudflare D1 (or a SQLite file) to R2
(or a folder): one compact Parquet file per point and month, one manifest per
month. It never loses or doubles a sample, and running a command twice is safe.

Exit codes: 0 ok · 1 error · 2 usage · 3 findings, or a part failed · 4 corrupt ·
5 may pass, run again · 130 interrupted. The worst wins: 130 > 4 > 1 > 5 > 3.`,
		Example: `  etl demo                                          # the whole job in ./demo, no account needed
  etl migrate   --source sqlite:d1.sqlite           # create or update the tables
  etl backfill  --month 2024-01 --dry-run           # what would be archived
  etl archive                                       # the nightly job
  etl verify    --deep                              # prove that the archive is whole`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fault.Hint(fault.Wrap(fault.Usage, err), "`%s --help` lists the flags", cmd.CommandPath())
	})
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print one JSON object on standard output instead of a table")
	root.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "no progress and no log, only warnings, errors and the result")
	root.AddCommand(a.migrate(), a.archive(), a.backfill(), a.rearchive(), a.verify(), a.points(), a.rejects(), a.config(), a.demo(), a.version())
	usage(root)
	return root
}

// usage makes wrong arguments and unknown commands usage errors.
func usage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fault.Hint(fault.Wrap(fault.Usage, err), "`%s --help` shows what it takes", c.CommandPath())
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		usage(c)
	}
}
