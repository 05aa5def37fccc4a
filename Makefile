# Every task of the house is one word. `make help` lists them.

TARGET := $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help run test release-check bench bench-full bench-tls bench-compare bench-micro bench-instructions \
	bench-instructions-record plants fmt ci

help: ## lists what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-26s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## builds Legation and starts a Manager, one Delegate and a first task on this machine
	@scripts/need.sh cc:build-essential
	cargo build --workspace --bins
	$(TARGET)/debug/legation up

test: ## runs every test, on SQLite and on PostgreSQL, installing what is missing
	@scripts/test.sh

release-check: ## builds release binaries and holds their size and memory against the budgets
	@scripts/release-check.sh

bench: ## measures a Manager with 2,000 delegates, about two minutes after the build
	@scripts/bench.sh --delegates 2000

bench-full: ## the same with 10,000 delegates
	@scripts/bench.sh --delegates 10000

bench-tls: ## connections of 2,000 delegates, over TLS
	@scripts/bench.sh --delegates 2000 --tls

bench-compare: ## measures a Manager beside nats-server and mosquitto, about ten minutes after the build
	@scripts/bench-compare.sh --delegates 10000

bench-micro: ## times single operations; FILTER=name picks some
	@scripts/need.sh cc:build-essential
	cargo bench --locked -p legation-testkit --bench micro -- $(FILTER)

bench-instructions: ## counts their instructions and fails where one takes 5 % more than its baseline
	@scripts/bench-instructions.sh

bench-instructions-record: ## counts them and makes that the baseline
	@scripts/bench-instructions.sh --record

plants: ## plants faults in a copy of the sources and sees that tests catch them
	@scripts/plants.sh

fmt: ## formats the code
	cargo fmt --all

ci: ## does what continuous integration does
	@.ci/run
