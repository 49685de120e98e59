// Package secret keeps secrets out of what people read: errors, logs, plans,
// reports. Who knows a secret (a client of an API, a store, the settings) makes a
// Set of it and passes what it says through the Set, once, where it leaves the
// package. What a server or a proxy says may repeat all that was sent to it.
//
// A Set knows a secret in the forms in which others repeat it: as it is, escaped
// for a URL, JSON or HTML, in hex and base64, and as its SHA-256, which of an API
// token is the secret of R2's S3 interface. It finds parts of them too, of 12
// letters and more, for texts are cut. It knows no secret of fewer than 6 letters,
// for such a word is anywhere, and guards nothing.
package secret

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"html"
	"net/url"
	"regexp"
	"strings"
	"sync"
)

// Hidden stands in a text for what was a secret.
const Hidden = "(secret)"

const (
	shortest = 6
	gram     = 12 // letters of a part that is found
)

// Set is a number of secrets. The zero value has none. All methods are safe for
// concurrent use.
type Set struct {
	mu    sync.RWMutex
	short []string // forms of fewer than gram letters
	grams map[[gram]byte]struct{}
}

// New is the set of the values; empty ones are none.
func New(values ...string) *Set {
	s := &Set{}
	s.Add(values...)
	return s
}

// Add adds secrets.
func (s *Set) Add(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grams == nil {
		s.grams = make(map[[gram]byte]struct{})
	}
	for _, v := range values {
		for _, f := range Forms(beyondHost(v)) {
			f = lower(f)
			if len(f) < gram {
				s.short = append(s.short, f)
				continue
			}
			for i := range len(f) - gram + 1 {
				s.grams[[gram]byte([]byte(f[i:]))] = struct{}{}
			}
		}
	}
}

// beyondHost is what is secret of a URL: all that comes after its host, which other
// URLs have, too. Anything else is secret as a whole.
func beyondHost(value string) string {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return value
	}
	return strings.TrimPrefix(value, u.Scheme+"://"+u.Host+"/")
}

// Forms are the ways in which a secret may be repeated. Letters may be of either
// case in each of them.
func Forms(value string) []string {
	if len(value) < shortest {
		return nil
	}
	sum := sha256.Sum256([]byte(value))
	forms := []string{value, url.QueryEscape(value), url.PathEscape(value), html.EscapeString(value), strings.ReplaceAll(value, "/", `\/`),
		hex.EncodeToString([]byte(value)), hex.EncodeToString(sum[:])}
	// Base64 depends on what stands before it, and on what comes after it: what is
	// the same for all of that.
	for before := range 3 {
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := e.EncodeToString([]byte("\x00\x00\x00"[:before] + value))
			forms = append(forms, text[(before*8+5)/6:(before+len(value))*8/6])
		}
	}
	return forms
}

// What is secret by its place, whatever its value: the user of a URL, a
// signature, a header or a parameter with credentials.
var places = []*regexp.Regexp{
	regexp.MustCompile(`(?i)((?:://|%3a%2f%2f)(?:[^/\s@"'<>?#&]*(?::|%3a))?)[^/\s@"'<>?#&]+(?:@|%40)`),
	regexp.MustCompile(`(?i)(\bauthorization["']?\s*[:=]\s*["']?)[^"'<>\r\n]+`),
	regexp.MustCompile(`(?i)(\bbearer\s+)[\w.~+/=-]{6,}`),
	regexp.MustCompile(`(?i)(\b(?:x-amz-)?signature\s*[=:]\s*)[\w%+/=-]{6,}`),
	regexp.MustCompile(`(?i)(\bx-amz-(?:security-token|credential)["']?\s*[=:]\s*["']?)[\w%+/=.-]{6,}`),
	regexp.MustCompile(`(?i)([?&](?:[a-z0-9_-]*(?:secret|token|password|passwd)[a-z0-9_-]*|sig|key|api-?key|auth)=)[^&\s"'<>]+`),
}

// Scrub takes out of a text what is secret by its place, such as the password in a
// URL and the signature of a request.
func Scrub(text string) string {
	for i, p := range places {
		to := "${1}" + Hidden
		if i == 0 {
			to += "@"
		}
		text = p.ReplaceAllString(text, to)
	}
	return text
}

// Clean is Scrub that also takes out the secrets of the set.
func (s *Set) Clean(text string) string {
	if s == nil {
		return Scrub(text)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	low := lower(text)
	var hide []bool // of each byte
	mark := func(from, n int) {
		if hide == nil {
			hide = make([]bool, len(text))
		}
		for i := range n {
			hide[from+i] = true
		}
	}
	if len(s.grams) > 0 {
		for i := range len(low) - gram + 1 {
			if _, ok := s.grams[[gram]byte([]byte(low[i:i+gram]))]; ok {
				mark(i, gram)
			}
		}
	}
	for _, f := range s.short {
		for at := 0; ; {
			i := strings.Index(low[at:], f)
			if i < 0 {
				break
			}
			mark(at+i, len(f))
			at += i + len(f)
		}
	}
	if hide == nil {
		return Scrub(text)
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if !hide[i] {
			b.WriteByte(text[i])
		} else if i == 0 || !hide[i-1] {
			b.WriteString(Hidden)
		}
	}
	return Scrub(b.String())
}

// Error is err with a text that is clean: also that of an error that wraps it.
// What it is, and what it wraps, stay. A nil error stays nil.
func (s *Set) Error(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if c := s.Clean(text); c != text {
		return &cleaned{err, c}
	}
	return err
}

type cleaned struct {
	err  error
	text string
}

func (c *cleaned) Error() string { return c.text }
func (c *cleaned) Unwrap() error { return c.err }

// lower is strings.ToLower of ASCII alone, which keeps the place of each byte.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
