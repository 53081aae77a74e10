# Isthmus. `make help` lists what there is.
#
# One build cache serves all targets: nothing here changes build flags besides -race, and the version goes in at link
# time only, so that a switch of target never compiles client-go again.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -X main.version=$(VERSION)
# ARGS are handed to the program that a target runs: make demo ARGS=--once, make test-unit ARGS="-run TestX ./internal/delta"
ARGS    ?=

BIN     := bin
TOOLS   := bin/tools
RESULTS := bin/results
# Where the API server and etcd are taken from; a set KUBEBUILDER_ASSETS wins.
export KUBEBUILDER_ASSETS ?= $(CURDIR)/$(TOOLS)
# govulncheck's database; a mirror or a file:// copy works too.
export GOVULNDB ?= https://vuln.go.dev

BINARIES := $(addprefix $(BIN)/,hub spoke isthmus lab agent)

##@ General

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*##"} \
	  /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-zA-Z0-9_%-]+:.*?##/ {printf "  \033[36m%-18s\033[0m%s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build tools $(if $(findstring --fast,$(ARGS)),,tools-gateway) ## Three clusters, one namespace: start them, show requests, stay up (ARGS=--once: exit with the result; --fast: without Gateways)
	@$(GO) build -o $(BIN)/demo ./test/demo && exec $(BIN)/demo $(ARGS)

.PHONY: clean
clean: ## Remove built binaries and results; keeps bin/tools (slow to build)
	rm -rf $(RESULTS) $(BINARIES) $(BIN)/demo $(BIN)/bench $(BIN)/chaos $(BIN)/echo-basic $(BIN)/conformance.test

##@ Build

.PHONY: build
build: $(BINARIES) ## Build bin/{hub,spoke,isthmus,lab,agent}

# Go knows what is up to date better than make does.
.PHONY: FORCE
FORCE:
$(BIN)/hub $(BIN)/spoke $(BIN)/isthmus: $(BIN)/%: FORCE | gcc
	$(GO) build -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*
$(BIN)/lab: FORCE | gcc
	$(GO) build -ldflags '$(LDFLAGS)' -o $@ ./test/lab/cmd/lab
$(BIN)/agent: FORCE | gcc
	$(GO) build -ldflags '$(LDFLAGS)' -o $@ ./test/agent
$(BIN)/chaos: FORCE | gcc
	$(GO) build -ldflags '$(LDFLAGS)' -o $@ ./test/chaos
$(BIN)/bench: FORCE | gcc
	$(GO) build -ldflags '$(LDFLAGS)' -o $@ ./test/bench

.PHONY: tools
tools: | gcc ## Build kube-apiserver, kube-controller-manager, kubectl and etcd, fetch Envoy, into bin/tools (minutes, once)
	@hack/tools.sh

.PHONY: tools-gateway
tools-gateway: | gcc ## Build Envoy Gateway into bin/tools, for tests and `bin/lab up --gateway envoy-gateway` (minutes, once)
	@hack/tools-gateway.sh

.PHONY: tools-traefik
tools-traefik: | gcc ## Build Traefik into bin/tools, for `bin/lab up --gateway traefik` (minutes, once)
	@hack/tools-traefik.sh

##@ Generate

.PHONY: generate
generate: $(TOOLS)/controller-gen $(TOOLS)/protoc-gen-go | protoc ## Generate deepcopy, CRDs and gRPC code
	@hack/generate.sh .

.PHONY: verify-generated
verify-generated: $(TOOLS)/controller-gen $(TOOLS)/protoc-gen-go | protoc ## Fail when generated files are not what `make generate` makes
	@hack/verify-generated.sh

##@ Check

.PHONY: lint
lint: lint-go lint-api lint-files lint-scripts ## All linters

.PHONY: lint-go
lint-go: $(TOOLS)/golangci-lint | gcc ## golangci-lint: room rules, correctness, style
	$(TOOLS)/golangci-lint run ./...

.PHONY: lint-api
lint-api: $(TOOLS)/golangci-lint | gcc ## Kubernetes API conventions on api/
	$(TOOLS)/golangci-lint run -c .golangci-kal.yml ./api/...

.PHONY: lint-files
lint-files: ## No source file of 400 lines or more
	@hack/lint-files.sh

.PHONY: lint-scripts
lint-scripts: $(TOOLS)/actionlint $(TOOLS)/shellcheck ## shellcheck on scripts, actionlint on workflows
	@hack/lint-scripts.sh

.PHONY: vet
vet: | gcc ## go vet
	$(GO) vet ./...

.PHONY: vuln
vuln: $(TOOLS)/govulncheck | gcc ## govulncheck; says so and passes when its database cannot be reached (VULN_REQUIRED=1: fails)
	@hack/vuln.sh

##@ Test

.PHONY: test
test: build tools tools-gateway $(TOOLS)/gotestsum ## Everything: unit, CEL, lab end-to-end, faults in short; ends with one summary
	@hack/test.sh unit cel e2e chaos

.PHONY: test-unit
test-unit: build tools $(TOOLS)/gotestsum ## All packages but the end-to-end tests, with the race detector
	@hack/test.sh unit -- $(ARGS)

.PHONY: test-cel
test-cel: tools $(TOOLS)/gotestsum ## The API's schema and CEL rules on a real API server
	@hack/test.sh cel -- $(ARGS)

.PHONY: test-e2e
test-e2e: build tools tools-gateway $(TOOLS)/gotestsum ## Three real clusters in the lab, each with a real Envoy Gateway
	@hack/test.sh e2e -- $(ARGS)

.PHONY: test-chaos
test-chaos: build tools $(TOOLS)/gotestsum ## One fault of each class under load, and the matrix of partitions; invariants only
	@hack/test.sh chaos -- $(ARGS)

.PHONY: test-gateway
test-gateway: build tools tools-gateway $(TOOLS)/gotestsum ## Of the end-to-end tests, those of the hub's Gateways
	@hack/test.sh e2e -- -run '^TestGateway' $(ARGS)

.PHONY: conformance
conformance: build tools tools-gateway ## The Gateway API's conformance tests on Envoy Gateway and, not gating, Traefik, alone and through the hub; results to docs/conformance.md
	@hack/conformance.sh $(ARGS)

.PHONY: test-summary
test-summary: $(TOOLS)/gotestsum ## The closing lines of the last test run again
	@hack/test-summary.sh

##@ Measure

.PHONY: bench
bench: bench-delta bench-lab bench-gateway bench-authz-lab ## All benchmarks; results to docs/benchmarks.md and its pages

.PHONY: bench-delta
bench-delta: | gcc ## The delta xDS server and other packages: go test -bench
	@mkdir -p $(RESULTS)
	$(GO) test -run '^$$' -bench . -benchmem -benchtime 3s $(ARGS) $$(grep -rl --include='*_test.go' '^func Benchmark' hub spoke internal | xargs -n1 dirname | sort -u | sed 's,^,./,') | tee $(RESULTS)/bench-packages.txt

.PHONY: bench-storm
bench-storm: | gcc ## A spoke that writes 10,000 objects a second beside a quiet one: what the quiet one's changes wait
	$(GO) test -run '^$$' -bench Storm -benchtime 1x $(ARGS) ./hub/internal/engine

.PHONY: bench-authz
bench-authz: | gcc ## 1,000 spokes: until one that joins is let in, and one that is deleted is out, at every stream
	$(GO) test -run '^$$' -bench Authz -benchtime 5x $(ARGS) ./hub/internal/engine

.PHONY: bench-lab
bench-lab: build tools $(BIN)/bench ## Propagation, requests and memory in the lab
	@hack/with-lab.sh bench --clusters eu,us,ap --hub-cluster eu -- \
	  $(BIN)/lab exec --name bench -- $(BIN)/bench -env "$$PWD/$(RESULTS)/bench.env.json" -lab bench -packages $(RESULTS)/bench-packages.txt -out docs/benchmarks.md $(ARGS)

.PHONY: bench-gateway
bench-gateway: build tools tools-gateway $(BIN)/bench ## Gateways: a route's way to three clusters beside Envoy Gateway's own share, 1,000 routes, a storm of changes
	@hack/with-lab.sh bench-gateway --clusters eu,us,ap --hub-cluster eu --gateway envoy-gateway -- \
	  $(BIN)/lab exec --name bench-gateway -- $(BIN)/bench -gateways -env "$$PWD/$(RESULTS)/bench-gateway.env.json" -lab bench-gateway -out docs/benchmarks-gateways.md $(ARGS)

.PHONY: bench-authz-lab
bench-authz-lab: build tools $(BIN)/bench ## 1,000 spokes, three real clusters: until their Envoys let in who joins and refuse who is deleted; nobody locked out
	@hack/with-lab.sh bench-authz --clusters eu,us,ap --hub-cluster eu -- \
	  $(BIN)/lab exec --name bench-authz -- $(BIN)/bench -authorisation -env "$$PWD/$(RESULTS)/bench-authz.env.json" -lab bench-authz -out docs/benchmarks-authorisation.md $(ARGS)

.PHONY: chaos
chaos: build tools $(BIN)/chaos ## Every fault under load; results to docs/resilience.md and bin/results/chaos.json (ARGS="-rounds 5": medians)
	@hack/with-lab.sh chaos --clusters eu,us,ap --hub-cluster eu --hub-replicas 2 --faults -- \
	  $(BIN)/lab exec --name chaos -- $(BIN)/chaos -page docs/resilience.md $(ARGS)

##@ Pinned tools

$(TOOLS)/controller-gen $(TOOLS)/protoc-gen-go &: hack/tools/go.mod hack/tools/go.sum
	@mkdir -p $(TOOLS) && $(GO) -C hack/tools build -o $(CURDIR)/$(TOOLS)/ tool && touch $(TOOLS)/controller-gen $(TOOLS)/protoc-gen-go

$(TOOLS)/gotestsum $(TOOLS)/govulncheck $(TOOLS)/actionlint &: hack/tools/check/go.mod hack/tools/check/go.sum
	@mkdir -p $(TOOLS) && $(GO) -C hack/tools/check build -o $(CURDIR)/$(TOOLS)/ tool && touch $(TOOLS)/{gotestsum,govulncheck,actionlint}

# golangci-lint with the API linter built in: one binary for both configurations.
$(TOOLS)/golangci-lint: hack/tools/lint/go.mod hack/tools/lint/go.sum
	@echo "building golangci-lint (about two minutes, once)" && mkdir -p $(TOOLS) && \
	  $(GO) -C hack/tools/lint build -o $(CURDIR)/$@ sigs.k8s.io/kube-api-linter/cmd/golangci-lint-kube-api-linter && touch $@

$(TOOLS)/shellcheck: hack/shellcheck.sh
	@hack/shellcheck.sh $@

# System packages, only when missing.
.PHONY: gcc protoc
gcc:
	@hack/need.sh gcc:gcc gcc:libc6-dev
protoc:
	@hack/need.sh protoc:protobuf-compiler
