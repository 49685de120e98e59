package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/fleet"
	"etl/internal/sample"
	"etl/jobs"
)

func TestParseKnown(t *testing.T) {
	got, err := parseKnown("k.csv", "\ufeff# what we know\npoint,from,to,note\n\n"+
		"Building1.*, 2024-01-05 , 2024-01-06T06:30Z,\"maintenance, planned\"\n*,2024-01-05T01:00:00+02:00,2024-01-05 00:00\n")
	want := []jobs.Outage{
		{Points: "Building1.*", From: 1704412800000, To: 1704522600000, Note: "maintenance, planned"},
		{Points: "*", From: 1704409200000, To: 1704412800000},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"a,2024-01-05\n":                          "k.csv:1: want point,from,to,note, got 2 fields",
		"\n\na,x,2024-01-05\n":                    "k.csv:3: from: \"x\" is no time",
		"a,2024-01-05,y,z\n":                      "k.csv:1: to: \"y\" is no time",
		"point,from,to\na,2024-01-05,2024-01-05":  "k.csv:2: it begins at 2024-01-05 and ends at 2024-01-05",
		",2024-01-05,2024-01-06":                  "k.csv:1: no point",
		"a,2024-01-05,2024-01-06,n,o":             "k.csv:1: want point,from,to,note, got 5 fields",
		"a,2024-01-05,2024-01-06,\"n\nb\"x":       "k.csv:2: ",
		"a,b,2024-01-06\nc,d,2024-01-06\n":        "k.csv:2: from: \"d\"",
		"a,2024-02-30,2024-03-06":                 "k.csv:1: from: \"2024-02-30\" is no time",
		"a,2024-01-05,2024-01-06\npoint,from,to,": "k.csv:2: from: \"from\" is no time", // names come first or not at all
	} {
		_, err := parseKnown("k.csv", text)
		if err == nil || !strings.Contains(err.Error(), want) || fault.ExitCode(err) != fault.ExitUsage {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// FuzzKnown: whatever is in the file, an outage that is read begins before it ends and
// names points, and an error names a line of the file.
func FuzzKnown(f *testing.F) {
	for _, s := range []string{"point,from,to,note\na*,2024-01-05,2024-01-06,why", "a,2024-01-05T10:00Z,2024-01-06 10:00:30", "\"", "#\n,,,", "a,b\r\nc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		known, err := parseKnown("k", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "k:") || fault.KindOf(err) != fault.Usage || len(known) > 0 {
				t.Fatalf("%v, %d read", err, len(known))
			}
			return
		}
		for _, k := range known {
			if k.From >= k.To || k.Points == "" {
				t.Fatalf("%+v", k)
			}
		}
	})
}

func TestHeatStrip(t *testing.T) {
	d := func(s jobs.DayState, present, expected int32) jobs.AuditDay {
		return jobs.AuditDay{State: s, Present: present, Expected: expected}
	}
	days := []jobs.AuditDay{d(jobs.DayOutside, 0, 0), d(jobs.DayWhole, 24, 24), d(jobs.DayHoles, 1, 24), d(jobs.DayHoles, 23, 24), d(jobs.DayEmpty, 0, 24),
		d(jobs.DayNotArchived, 0, 24), d(jobs.DayUnread, 0, 0), d(jobs.DaySome, 7, 0), d(jobs.DayOutside, 0, 0)}
	for _, test := range []struct {
		width  int
		colour bool
		want   string
	}{
		{20, false, " █▁▇░?!▒"},
		{9, false, " █▁▇░?!▒"},
		{5, false, "█▄?!"},
		{20, true, " \x1b[32m█\x1b[33m▁▇\x1b[31m░\x1b[35m?\x1b[31m!\x1b[32m▒\x1b[m"},
	} {
		if got := heatStrip(days, test.width, test.colour); got != test.want {
			t.Errorf("width %d: %q, want %q", test.width, got, test.want)
		}
	}
}

func TestLengthText(t *testing.T) {
	for ms, want := range map[int64]string{1500: "1.5s", 60_000: "1m", 90_000: "1m 30s", 3_599_999: "1h", 26_999_000: "7h 30m", 86_400_000: "1d", 241_500_000: "2d 19h", 0: "0s"} {
		if got := lengthText(ms); got != want {
			t.Errorf("%d ms: %s, want %s", ms, got, want)
		}
	}
}

// TestAuditDemo: the audit of the demo's fleet finds every outage that the fleet
// planted and no other, but for where a value is NULL.
func TestAuditDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the demo")
	}
	etl := func(getenv func(string) string, args ...string) (int, string) {
		t.Helper()
		var out, log bytes.Buffer
		code := run(context.Background(), context.Background(), args, getenv, strings.NewReader(""), &out, &log)
		if code != fault.ExitOK && code != fault.ExitFindings {
			t.Fatalf("etl %v: exit %d\n%s%s", args, code, &out, &log)
		}
		return code, out.String()
	}
	dir := filepath.Join(t.TempDir(), "demo")
	none := func(string) string { return "" }
	etl(none, "demo", "--dir", dir, "--quiet")
	in := func(k string) string {
		return map[string]string{"ETL_SOURCE": "sqlite:" + filepath.Join(dir, "d1.sqlite"), "ETL_STORE": "file:" + filepath.Join(dir, "r2"), "ETL_CACHE": filepath.Join(dir, "cache"), "ETL_NOW": "2024-02-21T02:00:00Z"}[k]
	}
	f, err := fleet.New(fleet.Demo())
	if err != nil {
		t.Fatal(err)
	}
	days := f.Days()
	code, out := etl(in, "audit", "--from", days.From.String(), "--to", days.To.String(), "--json", "--html", filepath.Join(dir, "audit.html"))
	var r jobs.AuditReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != fault.ExitFindings {
		t.Fatalf("exit %d, %v", code, err)
	}
	// A NULL is a row to the fleet and no reading to the audit.
	nulls := map[int32]bool{}
	for i, p := range f.Points() {
		var s sample.Series
		f.Series(i, days, &s)
		for _, v := range s.Value {
			if v != v {
				nulls[p.ID] = true
			}
		}
	}
	var got, want []string
	for _, g := range f.Gaps() {
		if !g.Filled && !nulls[g.Point] {
			want = append(want, fmt.Sprint(g.Point, " ", g.From, " ", g.To, " ", g.Missing))
		}
	}
	for _, g := range r.Gaps {
		if g.Kind != "inner" {
			t.Errorf("a gap at an end: %+v", g)
		} else if !nulls[g.PointID] {
			got = append(got, fmt.Sprint(g.PointID, " ", *g.After, " ", *g.Before, " ", *g.Missing))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || len(want) < 50 {
		t.Errorf("%d gaps found, %d planted", len(got), len(want))
	}
	t.Logf("%d planted gaps found, %d points with NULLs left out", len(want), len(nulls))

	// All of them acknowledged: nothing is left to find.
	known := []string{"point,from,to,note"}
	for _, g := range r.Gaps {
		at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) }
		known = append(known, fmt.Sprintf("%s,%s,%s,planted", g.Point, at(*g.After), at(*g.Before)))
	}
	path := filepath.Join(dir, "known.csv")
	if err := os.WriteFile(path, []byte(strings.Join(known, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out = etl(in, "audit", "--from", days.From.String(), "--to", days.To.String(), "--json", "--known", path)
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != fault.ExitOK || r.Coverage.Gaps != 0 || r.Coverage.KnownGaps != len(r.Gaps) || r.Coverage.Known != r.Coverage.Missing {
		t.Errorf("exit %d, %v, %+v", code, err, r.Coverage)
	}
}
