package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"etl/manifests"
)

const (
	queryRuns     = 3  // with each state of the cache, each a process of its own
	sessionRuns   = 5  // of one query in one session
	fetchWorkers  = 32 // the lake's default
	planMonths    = 35
	trivialRuns   = 9
	monthRuns     = 3
	monthPerPoint = "SELECT point_id, count(value) AS n, round(avg(value), 3) AS v FROM %s GROUP BY point_id"
)

// aQuery is one query of the table and the times that it may take, 0 for no limit.
type aQuery struct {
	name, sql  string
	cold, warm time.Duration
	runs       int
}

// allQueries are those of the table. Each range ends this noon, so that it begins
// in the cold tier and ends in the hot one; the last one is a whole month, cold.
func allQueries() []aQuery {
	one := func(days int) string {
		return fmt.Sprintf("SELECT ts, value FROM samples WHERE point_name = 'Building1.HVAC.AHU1.SupplyAirTemp' AND ts >= '%s' AND ts < '%s'",
			lakeNow.AddDate(0, 0, -days).Format(time.DateTime), lakeNow.Format(time.DateTime))
	}
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	return []aQuery{
		{"latest value of every point of one system", "SELECT point_name, ts, value FROM latest JOIN points USING (point_id) WHERE system = 'Electrical'", 0, ms(50), queryRuns},
		{"24 h of one point", one(1), ms(250), ms(50), queryRuns},
		{"90 days of one point", one(90), ms(350), ms(60), queryRuns},
		{"1 year of one point", one(365), ms(500), ms(100), queryRuns},
		{"1 year, 10 points, hourly averages", fmt.Sprintf("SELECT point_id, time_bucket(INTERVAL 1 hour, ts) AS hour, avg(value) AS v FROM samples WHERE point_id <= 10 AND ts >= '%s' AND ts < '%s' GROUP BY ALL",
			lakeNow.AddDate(0, 0, -365).Format(time.DateTime), lakeNow.Format(time.DateTime)), time.Second, ms(300), queryRuns},
		{"one month, all points, average by point", fmt.Sprintf(monthPerPoint, "samples WHERE ts >= '"+lastMonth.First().String()+"' AND ts < '"+today.String()+"'"), 0, 0, monthRuns},
	}
}

// lake makes a lake on a server, or takes the one that is there.
func (b *bench) lake(ctx context.Context) (o lakeOptions, size lakeAnswer, server s3Answer, stop func() error, err error) {
	o = lakeOptions{Points: b.points, Full: min(b.points, max(10, b.points/45))}
	dir := b.lakeDir(o)
	o.Hot = filepath.Join(dir, "hot.sqlite")
	o.Store.Bucket = "lake"
	buckets := filepath.Join(dir, "buckets")
	want, err := json.Marshal(lakeOptions{Points: o.Points, Full: o.Full}) // wherever it lies
	if err != nil {
		return o, size, server, nil, err
	}
	var have struct {
		Options json.RawMessage
		Size    lakeAnswer
	}
	stamp := filepath.Join(dir, "stamp")
	data, err := os.ReadFile(stamp)
	made := err == nil && json.Unmarshal(data, &have) == nil && bytes.Equal(have.Options, want)
	if !made {
		if err := errors.Join(emptyDir(dir), os.MkdirAll(filepath.Join(buckets, o.Store.Bucket), 0o755)); err != nil {
			return o, size, server, nil, err
		}
	}
	if stop, err = b.serve(ctx, "s3", s3Options{b.versitygw, buckets, s3Delay}, &server); err != nil {
		return o, size, server, nil, err
	}
	if !made {
		b.say("making a lake of %d months, %d points", lakeMonths, o.Points)
		fill := o
		fill.Store.URL = server.Direct
		if _, err := b.child(ctx, "lake", fill, &have.Size); err != nil {
			return o, size, server, nil, errors.Join(err, stop())
		}
		settle()
		have.Options = want
		data, err := json.Marshal(have)
		if err == nil {
			err = os.WriteFile(stamp, data, 0o644)
		}
		if err != nil {
			return o, size, server, nil, errors.Join(err, stop())
		}
	}
	o.Store.URL = server.Delayed
	return o, have.Size, server, stop, warm(o.Hot)
}

// queries measures what the etl takes to answer.
func (b *bench) queries(ctx context.Context) (err error) {
	if err := b.starts(ctx); err != nil {
		return err
	}
	if err := b.planning(ctx); err != nil {
		return err
	}
	if _, err := os.Stat(b.versitygw); err != nil {
		b.say("no S3 server at %s (make servers installs it): queries over S3 are skipped", b.versitygw)
		b.report.run("queries over S3: skipped, versitygw is not installed (make servers)")
		return nil
	}
	o, size, server, stop, err := b.lake(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	b.report.run("the lake: %d months, %s points, %s month files, %s samples, %s; last month %s samples, %s; %s rows in SQLite, %s days marked",
		lakeMonths, count(int64(o.Points)), count(size.Files), millions(size.Rows), megabytes(size.Bytes), millions(size.LastRows), megabytes(size.LastBytes),
		millions(size.HotRows), count(int64(o.Points*hotWindow)))
	qs := allQueries()
	for _, q := range qs[:len(qs)-1] {
		if _, err := b.ask(ctx, q, o); err != nil {
			return err
		}
	}
	return b.wholeMonth(ctx, qs[len(qs)-1], o, size, server)
}

// asked is what one query took.
type asked struct {
	cold, listed, warm, again []time.Duration // empty cache; manifests cached; all cached; the same session again
	fetched                   []float64       // bytes a second, of an empty cache
	cache                     string          // full
	sum                       string
	peak                      int64
}

// ask runs one query with each state of the cache. The answers must be the same.
func (b *bench) ask(ctx context.Context, q aQuery, o lakeOptions) (r asked, err error) {
	b.say("%s", q.name)
	run := func(state, cache string, manifests bool, runs int) ([]queryRun, error) {
		var a queryAnswer
		c, err := b.child(ctx, "query", queryOptions{Store: o.Store, Hot: o.Hot, Cache: cache, SQL: q.sql, Manifests: manifests, Runs: runs}, &a)
		if err != nil {
			return nil, err
		}
		if r.sum != "" && a.Sum != r.sum {
			return nil, fmt.Errorf("%s: %s gave another answer", q.name, state)
		}
		r.sum, r.peak = a.Sum, max(r.peak, c.RSS)
		for i, run := range a.Runs {
			s := run.Stats
			b.report.run("query: %s, %s, run %d: %s (catalog %s, plan %s, fetch %s, extract %s, run %s), %s rows, %d files, %s fetched, %s hot rows, peak %s", q.name, state, i+1, milli(run.Took),
				milli(s.Catalog), milli(s.Plan), milli(s.Fetch), milli(s.Extract), milli(s.Run), count(s.Rows), s.Files, megabytes(s.BytesFetched), count(s.HotRows), megabytes(c.RSS))
		}
		return a.Runs, nil
	}
	for range q.runs {
		r.cache = b.fresh("cache")
		runs, err := run("empty cache", r.cache, false, 1)
		if err != nil {
			return r, err
		}
		r.cold = append(r.cold, runs[0].Took)
		if s := runs[0].Stats; s.Fetch > 0 {
			r.fetched = append(r.fetched, float64(s.BytesFetched)/s.Fetch.Seconds())
		}
		if runs, err = run("manifests cached", b.fresh("cache"), true, 1); err != nil {
			return r, err
		}
		r.listed = append(r.listed, runs[0].Took)
		if runs, err = run("warm", r.cache, false, sessionRuns); err != nil {
			return r, err
		}
		r.warm = append(r.warm, runs[0].Took)
		for _, again := range runs[1:] {
			r.again = append(r.again, again.Took)
		}
	}
	b.report.within(q.name+", empty cache", median(r.cold), q.cold)
	b.report.within("– manifests cached, no month file", median(r.listed), 0)
	b.report.within("– warm, first of a session", median(r.warm), 0)
	b.report.within("– warm, again in the session", median(r.again), q.warm)
	b.report.add(figure{what: "– its peak memory", etl: megabytes(r.peak), met: true})
	return r, nil
}

// wholeMonth asks for all rows of a month, beside the bare reads of its files
// and DuckDB on the local copies.
func (b *bench) wholeMonth(ctx context.Context, q aQuery, o lakeOptions, size lakeAnswer, server s3Answer) error {
	r, err := b.ask(ctx, q, o)
	if err != nil {
		return err
	}
	var pulls, bares []time.Duration
	var p pullAnswer
	var a bareAnswer
	for k := range q.runs {
		if _, err := b.child(ctx, "pull", pullOptions{o.Store, manifests.DirOf(lastMonth), fetchWorkers}, &p); err != nil {
			return err
		}
		pulls = append(pulls, p.Took)
		b.report.run("reads over S3 alone, run %d: %s, %s files, %s", k+1, seconds(p.Took), count(int64(p.Files)), megabytes(p.Bytes))
		c, err := b.child(ctx, "bare", bareOptions{Cache: r.cache, SQL: fmt.Sprintf(monthPerPoint, "read_parquet(%s)"), Runs: sessionRuns}, &a)
		if err != nil {
			return err
		}
		if a.Sum != r.sum {
			return errors.New("DuckDB on the files alone gives another answer")
		}
		bares = append(bares, a.Runs[1:]...)
		b.report.run("DuckDB on %s local files, run %d: first %s, then %s, peak %s", count(int64(a.Files)), k+1, milli(a.Runs[0]), milli(median(a.Runs[1:])), megabytes(c.RSS))
	}
	pulled := float64(p.Bytes) / median(pulls).Seconds()
	fetched := float64(size.LastBytes) / median(r.cold).Seconds()
	b.report.add(figure{what: fmt.Sprintf("– its %s files over S3, with the query", count(int64(p.Files))), etl: speed(fetched),
		baseline: speed(pulled) + " (reads alone)", ratio: fmt.Sprintf("%.2f×", pulled/fetched), met: true})
	w, base := median(r.again), median(bares)
	b.report.ratio(fmt.Sprintf("– warm, beside DuckDB on the files (%s rows)", millions(size.LastRows)), milli(w), milli(base), w.Seconds()/base.Seconds(), 1.3)
	b.report.duckdb, b.report.threads = a.Version, a.Threads
	return nil
}

// planning measures a LIST of a folder, the plan and the selection.
func (b *bench) planning(ctx context.Context) error {
	o := planOptions{b.points, planMonths, b.fresh("manifests"), b.fresh("cache")}
	b.say("planning over %s catalog rows", count(int64(o.Points*o.Months)))
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	var a planAnswer
	c, err := b.child(ctx, "plans", o, &a)
	if err != nil {
		return err
	}
	for i, q := range planQueries(o) {
		var took []time.Duration
		for k := i; k < len(a.Took); k += len(planQueries(o)) {
			took = append(took, a.Took[k])
		}
		b.report.run("plan of a query that touches %s of %s files: %s", count(int64(q.files)), count(int64(a.Rows)), milli(median(took)))
		b.report.within(fmt.Sprintf("planning and selection, %s of %s catalog rows", count(int64(q.files)), count(int64(a.Rows))), median(took), 20*time.Millisecond)
	}
	b.report.run("the first plan with no manifest cached: %s, peak %s", milli(a.First), megabytes(c.RSS))
	return nil
}

// starts measures a process that answers a query of no table.
func (b *bench) starts(ctx context.Context) error {
	dir, cache := b.fresh("empty"), b.fresh("cache")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var runs []cost
	for range trivialRuns {
		var out bytes.Buffer
		c, err := b.askEtl(ctx, &out, "query", "--store", "file:"+dir, "--cache", cache, "--format", "csv", "SELECT 1 AS one")
		if err != nil {
			return err
		}
		if out.String() != "one\n1\n" {
			return fmt.Errorf("etl query answered %q", out.String())
		}
		runs = append(runs, c)
	}
	m := medianCost(runs)
	b.report.run("etl query 'SELECT 1', %d runs: %s, CPU %s, peak %s", trivialRuns, milli(m.Wall), milli(m.CPU), megabytes(m.RSS))
	b.report.within("start to end of `etl query \"SELECT 1\"`", m.Wall, 200*time.Millisecond)
	return nil
}
