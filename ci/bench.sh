#!/usr/bin/env bash
# Measures pushy against its peers; arguments are those of bench/main.go.
source "$(dirname "$0")/modules.sh"
ulimit -n "$(ulimit -Hn)" # 12,000 clients and more
cd bench && exec go run . "$@"
