package fault_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"etl/internal/fault"
)

// clock is time that passes only when somebody waits or works.
type clock struct {
	now   time.Time
	waits []time.Duration
}

func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.waits = append(c.waits, d)
	c.now = c.now.Add(d)
	return nil
}

func (c *clock) use(p fault.Policy) fault.Policy {
	p.Sleep, p.Now = c.sleep, func() time.Time { return c.now }
	return p
}

// failure is what one attempt does.
type failure struct {
	takes time.Duration
	kind  fault.Kind // Internal is success
	asks  time.Duration
}

func TestPolicy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		upTo := func(name string, d time.Duration) time.Duration {
			return time.Duration(rapid.Int64Range(1, int64(d)).Draw(t, name))
		}
		p := fault.Policy{
			Attempts: rapid.IntRange(1, 30).Draw(t, "attempts"),
			Base:     upTo("base", 5*time.Second), Cap: upTo("cap", 30*time.Second),
			Budget: upTo("budget", 10*time.Minute), AfterCap: upTo("after cap", 6*time.Minute),
		}
		plan := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) failure {
			f := failure{takes: time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "takes")), kind: fault.Transient, asks: -1}
			switch rapid.IntRange(0, 19).Draw(t, "what") {
			case 0:
				f.kind = rapid.SampledFrom([]fault.Kind{fault.Internal, fault.Invalid, fault.Unknown, fault.Unavailable}).Draw(t, "kind")
			case 1, 2, 3, 4, 5:
				f.asks = time.Duration(rapid.Int64Range(0, int64(7*time.Minute)).Draw(t, "asks"))
			}
			return f
		}), 30, 30).Draw(t, "plan")

		c := &clock{now: time.Unix(0, 0)}
		var notices []fault.Retry
		p.Notify = func(r fault.Retry) { notices = append(notices, r) }
		var asked, last time.Duration // what servers asked for and was waited; when the last attempt began
		n := 0
		err := c.use(p).Do(context.Background(), "it", func(context.Context) error {
			f := plan[n]
			n++
			last = c.now.Sub(time.Unix(0, 0))
			if n > 1 {
				asked += max(plan[n-2].asks, 0)
			}
			c.now = c.now.Add(f.takes)
			if f.kind == fault.Internal {
				return nil
			}
			err := fault.Errorf(f.kind, "failure %d", n)
			if f.asks >= 0 {
				err = fault.After(err, f.asks)
			}
			return fmt.Errorf("wrapped: %w", err)
		})

		// It tries until something is final, and no longer than it may.
		if n < 1 || n > p.Attempts || n != len(c.waits)+1 || n != len(notices)+1 {
			t.Fatalf("%d attempts of %d, %d waits, %d notices", n, p.Attempts, len(c.waits), len(notices))
		}
		if n > 1 && last-asked > p.Budget {
			t.Fatalf("the last attempt began after %s, the budget is %s", last-asked, p.Budget)
		}
		for i, f := range plan[:n-1] {
			if f.kind != fault.Transient || f.asks > p.AfterCap {
				t.Fatalf("went on after %+v", f)
			}
			// Base, doubled up to Cap; the upper half of it, behind what was asked for.
			most := min(p.Cap, p.Base)
			for range i {
				most = min(p.Cap, 2*most)
			}
			wait := c.waits[i] - max(f.asks, 0)
			if wait < most/2 || wait > most {
				t.Fatalf("wait %d is %s, want %s to %s", i, wait, most/2, most)
			}
			r := notices[i]
			if r.What != "it" || r.Attempt != i+1 || r.Wait != c.waits[i] || !strings.Contains(r.Err.Error(), fmt.Sprintf("failure %d", i+1)) {
				t.Fatalf("notice %d is %+v", i, r)
			}
		}
		// And it stops for a reason.
		f := plan[n-1]
		switch {
		case f.kind == fault.Internal:
			if err != nil {
				t.Fatalf("success is %v", err)
			}
			return
		case !fault.Is(err, f.kind) || !strings.Contains(err.Error(), fmt.Sprintf("failure %d", n)):
			t.Fatalf("%v (%s) after %+v", err, fault.KindOf(err), f)
		case f.kind != fault.Transient:
		case f.asks > p.AfterCap:
			if !strings.Contains(err.Error(), "the server asks to wait") || fault.HintOf(err) == "" {
				t.Fatalf("%v, asked to wait for %s", err, f.asks)
			}
		case n < p.Attempts && last+f.takes-asked+p.Cap < p.Budget:
			t.Fatalf("gave up after %d of %d attempts and %s of %s", n, p.Attempts, last+f.takes-asked, p.Budget)
		case n > 1 && !strings.Contains(err.Error(), fmt.Sprintf("given up after %d attempts", n)):
			t.Fatalf("%v does not say how often", err)
		}
	})
}

// The defaults outlast a reset of D1's storage, however the draws fall, and
// waits do not overflow.
func TestPolicyDefaults(t *testing.T) {
	for range 200 {
		c := &clock{}
		err := c.use(fault.Policy{}).Do(context.Background(), "it", func(context.Context) error { return fault.Errorf(fault.Transient, "down") })
		if n := len(c.waits) + 1; n != 14 || !fault.Is(err, fault.Transient) {
			t.Fatalf("%d attempts: %v", n, err)
		}
		if all := c.now.Sub(time.Time{}); all < 80*time.Second || all > 4*time.Minute {
			t.Fatalf("%s from the first attempt to the last", all)
		}
	}
	huge := fault.Policy{Attempts: 100, Base: 1 << 62, Cap: 1<<63 - 1, Budget: 1<<63 - 1}
	c := &clock{}
	if err := c.use(huge).Do(context.Background(), "it", func(context.Context) error { return fault.Errorf(fault.Transient, "down") }); !fault.Is(err, fault.Transient) {
		t.Error(err)
	}
	for _, w := range c.waits {
		if w < 1<<61 {
			t.Errorf("a wait of %s", w)
		}
	}
}

func TestPolicyOneAttempt(t *testing.T) {
	want := fault.Errorf(fault.Transient, "down")
	if err := (fault.Policy{Attempts: 1}).Do(context.Background(), "it", func(context.Context) error { return want }); err != want {
		t.Errorf("%v, want the error as it is", err)
	}
}

func TestPolicyCancel(t *testing.T) {
	down := fault.Errorf(fault.Transient, "down")
	for name, tt := range map[string]struct {
		before, during bool // when it is cancelled; else while it waits
		tries          int
	}{"before": {true, false, 0}, "during an attempt": {false, true, 1}, "during a wait": {false, false, 1}} {
		ctx, cancel := context.WithCancel(context.Background())
		if tt.before {
			cancel()
		}
		tries := 0
		// The real Sleep: an hour, unless it ends at once.
		p := fault.Policy{Base: time.Hour, Cap: time.Hour, Budget: 10 * time.Hour}
		p.Notify = func(fault.Retry) { time.AfterFunc(time.Millisecond, cancel) }
		err := p.Do(ctx, "it", func(context.Context) error {
			if tries++; tt.during {
				cancel()
			}
			return down
		})
		if !errors.Is(err, context.Canceled) || tries != tt.tries || errors.Is(err, down) != (tries > 0) || fault.ExitCode(err) != fault.ExitInterrupted {
			t.Errorf("%s: %v after %d tries", name, err, tries)
		}
		cancel()
	}
	// What is done is done, and what failed for good is told as it is.
	for _, want := range []error{nil, fault.Errorf(fault.Unknown, "lost")} {
		ctx, cancel := context.WithCancel(context.Background())
		if err := (fault.Policy{}).Do(ctx, "it", func(context.Context) error { cancel(); return want }); err != want {
			t.Errorf("%v, and cancelled: %v", want, err)
		}
	}
}

func TestAfter(t *testing.T) {
	base := fault.Errorf(fault.Transient, "busy")
	err := fmt.Errorf("put: %w", fault.After(base, time.Second))
	if w, ok := fault.AfterOf(err); w != time.Second || !ok || !errors.Is(err, base) || !fault.Is(err, fault.Transient) || err.Error() != "put: busy" {
		t.Errorf("%v asks for %s, %v", err, w, ok)
	}
	if _, ok := fault.AfterOf(base); ok || fault.After(nil, 1) != nil {
		t.Error("a wait from nowhere")
	}
}

func TestCounter(t *testing.T) {
	var n fault.Counter
	c := &clock{}
	_ = c.use(fault.Policy{Attempts: 5, Notify: n.Count}).Do(context.Background(), "it", func(context.Context) error { return fault.Errorf(fault.Transient, "down") })
	if n.Load() != 4 {
		t.Errorf("%d repeated attempts counted", n.Load())
	}
}

// Once patience with a place ended, nothing more is asked of it; what does not pass by
// itself, and other places, have no part in that.
func TestLost(t *testing.T) {
	down := fault.Errorf(fault.Transient, "down")
	for what, p := range map[string]fault.Policy{
		"attempts": {Attempts: 3}, "one attempt": {Attempts: 1}, "budget": {Budget: 10 * time.Second}, "server": {AfterCap: time.Second},
	} {
		p = new(clock).use(p)
		p.Lost = new(fault.Lost)
		tries := 0
		ask := func(err error) error {
			return p.Do(context.Background(), "it", func(context.Context) error { tries++; return err })
		}
		if err := ask(fault.Errorf(fault.Invalid, "wrong")); err == nil || ask(nil) != nil || tries != 2 {
			t.Errorf("%s: %v, %d tries of what is no loss", what, err, tries)
		}
		first := ask(fault.After(down, 2*time.Second))
		after := tries
		if again := ask(nil); !errors.Is(first, down) || again != first || tries != after {
			t.Errorf("%s: first %v, then %v, %d more tries", what, first, again, tries-after)
		}
	}
}
