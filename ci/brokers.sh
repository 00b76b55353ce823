#!/usr/bin/env bash
# Runs the tests of the brokers on Redis and NATS, and of nodes on them. They mostly wait, for leases
# and for servers that start, so two modules run at a time. Arguments are passed to go test.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
need gcc redis-server redis-sentinel nats-server

waiting=() # the slowest comes first
for dir in "${modules[@]}"; do
	waits "$dir" || continue
	case $dir in
	*/test/cluster) waiting=("$dir" ${waiting[@]+"${waiting[@]}"}) ;;
	*) waiting+=("$dir") ;;
	esac
done
printf '%s\0' "${waiting[@]}" | in_pairs race "$@"
