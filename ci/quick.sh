#!/usr/bin/env bash
# What can be said in under 90 s, without root and without browsers, and installs nothing.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
ci/fmt.sh
ci/rules.sh
for dir in "${modules[@]}"; do
	say "go vet in ${dir#"$PWD"}/"
	(cd "$dir" && go vet ./...)
done
# The brokers' own tests need servers, and are left to `make test`.
packages=$(go list ./... ./cmd/pushy-server/...)
if ! have node; then
	echo "internal/jsvalue is not tested: node is not installed"
	packages=$(grep -v '/internal/jsvalue$' <<<"$packages")
fi
say "go test -short"
# The packages whose tests wait longest come first, so that the others run meanwhile: four
# at a time, since a test that waits needs no core. They were vetted above, and nobody
# opens these binaries with a debugger.
slowest="./internal/transport/sockjs . ./cmd/pushy-server ./broker/memory"
# shellcheck disable=SC2086 # one word for each package
go test -short -p 4 -vet=off -ldflags=-w $slowest $packages
