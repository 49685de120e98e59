package d1

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"etl/internal/cloudflare"
	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/sql"
)

// A chunk of cuts is pruned by a batch, which is a transaction: the marks of those
// that are good become Trimmed, they are recorded, and their rows go. Each
// statement chooses the cuts by the same conditions, of which the first changes
// one, done, and only the last the other, the rows. So all three choose the same.
//
// INVARIANT: the choice is made before the first row goes. The list of cuts is
// MATERIALIZED, and SQLite evaluates an IN that depends on no row of the outer
// table once, before the loop of the DELETE; a loop whose condition has a
// subquery also collects the keys of all rows before it deletes one.
const (
	cutRows = "timeseries t WHERE t.point_id = c.point AND t.timestamp >= c.day * 86400000 AND t.timestamp < (c.day + 1) * 86400000"
	// cutsWith are the cuts whose mark is in a state, $S.
	cutsWith = "(SELECT value->>0 AS point, value->>1 AS day, value->>2 AS run, value->>3 AS n FROM json_each(?1)) c" +
		" CROSS JOIN archive_marks m WHERE m.point_id = c.point AND m.day = c.day AND m.run = c.run AND m.done = $S AND c.n > 0"
)

// good is the list of cuts that are as they were when they were compared.
func good(state source.State) string {
	return "WITH good(point, day) AS MATERIALIZED (SELECT c.point, c.day FROM " + strings.ReplaceAll(cutsWith, "$S", strconv.Itoa(int(state))) +
		" AND (SELECT count(*) FROM " + cutRows + ") = c.n AND " + sql.LedgerWhole + ") "
}

var (
	pruneMarksSQL = good(source.Marked) + "UPDATE archive_marks SET done = 2 WHERE (point_id, day) IN (SELECT point, day FROM good) RETURNING point_id, day"
	pruneTrimsSQL = good(source.Trimmed) + "INSERT INTO archive_trims (point_id, day) SELECT point, day FROM good WHERE true ON CONFLICT DO NOTHING"
	pruneRowsSQL  = good(source.Trimmed) + "DELETE FROM timeseries WHERE (point_id, timestamp) IN (SELECT t.point_id, t.timestamp FROM good c CROSS JOIN " + cutRows + ")"
	// prunedSQL are the cuts that are found to be cut.
	prunedSQL = "SELECT c.point, c.day FROM " + strings.ReplaceAll(cutsWith, "$S", strconv.Itoa(int(source.Trimmed))) +
		" AND NOT EXISTS (SELECT 1 FROM " + cutRows + ")"
)

// cutBytes is where a list of cuts ends that is one parameter, of 2,000,000 bytes at most.
const cutBytes = 1_000_000

// jsonCuts is an array of [point, day, run, rows] for json_each, and how many of
// the cuts are in it: as many as have no more than so many rows, and at least one.
func jsonCuts(cuts []source.Cut, rows int64) (list string, n int) {
	b := []byte{'['}
	for size := int64(0); n < len(cuts) && (n == 0 || (size+cuts[n].Rows <= rows && len(b) < cutBytes)); n++ {
		u := cuts[n]
		size += max(u.Rows, 0)
		if n > 0 {
			b = append(b, ',')
		}
		b = append(strconv.AppendInt(append(b, '['), int64(u.Point), 10), ',')
		b = append(strconv.AppendInt(b, int64(u.Day), 10), ',')
		b = append(sample.AppendJSONString(b, u.Run), ',')
		b = append(strconv.AppendInt(b, u.Rows, 10), ']')
	}
	return string(append(b, ']')), n
}

// Prune implements source.Pruner, by a batch for each 100,000 rows. If D1 says
// that one was too much, less is asked of it.
func (s *Source) Prune(ctx context.Context, cuts []source.Cut) (cut []source.Slice, rows int64, err error) {
	defer func() {
		slices.SortFunc(cut, func(a, b source.Slice) int { return cmp.Or(cmp.Compare(a.Point, b.Point), cmp.Compare(a.Day, b.Day)) })
	}()
	most := s.sizes.prune
	doubt := 0 // how many of rest, from its start, are in a batch of unknown outcome
	try := 1
	for rest := source.SortCuts(cuts); len(rest) > 0; {
		list, n := jsonCuts(rest, most)
		doing := fmt.Sprintf("prune %d slices", n)
		answers, perr := s.inLedger(ctx, doing, cloudflare.Once, []cloudflare.Statement{
			{SQL: pruneMarksSQL, Params: []string{list}}, {SQL: pruneTrimsSQL, Params: []string{list}}, {SQL: pruneRowsSQL, Params: []string{list}}})
		if perr != nil && (!fault.Is(perr, fault.Unknown) || ctx.Err() != nil || try == repeats) {
			return cut, rows, perr
		}
		// Look before it is repeated, and after the repeat too: what had no answer
		// may have been done in between.
		if perr != nil || doubt > 0 {
			if answers, err = s.query(ctx, doing, cloudflare.Read, one(prunedSQL, list)); err != nil {
				return cut, rows, err
			}
		}
		gone, err := slicesOf(doing, answers[0])
		if err != nil {
			return cut, rows, err
		}
		var left []source.Cut
		for _, u := range rest[:n] {
			if gone[u.Slice] {
				cut, rows = append(cut, u.Slice), rows+u.Rows
			} else {
				left = append(left, u)
			}
		}
		doubt = max(doubt-n, 0)
		rest = rest[n:]
		if perr == nil {
			try = 1
			continue
		}
		if cloudflare.Shrink(perr) {
			most = max(most/2, 1)
		}
		if try++; len(left) < n {
			try = 1
		}
		doubt += len(left)
		rest = append(left, rest...)
	}
	return cut, rows, nil
}

// slicesOf are the rows of an answer of (point, day).
func slicesOf(doing string, a answer) (map[source.Slice]bool, error) {
	if err := a.check(doing, 2); err != nil {
		return nil, err
	}
	found := make(map[source.Slice]bool, len(a.rows))
	for _, row := range a.rows {
		point, ok1 := row[0].(int64)
		day, ok2 := row[1].(int64)
		sl := source.Slice{Point: int32(point), Day: utc.Day(day)}
		if !ok1 || !ok2 || point != int64(sl.Point) || day != int64(sl.Day) {
			return nil, unexpected(doing, row)
		}
		found[sl] = true
	}
	return found, nil
}
