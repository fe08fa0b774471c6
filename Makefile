# make help lists the targets.
SHELL := /bin/bash
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
LDFLAGS := -s -w -X citadel/cmd/internal/daemon.version=$(VERSION)
KUBERNETES := v1.36.3
SECONDS_OF_FUZZING ?= 5s

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make run ONCE=1                stop after the table"
	@echo "  make run KUBECONFIG=path       use an existing cluster"
	@echo "  make run ARGS='--workload-cert-ttl 1m'   further flags for citadel"

.PHONY: run
run: build controlplane ## show Citadel at work in a local control plane
	@$(GO) build -o bin/run ./integration/run
	@exec bin/run $(if $(ONCE),-once) $(if $(filter command line,$(origin KUBECONFIG)),-kubeconfig '$(KUBECONFIG)') -args '$(ARGS)'

.PHONY: build
build: ## build bin/citadel and bin/citadelctl
	@echo "==> building citadel and citadelctl (a first build takes a minute or two)"
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: controlplane
controlplane: ## build bin/controlplane: etcd, kube-apiserver, kube-controller-manager and kubectl in one
	@test -x bin/controlplane || echo "==> building Kubernetes $(KUBERNETES) and etcd from source: the first time takes 5 to 10 minutes; each package is shown"
	@cd integration/controlplane && CGO_ENABLED=0 $(GO) build $(if $(wildcard bin/controlplane),,-v) -trimpath \
		-ldflags '-s -w -X k8s.io/component-base/version.gitVersion=$(KUBERNETES)' -o ../../bin/controlplane . 2> >(sed -u 's/^/    /' >&2)

