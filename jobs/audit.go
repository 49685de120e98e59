package jobs

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/tiers"
	"etl/internal/utc"
)

// AuditOptions say what to audit, and what is to be said of it. The zero value of
// each field but Days means its default.
type AuditOptions struct {
	Points Points
	// Days are days of Zone; the last one may be today, of which what has passed counts.
	Days utc.Days
	Zone *time.Location // UTC

	Tolerance  float64       // how many intervals are no gap yet: 1.5
	MaxSilence time.Duration // longest silence of points that report changes only, and of those whose interval nobody knows; 0 for none
	// Fast counts by the manifests alone: samples, NULLs among them, and no gaps.
	Fast bool

	// Rules are those of data quality to look for; nil means all of them if the
	// range has no more than RuleSamples samples, else none.
	Rules  []string
	Limits RuleLimits

	Known []Outage
	// MaxMissing and MaxGap are what may be missing, and how long at a stretch, before
	// it is a finding; without either any gap is one.
	MaxMissing *Allowance
	MaxGap     time.Duration
	Strict     bool // what the rules found is a finding too

	Workers int // files decoded at once: the cores
}

// Outage is an acknowledged silence.
type Outage struct {
	Points   string // a glob of names
	From, To int64  // Unix milliseconds, half-open
	Note     string
}

// Allowance is a number of samples, or a part of those expected in percent.
type Allowance struct {
	N       float64
	Percent bool
}

// RuleSamples is up to how many samples the rules of data quality are looked for
// unasked: they need every value, some 30 ns of processor time each, where gaps
// need a tenth of that.
const RuleSamples = 50_000_000

// Validate reports everything that is wrong.
func (o *AuditOptions) Validate() error {
	switch {
	case o.Days.Empty():
		return fault.Errorf(fault.Usage, "the range is empty: %s is not before %s", o.Days.From, o.Days.To)
	case o.Days.Len() > MaxAuditDays:
		return fault.Errorf(fault.Usage, "the range has %d days, an audit takes %d", o.Days.Len(), MaxAuditDays)
	case o.Tolerance != 0 && !(o.Tolerance >= 1 && o.Tolerance <= 1e6):
		return fault.Errorf(fault.Usage, "--tolerance %g: want a number of intervals from 1", o.Tolerance)
	case o.Fast && o.Zone != nil && o.Zone != time.UTC:
		return fault.Hint(fault.Errorf(fault.Usage, "--fast counts by the manifests, which know UTC days only, not those of %s", o.Zone), "leave out --tz or --fast")
	case o.Fast && len(o.Rules) > 0:
		return fault.Hint(fault.Errorf(fault.Usage, "--fast reads no values, which the rules need"), "leave out --rules or --fast")
	case o.Fast && o.MaxGap > 0:
		return fault.Hint(fault.Errorf(fault.Usage, "--fast finds no gaps, so --max-gap has nothing to limit"), "leave out --max-gap or --fast, or give --max-missing")
	}
	for _, r := range o.Rules {
		if !slices.Contains(AuditRules, r) {
			return fault.Errorf(fault.Usage, "there is no rule %q: want some of %v, or none", r, AuditRules)
		}
	}
	return nil
}

// MaxAuditDays bounds a range: points × days are held, of 32 bytes each. 4,500 points
// take 53 MB for a year.
const MaxAuditDays = 3660

// auditor is one audit.
type auditor struct {
	o      AuditOptions
	env    Env
	survey *tiers.Survey
	r      *AuditReport
	rules  map[string]bool
	known  [][]stretch // acknowledged, by the point's place in the report
	notes  [][]string
	first  []*int64           // first sample ever of either tier, likewise
	unsure map[utc.Month]bool // unreadable months in which coverage may have begun
	chosen []sample.Point

	mu sync.Mutex // guards the report's lists
}

// stretch is a span of time in which readings were due.
type stretch struct{ from, to int64 }

// Audit looks for silences in the chosen points over a range, hot and cold together, and counts
// what is there of what was expected. A file or manifest that can not be read is
// in the report, and what it holds is left out of the account. With an error the
// report says nothing.
func Audit(ctx context.Context, env Env, tr tiers.Reader, o AuditOptions) (*AuditReport, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	began := time.Now()
	o.Tolerance = cmp.Or(o.Tolerance, 1.5)
	o.Workers = cmp.Or(o.Workers, runtime.GOMAXPROCS(0))
	o.Limits.defaults()
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	a := &auditor{o: o, env: env, rules: map[string]bool{}, unsure: map[utc.Month]bool{}}
	if err := a.begin(); err != nil {
		return nil, err
	}
	r := a.r
	to := r.To.UnixMilli()
	from := r.From.UnixMilli()
	var err error
	if a.survey, err = tr.Survey(ctx, utc.Days{From: utc.DayOf(from), To: utc.DayOf(to-1) + 1}); err != nil {
		return nil, err
	}
	if err := a.points(ctx); err != nil {
		return nil, err
	}
	a.acknowledge()
	for _, m := range sortedKeys(a.survey.Bad) {
		if err := a.survey.Bad[m]; a.unsure[m] || !m.Days().Intersect(a.survey.Days).Empty() {
			f := failure(err)
			f.Month = m.String()
			r.Failed = append(r.Failed, f)
		}
	}
	if o.Fast {
		for i := range r.Points {
			a.count(i)
		}
	} else if err := a.scan(ctx, tr, from, to); err != nil {
		return nil, err
	}
	a.sum()
	r.Elapsed = time.Since(began).Seconds()
	return r, nil
}

// begin makes the report with the range as far as it has passed.
func (a *auditor) begin() error {
	o := a.o
	now := a.env.Now()
	from, to := dayStart(o.Days.From, o.Zone), dayStart(o.Days.To, o.Zone)
	if to.After(now) {
		to = now.Truncate(time.Millisecond)
	}
	if !from.Before(to) {
		return fault.Hint(fault.Errorf(fault.Usage, "the range begins on %s, and it is %s", o.Days.From, now.In(o.Zone).Format("2006-01-02 15:04 MST")), "give an earlier --from")
	}
	a.r = &AuditReport{From: from.UTC(), To: to.UTC(), Zone: o.Zone.String(), Fast: o.Fast, Tolerance: o.Tolerance, Silence: o.MaxSilence.Milliseconds(),
		Gaps: []Gap{}, Points: []AuditPoint{}, Quality: []Suspect{}, Warnings: []string{}, Failed: []Failure{}}
	for d := o.Days.From; d < o.Days.To; d++ {
		at := dayStart(d, o.Zone)
		if !at.Before(to) {
			break
		}
		a.r.DayStarts = append(a.r.DayStarts, at.UnixMilli())
	}
	a.r.DayStarts = append(a.r.DayStarts, to.UnixMilli())
	return nil
}

// dayStart is the first instant of a date in a zone. Where clocks change at midnight
// there is no 00:00, or there are two, and time.Date says of neither which it takes.
func dayStart(d utc.Day, zone *time.Location) time.Time {
	t := d.Time()
	at := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, zone)
	if at.Day() != t.Day() { // an hour before the gap that swallows midnight, as west of UTC
		_, at = at.ZoneBounds()
		return at
	}
	if changed, _ := at.ZoneBounds(); !changed.IsZero() {
		_, before := changed.Add(-1).Zone()
		_, after := at.Zone()
		if first := at.Add(time.Duration(after-before) * time.Second); before > after && first.Before(changed) {
			return first
		}
	}
	return at
}

// points fills the report with the chosen points and their coverage.
func (a *auditor) points(ctx context.Context) error {
	if a.env.Source == nil && a.o.Points.Group != "" {
		return fault.Errorf(fault.Usage, "--group %s: groups are in the source; give --source too", a.o.Points.Group)
	}
	chosen, err := a.o.Points.filter(ctx, a.env.Source, a.survey.Points)
	if err != nil {
		return err
	}
	from, to := a.r.From.UnixMilli(), a.r.To.UnixMilli()
	a.chosen, a.first = chosen, make([]*int64, len(chosen))
	at := map[int32]int{}
	var ask []int32 // whose beginning the cold tier does not settle
	for i, p := range chosen {
		if first, ok := a.survey.First[p.ID]; ok {
			a.first[i] = &first
		}
		if a.first[i] == nil || *a.first[i] > from {
			ask, at[p.ID] = append(ask, p.ID), i
		}
	}
	if o, ok := a.env.Source.(source.Oldester); ok && !a.o.Fast && len(ask) > 0 {
		if err := o.Oldest(ctx, ask, source.Window(a.env.Now()), func(b *sample.Batch) error {
			for k, id := range b.PointID {
				if i := at[id]; a.first[i] == nil || b.TS[k] < *a.first[i] {
					a.first[i] = new(b.TS[k])
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	nowhere := 0
	for i, p := range chosen {
		text := func(s *string) string {
			if s == nil {
				return ""
			}
			return *s
		}
		ap := AuditPoint{ID: p.ID, Name: p.Name, System: text(p.System), Equipment: text(p.Equipment), Unit: text(p.Unit), From: to, To: to}
		if p.IntervalMS != nil {
			ap.Interval = new(max(0, *p.IntervalMS))
		}
		if p.RetiredAt != nil {
			ap.To = min(to, *p.RetiredAt)
		}
		if first := a.begins(i, from, ap.To); first != nil {
			ap.From = max(from, *first)
		} else {
			nowhere++
		}
		a.r.Points = append(a.r.Points, ap)
	}
	if nowhere > 0 {
		a.warn("points that never had a sample in %s: %d; nothing is expected of them", map[bool]string{true: "the cold tier", false: "either tier"}[a.o.Fast || !a.survey.Hot], nowhere)
	}
	a.chooseRules()
	return nil
}

// begins is when the first sample of a point was or, where a manifest can not be read, may
// have been: what nobody can read must not make a silence after it disappear. A point
// that was registered later had none in it, unless there are samples of it from before it
// was registered, as imported history is. It is nil where there is none.
func (a *auditor) begins(i int, from, to int64) *int64 {
	p, first := &a.chosen[i], a.first[i]
	begin := first
	for _, m := range sortedKeys(a.survey.Bad) {
		at, end := m.First().Start(), m.Days().To.Start()
		if c := p.CreatedAt; c != nil && *c <= a.env.Now().UnixMilli() && (first == nil || *c <= *first) {
			at = max(at, *c)
		}
		if at >= end || max(from, at) >= to || first != nil && *first <= max(from, at) {
			continue // it makes no difference
		}
		a.unsure[m] = true
		if begin == nil || at < *begin {
			begin = &at
		}
	}
	return begin
}

func (a *auditor) warn(format string, args ...any) {
	a.r.Warnings = append(a.r.Warnings, fmt.Sprintf(format, args...))
}

// chooseRules decides which rules of data quality are looked for.
func (a *auditor) chooseRules() {
	if a.o.Fast {
		return
	}
	rules := a.o.Rules
	if rules == nil {
		var due int64
		for _, p := range a.r.Points {
			interval := int64(60_000)
			if p.Interval != nil && *p.Interval > 0 {
				interval = *p.Interval
			}
			due += max(0, p.To-p.From) / interval
		}
		if due > RuleSamples {
			a.warn("the rules of data quality were left out: they read every value of about %d M samples, and are looked for unasked up to %d M; --rules names them", due/1e6, int64(RuleSamples/1e6))
			return
		}
		rules = AuditRules
	}
	for _, r := range rules {
		a.rules[r] = true
	}
}

// acknowledge finds the acknowledged outages of each point.
func (a *auditor) acknowledge() {
	a.known, a.notes = make([][]stretch, len(a.r.Points)), make([][]string, len(a.r.Points))
	for _, k := range a.o.Known {
		match := glob(k.Points)
		for i, p := range a.r.Points {
			if match.MatchString(p.Name) {
				a.known[i] = append(a.known[i], stretch{k.From, k.To})
				a.notes[i] = append(a.notes[i], k.Note)
			}
		}
	}
	if !a.o.Fast {
		return
	}
	// Their lengths are summed, so what several outages acknowledge must be there once.
	// No gap is listed, so the notes, which no longer go with them, are not asked for.
	for i := range a.known {
		a.known[i], a.notes[i] = union(a.known[i]), nil
	}
}

// union is the same time in stretches that neither overlap nor touch, ascending.
func union(all []stretch) []stretch {
	slices.SortFunc(all, func(x, y stretch) int { return cmp.Compare(x.from, y.from) })
	merged := all[:0]
	for _, s := range all {
		if n := len(merged); n > 0 && s.from <= merged[n-1].to {
			merged[n-1].to = max(merged[n-1].to, s.to)
		} else {
			merged = append(merged, s)
		}
	}
	return merged
}

// course is what a scan found of one point.
type course struct {
	id    int32
	ts    []int64   // readings within the coverage, ascending
	value []float64 // of each, if values were asked for
	// parts of the coverage that could be read, with the readings [i, j) of each
	parts []coursePart
	// of all samples, NULLs included
	samples, bad      int64
	firstBad, lastBad int64
	scratch           []float64
	gaps              []Gap
}

type coursePart struct {
	stretch
	i, j int
}

var courses = sync.Pool{New: func() any { return new(course) }}

func (a *auditor) scan(ctx context.Context, tr tiers.Reader, from, to int64) error {
	at := make(map[int32]int, len(a.r.Points))
	var ids []int32
	for i, p := range a.r.Points {
		at[p.ID] = i
		if p.From < p.To {
			ids = append(ids, p.ID)
		}
	}
	seen := make([]bool, len(a.r.Points))
	q := tiers.Query{Points: ids, From: from, To: to, Values: len(a.rules) > 0, Workers: a.o.Workers}
	q.Progress = func(points int, samples int64) {
		a.env.notify(Progress{Month: utc.DayOf(from).Month(), PointsDone: int64(points), PointsTotal: int64(len(ids)), Rows: samples})
	}
	if err := tr.Scan(ctx, q, func(id int32, parts iter.Seq[*tiers.Part]) error {
		i := at[id]
		seen[i] = true
		c := courses.Get().(*course)
		defer courses.Put(c)
		a.follow(i, c, parts)
		a.judge(i, c)
		return nil
	}); err != nil {
		return err
	}
	c := new(course)
	for i := range a.r.Points {
		if !seen[i] {
			a.follow(i, c, func(func(*tiers.Part) bool) {})
			a.judge(i, c)
		}
	}
	return nil
}

// follow gathers the readings of a point, and the parts of its coverage that could be read.
func (a *auditor) follow(i int, c *course, parts iter.Seq[*tiers.Part]) {
	p := &a.r.Points[i]
	*c = course{id: p.ID, ts: c.ts[:0], value: c.value[:0], parts: c.parts[:0], scratch: c.scratch, gaps: c.gaps[:0]}
	if p.From >= p.To {
		return
	}
	begin, first := p.From, 0 // of the part that goes on
	end := func(at int64) {
		if begin < at {
			c.parts = append(c.parts, coursePart{stretch{begin, at}, first, len(c.ts)})
		}
	}
	for part := range parts {
		if part.Err != nil {
			if part.Path != "" { // else it is of a manifest, which is named once
				f := failure(part.Err)
				f.Month, f.PointID, f.Point, f.Path = utc.DayOf(part.From).Month().String(), p.ID, p.Name, string(part.Path)
				a.mu.Lock()
				a.r.Failed = append(a.r.Failed, f)
				a.env.notify(PointFailed{f})
				a.mu.Unlock()
			}
			end(min(max(part.From, p.From), p.To))
			begin, first = max(part.To, p.From), len(c.ts)
			continue
		}
		lo, _ := slices.BinarySearch(part.TS, p.From)
		hi, _ := slices.BinarySearch(part.TS, p.To)
		c.ts = append(c.ts, part.TS[lo:max(lo, hi)]...)
		if s := part.All; s != nil {
			for k, ts := range s.TS {
				if ts < p.From || ts >= p.To {
					continue
				}
				c.samples++
				if s.Quality[k] < GoodQuality {
					if c.bad == 0 {
						c.firstBad = ts
					}
					c.bad, c.lastBad = c.bad+1, ts
				}
				if v := s.Value[k]; v == v {
					c.value = append(c.value, v)
				}
			}
		}
	}
	end(p.To)
}

// judge fills in what is to be said of a point.
func (a *auditor) judge(i int, c *course) {
	p := &a.r.Points[i]
	if n := len(c.ts); n > 0 {
		p.First, p.Last = new(c.ts[0]), new(c.ts[n-1])
	}
	interval := 0.0
	switch {
	case p.Interval != nil:
		interval = float64(*p.Interval)
	default:
		if m, ok := c.medianInterval(); ok {
			p.Interval, p.Measured, interval = new(int64(math.Round(m))), true, m
		}
	}
	a.gaps(i, c, interval)
	a.days(i, c, interval)
	p.Present = int64(len(c.ts))
	suspects := a.suspects(i, c)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.r.Gaps = append(a.r.Gaps, c.gaps...)
	a.r.Quality = append(a.r.Quality, suspects...)
}

// gaps finds the silences of a point.
func (a *auditor) gaps(i int, c *course, interval float64) {
	p := &a.r.Points[i]
	// INVARIANT: d > limit, in whole milliseconds, is d > tolerance × interval.
	limit := int64(math.MaxInt64)
	switch {
	case interval > 0:
		limit = int64(math.Min(math.Floor(a.o.Tolerance*interval), 1<<62))
	case a.o.MaxSilence > 0:
		limit = a.o.MaxSilence.Milliseconds()
	}
	add := func(kind string, from, to, between int64, after, before *int64) {
		g := Gap{PointID: p.ID, Point: p.Name, Kind: kind, After: after, Before: before, From: from, To: to, Length: to - from}
		if interval > 0 {
			g.Missing = new(max(0, int64(math.Round(float64(to-from)/interval))-between))
		}
		g.Known, g.Note = a.isKnown(i, g, interval)
		c.gaps = append(c.gaps, g)
	}
	for _, s := range c.parts {
		ts := c.ts[s.i:s.j]
		if len(ts) == 0 {
			// A point that should report at times that nobody knows, and does not at all.
			unknown := p.Interval == nil && len(c.ts) == 0
			if s.to-s.from > limit || unknown {
				var after *int64
				if t, ok := a.survey.Before[p.ID]; ok && s.from == a.r.From.UnixMilli() {
					after = &t
				}
				add("empty", s.from, s.to, 0, after, nil)
			}
			continue
		}
		if ts[0]-s.from > limit {
			add("head", s.from, ts[0], 0, nil, new(ts[0]))
		}
		for k := 1; k < len(ts); k++ {
			if ts[k]-ts[k-1] > limit {
				add("inner", ts[k-1], ts[k], 1, new(ts[k-1]), new(ts[k]))
			}
		}
		if last := ts[len(ts)-1]; s.to-last > limit {
			add("tail", last, s.to, 1, new(last), nil)
		}
	}
	for _, g := range c.gaps {
		missing := int64(0)
		if g.Missing != nil {
			missing = *g.Missing
		}
		p.Missing += missing
		if g.Known {
			p.Known += missing
			continue
		}
		p.Gaps++
		p.Longest = max(p.Longest, g.Length)
	}
}

// isKnown reports whether all that is missing in a gap was acknowledged: the
// instants from one interval after the last reading to one before the next.
func (a *auditor) isKnown(i int, g Gap, interval float64) (bool, string) {
	if len(a.known[i]) == 0 {
		return false, ""
	}
	from, to := g.From, g.To // the outages have to cover [from, to)
	if g.Kind == "inner" || g.Kind == "tail" {
		from = min(to, from+int64(interval))
	}
	if g.Kind == "inner" || g.Kind == "head" {
		to = max(from, to-int64(interval))
	}
	note, covered := "", from
	for { // outages may overlap and be in any order
		next := covered
		for k, s := range a.known[i] {
			if s.from <= covered && s.to > next {
				next = s.to
				if note == "" {
					note = a.notes[i][k]
				}
			}
		}
		if next >= to && next > from {
			return true, note
		}
		if next == covered {
			return false, ""
		}
		covered = next
	}
}

// days says what is known of each day of a point.
func (a *auditor) days(i int, c *course, interval float64) {
	p := &a.r.Points[i]
	starts := a.r.DayStarts
	p.Days = make([]AuditDay, len(starts)-1)
	at, gap := 0, 0
	expected := int64(0)
	for d := range p.Days {
		day := &p.Days[d]
		from, to := max(starts[d], p.From), min(starts[d+1], p.To)
		if from >= to {
			day.State = DayOutside
			continue
		}
		readable := int64(0)
		for _, s := range c.parts {
			readable += max(0, min(to, s.to)-max(from, s.from))
		}
		if interval > 0 {
			due := int64(math.Floor(float64(readable) / interval))
			day.Expected = clamp32(due)
			expected += due
		}
		n, _ := slices.BinarySearch(c.ts[at:], to)
		day.Present = clamp32(int64(n))
		at += n
		for gap < len(c.gaps) && c.gaps[gap].To <= from {
			gap++
		}
		silent := gap < len(c.gaps) && c.gaps[gap].From < to
		switch {
		case readable < to-from:
			day.State = DayUnread
		case n == 0 && !a.settled(p.ID, from, to):
			day.State = DayNotArchived
		case n == 0:
			day.State = DayEmpty
		case silent && (interval <= 0 || day.Present < day.Expected):
			day.State = DayHoles
		case interval > 0:
			day.State = DayWhole
		default:
			day.State = DaySome
		}
	}
	if p.Interval != nil && *p.Interval > 0 {
		p.Expected = &expected
	}
}

func clamp32(n int64) int32 { return int32(min(n, math.MaxInt32)) }

// settled reports whether it is known that a span without a sample has none: each
// UTC day of it is archived, or still in the hot tier.
func (a *auditor) settled(point int32, from, to int64) bool {
	begin := utc.DayOfTime(a.env.Now()) - utc.Day(a.survey.HotWindow)
	counts := a.survey.Counts[point]
	for d := utc.DayOf(from); d <= utc.DayOf(to-1); d++ {
		archived := counts != nil && counts[d-a.survey.Days.From] != sample.NotArchived
		if !archived && !(a.survey.Hot && d >= begin) {
			return false
		}
	}
	return true
}

// count is what the manifests alone say of a point.
func (a *auditor) count(i int) {
	p := &a.r.Points[i]
	starts := a.r.DayStarts
	p.Days = make([]AuditDay, len(starts)-1)
	counts := a.survey.Counts[p.ID]
	interval := int64(0)
	if p.Interval != nil {
		interval = *p.Interval
	}
	expected := int64(0)
	for d := range p.Days {
		day := &p.Days[d]
		from, to := max(starts[d], p.From), min(starts[d+1], p.To)
		if from >= to {
			day.State = DayOutside
			continue
		}
		due := int64(0)
		if interval > 0 {
			due = (to - from) / interval
			day.Expected = clamp32(due)
		}
		if a.survey.Bad[utc.DayOf(from).Month()] != nil {
			day.State = DayUnread
			continue
		}
		if counts == nil || counts[d] == sample.NotArchived {
			day.State = DayNotArchived
			continue
		}
		day.Present = counts[d]
		p.Present += int64(counts[d])
		expected += due
		missing := max(0, due-int64(counts[d]))
		p.Missing += missing
		switch {
		case counts[d] == 0:
			day.State = DayEmpty
		case interval == 0:
			day.State = DaySome
		case missing > 0:
			day.State = DayHoles
		default:
			day.State = DayWhole
		}
		if missing > 0 {
			covered := int64(0)
			for _, s := range a.known[i] {
				covered += max(0, min(to, s.to)-max(from, s.from))
			}
			p.Known += min(missing, (covered+interval-1)/interval)
		}
	}
	if interval > 0 {
		p.Expected = &expected
	}
}

// sum makes the totals, and puts the lists in order.
func (a *auditor) sum() {
	r := a.r
	slices.SortFunc(r.Gaps, func(x, y Gap) int { return cmp.Or(cmp.Compare(x.PointID, y.PointID), cmp.Compare(x.From, y.From)) })
	slices.SortFunc(r.Quality, func(x, y Suspect) int {
		return cmp.Or(cmp.Compare(x.PointID, y.PointID), cmp.Compare(slices.Index(AuditRules, x.Rule), slices.Index(AuditRules, y.Rule)))
	})
	slices.SortFunc(r.Failed, func(x, y Failure) int {
		return cmp.Or(cmp.Compare(x.Month, y.Month), cmp.Compare(x.PointID, y.PointID))
	})
	c := &r.Coverage
	c.Points = len(r.Points)
	for _, p := range r.Points {
		if p.Expected != nil {
			c.Expected += *p.Expected
		}
		c.Present += p.Present
		c.Missing += p.Missing
		c.Known += p.Known
		c.Gaps += p.Gaps
		c.LongestGap = max(c.LongestGap, p.Longest)
		for _, d := range p.Days {
			switch d.State {
			case DayNotArchived:
				c.NotArchived++
			case DayEmpty:
				c.Empty++
			case DayHoles:
				c.Holes++
			case DayWhole:
				c.Whole++
			}
		}
	}
	c.KnownGaps = len(r.Gaps) - c.Gaps
	r.code = a.code()
}

// code is what the report comes to.
func (a *auditor) code() int {
	r, c := a.r, a.r.Coverage
	code := fault.ExitOK
	for _, f := range r.Failed {
		code = fault.Worse(code, fault.ExitCode(f.err))
	}
	unknown := c.Missing - c.Known
	found := a.o.Strict && len(r.Quality) > 0
	if m := a.o.MaxMissing; m != nil {
		most := m.N
		if m.Percent {
			most = m.N / 100 * float64(c.Expected)
		}
		found = found || float64(unknown) > most
	}
	if a.o.MaxGap > 0 {
		found = found || c.LongestGap > a.o.MaxGap.Milliseconds()
	}
	if a.o.MaxMissing == nil && a.o.MaxGap == 0 {
		found = found || c.Gaps > 0 || a.o.Fast && (unknown > 0 || c.NotArchived > 0)
	}
	if found {
		code = fault.Worse(code, fault.ExitFindings)
	}
	return code
}

// ExitCode is 4 if a file or manifest could not be read, 3 if more is missing than may be, else 0.
func (r *AuditReport) ExitCode() int { return r.code }
