#!/usr/bin/env bash
# Runs the parts of `make test` that are its arguments, each a target of the Makefile, and
# says at the end which of them failed. A part that fails does not keep the others from running.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"

missing=0
while IFS='|' read -r command packages why; do
	! have "$command" || continue
	[ "$missing" -gt 0 ] || echo "These Debian packages are not installed:"
	missing=$((missing + 1))
	printf '  %-16s %s\n' "$packages" "$why"
done < <(needed)
if [ "$missing" = 0 ]; then
	echo "All programs that the tests need are installed."
elif command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
	echo "They are installed with apt-get, each by the part that needs it first. \`make quick\` installs nothing."
else
	echo "Only root can install them, with Debian's apt-get: the parts that need them fail. \`make quick\` needs none of them."
fi

trap 'exit 130' INT
failed=0
summary=
for part in "$@"; do
	start=$(date +%s)
	outcome=ok
	"${MAKE:-make}" --no-print-directory "$part" || outcome=FAILED
	[ "$outcome" = ok ] || failed=$((failed + 1))
	summary+=$(printf '  %-8s %-7s %5d s' "$part" "$outcome" "$(($(date +%s) - start))")$'\n'
done
say "summary"
printf '%s' "$summary"
[ "$failed" = 0 ] || die "$failed of $# parts failed"
