package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"etl/internal/fault"
	"etl/internal/source"
	"etl/internal/source/files"
	"etl/jobs"
)

// history are the flags of backfill and rearchive that take the rows from files.
type history struct {
	input, ignore []string
	workDir       string
}

func (h *history) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&h.input, "input", nil, "take the rows from files of history, not from the source: `GLOB` of CSV (plain, gzip, zstd) or Parquet; may be given again")
	f.StringArrayVar(&h.ignore, "ignore-column", nil, "with --input: leave out the column `NAME`; may be given again")
	f.StringVar(&h.workDir, "work-dir", "", "with --input: `FOLDER` for what is sorted, about 30 bytes a row (default the system's for temporary files)")
}

// checkInput refuses flags that do not go together.
func (h *history) checkInput(opts *jobs.ArchiveOptions) error {
	switch {
	case len(h.input) == 0 && (len(h.ignore) > 0 || h.workDir != ""):
		return fault.Errorf(fault.Usage, "--ignore-column and --work-dir belong to --input")
	case len(h.input) > 0 && opts.Replace:
		return fault.Hint(fault.Errorf(fault.Usage, "--input and --replace exclude each other"), "files do not say what else there was; without --replace they are merged with what is archived")
	case len(h.input) > 0 && opts.Points.Group != "":
		return fault.Hint(fault.Errorf(fault.Usage, "--input and --group exclude each other"), "choose points of the files with --points")
	}
	return nil
}

// stage stages the files and makes them the source of env, the database being
// the authority for points.
func (h *history) stage(ctx context.Context, a *app, env *jobs.Env, c *archiving, mode jobs.Mode) (*files.Source, error) {
	paths, err := files.Expand(h.input)
	if err != nil {
		return nil, err
	}
	show, clear := a.watchStaging(string(mode))
	defer clear()
	o := files.Options{Unknown: files.Create, Ignore: h.ignore, Dir: h.workDir, Memory: int64(c.memory) / 2, Now: env.Now, Progress: show}
	if len(c.opts.Points.Globs) > 0 {
		o.Match = c.opts.Points.Matcher()
	}
	switch {
	case c.noState:
		o.Unknown = files.Refuse
	case c.dryRun:
		o.Unknown = files.Provisional
	}
	src, err := files.Open(ctx, env.Source, paths, o)
	if err != nil {
		return nil, err
	}
	if m, ok := env.Source.(source.Meter); ok {
		env.Source = struct {
			*files.Source
			source.Meter
		}{src, m}
	} else {
		env.Source = src
	}
	// Files prove nothing about what the database holds of these days: they
	// stay unmarked, and the nightly archive merges its rows if there are any.
	env.Ledger = nil
	return src, nil
}

// watchStaging returns what shows how far staging is, as watch does for a job.
func (a *app) watchStaging(command string) (show func(files.Progress), clear func()) {
	if a.quiet {
		return nil, func() {}
	}
	start := time.Now()
	if f, ok := a.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return func(p files.Progress) {
				fmt.Fprintf(f, "\r\x1b[K%s", stagingText(p, time.Since(start)))
			}, func() {
				fmt.Fprint(f, "\r\x1b[K")
			}
	}
	log := newLog(a.stderr, command)
	last := start
	return func(p files.Progress) {
		if time.Since(last) >= 10*time.Second {
			last = time.Now()
			log.Info().Str("file", p.File).Int("files", p.Files).Int("files_total", p.Total).Int64("rows", p.Rows).Int64("bytes", p.Bytes).Int64("bytes_total", p.Size).Msg("reading the input")
		}
	}, func() {}
}

func stagingText(p files.Progress, elapsed time.Duration) string {
	return fmt.Sprintf("reading the input  %3.0f%%  %d of %d files  %s rows, %s/s", 100*float64(p.Bytes)/float64(max(p.Size, 1)),
		p.Files, p.Total, comma(p.Rows), comma(int64(float64(p.Rows)/max(elapsed.Seconds(), 1e-3))))
}

// printInput says what the files hold. planned is set before anything is done.
func printInput(w io.Writer, s files.Summary, planned bool) {
	fmt.Fprintf(w, "input: %s rows of %s points in %s: %s samples", comma(s.Rows), comma(int64(s.Points)), humanizeFiles(s.Files), comma(s.Samples))
	for _, c := range []struct {
		n    int64
		what string
	}{{s.Repeated, "repeated"}, {s.Superseded, "superseded by a later row"}, {s.Bad, "that can not be archived"}, {s.Skipped, "of points not chosen"}} {
		if c.n > 0 {
			fmt.Fprintf(w, ", %s %s", comma(c.n), c.what)
		}
	}
	fmt.Fprintln(w)
	if n := len(s.Created); n > 0 {
		some := strings.Join(s.Created[:min(3, n)], ", ")
		if n > 3 {
			some += ", …"
		}
		verb := "were made in"
		if planned {
			verb = "would be made in"
		}
		fmt.Fprintf(w, "points: %s of them %s the source: %s\n", comma(int64(n)), verb, printableLine(some))
	}
}

func humanizeFiles(n int) string {
	if n == 1 {
		return "1 file"
	}
	return comma(int64(n)) + " files"
}
