#!/usr/bin/env bash
# Runs the tests of all modules. Arguments are passed to go test.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
need gcc curl perl php python3 node redis-server redis-sentinel nats-server
status=0

# The time limit is long, because the machine can be busy; it still ends a test that hangs.
race() {
	say "go test -race in ${1#"$PWD"}/"
	(cd "$1" && shift && go test -race -shuffle=on -timeout=15m "$@" ./...)
}

# The brokers' tests mostly wait, for leases and for servers that start, so two modules run at a
# time. The slowest comes first.
waiting=()
for dir in "${modules[@]}"; do
	case $dir in
	*/test/cluster) waiting=("$dir" ${waiting[@]+"${waiting[@]}"}) ;;
	*/broker/*) waiting+=("$dir") ;;
	*) race "$dir" "$@" || status=1 ;;
	esac
done
printf '%s\0' "${waiting[@]}" | in_pairs race "$@" || status=1
if has_go bench; then
	say "go test in bench/"
	(cd bench && GOWORK=off go test -timeout=15m "$@" ./...) || status=1
fi
# Users build without the workspace, which can select newer dependencies than go.mod does.
say "go build, and the protocol's tests, without the workspace"
GOWORK=off go build ./... || status=1
GOWORK=off go test -shuffle=on -timeout=15m -run 'Golden|Protocol|PHP' "$@" . ./backend || status=1
exit "$status"
