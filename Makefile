# make run     builds the broker and runs it: MQTT 1883, STOMP 61613, HTTP and WebSocket 8080
# make test    everything that must hold: checks, unit tests, fuzzing for a moment, clients of others
# make race    the same tests under the race detector, but for the clients
# make fuzz    every fuzz target for FUZZTIME (1m each)
# make bench   measures the broker, beside mosquitto

GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PACKAGES := ./...

# The linter is pinned here; the module proxy has it.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: run build test check unit clients race fuzz fuzz-short bench clean

run: build
	bin/sluice serve

build:
	$(GO) build -ldflags '-X main.version=$(VERSION)' -o bin/sluice ./cmd/sluice

test: clients check build unit fuzz-short

# What the tests with clients of others need; quick when it is all there.
clients:
	.ci/install-clients

check:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run gofmt -w:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet $(PACKAGES)
	$(GO) run $(STATICCHECK) $(PACKAGES)

unit:
	$(GO) test -timeout 8m $(PACKAGES)

race:
	$(GO) test -race -timeout 20m $$($(GO) list $(PACKAGES) | grep -v /clienttest)

fuzz-short:
	FUZZTIME=2s .ci/fuzz

fuzz:
	FUZZTIME=$${FUZZTIME:-1m} .ci/fuzz

bench: build
	.ci/install-clients mosquitto
	bin/sluice bench suite

clean:
	rm -rf bin bench-out
