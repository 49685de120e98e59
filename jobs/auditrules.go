package jobs

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// The rules of data quality. Each has its SQL beside it, a named query of the same
// meaning, and a test that holds the two equal: @flatlines, @spikes, @out-of-range,
// @bad-share and @interval-drift.

// AuditRules are the names of the rules, in the order of a report.
var AuditRules = []string{"flatline", "spike", "range", "quality", "drift"}

// GoodQuality is the quality from which a sample is good, as OPC has it.
const GoodQuality = 192

// flatlineSamples are how many readings a flat line has at least.
const flatlineSamples = 10

// flatlineChanges is of how many readings one has another value than the last, at
// least, where a value that stays the same is suspect.
const flatlineChanges = 10

// driftSamples are how many intervals tell of a drift at least.
const driftSamples = 10

// madScale makes the median absolute deviation of normally distributed values their
// standard deviation: the 75th percentile of the normal distribution.
const madScale = 0.6745

// RuleLimits are what the rules allow; the zero value of a field is its default.
type RuleLimits struct {
	Flatline time.Duration // how long a measured value may stay the same: 24 h
	Spike    float64       // robust z-score of a value: 10
	// Of these nothing at all may be allowed, so nil is the default.
	Bad   *float64 // share of samples of bad quality: 0.05
	Drift *float64 // deviation of the interval that is kept from the one that is set: 0.1
}

func (l *RuleLimits) defaults() {
	l.Flatline, l.Spike = cmp.Or(l.Flatline, 24*time.Hour), cmp.Or(l.Spike, 10)
	l.Bad, l.Drift = cmp.Or(l.Bad, new(0.05)), cmp.Or(l.Drift, new(0.1))
}

// suspects are the findings of the rules in the readings of a point.
func (a *auditor) suspects(i int, c *course) []Suspect {
	if len(a.rules) == 0 {
		return nil
	}
	p := a.chosen[i]
	var found []Suspect
	add := func(rule string, from, to, samples int64, value, limit float64, text string) {
		value = min(max(value, -math.MaxFloat64), math.MaxFloat64) // JSON knows no ±Inf
		found = append(found, Suspect{PointID: p.ID, Point: p.Name, Rule: rule, From: from, To: to, Samples: samples, Value: value, Limit: limit, Text: text})
	}
	l := a.o.Limits
	if a.rules["flatline"] && (p.IntervalMS == nil || *p.IntervalMS > 0) {
		if from, to, n := c.flatline(); n >= flatlineSamples && to-from >= l.Flatline.Milliseconds() {
			hours := float64(to-from) / 3600e3
			add("flatline", from, to, n, hours, l.Flatline.Hours(), fmt.Sprintf("stays the same for %.1f h, %d readings", hours, n))
		}
	}
	if a.rules["spike"] {
		if from, to, n, worst := c.spikes(l.Spike); n > 0 {
			add("spike", from, to, n, worst, l.Spike, fmt.Sprintf("values far from the others: %d, up to %.1f robust deviations", n, worst))
		}
	}
	if a.rules["range"] {
		if from, to, n, worst, bound := c.outside(p.MinValue, p.MaxValue); n > 0 {
			add("range", from, to, n, worst, bound, fmt.Sprintf("values out of range: %d, the worst %g, beyond %g", n, worst, bound))
		}
	}
	if a.rules["quality"] && c.samples > 0 {
		if share := float64(c.bad) / float64(c.samples); share > *l.Bad {
			add("quality", c.firstBad, c.lastBad, c.bad, share, *l.Bad, fmt.Sprintf("%.1f%% of the samples are of bad quality", 100*share))
		}
	}
	if a.rules["drift"] && p.IntervalMS != nil && *p.IntervalMS > 0 {
		set := float64(*p.IntervalMS)
		if m, n := c.typicalInterval(*p.IntervalMS); n >= driftSamples && math.Abs(m-set) > *l.Drift*set {
			limit := set * (1 + math.Copysign(*l.Drift, m-set))
			add("drift", c.ts[0], c.ts[len(c.ts)-1], n, m, limit, fmt.Sprintf("reports every %g s, it should every %g s", m/1000, set/1000))
		}
	}
	return found
}

// flatline is the longest time that a value stayed the same, the first of them, if
// the point measures: not one that only ever has whole numbers, which may be a state
// or a counter, nor one that changes in fewer than a tenth of its other readings, as
// setpoints do.
func (c *course) flatline() (from, to, n int64) {
	measures, runs := false, int64(0)
	for _, v := range c.value {
		if v != math.Trunc(v) {
			measures = true
			break
		}
	}
	if !measures {
		return 0, 0, 0
	}
	for _, s := range c.parts {
		first := s.i
		for k := s.i; k < s.j; k++ {
			if k+1 < s.j && c.value[k+1] == c.value[k] {
				continue
			}
			runs++
			if d := c.ts[k] - c.ts[first]; n == 0 || d > to-from {
				from, to, n = c.ts[first], c.ts[k], int64(k-first+1)
			}
			first = k + 1
		}
	}
	if flatlineChanges*(runs-1) < int64(len(c.value))-n {
		return 0, 0, 0
	}
	return from, to, n
}

// spikes are the finite values whose robust z-score is beyond the limit. Where more than
// half of the values are the same there is nothing to measure by.
func (c *course) spikes(limit float64) (from, to, n int64, worst float64) {
	c.scratch = c.scratch[:0]
	for _, v := range c.value {
		if !math.IsInf(v, 0) {
			c.scratch = append(c.scratch, v)
		}
	}
	if len(c.scratch) == 0 {
		return
	}
	middle := median(c.scratch)
	for k, v := range c.scratch {
		c.scratch[k] = math.Abs(v - middle)
	}
	mad := median(c.scratch)
	if mad == 0 || math.IsInf(mad, 0) {
		return
	}
	for k, v := range c.value {
		if z := madScale * math.Abs(v-middle) / mad; z > limit && !math.IsInf(v, 0) {
			if n == 0 {
				from = c.ts[k]
			}
			to, n, worst = c.ts[k], n+1, max(worst, z)
		}
	}
	return
}

// outside are the values beyond the bounds, the worst of them and the bound it is beyond.
func (c *course) outside(lo, hi *float64) (from, to, n int64, worst, bound float64) {
	least, most := math.Inf(-1), math.Inf(1)
	if lo != nil {
		least = *lo
	}
	if hi != nil {
		most = *hi
	}
	far := 0.0
	for k, v := range c.value {
		if v >= least && v <= most {
			continue
		}
		b := least
		if v > most {
			b = most
		}
		if n == 0 {
			from = c.ts[k]
		}
		if d := math.Abs(v - b); n == 0 || d > far {
			far, worst, bound = d, v, b
		}
		to, n = c.ts[k], n+1
	}
	return
}

// typicalInterval is the median of the n intervals between readings.
func (c *course) typicalInterval(set int64) (m float64, n int64) {
	same := int64(0)
	for _, s := range c.parts {
		for k := s.i + 1; k < s.j; k++ {
			n++
			if c.ts[k]-c.ts[k-1] == set {
				same++
			}
		}
	}
	if 2*same > n { // as a rule
		return float64(set), n
	}
	m, _ = c.medianInterval()
	return m, n
}

// medianInterval is the median of the times between readings; false if there are none.
func (c *course) medianInterval() (float64, bool) {
	c.scratch = c.scratch[:0]
	for _, s := range c.parts {
		for k := s.i + 1; k < s.j; k++ {
			c.scratch = append(c.scratch, float64(c.ts[k]-c.ts[k-1]))
		}
	}
	if len(c.scratch) == 0 {
		return 0, false
	}
	return median(c.scratch), true
}

// median is the median of x, of which none is NaN, and reorders it. Of an even number
// it is the mean of the two in the middle.
func median(x []float64) float64 {
	n := len(x)
	upper := nth(x, n/2)
	if n%2 == 1 {
		return upper
	}
	lower := slices.Max(x[:n/2])
	return lower*0.5 + upper*0.5
}

// nth puts the n-th smallest of x at its place, none greater before it and none smaller
// after it, and returns it: 10 ns a value, where sorting takes 80.
func nth(x []float64, n int) float64 {
	lo, hi := 0, len(x)-1
	for lo < hi {
		pivot := median3(x[lo], x[lo+(hi-lo)/2], x[hi])
		i, j := lo, hi
		for i <= j {
			for x[i] < pivot {
				i++
			}
			for x[j] > pivot {
				j--
			}
			if i <= j {
				x[i], x[j] = x[j], x[i]
				i++
				j--
			}
		}
		switch {
		case n <= j:
			hi = j
		case n >= i:
			lo = i
		default:
			return x[n]
		}
	}
	return x[n]
}

func median3(a, b, c float64) float64 { return max(min(a, b), min(max(a, b), c)) }
