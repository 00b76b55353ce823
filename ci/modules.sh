# Sourced: the folders of all modules, from the workspace.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v go >/dev/null; then
	echo "Go 1.25 or newer is needed: https://go.dev/doc/install" >&2
	exit 1
fi
mapfile -t modules < <(go list -m -f '{{.Dir}}')
say() { printf '\n== %s\n' "$*"; }

# need COMMAND PACKAGES: installs it where that can be done, else says how.
need() {
	command -v "$1" >/dev/null && return
	if ! command -v apt-get >/dev/null; then
		echo "$1 is needed and not installed; on Debian: apt-get update && apt-get install -y $2" >&2
		exit 1
	fi
	if [ "$(id -u)" != 0 ]; then
		echo "$1 is needed and not installed; run: sudo sh -c 'apt-get update && apt-get install -y $2'" >&2
		exit 1
	fi
	apt-get update
	DEBIAN_FRONTEND=noninteractive apt-get install -y $2 # several are several words
}
