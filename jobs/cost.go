package jobs

import (
	"context"

	"etl/internal/cost"
	"etl/internal/source"
	"etl/internal/utc"
)

// Measured is what the tiers say of a load.
type Measured struct {
	Points        int     `json:"points,omitempty"`
	SamplesPerDay float64 `json:"samples_per_day,omitempty"` // mean of the last days archived, else by the points' intervals
	D1Bytes       int64   `json:"d1_bytes,omitempty"`
	// SampleBytes is what a sample takes in the month files.
	SampleBytes float64 `json:"bytes_per_sample,omitempty"`
	ColdBytes   float64 `json:"cold_bytes,omitempty"`
	HistoryDays float64 `json:"history_days,omitempty"`

	Billed *source.Usage `json:"billed,omitempty"`
}

// MeasureLoad looks at what is set of both tiers: the points and the size of the source,
// the manifests of the store. It reads no row of timeseries but those that list points, and
// no month file.
func MeasureLoad(ctx context.Context, env Env) (m Measured, err error) {
	now := env.Now()
	if env.Source != nil {
		if g, ok := env.Source.(source.Gauger); ok {
			if m.D1Bytes, err = g.Size(ctx); err != nil {
				return m, err
			}
		}
		points, _, err := env.Source.Points(ctx)
		if err != nil {
			return m, err
		}
		for _, p := range points {
			if p.RetiredAt == nil || *p.RetiredAt > now.UnixMilli() {
				m.Points++
			}
		}
		m.SamplesPerDay = expectedPerDay(points, now)
	}
	m.Billed = env.Billed()
	if env.Store == nil {
		return m, nil
	}
	s := &statusJob{env: env, now: now, window: utc.Days{From: utc.DayOfTime(now) - HotWindow, To: utc.DayOfTime(now)}}
	c := &coldFacts{}
	if s.readCold(ctx, c); c.err != nil {
		return m, c.err
	}
	if len(c.bad) > 0 {
		return m, c.bad[0]
	}
	var samples, bytes int64
	for month, t := range c.totals {
		samples, bytes = samples+t.Samples, bytes+t.Bytes
		m.ColdBytes += float64(t.Bytes + cost.ManifestBytes*int64(t.Points))
		if month == utc.DayOfTime(now).Month() || env.Source == nil {
			m.Points = max(m.Points, t.Points)
		}
	}
	if samples == 0 {
		return m, nil
	}
	m.SampleBytes = float64(bytes) / float64(samples)
	if c.first == nil { // no entry says when, whatever the sums say
		return m, nil
	}
	m.HistoryDays = float64(*c.last - *c.first + 1)
	if n := samplesPerDay(c.ends, utc.Days{From: *c.first, To: *c.last + 1}); n > 0 {
		m.SamplesPerDay = n
	}
	return m, nil
}

// Apply puts what was measured into a load and returns the names of its fields, as in JSON.
func (m Measured) Apply(l *cost.Load) (fields []string) {
	set := func(name string, to *float64, v float64) {
		if v > 0 {
			*to = v
			fields = append(fields, name)
		}
	}
	if m.Points > 0 {
		l.SamplesPerDay *= float64(m.Points) / float64(l.Points) // unless it was measured too
		l.Points = m.Points
		fields = append(fields, "points")
	}
	set("samples_per_day", &l.SamplesPerDay, m.SamplesPerDay)
	set("bytes_per_sample", &l.BytesPerSample, m.SampleBytes)
	set("cold_bytes", &l.ColdBytes, m.ColdBytes)
	set("history_days", &l.HistoryDays, m.HistoryDays)
	return fields
}
