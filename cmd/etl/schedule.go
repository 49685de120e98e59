package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"etl/internal/fault"
	"etl/internal/lake"
	"etl/internal/notify"
	"etl/internal/schedule"
	"etl/internal/tiers"
	"etl/jobs"
)

// nightly are the flags of schedule.
type nightly struct {
	places
	engine
	notices
	cacheFlags
	cron         nights
	listen       string
	attempts     count
	backoff      wait
	maxAge       wait
	deep         percent
	audit        bool
	missing      allowance
	maxGap       stretch
	known        string
	prune        bool
	older        days
	most         rowCount
	once, dryRun bool
}

// notices are the secret addresses that are told of nights.
type notices struct{ heartbeat, webhook string }

func (n *notices) add(p *places) {
	p.secrets.StringVar(&n.heartbeat, "heartbeat-url", "", "")
	p.secrets.StringVar(&n.webhook, "webhook-url", "", "")
}

// urls parses the addresses; one that is not set is nil.
func (n *notices) urls(p *places) (heartbeat, webhook *notify.URL, err error) {
	parse := func(name, text string) *notify.URL {
		if text == "" {
			return nil
		}
		u, perr := notify.ParseURL(text)
		if perr != nil {
			err = errors.Join(err, fault.Errorf(fault.Usage, "%s: %s: %w", p.settings.Value(name).Origin, name, perr))
		}
		return u
	}
	heartbeat, webhook = parse("heartbeat-url", n.heartbeat), parse("webhook-url", n.webhook)
	return heartbeat, webhook, fault.Wrap(fault.Usage, err)
}

// nights is a flag of a cron expression.
type nights struct{ schedule.Cron }

func (n *nights) Type() string { return "EXPRESSION" }
func (n *nights) Set(v string) (err error) {
	n.Cron, err = schedule.ParseCron(v)
	return err
}

// addClock adds the flags of schedule that are settings.
func (c *nightly) addClock(cmd *cobra.Command) {
	f := cmd.Flags()
	_ = c.cron.Set("0 2 * * *")
	f.Var(&c.cron, "cron", "when nights are due, UTC: `EXPRESSION` of minute hour day month weekday")
	f.StringVar(&c.listen, "listen", "127.0.0.1:9464", "`ADDRESS` of /metrics, /healthz and /livez; off for none")
}

func (a *app) schedule() *cobra.Command {
	var c nightly
	cmd := &cobra.Command{
		Use:   "schedule",
		Short: "The nightly job as a service: archive, verify, and what else is asked for, each night",
		Long: `schedule runs a night whenever --cron says so, in UTC: archive (which makes up for
every day that was missed), verify, audit of the last complete day, once a week
verify --deep on another share of the files (--deep-sample), and with --prune, after
an archive that was found whole, prune. A night that was missed while nothing ran is
made up for at the start.

A step that failed is tried again, --attempts times in a night with growing pauses.
One that can not succeed before a person acts (exit 2 or 4 of its command) is halted
until the next night; archiving goes on. Nothing is tried without end.

/metrics is for Prometheus, /healthz answers 503 while the last night without
failures is older than --max-age or a step is halted, /livez says that the process
runs. ETL_HEARTBEAT_URL is asked for after each night in which nothing failed;
ETL_WEBHOOK_URL gets a message, in Slack's form, when something failed or was found.

The first signal finishes and commits what is in flight, the second one stops.
Two schedulers on one place are safe. docs/running.md has systemd, containers,
Kubernetes, CI and alerts.

--once runs a night now and exits with the worst code of its steps.`,
		Example: `  etl schedule                                   # each night at 02:00 UTC
  etl schedule --cron "30 1 * * *" --prune --older-than 40d
  etl schedule --dry-run                         # when, what, and would it run at once?
  etl schedule --once --json                     # for a timer, a CronJob, CI
  curl -s localhost:9464/healthz`,
	}
	c.addSource(cmd)
	c.addStore(cmd)
	c.addNoState(cmd)
	c.engine.add(cmd)
	c.cacheFlags.add(cmd)
	c.notices.add(&c.places)
	c.addClock(cmd)
	f := cmd.Flags()
	c.attempts, c.backoff, c.maxAge = 3, wait(10*time.Minute), wait(36*time.Hour)
	f.Var(&c.attempts, "attempts", "how often a step is tried in a night")
	f.Var(&c.backoff, "backoff", "the pause before what failed is tried again; it doubles up to an hour")
	f.Var(&c.maxAge, "max-age", "how old the last night without failures may be before /healthz answers 503")
	c.deep = 25
	f.Var(&c.deep, "deep-sample", "of the weekly verify --deep, the part of the month files: with 25% all are read in 4 weeks")
	f.BoolVar(&c.audit, "audit", true, "look for gaps in the last complete day")
	f.Var(&c.missing, "max-missing", "of audit, how many samples may be missing before it is a finding, or what part of those expected")
	f.Var(&c.maxGap, "max-gap", "of audit, how long a gap may be before it is a finding, like 2h")
	f.StringVar(&c.known, "known", "", "of audit, CSV `FILE` of acknowledged outages: point,from,to,note")
	f.BoolVar(&c.prune, "prune", false, "also delete from the source what is safely archived")
	c.older = jobs.HotWindow
	f.Var(&c.older, "older-than", "with --prune, how old a day must be")
	f.Var(&c.most, "max-rows", "with --prune, stop after about so many rows a night")
	f.Lookup("max-rows").DefValue = ""
	f.BoolVar(&c.once, "once", false, "run a night now, and exit")
	f.BoolVar(&c.dryRun, "dry-run", false, "print when nights are due and what they do, and do nothing")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.runSchedule(cmd.Context(), cmd, &c) }
	return cmd
}

func (a *app) runSchedule(ctx context.Context, cmd *cobra.Command, c *nightly) error {
	if err := c.resolve(a, cmd); err != nil {
		return err
	}
	if cmd.Flags().Changed("older-than") && !c.prune || cmd.Flags().Changed("max-rows") && !c.prune {
		return fault.Errorf(fault.Usage, "--older-than and --max-rows belong to --prune")
	}
	heartbeat, webhook, err := c.urls(&c.places)
	if err != nil {
		return err
	}
	// A place that can never be opened is a mistake to tell at once.
	_, done, err := c.open(ctx, a, access{source: true, store: perhaps})
	if err != nil && !fault.Is(err, fault.Transient) {
		return err
	} else if err == nil {
		done()
	}
	steps, err := c.steps(a, cmd)
	if err != nil {
		return err
	}
	log := a.nightLog()
	metrics := newNightMetrics(c.clock(), time.Duration(c.maxAge), time.Duration(c.grace), &a.retries)
	metrics.expect(steps)
	lines := &jobs.NightLog{Open: c.opener(a), Warn: func(format string, args ...any) { a.warn(fmt.Sprintf(format, args...)) }}
	s, err := schedule.New(schedule.Options{
		Cron: c.cron.Cron, Steps: steps, Attempts: int(c.attempts), Backoff: time.Duration(c.backoff), Now: c.clock(),
		History: func(ctx context.Context, due time.Time) (schedule.History, error) {
			h, err := lines.History(ctx, due)
			metrics.remember(h.Success)
			return h, err
		},
		Before: lines.Begin,
		After: func(ctx context.Context, r schedule.Report) {
			lines.End(ctx, r)
			a.tell(ctx, r, heartbeat, webhook, c)
		},
		Notify: func(e schedule.Event) {
			metrics.event(e)
			log(e)
		},
	}, a.stop.Done())
	if err != nil {
		return err
	}
	if c.dryRun {
		p := s.Plan(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		return a.print(p, func(w io.Writer) { printSchedule(w, p) })
	}
	if ctx, err = a.finishing(); err != nil {
		return err
	}
	if c.once {
		r := s.Once(ctx)
		a.code = r.Code
		return a.print(r, func(w io.Writer) { printNight(w, r) })
	}
	end, err := a.serve(c.listen, metrics)
	if err != nil {
		return err
	}
	defer end()
	r, err := s.Run(ctx)
	if r.Interrupted() {
		a.code = fault.ExitInterrupted
	}
	return err
}

// opener opens the places for each step anew. Nothing is in flight then, so that the
// first interrupt ends it.
func (c *nightly) opener(a *app) jobs.Opener {
	return func(ctx context.Context, step string) (jobs.Env, func(), error) {
		need := access{source: true, store: needed, readers: int(c.extract) + 2}
		switch step {
		case string(jobs.Archive):
			need.store = created
		case jobs.NightCommand:
			need.store = perhaps
		}
		ctx, end := a.untilStop(ctx)
		defer end()
		env, done, err := c.open(ctx, a, need)
		if err != nil || step == jobs.NightCommand {
			return env, done, err
		}
		notify, stop := a.watch(step)
		env.Notify = notify
		return env, func() { stop(); done() }, nil
	}
}

// steps are those of a night, in order.
func (c *nightly) steps(a *app, cmd *cobra.Command) ([]schedule.Step, error) {
	open := c.opener(a)
	workers := int(c.workersFor(cmd, 4))
	verify := jobs.VerifyOptions{Workers: workers}
	deep := jobs.VerifyOptions{Workers: workers, Deep: true, Sample: int(c.deep)}
	steps := []schedule.Step{
		jobs.ArchiveStep(open, c.engine.options(jobs.Archive)),
		jobs.VerifyStep(open, verify),
	}
	if c.audit {
		o := jobs.AuditOptions{Tolerance: 1.5, Rules: []string{}, MaxMissing: c.missing.value(), MaxGap: time.Duration(c.maxGap), Workers: runtime.GOMAXPROCS(0)}
		if c.known != "" {
			var err error
			if o.Known, err = readKnown(c.known); err != nil {
				return nil, err
			}
		}
		steps = append(steps, jobs.AuditStep(c.reader(a, open, workers), o, time.Duration(c.grace)))
	}
	steps = append(steps, jobs.VerifyStep(open, deep))
	if c.prune {
		steps = append(steps, jobs.PruneStep(open, jobs.PruneOptions{
			OlderThan: int(c.older), MaxRows: int64(c.most), Workers: workers, Memory: int64(c.memory) / 2, Pace: c.pace(),
		}))
	}
	return steps, nil
}

// reader opens the places for an audit.
func (c *nightly) reader(a *app, open jobs.Opener, workers int) jobs.AuditOpener {
	return func(ctx context.Context, step string) (jobs.Env, tiers.Reader, func(), error) {
		env, done, err := open(ctx, step)
		if err != nil {
			return env, nil, nil, err
		}
		o := lake.Options{
			Source: env.Source, Ledger: env.Ledger, Store: env.Store, StoreName: c.store, Memory: int64(c.memory), Threads: runtime.GOMAXPROCS(0),
			FetchWorkers: workers, ExtractWorkers: int(c.extract), HotWindow: int(c.window), Now: c.clock(),
		}
		if o.Cache, err = c.openCache(a); err != nil {
			done()
			return env, nil, nil, err
		}
		ctx, end := a.untilStop(ctx) // an audit changes nothing
		l, err := lake.Open(ctx, o)
		if err != nil {
			end()
			done()
			return env, nil, nil, err
		}
		return env, l, func() {
			defer end()
			if err := l.Close(); err != nil {
				a.warn(err.Error())
			}
			done()
		}, nil
	}
}

// serve answers /metrics, /healthz and /livez until end is called.
func (a *app) serve(address string, m *nightMetrics) (end func(), err error) {
	if address == "off" {
		return func() {}, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "--listen: %w", err), "--listen 127.0.0.1:9464, or off")
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fault.Hint(fault.Errorf(fault.Unavailable, "--listen: %w", err), "does another scheduler run here? Give this one another port, or --listen off")
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		a.warn(fmt.Sprintf("%s can be reached from other machines: /metrics asks nobody who they are", l.Addr()))
	}
	a.nightNote("listening", map[string]any{"address": l.Addr().String()})
	srv := &http.Server{Handler: m.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	var g errgroup.Group
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.warn(fmt.Sprintf("%s answers no more: %v", l.Addr(), err))
		}
		return nil
	})
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			srv.Close()
		}
		_ = g.Wait()
	}, nil
}

// message is what a webhook gets.
type message struct {
	Text   string          `json:"text"`  // Slack's form
	Event  string          `json:"event"` // failed, halted, findings
	Source string          `json:"source"`
	Store  string          `json:"store"`
	Night  schedule.Report `json:"night"`
}

// tell tells the outside of a night.
func (a *app) tell(ctx context.Context, r schedule.Report, heartbeat, webhook *notify.URL, c *nightly) {
	if r.Interrupted() || ctx.Err() != nil {
		return
	}
	var sender notify.Sender
	if heartbeat != nil && r.Succeeded() {
		if err := sender.Heartbeat(ctx, heartbeat); err != nil {
			a.warn(err.Error())
		}
	}
	if m := newMessage(r, c.source, c.store); webhook != nil && m.Event != "" {
		if err := sender.Post(ctx, webhook, m); err != nil {
			a.warn(err.Error())
		}
	}
}

// newMessage has no event if there is nothing to tell.
func newMessage(r schedule.Report, source, store string) message {
	m := message{Source: source, Store: store, Night: r}
	var b strings.Builder
	for _, s := range r.Steps {
		if s.State == schedule.Done {
			continue
		}
		switch {
		case s.State == schedule.Halted:
			m.Event = "halted"
		case s.State == schedule.Findings:
			m.Event = cmp.Or(m.Event, "findings")
		case m.Event != "halted":
			m.Event = "failed"
		}
		fmt.Fprintf(&b, "\n• %s: %s", s.Step, s.State)
		if s.Attempts > 1 {
			fmt.Fprintf(&b, " after %d attempts", s.Attempts)
		}
		if s.Found > 0 {
			fmt.Fprintf(&b, ", %s findings", comma(int64(s.Found)))
		}
		if s.Error != "" {
			fmt.Fprintf(&b, ": %s", clip(s.Error))
		}
		if s.Hint != "" {
			fmt.Fprintf(&b, "\n    → %s", clip(s.Hint))
		}
	}
	if m.Event != "" {
		m.Text = notify.Escape(fmt.Sprintf("etl: the night of %s, %s → %s: %s%s", r.Due.Format("2006-01-02 15:04 UTC"), source, store, m.Event, b.String()))
	}
	return m
}

// clip makes one line of a text, of at most 500 characters.
func clip(s string) string {
	s = printableLine(strings.ReplaceAll(s, "\n", " "))
	if r := []rune(s); len(r) > 500 {
		s = string(r[:499]) + "…"
	}
	return s
}

func printSchedule(w io.Writer, p schedule.Plan) {
	stamp := func(t time.Time) string { return t.Format("Mon 2006-01-02 15:04:05 UTC") }
	fmt.Fprintf(w, "A night is due at %q, UTC:\n", p.Cron)
	switch {
	case p.AtOnce && p.Success == nil:
		fmt.Fprintf(w, "  at once, for %s: no night is known to have succeeded\n", stamp(p.Due))
	case p.AtOnce:
		fmt.Fprintf(w, "  at once, for %s: the last one without failures began at %s\n", stamp(p.Due), stamp(*p.Success))
	case p.Success == nil || p.Success.Before(p.Due):
		fmt.Fprintf(w, "  not at once for %s: %d nights began since, and none succeeded\n", stamp(p.Due), p.Tries)
	}
	for _, t := range p.Next {
		fmt.Fprintf(w, "  %s\n", stamp(t))
	}
	fmt.Fprintln(w, "Its steps:")
	for _, s := range p.Steps {
		fmt.Fprintf(w, "  %s", s.Step)
		if s.Weekly {
			fmt.Fprint(w, ", in the first night of a week (from Sunday on)")
		}
		if len(s.Needs) > 0 {
			fmt.Fprintf(w, ", if these succeeded: %s", strings.Join(s.Needs, ", "))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "Nothing was changed (--dry-run).")
}

func printNight(w io.Writer, r schedule.Report) {
	t := newTable("step", "state", "attempts>", "time>", "what")
	for _, s := range r.Steps {
		t.row(s.Step, s.State, s.Attempts, seconds(s.Elapsed), whole(s.Summary))
	}
	t.print(w)
	if !slices.ContainsFunc(r.Steps, func(s schedule.StepReport) bool { return s.Error != "" }) {
		return
	}
	for _, s := range r.Steps {
		if s.Error != "" {
			fmt.Fprintf(w, "\n%s: %s\n", s.Step, printableLine(s.Error))
		}
		if s.Hint != "" {
			fmt.Fprintf(w, "  → %s\n", printableLine(s.Hint))
		}
	}
}
