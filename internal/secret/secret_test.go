package secret

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"etl/internal/fault"
)

const token = "v1.0-Ab/Cd+Ef=gh~IJKLMNOPqrstuvwx0123456789"

// Every form of a secret is found, in either case, cut off at either end, and in
// base64 behind anything.
func TestClean(t *testing.T) {
	s := New(token, "", "s3cr3t")
	for _, f := range append(Forms(token), strings.ToUpper(token), token[:20], token[20:], "S3cr3t") {
		for _, text := range []string{"before " + f + " after", f, "x" + f, f + f} {
			got := s.Clean(text)
			if low := strings.ToLower(got); strings.Contains(low, strings.ToLower(f)) || !strings.Contains(got, Hidden) {
				t.Errorf("%q became %q", text, got)
			}
		}
	}
	for _, before := range []string{"", "u", "us", "user:", "Bearer "} {
		for _, after := range []string{"", "!", "!!"} {
			if got := s.Clean(base64.StdEncoding.EncodeToString([]byte(before + token + after))); !strings.Contains(got, Hidden) || len(got) > 30 {
				t.Errorf("base64 between %q and %q: %q", before, after, got)
			}
		}
	}
	for _, text := range []string{"", "get timeseries/2024/01/a.parquet: the store answers 503 SlowDown (request 42)", "s3cr3", token[:11], "näïve – ☃", "https://host/path?endpoint=https://h&region=auto", "--source d1://11111111-2222-3333-4444-555555555555", "me@example.org", "2024-01-05T00:00:00Z"} {
		if got := s.Clean(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
		if got := (&Set{}).Clean(text); got != text {
			t.Errorf("%q became %q by the empty set", text, got)
		}
	}
}

// What is secret by its place needs not be known.
func TestScrub(t *testing.T) {
	for text, want := range map[string]string{
		"s3://b?endpoint=https://user:pa55@host/x":                       "s3://b?endpoint=https://user:(secret)@host/x",
		"https%3A%2F%2Fuser%3Apa55@host":                                 "https%3A%2F%2Fuser%3A(secret)@host",
		"https://t0ken@host":                                             "https://(secret)@host",
		`"Authorization": "Bearer abc.def"`:                              `"Authorization": "(secret)"`,
		"authorization: AWS4-HMAC-SHA256 Credential=a, Signature=0123ab": "authorization: (secret)",
		"sent Bearer abcdefgh to":                                        "sent Bearer (secret) to",
		"/x?X-Amz-Signature=0a1b2c3d&X-Amz-Date=1":                       "/x?X-Amz-Signature=(secret)&X-Amz-Date=1",
		"X-Amz-Security-Token: FwoGZXIvYXdz":                             "X-Amz-Security-Token: (secret)",
		"s3://b?secret-access-key=abc&region=x":                          "s3://b?secret-access-key=(secret)&region=x",
		"https://hooks.example/x?token=a1":                               "https://hooks.example/x?token=(secret)",
	} {
		if got := Scrub(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func TestError(t *testing.T) {
	s := New(token)
	if s.Error(nil) != nil {
		t.Error("nil is an error")
	}
	plain := errors.New("plain")
	if s.Error(plain) != plain {
		t.Error("a clean error is wrapped")
	}
	cause := fault.Hint(fault.Errorf(fault.Unavailable, "it says %s", token), "do that")
	err := fmt.Errorf("get x: %w", s.Error(cause))
	if got := err.Error(); got != "get x: it says (secret)" || !errors.Is(err, cause) || !fault.Is(err, fault.Unavailable) || fault.HintOf(err) != "do that" {
		t.Errorf("%q, %v, %q", got, fault.KindOf(err), fault.HintOf(err))
	}
}

func FuzzClean(f *testing.F) {
	f.Add(token, token)
	f.Add("s3cr3t", "x%73s3cr3t")
	f.Fuzz(func(t *testing.T, value, text string) {
		if len(value) < shortest || strings.ContainsAny(value, "()") || strings.Contains(Hidden, lower(value)) {
			t.Skip("what is put in its place may make it up again")
		}
		if got := New(value).Clean(text + value + text); strings.Contains(lower(got), lower(value)) {
			t.Errorf("%q is left in %q", value, got)
		}
	})
}

// Of a URL that is secret the host is none: other URLs on it stay legible.
func TestHostIsNoSecret(t *testing.T) {
	s := New("https://hooks.example.org/services/T0/B0/kFq83Lm2xP0s", "https://a.example.org/x")
	for text, want := range map[string]string{
		"post https://hooks.example.org/services/T0/B0/kFq83Lm2xP0s: 404":     "post https://hooks.example.org/(secret): 404",
		"get https://hooks.example.org/status: 200":                           "get https://hooks.example.org/status: 200",
		"https%3A%2F%2Fhooks.example.org%2Fservices%2FT0%2FB0%2FkFq83Lm2xP0s": "https%3A%2F%2Fhooks.example.org%2F(secret)",
		"at https://a.example.org/x":                                          "at https://a.example.org/x",
	} {
		if got := s.Clean(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
