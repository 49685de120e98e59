package cloudflare_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"etl/internal/cloudflare"
	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/fault"
)

// quick repeats as often as the default does, and waits for nothing.
var quick = fault.Policy{Base: time.Millisecond, Cap: 2 * time.Millisecond}

func serve(t testing.TB, o cloudflaretest.Options) *cloudflaretest.Server {
	s := cloudflaretest.Start(t, filepath.Join(t.TempDir(), "d1.sqlite"), o)
	s.Exec(t, "CREATE TABLE t (a TEXT)")
	return s
}

// client is a client with an HTTP client of its own, whose connections end with the test.
func client(t testing.TB, s *cloudflaretest.Server, o cloudflare.Options) *cloudflare.Client {
	t.Helper()
	tr := http.DefaultTransport.(*http.Transport).Clone()
	if s != nil {
		o.URL = s.URL
		if s.CA != nil {
			tr.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
			tr.TLSClientConfig.RootCAs.AppendCertsFromPEM(s.CA)
		}
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{Transport: tr}
		t.Cleanup(tr.CloseIdleConnections)
	}
	if o.Rate == 0 {
		o.Rate, o.Burst = 10_000, 10_000
	}
	c, err := cloudflare.New(cloudflaretest.Account, cloudflaretest.Token, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// reader reads an envelope as a caller does, and keeps what came.
type reader struct {
	body  []byte
	calls int
}

func (r *reader) read(b io.Reader) error {
	r.calls++
	var err error
	if r.body, err = io.ReadAll(b); err != nil {
		return errors.New("whatever")
	}
	var a struct {
		Errors  []cloudflare.Message
		Success bool
	}
	if err := json.Unmarshal(r.body, &a); err != nil {
		return fault.Wrap(fault.Transient, err)
	}
	if !a.Success {
		return cloudflare.Classify(200, nil, a.Errors)
	}
	return nil
}

func one(sql string, params ...string) []cloudflare.Statement {
	return []cloudflare.Statement{{SQL: sql, Params: params}}
}

func once(f *cloudflaretest.Fault) func(int, cloudflaretest.Request) *cloudflaretest.Fault {
	return func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
		if n == 0 {
			return f
		}
		return nil
	}
}

func always(f *cloudflaretest.Fault) func(int, cloudflaretest.Request) *cloudflaretest.Fault {
	return func(int, cloudflaretest.Request) *cloudflaretest.Fault { return f }
}

// count is the number of rows of t.
func count(t *testing.T, db *cloudflare.Database) string {
	t.Helper()
	var r reader
	if err := db.Raw(context.Background(), cloudflare.Read, one("SELECT count(*) FROM t"), r.read); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(r.body, []byte(`"rows":[[`))
	n, _, _ := bytes.Cut(rest, []byte("]"))
	return string(n)
}

// Every fault that passes, under each access, over HTTP/1 and over TLS with
// HTTP/2. INVARIANT: what must be done once is done once if there is no error,
// and at most once if its outcome is unknown.
func TestFaults(t *testing.T) {
	// After these nobody knows whether the statement ran.
	unknown := map[string]bool{
		"reset before": true, "reset after": true, "cut after 1 byte": true, "cut in the middle": true, "cut before the last byte": true,
		"429 of D1, CPU": true, "500 before": true, "500 after": true, "502 as HTML": true, "503 as text": true, "504 before": true, "504 after": true,
		"success:false, not run": true, "success:false, run": true, "truncated JSON": true, "malformed JSON": true, "no body": true,
		"a page of HTML with 200": true,
	}
	tried := 0
	for _, tls := range []bool{false, true} {
		s := serve(t, cloudflaretest.Options{TLS: tls})
		db := client(t, s, cloudflare.Options{Retry: quick}).Database(cloudflaretest.Database)
		for _, f := range cloudflaretest.Faults() {
			slow := strings.HasPrefix(f.Name, "slow")
			tries := 2
			if slow {
				tries = 1
			}
			for access, name := range map[cloudflare.Access]string{cloudflare.Read: "read", cloudflare.Idempotent: "idempotent", cloudflare.Once: "once"} {
				tried++
				s.Exec(t, "DELETE FROM t")
				before := db.Usage()
				s.On(once(f.Fault))
				var r reader
				var err error
				if access == cloudflare.Read {
					err = db.Raw(context.Background(), access, one("SELECT 'ABC'"), r.read)
				} else {
					err = db.Raw(context.Background(), access, one("INSERT INTO t VALUES (?) RETURNING 'ABC'", "x"), r.read)
				}
				what := fmt.Sprintf("%s, %s, TLS %v", f.Name, name, tls)
				requests := s.Requests()
				sent := db.Usage()
				if n := sent.Requests - before.Requests; n != int64(requests) || sent.Retries-before.Retries != n-1 {
					t.Errorf("%s: %d requests counted of %d, %d retries", what, n, requests, sent.Retries-before.Retries)
				}
				s.On(nil)
				rows := count(t, db)
				if access == cloudflare.Once && unknown[f.Name] {
					if !fault.Is(err, fault.Unknown) || requests != 1 || (rows != "0" && rows != "1") {
						t.Errorf("%s: %v (%s) after %d requests, %s rows", what, err, fault.KindOf(err), requests, rows)
					}
					continue
				}
				if err != nil || requests != tries || !bytes.Contains(r.body, []byte(`[["ABC"]]`)) {
					t.Errorf("%s: %v after %d requests, want %d; %.100q", what, err, requests, tries, r.body)
				}
				if access == cloudflare.Once && rows != "1" {
					t.Errorf("%s: done %s times", what, rows)
				}
			}
		}
	}
	t.Logf("%d faults tried", tried)
}

// What does not pass ends with what a person needs, after as many requests as
// make sense.
func TestForGood(t *testing.T) {
	s := serve(t, cloudflaretest.Options{})
	for name, tt := range map[string]struct {
		f        *cloudflaretest.Fault
		kind     fault.Kind
		requests int
		hint     string
	}{
		"expired token":      {cloudflaretest.ExpiredToken(), fault.Unavailable, 1, "CLOUDFLARE_API_TOKEN"},
		"denied":             {cloudflaretest.Fails(403, 7403, "The given account is not valid or is not authorized to access this service"), fault.Unavailable, 3, "D1 Edit"},
		"403 of a proxy":     {&cloudflaretest.Fault{Status: 403, Body: "<html>"}, fault.Unavailable, 3, "D1 Edit"},
		"no such database":   {cloudflaretest.Fails(404, 7404, "The database could not be found"), fault.NotExist, 1, "CLOUDFLARE_ACCOUNT_ID"},
		"no such route":      {cloudflaretest.Fails(404, 7003, "Could not route to /x"), fault.NotExist, 1, "URL"},
		"SQL":                {cloudflaretest.Fails(400, 7500, "no such table: x: SQLITE_ERROR"), fault.Invalid, 1, ""},
		"free tier":          {cloudflaretest.Fails(429, 7500, "Your account has exceeded D1's maximum daily row read limit"), fault.Unavailable, 1, "00:00 UTC"},
		"full":               {cloudflaretest.Fails(400, 7500, "D1_ERROR: Exceeded maximum DB size"), fault.Unavailable, 1, "free space"},
		"moved":              {&cloudflaretest.Fault{Status: 302, Header: http.Header{"Location": {"http://127.0.0.1:1/"}}}, fault.Invalid, 1, "URL"},
		"down":               {&cloudflaretest.Fault{Status: 503}, fault.Transient, 14, ""},
		"asks for too long":  {cloudflaretest.RateLimited("3600"), fault.Transient, 1, "run again"},
		"never answers":      {&cloudflaretest.Fault{Reset: true}, fault.Transient, 14, ""},
		"not JSON for ever":  {&cloudflaretest.Fault{Status: 200, Body: "<html>"}, fault.Transient, 14, ""},
		"too much for ever":  {&cloudflaretest.Fault{MaxRows: 1}, fault.Transient, 14, ""},
		"columns of another": {cloudflaretest.WrongColumns("a"), fault.Invalid, 1, ""},
	} {
		db := client(t, s, cloudflare.Options{Retry: quick}).Database(cloudflaretest.Database)
		s.On(always(tt.f))
		var r reader
		err := db.Raw(context.Background(), cloudflare.Idempotent, one("SELECT 1 AS a UNION SELECT 2"), func(b io.Reader) error {
			err := r.read(b)
			if err == nil && !bytes.Contains(r.body, []byte(`"columns":["a"]`)) {
				return fault.Errorf(fault.Invalid, "the caller's own")
			}
			return err
		})
		if fault.KindOf(err) != tt.kind || s.Requests() != tt.requests || !strings.Contains(fault.HintOf(err), tt.hint) {
			t.Errorf("%s: %v (%s, hint %q) after %d requests", name, err, fault.KindOf(err), fault.HintOf(err), s.Requests())
		}
		if name == "too much for ever" && !cloudflare.Shrink(err) {
			t.Errorf("%s: %v does not say so", name, err)
		}
		if strings.Contains(err.Error(), cloudflaretest.Token) || strings.Contains(fault.HintOf(err), cloudflaretest.Token) {
			t.Errorf("%s: the error tells the token", name)
		}
	}
}

// A token that expires between two attempts ends them.
func TestExpiresBetweenAttempts(t *testing.T) {
	s := serve(t, cloudflaretest.Options{})
	s.On(func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
		if n < 2 {
			return cloudflaretest.RateLimited("")
		}
		return cloudflaretest.ExpiredToken()
	})
	err := client(t, s, cloudflare.Options{Retry: quick}).Database(cloudflaretest.Database).
		Raw(context.Background(), cloudflare.Once, one("SELECT 1"), new(reader).read)
	if !fault.Is(err, fault.Unavailable) || s.Requests() != 3 || !strings.Contains(fault.HintOf(err), "expired") {
		t.Errorf("%v after %d requests", err, s.Requests())
	}
}

// Page asks again for less, and tells of every attempt's error.
func TestPage(t *testing.T) {
	s := serve(t, cloudflaretest.Options{})
	s.On(func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
		if n == 1 {
			return &cloudflaretest.Fault{Reset: true}
		}
		return &cloudflaretest.Fault{MaxRows: 30}
	})
	var asked []int
	limit := 100
	var r reader
	err := client(t, s, cloudflare.Options{Retry: quick}).Database(cloudflaretest.Database).
		Page(context.Background(), cloudflare.Read, func(last error) []cloudflare.Statement {
			if cloudflare.Shrink(last) {
				limit /= 2
			}
			asked = append(asked, limit)
			return one(fmt.Sprintf("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i FROM n LIMIT %d", limit))
		}, r.read)
	if err != nil || fmt.Sprint(asked) != "[100 50 50 25]" || !bytes.Contains(r.body, []byte("[25]]")) {
		t.Errorf("%v, asked for %v", err, asked)
	}
}

// Nothing sent means that it can be sent again, whatever it is; a refused
// certificate never passes.
func TestConnecting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s := serve(t, cloudflaretest.Options{TLS: true})
	for name, tt := range map[string]struct {
		url   string
		kind  fault.Kind
		tries int64
	}{
		"refused":     {"http://" + l.Addr().String(), fault.Transient, 14},
		"no name":     {"http://nowhere.invalid", fault.Transient, 14},
		"certificate": {s.URL, fault.Unavailable, 1},
		"no TLS":      {strings.Replace(serve(t, cloudflaretest.Options{}).URL, "http:", "https:", 1), fault.Invalid, 1},
	} {
		db := client(t, nil, cloudflare.Options{URL: tt.url, Retry: quick}).Database("x")
		err := db.Raw(context.Background(), cloudflare.Once, one("SELECT 1"), new(reader).read)
		if fault.KindOf(err) != tt.kind || db.Usage().Requests != tt.tries {
			t.Errorf("%s: %v (%s) after %d tries", name, err, fault.KindOf(err), db.Usage().Requests)
		}
		if h := fault.HintOf(err); tt.kind == fault.Transient && !strings.Contains(h, "is the network up") {
			t.Errorf("%s: %v, hint %q", name, err, h)
		}
	}
}

// Silence is bounded, at the start and in the middle; what keeps coming is not.
func TestSilence(t *testing.T) {
	s := serve(t, cloudflaretest.Options{})
	policy := quick
	policy.Attempts = 2
	for name, tt := range map[string]struct {
		f    *cloudflaretest.Fault
		want string
	}{
		"no answer":     {&cloudflaretest.Fault{Delay: time.Minute}, "no answer within"},
		"half of one":   {&cloudflaretest.Fault{Drip: time.Minute, Every: 10}, "the answer stopped after"},
		"half an error": {&cloudflaretest.Fault{Status: 500, Body: "{}", Drip: time.Minute}, "HTTP 500"},
		"a slow one":    {&cloudflaretest.Fault{Drip: 10 * time.Millisecond, Every: 10}, ""},
	} {
		c := client(t, s, cloudflare.Options{Retry: policy})
		c.SetWaits(300*time.Millisecond, 300*time.Millisecond)
		s.On(always(tt.f))
		var r reader
		err := c.Database(cloudflaretest.Database).Raw(context.Background(), cloudflare.Read, one("SELECT 'ABC'"), r.read)
		if tt.want == "" && err == nil {
			continue
		}
		if !fault.Is(err, fault.Transient) || !strings.Contains(err.Error(), tt.want) || s.Requests() != 2 {
			t.Errorf("%s: %v after %d requests", name, err, s.Requests())
		}
		if cloudflare.Shrink(err) != (name == "no answer") {
			t.Errorf("%s: shrink is %v", name, cloudflare.Shrink(err))
		}
		err = c.Database(cloudflaretest.Database).Raw(context.Background(), cloudflare.Once, one("SELECT 'ABC'"), r.read)
		if !fault.Is(err, fault.Unknown) {
			t.Errorf("%s, once: %v", name, err)
		}
	}
}

// A cancelled call ends at once, wherever it is; what it was to do once may have
// been done.
func TestCancel(t *testing.T) {
	s := serve(t, cloudflaretest.Options{})
	long := fault.Policy{Base: time.Hour, Cap: time.Hour, Budget: 100 * time.Hour}
	for name, tt := range map[string]struct {
		f      *cloudflaretest.Fault
		o      cloudflare.Options
		unsure bool
	}{
		"waiting for the answer":  {&cloudflaretest.Fault{Delay: time.Hour}, cloudflare.Options{}, true},
		"reading the answer":      {&cloudflaretest.Fault{Drip: time.Hour, Every: 1}, cloudflare.Options{}, true},
		"reading an error":        {&cloudflaretest.Fault{Status: 500, Body: "{}", Drip: time.Hour}, cloudflare.Options{}, true},
		"before the next attempt": {cloudflaretest.RateLimited(""), cloudflare.Options{Retry: long}, false},
		"waiting for its turn":    {cloudflaretest.RateLimited(""), cloudflare.Options{Retry: quick, Rate: 0.01, Burst: 1}, false},
	} {
		for _, a := range []cloudflare.Access{cloudflare.Read, cloudflare.Once} {
			s.On(always(tt.f))
			ctx, cancel := context.WithCancel(context.Background())
			db := client(t, s, tt.o).Database(cloudflaretest.Database)
			done := make(chan error)
			go func() { done <- db.Raw(ctx, a, one("SELECT 1"), new(reader).read) }()
			for s.Requests() == 0 {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(50 * time.Millisecond)
			cancel()
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) || fault.Is(err, fault.Unknown) != (tt.unsure && a == cloudflare.Once) {
					t.Errorf("%s, %d: %v (%s)", name, a, err, fault.KindOf(err))
				}
			case <-time.After(30 * time.Second):
				t.Fatalf("%s: still there", name)
			}
		}
	}
	// A deadline that comes before its turn is not waited for.
	s.On(nil)
	db := client(t, s, cloudflare.Options{Rate: 0.01, Burst: 1, Retry: quick}).Database(cloudflaretest.Database)
	count(t, db)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := db.Raw(ctx, cloudflare.Read, one("SELECT 1"), new(reader).read); !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		t.Errorf("no turn before the deadline: %v", err)
	}
}

// Connections are used again, and none is left open, nor a goroutine.
func TestNoLeaks(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("", func(t *testing.T) {
		s := serve(t, cloudflaretest.Options{})
		var dials, open atomic.Int64
		tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			dials.Add(1)
			open.Add(1)
			return &counted{Conn: c, open: &open}, err
		}}
		db := client(t, s, cloudflare.Options{HTTP: &http.Client{Transport: tr}, Retry: quick}).Database(cloudflaretest.Database)
		s.On(func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
			if n%2 == 0 {
				return cloudflaretest.Fails(500, 7500, "internal error")
			}
			return nil
		})
		for range 10 {
			// A reader that stops at the end of the JSON leaves the end of the body.
			err := db.Raw(context.Background(), cloudflare.Read, one("SELECT 1"), func(r io.Reader) error {
				return json.NewDecoder(r).Decode(new(any))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if dials.Load() != 1 {
			t.Errorf("20 answers took %d connections", dials.Load())
		}
		for _, f := range cloudflaretest.Faults() {
			s.On(once(f.Fault))
			if err := db.Raw(context.Background(), cloudflare.Read, one("SELECT 1"), new(reader).read); err != nil {
				t.Errorf("%s: %v", f.Name, err)
			}
		}
		tr.CloseIdleConnections()
		for end := time.Now().Add(10 * time.Second); open.Load() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d connections stay open", open.Load())
			}
		}
	})
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, before %d", runtime.NumGoroutine(), before)
		}
	}
}

type counted struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// No window of five minutes holds more requests than allowed, whoever sends
// them and whatever becomes of them; and over time no fewer are sent than the
// rate allows in the long run.
func TestRate(t *testing.T) {
	for _, tt := range []struct {
		rate  float64
		burst int
	}{{4, 200}, {4, 1}, {4, 1199}, {0.5, 30}, {40, 3000}} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var sent []time.Time
			tr := roundTrip(func(r *http.Request) (*http.Response, error) {
				mu.Lock()
				defer mu.Unlock()
				sent = append(sent, time.Now())
				status, body := 200, `{"success":true,"result":{"id":"x","status":"active","bookmark":"b"}}`
				switch rand.IntN(3) {
				case 0:
					status, body = 500, `{"errors":[{"code":7500,"message":"internal error"}]}`
				case 1:
					return nil, errors.New("broken")
				}
				return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
			})
			c := client(t, nil, cloudflare.Options{HTTP: &http.Client{Transport: tr}, Rate: tt.rate, Burst: tt.burst,
				Retry: fault.Policy{Base: time.Millisecond, Cap: time.Second, Budget: time.Hour}})
			const span = 20 * time.Minute
			ctx, cancel := context.WithTimeout(t.Context(), span)
			defer cancel()
			var wg sync.WaitGroup
			for w := range 5 {
				db := c.Database(fmt.Sprint(w))
				wg.Go(func() {
					for ctx.Err() == nil {
						var err error
						switch rand.IntN(3) {
						case 0:
							err = db.Raw(ctx, cloudflare.Idempotent, one("SELECT 1"), new(reader).read)
						case 1:
							_, err = c.VerifyToken(ctx)
						case 2:
							_, err = db.Bookmark(ctx)
						}
						if err != nil && !fault.Is(err, fault.Transient) && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
							t.Error(err)
						}
						if rand.IntN(100) == 0 { // the bucket fills
							time.Sleep(time.Duration(rand.IntN(100)) * time.Second)
						}
						time.Sleep(time.Millisecond) // a deadline before the turn answers at once
					}
				})
			}
			wg.Wait()
			first := 0
			for i, at := range sent {
				for at.Sub(sent[first]) > 300*time.Second {
					first++
				}
				if n := i - first + 1; float64(n) > 300*tt.rate {
					t.Fatalf("rate %g, burst %d: %d requests in five minutes, %g allowed", tt.rate, tt.burst, n, 300*tt.rate)
				}
			}
			refill := (300*tt.rate - float64(tt.burst)) / 310 * span.Seconds()
			if float64(len(sent)) < 0.5*refill {
				t.Errorf("rate %g, burst %d: only %d requests in %s", tt.rate, tt.burst, len(sent), span)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	for want, tt := range map[string]struct {
		account, token string
		o              cloudflare.Options
	}{
		"no account id":       {"", "t", cloudflare.Options{}},
		"no API token":        {"a", "", cloudflare.Options{}},
		"spaces or signs":     {"a", "secret\n", cloudflare.Options{}},
		"not above 0":         {"a", "t", cloudflare.Options{Rate: -1}},
		"burst of 1200":       {"a", "t", cloudflare.Options{Burst: 1200}},
		"burst of 200":        {"a", "t", cloudflare.Options{Rate: 0.5}},
		"burst of -1":         {"a", "t", cloudflare.Options{Burst: -1}},
		"not one of http":     {"a", "t", cloudflare.Options{URL: "ftp://x"}},
		"more than a host":    {"a", "t", cloudflare.Options{URL: "https://user:secret@host/"}},
		"no API token\nthe r": {"a", "", cloudflare.Options{Rate: -1}},
	} {
		_, err := cloudflare.New(tt.account, tt.token, tt.o)
		if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", want, err)
		}
	}
	if _, err := cloudflare.New("a", "t", cloudflare.Options{}); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

func TestVerifyToken(t *testing.T) {
	for name, tt := range map[string]struct {
		o    cloudflaretest.Options
		plan func(int, cloudflaretest.Request) *cloudflaretest.Fault
		kind fault.Kind
		want string
	}{
		"of the account": {cloudflaretest.Options{}, nil, fault.Internal, ""},
		"of a user":      {cloudflaretest.Options{UserToken: true}, nil, fault.Internal, ""},
		"after a fault":  {cloudflaretest.Options{}, once(&cloudflaretest.Fault{Reset: true}), fault.Internal, ""},
		"7403":           {cloudflaretest.Options{UserToken: true}, once(cloudflaretest.Fails(403, 7403, "not authorized")), fault.Internal, ""},
		"expired":        {cloudflaretest.Options{}, always(cloudflaretest.ExpiredToken()), fault.Unavailable, "Authentication error"},
		"disabled": {cloudflaretest.Options{}, always(&cloudflaretest.Fault{Status: 200, Body: `{"success":true,"result":{"id":"x","status":"disabled"}}`}),
			fault.Unavailable, `"disabled"`},
		"no id": {cloudflaretest.Options{}, always(&cloudflaretest.Fault{Status: 200, Body: `{"success":true,"result":{"status":"active"}}`}), fault.Invalid, "no id"},
		"down":  {cloudflaretest.Options{}, always(&cloudflaretest.Fault{Status: 503}), fault.Transient, "503"},
	} {
		s := serve(t, tt.o)
		s.On(tt.plan)
		id, err := client(t, s, cloudflare.Options{Retry: quick}).VerifyToken(context.Background())
		if tt.want == "" {
			if id != cloudflaretest.TokenID || err != nil {
				t.Errorf("%s: %q, %v", name, id, err)
			}
		} else if fault.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.want) || (tt.kind == fault.Unavailable && fault.HintOf(err) == "") {
			t.Errorf("%s: %v (%s)", name, err, fault.KindOf(err))
		}
	}
	// From FIPS 180-2, B.1.
	if got := cloudflare.TokenSecret("abc"); got != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Errorf("the secret of abc is %s", got)
	}
}

func TestBookmark(t *testing.T) {
	s := serve(t, cloudflaretest.Options{})
	s.On(once(&cloudflaretest.Fault{Cut: 10}))
	db := client(t, s, cloudflare.Options{Retry: quick}).Database(cloudflaretest.Database)
	at, err := db.Bookmark(context.Background())
	if err != nil || at == "" || db.Usage() != (cloudflare.Usage{Requests: 2, Retries: 1}) {
		t.Errorf("%q, %v, %+v", at, err, db.Usage())
	}
	if _, err := client(t, s, cloudflare.Options{Retry: quick}).Database("other").Bookmark(context.Background()); !fault.Is(err, fault.NotExist) {
		t.Errorf("of another database: %v", err)
	}
}

func TestUsage(t *testing.T) {
	var notified fault.Counter
	policy := quick
	policy.Notify = notified.Count
	s := serve(t, cloudflaretest.Options{})
	s.On(once(cloudflaretest.RateLimited("0")))
	db := client(t, s, cloudflare.Options{Retry: policy}).Database(cloudflaretest.Database)
	count(t, db)
	db.Billed(5, 2)
	db.Billed(1, 0)
	if got := db.Usage(); got != (cloudflare.Usage{Requests: 2, Retries: 1, RowsRead: 6, RowsWritten: 2}) || notified.Load() != 1 {
		t.Errorf("%+v, %d notices", got, notified.Load())
	}
}

// Statements arrive as they are; what JSON can not hold is not sent.
func TestStatements(t *testing.T) {
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = append(got, strings.TrimSpace(string(b)))
		io.WriteString(w, `{"success":true}`)
	}))
	defer srv.Close()
	db := client(t, nil, cloudflare.Options{URL: srv.URL, Retry: quick}).Database("x")
	for _, stmts := range [][]cloudflare.Statement{
		one("SELECT a < 'é\u2028' & b"), one("SELECT ?", "<\x00\">"), append(one("SELECT 1"), one("SELECT ?", "")...),
	} {
		if err := db.Raw(context.Background(), cloudflare.Read, stmts, new(reader).read); err != nil {
			t.Error(err)
		}
	}
	want := []string{`{"sql":"SELECT a < 'é\u2028' & b"}`, `{"sql":"SELECT ?","params":["<\u0000\">"]}`, `{"batch":[{"sql":"SELECT 1"},{"sql":"SELECT ?","params":[""]}]}`}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("sent\n%q, want\n%q", got, want)
	}
	for _, stmts := range [][]cloudflare.Statement{nil, one("SELECT '\xff'"), one("SELECT ?", "\xff")} {
		if err := db.Raw(context.Background(), cloudflare.Read, stmts, new(reader).read); err == nil || len(got) != len(want) {
			t.Errorf("%q was sent: %v", stmts, err)
		}
	}
}
