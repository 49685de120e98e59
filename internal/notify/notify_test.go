package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"etl/internal/fault"
)

const secret = "T0KEN-of-the-receiver"

// receiver answers with the codes one after the other, the last one for ever.
type receiver struct {
	codes []int
	reqs  []string
	body  string
	wait  time.Duration
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	b, _ := io.ReadAll(req.Body)
	r.body = string(b)
	r.reqs = append(r.reqs, req.Method+" "+req.Header.Get("Content-Type"))
	time.Sleep(r.wait)
	if code := r.codes[min(len(r.reqs), len(r.codes))-1]; code != 200 {
		w.Header().Set("Location", "/elsewhere")
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(code)
	}
}

func start(t *testing.T, r *receiver) *URL {
	t.Helper()
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	u, err := ParseURL(s.URL + "/services/" + secret)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

var quick = Sender{Retry: &fault.Policy{Attempts: 3, Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}, Patience: 200 * time.Millisecond}

func TestSend(t *testing.T) {
	for name, c := range map[string]struct {
		codes []int
		wait  time.Duration
		sent  int
		err   string
	}{
		"at once":               {codes: []int{200}, sent: 1},
		"no content":            {codes: []int{204}, sent: 1},
		"busy, then not":        {codes: []int{503, 429, 200}, sent: 3},
		"away":                  {codes: []int{502}, sent: 3, err: "502"},
		"revoked":               {codes: []int{404, 200}, sent: 1, err: "404"},
		"elsewhere":             {codes: []int{302, 200}, sent: 1, err: "302"}, // a redirect may lead anywhere
		"silent":                {codes: []int{200}, wait: time.Second, sent: 3, err: "deadline"},
		"not what it asked for": {codes: []int{400}, sent: 1, err: "400"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &receiver{codes: c.codes, wait: c.wait}
			err := quick.Post(t.Context(), start(t, r), map[string]string{"text": "x"})
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || len(r.reqs) != c.sent {
				t.Errorf("%v after %d requests, want %q after %d", err, len(r.reqs), c.err, c.sent)
			}
			if strings.Contains(fmt.Sprint(err), secret) || strings.Contains(fmt.Sprintf("%+v %#v", err, err), "services") {
				t.Errorf("the secret is in %v", err)
			}
		})
	}
}

func TestForms(t *testing.T) {
	r := &receiver{codes: []int{200}}
	u := start(t, r)
	if err := quick.Heartbeat(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if err := quick.Post(t.Context(), u, map[string]string{"text": "a"}); err != nil {
		t.Fatal(err)
	}
	var m map[string]string
	if r.reqs[0] != "GET " || r.reqs[1] != "POST application/json" || json.Unmarshal([]byte(r.body), &m) != nil || m["text"] != "a" {
		t.Errorf("%q %s", r.reqs, r.body)
	}
	if got := Escape("<!channel> & co"); got != "&lt;!channel&gt; &amp; co" {
		t.Errorf("%s", got)
	}
}

// TestSecret: no error and no way of printing shows a URL.
func TestSecret(t *testing.T) {
	for _, text := range []string{secret, "ftp://h/" + secret, "https:///" + secret, "http://[::1/" + secret, "http://h/%zz" + secret, "https://h:" + secret, ""} {
		u, err := ParseURL(text)
		if err == nil || u != nil || !fault.Is(err, fault.Usage) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v, %v", text, u, err)
		}
	}
	u, err := ParseURL("https://user:" + secret + "@hooks." + secret + ".invalid/" + secret)
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %s %#v %q", u, u, u, u); strings.Contains(s, secret) {
		t.Error(s)
	}
	if err := quick.Heartbeat(t.Context(), u); err == nil || strings.Contains(err.Error(), secret) || !fault.Is(err, fault.Transient) {
		t.Errorf("%v", err)
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	addr := gone.URL
	gone.Close()
	if u, err = ParseURL(addr + "/" + secret); err != nil {
		t.Fatal(err)
	}
	if err := quick.Post(t.Context(), u, 1); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("%v", err)
	}
}

func TestCancelled(t *testing.T) {
	r := &receiver{codes: []int{503}}
	u := start(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (Sender{}).Heartbeat(ctx, u); err == nil || len(r.reqs) != 0 {
		t.Errorf("%v after %d requests", err, len(r.reqs))
	}
}
