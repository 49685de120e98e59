// Package fleet owns a made-up building fleet for the demo, tests and
// benchmarks: points with the names, units and intervals that building
// controllers give them, and samples that look like theirs. Everything follows
// from Options: on one kind of processor the same options give the same bytes,
// whatever ranges of days are asked for and in whatever order.
//
// There are two profiles. The demo profile plants what an archive must cope
// with: gaps, NULLs, infinities, bad quality, alarms, names that collide, a
// rename, rows that arrive late; each is told by a method, so that a test can
// check what was found. The bench profile is steady: every point every minute.
//
// It refuses to be a simulator: values are plausible in shape, resolution and
// entropy (what compression and merging see), not in physics.
package fleet

import (
	"fmt"
	"math"
	"slices"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/utc"
)

// Options say what a fleet is. Demo and Bench make them.
type Options struct {
	Seed   uint64  `json:"seed"`
	Points int     `json:"points"`
	Start  utc.Day `json:"start"`
	Days   int     `json:"days"`
	Steady bool    `json:"steady"` // every point every minute on the minute, nothing planted
}

// Demo is 200 points at 1 to 15 minutes over the 40 days from 2024-01-12, about
// 3 million samples, with everything planted that the package comment names.
func Demo() Options {
	return Options{Seed: 1, Points: 200, Start: day2024(12), Days: 40}
}

// Bench is points × 1,440 samples × days from 2024-04-01, a month of 30 days.
func Bench(points, days int) Options {
	return Options{Seed: 1, Points: points, Start: day2024(1 + 31 + 29 + 31), Days: days, Steady: true}
}

// day2024 is the n-th day of 2024, counted from 1.
func day2024(n int) utc.Day { return utc.MonthOf(2024, 1).First() + utc.Day(n-1) }

// Validate reports options that make no fleet, as a Usage error.
func (o Options) Validate() error {
	switch {
	case o.Points < 1 || o.Points > 1_000_000:
		return fault.Errorf(fault.Usage, "a fleet of %d points: want 1 to 1,000,000", o.Points)
	case o.Days < 1 || o.Days > 3660:
		return fault.Errorf(fault.Usage, "a fleet over %d days: want 1 to 3,660", o.Days)
	case o.Start < epoch:
		return fault.Errorf(fault.Usage, "a fleet from %s: its meters start at %s", o.Start, epoch)
	case !o.Steady && (o.Points < len(templates) || o.Days < minPlantedDays):
		return fault.Errorf(fault.Usage, "a fleet of %d points over %d days has no room for what is planted: want %d points and %d days",
			o.Points, o.Days, len(templates), minPlantedDays)
	}
	return nil
}

// minPlantedDays leaves each planted outage days of its own.
const minPlantedDays = 8

// epoch is when every meter read zero.
var epoch = utc.MonthOf(2020, 1).First()

// Kind is what a point measures, which decides the shape of its values.
type Kind uint8

const (
	// Temperature is a random walk about a daily swing, in steps of 0.1 °C.
	Temperature Kind = iota
	// Pressure reverts to its mean, in whole pascals.
	Pressure
	// Counter is energy in kWh: it never falls, and adds up pulses of 0.1 in
	// binary floating point, as meters do.
	Counter
	// Switch is 0 or 1, mostly by the clock.
	Switch
	// Setpoint changes a few times a day.
	Setpoint
	// Noise fills all 53 bits of a double.
	Noise
	// Count changes by one now and then and is reported when it does, at no
	// interval (interval_ms = 0). The demo profile has one point of it.
	Count
)

var kindNames = [...]string{"temperature", "pressure", "counter", "switch", "setpoint", "noise", "count"}

// String names the kind in lower case.
func (k Kind) String() string { return kindNames[k] }

// templates are the points that each part of a building repeats: of 20, 8
// temperatures, 3 pressures, 3 switches, 2 counters, 2 setpoints, 2 noises.
var templates = [20]struct {
	system, equipment, signal, unit string
	kind                            Kind
	base, swing, lo, hi             float64
}{
	{"HVAC", "AHU", "SupplyAirTemp", "degC", Temperature, 16, 2, -10, 60},
	{"HVAC", "AHU", "ReturnAirTemp", "degC", Temperature, 23, 1.5, -10, 60},
	{"HVAC", "AHU", "MixedAirTemp", "degC", Temperature, 19, 3, -10, 60},
	{"HVAC", "AHU", "SupplyAirPressure", "Pa", Pressure, 250, 12, 0, 1000},
	{"HVAC", "AHU", "FanStatus", "", Switch, 0, 0, 0, 1},
	{"HVAC", "AHU", "SupplyAirTempSetpoint", "degC", Setpoint, 16, 3, 5, 40},
	{"HVAC", "AHU", "FilterPressure", "Pa", Pressure, 90, 4, 0, 500},
	{"HVAC", "AHU", "CoolingValve", "%", Noise, 50, 6, 0, 100},
	{"HVAC", "Zone", "ZoneTemp", "degC", Temperature, 22, 1, -10, 60},
	{"HVAC", "VAV", "ZoneTempSetpoint", "degC", Setpoint, 21, 4, 5, 40},
	{"HVAC", "VAV", "AirFlow", "L/s", Noise, 140, 11, 0, 2000},
	{"HVAC", "VAV", "Occupancy", "", Switch, 0, 0, 0, 200},
	{"Plant", "Chiller", "SupplyWaterTemp", "degC", Temperature, 7, 0.8, -10, 60},
	{"Plant", "Chiller", "ReturnWaterTemp", "degC", Temperature, 12, 1.6, -10, 60},
	{"Plant", "Chiller", "PumpStatus", "", Switch, 0, 0, 0, 1},
	{"Plant", "Chiller", "DifferentialPressure", "Pa", Pressure, 4200, 60, 0, 20000},
	{"Electrical", "Meter", "Energy", "kWh", Counter, 3000, 0, 0, math.Inf(1)},
	{"Electrical", "Submeter", "Energy", "kWh", Counter, 700, 0, 0, math.Inf(1)},
	{"HVAC", "VAV", "ZoneTemp", "degC", Temperature, 22, 1.2, -10, 60},
	{"Plant", "Boiler", "HotWaterTemp", "degC", Temperature, 61, 4, -10, 110},
}

// Indices of the demo profile's special points; each lies in templates' first round.
const (
	renamedIndex  = 0
	correctedIdx  = 1
	zoneIndex     = 8
	countIndex    = 11
	lateIndex     = 12
	midnightIndex = 13
	outageIndex   = 15
	zoneTwinIndex = 18
)

type point struct {
	sample.Point
	kind              Kind
	interval          int64 // ms; 0 for Count
	delay             bool  // samples come up to maxDelay after their due time
	base, swing, step float64
	hash              uint64
	gaps              []span // ascending, disjoint
}

// span is a half-open range of due times in Unix milliseconds.
type span struct{ from, to int64 }

// Fleet is a fleet of points. It does not change, so all methods are safe for
// concurrent use. Points are addressed by index, 0 to the number of points − 1;
// their ids are index + 1.
type Fleet struct {
	o      Options
	points []point
	gaps   []Gap
}

// New makes the fleet that the options describe; see Options.Validate.
func New(o Options) (*Fleet, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	f := &Fleet{o: o, points: make([]point, o.Points)}
	for i := range f.points {
		f.points[i] = f.point(i)
	}
	if !o.Steady {
		f.plant()
	}
	return f, nil
}

func (f *Fleet) point(i int) point {
	t := &templates[i%len(templates)]
	part := i / len(templates) // each building has ten parts
	building, number := part/10+1, part%10+1
	site := fmt.Sprintf("Building%d", building)
	equipment := fmt.Sprintf("%s%d", t.equipment, number)
	p := point{kind: t.kind, interval: f.interval(i), hash: mix(f.o.Seed ^ mix(uint64(i)+1))}
	if !f.o.Steady {
		switch i {
		case zoneIndex:
			equipment = "Zone 1"
		case zoneTwinIndex:
			equipment = "Zone-1"
		case countIndex:
			p.kind, p.interval = Count, 0
		}
		p.delay = i%3 == 1
	}
	name := site + "." + t.system + "." + equipment + "." + t.signal
	if !f.o.Steady && (i == zoneIndex || i == zoneTwinIndex) {
		name = site + "." + t.system + "." + equipment
	}
	p.Point = sample.Point{
		ID: int32(i + 1), Name: name, Site: &site, System: new(t.system), Equipment: &equipment,
		IntervalMS: new(p.interval), MinValue: new(t.lo), CreatedAt: new(epoch.Start()),
	}
	if t.unit != "" {
		p.Unit = new(t.unit)
	}
	if !math.IsInf(t.hi, 1) {
		p.MaxValue = new(t.hi)
	}
	// Siblings differ by up to a quarter in level and swing.
	u := unit(mix(p.hash ^ 1))
	p.base, p.swing = t.base*(0.9+0.2*u), t.swing*(0.75+0.5*unit(mix(p.hash^2)))
	minutes := max(1, float64(p.interval)/60_000)
	p.step = 0.02 * math.Sqrt(minutes) * (0.5 + unit(mix(p.hash^3)))
	return p
}

// interval is the i-th point's interval in ms. Of 20 points in the demo
// profile, 3 report every minute, 8 every five, 3 every ten and 6 every
// fifteen: 381.6 samples a day on average, so 200 points give 3.05 M in 40 days.
func (f *Fleet) interval(i int) int64 {
	if f.o.Steady {
		return 60_000
	}
	// 7 is prime to 20: every kind gets every interval as i / 20 grows.
	switch k := (i*7 + i/len(templates)) % 20; {
	case k < 3:
		return 60_000
	case k < 11:
		return 5 * 60_000
	case k < 14:
		return 10 * 60_000
	default:
		return 15 * 60_000
	}
}

// Options are those that the fleet was made from.
func (f *Fleet) Options() Options { return f.o }

// Days is the range of days that the fleet has samples for.
func (f *Fleet) Days() utc.Days { return utc.Days{From: f.o.Start, To: f.o.Start + utc.Day(f.o.Days)} }

// Len is the number of points.
func (f *Fleet) Len() int { return len(f.points) }

// Points are the rows of the points table, ascending by id, before any rename.
func (f *Fleet) Points() []sample.Point {
	ps := make([]sample.Point, len(f.points))
	for i := range f.points {
		ps[i] = f.points[i].Point
	}
	return ps
}

// Kind is what the i-th point measures.
func (f *Fleet) Kind(i int) Kind { return f.points[i].kind }

// Gap is an outage: the samples due strictly between From and To are missing,
// although From and To, a sample each, are more than one interval apart.
type Gap struct {
	Index   int   `json:"-"`
	Point   int32 `json:"point_id"`
	From    int64 `json:"from"`    // Unix milliseconds of the last sample before
	To      int64 `json:"to"`      // and of the first one after
	Missing int64 `json:"missing"` // samples that were due in between
	Filled  bool  `json:"filled"`  // by the rows of Late
}

// Gaps lists every gap of every point that has an interval, ascending by
// (point, time). Rows whose value is NULL are rows: they end a gap, and no
// point with a gap has any.
func (f *Fleet) Gaps() []Gap { return slices.Clone(f.gaps) }

// Rename is a point that gets another name.
type Rename struct {
	Index    int
	Point    int32
	Old, New string
	On       utc.Day // the first day under the new name
}

// Rename is the demo profile's renamed point; ok is false in the bench profile.
func (f *Fleet) Rename() (r Rename, ok bool) {
	if f.o.Steady {
		return Rename{}, false
	}
	p := &f.points[renamedIndex]
	return Rename{
		Index: renamedIndex, Point: p.ID, Old: p.Name, New: p.Name + "erature",
		On: f.o.Start + utc.Day(f.o.Days*5/8),
	}, true
}

// Late is rows of one point that arrive after their days were archived.
type Late struct {
	Index               int
	Point               int32
	Rows                sample.Series // to be upserted
	Inserted, Corrected int           // Rows.Len() in all
}

// Late lists the demo profile's late rows, ascending by point: a controller's
// buffer that fills a gap (the one marked Filled), a recalibration that corrects
// two hours, and events that nobody had reported. It is empty in the bench profile.
func (f *Fleet) Late() []Late {
	if f.o.Steady {
		return nil
	}
	var late []Late
	add := func(i int, rows sample.Series, inserted int) {
		late = append(late, Late{i, f.points[i].ID, rows, inserted, rows.Len() - inserted})
	}
	day := f.lateDay()

	var all sample.Series
	f.day(correctedIdx, day, &all)
	var fixed sample.Series
	for k, ts := range all.TS {
		if h := (ts - day.Start()) / hour; h >= 9 && h < 11 {
			fixed.Append(ts, tenths(all.Value[k]+0.7), 192, all.Flags[k])
		}
	}
	add(correctedIdx, fixed, 0)

	all.Reset()
	var events sample.Series
	f.day(countIndex, day, &all)
	for k, ts := range all.TS {
		// Between two events, so that it is new whatever they are.
		if k%8 == 0 && k+1 < all.Len() && all.TS[k+1]-ts > 1 {
			events.Append(ts+(all.TS[k+1]-ts)/2, all.Value[k], 192, 0)
		}
	}
	add(countIndex, events, events.Len())

	var filled sample.Series
	for _, g := range f.gaps {
		if !g.Filled {
			continue
		}
		all.Reset()
		for d := utc.DayOf(g.From); d <= utc.DayOf(g.To); d++ {
			f.day(g.Index, d, &all)
		}
		a, _ := slices.BinarySearch(all.TS, g.From+1)
		b, _ := slices.BinarySearch(all.TS, g.To)
		filled.AppendRange(&all, a, b)
	}
	add(lateIndex, filled, filled.Len())
	return late
}

// lateDay is the day that the late rows belong to.
func (f *Fleet) lateDay() utc.Day { return f.o.Start + utc.Day(f.o.Days*3/4) }

const (
	minute = 60_000
	hour   = 60 * minute
)

// plant lays the gaps. A gap is never nearer to the ends of the fleet's days,
// or to another gap of its point, than two samples.
func (f *Fleet) plant() {
	days := f.Days()
	late := make(map[int]span)
	at := func(num, den int) int64 { return (f.o.Start + utc.Day(f.o.Days*num/den)).Start() }

	// Three days of nothing, so that two whole days and more are archived empty.
	f.cut(outageIndex, at(9, 20)+7*hour, at(9, 20)+3*utc.DayMillis+2*hour)
	// A controller goes down, and with it all its points.
	for i := range 8 {
		f.cut(i, at(5, 8)+13*hour+7*minute, at(5, 8)+15*hour+20*minute)
	}
	// Across midnight.
	f.cut(midnightIndex, at(1, 4)-hour, at(1, 4)+2*hour)
	// Filled by Late.
	if s, ok := f.cut(lateIndex, f.lateDay().Start()+4*hour, f.lateDay().Start()+7*hour); ok {
		late[lateIndex] = s
	}
	// Every ninth point loses single samples, minutes, hours or a day at random.
	for i := 0; i < len(f.points); i += 9 {
		h := mix(f.points[i].hash ^ 4)
		for range 1 + h%3 {
			h = mix(h)
			from := days.From.Start() + int64(h%uint64(f.o.Days*utc.DayMillis))
			length := [...]int64{1, 20 * minute, 3 * hour, 26 * hour}[mix(h)%4]
			f.cut(i, from, from+length)
		}
	}

	for i := range f.points {
		p := &f.points[i]
		for _, g := range p.gaps {
			f.gaps = append(f.gaps, Gap{
				Index: i, Point: p.ID, From: p.actual(g.from - p.interval), To: p.actual(g.to),
				Missing: (g.to - g.from) / p.interval, Filled: late[i] == g,
			})
		}
	}
}

// cut removes the i-th point's samples due in [from, to), widened to at least
// one sample, unless it has no interval or another gap or an end is near.
func (f *Fleet) cut(i int, from, to int64) (span, bool) {
	p := &f.points[i]
	if p.interval == 0 {
		return span{}, false
	}
	n := p.interval
	s := span{from / n * n, (to + n - 1) / n * n}
	if s.from-2*n < f.Days().From.Start() || s.to+2*n >= f.Days().To.Start() {
		return span{}, false
	}
	for _, g := range p.gaps {
		if s.from-2*n < g.to && g.from < s.to+2*n {
			return span{}, false
		}
	}
	p.gaps = append(p.gaps, s)
	slices.SortFunc(p.gaps, func(a, b span) int { return int(a.from/minute - b.from/minute) })
	return s, true
}
