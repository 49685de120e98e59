package jobs

import (
	"cmp"
	"context"
	"slices"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/manifests"
)

// PointSummary is what both tiers hold of one point.
type PointSummary struct {
	ID          int32  `json:"id"`
	Name        string `json:"name"`
	First       *int64 `json:"first_ms"` // Unix milliseconds of the first and last sample, of either tier
	Last        *int64 `json:"last_ms"`
	HotRows     *int64 `json:"hot_rows"` // null where there are some and counting them would be billed
	ColdMonths  int    `json:"cold_months"`
	ColdSamples int64  `json:"cold_samples"`
	ColdBytes   int64  `json:"cold_bytes"`
}

// PointsReport is the result of ListPoints.
type PointsReport struct {
	Points   []PointSummary `json:"points"`
	Failed   []Failure      `json:"failed"` // manifests that could not be read
	exitCode int
}

// ExitCode is 0, or 4 if a manifest could not be read.
func (r *PointsReport) ExitCode() int { return r.exitCode }

// ListPoints lists the chosen points of the source and of the cold tier.
// Env.Source may be nil.
func ListPoints(ctx context.Context, env Env, sel Points) (PointsReport, error) {
	r := PointsReport{Points: []PointSummary{}, Failed: []Failure{}}
	names := make(map[int32]string)
	known, _, err := manifests.LoadPoints(ctx, env.Store)
	if err != nil {
		return r, err
	}
	for _, p := range known.Points {
		names[p.ID] = p.Name
	}
	hot := make(map[int32]source.Summary)
	if env.Source != nil {
		all, _, err := env.Source.Points(ctx)
		if err != nil {
			return r, err
		}
		for _, p := range all {
			if old, ok := names[p.ID]; !ok || !p.Orphan || old == "" {
				names[p.ID] = p.Name
			}
		}
	}
	var all []sample.Point
	for id, name := range names {
		all = append(all, sample.Point{ID: id, Name: name})
	}
	slices.SortFunc(all, func(a, b sample.Point) int { return cmp.Compare(a.ID, b.ID) })
	if env.Source == nil && sel.Group != "" {
		return r, fault.Errorf(fault.Usage, "--group %s: groups are in the source; give --source too", sel.Group)
	}
	chosen, err := sel.filter(ctx, env.Source, all)
	if err != nil {
		return r, err
	}
	at := make(map[int32]int, len(chosen))
	ids := make([]int32, len(chosen))
	for i, p := range chosen {
		at[p.ID], ids[i] = i, p.ID
		r.Points = append(r.Points, PointSummary{ID: p.ID, Name: p.Name})
	}
	if s, ok := env.Source.(source.Summarizer); ok {
		if err := s.Summaries(ctx, ids, func(id int32, s source.Summary) { hot[id] = s }); err != nil {
			return r, err
		}
	}
	months, err := manifests.Months(ctx, env.Store)
	if err != nil {
		return r, err
	}
	for _, m := range months {
		if err := r.addMonth(ctx, env, m, at); err != nil {
			return r, err
		}
	}
	for i := range r.Points {
		p := &r.Points[i]
		s := hot[p.ID]
		if s.Rows != source.NotCounted {
			p.HotRows = new(s.Rows)
		}
		if s.Rows != 0 {
			p.see(s.First, s.Last)
		}
	}
	return r, nil
}

func (r *PointsReport) addMonth(ctx context.Context, env Env, m utc.Month, at map[int32]int) error {
	man, _, err := manifests.Load(ctx, env.Store, m)
	if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid) {
		f := failure(err)
		f.Month = m.String()
		r.Failed = append(r.Failed, f)
		r.exitCode = fault.Worse(r.exitCode, fault.ExitCode(err))
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range man.Points {
		i, ok := at[e.ID]
		if !ok {
			continue
		}
		p := &r.Points[i]
		if e.Samples > 0 {
			p.ColdMonths++
			p.see(*e.First, *e.Last)
		}
		p.ColdSamples += e.Samples
		p.ColdBytes += e.Bytes
	}
	return nil
}

// see widens the point's time span.
func (p *PointSummary) see(first, last int64) {
	if p.First == nil || first < *p.First {
		p.First = &first
	}
	if p.Last == nil || last > *p.Last {
		p.Last = &last
	}
}
