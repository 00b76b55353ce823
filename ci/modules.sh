# shellcheck shell=bash
# Sourced by the other scripts. All scripts run with bash 3.2, which macOS has; ci/rules.sh
# rejects syntax that needs a newer bash.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n== %s\n' "$*"; }
export -f say
die() {
	printf '%s\n' "$*" >&2
	exit 1
}

command -v go >/dev/null || die "Go 1.25 or newer is needed: https://go.dev/doc/install"

# The directories of the workspace's modules. The newer ones are not among them, because they need a
# newer Go than pushy: they are built with GOWORK=off and have their own replace directives.
newer=(bench test/streams)
list=$(go list -m -f '{{.Dir}}')
modules=()
while IFS= read -r dir; do
	modules+=("$dir")
done <<<"$list"

# in_pairs FUNCTION ARGUMENT... calls a function with each of the items on its standard input,
# which end with a NUL, and with the arguments. Two calls run at a time, each in a new shell, and
# the output of a call is printed when the call has ended. in_pairs fails if a call fails.
in_pairs() {
	export -f "${1?}"
	# shellcheck disable=SC2016 # the new shell expands it
	xargs -0 -P 2 -I '{}' bash -c '
		output=$("$2" "$1" "${@:3}" 2>&1)
		status=$?
		printf "%s\n" "$output"
		exit "$status"
	' in_pairs '{}' "$@" || return 1
}

# race DIR ARGUMENT... runs the tests of the module in a directory with the race detector. The time
# limit is long, because the machine can be busy; it still ends a test that hangs. ci/lint.sh runs go
# vet, and these binaries need no debug information.
race() {
	say "go test -race in ${1#"$PWD"}/"
	(cd "$1" && shift && go test -race -shuffle=on -timeout=30m -vet=off -ldflags=-w "$@" ./...)
}

# waits DIR reports whether the tests of a module are those of ci/brokers.sh.
waits() {
	case $1 in
	*/test/cluster | */broker/*) ;;
	*) return 1 ;;
	esac
}

# has_go reports whether this Go is new enough for the module in a directory.
has_go() {
	local want have
	want=$(sed -n 's/^go //p' "$1/go.mod")
	have=$(go env GOVERSION)
	[ "$(printf '%s\n%s\n' "$want" "${have#go}" | sort -t. -k1,1n -k2,2n -k3,3n | head -n 1)" = "$want" ]
}

# The programs that `make test` needs in addition to Go: the command, the Debian packages that
# contain it, separated by spaces, and the reason. apt-get does not install a package whose name is
# followed by -, although another one recommends it.
needed() {
	cat <<-'END'
		git|git|lists the files of the project, and makes the test release
		gcc|gcc libc6-dev|links the race detector
		curl|curl|sends the requests of the README and docs
		perl|perl|signs them
		node|nodejs|runs the client's tests, and parses JSON to compare the results with pushy's
		npm|npm|installs the tools that build the client and control the browsers
		php|php-cli|runs a publisher of examples/publishers, and an auth endpoint for the client's tests
		python3|python3|runs a publisher of examples/publishers
		promtool|prometheus prometheus-node-exporter-|checks the alert rules and the text format of the metrics
		redis-server|redis-server|is started by the tests of broker/redis and test/cluster, and by those of the examples
		redis-sentinel|redis-sentinel|is started by the tests of broker/redis and test/cluster, for failovers
		nats-server|nats-server|is started by the tests of broker/nats and test/cluster
		nginx|nginx|stands before the streams of test/sse
		haproxy|haproxy|stands before the streams of test/sse
		caddy|caddy|stands before the streams of test/sse
		chromium|chromium|runs the tests of the client and the examples; PUSHY_CHROMIUM is another path
		firefox-esr|firefox-esr|runs tests of the client; PUSHY_FIREFOX is another path
	END
}

# have COMMAND reports whether a command is installed, or the variable that replaces it is set.
have() {
	case $1 in
	chromium) [ -n "${PUSHY_CHROMIUM:-}" ] && return ;;
	firefox-esr) [ -n "${PUSHY_FIREFOX:-}" ] && return ;;
	esac
	command -v "$1" >/dev/null
}

# need COMMAND... installs the commands that are missing. If it cannot, it prints how to install
# them and ends the script.
need() {
	local missing packages
	missing_of "$@"
	[ -n "$missing" ] || return 0
	command -v apt-get >/dev/null ||
		die "$missing: needed, and not installed. On Debian: apt-get update && apt-get install -y $packages"
	[ "$(id -u)" = 0 ] ||
		die "$missing: needed, and not installed. Run: sudo sh -c 'apt-get update && apt-get install -y $packages'"
	# Two parts of `make test` can need packages at the same time, and apt-get update does not wait.
	exec 9>"${TMPDIR:-/tmp}/pushy-apt-get.lock"
	flock 9
	missing_of "$@"
	if [ -n "$missing" ]; then
		say "installing $packages, for $missing"
		apt-get -o DPkg::Lock::Timeout=300 update 9>&-
		# shellcheck disable=SC2086 # several packages are several words
		DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y $packages 9>&-
	fi
	exec 9>&-
}

# missing_of COMMAND... sets the caller's variables missing, to the commands that are not installed,
# and packages, to their Debian packages.
missing_of() {
	local command found
	missing=
	packages=
	for command in "$@"; do
		! have "$command" || continue
		found=$(needed | sed -n "s/^$command|\([^|]*\)|.*/\1/p")
		[ -n "$found" ] || die "ci/modules.sh does not name the package of $command"
		missing="$missing${missing:+, }$command"
		packages="$packages${packages:+ }$found"
	done
}

# The released modules, each after the modules that it requires.
# shellcheck disable=SC2034
released=(. broker/nats broker/redis metrics/otel metrics/prometheus cmd/pushy-server examples/cluster)
# The modules that are not released. They have replace directives.
# shellcheck disable=SC2034
unreleased=(bench test/cluster test/streams)
root_path=$(sed -n 's/^module //p' go.mod)

path_of() { if [ "$1" = . ]; then echo "$root_path"; else echo "$root_path/$1"; fi; }
tag_of() { if [ "$1" = . ]; then echo "$2"; else echo "$1/$2"; fi; }

# The version at which the modules of the tree require each other.
tree_version() { sed -n "s|^[[:blank:]]*$root_path \(v[^ ]*\).*|\1|p" cmd/pushy-server/go.mod; }

# set_version VERSION makes the modules below the current directory require each other at that
# version.
set_version() {
	local file
	for file in broker/*/go.mod metrics/*/go.mod cmd/*/go.mod examples/cluster/go.mod bench/go.mod test/*/go.mod go.work; do
		sed "s|\(${root_path}[^ ]*\) v[0-9][^ ]*|\1 $1|" "$file" >"$file.new"
		cat "$file.new" >"$file"
		rm "$file.new"
	done
}
