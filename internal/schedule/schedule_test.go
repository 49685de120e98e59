package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"etl/internal/fault"
)

func TestParseCron(t *testing.T) {
	for text, want := range map[string]string{ // after Sat 2024-02-10 01:30:00
		"0 2 * * *":       "2024-02-10T02:00:00Z",
		" 30 1 * * * ":    "2024-02-11T01:30:00Z",
		"0 2 * * 1":       "2024-02-12T02:00:00Z",
		"*/15 * * * *":    "2024-02-10T01:45:00Z",
		"*/10 * * * * *":  "2024-02-10T01:30:10Z",
		"@daily":          "2024-02-11T00:00:00Z",
		"0 3 29 2 *":      "2024-02-29T03:00:00Z",
		"0 2 1 JAN *":     "2025-01-01T02:00:00Z",
		"0 2 10-20/5 * *": "2024-02-10T02:00:00Z",
	} {
		c, err := ParseCron(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := c.Next(at("2024-02-10T01:30:00Z")); !got.Equal(at(want)) || got.Location() != time.UTC {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"", "0 2 * *", "0 2 * * * * *", "61 2 * * *", "TZ=Europe/Berlin 0 2 * * *", "CRON_TZ=UTC 0 2 * * *", "@every 1h", "@reboot", "0 0 30 2 *", "0 2 * * MOON"} {
		if _, err := ParseCron(text); !fault.Is(err, fault.Usage) || fault.HintOf(err) == "" {
			t.Errorf("%q: %v, hint %q", text, err, fault.HintOf(err))
		}
	}
}

// TestUTC: no hour of the night is skipped or comes twice where local clocks are set.
func TestUTC(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones here: ", err)
	}
	c := mustCron(t, "30 1 * * *") // 02:30 in winter, which does not exist on 2024-03-31 and is there twice on 2024-10-27
	n, last := 0, time.Time{}
	for d := c.Next(at("2023-12-31T12:00:00Z").In(berlin)); d.Before(at("2025-01-01T00:00:00Z")); d = c.Next(d.In(berlin)) {
		if !last.IsZero() && d.Sub(last) != 24*time.Hour {
			t.Errorf("%s follows %s", d, last)
		}
		last, n = d, n+1
	}
	if n != 366 {
		t.Errorf("%d nights in 2024", n)
	}
}

func TestLast(t *testing.T) {
	for _, text := range []string{"0 2 * * *", "* * * * *", "*/7 * * * * *", "0 2 1 * *", "0 0 29 2 *", "59 23 31 12 *"} {
		c := mustCron(t, text)
		for _, now := range []string{"2024-02-10T02:00:00Z", "2024-02-10T01:59:59.999Z", "2024-03-01T00:00:00Z", "2027-07-07T07:07:07Z"} {
			last := c.Last(at(now))
			if last.After(at(now)) || !c.Next(last.Add(-time.Nanosecond)).Equal(last) || !c.Next(last).After(at(now)) {
				t.Errorf("%s: the last due time before %s is %s, next %s", text, now, last, c.Next(last))
			}
		}
	}
}

func TestWeek(t *testing.T) {
	for day := at("2024-02-04T00:00:00Z"); day.Before(at("2024-03-31T00:00:00Z")); day = day.Add(24 * time.Hour) {
		turns := Night{Due: day}.Week() != Night{Due: day.Add(-time.Second)}.Week()
		if turns != (day.Weekday() == time.Sunday) {
			t.Errorf("%s %s begins a week: %v", day.Weekday(), day, turns)
		}
	}
}

// world is a clock that only sleeping moves, and a log of what happened.
type world struct {
	t    *testing.T
	now  time.Time
	stop chan struct{}
	o    Options
	log  []string
	// after is called after each sleep.
	after   func()
	reports []Report
}

func at(s string) time.Time {
	tm, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return tm
}

func mustCron(t *testing.T, text string) Cron {
	t.Helper()
	c, err := ParseCron(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newWorld(t *testing.T, now string) *world {
	w := &world{t: t, now: at(now), stop: make(chan struct{})}
	w.o = Options{
		Cron: mustCron(t, "0 2 * * *"), Now: func() time.Time { return w.now },
		Sleep: func(_ context.Context, d time.Duration) error {
			if d <= 0 || d > tick {
				t.Fatalf("slept %s", d)
			}
			w.now = w.now.Add(d)
			if w.after != nil {
				w.after()
			}
			return nil
		},
		Notify: func(e Event) {
			switch e := e.(type) {
			case Ended:
				w.reports = append(w.reports, e.Report)
			case Jumped:
				w.say("jumped")
			case GaveUp:
				w.say("gave up %s after %d", short(e.Due), e.Tries)
			case Pausing:
				w.say("pause %s for %s", e.Wait, strings.Join(e.Steps, ","))
			}
		},
	}
	return w
}

func short(t time.Time) string { return t.Format("02 15:04") }

func (w *world) say(format string, a ...any) { w.log = append(w.log, fmt.Sprintf(format, a...)) }

// step adds a step that takes a minute and ends with the codes one after the
// other, the last one for ever.
func (w *world) step(name string, codes ...int) *Step {
	i := 0
	w.o.Steps = append(w.o.Steps, Step{Name: name, Run: func(_ context.Context, n Night) Outcome {
		code := codes[min(i, len(codes)-1)]
		i++
		late := ""
		if n.Late {
			late = " late"
		}
		w.say("%s %s%s: %d", short(w.now), name, late, code)
		w.now = w.now.Add(time.Minute)
		return OutcomeOf(code, nil)
	}})
	return &w.o.Steps[len(w.o.Steps)-1]
}

// until runs the scheduler until a time.
func (w *world) until(end string) {
	w.t.Helper()
	s, err := New(w.o, w.stop)
	if err != nil {
		w.t.Fatal(err)
	}
	more := w.after
	w.after = func() {
		if more != nil {
			more()
		}
		if !w.now.Before(at(end)) && !s.stopped() {
			close(w.stop)
		}
	}
	if _, err := s.Run(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) want(lines ...string) {
	w.t.Helper()
	if !slices.Equal(w.log, lines) {
		w.t.Errorf("got\n  %s\nwant\n  %s", strings.Join(w.log, "\n  "), strings.Join(lines, "\n  "))
	}
}

func (w *world) succeeded(when string) {
	w.o.History = func(context.Context, time.Time) (History, error) { return History{Success: at(when)}, nil }
}

func TestNights(t *testing.T) {
	w := newWorld(t, "2024-02-07T12:00:00Z") // a Wednesday
	w.succeeded("2024-02-07T02:00:01Z")
	w.step("archive", 0)
	w.step("deep", 0, 5, 5, 5, 0).Weekly = true
	w.o.Backoff = 20 * time.Minute
	w.until("2024-02-19T12:00:00Z")
	w.want("08 02:00 archive: 0", "09 02:00 archive: 0", "10 02:00 archive: 0",
		"11 02:00 archive: 0", "11 02:01 deep: 0", "12 02:00 archive: 0", "13 02:00 archive: 0", "14 02:00 archive: 0", "15 02:00 archive: 0", "16 02:00 archive: 0", "17 02:00 archive: 0",
		"18 02:00 archive: 0", "18 02:01 deep: 5", "pause 20m0s for deep", "18 02:22 deep: 5", "pause 40m0s for deep", "18 03:03 deep: 5",
		"19 02:00 archive: 0", "19 02:01 deep: 0") // due until it was done
}

// TestWeeklyMissed: a Sunday that was slept through is made up for.
func TestWeeklyMissed(t *testing.T) {
	w := newWorld(t, "2024-02-13T12:00:00Z") // Tuesday
	w.succeeded("2024-02-10T02:00:01Z")      // Saturday
	w.step("archive", 0)
	w.step("deep", 0).Weekly = true
	w.until("2024-02-14T12:00:00Z")
	w.want("13 12:00 archive late: 0", "13 12:01 deep late: 0", "14 02:00 archive: 0")
}

func TestStart(t *testing.T) {
	for name, c := range map[string]struct {
		history func(context.Context, time.Time) (History, error)
		want    []string
	}{
		"nothing is known": {nil, []string{"10 12:00 archive late: 0", "11 02:00 archive: 0"}},
		"the log is away": {func(context.Context, time.Time) (History, error) { return History{}, errors.New("away") },
			[]string{"10 12:00 archive late: 0", "11 02:00 archive: 0"}},
		"done": {func(_ context.Context, due time.Time) (History, error) { return History{Success: due}, nil },
			[]string{"11 02:00 archive: 0"}},
		"missed": {func(_ context.Context, due time.Time) (History, error) {
			return History{Success: due.Add(-time.Second)}, nil
		}, []string{"10 12:00 archive late: 0", "11 02:00 archive: 0"}},
		"it crashes each time": {func(_ context.Context, due time.Time) (History, error) {
			return History{Success: due.Add(-time.Hour), Tries: 3}, nil
		}, []string{"gave up 10 02:00 after 3", "11 02:00 archive: 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "2024-02-10T12:00:00Z")
			w.o.History = c.history
			w.step("archive", 0)
			w.until("2024-02-11T12:00:00Z")
			w.want(c.want...)
		})
	}
}

// TestRetries: what failed is tried again, and only that; what is halted is not,
// before the next night; the rest goes on; what needs it is left out.
func TestRetries(t *testing.T) {
	w := newWorld(t, "2024-02-06T12:00:00Z")
	w.succeeded("2024-02-06T02:00:00Z")
	w.step("archive", 5, 1, 0)
	w.step("verify", 4, 3)
	w.step("audit", 2)
	w.step("prune", 0).Needs = []string{"archive", "verify"}
	w.until("2024-02-08T12:00:00Z")
	w.want("07 02:00 archive: 5", "07 02:01 verify: 4", "07 02:02 audit: 2", "pause 10m0s for archive",
		"07 02:13 archive: 1", "pause 20m0s for archive", "07 02:34 archive: 0",
		"08 02:00 archive: 0", "08 02:01 verify: 3", "08 02:02 audit: 2", "08 02:03 prune: 0")
	r := w.reports[0]
	if r.Code != fault.ExitCorrupt || r.Succeeded() || r.Steps[3].State != Skipped || r.Steps[0].Attempts != 3 {
		t.Errorf("%+v", r)
	}
	if r := w.reports[1]; r.Code != fault.ExitUsage || r.Steps[1].State != Findings {
		t.Errorf("%+v", r)
	}
}

// TestNeedsAfterRetry: a step that waited for another one runs once that succeeded.
func TestNeedsAfterRetry(t *testing.T) {
	w := newWorld(t, "2024-02-06T12:00:00Z")
	w.succeeded("2024-02-06T02:00:00Z")
	w.step("archive", 5, 0)
	w.step("prune", 0).Needs = []string{"archive"}
	w.until("2024-02-07T12:00:00Z")
	w.want("07 02:00 archive: 5", "pause 10m0s for archive", "07 02:11 archive: 0", "07 02:12 prune: 0")
	if r := w.reports[0]; !r.Succeeded() || r.Code != 0 {
		t.Errorf("%+v", r)
	}
}

// TestNothingLoops: whatever fails for ever is tried Attempts times a night.
func TestNothingLoops(t *testing.T) {
	for code := range 256 {
		if code == fault.ExitInterrupted {
			continue
		}
		w := newWorld(t, "2024-02-06T12:00:00Z")
		w.succeeded("2024-02-06T02:00:00Z")
		w.step("archive", code)
		w.until("2024-02-16T12:00:00Z")
		tries := 0
		for _, line := range w.log {
			if strings.Contains(line, "archive:") {
				tries++
			}
		}
		if most := 10 * 3; tries > most || tries < 10 {
			t.Errorf("exit code %d: %d tries in ten nights", code, tries)
		}
	}
}

// TestRetryLeavesTheNextNight: a pause that would reach into the next night is
// not made; the night does it.
func TestRetryLeavesTheNextNight(t *testing.T) {
	w := newWorld(t, "2024-02-07T12:00:30Z")
	w.o.Cron = mustCron(t, "*/15 * * * *")
	w.succeeded("2024-02-07T12:00:01Z")
	w.step("archive", 5, 5, 5, 0)
	w.until("2024-02-07T13:00:00Z")
	w.want("07 12:15 archive: 5", "pause 10m0s for archive", "07 12:26 archive: 5", "07 12:30 archive: 5", "pause 10m0s for archive", "07 12:41 archive: 0", "07 12:45 archive: 0")
}

// TestLongNight: nights never overlap, and those that came due meanwhile are one.
func TestLongNight(t *testing.T) {
	w := newWorld(t, "2024-02-06T12:00:00Z")
	w.succeeded("2024-02-06T02:00:00Z")
	first := true
	w.o.Steps = []Step{{Name: "archive", Run: func(_ context.Context, n Night) Outcome {
		w.say("%s due %s late %v", short(w.now), short(n.Due), n.Late)
		if first {
			w.now = w.now.Add(80 * time.Hour) // past two more nights, into the fourth day
		}
		first = false
		return OutcomeOf(0, nil)
	}}}
	w.until("2024-02-11T12:00:00Z")
	// 07 02:00 + 80 h is the 10th at 10:00: the nights of the 8th to the 10th are made up for by the next one.
	w.want("07 02:00 due 07 02:00 late false", "11 02:00 due 11 02:00 late false")
}

func TestClockJumps(t *testing.T) {
	for name, c := range map[string]struct {
		at   string
		by   time.Duration
		want []string
	}{
		"on by three days: one night at once": {"2024-02-07T12:00:00Z", 72 * time.Hour, []string{"10 12:00 archive late: 0", "11 02:00 archive: 0"}},
		"back by seconds after the night":     {"2024-02-08T02:01:30Z", -2 * time.Minute, []string{"08 02:00 archive: 0", "jumped", "09 02:00 archive: 0"}},
		"back by years: it was wrong":         {"2024-02-07T12:00:00Z", -3 * 365 * 24 * time.Hour, []string{"jumped", "08 02:00 archive: 0", "09 02:00 archive: 0"}},
		"back by a tick":                      {"2024-02-07T12:00:00Z", -20 * time.Second, []string{"08 02:00 archive: 0", "09 02:00 archive: 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "2024-02-07T11:00:00Z")
			w.succeeded("2024-02-07T02:00:00Z")
			w.step("archive", 0)
			jumped := false
			w.after = func() {
				if !jumped && !w.now.Before(at(c.at)) {
					jumped, w.now = true, w.now.Add(c.by)
				}
			}
			end := "2024-02-09T12:00:00Z"
			switch {
			case c.by > 0:
				end = "2024-02-11T12:00:00Z"
			case c.by < -365*24*time.Hour:
				end = "2021-02-09T12:00:00Z"
			}
			started := false // the end is before the start where the clock goes back by years
			more := w.after
			w.after = func() { more(); started = jumped }
			stopAt := at(end)
			s, err := New(w.o, w.stop)
			if err != nil {
				t.Fatal(err)
			}
			inner := w.after
			w.after = func() {
				inner()
				if started && !w.now.Before(stopAt) && !s.stopped() {
					close(w.stop)
				}
			}
			if _, err := s.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.want(c.want...)
		})
	}
}

// TestStop: the step that runs ends, and nothing more begins; a pause is cut off.
func TestStop(t *testing.T) {
	w := newWorld(t, "2024-02-07T01:00:00Z")
	w.succeeded("2024-02-06T02:00:00Z")
	w.o.Steps = []Step{{Name: "archive", Run: func(context.Context, Night) Outcome {
		close(w.stop)
		return OutcomeOf(fault.ExitOK, nil)
	}}}
	w.step("verify", 0)
	s, err := New(w.o, w.stop)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Run(t.Context())
	if err != nil || !r.Interrupted() || r.Code != fault.ExitInterrupted || r.Steps[0].State != Done || r.Steps[1].State != Interrupted || len(w.log) > 0 {
		t.Errorf("%+v, %v, %v", r, err, w.log)
	}

	w = newWorld(t, "2024-02-07T01:59:00Z")
	w.succeeded("2024-02-06T02:00:00Z")
	w.step("archive", 5)
	w.until("2024-02-07T02:05:00Z")
	w.want("07 02:00 archive: 5", "pause 10m0s for archive")
	if r := w.reports[0]; !r.Stopped || !r.Interrupted() || r.Code != fault.ExitInterrupted || r.Steps[0].State != Failed {
		t.Errorf("stopped in a pause: %+v", r)
	}

	w = newWorld(t, "2024-02-07T01:59:00Z")
	w.step("archive", 5)
	w.after = func() { close(w.stop) }
	if s, err = New(w.o, w.stop); err != nil {
		t.Fatal(err)
	}
	if r := s.Once(t.Context()); !r.Interrupted() || r.Code != fault.ExitInterrupted {
		t.Errorf("once, stopped in a pause: %+v", r)
	}

	// What was tried as often as it may be has failed, and was not stopped.
	w = newWorld(t, "2024-02-07T01:59:00Z")
	w.succeeded("2024-02-06T02:00:00Z")
	w.step("archive", 5)
	w.until("2024-02-07T12:00:00Z")
	if r := w.reports[0]; r.Interrupted() || r.Code != fault.ExitTransient {
		t.Errorf("failed: %+v", r)
	}
}

func TestCancelled(t *testing.T) {
	w := newWorld(t, "2024-02-07T01:00:00Z")
	w.succeeded("2024-02-06T02:00:00Z")
	ctx, cancel := context.WithCancel(t.Context())
	w.o.Steps = []Step{{Name: "archive", Run: func(context.Context, Night) Outcome {
		cancel()
		return OutcomeOf(fault.ExitInterrupted, ctx.Err())
	}}}
	s, err := New(w.o, w.stop)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Run(ctx); !errors.Is(err, context.Canceled) || !r.Interrupted() {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestStanding: a step is told when its night began and what an earlier one told of the
// archive, that which told last; the next night knows nothing of it.
func TestStanding(t *testing.T) {
	w := newWorld(t, "2024-02-06T12:00:00Z")
	w.succeeded("2024-02-06T02:00:00Z")
	tries := 0
	w.o.Steps = []Step{{Name: "archive", Run: func(_ context.Context, n Night) Outcome {
		w.now = w.now.Add(time.Hour)
		o := OutcomeOf(1, nil)
		if tries++; tries <= 2 {
			o.Standing = &Standing{Complete: n.Started.Add(time.Duration(tries) * time.Minute)}
		}
		return o
	}}, {Name: "audit", Run: func(_ context.Context, n Night) Outcome {
		stands := "nothing"
		if n.Standing != nil {
			stands = short(n.Standing.Complete)
		}
		w.say("began %s, stands %s", short(n.Started), stands)
		return OutcomeOf(1, nil)
	}}}
	w.o.Attempts = 2
	w.until("2024-02-08T12:00:00Z")
	w.want("began 07 02:00, stands 07 02:01", "pause 10m0s for archive,audit", "began 07 02:00, stands 07 02:02",
		"began 08 02:00, stands nothing", "pause 10m0s for archive,audit", "began 08 02:00, stands nothing")
}

// TestOnce: a night that is asked for is tried like every other one, whatever is due.
func TestOnce(t *testing.T) {
	w := newWorld(t, "2024-02-11T01:55:00Z") // Sunday
	w.succeeded("2024-02-10T02:00:00Z")
	w.step("archive", 5, 0)
	w.step("deep", 0).Weekly = true
	s, err := New(w.o, w.stop)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Once(t.Context()); r.Code != 0 || !r.Succeeded() || r.Late {
		t.Errorf("%+v", r)
	}
	w.want("11 01:55 archive: 5", "11 01:56 deep: 0", "pause 10m0s for archive", "11 02:07 archive: 0")
}

func TestPlan(t *testing.T) {
	w := newWorld(t, "2024-02-07T12:00:00Z")
	w.succeeded("2024-02-06T02:00:01Z")
	w.step("archive", 0)
	s, err := New(w.o, w.stop)
	if err != nil {
		t.Fatal(err)
	}
	p := s.Plan(t.Context())
	if !p.AtOnce || !p.Due.Equal(at("2024-02-07T02:00:00Z")) || len(p.Next) != 3 || !p.Next[2].Equal(at("2024-02-10T02:00:00Z")) || p.Success == nil || len(w.log) > 0 {
		t.Errorf("%+v %v", p, w.log)
	}
}

func TestValidate(t *testing.T) {
	_, err := New(Options{Attempts: 11, Backoff: -1, Steps: []Step{{Name: "a", Needs: []string{"b"}}, {Name: "a"}}}, nil)
	for _, want := range []string{"no cron expression", "11 attempts", "a pause of", "needs b", `"a" has no name`} {
		if !fault.Is(err, fault.Usage) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}
