package d1

import "sync"

// The size of a page. D1 says no limit for an answer but makes it in a process
// of 128 MB, and 32 MiB is where its runtime is known to fail. A statement may take 30 s.
const (
	firstRows = 100_000
	leastRows = 1_000   // fewer are not asked for, whatever fails
	mostRows  = 1 << 20 // 23 bytes each are 23 MiB in memory
	aimBytes  = 20 << 20
	quickMS   = 10_000 // milliseconds within which a page may still grow
	// forgiveAfter is how many full pages go by before a size that was too much is
	// tried again: whether D1 was busy or the page too large is not known.
	forgiveAfter = 32
)

// pages chooses how many rows a page asks for, for all reads of a source.
type pages struct {
	mu    sync.Mutex
	least int
	rows  int // to ask for next
	most  int // below what was too much
	limit int // that most may return to
	full  int // full pages since most was set
}

func newPages() *pages {
	return &pages{least: leastRows, rows: firstRows, most: mostRows, limit: mostRows}
}

// size is how many rows to ask for.
func (p *pages) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rows
}

// half is half of rows.
func (p *pages) half(rows int) int { return max(p.least, rows/2) }

// tooLarge records that rows were too much and returns how many to ask for instead.
func (p *pages) tooLarge(rows int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	rows = p.half(rows)
	p.most = min(p.most, rows)
	p.rows = min(p.rows, p.most)
	p.full = 0
	return rows
}

// done records an answer: the rows asked for, those that came, the bytes that
// they took, and the milliseconds that D1 did.
func (p *pages) done(asked, came int, bytes int64, ms float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case ms > 2*quickMS:
		p.rows = min(p.rows, asked/2)
	case came >= asked && ms <= quickMS:
		p.rows = max(p.rows, 2*asked)
	}
	if bytes > aimBytes/16 { // enough to tell the bytes of a row
		p.rows = min(p.rows, int(aimBytes*int64(came)/bytes))
	}
	if came >= asked && p.most < p.limit {
		if p.full++; p.full >= forgiveAfter {
			p.most, p.full = min(2*p.most, p.limit), 0
		}
	}
	p.rows = max(p.least, min(p.rows, p.most))
}
