package lake

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
	"etl/manifests"
)

// The memo is the news that the last session with a cache and a store heard. A new
// session, as each run of the command is, begins by it: it plans, brings and
// answers ahead like one that knows a catalog.
//
// INVARIANT: the memo only says what to do while the news are heard. Whether it is
// right, the news decide, and nothing that it says is in an answer without them.
// So one that is stale, of another source or made up costs time and nothing else.
//
// It is a file of the catalog: its name has its length and its CRC.
type memo struct {
	Months  []memoMonth `json:"months"`
	Points  string      `json:"points"` // the ETag of points.json
	Groups  []memoGroup `json:"groups"`
	Orphans []int32     `json:"orphans"` // of the points of the source, which follow on the next line
}

type memoMonth struct {
	Month utc.Month `json:"month"`
	ETag  string    `json:"etag"`
}

type memoGroup struct {
	Name  string `json:"name"`
	Point int32  `json:"point"`
}

const memoKey object.Key = "memo"

// recall lets a session that knows nothing yet begin by the memo, if there is one.
func (l *Lake) recall(ctx context.Context) {
	if l.recalled || l.catalog != nil || l.o.Store == nil {
		return
	}
	l.recalled = true
	n := l.readMemo()
	if n == nil {
		return
	}
	if _, err := l.learn(ctx, n); err != nil { // as if there had been none
		l.learnt = learnt{loaded: map[utc.Month]string{}}
		_ = l.exec(ctx, "TRUNCATE lake.groups")
		return
	}
	k := l.learnt
	l.noted = &k
}

// readMemo is the news of the memo, nil if there is none of which all is at hand.
func (l *Lake) readMemo() *news {
	p := l.pins
	n, data, err := p.catalogFile(catalogID(l.o.StoreName, memoKey, ""), p.cache.catalogNames)
	if err != nil || n == nil {
		return nil
	}
	if data == nil {
		if data, err = os.ReadFile(n.path); err != nil {
			return nil
		}
	}
	head, points, ok := bytes.Cut(data, []byte("\n"))
	var m memo
	if !ok || json.Unmarshal(head, &m) != nil {
		return nil
	}
	c := &Catalog{pins: p, store: l.o.Store, name: l.o.StoreName, pointsETag: m.Points}
	for _, e := range m.Months {
		c.Months = append(c.Months, CatalogMonth{Month: e.Month, ETag: e.ETag})
	}
	if !slices.IsSortedFunc(c.Months, func(a, b CatalogMonth) int { return int(a.Month) - int(b.Month) }) {
		return nil
	}
	c.Version = c.version()
	// What is not in the cache is not worth a request: the news bring it.
	id := catalogID(c.name, manifests.PointsKey, c.pointsETag)
	if n, _, err := p.catalogFile(id, p.cache.catalogNames); err != nil || n == nil {
		return nil
	}
	if c.loadPoints(context.Background()) != nil || len(c.Points) == 0 {
		return nil
	}
	heard, err := manifests.DecodePoints(points)
	if err != nil {
		return nil
	}
	out := &news{catalog: c}
	if l.o.Source != nil {
		out.points = heard.Points
		for _, id := range m.Orphans {
			if i, ok := slices.BinarySearchFunc(out.points, id, func(p sample.Point, id int32) int { return int(int64(p.ID) - int64(id)) }); ok {
				out.points[i].Orphan = true
			}
		}
		for _, g := range m.Groups {
			out.groups = append(out.groups, member{g.Name, g.Point})
		}
	}
	return out
}

// note returns what writes the memo, if there is anything new to write.
func (l *Lake) note() func() error {
	k := l.learnt
	if k.catalog == nil || l.o.Store == nil || k.catalog.pointsETag == "" ||
		l.noted != nil && l.noted.knows(&news{catalog: k.catalog, points: k.heard, groups: k.groups}) {
		return func() error { return nil }
	}
	l.noted = &k
	m := memo{Points: k.catalog.pointsETag}
	for _, c := range k.catalog.Months {
		m.Months = append(m.Months, memoMonth{c.Month, c.ETag})
	}
	for _, g := range k.groups {
		m.Groups = append(m.Groups, memoGroup{g.name, g.point})
	}
	return func() error {
		for _, p := range k.heard {
			if p.Orphan {
				m.Orphans = append(m.Orphans, p.ID)
			}
		}
		points, err := manifests.EncodePoints(&manifests.Catalog{Points: k.heard})
		if err != nil {
			return nil // a limit that JSON has no number for: there is no memo then
		}
		head, err := json.Marshal(m)
		if err != nil {
			return err
		}
		return l.pins.keepMemo(catalogID(l.o.StoreName, memoKey, ""), slices.Concat(head, []byte("\n"), points))
	}
}

// keepMemo writes the memo in place of older ones.
func (p *Pins) keepMemo(id string, data []byte) error {
	p.settling.Lock()
	defer p.settling.Unlock()
	names, err := p.cache.catalogNames()
	if err != nil {
		return p.cache.fail("read", err)
	}
	now := catalogName(id, pointsExt, data)
	if slices.Contains(names[id], now) && len(names[id]) == 1 {
		return nil
	}
	if _, err := p.keepCatalog(id, pointsExt, data); err != nil {
		return p.cache.fail("write to", err)
	}
	for _, name := range names[id] {
		if name != now {
			if err := remove(filepath.Join(p.cache.dir, catalogDir, name)); err != nil {
				return p.cache.fail("write to", err)
			}
		}
	}
	return nil
}
