package sqlite

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"zombiezen.com/go/sqlite"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/sql"
)

// optionalColumns are the columns of points that may be missing, in the order
// in which Points selects them.
var optionalColumns = []string{"site", "system", "equipment", "unit", "interval_ms", "min_value", "max_value", "created_at", "retired_at"}

// inspected returns what inspect finds, which is kept until Migrate
// changes it.
func (s *Source) inspected(c *conn) (*source.Tables, error) {
	s.mu.Lock()
	t := s.tables
	s.mu.Unlock()
	if t != nil {
		return t, nil
	}
	t, err := inspect(c)
	if fault.Is(err, fault.Invalid) {
		err = s.migrateHint(err)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.tables = t
	s.mu.Unlock()
	return t, nil
}

func columnsOf(c *conn, table string) (source.Columns, error) {
	var cols source.Columns
	err := query(c, `SELECT lower(name), upper(type), "notnull", "notnull" AND dflt_value IS NULL AND pk = 0, pk
		FROM pragma_table_info(?)`, func(st *sqlite.Stmt) error {
		cols = append(cols, source.Column{Name: st.ColumnText(0), Type: st.ColumnText(1), NotNull: st.ColumnBool(2),
			Required: st.ColumnBool(3), Key: st.ColumnInt(4)})
		return nil
	}, table)
	return cols, err
}

// inspect returns an Invalid error unless points and timeseries have what
// reading needs.
func inspect(c *conn) (*source.Tables, error) {
	points, err := columnsOf(c, "points")
	if err != nil {
		return nil, err
	}
	series, err := columnsOf(c, "timeseries")
	if err != nil {
		return nil, err
	}
	unique, err := hasUniqueKey(c)
	if err != nil {
		return nil, err
	}
	return source.FitToRead(points, series, unique)
}

func hasUniqueKey(c *conn) (bool, error) {
	found := false
	err := query(c, `SELECT 1 FROM pragma_index_list('timeseries') l WHERE l."unique" AND NOT l.partial
		AND (SELECT group_concat(lower(k.name)) FROM (SELECT name FROM pragma_index_info(l.name) ORDER BY seqno) k) = 'point_id,timestamp'`,
		func(*sqlite.Stmt) error { found = true; return nil })
	return found, err
}

// hasLedger reports whether all that the ledger needs exists, the triggers on
// timeseries included: without them no mark could be trusted.
func hasLedger(c *conn) (bool, error) {
	whole := false
	err := query(c, "SELECT "+sql.LedgerWhole, func(st *sqlite.Stmt) error { whole = st.ColumnBool(0); return nil })
	return whole, err
}

// Info implements source.Source.
func (s *Source) Info(ctx context.Context) (source.Info, error) {
	info := source.Info{Now: s.o.Now()}
	err := s.read(ctx, "identify the source", func(c *conn, _ *source.Tables) (err error) {
		if info.Ledger, err = hasLedger(c); err != nil {
			return err
		}
		cols, err := columnsOf(c, "archive_source")
		if err != nil || len(cols) == 0 {
			return err
		}
		return query(c, "SELECT source_id FROM archive_source LIMIT 1", func(st *sqlite.Stmt) error {
			info.ID = st.ColumnText(0)
			return nil
		})
	})
	return info, err
}

// skipScan lists the ids in timeseries that lie in the range of a 32-bit
// integer by one seek per id.
const skipScan = `WITH RECURSIVE ids(id) AS (
	SELECT (SELECT point_id FROM timeseries WHERE point_id >= -2147483648 ORDER BY point_id LIMIT 1)
	UNION ALL
	SELECT (SELECT point_id FROM timeseries WHERE point_id > ids.id ORDER BY point_id LIMIT 1) FROM ids WHERE ids.id < 2147483647)
SELECT id FROM ids WHERE id <= 2147483647`

// nextID is the first id between two others.
const nextID = "SELECT point_id FROM timeseries WHERE point_id > ? AND point_id < ? ORDER BY point_id LIMIT 1"

// Points implements source.Source. A name that is NULL or no text is given as "".
func (s *Source) Points(ctx context.Context) (all []sample.Point, rejects []sample.Reject, err error) {
	err = s.read(ctx, "list the points", func(c *conn, t *source.Tables) (err error) {
		all, rejects, err = points(c, t, func(_ []sample.Point, f func(*sqlite.Stmt) error) error { return query(c, skipScan, f) })
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return all, rejects, nil
}

// listing is what List found, and the version of the file that it was found in.
type listing struct {
	version int64
	points  []sample.Point
	rejects []sample.Reject
}

// List implements source.Lister. Names are as at Points. As long as nobody has
// written to the file since the connection last listed the points, they are those
// of then: they must not be changed.
func (s *Source) List(ctx context.Context) ([]sample.Point, []sample.Reject, error) {
	var l *listing
	err := s.read(ctx, "list the points", func(c *conn, t *source.Tables) error {
		// INVARIANT: the version is older than what is read after it, or as old.
		var version int64
		if err := query(c, "PRAGMA data_version", func(st *sqlite.Stmt) error { version = st.ColumnInt64(0); return nil }); err != nil {
			return err
		}
		if l = c.listed; l != nil && l.version == version {
			return nil
		}
		points, rejects, err := points(c, t, func(known []sample.Point, f func(*sqlite.Stmt) error) error {
			for _, g := range source.Gaps(known) {
				var after any = g.After
				for after != nil {
					from := after
					after = nil
					if err := query(c, nextID, func(st *sqlite.Stmt) error {
						after = cell(st, 0)
						return f(st)
					}, from, g.Before); err != nil {
						return err
					}
				}
			}
			return nil
		})
		l = &listing{version, points, rejects}
		if err == nil {
			c.listed = l
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return l.points, l.rejects, nil
}

// points is Points with a scan that calls f for each id in timeseries, or for
// those of them that are not known.
func points(c *conn, t *source.Tables, scan func(known []sample.Point, f func(*sqlite.Stmt) error) error) (points []sample.Point, rejects []sample.Reject, err error) {
	if points, err = listPoints(c, t); err != nil {
		return nil, nil, err
	}
	known := points[:len(points):len(points)]
	var odd []float64 // ids that are no integers, between those that are
	if err := scan(known, func(st *sqlite.Stmt) error {
		if st.ColumnType(0) != sqlite.TypeInteger {
			if len(odd) < source.MaxStrays {
				odd = append(odd, st.ColumnFloat(0))
			}
			return nil
		}
		id := int32(st.ColumnInt64(0))
		if _, ok := slices.BinarySearchFunc(known, id, byID); !ok {
			points = append(points, sample.Point{ID: id, Name: source.OrphanName(id), Orphan: true})
		}
		return nil
	}); err != nil {
		return nil, nil, err
	}
	if len(points) > len(known) {
		slices.SortFunc(points, func(a, b sample.Point) int { return byID(a, b.ID) })
	}
	wheres := []string{"point_id < -2147483648", "point_id > 2147483647"}
	if t.NullKey {
		wheres = append(wheres, "point_id IS NULL")
	}
	for _, w := range wheres {
		if rejects, err = appendRejects(c, rejects, source.IDReason, w); err != nil {
			return nil, nil, err
		}
	}
	for _, id := range odd {
		if rejects, err = appendRejects(c, rejects, source.IDReason, "point_id = ?", id); err != nil {
			return nil, nil, err
		}
	}
	return points, rejects, nil
}

func byID(p sample.Point, id int32) int { return int(int64(p.ID) - int64(id)) }

// listPoints reads the points table. A row whose id is no 32-bit integer is
// left out: no sample can be of it, and the rows of timeseries that name it are rejects.
func listPoints(c *conn, t *source.Tables) ([]sample.Point, error) {
	var q strings.Builder
	q.WriteString("SELECT id, name")
	for _, col := range optionalColumns {
		if !slices.Contains(t.Points, col) {
			col = "NULL"
		}
		q.WriteString(", " + col)
	}
	q.WriteString(" FROM points ORDER BY id")
	var points []sample.Point
	err := query(c, q.String(), func(st *sqlite.Stmt) error {
		id := st.ColumnInt64(0)
		if st.ColumnType(0) != sqlite.TypeInteger || id < math.MinInt32 || id > math.MaxInt32 {
			return nil
		}
		if n := len(points); n > 0 && points[n-1].ID == int32(id) {
			return source.IDTwice(int32(id))
		}
		p := sample.Point{ID: int32(id)}
		if st.ColumnType(1) == sqlite.TypeText {
			p.Name = st.ColumnText(1)
		}
		p.Site, p.System, p.Equipment, p.Unit = textOf(st, 2), textOf(st, 3), textOf(st, 4), textOf(st, 5)
		p.IntervalMS, p.MinValue, p.MaxValue, p.CreatedAt, p.RetiredAt = integerOf(st, 6), numberOf(st, 7), numberOf(st, 8), integerOf(st, 9), integerOf(st, 10)
		points = append(points, p)
		return nil
	})
	return points, err
}

// textOf, integerOf and numberOf are a column, or nil if it holds NULL or
// something else. Text may also be a number, as it is written.
func textOf(st *sqlite.Stmt, i int) *string {
	if st.ColumnIsNull(i) {
		return nil
	}
	return new(st.ColumnText(i))
}

func integerOf(st *sqlite.Stmt, i int) *int64 {
	if st.ColumnType(i) != sqlite.TypeInteger {
		return nil
	}
	return new(st.ColumnInt64(i))
}

func numberOf(st *sqlite.Stmt, i int) *float64 {
	if t := st.ColumnType(i); t != sqlite.TypeFloat && t != sqlite.TypeInteger {
		return nil
	}
	return new(st.ColumnFloat(i))
}

// Group implements source.Grouper.
func (s *Source) Group(ctx context.Context, name string) ([]int32, error) {
	var ids []int32
	err := s.read(ctx, fmt.Sprintf("look up the group %q", name), func(c *conn, _ *source.Tables) error {
		cols, err := columnsOf(c, "point_groups")
		if err != nil {
			return err
		}
		if err := cols.Require("point_groups", "name", "point_id"); err != nil {
			return s.migrateHint(err)
		}
		err = query(c, `SELECT point_id FROM point_groups WHERE name = ? AND typeof(point_id) = 'integer'
			AND point_id BETWEEN -2147483648 AND 2147483647 ORDER BY point_id`, func(st *sqlite.Stmt) error {
			ids = append(ids, st.ColumnInt32(0))
			return nil
		}, name)
		if err != nil || len(ids) > 0 {
			return err
		}
		var known []string
		if err := query(c, "SELECT DISTINCT name FROM point_groups ORDER BY name LIMIT 50", func(st *sqlite.Stmt) error {
			known = append(known, st.ColumnText(0))
			return nil
		}); err != nil {
			return err
		}
		return source.NoGroup(known)
	})
	return slices.Compact(ids), err
}

// Groups implements source.Grouper.
func (s *Source) Groups(ctx context.Context, f func(name string, point int32)) error {
	return s.read(ctx, "list the groups", func(c *conn, _ *source.Tables) error {
		cols, err := columnsOf(c, "point_groups")
		if err != nil || len(cols) == 0 {
			return err
		}
		if err := cols.Require("point_groups", "name", "point_id"); err != nil {
			return s.migrateHint(err)
		}
		return query(c, `SELECT DISTINCT name, point_id FROM point_groups WHERE typeof(point_id) = 'integer'
			AND point_id BETWEEN -2147483648 AND 2147483647 ORDER BY name, point_id`, func(st *sqlite.Stmt) error {
			f(st.ColumnText(0), st.ColumnInt32(1))
			return nil
		})
	})
}

// query runs a statement to its end, calling row for each row. It is prepared
// once per connection.
func query(c *conn, text string, row func(*sqlite.Stmt) error, args ...any) error {
	st, err := c.Prepare(text)
	if err != nil {
		return err
	}
	for i, a := range args {
		bind(st, i+1, a)
	}
	defer st.Reset()
	for {
		ok, err := st.Step()
		if err != nil || !ok {
			return err
		}
		if err := row(st); err != nil {
			return err
		}
	}
}

func exec(c *conn, text string, args ...any) error {
	return query(c, text, func(*sqlite.Stmt) error { return nil }, args...)
}

// bind binds a cell of any storage class, or an int.
func bind(st *sqlite.Stmt, i int, v any) {
	switch v := v.(type) {
	case nil:
		st.BindNull(i)
	case int64:
		st.BindInt64(i, v)
	case int:
		st.BindInt64(i, int64(v))
	case float64:
		st.BindFloat(i, v)
	case string:
		st.BindText(i, v)
	case []byte:
		st.BindBytes(i, v)
	default:
		panic(fmt.Sprintf("bind a %T", v))
	}
}
