#!/usr/bin/env bash
# Runs go mod tidy for all modules. In the tree they require each other at a version that no
# proxy has, so go mod tidy runs in a release of the tree (ci/proxy.sh). The hashes of that
# release are omitted, because every change of the tree changes them; ci/release.sh writes the
# final ones. tidy.sh -diff changes nothing, and fails if there is something to change. The
# second argument is the directory of a release of the tree that ci/proxy.sh has made.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
dir=${2:-}
if [ -z "$dir" ]; then
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	ci/proxy.sh "$dir" "$(tree_version)"
fi

status=0
for module in "${released[@]}"; do
	# For pushy's own modules, keep the hashes in the tree, which are those of a released version.
	awk -v root="$root_path" '
		FILENAME == ARGV[1] { own[$1 " " $2] = $0; next }
		$1 != root && index($1, root "/") != 1 { print; next }
		($1 " " $2) in own { print own[$1 " " $2] }
	' "$module/go.sum" "$dir/repo/$module/go.sum" >"$dir/go.sum"
	cp "$dir/repo/$module/go.mod" "$dir/go.mod"
	for file in go.mod go.sum; do
		cmp -s "$module/$file" "$dir/$file" && continue
		if [ "${1:-}" = -diff ]; then
			diff -u "$module/$file" "$dir/$file" || status=1
		else
			cat "$dir/$file" >"$module/$file"
			echo "$module/$file is changed"
		fi
	done
done
for module in "${unreleased[@]}"; do
	if ! has_go "$module"; then
		echo "$module/ is not checked: it needs a newer Go"
	elif [ "${1:-}" = -diff ]; then
		(cd "$module" && GOWORK=off go mod tidy -diff) || status=1
	else
		(cd "$module" && GOWORK=off go mod tidy)
	fi
done
exit "$status"
