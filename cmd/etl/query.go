package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"etl/internal/fault"
	"etl/internal/lake"
	"etl/internal/timing"
	"etl/jobs"
	etlsql "etl/sql"
)

func (a *app) query() *cobra.Command {
	var (
		s       session
		o       answer
		file    string
		params  []string
		explain bool
		list    bool
	)
	cmd := &cobra.Command{
		Use:   "query [SQL | @NAME]",
		Short: "Answer SQL over the hot and the cold tier together",
		Long: `query answers one SELECT in DuckDB's SQL over these tables, wherever the rows are:

  samples        point_id, point_name, ts (UTC), timestamp (Unix ms), value, quality, flags, tier
  latest         the same columns, one row for each point
  points         point_id, name, site, system, equipment, unit, interval_ms, …
  point_groups   name, point_id
  archive_files  the month files · archive_days  samples of each point and day · archive_state  the runs
  timeseries, v_latest_values   as D1 has them

What a query can touch is worked out from the query itself, so nothing but the
month files and the hot rows that it needs is fetched: conditions on point_name,
point_id, ts, timestamp, and on the columns of points, narrow it. A query that
would fetch more than --max-bytes, or read more than --max-hot-rows, stops and
says how to narrow it; --explain shows what it would touch.

The SQL is the argument, the file of -f, or standard input. @NAME is one of the
named queries (--list shows them). $name in the SQL is a parameter, --param
name=value its value.

The answer is a table on a terminal and CSV elsewhere, unless --format, or the
name of the file of -o, says otherwise. A table and markdown show --limit rows;
the other formats hold all of them, however many.`,
		Example: `  etl query "SELECT point_name, avg(value) FROM samples WHERE ts >= '2024-02-01' AND ts < '2024-02-08' GROUP BY ALL"
  etl query "SELECT * FROM samples WHERE point_name = \$p AND ts >= '2024-02-20'" --param p=Building1.HVAC.AHU1.FanStatus -o fan.parquet
  etl query @trend-downsampled --param point='*.AirFlow' --param from=-30d --param bucket=1d
  etl query --list
  etl query --list @trend
  etl query -f report.sql --format csv > report.csv`,
		Annotations: map[string]string{takesArguments: "yes"},
	}
	s.add(cmd)
	o.add(cmd)
	f := cmd.Flags()
	f.StringVarP(&file, "file", "f", "", "read the SQL from `FILE`, - for standard input")
	f.StringArrayVar(&params, "param", nil, "`NAME=VALUE` of a parameter; may be repeated")
	f.Var(&s.tier, "tier", "hot, cold or both: where rows are taken from")
	f.BoolVar(&explain, "explain", false, "show what the query would touch, and do not run it")
	f.BoolVar(&list, "list", false, "list the named queries, or explain the one that is named")
	complete(cmd, "tier", tierNames...)
	must(cmd.RegisterFlagCompletionFunc("param", completeParam))
	cmd.ValidArgsFunction = completeNamed
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if list {
			return a.listQueries(args)
		}
		text, err := a.statement(cmd.Context(), args, file)
		if err != nil {
			return err
		}
		given, err := parseParams(params)
		if err != nil {
			return err
		}
		if err := o.resolve(a); err != nil {
			return err
		}
		if err := s.places.resolve(a, cmd); err != nil {
			return err
		}
		q, err := bind(text, given, s.clock()())
		if err != nil {
			return err
		}
		q.Tier = lake.Tier(s.tier)
		l, done, err := s.open(cmd, a)
		if err != nil {
			return err
		}
		defer done()
		if explain {
			e, err := l.Explain(cmd.Context(), q)
			s.wipe()
			if err != nil {
				return err
			}
			return a.print(e, func(w io.Writer) { printExplanation(w, e) })
		}
		return o.run(cmd.Context(), a, &s, l, q)
	}
	return cmd
}

// statement is the text of the query: the argument, a file, or standard input.
func (a *app) statement(ctx context.Context, args []string, file string) (string, error) {
	const hint = "give one SELECT in quotes, @NAME of a named query (`etl query --list`), -f FILE, or SQL on standard input"
	read := func(r io.Reader, name string) (string, error) {
		const most = 1 << 20
		text, err := io.ReadAll(io.LimitReader(r, most+1))
		if err == nil && len(text) > most {
			err = errors.New("it is longer than 1 MiB")
		}
		return string(text), fault.Wrap(fault.Usage, wrapf(err, "read SQL from %s", name))
	}
	var text string
	var err error
	switch {
	case len(args) > 1:
		return "", fault.Hint(fault.Errorf(fault.Usage, "there are %d arguments, the second is %q: the SQL is one", len(args), args[1]), "put it into quotes: etl query \"SELECT …\"")
	case len(args) == 1 && file != "":
		return "", fault.Hint(fault.Errorf(fault.Usage, "there is SQL in the command line and in -f %s", file), "give one of them")
	case len(args) == 1:
		text = args[0]
	case file == "-":
		text, err = read(a.input(ctx), "standard input")
	case file != "":
		var f *os.File
		if f, err = os.Open(file); err != nil {
			return "", fault.Wrap(fault.Usage, err)
		}
		defer f.Close()
		text, err = read(f, file)
	case isTerminal(a.stdin):
	default:
		text, err = read(a.input(ctx), "standard input")
	}
	if err == nil && strings.TrimSpace(text) == "" {
		err = fault.Hint(fault.Errorf(fault.Usage, "there is no SQL"), hint)
	}
	return text, err
}

// input is standard input until ctx ends: no signal ends the read of a terminal, or of a
// pipe into which nobody writes.
func (a *app) input(ctx context.Context) io.Reader {
	r, w := io.Pipe()
	go func() { // ends with the input, or with the process
		_, err := io.Copy(w, a.stdin)
		w.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	return r
}

func wrapf(err error, format string, a ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(a, err)...)
}

func isTerminal(stream any) bool {
	f, ok := fileOf(stream)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminalWidth is the width of the terminal that stream is, 0 if it is none.
func terminalWidth(stream any) int {
	f, ok := fileOf(stream)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil || w <= 0 {
		return 80
	}
	return w
}

// parseParams takes NAME=VALUE apart.
func parseParams(params []string) (map[string]string, error) {
	given := make(map[string]string, len(params))
	for _, p := range params {
		name, value, ok := strings.Cut(p, "=")
		if name = strings.TrimPrefix(name, "$"); !ok || name == "" {
			return nil, fault.Errorf(fault.Usage, "parameter %q: want NAME=VALUE", p)
		}
		if _, twice := given[name]; twice {
			return nil, fault.Errorf(fault.Usage, "parameter %s is given twice", name)
		}
		given[name] = value
	}
	return given, nil
}

// bind makes a query of SQL, or of @NAME and its parameters.
func bind(text string, given map[string]string, now time.Time) (lake.Query, error) {
	name, ok := strings.CutPrefix(strings.TrimSuffix(strings.TrimSpace(text), ";"), "@")
	if !ok {
		return lake.Query{SQL: text, Params: given}, nil
	}
	q, err := namedQuery(strings.TrimSpace(name))
	if err != nil {
		return lake.Query{}, err
	}
	bound, err := q.Bind(given, now)
	if err != nil {
		return lake.Query{}, fault.Hint(fault.Wrap(fault.Usage, err), "`etl query --list @%s` explains it; for example: %s", q.Name, q.Example)
	}
	return lake.Query{SQL: q.SQL, Params: bound}, nil
}

func namedQuery(name string) (etlsql.Query, error) {
	var like []string
	for _, q := range etlsql.Queries() {
		if q.Name == name {
			return q, nil
		}
		if name != "" && (strings.Contains(q.Name, name) || strings.HasPrefix(name, q.Name)) {
			like = append(like, "@"+q.Name)
		}
	}
	hint := "`etl query --list` lists them"
	if len(like) > 0 {
		hint = "did you mean " + strings.Join(like, " or ") + "?"
	}
	return etlsql.Query{}, fault.Hint(fault.Errorf(fault.Usage, "there is no named query @%s", printable(name)), "%s", hint)
}

// listQueries prints the library, or all about one query.
func (a *app) listQueries(args []string) error {
	if len(args) == 0 {
		qs := etlsql.Queries()
		return a.print(map[string]any{"queries": qs}, func(w io.Writer) {
			t := newTable("name", "answers", "parameters")
			for _, q := range qs {
				var ps []string
				for _, p := range q.Params {
					if p.Required {
						ps = append(ps, p.Name)
					} else {
						ps = append(ps, "["+p.Name+"]")
					}
				}
				t.row("@"+q.Name, whole(q.Title), whole(strings.Join(ps, " ")))
			}
			t.print(w)
			fmt.Fprintln(w, "\n`etl query --list @NAME` explains one, with its columns, an example and its SQL.")
		})
	}
	if len(args) > 1 {
		return fault.Errorf(fault.Usage, "--list explains one named query, there are %d", len(args))
	}
	q, err := namedQuery(strings.TrimPrefix(args[0], "@"))
	if err != nil {
		return err
	}
	return a.print(q, func(w io.Writer) { printQuery(w, q) })
}

func printQuery(w io.Writer, q etlsql.Query) {
	fmt.Fprintf(w, "@%s: %s\n", q.Name, q.Title)
	if q.About != "" {
		fmt.Fprintf(w, "\n%s\n", fold(q.About, 80))
	}
	fmt.Fprintln(w)
	t := newTable("parameter", "type", "default", "meaning")
	for _, p := range q.Params {
		d := whole(p.Default)
		if p.Required {
			d = "– (needed)"
		}
		t.row(p.Name, whole(p.Type+p.Range()), d, whole(p.Meaning))
	}
	t.print(w)
	fmt.Fprintln(w)
	t = newTable("column", "meaning")
	for _, c := range q.Columns {
		t.row(c.Name, whole(c.Meaning))
	}
	t.print(w)
	fmt.Fprintf(w, "\nExample:\n  %s\n\n%s\n", q.Example, q.SQL)
}

// fold breaks a text into lines of at most width, at spaces.
func fold(text string, width int) string {
	var b strings.Builder
	n := 0
	for i, word := range strings.Fields(text) {
		l := len([]rune(word))
		switch {
		case i == 0:
		case n+1+l > width:
			b.WriteByte('\n')
			n = 0
		default:
			b.WriteByte(' ')
			n++
		}
		b.WriteString(word)
		n += l
	}
	return b.String()
}

func printExplanation(w io.Writer, e *lake.Explanation) {
	if !e.Planned {
		fmt.Fprintf(w, "nothing can be read off the plan, so everything is taken: %s\n", printableLine(e.Why))
	}
	if e.Files == 0 {
		fmt.Fprintln(w, "cold  nothing")
	} else {
		months := e.FirstMonth
		if e.LastMonth != e.FirstMonth {
			months += " to " + e.LastMonth
		}
		fmt.Fprintf(w, "cold  %s of %s in %s (%s), %s; to fetch: %s, %s\n", plural(e.Files, "file"), plural(e.Points, "point"), plural(e.Months, "month"), months,
			humanize.IBytes(uint64(e.Bytes)), plural(e.Fetch, "file"), humanize.IBytes(uint64(e.FetchBytes)))
	}
	if len(e.Hot) == 0 {
		fmt.Fprintln(w, "hot   nothing")
	} else {
		fmt.Fprintf(w, "hot   about %s\n", plural(int(e.HotRows), "row"))
		const most = 10
		for i, h := range e.Hot {
			if i == most {
				fmt.Fprintf(w, "      … and %d more ranges (--json has all)\n", len(e.Hot)-most)
				break
			}
			fmt.Fprintf(w, "      %s to %s (exclusive), %s\n", h.From.UTC().Format("2006-01-02 15:04"), h.To.UTC().Format("2006-01-02 15:04"), plural(h.Points, "point"))
		}
	}
	for i, s := range e.Scans {
		label := "scans"
		if i > 0 {
			label = "     "
		}
		fmt.Fprintf(w, "%s %s\n", label, printableLine(s))
	}
}

// session are the flags of what answers SQL: the two tiers, the cache, the guard.
type session struct {
	places
	tier tier
	cacheFlags
	memory     size
	maxBytes   amount
	maxHotRows amount
	window     days
	workers    count
	extract    count

	env  jobs.Env // of the source that was opened
	stop func()   // ends the progress that is shown
}

func (s *session) add(cmd *cobra.Command) {
	s.addSource(cmd)
	s.addStore(cmd)
	s.addNoState(cmd)
	s.cacheFlags.add(cmd)
	s.addLimits(cmd)
	s.workers, s.extract = 4, 2
	f := cmd.Flags()
	f.Var(&s.workers, "workers", "month files fetched at a time")
	f.Lookup("workers").DefValue = "4, for r2: and s3: 32"
	f.Var(&s.extract, "extract-workers", "queries to the source at a time")
	f.Lookup("extract-workers").DefValue = "2, for d1: 1"
	s.memory, s.window = 1<<30, jobs.HotWindow
	f.Var(&s.memory, "memory", "memory for the query; what does not fit goes to disk, beside the cache")
	f.Var(&s.window, "hot-window", "how many days back the source may hold rows that are newer than the archive's")
}

// addLimits adds the guard's flags.
func (s *session) addLimits(cmd *cobra.Command) {
	s.maxBytes, s.maxHotRows = amount{2 << 30, true}, amount{20_000_000, false}
	f := cmd.Flags()
	f.Var(&s.maxBytes, "max-bytes", "stop before fetching more than this; 0 for no limit")
	f.Var(&s.maxHotRows, "max-hot-rows", "stop before reading more rows from the source than this; 0 for no limit")
}

// open opens the engine. Either tier alone will do. Its progress is shown until
// s.wipe is called.
func (s *session) open(cmd *cobra.Command, a *app) (*lake.Lake, func(), error) {
	ctx := cmd.Context()
	none := s.settings.Value("store").Problem
	hasStore := s.store != "" || none != nil && !fault.Is(none, fault.NotExist)
	if cmd.Name() == "query" && lake.Tier(s.tier) == lake.Cold && hasStore {
		s.noSource = true // it is not asked for anything
	}
	o := lake.Options{
		StoreName: s.store, Memory: int64(s.memory), Threads: runtime.GOMAXPROCS(0), FetchWorkers: int(s.workers), ExtractWorkers: int(s.extract),
		MaxBytes: s.maxBytes.n, MaxHotRows: s.maxHotRows.n, HotWindow: int(s.window), Now: s.clock(),
	}
	if !s.hasSource() && !hasStore {
		return nil, nil, fault.Hint(fault.Errorf(fault.Usage, "no source and no store: where are the hot tier and the cold tier?"),
			"give --source and --store (d1://DATABASE_ID and r2://BUCKET, or sqlite:PATH and file:DIR), one of them at least; or set ETL_SOURCE and ETL_STORE, or write both into etl.yaml; `etl demo` makes a place to try")
	}
	done := func() {}
	s.env = jobs.Env{Now: s.clock(), Stop: a.stop.Done(), Timing: a.rec}
	if s.hasSource() {
		src, err := s.openSource(int(s.extract), false)
		if err != nil {
			return nil, nil, err
		}
		done = func() { src.Close() }
		s.env.Source = src
		if err := s.addLedger(ctx, &s.env, src, false); err != nil {
			done()
			return nil, nil, err
		}
		o.Source, o.Ledger = src, s.env.Ledger
	}
	fail := func(err error) (*lake.Lake, func(), error) {
		done()
		return nil, nil, err
	}
	if hasStore {
		// An absent folder is not taken for an empty archive: the answer would lack all
		// that is archived, and look whole. Before the first archive --tier hot answers.
		want := needed
		if cmd.Name() == "query" && lake.Tier(s.tier) == lake.Hot {
			want = perhaps
		}
		var err error
		if o.Store, err = s.openStore(ctx, want); err != nil {
			return fail(err)
		}
		if !strings.HasPrefix(s.store, "file:") && !cmd.Flags().Changed("workers") {
			o.FetchWorkers = 32 // each waits for the network most of the time
		}
	}
	var err error
	if o.Cache, err = s.openCache(a); err != nil {
		return fail(err)
	}
	o.Notify, s.stop = a.watchLake(cmd.Name())
	l, err := lake.Open(ctx, o)
	if err != nil {
		s.wipe()
		return fail(err)
	}
	closeSource := done
	return l, func() {
		s.wipe()
		if err := l.Close(); err != nil {
			a.warn(err.Error())
		}
		closeSource()
	}, nil
}

// wipe takes the progress away, so that what follows stands alone.
func (s *session) wipe() {
	if s.stop != nil {
		s.stop()
	}
}

// tier is the flag --tier.
type tier lake.Tier

var tierNames = []string{"both", "hot", "cold"}

func (t *tier) String() string { return lake.Tier(*t).String() }
func (t *tier) Type() string   { return "tier" }
func (t *tier) Set(v string) error {
	parsed, err := lake.ParseTier(v)
	if err == nil {
		*t = tier(parsed)
	}
	return err
}

// amount is a flag of a number of bytes or rows, 0 for no limit.
type amount struct {
	n     int64
	bytes bool
}

func (m *amount) String() string {
	if m.bytes {
		return strings.ReplaceAll(humanize.IBytes(uint64(m.n)), " ", "")
	}
	for _, u := range []struct {
		of   int64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if m.n >= u.of && m.n%u.of == 0 {
			return strconv.FormatInt(m.n/u.of, 10) + u.name
		}
	}
	return strconv.FormatInt(m.n, 10)
}

func (m *amount) Type() string {
	if m.bytes {
		return "size"
	}
	return "rows"
}

func (m *amount) Set(v string) error {
	if m.bytes {
		n, err := humanize.ParseBytes(v)
		if err != nil || n > 1<<50 {
			return fault.Errorf(fault.Usage, "want a size like 2GiB, or 0 for no limit, got %q", v)
		}
		m.n = int64(n)
		return nil
	}
	unit, digits := int64(1), v
	for name, of := range map[string]int64{"k": 1e3, "M": 1e6, "G": 1e9} {
		if d, ok := strings.CutSuffix(v, name); ok {
			unit, digits = of, d
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1e15/unit {
		return fault.Errorf(fault.Usage, "want a number of rows like 20M, or 0 for no limit, got %q", v)
	}
	m.n = n * unit
	return nil
}

// answer are the flags of where an answer goes, and in which form.
type answer struct {
	format string
	out    string
	limit  int
	timer  string // on or off: tell what an answer cost; "" where a person sees it
}

const defaultLimit = 100

const on, off = "on", "off"

var formatNames = []string{"table", "csv", "json", "jsonl", "markdown", "parquet"}

// extensions are the formats by the extension of a file's name.
var extensions = map[string]string{
	".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".md": "markdown", ".parquet": "parquet", ".txt": "table",
}

func (o *answer) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", "`FORMAT` of the answer: "+strings.Join(formatNames, ", ")+" (default by the name of -o; else a table on a terminal, csv elsewhere)")
	f.StringVarP(&o.out, "output", "o", "", "write the answer to `FILE`, whole or not at all")
	f.IntVar(&o.limit, "limit", defaultLimit, "rows of a table or of markdown, 0 for all; the other formats hold all rows")
	complete(cmd, "format", formatNames...)
}

// resolve settles the format.
func (o *answer) resolve(a *app) error {
	if a.json {
		if o.format != "" && o.format != "json" {
			return fault.Errorf(fault.Usage, "--json and --format %s exclude each other", o.format)
		}
		o.format = "json"
	}
	toFile := o.out != "" && o.out != "-"
	switch {
	case o.format != "":
	case toFile:
		ext := strings.ToLower(filepath.Ext(o.out))
		if o.format = extensions[ext]; o.format == "" {
			return fault.Hint(fault.Errorf(fault.Usage, "-o %s: the name says no format", o.out), "give --format: %s", strings.Join(formatNames, ", "))
		}
	case isTerminal(a.stdout):
		o.format = "table"
	default:
		o.format = "csv"
	}
	if !slices.Contains(formatNames, o.format) {
		return fault.Errorf(fault.Usage, "--format: want %s, got %q", strings.Join(formatNames, ", "), o.format)
	}
	if o.limit < 0 {
		return fault.Errorf(fault.Usage, "--limit: want a number of rows, 0 for all, got %d", o.limit)
	}
	if o.format == "parquet" && !toFile && isTerminal(a.stdout) {
		return fault.Hint(fault.Errorf(fault.Usage, "parquet is nothing for a terminal"), "give -o FILE.parquet")
	}
	return nil
}

// run answers q.
func (o *answer) run(ctx context.Context, a *app, s *session, l *lake.Lake, q lake.Query) error {
	defer a.rec.End(timing.Query, a.rec.Start())
	if o.out == "" || o.out == "-" {
		return o.write(ctx, a, s, l, q, a.stdout)
	}
	return intoFile("-o", o.out, func(w io.Writer) error { return o.write(ctx, a, s, l, q, w) })
}

// write answers q into w.
func (o *answer) write(ctx context.Context, a *app, s *session, l *lake.Lake, q lake.Query, w io.Writer) error {
	formats := map[string]lake.Format{"csv": lake.CSV, "json": lake.JSON, "jsonl": lake.JSONL, "parquet": lake.Parquet}
	if f, ok := formats[o.format]; ok {
		// Buffered, and flushed at the end: an answer of many small writes is one for the pipe.
		b := bufio.NewWriterSize(&settled{w: w, first: s.wipe}, 1<<16)
		stats, err := l.Write(ctx, q, b, f)
		if err == nil {
			err = b.Flush()
		}
		s.wipe()
		if err != nil {
			return err
		}
		o.footer(a, stats, o.out != "")
		return nil
	}
	limit := o.limit
	if limit == 0 {
		limit = math.MaxInt32
	}
	rows, err := l.Rows(ctx, q, limit)
	s.wipe()
	if err != nil {
		return err
	}
	b := bufio.NewWriter(w)
	note := ""
	if o.format == "markdown" {
		printMarkdown(b, rows.Columns, rows.Cells)
	} else if n := printRows(b, rows.Columns, rows.Cells, terminalWidth(w)); n < len(rows.Columns) {
		note = fmt.Sprintf("%d of %d columns fit; --format csv has all", n, len(rows.Columns))
	}
	if err := b.Flush(); err != nil {
		return err
	}
	if rows.More {
		// Also without a terminal: whoever reads the table must know.
		fmt.Fprintf(a.stderr, "there are more rows than the %s shown (--limit 0 for all, or --format csv)\n", comma(int64(len(rows.Cells))))
	}
	if note != "" {
		fmt.Fprintln(a.stderr, note)
	}
	o.footer(a, rows.Stats, true)
	return nil
}

// settled calls first before the first write.
type settled struct {
	w     io.Writer
	first func()
}

func (s *settled) Write(p []byte) (int, error) {
	if s.first != nil {
		s.first()
		s.first = nil
	}
	return s.w.Write(p)
}

// slow is from when on a query is logged.
const slow = time.Second

// footer tells what the answer cost: on a terminal below it, elsewhere as a log
// line if it took more than a second.
func (o *answer) footer(a *app, st lake.Stats, tell bool) {
	if o.timer == on {
		fmt.Fprintln(a.stderr, costText(st))
		return
	}
	if a.quiet {
		return
	}
	if isTerminal(a.stderr) {
		if tell && o.timer != off || st.Total > slow {
			fmt.Fprintln(a.stderr, costText(st))
		}
		return
	}
	if st.Total > slow {
		logSlow(a.stderr, st)
	}
}

// plural counts things: "1 file", "2,000 files".
func plural(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return comma(int64(n)) + " " + thing
}

// costText is what a query cost, for a person.
func costText(st lake.Stats) string {
	text := fmt.Sprintf("(%s, %s", plural(int(st.Rows), "row"), seconds(st.Total.Seconds()))
	if st.Files > 0 {
		text += "; " + plural(st.Files, "file")
		if st.BytesFetched > 0 {
			text += fmt.Sprintf(", %s fetched", humanize.IBytes(uint64(st.BytesFetched)))
		}
	}
	if st.HotRows > 0 {
		text += "; " + plural(int(st.HotRows), "hot row")
	}
	if st.Total > slow {
		text += fmt.Sprintf("; plan %s, catalog %s, fetch %s, extract %s, run %s", seconds(st.Plan.Seconds()), seconds(st.Catalog.Seconds()),
			seconds(st.Fetch.Seconds()), seconds(st.Extract.Seconds()), seconds(st.Run.Seconds()))
	}
	return text + ")"
}

func logSlow(w io.Writer, st lake.Stats) {
	log := newLog(w, "query")
	log.Info().Int64("rows", st.Rows).Int("files", st.Files).Int64("bytes_fetched", st.BytesFetched).Int64("hot_rows", st.HotRows).Int("replans", st.Replans).
		Dur("plan_ms", st.Plan).Dur("catalog_ms", st.Catalog).Dur("fetch_ms", st.Fetch).Dur("extract_ms", st.Extract).Dur("run_ms", st.Run).Dur("total_ms", st.Total).Msg("slow query")
}

// intoFile has write fill the file that a flag names, which is there whole or not at
// all: it is written beside its name and renamed. A link stays, and what it leads to is
// written. What is no regular file is written to.
func intoFile(flag, name string, write func(io.Writer) error) (err error) {
	bad := func(err error) error {
		if e := new(fs.PathError); errors.As(err, &e) {
			err = e.Err // the path is that of the temporary file
		}
		err = fault.Errorf(fault.Unavailable, "%s %s: %w", flag, name, err)
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return fault.Hint(err, "free space on the disk, or raise the quota, or name a file on another one")
		}
		return fault.Hint(err, "is the folder there, and may you write to it?")
	}
	st, err := os.Stat(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return bad(err) // such as a link that leads to itself
	}
	if err == nil && !st.Mode().IsRegular() {
		if st.IsDir() {
			return fault.Errorf(fault.Usage, "%s %s: it is a folder, want a file", flag, name)
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return bad(err)
		}
		if err := write(f); err != nil {
			f.Close()
			if e := new(fs.PathError); errors.As(err, &e) && e.Path == name {
				return bad(err) // a full disk
			}
			return err
		}
		return f.Close()
	}
	target := name
	if real, err := filepath.EvalSymlinks(name); err == nil {
		target = real
	} else if _, err := os.Readlink(name); err == nil {
		return fault.Hint(fault.Errorf(fault.Unavailable, "%s %s: it is a link to nothing", flag, name), "make what it leads to, or remove the link")
	}
	temp := filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+"."+rand.Text()[:8]+".tmp")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666) // less what the umask takes
	if err != nil {
		return bad(err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(temp)
		}
	}()
	if err := write(f); err != nil {
		if e := new(fs.PathError); errors.As(err, &e) && e.Path == temp {
			return bad(err) // a full disk
		}
		return err
	}
	if err := f.Close(); err != nil {
		return bad(err)
	}
	if err := os.Rename(temp, target); err != nil {
		return bad(err)
	}
	return nil
}

// watchLake returns what receives the events of the engine, and what takes the
// progress away that it shows; it may show more later.
func (a *app) watchLake(command string) (notify func(lake.Event), stop func()) {
	if f, ok := a.stderr.(*os.File); ok && isTerminal(f) {
		// What takes less than the time between two shows is not shown at all.
		p := &progressLine{w: f, command: command, start: time.Now(), last: time.Now(), quiet: a.quiet, width: func() int { return terminalWidth(f) }}
		return func(ev lake.Event) {
			if w, ok := ev.(lake.Warning); ok {
				p.event(jobs.Warning{Text: w.Text})
			} else {
				p.show(lakeProgress(command, ev))
			}
		}, p.rest
	}
	return func(ev lake.Event) {
		if w, ok := ev.(lake.Warning); ok {
			a.warn(w.Text)
		}
	}, func() {}
}

// lakeProgress is the progress line of an event of the engine.
func lakeProgress(command string, ev lake.Event) string {
	switch ev := ev.(type) {
	case lake.FetchProgress:
		return fmt.Sprintf("%s: fetched %s of %s files, %s of %s", command, comma(int64(ev.Files)), comma(int64(ev.NFiles)),
			humanize.IBytes(uint64(ev.Bytes)), humanize.IBytes(uint64(ev.NBytes)))
	case lake.ExtractProgress:
		return fmt.Sprintf("%s: read %s of about %s rows from the hot tier", command, comma(ev.Rows), comma(ev.NRows))
	}
	return command
}

// takesArguments marks, among the annotations of a command, one that takes
// arguments beside its flags.
const takesArguments = "arguments"

func must(err error) {
	if err != nil {
		panic(err) // a flag that was just declared
	}
}

// complete has the shell complete a flag with some words.
func complete(cmd *cobra.Command, flag string, words ...string) {
	must(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)))
}

// completeNamed completes the names of named queries.
func completeNamed(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, q := range etlsql.Queries() {
		if len(args) == 0 && strings.HasPrefix("@"+q.Name, begun) {
			names = append(names, "@"+q.Name+"\t"+q.Title)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeParam completes the parameters of the named query of the command line.
func completeParam(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 1 {
		if q, err := namedQuery(strings.TrimPrefix(args[0], "@")); err == nil {
			for _, p := range q.Params {
				if strings.HasPrefix(p.Name+"=", begun) {
					names = append(names, p.Name+"=\t"+p.Meaning)
				}
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}
