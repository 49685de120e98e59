package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"etl/internal/fault"
	"etl/internal/utc"
	"etl/jobs"
)

func TestTable(t *testing.T) {
	tb := newTable("name", "rows>", "reason")
	tb.row("🌡 Zone", comma(1234567), whole(strings.Repeat("long ", 20)+"\x1b[31m"))
	tb.row(strings.Repeat("x", 500), 1, "a\nb\x1b[2J")
	var b bytes.Buffer
	tb.print(&b)
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "NAME ") || !strings.Contains(lines[0], "     ROWS  REASON") {
		t.Fatalf("%q", lines)
	}
	if !strings.Contains(lines[1], "  1,234,567  "+strings.Repeat("long ", 20)) {
		t.Errorf("a whole cell was cut, or a number is not set to the right: %q", lines[1])
	}
	if !strings.Contains(lines[2], "xxx…          1  a·b·[2J") {
		t.Errorf("%q", lines[2])
	}
	if strings.ContainsRune(b.String(), 0x1b) {
		t.Error("an escape reached the terminal")
	}
}

// fullWriter takes some bytes, and then none.
type fullWriter struct {
	left int
	err  error
}

func (f *fullWriter) Write(b []byte) (int, error) {
	n := min(len(b), f.left)
	if f.left -= n; n < len(b) {
		return n, f.err
	}
	return n, nil
}

// TestOutputIsLost: whatever a command prints, exit code and a message say so where
// it can not be written.
func TestOutputIsLost(t *testing.T) {
	dir := t.TempDir()
	source, store := "sqlite:"+filepath.Join(dir, "d1.sqlite"), "file:"+filepath.Join(dir, "r2")
	if err := os.Mkdir(filepath.Join(dir, "r2"), 0o755); err != nil {
		t.Fatal(err)
	}
	start := func(stdout io.Writer, args ...string) (int, string) {
		var stderr bytes.Buffer
		env := map[string]string{"ETL_SOURCE": source, "ETL_STORE": store, "ETL_CACHE": filepath.Join(dir, "cache"), "HOME": dir}
		code := run(t.Context(), context.Background(), args, func(name string) string { return env[name] }, strings.NewReader("SELECT 1 AS x;\n.mode\n"), stdout, &stderr)
		return code, stderr.String()
	}
	if code, said := start(io.Discard, "migrate"); code != 0 {
		t.Fatal(said)
	}
	for _, text := range []string{
		"version", "version --json", "--help", "help archive", "archive --help", "config", "migrate", "migrate --dry-run", "archive --dry-run --quiet", "archive --quiet", "points", "rejects",
		"verify --quiet", "prune --dry-run --quiet", "restore --last 1d --dry-run --quiet", "cost --points-count 10", "cache", "query --list", "query --list @trend", "query --explain FROM/**/points", "query FROM/**/points",
		"query --format table FROM/**/points", "status", "shell --format table",
	} {
		for _, left := range []int{0, 5} {
			code, said := start(&fullWriter{left, syscall.ENOSPC}, strings.Fields(text)...)
			if code != fault.ExitError || !strings.Contains(said, "no space left on device") {
				t.Errorf("%s, after %d bytes: exit code %d, %q", text, left, code, said)
			}
		}
	}
	if code, said := start(&fullWriter{5, syscall.EPIPE}, "points"); code != 0 || said != "" {
		t.Errorf("nobody reads: exit code %d, %q", code, said)
	}
}

// TestOutputToFullDevice: the same of a process and its standard output.
func TestOutputToFullDevice(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Cmd{Path: exe, Args: []string{"etl", "version"}, Stdout: full, Stderr: &stderr}
	e := new(exec.ExitError)
	if err := cmd.Run(); !errors.As(err, &e) || e.ExitCode() != fault.ExitError || !strings.HasPrefix(stderr.String(), "etl: write /dev/stdout: no space left on device") {
		t.Errorf("%v, %q", err, stderr.String())
	}
}

func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"", "a", "\x1b[2J", "a\xff\u0085b", strings.Repeat("ü", 100), "line\nbreak"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, p := range []string{printable(s), printableLine(s)} {
			if !utf8.ValidString(p) || strings.ContainsFunc(p, func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }) {
				t.Fatalf("%q became %q", s, p)
			}
		}
		if n := utf8.RuneCountInString(printable(s)); n > 60 {
			t.Fatalf("%q has %d runes", printable(s), n)
		}
	})
}

func TestProgressText(t *testing.T) {
	p := jobs.Progress{Month: utc.MonthOf(2024, 1), SlicesDone: 250, SlicesTotal: 1000, Rows: 3_000_000, Files: 50, Bytes: 4 << 20}
	for want, elapsed := range map[string]time.Duration{
		"archive 2024-01   25%  3,000,000 samples, 300,000/s  50 files  4.0 MiB  30s left": 10 * time.Second,
		"archive 2024-01   25%  3,000,000 samples, 3,000,000/s  50 files  4.0 MiB  … left": time.Second,
	} {
		if got := progressText("archive", p, elapsed); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := progressText("verify", jobs.Progress{}, 0); strings.Contains(got, "NaN") || strings.Contains(got, "Inf") {
		t.Errorf("%q", got)
	}
	if got := progressText("verify", jobs.Progress{PointsDone: 1, PointsTotal: math.MaxInt64}, time.Hour); got == "" {
		t.Error("no text")
	}
}

// A line longer than the terminal is cut, so that it never scrolls; what people
// should know is written above it, twenty times at most.
func TestProgressLine(t *testing.T) {
	var b bytes.Buffer
	p := &progressLine{w: &b, command: "archive", start: time.Now(), width: func() int { return 20 }}
	p.event(jobs.Progress{SlicesDone: 1, SlicesTotal: 2, Rows: 1e9})
	if line := strings.TrimPrefix(b.String(), "\r\x1b[K"); utf8.RuneCountInString(line) != 19 {
		t.Errorf("%q", line)
	}
	for range 50 {
		p.event(jobs.Warning{Text: "disk\x1b[2J"})
	}
	p.clear()
	if n := strings.Count(b.String(), "etl: warning: disk·[2J\n"); n != 20 {
		t.Errorf("%d warnings in %q", n, b.String())
	}
}

func FuzzFlagValues(f *testing.F) {
	for _, s := range []string{"1", "0", "-1", "1024", "1h", "90m", "1h0m0s", "0.5s", "35d", "512MiB", "1.5GiB", "9EB", "zstd", "snappy", "2024-02-20T02:00:00Z", "", "1e9", "10ms", "20M", "1000k", "0", "cold", "2GiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, v := range []pflag.Value{new(count), new(wait), new(size), new(days), new(codec), new(instant), new(tier), new(amount), &amount{bytes: true}} {
			if v.Set(s) != nil {
				continue
			}
			shown := v.String()
			if err := v.Set(shown); err != nil || v.String() != shown {
				t.Fatalf("%T: %q is shown as %q, which is read as %q, %v", v, s, shown, v.String(), err)
			}
		}
	})
}

// TestRetrying: what failed three times is told, once a second at most, to the
// watch of the job if there is one.
func TestRetrying(t *testing.T) {
	var b bytes.Buffer
	a := &app{stderr: &b}
	again := func(attempt int) {
		a.retrying(fault.Retry{What: "read", Attempt: attempt, Wait: 2 * time.Second, Err: errors.New("busy")})
	}
	again(1)
	again(2)
	if b.Len() > 0 {
		t.Errorf("two attempts are told: %q", b.String())
	}
	again(3)
	again(3) // of another worker
	const want = "read: attempt 3 failed, the next one is in 2.00 s: busy"
	if got := b.String(); got != "etl: warning: "+want+"\n" {
		t.Errorf("%q", got)
	}
	var seen []jobs.Event
	stop := a.warnings.to(func(ev jobs.Event) { seen = append(seen, ev) }, func() {})
	a.warnings.told = time.Time{} // a second later
	again(4)
	stop()
	a.warn("later")
	if len(seen) != 1 || !strings.Contains(seen[0].(jobs.Warning).Text, "attempt 4") || !strings.HasSuffix(b.String(), "etl: warning: later\n") {
		t.Errorf("the watch saw %v, standard error %q", seen, b.String())
	}
}
