#!/usr/bin/env bash
# Compares the tree with an earlier commit, BASE, whose server takes turns with that of the
# tree. BASE is the first release candidate by default. It prints medians, the ratio to BASE
# and the range of the ratios of single rounds. Arguments are passed to every call of
# bench/main.go.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
has_go bench || die "bench needs Go $(sed -n 's/^go //p' bench/go.mod), this is $(go env GOVERSION)"
base=${BASE:-f76b4aa}
ulimit -n "$(ulimit -Hn)"

GOWORK=off ci/build_at.sh "$base" bench/server "bench/bin/base-$base-server"
compare() {
	say "$1"
	shift
	(cd bench && GOWORK=off go run . -also "base=bin/base-$base-server" -one pushy,base "$@")
}
compare "1,000 subscribers" -n 1000 -window 8,1,64 -rounds 7 "$@"
compare "5,000 subscribers" -n 5000 -window 8 -rounds 5 "$@"
