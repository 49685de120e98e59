package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"etl/internal/fault"
	"etl/internal/schedule"
	"etl/jobs"
)

// nightMetrics counts what the nights did, and judges whether all is well. What
// `etl status --prometheus` writes too has the same name here.
type nightMetrics struct {
	now     func() time.Time
	maxAge  time.Duration
	grace   time.Duration // after which a day is complete
	started time.Time
	reg     *prometheus.Registry

	runs, failures, tries, rows, files, bytes *prometheus.CounterVec
	lastRun, lastSuccess, halted, findings    *prometheus.GaugeVec
	duration                                  *prometheus.HistogramVec

	mu       sync.Mutex // guards what follows
	success  time.Time  // when the last night without failures ended
	standing *schedule.Standing
	next     time.Time
	running  string
	halts    map[string]string // why each step is halted
}

func newNightMetrics(now func() time.Time, maxAge, grace time.Duration, repeated *fault.Counter) *nightMetrics {
	m := &nightMetrics{now: now, maxAge: maxAge, grace: grace, started: now(), reg: prometheus.NewRegistry(), halts: make(map[string]string)}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		m.reg.MustRegister(g)
		return g
	}
	derived := func(name, help string, f func() float64) {
		m.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	m.runs = counter("etl_runs_total", "Tries of each step of a night, and nights (command schedule), by how they ended: done, findings, failed, halted, interrupted.", "command", "state")
	m.failures = counter("etl_failures_total", "Those of them that failed or were halted.", "command")
	m.tries = counter("etl_retries_total", "Tries of a step after the first one of a night.", "command")
	m.rows = counter("etl_rows_total", "Rows that each step moved: read by archive, deleted by prune.", "command")
	m.files = counter("etl_files_written_total", "Month files written.", "command")
	m.bytes = counter("etl_written_bytes_total", "Bytes of month files written.", "command")
	m.lastRun = gauge("etl_last_run_timestamp_seconds", "When the last run ended, whatever came of it.", "command")
	m.lastSuccess = gauge("etl_last_success_timestamp_seconds", "When the last run that succeeded ended.", "command")
	m.halted = gauge("etl_halted", "1 while a step is halted: it will not succeed before a person acts.", "command")
	m.findings = gauge("etl_findings", "Findings of the last run.", "command")
	m.duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "etl_run_duration_seconds", Help: "How long each try took.",
		Buckets: []float64{1, 5, 15, 60, 300, 900, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600},
	}, []string{"command"})
	m.reg.MustRegister(m.duration)
	m.reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "etl_requests_repeated_total", Help: "Requests over the network that had to be sent again."},
		func() float64 { return float64(repeated.Load()) }))
	// What is not known yet is NaN, which no alert compares as true.
	derived("etl_backlog_point_days", "Complete (point, day)s of the hot window that are not archived.", m.withStanding(func(s schedule.Standing) float64 {
		return float64(s.Backlog)
	}))
	derived("etl_archive_lag_days", "Complete days after the newest one before which all is archived.", m.withStanding(m.lagDays))
	derived("etl_next_run_timestamp_seconds", "When the next night is due.", func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		return unix(m.next)
	})
	derived("etl_running", "1 while a night runs.", func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.running != "" {
			return 1
		}
		return 0
	})
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "etl_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": release}})
	build.Set(1)
	m.reg.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

func (m *nightMetrics) withStanding(f func(schedule.Standing) float64) func() float64 {
	return func() float64 {
		m.mu.Lock()
		s := m.standing
		m.mu.Unlock()
		if s == nil {
			return math.NaN()
		}
		return f(*s)
	}
}

func (m *nightMetrics) lagDays(s schedule.Standing) float64 {
	complete := m.now().Add(-m.grace).UTC().Truncate(24 * time.Hour)
	return max(0, float64(int(complete.Sub(s.Until)/(24*time.Hour))))
}

// expect makes the series of steps, so that the first failure is an increase and
// not a beginning.
func (m *nightMetrics) expect(steps []schedule.Step) {
	commands := []string{jobs.NightCommand}
	for _, s := range steps {
		commands = append(commands, s.Name)
		m.halted.WithLabelValues(s.Name)
		m.findings.WithLabelValues(s.Name)
		m.tries.WithLabelValues(s.Name)
	}
	for _, c := range commands {
		m.failures.WithLabelValues(c)
		for _, s := range []schedule.State{schedule.Done, schedule.Findings, schedule.Failed, schedule.Halted, schedule.Interrupted} {
			m.runs.WithLabelValues(c, string(s))
		}
	}
}

// remember sets what was known before this process began: in a night without
// failures archive succeeded, too.
func (m *nightMetrics) remember(success time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if success.IsZero() || success.Before(m.success) {
		return
	}
	m.success = success
	m.lastSuccess.WithLabelValues(jobs.NightCommand).Set(unix(success))
	m.lastSuccess.WithLabelValues(string(jobs.Archive)).Set(unix(success))
}

// event is a listener of the schedule.
func (m *nightMetrics) event(e schedule.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e := e.(type) {
	case schedule.Waiting:
		m.next = e.Next
	case schedule.Began:
		m.running = "the night begins"
	case schedule.StepBegan:
		m.running = e.Step
		if e.Attempt > 1 {
			m.tries.WithLabelValues(e.Step).Inc()
		}
	case schedule.StepEnded:
		m.ran(e.Step, e.Outcome.State, e.At, e.Took)
		o := e.Outcome
		m.rows.WithLabelValues(e.Step).Add(float64(o.Rows))
		m.files.WithLabelValues(e.Step).Add(float64(o.Files))
		m.bytes.WithLabelValues(e.Step).Add(float64(o.Bytes))
		m.findings.WithLabelValues(e.Step).Set(float64(o.Found))
		switch delete(m.halts, e.Step); o.State {
		case schedule.Halted:
			m.halts[e.Step] = o.Error
			m.halted.WithLabelValues(e.Step).Set(1)
		default:
			m.halted.WithLabelValues(e.Step).Set(0)
		}
		if o.Standing != nil {
			m.standing = o.Standing
		}
	case schedule.Ended:
		m.running = ""
		state := schedule.Failed
		switch {
		case e.Interrupted():
			state = schedule.Interrupted
		case e.Succeeded():
			state = schedule.Done
			m.success = e.Finished
		}
		m.ran(jobs.NightCommand, state, e.Finished, e.Finished.Sub(e.Started))
	}
}

// ran counts a run.
func (m *nightMetrics) ran(command string, s schedule.State, at time.Time, took time.Duration) {
	m.runs.WithLabelValues(command, string(s)).Inc()
	m.duration.WithLabelValues(command).Observe(took.Seconds())
	m.lastRun.WithLabelValues(command).Set(unix(at))
	switch s {
	case schedule.Done, schedule.Findings:
		m.lastSuccess.WithLabelValues(command).Set(unix(at))
	case schedule.Failed, schedule.Halted:
		m.failures.WithLabelValues(command).Inc()
	}
}

// health is the answer of /healthz.
type health struct {
	OK          bool              `json:"ok"`
	Why         string            `json:"why,omitempty"`
	LastSuccess *time.Time        `json:"last_success"` // of a night; null if none is known
	Halted      map[string]string `json:"halted"`
	Running     string            `json:"running,omitempty"` // the step that runs
	Next        time.Time         `json:"next"`
}

func (m *nightMetrics) health() health {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := health{OK: true, Halted: maps.Clone(m.halts), Running: m.running, Next: m.next}
	since := m.started
	if !m.success.IsZero() {
		since = m.success
		h.LastSuccess = &since // a copy: it is encoded after the lock is given back
	}
	if age := m.now().Sub(since); age > m.maxAge {
		h.OK, h.Why = false, fmt.Sprintf("no night without failures for %s", age.Round(time.Minute))
	}
	if steps := slices.Sorted(maps.Keys(m.halts)); len(steps) > 0 {
		h.OK, h.Why = false, fmt.Sprintf("%s is halted: %s", steps[0], m.halts[steps[0]])
	}
	return h
}

func (m *nightMetrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{MaxRequestsInFlight: 8}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		h := m.health()
		w.Header().Set("Content-Type", "application/json")
		if !h.OK {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(jsonWriter{w}).Encode(h)
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}
