package jobs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/rs/zerolog"

	"etl/internal/cloudflare"
	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/objecttest"
	"etl/internal/object/s3"
	"etl/internal/source/d1"
	"etl/manifests"
)

// The jobs over a network: D1 by its REST interface, the store and its copy by S3,
// each behind a proxy that can spoil a connection.

// under is the part of a store below a prefix. It lies above the faults, which so
// count the requests to the cold tier and to its copy in one order.
type under struct {
	object.Store
	prefix object.Key
}

func (u under) Get(ctx context.Context, key object.Key) ([]byte, object.Attrs, error) {
	data, a, err := u.Store.Get(ctx, u.prefix+key)
	a.Key = key
	return data, a, err
}

func (u under) Put(ctx context.Context, key object.Key, data []byte, o object.PutOptions) (object.Attrs, error) {
	a, err := u.Store.Put(ctx, u.prefix+key, data, o)
	a.Key = key
	return a, err
}

func (u under) List(ctx context.Context, prefix string) iter.Seq2[object.Attrs, error] {
	return func(yield func(object.Attrs, error) bool) {
		for a, err := range u.Store.List(ctx, string(u.prefix)+prefix) {
			a.Key = object.Key(strings.TrimPrefix(string(a.Key), string(u.prefix)))
			if !yield(a, err) {
				return
			}
		}
	}
}

// What the tests call the places of a cold tier and of its copy.
const mainPrefix, copyPrefix = "main/", "copy/"

// bucketOf opens the bucket of the tests at an address.
func bucketOf(t testing.TB, url string) *s3.Store {
	t.Helper()
	s, err := s3.Open(s3.Options{Endpoint: url, Region: "auto", Bucket: "archive", PathStyle: true, AccessKey: "key", Secret: "s3cr3t"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// service is an S3 service in this process that does to one request, or to that
// one and all after it, what a test wants.
type service struct {
	http.Handler
	mu     sync.Mutex
	seen   int // requests so far
	at     int // the request that is spoilt, from 1; 0 for none
	lasts  bool
	spoil  func(w http.ResponseWriter, r *http.Request, do http.Handler)
	struck bool
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen++
	hit := s.spoil != nil && (s.seen == s.at || s.lasts && s.seen > s.at)
	s.struck = s.struck || hit
	s.mu.Unlock()
	if hit {
		s.spoil(w, r, s.Handler)
		return
	}
	s.Handler.ServeHTTP(w, r)
}

func (s *service) on(at int, lasts bool, spoil func(http.ResponseWriter, *http.Request, http.Handler)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen, s.at, s.lasts, s.spoil, s.struck = 0, at, lasts, spoil, false
}

func startService(t testing.TB) (*service, string) {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("archive"); err != nil {
		t.Fatal(err)
	}
	s := &service{Handler: gofakes3.New(backend, gofakes3.WithTimeSkewLimit(0)).Server()}
	srv := httptest.NewUnstartedServer(s)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // it writes some headers twice
	srv.Start()
	t.Cleanup(srv.Close)
	return s, srv.URL
}

// line is a proxy in front of a service.
type line struct {
	*toxiproxy.Proxy
	url string
}

func newLine(t testing.TB, url string) *line {
	t.Helper()
	scheme, rest, _ := strings.Cut(url, "://")
	host, path, _ := strings.Cut(rest, "/")
	p := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "line", "127.0.0.1:0", host)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return &line{p, strings.TrimSuffix(scheme+"://"+p.Listen+"/"+path, "/")}
}

// spoil adds a toxic to the connections, mend takes it away.
func (l *line) spoil(toxic string) error {
	_, err := l.Toxics.AddToxicJson(strings.NewReader(strings.Replace(toxic, "{", `{"name":"x",`, 1)))
	return err
}

func (l *line) mend() { _ = l.Toxics.RemoveToxic(context.Background(), "x") }

// wire sends requests to D1 over a line that is spoilt for one of them.
type wire struct {
	line *line
	base *http.Transport

	mu     sync.Mutex
	sent   int
	at     int // the request whose connection is spoilt, from 1; 0 for none
	toxic  string
	struck bool
}

func (w *wire) on(at int, toxic string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent, w.at, w.toxic, w.struck = 0, at, toxic, false
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.sent++
	hit := w.toxic != "" && w.sent == w.at
	w.struck = w.struck || hit
	w.mu.Unlock()
	if !hit {
		return w.base.RoundTrip(r)
	}
	// A connection of its own, so that a toxic counts the bytes of this request.
	w.base.CloseIdleConnections()
	if err := w.line.spoil(w.toxic); err != nil {
		return nil, err
	}
	mend := sync.OnceFunc(func() {
		w.base.CloseIdleConnections()
		w.line.mend()
	})
	res, err := w.base.RoundTrip(r)
	if err != nil {
		mend()
		return nil, err
	}
	res.Body = &closing{res.Body, mend}
	return res, nil
}

type closing struct {
	io.ReadCloser
	then func()
}

func (c *closing) Close() error {
	defer c.then()
	return c.ReadCloser.Close()
}

// network is a world whose jobs run over the network. Its file and its bucket
// can be looked at directly.
type network struct {
	*world
	copy    object.Store // of the cold tier, without faults
	to      object.Store // the same over the network
	bucket  object.Store // both
	api     *cloudflaretest.Server
	d1      *wire
	s3      *service
	s3line  *line
	longest time.Duration // that was waited between two attempts, had it been waited
	mu      sync.Mutex    // guards longest
}

// networkScene is a scene whose cold tier is a bucket.
type networkScene struct {
	scene
	now     time.Time // 0 for that of the scene
	objects []stored
}

type stored struct {
	object.Attrs
	data []byte
}

// newNetworkScene plants a scene, and lets prepare make of it what a job finds.
func newNetworkScene(t *testing.T, prepare func(n *network)) *networkScene {
	w := newWorld(t)
	_, url := startService(t)
	bucket := bucketOf(t, url)
	w.dir = under{bucket, mainPrefix}
	w.store = objecttest.NewFaults(w.dir)
	s := &networkScene{scene: scene{t: t, base: t.TempDir(), want: plant(w)}}
	if prepare != nil {
		n := &network{world: w, bucket: bucket, copy: under{bucket, copyPrefix}}
		n.to = n.copy
		prepare(n)
		w.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	}
	copyFile(t, w.db, filepath.Join(s.base, "d1.sqlite"))
	for a, err := range bucket.List(t.Context(), "") {
		w.must(err)
		data, a, err := bucket.Get(t.Context(), a.Key)
		w.must(err)
		s.objects = append(s.objects, stored{a, data})
	}
	return s
}

func (s *networkScene) open(t *testing.T) *network {
	t.Helper()
	n := &network{world: s.openDB(t)}
	if !s.now.IsZero() {
		n.now = s.now
	}
	n.api = cloudflaretest.Start(t, n.db, cloudflaretest.Options{})
	var url string
	n.s3, url = startService(t)
	n.bucket = bucketOf(t, url)
	n.dir, n.copy = under{n.bucket, mainPrefix}, under{n.bucket, copyPrefix}
	for _, o := range s.objects {
		a, err := n.bucket.Put(t.Context(), o.Key, o.data, object.PutOptions{Meta: o.Meta})
		n.must(err)
		if a.ETag != o.ETag {
			t.Fatalf("%s: ETag %s, want %s", o.Key, a.ETag, o.ETag)
		}
	}
	n.s3line = newLine(t, url)
	n.store = objecttest.NewFaults(bucketOf(t, n.s3line.url))

	n.d1 = &wire{line: newLine(t, n.api.URL), base: http.DefaultTransport.(*http.Transport).Clone()}
	t.Cleanup(n.d1.base.CloseIdleConnections)
	policy := fault.Policy{Sleep: func(ctx context.Context, d time.Duration) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.longest = max(n.longest, d)
		return ctx.Err()
	}}
	client, err := cloudflare.New(cloudflaretest.Account, cloudflaretest.Token, cloudflare.Options{
		URL: n.d1.line.url, HTTP: &http.Client{Transport: n.d1}, Rate: 100_000, Burst: 100_000, Retry: policy,
	})
	n.must(err)
	hot := d1.Open(client.Database(cloudflaretest.Database), d1.Options{Now: n.env().Now})
	t.Cleanup(func() { hot.Close() })
	cold := object.Retry(n.store, policy)
	n.to = under{cold, copyPrefix}
	n.over = func(e *Env) {
		e.Source, e.Ledger, e.Journal, e.Store = hot, hot, hot, under{cold, mainPrefix}
	}
	return n
}

// heal ends every fault and begins to count anew.
func (n *network) heal() {
	n.api.On(nil)
	n.s3.on(0, false, nil)
	n.d1.on(0, "")
	n.store.Reset()
}

// spoiling is a fault at one operation of a job.
type spoiling struct {
	name string
	// strike arranges it for the i-th operation. struck says whether it was met.
	strike func(n *network, i int) (struck func() bool)
	// What a job has to say that can not succeed: "" for a fault that passes,
	// after which the job has to succeed by itself.
	says string
	code int // exit code of a job that fails
	// perhaps: not every answer holds what is spoilt.
	perhaps bool
	wait    time.Duration // that the service asked for
}

// toxics spoil a connection for one request.
var toxics = []struct{ name, toxic string }{
	{"latency", `{"type":"latency","stream":"downstream","attributes":{"latency":10,"jitter":5}}`},
	{"small pieces", `{"type":"slicer","stream":"downstream","attributes":{"average_size":200,"size_variation":100,"delay":100}}`},
	{"connection reset", `{"type":"reset_peer","stream":"upstream","attributes":{"timeout":0}}`},
	{"request cut", `{"type":"limit_data","stream":"upstream","attributes":{"bytes":100}}`},
	{"reply lost", `{"type":"limit_data","stream":"downstream","attributes":{"bytes":0}}`},
	{"reply cut in its head", `{"type":"limit_data","stream":"downstream","attributes":{"bytes":40}}`},
	{"reply cut in its body", `{"type":"limit_data","stream":"downstream","attributes":{"bytes":400}}`},
	{"silence, then closed", `{"type":"timeout","stream":"downstream","attributes":{"timeout":20}}`},
}

func d1Spoilings() []spoiling {
	var all []spoiling
	scripted := func(name string, f *cloudflaretest.Fault, lasts bool, more spoiling) {
		more.name = "D1, " + name
		more.strike = func(n *network, i int) func() bool {
			var mu sync.Mutex
			struck := false
			n.api.On(func(k int, _ cloudflaretest.Request) *cloudflaretest.Fault {
				if k+1 != i && !(lasts && k+1 > i) {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				struck = true
				return f
			})
			return func() bool { mu.Lock(); defer mu.Unlock(); return struck }
		}
		all = append(all, more)
	}
	for _, f := range cloudflaretest.Faults() {
		scripted(f.Name, f.Fault, false, spoiling{})
	}
	limited := cloudflaretest.RateLimited("7")
	scripted("429 that asks for 7 s", limited, false, spoiling{wait: 7 * time.Second})
	scripted("the token expires", cloudflaretest.ExpiredToken(), true, spoiling{says: "Authentication error", code: fault.ExitError})
	scripted("the day's rows are used up", cloudflaretest.Fails(400, 7500, "You have exceeded the daily row read limit"), true, spoiling{says: "daily row read limit", code: fault.ExitError})
	scripted("down for good", cloudflaretest.Fails(503, 0, "Service Unavailable"), true, spoiling{says: "given up after", code: fault.ExitTransient})
	columns := regexp.MustCompile(`"columns":\["`)
	scripted("wrong columns", &cloudflaretest.Fault{Edit: func(b []byte) []byte {
		return columns.ReplaceAll(b, []byte(`"columns":["other_`))
	}}, true, spoiling{says: "other_", code: fault.ExitError, perhaps: true})
	for _, x := range toxics {
		all = append(all, spoiling{name: "D1, " + x.name, strike: func(n *network, i int) func() bool {
			n.d1.on(i, x.toxic)
			return func() bool { n.d1.mu.Lock(); defer n.d1.mu.Unlock(); return n.d1.struck }
		}})
	}
	return all
}

func s3Spoilings() []spoiling {
	var all []spoiling
	scripted := func(name string, lasts bool, more spoiling, f func(http.ResponseWriter, *http.Request, http.Handler)) {
		more.name = "S3, " + name
		more.strike = func(n *network, i int) func() bool {
			n.s3.on(i, lasts, f)
			return func() bool { n.s3.mu.Lock(); defer n.s3.mu.Unlock(); return n.s3.struck }
		}
		all = append(all, more)
	}
	// fails answers with a status, ran does so after the service did what was asked.
	fails := func(status int, code string, header ...string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			_, _ = io.Copy(io.Discard, r.Body)
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			body := fmt.Sprintf("<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>no</Message></Error>", code)
			if code == "" {
				body = "<html><title>no</title></html>"
			}
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	ran := func(f func(http.ResponseWriter, *http.Request, http.Handler)) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, do http.Handler) {
			do.ServeHTTP(httptest.NewRecorder(), r)
			f(w, r, do)
		}
	}
	scripted("429", false, spoiling{}, fails(429, "TooManyRequests"))
	scripted("429 that asks for 7 s", false, spoiling{wait: 7 * time.Second}, fails(429, "TooManyRequests", "Retry-After", "7"))
	scripted("503 SlowDown", false, spoiling{}, fails(503, "SlowDown"))
	scripted("500 before", false, spoiling{}, fails(500, "InternalError"))
	scripted("500 after", false, spoiling{}, ran(fails(500, "InternalError")))
	scripted("503 as HTML, before", false, spoiling{}, fails(503, ""))
	scripted("504 as HTML, after", false, spoiling{}, ran(fails(504, "")))
	scripted("408", false, spoiling{}, fails(408, "RequestTimeout"))
	scripted("400 BadDigest", false, spoiling{}, fails(400, "BadDigest"))
	scripted("409", false, spoiling{}, fails(409, "ConditionalRequestConflict"))
	scripted("damaged bytes", false, spoiling{perhaps: true}, func(w http.ResponseWriter, r *http.Request, do http.Handler) {
		res := httptest.NewRecorder()
		do.ServeHTTP(res, r)
		body := bytes.Clone(res.Body.Bytes())
		if r.Method == http.MethodGet && res.Header().Get("ETag") != "" && len(body) > 0 {
			body[len(body)/2] ^= 0x40
		}
		for k, v := range res.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(res.Code)
		_, _ = w.Write(body)
	})
	scripted("listing cut in its first bytes", false, spoiling{}, func(w http.ResponseWriter, r *http.Request, do http.Handler) {
		if !r.URL.Query().Has("list-type") {
			do.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/xml")
		_, _ = io.WriteString(w, `<?xml version="1.0" enc`)
	})
	scripted("truncated listing", false, spoiling{perhaps: true}, func(w http.ResponseWriter, r *http.Request, do http.Handler) {
		res := httptest.NewRecorder()
		do.ServeHTTP(res, r)
		body := res.Body.Bytes()
		for k, v := range res.Header() {
			w.Header()[k] = v
		}
		if r.URL.Query().Has("list-type") {
			body = body[:len(body)*2/3]
			w.Header().Del("Content-Length")
		}
		w.WriteHeader(res.Code)
		_, _ = w.Write(body)
	})
	// A page that is no answer of S3: of a read it is known that nobody else
	// will answer there, of a write only that it may have been done.
	scripted("a page of HTML with 200", false, spoiling{says: "S3 service", code: fault.ExitError, perhaps: true}, fails(200, ""))
	scripted("the clock is wrong", true, spoiling{says: "this machine's clock", code: fault.ExitError}, fails(403, "RequestTimeTooSkewed", "Date", "Mon, 01 Jan 2024 00:00:00 GMT"))
	scripted("the session expires", true, spoiling{says: "has expired", code: fault.ExitError}, fails(400, "ExpiredToken"))
	scripted("no permission any more", true, spoiling{says: "AccessDenied", code: fault.ExitError}, fails(403, "AccessDenied"))
	scripted("down for good", true, spoiling{says: "given up after", code: fault.ExitTransient}, fails(503, "SlowDown"))
	for _, x := range toxics {
		all = append(all, spoiling{name: "S3, " + x.name, strike: func(n *network, i int) func() bool {
			n.store.Inject(objecttest.At(i), func(ctx context.Context, _ objecttest.Op, do func(context.Context) error) error {
				if err := n.s3line.spoil(x.toxic); err != nil {
					return err
				}
				defer n.s3line.mend()
				return do(ctx)
			})
			return func() bool { return len(n.store.Fired()) == 1 }
		}})
	}
	return all
}

// errandEnd is how a run ended.
type errandEnd struct {
	err      error
	failed   []Failure
	warnings []string
	code     int
}

func (o errandEnd) ok() bool { return o.err == nil && len(o.failed) == 0 && o.code == fault.ExitOK }

// said is all that it told.
func (o errandEnd) said() string {
	said := fmt.Sprint(o.err, fault.HintOf(o.err), o.warnings)
	for _, x := range o.failed {
		said += "\n" + x.Error + "\n" + x.Hint
	}
	return said
}

// errand is a job that is run over a network that is spoilt.
type errand struct {
	name    string
	now     time.Time                // 0 for that of the scene
	prepare func(n *network)         // makes of the scene what the job finds
	run     func(*network) errandEnd // its requests come in one order
	// holds reports whether all is as the job, run on clean, has left it.
	holds func(s *networkScene, n, clean *network) bool
	// settled checks what must hold at any moment, completed that another run
	// completes it.
	settled   func(t *testing.T, s *networkScene, n *network)
	completed func(t *testing.T, s *networkScene, n, clean *network)
}

// again runs the errand on a network that is whole, and compares the result.
func (e *errand) again(t *testing.T, s *networkScene, n, clean *network) {
	t.Helper()
	n.heal()
	if o := e.run(n); !o.ok() {
		t.Errorf("the second run: exit %d: %s", o.code, o.said())
	}
	if !e.holds(s, n, clean) {
		sameRows(t, n.cold(), clean.cold())
		sameRows(t, n.hot(sceneDays), clean.hot(sceneDays))
		t.Error("the second run does not complete it")
	}
}

// errands are the jobs that write.
func errands() []errand {
	archive := func(n *network) {
		n.run(ArchiveOptions{Mode: Archive})
		n.store.Reset()
	}
	overwrite := func(n *network, key object.Key, data []byte) {
		_, a, err := n.dir.Get(n.t.Context(), key)
		n.must(err)
		_, err = n.dir.Put(n.t.Context(), key, data, object.PutOptions{IfMatch: a.ETag, Meta: a.Meta})
		n.must(err)
	}
	later := day("2024-04-01").Time()
	engine := ArchiveOptions{WriteWorkers: 1, ExtractWorkers: 1}
	repair := func(n *network) RepairOptions { return RepairOptions{Replica: n.to, Workers: 1, Engine: engine} }

	return []errand{
		{
			name: "archive",
			run: func(n *network) errandEnd {
				o := engine
				o.Mode = Archive
				r, err := n.try(n.env(), o)
				return errandEnd{err, r.Failed, r.Warnings, fault.Worse(fault.ExitCode(err), r.ExitCode(false))}
			},
			holds:     func(s *networkScene, n, _ *network) bool { return maps.Equal(n.cold(), s.want) },
			settled:   func(t *testing.T, s *networkScene, n *network) { s.settled(t, n.world) },
			completed: func(t *testing.T, s *networkScene, n, _ *network) { s.completed(t, n.world) },
		},
		{
			name: "prune", now: later, prepare: archive,
			run: func(n *network) errandEnd {
				r, err := n.tryPrune(n.t.Context(), n.env(), PruneOptions{Workers: 1, chunk: 100})
				return errandEnd{err, r.Failed, r.Warnings, fault.Worse(fault.ExitCode(err), r.ExitCode())}
			},
			holds: func(s *networkScene, n, clean *network) bool {
				return maps.Equal(n.cold(), s.want) && maps.Equal(n.hot(sceneDays), clean.hot(sceneDays))
			},
			settled: func(t *testing.T, s *networkScene, n *network) {
				sameRows(t, n.all(), s.want)
				sameRows(t, n.cold(), s.want)
			},
		},
		{
			name: "restore",
			prepare: func(n *network) {
				archive(n)
				now := n.now
				n.now = later
				n.prune(PruneOptions{})
				n.now = now
				n.exec("DELETE FROM points WHERE id = 1")
			},
			run: func(n *network) errandEnd {
				r, err := n.tryRestore(n.t.Context(), n.env(), RestoreOptions{Days: sceneDays, Workers: 1, chunk: 100})
				return errandEnd{err, r.Failed, r.Warnings, fault.Worse(fault.ExitCode(err), r.ExitCode())}
			},
			holds: func(s *networkScene, n, clean *network) bool {
				return maps.Equal(n.cold(), s.want) && maps.Equal(n.hot(sceneDays), clean.hot(sceneDays))
			},
			settled: func(t *testing.T, s *networkScene, n *network) {
				sameRows(t, n.cold(), s.want)
				for k, r := range n.hot(sceneDays) {
					if s.want[k] != r {
						t.Errorf("point %d at %d: %v was restored, want %v", k.point, k.ts, r, s.want[k])
					}
				}
			},
		},
		{
			// One file comes from D1 and from the copy, one is missing, the catalog is damaged.
			name: "repair",
			prepare: func(n *network) {
				archive(n)
				_, err := n.replicate(n.to, ReplicateOptions{})
				n.must(err)
				data, _, err := n.dir.Get(n.t.Context(), "timeseries/2024/01/c.parquet")
				n.must(err)
				overwrite(n, "timeseries/2024/01/c.parquet", flip(data, len(data)/2))
				overwrite(n, manifests.PointsKey, []byte("{"))
				n.must(n.bucket.(object.Deleter).Delete(n.t.Context(), mainPrefix+"timeseries/2024/02/b.parquet"))
			},
			run: func(n *network) errandEnd {
				p, err := PlanRepair(n.t.Context(), n.env(), repair(n))
				var r RepairReport
				if err == nil {
					r, err = p.Run(n.t.Context(), n.env())
				}
				return errandEnd{err, r.Failed, r.Warnings, fault.Worse(fault.ExitCode(err), r.ExitCode())}
			},
			holds: func(s *networkScene, n, clean *network) bool {
				return n.readable() && maps.Equal(n.cold(), s.want) && maps.Equal(n.hot(sceneDays), clean.hot(sceneDays))
			},
			settled: func(t *testing.T, s *networkScene, n *network) {
				sameRows(t, readCold(t, n.copy), s.want) // it was only read
				for k, r := range n.hot(sceneDays) {
					if s.want[k] != r {
						t.Errorf("point %d at %d: the hot tier has %v, want %v", k.point, k.ts, r, s.want[k])
					}
				}
			},
		},
		{
			name: "replicate",
			prepare: func(n *network) {
				_, err := n.replicate(n.to, ReplicateOptions{})
				n.must(err)
				archive(n)
			},
			run: func(n *network) errandEnd {
				r, err := n.replicate(n.to, ReplicateOptions{Workers: 1})
				return errandEnd{err, r.Failed, r.Warnings, fault.Worse(fault.ExitCode(err), r.ExitCode())}
			},
			holds: func(s *networkScene, n, _ *network) bool {
				return maps.Equal(readCold(n.t, n.copy), s.want) && maps.Equal(n.cold(), s.want)
			},
			settled: func(t *testing.T, s *networkScene, n *network) {
				sameRows(t, n.cold(), s.want)
				corrected := key{2, at("2024-02-01 05:00")} // since the copy was made
				for k, r := range readCold(t, n.copy) {
					if want, ok := s.want[k]; !ok || r != want && k != corrected {
						t.Errorf("point %d at %d: the copy has %v, want %v", k.point, k.ts, r, want)
					}
				}
			},
		},
	}
}

// readable reports whether every month file that the manifests count is there and whole.
func (n *network) readable() bool {
	r, err := Verify(n.t.Context(), Env{Store: n.dir, Now: time.Now}, VerifyOptions{Deep: true})
	n.must(err)
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity != Info })
}

// faultsOverTheNetwork tries every fault at each of the requests of a job, or at
// one of so many, and returns how many were tried.
func faultsOverTheNetwork(t *testing.T, e errand, oneOf int) (tried int) {
	s := newNetworkScene(t, e.prepare)
	s.now = e.now
	clean := s.open(t)
	clean.heal()
	first := e.run(clean)
	if !first.ok() {
		t.Fatalf("without a fault: exit %d: %s", first.code, first.said())
	}
	requests := map[string]int{"D1": clean.api.Requests(), "S3": clean.store.Count()}
	if clean.s3.seen != requests["S3"] || clean.d1.sent != requests["D1"] {
		t.Fatalf("%d and %d requests were sent, %v arrived", clean.d1.sent, clean.s3.seen, requests)
	}
	completed := func(t *testing.T, n *network) {
		t.Helper()
		if e.completed != nil {
			e.completed(t, s, n, clean)
			return
		}
		e.again(t, s, n, clean)
		n.whole()
	}
	if !e.holds(s, clean, clean) {
		t.Fatal("without a fault: the result is not what it should be")
	}
	completed(t, clean)

	nth := 0
	for _, f := range append(d1Spoilings(), s3Spoilings()...) {
		for i := 1; i <= requests[f.name[:2]]; i++ {
			if nth++; nth%oneOf != 0 {
				continue
			}
			tried++
			t.Run(fmt.Sprintf("%s at %d", f.name, i), func(t *testing.T) {
				t.Parallel()
				n := s.open(t)
				n.heal()
				struck := f.strike(n, i)
				o := e.run(n)
				if !struck() {
					t.Fatalf("the fault at request %d of %d was not met", i, requests[f.name[:2]])
				}
				n.heal()

				switch said, ok := o.said(), o.ok(); {
				case ok && !e.holds(s, n, clean):
					t.Errorf("the job ended well, and the result is not what it should be; it said %s", said)
				case f.says == "" && (!ok || len(o.warnings) != len(first.warnings)):
					t.Errorf("a fault that passes was not got over: %s", said)
				case f.says != "" && !(f.perhaps && ok) && !strings.Contains(said, f.says):
					t.Errorf("it does not say %q: %s", f.says, said)
				case !ok && o.code != f.code:
					t.Errorf("exit code %d, want %d: %s", o.code, f.code, said)
				}
				if n.longest < f.wait {
					t.Errorf("the service asked to wait %v, and the longest wait was %v", f.wait, n.longest)
				}
				e.settled(t, s, n)
				completed(t, n)
			})
		}
	}
	return tried
}

// spoilErrands tries faults at one of so many requests of each job, of archive
// and of the others.
func spoilErrands(t *testing.T, ofArchive, ofOthers int) {
	for _, e := range errands() {
		oneOf := ofOthers
		if e.name == "archive" {
			oneOf = ofArchive
		}
		var tried int
		t.Run(e.name, func(t *testing.T) {
			t.Run("faults", func(t *testing.T) { tried = faultsOverTheNetwork(t, e, oneOf) })
		})
		reliability(t, "faults over the network: "+e.name, int64(tried), "faults, each in a run of its own, at one request of %d", oneOf)
	}
}

// TestFaultsOverTheNetwork tries each fault at some requests; more of them are
// TestIntegrationFaults.
func TestFaultsOverTheNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("a sample without -short, more with the integration tests")
	}
	spoilErrands(t, 17, 61)
}
