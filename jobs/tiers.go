package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"etl/internal/cost"
	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/timing"
	"etl/internal/utc"
	"etl/manifests"
)

// What restore and prune have in common: a part of a month of which both tiers
// are compared row by row.

// chunkSamples is how many samples a part holds, unless one (point, month) alone
// has more: restore writes and prune deletes so many between two looks at a
// request to stop. At 19 bytes each, and as much for what is on its way, it is 10 MB.
const chunkSamples = 250_000

// share is the days of one point's month that a job is to look at.
type share struct {
	entry manifests.Entry
	days  utc.Set // all of them have a number in the entry
}

func (s *share) samples() int64 {
	var n int64
	for i, c := range s.entry.Days {
		if s.days.Has(i) {
			n += int64(max(c, 0))
		}
	}
	return n
}

// cutShares cuts the points of a month into parts of about most samples, of
// batchPoints points and batchSlices (point, day)s.
func cutShares(all []share, most int64) [][]share {
	var parts [][]share
	from := 0
	var samples int64
	days := 0
	for i := range all {
		n, d := all[i].samples(), all[i].days.Len()
		if i > from && (samples+n > most || days+d > batchSlices || i-from == batchPoints) {
			parts = append(parts, all[from:i])
			from, samples, days = i, 0, 0
		}
		samples, days = samples+n, days+d
	}
	if from < len(all) {
		parts = append(parts, all[from:])
	}
	return parts
}

// verdict says what the hot tier has where the cold one has a sample.
type verdict uint8

const (
	absent   verdict = iota // no row
	same                    // the same row, bit for bit
	unsigned                // the same but for the sign of zero, which SQLite does not keep
	other                   // another row
)

// tally is what the hot tier holds of a day.
type tally struct {
	rows    int64 // samples
	extra   int64 // of them, those that the cold tier lacks
	differs int64 // and those that it has otherwise, the sign of zero included
	rejects int64
}

// face is one point of a part while its tiers are compared.
type face struct {
	share
	point   int32
	pending bool          // the file is newer than the manifest
	err     error         // the cold rows can not be had
	cold    sample.Series // of the days
	seen    []verdict     // of each cold sample
	hot     [31]tally
}

// exact reports whether both tiers hold the same samples of the i-th day, and
// the hot one nothing else.
func (f *face) exact(i int) bool {
	t := f.hot[i]
	return t.rows == f.coldRows(i) && t.extra == 0 && t.differs == 0 && t.rejects == 0
}

func (f *face) coldRows(i int) int64 { return int64(max(f.entry.Days[i], 0)) }

// part is some points of a month, in both tiers.
type part struct {
	month utc.Month
	faces []*face
}

// coldFiles reads month files by the rules of docs/format.md, some at a time.
type coldFiles struct {
	store   object.Store
	workers int
	budget  *semaphore.Weighted // of bytes of samples that are being decoded
	memory  int64
	rec     *timing.Recorder
}

func newColdFiles(env Env, workers int, memory int64) *coldFiles {
	return &coldFiles{env.Store, workers, semaphore.NewWeighted(memory), memory, env.Timing}
}

// load reads the cold rows of the shares. What is wrong with a file is in its
// face; the error is of what no other file can be read after either.
func (c *coldFiles) load(ctx context.Context, m utc.Month, shares []share) (*part, error) {
	p := &part{month: m, faces: make([]*face, len(shares))}
	g, gctx := errgroup.WithContext(ctx)
	n := max(1, min(c.workers, len(shares)))
	for w := range n {
		g.Go(func() error {
			dec, rows := monthfile.NewDecoder().Timed(c.rec), new(sample.Series)
			for i := w; i < len(shares); i += n {
				f := &face{share: shares[i], point: shares[i].entry.ID}
				p.faces[i] = f
				weight := min(c.memory, (f.entry.Samples+1)*sample.RowBytes)
				if err := c.budget.Acquire(gctx, weight); err != nil {
					return err
				}
				f.err = c.file(gctx, m, f, dec, rows)
				c.budget.Release(weight)
				if gctx.Err() != nil {
					return gctx.Err()
				}
				switch fault.KindOf(f.err) {
				case fault.Transient, fault.Unavailable, fault.Unknown:
					return f.err
				}
			}
			return nil
		})
	}
	return p, g.Wait()
}

// file fills a face with the rows of its days. It proves that the bytes are those
// that the manifest names and that the days have as many samples as it says, or
// that they are a whole newer version.
func (c *coldFiles) file(ctx context.Context, m utc.Month, f *face, dec *monthfile.Decoder, rows *sample.Series) error {
	for attempt := range 2 {
		if f.entry.Path == "" {
			return nil
		}
		data, _, err := c.store.Get(ctx, f.entry.Path)
		if err != nil && !fault.Is(err, fault.NotExist) {
			return err
		}
		sum := sha256.Sum256(data)
		if err == nil && hex.EncodeToString(sum[:]) == f.entry.SHA256 {
			info, err := dec.DecodeTrusted(data, rows)
			if err == nil && (info.PointID != f.point || info.Month != m) {
				err = fault.Errorf(fault.Corrupt, "the manifest gives it to point %d, it holds point %d, %s", f.point, info.PointID, info.Month)
			}
			if err != nil {
				return fault.Hint(fmt.Errorf("%s: %w", f.entry.Path, err), "`etl repair --month %s`", m)
			}
			return f.take(m, rows)
		}
		if attempt == 0 { // another run may have committed in between
			man, _, err := manifests.Load(ctx, c.store, m)
			if err != nil {
				return err
			}
			e := man.Entry(f.entry.ID)
			if e == nil {
				return fault.Errorf(fault.Corrupt, "the entry of point %d vanished from the manifest of %s", f.point, m)
			}
			f.entry = *e
			f.days &= e.Days.Archived()
			continue
		}
		if err != nil {
			return fault.Hint(fault.Errorf(fault.Corrupt, "%s: the manifest names this file, but it is not there", f.entry.Path), "`etl repair --month %s`", m)
		}
		info, err := dec.Decode(data, rows)
		if err == nil && (info.PointID != f.point || info.Month != m) {
			err = fault.Errorf(fault.Corrupt, "it holds point %d, %s", info.PointID, info.Month)
		}
		if err != nil {
			return fault.Hint(fault.Errorf(fault.Corrupt, "%s: the bytes are not those that were archived: %w", f.entry.Path, err), "`etl repair --month %s`", m)
		}
		f.pending = true
	}
	return f.take(m, rows)
}

// take copies the rows of the days.
func (f *face) take(m utc.Month, rows *sample.Series) error {
	counts := sample.NewDayCounts(m)
	for i := range counts {
		counts[i] = 0
	}
	if !sample.CountDays(counts, m, rows.TS) {
		return fault.Errorf(fault.Corrupt, "%s: its rows are not in order, or not of %s", f.entry.Path, m)
	}
	if f.pending { // newer than what the manifest counts
		e := f.entry
		e.Days = slices.Clone(e.Days)
		for i := range e.Days {
			if e.Days[i] != sample.NotArchived {
				e.Days[i] = counts[i]
			}
		}
		f.entry = e
	}
	for i := range counts {
		if f.days.Has(i) && counts[i] != f.entry.Days[i] {
			return fault.Hint(fault.Errorf(fault.Corrupt, "%s: %s has %d samples, the manifest says %d", f.entry.Path, m.First()+utc.Day(i), counts[i], f.entry.Days[i]),
				"`etl repair --month %s`", m)
		}
	}
	f.cold.Grow(int(f.samples()))
	for _, days := range f.days.Runs(m) {
		i, _ := slices.BinarySearch(rows.TS, days.From.Start())
		j, _ := slices.BinarySearch(rows.TS, days.To.Start())
		f.cold.AppendRange(rows, i, j)
	}
	return nil
}

// chosen says which days of a face.
type chosen func(*face) utc.Set

// compare reads the chosen days of the hot tier and judges them against the cold
// rows. What was found of these days before is forgotten.
func (p *part) compare(ctx context.Context, src source.Source, which chosen) error {
	mp := MonthPlan{Month: p.month}
	byID := make(map[int32]*face, len(p.faces))
	for _, f := range p.faces {
		days := which(f)
		if f.err != nil || days == 0 {
			continue
		}
		byID[f.point] = f
		mp.want = append(mp.want, want{point: f.point, days: days})
		f.forget(p.month, days)
	}
	for _, b := range mp.batches() {
		for _, days := range b.days.Runs(p.month) {
			at := 0 // of the face that rows arrive of
			var f *face
			_, err := src.Read(ctx, source.Query{Points: b.points, Days: days}, func(rows *sample.Batch) error {
				for _, r := range rows.Rejects {
					id, _ := r.PointID.V.(int64)
					if face := byID[int32(id)]; face != nil {
						face.reject(p.month, days, r)
					}
				}
				for i, id := range rows.PointID {
					if f == nil || f.point != id {
						if f = byID[id]; f == nil {
							return fault.Errorf(fault.Internal, "the source delivered point %d, which was not asked for", id)
						}
						at, _ = slices.BinarySearch(f.cold.TS, days.From.Start())
					}
					at = f.judge(p.month, at, &rows.Series, i)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// forget takes back what was found of the days.
func (f *face) forget(m utc.Month, days utc.Set) {
	if f.seen == nil {
		f.seen = make([]verdict, f.cold.Len())
	}
	for _, run := range days.Runs(m) {
		i, _ := slices.BinarySearch(f.cold.TS, run.From.Start())
		j, _ := slices.BinarySearch(f.cold.TS, run.To.Start())
		clear(f.seen[i:j])
	}
	for i := range f.hot {
		if days.Has(i) {
			f.hot[i] = tally{}
		}
	}
}

// judge compares sample i of hot; cold samples before at are done with.
func (f *face) judge(m utc.Month, at int, hot *sample.Series, i int) int {
	ts := hot.TS[i]
	t := &f.hot[utc.DayOf(ts)-m.First()]
	t.rows++
	for at < len(f.cold.TS) && f.cold.TS[at] < ts {
		at++
	}
	switch {
	case at == len(f.cold.TS) || f.cold.TS[at] != ts:
		t.extra++
		return at
	case hot.EqualAt(i, &f.cold, at):
		f.seen[at] = same
	case hot.Value[i] == 0 && f.cold.Value[at] == 0 && math.Signbit(f.cold.Value[at]) &&
		hot.Quality[i] == f.cold.Quality[at] && hot.Flags[i] == f.cold.Flags[at]:
		f.seen[at] = unsigned
		t.differs++
	default:
		f.seen[at] = other
		t.differs++
	}
	return at + 1
}

// reject counts a row that no sample can hold; one without a day counts for all.
func (f *face) reject(m utc.Month, days utc.Days, r sample.Reject) {
	if d, ok := r.Day(); ok && days.Contains(d) {
		f.hot[d-m.First()].rejects++
		return
	}
	for d := days.From; d < days.To; d++ {
		f.hot[d-m.First()].rejects++
	}
}

// marks are the marks of the days of a part.
func (p *part) marks(ctx context.Context, l source.Ledger) (map[source.Slice]source.Mark, error) {
	marks := make(map[source.Slice]source.Mark)
	var ids []int32
	var days utc.Set
	for _, f := range p.faces {
		if f.err == nil {
			ids = append(ids, f.point)
			days |= f.days
		}
	}
	if len(ids) == 0 || days == 0 {
		return marks, nil
	}
	runs := days.Runs(p.month)
	err := l.Marks(ctx, ids, utc.Days{From: runs[0].From, To: runs[len(runs)-1].To}, func(m source.Mark) { marks[m.Slice] = m })
	return marks, err
}

// Estimate is what a job is expected to ask of the hot tier.
type Estimate struct {
	// RowsWritten are rows, index entries and entries of the ledger, as D1 bills
	// them; RowsRead are the rows read to compare.
	RowsWritten int64   `json:"rows_written"`
	RowsRead    int64   `json:"rows_read"`
	Dollars     float64 `json:"dollars"` // beyond what a plan includes
	Requests    int64   `json:"requests"`
	// Minutes is how long the requests take at the API rate.
	Minutes float64 `json:"minutes"`
	// Alarms is the share of the rows that have an entry in the index of alarms,
	// of some month files.
	Alarms float64 `json:"alarm_share"`
}

// Pace is how many requests the source takes; the zero value is any number.
type Pace struct{ Rate, Burst float64 }

func (e *Estimate) finish(p Pace) {
	e.Dollars = cost.Cloudflare().Rows(float64(e.RowsRead), float64(e.RowsWritten))
	if p.Rate > 0 {
		e.Minutes = max(0, float64(e.Requests)-p.Burst) / p.Rate / 60
	}
}

// alarmShare looks into some of the files for the share of rows in alarm: these
// have an entry in an index, which is billed too. What can not be read is passed over.
func alarmShare(ctx context.Context, c *coldFiles, from []monthShares) (float64, error) {
	const looks = 8
	var rows, alarms int64
	for i := 0; i < len(from); i += (len(from) + looks - 1) / looks {
		if from[i].shares[0].entry.Samples > 1<<20 {
			continue
		}
		p, err := c.load(ctx, from[i].month, from[i].shares[:1])
		if err != nil {
			return 0, err
		}
		for _, flags := range p.faces[0].cold.Flags {
			rows++
			alarms += int64(flags & 1)
		}
	}
	return float64(alarms) / float64(max(rows, 1)), nil
}
