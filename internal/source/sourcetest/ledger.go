package sourcetest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"etl/internal/source"
	"etl/internal/utc"
	"etl/sql"
)

func ledger(t *testing.T, h Harness) source.Ledger {
	t.Helper()
	l, ok := h.Source.(source.Ledger)
	if !ok {
		t.Skip("the source has no ledger")
	}
	return l
}

// marks are the marks of points on days, and checks their order.
func marks(t testing.TB, l source.Ledger, d utc.Days, points ...int32) map[source.Slice]source.Mark {
	t.Helper()
	out := map[source.Slice]source.Mark{}
	var last source.Mark
	if err := l.Marks(t.Context(), points, d, func(m source.Mark) {
		if !slices.Contains(points, m.Point) || !d.Contains(m.Day) {
			t.Errorf("mark %+v was not asked for", m)
		}
		if len(out) > 0 && (m.Point < last.Point || (m.Point == last.Point && m.Day <= last.Day)) {
			t.Errorf("mark %+v comes after %+v", m, last)
		}
		out[m.Slice], last = m, m
	}); err != nil {
		t.Fatalf("marks: %v", err)
	}
	return out
}

func trims(t testing.TB, l source.Ledger, d utc.Days, points ...int32) map[source.Slice]bool {
	t.Helper()
	out := map[source.Slice]bool{}
	if err := l.Pruned(t.Context(), points, d, func(s source.Slice) {
		if !slices.Contains(points, s.Point) || !d.Contains(s.Day) {
			t.Errorf("trim %+v was not asked for", s)
		}
		out[s] = true
	}); err != nil {
		t.Fatalf("pruned: %v", err)
	}
	return out
}

func claim(t testing.TB, l source.Ledger, run string, s ...source.Slice) {
	t.Helper()
	if err := l.Claim(t.Context(), run, s); err != nil {
		t.Fatalf("claim: %v", err)
	}
}

func confirm(t testing.TB, l source.Ledger, run string, want int, s ...source.Slice) {
	t.Helper()
	if n, err := l.Confirm(t.Context(), run, s); err != nil || n != want {
		t.Fatalf("confirm by %s: %d, %v; want %d", run, n, err, want)
	}
}

// testArrivals: every way in which a row can arrive or change, before the
// claim, between claim and confirmation, and after it.
func testArrivals(t *testing.T, h Harness) {
	l := ledger(t, h)
	a, b, c := source.Slice{Point: 1, Day: d0}, source.Slice{Point: 1, Day: d0 + 1}, source.Slice{Point: 2, Day: d0}
	all := []source.Slice{a, b, c}
	s := d0.Start()
	ins := func(verb string, values ...string) string {
		return verb + " INTO timeseries (point_id, timestamp, value) VALUES " + strings.Join(values, ", ")
	}
	at := func(p int, ts int64) string { return fmt.Sprintf("(%d, %d, 9.5)", p, ts) }
	const upsert = " ON CONFLICT (point_id, timestamp) DO UPDATE SET value = excluded.value"
	ways := []struct {
		name, sql string
		touches   []source.Slice
	}{
		{"insert", ins("INSERT", at(1, s+5000)), []source.Slice{a}},
		{"insert of NULL", fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (1, %d)", s+5000), []source.Slice{a}},
		{"insert at the first millisecond", ins("INSERT", at(1, s)), []source.Slice{a}},
		{"insert at the last millisecond", ins("INSERT", at(1, d0.End()-1)), []source.Slice{a}},
		{"insert at the next first millisecond", ins("INSERT", at(1, d0.End())), []source.Slice{b}},
		{"insert before the days", ins("INSERT", at(1, s-1)), nil},
		{"insert of another point", ins("INSERT", at(3, s)), nil},
		{"insert of several", ins("INSERT", at(1, s+5000), at(2, s+5000), at(3, s)), []source.Slice{a, c}},
		{"insert select", fmt.Sprintf("INSERT INTO timeseries SELECT 1, timestamp + 7, value, quality, flags FROM timeseries WHERE point_id = 2 AND timestamp >= %d", s), []source.Slice{a}},
		{"insert of a fraction", fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (1, %d.5)", s+5000), []source.Slice{a}},
		{"insert of the last fraction", fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (1, %d.5)", d0.End()-1), []source.Slice{a}},
		{"insert of digits as text", fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES ('1', '%d')", s+5000), []source.Slice{a}},
		{"insert or replace, new", ins("INSERT OR REPLACE", at(1, s+5000)), []source.Slice{a}},
		{"insert or replace, existing", ins("INSERT OR REPLACE", at(1, s+1000)), []source.Slice{a}},
		{"replace of several", ins("REPLACE", at(1, s+1000), at(1, d0.End()+1000)), []source.Slice{a, b}},
		{"insert or ignore, new", ins("INSERT OR IGNORE", at(1, s+5000)), []source.Slice{a}},
		{"insert or ignore, existing", ins("INSERT OR IGNORE", at(1, s+1000)), nil},
		{"insert or ignore, one of each", ins("INSERT OR IGNORE", at(1, s+1000), at(2, s+5000)), []source.Slice{c}},
		{"insert or abort", ins("INSERT OR ABORT", at(1, s+5000)), []source.Slice{a}},
		{"insert or fail", ins("INSERT OR FAIL", at(1, s+5000)), []source.Slice{a}},
		{"insert or rollback", ins("INSERT OR ROLLBACK", at(1, s+5000)), []source.Slice{a}},
		{"upsert, new", ins("INSERT", at(1, s+5000)) + upsert, []source.Slice{a}},
		{"upsert, existing", ins("INSERT", at(1, s+1000)) + upsert, []source.Slice{a}},
		{"upsert, one of each", ins("INSERT", at(1, s+1000), at(2, s+5000)) + upsert, []source.Slice{a, c}},
		{"upsert that declines", ins("INSERT", at(1, s+1000)) + upsert + " WHERE false", nil},
		{"do nothing, new", ins("INSERT", at(1, s+5000)) + " ON CONFLICT DO NOTHING", []source.Slice{a}},
		{"do nothing, existing", ins("INSERT", at(1, s+1000)) + " ON CONFLICT DO NOTHING", nil},
		{"update of a value", fmt.Sprintf("UPDATE timeseries SET value = 7.5 WHERE point_id = 1 AND timestamp = %d", s+1000), []source.Slice{a}},
		{"update of flags", fmt.Sprintf("UPDATE timeseries SET flags = 1 WHERE point_id = 1 AND timestamp = %d", s+1000), []source.Slice{a}},
		{"update of a day", fmt.Sprintf("UPDATE timeseries SET timestamp = timestamp + 86400000 WHERE point_id = 1 AND timestamp = %d", s+2000), []source.Slice{a, b}},
		{"update of a point", fmt.Sprintf("UPDATE timeseries SET point_id = 2 WHERE point_id = 1 AND timestamp = %d", s+2000), []source.Slice{a, c}},
		{"update or replace onto a row", fmt.Sprintf("UPDATE OR REPLACE timeseries SET timestamp = %d WHERE point_id = 1 AND timestamp = %d", d0.End()+1000, s+1000), []source.Slice{a, b}},
		{"update or ignore onto a row", fmt.Sprintf("UPDATE OR IGNORE timeseries SET timestamp = %d WHERE point_id = 1 AND timestamp = %d", d0.End()+1000, s+1000), nil},
		{"update of all rows", "UPDATE timeseries SET quality = 1", all},
		{"update of no row", "UPDATE timeseries SET quality = 1 WHERE point_id = 99", nil},
		{"delete", fmt.Sprintf("DELETE FROM timeseries WHERE point_id = 1 AND timestamp = %d", s+1000), nil},
	}
	for _, when := range []string{"before the claim", "after the claim", "after the confirmation"} {
		for _, w := range ways {
			h.Exec(t, "DELETE FROM timeseries; DELETE FROM archive_marks; "+ins("INSERT", at(1, s+1000), at(1, s+2000), at(1, d0.End()+1000), at(2, s+1000)))
			if when == "before the claim" {
				h.Exec(t, w.sql)
			}
			claim(t, l, "r1", all...)
			touched := 0
			if when == "after the claim" {
				h.Exec(t, w.sql)
				touched = len(w.touches)
			}
			confirm(t, l, "r1", len(all)-touched, all...)
			if when == "after the confirmation" {
				h.Exec(t, w.sql)
				touched = len(w.touches)
			}
			got := marks(t, l, days(d0-5, d0+5), 1, 2, 3)
			for _, sl := range all {
				m, ok := got[sl]
				want := touched == 0 || !slices.Contains(w.touches, sl)
				if ok != want || (ok && (m.State != source.Marked || m.Run != "r1")) {
					t.Errorf("%s %s: slice %+v has the mark %+v (%t), want one: %t", w.name, when, sl, m, ok, want)
				}
			}
			if len(got) != len(all)-touched {
				t.Errorf("%s %s: marks %v", w.name, when, got)
			}
		}
	}
}

func testClaims(t *testing.T, h Harness) {
	l := ledger(t, h)
	a, b := source.Slice{Point: 1, Day: d0}, source.Slice{Point: 2, Day: d0}
	state := func(sl source.Slice) string {
		m, ok := marks(t, l, days(d0, d0+1), 1, 2)[sl]
		if !ok {
			return "none"
		}
		return fmt.Sprintf("%s %d", m.Run, m.State)
	}
	want := func(sl source.Slice, w string) {
		t.Helper()
		if got := state(sl); got != w {
			t.Errorf("slice %+v: %s, want %s", sl, got, w)
		}
	}
	confirm(t, l, "r1", 0, a) // never claimed
	want(a, "none")
	claim(t, l, "r1", a, b)
	want(a, "r1 0")
	confirm(t, l, "r2", 0, a) // another's claim
	want(a, "r1 0")
	claim(t, l, "r2", a) // taken over
	confirm(t, l, "r1", 1, a, b)
	want(a, "r2 0")
	want(b, "r1 1")
	confirm(t, l, "r2", 1, a)
	want(a, "r2 1")
	confirm(t, l, "r2", 0, a) // already confirmed
	claim(t, l, "r3", a)      // a mark is taken over too, and is none until confirmed
	want(a, "r3 0")
	h.Exec(t, fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (1, %d)", d0.Start()))
	want(a, "none")
	claim(t, l, "r4", a)
	confirm(t, l, "r3", 0, a) // lost to a row, then to another run
	want(a, "r4 0")
	claim(t, l, "r4", a) // again by the same run
	confirm(t, l, "r4", 1, a)
	h.Exec(t, "UPDATE archive_marks SET done = 2 WHERE point_id = 1")
	want(a, "r4 2")
	confirm(t, l, "r4", 0, a)
	claim(t, l, "it's; a \"run\"", a)
	want(a, "it's; a \"run\" 0")
	confirm(t, l, "it's; a \"run\"", 1, a, a)
	claim(t, l, "r5")
	confirm(t, l, "r5", 0)
	claim(t, l, "r6", source.Slice{Point: -5, Day: 0}, source.Slice{Point: 1<<31 - 1, Day: 30000})
	confirm(t, l, "r6", 2, source.Slice{Point: -5, Day: 0}, source.Slice{Point: 1<<31 - 1, Day: 30000})
}

func testLedgerRange(t *testing.T, h Harness) {
	l := ledger(t, h)
	var all []source.Slice
	for p := int32(1); p <= 4; p++ {
		for d := d0; d < d0+6; d++ {
			all = append(all, source.Slice{Point: p, Day: d})
		}
	}
	claim(t, l, "r", all...)
	h.Exec(t, "INSERT INTO archive_trims SELECT point_id, day FROM archive_marks")
	for _, d := range []utc.Days{days(d0, d0+6), days(d0+2, d0+3), days(d0+2, d0+2), days(d0-9, d0+1)} {
		for _, ps := range [][]int32{{1, 2, 3, 4}, {2, 9}, {}} {
			n := 0
			for _, sl := range all {
				if slices.Contains(ps, sl.Point) && d.Contains(sl.Day) {
					n++
				}
			}
			if got := marks(t, l, d, ps...); len(got) != n {
				t.Errorf("%d marks of %v on %v, want %d", len(got), ps, d, n)
			}
			if got := trims(t, l, d, ps...); len(got) != n {
				t.Errorf("%d trims of %v on %v, want %d", len(got), ps, d, n)
			}
		}
	}
}

// testLedgerModel does random things and compares the marks with a model.
func testLedgerModel(t *testing.T, h Harness) {
	l := ledger(t, h)
	r := random(t)
	type key struct {
		p  int32
		ts int64
	}
	rows := map[key]bool{}
	model := map[source.Slice]source.Mark{}
	touch := func(p int32, ts int64) { delete(model, source.Slice{Point: p, Day: utc.DayOf(ts)}) }
	points, span := []int32{1, 2, 3}, days(d0, d0+4)
	pick := func() key {
		return key{points[r.IntN(3)], (d0 + utc.Day(r.IntN(4))).Start() + int64(r.IntN(3))*43_199_999 + int64(r.IntN(2))}
	}
	for step := range 500 {
		var did string
		k := pick()
		switch op := r.IntN(12); op {
		case 0, 1, 2, 3, 4, 5: // one or two rows in one statement
			ks := []key{k, pick()}[:1+r.IntN(2)]
			if len(ks) == 2 && ks[0] == ks[1] {
				ks = ks[:1]
			}
			verb := [][2]string{{"INSERT OR REPLACE", ""}, {"INSERT OR IGNORE", ""}, {"INSERT", "ON CONFLICT DO NOTHING"},
				{"INSERT", "ON CONFLICT (point_id, timestamp) DO UPDATE SET value = excluded.value"}}[r.IntN(4)]
			var vs []string
			for _, k := range ks {
				vs = append(vs, fmt.Sprintf("(%d, %d, %d)", k.p, k.ts, step))
				if !rows[k] || strings.Contains(verb[0]+verb[1], "REPLACE") || strings.Contains(verb[1], "UPDATE") {
					touch(k.p, k.ts)
				}
				rows[k] = true
			}
			did = fmt.Sprintf("%s INTO timeseries (point_id, timestamp, value) VALUES %s %s", verb[0], strings.Join(vs, ", "), verb[1])
			h.Exec(t, did)
		case 6: // update in place
			if rows[k] {
				touch(k.p, k.ts)
			}
			did = fmt.Sprintf("UPDATE timeseries SET value = %d WHERE point_id = %d AND timestamp = %d", step, k.p, k.ts)
			h.Exec(t, did)
		case 7: // move
			to := pick()
			did = fmt.Sprintf("UPDATE OR REPLACE timeseries SET point_id = %d, timestamp = %d WHERE point_id = %d AND timestamp = %d", to.p, to.ts, k.p, k.ts)
			h.Exec(t, did)
			if rows[k] {
				touch(k.p, k.ts)
				touch(to.p, to.ts)
				delete(rows, k)
				rows[to] = true
			}
		case 8: // delete
			did = fmt.Sprintf("DELETE FROM timeseries WHERE point_id = %d AND timestamp = %d", k.p, k.ts)
			h.Exec(t, did)
			delete(rows, k)
		default: // a run claims or confirms
			run := []string{"r1", "r2"}[r.IntN(2)]
			var sl []source.Slice
			for _, p := range points {
				for d := span.From; d < span.To; d++ {
					if r.IntN(3) == 0 {
						sl = append(sl, source.Slice{Point: p, Day: d})
					}
				}
			}
			if op == 9 {
				did = fmt.Sprintf("claim by %s of %v", run, sl)
				claim(t, l, run, sl...)
				for _, s := range sl {
					model[s] = source.Mark{Slice: s, Run: run}
				}
				break
			}
			did = fmt.Sprintf("confirm by %s of %v", run, sl)
			n := 0
			for _, s := range sl {
				if m, ok := model[s]; ok && m.Run == run && m.State == source.Claimed {
					m.State = source.Marked
					model[s] = m
					n++
				}
			}
			confirm(t, l, run, n, sl...)
		}
		if got := marks(t, l, span, points...); !maps.Equal(got, model) {
			t.Fatalf("step %d, after %s: marks %v, want %v", step, did, got, model)
		}
	}
}

// testManySlices: claims of thousands of slices, by several at a time.
func testManySlices(t *testing.T, h Harness) {
	l := ledger(t, h)
	var wg sync.WaitGroup
	for w := range int32(3) {
		wg.Go(func() {
			var sl []source.Slice
			for p := range int32(400) {
				for d := range utc.Day(3) {
					sl = append(sl, source.Slice{Point: w*1000 + p, Day: d0 + d})
				}
			}
			run := fmt.Sprint("run ", w)
			if err := l.Claim(t.Context(), run, sl); err != nil {
				t.Errorf("claim: %v", err)
			}
			if n, err := l.Confirm(t.Context(), run, sl); err != nil || n != len(sl) {
				t.Errorf("confirm: %d, %v", n, err)
			}
		})
	}
	wg.Wait()
}

func testLog(t *testing.T, h Harness) {
	l := ledger(t, h)
	r := source.Run{ID: "run-1", Command: "archive", Status: "running", Started: time.UnixMilli(1_700_000_000_000), Days: days(d0, d0+2)}
	must := func(r source.Run) {
		t.Helper()
		if err := l.Log(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	// The harness has no way to select, so a CHECK looks.
	check := func(condition string) {
		t.Helper()
		h.Exec(t, "DROP TABLE IF EXISTS checked; CREATE TABLE checked (ok INTEGER NOT NULL CHECK (ok = 1)); INSERT INTO checked SELECT ("+condition+")")
	}
	must(r)
	check("SELECT count(*) = 1 FROM archive_state")
	check("SELECT status = 'running' AND archived_at IS NULL AND started_at = 1700000000000 AND heartbeat_at > 0 AND error IS NULL AND first_day = '2024-01-05' AND last_day = '2024-01-06' FROM archive_state")
	r.Status, r.Finished, r.Records, r.Files, r.Bytes, r.Error = "partial", time.UnixMilli(1_700_000_005_000), 10, 2, 345, "it's broken"
	must(r)
	must(source.Run{ID: "run-2", Command: "backfill", Status: "done", Started: r.Started, Finished: r.Finished})
	check("SELECT count(*) = 2 FROM archive_state")
	check("SELECT status = 'partial' AND command = 'archive' AND archived_at = 1700000005000 AND records_archived = 10 AND files_written = 2 AND bytes_written = 345 AND error = 'it''s broken' FROM archive_state WHERE run = 'run-1'")
	check("SELECT first_day IS NULL AND last_day IS NULL FROM archive_state WHERE run = 'run-2'")

	hist, ok := h.Source.(source.Historian)
	if !ok {
		return
	}
	// A line that is running, and one that other hands made.
	must(source.Run{ID: "run-3", Command: "archive", Status: "running", Started: r.Started.Add(time.Hour)})
	h.Exec(t, "INSERT INTO archive_state (run, status, started_at, records_archived, first_day) VALUES ('odd', 'done', 'yesterday', 'many', 5)")
	runs, err := hist.Runs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]source.Run{}
	for _, r := range runs {
		byID[r.ID] = r
	}
	got := byID["run-1"]
	if got.Heartbeat.IsZero() || got.Heartbeat.Before(r.Started) {
		t.Errorf("run-1 has the heartbeat %s", got.Heartbeat)
	}
	want := r
	want.Started, want.Finished, want.Heartbeat = r.Started.UTC(), r.Finished.UTC(), got.Heartbeat
	if got != want || byID["run-3"].Status != "running" || !byID["run-3"].Finished.IsZero() || len(runs) != 4 {
		t.Errorf("runs: %+v, want run-1 as %+v", runs, want)
	}
	if odd := byID["odd"]; odd.Status != "done" || !odd.Started.IsZero() || odd.Records != 0 || !odd.Days.Empty() {
		t.Errorf("a line with odd cells: %+v", odd)
	}
	if i := slices.IndexFunc(runs, func(r source.Run) bool { return r.ID == "run-1" }); runs[i+1].ID != "run-2" || runs[i+2].ID != "run-3" {
		t.Errorf("the order of runs: %+v", runs)
	}
	h.Exec(t, "DROP TABLE archive_state")
	if runs, err := hist.Runs(t.Context()); err != nil || len(runs) != 0 {
		t.Errorf("runs without the table: %v, %v", runs, err)
	}
}

func testCrashed(t *testing.T, h Harness) {
	l := ledger(t, h)
	closed := func(silent time.Duration, want ...string) {
		t.Helper()
		got, err := l.CloseCrashed(t.Context(), silent)
		if slices.Sort(got); err != nil || !slices.Equal(got, want) {
			t.Errorf("closed %q, %v; want %q", got, err, want)
		}
	}
	closed(15 * time.Minute)
	run := source.Run{Command: "archive", Status: "running", Started: time.UnixMilli(1_700_000_000_000)}
	for _, id := range []string{"alive", "silent", "later", "old"} {
		run.ID = id
		if err := l.Log(t.Context(), run); err != nil {
			t.Fatal(err)
		}
	}
	run.ID, run.Status, run.Finished = "done", "done", time.UnixMilli(1_700_000_005_000)
	if err := l.Log(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	h.Exec(t, `UPDATE archive_state SET heartbeat_at = heartbeat_at - 16 * 60000 WHERE run IN ('silent', 'done', 'later');
		UPDATE archive_state SET heartbeat_at = NULL WHERE run = 'old'`)
	closed(17*time.Minute, "old")
	closed(15*time.Minute, "later", "silent")
	closed(15 * time.Minute)
	check := func(condition string) {
		t.Helper()
		h.Exec(t, "DROP TABLE IF EXISTS checked; CREATE TABLE checked (ok INTEGER NOT NULL CHECK (ok = 1)); INSERT INTO checked SELECT ("+condition+")")
	}
	check("SELECT count(*) = 3 FROM archive_state WHERE status = 'crashed' AND archived_at >= heartbeat_at IS NOT FALSE AND error IS NOT NULL AND run IN ('later', 'silent', 'old')")
	check("SELECT count(*) = 1 FROM archive_state WHERE status = 'running' AND archived_at IS NULL AND error IS NULL AND run = 'alive'")
	check("SELECT count(*) = 1 FROM archive_state WHERE status = 'done' AND archived_at = 1700000005000 AND run = 'done'")
	// It was alive after all.
	run.ID = "later"
	if err := l.Log(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	check("SELECT status = 'done' AND archived_at = 1700000005000 AND error IS NULL FROM archive_state WHERE run = 'later'")
}

const gate = "abs(random() % 1000) = 0"

// ungate makes the retention trigger fire on every insert.
func ungate(t testing.TB, h Harness) {
	t.Helper()
	ms := sql.Migrations()
	text := ms[slices.IndexFunc(ms, func(m sql.Migration) bool { return strings.Contains(m.SQL, gate) })].SQL
	if strings.Count(text, gate) != 1 {
		t.Fatalf("the gate is in the text %d times", strings.Count(text, gate))
	}
	h.Exec(t, strings.Replace(text, gate, "1", 1))
}

// testRetentionBounds: which days one insert may take.
func testRetentionBounds(t *testing.T, h Harness) {
	l := ledger(t, h)
	ungate(t, h)
	now := utc.DayOfTime(time.Now())
	x := now - 2 // the day of the inserted row, well before now
	tests := []struct {
		name  string
		ts    string // of the inserted row
		old   []utc.Day
		state string // of the marks of old: "marked", "claimed", "none", "trimmed"
		want  int    // how many of old go, the earliest first
	}{
		{"the last day that may go", fmt.Sprint(x.Start()), []utc.Day{x - 31}, "marked", 1},
		{"a millisecond earlier", fmt.Sprint(x.Start() - 1), []utc.Day{x - 31}, "marked", 0},
		{"the first day that stays", fmt.Sprint(x.Start()), []utc.Day{x - 30}, "marked", 0},
		{"the end of the inserted day", fmt.Sprint(x.End() - 1), []utc.Day{x - 30, x - 31}, "marked", 1},
		{"two days at most", fmt.Sprint(x.Start()), []utc.Day{x - 50, x - 40, x - 35}, "marked", 2},
		{"a claim blocks", fmt.Sprint(x.Start()), []utc.Day{x - 50}, "claimed", 0},
		{"unmarked stays", fmt.Sprint(x.Start()), []utc.Day{x - 50}, "none", 0},
		{"a row years ahead counts as now", "9000000000000000", []utc.Day{now - 28}, "marked", 0},
		{"and still trims", "9000000000000000", []utc.Day{now - 33}, "marked", 1},
		{"a real", fmt.Sprintf("%d.5", x.Start()), []utc.Day{x - 31}, "marked", 1},
		{"infinity", "9e999", []utc.Day{now - 33, now - 28}, "marked", 1},
		{"text", "'someday'", []utc.Day{x - 50}, "marked", 0},
		{"a late row trims nothing newer", fmt.Sprint((x - 45).Start()), []utc.Day{x - 50}, "marked", 0},
	}
	for _, tt := range tests {
		h.Exec(t, "DELETE FROM timeseries; DELETE FROM archive_marks; DELETE FROM archive_trims")
		slices.Sort(tt.old)
		var sl []source.Slice
		for _, d := range tt.old {
			// Rows at both ends of the day, on the neighbours' sides, and of a neighbour point.
			insert(h, t, row(1, d.Start(), 1), row(1, d.End()-1, 1), row(2, d.Start(), 1))
			sl = append(sl, source.Slice{Point: 1, Day: d}, source.Slice{Point: 2, Day: d})
		}
		h.Exec(t, "DELETE FROM archive_marks; DELETE FROM archive_trims")
		if tt.state != "none" {
			claim(t, l, "r", sl...)
		}
		if tt.state == "marked" {
			confirm(t, l, "r", len(sl), sl...)
		}
		before := marks(t, l, days(0, now+1), 1, 2)
		h.Exec(t, fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (1, %s)", tt.ts))
		after := marks(t, l, days(0, now+1), 1, 2)
		gone := trims(t, l, days(0, now+1), 1, 2)
		for i, d := range tt.old {
			got, _ := ReadAll(t, h.Source, source.Query{Points: []int32{1, 2}, Days: days(d, d+1)})
			one := source.Slice{Point: 1, Day: d}
			want := before[one]
			rows := 3
			if i < tt.want {
				want.State, rows = source.Trimmed, 1
			}
			if len(got) != rows || gone[one] != (i < tt.want) || after[one] != want {
				t.Errorf("%s: day %v has %d rows (want %d), trimmed %t, mark %+v (want %+v)", tt.name, d, len(got), rows, gone[one], after[one], want)
			}
			if two := (source.Slice{Point: 2, Day: d}); after[two] != before[two] || gone[two] {
				t.Errorf("%s: the other point was touched", tt.name)
			}
		}
	}
}

// testRetentionAgain: a day of which rows left before, got late rows and was
// archived again, goes again, whatever the conflict clause of the insert.
func testRetentionAgain(t *testing.T, h Harness) {
	l := ledger(t, h)
	ungate(t, h)
	x := utc.DayOfTime(time.Now()) - 2
	old := source.Slice{Point: 1, Day: x - 40}
	for _, verb := range []string{"INSERT", "INSERT OR ABORT", "INSERT OR FAIL", "INSERT OR ROLLBACK", "INSERT OR IGNORE", "INSERT OR REPLACE", "REPLACE", "upsert"} {
		h.Exec(t, fmt.Sprintf(`DELETE FROM timeseries; DELETE FROM archive_marks; DELETE FROM archive_trims;
			INSERT INTO timeseries (point_id, timestamp) VALUES (1, %d); INSERT INTO archive_trims VALUES (1, %d)`, old.Day.Start(), old.Day))
		claim(t, l, "r", old)
		confirm(t, l, "r", 1, old)
		into, clause := verb, ""
		if verb == "upsert" {
			into, clause = "INSERT", " ON CONFLICT (point_id, timestamp) DO UPDATE SET value = 1"
		}
		h.Exec(t, fmt.Sprintf("%s INTO timeseries (point_id, timestamp) VALUES (1, %d)%s", into, x.Start(), clause))
		got, _ := ReadAll(t, h.Source, source.Query{Points: []int32{1}, Days: days(x-50, x+1)})
		if len(got) != 1 || got[0].TS != x.Start() {
			t.Errorf("%s: rows %+v", verb, got)
		}
		if m := marks(t, l, days(x-50, x+1), 1); len(m) != 1 || m[old].State != source.Trimmed {
			t.Errorf("%s: marks %v", verb, m)
		}
		if g := trims(t, l, days(x-50, x+1), 1); len(g) != 1 || !g[old] {
			t.Errorf("%s: trims %v", verb, g)
		}
	}
}

// testRetentionModel does random inserts of every kind on random marks and
// compares rows, marks and trims with a model, after each.
func testRetentionModel(t *testing.T, h Harness) {
	l := ledger(t, h)
	r := random(t)
	ungate(t, h)
	now := utc.DayOfTime(time.Now())
	first := now - 45
	span, points := days(first, now), []int32{1, 2}
	type key struct {
		p  int32
		ts int64
	}
	rows := map[key]bool{}
	mark := map[source.Slice]source.Mark{}
	gone := map[source.Slice]bool{}
	has := func(s source.Slice) bool {
		for k := range rows {
			if k.p == s.Point && utc.DayOf(k.ts) == s.Day {
				return true
			}
		}
		return false
	}
	// arrive is an insert or an upsert that inserts.
	arrive := func(k key) {
		rows[k] = true
		delete(mark, source.Slice{Point: k.p, Day: utc.DayOf(k.ts)})
		limit := min(utc.DayOf(k.ts), now) - 30
		n := 0
		for d := first; d < limit && n < 2; d++ {
			s := source.Slice{Point: k.p, Day: d}
			if mark[s].State != source.Marked || !has(s) {
				continue
			}
			n++
			gone[s] = true
			maps.DeleteFunc(rows, func(o key, _ bool) bool { return o.p == s.Point && utc.DayOf(o.ts) == s.Day })
		}
		for s, m := range mark {
			if s.Point == k.p && s.Day < limit && m.State == source.Marked && gone[s] && !has(s) {
				m.State = source.Trimmed
				mark[s] = m
			}
		}
	}
	pick := func() key {
		d := first + utc.Day(r.IntN(45))
		if r.IntN(2) == 0 {
			d = now - 1 - utc.Day(r.IntN(10))
		}
		return key{points[r.IntN(2)], d.Start() + int64(r.IntN(2))*(utc.DayMillis-1)}
	}
	for step := range 300 {
		did := ""
		if r.IntN(3) == 0 {
			s := someSlices(r, points, span)
			did = fmt.Sprintf("claim of %v", s)
			claim(t, l, "r", s...)
			for _, s := range s {
				mark[s] = source.Mark{Slice: s, Run: "r"}
			}
			if r.IntN(4) > 0 {
				confirm(t, l, "r", len(s), s...)
				for _, s := range s {
					mark[s] = source.Mark{Slice: s, Run: "r", State: source.Marked}
				}
			}
		} else {
			k := pick()
			verb := [][2]string{{"INSERT OR REPLACE", ""}, {"INSERT OR IGNORE", ""}, {"INSERT", "ON CONFLICT DO NOTHING"}, {"INSERT OR ABORT", ""},
				{"INSERT OR FAIL", ""}, {"INSERT OR ROLLBACK", ""}, {"INSERT", "ON CONFLICT (point_id, timestamp) DO UPDATE SET value = 5"}}[r.IntN(7)]
			existing := rows[k]
			if existing && strings.HasPrefix(verb[0], "INSERT OR ") && verb[0] != "INSERT OR REPLACE" && verb[0] != "INSERT OR IGNORE" {
				continue // would be an error
			}
			did = fmt.Sprintf("%s INTO timeseries (point_id, timestamp) VALUES (%d, %d) %s", verb[0], k.p, k.ts, verb[1])
			h.Exec(t, did)
			switch {
			case !existing || verb[0] == "INSERT OR REPLACE":
				arrive(k)
			case strings.Contains(verb[1], "UPDATE"):
				delete(mark, source.Slice{Point: k.p, Day: utc.DayOf(k.ts)})
			}
		}
		if got := marks(t, l, span, points...); !maps.Equal(got, mark) {
			t.Fatalf("step %d, after %s: marks %v, want %v", step, did, got, mark)
		}
		if got := trims(t, l, span, points...); !maps.Equal(got, gone) {
			t.Fatalf("step %d, after %s: trims %v, want %v", step, did, got, gone)
		}
		got, _ := ReadAll(t, h.Source, source.Query{Points: points, Days: span})
		for _, s := range got {
			if !rows[key{s.Point, s.TS}] {
				t.Fatalf("step %d, after %s: row %+v should have gone", step, did, s)
			}
		}
		if len(got) != len(rows) {
			t.Fatalf("step %d, after %s: %d rows, want %d", step, did, len(got), len(rows))
		}
	}
	if len(gone) == 0 {
		t.Error("nothing was trimmed")
	}
}

func someSlices(r *rand.Rand, points []int32, span utc.Days) []source.Slice {
	var s []source.Slice
	for _, p := range points {
		for d := span.From; d < span.To; d++ {
			if r.IntN(6) == 0 {
				s = append(s, source.Slice{Point: p, Day: d})
			}
		}
	}
	return s
}

// testRetentionGate: the trigger as it is fires about once in a thousand inserts.
func testRetentionGate(t *testing.T, h Harness) {
	l := ledger(t, h)
	now := utc.DayOfTime(time.Now())
	// 400 days of one row each, archived, so that each firing has two to take.
	h.Exec(t, fmt.Sprintf(`WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < 399)
		INSERT INTO timeseries (point_id, timestamp) SELECT 1, (%d + n) * 86400000 FROM i`, now-500))
	h.Exec(t, "DELETE FROM archive_trims; INSERT INTO archive_marks SELECT point_id, timestamp / 86400000, 'r', 1 FROM timeseries")
	h.Exec(t, fmt.Sprintf(`WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < 19999)
		INSERT INTO timeseries (point_id, timestamp) SELECT 1, %d + n FROM i`, (now-1).Start()))
	// 20 firings are expected. Fewer than 2 or more than 60 come once in ten million runs.
	gone := trims(t, l, days(now-500, now), 1)
	if n := len(gone) / 2; n < 2 || n > 60 {
		t.Errorf("%d firings in 20,000 inserts, want about 20", n)
	}
	got, _ := ReadAll(t, h.Source, source.Query{Points: []int32{1}, Days: days(now-500, now)})
	if len(got) != 20_400-len(gone) {
		t.Errorf("%d rows are left, %d days are recorded as trimmed", len(got), len(gone))
	}
}
