package s3

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/objecttest"
)

// proxied is a store over a service behind a proxy that can spoil a connection.
func proxied(t *testing.T) (*Store, *toxiproxy.Proxy) {
	t.Helper()
	p := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), t.Name(), "127.0.0.1:0", strings.TrimPrefix(fake(t).URL, "http://"))
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return open(t, options("http://"+p.Listen)), p
}

// TestBrokenConnections spoils the connection under each operation, and mends
// it. 300,000 bytes are more than the buffers of a connection hold by
// themselves; toxics cut at a number of bytes.
func TestBrokenConnections(t *testing.T) {
	old, fresh := bytes.Repeat([]byte("o"), 300_000), bytes.Repeat([]byte("f"), 300_000)
	for _, tc := range []struct {
		name  string
		toxic string
		get   fault.Kind // 0 for success
		// kinds of a put that may have been done, or may not, as the kernels'
		// buffers take more or less of it before they see the break
		put  []fault.Kind
		list fault.Kind
		done bool // the service did the put; else it did not
	}{
		{"latency", `{"type":"latency","stream":"downstream","attributes":{"latency":50,"jitter":20}}`, 0, []fault.Kind{0}, 0, true},
		{"slices", `{"type":"slicer","stream":"downstream","attributes":{"average_size":2000,"size_variation":1000,"delay":10}}`, 0, []fault.Kind{0}, 0, true},
		{"reset", `{"type":"reset_peer","stream":"upstream","attributes":{"timeout":0}}`, transient, []fault.Kind{transient, unknown}, transient, false},
		{"request cut", `{"type":"limit_data","stream":"upstream","attributes":{"bytes":100}}`, transient, []fault.Kind{transient, unknown}, transient, false},
		{"object cut", `{"type":"limit_data","stream":"upstream","attributes":{"bytes":100000}}`, 0, []fault.Kind{transient, unknown}, 0, false},
		{"reply lost", `{"type":"limit_data","stream":"downstream","attributes":{"bytes":0}}`, transient, []fault.Kind{unknown}, transient, true},
		{"reply cut in its head", `{"type":"limit_data","stream":"downstream","attributes":{"bytes":40}}`, transient, []fault.Kind{unknown}, transient, true},
		{"reply cut in its body", `{"type":"limit_data","stream":"downstream","attributes":{"bytes":500}}`, transient, []fault.Kind{0}, transient, true},
		{"black hole", `{"type":"timeout","stream":"downstream","attributes":{"timeout":0}}`, transient, []fault.Kind{unknown}, transient, true},
		{"slow close", `{"type":"slow_close","stream":"downstream","attributes":{"delay":100}}`, 0, []fault.Kind{0}, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, p := proxied(t)
			if tc.name == "black hole" {
				s.patience, s.pace = time.Second, 1<<30
			}
			a, err := s.Put(t.Context(), "k", old, object.PutOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 { // a listing of more than 500 bytes
				if _, err := s.Put(t.Context(), object.Key(strings.Repeat("l", 100*(i+1))), nil, object.PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			// Each operation has a spoilt connection of its own.
			spoil := func(f func(s *Store)) {
				t.Helper()
				s.client.Options().HTTPClient.(interface{ CloseIdleConnections() }).CloseIdleConnections()
				if _, err := p.Toxics.AddToxicJson(strings.NewReader(strings.Replace(tc.toxic, "{", `{"name":"x",`, 1))); err != nil {
					t.Fatal(err)
				}
				f(s)
				if err := p.Toxics.RemoveToxic(context.Background(), "x"); err != nil {
					t.Fatal(err)
				}
				s.client.Options().HTTPClient.(interface{ CloseIdleConnections() }).CloseIdleConnections()
			}
			want := func(op string, err error, kinds ...fault.Kind) {
				t.Helper()
				for _, k := range kinds {
					if k == 0 && err == nil || k != 0 && fault.Is(err, k) {
						return
					}
				}
				t.Errorf("%s: %v of kind %s, want %v", op, err, fault.KindOf(err), kinds)
			}
			spoil(func(s *Store) {
				data, _, err := s.Get(t.Context(), "k")
				want("get", err, tc.get)
				if err == nil && !bytes.Equal(data, old) {
					t.Errorf("get returned other bytes")
				}
			})
			spoil(func(s *Store) { want("list", operations[len(operations)-1].do(t.Context(), s), tc.list) })
			var puterr error
			spoil(func(s *Store) {
				_, puterr = s.Put(t.Context(), "k", fresh, object.PutOptions{IfMatch: a.ETag})
				want("put", puterr, tc.put...)
			})
			// What is known of the outcome is so. A put cut short is settled
			// only when its connection is, so the service is asked for a while.
			deadline := time.Now().Add(10 * time.Second)
			for {
				data, b, err := s.Get(t.Context(), "k")
				if err != nil {
					t.Fatal(err)
				}
				if done := bytes.Equal(data, fresh); done == tc.done {
					if !done && (b.ETag != a.ETag || !bytes.Equal(data, old)) {
						t.Errorf("the object is neither the old one nor the new one")
					}
					if puterr == nil && !done {
						t.Errorf("put returned nil and did nothing")
					}
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the put was done: %v, want %v", !tc.done, tc.done)
				}
				time.Sleep(10 * time.Millisecond)
			}
			// What was done unseen answers a second put with a conflict.
			_, err = s.Put(t.Context(), "k", fresh, object.PutOptions{IfMatch: a.ETag})
			if tc.done {
				want("put again", err, conflict)
			} else {
				want("put again", err, 0)
			}
		})
	}
}

// TestIncrementsOverFlakyConnections counts over a proxy that breaks
// every second connection or so: no increment that was acknowledged is lost, none counts
// twice but those whose outcome was unknown.
func TestIncrementsOverFlakyConnections(t *testing.T) {
	_, p := proxied(t)
	// Each request has a connection of its own, so that each may be hit.
	s := newStore(options("http://"+p.Listen), &http.Transport{DisableKeepAlives: true})
	for _, toxic := range []string{
		`{"name":"up","type":"reset_peer","toxicity":0.1,"stream":"upstream","attributes":{"timeout":0}}`,
		`{"name":"lost","type":"limit_data","toxicity":0.2,"stream":"downstream","attributes":{"bytes":0}}`,
		`{"name":"down","type":"limit_data","toxicity":0.3,"stream":"downstream","attributes":{"bytes":2000}}`,
	} {
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			t.Fatal(err)
		}
	}
	var retries fault.Counter
	store := object.Retry(s, fault.Policy{Base: time.Millisecond, Cap: 10 * time.Millisecond, Attempts: 100, Notify: retries.Count})
	const each, writers = 20, 8
	type result struct {
		lost int
		err  error
	}
	results := make(chan result)
	for range writers {
		go func() {
			var r result
			for range each {
				lost, err := objecttest.Increment(t.Context(), store, "n")
				r.lost += lost
				if err != nil {
					r.err = err
					break
				}
			}
			results <- r
		}()
	}
	lost := 0
	for range writers {
		r := <-results
		lost += r.lost
		if r.err != nil {
			t.Error(r.err)
		}
	}
	p.Toxics.ResetToxics(t.Context())
	data, _, err := s.Get(t.Context(), "n")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(string(data))
	if err != nil || n < each*writers || n > each*writers+lost {
		t.Fatalf("%q after %d increments, %d more of unknown outcome", data, each*writers, lost)
	}
	t.Logf("%d increments counted as %d, %d of unknown outcome, %d attempts repeated", each*writers, n, lost, retries.Load())
	if lost == 0 || retries.Load() == 0 {
		t.Error("no fault was met")
	}
}
