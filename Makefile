# etl: archive time series from Cloudflare D1 to R2. `make help` lists the targets.
GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w -X main.release=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
ACTIONLINT := github.com/rhysd/actionlint/cmd/actionlint@v1.7.7
# DuckDB's Arrow interface is behind this build tag; without it the program does not compile.
TAGS    := duckdb_arrow
VERSITYGW := github.com/versity/versitygw/cmd/versitygw@v1.8.0
NPM_CI := npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
# The packages that have integration tests.
INTEGRATION = $(shell grep -rl --include='*_test.go' --exclude-dir=node_modules '^//go:build integration' . | xargs -n1 dirname | sort -u)

# Whatever reads bytes that somebody else may have written, as package:target.
FUZZ = internal/monthfile:FuzzDecode internal/monthfile:FuzzPages internal/monthfile:FuzzThrift \
	manifests:FuzzDecode manifests:FuzzDecodePoints manifests:FuzzParseRejects manifests:FuzzScan manifests:FuzzSlug \
	internal/source/d1:FuzzScan internal/cloudflare:FuzzMessages internal/object/s3:FuzzAnswers internal/secret:FuzzClean internal/source/files:FuzzCSV internal/source/files:FuzzRow internal/source/files:FuzzParseTime \
	internal/config:FuzzWrangler internal/config:FuzzYAML internal/sample:FuzzDayCounts internal/utc:FuzzParseDay cmd/etl:FuzzKnown
# Inputs for each. Not seconds: a target that is still at work when they are over fails
# now and then (go.dev/issue/75804, mended in Go 1.27).
FUZZTIME ?= 20000x

.DEFAULT_GOAL := help
.PHONY: help build demo test fuzz servers integration faults reliability live deploy bench bench-quick check

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/etl
	$(GO) build -tags $(TAGS) -trimpath -ldflags '$(LDFLAGS)' -o bin/etl ./cmd/etl

demo: build ## run the whole job on a made-up fleet, in ./demo
	./bin/etl demo --dir demo

test: ## run the unit and command-line tests
	$(GO) test -tags $(TAGS) ./...

# .ci/run has no time to build all packages anew with the counters that lead the
# fuzzer: SHORT=1 changes inputs blindly, in the test programs as they are.
fuzz: ## give each parser changed inputs (FUZZTIME=20000x of them); one that fails is kept in testdata/fuzz
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && for f in $(FUZZ); do \
		p=$${f%:*}; \
		if [ -z "$(SHORT)" ]; then \
			set -- $(GO) test -tags $(TAGS) -run '^$$' -fuzz "^$${f#*:}$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5s ./$$p; \
		else \
			bin=$$dir/$$(echo $$p | tr / -).test; \
			[ -e $$bin ] || $(GO) test -tags $(TAGS) -c -o $$bin ./$$p || exit 1; \
			set -- env -C $$p $$bin -test.run '^$$' -test.fuzz "^$${f#*:}$$" -test.fuzztime $(FUZZTIME) -test.fuzzcachedir $$dir/cache -test.fuzzminimizetime 5s -test.parallel 2; \
		fi; \
		"$$@" >$$dir/log 2>&1 || { echo "$$f"; cat $$dir/log; exit 1; }; \
		echo "$$f $$(grep -o 'execs: [0-9]*' $$dir/log | tail -n 1)"; \
	done

servers: .servers/versitygw internal/testserver/node/node_modules/.package-lock.json examples/worker/node_modules/.package-lock.json ## install what the integration tests run against: Cloudflare's local runtime, an S3 server

.servers/versitygw: Makefile
	GOBIN=$(abspath .servers) $(GO) install $(VERSITYGW)
	@touch $@

# What only deploys a Worker is left out (--omit=dev).
%/node_modules/.package-lock.json: %/package-lock.json
	@command -v npm >/dev/null || { echo 'Node.js 20 or later is needed: https://nodejs.org'; exit 1; }
	cd $* && $(NPM_CI) --omit=dev
	@touch $@

integration: servers ## run the tests with real processes and servers: races, kill -9, D1, R2, S3, real sensor data
	$(GO) test -count=1 -timeout 45m -tags $(TAGS),integration -run Integration $(INTEGRATION)

faults: ## archive, prune, restore, repair and replicate over the network, with every request spoilt in every way; prints how many faults were tried
	@bash -o pipefail -c "$(GO) test -count=1 -timeout 90m -v -tags $(TAGS),integration -run '^TestIntegrationFaults$$' ./jobs -args -thorough | grep -vE '^ *(=== |--- (PASS|SKIP): .*/)'"

reliability: ## run every proof at its thorough size, fuzzing included, and write what was tried into docs/reliability.md (about 45 min)
	$(GO) run ./internal/reliability -md docs/reliability.md -fuzz '$(FUZZ)' -fuzztime 50000x

live: ## try it on the Cloudflare account that the environment names (docs/operations.md); skipped where it names none
	$(GO) test -count=1 -timeout 25m -v -tags $(TAGS),integration -run '^TestLive$$' ./cmd/etl

deploy: ## check the Kubernetes manifests with Kubernetes' own types and the CI workflow with actionlint
	cd deploy/kubernetes && $(GO) test -count=1 ./...
	$(GO) run $(ACTIONLINT) deploy/ci/nightly.yml

bench: build ## measure the whole job beside DuckDB and write docs/benchmarks.md (about 40 min the first time, 15 GB in ./bench)
	$(GO) run -tags $(TAGS) ./internal/benchmark -etl bin/etl -dir bench -md docs/benchmarks.md

bench-quick: build ## the same on a tenth of the points and five days
	$(GO) run -tags $(TAGS) ./internal/benchmark -quick -etl bin/etl -dir bench

check: ## gofmt, vet, staticcheck, race tests, go.mod tidy
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'gofmt -w these files'; exit 1; }
	$(GO) vet -tags $(TAGS),integration ./...
	$(GO) run $(STATICCHECK) -tags $(TAGS),integration ./...
	$(GO) test -tags $(TAGS) -race ./...
	$(GO) mod tidy -diff
