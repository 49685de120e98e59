package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// figure is one line of the table.
type figure struct {
	what, etl, baseline, ratio, target string
	met                                bool
}

// report is what is printed and written down.
type report struct {
	quick   bool
	began   time.Time
	took    time.Duration
	command string
	machine []string
	etl     string // version
	duckdb  string // version
	threads int    // of DuckDB
	figures []figure
	runs    []string
	log     io.Writer
}

func (r *report) begin(ctx context.Context, b *bench) {
	r.quick, r.log = b.quick, b.log
	r.began = time.Now().UTC()
	r.command = fmt.Sprintf("benchmark -points %d -days %d", b.points, b.days)
	if b.quick {
		r.command += " -quick"
	}
	if b.part != "all" {
		r.command += " -part " + b.part
	}
	r.machine = machine(b.dir)
	r.etl = "unknown"
	if out, err := exec.CommandContext(ctx, b.etl, "version").Output(); err == nil {
		r.etl, _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	}
}

func (r *report) add(f figure) { r.figures = append(r.figures, f) }

// ratio adds a figure that may be at most so many times its baseline.
func (r *report) ratio(what, etl, baseline string, ratio, target float64) {
	r.add(figure{what, etl, baseline, fmt.Sprintf("%.2f×", ratio), fmt.Sprintf("≤ %.2g×", target), ratio <= target})
}

// most adds a number of bytes with an upper limit.
func (r *report) most(what string, got, limit int64) {
	r.add(figure{what: what, etl: megabytes(got), target: "≤ " + megabytes(limit), met: got <= limit})
}

// within adds a time with an upper limit, 0 for none.
func (r *report) within(what string, got, limit time.Duration) {
	f := figure{what: what, etl: milli(got), met: true}
	if limit > 0 {
		f.target, f.met = "≤ "+milli(limit), got <= limit
	}
	r.add(f)
}

func (r *report) size(what string, ours, theirs, rows, files int64, target float64) {
	perRow := func(n int64) string {
		return fmt.Sprintf("%s, %.3f a sample", count(n), float64(n)/float64(rows))
	}
	r.ratio(fmt.Sprintf("%s (%s samples, %s files)", what, count(rows), count(files)), perRow(ours), perRow(theirs), float64(ours)/float64(theirs), target)
}

// run notes one run, at once and in the report.
func (r *report) run(format string, a ...any) {
	line := fmt.Sprintf(format, a...)
	r.runs = append(r.runs, line)
	fmt.Fprintln(r.log, "  "+line)
}

func (r *report) table() [][]string {
	rows := [][]string{{"figure", "etl", "baseline", "ratio", "target", ""}}
	for _, f := range r.figures {
		verdict := "missed"
		switch {
		case f.target == "":
			verdict = ""
		case r.quick:
			verdict = "not judged"
		case f.met:
			verdict = "met"
		}
		rows = append(rows, []string{f.what, f.etl, f.baseline, f.ratio, f.target, verdict})
	}
	return rows
}

// text writes the table with aligned columns.
func (r *report) text(w io.Writer) error {
	rows := r.table()
	var width [6]int
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += cell + strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

const notes = `- A run is one process, measured from outside: wall clock from its start to its exit, user and system CPU of all threads, peak resident memory as the kernel counts it. Figures are the median of %[1]d runs, memory the highest of them; backfill and sizes are run once.
- Caches are warm: the database was read once before the runs. Before each run everything dirty was written to disk.
- The baseline of a fresh day is the time of DuckDB's statement ` + "`COPY t TO dir (FORMAT parquet, PARTITION_BY (point_id), COMPRESSION zstd, PARQUET_VERSION V2)`" + ` with %[2]d threads plus an fsync of each file, four at a time. Its rows are in memory before the clock starts, and the process, its start and the loading are not counted. The etl's time counts everything: start, planning, reading SQLite, merging, encoding, hashing, fsync of every file and folder, manifest, ledger. Both take turns.
- D1 is a process beside the etl, on the same cores: its interface over the same database file, plain HTTP, no latency. What reads rows of the day it answers with JSON made before, as fast as the etl takes it; points, ledger and log are SQLite's. The etl's defaults are used, its limit of 4 requests/s with a burst of 200 too. The day from SQLite, the download of the same pages by an HTTP client that drops them, and the day from D1 take turns, and the rows in both stores must be the same. Rows read and written are counted as returned and changed; D1 bills rows scanned, and index entries too.
- S3 is versitygw on the same disk and cores behind toxiproxy, which adds %[3]d ms to each request and holds up none for another. Its baseline is the sum of two times: to read and conditionally write each file once by a bare loop over the same client with %[4]d workers, the etl's default; and to do the same merge in a directory. The etl also reads back each file that it wrote. All three take turns.
- After each run the samples in the store's manifests are counted and the sizes of its files compared; a run that lacks one is an error, not a figure.
- Of 20 points of the fleet 8 are temperatures, 3 pressures, 3 switches, 2 counters, 2 setpoints and 2 noises of full precision, one sample a minute each.
- Queries are asked of a lake of %[5]d months: a month file and a manifest entry for each point and month. In the last month every point has a sample a minute, in the others one point in 45 has, at least ten, and the rest a sample an hour. The hot tier is SQLite with yesterday and this morning of every point, its ledger marks the last %[6]d days. The store is versitygw behind toxiproxy as above, so that each request takes %[3]d ms more.
- A query runs in the library, in a process of its own; the clock starts when the session is open and stops when the last byte of its CSV is written. Each one lists the manifests anew, and again after rows came from the hot tier. Empty cache: neither a manifest nor a month file is local. Manifests cached: what a machine has that asked anything today. Warm: all is local, in a new session, as each run of the command is; again in the session: as in the shell. All answers of a query must be the same. The reader has 24 MiB for the answer before the clock starts. Its peak memory is the whole process's.
- Beside DuckDB on the files: the same files as they lie in the cache, given as a list, the same threads and memory limit; both are asked again in a session. Reads alone: %[7]d at a time, and nothing is done with what came.
- An audit runs in the library, in a process of its own, over a month of a sample a minute in a folder; --fast over the manifests of a year in it. The clock starts when the session is open; each audit lists the manifests anew. DuckDB takes the average of the same files by point, in turns with it, asked again in a session.
- Planning is what --explain does over manifests alone in a folder, their listing included, again in a session.
- Sizes of the real sets are those of the month files alone, one file per point and month on both sides; DuckDB's with zstd and PARQUET_VERSION V2.
`

// markdown writes docs/benchmarks.md.
func (r *report) markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\nWritten by the benchmark program (`make bench`); do not edit.\n\n")
	fmt.Fprintf(&b, "- %s, %s in all: `%s`\n", r.began.Format("2006-01-02 15:04 UTC"), r.took.Round(time.Second), r.command)
	for _, line := range r.machine {
		b.WriteString("- " + line + "\n")
	}
	fmt.Fprintf(&b, "- %s; DuckDB %s; benchmark built with %s\n\n", r.etl, r.duckdb, runtime.Version())
	for i, row := range r.table() {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|---|---|---|---|---|---|\n")
		}
	}
	b.WriteString("\n## How it is measured\n\n")
	fmt.Fprintf(&b, notes, dayRuns, r.threads, s3Delay.Milliseconds(), s3Workers, lakeMonths, hotWindow, fetchWorkers)
	b.WriteString("\n## Every run\n\n```\n" + strings.Join(r.runs, "\n") + "\n```\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// machine describes what the numbers depend on; what the system does not tell is left out.
func machine(dir string) (lines []string) {
	field := func(file, key, separator string) string {
		data, err := os.ReadFile(file)
		if err != nil {
			return ""
		}
		for line := range strings.Lines(string(data)) {
			if k, v, ok := strings.Cut(line, separator); ok && strings.TrimSpace(k) == key {
				return strings.Trim(strings.TrimSpace(v), `"`)
			}
		}
		return ""
	}
	cpu := field("/proc/cpuinfo", "model name", ":")
	if cpu == "" {
		cpu = runtime.GOARCH
	}
	line := fmt.Sprintf("%s, %d cores", cpu, runtime.NumCPU())
	if kib, err := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemTotal", ":"), " kB"), 10, 64); err == nil {
		line += fmt.Sprintf(", %.0f GiB RAM", float64(kib)/(1<<20))
	}
	lines = append(lines, line)
	system := field("/etc/os-release", "PRETTY_NAME", "=")
	if system == "" {
		system = runtime.GOOS
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		system += ", kernel " + strings.TrimSpace(string(release))
	}
	if fs := filesystem(dir); fs != "" {
		system += ", data on " + fs
	}
	lines = append(lines, system)
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(load), " ")
		lines = append(lines, "load average at the start "+first+" (others' work slows both sides, but not evenly)")
	}
	return lines
}

// filesystem is the type of the file system that holds dir, "" if unknown.
func filesystem(dir string) (kind string) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return ""
	}
	longest := 0
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		at := strings.TrimSuffix(f[1], "/") + "/"
		if strings.HasPrefix(dir+"/", at) && len(at) >= longest {
			longest, kind = len(at), f[2]
		}
	}
	return kind
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func milli(d time.Duration) string { return fmt.Sprintf("%.0f ms", d.Seconds()*1e3) }

func speed(bytesPerSecond float64) string { return fmt.Sprintf("%.0f MB/s", bytesPerSecond/1e6) }

func megabytes(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

func millions(n int64) string { return fmt.Sprintf("%.3g M", float64(n)/1e6) }

func rate(rows int64, d time.Duration) string {
	return fmt.Sprintf("%.2f M rows/s", float64(rows)/d.Seconds()/1e6)
}

// count writes a number with commas.
func count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
