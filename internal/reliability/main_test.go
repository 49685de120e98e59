package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// saying is what go test -json says of tests with these lines and endings.
func saying(test, ending string, lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(`{"Action":"output","Test":"` + test + `","Output":"    x_test.go:1: ` + l + `\n"}` + "\n")
	}
	b.WriteString(`{"Action":"` + ending + `","Test":"` + test + `","Elapsed":1.5}` + "\n")
	return b.String()
}

func TestParse(t *testing.T) {
	s := suite{name: "s", expects: []expected{{"kills", "TestKill", "p"}, {"faults", "TestFault", "q"}}}
	kill, fail := saying("TestKill", "pass", "reliability: kills: 3 of one", "else"), saying("TestFault", "pass", "reliability: faults: 40 (seed 7)")
	for name, c := range map[string]struct{ log, want string }{
		"whole":        {kill + fail, ""},
		"summed":       {saying("TestKill", "pass", "reliability: kills: 3 of one", "reliability: kills: 4 of another") + fail, ""},
		"a line lacks": {kill + saying("TestFault", "pass"), `TestFault logged nothing of "faults"`},
		"nothing":      {kill + saying("TestFault", "pass", "reliability: faults: 0 (seed 7)"), `TestFault logged nothing of "faults"`},
		"failed":       {kill + saying("TestFault", "fail", "reliability: faults: 40 (seed 7)"), "TestFault: fail"},
		"skipped":      {kill + saying("TestFault", "skip"), "TestFault: skip"},
		"not run":      {kill, "TestFault did not pass"},
		"unknown":      {kill + fail + saying("TestKill", "pass", "reliability: clocks: 3 of one"), `TestKill logs "clocks"`},
		"of another":   {kill + fail + saying("TestOther", "pass", "reliability: kills: 3 of one"), `TestOther logs "kills"`},
		"not compiled": {"# etl/jobs\n" + kill + fail, "# etl/jobs"},
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(log, []byte(c.log), 0o644); err != nil {
				t.Fatal(err)
			}
			got, took, err := s.parse(log)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if want := map[string]int64{"whole": 3, "summed": 7}[name]; want != 0 {
				if got["kills"].n != want || got["faults"].n != 40 || took.Seconds() != 1.5 {
					t.Errorf("%+v, %+v, %s", got["kills"], got["faults"], took)
				}
			}
		})
	}
}

func TestFuzzTarget(t *testing.T) {
	all := fuzzSuites("internal/config:FuzzYAML", "10x")
	log := filepath.Join(t.TempDir(), "log")
	text := saying("FuzzYAML", "pass", "fuzz: elapsed: 0s, execs: 10 (1/sec)", "fuzz: elapsed: 1s, execs: 123456 (1/sec)")
	if err := os.WriteFile(log, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, _, err := all[0].parse(log)
	if r := got["internal/config:FuzzYAML"]; err != nil || r == nil || r.n != 123456 {
		t.Errorf("%+v, %v", r, err)
	}
	if c := strings.Join(all[0].command(), " "); !strings.Contains(c, "-fuzz=^FuzzYAML$ -fuzztime=10x") || !strings.HasSuffix(c, "./internal/config") {
		t.Error(c)
	}
}

// Each thing is expected once, and each test that is named exists.
func TestSuites(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range suites {
		var text strings.Builder
		files, err := filepath.Glob(filepath.Join("..", "..", s.dir, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(s.dir, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(b)
		}
		for _, e := range s.expects {
			if seen[e.what] || e.property == "" {
				t.Errorf("%q is there twice, or says nothing", e.what)
			}
			seen[e.what] = true
			if !strings.Contains(text.String(), "func "+e.test+"(t *testing.T)") {
				t.Errorf("%s has no %s", s.dir, e.test)
			}
		}
	}
}

func TestPage(t *testing.T) {
	got := string(page("", suites, func() map[string]*result {
		m := make(map[string]*result)
		for _, s := range suites {
			for _, e := range s.expects {
				m[e.what] = &result{n: 1234, remarks: []string{"a|b"}}
			}
		}
		return m
	}(), nil))
	for _, want := range []string{"| 1,234 | a\\|b | `TestModel` |", "| processes killed with -9 | 6,170 |", "`go test -count=1 -timeout=60m -tags duckdb_arrow -run '^(TestModel)$' ./jobs -args -thorough`"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
