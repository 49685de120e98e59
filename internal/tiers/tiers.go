// Package tiers owns the words in which a job asks for every sample of points in
// both tiers, and in which package lake answers: it keeps the jobs free of how the
// tiers are read, and the reading rules in one place.
//
// A survey is what the manifests alone say. A scan brings all samples of a span of
// time, point by point and month by month.
package tiers

import (
	"context"
	"iter"

	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
)

// Reader reads both tiers by the rules of docs/format.md. *lake.Lake is one.
type Reader interface {
	// Survey tells which points there are and what the manifests say of the days.
	// It reads no month file, and no sample of the hot tier.
	Survey(ctx context.Context, days utc.Days) (*Survey, error)

	// Scan calls f once for each of the points that has a sample in the span or a
	// month that can not be read, several at once, in about their order. parts
	// yields what there is in order of time and may be ranged over once, within
	// the call; a part is valid until the next one. An error of f ends the scan
	// and is returned.
	//
	// A damaged file or manifest is a part with an error, and the rest goes on.
	// What else keeps the tiers from being read is returned.
	Scan(ctx context.Context, q Query, f func(point int32, parts iter.Seq[*Part]) error) error
}

// Query says what to scan.
type Query struct {
	Points   []int32 // ascending
	From, To int64   // Unix milliseconds, half-open
	Values   bool    // bring values, quality and flags as well
	Workers  int     // files decoded at once
	// Progress, if not nil, is told how many points are done; one call at a time.
	Progress func(points int, samples int64)
}

// Part is the samples of one point in one month, as far as the span goes.
type Part struct {
	From, To int64 // the month within the span
	// TS are the instants of the readings: samples whose value is not NULL.
	TS []int64
	// All are all samples, NULLs included, if values were asked for.
	All *sample.Series
	// Err says why nothing is known of this month; Path is the file, "" for a manifest.
	Err  error
	Path object.Key
}

// Survey is what the manifests say of some days.
type Survey struct {
	Points []sample.Point // all that either tier knows, ascending by id
	Days   utc.Days
	// First is the first sample of each point that the cold tier holds, of all
	// months; Before the last one of all months before that of Days.From.
	First, Before map[int32]int64
	// Counts are the samples of each of Days, or sample.NotArchived.
	Counts map[int32][]int32
	// Bad are the months of which the manifest can not be read.
	Bad map[utc.Month]error
	// Hot says whether there is a hot tier to answer for days that are not archived.
	Hot bool
	// HotWindow is how many days back it is sure to hold them.
	HotWindow int
}
