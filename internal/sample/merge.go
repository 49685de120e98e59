package sample

import (
	"slices"

	"etl/internal/utc"
)

// Delta counts what a merge did to the old series.
type Delta struct {
	Added    int64 // timestamps that were not there
	Replaced int64 // timestamps whose value, quality or flags changed
	Removed  int64 // timestamps that a replaced day no longer has
}

// Changed reports whether the merged rows differ from the old ones.
func (d Delta) Changed() bool { return d != Delta{} }

// Add sums two counts.
func (d Delta) Add(o Delta) Delta {
	return Delta{d.Added + o.Added, d.Replaced + o.Replaced, d.Removed + o.Removed}
}

// Merge is the union of old and fresh by timestamp, fresh winning where both
// have one, appended to dst, which must not share memory with either. On the
// days of m in replace, fresh alone is authoritative: old samples there that
// fresh lacks are removed.
//
// INVARIANT: without replace, every timestamp of old is in the result.
func Merge(dst, old, fresh Series, m utc.Month, replace utc.Set) (Series, Delta) {
	dst.Grow(old.Len() + fresh.Len())
	var d Delta
	i, j := 0, 0
	for i < old.Len() && j < fresh.Len() {
		switch a, b := old.TS[i], fresh.TS[j]; {
		case a < b:
			// Runs of old samples are copied at once: most merges append one day to many.
			k, _ := slices.BinarySearch(old.TS[i:], b)
			d.Removed += keep(&dst, &old, i, i+k, m, replace)
			i += k
		case a > b:
			k, _ := slices.BinarySearch(fresh.TS[j:], a)
			dst.AppendRange(&fresh, j, j+k)
			d.Added += int64(k)
			j += k
		default:
			if !old.EqualAt(i, &fresh, j) {
				d.Replaced++
			}
			dst.AppendRange(&fresh, j, j+1)
			i, j = i+1, j+1
		}
	}
	d.Removed += keep(&dst, &old, i, old.Len(), m, replace)
	dst.AppendRange(&fresh, j, fresh.Len())
	d.Added += int64(fresh.Len() - j)
	return dst, d
}

// keep appends old[i:j] to dst but for the samples on replaced days, and returns how many those were.
func keep(dst, old *Series, i, j int, m utc.Month, replace utc.Set) (removed int64) {
	for i < j && replace != 0 {
		day := utc.DayOf(old.TS[i])
		k, _ := slices.BinarySearch(old.TS[i:j], day.End())
		if replace.Has(int(day - m.First())) {
			removed += int64(k)
		} else {
			dst.AppendRange(old, i, i+k)
		}
		i += k
	}
	dst.AppendRange(old, i, j)
	return removed
}
