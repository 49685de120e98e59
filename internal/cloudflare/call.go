package cloudflare

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"etl/internal/fault"
	"etl/internal/timing"
)

// call is one thing to do, in one attempt or more.
type call struct {
	what         string // in errors
	method, path string
	access       Access
	usage        *usage // may be nil
	tries        int    // of what is not allowed
	body         func(last error) ([]byte, error)
	read         func(io.Reader) error
}

// call sends a request and reads its answer until that succeeds, fails for
// good, or the policy is exhausted. Each attempt takes a token of the limiter.
func (c *Client) call(ctx context.Context, q call) error {
	var last error
	sent, denied := 0, 0
	err := c.retry.Do(ctx, q.what, func(ctx context.Context) (err error) {
		// What the server says, or a proxy, may repeat what was sent.
		defer func() { err = c.secrets.Error(err) }()
		body, err := q.body(last)
		if err != nil {
			return fmt.Errorf("%s: %w", q.what, err)
		}
		turn := c.rec.Start()
		err = c.limit.Wait(ctx)
		c.rec.End(timing.WaitRate, turn)
		if err != nil {
			if ctx.Err() == nil { // the deadline is before the turn
				err = context.DeadlineExceeded
			}
			return fmt.Errorf("%s: wait for a turn: %w", q.what, err)
		}
		if q.usage != nil {
			q.usage.requests.Add(1)
			if sent > 0 {
				q.usage.retries.Add(1)
			}
		}
		sent++
		err = c.attempt(ctx, q, body)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("%s: %w", q.what, err)
		last = err
		v, _ := errors.AsType[*verdict](err)
		switch {
		case v != nil && v.denied:
			if denied++; denied >= q.tries {
				return fault.Wrap(fault.Unavailable, err)
			}
		case q.access == Once && (v == nil || !v.untouched) && (fault.Is(err, fault.Transient) || ctx.Err() != nil):
			return fault.Wrap(fault.Unknown, fmt.Errorf("%w (whether it was done is unknown)", err))
		}
		return err
	})
	return err
}

var errSilent = errors.New("the server is silent")

// attempt sends one request, whose answer is read by q.read if its status says success.
func (c *Client) attempt(parent context.Context, q call, body []byte) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	silence := time.AfterFunc(c.answerWait, func() { cancel(errSilent) })
	defer silence.Stop()

	// Between GetConn and GotConn nothing of the request has left: what fails
	// there is a name, a dial or a handshake.
	var connecting atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { connecting.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { connecting.Store(false) },
	})
	req, err := http.NewRequestWithContext(ctx, q.method, c.base+q.path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("User-Agent", "etl")
	if q.method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	sent := c.rec.Start()
	resp, err := c.http.Do(req)
	c.rec.End(timing.Network, sent)
	if err != nil {
		return c.unanswered(parent, ctx, err, connecting.Load())
	}
	defer resp.Body.Close()
	silence.Stop()

	answer := &answer{r: resp.Body, silence: silence, wait: c.idleWait, rec: c.rec}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		errs := c.messages(answer)
		if parent.Err() != nil {
			return parent.Err()
		}
		return Classify(resp.StatusCode, resp.Header, errs)
	}
	began := c.rec.Start()
	err = q.read(answer)
	if c.rec != nil {
		c.rec.Add(timing.Parse, time.Since(began)-answer.took, 0)
	}
	if err == nil && answer.err == nil {
		// To the end: the connection can be used again, and what is missing is found.
		_, _ = io.CopyN(io.Discard, answer, 64<<10)
	}
	switch {
	case answer.err == nil || answer.err == io.EOF:
		return err
	case parent.Err() != nil:
		return parent.Err()
	case context.Cause(ctx) == errSilent:
		return failed(fault.Transient, &verdict{}, fmt.Errorf("the answer stopped after %d bytes: nothing for %s", answer.n, c.idleWait))
	}
	return failed(fault.Transient, &verdict{}, fmt.Errorf("the answer broke off after %d bytes: %w", answer.n, answer.err))
}

// answer is the body of an answer, whose bytes must keep coming while it is read.
type answer struct {
	r       io.Reader
	silence *time.Timer
	wait    time.Duration
	n       int64
	rec     *timing.Recorder
	took    time.Duration // that was waited for bytes, if there is a recorder
	err     error         // the first, io.EOF included
}

func (a *answer) Read(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	a.silence.Reset(a.wait)
	began := a.rec.Start()
	n, err := a.r.Read(p)
	if a.rec != nil {
		took := time.Since(began)
		a.took += took
		a.rec.Add(timing.Network, took, int64(n))
	}
	a.silence.Stop()
	a.n += int64(n)
	a.err = err
	return n, err
}

// unanswered classifies what came instead of an answer.
func (c *Client) unanswered(parent, ctx context.Context, err error, connecting bool) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the URL names account and database, which is no news
	}
	v := &verdict{untouched: connecting}
	switch _, cert := errors.AsType[*tls.CertificateVerificationError](err); {
	case parent.Err() != nil:
		return failed(fault.Internal, v, parent.Err())
	case context.Cause(ctx) == errSilent:
		v.shrink = !connecting
		return failed(fault.Transient, v, fmt.Errorf("no answer within %s", c.answerWait))
	case cert:
		return fault.Hint(failed(fault.Unavailable, v, err),
			"is this computer's clock right? Behind a proxy that looks into TLS, --ca-file must name its certificate")
	case errors.Is(err, http.ErrSchemeMismatch):
		return fault.Hint(failed(fault.Invalid, v, err), "is the URL of the API right?")
	}
	return fault.Unreached(failed(fault.Transient, v, err))
}

// messages are the errors in the body of an answer, or a message without a code
// that has its text. The token, should it be in there, is taken out.
func (c *Client) messages(r io.Reader) []Message {
	text, _ := io.ReadAll(io.LimitReader(r, 64<<10))
	var envelope struct {
		Errors []Message `json:"errors"`
	}
	var errs []Message
	if json.Unmarshal(text, &envelope) == nil {
		errs = envelope.Errors
	}
	if plain := strings.TrimSpace(string(text)); len(errs) == 0 && plain != "" {
		if plain[0] == '<' {
			plain = "a page of HTML, not an answer of the API"
		}
		errs = []Message{{Message: plain}}
	}
	for i := range errs {
		errs[i].Message = c.secrets.Clean(errs[i].Message)
	}
	return errs
}
