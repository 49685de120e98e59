package main

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"etl/internal/config"
	"etl/internal/fault"
	"etl/internal/object"
)

// second is a second store, beside the one that a command works on: the copy
// that `replicate` writes and `repair` reads. One group of settings serves both.
type second struct {
	url                  string
	key, secret, session string
	region               string
}

// add adds the flags; the store itself is called name on the command line, and
// replica in the environment and the settings file.
func (s *second) add(cmd *cobra.Command, p *places, name, usage string) {
	f := cmd.Flags()
	f.StringVar(&s.url, name, "", usage)
	if name != "replica" { // settings go by one name
		p.secrets.StringVar(&s.url, "replica", "", "")
	}
	f.StringVar(&s.key, "replica-access-key-id", "", "S3 `KEY` of the copy, if it is not that of the store (ETL_REPLICA_ACCESS_KEY_ID, its secret in ETL_REPLICA_SECRET_ACCESS_KEY)")
	f.StringVar(&s.region, "replica-region", "", "`REGION` of the copy, if it is an s3: store of another region")
	p.secrets.StringVar(&s.secret, "replica-secret-access-key", "", "")
	p.secrets.StringVar(&s.session, "replica-session-token", "", "")
}

// open opens the second store, as the first one is opened, with its own keys if
// it has any, else with those of the store.
func (s *second) open(ctx context.Context, p *places, flag string, want presence) (object.Store, error) {
	if (s.key == "") != (s.secret == "") {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "--%s %s: of replica-access-key-id and replica-secret-access-key one is set, and one is not", flag, s.url),
			"set both (ETL_REPLICA_ACCESS_KEY_ID and ETL_REPLICA_SECRET_ACCESS_KEY), or neither: then the store's own keys are used")
	}
	how, err := s.overlaps(flag, p.store)
	switch {
	case err != nil:
		return nil, err
	case how == theStore || how != "" && flag == "to": // what is there already may mend
		return nil, fault.Hint(fault.Errorf(fault.Usage, "--%s %s: that is %s", flag, s.url, how), "name a place beside %s", p.store)
	}
	store, was, bucket, keys := p.store, p.storeFlag, p.bucket, p.remote
	defer func() { p.store, p.storeFlag, p.bucket, p.remote = store, was, bucket, keys }()
	p.store, p.storeFlag, p.bucket, p.region = s.url, flag, nil, cmp.Or(s.region, p.region)
	if s.key != "" {
		p.key, p.secret, p.session = s.key, s.secret, s.session
	}
	return p.openStore(ctx, want) // each error names the URL
}

// How a second store and the store overlap.
const (
	theStore    = "the store itself"
	insideStore = "inside the store"
	aroundStore = "around the store"
)

// overlaps says how the folders of the second store and of the store overlap, ""
// if they do not. Prefixes of a bucket are only ever the same: there is no folder
// to be removed with all that is in it.
func (s *second) overlaps(flag, store string) (how string, err error) {
	a, err := config.ParseStoreOf(flag, s.url)
	if err != nil {
		return "", err
	}
	b, err := config.ParseStore(store)
	if err != nil || a.Kind != b.Kind {
		return "", nil // the store's own error comes when it is opened
	}
	if a.Kind != "file" {
		if a == b {
			how = theStore
		}
		return how, nil
	}
	second, first := realPath(a.Path), realPath(b.Path)
	fa, erra := os.Stat(second)
	fb, errb := os.Stat(first)
	switch {
	case second == first || erra == nil && errb == nil && os.SameFile(fa, fb):
		how = theStore
	case below(first, second):
		how = insideStore
	case below(second, first):
		how = aroundStore
	}
	return how, nil
}

// below reports whether a path lies below a folder.
func below(folder, path string) bool {
	const slash = string(filepath.Separator)
	return strings.HasPrefix(path, strings.TrimSuffix(folder, slash)+slash)
}

// realPath is a path as the file system has it, as far down as there is something.
func realPath(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return filepath.Clean(path)
	}
	for up := abs; ; up = filepath.Dir(up) {
		if real, err := filepath.EvalSymlinks(up); err == nil {
			return filepath.Join(real, strings.TrimPrefix(abs, up))
		}
		if up == filepath.Dir(up) {
			return abs
		}
	}
}
