package jobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/timing"
	"etl/internal/utc"
	"etl/manifests"
)

// writeAttempts bounds how often a writer starts over because another one
// stored a newer version of its file.
const writeAttempts = 8

// writer owns one (point, month) at a time, from the old bytes to the new
// manifest entry. It is used by one goroutine and keeps scratch memory.
type writer struct {
	m      *monthRun
	enc    *monthfile.Encoder
	dec    *monthfile.Decoder
	old    sample.Series
	merged sample.Series
	out    []byte
}

func newWriter(m *monthRun) *writer {
	return &writer{m: m, enc: monthfile.NewEncoder(monthfile.Options{Codec: m.opts.Codec}), dec: monthfile.NewDecoder().Timed(m.env.Timing)}
}

// result is what became of a point.
type result struct {
	change manifests.Change
	delta  sample.Delta
	file   bool // a month file was written
}

// version is what is stored under a path: the base of a merge.
type version struct {
	path object.Key
	etag string          // "" if nothing is stored there
	info *monthfile.Info // nil if nothing is stored there
	data []byte
	hash string // SHA-256 of data, hex
}

// point merges what was extracted with the version of the month file that w is
// based on, and stores the result if the rows differ.
//
// INVARIANT: a merge uses rows that were extracted after the version it is
// merged into was read or was known to be the stored one. So an extraction that
// another writer has overtaken never wins.
func (w *writer) point(ctx context.Context, k *work) (result, error) {
	if err := w.m.putRejects(ctx, k); err != nil {
		return result{}, err
	}
	res := result{change: manifests.Change{Point: k.point.ID, Name: k.point.Name, Base: k.base, Empty: emptyDays(w.m.mp.Month, k)}}
	if k.mend != nil {
		res.change.Lost = k.mend.lost
	}
	if k.fresh.Len() == 0 && k.replace == 0 && k.mend == nil {
		return res, nil // every day was read to its end and is empty: only zeros to record
	}
	base, stale, err := w.base(ctx, k)
	if err != nil {
		return result{}, err
	}
	for range writeAttempts {
		if stale {
			if err := w.extractAgain(ctx, k); err != nil {
				return result{}, err
			}
			res.change.Empty = emptyDays(w.m.mp.Month, k)
		}
		var old sample.Series
		if base.info != nil {
			old = w.old
		}
		var saved rescued
		if k.mend != nil {
			if old, saved, err = w.rescue(ctx, k, old); err != nil {
				return result{}, err
			}
		}
		w.merged.Reset()
		start := w.m.env.Timing.Start()
		w.merged, res.delta = sample.Merge(w.merged, old, *k.fresh, w.m.mp.Month, k.replace&^rejectedDays(w.m.mp.Month, k.rejects))
		w.m.env.Timing.End(timing.Merge, start)
		changed := res.delta.Changed()
		if k.mend != nil {
			if base.info == nil && (k.base == nil || k.base.Path == "") && w.merged.Len() == 0 {
				return res, nil // there was no file, and there is nothing to put into one
			}
			changed = base.info == nil || k.mend.rewrite || !w.merged.Equal(&w.old)
		}
		if !changed {
			// Same rows: the file stays, whatever today's encoder would write.
			// Its entry is refreshed if it is not the one that was committed.
			if base.info != nil && (k.base == nil || k.base.ETag != base.etag || k.base.SHA256 != base.hash) {
				res.change.Entry, err = entry(base.path, base.data, base.etag, *base.info)
			}
			return res, err
		}
		info := monthfile.Meta{PointID: k.point.ID, PointName: k.point.Name, Month: w.m.mp.Month, Days: w.days(k, base)}
		for i, n := range saved.days {
			if n != sample.NotArchived && info.Days[i] == sample.NotArchived {
				info.Days[i] = 0 // archived empty, as the copy says
			}
		}
		start = w.m.env.Timing.Start()
		data, facts, err := w.enc.Encode(w.out[:0], info, &w.merged)
		w.m.env.Timing.End(timing.Encode, start)
		if err != nil {
			return result{}, err
		}
		w.out = data
		if saved.data != nil && saved.info.RowsSHA256 == facts.RowsSHA256 && slices.Equal(saved.info.Days, facts.Days) {
			data, facts = saved.data, saved.info // the very bytes that were lost, whoever encoded them
		}
		if k.mend != nil && k.mend.rewrite && base.info != nil {
			if bytes.Equal(data, base.data) { // they are what this build makes of the rows
				res.change.Entry, err = entry(base.path, data, base.etag, facts)
				return res, err
			}
			if _, err := w.setAside(ctx, base); err != nil {
				return result{}, err
			}
		}
		attrs, err := w.m.env.Store.Put(ctx, base.path, data, object.PutOptions{
			IfMatch: base.etag, IfAbsent: base.etag == "", Meta: objectMeta(facts), Type: "application/vnd.apache.parquet",
		})
		switch {
		case err == nil:
			res.file = true
			res.change.Entry, err = entry(base.path, data, attrs.ETag, facts)
			return res, err
		case !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Unknown):
			return result{}, err
		}
		// Another version is stored, or it is not known which: look, first of
		// all, and extract again after that.
		var stored version
		stored, err = w.read(ctx, base.path, k.point.ID)
		switch {
		case errors.Is(err, errForeign) && !(k.mend != nil && unreadable(err) && k.base != nil && k.base.Path != ""):
			if base, err = w.elsewhere(ctx, k, base.path); err != nil {
				return result{}, err
			}
			stale = true
			continue
		case fault.Is(err, fault.NotExist):
			if base.etag != "" {
				return result{}, missing(base.path, w.m.mp.Month)
			}
			continue // the write did not happen
		case err != nil && k.mend != nil && stored.etag != "" && unreadable(err):
			if base, err = w.setAside(ctx, stored); err != nil {
				return result{}, err
			}
			continue // still what was to be overwritten, or worse
		case err != nil:
			return result{}, err
		}
		if bytes.Equal(stored.data, data) {
			// Our own write, whose answer was lost, or another's of the same rows.
			res.file = true
			res.change.Entry, err = entry(base.path, data, stored.etag, facts)
			return res, err
		}
		base, stale = stored, true
	}
	return result{}, fault.Hint(fault.Errorf(fault.Transient, "%s: other writers replaced it %d times in a row", base.path, writeAttempts),
		"run the command again; if that persists, see which other runners work on %s", w.m.mp.Month)
}

// base finds the version that k is based on and decodes its rows into w.old.
// It is stale if it is another one than the manifest entry which was fixed
// before the extraction.
func (w *writer) base(ctx context.Context, k *work) (v version, stale bool, err error) {
	if k.base != nil && k.base.Path != "" {
		data, attrs, err := w.m.env.Store.Get(ctx, k.base.Path)
		if k.mend != nil && fault.Is(err, fault.NotExist) {
			return version{path: k.base.Path}, false, nil
		}
		if fault.Is(err, fault.NotExist) {
			return v, false, missing(k.base.Path, w.m.mp.Month)
		}
		if err != nil {
			return v, false, err
		}
		want := k.base.SHA256
		if k.mend != nil {
			want = "" // nothing is taken on trust
		}
		v, err = w.decode(data, attrs, k.point.ID, want)
		if k.mend != nil && err != nil && unreadable(err) {
			v, err = w.setAside(ctx, v)
			return v, false, err
		}
		if errors.Is(err, errForeign) {
			return v, false, fault.Hint(fault.Errorf(fault.Corrupt, "%s: the manifest says that this is the month file of point %d: %w", k.base.Path, k.point.ID, err), "%s", remedy(w.m.mp.Month))
		}
		return v, v.hash != k.base.SHA256, err
	}
	// No file is known. The first choice of a path is tried without looking:
	// the write is conditional on nothing being there.
	for path := range w.m.namer.Paths(k.point) {
		return version{path: path}, false, nil
	}
	return v, false, noName(k.point)
}

// elsewhere finds the next of the point's candidate paths that is free or holds
// the point's own file, after one that holds something else.
func (w *writer) elsewhere(ctx context.Context, k *work, taken object.Key) (version, error) {
	if k.base != nil && k.base.Path != "" {
		return version{}, fault.Hint(fault.Errorf(fault.Corrupt, "%s: another file was put over the month file of point %d", taken, k.point.ID), "%s", remedy(w.m.mp.Month))
	}
	passed := false
	for path := range w.m.namer.Paths(k.point) {
		if !passed {
			passed = path == taken
			continue
		}
		w.m.warn("%s is not the month file of point %d %q; it was left alone, and %s is used", taken, k.point.ID, k.point.Name, path)
		v, err := w.read(ctx, path, k.point.ID)
		switch {
		case err == nil:
			return v, nil
		case fault.Is(err, fault.NotExist):
			return version{path: path}, nil
		case !errors.Is(err, errForeign):
			return v, err
		}
		taken = path
	}
	return version{}, noName(k.point)
}

func noName(p sample.Point) error {
	return fault.Hint(fault.Errorf(fault.Invalid, "no free name for the month file of point %d %q: other files have them all", p.ID, p.Name),
		"`etl verify` lists the files that no manifest names; move them away")
}

// errForeign marks an object that is no month file of the point and month.
var errForeign = errors.New("it is another file")

// read gets and decodes the version that is stored now under path.
func (w *writer) read(ctx context.Context, path object.Key, point int32) (version, error) {
	data, attrs, err := w.m.env.Store.Get(ctx, path)
	if err != nil {
		return version{}, err
	}
	return w.decode(data, attrs, point, "")
}

// decode checks an object and decodes its rows into w.old. With the hash that
// the manifest gives, equal bytes need no further proof.
func (w *writer) decode(data []byte, attrs object.Attrs, point int32, want string) (version, error) {
	sum := sha256.Sum256(data)
	v := version{path: attrs.Key, etag: attrs.ETag, data: data, hash: hex.EncodeToString(sum[:])}
	decode := w.dec.Decode
	if v.hash == want {
		decode = w.dec.DecodeTrusted
	}
	info, err := decode(data, &w.old)
	switch {
	case errors.Is(err, monthfile.ErrForeign):
		return v, fmt.Errorf("%s: %w: %w", attrs.Key, errForeign, err)
	case err != nil:
		return v, fault.Hint(fmt.Errorf("%s: %w", attrs.Key, err), "%s", remedy(w.m.mp.Month))
	case info.PointID != point || info.Month != w.m.mp.Month:
		return v, fmt.Errorf("%s: %w: it holds point %d, %s", attrs.Key, errForeign, info.PointID, info.Month)
	}
	v.info = &info
	return v, nil
}

func missing(path object.Key, m utc.Month) error {
	return fault.Hint(fault.Errorf(fault.Corrupt, "%s: the manifest names this file, but it is not there", path), "%s", remedyMissing(m))
}

// extractAgain reads the days of k once more, after the version that they are
// merged into.
func (w *writer) extractAgain(ctx context.Context, k *work) error {
	k.fresh.Reset()
	k.rejects = k.rejects[:0]
	for _, days := range k.days.Runs(w.m.mp.Month) {
		stats, err := w.m.env.Source.Read(ctx, source.Query{Points: []int32{k.point.ID}, Days: days}, func(b *sample.Batch) error {
			k.fresh.AppendRange(&b.Series, 0, b.Len())
			k.rejects = append(k.rejects, b.Rejects...)
			return nil
		})
		if err != nil {
			return fmt.Errorf("extract again: %w", err)
		}
		w.m.addRead(stats.Rows)
	}
	return w.m.putRejects(ctx, k)
}

// days is the day array of the file to be written: what is archived according
// to the stored version, the manifest and this run, counted from the rows.
func (w *writer) days(k *work, base version) sample.DayCounts {
	m := w.m.mp.Month
	days := sample.NewDayCounts(m)
	known := k.days &^ k.lost(m)
	if base.info != nil {
		known |= base.info.Days.Archived()
	}
	if k.base != nil {
		old := k.base.Days.Archived()
		if k.mend != nil {
			old &^= k.mend.lost
		}
		known |= old
	}
	for i := range days {
		if known.Has(i) {
			days[i] = 0
		}
	}
	sample.CountDays(days, m, w.merged.TS)
	return days
}

// sampledDays are the days of m on which k has a fresh sample.
func (k *work) sampledDays(m utc.Month) utc.Set {
	counts := sample.NewDayCounts(m)
	sample.CountDays(counts, m, k.fresh.TS)
	return counts.Archived()
}

// lost are the days of k of which nothing can be said: their rows have left the
// source, and it has no others.
func (k *work) lost(m utc.Month) utc.Set {
	if k.trimmed == 0 {
		return 0
	}
	return k.trimmed &^ k.sampledDays(m)
}

// emptyDays are the days of k that were read to their end and are empty.
func emptyDays(m utc.Month, k *work) utc.Set {
	return k.days &^ k.sampledDays(m) &^ k.trimmed
}

// rejectedDays are the days of m that one of the rejects lies in.
func rejectedDays(m utc.Month, rejects []sample.Reject) utc.Set {
	var s utc.Set
	for _, r := range rejects {
		if d, ok := r.Day(); ok && m.Days().Contains(d) {
			s = s.With(int(d - m.First()))
		}
	}
	return s
}

// putRejects stores the rows of k that no sample can hold, before anything of
// the slice is committed.
func (m *monthRun) putRejects(ctx context.Context, k *work) error {
	if len(k.rejects) == 0 {
		return nil
	}
	key, err := manifests.PutRejects(ctx, m.env.Store, m.mp.Month.String(), k.rejects)
	if err != nil {
		return err
	}
	m.send1(Rejected{Month: m.mp.Month.String(), Point: k.point.Name, Rows: len(k.rejects), Reason: k.rejects[0].Reason, Key: key})
	return nil
}

// entry is the manifest entry of a stored month file.
func entry(path object.Key, data []byte, etag string, info monthfile.Info) (*manifests.Entry, error) {
	e, err := manifests.NewEntry(path, data, etag, facts(info))
	return &e, err
}

func facts(i monthfile.Info) manifests.Facts {
	return manifests.Facts{
		Point: i.PointID, Name: i.PointName, Month: i.Month, Days: i.Days,
		RowsSHA256: i.RowsSHA256, Samples: i.Samples, First: i.First, Last: i.Last,
	}
}

// objectMeta is the object metadata that the source document asks for; the
// footer carries the same facts for stores that have none.
func objectMeta(i monthfile.Info) map[string]string {
	meta := map[string]string{
		"pointId":     strconv.Itoa(int(i.PointID)),
		"pointName":   i.PointName,
		"sampleCount": strconv.FormatInt(i.Samples, 10),
	}
	if i.Samples > 0 {
		meta["startTimestamp"] = strconv.FormatInt(i.First, 10)
		meta["endTimestamp"] = strconv.FormatInt(i.Last, 10)
	}
	return meta
}

// remedyMissing tells how to mend a month of which a file is gone.
func remedyMissing(m utc.Month) string {
	return fmt.Sprintf("`etl repair --month %s --dry-run` shows what of it can be mended and from where; --replica URL lets it fetch from a copy", m)
}

// remedy tells how to mend a month whose manifest and files disagree.
func remedy(m utc.Month) string {
	return remedyMissing(m) + "; the damaged file is kept in _quarantine/"
}
