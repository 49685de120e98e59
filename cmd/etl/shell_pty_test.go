//go:build unix

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// terminal is a program at a pseudo-terminal of 80 columns.
type terminal struct {
	t   *testing.T
	cmd *exec.Cmd
	f   *os.File

	mu   sync.Mutex
	seen bytes.Buffer // since the last expect
}

func startTerminal(t *testing.T, dir string, env []string, args ...string) *terminal {
	t.Helper()
	x := &terminal{t: t, cmd: exec.Command("etl", args...)} // as TestMain has put it into the path
	x.cmd.Dir, x.cmd.Env = dir, append(append(os.Environ(), "TERM=xterm"), env...)
	var err error
	if x.f, err = pty.StartWithSize(x.cmd, &pty.Winsize{Rows: 24, Cols: 80}); err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() {
		_ = x.cmd.Process.Kill()
		x.f.Close()
	})
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := x.f.Read(buf)
			x.mu.Lock()
			x.seen.Write(buf[:n])
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return x
}

// expect waits until the terminal has shown a text since the last call, and
// returns what it has shown.
func (x *terminal) expect(text string) string {
	x.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		x.mu.Lock()
		seen := x.seen.String()
		if i := strings.Index(seen, text); i >= 0 {
			x.seen.Next(i + len(text))
			x.mu.Unlock()
			return seen[:i+len(text)]
		}
		x.mu.Unlock()
		if time.Now().After(deadline) {
			x.t.Fatalf("waited for %q, seen %q", text, seen)
		}
	}
}

func (x *terminal) send(text string) {
	x.t.Helper()
	if _, err := io.WriteString(x.f, text); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) code() int {
	x.t.Helper()
	done := make(chan struct{})
	go func() {
		_ = x.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
		return x.cmd.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		x.mu.Lock()
		defer x.mu.Unlock()
		x.t.Fatalf("it does not end; seen %q", x.seen.String())
		return 0
	}
}

const ctrlC, ctrlD = "\x03", "\x04"

// long runs for hours unless it is stopped.
const long = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 7;\r"

// TestShellAtATerminal types what a person types.
func TestShellAtATerminal(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{"ETL_SOURCE": "sqlite:" + filepath.Join(dir, "d1.sqlite")}
	if _, errs, code := runETL(t, env, "migrate", "--quiet"); code != 0 {
		t.Fatal(errs)
	}
	if err := runSQL(filepath.Join(dir, "d1.sqlite"), []string{
		"INSERT INTO points (name) VALUES ('Zone 温度')",
		"INSERT INTO timeseries (point_id, timestamp, value) VALUES (1, 1707350400000, 21.5)",
	}, io.Discard); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	vars := []string{"ETL_SOURCE=sqlite:d1.sqlite", "ETL_CACHE=cache", "XDG_STATE_HOME=" + state, "ETL_NOW=2024-02-10T02:00:00Z", "GORACE=atexit_sleep_ms=0"}

	x := startTerminal(t, dir, vars, "shell")
	x.expect("etl> ")
	x.send("SELECT point_name, ts,\r")
	x.expect("...> ")
	x.send("value FROM samples;\r")
	x.expect("Zone 温度   2024-02-08 00:00:00   21.5")
	x.expect("(1 row, ")
	x.expect("etl> ")

	// Tab completes.
	x.send("SELECT count(*) AS n FROM sam\t;\r")
	x.expect("FROM samples")
	x.expect("n\r\n─\r\n1\r\n")
	x.expect("etl> ")
	x.send(".mo\t json\r")
	x.expect("etl> ")
	x.send("SELECT 7 AS a;\r")
	x.expect(`{"a":7}`)
	x.expect("etl> ")
	x.send(".mode table\r")
	x.expect("etl> ")

	// An error leaves the session as it was.
	x.send("CREATE TEMP TABLE mine AS SELECT 42 AS answer;\r")
	x.expect("made temporary table mine")
	x.send("SELECT nope FROM mine;\r")
	x.expect(`error: `)
	x.expect("etl> ")

	// Ctrl-C drops the line, then stops a query; the session goes on.
	x.send("SELECT 'half" + ctrlC)
	x.expect("etl> ")
	x.send(long)
	time.Sleep(300 * time.Millisecond)
	start := time.Now()
	x.send(ctrlC)
	x.expect("error: stopped")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("the query ended %v after Ctrl-C", took)
	}
	x.expect("etl> ")
	x.send("SELECT answer FROM mine;\r")
	x.expect("    42\r\n")
	x.expect("etl> ")

	// Up brings back what was typed: a statement of two lines as one.
	x.send(strings.Repeat("\x1b[A", 9))
	x.send("\r")
	x.expect("Zone 温度")
	x.expect("etl> ")
	x.send(ctrlD)
	if code := x.code(); code != 0 {
		t.Errorf("exit %d after Ctrl-D", code)
	}

	path := filepath.Join(state, "etl", "history")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(data), "SELECT point_name, ts, value FROM samples;\nSELECT count(*)") {
		t.Errorf("history:\n%s", data)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}

	// The next session has it, and .quit ends it.
	x = startTerminal(t, dir, vars, "shell", "--quiet")
	x.expect("etl> ")
	x.send("\x1b[A\x1b[A\r")
	x.expect("etl> ")
	x.send(".quit\r")
	if code := x.code(); code != 0 {
		t.Errorf("exit %d after .quit", code)
	}

	// SIGTERM ends the shell at its prompt; Ctrl-C ends a query of `etl query`.
	x = startTerminal(t, dir, vars, "shell", "--quiet")
	x.expect("etl> ")
	if err := x.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := x.code(); code != 130 {
		t.Errorf("exit %d after SIGTERM", code)
	}
	x = startTerminal(t, dir, vars, "query", strings.TrimSuffix(long, ";\r"))
	time.Sleep(time.Second)
	x.send(ctrlC)
	x.expect("interrupted")
	if code := x.code(); code != 130 {
		t.Errorf("exit %d after Ctrl-C", code)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "cache", "v1", "pins", "*")); len(left) > 0 {
		t.Errorf("sessions left: %v", left)
	}
}
