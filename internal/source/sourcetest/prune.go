package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"etl/internal/fault"
	"etl/internal/source"
	"etl/internal/utc"
)

func testRevoke(t *testing.T, h Harness) {
	l := ledger(t, h)
	all := map[string]source.Slice{}
	for i, state := range []string{"none", "claimed", "marked", "trimmed", "marked, too", "marked, not named"} {
		all[state] = source.Slice{Point: int32(1 + i%3), Day: d0 + utc.Day(i)}
	}
	revoke := func(want int, states ...string) {
		t.Helper()
		var sl []source.Slice
		for _, s := range states {
			sl = append(sl, all[s])
		}
		if n, err := l.Revoke(t.Context(), sl); err != nil || n != want {
			t.Errorf("revoked %d of %q, %v; want %d", n, states, err, want)
		}
	}
	for state, sl := range all {
		if state != "none" {
			claim(t, l, state, sl)
		}
		if state != "none" && state != "claimed" {
			confirm(t, l, state, 1, sl)
		}
	}
	h.Exec(t, "UPDATE archive_marks SET done = 2 WHERE run = 'trimmed'; INSERT INTO archive_trims SELECT point_id, day FROM archive_marks WHERE done = 2")
	insert(h, t, row(7, d0.Start(), 1))
	left := func(want ...string) {
		t.Helper()
		got := marks(t, l, days(d0, d0+9), 1, 2, 3)
		for _, s := range want {
			if m, ok := got[all[s]]; !ok || m.Run != s {
				t.Errorf("%s has the mark %+v, %t", s, m, ok)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d marks are left: %v", len(got), got)
		}
	}
	revoke(0)
	revoke(0, "none", "claimed", "trimmed")
	left("claimed", "trimmed", "marked", "marked, too", "marked, not named")
	revoke(2, "none", "claimed", "trimmed", "marked", "marked", "marked, too")
	left("claimed", "trimmed", "marked, not named")
	revoke(0, "marked", "marked, too")
	confirm(t, l, "marked", 0, all["marked"])
	if got := trims(t, l, days(d0, d0+9), 1, 2, 3); len(got) != 1 {
		t.Errorf("trims %v", got)
	}

	var many []source.Slice
	for p := range int32(300) {
		for d := range utc.Day(3) {
			many = append(many, source.Slice{Point: 100 + p, Day: d0 + d})
		}
	}
	claim(t, l, "r", many...)
	confirm(t, l, "r", len(many), many...)
	if n, err := l.Revoke(t.Context(), many); err != nil || n != len(many) {
		t.Errorf("revoked %d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Revoke(ctx, []source.Slice{all["marked, not named"]}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	h.Exec(t, "DROP TRIGGER tr_timeseries_insert_unmarks")
	if _, err := l.Revoke(t.Context(), []source.Slice{all["marked, not named"]}); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
		t.Errorf("without a trigger: %v", err)
	}
}

func pruner(t *testing.T, h Harness) (source.Ledger, source.Pruner) {
	t.Helper()
	p, ok := h.Source.(source.Pruner)
	if !ok {
		t.Skip("the source does not prune")
	}
	return ledger(t, h), p
}

// prune checks what holds for every call: the order, and that what was cut was asked for.
func prune(t testing.TB, p source.Pruner, cuts ...source.Cut) map[source.Slice]bool {
	t.Helper()
	cut, rows, err := p.Prune(t.Context(), cuts)
	if err != nil {
		t.Fatalf("prune: %v", err)
	}
	out := map[source.Slice]bool{}
	var last source.Slice
	for i, sl := range cut {
		if i > 0 && (sl.Point < last.Point || sl.Point == last.Point && sl.Day <= last.Day) {
			t.Errorf("%+v comes after %+v", sl, last)
		}
		last = sl
		j := slices.IndexFunc(cuts, func(c source.Cut) bool { return c.Slice == sl })
		if j < 0 {
			t.Fatalf("%+v was not to be cut", sl)
		}
		rows -= cuts[j].Rows
		out[sl] = true
	}
	if rows != 0 {
		t.Errorf("rows differ from those of what was cut by %d", rows)
	}
	return out
}

// testPrune: one slice of three rows, at the ends of its day, between others; what
// happens to it, and whether it may be cut then.
func testPrune(t *testing.T, h Harness) {
	l, p := pruner(t, h)
	s := source.Slice{Point: 2, Day: d0}
	at := d0.Start() + 5000
	good := source.Cut{Slice: s, Run: "it's; a \"run\"~2", Rows: 3}
	with := func(f func(*source.Cut)) source.Cut { c := good; f(&c); return c }
	touch := func(format string, a ...any) string { return fmt.Sprintf(format, a...) }
	tests := []struct {
		name  string
		after string // the mark, before the prune
		cut   source.Cut
		want  bool
	}{
		{"as it was", "", good, true},
		{"it was trimmed before, and archived again", touch("INSERT INTO archive_trims VALUES (2, %d)", d0), good, true},
		{"another run", "", with(func(c *source.Cut) { c.Run = "other" }), false},
		{"no run", "", with(func(c *source.Cut) { c.Run = "" }), false},
		{"a row fewer", "", with(func(c *source.Cut) { c.Rows = 2 }), false},
		{"a row more", "", with(func(c *source.Cut) { c.Rows = 4 }), false},
		{"no rows", "", with(func(c *source.Cut) { c.Rows = 0 }), false},
		{"less than none", "", with(func(c *source.Cut) { c.Rows = -3 }), false},
		{"another day", "", with(func(c *source.Cut) { c.Day++ }), false},
		{"another point", "", with(func(c *source.Cut) { c.Point++ }), false},
		{"a late row", touch("INSERT INTO timeseries (point_id, timestamp) VALUES (2, %d)", at+1), good, false},
		{"a late row, and one less", touch("INSERT INTO timeseries (point_id, timestamp) VALUES (2, %d); DELETE FROM timeseries WHERE point_id = 2 AND timestamp = %d", at+1, at), good, false},
		{"a changed row", touch("UPDATE timeseries SET value = 9 WHERE point_id = 2 AND timestamp = %d", at), good, false},
		{"a replaced row", touch("REPLACE INTO timeseries (point_id, timestamp, value) VALUES (2, %d, 5)", at), good, false},
		{"a row less", touch("DELETE FROM timeseries WHERE point_id = 2 AND timestamp = %d", at), good, false},
		{"all rows gone", touch("DELETE FROM timeseries WHERE point_id = 2 AND timestamp BETWEEN %d AND %d", d0.Start(), d0.End()-1), good, false},
		{"all rows gone, and none asked for", touch("DELETE FROM timeseries WHERE point_id = 2 AND timestamp BETWEEN %d AND %d", d0.Start(), d0.End()-1), with(func(c *source.Cut) { c.Rows = 0 }), false},
		{"trimmed by others", touch("INSERT INTO archive_trims VALUES (2, %d); UPDATE archive_marks SET done = 2 WHERE point_id = 2 AND day = %d; DELETE FROM timeseries WHERE point_id = 2 AND timestamp BETWEEN %d AND %d", d0, d0, d0.Start(), d0.End()-1), good, false},
		{"claimed again", touch("REPLACE INTO archive_marks SELECT point_id, day, run, 0 FROM archive_marks"), good, false},
		{"unmarked", "DELETE FROM archive_marks", good, false},
		{"of the same number behind the back of the triggers, a fraction", touch("UPDATE archive_marks SET day = -1 WHERE point_id = 2 AND day = %d;"+
			"INSERT INTO timeseries (point_id, timestamp) VALUES (2, %d.5); UPDATE archive_marks SET day = %d WHERE day = -1", d0, at, d0), good, false},
		{"text sorts behind all days", "INSERT INTO timeseries (point_id, timestamp) VALUES (2, 'someday')", good, true},
	}
	points := []int32{1, 2, 3}
	span := days(d0-1, d0+2)
	for _, tt := range tests {
		h.Exec(t, "DELETE FROM timeseries; DELETE FROM archive_marks; DELETE FROM archive_trims")
		var all []source.Slice
		for _, id := range points {
			for d := span.From; d < span.To; d++ {
				insert(h, t, row(id, d.Start(), 1), row(id, d.Start()+5000, 1), row(id, d.End()-1, 1))
				all = append(all, source.Slice{Point: id, Day: d})
			}
		}
		claim(t, l, good.Run, all...)
		confirm(t, l, good.Run, len(all), all...)
		if tt.after != "" {
			h.Exec(t, tt.after)
		}
		before, _ := ReadAll(t, h.Source, source.Query{Points: points, Days: span})
		marked, gone := marks(t, l, span, points...), trims(t, l, span, points...)
		cut := prune(t, p, tt.cut, tt.cut)
		if tt.name == "another day" || tt.name == "another point" {
			tt.want = true // it has three rows, too
		}
		if tt.want != cut[tt.cut.Slice] {
			t.Errorf("%s: cut %v, want %t", tt.name, cut, tt.want)
		}
		if tt.want {
			before = slices.DeleteFunc(before, func(r Sample) bool { return r.Point == tt.cut.Point && utc.DayOf(r.TS) == tt.cut.Day })
			marked[tt.cut.Slice] = source.Mark{Slice: tt.cut.Slice, Run: good.Run, State: source.Trimmed}
			gone[tt.cut.Slice] = true
		}
		after, _ := ReadAll(t, h.Source, source.Query{Points: points, Days: span})
		equalRows(t, tt.name, after, before)
		if got := marks(t, l, span, points...); !maps.Equal(got, marked) {
			t.Errorf("%s: marks %v, want %v", tt.name, got, marked)
		}
		if got := trims(t, l, span, points...); !maps.Equal(got, gone) {
			t.Errorf("%s: trims %v, want %v", tt.name, got, gone)
		}
		if again := prune(t, p, tt.cut); len(again) != 0 {
			t.Errorf("%s: cut again: %v", tt.name, again)
		}
	}
	if cut := prune(t, p); len(cut) != 0 {
		t.Errorf("nothing: %v", cut)
	}

	claim(t, l, good.Run, s)
	insert(h, t, row(2, d0.Start()+7, 1))
	claim(t, l, good.Run, s)
	confirm(t, l, good.Run, 1, s)
	rows, _ := ReadAll(t, h.Source, source.Query{Points: []int32{2}, Days: days(d0, d0+1)})
	good.Rows = int64(len(rows))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if cut, _, err := p.Prune(ctx, []source.Cut{good}); !errors.Is(err, context.Canceled) || len(cut) != 0 {
		t.Errorf("cancelled: %v, %v", cut, err)
	}
	h.Exec(t, "DROP TRIGGER tr_timeseries_update_unmarks")
	if cut, _, err := p.Prune(t.Context(), []source.Cut{good}); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" || len(cut) != 0 {
		t.Errorf("without a trigger: %v, %v", cut, err)
	}
	if after, _ := ReadAll(t, h.Source, source.Query{Points: []int32{2}, Days: days(d0, d0+1)}); len(after) != len(rows) {
		t.Errorf("%d rows are left of %d", len(after), len(rows))
	}
}

// testPruneModel prunes many slices at a time, of which some were touched since
// they were counted, and compares rows, marks and trims with a model.
func testPruneModel(t *testing.T, h Harness) {
	l, p := pruner(t, h)
	r := random(t)
	span := days(d0, d0+20)
	points := make([]int32, 12)
	for i := range points {
		points[i] = int32(i + 1)
	}
	held := map[source.Slice]map[int64]bool{} // timestamps
	mark := map[source.Slice]source.Mark{}
	gone := map[source.Slice]bool{}
	var all []source.Slice
	for _, id := range points {
		for d := span.From; d < span.To; d++ {
			all = append(all, source.Slice{Point: id, Day: d})
			held[all[len(all)-1]] = map[int64]bool{}
		}
	}
	fill := func(sl source.Slice, n int) []Sample {
		var rows []Sample
		for range n {
			ts := sl.Day.Start() + r.Int64N(utc.DayMillis)
			if !held[sl][ts] {
				held[sl][ts] = true
				rows = append(rows, row(sl.Point, ts, 1))
			}
		}
		if len(rows) > 0 {
			delete(mark, sl)
		}
		return rows
	}
	pruned, deferred := 0, 0
	for round := range 6 {
		var rows []Sample
		for _, sl := range all {
			if r.IntN(3) > 0 {
				rows = append(rows, fill(sl, r.IntN(6))...)
			}
		}
		insert(h, t, rows...)
		run := fmt.Sprint("run ", round%2)
		var some []source.Slice
		for _, sl := range all {
			if r.IntN(4) > 0 {
				some = append(some, sl)
				mark[sl] = source.Mark{Slice: sl, Run: run, State: source.Marked}
			}
		}
		claim(t, l, run, some...)
		confirm(t, l, run, len(some), some...)
		var cuts []source.Cut
		for _, sl := range all {
			if r.IntN(4) > 0 {
				cuts = append(cuts, source.Cut{Slice: sl, Run: run, Rows: int64(len(held[sl]))})
			}
		}
		r.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
		rows = rows[:0]
		script := ""
		for _, sl := range all {
			switch r.IntN(8) {
			case 0:
				rows = append(rows, fill(sl, 1)...)
			case 1:
				for ts := range held[sl] {
					script += fmt.Sprintf("DELETE FROM timeseries WHERE point_id = %d AND timestamp = %d;", sl.Point, ts)
					delete(held[sl], ts)
					break
				}
			}
		}
		insert(h, t, rows...)
		h.Exec(t, script)

		want := map[source.Slice]bool{}
		for _, c := range cuts {
			if m := mark[c.Slice]; m.Run == c.Run && m.State == source.Marked && c.Rows > 0 && int64(len(held[c.Slice])) == c.Rows {
				want[c.Slice], gone[c.Slice] = true, true
				m.State = source.Trimmed
				mark[c.Slice] = m
				held[c.Slice] = map[int64]bool{}
			}
		}
		pruned, deferred = pruned+len(want), deferred+len(cuts)-len(want)
		if got := prune(t, p, cuts...); !maps.Equal(got, want) {
			t.Fatalf("round %d: cut %d slices, want %d: %v, want %v", round, len(got), len(want), got, want)
		}
		if got := marks(t, l, span, points...); !maps.Equal(got, mark) {
			t.Fatalf("round %d: marks differ", round)
		}
		if got := trims(t, l, span, points...); !maps.Equal(got, gone) {
			t.Fatalf("round %d: trims differ", round)
		}
		n := 0
		for _, ts := range held {
			n += len(ts)
		}
		got, _ := ReadAll(t, h.Source, source.Query{Points: points, Days: span})
		for _, s := range got {
			if !held[source.Slice{Point: s.Point, Day: utc.DayOf(s.TS)}][s.TS] {
				t.Fatalf("round %d: row %+v should have gone", round, s)
			}
		}
		if len(got) != n {
			t.Fatalf("round %d: %d rows, want %d", round, len(got), n)
		}
	}
	if pruned == 0 || deferred == 0 {
		t.Errorf("%d pruned, %d deferred", pruned, deferred)
	}
}

// testPruneBesideWriters: while slices are pruned, rows arrive in them, and others
// prune the same slices: no row is lost that came after the count, and no slice
// is cut twice.
func testPruneBesideWriters(t *testing.T, h Harness) {
	l, p := pruner(t, h)
	const points, perDay = 60, 20
	span := days(d0, d0+3)
	var cuts []source.Cut
	var all []source.Slice
	var ids []int32
	for id := int32(1); id <= points; id++ {
		ids = append(ids, id)
		for d := span.From; d < span.To; d++ {
			all = append(all, source.Slice{Point: id, Day: d})
			cuts = append(cuts, source.Cut{Slice: all[len(all)-1], Run: "r", Rows: perDay})
		}
	}
	h.Exec(t, fmt.Sprintf(`WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < %d), p(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM p WHERE id < %d)
		INSERT INTO timeseries (point_id, timestamp, value) SELECT p.id, (d.value) * 86400000 + i.n, 1 FROM p, i, json_each('[%d,%d,%d]') d`,
		perDay-1, points, d0, d0+1, d0+2))
	claim(t, l, "r", all...)
	confirm(t, l, "r", len(all), all...)

	var wg sync.WaitGroup
	late := map[source.Slice]bool{}
	wg.Go(func() {
		for i, sl := range all {
			if i%5 == 0 {
				late[sl] = true
				h.Exec(t, fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (%d, %d)", sl.Point, sl.Day.Start()+5000))
			}
		}
	})
	var mu sync.Mutex
	times := map[source.Slice]int{}
	for range 2 {
		wg.Go(func() {
			for some := range slices.Chunk(cuts, 25) {
				cut, _, err := p.Prune(t.Context(), some)
				if err != nil {
					t.Errorf("prune: %v", err)
				}
				mu.Lock()
				for _, sl := range cut {
					times[sl]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	held := map[source.Slice]int{}
	got, _ := ReadAll(t, h.Source, source.Query{Points: ids, Days: span})
	for _, s := range got {
		held[source.Slice{Point: s.Point, Day: utc.DayOf(s.TS)}]++
	}
	gone := trims(t, l, span, ids...)
	for _, sl := range all {
		want := 0
		if times[sl] == 0 {
			want = perDay
		}
		if late[sl] {
			want++
		}
		if times[sl] > 1 || held[sl] != want || gone[sl] != (times[sl] == 1) || (times[sl] == 0 && !late[sl]) {
			t.Errorf("%+v: cut %d times, recorded %t, late row %t, %d rows", sl, times[sl], gone[sl], late[sl], held[sl])
		}
	}
}
