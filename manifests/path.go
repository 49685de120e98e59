package manifests

import (
	"fmt"
	"iter"
	"strconv"

	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
)

// maxSlug bounds a slug in bytes: with suffix and extension a file name stays
// below the 255 bytes that file systems allow.
const maxSlug = 150

// Slug is the name of a point as a file name: lower case, each code point
// outside a–z and 0–9 one "-", at most 150 bytes. Only ASCII letters have a
// lower case here. A byte that is not UTF-8 counts as one code point. It is ""
// for an empty name alone.
func Slug(name string) string {
	b := make([]byte, 0, min(len(name), maxSlug))
	for _, r := range name {
		if len(b) == maxSlug {
			break
		}
		switch {
		case r >= 'A' && r <= 'Z':
			r += 'a' - 'A'
		case (r < 'a' || r > 'z') && (r < '0' || r > '9'):
			r = '-'
		}
		b = append(b, byte(r))
	}
	return string(b)
}

// slugOf is the slug that a point begins with: its name's, or point-<id> for an empty name.
func slugOf(id int32, name string) string {
	if s := Slug(name); s != "" {
		return s
	}
	return orphanName(id)
}

// orphanName is the name of a point that only timeseries knows.
func orphanName(id int32) string { return "point-" + strconv.Itoa(int(id)) }

// Namer chooses the paths of month files of one month. It is made from the whole
// points table and the month's manifest, not from the points of one run, so
// that runs over different points choose alike. It never changes and is safe
// for concurrent use.
type Namer struct {
	dir   string
	man   *Manifest
	lead  map[string]int32        // slug → lowest id in the table that has it
	taken map[object.Key]struct{} // the files that the manifest names
}

// NewNamer prepares the choice from the whole points table (in any order) and
// the month's manifest, adopted entries included.
func NewNamer(month utc.Month, table []sample.Point, m *Manifest) *Namer {
	n := &Namer{dir: DirOf(month), man: m, lead: make(map[string]int32, len(table)), taken: make(map[object.Key]struct{}, len(m.Points))}
	for _, p := range table {
		s := slugOf(p.ID, p.Name)
		if id, ok := n.lead[s]; !ok || p.ID < id {
			n.lead[s] = p.ID
		}
	}
	for i := range m.Points {
		n.taken[m.Points[i].Path] = struct{}{}
	}
	return n
}

// maxPaths bounds the candidates of one point: each after the first was refused
// because something foreign lies there, which no sane store has often.
const maxPaths = 32

// Paths yields the paths that the point's month file may have, best first. The
// caller takes the first that holds no object, or one whose footer names this
// point and month; it goes on only past a foreign object.
//
// A point that has a file in the manifest keeps it: that path comes alone, also
// after a rename. Else the plain slug comes first if no other point's file is
// there and no point of the table with a lower id has the same slug; then
// <slug>-p<id>, <slug>-p<id>-2, -3 and so on, without those that are a file of
// the manifest or the plain slug of any point of the table.
//
// INVARIANT: no two points of one table are ever given one path.
func (n *Namer) Paths(p sample.Point) iter.Seq[object.Key] {
	return func(yield func(object.Key) bool) {
		if e := n.man.Entry(p.ID); e != nil && e.Path != "" {
			yield(e.Path)
			return
		}
		slug := slugOf(p.ID, p.Name)
		left := maxPaths
		try := func(s string) bool {
			key := object.Key(n.dir + s + ".parquet")
			if _, taken := n.taken[key]; taken {
				return true
			}
			left--
			return yield(key) && left > 0
		}
		if n.lead[slug] == p.ID && !try(slug) {
			return
		}
		// The suffix tells its id from the right, so those of two points never
		// meet, whatever their names; only plain slugs can look like one.
		suffixed := fmt.Sprintf("%s-p%d", slug, p.ID)
		for i := 1; ; i++ {
			s := suffixed
			if i > 1 {
				s = fmt.Sprintf("%s-%d", suffixed, i)
			}
			if _, plain := n.lead[s]; !plain && !try(s) {
				return
			}
		}
	}
}
