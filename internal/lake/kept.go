package lake

import (
	"slices"

	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

// kept is what a query has read of the hot tier by a plan that a listing may
// refuse: what the next plan wants of it is not read again, for rows read are
// billed.
//
// They are as good as rows that are read later: they were read after the query
// began, and marks and manifests are looked at again after them, as recheck does
// for whatever was read before.
type kept struct {
	rows  sample.Batch
	days  map[int32][]utc.Days // what was read whole
	whole bool                 // it is all of what was read: it was not too much to keep
}

// maxKept bounds the rows that are kept: 23 MB.
const maxKept = 1 << 20

// add keeps rows.
func (k *kept) add(b *sample.Batch) {
	if k == nil || !k.whole {
		return
	}
	if k.whole = k.rows.Len()+b.Len() <= maxKept; !k.whole {
		k.rows.Reset()
		return
	}
	k.rows.PointID = append(k.rows.PointID, b.PointID...)
	k.rows.AppendRange(&b.Series, 0, b.Len())
}

// has reports whether all rows of a point on these days are kept.
func (k *kept) has(point int32, days utc.Days) bool {
	return k != nil && k.whole && slices.ContainsFunc(k.days[point], func(d utc.Days) bool { return d.From <= days.From && days.To <= d.To })
}

// take calls f with the kept rows that the queries want, and returns what is left
// of them to be read.
func (k *kept) take(reads []source.Query, f func(*sample.Batch) error) (left []source.Query, err error) {
	if k == nil || !k.whole || len(k.days) == 0 {
		return reads, nil
	}
	wanted := map[int32][]utc.Days{}
	for _, q := range reads {
		rest := source.Query{Days: q.Days}
		for _, id := range q.Points {
			if k.has(id, q.Days) {
				wanted[id] = append(wanted[id], q.Days)
			} else {
				rest.Points = append(rest.Points, id)
			}
		}
		if len(rest.Points) > 0 {
			left = append(left, rest)
		}
	}
	var some sample.Batch
	for i, id := range k.rows.PointID {
		day := utc.DayOf(k.rows.TS[i])
		if slices.ContainsFunc(wanted[id], func(d utc.Days) bool { return d.Contains(day) }) {
			some.PointID = append(some.PointID, id)
			some.AppendRange(&k.rows.Series, i, i+1)
		}
	}
	if some.Len() == 0 {
		return left, nil
	}
	return left, f(&some)
}

// read notes what was read whole.
func (k *kept) read(reads []source.Query) {
	if k == nil {
		return
	}
	if k.days == nil {
		k.days = map[int32][]utc.Days{}
	}
	for _, q := range reads {
		for _, id := range q.Points {
			k.days[id] = append(k.days[id], q.Days)
		}
	}
}
