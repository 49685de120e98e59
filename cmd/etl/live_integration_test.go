//go:build integration

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"etl/internal/cloudflare"
	"etl/internal/config"
	"etl/internal/fault"
	"etl/internal/object/s3"
	"etl/internal/sample"
	"etl/internal/testserver"
	"etl/internal/utc"
)

// account is a Cloudflare account that a smoke test may work in.
type account struct {
	API, ID, Token string
	Store          string // r2://BUCKET, without a prefix
	CAFile         string
}

// TestLive is the smoke test against the account that the environment names; see
// docs/operations.md. `make live` runs it.
func TestLive(t *testing.T) {
	store := os.Getenv("ETL_LIVE_STORE")
	if store == "" {
		t.Skip("no account is named: set ETL_LIVE_STORE=r2://BUCKET, CLOUDFLARE_ACCOUNT_ID and CLOUDFLARE_API_TOKEN; docs/operations.md says what is done there")
	}
	a := account{API: cloudflare.DefaultURL, ID: os.Getenv("CLOUDFLARE_ACCOUNT_ID"), Token: os.Getenv("CLOUDFLARE_API_TOKEN"), Store: store}
	if a.ID == "" || a.Token == "" {
		t.Fatal("ETL_LIVE_STORE is set, CLOUDFLARE_ACCOUNT_ID or CLOUDFLARE_API_TOKEN is not")
	}
	smoke(t, a)
}

// TestIntegrationLive is TestLive in Cloudflare's local runtime, so that a test
// that seldom runs does not rot.
func TestIntegrationLive(t *testing.T) {
	cf := testserver.Miniflare(t, testserver.Options{TLS: true})
	smoke(t, account{API: cf.URL, ID: cf.Account, Token: cf.Token, Store: "r2://" + cf.R2.Bucket + "?endpoint=" + cf.R2.URL, CAFile: cf.CAFile})
}

// api sends a request to Cloudflare's API and decodes the result.
func (a account) api(t *testing.T, ctx context.Context, method, path string, body, result any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, a.API+"/accounts/"+a.ID+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+a.Token)
	r.Header.Set("Content-Type", "application/json")
	res, err := testserver.Client(t, a.CAFile).Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var answer struct {
		Result  json.RawMessage
		Errors  []cloudflare.Message
		Success bool
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s %s: %s: %w", method, path, res.Status, err)
	}
	if !answer.Success {
		return fmt.Errorf("%s %s: %s: %+v", method, path, res.Status, answer.Errors)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}

// database makes a D1 database that is deleted when the test ends.
func (a account) database(t *testing.T, name string) (id string) {
	t.Helper()
	var made struct{ UUID, Name string }
	if err := a.api(t, t.Context(), "POST", "/d1/database", map[string]string{"name": name}, &made); err != nil {
		t.Fatalf("make the database %s: %v", name, err)
	}
	if made.UUID == "" || made.Name != name {
		t.Fatalf("make the database %s: the answer names %+v", name, made)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's has ended
		defer cancel()
		if err := a.api(t, ctx, "DELETE", "/d1/database/"+made.UUID, nil, nil); err != nil {
			t.Errorf("the database %s (%s) stays: %v", name, made.UUID, err)
			return
		}
		var left []struct{ UUID string }
		if err := a.api(t, ctx, "GET", "/d1/database?name="+name, nil, &left); err != nil {
			t.Errorf("look for the database %s after it was deleted: %v", name, err)
		}
		for _, d := range left {
			if d.UUID == made.UUID {
				t.Errorf("the database %s (%s) was deleted and is still listed", name, made.UUID)
			}
		}
	})
	return made.UUID
}

// prefix claims an unused prefix of the bucket, whose objects are deleted when
// the test ends.
func (a account) prefix(t *testing.T, b testserver.S3, prefix string) {
	t.Helper()
	store := openBucket(t, b, prefix)
	for o, err := range store.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		t.Fatalf("%s/%s is there already: nothing was done", prefix, o.Key)
	}
	client := awss3.New(awss3.Options{
		Region: b.Region, BaseEndpoint: aws.String(b.URL), UsePathStyle: true, HTTPClient: testserver.Client(t, b.CAFile),
		Credentials: credentials.NewStaticCredentialsProvider(b.AccessKey, b.Secret, ""),
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		n := 0
		for o, err := range store.List(ctx, "") {
			if err == nil {
				_, err = client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &b.Bucket, Key: aws.String(prefix + "/" + string(o.Key))})
			}
			if err != nil {
				t.Errorf("objects below %s stay: %v", prefix, err)
				return
			}
			n++
		}
		for o, err := range store.List(ctx, "") {
			t.Errorf("after %d objects were deleted there is %s/%s, %v", n, prefix, o.Key, err)
			break
		}
		t.Logf("%d objects were deleted", n)
	})
}

// smoke archives a few thousand rows in an account, in a database and below a
// prefix that it makes for itself and takes away again.
func smoke(t *testing.T, a account) {
	u, err := config.ParseStore(a.Store)
	if err != nil {
		t.Fatal(err)
	}
	if u.Kind != "r2" || u.Prefix != "" {
		t.Fatalf("the store %s: want r2://BUCKET, without a prefix", a.Store)
	}
	name := "etl-live-" + time.Now().UTC().Format("20060102-150405") + "-" + strings.ToLower(rand.Text()[:6])
	t.Logf("the database and the prefix are called %s", name)

	hc := testserver.Client(t, a.CAFile)
	c, err := cloudflare.New(a.ID, a.Token, cloudflare.Options{URL: a.API, HTTP: hc})
	if err != nil {
		t.Fatal(err)
	}
	tokenID, err := c.VerifyToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := testserver.S3{URL: u.Endpoint, Region: "auto", Bucket: u.Bucket, AccessKey: tokenID, Secret: cloudflare.TokenSecret(a.Token), CAFile: a.CAFile}
	if b.URL == "" {
		if b.URL, err = s3.R2Endpoint(a.ID, u.Jurisdiction); err != nil {
			t.Fatal(err)
		}
	}
	a.prefix(t, b, name)
	id := a.database(t, name)
	db := c.Database(id)

	p := &place{t: t, dir: t.TempDir(), bucket: openBucket(t, b, name)}
	before, query, _ := strings.Cut(a.Store, "?")
	p.env = []string{
		"CLOUDFLARE_ACCOUNT_ID=" + a.ID, "CLOUDFLARE_API_TOKEN=" + a.Token, "CLOUDFLARE_API_BASE_URL=" + a.API, "ETL_CA_FILE=" + a.CAFile,
		"ETL_SOURCE=d1://" + id, "ETL_STORE=" + strings.TrimSuffix(before+"/"+name+"?"+query, "?"),
		// The keys have to be made from the token.
		"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_SESSION_TOKEN=", "ETL_LIVE_STORE=",
	}

	if r := p.etl("config", "--check"); r.code != fault.ExitError || !strings.Contains(r.stdout, "migrations are pending") {
		t.Fatal(r)
	}
	if r := p.ok("migrate"); !strings.Contains(r.stderr, "time-travel restore") {
		t.Error(r)
	}
	if r := p.ok("config", "--check"); !strings.Contains(r.stdout, "Nothing is missing.") {
		t.Error(r)
	}

	// Three days of points that report every five minutes, and what JSON has no
	// word for. Numbers of few digits are the same double to everyone.
	const points, every = 12, 5 * 60_000
	now := time.Now().Add(-time.Hour)
	to := utc.DayOf(now.UnixMilli()) // the first day that is not complete
	from := to - 3
	special := []string{"NULL", "9e999", "-9e999", "5e-324", "9007199254740992", "-0.5", "1e21"}
	special2 := []float64{sample.Null, math.Inf(1), math.Inf(-1), 5e-324, 1 << 53, -0.5, 1e21}
	want := make(map[key]row)
	insert := func(sql []string) {
		for batch := range slices.Chunk(sql, 1000) {
			runOverREST(t, db, cloudflare.Idempotent, cloudflare.Statement{
				SQL: "INSERT INTO timeseries (point_id, timestamp, value, quality, flags) VALUES " + strings.Join(batch, ",") +
					" ON CONFLICT DO UPDATE SET value = excluded.value, quality = excluded.quality, flags = excluded.flags",
			})
		}
	}
	var names, rows []string
	for i := range int32(points) {
		names = append(names, fmt.Sprintf("(%d, 'Live/AHU %d/Tempé')", i+1, i+1))
		k := 0
		for ts := from.Start(); ts < to.Start(); ts += every {
			v := float64(k%997)/10 + float64(i)
			text := strconv.FormatFloat(v, 'g', -1, 64)
			if k%41 == 0 {
				text, v = special[k/41%len(special)], special2[k/41%len(special)]
			}
			q, f := uint8(192), uint16(k%3)
			rows = append(rows, fmt.Sprintf("(%d,%d,%s,%d,%d)", i+1, ts, text, q, f))
			want[key{i + 1, ts}] = row{bitsOf(v), q, f}
			k++
		}
	}
	runOverREST(t, db, cloudflare.Idempotent, cloudflare.Statement{SQL: "INSERT INTO points (id, name) VALUES " + strings.Join(names, ",") + " ON CONFLICT DO NOTHING"})
	insert(rows)
	// A row that can not be archived.
	bad := from.Start() + 1
	insert([]string{fmt.Sprintf("(1,%d,'broken',192,0)", bad)})

	archived := func(what string) {
		t.Helper()
		got, _ := p.cold()
		t.Logf("%s: %d rows are archived", what, len(got))
		same(t, got, want)
	}
	r := p.ok("archive", "--json").report(t)
	if r.SamplesAdded != int64(len(want)) || r.SamplesRejected != 1 || r.FilesWritten < points {
		t.Errorf("archive: %+v, want %d rows in %d files and one reject", r, len(want), points)
	}
	t.Logf("archive: billed %+v", r.Billed)
	archived("archive")
	if r := p.ok("rejects"); !strings.Contains(r.stdout, "broken") {
		t.Error(r)
	}

	// The row is mended, one comes late, one is corrected: their days alone are read again.
	insert([]string{fmt.Sprintf("(1,%d,7.5,192,0)", bad), fmt.Sprintf("(2,%d,8.5,192,1)", from.Start()+every+1), fmt.Sprintf("(3,%d,9.5,64,0)", from.End())})
	want[key{1, bad}], want[key{2, from.Start() + every + 1}], want[key{3, from.End()}] = row{bitsOf(7.5), 192, 0}, row{bitsOf(8.5), 192, 1}, row{bitsOf(9.5), 64, 0}
	r = p.ok("archive", "--json").report(t)
	if r.PointDays != 3 || r.SamplesAdded != 2 || r.SamplesReplaced != 1 {
		t.Errorf("late rows: %+v, want 3 point-days, 2 rows added and 1 corrected", r)
	}
	archived("late rows")
	if r := p.ok("archive", "--json").report(t); r.PointDays != 0 || r.FilesWritten != 0 {
		t.Errorf("another archive read %d point-days and wrote %d files", r.PointDays, r.FilesWritten)
	}

	// Two runners side by side change the same files and manifests.
	insert([]string{fmt.Sprintf("(4,%d,1.5,192,0)", from.Start()+2)})
	want[key{4, from.Start() + 2}] = row{bitsOf(1.5), 192, 0}
	var both [2]finished
	var wg sync.WaitGroup
	for i, codec := range []string{"zstd", "snappy"} {
		wg.Go(func() { both[i] = p.etl("rearchive", "--last", "3d", "--codec", codec, "--quiet") })
	}
	wg.Wait()
	for _, r := range both {
		if r.code != fault.ExitOK && r.code != fault.ExitTransient {
			t.Error(r)
		}
	}
	p.ok("archive", "--quiet")
	archived("two runners")
	if r := p.ok("verify", "--deep"); !strings.Contains(r.stdout, "whole: no findings") {
		t.Error(r)
	}
	if r := p.ok("points"); !strings.Contains(r.stdout, "Live/AHU 1/Tempé") {
		t.Error(r)
	}
}
