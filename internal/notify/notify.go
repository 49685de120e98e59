// Package notify sends two kinds of message over HTTP: a heartbeat, which says
// that a job ran, to a service that calls a person when it stays away; and a
// message to a webhook of a chat (Slack's form, which others take too).
//
// The URLs are secrets: whoever has one may write to it. No error and no log of
// this package has a part of one. A message is a courtesy: it is bounded in time
// and attempts, and its failure is an error for the caller to tell, not to act on.
package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"etl/internal/fault"
)

// URL is the secret address of a receiver. Its text is never printed.
type URL struct{ u *url.URL }

// ParseURL parses an address of http or https. Its error has no part of it.
func ParseURL(text string) (*URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fault.Errorf(fault.Usage, "want a URL like https://HOST/PATH (it is not shown, being a secret)")
	}
	return &URL{u}, nil
}

// String implements fmt.Stringer, for whoever prints it by accident.
func (u *URL) String() string { return "(a secret URL)" }

// GoString implements fmt.GoStringer.
func (u *URL) GoString() string { return u.String() }

// Limits of a message, with the defaults of the policy: at most three attempts,
// and no more than half a minute for all of them.
const (
	attempts = 3
	patience = 10 * time.Second // of one attempt
	budget   = 30 * time.Second
)

// Sender sends messages. Its zero value works.
type Sender struct {
	// Retry replaces the policy in tests.
	Retry *fault.Policy
	// Patience replaces the time that one attempt may take, in tests.
	Patience time.Duration
}

// Heartbeat asks for u with GET.
func (s Sender) Heartbeat(ctx context.Context, u *URL) error {
	return s.send(ctx, "heartbeat", http.MethodGet, u, nil)
}

// Post sends message, as JSON, to u. A text in Slack's form has to be escaped: Escape.
func (s Sender) Post(ctx context.Context, u *URL, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	return s.send(ctx, "webhook", http.MethodPost, u, body)
}

// Escape makes text safe within Slack's markup, where <, > and & are commands.
func Escape(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

// client follows no redirect: what is sent goes where it was meant to, or nowhere.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func (s Sender) send(ctx context.Context, what, method string, u *URL, body []byte) error {
	p := fault.Policy{Attempts: attempts, Base: time.Second, Cap: 5 * time.Second, Budget: budget, AfterCap: 10 * time.Second}
	if s.Retry != nil {
		p = *s.Retry
	}
	one := patience
	if s.Patience > 0 {
		one = s.Patience
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	return p.Do(ctx, what, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, one)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, u.u.String(), bytes.NewReader(body))
		if err != nil {
			return fault.Errorf(fault.Usage, "%s: the URL can not be used", what)
		}
		req.Header.Set("User-Agent", "etl")
		if body != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		res, err := client.Do(req)
		if err != nil {
			if e, ok := errors.AsType[*url.Error](err); ok {
				err = e.Err // the rest of it is the URL
			}
			if text := err.Error(); strings.Contains(text, u.u.Hostname()) {
				err = errors.New(strings.ReplaceAll(text, u.u.Hostname(), "(host)"))
			}
			return fault.Errorf(fault.Transient, "%s: %w", what, err)
		}
		defer res.Body.Close()
		_, _ = io.CopyN(io.Discard, res.Body, 4<<10)
		if res.StatusCode >= 200 && res.StatusCode <= 299 {
			return nil
		}
		err = fmt.Errorf("%s: the receiver answers %d", what, res.StatusCode)
		switch {
		case res.StatusCode == http.StatusTooManyRequests:
			if n, perr := strconv.Atoi(res.Header.Get("Retry-After")); perr == nil {
				err = fault.After(err, time.Duration(n)*time.Second)
			}
			return fault.Wrap(fault.Transient, err)
		case res.StatusCode >= 500 || res.StatusCode == http.StatusRequestTimeout:
			return fault.Wrap(fault.Transient, err)
		}
		return fault.Hint(fault.Wrap(fault.Invalid, err), "is the URL right, and still in force?")
	})
}
