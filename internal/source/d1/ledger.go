package d1

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"etl/internal/cloudflare"
	"etl/internal/fault"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/sql"
)

var _ source.Ledger = (*Source)(nil)

// A request whose reply is lost may be executed at any later time. So each
// attempt to claim signs with a token of its own: the run's id, and after a claim
// or a confirmation of unknown outcome id~2, id~3 and so on; and what is confirmed
// is the claim of the attempt that is known to have succeeded.
//
// INVARIANT: a mark is never confirmed by what was sent before the row that took
// its claim away. A claim that D1 executes only after its repeat signs with a
// token that nobody confirms: at worst the slice stays claimed, and the next run
// archives it again. A confirmation that D1 executes late finds only claims that
// were there when it was sent, for those after it sign with another token.
//
// For this to hold a run does not claim a slice while it confirms that slice.
type tokens struct {
	mu   sync.Mutex
	runs map[string]*attempts // only runs of which an outcome was unknown
}

type attempts struct {
	next   int                  // the number that the next claim signs with
	claims map[source.Slice]int // the number that confirms the slice, 1 if it is not there
}

// token is what attempt n of a run signs with.
func token(run string, n int) string {
	if n == 1 {
		return run
	}
	return run + "~" + strconv.Itoa(n)
}

// next is the number that a claim of the run signs with.
func (t *tokens) next(run string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.runs[run]; a != nil {
		return a.next
	}
	return 1
}

// spoil keeps claims of the run from signing with n again, and the given slices
// from being confirmed by any claim with n or less.
func (t *tokens) spoil(run string, n int, spoiled []source.Slice) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.runs[run]
	if a == nil {
		if t.runs == nil {
			t.runs = make(map[string]*attempts)
		}
		a = &attempts{claims: make(map[source.Slice]int)}
		t.runs[run] = a
	}
	a.next = max(a.next, n+1)
	for _, s := range spoiled {
		a.claims[s] = max(a.claims[s], n+1)
	}
}

// claimed says that attempt n is known to have claimed the slices.
func (t *tokens) claimed(run string, n int, slices []source.Slice) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.runs[run]; a != nil && n > 1 {
		for _, s := range slices {
			a.claims[s] = max(a.claims[s], n)
		}
	}
}

// of sorts slices by the number that confirms them.
func (t *tokens) of(run string, slices []source.Slice) map[int][]source.Slice {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.runs[run]
	if a == nil {
		return map[int][]source.Slice{1: slices}
	}
	by := make(map[int][]source.Slice)
	for _, s := range slices {
		n := max(a.claims[s], 1)
		by[n] = append(by[n], s)
	}
	return by
}

// jsonSlices is an array of [point, day] for json_each.
func jsonSlices(slices []source.Slice) string {
	b := make([]byte, 1, 2+16*len(slices))
	b[0] = '['
	for i, s := range slices {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		b = strconv.AppendInt(b, int64(s.Point), 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, int64(s.Day), 10)
		b = append(b, ']')
	}
	return string(append(b, ']'))
}

// The statements that write the ledger do nothing where it is not whole, which
// the first statement of their batch tells: without the triggers no mark could be
// trusted.
var (
	isWhole    = cloudflare.Statement{SQL: "SELECT " + sql.LedgerWhole}
	namedPairs = "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?1))"

	claimSQL = "REPLACE INTO archive_marks (point_id, day, run, done)" +
		" SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), ?2, 0 FROM json_each(?1) WHERE " + sql.LedgerWhole
	confirmSQL   = "UPDATE archive_marks SET done = 1 WHERE (point_id, day) IN " + namedPairs + " AND run = ?2 AND done = 0 AND " + sql.LedgerWhole
	confirmedSQL = "SELECT count(*) FROM archive_marks WHERE (point_id, day) IN " + namedPairs + " AND run = ?2 AND done > 0"

	revokeSQL  = "DELETE FROM archive_marks WHERE (point_id, day) IN " + namedPairs + " AND done = 1 AND " + sql.LedgerWhole
	revokedSQL = "SELECT count(*) FROM archive_marks WHERE (point_id, day) IN " + namedPairs + " AND done = 1"
)

// ledgerError is err, or what is behind it: a ledger that is not whole.
func (s *Source) ledgerError(ctx context.Context, doing string, err error) error {
	if !fault.Is(err, fault.Invalid) {
		return err
	}
	if answers, lerr := s.query(ctx, doing, cloudflare.Read, []cloudflare.Statement{isWhole}); lerr == nil && !whole(answers[0]) {
		return s.noLedger(doing)
	}
	return err
}

func (s *Source) noLedger(doing string) error {
	return s.migrateHint(fmt.Errorf("%s: %w", doing, source.NoLedger()))
}

// inLedger sends statements with isWhole before them, and returns the answers of
// the others.
func (s *Source) inLedger(ctx context.Context, doing string, a cloudflare.Access, stmts []cloudflare.Statement) ([]answer, error) {
	answers, err := s.write(ctx, doing, a, append([]cloudflare.Statement{isWhole}, stmts...))
	if err != nil {
		return nil, s.ledgerError(ctx, doing, err)
	}
	if !whole(answers[0]) {
		return nil, s.noLedger(doing)
	}
	return answers[1:], nil
}

// repeats is how often a write of unknown outcome is sent. Before each repeat
// comes a read, which waits, as the policy says, until D1 answers again.
const repeats = 5

// Claim implements source.Ledger: one batch, which is a transaction.
func (s *Source) Claim(ctx context.Context, run string, claim []source.Slice) error {
	if len(claim) == 0 {
		return nil
	}
	doing := fmt.Sprintf("claim %d slices", len(claim))
	for try := 1; ; try++ {
		n := s.tokens.next(run)
		var stmts []cloudflare.Statement
		for some := range slices.Chunk(claim, s.sizes.slices) {
			stmts = append(stmts, cloudflare.Statement{SQL: claimSQL, Params: []string{jsonSlices(some), token(run, n)}})
		}
		_, err := s.inLedger(ctx, doing, cloudflare.Once, stmts)
		if err == nil {
			s.tokens.claimed(run, n, claim)
			return nil
		}
		s.tokens.spoil(run, n, claim)
		if !fault.Is(err, fault.Unknown) || ctx.Err() != nil || try == repeats {
			return err
		}
		// To look whether the claim is there would tell nothing: it may be one of
		// this run from before. Under another token it is safe to repeat it.
		if _, err := s.query(ctx, doing, cloudflare.Read, []cloudflare.Statement{isWhole}); err != nil {
			return err
		}
	}
}

// Confirm implements source.Ledger: one batch, which is a transaction. If it had
// to be repeated the number is that of the slices that are marked by run now.
func (s *Source) Confirm(ctx context.Context, run string, confirm []source.Slice) (int, error) {
	if len(confirm) == 0 {
		return 0, nil
	}
	doing := fmt.Sprintf("confirm %d slices", len(confirm))
	last := s.tokens.next(run)
	by := s.tokens.of(run, confirm)
	var updates, counts []cloudflare.Statement
	for _, n := range slices.Sorted(maps.Keys(by)) {
		for some := range slices.Chunk(by[n], s.sizes.slices) {
			params := []string{jsonSlices(some), token(run, n)}
			updates = append(updates, cloudflare.Statement{SQL: confirmSQL, Params: params})
			counts = append(counts, cloudflare.Statement{SQL: confirmedSQL, Params: params})
		}
	}
	for try := 1; ; try++ {
		answers, err := s.inLedger(ctx, doing, cloudflare.Once, updates)
		if err == nil && try == 1 {
			n := 0
			for _, a := range answers {
				n += int(a.changes)
			}
			return n, nil
		}
		if err != nil {
			s.tokens.spoil(run, last, nil)
			if !fault.Is(err, fault.Unknown) || ctx.Err() != nil || try == repeats {
				return 0, err
			}
		}
		found, lerr := s.query(ctx, doing, cloudflare.Read, counts)
		if lerr != nil {
			return 0, lerr
		}
		n, lerr := sum(doing, found)
		if lerr != nil {
			return 0, lerr
		}
		// Of a batch all is done or nothing. None marked may also be because none
		// was claimed any more; the repeat tells.
		if err == nil || n > 0 {
			return n, nil
		}
	}
}

// sum adds up answers of one number each.
func sum(doing string, answers []answer) (int, error) {
	n := 0
	for _, a := range answers {
		if err := a.check(doing, 1); err != nil {
			return 0, err
		}
		for _, row := range a.rows {
			n += int(integer(row[0]))
		}
	}
	return n, nil
}

// Revoke implements source.Ledger: one batch, which is a transaction. If it had
// to be repeated the number is that of the marks that were there before it.
func (s *Source) Revoke(ctx context.Context, revoke []source.Slice) (int, error) {
	if len(revoke) == 0 {
		return 0, nil
	}
	doing := fmt.Sprintf("revoke the marks of %d slices", len(revoke))
	if err := s.begin(ctx, doing, cloudflare.Idempotent); err != nil {
		return 0, err
	}
	var deletes, counts []cloudflare.Statement
	for some := range slices.Chunk(revoke, s.sizes.slices) {
		params := []string{jsonSlices(some)}
		deletes = append(deletes, cloudflare.Statement{SQL: revokeSQL, Params: params})
		counts = append(counts, cloudflare.Statement{SQL: revokedSQL, Params: params})
	}
	found, err := s.inLedger(ctx, doing, cloudflare.Read, counts)
	if err != nil {
		return 0, err
	}
	before, err := sum(doing, found)
	if err != nil {
		return 0, err
	}
	for try := 1; ; try++ {
		answers, err := s.inLedger(ctx, doing, cloudflare.Once, deletes)
		if err == nil && try > 1 {
			return before, nil
		}
		if err == nil {
			n := 0
			for _, a := range answers {
				n += int(a.changes)
			}
			return n, nil
		}
		if !fault.Is(err, fault.Unknown) || ctx.Err() != nil || try == repeats {
			return 0, err
		}
		if _, err := s.query(ctx, doing, cloudflare.Read, []cloudflare.Statement{isWhole}); err != nil {
			return 0, err
		}
	}
}

// inPages reads rows of a table with the primary key (point_id, day), of these
// points on these days in order of (point, day), in pages.
func (s *Source) inPages(ctx context.Context, doing, table, more string, points []int32, days utc.Days, f func(sl source.Slice, row []any) error) error {
	if _, err := s.inspected(ctx, doing); err != nil {
		return err
	}
	last, inside := source.Slice{}, false
	for rest := points; len(rest) > 0; {
		some := rest[:min(len(rest), s.sizes.named)]
		ids := jsonIDs(some)
		answers, limit, err := s.ask(ctx, doing, s.sizes.marks, func(limit int) []cloudflare.Statement {
			stmt := cloudflare.Statement{SQL: pageOf(table, more, days, limit), Params: []string{ids}}
			if inside {
				stmt = cloudflare.Statement{SQL: pageAfter(table, more, days, last, limit), Params: []string{ids}}
			}
			return []cloudflare.Statement{isWhole, stmt}
		})
		if err != nil {
			return s.ledgerError(ctx, doing, err)
		}
		if !whole(answers[0]) {
			return s.noLedger(doing)
		}
		rows := answers[1].rows
		if err := answers[1].check(doing, 2+strings.Count(more, ",")); err != nil {
			return err
		}
		for _, row := range rows {
			point, ok1 := row[0].(int64)
			day, ok2 := row[1].(int64)
			sl := source.Slice{Point: int32(point), Day: utc.Day(day)}
			if !ok1 || !ok2 || point != int64(sl.Point) || day != int64(sl.Day) || (inside && (sl.Point < last.Point || sl.Point == last.Point && sl.Day <= last.Day)) {
				return unexpected(doing, row)
			}
			if err := f(sl, row); err != nil {
				return err
			}
			last, inside = sl, true
		}
		if len(rows) < limit {
			rest = rest[len(some):]
			continue
		}
		i, _ := slices.BinarySearch(rest, last.Point)
		rest = rest[i:]
	}
	return nil
}

func pageOf(table, more string, days utc.Days, limit int) string {
	return fmt.Sprintf("SELECT point_id, day%s FROM %s WHERE point_id IN %s AND day >= %d AND day < %d ORDER BY point_id, day LIMIT %d",
		more, table, named, days.From, days.To, limit)
}

// pageAfter is pageOf behind a slice of the first point. NOT keeps the condition
// from becoming a range of the key, which would scan the points between.
func pageAfter(table, more string, days utc.Days, last source.Slice, limit int) string {
	return fmt.Sprintf("SELECT point_id, day%s FROM %s WHERE point_id IN %s AND day >= %d AND day < %d AND NOT (point_id = %d AND day <= %d) ORDER BY point_id, day LIMIT %d",
		more, table, named, days.From, days.To, last.Point, last.Day, limit)
}

// Marks implements source.Ledger. The run of a mark is the token of the attempt
// that claimed it: the id of the run, or that and ~2 and so on.
func (s *Source) Marks(ctx context.Context, points []int32, days utc.Days, f func(source.Mark)) error {
	doing := fmt.Sprintf("read the marks of %s", days)
	run := "" // of the last mark: most share it
	return s.inPages(ctx, doing, "archive_marks", ", run, done", points, days, func(sl source.Slice, row []any) error {
		if r := text(row[2]); r != run {
			run = r
		}
		f(source.Mark{Slice: sl, Run: run, State: source.State(integer(row[3]))})
		return nil
	})
}

// Pruned implements source.Ledger, in order of (point, day).
func (s *Source) Pruned(ctx context.Context, points []int32, days utc.Days, f func(source.Slice)) error {
	doing := fmt.Sprintf("read what was trimmed of %s", days)
	return s.inPages(ctx, doing, "archive_trims", "", points, days, func(sl source.Slice, _ []any) error { f(sl); return nil })
}

// logSQL takes the heartbeat from the statement and not from D1's clock, so that
// a line that D1 writes late does not overwrite a newer one.
var logSQL = `INSERT INTO archive_state (run, command, status, started_at, heartbeat_at, archived_at,
	first_day, last_day, records_archived, files_written, bytes_written, error)
SELECT ?1, ?2, ?3, %d, %d, %s, %s, %s, %d, %d, %d, nullif(?4, '') WHERE ` + sql.LedgerWhole + `
ON CONFLICT (run) DO UPDATE SET command = excluded.command, status = excluded.status,
	started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at, archived_at = excluded.archived_at,
	first_day = excluded.first_day, last_day = excluded.last_day, records_archived = excluded.records_archived,
	files_written = excluded.files_written, bytes_written = excluded.bytes_written, error = excluded.error
WHERE archive_state.heartbeat_at IS NULL OR excluded.heartbeat_at >= archive_state.heartbeat_at`

// Log implements source.Journal. Doing it again changes nothing, and doing it
// after a later call does nothing.
func (s *Source) Log(ctx context.Context, r source.Run) error {
	const doing = "log the run"
	if err := s.begin(ctx, doing, cloudflare.Idempotent); err != nil {
		return err
	}
	now, err := s.now(ctx, doing)
	if err != nil {
		return err
	}
	finished, first, last := "NULL", "NULL", "NULL"
	if !r.Finished.IsZero() {
		finished = strconv.FormatInt(r.Finished.UnixMilli(), 10)
	}
	if !r.Days.Empty() {
		first, last = "'"+r.Days.From.String()+"'", "'"+(r.Days.To-1).String()+"'"
	}
	text := fmt.Sprintf(logSQL, r.Started.UnixMilli(), now.UnixMilli(), finished, first, last, r.Records, r.Files, r.Bytes)
	_, err = s.inLedger(ctx, doing, cloudflare.Idempotent, one(text, r.ID, r.Command, r.Status, r.Error))
	return err
}

// Runs implements source.Historian.
func (s *Source) Runs(ctx context.Context) ([]source.Run, error) {
	const doing = "read the log of runs"
	look, err := s.query(ctx, doing, cloudflare.Read, tableInfo("archive_state"))
	if err != nil {
		return nil, err
	}
	cols := columnsOf(look[0])
	if len(cols) == 0 {
		return nil, nil
	}
	if err := cols.Require("archive_state", append([]string{"run"}, sql.Columns("archive_state")...)...); err != nil {
		return nil, s.migrateHint(fmt.Errorf("%s: %w", doing, err))
	}
	answers, err := s.query(ctx, doing, cloudflare.Read, one(source.SelectRuns))
	if err != nil {
		return nil, err
	}
	if err := answers[0].check(doing, source.RunCells); err != nil {
		return nil, err
	}
	var runs []source.Run
	for _, row := range answers[0].rows {
		runs = append(runs, source.RunOf([source.RunCells]any(row)))
	}
	slices.Reverse(runs)
	return runs, nil
}

const silentRuns = "status = 'running' AND (heartbeat_at IS NULL OR heartbeat_at < %d)"

// CloseCrashed implements source.Journal. Which runs were closed is read from
// their lines, so that a repeat after a lost reply knows them too.
func (s *Source) CloseCrashed(ctx context.Context, silent time.Duration) ([]string, error) {
	const doing = "close crashed runs"
	if err := s.begin(ctx, doing, cloudflare.Idempotent); err != nil {
		return nil, err
	}
	now, err := s.now(ctx, doing)
	if err != nil {
		return nil, err
	}
	where := fmt.Sprintf(silentRuns, now.Add(-silent).UnixMilli())
	answers, err := s.inLedger(ctx, doing, cloudflare.Read, one("SELECT run FROM archive_state WHERE "+where))
	if err != nil || len(answers[0].rows) == 0 { // as nearly always
		return nil, err
	}
	found, err := answers[0].texts(doing)
	if err != nil {
		return nil, err
	}
	closed := fmt.Sprintf("SET status = 'crashed', archived_at = %d, error = 'no heartbeat; closed by a later run'", now.UnixMilli())
	answers, err = s.inLedger(ctx, doing, cloudflare.Idempotent, append(
		one("UPDATE archive_state "+closed+" WHERE "+where+" AND "+sql.LedgerWhole),
		one(fmt.Sprintf("SELECT run FROM archive_state WHERE status = 'crashed' AND archived_at = %d", now.UnixMilli()))...))
	if err != nil {
		return nil, err
	}
	runs, err := answers[1].texts(doing)
	// One that was closed in the same millisecond before is not ours.
	runs = slices.DeleteFunc(runs, func(r string) bool { return !slices.Contains(found, r) })
	slices.Sort(runs)
	return runs, err
}
