// Command reliability runs the proofs of this repository at their thorough size and
// writes what was tried into docs/reliability.md. The numbers come from the tests' own
// log lines alone:
//
//	reliability: WHAT: N REMARK
//
// A line that is expected and missing, one that nobody expects, a test that failed
// or was skipped: each is an error, and no page is written.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "reliability: %v\n", err)
		os.Exit(1)
	}
}

// suite is one call of go test.
type suite struct {
	name, tags, dir string
	tests           []string // for a fuzz target: its name, alone
	args            []string // of the test binary
	fuzz            bool
	expects         []expected
}

// expected is a line of the page.
type expected struct {
	what     string // as the tests log it
	test     string
	property string
}

var suites = []suite{
	{name: "model", tags: "duckdb_arrow", dir: "./jobs", args: []string{"-thorough"}, expects: []expected{
		{"model histories", "TestModel", "Random histories of all jobs together leave every sample once where it belongs, and `verify --deep --against-source` clean"},
		{"model steps", "TestModel", "After each step a reader sees the truth"},
		{"model crashes", "TestModel", "… also after a crash at any moment, and the same job run again completes"},
		{"model runners", "TestModel", "… and beside each other"},
		{"model clocks", "TestModel", "… and by clocks that are wrong or jump"},
		{"model damages", "TestModel", "… and after damage, mended from D1 or a replica"},
	}},
	{name: "faults", tags: "duckdb_arrow", dir: "./jobs", expects: []expected{
		{"faults of archive, store", "TestFaultAtEveryStoreOperation", "A fault at every operation of the store: nothing lost, nothing doubled, the next archive completes"},
		{"faults of archive, source", "TestFaultAtEverySourceCall", "The same at every call of the source and its ledger"},
		{"faults of repair, store", "TestRepairFaults", "The same of repair"},
		{"faults of repair, source", "TestRepairSourceFaults", "The same of repair, source and ledger"},
		{"faults of replicate, source", "TestReplicateFaults", "The same of replicate, where it reads"},
		{"faults of replicate, destination", "TestReplicateFaults", "The same of replicate, where it writes"},
		{"cuts of replicate --prune-destination", "TestReplicatePrunes", "Deleting in a destination, cut off anywhere, leaves it whole"},
		{"faults of prune", "TestFaultAtEveryStepOfPruneAndRestore", "The same of prune: every sample is in one tier or the other"},
		{"faults of restore", "TestFaultAtEveryStepOfPruneAndRestore", "The same of restore"},
	}},
	{name: "clocks and alarms", tags: "duckdb_arrow", dir: "./jobs", args: []string{"-thorough"}, expects: []expected{
		{"wrong clocks", "TestWrongClocks", "One right clock of two is enough; with none nothing is lost"},
		{"verify while archiving", "TestVerifyWhileArchiving", "A running archive raises no alarm, at any of its operations"},
		{"verify beside writers", "TestVerifyBesideWriters", "Nor do rows that arrive"},
	}},
	{name: "damage", tags: "duckdb_arrow", dir: "./jobs", args: []string{"-thorough"}, expects: []expected{
		{"damages of month files", "TestDamagedFiles", "Whatever byte of a month file is damaged, `verify --deep` finds it"},
		{"damages of manifests, summed", "TestDamagedManifest", "The same of a manifest"},
		{"damages of manifests, plain", "TestDamagedManifest", "The same of one without a checksum"},
	}},
	{name: "damage below queries", tags: "duckdb_arrow", dir: "./internal/lake", args: []string{"-thorough"}, expects: []expected{
		{"damages below queries, files", "TestDamagedIsNeverFetched", "No damaged file is fetched"},
		{"damages below queries, answers", "TestLakeDamage", "No query is answered from damage"},
		{"questions to both tiers", "TestLakeModel", "Answers over both tiers are those of one table with every sample once"},
	}},
	{name: "manifests", tags: "duckdb_arrow", dir: "./manifests", expects: []expected{
		{"committers of one manifest", "TestSimulation", "The last writer of an object has the last word on its entry"},
		{"hostile manifests", "TestHostile", "What a hostile manifest says reaches neither SQL nor a path"},
	}},
	{name: "network", tags: "duckdb_arrow,integration", dir: "./jobs", args: []string{"-thorough"}, expects: []expected{
		{"faults over the network: archive", "TestIntegrationFaults", "What passes is got over within the run, what does not is named, with its exit code"},
		{"faults over the network: prune", "TestIntegrationFaults", "The same of prune"},
		{"faults over the network: restore", "TestIntegrationFaults", "The same of restore"},
		{"faults over the network: repair", "TestIntegrationFaults", "The same of repair"},
		{"faults over the network: replicate", "TestIntegrationFaults", "The same of replicate"},
	}},
	{name: "hostile input and secrets", tags: "duckdb_arrow,integration", dir: "./cmd/etl", expects: []expected{
		{"hostile manifests and catalogs, by command", "TestHostileNames", "Every command that reads them refuses them"},
		{"planted secrets", "TestPlantedSecrets", "No output, file or object of any command holds a secret, whatever a server echoes"},
		{"full and read-only disks", "TestIntegrationDisks", "A job on a disk that takes nothing ends with an error that says so, and the next one completes"},
	}},
	{name: "processes", tags: "duckdb_arrow,integration", dir: "./cmd/etl", args: []string{"-thorough"}, expects: []expected{
		{"kill -9 of archive", "TestIntegrationKill", "Killed at any moment: what is left reads correctly, the ledger claims no more than is safe, the next run completes"},
		{"kill -9 of prune", "TestIntegrationKill", "The same of prune: every sample is in one tier or the other"},
		{"kill -9 of restore", "TestIntegrationKill", "The same of restore"},
		{"kill -9 of repair", "TestIntegrationKill", "The same of repair"},
		{"kill -9 of replicate", "TestIntegrationKill", "The same of replicate"},
		{"processes at once", "TestIntegrationTogether", "Processes of all jobs on the same tiers end with the truth"},
		{"verify beside processes", "TestIntegrationTogether", "Verify raises no alarm beside them"},
	}},
}

// fuzzSuites are those of the Makefile: package:target.
func fuzzSuites(list, fuzztime string) []suite {
	var all []suite
	for _, f := range strings.Fields(list) {
		pkg, target, _ := strings.Cut(f, ":")
		all = append(all, suite{name: "fuzz " + f, tags: "duckdb_arrow", dir: "./" + pkg, tests: []string{target}, fuzz: true,
			args:    []string{"-fuzz=^" + target + "$", "-fuzztime=" + fuzztime, "-fuzzminimizetime=5s"},
			expects: []expected{{f, target, "No input makes the parser crash, or accept what it should not"}}})
	}
	return all
}

// command is the call of go, as a person may repeat it.
func (s *suite) command() []string {
	args := []string{"go", "test", "-count=1", "-timeout=60m", "-tags", s.tags}
	if s.fuzz {
		return append(append(args, "-run=^$"), append(s.args, s.dir)...)
	}
	args = append(args, "-run", "^("+strings.Join(s.named(), "|")+")$", s.dir)
	if len(s.args) > 0 {
		args = append(append(args, "-args"), s.args...)
	}
	return args
}

// text is the command for a shell.
func (s *suite) text() string {
	var words []string
	for _, w := range s.command() {
		if strings.ContainsAny(w, "^$()|") {
			w = "'" + w + "'"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// named are the tests of the suite, each once.
func (s *suite) named() []string {
	if s.fuzz {
		return s.tests
	}
	var names []string
	for _, e := range s.expects {
		if !slices.Contains(names, e.test) {
			names = append(names, e.test)
		}
	}
	return names
}

// result is what was logged of one thing.
type result struct {
	n       int64
	lines   int
	remarks []string
}

type options struct {
	page, logs, fuzz, fuzztime, only string
	read                             bool
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("reliability", flag.ContinueOnError)
	flags.StringVar(&o.page, "md", "", "the page to write, if there is to be one")
	flags.StringVar(&o.logs, "logs", ".reliability", "a folder for what go test says")
	flags.BoolVar(&o.read, "read", false, "run nothing that has a log in that folder: read it")
	flags.StringVar(&o.only, "only", "", "run suites of which the name matches this expression alone; the page then says so")
	flags.StringVar(&o.fuzz, "fuzz", "", "fuzz targets, as package:Target")
	flags.StringVar(&o.fuzztime, "fuzztime", "20000x", "inputs for each of them (20000x)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.logs, 0o755); err != nil {
		return err
	}
	all := slices.DeleteFunc(append(slices.Clone(suites), fuzzSuites(o.fuzz, o.fuzztime)...), func(s suite) bool { return !only.MatchString(s.name) })
	results, took := make(map[string]*result), make(map[string]time.Duration)
	var faults []error
	for i := range all {
		s := &all[i]
		log := filepath.Join(o.logs, regexp.MustCompile(`[^a-zA-Z0-9]+`).ReplaceAllString(s.name, "-")+".json")
		if _, err := os.Stat(log); !o.read || err != nil {
			fmt.Fprintf(out, "%s: %s\n", s.name, strings.Join(s.command(), " "))
			if err := s.run(ctx, log); err != nil {
				faults = append(faults, err)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		got, d, err := s.parse(log)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", s.name, err))
		}
		took[s.name] = d
		for what, r := range got {
			results[what] = r
			fmt.Fprintf(out, "  %s: %d %s\n", what, r.n, strings.Join(r.remarks, "; "))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("%w\nthe output is in %s; no page was written", err, o.logs)
	}
	if o.page == "" {
		return nil
	}
	return os.WriteFile(o.page, page(o.only, all, results, took), 0o644)
}

// run runs a suite and keeps what it says.
func (s *suite) run(ctx context.Context, log string) error {
	f, err := os.Create(log + ".part")
	if err != nil {
		return err
	}
	defer f.Close()
	c := s.command()
	cmd := exec.CommandContext(ctx, c[0], append([]string{"test", "-json"}, c[2:]...)...)
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	if rerr := os.Rename(log+".part", log); rerr != nil {
		return rerr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

var (
	logged   = regexp.MustCompile(`reliability: (.+?): (\d+) (.*)`)
	executed = regexp.MustCompile(`execs: (\d+)`)
)

// parse reads what go test -json said: each test has to have passed, and each
// expected line to be there.
func (s *suite) parse(log string) (map[string]*result, time.Duration, error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	results := make(map[string]*result)
	passed := make(map[string]bool)
	var faults []error
	var took float64
	partial := make(map[string]string) // a line may come in pieces
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 64<<20)
	for sc.Scan() {
		var e struct {
			Action, Test, Output string
			Elapsed              float64
		}
		if json.Unmarshal(sc.Bytes(), &e) != nil {
			faults = append(faults, errors.New(sc.Text())) // go itself: it did not compile
			continue
		}
		top, _, _ := strings.Cut(e.Test, "/")
		switch e.Action {
		case "pass":
			if took = max(took, e.Elapsed); e.Test == top {
				passed[top] = true
			}
		case "fail", "skip":
			if e.Test == top && e.Test != "" {
				faults = append(faults, fmt.Errorf("%s: %s", e.Test, e.Action))
			}
		case "output":
			text := partial[e.Test] + e.Output
			if partial[e.Test] = ""; !strings.HasSuffix(text, "\n") {
				partial[e.Test] = text
				continue
			}
			if m := logged.FindStringSubmatch(text); m != nil {
				if err := s.add(results, m[1], top, m[2], m[3]); err != nil {
					faults = append(faults, err)
				}
			}
			if m := executed.FindStringSubmatch(text); m != nil && s.fuzz {
				results[s.expects[0].what] = &result{lines: 1}
				if err := s.add(results, s.expects[0].what, s.expects[0].test, m[1], "inputs"); err != nil {
					faults = append(faults, err)
				}
			}
		}
	}
	if err := sc.Err(); err != nil {
		faults = append(faults, err)
	}
	for _, name := range s.named() {
		if !passed[name] {
			faults = append(faults, fmt.Errorf("%s did not pass", name))
		}
	}
	for _, e := range s.expects {
		if r := results[e.what]; r == nil || r.n == 0 {
			faults = append(faults, fmt.Errorf("%s logged nothing of %q", e.test, e.what))
		}
	}
	return results, time.Duration(took * float64(time.Second)), errors.Join(faults...)
}

// add adds a line to what was logged of the same thing.
func (s *suite) add(results map[string]*result, what, test, number, remark string) error {
	if !slices.ContainsFunc(s.expects, func(e expected) bool { return e.what == what && e.test == test }) {
		return fmt.Errorf("%s logs %q, which has no line on the page: give it one", test, what)
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return err
	}
	r := results[what]
	if r == nil {
		r = new(result)
		results[what] = r
	}
	r.n += n
	r.lines++
	if !slices.Contains(r.remarks, remark) {
		r.remarks = append(r.remarks, remark)
	}
	return nil
}

// page is the page.
func page(only string, all []suite, results map[string]*result, took map[string]time.Duration) []byte {
	var b strings.Builder
	b.WriteString("# What was tried\n\n" +
		"Written by `make reliability` (`internal/reliability`): each number is counted by the test that is named beside it, in a run in which all of them passed. " +
		"`make test` and `make integration` run the same tests at a smaller size. What is random logs its seed.\n")
	if only != "" {
		fmt.Fprintf(&b, "\nThis was a part of it: the suites that match `%s`.\n", only)
	}
	fuzzing := false
	for _, s := range all {
		switch {
		case s.fuzz && !fuzzing:
			fuzzing = true
			fmt.Fprintf(&b, "\n## fuzz\n\nInputs that each parser of bytes that somebody else may have written was given; none made it crash. `make fuzz` runs them alone.\n\n| parser | inputs |\n|---|--:|\n")
		case !s.fuzz:
			fmt.Fprintf(&b, "\n## %s\n\n%s; it took %s.\n\n| holds | tried | | test |\n|---|--:|---|---|\n", s.name, "`"+s.text()+"`", took[s.name].Round(time.Second))
		}
		for _, e := range s.expects {
			r := results[e.what]
			if s.fuzz {
				fmt.Fprintf(&b, "| `%s` | %s |\n", e.what, thousands(r.n))
				continue
			}
			fmt.Fprintf(&b, "| %s | %s | %s | `%s` |\n", e.property, thousands(r.n), strings.ReplaceAll(strings.Join(r.remarks, "; "), "|", "\\|"), e.test)
		}
	}
	b.WriteString("\n## in all\n\n| | |\n|---|--:|\n")
	for _, sum := range []struct{ what, prefix string }{{"faults injected, one at a time", "faults of "}, {"faults over the network", "faults over"}, {"processes killed with -9", "kill -9 of "}, {"files and manifests damaged", "damages "}} {
		var n int64
		for what, r := range results {
			if strings.HasPrefix(what, sum.prefix) {
				n += r.n
			}
		}
		if n > 0 { // else its suite was not run
			fmt.Fprintf(&b, "| %s | %s |\n", sum.what, thousands(n))
		}
	}
	return []byte(b.String())
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return cmp.Or(s, "0")
}
