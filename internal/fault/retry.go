package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Policy says how often and for how long to try again what failed with a
// Transient error. The zero value has the defaults. There is one policy for all
// that goes over a network; backends and their libraries never retry by themselves.
type Policy struct {
	// Attempts is the most that is tried in all, 14 if zero: with the other
	// defaults the waits between them are 86 to 172 s.
	Attempts int
	// Base is the longest first wait, 500 ms if zero; it doubles up to Cap, 20 s
	// if zero. Each wait is drawn at random from the upper half of its range, so
	// that workers that failed together do not come back together.
	Base, Cap time.Duration
	// Budget bounds the time from the first attempt to the last, 4 min if zero:
	// D1 needs 60 to 80 s to get over a reset of its storage.
	Budget time.Duration
	// AfterCap bounds how long a server may ask to wait (Retry-After), 5 min 10 s
	// if zero: Cloudflare's API blocks a token for 5 minutes. It is waited in
	// addition, and does not count towards Budget. A server that asks for more is
	// given up on at once.
	AfterCap time.Duration
	// Notify is called before each wait, from any goroutine. It may be nil.
	Notify func(Retry)
	// Lost, if not nil, is shared by all that goes to one place: once patience with one
	// request has ended nothing more is tried there, and each Do returns that error.
	Lost *Lost

	// Sleep waits for tests; nil waits for real.
	Sleep func(context.Context, time.Duration) error
	// Now is the clock, time.Now if nil.
	Now func() time.Time
}

// Lost remembers that patience with a place has ended. The zero value does not; it is
// safe for concurrent use.
type Lost struct{ err atomic.Pointer[error] }

// is returns the error that ended it, nil if none did.
func (l *Lost) is() error {
	if l == nil {
		return nil
	}
	if err := l.err.Load(); err != nil {
		return *err
	}
	return nil
}

// to is err, which ends it unless another one did.
func (l *Lost) to(err error) error {
	if l != nil {
		l.err.CompareAndSwap(nil, &err)
	}
	return err
}

// Retry is one attempt that failed and will be repeated.
type Retry struct {
	What    string // what is being tried
	Attempt int    // that failed, from 1
	Wait    time.Duration
	Err     error
}

// Counter counts attempts that were repeated; it is safe for concurrent use.
type Counter struct{ n atomic.Int64 }

// Count is a Policy.Notify.
func (c *Counter) Count(Retry) { c.n.Add(1) }

// Load is the number so far.
func (c *Counter) Load() int64 { return c.n.Load() }

type after struct {
	error
	wait time.Duration
}

func (a after) Unwrap() error { return a.error }

// After adds to err how long the server asked to wait before the next attempt.
func After(err error, wait time.Duration) error {
	if err == nil {
		return nil
	}
	return after{err, wait}
}

// AfterOf is how long the server asked to wait, if it did.
func AfterOf(err error) (time.Duration, bool) {
	if a, ok := errors.AsType[after](err); ok {
		return a.wait, true
	}
	return 0, false
}

// Do calls f until it returns nil or an error that is not Transient, or the
// policy is exhausted: then the last error is returned, with how often and how
// long was tried. what says in a few words what is being done. A cancelled
// context ends a wait at once and starts no attempt; the error then wraps both
// the context's and the last of f.
func (p Policy) Do(ctx context.Context, what string, f func(context.Context) error) error {
	p.defaults()
	start := p.Now()
	var asked time.Duration // waited because the server said so
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if err := p.Lost.is(); err != nil {
			return err
		}
		err := f(ctx)
		if err == nil || !Is(err, Transient) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w after: %w", what, ctx.Err(), err)
		}
		// A server's wish comes before the wait of one's own, for the workers that
		// it sent away at one moment have to come back at different ones too.
		wait, after := p.wait(attempt), time.Duration(0)
		if w, ok := AfterOf(err); ok {
			if w > p.AfterCap {
				return p.Lost.to(Hint(fmt.Errorf("%w (the server asks to wait %s, longer than this program does)", err, w.Round(time.Second)), "run again after that time"))
			}
			after = max(w, 0)
		}
		elapsed := p.Now().Sub(start)
		if attempt >= p.Attempts || elapsed-asked+wait > p.Budget {
			if attempt == 1 {
				return p.Lost.to(err)
			}
			return p.Lost.to(fmt.Errorf("%w (given up after %d attempts in %s)", err, attempt, elapsed.Round(100*time.Millisecond)))
		}
		asked += after
		wait += after
		if p.Notify != nil {
			p.Notify(Retry{what, attempt, wait, err})
		}
		if serr := p.Sleep(ctx, wait); serr != nil {
			return fmt.Errorf("%s: %w while waiting to try again after: %w", what, serr, err)
		}
	}
}

// wait draws how long to wait after an attempt, from 1.
func (p *Policy) wait(attempt int) time.Duration {
	most := p.Base
	for range attempt - 1 {
		if most > p.Cap/2 { // before it overflows
			most = p.Cap
			break
		}
		most *= 2
	}
	most = min(most, p.Cap)
	return most/2 + rand.N(most-most/2+1)
}

func (p *Policy) defaults() {
	if p.Attempts == 0 {
		p.Attempts = 14
	}
	if p.Base == 0 {
		p.Base = 500 * time.Millisecond
	}
	if p.Cap == 0 {
		p.Cap = 20 * time.Second
	}
	if p.Budget == 0 {
		p.Budget = 4 * time.Minute
	}
	if p.AfterCap == 0 {
		p.AfterCap = 310 * time.Second
	}
	if p.Sleep == nil {
		p.Sleep = sleep
	}
	if p.Now == nil {
		p.Now = time.Now
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
