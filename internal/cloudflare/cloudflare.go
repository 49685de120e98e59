// Package cloudflare owns the conversation with Cloudflare's REST API: one
// client per token, which all workers share, with its rate limit, its retries and
// the classification of its errors (package fault). It knows statements, answers
// and envelopes; what the rows mean is for package source/d1.
//
// There is no other layer that retries or waits.
package cloudflare

import (
	"context"
	"io"
	"net/http"

	"etl/internal/fault"
)

// DefaultURL is the base of Cloudflare's API.
const DefaultURL = "https://api.cloudflare.com/client/v4"

// Options of a client. The zero value is usable.
type Options struct {
	URL string // DefaultURL if ""
	// HTTP sends the requests; nil for a client of its own with sensible time limits.
	HTTP *http.Client
	// Rate is how many requests a second are sent on average over five minutes, 4
	// if zero: Cloudflare allows a token 1,200 in five minutes. Of these Burst may
	// be sent at once, 200 if zero; the rest is spread so that no window of
	// five minutes holds more than 300 s × Rate.
	Rate  float64
	Burst int
	// Retry is the policy for what is worth trying again; its Notify is kept.
	Retry fault.Policy
}

// Client speaks for one token and one account.
type Client struct {
}

// New makes a client. It sends nothing.
func New(account, token string, o Options) (*Client, error) { panic("todo") }

// VerifyToken returns the id of the client's token, which is the access key id
// of R2's S3 interface (its secret is the SHA-256 of the token, in hex).
func (c *Client) VerifyToken(ctx context.Context) (id string, err error) { panic("todo") }

// Database is a D1 database by its id.
func (c *Client) Database(id string) *Database { panic("todo") }

// Database sends statements to one D1 database.
type Database struct {
}

// Statement is one SQL statement. Params are strings, which D1 binds as TEXT:
// ids, times and limits go into SQL as literals of integers.
type Statement struct {
	SQL    string
	Params []string
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
func (d *Database) Raw(ctx context.Context, a Access, stmts []Statement, read func(io.Reader) error) error {
	panic("todo")
}

// Bookmark is the Time Travel bookmark of this moment.
func (d *Database) Bookmark(ctx context.Context) (string, error) { panic("todo") }

// Message is one entry of the errors of an answer.
type Message struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Classify makes the error of an answer with this HTTP status and these errors;
// an answer may say success:false with the status 200. Shrink tells of an error
// whether smaller pages may help.
func Classify(status int, header http.Header, errs []Message) error { panic("todo") }

// Shrink reports whether err says that the statement was too much for D1 (memory,
// CPU, time, size of the answer): asking for less may succeed.
func Shrink(err error) bool { panic("todo") }

// Billed counts what an answer's meta says of one statement; Usage sums it up.
func (d *Database) Billed(rowsRead, rowsWritten int64) {}
