package jobs

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/tiers"
	"etl/internal/utc"
)

// surveyed is two tiers of which nothing is known but what the manifests say.
type surveyed tiers.Survey

func (s surveyed) Survey(_ context.Context, days utc.Days) (*tiers.Survey, error) {
	s.Days = days
	return (*tiers.Survey)(&s), nil
}

func (surveyed) Scan(context.Context, tiers.Query, func(int32, iter.Seq[*tiers.Part]) error) error {
	return nil
}

// TestAuditFastKnown: time that several lines of --known acknowledge is acknowledged once.
func TestAuditFastKnown(t *testing.T) {
	first := at("2024-02-01 00:00")
	s := surveyed{Points: []sample.Point{{ID: 1, Name: "Building1.a", IntervalMS: new(int64(60_000))}},
		First: map[int32]int64{1: first}, Counts: map[int32][]int32{1: {0}}}
	for what, test := range map[string]struct {
		known []Outage
		want  int64 // samples acknowledged
	}{
		"none":        {nil, 0},
		"twice":       {[]Outage{{Points: "*", From: at("2024-03-01 00:00"), To: at("2024-03-01 12:00")}, {Points: "Building1.*", From: at("2024-03-01 00:00"), To: at("2024-03-01 12:00")}}, 720},
		"overlapping": {[]Outage{{Points: "*", From: at("2024-03-01 06:00"), To: at("2024-03-01 09:00")}, {Points: "*", From: at("2024-03-01 00:00"), To: at("2024-03-01 07:00")}}, 540},
		"within":      {[]Outage{{Points: "*", From: at("2024-02-28 00:00"), To: at("2024-03-01 10:00")}, {Points: "*", From: at("2024-03-01 01:00"), To: at("2024-03-01 02:00")}}, 600},
		"apart":       {[]Outage{{Points: "*", From: at("2024-03-01 20:00"), To: at("2024-03-02 09:00")}, {Points: "*", From: at("2024-03-01 00:00"), To: at("2024-03-01 01:00")}, {Points: "x", From: 0, To: at("2025-01-01 00:00")}}, 300},
		"touching":    {[]Outage{{Points: "*", From: at("2024-03-01 12:00"), To: at("2024-03-02 00:00")}, {Points: "*", From: at("2024-03-01 00:00"), To: at("2024-03-01 12:00")}}, 1440},
	} {
		r, err := Audit(t.Context(), Env{Now: func() time.Time { return time.UnixMilli(at("2024-06-01 00:00")) }}, s,
			AuditOptions{Days: daysOf("2024-03-01", "2024-03-02"), Fast: true, Known: test.known})
		if err != nil {
			t.Fatal(err)
		}
		code := fault.ExitFindings
		if test.want == 1440 {
			code = fault.ExitOK
		}
		if c := r.Coverage; c.Missing != 1440 || c.Known != test.want || r.ExitCode() != code {
			t.Errorf("%s: %d of %d missing are acknowledged, want %d; exit %d", what, c.Known, c.Missing, test.want, r.ExitCode())
		}
	}
}

// TestAuditDayStarts: a day begins at its first instant, also where clocks change at
// midnight: it has 23 or 25 hours, and its neighbours have 24.
func TestAuditDayStarts(t *testing.T) {
	for _, test := range []struct {
		zone, before, changed string // the day before, and that on which clocks change
		starts, hours         string // when the latter begins in UTC, and how long both and the next are
	}{
		{"Atlantic/Azores", "2024-03-30", "2024-03-31", "2024-03-31 01:00", "24 23 24"},
		{"America/Santiago", "2024-09-07", "2024-09-08", "2024-09-08 04:00", "24 23 24"},
		{"America/Havana", "2024-03-09", "2024-03-10", "2024-03-10 05:00", "24 23 24"},
		{"Asia/Beirut", "2024-03-30", "2024-03-31", "2024-03-30 22:00", "24 23 24"}, // east of UTC
		{"America/Havana", "2024-11-02", "2024-11-03", "2024-11-03 04:00", "24 25 24"},
		{"Asia/Amman", "2021-10-28", "2021-10-29", "2021-10-28 21:00", "24 25 24"}, // 00:00 comes twice
		{"Asia/Beirut", "2024-10-25", "2024-10-26", "2024-10-25 21:00", "24 25 24"},
		{"Europe/Berlin", "2024-03-30", "2024-03-31", "2024-03-30 23:00", "24 23 24"},
		{"Asia/Kolkata", "2024-03-30", "2024-03-31", "2024-03-30 18:30", "24 24 24"},
	} {
		zone, err := time.LoadLocation(test.zone)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Audit(t.Context(), Env{Now: func() time.Time { return time.UnixMilli(at("2025-01-01 00:00")) }}, surveyed{},
			AuditOptions{Days: utc.Days{From: day(test.before), To: day(test.changed) + 2}, Zone: zone})
		if err != nil {
			t.Fatal(err)
		}
		var hours []string
		for i := range 3 {
			hours = append(hours, fmt.Sprint((r.DayStarts[i+1]-r.DayStarts[i])/3600_000))
		}
		if got := time.UnixMilli(r.DayStarts[1]).UTC().Format("2006-01-02 15:04"); got != test.starts || strings.Join(hours, " ") != test.hours {
			t.Errorf("%s: %s begins at %s UTC, want %s; the days have %s hours, want %s", test.zone, test.changed, got, test.starts, hours, test.hours)
		}
	}
}
