//go:build integration

package testserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// call sends one request to the API and returns its status and what stands in
// result, or in errors.
func call(t *testing.T, c *Cloudflare, token, method, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, c.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := Client(t, c.CAFile).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		Result, Errors json.RawMessage
		Success        bool
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if answer.Success != (res.StatusCode == 200) {
		t.Errorf("success is %v with status %s", answer.Success, res.Status)
	}
	if answer.Success {
		return res.StatusCode, string(answer.Result)
	}
	return res.StatusCode, string(answer.Errors)
}

// raw runs one statement, or several as a batch, and returns the rows of each.
func raw(t *testing.T, c *Cloudflare, sql ...string) (status int, rows []string, errs string) {
	t.Helper()
	var batch []map[string]string
	for _, s := range sql {
		batch = append(batch, map[string]string{"sql": s})
	}
	var body any = map[string]any{"batch": batch}
	if len(sql) == 1 {
		body = batch[0]
	}
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	status, answer := call(t, c, c.Token, "POST", "/accounts/"+c.Account+"/d1/database/"+c.DatabaseID+"/raw", string(b))
	if status != 200 {
		return status, nil, answer
	}
	var results []struct {
		Results struct{ Rows json.RawMessage }
	}
	if err := json.Unmarshal([]byte(answer), &results); err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		rows = append(rows, string(r.Results.Rows))
	}
	return status, rows, ""
}

func protocols(t *testing.T, f func(t *testing.T, o Options)) {
	for _, o := range []Options{{}, {TLS: true}} {
		t.Run(map[bool]string{false: "http", true: "https"}[o.TLS], func(t *testing.T) { f(t, o) })
	}
}

// What workerd does with values, limits and batches is what the sources and the
// in-process server of other tests rely on.
func TestIntegrationD1(t *testing.T) {
	protocols(t, func(t *testing.T, o Options) {
		c := Miniflare(t, o)
		if _, _, errs := raw(t, c, "CREATE TABLE t (a, b REAL)"); errs != "" {
			t.Fatal(errs)
		}
		for _, tc := range []struct{ name, sql, want string }{
			{"infinities", "SELECT 9e999, -9e999", "[[null,null]]"},
			{"reals", "SELECT 5.0, 0.1, 5e-324, 1.7976931348623157e308", "[[5,0.1,5e-324,1.7976931348623157e+308]]"},
			{"2^53 and beyond", "SELECT 9007199254740992, 9007199254740993, -9007199254740993", "[[9007199254740992,9007199254740992,-9007199254740992]]"},
			{"as text", "SELECT CAST(9007199254740993 AS TEXT), CAST(9e999 AS TEXT)", `[["9007199254740993","Inf"]]`},
			{"blob", "SELECT x'00ff'", "[[[0,255]]]"},
			{"bad UTF-8", "SELECT CAST(x'61ff' AS TEXT)", "[[\"a\uFFFD\"]]"},
			{"columns of one name", "SELECT 1 AS a, 2 AS a", "[[1,2]]"},
			{"json_array", "SELECT json_array(9007199254740993, 9e999)", `[["[9007199254740993,9.0e+999]"]]`},
		} {
			if _, rows, errs := raw(t, c, tc.sql); len(rows) != 1 || rows[0] != tc.want {
				t.Errorf("%s: %v %s, want %s", tc.name, rows, errs, tc.want)
			}
		}

		status, _, errs := raw(t, c, "INSERT INTO t VALUES (1, 1)", "INSERT INTO missing VALUES (1)")
		if status != 400 || !strings.Contains(errs, "7500") || !strings.Contains(errs, "no such table: missing") {
			t.Errorf("a bad batch: %d %s", status, errs)
		}
		if _, rows, _ := raw(t, c, "SELECT count(*) FROM t"); rows[0] != "[[0]]" {
			t.Errorf("a batch that failed left %s rows", rows[0])
		}
		if _, rows, errs := raw(t, c, "INSERT INTO t VALUES (1, 1), (2, 2)", "SELECT a FROM t"); len(rows) != 2 || rows[1] != "[[1],[2]]" {
			t.Errorf("a batch: %v %s", rows, errs)
		}

		database := "/accounts/" + c.Account + "/d1/database/" + c.DatabaseID
		list := func(s string, n int) string { return strings.TrimSuffix(strings.Repeat(s+",", n), ",") }
		params := func(n int) string {
			return fmt.Sprintf(`{"sql":"SELECT 1 IN (%s)","params":[%s]}`, list("?", n), list("1", n))
		}
		if status, got := call(t, c, c.Token, "POST", database+"/query", params(100)); status != 200 {
			t.Errorf("100 parameters: %d %s", status, got)
		}
		if status, got := call(t, c, c.Token, "POST", database+"/query", params(101)); status != 400 {
			t.Errorf("101 parameters: %d %s", status, got)
		}
		statement := func(n int) string { return "SELECT 1 --" + strings.Repeat("x", n-11) }
		if status, _, errs := raw(t, c, statement(100_000)); status != 200 {
			t.Errorf("100,000 bytes of SQL: %d %s", status, errs)
		}
		if status, _, errs := raw(t, c, statement(100_001)); status != 400 {
			t.Errorf("100,001 bytes of SQL: %d %s", status, errs)
		}
		status, got := call(t, c, c.Token, "POST", database+"/query", `{"sql":"SELECT typeof(?) AS n, typeof(?) AS s, a FROM t WHERE a = 2","params":[1,"1"]}`)
		if status != 200 || !strings.Contains(got, `"results":[{"n":"real","s":"text","a":2}]`) || !strings.Contains(got, `"rows_read":2`) {
			t.Errorf("query: %d %s", status, got)
		}
	})
}

// The file is the database: what is written on one side is seen on the other.
func TestIntegrationSQLiteFile(t *testing.T) {
	c := Miniflare(t, Options{})
	if _, _, errs := raw(t, c, "CREATE TABLE t (n)"); errs != "" {
		t.Fatal(errs)
	}
	conn, err := sqlite.OpenConn(c.SQLitePath, sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetBusyTimeout(10 * time.Second)
	var n int64
	for i := range 10 {
		if err := sqlitex.ExecuteTransient(conn, "INSERT INTO t VALUES (1)", nil); err != nil {
			t.Fatal(err)
		}
		if _, rows, errs := raw(t, c, "SELECT count(*) FROM t", "INSERT INTO t VALUES (2)"); errs != "" || rows[0] != fmt.Sprintf("[[%d]]", 2*i+1) {
			t.Fatalf("round %d: %v %s", i, rows, errs)
		}
		n, err = sqlitex.ResultInt64(conn.Prep("SELECT count(*) FROM t"))
		if err != nil || n != int64(2*i+2) {
			t.Fatalf("round %d: %d rows in the file, %v", i, n, err)
		}
	}
	// Another test has another database.
	if _, _, errs := raw(t, Miniflare(t, Options{}), "SELECT * FROM t"); !strings.Contains(errs, "no such table") {
		t.Errorf("another database: %s", errs)
	}
}

func TestIntegrationAPI(t *testing.T) {
	c := Miniflare(t, Options{})
	account := "/accounts/" + c.Account
	database := account + "/d1/database/" + c.DatabaseID
	for _, tc := range []struct {
		token, method, path, body string
		status                    int
		want                      string
	}{
		{c.Token, "GET", "/user/tokens/verify", "", 200, c.R2.AccessKey},
		{c.Token, "GET", account + "/tokens/verify", "", 200, `"active"`},
		{"wrong", "GET", "/user/tokens/verify", "", 401, "10000"},
		{"wrong", "POST", database + "/raw", `{"sql":"SELECT 1"}`, 401, "10000"},
		{c.Token, "GET", database, "", 200, c.DatabaseID},
		{c.Token, "GET", database + "/time_travel/bookmark", "", 200, `"bookmark"`},
		{c.Token, "POST", "/accounts/other/d1/database/" + c.DatabaseID + "/raw", `{"sql":"SELECT 1"}`, 403, "7403"},
		{c.Token, "POST", account + "/d1/database/other/raw", `{"sql":"SELECT 1"}`, 404, "7404"},
		{c.Token, "POST", database + "/raw", `{"sql"`, 400, "7400"},
		{c.Token, "POST", database + "/raw", `{}`, 400, "7400"},
		{c.ReadToken, "POST", database + "/raw", `{"sql":"SELECT 1"}`, 200, "[[1]]"},
		{c.ReadToken, "POST", database + "/raw", `{"sql":"CREATE TABLE t (a)"}`, 403, "7403"},
	} {
		if status, got := call(t, c, tc.token, tc.method, tc.path, tc.body); status != tc.status || !strings.Contains(got, tc.want) {
			t.Errorf("%s %s %s: %d %s, want %d and %s", tc.method, tc.path, tc.body, status, got, tc.status, tc.want)
		}
	}

	_, got := call(t, c, c.Token, "POST", account+"/d1/database", `{"name":"made"}`)
	var made struct{ UUID, Name string }
	if err := json.Unmarshal([]byte(got), &made); err != nil || made.Name != "made" || made.UUID == c.DatabaseID {
		t.Fatalf("made %s, %v", got, err)
	}
	if status, got := call(t, c, c.Token, "POST", account+"/d1/database/"+made.UUID+"/raw", `{"sql":"CREATE TABLE t (a)"}`); status != 200 {
		t.Errorf("a new database: %d %s", status, got)
	}
	for _, want := range []bool{true, false} {
		if _, got := call(t, c, c.Token, "GET", account+"/d1/database", ""); strings.Contains(got, made.UUID) != want {
			t.Errorf("databases %s; the new one should be there: %v", got, want)
		}
		if status, got := call(t, c, c.Token, "DELETE", account+"/d1/database/"+made.UUID, ""); status != 200 {
			t.Errorf("delete: %d %s", status, got)
		}
	}
}

func TestIntegrationS3(t *testing.T) {
	for name, bucket := range map[string]func(testing.TB, Options) *S3{
		"r2":        func(t testing.TB, o Options) *S3 { return &Miniflare(t, o).R2 },
		"versitygw": Versitygw,
	} {
		t.Run(name, func(t *testing.T) {
			protocols(t, func(t *testing.T, o Options) {
				first, b := bucket(t, o), bucket(t, o)
				connect := func(secret string) *s3.Client {
					return s3.New(s3.Options{
						BaseEndpoint: &b.URL, Region: b.Region, UsePathStyle: true,
						Credentials: credentials.NewStaticCredentialsProvider(b.AccessKey, secret, ""),
						HTTPClient:  Client(t, b.CAFile), Retryer: aws.NopRetryer{},
						RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
						ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
					})
				}
				client := connect(b.Secret)
				get := func(bucket string) (string, error) {
					o, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("a/b")})
					if err != nil {
						return "", err
					}
					defer o.Body.Close()
					data, err := io.ReadAll(o.Body)
					return string(data), err
				}
				put := func(data string, match, none *string) (string, error) {
					o, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b.Bucket, Key: aws.String("a/b"),
						Body: bytes.NewReader([]byte(data)), IfMatch: match, IfNoneMatch: none})
					if err != nil {
						return "", err
					}
					return *o.ETag, nil
				}
				wantStatus := func(what string, err error, want ...int) {
					t.Helper()
					var re *smithyhttp.ResponseError
					got := 200
					if errors.As(err, &re) {
						got = re.HTTPStatusCode()
					} else if err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					for _, w := range want {
						if got == w {
							return
						}
					}
					t.Errorf("%s: status %d, want %v; %v", what, got, want, err)
				}

				_, err := get(b.Bucket)
				wantStatus("get from an empty bucket", err, 404)
				_, err = put("x", aws.String(`"00000000000000000000000000000000"`), nil)
				wantStatus("If-Match without an object", err, 404, 412)
				etag, err := put("one", nil, aws.String("*"))
				wantStatus("If-None-Match without an object", err, 200)
				_, err = put("two", nil, aws.String("*"))
				wantStatus("If-None-Match on an object", err, 412)
				etag2, err := put("three", &etag, nil)
				wantStatus("If-Match", err, 200)
				_, err = put("four", &etag, nil)
				wantStatus("If-Match of an old version", err, 412)
				if data, err := get(b.Bucket); data != "three" || err != nil || etag2 == etag {
					t.Errorf("got %q, %v", data, err)
				}
				_, err = get(first.Bucket)
				wantStatus("get from another test's bucket", err, 404)

				client = connect("another secret")
				_, err = get(b.Bucket)
				wantStatus("a wrong secret", err, 403)
			})
		})
	}
}

// TestIntegrationWorker runs a Worker of three lines.
func TestIntegrationWorker(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "w.mjs"), []byte(`export default { async fetch(request, env) {
		await env.COLD.put("k", "from the worker");
		return Response.json([(await env.HOT.prepare("SELECT 7 AS n").first()).n, env.WORD, await (await env.COLD.get("k")).text()]);
	} }`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := MiniflareWorker(t, Options{}, Worker{Dir: dir, Main: "w.mjs", D1: "HOT", R2: "COLD", Vars: map[string]string{"WORD": "w"}})
	res, err := http.Get(c.WorkerURL + "/any")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != `[7,"w","from the worker"]` {
		t.Errorf("the worker says %q, %v", b, err)
	}
}

// A server ends, and removes its files, when the process that started it is
// killed. The test runs itself as that process.
func TestIntegrationServersEnd(t *testing.T) {
	if os.Getenv("ETL_TESTSERVER_CHILD") == "1" {
		c, s := Miniflare(t, Options{}), Versitygw(t, Options{})
		fmt.Printf("started %s %s %s\n", c.URL, c.SQLitePath, s.URL)
		select {}
	}
	Miniflare(t, Options{}) // skips if they are missing
	Versitygw(t, Options{})
	child := exec.Command(os.Args[0], "-test.run", "^TestIntegrationServersEnd$")
	child.Env = append(os.Environ(), "ETL_TESTSERVER_CHILD=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var api, file, gateway string
	_, err = fmt.Fscanf(out, "started %s %s %s\n", &api, &file, &gateway)
	child.Process.Kill()
	child.Wait()
	if err != nil {
		t.Fatal(err)
	}
	gone := func() error {
		for _, url := range []string{api, gateway} {
			addr := strings.SplitN(strings.TrimPrefix(url, "http://"), "/", 2)[0]
			if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
				c.Close()
				return fmt.Errorf("%s still answers", addr)
			}
		}
		if _, err := os.Stat(file); err == nil {
			return fmt.Errorf("%s is still there", file)
		}
		return nil
	}
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := gone()
		if err == nil {
			return
		}
		if time.Since(start) > startTime {
			t.Fatal(err)
		}
	}
}

// More tests than databases get another server, and databases at once are not the same.
func TestIntegrationManyDatabases(t *testing.T) {
	seen := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range supply/8 + 1 {
				c := Miniflare(t, Options{})
				mu.Lock()
				seen[c.SQLitePath] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if want := 4 * (supply/8 + 1); len(seen) != want {
		t.Errorf("%d databases, want %d", len(seen), want)
	}
}
