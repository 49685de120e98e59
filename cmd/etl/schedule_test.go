package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"etl/internal/notify"
	"etl/internal/schedule"
)

func nightOf(steps ...schedule.StepReport) schedule.Report {
	return schedule.Report{Night: schedule.Night{Due: time.Date(2024, 2, 10, 2, 0, 0, 0, time.UTC)}, Steps: steps}
}

func stepOf(name string, s schedule.State, text string) schedule.StepReport {
	return schedule.StepReport{Step: name, Attempts: 1, Outcome: schedule.Outcome{State: s, Error: text}}
}

func TestMessage(t *testing.T) {
	if m := newMessage(nightOf(stepOf("archive", schedule.Done, ""), stepOf("verify", schedule.Done, "")), "s", "c"); m.Event != "" || m.Text != "" {
		t.Errorf("%+v", m)
	}
	r := nightOf(stepOf("archive", schedule.Failed, "no answer"), stepOf("verify", schedule.Halted, "p<!channel> & \x1b[31m\nmore"), stepOf("audit", schedule.Findings, strings.Repeat("ä", 600)), stepOf("prune", schedule.Skipped, "verify has not succeeded"))
	r.Steps[0].Attempts, r.Steps[2].Found, r.Steps[1].Hint = 3, 1234, "`etl repair`"
	m := newMessage(r, "d1://x", "r2://y")
	want := "etl: the night of 2024-02-10 02:00 UTC, d1://x → r2://y: halted\n" +
		"• archive: failed after 3 attempts: no answer\n• verify: halted: p&lt;!channel&gt; &amp; ·[31m more\n    → `etl repair`\n" +
		"• audit: findings, 1,234 findings: " + strings.Repeat("ä", 499) + "…\n• prune: skipped: verify has not succeeded"
	if m.Event != "halted" || m.Text != want {
		t.Errorf("%s\n%s\nwant\n%s", m.Event, m.Text, want)
	}
	for event, states := range map[string][]schedule.State{"failed": {schedule.Findings, schedule.Failed, schedule.Skipped}, "findings": {schedule.Done, schedule.Findings}, "halted": {schedule.Halted, schedule.Failed}} {
		var steps []schedule.StepReport
		for _, s := range states {
			steps = append(steps, stepOf("x", s, ""))
		}
		if m := newMessage(nightOf(steps...), "", ""); m.Event != event {
			t.Errorf("%v is %s, want %s", states, m.Event, event)
		}
	}
	if b, err := json.Marshal(m); err != nil || !bytes.Contains(b, []byte(`"night":{"due":"2024-02-10T02:00:00Z"`)) || !bytes.Contains(b, []byte(`"state":"halted"`)) {
		t.Errorf("%s, %v", b, err)
	}
}

// TestTell: a heartbeat where nothing failed, a message where something is to be
// told, neither of a night that was stopped; a receiver that refuses is a warning.
func TestTell(t *testing.T) {
	var got []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Method)
		if r.URL.Path == "/gone/S3CRET" {
			w.WriteHeader(http.StatusGone)
		}
	}))
	defer s.Close()
	url := func(path string) *notify.URL {
		u, err := notify.ParseURL(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for name, c := range map[string]struct {
		states []schedule.State
		path   string
		want   string
		warns  bool
		stop   bool
	}{
		"done":        {[]schedule.State{schedule.Done}, "/x", "GET", false, false},
		"findings":    {[]schedule.State{schedule.Findings}, "/x", "GET POST", false, false},
		"failed":      {[]schedule.State{schedule.Failed}, "/x", "POST", false, false},
		"halted":      {[]schedule.State{schedule.Done, schedule.Halted}, "/x", "POST", false, false},
		"interrupted": {[]schedule.State{schedule.Done, schedule.Interrupted}, "/x", "", false, false},
		"stopped":     {[]schedule.State{schedule.Failed}, "/x", "", false, true},
		"gone":        {[]schedule.State{schedule.Findings}, "/gone/S3CRET", "GET POST", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			got = nil
			var stderr bytes.Buffer
			a := &app{stdout: io.Discard, stderr: &stderr}
			var steps []schedule.StepReport
			for _, state := range c.states {
				steps = append(steps, stepOf("x", state, ""))
			}
			r := nightOf(steps...)
			r.Stopped = c.stop
			a.tell(t.Context(), r, url(c.path), url(c.path), &nightly{})
			if strings.Join(got, " ") != c.want || strings.Contains(stderr.String(), "410") != c.warns || strings.Contains(stderr.String(), "S3CRET") {
				t.Errorf("%q, want %q; %s", got, c.want, stderr.String())
			}
			got = nil
			a.tell(t.Context(), r, nil, nil, &nightly{})
			if len(got) > 0 {
				t.Errorf("%q without an address", got)
			}
		})
	}
}
