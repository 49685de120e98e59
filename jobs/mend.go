package jobs

import (
	"context"
	"errors"

	"etl/internal/monthfile"
	"etl/internal/sample"
	"etl/internal/utc"
	"etl/manifests"
)

// mending is what the writer must know of a month file that is not as it should
// be: it may be missing, unreadable, or lack days that the manifest counts. The
// archiving engine then makes it anew of what is readable there, of what a
// replica holds, and of what the source still has.
type mending struct {
	// lost are the days that the cold tier counts and no longer has: each is to
	// be found elsewhere, or loses its number.
	lost utc.Set
	// replica is what the replica says of the point, nil if it has nothing.
	replica *manifests.Entry
	from    *replica
	exact   bool  // the replica has the very bytes that the manifest names
	rewrite bool  // the rows are those that the manifest names, the bytes are not: no job does that
	samples int64 // of the file, for the memory that it takes
}

// rescued is what a replica has of a month file.
type rescued struct {
	info monthfile.Info
	days sample.DayCounts // archived days, those included that only the manifest knows to be empty
	data []byte
}

// rescue adds, to the rows that are readable in the store, those that the replica
// has of the days to be mended. Rows that both have are the replica's if those are
// the very rows that the manifest names, else the store's, which are newer.
func (w *writer) rescue(ctx context.Context, k *work, old sample.Series) (sample.Series, rescued, error) {
	if k.mend.replica == nil {
		return old, rescued{}, nil
	}
	var saved sample.Series
	r, err := k.mend.from.read(ctx, w.dec, w.m.mp.Month, k.mend.replica, &saved)
	if err != nil || r.data == nil {
		return old, rescued{}, err
	}
	m := w.m.mp.Month
	days := k.mend.lost
	if old.Len() == 0 {
		days = r.days.Archived()
	}
	var clipped, merged sample.Series
	for i := 0; i < saved.Len(); {
		day := utc.DayOf(saved.TS[i])
		j := i + 1
		for j < saved.Len() && utc.DayOf(saved.TS[j]) == day {
			j++
		}
		if days.Has(int(day - m.First())) {
			clipped.AppendRange(&saved, i, j)
		}
		i = j
	}
	for i := range r.days {
		if !days.Has(i) {
			r.days[i] = sample.NotArchived
		}
	}
	if k.mend.exact {
		merged, _ = sample.Merge(merged, old, clipped, m, 0)
	} else {
		merged, _ = sample.Merge(merged, clipped, old, m, 0)
	}
	return merged, r, nil
}

// setAside keeps a copy of an object that can not be read, so that it can be
// overwritten: the version returned has no rows.
func (w *writer) setAside(ctx context.Context, v version) (version, error) {
	to, err := manifests.SetAside(ctx, w.m.env.Store, v.path, v.data)
	if err != nil {
		return version{}, err
	}
	w.m.warn("%s is damaged; a copy was set aside as %s", v.path, to)
	return version{path: v.path, etag: v.etag}, nil
}

// unreadable reports whether the error of decode says that the bytes are no
// month file of anyone. One of another point, or of a newer etl, is none of those.
func unreadable(err error) bool {
	if _, newer := errors.AsType[*monthfile.VersionError](err); newer {
		return false
	}
	return !errors.Is(err, errForeign) || errors.Is(err, monthfile.ErrForeign)
}
