package lake

import (
	"cmp"
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/duckdb/duckdb-go/v2"
	"golang.org/x/sync/errgroup"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

// member is a point in a group.
type member struct {
	name  string
	point int32
}

// news is what the tiers say of themselves: the manifests as they are listed,
// the points and groups of the source.
type news struct {
	catalog *Catalog
	points  []sample.Point
	rejects int // rows of the source that belong to no point
	groups  []member
}

// ask hears the news: one LIST of the manifests, and the points and groups of
// the source. It changes nothing of the session, so it may run beside the rest.
// listed, which may be nil, is told the listing before the rest is there.
func (l *Lake) ask(ctx context.Context, listed func(*Catalog)) (*news, error) {
	n := &news{catalog: &Catalog{}}
	g, gctx := errgroup.WithContext(ctx)
	if l.o.Store != nil {
		g.Go(func() error {
			c, err := l.pins.list(gctx, l.o.Store, l.o.StoreName)
			if err != nil {
				return err
			}
			if listed != nil {
				listed(c)
			}
			n.catalog = c
			return c.loadPoints(gctx)
		})
	}
	if l.o.Source != nil {
		g.Go(func() error {
			list := l.o.Source.Points
			if s, ok := l.o.Source.(source.Lister); ok {
				list = s.List
			}
			points, rejects, err := list(gctx)
			if err != nil {
				return err
			}
			n.points, n.rejects = points, len(rejects)
			if s, ok := l.o.Source.(source.Grouper); ok {
				return s.Groups(gctx, func(name string, point int32) { n.groups = append(n.groups, member{name, point}) })
			}
			return nil
		})
	}
	return n, g.Wait()
}

// knows reports whether the news say nothing new.
func (k *learnt) knows(n *news) bool {
	return k.catalog != nil && sameCatalog(k.catalog, n.catalog) && samePoints(k.heard, n.points) && slices.Equal(k.groups, n.groups)
}

// warn says, once a session, that there are rows which are in no answer.
func (l *Lake) warn(n *news) {
	if n.rejects > 0 && !l.warned {
		l.warned = true
		l.notify(Warning{fmt.Sprintf("%d rows of the hot tier belong to no point and are not in any answer; `etl archive` records them, `etl rejects` lists them", n.rejects)})
	}
}

// learn brings points, groups and catalog up to date and reports whether any of
// them has changed.
func (l *Lake) learn(ctx context.Context, n *news) (changed bool, err error) {
	if !l.strangers && l.knows(n) {
		return false, nil
	}
	points := unite(n.catalog.Points, n.points)
	renamed := !samePoints(l.points, points)
	if renamed {
		if n.catalog.PointsErr != nil {
			l.notify(Warning{n.catalog.PointsErr.Error()})
		}
		l.points = nil // until all of it is there
		if err := l.loadPoints(ctx, points); err != nil {
			return true, err
		}
		if err := l.forget(ctx); err != nil { // it has the names
			return true, err
		}
	}
	if !slices.Equal(l.groups, n.groups) {
		l.groups = nil
		rows := make([][]driver.Value, len(n.groups))
		for i, m := range n.groups {
			rows[i] = []driver.Value{m.name, m.point}
		}
		if err := l.replace(ctx, "groups", rows); err != nil {
			return true, err
		}
		l.groups = n.groups
	}
	if l.strangers || len(n.catalog.Points) == 0 {
		l.catalog = nil
		if err := l.loadStrangers(ctx, n.catalog); err != nil {
			return true, err
		}
	}
	l.catalog, l.points, l.heard, l.strangers = n.catalog, points, n.points, false
	return true, nil
}

// refresh asks and learns.
func (l *Lake) refresh(ctx context.Context) (changed bool, err error) {
	n, err := l.ask(ctx, nil)
	if err != nil {
		return false, err
	}
	return l.learn(ctx, n)
}

// sameCatalog reports whether two catalogs say the same. A listing does not tell
// all: what was read after it may be newer. A month that is newer than it was
// listed is listed otherwise the next time.
func sameCatalog(a, b *Catalog) bool {
	return a.Version == b.Version && samePoints(a.Points, b.Points)
}

// samePoints compares what reflect.DeepEqual takes 10 ms for with 4,500 points.
func samePoints(a, b []sample.Point) bool {
	if len(a) != len(b) || len(a) > 0 && &a[0] == &b[0] {
		return len(a) == len(b)
	}
	return slices.EqualFunc(a, b, samePoint)
}

func samePoint(a, b sample.Point) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Orphan == b.Orphan &&
		same(a.Site, b.Site) && same(a.System, b.System) && same(a.Equipment, b.Equipment) && same(a.Unit, b.Unit) &&
		same(a.IntervalMS, b.IntervalMS) && same(a.MinValue, b.MinValue) && same(a.MaxValue, b.MaxValue) &&
		same(a.CreatedAt, b.CreatedAt) && same(a.RetiredAt, b.RetiredAt)
}

func same[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// unite is the points of the catalog and those of the source, both ascending by
// id, as is the result; the source's description wins, unless it knows nothing
// but the id.
func unite(cold, hot []sample.Point) []sample.Point {
	all := make([]sample.Point, 0, max(len(cold), len(hot)))
	for len(cold) > 0 || len(hot) > 0 {
		if len(hot) == 0 || len(cold) > 0 && cold[0].ID < hot[0].ID {
			all, cold = append(all, cold[0]), cold[1:]
			continue
		}
		p := hot[0]
		hot = hot[1:]
		p.Orphan = p.Orphan || p.Name == ""
		if len(cold) > 0 && cold[0].ID == p.ID {
			if p.Orphan && cold[0].Name != "" {
				p = cold[0]
			}
			cold = cold[1:]
		}
		p.Orphan = false
		if p.Name == "" {
			p.Name = source.OrphanName(p.ID)
		}
		all = append(all, p)
	}
	return all
}

func (l *Lake) loadPoints(ctx context.Context, points []sample.Point) error {
	rows := make([][]driver.Value, len(points))
	for i, p := range points {
		rows[i] = []driver.Value{p.ID, p.Name, p.ID, p.Name, value(p.Site), value(p.System), value(p.Equipment), value(p.Unit),
			value(p.IntervalMS), value(p.MinValue), value(p.MaxValue), value(p.CreatedAt), value(p.RetiredAt)}
	}
	return l.replace(ctx, "points", rows)
}

func value[T any](p *T) driver.Value {
	if p == nil {
		return nil
	}
	return *p
}

// forget empties lake.catalog.
func (l *Lake) forget(ctx context.Context) error {
	l.loaded = map[utc.Month]string{}
	return l.exec(ctx, "TRUNCATE lake.catalog")
}

// strange selects from the rows of months whose points are not in lake.points.
func strange(months []CatalogMonth) string {
	return " FROM read_parquet(" + list(paths(months)) + ") m WHERE NOT EXISTS (SELECT 1 FROM lake.points p WHERE p.point_id = m.point_id)"
}

func paths(months []CatalogMonth) []string {
	paths := make([]string, len(months))
	for i, m := range months {
		paths[i] = m.Path
	}
	return paths
}

// loadStrangers adds the points that manifests alone know to lake.points: a
// points.json that is lost or damaged takes no archived point away, and one that
// lacks a point takes no sample of it away.
func (l *Lake) loadStrangers(ctx context.Context, c *Catalog) error {
	months, err := c.Load(ctx, math.MinInt64, math.MaxInt64)
	if err != nil || len(months) == 0 {
		return err
	}
	err = l.exec(ctx, "INSERT INTO lake.points (point_id, point_name, id, name) SELECT point_id, arg_max(name, month) AS n, point_id, n"+strange(months)+" GROUP BY point_id")
	if err != nil {
		return fmt.Errorf("load the catalog of the cold tier: %w", err)
	}
	return nil
}

// loadMonths brings those months of the catalog into lake.catalog that may have
// a sample from..to, Unix milliseconds, both inclusive, and returns them. It is
// errStale if one of them has a point that is in lake.points only once the next
// news are learnt.
func (l *Lake) loadMonths(ctx context.Context, from, to int64) ([]CatalogMonth, error) {
	months, err := l.catalog.load(ctx, from, to)
	if err != nil {
		return nil, err
	}
	now := make(map[utc.Month]string, len(l.catalog.Months))
	for _, m := range l.catalog.Months {
		now[m.Month] = m.ETag
	}
	for m, etag := range l.loaded {
		if now[m] != etag {
			if err := l.forget(ctx); err != nil {
				return nil, err
			}
			break
		}
	}
	var load []CatalogMonth
	for _, m := range months {
		if _, ok := l.loaded[m.Month]; !ok {
			load = append(load, m)
			l.loaded[m.Month] = m.ETag
		}
	}
	if len(load) == 0 {
		return months, nil
	}
	// Fresh ones come from memory, the others from the cache.
	var cached, parsed []CatalogMonth
	for _, m := range load {
		if m.fresh != nil {
			parsed = append(parsed, m)
		} else {
			cached = append(cached, m)
		}
	}
	strangers := int64(0)
	if len(parsed) > 0 {
		strangers, err = l.loadFresh(ctx, parsed)
	}
	if err == nil && strangers == 0 && len(cached) > 0 {
		// There are none as a rule, and ids alone are read fast.
		strangers, err = l.count(ctx, "SELECT count(*)"+strange(cached))
	}
	if err == nil && strangers > 0 {
		l.strangers = true
		return nil, errStale
	}
	if err == nil && len(cached) > 0 {
		err = l.exec(ctx, fillCatalog("m.path <> ''", "read_parquet("+list(paths(cached))+")"))
	}
	if err != nil {
		return nil, fmt.Errorf("load the catalog of the cold tier: %w", err)
	}
	return months, nil
}

// fillCatalog adds rows of catalog months to lake.catalog, but those of strangers.
func fillCatalog(file, from string) string {
	return "INSERT INTO lake.catalog SELECT m.month, m.point_id, p.point_name, " + file + `, m.bytes, m.samples, m.last, m.archived, m.t_min, m.t_max
		FROM ` + from + " m JOIN lake.points p ON m.point_id = p.point_id"
}

// loadFresh fills lake.catalog from manifests in memory, and says how many of
// their points are not in lake.points.
func (l *Lake) loadFresh(ctx context.Context, months []CatalogMonth) (strangers int64, err error) {
	rec := freshRecord(months)
	defer rec.Release()
	n, err := l.insertFrom(ctx, rec, fillCatalog("m.file", "lake_in"))
	return rec.NumRows() - n, err
}

// replace fills a table of the schema lake anew.
func (l *Lake) replace(ctx context.Context, table string, rows [][]driver.Value) error {
	if err := l.exec(ctx, "TRUNCATE lake."+table); err != nil {
		return err
	}
	return l.append(table, rows)
}

// append adds rows to a table of the schema lake.
func (l *Lake) append(table string, rows [][]driver.Value) error {
	if len(rows) == 0 {
		return nil
	}
	if _, ok := scratch[table]; ok {
		l.use("lake." + table)
	}
	return l.conn.Raw(func(c any) error {
		a, err := duckdb.NewAppender(c.(driver.Conn), "", "lake", table)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := a.AppendRow(r...); err != nil {
				a.Close()
				return err
			}
		}
		return a.Close()
	})
}

// insert adds the samples of a batch to lake.hot, as Arrow.
func (l *Lake) insert(ctx context.Context, b *sample.Batch) error {
	l.use("lake.hot")
	_, err := l.insertFrom(ctx, b.Record(), "INSERT INTO lake.hot SELECT point_id, make_timestamp(epoch_us(timestamp)), value, quality, flags FROM lake_in")
	return err
}

// insertFrom runs a statement that inserts from lake_in, which is the record, and
// returns how many rows it inserted.
func (l *Lake) insertFrom(ctx context.Context, rec arrow.RecordBatch, text string) (n int64, err error) {
	reader, err := array.NewRecordReader(rec.Schema(), []arrow.RecordBatch{rec})
	if err != nil {
		return 0, err
	}
	defer reader.Release()
	err = l.conn.Raw(func(c any) error {
		a, err := duckdb.NewArrowFromConn(c.(driver.Conn))
		if err != nil {
			return err
		}
		release, err := a.RegisterView(reader, "lake_in")
		if err != nil {
			return err
		}
		defer release()
		// The view must be gone before its memory is: scanning it then would end the process.
		conn := c.(driver.ExecerContext)
		r, err := conn.ExecContext(ctx, text, nil)
		if err == nil {
			n, err = r.RowsAffected()
		}
		_, dropped := conn.ExecContext(context.WithoutCancel(ctx), "DROP VIEW lake_in", nil)
		return cmp.Or(err, dropped)
	})
	return n, err
}

// arrow runs a statement of ours and calls f with its records, which are valid
// until f returns.
func (l *Lake) arrow(ctx context.Context, text string, f func(arrow.RecordBatch) error) error {
	return l.conn.Raw(func(c any) error {
		a, err := duckdb.NewArrowFromConn(c.(driver.Conn))
		if err != nil {
			return err
		}
		r, err := a.QueryContext(ctx, text)
		if err != nil {
			return err
		}
		defer r.Release()
		for r.Next() {
			if err := f(r.RecordBatch()); err != nil {
				return err
			}
		}
		if err := r.Err(); err != nil && err != io.EOF {
			return err
		}
		return nil
	})
}

// ints is a column of 32-bit integers, which has no NULL.
func ints(rec arrow.RecordBatch, i int) []int32 {
	switch c := rec.Column(i).(type) {
	case *array.Int32:
		return c.Int32Values()
	}
	panic(fmt.Sprintf("lake: column %d is %s", i, rec.Column(i).DataType()))
}

// unreadable is the error of the first month that a query touches and whose
// manifest can not be read.
func (l *Lake) unreadable(ctx context.Context, where string) error {
	for _, m := range slices.Sorted(maps.Keys(l.catalog.Bad)) {
		days := m.Days()
		n, err := l.count(ctx, fmt.Sprintf(`SELECT count(*) FROM (SELECT point_id, point_name, make_timestamp(%d) AS t_min, make_timestamp(%d) AS t_max
			FROM (SELECT point_id, point_name FROM lake.points UNION ALL SELECT NULL, NULL)) regions WHERE %s`,
			days.From.Start()*1000, days.To.Start()*1000-1000, where))
		if err != nil {
			return err
		}
		if n > 0 {
			bad := l.catalog.Bad[m]
			return fault.Hint(fmt.Errorf("the query touches %s: %w", m, bad), "%s",
				cmp.Or(fault.HintOf(bad), "see `etl verify`")+"; a query that leaves the month out (ts < …) is answered")
		}
	}
	return nil
}

func (l *Lake) count(ctx context.Context, text string) (n int64, err error) {
	return n, l.conn.QueryRowContext(ctx, text).Scan(&n)
}
