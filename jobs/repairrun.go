package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/manifests"
)

// LostDay is a (point, day) of which archived samples are gone for good.
type LostDay struct {
	Day     utc.Day `json:"day"`
	Samples int32   `json:"samples"` // that were archived; -1 where only the ledger knew of them
	Left    int32   `json:"left"`    // of them, or others, that are archived now
}

// Lost names what a repair could find nowhere.
type Lost struct {
	Month   utc.Month `json:"month"`
	PointID int32     `json:"point_id"`
	Point   string    `json:"point"`
	Days    []LostDay `json:"days"`
	Text    string    `json:"text,omitempty"` // where the days are not known
}

// RepairReport is what a repair did.
type RepairReport struct {
	Command string `json:"command"`
	Run     string `json:"run,omitempty"` // of the engine, if it had to mend files

	Revoked        int   `json:"marks_revoked"`
	Manifests      int   `json:"manifests_rebuilt"`
	Entries        int   `json:"entries_refreshed"` // adopted files and newer versions
	FilesWritten   int64 `json:"files_written"`
	BytesWritten   int64 `json:"bytes_written"`
	SamplesRead    int64 `json:"samples_read"` // from the source
	PointDaysRead  int64 `json:"point_days_read"`
	SamplesWritten int64 `json:"samples_in_files"`

	Lost        []Lost        `json:"lost"`
	Left        []Fix         `json:"left"`
	Failed      []Failure     `json:"failed"`
	Warnings    []string      `json:"warnings"`
	Interrupted bool          `json:"interrupted"`
	Stopped     string        `json:"stopped,omitempty"`
	Elapsed     float64       `json:"elapsed_seconds"`
	Billed      *source.Usage `json:"billed,omitempty"`
}

// ExitCode is 0 if all is mended, 3 if archived samples are lost, or the worst of
// what failed.
func (r *RepairReport) ExitCode() int {
	code := (&Report{Failed: r.Failed, Interrupted: r.Interrupted}).ExitCode(false)
	if len(r.Lost) > 0 {
		code = fault.Worse(code, fault.ExitFindings)
	}
	return code
}

// Run mends what the plan found. In order: marks are revoked, so that nothing
// trims what may be an only copy; the catalog and manifests that can not be read
// are set aside and rebuilt; whole files that no manifest names are adopted; and
// the archiving engine makes the month files anew. What an interrupted or killed
// repair has not done, the next one finds and does: what the cold tier counts
// loses its number only in the commit that brings what was found instead.
func (p *RepairPlan) Run(ctx context.Context, env Env) (RepairReport, error) {
	start := env.Now()
	r := RepairReport{Command: "repair", Lost: []Lost{}, Left: p.Left, Failed: slices.Clone(p.Blocked), Warnings: []string{}}
	for _, text := range p.Warnings {
		r.warn(env, "%s", text)
	}
	err := p.run(ctx, env, &r)
	if errors.Is(err, errStopped) || errors.Is(err, context.Canceled) {
		r.Interrupted, err = true, nil
	}
	r.Billed = env.Billed()
	r.Elapsed = env.Now().Sub(start).Seconds()
	return r, err
}

func (r *RepairReport) warn(env Env, format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	r.Warnings = append(r.Warnings, text)
	env.notify(Warning{text})
}

func (r *RepairReport) fail(env Env, err error, f Failure) {
	g := failure(err)
	g.Month, g.PointID, g.Point, g.Path = f.Month, f.PointID, f.Point, f.Path
	r.Failed = append(r.Failed, g)
	env.notify(PointFailed{g})
}

func (p *RepairPlan) run(ctx context.Context, env Env, r *RepairReport) error {
	for _, m := range p.months {
		for part := range slices.Chunk(m.revoke, batchSlices) {
			n, err := env.Ledger.Revoke(ctx, part)
			if err != nil {
				return fmt.Errorf("revoke marks of %s: %w", m.month, err)
			}
			r.Revoked += n
		}
	}
	if p.points {
		if err := p.rebuildPoints(ctx, env); err != nil {
			return err
		}
	}
	plan := &ArchivePlan{Command: repairing, Months: []MonthPlan{}, Warnings: []string{}, opts: p.o.Engine, all: p.all, source: p.info, byID: make(map[int32]sample.Point)}
	for _, pt := range p.all {
		plan.byID[pt.ID] = pt
	}
	for _, m := range p.months {
		if env.stopped() {
			return errStopped
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.manifest(ctx, env, m, r); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r.fail(env, err, Failure{Month: m.month.String(), Path: string(manifests.KeyOf(m.month))})
			if fault.Is(err, fault.Unavailable) {
				r.Stopped = err.Error()
				return nil
			}
			continue
		}
		if mp := m.plan(plan); len(mp.want) > 0 {
			plan.Months = append(plan.Months, mp)
			plan.PointDays += mp.PointDays
		}
	}
	if len(plan.Months) > 0 {
		plan.Range = utc.Days{From: plan.Months[0].FirstDay, To: plan.Months[len(plan.Months)-1].LastDay + 1}
		rep, err := plan.Run(ctx, env)
		r.Run = rep.Run
		r.FilesWritten, r.BytesWritten, r.SamplesWritten = rep.FilesWritten, rep.BytesWritten, rep.samplesInFiles
		r.SamplesRead, r.PointDaysRead = rep.SamplesRead, rep.PointDays
		r.Failed = append(r.Failed, rep.Failed...)
		r.Warnings = append(r.Warnings, rep.Warnings...)
		r.Interrupted, r.Stopped = rep.Interrupted, rep.Stopped
		if err != nil {
			return err
		}
	}
	if !r.Interrupted && r.Stopped == "" {
		for _, key := range p.reject {
			if err := p.mendReject(ctx, env, key, r); err != nil {
				return err
			}
		}
	}
	if r.Interrupted || r.Stopped != "" {
		return nil // nothing is given up before it was tried
	}
	return p.losses(ctx, env, r)
}

// manifest rebuilds, completes and refreshes the manifest of a month.
func (p *RepairPlan) manifest(ctx context.Context, env Env, m *monthRepair, r *RepairReport) error {
	if m.rebuild {
		_, warnings, err := manifests.Rebuild(ctx, env.Store, m.month, describe)
		for _, w := range warnings {
			r.warn(env, "%v", w)
		}
		if err != nil {
			return err
		}
		r.Manifests++
	}
	if !m.absent && len(m.changes) == 0 {
		return nil
	}
	c := manifests.NewCommitter(env.Store, m.month, describe, manifests.Options{Workers: p.o.Workers})
	warnings, err := c.Load(ctx)
	for _, w := range warnings {
		r.warn(env, "%v", w)
	}
	if err != nil {
		return err
	}
	for _, ch := range m.changes {
		c.Add(ch)
	}
	res, err := c.Commit(ctx)
	for _, w := range res.Warnings {
		r.warn(env, "%v", w)
	}
	if err != nil {
		return err
	}
	if m.absent {
		r.Manifests++
	}
	r.Entries += len(res.Committed)
	for _, f := range res.Failed {
		r.fail(env, f.Err, Failure{Month: m.month.String(), PointID: f.Point, Point: f.Name})
	}
	return nil
}

// plan is the part of the engine's plan that mends the files of the month.
func (m *monthRepair) plan(a *ArchivePlan) MonthPlan {
	mp := MonthPlan{Month: m.month, mend: make(map[int32]*mending), FirstDay: m.month.First(), LastDay: m.month.Days().To - 1}
	for _, id := range sortedKeys(m.points) {
		pt := m.points[id]
		if pt.mend == nil {
			continue
		}
		if _, known := a.byID[id]; !known {
			a.byID[id] = sample.Point{ID: id, Name: pt.name}
		}
		mp.mend[id] = pt.mend
		mp.want = append(mp.want, want{point: id, days: pt.read, trimmed: pt.unsure})
		mp.PointDays += int64(pt.read.Len())
	}
	mp.Points = len(mp.want)
	return mp
}

// rebuildPoints writes points.json anew: of the manifests the names, of the
// replica what it knew, and of the source what it says now.
func (p *RepairPlan) rebuildPoints(ctx context.Context, env Env) error {
	var points []sample.Point
	months, err := manifests.Months(ctx, env.Store)
	if err != nil {
		return err
	}
	for _, m := range months {
		man, _, err := manifests.Load(ctx, env.Store, m)
		if fault.Is(err, fault.Corrupt) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range man.Points {
			points = append(points, sample.Point{ID: e.ID, Name: e.Name})
		}
	}
	id := p.info.ID
	if p.from != nil {
		points = append(points, p.from.catalog.Points...)
		if id == "" {
			id = p.from.catalog.SourceID
		}
	}
	points = append(points, p.all...)
	return manifests.RebuildPoints(ctx, env.Store, id, points)
}

// mendReject puts the replica's copy in the place of a file of rejects that can
// not be read, or an empty one: it is only a record, and the rows, if they are
// still in the source, are rejected again when their day is archived again.
func (p *RepairPlan) mendReject(ctx context.Context, env Env, key object.Key, r *RepairReport) error {
	for range writeAttempts {
		data, attrs, err := env.Store.Get(ctx, key)
		if err != nil {
			return err
		}
		var good []byte
		if p.from != nil {
			got, _, err := p.o.Replica.Get(ctx, key)
			if err != nil && !fault.Is(err, fault.NotExist) {
				return fmt.Errorf("replica: %w", err)
			}
			if err == nil && manifests.NamedByContent(key, got) {
				good = got
			}
		}
		if len(data) == 0 || manifests.NamedByContent(key, data) {
			return nil // done, it was the answer that was lost
		}
		if _, err := manifests.SetAside(ctx, env.Store, key, data); err != nil {
			return err
		}
		_, err = env.Store.Put(ctx, key, good, object.PutOptions{IfMatch: attrs.ETag, Type: "application/x-ndjson"})
		if err == nil {
			if good == nil {
				r.warn(env, "%s could not be read; a copy was set aside. Rows of it that are still in the source are recorded again by `etl rearchive`", key)
			}
			return nil
		}
		if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Unknown) {
			return err
		}
	}
	return fault.Errorf(fault.Transient, "%s: it kept changing", key)
}

// losses compares what the cold tier counts now with what it was known to hold.
func (p *RepairPlan) losses(ctx context.Context, env Env, r *RepairReport) error {
	for _, m := range p.months {
		var man *manifests.Manifest
		failed := func(id int32) bool {
			return slices.ContainsFunc(r.Failed, func(f Failure) bool {
				return f.Month == m.month.String() && (f.PointID == id || f.PointID == 0)
			})
		}
		for _, id := range sortedKeys(m.points) {
			pt := m.points[id]
			if pt.mend == nil || failed(id) {
				continue
			}
			if man == nil {
				var err error
				if man, _, err = manifests.Load(ctx, env.Store, m.month); err != nil {
					return err
				}
			}
			now := sample.NewDayCounts(m.month)
			if e := man.Entry(id); e != nil {
				now = e.Days
			}
			l := Lost{Month: m.month, PointID: id, Point: pt.name, Days: []LostDay{}}
			for i, had := range pt.counts {
				switch day := m.month.First() + utc.Day(i); {
				case had > 0 && now[i] < had:
					l.Days = append(l.Days, LostDay{day, had, max(0, now[i])})
				case pt.gone.Has(i) && now[i] == sample.NotArchived:
					l.Days = append(l.Days, LostDay{day, -1, 0})
				}
			}
			if pt.unknown != "" {
				l.Text = fmt.Sprintf("%s could not be read, and nothing says which days it held; now %d days are archived", pt.unknown, now.Archived().Len())
			}
			if len(l.Days) > 0 || l.Text != "" {
				r.Lost = append(r.Lost, l)
			}
		}
	}
	return nil
}
