//go:build integration

package s3

import (
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/objecttest"
	"etl/internal/testserver"
)

// services are the real S3 services, in the order of how much they are like R2.
var services = []struct {
	name string
	open func(testing.TB, testserver.Options) testserver.S3
}{
	{"miniflare", func(t testing.TB, o testserver.Options) testserver.S3 { return testserver.Miniflare(t, o).R2 }},
	{"versitygw", func(t testing.TB, o testserver.Options) testserver.S3 { return *testserver.Versitygw(t, o) }},
}

// bucket is a new bucket of a service.
func bucket(t testing.TB, b testserver.S3) Options {
	t.Helper()
	o := Options{Endpoint: b.URL, Region: b.Region, Bucket: b.Bucket, AccessKey: b.AccessKey, Secret: b.Secret, PathStyle: true}
	if b.CAFile != "" {
		pem, err := os.ReadFile(b.CAFile)
		if err != nil {
			t.Fatal(err)
		}
		o.RootCAs = x509.NewCertPool()
		if !o.RootCAs.AppendCertsFromPEM(pem) {
			t.Fatalf("%s holds no certificate", b.CAFile)
		}
	}
	return o
}

func TestIntegrationConformance(t *testing.T) {
	for _, service := range services {
		for _, tc := range []struct {
			name      string
			tls       bool
			prefix    string
			decorated bool
		}{
			{"http", false, "", false},
			{"TLS", true, "", false},
			{"TLS, prefix", true, "some where/é", false},
			{"TLS, retried and paced", true, "", true},
		} {
			t.Run(service.name+"/"+tc.name, func(t *testing.T) {
				objecttest.Run(t, func(t *testing.T) object.Store {
					o := bucket(t, service.open(t, testserver.Options{TLS: tc.tls}))
					o.Prefix = tc.prefix
					s := open(t, o)
					if tc.decorated {
						// The interval is short to keep the suite so; TestIntegrationRace has R2's.
						return object.Retry(object.Pace(s, 20*time.Millisecond), fault.Policy{})
					}
					return s
				})
			})
		}
	}
}

// TestIntegrationRace has 20 writers increment one object, at the pace that R2
// asks for; the count is exact.
func TestIntegrationRace(t *testing.T) {
	const writers = 20
	for _, service := range services {
		t.Run(service.name, func(t *testing.T) {
			t.Parallel()
			o := bucket(t, service.open(t, testserver.Options{TLS: true}))
			s := object.Retry(object.Pace(open(t, o), time.Second), fault.Policy{})
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					if lost, err := objecttest.Increment(t.Context(), s, "n"); lost != 0 || err != nil {
						t.Errorf("increment: %d lost, %v", lost, err)
					}
				})
			}
			wg.Wait()
			if data, _, err := s.Get(t.Context(), "n"); err != nil || string(data) != fmt.Sprint(writers) {
				t.Errorf("%q, %v; want %d", data, err, writers)
			}
		})
	}
}

// TestIntegrationUnpacedRace is the same as fast as it goes, five times each.
func TestIntegrationUnpacedRace(t *testing.T) {
	const writers, each = 20, 5
	for _, service := range services {
		t.Run(service.name, func(t *testing.T) {
			s := object.Retry(open(t, bucket(t, service.open(t, testserver.Options{}))), fault.Policy{})
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					for range each {
						if lost, err := objecttest.Increment(t.Context(), s, "n"); lost != 0 || err != nil {
							t.Errorf("increment: %d lost, %v", lost, err)
							return
						}
					}
				})
			}
			wg.Wait()
			if data, _, err := s.Get(t.Context(), "n"); err != nil || string(data) != fmt.Sprint(writers*each) {
				t.Errorf("%q, %v; want %d", data, err, writers*each)
			}
		})
	}
}

// TestIntegrationAnswers are those that need a real service.
func TestIntegrationAnswers(t *testing.T) {
	for _, service := range services {
		t.Run(service.name, func(t *testing.T) {
			good := bucket(t, service.open(t, testserver.Options{TLS: true}))
			for _, tc := range []struct {
				name   string
				change func(*Options)
				kind   fault.Kind
				hint   string
			}{
				{"secret", func(o *Options) { o.Secret = "wrong" }, fault.Unavailable, "secret"},
				{"access key", func(o *Options) { o.AccessKey = "wrong" }, fault.Unavailable, "access key"},
				{"bucket", func(o *Options) { o.Bucket = "no-such-bucket" }, fault.Unavailable, "no-such-bucket"},
				{"authority", func(o *Options) { o.RootCAs = nil }, fault.Unavailable, "--ca-file"},
			} {
				o := good
				tc.change(&o)
				s := open(t, o)
				for _, op := range operations {
					err := op.do(t.Context(), s)
					if !fault.Is(err, tc.kind) || !strings.Contains(fault.HintOf(err), tc.hint) {
						t.Errorf("wrong %s: %s: %v of kind %s, hint %q", tc.name, op.name, err, fault.KindOf(err), fault.HintOf(err))
					}
				}
			}
			// Bytes that are not those that were signed.
			s := newStore(good, roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodPut {
					r.Body = io.NopCloser(strings.NewReader("dada"))
				}
				return open(t, good).client.Options().HTTPClient.(*http.Client).Transport.RoundTrip(r)
			}))
			if _, err := s.Put(t.Context(), "k", []byte("data"), object.PutOptions{}); !fault.Is(err, fault.Transient) {
				t.Errorf("damaged bytes: %v of kind %s", err, fault.KindOf(err))
			}
			if _, _, err := s.Get(t.Context(), "k"); !fault.Is(err, fault.NotExist) {
				t.Errorf("damaged bytes were stored: %v", err)
			}
		})
	}
}

// TestIntegrationMetadata shows what comes back of metadata, and that none of
// it fails a write.
func TestIntegrationMetadata(t *testing.T) {
	for _, service := range services {
		t.Run(service.name, func(t *testing.T) {
			s := open(t, bucket(t, service.open(t, testserver.Options{TLS: true})))
			for _, name := range []string{"AHU-1/Supply Temp", "Vorlauf °C", "温度🌡️", " lead", "two  spaces", "", "=?utf-8?b?eA==?=", "a\nb", "\xff", "x,y; z=\"1\" 100%", strings.Repeat("é", 600), strings.Repeat("x", 1900), strings.Repeat("x", 5000)} {
				meta := map[string]string{"pointId": "7", "pointName": name}
				if _, err := s.Put(t.Context(), "k", nil, object.PutOptions{Meta: meta}); err != nil {
					t.Errorf("%.40q: %v", name, err)
					continue
				}
				_, a, err := s.Get(t.Context(), "k")
				if err != nil || a.Meta["pointid"] != "7" {
					t.Errorf("%.40q: %v, %v", name, a.Meta, err)
				}
				sent, err := encodeMeta(meta)
				if err != nil {
					t.Fatal(err)
				}
				_, want := sent["pointName"]
				if got, ok := a.Meta["pointname"]; ok && got != name || ok != want && name != "" {
					t.Errorf("%.40q comes back as %.40q", name, got)
				}
			}
		})
	}
}

// TestIntegrationListAfter begins listings at and between the keys.
func TestIntegrationListAfter(t *testing.T) {
	keys := []object.Key{"a b", "a+b", "a-b", "a/1", "a/2", "a/é", "a0", "b%2F"}
	for _, service := range services {
		t.Run(service.name, func(t *testing.T) {
			o := bucket(t, service.open(t, testserver.Options{}))
			o.Prefix = "p/q"
			s := open(t, o)
			for _, k := range keys {
				if _, err := s.Put(t.Context(), k, nil, object.PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			for _, prefix := range []string{"", "a", "a/"} {
				for _, after := range append([]object.Key{"", "a", "a/11", "zz"}, keys...) {
					var got, want []object.Key
					for a, err := range s.ListAfter(t.Context(), prefix, after) {
						if err != nil {
							t.Fatal(err)
						}
						got = append(got, a.Key)
					}
					for _, k := range keys {
						if k > after && strings.HasPrefix(string(k), prefix) {
							want = append(want, k)
						}
					}
					if !slices.Equal(got, want) {
						t.Errorf("list %q after %q: %q, want %q", prefix, after, got, want)
					}
				}
			}
		})
	}
}
