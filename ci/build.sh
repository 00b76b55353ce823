#!/usr/bin/env bash
# Builds all released packages and programs for other systems and processors, and compiles the tests
# of the root module for those that differ most. It runs nothing, so the compiler does not optimize,
# which takes a quarter less time; go vet must have the same flags to use what go build has compiled.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"

packages=()
for dir in "${modules[@]}"; do
	case $dir in */examples/*) continue ;; esac # they include a whole NATS server
	packages+=("$dir/...")
done
flags=(-gcflags='all=-N -l')
for platform in linux/386 linux/arm linux/arm64 linux/s390x darwin/arm64 windows/amd64 freebsd/amd64; do
	say "build for $platform"
	export CGO_ENABLED=0 GOOS=${platform%/*} GOARCH=${platform#*/}
	go build "${flags[@]}" -ldflags=-w -o /dev/null "${packages[@]}"
	case $platform in
	linux/386 | darwin/* | windows/*) go vet "${flags[@]}" ./... ;;
	esac
done
