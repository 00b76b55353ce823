#!/usr/bin/env bash
# Runs the parts of `make test`. Each argument is a list of targets of the Makefile, which run one
# after another; the lists run at the same time. The first list, which mostly compiles, has a lower
# priority, because the tests of the others wait for real servers with time limits. The output of a
# part is printed when the part has ended. If a part fails, the others still run, and the end of the
# output has the failures of each part again, and a summary with the parts that failed.
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

# With -trimpath, what is compiled does not depend on directories. So make release-test, which has
# its modules in a temporary directory, compiles only those of the tree, and all parts share the rest.
GOFLAGS="$(go env GOFLAGS) -trimpath"
export GOFLAGS

logs=$(mktemp -d)
mkfifo "$logs/news"

# run_list NICENESS PART... writes a line to the pipe for each part that begins, and one for each that
# has ended.
run_list() {
	local part start outcome niceness=$1
	shift
	for part in "$@"; do
		echo "begins $part"
		start=$(date +%s)
		outcome=ok
		nice -n "$niceness" "${MAKE:-make}" --no-print-directory "$part" >"$logs/$part.log" 2>&1 </dev/null || outcome=FAILED
		echo "$outcome $part $(($(date +%s) - start))"
	done
}

# Each list is a process group, so that an interrupt can end it with all its processes.
lists=()
end() {
	local list
	for list in ${lists[@]+"${lists[@]}"}; do kill -- "-$list" 2>/dev/null || true; done
	rm -rf "$logs"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
niceness=5
set -m
for list in "$@"; do
	# shellcheck disable=SC2086 # one word for each part
	run_list "$niceness" $list >"$logs/news" &
	lists+=($!)
	niceness=0
done
set +m

# failures LOG prints the tests that failed, with the lines that follow each of them except the log of
# the program, or the end of the output if it names no test.
failures() {
	awk '
		/^[[:blank:]]*--- FAIL: |^[[:blank:]]*✖ [^f]|^(FAIL|panic:|fatal error:|WARNING: DATA RACE)/ && !seen[$0]++ { left = 12 }
		left > 0 && !/level=(DEBUG|INFO|WARN|ERROR)|^[0-9/]+ [0-9:]+ (DEBUG|INFO|WARN|ERROR) / && total < 100 {
			print substr($0, 1, 300)
			left--
			total++
		}
		{ last[NR % 20] = $0 }
		END {
			if (total == 0)
				for (i = NR - 19; i <= NR; i++)
					if (i > 0) print last[i % 20]
		}
	' "$1"
}

parts=0
failed=()
summary=
while read -r outcome part seconds; do
	if [ "$outcome" = begins ]; then
		say "make $part begins; until it ends, its output is in $logs/$part.log"
		continue
	fi
	say "make $part has ended: $outcome"
	cat "$logs/$part.log"
	parts=$((parts + 1))
	[ "$outcome" = ok ] || failed+=("$part")
	summary+=$(printf '  %-12s %-7s %5d s' "$part" "$outcome" "$seconds")$'\n'
done <"$logs/news"
lists=()
for part in ${failed[@]+"${failed[@]}"}; do
	say "failures of make $part"
	failures "$logs/$part.log"
done
say "summary"
printf '%s' "$summary"
[ "${#failed[@]}" = 0 ] || die "${#failed[@]} of $parts parts failed"
