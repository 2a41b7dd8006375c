# The two commands: `make up` starts the cloud with a demo server on a real hypervisor, `make test` passes all tests.
STATE  ?= $(CURDIR)/state
LISTEN ?= 127.0.0.1:8774
export STATE LISTEN

VERSION := $(shell git describe --always --dirty 2>/dev/null || echo development)

.PHONY: up down clean build test bench conformance guest guests moves lint help

help:      ## this list
	@grep -E '^[a-z]+: .*##' Makefile | sed 's/:.*##/\t/'

build:     ## build bin/kilonova, one static binary
	@CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/kilonova ./cmd/kilonova

up: build  ## install what is missing, start the cloud, boot a demo server, say what to type next
	@scripts/up.sh

down:      ## stop the cloud and its guests; leaves no process, bridge, tap or rule
	@scripts/down.sh

clean: down ## down, and remove the state
	@scripts/clean.sh

test:      ## all tests that need no hypervisor guests: unit, every step of every operation, processes, the openstack client
	@scripts/test.sh

guest:     ## build the small guest image into STATE/guest
	@scripts/install.sh guest && test/guest/build.sh $(STATE)/guest

guests:    ## the suite of real guests on QEMU; it needs root and touches nothing outside its own namespaces
	@scripts/install.sh hypervisor machines guest browser && KILONOVA_GUESTS=1 go test -count=1 -timeout 85m -v ./test/guests

moves:     ## real guests moved between three hosts on this machine: live, cold, shelved, evacuated; root, in namespaces of its own
	@scripts/install.sh hypervisor guest && KILONOVA_GUESTS=1 go test -count=1 -timeout 85m -v ./test/moves

conformance: build ## Tempest's smoke tests on the fake driver
	@scripts/install.sh conformance && test/conformance/run.sh smoke

bench: build ## measure: see test/perf
	@test/perf/run.sh

lint:
	@test -z "$$(gofmt -l .)" && go vet ./...
