#!/usr/bin/env bash
# fuzz.sh SECONDS runs all fuzz targets within that time, not counting the compiler's.
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

fuzz() {
	local package=${1% *} name=${1##* } output
	say "$name, $each s"
	output=$(cd "$package" && go test -run='^$' -fuzz="^$name\$" -fuzztime="${each}s" -fuzzminimizetime=1x -parallel=1 . 2>&1)
	local status=$?
	printf '%s\n' "$output"
	[ "$status" != 0 ] || return 0
	# golang/go#75804, fixed in Go 1.27: at the end of its time a run can report its own deadline.
	if grep -q '^ *context deadline exceeded$' <<<"$output" &&
		! grep -qE 'Failing input|panic|hung|terminated' <<<"$output"; then
		echo "$name found nothing: the error is the deadline of -fuzztime (golang/go#75804)"
		return 0
	fi
	return 1
}
export each
# Most of a short run is the compiler and the linker.
printf '%s\0' "${targets[@]}" | in_pairs fuzz
