// Package schedule owns the nights: when one is due, what its steps are, which of
// them are tried again, and when to stop trying.
//
// A night is a list of steps that run one after another. A step that failed in a
// way that may pass is tried again, a bounded number of times, with growing
// pauses, but never into the next night. A step that can not succeed until a
// person acts (wrong settings, a damaged archive) is halted: it is not tried again
// before the next night. Either way the steps that do not need it go on. Two nights
// of one scheduler never overlap; those that came due meanwhile are one.
//
// The package knows neither the archive nor the network. It refuses to loop:
// whatever happens, a night makes at most Attempts × Steps tries.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"etl/internal/fault"
)

// State is how a step ended.
type State string

const (
	Done        State = "done"
	Findings    State = "findings"    // it ran to its end and found something to look at
	Failed      State = "failed"      // it may succeed when it is tried again
	Halted      State = "halted"      // it will not, until a person acts
	Skipped     State = "skipped"     // a step that it needs has not succeeded
	Interrupted State = "interrupted" // it was told to stop
)

// ran reports whether the step ran to its end, and need not be tried again.
func (s State) ran() bool { return s == Done || s == Findings }

// Outcome is what a step came to.
type Outcome struct {
	State State  `json:"state"`
	Code  int    `json:"exit_code"` // as the command of the step would exit
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
	// Summary says in a few words what was done or found.
	Summary string `json:"summary,omitempty"`
	Found   int    `json:"findings,omitempty"`
	Rows    int64  `json:"rows,omitempty"`
	Files   int64  `json:"files,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	// Standing is where the archive stands since, if the step knows.
	Standing *Standing `json:"standing,omitempty"`
}

// Standing is how far the archive is behind.
type Standing struct {
	// Backlog are the complete (point, day)s that are not archived and marked.
	Backlog int64 `json:"backlog_point_days"`
	// Until is the end of the last day before which none of them lies.
	Until time.Time `json:"archived_until"`
	// Complete is the end of the last day that was held to be complete.
	Complete time.Time `json:"complete_until"`
}

// OutcomeOf is the outcome of a step whose command would exit with code: 0 is
// done, 3 are findings, 1 and 5 may pass, 2 and 4 do not.
func OutcomeOf(code int, err error) Outcome {
	o := Outcome{Code: code, State: Failed}
	switch code {
	case fault.ExitOK:
		o.State = Done
	case fault.ExitFindings:
		o.State = Findings
	case fault.ExitUsage, fault.ExitCorrupt:
		o.State = Halted
	case fault.ExitInterrupted:
		o.State = Interrupted
	}
	if err != nil {
		o.Error, o.Hint = err.Error(), fault.HintOf(err)
	}
	return o
}

// Night is one night.
type Night struct {
	// Due is when it had to begin; of a night that was asked for, when it was.
	Due time.Time `json:"due"`
	// Late says that it was missed, and is made up for.
	Late bool `json:"late"`
	// Started is when it began.
	Started time.Time `json:"started"`
	// Standing is what an earlier step of this night last told of the archive, nil if
	// none did: what follows looks at the days that it looked at, whatever the clock says by then.
	Standing *Standing `json:"-"` // the step's outcome has it
}

// Week numbers the weeks since 1970, each from Sunday to Saturday, UTC.
func (n Night) Week() int64 {
	const day = 24 * 60 * 60
	return (n.Due.Unix()/day + 4) / 7 // 1970-01-01 was a Thursday
}

// Step is one part of a night.
type Step struct {
	Name string
	// Weekly steps run in the first night of a week that begins on Sunday; one
	// that did not run to its end is due again the night after.
	Weekly bool
	// Needs names earlier steps without whose success this one is not run.
	Needs []string
	Run   func(context.Context, Night) Outcome
}

// History is what is known of former nights.
type History struct {
	Success time.Time // when the last night without failures began, zero if none is known
	Tries   int       // nights that began since then or since the last due time, whichever is later
}

// Options are those of a scheduler.
type Options struct {
	Cron  Cron
	Steps []Step
	// Attempts is how often a step is tried in one night, 3 if zero. A scheduler
	// that starts does not make up for a night that began so often already.
	Attempts int
	// Backoff is the first pause before steps are tried again, 10 min if zero; it
	// doubles up to an hour.
	Backoff time.Duration
	// History is asked once, when the scheduler starts, with the last due time.
	// Nil, or an error, means that nothing is known.
	History func(ctx context.Context, due time.Time) (History, error)
	// Before is called when a night begins and After when it has ended, with a
	// context that outlives a stop. They may be nil, and must not take long.
	Before func(context.Context, Night)
	After  func(context.Context, Report)
	// Notify receives the events, one at a time. It may be nil.
	Notify func(Event)

	// Now is the clock, time.Now if nil. Sleep waits for tests; nil waits for real.
	Now   func() time.Time
	Sleep func(context.Context, time.Duration) error
}

// Validate reports every fault at once.
func (o *Options) Validate() error {
	var errs []error
	if o.Cron.spec == nil {
		errs = append(errs, errors.New("there is no cron expression"))
	}
	if o.Attempts < 0 || o.Attempts > 10 {
		errs = append(errs, fmt.Errorf("%d attempts: want 1 to 10", o.Attempts))
	}
	if o.Backoff < 0 {
		errs = append(errs, fmt.Errorf("a pause of %s", o.Backoff))
	}
	var names []string
	for _, s := range o.Steps {
		for _, n := range s.Needs {
			if !slices.Contains(names, n) {
				errs = append(errs, fmt.Errorf("step %s needs %s, which is not before it", s.Name, n))
			}
		}
		if s.Name == "" || s.Run == nil || slices.Contains(names, s.Name) {
			errs = append(errs, fmt.Errorf("step %q has no name of its own, or does nothing", s.Name))
		}
		names = append(names, s.Name)
	}
	return fault.Wrap(fault.Usage, errors.Join(errs...))
}

// Event is something that happened: one of the types below.
type Event interface{ event() }

// Waiting is sent when the scheduler begins to wait for a night.
type Waiting struct{ Next time.Time }

// Jumped is sent when the clock was set back: what is due is worked out anew.
type Jumped struct{ From, To time.Time }

// GaveUp is sent when a night that was missed is not made up for.
type GaveUp struct {
	Due   time.Time
	Tries int
}

// Began is sent when a night begins.
type Began struct{ Night }

// StepBegan is sent before a step is tried.
type StepBegan struct {
	Step    string
	Attempt int // from 1
}

// StepEnded is sent after each try of a step.
type StepEnded struct {
	Step    string
	Attempt int
	At      time.Time
	Took    time.Duration
	Outcome Outcome
}

// Pausing is sent before steps are tried again.
type Pausing struct {
	Steps []string
	Wait  time.Duration
}

// Ended is sent when a night has ended.
type Ended struct{ Report }

func (Waiting) event()   {}
func (Jumped) event()    {}
func (GaveUp) event()    {}
func (Began) event()     {}
func (StepBegan) event() {}
func (StepEnded) event() {}
func (Pausing) event()   {}
func (Ended) event()     {}

// StepReport is what became of one step.
type StepReport struct {
	Step     string  `json:"step"`
	Attempts int     `json:"attempts"`
	Elapsed  float64 `json:"elapsed_seconds"` // of all attempts
	Outcome
}

// Report is what became of a night.
type Report struct {
	Night
	Finished time.Time    `json:"finished"`
	Code     int          `json:"exit_code"` // the worst of its steps, and 130 where it was told to stop
	Steps    []StepReport `json:"steps"`
	// Stopped says that it was told to stop in a pause, with steps left to try again.
	Stopped bool `json:"stopped"`
}

// Succeeded reports whether every step ran to its end, whatever it found.
func (r Report) Succeeded() bool {
	return !slices.ContainsFunc(r.Steps, func(s StepReport) bool { return !s.State.ran() })
}

// Interrupted reports whether the night was told to stop.
func (r Report) Interrupted() bool {
	return r.Stopped || slices.ContainsFunc(r.Steps, func(s StepReport) bool { return s.State == Interrupted })
}

// Scheduler runs nights. Its methods are for one goroutine.
type Scheduler struct {
	o    Options
	stop <-chan struct{}
	// ran has, of each weekly step, the night in which it last ran to its end; of
	// a step that is not in it, since is that night.
	ran   map[string]Night
	since Night
}

// New makes a scheduler. Once stop is closed the step that runs is waited for,
// and nothing more begins: a step must know of stop itself.
func New(o Options, stop <-chan struct{}) (*Scheduler, error) {
	if o.Attempts == 0 {
		o.Attempts = 3
	}
	if o.Backoff == 0 {
		o.Backoff = 10 * time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = func(ctx context.Context, d time.Duration) error {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-t.C:
				return nil
			case <-stop:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return &Scheduler{o: o, stop: stop, ran: make(map[string]Night)}, o.Validate()
}

// maxBackoff is the longest pause between attempts.
const maxBackoff = time.Hour

// tick is how long is slept at most: the timers of a machine that was suspended
// stand still, its clock does not.
const tick = 30 * time.Second

// settled is how far the clock may be behind a night that has begun before it is
// taken to have been wrong then.
const settled = time.Hour

// Run runs each night when it is due, until stop is closed (then the error is
// nil) or ctx ends. A night that was due last, and of which no success is known,
// is run at once.
func (s *Scheduler) Run(ctx context.Context) (Report, error) {
	p := s.Plan(ctx)
	last := p.Due // the night that was run last, or counts as such
	var report Report
	switch {
	case s.stopped() || ctx.Err() != nil:
	case p.AtOnce:
		report = s.night(ctx, Night{Due: p.Due, Late: true}, false)
	case p.Tries >= s.o.Attempts:
		s.notify(GaveUp{p.Due, p.Tries})
	}
	now := s.now()
	next := s.next(now, last)
	s.notify(Waiting{next})
	for before := now; !s.stopped() && ctx.Err() == nil; before = now {
		now = s.now()
		if now.Before(before.Add(-tick)) {
			s.notify(Jumped{before, now})
			next = s.next(now, last)
			s.notify(Waiting{next})
		}
		if wait := next.Sub(now); wait > 0 {
			if err := s.o.Sleep(ctx, min(wait, tick)); err != nil {
				return report, err
			}
			continue
		}
		last = s.o.Cron.Last(now) // of several that came due, one
		report = s.night(ctx, Night{Due: last, Late: last.After(next) || now.Sub(last) > 10*tick}, false)
		now = s.now()
		next = s.next(now, last)
		s.notify(Waiting{next})
	}
	return report, ctx.Err()
}

// Plan is what a scheduler that starts will do.
type Plan struct {
	Cron    string     `json:"cron"`
	Due     time.Time  `json:"last_due"`
	Success *time.Time `json:"last_success"` // when the last night without failures began; null if none is known
	Tries   int        `json:"tries"`        // nights that began since, or since Due
	// AtOnce says that the night that was due last is made up for at once.
	AtOnce bool        `json:"at_once"`
	Next   []time.Time `json:"next"` // nights after that
	Steps  []PlanStep  `json:"steps"`
}

// PlanStep is one step of each night.
type PlanStep struct {
	Step   string   `json:"step"`
	Weekly bool     `json:"weekly"`
	Needs  []string `json:"needs"`
}

// Plan asks for the history and works out what Run will do.
func (s *Scheduler) Plan(ctx context.Context) Plan {
	now := s.now()
	p := Plan{Cron: s.o.Cron.text, Due: s.o.Cron.Last(now)}
	for next, n := s.o.Cron.Next(now), 0; n < 3 && !next.IsZero(); n++ {
		p.Next = append(p.Next, next)
		next = s.o.Cron.Next(next)
	}
	for _, st := range s.o.Steps {
		p.Steps = append(p.Steps, PlanStep{st.Name, st.Weekly, append([]string{}, st.Needs...)})
	}
	h := s.history(ctx, p.Due)
	if p.Tries = h.Tries; !h.Success.IsZero() {
		p.Success = &h.Success
	}
	p.AtOnce = !p.Due.IsZero() && h.Success.Before(p.Due) && h.Tries < s.o.Attempts
	return p
}

// Once runs a night at once.
func (s *Scheduler) Once(ctx context.Context) Report {
	now := s.now()
	s.history(ctx, s.o.Cron.Last(now))
	return s.night(ctx, Night{Due: now}, true)
}

// history is what is known of former nights, which is nothing if that fails.
func (s *Scheduler) history(ctx context.Context, due time.Time) (h History) {
	// Where nothing is known a weekly step takes it that the night before this
	// one ran: then the day of the week alone decides.
	s.since = Night{Due: s.o.Cron.Last(due.Add(-time.Nanosecond))}
	if s.o.History == nil {
		return h
	}
	h, err := s.o.History(ctx, due)
	if err != nil {
		return History{}
	}
	if !h.Success.IsZero() {
		s.since = Night{Due: h.Success}
	}
	return h
}

// next is when the night after last is due.
func (s *Scheduler) next(now, last time.Time) time.Time {
	if now.Before(last) && last.Sub(now) < settled {
		now = last // set back a little: that night was run
	}
	return s.o.Cron.Next(now)
}

// now is the wall clock alone: Go's monotonic one stands still in a machine that
// is suspended, and does not tell when the clock is set.
func (s *Scheduler) now() time.Time { return s.o.Now().Round(0).UTC() }

func (s *Scheduler) stopped() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

func (s *Scheduler) notify(e Event) {
	if s.o.Notify != nil {
		s.o.Notify(e)
	}
}

// night runs one night to its end; once says that no other follows.
func (s *Scheduler) night(ctx context.Context, n Night, once bool) Report {
	n.Started = s.now()
	r := Report{Night: n}
	s.notify(Began{n})
	if s.o.Before != nil {
		s.o.Before(ctx, n)
	}
	var steps []Step
	for _, st := range s.o.Steps {
		if st.Weekly && !s.dueThisWeek(st, n) {
			continue
		}
		steps = append(steps, st)
		r.Steps = append(r.Steps, StepReport{Step: st.Name})
	}
	// INVARIANT: a step is tried at most Attempts times, so a night ends.
	pause := s.o.Backoff
	for attempt := 1; attempt <= s.o.Attempts; attempt++ {
		for i, st := range steps {
			if sr := &r.Steps[i]; sr.State == "" || sr.State == Failed || sr.State == Skipped {
				s.try(ctx, st, sr, &r)
			}
		}
		again := failed(r)
		if len(again) == 0 || r.Interrupted() || attempt == s.o.Attempts {
			break
		}
		if next := s.o.Cron.Next(s.now()); !once && next.Sub(s.now()) < pause {
			break // the next night does it
		}
		s.notify(Pausing{again, pause})
		if !s.pause(ctx, pause) {
			// What failed was to be tried again: how it stands is not how the night would have ended.
			r.Stopped, r.Code = true, fault.ExitInterrupted
			break
		}
		pause = min(2*pause, maxBackoff)
	}
	for i, st := range steps {
		sr := &r.Steps[i]
		if st.Weekly && sr.State.ran() {
			s.ran[st.Name] = n
		}
		r.Code = fault.Worse(r.Code, sr.Code)
	}
	r.Finished = s.now()
	if s.o.After != nil {
		s.o.After(ctx, r)
	}
	s.notify(Ended{r})
	return r
}

// failed names the steps that are worth another attempt.
func failed(r Report) (names []string) {
	for _, sr := range r.Steps {
		if sr.State == Failed {
			names = append(names, sr.Step)
		}
	}
	return names
}

// try runs a step once, if what it needs has succeeded.
func (s *Scheduler) try(ctx context.Context, st Step, sr *StepReport, r *Report) {
	if s.stopped() || ctx.Err() != nil {
		sr.Outcome = Outcome{State: Interrupted, Code: fault.ExitInterrupted}
		return
	}
	for _, need := range st.Needs {
		for _, other := range r.Steps {
			if other.Step == need && !other.State.ran() {
				sr.Outcome = Outcome{State: Skipped, Error: fmt.Sprintf("%s has not succeeded", need)}
				return
			}
		}
	}
	sr.Attempts++
	s.notify(StepBegan{st.Name, sr.Attempts})
	start := s.now()
	if sr.Outcome = st.Run(ctx, r.Night); sr.Standing != nil {
		r.Standing = sr.Standing
	}
	end := s.now()
	sr.Elapsed += end.Sub(start).Seconds()
	s.notify(StepEnded{st.Name, sr.Attempts, end, end.Sub(start), sr.Outcome})
}

// pause waits, in ticks as all waiting is; false if it was cut off.
func (s *Scheduler) pause(ctx context.Context, d time.Duration) bool {
	for ; d > 0 && !s.stopped() && ctx.Err() == nil; d -= tick {
		if s.o.Sleep(ctx, min(d, tick)) != nil {
			return false
		}
	}
	return !s.stopped() && ctx.Err() == nil
}

// dueThisWeek reports whether a week began since the step last ran to its end.
func (s *Scheduler) dueThisWeek(st Step, n Night) bool {
	last, ok := s.ran[st.Name]
	if !ok {
		last = s.since
	}
	return n.Week() > last.Week()
}
