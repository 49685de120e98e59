package lake

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"golang.org/x/sync/errgroup"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

// hotPlan is what the hot tier has to give for a query.
type hotPlan struct {
	reads []source.Query
	rows  int64 // about as many will come
	// both are the archived days that the hot tier answers for too.
	both map[fileID]utc.Set
	// The marks that decided, and where they were looked for.
	points []int32
	days   utc.Days
	marks  map[source.Slice]source.Mark
}

// fileID names the month file of a point.
type fileID struct {
	point int32
	month utc.Month
}

// whole is a region of every instant that a sample may have.
func whole(days utc.Days) string {
	return fmt.Sprintf("make_timestamp(%d) AS t_min, make_timestamp(%d) AS t_max", days.From.Start()*1000, days.To.Start()*1000-1000)
}

// pointsFor lists the points that a condition on regions can be about, ascending.
func (l *Lake) pointsFor(ctx context.Context, where string, days utc.Days) ([]int32, error) {
	var ids []int32
	err := l.arrow(ctx, "SELECT point_id FROM (SELECT point_id, point_name, "+whole(days)+" FROM lake.points) regions WHERE "+where+" ORDER BY point_id",
		func(rec arrow.RecordBatch) error {
			ids = append(ids, ints(rec, 0)...)
			return nil
		})
	return ids, err
}

// planHot decides, for the days that scans of samples can touch, which the hot
// tier answers for: those that are not archived, and in the hot window those
// that are archived and not marked. With tier Hot that is every day.
func (l *Lake) planHot(ctx context.Context, tier Tier, where string, from, to int64) (*hotPlan, error) {
	h := &hotPlan{both: map[fileID]utc.Set{}, marks: map[source.Slice]source.Mark{}}
	window := source.Window(l.o.Now())
	touched := utc.Days{From: utc.DayOf(from), To: utc.DayOf(to)}
	if touched.To < math.MaxInt32 {
		touched.To++
	}
	touched = touched.Intersect(window)
	if touched.Empty() {
		return h, nil
	}
	points, err := l.pointsFor(ctx, where, touched)
	if err != nil || len(points) == 0 {
		return h, err
	}
	archived, perDay, err := l.archivedDays(ctx, points)
	if err != nil {
		return nil, err
	}
	if tier == Hot {
		clear(archived)
	}
	// Nobody knows what is archived of a month whose manifest can not be read. A
	// query does not get here with one; a scan takes nothing of it.
	for m := range l.catalog.Bad {
		for _, id := range points {
			archived[fileID{id, m}] = utc.SetOf(m, m.Days())
		}
	}
	begin := utc.DayOfTime(l.o.Now()) - utc.Day(l.o.HotWindow)
	recent := touched.Intersect(utc.Days{From: begin, To: window.To})
	old := touched.Intersect(utc.Days{From: window.From, To: begin})

	ranges := make(map[int32][]utc.Days, len(points))
	if err := l.oldRanges(ctx, where, points, archived, old, ranges); err != nil {
		return nil, err
	}
	if err := l.recentRanges(ctx, where, recent, archived, h, ranges); err != nil {
		return nil, err
	}
	h.reads = byDays(points, ranges)
	h.rows = l.estimate(ranges, recent, perDay)
	return h, nil
}

// archivedDays are the archived days of the points by their months, and how many
// samples such a day of a point has on average.
func (l *Lake) archivedDays(ctx context.Context, points []int32) (sets map[fileID]utc.Set, perDay map[int32]float64, err error) {
	sets, perDay = map[fileID]utc.Set{}, map[int32]float64{}
	type sum struct{ samples, days int64 }
	sums := map[int32]sum{}
	where := ""
	if len(points) <= 100 {
		where = " WHERE point_id IN " + in(points)
	}
	err = l.arrow(ctx, "SELECT point_id, month, archived, samples FROM lake.catalog"+where, func(rec arrow.RecordBatch) error {
		ids, months, masks, samples := ints(rec, 0), rec.Column(1).(*array.String), rec.Column(2).(*array.Uint32), rec.Column(3).(*array.Int64)
		last, month := "", utc.Month(0)
		for i, id := range ids {
			if s := months.Value(i); s != last {
				m, err := utc.ParseMonth(s)
				if err != nil {
					return err
				}
				last, month = strings.Clone(s), m
			}
			set := utc.Set(masks.Value(i))
			sets[fileID{id, month}] = set
			sums[id] = sum{sums[id].samples + samples.Value(i), sums[id].days + int64(set.Len())}
		}
		return nil
	})
	for id, s := range sums {
		if s.days > 0 {
			perDay[id] = float64(s.samples) / float64(s.days)
		}
	}
	return sets, perDay, err
}

func in(ids []int32) string {
	var b strings.Builder
	for i, id := range ids {
		fmt.Fprintf(&b, "%c%d", "(,"[min(i, 1)], id)
	}
	return b.String() + ")"
}

// oldRanges adds, for the days before the hot window, each run of days that are
// not archived and that the condition can touch. D1 rarely has any of them.
func (l *Lake) oldRanges(ctx context.Context, where string, points []int32, archived map[fileID]utc.Set, old utc.Days, ranges map[int32][]utc.Days) error {
	if old.Empty() {
		return nil
	}
	type run struct {
		point int32
		days  utc.Days
	}
	var runs []run
	months := old.Months()
	for _, id := range points {
		open := utc.Days{From: old.From, To: old.From} // the run that goes on
		for _, m := range months {
			set, ok := archived[fileID{id, m}]
			if !ok {
				open.To = min((m + 1).First(), old.To)
				continue
			}
			for _, r := range (^set & utc.SetOf(m, old)).Runs(m) {
				if r.From != open.To || open.Empty() {
					if !open.Empty() {
						runs = append(runs, run{id, open})
					}
					open.From = r.From
				}
				open.To = r.To
			}
			if end := min((m + 1).First(), old.To); open.To != end {
				if !open.Empty() {
					runs = append(runs, run{id, open})
				}
				open = utc.Days{From: end, To: end}
			}
		}
		if !open.Empty() {
			runs = append(runs, run{id, open})
		}
	}
	rows := make([][]driver.Value, len(runs))
	for i, r := range runs {
		rows[i] = []driver.Value{int32(i), r.point, time.UnixMilli(r.days.From.Start()).UTC(), time.UnixMilli(r.days.To.Start() - 1).UTC()}
	}
	if err := l.append("spans", rows); err != nil {
		return err
	}
	return l.arrow(ctx, "SELECT n FROM (SELECT n, s.point_id, p.point_name, t_min, t_max FROM lake.spans s JOIN lake.points p ON s.point_id = p.point_id) regions WHERE "+where+" ORDER BY n",
		func(rec arrow.RecordBatch) error {
			for _, n := range ints(rec, 0) {
				ranges[runs[n].point] = append(ranges[runs[n].point], runs[n].days)
			}
			return nil
		})
}

// recentRanges adds the days of the hot window that the condition can touch and
// for which the hot tier answers. It notes in h what that depended on.
func (l *Lake) recentRanges(ctx context.Context, where string, recent utc.Days, archived map[fileID]utc.Set, h *hotPlan, ranges map[int32][]utc.Days) error {
	if recent.Empty() {
		return nil
	}
	type slice = source.Slice
	var touched []slice
	if err := l.arrow(ctx, fmt.Sprintf(`SELECT point_id, day FROM (
		SELECT point_id, point_name, CAST(d.day AS INTEGER) AS day, make_timestamp(d.day * 86400000000) AS t_min, make_timestamp((d.day + 1) * 86400000000 - 1000) AS t_max
		FROM lake.points, range(%d, %d) d(day)) regions WHERE %s ORDER BY point_id, day`, recent.From, recent.To, where),
		func(rec arrow.RecordBatch) error {
			ids, days := ints(rec, 0), ints(rec, 1)
			for i := range ids {
				touched = append(touched, slice{Point: ids[i], Day: utc.Day(days[i])})
			}
			return nil
		}); err != nil {
		return err
	}
	cold := func(s slice) bool {
		return archived[fileID{s.Point, s.Day.Month()}].Has(int(s.Day - s.Day.Month().First()))
	}
	for _, s := range touched {
		if !cold(s) {
			continue
		}
		if n := len(h.points); n == 0 || h.points[n-1] != s.Point {
			h.points = append(h.points, s.Point)
		}
		if h.days.Empty() {
			h.days = utc.Days{From: s.Day, To: s.Day + 1}
		}
		h.days.From, h.days.To = min(h.days.From, s.Day), max(h.days.To, s.Day+1)
	}
	var err error
	if h.marks, err = l.marks(ctx, h.points, h.days); err != nil {
		return err
	}
	for _, s := range touched {
		if cold(s) {
			if m, ok := h.marks[s]; ok && (m.State == source.Marked || m.State == source.Trimmed) {
				continue
			}
			id := fileID{s.Point, s.Day.Month()}
			h.both[id] = h.both[id].With(int(s.Day - id.month.First()))
		}
		r := ranges[s.Point]
		if n := len(r); n > 0 && r[n-1].To == s.Day {
			r[n-1].To++
		} else {
			r = append(r, utc.Days{From: s.Day, To: s.Day + 1})
		}
		ranges[s.Point] = r
	}
	return nil
}

// marks reads the ledger; without one nothing is marked.
func (l *Lake) marks(ctx context.Context, points []int32, days utc.Days) (map[source.Slice]source.Mark, error) {
	marks := map[source.Slice]source.Mark{}
	if l.o.Ledger == nil || len(points) == 0 {
		return marks, nil
	}
	return marks, l.o.Ledger.Marks(ctx, points, days, func(m source.Mark) { marks[m.Slice] = m })
}

// byDays makes queries of the ranges: the points that want the same days together.
func byDays(points []int32, ranges map[int32][]utc.Days) []source.Query {
	same := map[utc.Days][]int32{}
	for _, id := range points {
		for _, r := range ranges[id] {
			same[r] = append(same[r], id)
		}
	}
	var reads []source.Query
	for days, ids := range same {
		reads = append(reads, source.Query{Points: ids, Days: days})
	}
	slices.SortFunc(reads, func(a, b source.Query) int {
		return cmp.Or(cmp.Compare(a.Days.From, b.Days.From), cmp.Compare(a.Days.To, b.Days.To))
	})
	return reads
}

// estimate is about how many rows the hot tier has on the recent days of the
// ranges: as many a day as the point's archived days have, else as its interval
// says, else one a minute. Days before the hot window count nothing: the hot tier
// normally holds none of them, and the guard counts what comes as well.
func (l *Lake) estimate(ranges map[int32][]utc.Days, recent utc.Days, perDay map[int32]float64) int64 {
	now := l.o.Now().UnixMilli()
	var rows float64
	for id, rs := range ranges {
		day, ok := perDay[id]
		if !ok {
			day = utc.DayMillis / 60_000
			if i, ok := slices.BinarySearchFunc(l.points, id, func(p sample.Point, id int32) int { return cmp.Compare(p.ID, id) }); ok {
				if n := l.points[i].IntervalMS; n != nil && *n > 0 {
					day = float64(utc.DayMillis) / float64(*n)
				}
			}
		}
		for _, r := range rs {
			if r = r.Intersect(recent); !r.Empty() {
				rows += day * float64(max(0, min(r.To.Start(), now)-r.From.Start())) / utc.DayMillis
			}
		}
	}
	return int64(math.Ceil(rows))
}

// extract brings the rows of the plan into lake.hot and returns their number.
func (l *Lake) extract(ctx context.Context, h *hotPlan) (int64, error) {
	batch := &sample.Batch{}
	flush := func() error {
		if batch.Len() == 0 {
			return nil
		}
		defer batch.Reset()
		return l.insert(ctx, batch)
	}
	n, err := l.read(ctx, h, func(b *sample.Batch) error {
		batch.PointID = append(batch.PointID, b.PointID...)
		batch.AppendRange(&b.Series, 0, b.Len())
		if batch.Len() < flushRows {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	return n, err
}

// read calls f with the rows of the plan, one call at a time, and returns their number.
// The rows of one point come in as many orders of time as there are reads for it.
func (l *Lake) read(ctx context.Context, h *hotPlan, f func(*sample.Batch) error) (int64, error) {
	var mu sync.Mutex // held while f and the events are called
	var rows, rejects atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(l.o.ExtractWorkers)
	for _, q := range h.reads {
		// Parts, so that all workers have something to do.
		for ids := range slices.Chunk(q.Points, max(64, len(q.Points)/l.o.ExtractWorkers+1)) {
			g.Go(func() error {
				_, err := l.o.Source.Read(gctx, source.Query{Points: ids, Days: q.Days}, func(b *sample.Batch) error {
					rejects.Add(int64(len(b.Rejects)))
					n := rows.Add(int64(b.Len()))
					if l.o.MaxHotRows > 0 && n > l.o.MaxHotRows {
						return guardRows(n, l.o.MaxHotRows)
					}
					mu.Lock()
					defer mu.Unlock()
					l.notify(ExtractProgress{n, max(n, h.rows)})
					return f(b)
				})
				return err
			})
		}
	}
	err := g.Wait()
	if n := rejects.Load(); n > 0 && err == nil {
		l.notify(Warning{fmt.Sprintf("%d rows of the hot tier can not be samples (text or a number out of range) and are not in the answer; `etl archive` records them, `etl rejects` lists them", n)})
	}
	return rows.Load(), err
}

// flushRows is how many rows go into DuckDB at once: 64 Ki, of 23 bytes each.
const flushRows = 64 << 10

// changed reports whether a mark that decided is another one now.
func (l *Lake) changed(ctx context.Context, h *hotPlan) (bool, error) {
	now, err := l.marks(ctx, h.points, h.days)
	if err != nil || len(now) != len(h.marks) {
		return true, err
	}
	for s, m := range now {
		if h.marks[s] != m {
			return true, nil
		}
	}
	return false, nil
}

// findLatest fills lake.latest with the newest sample of each point that the
// condition can be about: from the hot tier by a seek; where that has none, from
// the month file with the last timestamp of the manifests.
//
// The hot tier is asked before the manifests are listed again, if it lacks a
// point: what has left it meanwhile is in them.
func (l *Lake) findLatest(ctx context.Context, tier Tier, where string, p *plan) error {
	window := source.Window(l.o.Now())
	points, err := l.pointsFor(ctx, where, window)
	if err != nil || len(points) == 0 {
		return err
	}
	missing := points
	l.use("lake.latest", "lake.selected")
	if finder, ok := l.o.Source.(source.Latester); ok && tier != Cold {
		seen := make(map[int32]bool, len(points))
		if err := finder.Latest(ctx, points, window, func(b *sample.Batch) error {
			for _, id := range b.PointID {
				seen[id] = true
			}
			p.stats.HotRows += int64(b.Len())
			return l.insert(ctx, b)
		}); err != nil {
			return err
		}
		missing = slices.DeleteFunc(slices.Clone(points), func(id int32) bool { return seen[id] })
		if err := l.exec(ctx, "INSERT INTO lake.latest SELECT *, 'hot' FROM lake.hot; TRUNCATE lake.hot"); err != nil {
			return err
		}
	} else if tier != Cold && l.o.Source != nil {
		return fault.Errorf(fault.Invalid, "this source finds no latest samples")
	}
	if len(missing) == 0 || tier == Hot || l.o.Store == nil {
		return nil
	}
	if tier == Both {
		if changed, err := l.refresh(ctx); err != nil || changed {
			return cmp.Or(err, error(errStale))
		}
	}
	if _, err := l.loadMonths(ctx, math.MinInt64, math.MaxInt64); err != nil {
		return err
	}
	if err := l.unreadable(ctx, "point_id IN "+in(missing)); err != nil {
		return err
	}
	if err := l.exec(ctx, `CREATE OR REPLACE TABLE lake.selected AS SELECT arg_max(month, last) AS month, point_id, arg_max(bytes, last) AS bytes, arg_max(archived, last) AS archived
		FROM lake.catalog WHERE file AND last IS NOT NULL AND point_id IN `+in(missing)+" GROUP BY point_id"); err != nil {
		return err
	}
	files, err := l.selectedFiles(ctx)
	if err != nil {
		return err
	}
	cold, err := l.fetch(ctx, files, nil, p)
	if err != nil || cold == "" {
		return err
	}
	return l.exec(ctx, `INSERT INTO lake.latest SELECT point_id, s.ts, s.value, s.quality, s.flags, 'cold' FROM (
		SELECT point_id, arg_max(struct_pack(ts, value, quality, flags), ts) AS s FROM (`+cold+") GROUP BY point_id); TRUNCATE lake.cold_days")
}

// loadRuns fills lake.runs with the log of runs.
func (l *Lake) loadRuns(ctx context.Context) error {
	h, ok := l.o.Source.(source.Historian)
	if !ok {
		if l.o.Source == nil {
			return fault.Hint(fault.Errorf(fault.Usage, "archive_state is in the hot tier"), "give --source too")
		}
		return errors.New("this source keeps no log of runs")
	}
	runs, err := h.Runs(ctx)
	if err != nil {
		return err
	}
	ms := func(t time.Time) driver.Value {
		if t.IsZero() {
			return nil
		}
		return t.UnixMilli()
	}
	text := func(s string) driver.Value {
		if s == "" {
			return nil
		}
		return s
	}
	rows := make([][]driver.Value, len(runs))
	for i, r := range runs {
		var first, last driver.Value
		if !r.Days.Empty() {
			first, last = r.Days.From.String(), (r.Days.To - 1).String()
		}
		rows[i] = []driver.Value{r.ID, text(r.Command), text(r.Status), ms(r.Started), ms(r.Heartbeat), ms(r.Finished), first, last,
			r.Records, r.Files, r.Bytes, text(r.Error)}
	}
	return l.append("runs", rows)
}
