package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"etl/internal/config"
	"etl/internal/fault"
	"etl/internal/fleet"
	"etl/internal/sample"
	"etl/internal/utc"
	"etl/jobs"
)

func (a *app) demo() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the whole job on a made-up fleet in a folder of its own; no account, no network",
		Long: `demo makes a SQLite file that stands for D1 and a folder that stands for R2, fills
the first with 40 days of a fleet of 200 points (about 3 million samples: always
the same ones), and runs the commands that an operator runs: migrate, backfill,
a nightly archive, an archive after rows arrived late, rearchive, verify --deep,
query, audit, status, cost.

The folder is left for you to look around in.`,
		Example: `  etl demo
  etl demo --dir /tmp/try`,
	}
	cmd.Flags().StringVar(&dir, "dir", "demo", "folder to make; one that an earlier demo made is made anew")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if dir == "" { // a path of nothing is the current folder, whose demo would be cleared
			return fault.Hint(fault.Errorf(fault.Usage, "--dir: want a folder, got an empty name"), "give the folder to make, like --dir demo")
		}
		d := &demo{app: a, dir: dir, w: a.stdout}
		if a.json {
			d.w = a.stderr
		}
		sum, err := d.run(cmd.Context())
		if ctx := cmd.Context(); ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		return a.print(sum, func(io.Writer) {})
	}
	return cmd
}

// demo is a scripted session: it types commands of etl and shows what they print.
type demo struct {
	*app
	dir string
	w   io.Writer
	now time.Time
	// mayEnd is the exit code beside 0 that the next command may end with.
	mayEnd int
}

// demoSummary is what --json prints.
type demoSummary struct {
	Dir            string  `json:"dir"`
	Points         int     `json:"points"`
	Samples        int64   `json:"samples"`
	Files          int64   `json:"files"`
	Bytes          int64   `json:"bytes"`
	BytesPerSample float64 `json:"bytes_per_sample"`
	SQLiteBytes    int64   `json:"sqlite_bytes"`
	Rate           float64 `json:"backfill_samples_per_second"`
	LateRows       int64   `json:"late_rows"`
	Findings       int     `json:"findings"`
	Outages        int     `json:"outages"`
	OutagesFound   int     `json:"outages_found"`
	Page           string  `json:"page"`
	Elapsed        float64 `json:"elapsed_seconds"`
}

const demoMarker = "# made by etl demo"

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

func (d *demo) run(ctx context.Context) (demoSummary, error) {
	start := time.Now()
	f, err := fleet.New(fleet.Demo())
	if err != nil {
		return demoSummary{}, err
	}
	days := f.Days()
	history := utc.Days{From: days.From, To: days.To - 1} // all but the last day
	last := days.To - 1

	if err := d.prepare(days.To.Time().Add(2 * time.Hour)); err != nil {
		return demoSummary{}, err
	}
	fmt.Fprintf(d.w, "A demo of the whole job in %s: d1.sqlite stands for D1, r2/ for R2.\n", d.dir)

	d.title("1. The tables: points, samples, and the ledger that knows what is archived")
	if err := d.etl(ctx, nil, "migrate"); err != nil {
		return demoSummary{}, err
	}

	d.title("2. A fleet writes into D1")
	t := time.Now()
	rows, err := f.WriteSQLite(ctx, d.path("d1.sqlite"), history, fleet.WriteOptions{Bulk: true})
	if err != nil {
		return demoSummary{}, err
	}
	fmt.Fprintf(d.w, "%d points, %s, every 1 to 15 minutes: %s samples in %s.\nAmong them gaps, NULL and ±Inf, a point that reports on change, two names with one file name.\n",
		f.Len(), history, comma(rows), seconds(time.Since(t).Seconds()))

	d.title("3. The history goes to the cold tier")
	d.now = history.To.Time().Add(2 * time.Hour)
	var back jobs.Report
	if err := d.etl(ctx, func(r any) { back = r.(jobs.Report) }, "backfill", "--from", history.From.String(), "--to", history.To.String()); err != nil {
		return demoSummary{}, err
	}

	d.title("4. A day passes, a point is renamed; the nightly job at 02:00 UTC")
	more, err := f.WriteSQLite(ctx, d.path("d1.sqlite"), utc.Days{From: last, To: last + 1}, fleet.WriteOptions{})
	if err != nil {
		return demoSummary{}, err
	}
	rows += more
	if r, ok := f.Rename(); ok {
		if err := fleet.WriteRename(ctx, d.path("d1.sqlite"), r); err != nil {
			return demoSummary{}, err
		}
		fmt.Fprintf(d.w, "%s samples arrived on %s; %s is now called %s.\n\n", comma(more), last, r.Old, r.New)
	}
	d.now = days.To.Time().Add(2 * time.Hour)
	if err := d.etl(ctx, nil, "archive"); err != nil {
		return demoSummary{}, err
	}

	d.title("5. Rows arrive late, in days that are archived; the next archive takes just those days")
	late := f.Late()
	lateRows, err := fleet.WriteLate(ctx, d.path("d1.sqlite"), late)
	if err != nil {
		return demoSummary{}, err
	}
	for _, l := range late {
		fmt.Fprintf(d.w, "  %-40s %4d inserted, %4d corrected, first at %s\n", f.Points()[l.Index].Name, l.Inserted, l.Corrected, moment(&l.Rows.TS[0]))
		rows += int64(l.Inserted)
	}
	fmt.Fprintln(d.w)
	if err := d.etl(ctx, nil, "archive", "--dry-run"); err != nil {
		return demoSummary{}, err
	}
	fmt.Fprintln(d.w)
	if err := d.etl(ctx, nil, "archive"); err != nil {
		return demoSummary{}, err
	}

	d.title("6. A week is archived again: every row is compared, nothing has changed, nothing is written")
	if err := d.etl(ctx, nil, "rearchive", "--last", "7d"); err != nil {
		return demoSummary{}, err
	}

	d.title("7. The proof: every byte is read back")
	var proof jobs.VerifyReport
	if err := d.etl(ctx, func(r any) { proof = r.(jobs.VerifyReport) }, "verify", "--deep"); err != nil {
		return demoSummary{}, err
	}

	d.title("8. The day goes on: what came since midnight is in D1 alone, and counts at once")
	today, err := d.writeToday(ctx, days.To)
	if err != nil {
		return demoSummary{}, err
	}
	fmt.Fprintf(d.w, "%s samples arrived on %s until now, %s UTC.\n", comma(today), days.To, d.now.Format("15:04"))

	d.title("9. Questions: SQL over both tiers, which reads only the month files that it needs")
	for i, args := range [][]string{
		{`SELECT system, count(DISTINCT point_id) AS points, count(*) AS samples, count(*) FILTER (quality < 192) AS bad
FROM samples JOIN points USING (point_id)
WHERE ts >= '2024-01-25' AND ts < '2024-02-05'
GROUP BY system ORDER BY system`},
		{`SELECT tier, count(*) AS samples, min(ts) AS first, max(ts) AS last
FROM samples WHERE point_name = 'Building1.HVAC.AHU1.SupplyAirTemperature' AND ts >= '2024-02-20'
GROUP BY tier ORDER BY first`},
		{"@trend-downsampled", "--param", "point=Building1.Plant.Chiller1.SupplyWaterTemp", "--param", "from=-5d", "--param", "bucket=1d"},
	} {
		if i > 0 {
			fmt.Fprintln(d.w)
		}
		if err := d.etl(ctx, nil, append([]string{"query", "--format", "table"}, args...)...); err != nil {
			return demoSummary{}, err
		}
	}

	d.title("10. The audit: every silence of every point, in both tiers")
	var audit *jobs.AuditReport
	d.mayEnd = fault.ExitFindings // the fleet has had outages
	if err := d.etl(ctx, func(r any) { audit = r.(*jobs.AuditReport) }, "audit", "--from", days.From.String(), "--to", (days.To + 1).String(), "--limit", "5", "--html", d.path("audit.html")); err != nil {
		return demoSummary{}, err
	}
	gaps := compareGaps(f, audit)
	fmt.Fprintf(d.w, "\nThe fleet had %d outages that nobody filled: the audit has found %d of them. Its other %d gaps\nare rows without a value. Open %s in a browser to look around.\n",
		gaps.planted, gaps.found, gaps.nulls, d.path("audit.html"))

	d.title("11. How it stands, and what it costs")
	d.mayEnd = fault.ExitFindings
	if err := d.etl(ctx, nil, "status"); err != nil {
		return demoSummary{}, err
	}
	fmt.Fprintln(d.w)
	if err := d.etl(ctx, nil, "cost"); err != nil {
		return demoSummary{}, err
	}

	sum := demoSummary{
		Outages: gaps.planted, OutagesFound: gaps.found, Page: d.path("audit.html"),
		Dir: d.dir, Points: f.Len(), Samples: proof.Samples, Files: proof.Files, Bytes: proof.Bytes, LateRows: lateRows,
		BytesPerSample: float64(proof.Bytes) / float64(max(proof.Samples, 1)), Rate: float64(back.SamplesRead) / max(back.Elapsed, 1e-3),
		Findings: len(proof.Findings), Elapsed: time.Since(start).Seconds(),
	}
	if st, err := os.Stat(d.path("d1.sqlite")); err == nil {
		sum.SQLiteBytes = st.Size()
	}
	if proof.Samples != rows || len(proof.Findings) > 0 {
		return sum, fault.Errorf(fault.Corrupt, "the demo wrote %d samples into D1 and the archive holds %d, with %d findings: please report this", rows, proof.Samples, len(proof.Findings))
	}
	if gaps.found != gaps.planted || gaps.others > 0 {
		return sum, fault.Errorf(fault.Corrupt, "the demo's fleet had %d outages; the audit found %d of them, and %d gaps that are none: please report this", gaps.planted, gaps.found, gaps.others)
	}
	d.title("Done")
	fmt.Fprintf(d.w, `%s samples of %d points are in %s month files: %s, %.3f bytes a sample
(D1 took %s for the same rows). The history went at %s samples a second.
%s late rows found their way in; all samples are accounted for. %s in all.

Look around:
%s  cd %s
  etl points                       # what both tiers hold of each point
  etl verify --deep                # prove it again
  etl archive --dry-run            # what the next nightly run would do
  etl shell                        # SQL, and .help
  etl query --list                 # named queries: trends, alarms, gaps, run times
  etl audit --from 2024-01-12 --points '*Chiller*'   # the gaps of some points
  etl schedule --help              # the nightly job as a service
  less r2/_manifests/2024-02.json  # what the cold tier holds, day by day
Any Parquet reader opens r2/timeseries/2024/02/*.parquet. etl.yaml in that folder
says where D1 and R2 are, and that it is %s there.
`, comma(sum.Samples), sum.Points, comma(sum.Files), humanize.IBytes(uint64(sum.Bytes)), sum.BytesPerSample,
		humanize.IBytes(uint64(sum.SQLiteBytes)), comma(int64(sum.Rate)), comma(lateRows), seconds(sum.Elapsed), alias(), d.dir, d.now.Format("2006-01-02 15:04 UTC"))
	return sum, nil
}

// foundGaps is what an audit has found of a fleet.
type foundGaps struct {
	planted int // outages that no late rows have filled
	found   int // those of them that it lists as they were planted
	nulls   int // gaps in which all rows are NULL
	others  int // gaps that are nothing of the kind
}

func compareGaps(f *fleet.Fleet, r *jobs.AuditReport) foundGaps {
	type gap struct {
		point           int32
		from, to, count int64
	}
	planted := make(map[gap]bool)
	for _, g := range f.Gaps() {
		if !g.Filled {
			planted[gap{g.Point, g.From, g.To, g.Missing}] = true
		}
	}
	c := foundGaps{planted: len(planted)}
	var s sample.Series
	for _, g := range r.Gaps {
		if g.Missing != nil && planted[gap{g.PointID, g.From, g.To, *g.Missing}] {
			c.found++
			continue
		}
		s.Reset()
		f.Series(int(g.PointID)-1, utc.Days{From: utc.DayOf(g.From), To: utc.DayOf(g.To) + 1}, &s)
		i, _ := slices.BinarySearch(s.TS, g.From+1)
		j, _ := slices.BinarySearch(s.TS, g.To)
		if i < j && !slices.ContainsFunc(s.Value[i:j], func(v float64) bool { return v == v }) {
			c.nulls++
		} else {
			c.others++
		}
	}
	return c
}

// writeToday writes what the fleet has sampled on a day until now. The day comes
// after those of the demo's fleet, so a fleet of one day more has it.
func (d *demo) writeToday(ctx context.Context, day utc.Day) (int64, error) {
	o := fleet.Demo()
	o.Days++
	f, err := fleet.New(o)
	if err != nil {
		return 0, err
	}
	now := d.now.UnixMilli()
	points := f.Points()
	return fleet.Write(ctx, d.path("d1.sqlite"), points, func(yield func(int32, *sample.Series) bool) {
		var s sample.Series
		for i, p := range points {
			s.Reset()
			f.Series(i, utc.Days{From: day, To: day + 1}, &s)
			n, _ := slices.BinarySearch(s.TS, now)
			if s = s.Slice(0, n); !yield(p.ID, &s) {
				return
			}
		}
	}, fleet.WriteOptions{})
}

// alias is a line that makes `etl` a command of the shell, "" if it is one.
func alias() string {
	if _, err := exec.LookPath("etl"); err == nil {
		return ""
	}
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	return fmt.Sprintf("  alias etl='%s'\n", self)
}

// prepare makes the folder, or clears the one that an earlier demo made.
func (d *demo) prepare(now time.Time) error {
	old, err := os.ReadFile(d.path(config.DefaultFile))
	entries, derr := os.ReadDir(d.dir)
	switch {
	case err == nil && strings.HasPrefix(string(old), demoMarker):
		for _, name := range []string{"d1.sqlite", "d1.sqlite-wal", "d1.sqlite-shm", "r2", "cache", "audit.html"} {
			if err := os.RemoveAll(d.path(name)); err != nil {
				return fault.Wrap(fault.Unavailable, err)
			}
		}
	case derr == nil && len(entries) > 0:
		return fault.Hint(fault.Errorf(fault.Usage, "%s exists and no demo made it: it was left alone", d.dir), "choose another folder with --dir")
	case derr != nil && !errors.Is(derr, fs.ErrNotExist):
		return fault.Errorf(fault.Usage, "%s: %w", d.dir, derr)
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return fault.Wrap(fault.Unavailable, err)
	}
	text := fmt.Sprintf("%s; `etl demo` makes this folder anew\nsource: sqlite:d1.sqlite\nstore: file:r2\ncache: cache\nnow: %s\n", demoMarker, now.UTC().Format(time.RFC3339))
	return fault.Wrap(fault.Unavailable, os.WriteFile(d.path(config.DefaultFile), []byte(text), 0o644))
}

func (d *demo) title(s string) {
	fmt.Fprintf(d.w, "\n%s\n%s\n", s, strings.Repeat("─", len([]rune(s))))
}

// etl types a command and shows what it prints. keep, if not nil, is given the
// command's result.
func (d *demo) etl(ctx context.Context, keep func(any), args ...string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	words := make([]string, len(args))
	for i, arg := range args {
		if words[i] = arg; strings.ContainsAny(arg, " \n'*") {
			words[i] = `"` + arg + `"`
		}
	}
	fmt.Fprintf(d.w, "$ etl %s\n", strings.Join(words, " "))
	env := map[string]string{
		"ETL_CACHE": d.path("cache"), "ETL_CONFIG": d.path(config.DefaultFile), "ETL_SOURCE": "sqlite:" + d.path("d1.sqlite"), "ETL_STORE": "file:" + d.path("r2"),
	}
	if !d.now.IsZero() {
		env["ETL_NOW"] = d.now.UTC().Format(time.RFC3339)
	}
	sub := &app{getenv: func(k string) string { return env[k] }, stop: d.stop, stdin: d.stdin, stdout: d.w, stderr: d.stderr, quiet: true, nested: true}
	sub.result = keep
	root := sub.root()
	root.SetArgs(append(args, "--quiet"))
	root.SetOut(d.w)
	root.SetErr(d.stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		return fmt.Errorf("etl %s: %w", args[0], err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	mayEnd := d.mayEnd
	d.mayEnd = fault.ExitOK
	if sub.code != fault.ExitOK && sub.code != mayEnd {
		return fault.Errorf(fault.Internal, "etl %s ended with exit code %d", args[0], sub.code)
	}
	return nil
}
