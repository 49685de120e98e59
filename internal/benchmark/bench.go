package main

import (
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
	"strconv"
	"strings"
	"time"

	"etl/internal/fleet"
	"etl/internal/sample"
	"etl/internal/utc"
)

// bench is one benchmark on its way.
type bench struct {
	config
	self   string // this program's binary
	log    io.Writer
	env    []string // for the etl: where D1 is, and keys
	report report
	// folders counts the names that fresh has given.
	folders int
}

func (b *bench) say(format string, a ...any) { fmt.Fprintf(b.log, format+"\n", a...) }

// fresh names a folder that no run has used yet.
func (b *bench) fresh(name string) string {
	b.folders++
	return filepath.Join(b.dir, "runs", fmt.Sprintf("%s-%d", name, b.folders))
}

// all measures every figure into the report.
func (b *bench) all(ctx context.Context) error {
	b.report.begin(ctx, b)
	runs := filepath.Join(b.dir, "runs")
	if err := errors.Join(os.RemoveAll(runs), os.Mkdir(runs, 0o755)); err != nil {
		return err
	}
	// Nothing is removed before the end: an ext4 without a journal looks at every
	// inode freed in the last minutes before it makes a new one, so removing the
	// files of one run would slow the next, whosever it is.
	defer os.RemoveAll(runs)

	for _, p := range parts {
		if b.part != "all" && b.part != p.name {
			continue
		}
		if err := p.run(b, ctx); err != nil {
			return err
		}
	}
	return nil
}

// parts are what can be measured alone, in their order.
var parts = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"archive", (*bench).archiving},
	{"query", (*bench).queries},
	{"operate", (*bench).operate},
}

// isPart reports whether there is such a part, or it is all.
func isPart(name string) bool {
	for _, p := range parts {
		if p.name == name {
			return true
		}
	}
	return name == "all"
}

// archiving measures the jobs that fill the cold tier, and what it then takes.
func (b *bench) archiving(ctx context.Context) error {
	many := manyPoints
	if b.quick {
		many = 2 * b.points
	}
	wide, err := b.data(ctx, fleet.Bench(many, 1))
	if err != nil {
		return err
	}
	main, err := b.data(ctx, fleet.Bench(b.points, b.days))
	if err != nil {
		return err
	}

	fresh, err := b.freshDay(ctx, main)
	if err != nil {
		return err
	}
	if _, err := b.freshDay(ctx, wide); err != nil {
		return err
	}
	if err := b.fromD1(ctx, main); err != nil {
		return err
	}
	if err := b.mergedDay(ctx, main, fresh); err != nil {
		return err
	}
	if err := b.backfill(ctx, main); err != nil {
		return err
	}
	return b.sizes(ctx)
}

// dataset is a database with all days of a fleet.
type dataset struct {
	fleet *fleet.Fleet
	path  string
}

func (d dataset) source() string { return "sqlite:" + d.path }

// rows is how many samples so many days have.
func (d dataset) rows(days int) int64 { return int64(d.fleet.Len()) * int64(days) * 1440 }

// data makes the database of a fleet, or takes the one that is there if its
// stamp says that it was finished with the same options and generator.
func (b *bench) data(ctx context.Context, o fleet.Options) (d dataset, err error) {
	f, err := fleet.New(o)
	if err != nil {
		return d, err
	}
	var first sample.Series
	for i := range min(20, f.Len()) { // one of each kind
		f.Series(i, utc.Days{From: o.Start, To: o.Start + 1}, &first)
	}
	want, err := json.Marshal(struct {
		fleet.Options
		Rows string
	}{o, first.RowsSHA256()})
	if err != nil {
		return d, err
	}
	d = dataset{f, filepath.Join(b.dir, fmt.Sprintf("fleet-%dx%d.sqlite", o.Points, o.Days))}
	stamp := d.path + ".stamp"
	if have, err := os.ReadFile(stamp); err != nil || string(have) != string(want) {
		for _, name := range []string{stamp, d.path, d.path + "-wal", d.path + "-shm", d.path + "-journal"} {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return d, err
			}
		}
		if err := b.migrate(ctx, d.path); err != nil {
			return d, err
		}
		var a loadAnswer
		if _, err := b.child(ctx, "load", loadOptions{d.path, o}, &a); err != nil {
			return d, err
		}
		if a.Rows != d.rows(o.Days) {
			return d, fmt.Errorf("build %s: %d rows, want %d", d.path, a.Rows, d.rows(o.Days))
		}
		settle()
		if err := os.WriteFile(stamp, want, 0o644); err != nil {
			return d, err
		}
	} else if err := b.migrate(ctx, d.path); err != nil { // by a newer schema perhaps
		return d, err
	}
	return d, warm(d.path)
}

func (b *bench) migrate(ctx context.Context, path string) error {
	_, err := b.runEtl(ctx, "migrate", "--source", "sqlite:"+path)
	return err
}

// warm reads a file once, so that the page cache holds it.
func warm(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return err
}

// archive runs `etl archive` for one day as if it were the night after the
// fleet's last day, so that the day lies in the hot window.
func (b *bench) archive(ctx context.Context, stdout io.Writer, d dataset, day utc.Day, source, store string) (cost, error) {
	return b.askEtl(ctx, stdout, "archive", "--day", day.String(), "--source", source, "--store", store, "--json",
		"--now", d.fleet.Days().To.Time().Add(2*time.Hour).Format(time.RFC3339))
}

func (b *bench) backfillDays(ctx context.Context, source string, days utc.Days, store string) (cost, error) {
	return b.runEtl(ctx, "backfill", "--from", days.From.String(), "--to", days.To.String(), "--source", source, "--store", store, "--json")
}

// tier is what a store's manifests hold.
type tier struct {
	samples, bytes, files int64
	rows                  string // a hash of all rows
}

// check reads a store's manifests and fails unless they hold so many samples,
// in files of just the sizes that they tell.
func check(store string, samples int64) (t tier, err error) {
	names, err := filepath.Glob(filepath.Join(store, "_manifests", "????-??.json"))
	if err != nil {
		return t, err
	}
	rows := sha256.New()
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return t, err
		}
		var m struct {
			Points []struct {
				ID             int32
				Path           string
				Bytes, Samples int64
				Rows           string `json:"rows_sha256"`
			}
		}
		if err := json.Unmarshal(data, &m); err != nil {
			return t, fmt.Errorf("%s: %w", name, err)
		}
		for _, p := range m.Points {
			if p.Path == "" {
				continue
			}
			info, err := os.Stat(filepath.Join(store, filepath.FromSlash(p.Path)))
			if err != nil {
				return t, err
			}
			if info.Size() != p.Bytes {
				return t, fmt.Errorf("%s: %d bytes, its manifest says %d", p.Path, info.Size(), p.Bytes)
			}
			t.samples, t.bytes, t.files = t.samples+p.Samples, t.bytes+p.Bytes, t.files+1
			fmt.Fprintln(rows, p.ID, p.Rows)
		}
	}
	t.rows = hex.EncodeToString(rows.Sum(nil))
	if t.samples != samples {
		return t, fmt.Errorf("store %s holds %d samples, want %d", store, t.samples, samples)
	}
	return t, nil
}

// freshDay archives the fleet's first day into an empty store, in turns with
// DuckDB writing the same rows from memory.
func (b *bench) freshDay(ctx context.Context, d dataset) (cost, error) {
	b.say("one day of %d points into a fresh month, %d runs", d.fleet.Len(), dayRuns)
	day := d.fleet.Days().From
	var ours []cost
	var theirs []time.Duration
	var size tier
	var a copyAnswer
	for k := range dayRuns {
		dir := b.fresh("duckdb")
		if _, err := b.child(ctx, "copy", copyOptions{d.fleet.Options(), day, dir}, &a); err != nil {
			return cost{}, err
		}
		theirs = append(theirs, a.Copy+a.Sync)
		b.report.run("DuckDB COPY + fsync, %s points, run %d: %s + %s, CPU %s, %d files, %s",
			count(int64(d.fleet.Len())), k+1, seconds(a.Copy), seconds(a.Sync), seconds(a.CPU), a.Files, megabytes(a.Bytes))

		store := b.fresh("store")
		c, err := b.archive(ctx, io.Discard, d, day, d.source(), "file:"+store)
		if err != nil {
			return cost{}, err
		}
		if size, err = check(store, d.rows(1)); err != nil {
			return cost{}, err
		}
		ours = append(ours, c)
		b.report.run("etl archive, fresh month, %s points, run %d: %s, CPU %s, peak %s, %d files, %s",
			count(int64(d.fleet.Len())), k+1, seconds(c.Wall), seconds(c.CPU), megabytes(c.RSS), size.files, megabytes(size.bytes))
	}
	b.report.duckdb, b.report.threads = a.Version, a.Threads
	m, base, rows := medianCost(ours), median(theirs), d.rows(1)
	what := fmt.Sprintf("one day, %s points (%s rows), fresh month", count(int64(d.fleet.Len())), millions(rows))
	b.report.ratio(what, seconds(m.Wall)+", "+rate(rows, m.Wall), seconds(base)+", "+rate(rows, base), m.Wall.Seconds()/base.Seconds(), 1)
	b.report.most("– its peak memory", m.RSS, 512<<20)
	return m, nil
}

// mergedDay archives the last day into a month that holds all others, in a
// directory and, in turns, over S3.
func (b *bench) mergedDay(ctx context.Context, d dataset, fresh cost) (err error) {
	days := d.fleet.Days()
	last := days.To - 1
	b.say("the last day into a month that holds %d, %d runs", days.Len()-1, dayRuns)
	held := b.fresh("held")
	before := utc.Days{From: days.From, To: last}
	if _, err := b.backfillDays(ctx, d.source(), before, "file:"+held); err != nil {
		return err
	}
	remote, err := b.mergesOverS3(ctx, d, before)
	if err != nil {
		return err
	}
	if remote != nil {
		defer func() { err = errors.Join(err, remote.stop()) }()
	}
	var runs []cost
	for k := range dayRuns {
		store := b.fresh("store")
		if err := linkTree(held, store); err != nil {
			return err
		}
		c, err := b.archive(ctx, io.Discard, d, last, d.source(), "file:"+store)
		if err != nil {
			return err
		}
		if _, err := check(store, d.rows(days.Len())); err != nil {
			return err
		}
		runs = append(runs, c)
		b.report.run("etl archive, month of %d days, %s points, run %d: %s, CPU %s, peak %s",
			days.Len()-1, count(int64(d.fleet.Len())), k+1, seconds(c.Wall), seconds(c.CPU), megabytes(c.RSS))
		if remote != nil {
			if err := remote.run(ctx, k+1); err != nil {
				return err
			}
		}
	}
	m := medianCost(runs)
	b.report.ratio(fmt.Sprintf("one day, %s points, into a month of %d days", count(int64(d.fleet.Len())), days.Len()-1),
		seconds(m.Wall), seconds(fresh.Wall)+" (fresh month)", m.Wall.Seconds()/fresh.Wall.Seconds(), 6)
	b.report.most("– its peak memory", m.RSS, 512<<20)
	if remote != nil {
		remote.report(m)
	}
	return nil
}

// linkTree copies a store by hard links; a store replaces files, it never changes one.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case e.IsDir() && strings.HasPrefix(e.Name(), "."): // the store's locks
			return fs.SkipDir
		case e.IsDir():
			return os.Mkdir(filepath.Join(to, rel), 0o755)
		}
		return os.Link(path, filepath.Join(to, rel))
	})
}

// backfill archives all days at once, and once only: it takes minutes.
func (b *bench) backfill(ctx context.Context, d dataset) error {
	days := d.fleet.Days()
	rows := d.rows(days.Len())
	b.say("backfill of %d days", days.Len())
	store := b.fresh("store")
	c, err := b.backfillDays(ctx, d.source(), days, "file:"+store)
	if err != nil {
		return err
	}
	t, err := check(store, rows)
	if err != nil {
		return err
	}
	b.report.run("etl backfill, %d days: %s, CPU %s, peak %s, %d files, %s, %.3f bytes a sample",
		days.Len(), seconds(c.Wall), seconds(c.CPU), megabytes(c.RSS), t.files, megabytes(t.bytes), float64(t.bytes)/float64(t.samples))
	speed := float64(rows) / c.Wall.Seconds()
	b.report.add(figure{
		what: fmt.Sprintf("backfill of %d days, %s points (%s rows)", days.Len(), count(int64(d.fleet.Len())), millions(rows)),
		etl:  seconds(c.Wall) + ", " + rate(rows, c.Wall), target: "≥ 2.5 M rows/s", met: speed >= 2.5e6,
	})
	b.report.most("– its peak memory", c.RSS, 1<<30)
	return nil
}

// sizes compares the bytes of the real sets, each as one file per point-month.
func (b *bench) sizes(ctx context.Context) error {
	sets, err := filepath.Glob(filepath.Join(b.sets, "*.csv.gz"))
	if err != nil {
		return err
	}
	if len(sets) == 0 {
		b.say("no real data sets in %s: sizes are skipped", b.sets)
		b.report.run("real data sets: skipped, none found")
		return nil
	}
	var ours, theirs, rows, files int64
	for _, set := range sets {
		name := strings.TrimSuffix(filepath.Base(set), ".csv.gz")
		b.say("size of %s", name)
		dir := filepath.Join(b.dir, "runs", name)
		o := setOptions{CSV: set, Path: filepath.Join(dir, "d1.sqlite"), Dir: filepath.Join(dir, "duckdb")}
		if err := os.MkdirAll(o.Dir, 0o755); err != nil {
			return err
		}
		if err := b.migrate(ctx, o.Path); err != nil {
			return err
		}
		var a setAnswer
		if _, err := b.child(ctx, "set", o, &a); err != nil {
			return err
		}
		store := filepath.Join(dir, "store")
		if _, err := b.backfillDays(ctx, "sqlite:"+o.Path, a.Days, "file:"+store); err != nil {
			return err
		}
		t, err := check(store, a.Rows)
		if err != nil {
			return err
		}
		if t.files != int64(a.Files) {
			return fmt.Errorf("%s: %d month files, DuckDB wrote %d", name, t.files, a.Files)
		}
		ours, theirs, rows, files = ours+t.bytes, theirs+a.Bytes, rows+a.Rows, files+t.files
		b.report.size("bytes of "+name, t.bytes, a.Bytes, a.Rows, t.files, 1)
	}
	b.report.size("bytes of all "+strconv.Itoa(len(sets))+" sets", ours, theirs, rows, files, 0.85)
	return nil
}
