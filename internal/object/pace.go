package object

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"sync"
	"time"

	"etl/internal/fault"
	"etl/internal/timing"
)

// Pace returns a store that begins a Put of a key no sooner than interval after
// the one before it has ended, in this process: R2 takes one write a second of
// a key and answers 429 to more. Writers of a key queue up in the order in which
// they came; other keys, Get and List do not wait. A Put that was refused
// without a write (Conflict, Invalid) lets the next one begin at once.
func Pace(s Store, interval time.Duration) Store { return PaceTimed(s, interval, nil) }

// PaceTimed is Pace that records how long writes wait for their turn.
func PaceTimed(s Store, interval time.Duration, rec *timing.Recorder) Store {
	return &paced{store: s, interval: interval, rec: rec, lanes: make(map[Key]*lane)}
}

type paced struct {
	store    Store
	interval time.Duration
	rec      *timing.Recorder

	mu    sync.Mutex
	lanes map[Key]*lane
	swept time.Time // when lanes that were over were last forgotten
}

// lane is the queue of one key.
type lane struct {
	turn  chan struct{} // holds a token while a Put is under way or waits for its time
	users int           // Puts in the queue; guarded by paced.mu
	next  time.Time     // when the next Put may begin; of whoever holds the turn, or of nobody while there are no users
}

func (p *paced) Get(ctx context.Context, key Key) ([]byte, Attrs, error) {
	return p.store.Get(ctx, key)
}

// Delete is not paced: whoever deletes a key does not write it, too.
func (p *paced) Delete(ctx context.Context, key Key) error { return Delete(ctx, p.store, key) }

func (p *paced) List(ctx context.Context, prefix string) iter.Seq2[Attrs, error] {
	return p.store.List(ctx, prefix)
}

// ListAfter is what the store below has of it.
func (p *paced) ListAfter(ctx context.Context, prefix string, after Key) iter.Seq2[Attrs, error] {
	return listAfter(ctx, p.store, prefix, after)
}

func (p *paced) Put(ctx context.Context, key Key, data []byte, o PutOptions) (Attrs, error) {
	start := p.rec.Start()
	l := p.enter(key)
	defer p.leave(l)
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return Attrs{}, fmt.Errorf("put %s: %w while other writes of it went first", key, ctx.Err())
	}
	defer func() { <-l.turn }()
	if wait := time.Until(l.next); wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return Attrs{}, fmt.Errorf("put %s: %w while its next write was not yet due", key, ctx.Err())
		}
	}
	p.rec.End(timing.WaitPace, start)
	a, err := p.store.Put(ctx, key, data, o)
	if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Invalid) {
		l.next = time.Now().Add(p.interval)
	}
	return a, err
}

// enter joins the queue of key. Once in an interval it forgets the keys whose
// time is over, so only those of the last two intervals are held.
func (p *paced) enter(key Key) *lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.swept) >= p.interval {
		maps.DeleteFunc(p.lanes, func(_ Key, l *lane) bool { return l.users == 0 && !l.next.After(now) })
		p.swept = now
	}
	l := p.lanes[key]
	if l == nil {
		l = &lane{turn: make(chan struct{}, 1)}
		p.lanes[key] = l
	}
	l.users++
	return l
}

// leave lets go of the lane, after its turn.
func (p *paced) leave(l *lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.users--
}
