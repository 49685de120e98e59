package jobs

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/source"
	"etl/internal/utc"
)

// slowStore holds each write until the journal was written to often enough.
type slowStore struct {
	object.Store
	beats *beats
	want  int64
}

func (s slowStore) Put(ctx context.Context, key object.Key, data []byte, o object.PutOptions) (object.Attrs, error) {
	for s.beats.n.Load() < s.want && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	return s.Store.Put(ctx, key, data, o)
}

// beats counts the lines that a run writes to the journal.
type beats struct {
	source.Journal
	n    atomic.Int64
	last atomic.Pointer[source.Run]
}

func (b *beats) Log(ctx context.Context, r source.Run) error {
	b.n.Add(1)
	b.last.Store(&r)
	return b.Journal.Log(ctx, r)
}

func TestHeartbeat(t *testing.T) {
	w := newWorld(t)
	w.fill(w.point("a"), daysOf("2024-02-01", "2024-02-03"))
	env := w.env()
	j := &beats{Journal: w.src}
	env.Journal, env.Store = j, slowStore{w.store, j, 4}
	r, err := w.try(env, ArchiveOptions{Mode: Archive, heartbeat: time.Millisecond})
	w.must(err)
	n := j.n.Load()
	if n < 5 || len(r.Failed) > 0 { // begun, three beats at least, ended
		t.Errorf("%d lines, failed %v", n, r.Failed)
	}
	if last := j.last.Load(); last.Status != "done" || last.Finished.IsZero() || last.Records != 48 {
		t.Errorf("the last line is %+v: a heartbeat came after the end", last)
	}
	time.Sleep(20 * time.Millisecond)
	if j.n.Load() != n {
		t.Errorf("the heart beats on after the run")
	}
}

func TestCrashedRunsAreClosed(t *testing.T) {
	w := newWorld(t)
	w.fill(w.point("a"), daysOf("2024-02-01", "2024-02-03"))
	w.must(w.src.Log(t.Context(), source.Run{ID: "killed", Command: "archive", Status: "running", Started: w.now}))
	w.now = w.now.Add(14 * time.Minute)
	if r := w.run(ArchiveOptions{Mode: Archive}); len(r.Warnings) > 0 {
		t.Errorf("after 14 minutes: %q", r.Warnings)
	}
	w.now = w.now.Add(2 * time.Minute)
	if r := w.run(ArchiveOptions{Mode: Archive}); len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "killed") {
		t.Errorf("after 16 minutes: %q", r.Warnings)
	}
	if r := w.run(ArchiveOptions{Mode: Archive}); len(r.Warnings) > 0 {
		t.Errorf("closed again: %q", r.Warnings)
	}
}

// downStore loses every write of a month file, as one whose retries are used up.
type downStore struct {
	object.Store
	puts atomic.Int64
}

func (s *downStore) Put(ctx context.Context, key object.Key, data []byte, o object.PutOptions) (object.Attrs, error) {
	if !strings.HasPrefix(string(key), "timeseries/") {
		return s.Store.Put(ctx, key, data, o)
	}
	s.puts.Add(1)
	return object.Attrs{}, fault.Errorf(fault.Transient, "put %s: service unavailable", key)
}

func TestStopsWhenNothingCanBeStored(t *testing.T) {
	w := newWorld(t)
	for i := range 200 {
		w.fill(w.point(fmt.Sprint("p", i)), daysOf("2024-02-01", "2024-02-02"))
	}
	env := w.env()
	down := &downStore{Store: w.store}
	env.Store = down
	r, err := w.try(env, ArchiveOptions{Mode: Archive, WriteWorkers: 4})
	w.must(err)
	if n := down.puts.Load(); n > stuck+4 {
		t.Errorf("%d writes were tried", n)
	}
	if r.Stopped == "" || r.ExitCode(false) != fault.ExitTransient {
		t.Errorf("stopped %q, exit %d", r.Stopped, r.ExitCode(false))
	}
	w.run(ArchiveOptions{Mode: Archive})
	w.whole()
}

// history is a source that holds what was given to it and no more.
type history struct {
	source.Source
	held map[source.Slice]bool
}

func (h history) Held(_ context.Context, points []int32, days utc.Days, f func(source.Slice)) error {
	for _, p := range points {
		for d := days.From; d < days.To; d++ {
			if h.held[source.Slice{Point: p, Day: d}] {
				f(source.Slice{Point: p, Day: d})
			}
		}
	}
	return nil
}

func (h history) Span(context.Context) (utc.Days, error) {
	var span utc.Days
	for s := range h.held {
		if span.Empty() {
			span = utc.Days{From: s.Day, To: s.Day + 1}
		}
		span.From, span.To = min(span.From, s.Day), max(span.To, s.Day+1)
	}
	return span, nil
}

// What a partial source does not hold stays unarchived, between and around.
func TestPartialSource(t *testing.T) {
	w := newWorld(t)
	a, b := w.point("a"), w.point("b")
	held := map[source.Slice]bool{}
	for _, s := range []struct {
		point int32
		day   string
	}{{a, "2024-01-30"}, {a, "2024-02-02"}, {b, "2024-02-01"}} {
		d := day(s.day)
		w.fill(s.point, utc.Days{From: d, To: d + 1})
		held[source.Slice{Point: s.point, Day: d}] = true
	}
	// A day of which all rows were refused.
	d := day("2024-02-03")
	w.exec("INSERT INTO timeseries (point_id, timestamp, value) VALUES (?, ?, 'x')", a, d.Start())
	held[source.Slice{Point: a, Day: d}] = true

	env := w.env()
	env.Source, env.Ledger = history{w.src, held}, nil
	plan, err := PlanArchive(t.Context(), env, ArchiveOptions{Mode: Backfill})
	w.must(err)
	if plan.PointDays != 4 || plan.Range != daysOf("2024-01-30", "2024-02-04") {
		t.Errorf("the plan reads %d point-days of %v", plan.PointDays, plan.Range)
	}
	r, err := plan.Run(t.Context(), env)
	w.must(err)
	if len(r.Failed) > 0 || len(r.Warnings) > 0 || r.SamplesRejected != 1 || r.SamplesAdded != 72 {
		t.Errorf("report %+v", r)
	}
	for _, c := range []struct {
		month string
		point int32
		want  map[int]int32 // by day of the month
	}{{"2024-01", a, map[int]int32{30: 24}}, {"2024-02", a, map[int]int32{2: 24}}, {"2024-02", b, map[int]int32{1: 24}}} {
		e := w.manifest(c.month).Entry(c.point)
		for i, n := range e.Days {
			want, ok := c.want[i+1]
			if !ok {
				want = -1
			}
			if n != want {
				t.Errorf("%s point %d day %d: %d samples, want %d", c.month, c.point, i+1, n, want)
			}
		}
	}
	again, err := PlanArchive(t.Context(), env, ArchiveOptions{Mode: Backfill})
	w.must(err)
	if again.PointDays != 1 || again.Archived != 3 { // the refused day is tried again
		t.Errorf("again the plan reads %d point-days, %d are archived", again.PointDays, again.Archived)
	}
	for _, o := range []ArchiveOptions{{Mode: Archive}, {Mode: Rearchive, Replace: true, AllowLoss: true}} {
		if _, err := PlanArchive(t.Context(), env, o); !fault.Is(err, fault.Usage) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	w.now = time.Date(2024, 2, 2, 12, 0, 0, 0, time.UTC)
	part, err := PlanArchive(t.Context(), env, ArchiveOptions{Mode: Rearchive})
	w.must(err)
	if len(part.Warnings) != 1 || part.Range != daysOf("2024-01-30", "2024-02-02") {
		t.Errorf("input that goes on: %v, %q", part.Range, part.Warnings)
	}
}
