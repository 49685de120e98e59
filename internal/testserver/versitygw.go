package testserver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

type gateway struct {
	*process
	S3
	used int
}

var (
	gatewayMu sync.Mutex
	gateways  = map[Options]*gateway{}
)

// Versitygw gives the test a bucket of its own on versitygw, which keeps objects
// in a folder.
func Versitygw(t testing.TB, o Options) *S3 {
	t.Helper()
	gatewayMu.Lock()
	defer gatewayMu.Unlock()
	s := gateways[o]
	if s == nil || !s.running() {
		s = startGateway(t, o)
		gateways[o] = s
	}
	s.used++
	s.logOnFailure(t)
	b := s.S3
	b.Bucket = bucket(s.used)
	// A folder in that of the server is a bucket.
	if err := os.Mkdir(filepath.Join(s.dir, "buckets", b.Bucket), 0o700); err != nil {
		t.Fatal(err)
	}
	return &b
}

func startGateway(t testing.TB, o Options) *gateway {
	t.Helper()
	binary := filepath.Join(root(t), ".servers", "versitygw")
	if _, err := os.Stat(binary); err != nil {
		missing(t, "versitygw")
	}
	dir, err := os.MkdirTemp("", "etl-versitygw-*")
	if err != nil {
		t.Fatal(err)
	}
	s := &gateway{S3: S3{Region: "us-east-1", AccessKey: "versitygw-access", Secret: "versitygw-secret"}}
	defer func() {
		if s.process == nil {
			os.RemoveAll(dir)
		}
	}()
	if err := os.Mkdir(filepath.Join(dir, "buckets"), 0o700); err != nil {
		t.Fatal(err)
	}
	scheme := "http"
	var flags []string
	if o.TLS {
		scheme = "https"
		if err := certificate(dir); err != nil {
			t.Fatal(err)
		}
		s.CAFile = filepath.Join(dir, "cert.pem")
		flags = []string{"--cert", s.CAFile, "--key", filepath.Join(dir, "key.pem")}
	}
	// It does not tell a port that the system chose, so one that was free a
	// moment ago is given to it.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s.URL = fmt.Sprintf("%s://%s", scheme, addr)
	command := append([]string{binary, "--port", addr, "--access", s.AccessKey, "--secret", s.Secret, "--region", s.Region, "--keep-alive", "--quiet"}, flags...)
	if s.process, err = run(dir, append(command, "posix", filepath.Join(dir, "buckets"))...); err != nil {
		t.Fatal(err)
	}
	if err := s.await(func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}); err != nil {
		s.stop()
		t.Fatalf("start versitygw: %v", err)
	}
	return s
}

// Client is an HTTP client that trusts the authority in caFile, if one is given.
func Client(t testing.TB, caFile string) *http.Client {
	t.Helper()
	if caFile == "" {
		return http.DefaultClient
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("%s holds no certificate", caFile)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 64, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}
