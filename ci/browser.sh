#!/usr/bin/env bash
# Tests the examples and SockJS in headless Chromium. Installs Chromium and the node
# packages where they are missing. PUSHY_CHROMIUM names another browser,
# PUSHY_SCREENSHOTS a folder to keep the pictures in.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
source ci/node.sh
cd test/browser

if [ -z "${PUSHY_CHROMIUM:-}" ]; then
	need chromium chromium
	PUSHY_CHROMIUM=$(command -v chromium)
	export PUSHY_CHROMIUM
fi

npm ci --no-audit --no-fund
node --test --test-reporter=spec ./*.test.mjs
