package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/rogpeppe/go-internal/testscript"

	"etl/internal/cloudflare/cloudflaretest"
)

// plantedOf is what a test sets a secret setting to: long, random and unlike all
// else, with the letters that get escaped.
func plantedOf(setting string) string {
	sum := sha256.Sum256([]byte("planted: " + setting))
	v := "pl4nt/" + base64.RawURLEncoding.EncodeToString(sum[:27]) + "+~"
	if strings.HasSuffix(setting, "-url") {
		return nobodyAt + v
	}
	return v
}

// nobodyAt opens a URL at which nobody answers.
const nobodyAt = "http://127.0.0.1:1/"

// leaks are the planted secrets that a text holds, in the forms in which programs
// repeat them: counted here anew, not as package secret does.
func leaks(text string, planted map[string]string) (found []string) {
	low := strings.ToLower(text)
	for name, v := range planted {
		v = strings.TrimPrefix(v, nobodyAt)
		sum := sha256.Sum256([]byte(v))
		quoted, _ := json.Marshal(v)
		forms := map[string]string{
			"as it is": v, "its beginning": v[:20], "its end": v[len(v)-20:], "SHA-256": hex.EncodeToString(sum[:]), "hex": hex.EncodeToString([]byte(v)),
			"base64": base64.StdEncoding.EncodeToString([]byte(v))[:len(v)], "base64 of Bearer": base64.StdEncoding.EncodeToString([]byte("Bearer " + v))[12:len(v)],
			"in a query": url.QueryEscape(v), "in a path": url.PathEscape(v), "in JSON": strings.Trim(string(quoted), `"`),
		}
		for form, text := range forms {
			if strings.Contains(low, strings.ToLower(text)) {
				found = append(found, name+" ("+form+")")
			}
		}
	}
	return found
}

// secretSettings are all settings that are secrets, with the last variable that
// each goes by: of a new one nothing has to be said here.
func secretSettings() map[string]string {
	all := make(map[string]string)
	for _, s := range settings {
		if v := s.Variables(); s.Secret {
			all[s.Name] = v[len(v)-1]
		}
	}
	return all
}

// plantSecrets sets each secret in the environment of a script, and a place where
// its runs are counted.
func plantSecrets(env *testscript.Env) error {
	for name, variable := range secretSettings() {
		env.Setenv(variable, plantedOf(name))
	}
	for _, half := range []string{"AWS_SECRET_ACCESS_KEY", "ETL_REPLICA_SECRET_ACCESS_KEY"} {
		env.Setenv(half, "") // without the key that it belongs to it is refused
	}
	env.Setenv(watchedRuns, os.Getenv(watchedRuns))
	return nil
}

// watchedRuns names the file that counts the runs of etl whose output was looked at.
const watchedRuns = "ETL_TEST_WATCHED_RUNS"

func countWatched(t *testing.T) {
	file := filepath.Join(t.TempDir(), "runs")
	t.Setenv(watchedRuns, file)
	t.Cleanup(func() { // after the scripts, which run beside each other
		runs, err := os.ReadFile(file)
		if err != nil || len(runs) == 0 {
			t.Errorf("no output was looked at: %v", err)
		}
		t.Logf("reliability: planted secrets in scripts: %d runs", len(runs))
	})
}

// watchedMain is main that looks into all of its output for the planted secrets.
func watchedMain() {
	planted := make(map[string]string)
	for name, variable := range secretSettings() {
		if v := os.Getenv(variable); len(v) >= 24 {
			planted[name] = v
		}
	}
	file := os.Getenv(watchedRuns)
	if file == "" || len(planted) == 0 {
		main()
		return
	}
	var said bytes.Buffer
	var mu sync.Mutex
	var copies sync.WaitGroup
	var ends []*os.File
	tee := func(to *os.File) *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			panic(err)
		}
		ends = append(ends, w)
		copies.Go(func() {
			buf := make([]byte, 64<<10)
			for {
				n, err := r.Read(buf)
				mu.Lock()
				said.Write(buf[:n])
				mu.Unlock()
				_, _ = to.Write(buf[:n])
				if err != nil {
					return
				}
			}
		})
		return w
	}
	stderr := os.Stderr
	os.Stdout, os.Stderr = tee(os.Stdout), tee(os.Stderr)
	code := program()
	for _, w := range ends {
		w.Close()
	}
	copies.Wait()
	if found := leaks(said.String(), planted); len(found) > 0 {
		fmt.Fprintf(stderr, "SECRETS in the output: %s\n", strings.Join(found, ", "))
		code = 99
	}
	if f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err == nil {
		_, _ = f.WriteString(".")
		f.Close()
	}
	os.Exit(code)
}

// echo is a proxy in front of D1 or S3 that repeats what it was sent, and all
// secrets that it can think of, in its answers.
type echo struct {
	http.Handler
	s3      bool
	mu      sync.Mutex
	planted map[string]string // those that the process that asks can know
	mode    string
	left    int // requests that are spoilt; -1 for all
	spoilt  int
}

func (e *echo) set(mode string, left int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mode, e.left, e.spoilt = mode, left, 0
}

func (e *echo) knows(planted map[string]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.planted = planted
}

func (e *echo) count() int { e.mu.Lock(); defer e.mu.Unlock(); return e.spoilt }

// text repeats the request and the secrets in every form; pad letters come first,
// so that one of them is cut wherever texts are cut.
func (e *echo) text(r *http.Request, planted map[string]string, pad int) string {
	var b strings.Builder
	b.WriteString(strings.Repeat("x", pad))
	fmt.Fprintf(&b, " %s %s", r.Method, r.URL)
	for k, v := range r.Header {
		fmt.Fprintf(&b, " %s: %s %s %s", k, v[0], url.QueryEscape(v[0]), base64.StdEncoding.EncodeToString([]byte(v[0])))
	}
	for _, v := range planted {
		sum := sha256.Sum256([]byte(v))
		fmt.Fprintf(&b, " %s %q %s %X %s %s", v, v, url.QueryEscape(v), sum, base64.StdEncoding.EncodeToString([]byte(v)), base64.URLEncoding.EncodeToString([]byte("Bearer "+v)))
	}
	b.WriteString(" https://user:" + planted["api-token"] + "@host/?X-Amz-Signature=0123456789abcdef0123456789abcdef&X-Amz-Security-Token=" + planted["session-token"])
	return b.String()
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	mode, n, planted := e.mode, e.spoilt, e.planted
	if mode != "" && e.left != 0 {
		e.left--
		e.spoilt++
	} else {
		mode = ""
	}
	e.mu.Unlock()
	if mode == "" {
		if !e.s3 && r.Header.Get("Authorization") == "Bearer "+planted["api-token"] {
			r.Header.Set("Authorization", "Bearer "+cloudflaretest.Token)
		}
		e.Handler.ServeHTTP(w, r)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	pad := []int{0, 280, 240, 296}[n%4]
	status := map[string]int{"credentials": 401, "forbidden": 403, "invalid": 400, "redirect": 302, "success": 200, "text": 400, "html": 502, "busy": 503, "missing": 404}[mode]
	text := e.text(r, planted, pad)
	w.Header().Set("X-Amz-Request-Id", planted["secret-access-key"])
	w.Header().Set("Cf-Ray", planted["api-token"])
	w.Header().Set("Retry-After", "0")
	w.Header().Set("Location", "https://"+planted["api-token"]+"@elsewhere/?token="+planted["secret-access-key"])
	switch {
	case mode == "text":
		w.Header().Set("Content-Type", "text/plain")
	case mode == "html":
		w.Header().Set("Content-Type", "text/html")
		text = "<html>" + text + "</html>"
	case e.s3:
		w.Header().Set("Content-Type", "application/xml")
		w.Header().Set("ETag", `"`+planted["secret-access-key"]+`"`)
		code := map[string]string{"credentials": "InvalidAccessKeyId", "forbidden": "SignatureDoesNotMatch", "busy": "SlowDown", "missing": "NoSuchBucket"}[mode]
		if code == "" {
			code = planted["session-token"]
		}
		var b bytes.Buffer
		_ = xml.EscapeText(&b, []byte(text))
		text = `<?xml version="1.0"?><Error><Code>` + code + `</Code><Message>` + b.String() + `</Message><StringToSign>` + b.String() + `</StringToSign></Error>`
	default:
		w.Header().Set("Content-Type", "application/json")
		b, _ := json.Marshal(map[string]any{"success": false, "result": nil, "errors": []map[string]any{{"code": 7500, "message": text}}})
		text = string(b)
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// TestPlantedSecrets runs every command, in success and in every failure in which
// a server or a proxy repeats what it was sent, and looks for the secrets in all
// that is printed and in every file that is written.
func TestPlantedSecrets(t *testing.T) {
	t.Parallel() // it waits most of the time
	planted := make(map[string]string)
	for name := range secretSettings() {
		planted[name] = plantedOf(name)
	}
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	api, err := cloudflaretest.New(at("d1.sqlite"), cloudflaretest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	backend := s3mem.New()
	for _, b := range []string{"archive", "replica"} {
		if err := backend.CreateBucket(b); err != nil {
			t.Fatal(err)
		}
	}
	hot := &echo{Handler: api, planted: planted}
	cold := &echo{Handler: gofakes3.New(backend, gofakes3.WithTimeSkewLimit(0)).Server(), s3: true, planted: planted}
	hotSrv, coldSrv := httptest.NewUnstartedServer(hot), httptest.NewUnstartedServer(cold)
	for _, s := range []*httptest.Server{hotSrv, coldSrv} {
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it
		s.StartTLS()
		defer s.Close()
	}
	ca := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hotSrv.Certificate().Raw}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: coldSrv.Certificate().Raw})...)
	if err := os.WriteFile(at("ca.pem"), ca, 0o644); err != nil {
		t.Fatal(err)
	}
	var yaml strings.Builder
	for name, v := range planted {
		fmt.Fprintf(&yaml, "%s: %q\n", name, v)
	}
	if err := os.WriteFile(at("etl.yaml"), []byte(yaml.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"ETL_CONFIG": at("etl.yaml"), "ETL_CACHE": at("cache"), "ETL_NOW": "2024-02-10T02:00:00Z", "ETL_CA_FILE": at("ca.pem"), "HOME": root,
		"CLOUDFLARE_ACCOUNT_ID": cloudflaretest.Account, "CLOUDFLARE_API_BASE_URL": hotSrv.URL + "/client/v4", "ETL_SOURCE": "d1://" + cloudflaretest.Database,
		"ETL_STORE": "s3://archive?endpoint=" + coldSrv.URL, "AWS_ACCESS_KEY_ID": "an-access-key-id", "ETL_REPLICA_ACCESS_KEY_ID": "another-access-key-id",
		"ETL_REPLICA": "s3://replica?endpoint=" + coldSrv.URL,
	}
	runs, failed := 0, 0
	do := func(more map[string]string, args ...string) int {
		t.Helper()
		all := make(map[string]string)
		for k, v := range env {
			all[k] = v
		}
		for k, v := range more {
			all[k] = v
		}
		given := planted
		if all["ETL_CONFIG"] != env["ETL_CONFIG"] { // of others it can know nothing
			given = map[string]string{"api-token": planted["api-token"]}
		}
		hot.knows(given)
		cold.knows(given)
		out, errs, code := runETL(t, all, args...)
		runs++
		if code != 0 {
			failed++
		}
		for where, text := range map[string]string{"stdout": out, "stderr": errs} {
			if found := leaks(text, given); len(found) > 0 {
				t.Errorf("etl %s (%s, %s): %s holds %v:\n%.3000s", strings.Join(args, " "), hot.mode, cold.mode, where, found, text)
			}
		}
		return code
	}
	good := func(args ...string) {
		t.Helper()
		if code := do(nil, args...); code != 0 {
			_, errs, _ := runETL(t, env, args...)
			t.Errorf("etl %s: exit %d: %s", strings.Join(args, " "), code, errs)
		}
	}
	good("migrate", "--dry-run")
	good("migrate")
	api.Exec(t, `INSERT INTO points (name) VALUES ('a'), ('b');
		INSERT INTO timeseries (point_id, timestamp, value) SELECT id, unixepoch('2024-01-02')*1000, 1 FROM points;
		INSERT INTO timeseries (point_id, timestamp, value) SELECT id, unixepoch('2024-02-08')*1000, 1 FROM points;
		INSERT INTO timeseries (point_id, timestamp, value) VALUES (1, unixepoch('2024-02-08')*1000+1, 'x');`)
	commands := [][]string{
		{"migrate"}, {"archive"}, {"archive", "--dry-run"}, {"backfill", "--month", "2024-01"}, {"rearchive", "--day", "2024-02-08", "--json"},
		{"verify", "--deep", "--against-source"}, {"verify", "--json"}, {"repair"}, {"repair", "--dry-run", "--json"}, {"replicate", "--to", env["ETL_REPLICA"]},
		{"replicate", "--to", env["ETL_REPLICA"], "--dry-run", "--json"}, {"restore", "--month", "2024-01"}, {"restore", "--last", "3d", "--dry-run", "--json"},
		{"prune", "--yes"}, {"prune", "--dry-run", "--json"}, {"points"}, {"points", "--json"}, {"rejects"}, {"query", "SELECT * FROM samples"},
		{"query", "SELECT count(*) FROM samples", "--format", "json"}, {"query", "--explain", "SELECT * FROM samples"}, {"views"}, {"cache"}, {"config"}, {"config", "--json"}, {"config", "--check"}, {"config", "--check", "--json"}, {"version"},
		{"audit", "--last", "3d", "--max-missing", "100%"}, {"audit", "--last", "3d", "--fast", "--json", "--max-missing", "100%"}, {"cost"}, {"cost", "--json"}, {"status", "--limit-freshness", "off"}, {"status", "--limit-freshness", "off", "--json"}, {"schedule", "--dry-run"}, {"schedule", "--once", "--attempts", "1", "--max-missing", "100%"},
	}
	known := map[string]bool{"demo": true, "shell": true, "help": true, "completion": true} // demo has no secrets; the shell has a test of its own below
	for _, c := range commands {
		known[c[0]] = true
	}
	for _, c := range (&app{}).root().Commands() {
		if !known[c.Name()] {
			t.Errorf("no run of `etl %s` is looked at: add it to the list", c.Name())
		}
	}
	for _, c := range commands {
		good(c...)
	}
	// With keys made from the token, whose hash is the secret.
	r2 := map[string]string{"ETL_CONFIG": at("empty.yaml"), "CLOUDFLARE_API_TOKEN": planted["api-token"], "ETL_STORE": "r2://archive?endpoint=" + coldSrv.URL, "AWS_ACCESS_KEY_ID": "", "ETL_REPLICA": "", "ETL_REPLICA_ACCESS_KEY_ID": ""}
	if err := os.WriteFile(at("empty.yaml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"verify"}, {"config", "--check"}, {"points"}} {
		if code := do(r2, c...); code != 0 {
			t.Errorf("etl %v with r2: exit %d", c, code)
		}
	}
	for _, mode := range []string{"credentials", "forbidden", "invalid", "redirect", "text", "missing", "success"} {
		for _, side := range []*echo{hot, cold} {
			if mode == "success" && side == cold {
				continue // XML of success is a lie that only TestLies tells
			}
			for _, c := range commands {
				if mode == "forbidden" && side == hot && c[0] != "archive" && c[0] != "query" {
					continue // D1 says so in passing, so that each is tried three times, with pauses
				}
				side.set(mode, -1)
				code := do(nil, c...)
				if side.count() > 0 && code == 0 && !(c[0] == "verify" && side == hot) { // which asks D1 for its log alone, and warns
					t.Errorf("etl %v: %d answers of %s are no failure", c, side.count(), mode)
				}
				if side == cold && (c[0] == "verify" || c[0] == "config" && len(c) == 2 && c[1] == "--check") {
					do(r2, c...)
				}
				side.set("", 0)
			}
		}
	}
	// What passes: the third failure is told.
	for _, mode := range []string{"busy", "html"} {
		for _, side := range []*echo{hot, cold} {
			side.set(mode, 3)
			good("points")
			if side.count() != 3 {
				t.Errorf("%d answers were spoilt", side.count())
			}
			side.set("", 0)
		}
	}
	// Nobody vouches for the server; nobody is there; the secret is in the wrong place.
	nobody := "https://127.0.0.1:1"
	for _, more := range []map[string]string{
		{"ETL_CA_FILE": ""},
		{"ETL_CA_FILE": "", "ETL_SOURCE": "sqlite:" + at("d1.sqlite")},
		{"ETL_SOURCE": "d1://" + planted["api-token"]},
		{"ETL_STORE": "s3://archive?endpoint=https://user:" + url.QueryEscape(planted["secret-access-key"]) + "@127.0.0.1"},
		{"ETL_STORE": "s3://archive?endpoint=" + url.QueryEscape(nobody) + "&secret-access-key=" + planted["secret-access-key"]},
		{"ETL_STORE": "s3://" + planted["secret-access-key"]},
		{"ETL_STORE": "file:" + at("none") + planted["api-token"]},
		{"CLOUDFLARE_API_BASE_URL": "https://" + url.QueryEscape(planted["api-token"]) + "@127.0.0.1:1"},
		{"CLOUDFLARE_API_BASE_URL": "https://127.0.0.1:1/?token=" + planted["api-token"]},
		{"CLOUDFLARE_API_TOKEN": planted["api-token"] + "\n"},
		{"CLOUDFLARE_ACCOUNT_ID": planted["api-token"]},
		{"ETL_REPLICA": "s3://replica?endpoint=https://" + url.QueryEscape(planted["replica-secret-access-key"]) + "@127.0.0.1"},
		{"ETL_MEMORY": planted["api-token"]},
		{"ETL_NOW": planted["session-token"]},
		{"ETL_WRANGLER": at(planted["api-token"]), "CLOUDFLARE_ENV": planted["api-token"]},
	} {
		for _, c := range [][]string{{"archive"}, {"config"}, {"config", "--json"}, {"config", "--check"}, {"repair"}, {"query", "SELECT 1 FROM samples"}} {
			do(more, c...)
		}
	}
	do(nil, "archive", "--api-token", planted["api-token"])
	do(nil, "archive", planted["api-token"])
	do(nil, "--api-token="+planted["api-token"])

	if data, err := os.ReadFile(at("etl.yaml")); err != nil || string(data) != yaml.String() {
		t.Errorf("etl.yaml was changed: %v", err)
	}
	files := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == at("etl.yaml") {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		if d.Type()&fs.ModeSymlink != 0 {
			var to string
			to, err = os.Readlink(path)
			data = []byte(to)
		}
		if err != nil {
			return err
		}
		if !strings.HasPrefix(path, at("none")) { // that is named by a secret, as it was told to be
			data = append(data, path...)
		}
		if found := leaks(string(data), planted); len(found) > 0 {
			t.Errorf("%s holds %v", path, found)
		}
		return nil
	})
	if err != nil || files < 5 {
		t.Errorf("%d files, %v", files, err)
	}
	objects := 0
	for _, bucket := range []string{"archive", "replica"} {
		list, err := backend.ListBucket(bucket, &gofakes3.Prefix{}, gofakes3.ListBucketPage{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list.Contents {
			o, err := backend.GetObject(bucket, c.Key, nil)
			if err != nil {
				t.Fatal(err)
			}
			data, _ := io.ReadAll(o.Contents)
			objects++
			maps.DeleteFunc(o.Metadata, func(name, _ string) bool { // headers of the request that the fake keeps
				return strings.HasPrefix(name, "X-Amz-") && !strings.HasPrefix(name, "X-Amz-Meta-")
			})
			if found := leaks(c.Key+string(data)+fmt.Sprint(o.Metadata), planted); len(found) > 0 {
				t.Errorf("object %s holds %v", c.Key, found)
			}
		}
	}
	if objects < 4 || failed < runs/3 {
		t.Errorf("%d objects, %d of %d runs failed", objects, failed, runs)
	}
	t.Logf("reliability: planted secrets: %d runs, %d of them failures, %d files, %d objects", runs, failed, files, objects)
}

// The test finds what it looks for.
func TestLeaksAreFound(t *testing.T) {
	planted := map[string]string{"api-token": plantedOf("api-token")}
	v := planted["api-token"]
	sum := sha256.Sum256([]byte(v))
	for _, text := range []string{v, "x" + v[:25], strings.ToUpper(v), url.QueryEscape("a=" + v), fmt.Sprintf("%X", sum), base64.StdEncoding.EncodeToString([]byte(v)), base64.StdEncoding.EncodeToString([]byte("Bearer " + v))} {
		if len(leaks("error: "+text+", hm", planted)) == 0 {
			t.Errorf("nothing is found in %q", text)
		}
	}
	if found := leaks("error: (secret)", planted); len(found) > 0 {
		t.Error(found)
	}
}
