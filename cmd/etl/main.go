// Command etl archives time series from Cloudflare D1 to R2 and proves the
// archive whole. `etl --help` lists its commands.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	_ "time/tzdata" // --tz, on machines that have no zones

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"etl/internal/config"
	"etl/internal/fault"
	"etl/internal/secret"
	"etl/internal/source"
	"etl/internal/timing"
)

func main() { os.Exit(program()) }

// program is run in this process.
func program() int {
	// The first signal ends stop, the second one ctx.
	ctx, cancel := context.WithCancel(context.Background())
	stop, firstSignal := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // lives as long as the process
		<-signals
		firstSignal()
		<-signals
		cancel()
	}()
	return run(ctx, stop, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
}

// ownInterrupts takes the interrupts of the terminal from main, until they are
// given back: at the prompt of a shell they end a query, not the program.
func ownInterrupts() (interrupts <-chan os.Signal, giveBack func()) {
	signal.Reset(os.Interrupt)
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt)
	return c, func() { signal.Stop(c) }
}

// app is what the commands share.
type app struct {
	getenv func(string) string
	// stop ends at the first interrupt, and so does the context of each command;
	// whole ends at the second. See finishing.
	stop, whole    context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
	json           bool
	quiet          bool
	// nested is set where the demo types a command.
	nested bool
	// result also receives the result of a command, if it is set: the demo reads it.
	result   func(any)
	warnings warnings
	// retries counts the requests that were sent again.
	retries fault.Counter
	// timings asks for the table of where the time went, rec records it (nil
	// without), told says that it was given as JSON; billed is what D1 bills.
	timings, told bool
	rec           *timing.Recorder
	billed        func() source.Usage
	// secrets are those of the settings: no message holds one.
	secrets secret.Set
	// code is the exit code of a command that ran to its end.
	code int
}

// run is the whole program: it returns the exit code. The end of stop asks it
// to stop in good order, the end of ctx to stop at once.
func run(ctx, stop context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &output{w: stdout}
	a := &app{getenv: getenv, stop: stop, stdin: stdin, stdout: out, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	a.printTimings()
	if err == nil {
		err = out.lost()
	}
	switch {
	case err == nil:
		return a.code
	case stop.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "etl: interrupted; nothing is left half done, and running the command again is safe")
		return fault.ExitInterrupted
	}
	a.secrets.Add(config.Secrets(settings, getenv, getenv("ETL_CONFIG"))...) // of a command line that was not understood, too
	fmt.Fprintf(stderr, "etl: %s\n", oneLine(a.secrets.Clean(err.Error())))
	if h := fault.HintOf(err); h != "" {
		fmt.Fprintf(stderr, "     %s\n", oneLine(a.secrets.Clean(h)))
	}
	return fault.Worse(a.code, fault.ExitCode(err))
}

// onInterrupt lets the first interrupt end the context of cmd: most commands change
// nothing that could be left half done, nor do the others while they connect, list and
// plan.
func (a *app) onInterrupt(cmd *cobra.Command) {
	a.whole = cmd.Context()
	ctx, cancel := a.untilStop(a.whole)
	cmd.SetContext(ctx)
	context.AfterFunc(a.whole, cancel)
}

// untilStop is a context that ends with the first interrupt, too.
func (a *app) untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(a.stop, cancel)
	return ctx, cancel
}

// finishing is the context for a job that writes. From here on the first interrupt
// only asks to stop, through Env.Stop: what is in flight is finished and committed. One
// that came before is the error, and nothing is begun.
func (a *app) finishing() (context.Context, error) {
	if err := a.stop.Err(); err != nil {
		return nil, err
	}
	if !a.nested {
		context.AfterFunc(a.stop, func() {
			fmt.Fprintln(a.stderr, "\netl: stopping: what is in flight is being finished and committed; press Ctrl-C again to stop at once")
		})
	}
	return a.whole, nil
}

// oneLine is a message as the terminal may see it: what it quotes of names and
// paths may hold anything.
func oneLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i := range lines {
		lines[i] = printableLine(lines[i])
	}
	return strings.Join(lines, "\n     ")
}

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
  etl config    --check                             # may etl do what it has to?
  etl archive                                       # the nightly job
  etl schedule                                      # the same and verify as a service, each night
  etl verify    --deep                              # prove that the archive is whole
  etl status                                        # how both tiers stand, and what to do
  etl cost                                          # what it takes of D1 and R2, in dollars
  etl repair    --dry-run                           # what of it could be mended, and how
  etl audit     --last 7d                           # every gap, and what is missing
  etl replicate --to file:/mnt/backup/archive       # a copy elsewhere
  etl prune     --dry-run                           # what D1 could be freed of
  etl restore   --last 30d --dry-run                # what could be put back into D1
  etl query     "SELECT * FROM latest"              # SQL over both tiers
  etl shell                                         # the same, interactively`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
			if e := new(strconv.NumError); errors.As(err, &e) {
				want := "true or false"
				switch bad.GetFlag().Value.Type() { // the other types are ours
				case "int":
					want = "a whole number"
				case "float64":
					want = "a number like 1.5"
				}
				err = fmt.Errorf("want %s, got %q", want, bad.GetValue())
			} else {
				err = cmp.Or(errors.Unwrap(err), err)
			}
			err = fmt.Errorf("--%s: %w", bad.GetFlag().Name, err)
		}
		if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
			for _, s := range settings {
				if s.Secret && s.Name == unknown.GetSpecifiedName() {
					return fault.Hint(fault.Wrap(fault.Usage, err), "a list of processes would show it: set %s, or write %s into etl.yaml", strings.Join(s.Variables(), " or "), s.Name)
				}
			}
		}
		if fault.HintOf(err) != "" {
			return fault.Wrap(fault.Usage, err)
		}
		return fault.Hint(fault.Wrap(fault.Usage, err), "`%s --help` lists the flags", cmd.CommandPath())
	})
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print one JSON object on standard output instead of a table")
	root.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "no progress and no log, only warnings, errors and the result")
	root.PersistentFlags().BoolVar(&a.timings, "timings", false, "print where the time went, on standard error; with --json as its field timings")
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		if a.timings {
			a.rec = timing.New()
		}
		a.onInterrupt(cmd)
	}
	root.AddCommand(
		a.migrate(),
		a.archive(),
		a.backfill(),
		a.rearchive(),
		a.verify(),
		a.repair(),
		a.audit(),
		a.status(),
		a.cost(),
		a.schedule(),
		a.replicate(),
		a.restore(),
		a.prune(),
		a.points(),
		a.rejects(),
		a.query(),
		a.shell(),
		a.views(),
		a.cache(),
		a.config(),
		a.demo(),
		a.version(),
	)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	usage(root)
	return root
}

// usage makes wrong arguments and unknown commands usage errors, also below the
// commands that cobra adds.
func usage(cmd *cobra.Command) {
	switch {
	case cmd.HasSubCommands():
		cmd.Args = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := fmt.Sprintf("`%s --help` lists the commands", c.CommandPath())
			if like := c.SuggestionsFor(args[0]); len(like) > 0 {
				hint = fmt.Sprintf("did you mean `%s %s`?", c.CommandPath(), like[0])
			}
			return fault.Hint(fault.Errorf(fault.Usage, "there is no command `%s %s`", c.CommandPath(), args[0]), "%s", hint)
		}
		if cmd.RunE == nil && cmd.Run == nil {
			cmd.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		}
	case cmd.Name() == "help":
		cmd.Run = nil
		cmd.RunE = func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err == nil && len(rest) > 0 {
				err = about.Args(about, rest)
			}
			if err != nil {
				return err
			}
			return about.Help()
		}
	case cmd.Annotations[takesArguments] != "":
	default:
		cmd.Args = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return fault.Hint(fault.Errorf(fault.Usage, "`%s` takes only flags, and %q is none", c.CommandPath(), args[0]),
				"`%s --help` lists them", c.CommandPath())
		}
	}
	for _, c := range cmd.Commands() {
		usage(c)
	}
}
