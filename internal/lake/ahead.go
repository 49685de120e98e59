package lake

import (
	"context"
	"errors"
	"io"
	"regexp"
	"sync"
	"time"
)

// Most of the time of a query is waiting for the news: a LIST of a bucket takes
// longer than an answer out of the cache. So a session that knows a catalog does
// all of a query by what it knows, its answer too, while it hears the news, and
// holds the answer back until they are there. If they say anything new, what was
// done is undone and done again.
//
// INVARIANT: no byte and no row of an answer reaches its reader before a listing
// that began after the query has shown that the catalog it was planned by is that
// of the store, and the source that its points and groups are the same.
// TestLakeHeldBack holds the listing up and changes what it says.

// hearing is the news on their way.
type hearing struct {
	lake   *Lake
	ctx    context.Context
	cancel context.CancelFunc
	begun  bool
	work   sync.WaitGroup // the asking
	ahead  sync.WaitGroup // the fetching of manifests before they are needed

	news *news
	err  error

	mu   sync.Mutex
	span *[2]int64 // what the statement can touch, once that is known
	list *Catalog  // the listing, once it is there
}

// mayAsk is a text that names a table of the lake. It only decides when the news
// are asked for: one that names none (`SELECT 1`, a temporary table) asks, if at
// all, once it is parsed.
var mayAsk = regexp.MustCompile(`(?i)\b(samples|latest|points|point_groups|timeseries|v_latest_values|archive_(files|days|state))\b`)

// listen begins to hear the news for a statement, before it is even parsed.
func (l *Lake) listen(ctx context.Context, text string) *hearing {
	h := &hearing{lake: l}
	h.ctx, h.cancel = context.WithCancel(ctx)
	if mayAsk.MatchString(text) {
		h.begin()
	}
	return h
}

// begin begins to hear them, if that was not done before.
func (h *hearing) begin() {
	if !h.begun {
		h.begun = true
		if l := h.lake; l.blank() {
			h.ahead.Go(l.pins.earlyPoints(h.ctx, l.o.Store, l.o.StoreName))
		}
		h.work.Go(func() { h.news, h.err = h.lake.ask(h.ctx, h.listed) })
	}
}

// wait is the news.
func (h *hearing) wait() (*news, error) {
	h.work.Wait()
	return h.news, h.err
}

// listed and touches tell the listing and what the statement can touch, in Unix
// milliseconds: once both are known, the manifests are fetched. A span that is
// wrong fetches what is not needed, or later what is.
func (h *hearing) listed(c *Catalog) { h.fetch(func() { h.list = c }) }

func (h *hearing) touches(from, to int64) {
	h.fetch(func() { h.span = &[2]int64{from, to} })
}

func (h *hearing) fetch(tell func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	tell()
	if h.list != nil && h.span != nil {
		h.ahead.Go(h.list.prefetch(h.ctx, h.span[0], h.span[1]))
	}
}

// guessed is touches before anything is known of the lake: what is likely to be
// listed is fetched while it is.
func (h *hearing) guessed(from, to int64) {
	l := h.lake
	h.mu.Lock()
	if h.list == nil && l.o.Store != nil {
		// A range without an end ends with the hot tier.
		if early := l.pins.earlyMonths(h.ctx, l.o.Store, l.o.StoreName, from, min(to, l.o.Now().UnixMilli())); early != nil {
			h.ahead.Go(early)
		}
	}
	h.mu.Unlock()
	h.touches(from, to)
}

// blank reports whether this is the first that a session hears, and no other has
// left what it heard.
func (l *Lake) blank() bool {
	if l.o.Store == nil || l.asked.Swap(true) {
		return false
	}
	names, err := l.pins.cache.catalogNames()
	return err == nil && len(names[catalogID(l.o.StoreName, memoKey, "")]) == 0
}

// stop ends it: nothing is asked any more when it returns.
func (h *hearing) stop() {
	h.cancel()
	h.work.Wait()
	h.ahead.Wait()
}

// verdict says whether what a query is done by is still so. It is nil where that
// is known already.
type verdict struct {
	known chan struct{} // closed when it is
	ok    bool          // not to be read before
}

// passed waits for the verdict.
func (v *verdict) passed() bool {
	if v == nil {
		return true
	}
	<-v.known
	return v.ok
}

// pending reports whether the verdict is still to come.
func (v *verdict) pending() bool {
	if v == nil {
		return false
	}
	select {
	case <-v.known:
		return false
	default:
		return true
	}
}

// refused reports whether there is a verdict, and it is no.
func (v *verdict) refused() bool { return v != nil && !v.pending() && !v.ok }

// maxHeld, less in tests, bounds how much of an answer is held in memory; then
// DuckDB waits.
var maxHeld = 16 << 20

// pass copies r to w, but nothing before the verdict, and nothing at all if that
// is no. It returns errors of w; r is read to its end in any case but those.
func (v *verdict) pass(w io.Writer, r io.Reader) error {
	var held [][]byte
	ended, size := false, 0
	for v.pending() && !ended && size < maxHeld {
		buf := make([]byte, copyBytes)
		n := 0
		for n < len(buf) && !ended && v.pending() {
			more, err := r.Read(buf[n:])
			n, ended = n+more, err != nil
		}
		held, size = append(held, buf[:n]), size+n
	}
	if !v.passed() {
		_, _ = io.Copy(io.Discard, r)
		return nil
	}
	for _, b := range held {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	buf := make([]byte, copyBytes)
	for !ended {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		ended = err != nil
	}
	return nil
}

// copyBytes is how much of an answer is copied at once.
const copyBytes = 256 << 10

// ahead does f with a plan by what the session knows while it hears the news.
// again says that the session has learnt something by which it has to be done
// again, or for the first time; else the error is that of f.
func (l *Lake) ahead(ctx context.Context, p *plan, h *hearing, f func(context.Context, *plan) error) (again bool, err error) {
	h.begin()
	l.recall(ctx)
	if l.catalog != nil && !l.strangers {
		v := &verdict{known: make(chan struct{})}
		known := l.learnt // as it is now: f may learn more
		var judging sync.WaitGroup
		judging.Go(func() {
			n, err := h.wait()
			v.ok = err == nil && known.knows(n)
			close(v.known)
		})
		p.verdict = v
		err = f(ctx, p)
		lap := time.Now()
		judging.Wait()
		p.verdict = nil
		p.stats.Catalog += time.Since(lap)
		if v.ok && !l.strangers {
			l.warn(h.news)
			return false, err
		}
	}
	if l.catalog == nil {
		l.guess(ctx, p, h)
	}
	lap := time.Now()
	defer func() { p.stats.Catalog += time.Since(lap) }()
	n, err := h.wait()
	if err != nil {
		return false, err
	}
	l.warn(n)
	if err := l.done(ctx, errStale); err != nil {
		return false, err
	}
	_, err = l.learn(ctx, n)
	return err == nil, err
}

// guess plans a statement while nothing is known of the lake, not even its points,
// only to tell which months it is likely to touch.
func (l *Lake) guess(ctx context.Context, p *plan, h *hearing) {
	lap := time.Now()
	defer func() { p.stats.Plan += time.Since(lap) }()
	list, err := scans(ctx, l.conn, p.stmt.SQL)
	if err != nil {
		return
	}
	if g := (&plan{scans: list}); g.reads("samples") {
		h.guessed(g.bounds())
	}
}

// answer does f, which gives the answer, and stops it if the verdict is no.
func (l *Lake) answer(ctx context.Context, p *plan, f func(context.Context, *plan) error) error {
	if p.verdict.refused() {
		return errStale
	}
	lap := time.Now()
	defer func() { p.stats.Run += time.Since(lap) }()
	p.sql = l.simplify(ctx, p)
	if !p.verdict.pending() {
		return f(ctx, p)
	}
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-p.verdict.known:
			if !p.verdict.ok {
				cancel()
			}
		case <-ctx.Done():
		}
	})
	err := f(ctx, p)
	cancel()
	watch.Wait()
	if p.verdict.refused() {
		return errors.Join(errStale, err)
	}
	return err
}
