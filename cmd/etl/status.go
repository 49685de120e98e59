package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"etl/internal/fault"
	"etl/jobs"
)

// statusing are the flags of status.
type statusing struct {
	places
	opts       jobs.StatusOptions
	window     days
	grace      wait
	looks      rowCount
	prometheus string
	strict     bool
}

func (a *app) status() *cobra.Command {
	var c statusing
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say how both tiers stand: size, freshness, quality, runs, backlog, and what to do",
		Long: `status looks at both tiers and says of each thing whether it is OK, and what to do if
not. It writes nothing, scans no table and reads no month file: D1 is asked by seeks, the
store for its manifests. With a source or a store alone it tells what that knows.

A limit is WARN,CRIT: where a line stops being OK, and where it can not wait. A single
value is WARN alone, and off is none. The share of bad quality is taken from some
readings (--quality-looks), at times spread evenly over the last 24 hours, since to
count all of them is a billed row for each.

--prometheus FILE also writes the numbers in Prometheus' text format, for the textfile
collector of node_exporter; the file is replaced at once, and what is no
regular file, such as a pipe, is written to.

Exit 3: a line is CRIT (with --strict, or WARN). 4: a manifest is damaged. 1 or 5: a tier
can not be read; the lines of the other one are there all the same.`,
		Example: `  etl status
  etl status --json
  etl status --limit-freshness 15m,2h --limit-quality off
  etl status --quiet --prometheus /var/lib/node_exporter/textfile/etl.prom`,
	}
	c.addSource(cmd)
	c.addStore(cmd)
	c.addNoState(cmd)
	f := cmd.Flags()
	l := &c.opts.Limits
	*l = jobs.DefaultStatusLimits()
	for _, v := range []struct {
		to          *jobs.Limit
		kind        limitKind
		name, about string
	}{
		{&l.Size, limitBytes, "size", "size of the hot tier"},
		{&l.DaysLeft, limitDays, "days-left", "days until the hot tier is full, if nothing leaves it"},
		{&l.Freshness, limitTime, "freshness", "age of the newest sample"},
		{&l.Quality, limitShare, "quality", "share of readings with a quality below 192"},
		{&l.Success, limitTime, "success", "time since an archive run succeeded"},
		{&l.Lag, limitDays, "lag", "complete days after the newest archived one"},
		{&l.Backlog, limitCount, "backlog", "(point, day)s before the last complete day that are not archived"},
		{&l.Late, limitCount, "late", "archived (point, day)s that wait for the next archive"},
		{&l.Verify, limitTime, "verify", "time since a verification succeeded"},
	} {
		f.Var(&limitFlag{v.to, v.kind, v.to == &l.DaysLeft}, "limit-"+v.name, v.about)
	}
	c.window, c.grace, c.looks = jobs.HotWindow, wait(jobs.Grace), 5_000
	f.Var(&c.window, "hot-window", "how many days back archive looks for days missed and late rows")
	f.Var(&c.grace, "grace", "how long after its end a day is taken to be complete")
	f.Var(&c.looks, "quality-looks", "about how many readings the share of bad quality is taken from, a billed row each")
	f.StringVar(&c.prometheus, "prometheus", "", "also write the numbers to `FILE`, in Prometheus' text format")
	f.BoolVar(&c.strict, "strict", false, "WARN is exit 3 too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := c.resolve(a, cmd); err != nil {
			return err
		}
		// Cron runs it every few minutes, and a place that does not answer is what there
		// is to tell: with these waits of 16 to 32 s, not minutes for each of its lines.
		c.policy, c.early = fault.Policy{Attempts: 7, Budget: 30 * time.Second, AfterCap: 10 * time.Second}, true
		env, not, done, err := c.openEither(cmd, a)
		if err != nil {
			return err
		}
		defer done()
		// A setting that can not be meant is told as each command does; a place that is
		// not there is what there is to see.
		for _, err := range []error{not.source, not.store} {
			if fault.Is(err, fault.Usage) {
				return err
			}
		}
		c.opts.SourceErr, c.opts.StoreErr = not.source, not.store
		// A look is short, and holds little: collecting garbage was a tenth of its time.
		debug.SetGCPercent(400)
		c.opts.Grace, c.opts.HotWindow, c.opts.Looks = time.Duration(c.grace), int(c.window), int(c.looks)
		r, err := jobs.Status(cmd.Context(), env, c.opts)
		if err != nil {
			return err
		}
		a.code = r.ExitCode(c.strict)
		perr := a.print(r, func(w io.Writer) { printStatus(w, r) })
		if c.prometheus != "" {
			if err := writeTextfile(c.prometheus, r.Metrics()); err != nil {
				return err
			}
		}
		return perr
	}
	return cmd
}

// unopened are the errors of the tiers that are set and could not be opened.
type unopened struct{ source, store error }

// openEither opens what is set of the two tiers, and the ledger if there is one. An error
// of the ledger shows again where the source is read. err is for what keeps both from
// being opened.
func (p *places) openEither(cmd *cobra.Command, a *app) (env jobs.Env, not unopened, done func(), err error) {
	env, done = jobs.Env{Now: p.clock(), Stop: a.stop.Done()}, func() {}
	problem := p.settings.Value("store").Problem
	hasStore := p.store != "" || problem != nil && !fault.Is(problem, fault.NotExist)
	if !p.hasSource() && !hasStore {
		return env, not, nil, fault.Hint(fault.Errorf(fault.Usage, "neither a source nor a store is set: what is to be looked at?"),
			"give --source and --store, set ETL_SOURCE and ETL_STORE, or write both into etl.yaml; `etl demo` makes a place to try")
	}
	if p.hasSource() {
		if src, err := p.openSource(2, false); err != nil {
			not.source = a.cleaned(err)
		} else {
			env.Source, done = src, func() { src.Close() }
			_ = p.addLedger(cmd.Context(), &env, src, false)
		}
	}
	if hasStore {
		if st, err := p.openStore(cmd.Context(), needed); err != nil {
			not.store = a.cleaned(err)
		} else {
			env.Store = st
		}
	}
	if err := cmd.Context().Err(); err != nil {
		done()
		return env, not, nil, err
	}
	return env, not, done, nil
}

// cleaned is err without secrets, in its hint too: it may name a URL with a password.
func (a *app) cleaned(err error) error {
	hint := fault.HintOf(err)
	if err = a.secrets.Error(err); hint != "" {
		err = fault.Hint(err, "%s", a.secrets.Clean(hint))
	}
	return err
}

func printStatus(w io.Writer, r jobs.StatusReport) {
	t := newTable("state", "line", "value", "warn>", "crit>")
	for _, l := range r.Lines {
		t.row(l.State, l.Name, whole(l.Text), limitText(l, l.Warn), limitText(l, l.Crit))
	}
	t.print(w)
	first := true
	for _, l := range r.Lines {
		if l.Remedy == "" {
			continue
		}
		if first {
			fmt.Fprintln(w)
			first = false
		}
		fmt.Fprintf(w, "%s → %s\n", l.Name, printableLine(l.Remedy))
	}
	printBilled(w, r.Billed)
}

// limitText writes a limit of a line as its flag takes it.
func limitText(l jobs.StatusLine, v *float64) string {
	if v == nil {
		return ""
	}
	switch l.Unit {
	case "bytes":
		return limitBytes.format(*v)
	case "seconds":
		return limitTime.format(*v)
	case "ratio":
		return limitShare.format(*v)
	case "days":
		return limitDays.format(*v)
	}
	return limitCount.format(*v)
}

// writeTextfile writes metrics for node_exporter's textfile collector, which may read at
// any moment.
func writeTextfile(path string, ms []jobs.Metric) error {
	var b strings.Builder
	for i, m := range ms {
		if i == 0 || ms[i-1].Name != m.Name {
			fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n", m.Name, m.Help, m.Name)
		}
		b.WriteString(m.Name)
		if m.Label[0] != "" {
			// The values are names of commands and lines; what else a log holds is escaped.
			fmt.Fprintf(&b, `{%s="%s"}`, m.Label[0], strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(m.Label[1], "\uFFFD")))
		}
		fmt.Fprintf(&b, " %s\n", strconv.FormatFloat(m.Value, 'g', -1, 64))
	}
	return intoFile("--prometheus", path, func(w io.Writer) error {
		// The collector runs as another user. What is no regular file keeps its mode: it
		// was there before, and may be a device.
		if f, ok := w.(*os.File); ok {
			if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
				if err := f.Chmod(0o644); err != nil {
					return err
				}
			}
		}
		_, err := io.WriteString(w, b.String())
		return err
	})
}

// limitKind is what a limit counts.
type limitKind int

const (
	limitCount limitKind = iota
	limitBytes
	limitTime
	limitShare
	limitDays
)

func (k limitKind) parse(s string) (v float64, err error) {
	s = strings.TrimSpace(s)
	switch k {
	case limitBytes:
		var n uint64
		n, err = humanize.ParseBytes(s)
		v = float64(n)
	case limitTime:
		d, ok := strings.CutSuffix(s, "d")
		if v, err = strconv.ParseFloat(d, 64); ok && err == nil {
			v *= 86400
			break
		}
		var t time.Duration
		t, err = time.ParseDuration(s)
		v = t.Seconds()
	case limitShare:
		v, err = strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
		v /= 100
	case limitDays:
		v, err = strconv.ParseFloat(strings.TrimSuffix(s, "d"), 64)
	default:
		v, err = strconv.ParseFloat(s, 64)
	}
	if err != nil || !(v > 0) || math.IsInf(v, 0) {
		return 0, fault.Errorf(fault.Usage, "want %s, or off; got %q", k.Type(), s)
	}
	return v, nil
}

func (k limitKind) format(v float64) string {
	plain := strconv.FormatFloat(v, 'f', -1, 64)
	switch k {
	case limitBytes:
		return strings.ReplaceAll(humanize.Bytes(uint64(v)), " ", "")
	case limitTime:
		if v >= 3*86400 && math.Mod(v, 86400) == 0 {
			return strconv.FormatFloat(v/86400, 'f', -1, 64) + "d"
		}
		return new(wait(time.Duration(v * float64(time.Second)))).String()
	case limitShare:
		return strconv.FormatFloat(v*100, 'g', 6, 64) + "%"
	case limitDays:
		return plain + "d"
	}
	return plain
}

func (k limitKind) Type() string {
	return []string{"n[,n]", "size[,size], like 9.5GB,9.9GB", "time[,time], like 5m,1h or 8d", "n%[,n%]", "days[,days], like 2d,4d"}[k]
}

// limitFlag is a flag of a limit, like 5m,1h: WARN and CRIT.
type limitFlag struct {
	to   *jobs.Limit
	kind limitKind
	less bool // it is the worse the less it is
}

func (f *limitFlag) Type() string {
	return []string{"n", "size", "time", "share", "days"}[f.kind]
}

func (f *limitFlag) String() string {
	if f.to == nil || *f.to == (jobs.Limit{}) {
		return "off"
	}
	part := func(v float64) string {
		if v == 0 {
			return "off"
		}
		return f.kind.format(v)
	}
	if f.to.Crit == 0 {
		return part(f.to.Warn)
	}
	return part(f.to.Warn) + "," + part(f.to.Crit)
}

func (f *limitFlag) Set(s string) (err error) {
	var l jobs.Limit
	warn, crit, two := strings.Cut(s, ",")
	for _, p := range []struct {
		text string
		to   *float64
	}{{warn, &l.Warn}, {crit, &l.Crit}} {
		if t := strings.TrimSpace(p.text); t == "off" || t == "" && (two || p.to == &l.Crit) {
			continue
		}
		if *p.to, err = f.kind.parse(p.text); err != nil {
			return err
		}
	}
	if l.Warn != 0 && l.Crit != 0 && l.Warn != l.Crit && (l.Crit < l.Warn) != f.less {
		order := "above"
		if f.less {
			order = "below"
		}
		return fault.Errorf(fault.Usage, "want WARN,CRIT with CRIT %s WARN, got %q", order, s)
	}
	*f.to = l
	return nil
}
