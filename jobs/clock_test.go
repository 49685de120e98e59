package jobs

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // zones of the tests, on machines that have none

	"etl/internal/fault"
	"etl/internal/utc"
)

// instants are nights on which careless code miscounts: between years, after
// 29 February and after the 28th of a year that has none, and the nights on which
// clocks are set forward and back, with the zone in which they are.
var instants = []struct{ name, at, zone string }{
	{"new year", "2024-01-01 02:00", "Pacific/Kiritimati"},
	{"new year, in the grace", "2025-01-01 00:30", "America/New_York"},
	{"29 February is over", "2024-03-01 02:00", "Asia/Kathmandu"},
	{"during 29 February", "2024-02-29 23:59", "UTC"},
	{"28 February is over", "2023-03-01 01:00", "Pacific/Pago_Pago"},
	{"summer time begins", "2024-03-31 01:30", "Europe/Berlin"},
	{"summer time ends", "2024-10-27 01:30", "Europe/Berlin"},
	{"half an hour of summer time", "2024-04-06 15:30", "Australia/Lord_Howe"},
}

// wrong are clocks that are behind and ahead.
var wrong = []time.Duration{0, -time.Hour, time.Hour, -23 * time.Hour, 23 * time.Hour, -25 * time.Hour, 25 * time.Hour, -366 * 24 * time.Hour, 366 * 24 * time.Hour, -10 * 365 * 24 * time.Hour, 10 * 365 * 24 * time.Hour}

// TestWrongClocks lets every job run by each pair of clocks of the source and of
// the runner. The earlier one counts. So one right clock is enough: no day is
// archived before it is complete, and prune takes no day that is not old enough. Both
// wrong, nothing is lost either; and by right clocks the rest is done.
func TestWrongClocks(t *testing.T) {
	n := 0
	t.Run("pairs", func(t *testing.T) {
		for i, night := range instants {
			for j, src := range wrong {
				for k, own := range wrong {
					if !*thorough && (i+j+k)%len(instants) != 0 {
						continue // each pair on one night
					}
					n++
					t.Run(fmt.Sprintf("%s, source %s, runner %s", night.name, src, own), func(t *testing.T) {
						t.Parallel()
						wrongClocks(t, night.at, night.zone, src, own)
					})
				}
			}
		}
	})
	reliability(t, "wrong clocks", int64(n), "pairs of a source's and a runner's clock, each up to ten years behind or ahead, on %d nights: archive, prune, restore, verify", len(instants))
}

func wrongClocks(t *testing.T, night, zone string, src, own time.Duration) {
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	right := time.UnixMilli(at(night)).In(loc)
	w := newWorld(t)
	today := utc.DayOfTime(right)
	p := w.point("a")
	// Up to this hour, today included.
	days := utc.Days{From: today - 5, To: today + 1}
	w.exec("BEGIN")
	for ts := days.From.Start(); ts <= right.UnixMilli(); ts += 3600_000 {
		w.exec("INSERT INTO timeseries (point_id, timestamp, value) VALUES (?, ?, ?)", p, ts, float64(ts%7919))
	}
	w.exec("COMMIT")
	truth := w.hot(days)
	w.now = right.Add(src)
	w.over = func(e *Env) { e.Now = func() time.Time { return right.Add(own) } }
	earlier := right.Add(min(src, own)).UnixMilli()

	// By hand: days that ended an hour before the earlier clock, in its 35 days.
	complete := func(clock int64, d utc.Day) bool { return d.End()+3600_000 <= clock }
	isArchived := func(d utc.Day) bool {
		e := w.manifest(d.Month().String()).Entry(p)
		return e != nil && e.Days[d-d.Month().First()] >= 0
	}
	if r, err := w.try(w.env(), ArchiveOptions{Mode: Archive}); err != nil || len(r.Failed) > 0 {
		t.Errorf("archive: %v, %+v", err, r.Failed)
	}
	for d := days.From; d < days.To; d++ {
		want := complete(earlier, d) && int64(d) >= earlier/utc.DayMillis-35
		if got := isArchived(d); got != want {
			t.Errorf("archived %s: %t, want %t", d, got, want)
		}
		if min(src, own) <= 0 && isArchived(d) && !complete(right.UnixMilli(), d) {
			t.Errorf("%s was archived and is not complete", d)
		}
	}
	// Asked for by name, a day that is not complete is refused, whatever it is.
	_, err = PlanArchive(t.Context(), w.env(), ArchiveOptions{Mode: Rearchive, Days: days})
	if refused := fault.Is(err, fault.Usage); refused == complete(earlier, today) {
		t.Errorf("rearchive to %s: %v", today, err)
	}

	pruned, err := w.tryPrune(t.Context(), w.env(), PruneOptions{OlderThan: 2})
	if err != nil || len(pruned.Failed) > 0 {
		t.Errorf("prune: %v, %+v", err, pruned.Failed)
	}
	left := w.hot(days)
	for k := range truth {
		_, there := left[k]
		if d := utc.DayOf(k.ts); !there && (int64(d) >= earlier/utc.DayMillis-2 || min(src, own) <= 0 && d >= today-2) {
			t.Errorf("pruned: a row of %s", d)
		}
	}
	everywhere := func() map[key]row {
		rows := w.cold()
		maps.Copy(rows, w.hot(days))
		return rows
	}
	sameRows(t, everywhere(), truth)
	alarms := func(o VerifyOptions) {
		t.Helper()
		r, err := Verify(t.Context(), w.env(), o)
		w.must(err)
		for _, f := range r.Findings {
			if f.Severity != Info && f.Code != "empty" {
				t.Errorf("verify: %+v", f)
			}
		}
	}
	alarms(VerifyOptions{Deep: true, Against: AgainstRows, Days: days})

	if len(w.cold()) > 0 {
		if r, err := w.tryRestore(t.Context(), w.env(), RestoreOptions{Days: days}); err != nil || len(r.Failed) > 0 || r.Written != pruned.Rows {
			t.Errorf("restore: %v, %+v", err, r)
		}
		sameRows(t, w.hot(days), truth)
	}

	// The clocks are set right.
	w.now, w.over = right, nil
	w.run(ArchiveOptions{Mode: Archive})
	sameRows(t, everywhere(), truth)
	for d := days.From; d < days.To; d++ {
		if complete(right.UnixMilli(), d) && (!isArchived(d) || w.mark(p, d) != "marked") {
			t.Errorf("%s is not archived by the right clock: %t, %q", d, isArchived(d), w.mark(p, d))
		}
	}
	alarms(VerifyOptions{Deep: true, Against: AgainstRows, Days: days})
	w.now = right.AddDate(0, 0, 3) // tomorrow all of it is complete
	w.run(ArchiveOptions{Mode: Archive})
	sameRows(t, w.cold(), truth)
	w.whole()
}

// The range that is refused names the last complete day, on either side of the
// end of a year and of February.
func TestLastCompleteDay(t *testing.T) {
	for _, c := range []struct{ now, last string }{
		{"2024-01-01 00:59", "2023-12-30"}, {"2024-01-01 01:00", "2023-12-31"},
		{"2024-03-01 00:59", "2024-02-28"}, {"2024-03-01 01:00", "2024-02-29"},
		{"2023-03-01 01:00", "2023-02-28"}, {"2100-03-01 01:00", "2100-02-28"},
		{"2024-03-31 01:00", "2024-03-30"}, {"2024-10-27 01:00", "2024-10-26"},
	} {
		now := time.UnixMilli(at(c.now)).UTC()
		err := checkRange(utc.Days{From: utc.DayOfTime(now) - 3, To: utc.DayOfTime(now) + 1}, now, Grace)
		if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "the last complete day is "+c.last) {
			t.Errorf("at %s: %v", c.now, err)
		}
	}
}
