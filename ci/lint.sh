#!/usr/bin/env bash
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2
actionlint=github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

# One call for all modules, because each call reads the packages that they have in common again.
say "go vet and staticcheck in all modules of the workspace"
packages=()
for dir in "${modules[@]}"; do packages+=("$dir/..."); done
go vet "${packages[@]}"
go run "$staticcheck" "${packages[@]}"
for dir in "${newer[@]}"; do
	if has_go "$dir"; then
		say "go vet and staticcheck in $dir/"
		(cd "$dir" && export GOWORK=off && go vet ./... && go run "$staticcheck" ./...)
	else
		echo "$dir/ is not checked: it needs Go $(sed -n 's/^go //p' "$dir/go.mod"), this is $(go env GOVERSION)"
	fi
done

say "the workflow for GitHub Actions, and the unit for systemd"
go run "$actionlint" .github/workflows/*.yml
if command -v systemd-analyze >/dev/null; then
	unit=$(mktemp -d)
	trap 'rm -rf "$unit"' EXIT
	# systemd-analyze also checks whether the programs exist.
	sed 's|/usr/local/bin/pushy-server|/bin/sh|' cmd/pushy-server/pushy-server.service >"$unit/pushy-server.service"
	found=$(systemd-analyze verify "$unit/pushy-server.service" 2>&1 | grep -F pushy-server.service || true)
	[ -z "$found" ] || die "$found"
else
	echo "the unit is not checked: systemd-analyze is not installed"
fi

ci/rules.sh
