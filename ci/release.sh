#!/usr/bin/env bash
# release.sh VERSION checks whether HEAD can be released, and prints the tags that it would get.
# release.sh --prepare VERSION writes the version and the hashes into go.mod, go.sum and go.work.
# release.sh --tag VERSION checks the same, and makes the tags, in this repository only.
# release.sh --push VERSION checks that the tags are at HEAD, and pushes them to origin in their order.
# CONTRIBUTING.md has the steps of a release.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
need git
action=--check
case ${1:-} in
--*)
	action=$1
	shift
	;;
esac
[ $# = 1 ] || die "usage: ci/release.sh [--prepare | --tag | --push] VERSION"
version=$1
printf '%s\n' "$version" | grep -qE '^v(0|1)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?$' ||
	die "$version is not a version such as v0.1.0; from v2 on the module paths would have to change"

failed=0
wrong() {
	printf '  %s\n' "$*" >&2
	failed=1
}
tags=()
for module in "${released[@]}"; do
	tags+=("$(tag_of "$module" "$version")")
done

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
files=(go.work bench/go.mod test/cluster/go.mod test/streams/go.mod)
for module in "${released[@]}"; do
	files+=("$module/go.mod" "$module/go.sum")
done

prepare() {
	local file
	ci/proxy.sh "$dir" "$version"
	for file in "${files[@]}"; do
		cmp -s "$dir/repo/$file" "$file" || {
			cat "$dir/repo/$file" >"$file"
			echo "$file is changed"
		}
	done
	echo "Now commit them with CHANGELOG.md's section \"## $version (date)\"."
}

check() {
	local file tag
	say "can $(git rev-parse --short HEAD) be $version?"
	[ -z "$(git status --porcelain)" ] || wrong "the tree is not clean: commit or remove what git status shows"
	# The heading of the section must have the version and a date, and the section must not be empty.
	awk -v heading="## $version" '
		/^## / { inside = index($0, heading " (20") == 1 && /\(20[0-9][0-9]-[0-9][0-9]-[0-9][0-9]\)$/; next }
		inside && NF { found = 1 }
		END { exit !found }
	' CHANGELOG.md || wrong "CHANGELOG.md has no section \"## $version (date)\" with something in it; the date is like 2026-12-01"
	! git ls-files '*go.mod' | grep -vE '^(bench|test)/' | xargs grep -l '^replace' >&2 || wrong "a go.mod has replace directives, which go install refuses"
	for file in $(git ls-files '*go.mod' go.work | grep -v '^go.mod$'); do
		sed -n "s|.*\(${root_path}[^ ]*\) \(v[0-9][^ ]*\).*|\1 \2|p" "$file" | while read -r path has; do
			[ "$has" = "$version" ] || echo "$file requires $path $has: run ci/release.sh --prepare $version"
		done
	done >"$dir/versions"
	while IFS= read -r line; do wrong "$line"; done <"$dir/versions"
	[ "$failed" = 0 ] || return 0
	ci/proxy.sh "$dir" "$version"
	for file in "${files[@]}"; do
		cmp -s "$dir/repo/$file" "$file" || wrong "$file is not as go mod tidy leaves it: run ci/release.sh --prepare $version"
	done
}

# check_tags missing checks that none of the tags exists, here or at origin: in a clone without
# tags, a tag can exist only at origin. check_tags present checks that all tags are at HEAD.
check_tags() {
	local tag remote=
	if [ "$1" = missing ] && git remote get-url origin >/dev/null 2>&1; then
		remote=$(GIT_TERMINAL_PROMPT=0 git ls-remote --tags origin) || wrong "the tags at origin cannot be read"
	fi
	for tag in "${tags[@]}"; do
		if grep -qE "[[:space:]]refs/tags/$tag\$" <<<"$remote"; then
			wrong "the tag $tag exists at origin: a version that may be in use never changes, take the next one"
		elif ! git rev-parse -q --verify "refs/tags/$tag" >/dev/null; then
			[ "$1" = missing ] || wrong "there is no tag $tag: run ci/release.sh --tag $version"
		elif [ "$1" = missing ]; then
			wrong "the tag $tag exists: a version that may be in use never changes, take the next one"
		else
			[ "$(git rev-parse "$tag^{commit}")" = "$(git rev-parse HEAD)" ] || wrong "the tag $tag is not at HEAD"
		fi
	done
}

end_if_failed() { [ "$failed" = 0 ] || die "No tag was made and nothing was pushed."; }

case $action in
--prepare) prepare ;;
--check)
	check_tags missing
	check
	end_if_failed
	echo "It can. ci/release.sh --tag $version makes these tags, in this order:"
	printf '  %s\n' "${tags[@]}"
	;;
--tag)
	check_tags missing
	check
	end_if_failed
	for tag in "${tags[@]}"; do
		git tag -a -m "$tag" "$tag"
		echo "tagged $tag"
	done
	;;
--push)
	[ -z "$(git status --porcelain)" ] || wrong "the tree is not clean"
	check_tags present
	end_if_failed
	# One after another, so that no module is available before those that it requires.
	git push origin HEAD
	for tag in "${tags[@]}"; do
		git push origin "refs/tags/$tag"
	done
	;;
*) die "unknown: $action" ;;
esac
