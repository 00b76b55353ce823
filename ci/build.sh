#!/usr/bin/env bash
# Builds all packages and programs that users get for other systems and processors, and compiles the
# root module's tests where those differ most. Nothing is run.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"

for platform in linux/386 linux/arm linux/arm64 linux/s390x darwin/arm64 windows/amd64 freebsd/amd64; do
	say "build for $platform"
	export CGO_ENABLED=0 GOOS=${platform%/*} GOARCH=${platform#*/}
	for dir in "${modules[@]}"; do
		case $dir in */examples/*) continue ;; esac # they bring a whole NATS server along
		(cd "$dir" && go build -o /dev/null ./...)
	done
	case $platform in
	linux/386 | darwin/* | windows/*) go vet ./... ;;
	esac
done
