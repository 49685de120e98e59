package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"os"
	"time"

	"etl/internal/cloudflare"
	"etl/internal/config"
	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/object/s3"
	"etl/internal/source"
	"etl/internal/source/d1"
	"etl/internal/source/sqlite"
	"etl/jobs"
)

// opened is what a command has opened of its places.
type opened struct {
	app *app
	// policy is the one for all that goes over the network; its Notify is set here.
	policy fault.Policy
	// early has no request sent to a place after patience with one has ended.
	early  bool
	client *cloudflare.Client // nil until it is needed
	bucket object.Store       // nil until it is needed
	// storeFlag names the store in messages, "" for store: a copy has a flag of its own.
	storeFlag string
	// repeated counts requests to a bucket; D1's are in its usage.
	repeated fault.Counter
}

// openSource opens the hot tier. create makes a database file that does not exist.
func (p *places) openSource(readers int, create bool) (source.Database, error) {
	if p.source == "" {
		return nil, p.none("source", "no source: where is the hot tier?",
			"give --source d1://DATABASE_ID or sqlite:PATH, set ETL_SOURCE, or write `source: sqlite:PATH` into etl.yaml; --wrangler wrangler.jsonc takes a Worker's; `etl demo` makes one to try")
	}
	u, err := config.ParseSource(p.source)
	if err != nil {
		return nil, err
	}
	if u.Kind == "sqlite" {
		s, err := sqlite.Open(u.Path, sqlite.Options{Readers: readers, ReadOnly: p.noState, Create: create, Now: p.clock()})
		if err != nil {
			return nil, err
		}
		return source.Timed(s, p.app.rec), nil
	}
	c, err := p.api(p.source)
	if err != nil {
		return nil, err
	}
	o := d1.Options{ReadOnly: p.noState}
	if !p.now.IsZero() {
		o.Now = p.clock()
	}
	s := d1.Open(c.Database(u.ID), o)
	p.app.billed = s.Usage
	return source.Timed(s, p.app.rec), nil
}

// hasSource reports whether a source is configured, be it wrongly.
func (p *places) hasSource() bool {
	err := p.settings.Value("source").Problem
	return !p.noSource && (p.source != "" || err != nil && !fault.Is(err, fault.NotExist))
}

// none is the error of a place that is not set: what the wrangler file that was
// named says of it, else what.
func (p *places) none(name, what, hint string) error {
	if err := p.settings.Value(name).Problem; err != nil {
		return fault.Wrap(fault.Usage, err)
	}
	return fault.Hint(fault.Errorf(fault.Usage, "%s", what), "%s", hint)
}

// api is the client of Cloudflare's API, one for all that the command does, so
// that it keeps one rate.
func (p *places) api(place string) (*cloudflare.Client, error) {
	if p.client != nil {
		return p.client, nil
	}
	missing := ""
	switch {
	case p.account == "" && p.token == "":
		missing = "neither the account's id nor an API token is set"
	case p.account == "":
		missing = "the account's id is not set"
	case p.token == "":
		missing = "no API token is set"
	}
	if missing != "" {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "%s: %s", place, missing), "set CLOUDFLARE_ACCOUNT_ID and CLOUDFLARE_API_TOKEN; %s", tokenNeeds)
	}
	if err := config.CheckURL(p.url); err != nil {
		return nil, fault.Errorf(fault.Usage, "%s: api-url: %w", p.settings.Value("api-url").Origin, err)
	}
	roots, err := p.roots()
	if err != nil {
		return nil, err
	}
	o := cloudflare.Options{URL: p.url, Rate: float64(p.rate), Burst: int(p.burst), Retry: p.retry(p.app.retrying), Secrets: &p.app.secrets, Timing: p.app.rec}
	if roots != nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = &tls.Config{RootCAs: roots}
		o.HTTP = &http.Client{Transport: t}
	}
	p.client, err = cloudflare.New(p.account, p.token, o)
	return p.client, err
}

// tokenNeeds says what an API token has to be allowed.
const tokenNeeds = "the token (https://dash.cloudflare.com/profile/api-tokens) needs the account permissions D1: Edit (with --no-state Read is enough) and, for r2:, Workers R2 Storage: Edit"

// retry is the policy for one place.
func (p *places) retry(notify func(fault.Retry)) fault.Policy {
	o := p.policy
	o.Notify = notify
	if p.early {
		o.Lost = new(fault.Lost)
	}
	return o
}

// roots are the certificate authorities to trust, nil for the system's.
func (p *places) roots() (*x509.CertPool, error) {
	if p.caFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(p.caFile)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "ca-file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a machine without any
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fault.Errorf(fault.Usage, "ca-file %s: there is no certificate in it: want PEM", p.caFile)
	}
	return pool, nil
}

// presence says what a command asks of the folder that the store is. A bucket
// is never made: the first operation tells of one that is missing.
type presence int

const (
	needed  presence = iota // reading: an absent folder is an error, most likely a wrong path
	created                 // writing: an absent folder is made
	perhaps                 // planning: an absent folder is an empty store, and stays absent
)

func (p *places) openStore(ctx context.Context, want presence) (object.Store, error) {
	if p.store == "" {
		return nil, p.none("store", "no store: where is the cold tier?",
			"give --store r2://BUCKET or file:DIR, set ETL_STORE, or write `store: file:DIR` into etl.yaml; --wrangler wrangler.jsonc takes a Worker's; `etl demo` makes one to try")
	}
	flag := cmp.Or(p.storeFlag, "store")
	u, err := config.ParseStoreOf(flag, p.store)
	if err != nil {
		return nil, err
	}
	if u.Kind != "file" {
		if p.bucket == nil {
			p.bucket, err = p.openBucket(ctx, u)
		}
		return p.bucket, err
	}
	if _, err := os.Stat(u.Path); errors.Is(err, fs.ErrNotExist) {
		switch want {
		case needed:
			return nil, fault.Hint(fault.Errorf(fault.NotExist, "--%s %s: there is no folder %s", flag, p.store, u.Path),
				"is the path right, and the disk mounted? The first `etl archive` or `etl backfill` makes the folder")
		case perhaps:
			return noStore{}, nil
		}
	}
	s, err := dir.Open(u.Path)
	if err != nil && fault.HintOf(err) == "" {
		err = fault.Hint(err, "--%s file:DIR names a folder, or one that can be made", flag)
	}
	if err != nil {
		return nil, err
	}
	return object.Timed(s, p.app.rec), nil
}

// openBucket opens an r2 or s3 store. It sends nothing to the bucket; keys that
// are not set are made from the API token, whose id Cloudflare is asked for.
func (p *places) openBucket(ctx context.Context, u config.Store) (object.Store, error) {
	o := s3.Options{
		Endpoint: u.Endpoint, Region: cmp.Or(u.Region, p.region), Bucket: u.Bucket, Prefix: u.Prefix, PathStyle: u.PathStyle,
		AccessKey: p.key, Secret: p.secret, SessionToken: p.session, Secrets: &p.app.secrets,
	}
	var err error
	if o.RootCAs, err = p.roots(); err != nil {
		return nil, err
	}
	if (p.key == "") != (p.secret == "") {
		have, lacks := "access-key-id", "secret-access-key"
		if p.key == "" {
			have, lacks = lacks, have
		}
		return nil, fault.Hint(fault.Errorf(fault.Usage, "%s: %s is set (%s), %s is not", p.store, have, p.settings.Value(have).Origin, lacks),
			"set both (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or for r2: neither and CLOUDFLARE_API_TOKEN")
	}
	if u.Kind == "s3" {
		if p.key == "" {
			return nil, fault.Hint(fault.Errorf(fault.Usage, "%s: no S3 keys are set", p.store),
				"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may list, read and write objects in the bucket")
		}
		if u.Endpoint == "" && o.Region == "" {
			return nil, fault.Hint(fault.Errorf(fault.Usage, "%s: neither an endpoint nor a region is given", p.store),
				"s3://BUCKET?endpoint=https://HOST for a service of your own, s3://BUCKET?region=eu-central-1 for Amazon's")
		}
		o.Region = cmp.Or(o.Region, "us-east-1") // what services without regions take
	} else if err := p.fillR2(ctx, u, &o); err != nil {
		return nil, err
	}
	b, err := s3.Open(o)
	if err != nil {
		return nil, err
	}
	s := object.Timed(b, p.app.rec)
	if u.Kind == "r2" {
		s = object.PaceTimed(s, time.Second, p.app.rec) // R2 takes one write a second of a key
	}
	return object.Retry(s, p.retry(func(r fault.Retry) {
		p.repeated.Count(r)
		p.app.retrying(r)
	})), nil
}

// fillR2 adds what an R2 bucket's options lack: keys, endpoint, region.
func (p *places) fillR2(ctx context.Context, u config.Store, o *s3.Options) (err error) {
	if o.AccessKey == "" {
		c, err := p.api(p.store)
		if err != nil {
			return err
		}
		if o.AccessKey, err = c.VerifyToken(ctx); err != nil {
			return fmt.Errorf("S3 keys of %s: %w", p.store, err)
		}
		o.Secret, o.SessionToken = cloudflare.TokenSecret(p.token), ""
	}
	if o.Region = "auto"; o.Endpoint == "" {
		if p.account == "" {
			return fault.Hint(fault.Errorf(fault.Usage, "%s: the account's id is not set", p.store), "set CLOUDFLARE_ACCOUNT_ID; it is part of R2's address")
		}
		if o.Endpoint, err = s3.R2Endpoint(p.account, u.Jurisdiction); err != nil {
			return fault.Wrap(fault.Usage, err)
		}
	}
	return nil
}

// noStore stands for the folder of a store that does not exist yet.
type noStore struct{}

func (noStore) Get(_ context.Context, key object.Key) ([]byte, object.Attrs, error) {
	return nil, object.Attrs{}, fault.Errorf(fault.NotExist, "get %s: the store is not made yet", key)
}

func (noStore) Put(_ context.Context, key object.Key, _ []byte, _ object.PutOptions) (object.Attrs, error) {
	return object.Attrs{}, fault.Errorf(fault.Internal, "put %s: the store is not made yet", key)
}

func (noStore) List(context.Context, string) iter.Seq2[object.Attrs, error] {
	return func(func(object.Attrs, error) bool) {}
}

// access is what a command needs of the two tiers.
type access struct {
	source  bool // the source is needed, and its ledger unless --no-state; else it is opened if one is configured
	store   presence
	readers int // queries at a time, 0 for 1
}

// open makes the environment of a job from settings that were resolved. The
// source comes first, so that a wrong one leaves no folder behind.
func (p *places) open(ctx context.Context, a *app, need access) (env jobs.Env, done func(), err error) {
	env, done = jobs.Env{Now: p.clock(), Stop: a.stop.Done(), Timing: a.rec}, func() {}
	if need.source && !p.hasSource() && p.store == "" && p.wrangler == "" {
		return env, nil, fault.Hint(fault.Errorf(fault.Usage, "no source and no store: where are the hot tier and the cold tier?"),
			"give --source and --store (d1://DATABASE_ID and r2://BUCKET, or sqlite:PATH and file:DIR), set ETL_SOURCE and ETL_STORE, or write both into etl.yaml; --wrangler wrangler.jsonc takes a Worker's; `etl demo` makes a place to try")
	}
	if need.source || p.hasSource() {
		src, err := p.openSource(max(1, need.readers), false)
		if err != nil {
			return env, nil, err
		}
		env.Source, done = src, func() { src.Close() }
		if err := p.addLedger(ctx, &env, src, need.source); err != nil {
			done()
			return env, nil, err
		}
	}
	if env.Store, err = p.openStore(ctx, need.store); err != nil {
		done()
		return env, nil, err
	}
	closeSource := done
	return env, func() {
		closeSource()
		if n := p.repeated.Load(); n > 0 && !a.quiet {
			a.warn(fmt.Sprintf("%s requests to %s had to be repeated", comma(n), p.store))
		}
	}, nil
}

func (p *places) addLedger(ctx context.Context, env *jobs.Env, src source.Database, required bool) error {
	if p.noState {
		return nil
	}
	info, err := src.Info(ctx)
	if err != nil {
		return err
	}
	if info.Ledger {
		env.Ledger, env.Journal = src, src
	} else if required {
		return fault.Hint(fault.Errorf(fault.Invalid, "%s has no ledger (table archive_marks and its triggers)", p.source),
			"run `etl migrate --source %s` once, or give --no-state to work without it", p.source)
	}
	return nil
}
