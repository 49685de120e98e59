package sample

import (
	"fmt"
	"unicode/utf8"
)

// IsSHA256 reports whether s is a SHA-256 as the formats write it: 64 lower-case hex digits.
func IsSHA256(s string) bool {
	if len(s) != 64 {
		return false
	}
	odd := false
	for i := range len(s) {
		odd = odd || notHex[s[i]]
	}
	return !odd
}

// notHex is a table, because which of two branches a hex digit takes can not be
// foretold: a query over an empty cache checks 100,000 sums.
var notHex = func() (t [256]bool) {
	for c := range t {
		t[c] = (c < '0' || c > '9') && (c < 'a' || c > 'f')
	}
	return t
}()

// AppendJSONString appends s as a JSON string, escaping only what JSON must
// have escaped; each byte that is not UTF-8 becomes U+FFFD.
func AppendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s { // each byte that is not UTF-8 comes as U+FFFD
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
