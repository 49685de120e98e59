//go:build integration

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"etl/jobs"
)

// scheduler is a real `etl schedule` that runs.
type scheduler struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	mu   sync.Mutex
	log  bytes.Buffer
	read sync.WaitGroup
}

func startScheduler(p *place, args ...string) *scheduler {
	p.t.Helper()
	s := &scheduler{t: p.t, cmd: p.command(append([]string{"schedule", "--listen", "127.0.0.1:0", "--audit=false"}, args...)...)}
	stderr, err := s.cmd.StderrPipe()
	p.must(err)
	p.must(s.cmd.Start())
	p.t.Cleanup(func() { s.cmd.Process.Kill(); s.read.Wait() })
	s.read.Go(func() {
		in := bufio.NewScanner(stderr)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			s.mu.Lock()
			s.log.Write(append(in.Bytes(), '\n'))
			s.mu.Unlock()
		}
	})
	s.url = "http://" + s.await(`"address":"([^"]+)"`)
	return s
}

func (s *scheduler) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// await waits for a line of the log and returns the first group of the pattern, if it has one.
func (s *scheduler) await(pattern string) string {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if m := re.FindStringSubmatch(s.text()); m != nil {
			return m[len(m)-1]
		}
	}
	s.t.Fatalf("%s did not come:\n%s", pattern, s.text())
	return ""
}

func (s *scheduler) get(path string) (int, string) {
	s.t.Helper()
	res, err := http.Get(s.url + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// end waits for the process to end and returns its exit code, -1 for a signal.
func (s *scheduler) end() int {
	s.t.Helper()
	s.read.Wait()
	_ = s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode()
}

func (s *scheduler) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// fill gives points rows of one a minute, over the last days that are complete.
func fill(p *place, points, days int) {
	p.t.Helper()
	end := time.Now().UTC().Add(-jobs.Grace).Truncate(24 * time.Hour).UnixMilli()
	p.exec(fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO points (name, interval_ms) SELECT 'p' || i, 60000 FROM n", points))
	p.exec(fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO timeseries (point_id, timestamp, value) SELECT points.id, %d - i * 60000, (i * points.id %% 977) / 10.0 FROM points, n", days*1440, end))
}

// quiet is a schedule without a night in the time of a test.
const quiet = "0 0 29 2 *"

// TestIntegrationSchedule: rows come, nights run by the clock and archive them; metrics,
// health, heartbeat and webhook tell of it; a signal between the nights ends it with 0.
func TestIntegrationSchedule(t *testing.T) {
	p := newPlace(t, 61, "")
	var mu sync.Mutex
	var beats int
	var posts []message
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch r.URL.Path {
		case "/beat/S3CRET":
			beats++
		case "/hook/S3CRET":
			var m message
			if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
				t.Error(err)
			}
			posts = append(posts, m)
		default:
			t.Errorf("%s was asked for", r.URL)
		}
	}))
	defer outside.Close()
	p.env = append(p.env, "ETL_HEARTBEAT_URL="+outside.URL+"/beat/S3CRET", "ETL_WEBHOOK_URL="+outside.URL+"/hook/S3CRET")
	s := startScheduler(p, "--cron", "*/2 * * * * *")
	s.await(`night has ended`)
	fill(p, 20, 3)
	s.await(`"state":"done","step":"archive","summary":"[1-9][0-9]* point-days, 86400 samples read, 86400 added`)
	s.await(`86400 added(?s:.*)night has ended`)
	_, text := s.get("/metrics")
	got := values(t, text)
	if got[`etl_rows_total{command="archive"}`] != 86400 || got[`etl_runs_total{command="schedule", state="done"}`] < 2 || got["etl_archive_lag_days"] != 0 || got["etl_backlog_point_days"] != 0 ||
		got[`etl_last_success_timestamp_seconds{command="verify"}`] < float64(time.Now().Add(-time.Minute).Unix()) {
		t.Errorf("%v", got)
	}
	if code, body := s.get("/healthz"); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	mu.Lock()
	if beats == 0 || len(posts) > 0 {
		t.Errorf("%d heartbeats, posts %+v", beats, posts)
	}
	mu.Unlock()

	// A month file is damaged: verify is halted, and archiving goes on.
	files := p.files("r2/timeseries/*/*/p1.parquet")
	flipFile(t, files[0])
	s.await(`"state":"halted","step":"verify"`)
	s.await(`halted(?s:.*)night has ended`)
	if code, body := s.get("/healthz"); code != 503 || !strings.Contains(body, "verify is halted") {
		t.Errorf("%d %s", code, body)
	}
	_, text = s.get("/metrics")
	if got := values(t, text); got[`etl_halted{command="verify"}`] != 1 || got[`etl_halted{command="archive"}`] != 0 || got[`etl_failures_total{command="verify"}`] < 1 {
		t.Errorf("%v", got)
	}
	s.signal(syscall.SIGTERM)
	if code := s.end(); code != 0 && code != 130 { // 130 in the middle of a night
		t.Errorf("exit code %d\n%s", code, s.text())
	}
	mu.Lock()
	defer mu.Unlock()
	if len(posts) == 0 || posts[0].Event != "halted" || !strings.Contains(posts[0].Text, "verify: halted") || posts[0].Night.Code != 4 {
		t.Errorf("posts %+v", posts)
	}
	if strings.Contains(s.text(), "S3CRET") {
		t.Errorf("the log has a secret:\n%s", s.text())
	}
}

// TestIntegrationScheduleStops: a signal in the middle of a night leaves a clean archive, and
// so does kill -9; the next scheduler makes up for the night.
func TestIntegrationScheduleStops(t *testing.T) {
	p := newPlace(t, 62, "")
	fill(p, 300, 6)
	s := startScheduler(p, "--cron", quiet, "--write-workers", "1", "--extract-workers", "1")
	s.await(`"step":"archive"`)
	p.awaitFiles("r2/timeseries/*/*/*.parquet", 20)
	s.signal(syscall.SIGTERM)
	if code := s.end(); code != 130 {
		t.Errorf("exit code %d after SIGTERM\n%s", code, s.text())
	}
	p.ok("verify", "--deep") // what is there is whole
	stopped := len(p.files("r2/timeseries/*/*/*.parquet"))
	if stopped >= 300*monthsOf(6) {
		t.Errorf("it was not in the middle: %d files", stopped)
	}

	s = startScheduler(p, "--cron", quiet, "--write-workers", "1", "--extract-workers", "1")
	s.await(`"late":true`)
	s.await(`"step":"archive"`)
	p.awaitFiles("r2/timeseries/*/*/*.parquet", stopped+20)
	s.signal(syscall.SIGKILL)
	if code := s.end(); code != -1 {
		t.Errorf("exit code %d after kill -9", code)
	}
	if r := p.etl("verify", "--deep"); r.code != 0 && r.code != 3 {
		t.Errorf("%v", r)
	}

	s = startScheduler(p, "--cron", quiet)
	s.await(`night has ended`)
	s.signal(syscall.SIGINT)
	if code := s.end(); code != 0 {
		t.Errorf("exit code %d between nights\n%s", code, s.text())
	}
	p.ok("verify", "--deep", "--against-source")
	var points struct{ Samples int64 }
	p.must(json.Unmarshal([]byte(p.ok("verify", "--json").stdout), &points))
	if points.Samples != 300*6*1440 {
		t.Errorf("%d samples are archived", points.Samples)
	}

	// Done: a new one has nothing to make up for.
	s = startScheduler(p, "--cron", quiet)
	s.await("waiting for the next night")
	if strings.Contains(s.text(), "the night begins") {
		t.Error(s.text())
	}
	s.signal(syscall.SIGTERM)
	if code := s.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestIntegrationTwoSchedulers: two real processes on one place, one night.
func TestIntegrationTwoSchedulers(t *testing.T) {
	p := newPlace(t, 63, "")
	fill(p, 200, 4)
	a, b := startScheduler(p, "--cron", quiet), startScheduler(p, "--cron", quiet)
	for _, s := range []*scheduler{a, b} {
		s.await(`night has ended`)
		if !strings.Contains(s.text(), `"exit_code":0`) || strings.Contains(s.text(), `"state":"failed"`) {
			t.Error(s.text())
		}
		s.signal(syscall.SIGTERM)
		if code := s.end(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
	p.ok("verify", "--deep", "--against-source")
	var cold struct{ Samples int64 }
	p.must(json.Unmarshal([]byte(p.ok("verify", "--json").stdout), &cold))
	if cold.Samples != 200*4*1440 {
		t.Errorf("%d samples are archived", cold.Samples)
	}
	if out := p.ok("query", "--cache", "cache", "SELECT count(*) AS n, count(DISTINCT (point_id, timestamp)) AS d FROM timeseries", "--format", "csv").stdout; out != "n,d\n1152000,1152000\n" {
		t.Errorf("%s", out)
	}
}

// monthsOf is how many months the last days lie in.
func monthsOf(days int) int {
	now := time.Now().UTC().Add(-jobs.Grace)
	if now.AddDate(0, 0, -days).Month() != now.AddDate(0, 0, -1).Month() {
		return 2
	}
	return 1
}

// awaitFiles waits until so many files are there.
func (p *place) awaitFiles(glob string, n int) {
	p.t.Helper()
	for end := time.Now().Add(60 * time.Second); len(p.files(glob)) < n; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("only %d files", len(p.files(glob)))
		}
	}
}

func (p *place) files(glob string) []string {
	p.t.Helper()
	found, err := filepath.Glob(filepath.Join(p.dir, glob))
	p.must(err)
	return found
}

// flipFile changes a byte in the middle of a file.
func flipFile(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 0x40
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
