package sql

import "strings"

// Statements cuts a script into its statements, in order, without the semicolons
// between them and without the comments in front of each. The body of a CREATE
// TRIGGER is part of its statement. A quote or comment that does not end makes the
// rest one statement, for SQLite to complain about.
//
// It ends a statement where SQLite's own sqlite3_complete does: at a semicolon, in
// a trigger at the one after END after a semicolon, so that the END of a CASE does
// not count (https://www.sqlite.org/c3ref/complete.html).
func Statements(script string) []string {
	var out []string
	start := -1      // of the statement, -1 before its first token
	var words []word // the first words of the statement, which tell a trigger
	var last [2]word // the last two tokens of the statement
	trigger := false // within a CREATE TRIGGER
	for i := 0; i < len(script); {
		n, w := token(script[i:])
		if w == space {
			i += n
			continue
		}
		if w == semicolon && start >= 0 && (!trigger || last == [2]word{semicolon, end}) {
			out = append(out, strings.TrimSpace(script[start:i]))
			start = -1
		} else if w != semicolon || start >= 0 {
			if start < 0 {
				start, words, last, trigger = i, words[:0], [2]word{}, false
			}
			if len(words) < 3 {
				words = append(words, w)
				trigger = trigger || w == trigger_ && words[0] == create && (len(words) == 2 || words[1] == temp)
			}
			last = [2]word{last[1], w}
		}
		i += n
	}
	if start >= 0 {
		out = append(out, strings.TrimSpace(script[start:]))
	}
	return out
}

// word is what a token is, as far as the end of statements depends on it.
type word int

const (
	other word = iota
	space      // white space or a comment
	semicolon
	create
	temp
	trigger_
	end
)

var keywords = map[string]word{"create": create, "temp": temp, "temporary": temp, "trigger": trigger_, "end": end}

// token is the length of the first token of s, which is not empty, and what it is.
func token(s string) (int, word) {
	until := func(close string, from int) int {
		if i := strings.Index(s[from:], close); i >= 0 {
			return from + i + len(close)
		}
		return len(s)
	}
	switch c := s[0]; {
	case c == ';':
		return 1, semicolon
	case strings.IndexByte(" \t\n\f\r", c) >= 0:
		return 1, space
	case strings.HasPrefix(s, "--"):
		return until("\n", 2), space
	case strings.HasPrefix(s, "/*"):
		return until("*/", 2), space
	case c == '\'' || c == '"' || c == '`':
		return until(s[:1], 1), other // a doubled quote makes two tokens, which does no harm
	case c == '[':
		return until("]", 1), other
	case isWord(c):
		n := 1
		for n < len(s) && isWord(s[n]) {
			n++
		}
		return n, keywords[strings.ToLower(s[:n])]
	}
	return 1, other
}

// isWord reports whether c is part of an identifier, a keyword or a number.
func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}
