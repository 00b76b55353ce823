#!/usr/bin/env bash
# fuzz.sh SECONDS: all targets, in that time together.
# fuzz.sh each SECONDS: that time for each.
source "$(dirname "$0")/modules.sh"
targets=()
for dir in "${modules[@]}"; do
	while read -r package; do
		for name in $(cat "$package"/*_test.go 2>/dev/null | grep -oE '^func Fuzz[A-Za-z0-9]+' | cut -d' ' -f2); do
			targets+=("$package $name")
		done
	done < <(cd "$dir" && go list -f '{{.Dir}}' ./...)
done
if [ "$1" = each ]; then each=$2; else each=$(($1 / ${#targets[@]} + 1)); fi
for target in "${targets[@]}"; do
	read -r package name <<<"$target"
	say "$name, $each s"
	(cd "$package" && go test -run='^$' -fuzz="^$name\$" -fuzztime="${each}s" -fuzzminimizetime=1x .)
done
