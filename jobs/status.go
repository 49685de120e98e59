package jobs

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sync/errgroup"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/manifests"
)

// Health is how a line of status stands.
type Health string

const (
	Good     Health = "OK"
	Warn     Health = "WARN"
	Critical Health = "CRIT"
	// NotKnown is what can not be told, and why is in the text.
	NotKnown Health = "?"
)

// number is the health as a metric.
func (h Health) number() float64 {
	return float64(slices.Index([]Health{Good, Warn, Critical, NotKnown}, h))
}

// worse reports whether a line stands worse than at o. What is not known is worse than
// OK alone.
func (h Health) worse(o Health) bool {
	rank := []Health{Good, NotKnown, Warn, Critical}
	return slices.Index(rank, h) > slices.Index(rank, o)
}

// Limit is where a line stops being OK. A zero is none.
type Limit struct{ Warn, Crit float64 }

// judge compares a value that is the worse the larger it is.
func (l Limit) judge(v float64) Health {
	switch {
	case l.Crit != 0 && v >= l.Crit:
		return Critical
	case l.Warn != 0 && v >= l.Warn:
		return Warn
	}
	return Good
}

// less is judge of a value that is the worse the smaller it is.
func (l Limit) less(v float64) Health {
	switch {
	case l.Crit != 0 && v <= l.Crit:
		return Critical
	case l.Warn != 0 && v <= l.Warn:
		return Warn
	}
	return Good
}

// D1Limit is how large a D1 database may be. Cloudflare says 10 GB, and not of which
// kind: this is the smaller one.
const D1Limit = 10e9

// StatusLimits are where the lines of status stop being OK.
type StatusLimits struct {
	Size      Limit // bytes of the hot tier
	DaysLeft  Limit // days until it is full, if nothing leaves it; worse the smaller
	Freshness Limit // seconds since the newest sample
	Quality   Limit // share of readings with a quality below 192
	Success   Limit // seconds since an archive run succeeded
	Lag       Limit // complete days after the newest archived one
	Backlog   Limit // (point, day)s before the last complete day that are not archived
	Late      Limit // archived (point, day)s that are not marked
	Verify    Limit // seconds since a verification succeeded
}

// DefaultStatusLimits are those of the source document where it has one (9.5 GB, 300 s,
// 5 %); the second number is what can not wait until tomorrow.
func DefaultStatusLimits() StatusLimits {
	const hour, day = 3600, 86400
	return StatusLimits{
		Size:      Limit{9.5e9, 9.9e9}, // of 10: at 4,500 points a minute 0.1 GB is half a day
		DaysLeft:  Limit{14, 3},
		Freshness: Limit{300, hour},
		Quality:   Limit{0.05, 0.20},
		Success:   Limit{30 * hour, 54 * hour}, // one night missed, two
		Lag:       Limit{2, 4},
		Backlog:   Limit{1, 0},
		Verify:    Limit{8 * day, 35 * day},
	}
}

// StatusOptions are the options of Status; the zero value of each but Limits is its default.
type StatusOptions struct {
	Limits    StatusLimits
	Grace     time.Duration // default 1 h
	HotWindow int           // days, default 35
	// Looks is about how many readings the share of bad quality is taken from,
	// default 5,000: each is a seek and a billed row.
	Looks int
	// SourceErr and StoreErr say why a tier that is set is not in Env: it could not be
	// opened. It is then one that can not be read.
	SourceErr, StoreErr error
}

func (o *StatusOptions) defaults() {
	if o.Grace == 0 {
		o.Grace = Grace
	}
	if o.HotWindow == 0 {
		o.HotWindow = HotWindow
	}
	if o.Looks == 0 {
		o.Looks = 5_000
	}
}

// StatusLine is one thing that status looks at.
type StatusLine struct {
	Name  string   `json:"name"`
	State Health   `json:"state"`
	Text  string   `json:"text"`  // the value for a person, or why it is not known
	Value *float64 `json:"value"` // in Unit; nil if it is not known
	Unit  string   `json:"unit,omitempty"`
	Warn  *float64 `json:"warn,omitempty"` // in Unit
	Crit  *float64 `json:"crit,omitempty"`
	// Remedy is what to do, mostly a command; "" if the line is OK.
	Remedy string `json:"remedy,omitempty"`
}

// Metric is a gauge.
type Metric struct {
	Name, Help string
	Label      [2]string // name and value; "" for none
	Value      float64
}

// StatusReport is the result of Status.
type StatusReport struct {
	At      time.Time     `json:"at"` // by the earlier of the clocks of the source and this machine
	State   Health        `json:"state"`
	Lines   []StatusLine  `json:"lines"`
	Failed  []Failure     `json:"failed"` // what could not be read
	Billed  *source.Usage `json:"billed,omitempty"`
	Elapsed float64       `json:"elapsed_seconds"`

	metrics []Metric
}

// ExitCode is 3 if a line is critical, with strict also if one is a warning, and that of
// what could not be read.
func (r *StatusReport) ExitCode(strict bool) int {
	code := fault.ExitOK
	for _, f := range r.Failed {
		code = fault.Worse(code, fault.ExitCode(f.err))
	}
	if r.State == Critical || strict && r.State == Warn {
		code = fault.Worse(code, fault.ExitFindings)
	}
	return code
}

// Metrics are what the report says in numbers, those of one name together. What is not
// known is left out, but for its line's health.
func (r *StatusReport) Metrics() []Metric {
	ms := slices.Clone(r.metrics)
	// Each damaged manifest has a line of the same name, and a text file in which a gauge
	// comes twice is refused whole.
	worst := make(map[string]Health)
	for _, l := range r.Lines {
		if h, twice := worst[l.Name]; !twice || l.State.worse(h) {
			worst[l.Name] = l.State
		}
	}
	for _, l := range r.Lines {
		if h, first := worst[l.Name]; first {
			ms = append(ms, Metric{"etl_status", "How a line of etl status stands: 0 OK, 1 WARN, 2 CRIT, 3 not known.", [2]string{"line", l.Name}, h.number()})
			delete(worst, l.Name)
		}
	}
	if r.Billed != nil {
		ms = append(ms, Metric{Name: "etl_status_rows_read", Help: "Rows that D1 bills as read for this look.", Value: float64(r.Billed.RowsRead)})
	}
	ms = append(ms, Metric{Name: "etl_status_timestamp_seconds", Help: "When this was looked at, in Unix seconds.", Value: unix(r.At)})
	slices.SortStableFunc(ms, func(a, b Metric) int { return cmp.Compare(a.Name, b.Name) })
	return ms
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (r *StatusReport) gauge(name, help string, v float64) {
	r.metrics = append(r.metrics, Metric{Name: name, Help: help, Value: v})
}

func (r *StatusReport) gaugeOf(name, help, label, of string, v float64) {
	r.metrics = append(r.metrics, Metric{name, help, [2]string{label, of}, v})
}

// add adds a line with a value and its limit; the remedy counts unless it is OK.
func (r *StatusReport) add(name string, state Health, v float64, unit string, l Limit, remedy, format string, a ...any) {
	line := StatusLine{Name: name, State: state, Text: fmt.Sprintf(format, a...), Value: &v, Unit: unit}
	if l.Warn != 0 {
		line.Warn = &l.Warn
	}
	if l.Crit != 0 {
		line.Crit = &l.Crit
	}
	if state != Good {
		line.Remedy = remedy
	}
	r.Lines = append(r.Lines, line)
}

func (r *StatusReport) say(name string, state Health, remedy, format string, a ...any) {
	r.Lines = append(r.Lines, StatusLine{Name: name, State: state, Text: fmt.Sprintf(format, a...), Remedy: remedy})
}

// unknown adds lines that can not be told.
func (r *StatusReport) unknown(why, remedy string, names ...string) {
	for _, n := range names {
		r.say(n, NotKnown, remedy, "not known: %s", why)
	}
}

func (r *StatusReport) fail(err error) {
	r.Failed = append(r.Failed, failure(err))
}

// Status looks at both tiers and says how they stand. It writes nothing, scans no table
// and reads no month file. Env.Source and Env.Store may be nil, one of them: what only
// they know is then not known. So it is where one of them can not be opened or read, which
// is in Failed too. The error is that of the context.
//
// Rows that D1 bills as read: some ten for each point, one for each entry of the ledger
// in the hot window, Looks for the quality; docs/operations.md has them measured.
func Status(ctx context.Context, env Env, o StatusOptions) (StatusReport, error) {
	start := env.Now()
	o.defaults()
	s := &statusJob{env: env, o: o, now: start}
	s.r = StatusReport{At: start, State: Good, Failed: []Failure{}}
	hot, cold := &hotFacts{err: o.SourceErr, sizeErr: o.SourceErr}, &coldFacts{err: o.StoreErr}
	if env.Source != nil {
		s.identify(ctx, hot)
	}
	s.window = hotDays(s.now, ArchiveOptions{Grace: o.Grace, HotWindow: o.HotWindow})
	var both errgroup.Group
	both.Go(func() error { s.readHot(ctx, hot); return nil })
	both.Go(func() error { s.readCold(ctx, cold); return nil })
	_ = both.Wait()
	if ctx.Err() != nil {
		return s.r, ctx.Err()
	}
	s.judge(hot, cold)
	for _, l := range s.r.Lines {
		if l.State == Critical || l.State == Warn && s.r.State == Good {
			s.r.State = l.State
		}
	}
	s.r.At = s.now
	s.r.Billed = env.Billed()
	s.r.Elapsed = env.Now().Sub(start).Seconds()
	return s.r, nil
}

type statusJob struct {
	env    Env
	o      StatusOptions
	now    time.Time
	window utc.Days // complete days of the hot window
	r      StatusReport
}

// hotFacts are what was found of the hot tier.
type hotFacts struct {
	size    int64
	sizeErr error
	info    source.Info
	err     error // of what follows, which needs tables fit to be read

	points                   []sample.Point
	newest                   int64 // Unix milliseconds of the newest sample that is not ahead of the clock, 0 for none
	withRows, silent, future int
	looked, bad, instants    int
	marked                   map[int32][]uint64 // for each source.MaxBits days of the window
	ledger                   bool               // marked is known
	runs                     []source.Run
	runsErr                  error
}

// coldFacts are what was found of the cold tier.
type coldFacts struct {
	err         error
	totals      map[utc.Month]manifests.Totals
	hot         map[utc.Month]*manifests.Manifest // the months of the window
	ends        map[utc.Month]*manifests.Manifest // these, the first and the last month, and those that samples begin and end in
	bad         []error                           // manifests that can not be read
	first, last *utc.Day                          // with samples
	newest      *utc.Day                          // that has a number
	rejects     int64
	rejected    time.Time
}

func (s *statusJob) identify(ctx context.Context, h *hotFacts) {
	g, ok := s.env.Source.(source.Gauger)
	if !ok {
		h.err = fault.Errorf(fault.Invalid, "this source can not be measured")
		h.sizeErr = h.err
		return
	}
	h.size, h.sizeErr = g.Size(ctx)
	if h.info, h.err = s.env.Source.Info(ctx); h.err == nil {
		s.now = clock(h.info.Now, s.env.Now())
	}
}

func (s *statusJob) readHot(ctx context.Context, h *hotFacts) {
	if s.env.Source == nil || h.err != nil {
		return
	}
	if hist, ok := s.env.Source.(source.Historian); ok {
		h.runs, h.runsErr = hist.Runs(ctx)
	}
	h.err = s.readPoints(ctx, h)
}

func (s *statusJob) readPoints(ctx context.Context, h *hotFacts) (err error) {
	list := s.env.Source.Points
	if l, ok := s.env.Source.(source.Lister); ok {
		list = l.List
	}
	if h.points, _, err = list(ctx); err != nil {
		return err
	}
	g := s.env.Source.(source.Gauger)
	ids := make([]int32, len(h.points))
	retired := make(map[int32]bool)
	for i, p := range h.points {
		ids[i] = p.ID
		retired[p.ID] = p.RetiredAt != nil && *p.RetiredAt <= s.now.UnixMilli()
	}
	both, bctx := errgroup.WithContext(ctx)
	both.Go(func() error { return s.readNewest(bctx, g, h, ids, retired) })
	both.Go(func() error { return s.readMarks(bctx, g, h, ids) })
	return both.Wait()
}

// readNewest looks at the newest samples of the points, and at the quality of those
// of the last day.
func (s *statusJob) readNewest(ctx context.Context, g source.Gauger, h *hotFacts, ids []int32, retired map[int32]bool) error {
	// A clock that is a minute wrong is no news; rows from the future must not hide that
	// the sensors are silent.
	now, day := s.now.UnixMilli(), s.now.Add(-24*time.Hour).UnixMilli()
	var lively, ahead []int32
	if l, ok := s.env.Source.(source.Latester); ok {
		err := l.Latest(ctx, ids, source.Window(s.now), func(b *sample.Batch) error {
			for i, ts := range b.TS {
				h.withRows++
				switch {
				case ts > now+60_000:
					h.future++
					ahead = append(ahead, b.PointID[i])
				case ts < day:
					if !retired[b.PointID[i]] {
						h.silent++
					}
				}
				if ts >= day {
					lively = append(lively, b.PointID[i])
				}
				if ts <= now+60_000 {
					h.newest = max(h.newest, ts)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(ahead) > 0 { // what is behind the rows from the future
		recent := make(map[int32]bool)
		if err := g.Newest(ctx, ahead, source.Earliest.Start(), now+60_001, func(id int32, ts int64) {
			h.newest = max(h.newest, ts)
			recent[id] = ts >= day
		}); err != nil {
			return err
		}
		for _, id := range ahead {
			if !recent[id] && !retired[id] {
				h.silent++
			}
		}
	}
	return s.readQuality(ctx, g, h, lively, day, now)
}

// readMarks looks at the ledger of the window.
func (s *statusJob) readMarks(ctx context.Context, g source.Gauger, h *hotFacts, ids []int32) error {
	if s.env.Ledger == nil {
		return nil
	}
	h.marked = make(map[int32][]uint64)
	chunks := (s.window.Len() + source.MaxBits - 1) / source.MaxBits
	for c := range chunks {
		part := utc.Days{From: s.window.From + utc.Day(c*source.MaxBits), To: min(s.window.To, s.window.From+utc.Day((c+1)*source.MaxBits))}
		if err := g.Marked(ctx, ids, part, func(id int32, days uint64) {
			if h.marked[id] == nil {
				h.marked[id] = make([]uint64, chunks)
			}
			h.marked[id][c] = days
		}); err != nil {
			return err
		}
	}
	h.ledger = true
	return nil
}

// readQuality looks at some of the readings of the points that have any. To count all of
// a day is a billed row for each: 6.48 million at 4,500 points a minute.
func (s *statusJob) readQuality(ctx context.Context, g source.Gauger, h *hotFacts, points []int32, from, to int64) error {
	if len(points) == 0 {
		return nil
	}
	slices.Sort(points)
	if every := (len(points) + s.o.Looks - 1) / s.o.Looks; every > 1 {
		// Others each hour: a point is not overlooked for ever.
		some := points[:0:0]
		for i := int(s.now.Unix()/3600) % every; i < len(points); i += every {
			some = append(some, points[i])
		}
		points = some
	}
	h.instants = min(max(1, s.o.Looks/len(points)), source.MaxInstants)
	return g.Quality(ctx, points, from, to, h.instants, func(_ int32, looked, bad int) {
		h.looked, h.bad = h.looked+looked, h.bad+bad
	})
}

// has reports whether a (point, day) of the window is marked.
func (h *hotFacts) has(id int32, i int) bool {
	m := h.marked[id]
	return m != nil && m[i/source.MaxBits]&(1<<(i%source.MaxBits)) != 0
}

func (s *statusJob) readCold(ctx context.Context, c *coldFacts) {
	if s.env.Store == nil {
		return
	}
	months, err := manifests.Months(ctx, s.env.Store)
	if err != nil {
		c.err = err
		return
	}
	c.totals, c.hot = make(map[utc.Month]manifests.Totals), make(map[utc.Month]*manifests.Manifest)
	whole := make(map[utc.Month]*manifests.Manifest) // decoded
	window := s.window.Months()
	totals := make([]manifests.Totals, len(months))
	decoded := make([]*manifests.Manifest, len(months))
	errs := make([]error, len(months))
	var g errgroup.Group
	g.SetLimit(4) // of 3 MB each
	for i, m := range months {
		// The first and the last month say which days there are.
		all := i == 0 || i == len(months)-1 || slices.Contains(window, m)
		g.Go(func() error {
			if all {
				decoded[i], _, errs[i] = manifests.Load(ctx, s.env.Store, m)
				if errs[i] == nil {
					totals[i] = decoded[i].Totals
				}
				return nil
			}
			totals[i], errs[i] = manifests.LoadTotals(ctx, s.env.Store, m)
			return nil
		})
	}
	g.Go(func() error { c.rejects, c.rejected, c.err = manifests.CountRejects(ctx, s.env.Store); return nil })
	_ = g.Wait()
	if c.err != nil {
		return
	}
	var counted []int // in months, those with samples
	take := func(i int) {
		switch err := errs[i]; {
		case err == nil:
			if decoded[i] != nil {
				whole[months[i]] = decoded[i]
			}
		case fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid):
			c.bad = append(c.bad, err)
			delete(c.totals, months[i])
		default:
			c.err = cmp.Or(c.err, err)
		}
	}
	for i, m := range months {
		c.totals[m] = totals[i]
		take(i)
		if errs[i] == nil && totals[i].Samples > 0 {
			counted = append(counted, i)
		}
		if whole[m] != nil && slices.Contains(window, m) {
			c.hot[m] = decoded[i]
		}
	}
	// The months at the ends may be archived without a sample, as a backfill of whole years
	// leaves them: the samples begin and end in the first and the last one that counts some.
	if n := len(counted); n > 0 {
		for _, i := range []int{counted[0], counted[n-1]} {
			if c.err == nil && errs[i] == nil && decoded[i] == nil {
				decoded[i], _, errs[i] = manifests.Load(ctx, s.env.Store, months[i])
				take(i)
			}
		}
	}
	c.ends = whole
	c.span(months)
}

// span finds the first and the last day that have samples, and the newest that has a number.
func (c *coldFacts) span(months []utc.Month) {
	for _, m := range months {
		man := c.ends[m]
		if man == nil {
			continue
		}
		for i := range man.Points {
			e := &man.Points[i]
			if e.Samples > 0 {
				first, last := utc.DayOf(*e.First), utc.DayOf(*e.Last)
				if c.first == nil || first < *c.first {
					c.first = &first
				}
				if c.last == nil || last > *c.last {
					c.last = &last
				}
			}
			for k := len(e.Days) - 1; k >= 0; k-- {
				if e.Days[k] != sample.NotArchived {
					if d := m.First() + utc.Day(k); c.newest == nil || d > *c.newest {
						c.newest = &d
					}
					break
				}
			}
		}
	}
}

// samplesPerDay is the mean of the last seven days of the manifests that have samples and
// lie in the window, 0 if there are none.
func samplesPerDay(of map[utc.Month]*manifests.Manifest, window utc.Days) float64 {
	perDay := make(map[utc.Day]int64)
	for m, man := range of {
		for i := range man.Points {
			for k, n := range man.Points[i].Days {
				perDay[m.First()+utc.Day(k)] += int64(max(n, 0))
			}
		}
	}
	var sum, days float64
	for d := window.To - 1; d >= window.From && days < 7; d-- {
		if perDay[d] > 0 {
			sum, days = sum+float64(perDay[d]), days+1
		}
	}
	return sum / max(days, 1)
}

// judge makes the lines.
func (s *statusJob) judge(h *hotFacts, c *coldFacts) {
	s.judgeHot(h, c)
	s.judgeRuns(h)
	s.judgeArchive(h, c)
	s.judgeCold(h, c)
}

const (
	noSource = "no source is set"
	giveOne  = "give --source d1://DATABASE_ID or sqlite:PATH"
	noStore  = "no store is set"
	giveTwo  = "give --store r2://BUCKET or file:DIR"
)

// why says why lines on the hot tier are not known; "" if they are.
func (h *hotFacts) why(env Env) (why, remedy string) {
	switch {
	case h.err != nil:
		return "the source can not be read", ""
	case env.Source == nil:
		return noSource, giveOne
	}
	return "", ""
}

func (c *coldFacts) why(env Env) (why, remedy string) {
	switch {
	case c.err != nil:
		return "the store can not be read", ""
	case env.Store == nil:
		return noStore, giveTwo
	}
	return "", ""
}

// bytesPerRow is the most that a row was measured to take in D1, so that the days left
// are not overrated: 25 to 31 (sql/d1/0001_timeseries.sql).
const bytesPerRow = 31

func (s *statusJob) judgeHot(h *hotFacts, c *coldFacts) {
	l := s.o.Limits
	if h.err != nil {
		s.r.say("source", Critical, cmp.Or(fault.HintOf(h.err), "`etl config --check` tries what it needs"), "%v", h.err)
		s.r.fail(h.err)
	}
	switch {
	case h.sizeErr != nil:
		s.r.unknown("the source can not be measured", "", "size", "days-left")
	case s.env.Source == nil:
		s.r.unknown(noSource, giveOne, "size", "days-left")
	default:
		size := float64(h.size)
		s.r.gauge("etl_d1_size_bytes", "Size of the hot tier's database.", size)
		s.r.gauge("etl_d1_limit_bytes", "Largest size that D1 allows.", D1Limit)
		s.r.add("size", l.Size.judge(size), size, "bytes", l.Size, "`etl prune --dry-run`: what D1 can be freed of; a full database takes no more rows",
			"%s of %s that D1 allows (%.1f %%)", bytesOf(size), bytesOf(D1Limit), 100*size/D1Limit)
		s.daysLeft(h, c)
	}
	if why, remedy := h.why(s.env); why != "" {
		s.r.unknown(why, remedy, "freshness", "silent", "quality")
		return
	}
	if h.withRows == 0 {
		if c.last != nil && len(h.points) > 0 {
			s.r.say("freshness", Critical, "do the sensors write here? If rows were lost, `etl restore --last 30d --dry-run` brings them back", "the hot tier holds no sample at all; the archive ends on %s", *c.last)
		} else {
			s.r.unknown("no point has a sample yet", "", "freshness")
		}
		s.r.unknown("no point has a sample yet", "", "silent", "quality")
		return
	}
	ahead := ""
	if h.future > 0 {
		ahead = fmt.Sprintf("; %s points are ahead of the clock", humanize.Comma(int64(h.future)))
	}
	if h.newest == 0 {
		s.r.say("freshness", Warn, "which clock is wrong? `etl config --check` compares them", "all samples are ahead of the clock: nobody knows when the last one came")
	} else {
		age := max(0, s.now.Sub(time.UnixMilli(h.newest)).Seconds())
		s.r.gauge("etl_freshness_seconds", "Age of the newest sample in the hot tier.", age)
		s.r.add("freshness", l.Freshness.judge(age), age, "seconds", l.Freshness, "do the sensors still write? `etl query @freshness` lists the points by their last sample",
			"newest sample %s old (%s)%s", ageOf(age), time.UnixMilli(h.newest).UTC().Format("2006-01-02 15:04:05"), ahead)
	}
	s.r.gauge("etl_silent_points", "Points that have rows, are not retired, and have no sample of the last 24 hours.", float64(h.silent))
	s.r.add("silent", Good, float64(h.silent), "points", Limit{}, "", "%s of %s points have no sample of the last 24 h", humanize.Comma(int64(h.silent)), humanize.Comma(int64(h.withRows)))
	if h.looked == 0 {
		s.r.unknown("there is no reading of the last 24 h", "", "quality")
		return
	}
	share := float64(h.bad) / float64(h.looked)
	s.r.gauge("etl_bad_quality_ratio", "Share of readings of the last 24 hours with a quality below 192, of some of them.", share)
	s.r.add("quality", l.Quality.judge(share), share, "ratio", l.Quality, "`etl query @bad-quality` says of which points",
		"%.2f %% bad of %s readings of the last 24 h (%d of each point)", 100*share, humanize.Comma(int64(h.looked)), h.instants)
}

func (s *statusJob) daysLeft(h *hotFacts, c *coldFacts) {
	perDay, from := samplesPerDay(c.hot, s.window), "as on the last archived days"
	if perDay == 0 {
		from = "by the points' intervals"
		perDay = expectedPerDay(h.points, s.now)
	}
	if perDay == 0 {
		s.r.unknown("neither archived days nor intervals say how many rows come", "", "days-left")
		return
	}
	left := max(0, D1Limit-float64(h.size)) / (perDay * bytesPerRow)
	l := s.o.Limits.DaysLeft
	s.r.gauge("etl_d1_days_until_full", "Days until the database reaches its limit if nothing leaves it.", left)
	text := "more than ten years"
	if left < 3650 {
		text = fmt.Sprintf("%.0f days", math.Floor(left))
	}
	s.r.add("days-left", l.less(left), left, "days", l, "`etl archive`, then `etl prune --dry-run`: only what is archived may leave D1",
		"%s until it is full, if nothing leaves it (%s rows a day, %s, at %d B)", text, humanize.Comma(int64(perDay)), from, bytesPerRow)
}

// expectedPerDay is how many samples a day the intervals of the points promise.
func expectedPerDay(points []sample.Point, now time.Time) (n float64) {
	for _, p := range points {
		if p.IntervalMS != nil && *p.IntervalMS > 0 && (p.RetiredAt == nil || *p.RetiredAt > now.UnixMilli()) {
			n += float64(utc.DayMillis) / float64(*p.IntervalMS)
		}
	}
	return n
}

// failureAge is how long a failed run is told of: a week, as in the source document.
const failureAge = 7 * 24 * time.Hour

// ended is when a run ended, or was last heard of.
func ended(r *source.Run) time.Time {
	if !r.Finished.IsZero() {
		return r.Finished
	}
	return cmp.Or(r.Heartbeat, r.Started)
}

// failedRun reports whether a run came to nothing, or a part of it.
func failedRun(r *source.Run, now time.Time) bool {
	switch r.Status {
	case "failed", "partial", "crashed":
		return true
	case "running":
		return now.Sub(ended(r)) > silence
	}
	return false
}

// madeGood reports whether a later run did what r was to: any archive does, of the
// others one over the same days.
func madeGood(r *source.Run, later []source.Run) bool {
	return slices.ContainsFunc(later, func(o source.Run) bool {
		return o.Command == r.Command && o.Status == "done" &&
			(r.Command == string(Archive) || r.Days.Empty() || r.Days.Intersect(o.Days) == r.Days)
	})
}

func (s *statusJob) judgeRuns(h *hotFacts) {
	why, remedy := h.why(s.env)
	switch {
	case why != "":
	case h.runsErr != nil:
		why, remedy = h.runsErr.Error(), fault.HintOf(h.runsErr)
		s.r.fail(h.runsErr)
	case len(h.runs) == 0 && s.env.Ledger == nil:
		why, remedy = "there is no log of runs", "`etl migrate` makes it; with --no-state nothing is logged"
	}
	if why != "" {
		s.r.unknown(why, remedy, "runs", "last-success", "last-verify")
		return
	}
	last, done := make(map[string]*source.Run), make(map[string]*source.Run)
	var failed, open []*source.Run
	for i := range h.runs {
		r := &h.runs[i]
		last[r.Command] = r
		if r.Status == "done" {
			done[r.Command] = r
		}
		if r.Command == verifying || !failedRun(r, s.now) || s.now.Sub(ended(r)) > failureAge {
			continue
		}
		failed = append(failed, r)
		if !madeGood(r, h.runs[i+1:]) {
			open = append(open, r)
		}
	}
	for _, c := range sortedKeys(last) {
		s.r.gaugeOf("etl_last_run_timestamp_seconds", "When the last run of a command ended, or was last heard of.", "command", c, unix(ended(last[c])))
	}
	for _, c := range sortedKeys(done) {
		s.r.gaugeOf("etl_last_success_timestamp_seconds", "When the last run of a command that succeeded ended.", "command", c, unix(ended(done[c])))
	}
	s.r.gauge("etl_failed_runs", "Failed, partial or crashed runs of the last 7 days that no later run made good.", float64(len(open)))
	const look = "`etl query @archive-runs` counts them by day; run the command again"
	switch {
	case len(open) > 0:
		r := open[len(open)-1]
		s.r.add("runs", Critical, float64(len(open)), "failures", Limit{Crit: 1}, look, "%d of the last 7 days failed and were not made good; the last one: %s", len(open), runText(r))
	case len(failed) > 0:
		s.r.add("runs", Warn, 0, "failures", Limit{Crit: 1}, look, "%d of the last 7 days failed, later ones made it good; the last one: %s", len(failed), runText(failed[len(failed)-1]))
	default:
		text := "no run is logged yet"
		if n := len(h.runs); n > 0 {
			text = "the last one: " + runText(&h.runs[n-1])
		}
		s.r.add("runs", Good, 0, "failures", Limit{Crit: 1}, "", "none of the last 7 days failed; %s", text)
	}
	s.age("last-success", done[string(Archive)], s.o.Limits.Success, "`etl archive`", "an archive run succeeded", "no archive run has succeeded yet")

	s.judgeVerify(h, last[verifying], done[verifying])
}

// outlived reports whether a later run took back what a verification found damaged: a
// verification that found none in what shows it again, or a repair of those months.
func outlived(v *source.Run, later []source.Run) bool {
	return slices.ContainsFunc(later, func(o source.Run) bool {
		covers := !v.Days.Empty() && v.Days.Intersect(o.Days) == v.Days
		switch o.Command {
		case verifying: // partial is one with lesser findings
			return (o.Status == "done" || o.Status == "partial") && (covers || v.Days.Empty())
		case string(repairing):
			return o.Status == "done" && covers
		}
		return false
	})
}

// judgeVerify says what the verifications found. Damage stays found until it is known to
// be mended: one of another share of the files says nothing of it.
func (s *statusJob) judgeVerify(h *hotFacts, last, done *source.Run) {
	for i := len(h.runs) - 1; i >= 0; i-- {
		v := &h.runs[i]
		if v.Command != verifying || v.Status != "failed" || outlived(v, h.runs[i+1:]) {
			continue
		}
		text := ""
		if v != last {
			text = "; what was verified since does not take it back"
		}
		s.r.say("last-verify", Critical, "`etl repair --dry-run`, then `etl repair`; or `etl verify --deep` of all files, if it was mended otherwise",
			"%s ago: %s%s", ageOf(s.now.Sub(ended(v)).Seconds()), v.Error, text)
		return
	}
	switch {
	case last == nil || last.Status == "done" || last.Status == "running" || last.Status == "failed":
	case last.Status == "interrupted":
		s.r.say("last-verify", Warn, "`etl verify` again: it says nothing of the archive", "%s ago: it did not finish: %s", ageOf(s.now.Sub(ended(last)).Seconds()), last.Error)
		return
	default:
		s.r.say("last-verify", Warn, "`etl verify --deep`, and `etl repair --dry-run`", "%s ago: %s", ageOf(s.now.Sub(ended(last)).Seconds()), last.Error)
		return
	}
	s.age("last-verify", done, s.o.Limits.Verify, "`etl verify --deep --sample 4%`, with the source: it logs that it ran", "a verification found nothing", "no verification is logged yet")
}

func (s *statusJob) age(name string, r *source.Run, l Limit, remedy, what, none string) {
	if r == nil {
		state := Good
		if l != (Limit{}) {
			state = Warn
		}
		s.r.say(name, state, remedy, "%s", none)
		return
	}
	age := max(0, s.now.Sub(ended(r)).Seconds())
	s.r.add(name, l.judge(age), age, "seconds", l, remedy, "%s %s ago", what, ageOf(age))
}

func runText(r *source.Run) string {
	text := fmt.Sprintf("%s, %s, %s", r.Command, r.Started.Format("2006-01-02 15:04"), r.Status)
	if r.Error != "" {
		text += ": " + r.Error
	}
	return text
}

// judgeArchive says what is archived of the hot window.
func (s *statusJob) judgeArchive(h *hotFacts, c *coldFacts) {
	l := s.o.Limits
	if why, remedy := c.why(s.env); why != "" {
		s.r.unknown(why, remedy, "lag", "backlog", "late")
		return
	}
	if len(c.bad) > 0 && slices.ContainsFunc(s.window.Months(), func(m utc.Month) bool { return c.hot[m] == nil && c.badMonth(m) }) {
		s.r.unknown("a manifest of the hot window is damaged", "`etl repair --dry-run`", "lag", "backlog", "late")
		return
	}
	last := s.window.To - 1
	if c.newest == nil {
		s.r.say("lag", Warn, "`etl backfill --from DAY --to DAY`, then `etl archive` each night", "nothing is archived yet")
	} else {
		lag := float64(max(0, last-*c.newest))
		s.r.gauge("etl_archive_lag_days", "Complete days after the newest archived one.", lag)
		s.r.add("lag", l.Lag.judge(lag), lag, "days", l.Lag, "`etl archive`", "%.0f days; archived up to %s, complete up to %s", lag, *c.newest, last)
	}
	if why, remedy := h.why(s.env); why != "" {
		s.r.unknown(why, remedy, "backlog", "late")
		return
	}
	var backlog, older, late int64
	var oldest utc.Day
	for _, m := range s.window.Months() {
		archived := make(map[int32]utc.Set)
		if man := c.hot[m]; man != nil {
			for i := range man.Points {
				archived[man.Points[i].ID] = man.Points[i].Days.Archived()
			}
		}
		days := s.window.Intersect(m.Days())
		for i := range h.points {
			p := &h.points[i]
			have := archived[p.ID]
			for d := days.From; d < days.To; d++ {
				switch in := have.Has(int(d - m.First())); {
				case !in:
					backlog++
					// A point that was made since the last night has no past to archive.
					if d < last && !(p.CreatedAt != nil && *p.CreatedAt >= last.Start() && *p.CreatedAt <= s.now.UnixMilli()) {
						if older++; oldest == 0 || d < oldest {
							oldest = d
						}
					}
				case h.ledger && !h.has(p.ID, int(d-s.window.From)):
					late++
				}
			}
		}
	}
	s.r.gauge("etl_backlog_point_days", "Complete (point, day)s of the hot window that are not archived.", float64(backlog))
	text := fmt.Sprintf("%s (point, day)s are not archived", humanize.Comma(backlog))
	switch {
	case older > 0:
		text += fmt.Sprintf(", %s of them before %s, the first of %s", humanize.Comma(older), last, oldest)
	case backlog > 0:
		text += ", all of last night"
	}
	s.r.add("backlog", l.Backlog.judge(float64(older)), float64(backlog), "point-days", l.Backlog, "`etl archive`", "%s", text)
	if !h.ledger {
		s.r.unknown("the ledger is not used (--no-state), or not made", "`etl migrate` makes it; without it late rows are found only by `etl rearchive`", "late")
		return
	}
	s.r.gauge("etl_late_point_days", "Archived (point, day)s of the hot window that are not marked: rows came late, or some were refused.", float64(late))
	s.r.add("late", l.Late.judge(float64(late)), float64(late), "point-days", l.Late, "`etl archive`; `etl rejects` lists rows that it refuses",
		"%s archived (point, day)s wait for the next archive", humanize.Comma(late))
}

func (c *coldFacts) badMonth(m utc.Month) bool {
	return slices.ContainsFunc(c.bad, func(err error) bool { return strings.Contains(err.Error(), string(manifests.KeyOf(m))) })
}

func (s *statusJob) judgeCold(h *hotFacts, c *coldFacts) {
	if why, remedy := c.why(s.env); why != "" {
		if c.err != nil {
			s.r.say("store", Critical, cmp.Or(fault.HintOf(c.err), "`etl config --check` tries what it needs"), "%v", c.err)
			s.r.fail(c.err)
		}
		s.r.unknown(why, remedy, "cold", "growth", "rejects")
		return
	}
	for _, err := range c.bad {
		s.r.say("manifest", Critical, cmp.Or(fault.HintOf(err), "`etl repair --dry-run`"), "%v", err)
		s.r.fail(err)
	}
	var t manifests.Totals
	var newest utc.Month
	found := false
	current := utc.DayOfTime(s.now).Month()
	for m, x := range c.totals {
		t.Files, t.Samples, t.Bytes = t.Files+x.Files, t.Samples+x.Samples, t.Bytes+x.Bytes
		if m < current && x.Samples > 0 && (!found || m > newest) {
			newest, found = m, true
		}
	}
	s.r.gauge("etl_cold_files", "Month files that the manifests count.", float64(t.Files))
	s.r.gauge("etl_cold_samples", "Samples that the manifests count.", float64(t.Samples))
	s.r.gauge("etl_cold_bytes", "Bytes of the month files.", float64(t.Bytes))
	switch {
	case c.first != nil:
		s.r.gauge("etl_cold_first_day_timestamp_seconds", "First archived day with samples.", unix(c.first.Time()))
		s.r.gauge("etl_cold_last_day_timestamp_seconds", "Last archived day with samples.", unix(c.last.Time()))
		s.r.add("cold", Good, float64(t.Bytes), "bytes", Limit{}, "", "%s files, %s samples, %s, %s to %s",
			humanize.Comma(int64(t.Files)), humanize.Comma(t.Samples), bytesOf(float64(t.Bytes)), *c.first, *c.last)
	case t.Samples == 0 && len(c.bad) == 0:
		s.r.say("cold", Good, "", "the store is empty")
	default:
		s.r.unknown("no manifest can be read", "", "cold")
	}
	if found {
		x := c.totals[newest]
		s.r.gauge("etl_cold_growth_bytes_per_month", "Bytes of the last month that is over.", float64(x.Bytes))
		s.r.add("growth", Good, float64(x.Bytes), "bytes", Limit{}, "", "%s a month (%s, %s samples)", bytesOf(float64(x.Bytes)), newest, humanize.Comma(x.Samples))
	} else {
		s.r.unknown("no month that is over is archived", "", "growth")
	}
	state := Good
	text := fmt.Sprintf("%s files of rejected rows", humanize.Comma(c.rejects))
	if c.rejects > 0 {
		text += ", the newest of " + c.rejected.UTC().Format("2006-01-02")
		if s.now.Sub(c.rejected) < 24*time.Hour {
			state = Warn
		}
	}
	s.r.gauge("etl_reject_files", "Objects with rejected rows.", float64(c.rejects))
	s.r.add("rejects", state, float64(c.rejects), "files", Limit{}, "`etl rejects` says which rows and how to mend them", "%s", text)
}

func bytesOf(n float64) string { return humanize.Bytes(uint64(n)) }

// ageOf writes seconds for a person.
func ageOf(s float64) string {
	switch {
	case s < 120:
		return fmt.Sprintf("%.0f s", s)
	case s < 2*3600:
		return fmt.Sprintf("%.0f min", s/60)
	case s < 48*3600:
		return fmt.Sprintf("%.1f h", s/3600)
	}
	return fmt.Sprintf("%.1f days", s/86400)
}
