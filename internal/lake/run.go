package lake

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/duckdb/duckdb-go/v2"
	"github.com/dustin/go-humanize"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/manifests"
)

// Query is a question: one SELECT, values for its parameters ($name), and the
// tiers that answer.
type Query struct {
	SQL    string
	Params map[string]string
	Tier   Tier
}

// Stats is what a query cost, and where its time went.
type Stats struct {
	Rows         int64         `json:"rows"`
	Files        int           `json:"files"` // month files that it could touch
	BytesFetched int64         `json:"bytes_fetched"`
	HotRows      int64         `json:"hot_rows"`
	Replans      int           `json:"replans"`
	Plan         time.Duration `json:"plan_ns"`
	Catalog      time.Duration `json:"catalog_ns"`
	Fetch        time.Duration `json:"fetch_ns"`
	Extract      time.Duration `json:"extract_ns"`
	Run          time.Duration `json:"run_ns"`
	Total        time.Duration `json:"total_ns"`
}

// HotRange is a part of the hot tier that a query reads: days of some points.
type HotRange struct {
	Points int       `json:"points"`
	From   time.Time `json:"from"`
	To     time.Time `json:"to"` // exclusive
}

// Explanation is what a query would touch.
type Explanation struct {
	Statement string `json:"statement"`
	// Planned is false where nothing could be read off the plan, for the reason
	// Why: then everything is taken.
	Planned    bool       `json:"planned"`
	Why        string     `json:"why,omitempty"`
	Scans      []string   `json:"scans"` // the tables of the lake and the conditions on their regions
	FirstMonth string     `json:"first_month,omitempty"`
	LastMonth  string     `json:"last_month,omitempty"`
	Months     int        `json:"months"`
	Points     int        `json:"points"` // that have a month file which it touches
	Files      int        `json:"files"`
	Bytes      int64      `json:"bytes"`
	Fetch      int        `json:"fetch_files"` // those of the files that are not in the cache
	FetchBytes int64      `json:"fetch_bytes"`
	Hot        []HotRange `json:"hot"`
	HotRows    int64      `json:"hot_rows"` // estimated
}

// plan is a statement and all that has to be local before it can run.
type plan struct {
	stmt *statement
	sql  string // the statement as it runs: see simplify
	tier Tier
	// verdict is to come while the query is done by what may have changed.
	verdict *verdict
	kept    *kept // the rows that were read of the hot tier while it was to come
	newest  *kept // the same of its latest ones

	scans []scan
	why   string // where nothing could be read off its plan
	// pastBad goes past months whose manifests can not be read: whoever sets it looks
	// at the catalog's Bad.
	pastBad bool

	files []selectedFile
	hot   *hotPlan
	stats Stats
	start time.Time
}

// selectedFile is a month file that a query can touch, and its archived days.
type selectedFile struct {
	File
	archived utc.Set
}

// reads reports whether a scan of the plan reads the table.
func (p *plan) reads(table string) bool {
	return slices.ContainsFunc(p.scans, func(s scan) bool { return s.Table == table })
}

// where is the condition on regions of all scans of a table together.
func (p *plan) where(table string) string {
	var parts []string
	for _, s := range p.scans {
		if s.Table == table && !slices.Contains(parts, s.Where) {
			parts = append(parts, s.Where)
		}
	}
	return "((" + strings.Join(parts, ") OR (") + "))"
}

// bounds are those of ts over all scans of samples, in Unix milliseconds, inclusive.
func (p *plan) bounds() (from, to int64) {
	from, to = math.MaxInt64, math.MinInt64
	for _, s := range p.scans {
		if s.Table == "samples" {
			from, to = min(from, s.From), max(to, s.To)
		}
	}
	return from, to
}

// attempts bounds how often a query is planned because the archive changes under it.
const attempts = 4

// Explain says what a query would touch; it fetches and extracts nothing.
func (l *Lake) Explain(ctx context.Context, q Query) (*Explanation, error) {
	h := l.listen(ctx, q.SQL)
	defer h.stop()
	if err := l.lock(ctx); err != nil {
		return nil, err
	}
	defer l.unlock(ctx, nil)
	p, err := l.prepare(ctx, q, h, l.choose)
	if err := errors.Join(userError(ctx, err), l.done(ctx, err)); err != nil {
		return nil, err
	}
	e := &Explanation{Statement: p.stmt.SQL, Planned: p.why == "", Why: p.why, Scans: []string{}, Hot: []HotRange{}, Files: len(p.files)}
	for _, s := range p.scans {
		e.Scans = append(e.Scans, s.Table+" WHERE "+s.Where)
	}
	months, points := map[utc.Month]bool{}, map[int32]bool{}
	files := make([]File, len(p.files))
	for i, f := range p.files {
		files[i] = f.File
		months[f.Month], points[f.Point] = true, true
		e.Bytes += f.Bytes
		if e.FirstMonth == "" || f.Month.String() < e.FirstMonth {
			e.FirstMonth = f.Month.String()
		}
		e.LastMonth = max(e.LastMonth, f.Month.String())
	}
	e.Months, e.Points = len(months), len(points)
	e.Fetch, e.FetchBytes = l.pins.Missing(files)
	if p.hot != nil {
		for _, r := range p.hot.reads {
			e.Hot = append(e.Hot, HotRange{len(r.Points), r.Days.From.Time(), r.Days.To.Time()})
		}
		e.HotRows = p.hot.rows
	}
	return e, nil
}

// statement takes a query through the gate.
func (l *Lake) statement(ctx context.Context, q Query) (*plan, error) {
	p := &plan{tier: q.Tier, start: time.Now()}
	var err error
	if p.stmt, err = parse(ctx, l.conn, q.SQL, q.Params); err != nil {
		return nil, err
	}
	p.stats.Plan = time.Since(p.start)
	if len(p.stmt.Tables) == 0 {
		return p, nil // nothing of the lake
	}
	if p.tier == Hot && l.o.Source == nil {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "--tier hot needs a source"), "give --source d1://DATABASE_ID or sqlite:PATH")
	}
	if p.tier == Cold && l.o.Store == nil {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "--tier cold needs a store"), "give --store r2://BUCKET or file:DIR")
	}
	return p, nil
}

// choose works out scans, files and hot ranges anew.
func (l *Lake) choose(ctx context.Context, p *plan) error {
	lap := time.Now()
	defer func() { p.stats.Plan += time.Since(lap) }()
	// Within a transaction now() and current_date stand still: what is selected
	// by them is what runs by them.
	if err := l.begin(ctx); err != nil {
		return err
	}
	var err error
	p.why, p.files, p.hot = "", nil, nil
	if p.scans, err = scans(ctx, l.conn, p.stmt.SQL); err != nil {
		if ctx.Err() != nil || fault.Is(err, fault.Usage) {
			return err
		}
		// It has spoilt the transaction.
		if err := cmp.Or(l.done(ctx, err), l.begin(ctx)); err != nil {
			return err
		}
		p.why = err.Error()
		p.scans = nil
		for _, t := range l.named(p.stmt) {
			p.scans = append(p.scans, scan{Table: t, Where: "TRUE", Columns: []string{"point_name"}, From: math.MinInt64, To: math.MaxInt64})
		}
	}
	if !p.reads("samples") {
		return nil
	}
	return l.chooseRows(ctx, p)
}

// chooseRows works out which files and hot ranges the scans of samples need.
func (l *Lake) chooseRows(ctx context.Context, p *plan) error {
	where := p.where("samples")
	from, to := p.bounds()
	begin := time.Now()
	months, err := l.loadMonths(ctx, from, to)
	loading := time.Since(begin)
	p.stats.Plan, p.stats.Catalog = p.stats.Plan-loading, p.stats.Catalog+loading
	if err != nil {
		return err
	}
	if p.tier != Hot && !p.pastBad {
		if err := l.unreadable(ctx, where); err != nil {
			return err
		}
	}
	if p.tier != Hot && len(months) > 0 {
		l.use("lake.selected")
		if err := l.exec(ctx, fmt.Sprintf("CREATE OR REPLACE TABLE lake.selected AS SELECT month, point_id, bytes, archived FROM lake.catalog regions WHERE file AND month BETWEEN '%s' AND '%s' AND ",
			months[0].Month, months[len(months)-1].Month)+where); err != nil {
			return err
		}
		if p.files, err = l.selectedFiles(ctx); err != nil {
			return err
		}
	}
	if p.tier != Cold && l.o.Source != nil {
		if p.hot, err = l.planHot(ctx, p.tier, where, from, to); err != nil {
			return err
		}
	}
	return nil
}

// named are the stubbed tables that a statement can read, by the names in its
// text: all of them where a name may be a view of the session.
func (l *Lake) named(s *statement) []string {
	var tables []string
	for _, name := range s.Tables {
		switch name {
		case "points", "point_groups":
			continue
		case "timeseries":
			name = "samples"
		case "v_latest_values":
			name = "latest"
		}
		if !slices.Contains(stubbed, name) {
			return slices.DeleteFunc(slices.Clone(stubbed), func(t string) bool { return t == "archive_state" && l.o.Source == nil })
		}
		if !slices.Contains(tables, name) {
			tables = append(tables, name)
		}
	}
	return tables
}

// selectedFiles are the files of lake.selected with all that the manifests say
// of them. Those columns are read only now, and of the months that are needed:
// hashes are most of a catalog.
func (l *Lake) selectedFiles(ctx context.Context) ([]selectedFile, error) {
	byName := map[string]CatalogMonth{}
	for _, m := range l.catalog.Months {
		byName[m.Month.String()] = m
	}
	// Those that an earlier query has read, or whose manifest is in memory.
	var files []selectedFile
	missing := map[fileID]utc.Set{}
	var months []string
	points := map[int32]bool{}
	if err := l.arrow(ctx, "SELECT month, point_id, archived FROM lake.selected ORDER BY point_id, month", func(rec arrow.RecordBatch) error {
		c, masks := rec.Column(0).(*array.String), rec.Column(2).(*array.Uint32)
		files = slices.Grow(files, c.Len())
		for i, id := range ints(rec, 1) {
			m, archived := byName[c.Value(i)], utc.Set(masks.Value(i))
			f, ok := l.met[metFile{id, m.Month, m.ETag}]
			if !ok && m.fresh != nil {
				f, ok = fileOf(m.Month, m.fresh.man.Entry(id))
			}
			if ok {
				files = append(files, selectedFile{File: f, archived: archived})
				continue
			}
			missing[fileID{id, m.Month}] = archived
			if !slices.Contains(months, m.Path) {
				months = append(months, m.Path)
			}
			points[id] = true
		}
		return nil
	}); err != nil || len(missing) == 0 {
		return files, err
	}
	few := ""
	if len(points) <= 100 {
		few = " WHERE point_id IN " + in(slices.Collect(maps.Keys(points)))
	}
	slices.Sort(months)
	found := len(files)
	if err := l.arrow(ctx, "SELECT point_id, month, path, bytes, etag, sha256, rows_sha256 FROM read_parquet("+list(months)+")"+few,
		func(rec arrow.RecordBatch) error {
			text := func(i, row int) string { return strings.Clone(rec.Column(i).(*array.String).Value(row)) }
			for i, id := range ints(rec, 0) {
				m := byName[rec.Column(1).(*array.String).Value(i)]
				archived, ok := missing[fileID{id, m.Month}]
				if !ok {
					continue
				}
				files = append(files, selectedFile{
					File: File{Month: m.Month, Point: id, Key: object.Key(text(2, i)), Bytes: rec.Column(3).(*array.Int64).Value(i),
						ETag: text(4, i), SHA256: text(5, i), RowsSHA256: text(6, i)},
					archived: archived,
				})
			}
			return nil
		}); err != nil {
		return nil, err
	}
	if n := len(files) - found; n != len(missing) {
		return nil, fmt.Errorf("the catalog names %d files of %d", n, len(missing))
	}
	if len(missing) <= maxMet {
		if len(l.met)+len(missing) > maxMet {
			clear(l.met)
		}
		for _, f := range files[found:] {
			l.met[metFile{f.Point, f.Month, byName[f.Month.String()].ETag}] = f.File
		}
	}
	slices.SortFunc(files, func(a, b selectedFile) int {
		return cmp.Or(cmp.Compare(a.Point, b.Point), cmp.Compare(a.Month, b.Month))
	})
	return files, nil
}

// fileOf is the file of an entry, with text of its own: that of the entry is a
// part of the whole manifest.
func fileOf(m utc.Month, e *manifests.Entry) (File, bool) {
	if e == nil || e.Path == "" {
		return File{}, false
	}
	return File{Month: m, Point: e.ID, Key: object.Key(strings.Clone(string(e.Path))), Bytes: e.Bytes,
		ETag: strings.Clone(e.ETag), SHA256: strings.Clone(e.SHA256), RowsSHA256: strings.Clone(e.RowsSHA256)}, true
}

// metFile names a month file as one version of a manifest has it.
type metFile struct {
	point int32
	month utc.Month
	etag  string
}

// maxMet bounds the files that a session remembers, of some 400 bytes each.
const maxMet = 10_000

// guard refuses a query that would fetch or extract more than it may.
func (l *Lake) guard(p *plan) error {
	files := make([]File, len(p.files))
	var bytes int64
	for i, f := range p.files {
		files[i] = f.File
		bytes += f.Bytes
	}
	if l.o.MaxBytes > 0 && bytes > l.o.MaxBytes {
		if n, missing := l.pins.Missing(files); missing > l.o.MaxBytes {
			return fault.Hint(fault.Errorf(fault.Usage, "the query would fetch %s month files, %s; it may fetch %s (--max-bytes)",
				humanize.Comma(int64(n)), humanize.IBytes(uint64(missing)), humanize.IBytes(uint64(l.o.MaxBytes))), narrow)
		}
	}
	if p.hot != nil && l.o.MaxHotRows > 0 && p.hot.rows > l.o.MaxHotRows {
		return guardRows(p.hot.rows, l.o.MaxHotRows)
	}
	return nil
}

const narrow = "name fewer points (point_name = '…', point_id IN …) or a shorter time (ts >= … AND ts < …); --explain shows what is touched and why; or raise the limit"

func guardRows(rows, limit int64) error {
	return fault.Hint(fault.Errorf(fault.Usage, "the query would read about %s rows of the hot tier, which are billed; it may read %s (--max-hot-rows)",
		humanize.Comma(rows), humanize.Comma(limit)), narrow)
}

// prepare does f, which is choose and what follows it, by what the tiers say now;
// nothing for a statement that names no table. The caller calls done when it is
// through with the plan, also after an error.
func (l *Lake) prepare(ctx context.Context, q Query, h *hearing, f func(context.Context, *plan) error) (*plan, error) {
	p, err := l.statement(ctx, q)
	if err != nil || len(p.stmt.Tables) == 0 {
		return p, err
	}
	return p, l.decide(ctx, p, h, f)
}

// decide does f with a plan until it was done by what the tiers say.
func (l *Lake) decide(ctx context.Context, p *plan, h *hearing, f func(context.Context, *plan) error) error {
	// INVARIANT: what is answered was planned by a catalog that a listing has shown
	// which began after the query did, and after the last row was extracted of a
	// day that has ended.
	known := l.catalog != nil
	again, err := l.ahead(ctx, p, h, f)
	if again {
		if known {
			p.stats.Replans++
		}
		err = f(ctx, p)
	}
	for errors.Is(err, errStale) {
		if p.stats.Replans++; p.stats.Replans == attempts {
			return fault.Hint(fault.Errorf(fault.Transient, "the archive kept changing while the query was prepared; it was planned %d times", attempts),
				"a job is writing these months: run the query again in a minute")
		}
		if err := l.done(ctx, err); err != nil {
			return err
		}
		lap := time.Now()
		if _, err := l.refresh(ctx); err != nil {
			return err
		}
		p.stats.Catalog += time.Since(lap)
		err = f(ctx, p)
	}
	return err
}

// chooseAndBring brings all that a query needs, and lets the views stand for it.
func (l *Lake) chooseAndBring(ctx context.Context, p *plan) error {
	if err := l.choose(ctx, p); err != nil || len(p.scans) == 0 {
		return err
	}
	return l.bring(ctx, p)
}

// begin opens the transaction of a query.
func (l *Lake) begin(ctx context.Context) error {
	err := l.exec(ctx, "BEGIN")
	l.open, l.before = err == nil, l.learnt
	l.before.loaded = maps.Clone(l.loaded)
	return err
}

// done ends what a query began: its transaction, the views that stood for its
// rows, and the tables that held them. After an error the transaction is undone,
// and what was learnt within it is forgotten with it.
func (l *Lake) done(ctx context.Context, err error) error {
	ctx = context.WithoutCancel(ctx)
	if l.open {
		end := "COMMIT"
		if err != nil {
			end = "ROLLBACK"
		}
		ended := l.exec(ctx, end)
		if err != nil || ended != nil {
			l.learnt = l.before
		}
		l.open, l.before = false, learnt{}
		if ended != nil {
			return ended
		}
	}
	return l.pretend(ctx)
}

// bring fetches, extracts and points the views at what came. errStale means
// that a manifest or a mark on which the plan was based has changed.
func (l *Lake) bring(ctx context.Context, p *plan) error {
	if err := l.guard(p); err != nil {
		return err
	}
	if p.verdict.refused() {
		return errStale // before anything is read for it
	}
	views := ""
	if p.reads("latest") {
		if err := l.findLatest(ctx, p.tier, p.where("latest"), p); err != nil {
			return err
		}
		l.use("latest")
		views += latestView + ";\n"
	}
	if p.reads("archive_state") {
		if err := l.loadRuns(ctx); err != nil {
			return err
		}
		l.use("archive_state")
		views += stateView + ";\n"
	}
	if p.reads("archive_files") || p.reads("archive_days") {
		months, err := l.catalog.Load(ctx, math.MinInt64, math.MaxInt64)
		if err != nil {
			return err
		}
		for m, err := range l.catalog.Bad {
			return fault.Hint(fmt.Errorf("the catalog of the archive lacks %s: %w", m, err), "%s", fault.HintOf(err))
		}
		l.use("archive_files", "archive_days")
		views += archiveViews(paths(months))
	}
	if p.reads("samples") {
		view, err := l.bringSamples(ctx, p)
		if err != nil {
			return err
		}
		l.use("samples")
		views += view + ";\n"
	}
	return l.exec(ctx, views)
}

// bringSamples returns the view samples over all that came.
func (l *Lake) bringSamples(ctx context.Context, p *plan) (string, error) {
	both := map[fileID]utc.Set{}
	if p.hot != nil {
		both = p.hot.both
	}
	var cold string
	// Files and rows come over different lines: at once.
	g, gctx := errgroup.WithContext(ctx)
	var files []Local
	g.Go(func() (err error) {
		files, err = l.fetchFiles(gctx, p.files, p)
		return err
	})
	reads := p.hot != nil && len(p.hot.reads) > 0
	if reads {
		g.Go(func() error {
			lap := time.Now()
			rows, err := l.extract(gctx, p)
			p.stats.HotRows += rows
			p.stats.Extract += time.Since(lap)
			if err != nil {
				return err
			}
			return l.recheck(gctx, p)
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	cold, err := l.arrange(p.files, files, both)
	if err != nil {
		return "", err
	}
	named := slices.ContainsFunc(p.scans, func(s scan) bool { return s.Table == "samples" && slices.Contains(s.Columns, "point_name") })
	return samplesView(cold, reads, named), nil
}

// recheck returns errStale if a manifest or a mark has changed while rows were
// extracted: rows that have left the hot tier meanwhile are in newer manifests.
//
// Rows of a day that has not ended can not have: no runner archives a day before
// an hour after its end, and nothing leaves the hot tier that is not archived.
// So a query over what is archived and the rows of today needs one listing.
func (l *Lake) recheck(ctx context.Context, p *plan) error {
	today := utc.DayOfTime(l.o.Now())
	if !slices.ContainsFunc(p.hot.reads, func(q source.Query) bool { return q.Days.From < today }) {
		return nil
	}
	changed, err := l.changed(ctx, p.hot)
	if err != nil {
		return err
	}
	if !changed && p.tier == Both && l.o.Store != nil {
		lap := time.Now()
		now, err := l.pins.Catalog(ctx, l.o.Store, l.o.StoreName)
		if err != nil {
			return err
		}
		p.stats.Catalog += time.Since(lap)
		changed = now.Version != l.catalog.Version
	}
	if changed {
		return errStale
	}
	return nil
}

// fetch makes the files local and returns what selects their rows, as coldSQL.
func (l *Lake) fetch(ctx context.Context, files []selectedFile, both map[fileID]utc.Set, p *plan) (string, error) {
	local, err := l.fetchFiles(ctx, files, p)
	if err != nil {
		return "", err
	}
	return l.arrange(files, local, both)
}

func (l *Lake) fetchFiles(ctx context.Context, selected []selectedFile, p *plan) ([]Local, error) {
	if len(selected) == 0 {
		return nil, nil
	}
	defer func(lap time.Time) { p.stats.Fetch += time.Since(lap) }(time.Now())
	files, notify := l.wanted(selected, p)
	return l.pins.Fetch(ctx, l.o.Store, files, l.o.FetchWorkers, notify)
}

// wanted are the files to fetch, and what to tell of those that are not at hand.
func (l *Lake) wanted(selected []selectedFile, p *plan) (files []File, notify func(int, int64)) {
	files = make([]File, len(selected))
	for i, f := range selected {
		files[i] = f.File
	}
	p.stats.Files += len(files)
	n, missing := l.pins.Missing(files)
	p.stats.BytesFetched += missing
	if n > 0 {
		notify = func(done int, bytes int64) { l.notify(FetchProgress{done, n, bytes, missing}) }
	}
	return files, notify
}

// arrange notes which days of which files count and returns what selects their rows.
func (l *Lake) arrange(selected []selectedFile, files []Local, both map[fileID]utc.Set) (string, error) {
	var clean, mixed []string
	days := map[fileID]utc.Set{}
	for i, f := range files {
		id := fileID{selected[i].Point, selected[i].Month}
		if !f.Pending && both[id] == 0 {
			clean = append(clean, f.Path)
			continue
		}
		mixed = append(mixed, f.Path)
		days[id] = selected[i].archived
	}
	var rows [][]driver.Value
	for id, set := range days {
		for _, r := range set.Runs(id.month) {
			for d := r.From; d < r.To; d++ {
				rows = append(rows, []driver.Value{id.point, int32(d)})
			}
		}
	}
	if err := l.append("cold_days", rows); err != nil {
		return "", err
	}
	return coldSQL(clean, mixed), nil
}

// Column of a result or a table. Numeric is set where a person wants it aligned
// to the right.
type Column struct {
	Name    string `json:"name"`
	Type    string `json:"type"` // as DuckDB writes it
	Numeric bool   `json:"-"`
}

// Rows is a result for a person: its cells are text as DuckDB writes it.
type Rows struct {
	Columns []Column
	Cells   [][]sql.NullString
	More    bool // there are more than the limit
	Stats   Stats
}

// Rows runs a query and returns its first rows, limit at most.
func (l *Lake) Rows(ctx context.Context, q Query, limit int) (*Rows, error) {
	r := &Rows{}
	err := l.run(ctx, q, true, func(ctx context.Context, p *plan) error {
		r.Cells, r.More = nil, false
		var err error
		if r.Columns, err = l.describe(ctx, p.sql); err != nil {
			return p.ownLines(err)
		}
		cells, names := make([]string, len(r.Columns)), make([]string, len(r.Columns))
		for i := range r.Columns {
			names[i] = fmt.Sprintf("c%d", i)
			cells[i] = fmt.Sprintf("CAST(c%d AS VARCHAR)", i)
		}
		rows, err := l.conn.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM (\n%s\n) lake_result(%s) LIMIT %d",
			strings.Join(cells, ", "), p.sql, strings.Join(names, ", "), limit+1))
		if err != nil {
			return p.ownLines(err)
		}
		defer rows.Close()
		for rows.Next() {
			if len(r.Cells) == limit {
				r.More = true
				break
			}
			row := make([]sql.NullString, len(r.Columns))
			into := make([]any, len(row))
			for i := range row {
				into[i] = &row[i]
			}
			if err := rows.Scan(into...); err != nil {
				return err
			}
			r.Cells = append(r.Cells, row)
		}
		p.stats.Rows = int64(len(r.Cells))
		return p.ownLines(rows.Err())
	}, &r.Stats)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// describe is the columns of a statement.
func (l *Lake) describe(ctx context.Context, text string) ([]Column, error) {
	rows, err := l.conn.QueryContext(ctx, "SELECT column_name, column_type FROM (DESCRIBE FROM (\n"+text+"\n) lake_result)")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var columns []Column
	for rows.Next() {
		var c Column
		if err := rows.Scan(&c.Name, &c.Type); err != nil {
			return nil, err
		}
		c.Numeric = isNumeric(c.Type)
		columns = append(columns, c)
	}
	return columns, rows.Err()
}

func isNumeric(t string) bool {
	t, _, _ = strings.Cut(t, "(")
	switch t {
	case "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BIGNUM":
		return true
	}
	return false
}

// Format of a result that is written.
type Format int

const (
	// CSV has a line of names first, and quotes where they are needed.
	CSV Format = iota
	// JSON is one array of objects.
	JSON
	// JSONL is one object a line.
	JSONL
	// Parquet is zstd-compressed.
	Parquet
)

// options are those of DuckDB's COPY.
func (f Format) options() string {
	switch f {
	case JSON:
		return "FORMAT json, ARRAY true"
	case JSONL:
		return "FORMAT json"
	case Parquet:
		return "FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION V2"
	}
	return "FORMAT csv, HEADER true"
}

// Write runs a query and writes its result to w as it comes, without holding it.
// After an error w may have been given a part.
func (l *Lake) Write(ctx context.Context, q Query, w io.Writer, f Format) (Stats, error) {
	var stats Stats
	err := l.run(ctx, q, true, func(ctx context.Context, p *plan) error {
		n, err := l.copyTo(ctx, p, w, f)
		p.stats.Rows = n
		return err
	}, &stats)
	return stats, err
}

// copyTo lets DuckDB copy the result of a plan through a named pipe to w, where
// it waits for the verdict.
func (l *Lake) copyTo(ctx context.Context, p *plan, w io.Writer, f Format) (int64, error) {
	l.files++
	path := filepath.Join(l.pins.Dir(), fmt.Sprintf("result-%d", l.files))
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return 0, fmt.Errorf("make a pipe in the cache folder: %w", err)
	}
	defer os.Remove(path)
	// Opened without waiting for the other end; then our own writing end keeps
	// the pipe open until DuckDB is done, however often it opens it.
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	widen(r)
	hold, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	copied := make(chan error, 1)
	go func() {
		err := p.verdict.pass(w, r)
		if err != nil { // nobody reads any more, such as `| head`
			cancel(err)
			_, _ = io.Copy(io.Discard, r)
		}
		copied <- err
	}()
	// Only those: SQL promises no order of what stands after FROM.
	what := "(\n" + p.sql + "\n)"
	if p.stmt.Shows {
		what = "(FROM " + what + ")"
	}
	res, err := l.conn.ExecContext(ctx, "COPY "+what+" TO "+quote(path)+" ("+f.options()+", USE_TMP_FILE false)")
	hold.Close()
	if werr := <-copied; werr != nil {
		return 0, writeError{werr}
	}
	if err != nil {
		return 0, p.ownLines(err)
	}
	n, err := res.RowsAffected()
	return n, err
}

// writeError is an error of the writer that was given to Write.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// run prepares a query, answers it by f and lets go of what it needed. f may be
// called again if what it was done by has changed, and what it did then does not
// count: what it gives away goes through p.verdict. Where nothing but the answer is
// wanted, behind is true: the rest is done behind it.
func (l *Lake) run(ctx context.Context, q Query, behind bool, f func(context.Context, *plan) error, stats *Stats) error {
	h := l.listen(ctx, q.SQL)
	defer h.stop()
	if err := l.lock(ctx); err != nil {
		return err
	}
	p, err := l.prepare(ctx, q, h, func(ctx context.Context, p *plan) error {
		if err := l.chooseAndBring(ctx, p); err != nil {
			return err
		}
		return l.answer(ctx, p, f)
	})
	if err == nil && len(p.stmt.Tables) == 0 {
		err = l.answer(ctx, p, f)
	}
	if err == nil {
		p.stats.Total = time.Since(p.start)
		*stats = p.stats
		if behind {
			l.behind.Go(func() { l.unlock(context.WithoutCancel(ctx), l.done(ctx, nil)) })
			return nil
		}
	}
	ended := l.done(ctx, err)
	l.unlock(ctx, nil)
	return errors.Join(userError(ctx, err), ended)
}

// lock waits until what went on behind the last answer is done. If that has failed
// it is tried again, for without it nothing can be planned.
func (l *Lake) lock(ctx context.Context) error {
	l.mu.Lock()
	if l.spoilt == nil {
		return nil
	}
	if l.spoilt = l.done(ctx, l.spoilt); l.spoilt == nil {
		return nil
	}
	defer l.mu.Unlock()
	return l.spoilt
}

// unlock lets the next query begin, and writes the manifests that this one has
// fetched into the cache, behind the answer; not after an interruption, which stops
// at once.
func (l *Lake) unlock(ctx context.Context, spoilt error) {
	l.spoilt = spoilt
	if l.catalog != nil {
		for i := range l.catalog.Months {
			l.catalog.Months[i].fresh = nil // the next query asks for it, or for its file
		}
	}
	if ctx.Err() != nil {
		l.mu.Unlock()
		return
	}
	note := l.note()
	l.mu.Unlock()
	l.behind.Go(func() {
		// That it fails costs the next session time, no more.
		if err := cmp.Or(l.pins.settle(), note()); err != nil {
			l.notify(Warning{err.Error()})
		}
	})
}

// errorLine is where DuckDB's message shows the line of the error: its number, its
// text, and a mark below it.
var errorLine = regexp.MustCompile(`(?s)\n+LINE (\d+): .*$`)

// ownLines makes an error of the plan's statement, which ran on the second line of
// another one and below, show the line of the text that was asked. Where that is not
// known it shows none.
func (p *plan) ownLines(err error) error {
	d, ok := errors.AsType[*duckdb.Error](err)
	if !ok {
		return err
	}
	at := errorLine.FindStringSubmatchIndex(d.Msg)
	if at == nil {
		return err
	}
	own := *d
	n, err := strconv.Atoi(d.Msg[at[2]:at[3]])
	if last := 2 + strings.Count(p.sql, "\n"); err != nil || n < 2 || n > last || p.sql != p.stmt.SQL {
		own.Msg = d.Msg[:at[0]]
		return &own
	}
	line := strconv.Itoa(n - 1)
	rest := d.Msg[at[3]:]
	if shorter := at[3] - at[2] - len(line); shorter > 0 { // the mark moves with its line
		head, mark, _ := strings.Cut(rest, "\n")
		rest = head + "\n" + strings.TrimPrefix(mark, strings.Repeat(" ", shorter))
	}
	own.Msg = d.Msg[:at[2]] + line + rest
	return &own
}

// userError classifies what DuckDB said of a statement that passed the gate.
func userError(ctx context.Context, err error) error {
	var d *duckdb.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, new(writeError)):
		return err
	case fault.KindOf(err) != fault.Internal || !errors.As(err, &d):
		return err
	}
	switch d.Type {
	case duckdb.ErrorTypeOutOfMemory:
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "give it more with --memory, or narrow the query; what does not fit is spilled into the cache folder, but not all can be")
	case duckdb.ErrorTypeIO:
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "is the disk of the cache folder full? --cache DIR names another one")
	}
	return queryError(d)
}
