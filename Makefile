# etl: archive time series from Cloudflare D1 to R2. `make help` lists the targets.
GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w -X main.release=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.DEFAULT_GOAL := help
.PHONY: help build demo test integration bench bench-quick check

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/etl
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/etl ./cmd/etl

demo: build ## run the whole job on a made-up fleet, in ./demo
	./bin/etl demo --dir demo

test: ## run the unit and command-line tests
	$(GO) test ./...

integration: ## run the tests with real processes: races, kill -9, real sensor data
	$(GO) test -count=1 -tags integration -run Integration ./cmd/etl

bench: build ## measure the whole job beside DuckDB and write docs/benchmarks.md (about 40 min the first time, 15 GB in ./bench)
	$(GO) run ./internal/benchmark -etl bin/etl -dir bench -md docs/benchmarks.md

bench-quick: build ## the same on a tenth of the points and five days
	$(GO) run ./internal/benchmark -quick -etl bin/etl -dir bench

check: ## gofmt, vet, staticcheck, race tests, go.mod tidy
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'gofmt -w these files'; exit 1; }
	$(GO) vet -tags integration ./...
	$(GO) run $(STATICCHECK) -tags integration ./...
	$(GO) test -race ./...
	$(GO) mod tidy -diff
