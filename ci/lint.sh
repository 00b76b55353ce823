#!/usr/bin/env bash
source "$(dirname "$0")/modules.sh"
staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2

for dir in "${modules[@]}"; do
	say "go vet and staticcheck in ${dir#"$PWD"}/"
	(cd "$dir" && go vet ./... && go run "$staticcheck" ./...)
done

say "go.mod and go.sum are tidy"
for dir in "${modules[@]}"; do
	(cd "$dir" && GOWORK=off go mod tidy -diff)
done

say "project rules"
failed=0
fail() {
	printf '%s\n' "$*" >&2
	failed=1
}
files() { git ls-files -co --exclude-standard "$@"; }

while read -r lines file; do
	[ "$file" = total ] || [ "$lines" -le 500 ] || fail "$file has $lines lines, at most 500 are allowed"
done < <(files '*.go' '*.js' '*.mjs' | grep -v -e '_test\.go$' -e '/testdata/' | xargs wc -l)
# Fake time or a channel tells when something has happened; a pause guesses.
while read -r file; do
	grep -q testing/synctest "$file" || fail "$file sleeps outside a synctest bubble"
done < <(files '*_test.go' | xargs grep -l 'time\.Sleep(' || true)
skips=$(files '*_test.go' '*.mjs' '*.test.js' | xargs grep -nE 't\.Skip|\.skip\(|skip: true' || true)
[ -z "$skips" ] || fail "tests that skip themselves:"$'\n'"$skips"
exit "$failed"
