#!/usr/bin/env bash
# Runs the parts of `make test`. Its arguments are targets of the Makefile. If a part fails, the
# others still run, and the summary at the end lists the parts that failed.
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
