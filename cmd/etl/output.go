package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"
	"golang.org/x/term"

	"etl/internal/fault"
	"etl/internal/timing"
	"etl/jobs"
)

// print writes the result of a command: as JSON, or as text made by human.
func (a *app) print(result any, human func(io.Writer)) error {
	if a.result != nil {
		a.result(result)
	}
	if !a.json {
		human(a.stdout)
		return nil
	}
	if a.rec != nil {
		var err error
		if result, err = a.withTimings(result); err != nil {
			return err
		}
	}
	enc := json.NewEncoder(jsonWriter{a.stdout})
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(result)
}

// output is standard output, which remembers the first error of a write: most of
// what prints a text does not look. After one nothing more is written, so that no
// text has a hole.
type output struct {
	w   io.Writer
	mu  sync.Mutex
	err error
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	var n int
	n, o.err = o.w.Write(b)
	return n, o.err
}

// lost is the error that kept a part of the output from being written; not that
// nobody reads any more, such as head, who then misses nothing.
func (o *output) lost() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if errors.Is(o.err, syscall.EPIPE) {
		return nil
	}
	return o.err
}

// fileOf is the file that a stream is, if it is one.
func fileOf(stream any) (*os.File, bool) {
	if o, ok := stream.(*output); ok {
		stream = o.w
	}
	f, ok := stream.(*os.File)
	return f, ok
}

// jsonWriter escapes what JSON may hold as it is and terminals take for commands:
// DEL and U+0080 to U+009F. In JSON they are only ever within strings. It is given
// whole values.
type jsonWriter struct{ w io.Writer }

func (j jsonWriter) Write(b []byte) (int, error) {
	out := b
	if bytes.ContainsFunc(b, isC1) {
		out = nil
		for _, r := range string(b) {
			if isC1(r) {
				out = fmt.Appendf(out, `\u%04x`, r)
			} else {
				out = utf8.AppendRune(out, r)
			}
		}
	}
	if _, err := j.w.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

func isC1(r rune) bool { return r >= 0x7f && r < 0xa0 }

// table aligns columns. A heading that ends in > is set to the right.
type table struct {
	right []bool
	rows  [][]string
}

func newTable(headings ...string) *table {
	t := &table{}
	row := make([]string, len(headings))
	for i, h := range headings {
		name, right := strings.CutSuffix(h, ">")
		row[i] = strings.ToUpper(name)
		t.right = append(t.right, right)
	}
	t.rows = append(t.rows, row)
	return t
}

func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		if s, ok := c.(whole); ok {
			row[i] = printableLine(string(s))
			continue
		}
		row[i] = printable(fmt.Sprint(c))
	}
	t.rows = append(t.rows, row)
}

func (t *table) print(w io.Writer) {
	width := make([]int, len(t.right))
	for _, r := range t.rows {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for _, r := range t.rows {
		var b strings.Builder
		for i, c := range r {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if t.right[i] {
				b.WriteString(pad + c)
			} else {
				b.WriteString(c + pad)
			}
			b.WriteString("  ")
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// whole is a cell that is not cut, however long.
type whole string

// printable keeps control characters in names from reaching the terminal, and
// long names from breaking the table.
func printable(s string) string {
	s = printableLine(s)
	if utf8.RuneCountInString(s) > 60 {
		s = string([]rune(s)[:59]) + "…"
	}
	return s
}

func comma(n int64) string { return humanize.Comma(n) }

func perSample(bytes, samples int64) string {
	if samples == 0 {
		return "–"
	}
	return fmt.Sprintf("%.3f", float64(bytes)/float64(samples))
}

func seconds(s float64) string {
	if s < 10 {
		return fmt.Sprintf("%.2f s", s)
	}
	return (time.Duration(s) * time.Second).String()
}

// watch returns what receives the events of a job, and what ends it: progress
// with rate and time left on a terminal, JSON log lines elsewhere.
func (a *app) watch(command string) (notify func(jobs.Event), stop func()) {
	if f, ok := a.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p := &progressLine{w: f, command: command, start: time.Now(), quiet: a.quiet, width: func() int {
			w, _, err := term.GetSize(int(f.Fd()))
			if err != nil || w <= 0 {
				return 80
			}
			return w
		}}
		return p.event, a.warnings.to(p.event, p.clear)
	}
	l := &logLines{log: newLog(a.stderr, command), quiet: a.quiet, last: time.Now()}
	return l.event, a.warnings.to(l.event, func() {})
}

// newLog is a log of JSON lines, which are fit for a terminal too.
func newLog(w io.Writer, command string) zerolog.Logger {
	return zerolog.New(jsonWriter{w}).With().Str("command", command).Logger().Hook(inUTC{})
}

// inUTC gives each line of the log its time. zerolog's own would carry the offset
// of this machine.
type inUTC struct{}

func (inUTC) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Time(zerolog.TimestampFieldName, time.Now().UTC())
}

// warnings passes on what a person should know from where there is no job, such
// as the retries of a client: to the watch of the job that runs, else to
// standard error. It is safe for concurrent use.
type warnings struct {
	mu    sync.Mutex
	event func(jobs.Event) // of the watch, nil for none
	told  time.Time        // of the last retry that was passed on
}

// to sends what follows to the watch, until the function that it returns, which
// calls end, is called.
func (w *warnings) to(event func(jobs.Event), end func()) (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.event = event
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.event = nil
		end()
	}
}

func (a *app) warn(text string) {
	text = a.secrets.Clean(text)
	a.warnings.mu.Lock()
	defer a.warnings.mu.Unlock()
	if a.warnings.event != nil {
		a.warnings.event(jobs.Warning{Text: text})
		return
	}
	fmt.Fprintf(a.stderr, "etl: warning: %s\n", printableLine(text))
}

// retrying is a fault.Policy's Notify: it tells of what has failed three times
// and more, once a second, for all workers meet the same fault.
func (a *app) retrying(r fault.Retry) {
	a.retries.Count(r)
	a.rec.Add(timing.WaitRetry, r.Wait, 0)
	a.warnings.mu.Lock()
	tell := r.Attempt >= 3 && time.Since(a.warnings.told) >= time.Second
	if tell {
		a.warnings.told = time.Now()
	}
	a.warnings.mu.Unlock()
	if tell {
		a.warn(fmt.Sprintf("%s: attempt %d failed, the next one is in %s: %v", r.What, r.Attempt, seconds(r.Wait.Seconds()), r.Err))
	}
}

// logLines writes events as JSON log lines; progress at most every 10 s.
type logLines struct {
	log   zerolog.Logger
	quiet bool

	mu   sync.Mutex
	last time.Time
}

func (l *logLines) event(ev jobs.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch ev := ev.(type) {
	case jobs.Progress:
		if l.quiet || time.Since(l.last) < 10*time.Second {
			return
		}
		l.last = time.Now()
		l.log.Info().Stringer("month", ev.Month).Int64("point_days", ev.SlicesDone).Int64("point_days_total", ev.SlicesTotal).
			Int64("points", ev.PointsDone).Int64("points_total", ev.PointsTotal).Int64("samples", ev.Rows).Int64("files", ev.Files).Int64("bytes", ev.Bytes).Msg("progress")
	case jobs.MonthCommitted:
		if !l.quiet {
			l.log.Info().Stringer("month", ev.Month).Int("points", ev.Points).Msg("committed")
		}
	case jobs.PointFailed:
		l.log.Error().Str("month", ev.Month).Int32("point_id", ev.PointID).Str("point", ev.Point).Str("path", ev.Path).
			Str("kind", ev.Kind).Str("error", ev.Error).Str("hint", ev.Hint).Msg("failed")
	case jobs.Rejected:
		l.log.Warn().Str("month", ev.Month).Str("point", ev.Point).Int("rows", ev.Rows).Str("reason", ev.Reason).Str("key", string(ev.Key)).Msg("rows rejected")
	case jobs.Warning:
		l.log.Warn().Msg(ev.Text)
	case jobs.Bookmarked: // also with --quiet
		l.log.Info().Str("bookmark", ev.Bookmark).Msg(undo(ev))
	}
}

// undo is the way back.
func undo(b jobs.Bookmarked) string {
	return "to undo: wrangler d1 time-travel restore DATABASE_NAME --bookmark=" + printableLine(b.Bookmark)
}

// progressLine keeps one line of a terminal up to date and writes what a person
// should know above it.
type progressLine struct {
	w       io.Writer
	command string
	start   time.Time
	quiet   bool
	width   func() int

	mu    sync.Mutex
	last  time.Time
	shown bool
	said  int // rejected rows and warnings written
}

func (p *progressLine) event(ev jobs.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch ev := ev.(type) {
	case jobs.Progress:
		p.write(func() string { return progressText(p.command, ev, time.Since(p.start)) })
	case jobs.PointFailed:
		p.say("failed: %s", printableLine(ev.Error))
	case jobs.Rejected:
		p.say("rejected: %d rows of %s, %s: %s", ev.Rows, printable(ev.Point), ev.Month, printableLine(ev.Reason))
	case jobs.Warning:
		p.say("warning: %s", printableLine(ev.Text))
	case jobs.Bookmarked:
		p.wipe()
		fmt.Fprintf(p.w, "etl: %s\n", undo(ev))
	}
}

// show brings the line up to date with a text of its own.
func (p *progressLine) show(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.write(func() string { return text })
}

func (p *progressLine) write(text func() string) {
	if p.quiet || time.Since(p.last) < 200*time.Millisecond {
		return
	}
	p.last = time.Now()
	line := []rune(text())
	fmt.Fprintf(p.w, "\r\x1b[K%s", string(line[:min(len(line), max(10, p.width()-1))]))
	p.shown = true
}

// printableLine is printable without the limit of length.
func printableLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '·'
		}
		return r
	}, strings.ToValidUTF8(s, "·"))
}

func (p *progressLine) say(format string, a ...any) {
	p.said++
	if p.said > 20 {
		return // the result counts them all
	}
	p.wipe()
	fmt.Fprintf(p.w, "etl: "+format+"\n", a...)
}

// rest takes the line away until a while later.
func (p *progressLine) rest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
	p.last = time.Now()
}

func (p *progressLine) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
}

func (p *progressLine) wipe() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

// progressText is what the progress line says: how far, how fast, how long still.
func progressText(command string, p jobs.Progress, elapsed time.Duration) string {
	done, total := p.SlicesDone, p.SlicesTotal
	if total == 0 { // verify counts files
		done, total = p.PointsDone, p.PointsTotal
	}
	left := "…"
	if elapsed > 2*time.Second && done > 0 && total >= done { // earlier it would be a guess
		left = (time.Duration(float64(elapsed) * float64(total-done) / float64(done))).Round(time.Second).String()
	}
	s := max(elapsed.Seconds(), 1e-3)
	text := fmt.Sprintf("%s %s  %3.0f%%", command, p.Month, 100*float64(done)/float64(max(total, 1)))
	if p.Rows > 0 {
		text += fmt.Sprintf("  %s samples, %s/s", comma(p.Rows), comma(int64(float64(p.Rows)/s)))
	}
	if p.Files > 0 {
		text += fmt.Sprintf("  %s files", comma(p.Files))
	}
	return text + fmt.Sprintf("  %s  %s left", humanize.IBytes(uint64(p.Bytes)), left)
}
