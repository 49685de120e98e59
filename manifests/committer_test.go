package manifests

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
)

func TestCommitFirstAndUnchanged(t *testing.T) {
	f := newFake()
	c := ready(t, f)
	e := put(t, f, key("a"), "-", toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 5), at(2, 7)}})
	zeros := utc.Set(0).With(1).With(3)
	if res := commit(t, c, Change{Point: 1, Name: "a", Entry: &e, Empty: zeros}, Change{Point: 2, Name: "b", Empty: zeros}); res.Puts != 1 {
		t.Fatalf("%d puts", res.Puts)
	}
	if n := f.count("get timeseries"); n != 0 {
		t.Fatalf("%d of our own files were read again", n)
	}
	m := stored(t, f)
	if got := m.Entry(1).Days; got[0] != 1 || got[1] != 0 || got[2] != 1 || got[3] != 0 || got[4] != sample.NotArchived {
		t.Fatal(got)
	}
	if b := m.Entry(2); b.Path != "" || b.Days.Archived() != zeros || b.Samples != 0 {
		t.Fatalf("%+v", b)
	}
	if m.Totals != (Totals{Points: 2, Files: 1, Samples: 2, Bytes: e.Bytes}) {
		t.Fatalf("%+v", m.Totals)
	}
	if !c.Manifest().Entry(1).Equal(m.Entry(1)) || c.Manifest().Commit != m.Commit {
		t.Fatal("the committer knows another manifest than is stored")
	}

	// The same again, here and in another process, writes nothing.
	for _, c := range []*Committer{c, ready(t, f)} {
		before := f.count("put")
		base := c.Manifest().Entry(1)
		if res := commit(t, c, Change{Point: 1, Name: "a", Base: base, Entry: base}, Change{Point: 2, Empty: zeros}); res.Puts != 0 || f.count("put") != before {
			t.Fatal("a run that changes nothing wrote")
		}
	}
	// Another ETag of the same bytes is a change.
	base := c.Manifest().Entry(1)
	e2 := *base
	e2.ETag = "moved"
	if res := commit(t, c, Change{Point: 1, Base: base, Entry: &e2}); res.Puts != 1 || stored(t, f).Entry(1).ETag != "moved" {
		t.Fatal("the ETag was not refreshed")
	}
	if res, err := c.Commit(t.Context()); err != nil || res.Puts != 0 || len(res.Committed) != 0 {
		t.Fatal(res, err)
	}
}

// A committer whose manifest is stale must not bring back what it remembers of
// a point that another has taken further.
func TestConflictDoesNotRegress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := ready(t, f)
		e0 := put(t, f, key("a"), "-", toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0)}})
		commit(t, a, Change{Point: 1, Name: "a", Entry: &e0})
		b := ready(t, f)
		base := a.Manifest().Entry(1)
		// a stores v1, then b merges v1 into v2 and commits first, with a zero of its own.
		e1 := put(t, f, key("a"), e0.ETag, toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0), at(1, 0)}})
		e2 := put(t, f, key("a"), e1.ETag, toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0), at(1, 0), at(2, 0)}})
		commit(t, b, Change{Point: 1, Name: "a", Base: base, Entry: &e2, Empty: utc.Set(0).With(5)})
		res := commit(t, a, Change{Point: 1, Name: "a", Base: base, Entry: &e1, Empty: utc.Set(0).With(6)})
		if res.Puts != 2 {
			t.Fatalf("%d puts, want a conflict and a success", res.Puts)
		}
		got := stored(t, f).Entry(1)
		if got.SHA256 != e2.SHA256 || got.ETag != e2.ETag || got.Samples != 3 || got.Days[5] != 0 || got.Days[6] != 0 {
			t.Fatalf("%+v", got)
		}

		// No conflict, but another Base: a knows b's entry by now and holds an old one in its hands.
		gets := f.count("get " + string(key("a")))
		commit(t, a, Change{Point: 1, Name: "a", Base: base, Entry: &e1})
		if got := stored(t, f).Entry(1); got.ETag != e2.ETag {
			t.Fatalf("%+v", got)
		}
		if f.count("get "+string(key("a"))) != gets+1 {
			t.Fatal("the object was not looked at")
		}
	})
}

// After a conflict nothing is taken from memory, not even of a point that
// nobody else touched.
func TestConflictReadsEveryObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		commit(t, ready(t, f), Change{Point: 8, Empty: 1})
		a := ready(t, f)
		commit(t, ready(t, f), Change{Point: 9, Empty: 1})
		e := put(t, f, key("a"), "-", toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0), at(1, 0)}})
		ch := Change{Point: 1, Name: "a", Entry: &e}
		if res := commit(t, a, ch); res.Puts != 2 || f.count("get timeseries") != 1 || !stored(t, f).Entry(1).Equal(&e) {
			t.Fatalf("%+v, %q", res, f.ops)
		}

		// An object that no longer holds what this run stored is not its success.
		commit(t, ready(t, f), Change{Point: 9, Empty: 2})
		base := a.Manifest().Entry(1)
		e2 := put(t, f, key("a"), e.ETag, toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0), at(1, 0), at(2, 0)}})
		put(t, f, key("a"), e2.ETag, toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0), at(1, 0)}})
		a.Add(Change{Point: 1, Name: "a", Base: base, Entry: &e2})
		res, err := a.Commit(t.Context())
		if err != nil || len(res.Failed) != 1 || !fault.Is(res.Failed[0].Err, fault.Corrupt) || !strings.Contains(res.Failed[0].Err.Error(), "lost 2024-01-03") {
			t.Fatalf("%+v, %v", res, err)
		}
	})
}

func TestOutcomeInDoubt(t *testing.T) {
	for _, landed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			c := ready(t, f)
			e := put(t, f, key("a"), "-", toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0)}})
			fired := false
			lose := func(k object.Key) error {
				if k == KeyOf(jan) && !fired {
					fired = true
					return errLost
				}
				return nil
			}
			if landed {
				f.after = func(k object.Key, _, _ []byte) error { return lose(k) }
			} else {
				f.before = func(op string, k object.Key) error {
					if op == "put" {
						return lose(k)
					}
					return nil
				}
			}
			res := commit(t, c, Change{Point: 1, Name: "a", Entry: &e})
			want := 2
			if landed {
				want = 1
			}
			if !fired || res.Puts != want || (landed && f.count("get timeseries") > 0) || !stored(t, f).Entry(1).Equal(&e) || c.Manifest().Commit != stored(t, f).Commit {
				t.Fatalf("landed %v: fired %v, %d puts", landed, fired, res.Puts)
			}
		})
	}
}

// The reply is lost and somebody else commits on top before we look.
func TestLostReplyAndAnotherCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := ready(t, f)
		e := put(t, f, key("a"), "-", toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0)}})
		fired := false
		f.after = func(k object.Key, _, _ []byte) error {
			if k != KeyOf(jan) || fired {
				return nil
			}
			fired = true
			commit(t, ready(t, f), Change{Point: 9, Empty: 1})
			return errLost
		}
		if res := commit(t, c, Change{Point: 1, Name: "a", Entry: &e}); !fired || res.Puts != 1 {
			t.Fatalf("fired %v, %+v", fired, res)
		}
		if m := stored(t, f); !m.Entry(1).Equal(&e) || m.Entry(9) == nil {
			t.Fatalf("%+v", m)
		}
	})
}

func TestGivesUpAndKeepsPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := ready(t, f)
		e := put(t, f, key("a"), "-", toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0)}})
		f.before = func(op string, k object.Key) error {
			if op == "put" {
				return fault.Errorf(fault.Conflict, "put %s: another version", k)
			}
			return nil
		}
		c.Add(Change{Point: 1, Name: "a", Entry: &e})
		start := time.Now()
		res, err := c.Commit(t.Context())
		if !fault.Is(err, fault.Transient) || !strings.Contains(err.Error(), "month 2024-01: manifest kept changing, gave up after 10 attempts") || res.Puts != 10 {
			t.Fatal(res, err)
		}
		if d := time.Since(start); d < 5*time.Second || d > 25*time.Second {
			t.Fatalf("waited %s", d)
		}
		f.before = nil
		if res := commit(t, c); len(res.Committed) != 1 || !stored(t, f).Entry(1).Equal(&e) {
			t.Fatal("what was pending is no longer")
		}
	})
}

func TestPendingSurvivesAnError(t *testing.T) {
	f := newFake()
	c := ready(t, f)
	e := put(t, f, key("a"), "-", toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0)}})
	boom := fault.Wrap(fault.Unavailable, errors.New("disk full"))
	f.before = func(op string, _ object.Key) error {
		if op == "put" {
			c.Add(Change{Point: 2, Empty: 1}) // while the commit runs
			return boom
		}
		return nil
	}
	c.Add(Change{Point: 1, Name: "a", Entry: &e})
	if _, err := c.Commit(t.Context()); !errors.Is(err, boom) || !fault.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.before = nil
	if _, err := c.Commit(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	res, err := c.Commit(t.Context())
	if err != nil || len(res.Committed) != 2 || res.Committed[0].Point != 1 {
		t.Fatal(res, err)
	}
}

func TestPointsThatFailAlone(t *testing.T) {
	day := func(days ...int) toy {
		y := toy{Point: 1, Name: "a", Month: jan}
		for _, d := range days {
			y.TS = append(y.TS, at(d, 0))
		}
		return y
	}
	other := day(0)
	other.Point = 7
	december := toy{Point: 1, Name: "a", Month: jan - 1}
	for name, c := range map[string]struct {
		spoil func(f *fake) // what happens to the object after it was stored
		kind  fault.Kind
		text  string
	}{
		"missing":     {func(f *fake) { delete(f.objects, key("a")) }, fault.Corrupt, "vanished"},
		"foreign":     {func(f *fake) { f.objects[key("a")] = version{other.encode(), "x"} }, fault.Corrupt, "names point 7"},
		"other month": {func(f *fake) { f.objects[key("a")] = version{december.encode(), "x"} }, fault.Corrupt, "names month 2023-12"},
		"unreadable":  {func(f *fake) { f.objects[key("a")] = version{[]byte("PAR1"), "x"} }, fault.Corrupt, "a.parquet"},
		"lost ours":   {func(f *fake) { f.objects[key("a")] = version{day(0, 2).encode(), "x"} }, fault.Corrupt, "lost 2024-01-02"},
		"lost theirs": {func(f *fake) { f.objects[key("a")] = version{day(0, 1).encode(), "x"} }, fault.Corrupt, "lost 2024-01-03"},
		"unreachable": {func(f *fake) {
			f.before = func(op string, k object.Key) error {
				if k == key("a") {
					return fault.Errorf(fault.Transient, "get %s: 503", k)
				}
				return nil
			}
		}, fault.Transient, "503"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			a := ready(t, f)
			e0 := put(t, f, key("a"), "-", day(0))
			commit(t, a, Change{Point: 1, Name: "a", Entry: &e0})
			base := a.Manifest().Entry(1)
			e1 := put(t, f, key("a"), e0.ETag, day(0, 1))
			e2 := put(t, f, key("a"), e1.ETag, day(0, 1, 2))
			commit(t, a, Change{Point: 1, Name: "a", Base: base, Entry: &e2})
			c.spoil(f)
			a.Add(Change{Point: 1, Name: "a", Base: base, Entry: &e1})
			a.Add(Change{Point: 2, Name: "b", Empty: 1})
			res, err := a.Commit(t.Context())
			if err != nil || len(res.Failed) != 1 || len(res.Committed) != 1 || res.Committed[0].Point != 2 {
				t.Fatalf("%+v %v", res, err)
			}
			if err := res.Failed[0].Err; !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
				t.Fatal(err)
			}
			f.before = nil
			if m := stored(t, f); !m.Entry(1).Equal(&e2) || m.Entry(2) == nil {
				t.Fatalf("%+v", m.Points)
			}
			if res, err := a.Commit(t.Context()); err != nil || res.Puts != 0 {
				t.Fatal("the failed change is still pending")
			}
		})
	}
}

func TestPathsThatClash(t *testing.T) {
	f := newFake()
	c := ready(t, f)
	e := put(t, f, key("a"), "-", toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0)}})
	commit(t, c, Change{Point: 1, Name: "a", Entry: &e})
	elsewhere := put(t, f, key("a-p1"), "-", toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0)}})
	taken := put(t, f, key("a"), "", toy{Point: 2, Name: "A", Month: jan, TS: []int64{at(0, 0)}})
	bad := taken
	bad.Days = bad.Days[:28]
	for i, ch := range []Change{
		{Point: 1, Name: "a", Base: &e, Entry: &elsewhere},
		{Point: 2, Name: "A", Entry: &taken},
		{Point: 2, Name: "A", Entry: &bad},
		{Point: 3, Name: "A", Entry: &taken},
	} {
		c.Add(ch)
		res, err := c.Commit(t.Context())
		want := []fault.Kind{fault.Conflict, fault.Corrupt, fault.Internal, fault.Internal}[i]
		if err != nil || len(res.Failed) != 1 || !fault.Is(res.Failed[0].Err, want) || res.Puts != 0 {
			t.Fatalf("%d: %+v, %v", i, res, err)
		}
	}
}

func TestReplaceMayEmptyADay(t *testing.T) {
	f := newFake()
	c := ready(t, f)
	e := put(t, f, key("a"), "-", toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0), at(1, 0)}})
	commit(t, c, Change{Point: 1, Name: "a", Entry: &e})
	base := c.Manifest().Entry(1)
	e = put(t, f, key("a"), e.ETag, toy{Point: 1, Name: "a", Month: jan, Zeros: 2, TS: []int64{at(0, 0)}})
	commit(t, c, Change{Point: 1, Name: "a", Base: base, Entry: &e, Empty: 2})
	if got := stored(t, f).Entry(1); got.Days[1] != 0 || got.Samples != 1 {
		t.Fatalf("%+v", got)
	}
}

func TestNames(t *testing.T) {
	f := newFake()
	c := ready(t, f)
	name := func() string { return stored(t, f).Entry(5).Name }
	commit(t, c, Change{Point: 5, Empty: 1, Name: "point-5"})
	commit(t, c, Change{Point: 5, Empty: 1, Name: "Pump\xff"})
	if name() != "Pump\ufffd" {
		t.Fatalf("%q", name())
	}
	for _, same := range []string{"point-5", "", "Pump\xff"} {
		if res := commit(t, c, Change{Point: 5, Empty: 1, Name: same}); res.Puts != 0 {
			t.Fatalf("%q became %q", same, name())
		}
	}
}

func TestAdoption(t *testing.T) {
	f := newFake()
	rows := func(n int) (ts []int64) {
		for i := range n {
			ts = append(ts, at(i, 0))
		}
		return ts
	}
	a := put(t, f, key("a"), "-", toy{Point: 1, Name: "a", Month: jan, Zeros: 1 << 30, TS: rows(2)})
	// Three files claim point 2; two have most samples, one of them at its plain slug.
	put(t, f, key("a-b"), "-", toy{Point: 2, Name: "b", Month: jan, TS: rows(3)})
	b := put(t, f, key("b"), "-", toy{Point: 2, Name: "b", Month: jan, TS: rows(3)})
	put(t, f, key("b-p2"), "-", toy{Point: 2, Name: "b", Month: jan, TS: rows(1)})
	f.objects[key("junk")] = version{[]byte("junk"), "j"}
	f.objects["timeseries/2024/01/readme.txt"] = version{toy{Point: 3, Month: jan, TS: rows(1)}.encode(), "k"}
	f.objects["timeseries/2024/010/x.parquet"] = version{[]byte("not of this month"), "l"}
	f.objects[key("dec")] = version{toy{Point: 4, Name: "d", Month: jan - 1}.encode(), "m"}

	c := NewCommitter(f, jan, describeToy, Options{})
	if c.Due() {
		t.Fatal("due before anything was loaded")
	}
	warnings, err := c.Load(t.Context())
	if err != nil || len(warnings) != 5 {
		t.Fatalf("%q %v", warnings, err)
	}
	if got := c.Manifest(); len(got.Points) != 2 || !got.Entry(1).Equal(&a) || !got.Entry(2).Equal(&b) {
		t.Fatalf("%+v", got)
	}
	if f.count("put _manifests") > 0 {
		t.Fatal("Load wrote")
	}
	// The commit keeps the files of points that the run did not touch, sees one
	// that came meanwhile, and reads no other again.
	late := put(t, f, key("late"), "-", toy{Point: 8, Name: "late", Month: jan, TS: rows(1)})
	base := c.Manifest().Entry(1)
	a2 := put(t, f, key("a"), a.ETag, toy{Point: 1, Name: "a", Month: jan, Zeros: 1 << 30, TS: rows(5)})
	gets := f.count("get timeseries")
	commit(t, c, Change{Point: 1, Name: "a", Base: base, Entry: &a2})
	if n := f.count("get timeseries") - gets; n != 1 {
		t.Fatalf("%d files read again, want the late one", n)
	}
	m := stored(t, f)
	if len(m.Points) != 3 || !m.Entry(1).Equal(&a2) || !m.Entry(2).Equal(&b) || !m.Entry(8).Equal(&late) {
		t.Fatalf("%+v", m.Points)
	}
}

// A file was stored, the process died before the manifest; the next one adopts
// it although nothing changes any more.
func TestCrashBeforeTheFirstManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		e := put(t, f, key("old-name"), "-", toy{Point: 1, Name: "old name", Month: jan, TS: []int64{at(0, 0)}})
		c := ready(t, f)
		if c.Due() {
			t.Fatal("due at once")
		}
		time.Sleep(31 * time.Second)
		if !c.Due() {
			t.Fatal("an adopted manifest is never due")
		}
		n := NewNamer(jan, []sample.Point{{ID: 1, Name: "new name"}}, c.Manifest())
		if got := slices.Collect(n.Paths(sample.Point{ID: 1, Name: "new name"})); !slices.Equal(got, []object.Key{key("old-name")}) {
			t.Fatal(got)
		}
		if res := commit(t, c); res.Puts != 1 || !stored(t, f).Entry(1).Equal(&e) {
			t.Fatal("not adopted")
		}
		if c.Due() {
			t.Fatal("due after the commit")
		}
	})
}

func TestConcurrentFirstManifests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a, b := ready(t, f), ready(t, f)
		e1 := put(t, f, key("a"), "-", toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0)}})
		e2 := put(t, f, key("b"), "-", toy{Point: 2, Name: "b", Month: jan, TS: []int64{at(0, 0)}})
		// b commits between a's look and a's write.
		hit := false
		f.before = func(op string, k object.Key) error {
			if op == "put" && !hit {
				hit = true
				commit(t, b, Change{Point: 2, Name: "b", Entry: &e2, Empty: 2})
			}
			return nil
		}
		if res := commit(t, a, Change{Point: 1, Name: "a", Entry: &e1, Empty: 2}); !hit || res.Puts != 2 {
			t.Fatalf("%v %+v", hit, res)
		}
		m := stored(t, f)
		if m.Entry(1).ETag != e1.ETag || m.Entry(2).ETag != e2.ETag || m.Entry(1).Days[1] != 0 || m.Entry(2).Days[1] != 0 {
			t.Fatalf("%+v", m.Points)
		}
	})
}

func TestManifestMovedAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := ready(t, f)
		e := put(t, f, key("a"), "-", toy{Point: 1, Name: "a", Month: jan, TS: []int64{at(0, 0)}})
		commit(t, c, Change{Point: 1, Name: "a", Entry: &e})
		delete(f.objects, KeyOf(jan))
		if res := commit(t, c, Change{Point: 2, Name: "b", Empty: 1}); res.Puts != 2 {
			t.Fatalf("%+v", res)
		}
		if m := stored(t, f); !m.Entry(1).Equal(&e) || m.Entry(2) == nil {
			t.Fatalf("%+v", m.Points)
		}
	})
}

func TestCorruptManifestStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := ready(t, f)
		commit(t, c, Change{Point: 1, Empty: 1})
		f.objects[KeyOf(jan)] = version{[]byte("{"), "broken"}
		c.Add(Change{Point: 1, Empty: 2})
		res, err := c.Commit(t.Context())
		if !fault.Is(err, fault.Corrupt) || res.Puts != 1 {
			t.Fatal(res, err)
		}
		if _, err := NewCommitter(f, jan, describeToy, Options{}).Load(t.Context()); !fault.Is(err, fault.Corrupt) {
			t.Fatal(err)
		}
		if string(f.objects[KeyOf(jan)].data) != "{" {
			t.Fatal("a corrupt manifest was overwritten")
		}
	})
}

func TestDue(t *testing.T) {
	var now time.Time
	f := newFake()
	for range 100 {
		c := NewCommitter(f, jan, describeToy, Options{Now: func() time.Time { return now }})
		start := now
		now = now.Add(5*time.Second - 1)
		c.Add(Change{Point: 1, Empty: 1})
		if c.Due() {
			t.Fatal("due too early")
		}
		now = start.Add(30 * time.Second)
		if !c.Due() {
			t.Fatal("not due in time")
		}
		if commit(t, c); c.Due() {
			t.Fatal("due with nothing to commit")
		}
	}
}

// BenchmarkCommit commits one more day of 100 points into a manifest of 10,000,
// and of all of them. It costs no network here, and no month file is read.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("changes=%d", n), func(b *testing.B) {
			f := newFake()
			m := big(10_000)
			f.objects[KeyOf(jan)] = version{Encode(m), "x"}
			c := ready(b, f)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				now := c.Manifest()
				for k := range n {
					base := &now.Points[k]
					e := *base
					e.ETag = fmt.Sprint("etag", i)
					c.Add(Change{Point: e.ID, Name: e.Name, Base: base, Entry: &e})
				}
				res, err := c.Commit(b.Context())
				if err != nil || len(res.Committed) != n || res.Puts != 1 {
					b.Fatal(len(res.Committed), err)
				}
			}
		})
	}
}
