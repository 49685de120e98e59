package lake

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"golang.org/x/sync/errgroup"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/tiers"
	"etl/internal/utc"
)

// This file is the way around DuckDB for a job that needs the instants of all
// samples, and little else: which files and hot rows those are is worked out as for
// a query, but the month files are read by their own decoder, which leaves the
// columns alone that nobody asked for, and each point is handed on in order.

var _ tiers.Reader = (*Lake)(nil)

// hotChunk is how many rows of the hot tier a scan holds at a time, as far as can be
// foreseen, unless one point has more: of 9 bytes each, or 19 with values.
var hotChunk int64 = 4_000_000 // a variable for tests

// Survey is described at tiers.Reader.
func (l *Lake) Survey(ctx context.Context, days utc.Days) (*tiers.Survey, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.refresh(ctx); err != nil {
		return nil, err
	}
	months, err := l.catalog.Load(ctx, math.MinInt64, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	s := &tiers.Survey{Days: days, First: map[int32]int64{}, Before: map[int32]int64{}, Counts: map[int32][]int32{}, Bad: l.catalog.Bad,
		Hot: l.o.Source != nil, HotWindow: l.o.HotWindow}
	if s.Points, err = l.allPoints(ctx, months); err != nil || len(months) == 0 {
		return s, err
	}
	first := days.From.Month()
	err = l.arrow(ctx, fmt.Sprintf("SELECT point_id, min(first), coalesce(max(last) FILTER (month < '%s'), -1) FROM read_parquet(%s) WHERE first IS NOT NULL GROUP BY point_id", first, list(paths(months))),
		func(rec arrow.RecordBatch) error {
			from, before := rec.Column(1).(*array.Int64), rec.Column(2).(*array.Int64)
			for i, id := range ints(rec, 0) {
				s.First[id] = from.Value(i)
				if t := before.Value(i); t >= 0 {
					s.Before[id] = t
				}
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	touched := slices.DeleteFunc(months, func(m CatalogMonth) bool { return m.Month.Days().Intersect(days).Empty() })
	if len(touched) == 0 {
		return s, nil
	}
	return s, l.arrow(ctx, "SELECT point_id, month, days FROM read_parquet("+list(paths(touched))+")", func(rec arrow.RecordBatch) error {
		names, lists := rec.Column(1).(*array.String), rec.Column(2).(*array.List)
		counts := lists.ListValues().(*array.Int32)
		last, month := "", utc.Month(0)
		for i, id := range ints(rec, 0) {
			if n := names.Value(i); n != last {
				m, err := utc.ParseMonth(n)
				if err != nil {
					return err
				}
				last, month = strings.Clone(n), m
			}
			c := s.Counts[id]
			if c == nil {
				c = make([]int32, days.Len())
				for k := range c {
					c[k] = sample.NotArchived
				}
				s.Counts[id] = c
			}
			at, end := lists.ValueOffsets(i)
			d := month.First()
			for k := at; k < end; k++ {
				if days.Contains(d) && counts.IsValid(int(k)) {
					c[d-days.From] = counts.Value(int(k))
				}
				d++
			}
		}
		return nil
	})
}

// allPoints are the points of both tiers, and those that only a manifest knows.
func (l *Lake) allPoints(ctx context.Context, months []CatalogMonth) ([]sample.Point, error) {
	points := slices.Clone(l.points)
	if len(months) == 0 {
		return points, nil
	}
	err := l.arrow(ctx, "SELECT point_id, arg_max(name, month)"+strange(months)+" GROUP BY point_id", func(rec arrow.RecordBatch) error {
		names := rec.Column(1).(*array.String)
		for i, id := range ints(rec, 0) {
			points = append(points, sample.Point{ID: id, Name: strings.Clone(names.Value(i))})
		}
		return nil
	})
	if len(l.points) == 0 || len(points) > len(l.points) || l.strangers || len(l.catalog.Points) == 0 {
		// Those of lake.points that loadStrangers put there have no entry in l.points.
		have := map[int32]bool{}
		for _, p := range points {
			have[p.ID] = true
		}
		err = cmp.Or(err, l.arrow(ctx, "SELECT point_id, point_name FROM lake.points", func(rec arrow.RecordBatch) error {
			names := rec.Column(1).(*array.String)
			for i, id := range ints(rec, 0) {
				if !have[id] {
					points = append(points, sample.Point{ID: id, Name: strings.Clone(names.Value(i))})
				}
			}
			return nil
		}))
	}
	slices.SortFunc(points, func(a, b sample.Point) int { return cmp.Compare(a.ID, b.ID) })
	return points, err
}

// Scan is described at tiers.Reader.
func (l *Lake) Scan(ctx context.Context, q tiers.Query, f func(point int32, parts iter.Seq[*tiers.Part]) error) error {
	if q.From >= q.To || len(q.Points) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &scanRun{l: l, q: q, f: f, rest: q.Points}
	p := &plan{pastBad: true}
	err := l.settle(ctx, p, r.chunks)
	return cmp.Or(userError(ctx, err), l.done(ctx, err))
}

// scanRun is one call of Scan.
type scanRun struct {
	l    *Lake
	q    tiers.Query
	f    func(int32, iter.Seq[*tiers.Part]) error
	rest []int32 // points that are still to be done

	telling sync.Mutex // guards what follows, and Progress
	points  int
	samples int64
}

// chunks plans the rest of the points and scans them, as many at a time as the
// hot rows allow. A chunk whose rows came by a plan that has become stale is
// planned again with all that follow it: no point is handed on twice.
func (r *scanRun) chunks(ctx context.Context, p *plan) error {
	l := r.l
	if err := l.begin(ctx); err != nil {
		return err
	}
	p.files, p.hot = nil, nil
	p.scans = []scan{{Table: "samples", From: r.q.From, To: r.q.To - 1, Where: fmt.Sprintf(
		"(point_id IN %s AND t_max >= make_timestamp(%d) AND t_min < make_timestamp(%d))", in(r.rest), r.q.From*1000, r.q.To*1000)}}
	if err := l.chooseRows(ctx, p); err != nil {
		return err
	}
	if err := l.guard(p); err != nil {
		return err
	}
	files, bad, err := l.soundFiles(ctx, p)
	if err != nil {
		return err
	}
	n := len(r.rest)
	if p.hot != nil && p.hot.rows > hotChunk {
		n = max(1, int(int64(n)*hotChunk/p.hot.rows))
	}
	byPoint := map[int32][]coldFile{}
	for i, s := range p.files {
		byPoint[s.Point] = append(byPoint[s.Point], coldFile{s, files[i], bad[i]})
	}
	for len(r.rest) > 0 {
		part := r.rest[:min(n, len(r.rest))]
		hot, err := r.hotRows(ctx, p, part)
		if err != nil {
			return err
		}
		if err := r.scan(ctx, p, part, byPoint, hot); err != nil {
			return err
		}
		r.rest = r.rest[len(part):]
	}
	return nil
}

// coldFile is a month file of the plan, and where its verified copy is or what is wrong with it.
type coldFile struct {
	selectedFile
	Local
	err error
}

// soundFiles makes the files of a plan local, but for those that are damaged.
func (l *Lake) soundFiles(ctx context.Context, p *plan) ([]Local, map[int]error, error) {
	if len(p.files) == 0 {
		return nil, nil, nil
	}
	files, notify := l.wanted(p.files, p)
	return l.pins.FetchSound(ctx, l.o.Store, files, l.o.FetchWorkers, notify)
}

// hotRows are the rows that the hot tier answers with, by point, in order of time.
func (r *scanRun) hotRows(ctx context.Context, p *plan, points []int32) (map[int32]*sample.Series, error) {
	if p.hot == nil || len(p.hot.reads) == 0 {
		return nil, nil
	}
	rows := map[int32]*sample.Series{}
	h := &hotPlan{rows: p.hot.rows}
	for _, q := range p.hot.reads {
		if ids := common(q.Points, points); len(ids) > 0 {
			h.reads = append(h.reads, source.Query{Points: ids, Days: q.Days})
		}
	}
	_, err := r.l.read(ctx, h, func(b *sample.Batch) error {
		var s *sample.Series
		for i, id := range b.PointID {
			if i == 0 || id != b.PointID[i-1] {
				if s = rows[id]; s == nil {
					s = new(sample.Series)
					rows[id] = s
				}
			}
			if r.q.Values {
				s.AppendRange(&b.Series, i, i+1)
				continue
			}
			null := uint8(0)
			if v := b.Value[i]; v != v {
				null = 1
			}
			s.TS, s.Quality = append(s.TS, b.TS[i]), append(s.Quality, null) // of the qualities nobody asked
		}
		return nil
	})
	if err == nil {
		err = r.l.recheck(ctx, p)
	}
	for _, s := range rows {
		inOrder(s)
	}
	return rows, err
}

// common are the ids in both, all ascending.
func common(a, b []int32) []int32 {
	var both []int32
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] < b[0]:
			a = a[1:]
		case a[0] > b[0]:
			b = b[1:]
		default:
			both = append(both, a[0])
			a, b = a[1:], b[1:]
		}
	}
	return both
}

// inOrder sorts rows that several reads brought, each in order, by time.
func inOrder(s *sample.Series) {
	if slices.IsSorted(s.TS) {
		return
	}
	at := make([]int, len(s.TS))
	for i := range at {
		at[i] = i
	}
	slices.SortFunc(at, func(i, j int) int { return cmp.Compare(s.TS[i], s.TS[j]) })
	var o sample.Series
	for _, i := range at {
		o.TS, o.Quality = append(o.TS, s.TS[i]), append(o.Quality, s.Quality[i])
		if s.Value != nil {
			o.Value, o.Flags = append(o.Value, s.Value[i]), append(o.Flags, s.Flags[i])
		}
	}
	*s = o
}

// scan hands the points on, several at once.
func (r *scanRun) scan(ctx context.Context, p *plan, points []int32, files map[int32][]coldFile, hot map[int32]*sample.Series) error {
	g, gctx := errgroup.WithContext(ctx)
	workers := max(1, r.q.Workers)
	g.SetLimit(workers)
	// Pieces, since a goroutine and its decoder for each point would cost as much as a small file.
	for piece := range slices.Chunk(points, max(1, min(64, len(points)/(4*workers)))) {
		g.Go(func() error {
			s := scratches.Get().(*scanMemory)
			defer scratches.Put(s)
			for _, id := range piece {
				if err := gctx.Err(); err != nil {
					return err
				}
				s.samples = 0
				if len(files[id]) > 0 || hot[id] != nil || len(r.l.catalog.Bad) > 0 {
					if err := r.f(id, r.parts(p, s, id, files[id], hot[id])); err != nil {
						return err
					}
				}
				r.tell(s.samples)
			}
			return nil
		})
	}
	return g.Wait()
}

func (r *scanRun) tell(samples int64) {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.points++
	r.samples += samples
	if r.q.Progress != nil {
		r.q.Progress(r.points, r.samples)
	}
}

// scanMemory is the memory of one worker.
type scanMemory struct {
	dec      *monthfile.Decoder
	data     []byte
	ts       []int64
	readings []int64
	cold     sample.Series
	all      sample.Series
	part     tiers.Part
	samples  int64
}

var scratches = sync.Pool{New: func() any { return &scanMemory{dec: monthfile.NewDecoder()} }}

// parts are the months of one point.
func (r *scanRun) parts(p *plan, s *scanMemory, id int32, files []coldFile, hot *sample.Series) iter.Seq[*tiers.Part] {
	return func(yield func(*tiers.Part) bool) {
		for m := utc.DayOf(r.q.From).Month(); m <= utc.DayOf(r.q.To-1).Month(); m++ {
			days := m.Days()
			part := &s.part
			*part = tiers.Part{From: max(r.q.From, days.From.Start()), To: min(r.q.To, days.To.Start()), TS: s.readings[:0]}
			var file *coldFile
			if len(files) > 0 && files[0].Month == m {
				file, files = &files[0], files[1:]
			}
			i, j := 0, 0
			if hot != nil {
				i, _ = slices.BinarySearch(hot.TS, part.From)
				j, _ = slices.BinarySearch(hot.TS, part.To)
			}
			switch bad := r.l.catalog.Bad[m]; {
			case bad != nil:
				part.Err = bad
			case file == nil && i == j:
				continue
			default:
				var both utc.Set
				if p.hot != nil {
					both = p.hot.both[fileID{id, m}]
				}
				r.fill(part, s, id, m, file, hot, i, j, both)
			}
			if !yield(part) {
				return
			}
			if part.TS != nil {
				s.readings = part.TS
			}
		}
	}
}

// fill sets the rows of a part: those of the file, of its archived days, and rows
// [i, j) of the hot tier, which win.
func (r *scanRun) fill(part *tiers.Part, s *scanMemory, id int32, m utc.Month, file *coldFile, hot *sample.Series, i, j int, both utc.Set) {
	var nulls []int32
	s.ts = s.ts[:0]
	s.cold.Reset()
	if file != nil {
		part.Path = file.Key
		err := file.err
		if err == nil {
			nulls, err = s.read(file, r.q.Values)
		}
		if err != nil {
			part.Err = err
			return
		}
	}
	ts := s.ts
	if r.q.Values {
		ts = s.cold.TS
	}
	a, _ := slices.BinarySearch(ts, part.From)
	b, _ := slices.BinarySearch(ts, part.To)
	// A file that is as the manifest says counts whole where the hot tier says nothing.
	whole := file != nil && !file.Pending && both == 0
	s.samples += int64(b - a + j - i)
	if whole && i == j && !r.q.Values {
		part.TS = compact(part.TS, ts, nulls, a, b)
		return
	}
	s.all.Reset()
	nulls = nulls[searchNulls(nulls, a):]
	// What is left of the file, day by day, and the rows of the hot tier.
	for k := a; k < b || i < j; {
		if i < j && (k == b || hot.TS[i] <= ts[k]) {
			if k < b && hot.TS[i] == ts[k] {
				nulls = pass(nulls, k)
				k++
			}
			if r.q.Values {
				s.all.AppendRange(hot, i, i+1)
			} else if hot.Quality[i] == 0 {
				part.TS = append(part.TS, hot.TS[i])
			}
			i++
			continue
		}
		// A run of the file's rows: to the next row of the hot tier, or the end of the day.
		day := utc.DayOf(ts[k])
		end := b
		if !whole {
			n, _ := slices.BinarySearch(ts[k:b], day.End())
			end = k + n
		}
		if i < j {
			n, _ := slices.BinarySearch(ts[k:end], hot.TS[i])
			end = k + n
		}
		if whole || file.archived.Has(int(day-m.First())) {
			if r.q.Values {
				s.all.AppendRange(&s.cold, k, end)
			} else {
				part.TS = compact(part.TS, ts, nulls, k, end)
			}
		}
		nulls = nulls[searchNulls(nulls, end):]
		k = end
	}
	if r.q.Values {
		part.All = &s.all
		for k, v := range s.all.Value {
			if v == v {
				part.TS = append(part.TS, s.all.TS[k])
			}
		}
	}
}

// compact appends ts[a:b] but for the rows in nulls.
func compact(to, ts []int64, nulls []int32, a, b int) []int64 {
	for _, n := range nulls[searchNulls(nulls, a):] {
		if int(n) >= b {
			break
		}
		to = append(to, ts[a:n]...)
		a = int(n) + 1
	}
	return append(to, ts[a:b]...)
}

func searchNulls(nulls []int32, at int) int {
	i, _ := slices.BinarySearch(nulls, int32(at))
	return i
}

func pass(nulls []int32, row int) []int32 {
	if len(nulls) > 0 && int(nulls[0]) == row {
		return nulls[1:]
	}
	return nulls
}

// read decodes a month file: the instants alone, or all.
func (s *scanMemory) read(file *coldFile, values bool) (nulls []int32, err error) {
	f, err := os.Open(file.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s.data = slices.Grow(s.data[:0], int(st.Size()))[:st.Size()]
	if _, err := f.ReadAt(s.data, 0); err != nil {
		return nil, err
	}
	var info monthfile.Info
	if values {
		info, err = s.dec.DecodeTrusted(s.data, &s.cold)
	} else {
		s.ts, nulls, info, err = s.dec.Times(s.data, s.ts[:0])
	}
	if err == nil && (info.PointID != file.Point || info.Month != file.Month) {
		err = fault.Errorf(fault.Corrupt, "it holds point %d of %s", info.PointID, info.Month)
	}
	if err != nil {
		return nil, fault.Hint(fault.Errorf(fault.Corrupt, "%s, the file of point %d in %s: %w", object.Key(file.Key), file.Point, file.Month, err), "`etl repair --month %s`", file.Month)
	}
	return nulls, nil
}
