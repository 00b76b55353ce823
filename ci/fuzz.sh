#!/usr/bin/env bash
# fuzz.sh SECONDS runs all fuzz targets within that time, not counting the compiler's.
# fuzz.sh each SECONDS runs each fuzz target for that time.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
binaries=$(mktemp -d)
trap 'rm -rf "$binaries"' EXIT
cache=$(go env GOCACHE)/fuzz

say "compiling the packages with fuzz targets"
targets=()
for dir in "${modules[@]}"; do
	packages=$(cd "$dir" && go list -f '{{.Dir}} {{.ImportPath}}' ./...)
	while read -r package path; do
		names=$(cat "$package"/*_test.go 2>/dev/null | grep -oE '^func Fuzz[A-Za-z0-9]+' | cut -d' ' -f2 || true)
		[ -n "$names" ] || continue
		# Once for all targets of a package: go test -fuzz would link it again for each.
		binary=$binaries/${path//\//-}.test
		(cd "$package" && go test -c -fuzz=. -vet=off -ldflags=-w -o "$binary" .)
		while read -r name; do
			targets+=("$package $binary $path $name")
		done <<<"$names"
	done <<<"$packages"
done
if [ "$1" = each ]; then each=$2; else each=$((2 * $1 / ${#targets[@]} + 1)); fi

fuzz() {
	local package binary path name output status=0
	read -r package binary path name <<<"$1"
	say "$name, $each s"
	output=$(cd "$package" && "$binary" -test.run='^$' -test.fuzz="^$name\$" -test.fuzztime="${each}s" \
		-test.fuzzminimizetime=1x -test.fuzzcachedir="$cache/$path" -test.parallel=1 -test.timeout=0 2>&1) || status=$?
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
export each cache
# Each target has one worker, and two targets run at a time.
printf '%s\0' "${targets[@]}" | in_pairs fuzz
