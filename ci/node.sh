# shellcheck shell=bash
# Sourced after modules.sh: node and npm, as the tests in JavaScript need them.
need node npm
major=$(node -p 'process.versions.node.split(".")[0]')
[ "$major" -ge 20 ] || die "node 20 or newer is needed, this is $(node --version): https://nodejs.org/en/download"
