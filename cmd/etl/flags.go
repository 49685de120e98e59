package main

import (
	"context"
	"math"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"etl/internal/config"
	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/source"
	"etl/internal/source/sqlite"
	"etl/internal/utc"
	"etl/jobs"
)

// settings are all the names that etl.yaml may hold, in the order of `etl config`.
var settings = []string{"source", "store", "no-state", "extract-workers", "write-workers", "memory", "codec", "hot-window", "grace", "now"}

// places are the flags that say what to work on.
type places struct {
	config        string
	source, store string
	noState       bool
	now           instant

	effective []config.Setting
}

func (p *places) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.source, "source", "", "hot tier: sqlite:PATH (also wrangler's local D1)")
	f.StringVar(&p.store, "store", "", "cold tier: file:DIR")
	f.BoolVar(&p.noState, "no-state", false, "never write to the source: no ledger, no log; late rows are found only by reading again")
	f.StringVar(&p.config, "config", "", "settings file (default etl.yaml in the current folder, if there is one)")
	f.Var(&p.now, "now", "take this for the current time, like 2024-02-20T02:00:00Z (demos and drills)")
	_ = f.MarkHidden("now")
}

// resolve gives the flags that were not set their values from the environment
// and the settings file.
func (p *places) resolve(a *app, cmd *cobra.Command) (err error) {
	file := p.config
	if file == "" {
		file = a.getenv("ETL_CONFIG")
	}
	p.effective, err = config.Load(cmd.Flags(), settings, settings, a.getenv, file)
	return err
}

func (p *places) clock() func() time.Time {
	if p.now.IsZero() {
		return time.Now
	}
	// The seconds still pass, so that durations are real.
	start := time.Now()
	return func() time.Time { return p.now.Add(time.Since(start)) }
}

// openSource opens the hot tier. create makes a database that does not exist.
func (p *places) openSource(readers int, create bool) (*sqlite.Source, error) {
	if p.source == "" {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "no source: where is the hot tier?"),
			"give --source sqlite:PATH, set ETL_SOURCE, or write `source: sqlite:PATH` into etl.yaml; `etl demo` makes one to try")
	}
	scheme, path, err := config.URL("source", p.source)
	if err != nil {
		return nil, err
	}
	if scheme != "sqlite" {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "--source %s: unknown kind %q", p.source, scheme), "this version reads sqlite:PATH")
	}
	return sqlite.Open(path, sqlite.Options{Readers: readers, ReadOnly: p.noState, Create: create, Now: p.clock()})
}

func (p *places) openStore() (object.Store, error) {
	if p.store == "" {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "no store: where is the cold tier?"),
			"give --store file:DIR, set ETL_STORE, or write `store: file:DIR` into etl.yaml; `etl demo` makes one to try")
	}
	scheme, path, err := config.URL("store", p.store)
	if err != nil {
		return nil, err
	}
	if scheme != "file" {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "--store %s: unknown kind %q", p.store, scheme), "this version writes to file:DIR")
	}
	return dir.Open(path)
}

// open resolves the settings and makes the environment of a job.
func (p *places) open(ctx context.Context, a *app, cmd *cobra.Command, needSource bool, readers int) (jobs.Env, func(), error) {
	if err := p.resolve(a, cmd); err != nil {
		return jobs.Env{}, nil, err
	}
	return p.openResolved(ctx, a, needSource, readers)
}

// openResolved makes the environment of a job. The source is opened if
// needSource is set, or if one is configured.
func (p *places) openResolved(ctx context.Context, a *app, needSource bool, readers int) (jobs.Env, func(), error) {
	env := jobs.Env{Now: p.clock(), Stop: a.stop}
	var err error
	if env.Store, err = p.openStore(); err != nil {
		return env, nil, err
	}
	if !needSource && p.source == "" {
		return env, func() {}, nil
	}
	src, err := p.openSource(readers, false)
	if err != nil {
		return env, nil, err
	}
	env.Source = src
	if !p.noState {
		info, err := src.Info(ctx)
		if err != nil {
			src.Close()
			return env, nil, err
		}
		if !info.Ledger && needSource {
			src.Close()
			return env, nil, fault.Hint(fault.Errorf(fault.Invalid, "%s has no ledger (table archive_marks)", p.source),
				"run `etl migrate --source %s` once, or give --no-state to work without it", p.source)
		}
		if info.Ledger {
			env.Ledger = source.Ledger(src)
		}
	}
	return env, func() { src.Close() }, nil
}

// span are the flags that choose days.
type span struct{ day, month, last, from, to string }

func (s *span) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.day, "day", "", "one day, like 2024-01-05")
	f.StringVar(&s.month, "month", "", "one month, like 2024-01")
	f.StringVar(&s.last, "last", "", "the last complete days, like 7d")
	f.StringVar(&s.from, "from", "", "first day, like 2024-01-05")
	f.StringVar(&s.to, "to", "", "the day after the last one (exclusive)")
	for _, one := range []string{"day", "month", "last"} {
		for _, other := range []string{"day", "month", "last", "from", "to"} {
			if one < other || other == "from" || other == "to" {
				cmd.MarkFlagsMutuallyExclusive(one, other)
			}
		}
	}
}

// days is the chosen range, the zero value if no flag was given. end is the
// first day that is not complete, begin the default of --from (0: none).
func (s *span) days(begin, end utc.Day) (utc.Days, error) {
	usage := func(err error) error { return fault.Wrap(fault.Usage, err) }
	switch {
	case s.day != "":
		d, err := utc.ParseDay(s.day)
		if err != nil {
			return utc.Days{}, fault.Errorf(fault.Usage, "--day: %w", err)
		}
		return utc.Days{From: d, To: d + 1}, nil
	case s.month != "":
		m, err := utc.ParseMonth(s.month)
		if err != nil {
			return utc.Days{}, fault.Errorf(fault.Usage, "--month: %w", err)
		}
		r := m.Days()
		if r.Contains(end) { // the month that is going on: as far as it is complete
			r.To = end
		}
		return r, nil
	case s.last != "":
		n, err := strconv.Atoi(strings.TrimSuffix(s.last, "d"))
		if err != nil || n < 1 || n > 36500 || !strings.HasSuffix(s.last, "d") {
			return utc.Days{}, fault.Errorf(fault.Usage, "--last %q: want a number of days like 7d", s.last)
		}
		return utc.Days{From: end - utc.Day(n), To: end}, nil
	case s.from == "" && s.to == "":
		return utc.Days{}, nil
	}
	r := utc.Days{From: begin, To: end}
	var err error
	if s.from != "" {
		if r.From, err = utc.ParseDay(s.from); err != nil {
			return r, usage(fault.Errorf(fault.Usage, "--from: %w", err))
		}
	} else if begin == 0 {
		return r, fault.Errorf(fault.Usage, "--to %s needs --from", s.to)
	}
	if s.to != "" {
		if r.To, err = utc.ParseDay(s.to); err != nil {
			return r, usage(fault.Errorf(fault.Usage, "--to: %w", err))
		}
	}
	if r.Empty() {
		return r, fault.Errorf(fault.Usage, "the range is empty: --from %s is not before --to %s (--to is exclusive)", r.From, r.To)
	}
	return r, nil
}

func addPoints(cmd *cobra.Command, p *jobs.Points) {
	cmd.Flags().StringArrayVar(&p.Globs, "points", nil, "only points whose whole name matches, * for any text; may be given again")
	cmd.Flags().StringVar(&p.Group, "group", "", "only the points of this group in point_groups")
}

// engine are the flags of the archiving engine.
type engine struct {
	extract, write int
	memory         size
	codec          codec
	window         days
	grace          time.Duration
}

func (e *engine) add(cmd *cobra.Command) {
	e.memory, e.window = 512<<20, jobs.HotWindow
	f := cmd.Flags()
	f.IntVar(&e.extract, "extract-workers", 2, "queries at a time")
	f.IntVar(&e.write, "write-workers", 4, "month files at a time")
	f.Var(&e.memory, "memory", "memory to stay within; half of it is for samples in flight")
	f.Var(&e.codec, "codec", "compression of month files: zstd or snappy")
	f.Var(&e.window, "hot-window", "how many days back archive looks for days missed and late rows")
	f.DurationVar(&e.grace, "grace", jobs.Grace, "how long after its end a day is taken to be complete")
}

// options fills the part of the options that the flags decide, and holds the
// process to its memory.
func (e *engine) options(mode jobs.Mode) jobs.ArchiveOptions {
	// The collector works harder as the heap nears the limit; SQLite's page
	// cache and the encoders' scratch live in the other half.
	debug.SetMemoryLimit(int64(e.memory))
	return jobs.ArchiveOptions{
		Mode: mode, Grace: e.grace, HotWindow: int(e.window), ExtractWorkers: e.extract, WriteWorkers: e.write,
		Memory: int64(e.memory) / 2, Codec: monthfile.Codec(e.codec),
	}
}

// size is a flag of bytes, like 512MiB.
type size int64

func (s *size) String() string { return strings.ReplaceAll(humanize.IBytes(uint64(*s)), " ", "") }
func (s *size) Type() string   { return "size" }
func (s *size) Set(v string) error {
	n, err := humanize.ParseBytes(v)
	if err != nil || n > math.MaxInt64 || n < 2<<20 {
		return fault.Errorf(fault.Usage, "want a size of at least 2MiB, like 512MiB, got %q", v)
	}
	*s = size(n)
	return nil
}

// days is a flag of days, like 35d.
type days int

func (d *days) String() string { return strconv.Itoa(int(*d)) + "d" }
func (d *days) Type() string   { return "days" }
func (d *days) Set(v string) error {
	n, err := strconv.Atoi(strings.TrimSuffix(v, "d"))
	if err != nil || n < 1 || n > 3650 {
		return fault.Errorf(fault.Usage, "want a number of days like 35d, got %q", v)
	}
	*d = days(n)
	return nil
}

// codec is a flag of a compression.
type codec monthfile.Codec

func (c *codec) String() string { return monthfile.Codec(*c).String() }
func (c *codec) Type() string   { return "codec" }
func (c *codec) Set(v string) error {
	for _, k := range []monthfile.Codec{monthfile.Zstd, monthfile.Snappy} {
		if v == k.String() {
			*c = codec(k)
			return nil
		}
	}
	return fault.Errorf(fault.Usage, "want zstd or snappy, got %q", v)
}

// instant is a flag of a time, like 2024-02-20T02:00:00Z.
type instant struct{ time.Time }

func (t *instant) Type() string { return "time" }
func (t *instant) String() string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}
func (t *instant) Set(v string) (err error) {
	if t.Time, err = time.Parse(time.RFC3339, v); err != nil {
		return fault.Errorf(fault.Usage, "want a time like 2024-02-20T02:00:00Z, got %q", v)
	}
	return nil
}
