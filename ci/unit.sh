#!/usr/bin/env bash
# Tests all modules. Arguments go to go test.
source "$(dirname "$0")/modules.sh"
need node nodejs           # JSON is compared with what it says
need gcc "gcc libc6-dev" # the race detector is C
need redis-server redis-server # brokers/redis runs its own, on free ports
need redis-sentinel redis-sentinel
need nats-server nats-server # as brokers/nats does
for dir in "${modules[@]}"; do
	say "go test -race in ${dir#"$PWD"}/"
	(cd "$dir" && go test -race -shuffle=on "$@" ./...)
done
# As users get it: the workspace may pick newer dependencies than go.mod names.
say "go test without the workspace"
GOWORK=off go test -shuffle=on "$@" ./...
