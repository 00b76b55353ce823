# shellcheck shell=bash
# Sourced after modules.sh. It makes sure that the node and npm which the JavaScript tests need
# are installed.
need node npm
major=$(node -p 'process.versions.node.split(".")[0]')
[ "$major" -ge 20 ] || die "node 20 or newer is needed, this is $(node --version): https://nodejs.org/en/download"
