package jobs

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/object/objecttest"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/manifests"
)

var replay = flag.Uint64("seed", 0, "the first seed of the model; 0 is one of the time with -thorough, else 1")

// TestModel plays random histories of two tiers and a replica against a map that
// holds the truth: samples that arrive in order, late, or as corrections and that
// are refused; every job, on all or a part, one at a time or up to four beside each other;
// days that retention trims and rows that are deleted on purpose; jobs that are cut
// off and operations that fail; clocks that are wrong and jump; damaged files, of
// which another copy is left. After each step a reader, by the rules of docs/format.md,
// sees the truth. In the end a quiet run of each job leaves every sample once where it
// belongs.
func TestModel(t *testing.T) {
	histories, steps, base := 4, 40, uint64(1)
	switch {
	case *thorough:
		histories, steps, base = 120, 50, uint64(time.Now().UnixNano()%1_000_000_000)
	case testing.Short():
		histories = 2
	}
	if *replay != 0 {
		base = *replay
	}
	t.Logf("seeds from %d", base)
	var sum tallies
	t.Run("histories", func(t *testing.T) {
		for i := range histories {
			t.Run(fmt.Sprintf("seed %d", base+uint64(i)), func(t *testing.T) {
				t.Parallel()
				newTale(t, base+uint64(i), &sum).play(steps)
			})
		}
	})
	reliability(t, "model histories", int64(histories), "histories, seeds from %d", base)
	reliability(t, "model steps", sum.steps.Load(), "steps, with %d runs of a job", sum.runs.Load())
	reliability(t, "model crashes", sum.crashes.Load(), "runs cut off at a random operation of the store or call of the source, %d more in which one failed", sum.faults.Load())
	reliability(t, "model runners", sum.groups.Load(), "times two to four jobs at once, rows arriving")
	reliability(t, "model clocks", sum.jumps.Load(), "runs by a wrong clock, an hour to six years, half of which jumped in the middle")
	reliability(t, "model damages", sum.damages.Load(), "files and manifests damaged, found and mended")
}

// tallies counts what was tried.
type tallies struct{ steps, runs, crashes, faults, groups, jumps, damages atomic.Int64 }

// tale is one history.
type tale struct {
	*world
	sum     *tallies
	rng     *rand.Rand
	at      time.Time // what time it is; world.now is what the source takes it for
	first   utc.Day   // that has samples
	ids     []int32
	truth   map[key]row
	deleted map[key]bool // on purpose; a replica may have them still
	replica *world
	log     []string // what happened, told when it went wrong
}

func newTale(t *testing.T, seed uint64, sum *tallies) *tale {
	m := &tale{world: newWorld(t), sum: sum, rng: rand.New(rand.NewPCG(seed, 7)), at: time.Date(2024, 3, 8, 2, 0, 0, 0, time.UTC),
		truth: make(map[key]row), deleted: make(map[key]bool), first: day("2024-01-28")}
	m.now = m.at
	// It fires at random, and not by the seed; trim stands for it.
	m.exec("DROP TRIGGER tr_timeseries_retention")
	_, m.replica = m.replicaOf()
	for i := range 4 {
		m.ids = append(m.ids, m.point(fmt.Sprintf("p%d", i)))
	}
	m.exec("BEGIN")
	for _, p := range m.ids {
		for d := m.first; d < m.today(); d++ {
			for range m.rng.IntN(5) {
				m.put(m.sample(p, d))
			}
		}
	}
	m.exec("COMMIT")
	m.settle(m.archiveAll())
	return m
}

func (m *tale) today() utc.Day { return utc.DayOfTime(m.at) }

// span is every day that may have a sample.
func (m *tale) span() utc.Days { return utc.Days{From: m.first, To: m.today() + 1} }

func (m *tale) anyDay() utc.Day { return m.first + utc.Day(m.rng.IntN(m.span().Len())) }

// anyRange is a range of days before to.
func (m *tale) anyRange(to utc.Day) utc.Days {
	n := int(to - m.first)
	a, b := m.rng.IntN(n), m.rng.IntN(n)
	return utc.Days{From: m.first + utc.Day(min(a, b)), To: m.first + utc.Day(max(a, b)) + 1}
}

// anyPoints are all, or one.
func (m *tale) anyPoints() (p Points) {
	if m.rng.IntN(3) == 0 {
		p.Globs = []string{fmt.Sprintf("p%d", m.rng.IntN(len(m.ids)))}
	}
	return p
}

// sample draws one of a day.
func (m *tale) sample(p int32, d utc.Day) (key, float64) {
	return key{p, d.Start() + m.rng.Int64N(96)*900_000}, float64(m.rng.IntN(1000)) / 7
}

// put upserts a sample, which is the truth from now on.
func (m *tale) put(k key, v float64) {
	m.exec("INSERT OR REPLACE INTO timeseries (point_id, timestamp, value) VALUES (?, ?, ?)", k.point, k.ts, v)
	s := sample.Series{Value: []float64{v}, Quality: []uint8{192}, Flags: []uint16{0}}
	m.truth[k] = rowOf(&s, 0)
	delete(m.deleted, k)
}

// clock is a runner's: right, wrong, or one that jumps.
func (m *tale) clock() (now func() time.Time, right bool) {
	if m.rng.IntN(3) > 0 {
		return func() time.Time { return m.at }, true
	}
	off := func() time.Duration {
		d := []time.Duration{time.Hour, 24 * time.Hour, 365 * 24 * time.Hour}[m.rng.IntN(3)]
		d = time.Duration(1+m.rng.IntN(6)) * d
		if m.rng.IntN(2) == 0 {
			return -d
		}
		return d
	}
	before, after, turn := off(), time.Duration(0), int64(1+m.rng.IntN(6))
	if after = before; m.rng.IntN(2) == 0 {
		after = off()
	}
	m.sum.jumps.Add(1)
	var asked atomic.Int64
	return func() time.Time {
		if asked.Add(1) > turn {
			return m.at.Add(after)
		}
		return m.at.Add(before)
	}, false
}

// task is a job with its options, drawn beforehand so that it can run beside others.
type task struct {
	name string
	do   func(ctx context.Context, env Env) (code int, err error)
}

// run lets a task run by some clock, with or without a fault. It reports whether
// nothing was in its way, so that it has to end well.
func (m *tale) run(k task, faulty, clocks bool) func() (code int, err error, quiet bool) {
	env := m.env()
	env.Notify = nil
	store := objecttest.NewFaults(m.dir)
	hot := &tier{&flaky{Source: m.src, Ledger: m.src, kind: fault.Transient}, m.src}
	env.Store, env.Source, env.Ledger, env.Journal = store, hot, hot, hot
	quiet := true
	env.Now = func() time.Time { return m.at }
	if clocks {
		env.Now, quiet = m.clock()
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	hit := func() bool { return false }
	crash := false
	if faulty {
		quiet = false
		n := 1 + m.rng.IntN(30)
		crash = m.rng.IntN(3) > 0
		if m.rng.IntN(3) == 0 {
			hot.failAt, hot.late = 1+n/2, m.rng.IntN(2) == 0
			if crash {
				hot.cancel = cancel
			}
			hit = func() bool { return hot.fired != "" }
		} else {
			action := []objecttest.Action{objecttest.Fail(fault.Transient), objecttest.Fail(fault.Unavailable), objecttest.LoseReply()}[m.rng.IntN(3)]
			if crash {
				action = []objecttest.Action{objecttest.Before(cancel), objecttest.After(cancel)}[m.rng.IntN(2)]
			}
			store.Inject(objecttest.At(n), action)
			hit = func() bool { return len(store.Fired()) > 0 }
		}
	}
	return func() (int, error, bool) {
		defer cancel()
		code, err := k.do(ctx, env)
		m.sum.runs.Add(1)
		switch {
		case hit() && crash:
			m.sum.crashes.Add(1)
		case hit():
			m.sum.faults.Add(1)
		}
		return code, err, quiet && m.now.Equal(m.at)
	}
}

// act runs a task alone; where nothing was in its way it has to end well.
func (m *tale) act(k task, faulty bool) {
	code, err, quiet := m.run(k, faulty, true)()
	m.note("%s: exit %d, %v", k.name, code, err)
	if quiet && (err != nil || code != fault.ExitOK) {
		m.t.Errorf("%s with nothing in its way: exit %d, %v", k.name, code, err)
	}
}

// settle runs a task by the right clock and without a fault.
func (m *tale) settle(k task) {
	was := m.now
	m.now = m.at
	code, err, _ := m.run(k, false, false)()
	m.now = was
	m.note("%s, again: exit %d, %v", k.name, code, err)
	if err != nil || code != fault.ExitOK {
		m.t.Errorf("%s, run again: exit %d, %v", k.name, code, err)
	}
}

func (m *tale) note(format string, a ...any) { m.log = append(m.log, fmt.Sprintf(format, a...)) }

func (m *tale) archive(mode Mode) task {
	o := ArchiveOptions{Mode: mode, Points: m.anyPoints()}
	if mode != Archive {
		o.Days = m.anyRange(firstIncomplete(m.at, Grace))
	}
	stateless := m.rng.IntN(12) == 0
	return task{fmt.Sprintf("%s %v of %v, without the ledger: %t", mode, o.Days, o.Points.Globs, stateless), func(ctx context.Context, env Env) (int, error) {
		if stateless {
			env.Ledger, env.Journal = nil, nil
		}
		p, err := PlanArchive(ctx, env, o)
		if err != nil {
			return 0, err
		}
		r, err := p.Run(ctx, env)
		return r.ExitCode(false), err
	}}
}

func (m *tale) pruning() task {
	o := PruneOptions{Points: m.anyPoints(), OlderThan: 1 + m.rng.IntN(35), chunk: int64(1 + m.rng.IntN(40))}
	return task{fmt.Sprintf("prune older than %d of %v", o.OlderThan, o.Points.Globs), func(ctx context.Context, env Env) (int, error) {
		r, err := m.tryPrune(ctx, env, o)
		return r.ExitCode(), err
	}}
}

func (m *tale) restoring(overwrite bool) (task, RestoreOptions) {
	o := RestoreOptions{Days: m.anyRange(m.today() + 1), Points: m.anyPoints(), Overwrite: overwrite, MarkOld: m.rng.IntN(2) == 0, chunk: int64(1 + m.rng.IntN(40))}
	return task{fmt.Sprintf("restore %v of %v, overwrite %t, mark old %t", o.Days, o.Points.Globs, overwrite, o.MarkOld), func(ctx context.Context, env Env) (int, error) {
		r, err := m.tryRestore(ctx, env, o)
		return r.ExitCode(), err
	}}, o
}

func (m *tale) copying(prune bool) task {
	return task{fmt.Sprintf("replicate, prune the destination %t", prune), func(ctx context.Context, env Env) (int, error) {
		p, err := PlanReplicate(ctx, env, m.replica.dir, ReplicateOptions{Prune: prune})
		if err != nil {
			return 0, err
		}
		if err := p.Err(); err != nil {
			return 0, err
		}
		r, err := p.Run(ctx, env)
		if err == nil && len(r.Pending) > 0 && r.ExitCode() == fault.ExitFindings {
			return 0, nil // a run that was cut off left them; the next archive commits them
		}
		return r.ExitCode(), err
	}}
}

func (m *tale) repairing() task {
	return task{"repair", func(ctx context.Context, env Env) (int, error) {
		p, err := PlanRepair(ctx, env, RepairOptions{Replica: m.replica.dir})
		if err != nil {
			return 0, err
		}
		r, err := p.Run(ctx, env)
		return r.ExitCode(), err
	}}
}

// verifying raises no alarm, whatever else is at work and whatever the clock says.
func (m *tale) verifying() task {
	o := VerifyOptions{Deep: m.rng.IntN(2) == 0}
	if m.rng.IntN(2) == 0 {
		o.Against = []Against{AgainstRows, AgainstCounts}[m.rng.IntN(2)]
		o.Days = m.anyRange(m.today())
	}
	return task{fmt.Sprintf("verify, deep %t, %s %v", o.Deep, o.Against, o.Days), func(ctx context.Context, env Env) (int, error) {
		r, err := Verify(ctx, env, o)
		for _, f := range r.Findings {
			switch {
			case f.Severity == Info || f.Code == "pending" || f.Code == "empty":
			case f.Code == "unreadable" && strings.Contains(f.Text, "injected"):
			case f.Code == "manifest" && f.Severity == Notice: // as pending: old by a clock that is years ahead
			case strings.HasPrefix(f.Code, "source-") && !strings.Contains(f.Text, "the ledger marks"): // late, out of the hot window
			default:
				m.t.Errorf("a false alarm of %+v: %+v", o, f)
			}
		}
		return 0, err
	}}
}

// anyTask is one that changes nothing of the truth.
func (m *tale) anyTask() task {
	switch m.rng.IntN(9) {
	case 0, 1:
		return m.archive(Archive)
	case 2:
		return m.archive(Backfill)
	case 3:
		return m.archive(Rearchive)
	case 4, 5:
		return m.pruning()
	case 6:
		k, _ := m.restoring(false)
		return k
	case 7:
		return m.copying(false)
	default:
		return m.verifying()
	}
}

// play lets steps happen and then settles.
func (m *tale) play(steps int) {
	defer func() {
		if m.t.Failed() {
			m.t.Logf("what happened:\n%s", strings.Join(m.log, "\n"))
		}
	}()
	m.t.Logf("begins on %s", m.at.Format(time.RFC3339))
	for range steps {
		m.step()
		m.sum.steps.Add(1)
		m.check(nil)
		if m.t.Failed() {
			return
		}
	}
	m.end()
}

// check compares what a reader sees with the truth; what is doubtful may be there or not.
func (m *tale) check(doubtful map[key]bool) {
	m.t.Helper()
	got := m.federated(m.ids, m.span())
	want := m.truth
	if len(doubtful) > 0 {
		want = maps.Clone(want)
		for k := range doubtful {
			delete(want, k)
			delete(got, k)
		}
	}
	if !maps.Equal(got, want) {
		sameRows(m.t, got, want)
		m.t.Errorf("after %s: what can be read is not the truth", m.log[len(m.log)-1])
	}
}

func (m *tale) step() {
	if m.rng.IntN(3) == 0 {
		m.at = m.at.Add(time.Duration(m.rng.IntN(12)) * time.Hour)
	}
	m.now = m.at
	if m.rng.IntN(15) == 0 { // the source's own clock
		m.now = m.at.Add(time.Duration(m.rng.IntN(21)-10) * 19 * time.Hour)
	}
	faulty := m.rng.IntN(3) == 0
	switch n := m.rng.IntN(40); {
	case n < 9:
		m.samples()
	case n < 12:
		m.act(m.archive(Archive), faulty)
	case n < 14:
		m.act(m.archive(Backfill), faulty)
	case n < 16:
		m.act(m.archive(Rearchive), faulty)
	case n < 18:
		m.trim()
	case n < 21:
		m.prunes(faulty)
	case n < 23:
		k, _ := m.restoring(false)
		m.act(k, faulty)
	case n < 25:
		m.overwrites(faulty)
	case n < 27:
		m.replaces(faulty)
	case n < 29:
		m.copies(faulty)
	case n < 30:
		m.act(m.verifying(), faulty)
	case n < 31:
		m.act(m.repairing(), faulty)
		m.resurrected()
	case n < 35:
		m.harm(faulty)
	default:
		m.together()
	}
}

// samples lets rows arrive, of today or of any day, new ones and corrections.
func (m *tale) samples() {
	p, d := m.ids[m.rng.IntN(len(m.ids))], m.anyDay()
	n := 1 + m.rng.IntN(20)
	for range n {
		m.put(m.sample(p, d))
	}
	m.note("%d samples of point %d, %s", n, p, d)
	if m.rng.IntN(6) == 0 { // at an instant of its own, so that no sample replaces it
		m.exec("INSERT OR REPLACE INTO timeseries (point_id, timestamp, value) VALUES (?, ?, x'00')", p, d.Start()+420_000)
		m.note("a row of it that no sample can hold")
	}
}

// trim takes a marked day out of the hot tier, as the retention trigger does.
func (m *tale) trim() {
	d, p := m.anyDay(), m.ids[m.rng.IntN(len(m.ids))]
	if m.mark(p, d) != "marked" || !m.holds(p, d) {
		return
	}
	m.note("trimmed: point %d, %s", p, d)
	m.exec("BEGIN")
	m.exec("INSERT INTO archive_trims SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM archive_trims WHERE point_id = ?1 AND day = ?2)", p, int64(d))
	m.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp >= ? AND timestamp < ?", p, d.Start(), d.End())
	m.exec("UPDATE archive_marks SET done = 2 WHERE point_id = ? AND day = ?", p, int64(d))
	m.exec("COMMIT")
}

// holds reports whether the hot tier has a row of the day.
func (m *tale) holds(p int32, d utc.Day) bool {
	for k := range m.hot(utc.Days{From: d, To: d + 1}) {
		if k.point == p {
			return true
		}
	}
	return false
}

// prunes checks that nothing younger than was asked for goes: one wrong clock
// never makes more go than the right one.
func (m *tale) prunes(faulty bool) {
	before := m.hot(m.span())
	k := m.pruning()
	m.act(k, faulty)
	var days int
	_, _ = fmt.Sscanf(k.name, "prune older than %d", &days)
	if m.now.After(m.at) {
		return // the source's clock is ahead; the other one may be, too
	}
	after := m.hot(m.span())
	for x := range before {
		if _, ok := after[x]; !ok && utc.DayOf(x.ts) >= m.today()-utc.Day(days) {
			m.t.Errorf("%s, on %s: a row of %s is gone", k.name, m.today(), utc.DayOf(x.ts))
		}
	}
}

// overwrites makes the archive authoritative: corrections that it lacks are undone.
func (m *tale) overwrites(faulty bool) {
	k, o := m.restoring(true)
	match := o.Points.Matcher()
	cold := m.cold()
	doubtful := make(map[key]bool)
	for x, r := range cold {
		if o.Days.Contains(utc.DayOf(x.ts)) && match(fmt.Sprintf("p%d", x.point-m.ids[0])) && m.truth[x] != r {
			doubtful[x] = true
		}
	}
	m.act(k, faulty)
	m.check(doubtful)
	m.settle(k)
	for x := range doubtful {
		m.truth[x] = cold[x]
	}
}

// replaces deletes a row of the hot tier and makes that authoritative for the day.
func (m *tale) replaces(faulty bool) {
	d, i := m.first+utc.Day(m.rng.IntN(m.span().Len()-1)), m.rng.IntN(len(m.ids))
	o := ArchiveOptions{Mode: Rearchive, Days: utc.Days{From: d, To: d + 1}, Replace: true, Points: Points{Globs: []string{fmt.Sprintf("p%d", i)}}}
	k := task{fmt.Sprintf("rearchive --replace %s of p%d", d, i), func(ctx context.Context, env Env) (int, error) {
		p, err := PlanArchive(ctx, env, o)
		if err != nil {
			return 0, err
		}
		r, err := p.Run(ctx, env)
		return r.ExitCode(false), err
	}}
	m.now = m.at
	if _, err := PlanArchive(m.t.Context(), m.env(), o); err != nil {
		if !fault.Is(err, fault.Usage) {
			m.t.Errorf("%s: %v", k.name, err)
		}
		return // trimmed, or it may be: refused
	}
	gone := key{m.ids[i], d.Start() + m.rng.Int64N(96)*900_000}
	m.exec("DELETE FROM timeseries WHERE point_id = ? AND timestamp = ?", gone.point, gone.ts)
	m.note("deleted: %v", gone)
	m.act(k, faulty)
	m.check(map[key]bool{gone: true})
	m.settle(k)
	if _, ok := m.truth[gone]; ok {
		delete(m.truth, gone)
		m.deleted[gone] = true
	}
}

// copies replicates; what was deleted on purpose goes from the replica, too.
func (m *tale) copies(faulty bool) {
	k := m.copying(len(m.deleted) > 0)
	code, err, _ := m.run(k, faulty, true)()
	m.note("%s: exit %d, %v", k.name, code, err)
	readCold(m.t, m.replica.dir) // whole at any moment
	m.settle(k)
	m.deleted = make(map[key]bool)
	cold, newer := m.cold(), m.hasPending()
	for x, r := range readCold(m.t, m.replica.dir) {
		// A file that is newer than the manifest is not copied yet.
		if got, ok := cold[x]; !ok || got != r && !newer {
			m.t.Errorf("the replica has %v as %v, the cold tier %v, %t", x, r, got, ok)
			return
		}
	}
}

func (m *tale) hasPending() bool {
	for _, f := range m.looked().Findings {
		if f.Code == "pending" {
			return true
		}
	}
	return false
}

func (m *tale) looked() VerifyReport {
	r, err := Verify(m.t.Context(), Env{Store: m.dir, Now: func() time.Time { return m.at }}, VerifyOptions{Deep: true})
	m.must(err)
	return r
}

// resurrected: a repair takes a file that can not be read from the replica, with
// what has been deleted here since it was copied. That is allowed, and nothing else.
func (m *tale) resurrected() {
	if len(m.deleted) == 0 {
		return
	}
	for k, r := range m.cold() {
		if _, ok := m.truth[k]; !ok && m.deleted[k] {
			m.truth[k] = r
			delete(m.deleted, k)
		}
	}
}

// harm damages a file of which all is left in the hot tier or in the replica, lets
// other jobs run over it, and repairs it.
func (m *tale) harm(faulty bool) {
	m.now = m.at
	cold, hot, saved := m.cold(), m.hot(m.span()), readCold(m.t, m.replica.dir)
	lacks := make(map[string]bool) // files that nothing could mend
	paths := make(map[int32]map[utc.Month]string)
	var keys []string
	months, err := manifests.Months(m.t.Context(), m.dir)
	m.must(err)
	for _, mo := range months {
		keys = append(keys, string(manifests.KeyOf(mo)))
		for _, e := range m.manifest(mo.String()).Points {
			if e.Path == "" {
				continue
			}
			if paths[e.ID] == nil {
				paths[e.ID] = make(map[utc.Month]string)
			}
			paths[e.ID][mo] = string(e.Path)
			keys = append(keys, string(e.Path))
		}
	}
	for k, r := range cold {
		if _, ok := hot[k]; !ok && saved[k] != r {
			lacks[paths[k.point][utc.DayOf(k.ts).Month()]] = true
		}
	}
	keys = append(keys, string(manifests.PointsKey))
	keys = slices.DeleteFunc(keys, func(k string) bool { return lacks[k] })
	path := keys[m.rng.IntN(len(keys))]
	data, err := os.ReadFile(m.file(path))
	if os.IsNotExist(err) {
		return // nothing was archived yet
	}
	m.must(err)
	alarm := true
	switch n := m.rng.IntN(5); {
	case n == 0 && path != string(manifests.PointsKey):
		m.must(os.Remove(m.file(path)))
		alarm = strings.HasPrefix(path, "timeseries/") // without its manifest a month may be one that begins
	case n == 1:
		m.must(os.WriteFile(m.file(path), nil, 0o644))
	case n == 2:
		m.must(os.WriteFile(m.file(path), data[:m.rng.IntN(len(data))], 0o644))
	case n == 3:
		m.must(os.WriteFile(m.file(path), []byte("{"), 0o644))
	default:
		bad := bytes.Clone(data)
		bad[m.rng.IntN(len(bad))] ^= 1 << m.rng.IntN(8)
		m.must(os.WriteFile(m.file(path), bad, 0o644))
	}
	m.note("damaged: %s", path)
	m.sum.damages.Add(1)
	if r := m.looked(); alarm && r.ExitCode() == fault.ExitOK && !saysTheSame(path, data, m.file(path)) {
		m.t.Errorf("verify --deep finds nothing wrong with %s", path)
	}
	for range m.rng.IntN(3) {
		k := m.anyTask()
		for strings.HasPrefix(k.name, "verify") {
			k = m.anyTask()
		}
		code, err, _ := m.run(k, m.rng.IntN(3) == 0, true)()
		m.note("over it, %s: exit %d, %v", k.name, code, err)
	}
	if k := m.repairing(); faulty {
		code, err, _ := m.run(k, true, false)()
		m.note("%s: exit %d, %v", k.name, code, err)
	}
	m.settle(m.repairing())
	m.resurrected()
}

// saysTheSame reports whether a manifest or the catalog says what it said, after
// a bit of its layout flipped.
func saysTheSame(key string, was []byte, file string) bool {
	now, err := os.ReadFile(file)
	if err != nil || strings.HasPrefix(key, "timeseries/") {
		return false
	}
	if key == string(manifests.PointsKey) {
		a, _ := manifests.DecodePoints(was)
		b, err := manifests.DecodePoints(now)
		return err == nil && reflect.DeepEqual(a, b)
	}
	mo, err := utc.ParseMonth(strings.TrimSuffix(strings.TrimPrefix(key, "_manifests/"), ".json"))
	if err != nil {
		return false
	}
	a, _ := manifests.Decode(mo, was)
	b, err := manifests.Decode(mo, now)
	return err == nil && reflect.DeepEqual(a, b)
}

// together lets two to four jobs run at once, each by a clock of its own, while
// rows arrive.
func (m *tale) together() {
	type arrival struct {
		k key
		v float64
	}
	var rows []arrival
	for range m.rng.IntN(40) {
		k, v := m.sample(m.ids[m.rng.IntN(len(m.ids))], m.anyDay())
		rows = append(rows, arrival{k, v})
	}
	n := 2 + m.rng.IntN(3)
	m.sum.groups.Add(1)
	names := make([]string, n)
	var g sync.WaitGroup
	for i := range n {
		k := m.anyTask()
		if m.rng.IntN(8) == 0 {
			k = m.repairing()
		}
		names[i] = k.name
		run := m.run(k, m.rng.IntN(4) == 0, true)
		g.Go(func() { _, _, _ = run() })
	}
	m.note("at once: %s", strings.Join(names, " | "))
	for _, r := range rows {
		m.put(r.k, r.v)
	}
	g.Wait()
	m.resurrected()
}

// end lets a quiet run of every job follow: all of it is archived, nothing is
// found, all leaves the hot tier, and comes back.
func (m *tale) end() {
	days := m.span()
	m.at = (days.To + 40).Time().Add(2 * Grace)
	m.now = m.at
	m.exec("DELETE FROM timeseries WHERE typeof(value) = 'blob'")
	all := task{"rearchive all", func(ctx context.Context, env Env) (int, error) {
		r, err := m.try(env, ArchiveOptions{Mode: Rearchive, Days: days})
		return r.ExitCode(false), err
	}}
	m.settle(all)
	m.settle(m.archiveAll())
	sameRows(m.t, m.cold(), m.truth)
	whole := func(w *world, src source.Source, l source.Ledger) {
		o := VerifyOptions{Deep: true}
		if src != nil {
			o.Against, o.Days = AgainstRows, days
		}
		r, err := Verify(m.t.Context(), Env{Store: w.dir, Source: src, Ledger: l, Now: func() time.Time { return m.at }}, o)
		m.must(err)
		for _, f := range r.Findings {
			if f.Severity != Info {
				m.t.Errorf("verify --deep --against-source, in the end: %s %s %s: %s", f.Severity, f.Code, f.Path, f.Text)
			}
		}
	}
	whole(m.world, m.src, m.src)
	m.settle(m.copying(len(m.deleted) > 0))
	sameRows(m.t, readCold(m.t, m.replica.dir), m.truth)
	whole(m.replica, nil, nil)
	m.settle(task{"prune all", func(ctx context.Context, env Env) (int, error) {
		r, err := m.tryPrune(ctx, env, PruneOptions{OlderThan: 1})
		if len(r.Deferred) > 0 {
			m.t.Errorf("deferred in the end: %+v", r.Deferred)
		}
		return r.ExitCode(), err
	}})
	if n := m.rowsOf("timeseries"); n > 0 {
		m.t.Errorf("%d rows are left in the hot tier", n)
	}
	m.settle(task{"restore all", func(ctx context.Context, env Env) (int, error) {
		r, err := m.tryRestore(ctx, env, RestoreOptions{Days: days})
		return r.ExitCode(), err
	}})
	sameRows(m.t, m.hot(days), m.truth)
	sameRows(m.t, m.cold(), m.truth)
}

// archiveAll is a plain archive.
func (m *tale) archiveAll() task {
	return task{"archive", func(ctx context.Context, env Env) (int, error) {
		r, err := m.try(env, ArchiveOptions{Mode: Archive})
		return r.ExitCode(false), err
	}}
}

// federated is what a reader sees of both tiers: archived and marked → cold;
// archived and unmarked → both, hot winning; not archived → hot.
func (w *world) federated(points []int32, span utc.Days) map[key]row {
	w.t.Helper()
	marked := make(map[source.Slice]bool)
	w.must(w.src.Marks(w.t.Context(), points, span, func(m source.Mark) { marked[m.Slice] = m.State != source.Claimed }))
	rows := w.cold()
	for k, r := range w.hot(span) {
		s := source.Slice{Point: k.point, Day: utc.DayOf(k.ts)}
		if marked[s] {
			if rows[k] != r {
				w.t.Errorf("point %d, %s is marked, but a row of it is not the archived one", s.Point, s.Day)
			}
			continue
		}
		rows[k] = r
	}
	return rows
}
