#!/usr/bin/env bash
# All tests that need no guest on a real hypervisor. It installs the openstack client, whose commands are among them.
. "$(dirname "$0")/lib.sh"
scripts/install.sh client hypervisor guest
test -z "$(gofmt -l cmd internal test)" || { gofmt -l cmd internal test; die "these files are not formatted: gofmt -w"; }
go vet ./...
make -s build
KILONOVA_BINARY=$PWD/bin/kilonova go test -timeout 60m ./...
