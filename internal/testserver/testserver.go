// Package testserver starts real servers for integration tests, on loopback:
// Cloudflare's local runtime (D1 behind its REST API, R2 behind S3, and a Worker
// if one is tested) and versitygw, a strict S3 server.
//
// Servers start once for a test binary, and every test gets a database and a
// bucket of its own. They end, with their files, when the test process does,
// however it does: each lives as long as the pipe on its standard input.
//
// Where a server is not installed the test is skipped and says how to install
// it; with ETL_NEED_SERVERS=1 in the environment it fails.
package testserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// S3 is a bucket, empty when a test gets it, and how to reach it.
type S3 struct {
	URL       string // endpoint, for path-style requests
	Region    string
	Bucket    string
	AccessKey string
	Secret    string
	CAFile    string // PEM file of the authority of the server's certificate; "" without TLS
}

// Options of a server. The zero value is plain http.
type Options struct {
	TLS bool
}

// startTime is how long a server may take to answer: 1 s is usual, more on a
// machine that does other things.
const startTime = time.Minute

// process is a running server.
type process struct {
	dir   string         // its files; it removes them when it ends
	log   *os.File       // what it printed, open here so that it outlives dir
	stdin io.WriteCloser // closing it ends the process
	done  chan struct{}  // closed when it has ended
}

// supervise runs a server until it ends or standard input does, and then removes
// its files. The second child of the shell reads standard input to its end.
const supervise = `
dir=$1; shift
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ cat <&3 >/dev/null; kill "$server"; } 2>/dev/null &
wait "$server"
rm -rf "$dir"`

// run starts a command in a folder that is its own from then on.
func run(dir string, command ...string) (*process, error) {
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	c := exec.Command("sh", append([]string{"-c", supervise, "supervise", dir}, command...)...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt reaches it through the pipe
	stdin, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	p := &process{dir: dir, log: log, stdin: stdin, done: make(chan struct{})}
	go func() {
		c.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop ends the process and waits until its files are gone.
func (p *process) stop() {
	p.stdin.Close()
	<-p.done
	p.log.Close()
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// await polls until ready says true, and returns an error with what the process
// printed if it ends before or takes too long.
func (p *process) await(ready func() bool) error {
	for start := time.Now(); time.Since(start) < startTime; time.Sleep(20 * time.Millisecond) {
		if ready() {
			return nil
		}
		if !p.running() {
			return fmt.Errorf("it ended and printed:\n%s", p.printed(0))
		}
	}
	return fmt.Errorf("it does not answer after %v and printed:\n%s", startTime, p.printed(0))
}

// printed is what the process printed from an offset on, 16 KiB at most.
func (p *process) printed(from int64) string {
	b := make([]byte, 16<<10)
	n, _ := p.log.ReadAt(b, from)
	return string(b[:n])
}

// logOnFailure shows what the process prints during a test that fails.
func (p *process) logOnFailure(t testing.TB) {
	t.Helper()
	var from int64
	if s, err := p.log.Stat(); err == nil {
		from = s.Size()
	}
	t.Cleanup(func() {
		if out := p.printed(from); t.Failed() && out != "" {
			t.Logf("the server printed:\n%s", out)
		}
	})
}

// missing skips the test, or fails it where servers must be there.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("ETL_NEED_SERVERS") == "1" {
		t.Fatalf("%s is missing: install it with make servers", what)
	}
	t.Skipf("%s is missing: install it with make servers", what)
}

// root is the folder of the module that the test runs in.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// certificate writes cert.pem and key.pem for 127.0.0.1 and localhost into dir.
// The certificate is its own authority.
func certificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:              []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	write := func(name, kind string, b []byte) error {
		return os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600)
	}
	return errors.Join(write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", pkcs8))
}
