# What the project checks of itself. CI calls the same targets.
.DEFAULT_GOAL := help
.PHONY: help quick test fmt lint unit build release-test fuzz client browser soak tidy structure bench bench-table bench-base

help: ## this list
	@echo "make quick is for every change, make test for what is to be merged:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quick: ## formatting, vet, project rules and tests without servers or browsers; under 90 s, installs nothing
	@ci/quick.sh

test: ## everything, under 20 minutes; installs missing Debian packages if it is root, goes on after a failure
	@MAKE="$(MAKE)" ci/test.sh fmt lint unit build release-test fuzz client browser

fmt: ## formatting
	@ci/fmt.sh

lint: ## vet, staticcheck and the project's rules
	@ci/lint.sh

unit: ## the tests of all modules, with the race detector
	@ci/unit.sh

build: ## builds for other systems and processors
	@ci/build.sh

release-test: ## go get, go install and go mod tidy, as users do them, on a release of the tree in the file system
	@ci/release_test.sh

fuzz: ## every fuzz target, a minute in all
	@ci/fuzz.sh 60

client: ## the browser client: types, size, and its tests in node
	@ci/client.sh

browser: ## the client, the examples and sockjs-client in real browsers
	@ci/browser.sh

soak: ## the long runs: every test twenty times, the largest once, every fuzz target ten minutes
	@ci/unit.sh -count=20 -timeout=60m
	@PUSHY_SOAK=1 go test -race -timeout=60m -run='PollsLoseNothing|ComeAndGo' -v ./internal/transport/sockjs
	@cd test/cluster && PUSHY_SOAK=1 go test -race -timeout=60m -parallel=1 -v .
	@ci/fuzz.sh each 600

tidy: ## go mod tidy for all modules
	@ci/tidy.sh

structure: ## the drawing of the packages, into docs/structure.md
	@page=$$(go run ./ci/structure) && printf '%s\n' "$$page" >docs/structure.md

bench: ## pushy against its peers, into bench/RESULTS.md; 50 minutes, or with ARGS=-quick 4
	@ci/bench.sh $(ARGS)

bench-table: ## what the write engine must show, printed; 15 minutes, or with ARGS=-quick 2
	@ci/bench.sh -table $(ARGS)

bench-base: ## the engine beside that of BASE (f76b4aa), interleaved; 5 minutes; at most 3 % more CPU is allowed
	@ci/bench_base.sh $(ARGS)
