# Two commands do all the set-up, system packages included: `make demo` and `make test`.
# What is missing on the system is installed with apt-get (as root); cargo does the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
HOMING := $(TARGET)/release/homing

# program:package of Debian. homing itself calls only nft; the lab also ip; the tests all of them.
PROGRAMS := nft:nftables ip:iproute2 conntrack:conntrack ping:iputils-ping unshare:util-linux cc:build-essential python3:python3
# What the scenarios in netns-tests/programs.rs, ike.rs, metrics.rs and (in virtual machines) fast_path use. The last but
# one is strongSwan's ESP in user space.
TEST_PROGRAMS := nginx:nginx-light curl:curl dnsmasq:dnsmasq-base dig:bind9-dnsutils vsftpd:vsftpd \
    charon-systemd:charon-systemd swanctl:strongswan-swanctl promtool:prometheus \
    /usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so:libcharon-extra-plugins pppd:ppp

# The unit tests of the kernel room make network namespaces. Without root that takes a user namespace.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo unshare --user --map-root-user --)

say = @printf '\n==> %s\n' "$(1)"

.PHONY: help deps deps-test build demo deb test test-package fmt clippy unit doc netns test-vm bench fuzz deny clean
.NOTPARALLEL:

help:
	@echo 'make demo    a whole site in network namespaces, with homing at work in it (Ctrl-C ends it)'
	@echo 'make test    everything that CI checks: format, lints, unit tests, docs, scenarios'
	@echo 'make build   $(HOMING)'
	@echo 'make deb     the Debian package, here: homing_*.deb'
	@echo 'make test-package  tries that package in a fresh Debian 12: installs, runs, removes it (as root)'
	@echo 'make test-vm scenarios on kernels 6.1, 6.12 and 7.3, in virtual machines (half an hour; SELECTION=short: 5 min, 6.1)'
	@echo 'make bench   what homing costs, against what was promised (about an hour)'
	@echo 'make fuzz    mutated input for every decoder, SECONDS_EACH=300'
	@echo 'make deny    licences, banned crates and sources of what homing is built from'
	@echo 'make deps    install the system packages that these need (deps-test: those of the tests, too)'
	@echo 'make clean   remove what was built'

# Packages that bring servers along start them, now and at each boot, unless they are told not to.
POLICY := /usr/sbin/policy-rc.d

deps-test: PROGRAMS += $(TEST_PROGRAMS)

deps deps-test:
	$(call say,System packages)
	@command -v $(CARGO) > /dev/null || { \
	    echo 'There is no cargo. Install a Rust toolchain (1.89 or later), for example with rustup.'; exit 1; }
	@missing=(); \
	for pair in $(PROGRAMS); do \
	    command -v "$${pair%%:*}" > /dev/null || [ -e "$${pair%%:*}" ] || missing+=("$${pair##*:}"); \
	done; \
	if [ "$${#missing[@]}" = 0 ]; then echo 'All there.'; exit 0; fi; \
	echo "Missing: $${missing[*]}"; \
	if ! command -v apt-get > /dev/null; then \
	    echo 'There is no apt-get here: install these with your package manager, then try again.'; exit 1; fi; \
	if [ "$$(id -u)" != 0 ]; then \
	    echo "Not root. Type this, then try again:  sudo apt-get install $${missing[*]}"; exit 1; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	if [ ! -e $(POLICY) ]; then \
	    trap 'rm -f $(POLICY)' EXIT; printf '#!/bin/sh\nexit 101\n' > $(POLICY); chmod +x $(POLICY); fi; \
	apt-get update -qq; \
	apt-get install -y -qq --no-install-recommends "$${missing[@]}" < /dev/null; \
	for pair in nginx-light:nginx vsftpd:vsftpd charon-systemd:strongswan prometheus:prometheus; do \
	    case " $${missing[*]} " in *" $${pair%%:*} "*) \
	        [ ! -d /run/systemd/system ] || systemctl disable --quiet "$${pair##*:}";; esac; done

build: deps
	$(call say,Build $(HOMING))
	$(CARGO) build --release --locked

demo: build
	$(call say,The lab; from a second terminal: $(HOMING) lab fail fiber)
	$(HOMING) lab

test: fmt clippy unit doc netns
	$(call say,All is well)

fmt: deps-test
	$(call say,Format)
	@$(CARGO) fmt --version > /dev/null 2>&1 || rustup component add rustfmt
	$(CARGO) fmt --check

clippy: deps
	$(call say,Lints)
	@$(CARGO) clippy --version > /dev/null 2>&1 || rustup component add clippy
	$(CARGO) clippy --all-targets --locked -- -D warnings

unit: deps
	$(call say,Unit tests)
	$(AS_ROOT) $(CARGO) test --locked --lib --bins

doc: deps
	$(call say,Documentation)
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --locked

netns: deps-test
	$(call say,Scenarios on the real kernel; in network namespaces of their own)
	$(CARGO) test --locked --test netns

test-vm: deps-test
	$(call say,Scenarios on other kernels, with the fast path)
	$(CARGO) build --locked --bins --tests
	netns-tests/on-kernels.sh $(if $(filter short,$(SELECTION)),--short) "$$($(CARGO) test --locked --test netns --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))/\1/p')" \
	    $(TARGET)/debug/homing

deb: PROGRAMS += dpkg-shlibdeps:dpkg-dev
deb: build
	$(call say,The package)
	packaging/build-deb $(TARGET)/release

test-package: deb
	$(call say,The package in a fresh Debian 12)
	packaging/test-package homing_*.deb

bench: build
	$(call say,What homing costs)
	benches/run --program $(HOMING)

fuzz: deps
	$(call say,Mutated input; what is found lies in fuzz/artifacts)
	fuzz/run.sh $(or $(SECONDS_EACH),300)

# Not part of `make test`: to build the tool takes longer than all of that.
deny:
	$(call say,What homing is built from)
	@command -v cargo-deny > /dev/null || $(CARGO) install cargo-deny --locked
	cargo-deny check licenses bans sources

clean:
	$(call say,Remove what was built)
	$(CARGO) clean
