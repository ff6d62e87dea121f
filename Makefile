# Bare `make` prints the targets. `make demo` and `make test` need nothing prepared by hand.

GO      ?= go
# The one place for build tags: duckdb_arrow lets rows pass between Go and DuckDB as Arrow batches.
GOTAGS  := duckdb_arrow
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -X main.version=$(VERSION)
# In a tree without git's data, or one that git does not trust, go build must not ask git for the commit.
ifneq ($(shell git status --porcelain >/dev/null 2>&1 && echo yes),yes)
export GOFLAGS += -buildvcs=false
endif
# Linking the embedded engine takes most of the time of a small change: mold, where it is and the compiler knows it, takes a fifth.
LINKER := $(shell echo 'int main(void){return 0;}' | $(or $(CC),cc) -fuse-ld=mold -x c -o /dev/null - 2>/dev/null && echo -extldflags=-fuse-ld=mold)
ifneq ($(LINKER),)
LDFLAGS += $(LINKER)
export GOFLAGS := $(shell $(GO) env GOFLAGS) -ldflags=$(LINKER)
endif
RUN      = $(GO) run ./test/run -tags $(GOTAGS)
# The tests that start the program take this binary.
export CAUCE_BIN = $(CURDIR)/bin/cauce

.DEFAULT_GOAL := help
.PHONY: help build demo demo-full golden test race test-short soak sabotage lint bench release pages setup

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the program into bin/cauce
	$(GO) build -tags $(GOTAGS) -ldflags "$(LDFLAGS)" -o bin/cauce ./cmd/cauce

demo: build ## history and live events in one table, offline, in under a minute; the data stays in ./cauce-demo
	bin/cauce demo

demo-full: setup build ## Kafka, S3, Spark, Airflow, Superset and a notebook around one lake, in a quarter of an hour; a page of checks (docs/demo-full.md)
	$(GO) run ./test/demofull $(DEMO_FLAGS)

setup: ## install what the tests compare Cauce with into .cache/ (the other targets call it)
	@sh test/setup.sh

test: lint setup build race ## every behaviour and the real peers, counts scaled down; at most an hour on 2 cores
	$(RUN) -size test ./...

race: ## the packages that do several things at once and need no DuckDB, under Go's race detector, counts small
	$(RUN) -size short -race ./connect/... ./ingest/index ./internal/... ./objstore/... ./schedule

test-short: ## a glance in under two minutes: the packages by themselves, with small counts
	$(RUN) -size short ./...

golden: ## read the tables of other engines in ../shared/delta-golden by every reader; prints counts by kind of oracle
	$(RUN) -size test ./test/golden

soak: setup build ## the full counts, one scenario at a time; resumes where it stopped; results in docs/evidence/
	$(GO) run ./test/soak -tags $(GOTAGS) $(SCENARIOS)

sabotage: build ## break the program in one small way at a time and demand that a named test goes red
	$(GO) run ./test/sabotage -tags $(GOTAGS) $(FAULTS)

lint: ## gofmt, go vet and a few linters (.golangci.yml), pinned in tools/go.mod
	@$(GO) tool -modfile=tools/go.mod golangci-lint run --build-tags $(GOTAGS) ./...

release: ## archives of the program with checksums, bill of materials, completions and manual pages, in dist/
	sh deploy/release/release.sh "$(VERSION)" "$(GOTAGS)"

pages: ## bundle the libraries of the pages anew, after a change in serve/web/editor (needs Node; their bundles are committed)
	cd serve/web/editor && npm ci --no-audit --no-fund && npm run --silent build

bench: setup build ## measure against DuckDB and polars + delta-rs in one run; BENCH_FLAGS="-rows 1000000" narrows it
	$(GO) run -tags $(GOTAGS) ./bench $(BENCH_FLAGS)
