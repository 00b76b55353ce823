#!/usr/bin/env bash
# Runs the tests of all modules. Arguments are passed to go test.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
need gcc node redis-server redis-sentinel nats-server
status=0
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# The time limit is long, because the machine can be busy; it still ends a test that hangs.
race() {
	say "go test -race in ${1#"$PWD"}/"
	(cd "$1" && shift && go test -race -shuffle=on -timeout=15m "$@" ./...)
}

# The brokers' tests mostly wait for leases and for servers that start, so two modules run at a
# time.
waiting=()
finish() {
	for number in ${waiting[@]+"${waiting[@]}"}; do
		wait "$(cat "$logs/$number.pid")" || status=1
		cat "$logs/$number"
	done
	waiting=()
}
number=0
for dir in "${modules[@]}"; do
	case $dir in
	*/broker/* | */test/cluster) ;;
	*)
		race "$dir" "$@" || status=1
		continue
		;;
	esac
	number=$((number + 1))
	race "$dir" "$@" >"$logs/$number" 2>&1 &
	echo $! >"$logs/$number.pid"
	waiting+=("$number")
	[ "${#waiting[@]}" -lt 2 ] || finish
done
finish
if has_go bench; then
	say "go test in bench/"
	(cd bench && GOWORK=off go test -timeout=15m "$@" ./...) || status=1
fi
# Users build without the workspace, which can select newer dependencies than go.mod does.
say "go build, and the protocol's tests, without the workspace"
GOWORK=off go build ./... || status=1
GOWORK=off go test -shuffle=on -timeout=15m -run 'Golden|Protocol|PHP' "$@" . ./trigger || status=1
exit "$status"
