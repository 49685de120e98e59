package lake

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/jobs"
	"etl/manifests"
	etlsql "etl/sql"
)

// fleetPoint is a point of a random fleet.
type fleetPoint struct {
	id       int32
	interval *int64
	retired  int64 // MaxInt64 for never
	lo, hi   *float64
}

// mute is the point of a fleet that has no sample in the days first+9 to first+18.
const mute = 6

// fleet makes points of all kinds and their samples, which are late, missing,
// NULL, jittered, bad and spiky at random.
func (w *world) fleet(r *rand.Rand, first, today utc.Day) []fleetPoint {
	var ps []fleetPoint
	for i := range 8 {
		p := fleetPoint{id: w.point(fmt.Sprintf("B%d.P%d", i%2, i), "HVAC"), retired: math.MaxInt64}
		step := []int64{1, 2, 3, 6}[r.IntN(4)] * 3600_000
		kind := r.IntN(4)
		if i < 2 {
			kind = 2 + i // so that there are some of each
		}
		switch kind {
		case 0:
			p.interval = new(int64)
		case 1: // unknown
		case 2:
			p.interval = new(step * 2) // drifts
		default:
			p.interval = &step
		}
		if r.IntN(4) == 0 {
			p.retired = (today - utc.Day(r.IntN(40))).Start() + r.Int64N(utc.DayMillis)
			w.exec("UPDATE points SET retired_at = ? WHERE id = ?", p.retired, p.id)
		}
		if p.interval != nil {
			w.exec("UPDATE points SET interval_ms = ? WHERE id = ?", *p.interval, p.id)
		}
		if i == 0 || r.IntN(2) == 0 {
			p.lo, p.hi = new(-1.0), new(9.0)
			w.exec("UPDATE points SET min_value = -1, max_value = 9 WHERE id = ?", p.id)
		}
		begin := (first + utc.Day(r.IntN(45))).Start()
		if i == mute {
			begin, p.interval, p.retired = first.Start(), &step, math.MaxInt64
			w.exec("UPDATE points SET interval_ms = ?, retired_at = NULL WHERE id = ?", step, p.id)
		}
		ps = append(ps, p)
		if i == 7 {
			continue // has no sample at all
		}
		jitter := []int64{0, 0, 40_000}[r.IntN(3)]
		held, v := i == 1 || r.IntN(3) == 0, 5.5
		w.exec("BEGIN")
		for t := begin; t < w.now.UnixMilli(); t += step {
			if r.IntN(40) == 0 {
				t += r.Int64N(3 * utc.DayMillis) // silent
			}
			if i == mute && t >= (first+9).Start() && t < (first+19).Start() {
				continue
			}
			ts := t
			if jitter > 0 {
				ts += r.Int64N(jitter)
			}
			if !held || r.IntN(60) == 0 {
				v = float64(r.IntN(8)) + []float64{0, 0.25, 0.5}[r.IntN(3)]
			}
			x, q := v, uint8(192)
			switch r.IntN(50) {
			case 0:
				x = null
			case 1:
				x = []float64{400, -50, math.Inf(1), 9}[r.IntN(4)]
			case 2, 3, 4:
				q = uint8(r.IntN(200))
			}
			w.put(p.id, ts, row{x, q, 0})
		}
		w.exec("COMMIT")
	}
	return ps
}

// naiveGaps are the gaps by a model that knows one table alone.
func (w *world) naiveGaps(ps []fleetPoint, from, to int64, tolerance float64, silence int64) []string {
	var out []string
	for _, p := range ps {
		first := int64(math.MaxInt64)
		var ts []int64
		for k, s := range w.truth {
			if k.point != p.id {
				continue
			}
			first = min(first, k.ts)
			if s.value == s.value && k.ts >= from && k.ts < to && k.ts < p.retired {
				ts = append(ts, k.ts)
			}
		}
		begin, end := max(from, first), min(to, p.retired)
		if begin >= end {
			continue
		}
		slices.Sort(ts)
		interval := -1.0
		if p.interval != nil {
			interval = float64(*p.interval)
		} else if len(ts) > 1 {
			var d []float64
			for i := 1; i < len(ts); i++ {
				d = append(d, float64(ts[i]-ts[i-1]))
			}
			sort.Float64s(d)
			interval = (d[(len(d)-1)/2] + d[len(d)/2]) / 2
		}
		long := func(d int64) bool {
			if interval > 0 {
				return float64(d) > tolerance*interval
			}
			return silence > 0 && d > silence
		}
		add := func(kind string, d, less int64, after, before int64) {
			missing := "NULL"
			if interval > 0 {
				missing = strconv.FormatInt(max(0, int64(math.Round(float64(d)/interval))-less), 10)
			}
			out = append(out, fmt.Sprint(p.id, kind, " ", after, " ", before, " ", float64(d)/1000, " ", missing))
		}
		if len(ts) == 0 {
			if long(end-begin) || interval < 0 {
				add("empty", end-begin, 0, 0, 0)
			}
			continue
		}
		if long(ts[0] - begin) {
			add("head", ts[0]-begin, 0, 0, ts[0])
		}
		for i := 1; i < len(ts); i++ {
			if long(ts[i] - ts[i-1]) {
				add("inner", ts[i]-ts[i-1], 1, ts[i-1], ts[i])
			}
		}
		if last := ts[len(ts)-1]; long(end - last) {
			add("tail", end-last, 1, last, 0)
		}
	}
	slices.Sort(out)
	return out
}

func auditGaps(r *jobs.AuditReport) []string {
	var out []string
	for _, g := range r.Gaps {
		at := func(ms *int64) int64 {
			if ms == nil || g.Kind == "empty" {
				return 0
			}
			return *ms
		}
		missing := "NULL"
		if g.Missing != nil {
			missing = strconv.FormatInt(*g.Missing, 10)
		}
		out = append(out, fmt.Sprint(g.PointID, g.Kind, " ", at(g.After), " ", at(g.Before), " ", float64(g.Length)/1000, " ", missing))
	}
	slices.Sort(out)
	return out
}

// namedRows is what a named query answers over the lake.
func (w *world) namedRows(l *Lake, name string, given map[string]string) [][]string {
	w.t.Helper()
	qs := etlsql.Queries()
	q := qs[slices.IndexFunc(qs, func(q etlsql.Query) bool { return q.Name == name })]
	bound, err := q.Bind(given, w.now)
	w.must(err)
	answer, err := l.Rows(w.t.Context(), Query{SQL: q.SQL, Params: bound}, 1_000_000)
	w.must(err)
	var rows [][]string
	for _, c := range answer.Cells {
		row := make([]string, len(c))
		for i := range c {
			row[i] = "NULL"
			if c[i].Valid {
				row[i] = c[i].String
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// milliseconds reads a time as DuckDB writes it.
func milliseconds(t testing.TB, s string) int64 {
	t.Helper()
	if s == "NULL" {
		return 0
	}
	at, err := time.Parse("2006-01-02 15:04:05.999", s)
	if err != nil {
		t.Fatal(err)
	}
	return at.UnixMilli()
}

func (w *world) auditEnv() jobs.Env {
	return jobs.Env{Source: w.src, Ledger: w.src, Now: func() time.Time { return w.now }}
}

// TestAuditModel plays random histories and holds the audit against the naive model
// and against @gaps and the rules in SQL over the same lake.
func TestAuditModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("ETL_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("seed %d (ETL_SEED)", seed)
	found, suspects := map[string]int{}, map[string]int{}
	fleets := 6
	if testing.Short() {
		fleets = 2
	}
	for n := range fleets {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		w := newWorld(t)
		first, today := day("2024-01-10"), utc.DayOfTime(w.now)
		ps := w.fleet(r, first, today)
		for round := range 6 {
			switch r.IntN(4) {
			case 0:
				w.job(jobs.ArchiveOptions{Mode: jobs.Archive})
			case 1:
				from := first + utc.Day(r.IntN(int(today-first)))
				w.archive(from, min(today, from+1+utc.Day(r.IntN(40))), []string{"*", "B0.*", "B1.*"}[r.IntN(3)])
			case 2: // retention
				for e := first; e < today-1; e++ {
					if r.IntN(3) > 0 {
						w.trim(1+r.Int32N(7), e)
					}
				}
			default: // late and corrected rows, which the hot tier alone has
				for range 5 {
					p := ps[r.IntN(7)]
					ts := (today - utc.Day(r.IntN(30))).Start() + r.Int64N(24)*3600_000
					if ts < w.now.UnixMilli() {
						w.put(p.id, ts, row{[]float64{null, 5}[r.IntN(2)], 192, 0})
					}
				}
			}
			from := first - 2 + utc.Day(r.IntN(int(today-first)))
			to := min(today+1, from+1+utc.Day(r.IntN([]int{2, 50, 50}[r.IntN(3)])))
			if round == 5 {
				from, to = first+10, first+18 // one is mute
			}
			tolerance, silence := []float64{1.5, 1, 3}[r.IntN(3)], []time.Duration{0, 0, 36 * time.Hour}[r.IntN(3)]
			zone := []*time.Location{time.UTC, time.UTC, newYork(t)}[r.IntN(3)]
			o := jobs.AuditOptions{Days: utc.Days{From: from, To: to}, Zone: zone, Tolerance: tolerance, MaxSilence: silence, Rules: []string{},
				Limits: jobs.RuleLimits{Flatline: 12 * time.Hour, Spike: 5, Bad: new(0.01), Drift: new(0.05)}}
			if round%2 == 1 {
				o.Rules = jobs.AuditRules
			}
			report, err := jobs.Audit(t.Context(), w.auditEnv(), w.lake, o)
			w.must(err)
			a, z := report.From.UnixMilli(), report.To.UnixMilli()
			got, want := auditGaps(report), w.naiveGaps(ps, a, z, tolerance, silence.Milliseconds())
			what := fmt.Sprintf("fleet %d: %s to %s, tolerance %g, silence %s, rules %v", n, report.From, report.To, tolerance, silence, o.Rules)
			if !slices.Equal(got, want) {
				t.Fatalf("%s\n%s", what, diff(got, want))
			}
			for _, g := range report.Gaps {
				found[g.Kind]++
			}
			w.naiveDays(report, ps)

			given := map[string]string{"from": report.From.Format("2006-01-02T15:04:05.000Z"), "to": report.To.Format("2006-01-02T15:04:05.000Z"), "since": "2023-01-01",
				"tolerance": strconv.FormatFloat(tolerance, 'g', -1, 64)}
			if silence > 0 {
				given["silence"] = "36h"
			}
			var oracle []string
			for _, c := range w.namedRows(w.lake, "gaps", given) {
				seconds, err := strconv.ParseFloat(c[4], 64)
				w.must(err)
				oracle = append(oracle, fmt.Sprint(c[0], c[7], " ", milliseconds(t, c[2]), " ", milliseconds(t, c[3]), " ", seconds, " ", c[6]))
			}
			slices.Sort(oracle)
			if !slices.Equal(got, oracle) {
				t.Fatalf("@gaps, %s\n%s", what, diff(got, oracle))
			}
			if len(o.Rules) > 0 {
				for rule, n := range w.sameRules(report, given) {
					suspects[rule] += n
				}
			}
		}
	}
	t.Logf("gaps %v, suspects %v", found, suspects)
	for _, kind := range []string{"inner", "head", "tail", "empty"} {
		if found[kind] == 0 && fleets > 2 {
			t.Errorf("no gap of kind %s was met", kind)
		}
	}
	for _, rule := range jobs.AuditRules {
		if suspects[rule] == 0 && fleets > 2 {
			t.Errorf("nothing was met for the rule %s", rule)
		}
	}
}

func newYork(t testing.TB) *time.Location {
	z, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// naiveDays holds the days of a report against the truth.
func (w *world) naiveDays(r *jobs.AuditReport, ps []fleetPoint) {
	w.t.Helper()
	total := int64(0)
	for i, p := range r.Points {
		if len(p.Days) != len(r.DayStarts)-1 {
			w.t.Fatalf("%s has %d days of %d", p.Name, len(p.Days), len(r.DayStarts)-1)
		}
		for d, got := range p.Days {
			from, to := max(r.DayStarts[d], p.From), min(r.DayStarts[d+1], p.To)
			n := int32(0)
			for k, s := range w.truth {
				if k.point == ps[i].id && s.value == s.value && k.ts >= from && k.ts < to {
					n++
				}
			}
			total += int64(n)
			if got.Present != n || (got.State == jobs.DayOutside) != (from >= to) || n > 0 && (got.State == jobs.DayEmpty || got.State == jobs.DayNotArchived) ||
				n == 0 && (got.State == jobs.DayWhole || got.State == jobs.DayHoles || got.State == jobs.DaySome) {
				w.t.Fatalf("%s, day from %s: %+v, want %d readings", p.Name, time.UnixMilli(r.DayStarts[d]).UTC(), got, n)
			}
		}
	}
	if total != r.Coverage.Present {
		w.t.Fatalf("%d readings, want %d", r.Coverage.Present, total)
	}
}

// sameRules holds the findings of a report against those of the rules in SQL.
func (w *world) sameRules(r *jobs.AuditReport, given map[string]string) map[string]int {
	w.t.Helper()
	met := map[string]int{}
	number := func(s string) float64 {
		f, err := strconv.ParseFloat(s, 64)
		w.must(err)
		return f
	}
	for _, rule := range []struct {
		rule, query string
		params      map[string]string
		value       int // its column
	}{
		{"flatline", "flatlines", map[string]string{"least": "12h"}, 5},
		{"spike", "spikes", map[string]string{"score": "5"}, 5},
		{"range", "out-of-range", nil, 5},
		{"quality", "bad-share", map[string]string{"share": "0.01"}, 5},
		{"drift", "interval-drift", map[string]string{"drift": "0.05"}, 5},
	} {
		params := map[string]string{"from": given["from"], "to": given["to"]}
		for k, v := range rule.params {
			params[k] = v
		}
		var got, want []string
		values := map[string][2]float64{}
		for _, c := range w.namedRows(w.lake, rule.query, params) {
			key := fmt.Sprint(c[0], " ", milliseconds(w.t, c[2]), " ", milliseconds(w.t, c[3]), " ", c[4])
			want = append(want, key)
			values[key] = [2]float64{number(c[rule.value]), 0}
		}
		for _, s := range r.Quality {
			if s.Rule != rule.rule {
				continue
			}
			met[rule.rule]++
			key := fmt.Sprint(s.PointID, " ", s.From, " ", s.To, " ", s.Samples)
			got = append(got, key)
			v := min(max(values[key][0], -math.MaxFloat64), math.MaxFloat64)
			if d := math.Abs(v - s.Value); v != s.Value && !(d <= 1e-9*math.Abs(v)) {
				w.t.Errorf("%s of point %d: %g, the SQL says %g", rule.rule, s.PointID, s.Value, v)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			w.t.Fatalf("rule %s, %v\n%s", rule.rule, params, diff(got, want))
		}
	}
	return met
}

// TestAuditDamage: a damaged month file and a damaged manifest are named, what
// they hold is no gap, and the rest is audited.
func TestAuditDamage(t *testing.T) {
	w := newWorld(t)
	a, b := w.point("a", ""), w.point("b", "")
	w.exec("UPDATE points SET interval_ms = 3600000")
	from, to := day("2023-12-01"), day("2024-03-09")
	w.fill(a, from, to, 24)
	w.fill(b, from, to, 24)
	w.archive(from, to)
	m := utc.MonthOf(2024, 1)
	man, _, err := manifests.Load(t.Context(), w.dir, m)
	w.must(err)
	path := filepath.Join(w.root, string(man.Entry(a).Path))
	w.must(os.Chmod(path, 0o644))
	w.must(os.WriteFile(path, []byte("PAR1 nothing of it is left PAR1"), 0o644))
	audit := func() *jobs.AuditReport {
		t.Helper()
		r, err := jobs.Audit(t.Context(), w.auditEnv(), w.open(w.options()), jobs.AuditOptions{Days: utc.Days{From: from, To: to}})
		w.must(err)
		return r
	}
	r := audit()
	if r.ExitCode() != fault.ExitCorrupt || len(r.Failed) != 1 || r.Failed[0].PointID != a || r.Failed[0].Month != "2024-01" || r.Failed[0].Hint == "" {
		t.Fatalf("exit %d, failed %+v", r.ExitCode(), r.Failed)
	}
	if len(r.Gaps) != 0 || r.Points[0].Present != (99-31)*24 || r.Points[1].Present != 99*24 || *r.Points[0].Expected != (99-31)*24 {
		t.Fatalf("gaps %+v, %d and %d present", r.Gaps, r.Points[0].Present, r.Points[1].Present)
	}
	for d, x := range r.Points[0].Days {
		if bad := (from + utc.Day(d)).Month() == m; (x.State == jobs.DayUnread) != bad {
			t.Fatalf("%s is %s", from+utc.Day(d), x.State)
		}
	}

	// A manifest: the month is unknown for both, and nothing of it is read from the hot tier.
	w.must(os.Chmod(filepath.Join(w.root, string(manifests.KeyOf(m+1))), 0o644))
	w.must(os.WriteFile(filepath.Join(w.root, string(manifests.KeyOf(m+1))), []byte(`{"format":`), 0o644))
	r = audit()
	if r.ExitCode() != fault.ExitCorrupt || len(r.Failed) != 2 || len(r.Gaps) != 0 || r.Points[1].Present != (99-29)*24 {
		t.Fatalf("exit %d, failed %+v, gaps %+v, present %d", r.ExitCode(), r.Failed, r.Gaps, r.Points[1].Present)
	}
	fast, err := jobs.Audit(t.Context(), w.auditEnv(), w.open(w.options()), jobs.AuditOptions{Days: utc.Days{From: from, To: to}, Fast: true})
	w.must(err)
	if fast.ExitCode() != fault.ExitCorrupt || fast.Coverage.Present != 2*(99-29)*24 || fast.Coverage.Missing != 0 {
		t.Fatalf("fast: exit %d, %+v", fast.ExitCode(), fast.Coverage)
	}
}

// TestAuditFast: days never archived, archived empty, and with holes are told
// apart by the manifests, and neither a month file nor a hot row is read.
func TestAuditFast(t *testing.T) {
	w := newWorld(t)
	p := w.point("p", "")
	w.exec("UPDATE points SET interval_ms = 3600000")
	from, to := day("2024-02-01"), day("2024-02-11")
	w.fill(p, from, from+3, 24)
	w.fill(p, from+3, from+4, 12) // holes
	w.fill(p, from+5, to, 24)     // and a day without any
	w.archive(from, from+7)
	w.put(p, from.Start()+1, row{null, 192, 0}) // late, and not archived
	w.store.Reset()
	read := 0
	o := w.options()
	o.Source, o.Ledger = counting{w.src, &read}, nil
	r, err := jobs.Audit(t.Context(), w.auditEnv(), w.open(o), jobs.AuditOptions{Days: utc.Days{From: from - 2, To: to}, Fast: true})
	w.must(err)
	var states []string
	for _, d := range r.Points[0].Days {
		states = append(states, fmt.Sprint(d.State, ":", d.Present))
	}
	want := "outside:0 outside:0 whole:24 whole:24 whole:24 holes:12 empty:0 whole:24 whole:24 not archived:0 not archived:0 not archived:0"
	if got := strings.Join(states, " "); got != want {
		t.Errorf("days\n%s, want\n%s", got, want)
	}
	c := r.Coverage
	if c.Expected != 7*24 || c.Present != 5*24+12 || c.Missing != 24+12 || c.NotArchived != 3 || c.Empty != 1 || c.Holes != 1 || c.Whole != 5 || len(r.Gaps) != 0 {
		t.Errorf("%+v", c)
	}
	if read != 0 {
		t.Errorf("%d reads of the hot tier", read)
	}
	for _, line := range w.store.Trace() {
		if strings.Contains(line, "timeseries/") {
			t.Errorf("a month file was touched: %s", line)
		}
	}
	// With the hot tier the days are there.
	full, err := jobs.Audit(t.Context(), w.auditEnv(), w.lake, jobs.AuditOptions{Days: utc.Days{From: from, To: to}})
	w.must(err)
	if c := full.Coverage; c.NotArchived != 0 || c.Present != 8*24+12 || c.Missing != 36 {
		t.Errorf("%+v", c)
	}
}

// counting counts the reads of a source.
type counting struct {
	hotTier
	n *int
}

func (c counting) Read(ctx context.Context, q source.Query, f func(*sample.Batch) error) (source.Stats, error) {
	*c.n++
	return c.hotTier.Read(ctx, q, f)
}

// TestAuditChunks: where the hot tier holds more rows than are to be held at once, the
// points go in parts, and no part is told twice.
func TestAuditChunks(t *testing.T) {
	w := newWorld(t)
	for i := range 7 {
		w.fill(w.point(fmt.Sprint("p", i), ""), day("2024-03-01"), day("2024-03-08"), 24)
	}
	w.exec("UPDATE points SET interval_ms = 3600000")
	defer func(n int64) { hotChunk = n }(hotChunk)
	hotChunk = 400
	read := 0
	o := w.options()
	o.Source = counting{w.src, &read}
	r, err := jobs.Audit(t.Context(), w.auditEnv(), w.open(o), jobs.AuditOptions{Days: utc.Days{From: day("2024-03-01"), To: day("2024-03-08")}})
	w.must(err)
	if r.Coverage.Present != 7*7*24 || len(r.Gaps) != 0 || read < 3 {
		t.Errorf("%+v, %d reads", r.Coverage, read)
	}
}

// TestAuditUnreadHistory: a damaged manifest does not take the silences that may follow
// its month out of the coverage, whether the month lies in the range or before it; of
// points that can have no sample in it nothing is made up.
func TestAuditUnreadHistory(t *testing.T) {
	w := newWorld(t)
	w.now = time.Date(2024, 6, 15, 12, 0, 0, 0, time.UTC)
	jan, feb, end := day("2024-01-01"), day("2024-02-01"), day("2024-03-01")
	whole, silent, later, imported := w.point("whole", ""), w.point("silent", ""), w.point("later", ""), w.point("imported", "")
	mute, old := w.point("mute", ""), w.point("old", "")
	w.exec("UPDATE points SET interval_ms = 3600000")
	for id, d := range map[int32]utc.Day{whole: jan, silent: jan, later: feb + 9, imported: end + 9, mute: feb + 9, old: jan} {
		w.exec("UPDATE points SET created_at = ? WHERE id = ?", d.Start(), id)
	}
	w.fill(whole, jan, end, 24)
	w.fill(silent, jan, feb, 24)
	w.fill(silent, feb+19, end, 24)
	w.fill(later, feb+11, end, 24)
	w.fill(imported, feb+19, end, 24)
	w.archive(jan, end)
	w.exec("DELETE FROM timeseries")
	key := filepath.Join(w.root, string(manifests.KeyOf(utc.MonthOf(2024, 1))))
	w.must(os.Chmod(key, 0o644))
	w.must(os.WriteFile(key, []byte(`{"format":`), 0o644))
	audit := func(from utc.Day, fast bool, globs ...string) *jobs.AuditReport {
		t.Helper()
		r, err := jobs.Audit(t.Context(), w.auditEnv(), w.open(w.options()),
			jobs.AuditOptions{Days: utc.Days{From: from, To: end}, Fast: fast, Rules: []string{}, Points: jobs.Points{Globs: globs}})
		w.must(err)
		return r
	}
	named := func(r *jobs.AuditReport) bool { return len(r.Failed) == 1 && r.Failed[0].Month == "2024-01" }
	for _, from := range []utc.Day{feb, jan} {
		r := audit(from, false)
		if r.ExitCode() != fault.ExitCorrupt || !named(r) {
			t.Errorf("from %s: exit %d, failed %+v", from, r.ExitCode(), r.Failed)
		}
		var gaps []string
		for _, g := range r.Gaps {
			gaps = append(gaps, fmt.Sprintf("%s %s %s to %s", g.Point, g.Kind, utc.DayOf(g.From), utc.DayOf(g.To)))
		}
		want := []string{"silent head 2024-02-01 to 2024-02-20", "imported head 2024-02-01 to 2024-02-20", "old empty 2024-02-01 to 2024-03-01"}
		if !slices.Equal(gaps, want) {
			t.Errorf("from %s: gaps %q, want %q", from, gaps, want)
		}
		for i, want := range map[int]jobs.DayState{0: jobs.DayUnread, 1: jobs.DayUnread, 2: jobs.DayOutside, 3: jobs.DayUnread, 4: jobs.DayOutside, 5: jobs.DayUnread} {
			for d := from; d < end; d++ {
				got := r.Points[i].Days[d-from].State
				if d < feb && got != want || d >= feb && got == jobs.DayUnread {
					t.Fatalf("from %s: %s of %s is %s", from, d, r.Points[i].Name, got)
				}
			}
		}
		if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "never had a sample in either tier: 1;") {
			t.Errorf("from %s: %q", from, r.Warnings)
		}
	}
	if r := audit(feb, true); r.ExitCode() != fault.ExitCorrupt || !named(r) || r.Points[1].Missing != 19*24 || r.Points[2].Missing != 0 || r.Points[5].Missing != 29*24 {
		t.Errorf("fast: exit %d, failed %+v, %d, %d and %d missing", r.ExitCode(), r.Failed, r.Points[1].Missing, r.Points[2].Missing, r.Points[5].Missing)
	}
	// Where it makes no difference it is none of the audit's business.
	if r := audit(feb, false, "whole", "later", "mute"); r.ExitCode() != fault.ExitOK || len(r.Failed) != 0 || len(r.Gaps) != 0 {
		t.Errorf("exit %d, failed %+v, gaps %+v", r.ExitCode(), r.Failed, r.Gaps)
	}
}
