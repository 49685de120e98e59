package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"etl/internal/config"
	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/secret"
	"etl/internal/source"
	"etl/internal/utc"
)

// checkKey is the one object that the check writes, over and over.
const checkKey object.Key = "_checks/etl-permission-check"

// maxSkew is how wrong the clock of this machine may be: S3 refuses requests that
// are 15 min off, and a day is taken to be complete by an hour (--grace).
const maxSkew = 5 * time.Minute

type result string

const (
	checkOK      result = "ok"
	checkMissing result = "missing"
	checkUnclear result = "unclear" // it may pass: try again
	checkSkipped result = "skipped"
)

// check is one thing that was tried.
type check struct {
	Name   string `json:"check"`
	Result result `json:"result"`
	Detail string `json:"detail,omitempty"` // what was found
	Remedy string `json:"remedy,omitempty"` // what to do
}

// checks is what `etl config --check` prints.
type checks struct {
	Source string  `json:"source"`
	Store  string  `json:"store"`
	Checks []check `json:"checks"`

	secrets *secret.Set
}

func (r checks) exitCode() int {
	code := fault.ExitOK
	for _, c := range r.Checks {
		switch c.Result {
		case checkMissing:
			code = fault.Worse(code, fault.ExitError)
		case checkUnclear:
			code = fault.Worse(code, fault.ExitTransient)
		}
	}
	return code
}

// try runs one check. f returns what it found.
func (r *checks) try(name string, f func() (string, error)) bool {
	detail, err := f()
	c := check{Name: name, Result: checkOK, Detail: r.secrets.Clean(detail)}
	if err != nil {
		c.Result, c.Detail, c.Remedy = checkMissing, r.secrets.Clean(err.Error()), r.secrets.Clean(fault.HintOf(err))
		if fault.ExitCode(err) == fault.ExitTransient {
			c.Result = checkUnclear
		}
	}
	r.Checks = append(r.Checks, c)
	return err == nil
}

func (r *checks) skip(why string, names ...string) {
	for _, name := range names {
		r.Checks = append(r.Checks, check{Name: name, Result: checkSkipped, Detail: why})
	}
}

// check tries each permission that archiving needs. It stops where ctx ends.
func (p *places) check(ctx context.Context) checks {
	// A person waits: three attempts in a few seconds tell enough.
	p.policy = fault.Policy{Attempts: 3, AfterCap: 10 * time.Second}
	secrets := &p.app.secrets
	r := checks{Source: secrets.Clean(p.source), Store: secrets.Clean(p.store), Checks: []check{}, secrets: secrets}
	p.checkToken(ctx, &r)
	p.checkSource(ctx, &r)
	p.checkStore(ctx, &r)
	return r
}

func (p *places) checkToken(ctx context.Context, r *checks) {
	src, serr := config.ParseSource(p.source)
	store, _ := config.ParseStore(p.store)
	if (serr != nil || src.Kind != "d1") && (store.Kind != "r2" || p.key != "") {
		return // no other place needs it
	}
	r.try("API token", func() (string, error) {
		c, err := p.api("Cloudflare's API")
		if err != nil {
			return "", err
		}
		id, err := c.VerifyToken(ctx)
		return fmt.Sprintf("active, id %s, from %s", id, p.settings.Value("api-token").Origin), err
	})
}

func (p *places) checkSource(ctx context.Context, r *checks) {
	const read, tables, clock, write = "source: read", "source: tables", "source: clock", "source: write"
	var (
		src     source.Database
		pending []string
		info    source.Info
	)
	if !r.try(read, func() (_ string, err error) {
		if src, err = p.openSource(1, false); err != nil {
			return "", err
		}
		pending, err = src.Pending(ctx)
		return p.source, err
	}) {
		r.skip("the source can not be read", tables, write)
		return
	}
	defer src.Close()
	r.try(tables, func() (_ string, err error) {
		if len(pending) > 0 {
			return "", fault.Hint(fault.Errorf(fault.Invalid, "%d migrations are pending, the first is %s", len(pending), pending[0]), "`etl migrate` applies them")
		}
		info, err = src.Info(ctx)
		return "up to date", err
	})
	if u, err := config.ParseSource(p.source); err == nil && u.Kind == "d1" && p.now.IsZero() && !info.Now.IsZero() {
		r.try(clock, func() (string, error) { return skew(time.Until(info.Now)) })
	}
	switch {
	case p.noState:
		r.skip("not needed with --no-state", write)
	case !info.Ledger:
		r.skip("there is no ledger to try it on; `etl migrate` makes one, and needs the permission too", write)
	default:
		r.try(write, func() (string, error) {
			// No run has this name, so nothing is confirmed: the statement
			// writes nothing and yet has to be allowed to.
			_, err := src.Confirm(ctx, "etl-permission-check", []source.Slice{{Point: 0, Day: utc.Day(0)}})
			return "a statement that changes nothing", err
		})
	}
}

// skew tells how far the clock of D1 is from this machine's.
func skew(d time.Duration) (string, error) {
	text := fmt.Sprintf("%s apart", d.Abs().Round(100*time.Millisecond))
	if d.Abs() <= maxSkew {
		return text, nil
	}
	return "", fault.Hint(fault.Errorf(fault.Unavailable, "this machine's clock and D1's are %s", text), "set the clock of this machine, by NTP: S3 refuses requests that are 15 minutes off")
}

// checkStore reads, writes and writes conditionally one object of its own.
func (p *places) checkStore(ctx context.Context, r *checks) {
	const list, read, write, conditional = "store: list", "store: read", "store: write", "store: conditional write"
	var store object.Store
	if !r.try(list, func() (_ string, err error) {
		if store, err = p.openStore(ctx, needed); err != nil {
			return "", err
		}
		for _, err := range store.List(ctx, "_manifests/") {
			if err != nil {
				return "", err
			}
			break // one is enough
		}
		return p.store + p.signedBy(), nil
	}) && store == nil {
		r.skip("the store can not be opened", read, write, conditional)
		return
	}

	var old object.Attrs // of the object of an earlier check, ETag "" if there is none
	if !r.try(read, func() (_ string, err error) {
		_, old, err = store.Get(ctx, checkKey)
		if fault.Is(err, fault.NotExist) {
			return "", nil
		}
		return "", err
	}) {
		r.skip("the store can not be read", write, conditional)
		return
	}
	data, err := json.Marshal(map[string]any{"written_by": "etl config --check", "at": time.Now().UTC()})
	if err != nil {
		r.skip(err.Error(), write, conditional)
		return
	}
	var now object.Attrs
	if !r.try(write, func() (_ string, err error) {
		o := object.PutOptions{IfMatch: old.ETag, IfAbsent: old.ETag == "", Type: "application/json"}
		if now, err = store.Put(ctx, checkKey, data, o); err != nil {
			return "", err
		}
		got, _, err := store.Get(ctx, checkKey)
		if err == nil && !bytes.Equal(got, data) {
			err = fault.Errorf(fault.Conflict, "%s is not what was written: another check runs at the same time, or the store does not keep what it is given", checkKey)
		}
		return fmt.Sprintf("%s, which stays", checkKey), err
	}) {
		r.skip("the store can not be written", conditional)
		return
	}
	r.try(conditional, func() (string, error) {
		for what, o := range map[string]object.PutOptions{
			"If-None-Match": {IfAbsent: true},
			"If-Match":      {IfMatch: "0" + now.ETag}, // of no version
		} {
			switch _, err := store.Put(ctx, checkKey, data, o); {
			case err == nil:
				return "", fault.Hint(fault.Errorf(fault.Unavailable, "the store ignores %s: two runners could overwrite each other's work", what),
					"use a store that honours conditional writes: R2, Amazon S3, versitygw, MinIO do")
			case !fault.Is(err, fault.Conflict):
				return "", err
			}
		}
		return "If-Match and If-None-Match are honoured", nil
	})
}

// signedBy says where the keys of the store are from: another tool's may be taken
// by mistake.
func (p *places) signedBy() string {
	switch u, err := config.ParseStore(p.store); {
	case err != nil || u.Kind == "file":
		return ""
	case p.key == "":
		return ", with S3 keys made from the API token"
	}
	return fmt.Sprintf(", with the S3 key %s from %s", p.key, p.settings.Value("access-key-id").Origin)
}

func printChecks(w io.Writer, r checks) {
	t := newTable("check", "result", "found")
	for _, c := range r.Checks {
		t.row(c.Name, c.Result, whole(c.Detail))
	}
	t.print(w)
	// One cause fails many checks, and what helps is said once.
	var remedies []string
	names := make(map[string]string)
	for _, c := range r.Checks {
		switch {
		case c.Remedy == "":
		case names[c.Remedy] == "":
			remedies, names[c.Remedy] = append(remedies, c.Remedy), c.Name
		default:
			names[c.Remedy] += ", " + c.Name
		}
	}
	for _, text := range remedies {
		fmt.Fprintf(w, "\n%s:\n  → %s\n", names[text], printableLine(text))
	}
	switch r.exitCode() {
	case fault.ExitOK:
		fmt.Fprintln(w, "\nNothing is missing.")
	case fault.ExitTransient:
		fmt.Fprintln(w, "\nSomething did not answer as it should: try again.")
	}
}
