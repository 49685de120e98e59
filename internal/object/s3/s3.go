// Package s3 is the object store over a bucket of Cloudflare R2, or of another
// service that speaks Amazon's S3 protocol and takes conditional writes. It
// owns how a key, its condition and its metadata travel over HTTP, and what
// each answer, or its absence, means (errors.go). It needs nothing that R2 lacks:
//
//   - An object is written by one PUT of known length with its MD5, and with
//     its SHA-256 in the signature: no multipart upload, whose ETag can not be
//     compared, no chunked signature, no trailer, no "Expect: 100-continue".
//   - Each operation is one request, a listing one for each 1,000 keys. Nothing
//     is tried twice: object.Retry and object.Pace decorate a store.
//   - Each request has to end in 60 s and what its bytes take at 64 KiB/s, so
//     that a server that hangs or drips does not hold a worker for ever.
//
// What it refuses: objects above 1 GiB, keys that with the prefix are longer
// than 1,024 bytes, services that do not list in byte order (Amazon's directory
// buckets), and to make or delete anything but objects, or those.
package s3

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/auth"
	smithyendpoints "github.com/aws/smithy-go/endpoints"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/secret"
)

const (
	// maxSize is far above the largest month file (a sample a second for 31
	// days: 2.7 M rows, some 30 MB), and below the 5 GiB that one PUT may have.
	// It keeps a false Content-Length from taking all memory.
	maxSize = 1 << 30

	// patience and pace bound one request: see Store.allow.
	patience = time.Minute
	pace     = 64 << 10 // bytes per second

	// maxEmptyPages bounds what a listing may answer without a key while it
	// says that there is more.
	maxEmptyPages = 100
)

// Options say where a bucket is and who asks.
type Options struct {
	// Endpoint is the URL of the service, for R2 that of R2Endpoint; "" stands
	// for Amazon's own in Region.
	Endpoint string
	Region   string // "auto" for R2
	Bucket   string
	// Prefix stands before each key, with a "/" between them, so that a bucket
	// may hold other things; "" for none. Keys, listed ones too, are without it.
	Prefix string
	// AccessKey and Secret sign each request; SessionToken belongs to keys that
	// expire, and is "" for others.
	AccessKey, Secret, SessionToken string
	// PathStyle has the bucket in the path of a URL and not in its host name.
	PathStyle bool
	// RootCAs are the authorities that may vouch for the endpoint, nil for the system's.
	RootCAs *x509.CertPool
	// Secrets, which Secret and SessionToken are added to, are in no error of the
	// store; nil for these alone.
	Secrets *secret.Set
}

// check reports every fault at once.
func (o Options) check() error {
	var errs []error
	want := func(ok bool, format string, a ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		want(err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "",
			"endpoint %q: want a URL like https://HOST", secret.Scrub(o.Endpoint))
	}
	want(o.Region != "", `no region given ("auto" for R2)`)
	want(o.Bucket != "" && !strings.ContainsAny(o.Bucket, "/?#"), "bucket %q: want a name", o.Bucket)
	if o.Prefix != "" {
		if err := object.Key(o.Prefix).Check(); err != nil {
			want(false, "prefix: %w", err)
		}
	}
	want(o.AccessKey != "" && o.Secret != "", "an access key and its secret are needed")
	return errors.Join(errs...)
}

var accountID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// R2Endpoint is the endpoint of an account's R2 buckets. A bucket that was made
// in a jurisdiction ("eu", "fedramp", "us") is reachable at that one's endpoint
// only, all others at that of jurisdiction "".
func R2Endpoint(account, jurisdiction string) (string, error) {
	if !accountID.MatchString(account) {
		return "", fault.Hint(fault.Errorf(fault.Invalid, "Cloudflare account id %.80q: want 32 digits of 0-9 and a-f", account),
			"`npx wrangler whoami` shows the id; so does the address of Cloudflare's dashboard")
	}
	switch jurisdiction {
	case "":
		return "https://" + account + ".r2.cloudflarestorage.com", nil
	case "eu", "fedramp", "us":
		return "https://" + account + "." + jurisdiction + ".r2.cloudflarestorage.com", nil
	}
	return "", fault.Errorf(fault.Invalid, `R2 jurisdiction %.80q: want "eu", "fedramp" or "us", or none`, jurisdiction)
}

// Store is an object.Store over a bucket.
type Store struct {
	client  *s3.Client
	secrets *secret.Set // no error holds any of them
	bucket  string
	prefix  string // "" or with a "/" at its end
	r2      bool   // whether the service is R2, for hints

	// The constants, except in tests.
	patience time.Duration
	pace     int64
}

var (
	_ object.AfterLister = (*Store)(nil)
	_ object.Deleter     = (*Store)(nil)
)

// Open returns the store over a bucket. It sends nothing: a bucket that is not
// there is found by the first operation.
func Open(o Options) (*Store, error) {
	if err := o.check(); err != nil {
		return nil, fault.Errorf(fault.Invalid, "open bucket %.80q: %w", o.Bucket, err)
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	// One connection per worker: HTTP/2 would send all over one, whose loss
	// would leave the outcome of up to 32 writes unknown at once.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second,
		Protocols:           protocols,
		MaxIdleConnsPerHost: 64, // two for each of the 32 write workers
		// Less than servers keep an idle connection, so that a PUT seldom meets
		// one that is being closed, which would leave its outcome unknown.
		IdleConnTimeout:    20 * time.Second,
		WriteBufferSize:    64 << 10, // a month file of 40 KB in one system call
		DisableCompression: true,     // bytes and their number as stored
	}
	return newStore(o, transport), nil
}

// newStore is the store whose requests go through t.
func newStore(o Options, t http.RoundTripper) *Store {
	opts := s3.Options{
		Region:      o.Region,
		Credentials: credentials.NewStaticCredentialsProvider(o.AccessKey, o.Secret, o.SessionToken),
		HTTPClient: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a signature is good for one host only
		}},
		UsePathStyle: o.PathStyle,
		Retryer:      aws.NopRetryer{},
		// Anything else than required makes the SDK send a trailer, which R2
		// does not know, and some servers store as part of the object.
		RequestChecksumCalculation:   aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation:   aws.ResponseChecksumValidationWhenRequired,
		ContinueHeaderThresholdBytes: -1,
		DisableClockSkewCorrection:   true, // a wrong clock is told, see errors.go
		EndpointResolverV2:           &endpoint{},
	}
	if o.Endpoint != "" {
		opts.BaseEndpoint = &o.Endpoint
	}
	if o.Secrets == nil {
		o.Secrets = secret.New()
	}
	o.Secrets.Add(o.Secret, o.SessionToken)
	s := &Store{client: s3.New(opts), secrets: o.Secrets, bucket: o.Bucket, patience: patience, pace: pace, r2: strings.Contains(o.Endpoint, ".r2.cloudflarestorage.com")}
	if o.Prefix != "" {
		s.prefix = o.Prefix + "/"
	}
	return s
}

// endpoint resolves the URL of the bucket once, since it is the same for all
// requests of a store. The SDK's own resolver compiles regular expressions for
// each request, twice, and takes half of the time that all of the SDK does.
type endpoint struct {
	once    sync.Once
	url     smithyendpoints.Endpoint
	schemes []*auth.Option
	err     error
}

func (e *endpoint) ResolveEndpoint(ctx context.Context, p s3.EndpointParameters) (smithyendpoints.Endpoint, error) {
	e.once.Do(func() {
		e.url, e.err = s3.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, p)
		e.schemes, _ = auth.GetAuthOptions(&e.url.Properties)
	})
	// The SDK writes into the properties: each request gets its own.
	schemes := make([]*auth.Option, len(e.schemes))
	for i, s := range e.schemes {
		schemes[i] = &auth.Option{SchemeID: s.SchemeID}
		schemes[i].IdentityProperties.SetAll(&s.IdentityProperties)
		schemes[i].SignerProperties.SetAll(&s.SignerProperties)
	}
	url := e.url
	url.Properties = smithy.Properties{}
	url.Properties.SetAll(&e.url.Properties)
	auth.SetAuthOptions(&url.Properties, schemes)
	return url, e.err
}

// path is what the service calls the object at key.
func (s *Store) path(key object.Key) (*string, error) {
	if err := key.Check(); err != nil {
		return nil, err
	}
	p := s.prefix + string(key)
	if len(p) > 1024 {
		return nil, fault.Errorf(fault.Invalid, "object key %.80q: it has %d bytes with its prefix, which is more than 1,024", string(key), len(p))
	}
	return &p, nil
}

// errSlow is why a request ended that took longer than allowed.
var errSlow = errors.New("no end within the time allowed")

// allow bounds a request that moves n bytes. reset allows n more bytes from now
// on; end has to be called.
func (s *Store) allow(parent context.Context, n int64) (ctx context.Context, reset func(n int64), end func()) {
	ctx, cancel := context.WithCancelCause(parent)
	limit := func(n int64) time.Duration { return s.patience + time.Duration(n)*time.Second/time.Duration(s.pace) }
	t := time.AfterFunc(limit(n), func() { cancel(errSlow) })
	return ctx, func(n int64) { t.Reset(limit(n)) }, func() { t.Stop(); cancel(nil) }
}

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key object.Key) ([]byte, object.Attrs, error) {
	path, err := s.path(key)
	if err != nil {
		return nil, object.Attrs{}, fmt.Errorf("get: %w", err)
	}
	data, a, err := s.get(ctx, path)
	if err != nil {
		return nil, object.Attrs{}, s.secrets.Error(fmt.Errorf("get %s: %w", key, err))
	}
	a.Key = key
	return data, a, nil
}

func (s *Store) get(parent context.Context, path *string) ([]byte, object.Attrs, error) {
	var none object.Attrs
	if err := parent.Err(); err != nil {
		return nil, none, err
	}
	ctx, reset, end := s.allow(parent, 0)
	defer end()
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: path})
	if err != nil {
		return nil, none, s.classify(err, request{ctx: ctx, parent: parent, get: true})
	}
	defer out.Body.Close()
	size := aws.ToInt64(out.ContentLength)
	switch {
	case out.ContentLength == nil || size < 0:
		// Without it an answer that was cut short could pass for a whole one.
		return nil, none, fault.Errorf(fault.Transient, "the answer does not say how long it is")
	case aws.ToString(out.ETag) == "":
		return nil, none, s.noStore("the answer has no ETag")
	case size > maxSize:
		return nil, none, fault.Errorf(fault.Invalid, "the object has %d bytes, more than the %d that are read", size, maxSize)
	}
	reset(size)
	data := make([]byte, size)
	if n, err := io.ReadFull(out.Body, data); err != nil {
		err = s.classify(err, request{ctx: ctx, parent: parent, get: true})
		return nil, none, fmt.Errorf("read %d of %d bytes: %w", n, size, err)
	}
	if sum, ok := contentMD5(out); ok && sum != md5.Sum(data) {
		// Damage on the way, or a service that took the ETag of one version and
		// the bytes of another (versitygw does, under concurrent writes). With
		// old bytes and a new ETag the next conditional write would undo what
		// it should merge with.
		return nil, none, fault.Errorf(fault.Transient, "the %d bytes are not those of ETag %.80s", size, *out.ETag)
	}
	return data, object.Attrs{
		Size:     size,
		ETag:     unquote(*out.ETag),
		Modified: aws.ToTime(out.LastModified),
		Meta:     decodeMeta(out.Metadata),
	}, nil
}

// contentMD5 is the MD5 sum of an object, which is its ETag unless it was
// uploaded in parts or is encrypted with a key of the customer's
// (https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html).
func contentMD5(out *s3.GetObjectOutput) (sum [md5.Size]byte, ok bool) {
	etag := unquote(*out.ETag)
	if len(etag) != 2*md5.Size || out.SSECustomerAlgorithm != nil ||
		out.ServerSideEncryption != "" && out.ServerSideEncryption != types.ServerSideEncryptionAes256 {
		return sum, false
	}
	_, err := hex.Decode(sum[:], []byte(etag))
	return sum, err == nil
}

// Put implements object.Store. A service does not tell the time of the new
// version: Attrs.Modified is zero. What can not travel of o.Meta is left out,
// see encodeMeta.
func (s *Store) Put(ctx context.Context, key object.Key, data []byte, o object.PutOptions) (object.Attrs, error) {
	path, err := s.path(key)
	if err = cmp.Or(err, o.Check()); err != nil {
		return object.Attrs{}, fmt.Errorf("put: %w", err)
	}
	etag, err := s.put(ctx, path, data, o)
	if err != nil {
		return object.Attrs{}, s.secrets.Error(fmt.Errorf("put %s: %w", key, err))
	}
	return object.Attrs{Key: key, Size: int64(len(data)), ETag: etag}, nil
}

func (s *Store) put(parent context.Context, path *string, data []byte, o object.PutOptions) (etag string, err error) {
	if err := parent.Err(); err != nil {
		return "", err
	}
	if len(data) > maxSize {
		return "", fault.Errorf(fault.Invalid, "the object has %d bytes, more than the %d that are written", len(data), maxSize)
	}
	meta, err := encodeMeta(o.Meta)
	if err != nil {
		return "", err
	}
	ctx, _, end := s.allow(parent, int64(len(data)))
	defer end()
	sum := md5.Sum(data)
	body := bytes.NewReader(data)
	in := &s3.PutObjectInput{
		Bucket: &s.bucket, Key: path, Metadata: meta,
		Body: body, ContentLength: aws.Int64(int64(len(data))),
		ContentMD5:  aws.String(base64.StdEncoding.EncodeToString(sum[:])),
		ContentType: aws.String(cmp.Or(o.Type, "application/octet-stream")),
	}
	switch {
	case o.IfAbsent:
		in.IfNoneMatch = aws.String("*")
	case o.IfMatch != "":
		in.IfMatch = aws.String(quote(o.IfMatch))
	}
	out, err := s.client.PutObject(ctx, in, signBody(data))
	if err != nil {
		// INVARIANT: a server that did not get all the bytes of an object has
		// not stored it: their number and two hashes came first. The SDK lets
		// nobody read the body any more once PutObject has returned, so what is
		// left of it now was never sent, and the caller may reuse data.
		// Of an empty object it can not be told; it counts as sent.
		return "", s.classify(err, request{ctx: ctx, parent: parent, put: true, sent: body.Len() == 0, ifMatch: o.IfMatch != "", cond: o.IfMatch != "" || o.IfAbsent})
	}
	if aws.ToString(out.ETag) == "" {
		return "", fault.Wrap(fault.Unknown, s.noStore("the answer has no ETag"))
	}
	return unquote(*out.ETag), nil
}

// Delete implements object.Deleter. A bucket that keeps versions keeps them.
func (s *Store) Delete(ctx context.Context, key object.Key) error {
	path, err := s.path(key)
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	under, _, end := s.allow(ctx, 0)
	defer end()
	if _, err := s.client.DeleteObject(under, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: path}); err != nil {
		// To delete again is harmless, so an outcome that is not known is Transient.
		if err = s.classify(err, request{ctx: under, parent: ctx, get: true}); !fault.Is(err, fault.NotExist) {
			return s.secrets.Error(fmt.Errorf("delete %s: %w", key, err))
		}
	}
	return nil
}

// payloadHash gives the signature the SHA-256 of the body, over TLS too, where
// the SDK would leave it unsigned, without the SDK's reading the body first.
type payloadHash string

func (payloadHash) ID() string { return "ComputePayloadHash" }

func (h payloadHash) HandleFinalize(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
	return next.HandleFinalize(v4.SetPayloadHash(ctx, string(h)), in)
}

func signBody(data []byte) func(*s3.Options) {
	sum := sha256.Sum256(data)
	h := payloadHash(hex.EncodeToString(sum[:]))
	return s3.WithAPIOptions(func(stack *middleware.Stack) error {
		_, err := stack.Finalize.Swap(h.ID(), h)
		return err
	})
}

// unquote is an ETag as Attrs has it: without the quotes of a strong one. Any
// other form ("W/…") stays as it is.
func unquote(etag string) string {
	if n := len(etag); n >= 2 && etag[0] == '"' && etag[n-1] == '"' {
		return etag[1 : n-1]
	}
	return etag
}

// quote undoes unquote.
func quote(etag string) string {
	if strings.HasPrefix(etag, `W/"`) {
		return etag
	}
	return `"` + etag + `"`
}

// List implements object.Store. It skips names that are no valid key, such as
// the "folder/" of some consoles.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[object.Attrs, error] {
	return s.ListAfter(ctx, prefix, "")
}

// ListAfter implements object.AfterLister.
func (s *Store) ListAfter(ctx context.Context, prefix string, after object.Key) iter.Seq2[object.Attrs, error] {
	var start string
	if after != "" {
		start = s.prefix + string(after)
	}
	return func(yield func(object.Attrs, error) bool) {
		fail := func(err error) {
			yield(object.Attrs{}, s.secrets.Error(fmt.Errorf("list %q: %w", prefix, err)))
		}
		ask, ok := askable(prefix)
		if !ok {
			if err := ctx.Err(); err != nil {
				fail(err)
			}
			return
		}
		last, empty := "", 0
		var token *string
		for {
			page, err := s.page(ctx, s.prefix+ask, start, token)
			if err != nil {
				fail(err)
				return
			}
			for _, o := range page.Contents {
				if err := ctx.Err(); err != nil {
					fail(err)
					return
				}
				name, err := listed(o.Key, page.EncodingType)
				if err != nil {
					fail(s.noStore(err.Error()))
					return
				}
				if name <= last {
					fail(fault.Hint(fault.Errorf(fault.Invalid, "%.200q comes after %.200q, which is not the order of bytes", name, last),
						"use a general purpose bucket: Amazon's directory buckets list in no order"))
					return
				}
				last = name
				key, ours := strings.CutPrefix(name, s.prefix)
				if !ours || name <= start || !strings.HasPrefix(key, prefix) || object.Key(key).Check() != nil {
					continue
				}
				if !yield(object.Attrs{
					Key:      object.Key(key),
					Size:     aws.ToInt64(o.Size),
					ETag:     unquote(aws.ToString(o.ETag)),
					Modified: aws.ToTime(o.LastModified),
				}, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			if empty++; len(page.Contents) > 0 {
				empty = 0
			}
			token = page.NextContinuationToken
			if aws.ToString(token) == "" || empty > maxEmptyPages {
				fail(s.noStore("the listing says that there is more, but not where"))
				return
			}
		}
	}
}

// page gets one page of a listing, up to 1,000 objects: the first one after
// start, or that which the token of the page before names.
func (s *Store) page(parent context.Context, prefix, start string, token *string) (*s3.ListObjectsV2Output, error) {
	if err := parent.Err(); err != nil {
		return nil, err
	}
	ctx, _, end := s.allow(parent, 1<<20) // 1,000 entries of about 1 KB of XML
	defer end()
	in := &s3.ListObjectsV2Input{Bucket: &s.bucket, ContinuationToken: token, EncodingType: types.EncodingTypeUrl}
	if prefix != "" {
		in.Prefix = &prefix
	}
	if start != "" && token == nil {
		in.StartAfter = &start
	}
	var head opening
	out, err := s.client.ListObjectsV2(ctx, in, head.record)
	if err != nil {
		return nil, s.classify(err, request{ctx: ctx, parent: parent})
	}
	if out.Name == nil {
		// The SDK takes any XML, a web page too, for an empty listing, and so
		// what ends before it says what it is.
		err := s.noStore("the answer is no listing of a bucket")
		if head.cut() {
			err = fault.Wrap(fault.Transient, fmt.Errorf("the answer is damaged or cut short: it ends after %d bytes", len(head)))
		}
		return nil, err
	}
	return out, nil
}

// opening are the first bytes of an answer.
type opening []byte

// record keeps them while the SDK reads the answer.
func (o *opening) record(opts *s3.Options) {
	opts.APIOptions = append(opts.APIOptions, func(stack *middleware.Stack) error {
		return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("Opening", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
			out, meta, err := next.HandleDeserialize(ctx, in)
			if res, ok := out.RawResponse.(*smithyhttp.Response); ok && res.Body != nil {
				res.Body = &recording{res.Body, o}
			}
			return out, meta, err
		}), middleware.After)
	})
}

type recording struct {
	io.ReadCloser
	to *opening
}

func (r *recording) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	*r.to = append(*r.to, p[:min(n, 1<<10-min(len(*r.to), 1<<10))]...)
	return n, err
}

// cut reports whether the answer, which was read to its end, ended before the
// name of its first element.
func (o opening) cut() bool {
	text := strings.TrimSpace(strings.TrimPrefix(string(o), "\ufeff"))
	if text != "" && text[0] != '<' || len(o) >= 1<<10 {
		return false
	}
	x := xml.NewDecoder(strings.NewReader(text))
	for {
		switch token, err := x.RawToken(); token.(type) {
		case xml.StartElement, xml.Directive: // a page of HTML begins with a directive
			return false
		default:
			if err != nil {
				return true
			}
		}
	}
}

// askable is the part of a prefix that can be sent, which must be UTF-8: all
// but a letter of several bytes that the prefix cuts in two. ok is false if no
// valid key begins with the prefix.
func askable(prefix string) (ask string, ok bool) {
	ask = prefix
	for i := 1; i < utf8.UTFMax && i <= len(prefix); i++ {
		if tail := prefix[len(prefix)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRuneInString(tail) {
				ask = prefix[:len(prefix)-i]
			}
			break
		}
	}
	if len(prefix) > 1024 || !utf8.ValidString(ask) || strings.ContainsAny(ask, "\x00\\") {
		return "", false
	}
	if i := strings.LastIndexByte(ask, '/'); i >= 0 && object.Key(ask[:i]).Check() != nil {
		return "", false // "a//", "../", …
	}
	return ask, true
}

// listed is the name of a listed object. Names are asked for in URL encoding,
// because XML can not hold every character of a key.
func listed(name *string, enc types.EncodingType) (string, error) {
	if aws.ToString(name) == "" {
		return "", errors.New("the listing has an object without a name")
	}
	if enc != types.EncodingTypeUrl {
		return *name, nil
	}
	return url.QueryUnescape(*name)
}
