package s3

import (
	"encoding/base64"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"etl/internal/fault"
)

// maxMeta bounds the metadata of an object, names and values as they travel, in
// bytes: Amazon's limit, and that of R2's local runtime. R2 itself has 8,192.
const maxMeta = 2048

// encodeMeta makes metadata fit for HTTP headers, which hold ASCII. A value
// that is more than plain ASCII becomes encoded words of RFC 2047: R2 decodes
// those, so that a Worker sees the text itself; other services keep and show
// them as they are.
//
// Left out is a value that would not come back as it was: one that is not UTF-8,
// has control characters (R2 would put them into a header when it is read), or
// has "=?" in it. If the rest is more than maxMeta, the longest values are left
// out, until it fits. Nothing is lost by that: a month file's footer has the
// same facts, and the archive never decides by metadata.
//
// A name that is no word of ASCII letters, digits, "-" and "_" is an Invalid error.
func encodeMeta(meta map[string]string) (map[string]string, error) {
	if len(meta) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(meta))
	names := make([]string, 0, len(meta))
	total := 0
	for name, value := range meta {
		if !isWord(name) {
			return nil, fault.Errorf(fault.Invalid, "metadata %.80q: want a name of letters, digits, %q and %q", name, "-", "_")
		}
		if v, ok := encodeValue(value); ok {
			out[name] = v
			names = append(names, name)
			total += len(name) + len(v)
		}
	}
	// Longest value first; by name where they are equally long, so that the
	// same metadata always travels alike.
	slices.SortFunc(names, func(a, b string) int {
		if d := len(out[b]) - len(out[a]); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		if total <= maxMeta {
			break
		}
		total -= len(name) + len(out[name])
		delete(out, name)
	}
	return out, nil
}

func isWord(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// encodeValue is a value as it travels; ok is false if it can not.
func encodeValue(s string) (v string, ok bool) {
	ascii := true
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return "", false
		}
		ascii = ascii && r < utf8.RuneSelf
	}
	if !utf8.ValidString(s) || strings.Contains(s, "=?") {
		return "", false
	}
	// HTTP trims a header, and the signature folds spaces.
	if ascii && s == strings.TrimSpace(s) && !strings.Contains(s, "  ") {
		return s, true
	}
	// An encoded word has at most 75 characters (RFC 2047, section 2), of whole
	// letters: 75 - len("=?utf-8?b?") - len("?=") = 63, of which base64 uses 60
	// for 45 bytes. The space between two words is no part of the text.
	var b strings.Builder
	for s != "" {
		n := min(len(s), 45)
		for n < len(s) && !utf8.RuneStart(s[n]) {
			n--
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString("=?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte(s[:n])) + "?=")
		s = s[n:]
	}
	return b.String(), true
}

// decodeMeta undoes encodeMeta. A value of another writer that does not decode
// stays as it is. Names come back in lower case.
func decodeMeta(meta map[string]string) map[string]string {
	for name, value := range meta {
		if strings.Contains(value, "=?") {
			if v, err := new(mime.WordDecoder).DecodeHeader(value); err == nil {
				meta[name] = v
			}
		}
	}
	return meta
}
