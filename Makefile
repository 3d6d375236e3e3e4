# The front door; `make help` lists what there is.
.DEFAULT_GOAL := help
.PHONY: run check test test-epoll tools bench conformance fuzz kernels soak crowd lint install uninstall clean help rust

# Tests with targets of their own, and some that print figures alone. `make test` runs all others, also those that need
# tools and therefore have the attribute `ignore`.
LONG_TESTS = conformance:: soak::a_day chat::crowd::a_thousand_members limits::fairness::figures_of_a_flood \
  tls::figures
# Tests that start no daemon.
TESTS_WITHOUT_DAEMON = style:: scripts:: install:: library:: echo_server::

# Most tests wait most of the time: two at once for each core.
check test test-epoll: export RUST_TEST_THREADS ?= $(shell expr 2 \* $$(nproc))

run: ## build all and try it: the sample servers behind the gateway on PORT (8080) of HOST (127.0.0.1), until Ctrl-C; TLS=1: https
	@utils/try --build

# PROFILE is one of cargo's (dev); WHAT are arguments of `cargo test` (--workspace).
check: rust ## run the tests that need Rust and a C compiler alone, and list those that are left out
	cargo build $(PROFILE:%=--profile %) --workspace --bins --lib --examples
	@UAKARI_BARE=1 tests/tally cargo test $(PROFILE:%=--profile %) --no-fail-fast $(or $(WHAT),--workspace)

test: rust ## run all tests; the last line counts them
	tests/install-tools
	cargo build --workspace --bins --lib --examples
	@tests/tally cargo test --workspace --no-fail-fast -- --include-ignored $(LONG_TESTS:%=--skip %)

test-epoll: rust ## run the end-to-end tests with epoll in place of io_uring
	tests/install-tools
	cargo build --workspace --bins --lib --examples
	@UAKARI_DRIVER=epoll tests/tally cargo test --test main --no-fail-fast -- --include-ignored \
		$(LONG_TESTS:%=--skip %) $(TESTS_WITHOUT_DAEMON:%=--skip %)

tools: ## install what the tests need beside Rust: browser, clients, Autobahn
	tests/install-tools --conformance

bench: rust ## measure uakari beside its peers, without and with TLS, then servers of direct mode beside theirs, and HTTP
	tests/install-tools
	benches/run
	benches/run --tls
	benches/run --direct
	benches/http

conformance: rust ## run Autobahn's test suite on a release build, with io_uring and with epoll
	tests/install-tools --conformance
	cargo build --release --workspace
	@tests/tally cargo test --release --test main -- --ignored conformance::autobahn

soak: rust ## run 20,000 simulated worlds, then all kinds of load on a release build for SECONDS (600)
	cargo build --release --workspace
	UAKARI_SEEDS=20000 cargo test --release --lib simulation
	UAKARI_SOAK_SECONDS=$(or $(SECONDS),600) cargo test --release --test main -- --ignored --exact soak::a_day --nocapture

crowd: rust ## let 1,000 members chat on a release build, 100 messages a second for 10 s, on three ways
	cargo build --release --workspace
	cargo test --release --test main -- --ignored --exact chat::crowd::a_thousand_members --nocapture

fuzz: rust ## feed each fuzz target with made-up inputs for SECONDS (60), from SEED (random)
	@SEED=$(SEED) tests/tally bash -c 'tests/install-tools --fuzz && tests/fuzz/run $(or $(SECONDS),60)'

# Kernels are 5.10, 6.1 and 6.12; architectures are x86_64, aarch64 and armv7. WHAT is other arguments for the program
# with the tests, or autobahn.
kernels: rust ## run end-to-end tests in Debian's kernels KERNELS (5.10 6.1 6.12) of ARCH (x86_64), which qemu boots
	@tests/tally bash -c 'tests/install-tools --conformance --kernels "$$@" && tests/kernels/run "$$@"' kernels \
	  $(or $(ARCH),x86_64) $(or $(KERNELS),5.10 6.1 6.12)

lint: rust ## check formatting, and let clippy look for mistakes
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# Both take variables such as DESTDIR=... and PREFIX=/usr; the script lists them.
install: ## install below PREFIX (/usr/local); a configuration that is there is kept
	@utils/install/install

uninstall: ## remove what install put there, but not the configuration
	@utils/install/install --remove

clean: ## remove what was built
	cargo clean
	rm -rf benches/target

# Without a target's description, so that `make help` does not list it.
rust:
	@utils/require-rust

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
