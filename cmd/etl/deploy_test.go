package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"

	"etl/internal/fault"
	"etl/internal/schedule"
)

const deployed = "../../deploy"

func deployFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(deployed, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

var someSteps = []schedule.Step{{Name: "archive"}, {Name: "verify"}}

// oneNight gives m a night of which a bit of everything happened.
func oneNight(m *nightMetrics, now time.Time) {
	m.event(schedule.Waiting{Next: now})
	m.event(schedule.Began{Night: schedule.Night{Due: now}})
	for _, s := range []struct {
		step string
		o    schedule.Outcome
	}{
		{"archive", schedule.Outcome{State: schedule.Failed, Code: 5, Error: "away"}},
		{"archive", schedule.Outcome{State: schedule.Done, Rows: 10, Files: 2, Bytes: 300, Standing: &schedule.Standing{Until: now.Add(-26 * time.Hour).Truncate(24 * time.Hour)}}},
		{"verify", schedule.Outcome{State: schedule.Halted, Code: 4, Found: 2, Error: "damaged"}},
	} {
		m.event(schedule.StepBegan{Step: s.step, Attempt: 2})
		m.event(schedule.StepEnded{Step: s.step, Attempt: 2, At: now, Took: time.Minute, Outcome: s.o})
	}
	r := schedule.Report{Night: schedule.Night{Started: now}, Finished: now.Add(time.Minute)}
	r.Steps = []schedule.StepReport{{Step: "verify", Outcome: schedule.Outcome{State: schedule.Halted}}}
	m.event(schedule.Ended{Report: r})
}

func scrape(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(body)
}

// values are the samples of a scrape by name and labels, like etl_halted{command="verify"}.
func values(t *testing.T, text string) map[string]float64 {
	t.Helper()
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	samples, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{}, slices.Collect(maps.Values(families))...)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, s := range samples {
		all[s.Metric.String()] = float64(s.Value)
	}
	return all
}

// TestHealthWhileANightEnds: an answer stays as it was given, whatever happens until it is sent.
func TestHealthWhileANightEnds(t *testing.T) {
	clock := time.Date(2024, 2, 10, 2, 0, 0, 0, time.UTC)
	var repeated fault.Counter
	m := newNightMetrics(func() time.Time { return clock }, 36*time.Hour, time.Hour, &repeated)
	m.remember(clock)
	h := m.health()
	ends := func(at time.Time) {
		m.event(schedule.Ended{Report: schedule.Report{Finished: at}})
	}
	ends(clock.Add(time.Hour))
	if !h.LastSuccess.Equal(clock) {
		t.Errorf("the last success became %s", h.LastSuccess)
	}
	// For the race detector.
	var g errgroup.Group
	g.Go(func() error {
		for i := range 100 {
			ends(clock.Add(time.Duration(i) * time.Second))
		}
		return nil
	})
	for range 100 {
		scrape(t, m.handler(), "/healthz")
	}
	_ = g.Wait()
}

func TestNightMetrics(t *testing.T) {
	now := time.Date(2024, 2, 10, 2, 30, 0, 0, time.UTC)
	clock := now
	var repeated fault.Counter
	repeated.Count(fault.Retry{})
	m := newNightMetrics(func() time.Time { return clock }, 36*time.Hour, time.Hour, &repeated)
	m.expect(someSteps)
	h := m.handler()
	if code, body := scrape(t, h, "/healthz"); code != 200 || !strings.Contains(body, `"ok":true`) {
		t.Errorf("before the first night: %d %s", code, body)
	}
	_, text := scrape(t, h, "/metrics")
	if got, ok := values(t, text)[`etl_failures_total{command="verify"}`]; !ok || got != 0 {
		t.Error("the first failure would be no increase")
	}
	if got := values(t, text); got["etl_backlog_point_days"] == got["etl_backlog_point_days"] {
		t.Errorf("a backlog of %g is known before anything was looked at", got["etl_backlog_point_days"])
	}
	m.remember(now.Add(-25 * time.Hour))
	oneNight(m, now)
	_, text = scrape(t, h, "/metrics")
	got := values(t, text)
	for series, want := range map[string]float64{
		`etl_runs_total{command="archive", state="done"}`:             1,
		`etl_runs_total{command="archive", state="failed"}`:           1,
		`etl_runs_total{command="verify", state="done"}`:              0,
		`etl_runs_total{command="schedule", state="failed"}`:          1,
		`etl_failures_total{command="archive"}`:                       1,
		`etl_failures_total{command="verify"}`:                        1,
		`etl_failures_total{command="schedule"}`:                      1,
		`etl_retries_total{command="archive"}`:                        2,
		`etl_rows_total{command="archive"}`:                           10,
		`etl_written_bytes_total{command="archive"}`:                  300,
		`etl_files_written_total{command="archive"}`:                  2,
		`etl_halted{command="archive"}`:                               0,
		`etl_halted{command="verify"}`:                                1,
		`etl_findings{command="verify"}`:                              2,
		`etl_last_success_timestamp_seconds{command="archive"}`:       float64(now.Unix()),
		`etl_last_success_timestamp_seconds{command="schedule"}`:      float64(now.Unix() - 25*3600),
		`etl_last_run_timestamp_seconds{command="verify"}`:            float64(now.Unix()),
		`etl_run_duration_seconds_sum{command="archive"}`:             120,
		`etl_run_duration_seconds_bucket{command="archive", le="60"}`: 2,
		`etl_backlog_point_days`:                                      0,
		`etl_archive_lag_days`:                                        1,
		`etl_next_run_timestamp_seconds`:                              float64(now.Unix()),
		`etl_running`:                                                 0,
		`etl_requests_repeated_total`:                                 1,
	} {
		if v, ok := got[series]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v", series, v, ok, want)
		}
	}
	if code, body := scrape(t, h, "/healthz"); code != 503 || !strings.Contains(body, "verify is halted: damaged") {
		t.Errorf("halted: %d %s", code, body)
	}
	m.event(schedule.StepEnded{Step: "verify", At: now, Outcome: schedule.Outcome{State: schedule.Findings, Code: 3}})
	if code, body := scrape(t, h, "/healthz"); code != 200 {
		t.Errorf("halted no more: %d %s", code, body)
	}
	clock = now.Add(11*time.Hour + time.Minute) // 36 h and a minute after the last success
	if code, body := scrape(t, h, "/healthz"); code != 503 || !strings.Contains(body, "no night without failures for 36h1m") {
		t.Errorf("too old: %d %s", code, body)
	}
	if code, body := scrape(t, h, "/livez"); code != 200 || body != "ok\n" {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := scrape(t, h, "/debug/pprof/"); code != 404 {
		t.Errorf("%d", code)
	}
}

// TestLagDays: a day that archive leaves for --grace is not behind.
func TestLagDays(t *testing.T) {
	clock := time.Date(2024, 2, 10, 2, 30, 0, 0, time.UTC)
	s := schedule.Standing{Until: time.Date(2024, 2, 9, 0, 0, 0, 0, time.UTC)}
	for grace, want := range map[time.Duration]float64{time.Hour: 1, 3 * time.Hour: 0} {
		m := newNightMetrics(func() time.Time { return clock }, time.Hour, grace, new(fault.Counter))
		if got := m.lagDays(s); got != want {
			t.Errorf("with a grace of %s the lag is %g days, want %g", grace, got, want)
		}
	}
}

// TestMetricsExist: what the dashboard and the alerts ask for is what /metrics has,
// and each of its own metrics is on one of them.
func TestMetricsExist(t *testing.T) {
	var repeated fault.Counter
	m := newNightMetrics(time.Now, time.Hour, time.Hour, &repeated)
	m.expect(someSteps)
	oneNight(m, time.Now())
	_, text := scrape(t, m.handler(), "/metrics")
	have := make(map[string]bool)
	for series := range values(t, text) {
		name, _, _ := strings.Cut(series, "{")
		have[name] = true
	}
	asked := make(map[string]bool)
	for _, file := range []string{"grafana/etl.json", "prometheus/alerts.yml", "prometheus/alerts_test.yml"} {
		names := regexp.MustCompile(`\b(etl|process|go)_[a-z0-9_]+`).FindAllString(deployFile(t, file), -1)
		if len(names) < 7 {
			t.Errorf("%s: only %d names of metrics", file, len(names))
		}
		for _, name := range names {
			if asked[name] = true; !have[name] {
				t.Errorf("%s asks for %s, which /metrics does not have", file, name)
			}
		}
	}
	for name := range have {
		if base, ok := strings.CutSuffix(name, "_bucket"); ok {
			name = base + "_sum"
		}
		if strings.HasPrefix(name, "etl_") && !asked[name] && !slices.Contains([]string{"etl_running", "etl_last_run_timestamp_seconds"}, name) {
			t.Errorf("%s is on no dashboard and in no alert", name)
		}
	}
}

// TestDeployedCommands: the command lines in deploy/ and docs/running.md are ones
// that this program takes.
func TestDeployedCommands(t *testing.T) {
	lines := map[string]string{}
	for file, pattern := range map[string]string{
		"cron/etl":                     `/usr/local/bin/etl (.*?) 2>`,
		"systemd/etl-schedule.service": `(?m)^ExecStart=/usr/local/bin/etl (.*)$`,
		"systemd/etl-night.service":    `(?m)^ExecStart=/usr/local/bin/etl (.*)$`,
		"container/Dockerfile":         `CMD \[(.*)\]`,
		"kubernetes/cronjob.yaml":      `args: \[(.*)\]`,
		"kubernetes/deployment.yaml":   `args: \[(.*)\]`,
		"ci/nightly.yml":               `\./bin/etl (.*?) \|`,
	} {
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(deployFile(t, file), -1)
		if len(found) != 1 {
			t.Errorf("%s: %d command lines", file, len(found))
			continue
		}
		lines[file] = strings.NewReplacer(`"`, "", ",", "").Replace(found[0][1])
	}
	docs, err := os.ReadFile("../../docs/running.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range regexp.MustCompile(`(?m)^etl (schedule.*?)(?:\s+#.*)?$`).FindAllStringSubmatch(string(docs), -1) {
		lines["docs/running.md "+string(rune('a'+i))] = m[1]
	}
	if len(lines) < 10 {
		t.Errorf("only %d command lines were found", len(lines))
	}
	for where, line := range lines {
		args := strings.Fields(strings.ReplaceAll(line, "0 2 * * *", "@daily"))
		root := new(app).root()
		cmd, rest, err := root.Find(args)
		if err == nil {
			err = cmd.ParseFlags(rest)
		}
		if err == nil && (cmd.Name() != "schedule" || len(cmd.Flags().Args()) > 0) {
			t.Errorf("%s: %q is %s with the arguments %q", where, line, cmd.Name(), cmd.Flags().Args())
		}
		if err != nil {
			t.Errorf("%s: %q: %v", where, line, err)
		}
	}
}

// TestManifestsParse: each is YAML without a key twice, and says what the image and
// the program need. deploy/kubernetes has a test with Kubernetes' own types.
func TestManifestsParse(t *testing.T) {
	for _, file := range []string{"kubernetes/cronjob.yaml", "kubernetes/deployment.yaml", "ci/nightly.yml", "prometheus/alerts.yml", "prometheus/alerts_test.yml", "prometheus/scrape.yml"} {
		dec := yaml.NewDecoder(strings.NewReader(deployFile(t, file)))
		n := 0
		for {
			var v map[string]any
			err := dec.Decode(&v)
			if err == io.EOF {
				break
			}
			if err != nil || len(v) == 0 {
				t.Errorf("%s: document %d: %v", file, n, err)
				break
			}
			n++
		}
		if n == 0 {
			t.Errorf("%s is empty", file)
		}
	}
	var dash struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
			GridPos struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal([]byte(deployFile(t, "grafana/etl.json")), &dash); err != nil {
		t.Fatal(err)
	}
	seen := make(map[[2]int]string)
	for _, p := range dash.Panels {
		if len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q asks for nothing, or is outside", p.Title)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if seen[at] != "" {
					t.Fatalf("panels %q and %q overlap", p.Title, seen[at])
				}
				seen[at] = p.Title
			}
		}
	}
}

// TestSystemdUnits asks systemd itself.
func TestSystemdUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze here")
	}
	dir := t.TempDir()
	var units []string
	for _, name := range []string{"etl-schedule.service", "etl-night.service", "etl-night.timer"} {
		text := strings.ReplaceAll(deployFile(t, "systemd/"+name), "/usr/local/bin/etl", "/bin/true") // which exists
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, path)
	}
	if out, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, units...)...).CombinedOutput(); err != nil || bytes.Contains(out, []byte(dir)) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAlerts asks promtool.
func TestAlerts(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("there is no promtool here (Debian's package prometheus has it)")
	}
	dir := filepath.Join(deployed, "prometheus")
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}, {"check", "config", "scrape.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	var rules, tests struct {
		Groups []struct{ Rules []struct{ Alert string } }
		Tests  []struct {
			Alerts []struct {
				Name string           `yaml:"alertname"`
				Exp  []map[string]any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(deployFile(t, "prometheus/alerts.yml")), &rules); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(deployFile(t, "prometheus/alerts_test.yml")), &tests); err != nil {
		t.Fatal(err)
	}
	fires, quiet := make(map[string]bool), make(map[string]bool)
	for _, tt := range tests.Tests {
		for _, a := range tt.Alerts {
			fires[a.Name], quiet[a.Name] = fires[a.Name] || len(a.Exp) > 0, quiet[a.Name] || len(a.Exp) == 0
		}
	}
	for _, r := range rules.Groups[0].Rules {
		if !fires[r.Alert] || !quiet[r.Alert] {
			t.Errorf("%s is not tested to fire and not to", r.Alert)
		}
	}
}
