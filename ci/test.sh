#!/usr/bin/env bash
# Runs the parts of `make test`. Each argument is a list of targets of the Makefile, which run one
# after another; the lists run at the same time. The first list, which mostly compiles, has a lower
# priority, because the tests of the others wait for real servers with time limits. The output of a
# part is printed when the part has ended. If a part fails, the others still run, and the end of the
# output has the failures of each part again, and a summary with the parts that failed. After
# PUSHY_TEST_SECONDS, an hour by default, the parts that still run fail and are stopped, so that a
# test that hangs is seen in the output.
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
running=()
# ended OUTCOME PART SECONDS prints the output of a part.
ended() {
	local part rest=()
	say "make $2 has ended: $1"
	cat "$logs/$2.log"
	parts=$((parts + 1))
	[ "$1" = ok ] || failed+=("$2")
	summary+=$(printf '  %-12s %-7s %5d s' "$2" "$1" "$3")$'\n'
	for part in ${running[@]+"${running[@]}"}; do [ "$part" = "$2" ] || rest+=("$part"); done
	running=(${rest[@]+"${rest[@]}"})
}

limit=${PUSHY_TEST_SECONDS:-3600}
began=$(date +%s)
left() { echo $((began + limit - $(date +%s))); }
exec 3<"$logs/news"
while [ "$(left)" -gt 0 ] && read -r -t "$(left)" -u 3 outcome part seconds; do
	if [ "$outcome" = begins ]; then
		say "make $part begins; until it ends, its output is in $logs/$part.log"
		running+=("$part")
	else
		ended "$outcome" "$part" "$seconds"
	fi
done
if [ "${#running[@]}" = 0 ]; then
	lists=()
else
	for part in "${running[@]}"; do
		echo "make $part has not ended $limit s after the begin of all parts, and is stopped" >>"$logs/$part.log"
		ended STOPPED "$part" "$limit"
	done
fi
for part in ${failed[@]+"${failed[@]}"}; do
	say "failures of make $part"
	failures "$logs/$part.log"
done
say "summary"
printf '%s' "$summary"
[ "${#failed[@]}" = 0 ] || die "${#failed[@]} of $parts parts failed"
