package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"etl/internal/utc"
	"etl/jobs"
	"etl/manifests"
)

const (
	auditMonths = 12 // that --fast looks at
	auditRuns   = 3  // processes, taking turns with the baseline
)

// auditOptions say what is audited, and in how many runs of one session.
type auditOptions struct {
	Points    int
	Dir       string // the store
	Cache     string
	From, To  utc.Day
	Fast      bool
	Rules     []string
	Runs      int
	WantGaps  int
	WantCount int64 // of readings, with Fast: of samples
}

type auditAnswer struct {
	Runs []time.Duration
}

// makeAudited fills an empty folder with a month of every point, a sample a minute,
// and the manifests of the months before it, whose files nothing reads.
func makeAudited(ctx context.Context, o auditOptions, _ io.Writer) (a lakeAnswer, err error) {
	if err := putManifests(ctx, planOptions{Points: o.Points, Months: auditMonths, Dir: o.Dir}); err != nil {
		return a, err
	}
	at := storeOptions{Bucket: o.Dir}
	store, err := at.open()
	if err != nil {
		return a, err
	}
	f, err := lakeOptions{Points: o.Points}.fleet()
	if err != nil {
		return a, err
	}
	if err := os.Remove(filepath.Join(o.Dir, string(manifests.KeyOf(lastMonth)))); err != nil {
		return a, err
	}
	a.LastRows, a.LastBytes, err = putMonth(ctx, store, f, lastMonth, o.Points)
	return a, err
}

// audit audits the same again and again in one session; the clock starts when the session is open.
func audit(ctx context.Context, o auditOptions, _ io.Writer) (a auditAnswer, err error) {
	l, done, err := openLake(ctx, storeOptions{Bucket: o.Dir}, "", o.Cache)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, done()) }()
	for range o.Runs {
		start := time.Now()
		r, err := jobs.Audit(ctx, jobs.Env{Now: func() time.Time { return lakeNow }}, l,
			jobs.AuditOptions{Days: utc.Days{From: o.From, To: o.To}, Fast: o.Fast, Rules: o.Rules})
		if err != nil {
			return a, err
		}
		a.Runs = append(a.Runs, time.Since(start))
		if r.Coverage.Present != o.WantCount || len(r.Gaps) != o.WantGaps || len(r.Failed) > 0 {
			return a, fmt.Errorf("the audit counted %d samples and %d gaps, want %d and %d", r.Coverage.Present, len(r.Gaps), o.WantCount, o.WantGaps)
		}
	}
	return a, nil
}

// audits measures the audit of a month beside DuckDB's average by point over the same
// files, and that of a year by the manifests.
func (b *bench) audits(ctx context.Context) error {
	o := auditOptions{Points: b.points, Dir: filepath.Join(b.dir, fmt.Sprintf("audit-%d", b.points)), From: lastMonth.First(), To: today}
	var size lakeAnswer
	stamp := o.Dir + ".stamp"
	if data, err := os.ReadFile(stamp); err != nil || json.Unmarshal(data, &size) != nil {
		b.say("making a month of %d points", o.Points)
		if err := emptyDir(o.Dir); err != nil {
			return err
		}
		if _, err := b.child(ctx, "audited", o, &size); err != nil {
			return err
		}
		settle()
		data, err := json.Marshal(size)
		if err == nil {
			err = os.WriteFile(stamp, data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	b.say("auditing %s rows", millions(size.LastRows))
	o.Cache, o.WantCount = b.fresh("cache"), size.LastRows
	ask := func(what string, o auditOptions) (a auditAnswer, peak int64, err error) {
		c, err := b.child(ctx, "audit", o, &a)
		if err != nil {
			return a, 0, err
		}
		for i, took := range a.Runs {
			b.report.run("audit: %s, run %d of a session: %s, peak %s", what, i+1, milli(took), megabytes(c.RSS))
		}
		return a, c.RSS, nil
	}
	o.Rules, o.Runs = []string{}, 1
	cold, _, err := ask("a month, nothing cached", o)
	if err != nil {
		return err
	}
	var first, warm, rules, bares []time.Duration
	var bare bareAnswer
	peak := int64(0)
	for range auditRuns {
		o.Rules, o.Runs = []string{}, sessionRuns
		a, rss, err := ask("a month, warm", o)
		if err != nil {
			return err
		}
		first, warm, peak = append(first, a.Runs[0]), append(warm, a.Runs[1:]...), max(peak, rss)
		if _, err := b.child(ctx, "bare", bareOptions{Cache: o.Dir, Under: fmt.Sprintf("%02d", lastMonth.Number()), SQL: fmt.Sprintf(monthPerPoint, "read_parquet(%s)"), Runs: sessionRuns}, &bare); err != nil {
			return err
		}
		bares = append(bares, bare.Runs[1:]...)
		b.report.run("DuckDB's average by point on %s files: first %s, then %s", count(int64(bare.Files)), milli(bare.Runs[0]), milli(median(bare.Runs[1:])))
		o.Rules, o.Runs = jobs.AuditRules, 1
		if a, _, err = ask("a month, with all rules", o); err != nil {
			return err
		}
		rules = append(rules, a.Runs[0])
	}
	w, base := median(warm), median(bares)
	b.report.within(fmt.Sprintf("audit of %s rows, nothing cached", millions(size.LastRows)), cold.Runs[0], 0)
	b.report.within("– warm, first of a session", median(first), 0)
	b.report.ratio("– warm, beside DuckDB's average by point on the files", milli(w), milli(base), w.Seconds()/base.Seconds(), 2.5)
	b.report.add(figure{what: "– its peak memory", etl: megabytes(peak), met: true})
	b.report.within("– with all rules of data quality", median(rules), 0)

	year := o
	year.From, year.Fast, year.Rules, year.Runs = (lastMonth - auditMonths + 1).First(), true, nil, sessionRuns
	year.WantCount = int64(o.Points) * 1440 * int64(year.To-year.From)
	if _, _, err := ask("a year by the manifests, not cached", year); err != nil {
		return err
	}
	var fast []time.Duration
	peak = 0
	for range auditRuns {
		a, rss, err := ask("a year by the manifests", year)
		if err != nil {
			return err
		}
		fast, peak = append(fast, a.Runs[0]), max(peak, rss)
	}
	b.report.within(fmt.Sprintf("audit --fast, %d days of %s points, first of a session", year.To-year.From, count(int64(o.Points))), median(fast), time.Second)
	b.report.add(figure{what: "– its peak memory", etl: megabytes(peak), met: true})
	b.report.duckdb, b.report.threads = bare.Version, bare.Threads
	return nil
}
