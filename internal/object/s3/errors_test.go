package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/object"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// operations are those of a store, each as an error.
var operations = []struct {
	name string
	do   func(context.Context, object.Store) error
}{
	{"get", func(ctx context.Context, s object.Store) error {
		_, _, err := s.Get(ctx, "k")
		return err
	}},
	{"put", func(ctx context.Context, s object.Store) error {
		_, err := s.Put(ctx, "k", []byte("data"), object.PutOptions{})
		return err
	}},
	{"put if-match", func(ctx context.Context, s object.Store) error {
		_, err := s.Put(ctx, "k", []byte("data"), object.PutOptions{IfMatch: "abc"})
		return err
	}},
	{"put if-absent", func(ctx context.Context, s object.Store) error {
		_, err := s.Put(ctx, "k", []byte("data"), object.PutOptions{IfAbsent: true})
		return err
	}},
	{"list", func(ctx context.Context, s object.Store) error {
		for _, err := range s.List(ctx, "") {
			if err != nil {
				return err
			}
		}
		return nil
	}},
}

const (
	transient   = fault.Transient
	unknown     = fault.Unknown
	unavailable = fault.Unavailable
	invalid     = fault.Invalid
	conflict    = fault.Conflict
)

// answers are what a service may say. Kinds are those of get, put, put
// if-match, put if-absent and list; one stands for all.
var answers = []struct {
	status int
	code   string // "" for a web page, "empty" for nothing
	header http.Header
	kinds  []fault.Kind
	hint   string // "?" where it depends on the operation
}{
	{412, "PreconditionFailed", nil, []fault.Kind{conflict}, ""},
	{409, "ConditionalRequestConflict", nil, []fault.Kind{transient, transient, conflict, conflict, transient}, ""},
	{409, "OperationAborted", nil, []fault.Kind{transient, transient, conflict, conflict, transient}, ""},
	{404, "NoSuchKey", nil, []fault.Kind{fault.NotExist, invalid, conflict, invalid, invalid}, "?"},
	{404, "NoSuchBucket", nil, []fault.Kind{unavailable}, "make bucket archive"},
	{404, "", nil, []fault.Kind{invalid}, "check the endpoint"},
	{429, "TooManyRequests", http.Header{"Retry-After": {"7"}}, []fault.Kind{transient}, ""},
	{429, "", http.Header{"Retry-After": {"Thu, 01 Jan 2026 00:00:07 GMT"}, "Date": {"Thu, 01 Jan 2026 00:00:00 GMT"}}, []fault.Kind{transient}, ""},
	{503, "SlowDown", http.Header{"Retry-After": {"7"}}, []fault.Kind{transient}, ""},
	{503, "ServiceUnavailable", nil, []fault.Kind{transient}, ""},
	{503, "empty", nil, []fault.Kind{transient, unknown, unknown, unknown, transient}, ""},
	{404, "empty", nil, []fault.Kind{invalid}, "check the endpoint"},
	{429, "empty", nil, []fault.Kind{transient}, ""},
	{503, "", nil, []fault.Kind{transient, unknown, unknown, unknown, transient}, ""},
	{500, "InternalError", nil, []fault.Kind{transient, unknown, unknown, unknown, transient}, ""},
	{502, "", http.Header{"Retry-After": {"7"}}, []fault.Kind{transient, unknown, unknown, unknown, transient}, ""},
	{504, "", nil, []fault.Kind{transient, unknown, unknown, unknown, transient}, ""},
	{522, "", nil, []fault.Kind{transient, unknown, unknown, unknown, transient}, ""},
	{400, "BadDigest", nil, []fault.Kind{transient}, ""},
	{400, "InvalidDigest", nil, []fault.Kind{transient}, ""},
	{400, "XAmzContentSHA256Mismatch", nil, []fault.Kind{transient}, ""},
	{400, "IncompleteBody", nil, []fault.Kind{transient}, ""},
	{400, "RequestTimeout", nil, []fault.Kind{transient}, ""},
	{408, "", nil, []fault.Kind{transient}, ""},
	{401, "Unauthorized", nil, []fault.Kind{unavailable}, "may not do this in bucket archive"},
	{403, "AccessDenied", nil, []fault.Kind{unavailable}, "may not do this in bucket archive"},
	{403, "", nil, []fault.Kind{unavailable}, "may not do this in bucket archive"},
	{403, "InvalidAccessKeyId", nil, []fault.Kind{unavailable}, "does not know this access key"},
	{403, "SignatureDoesNotMatch", nil, []fault.Kind{unavailable}, "secret does not belong"},
	{403, "RequestTimeTooSkewed", http.Header{"Date": {time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)}}, []fault.Kind{unavailable}, "clock is 1h0m"},
	{403, "RequestTimeTooSkewed", http.Header{"Date": {"nonsense"}}, []fault.Kind{unavailable}, "set this machine's clock (NTP)"},
	{400, "ExpiredToken", nil, []fault.Kind{unavailable}, "get new keys"},
	{301, "PermanentRedirect", http.Header{"Location": {"https://elsewhere.example"}}, []fault.Kind{invalid}, "check the region and the endpoint"},
	{307, "TemporaryRedirect", http.Header{"Location": {"https://elsewhere.example"}}, []fault.Kind{invalid}, "check the region and the endpoint"},
	{400, "AuthorizationHeaderMalformed", nil, []fault.Kind{invalid}, "check the region and the endpoint"},
	{400, "InvalidRegionName", nil, []fault.Kind{invalid}, "check the region and the endpoint"},
	{501, "NotImplemented", nil, []fault.Kind{invalid}, "conditional writes"},
	{507, "", nil, []fault.Kind{unavailable}, "make room"},
	{403, "QuotaExceeded", nil, []fault.Kind{unavailable}, "make room"},
	{400, "EntityTooLarge", nil, []fault.Kind{invalid}, ""},
	{400, "InvalidArgument", nil, []fault.Kind{invalid}, ""},
	{405, "MethodNotAllowed", nil, []fault.Kind{invalid}, ""},
	{418, "", nil, []fault.Kind{invalid}, ""},
}

func TestAnswers(t *testing.T) {
	for _, tc := range answers {
		for i, op := range operations {
			t.Run(fmt.Sprintf("%d %s/%s", tc.status, tc.code, op.name), func(t *testing.T) {
				var requests atomic.Int64
				srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					requests.Add(1)
					io.Copy(io.Discard, r.Body)
					for k, v := range tc.header {
						w.Header()[k] = v
					}
					w.Header().Set("X-Amz-Request-Id", "42")
					w.WriteHeader(tc.status)
					switch tc.code {
					case "empty":
						return
					case "":
						io.WriteString(w, "<html><body>no such page<br></body></html>")
						return
					}
					fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>in
						words</Message></Error>`, tc.code)
				}))
				defer srv.Close()
				err := op.do(t.Context(), open(t, options(srv.URL)))
				want := tc.kinds[0]
				if len(tc.kinds) > 1 {
					want = tc.kinds[i]
				}
				if !fault.Is(err, want) {
					t.Fatalf("%v is of kind %s, want %s", err, fault.KindOf(err), want)
				}
				for _, text := range []string{fmt.Sprint(tc.status), strings.TrimPrefix(tc.code, "empty"), "(request 42)", op.name[:3]} {
					if !strings.Contains(err.Error(), text) {
						t.Errorf("error %q, want %q in it", err, text)
					}
				}
				if s := err.Error(); strings.Contains(s, "s3cr3t") || strings.Contains(s, "\n") || strings.Contains(s, "<html>") {
					t.Errorf("error %q", s)
				}
				if h := fault.HintOf(err); tc.hint != "?" && ((tc.hint == "") != (h == "") || !strings.Contains(h, tc.hint)) {
					t.Errorf("hint %q, want %q", h, tc.hint)
				}
				if wait, ok := fault.AfterOf(err); ok != (tc.header.Get("Retry-After") != "") || ok && wait != 7*time.Second {
					t.Errorf("asked to wait %v, %v", wait, ok)
				}
				if n := requests.Load(); n != 1 {
					t.Errorf("%d requests, want 1", n)
				}
			})
		}
	}
}

func TestR2Hints(t *testing.T) {
	s := newStore(options("https://x.r2.cloudflarestorage.com"), roundTrip(func(r *http.Request) (*http.Response, error) {
		code := strings.TrimPrefix(r.URL.Path, "/archive/")
		status := map[string]int{"NoSuchBucket": 404, "AccessDenied": 403, "InvalidArgument": 400, "AuthorizationHeaderMalformed": 400}[code]
		body := "<Error><Code>" + code + "</Code><Message>Credential access key has length 3, should be 32</Message></Error>"
		return &http.Response{StatusCode: status, Header: http.Header{"Cf-Ray": {"8a-FRA"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}))
	for code, hint := range map[string]string{
		"NoSuchBucket":                 "npx wrangler r2 bucket create archive",
		"AccessDenied":                 `"Object Read & Write"`,
		"InvalidArgument":              "R2 API token",
		"AuthorizationHeaderMalformed": `region "auto"`,
	} {
		_, _, err := s.Get(t.Context(), object.Key(code))
		if h := fault.HintOf(err); !strings.Contains(h, hint) || !strings.Contains(err.Error(), "8a-FRA") {
			t.Errorf("%v: hint %q, want %q", err, h, hint)
		}
	}
}

// TestLies are answers of success that are none.
func TestLies(t *testing.T) {
	sum := md5.Sum([]byte("data"))
	etag := `"` + hex.EncodeToString(sum[:]) + `"`
	page := func(more string) string {
		return `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>archive</Name>` + more + `</ListBucketResult>`
	}
	object := func(name string) string {
		return "<Contents><Key>" + name + "</Key><ETag>&quot;x&quot;</ETag><Size>1</Size></Contents>"
	}
	for _, tc := range []struct {
		name   string
		op     string
		header http.Header
		length int // of the body as the header says; -1 for none
		body   string
		kind   fault.Kind
		text   string
	}{
		{"a web page", "put", nil, -1, "<html></html>", unknown, "no ETag"},
		{"a web page", "get", nil, 13, "<html></html>", invalid, "no ETag"},
		{"a web page", "list", nil, -1, "<html></html>", invalid, "no listing"},
		{"text", "list", nil, -1, "hello", invalid, "no listing"},
		{"a page with a type", "list", nil, -1, "<!DOCTYPE html>", invalid, "no listing"},
		{"nothing", "list", nil, -1, "", transient, "cut short"},
		{"one byte of a listing", "list", nil, -1, "<", transient, "cut short"},
		{"a listing without its element", "list", nil, -1, `<?xml version="1.0" encoding="UTF-8"?>` + "\n", transient, "cut short"},
		{"a listing cut in its declaration", "list", nil, -1, `<?xml version="1.0" enc`, transient, "cut short"},
		{"a listing cut in its first element", "list", nil, -1, page("")[:12], transient, "cut short"},
		{"half a listing", "list", nil, -1, page("<Contents><Ke")[:110], transient, "cut short"},
		{"an error as a success", "put", http.Header{"Etag": {etag}}, -1, "<Error><Code>InternalError</Code></Error>", unknown, "InternalError"},
		{"other bytes", "get", http.Header{"Etag": {etag}}, 4, "dada", transient, "not those of ETag"},
		{"no length", "get", http.Header{"Etag": {etag}}, -1, "data", transient, "how long"},
		{"cut short", "get", http.Header{"Etag": {etag}}, 5, "data", transient, "read 4 of 5 bytes"},
		{"huge", "get", http.Header{"Etag": {etag}}, 1<<30 + 1, "data", invalid, "1073741825 bytes"},
		{"out of order", "list", nil, -1, page(object("b") + object("a")), invalid, "not the order"},
		{"twice", "list", nil, -1, page(object("a") + object("a")), invalid, "not the order"},
		{"no name", "list", nil, -1, page("<Contents><ETag>x</ETag></Contents>"), invalid, "without a name"},
		{"no encoding", "list", nil, -1, page("<EncodingType>url</EncodingType>" + object("%zz")), invalid, "%zz"},
		{"more, but where", "list", nil, -1, page("<IsTruncated>true</IsTruncated>"), invalid, "not where"},
		{"more for ever", "list", nil, -1, page("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"), invalid, "not where"},
	} {
		t.Run(tc.name+"/"+tc.op, func(t *testing.T) {
			var requests atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				io.Copy(io.Discard, r.Body)
				for k, v := range tc.header {
					w.Header()[k] = v
				}
				if tc.length >= 0 {
					w.Header().Set("Content-Length", fmt.Sprint(tc.length))
				}
				io.WriteString(w, tc.body)
				if tc.length < 0 {
					w.(http.Flusher).Flush()
				}
			}))
			defer srv.Close()
			s := open(t, options(srv.URL))
			for _, op := range operations {
				if op.name != tc.op {
					continue
				}
				err := op.do(t.Context(), s)
				if !fault.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.text) {
					t.Fatalf("%v of kind %s, want kind %s with %q in it", err, fault.KindOf(err), tc.kind, tc.text)
				}
				if tc.kind == invalid && tc.name != "huge" && fault.HintOf(err) == "" {
					t.Errorf("%v has no hint", err)
				}
			}
			if n := requests.Load(); n > maxEmptyPages+1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestEncryptedObjects have an ETag that looks like an MD5 sum and is none.
func TestEncryptedObjects(t *testing.T) {
	for _, header := range []http.Header{
		{"X-Amz-Server-Side-Encryption": {"aws:kms"}, "Etag": {`"0123456789abcdef0123456789abcdef"`}},
		{"X-Amz-Server-Side-Encryption-Customer-Algorithm": {"AES256"}, "Etag": {`"0123456789abcdef0123456789abcdef"`}},
		{"Etag": {`"0123456789abcdef0123456789abcdef-2"`}},
		{"Etag": {`W/"8d777f385d3dfec8815d20f7496026dc"`}},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for k, v := range header {
				w.Header()[k] = v
			}
			io.WriteString(w, "dada")
		}))
		data, a, err := open(t, options(srv.URL)).Get(t.Context(), "k")
		srv.Close()
		if err != nil || string(data) != "dada" || quote(a.ETag) != header.Get("Etag") {
			t.Errorf("%v: %q, %+v, %v", header, data, a, err)
		}
	}
}

// serveObject answers with data and its MD5, as a service does.
func serveObject(w http.ResponseWriter, data []byte) {
	sum := md5.Sum(data)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.Write(data)
}

func TestCertificates(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveObject(w, []byte("x")) }))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	for _, op := range operations {
		err := op.do(t.Context(), open(t, options(srv.URL)))
		if !fault.Is(err, unavailable) || !strings.Contains(fault.HintOf(err), "--ca-file") {
			t.Errorf("%s: %v, hint %q", op.name, err, fault.HintOf(err))
		}
		err = op.do(t.Context(), open(t, options("http"+strings.TrimPrefix(srv.URL, "https"))))
		// It may close the connection before all of the request is written.
		if !fault.Is(err, transient) && (!fault.Is(err, invalid) || !strings.Contains(err.Error(), "400")) {
			t.Errorf("%s over http: %v", op.name, err)
		}
	}
	o := options(srv.URL)
	o.RootCAs = x509.NewCertPool()
	o.RootCAs.AddCert(srv.Certificate())
	if data, _, err := open(t, o).Get(t.Context(), "k"); err != nil || string(data) != "x" {
		t.Errorf("with the authority: %q, %v", data, err)
	}
	// The other way round: https to a server of http.
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	_, _, err := open(t, options("https"+strings.TrimPrefix(plain.URL, "http"))).Get(t.Context(), "k")
	if !fault.Is(err, invalid) || !strings.Contains(fault.HintOf(err), "http://") {
		t.Errorf("https to http: %v, hint %q", err, fault.HintOf(err))
	}
}

// TestNobody is an endpoint where nothing listens: nothing was sent.
func TestNobody(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	for _, op := range operations {
		err := op.do(t.Context(), open(t, options(srv.URL)))
		if !fault.Is(err, transient) || !strings.Contains(err.Error(), "refused") || !strings.Contains(fault.HintOf(err), "is the network up") {
			t.Errorf("%s: %v of kind %s", op.name, err, fault.KindOf(err))
		}
		err = op.do(t.Context(), open(t, options("http://no-such-host.invalid")))
		if !fault.Is(err, transient) || !strings.Contains(err.Error(), "no-such-host.invalid") {
			t.Errorf("%s: %v of kind %s", op.name, err, fault.KindOf(err))
		}
	}
}

// TestSlow are servers that hang or drip; a request ends in the time allowed.
func TestSlow(t *testing.T) {
	done := make(chan struct{})
	for _, tc := range []struct {
		name  string
		serve func(w http.ResponseWriter, r *http.Request)
		get   string // part of the error of a get
	}{
		{"no answer", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			<-done
		}, "no end within"},
		{"dripping", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"x"`)
			w.Header().Set("Content-Length", "1000000")
			for {
				if _, err := w.Write([]byte("<")); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-done:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		}, "of 1000000 bytes: no end within"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(tc.serve))
		s := open(t, options(srv.URL))
		s.patience = 100 * time.Millisecond
		s.pace = 100 << 20
		for _, op := range operations {
			if tc.name == "dripping" && strings.HasPrefix(op.name, "put") {
				continue // has its answer with the first byte
			}
			err := op.do(t.Context(), s)
			want := transient
			if strings.HasPrefix(op.name, "put") {
				want = unknown
			}
			if !fault.Is(err, want) || !errors.Is(err, errSlow) {
				t.Errorf("%s: %s: %v of kind %s, want %s", tc.name, op.name, err, fault.KindOf(err), want)
			}
			if op.name == "get" && !strings.Contains(err.Error(), tc.get) {
				t.Errorf("%s: %v, want %q", tc.name, err, tc.get)
			}
		}
		t.Cleanup(srv.Close)
	}
	t.Cleanup(func() { close(done) }) // runs before the servers are closed
}

// TestCancelledInFlight ends at once; a put that went out whole may be done.
func TestCancelledInFlight(t *testing.T) {
	arrived, done := make(chan struct{}, 1), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-done
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(done) })
	s := open(t, options(srv.URL))
	for _, op := range operations {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-arrived
			cancel()
		}()
		err := op.do(ctx, s)
		if put := strings.HasPrefix(op.name, "put"); !errors.Is(err, context.Canceled) || fault.Is(err, unknown) != put {
			t.Errorf("%s: %v of kind %s", op.name, err, fault.KindOf(err))
		}
	}
}

// TestPutCutShort is a connection that breaks before all of the object was
// sent: surely not stored, so it may be repeated, unlike one that breaks after.
func TestPutCutShort(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 100_000)
	for _, tc := range []struct {
		read int
		kind fault.Kind
	}{{0, transient}, {1, transient}, {99_999, transient}, {100_000, unknown}} {
		s := newStore(options("http://archive.test"), roundTrip(func(r *http.Request) (*http.Response, error) {
			io.ReadFull(r.Body, make([]byte, tc.read))
			return nil, errors.New("connection reset by peer")
		}))
		_, err := s.Put(t.Context(), "k", data, object.PutOptions{IfAbsent: true})
		if !fault.Is(err, tc.kind) || !strings.Contains(err.Error(), "put k: connection reset by peer") {
			t.Errorf("after %d bytes: %v of kind %s, want %s", tc.read, err, fault.KindOf(err), tc.kind)
		}
	}
	// Once Put has returned nobody reads the caller's bytes any more.
	var body io.Reader
	s := newStore(options("http://archive.test"), roundTrip(func(r *http.Request) (*http.Response, error) {
		body = r.Body
		return nil, errors.New("connection reset by peer")
	}))
	if _, err := s.Put(t.Context(), "k", data, object.PutOptions{}); !fault.Is(err, transient) {
		t.Fatal(err)
	}
	if n, err := body.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a late reader got %d bytes, %v", n, err)
	}
}

// A refusal that breaks off is asked for again: without its code nobody knows
// whether the object is missing or the endpoint wrong. Some statuses need no code.
func TestRefusalBreaksOff(t *testing.T) {
	for status, want := range map[int]fault.Kind{404: transient, 403: transient, 400: transient, 412: fault.Conflict, 429: transient} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Length", "300")
			w.WriteHeader(status)
			io.WriteString(w, `<?xml version="1.0"?><Error><Code>NoSu`)
		}))
		s := open(t, options(srv.URL))
		for _, op := range operations {
			if err := op.do(t.Context(), s); !fault.Is(err, want) {
				t.Errorf("%d, %s: %v of kind %s, want %s", status, op.name, err, fault.KindOf(err), want)
			}
		}
		srv.Close()
	}
}

// Whatever answers, each operation ends with a result or with an error that is
// classified, of bounded length, without the secrets.
func FuzzAnswers(f *testing.F) {
	const list = `<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>archive</Name><EncodingType>url</EncodingType>`
	for _, body := range []string{"", "<", list, list + "</ListBucketResult>", list + `<Contents><Key>a%2F</Key><ETag>&quot;x&quot;</ETag><Size>1</Size></Contents><IsTruncated>false</IsTruncated></ListBucketResult>`,
		list + "<IsTruncated>true</IsTruncated></ListBucketResult>", "<html><br>", "<!DOCTYPE html>", "<Error><Code>NoSuchKey</Code><Message>a-secret-of-the-tests</Message></Error>", "<Error><Code>SlowDown</Code></Error>",
		list + "<KeyCount>99999999999999999999</KeyCount></ListBucketResult>", list + strings.Repeat("<a>", 300), "\xff\x00"} {
		f.Add(200, "\"x\"", []byte(body))
		f.Add(403, "", []byte(body))
	}
	f.Fuzz(func(t *testing.T, status int, etag string, body []byte) {
		if status < 200 || status > 599 {
			t.Skip("no status of an answer")
		}
		o := options("http://127.0.0.1:1")
		o.Secret, o.SessionToken = "a-secret-of-the-tests", "a-session-of-the-tests"
		h := http.Header{"Content-Type": {"application/xml"}, "Content-Length": {fmt.Sprint(len(body))}, "Location": {"http://elsewhere/a-secret-of-the-tests"}}
		if etag != "" {
			h.Set("ETag", etag)
		}
		s := newStore(o, roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.Body != nil {
				_, _ = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			return &http.Response{StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h.Clone(),
				Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r}, nil
		}))
		for _, op := range operations {
			err := op.do(t.Context(), s)
			if err == nil {
				continue
			}
			if text := err.Error(); fault.KindOf(err) == fault.Internal || len(text) > 4000 || strings.Contains(text, o.Secret) || strings.Contains(text, o.SessionToken) {
				t.Errorf("%s: %s: %d bytes: %.500s", op.name, fault.KindOf(err), len(text), text)
			}
		}
	})
}
