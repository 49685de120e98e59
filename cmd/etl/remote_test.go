package main

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/rogpeppe/go-internal/testscript"

	"etl/internal/cloudflare/cloudflaretest"
)

// TestRemoteScripts runs testdata/remote: the program over the network, with D1's
// REST interface over the file d1.sqlite and an S3 service over TLS, both of this
// process. The scripts find in their environment
//
//	API ACCOUNT TOKEN TOKEN_ID DATABASE   of the REST interface
//	S3                                    the endpoint with the bucket archive; ca.pem vouches for both
//
// and have beside the commands of TestScripts
//
//	d1 FAULT, s3 FAULT   let the service do that to requests; "none" ends it
func TestRemoteScripts(t *testing.T) {
	countWatched(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/remote",
		Setup: func(env *testscript.Env) error {
			api, err := cloudflaretest.New(filepath.Join(env.WorkDir, "d1.sqlite"), cloudflaretest.Options{TLS: true})
			if err != nil {
				return err
			}
			env.Defer(func() { _ = api.Close() })
			backend := s3mem.New()
			if err := backend.CreateBucket("archive"); err != nil {
				return err
			}
			store := &faultyS3{Handler: gofakes3.New(backend, gofakes3.WithTimeSkewLimit(0)).Server()}
			srv := httptest.NewTLSServer(store)
			env.Defer(srv.Close)
			roots := append(api.CA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})...)
			if err := os.WriteFile(filepath.Join(env.WorkDir, "ca.pem"), roots, 0o644); err != nil {
				return err
			}
			env.Values["d1"], env.Values["s3"] = api, store
			for k, v := range map[string]string{
				"API": api.URL, "ACCOUNT": cloudflaretest.Account, "TOKEN": cloudflaretest.Token, "TOKEN_ID": cloudflaretest.TokenID,
				"DATABASE": cloudflaretest.Database, "S3": srv.URL, "ETL_NOW": "2024-02-10T02:00:00Z", "GORACE": "atexit_sleep_ms=0",
			} {
				env.Setenv(k, v)
			}
			return plantSecrets(env)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"json": checkJSON, "exits": exits, "d1": faultD1, "s3": faultS3},
	})
}

func faultD1(ts *testscript.TestScript, _ bool, args []string) {
	denied := cloudflaretest.Fails(403, 7403, "The given account is not valid or is not authorized to access this service")
	plans := map[string]func(int, cloudflaretest.Request) *cloudflaretest.Fault{
		"none":    nil,
		"expired": func(int, cloudflaretest.Request) *cloudflaretest.Fault { return cloudflaretest.ExpiredToken() },
		"down": func(int, cloudflaretest.Request) *cloudflaretest.Fault {
			return cloudflaretest.Fails(503, 0, "Service Unavailable")
		},
		"busy": func(int, cloudflaretest.Request) *cloudflaretest.Fault {
			f := cloudflaretest.Fails(429, 0, "Too Many Requests")
			f.Header = http.Header{"Retry-After": {"40"}}
			return f
		},
		"readonly": func(_ int, r cloudflaretest.Request) *cloudflaretest.Fault {
			for _, sql := range r.SQL {
				if word, _, _ := strings.Cut(strings.TrimSpace(sql), " "); word != "SELECT" && word != "WITH" && word != "PRAGMA" {
					return denied
				}
			}
			return nil
		},
		"flaky": func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault { // three attempts fail
			if n < 3 {
				return cloudflaretest.Fails(429, 7429, "D1 DB is overloaded. Requests queued for too long.")
			}
			return nil
		},
	}
	plan, ok := plans[args[0]]
	if !ok {
		ts.Fatalf("d1 %s: no such fault", args[0])
	}
	ts.Value("d1").(*cloudflaretest.Server).On(plan)
}

// faultyS3 does to requests what fault names.
type faultyS3 struct {
	http.Handler
	fault atomic.Value
}

func (f *faultyS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, code string) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`<?xml version="1.0"?><Error><Code>` + code + `</Code><Message>no</Message></Error>`))
	}
	fault, _ := f.fault.Load().(string)
	switch {
	case fault == "denied", fault == "readonly" && r.Method == http.MethodPut:
		fail(http.StatusForbidden, "AccessDenied")
	case fault == "once" && f.fault.CompareAndSwap("once", "none"), fault == "down":
		fail(http.StatusServiceUnavailable, "SlowDown")
	case fault == "busy":
		w.Header().Set("Retry-After", "40")
		fail(http.StatusServiceUnavailable, "SlowDown")
	case fault == "unconditional":
		r.Header.Del("If-Match")
		r.Header.Del("If-None-Match")
		fallthrough
	default:
		f.Handler.ServeHTTP(w, r)
	}
}

func faultS3(ts *testscript.TestScript, _ bool, args []string) {
	ts.Value("s3").(*faultyS3).fault.Store(args[0])
}
