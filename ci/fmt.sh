#!/usr/bin/env bash
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
say "gofmt"
bad=$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l)
if [ -n "$bad" ]; then
	printf 'not formatted, run gofmt -w on:\n%s\n' "$bad" >&2
	exit 1
fi
