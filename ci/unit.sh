#!/usr/bin/env bash
# Tests all modules. Arguments go to go test.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
need gcc node redis-server redis-sentinel nats-server
status=0
for dir in "${modules[@]}"; do
	say "go test -race in ${dir#"$PWD"}/"
	# A package may take long on a busy machine. What hangs is shown all the same.
	(cd "$dir" && go test -race -shuffle=on -timeout=15m "$@" ./...) || status=1
done
if has_go bench; then
	say "go test in bench/"
	(cd bench && GOWORK=off go test -timeout=15m "$@" ./...) || status=1
fi
# As users get it: the workspace may pick newer dependencies than go.mod names.
say "go test without the workspace"
GOWORK=off go test -shuffle=on -timeout=15m "$@" ./... || status=1
exit "$status"
