package timing

import (
	"sync"
	"testing"
	"time"
)

func TestRecorder(t *testing.T) {
	r := New()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				r.Add(Put, time.Millisecond, 10)
				r.End(Merge, r.Start())
			}
		})
	}
	wg.Wait()
	s := r.Spans()
	if len(s) != 2 || s[0].Kind != Merge || s[0].Calls != 800 || s[1].Name != "put" || s[1].Calls != 800 || s[1].Seconds != 0.8 || s[1].Bytes != 8000 {
		t.Errorf("%+v", s)
	}
	for k := range kinds {
		if k.String() == "" || keys[k] == "" {
			t.Errorf("kind %d has no name", k)
		}
	}
}

// TestOff: what is not recorded costs nothing that can be counted.
func TestOff(t *testing.T) {
	var r *Recorder
	if n := testing.AllocsPerRun(100, func() { r.End(Put, r.Start()); r.Add(Get, 1, 1) }); n != 0 || !r.Start().IsZero() {
		t.Errorf("%g allocations", n)
	}
	on := New()
	if n := testing.AllocsPerRun(100, func() { on.End(Put, on.Start()) }); n != 0 {
		t.Errorf("%g allocations when on", n)
	}
}

func BenchmarkOff(b *testing.B) {
	var r *Recorder
	for b.Loop() {
		r.End(Put, r.Start())
	}
}

func BenchmarkOn(b *testing.B) {
	r := New()
	for b.Loop() {
		r.End(Put, r.Start())
	}
}
