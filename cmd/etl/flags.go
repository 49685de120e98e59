package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"etl/internal/cloudflare"
	"etl/internal/config"
	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/utc"
	"etl/jobs"
)

// settings are all that etl.yaml may hold, in the order of `etl config`.
var settings = []config.Setting{
	{Name: "source"}, {Name: "store"},
	{Name: "wrangler"}, {Name: "env", Env: []string{"CLOUDFLARE_ENV"}}, {Name: "d1-binding"}, {Name: "r2-binding"}, {Name: "local"},
	{Name: "account-id", Env: []string{"CLOUDFLARE_ACCOUNT_ID"}},
	{Name: "api-token", Env: []string{"CLOUDFLARE_API_TOKEN"}, Secret: true},
	{Name: "api-url", Env: []string{"CLOUDFLARE_API_BASE_URL"}},
	{Name: "api-rate"}, {Name: "api-burst"},
	{Name: "access-key-id", Env: []string{"AWS_ACCESS_KEY_ID"}},
	{Name: "secret-access-key", Env: []string{"AWS_SECRET_ACCESS_KEY"}, Secret: true},
	{Name: "session-token", Env: []string{"AWS_SESSION_TOKEN"}, Secret: true},
	{Name: "region", Env: []string{"AWS_REGION"}},
	{Name: "replica"}, {Name: "replica-access-key-id"}, {Name: "replica-secret-access-key", Secret: true}, {Name: "replica-session-token", Secret: true}, {Name: "replica-region"},
	{Name: "ca-file"},
	{Name: "cache"}, {Name: "cache-size"}, {Name: "max-bytes"}, {Name: "max-hot-rows"},
	{Name: "cron"}, {Name: "listen"}, {Name: "heartbeat-url", Secret: true}, {Name: "webhook-url", Secret: true},
	{Name: "no-state"}, {Name: "extract-workers"}, {Name: "write-workers"}, {Name: "memory"}, {Name: "codec"}, {Name: "hot-window"}, {Name: "grace"}, {Name: "now"},
	{Name: "limit-size"}, {Name: "limit-days-left"}, {Name: "limit-freshness"}, {Name: "limit-quality"}, {Name: "limit-success"},
	{Name: "limit-lag"}, {Name: "limit-backlog"}, {Name: "limit-late"}, {Name: "limit-verify"}, {Name: "quality-looks"},
}

// fitting are the defaults that depend on the kind of a place.
var fitting = []struct{ name, of, kind, value string }{
	{"extract-workers", "source", "d1", "1"}, // D1 runs one query at a time
	{"write-workers", "store", "r2", "32"},   // each waits for the network most of the time
	{"write-workers", "store", "s3", "32"},
}

// places are the flags that say what to work on.
type places struct {
	config        string
	source, store string
	wrangler, env string
	d1Binding     string
	r2Binding     string
	local         bool
	noState       bool
	now           instant
	remote
	secrets pflag.FlagSet

	settings *config.Config
	noSource bool // the command does without, whatever is set
	opened        // open.go
}

// remote are the flags of places that are reached over a network.
type remote struct {
	account, token, url  string
	rate                 perSecond
	burst                count
	key, secret, session string
	region               string
	caFile               string
}

func (p *places) addSource(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.source, "source", "", "hot tier: `URL`, d1://DATABASE_ID or sqlite:PATH")
	f.StringVar(&p.d1Binding, "d1-binding", "", "the `NAME` of the wrangler file's D1 binding that is the source, if there are several")
	f.BoolVar(&p.local, "local", false, "the source is wrangler's local state of its D1 database")
	p.addCommon(cmd)
}

func (p *places) addStore(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.store, "store", "", "cold tier: `URL`, r2://BUCKET[/PREFIX], s3://BUCKET[/PREFIX]?endpoint=URL&region=NAME or file:DIR")
	f.StringVar(&p.r2Binding, "r2-binding", "", "the `NAME` of the wrangler file's R2 binding that is the store, if there are several")
	f.StringVar(&p.key, "access-key-id", "", "S3 `KEY` of the store (AWS_ACCESS_KEY_ID, its secret in AWS_SECRET_ACCESS_KEY); for r2: made from the API token if left out")
	f.StringVar(&p.region, "region", "", "`REGION` of an s3: store (AWS_REGION)")
	p.secrets.StringVar(&p.secret, "secret-access-key", "", "")
	p.secrets.StringVar(&p.session, "session-token", "", "")
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
	f.StringVar(&p.wrangler, "wrangler", "", "take source, store and account from a Worker's `FILE`: wrangler.jsonc or wrangler.toml")
	f.StringVar(&p.env, "env", "", "the environment `NAME` of the wrangler file (CLOUDFLARE_ENV)")
	f.StringVar(&p.account, "account-id", "", "Cloudflare account `ID` (CLOUDFLARE_ACCOUNT_ID; the token in CLOUDFLARE_API_TOKEN)")
	f.StringVar(&p.url, "api-url", cloudflare.DefaultURL, "base `URL` of Cloudflare's API (CLOUDFLARE_API_BASE_URL)")
	p.rate, p.burst = 4, 200
	f.Var(&p.rate, "api-rate", "requests a second to Cloudflare's API, on average over 5 minutes")
	f.Var(&p.burst, "api-burst", "requests to Cloudflare's API that may go at once")
	f.StringVar(&p.caFile, "ca-file", "", "PEM `FILE` of certificate authorities to trust beside the system's")
	p.secrets.StringVar(&p.token, "api-token", "", "")
	f.Var(&p.now, "now", "take this for the current time, like 2024-02-20T02:00:00Z (demos and drills)")
	_ = f.MarkHidden("now")
}

// resolve gives the flags that were not set their values from the environment,
// the settings file and the wrangler file.
func (p *places) resolve(a *app, cmd *cobra.Command) (err error) {
	file := p.config
	if file == "" {
		file = a.getenv("ETL_CONFIG")
	}
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	all.AddFlagSet(cmd.Flags())
	all.AddFlagSet(&p.secrets)
	a.secrets.Add(config.Secrets(settings, a.getenv, file)...)
	if p.settings, err = config.Load(all, settings, a.getenv, file); err != nil {
		return err
	}
	for _, text := range p.settings.Warnings {
		a.warn(text)
	}
	p.opened.app = a
	kinds := make(map[string]string)
	for _, name := range []string{"source", "store"} {
		kinds[name], _, _ = strings.Cut(p.settings.Value(name).Value, ":")
	}
	for i := range p.settings.Values {
		v := &p.settings.Values[i]
		for _, d := range fitting {
			if d.name != v.Name || d.kind != kinds[d.of] || v.Origin != "default" {
				continue
			}
			if err := all.Lookup(d.name).Value.Set(d.value); err != nil {
				return err
			}
			v.Value, v.Origin = d.value, fmt.Sprintf("default for %s:", d.kind)
		}
	}
	return nil
}

func (p *places) clock() func() time.Time {
	if p.now.IsZero() {
		return time.Now
	}
	// The seconds still pass, so that durations are real.
	start := time.Now()
	return func() time.Time { return p.now.Add(time.Since(start)) }
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
	f.Lookup("extract-workers").DefValue = "2, for d1: 1"
	f.Lookup("write-workers").DefValue = "16, for r2: and s3: 32"
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
	moreThreads()
	return jobs.ArchiveOptions{
		Mode: mode, Grace: time.Duration(e.grace), HotWindow: int(e.window), ExtractWorkers: int(e.extract), WriteWorkers: int(e.write),
		Memory: int64(e.memory) / 2, Codec: monthfile.Codec(e.codec),
	}
}

// moreThreads lets twice as many threads run as there are cores, however many
// jobs the process runs. Writers wait for the disk most of the time. With as many
// running threads as cores, one that comes back from a sync waits up to 10 ms for
// an extractor to be preempted; with twice as many the kernel lets it in at once.
// A day of 4,500 points into a fresh month takes a fifth less.
var moreThreads = sync.OnceFunc(func() { runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0)) })

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

// perSecond is a flag of a rate.
type perSecond float64

func (r *perSecond) String() string { return strconv.FormatFloat(float64(*r), 'g', -1, 64) }
func (r *perSecond) Type() string   { return "n" }
func (r *perSecond) Set(v string) error {
	n, err := strconv.ParseFloat(v, 64)
	if err != nil || !(n > 0 && n <= 1000) {
		return fault.Errorf(fault.Usage, "want a number above 0 and up to 1000, got %q", v)
	}
	*r = perSecond(n)
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
