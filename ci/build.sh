#!/usr/bin/env bash
# Builds all released packages and programs for other systems and processors, and compiles the tests
# of the root module for those that differ most. It runs nothing.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"

for platform in linux/386 linux/arm linux/arm64 linux/s390x darwin/arm64 windows/amd64 freebsd/amd64; do
	say "build for $platform"
	export CGO_ENABLED=0 GOOS=${platform%/*} GOARCH=${platform#*/}
	for dir in "${modules[@]}"; do
		case $dir in */examples/*) continue ;; esac # they include a whole NATS server
		(cd "$dir" && go build -ldflags=-w -o /dev/null ./...)
	done
	case $platform in
	linux/386 | darwin/* | windows/*) go vet ./... ;;
	esac
done
