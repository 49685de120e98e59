package d1

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"etl/internal/cloudflare"
	"etl/internal/fault"
	"etl/internal/source"
	"etl/sql"
)

// What D1 allows of a look at the schema: SELECT from sqlite_schema, and as
// statements PRAGMA table_info, table_list, index_list and index_info of tables
// that are not its own (developers.cloudflare.com/d1/sql-api/sql-statements/).
// The table-valued pragma_table_info() and the like are not used: they are not
// documented, and a query that lets them touch a table of D1's own (_cf_…) is
// refused as a whole with "not authorized: SQLITE_AUTH".

func one(sql string, params ...string) []cloudflare.Statement {
	return []cloudflare.Statement{{SQL: sql, Params: params}}
}

// write is query for what changes something.
func (s *Source) write(ctx context.Context, doing string, a cloudflare.Access, stmts []cloudflare.Statement) ([]answer, error) {
	answers, err := s.query(ctx, doing, a, stmts)
	if a != cloudflare.Read {
		err = writeHint(err)
	}
	return answers, err
}

// writeHint says of a write that is not allowed what a token needs for it.
func writeHint(err error) error {
	if cloudflare.Denied(err) {
		err = fault.Hint(err, "%s. To write to the source it needs D1 Edit; a token that may only read needs --no-state", fault.HintOf(err))
	}
	return err
}

// ask is query for reads of which less can be asked: stmts makes the statements
// for a limit of rows, which is halved whenever D1 says that it was too much. It
// returns the limit of the answer.
func (s *Source) ask(ctx context.Context, doing string, limit int, stmts func(limit int) []cloudflare.Statement) ([]answer, int, error) {
	if err := s.begin(ctx, doing, cloudflare.Read); err != nil {
		return nil, 0, err
	}
	var answers []answer
	n := 0
	err := s.db.Page(ctx, cloudflare.Read, func(last error) []cloudflare.Statement {
		if cloudflare.Shrink(last) {
			limit = max(limit/2, 1)
		}
		list := stmts(limit)
		n = len(list)
		return list
	}, func(r io.Reader) (err error) {
		answers, err = readAnswers(r, n)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", doing, err)
	}
	for _, a := range answers {
		s.db.Billed(a.rowsRead, a.rowsWritten)
	}
	return answers, limit, nil
}

func (s *Source) migrateHint(err error) error {
	return fault.Hint(err, "run `etl migrate --source d1://%s`: it adds what is missing and loses no row", s.db.ID())
}

// check refuses an answer whose rows have not as many columns as were asked for.
func (a answer) check(doing string, columns int) error {
	if len(a.rows) > 0 && len(a.columns) != columns {
		return fault.Errorf(fault.Invalid, "%s: the answer has the columns %.80q, %d were asked for", doing, a.columns, columns)
	}
	return nil
}

// ids are the rows of an answer of one column of points.
func (a answer) ids(doing string) ([]int32, error) {
	if err := a.check(doing, 1); err != nil {
		return nil, err
	}
	var ids []int32
	for _, row := range a.rows {
		id, ok := row[0].(int64)
		if !ok || id != int64(int32(id)) {
			return nil, unexpected(doing, row)
		}
		ids = append(ids, int32(id))
	}
	return ids, nil
}

// texts are the rows of an answer of one column of text.
func (a answer) texts(doing string) ([]string, error) {
	if err := a.check(doing, 1); err != nil {
		return nil, err
	}
	var ts []string
	for _, row := range a.rows {
		ts = append(ts, text(row[0]))
	}
	return ts, nil
}

// unexpected is the error of an answer that no statement of ours has.
func unexpected(doing string, row []any) error {
	return fault.Errorf(fault.Invalid, "%s: the answer has the row %.80s, which is not what was asked for", doing, fmt.Sprint(row))
}

// integer is a cell as an integer: JSON writes 5.0 as 5.
func integer(cell any) int64 {
	n, _ := cell.(int64)
	return n
}

func text(cell any) string {
	t, _ := cell.(string)
	return t
}

// inspected returns what the tables that are read look like, or an Invalid error
// if they are not fit for it. It asks once; only Migrate makes it ask again, so
// that who changes the tables by other means opens the source anew.
func (s *Source) inspected(ctx context.Context, doing string) (*source.Tables, error) {
	if t := s.tables.Load(); t != nil {
		return t, nil
	}
	answers, err := s.query(ctx, doing, cloudflare.Read, append(tableInfo("points", "timeseries"), cloudflare.Statement{SQL: "PRAGMA index_list(timeseries)"}))
	if err != nil {
		return nil, err
	}
	points, series := columnsOf(answers[0]), columnsOf(answers[1])
	unique, err := s.unique(ctx, doing, series, answers[2])
	if err != nil {
		return nil, err
	}
	t, err := source.FitToRead(points, series, unique)
	if err != nil {
		return nil, s.migrateHint(fmt.Errorf("%s: %w", doing, err))
	}
	s.tables.Store(t)
	return t, nil
}

func tableInfo(tables ...string) []cloudflare.Statement {
	var stmts []cloudflare.Statement
	for _, t := range tables {
		stmts = append(stmts, cloudflare.Statement{SQL: "PRAGMA table_info(" + t + ")"})
	}
	return stmts
}

// columnsOf reads the answer of PRAGMA table_info, no columns if there is no such table.
func columnsOf(a answer) source.Columns {
	var cols source.Columns
	for _, row := range a.rows {
		if len(row) < 6 { // cid, name, type, notnull, dflt_value, pk
			continue
		}
		c := source.Column{Name: strings.ToLower(text(row[1])), Type: strings.ToUpper(text(row[2])), NotNull: integer(row[3]) != 0, Key: int(integer(row[5]))}
		c.Required = c.NotNull && row[4] == nil && c.Key == 0
		cols = append(cols, c)
	}
	return cols
}

// unique reports whether timeseries has a unique key on (point_id, timestamp):
// its primary key, or an index of those that PRAGMA index_list lists.
func (s *Source) unique(ctx context.Context, doing string, series source.Columns, list answer) (bool, error) {
	var key [3]string
	n := 0
	for _, c := range series {
		if c.Key > 0 {
			n++
			key[min(c.Key, 2)] = c.Name
		}
	}
	if n == 2 && key[1] == "point_id" && key[2] == "timestamp" {
		return true, nil
	}
	var stmts []cloudflare.Statement
	for _, row := range list.rows {
		if len(row) >= 5 && integer(row[2]) == 1 && integer(row[4]) == 0 { // seq, name, unique, origin, partial
			stmts = append(stmts, cloudflare.Statement{SQL: `PRAGMA index_info("` + strings.ReplaceAll(text(row[1]), `"`, `""`) + `")`})
		}
	}
	if stmts == nil {
		return false, nil
	}
	answers, err := s.query(ctx, doing, cloudflare.Read, stmts)
	if err != nil {
		return false, err
	}
	for _, a := range answers {
		var names []string
		for _, row := range a.rows { // seqno, cid, name
			if len(row) >= 3 {
				names = append(names, strings.ToLower(text(row[2])))
			}
		}
		if strings.Join(names, ",") == "point_id,timestamp" {
			return true, nil
		}
	}
	return false, nil
}

// clock is the clock of D1 as an answer told it, carried on by this computer's.
type clock struct {
	mu       sync.Mutex
	told, at time.Time
	last     time.Time // that was given out
}

// clockSQL is the clock of D1 in milliseconds, in whatever statement is sent anyway.
const clockSQL = "CAST(unixepoch('subsec') * 1000 AS INTEGER)"

func (c *clock) set(ms int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told, c.at = time.UnixMilli(ms), time.Now()
}

// now is the source's clock, which never goes back here. It asks D1 once if no
// answer has told the time yet.
func (s *Source) now(ctx context.Context, doing string) (time.Time, error) {
	s.clock.mu.Lock()
	known := !s.clock.told.IsZero()
	s.clock.mu.Unlock()
	if s.o.Now == nil && !known {
		answers, err := s.query(ctx, doing, cloudflare.Read, one("SELECT "+clockSQL))
		if err != nil {
			return time.Time{}, err
		}
		if err := s.tell(doing, answers[0], 0); err != nil {
			return time.Time{}, err
		}
	}
	s.clock.mu.Lock()
	defer s.clock.mu.Unlock()
	now := s.clock.told.Add(time.Since(s.clock.at))
	if s.o.Now != nil {
		now = s.o.Now()
	}
	if now.After(s.clock.last) {
		s.clock.last = now
	}
	return s.clock.last, nil
}

// tell sets the clock from a column of the one row of an answer.
func (s *Source) tell(doing string, a answer, column int) error {
	if len(a.rows) != 1 || len(a.rows[0]) <= column || integer(a.rows[0][column]) == 0 {
		return fault.Errorf(fault.Invalid, "%s: the answer does not tell the time", doing)
	}
	s.clock.set(integer(a.rows[0][column]))
	return nil
}

// whole reports whether the first cell of an answer, LedgerWhole, says so.
func whole(a answer) bool {
	return len(a.rows) == 1 && len(a.rows[0]) > 0 && integer(a.rows[0][0]) == 1
}

// Info implements source.Source, by one request.
func (s *Source) Info(ctx context.Context) (source.Info, error) {
	const doing = "identify the source"
	if _, err := s.inspected(ctx, doing); err != nil {
		return source.Info{}, err
	}
	const about = ", " + clockSQL + ", (SELECT CAST(source_id AS TEXT) FROM archive_source LIMIT 1)"
	answers, err := s.query(ctx, doing, cloudflare.Read, one("SELECT "+sql.LedgerWhole+about))
	if fault.Is(err, fault.Invalid) { // there is no archive_source
		answers, err = s.query(ctx, doing, cloudflare.Read, one("SELECT "+sql.LedgerWhole+", "+clockSQL+", NULL"))
	}
	if err != nil {
		return source.Info{}, err
	}
	if err := s.tell(doing, answers[0], 1); err != nil {
		return source.Info{}, err
	}
	if err := answers[0].check(doing, 3); err != nil {
		return source.Info{}, err
	}
	now, err := s.now(ctx, doing)
	row := answers[0].rows[0]
	return source.Info{ID: text(row[2]), Now: now, Ledger: whole(answers[0])}, err
}

// Bookmark implements source.TimeTraveler.
func (s *Source) Bookmark(ctx context.Context) (string, error) {
	const doing = "ask for the Time Travel bookmark"
	if err := s.begin(ctx, doing, cloudflare.Read); err != nil {
		return "", err
	}
	at, err := s.db.Bookmark(ctx)
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	return at, nil
}
