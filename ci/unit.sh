#!/usr/bin/env bash
# Runs the tests of all modules, except those of ci/brokers.sh. Arguments are passed to go test.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
need gcc curl perl php python3 node promtool
status=0
for dir in "${modules[@]}"; do
	waits "$dir" || race "$dir" "$@" || status=1
done
for dir in "${newer[@]}"; do
	! has_go "$dir" && continue
	say "go test in $dir/"
	(cd "$dir" && GOWORK=off go test -timeout=15m "$@" ./...) || status=1
done
# The race detector makes this test too slow for its 100,000 names.
say "go test -run ClientsAddNoSeries in metrics/prometheus/"
(cd metrics/prometheus && go test -vet=off -ldflags=-w -run ClientsAddNoSeries "$@" .) || status=1
# Users build without the workspace, which can select newer dependencies than go.mod does.
say "go build, and the protocol's tests, without the workspace"
GOWORK=off go build ./... || status=1
GOWORK=off go test -shuffle=on -timeout=15m -run 'Golden|Protocol|PHP' "$@" . ./backend || status=1
exit "$status"
