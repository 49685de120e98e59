package jobs

import "time"

// AuditReport is the continuity of the chosen points over a range: what was
// expected, what is there, and every silence. All times are Unix milliseconds,
// all ranges half-open.
type AuditReport struct {
	From      time.Time `json:"from"` // of the range
	To        time.Time `json:"to"`   // exclusive; never later than the clock
	Zone      string    `json:"tz"`   // IANA name of the zone that the days are of
	Fast      bool      `json:"fast"` // counted from the manifests alone: there are no gaps to list
	Tolerance float64   `json:"tolerance"`
	Silence   int64     `json:"max_silence_ms"` // 0: none set

	// Gaps of all points, in order of (point, after).
	Gaps     []Gap    `json:"gaps"`
	Coverage Coverage `json:"coverage"`

	// DayStarts has the first instant of each day of the range, and the range's end.
	DayStarts []int64      `json:"day_starts"`
	Points    []AuditPoint `json:"points"` // ascending by id
	Quality   []Suspect    `json:"quality"`

	Warnings []string  `json:"warnings"`
	Failed   []Failure `json:"failed"` // files and manifests that could not be read
	Elapsed  float64   `json:"elapsed_seconds"`

	code int
}

// Gap is a silence of a point that is longer than it should be.
type Gap struct {
	PointID int32  `json:"point_id"`
	Point   string `json:"point_name"`
	// Kind is "inner" between two samples, "head" before the first sample of the
	// range, "tail" after the last one, "empty" where the range has no sample at all.
	Kind   string `json:"kind"`
	After  *int64 `json:"after"`  // the last sample before the gap; nil at a head or an empty range that nothing precedes
	Before *int64 `json:"before"` // the first sample after it; nil at a tail and at an empty range
	// From and To bound the silence within the range: After and Before where
	// they lie in it, else the ends of the coverage.
	From    int64  `json:"from"`
	To      int64  `json:"to"`
	Length  int64  `json:"length_ms"`
	Missing *int64 `json:"missing"` // samples, about; nil where no interval is expected
	Known   bool   `json:"known"`   // acknowledged: it does not count
	Note    string `json:"note,omitempty"`
}

// Coverage is a total over points and days.
type Coverage struct {
	Points      int   `json:"points"`
	Expected    int64 `json:"expected"` // samples, of the points whose interval is known
	Present     int64 `json:"present"`  // non-NULL samples (with Fast: samples)
	Missing     int64 `json:"missing"`
	Known       int64 `json:"known_missing"` // part of Missing that is acknowledged
	Gaps        int   `json:"gaps"`          // that are not acknowledged
	KnownGaps   int   `json:"known_gaps"`
	LongestGap  int64 `json:"longest_gap_ms"` // not acknowledged
	NotArchived int64 `json:"point_days_not_archived"`
	Empty       int64 `json:"point_days_archived_empty"`
	Holes       int64 `json:"point_days_with_holes"`
	Whole       int64 `json:"point_days_whole"`
}

// AuditPoint is the continuity of one point.
type AuditPoint struct {
	ID        int32  `json:"point_id"`
	Name      string `json:"point_name"`
	System    string `json:"system,omitempty"`
	Equipment string `json:"equipment,omitempty"`
	Unit      string `json:"unit,omitempty"`
	Interval  *int64 `json:"interval_ms"` // expected; 0 for change of value, nil if unknown
	// Measured says that the interval is the median over the range, not the points table's.
	Measured bool   `json:"interval_measured"`
	From     int64  `json:"from"` // where its coverage begins and ends within the range; From >= To: nowhere
	To       int64  `json:"to"`
	First    *int64 `json:"first"` // its first and last sample of the range
	Last     *int64 `json:"last"`

	Expected *int64 `json:"expected"` // nil where no interval is expected
	Present  int64  `json:"present"`
	Missing  int64  `json:"missing"`
	Known    int64  `json:"known_missing"`
	Gaps     int    `json:"gaps"`
	Longest  int64  `json:"longest_gap_ms"`

	Days []AuditDay `json:"days"` // one for each day of the range
}

// AuditDay is one day of one point.
type AuditDay struct {
	State    DayState `json:"state"`
	Present  int32    `json:"present"`
	Expected int32    `json:"expected"` // 0 where no interval is expected
}

// DayState says what is known of a (point, day).
type DayState string

const (
	DayOutside     DayState = "outside"      // before the point's first sample ever, or after it retired
	DayWhole       DayState = "whole"        // as many samples as expected, and no gap
	DayHoles       DayState = "holes"        // fewer
	DayEmpty       DayState = "empty"        // archived, or hot and past, without a sample
	DayNotArchived DayState = "not archived" // neither archived nor in the hot tier
	DayUnread      DayState = "unreadable"   // its manifest or its file is damaged: nothing is known
	DaySome        DayState = "some"         // samples, but nobody knows how many are due
)

// Suspect is a finding of a rule of data quality.
type Suspect struct {
	PointID int32   `json:"point_id"`
	Point   string  `json:"point_name"`
	Rule    string  `json:"rule"` // flatline, spike, range, quality, drift
	From    int64   `json:"from"`
	To      int64   `json:"to"`
	Samples int64   `json:"samples"`
	Value   float64 `json:"value"` // what the rule measured
	Limit   float64 `json:"limit"` // what it allows
	Text    string  `json:"text"`  // in words
}
