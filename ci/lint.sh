#!/usr/bin/env bash
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2

for dir in "${modules[@]}"; do
	say "go vet and staticcheck in ${dir#"$PWD"}/"
	(cd "$dir" && go vet ./... && go run "$staticcheck" ./...)
done
if has_go bench; then
	say "go vet and staticcheck in bench/"
	(cd bench && export GOWORK=off && go vet ./... && go run "$staticcheck" ./...)
else
	echo "bench/ is left out: it needs Go $(sed -n 's/^go //p' bench/go.mod), this is $(go env GOVERSION)"
fi

ci/rules.sh
