package cloudflaretest

import (
	"bytes"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Fault is what becomes of a request instead of a plain answer. The zero value
// is a plain answer. Without Stream, Status and Reset the statements are run.
type Fault struct {
	Delay time.Duration // before anything else
	// MaxRows is the most rows that a statement may return: more are an error of
	// memory. 0 is no limit.
	MaxRows int

	// Reset breaks the connection instead of answering, Status answers with it,
	// Header and Body. Ran says that the statements are run before.
	Reset  bool
	Status int
	Header http.Header
	Body   string
	Ran    bool

	// Stream writes the body of a good answer instead of running the statements;
	// an error breaks the connection. What follows below is not done to it.
	Stream func(io.Writer) error

	// Edit changes the body of the answer that D1 gave.
	Edit func([]byte) []byte
	// Cut breaks the connection after so many bytes of the body, which announced more.
	Cut int
	// Drip sends the body Every bytes at a time, with a pause before each.
	Drip  time.Duration
	Every int
}

// do answers with what plain returns and the fault makes of it.
func (f *Fault) do(s *Server, w http.ResponseWriter, r *http.Request, plain func() reply) {
	if f.Delay > 0 {
		s.pause(r, f.Delay)
	}
	if f.Stream != nil {
		w.Header().Set("Content-Type", "application/json")
		if err := f.Stream(w); err != nil {
			panic(http.ErrAbortHandler)
		}
		return
	}
	var a reply
	if f.Ran || (!f.Reset && f.Status == 0) {
		a = plain()
	}
	if f.Reset {
		breakOff(w, true)
	}
	w.Header().Set("Content-Type", "application/json")
	if f.Status != 0 {
		a = reply{f.Status, []byte(f.Body)}
		maps.Copy(w.Header(), f.Header)
	}
	if f.Edit != nil {
		a.body = f.Edit(a.body)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	body := a.body
	if f.Cut > 0 {
		body = body[:min(f.Cut, max(len(body)-1, 0))]
	}
	step := len(body)
	if f.Drip > 0 {
		step = max(f.Every, 1)
	}
	for len(body) > 0 {
		if f.Drip > 0 {
			http.NewResponseController(w).Flush()
			s.pause(r, f.Drip)
		}
		n := min(step, len(body))
		if _, err := w.Write(body[:n]); err != nil {
			return
		}
		body = body[n:]
	}
	if f.Cut > 0 {
		http.NewResponseController(w).Flush()
		breakOff(w, false)
	}
}

// pause sleeps until somebody goes away.
func (s *Server) pause(r *http.Request, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return
	case <-s.off:
	case <-r.Context().Done():
	}
	panic(http.ErrAbortHandler)
}

// breakOff ends the connection, or the stream where several share one. A reset
// overtakes what was sent before.
func breakOff(w http.ResponseWriter, reset bool) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
		conn.Close()
	}
	panic(http.ErrAbortHandler)
}

// Fails is a fault that is an error of Cloudflare's: a status, a code and a message.
func Fails(status, code int, message string) *Fault {
	return &Fault{Status: status, Body: string(failure(status, code, message).body)}
}

// Ran is f after the statements were run.
func Ran(f *Fault) *Fault {
	ran := *f
	ran.Ran = true
	return &ran
}

// RateLimited is Cloudflare's API that blocks a token. after is the header
// Retry-After, none if "".
func RateLimited(after string) *Fault {
	f := Fails(429, 10100, "More than 1200 requests per 300 seconds reached. Please wait and consider throttling your request speed")
	if after != "" {
		f.Header = http.Header{"Retry-After": {after}}
	}
	return f
}

// ExpiredToken is a token that is not valid any more.
func ExpiredToken() *Fault { return Fails(401, 10000, "Authentication error") }

// Named is one of Faults.
type Named struct {
	Name string
	*Fault
}

// Faults are the ones that pass: a request that is sent again afterwards succeeds.
func Faults() []Named {
	edit := func(f func([]byte) []byte) *Fault { return &Fault{Edit: f} }
	html := &Fault{Status: 502, Body: "<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>",
		Header: http.Header{"Content-Type": {"text/html"}}}
	plain := &Fault{Status: 503, Body: "upstream connect error or disconnect/reset before headers"}
	return []Named{
		{"slow to answer", &Fault{Delay: 20 * time.Millisecond}},
		{"reset before", &Fault{Reset: true}},
		{"reset after", &Fault{Reset: true, Ran: true}},
		{"cut after 1 byte", &Fault{Cut: 1}},
		{"cut in the middle", &Fault{Cut: 100}},
		{"cut before the last byte", &Fault{Cut: 1 << 30}},
		{"429 of the API", RateLimited("")},
		{"429 of the API with Retry-After", RateLimited("0")},
		{"429 of D1, overloaded", Fails(429, 7429, "D1 DB is overloaded. Requests queued for too long.")},
		{"429 of D1, CPU", Fails(429, 7429, "D1 DB exceeded its CPU time limit and was reset.")},
		{"500 before", Fails(500, 7500, "internal error; reference = 0123456789")},
		{"500 after", Ran(Fails(500, 7500, "D1 DB storage caused object to be reset."))},
		{"502 as HTML", html},
		{"503 as text", plain},
		{"504 before", Fails(504, 0, "gateway timeout")},
		{"504 after", Ran(Fails(504, 0, "gateway timeout"))},
		{"success:false, not run", Fails(200, 7500, "Network connection lost.")},
		{"success:false, run", Ran(Fails(200, 7500, "Network connection lost."))},
		{"truncated JSON", edit(func(b []byte) []byte { return b[:len(b)*2/3] })},
		{"malformed JSON", edit(func(b []byte) []byte { return bytes.Replace(b, []byte(`"success"`), []byte(`"success`), 1) })},
		{"no body", edit(func([]byte) []byte { return nil })},
		{"a page of HTML with 200", edit(func([]byte) []byte { return []byte("<html>log in to this network</html>") })},
		{"slow drip", &Fault{Drip: time.Millisecond, Every: 64}},
		{"7403 in passing", Fails(403, 7403, "The given account is not valid or is not authorized to access this service")},
	}
}

// WrongColumns renames the column name in the answer of /raw.
func WrongColumns(name string) *Fault {
	return &Fault{Edit: func(b []byte) []byte {
		return bytes.Replace(b, []byte(strconv.Quote(name)), []byte(`"something_else"`), 1)
	}}
}
