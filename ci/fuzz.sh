#!/usr/bin/env bash
# fuzz.sh SECONDS runs all fuzz targets within that time, without that of the compiler.
# fuzz.sh each SECONDS runs each fuzz target for that time.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
targets=()
for dir in "${modules[@]}"; do
	packages=$(cd "$dir" && go list -f '{{.Dir}}' ./...)
	while read -r package; do
		# shellcheck disable=SC2013 # one word a line
		for name in $(cat "$package"/*_test.go 2>/dev/null | grep -oE '^func Fuzz[A-Za-z0-9]+' | cut -d' ' -f2); do
			targets+=("$package $name")
		done
	done <<<"$packages"
done
if [ "$1" = each ]; then each=$2; else each=$((2 * $1 / ${#targets[@]} + 1)); fi

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
one() {
	local package=${1% *} name=${1#* } log result=0
	log=$(mktemp "$logs/XXXXXX")
	(cd "$package" && go test -run='^$' -fuzz="^$name\$" -fuzztime="${each}s" -fuzzminimizetime=1x -parallel=1 .) \
		>"$log" 2>&1 || result=$?
	printf '\n== %s, %s s\n' "$name" "$each"
	cat "$log"
	[ "$result" != 0 ] || return 0
	# golang/go#75804, fixed in Go 1.27: at the end of its time a run can report its own deadline.
	if grep -q '^ *context deadline exceeded$' "$log" && ! grep -qE 'Failing input|panic|hung|terminated' "$log"; then
		echo "$name found nothing: the error is the deadline of -fuzztime (golang/go#75804)"
		return 0
	fi
	return 1
}
export -f one
export each logs
# Two targets at a time, because most of a short run is the compiler and the linker.
printf '%s\0' "${targets[@]}" | xargs -0 -P 2 -I '{}' bash -c 'one "$1"' one '{}' || exit 1
