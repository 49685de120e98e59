package jobs

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/cost"
	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/objecttest"
	"etl/internal/source"
	"etl/internal/source/d1"
	sqlitesource "etl/internal/source/sqlite"
	"etl/internal/utc"
	"etl/manifests"
)

// look is Status with the default limits, its lines by name.
func look(t *testing.T, env Env) (StatusReport, map[string]StatusLine) {
	t.Helper()
	r, err := Status(t.Context(), env, StatusOptions{Limits: DefaultStatusLimits()})
	if err != nil {
		t.Fatal(err)
	}
	lines := make(map[string]StatusLine)
	for _, l := range r.Lines {
		if _, twice := lines[l.Name]; twice {
			t.Errorf("the line %s is there twice", l.Name)
		}
		if l.State != Good && l.State != NotKnown && l.Remedy == "" {
			t.Errorf("%s is %s, and nothing says what to do", l.Name, l.State)
		}
		if l.State == Good && l.Remedy != "" {
			t.Errorf("%s is OK, and has the remedy %q", l.Name, l.Remedy)
		}
		lines[l.Name] = l
	}
	return r, lines
}

// states checks the states of lines, written like "freshness=OK backlog=WARN".
func states(t *testing.T, lines map[string]StatusLine, want string) {
	t.Helper()
	for _, w := range strings.Fields(want) {
		name, state, _ := strings.Cut(w, "=")
		if got := lines[name]; string(got.State) != state {
			t.Errorf("%s is %q (%s), want %s", name, got.State, got.Text, state)
		}
	}
}

func metric(r StatusReport, name string) float64 {
	for _, m := range r.Metrics() {
		if m.Name == name {
			return m.Value
		}
	}
	return -1
}

// settled is a world of two points, archived up to last night, with a reading a minute ago.
func settled(t *testing.T) (*world, int32, int32) {
	w := newWorld(t) // 2024-02-10 02:00
	a, b := w.point("a"), w.point("b")
	for _, p := range []int32{a, b} {
		w.fill(p, daysOf("2024-01-20", "2024-02-10"))
		w.put(p, "2024-02-10 01:58", 1)
	}
	w.run(ArchiveOptions{Mode: Archive})
	return w, a, b
}

func TestStatusSettled(t *testing.T) {
	w, _, _ := settled(t)
	if _, err := Verify(t.Context(), w.env(), VerifyOptions{Deep: true}); err != nil {
		t.Fatal(err)
	}
	w.store.Reset()
	r, lines := look(t, w.env())
	if r.State != Good || r.ExitCode(true) != fault.ExitOK || len(lines) != 14 {
		t.Errorf("%s, exit %d: %+v", r.State, r.ExitCode(true), r.Lines)
	}
	for _, op := range w.store.Trace() {
		if strings.Contains(op, "timeseries/") || strings.HasPrefix(op, "put") {
			t.Errorf("status does %s", op)
		}
	}
	if len(w.store.Trace()) == 0 {
		t.Error("the trace of the store is empty")
	}
	for name, want := range map[string]float64{
		"etl_freshness_seconds": 120, "etl_silent_points": 0, "etl_bad_quality_ratio": 0, "etl_archive_lag_days": 0,
		"etl_backlog_point_days": 0, "etl_late_point_days": 0, "etl_failed_runs": 0, "etl_cold_files": 4, "etl_cold_samples": 2 * 21 * 24,
		"etl_cold_first_day_timestamp_seconds": float64(day("2024-01-20").Start() / 1000), "etl_cold_last_day_timestamp_seconds": float64(day("2024-02-09").Start() / 1000),
		"etl_reject_files": 0, "etl_d1_limit_bytes": 10e9, "etl_status_timestamp_seconds": float64(w.now.Unix()),
	} {
		if got := metric(r, name); got != want {
			t.Errorf("%s is %g, want %g", name, got, want)
		}
	}
	// 48 rows a day at 31 B.
	if got, size := metric(r, "etl_d1_days_until_full"), metric(r, "etl_d1_size_bytes"); size < 4096 || got != (10e9-size)/(48*31) {
		t.Errorf("%g days until full at %g bytes", got, size)
	}
	// The months file of January alone is over.
	m, _, err := manifests.Load(t.Context(), w.dir, day("2024-01-20").Month())
	w.must(err)
	if got := metric(r, "etl_cold_growth_bytes_per_month"); got != float64(m.Totals.Bytes) {
		t.Errorf("growth %g, January has %d", got, m.Totals.Bytes)
	}
}

func TestStatusMetricsGolden(t *testing.T) {
	w, _, _ := settled(t)
	if _, err := Verify(t.Context(), w.env(), VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
	r, _ := look(t, w.env())
	var names []string
	for _, m := range r.Metrics() {
		if m.Help == "" {
			t.Errorf("%s has no help", m.Name)
		}
		name := m.Name
		if m.Label[0] != "" {
			name += "{" + m.Label[0] + "=" + m.Label[1] + "}"
		}
		if !strings.HasPrefix(name, "etl_status{") {
			names = append(names, name)
		}
	}
	// What reads them (alert rules, dashboards, the /metrics of schedule) relies on the names.
	want := strings.Fields(`etl_archive_lag_days etl_backlog_point_days etl_bad_quality_ratio etl_cold_bytes
		etl_cold_files etl_cold_first_day_timestamp_seconds etl_cold_growth_bytes_per_month etl_cold_last_day_timestamp_seconds etl_cold_samples
		etl_d1_days_until_full etl_d1_limit_bytes etl_d1_size_bytes etl_failed_runs etl_freshness_seconds
		etl_last_run_timestamp_seconds{command=archive} etl_last_run_timestamp_seconds{command=verify}
		etl_last_success_timestamp_seconds{command=archive} etl_last_success_timestamp_seconds{command=verify}
		etl_late_point_days etl_reject_files etl_silent_points etl_status_timestamp_seconds`)
	if !slices.Equal(names, want) {
		t.Errorf("metrics:\n%s\nwant:\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
	}
}

func TestStatusFindings(t *testing.T) {
	w, a, b := settled(t)

	// Late rows, of one (point, day); a row of today is none.
	w.put(a, "2024-02-03 00:30", 5)
	_, lines := look(t, w.env())
	states(t, lines, "late=OK backlog=OK")
	if *lines["late"].Value != 1 {
		t.Errorf("late: %+v", lines["late"])
	}
	o := StatusOptions{Limits: StatusLimits{Late: Limit{1, 0}}}
	r, err := Status(t.Context(), w.env(), o)
	w.must(err)
	if r.State != Warn || r.ExitCode(false) != fault.ExitOK || r.ExitCode(true) != fault.ExitFindings {
		t.Errorf("a limit of late rows: %s", r.State)
	}

	// A day goes by without a night: yesterday may still be archived tonight.
	w.now = w.now.Add(24 * time.Hour)
	w.put(b, "2024-02-11 01:59", 1)
	r, lines = look(t, w.env())
	states(t, lines, "freshness=OK lag=OK backlog=OK silent=OK last-success=OK runs=OK")
	if *lines["backlog"].Value != 2 || *lines["lag"].Value != 1 {
		t.Errorf("%+v %+v", lines["backlog"], lines["lag"])
	}
	if *lines["silent"].Value != 1 { // a's last row is a day and two minutes old
		t.Errorf("%+v", lines["silent"])
	}
	// Two, three, four: what can not wait is CRIT.
	w.now = w.now.Add(24 * time.Hour)
	r, lines = look(t, w.env())
	states(t, lines, "freshness=CRIT lag=WARN backlog=WARN last-success=WARN")
	if *lines["backlog"].Value != 4 || r.ExitCode(false) != fault.ExitFindings || r.State != Critical {
		t.Errorf("%+v, exit %d", lines["backlog"], r.ExitCode(false))
	}
	w.now = w.now.Add(48 * time.Hour)
	_, lines = look(t, w.env())
	states(t, lines, "lag=CRIT last-success=CRIT")
}

func TestStatusQuality(t *testing.T) {
	w, a, b := settled(t)
	for i := range 24 * 60 {
		for _, p := range []int32{a, b} {
			q := 192
			if p == a && i < 144 { // 10 % of one of two: 5 % of all
				q = 0
			}
			w.exec("INSERT OR REPLACE INTO timeseries (point_id, timestamp, value, quality) VALUES (?, ?, 1, ?)", p, w.now.Add(-24*time.Hour).UnixMilli()+int64(i)*60_000, q)
		}
	}
	_, lines := look(t, w.env())
	// 96 looks at each, evenly: the share is within one look of each point.
	if got := *lines["quality"].Value; got < 0.05-1.0/96 || got > 0.05+1.0/96 {
		t.Errorf("share %g, want 0.05", got)
	}
	w.exec("UPDATE timeseries SET quality = 100 WHERE point_id = ?", a)
	_, lines = look(t, w.env())
	states(t, lines, "quality=CRIT")
	// Few looks at many points: each is looked at once, and some not at all.
	s := &statusJob{env: w.env(), o: StatusOptions{Looks: 1}, now: w.now}
	h := &hotFacts{}
	w.must(s.readQuality(t.Context(), w.src, h, []int32{b, a}, w.now.Add(-24*time.Hour).UnixMilli(), w.now.UnixMilli()))
	if h.looked != 1 || h.instants != 1 {
		t.Errorf("%+v", h)
	}
}

func TestStatusAhead(t *testing.T) {
	w, a, _ := settled(t)
	w.exec("DELETE FROM timeseries WHERE timestamp >= ?", at("2024-02-10 00:00"))
	w.put(a, "2024-02-10 23:00", 1) // of a wrong clock
	_, lines := look(t, w.env())
	states(t, lines, "freshness=CRIT") // b's last row of 23:00 yesterday is what is fresh
	if *lines["freshness"].Value != 3*3600 || !strings.Contains(lines["freshness"].Text, "1 points are ahead") {
		t.Errorf("%+v", lines["freshness"])
	}
}

// Each point has a row from the future: what is behind it tells how fresh the data are.
func TestStatusAllAhead(t *testing.T) {
	w, a, b := settled(t)
	w.put(a, "2024-02-10 02:02", 1)
	w.put(b, "2024-02-10 23:00", 1)
	r, lines := look(t, w.env())
	states(t, lines, "freshness=OK silent=OK")
	if metric(r, "etl_freshness_seconds") != 120 || *lines["silent"].Value != 0 || !strings.Contains(lines["freshness"].Text, "2 points are ahead") {
		t.Errorf("%+v, %+v", lines["freshness"], lines["silent"])
	}
	// The sensors fall silent.
	w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ?", a, at("2024-02-08 00:00"), at("2024-02-10 02:01"))
	w.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ?", b, at("2024-02-09 20:00"), at("2024-02-10 02:01"))
	r, lines = look(t, w.env())
	states(t, lines, "freshness=CRIT")
	if metric(r, "etl_freshness_seconds") != 7*3600 || *lines["silent"].Value != 1 || r.ExitCode(false) != fault.ExitFindings {
		t.Errorf("%+v, %+v, exit %d", lines["freshness"], lines["silent"], r.ExitCode(false))
	}
	// There is nothing else: a clock is wrong.
	w.exec("DELETE FROM timeseries WHERE timestamp < ?", at("2024-02-10 02:01"))
	r, lines = look(t, w.env())
	states(t, lines, "freshness=WARN")
	if *lines["silent"].Value != 2 || r.ExitCode(true) != fault.ExitFindings {
		t.Errorf("%+v, %+v, exit %d", lines["freshness"], lines["silent"], r.ExitCode(true))
	}
}

func TestStatusRuns(t *testing.T) {
	w, _, _ := settled(t)
	w.now = w.now.Add(3 * time.Hour) // what ran last is of the log below
	logged := func(id, command, status string, ago time.Duration, days utc.Days, text string) {
		w.must(w.src.Log(t.Context(), source.Run{ID: id, Command: command, Status: status, Started: w.now.Add(-ago - time.Minute), Finished: w.now.Add(-ago), Days: days, Error: text}))
	}
	state := func(want string) StatusLine {
		t.Helper()
		_, lines := look(t, w.env())
		states(t, lines, "runs="+want)
		return lines["runs"]
	}
	logged("0", "archive", "done", 2*time.Hour, utc.Days{}, "")
	logged("1", "archive", "failed", 8*24*time.Hour, daysOf("2024-01-01", "2024-02-02"), "too long ago")
	state("OK")
	logged("2", "archive", "partial", 24*time.Hour, daysOf("2024-01-01", "2024-02-09"), "disk full")
	state("WARN") // a run came after it
	logged("3", "backfill", "failed", 2*time.Hour, daysOf("2023-01-01", "2023-02-01"), "no")
	if l := state("CRIT"); !strings.Contains(l.Text, "1 of the last") || !strings.Contains(l.Text, "backfill") {
		t.Error(l.Text)
	}
	logged("4", "backfill", "done", time.Hour, daysOf("2023-01-01", "2023-01-20"), "")
	state("CRIT") // of a part of its days
	logged("5", "backfill", "done", time.Hour, daysOf("2022-12-01", "2023-02-01"), "")
	state("WARN")
	logged("6", "archive", "failed", time.Minute, utc.Days{}, "token expired")
	if l := state("CRIT"); !strings.Contains(l.Text, "token expired") {
		t.Error(l.Text)
	}
	logged("7", "archive", "interrupted", 0, utc.Days{}, "")
	state("CRIT")
	logged("8", "archive", "done", -time.Second, utc.Days{}, "")
	state("WARN")

	// A run that gives no sign of life: the heartbeat is the source's clock.
	w.must(w.src.Log(t.Context(), source.Run{ID: "9", Command: "prune", Status: "running", Started: w.now}))
	state("WARN")
	w.now = w.now.Add(16 * time.Minute)
	state("CRIT")
}

func TestStatusVerify(t *testing.T) {
	w, _, _ := settled(t)
	verify := func(o VerifyOptions) {
		t.Helper()
		_, err := Verify(t.Context(), w.env(), o)
		w.must(err)
		w.now = w.now.Add(time.Second) // the newest is the last
	}
	_, lines := look(t, w.env())
	states(t, lines, "last-verify=WARN")
	// A part says nothing of the rest.
	verify(VerifyOptions{Days: daysOf("2024-01-01", "2024-02-01")})
	verify(VerifyOptions{Points: Points{Globs: []string{"a"}}})
	_, lines = look(t, w.env())
	states(t, lines, "last-verify=WARN")
	verify(VerifyOptions{Deep: true, Sample: 50})
	_, lines = look(t, w.env())
	states(t, lines, "last-verify=OK")
	w.now = w.now.Add(9 * 24 * time.Hour)
	_, lines = look(t, w.env())
	states(t, lines, "last-verify=WARN")
	_, err := w.dir.Put(t.Context(), "timeseries/2024/02/a.parquet", []byte("no"), object.PutOptions{})
	w.must(err)
	verify(VerifyOptions{})
	r, lines := look(t, w.env())
	states(t, lines, "last-verify=CRIT runs=OK") // a finding is no failed run
	if !strings.Contains(lines["last-verify"].Text, "1 damaged") || r.ExitCode(false) != fault.ExitFindings {
		t.Errorf("%+v", lines["last-verify"])
	}
	// A log that can not be written is a warning.
	env := w.env()
	env.Journal = brokenLog{w.src}
	w.events = nil
	if _, err := Verify(t.Context(), env, VerifyOptions{}); err != nil || !slices.ContainsFunc(w.events, func(e Event) bool {
		warning, ok := e.(Warning)
		return ok && strings.Contains(warning.Text, "not logged")
	}) {
		t.Errorf("%v, %v", err, w.events)
	}
}

// A verification that did not look at what another found damaged does not take it back; one
// that did not finish has found nothing.
func TestStatusVerifyOpen(t *testing.T) {
	w, _, _ := settled(t)
	n := 0
	logged := func(r source.Run) {
		t.Helper()
		n++
		w.now = w.now.Add(time.Hour)
		r.ID, r.Started, r.Finished = fmt.Sprint(n), w.now.Add(-time.Minute), w.now
		w.must(w.src.Log(t.Context(), r))
	}
	state := func(want string) StatusLine {
		t.Helper()
		_, lines := look(t, w.env())
		states(t, lines, "runs=OK last-verify="+want)
		return lines["last-verify"]
	}
	february, all := daysOf("2024-02-01", "2024-03-01"), daysOf("2024-01-01", "2024-03-01")
	damage := source.Run{Command: verifying, Status: "failed", Days: february, Bytes: 1000, Error: "1 damaged, 0 other findings"}
	part := source.Run{Command: verifying, Status: "done", Bytes: 1_000_000} // another share of the files, or a listing

	logged(source.Run{Command: verifying, Status: "done", Days: all})
	state("OK")
	logged(source.Run{Command: verifying, Status: "interrupted", Error: "connection reset"})
	if l := state("WARN"); !strings.Contains(l.Text, "did not finish: connection reset") || strings.Contains(l.Remedy, "repair") {
		t.Errorf("%+v", l)
	}
	logged(part)
	state("OK")

	logged(damage)
	logged(part)
	logged(source.Run{Command: verifying, Status: "partial", Error: "0 damaged, 1 other findings"})
	logged(source.Run{Command: verifying, Status: "interrupted", Days: all, Error: "connection reset"})
	logged(source.Run{Command: string(repairing), Status: "done", Days: daysOf("2024-01-01", "2024-02-01")}) // another month
	logged(source.Run{Command: string(Archive), Status: "done", Days: all})
	if l := state("CRIT"); !strings.Contains(l.Text, "5.0 h ago: 1 damaged") {
		t.Errorf("%+v", l)
	}
	logged(source.Run{Command: string(repairing), Status: "done", Days: february})
	state("WARN") // the last one did not finish
	logged(part)
	state("OK")

	logged(damage)
	logged(part)
	state("CRIT")
	logged(source.Run{Command: verifying, Status: "done", Days: all}) // every byte
	state("OK")

	// What a listing shows the next one would show again.
	damage.Days = utc.Days{}
	logged(damage)
	state("CRIT")
	logged(source.Run{Command: verifying, Status: "interrupted", Error: "connection reset"})
	state("CRIT")
	logged(part)
	state("OK")
}

// The same by the jobs themselves.
func TestStatusVerifyDamage(t *testing.T) {
	w, _, _ := settled(t)
	next := func() { w.now = w.now.Add(time.Minute) }
	verify := func(o VerifyOptions) {
		t.Helper()
		_, err := Verify(t.Context(), w.env(), o)
		w.must(err)
		next()
	}
	state := func(when, want string) {
		t.Helper()
		_, lines := look(t, w.env())
		if l := lines["last-verify"]; string(l.State) != want {
			t.Errorf("%s: %s (%s), want %s", when, l.State, l.Text, want)
		}
	}
	path := w.file("timeseries/2024/02/a.parquet")
	whole, err := os.ReadFile(path)
	w.must(err)
	st, err := os.Stat(path)
	w.must(err)
	put := func(data []byte) { // as a bad disk does: the listing shows nothing
		t.Helper()
		w.must(os.WriteFile(path, data, 0o644))
		w.must(os.Chtimes(path, st.ModTime(), st.ModTime()))
	}
	bad := slices.Clone(whole)
	bad[len(bad)/2] ^= 1

	verify(VerifyOptions{Deep: true})
	state("whole", "OK")
	put(bad)
	verify(VerifyOptions{})
	state("damaged, but a listing does not show it", "OK")
	verify(VerifyOptions{Deep: true, Sample: 99, Turn: 1})
	verify(VerifyOptions{Deep: true, Sample: 99, Turn: 2})
	state("found", "CRIT")
	verify(VerifyOptions{})
	put(whole)
	verify(VerifyOptions{Deep: true, Sample: 1})
	state("mended, and nobody looked at all", "CRIT")
	verify(VerifyOptions{Deep: true, Sample: 100})
	state("every byte read", "OK")

	put(bad)
	verify(VerifyOptions{Deep: true})
	state("found again", "CRIT")
	p, err := PlanRepair(t.Context(), w.env(), RepairOptions{})
	w.must(err)
	if r, err := p.Run(t.Context(), w.env()); err != nil || r.ExitCode() != fault.ExitOK || r.Run == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	next()
	state("repaired", "OK")

	// A store that does not answer is not damaged.
	w.store.Inject(objecttest.On("list", "timeseries/"), objecttest.Fail(fault.Transient))
	if _, err := Verify(t.Context(), w.env(), VerifyOptions{}); err == nil {
		t.Fatal("the fault did not fire")
	}
	next()
	state("the store did not answer", "WARN")
}

type brokenLog struct{ source.Journal }

func (brokenLog) Log(context.Context, source.Run) error { return fault.Errorf(fault.Unavailable, "no") }

func TestStatusOfAPart(t *testing.T) {
	w, _, _ := settled(t)
	hot := "size days-left freshness silent quality runs last-success last-verify"
	all := func(names, state string) string {
		return strings.ReplaceAll(names+" ", " ", "="+state+" ")
	}

	env := w.env()
	env.Store = nil
	r, lines := look(t, env)
	states(t, lines, all("cold growth rejects lag backlog late", "?")+all("size freshness quality runs", "OK"))
	if r.ExitCode(true) == fault.ExitOK { // no verification yet
		t.Error("exit 0")
	}

	env = w.env()
	env.Source, env.Ledger, env.Journal = nil, nil, nil
	r, lines = look(t, env)
	states(t, lines, all(hot+" backlog late", "?")+all("cold growth rejects lag", "OK"))
	if r.ExitCode(true) != fault.ExitOK {
		t.Error("what is not known is no finding")
	}

	// Without the ledger late rows can not be told.
	env = w.env()
	env.Ledger, env.Journal = nil, nil
	_, lines = look(t, env)
	states(t, lines, "late=? backlog=OK runs=OK")

	// An empty database and an empty store.
	e := newWorld(t)
	r, lines = look(t, e.env())
	states(t, lines, all("freshness silent quality days-left growth", "?")+all("size runs backlog late cold rejects", "OK")+"lag=WARN")
	if r.ExitCode(false) != fault.ExitOK {
		t.Errorf("%+v", r)
	}

	// One that lost its rows while the archive has some.
	env = e.env()
	env.Store = w.dir
	e.point("a")
	_, lines = look(t, env)
	states(t, lines, "freshness=CRIT")

	// One that was never migrated.
	path := filepath.Join(t.TempDir(), "bare.sqlite")
	c, err := sqlite.OpenConn(path, sqlite.OpenCreate, sqlite.OpenReadWrite)
	w.must(err)
	w.must(sqlitex.ExecuteScript(c, "CREATE TABLE other (x)", nil))
	w.must(c.Close())
	bare, err := sqlitesource.Open(path, sqlitesource.Options{})
	w.must(err)
	defer bare.Close()
	env = w.env()
	env.Source, env.Ledger, env.Journal = bare, nil, nil
	r, lines = look(t, env)
	states(t, lines, "source=CRIT size=OK freshness=? runs=? cold=OK backlog=?")
	if !strings.Contains(lines["source"].Text, "no table points") || !strings.Contains(lines["source"].Remedy, "etl migrate") || r.ExitCode(false) != fault.ExitError {
		t.Errorf("%+v, exit %d", lines["source"], r.ExitCode(false))
	}

	// Damaged manifests: of the window, and one before it.
	_, err = w.dir.Put(t.Context(), manifests.KeyOf(day("2024-02-01").Month()), []byte("{}"), object.PutOptions{})
	w.must(err)
	r, lines = look(t, w.env())
	states(t, lines, "manifest=CRIT backlog=? late=? cold=OK freshness=OK")
	if r.ExitCode(false) != fault.ExitCorrupt {
		t.Errorf("exit %d", r.ExitCode(false))
	}

	// A store that does not answer.
	w.store.Inject(objecttest.On("list", ""), objecttest.Fail(fault.Transient))
	r, lines = look(t, w.env())
	states(t, lines, "store=CRIT cold=? backlog=? freshness=OK")
	if r.ExitCode(false) == fault.ExitOK || len(r.Failed) != 1 {
		t.Errorf("%+v", r.Failed)
	}
}

// Every statement that status sends to D1 finds its rows by a key: what is scanned is
// billed. Requests do not grow with the points.
func TestStatusSeeks(t *testing.T) {
	w, a, _ := settled(t)
	w.put(a, "2024-02-10 23:00", 1) // ahead of the clock: what is behind it is looked for
	srv := cloudflaretest.Start(t, w.db, cloudflaretest.Options{})
	s := d1.Open(srv.Client(t).Database(cloudflaretest.Database), d1.Options{Now: func() time.Time { return w.now }})
	defer s.Close()
	var sent []string
	srv.On(func(_ int, r cloudflaretest.Request) *cloudflaretest.Fault {
		sent = append(sent, r.SQL...)
		return nil
	})
	env := w.env()
	env.Source, env.Ledger, env.Journal = s, s, s
	r, lines := look(t, env)
	if r.Billed == nil || r.Billed.RowsWritten != 0 || r.Billed.Requests > 12 {
		t.Errorf("billed %+v", r.Billed)
	}
	states(t, lines, "freshness=OK quality=OK backlog=OK late=OK size=OK")
	// The same as of the SQLite file underneath.
	_, of := look(t, w.env())
	for name, l := range of {
		if lines[name].Text != l.Text {
			t.Errorf("%s: %q over REST, %q of the file", name, lines[name].Text, l.Text)
		}
	}
	looked := 0
	for _, q := range sent {
		if strings.HasPrefix(q, "PRAGMA") {
			continue
		}
		var args []any
		if strings.Contains(q, "?1") {
			args = []any{"[1,2]"}
		}
		w.must(sqlitex.Execute(w.conn, "EXPLAIN QUERY PLAN "+q, &sqlitex.ExecOptions{Args: args, ResultFunc: func(st *sqlite.Stmt) error {
			looked++
			detail := st.ColumnText(3)
			for _, table := range []string{"timeseries", "t", "archive_marks", "l"} {
				if detail == "SCAN "+table || strings.HasPrefix(detail, "SCAN "+table+" ") {
					t.Errorf("%s\nscans: %s", q, detail)
				}
			}
			return nil
		}}))
	}
	if looked < 10 {
		t.Errorf("only %d steps of plans were looked at", looked)
	}
}

func TestMeasureLoad(t *testing.T) {
	w, _, _ := settled(t)
	m, err := MeasureLoad(t.Context(), w.env())
	w.must(err)
	if m.Points != 2 || m.SamplesPerDay != 48 || m.HistoryDays != 21 || m.D1Bytes < 4096 || m.SampleBytes <= 0 || m.ColdBytes <= 0 {
		t.Errorf("%+v", m)
	}
	env := w.env()
	env.Source = nil
	if m, err = MeasureLoad(t.Context(), env); err != nil || m.Points != 2 || m.SamplesPerDay != 48 || m.D1Bytes != 0 {
		t.Errorf("of the store alone: %+v, %v", m, err)
	}
	e := newWorld(t)
	e.exec("INSERT INTO points (name, interval_ms) VALUES ('x', 60000), ('y', 0), ('z', 600000)")
	if m, err = MeasureLoad(t.Context(), e.env()); err != nil || m.Points != 3 || m.SamplesPerDay != 1440+144 {
		t.Errorf("by intervals: %+v, %v", m, err)
	}
}

// BenchmarkStatus looks at 2,000 points, a month of hourly rows: the seeks and the
// manifests are what takes the time, not the rows.
func BenchmarkStatus(b *testing.B) {
	w := newWorld(b)
	w.exec("BEGIN")
	for i := range 2000 {
		w.exec("INSERT INTO points (name) VALUES (?)", fmt.Sprintf("p%d", i))
	}
	w.exec(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO timeseries (point_id, timestamp, value) SELECT p.id, ? + n.i * 3600000, n.i FROM points p CROSS JOIN n`, 30*24+1, day("2024-01-11").Start())
	w.exec("COMMIT")
	w.run(ArchiveOptions{Mode: Archive})
	env := w.env()
	for b.Loop() {
		r, err := Status(b.Context(), env, StatusOptions{Limits: DefaultStatusLimits()})
		if err != nil || len(r.Failed) > 0 {
			b.Fatal(err, r.Failed)
		}
	}
}

// Of months before the window only the sums are read, but for the first and the last.
func TestStatusOlderMonths(t *testing.T) {
	w, a, _ := settled(t)
	days := []utc.Days{daysOf("2023-06-10", "2023-06-12"), daysOf("2023-07-10", "2023-07-13"), daysOf("2023-08-10", "2023-08-11")}
	samples := 2.0 * 21 * 24
	for _, d := range days {
		w.fill(a, d)
		w.run(ArchiveOptions{Mode: Backfill, Days: d, Points: Points{Globs: []string{"a"}}})
		samples += float64(d.Len()) * 24
	}
	r, lines := look(t, w.env())
	states(t, lines, "cold=OK growth=OK")
	if got := metric(r, "etl_cold_samples"); got != samples || metric(r, "etl_cold_files") != 7 ||
		metric(r, "etl_cold_first_day_timestamp_seconds") != float64(day("2023-06-10").Start()/1000) || !strings.Contains(lines["cold"].Text, "2023-06-10 to 2024-02-09") {
		t.Errorf("%+v, %g samples, want %g", lines["cold"], got, samples)
	}
	key := manifests.KeyOf(day("2023-07-10").Month())
	data, _, err := w.dir.Get(t.Context(), key)
	w.must(err)
	data = []byte(strings.Replace(string(data), `"samples":72`, `"samples":73`, 1))
	_, err = w.dir.Put(t.Context(), key, data, object.PutOptions{})
	w.must(err)
	r, lines = look(t, w.env())
	states(t, lines, "manifest=CRIT backlog=OK")
	if r.ExitCode(false) != fault.ExitCorrupt || !strings.Contains(lines["manifest"].Remedy, "2023-07") {
		t.Errorf("%+v", lines["manifest"])
	}
}

// What a look asks of the store is what etl cost tells of it, however many months there are.
func TestStatusOperations(t *testing.T) {
	w, a, _ := settled(t)
	months := 1
	for _, d := range []utc.Days{{}, daysOf("2023-06-10", "2023-06-12"), daysOf("2023-07-10", "2023-07-13"), daysOf("2023-08-10", "2023-08-11")} {
		if d.Empty() {
			m, err := manifests.Months(t.Context(), w.dir)
			w.must(err)
			months = len(m)
		} else {
			w.fill(a, d)
			w.run(ArchiveOptions{Mode: Backfill, Days: d, Points: Points{Globs: []string{"a"}}})
			months++
		}
		w.store.Reset()
		look(t, w.env())
		got := make(map[string]float64)
		for _, op := range w.store.Trace() {
			name, _, _ := strings.Cut(op, " ")
			got[name]++
		}
		told := cost.Default().Status(float64(months))
		if want := map[string]float64{"list": told.ClassA, "get": told.ClassB}; !maps.Equal(got, want) {
			t.Errorf("%d months: %v, etl cost tells %v", months, got, want)
		}
	}
}

// Each gauge comes once, however many manifests are damaged: else the whole text file is refused.
func TestStatusMetricsOnce(t *testing.T) {
	w, _, _ := settled(t)
	for _, m := range []string{"2024-01-01", "2024-02-01"} {
		_, err := w.dir.Put(t.Context(), manifests.KeyOf(day(m).Month()), []byte("{}"), object.PutOptions{})
		w.must(err)
	}
	r, err := Status(t.Context(), w.env(), StatusOptions{Limits: DefaultStatusLimits()})
	w.must(err)
	damaged := 0
	for _, l := range r.Lines {
		if l.Name == "manifest" {
			damaged++
		}
	}
	if damaged != 2 {
		t.Fatalf("%d damaged manifests are named, want 2", damaged)
	}
	r.Lines = append(r.Lines, StatusLine{Name: "manifest", State: NotKnown}, StatusLine{Name: "a", State: Good}, StatusLine{Name: "a", State: NotKnown}, StatusLine{Name: "a", State: Warn}, StatusLine{Name: "a", State: Good})
	got := make(map[string][]float64)
	for _, m := range r.Metrics() {
		got[m.Name+m.Label[1]] = append(got[m.Name+m.Label[1]], m.Value)
	}
	for name, values := range got {
		if len(values) != 1 {
			t.Errorf("%s comes %d times", name, len(values))
		}
	}
	if m, a := got["etl_statusmanifest"], got["etl_statusa"]; m[0] != Critical.number() || a[0] != Warn.number() {
		t.Errorf("manifest %v, want the worst, %g; a %v, want %g", m, Critical.number(), a, Warn.number())
	}
}

// An archive of whole years, of which the source had a part: the months at its ends are
// archived without a sample, and none lies in the hot window.
func TestStatusEmptyEnds(t *testing.T) {
	w := newWorld(t)
	a := w.point("a")
	w.fill(a, daysOf("2023-03-10", "2023-03-13"))
	w.fill(a, daysOf("2023-05-01", "2023-05-02"))
	w.fill(a, daysOf("2023-10-01", "2023-10-05"))
	w.backfill("2023-01-01", "2024-01-01")
	w.now = w.now.AddDate(0, 4, 0)
	w.store.Reset()
	r, lines := look(t, w.env())
	states(t, lines, "cold=OK growth=OK")
	if !strings.Contains(lines["cold"].Text, "192 samples") || !strings.Contains(lines["cold"].Text, "2023-03-10 to 2023-10-04") ||
		metric(r, "etl_cold_first_day_timestamp_seconds") != float64(day("2023-03-10").Start()/1000) || metric(r, "etl_cold_last_day_timestamp_seconds") != float64(day("2023-10-04").Start()/1000) {
		t.Errorf("%+v", lines["cold"])
	}
	m, err := MeasureLoad(t.Context(), w.env())
	w.must(err)
	if m.HistoryDays != float64(day("2023-10-05")-day("2023-03-10")) || m.SamplesPerDay != 24 || m.SampleBytes <= 0 {
		t.Errorf("%+v", m)
	}

	// Archived, and no sample anywhere.
	e := newWorld(t)
	e.point("a")
	e.backfill("2023-01-01", "2023-04-01")
	_, lines = look(t, e.env())
	if !strings.Contains(lines["cold"].Text, "empty") {
		t.Errorf("%+v", lines["cold"])
	}
	if m, err = MeasureLoad(t.Context(), e.env()); err != nil || m.HistoryDays != 0 {
		t.Errorf("%+v, %v", m, err)
	}

	// The first month is damaged: the rest is told.
	_, err = w.dir.Put(t.Context(), manifests.KeyOf(day("2023-03-10").Month()), []byte("{}"), object.PutOptions{})
	w.must(err)
	_, lines = look(t, w.env())
	states(t, lines, "cold=OK manifest=CRIT")
	if !strings.Contains(lines["cold"].Text, "120 samples") || !strings.Contains(lines["cold"].Text, "2023-05-01 to 2023-10-04") {
		t.Errorf("%+v", lines["cold"])
	}
}
