#!/usr/bin/env bash
# Tests the browser client without a browser: its types, whether the built files are up to
# date, and the client with a server. And whether the page of examples/game, which is built with the
# client, is up to date.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
source ci/node.sh
need php
cd client

npm ci --no-audit --no-fund
say "the client's types, size and built files"
npm run --silent check
say "the client's package"
npm pack --dry-run --silent
say "the page of examples/game: its types, and whether the built file is up to date"
(cd ../examples/game/web && npm ci --no-audit --no-fund && npm run --silent check)
say "the client's tests"
node --test --test-reporter=spec "${hangs[@]}" test/
