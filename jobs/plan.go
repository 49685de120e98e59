package jobs

import (
	"context"
	"fmt"
	"slices"
	"time"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/manifests"
)

// Mode is what selects the (point, day)s of an archiving job.
type Mode string

const (
	// Archive takes all that is complete in the hot window and not both
	// archived and marked: yesterday, days missed, days with late rows.
	Archive Mode = "archive"
	// Backfill takes what is not archived yet.
	Backfill Mode = "backfill"
	// Rearchive takes everything again.
	Rearchive Mode = "rearchive"
)

// ArchiveOptions are the options of archive, backfill and rearchive. The zero
// value of each but Mode is its default.
type ArchiveOptions struct {
	Mode   Mode
	Days   utc.Days // Backfill and Rearchive need it; Archive takes the hot window without
	Points Points

	// Replace makes the source authoritative for the range (Rearchive only):
	// archived samples that it no longer has are removed.
	Replace bool
	// AllowLoss lets Replace work on days that the source may have trimmed.
	AllowLoss bool
	// Adopt lets a source write into a cold tier that another one began.
	Adopt bool

	Grace          time.Duration   // default 1 h
	HotWindow      int             // days, default 35
	ExtractWorkers int             // default 2
	WriteWorkers   int             // default 16
	Memory         int64           // bytes that samples in flight may take, default 256 MiB
	Codec          monthfile.Codec // default zstd
	CommitEvery    time.Duration   // default: the committer's own pace

	heartbeat time.Duration // shorter in tests
}

func (o *ArchiveOptions) defaults() {
	if o.Grace == 0 {
		o.Grace = Grace
	}
	if o.HotWindow == 0 {
		o.HotWindow = HotWindow
	}
	if o.ExtractWorkers == 0 {
		o.ExtractWorkers = 2
	}
	if o.WriteWorkers == 0 {
		o.WriteWorkers = 16
	}
	if o.heartbeat == 0 {
		o.heartbeat = heartbeat
	}
	if o.Memory == 0 {
		o.Memory = 256 << 20
	}
}

func (o *ArchiveOptions) validate() error {
	switch {
	case o.Replace && o.Mode != Rearchive:
		return fault.Errorf(fault.Usage, "--replace belongs to rearchive")
	case o.AllowLoss && !o.Replace:
		return fault.Errorf(fault.Usage, "--allow-loss belongs to rearchive --replace")
	case o.ExtractWorkers < 1 || o.WriteWorkers < 1:
		return fault.Errorf(fault.Usage, "extract and write workers: want at least 1 of each, got %d and %d", o.ExtractWorkers, o.WriteWorkers)
	case o.Memory < 1<<20:
		return fault.Errorf(fault.Usage, "memory: want at least 1 MiB, got %d bytes", o.Memory)
	case o.Grace < 0 || o.HotWindow < 1:
		return fault.Errorf(fault.Usage, "grace %s, hot window %d d: want neither negative, and a day of window at least", o.Grace, o.HotWindow)
	}
	return nil
}

// ArchivePlan is what an archiving job will do. It is run at most once.
type ArchivePlan struct {
	Command  Mode        `json:"command"`
	FirstDay *utc.Day    `json:"first_day"` // of what is to be read; null if nothing is
	LastDay  *utc.Day    `json:"last_day"`
	Range    utc.Days    `json:"-"`      // what was looked at
	Points   int         `json:"points"` // chosen points
	Months   []MonthPlan `json:"months"` // only months with something to do
	// PointDays are to be read; Archived are in the range, archived already and left alone.
	PointDays     int64 `json:"point_days"`
	Archived      int64 `json:"point_days_archived"`
	EstimatedRows int64 `json:"estimated_rows"`
	// Warnings are what a person should know before the plan is run.
	Warnings []string `json:"warnings"`
	// Billed is what the source was asked for to make the plan, where that is billed.
	Billed *source.Usage `json:"billed,omitempty"`
	// Late are the (point, day)s among PointDays that are archived, but whose
	// mark is gone: rows were inserted or changed since.
	Late int64 `json:"point_days_late"`
	// AtRisk are the archived samples that --replace --allow-loss would remove,
	// as far as can be counted beforehand.
	AtRisk int64 `json:"samples_at_risk,omitempty"`
	// Failed are the months that will fail, since their manifest is corrupt;
	// what they hold is not known.
	Failed []Failure `json:"failed"`

	opts   ArchiveOptions
	part   source.Partial // the source, if it is one
	all    []sample.Point // the whole points table, for names of files
	byID   map[int32]sample.Point
	stray  []sample.Reject
	source source.Info
	now    time.Time
}

// MonthPlan is the part of a plan that concerns one month.
type MonthPlan struct {
	Month     utc.Month `json:"month"`
	FirstDay  utc.Day   `json:"first_day"`
	LastDay   utc.Day   `json:"last_day"`
	Points    int       `json:"points"`
	PointDays int64     `json:"point_days"`
	Archived  int64     `json:"point_days_archived"`

	want []want
	mend map[int32]*mending // of repair: files that are not as they should be
}

// want is what is to be read of one point in one month.
type want struct {
	point int32
	days  utc.Set
	// trimmed are the days among them that are not archived and that the source
	// no longer holds whole, or never did: finding one empty proves nothing.
	trimmed utc.Set
}

// ExitCode is 0, or 4 if a month will fail because its manifest is corrupt.
func (p *ArchivePlan) ExitCode() int {
	code := fault.ExitOK
	for _, f := range p.Failed {
		code = fault.Worse(code, fault.ExitCode(f.err))
	}
	return code
}

// Empty reports whether there is nothing to do.
func (p *ArchivePlan) Empty() bool { return p.PointDays == 0 }

// PlanArchive works out what an archiving job has to do. It changes nothing.
func PlanArchive(ctx context.Context, env Env, o ArchiveOptions) (*ArchivePlan, error) {
	o.defaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	info, err := env.Source.Info(ctx)
	if err != nil {
		return nil, err
	}
	p := &ArchivePlan{Command: o.Mode, Months: []MonthPlan{}, Failed: []Failure{}, Warnings: []string{}, source: info, now: clock(info.Now, env.Now())}
	if part, ok := env.Source.(source.Partial); ok {
		p.part = part
		if err := p.span(ctx, &o); err != nil {
			// Where no point is chosen, that is why there are no rows.
			if all, _, perr := env.Source.Points(ctx); perr == nil {
				if _, ferr := o.Points.filter(ctx, env.Source, all); ferr != nil {
					return nil, ferr
				}
			}
			return nil, err
		}
	}
	p.opts = o
	if p.Range, err = o.days(p.now); err != nil {
		return nil, err
	}
	catalog, _, err := manifests.LoadPoints(ctx, env.Store)
	if err != nil {
		return nil, err
	}
	if err := catalog.Accepts(info.ID, o.Adopt); err != nil {
		return nil, err
	}
	if p.all, p.stray, err = env.Source.Points(ctx); err != nil {
		return nil, err
	}
	chosen, err := o.Points.filter(ctx, env.Source, p.all)
	if err != nil {
		return nil, err
	}
	p.Points = len(chosen)
	p.byID = make(map[int32]sample.Point, len(p.all))
	for _, pt := range p.all {
		p.byID[pt.ID] = pt
	}
	ids := make([]int32, len(chosen))
	for i, pt := range chosen {
		ids[i] = pt.ID
	}
	if p.Range.Empty() || len(ids) == 0 {
		return p, nil
	}
	if o.Replace {
		if err := p.checkReplace(ctx, env, ids); err != nil {
			return nil, err
		}
	}
	for _, m := range p.Range.Months() {
		mp, late, err := p.month(ctx, env, m, ids)
		if err != nil {
			return nil, err
		}
		p.PointDays += mp.PointDays
		p.Archived += mp.Archived
		p.Late += late
		if mp.PointDays == 0 {
			continue
		}
		p.Months = append(p.Months, mp)
		if p.FirstDay == nil {
			p.FirstDay = &mp.FirstDay
		}
		p.LastDay = &mp.LastDay
	}
	return p, nil
}

// span gives o the range of what a partial source holds, if it has none.
func (p *ArchivePlan) span(ctx context.Context, o *ArchiveOptions) error {
	if o.Replace || o.Mode == Archive {
		return fault.Errorf(fault.Usage, "%s: files of history do not say what else there was; backfill or rearchive them, without --replace", o.Mode)
	}
	held, err := p.part.Span(ctx)
	if err != nil {
		return err
	}
	if o.Days != (utc.Days{}) {
		if held.Intersect(o.Days).Empty() {
			of := "none that can be archived"
			if !held.Empty() {
				of = "those of " + held.String()
			}
			return fault.Hint(fault.Errorf(fault.Invalid, "the input holds no rows of %s, only %s", o.Days, of), "give another range, or none: then it is that of the input")
		}
		return nil
	}
	o.Days = held.Intersect(utc.Days{From: source.Earliest, To: firstIncomplete(p.now, o.Grace)})
	if o.Days.Empty() {
		return fault.Errorf(fault.Invalid, "the input holds no rows of a complete day")
	}
	if held.To > o.Days.To {
		p.Warnings = append(p.Warnings, fmt.Sprintf("the input goes on to %s; days that are not complete yet were left out, the last one taken is %s", held.To-1, o.Days.To-1))
	}
	return nil
}

// days is the range that the job looks at.
func (o *ArchiveOptions) days(now time.Time) (utc.Days, error) {
	if o.Days == (utc.Days{}) {
		if o.Mode != Archive {
			return utc.Days{}, fault.Hint(fault.Errorf(fault.Usage, "%s: which days?", o.Mode),
				"give --day 2024-01-05, --month 2024-01, --last 7d, or --from 2024-01-05 --to 2024-02-01 (--to is exclusive)")
		}
		return hotDays(now, *o), nil
	}
	if err := checkRange(o.Days, now, o.Grace); err != nil {
		return utc.Days{}, err
	}
	return o.Days, nil
}

// month selects the days to read of one month.
func (p *ArchivePlan) month(ctx context.Context, env Env, m utc.Month, ids []int32) (mp MonthPlan, late int64, err error) {
	rng := p.Range.Intersect(m.Days())
	asked := utc.SetOf(m, rng)
	mp = MonthPlan{Month: m}
	man, _, err := manifests.Load(ctx, env.Store, m)
	if err != nil && !fault.Is(err, fault.Corrupt) {
		return mp, 0, err
	}
	archived := make(map[int32]utc.Set)
	if err == nil {
		for i := range man.Points {
			archived[man.Points[i].ID] = man.Points[i].Days.Archived()
		}
	} else { // It stops its month when it is run; the other months go on.
		f := failure(err)
		f.Month = m.String()
		p.Failed = append(p.Failed, f)
	}
	marked := make(map[int32]utc.Set)
	if p.opts.Mode == Archive && env.Ledger != nil {
		err := env.Ledger.Marks(ctx, ids, rng, func(mk source.Mark) {
			if mk.State != source.Claimed {
				marked[mk.Point] = marked[mk.Point].With(int(mk.Day - m.First()))
			}
		})
		if err != nil {
			return mp, 0, err
		}
	}
	trimmed, held := make(map[int32]utc.Set), make(map[int32]utc.Set)
	if p.part != nil {
		err := p.part.Held(ctx, ids, rng, func(s source.Slice) {
			held[s.Point] = held[s.Point].With(int(s.Day - m.First()))
		})
		if err != nil {
			return mp, 0, err
		}
		trimmed = held
	}
	if env.Ledger != nil {
		err := env.Ledger.Pruned(ctx, ids, rng, func(s source.Slice) {
			trimmed[s.Point] = trimmed[s.Point].With(int(s.Day - m.First()))
		})
		if err != nil {
			return mp, 0, err
		}
	}
	var union utc.Set
	for _, id := range ids {
		have, asked := archived[id], asked
		if p.part != nil {
			asked &= held[id]
		}
		days := asked
		switch p.opts.Mode {
		case Backfill:
			days &^= have
		case Archive:
			if env.Ledger != nil {
				late += int64((asked & have &^ marked[id]).Len())
				days &^= have & marked[id]
			} else {
				days &^= have
			}
		}
		mp.Archived += int64((asked & have &^ days).Len())
		if days == 0 {
			continue
		}
		mp.want = append(mp.want, want{id, days, trimmed[id] & days &^ have})
		mp.PointDays += int64(days.Len())
		union |= days
	}
	mp.Points = len(mp.want)
	if runs := union.Runs(m); len(runs) > 0 {
		mp.FirstDay, mp.LastDay = runs[0].From, runs[len(runs)-1].To-1
	}
	return mp, late, nil
}

// checkReplace refuses to make the source authoritative for days that it may
// have trimmed, unless that is allowed; then it counts what would go.
func (p *ArchivePlan) checkReplace(ctx context.Context, env Env, ids []int32) error {
	o := p.opts
	if env.Ledger == nil && !o.AllowLoss {
		return fault.Hint(fault.Errorf(fault.Usage, "--replace: without the ledger it can not be told whether the source still holds these days whole"),
			"give it write access to the ledger (no --no-state), or --allow-loss if the source is known to be whole")
	}
	limit := utc.DayOfTime(p.now.Add(-Retention)) + 1 // days before it may have been trimmed
	old := p.Range.Intersect(utc.Days{From: p.Range.From, To: limit})
	pruned := make(map[int32][]utc.Day)
	n := 0
	if env.Ledger != nil {
		err := env.Ledger.Pruned(ctx, ids, p.Range, func(s source.Slice) {
			pruned[s.Point] = append(pruned[s.Point], s.Day)
			n++
		})
		if err != nil {
			return err
		}
	}
	if old.Empty() && n == 0 {
		return nil
	}
	if !o.AllowLoss {
		what := fmt.Sprintf("%s: older than the retention limit of 30 days", old)
		if old.Empty() {
			what = fmt.Sprintf("%d of the (point, day)s are recorded as pruned from the source", n)
		}
		return fault.Hint(fault.Errorf(fault.Usage, "--replace refused: %s, so the source may no longer hold these rows and replacing would delete their only copy", what),
			"leave out --replace (a plain rearchive adds and corrects, and removes nothing), or add --allow-loss and look at --dry-run first")
	}
	for _, m := range p.Range.Months() {
		man, _, err := manifests.Load(ctx, env.Store, m)
		if fault.Is(err, fault.Corrupt) {
			continue // the month will fail, and lose nothing
		}
		if err != nil {
			return err
		}
		rng := p.Range.Intersect(m.Days())
		cold := make(map[int32]int64)
		var count []int32
		for _, id := range ids {
			e := man.Entry(id)
			if e == nil {
				continue
			}
			for d := rng.From; d < rng.To; d++ {
				cold[id] += int64(max(0, e.Days[d-m.First()]))
			}
			if cold[id] > 0 {
				count = append(count, id)
			}
		}
		hot, err := env.Source.Count(ctx, source.Query{Points: count, Days: rng})
		if err != nil {
			return err
		}
		for _, id := range count {
			p.AtRisk += max(0, cold[id]-hot[id])
		}
	}
	return nil
}

// Estimate fills EstimatedRows by counting the rows of at most 32 of the points
// of each month and scaling up.
func (p *ArchivePlan) Estimate(ctx context.Context, env Env) error {
	const sampled = 32
	for i := range p.Months {
		mp := &p.Months[i]
		step := max(1, len(mp.want)/sampled)
		var rows, slices int64
		few := MonthPlan{Month: mp.Month}
		for k := 0; k < len(mp.want); k += step {
			few.want = append(few.want, mp.want[k])
			slices += int64(mp.want[k].days.Len())
		}
		for _, b := range few.batches() {
			for _, run := range b.days.Runs(mp.Month) {
				counts, err := env.Source.Count(ctx, source.Query{Points: b.points, Days: run})
				if err != nil {
					return err
				}
				for _, n := range counts {
					rows += n
				}
			}
		}
		p.EstimatedRows += rows * mp.PointDays / max(1, slices)
	}
	return nil
}

// batch is the unit of claiming and extracting: points of one month that want
// the same days.
type batch struct {
	month  utc.Month
	days   utc.Set
	points []int32
	// trimmed has the days of points of which the source no longer has all rows.
	trimmed map[int32]utc.Set
}

// Sizes of a batch. They bound what a claim covers and how many rows one query
// returns; the samples in flight are bounded by bytes, not by these.
const (
	batchPoints = 512
	batchSlices = 2048 // 2,048 claims take about 10 ms
)

// batches groups the points of a month by the days they want.
func (mp *MonthPlan) batches() []batch {
	byDays := make(map[utc.Set][]int32)
	trimmed := make(map[int32]utc.Set)
	var order []utc.Set
	for _, w := range mp.want {
		if w.trimmed != 0 {
			trimmed[w.point] = w.trimmed
		}
		if _, ok := byDays[w.days]; !ok {
			order = append(order, w.days)
		}
		byDays[w.days] = append(byDays[w.days], w.point)
	}
	var bs []batch
	for _, days := range order {
		n := max(1, min(batchPoints, batchSlices/max(1, days.Len()))) // repair also mends without reading a day
		for chunk := range slices.Chunk(byDays[days], n) {
			bs = append(bs, batch{mp.Month, days, chunk, trimmed})
		}
	}
	return bs
}
