# shellcheck shell=bash
# Sourced after modules.sh. It makes sure that the node and npm which the JavaScript tests need
# are installed.
need node npm
recent=$(node -p 'const [major, minor] = process.versions.node.split("."); major > 20 || (major == 20 && minor >= 14)')
[ "$recent" = true ] || die "node 20.14 or newer is needed, this is $(node --version): https://nodejs.org/en/download"
# A file whose tests, or their clean-up, hang fails after 15 minutes, and its name is printed. A file whose
# tests have ended does not wait for what they have left open.
# shellcheck disable=SC2034 # used by the scripts that source this one
hangs=(--test-timeout=900000 --test-force-exit)
