#!/usr/bin/env bash
# Compares the tree with an earlier commit, BASE, whose server takes turns with that of the
# tree: bursts and single events of 60, 200 and 4,000 bytes, and the latency at a steady rate.
# BASE is the first release candidate by default. It prints medians, the ratio to BASE and
# the range of the ratios of single rounds. With PART=NUMBER only one of the comparisons is
# made; each takes at most two minutes. Arguments are passed to every call of bench/main.go.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
has_go bench || die "bench needs Go $(sed -n 's/^go //p' bench/go.mod), this is $(go env GOVERSION)"
base=${BASE:-f76b4aa}
ulimit -n "$(ulimit -Hn)"

GOWORK=off ci/build_at.sh "$base" bench/server "bench/bin/base-$base-server"
part=0
compare() {
	part=$((part + 1))
	[ "${PART:-$part}" = $part ] || return 0
	say "$part: $1"
	shift
	(cd bench && GOWORK=off go run . -also "base=bin/base-$base-server" -one pushy,base "$@")
}
compare "1,000 subscribers" -n 1000 -window 8,1,64 -time 1.5s -rounds 8 "$@"
compare "5,000 subscribers" -n 5000 -window 8 -rounds 6 "$@"
compare "1,000 subscribers, 60 bytes" -n 1000 -window 8,1 -size 60 -time 1.5s -rounds 6 "$@"
compare "1,000 subscribers, 4,000 bytes" -n 1000 -window 8,1 -size 4000 -time 1.5s -rounds 6 "$@"
compare "1,000 subscribers, 50 and 300 events a second" -n 1000 -rate 50,300 -time 4s -rounds 6 "$@"
