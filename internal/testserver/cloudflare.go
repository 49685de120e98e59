package testserver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// Cloudflare is an account with a D1 database and an R2 bucket, both empty when
// a test gets them.
type Cloudflare struct {
	URL       string // of the API, with /client/v4
	Account   string
	Token     string // may do everything
	ReadToken string // may not write to D1, nor use R2
	CAFile    string // PEM file of the authority of the server's certificate; "" without TLS

	DatabaseID string
	// SQLitePath is the file of the database. Tests may open it beside the
	// runtime, with a busy timeout.
	SQLitePath string

	// R2 is the bucket; its credentials are those that Token has: the id of the
	// token and the SHA-256 of the token.
	R2 S3

	// WorkerURL is where the Worker answers, "" without one.
	WorkerURL string
}

// Worker is a Worker to run beside the API, bound to the database and the bucket
// of the test.
type Worker struct {
	Dir  string            // of its package; what package.json names must be installed there
	Main string            // its ES module in there, which is bundled as wrangler does
	D1   string            // binding of the database
	R2   string            // binding of the bucket
	Vars map[string]string // variables and secrets
}

// supply is how many databases and buckets a server has; it makes their files
// when they are first used. Tests take half of them, then another server starts;
// databases that are made over REST come from the other half.
const supply = 256

type cloudflare struct {
	*process
	Cloudflare
	used int
}

var (
	cloudflareMu sync.Mutex
	cloudflares  = map[Options]*cloudflare{}
)

// Miniflare gives the test a database and a bucket of its own on Cloudflare's
// local runtime.
func Miniflare(t testing.TB, o Options) *Cloudflare {
	t.Helper()
	cloudflareMu.Lock()
	defer cloudflareMu.Unlock()
	s := cloudflares[o]
	if s == nil || s.used == supply/2 || !s.running() {
		s = startCloudflare(t, o, nil)
		cloudflares[o] = s
	}
	s.used++
	return s.use(t, s.used-1)
}

// MiniflareWorker is Miniflare with a Worker, on a server that ends with the test.
func MiniflareWorker(t testing.TB, o Options, w Worker) *Cloudflare {
	t.Helper()
	s := startCloudflare(t, o, &w)
	t.Cleanup(s.stop)
	return s.use(t, 0)
}

func (s *cloudflare) use(t testing.TB, i int) *Cloudflare {
	t.Helper()
	s.logOnFailure(t)
	c := s.Cloudflare
	c.DatabaseID, c.R2.Bucket = databaseID(i), bucket(i)
	c.SQLitePath = filepath.Join(s.dir, "state", "d1", d1Object, objectID(d1Object, c.DatabaseID)+".sqlite")
	// D1 makes the file when it is first asked something.
	r, err := http.NewRequestWithContext(t.Context(), "POST", c.URL+"/accounts/"+c.Account+"/d1/database/"+c.DatabaseID+"/raw", strings.NewReader(`{"sql":"SELECT 1"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.Token)
	res, err := Client(t, c.CAFile).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := os.Stat(c.SQLitePath); err != nil || res.StatusCode != 200 {
		t.Fatalf("a new database: status %s, %v", res.Status, err)
	}
	return &c
}

func startCloudflare(t testing.TB, o Options, w *Worker) *cloudflare {
	t.Helper()
	node := filepath.Join(root(t), "internal", "testserver", "node")
	if _, err := exec.LookPath("node"); err != nil {
		missing(t, "node (Node.js 20 or later)")
	}
	if _, err := os.Stat(filepath.Join(node, "node_modules", "miniflare")); err != nil {
		missing(t, "the package miniflare")
	}
	if w != nil {
		_, err := os.Stat(filepath.Join(w.Dir, "package.json"))
		if _, none := os.Stat(filepath.Join(w.Dir, "node_modules")); err == nil && none != nil {
			missing(t, "what the Worker imports")
		}
	}
	dir, err := os.MkdirTemp("", "etl-miniflare-*")
	if err != nil {
		t.Fatal(err)
	}
	const token = "a-token-for-tests-0000000000000000000000"
	s := &cloudflare{Cloudflare: Cloudflare{Account: "a0000000000000000000000000000000", Token: token, ReadToken: token + "-read"}}
	defer func() {
		if s.process == nil {
			os.RemoveAll(dir)
		}
	}()
	secret := sha256.Sum256([]byte(token))
	s.R2 = S3{Region: "auto", AccessKey: "70000000000000000000000000000000", Secret: hex.EncodeToString(secret[:])}
	config := map[string]any{
		"state": filepath.Join(dir, "state"), "account": s.Account, "token": s.Token, "readToken": s.ReadToken,
		"accessKey": s.R2.AccessKey, "secret": s.R2.Secret,
	}
	var databases, buckets []string
	for i := range supply {
		databases, buckets = append(databases, databaseID(i)), append(buckets, bucket(i))
	}
	config["databases"], config["buckets"] = databases, buckets
	if w != nil {
		script := filepath.Join(dir, "worker.mjs")
		bundle := exec.Command(filepath.Join(node, "node_modules", ".bin", "esbuild"), filepath.Join(w.Dir, w.Main), "--bundle", "--format=esm",
			"--conditions=workerd,worker,browser", "--main-fields=browser,module,main", "--log-level=warning", "--outfile="+script)
		if out, err := bundle.CombinedOutput(); err != nil {
			t.Fatalf("bundle %s: %v\n%s", w.Main, err, out)
		}
		config["worker"] = map[string]any{"script": script, "d1": w.D1, "r2": w.R2, "vars": w.Vars}
	}
	if o.TLS {
		if err := certificate(dir); err != nil {
			t.Fatal(err)
		}
		for key, name := range map[string]string{"cert": "cert.pem", "key": "key.pem"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			config[key] = string(b)
		}
		s.CAFile = filepath.Join(dir, "cert.pem")
		s.R2.CAFile = s.CAFile
	}
	arg, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if s.process, err = run(dir, "node", filepath.Join(node, "server.mjs"), string(arg)); err != nil {
		t.Fatal(err)
	}
	ready := regexp.MustCompile(`(?m)^ready (\S+)$`)
	var url string
	if err := s.await(func() bool {
		m := ready.FindStringSubmatch(s.printed(0))
		if m != nil {
			url = m[1]
		}
		return m != nil
	}); err != nil {
		s.stop()
		t.Fatalf("start miniflare: %v", err)
	}
	s.URL, s.R2.URL = url+"/client/v4", url+"/cdn-cgi/local/r2/s3"
	if w != nil {
		s.WorkerURL = url
	}
	return s
}

func databaseID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

func bucket(i int) string { return fmt.Sprintf("bucket-%d", i) }

// d1Object names the class of objects that miniflare keeps databases in.
const d1Object = "miniflare-D1DatabaseObject"

// objectID is the id of a Durable Object by the key of its class and its name,
// which names its file: HMAC-SHA-256 under the SHA-256 of the key, cut off at 16
// bytes, of the name, and of that (workerd, ActorIdFactoryImpl::idFromName).
func objectID(class, name string) string {
	key := sha256.Sum256([]byte(class))
	mac := func(b []byte) []byte {
		h := hmac.New(sha256.New, key[:])
		h.Write(b)
		return h.Sum(nil)[:16]
	}
	id := mac([]byte(name))
	return hex.EncodeToString(append(id, mac(id)...))
}
