package main

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"runtime"
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

func (p *places) addSource(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.source, "source", "", "hot tier: `sqlite:PATH` (also wrangler's local D1)")
	p.addCommon(cmd)
}

func (p *places) addStore(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.store, "store", "", "cold tier: `file:DIR`")
	p.addCommon(cmd)
}

func (p *places) addNoState(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.noState, "no-state", false, "never write to the source: no ledger, no log; late rows are found only by reading again")
}

func (p *places) addCommon(cmd *cobra.Command) {
	f := cmd.Flags()
	if f.Lookup("config") != nil {
		return
	}
	f.StringVar(&p.config, "config", "", "settings `FILE` (default etl.yaml in the current folder, if there is one)")
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

// presence says what a command asks of the folder that the store is.
type presence int

const (
	needed  presence = iota // reading: an absent folder is an error, most likely a wrong path
	created                 // writing: an absent folder is made
	perhaps                 // planning: an absent folder is an empty store, and stays absent
)

func (p *places) openStore(want presence) (object.Store, error) {
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
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		switch want {
		case needed:
			return nil, fault.Hint(fault.Errorf(fault.NotExist, "--store %s: there is no folder %s", p.store, path),
				"is the path right, and the disk mounted? The first `etl archive` or `etl backfill` makes the folder")
		case perhaps:
			return noStore{}, nil
		}
	}
	s, err := dir.Open(path)
	if err != nil && fault.HintOf(err) == "" {
		err = fault.Hint(err, "--store file:DIR names a folder, or one that can be made")
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// noStore stands for the folder of a store that does not exist yet.
type noStore struct{}

func (noStore) Get(_ context.Context, key object.Key) ([]byte, object.Attrs, error) {
	return nil, object.Attrs{}, fault.Errorf(fault.NotExist, "get %s: the store is not made yet", key)
}

func (noStore) Put(_ context.Context, key object.Key, _ []byte, _ object.PutOptions) (object.Attrs, error) {
	return object.Attrs{}, fault.Errorf(fault.Internal, "put %s: the store is not made yet", key)
}

func (noStore) List(context.Context, string) iter.Seq2[object.Attrs, error] {
	return func(func(object.Attrs, error) bool) {}
}

// access is what a command needs of the two tiers.
type access struct {
	source  bool // the source is needed, and its ledger unless --no-state; else it is opened if one is configured
	store   presence
	readers int // queries at a time, 0 for 1
}

// open makes the environment of a job from settings that were resolved. The
// source comes first, so that a wrong one leaves no folder behind.
func (p *places) open(ctx context.Context, a *app, need access) (env jobs.Env, done func(), err error) {
	env, done = jobs.Env{Now: p.clock(), Stop: a.stop.Done()}, func() {}
	if need.source && p.source == "" && p.store == "" {
		return env, nil, fault.Hint(fault.Errorf(fault.Usage, "no source and no store: where are the hot tier and the cold tier?"),
			"give --source sqlite:PATH and --store file:DIR, set ETL_SOURCE and ETL_STORE, or write both into etl.yaml; `etl demo` makes a place to try")
	}
	if need.source || p.source != "" {
		src, err := p.openSource(max(1, need.readers), false)
		if err != nil {
			return env, nil, err
		}
		env.Source, done = src, func() { src.Close() }
		if err := p.addLedger(ctx, &env, src, need.source); err != nil {
			done()
			return env, nil, err
		}
	}
	if env.Store, err = p.openStore(need.store); err != nil {
		done()
		return env, nil, err
	}
	return env, done, nil
}

func (p *places) addLedger(ctx context.Context, env *jobs.Env, src *sqlite.Source, required bool) error {
	if p.noState {
		return nil
	}
	info, err := src.Info(ctx)
	if err != nil {
		return err
	}
	if info.Ledger {
		env.Ledger, env.Journal = src, src
	} else if required {
		return fault.Hint(fault.Errorf(fault.Invalid, "%s has no ledger (table archive_marks and its triggers)", p.source),
			"run `etl migrate --source %s` once, or give --no-state to work without it", p.source)
	}
	return nil
}

// span are the flags that choose days.
type span struct{ day, month, last, from, to string }

func (s *span) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.day, "day", "", "one `DAY`, like 2024-01-05")
	f.StringVar(&s.month, "month", "", "one `MONTH`, like 2024-01")
	f.StringVar(&s.last, "last", "", "the last complete `DAYS`, like 7d")
	f.StringVar(&s.from, "from", "", "first `DAY`, like 2024-01-05")
	f.StringVar(&s.to, "to", "", "the `DAY` after the last one: --to is exclusive")
}

// check refuses flags that contradict each other.
func (s *span) check() error {
	var ways []string
	for _, w := range []struct{ flag, value string }{{"--day", s.day}, {"--month", s.month}, {"--last", s.last}, {"--from/--to", s.from + s.to}} {
		if w.value != "" {
			ways = append(ways, w.flag)
		}
	}
	if len(ways) > 1 {
		return fault.Hint(fault.Errorf(fault.Usage, "%s exclude each other", strings.Join(ways, " and ")),
			"give one of --day, --month, --last, or --from with --to")
	}
	return nil
}

// days is the chosen range, the zero value if no flag was given. end is the
// first day that is not complete, begin the default of --from (0: none).
func (s *span) days(begin, end utc.Day) (utc.Days, error) {
	if err := s.check(); err != nil {
		return utc.Days{}, err
	}
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
		if end == r.From {
			return r, fault.Hint(fault.Errorf(fault.Usage, "--month %s: no day of it is complete yet", m), "the last complete day is %s", end-1)
		}
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
			return r, fault.Errorf(fault.Usage, "--from: %w", err)
		}
	} else if begin == 0 {
		return r, fault.Hint(fault.Errorf(fault.Usage, "--to %s needs --from", s.to), "give the first day too; only archive knows where to begin")
	}
	if s.to != "" {
		if r.To, err = utc.ParseDay(s.to); err != nil {
			return r, fault.Errorf(fault.Usage, "--to: %w", err)
		}
	}
	if r.Empty() {
		return r, fault.Hint(fault.Errorf(fault.Usage, "the range is empty: it begins on %s and ends before %s", r.From, r.To),
			"--to is exclusive: --from 2024-01-05 --to 2024-01-06 is one day")
	}
	return r, nil
}

func addPoints(cmd *cobra.Command, p *jobs.Points) {
	cmd.Flags().StringArrayVar(&p.Globs, "points", nil, "only points whose whole name matches `GLOB`, * for any text; may be given again")
	cmd.Flags().StringVar(&p.Group, "group", "", "only the points of the group `NAME` in point_groups")
}

// engine are the flags of the archiving engine.
type engine struct {
	extract, write count
	memory         size
	codec          codec
	window         days
	grace          wait
}

func (e *engine) add(cmd *cobra.Command) {
	e.extract, e.write, e.memory, e.window, e.grace = 2, 16, 512<<20, jobs.HotWindow, wait(jobs.Grace)
	f := cmd.Flags()
	f.Var(&e.extract, "extract-workers", "queries at a time")
	f.Var(&e.write, "write-workers", "month files at a time")
	f.Var(&e.memory, "memory", "memory to stay within; half of it is for samples in flight")
	f.Var(&e.codec, "codec", "compression of month files: zstd or snappy")
	f.Var(&e.window, "hot-window", "how many days back archive looks for days missed and late rows")
	f.Var(&e.grace, "grace", "how long after its end a day is taken to be complete")
}

// options fills the part of the options that the flags decide, and holds the
// process to its memory.
func (e *engine) options(mode jobs.Mode) jobs.ArchiveOptions {
	// The collector works harder as the heap nears the limit; SQLite's page
	// cache and the encoders' scratch live in the other half.
	debug.SetMemoryLimit(int64(e.memory))
	// Writers wait for the disk most of the time. With as many running threads
	// as cores, one that comes back from a sync waits up to 10 ms for an
	// extractor to be preempted; with twice as many the kernel lets it in at
	// once. A day of 4,500 points into a fresh month takes a fifth less.
	runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
	return jobs.ArchiveOptions{
		Mode: mode, Grace: time.Duration(e.grace), HotWindow: int(e.window), ExtractWorkers: int(e.extract), WriteWorkers: int(e.write),
		Memory: int64(e.memory) / 2, Codec: monthfile.Codec(e.codec),
	}
}

// count is a flag of a number of workers.
type count int

func (c *count) String() string { return strconv.Itoa(int(*c)) }
func (c *count) Type() string   { return "n" }
func (c *count) Set(v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 1024 {
		return fault.Errorf(fault.Usage, "want a number from 1 to 1024, got %q", v)
	}
	*c = count(n)
	return nil
}

// wait is a flag of a duration, like 90m.
type wait time.Duration

func (d *wait) String() string {
	s := time.Duration(*d).String() // 1h0m0s, of which the zeros say nothing
	if t, ok := strings.CutSuffix(s, "m0s"); ok {
		s = t + "m"
	}
	if t, ok := strings.CutSuffix(s, "h0m"); ok {
		s = t + "h"
	}
	return s
}
func (d *wait) Type() string { return "duration" }
func (d *wait) Set(v string) error {
	n, err := time.ParseDuration(v)
	if err != nil || n <= 0 || n > 30*24*time.Hour {
		return fault.Errorf(fault.Usage, "want a duration of more than nothing, like 1h or 90m, got %q", v)
	}
	*d = wait(n)
	return nil
}

// size is a flag of bytes, like 512MiB.
type size int64

func (s *size) String() string { return strings.ReplaceAll(humanize.IBytes(uint64(*s)), " ", "") }
func (s *size) Type() string   { return "size" }
func (s *size) Set(v string) error {
	n, err := humanize.ParseBytes(v)
	if err != nil || n > 1<<50 || n < 2<<20 {
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
	k, err := monthfile.ParseCodec(v)
	if err != nil {
		return err
	}
	*c = codec(k)
	return nil
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
