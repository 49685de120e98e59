package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

func TestMain(m *testing.M) {
	testscript.Main(suite{m}, map[string]func(){"etl": watchedMain, "sqlite": sqliteMain})
}

// suite runs the tests within around, which the integration tests set.
type suite struct{ m *testing.M }

var around = func(run func() int) int { return run() }

func (s suite) Run() int { return around(s.m.Run) }

// TestScripts runs testdata/script. Beside etl the scripts have
//
//	sqlite FILE [SQL | @FILE]...   run SQL in a database and print the rows
//	exits CODE COMMAND [ARG]...     run a command that ends with this exit code
//	json NAME[=VALUE]...           stdout is exactly one JSON object that has these fields
//	flip FILE                      change one byte in the middle of a file
func TestScripts(t *testing.T) {
	countWatched(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("ETL_SOURCE", "sqlite:d1.sqlite")
			env.Setenv("ETL_STORE", "file:r2")
			env.Setenv("ETL_CACHE", "cache")
			env.Setenv("ETL_NOW", "2024-02-10T02:00:00Z")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // with -race each process would sleep a second at its end
			return plantSecrets(env)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"json": checkJSON, "flip": flip, "exits": exits},
	})
}

// sqliteMain executes SQL; rows are printed with | between the columns.
func sqliteMain() {
	if err := runSQL(os.Args[1], os.Args[2:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runSQL(db string, statements []string, w io.Writer) error {
	c, err := sqlite.OpenConn(db, sqlite.OpenReadWrite, sqlite.OpenCreate)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, text := range statements {
		if file, ok := strings.CutPrefix(text, "@"); ok {
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if err := sqlitex.ExecuteScript(c, string(data), nil); err != nil {
				return err
			}
			continue
		}
		if err := sqlitex.Execute(c, text, &sqlitex.ExecOptions{ResultFunc: func(st *sqlite.Stmt) error {
			for i := range st.ColumnCount() {
				if i > 0 {
					fmt.Fprint(w, "|")
				}
				fmt.Fprint(w, st.ColumnText(i))
			}
			fmt.Fprintln(w)
			return nil
		}}); err != nil {
			return err
		}
	}
	return nil
}

func checkJSON(ts *testscript.TestScript, neg bool, args []string) {
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	dec.UseNumber()
	var obj map[string]json.RawMessage
	ts.Check(dec.Decode(&obj))
	if _, err := dec.Token(); err != io.EOF {
		ts.Fatalf("stdout holds more than one JSON object: %v", err)
	}
	for _, arg := range args {
		name, want, valued := strings.Cut(arg, "=")
		raw, ok := obj[name]
		var got bytes.Buffer
		if ok {
			ts.Check(json.Compact(&got, raw))
		}
		if ok = ok && (!valued || got.String() == want); ok == neg {
			ts.Fatalf("field %s: got %q; want %s (negated: %v)", name, got.String(), arg, neg)
		}
	}
}

func flip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	data = slices.Clone(data)
	data[len(data)/2] ^= 0x40
	ts.Check(os.WriteFile(path, data, 0o644))
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if e := new(exec.ExitError); errors.As(err, &e) {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
