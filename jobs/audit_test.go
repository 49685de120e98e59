package jobs

import (
	"context"
	"iter"
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
