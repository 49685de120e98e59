package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/peterh/liner"
	"github.com/spf13/cobra"

	"etl/internal/fault"
	"etl/internal/lake"
	etlsql "etl/sql"
)

func (a *app) shell() *cobra.Command {
	sh := &shell{app: a}
	cmd := &cobra.Command{
		Use:   "shell",
		Short: "Ask one query after another, with editing, history and completion",
		Long: `shell answers SQL as query does, in one session: temporary tables and views that
it makes (CREATE TEMP TABLE t AS SELECT …) stay until it ends. A statement ends
with a semicolon and may take several lines. Named queries are typed as
@NAME name=value …, and commands begin with a dot: .help lists them.

Tab completes tables, columns, keywords, commands and named queries. Ctrl-C stops
the query that runs, or clears the line; Ctrl-D ends the shell.

If standard input or output is no terminal, statements are read from standard
input until it ends; one that fails does not end the others, and the exit code
is the worst.`,
		Example: `  etl shell
  etl shell --tier cold
  echo "SELECT count(*) FROM points;" | etl shell`,
	}
	sh.session.add(cmd)
	f := cmd.Flags()
	f.Var(&sh.session.tier, "tier", "hot, cold or both: where rows are taken from")
	f.StringVar(&sh.answer.format, "format", "", "`FORMAT` of answers: "+strings.Join(formatNames, ", ")+" (default table on a terminal, csv elsewhere)")
	f.IntVar(&sh.answer.limit, "limit", defaultLimit, "rows of a table or of markdown, 0 for all")
	complete(cmd, "tier", tierNames...)
	complete(cmd, "format", formatNames...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := sh.answer.resolve(a); err != nil {
			return err
		}
		if err := sh.places.resolve(a, cmd); err != nil {
			return err
		}
		l, done, err := sh.open(cmd, a)
		if err != nil {
			return err
		}
		defer done()
		sh.lake = l
		if isTerminal(a.stdin) && isTerminal(a.stdout) && liner.TerminalSupported() {
			return sh.interact(cmd.Context())
		}
		sh.answer.timer = off
		return sh.script(cmd.Context(), a.input(cmd.Context()), "", 0)
	}
	return cmd
}

// shell is a session at a prompt, or one that reads a script.
type shell struct {
	*app
	session
	answer
	lake *lake.Lake

	next answer // where the next answer goes, by .output
	last string // the last query, for .explain
	// interrupts is what Ctrl-C sends while a statement runs; nil in a script,
	// which ends then.
	interrupts <-chan os.Signal
	words      []string // tables and columns, to complete
}

const (
	prompt     = "etl> "
	promptMore = "...> "
)

// errQuit ends the shell.
var errQuit = errors.New("quit")

// interact reads and answers until Ctrl-D or .quit.
func (sh *shell) interact(ctx context.Context) error {
	var giveBack func()
	sh.interrupts, giveBack = ownInterrupts()
	defer giveBack()
	line := liner.NewLiner()
	defer line.Close()
	line.SetCtrlCAborts(true)
	line.SetTabCompletionStyle(liner.TabPrints)
	line.SetWordCompleter(sh.complete)
	h := sh.openHistory(line)
	if !sh.app.quiet {
		fmt.Fprintln(sh.stdout, "SQL over both tiers; end a statement with ; and type .help for help, .quit or Ctrl-D to leave.")
	}
	pending := ""
	for {
		p := prompt
		if pending != "" {
			p = promptMore
		}
		text, err := ask(ctx, line, p)
		switch {
		case errors.Is(err, liner.ErrPromptAborted):
			pending = ""
			continue
		case errors.Is(err, io.EOF):
			fmt.Fprintln(sh.stdout)
			return nil
		case err != nil:
			return err
		}
		was := pending
		pending, err = sh.feed(ctx, was, text, func(err error, _ int) {
			fmt.Fprintf(sh.stderr, "%s\n", errorText(err))
		}, 0)
		if pending == "" {
			h.add(line, was+text)
		}
		if errors.Is(err, errQuit) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// ask reads a line, unless ctx ends first; then the terminal is as it was.
func ask(ctx context.Context, line *liner.State, prompt string) (string, error) {
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() { // outlives ctx only until the process ends
		text, err := line.Prompt(prompt)
		got <- answer{text, err}
	}()
	select {
	case a := <-got:
		return a.text, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// errorText is an error with its hint.
func errorText(err error) string {
	text := "error: " + oneLine(err.Error())
	if h := fault.HintOf(err); h != "" {
		text += "\n     " + oneLine(h)
	}
	return text
}

// script carries out what r holds. Errors are told with their line and do not
// end it; the exit code is the worst of them.
func (sh *shell) script(ctx context.Context, r io.Reader, name string, depth int) error {
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 1<<20)
	pending := ""
	n := 0 // the line that was read last
	report := func(err error, above int) {
		at := fmt.Sprintf("line %d", n-above)
		if name != "" {
			at = name + ":" + strconv.Itoa(n-above)
		}
		fmt.Fprintf(sh.stderr, "etl: %s: %s\n", at, oneLine(err.Error()))
		if h := fault.HintOf(err); h != "" {
			fmt.Fprintf(sh.stderr, "     %s\n", oneLine(h))
		}
		sh.code = fault.Worse(sh.code, fault.ExitCode(err))
	}
	for scan.Scan() {
		n++
		var err error
		if pending, err = sh.feed(ctx, pending, scan.Text(), report, depth); err != nil {
			if errors.Is(err, errQuit) {
				return nil
			}
			return err
		}
	}
	if err := scan.Err(); err != nil {
		return fault.Wrap(fault.Usage, wrapf(err, "read statements"))
	}
	if blank(pending) {
		return nil
	}
	n++
	rest, err := sh.feed(ctx, pending, ";", report, depth) // the last one needs no semicolon
	if err == nil && !blank(rest) {
		// A quote or comment is open, and all that followed is in it: DuckDB says what.
		err = sh.handle(ctx, report, above(rest), func(ctx context.Context) error { return sh.statement(ctx, pending) })
	}
	if errors.Is(err, errQuit) {
		return nil
	}
	return err
}

// above is how many lines above the last line of a text the statement begins that
// it holds: white space may come before.
func above(text string) int {
	return strings.Count(strings.TrimSuffix(strings.TrimLeft(text, " \t\r\n"), "\n"), "\n")
}

// feed takes a line after what is pending of a statement, carries out what is
// complete, and returns what is pending now. Errors of statements go to report,
// with how many lines above this one the statement begins; errQuit, and the end of
// ctx, are returned.
func (sh *shell) feed(ctx context.Context, pending, line string, report func(err error, above int), depth int) (string, error) {
	if blank(pending) {
		if t := strings.TrimSpace(line); strings.HasPrefix(t, ".") || strings.HasPrefix(t, "@") {
			return "", sh.handle(ctx, report, 0, func(ctx context.Context) error {
				if t[0] == '@' {
					return sh.ask(ctx, t)
				}
				return sh.command(ctx, t, depth)
			})
		}
	}
	text := pending + line + "\n"
	for {
		statement, rest, ok := cutStatement(text)
		if !ok {
			if blank(text) {
				text = ""
			}
			return text, nil
		}
		begun := above(text)
		text = rest
		if blank(statement) {
			continue
		}
		if err := sh.handle(ctx, report, begun, func(ctx context.Context) error { return sh.statement(ctx, statement) }); err != nil {
			return "", err
		}
	}
}

// handle runs f, which Ctrl-C ends, and reports its error.
func (sh *shell) handle(ctx context.Context, report func(err error, above int), above int, f func(context.Context) error) error {
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	if sh.interrupts != nil {
		for len(sh.interrupts) > 0 {
			<-sh.interrupts // from before
		}
		ended := make(chan struct{})
		defer close(ended)
		go func() {
			select {
			case <-sh.interrupts:
				cancel()
			case <-ended:
			}
		}()
	}
	sh.wipe()
	err := f(run)
	sh.wipe()
	switch {
	case err == nil || errors.Is(err, errQuit) || ctx.Err() != nil:
		return err
	case run.Err() != nil:
		err = errors.New("stopped")
	}
	report(err, above)
	return nil
}

// statement carries out one statement of SQL.
func (sh *shell) statement(ctx context.Context, text string) error {
	if lake.IsExec(text) {
		what, err := sh.lake.Exec(ctx, text)
		if err != nil {
			return err
		}
		sh.words = nil
		sh.wipe()
		if sh.interrupts != nil {
			fmt.Fprintln(sh.stdout, what)
		}
		return nil
	}
	return sh.run(ctx, lake.Query{SQL: text})
}

// ask answers @NAME name=value …
func (sh *shell) ask(ctx context.Context, line string) error {
	words, err := splitWords(strings.TrimSuffix(strings.TrimSpace(line), ";"))
	if err != nil {
		return err
	}
	given, err := parseParams(slices.DeleteFunc(words[1:], func(w string) bool { return w == "--param" }))
	if err != nil {
		return err
	}
	q, err := bind(words[0], given, sh.clock()())
	if err != nil {
		return err
	}
	return sh.run(ctx, q)
}

// run answers q as .mode and .output say.
func (sh *shell) run(ctx context.Context, q lake.Query) error {
	q.Tier = lake.Tier(sh.tier)
	sh.last = q.SQL
	o := sh.answer
	if sh.next.out != "" {
		o.out, o.format = sh.next.out, sh.next.format
		defer func() { sh.next = answer{} }()
	}
	if o.format == "parquet" && o.out == "" {
		return fault.Hint(fault.Errorf(fault.Usage, "parquet goes into a file"), "type .output FILE.parquet before the query")
	}
	return o.run(ctx, sh.app, &sh.session, sh.lake, q)
}

// command is one of the commands that begin with a dot.
type command struct {
	name, args, help string
	run              func(sh *shell, ctx context.Context, args []string, rest string, depth int) error
}

var commands []command

func init() { // not a literal, for .help lists the commands
	commands = []command{
		{".tables", "", "list tables and views", (*shell).tables},
		{".schema", "[TABLE]", "columns and their types", (*shell).schema},
		{".queries", "[NAME]", "list the named queries, or explain one", (*shell).queries},
		{".explain", "[SQL]", "what a query would touch; without SQL the last one", (*shell).explain},
		{".mode", "[FORMAT]", "table, csv, json, jsonl, markdown", (*shell).mode},
		{".limit", "[ROWS]", "rows of a table, 0 for all", (*shell).setLimit},
		{".output", "FILE", "write the next answer to FILE, in the format of its name", (*shell).output},
		{".tier", "[hot|cold|both]", "where rows are taken from", (*shell).setTier},
		{".timer", "on|off", "tell what each query cost", (*shell).setTimer},
		{".read", "FILE", "carry out what FILE holds", (*shell).read},
		{".help", "", "this list", (*shell).help},
		{".quit", "", "leave", func(*shell, context.Context, []string, string, int) error { return errQuit }},
	}
}

func (sh *shell) command(ctx context.Context, line string, depth int) error {
	name, rest, _ := strings.Cut(line, " ")
	i := slices.IndexFunc(commands, func(c command) bool { return c.name == name })
	if i < 0 {
		return fault.Hint(fault.Errorf(fault.Usage, "there is no command %s", printable(name)), ".help lists them")
	}
	rest = strings.TrimSpace(rest)
	args := []string{}
	if c := commands[i]; c.name != ".explain" {
		var err error
		if args, err = splitWords(rest); err != nil {
			return err
		}
		most := 1
		if c.args == "" {
			most = 0
		}
		if least := 1; len(args) > most || len(args) < least && c.args != "" && c.args[0] != '[' {
			return fault.Errorf(fault.Usage, "want %s", strings.TrimSpace(c.name+" "+c.args))
		}
	}
	return commands[i].run(sh, ctx, args, rest, depth)
}

func (sh *shell) tables(ctx context.Context, _ []string, _ string, _ int) error {
	ts, err := sh.lake.Tables(ctx)
	if err != nil {
		return err
	}
	t := newTable("name", "kind", "columns>")
	for _, x := range ts {
		t.row(x.Name, x.Kind, len(x.Columns))
	}
	t.print(sh.stdout)
	return nil
}

func (sh *shell) schema(ctx context.Context, args []string, _ string, _ int) error {
	ts, err := sh.lake.Tables(ctx)
	if err != nil {
		return err
	}
	t := newTable("table", "column", "type")
	found := false
	for _, x := range ts {
		if len(args) > 0 && !strings.EqualFold(args[0], x.Name) {
			continue
		}
		found = true
		for _, c := range x.Columns {
			t.row(x.Name, c.Name, c.Type)
		}
	}
	if !found && len(args) > 0 {
		return fault.Hint(fault.Errorf(fault.Usage, "there is no table %s", printable(args[0])), ".tables lists them")
	}
	t.print(sh.stdout)
	return nil
}

func (sh *shell) queries(_ context.Context, args []string, _ string, _ int) error {
	return (&app{stdout: sh.stdout}).listQueries(args)
}

func (sh *shell) explain(ctx context.Context, _ []string, text string, _ int) error {
	q := lake.Query{SQL: strings.TrimSuffix(text, ";"), Tier: lake.Tier(sh.tier)}
	if strings.HasPrefix(text, "@") {
		words, err := splitWords(q.SQL)
		if err != nil {
			return err
		}
		given, err := parseParams(words[1:])
		if err != nil {
			return err
		}
		if q, err = bind(words[0], given, sh.clock()()); err != nil {
			return err
		}
		q.Tier = lake.Tier(sh.tier)
	}
	if q.SQL == "" {
		if q.SQL = sh.last; q.SQL == "" {
			return fault.Errorf(fault.Usage, "there is no query yet: want .explain SQL")
		}
	}
	e, err := sh.lake.Explain(ctx, q)
	sh.wipe()
	if err != nil {
		return err
	}
	printExplanation(sh.stdout, e)
	return nil
}

func (sh *shell) mode(_ context.Context, args []string, _ string, _ int) error {
	if len(args) == 0 {
		fmt.Fprintln(sh.stdout, sh.answer.format)
		return nil
	}
	if !slices.Contains(formatNames, args[0]) {
		return fault.Errorf(fault.Usage, "want %s, got %q", strings.Join(formatNames, ", "), args[0])
	}
	sh.answer.format = args[0]
	return nil
}

func (sh *shell) setLimit(_ context.Context, args []string, _ string, _ int) error {
	if len(args) == 0 {
		fmt.Fprintln(sh.stdout, sh.answer.limit)
		return nil
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 0 {
		return fault.Errorf(fault.Usage, "want a number of rows, 0 for all, got %q", args[0])
	}
	sh.answer.limit = n
	return nil
}

func (sh *shell) output(_ context.Context, args []string, _ string, _ int) error {
	o := answer{out: args[0], limit: sh.answer.limit}
	if err := o.resolve(&app{stdout: sh.stdout}); err != nil {
		if extensions[strings.ToLower(filepath.Ext(o.out))] != "" {
			return err
		}
		return fault.Errorf(fault.Usage, "%s: the name says no format: want one that ends in .csv, .json, .jsonl, .md, .txt or .parquet", args[0])
	}
	sh.next = o
	return nil
}

func (sh *shell) setTier(_ context.Context, args []string, _ string, _ int) error {
	if len(args) == 0 {
		fmt.Fprintln(sh.stdout, sh.tier.String())
		return nil
	}
	return sh.tier.Set(args[0])
}

func (sh *shell) setTimer(_ context.Context, args []string, _ string, _ int) error {
	if args[0] != on && args[0] != off {
		return fault.Errorf(fault.Usage, "want .timer on or .timer off")
	}
	sh.answer.timer = args[0]
	return nil
}

func (sh *shell) read(ctx context.Context, args []string, _ string, depth int) error {
	if depth == 10 {
		return fault.Errorf(fault.Usage, "files read each other, ten deep")
	}
	f, err := os.Open(args[0])
	if err != nil {
		return fault.Wrap(fault.Usage, err)
	}
	defer f.Close()
	return sh.script(ctx, f, args[0], depth+1)
}

func (sh *shell) help(context.Context, []string, string, int) error {
	t := newTable("command", "")
	for _, c := range commands {
		t.row(strings.TrimSpace(c.name+" "+c.args), whole(c.help))
	}
	t.row("@NAME name=value …", "answer a named query")
	t.row("SELECT …;", "answer SQL; a statement ends with a semicolon")
	t.row("CREATE TEMP TABLE t AS SELECT …;", whole("keep an answer until the shell ends; also TEMP VIEW, and DROP TABLE t;"))
	t.print(sh.stdout)
	return nil
}

// cutStatement cuts the first statement off a text, at a semicolon outside of
// quotes and comments; without one it is not complete. The lexical rules are
// DuckDB's: ” within '…', backslashes within E'…', $tag$…$tag$, and comments
// that do not nest.
func cutStatement(text string) (statement, rest string, ok bool) {
	for i := 0; i < len(text); {
		if text[i] == ';' {
			return text[:i], text[i+1:], true
		}
		n := lexeme(text[i:], i > 0 && isWord(text[i-1]))
		if n == 0 {
			return "", text, false // a quote or comment is open
		}
		i += n
	}
	return "", text, false
}

// lexeme is the length of the quoted text, comment or byte that s begins with, 0
// if it does not end. within says that a word goes on before s.
func lexeme(s string, within bool) int {
	closed := func(from int, by string) int {
		if i := strings.Index(s[from:], by); i >= 0 {
			return from + i + len(by)
		}
		return 0
	}
	switch {
	case strings.HasPrefix(s, "--"):
		return closed(2, "\n")
	case strings.HasPrefix(s, "/*"):
		return closed(2, "*/")
	case s[0] == '\'' || s[0] == '"':
		return closed(1, s[:1]) // a doubled quote is two texts, which comes to the same
	case !within && len(s) > 1 && (s[0] == 'e' || s[0] == 'E') && s[1] == '\'':
		for i := 2; i < len(s); i++ {
			switch s[i] {
			case '\\':
				i++
			case '\'':
				return i + 1
			}
		}
		return 0
	case s[0] == '$' && !within:
		end := 1
		for end < len(s) && isWord(s[end]) {
			end++
		}
		if end < len(s) && s[end] == '$' && (end == 1 || s[1] < '0' || s[1] > '9') {
			return closed(end+1, s[:end+1])
		}
	}
	return 1
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// blank reports whether a text holds nothing but white space, semicolons and
// comments that have ended.
func blank(text string) bool {
	for i := 0; i < len(text); {
		switch {
		case strings.HasPrefix(text[i:], "--") || strings.HasPrefix(text[i:], "/*"):
			n := lexeme(text[i:], false)
			if n == 0 {
				return strings.HasPrefix(text[i:], "--")
			}
			i += n
		case strings.IndexByte(" \t\r\n;", text[i]) >= 0:
			i++
		default:
			return false
		}
	}
	return true
}

// splitWords takes a line apart at spaces; quotes, single or double, hold words
// together.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	begun := false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r == ' ' || r == '\t':
			if begun {
				words = append(words, word.String())
				word.Reset()
				begun = false
			}
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if quote != 0 {
		return nil, fault.Errorf(fault.Usage, "a quote %c is open", quote)
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

// keywords are completed beside tables and columns.
var keywords = strings.Fields(`ALL AND AS ASC BETWEEN BY CASE CAST COUNT CREATE CROSS DESC DISTINCT DROP ELSE END EXCEPT EXISTS FILTER FROM
	GLOB GROUP HAVING ILIKE IN INNER INTERSECT INTERVAL IS JOIN LEFT LIKE LIMIT NOT NULL NULLS OFFSET ON OR ORDER OUTER OVER PARTITION
	QUALIFY REPLACE SELECT TABLE TEMP THEN TIMESTAMP UNION USING VALUES VIEW WHEN WHERE WINDOW WITH
	avg( count( date_trunc( epoch_ms( first( last( max( median( min( quantile_cont( round( stddev( sum( time_bucket(`)

// complete completes the word before pos, a number of runes.
func (sh *shell) complete(line string, pos int) (head string, completions []string, tail string) {
	runes := []rune(line)
	before := string(runes[:pos])
	tail = string(runes[pos:])
	start := strings.LastIndexAny(before, " \t(),;=<>+-*/|.'\"") + 1
	var candidates []string
	switch trimmed := strings.TrimLeft(before, " "); {
	case strings.HasPrefix(trimmed, ".") && !strings.Contains(trimmed, " "):
		start = len(before) - len(trimmed)
		for _, c := range commands {
			candidates = append(candidates, c.name)
		}
	case strings.HasPrefix(trimmed, "."):
		switch name, _, _ := strings.Cut(trimmed, " "); name {
		case ".mode":
			candidates = formatNames
		case ".tier":
			candidates = tierNames
		case ".timer":
			candidates = []string{on, off}
		case ".schema", ".explain":
			candidates = sh.names()
		case ".queries":
			start = strings.LastIndex(before, " ") + 1
			for _, q := range etlsql.Queries() {
				candidates = append(candidates, q.Name)
			}
		}
	case strings.HasPrefix(trimmed, "@"):
		start = strings.LastIndex(before, " ") + 1
		if name, _, ok := strings.Cut(trimmed[1:], " "); ok {
			if q, err := namedQuery(name); err == nil {
				for _, p := range q.Params {
					candidates = append(candidates, p.Name+"=")
				}
			}
			break
		}
		start = len(before) - len(trimmed)
		for _, q := range etlsql.Queries() {
			candidates = append(candidates, "@"+q.Name)
		}
	default:
		candidates = append(slices.Clone(sh.names()), keywords...)
	}
	word := before[start:]
	for _, c := range candidates {
		if len(c) < len(word) || !strings.EqualFold(c[:len(word)], word) {
			continue
		}
		if word != "" && word == strings.ToLower(word) && slices.Contains(keywords, c) {
			c = strings.ToLower(c) // as the person types
		}
		if !slices.Contains(completions, c) {
			completions = append(completions, c)
		}
	}
	if strings.HasPrefix(word, "@") {
		slices.Sort(completions) // @trend before @trend-downsampled
	}
	return before[:start], completions, tail
}

// names are the tables and columns, asked for once and after each change.
func (sh *shell) names() []string {
	if sh.words == nil {
		ts, err := sh.lake.Tables(context.Background())
		if err != nil {
			return nil // there is nothing to complete, and no place to say why
		}
		for _, t := range ts {
			sh.words = append(sh.words, t.Name)
		}
		for _, t := range ts {
			for _, c := range t.Columns {
				if !slices.Contains(sh.words, c.Name) {
					sh.words = append(sh.words, c.Name)
				}
			}
		}
	}
	return sh.words
}

// pastLines is the file of what was typed, one entry a line, oldest first.
type pastLines struct{ path string }

// openHistory gives line what was typed in earlier sessions. The file is for the
// user alone. Without one there is just no history.
func (sh *shell) openHistory(line *liner.State) pastLines {
	state := os.UserConfigDir
	if runtime.GOOS != "darwin" && runtime.GOOS != "windows" {
		state = func() (string, error) {
			home, err := os.UserHomeDir()
			return filepath.Join(home, ".local", "state"), err
		}
	}
	dir, err := userDir(sh.getenv, "XDG_STATE_HOME", filepath.Join(".local", "state"), state)
	if err != nil {
		return pastLines{}
	}
	h := pastLines{filepath.Join(dir, "etl", "history")}
	if err := os.MkdirAll(filepath.Dir(h.path), 0o700); err != nil {
		return pastLines{}
	}
	data, err := os.ReadFile(h.path)
	if err != nil {
		return h
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	if len(lines) > 2*liner.HistoryLimit { // so that it does not grow for ever
		lines = lines[len(lines)-liner.HistoryLimit:]
		temp := h.path + ".tmp"
		if os.WriteFile(temp, bytes.Join(lines, nil), 0o600) == nil {
			_ = os.Rename(temp, h.path)
		}
	}
	_, _ = line.ReadHistory(bytes.NewReader(bytes.Join(lines, nil)))
	return h
}

// add keeps what was typed: a statement of several lines as one, unless a
// comment in it would then swallow the rest.
func (h pastLines) add(line *liner.State, text string) {
	text = strings.TrimSpace(text)
	if !strings.Contains(text, "--") {
		text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
	}
	var b strings.Builder
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" {
			line.AppendHistory(l)
			b.WriteString(l + "\n")
		}
	}
	if h.path == "" || b.Len() == 0 {
		return
	}
	// Appended at once, so that sessions side by side keep each other's.
	f, err := os.OpenFile(h.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	_, _ = f.WriteString(b.String())
	_ = f.Close()
}
