package jobs

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"etl/internal/fault"
	"etl/internal/schedule"
	"etl/internal/source"
	"etl/internal/tiers"
	"etl/internal/utc"
)

// Opener opens the places for one step of a night: it is asked anew for each try,
// so that a place which was away is found again. done closes them.
type Opener func(ctx context.Context, step string) (env Env, done func(), err error)

// Names of the steps of a night, and of the night itself in the log of runs.
const (
	NightCommand = "schedule"
	deepStep     = "verify-deep"
)

// ArchiveStep brings the cold tier up to date.
func ArchiveStep(open Opener, o ArchiveOptions) schedule.Step {
	o.Mode = Archive
	return schedule.Step{Name: string(Archive), Run: func(ctx context.Context, _ schedule.Night) schedule.Outcome {
		env, done, err := open(ctx, string(Archive))
		if err != nil {
			return failedStep(ctx, err)
		}
		defer done()
		planning, end := untilStopped(ctx, env.Stop)
		plan, err := PlanArchive(planning, env, o)
		end()
		if err != nil {
			return failedStep(ctx, err)
		}
		r, err := plan.Run(ctx, env)
		out := outcome(r.ExitCode(false), err, r.Failed)
		if out.State == schedule.Findings { // of some points it failed: that may pass
			out.State = schedule.Failed
		}
		out.Rows, out.Files, out.Bytes = r.SamplesRead, r.FilesWritten, r.BytesWritten
		out.Summary = fmt.Sprintf("%d point-days, %d samples read, %d added, %d corrected, %d files written", r.PointDays, r.SamplesRead, r.SamplesAdded, r.SamplesReplaced, r.FilesWritten)
		if r.SamplesRejected > 0 {
			out.Summary += fmt.Sprintf(", %d rows rejected", r.SamplesRejected)
		}
		out.Standing = standing(plan, r, err)
		return out
	}}
}

// standing is how far the archive is behind after plan was run.
func standing(p *ArchivePlan, r Report, err error) *schedule.Standing {
	s := &schedule.Standing{Until: p.Range.To.Time(), Complete: p.Range.To.Time()}
	if err == nil && len(r.Failed) == 0 && !r.Interrupted {
		return s
	}
	s.Backlog = max(p.PointDays-r.PointDaysMarked, 0)
	if p.FirstDay != nil {
		s.Until = p.FirstDay.Time()
	}
	return s
}

// VerifyStep proves that the cold tier is whole; with o.Deep once a week, each
// week another share of it.
func VerifyStep(open Opener, o VerifyOptions) schedule.Step {
	step := schedule.Step{Name: "verify"}
	if o.Deep {
		step.Name, step.Weekly = deepStep, true
	}
	step.Run = func(ctx context.Context, n schedule.Night) schedule.Outcome {
		env, done, err := open(ctx, step.Name)
		if err != nil {
			return failedStep(ctx, err)
		}
		defer done()
		ctx, end := untilStopped(ctx, env.Stop)
		defer end()
		o := o
		if step.Weekly {
			o.Turn = n.Week()
		}
		r, err := Verify(ctx, env, o)
		out := outcome(fault.Worse(r.ExitCode(), fault.ExitCode(err)), err, nil)
		out.Summary = fmt.Sprintf("%d files, %d samples, %d bytes read", r.Files, r.Samples, r.Read)
		for _, f := range r.Findings {
			if f.Severity == Info {
				continue
			}
			if out.Found++; out.Error == "" {
				out.Error, out.Hint = strings.Join(strings.Fields(fmt.Sprintf("%s %s %s: %s", f.Code, cmp.Or(f.Path, f.Month), f.Point, f.Text)), " "), f.Remedy
			}
		}
		return out
	}
	return step
}

// AuditOpener opens the places for an audit, and what reads both tiers.
type AuditOpener func(ctx context.Context, step string) (env Env, r tiers.Reader, done func(), err error)

// AuditStep looks for gaps in the last complete day, of which o has no days: the last
// one that the night's archive held to be complete or, if it told of none, that was
// grace after its end when the night began. A later day is not archived, so that each of its
// rows would be read from D1, and billed. What it finds halts nothing.
func AuditStep(open AuditOpener, o AuditOptions, grace time.Duration) schedule.Step {
	return schedule.Step{Name: "audit", Run: func(ctx context.Context, n schedule.Night) schedule.Outcome {
		env, reader, done, err := open(ctx, "audit")
		if err != nil {
			return failedStep(ctx, err)
		}
		defer done()
		ctx, end := untilStopped(ctx, env.Stop)
		defer end()
		o := o
		o.Zone = cmp.Or(o.Zone, time.UTC)
		last := firstIncomplete(n.Started, grace)
		if n.Standing != nil {
			last = utc.DayOfTime(n.Standing.Complete)
		}
		o.Days = utc.Days{From: last - 1, To: last}
		r, err := Audit(ctx, env, reader, o)
		if err != nil {
			return failedStep(ctx, err)
		}
		out := outcome(r.ExitCode(), nil, r.Failed)
		c := r.Coverage
		out.Summary = fmt.Sprintf("%s: %d points, %d samples, %d missing, %d gaps", last-1, c.Points, c.Present, c.Missing-c.Known, c.Gaps)
		if out.State == schedule.Findings {
			out.Found = c.Gaps
			out.Error = fmt.Sprintf("%d gaps, about %d samples missing on %s, the longest %s", c.Gaps, c.Missing-c.Known, last-1, time.Duration(c.LongestGap)*time.Millisecond)
			out.Hint = fmt.Sprintf("`etl audit --day %s` lists them; --known names outages that are acknowledged", last-1)
		}
		return out
	}}
}

// PruneStep frees the source of days that are safely archived. It needs an
// archive that was just found whole.
func PruneStep(open Opener, o PruneOptions) schedule.Step {
	return schedule.Step{Name: "prune", Needs: []string{string(Archive), "verify"}, Run: func(ctx context.Context, _ schedule.Night) schedule.Outcome {
		env, done, err := open(ctx, "prune")
		if err != nil {
			return failedStep(ctx, err)
		}
		defer done()
		planning, end := untilStopped(ctx, env.Stop)
		plan, err := PlanPrune(planning, env, o)
		end()
		if err != nil {
			return failedStep(ctx, err)
		}
		r, err := plan.Run(ctx, env)
		out := outcome(r.ExitCode(), err, r.Failed)
		out.Rows = r.Rows
		out.Summary = fmt.Sprintf("%d rows of %d point-days deleted from the source", r.Rows, r.PointDays)
		for _, d := range r.Deferred {
			if d.Reason == "differs" {
				out.Found += int(d.PointDays)
				out.Error, out.Hint = cmp.Or(out.Error, fmt.Sprintf("%d point-days stay: %s", d.PointDays, d.Text)), cmp.Or(out.Hint, d.Remedy)
			}
		}
		return out
	}}
}

// outcome is what a report and the error beside it come to.
func outcome(code int, err error, failed []Failure) schedule.Outcome {
	out := schedule.OutcomeOf(fault.Worse(code, fault.ExitCode(err)), err)
	if err == nil && len(failed) > 0 {
		out.Error, out.Hint = failed[0].Error, failed[0].Hint
		if len(failed) > 1 {
			out.Error += fmt.Sprintf(" (and %d more failures)", len(failed)-1)
		}
	}
	return out
}

// failedStep is the outcome of a step that could not begin.
func failedStep(ctx context.Context, err error) schedule.Outcome {
	if ctx.Err() != nil {
		return schedule.OutcomeOf(fault.ExitInterrupted, err)
	}
	return schedule.OutcomeOf(fault.ExitCode(err), err)
}

// untilStopped is a context that ends with stop, for jobs that change nothing, and for
// the plans of the others.
func untilStopped(ctx context.Context, stop <-chan struct{}) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
		return nil
	})
	return ctx, func() { cancel(); g.Wait() }
}

// NightLog keeps the line of each night in the source's log of runs, from which
// another process, or this one after a restart, learns what was done. It does
// what it can: without a ledger, or while the source is away, there is no log.
type NightLog struct {
	Open Opener
	// Warn is told of what could not be logged.
	Warn func(format string, a ...any)

	mu   sync.Mutex // guards what follows
	env  Env
	run  source.Run
	stop func()
	done func()
}

// History tells of the nights since due.
func (l *NightLog) History(ctx context.Context, due time.Time) (h schedule.History, err error) {
	env, done, err := l.Open(ctx, NightCommand)
	if err != nil {
		return h, err
	}
	defer done()
	log, ok := env.Journal.(source.Historian)
	if !ok {
		return h, fault.Errorf(fault.NotExist, "there is no log of runs")
	}
	ctx, end := untilStopped(ctx, env.Stop)
	defer end()
	runs, err := log.Runs(ctx)
	if err != nil {
		return h, err
	}
	for _, r := range runs {
		switch {
		case r.Command != NightCommand:
		case r.Status == "done":
			if r.Started.After(h.Success) {
				h.Success = r.Started
			}
		}
	}
	for _, r := range runs {
		if r.Command == NightCommand && !r.Started.Before(due) && r.Started.After(h.Success) {
			h.Tries++
		}
	}
	return h, nil
}

// Begin opens the night's line.
func (l *NightLog) Begin(ctx context.Context, _ schedule.Night) {
	l.stop, l.done = nil, nil
	env, done, err := l.Open(ctx, NightCommand)
	if err != nil {
		return // archive will say it
	}
	l.env, l.done = env, done
	now := env.Now()
	l.run = source.Run{ID: newRunID(now), Command: NightCommand, Status: "running", Started: now}
	stop, err := startLog(ctx, env.Journal, heartbeat, l.line, l.Warn)
	if err != nil {
		l.Warn("the night was not logged in archive_state: %v", err)
		return
	}
	l.stop = stop
}

func (l *NightLog) line() source.Run {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.run
}

// End closes the night's line.
func (l *NightLog) End(ctx context.Context, r schedule.Report) {
	if l.done == nil {
		return
	}
	defer l.done()
	if l.stop == nil || l.env.Journal == nil {
		return
	}
	l.stop()
	l.run.Status, l.run.Finished = "done", l.env.Now()
	switch {
	case r.Interrupted():
		l.run.Status = "interrupted"
	case !r.Succeeded():
		l.run.Status = "failed"
	}
	for _, s := range r.Steps {
		if s.Step == string(Archive) {
			l.run.Records, l.run.Files, l.run.Bytes = s.Rows, s.Files, s.Bytes
			if s.State == schedule.Done && !r.Succeeded() && !r.Interrupted() {
				l.run.Status = "partial"
			}
		}
		if s.Error != "" && l.run.Error == "" {
			l.run.Error = s.Step + ": " + s.Error
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logTime)
	defer cancel()
	if err := l.env.Journal.Log(ctx, l.run); err != nil {
		l.Warn("the night was not logged in archive_state: %v", err)
	}
}
