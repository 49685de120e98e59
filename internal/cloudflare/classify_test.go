package cloudflare

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"etl/internal/fault"
	"etl/internal/secret"
)

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		status, code int
		message      string
		kind         fault.Kind
		shrink       bool
		untouched    bool
	}{
		{400, 7500, "near \"SELEC\": syntax error at offset 0: SQLITE_ERROR", fault.Invalid, false, true},
		{400, 7500, "UNIQUE constraint failed: t.a: SQLITE_CONSTRAINT", fault.Invalid, false, true},
		{500, 7500, "internal error; reference = e_PVSMDp_4052de82", fault.Transient, false, false},
		{400, 7500, "D1_ERROR: Network connection lost.", fault.Transient, false, false},
		{200, 7500, "D1 DB reset because its code was updated.", fault.Transient, false, false},
		{500, 7500, "D1 DB storage caused object to be reset.", fault.Transient, false, false},
		{500, 7500, "D1 DB storage operation exceeded timeout which caused object to be reset.", fault.Transient, true, false},
		{500, 7500, "D1 DB's isolate exceeded its memory limit and was reset.", fault.Transient, true, false},
		{429, 7429, "D1 DB exceeded its CPU time limit and was reset.", fault.Transient, true, false},
		{429, 7429, "D1 DB is overloaded. Requests queued for too long.", fault.Transient, true, true},
		{429, 7429, "D1 DB is overloaded. Too many requests queued.", fault.Transient, true, true},
		{429, 7429, "busy", fault.Transient, true, false},
		{400, 7500, "Serialized RPC arguments or return values are limited to 32MiB, but the size of this value was: 34196415 bytes.", fault.Transient, true, false},
		{500, 7500, "Cannot resolve D1 DB due to transient issue on remote node.", fault.Transient, false, true},
		{429, 10100, "More than 1200 requests per 300 seconds reached. Please wait and consider throttling your request speed", fault.Transient, false, true},
		{429, 0, "", fault.Transient, false, true},
		{504, 0, "", fault.Transient, true, false},
		{502, 0, "", fault.Transient, false, false},
		{522, 0, "error code: 522", fault.Transient, false, false},
		{400, 7400, "The request is malformed", fault.Invalid, false, true},
		{413, 0, "", fault.Invalid, false, true},
		{404, 7404, "The database could not be found", fault.NotExist, false, true},
		{403, 10000, "Authentication error", fault.Unavailable, false, true},
		{200, 10000, "Authentication error", fault.Unavailable, false, true},
		{401, 1000, "Invalid API Token", fault.Unavailable, false, true},
		{400, 6003, "Invalid request headers", fault.Unavailable, false, true},
		{403, 7403, "The given account is not valid or is not authorized to access this service", fault.Transient, false, true},
		{403, 0, "", fault.Transient, false, true},
		{429, 7500, "D1_ERROR: Your account has exceeded D1's free tier daily row read limit.", fault.Unavailable, false, true},
		{200, 7500, "no such table: x", fault.Invalid, false, true},
		{200, 0, "", fault.Transient, false, false}, // success:false and no reason
		{301, 0, "", fault.Invalid, false, true},
	} {
		var errs []Message
		if tt.message != "" {
			errs = []Message{{tt.code, tt.message}}
		}
		err := Classify(tt.status, nil, errs)
		v, _ := errors.AsType[*verdict](err)
		if fault.KindOf(err) != tt.kind || Shrink(err) != tt.shrink || v.untouched != tt.untouched {
			t.Errorf("%d %d %q: %s, shrink %v, untouched %v; %v", tt.status, tt.code, tt.message, fault.KindOf(err), Shrink(err), v.untouched, err)
		}
		if !strings.Contains(err.Error(), tt.message) {
			t.Errorf("%d %d %q: the text is %q", tt.status, tt.code, tt.message, err)
		}
		if k := fault.KindOf(err); (k == fault.Unavailable || k == fault.NotExist) && fault.HintOf(err) == "" {
			t.Errorf("%d %d %q: no hint", tt.status, tt.code, tt.message)
		}
		if Shrink(fmt.Errorf("read: %w", err)) != tt.shrink || Shrink(nil) || Shrink(errors.New(tt.message)) {
			t.Errorf("%d %d %q: Shrink is lost or invented", tt.status, tt.code, tt.message)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	date := time.Date(2024, 1, 5, 12, 0, 0, 0, time.UTC)
	for ask, want := range map[string]time.Duration{
		"": -1, "soon": -1, "0": 0, "30": 30 * time.Second, "-5": 0, "99999999999999": 1 << 32 * time.Second,
		date.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		date.Add(-time.Hour).Format(http.TimeFormat):       0,
	} {
		h := http.Header{"Date": {date.Format(http.TimeFormat)}}
		if ask != "" {
			h.Set("Retry-After", ask)
		}
		got, ok := fault.AfterOf(Classify(429, h, nil))
		if ok != (want >= 0) || (ok && got != want) {
			t.Errorf("%q: %s, %v", ask, got, ok)
		}
	}
	h := http.Header{"Retry-After": {time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)}}
	if got, ok := fault.AfterOf(Classify(503, h, nil)); !ok || got > time.Minute {
		t.Errorf("without a Date: %s, %v", got, ok)
	}
}

// Whatever a server answers with an error, the text is one short line that
// people can read, without the token.
func FuzzMessages(f *testing.F) {
	for _, s := range []string{
		`{"errors":[{"code":7500,"message":"no such table: x"}],"success":false}`, `{"errors":[]}`, `{"errors":[{"code":"x"}]}`,
		"<html>", "", "null", "\x1b[31mred\x00", strings.Repeat("é", 400), `{"errors":[{"message":"Bearer the-secret-\u0074oken"}]}`, "the-secret-token",
		strings.Repeat("x", 290) + "the-secret-token",
	} {
		f.Add(500, []byte(s))
	}
	c := &Client{token: "the-secret-token", secrets: secret.New("the-secret-token")}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		errs := c.messages(strings.NewReader(string(body)))
		err := Classify(status, nil, errs)
		if err == nil || fault.KindOf(err) == fault.Internal {
			t.Fatalf("%d %q: %v is %s", status, body, err, fault.KindOf(err))
		}
		text := err.Error()
		if len(text) > 5*(maxText+40) || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%d %q: %q", status, body, text)
		}
		if strings.Contains(text, c.token) {
			t.Errorf("%d %q tells the token: %q", status, body, text)
		}
		var envelope struct{ Errors []Message }
		if json.Unmarshal(body, &envelope) == nil && len(envelope.Errors) > 0 && len(errs) != len(envelope.Errors) {
			t.Errorf("%q has %d errors, not %d", body, len(envelope.Errors), len(errs))
		}
	})
}
