// Command benchmark measures whole jobs, as `make bench` runs them: it builds a
// database of a made-up fleet, runs the etl binary on it, runs DuckDB on the
// same rows, and prints and writes down both with their ratio and the target.
//
// Terms: a run is one child process, measured from outside by the kernel (wall
// clock, user and system CPU, peak resident memory); a baseline is what DuckDB
// takes for the like in the same benchmark, runs of both taking turns; a figure
// is one line of the table, the median of its runs.
//
// This process stays small on purpose and leaves all work to children, its own
// binary among them (package os/exec's children inherit, until they exec, the
// peak memory of their parent, and Linux counts that as theirs).
//
// It refuses to guess: a run is only counted if the store holds as many samples
// afterwards as it must.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(2)
		}
		fmt.Fprintln(os.Stderr, "benchmark:", err)
		os.Exit(1)
	}
}

// config is what the flags say.
type config struct {
	dir       string
	points    int
	days      int
	quick     bool
	etl       string
	md        string
	sets      string
	versitygw string
	part      string
}

// manyPoints is the size of the second fleet, one day long, which shows that
// the cost per row does not grow with the number of points.
const manyPoints = 10_000

// dayRuns is how often a day is run, and its baseline.
const dayRuns = 3

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == childArg {
		return child(ctx, args[1:], stdout, stderr)
	}
	c := config{}
	fs := flag.NewFlagSet("benchmark", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&c.dir, "dir", "./bench", "folder for data and stores; data is kept for the next time")
	fs.IntVar(&c.points, "points", 4500, "points of the fleet")
	fs.IntVar(&c.days, "days", 30, "days of the fleet, from the first of a month that has 30")
	fs.BoolVar(&c.quick, "quick", false, "450 points, 5 days: a smoke test, its targets are not judged")
	fs.StringVar(&c.etl, "etl", "bin/etl", "the etl binary")
	fs.StringVar(&c.md, "md", "docs/benchmarks.md", "write the results here; with -quick only if given")
	fs.StringVar(&c.sets, "sets", "../shared/data", "folder of real data sets, NAME.csv.gz")
	fs.StringVar(&c.versitygw, "versitygw", ".servers/versitygw", "the S3 server's binary, which make servers installs")
	fs.StringVar(&c.part, "part", "all", "all, or one alone: archive, query, operate")
	if err := fs.Parse(args); err != nil {
		return err
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if c.quick {
		if !given["points"] {
			c.points = 450
		}
		if !given["days"] {
			c.days = 5
		}
		if !given["md"] {
			c.md = ""
		}
	}
	if fs.NArg() > 0 || c.points < 1 || c.days < 2 || c.days > 30 || !isPart(c.part) {
		fs.Usage()
		return errors.New("want at least 1 point, 2 to 30 days, a part that there is, and no further arguments")
	}
	var err error
	if c.etl, err = filepath.Abs(c.etl); err != nil {
		return err
	}
	if _, err := os.Stat(c.etl); err != nil {
		return fmt.Errorf("%w: build it first, or name it with -etl", err)
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	b := &bench{config: c, log: stderr}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	began := time.Now()
	if err := b.all(ctx); err != nil {
		return err
	}
	b.report.took = time.Since(began)
	if err := b.report.text(stdout); err != nil {
		return err
	}
	if c.md == "" {
		return nil
	}
	f, err := os.Create(c.md)
	if err != nil {
		return err
	}
	return errors.Join(b.report.markdown(f), f.Close())
}
