//go:build linux || darwin

package object_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"etl/internal/object"
	"etl/internal/object/objecttest"
	"etl/internal/timing"
)

func TestConformanceOfTimed(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store { return object.Timed(openDir(t), timing.New()) })
}

// TestTimed counts operations and bytes, and offers what the store offers.
func TestTimed(t *testing.T) {
	below := openDir(t)
	if object.Timed(below, nil) != below {
		t.Error("a store is wrapped though nothing is recorded")
	}
	rec := timing.New()
	s := object.Timed(below, rec)
	ctx := t.Context()
	for _, key := range []object.Key{"a", "b"} {
		if _, err := s.Put(ctx, key, []byte("four"), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Get(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	for range s.List(ctx, "") {
		time.Sleep(200 * time.Millisecond) // which is not the store's time
	}
	for range s.List(ctx, "") {
		break
	}
	path := filepath.Join(t.TempDir(), "x")
	if err := s.(object.Linker).Link(ctx, []object.Key{"a"}, []string{path})[0]; err != nil {
		t.Error(err)
	} else if data, err := os.ReadFile(path); err != nil || string(data) != "four" {
		t.Errorf("%q, %v", data, err)
	}
	if err := object.Delete(ctx, s, "b"); err != nil {
		t.Fatal(err)
	}
	want := map[timing.Kind][2]int64{timing.Put: {2, 8}, timing.Get: {1, 4}, timing.List: {2, 0}, timing.Delete: {1, 0}}
	for _, span := range rec.Spans() {
		if w := want[span.Kind]; span.Calls != w[0] || span.Bytes != w[1] || span.Kind == timing.List && span.Seconds > 0.2 {
			t.Errorf("%+v, want %v", span, w)
		}
		delete(want, span.Kind)
	}
	if len(want) > 0 {
		t.Errorf("not recorded: %v", want)
	}
}

// TestPaceTimed: what a write waits for its turn is recorded apart from the write.
func TestPaceTimed(t *testing.T) {
	rec := timing.New()
	s := object.PaceTimed(object.Timed(openDir(t), rec), 300*time.Millisecond, rec)
	for range 2 {
		if _, err := s.Put(t.Context(), "k", []byte("x"), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, span := range rec.Spans() {
		if span.Kind == timing.WaitPace && (span.Calls != 2 || span.Seconds < 0.25) || span.Kind == timing.Put && span.Seconds > 0.25 {
			t.Errorf("%+v", span)
		}
	}
	if len(rec.Spans()) != 2 {
		t.Errorf("%+v", rec.Spans())
	}
}
