#!/usr/bin/env bash
# build_at.sh COMMIT DIRECTORY PROGRAM: builds the Go program in a directory of an earlier commit, in
# that commit's own tree, unless the file PROGRAM exists. GOWORK=off leaves that tree's workspace.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
commit=$1 directory=$2 program=$3
[ ! -x "$program" ] || exit 0
say "building $directory of $commit"
mkdir -p "$(dirname "$program")"
program=$(cd "$(dirname "$program")" && pwd)/$(basename "$program")
tree=$program.tree
rm -rf "$tree"
mkdir -p "$tree"
git archive "$commit" | tar -x -C "$tree"
[ -e "$tree/go.work" ] || export GOWORK=off
(cd "$tree/$directory" && go build -o "$program" .)
rm -rf "$tree"
