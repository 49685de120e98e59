package manifests

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/sample"
)

// PointsKey is where the catalog of points lies; PointsFormat and PointsVersion open it.
const (
	PointsKey     object.Key = prefix + "points.json"
	PointsFormat             = "etl-points"
	PointsVersion            = 1
)

// Catalog is the points ever seen: a union that never shrinks, and the source
// that the cold tier belongs to.
type Catalog struct {
	Format   string         `json:"format"`
	Version  int            `json:"version"`
	SourceID string         `json:"source_id"` // "" until a source that has an id is registered
	Points   []sample.Point `json:"points"`    // ascending by id
	// Checksum is as in a Manifest.
	Checksum string `json:"checksum,omitempty"`
}

// LoadPoints reads and checks the catalog. If there is none, it is empty and
// the version "", not an error. Errors are as at Load.
func LoadPoints(ctx context.Context, store object.Store) (*Catalog, Version, error) {
	data, attrs, err := store.Get(ctx, PointsKey)
	switch {
	case fault.Is(err, fault.NotExist):
		return &Catalog{Format: PointsFormat, Version: PointsVersion, Points: []sample.Point{}}, "", nil
	case err != nil:
		return nil, "", fmt.Errorf("load the catalog of points: %w", err)
	}
	c, err := DecodePoints(data)
	if err != nil {
		return nil, "", err
	}
	return c, Version(attrs.ETag), nil
}

// DecodePoints parses and checks a catalog; unknown fields are ignored. Errors
// are as at Load.
func DecodePoints(data []byte) (*Catalog, error) {
	corrupt := func(format string, a ...any) error {
		return fault.Hint(fault.Errorf(fault.Corrupt, "%s: %w", PointsKey, fmt.Errorf(format, a...)),
			"`etl repair --dry-run` shows how it would be written anew, from the manifests and the source")
	}
	c, ok := scanPoints(data)
	if !ok {
		c = &Catalog{}
		if err := json.Unmarshal(data, c); err != nil {
			var head struct {
				Format  string
				Version int
			}
			if _ = json.Unmarshal(data, &head); head.Format != PointsFormat || head.Version <= PointsVersion {
				return nil, corrupt("%w", short(err))
			}
			c.Format, c.Version = head.Format, head.Version
		}
	}
	switch {
	case c.Format != PointsFormat:
		return nil, corrupt("format is %.40q, not %q", c.Format, PointsFormat)
	case c.Version > PointsVersion:
		return nil, refuse(PointsKey, c.Version, PointsVersion)
	case c.Version != PointsVersion:
		return nil, corrupt("there is no version %d", c.Version)
	case c.Points == nil:
		return nil, corrupt("it has no list of points")
	}
	for i := range c.Points {
		if i > 0 && c.Points[i].ID <= c.Points[i-1].ID {
			return nil, corrupt("point %d follows point %d: want ascending ids, none twice", c.Points[i].ID, c.Points[i-1].ID)
		}
	}
	own := func() []byte {
		b, _ := pointsBody(c) // what JSON said, JSON can say
		return b
	}
	if !summed(data, c.Checksum, own) {
		return nil, corrupt("its checksum is not that of what it says")
	}
	c.Checksum = ""
	return c, nil
}

// EncodePoints writes a catalog: the same one always as the same bytes, one
// point a line. Its numbers must be finite.
func EncodePoints(c *Catalog) ([]byte, error) {
	b, err := pointsBody(c)
	if err != nil {
		return nil, err
	}
	return seal(b), nil
}

// pointsBody is a catalog as far as its checksum reaches.
func pointsBody(c *Catalog) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n\"format\":%q,\n\"version\":%d,\n\"source_id\":", PointsFormat, PointsVersion)
	b.Write(sample.AppendJSONString(nil, c.SourceID))
	b.WriteString(",\n\"points\":[")
	for i := range c.Points {
		if i > 0 {
			b.WriteByte(',')
		}
		line, err := pointLine(&c.Points[i])
		if err != nil {
			return nil, err
		}
		b.WriteByte('\n')
		b.Write(line)
	}
	b.WriteString("\n]")
	return b.Bytes(), nil
}

func pointLine(p *sample.Point) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(p); err != nil {
		return nil, fmt.Errorf("encode point %d: %w", p.ID, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// storable is the point as the catalog can hold it. An infinite limit is no
// limit, and JSON has none.
func storable(p sample.Point) sample.Point {
	p.Name = Clean(p.Name)
	for _, s := range []**string{&p.Site, &p.System, &p.Equipment, &p.Unit} {
		if *s != nil {
			*s = new(Clean(**s))
		}
	}
	for _, f := range []**float64{&p.MinValue, &p.MaxValue} {
		if *f != nil && (math.IsInf(**f, 0) || math.IsNaN(**f)) {
			*f = nil
		}
	}
	p.Orphan = false
	return p
}

// Accepts returns an Invalid error if the cold tier belongs to another source
// than the one with this id, unless adopt is set.
func (c *Catalog) Accepts(sourceID string, adopt bool) error {
	if c.SourceID == "" || c.SourceID == Clean(sourceID) || adopt {
		return nil
	}
	return fault.Hint(fault.Errorf(fault.Invalid, "this cold tier belongs to source %s, this source is %s", c.SourceID, cmp.Or(Clean(sourceID), "one without an id")),
		"if this source continues that one, run once more with --adopt")
}

// Register brings the source's points into the catalog, by compare-and-swap,
// and returns it. It writes only if a point is new or described otherwise: the
// source's description wins, but what is known of a point never yields to an
// orphan, and a point that the source has dropped stays.
//
// A cold tier that belongs to another source is refused with Invalid, unless
// adopt is set, which makes it this source's. One without a source id takes the
// first it is given. Other errors are as at Commit.
func Register(ctx context.Context, store object.Store, sourceID string, points []sample.Point, adopt bool) (*Catalog, error) {
	const attempts = 10
	var last error
	for n := range attempts {
		if n > 0 {
			if err := pause(ctx, n); err != nil {
				return nil, err
			}
		}
		old, version, err := LoadPoints(ctx, store)
		if err != nil {
			return nil, err
		}
		id := Clean(sourceID)
		if err := old.Accepts(id, adopt); err != nil {
			return nil, err
		}
		next, changed, err := union(old.Points, points)
		if err != nil {
			return nil, err
		}
		if !changed && old.SourceID == id {
			return old, nil
		}
		c := &Catalog{Format: PointsFormat, Version: PointsVersion, SourceID: id, Points: next}
		data, err := EncodePoints(c)
		if err != nil {
			return nil, err
		}
		// What a lost reply wrote is found by the next attempt, which then has nothing to change.
		_, err = store.Put(ctx, PointsKey, data, object.PutOptions{IfMatch: string(version), IfAbsent: version == "", Type: "application/json"})
		if err == nil {
			return c, nil
		}
		last = fmt.Errorf("write the catalog of points: %w", err)
		if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Unknown) {
			return nil, last
		}
	}
	return nil, fault.Errorf(fault.Transient, "%s kept changing, gave up after %d attempts: %w", PointsKey, attempts, last)
}

// union is old with the fresh points in it, ascending by id, and whether they differ.
func union(old, fresh []sample.Point) (points []sample.Point, changed bool, err error) {
	points = slices.Clone(old)
	at := make(map[int32]int, len(points))
	for i, p := range points {
		at[p.ID] = i
	}
	for _, p := range fresh {
		i, known := at[p.ID]
		if known && p.Orphan {
			continue
		}
		p = storable(p)
		if !known {
			at[p.ID] = len(points)
			points, changed = append(points, p), true
			continue
		}
		was, err := pointLine(&points[i])
		if err != nil {
			return nil, false, err
		}
		is, err := pointLine(&p)
		if err != nil {
			return nil, false, err
		}
		if !bytes.Equal(was, is) {
			points[i], changed = p, true
		}
	}
	slices.SortFunc(points, func(a, b sample.Point) int { return cmp.Compare(a.ID, b.ID) })
	return points, changed, nil
}
