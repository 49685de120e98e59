package s3

import (
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"etl/internal/fault"
	"etl/internal/object"
)

func TestOpen(t *testing.T) {
	good := options("https://host.example/path")
	if _, err := Open(good); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		change func(*Options)
		want   []string
	}{
		{func(o *Options) { o.Endpoint = "host.example" }, []string{"endpoint"}},
		{func(o *Options) { o.Endpoint = "ftp://host.example" }, []string{"endpoint"}},
		{func(o *Options) { o.Endpoint = "https://" }, []string{"endpoint"}},
		{func(o *Options) { o.Endpoint = "https://u:p@host.example" }, []string{"endpoint"}},
		{func(o *Options) { o.Endpoint = "https://host.example?x" }, []string{"endpoint"}},
		{func(o *Options) { o.Bucket = "a/b" }, []string{"bucket"}},
		{func(o *Options) { o.Prefix = "a//b" }, []string{"prefix"}},
		{func(o *Options) { o.Prefix = "a/" }, []string{"prefix"}},
		{func(o *Options) { *o = Options{} }, []string{"region", "bucket", "access key"}}, // all at once
		{func(o *Options) { o.AccessKey = "" }, []string{"access key"}},
	} {
		o := good
		tc.change(&o)
		_, err := Open(o)
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", o, err)
			continue
		}
		for _, w := range tc.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v, want %q in it", err, w)
			}
		}
		if strings.Contains(err.Error(), o.Secret) && o.Secret != "" {
			t.Errorf("%v tells the secret", err)
		}
	}
}

func TestR2Endpoint(t *testing.T) {
	const account = "0123456789abcdef0123456789abcdef"
	for _, tc := range []struct{ account, jurisdiction, want string }{
		{account, "", "https://" + account + ".r2.cloudflarestorage.com"},
		{account, "eu", "https://" + account + ".eu.r2.cloudflarestorage.com"},
		{account, "fedramp", "https://" + account + ".fedramp.r2.cloudflarestorage.com"},
		{account, "us", "https://" + account + ".us.r2.cloudflarestorage.com"},
		{account, "mars", ""},
		{account, "EU", ""},
		{"", "", ""},
		{account + "0", "", ""},
		{strings.ToUpper(account), "", ""},
		{"x.example/?" + account[11:], "", ""},
	} {
		got, err := R2Endpoint(tc.account, tc.jurisdiction)
		if got != tc.want || (err == nil) != (tc.want != "") || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%q, %q: %q, %v", tc.account, tc.jurisdiction, got, err)
		}
	}
}

// TestRequests are what platforms want of a request: see the package comment.
func TestRequests(t *testing.T) {
	var got *http.Request
	var body []byte
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		if r.Method == http.MethodGet && r.URL.Query().Get("list-type") != "" {
			io.WriteString(w, "<ListBucketResult><Name>archive</Name></ListBucketResult>")
			return
		}
		serveObject(w, []byte("x"))
	}))
	defer srv.Close()
	o := options(srv.URL)
	o.Prefix = "up/per"
	o.SessionToken = "t0ken"
	o.RootCAs = x509.NewCertPool()
	o.RootCAs.AddCert(srv.Certificate())
	s := open(t, o)
	data := []byte("some bytes")
	md5sum, sha := md5.Sum(data), sha256.Sum256(data)
	header := func(want map[string]string) {
		t.Helper()
		for k, v := range want {
			if h := got.Header.Get(k); h != v {
				t.Errorf("%s %s: %s: %q, want %q", got.Method, got.URL, k, h, v)
			}
		}
		for k := range got.Header {
			if k == "Expect" || k == "Te" || strings.HasPrefix(k, "X-Amz-Checksum") || strings.HasPrefix(k, "X-Amz-Trailer") || strings.HasPrefix(k, "X-Amz-Sdk-Checksum") || strings.HasPrefix(k, "X-Amz-Expected") {
				t.Errorf("%s %s: header %s", got.Method, got.URL, k)
			}
		}
		if len(got.Trailer) > 0 || len(got.TransferEncoding) > 0 {
			t.Errorf("%s %s: trailer %v, transfer encoding %v", got.Method, got.URL, got.Trailer, got.TransferEncoding)
		}
		auth := got.Header.Get("Authorization")
		if !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=key/") || !strings.Contains(auth, "/auto/s3/aws4_request") {
			t.Errorf("authorization %q", auth)
		}
		if got.ProtoMajor != 1 {
			t.Errorf("protocol %s", got.Proto)
		}
	}
	put := map[string]string{
		"Content-Md5": base64.StdEncoding.EncodeToString(md5sum[:]), "X-Amz-Content-Sha256": hex.EncodeToString(sha[:]),
		"Content-Length": "10", "Content-Type": "application/octet-stream", "X-Amz-Security-Token": "t0ken", "If-Match": "", "If-None-Match": "",
	}
	for _, tc := range []struct {
		o    object.PutOptions
		want map[string]string
	}{
		{object.PutOptions{}, nil},
		{object.PutOptions{IfAbsent: true, Type: "application/json"}, map[string]string{"If-None-Match": "*", "Content-Type": "application/json"}},
		{object.PutOptions{IfMatch: "abc", Meta: map[string]string{"pointName": "Vorlauf °C", "pointId": "7"}},
			map[string]string{"If-Match": `"abc"`, "X-Amz-Meta-Pointid": "7", "X-Amz-Meta-Pointname": "=?utf-8?b?Vm9ybGF1ZiDCsEM=?="}},
		{object.PutOptions{IfMatch: `W/"abc"`}, map[string]string{"If-Match": `W/"abc"`}},
	} {
		if _, err := s.Put(t.Context(), "a/ö", data, tc.o); err != nil {
			t.Fatal(err)
		}
		want := maps.Clone(put)
		maps.Copy(want, tc.want)
		header(want)
		if got.Method != "PUT" || got.URL.Path != "/archive/up/per/a/ö" || string(body) != string(data) {
			t.Errorf("%s %s %q", got.Method, got.URL, body)
		}
	}
	if _, _, err := s.Get(t.Context(), "a/ö"); err != nil {
		t.Fatal(err)
	}
	header(map[string]string{"Accept-Encoding": "identity"})
	if got.Method != "GET" || got.URL.Path != "/archive/up/per/a/ö" {
		t.Errorf("%s %s", got.Method, got.URL)
	}
	for range s.List(t.Context(), "a/") {
		t.Error("an object in an empty listing")
	}
	header(nil)
	if q := got.URL.Query(); got.URL.Path != "/archive" || q.Get("prefix") != "up/per/a/" || q.Get("encoding-type") != "url" {
		t.Errorf("%s", got.URL)
	}
}

// TestHostOfBucket checks the other way to name a bucket.
func TestHostOfBucket(t *testing.T) {
	for _, tc := range []struct{ endpoint, region, want string }{
		{"https://host.example", "auto", "https://archive.host.example/k"},
		{"", "eu-central-1", "https://archive.s3.eu-central-1.amazonaws.com/k"},
	} {
		o := options(tc.endpoint)
		o.PathStyle, o.Region = false, tc.region
		var url string
		s := newStore(o, roundTrip(func(r *http.Request) (*http.Response, error) {
			url, _, _ = strings.Cut(r.URL.String(), "?")
			return nil, io.EOF
		}))
		if _, _, err := s.Get(t.Context(), "k"); !fault.Is(err, fault.Transient) || url != tc.want {
			t.Errorf("%s: %q, %v", tc.want, url, err)
		}
	}
}

// TestListOfForeignBucket lists one archive among other things.
func TestListOfForeignBucket(t *testing.T) {
	srv := fake(t)
	all := open(t, options(srv.URL))
	for _, name := range []string{"a", "a-b/x", "a/", "a//x", "a/1", "a/b/", "a/b/../x", "a/b/2", "a/b\\3", "a/é", "a0", "ab/1", "z"} {
		raw, err := http.NewRequest("PUT", srv.URL+"/archive/"+strings.ReplaceAll(name, `\`, "%5C"), strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		raw.URL.Opaque = "" // as it is, ".." too
		res, err := http.DefaultClient.Do(raw)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("put %q: %v, %v", name, res, err)
		}
		res.Body.Close()
	}
	o := options(srv.URL)
	o.Prefix = "a"
	part := open(t, o)
	for _, tc := range []struct {
		store  *Store
		prefix string
		want   []object.Key
	}{
		{part, "", []object.Key{"1", "b/2", "é"}},
		{part, "b", []object.Key{"b/2"}},
		{part, "b/", []object.Key{"b/2"}},
		{part, "\xc3", []object.Key{"é"}}, // half a letter
		{part, "/", nil},
		{all, "a", []object.Key{"a", "a-b/x", "a/1", "a/b/2", "a/é", "a0", "ab/1"}},
		{all, "a/b", []object.Key{"a/b/2"}},
	} {
		var got []object.Key
		for a, err := range tc.store.List(t.Context(), tc.prefix) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, a.Key)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("list %q below %q: %q, want %q", tc.prefix, tc.store.prefix, got, tc.want)
		}
	}
}

func TestKeyWithPrefixTooLong(t *testing.T) {
	o := options("http://host.example")
	o.Prefix = strings.Repeat("p", 23)
	s := newStore(o, roundTrip(func(r *http.Request) (*http.Response, error) { return nil, io.EOF }))
	for n, want := range map[int]fault.Kind{1000: fault.Transient, 1001: fault.Invalid} {
		if _, _, err := s.Get(t.Context(), object.Key(strings.Repeat("k", n))); !fault.Is(err, want) {
			t.Errorf("a key of %d bytes: %v", n, err)
		}
	}
}

// TestAskable checks the prefix that is sent against the rule: it begins the
// prefix wanted, and if a key begins with that it is asked for.
func TestAskable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringOfN(rapid.RuneFrom([]rune("ab/.é温🌡\\\x00")), 1, 12, -1).Draw(t, "key")
		n := rapid.IntRange(0, len(key)).Draw(t, "n")
		ask, ok := askable(key[:n])
		if object.Key(key).Check() == nil && !ok {
			t.Fatalf("prefix %q of key %q is not asked for", key[:n], key)
		}
		if ok && (!strings.HasPrefix(key[:n], ask) || !utf8.ValidString(ask) || n-len(ask) >= utf8.UTFMax) {
			t.Fatalf("prefix %q is asked for as %q", key[:n], ask)
		}
	})
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{`"abc"`, `abc`, `W/"abc"`, `"`, `""`, ``, `"a"b"`, `"abc-2"`, `"W/""`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, etag string) {
		// As a service sends an ETag so it comes back to it; one without quotes
		// gets them. Inside there are none (RFC 9110, section 8.8.3).
		opaque := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(etag, "W/"), `"`), `"`)
		if strings.Contains(opaque, `"`) {
			return
		}
		for _, sent := range []string{`"` + opaque + `"`, `W/"` + opaque + `"`} {
			if got := quote(unquote(sent)); got != sent {
				t.Fatalf("%q comes back as %q", sent, got)
			}
		}
		if got := quote(unquote(opaque)); got != `"`+opaque+`"` {
			t.Fatalf("%q comes back as %q", opaque, got)
		}
	})
}

// travel takes metadata to a service and back, as HTTP does.
func travel(t interface{ Fatalf(string, ...any) }, meta map[string]string) map[string]string {
	sent, err := encodeMeta(meta)
	if err != nil {
		t.Fatalf("%q: %v", meta, err)
	}
	total := 0
	got := map[string]string{}
	for k, v := range sent {
		total += len(k) + len(v)
		for _, r := range v {
			if r < ' ' || r > '~' {
				t.Fatalf("value %q is sent as %q", meta[k], v)
			}
		}
		for _, word := range strings.Split(v, " ") {
			if strings.HasPrefix(word, "=?") && len(word) > 75 {
				t.Fatalf("value %q is sent as a word of %d characters", meta[k], len(word))
			}
		}
		got[k] = strings.TrimSpace(v)
	}
	if total > maxMeta {
		t.Fatalf("%d bytes are sent", total)
	}
	return decodeMeta(got)
}

func FuzzMetadata(f *testing.F) {
	for _, s := range []string{"AHU-1/Supply Temp", "Vorlauf °C", "", " lead", "two  spaces", "=?utf-8?b?eA==?=", "a\nb", "\xff", "温度🌡️", "\x7f", "\u0085", "a=?b", strings.Repeat("é", 1500)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got := travel(t, map[string]string{"pointName": value, "pointId": "7"})
		if got["pointId"] != "7" {
			t.Fatalf("beside %q: %q", value, got["pointId"])
		}
		v, ok := got["pointName"]
		travels := utf8.ValidString(value) && !strings.Contains(value, "=?") && !strings.ContainsFunc(value, unicode.IsControl)
		switch {
		case ok && v != value:
			t.Fatalf("%q comes back as %q", value, v)
		case ok && !travels:
			t.Fatalf("%q was sent", value)
		case !ok && travels && len(value) < maxMeta/2:
			t.Fatalf("%q was left out", value)
		}
	})
}

func TestMetadataLimit(t *testing.T) {
	long := strings.Repeat("x", 1500)
	for _, tc := range []struct {
		meta map[string]string
		want []string
	}{
		{nil, nil},
		{map[string]string{"a": "", "b": "1"}, []string{"a", "b"}},
		{map[string]string{"a": strings.Repeat("x", 2047)}, []string{"a"}},
		{map[string]string{"a": strings.Repeat("x", 2048)}, nil},
		{map[string]string{"a": long, "b": long + "x", "c": "1"}, []string{"a", "c"}},
		{map[string]string{"a": long, "b": long, "c": "1"}, []string{"b", "c"}},
		{map[string]string{"name": strings.Repeat("é", 800), "id": "7"}, []string{"id"}}, // 1,600 bytes travel as 2,628
		{map[string]string{"name": strings.Repeat("é", 600), "id": "7"}, []string{"id", "name"}},
	} {
		got := travel(t, tc.meta)
		if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, tc.want) {
			t.Errorf("%.60v: %q came through, want %q", tc.meta, keys, tc.want)
		}
		for k, v := range got {
			if v != tc.meta[k] {
				t.Errorf("%s: %q came through", k, v)
			}
		}
	}
	for _, name := range []string{"", "a b", "ä", "a:b", "a\n"} {
		if _, err := encodeMeta(map[string]string{name: "x"}); !fault.Is(err, fault.Invalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	// What another writer left there is shown as it is.
	if got := decodeMeta(map[string]string{"a": "=?klingon?b?eA==?=", "b": "=?utf-8?q?=C3=A9?="}); got["a"] != "=?klingon?b?eA==?=" || got["b"] != "é" {
		t.Errorf("%q", got)
	}
}

// TestManyPages lists more than a page, each second request failing, against a
// sorted slice.
func TestManyPages(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	names := map[string]bool{}
	for len(names) < 3500 {
		names[fmt.Sprintf("timeseries/2024/%02d/p%d.parquet", r.IntN(12)+1, r.IntN(1e6))] = true
	}
	sorted := slices.Sorted(maps.Keys(names))
	pages := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if pages++; pages%2 == 0 {
			w.WriteHeader(500)
			return
		}
		token := r.URL.Query().Get("continuation-token")
		from, found := slices.BinarySearch(sorted, cmp.Or(token, r.URL.Query().Get("start-after")))
		if found && token == "" {
			from++
		}
		to := min(from+1000, len(sorted))
		io.WriteString(w, "<ListBucketResult><Name>archive</Name>")
		for _, n := range sorted[from:to] {
			fmt.Fprintf(w, "<Contents><Key>%s</Key><ETag>&quot;x&quot;</ETag><Size>1</Size></Contents>", n)
		}
		if to < len(sorted) {
			fmt.Fprintf(w, "<IsTruncated>true</IsTruncated><NextContinuationToken>%s</NextContinuationToken>", sorted[to])
		}
		io.WriteString(w, "</ListBucketResult>")
	}))
	defer srv.Close()
	var retries fault.Counter
	s := object.Retry(object.Pace(open(t, options(srv.URL)), time.Second), fault.Policy{Notify: retries.Count, Sleep: func(context.Context, time.Duration) error { return nil }})
	var got []string
	for a, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(a.Key))
	}
	if !slices.Equal(got, sorted) {
		t.Fatalf("%d names, want %d, or they differ", len(got), len(sorted))
	}
	t.Logf("%d requests, %d repeated", pages, retries.Load())
	if retries.Load() == 0 {
		t.Fatal("no fault was met")
	}
}
