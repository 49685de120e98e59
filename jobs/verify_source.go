package jobs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/manifests"
)

// This file compares the cold tier with the source and with its ledger.
//
// Only (point, day)s that are archived are compared, and only that each row of
// the source is in the archive: rows that the archive alone has have left the
// source, as they should.
//
// A row of the source that the archive lacks, or has otherwise, came late or is
// lost. The mark of its day tells which: a row that is inserted or changed takes
// the mark away in the same transaction. So the day's mark is read, then the
// archive and the source once more, then the mark again. Found twice the same, and
// done, nothing came between: the archive should have that row, and has not. Else
// the row is late, and the next archive takes it, as long as its day is in the hot
// window.

// hotTier is what a verification knows of the source.
type hotTier struct {
	points []int32 // chosen ones, ascending
	names  map[int32]string
	days   utc.Days // to compare
	window utc.Days // that archive looks at by itself
}

// hotMemory bounds the rows of the source that wait to be compared; a point that
// has more in one month is admitted alone.
const hotMemory = 128 << 20

func (v *verifier) hot(ctx context.Context) (*hotTier, error) {
	info, err := v.env.Source.Info(ctx)
	if err != nil {
		return nil, err
	}
	all, _, err := v.env.Source.Points(ctx)
	if err != nil {
		return nil, err
	}
	chosen, err := v.opts.Points.filter(ctx, v.env.Source, all)
	if err != nil {
		return nil, err
	}
	h := &hotTier{names: make(map[int32]string, len(chosen)), window: hotDays(clock(info.Now, v.env.Now()), ArchiveOptions{HotWindow: v.opts.HotWindow, Grace: v.opts.Grace})}
	for _, p := range chosen {
		h.points = append(h.points, p.ID)
		h.names[p.ID] = p.Name
	}
	h.days = v.opts.Days
	if h.days == (utc.Days{}) {
		h.days = h.window
	}
	return h, nil
}

// source compares one month.
func (v *verifier) source(ctx context.Context, m utc.Month, hot *hotTier) error {
	rng := hot.days.Intersect(m.Days())
	marked := make(map[int32]utc.Set)
	if v.env.Ledger != nil {
		// Before the manifest: what is marked was committed by then.
		err := v.env.Ledger.Marks(ctx, hot.points, rng, func(mk source.Mark) {
			if mk.State == source.Marked {
				marked[mk.Point] = marked[mk.Point].With(int(mk.Day - m.First()))
			}
		})
		if err != nil {
			return err
		}
	}
	man, _, err := manifests.Load(ctx, v.env.Store, m)
	if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid) {
		if !slices.ContainsFunc(v.broken, func(u broken) bool { return u.all && u.month == m }) {
			v.notWhole(broken{all: true, month: m, days: utc.SetOf(m, m.Days()), why: "the manifest can not be read"})
		}
		return nil // a finding already, or the next one's
	}
	if err != nil {
		return err
	}
	mp := MonthPlan{Month: m}
	for _, id := range hot.points {
		var archived utc.Set
		e := man.Entry(id)
		if e != nil {
			archived = e.Days.Archived()
		}
		if lacks := marked[id] &^ archived; lacks != 0 {
			v.notWhole(broken{point: id, name: hot.names[id], month: m, days: lacks, why: "the manifest does not have them"})
		}
		if days := archived & utc.SetOf(m, rng); v.opts.Against != "" && days != 0 && v.sampled(e) && !v.isBroken(id, m) {
			mp.want = append(mp.want, want{point: id, days: days})
		}
	}
	if len(mp.want) == 0 {
		return nil
	}
	c := &comparison{verifier: v, hot: hot, month: m, man: man, memory: semaphore.NewWeighted(hotMemory), queue: make(chan *hotRows)}
	c.series.New = func() any { return new(sample.Series) }
	v.begin(m, len(mp.want))
	return c.run(ctx, mp.batches())
}

// isBroken reports whether the point's file of the month is a finding already.
func (v *verifier) isBroken(point int32, m utc.Month) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.ContainsFunc(v.broken, func(u broken) bool { return u.month == m && (u.all || u.point == point) })
}

// comparison is the state of one month.
type comparison struct {
	*verifier
	hot    *hotTier
	month  utc.Month
	man    *manifests.Manifest
	memory *semaphore.Weighted
	series sync.Pool
	queue  chan *hotRows
	large  sync.Mutex // held while a file of very many samples is compared
}

// hotRows are what the source has of a point on days of the month that are archived.
type hotRows struct {
	point int32
	days  utc.Set
	rows  *sample.Series
	held  int64
}

// run extracts and compares, each with its own workers: extraction goes on while
// others wait for the store.
func (c *comparison) run(ctx context.Context, batches []batch) error {
	compare, cctx := errgroup.WithContext(ctx)
	for range c.opts.Workers {
		compare.Go(func() error {
			dec, cold := monthfile.NewDecoder().Timed(c.env.Timing), new(sample.Series)
			for h := range c.queue {
				many := c.man.Entry(h.point).Samples > manySamples
				if many {
					c.large.Lock()
				}
				err := c.point(cctx, h, dec, cold)
				if many {
					*cold = sample.Series{}
					c.large.Unlock()
				}
				c.series.Put(h.rows)
				c.memory.Release(h.held)
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	extract, ectx := errgroup.WithContext(cctx)
	extract.SetLimit(c.opts.ExtractWorkers)
	for _, b := range batches {
		extract.Go(func() error {
			for _, days := range b.days.Runs(c.month) {
				if err := c.extract(ectx, b.points, days); err != nil {
					return err
				}
			}
			c.done(b)
			return nil
		})
	}
	err := extract.Wait()
	close(c.queue)
	if cerr := compare.Wait(); cerr != nil {
		return cerr // the reason why the extraction ended, if it did
	}
	return err
}

func (c *comparison) done(b batch) {
	c.mu.Lock()
	c.report.Compared += int64(len(b.points) * b.days.Len())
	c.mu.Unlock()
	for range b.points {
		c.progress()
	}
}

// extract hands on what the source has of the points on contiguous days.
func (c *comparison) extract(ctx context.Context, points []int32, days utc.Days) error {
	if c.opts.Against == AgainstCounts {
		return c.count(ctx, points, days)
	}
	var at *hotRows
	flush := func() error {
		h := at
		at = nil
		if h == nil {
			return nil
		}
		return c.send(ctx, h)
	}
	_, err := c.env.Source.Read(ctx, source.Query{Points: points, Days: days}, func(b *sample.Batch) error {
		for i := 0; i < b.Len(); {
			id, j := b.PointID[i], i+1
			for j < b.Len() && b.PointID[j] == id {
				j++
			}
			if at != nil && at.point != id {
				if err := flush(); err != nil {
					return err
				}
			}
			if at == nil {
				at = &hotRows{point: id, days: utc.SetOf(c.month, days), rows: c.series.Get().(*sample.Series)}
				at.rows.Reset()
			}
			at.rows.AppendRange(&b.Series, i, j)
			i = j
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

func (c *comparison) send(ctx context.Context, h *hotRows) error {
	c.mu.Lock()
	c.report.HotRows += int64(h.rows.Len())
	c.mu.Unlock()
	h.held = min(hotMemory, int64(max(1, h.rows.Len()))*sample.RowBytes)
	if err := c.memory.Acquire(ctx, h.held); err != nil {
		return err
	}
	select {
	case c.queue <- h:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// count looks into the days of which the source has more rows than the archive.
func (c *comparison) count(ctx context.Context, points []int32, days utc.Days) error {
	more := make(map[int32]utc.Set)
	for d := days.From; d < days.To; d++ {
		counts, err := c.env.Source.Count(ctx, source.Query{Points: points, Days: utc.Days{From: d, To: d + 1}})
		if err != nil {
			return err
		}
		i := int(d - c.month.First())
		for id, n := range counts {
			c.mu.Lock()
			c.report.HotRows += n
			c.mu.Unlock()
			if n > int64(c.man.Entry(id).Days[i]) {
				more[id] = more[id].With(i)
			}
		}
	}
	dec, cold := monthfile.NewDecoder().Timed(c.env.Timing), new(sample.Series)
	for _, id := range slices.Sorted(maps.Keys(more)) {
		if err := c.again(ctx, id, more[id], dec, cold); err != nil {
			return err
		}
	}
	return nil
}

// point compares what was extracted of a point with its month file.
func (c *comparison) point(ctx context.Context, h *hotRows, dec *monthfile.Decoder, cold *sample.Series) error {
	e := c.man.Entry(h.point)
	if e.Path != "" {
		data, _, err := c.env.Store.Get(ctx, e.Path)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			c.read(int64(len(data)))
			sum := sha256.Sum256(data)
			if hex.EncodeToString(sum[:]) == e.SHA256 {
				if _, err := dec.DecodeTrusted(data, cold); err == nil && missed(c.month, h.rows, cold) == nil {
					return nil
				}
			}
		}
	}
	return c.again(ctx, h.point, h.days, dec, cold)
}

// differences are what the archive does not have of a day of the source.
type differences struct {
	missing, other int
	first          int64 // timestamp of the first of them
}

// missed are the rows of hot that cold lacks, or has otherwise, by the day of the
// month; nil if there are none.
func missed(m utc.Month, hot, cold *sample.Series) map[int]differences {
	var all map[int]differences
	j := 0
	for i, ts := range hot.TS {
		j += seek(cold.TS[j:], ts)
		there := j < cold.Len() && cold.TS[j] == ts
		if there && hot.EqualAt(i, cold, j) {
			continue
		}
		if all == nil {
			all = make(map[int]differences)
		}
		day := int(utc.DayOf(ts) - m.First())
		d, seen := all[day]
		if !seen {
			d.first = ts
		}
		if there {
			d.other++
		} else {
			d.missing++
		}
		all[day] = d
	}
	return all
}

// seek is the number of leading timestamps in ts that are before t.
func seek(ts []int64, t int64) int {
	if len(ts) == 0 || ts[0] >= t {
		return 0
	}
	if len(ts) == 1 || ts[1] >= t { // most samples follow each other in both
		return 1
	}
	n, _ := slices.BinarySearch(ts, t)
	return n
}

// again reads everything once more, between two looks at the marks, and says what
// the differences are that remain.
func (c *comparison) again(ctx context.Context, point int32, days utc.Set, dec *monthfile.Decoder, cold *sample.Series) error {
	if c.isBroken(point, c.month) {
		return nil // found already
	}
	before, err := c.states(ctx, point, days)
	if err != nil {
		return err
	}
	// The source before the archive: a row that was read of the source and is
	// committed meanwhile is then seen in both.
	var hot sample.Series
	for _, run := range days.Runs(c.month) {
		_, err := c.env.Source.Read(ctx, source.Query{Points: []int32{point}, Days: run}, func(b *sample.Batch) error {
			hot.AppendRange(&b.Series, 0, b.Len())
			return nil
		})
		if err != nil {
			return err
		}
	}
	man, _, err := manifests.Load(ctx, c.env.Store, c.month)
	if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid) {
		c.find(Finding{Severity: Damaged, Code: "manifest", Month: c.month.String(), Path: string(manifests.KeyOf(c.month)), Text: err.Error(), Remedy: toMend(c.month)})
		c.notWhole(broken{all: true, month: c.month, days: utc.SetOf(c.month, c.month.Days()), why: "the manifest can not be read"})
		return nil
	}
	if err != nil {
		return err
	}
	e := man.Entry(point)
	if e == nil {
		e = c.man.Entry(point)
	}
	cold.Reset()
	if e.Path != "" {
		// file reads it, by the rules for files that are newer than the manifest,
		// and leaves its rows in cold.
		whole, err := c.fileRows(ctx, *e, dec, cold)
		if err != nil || !whole {
			return err
		}
	}
	diffs := missed(c.month, &hot, cold)
	if diffs == nil {
		return nil
	}
	after, err := c.states(ctx, point, days)
	if err != nil {
		return err
	}
	var safe, old, waiting differing // by what the ledger says of the day
	for _, i := range slices.Sorted(maps.Keys(diffs)) {
		d := c.month.First() + utc.Day(i)
		mark, done := before[i]
		switch {
		case done && mark.State != source.Claimed && after[i] == mark:
			safe.add(d, diffs[i])
		case c.hot.window.Contains(d) && c.env.Ledger != nil:
			waiting.add(d, diffs[i])
		default:
			old.add(d, diffs[i])
		}
	}
	c.mu.Lock()
	c.report.Waiting += int64(len(waiting.days))
	c.mu.Unlock()
	for _, x := range []struct {
		differing
		severity Severity
		why      string
	}{
		{safe, Notice, "the ledger marks these days as archived all the same"},
		{old, Notice, "they came late, on days that are no longer in the hot window, and no archive looks at them by itself"},
		{waiting, Info, "they came after their days were archived, and the next archive takes them"},
	} {
		if len(x.days) == 0 {
			continue
		}
		f := Finding{Severity: x.severity, Code: "source-missing", Month: c.month.String(), PointID: point, Point: e.Name, Path: string(e.Path), Days: x.days}
		if x.severity == Notice {
			f.Remedy = fmt.Sprintf("`%s` adds and corrects them", rearchive(x.days, e.Name))
		}
		switch {
		case x.severity == Info:
			f.Code = "waiting"
		case x.missing == 0:
			f.Code = "source-differs"
		}
		if c.env.Ledger == nil {
			x.why = "without the ledger it can not be told whether they only came late"
		}
		f.Text = fmt.Sprintf("the source has %s, on %d days, the first at %s: %s", x.String(), len(x.days), time.UnixMilli(x.first).UTC().Format("2006-01-02 15:04:05.000Z"), x.why)
		c.find(f)
	}
	if len(safe.days) > 0 {
		var set utc.Set
		for _, d := range safe.days {
			set = set.With(int(d - c.month.First()))
		}
		c.notWhole(broken{point: point, name: e.Name, month: c.month, days: set, why: "rows of the source are not in the archive"})
	}
	return nil
}

// fileRows reads the rows of a month file, be it newer than the manifest. One
// that is damaged is a finding, and not whole.
func (c *comparison) fileRows(ctx context.Context, e manifests.Entry, dec *monthfile.Decoder, cold *sample.Series) (whole bool, err error) {
	data, _, err := c.env.Store.Get(ctx, e.Path)
	if err == nil {
		sum := sha256.Sum256(data)
		info, derr := dec.Decode(data, cold)
		if derr == nil && (hex.EncodeToString(sum[:]) == e.SHA256 || info.PointID == e.ID && info.Month == c.month && info.RowsSHA256 != e.RowsSHA256) {
			c.read(int64(len(data)))
			return true, nil
		}
	}
	var scratch sample.Series
	_, err = c.file(ctx, c.month, e, dec, &scratch)
	return false, err
}

// differing sums differences of several days up.
type differing struct {
	differences
	days []utc.Day
}

func (s *differing) add(day utc.Day, d differences) {
	if len(s.days) == 0 {
		s.first = d.first
	}
	s.days = append(s.days, day)
	s.missing += d.missing
	s.other += d.other
}

func (d differences) String() string {
	var parts []string
	if d.missing > 0 {
		parts = append(parts, fmt.Sprintf("%d rows that the archive lacks", d.missing))
	}
	if d.other > 0 {
		parts = append(parts, fmt.Sprintf("%d rows that the archive has with other values", d.other))
	}
	return strings.Join(parts, " and ")
}

// states are the marks of a point's days, by the day of the month.
func (c *comparison) states(ctx context.Context, point int32, days utc.Set) (map[int]source.Mark, error) {
	marks := make(map[int]source.Mark)
	if c.env.Ledger == nil {
		return marks, nil
	}
	for _, run := range days.Runs(c.month) {
		err := c.env.Ledger.Marks(ctx, []int32{point}, run, func(m source.Mark) { marks[int(m.Day-c.month.First())] = m })
		if err != nil {
			return nil, err
		}
	}
	return marks, nil
}

// rearchive is the command that archives days of a point once more.
func rearchive(days []utc.Day, name string) string {
	text := fmt.Sprintf("etl rearchive --from %s --to %s", days[0], days[len(days)-1]+1)
	// A name that is a pattern, or needs more than quotes, would choose others.
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || strings.ContainsRune("*?'`\\\u007f", r) }) {
		return text
	}
	return text + " --points '" + name + "'"
}

// marks finds the marks over (point, day)s that are not whole, and revokes them on
// request.
func (v *verifier) marks(ctx context.Context, hot *hotTier) error {
	if v.env.Ledger == nil {
		return nil
	}
	slices.SortStableFunc(v.broken, func(a, b broken) int { return cmp.Or(cmp.Compare(a.month, b.month), cmp.Compare(a.point, b.point)) })
	for _, u := range v.broken {
		points := []int32{u.point}
		if u.all {
			points = hot.points
		}
		var found []source.Slice
		days := make(map[utc.Day]bool)
		for chunk := range slices.Chunk(points, batchPoints) {
			err := v.env.Ledger.Marks(ctx, chunk, u.month.Days(), func(m source.Mark) {
				if m.State == source.Marked && u.days.Has(int(m.Day-u.month.First())) {
					found = append(found, m.Slice)
					days[m.Day] = true
				}
			})
			if err != nil {
				return err
			}
		}
		if len(found) == 0 {
			continue
		}
		f := Finding{Severity: Notice, Code: "mark", Month: u.month.String(), PointID: u.point, Point: u.name, Days: slices.Sorted(maps.Keys(days)),
			Text:   fmt.Sprintf("the ledger marks %d (point, day)s as archived, but %s: retention and prune may take their only copy", len(found), u.why),
			Remedy: "`etl verify --revoke` with the same flags takes the marks back; an archive of these days reads them again"}
		if v.opts.Revoke {
			n := 0
			for part := range slices.Chunk(found, batchSlices) {
				k, err := v.env.Ledger.Revoke(ctx, part)
				if err != nil {
					return err
				}
				n += k
			}
			v.report.Revoked += int64(n)
			f.Severity, f.Remedy = Info, ""
			f.Text = fmt.Sprintf("took back the marks of %d (point, day)s, since %s; nothing trims them until an archive has read them again", n, u.why)
		}
		v.find(f)
	}
	return nil
}
