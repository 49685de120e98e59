package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"etl/internal/fault"
)

// interrupted runs a command, and calls begun with what interrupts it.
func interrupted(t *testing.T, env map[string]string, stdin io.Reader, args ...string) (stop func(), ended <-chan exit) {
	t.Helper()
	soft, stop := context.WithCancel(t.Context())
	done := make(chan exit, 1)
	go func() {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), soft, args, func(k string) string { return env[k] }, stdin, &stdout, &stderr)
		done <- exit{code, stdout.String(), stderr.String()}
	}()
	return stop, done
}

func endsInterrupted(t *testing.T, ended <-chan exit) (r exit) {
	t.Helper()
	select {
	case r = <-ended:
		if r.code != fault.ExitInterrupted {
			t.Errorf("exit code %d\nstdout: %s\nstderr: %s", r.code, r.stdout, r.stderr)
		}
	case <-time.After(20 * time.Second):
		t.Error("it goes on 20 s after the interrupt")
	}
	return r
}

// exit is how a command ended.
type exit struct {
	code           int
	stdout, stderr string
}

// idle is an input that nothing is written into; it tells when it is read.
type idle struct {
	r     io.Reader
	reads chan struct{}
}

func (i *idle) Read(b []byte) (int, error) {
	select {
	case i.reads <- struct{}{}:
	default:
	}
	return i.r.Read(b)
}

// TestInterruptInput: the first interrupt ends a command that waits for its input.
func TestInterruptInput(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{"ETL_STORE": "file:" + dir, "ETL_CACHE": filepath.Join(dir, "cache")}
	for _, args := range [][]string{{"query", "-f", "-"}, {"query"}, {"shell", "--tier", "cold"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			r, w := io.Pipe()
			defer w.Close()
			in := &idle{r, make(chan struct{}, 1)}
			stop, ended := interrupted(t, env, in, args...)
			defer stop()
			select {
			case <-in.reads:
				stop()
			case <-time.After(time.Minute):
				t.Fatal("it does not read its input")
			case r := <-ended:
				t.Fatalf("exit code %d: %s", r.code, r.stderr)
			}
			endsInterrupted(t, ended)
		})
	}
}

// TestInterruptPlan: while a command that writes still tries to reach its places
// nothing is in flight, so that the first interrupt ends it.
func TestInterruptPlan(t *testing.T) {
	dir := t.TempDir()
	db := "sqlite:" + filepath.Join(dir, "d1.sqlite")
	if code := run(t.Context(), t.Context(), []string{"migrate", "--source", db}, func(string) string { return "" }, nil, io.Discard, os.Stderr); code != 0 {
		t.Fatal(code)
	}
	if err := runSQL(strings.TrimPrefix(db, "sqlite:"), []string{"INSERT INTO points (name) VALUES ('A')", "INSERT INTO timeseries (point_id, timestamp, value) VALUES (1, unixepoch('2024-02-08')*1000, 1)"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		down string // the place that is
		args []string
	}{
		{"store", []string{"archive"}},
		{"store", []string{"backfill", "--month", "2024-01"}},
		{"store", []string{"rearchive", "--day", "2024-02-08"}},
		{"store", []string{"repair"}},
		{"store", []string{"restore", "--last", "3d"}},
		{"store", []string{"replicate", "--to", "file:" + filepath.Join(dir, "copy")}},
		{"store", []string{"schedule", "--once", "--quiet"}},
		{"source", []string{"archive", "--dry-run"}},
		{"source", []string{"prune", "--yes"}},
		{"source", []string{"schedule", "--once", "--quiet"}},
	} {
		t.Run(c.down+" "+c.args[0], func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			again := make(chan struct{})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if n.Add(1) == 2 { // it is being tried again
					close(again)
				}
				w.WriteHeader(http.StatusServiceUnavailable)
			}))
			defer srv.Close()
			env := map[string]string{
				"ETL_SOURCE": db, "ETL_STORE": "file:" + dir, "ETL_NOW": "2024-02-10T02:00:00Z",
				"CLOUDFLARE_ACCOUNT_ID": strings.Repeat("0123456789abcdef", 2), "CLOUDFLARE_API_TOKEN": "token", "CLOUDFLARE_API_BASE_URL": srv.URL,
				"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
			}
			if c.down == "store" {
				env["ETL_STORE"] = "s3://archive?endpoint=" + srv.URL
			} else {
				env["ETL_SOURCE"] = "d1://01234567-89ab-cdef-0123-456789abcdef"
			}
			stop, ended := interrupted(t, env, nil, c.args...)
			defer stop()
			select {
			case <-again:
				stop()
			case <-time.After(time.Minute):
				t.Fatal("it does not try again")
			case r := <-ended:
				t.Fatalf("exit code %d: %s%s", r.code, r.stdout, r.stderr)
			}
			if r := endsInterrupted(t, ended); c.args[0] != "schedule" && strings.Contains(r.stderr, "in flight") { // of which a night may have begun
				t.Errorf("nothing is in flight: %s", r.stderr)
			}
		})
	}
}
