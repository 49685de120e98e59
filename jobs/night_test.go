package jobs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/object/objecttest"
	"etl/internal/schedule"
	"etl/internal/tiers"
	"etl/internal/utc"
)

// opener opens the world, or fails with err.
func (w *world) opener(err *error) Opener {
	return func(context.Context, string) (Env, func(), error) {
		if err != nil && *err != nil {
			return Env{}, nil, *err
		}
		return w.env(), func() {}, nil
	}
}

// TestArchiveStep: what a step comes to, and where the archive stands since.
func TestArchiveStep(t *testing.T) {
	w := newWorld(t)
	a, b := w.point("a"), w.point("b")
	days := daysOf("2024-02-08", "2024-02-10")
	w.fill(a, days)
	w.fill(b, days)
	var away error
	step := ArchiveStep(w.opener(&away), ArchiveOptions{})
	run := func() schedule.Outcome { return step.Run(t.Context(), schedule.Night{Due: w.now}) }

	away = fault.Hint(fault.Errorf(fault.Transient, "away"), "wait")
	if o := run(); o.State != schedule.Failed || o.Code != fault.ExitTransient || o.Error != "away" || o.Hint != "wait" || o.Standing != nil {
		t.Errorf("away: %+v", o)
	}
	away = fault.Errorf(fault.Usage, "no source")
	if o := run(); o.State != schedule.Halted || o.Code != fault.ExitUsage {
		t.Errorf("usage: %+v", o)
	}
	away = nil

	// One of the two files can not be written: the rest is archived, and the step
	// is worth another try.
	w.store.Inject(func(op objecttest.Op) bool { return strings.Contains(string(op.Key), "/b.parquet") }, objecttest.Fail(fault.Invalid))
	if o := run(); o.State != schedule.Failed || o.Files != 1 || o.Standing == nil || o.Standing.Backlog < 2 || !o.Standing.Until.Before(days.From.Time()) || !o.Standing.Complete.Equal(days.To.Time()) || !strings.Contains(o.Error, "b.parquet") {
		t.Errorf("partial: %+v %+v", o, o.Standing)
	}
	w.store.Reset()
	if o := run(); o.State != schedule.Done || o.Rows != 48 || o.Standing.Backlog != 0 || !o.Standing.Until.Equal(days.To.Time()) || o.Standing.Complete != o.Standing.Until {
		t.Errorf("done: %+v %+v", o, o.Standing)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if o := step.Run(ctx, schedule.Night{}); o.State != schedule.Interrupted {
		t.Errorf("cancelled: %+v", o)
	}
}

// asked is a reader of empty tiers that remembers which days it was asked for.
type asked struct{ days utc.Days }

func (s *asked) Survey(_ context.Context, days utc.Days) (*tiers.Survey, error) {
	s.days = days
	return &tiers.Survey{Days: days, Hot: true}, nil
}

func (*asked) Scan(context.Context, tiers.Query, func(int32, iter.Seq[*tiers.Part]) error) error {
	return nil
}

// TestAuditStep: the day of an audit is the last one that archive held to be complete,
// whatever the grace is and however long the steps before it took.
func TestAuditStep(t *testing.T) {
	w := newWorld(t)
	began := w.now // 2024-02-10 02:00
	for name, c := range map[string]struct {
		grace   time.Duration
		later   time.Duration // that the audit begins after the night
		archive bool
		want    string
	}{
		"archive says it":            {time.Hour, 0, true, "2024-02-09"},
		"of three hours of grace":    {3 * time.Hour, 0, true, "2024-02-08"},
		"and is slow":                {3 * time.Hour, 65 * time.Minute, true, "2024-02-08"},
		"archive fails":              {time.Hour, 0, false, "2024-02-09"},
		"fails, of three hours":      {3 * time.Hour, 0, false, "2024-02-08"},
		"fails, of three, and slow":  {3 * time.Hour, 65 * time.Minute, false, "2024-02-08"},
		"fails after a day of tries": {time.Hour, 24 * time.Hour, false, "2024-02-09"},
	} {
		t.Run(name, func(t *testing.T) {
			w.now = began
			n := schedule.Night{Due: began, Started: began}
			if c.archive {
				n.Standing = ArchiveStep(w.opener(nil), ArchiveOptions{Grace: c.grace}).Run(t.Context(), n).Standing
			}
			w.now = began.Add(c.later)
			var r asked
			open := func(context.Context, string) (Env, tiers.Reader, func(), error) { return w.env(), &r, func() {}, nil }
			o := AuditStep(open, AuditOptions{Rules: []string{}}, c.grace).Run(t.Context(), n)
			if o.State != schedule.Done || r.days != (utc.Days{From: day(c.want), To: day(c.want) + 1}) || !strings.HasPrefix(o.Summary, c.want+": ") {
				t.Errorf("it looked at %s to %s: %+v; want %s", r.days.From, r.days.To, o, c.want)
			}
		})
	}
}

// TestVerifyStep: findings are told, damage halts, and each week looks at another share.
func TestVerifyStep(t *testing.T) {
	w := newWorld(t)
	for i := range 8 {
		w.fill(w.point(fmt.Sprintf("p%d", i)), daysOf("2024-02-09", "2024-02-10"))
	}
	w.run(ArchiveOptions{Mode: Archive})
	deep := VerifyStep(w.opener(nil), VerifyOptions{Deep: true, Sample: 25})
	read := 0
	for week := range 4 {
		w.now = w.now.Add(7 * 24 * time.Hour)
		o := deep.Run(t.Context(), schedule.Night{Due: w.now})
		if !deep.Weekly || o.State != schedule.Done {
			t.Errorf("week %d: %+v", week, o)
		}
		var files, samples, bytes int
		if _, err := fmt.Sscanf(o.Summary, "%d files, %d samples, %d bytes read", &files, &samples, &bytes); err != nil {
			t.Fatal(err)
		}
		read += bytes
	}
	all, err := Verify(t.Context(), w.env(), VerifyOptions{Deep: true})
	if err != nil || int64(read) != all.Read || read == 0 {
		t.Errorf("%d bytes in four weeks, %d in all, %v", read, all.Read, err)
	}

	w.spoil("timeseries/2024/02/p3.parquet")
	o := VerifyStep(w.opener(nil), VerifyOptions{Deep: true}).Run(t.Context(), schedule.Night{Due: w.now})
	if o.State != schedule.Halted || o.Code != fault.ExitCorrupt || o.Found != 1 || !strings.Contains(o.Error, "p3") || !strings.Contains(o.Hint, "etl repair") {
		t.Errorf("damaged: %+v", o)
	}
}

// TestNightLog: a scheduler that starts knows what others did, whether or not they ended.
func TestNightLog(t *testing.T) {
	w := newWorld(t)
	l := &NightLog{Open: w.opener(nil), Warn: func(format string, a ...any) { t.Errorf(format, a...) }}
	due := w.now
	want := func(what string, success time.Time, tries int) {
		t.Helper()
		h, err := l.History(t.Context(), due)
		if err != nil || !h.Success.Equal(success) || h.Tries != tries {
			t.Errorf("%s: %+v, %v; want %s, %d", what, h, err, success, tries)
		}
	}
	stopped := false
	night := func(end bool, states ...schedule.State) time.Time {
		w.now = w.now.Add(time.Minute)
		began := w.now
		l.Begin(t.Context(), schedule.Night{Due: due})
		r := schedule.Report{Stopped: stopped}
		for i, s := range states {
			o := schedule.Outcome{State: s}
			if s != schedule.Done {
				o.Error = "it is " + string(s)
			}
			r.Steps = append(r.Steps, schedule.StepReport{Step: []string{"archive", "verify"}[i], Outcome: o})
		}
		if end {
			w.now = w.now.Add(time.Second)
			l.End(t.Context(), r)
		} else {
			l.stop() // killed: its line stays as it is
			l.done()
		}
		return began
	}
	want("empty", time.Time{}, 0)
	night(true, schedule.Done, schedule.Failed)
	want("failed", time.Time{}, 1)
	night(false)
	want("killed", time.Time{}, 2)
	night(true, schedule.Interrupted, schedule.Interrupted)
	want("interrupted", time.Time{}, 3)
	success := night(true, schedule.Done, schedule.Findings)
	want("findings are a success", success, 0)
	night(true, schedule.Done, schedule.Halted)
	want("halted", success, 1)
	stopped = true
	night(true, schedule.Failed)
	want("stopped in a pause", success, 2)
	due = w.now.Add(time.Hour)
	want("the night after", success, 0)

	runs, err := w.src.Runs(t.Context())
	w.must(err)
	got := ""
	for _, r := range runs {
		got += r.Status + " " + r.Error + ";"
	}
	if got != "partial verify: it is failed;running ;interrupted archive: it is interrupted;done verify: it is findings;partial verify: it is halted;interrupted archive: it is failed;" {
		t.Error(got)
	}

	// Without a ledger, or while the source is away, nothing is known and nothing fails.
	w.over = func(e *Env) { e.Journal, e.Ledger = nil, nil }
	if _, err := l.History(t.Context(), due); err == nil {
		t.Error("a history without a journal")
	}
	night(true, schedule.Done)
	l.Open = func(context.Context, string) (Env, func(), error) { return Env{}, nil, errors.New("away") }
	l.Begin(t.Context(), schedule.Night{})
	l.End(t.Context(), schedule.Report{})
	if now, err := w.src.Runs(t.Context()); err != nil || len(now) != len(runs) {
		t.Errorf("%d runs, %v", len(now), err)
	}
}
