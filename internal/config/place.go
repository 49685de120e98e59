package config

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/secret"
)

// Source is where the hot tier is.
type Source struct {
	Kind string // "sqlite" or "d1"
	Path string // of sqlite: the file
	ID   string // of d1: the id of the database, a UUID in lower case
}

// Store is where the cold tier is.
type Store struct {
	Kind   string // "file", "r2" or "s3"
	Path   string // of file: the directory
	Bucket string
	Prefix string // of all keys, without a slash at its end; "" for none
	// Jurisdiction of an r2 bucket: "", "eu", "fedramp" or "us".
	Jurisdiction string
	// Endpoint is a base URL, "" for that of r2's account, or for AWS's of the Region.
	Endpoint string
	Region   string // of s3, "" if it is not said
	// PathStyle puts the bucket into the path instead of the host name. An s3
	// endpoint that is given means it unless path-style=false is said.
	PathStyle bool
}

// maxPrefix leaves room for the archive's own keys, which are at most 256
// bytes long, within the 1,024 bytes of a key.
const maxPrefix = 1024 - 256 - len("/")

var (
	// https://developers.cloudflare.com/r2/buckets/create-buckets/
	r2BucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`)
	// https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
	s3BucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	regionName   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
)

// ParseSource parses sqlite:PATH or d1://DATABASE_ID. Errors are of kind Usage.
func ParseSource(text string) (Source, error) {
	bad := func(format string, a ...any) error {
		return fault.Errorf(fault.Usage, "--source %s: %w", shown(text), fmt.Errorf(format, a...))
	}
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok || rest == "" {
		return Source{}, fault.Errorf(fault.Usage, "--source %s: want a scheme and a place, like sqlite:d1.sqlite or d1://DATABASE_ID", shown(text))
	}
	switch scheme {
	case "sqlite":
		return Source{Kind: scheme, Path: rest}, nil
	case "d1":
		id, ok := strings.CutPrefix(rest, "//")
		id = strings.TrimSuffix(id, "/")
		switch {
		case !ok || id == "":
			return Source{}, bad("want d1://DATABASE_ID")
		case !uuid.MatchString(id):
			return Source{}, fault.Hint(bad("%s is no id of a database", shown(id)), "%s", idHint(id))
		}
		return Source{Kind: scheme, ID: strings.ToLower(id)}, nil
	}
	return Source{}, fault.Hint(bad("unknown kind %q", scheme), "want sqlite:PATH or d1://DATABASE_ID")
}

// ParseStore parses file:DIR, r2://BUCKET[/PREFIX][?jurisdiction=…&endpoint=…] or
// s3://BUCKET[/PREFIX]?endpoint=…&region=…[&path-style=…]. A prefix is taken as it
// is written, without any decoding. Errors are of kind Usage.
func ParseStore(text string) (Store, error) { return ParseStoreOf("store", text) }

// ParseStoreOf is ParseStore of what another flag names.
func ParseStoreOf(flag, text string) (Store, error) {
	bad := func(format string, a ...any) (Store, error) {
		return Store{}, fault.Errorf(fault.Usage, "--%s %s: %w", flag, shown(text), fmt.Errorf(format, a...))
	}
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok || rest == "" {
		return Store{}, fault.Errorf(fault.Usage, "--%s %s: want a scheme and a place, like file:archive or r2://BUCKET", flag, shown(text))
	}
	s := Store{Kind: scheme}
	var known []string
	bucket := s3BucketName
	switch scheme {
	case "file":
		s.Path = rest
		return s, nil
	case "r2":
		known, bucket = []string{"jurisdiction", "endpoint"}, r2BucketName
	case "s3":
		known = []string{"endpoint", "region", "path-style"}
	default:
		_, err := bad("unknown kind %q", scheme)
		return Store{}, fault.Hint(err, "want file:DIR, r2://BUCKET[/PREFIX] or s3://BUCKET[/PREFIX]?endpoint=URL&region=NAME")
	}
	rest, ok = strings.CutPrefix(rest, "//")
	if !ok {
		return bad("want %s://BUCKET", scheme)
	}
	rest, query, _ := strings.Cut(rest, "?")
	s.Bucket, s.Prefix, _ = strings.Cut(rest, "/")
	s.Prefix = strings.TrimSuffix(s.Prefix, "/")
	if !bucket.MatchString(s.Bucket) || strings.Contains(s.Bucket, "..") {
		return bad("%s is no name of a bucket: want 3 to 63 lower-case letters, digits and hyphens", shown(s.Bucket))
	}
	if s.Prefix != "" {
		if err := object.Key(s.Prefix).Check(); err != nil {
			return bad("prefix: %w", err)
		}
		if len(s.Prefix) > maxPrefix {
			return bad("the prefix has %d bytes, want at most %d", len(s.Prefix), maxPrefix)
		}
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return bad("%w", err)
	}
	for name, values := range params {
		switch {
		case !slices.Contains(known, name):
			return bad("unknown parameter %q, want %s", name, strings.Join(known, ", "))
		case len(values) > 1:
			return bad("%s is given twice", name)
		case values[0] == "":
			return bad("%s has no value", name)
		}
	}
	s.Jurisdiction, s.Endpoint, s.Region = params.Get("jurisdiction"), params.Get("endpoint"), params.Get("region")
	s.PathStyle = scheme == "r2" || s.Endpoint != ""
	if v := params.Get("path-style"); v != "" {
		if s.PathStyle, err = strconv.ParseBool(v); err != nil {
			return bad("path-style=%s: want true or false", v)
		}
	}
	if j := s.Jurisdiction; j != "" && j != "eu" && j != "fedramp" && j != "us" {
		return bad("jurisdiction %q: want eu, fedramp or us", j)
	}
	if s.Jurisdiction != "" && s.Endpoint != "" {
		return bad("jurisdiction and endpoint exclude each other")
	}
	if s.Region != "" && !regionName.MatchString(s.Region) {
		return bad("region %q: want a name like eu-central-1", s.Region)
	}
	if s.Endpoint != "" {
		if err := CheckURL(s.Endpoint); err != nil {
			return bad("endpoint: %w", err)
		}
	}
	return s, nil
}

// CheckURL refuses what is no base URL of a service: http or https, a host, no
// query, and no user or password.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("%q is no URL", secret.Scrub(text)) // err repeats the text, not always quoted
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("%q: want http:// or https:// and a host", secret.Scrub(text))
	case u.User != nil:
		return fmt.Errorf("the URL of %s holds a user or password, which belong elsewhere", u.Host)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return fmt.Errorf("%q: want no query and no fragment", secret.Scrub(text))
	}
	return nil
}

// shown is text for an error: as it is if it is plain and short, else quoted and
// cut; without the secrets that somebody may have written into a URL.
func shown(text string) string {
	text = secret.Scrub(text)
	if len(text) > 0 && len(text) <= 200 && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' }) {
		return text
	}
	return fmt.Sprintf("%.200q", text)
}
