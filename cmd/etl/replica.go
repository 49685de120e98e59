package main

import (
	"cmp"
	"context"
	"os"
	"path/filepath"

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
	if same, err := s.same(flag, p.store); err != nil || same {
		return nil, cmp.Or(err, fault.Errorf(fault.Usage, "--%s %s: that is the store itself", flag, s.url))
	}
	store, was, bucket, keys := p.store, p.storeFlag, p.bucket, p.remote
	defer func() { p.store, p.storeFlag, p.bucket, p.remote = store, was, bucket, keys }()
	p.store, p.storeFlag, p.bucket, p.region = s.url, flag, nil, cmp.Or(s.region, p.region)
	if s.key != "" {
		p.key, p.secret, p.session = s.key, s.secret, s.session
	}
	return p.openStore(ctx, want) // each error names the URL
}

// same reports whether the second store is the store.
func (s *second) same(flag, store string) (bool, error) {
	a, err := config.ParseStoreOf(flag, s.url)
	if err != nil {
		return false, err
	}
	b, err := config.ParseStore(store)
	if err != nil || a.Kind != b.Kind {
		return false, nil // the store's own error comes when it is opened
	}
	if a.Kind != "file" {
		return a == b, nil
	}
	fa, erra := os.Stat(a.Path)
	fb, errb := os.Stat(b.Path)
	return filepath.Clean(a.Path) == filepath.Clean(b.Path) || erra == nil && errb == nil && os.SameFile(fa, fb), nil
}
