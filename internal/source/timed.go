package source

import (
	"context"
	"time"

	"etl/internal/sample"
	"etl/internal/timing"
	"etl/internal/utc"
)

// Database is all that a source offers which is a database.
type Database interface {
	Source
	Ledger
	Pruner
	Restorer
	Migrator
	Registrar
	Grouper
	Latester
	Oldester
	Lister
	Historian
	Summarizer
	Gauger
}

// Timed returns a source that records how long the calls of db take; db itself if
// rec is nil. It offers whatever db offers. What a caller does with the rows that
// it is given is not counted.
func Timed(db Database, rec *timing.Recorder) Database {
	if rec == nil {
		return db
	}
	t := &timed{db, rec}
	if b, ok := db.(billed); ok {
		return &timedBilled{t, b}
	}
	return t
}

// billed is what a database that is billed offers beside.
type billed interface {
	Meter
	TimeTraveler
}

type timedBilled struct {
	*timed
	billed
}

type timed struct {
	Database
	rec *timing.Recorder
}

func (t *timed) Points(ctx context.Context) ([]sample.Point, []sample.Reject, error) {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Points(ctx)
}

func (t *timed) Read(ctx context.Context, q Query, f func(*sample.Batch) error) (Stats, error) {
	var outside time.Duration
	start := time.Now()
	s, err := t.Database.Read(ctx, q, func(b *sample.Batch) error {
		begin := time.Now()
		defer func() { outside += time.Since(begin) }()
		return f(b)
	})
	t.rec.Add(timing.SourceRead, time.Since(start)-outside, 0)
	return s, err
}

func (t *timed) List(ctx context.Context) ([]sample.Point, []sample.Reject, error) {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.List(ctx)
}

func (t *timed) Latest(ctx context.Context, points []int32, days utc.Days, f func(*sample.Batch) error) error {
	defer t.rec.End(timing.SourceRead, time.Now())
	return t.Database.Latest(ctx, points, days, f)
}

func (t *timed) Oldest(ctx context.Context, points []int32, days utc.Days, f func(*sample.Batch) error) error {
	defer t.rec.End(timing.SourceRead, time.Now())
	return t.Database.Oldest(ctx, points, days, f)
}

func (t *timed) Count(ctx context.Context, q Query) (map[int32]int64, error) {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Count(ctx, q)
}

func (t *timed) Strays(ctx context.Context, points []int32, window utc.Days) ([]sample.Reject, error) {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Strays(ctx, points, window)
}

func (t *timed) Info(ctx context.Context) (Info, error) {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Info(ctx)
}

func (t *timed) Marks(ctx context.Context, points []int32, days utc.Days, f func(Mark)) error {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Marks(ctx, points, days, f)
}

func (t *timed) Pruned(ctx context.Context, points []int32, days utc.Days, f func(Slice)) error {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Pruned(ctx, points, days, f)
}

func (t *timed) Claim(ctx context.Context, run string, slices []Slice) error {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Claim(ctx, run, slices)
}

func (t *timed) Confirm(ctx context.Context, run string, slices []Slice) (int, error) {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Confirm(ctx, run, slices)
}

func (t *timed) Revoke(ctx context.Context, slices []Slice) (int, error) {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Revoke(ctx, slices)
}

func (t *timed) Log(ctx context.Context, r Run) error {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Log(ctx, r)
}

func (t *timed) CloseCrashed(ctx context.Context, silent time.Duration) ([]string, error) {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.CloseCrashed(ctx, silent)
}

func (t *timed) Runs(ctx context.Context) ([]Run, error) {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Runs(ctx)
}

func (t *timed) Summaries(ctx context.Context, points []int32, f func(int32, Summary)) error {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Summaries(ctx, points, f)
}

func (t *timed) Size(ctx context.Context) (int64, error) {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Size(ctx)
}

func (t *timed) Marked(ctx context.Context, points []int32, days utc.Days, f func(int32, uint64)) error {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Marked(ctx, points, days, f)
}

func (t *timed) Newest(ctx context.Context, points []int32, from, to int64, f func(int32, int64)) error {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Newest(ctx, points, from, to, f)
}

func (t *timed) Quality(ctx context.Context, points []int32, from, to int64, perPoint int, f func(int32, int, int)) error {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Quality(ctx, points, from, to, perPoint, f)
}

func (t *timed) Group(ctx context.Context, name string) ([]int32, error) {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Group(ctx, name)
}

func (t *timed) Groups(ctx context.Context, f func(string, int32)) error {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Groups(ctx, f)
}

func (t *timed) Prune(ctx context.Context, cuts []Cut) ([]Slice, int64, error) {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Prune(ctx, cuts)
}

func (t *timed) Restore(ctx context.Context, b *sample.Batch, keep bool) error {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Restore(ctx, b, keep)
}

func (t *timed) Correct(ctx context.Context, from, to *sample.Batch) error {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Correct(ctx, from, to)
}

func (t *timed) RestorePoints(ctx context.Context, points []sample.Point) error {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.RestorePoints(ctx, points)
}

func (t *timed) Migrate(ctx context.Context) ([]string, error) {
	defer t.rec.End(timing.SourceOther, time.Now())
	return t.Database.Migrate(ctx)
}
