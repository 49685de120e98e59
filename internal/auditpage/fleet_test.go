package auditpage

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"etl/jobs"
)

// fleet is the audit of a fleet as one has it: outages of whole gateways, points
// that drop out now and then, late starts, retired points, a day that was never
// archived, points that report changes only.
func fleet(points, days int, zone string, seed uint64) *jobs.AuditReport {
	rnd := rand.New(rand.NewPCG(seed, 1))
	loc, err := time.LoadLocation(zone)
	if err != nil {
		panic(err)
	}
	first := time.Date(2025, 1, 12, 0, 0, 0, 0, loc)
	r := &jobs.AuditReport{From: first, To: first.AddDate(0, 0, days), Zone: zone, Tolerance: 1.5, Silence: 6 * 3_600_000}
	for d := range days + 1 {
		r.DayStarts = append(r.DayStarts, first.AddDate(0, 0, d).UnixMilli())
	}
	from, to := r.DayStarts[0], r.DayStarts[days]

	kinds := []struct{ equipment, unit string }{
		{"SupplyAirTemp", "degC"}, {"ReturnAirTemp", "degC"}, {"SupplyAirFlow", "m3/h"}, {"DamperPosition", "%"}, {"FanSpeed", "%"},
		{"Power", "kW"}, {"Occupancy", ""}, {"CO2", "ppm"}, {"ValvePosition", "%"}, {"FilterPressure", "Pa"},
	}
	systems := []string{"HVAC", "Plant", "Lighting", "Meters"}
	units := []string{"AHU", "Chiller", "Zone", "Panel"}

	type outage struct {
		from, to int64
		note     string
	}
	gateways := max(points/40, 4)
	common := make([][]outage, gateways) // of all points of a gateway
	for g := range common {
		for range max(days/60, 1) {
			if rnd.IntN(3) > 0 {
				at := from + rnd.Int64N(to-from)
				common[g] = append(common[g], outage{at, at + 1_800_000 + rnd.Int64N(30*3_600_000), ""})
			}
		}
	}
	planned := from + (to-from)*6/10 + 7*3_600_000 // maintenance that somebody knows of
	lost := days * 4 / 10                          // the day that was never archived, for some

	for i := range points {
		g := i % gateways
		k := kinds[(i/gateways)%len(kinds)]
		s := g % len(systems)
		p := jobs.AuditPoint{
			ID:   int32(i + 1),
			Name: fmt.Sprintf("Building%d.%s.%s%d.%s", g/len(systems)+1, systems[s], units[s], (i/gateways)/len(kinds)+1, k.equipment),

			System: systems[s], Equipment: fmt.Sprintf("%s%d", units[s], (i/gateways)/len(kinds)+1), Unit: k.unit,
			From: from, To: to,
		}
		interval := int64(60_000)
		if s == 3 {
			interval = 900_000
		}
		p.Interval = &interval
		if k.equipment == "Occupancy" { // changes only
			p.Interval, interval = new(int64(0)), 0
		}
		p.Measured = rnd.IntN(20) == 0
		switch rnd.IntN(18) {
		case 0:
			p.From = from + rnd.Int64N((to-from)*6/10)
		case 1:
			p.To = to - rnd.Int64N((to-from)/2)
		}

		outs := slices.Clone(common[g])
		if s == 1 {
			outs = append(outs, outage{planned, planned + 9*3_600_000, "planned maintenance"})
		}
		n := 0
		switch f := rnd.Float64(); {
		case f < 0.015:
			n = days * 2 // a bad radio
		case f < 0.12:
			n = days / 6
		case f < 0.5:
			n = 1 + days/60
		}
		for range n {
			at := from + rnd.Int64N(to-from)
			length := int64(rnd.ExpFloat64() * 40 * 60_000)
			if rnd.IntN(30) == 0 {
				length *= 40
			}
			outs = append(outs, outage{at, at + 150_000 + length, ""})
		}
		if rnd.IntN(60) == 0 { // died
			outs = append(outs, outage{to - rnd.Int64N((to-from)/3), to + 1, ""})
		}
		notArchived := i%9 == 3
		if notArchived {
			outs = append(outs, outage{r.DayStarts[lost], r.DayStarts[lost+1], ""})
		}
		slices.SortFunc(outs, func(a, b outage) int { return cmp.Compare(a.from, b.from) })

		short := make([]int64, days) // samples missing a day
		at := p.From
		for _, o := range outs {
			if interval > 0 {
				o.from -= (o.from - from) % interval
				o.to += interval - (o.to-from)%interval
			} else if o.to-o.from < r.Silence {
				continue
			}
			o.from, o.to = max(o.from, at), min(o.to, p.To)
			if o.to-o.from <= max(interval*3/2, 1000) || p.From >= p.To {
				continue
			}
			at = o.to
			gap := jobs.Gap{PointID: p.ID, Point: p.Name, Kind: "inner", After: new(o.from), Before: new(o.to), From: o.from, To: o.to, Length: o.to - o.from, Known: o.note != "", Note: o.note}
			if o.to == p.To {
				gap.Kind, gap.Before = "tail", nil
			}
			if o.from == p.From {
				gap.Kind, gap.After = "head", nil
			}
			if gap.Kind == "head" && o.to == p.To {
				gap.Kind, gap.Before = "empty", nil
			}
			if interval > 0 {
				missing := (gap.Length+interval/2)/interval - 1
				gap.Missing = &missing
				p.Missing += missing
				if gap.Known {
					p.Known += missing
				}
				for d := range days {
					lo, hi := max(o.from+1, r.DayStarts[d]), min(o.to, r.DayStarts[d+1])
					if hi > lo {
						// The first sample is at o.from, the last one at o.to.
						short[d] += (hi-1-from)/interval - (lo-1-from)/interval
					}
				}
			}
			if gap.Known {
				r.Coverage.KnownGaps++
			} else {
				p.Gaps++
				p.Longest = max(p.Longest, gap.Length)
			}
			r.Gaps = append(r.Gaps, gap)
		}
		var expected int64
		for d := range days {
			lo, hi := max(p.From, r.DayStarts[d]), min(p.To, r.DayStarts[d+1])
			var day jobs.AuditDay
			switch {
			case hi <= lo:
				day.State = jobs.DayOutside
			case interval == 0:
				day.State, day.Present = jobs.DaySome, int32(10+rnd.IntN(60))
			default:
				due := (hi - lo) / interval
				have := max(due-short[d], 0)
				day.Expected, day.Present = int32(due), int32(have)
				expected += due
				switch {
				case notArchived && d == lost+1 && i%2 == 1:
					day.State, day.Present = jobs.DayUnread, 0
				case notArchived && d == lost:
					day.State, day.Present = jobs.DayNotArchived, 0
				case have == 0:
					day.State = jobs.DayEmpty
				case have < due:
					day.State = jobs.DayHoles
				default:
					day.State = jobs.DayWhole
				}
			}
			p.Present += int64(day.Present)
			p.Days = append(p.Days, day)
			switch day.State {
			case jobs.DayNotArchived:
				r.Coverage.NotArchived++
			case jobs.DayEmpty:
				r.Coverage.Empty++
			case jobs.DayHoles:
				r.Coverage.Holes++
			case jobs.DayWhole:
				r.Coverage.Whole++
			}
		}
		if interval > 0 {
			p.Expected = &expected
			p.Missing = min(p.Missing, expected)
		}
		if p.Present > 0 {
			p.First, p.Last = new(p.From), new(p.To-max(interval, 1000))
		}
		c := &r.Coverage
		c.Points++
		c.Expected += expected
		c.Present += p.Present
		c.Missing += p.Missing
		c.Known += p.Known
		c.Gaps += p.Gaps
		c.LongestGap = max(c.LongestGap, p.Longest)
		if rnd.IntN(40) == 0 && p.To > p.From {
			at := p.From + rnd.Int64N(p.To-p.From)
			r.Quality = append(r.Quality, jobs.Suspect{PointID: p.ID, Point: p.Name, Rule: "flatline", From: at, To: at + 7*3_600_000, Samples: 421, Value: 421, Limit: 360,
				Text: "421 samples in a row have the value 21.5; 360 are allowed"})
		}
		r.Points = append(r.Points, p)
	}
	return r
}

// noise is the report that packs worst: nothing in it follows from anything else.
func noise(points, days, gapsEach int) *jobs.AuditReport {
	rnd := rand.New(rand.NewPCG(7, 7))
	r := fleet(points, days, "UTC", 7)
	r.Gaps, r.Quality = nil, nil
	for i := range r.Points {
		p := &r.Points[i]
		for d := range p.Days {
			p.Days[d] = jobs.AuditDay{State: jobs.DayHoles, Expected: 1440, Present: int32(rnd.IntN(1440))}
		}
		p.Name = fmt.Sprintf("%x", rnd.Uint64())
		p.Gaps = gapsEach
		at := r.DayStarts[0]
		for range gapsEach {
			at += rnd.Int64N(86_400_000 * int64(days) / int64(gapsEach+1))
			g := jobs.Gap{PointID: p.ID, Point: p.Name, Kind: "inner", From: at, To: at + rnd.Int64N(7_000_000)}
			g.After, g.Before, g.Length, g.Missing = new(g.From), new(g.To), g.To-g.From, new(rnd.Int64N(120))
			r.Gaps = append(r.Gaps, g)
		}
	}
	return r
}
