package main

import (
	"slices"
	"strings"
	"testing"
)

func TestCutStatement(t *testing.T) {
	for _, test := range []struct{ text, statement, rest string }{
		{"SELECT 1;", "SELECT 1", ""},
		{"SELECT ';'; x", "SELECT ';'", " x"},
		{"SELECT 'it''s;';", "SELECT 'it''s;'", ""},
		{`SELECT ";";`, `SELECT ";"`, ""},
		{"SELECT 1 -- ;\n;", "SELECT 1 -- ;\n", ""},
		{"SELECT /* ; */ 1;", "SELECT /* ; */ 1", ""},
		{"SELECT $$;$$;", "SELECT $$;$$", ""},
		{"SELECT $a$;$$;$a$;", "SELECT $a$;$$;$a$", ""},
		{`SELECT E'\';';`, `SELECT E'\';'`, ""},
		{`SELECT name'\';`, `SELECT name'\'`, ""}, // no E: the backslash is one
		{"SELECT $from, $to;", "SELECT $from, $to", ""},
		{"SELECT $1;$2;", "SELECT $1", "$2;"},
		{"SELECT [1, 2][1];", "SELECT [1, 2][1]", ""},
		{";;", "", ";"},
	} {
		statement, rest, ok := cutStatement(test.text)
		if !ok || statement != test.statement || rest != test.rest {
			t.Errorf("%q: %q, %q, %v", test.text, statement, rest, ok)
		}
	}
	for _, text := range []string{"", "SELECT 1", "SELECT ';", `SELECT ";`, "SELECT /* ;", "SELECT $$;", "SELECT $a$;$$;", `SELECT E'\';`, "SELECT 1 -- ;"} {
		if statement, _, ok := cutStatement(text); ok {
			t.Errorf("%q is complete: %q", text, statement)
		}
	}
}

// FuzzCutStatement: nothing is lost or made up, lines may come in any pieces, and
// what is left over ends where a semicolon does not.
func FuzzCutStatement(f *testing.F) {
	for _, s := range []string{"SELECT 1; SELECT ';';", "a -- ;\n;b", "$$;$$;", "/* */;", "E'\\';", "'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var parts []string
		rest := text
		for {
			statement, next, ok := cutStatement(rest)
			if !ok {
				if next != rest {
					t.Fatalf("%q became %q", rest, next)
				}
				break
			}
			if len(next) >= len(rest) {
				t.Fatalf("no progress on %q", rest)
			}
			parts = append(parts, statement)
			rest = next
		}
		if got := strings.Join(append(parts, rest), ";"); got != text {
			t.Fatalf("%q became %q", text, got)
		}
		_ = blank(text)
		if words, err := splitWords(text); err == nil && len(words) == 0 && strings.Trim(text, " \t") != "" {
			t.Fatalf("no words in %q", text)
		}
	})
}

func TestBlank(t *testing.T) {
	for text, want := range map[string]bool{"": true, " \n;": true, "-- x": true, "-- x\n": true, "/* x */ ;": true, "/* x": false, "-- x\ny": false, "1": false} {
		if blank(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

func TestSplitWords(t *testing.T) {
	for text, want := range map[string][]string{
		"":                              nil,
		"  a  b ":                       {"a", "b"},
		`trend point='Zone 1' b="it's"`: {"trend", "point=Zone 1", "b=it's"},
		"''":                            {""},
	} {
		if got, err := splitWords(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if _, err := splitWords("a 'b"); err == nil {
		t.Error("an open quote passes")
	}
}

func TestComplete(t *testing.T) {
	sh := &shell{words: []string{"samples", "points", "point_name", "site", "ts"}}
	for _, test := range []struct {
		line string
		head string
		want []string
	}{
		{"SELECT poi", "SELECT ", []string{"points", "point_name"}},
		{"select s.poi", "select s.", []string{"points", "point_name"}},
		{"sel", "", []string{"select"}},
		{"SEL", "", []string{"SELECT"}},
		{"SELECT avg(val", "SELECT avg(", []string{"values"}},
		{".ta", "", []string{".tables"}},
		{".tier h", ".tier ", []string{"hot"}},
		{".mode p", ".mode ", []string{"parquet"}},
		{".schema sa", ".schema ", []string{"samples"}},
		{"@trend", "", []string{"@trend", "@trend-downsampled"}},
		{"@trend-", "", []string{"@trend-downsampled"}},
		{"@trend f", "@trend ", []string{"from="}},
		{"@nothing x", "@nothing ", nil},
		{"温度 sam", "温度 ", []string{"samples"}},
	} {
		head, got, tail := sh.complete(test.line+" tail", len([]rune(test.line)))
		if head != test.head || !slices.Equal(got, test.want) || tail != " tail" {
			t.Errorf("%q: %q %q %q, want %q %q", test.line, head, got, tail, test.head, test.want)
		}
	}
}
