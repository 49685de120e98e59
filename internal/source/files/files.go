// Package files owns history that never was in the hot tier: CSV files (plain,
// gzip or zstd) and Parquet files of samples, read as a source.Source, so that
// they go to the cold tier by the same engine as everything else.
//
// A file has the columns point_name, timestamp (or timestamp_ms), value and, if
// it likes, quality and flags, in any order. Its rows are read once, checked,
// and *staged*: sorted by (month, point, timestamp) in unnamed files of the work
// folder, which are gone when the process is, however it ends. Staging a row
// takes about 15 bytes of disk, twice while the sorted file is being made.
//
// A line that no sample can hold is a reject with file and line, or file and row
// for Parquet. Where (point, timestamp) is there more than once the last row
// wins, files in their order, as an upsert would have it; an equal row is the
// same sample, and one that differs is a reject that names the winner.
//
// CSV is read in Go and not by DuckDB, whose reader tells the line of a row that
// it refuses but not of one that it takes, and knows only its own reasons to
// refuse. Parquet is read by DuckDB.
//
// It refuses to guess: columns that it does not know, timestamps that could be
// seconds, decimals that could be integers rounded. It has no ledger: files do
// not prove that the hot tier has not changed.
package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

// Unknown says what becomes of names that the authority's points lack.
type Unknown int

const (
	// Refuse makes them an error that lists them.
	Refuse Unknown = iota
	// Create makes them there, before Open returns.
	Create
	// Provisional gives them ids for this process alone: for plans, never for runs.
	Provisional
)

// Options of Open. The zero value is usable.
type Options struct {
	Unknown Unknown
	// Match chooses points by name, all of them if nil. Rows of others are left
	// out, and no point is made for them.
	Match func(name string) bool
	// Ignore are names of columns that are left out. Any other column that is
	// not known is an error: it may be a known one, misspelt.
	Ignore []string
	// Dir is the work folder, os.TempDir() if empty.
	Dir string
	// Memory is about what staging may take, 256 MiB if zero. DuckDB, for
	// Parquet, takes up to 300 MB besides.
	Memory int64
	// Now is the runner's clock, time.Now if nil.
	Now func() time.Time
	// Progress is called while files are staged, some times a second. It may be nil.
	Progress func(Progress)
}

// Progress is how far staging is.
type Progress struct {
	File         string // the one being read
	Files, Total int    // files read to their end, and all
	Bytes, Size  int64  // bytes of files read, as they are stored, and of all
	Rows         int64  // rows read, bad ones included
}

// Summary is what was staged.
type Summary struct {
	Files, Points int
	Rows          int64 // rows read
	Samples       int64 // (point, timestamp)s that have a good row
	Repeated      int64 // rows equal to the sample
	Superseded    int64 // rows that another one replaces
	Bad           int64 // rows that no sample can hold
	Skipped       int64 // rows of points that Options.Match did not choose
	Created       []string
	// Unrecorded are the bad rows without a day that are too many to be recorded one by one.
	Unrecorded int64
}

// Warnings are what a person should know of it before anything is archived.
func (s Summary) Warnings() (texts []string) {
	if s.Unrecorded > 0 {
		texts = append(texts, fmt.Sprintf("%d lines of the input have no day and can not be archived; the first %d of them are recorded as rejects", s.Unrecorded+source.MaxStrays, source.MaxStrays))
	}
	return texts
}

// Source is history in files. It is a source.Source and source.Partial, and a
// source.Grouper if the authority is one; all methods are safe for concurrent use.
type Source struct {
	authority source.Source
	paths     []string
	parquet   []bool
	staged    *staged
	summary   Summary
	points    []sample.Point
	at        map[int32]uint32 // staged number of a point by id
	strays    []stray
	span      utc.Days
}

var (
	_ source.Source  = (*Source)(nil)
	_ source.Partial = (*Source)(nil)
	_ source.Grouper = (*Source)(nil)
)

// Expand lists the files that the patterns name: patterns in their order, the
// files of each by name, no file twice. A pattern that is the path of a file
// names that file.
func Expand(patterns []string) ([]string, error) {
	var paths []string
	seen := make(map[string]bool)
	for _, p := range patterns {
		found := []string{p}
		if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
			if found, err = filepath.Glob(p); err != nil {
				return nil, fault.Errorf(fault.Usage, "--input %q: %w", p, err)
			}
		}
		if len(found) == 0 {
			return nil, fault.Hint(fault.Errorf(fault.Usage, "--input %q: there is no such file", p),
				"quote the pattern so that the shell leaves it alone, as in --input 'history/*.csv.gz'; * does not go into folders")
		}
		slices.Sort(found)
		for _, f := range found {
			f = filepath.Clean(f)
			info, err := os.Stat(f)
			if err != nil {
				return nil, fault.Wrap(fault.Unavailable, fmt.Errorf("--input %q: %w", p, err))
			}
			if !info.Mode().IsRegular() {
				return nil, fault.Hint(fault.Errorf(fault.Usage, "--input %q: %s is no plain file", p, f), "name the files in a folder as in --input 'history/*.csv.gz'")
			}
			if !seen[f] {
				seen[f] = true
				paths = append(paths, f)
			}
		}
	}
	return paths, nil
}

// Open reads and stages the files, in their order, and finds the ids of their
// points: authority is the hot tier whose points table is the one authority
// for ids. A file that can not be read to its end is an error, a line that can
// not be taken is not. The source does not close authority.
func Open(ctx context.Context, authority source.Source, paths []string, o Options) (*Source, error) {
	if o.Memory <= 0 {
		o.Memory = 256 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	info, err := authority.Info(ctx)
	if err != nil {
		return nil, err
	}
	now := o.Now()
	if info.Now.Before(now) {
		now = info.Now
	}
	s := &Source{authority: authority, paths: paths, at: make(map[int32]uint32)}
	st := &stager{o: o, window: utc.Days{From: firstDay, To: utc.DayOfTime(now) + 2}, source: s, names: make(map[string]int32)}
	if s.staged, err = st.stage(ctx); err != nil {
		return nil, err
	}
	if err := s.resolve(ctx, st.points, o.Unknown); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// firstDay is the earliest day of a sample; jobs has the same rule.
var firstDay, _ = utc.ParseDay("2000-01-01")

// resolve finds or makes the ids of the staged points, which are numbered by
// their place in names.
func (s *Source) resolve(ctx context.Context, names []string, unknown Unknown) error {
	ids := make(map[string]int32)
	list := func() error {
		all, _, err := s.authority.Points(ctx)
		if err != nil {
			return err
		}
		s.points = all
		for _, p := range all {
			if !p.Orphan {
				ids[p.Name] = p.ID
			}
		}
		return nil
	}
	if err := list(); err != nil {
		return err
	}
	var lacking []string
	for _, n := range names {
		if _, ok := ids[n]; !ok {
			lacking = append(lacking, n)
		}
	}
	slices.Sort(lacking)
	if len(lacking) > 0 {
		switch unknown {
		case Create:
			r, ok := s.authority.(source.Registrar)
			if !ok {
				return refused(lacking)
			}
			made, err := r.CreatePoints(ctx, lacking)
			if err != nil {
				return fmt.Errorf("make %d points that the input names: %w", len(lacking), err)
			}
			if err := list(); err != nil {
				return err
			}
			maps.Copy(ids, made)
		case Provisional:
			// From the top: ids below may be of points that only the cold tier remembers.
			for i, n := range lacking {
				id := math.MaxInt32 - int32(len(lacking)) + 1 + int32(i)
				ids[n] = id
				s.points = append(s.points, sample.Point{ID: id, Name: n})
			}
		default:
			return refused(lacking)
		}
		s.summary.Created = lacking
	}
	for i, n := range names {
		id, ok := ids[n]
		if _, twice := s.at[id]; !ok || twice {
			return fault.Errorf(fault.Internal, "the source gave the point %q no id of its own", n)
		}
		s.at[id] = uint32(i)
	}
	for i := range s.strays {
		if r := &s.strays[i]; r.point >= 0 {
			r.PointID.V = int64(ids[names[r.point]])
		}
	}
	return nil
}

func refused(names []string) error {
	some := fmt.Sprintf("%.200q", names[:min(5, len(names))])
	if len(names) > 5 {
		some += fmt.Sprintf(" and %d more", len(names)-5)
	}
	return fault.Hint(fault.Errorf(fault.Invalid, "the source's points lack names of the input: %s", some),
		"they are made there if the source may be written (no --no-state, a token that may edit); or add them to points, or leave them out with --points")
}

// Summary tells what was staged.
func (s *Source) Summary() Summary { return s.summary }

// Points implements source.Source: all points of the authority, and the bad
// lines that no point holds.
func (s *Source) Points(context.Context) ([]sample.Point, []sample.Reject, error) {
	var rejects []sample.Reject
	for _, r := range s.strays {
		if r.point < 0 {
			rejects = append(rejects, r.Reject)
		}
	}
	return slices.Clone(s.points), rejects, nil
}

// Strays implements source.Source: the bad lines of the points whose timestamp
// lies in no day from 2000-01-01 to tomorrow, whatever window is.
func (s *Source) Strays(_ context.Context, points []int32, _ utc.Days) ([]sample.Reject, error) {
	var rejects []sample.Reject
	for _, r := range s.strays {
		id, _ := r.PointID.V.(int64)
		if _, ok := slices.BinarySearch(points, int32(id)); ok && r.point >= 0 {
			rejects = append(rejects, r.Reject)
		}
	}
	return rejects, nil
}

// Info implements source.Source: the authority's identity and clock.
func (s *Source) Info(ctx context.Context) (source.Info, error) {
	info, err := s.authority.Info(ctx)
	info.Ledger = false
	return info, err
}

// Group implements source.Grouper by the authority's groups.
func (s *Source) Group(ctx context.Context, name string) ([]int32, error) {
	g, ok := s.authority.(source.Grouper)
	if !ok {
		return nil, fault.Errorf(fault.Usage, "group %s: this source has no groups", name)
	}
	return g.Group(ctx, name)
}

// Groups implements source.Grouper by the authority's groups.
func (s *Source) Groups(ctx context.Context, f func(name string, point int32)) error {
	if g, ok := s.authority.(source.Grouper); ok {
		return g.Groups(ctx, f)
	}
	return nil
}

// Span implements source.Partial.
func (s *Source) Span(context.Context) (utc.Days, error) { return s.span, nil }

// Held implements source.Partial.
func (s *Source) Held(_ context.Context, points []int32, days utc.Days, f func(source.Slice)) error {
	s.blocks(points, days, func(id int32, m utc.Month, b *block) error {
		for _, run := range (b.days & utc.SetOf(m, days)).Runs(m) {
			for d := run.From; d < run.To; d++ {
				f(source.Slice{Point: id, Day: d})
			}
		}
		return nil
	})
	return nil
}

// blocks calls f with what is staged of the points in the months that days
// touches, in order of (point, month).
func (s *Source) blocks(points []int32, days utc.Days, f func(int32, utc.Month, *block) error) error {
	months := days.Intersect(s.span).Months()
	for _, id := range points {
		n, ok := s.at[id]
		if !ok {
			continue
		}
		for _, m := range months {
			if b := s.staged.find(keyOf(m, n)); b != nil {
				if err := f(id, m, b); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

const (
	// batchRows is where a batch of Read ends, as that of the SQLite source.
	batchRows = 64 << 10
	// rejectBytes bounds the rejects of a batch.
	rejectBytes = 4 << 20
)

// Read implements source.Source.
func (s *Source) Read(ctx context.Context, q source.Query, f func(*sample.Batch) error) (source.Stats, error) {
	var stats source.Stats
	var b sample.Batch
	weight := 0
	deliver := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		stats.Rows += int64(b.Len() + len(b.Rejects))
		err := f(&b)
		clear(b.Rejects)
		b.Reset()
		weight = 0
		return err
	}
	from, to := q.Days.From.Start(), q.Days.To.Start()
	err := s.blocks(q.Points, q.Days, func(id int32, m utc.Month, bl *block) error {
		stats.Requests++
		var winner row // of the sample before
		return s.staged.read(bl, func(r *row) error {
			if r.kind == good {
				winner = *r
			}
			switch {
			case r.ts < from || r.ts >= to:
				return nil
			case r.kind == good:
				b.PointID = append(b.PointID, id)
				b.Append(r.ts, math.Float64frombits(r.bits), r.quality, r.flags)
			default:
				rej, err := s.reject(r, &winner)
				if err != nil {
					return err
				}
				rej.PointID.V = int64(id)
				b.Rejects = append(b.Rejects, rej)
				weight += source.RejectWeight(&rej)
			}
			if b.Len() >= batchRows || weight >= rejectBytes {
				return deliver()
			}
			return nil
		})
	})
	if err == nil && b.Len()+len(b.Rejects) > 0 {
		err = deliver()
	}
	return stats, err
}

// reject is a staged row that is no sample. winner is the sample before it.
func (s *Source) reject(r, winner *row) (sample.Reject, error) {
	if r.kind == bad {
		return s.staged.rejects.get(int64(r.bits))
	}
	rej := sample.Reject{Timestamp: sample.Cell{V: r.ts}, Quality: sample.Cell{V: int64(r.quality)}, Flags: sample.Cell{V: int64(r.flags)},
		Reason: s.where(r.seq) + "superseded by " + strings.TrimSuffix(s.where(winner.seq), ": ")}
	if v := math.Float64frombits(r.bits); v == v {
		rej.Value.V = v
	}
	return rej, nil
}

// where names the place of a row, as the beginning of a reason.
func (s *Source) where(seq uint64) string {
	file, line := seq>>lineBits, seq&(1<<lineBits-1)
	if s.parquet[file] {
		return fmt.Sprintf("%s: row %d: ", s.paths[file], line)
	}
	return fmt.Sprintf("%s:%d: ", s.paths[file], line)
}

// Count implements source.Source.
func (s *Source) Count(ctx context.Context, q source.Query) (map[int32]int64, error) {
	counts := make(map[int32]int64)
	from, to := q.Days.From.Start(), q.Days.To.Start()
	err := s.blocks(q.Points, q.Days, func(id int32, m utc.Month, b *block) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if days := m.Days(); q.Days.Intersect(days) == days {
			counts[id] += b.rows
			return nil
		}
		return s.staged.read(b, func(r *row) error {
			if r.ts >= from && r.ts < to {
				counts[id]++
			}
			return nil
		})
	})
	maps.DeleteFunc(counts, func(_ int32, n int64) bool { return n == 0 })
	return counts, err
}

// Close frees what was staged.
func (s *Source) Close() error {
	if s.staged == nil {
		return nil
	}
	return s.staged.close()
}
