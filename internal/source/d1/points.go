package d1

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"etl/internal/cloudflare"
	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

var (
	_ source.Source       = (*Source)(nil)
	_ source.Summarizer   = (*Source)(nil)
	_ source.Grouper      = (*Source)(nil)
	_ source.Lister       = (*Source)(nil)
	_ source.Registrar    = (*Source)(nil)
	_ source.TimeTraveler = (*Source)(nil)
	_ source.Latester     = (*Source)(nil)
	_ source.Historian    = (*Source)(nil)
	_ source.Pruner       = (*Source)(nil)
	_ source.Restorer     = (*Source)(nil)
)

// sizes are how much one statement asks for or says.
type sizes struct {
	points int // rows of points: 10,000 at 10 literals of some 20 bytes are 2 MB
	ids    int // ids of a skip-scan, at some 10 bytes
	named  int // points that a parameter names: 50,000 at 12 bytes are 600 kB of its 2 MB
	marks  int // rows of the ledger: 100,000 at 60 bytes are 6 MB
	slices int // slices that a parameter names: 20,000 at 22 bytes are 440 kB
	// What one request may take its 30 s for: at the 200,000 rows a second that
	// D1's runtime writes, and half as many deletes, it takes 1 s or less.
	restore int   // rows that it writes: 40,000 at 47 bytes are 1.9 MB, beyond restoreBytes
	prune   int64 // rows that it deletes
}

func newSizes() sizes {
	return sizes{points: 10_000, ids: 50_000, named: 50_000, marks: 100_000, slices: 20_000, restore: 40_000, prune: 100_000}
}

// jsonIDs is an array of ids for json_each, which gives each a billed row read,
// as a seek is one.
func jsonIDs(ids []int32) string {
	b := make([]byte, 1, 2+7*len(ids))
	b[0] = '['
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(id), 10)
	}
	return string(append(b, ']'))
}

// named are the elements of the first parameter, a JSON array.
const named = "(SELECT value FROM json_each(?1))"

// Columns of points that may be missing, in the order in which Points selects
// them: text, and after it numbers.
var (
	textColumns   = []string{"site", "system", "equipment", "unit"}
	numberColumns = []string{"interval_ms", "min_value", "max_value", "created_at", "retired_at"}
)

// Points implements source.Source, by three requests and one more for each
// 10,000 points. A name that is NULL or no text is given as "". Text is what the
// table has byte by byte: it comes as literals.
func (s *Source) Points(ctx context.Context) ([]sample.Point, []sample.Reject, error) {
	return s.list(ctx, func(doing string, _ []sample.Point) ([]int32, []int64, error) { return s.skipScan(ctx, doing) })
}

// List implements source.Lister, by as many requests. Names and text are as at Points.
func (s *Source) List(ctx context.Context) ([]sample.Point, []sample.Reject, error) {
	return s.list(ctx, func(doing string, points []sample.Point) ([]int32, []int64, error) {
		return s.gapScan(ctx, doing, source.Gaps(points))
	})
}

// list is Points with a scan for ids, which may leave out those that it is given.
func (s *Source) list(ctx context.Context, scan func(doing string, points []sample.Point) (ids []int32, odd []int64, err error)) ([]sample.Point, []sample.Reject, error) {
	const doing = "list the points"
	t, err := s.inspected(ctx, doing)
	if err != nil {
		return nil, nil, err
	}
	points, err := s.listPoints(ctx, doing, t)
	if err != nil {
		return nil, nil, err
	}
	ids, odd, err := scan(doing, points)
	if err != nil {
		return nil, nil, err
	}
	known := len(points)
	for _, id := range ids {
		if _, ok := slices.BinarySearchFunc(points[:known], id, byID); !ok {
			points = append(points, sample.Point{ID: id, Name: source.OrphanName(id), Orphan: true})
		}
	}
	slices.SortFunc(points, func(a, b sample.Point) int { return byID(a, b.ID) })

	// Text and blobs sort behind all numbers.
	from := one("FROM timeseries t WHERE t.point_id < -2147483648")
	from = append(from, one("FROM timeseries t WHERE t.point_id > 2147483647")...)
	if t.NullKey {
		from = append(from, one("FROM timeseries t WHERE t.point_id IS NULL")...)
	}
	if len(odd) > 0 {
		text, err := json.Marshal(odd)
		if err != nil {
			return nil, nil, err
		}
		from = append(from, one("FROM json_each(?1) j CROSS JOIN timeseries t WHERE t.point_id > j.value AND t.point_id < j.value + 1", string(text))...)
	}
	rejects, err := s.rejects(ctx, doing, source.IDReason, from)
	if err != nil {
		return nil, nil, err
	}
	return points, rejects, nil
}

func byID(p sample.Point, id int32) int { return int(int64(p.ID) - int64(id)) }

// listPoints reads the points table. A row whose id is no 32-bit integer is
// left out: no sample can be of it, and the rows of timeseries that name it are rejects.
func (s *Source) listPoints(ctx context.Context, doing string, t *source.Tables) ([]sample.Point, error) {
	columns := []string{"id", literalOf("name", "")}
	for _, c := range textColumns {
		columns = append(columns, optional(t, c, "CAST("+c+" AS TEXT)")) // may be a number, as it is written
	}
	for _, c := range numberColumns {
		columns = append(columns, optional(t, c, c))
	}
	// typeof: an id may also be 5.0, which JSON does not tell from 5.
	head := "SELECT " + strings.Join(columns, ", ") + " FROM points WHERE typeof(id) = 'integer' AND id <= 2147483647 AND id >= "

	var points []sample.Point
	for first := int32(math.MinInt32); ; {
		answers, limit, err := s.ask(ctx, doing, s.sizes.points+1, func(limit int) []cloudflare.Statement {
			return one(fmt.Sprintf("%s%d ORDER BY id LIMIT %d", head, first, max(limit, 2)))
		})
		if err != nil {
			return nil, err
		}
		// A page begins with the row that the one before ended with, so that an id
		// that is there twice is noticed wherever the page ends.
		rows := answers[0].rows
		if err := answers[0].check(doing, len(columns)); err != nil {
			return nil, err
		}
		for i, row := range rows {
			p, err := pointOf(doing, row)
			if err != nil {
				return nil, err
			}
			if n := len(points); n > 0 && points[n-1].ID >= p.ID {
				if i == 0 && p.ID == first {
					continue
				}
				if points[n-1].ID > p.ID {
					return nil, unexpected(doing, row)
				}
				return nil, fmt.Errorf("%s: %w", doing, source.IDTwice(p.ID))
			}
			points = append(points, p)
		}
		if len(rows) < max(limit, 2) {
			return points, nil
		}
		first = points[len(points)-1].ID
	}
}

// optional is the literal of an expression over a column of points, or NULL
// where points has no such column.
func optional(t *source.Tables, column, expr string) string {
	if !slices.Contains(t.Points, column) {
		return "'n'"
	}
	return literalOf(expr, "")
}

func pointOf(doing string, row []any) (sample.Point, error) {
	id, ok := row[0].(int64)
	if !ok || id != int64(int32(id)) {
		return sample.Point{}, unexpected(doing, row)
	}
	var cells [11]any
	for i, c := range row[1:] {
		var err error
		if cells[1+i], err = literal(c); err != nil {
			return sample.Point{}, fmt.Errorf("%s: %w", doing, err)
		}
	}
	textOf := func(i int) *string {
		t, ok := cells[i].(string)
		if !ok {
			return nil
		}
		return new(t)
	}
	integerOf := func(i int) *int64 {
		n, ok := cells[i].(int64)
		if !ok {
			return nil
		}
		return new(n)
	}
	numberOf := func(i int) *float64 {
		switch v := cells[i].(type) {
		case float64:
			return new(v)
		case int64:
			return new(float64(v))
		}
		return nil
	}
	return sample.Point{ID: int32(id), Name: text(cells[1]), Site: textOf(2), System: textOf(3), Equipment: textOf(4), Unit: textOf(5),
		IntervalMS: integerOf(6), MinValue: numberOf(7), MaxValue: numberOf(8), CreatedAt: integerOf(9), RetiredAt: integerOf(10)}, nil
}

// skipScan lists the ids in timeseries that lie in the range of a 32-bit integer
// by one seek per id; odd are the integers just below those that are none.
func (s *Source) skipScan(ctx context.Context, doing string) (ids []int32, odd []int64, err error) {
	for from := "point_id >= -2147483648"; ; {
		answers, limit, err := s.ask(ctx, doing, s.sizes.ids, func(limit int) []cloudflare.Statement {
			return one(skipScan(from, limit))
		})
		if err != nil {
			return nil, nil, err
		}
		rows := answers[0].rows
		known := len(ids)
		if ids, odd, err = sortIDs(doing, &answers[0], ids, odd); err != nil {
			return nil, nil, err
		}
		if len(rows) < limit {
			return ids, odd, nil
		}
		// Behind the last integer, so that no fraction has to be written in SQL.
		// Where there is none, and so more rejects than Points returns, at the next.
		if len(ids) > known {
			from = fmt.Sprintf("point_id > %d", ids[len(ids)-1])
		} else {
			from = fmt.Sprintf("point_id >= %d", odd[len(odd)-1]+1)
		}
	}
}

// sortIDs adds the ids of an answer of one column, ascending, to ids and to odd.
func sortIDs(doing string, a *answer, ids []int32, odd []int64) ([]int32, []int64, error) {
	if err := a.check(doing, 1); err != nil {
		return nil, nil, err
	}
	for _, row := range a.rows {
		id, err := literal(row[0])
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", doing, err)
		}
		switch id := id.(type) {
		case int64:
			ids = append(ids, int32(id))
		case float64:
			below := int64(math.Floor(id))
			if n := len(odd); (n == 0 || odd[n-1] < below) && n < source.MaxStrays {
				odd = append(odd, below)
			}
		default:
			return nil, nil, unexpected(doing, row)
		}
	}
	return ids, odd, nil
}

// gapScan is skipScan within gaps: a billed row for each of them, a seek and one
// for each id that is in one. Where the gaps or the ids are more than one
// statement takes, which are tables that no one keeps, it is skipScan itself.
func (s *Source) gapScan(ctx context.Context, doing string, gaps []source.Gap) (ids []int32, odd []int64, err error) {
	if len(gaps) > s.sizes.named/2 {
		return s.skipScan(ctx, doing)
	}
	list := []byte{'['}
	for i, g := range gaps {
		if i > 0 {
			list = append(list, ',')
		}
		list = fmt.Appendf(list, "[%d,%d]", g.After, g.Before)
	}
	answers, limit, err := s.ask(ctx, doing, s.sizes.ids, func(limit int) []cloudflare.Statement {
		return one(fmt.Sprintf(gapScan, literalOf("id", ""), limit), string(append(list, ']')))
	})
	if err != nil {
		return nil, nil, err
	}
	if len(answers[0].rows) >= limit {
		return s.skipScan(ctx, doing)
	}
	return sortIDs(doing, &answers[0], nil, nil)
}

const gapScan = `WITH RECURSIVE ids(id, before) AS (
	SELECT (SELECT point_id FROM timeseries WHERE point_id > json_extract(g.value, '$[0]') AND point_id < json_extract(g.value, '$[1]') ORDER BY point_id LIMIT 1),
		json_extract(g.value, '$[1]') FROM json_each(?1) g
	UNION ALL
	SELECT (SELECT point_id FROM timeseries WHERE point_id > ids.id AND point_id < ids.before ORDER BY point_id LIMIT 1), before FROM ids WHERE ids.id IS NOT NULL)
SELECT %s FROM ids WHERE id IS NOT NULL ORDER BY id LIMIT %d`

func skipScan(from string, limit int) string {
	return fmt.Sprintf(`WITH RECURSIVE ids(id) AS (
	SELECT (SELECT point_id FROM timeseries WHERE %s ORDER BY point_id LIMIT 1)
	UNION ALL
	SELECT (SELECT point_id FROM timeseries WHERE point_id > ids.id ORDER BY point_id LIMIT 1) FROM ids WHERE ids.id < 2147483647
	LIMIT %d)
SELECT %s FROM ids WHERE id <= 2147483647`, from, limit, literalOf("id", ""))
}

var rejectColumns = strings.Join([]string{literalOf("t.point_id", ""), literalOf("t.timestamp", ""), literalOf("t.value", ""),
	literalOf("t.quality", ""), literalOf("t.flags", "")}, ", ")

// rejects selects rows of timeseries as t, MaxStrays at most in all; fewer if
// they are so large that D1 does not answer with as many.
func (s *Source) rejects(ctx context.Context, doing string, reason func(*sample.Reject) string, from []cloudflare.Statement) ([]sample.Reject, error) {
	answers, _, err := s.ask(ctx, doing, source.MaxStrays, func(limit int) []cloudflare.Statement { return rejectsOf(from, limit) })
	if err != nil {
		return nil, err
	}
	var rejects []sample.Reject
	for _, a := range answers {
		if err := a.check(doing, 5); err != nil {
			return nil, err
		}
		for _, row := range a.rows {
			if len(rejects) == source.MaxStrays {
				return rejects, nil
			}
			var r sample.Reject
			for i, cell := range []*sample.Cell{&r.PointID, &r.Timestamp, &r.Value, &r.Quality, &r.Flags} {
				if cell.V, err = literal(row[i]); err != nil {
					return nil, fmt.Errorf("%s: %w", doing, err)
				}
			}
			r.Reason = reason(&r)
			rejects = append(rejects, r)
		}
	}
	return rejects, nil
}

func rejectsOf(from []cloudflare.Statement, limit int) []cloudflare.Statement {
	var stmts []cloudflare.Statement
	for _, f := range from {
		stmts = append(stmts, cloudflare.Statement{SQL: fmt.Sprintf("SELECT %s %s LIMIT %d", rejectColumns, f.SQL, limit), Params: f.Params})
	}
	return stmts
}

// strayIs is what a timestamp outside of a window fulfils, one per seek. Text and
// blobs sort behind all numbers.
func strayIs(t *source.Tables, window utc.Days) []string {
	where := []string{fmt.Sprintf("t.timestamp < %d", window.From.Start()), fmt.Sprintf("t.timestamp >= %d", window.To.Start())}
	if t.NullKey {
		where = append(where, "t.timestamp IS NULL")
	}
	return where
}

func outsideOf(where []string) string {
	return "SELECT j.value FROM json_each(?1) j WHERE EXISTS (SELECT 1 FROM timeseries t WHERE t.point_id = j.value AND " +
		strings.Join(where, ") OR EXISTS (SELECT 1 FROM timeseries t WHERE t.point_id = j.value AND ") + ")"
}

// Strays implements source.Source: one request for 50,000 points, which answers
// with those that have any, and one more for their rows.
func (s *Source) Strays(ctx context.Context, points []int32, window utc.Days) ([]sample.Reject, error) {
	const doing = "look for rows outside of all days"
	t, err := s.inspected(ctx, doing)
	if err != nil {
		return nil, err
	}
	where := strayIs(t, window)
	var rejects []sample.Reject
	for some := range slices.Chunk(points, s.sizes.named) {
		answers, err := s.query(ctx, doing, cloudflare.Read, one(outsideOf(where), jsonIDs(some)))
		if err != nil {
			return nil, err
		}
		outside, err := answers[0].ids(doing)
		if err != nil {
			return nil, err
		}
		if outside == nil {
			continue
		}
		var from []cloudflare.Statement
		for _, w := range where {
			from = append(from, one("FROM timeseries t WHERE t.point_id IN "+named+" AND "+w, jsonIDs(outside))...)
		}
		more, err := s.rejects(ctx, doing, func(r *sample.Reject) string { return source.StrayReason(r, window) }, from)
		if err != nil {
			return nil, err
		}
		if rejects = append(rejects, more...); len(rejects) >= source.MaxStrays {
			return rejects[:source.MaxStrays], nil
		}
	}
	return rejects, nil
}

// summaries are the first and the last timestamp that are numbers, as text, and
// whether there is any row, by three seeks per point.
const summaries = `SELECT j.value,
	CAST(CAST((SELECT min(timestamp) FROM timeseries WHERE point_id = j.value AND timestamp <= 9223372036854775807) AS INTEGER) AS TEXT),
	CAST(CAST((SELECT max(timestamp) FROM timeseries WHERE point_id = j.value AND timestamp <= 9223372036854775807) AS INTEGER) AS TEXT),
	EXISTS (SELECT 1 FROM timeseries WHERE point_id = j.value) FROM json_each(?1) j`

// Summaries implements source.Summarizer; rows are not counted. First and Last
// leave out rows whose timestamp is no number.
func (s *Source) Summaries(ctx context.Context, points []int32, f func(id int32, s source.Summary)) error {
	const doing = "summarize the points"
	if _, err := s.inspected(ctx, doing); err != nil {
		return err
	}
	for some := range slices.Chunk(points, s.sizes.named) {
		answers, err := s.query(ctx, doing, cloudflare.Read, one(summaries, jsonIDs(some)))
		if err != nil {
			return err
		}
		if err := answers[0].check(doing, 4); err != nil {
			return err
		}
		sums := make(map[int32]source.Summary, len(some))
		for _, row := range answers[0].rows {
			var sum source.Summary
			for i, at := range []*int64{&sum.First, &sum.Last} {
				if row[1+i] == nil {
					continue
				}
				if *at, err = strconv.ParseInt(text(row[1+i]), 10, 64); err != nil {
					return unexpected(doing, row)
				}
			}
			if integer(row[3]) != 0 {
				sum.Rows = source.NotCounted
			}
			sums[int32(integer(row[0]))] = sum
		}
		for _, id := range some {
			f(id, sums[id])
		}
	}
	return nil
}

// Group implements source.Grouper.
func (s *Source) Group(ctx context.Context, name string) ([]int32, error) {
	doing := fmt.Sprintf("look up the group %q", name)
	if _, err := s.inspected(ctx, doing); err != nil {
		return nil, err
	}
	answers, err := s.query(ctx, doing, cloudflare.Read, one(`SELECT point_id FROM point_groups WHERE name = ?1 AND typeof(point_id) = 'integer'
		AND point_id BETWEEN -2147483648 AND 2147483647 ORDER BY point_id`, name))
	if fault.Is(err, fault.Invalid) {
		look, lerr := s.query(ctx, doing, cloudflare.Read, tableInfo("point_groups"))
		if lerr != nil {
			return nil, lerr
		}
		if bad := columnsOf(look[0]).Require("point_groups", "name", "point_id"); bad != nil {
			return nil, s.migrateHint(fmt.Errorf("%s: %w", doing, bad))
		}
	}
	if err != nil {
		return nil, err
	}
	ids, err := answers[0].ids(doing)
	if err != nil || ids != nil {
		return slices.Compact(ids), err
	}
	answers, err = s.query(ctx, doing, cloudflare.Read, one("SELECT DISTINCT name FROM point_groups ORDER BY name LIMIT 50"))
	if err != nil {
		return nil, err
	}
	known, err := answers[0].texts(doing)
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%s: %w", doing, source.NoGroup(known))
}

// Groups implements source.Grouper.
func (s *Source) Groups(ctx context.Context, f func(name string, point int32)) error {
	const doing = "list the groups"
	if _, err := s.inspected(ctx, doing); err != nil {
		return err
	}
	look, err := s.query(ctx, doing, cloudflare.Read, tableInfo("point_groups"))
	if err != nil {
		return err
	}
	cols := columnsOf(look[0])
	if len(cols) == 0 {
		return nil
	}
	if err := cols.Require("point_groups", "name", "point_id"); err != nil {
		return s.migrateHint(fmt.Errorf("%s: %w", doing, err))
	}
	// By page, each beginning behind the last member of the one before.
	name, point := "", int64(math.MinInt64)
	for {
		answers, limit, err := s.ask(ctx, doing, s.sizes.points, func(limit int) []cloudflare.Statement {
			return one(fmt.Sprintf(`SELECT DISTINCT CAST(name AS TEXT), point_id FROM point_groups
				WHERE typeof(point_id) = 'integer' AND point_id BETWEEN -2147483648 AND 2147483647
				AND (CAST(name AS TEXT), point_id) > (?1, %d) ORDER BY 1, 2 LIMIT %d`, point, limit), name)
		})
		if err != nil {
			return err
		}
		if err := answers[0].check(doing, 2); err != nil {
			return err
		}
		for _, row := range answers[0].rows {
			name, point = text(row[0]), integer(row[1])
			f(name, int32(point))
		}
		if len(answers[0].rows) < limit {
			return nil
		}
	}
}

// Latest implements source.Latester, by one request for each 50,000 points.
func (s *Source) Latest(ctx context.Context, points []int32, days utc.Days, f func(*sample.Batch) error) error {
	return s.outermost(ctx, "find the latest samples", "DESC", points, days, f)
}

// Oldest implements source.Oldester, likewise.
func (s *Source) Oldest(ctx context.Context, points []int32, days utc.Days, f func(*sample.Batch) error) error {
	return s.outermost(ctx, "find the oldest samples", "ASC", points, days, f)
}

// outermost calls f with the first sample of each point in an order of time.
func (s *Source) outermost(ctx context.Context, doing, order string, points []int32, days utc.Days, f func(*sample.Batch) error) error {
	if err := checkDays(doing, days); err != nil {
		return err
	}
	if _, err := s.inspected(ctx, doing); err != nil {
		return err
	}
	p := &page{window: make([]byte, windowBytes), from: days.From.Start(), to: days.To.Start()}
	text := rowSelect + fmt.Sprintf(`SELECT t.point_id p, t.timestamp t, t.value v, t.quality q, t.flags f
		FROM json_each(?1) j CROSS JOIN timeseries t WHERE t.point_id = j.value AND t.timestamp = (
			SELECT timestamp FROM timeseries WHERE point_id = j.value AND timestamp >= %d AND timestamp < %d AND `+
		source.HoldsSample+` ORDER BY timestamp `+order+` LIMIT 1))`, p.from, p.to)
	for ids := range slices.Chunk(points, s.sizes.named) {
		if err := s.begin(ctx, doing, cloudflare.Read); err != nil {
			return err
		}
		var a answer
		err := s.db.Raw(ctx, cloudflare.Read, one(text, jsonIDs(ids)), func(r io.Reader) (err error) {
			a, err = p.scan(r, cursor{ids: ids}, len(ids))
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		s.db.Billed(a.rowsRead, a.rowsWritten)
		if p.Len() == 0 {
			continue
		}
		if err := f(&p.Batch); err != nil {
			return err
		}
	}
	return nil
}

// nameBytes is where a list of names ends that is one parameter, of 2,000,000 bytes at most.
const nameBytes = 1_000_000

// CreatePoints implements source.Registrar: a batch for each 1,000,000 bytes of
// names, which does nothing when it is repeated.
func (s *Source) CreatePoints(ctx context.Context, names []string) (map[string]int32, error) {
	doing := fmt.Sprintf("create %d points", len(names))
	ids := make(map[string]int32, len(names))
	if err := s.begin(ctx, doing, cloudflare.Idempotent); err != nil {
		return nil, err
	}
	for len(names) > 0 {
		list := []byte{'['}
		n := 0
		for ; n < len(names) && len(list) < nameBytes; n++ {
			name, err := json.Marshal(names[n])
			if err != nil || !utf8.ValidString(names[n]) || strings.Contains(names[n], "\x00") {
				return nil, fault.Errorf(fault.Invalid, "%s: the name %q is no text that D1 takes", doing, names[n])
			}
			if n > 0 {
				list = append(list, ',')
			}
			list = append(list, name...)
		}
		list = append(list, ']')
		answers, err := s.write(ctx, doing, cloudflare.Idempotent, append(one(createSQL, string(list)), one(createdSQL, string(list))...))
		if err != nil {
			return nil, err
		}
		if err := answers[1].check(doing, 2); err != nil {
			return nil, err
		}
		for _, row := range answers[1].rows {
			id, err := strconv.ParseInt(text(row[1]), 10, 32)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", doing, source.BadPointID(text(row[0]), row[1]))
			}
			ids[text(row[0])] = int32(id)
		}
		for _, name := range names[:n] {
			if _, ok := ids[name]; !ok {
				return nil, fault.Errorf(fault.Invalid, "%s: there is still no point %q", doing, name)
			}
		}
		names = names[n:]
	}
	return ids, nil
}

const (
	createSQL  = "INSERT INTO points (name) SELECT DISTINCT j.value FROM json_each(?1) j WHERE NOT EXISTS (SELECT 1 FROM points p WHERE p.name = j.value)"
	createdSQL = "SELECT name, CAST(id AS TEXT) FROM points WHERE name IN " + named
)
