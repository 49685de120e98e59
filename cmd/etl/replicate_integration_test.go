//go:build integration

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"etl/internal/testserver"
)

// TestIntegrationReplicate copies a cold tier from a folder to a real S3 service,
// from there to R2, and from there into a folder again, each with keys of its
// own; each copy is whole, and a second replication writes nothing. Then the
// first tier is damaged, and mended from S3.
func TestIntegrationReplicate(t *testing.T) {
	const points, from, to = 40, "2024-01-12", "2024-02-10"
	gw := testserver.Versitygw(t, testserver.Options{})
	r2 := testserver.Miniflare(t, testserver.Options{}).R2
	p := newPlace(t, 1, "2024-02-10T02:00:00Z")
	p.points(points)
	p.fill(from, to, 15*time.Minute)
	p.ok("archive", "--quiet")

	urls := map[string]string{
		"s3": "s3://" + gw.Bucket + "/copies/one?endpoint=" + gw.URL + "&region=" + gw.Region,
		"r2": "r2://" + r2.Bucket + "/two?endpoint=" + r2.URL,
	}
	keys := map[string][2]string{"s3": {gw.AccessKey, gw.Secret}, "r2": {r2.AccessKey, r2.Secret}}
	// as has the program work with the keys of a store, and of its copy.
	as := func(store, copy string) {
		p.env = nil
		if k, ok := keys[store]; ok {
			p.env = append(p.env, "AWS_ACCESS_KEY_ID="+k[0], "AWS_SECRET_ACCESS_KEY="+k[1])
		}
		if k, ok := keys[copy]; ok {
			p.env = append(p.env, "ETL_REPLICA_ACCESS_KEY_ID="+k[0], "ETL_REPLICA_SECRET_ACCESS_KEY="+k[1])
		}
	}
	url := func(name string) string {
		if u := urls[name]; u != "" {
			return u
		}
		return "file:" + name
	}
	report := func(r finished) (v struct {
		Copied    int64 `json:"files_copied"`
		Same      int64 `json:"files_same"`
		Manifests int64 `json:"manifests_written"`
		Written   int64 `json:"files_written"`
		Lost      []any `json:"lost"`
	}) {
		t.Helper()
		if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
			t.Fatalf("%v in %s", err, r)
		}
		return v
	}
	const files = 2 * points // two months
	for _, way := range [][2]string{{"r2", "s3"}, {"s3", "r2"}, {"r2", "back"}} {
		src, dst := way[0], way[1]
		if src == "r2" && dst == "s3" {
			src = "r2" // the folder that the place archives into is called so, too
			as("", dst)
			if v := report(p.ok("replicate", "--store", "file:r2", "--to", url(dst), "--json", "--quiet")); v.Copied != files || v.Manifests != 2 {
				t.Fatalf("file to %s: %+v", dst, v)
			}
			if v := report(p.ok("replicate", "--store", "file:r2", "--to", url(dst), "--json", "--quiet")); v.Copied != 0 || v.Manifests != 0 || v.Same != files {
				t.Errorf("file to %s again: %+v", dst, v)
			}
		} else {
			as(src, dst)
			if v := report(p.ok("replicate", "--store", url(src), "--to", url(dst), "--json", "--quiet")); v.Copied != files || v.Manifests != 2 {
				t.Fatalf("%s to %s: %+v", src, dst, v)
			}
			if v := report(p.ok("replicate", "--store", url(src), "--to", url(dst), "--json", "--quiet")); v.Copied != 0 || v.Manifests != 0 || v.Same != files {
				t.Errorf("%s to %s again: %+v", src, dst, v)
			}
		}
		as(dst, "")
		p.ok("verify", "--deep", "--store", url(dst), "--quiet")
	}
	// The metadata of the source document came along, through two services.
	s := openBucket(t, r2, "two")
	for a, err := range s.List(t.Context(), "timeseries/2024/01/") {
		p.must(err)
		_, attrs, err := s.Get(t.Context(), a.Key)
		p.must(err)
		low := make(map[string]string)
		for k, v := range attrs.Meta {
			low[strings.ToLower(k)] = v
		}
		if low["pointid"] == "" || !strings.HasPrefix(low["pointname"], "Building1/") || low["samplecount"] != "1920" {
			t.Errorf("%s: metadata %v", a.Key, attrs.Meta)
		}
		break
	}

	// Damage, mended from S3 without asking D1; what D1 changed since is its own.
	want := p.hot()
	month := filepath.Join(p.dir, "r2", "timeseries", "2024", "01")
	names, err := os.ReadDir(month)
	p.must(err)
	for i, n := range names[:10] {
		switch path := filepath.Join(month, n.Name()); i % 2 {
		case 0:
			p.must(os.Remove(path))
		default:
			p.must(os.Truncate(path, 200))
		}
	}
	as("", "s3")
	if v := report(p.ok("repair", "--replica", url("s3"), "--without-source", "--json", "--quiet")); v.Written != 10 || len(v.Lost) != 0 {
		t.Errorf("repair: %+v", v)
	}
	p.ok("verify", "--deep", "--quiet")
	same(t, coldOf(p), want)
}

func coldOf(p *place) map[key]row {
	rows, _ := p.cold()
	return rows
}
