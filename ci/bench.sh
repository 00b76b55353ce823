#!/usr/bin/env bash
# Compares pushy with other servers under the same load. Its arguments are those of bench/main.go.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
has_go bench || die "bench needs Go $(sed -n 's/^go //p' bench/go.mod), this is $(go env GOVERSION)"
ulimit -n "$(ulimit -Hn)" # 12,000 clients and more
cd bench && GOWORK=off exec go run . "$@"
