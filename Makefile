# What the project checks of itself. CI calls the same targets.
.PHONY: test fmt lint unit fuzz client browser soak bench bench-table

test: fmt lint unit fuzz client browser ## all of it, on a fresh machine too; at most 12 minutes

fmt: ## formatting
	@ci/fmt.sh

lint: ## vet, staticcheck, and the house's own rules
	@ci/lint.sh

unit: ## the tests of all modules, with the race detector
	@ci/unit.sh

fuzz: ## every fuzz target, a minute in all
	@ci/fuzz.sh 60

client: ## the browser client: types, size, and its tests in node
	@ci/client.sh

browser: ## the client, the examples and sockjs-client in real browsers
	@ci/browser.sh

soak: ## the long runs: every test twenty times, the largest once, every fuzz target ten minutes
	@ci/unit.sh -count=20 -timeout=60m
	@PUSHY_SOAK=1 go test -race -timeout=60m -run='PollsLoseNothing|ComeAndGo' -v ./internal/transport
	@for broker in redis nats; do (cd brokers/$$broker && PUSHY_SOAK=1 go test -race -timeout=60m -run='Crowd|CPU|Killed|Gone|CutOff' -parallel=1 -v .) || exit 1; done
	@ci/fuzz.sh each 600

bench: ## pushy against its peers, into bench/RESULTS.md; 50 minutes, or with ARGS=-quick 4
	@ci/bench.sh $(ARGS)

bench-table: ## what the write engine must show, printed; 15 minutes, or with ARGS=-quick 2
	@ci/bench.sh -table $(ARGS)
