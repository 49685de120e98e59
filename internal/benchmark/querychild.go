package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"etl/internal/lake"
	"etl/internal/object"
	"etl/internal/source/sqlite"
)

// queryOptions are a query and what it is asked of.
type queryOptions struct {
	Store storeOptions
	Hot   string // path of the SQLite file, "" for the cold tier alone
	Cache string
	SQL   string
	// Manifests has them in the cache before the clock starts, and no month file.
	Manifests bool
	Runs      int // in one session
}

type queryRun struct {
	Took  time.Duration
	Stats lake.Stats
}

type queryAnswer struct {
	Open time.Duration
	Runs []queryRun
	Sum  string // a hash of the answer's sorted lines, the same for all runs
}

// answerBytes is more than any answer has.
const answerBytes = 24 << 20

// query opens a session and asks the same query in it again and again. Each
// answer is written as CSV, to the end.
func query(ctx context.Context, o queryOptions, _ io.Writer) (a queryAnswer, err error) {
	if o.Manifests {
		l, done, err := openLake(ctx, o.Store, o.Hot, o.Cache)
		if err != nil {
			return a, err
		}
		_, err = l.Explain(ctx, lake.Query{SQL: o.SQL})
		if err := errors.Join(err, done()); err != nil {
			return a, err
		}
	}
	start := time.Now()
	l, done, err := openLake(ctx, o.Store, o.Hot, o.Cache)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, done()) }()
	a.Open = time.Since(start)
	// The reader of the answer has memory for it: getting that is none of the query's time.
	var out bytes.Buffer
	out.Grow(answerBytes)
	all := out.AvailableBuffer()
	clear(all[:cap(all)])
	for range o.Runs {
		out.Reset()
		start := time.Now()
		stats, err := l.Write(ctx, lake.Query{SQL: o.SQL}, &out, lake.CSV)
		if err != nil {
			return a, err
		}
		a.Runs = append(a.Runs, queryRun{time.Since(start), stats})
		sum := sumLines(out.String())
		if a.Sum != "" && a.Sum != sum {
			return a, errors.New("the same query gave another answer")
		}
		a.Sum = sum
	}
	return a, nil
}

// sumLines hashes lines in whatever order they came.
func sumLines(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	h := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(h[:8])
}

func openLake(ctx context.Context, at storeOptions, hot, cacheDir string) (*lake.Lake, func() error, error) {
	cache, err := lake.OpenCache(cacheDir, 1<<40)
	if err != nil {
		return nil, nil, err
	}
	store, err := at.open()
	if err != nil {
		return nil, nil, err
	}
	o := lake.Options{Store: store, StoreName: "bench", Cache: cache, Now: func() time.Time { return lakeNow }}
	done := func() error { return nil }
	if hot != "" {
		src, err := sqlite.Open(hot, sqlite.Options{})
		if err != nil {
			return nil, nil, err
		}
		o.Source, o.Ledger, done = src, src, src.Close
	}
	l, err := lake.Open(ctx, o)
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return l, func() error { return errors.Join(l.Close(), done()) }, nil
}

// bareOptions name a cache with month files, and the query that DuckDB is asked
// of them: %s in it is the list of the files.
type bareOptions struct {
	Cache, SQL string
	Under      string // the folder that the files lie in: files
	Runs       int
}

type bareAnswer struct {
	Runs    []time.Duration
	Sum     string
	Files   int
	Version string
	Threads int
}

// bare asks DuckDB alone, with an explicit list of files, in one session, and
// writes the lines that the lake writes.
func bare(ctx context.Context, o bareOptions, _ io.Writer) (a bareAnswer, err error) {
	var files []string
	under := cmp.Or(o.Under, "files")
	err = filepath.WalkDir(o.Cache, func(path string, e fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".parquet" && filepath.Base(filepath.Dir(path)) == under {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		return a, errors.Join(err, errors.New("no month files are cached"))
	}
	quoted := make([]string, len(files))
	for i, f := range files {
		quoted[i] = quote(f)
	}
	a.Files = len(files)
	db, conn, err := openDuck(ctx)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, conn.Close(), db.Close()) }()
	if _, err := conn.ExecContext(ctx, "SET memory_limit = '1 GiB'"); err != nil { // as the lake's
		return a, err
	}
	if err = conn.QueryRowContext(ctx, `SELECT version(), current_setting('threads')`).Scan(&a.Version, &a.Threads); err != nil {
		return a, err
	}
	text := "SELECT point_id::VARCHAR, n::VARCHAR, v::VARCHAR FROM (" + fmt.Sprintf(o.SQL, "["+strings.Join(quoted, ",")+"]") + ")"
	for range o.Runs {
		start := time.Now()
		rows, err := conn.QueryContext(ctx, text)
		if err != nil {
			return a, err
		}
		out := bytes.NewBufferString("point_id,n,v\n")
		for rows.Next() {
			var id, n, v string
			if err := rows.Scan(&id, &n, &v); err != nil {
				return a, errors.Join(err, rows.Close())
			}
			fmt.Fprintf(out, "%s,%s,%s\n", id, n, v)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return a, err
		}
		a.Runs = append(a.Runs, time.Since(start))
		a.Sum = sumLines(out.String())
	}
	return a, nil
}

// pullOptions name month files to read from a store, and how many at once.
type pullOptions struct {
	Store   storeOptions
	Prefix  string
	Workers int
}

type pullAnswer struct {
	Took  time.Duration
	Files int
	Bytes int64
}

// pull reads each object below a prefix and drops it: what any fetch must take.
func pull(ctx context.Context, o pullOptions, _ io.Writer) (a pullAnswer, err error) {
	s, err := o.Store.open()
	if err != nil {
		return a, err
	}
	var keys []object.Key
	for f, err := range s.List(ctx, o.Prefix) {
		if err != nil {
			return a, err
		}
		keys, a.Bytes = append(keys, f.Key), a.Bytes+f.Size
	}
	start := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(o.Workers)
	for _, key := range keys {
		g.Go(func() error {
			_, _, err := s.Get(gctx, key)
			return err
		})
	}
	err = g.Wait()
	a.Took, a.Files = time.Since(start), len(keys)
	return a, err
}

type planAnswer struct {
	Rows  int
	First time.Duration // in a session that has not read the catalog yet
	Took  []time.Duration
}

// plans explains queries over a synthetic catalog, again and again: a LIST of a
// folder, the plan, the selection.
func plans(ctx context.Context, o planOptions, _ io.Writer) (a planAnswer, err error) {
	if err := putManifests(ctx, o); err != nil {
		return a, err
	}
	a.Rows = o.Points * o.Months
	for _, cached := range []bool{false, true} {
		if err := a.ask(ctx, o, cached); err != nil {
			return a, err
		}
	}
	return a, nil
}

// ask asks in a session of its own, which ends with all that goes on behind its answers:
// the first plan with no manifest cached, or each one again and again.
func (a *planAnswer) ask(ctx context.Context, o planOptions, cached bool) error {
	l, done, err := openLake(ctx, storeOptions{Bucket: o.Dir}, "", o.Cache)
	if err != nil {
		return err
	}
	explain := func(q planQuery) (time.Duration, error) {
		start := time.Now()
		e, err := l.Explain(ctx, lake.Query{SQL: q.sql})
		took := time.Since(start)
		if err == nil && (e.Files != q.files || !e.Planned) {
			err = fmt.Errorf("%s: %d files, want %d (%s)", q.sql, e.Files, q.files, e.Why)
		}
		return took, err
	}
	if !cached {
		a.First, err = explain(planQueries(o)[0])
		return errors.Join(err, done())
	}
	for k := range 5 {
		for _, q := range planQueries(o) {
			took, err := explain(q)
			if err != nil {
				return errors.Join(err, done())
			}
			if k > 0 {
				a.Took = append(a.Took, took)
			}
		}
	}
	return done()
}

type planQuery struct {
	sql   string
	files int
}

func planQueries(o planOptions) []planQuery {
	from := lastMonth.First().String()
	return []planQuery{
		{"SELECT ts, value FROM samples WHERE point_name = 'Building1.HVAC.AHU1.FanStatus' AND ts >= '" + from + "'", 1},
		{"SELECT avg(value) FROM samples WHERE point_id = 3", o.Months},
		{"SELECT point_id, avg(value) FROM samples JOIN points USING (point_id) WHERE equipment = 'AHU1' AND site = 'Building1' AND ts >= '" + from + "' GROUP BY ALL", min(8, o.Points)},
		{"SELECT point_id, avg(value) FROM samples WHERE ts >= '" + from + "' GROUP BY ALL", o.Points},
	}
}
