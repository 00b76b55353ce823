#!/usr/bin/env bash
# Tests the client, the examples and SockJS in headless Chromium and Firefox. Installs
# them and the node packages where they are missing. PUSHY_CHROMIUM and
# PUSHY_FIREFOX name others, PUSHY_SCREENSHOTS a folder to keep the pictures in.
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

npm ci --no-audit --no-fund
# Pages mostly wait: two files at a time, each with servers and browsers of its own.
node --test --test-reporter=spec --test-concurrency=2 ./*.test.mjs
