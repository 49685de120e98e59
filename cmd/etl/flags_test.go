package main

import (
	"bytes"
	"encoding/json"
	"runtime"
	"strings"
	"testing"
	"time"

	"etl/jobs"
)

// However many jobs one process runs, the threads are doubled once.
func TestThreadsAreDoubledOnce(t *testing.T) {
	e := engine{memory: 512 << 20}
	e.options(jobs.Archive)
	once := runtime.GOMAXPROCS(0)
	for range 5 {
		e.options(jobs.Archive)
	}
	if n := runtime.GOMAXPROCS(0); n != once {
		t.Errorf("%d threads after the first job, %d after the sixth", once, n)
	}
}

// The times of the log are in UTC, wherever the machine is.
func TestLogIsInUTC(t *testing.T) {
	old := time.Local
	time.Local = time.FixedZone("elsewhere", 5*3600)
	defer func() { time.Local = old }()
	var out bytes.Buffer
	a := &app{stderr: &out}
	notify, stop := a.watch("archive")
	notify(jobs.Warning{Text: "x"})
	stop()
	log := newLog(&out, "query")
	log.Info().Msg("y")
	for line := range strings.Lines(out.String()) {
		var l struct{ Time, Message string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if at, err := time.Parse(time.RFC3339, l.Time); err != nil || !strings.HasSuffix(l.Time, "Z") || time.Since(at).Abs() > time.Minute {
			t.Errorf("%s: %v", line, err)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines", n)
	}
}
