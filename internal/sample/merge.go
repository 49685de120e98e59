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
	gone := replace.Runs(m)
	i, j := 0, 0
	for i < old.Len() && j < fresh.Len() {
		// Whole runs are copied at once: most merges append one day to many, or
		// replace one day by the same timestamps.
		switch a, b := old.TS[i], fresh.TS[j]; {
		case a < b:
			k := i + seek(old.TS[i:], b)
			d.Removed += keep(&dst, &old, i, k, gone)
			i = k
		case a > b:
			k := j + seek(fresh.TS[j:], a)
			dst.AppendRange(&fresh, j, k)
			d.Added += int64(k - j)
			j = k
		default:
			k := j
			for i < old.Len() && k < fresh.Len() && old.TS[i] == fresh.TS[k] {
				if !old.EqualAt(i, &fresh, k) {
					d.Replaced++
				}
				i, k = i+1, k+1
			}
			dst.AppendRange(&fresh, j, k)
			j = k
		}
	}
	d.Removed += keep(&dst, &old, i, old.Len(), gone)
	dst.AppendRange(&fresh, j, fresh.Len())
	d.Added += int64(fresh.Len() - j)
	return dst, d
}

// seek is the number of leading timestamps in ts that are before t. It takes
// steps that double, then halve: runs are as often one sample as a month.
func seek(ts []int64, t int64) int {
	hi := 1
	for hi < len(ts) && ts[hi] < t {
		hi *= 2
	}
	lo := hi / 2
	k, _ := slices.BinarySearch(ts[lo:min(hi, len(ts))], t)
	return lo + k
}

// keep appends old[i:j] to dst but for the samples on the days of gone, and returns how many those were.
func keep(dst, old *Series, i, j int, gone []utc.Days) (removed int64) {
	for _, days := range gone {
		from := i + seek(old.TS[i:j], days.From.Start())
		to := from + seek(old.TS[from:j], days.To.Start())
		dst.AppendRange(old, i, from)
		removed += int64(to - from)
		i = to
	}
	dst.AppendRange(old, i, j)
	return removed
}
