# Every verb a person uses. `make` alone lists them.

CARGO     ?= cargo
TIDEMARK   = $(CARGO) run --quiet --package tidemark --
RATE      ?= 20

.DEFAULT_GOAL := help
.PHONY: help setup build quickstart up backfill test bench-stream bench-offline services check lint clean-data

help:           ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:          ## Install what the build needs and this machine lacks (done by the others)
	@./.ci/setup

build: setup    ## Build the tidemark binary
	$(CARGO) build --package tidemark

quickstart: build ## Show the whole loop: events, features over REST, a training set, and that both agree
	@$(TIDEMARK) quickstart

up: build       ## Run the platform in data/ with live traffic (RATE=20 events a second) until ctrl-c
	@test -e data/log.redb || $(TIDEMARK) generate --days 30 --to log
	@$(TIDEMARK) up --generate $(RATE)

backfill: build ## Make snapshots of a view (VIEW=user_spend FROM=2026-01-01 TO=2026-01-31)
	@test -n "$(VIEW)" -a -n "$(FROM)" -a -n "$(TO)" || { echo 'expected VIEW=, FROM= and TO=, such as: make backfill VIEW=user_spend FROM=2026-01-01 TO=2026-01-31' >&2; exit 2; }
	@$(TIDEMARK) backfill --view $(VIEW) --from $(FROM) --to $(TO) $(BACKFILL)

test: setup lint ## Run every check and every test, against a real Kafka, schema registry, Redis and S3 API
	$(CARGO) test --workspace --no-run
	infra/services run $(CARGO) test --workspace
	$(CARGO) run --quiet --package tidemark -- check

bench-stream: setup ## Measure the stream from Kafka into Redis against floors and peers (BENCH='--quick' for a trial)
	$(CARGO) build --release --package tidemark --package tidemark-benches
	@infra/services run $(or $(CARGO_TARGET_DIR),target)/release/bench-stream $(BENCH)

bench-offline: setup ## Measure training sets against Polars, DuckDB, DataFusion and Feast (BENCH='--sizes S --growth none')
	$(CARGO) build --release --package tidemark --package tidemark-benches
	@$(or $(CARGO_TARGET_DIR),target)/release/bench-offline $(BENCH)

services:       ## Start Kafka, a schema registry, Redis, a Redis cluster and an S3 API on loopback (infra/services stop ends them)
	@infra/services start

check: build    ## Check the definitions under features/
	@$(TIDEMARK) check

lint: setup     ## Formatting and clippy, without a warning
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

clean-data:     ## Remove data/: events, state, archive, generated tables
	rm -rf data
