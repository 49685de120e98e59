package d1

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"etl/internal/cloudflare"
	"etl/internal/source"
	"etl/internal/utc"
)

var _ source.Gauger = (*Source)(nil)

// Size implements source.Gauger: what an answer's meta says of the database's size
// after it. It reads no row.
func (s *Source) Size(ctx context.Context) (int64, error) {
	const doing = "measure the database"
	answers, err := s.query(ctx, doing, cloudflare.Read, one("SELECT 1"))
	if err != nil {
		return 0, err
	}
	if answers[0].size <= 0 {
		return 0, fmt.Errorf("%s: the answer does not tell its size", doing)
	}
	return answers[0].size, nil
}

// Marked implements source.Gauger, by one request for 50,000 points. The bits come as
// text, since JSON carries 53 of them.
func (s *Source) Marked(ctx context.Context, points []int32, days utc.Days, f func(id int32, days uint64)) error {
	doing := fmt.Sprintf("read the marks of %s", days)
	if _, err := s.inspected(ctx, doing); err != nil {
		return err
	}
	stmt := fmt.Sprintf("SELECT point_id, CAST(sum(1 << (day - %d)) AS TEXT) FROM archive_marks WHERE point_id IN %s AND day >= %d AND day < %d AND done > 0 GROUP BY point_id ORDER BY point_id",
		days.From, named, days.From, days.To)
	for some := range slices.Chunk(points, s.sizes.named) {
		answers, err := s.inLedger(ctx, doing, cloudflare.Read, one(stmt, jsonIDs(some)))
		if err != nil {
			return err
		}
		if err := answers[0].check(doing, 2); err != nil {
			return err
		}
		for _, row := range answers[0].rows {
			id, ok := row[0].(int64)
			bits, err := strconv.ParseUint(text(row[1]), 10, 64)
			if _, asked := slices.BinarySearch(some, int32(id)); !ok || !asked || err != nil {
				return unexpected(doing, row)
			}
			f(int32(id), bits)
		}
	}
	return nil
}

// Newest implements source.Gauger, by one request for 50,000 points.
func (s *Source) Newest(ctx context.Context, points []int32, from, to int64, f func(id int32, ts int64)) error {
	const doing = "find the newest samples"
	if _, err := s.inspected(ctx, doing); err != nil {
		return err
	}
	stmt := fmt.Sprintf("SELECT j.value, (SELECT timestamp FROM timeseries WHERE point_id = j.value AND timestamp >= %d AND timestamp < %d AND %s ORDER BY timestamp DESC LIMIT 1) FROM json_each(?1) j",
		from, to, source.HoldsSample)
	return s.seeks(ctx, doing, stmt, points, 2, func(id int32, row []any) error {
		if row[1] == nil {
			return nil
		}
		ts, ok := row[1].(int64)
		if !ok || ts < from || ts >= to {
			return unexpected(doing, row)
		}
		f(id, ts)
		return nil
	})
}

// seeks calls f with the answer of stmt for each of the points, in their order: a row
// that begins with the point, of so many columns. All but the first are a seek each, of
// which a request makes 50,000.
func (s *Source) seeks(ctx context.Context, doing, stmt string, points []int32, columns int, f func(id int32, row []any) error) error {
	for some := range slices.Chunk(points, max(1, s.sizes.named/(columns-1))) {
		answers, err := s.query(ctx, doing, cloudflare.Read, one(stmt, jsonIDs(some)))
		if err != nil {
			return err
		}
		if err := answers[0].check(doing, columns); err != nil {
			return err
		}
		if len(answers[0].rows) != len(some) {
			return fmt.Errorf("%s: %d points were asked for, the answer has %d", doing, len(some), len(answers[0].rows))
		}
		for i, row := range answers[0].rows {
			if id, ok := row[0].(int64); !ok || id != int64(some[i]) {
				return unexpected(doing, row)
			}
			if err := f(some[i], row); err != nil {
				return err
			}
		}
	}
	return nil
}

// Quality implements source.Gauger, by one request for so many points that it makes
// 50,000 seeks.
func (s *Source) Quality(ctx context.Context, points []int32, from, to int64, perPoint int, f func(id int32, looked, bad int)) error {
	const doing = "look at the quality of readings"
	if _, err := s.inspected(ctx, doing); err != nil {
		return err
	}
	columns := []string{"j.value"}
	step := (to - from) / int64(perPoint)
	for k := range perPoint {
		// As source.QualityInstant has it; a test holds the two equal.
		columns = append(columns, fmt.Sprintf(`(SELECT quality < 192 FROM timeseries WHERE point_id = j.value
			AND timestamp >= %d AND timestamp <= %d + ((j.value * 40503 & 65535) * %d >> 16) ORDER BY timestamp DESC LIMIT 1)`, from, from+int64(k)*step, step))
	}
	stmt := "SELECT " + strings.Join(columns, ", ") + " FROM json_each(?1) j"
	return s.seeks(ctx, doing, stmt, points, 1+perPoint, func(id int32, row []any) error {
		looked, bad := 0, 0
		for _, cell := range row[1:] {
			if cell != nil {
				looked++
				bad += int(integer(cell))
			}
		}
		f(id, looked, bad)
		return nil
	})
}
