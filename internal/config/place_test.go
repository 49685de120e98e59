package config

import (
	"strings"
	"testing"

	"etl/internal/fault"
	"etl/internal/object"
)

func TestParseSource(t *testing.T) {
	for text, want := range map[string]Source{
		"sqlite:d1.sqlite":          {Kind: "sqlite", Path: "d1.sqlite"},
		"sqlite:/a b/c?d:e":         {Kind: "sqlite", Path: "/a b/c?d:e"},
		"d1://" + idA:               {Kind: "d1", ID: idA},
		"d1://" + idA + "/":         {Kind: "d1", ID: idA},
		"d1://ABCDEF01" + idA[8:]:   {Kind: "d1", ID: "abcdef01" + idA[8:]},
		"sqlite:file:x.sqlite?a=b":  {Kind: "sqlite", Path: "file:x.sqlite?a=b"},
		"sqlite://not/a/url.sqlite": {Kind: "sqlite", Path: "//not/a/url.sqlite"},
	} {
		if got, err := ParseSource(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                        "want a scheme and a place",
		"d1.sqlite":               "--source d1.sqlite: want a scheme and a place",
		"sqlite:":                 "want a scheme and a place",
		"mysql:x":                 `unknown kind "mysql"`,
		"D1://" + idA:             `unknown kind "D1"`,
		"d1:" + idA:               "want d1://DATABASE_ID",
		"d1://":                   "want d1://DATABASE_ID",
		"d1://history":            "history is no id of a database",
		"d1://" + idA + "?x=y":    "is no id of a database",
		"d1://" + idA + "/tables": "is no id of a database",
		"d1://" + idA + "\n":      "is no id of a database",
	} {
		if _, err := ParseSource(text); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := ParseSource("d1://history"); !strings.Contains(fault.HintOf(err), "`wrangler d1 info history`") {
		t.Errorf("hint %q", fault.HintOf(err))
	}
}

func TestParseStore(t *testing.T) {
	for text, want := range map[string]Store{
		"file:archive":                  {Kind: "file", Path: "archive"},
		"file:/a?b":                     {Kind: "file", Path: "/a?b"},
		"r2://bucket":                   {Kind: "r2", Bucket: "bucket", PathStyle: true},
		"r2://bucket/":                  {Kind: "r2", Bucket: "bucket", PathStyle: true},
		"r2://bucket/a/b%20c/":          {Kind: "r2", Bucket: "bucket", Prefix: "a/b%20c", PathStyle: true},
		"r2://b-1/p?jurisdiction=eu":    {Kind: "r2", Bucket: "b-1", Prefix: "p", Jurisdiction: "eu", PathStyle: true},
		"r2://bucket?jurisdiction=us":   {Kind: "r2", Bucket: "bucket", Jurisdiction: "us", PathStyle: true},
		"r2://b00?endpoint=http://h/p":  {Kind: "r2", Bucket: "b00", Endpoint: "http://h/p", PathStyle: true},
		"s3://bucket":                   {Kind: "s3", Bucket: "bucket"},
		"s3://a.b?region=eu-central-1":  {Kind: "s3", Bucket: "a.b", Region: "eu-central-1"},
		"s3://b00?endpoint=https://h:1": {Kind: "s3", Bucket: "b00", Endpoint: "https://h:1", PathStyle: true},
		"s3://b00/x?endpoint=https%3A%2F%2F[::1]:9&path-style=false&region=us": {Kind: "s3", Bucket: "b00", Prefix: "x", Endpoint: "https://[::1]:9", Region: "us"},
	} {
		if got, err := ParseStore(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                                "want a scheme and a place",
		"archive":                         "--store archive: want a scheme and a place",
		"gs://x":                          `unknown kind "gs"`,
		"r2:bucket":                       "want r2://BUCKET",
		"r2://":                           "is no name of a bucket",
		"r2://ab":                         "ab is no name of a bucket",
		"r2://Bucket":                     "Bucket is no name of a bucket",
		"r2://a.b":                        "is no name of a bucket",
		"r2://-ab":                        "is no name of a bucket",
		"r2://abc-":                       "is no name of a bucket",
		"s3://a..b":                       "is no name of a bucket",
		"r2://" + strings.Repeat("a", 64): "is no name of a bucket",
		"r2://bucket//p":                  "a segment is empty",
		"r2://bucket/a/../b":              "a segment is empty",
		"r2://bucket/p//":                 "a segment is empty",
		"r2://bucket/a\\b":                "backslash",
		"r2://bucket/\xff":                "UTF-8",
		"r2://bucket/" + strings.Repeat("a", 768):  "the prefix has 768 bytes, want at most 767",
		"r2://bucket?region=auto":                  `unknown parameter "region", want jurisdiction, endpoint`,
		"r2://bucket?jurisdiction=de":              `jurisdiction "de": want eu, fedramp or us`,
		"r2://bucket?jurisdiction=":                "jurisdiction has no value",
		"r2://bucket?jurisdiction=eu&endpoint=h":   "exclude each other",
		"r2://bucket?jurisdiction=eu;x":            "semicolon",
		"s3://bucket?jurisdiction=eu":              `unknown parameter "jurisdiction"`,
		"s3://bucket?endpoint=h":                   "want http:// or https://",
		"s3://bucket?endpoint=ftp://h":             "want http:// or https://",
		"s3://bucket?endpoint=http://":             "want http:// or https://",
		"s3://bucket?endpoint=http://u:p@h":        "holds a user or password",
		"s3://bucket?endpoint=http://h%3Fx=y":      "want no query",
		"s3://bucket?endpoint=http://h%23x":        "no fragment",
		"s3://bucket?endpoint=http://%ZZ":          "invalid URL escape",
		"s3://bucket?endpoint=http://h:x":          "is no URL",
		"s3://bucket?region=eu&region=us":          "region is given twice",
		"s3://bucket?region=EU":                    `region "EU"`,
		"s3://bucket?endpoint=http://h&path-style": "path-style has no value",
		"s3://bucket?path-style=maybe":             "path-style=maybe: want true or false",
	} {
		if got, err := ParseStore(text); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %q", text, got, err, want)
		}
	}
}

func FuzzPlace(f *testing.F) {
	for _, s := range []string{"sqlite:x", "d1://" + idA, "file:x", "r2://bucket/p?jurisdiction=eu", "s3://a.b/p/q?endpoint=http://h:1&region=x&path-style=true", "r2://bucket?a;b", "s3://%/%?%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseSource(text); err == nil {
			if (s.Kind == "sqlite") != (s.Path != "") || (s.Kind == "d1") != uuid.MatchString(s.ID) {
				t.Fatalf("%q is %+v", text, s)
			}
		} else if !fault.Is(err, fault.Usage) {
			t.Fatal(err)
		}
		s, err := ParseStore(text)
		if err != nil {
			if !fault.Is(err, fault.Usage) {
				t.Fatal(err)
			}
			return
		}
		switch {
		case s.Kind == "file":
			if s != (Store{Kind: "file", Path: s.Path}) || s.Path == "" {
				t.Fatalf("%q is %+v", text, s)
			}
		case s.Kind != "r2" && s.Kind != "s3" || len(s.Bucket) < 3 || strings.ContainsAny(s.Bucket, "/?# \x00"):
			t.Fatalf("%q is %+v", text, s)
		case s.Prefix != "" && object.Key(s.Prefix+"/"+strings.Repeat("k", 256)).Check() != nil:
			t.Fatalf("the prefix of %q leaves no room: %q", text, s.Prefix)
		case s.Endpoint != "" && CheckURL(s.Endpoint) != nil:
			t.Fatalf("%q has the endpoint %q", text, s.Endpoint)
		}
	})
}
