package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/manifests"
)

// RestoreOptions say what restore takes back into the hot tier. The zero value of
// each but Days is its default.
type RestoreOptions struct {
	Days   utc.Days // needed
	Points Points
	// Overwrite lets the archived row win where the hot tier has another one;
	// else that stays.
	Overwrite bool
	// MarkOld marks days, too, that are old enough for the retention trigger to
	// take them out again.
	MarkOld bool
	// ID is the run's id in the log; "" for a new one.
	ID string

	Workers int   // month files that are read at a time, default 4
	Memory  int64 // bytes of samples that are being decoded, default 256 MiB
	Pace    Pace

	heartbeat time.Duration // shorter in tests
	chunk     int64         // chunkSamples, smaller in tests
}

func (o *RestoreOptions) defaults() {
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

// RestorePlan is what restore will do. It is run at most once.
type RestorePlan struct {
	FirstDay *utc.Day `json:"first_day"` // archived days of the range; null if there are none
	LastDay  *utc.Day `json:"last_day"`
	Points   int      `json:"points"` // chosen points
	// NewPoints are the names of those that the hot tier lacks: they are made, with their ids.
	NewPoints []string       `json:"new_points"`
	Months    []RestoreMonth `json:"months"` // only months with something to do
	PointDays int64          `json:"point_days"`
	// Samples are in the archive; those that the hot tier has already are only read.
	Samples int64 `json:"samples"`
	// Old are the (point, day)s that the retention trigger would take, were they
	// marked; they are left unmarked unless that was asked for.
	Old int64 `json:"point_days_old"`
	// ColdEnd is the day on which the archive ends: what came since its first
	// moment is in the hot tier and its Time Travel alone.
	ColdEnd *utc.Day `json:"archive_ends_before"`
	// Behind are the points whose archive ends before that day.
	Behind   int       `json:"points_behind"`
	Now      time.Time `json:"now"` // the earlier of the source's clock and this machine's
	Bytes    int64     `json:"estimated_bytes"`
	Estimate Estimate  `json:"estimate"`
	Warnings []string  `json:"warnings"`
	// Failed are the months whose manifest can not be read.
	Failed []Failure     `json:"failed"`
	Billed *source.Usage `json:"billed,omitempty"`

	opts   RestoreOptions
	chosen map[int32]string // names by id
	make   []sample.Point
}

// RestoreMonth is a month of a plan.
type RestoreMonth struct {
	Month     utc.Month `json:"month"`
	FirstDay  utc.Day   `json:"first_day"`
	LastDay   utc.Day   `json:"last_day"`
	Points    int       `json:"points"`
	PointDays int64     `json:"point_days"`
	Samples   int64     `json:"samples"`
}

// ExitCode is 0, or 4 if a month can not be restored because its manifest is corrupt.
func (p *RestorePlan) ExitCode() int {
	code := fault.ExitOK
	for _, f := range p.Failed {
		code = fault.Worse(code, fault.ExitCode(f.err))
	}
	return code
}

// Empty reports whether there is nothing to do.
func (p *RestorePlan) Empty() bool { return p.PointDays == 0 && len(p.make) == 0 }

// hotRowBytes is what a row takes in D1: 25 to 31 bytes, measured.
const hotRowBytes = 28

// d1Bytes is the size that a D1 database can not exceed.
const d1Bytes = 10e9

// PlanRestore works out what there is to restore. It changes nothing.
func PlanRestore(ctx context.Context, env Env, o RestoreOptions) (*RestorePlan, error) {
	o.defaults()
	if o.Days == (utc.Days{}) {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "restore: which days?"),
			"give --day 2024-01-05, --month 2024-01, --last 7d, or --from 2024-01-05 --to 2024-02-01 (--to is exclusive)")
	}
	if _, ok := env.Source.(source.Restorer); !ok {
		return nil, fault.Errorf(fault.Usage, "restore: this source can not be written")
	}
	info, err := env.Source.Info(ctx)
	if err != nil {
		return nil, err
	}
	p := &RestorePlan{NewPoints: []string{}, Months: []RestoreMonth{}, Warnings: []string{}, Failed: []Failure{}, opts: o, Now: clock(info.Now, env.Now())}
	catalog, version, err := manifests.LoadPoints(ctx, env.Store)
	if err != nil {
		return nil, err
	}
	months, err := manifests.Months(ctx, env.Store)
	if err != nil {
		return nil, err
	}
	all := catalog.Points
	if version == "" {
		if all, err = p.pointsOf(ctx, env, months); err != nil {
			return nil, err
		}
	}
	if err := p.choose(ctx, env, all); err != nil {
		return nil, err
	}
	if id := catalog.SourceID; id != "" && id != info.ID && env.Ledger != nil {
		p.Warnings = append(p.Warnings, "this is another database than the one that was archived here: after the restore `etl archive --adopt` makes it the one that is")
	}
	var looks []monthShares
	for _, m := range months {
		if m.Days().Intersect(o.Days).Empty() {
			continue
		}
		shares, err := p.shares(ctx, env, m)
		if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid) {
			p.fail(m, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		p.add(m, shares)
		if len(shares) > 0 {
			looks = append(looks, monthShares{m, shares[len(shares)/2 : len(shares)/2+1]})
		}
	}
	if err := p.coldEnd(ctx, env, months); err != nil {
		return nil, err
	}
	return p, p.estimate(ctx, env, looks)
}

// monthShares are shares of a month.
type monthShares struct {
	month  utc.Month
	shares []share
}

func (p *RestorePlan) fail(m utc.Month, err error) {
	f := failure(err)
	f.Month = m.String()
	p.Failed = append(p.Failed, f)
}

// pointsOf are the points that the manifests name, where there is no catalog.
func (p *RestorePlan) pointsOf(ctx context.Context, env Env, months []utc.Month) ([]sample.Point, error) {
	names := make(map[int32]string)
	for _, m := range months {
		man, _, err := manifests.Load(ctx, env.Store, m)
		if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid) {
			continue // the month fails later, if it is in the range
		}
		if err != nil {
			return nil, err
		}
		for _, e := range man.Points {
			names[e.ID] = e.Name // the newest
		}
	}
	p.Warnings = append(p.Warnings, fmt.Sprintf("there is no %s: points are made with the names that the manifests have, and nothing else", manifests.PointsKey))
	var all []sample.Point
	for id, name := range names {
		all = append(all, sample.Point{ID: id, Name: name})
	}
	slices.SortFunc(all, func(a, b sample.Point) int { return int(int64(a.ID) - int64(b.ID)) })
	return all, nil
}

// choose fixes the points, and which of them have to be made: all that were
// chosen, also those without samples in the range. An id that is missing would
// be given to a new point, and then mean two series.
func (p *RestorePlan) choose(ctx context.Context, env Env, all []sample.Point) error {
	chosen, err := p.opts.Points.filter(ctx, env.Source, all)
	if err != nil {
		return err
	}
	there, _, err := env.Source.Points(ctx)
	if err != nil {
		return err
	}
	byID, byName := make(map[int32]sample.Point), make(map[string]int32)
	for _, t := range there {
		byID[t.ID] = t
		if !t.Orphan {
			byName[manifests.Clean(t.Name)] = t.ID
		}
	}
	p.Points, p.chosen = len(chosen), make(map[int32]string, len(chosen))
	for _, c := range chosen {
		p.chosen[c.ID] = c.Name
		t, ok := byID[c.ID]
		switch name := manifests.Clean(t.Name); {
		case ok && (!t.Orphan && name == c.Name || c.Name == source.OrphanName(c.ID)):
			continue // nobody knows a better name
		case ok && !t.Orphan:
			return fmt.Errorf("nothing was restored: %w", source.OtherName(c.ID, c.Name, t.Name))
		}
		if id, ok := byName[c.Name]; ok && id != c.ID {
			return fmt.Errorf("nothing was restored: %w", source.OtherID(c.Name, c.ID, id))
		}
		p.make = append(p.make, c)
		p.NewPoints = append(p.NewPoints, c.Name)
	}
	return nil
}

// shares are the chosen points of a month with their archived days in the range.
func (p *RestorePlan) shares(ctx context.Context, env Env, m utc.Month) ([]share, error) {
	man, _, err := manifests.Load(ctx, env.Store, m)
	if err != nil {
		return nil, err
	}
	asked := utc.SetOf(m, p.opts.Days.Intersect(m.Days()))
	var shares []share
	for _, e := range man.Points {
		if _, ok := p.chosen[e.ID]; !ok {
			continue
		}
		if days := asked & e.Days.Archived(); days != 0 {
			shares = append(shares, share{e, days})
		}
	}
	return shares, nil
}

// oldBefore is the day before which the retention trigger takes marked days.
func (p *RestorePlan) oldBefore() utc.Day {
	return utc.DayOfTime(p.Now) - utc.Day(Retention/(24*time.Hour))
}

func (p *RestorePlan) add(m utc.Month, shares []share) {
	if len(shares) == 0 {
		return
	}
	rm := RestoreMonth{Month: m, Points: len(shares)}
	old := utc.SetOf(m, utc.Days{From: m.First(), To: max(m.First(), min(m.Days().To, p.oldBefore()))})
	var union utc.Set
	for i := range shares {
		s := &shares[i]
		rm.PointDays += int64(s.days.Len())
		rm.Samples += s.samples()
		p.Old += int64((s.days & old).Len())
		union |= s.days
	}
	runs := union.Runs(m)
	rm.FirstDay, rm.LastDay = runs[0].From, runs[len(runs)-1].To-1
	p.Months = append(p.Months, rm)
	p.PointDays += rm.PointDays
	p.Samples += rm.Samples
	if p.FirstDay == nil {
		p.FirstDay = new(rm.FirstDay)
	}
	p.LastDay = new(rm.LastDay)
}

// coldEnd finds where the archive of the chosen points ends.
func (p *RestorePlan) coldEnd(ctx context.Context, env Env, months []utc.Month) error {
	for _, m := range slices.Backward(months) {
		man, _, err := manifests.Load(ctx, env.Store, m)
		if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid) {
			continue
		}
		if err != nil {
			return err
		}
		ends := make(map[utc.Day]int)
		var last utc.Day
		for _, e := range man.Points {
			_, ok := p.chosen[e.ID]
			if runs := e.Days.Archived().Runs(m); ok && len(runs) > 0 {
				end := runs[len(runs)-1].To
				ends[end]++
				last = max(last, end)
			}
		}
		if len(ends) > 0 {
			p.ColdEnd = &last
			for end, n := range ends {
				if end < last {
					p.Behind += n
				}
			}
			return nil
		}
	}
	return nil
}

// Requests that the parts of a restore and a prune take, for estimates.
const (
	restoreRows = 32_000  // in a statement
	pruneRows   = 100_000 // in a batch
	readRows    = 50_000  // in a page
)

func (p *RestorePlan) estimate(ctx context.Context, env Env, looks []monthShares) error {
	p.Bytes = p.Samples * hotRowBytes
	p.Billed = env.Billed()
	if p.Billed == nil {
		return nil
	}
	e := &p.Estimate
	var err error
	if e.Alarms, err = alarmShare(ctx, newColdFiles(env, p.opts.Workers, p.opts.Memory), looks); err != nil {
		return err
	}
	parts := p.Samples/p.opts.chunk + p.PointDays/batchSlices + int64(len(p.Months))
	// Of each slice the mark that goes, the claim and the confirmation.
	e.RowsWritten = p.Samples + int64(e.Alarms*float64(p.Samples)) + 3*p.PointDays
	e.RowsRead = 3 * p.Samples // 2 for reading back, 1 by the statement that writes; measured
	// Of each part: marks, a look, the rows, a claim, reading back, a confirmation.
	e.Requests = 5*parts + p.Samples/restoreRows + p.Samples/readRows
	e.finish(p.opts.Pace)
	if p.Bytes > d1Bytes*9/10 {
		p.Warnings = append(p.Warnings, fmt.Sprintf("these are about %.1f GB in D1, which takes 10 GB: restore fewer days or points", float64(p.Bytes)/1e9))
	}
	return nil
}

// RestoreReport is what a restore did.
type RestoreReport struct {
	Command  string `json:"command"`
	Run      string `json:"run"`
	Bookmark string `json:"bookmark,omitempty"` // of before, where the source has Time Travel

	PointsMade int   `json:"points_made"`
	PointDays  int64 `json:"point_days"`      // (point, day)s that were read back and hold every archived timestamp
	Samples    int64 `json:"samples"`         // archived samples of these
	Written    int64 `json:"samples_written"` // rows that the hot tier lacked, or had otherwise
	Already    int64 `json:"samples_already"` // rows that it had, bit for bit
	Kept       int64 `json:"samples_kept"`    // rows that it has otherwise, and that stayed
	DaysMarked int64 `json:"point_days_marked"`
	FilesRead  int64 `json:"files_read"`
	FilesNewer int64 `json:"files_newer"` // among them, newer than their manifest

	Elapsed     float64       `json:"elapsed_seconds"`
	Failed      []Failure     `json:"failed"`
	Warnings    []string      `json:"warnings"`
	Interrupted bool          `json:"interrupted"`
	Stopped     string        `json:"stopped,omitempty"` // why the rest was not tried
	Billed      *source.Usage `json:"billed,omitempty"`
}

// ExitCode is the worst of what happened.
func (r *RestoreReport) ExitCode() int {
	return exitCode(r.Failed, r.Interrupted)
}

// exitCode is the worst of the failures, of which one that concerns only a part is
// a finding: 130 > 4 > 1 > 5 > 3 > 0.
func exitCode(failed []Failure, interrupted bool) int {
	r := Report{Failed: failed, Interrupted: interrupted}
	return r.ExitCode(false)
}

// restoring is a restore that runs.
type restoring struct {
	env    Env
	plan   *RestorePlan
	to     source.Restorer
	files  *coldFiles
	run    string
	start  time.Time
	marks  bool
	mu     sync.Mutex // guards the report and the notifications
	report RestoreReport
	prog   Progress
}

// Run does what the plan says. The error is nil unless the job could not begin or
// could not go on at all; failures of points and months are in the report, which
// is valid in any case.
//
// INVARIANT: a sample counts as restored only after it was read back from the hot
// tier; a day is marked only if all that the hot tier held of it after it was
// claimed equals the archived rows, bit for bit.
//
// Running it again reads both tiers and writes only what is missing.
func (p *RestorePlan) Run(ctx context.Context, env Env) (RestoreReport, error) {
	r := &restoring{env: env, plan: p, to: env.Source.(source.Restorer), files: newColdFiles(env, p.opts.Workers, p.opts.Memory),
		run: p.opts.ID, start: env.Now(), marks: env.Ledger != nil}
	if r.run == "" {
		r.run = newRunID(r.start)
	}
	r.report = RestoreReport{Command: "restore", Run: r.run, Failed: []Failure{}, Warnings: []string{}}
	r.prog = Progress{SlicesTotal: p.PointDays, NMonths: len(p.Months)}
	for _, m := range p.Months {
		r.prog.PointsTotal += int64(m.Points)
	}
	for _, f := range p.Failed {
		r.fail(f)
	}
	err := r.all(ctx)
	r.report.Elapsed = env.Now().Sub(r.start).Seconds()
	endLog(ctx, env.Journal, r.line, env.Now(), exitCode(r.report.Failed, r.report.Interrupted), err, firstError(r.report.Failed), r.warn)
	r.report.Billed = env.Billed()
	return r.report, err
}

// endLog closes the line of a run.
func endLog(ctx context.Context, j source.Journal, line func() source.Run, now time.Time, code int, err error, text string, warn func(string, ...any)) {
	if j == nil {
		return
	}
	run := line()
	run.Finished, run.Error = now, text
	switch {
	case err != nil && !errors.Is(err, context.Canceled):
		run.Status, run.Error = "failed", err.Error()
	case code == fault.ExitInterrupted || err != nil:
		run.Status = "interrupted"
	case code == fault.ExitOK:
		run.Status = "done"
	default:
		run.Status = "partial"
	}
	// Not for ever: a database that does not answer must not keep an interrupted
	// run from ending.
	lctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logTime)
	defer cancel()
	if err := j.Log(lctx, run); err != nil {
		warn("the run was not logged in archive_state: %v", err)
	}
}

func firstError(failed []Failure) string {
	if len(failed) == 0 {
		return ""
	}
	return failed[0].Error
}

func (r *restoring) line() source.Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return source.Run{ID: r.run, Command: "restore", Status: "running", Started: r.start, Days: r.plan.opts.Days, Records: r.report.Samples}
}

func (r *restoring) fail(f Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Failed = append(r.report.Failed, f)
	r.env.notify(PointFailed{f})
}

func (r *restoring) warn(format string, a ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := fmt.Sprintf(format, a...)
	r.report.Warnings = append(r.report.Warnings, text)
	r.env.notify(Warning{text})
}

// bookmark is the moment before a job changes the hot tier, "" where there is no
// Time Travel. It is told at once: it is needed if what follows goes wrong.
func bookmark(ctx context.Context, env Env) (string, error) {
	t, ok := env.Source.(source.TimeTraveler)
	if !ok {
		return "", nil
	}
	b, err := t.Bookmark(ctx)
	if err != nil {
		return "", fmt.Errorf("nothing was changed: %w", err)
	}
	env.notify(Bookmarked{b})
	return b, nil
}

func (r *restoring) all(ctx context.Context) (err error) {
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
	if len(r.plan.make) > 0 {
		if err := r.to.RestorePoints(ctx, r.plan.make); err != nil {
			return fmt.Errorf("nothing was restored: %w", err)
		}
		r.report.PointsMade = len(r.plan.make)
	}
	for _, rm := range r.plan.Months {
		r.prog.Month = rm.Month
		err := r.month(ctx, rm.Month)
		switch {
		case errors.Is(err, errStopped) || errors.Is(err, context.Canceled):
			r.report.Interrupted = true
			return nil
		case err == nil:
		case fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid):
			f := failure(err)
			f.Month = rm.Month.String()
			r.fail(f)
		default: // what fails the store or the source fails the rest too
			f := failure(err)
			f.Month = rm.Month.String()
			r.fail(f)
			r.report.Stopped = err.Error()
			return nil
		}
		r.prog.MonthsDone++
	}
	return nil
}

func (r *restoring) month(ctx context.Context, m utc.Month) error {
	shares, err := r.plan.shares(ctx, r.env, m) // as of now: a plan may be old
	if err != nil {
		return err
	}
	for _, some := range cutShares(shares, r.plan.opts.chunk) {
		if r.env.stopped() {
			return errStopped
		}
		if err := r.part(ctx, m, some); err != nil {
			return err
		}
	}
	return nil
}

// restoreAttempts bounds how often a part is written, because rows are missing
// when it is read back: others may change or delete them in between.
const restoreAttempts = 3

// part restores some points of a month.
func (r *restoring) part(ctx context.Context, m utc.Month, shares []share) error {
	p, err := r.files.load(ctx, m, shares)
	if err != nil {
		return err
	}
	marks := make(map[source.Slice]source.Mark)
	if r.marks { // before the rows are: one that arrives later takes its mark away
		if marks, err = p.marks(ctx, r.env.Ledger); err != nil {
			return err
		}
	}
	if err := p.compare(ctx, r.env.Source, func(f *face) utc.Set { return f.days }); err != nil {
		return err
	}
	already := make(map[*face]int64)
	for _, f := range p.faces {
		already[f] = f.count(same) + f.count(unsigned)
	}
	claimed := make(map[*face]utc.Set)
	written := make(map[*face]int64)
	wrote := make(map[*face][]bool) // which of the cold samples
	for range restoreAttempts {
		touched, n, err := r.write(ctx, p, written, wrote)
		if err != nil {
			return err
		}
		claims, err := r.claim(ctx, p, marks, touched, claimed)
		if err != nil {
			return err
		}
		again := func(f *face) utc.Set { return touched[f] | claims[f] }
		if err := p.compare(ctx, r.env.Source, again); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		if n == 0 {
			break
		}
	}
	if err := r.overtaken(ctx, p, wrote); err != nil {
		return err
	}
	marked, err := r.confirm(ctx, p, claimed)
	if err != nil {
		return err
	}
	r.settle(p, already, written, marked)
	return nil
}

// overtaken corrects rows that were written from a month file which was replaced
// since it was read: a correction came, was archived, and left the hot tier again,
// all while this part was being restored. The older row would win over it.
func (r *restoring) overtaken(ctx context.Context, p *part, wrote map[*face][]bool) error {
	if len(wrote) == 0 {
		return nil
	}
	man, _, err := manifests.Load(ctx, r.env.Store, p.month)
	if err != nil {
		return err
	}
	var shares []share
	was := make(map[int32]*face)
	for f := range wrote {
		if e := man.Entry(f.point); e != nil && e.SHA256 != f.entry.SHA256 {
			shares = append(shares, share{*e, f.days & e.Days.Archived()})
			was[f.point] = f
		}
	}
	if len(shares) == 0 {
		return nil
	}
	slices.SortFunc(shares, func(a, b share) int { return cmp.Compare(a.entry.ID, b.entry.ID) })
	now, err := r.files.load(ctx, p.month, shares)
	if err != nil {
		return err
	}
	var from, to sample.Batch
	for _, f := range now.faces {
		old := was[f.point]
		for i, ts := range f.cold.TS {
			if j, there := slices.BinarySearch(old.cold.TS, ts); there && wrote[old][j] && !old.cold.EqualAt(j, &f.cold, i) {
				from.PointID, to.PointID = append(from.PointID, f.point), append(to.PointID, f.point)
				from.AppendRange(&old.cold, j, j+1)
				to.AppendRange(&f.cold, i, i+1)
			}
		}
	}
	// Only where what was written still stands: a row that came since, which the
	// archive need not have yet, is newer than both.
	return r.to.Correct(ctx, &from, &to)
}

// lacks reports whether the hot tier is to get sample i of f.
func (r *restoring) lacks(f *face, i int) bool {
	return f.seen[i] == absent || f.seen[i] == other && r.plan.opts.Overwrite
}

func (f *face) count(v verdict) (n int64) {
	for _, s := range f.seen {
		if s == v {
			n++
		}
	}
	return n
}

// writeRows is how many samples are given to the source at once.
const writeRows = 100_000

// write writes what the hot tier lacks and returns which days it touched.
func (r *restoring) write(ctx context.Context, p *part, written map[*face]int64, wrote map[*face][]bool) (touched map[*face]utc.Set, rows int64, err error) {
	touched = make(map[*face]utc.Set)
	var b sample.Batch
	flush := func() error {
		if b.Len() == 0 {
			return nil
		}
		err := r.to.Restore(ctx, &b, !r.plan.opts.Overwrite)
		b.Reset()
		return err
	}
	for _, f := range p.faces {
		if f.err != nil {
			continue
		}
		for i, ts := range f.cold.TS {
			if !r.lacks(f, i) {
				continue
			}
			touched[f] = touched[f].With(int(utc.DayOf(ts) - p.month.First()))
			b.PointID = append(b.PointID, f.point)
			b.AppendRange(&f.cold, i, i+1)
			rows++
			written[f]++
			if wrote[f] == nil {
				wrote[f] = make([]bool, f.cold.Len())
			}
			wrote[f][i] = true
			if b.Len() == writeRows {
				if err := flush(); err != nil {
					return touched, rows, err
				}
			}
		}
	}
	return touched, rows, flush()
}

// claim claims the days that may be marked once they are read again: those that
// were written, or that are whole and unmarked. The claims are added to all.
func (r *restoring) claim(ctx context.Context, p *part, marks map[source.Slice]source.Mark, touched, all map[*face]utc.Set) (map[*face]utc.Set, error) {
	claims := make(map[*face]utc.Set)
	if !r.marks {
		return claims, nil
	}
	var slices []source.Slice
	for _, f := range p.faces {
		if f.err != nil || f.pending {
			continue // what no manifest counts is not marked
		}
		for i := range p.month.Len() {
			d := p.month.First() + utc.Day(i)
			if !f.days.Has(i) || d < r.plan.oldBefore() && !r.plan.opts.MarkOld {
				continue
			}
			mk, ok := marks[source.Slice{Point: f.point, Day: d}]
			switch wrote := touched[f].Has(i); {
			case !wrote && all[f].Has(i): // by the attempt before
				continue
			case !wrote && (ok && mk.State != source.Claimed || !f.exact(i)):
				continue
			case wrote && (f.hot[i].extra > 0 || f.hot[i].rejects > 0 || f.hot[i].differs > 0 && !r.plan.opts.Overwrite):
				continue // it can not become equal
			}
			claims[f] = claims[f].With(i)
			all[f] = all[f].With(i)
			slices = append(slices, source.Slice{Point: f.point, Day: d})
		}
	}
	if len(slices) == 0 {
		return claims, nil
	}
	if err := r.env.Ledger.Claim(ctx, r.run, slices); err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	return claims, nil
}

// confirm marks the claimed days that were found equal since, if the manifest
// still names the file that they were compared with.
func (r *restoring) confirm(ctx context.Context, p *part, claimed map[*face]utc.Set) (int64, error) {
	if len(claimed) == 0 {
		return 0, nil
	}
	man, _, err := manifests.Load(ctx, r.env.Store, p.month)
	if err != nil {
		return 0, err
	}
	var slices []source.Slice
	for _, f := range p.faces {
		e := man.Entry(f.point)
		if claimed[f] == 0 || e == nil || e.SHA256 != f.entry.SHA256 {
			continue
		}
		for i := range p.month.Len() {
			if claimed[f].Has(i) && e.Days[i] == f.entry.Days[i] && f.exact(i) {
				slices = append(slices, source.Slice{Point: f.point, Day: p.month.First() + utc.Day(i)})
			}
		}
	}
	if len(slices) == 0 {
		return 0, nil
	}
	n, err := r.env.Ledger.Confirm(ctx, r.run, slices)
	return int64(n), err
}

// settle adds a part to the report.
func (r *restoring) settle(p *part, already, written map[*face]int64, marked int64) {
	for _, f := range p.faces {
		if f.err == nil {
			if lost := f.count(absent); lost > 0 {
				f.err = fault.Hint(fault.Errorf(fault.Transient, "%d samples are not in the hot tier after they were written %d times; something deletes them", lost, restoreAttempts), "run it again")
			} else if n := f.count(other); n > 0 && r.plan.opts.Overwrite {
				f.err = fault.Hint(fault.Errorf(fault.Transient, "%d samples are other ones in the hot tier after they were written %d times; something else writes them", n, restoreAttempts), "run it again")
			}
		}
		if f.err != nil {
			fl := failure(fmt.Errorf("%s %s: %w", r.plan.chosen[f.point], p.month, f.err))
			fl.Month, fl.PointID, fl.Point, fl.Path = p.month.String(), f.point, r.plan.chosen[f.point], string(f.entry.Path)
			r.fail(fl)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.DaysMarked += marked
	for _, f := range p.faces {
		r.prog.SlicesDone += int64(f.days.Len())
		r.prog.PointsDone++
		r.report.Written += written[f]
		if f.entry.Path != "" {
			r.report.FilesRead++
		}
		if f.pending {
			r.report.FilesNewer++
		}
		if f.err != nil {
			continue
		}
		r.report.PointDays += int64(f.days.Len())
		r.report.Samples += int64(f.cold.Len())
		r.report.Already += already[f]
		r.report.Kept += f.count(other)
		r.prog.Rows += int64(f.cold.Len())
		r.prog.Bytes += f.entry.Bytes
	}
	r.prog.Files = r.report.FilesRead
	r.env.notify(r.prog)
}
