# shellcheck shell=bash
# Sourced by the other scripts. It runs with bash 3.2, which macOS has, as they all do:
# ci/rules.sh refuses what a newer bash is needed for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n== %s\n' "$*"; }
die() {
	printf '%s\n' "$*" >&2
	exit 1
}

command -v go >/dev/null || die "Go 1.25 or newer is needed: https://go.dev/doc/install"

# The directories of the workspace's modules. bench is not one of them: it needs a newer
# Go than pushy does, so it is built with GOWORK=off and has replace directives of its own.
list=$(go list -m -f '{{.Dir}}')
modules=()
while IFS= read -r dir; do
	modules+=("$dir")
done <<<"$list"

# has_go reports whether this Go is new enough for the module in a directory.
has_go() {
	local want have
	want=$(sed -n 's/^go //p' "$1/go.mod")
	have=$(go env GOVERSION)
	[ "$(printf '%s\n%s\n' "$want" "${have#go}" | sort -t. -k1,1n -k2,2n -k3,3n | head -n 1)" = "$want" ]
}

# What `make test` needs beside Go: a command, the Debian packages that have it, and why
# it is needed. More than one package is written with blanks between.
needed() {
	cat <<-'END'
		git|git|it lists the files of the project, and makes the release that is tried out
		gcc|gcc libc6-dev|the race detector is linked with it
		node|nodejs|JSON is compared with what JavaScript makes of it; the client's tests run in it
		npm|npm|it installs the tools that build the client and drive the browsers
		redis-server|redis-server|broker/redis and test/cluster start servers of their own
		redis-sentinel|redis-sentinel|broker/redis and test/cluster are tested with a failover
		nats-server|nats-server|broker/nats and test/cluster start servers of their own
		chromium|chromium|the client and the examples are tested in it; PUSHY_CHROMIUM names another
		firefox-esr|firefox-esr|the client is tested in it; PUSHY_FIREFOX names another
	END
}

# have COMMAND reports whether a command is there, or the variable that stands for it is set.
have() {
	case $1 in
	chromium) [ -n "${PUSHY_CHROMIUM:-}" ] && return ;;
	firefox-esr) [ -n "${PUSHY_FIREFOX:-}" ] && return ;;
	esac
	command -v "$1" >/dev/null
}

# need COMMAND... installs what is missing, or says how that is done where it cannot.
need() {
	local command packages
	for command in "$@"; do
		! have "$command" || continue
		packages=$(needed | sed -n "s/^$command|\([^|]*\)|.*/\1/p")
		[ -n "$packages" ] || die "ci/modules.sh does not name the package of $command"
		command -v apt-get >/dev/null ||
			die "$command is needed and not installed. On Debian: apt-get update && apt-get install -y $packages"
		[ "$(id -u)" = 0 ] ||
			die "$command is needed and not installed. Run: sudo sh -c 'apt-get update && apt-get install -y $packages'"
		say "installing $packages, for $command"
		apt-get -o DPkg::Lock::Timeout=300 update
		# shellcheck disable=SC2086 # several packages are several words
		DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y $packages
	done
}

# The modules that are released, each after those that it requires.
# shellcheck disable=SC2034
released=(. broker/nats broker/redis cmd/pushy-server examples/cluster)
# Those that are not, with replace directives of their own.
# shellcheck disable=SC2034
unreleased=(bench test/cluster)
root_path=$(sed -n 's/^module //p' go.mod)

path_of() { if [ "$1" = . ]; then echo "$root_path"; else echo "$root_path/$1"; fi; }
tag_of() { if [ "$1" = . ]; then echo "$2"; else echo "$1/$2"; fi; }

# The version by which the modules of the tree require each other.
tree_version() { sed -n "s|^[[:blank:]]*$root_path \(v[^ ]*\).*|\1|p" cmd/pushy-server/go.mod; }

# set_version VERSION lets the modules below the current directory require each other at it.
set_version() {
	local file
	for file in broker/*/go.mod cmd/*/go.mod examples/cluster/go.mod bench/go.mod test/cluster/go.mod go.work; do
		sed "s|\(${root_path}[^ ]*\) v[0-9][^ ]*|\1 $1|" "$file" >"$file.new"
		cat "$file.new" >"$file"
		rm "$file.new"
	done
}
