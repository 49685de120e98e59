package cloudflare

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"etl/internal/fault"
)

// Message is one entry of the errors of an answer.
type Message struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// verdict is what an error says beside its kind.
type verdict struct {
	error
	shrink    bool // asking for less may succeed
	denied    bool // said to be not allowed
	token     bool // about the token or what it may do
	untouched bool // no statement was run
}

func (v *verdict) Unwrap() error { return v.error }

func failed(k fault.Kind, v *verdict, err error) error {
	v.error = err
	return fault.Wrap(k, v)
}

// Shrink reports whether err says that the statement was too much for D1 (memory,
// CPU, time, size of the answer): asking for less may succeed.
func Shrink(err error) bool {
	v, ok := errors.AsType[*verdict](err)
	return ok && v.shrink
}

// Denied reports whether err says that the token is not good for what was asked:
// unknown, expired, or without the permission. The API says the same of a token
// that may only read as of one that it does not know.
func Denied(err error) bool {
	v, ok := errors.AsType[*verdict](err)
	return ok && (v.denied || v.token)
}

const tokenHint = "the API token is unknown, disabled or has expired: is CLOUDFLARE_API_TOKEN whole, and of this account? Make a new one in Cloudflare's dashboard, with the permissions D1 Edit (or Read) and Workers R2 Storage Edit, and run again"

// D1's messages that pass by themselves, in lower case. Sources: "Debug D1" in
// Cloudflare's documentation, and reports of workers-sdk.
var (
	// tooMuch are about the work that a statement makes: less of it may get through.
	// An overloaded database is among them, for it runs one statement at a time:
	// shorter ones let the others of its queue through.
	tooMuch = []string{
		"memory limit", "out of memory", "cpu time limit", "cpu limit", "overloaded", "exceeded timeout", "timed out", "limited to 32mib",
	}
	// notRun came before any statement did.
	notRun  = []string{"queued for too long", "too many requests queued", "cannot resolve d1 db", "database is locked"}
	passing = []string{
		"network connection lost", "storage caused object to be reset", "code was updated", "transient issue on remote node",
		"caused object to be reset", "database is locked", "internal error",
	}
	full = []string{"exceeded maximum db size", "maximum account storage", "database or disk is full"}
)

// Classify makes the error of an answer with this HTTP status and these errors;
// an answer may say success:false with the status 200. Shrink tells of an error
// whether smaller pages may help. header may be nil; its Retry-After is for
// fault.AfterOf.
//
// It follows the table of D1's errors: 7500 is an error of SQL with 400, and one
// of D1 with 500 or with a message that passes.
func Classify(status int, header http.Header, errs []Message) error {
	text := describe(status, errs)
	var all strings.Builder
	for _, e := range errs {
		all.WriteString(strings.ToLower(e.Message) + "\n")
	}
	low := all.String()
	says := func(parts []string) bool {
		for _, p := range parts {
			if strings.Contains(low, p) {
				return true
			}
		}
		return false
	}
	code := func(codes ...int) bool {
		for _, e := range errs {
			for _, c := range codes {
				if e.Code == c {
					return true
				}
			}
		}
		return false
	}
	v := &verdict{}
	fail := func(k fault.Kind) error { return after(failed(k, v, errors.New(text)), header) }
	// never is what can not succeed until a person acts; nothing was run.
	never := func(k fault.Kind, hint string) error {
		v.untouched = true
		return fault.Hint(fail(k), "%s", hint)
	}

	switch {
	case strings.Contains(low, "exceeded") && strings.Contains(low, "daily") && strings.Contains(low, "limit"):
		return never(fault.Unavailable, "the rows of the free plan are used up until 00:00 UTC: run again after it, or change to the paid plan")
	case says(full):
		return never(fault.Unavailable, "the database or the account is full: free space (`etl prune`) or raise the limit")
	// 10000 authentication, 1000 and 9109 unknown token, 6003 malformed one.
	case code(10000, 1000, 9109, 6003) || status == http.StatusUnauthorized:
		v.token = true
		return never(fault.Unavailable, tokenHint)
	case code(7403) || status == http.StatusForbidden:
		v.denied = true
		return never(fault.Transient, "the API token needs the permission D1 Read, and D1 Edit to write, in the account of CLOUDFLARE_ACCOUNT_ID, which must be the one that has the database")
	case code(7404):
		return never(fault.NotExist, "there is no such D1 database in this account: are the id of the database and CLOUDFLARE_ACCOUNT_ID right? `wrangler d1 list` shows them")
	case status == http.StatusNotFound:
		return never(fault.NotExist, "are CLOUDFLARE_ACCOUNT_ID, the id of the database and the URL of the API right?")
	}

	v.untouched = says(notRun)
	// A 429 is D1's if it says so, else that of the API, which refuses all
	// requests of the token alike, whatever they ask for.
	v.shrink = says(tooMuch) || code(7429) || status == http.StatusGatewayTimeout
	switch {
	case status == http.StatusTooManyRequests && !v.shrink:
		v.untouched = true
		return fail(fault.Transient)
	case v.shrink, says(passing), status >= 500, status == http.StatusRequestTimeout, status == http.StatusTooEarly,
		status < 300 && len(errs) == 0: // a failure without a reason
		return fail(fault.Transient)
	case status >= 300 && status < 400:
		return never(fault.Invalid, "is the URL of the API right? It answers that it has moved")
	}
	v.untouched = true
	return fail(fault.Invalid)
}

// after adds how long the server asks to wait.
func after(err error, h http.Header) error {
	ask := h.Get("Retry-After")
	if ask == "" {
		return err
	}
	if s, e := strconv.ParseInt(ask, 10, 64); e == nil {
		return fault.After(err, time.Duration(min(max(s, 0), 1<<32))*time.Second) // 136 years
	}
	at, e := http.ParseTime(ask)
	if e != nil {
		return err
	}
	now, e := http.ParseTime(h.Get("Date")) // the same clock
	if e != nil {
		now = time.Now()
	}
	return fault.After(err, max(at.Sub(now), 0))
}

// describe is what an answer says, for people: "HTTP 400: no such table: x (7500)".
func describe(status int, errs []Message) string {
	text := fmt.Sprintf("HTTP %d", status)
	if status < 300 {
		text = "the answer says that it failed"
	} else if name := http.StatusText(status); len(errs) == 0 && name != "" {
		text += " " + name
	}
	sep := ": "
	for i, e := range errs {
		if i == 4 {
			text += "; …"
			break
		}
		text += sep + printable(e.Message)
		if e.Code != 0 {
			text += fmt.Sprintf(" (%d)", e.Code)
		}
		sep = "; "
	}
	return text
}

// maxText bounds what of a server's text is repeated, in bytes.
const maxText = 300

// printable is text in one line of about maxText bytes, for people.
func printable(text string) string {
	text = strings.ToValidUTF8(text, "\ufffd")
	cut := len(text) > maxText
	if cut {
		n := maxText
		for !utf8.RuneStart(text[n]) {
			n--
		}
		text = text[:n]
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if cut {
		text += "…"
	}
	return text
}
