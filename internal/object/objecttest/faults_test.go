package objecttest_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/object/objecttest"
)

func open(t *testing.T) *objecttest.Faults {
	t.Helper()
	s, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return objecttest.NewFaults(s)
}

// Without rules the decorator keeps the contract.
func TestConformance(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store { return open(t) })
}

// three makes the operations that the tests below break: 1 put, 2 get, 3 list.
func three(ctx context.Context, s object.Store) (listed int, putErr, getErr, listErr error) {
	_, putErr = s.Put(ctx, "a/k", []byte("x"), object.PutOptions{IfAbsent: true})
	_, _, getErr = s.Get(ctx, "a/k")
	for _, err := range s.List(ctx, "a/") {
		if err != nil {
			listErr = err
		} else {
			listed++
		}
	}
	return
}

func TestFailAtEveryOperation(t *testing.T) {
	for n := 1; n <= 4; n++ {
		s := open(t)
		s.Inject(objecttest.At(n), objecttest.Fail(fault.Unavailable))
		listed, p, g, l := three(t.Context(), s)
		if fault.Is(p, fault.Unavailable) != (n == 1) || fault.Is(g, fault.Unavailable) != (n == 2) || fault.Is(l, fault.Unavailable) != (n == 3) {
			t.Fatalf("fault at %d: put %v, get %v, list %v", n, p, g, l)
		}
		if n == 1 && !fault.Is(g, fault.NotExist) {
			t.Fatalf("a put that failed before it was done left an object: %v", g)
		}
		if want := map[int]int{1: 0, 2: 1, 3: 0, 4: 1}[n]; listed != want {
			t.Fatalf("fault at %d: %d objects listed, want %d", n, listed, want)
		}
		if fired := len(s.Fired()); s.Count() != 3 || (fired == 1) != (n <= 3) {
			t.Fatalf("fault at %d: %d operations, %d fired", n, s.Count(), fired)
		}
		if want := []string{"put a/k if-absent", "get a/k", "list a/"}; !slices.Equal(s.Trace(), want) {
			t.Fatalf("trace %q, want %q", s.Trace(), want)
		}
	}
}

func TestLoseReply(t *testing.T) {
	s := open(t)
	s.Inject(objecttest.From(1), objecttest.LoseReply())
	listed, p, g, l := three(t.Context(), s)
	if !fault.Is(p, fault.Unknown) || !fault.Is(g, fault.Transient) || !fault.Is(l, fault.Transient) || listed != 1 {
		t.Fatalf("put %v, get %v, list %v after %d", p, g, l, listed)
	}
	s.Reset()
	if data, a, err := s.Get(t.Context(), "a/k"); err != nil || string(data) != "x" || a.ETag == "" {
		t.Fatalf("the put was not done: %q, %v", data, err)
	}
	if s.Count() != 1 || len(s.Fired()) != 0 {
		t.Fatalf("after a reset: %d operations, fired %v", s.Count(), s.Fired())
	}
}

func TestHang(t *testing.T) {
	s := open(t)
	s.Inject(objecttest.On("get", ""), objecttest.Hang())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := s.Get(ctx, "a/k"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestBeforeAndAfter(t *testing.T) {
	// Another writer gets in between a read and the conditional write.
	s := open(t)
	other := func() {
		if _, err := s.Put(t.Context(), "k", []byte("other"), object.PutOptions{}); err != nil {
			t.Error(err)
		}
	}
	s.Inject(objecttest.First(1, objecttest.On("put", "k")), objecttest.Before(other))
	_, err := s.Put(t.Context(), "k", []byte("x"), object.PutOptions{IfAbsent: true})
	if !fault.Is(err, fault.Conflict) {
		t.Fatal(err)
	}
	s.Reset()
	called := false
	s.Inject(objecttest.On("", "k"), objecttest.After(func() { called = true }))
	if data, _, err := s.Get(t.Context(), "k"); err != nil || string(data) != "other" || !called {
		t.Fatalf("%q, %v, called %v", data, err, called)
	}
	n := 0
	for range s.List(t.Context(), "k") {
		n++
	}
	if want := []string{"get k", "list k"}; n != 1 || !slices.Equal(s.Trace(), want) || len(s.Fired()) != 2 {
		t.Fatalf("%d listed, trace %q, fired %v", n, s.Trace(), s.Fired())
	}
}
