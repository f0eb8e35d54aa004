# The few commands that everybody needs. Each sets up what it lacks first, naming it; `make setup` does only that.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# RocksDB comes from the system where Debian 12's is installed (docs/decisions/0002-rocksdb.md); elsewhere the crate
# builds its own. Asked in each recipe, because `setup` may have installed it a moment ago.
ROCKSDB_ENV = $(if $(shell ls /usr/lib/x86_64-linux-gnu/librocksdb.so.7.* 2>/dev/null),,ROCKSDB_COMPILE=1)
CARGO = $(ROCKSDB_ENV) cargo

# `make demo PROFILE=release` takes some minutes more to build and runs faster.
PROFILE ?= dev

.PHONY: help setup demo demo-down test chaos simulation check fix bench install

help:
	@echo 'make demo       start three directors, deploy a real release, kill the leader on the way'
	@echo 'make demo-down  remove every trace of the demo'
	@echo 'make test       every test'
	@echo 'make chaos      fault schedules on real fleets; SEEDS=1..50, MINUTES=30, or ARGS for the program (docs/chaos.md)'
	@echo 'make simulation fleets in worlds of chance, by seed; SEEDS=100, MINUTES=30, or ARGS for the program (docs/chaos.md)'
	@echo 'make check      formatting, lints, docs, layers, tidiness, licences; changes nothing'
	@echo 'make fix        what of that can be put right by a program'
	@echo 'make bench      measure, beside etcd, in the release profile'
	@echo 'make install    build for production and install; DESTDIR, PREFIX, and ARGS for deploy/install.sh'
	@echo 'make setup      only install what is missing'

setup:
	@deploy/setup.sh build

demo: setup
	$(CARGO) build --profile $(PROFILE) -p directord -p dagent -p dctl --bins
	@PROFILE=$(PROFILE) deploy/demo/demo.sh

demo-down:
	@deploy/demo/demo-down.sh

# Documentation examples first: the last lines on the screen are the summary of the tests.
test: setup
	$(CARGO) test --quiet --workspace --doc
	@if cargo nextest --version >/dev/null 2>&1; \
	then echo '$(CARGO) nextest run --workspace'; $(CARGO) nextest run --workspace; \
	else echo '$(CARGO) test --workspace --lib --bins --tests'; $(CARGO) test --workspace --lib --bins --tests; fi

# Root, for what is done to networks and disks; without, the rest is done and said what is left out.
chaos: setup
	$(CARGO) run --profile $(PROFILE) -p chaos-tests --bin chaos -- $(if $(SEEDS),--seeds $(SEEDS)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

# Optimised: a debug build plays a world in ten times the time.
simulation: setup
	$(CARGO) run --release -p simulation -- --jobs 2 --seeds $(or $(SEEDS),100) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

check: setup
	cargo fmt --all --check
	$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --quiet --workspace --no-deps
	cargo xtask layers
	cargo xtask tidy
	@deploy/deny.sh

fix: setup
	$(CARGO) clippy --quiet --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all

bench:
	@deploy/setup.sh build bench
	$(CARGO) run --release -p chaos-tests --bin bench

# Builds as whoever calls it, and installs with the rights that DESTDIR needs: `make install DESTDIR=/tmp/root` needs none.
install: setup
	$(CARGO) build --release -p directord -p dagent -p dctl --bins
	@deploy/install.sh --from target/release $(ARGS)
