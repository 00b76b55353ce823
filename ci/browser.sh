#!/usr/bin/env bash
# Tests the client, the examples and SockJS in headless Chromium and Firefox. It installs the
# browsers and the node packages if they are missing. PUSHY_CHROMIUM and PUSHY_FIREFOX are the
# paths of other browsers, and PUSHY_SCREENSHOTS is a directory for screenshots.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
source ci/node.sh
cd test/browser

if [ -z "${PUSHY_CHROMIUM:-}" ]; then
	need chromium
	PUSHY_CHROMIUM=$(command -v chromium)
	export PUSHY_CHROMIUM
fi
if [ -z "${PUSHY_FIREFOX:-}" ]; then
	need firefox-esr
	PUSHY_FIREFOX=$(command -v firefox-esr)
	export PUSHY_FIREFOX
fi

need redis-server nginx haproxy caddy
npm ci --no-audit --no-fund
# The tests mostly wait, so three files run at a time, each with its own servers and browsers.
node --test --test-reporter=spec "${hangs[@]}" --test-concurrency=3 ./*.test.mjs
