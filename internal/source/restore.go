package source

import (
	"maps"
	"slices"
	"strings"

	"etl/internal/fault"
	"etl/internal/sample"
)

// UpsertSample is what an INSERT INTO timeseries (point_id, timestamp, value,
// quality, flags) of Restorer.Restore ends with, after VALUES or WHERE. A row
// that is equal already is not written: that would be billed, and unmark its day.
func UpsertSample(keep bool) string {
	if keep {
		return " ON CONFLICT (point_id, timestamp) DO NOTHING"
	}
	return " ON CONFLICT (point_id, timestamp) DO UPDATE SET value = excluded.value, quality = excluded.quality, flags = excluded.flags" +
		" WHERE timeseries.value IS NOT excluded.value OR timeseries.quality IS NOT excluded.quality OR timeseries.flags IS NOT excluded.flags"
}

// Distinct are points ascending by id, each once; of two alike in id and name the
// later. An id with two names, or a name with two ids, is an Invalid error.
func Distinct(points []sample.Point) ([]sample.Point, error) {
	byID := make(map[int32]sample.Point, len(points))
	byName := make(map[string]int32, len(points))
	for _, p := range points {
		if o, ok := byID[p.ID]; ok && o.Name != p.Name {
			return nil, OtherName(p.ID, p.Name, o.Name)
		}
		if id, ok := byName[p.Name]; ok && id != p.ID {
			return nil, OtherID(p.Name, p.ID, id)
		}
		byID[p.ID], byName[p.Name] = p, p.ID
	}
	return slices.SortedFunc(maps.Values(byID), func(a, b sample.Point) int { return int(int64(a.ID) - int64(b.ID)) }), nil
}

const otherHint = "is this the database, or the archive, that it should be? An id means one series for ever: rename the point in the database, or leave it out"

// OtherName is the error of a point to be restored whose id another one has.
func OtherName(id int32, name, other string) error {
	return fault.Hint(fault.Errorf(fault.Invalid, "the point %d is to be %q, and is %q", id, name, other), otherHint)
}

// OtherID is the error of a point to be restored whose name another one has.
func OtherID(name string, id int32, other any) error {
	return fault.Hint(fault.Errorf(fault.Invalid, "the point %q is to have the id %d, and has %v", name, id, other), otherHint)
}

// PointColumns are the columns of points beside id and name that a table with
// the columns have has, and the values that a point has there.
func PointColumns(have []string) (names []string, values func(sample.Point) []any) {
	var of []func(sample.Point) any
	for _, c := range pointColumns {
		if slices.Contains(have, c.name) {
			names, of = append(names, c.name), append(of, c.of)
		}
	}
	return names, func(p sample.Point) []any {
		vs := make([]any, len(of))
		for i, f := range of {
			vs[i] = f(p)
		}
		return vs
	}
}

var pointColumns = []struct {
	name string
	of   func(sample.Point) any
}{
	{"site", func(p sample.Point) any { return orNil(p.Site) }},
	{"system", func(p sample.Point) any { return orNil(p.System) }},
	{"equipment", func(p sample.Point) any { return orNil(p.Equipment) }},
	{"unit", func(p sample.Point) any { return orNil(p.Unit) }},
	{"interval_ms", func(p sample.Point) any { return orNil(p.IntervalMS) }},
	{"min_value", func(p sample.Point) any { return orNil(p.MinValue) }},
	{"max_value", func(p sample.Point) any { return orNil(p.MaxValue) }},
	{"created_at", func(p sample.Point) any { return orNil(p.CreatedAt) }},
	{"retired_at", func(p sample.Point) any { return orNil(p.RetiredAt) }},
}

// orNil is what p points at, or nil.
func orNil[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

// InsertPoint is the head of the statement that inserts points with these columns
// beside id and name.
func InsertPoint(columns []string) string {
	return "INSERT INTO points (" + strings.Join(append([]string{"id", "name"}, columns...), ", ") + ")"
}
