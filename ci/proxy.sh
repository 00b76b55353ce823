#!/usr/bin/env bash
# proxy.sh DIR VERSION releases the tree, including changes that are not committed, in the new
# repository DIR/repo. DIR/env has the settings with which the go command gets that version from
# the file system, and all other modules as usual.
#
# The go command itself makes the modules from the repository's tags, as it does for users, so
# they have exactly the bytes and hashes that they will have when the same tree is released. The
# order matters, because a module's go.sum has the hashes of the modules that it requires.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
[ $# = 2 ] || die "usage: ci/proxy.sh DIR VERSION"
need git
mkdir -p "$1"
dir=$(cd "$1" && pwd)
version=$2
repo=$dir/repo

mkdir "$repo"
git ls-files -co --exclude-standard | while IFS= read -r file; do
	[ ! -e "$file" ] || printf '%s\n' "$file"
done | tar -cf - -T - | tar -xf - -C "$repo"

cat >"$dir/gitconfig" <<END
[user]
	name = release
	email = release@localhost
[init]
	defaultBranch = main
[safe]
	directory = *
[url "file://$repo"]
	insteadOf = https://$root_path
END
proxy=file://$dir/modules/cache/download,file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)
cat >"$dir/env" <<END
export GIT_CONFIG_GLOBAL='$dir/gitconfig' GIT_CONFIG_NOSYSTEM=1
export GOWORK=off GOSUMDB=off GOPROXY='$proxy' GOMODCACHE='$dir/cache'
export GOFLAGS='-modcacherw -trimpath'
END
# shellcheck source=/dev/null
source "$dir/env"

# quiet COMMAND... prints the output of the command only if it fails.
quiet() { "$@" >"$dir/log" 2>&1 || { cat "$dir/log" >&2 && return 1; }; }

cd "$repo"
git init -q
set_version "$version"
for module in "${released[@]}"; do
	(cd "$module" && quiet go mod tidy)
	git add -A
	git commit -q --allow-empty -m "$module $version"
	git tag "$(tag_of "$module" "$version")"
	path=$(path_of "$module")
	GOPRIVATE="$root_path,$root_path/*" GOMODCACHE=$dir/modules quiet go mod download "$path@$version"
	printf '%s\n' "$version" >"$dir/modules/cache/download/$path/@v/list"
done
# All tags of a release are at one commit, and the modules at that commit are the same.
for module in "${released[@]}"; do
	git tag -f "$(tag_of "$module" "$version")" >/dev/null
done
