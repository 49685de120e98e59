// Package cloudflare owns the conversation with Cloudflare's REST API: one
// client per token, which all workers share, with its rate limit, its retries and
// the classification of its errors (package fault). It knows statements, answers
// and envelopes; what the rows mean is for package source/d1.
//
// There is no other layer that retries or waits. net/http sends a request again
// by itself only where nothing of it was written, or a GET.
package cloudflare

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"etl/internal/fault"
	"etl/internal/secret"
	"etl/internal/timing"
)

// DefaultURL is the base of Cloudflare's API.
const DefaultURL = "https://api.cloudflare.com/client/v4"

// Options of a client. The zero value is usable.
type Options struct {
	URL string // DefaultURL if ""
	// HTTP sends the requests; nil for a client of its own. How long an answer
	// and the next byte of it may take is bounded for both.
	HTTP *http.Client
	// Rate is how many requests a second are sent on average over five minutes, 4
	// if zero: Cloudflare allows a token 1,200 in five minutes. Of these Burst may
	// be sent at once, 200 if zero; the rest is spread so that no window of
	// five minutes holds more than 300 s × Rate.
	Rate  float64
	Burst int
	// Retry is the policy for what is worth trying again; its Notify is kept.
	Retry fault.Policy
	// Secrets, which the token is added to, are in no error of the client; nil for
	// the token alone.
	Secrets *secret.Set
	// Timing records what is waited for and what is read, nil for not at all.
	Timing *timing.Recorder
}

// The time that a request may take is not bounded, for an answer of many rows
// streams for minutes. What is bounded is silence.
const (
	connectWait = 15 * time.Second // for the connection, and again for TLS
	// answerWait is the longest time to the header of an answer: connecting, 30 s
	// for the statement and as long for the queue before it.
	answerWait = 2*connectWait + 70*time.Second
	idleWait   = 60 * time.Second // for the next byte of an answer
)

// limitWindow is the five minutes of Cloudflare's limit and ten seconds more, as
// requests take different times to get there.
const limitWindow = 310 * time.Second

// deniedTries is how often a request is sent that D1 says is not allowed: D1
// is known to say so in passing.
const deniedTries = 3

// Client speaks for one token and one account. All methods are safe for
// concurrent use.
type Client struct {
	base, account, token string
	secrets              *secret.Set // no error holds any of them
	http                 *http.Client
	limit                *rate.Limiter
	retry                fault.Policy
	rec                  *timing.Recorder

	answerWait, idleWait time.Duration // shorter in tests
}

// New makes a client. It sends nothing. Options that make no sense are a Usage error.
func New(account, token string, o Options) (*Client, error) {
	if o.URL == "" {
		o.URL = DefaultURL
	}
	if o.Rate == 0 {
		o.Rate = 4
	}
	if o.Burst == 0 {
		o.Burst = 200
	}
	var errs []error
	refuse := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	u, err := url.Parse(o.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		refuse("the URL of the API is not one of http or https, or has more than a host and a path") // which may hold a secret
	}
	if account == "" {
		refuse("there is no account id")
	}
	if token == "" {
		refuse("there is no API token")
	} else if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		refuse("the API token has spaces or signs in it that no token has")
	}
	window := limitWindow.Seconds()
	allowed := 300 * o.Rate
	// The negation refuses NaN.
	if !(o.Rate > 0 && o.Rate < 1e6) {
		refuse("the rate of %g requests a second is not above 0", o.Rate)
	} else if o.Burst < 1 || float64(o.Burst) >= allowed {
		refuse("a burst of %d requests is not from 1 to below %g, which %g a second are in five minutes", o.Burst, allowed, o.Rate)
	}
	if len(errs) > 0 {
		return nil, fault.Wrap(fault.Usage, fmt.Errorf("client of Cloudflare's API: %w", errors.Join(errs...)))
	}

	if o.Secrets == nil {
		o.Secrets = secret.New()
	}
	o.Secrets.Add(token)
	hc := http.Client{}
	if o.HTTP != nil {
		hc = *o.HTTP
	}
	if hc.Transport == nil {
		hc.Transport = newTransport()
	}
	// The API redirects nothing, and a token is not for others.
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{
		base: strings.TrimRight(o.URL, "/"), account: account, token: token, secrets: o.Secrets, http: &hc,
		// INVARIANT: no window of five minutes holds more than 300 s × Rate
		// requests. A bucket of Burst that fills with r a second lets at most
		// Burst + r × window through in any window.
		limit: rate.NewLimiter(rate.Limit((allowed-float64(o.Burst))/window), o.Burst),
		retry: o.Retry, rec: o.Timing, answerWait: answerWait, idleWait: idleWait,
	}, nil
}

func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: connectWait, KeepAlive: 15 * time.Second}).DialContext
	t.TLSHandshakeTimeout = connectWait
	t.MaxIdleConnsPerHost = 16
	t.ReadBufferSize = 64 << 10
	// A connection of HTTP/2 that died would be used until answerWait is over.
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second}
	return t
}

// TokenSecret is the secret of R2's S3 interface that belongs to an API token.
// Source: developers.cloudflare.com/r2/api/tokens, "Get S3 API credentials from an API token".
func TokenSecret(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// VerifyToken returns the id of the client's token, which is the access key id
// of R2's S3 interface (its secret is TokenSecret). A token that is not active
// is Unavailable.
func (c *Client) VerifyToken(ctx context.Context) (id string, err error) {
	// A token belongs to an account or to a user; each has an endpoint that
	// refuses the other's.
	for _, path := range []string{c.accountPath("/tokens/verify"), "/user/tokens/verify"} {
		var token struct{ ID, Status string }
		err = c.get(ctx, "verify the API token", path, nil, &token)
		switch {
		case err == nil && token.Status != "active":
			return "", fault.Hint(fault.Errorf(fault.Unavailable, "verify the API token: its status is %q", c.secrets.Clean(printable(token.Status))), tokenHint)
		case err == nil && token.ID == "":
			return "", fault.Errorf(fault.Invalid, "verify the API token: the answer names no id")
		case err == nil:
			return token.ID, nil
		case ctx.Err() != nil, fault.Is(err, fault.Transient):
			return "", err
		}
	}
	return "", fault.Hint(err, "%s", tokenHint)
}

func (c *Client) accountPath(rest string) string {
	return "/accounts/" + url.PathEscape(c.account) + rest
}

// Database is a D1 database by its id.
func (c *Client) Database(id string) *Database { return &Database{c: c, id: id} }

// Database sends statements to one D1 database. All methods are safe for
// concurrent use.
type Database struct {
	c     *Client
	id    string
	usage usage
}

// ID is the id of the database.
func (d *Database) ID() string { return d.id }

// Usage is what was asked of a database, as it is billed.
type Usage struct {
	Requests    int64 // attempts that were sent, repeated ones included
	Retries     int64 // the repeated ones among them
	RowsRead    int64 // rows scanned, as D1 counts them
	RowsWritten int64 // rows and index entries written
}

type usage struct{ requests, retries, rowsRead, rowsWritten atomic.Int64 }

// Usage is what was asked of d so far.
func (d *Database) Usage() Usage {
	return Usage{d.usage.requests.Load(), d.usage.retries.Load(), d.usage.rowsRead.Load(), d.usage.rowsWritten.Load()}
}

// Billed counts what an answer's meta says of one statement; Usage sums it up.
func (d *Database) Billed(rowsRead, rowsWritten int64) {
	d.usage.rowsRead.Add(rowsRead)
	d.usage.rowsWritten.Add(rowsWritten)
}

// Statement is one SQL statement. Params are strings, which D1 binds as TEXT:
// ids, times and limits go into SQL as literals of integers.
type Statement struct {
	SQL    string   `json:"sql"`
	Params []string `json:"params,omitempty"`
}

// Access says whether sending statements twice does harm.
type Access int

const (
	// Read: the statements change nothing.
	Read Access = iota
	// Idempotent: doing them again, even much later, gives the same result.
	Idempotent
	// Once: after an unknown outcome the error is returned as fault.Unknown, for
	// the caller to look before it repeats.
	Once
)

// Raw sends statements, several as one batch, which D1 runs in a transaction,
// and calls read with the body of the answer, which is not held in memory.
// What read returns is classified and retried like any other failure, so read
// is called again from the start for another attempt; a body that ends early
// is a Transient error whatever read makes of it.
//
// Errors that Shrink tells of are repeated like others. Who can ask for less
// uses Page.
func (d *Database) Raw(ctx context.Context, a Access, stmts []Statement, read func(io.Reader) error) error {
	return d.send(ctx, a, func(error) []Statement { return stmts }, read)
}

// Page is Raw where the statements can ask for less: stmts is called before each
// attempt, with nil at first and then with the error of the attempt before. If
// Shrink tells of it, smaller statements are what to return. So shrinking and
// waiting are one: a D1 that is busy for a minute is waited for, and is asked
// for less each time. An error for which nothing smaller can be asked needs no
// special care, attempts are capped.
func (d *Database) Page(ctx context.Context, a Access, stmts func(last error) []Statement, read func(io.Reader) error) error {
	return d.send(ctx, a, stmts, read)
}

func (d *Database) send(ctx context.Context, a Access, stmts func(error) []Statement, read func(io.Reader) error) error {
	return d.c.call(ctx, call{
		what: "D1 database " + d.id, method: http.MethodPost, path: d.path("/raw"), access: a, usage: &d.usage, tries: deniedTries,
		body: func(last error) ([]byte, error) { return encode(stmts(last)) }, read: read,
	})
}

func (d *Database) path(rest string) string {
	return d.c.accountPath("/d1/database/" + url.PathEscape(d.id) + rest)
}

// encode is the body of a request. Go would replace what is not UTF-8.
func encode(stmts []Statement) ([]byte, error) {
	if len(stmts) == 0 {
		return nil, errors.New("no statements")
	}
	for _, s := range stmts {
		for _, text := range append([]string{s.SQL}, s.Params...) {
			if !utf8.ValidString(text) {
				return nil, fault.Errorf(fault.Invalid, "a statement or parameter is not UTF-8: %q", printable(text))
			}
		}
	}
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false) // < is one byte of the 100,000 that a statement may have
	var err error
	if len(stmts) == 1 {
		err = e.Encode(stmts[0])
	} else {
		err = e.Encode(map[string][]Statement{"batch": stmts})
	}
	return body.Bytes(), err
}

// Bookmark is the Time Travel bookmark of this moment.
func (d *Database) Bookmark(ctx context.Context) (string, error) {
	var at struct{ Bookmark string }
	if err := d.c.get(ctx, "Time Travel bookmark", d.path("/time_travel/bookmark"), &d.usage, &at); err != nil {
		return "", err
	}
	if at.Bookmark == "" {
		return "", fault.Errorf(fault.Invalid, "Time Travel bookmark: the answer names none")
	}
	return at.Bookmark, nil
}

// get decodes the result of a small answer into result.
func (c *Client) get(ctx context.Context, what, path string, u *usage, result any) error {
	tries := 1
	if u != nil {
		tries = deniedTries
	}
	return c.call(ctx, call{
		what: what, method: http.MethodGet, path: path, usage: u, tries: tries,
		body: func(error) ([]byte, error) { return nil, nil },
		read: func(r io.Reader) error {
			var answer struct {
				Result  json.RawMessage `json:"result"`
				Errors  []Message       `json:"errors"`
				Success bool            `json:"success"`
			}
			if err := json.NewDecoder(io.LimitReader(r, 1<<20)).Decode(&answer); err != nil {
				return fault.Errorf(fault.Transient, "the answer is not JSON: %w", err)
			}
			if !answer.Success {
				return Classify(http.StatusOK, nil, answer.Errors)
			}
			if err := json.Unmarshal(answer.Result, result); err != nil {
				return fault.Errorf(fault.Invalid, "the answer is not what was asked for: %w", err)
			}
			return nil
		},
	})
}
