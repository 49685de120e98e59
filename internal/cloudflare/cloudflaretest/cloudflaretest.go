// Package cloudflaretest is D1's REST interface over a SQLite file, in process,
// for tests: of the D1 source, of the client, of the whole program. What JSON
// makes of values, the limits and the transactions are those of D1; single
// statements or batches only, several in one string are refused.
//
// It is stricter or simpler than D1 in this: meta.rows_read counts the rows that
// a statement returned, not those that it scanned, and meta.rows_written the rows
// changed, triggers included, without index entries; of columns with one name only
// the last has it; messages of SQLite lack the offset. A database is there from
// the start; it can not be made or deleted.
//
// Anything can be made to go wrong: Server.On decides about each request.
package cloudflaretest

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/cloudflare"
	"etl/internal/fault"
)

// What the server knows.
const (
	Account  = "a11ce000000000000000000000000001"
	Token    = "a-token-of-cloudflaretest"
	TokenID  = "70ce7000000000000000000000000001"
	Database = "da7aba5e-0000-4000-8000-000000000001"
)

// Options of a server. The zero value is usable.
type Options struct {
	// TLS serves https and HTTP/2, as Cloudflare does, with a certificate of
	// Server.CA.
	TLS bool
	// UserToken makes Token one of a user, not of the account.
	UserToken bool
	// MaxAnswer bounds the JSON of one answer in bytes, 32 MiB if zero.
	MaxAnswer int
}

// Server is the interface at a loopback address. All methods are safe for
// concurrent use.
type Server struct {
	URL string // for cloudflare.Options
	CA  []byte // the certificate to trust, PEM; nil without TLS

	o    Options
	http *httptest.Server

	mu   sync.Mutex // D1 runs one query at a time
	db   *database
	side *sqlite.Conn  // for Exec, without D1's limits
	off  chan struct{} // closed by Close: ends what is slow

	planMu sync.Mutex
	plan   func(int, Request) *Fault
	seen   int
}

// Request is what On may decide by.
type Request struct {
	Method string
	Path   string // behind the account or /user: d1/database/ID/raw
	SQL    []string
}

// Start is New for a test, which closes the server when it ends.
func Start(t testing.TB, path string, o Options) *Server {
	t.Helper()
	s, err := New(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// New serves the SQLite file at path, which is made if there is none.
func New(path string, o Options) (*Server, error) {
	if o.MaxAnswer == 0 {
		o.MaxAnswer = 32 << 20
	}
	side, err := openFile(path)
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", path, err)
	}
	conn, err := openFile(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("serve %s: %w", path, err), side.Close())
	}
	s := &Server{o: o, db: newDatabase(conn, o.MaxAnswer), side: side, off: make(chan struct{})}
	s.http = httptest.NewUnstartedServer(s)
	s.http.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it
	if o.TLS {
		s.http.EnableHTTP2 = true
		s.http.StartTLS()
		s.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw})
	} else {
		s.http.Start()
	}
	s.URL = s.http.URL + "/client/v4"
	return s, nil
}

// Close ends what is going on and closes the file.
func (s *Server) Close() error {
	select {
	case <-s.off:
		return nil
	default:
	}
	close(s.off)
	s.http.CloseClientConnections()
	s.http.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.side.Close(), s.db.conn.Close())
}

// On decides what becomes of each request from now on: plan is called with its
// number, from 0, and nil is a plain answer. A nil plan is plain answers.
func (s *Server) On(plan func(n int, r Request) *Fault) {
	s.planMu.Lock()
	defer s.planMu.Unlock()
	s.plan, s.seen = plan, 0
}

// Requests is how many there were since the last On, refused ones included.
func (s *Server) Requests() int {
	s.planMu.Lock()
	defer s.planMu.Unlock()
	return s.seen
}

// Exec runs a script in the file, between two requests, as somebody else would.
func (s *Server) Exec(t testing.TB, script string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := sqlitex.ExecuteScript(s.side, script, nil); err != nil {
		t.Fatalf("exec: %v", err)
	}
}

// Client is a client of the server with little patience: it waits for no more
// than some milliseconds between attempts, and its rate is no limit.
func (s *Server) Client(t testing.TB) *cloudflare.Client {
	t.Helper()
	c, err := cloudflare.New(Account, Token, cloudflare.Options{
		URL: s.URL, HTTP: s.http.Client(), Rate: 10_000, Burst: 10_000,
		Retry: fault.Policy{Base: time.Millisecond, Cap: 4 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ServeHTTP answers a request, or does to it what the plan says.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	path := strings.TrimPrefix(r.URL.Path, "/client/v4/")
	path = strings.TrimPrefix(path, "accounts/"+Account+"/")
	queries, bad := parse(body)
	req := Request{Method: r.Method, Path: path}
	for _, q := range queries {
		req.SQL = append(req.SQL, q.SQL)
	}

	s.planMu.Lock()
	n, plan := s.seen, s.plan
	s.seen++
	s.planMu.Unlock()
	var f *Fault
	if plan != nil {
		f = plan(n, req)
	}
	if f == nil {
		f = &Fault{}
	}
	f.do(s, w, r, func() reply {
		if r.Header.Get("Authorization") != "Bearer "+Token {
			return failure(401, 10000, "Authentication error")
		}
		return s.answer(req, r.URL.Path, queries, bad, f.MaxRows)
	})
}

// answer is what D1 would say.
func (s *Server) answer(r Request, full string, queries []query, bad error, maxRows int) reply {
	db := "d1/database/" + Database
	switch r.Method + " " + r.Path {
	case "GET tokens/verify":
		if s.o.UserToken {
			return failure(401, 1000, "Invalid API Token")
		}
		return success(map[string]string{"id": TokenID, "status": "active"})
	case "GET user/tokens/verify":
		if !s.o.UserToken {
			return failure(401, 1000, "Invalid API Token")
		}
		return success(map[string]string{"id": TokenID, "status": "active"})
	case "GET " + db:
		return success(map[string]any{"uuid": Database, "name": "test", "version": "production"})
	case "GET " + db + "/time_travel/bookmark":
		now := fmt.Sprintf("%032x", time.Now().UnixNano())
		return success(map[string]string{"bookmark": "00000001-00000001-00004e6f-" + now})
	case "POST " + db + "/raw", "POST " + db + "/query":
		if bad != nil {
			return failure(400, 7400, bad.Error())
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		answer, err := s.db.run(queries, strings.HasSuffix(r.Path, "/raw"), maxRows)
		if err != nil {
			return err.(*d1Error).reply()
		}
		return reply{200, answer}
	}
	switch {
	case strings.HasPrefix(r.Path, "d1/database/"):
		return failure(404, 7404, "The database could not be found")
	case strings.HasPrefix(r.Path, "/client/v4/accounts/"), strings.HasPrefix(r.Path, "accounts/"):
		return failure(403, 7403, "The given account is not valid or is not authorized to access this service")
	}
	return failure(404, 7003, "Could not route to "+full+", perhaps your object identifier is invalid?")
}

// reply is the status and the body of an answer.
type reply struct {
	status int
	body   []byte
}

func success(result any) reply { return envelope(200, result) }

func failure(status, code int, message string) reply {
	return envelope(status, nil, cloudflare.Message{Code: code, Message: message})
}

func envelope(status int, result any, errs ...cloudflare.Message) reply {
	if errs == nil {
		errs = []cloudflare.Message{}
	}
	body, err := json.Marshal(map[string]any{"result": result, "errors": errs, "messages": []string{}, "success": len(errs) == 0})
	if err != nil {
		panic(err)
	}
	return reply{status, body}
}

func openFile(path string) (*sqlite.Conn, error) {
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite, sqlite.OpenCreate, sqlite.OpenWAL)
	if err != nil {
		return nil, err
	}
	conn.SetBusyTimeout(10 * time.Second)
	if err := sqlitex.ExecuteTransient(conn, "PRAGMA synchronous = OFF", nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
