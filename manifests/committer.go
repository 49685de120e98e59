package manifests

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
)

// Change is what one run learnt of one point of the month.
type Change struct {
	Point int32
	Name  string // as the points table has it now; "" keeps the manifest's
	// Base is the manifest's entry that the work was based on, nil if there was
	// none. It must have been taken from Committer.Manifest before the object
	// was read for merging.
	Base *Entry
	// Entry is of the object that the run has just stored, or found unchanged
	// and perhaps under another ETag; nil if no object is involved.
	Entry *Entry
	// Empty is the days that were read to their end and found empty.
	Empty utc.Set
	// Lost is the days whose archived rows are gone for good, as far as anyone
	// knows who looked (repair): they alone may lose their number.
	Lost utc.Set
}

// Failure is a change that can not go into the manifest.
type Failure struct {
	Change
	Err error
}

// Result says what became of the changes that a Commit took.
type Result struct {
	// Committed changes are durable: every day they archived has a number in
	// the stored manifest. A change that the manifest held already is among them.
	Committed []Change
	// Failed changes are dropped; the manifest keeps the point's old entry.
	Failed []Failure
	// Warnings name objects in the month's folder that could not be adopted,
	// each once in a committer's life.
	Warnings []error
	// Puts counts the writes of the manifest that were tried: 0 if it said all of this already.
	Puts int
}

// Options tune a Committer; zero values mean the defaults.
type Options struct {
	// A commit is due after a random time between the two since the last one,
	// so that runners on one month do not meet: 5 s and 30 s.
	MinInterval, MaxInterval time.Duration
	// Attempts bounds the writes of one Commit: 10.
	Attempts int
	// Workers bounds the month files that are read at once: 8.
	Workers int
	Now     func() time.Time // time.Now
}

// Committer owns one month's manifest within a process. Any number of
// committers, in any number of processes, may work on one month: the manifest
// changes by compare-and-swap alone. All methods are safe for concurrent use.
//
// INVARIANT: an entry is written from memory only over the very entry that the
// work was based on (Change.Base), and never after a conflict: otherwise it is
// computed anew from the object now stored. So the last writer of an object
// always has the last word on its entry, in whatever order the runs commit.
//
// INVARIANT: a day that has a number keeps having one, unless a change names it as Lost.
type Committer struct {
	store    object.Store
	month    utc.Month
	describe Describe
	o        Options

	busy chan struct{}          // held by Load and Commit throughout
	seen map[object.Key]adopted // what adoption read before; guarded by busy

	mu      sync.Mutex // guards what follows
	man     *Manifest  // the last known one, nil before the first Load
	version Version
	pending []Change
	next    time.Time // a commit is due from then on
}

// NewCommitter makes the committer of a month; nothing is read before Load.
func NewCommitter(store object.Store, month utc.Month, describe Describe, o Options) *Committer {
	o.MinInterval = cmp.Or(o.MinInterval, 5*time.Second)
	o.MaxInterval = max(o.MinInterval, cmp.Or(o.MaxInterval, 30*time.Second))
	o.Attempts = cmp.Or(o.Attempts, 10)
	o.Workers = cmp.Or(o.Workers, 8)
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Committer{store: store, month: month, describe: describe, o: o,
		busy: make(chan struct{}, 1), seen: map[object.Key]adopted{}}
	c.next = c.schedule()
	return c
}

func (c *Committer) schedule() time.Time {
	return c.o.Now().Add(c.o.MinInterval + mathrand.N(c.o.MaxInterval-c.o.MinInterval+1))
}

// lock waits for the turn of this call, or until ctx ends.
func (c *Committer) lock(ctx context.Context) error {
	select {
	case c.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Committer) unlock() { <-c.busy }

// Load reads the manifest as it is stored now. For a month that has none it
// lists the month's folder and adopts the month files there from their footers;
// what is there and is no sound month file of this month is returned as
// warnings. Nothing is written: the next Commit writes what was adopted.
func (c *Committer) Load(ctx context.Context) (warnings []error, err error) {
	if err := c.lock(ctx); err != nil {
		return nil, err
	}
	defer c.unlock()
	_, _, warnings, err = c.read(ctx, nil)
	return warnings, err
}

// Manifest is the manifest as last read or written, with adopted entries; nil
// before the first Load or Commit. It is the Base of new work.
func (c *Committer) Manifest() *Manifest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.man
}

// Add hands over a change for the next Commit. The caller must not change what
// it points to. Of several changes to one point the later ones are applied later.
func (c *Committer) Add(ch Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = append(c.pending, ch)
}

// Due reports whether there is something to commit and it is time to: 5 to 30
// seconds after the last Commit, whatever became of it.
func (c *Committer) Due() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return (len(c.pending) > 0 || unwritten(c.man, c.version)) && !c.o.Now().Before(c.next)
}

// unwritten reports whether entries were adopted and no manifest holds them yet.
func unwritten(m *Manifest, v Version) bool { return v == "" && m != nil && len(m.Points) > 0 }

// known remembers the manifest that is stored now, or was adopted.
func (c *Committer) known(m *Manifest, v Version) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.man, c.version = m, v
}

// Commit brings the pending changes, and adopted entries, into the manifest. If
// that changes nothing, nothing is written. A point whose object is missing,
// foreign or corrupt fails alone and keeps its entry.
//
// An error means that nothing was committed as far as is known, all changes are
// pending again and Commit may be repeated: Corrupt or Invalid if the manifest
// can not be used, Transient if it kept changing or a write stayed in doubt,
// else the store's. The warnings count even then.
func (c *Committer) Commit(ctx context.Context) (Result, error) {
	if err := c.lock(ctx); err != nil {
		return Result{}, err
	}
	defer c.unlock()
	c.mu.Lock()
	batch, man, version := c.pending, c.man, c.version
	c.pending = nil
	c.next = c.schedule()
	c.mu.Unlock()
	if len(batch) == 0 && !unwritten(man, version) {
		return Result{}, nil
	}
	res, err := c.commit(ctx, man, version, batch)
	if err != nil {
		c.mu.Lock()
		c.pending = append(batch, c.pending...)
		c.mu.Unlock()
		return Result{Warnings: res.Warnings, Puts: res.Puts}, err
	}
	return res, nil
}

func (c *Committer) commit(ctx context.Context, man *Manifest, version Version, batch []Change) (Result, error) {
	var (
		warnings []error
		last     error
		tried    = map[string]Result{} // by the commit id of each write without a clear outcome
	)
	for puts := 0; ; {
		if puts > 0 && puts < c.o.Attempts {
			if err := pause(ctx, puts); err != nil {
				return Result{Warnings: warnings, Puts: puts}, err
			}
		}
		// A month without a manifest is looked at again right before its first
		// one: what another runner left there meanwhile is not to be forgotten.
		if puts > 0 || version == "" {
			var more []error
			var err error
			man, version, more, err = c.read(ctx, batch)
			warnings = append(warnings, more...)
			if err != nil {
				return Result{Warnings: warnings, Puts: puts}, err
			}
			if res, own := tried[man.Commit]; own {
				// The write that looked lost, or a repetition of it below us, did happen.
				res.Warnings, res.Puts = warnings, puts
				return res, nil
			}
		}
		if puts == c.o.Attempts {
			return Result{Warnings: warnings, Puts: puts},
				fault.Errorf(fault.Transient, "month %s: manifest kept changing, gave up after %d attempts: %w", c.month, puts, last)
		}
		next, res, err := c.apply(ctx, man, batch, puts > 0)
		if err != nil {
			return Result{Warnings: warnings, Puts: puts}, err
		}
		if next == nil && unwritten(man, version) {
			next = newManifest(c.month, rand.Text(), man.Points)
		}
		if next == nil {
			res.Warnings, res.Puts = warnings, puts
			return res, nil
		}
		puts++
		attrs, err := c.store.Put(ctx, KeyOf(c.month), Encode(next),
			object.PutOptions{IfMatch: string(version), IfAbsent: version == "", Type: "application/json"})
		if err == nil {
			c.known(next, Version(attrs.ETag))
			res.Warnings, res.Puts = warnings, puts
			return res, nil
		}
		err = fmt.Errorf("write the manifest of %s: %w", c.month, err)
		if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Unknown) {
			return Result{Warnings: warnings, Puts: puts}, err
		}
		last, tried[next.Commit] = err, res
	}
}

// pause waits before the n-th repetition, n ≥ 1: half to all of 100 ms · 2ⁿ⁻¹,
// at most 5 s; nine of them take at most 22 s. It returns early, with its error, if ctx ends.
func pause(ctx context.Context, n int) error {
	d := min(100*time.Millisecond<<(n-1), 5*time.Second)
	t := time.NewTimer(d/2 + mathrand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// read loads the manifest, adopting if there is none, and remembers it.
func (c *Committer) read(ctx context.Context, batch []Change) (*Manifest, Version, []error, error) {
	m, v, err := Load(ctx, c.store, c.month)
	var warnings []error
	if err == nil && v == "" {
		m, warnings, err = c.adopt(ctx, batch)
	}
	if err != nil {
		return nil, "", warnings, err
	}
	c.known(m, v)
	return m, v, warnings, nil
}

// apply computes the manifest that follows base once the changes are in, nil if
// it would say the same. With afresh, every entry of a change that has an
// object is computed from the object stored now. The error is that of ctx alone.
func (c *Committer) apply(ctx context.Context, base *Manifest, batch []Change, afresh bool) (*Manifest, Result, error) {
	type point struct {
		id      int32
		changes []Change
		errs    []error
		entry   *Entry // nil if the point has none
	}
	points := map[int32]*point{}
	var order []*point
	for _, ch := range batch {
		p := points[ch.Point]
		if p == nil {
			p = &point{id: ch.Point, entry: base.Entry(ch.Point)}
			points[ch.Point], order = p, append(order, p)
		}
		p.changes = append(p.changes, ch)
	}
	var g errgroup.Group
	g.SetLimit(c.o.Workers)
	for _, p := range order {
		g.Go(func() error {
			for _, ch := range p.changes {
				next, err := c.resolve(ctx, p.entry, ch, afresh)
				if err == nil {
					p.entry = next
				}
				p.errs = append(p.errs, err)
			}
			return nil
		})
	}
	_ = g.Wait()
	if err := ctx.Err(); err != nil {
		return nil, Result{}, err
	}

	owner := make(map[object.Key]int32, len(base.Points))
	for i := range base.Points {
		owner[base.Points[i].Path] = base.Points[i].ID
	}
	entries := slices.Clone(base.Points)
	changed := false
	var res Result
	for _, p := range order {
		old := base.Entry(p.id)
		if p.entry != nil && p.entry.Path != "" && !p.entry.Equal(old) {
			if id, taken := owner[p.entry.Path]; taken && id != p.id {
				err := fault.Errorf(fault.Corrupt, "point %d: the manifest of %s gives its file %s to point %d", p.id, c.month, p.entry.Path, id)
				for i := range p.errs {
					p.errs[i] = cmp.Or(p.errs[i], err)
				}
				p.entry = old
			} else {
				owner[p.entry.Path] = p.id
			}
		}
		for i, ch := range p.changes {
			if p.errs[i] == nil {
				res.Committed = append(res.Committed, ch)
			} else {
				res.Failed = append(res.Failed, Failure{ch, p.errs[i]})
			}
		}
		if p.entry.Equal(old) {
			continue
		}
		changed = true
		if i, ok := slices.BinarySearchFunc(base.Points, p.id, func(e Entry, id int32) int { return cmp.Compare(e.ID, id) }); ok {
			entries[i] = *p.entry
		} else {
			entries = append(entries, *p.entry)
		}
	}
	if !changed {
		return nil, res, nil
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.ID, b.ID) })
	return newManifest(c.month, rand.Text(), entries), res, nil
}

// resolve is the entry that follows cur (nil: none) once the change is in.
func (c *Committer) resolve(ctx context.Context, cur *Entry, ch Change, afresh bool) (*Entry, error) {
	next := Entry{ID: ch.Point, Days: sample.NewDayCounts(c.month)}
	if cur != nil {
		next = *cur
	}
	zeros := ch.Empty
	if ch.Entry != nil {
		if err := ch.Entry.check(c.month, DirOf(c.month)); err != nil || ch.Entry.ID != ch.Point || ch.Entry.Path == "" {
			return nil, fault.Errorf(fault.Internal, "point %d: its change has an entry of point %d, file %q: %w", ch.Point, ch.Entry.ID, ch.Entry.Path, cmp.Or(err, errNotIts))
		}
		if cur != nil && cur.Path != "" && cur.Path != ch.Entry.Path {
			return nil, fault.Hint(fault.Errorf(fault.Conflict, "point %d: this run wrote %s, but the manifest has its file at %s", ch.Point, ch.Entry.Path, cur.Path),
				"run again: the rows are then merged into %s", cur.Path)
		}
		next = *ch.Entry
		if afresh || !cur.Equal(ch.Base) {
			var err error
			if next, err = c.stored(ctx, ch); err != nil {
				return nil, err
			}
		}
		for i, n := range ch.Entry.Days {
			if n == 0 {
				zeros = zeros.With(i)
			} else if n > 0 && next.Days[i] == sample.NotArchived && !ch.Lost.Has(i) {
				return nil, lost(ch, next.Path, c.month.First()+utc.Day(i), n)
			}
		}
	}
	next.Days = slices.Clone(next.Days)
	for i, n := range next.Days {
		switch {
		case n != sample.NotArchived:
		case cur != nil && cur.Days[i] > 0 && ch.Lost.Has(i):
		case cur != nil && cur.Days[i] > 0:
			return nil, lost(ch, next.Path, c.month.First()+utc.Day(i), cur.Days[i])
		case zeros.Has(i), cur != nil && cur.Days[i] == 0:
			next.Days[i] = 0
		}
	}
	if cur != nil {
		next.Name = cur.Name
	}
	next.Name = newest(ch.Point, Clean(next.Name), ch.Name)
	if next.Path == "" && next.Days.Archived() == 0 {
		return nil, nil // there was no entry and there is nothing to say
	}
	return &next, nil
}

var errNotIts = errors.New("not the file of this point")

func lost(ch Change, key object.Key, day utc.Day, n int32) error {
	return fault.Hint(fault.Errorf(fault.Corrupt, "point %d: %s has lost %s, which had %d samples; the manifest keeps its entry", ch.Point, key, day, n),
		"put a good copy of the file back if there is one; else keep what is there, and run `etl rearchive --day %s` for what the source still holds", day)
}

// stored is the entry of the object that lies at the change's path now.
func (c *Committer) stored(ctx context.Context, ch Change) (Entry, error) {
	data, attrs, err := c.store.Get(ctx, ch.Entry.Path)
	switch {
	case fault.Is(err, fault.NotExist):
		return Entry{}, fault.Errorf(fault.Corrupt, "point %d: its file has vanished since it was stored: %w", ch.Point, err)
	case err != nil:
		return Entry{}, fmt.Errorf("read point %d's file again: %w", ch.Point, err)
	}
	e, err := inspect(c.describe, c.month, ch.Entry.Path, data, attrs.ETag)
	if err != nil {
		return Entry{}, err
	}
	if e.ID != ch.Point {
		return Entry{}, fault.Errorf(fault.Corrupt, "point %d: its file %s now names point %d", ch.Point, ch.Entry.Path, e.ID)
	}
	return e, nil
}

// adopted is what a look at one object of the month's folder gave.
type adopted struct {
	etag  string
	entry *Entry
	err   error // why it was not adopted
}

// adopt makes a manifest from the footers of the month files in the folder, for
// a month that has none. Objects read before in the same version are not read
// again; objects that the batch has just stored are left to its changes, their
// points keeping the entry that they were adopted with. Warnings are only those
// not given before. If two files claim a point, the one with more samples is
// adopted, then the one at the plain slug of its name, then the first by key.
func (c *Committer) adopt(ctx context.Context, batch []Change) (*Manifest, []error, error) {
	mine := map[object.Key]string{}
	for _, ch := range batch {
		if ch.Entry != nil {
			mine[ch.Entry.Path] = ch.Entry.ETag
		}
	}
	var warnings []error
	now := map[object.Key]adopted{}
	fresh := map[object.Key]bool{}
	for a, err := range c.store.List(ctx, DirOf(c.month)) {
		if err != nil {
			return nil, warnings, fmt.Errorf("list the files of %s: %w", c.month, err)
		}
		was, known := c.seen[a.Key]
		switch {
		case known && (was.etag == a.ETag || mine[a.Key] == a.ETag):
			now[a.Key] = was
		case mine[a.Key] != a.ETag:
			fresh[a.Key] = true
		}
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.o.Workers)
	for key := range fresh {
		g.Go(func() error {
			data, attrs, err := c.store.Get(gctx, key)
			if fault.Is(err, fault.NotExist) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("adopt %s: %w", key, err)
			}
			is := adopted{etag: attrs.ETag}
			if e, err := inspect(c.describe, c.month, key, data, attrs.ETag); err != nil {
				is.err = fmt.Errorf("not adopted: %w", err)
			} else {
				is.entry = &e
			}
			mu.Lock()
			defer mu.Unlock()
			now[key] = is
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, warnings, err
	}
	c.seen = now

	var entries []Entry
	for _, is := range now {
		if is.entry != nil {
			entries = append(entries, *is.entry)
		}
	}
	dir := DirOf(c.month)
	plain := func(e Entry) int {
		if string(e.Path) == dir+slugOf(e.ID, e.Name)+".parquet" {
			return 0
		}
		return 1
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(b.Samples, a.Samples), cmp.Compare(plain(a), plain(b)), cmp.Compare(a.Path, b.Path))
	})
	kept := make([]Entry, 0, len(entries))
	for _, e := range entries {
		if k := len(kept) - 1; k < 0 || kept[k].ID != e.ID {
			kept = append(kept, e)
		} else if fresh[e.Path] || fresh[kept[k].Path] {
			warnings = append(warnings, fault.Errorf(fault.Conflict, "not adopted: %s has %d samples of point %d, as %s has, with %d",
				e.Path, e.Samples, e.ID, kept[k].Path, kept[k].Samples))
		}
	}
	for key := range fresh {
		if err := now[key].err; err != nil {
			warnings = append(warnings, err)
		}
	}
	slices.SortFunc(warnings, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return newManifest(c.month, "", kept), warnings, nil
}
