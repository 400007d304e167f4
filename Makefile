# Millrace. `make` or `make help` lists what there is.

.DEFAULT_GOAL := help
SHELL := /bin/bash
GO ?= go
TOOL := $(GO) tool -modfile=tools/go.mod
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: build ## build, then the embedded broker, the registry and the demo shop on one screen
	@exec bin/millrace dev --demo

.PHONY: build
build: ## build bin/millrace
	@echo "building bin/millrace (the first time takes a minute: every package that is compiled is named)" >&2
	@CGO_ENABLED=0 $(GO) build -v -trimpath -ldflags '$(LDFLAGS)' -o bin/millrace ./cmd/millrace 2> >(awk '{printf "\r\033[K  %3d  %s", NR, substr($$0, 1, 60) > "/dev/stderr"} END {if (NR) printf "\r\033[K" > "/dev/stderr"}')
	@echo "built bin/millrace $(VERSION)" >&2

.PHONY: test
test: ## every tier: unit with the race detector, one real Kafka, a secured cluster of three (Java 17 and Maven)
	@$(GO) run ./test/tiers

.PHONY: test-unit
test-unit: ## the unit tier alone: no server, a minute or two
	@$(GO) run ./test/tiers unit

.PHONY: check
check: fmt-check vet fix-check lint layers deadcode ## what the gate checks without running the product

.PHONY: fmt
fmt: ## format the tree
	@$(TOOL) golangci-lint fmt

.PHONY: fmt-check
fmt-check:
	@echo "== format"; $(TOOL) golangci-lint fmt --diff

.PHONY: vet
vet:
	@echo "== vet"; $(GO) vet ./...

.PHONY: fix-check
fix-check:
	@echo "== go fix"; out=$$($(GO) fix -diff ./...); if [ -n "$$out" ]; then echo "$$out"; echo "run: go fix ./..."; exit 1; fi

.PHONY: lint
lint: ## golangci-lint
	@echo "== lint"; $(TOOL) golangci-lint run

.PHONY: layers
layers: ## who may import whom (deps_test.go)
	@echo "== layers"; $(GO) test -count=1 -run TestLayers .

.PHONY: deadcode
deadcode: ## code that nothing reaches; examples without output are compiled and not run
	@echo "== deadcode"; out=$$($(TOOL) deadcode -test ./... | grep -v 'example_test\.go:'); if [ -n "$$out" ]; then echo "$$out"; exit 1; fi

.PHONY: kafka
kafka: build ## a real Apache Kafka on free loopback ports, without Docker; ARGS=-secured for three brokers with TLS, SCRAM and ACLs
	@$(GO) build -o bin/kafka ./internal/kafkatest/kafka
	@exec bin/kafka $(ARGS) # not go run, which calls a Ctrl-C an error

.PHONY: postgres
postgres: ## a real PostgreSQL on a free loopback port, without Docker; ARGS="-dir DIR" keeps its data
	@$(GO) build -o bin/pgserver ./internal/pgtest/postgres
	@exec bin/pgserver $(ARGS)

.PHONY: flights
flights: build ## 336,776 real flights: published, consumed in a group, aggregated, compared with the file
	@$(GO) run ./examples/flights $(ARGS)

.PHONY: bench
bench: ## ratios to a raw kgo client on a real Kafka; ARGS="-rounds 7"
	@$(GO) run ./bench $(ARGS)

.PHONY: soak-dev
soak-dev: ## kill the embedded broker 120 times under each load, then count; ARGS="-kills 20"
	@$(GO) run ./test/soak $(ARGS)

.PHONY: soak-sink
soak-sink: ## a sink to PostgreSQL under every fault, round after round, then judged; ARGS="-rounds 5 -seed 2 -out test/soak/results"
	@$(GO) test -count=1 -timeout 12h -v -run '^TestRealSinkUnderFaults$$' ./test/cluster $(ARGS)

FUZZTIME ?= 20s
.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME each (20s)
	@set -e; for f in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | sort); do \
	  for t in $$(grep -oE '^func Fuzz[A-Za-z0-9_]+' $$f | cut -c6-); do \
	    echo "== $$(dirname $$f) $$t"; $(GO) test -run '^$$' -fuzz "^$$t$$" -fuzztime $(FUZZTIME) $$(dirname $$f); done; done

.PHONY: clean
clean: ## remove bin/ (data of millrace dev stays in .millrace/)
	@rm -rf bin
