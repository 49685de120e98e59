package fleet

import (
	"math"
	"math/rand/v2"
	"slices"

	"etl/internal/sample"
	"etl/internal/utc"
)

// Good, Uncertain and Bad are the OPC qualities that samples have.
const (
	Good      = 192
	Uncertain = 64
	Bad       = 24 // communication failure
)

// Alarm is the flag of a sample in alarm.
const Alarm = 1

// Series appends the samples of the i-th point on the given days to dst, those
// outside Fleet.Days left out. Ranges may be cut and ordered as one likes: day
// by day gives the same samples as all at once.
func (f *Fleet) Series(i int, days utc.Days, dst *sample.Series) {
	days = days.Intersect(f.Days())
	p := &f.points[i]
	for d := days.From; d < days.To; d++ {
		from := dst.Len()
		f.day(i, d, dst)
		for _, g := range p.gaps {
			if g.to <= d.Start() || g.from >= d.End() {
				continue
			}
			a, _ := slices.BinarySearch(dst.TS[from:], g.from)
			b, _ := slices.BinarySearch(dst.TS[from:], g.to)
			dst.TS = slices.Delete(dst.TS, from+a, from+b)
			dst.Value = slices.Delete(dst.Value, from+a, from+b)
			dst.Quality = slices.Delete(dst.Quality, from+a, from+b)
			dst.Flags = slices.Delete(dst.Flags, from+a, from+b)
		}
	}
}

// maxDelay bounds by how many ms a sample comes late on points that poll.
const maxDelay = 2_000

// actual is when the sample due at the time due is taken.
func (p *point) actual(due int64) int64 {
	if !p.delay {
		return due
	}
	// Never early: a sample stays in the day that it is due in.
	return due + int64(mix(p.hash^uint64(due))%maxDelay)
}

// day appends the day's samples as if there were no gaps.
func (f *Fleet) day(i int, d utc.Day, dst *sample.Series) {
	p := &f.points[i]
	var rng rand.PCG
	rng.Seed(p.hash, mix(uint64(d)))
	from := dst.Len()
	if p.kind == Count {
		p.events(d, &rng, dst)
	} else {
		n := int(utc.DayMillis / p.interval)
		dst.Grow(n)
		dst.TS, dst.Value = dst.TS[:from+n], dst.Value[:from+n]
		dst.Quality, dst.Flags = dst.Quality[:from+n], dst.Flags[:from+n]
		ts := dst.TS[from:]
		if p.delay {
			for k := range ts {
				ts[k] = p.actual(d.Start() + int64(k)*p.interval)
			}
		} else {
			for k := range ts {
				ts[k] = d.Start() + int64(k)*p.interval
			}
		}
		quality, flags := dst.Quality[from:], dst.Flags[from:]
		for k := range quality {
			quality[k] = Good
		}
		clear(flags)
		p.values(d, &rng, dst.Value[from:])
	}
	f.spoil(p, d, dst.Slice(from, dst.Len()))
}

// values fills v, evenly spread over the day. Loops are per kind and call
// nothing that is not inlined: the benchmark builds 194 M rows with them.
func (p *point) values(d utc.Day, rng *rand.PCG, v []float64) {
	n := len(v)
	perSample := 1440 / n // minutes
	switch p.kind {
	case Temperature:
		w := 0.0
		for k := range v {
			v[k] = w
			w += p.step * gauss(rng.Uint64())
		}
		// A walk from the level of this midnight to that of the next one.
		level := p.base + 2*p.level(d)
		drift := (2*(p.level(d+1)-p.level(d)) - w) / float64(n)
		for k := range v {
			v[k] = tenths(level + v[k] + drift*float64(k) + p.swing*swing[k*perSample])
		}
	case Pressure:
		x := 0.0
		for k := range v {
			x = 0.9*x + 0.3*p.swing*gauss(rng.Uint64())
			v[k] = math.Floor(p.base + x + 0.5)
		}
	case Noise:
		x := 0.0
		for k := range v {
			x = 0.7*x + 0.5*p.swing*gauss(rng.Uint64())
			v[k] = p.base + x
		}
	case Counter:
		// The pulses of this day, spread by a load profile with noise: at
		// sample k those of the load before k, so fewer than all of them at the
		// last one, and the first sample of the next day is the first to have all.
		start := p.pulses(d)
		load := 0.0
		for k := range v {
			v[k] = load
			load += profile[k*perSample] * (0.5 + unit(rng.Uint64()))
		}
		scale := float64(p.pulses(d+1)-start) / load
		kwh, had := float64(start)*0.1, 0.0
		for k := range v {
			now := math.Floor(v[k] * scale)
			kwh += (now - had) * 0.1
			had = now
			v[k] = kwh
		}
	case Switch:
		on, off := p.hours(d)
		flip := 0.0
		for k := range v {
			m := k * perSample
			if x := rng.Uint64(); x>>56 == 0 { // 1 sample in 256
				flip = 1 - flip
			}
			v[k] = flip
			if m >= on && m < off {
				v[k] = 1 - flip
			}
		}
	case Setpoint:
		on, off := p.hours(d)
		occupied := math.Floor(2*p.base) / 2
		setback := occupied - math.Floor(p.swing)
		override := 0
		if h := rng.Uint64(); h%5 == 0 {
			override = on + int(h>>32)%max(1, off-on)
		}
		for k := range v {
			switch m := k * perSample; {
			case override > 0 && m >= override && m < override+120:
				v[k] = occupied + 1
			case m >= on && m < off:
				v[k] = occupied
			default:
				v[k] = setback
			}
		}
	}
}

// events appends the changes of a count: people come and go, 0 at midnight.
func (p *point) events(d utc.Day, rng *rand.PCG, dst *sample.Series) {
	people := 0.0
	for ts := d.Start(); ; {
		// Exponential, 7 minutes on average, at least a second.
		ts += 1_000 + int64(-7*minute*math.Log1p(-unit(rng.Uint64())))
		if ts >= d.End() {
			return
		}
		if people > 0 && rng.Uint64()%2 == 0 {
			people--
		} else {
			people++
		}
		dst.Append(ts, people, Good, 0)
	}
}

// level is the point's level at midnight, −0.5 to 0.5.
func (p *point) level(d utc.Day) float64 { return unit(mix(p.hash^uint64(d)<<8)) - 0.5 }

// pulses is the meter's reading at midnight in tenths of a kWh; it grows by at
// least half of a day's mean each day.
func (p *point) pulses(d utc.Day) int64 {
	return int64(p.base * (float64(d-epoch) + 0.5*unit(mix(p.hash^uint64(d)<<8))))
}

// hours are the minutes of the day between which people are in; on weekends nobody is.
func (p *point) hours(d utc.Day) (on, off int) {
	if weekday := (int(d) + 4) % 7; weekday == 0 || weekday == 6 { // 1970-01-01 was a Thursday
		return 0, 0
	}
	h := mix(p.hash ^ uint64(d)<<16)
	return 6*60 + int(h%90), 17*60 + int(h>>32%150)
}

// spoil gives a few (point, day)s a run of bad quality, of alarms, and in the
// demo profile of NULLs and an infinity. It draws from its own hash, so that
// the values do not depend on it.
func (f *Fleet) spoil(p *point, d utc.Day, s sample.Series) {
	if s.Len() == 0 {
		return
	}
	h := mix(p.hash ^ uint64(d)<<24)
	at := int(h >> 32 % uint64(s.Len()))
	run := s.Slice(at, min(s.Len(), at+1+int(h>>8%30)))
	switch k := h % 1_000; {
	case k < 5:
		for j := range run.Quality {
			run.Quality[j] = Bad
		}
	case k < 10:
		for j := range run.Quality {
			run.Quality[j] = Uncertain
		}
	case k < 20:
		for j := range run.Flags {
			run.Flags[j] = Alarm
		}
	case k < 35 && !f.o.Steady && len(p.gaps) == 0:
		for j := range run.Value {
			run.Value[j], run.Quality[j] = sample.Null, Bad
		}
	case k < 100 && !f.o.Steady && p.kind == Noise:
		run.Value[0] = math.Inf(1 - 2*int(k&1))
	}
}

// tenths rounds to the nearest double of a number with one decimal.
func tenths(x float64) float64 { return math.Floor(x*10+0.5) / 10 }

// mix is the finalizer of SplitMix64: neighbouring inputs give unrelated outputs.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// unit maps a random word to [0, 1).
func unit(x uint64) float64 { return float64(int64(x>>11)) * 0x1p-53 }

// gauss maps a random word to about a standard normal: the sum of its four
// 16-bit parts, whose variance is 4 · 65536² / 12.
func gauss(x uint64) float64 {
	sum := int64(x&0xffff + x>>16&0xffff + x>>32&0xffff + x>>48)
	// The word's middle bits fill the mantissa, so that Noise has full precision.
	return (float64(sum) - 131070 + float64(int64(x>>20&0xffffffff))*0x1p-32) * (1 / 37837.2)
}

// swing is the daily swing, −1 to 1, warmest at 15:00; profile the load of an
// office, 0.3 at night and 1 by day. Both per minute of the day.
var swing, profile = func() (s, l [1440]float64) {
	for m := range s {
		s[m] = math.Sin(2 * math.Pi * float64(m-9*60) / 1440)
		l[m] = 0.3 + 0.35*(math.Tanh(float64(m-7*60)/60)-math.Tanh(float64(m-18*60)/60))
	}
	return s, l
}()
