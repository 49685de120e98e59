package object_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"etl/internal/fault"
	"etl/internal/object"
)

func TestKeyCheck(t *testing.T) {
	for _, k := range []object.Key{
		"a", "a/b", "timeseries/2024/01/x.parquet", "...", "a b", "é/温度", "a/..b", "-", "~", "tab\t",
		object.Key(strings.Repeat("x", 1024)),
	} {
		if err := k.Check(); err != nil {
			t.Errorf("%q: %v", k, err)
		}
	}
	for _, k := range []object.Key{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "./a", "a/./b", "a\x00", `a\b`, "\xff",
		object.Key(strings.Repeat("x", 1025)),
	} {
		if err := k.Check(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, want an Invalid error", k, err)
		}
	}
}

func FuzzKeyCheck(f *testing.F) {
	for _, s := range []string{"a/b", "a//b", "..", "a/../b", "x\x00", `\`, "é", "\xff", "./"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// The rule again, told differently: nothing that cleaning would change.
		bad := s == "" || len(s) > 1024 || !utf8.ValidString(s) || strings.ContainsRune(s, 0) || strings.Contains(s, `\`)
		padded := "/" + s + "/"
		for _, seg := range []string{"//", "/./", "/../"} {
			bad = bad || strings.Contains(padded, seg)
		}
		if err := object.Key(s).Check(); (err != nil) != bad {
			t.Fatalf("%q: %v, want an error: %v", s, err, bad)
		}
	})
}

func TestPutOptionsCheck(t *testing.T) {
	for _, o := range []object.PutOptions{{}, {IfAbsent: true}, {IfMatch: "x"}} {
		if err := o.Check(); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if err := (object.PutOptions{IfAbsent: true, IfMatch: "x"}).Check(); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}
