package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"etl/internal/fault"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/manifests"
)

// PruneOptions say what may leave the hot tier. The zero value of each is its default.
type PruneOptions struct {
	Days      utc.Days // the zero value is all that is old enough
	Points    Points
	OlderThan int   // days, default 35
	MaxRows   int64 // stop after about so many rows; 0 is no limit

	Workers int   // month files that are read at a time, default 4
	Memory  int64 // bytes of samples that are being decoded, default 256 MiB
	Pace    Pace

	heartbeat time.Duration // shorter in tests
	chunk     int64         // chunkSamples, smaller in tests
}

func (o *PruneOptions) defaults() {
	if o.OlderThan == 0 {
		o.OlderThan = HotWindow
	}
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.Memory == 0 {
		o.Memory = 256 << 20
	}
	if o.heartbeat == 0 {
		o.heartbeat = heartbeat
	}
	if o.chunk == 0 {
		o.chunk = chunkSamples
	}
}

// Deferral is a reason why (point, day)s stay in the hot tier.
type Deferral struct {
	Reason    string `json:"reason"`
	PointDays int64  `json:"point_days"`
	Rows      int64  `json:"rows,omitempty"` // 0 where they were not counted
	FirstDay  string `json:"first_day"`
	LastDay   string `json:"last_day"`
	Example   string `json:"example"` // the first point of it
	Text      string `json:"text"`
	Remedy    string `json:"remedy"`
}

// reasons to defer, in the order of reports. FROM, TO and MONTH stand for the range of it.
var reasons = []struct{ reason, text, remedy string }{
	{"unarchived", "the archive does not hold the day", "etl backfill --from FROM --to TO"},
	{"unmarked", "archived, but rows arrived or changed since, or it was restored", "etl rearchive --from FROM --to TO"},
	{"claimed", "a run is archiving it, or died doing so", "etl rearchive --from FROM --to TO"},
	{"damaged", "the month file is damaged or missing", "etl repair --month MONTH"},
	{"pending", "the month file is newer than the manifest: a run is at work, or was cut off", "etl rearchive --from FROM --to TO"},
	{"rejects", "it holds rows that can not be archived", "etl rejects"},
	{"differs", "marked, but rows of it are not in the month file as they are here", "etl rearchive --from FROM --to TO"},
	{"changed", "rows, mark or month file changed while it was compared", "run it again"},
}

// deferrals collects them.
type deferrals map[string]*deferred

type deferred struct {
	slices, rows int64
	first, last  utc.Day
	example      string
}

func (d deferrals) add(reason, name string, m utc.Month, days utc.Set, rows int64) {
	runs := days.Runs(m)
	if len(runs) == 0 {
		return
	}
	r := d[reason]
	if r == nil {
		r = &deferred{first: runs[0].From, last: runs[len(runs)-1].To - 1, example: name}
		d[reason] = r
	}
	r.slices += int64(days.Len())
	r.rows += rows
	r.first, r.last = min(r.first, runs[0].From), max(r.last, runs[len(runs)-1].To-1)
}

func (d deferrals) list() []Deferral {
	list := []Deferral{}
	for _, r := range reasons {
		if x := d[r.reason]; x != nil {
			remedy := strings.NewReplacer("FROM", x.first.String(), "TO", (x.last + 1).String(), "MONTH", x.first.Month().String()).Replace(r.remedy)
			list = append(list, Deferral{r.reason, x.slices, x.rows, x.first.String(), x.last.String(), x.example, r.text, remedy})
		}
	}
	return list
}

// PrunePlan is what prune will do. It is run at most once.
type PrunePlan struct {
	OlderThan int          `json:"older_than_days"`
	Before    utc.Day      `json:"before"`    // only days before it are old enough
	FirstDay  *utc.Day     `json:"first_day"` // of what is to go; null if nothing is
	LastDay   *utc.Day     `json:"last_day"`
	Points    int          `json:"points"` // chosen points
	Months    []PruneMonth `json:"months"`
	PointDays int64        `json:"point_days"`
	// Rows is how many the archive has of these days: so many go, or fewer, for
	// each is compared first.
	Rows     int64      `json:"rows"`
	Deferred []Deferral `json:"deferred"`
	Estimate Estimate   `json:"estimate"`
	Warnings []string   `json:"warnings"`
	// Failed are the months whose manifest can not be read.
	Failed []Failure     `json:"failed"`
	Billed *source.Usage `json:"billed,omitempty"`

	opts     PruneOptions
	rng      utc.Days
	names    map[int32]string
	ids      []int32
	span     map[int32]utc.Days // from the first to the last day that the hot tier has a row on
	deferred deferrals
}

// PruneMonth is a month of a plan.
type PruneMonth struct {
	Month     utc.Month `json:"month"`
	FirstDay  utc.Day   `json:"first_day"`
	LastDay   utc.Day   `json:"last_day"`
	Points    int       `json:"points"`
	PointDays int64     `json:"point_days"`
	Rows      int64     `json:"rows"`
}

// ExitCode is 0, or 4 if the manifest of a month is corrupt.
func (p *PrunePlan) ExitCode() int {
	code := fault.ExitOK
	for _, f := range p.Failed {
		code = fault.Worse(code, fault.ExitCode(f.err))
	}
	return code
}

// Empty reports whether there is nothing to do.
func (p *PrunePlan) Empty() bool { return p.PointDays == 0 }

// PlanPrune works out which (point, day)s may leave the hot tier. It changes
// nothing and looks into no month file, but a few for the estimate.
func PlanPrune(ctx context.Context, env Env, o PruneOptions) (*PrunePlan, error) {
	o.defaults()
	switch {
	case o.OlderThan < 1 || o.MaxRows < 0:
		return nil, fault.Errorf(fault.Usage, "prune: older than %d days, at most %d rows: want a day at least, and no negative number", o.OlderThan, o.MaxRows)
	case env.Ledger == nil:
		return nil, fault.Hint(fault.Errorf(fault.Usage, "prune: without the ledger nothing may leave the hot tier: it can not be told whether a day changed since it was archived"),
			"leave out --no-state; `etl migrate` makes the ledger")
	}
	if _, ok := env.Source.(source.Pruner); !ok {
		return nil, fault.Errorf(fault.Usage, "prune: nothing can be deleted from this source")
	}
	info, err := env.Source.Info(ctx)
	if err != nil {
		return nil, err
	}
	now := clock(info.Now, env.Now())
	p := &PrunePlan{OlderThan: o.OlderThan, Before: utc.DayOfTime(now) - utc.Day(o.OlderThan), Months: []PruneMonth{}, Warnings: []string{}, Failed: []Failure{},
		opts: o, deferred: make(deferrals), names: make(map[int32]string), span: make(map[int32]utc.Days)}
	p.rng = utc.Days{From: source.Earliest, To: p.Before}
	if o.Days != (utc.Days{}) {
		if o.Days.To > p.Before {
			return nil, fault.Hint(fault.Errorf(fault.Usage, "prune: the range ends with %s, but only days before %s are older than %d days", o.Days.To-1, p.Before, o.OlderThan),
				"use --to %s or earlier (--to is exclusive), or a smaller --older-than", p.Before)
		}
		p.rng = o.Days
	}
	catalog, _, err := manifests.LoadPoints(ctx, env.Store)
	if err != nil {
		return nil, err
	}
	if err := catalog.Accepts(info.ID, false); err != nil {
		return nil, fmt.Errorf("prune: the ledger says nothing of this archive: %w", err)
	}
	all, _, err := env.Source.Points(ctx)
	if err != nil {
		return nil, err
	}
	chosen, err := o.Points.filter(ctx, env.Source, all)
	if err != nil {
		return nil, err
	}
	p.Points = len(chosen)
	for _, c := range chosen {
		p.ids, p.names[c.ID] = append(p.ids, c.ID), c.Name
	}
	// Days before the first row of a point, or after its last, have nothing that could go.
	if s, ok := env.Source.(source.Summarizer); ok {
		if err := s.Summaries(ctx, p.ids, func(id int32, s source.Summary) {
			p.span[id] = utc.Days{}
			if s.Rows != 0 {
				p.span[id] = utc.Days{From: utc.DayOf(s.First), To: utc.DayOf(s.Last) + 1}
			}
		}); err != nil {
			return nil, err
		}
	}
	months, err := manifests.Months(ctx, env.Store)
	if err != nil {
		return nil, err
	}
	var looks []monthShares
	for _, m := range months {
		if m.Days().Intersect(p.rng).Empty() {
			continue
		}
		some, err := p.month(ctx, env, m)
		if err != nil {
			return nil, err
		}
		if some != nil {
			looks = append(looks, monthShares{m, some})
		}
	}
	if len(months) > 0 {
		before := 0
		for _, id := range p.ids {
			if r := p.span[id]; !r.Empty() && r.From >= source.Earliest && r.From < min(months[0].First(), p.Before) {
				before++
			}
		}
		if before > 0 {
			p.Warnings = append(p.Warnings, fmt.Sprintf("%d points have rows older than the first archived month, %s; they stay: `etl backfill` archives them", before, months[0]))
		}
	}
	p.Deferred = p.deferred.list()
	return p, p.estimate(ctx, env, looks)
}

// month adds what may go of a month and returns one share of it as an example.
func (p *PrunePlan) month(ctx context.Context, env Env, m utc.Month) ([]share, error) {
	shares, err := p.shares(ctx, env, m, p.deferred)
	if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid) {
		f := failure(err)
		f.Month = m.String()
		p.Failed = append(p.Failed, f)
		return nil, nil
	}
	if err != nil || len(shares) == 0 {
		return nil, err
	}
	pm := PruneMonth{Month: m, Points: len(shares)}
	var union utc.Set
	for i := range shares {
		pm.PointDays += int64(shares[i].days.Len())
		pm.Rows += shares[i].samples()
		union |= shares[i].days
	}
	runs := union.Runs(m)
	pm.FirstDay, pm.LastDay = runs[0].From, runs[len(runs)-1].To-1
	p.Months = append(p.Months, pm)
	p.PointDays += pm.PointDays
	p.Rows += pm.Rows
	if p.FirstDay == nil {
		p.FirstDay = new(pm.FirstDay)
	}
	p.LastDay = new(pm.LastDay)
	return shares[len(shares)/2 : len(shares)/2+1], nil
}

// shares are the points of a month with the marked days of the range that have
// samples. The others are added to d, if they have rows; d may be nil.
func (p *PrunePlan) shares(ctx context.Context, env Env, m utc.Month, d deferrals) ([]share, error) {
	rng := p.rng.Intersect(m.Days())
	asked := utc.SetOf(m, rng)
	man, _, err := manifests.Load(ctx, env.Store, m)
	if err != nil {
		return nil, err
	}
	var state [3]map[int32]utc.Set
	for i := range state {
		state[i] = make(map[int32]utc.Set)
	}
	if err := env.Ledger.Marks(ctx, p.ids, rng, func(mk source.Mark) {
		state[mk.State][mk.Point] = state[mk.State][mk.Point].With(int(mk.Day - m.First()))
	}); err != nil {
		return nil, err
	}
	var shares []share
	stay := make(map[string]*MonthPlan)
	for _, reason := range []string{"unarchived", "unmarked", "claimed"} {
		stay[reason] = &MonthPlan{Month: m}
	}
	keep := func(reason string, id int32, days utc.Set) {
		if days != 0 {
			stay[reason].want = append(stay[reason].want, want{point: id, days: days})
		}
	}
	for _, id := range p.ids {
		held := asked
		if r, ok := p.span[id]; ok {
			held &= utc.SetOf(m, r.Intersect(m.Days()))
		}
		var archived, some utc.Set
		e := man.Entry(id)
		if e != nil {
			archived = e.Days.Archived()
			for i, n := range e.Days {
				if n > 0 {
					some = some.With(i)
				}
			}
		}
		claimed, marked, gone := state[source.Claimed][id], state[source.Marked][id], state[source.Trimmed][id]
		held &^= gone
		keep("claimed", id, held&claimed)
		keep("unarchived", id, held&^archived&^claimed)
		keep("unmarked", id, held&archived&^marked&^claimed)
		// A marked day without archived samples has no rows, or the mark lies;
		// either way there is nothing that may go.
		if days := held & marked & archived & some; days != 0 {
			shares = append(shares, share{*e, days})
		}
	}
	if d == nil {
		return shares, nil
	}
	for reason, mp := range stay {
		if err := p.count(ctx, env, mp, reason, d); err != nil {
			return nil, err
		}
	}
	return shares, nil
}

// count adds those days to d that have rows: days in a row of which one has count
// as one. It reads the rows, as the source bills it.
func (p *PrunePlan) count(ctx context.Context, env Env, mp *MonthPlan, reason string, d deferrals) error {
	for _, b := range mp.batches() {
		for _, days := range b.days.Runs(mp.Month) {
			counts, err := env.Source.Count(ctx, source.Query{Points: b.points, Days: days})
			if err != nil {
				return err
			}
			for _, id := range b.points {
				if n := counts[id]; n > 0 {
					d.add(reason, p.names[id], mp.Month, utc.SetOf(mp.Month, days), n)
				}
			}
		}
	}
	return nil
}

func (p *PrunePlan) estimate(ctx context.Context, env Env, looks []monthShares) error {
	p.Billed = env.Billed()
	if p.Billed == nil {
		return nil
	}
	e := &p.Estimate
	var err error
	if e.Alarms, err = alarmShare(ctx, newColdFiles(env, p.opts.Workers, p.opts.Memory), looks); err != nil {
		return err
	}
	rows := p.Rows
	if p.opts.MaxRows > 0 {
		rows = min(rows, p.opts.MaxRows)
	}
	parts := rows/p.opts.chunk + p.PointDays/batchSlices + int64(len(p.Months))
	// Of each slice its mark and its line in archive_trims.
	e.RowsWritten = rows + int64(e.Alarms*float64(rows)) + 2*p.PointDays
	e.RowsRead = 8 * rows // 2 to compare, 6 by the statements that count and delete; measured
	e.Requests = 2*parts + rows/readRows + rows/pruneRows
	e.finish(p.opts.Pace)
	return nil
}

// PruneReport is what a prune did.
type PruneReport struct {
	Command  string `json:"command"`
	Run      string `json:"run"`
	Bookmark string `json:"bookmark,omitempty"` // of before, where the source has Time Travel

	PointDays int64 `json:"point_days"` // (point, day)s that are out of the hot tier
	Rows      int64 `json:"rows"`       // rows that they had
	Compared  int64 `json:"rows_compared"`
	Empty     int64 `json:"point_days_empty"` // marked, and had no rows
	FilesRead int64 `json:"files_read"`

	Deferred    []Deferral    `json:"deferred"`
	Elapsed     float64       `json:"elapsed_seconds"`
	Failed      []Failure     `json:"failed"`
	Warnings    []string      `json:"warnings"`
	Limited     bool          `json:"limited"` // it stopped at MaxRows
	Interrupted bool          `json:"interrupted"`
	Stopped     string        `json:"stopped,omitempty"`
	Billed      *source.Usage `json:"billed,omitempty"`
}

// ExitCode is the worst of what happened. A marked day that differs is a finding;
// other days that stay are not, for a later run takes them.
func (r *PruneReport) ExitCode() int {
	code := exitCode(r.Failed, r.Interrupted)
	for _, d := range r.Deferred {
		if d.Reason == "differs" {
			code = fault.Worse(code, fault.ExitFindings)
		}
	}
	return code
}

// pruning is a prune that runs.
type pruning struct {
	env      Env
	plan     *PrunePlan
	pruner   source.Pruner
	files    *coldFiles
	run      string
	start    time.Time
	mu       sync.Mutex
	report   PruneReport
	prog     Progress
	deferred deferrals
}

// Run does what the plan says. The error is nil unless the job could not begin or
// could not go on at all; the rest is in the report, which is valid in any case.
//
// INVARIANT: rows leave the hot tier only if, in this order, their day was seen
// marked by a run; the bytes of the month file were read and are those that the
// manifest names; every row of the day was read from the hot tier and equals a
// row of that file, bit for bit; and, in the statement that deletes, the mark is
// still that run's and the rows are as many as were compared.
//
// Nothing can get in between. A row inserted or updated after the mark was seen
// takes the mark away, by trigger, and another mark has another run; a row deleted
// changes the number. On the other side, month files and manifests are replaced by
// unions: a timestamp that they held they hold, unless somebody makes a source
// authoritative (rearchive --replace), which claims the day first, so that the mark
// is another one, or takes a day that was already pruned for protected. Another
// value wins only if somebody says so (rearchive --input). Repair revokes the mark
// before it sets a file aside. The manifest is read once more before the delete all
// the same: a file that was replaced since is left for the next run.
func (p *PrunePlan) Run(ctx context.Context, env Env) (PruneReport, error) {
	r := &pruning{env: env, plan: p, pruner: env.Source.(source.Pruner), files: newColdFiles(env, p.opts.Workers, p.opts.Memory),
		start: env.Now(), deferred: make(deferrals)}
	r.run = newRunID(r.start)
	r.report = PruneReport{Command: "prune", Run: r.run, Failed: []Failure{}, Warnings: []string{}}
	r.prog = Progress{SlicesTotal: p.PointDays, NMonths: len(p.Months)}
	for _, m := range p.Months {
		r.prog.PointsTotal += int64(m.Points)
	}
	for reason, d := range p.deferred {
		r.deferred[reason] = new(*d)
	}
	for _, f := range p.Failed {
		r.fail(f)
	}
	err := r.all(ctx)
	r.report.Deferred = r.deferred.list()
	r.report.Elapsed = env.Now().Sub(r.start).Seconds()
	endLog(ctx, env.Journal, r.line, env.Now(), r.report.ExitCode(), err, firstError(r.report.Failed), r.warn)
	r.report.Billed = env.Billed()
	return r.report, err
}

func (r *pruning) line() source.Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := source.Run{ID: r.run, Command: "prune", Status: "running", Started: r.start, Records: r.report.Rows}
	if r.plan.FirstDay != nil {
		l.Days = utc.Days{From: *r.plan.FirstDay, To: *r.plan.LastDay + 1}
	}
	return l
}

func (r *pruning) fail(f Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Failed = append(r.report.Failed, f)
	r.env.notify(PointFailed{f})
}

func (r *pruning) warn(format string, a ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := fmt.Sprintf(format, a...)
	r.report.Warnings = append(r.report.Warnings, text)
	r.env.notify(Warning{text})
}

func (r *pruning) all(ctx context.Context) error {
	for _, w := range r.plan.Warnings {
		r.warn("%s", w)
	}
	if r.plan.Empty() {
		return nil
	}
	stop, err := startLog(ctx, r.env.Journal, r.plan.opts.heartbeat, r.line, r.warn)
	if err != nil {
		return err
	}
	defer stop()
	if r.report.Bookmark, err = bookmark(ctx, r.env); err != nil {
		return err
	}
	for _, pm := range r.plan.Months {
		r.prog.Month = pm.Month
		err := r.month(ctx, pm.Month)
		switch {
		case errors.Is(err, errEnough):
			r.report.Limited = true
			return nil
		case errors.Is(err, errStopped) || errors.Is(err, context.Canceled):
			r.report.Interrupted = true
			return nil
		case err == nil:
		case fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid):
			f := failure(err)
			f.Month = pm.Month.String()
			r.fail(f)
		default:
			f := failure(err)
			f.Month = pm.Month.String()
			r.fail(f)
			r.report.Stopped = err.Error()
			return nil
		}
		r.prog.MonthsDone++
	}
	return nil
}

// errEnough ends a run that has deleted as much as it may.
var errEnough = errors.New("as many rows as were asked for")

func (r *pruning) month(ctx context.Context, m utc.Month) error {
	// As of now, for a plan may be old; what has no mark was told of by the plan.
	shares, err := r.plan.shares(ctx, r.env, m, nil)
	if err != nil {
		return err
	}
	most := r.plan.opts.chunk
	if r.plan.opts.MaxRows > 0 {
		most = min(most, r.plan.opts.MaxRows)
	}
	for _, some := range cutShares(shares, most) {
		switch {
		case r.env.stopped():
			return errStopped
		case r.plan.opts.MaxRows > 0 && r.report.Rows >= r.plan.opts.MaxRows:
			return errEnough
		}
		if err := r.part(ctx, m, some); err != nil {
			return err
		}
	}
	return nil
}

// part compares some points of a month and deletes what may go.
func (r *pruning) part(ctx context.Context, m utc.Month, shares []share) error {
	p, err := r.files.load(ctx, m, shares)
	if err != nil {
		return err
	}
	marks, err := p.marks(ctx, r.env.Ledger) // before the rows
	if err != nil {
		return err
	}
	ready := make(map[*face]utc.Set)
	for _, f := range p.faces {
		if f.err != nil {
			r.deferred.add("damaged", r.plan.names[f.point], m, f.days, 0)
			fl := failure(fmt.Errorf("%s %s: %w", r.plan.names[f.point], m, f.err))
			fl.Month, fl.PointID, fl.Point, fl.Path = m.String(), f.point, r.plan.names[f.point], string(f.entry.Path)
			r.fail(fl)
			continue
		}
		if f.pending {
			r.deferred.add("pending", r.plan.names[f.point], m, f.days, 0)
			continue
		}
		for i := range m.Len() {
			mk, ok := marks[source.Slice{Point: f.point, Day: m.First() + utc.Day(i)}]
			switch {
			case !f.days.Has(i) || ok && mk.State == source.Trimmed: // by the retention trigger, just now
			case ok && mk.State == source.Marked:
				ready[f] = ready[f].With(i)
			default:
				r.deferred.add("changed", r.plan.names[f.point], m, utc.Set(0).With(i), 0)
			}
		}
	}
	if err := p.compare(ctx, r.env.Source, func(f *face) utc.Set { return ready[f] }); err != nil {
		return err
	}
	// A row that came after the marks were read took its mark away: the day changed,
	// and is no finding.
	now := marks
	if slices.ContainsFunc(p.faces, func(f *face) bool { return f.differs(ready[f]) }) {
		if now, err = p.marks(ctx, r.env.Ledger); err != nil {
			return err
		}
	}
	cuts := r.cuts(p, ready, marks, now)
	if len(cuts) > 0 {
		if cuts, err = r.still(ctx, p, cuts); err != nil {
			return err
		}
	}
	var cut []source.Slice
	var rows int64
	if len(cuts) > 0 {
		cut, rows, err = r.pruner.Prune(ctx, cuts)
	}
	r.settle(p, cuts, cut, rows, err)
	return err
}

// differs reports whether the hot tier has a row of one of the days that is not
// archived as it is there.
func (f *face) differs(days utc.Set) bool {
	for i := range f.hot {
		if days.Has(i) && (f.hot[i].extra > 0 || f.hot[i].differs > 0) {
			return true
		}
	}
	return false
}

// cuts are the days of which every row equals an archived one. The marks are those
// before and after the rows were read.
func (r *pruning) cuts(p *part, ready map[*face]utc.Set, marks, now map[source.Slice]source.Mark) []source.Cut {
	var cuts []source.Cut
	for _, f := range p.faces {
		for i := range p.month.Len() {
			if !ready[f].Has(i) {
				continue
			}
			t, day := f.hot[i], utc.Set(0).With(i)
			r.mu.Lock()
			r.report.Compared += t.rows
			r.mu.Unlock()
			sl := source.Slice{Point: f.point, Day: p.month.First() + utc.Day(i)}
			switch {
			case t.rejects > 0:
				r.deferred.add("rejects", r.plan.names[f.point], p.month, day, t.rows+t.rejects)
			case f.differs(day) && now[sl] != marks[sl]:
				r.deferred.add("changed", r.plan.names[f.point], p.month, day, t.rows)
			case f.differs(day):
				r.deferred.add("differs", r.plan.names[f.point], p.month, day, t.rows)
			case t.rows == 0:
				r.report.Empty++
			default:
				cuts = append(cuts, source.Cut{Slice: sl, Run: marks[sl].Run, Rows: t.rows})
			}
		}
	}
	return cuts
}

// still leaves out the cuts whose month file was replaced since it was read.
func (r *pruning) still(ctx context.Context, p *part, cuts []source.Cut) ([]source.Cut, error) {
	man, _, err := manifests.Load(ctx, r.env.Store, p.month)
	if err != nil {
		return nil, err
	}
	byID := make(map[int32]*face, len(p.faces))
	for _, f := range p.faces {
		byID[f.point] = f
	}
	return slices.DeleteFunc(cuts, func(c source.Cut) bool {
		f, e := byID[c.Point], man.Entry(c.Point)
		i := int(c.Day - p.month.First())
		if e != nil && e.SHA256 == f.entry.SHA256 && e.Days[i] == f.entry.Days[i] {
			return false
		}
		r.deferred.add("changed", r.plan.names[c.Point], p.month, utc.Set(0).With(i), c.Rows)
		return true
	}), nil
}

// settle adds a part to the report. After an error only what is known to be cut counts.
func (r *pruning) settle(p *part, cuts []source.Cut, cut []source.Slice, rows int64, err error) {
	gone := make(map[source.Slice]bool, len(cut))
	for _, s := range cut {
		gone[s] = true
	}
	if err == nil {
		for _, c := range cuts {
			if !gone[c.Slice] {
				r.deferred.add("changed", r.plan.names[c.Point], p.month, utc.Set(0).With(int(c.Day-p.month.First())), c.Rows)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.PointDays += int64(len(cut))
	r.report.Rows += rows
	for _, f := range p.faces {
		r.prog.SlicesDone += int64(f.days.Len())
		r.prog.PointsDone++
		r.report.FilesRead++
		r.prog.Bytes += f.entry.Bytes
		r.prog.Rows += int64(f.cold.Len())
	}
	r.env.notify(r.prog)
}
