#!/usr/bin/env bash
# The project's own rules.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
say "project rules"
failed=0
fail() {
	printf '%s\n' "$*" >&2
	failed=1
}
files() { git ls-files -co --exclude-standard "$@"; }

while read -r lines file; do
	[ "$file" = total ] || [ "$lines" -le 500 ] || fail "$file has $lines lines, at most 500 are allowed"
done < <(files '*.go' '*.js' '*.mjs' | grep -v -e '_test\.go$' -e '\.test\.js$' -e '\.test\.mjs$' -e '/testdata/' | xargs wc -l)
# Tests wait with fake time or for a channel. A pause only guesses when something has happened.
while read -r file; do
	grep -q testing/synctest "$file" || fail "$file sleeps outside a synctest bubble"
done < <(files '*_test.go' | xargs grep -l 'time\.Sleep(' || true)
skips=$(files '*_test.go' '*.mjs' '*.test.js' | xargs grep -nE 't\.Skip|\.skip\(|skip: true' || true)
[ -z "$skips" ] || fail "tests that skip themselves:"$'\n'"$skips"

# A hook without a time limit, or a process that outlives its test, stops the whole run.
unlimited=$(files 'test/browser/*.mjs' | grep -v '/suite\.mjs$' | xargs grep -n 'from "node:test"' || true)
[ -z "$unlimited" ] || fail "the tests in browsers import suite.mjs instead of node:test:"$'\n'"$unlimited"
outlives=$(files 'test/browser/*.test.mjs' 'client/test/*.test.js' | xargs grep -nE '\bspawn\(|(chromium|puppeteer)\.launch\(' || true)
[ -z "$outlives" ] || fail "tests start processes with run of client/test/processes.js, and browsers with launch of test/browser/example.mjs:"$'\n'"$outlives"

# macOS has bash 3.2.
newer='mapfile|readarray|(declare|local|typeset) -[a-zA-Z]*[Ang]|\$\{[A-Za-z_][A-Za-z0-9_]*(\[[^]]*\])?[,^]|\$\{[A-Za-z_]+@[A-Z]\}|wait -n|&>>|\|&|coproc|\[-1\]|\[ -v |EPOCHSECONDS|EPOCHREALTIME|BASHPID|globstar|;;?&$|read -[a-zA-Z]*[iN]\b'
# The rule does not apply to the line above.
newer=$(files 'ci/*.sh' '.ci/*' | xargs grep -nE "$newer" | grep -v "^ci/rules.sh:[0-9]*:newer=" || true)
[ -z "$newer" ] || fail "not supported by bash 3.2, which macOS has:"$'\n'"$newer"
# macOS does not have these commands, or has them with other options.
gnu=$(files 'ci/*.sh' '.ci/*' | xargs grep -nE '\b(nproc|sha256sum|readlink -f|realpath|sed -i|timeout [0-9]|date -d|stat -c|cp -[a-z]*d|grep -[a-zA-Z]*P|xargs -r)\b' | grep -v "^ci/rules.sh:[0-9]*:gnu=" || true)
[ -z "$gnu" ] || fail "supported only by GNU systems:"$'\n'"$gnu"

# The core handles events: a second protocol or transport must not need a change of it.
hub_imports=$(files 'internal/hub/*.go' | grep -v '_test\.go$' | xargs grep -nE '^(import)?[[:space:]]*([A-Za-z_.0-9]+ )?"(net/http|encoding/json|net/url|crypto/.*|[^"]*/internal/(protocol|transport|httpapi|httperror|jsvalue|strictjson|formbody|sign|origin)[^"]*|github.com/gopushy/pushy)"' || true)
[ -z "$hub_imports" ] || fail "internal/hub must not import protocols, transports, HTTP, JSON or signatures:"$'\n'"$hub_imports"

# Imports go in one direction: root, then transports, protocols and endpoints, then the core, then the
# packages that it uses.
# below FILES PATTERN checks that none of the files imports a package of this module that matches.
below() {
	local against
	against=$(files $1 | grep -v '_test\.go$' | xargs grep -nE "^(import)?[[:space:]]*([A-Za-z_.0-9]+ )?\"github.com/gopushy/pushy$2\"" || true)
	[ -z "$against" ] || fail "imports in the wrong direction:"$'\n'"$against"
}
below 'internal/transport/*.go internal/transport/websocket/*.go internal/transport/sockjs/*.go internal/transport/inmem/*.go internal/httpapi/*.go' '(/internal/(hub|protocol/.*))?'
below 'internal/transport/*.go' '/internal/transport/.*'
below 'internal/transport/websocket/*.go' '/internal/transport/(sockjs|inmem)'
below 'internal/transport/*.go internal/transport/websocket/*.go internal/transport/sockjs/*.go internal/transport/inmem/*.go internal/protocol/*/*.go' '/internal/httpapi'
below 'internal/httpapi/*.go internal/protocol/*/*.go' '/internal/transport(/.*)?'
below 'internal/session/*.go internal/fanout/*.go broker/*.go' '(/internal/(hub|transport|protocol|httpapi|session)(/.*)?)?'

while read -r package; do
	grep -qF -e "\`$package\`" -e "\`$(basename "$package")\`" CONTRIBUTING.md || fail "CONTRIBUTING.md does not say what $package is for"
done < <(files 'internal/*.go' 'broker/*.go' | grep -v '_test\.go$' | xargs -n1 dirname | sort -u)

go run ./ci/structure | cmp -s - docs/structure.md || fail "docs/structure.md is out of date: run make structure"

replaced=$(files '*go.mod' | grep -vE '^(bench|test)/' | xargs grep -n '^replace' || true)
[ -z "$replaced" ] || fail "go install does not accept modules with replace directives:"$'\n'"$replaced"
exit "$failed"
