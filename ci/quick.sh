#!/usr/bin/env bash
# The checks that take less than 90 s, need neither root nor browsers, and install nothing.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
ci/fmt.sh
ci/rules.sh
for dir in "${modules[@]}"; do
	say "go vet in ${dir#"$PWD"}/"
	(cd "$dir" && go vet ./...)
done
# The brokers' own tests need servers, and run only in `make test`.
packages=$(go list ./... ./cmd/pushy-server/...)
if ! have node; then
	echo "internal/jsvalue is not tested: node is not installed"
	packages=$(grep -v '/internal/jsvalue$' <<<"$packages")
fi
say "go test -short"
for program in curl perl php python3 node; do
	have "$program" && continue
	echo "examples/publishers is not tested: $program is not installed"
	packages=$(grep -v '/examples/publishers$' <<<"$packages")
done
# The packages whose tests wait longest come first, so that the others run at the same time:
# four at a time, because a test that waits needs no core. go vet ran above, and these binaries
# need no debug information.
slowest="./internal/transport/sockjs . ./cmd/pushy-server ./broker/memory"
# shellcheck disable=SC2086 # one word for each package
go test -short -p 4 -vet=off -ldflags=-w $slowest $packages
