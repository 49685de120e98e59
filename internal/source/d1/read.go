package d1

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"etl/internal/cloudflare"
	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

const (
	// maxIDs is how many points a statement names. At 12 bytes, "-2147483648,",
	// they are 84,000 of the 100,000 that a statement may have. SQLite makes 3
	// instructions of each; releases of D1's runtime have allowed 25,000.
	maxIDs = 7_000

	// exact is the range in which a float64, and so JavaScript, holds every integer.
	exact = 1 << 53
)

// rowColumns are what an answer of rowsOf calls its columns.
var rowColumns = []string{"p", "ts", "val", "qual", "flag"}

// rowSelect is the columns of a row from point_id, timestamp, value, quality
// and flags as p, t, v, q and f: as they are where a sample can hold them and
// JSON carries them, else as literals. Those in place of a timestamp, quality or
// flags have the letter of the value's class before them: such a row becomes a
// reject, which tells 5.0 from 5.
//
// A division tells an INTEGER from a REAL in a third of the time of typeof():
// of integers it is 0 if the dividend is less than the divisor, of reals only if
// the dividend is 0, which adding 1 (or 2^53 to t, which is more than -2^53)
// rules out. BETWEEN rules out TEXT and BLOB, which sort behind all numbers; for
// t the range of the query does. The plus takes a column's affinity away, by
// which a number could be compared as text.
var rowSelect = "SELECT p," +
	"iif((t+9007199254740992)/36028797018963968=0,t," + literalOf("t", valueClass) + ") ts," +
	"iif(+v BETWEEN -9007199254740992 AND 9007199254740992,v," +
	"iif(v IS NULL OR typeof(v)='real' AND v>-9e999 AND v<9e999,v," + literalOf("v", "") + ")) val," +
	"iif(+q BETWEEN 0 AND 255 AND (q+1)/512=0,q," + literalOf("q", valueClass) + ") qual," +
	"iif(+f BETWEEN 0 AND 65535 AND (f+1)/131072=0,f," + literalOf("f", valueClass) + ") flag FROM ("

const (
	valueClass = "substr(typeof(v),1,1)"
	rowTable   = "SELECT point_id p,timestamp t,value v,quality q,flags f FROM timeseries WHERE point_id "
)

// cursor is where a read stands: the rows of ids are to come, of the first one
// only those behind a timestamp if inside is set. A float64 is every timestamp
// that can be in a day: any REAL, and any INTEGER up to 2^53 (checkDays).
type cursor struct {
	ids    []int32
	inside bool
	after  float64
}

// timeLiteral is a timestamp as an expression that is exactly it. SQLite's
// reading of decimals need not be exact, so a fraction is written as an integer
// over powers of 2.
func timeLiteral(ts float64) string {
	if ts == math.Trunc(ts) {
		return strconv.FormatInt(int64(ts), 10)
	}
	f, exp := math.Frexp(ts)
	n, shift := int64(f*exact), 53-exp // ts = n / 2^shift
	zeros := min(bits.TrailingZeros64(uint64(n)), shift)
	n, shift = n>>zeros, shift-zeros
	var b strings.Builder
	fmt.Fprintf(&b, "CAST(%d AS REAL)", n)
	for ; shift > 0; shift -= 52 {
		fmt.Fprintf(&b, "/%d", int64(1)<<min(shift, 52))
	}
	return b.String()
}

// rowsOf is the statement for the next rows of a read.
//
// Every row is found by the primary key, and none is sorted: for the rest of a
// point and the points after it SQLite merges two streams that are in order.
func rowsOf(c cursor, from, to int64, limit int) string {
	var b strings.Builder
	b.Grow(len(rowSelect) + 12*len(c.ids) + 500)
	b.WriteString(rowSelect)
	ids := c.ids
	if c.inside {
		fmt.Fprintf(&b, "%s= %d AND timestamp > %s AND timestamp < %d", rowTable, ids[0], timeLiteral(c.after), to)
		if ids = ids[1:]; len(ids) > 0 {
			b.WriteString(" UNION ALL ")
		}
	}
	if len(ids) > 0 {
		b.WriteString(rowTable)
		writeIDs(&b, ids)
		fmt.Fprintf(&b, " AND timestamp >= %d AND timestamp < %d", from, to)
	}
	fmt.Fprintf(&b, " ORDER BY 1,2 LIMIT %d)", limit)
	return b.String()
}

func writeIDs(b *strings.Builder, ids []int32) {
	b.WriteString("IN (")
	var buf [12]byte
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(strconv.AppendInt(buf[:0], int64(id), 10))
	}
	b.WriteByte(')')
}

// Read implements source.Source. A batch is a page, which was read to its end
// and found good. No request is under way while f runs.
func (s *Source) Read(ctx context.Context, q source.Query, f func(*sample.Batch) error) (source.Stats, error) {
	var stats source.Stats
	if q.Days.Empty() {
		return stats, nil
	}
	doing := fmt.Sprintf("read %s", q.Days)
	if err := checkDays(doing, q.Days); err != nil {
		return stats, err
	}
	if _, err := s.inspected(ctx, doing); err != nil {
		return stats, err
	}
	p, _ := s.buffers.Get().(*page)
	if p == nil {
		p = &page{window: make([]byte, windowBytes)}
	}
	defer s.buffers.Put(p)
	p.from, p.to = q.Days.From.Start(), q.Days.To.Start()
	for ids := range slices.Chunk(q.Points, maxIDs) {
		for p.next = (cursor{ids: ids}); len(p.next.ids) > 0; {
			if err := s.readPage(ctx, doing, p, &stats); err != nil {
				return stats, err
			}
			if p.Len() == 0 && len(p.Rejects) == 0 {
				continue
			}
			if err := ctx.Err(); err != nil {
				return stats, fmt.Errorf("%s: %w", doing, err)
			}
			stats.Rows += int64(p.Len() + len(p.Rejects))
			err := f(&p.Batch)
			clear(p.Rejects) // so that their text can be freed
			if err != nil {
				return stats, err
			}
		}
	}
	return stats, nil
}

// checkDays refuses days whose milliseconds JavaScript does not hold exactly,
// which are more than 285,000 years away.
func checkDays(doing string, days utc.Days) error {
	if days.From.Start() <= -exact || days.To.Start() > exact {
		return fault.Errorf(fault.Usage, "%s: such days are beyond what D1 can tell exactly", doing)
	}
	return nil
}

// readPage fills p with the rows that follow p.next and moves that behind them.
func (s *Source) readPage(ctx context.Context, doing string, p *page, stats *source.Stats) error {
	if err := s.begin(ctx, doing, cloudflare.Read); err != nil {
		return err
	}
	start := p.next
	var a answer
	var rows, tries int
	err := s.db.Page(ctx, cloudflare.Read, func(last error) []cloudflare.Statement {
		stats.Requests++
		switch tries++; {
		case last == nil:
			rows = s.pages.size()
		case cloudflare.Shrink(last):
			rows = s.pages.tooLarge(rows)
		case tries > 3: // a line that breaks may still carry less
			rows = s.pages.half(rows)
		}
		return []cloudflare.Statement{{SQL: rowsOf(start, p.from, p.to, rows)}}
	}, func(r io.Reader) (err error) {
		a, err = p.scan(r, start, rows)
		return err
	})
	if cloudflare.Shrink(err) {
		err = fault.Hint(err, "D1 is overloaded, or a page of %d rows is too much for it: run again later, with fewer workers", rows)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	s.db.Billed(a.rowsRead, a.rowsWritten)
	s.pages.done(rows, p.rows(), p.bytes, a.duration)
	return nil
}

// page is what one answer of Read is scanned into. Its buffers are used again.
type page struct {
	sample.Batch
	window   []byte
	from, to int64 // the range of the query in milliseconds
	limit    int
	next     cursor // behind the last row
	bytes    int64  // of the answer
}

func (p *page) rows() int { return p.Len() + len(p.Rejects) }

// scan reads the answer of rowsOf for what follows start.
//
// INVARIANT: when it returns nil, p has rows of the query only, in the order of
// the primary key, each one after start and none twice, and p.next is where the
// next page starts, or without ids if there is none.
func (p *page) scan(r io.Reader, start cursor, limit int) (answer, error) {
	p.reset(start, limit)
	sc := newScanner(r, p.window)
	answers, err := sc.answers(1, func(sc *scanner, _ *answer) error {
		p.reset(start, limit)
		return p.scanRows(sc)
	})
	p.window = sc.buf
	p.bytes = sc.offset()
	if err != nil {
		return answer{}, err
	}
	if !slices.Equal(answers[0].columns, rowColumns) {
		return answer{}, fault.Errorf(fault.Invalid, "the answer has the columns %q, want %q", answers[0].columns, rowColumns)
	}
	if p.rows() < limit {
		p.next = cursor{}
	}
	return answers[0], nil
}

func (p *page) reset(start cursor, limit int) {
	p.Reset()
	p.next, p.limit = start, limit
}

// advance moves p.next behind the row (id, ts), which must be of the query and
// come after it.
func (p *page) advance(id int64, ts float64) error {
	n := &p.next
	i := 0
	for i < len(n.ids) && int64(n.ids[i]) < id {
		i++
	}
	switch {
	case i == len(n.ids) || int64(n.ids[i]) != id || !(ts >= float64(p.from) && ts < float64(p.to)):
		return fault.Errorf(fault.Internal, "D1 sent a row of point %d at %f, which was not asked for", id, ts)
	case i == 0 && n.inside && ts <= n.after:
		return fault.Errorf(fault.Internal, "D1 sent the rows of point %d out of order: %f does not come after %f", id, ts, n.after)
	case p.rows() >= p.limit:
		return fault.Errorf(fault.Internal, "D1 sent more rows than the %d asked for", p.limit)
	}
	*n = cursor{n.ids[i:], true, ts}
	return nil
}

// scanRows reads the array of rows.
func (p *page) scanRows(sc *scanner) error {
	if c, err := sc.peek(); err != nil {
		return err
	} else if c != '[' {
		return sc.unexpected("an array")
	}
	return sc.array(func() error {
		if sc.end-sc.pos < fastRow {
			sc.fill()
		}
		sc.pos += p.scanFast(sc.buf[sc.pos:sc.end])
		return p.scanRow(sc)
	})
}

// fastRow is more than the longest row that scanFast reads: 10 + 19 digits, a
// value of 53 signs, 3 + 5 digits, and 9 signs between and around them.
const fastRow = 128

// scanFast reads rows of the usual form, [1234,1704412800000,21.37,192,0], from
// b, if it starts with one, and returns where it stopped: at a row of another
// form, at one that is not what comes next, or near the end of b.
//
// INVARIANT: what it takes scanRow would take with the same result. So it judges
// nothing: what it does not take it leaves to scanRow.
func (p *page) scanFast(b []byte) int {
	n := &p.next
	if !n.inside || len(n.ids) == 0 || len(b) == 0 || b[0] != '[' {
		return 0 // the first row, or none; those that follow one begin as they should
	}
	ids, last := n.ids, int64(math.Floor(n.after)) // an integer is greater than both or none
	points, times, values, qualities, flags := p.PointID, p.TS, p.Value, p.Quality, p.Flags
	from, to := p.from, p.to
	used := 0
	for room := p.limit - p.rows(); room > 0 && len(b)-used >= fastRow; room-- {
		w := (*[fastRow]byte)(b[used:])
		u, i := digits(w, 1, 10, 0)
		if i == 1 || w[1] == '0' || w[i&127] != ',' {
			break
		}
		point := int64(u)

		start := i + 1
		u, i = digits(w, start, 19, 0)
		if i == start || w[start&127] == '0' || w[i&127] != ',' {
			break
		}
		ts := int64(u)

		i++
		var value float64
		if w[i&127] == 'n' {
			if w[(i+1)&127] != 'u' || w[(i+2)&127] != 'l' || w[(i+3)&127] != 'l' {
				break
			}
			i += 4
			value = sample.Null
		} else {
			text := i
			if w[i&127] == '-' {
				i++
			}
			start = i
			u, i = digits(w, start, 26, 0)
			whole := i - start
			if whole == 0 || whole > 1 && w[start&127] == '0' {
				break
			}
			fraction := 0
			if w[i&127] == '.' {
				start = i + 1
				u, i = digits(w, start, 26, u)
				if fraction = i - start; fraction == 0 {
					break
				}
			}
			if whole+fraction <= 19 && u < exact {
				// Both are exact, so the quotient is the nearest float64 (Clinger 1990).
				value = float64(u) / powers[fraction]
				if w[text&127] == '-' {
					value = -value
				}
			} else {
				var err error
				if value, err = strconv.ParseFloat(string(w[text:i]), 64); err != nil {
					break
				}
			}
		}
		if w[i&127] != ',' {
			break
		}

		start = i + 1
		u, i = digits(w, start, 3, 0)
		if i == start || i > start+1 && w[start&127] == '0' || u > math.MaxUint8 || w[i&127] != ',' {
			break
		}
		quality := uint8(u)

		start = i + 1
		u, i = digits(w, start, 5, 0)
		if i == start || i > start+1 && w[start&127] == '0' || u > math.MaxUint16 {
			break
		}
		if w[i&127] != ']' || w[(i+1)&127] != ',' || w[(i+2)&127] != '[' {
			break
		}

		if int64(ids[0]) != point {
			k := 1
			for k < len(ids) && int64(ids[k]) < point {
				k++
			}
			if k == len(ids) || int64(ids[k]) != point {
				break
			}
			ids, last = ids[k:], math.MinInt64
		}
		if ts <= last || ts < from || ts >= to {
			break
		}
		last = ts
		points, times, values = append(points, int32(point)), append(times, ts), append(values, value)
		qualities, flags = append(qualities, quality), append(flags, uint16(u))
		used += i + 2
	}
	if used > 0 {
		*n = cursor{ids, true, float64(last)}
		p.PointID, p.TS, p.Value, p.Quality, p.Flags = points, times, values, qualities, flags
	}
	return used
}

// digits reads at most most digits at w[i] behind those of u and returns where
// they end. More than 19 overflow.
func digits(w *[fastRow]byte, i, most int, u uint64) (uint64, int) {
	for end := i + most; i < end; i++ {
		d := w[i&127] - '0'
		if d > 9 {
			break
		}
		u = u*10 + uint64(d)
	}
	return u, i
}

// powers of ten that a float64 holds exactly, as far as they are needed.
var powers = [20]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19}

// scanRow reads one row of any form.
func (p *page) scanRow(sc *scanner) error {
	var cells [5]any
	n := 0
	if err := sc.array(func() (err error) {
		if n == len(cells) {
			return sc.unexpected("a row of 5 cells")
		}
		cells[n], err = sc.value()
		n++
		return err
	}); err != nil {
		return err
	}
	id, ok := cells[0].(int64)
	if n != len(cells) || !ok {
		return fault.Errorf(fault.Invalid, "the answer has the row %.80q, want 5 cells, the first one an integer", fmt.Sprint(cells[:n]))
	}
	class := byte(0) // of the value, where another cell says so
	number, isInt := cells[2].(int64)
	if isInt { // of whatever class: JavaScript writes 5.0 as 5, and 1e18 in digits
		cells[2] = float64(number)
	}
	var r sample.Reject
	r.PointID.V = id
	for i, cell := range []*sample.Cell{&r.Timestamp, &r.Value, &r.Quality, &r.Flags} {
		cell.V = cells[i+1]
		_, isBlob := cell.V.([]byte)
		_, isText := cell.V.(string)
		if !isBlob && !isText {
			continue
		}
		if i != 1 {
			class, cell.V = cutClass(cell.V)
		}
		var err error
		if cell.V, err = literal(cell.V); err != nil {
			return err
		}
	}
	var ts float64
	switch v := r.Timestamp.V.(type) {
	case int64:
		ts = float64(v)
	case float64:
		ts = v
	default:
		return fault.Errorf(fault.Internal, "D1 sent a row of point %d at %.40q, which was not asked for", id, fmt.Sprint(v))
	}
	if err := p.advance(id, ts); err != nil {
		return err
	}
	if p.good(&r) {
		return nil
	}
	if isInt && class == 'i' {
		r.Value.V = number
	}
	r.Reason = source.RowReason(&r)
	p.Rejects = append(p.Rejects, r)
	return nil
}

// cutClass takes the letter of the value's class off a literal, which must have one.
func cutClass(cell any) (byte, any) {
	switch c := cell.(type) {
	case string:
		if c != "" {
			return c[0], c[1:]
		}
	case []byte:
		if len(c) > 0 {
			return c[0], c[1:]
		}
	}
	return 0, nil
}

// good appends the row as a sample if it can be one.
func (p *page) good(r *sample.Reject) bool {
	ts, ok := r.Timestamp.V.(int64)
	quality, okq := r.Quality.V.(int64)
	flags, okf := r.Flags.V.(int64)
	if !ok || !okq || !okf || uint64(quality) > math.MaxUint8 || uint64(flags) > math.MaxUint16 {
		return false
	}
	value := sample.Null
	switch v := r.Value.V.(type) {
	case nil:
	case float64:
		value = v
	default: // an INTEGER that came as a literal is none that a float64 holds
		return false
	}
	p.PointID = append(p.PointID, int32(r.PointID.V.(int64)))
	p.Append(ts, value, uint8(quality), uint16(flags))
	return true
}

// Count implements source.Source.
func (s *Source) Count(ctx context.Context, q source.Query) (map[int32]int64, error) {
	counts := make(map[int32]int64)
	doing := fmt.Sprintf("count %s", q.Days)
	if _, err := s.inspected(ctx, doing); err != nil {
		return nil, err
	}
	for _, text := range countsOf(q) {
		answers, err := s.query(ctx, doing, cloudflare.Read, []cloudflare.Statement{{SQL: text}})
		if err != nil {
			return nil, err
		}
		for _, row := range answers[0].rows {
			id, n, ok := countRow(row)
			if !ok {
				return nil, fault.Errorf(fault.Invalid, "%s: the answer has the row %v, want a point and a number", doing, row)
			}
			counts[id] += n
		}
	}
	return counts, nil
}

func countRow(row []any) (id int32, n int64, ok bool) {
	if len(row) != 2 {
		return 0, 0, false
	}
	i, ok1 := row[0].(int64)
	n, ok2 := row[1].(int64)
	return int32(i), n, ok1 && ok2 && i == int64(int32(i)) && n > 0
}

// countRows is about how many rows a statement may count, for D1 ends one that
// takes 30 s: at one a minute, 1,440 a day, for want of a better estimate.
const countRows = 2_000_000

// countsOf are the statements that count the rows of q.
func countsOf(q source.Query) []string {
	var texts []string
	const most = countRows / 1440
	for from := q.Days.From; from < q.Days.To; from += most {
		to := min(from+most, q.Days.To)
		for ids := range slices.Chunk(q.Points, min(maxIDs, max(1, most/int(to-from)))) {
			var b strings.Builder
			b.WriteString("SELECT point_id, count(*) FROM timeseries WHERE point_id ")
			writeIDs(&b, ids)
			fmt.Fprintf(&b, " AND timestamp >= %d AND timestamp < %d GROUP BY point_id", from.Start(), to.Start())
			texts = append(texts, b.String())
		}
	}
	return texts
}
