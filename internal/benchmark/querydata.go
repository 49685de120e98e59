package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"etl/internal/fleet"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/object/s3"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/source/sqlite"
	"etl/internal/utc"
	"etl/manifests"
)

// The lake that queries are asked of: a year of month files, and a hot tier that
// holds yesterday, archived and marked, and this morning.
const (
	lakeMonths = 12
	// hotWindow is the lake's default: a day in it that is archived and not
	// marked would be read from both tiers.
	hotWindow = 35
)

var (
	lastMonth = utc.MonthOf(2024, 4) // has 30 days: 194.4 M rows of 4,500 points
	today     = (lastMonth + 1).First()
	lakeNow   = today.Time().Add(12 * time.Hour)
)

// storeOptions name a bucket, or a folder if URL is "".
type storeOptions struct{ URL, Bucket string }

func (o storeOptions) open() (object.Store, error) {
	if o.URL == "" {
		return dir.Open(o.Bucket)
	}
	return s3.Open(s3.Options{Endpoint: o.URL, Region: s3Region, Bucket: o.Bucket, AccessKey: s3Key, Secret: s3Secret, PathStyle: true})
}

// lakeOptions say what is in a lake. Of the months before the last one only the
// first Full points have a sample a minute, the others one an hour: as many files
// and manifests as a fleet has, in a fraction of the space.
type lakeOptions struct {
	Points, Full int
	Store        storeOptions
	Hot          string // path of the SQLite file
}

func (o lakeOptions) fleet() (*fleet.Fleet, error) {
	from := (lastMonth - lakeMonths + 1).First()
	return fleet.New(fleet.Options{Seed: 1, Points: o.Points, Start: from, Days: int(today - from + 1), Steady: true})
}

type lakeAnswer struct {
	Files, Rows, Bytes, HotRows int64
	LastRows, LastBytes         int64 // of the last month
}

// makeLake fills an empty store and makes the hot tier.
func makeLake(ctx context.Context, o lakeOptions, stderr io.Writer) (a lakeAnswer, err error) {
	f, err := o.fleet()
	if err != nil {
		return a, err
	}
	store, err := o.Store.open()
	if err != nil {
		return a, err
	}
	src, err := sqlite.Open(o.Hot, sqlite.Options{Create: true})
	if err != nil {
		return a, err
	}
	_, err = src.Migrate(ctx)
	if err := errors.Join(err, src.Close()); err != nil { // closed: a bulk load wants the file for itself
		return a, err
	}
	start := time.Now()
	for m := lastMonth - lakeMonths + 1; m <= lastMonth; m++ {
		rows, bytes, err := putMonth(ctx, store, f, m, o.Full)
		if err != nil {
			return a, fmt.Errorf("make %s: %w", m, err)
		}
		a.Files, a.Rows, a.Bytes = a.Files+int64(f.Len()), a.Rows+rows, a.Bytes+bytes
		a.LastRows, a.LastBytes = rows, bytes
		fmt.Fprintf(stderr, "  lake: %s, %.1f M rows, %.0f s\n", m, float64(a.Rows)/1e6, time.Since(start).Seconds())
	}
	a.HotRows, err = fleet.Write(ctx, o.Hot, f.Points(), func(yield func(int32, *sample.Series) bool) {
		var s sample.Series
		for i, p := range f.Points() {
			s.Reset()
			f.Series(i, utc.Days{From: today - 1, To: today + 1}, &s)
			n, _ := slices.BinarySearch(s.TS, lakeNow.UnixMilli())
			if cut := s.Slice(0, n); !yield(p.ID, &cut) {
				return
			}
		}
	}, fleet.WriteOptions{Bulk: true})
	if err != nil {
		return a, err
	}
	if src, err = sqlite.Open(o.Hot, sqlite.Options{}); err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	info, err := src.Info(ctx)
	if err != nil {
		return a, err
	}
	if _, err := manifests.Register(ctx, store, info.ID, f.Points(), false); err != nil {
		return a, err
	}
	for _, p := range f.Points() {
		var slices []source.Slice
		for d := today - hotWindow; d < today; d++ {
			slices = append(slices, source.Slice{Point: p.ID, Day: d})
		}
		if err := src.Claim(ctx, "bench", slices); err != nil {
			return a, err
		}
		if n, err := src.Confirm(ctx, "bench", slices); err != nil || n != len(slices) {
			return a, errors.Join(err, fmt.Errorf("marked %d of %d days of point %d", n, len(slices), p.ID))
		}
	}
	return a, nil
}

// putMonth writes the files of a month and its manifest.
func putMonth(ctx context.Context, store object.Store, f *fleet.Fleet, m utc.Month, full int) (rows, bytes int64, err error) {
	const workers = 8 // most of which wait for the store
	points := f.Points()
	namer := manifests.NewNamer(m, points, &manifests.Manifest{})
	entries := make([]manifests.Entry, len(points))
	var next atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error {
			enc := monthfile.NewEncoder(monthfile.Options{})
			var s sample.Series
			var data []byte
			for i := int(next.Add(1)) - 1; i < len(points); i = int(next.Add(1)) - 1 {
				p, days := &points[i], sample.NewDayCounts(m)
				s.Reset()
				perDay := int32(1440)
				if m == lastMonth || i < full {
					f.Series(i, m.Days(), &s)
				} else {
					// As many samples as the month has hours, an hour apart: those of its
					// first minutes, which is the same kind of signal and made quickly.
					perDay = 24
					f.Series(i, utc.Days{From: m.First(), To: m.First() + 1}, &s)
					s = s.Slice(0, 24*m.Len())
					for k := range s.TS {
						s.TS[k] = m.First().Start() + int64(k)*time.Hour.Milliseconds()
					}
				}
				for d := range days {
					days[d] = perDay
				}
				var info monthfile.Info
				var err error
				if data, info, err = enc.Encode(data[:0], monthfile.Meta{PointID: p.ID, PointName: p.Name, Month: m, Days: days}, &s); err != nil {
					return err
				}
				for key := range namer.Paths(*p) {
					attrs, err := store.Put(gctx, key, data, object.PutOptions{IfAbsent: true})
					if err != nil {
						return err
					}
					if entries[i], err = manifests.NewEntry(key, data, attrs.ETag, manifests.Facts{Point: p.ID, Name: p.Name, Month: m, Days: days,
						Samples: info.Samples, First: info.First, Last: info.Last, RowsSHA256: info.RowsSHA256}); err != nil {
						return err
					}
					break
				}
			}
			return gctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return 0, 0, err
	}
	man := manifestOf(m, entries)
	_, err = store.Put(ctx, manifests.KeyOf(m), manifests.Encode(man), object.PutOptions{IfAbsent: true})
	return man.Totals.Samples, man.Totals.Bytes, err
}

func manifestOf(m utc.Month, entries []manifests.Entry) *manifests.Manifest {
	man := &manifests.Manifest{Format: manifests.Format, Version: manifests.FormatVersion, Commit: "bench", Month: m, Points: entries,
		Totals: manifests.Totals{Points: len(entries), Files: len(entries)}}
	for i := range entries {
		man.Totals.Samples += entries[i].Samples
		man.Totals.Bytes += entries[i].Bytes
	}
	return man
}

// planOptions name a folder to fill with the manifests of a fleet of Months, and
// with nothing else.
type planOptions struct {
	Points, Months int
	Dir, Cache     string
}

func putManifests(ctx context.Context, o planOptions) error {
	store, err := dir.Open(o.Dir)
	if err != nil {
		return err
	}
	f, err := fleet.New(fleet.Options{Seed: 1, Points: o.Points, Start: lastMonth.First(), Days: 1, Steady: true})
	if err != nil {
		return err
	}
	points := f.Points()
	for m := lastMonth - utc.Month(o.Months) + 1; m <= lastMonth; m++ {
		namer := manifests.NewNamer(m, points, &manifests.Manifest{})
		days := sample.NewDayCounts(m)
		for i := range days {
			days[i] = 1440
		}
		entries := make([]manifests.Entry, len(points))
		for i, p := range points {
			for key := range namer.Paths(p) {
				// The bytes are made up, and so is all that is told of them.
				data := fmt.Appendf(nil, "%d %s", p.ID, m)
				rows := sample.Series{TS: []int64{int64(p.ID)}, Value: []float64{0}, Quality: []uint8{0}, Flags: []uint16{0}}
				e, err := manifests.NewEntry(key, data, fmt.Sprintf("%d-%d", m, p.ID), manifests.Facts{Point: p.ID, Name: p.Name, Month: m, Days: days,
					Samples: days.Samples(), First: m.First().Start(), Last: (m + 1).First().Start() - 1, RowsSHA256: rows.RowsSHA256()})
				if err != nil {
					return err
				}
				e.Bytes, entries[i] = 100_000, e
				break
			}
		}
		if _, err := store.Put(ctx, manifests.KeyOf(m), manifests.Encode(manifestOf(m, entries)), object.PutOptions{}); err != nil {
			return err
		}
	}
	_, err = manifests.Register(ctx, store, "bench", points, false)
	return err
}

// lakeDir is where the lake of these options is kept.
func (b *bench) lakeDir(o lakeOptions) string {
	return filepath.Join(b.dir, fmt.Sprintf("lake-%dx%d", o.Points, lakeMonths))
}

// emptyDir makes an empty folder where anything may have been.
func emptyDir(path string) error {
	return errors.Join(os.RemoveAll(path), os.MkdirAll(path, 0o755))
}
