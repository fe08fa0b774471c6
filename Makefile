# make help lists the targets.
SHELL := /bin/bash
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
# By the linker, for go build stamps no commit where GOFLAGS has -buildvcs=false.
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS := -s -w -X citadel/cmd/internal/daemon.version=$(VERSION) -X citadel/cmd/internal/daemon.commit=$(COMMIT)
KUBERNETES := v1.36.3
CONTROLPLANE_LDFLAGS := -s -w -X k8s.io/component-base/version.gitVersion=$(KUBERNETES) -X k8s.io/client-go/pkg/version.gitVersion=$(KUBERNETES)
# Without it grpc links golang.org/x/net/trace, whose templates keep the linker
# from leaving out what nobody calls: binaries are half as large again.
TAGS := -tags grpcnotrace
INPUTS_OF_FUZZING ?= 4000x
ARCH ?= amd64
IMAGE ?= citadel:latest
AGENT_IMAGE ?= node_agent:latest
BIN ?= bin
PREFIX ?= /usr/local
UNITS := $(DESTDIR)/usr/lib/systemd/system

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

.PHONY: demo
demo: deps controlplane ## play the tutorial of mTLS policy in real pods, step by step (as root; ARGS=-yes: without waiting for Enter)
	@$(GO) build -o bin/demo ./integration/tutorial/demo
	@exec bin/demo $(ARGS)

.PHONY: build
build: ## build bin/citadel, bin/citadelctl and bin/node_agent
	@echo "==> building citadel, citadelctl and node_agent (a first build takes a minute or two)"
	@CGO_ENABLED=0 $(GO) build -trimpath $(TAGS) -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

# Units, users and folders go where the packages put theirs, so that one takes the
# place of the other. What an administrator writes, in /etc, counts before it.
PROGRAMS := node_agent citadel citadelctl
SERVICES := istio-auth-node-agent-redirect.service istio-auth-node-agent.service citadel.service

.PHONY: install
install: ## put programs, units, users and folders where they belong (DESTDIR=, PREFIX=/usr/local; starts nothing)
	@for program in $(PROGRAMS); do test -x $(BIN)/$$program || { $(MAKE) --no-print-directory build; break; }; done
	@install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin $(addprefix $(BIN)/,$(PROGRAMS))
	@install -D -m 0644 -t $(UNITS) $(addprefix systemd/,$(SERVICES))
	@sed -i 's|/usr/local/bin/|$(PREFIX)/bin/|' $(addprefix $(UNITS)/,$(SERVICES))
	@for name in istio-auth-node-agent citadel; do install -D -m 0644 systemd/$$name.sysusers $(DESTDIR)/usr/lib/sysusers.d/$$name.conf; done
	@install -D -m 0644 systemd/istio-auth-node-agent.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/istio-auth-node-agent.conf
	@test -n '$(DESTDIR)' || { systemd-sysusers istio-auth-node-agent.conf citadel.conf && systemd-tmpfiles --create istio-auth-node-agent.conf; }
	@$(LIVE) systemctl daemon-reload
	@echo "installed; nothing is enabled: systemctl enable --now istio-auth-node-agent (or citadel)"

.PHONY: uninstall
uninstall: ## stop and remove what install put there (keys, certificates, state and users stay)
	@$(LIVE) systemctl --quiet disable --now $(SERVICES)
	@rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,$(PROGRAMS)) $(addprefix $(UNITS)/,$(SERVICES))
	@for name in istio-auth-node-agent citadel; do \
		rm -f $(DESTDIR)/usr/lib/sysusers.d/$$name.conf $(DESTDIR)/usr/lib/tmpfiles.d/$$name.conf; \
	done
	@$(LIVE) systemctl daemon-reload

# LIVE goes before what concerns a systemd that runs, and this machine's.
LIVE = test -n '$(DESTDIR)' || ! test -d /run/systemd/system ||

# A version that packages can be ordered by: the tag's with the commits since,
# else the commit's date.
TAG = $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null)
PACKAGE_VERSION ?= $(or $(subst -,+,$(patsubst v%,%,$(TAG))),$(shell git log -1 --format=0.0.0+%cd.%h --date=format:%Y%m%d%H%M%S 2>/dev/null),0.0.0)
FOR_PACKAGES = $(abspath $(BIN))/linux-$(ARCH)

.PHONY: packages
packages: ## make bin/*.deb and bin/*.rpm, of the agent and of citadel (ARCH=amd64, PACKAGE_VERSION=)
	@echo "==> packages of version $(PACKAGE_VERSION) (the first time builds nfpm)"
	@mkdir -p $(FOR_PACKAGES)
	@CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) $(GO) build -trimpath $(TAGS) -ldflags '$(LDFLAGS)' -o $(FOR_PACKAGES)/ ./cmd/...
	@for name in istio-auth-node-agent citadel; do \
		stage=$(FOR_PACKAGES)/$$name.package && mkdir -p $$stage && \
		for file in $$name.yaml postinstall preremove postremove; do \
			sed 's|@name@|'$$name'|g; s|@stage@|'$$stage'|; s|@bin@|$(FOR_PACKAGES)|; s|@arch@|$(ARCH)|; s|@version@|$(PACKAGE_VERSION)|' \
				systemd/packages/$$file.in >$$stage/$$file || exit 1; \
		done && \
		for packager in deb rpm; do \
			(cd systemd/packages && SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 0) \
				$(GO) tool nfpm package --config $$stage/$$name.yaml --packager $$packager --target $(abspath $(BIN))/) || exit 1; \
		done; \
	done

.PHONY: image
image: ## make bin/citadel.tar and bin/node_agent.tar, container images, and print their digests (IMAGE=, AGENT_IMAGE=name:tag, ARCH=amd64, VERSION=)
	@mkdir -p bin/linux-$(ARCH)
	@CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) $(GO) build -trimpath -buildvcs=false $(TAGS) -ldflags '$(LDFLAGS)' -o bin/linux-$(ARCH)/ ./cmd/citadel ./cmd/node_agent
	@printf '%s ' '$(IMAGE)' && $(GO) run -trimpath ./deploy/image -binary bin/linux-$(ARCH)/citadel -name '$(IMAGE)' -version '$(VERSION)' -o bin/citadel.tar
	@printf '%s ' '$(AGENT_IMAGE)' && $(GO) run -trimpath ./deploy/image -binary bin/linux-$(ARCH)/node_agent -name '$(AGENT_IMAGE)' -version '$(VERSION)' -o bin/node_agent.tar

.PHONY: controlplane
controlplane: ## build bin/controlplane: etcd, kube-apiserver, kube-controller-manager and kubectl in one
	@test -x bin/controlplane || echo "==> building Kubernetes $(KUBERNETES) and etcd from source: the first time takes 5 to 10 minutes; each package is shown"
	@cd integration/controlplane && CGO_ENABLED=0 $(GO) build $(if $(wildcard bin/controlplane),,-v) -trimpath -ldflags '$(CONTROLPLANE_LDFLAGS)' \
		-o ../../bin/controlplane.new . 2> >(sed -u 's/^/    /' >&2)
	@mv bin/controlplane.new bin/controlplane

.PHONY: test
test: deps lint build controlplane ## everything: lint, unit, race, scripts, fuzz, and a real API server
	@echo "==> go test -race (the first run builds everything with the race detector: some minutes)"
	@$(GO) test -race -timeout 30m ./...
	@echo "==> go test of integration/controlplane"
	@cd integration/controlplane && CONTROLPLANE_BINARY=$(CURDIR)/bin/controlplane CGO_ENABLED=0 $(GO) test -trimpath -timeout 20m ./supervisor ./node ./dns
	@echo "==> go test of integration/chart (the first run builds Helm's engine)"
	@cd integration/chart && CGO_ENABLED=0 $(GO) test .
	@$(MAKE) --no-print-directory fuzz
	@test "$$(id -u)" = 0 || echo "==> NOT TESTED: integration/pods, integration/hosts, integration/tutorial and the node of integration/controlplane, which need root" >&2

.PHONY: lint
lint: ## gofmt, go mod tidy, go vet, staticcheck
	@echo "==> gofmt, go mod tidy, go vet, staticcheck"
	@unformatted=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); test -z "$$unformatted" || { echo "not formatted: $$unformatted"; exit 1; }
	@$(GO) mod tidy -diff
	@$(GO) vet ./...
	@$(GO) tool staticcheck ./...
	@cd integration/controlplane && $(GO) mod tidy -diff && $(GO) vet ./supervisor ./node ./dns # the rest links all of Kubernetes
	@cd integration/chart && $(GO) mod tidy -diff && $(GO) vet .
	@cd integration/istioclients && $(GO) mod tidy -diff && $(GO) vet .
	@cd systemd/packages && $(GO) mod tidy -diff
	@cd integration/tutorial/httpbin && $(GO) mod tidy -diff

.PHONY: fuzz
fuzz: ## run each fuzz target with INPUTS_OF_FUZZING (4000x), and not for a time: at its end Go 1.26 may call that a failure (golang/go#75804)
	@for package in $$($(GO) list ./...); do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' $$($(GO) list -f '{{range .TestGoFiles}}{{$$.Dir}}/{{.}} {{end}}{{range .XTestGoFiles}}{{$$.Dir}}/{{.}} {{end}}' $$package) /dev/null | cut -c6-); do \
			echo "==> fuzz $$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(INPUTS_OF_FUZZING) -fuzzminimizetime 50x $$package || exit 1; \
		done; \
	done

.PHONY: bench
bench: PACKAGES += haproxy:/usr/sbin/haproxy
bench: deps image build controlplane ## measure speed and memory beside floors of the same run (takes minutes)
	@$(GO) build -o bin/bench ./integration/bench
	@bin/bench $(ARGS)

PROTOS := istio/v1/auth/ca_service.proto istio/v1/auth/istioca.proto citadel/v1/agent.proto citadel/v1/policy.proto

.PHONY: generate
generate: ## bring go.mod and generated code up to date (needs Debian's protobuf-compiler and libprotobuf-dev)
	@protoc -I proto --plugin=protoc-gen-go=$$($(GO) tool -n protoc-gen-go) --plugin=protoc-gen-go-grpc=$$($(GO) tool -n protoc-gen-go-grpc) \
		--go_out=. --go_opt=module=citadel --go-grpc_out=. --go-grpc_opt=module=citadel $(PROTOS)
	@$(GO) mod tidy
	@cd integration/controlplane && $(GO) mod tidy
	@cd integration/chart && $(GO) mod tidy
	@cd integration/istioclients && $(GO) mod tidy
	@cd systemd/packages && $(GO) mod tidy
	@cd integration/tutorial/httpbin && $(GO) mod tidy

# What the tests need of a Debian machine beside Go, make and git: a C compiler
# for the race detector, and the TLS libraries that certificates are verified
# with; promtool for the rules of alerts.
PACKAGES := gcc:gcc libc6-dev:/usr/include/stdlib.h openssl:openssl gnutls-bin:certtool prometheus:promtool \
	containerd:containerd runc:/usr/sbin/runc containernetworking-plugins:/usr/lib/cni/ptp nftables:/usr/sbin/nft iproute2:ip \
	systemd:/lib/systemd/systemd dbus:dbus-daemon polkitd:/usr/lib/polkit-1/polkitd rpm:rpm nginx-light:/usr/sbin/nginx curl:curl

.PHONY: deps
deps: ## install the Debian packages that the tests need (as root)
	@missing=; for p in $(PACKAGES); do \
		name=$${p%%:*}; probe=$${p#*:}; \
		command -v $$probe >/dev/null || test -e $$probe || missing="$$missing $$name"; \
	done; \
	test -z "$$missing" || { \
		echo "==> installing$$missing"; \
		test "$$(id -u)" = 0 || { echo "not root: install$$missing, then run make test again"; exit 1; }; \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; }

.PHONY: clean
clean: ## remove what was built
	@rm -rf bin
