# The checks of the project. CI runs the same targets.
.DEFAULT_GOAL := help
.PHONY: help quick test fmt lint unit brokers build release-test fuzz client browser soak tidy structure bench bench-base bench-recovery

help: ## this list
	@echo "Run make quick for every change, and make test before a merge:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quick: ## formatting, vet, project rules and tests without servers or browsers; under 90 s, installs nothing
	@ci/quick.sh

test: ## everything, under 20 minutes; installs missing Debian packages if run as root, continues after a failure
	@MAKE="$(MAKE)" ci/test.sh "fmt lint unit build release-test fuzz" "brokers client browser"

fmt: ## formatting
	@ci/fmt.sh

lint: ## vet, staticcheck and the project's rules
	@ci/lint.sh

unit: ## the tests of all modules but those of `brokers`, with the race detector
	@ci/unit.sh

brokers: ## the tests with Redis and NATS: the brokers, and nodes on them, with the race detector
	@ci/brokers.sh

build: ## builds for other systems and processors
	@ci/build.sh

release-test: ## go get, go install and go mod tidy, as users run them, with a release of the tree in the file system
	@ci/release_test.sh

fuzz: ## all fuzz targets, a minute in total
	@ci/fuzz.sh 60

client: ## the browser client: types, size, and its tests in node
	@ci/client.sh

browser: ## the client, the examples and sockjs-client in real browsers
	@ci/browser.sh

soak: ## long runs: every test twenty times, the largest tests once, every fuzz target for ten minutes
	@ci/unit.sh -count=20 -timeout=60m
	@ci/brokers.sh -count=20 -timeout=60m
	@PUSHY_SOAK=1 go test -race -timeout=60m -run='PollsLoseNothing|ComeAndGo' -v ./internal/transport/sockjs
	@PUSHY_SOAK=1 go test -timeout=60m -run=AsNode -v ./internal/jsvalue
	@PUSHY_SOAK=1 go test -timeout=60m -run='Thousand|Killed|Rolling|Returning|Crowd|MovesFaster|Storm|Ids' -v .
	@PUSHY_SOAK=1 go test -timeout=60m -run='ManyClients' -v ./subscriber
	@PUSHY_SOAK=1 go test -timeout=60m -run='Drain' -v ./pusher
	@PUSHY_SOAK=1 go test -timeout=60m -run='CostOfAnOpenConsole' -v ./console
	@cd test/streams && GOWORK=off PUSHY_SOAK=1 go test -timeout=60m -run=Breaks -v .
	@cd test/browser && npm ci --no-audit --no-fund && PUSHY_SOAK=1 node --test --test-reporter=spec sse.test.mjs sseproxy.test.mjs pusherclose.test.mjs
	@cd test/cluster && PUSHY_SOAK=1 go test -race -timeout=60m -parallel=1 -v .
	@ci/fuzz.sh each 600

tidy: ## go mod tidy for all modules
	@ci/tidy.sh

structure: ## writes docs/structure.md, the diagram of the packages
	@page=$$(go run ./ci/structure) && printf '%s\n' "$$page" >docs/structure.md

bench: ## compares pushy with other servers, writes bench/RESULTS.md and the chart of README.md; 30 minutes, ARGS='-only tls' is a part, ARGS='-quick -out /tmp' a try
	@ci/bench.sh $(ARGS)

bench-base: ## compares with BASE (f76b4aa), interleaved; 8 minutes; the limit is 3 % more
	@ci/bench_base.sh $(ARGS)

bench-recovery: ## measures clients that return, storms, kept events and handshakes; 16 minutes, with ARGS=-quick 5 minutes
	@ci/bench.sh -recovery $(ARGS)
