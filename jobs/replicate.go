package jobs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
	"etl/manifests"
)

// ReplicateOptions say what to copy; the zero value of each is its default.
type ReplicateOptions struct {
	Days utc.Days // the months that it touches; the zero value is all
	// Prune removes from the destination what the source does not have. Without
	// it a destination that holds more is refused.
	Prune   bool
	Workers int   // files at a time, default 4
	Memory  int64 // bytes that files and rows in flight may take, default 256 MiB
}

// Refusal is what the destination holds and the source lacks.
type Refusal struct {
	Month   string    `json:"month"`
	PointID int32     `json:"point_id"`
	Point   string    `json:"point"`
	Days    []utc.Day `json:"days"`
}

// ReplicaMonth is the part of a plan that concerns one month.
type ReplicaMonth struct {
	Month  utc.Month `json:"month"`
	Files  int       `json:"files"` // to copy
	Bytes  int64     `json:"bytes"`
	Same   int       `json:"files_same"` // in the destination already
	Remove int       `json:"files_to_remove"`
	// Manifest says whether the destination's manifest has to be written.
	Manifest bool `json:"manifest"`
}

// ReplicatePlan is what a replication will do. It is run at most once.
type ReplicatePlan struct {
	Months  []ReplicaMonth `json:"months"` // only those with something to do
	Files   int            `json:"files"`
	Bytes   int64          `json:"bytes"`
	Same    int            `json:"files_same"`
	Rejects int            `json:"reject_files"`
	Remove  int            `json:"files_to_remove"`
	Refused []Refusal      `json:"refused"`
	Failed  []Failure      `json:"failed"` // months that can not be copied as they are

	o       ReplicateOptions
	to      object.Store
	catalog *manifests.Catalog
	rejects []object.Key
}

// Empty reports whether there is nothing to do.
func (p *ReplicatePlan) Empty() bool {
	return len(p.Months) == 0 && p.Rejects == 0 && len(p.Refused) == 0 && len(p.Failed) == 0
}

// ExitCode is 0, or that of what can not be copied or is refused.
func (p *ReplicatePlan) ExitCode() int {
	code := (&Report{Failed: p.Failed}).ExitCode(false)
	if len(p.Refused) > 0 {
		code = fault.Worse(code, fault.ExitError)
	}
	return code
}

// Err is the error of a plan that must not be run, nil for others.
func (p *ReplicatePlan) Err() error {
	if len(p.Refused) == 0 {
		return nil
	}
	var what []string
	for i, r := range p.Refused {
		if i == 5 {
			what = append(what, fmt.Sprintf("and %d more", len(p.Refused)-i))
			break
		}
		what = append(what, fmt.Sprintf("point %d %s, %s (%d days)", r.PointID, r.Point, r.Days[0], len(r.Days)))
	}
	return fault.Hint(fault.Errorf(fault.Invalid, "refused: the destination holds what the source lacks: %s; nothing was written", strings.Join(what, "; ")),
		"are the two mixed up? `etl repair --replica DESTINATION` brings what the source lacks back; --prune-destination removes it from the destination")
}

// PlanReplicate compares the manifests of two cold tiers, env.Store and to, and
// works out what to copy. It changes nothing.
func PlanReplicate(ctx context.Context, env Env, to object.Store, o ReplicateOptions) (*ReplicatePlan, error) {
	o.Workers, o.Memory = cmp.Or(o.Workers, 4), cmp.Or(o.Memory, 256<<20)
	p := &ReplicatePlan{Months: []ReplicaMonth{}, Refused: []Refusal{}, Failed: []Failure{}, o: o, to: to}
	var err error
	if p.catalog, _, err = manifests.LoadPoints(ctx, env.Store); err != nil {
		return nil, err
	}
	theirs, _, err := manifests.LoadPoints(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("destination: %w", err)
	}
	if theirs.SourceID != "" && theirs.SourceID != p.catalog.SourceID {
		return nil, fault.Hint(fault.Errorf(fault.Invalid, "the destination belongs to source %s, this cold tier to %s", theirs.SourceID, cmp.Or(p.catalog.SourceID, "none")),
			"give an empty place, or the one that this cold tier was copied to before")
	}
	months, err := manifests.Months(ctx, env.Store)
	if err != nil {
		return nil, err
	}
	more, err := monthsOf(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("destination: %w", err)
	}
	months = append(months, more...)
	slices.Sort(months)
	months = slices.Compact(months)
	if o.Days != (utc.Days{}) {
		months = slices.DeleteFunc(months, func(m utc.Month) bool { return m.Days().Intersect(o.Days).Empty() })
	}
	for _, m := range months {
		c, err := p.month(ctx, env, m)
		if err != nil {
			if k := fault.KindOf(err); k != fault.Corrupt && k != fault.Invalid {
				return nil, err
			}
			f := failure(err)
			f.Month = m.String()
			p.Failed = append(p.Failed, f)
			continue
		}
		p.Refused = append(p.Refused, c.refused...)
		s := c.summary()
		p.Same += s.Same
		if s.Files > 0 || s.Remove > 0 || s.Manifest {
			p.Months = append(p.Months, s)
			p.Files, p.Bytes, p.Remove = p.Files+s.Files, p.Bytes+s.Bytes, p.Remove+s.Remove
		}
	}
	return p, p.planRejects(ctx, env)
}

// planRejects finds the files of rejects that the destination lacks. They are
// named by their content, so a name is enough.
func (p *ReplicatePlan) planRejects(ctx context.Context, env Env) error {
	have := make(map[object.Key]int64)
	for a, err := range p.to.List(ctx, rejectsPrefix) {
		if err != nil {
			return fmt.Errorf("destination: %w", err)
		}
		have[a.Key] = a.Size
	}
	for a, err := range env.Store.List(ctx, rejectsPrefix) {
		if err != nil {
			return err
		}
		if _, ok := have[a.Key]; !ok && a.Size > 0 && strings.HasSuffix(string(a.Key), ".jsonl") {
			p.rejects = append(p.rejects, a.Key)
		}
	}
	p.Rejects = len(p.rejects)
	return nil
}

// copied is what is known of one month of both sides, and what to do.
type copied struct {
	month   utc.Month
	source  *manifests.Manifest
	there   *manifests.Manifest // adopted if there is none
	version manifests.Version   // of the manifest that is there
	keep    map[int32]manifests.Entry
	copies  []copyItem
	drop    []object.Key // month files that the source does not have
	refused []Refusal
	gone    bool // the source does not have the month at all
	empty   bool // nor does the destination, but for an empty manifest to be removed
}

// copyItem is one month file to copy.
type copyItem struct {
	entry manifests.Entry // of the source
	to    object.Key
	old   *manifests.Entry // of the destination, nil if it has none
	there bool             // something lies at to
	size  int64            // of that
}

func (c *copied) summary() ReplicaMonth {
	s := ReplicaMonth{Month: c.month, Files: len(c.copies), Remove: len(c.drop), Manifest: c.empty || len(c.copies) > 0 || !c.equal(c.entries(nil))}
	for _, it := range c.copies {
		s.Bytes += it.entry.Bytes
	}
	for _, e := range c.keep {
		if e.Path != "" {
			s.Same++
		}
	}
	return s
}

// entries is the destination's manifest once the copies that were made are in.
func (c *copied) entries(made map[int32]manifests.Entry) []manifests.Entry {
	all := maps.Clone(c.keep)
	for _, it := range c.copies {
		if it.old != nil {
			all[it.old.ID] = *it.old // as it was, unless it was copied
		}
	}
	maps.Copy(all, made)
	list := make([]manifests.Entry, 0, len(all))
	for _, id := range sortedKeys(all) {
		list = append(list, all[id])
	}
	return list
}

// equal reports whether the destination's manifest says exactly this already.
func (c *copied) equal(entries []manifests.Entry) bool {
	if c.version == "" {
		return len(entries) == 0 && c.gone
	}
	return slices.EqualFunc(entries, c.there.Points, func(a, b manifests.Entry) bool { return a.Equal(&b) })
}

// month compares one month.
func (p *ReplicatePlan) month(ctx context.Context, env Env, m utc.Month) (*copied, error) {
	c := &copied{month: m, keep: make(map[int32]manifests.Entry)}
	// The listing first: what is written after it is in the manifest that is read then.
	listed := make(map[object.Key]object.Attrs)
	for a, err := range p.to.List(ctx, manifests.DirOf(m)) {
		if err != nil {
			return nil, fmt.Errorf("destination: %w", err)
		}
		listed[a.Key] = a
	}
	var err error
	if c.there, c.version, err = manifests.Load(ctx, p.to, m); err == nil && c.version == "" && len(listed) > 0 {
		c.there, _, err = manifests.Adopt(ctx, p.to, m, describe)
	}
	if err != nil {
		return nil, ifCorrupt(fmt.Errorf("destination: %w", err), "`etl repair --store DESTINATION --month %s` mends it", m)
	}
	var version manifests.Version
	if c.source, version, err = manifests.Load(ctx, env.Store, m); err != nil {
		return nil, ifCorrupt(err, "`etl repair --month %s` mends it; then replicate again", m)
	}
	c.gone = version == ""
	owner := make(map[object.Key]int32)
	for i := range c.there.Points {
		e := &c.there.Points[i]
		owner[e.Path] = e.ID
		src := c.source.Entry(e.ID)
		if !p.o.Prune {
			// More samples on a day than the source has, or a number where it has
			// none: some of them it lacks. With as many, the rows decide, see mayOverwrite.
			c.refuse(e, func(n int32, i int) bool {
				return n != sample.NotArchived && (src == nil || n > src.Days[i])
			})
		}
		if src == nil && p.o.Prune && e.Path != "" {
			c.drop = append(c.drop, e.Path)
		}
	}
	for i := range c.source.Points {
		e := c.source.Points[i]
		old := c.there.Entry(e.ID)
		if e.Path == "" {
			switch {
			case old == nil || old.Path == "":
			case p.o.Prune:
				c.drop = append(c.drop, old.Path)
			case old.Samples == 0: // a file without a sample stays
				e.Path, e.Bytes, e.ETag, e.SHA256, e.RowsSHA256 = old.Path, old.Bytes, old.ETag, old.SHA256, old.RowsSHA256
			} // one with samples was refused
			c.keep[e.ID] = e
			continue
		}
		it := copyItem{entry: e, to: e.Path, old: old}
		if old != nil && old.Path != "" {
			it.to = old.Path // a point keeps its file
		}
		if id, taken := owner[it.to]; taken && id != e.ID && c.there.Entry(id) != nil && c.source.Entry(id) != nil {
			return nil, fault.Errorf(fault.Invalid, "destination: %s is the month file of point %d there, and of point %d here: the two did not come from each other", it.to, id, e.ID)
		}
		a, there := listed[it.to]
		it.there, it.size = there, a.Size
		if old != nil && old.SHA256 == e.SHA256 && there && a.Size == e.Bytes && (a.ETag == "" || a.ETag == old.ETag) {
			e.Path, e.ETag = it.to, old.ETag
			c.keep[e.ID] = e
			continue
		}
		c.copies = append(c.copies, it)
	}
	return c, p.strays(ctx, c, listed)
}

// refuse names the days of an entry of the destination that the source lacks.
func (c *copied) refuse(e *manifests.Entry, lacks func(n int32, i int) bool) {
	r := Refusal{Month: c.month.String(), PointID: e.ID, Point: e.Name}
	for i, n := range e.Days {
		if lacks(n, i) {
			r.Days = append(r.Days, c.month.First()+utc.Day(i))
		}
	}
	if len(r.Days) > 0 {
		c.refused = append(c.refused, r)
	}
}

// strays finds, for pruning, month files in the destination that no manifest of
// either side names: those of a removal that was cut off. Other objects stay.
func (p *ReplicatePlan) strays(ctx context.Context, c *copied, listed map[object.Key]object.Attrs) error {
	if !p.o.Prune {
		return nil
	}
	named := make(map[object.Key]bool)
	for _, e := range c.there.Points {
		named[e.Path] = true
	}
	for _, it := range c.copies {
		named[it.to] = true
	}
	for _, key := range sortedKeys(listed) {
		if named[key] {
			continue
		}
		data, _, err := p.to.Get(ctx, key)
		if fault.Is(err, fault.NotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("destination: %w", err)
		}
		if info, err := monthfile.Inspect(data); err == nil && info.Month == c.month {
			c.drop = append(c.drop, key)
		}
	}
	c.empty = c.gone && c.version != "" && len(c.there.Points) == 0
	return nil
}

// To gives the plan the destination again, for a caller who makes it only once
// there is something to copy.
func (p *ReplicatePlan) To(s object.Store) { p.to = s }

// ReplicateReport is what a replication did.
type ReplicateReport struct {
	Command   string `json:"command"`
	Files     int64  `json:"files_copied"`
	Bytes     int64  `json:"bytes_copied"`
	Same      int    `json:"files_same"`
	Manifests int    `json:"manifests_written"`
	Rejects   int    `json:"reject_files_copied"`
	Removed   int    `json:"files_removed"`
	// Pending are files that are newer than the source's manifest: whoever wrote
	// them commits them, or `etl repair` does, and the next replication copies them.
	Pending     []Fix     `json:"pending"`
	Failed      []Failure `json:"failed"`
	Warnings    []string  `json:"warnings"`
	Interrupted bool      `json:"interrupted"`
	Stopped     string    `json:"stopped,omitempty"`
	Elapsed     float64   `json:"elapsed_seconds"`
}

// ExitCode is 0 if the destination is now a copy, 3 if something is still to be
// copied, or the worst of what failed.
func (r *ReplicateReport) ExitCode() int {
	code := (&Report{Failed: r.Failed, Interrupted: r.Interrupted}).ExitCode(false)
	if len(r.Pending) > 0 {
		code = fault.Worse(code, fault.ExitFindings)
	}
	return code
}

// replication is a run.
type replication struct {
	*ReplicatePlan
	env    Env
	budget *semaphore.Weighted

	mu      sync.Mutex // guards what follows
	report  ReplicateReport
	prog    Progress
	fatal   error
	failing int // files in a row that could not be stored
}

// Run copies: the catalog, the rejects, and then month by month the month files
// first and the manifest, made of what was copied, last. Each file is copied only
// if its bytes are those that the source's manifest names. A cut-off run leaves a
// destination that reads correctly; the next one does the rest.
func (p *ReplicatePlan) Run(ctx context.Context, env Env) (ReplicateReport, error) {
	start := env.Now()
	r := &replication{ReplicatePlan: p, env: env, budget: semaphore.NewWeighted(p.o.Memory)}
	r.report = ReplicateReport{Command: "replicate", Same: p.Same, Pending: []Fix{}, Failed: slices.Clone(p.Failed), Warnings: []string{}}
	r.prog = Progress{NMonths: len(p.Months), PointsTotal: int64(p.Files)}
	err := p.Err()
	if err == nil {
		err = r.all(ctx)
	}
	if errors.Is(err, errStopped) || errors.Is(err, context.Canceled) {
		r.report.Interrupted, err = true, nil
	}
	r.report.Elapsed = env.Now().Sub(start).Seconds()
	return r.report, err
}

func (r *replication) all(ctx context.Context) error {
	if len(r.catalog.Points) > 0 || r.catalog.SourceID != "" {
		if _, err := manifests.Register(ctx, r.to, r.catalog.SourceID, r.catalog.Points, false); err != nil {
			return fmt.Errorf("destination: %w", err)
		}
	}
	for _, key := range r.rejects {
		if r.env.stopped() {
			return errStopped
		}
		if err := r.reject(ctx, key); err != nil {
			return err
		}
	}
	for _, s := range r.Months {
		if r.env.stopped() {
			return errStopped
		}
		r.prog.Month = s.Month
		err := r.copyMonth(ctx, s.Month)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errStopped) {
			return err
		}
		if err != nil {
			f := failure(err)
			f.Month = s.Month.String()
			r.fail(f)
			if k := fault.KindOf(err); k == fault.Unavailable {
				r.fatal = err
			}
		}
		if r.fatal != nil {
			r.report.Stopped = r.fatal.Error()
			return nil
		}
		r.prog.MonthsDone++
	}
	return nil
}

func (r *replication) fail(f Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Failed = append(r.report.Failed, f)
	r.env.notify(PointFailed{f})
}

// reject copies one file of rejects, if its bytes are those that its name says.
func (r *replication) reject(ctx context.Context, key object.Key) error {
	data, _, err := r.env.Store.Get(ctx, key)
	if fault.Is(err, fault.NotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !manifests.NamedByContent(key, data) {
		f := failure(fault.Hint(fault.Errorf(fault.Corrupt, "%s: the content is not that which its name says", key), "`etl repair` sets it aside"))
		f.Path = string(key)
		r.fail(f)
		return nil
	}
	for n := 0; ; n++ {
		_, err := r.to.Put(ctx, key, data, object.PutOptions{IfAbsent: true, Type: "application/x-ndjson"})
		switch {
		case err == nil || fault.Is(err, fault.Conflict):
			r.report.Rejects++
			return nil
		case !fault.Is(err, fault.Unknown) || n == writeAttempts:
			return fmt.Errorf("destination: %w", err)
		}
	}
}

// monthAttempts bounds how often a month is begun again because someone else
// changed the destination's manifest meanwhile.
const monthAttempts = 4

func (r *replication) copyMonth(ctx context.Context, m utc.Month) error {
	var last error
	for range monthAttempts {
		// Compared anew: the plan may be old by now.
		c, err := r.month(ctx, r.env, m)
		if err != nil {
			return err
		}
		if len(c.refused) > 0 {
			return (&ReplicatePlan{Refused: c.refused}).Err()
		}
		made, err := r.copyFiles(ctx, c)
		if err != nil {
			return err
		}
		entries := c.entries(made)
		if !c.equal(entries) {
			_, version, err := manifests.Replace(ctx, r.to, m, c.version, entries)
			if fault.Is(err, fault.Conflict) {
				last = err
				continue
			}
			if err != nil {
				return fmt.Errorf("destination: %w", err)
			}
			c.version = version
			r.mu.Lock()
			r.report.Manifests++
			r.env.notify(MonthCommitted{Month: m, Points: len(made)})
			r.mu.Unlock()
		}
		if err := r.remove(ctx, c, entries); err != nil {
			return err
		}
		if r.env.stopped() {
			return errStopped
		}
		return nil
	}
	return fault.Hint(fault.Errorf(fault.Transient, "destination: %w", last), "another job writes into the destination: let it end, and replicate again")
}

// remove deletes what the destination's manifest, which is written by now, names
// no more.
func (r *replication) remove(ctx context.Context, c *copied, entries []manifests.Entry) error {
	if !r.o.Prune {
		return nil
	}
	named := make(map[object.Key]bool)
	for _, e := range entries {
		named[e.Path] = true
	}
	for _, key := range c.drop {
		if named[key] {
			continue
		}
		if err := object.Delete(ctx, r.to, key); err != nil {
			return fmt.Errorf("destination: %w", err)
		}
		r.report.Removed++
	}
	if c.gone && len(entries) == 0 && c.version != "" {
		if err := object.Delete(ctx, r.to, manifests.KeyOf(c.month)); err != nil {
			return fmt.Errorf("destination: %w", err)
		}
	}
	return nil
}

// copyFiles copies the month files of a month and returns the destination's
// entries of those that are there now. Failures are in the report.
func (r *replication) copyFiles(ctx context.Context, c *copied) (map[int32]manifests.Entry, error) {
	made := make(map[int32]manifests.Entry)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.o.Workers)
	for _, it := range c.copies {
		if r.env.stopped() || r.dead() || gctx.Err() != nil {
			break
		}
		weight := it.entry.Bytes
		if it.there {
			weight += it.size + 2*it.entry.Samples*sample.RowBytes // to compare their rows
		}
		weight = max(1, min(weight, r.o.Memory))
		if err := r.budget.Acquire(gctx, weight); err != nil {
			break
		}
		g.Go(func() error {
			defer r.budget.Release(weight)
			e, err := r.copyFile(gctx, c, it)
			if gctx.Err() != nil {
				return gctx.Err()
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.prog.PointsDone++
			switch {
			case err != nil:
				f := failure(err)
				f.Month, f.PointID, f.Point, f.Path = c.month.String(), it.entry.ID, it.entry.Name, string(it.entry.Path)
				r.report.Failed = append(r.report.Failed, f)
				r.env.notify(PointFailed{f})
				switch fault.KindOf(err) {
				case fault.Unavailable:
					r.fatal = err
				case fault.Transient, fault.Unknown:
					if r.failing++; r.failing >= stuck {
						r.fatal = fmt.Errorf("%d files in a row could not be copied: %w", r.failing, err)
					}
				}
			case e != nil:
				made[e.ID] = *e
				r.failing = 0
			}
			r.prog.Files, r.prog.Bytes = r.report.Files, r.report.Bytes
			r.env.notify(r.prog)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return made, ctx.Err()
}

func (r *replication) dead() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fatal != nil
}

// ifCorrupt adds a hint to what only a repair mends: not to a store that can not be
// reached, which has a hint of its own.
func ifCorrupt(err error, format string, a ...any) error {
	if fault.Is(err, fault.Corrupt) {
		return fault.Hint(err, format, a...)
	}
	return err
}

// copyFile copies one month file. It returns nil without an error for one that
// is left for the next run.
func (r *replication) copyFile(ctx context.Context, c *copied, it copyItem) (*manifests.Entry, error) {
	data, e, err := r.fetch(ctx, c, it.entry)
	if err != nil || data == nil {
		return nil, err
	}
	info, err := monthfile.Inspect(data)
	if err != nil {
		return nil, fault.Hint(fmt.Errorf("%s: %w", e.Path, err), "`etl repair --month %s` mends it; then replicate again", c.month)
	}
	meta := objectMeta(info)
	done := func(etag string) (*manifests.Entry, error) {
		e.Path, e.ETag = it.to, etag
		return &e, nil
	}
	there := it.there
	for range writeAttempts {
		o := object.PutOptions{IfAbsent: true, Meta: meta, Type: "application/vnd.apache.parquet"}
		if there {
			old, attrs, err := r.to.Get(ctx, it.to)
			switch {
			case fault.Is(err, fault.NotExist):
			case err != nil:
				return nil, fmt.Errorf("destination: %w", err)
			case slices.Equal(old, data):
				return done(attrs.ETag) // an earlier run's, or this one's, whose answer was lost
			default:
				if err := r.mayOverwrite(ctx, c.month, e, it.to, data, old); err != nil {
					return nil, fmt.Errorf("destination: %w", err)
				}
				o.IfAbsent, o.IfMatch = false, attrs.ETag
			}
		}
		attrs, err := r.to.Put(ctx, it.to, data, o)
		switch {
		case err == nil:
			r.mu.Lock()
			r.report.Files++
			r.report.Bytes += int64(len(data))
			r.mu.Unlock()
			return done(attrs.ETag)
		case !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Unknown):
			return nil, fmt.Errorf("destination: %w", err)
		}
		there = true
	}
	return nil, fault.Errorf(fault.Transient, "destination: %s: other writers replaced it %d times in a row", it.to, writeAttempts)
}

// fetch reads the month file of an entry of the source and proves it by its
// hash. If that is another, the source's manifest is read again, once; a whole
// file that is newer than that is left for the next run: data is nil then.
func (r *replication) fetch(ctx context.Context, c *copied, e manifests.Entry) ([]byte, manifests.Entry, error) {
	for again := range 2 {
		data, _, err := r.env.Store.Get(ctx, e.Path)
		if err != nil && !fault.Is(err, fault.NotExist) {
			return nil, e, err
		}
		if sum := sha256.Sum256(data); err == nil && hex.EncodeToString(sum[:]) == e.SHA256 {
			return data, e, nil
		}
		if again == 0 {
			man, _, err := manifests.Load(ctx, r.env.Store, c.month)
			if err != nil {
				return nil, e, err
			}
			if now := man.Entry(e.ID); now != nil && now.Path != "" {
				// What the destination counts was compared with the entry before.
				if old := c.there.Entry(e.ID); old != nil && old.Days.Archived()&^now.Days.Archived() != 0 && !r.o.Prune {
					return nil, e, fault.Errorf(fault.Conflict, "%s: the source's manifest changed meanwhile", e.Path)
				}
				e = *now
			}
			continue
		}
		if err != nil {
			return nil, e, fault.Hint(fault.Errorf(fault.Corrupt, "%s: the manifest names this file, but it is not there", e.Path), "`etl repair --month %s` mends it; then replicate again", c.month)
		}
		var rows sample.Series
		info, derr := monthfile.NewDecoder().Timed(r.env.Timing).Decode(data, &rows)
		if derr != nil || info.PointID != e.ID || info.Month != c.month {
			return nil, e, fault.Hint(fault.Errorf(fault.Corrupt, "%s: the bytes are not those that were archived", e.Path), "`etl repair --month %s` mends it; then replicate again", c.month)
		}
		r.mu.Lock()
		r.report.Pending = append(r.report.Pending, Fix{Action: "left", Month: c.month.String(), PointID: e.ID, Point: e.Name, Path: string(e.Path),
			Text: "a whole, newer version than the manifest names: the next replication copies it, once it is committed"})
		r.mu.Unlock()
	}
	return nil, e, nil
}

// mayOverwrite refuses to write over what the source can not give back: rows that
// it lacks, or another point's file. What can not be read is set aside first.
func (r *replication) mayOverwrite(ctx context.Context, m utc.Month, e manifests.Entry, key object.Key, data, old []byte) error {
	var theirs, ours sample.Series
	dec := monthfile.NewDecoder().Timed(r.env.Timing)
	info, err := dec.Decode(old, &theirs)
	if err != nil && unreadable(err) {
		_, err := manifests.SetAside(ctx, r.to, key, old)
		return err
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if info.PointID != e.ID || info.Month != m {
		return fault.Hint(fault.Errorf(fault.Invalid, "%s: it holds point %d, %s, and would be overwritten by point %d", key, info.PointID, info.Month, e.ID),
			"move it away, and replicate again")
	}
	if r.o.Prune {
		return nil
	}
	if _, err := dec.DecodeTrusted(data, &ours); err != nil {
		return err
	}
	i, lacks := 0, 0
	var first int64
	for _, ts := range theirs.TS {
		for i < len(ours.TS) && ours.TS[i] < ts {
			i++
		}
		if i == len(ours.TS) || ours.TS[i] != ts {
			if lacks++; lacks == 1 {
				first = ts
			}
		}
	}
	if lacks > 0 {
		return fault.Hint(fault.Errorf(fault.Invalid, "%s: refused: it holds %d samples of point %d %s that the source lacks, the first on %s", key, lacks, e.ID, e.Name, utc.DayOf(first)),
			"`etl repair --replica DESTINATION` or a `rearchive` brings them into the source; --prune-destination removes them from the destination")
	}
	return nil
}
