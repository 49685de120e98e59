package d1

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf8"

	"etl/internal/cloudflare"
	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
)

// A double goes to D1 as two integers, mantissa and exponent, whose product with
// a power of two is exact: the mantissa has 53 bits at most, which a double holds,
// and a power of two is one of the results that pow gives exactly. ±Infinity is
// ±1 times 2^1024, NULL is null.
//
// A decimal would be shorter (35 bytes a row instead of 48 at four digits behind
// the point), but which double SQLite makes of it depends on its version and on
// how it was built: of 100,000 random doubles in 17 digits 3.40 on x86-64 makes
// 540 another one, 3.53 none. D1 does not tell which one it runs.
//
// doubleOf is the SQL that makes it of two expressions.
func doubleOf(mantissa, exponent string) string {
	return "CAST(" + mantissa + " AS REAL) * pow(2, " + exponent + ")"
}

// appendDouble appends mantissa and exponent.
func appendDouble(b []byte, v float64) []byte {
	switch {
	case v != v:
		return append(b, "null,0"...)
	case math.IsInf(v, 1):
		return append(b, "1,1024"...)
	case math.IsInf(v, -1):
		return append(b, "-1,1024"...)
	case v == 0:
		return append(b, "0,0"...)
	}
	f, exp := math.Frexp(v)
	m := int64(f * (1 << 53)) // a whole number
	zeros := bits.TrailingZeros64(uint64(m))
	b = strconv.AppendInt(b, m>>zeros, 10)
	b = append(b, ',')
	return strconv.AppendInt(b, int64(exp-53+zeros), 10)
}

// restoreBytes is where a list of samples ends that is one parameter, of
// 2,000,000 bytes at most. One has 90 at most.
const restoreBytes = 1_500_000

// appendSamples appends an array of [point, timestamp, mantissa, exponent,
// quality, flags] for json_each of the samples from i, most of them at most, and
// returns where it ends.
func appendSamples(b []byte, batch *sample.Batch, i, most int) (list []byte, end int) {
	b = append(b, '[')
	for end = i; end < batch.Len() && end-i < most && len(b) < restoreBytes; end++ {
		if end > i {
			b = append(b, ',')
		}
		b = append(appendColumns(appendKey(append(b, '['), batch, end), batch, end), ']')
	}
	return append(b, ']'), end
}

// appendCorrections is appendSamples for Correct: the columns of the new sample
// follow those of the old one.
func appendCorrections(b []byte, from, to *sample.Batch, i, most int) (list []byte, end int) {
	b = append(b, '[')
	for end = i; end < from.Len() && end-i < most && len(b) < restoreBytes; end++ {
		if end > i {
			b = append(b, ',')
		}
		b = append(appendColumns(appendKey(append(b, '['), from, end), from, end), ',')
		b = append(appendColumns(b, to, end), ']')
	}
	return append(b, ']'), end
}

// appendKey appends point and timestamp, each with a comma.
func appendKey(b []byte, batch *sample.Batch, i int) []byte {
	b = append(strconv.AppendInt(b, int64(batch.PointID[i]), 10), ',')
	return append(strconv.AppendInt(b, batch.TS[i], 10), ',')
}

// appendColumns appends mantissa, exponent, quality and flags.
func appendColumns(b []byte, batch *sample.Batch, i int) []byte {
	b = append(appendDouble(b, batch.Value[i]), ',')
	b = append(strconv.AppendUint(b, uint64(batch.Quality[i]), 10), ',')
	return strconv.AppendUint(b, uint64(batch.Flags[i]), 10)
}

var restoreSQL = "INSERT INTO timeseries (point_id, timestamp, value, quality, flags) SELECT value->>0, value->>1, " +
	doubleOf("value->>2", "value->>3") + ", value->>4, value->>5 FROM json_each(?1) WHERE true"

// correctSQL looks each sample up by its key and inserts the new one, which becomes
// an update, for the key is there.
var correctSQL = "INSERT INTO timeseries (point_id, timestamp, value, quality, flags) SELECT t.point_id, t.timestamp, " +
	doubleOf("j.value->>6", "j.value->>7") + ", j.value->>8, j.value->>9 FROM json_each(?1) j CROSS JOIN timeseries t" +
	" WHERE t.point_id = j.value->>0 AND t.timestamp = j.value->>1 AND t.value IS " + doubleOf("j.value->>2", "j.value->>3") +
	" AND t.quality IS j.value->>4 AND t.flags IS j.value->>5" + source.UpsertSample(false)

// Correct implements source.Restorer: one statement for each 1,500,000 bytes, as Restore.
func (s *Source) Correct(ctx context.Context, from, to *sample.Batch) error {
	return s.put(ctx, fmt.Sprintf("correct %d samples", from.Len()), correctSQL, from.Len(), func(b []byte, i, most int) ([]byte, int) {
		return appendCorrections(b, from, to, i, most)
	})
}

// Restore implements source.Restorer: a statement for each 1,500,000 bytes, some
// 32,000 rows. If D1 says that one was too much, less is asked of it.
//
// A statement whose reply is lost is repeated, and may be executed later as well.
// Without keep that puts what is restored over a row that was changed in between.
func (s *Source) Restore(ctx context.Context, b *sample.Batch, keep bool) error {
	return s.put(ctx, fmt.Sprintf("restore %d samples", b.Len()), restoreSQL+source.UpsertSample(keep), b.Len(), func(list []byte, i, most int) ([]byte, int) {
		return appendSamples(list, b, i, most)
	})
}

// put executes text with lists of n samples, as many at a time as go. list appends
// one to b: the samples from i, most of them at most; it returns where that ends.
func (s *Source) put(ctx context.Context, doing, text string, n int, list func(b []byte, i, most int) ([]byte, int)) error {
	if n == 0 {
		return nil
	}
	if err := s.begin(ctx, doing, cloudflare.Idempotent); err != nil {
		return err
	}
	if _, err := s.inspected(ctx, doing); err != nil {
		return err
	}
	most := s.sizes.restore
	var b []byte
	for i := 0; i < n; {
		if err := s.begin(ctx, doing, cloudflare.Idempotent); err != nil {
			return err
		}
		var end int
		var answers []answer
		err := s.db.Page(ctx, cloudflare.Idempotent, func(last error) []cloudflare.Statement {
			if cloudflare.Shrink(last) {
				most = max((end-i)/2, 1)
			}
			b, end = list(b[:0], i, most)
			return one(text, string(b))
		}, func(r io.Reader) (err error) {
			answers, err = readAnswers(r, 1)
			return err
		})
		if err != nil {
			return writeHint(fmt.Errorf("%s: %w", doing, err))
		}
		s.db.Billed(answers[0].rowsRead, answers[0].rowsWritten)
		i = end
	}
	return nil
}

// pointBytes is where a list of points ends that is one parameter, of 2,000,000
// bytes at most.
const pointBytes = 1_000_000

// jsonPoints are arrays of [id, name, …], with the columns that values gives; a
// number that is no integer is [mantissa, exponent].
func jsonPoints(points []sample.Point, values func(sample.Point) []any) (lists []string, err error) {
	var b []byte
	for _, p := range points {
		switch {
		case b == nil:
			b = append(b, '[')
		case len(b) > pointBytes:
			lists, b = append(lists, string(append(b, ']'))), append(b[:0], '[')
		default:
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, '['), int64(p.ID), 10)
		for _, v := range append([]any{p.Name}, values(p)...) {
			b = append(b, ',')
			switch v := v.(type) {
			case nil:
				b = append(b, "null"...)
			case int64:
				b = strconv.AppendInt(b, v, 10)
			case float64:
				b = append(appendDouble(append(b, '['), v), ']')
			case string:
				if !utf8.ValidString(v) || strings.Contains(v, "\x00") {
					return nil, fault.Errorf(fault.Invalid, "point %d: %q is no text that D1 takes", p.ID, v)
				}
				b = sample.AppendJSONString(b, v)
			}
		}
		b = append(b, ']')
	}
	if b != nil {
		lists = append(lists, string(append(b, ']')))
	}
	return lists, nil
}

const (
	// samePoint is true of a row p of points that is the point j. A name that is no
	// text counts as "", as Points gives it.
	samePoint   = "p.id = j.value->>0 AND iif(typeof(p.name) = 'text', p.name, '') = j.value->>1"
	otherPoints = "FROM json_each(?1) j CROSS JOIN points p WHERE (p.id = j.value->>0 OR p.name = j.value->>1) AND NOT (" + samePoint + ") LIMIT 1"
)

// RestorePoints implements source.Restorer: one batch, which is a transaction,
// after a look at what is there.
func (s *Source) RestorePoints(ctx context.Context, points []sample.Point) error {
	doing := fmt.Sprintf("restore %d points", len(points))
	points, err := source.Distinct(points)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if err := s.begin(ctx, doing, cloudflare.Idempotent); err != nil || len(points) == 0 {
		return err
	}
	t, err := s.inspected(ctx, doing)
	if err != nil {
		return err
	}
	columns, values := source.PointColumns(t.Points)
	lists, err := jsonPoints(points, values)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if err := s.otherPoints(ctx, doing, lists); err != nil {
		return err
	}
	cells := make([]string, len(columns))
	for i, c := range columns {
		cells[i] = fmt.Sprintf("j.value->>%d", i+2)
		if c == "min_value" || c == "max_value" {
			cells[i] = doubleOf(fmt.Sprintf("j.value->>'$[%d][0]'", i+2), fmt.Sprintf("j.value->>'$[%d][1]'", i+2))
		}
	}
	text := source.InsertPoint(columns) + " SELECT " + strings.Join(append([]string{"j.value->>0", "j.value->>1"}, cells...), ", ") +
		" FROM json_each(?1) j WHERE NOT EXISTS (SELECT 1 FROM points p WHERE " + samePoint + ")"
	var stmts []cloudflare.Statement
	for _, list := range lists {
		stmts = append(stmts, cloudflare.Statement{SQL: text, Params: []string{list}})
	}
	_, err = s.write(ctx, doing, cloudflare.Idempotent, stmts)
	if fault.Is(err, fault.Invalid) {
		// A key that is there already: a point that was made since the look.
		if other := s.otherPoints(ctx, doing, lists); other != nil {
			return other
		}
	}
	return err
}

// otherPoints is the error of a point of the lists whose id or name another has.
func (s *Source) otherPoints(ctx context.Context, doing string, lists []string) error {
	look := "SELECT j.value->>0, j.value->>1, " + literalOf("p.id", "") + ", " + literalOf("p.name", "") + " " + otherPoints
	for _, list := range lists {
		answers, err := s.query(ctx, doing, cloudflare.Read, one(look, list))
		if err != nil {
			return err
		}
		if err := answers[0].check(doing, 4); err != nil {
			return err
		}
		for _, row := range answers[0].rows {
			id, err := literal(row[2])
			if err != nil {
				return fmt.Errorf("%s: %w", doing, err)
			}
			other, err := literal(row[3])
			if err != nil {
				return fmt.Errorf("%s: %w", doing, err)
			}
			if id == row[0] {
				return fmt.Errorf("%s: %w", doing, source.OtherName(int32(integer(row[0])), text(row[1]), text(other)))
			}
			return fmt.Errorf("%s: %w", doing, source.OtherID(text(row[1]), int32(integer(row[0])), id))
		}
	}
	return nil
}
