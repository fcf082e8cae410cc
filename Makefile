# make run     builds the broker and runs it: MQTT 1883, STOMP 61613, HTTP and WebSocket 8080
# make test    everything that must hold: checks, unit tests, clients of others, bugs put in and found
# make race    the same tests under the race detector, but for the clients
# make pauses goroutines held up at random, so that what seldom meets does: SEEDS seeds (20)
# make fuzz    every fuzz target for FUZZTIME (1m each), and the property tests with random values
# make crash   crashes the broker: at every write and sync, with seeded bugs, KILLS times (200)
#              by SIGKILL under load, then with random workloads until told to stop, or for CRASHTIME
# make powercut  cuts the power of a real file system under load, POWERCUTS times (20); needs root
# make soak    load over all protocols with kills at random, for SOAKTIME (1h)
# make corrupt damages every byte of a small data directory and says what came of it; takes
#              about twenty minutes on two cores
# make bench   measures the broker, beside mosquitto

GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PACKAGES := ./...

# The linter is pinned here; the module proxy has it.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: run build test modules check unit clients race pauses fuzz corrupt crash seeded powercut soak bench clean

run: build
	bin/sluice serve

build:
	$(GO) build -ldflags '-X main.version=$(VERSION)' -o bin/sluice ./cmd/sluice

test: clients modules check build unit seeded

# What the tests with clients of others need; quick when it is all there.
clients:
	.ci/install-clients

# Others' modules and the linter, where they are not there yet.
modules:
	@.ci/retry $(GO) list -deps -test $(PACKAGES) >/dev/null
	@.ci/retry $(GO) run $(STATICCHECK) -version >/dev/null

check:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run gofmt -w:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet $(PACKAGES)
	$(GO) run $(STATICCHECK) $(PACKAGES)

unit:
	$(GO) test -timeout 8m $(PACKAGES)

race:
	$(GO) test -race -timeout 20m $$($(GO) list $(PACKAGES) | grep -v /clienttest)

SEEDS ?= 20
pauses:
	@for seed in $$(seq $(SEEDS)); do export PAUSES=$$seed; \
		$(GO) test -count=1 -tags pauses -run 'TestStress|TestQueueAsTheNaiveOne|TestSessionsByModel|TestTalkByModel' ./core ./adapters/mqtt -rapid.seed=$$seed && \
		$(GO) test -count=1 -tags pauses -run TestBrokerCrashRandom ./storage/seglog -crash.seed=$$seed || \
		{ echo "PAUSES=$$seed"; exit 1; }; done

fuzz:
	FUZZTIME=$${FUZZTIME:-1m} .ci/fuzz

# The harness that looks for lost messages has to find bugs that are put in.
seeded:
	$(GO) test -timeout 5m -tags seededbugs -run TestSeededBugs ./core ./storage/seglog

KILLS     ?= 200
CRASHTIME ?= 0
crash: clients
	$(GO) test -count=1 -timeout 1h -v -run 'TestBrokerCrashEverywhere|TestBrokerFaultEverywhere|TestCrashEverywhere|TestFaultEverywhere' ./storage/seglog -images 0
	$(GO) test -count=1 -timeout 1h -v -tags seededbugs -run TestSeededBugs ./storage/seglog -bugs.all
	$(GO) test -count=1 -timeout 6h -v -run TestNothingConfirmedIsLost ./cmd/sluice/clienttest -kills $(KILLS)
	$(GO) test -count=1 -timeout 0 -v -run TestBrokerCrashRandom ./storage/seglog -crash.time $(CRASHTIME)

POWERCUTS ?= 20
powercut: clients
	$(GO) test -count=1 -timeout 6h -v -run TestPowerCut ./cmd/sluice/clienttest -powercuts $(POWERCUTS)

SOAKTIME ?= 1h
soak: clients
	$(GO) test -count=1 -timeout 0 -v -run TestSoak ./cmd/sluice/clienttest -soak $(SOAKTIME)

corrupt:
	GOGC=400 $(GO) test -count=1 ./storage/seglog -run TestCorrupt -corrupt 1 -timeout 3h -v
	GOGC=400 $(GO) test -count=1 ./cmd/sluice -run TestCorruptBroker -corrupt 1 -timeout 1h -v

bench: build
	.ci/install-clients mosquitto
	bin/sluice bench suite

clean:
	rm -rf bin bench-out
