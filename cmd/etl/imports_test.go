package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// layers are the packages of the program, from the bottom up. A package imports
// only packages of lower layers. Parsed in process, since a test that runs
// `go list` in a child stays cached and green.
var layers = [][]string{
	{"internal/utc", "internal/fault", "internal/secret", "internal/timing", "sql", "internal/reliability"},
	{"internal/sample", "internal/cloudflare", "internal/cost", "internal/schedule", "internal/notify"},
	{"internal/monthfile", "internal/object", "internal/source"},
	{"internal/tiers"},
	{"internal/object/dir", "internal/object/s3", "internal/source/sqlite", "internal/source/d1", "internal/source/files", "internal/fleet", "manifests", "internal/config"},
	{"internal/lake"},
	{"jobs"},
	{"internal/auditpage"},
	{"cmd/etl", "internal/benchmark"},
}

// testing are packages of helpers for tests; no part of the program imports them.
var testing_ = []string{"internal/cloudflare/cloudflaretest", "internal/object/objecttest", "internal/source/sourcetest", "internal/testserver"}

func TestImportsPointDown(t *testing.T) {
	layer := make(map[string]int)
	for i, ps := range layers {
		for _, p := range ps {
			layer[p] = i
		}
	}
	root := filepath.Join("..", "..")
	seen := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		from := filepath.ToSlash(rel)
		seen[from] = true
		if slices.Contains(testing_, from) {
			return nil
		}
		if _, ok := layer[from]; !ok {
			t.Errorf("%s: package %s has no layer: put it into the list in this test", path, from)
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, imp := range f.Imports {
			to, ours := strings.CutPrefix(strings.Trim(imp.Path.Value, `"`), "etl/")
			if !ours {
				continue
			}
			if from == "internal/benchmark" && slices.Contains(testing_, to) {
				continue // it measures, against servers made for tests
			}
			if l, ok := layer[to]; !ok || l >= layer[from] {
				t.Errorf("%s imports %s: imports point strictly down (or it is a package for tests)", path, to)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for p := range layer {
		if !seen[p] {
			t.Errorf("package %s of the list does not exist", p)
		}
	}
}
