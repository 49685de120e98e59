package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"etl/internal/fault"
)

// request is what a failed request was.
type request struct {
	ctx    context.Context // it ran under
	parent context.Context // the caller's
	get    bool
	put    bool
	// Of a put: whether all of its bytes were given to the network, and its condition.
	sent, cond, ifMatch bool
}

// lost is the kind of a request whose outcome nobody told: a put that went out
// whole may have been done, anything else may be asked again.
func (r request) lost() fault.Kind {
	if r.put && r.sent {
		return fault.Unknown
	}
	return fault.Transient
}

// classify makes of what the SDK returned an error of the archive: in short
// words, of a kind, and with a hint where a person can mend it.
func (s *Store) classify(err error, r request) error {
	var code, message string
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		code, message = api.ErrorCode(), api.ErrorMessage()
	}
	// Without an answer the SDK makes one up, of status 0, and without a code in
	// an answer a code of the status. That says nothing of who answered.
	if res, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && res.Response != nil && (res.HTTPStatusCode() >= 300 || code != "") {
		if text := http.StatusText(res.HTTPStatusCode()); message == text && code == strings.ReplaceAll(text, " ", "") {
			code, message = "", ""
		}
		// An answer that broke off does not say which of the reasons it was, and
		// the status alone would have a missing object be a wrong endpoint.
		if code == "" && errors.Is(err, io.ErrUnexpectedEOF) && !decisive(res.HTTPStatusCode()) {
			return fault.Errorf(fault.Transient, "the store answers %s, and the answer broke off: %w", answer(res.Response.Response, "", ""), io.ErrUnexpectedEOF)
		}
		return s.answered(res.Response.Response, code, message, r)
	}
	if cause := r.parent.Err(); cause != nil {
		if r.lost() == fault.Unknown {
			return fault.Errorf(fault.Unknown, "%w while it was being written", cause)
		}
		return cause
	}
	if errors.Is(context.Cause(r.ctx), errSlow) {
		return fault.Wrap(r.lost(), errSlow)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	} else if bad, ok := errors.AsType[*smithy.DeserializationError](err); ok {
		return fault.Errorf(r.lost(), "the answer is damaged or cut short: %w", bad.Err)
	} else if res, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && res.Response != nil && res.HTTPStatusCode() >= 200 {
		// It ends before its first element does.
		return fault.Errorf(r.lost(), "the answer is damaged or cut short: %w", res.Err)
	} else if send, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		err = send.Err
	} else if op, ok := errors.AsType[*smithy.OperationError](err); ok {
		// It did not come to a request: a bucket or an endpoint that no URL can be made of.
		return fault.Wrap(fault.Invalid, op.Err)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fault.Hint(fault.Wrap(fault.Unavailable, err),
			"the endpoint's certificate is not trusted: check the endpoint, and give the authority that signed it with --ca-file")
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return fault.Hint(fault.Wrap(fault.Invalid, err), "the endpoint speaks http: write http:// for https://")
	}
	return fault.Unreached(fault.Wrap(r.lost(), err))
}

// decisive reports whether a status says all without a code.
func decisive(status int) bool {
	return status >= 500 || slices.Contains([]int{http.StatusRequestTimeout, http.StatusConflict, http.StatusPreconditionFailed, http.StatusTooManyRequests}, status)
}

// noStore is the error of an answer that no S3 service gives.
func (s *Store) noStore(what string) error {
	return fault.Hint(fault.Errorf(fault.Invalid, "%s", what), "check the endpoint and the bucket: is it an S3 service that answers there, and not a proxy or a login page?")
}

// answered classifies an answer that is no success. Codes are those of
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and
// https://developers.cloudflare.com/r2/api/error-codes/.
func (s *Store) answered(res *http.Response, code, message string, r request) error {
	status := res.StatusCode
	is := func(codes ...string) bool { return slices.Contains(codes, code) }
	of := func(k fault.Kind) error {
		e := fault.Errorf(k, "the store answers %s", answer(res, code, message))
		if k == fault.Transient || k == fault.Unknown {
			if wait, ok := retryAfter(res.Header); ok {
				e = fault.After(e, wait)
			}
		}
		return e
	}
	hint := func(k fault.Kind, format string, a ...any) error { return fault.Hint(of(k), format, a...) }

	switch {
	// The condition did not hold. An absent object under If-Match is 412 (R2) or
	// 404; 409 is a condition that lost against a write at the same moment.
	case status == http.StatusPreconditionFailed, status == http.StatusConflict && r.cond, is("NoSuchKey") && r.ifMatch:
		return of(fault.Conflict)
	case status == http.StatusConflict:
		return of(fault.Transient)
	case is("NoSuchKey") && r.get:
		return of(fault.NotExist)
	case is("NoSuchBucket"):
		if s.r2 {
			return hint(fault.Unavailable, "check the bucket's name, the account and the jurisdiction, or make it: npx wrangler r2 bucket create %s", s.bucket)
		}
		return hint(fault.Unavailable, "check the bucket's name, the endpoint and the region, or make bucket %s", s.bucket)

	// Bytes that were damaged or cut short on their way; nothing was stored.
	case is("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "RequestTimeout"), status == http.StatusRequestTimeout:
		return of(fault.Transient)

	// Room.
	case status == http.StatusInsufficientStorage, is("QuotaExceeded", "XMinioStorageFull"):
		return hint(fault.Unavailable, "the store is full: make room or raise its limit; what was committed stays; then run the command again")

	// Who asks.
	case is("RequestTimeTooSkewed", "RequestExpired"):
		return hint(fault.Unavailable, "%sset this machine's clock (NTP)", skew(res.Header, time.Now()))
	case is("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"):
		return hint(fault.Unavailable, "the session token has expired or is not valid: get new keys and run again")
	case is("InvalidAccessKeyId", "XAdminUserNotFound"), is("InvalidArgument") && strings.Contains(strings.ToLower(message), "credential"):
		return hint(fault.Unavailable, "the service does not know this access key: %s", s.keys())
	case is("SignatureDoesNotMatch"):
		return hint(fault.Unavailable, "the secret does not belong to this access key, or a proxy changed the request: %s", s.keys())
	case is("AuthorizationHeaderMalformed", "InvalidRegionName", "PermanentRedirect", "TemporaryRedirect", "Redirect"), status >= 300 && status < 400:
		if s.r2 {
			return hint(fault.Invalid, `R2 wants the region "auto", and for a bucket of a jurisdiction that one's endpoint`)
		}
		return hint(fault.Invalid, "the bucket is elsewhere: check the region and the endpoint")
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return hint(fault.Unavailable, "the access key may not do this in bucket %s: %s", s.bucket, s.keys())

	case status == http.StatusNotFound:
		return hint(fault.Invalid, "check the endpoint: what answers there knows no buckets")
	case status == http.StatusNotImplemented:
		return hint(fault.Invalid, "the service can not do this; conditional writes (If-Match, If-None-Match) are needed")

	// Too much at once: turned away before it was done.
	case status == http.StatusTooManyRequests, is("SlowDown", "ServiceUnavailable", "TooManyRequests", "Throttling", "ThrottlingException", "RequestLimitExceeded"):
		return of(fault.Transient)
	// Also a 503 without a code: it comes from something between here and the
	// store, which may have passed the request on.
	case status >= 500, status < 300: // a success that is none
		return of(r.lost())
	}
	return of(fault.Invalid)
}

// keys says which keys are needed.
func (s *Store) keys() string {
	if s.r2 {
		return `it must be of an R2 API token of this account with the permission "Object Read & Write" for the bucket`
	}
	return "it must be allowed to get, put and list objects"
}

// answer is an answer in words: "403 AccessDenied: Access Denied (request 42)".
func answer(res *http.Response, code, message string) string {
	text := strconv.Itoa(res.StatusCode)
	if code == "" {
		code = http.StatusText(res.StatusCode)
	}
	for _, more := range []struct{ sep, s string }{{" ", code}, {": ", message}} {
		// It is the service's text: one line of bounded length.
		if s := strings.Join(strings.Fields(more.s), " "); s != "" {
			text += more.sep + fmt.Sprintf("%.300s", s)
		}
	}
	for _, h := range []string{"X-Amz-Request-Id", "Cf-Ray"} {
		if id := res.Header.Get(h); id != "" {
			return text + fmt.Sprintf(" (request %.80s)", id)
		}
	}
	return text
}

// retryAfter is how long an answer asks to wait: seconds, or a time by the
// server's clock (RFC 9110, section 10.2.3).
func retryAfter(h http.Header) (time.Duration, bool) {
	v := h.Get("Retry-After")
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(0, at.Sub(now)), true
}

// skew says how far now is off the server's clock.
func skew(h http.Header, now time.Time) string {
	at, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return ""
	}
	off := now.Sub(at).Round(time.Second)
	if off < 0 {
		return fmt.Sprintf("this machine's clock is %s behind the store's: ", -off)
	}
	return fmt.Sprintf("this machine's clock is %s ahead of the store's: ", off)
}
