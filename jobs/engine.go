package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/timing"
	"etl/internal/utc"
	"etl/manifests"
)

// engine runs the plan of an archiving job: months one after another; in a
// month, batches of points that are claimed, extracted and handed, point by
// point, to the writers; and one committer, which records what was written,
// checks it, and only then confirms it in the ledger.
type engine struct {
	env  Env
	plan *ArchivePlan
	opts ArchiveOptions
	run  string

	mu       sync.Mutex // guards what follows
	report   Report
	progress Progress
	warned   map[string]bool // by what was said
	fatal    error           // nothing more can succeed
}

// Run does what the plan says. The error is nil unless the job could not begin
// or could not go on at all; failures of points and months are in the report.
// The report is valid in any case.
//
// An interrupted or killed run keeps what it committed, and running the job
// again does the rest: nothing is done twice, nothing is left half done.
func (p *ArchivePlan) Run(ctx context.Context, env Env) (Report, error) {
	start := env.Now()
	e := &engine{env: env, plan: p, opts: p.opts, run: newRunID(start), warned: map[string]bool{}}
	e.report = Report{Command: string(p.Command), Run: e.run, Months: []MonthReport{}, Failed: []Failure{}, Warnings: []string{}}
	e.progress = Progress{SlicesTotal: p.PointDays, NMonths: len(p.Months)}
	for _, mp := range p.Months {
		e.progress.PointsTotal += int64(mp.Points)
	}
	err := e.all(ctx)
	e.report.finish(start, env.Now())
	// Not for ever: a database that does not answer must not keep an
	// interrupted run from ending.
	lctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logTime)
	defer cancel()
	if lerr := e.log(lctx, start, err); lerr != nil {
		e.warn("the run was not logged in archive_state: %v", lerr)
	}
	e.report.Billed = env.Billed()
	return e.report, err
}

func newRunID(now time.Time) string {
	return now.UTC().Format("20060102T150405Z") + "-" + rand.Text()[:8]
}

func (e *engine) all(ctx context.Context) error {
	start := e.env.Now()
	stop, err := e.logStart(ctx, start)
	if err != nil {
		return err
	}
	defer stop()
	for _, w := range e.plan.Warnings {
		e.warn("%s", w)
	}
	if e.env.Source != nil { // repair may have to do without
		if _, err := manifests.Register(ctx, e.env.Store, e.plan.source.ID, e.plan.all, e.opts.Adopt); err != nil {
			return err
		}
	}
	// The seeks for strays run beside the first month: neither needs the other.
	var strays errgroup.Group
	strays.Go(func() error {
		if err := e.strays(ctx); err != nil && ctx.Err() == nil {
			e.fail(failure(fmt.Errorf("look for rows that no day holds: %w", err)))
		}
		return nil
	})
	defer strays.Wait()
	for i := range e.plan.Months {
		if e.env.stopped() || ctx.Err() != nil {
			e.report.Interrupted = true
			break
		}
		mp := &e.plan.Months[i]
		err := e.month(ctx, mp)
		if errors.Is(err, errStopped) || errors.Is(err, context.Canceled) {
			e.report.Interrupted = true
			break
		}
		if err != nil {
			f := failure(err)
			f.Month = mp.Month.String()
			e.fail(f)
		}
		if err := e.dead(); err != nil {
			e.report.Stopped = err.Error() // it is among the failures already
			break
		}
		e.progress.MonthsDone++
	}
	return nil
}

// strays records the rows that no day slice would ever see.
func (e *engine) strays(ctx context.Context) error {
	if e.plan.Command == repairing {
		return nil // it mends what was archived
	}
	ids := make([]int32, len(e.plan.all))
	for i, p := range e.plan.all {
		ids[i] = p.ID
	}
	rows, err := e.env.Source.Strays(ctx, ids, source.Window(e.plan.now))
	if err != nil {
		return err
	}
	rows = append(rows, e.plan.stray...)
	if len(rows) == 0 {
		return nil
	}
	key, err := manifests.PutRejects(ctx, e.env.Store, manifests.Undated, rows)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.report.SamplesRejected += int64(len(rows))
	e.mu.Unlock()
	e.send1(Rejected{Month: manifests.Undated, Point: "several points", Rows: len(rows), Reason: rows[0].Reason, Key: key})
	if len(rows) >= source.MaxStrays {
		e.warn("more than %d rows have timestamps or point ids that no day holds; the first ones were recorded", source.MaxStrays)
	}
	return nil
}

// work is one point of one month on its way from the extractor to a writer.
type work struct {
	point   sample.Point
	days    utc.Set
	base    *manifests.Entry // fixed before the claim
	fresh   *sample.Series
	rejects []sample.Reject
	replace utc.Set
	trimmed utc.Set  // days whose rows have left the source: found empty, they stay unarchived
	mend    *mending // set where the base is not as it should be
	weight  int64
}

// monthRun is the state of one month.
type monthRun struct {
	*engine
	mp        *MonthPlan
	committer *manifests.Committer
	namer     *manifests.Namer
	queue     chan *work
	budget    *semaphore.Weighted
	series    sync.Pool
	report    MonthReport

	pendingMu sync.Mutex
	pending   map[int32]*written // added to the committer, not yet confirmed
	commitMu  sync.Mutex         // one commit at a time
	failing   atomic.Int32       // points that could not be stored since one was
}

// written is what a writer did for a point.
type written struct {
	slices []source.Slice // to confirm: the days without rejects
	file   bool           // a month file was written
}

func (e *engine) month(ctx context.Context, mp *MonthPlan) error {
	m := &monthRun{
		engine: e, mp: mp,
		committer: manifests.NewCommitter(e.env.Store, mp.Month, describe, manifests.Options{MinInterval: e.opts.CommitEvery, MaxInterval: e.opts.CommitEvery}),
		queue:     make(chan *work, 1024),
		budget:    semaphore.NewWeighted(e.opts.Memory),
		pending:   make(map[int32]*written),
		report:    MonthReport{Month: mp.Month, FirstDay: mp.FirstDay, LastDay: mp.LastDay, Points: mp.Points},
	}
	m.series.New = func() any { return new(sample.Series) }
	warnings, err := m.committer.Load(ctx)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		e.warn("%v", w)
	}
	m.namer = manifests.NewNamer(mp.Month, e.plan.all, m.committer.Manifest())

	writers, wctx := errgroup.WithContext(ctx)
	for range e.opts.WriteWorkers {
		writers.Go(func() error { return m.write(wctx) })
	}
	stopCommits := make(chan struct{})
	writers.Go(func() error { return m.commitWhenDue(wctx, stopCommits) })

	err = m.extract(wctx)
	close(m.queue)
	close(stopCommits)
	if werr := writers.Wait(); werr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = werr
	}
	// What was written is committed even when the job was told to stop; only a
	// cancelled context (the second interrupt) leaves it to the next run.
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if cerr := m.commit(ctx); cerr != nil && err == nil {
		err = cerr
	}
	e.mu.Lock()
	e.report.Months = append(e.report.Months, m.report)
	e.mu.Unlock()
	return err
}

// extract reads the batches of the month with a bounded number of workers.
func (m *monthRun) extract(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(m.opts.ExtractWorkers)
	stopped := false
	for _, b := range m.mp.batches() {
		if stopped = m.env.stopped() || m.dead() != nil; stopped || gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			switch {
			case m.env.stopped():
				return errStopped
			case m.dead() != nil:
				return nil // the job ends for that reason, not because someone asked it to
			}
			err := m.batch(gctx, b)
			switch {
			case err == nil:
				return nil
			case gctx.Err() != nil:
				return gctx.Err()
			}
			// A batch that can not be read fails alone, but for what would
			// fail every other batch too.
			f := failure(fmt.Errorf("%s: %d points, from point %d: %w", m.mp.Month, len(b.points), b.points[0], err))
			f.Month = m.mp.Month.String()
			m.fail(f)
			if k := fault.KindOf(err); k == fault.Transient || k == fault.Unavailable {
				m.die(err)
			}
			return nil
		})
	}
	err := g.Wait()
	if err == nil && stopped && m.dead() == nil {
		err = errStopped
	}
	return err
}

// batch claims and extracts the points of b and hands each to the writers as
// soon as it is whole.
func (m *monthRun) batch(ctx context.Context, b batch) error {
	// The base version is fixed first: whatever is stored over it later makes
	// this extraction stale, which the writer then sees.
	bases := make([]*manifests.Entry, len(b.points))
	now := m.committer.Manifest()
	for i, id := range b.points {
		bases[i] = now.Entry(id)
	}
	protected := make(map[int32]utc.Set) // days that must not be replaced
	if m.env.Ledger != nil && b.days != 0 {
		claims := make([]source.Slice, 0, len(b.points)*b.days.Len())
		for _, id := range b.points {
			claims = appendSlices(claims, id, m.mp.Month, b.days)
		}
		if err := m.env.Ledger.Claim(ctx, m.run, claims); err != nil {
			return fmt.Errorf("claim: %w", err)
		}
		if m.opts.Replace && !m.opts.AllowLoss {
			// A day may have been trimmed between the plan and the claim; a
			// claimed day can not be.
			first := m.mp.Month.First()
			err := m.env.Ledger.Pruned(ctx, b.points, m.mp.Month.Days(), func(s source.Slice) {
				protected[s.Point] = protected[s.Point].With(int(s.Day - first))
			})
			if err != nil {
				return err
			}
		}
	}

	acc := make(map[int32]*work, len(b.points))
	next := 0 // points before it were handed on
	handOn := func(upTo int) error {
		for ; next < upTo; next++ {
			id := b.points[next]
			w := acc[id]
			delete(acc, id)
			if w == nil {
				w = &work{fresh: m.series.Get().(*sample.Series)}
				w.fresh.Reset()
			}
			w.point, w.days, w.base, w.trimmed, w.mend = m.plan.byID[id], b.days, bases[next], b.trimmed[id], m.mp.mend[id]
			if m.opts.Replace {
				w.replace = b.days &^ protected[id]
				if got := b.days & protected[id]; got != 0 {
					m.warn("%s %s: %d days were trimmed from the source meanwhile; they were not replaced", w.point.Name, m.mp.Month, got.Len())
				}
			}
			if err := m.send(ctx, w); err != nil {
				return err
			}
		}
		return nil
	}
	get := func(id int32) *work {
		w := acc[id]
		if w == nil {
			w = &work{fresh: m.series.Get().(*sample.Series)}
			w.fresh.Reset()
			acc[id] = w
		}
		return w
	}
	runs := b.days.Runs(m.mp.Month)
	for r, days := range runs {
		last := r == len(runs)-1
		pos := 0 // the first point that this run may still deliver
		_, err := m.env.Source.Read(ctx, source.Query{Points: b.points, Days: days}, func(batch *sample.Batch) error {
			m.addRead(int64(batch.Len() + len(batch.Rejects))) // now, for the progress and for a run that is cut off
			for _, rej := range batch.Rejects {
				id, _ := rej.PointID.V.(int64)
				w := get(int32(id))
				w.rejects = append(w.rejects, rej)
			}
			for i := 0; i < batch.Len(); {
				id, j := batch.PointID[i], i+1
				for j < batch.Len() && batch.PointID[j] == id {
					j++
				}
				for pos < len(b.points) && b.points[pos] < id {
					pos++
				}
				if pos == len(b.points) || b.points[pos] != id {
					return fault.Errorf(fault.Internal, "the source delivered point %d out of order or unasked", id)
				}
				if last {
					if err := handOn(pos); err != nil { // a later point's sample: these are whole
						return err
					}
				}
				get(id).fresh.AppendRange(&batch.Series, i, j)
				i = j
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return handOn(len(b.points))
}

// send hands a point to the writers once the samples in flight leave room for
// it; one that is larger than the whole budget is admitted alone.
func (m *monthRun) send(ctx context.Context, w *work) error {
	samples := int64(w.fresh.Len())
	switch {
	case w.mend != nil:
		samples = 3 * (w.mend.samples + samples) // rescued from elsewhere, too
	case w.base != nil && samples > 0:
		samples += 2 * (w.base.Samples + samples) // the old series and the merged one
	}
	w.weight = min(m.opts.Memory, max(1, samples)*sample.RowBytes)
	defer m.env.Timing.End(timing.WaitRoom, m.env.Timing.Start())
	if err := m.budget.Acquire(ctx, w.weight); err != nil {
		return err
	}
	select {
	case m.queue <- w:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write takes points from the queue until it ends.
func (m *monthRun) write(ctx context.Context) error {
	wr := newWriter(m)
	for idle := m.env.Timing.Start(); ; idle = m.env.Timing.Start() {
		w, more := <-m.queue
		m.env.Timing.End(timing.WaitWork, idle)
		if !more {
			break
		}
		if m.dead() == nil && ctx.Err() == nil {
			m.one(ctx, wr, w)
		}
		m.series.Put(w.fresh)
		m.budget.Release(w.weight)
	}
	return ctx.Err()
}

// one writes one point and gives the committer what to record.
func (m *monthRun) one(ctx context.Context, wr *writer, w *work) {
	res, err := wr.point(ctx, w)
	if ctx.Err() != nil {
		return // whatever happened is for the next run to settle
	}
	if err != nil {
		f := failure(fmt.Errorf("%s %s: %w", w.point.Name, m.mp.Month, err))
		f.Month, f.PointID, f.Point = m.mp.Month.String(), w.point.ID, w.point.Name
		if w.base != nil {
			f.Path = string(w.base.Path)
		}
		m.fail(f)
		m.failedWrite(err)
		return
	}
	m.failing.Store(0)
	done := &written{file: res.file}
	lost := w.lost(m.mp.Month)
	if lost != 0 && m.plan.part == nil && w.mend == nil { // repair names them itself
		m.warn("%s %s: the rows of %d days have left the source, and the archive does not hold them; these days stay unarchived", w.point.Name, m.mp.Month, lost.Len())
	}
	done.slices = appendSlices(nil, w.point.ID, m.mp.Month, w.days&^lost&^rejectedDays(m.mp.Month, w.rejects))
	m.pendingMu.Lock()
	m.pending[w.point.ID] = done
	m.committer.Add(res.change)
	m.pendingMu.Unlock()

	e := m.engine
	e.mu.Lock()
	e.report.SamplesAdded += res.delta.Added
	e.report.SamplesReplaced += res.delta.Replaced
	e.report.SamplesRemoved += res.delta.Removed
	e.report.SamplesRejected += int64(len(w.rejects))
	e.report.PointDays += int64(w.days.Len())
	m.report.Slices += int64(w.days.Len())
	m.report.SamplesRead += int64(w.fresh.Len())
	if res.file {
		n := res.change.Entry
		e.report.FilesWritten++
		e.report.BytesWritten += n.Bytes
		e.report.samplesInFiles += n.Samples
		m.report.FilesWritten++
		m.report.BytesWritten += n.Bytes
		m.report.SamplesWritten += n.Samples
	} else {
		e.report.FilesUnchanged++
	}
	e.progress.SlicesDone += int64(w.days.Len())
	e.progress.PointsDone++
	m.notifyProgress()
	e.mu.Unlock()
}

// stuck is after how many points in a row, none of them stored, a job takes it
// that no point can be. Each has used up its attempts by then.
const stuck = 3

// failedWrite ends the job where nothing more can succeed, or nothing has for
// some time: an outage must not cost each of thousands of points its attempts.
func (m *monthRun) failedWrite(err error) {
	switch fault.KindOf(err) {
	case fault.Unavailable:
		m.die(err)
	case fault.Transient, fault.Unknown:
		if n := m.failing.Add(1); n >= stuck {
			m.die(fmt.Errorf("%d points in a row could not be stored: %w", n, err))
		}
	}
}

// commitWhenDue commits at the committer's pace until the month is written.
func (m *monthRun) commitWhenDue(ctx context.Context, stop <-chan struct{}) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		if !m.committer.Due() {
			continue
		}
		if err := m.commit(ctx); err != nil {
			if k := fault.KindOf(err); k == fault.Corrupt || k == fault.Unavailable || k == fault.Invalid {
				return err
			}
			// Anything else may pass; the last commit of the month decides.
			m.warn("commit %s: %v; it will be tried again", m.mp.Month, err)
		}
	}
}

// commit commits the manifest, checks the files that it now names, and then
// confirms their (point, day)s in the ledger.
//
// INVARIANT: a slice is confirmed only after the manifest that counts it was
// committed and the bytes of its file were read back and found right.
func (m *monthRun) commit(ctx context.Context) error {
	m.commitMu.Lock()
	defer m.commitMu.Unlock()
	res, err := m.committer.Commit(ctx)
	for _, w := range res.Warnings {
		m.warn("%v", w)
	}
	if err != nil {
		return err
	}
	var confirm []source.Slice
	var check []checkItem
	m.pendingMu.Lock()
	for _, f := range res.Failed {
		delete(m.pending, f.Point)
	}
	committed := m.committer.Manifest()
	for _, ch := range res.Committed {
		w := m.pending[ch.Point]
		delete(m.pending, ch.Point)
		if w == nil {
			continue
		}
		if w.file {
			// Not ch.Entry: after a conflict the entry is that of the object stored since.
			check = append(check, checkItem{committed.Entry(ch.Point), w.slices})
		} else {
			confirm = append(confirm, w.slices...)
		}
	}
	m.pendingMu.Unlock()
	for _, pf := range res.Failed {
		f := failure(pf.Err)
		f.Month, f.PointID, f.Point = m.mp.Month.String(), pf.Point, m.plan.byID[pf.Point].Name
		m.fail(f)
	}
	if len(res.Committed) > 0 {
		m.send1(MonthCommitted{Month: m.mp.Month, Points: len(res.Committed)})
	}
	ok, err := m.check(ctx, check)
	if err != nil {
		return err
	}
	confirm = append(confirm, ok...)
	if m.env.Ledger == nil || len(confirm) == 0 {
		return nil
	}
	for i := 0; i < len(confirm); i += batchSlices {
		n, err := m.env.Ledger.Confirm(ctx, m.run, confirm[i:min(len(confirm), i+batchSlices)])
		if err != nil {
			// The manifest is committed all the same. What is not confirmed is
			// archived again by the next run, and nothing may trim it meanwhile.
			f := failure(fmt.Errorf("confirm %s in the ledger: %w", m.mp.Month, err))
			f.Month = m.mp.Month.String()
			m.fail(f)
			return ctx.Err()
		}
		m.mu.Lock()
		m.engine.report.PointDaysMarked += int64(n)
		m.mu.Unlock()
	}
	return nil
}

func appendSlices(dst []source.Slice, point int32, m utc.Month, days utc.Set) []source.Slice {
	for i := range m.Len() {
		if days.Has(i) {
			dst = append(dst, source.Slice{Point: point, Day: m.First() + utc.Day(i)})
		}
	}
	return dst
}

func (e *engine) addRead(rows int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.report.SamplesRead += rows
}

func (m *monthRun) notifyProgress() {
	p := &m.engine.progress
	p.Month, p.Rows = m.mp.Month, m.engine.report.SamplesRead
	p.Files, p.Bytes = m.engine.report.FilesWritten, m.engine.report.BytesWritten
	m.env.notify(*p)
}

// send1 sends an event from outside the lock.
func (e *engine) send1(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.env.notify(ev)
}

func (e *engine) fail(f Failure) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.report.Failed = append(e.report.Failed, f)
	e.env.notify(PointFailed{f})
}

// warn says something once: what is done again, because an answer was lost, says the
// same again.
func (e *engine) warn(format string, a ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	text := fmt.Sprintf(format, a...)
	if e.warned[text] {
		return
	}
	e.warned[text] = true
	e.report.Warnings = append(e.report.Warnings, text)
	e.env.notify(Warning{text})
}

// die stops the job: nothing more can succeed.
func (e *engine) die(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fatal == nil {
		e.fatal = err
	}
}

func (e *engine) dead() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fatal
}

// Rules of the log of runs.
const (
	// heartbeat is how often a run writes its line: a billed row each time.
	heartbeat = 2 * time.Minute
	// logTime bounds the last word of a run.
	logTime = 30 * time.Second
	// silence is how long after its last heartbeat a run is taken to be dead.
	silence = 15 * time.Minute
)

// logStart opens the run's line in the log, after it closed those of runs that
// died, and keeps it alive until stop is called.
func (e *engine) logStart(ctx context.Context, start time.Time) (stop func(), err error) {
	return startLog(ctx, e.env.Journal, e.opts.heartbeat, func() source.Run { return e.line(start) }, e.warn)
}

// startLog is logStart of any job, whose line is line; j may be nil.
func startLog(ctx context.Context, j source.Journal, every time.Duration, line func() source.Run, warn func(format string, a ...any)) (stop func(), err error) {
	if j == nil {
		return func() {}, nil
	}
	dead, err := j.CloseCrashed(ctx, silence)
	if err != nil {
		return nil, err
	}
	if len(dead) > 0 {
		warn("closed as crashed, without a sign of life for %s: %s; what they committed stays, and what they did not is done again", silence, strings.Join(dead, ", "))
	}
	if err := j.Log(ctx, line()); err != nil {
		return nil, err
	}
	beats, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-beats.Done():
				return nil
			case <-t.C:
			}
			if err := j.Log(beats, line()); err != nil && beats.Err() == nil {
				warn("the heartbeat was not logged: %v", err)
			}
		}
	})
	return func() { cancel(); g.Wait() }, nil
}

// line is the run's line in the log as of now.
func (e *engine) line(start time.Time) source.Run {
	e.mu.Lock()
	defer e.mu.Unlock()
	return source.Run{
		ID: e.run, Command: string(e.plan.Command), Status: "running", Started: start, Days: e.plan.Range,
		Records: e.report.SamplesRead, Files: e.report.FilesWritten, Bytes: e.report.BytesWritten,
	}
}

// log closes the run's line.
func (e *engine) log(ctx context.Context, start time.Time, err error) error {
	if e.env.Journal == nil {
		return nil
	}
	r := e.line(start)
	r.Status, r.Finished = e.report.Status(), e.env.Now()
	switch {
	case err != nil:
		r.Status, r.Error = "failed", err.Error()
	case len(e.report.Failed) > 0:
		r.Error = e.report.Failed[0].Error
	}
	return e.env.Journal.Log(ctx, r)
}

// describe reads the facts of a month file for the committer.
func describe(data []byte) (manifests.Facts, error) {
	info, err := monthfile.Inspect(data)
	if err != nil {
		return manifests.Facts{}, err
	}
	return facts(info), nil
}
