# The verbs of this repository. All they need is Python 3.11 with venv, make and, for the tests, a
# Debian whose apt may be used (as root or by sudo).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
JOBS ?= 1000000
FAULTS ?= 200
SEED ?= 1
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3

# What packages are dated with: the same commit gives the same bytes.
SOURCE_DATE_EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null))
ifneq ($(SOURCE_DATE_EPOCH),)
export SOURCE_DATE_EPOCH
endif

.PHONY: help setup demo test soak servers bench bench-plot beds test-appliance lint format wheel deb wheelhouse clean
.DEFAULT_GOAL := help

help: ## list these verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

setup: $(VENV)/.dev ## make .venv with everything for development in it

demo: $(VENV)/.demo ## show the relay at work between two job servers on this machine; needs no root
	$(BIN)/gevproxy demo

# promtool alone, out of Debian's package: nothing is installed, no service and no user.
$(BIN)/promtool: | $(VENV)/.dev
	@folder=$$(mktemp -d) && cd "$$folder" && { apt-get download prometheus 2>/dev/null \
		|| { $(APT) update && apt-get download prometheus; } } \
		&& dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xO ./usr/bin/promtool > promtool \
		&& chmod 755 promtool && mv promtool "$(CURDIR)/$@" && rm -r "$$folder"

# Debian puts gearmand where only root looks by default.
test soak servers bench: export PATH := $(PATH):/usr/sbin

test: setup servers $(BIN)/promtool ## install what the tests need, then run all of them
	$(BIN)/pytest -n 6 --dist worksteal $(ARGS)

soak: setup servers ## random faults while jobs flow: make soak JOBS=1000000 FAULTS=200 SEED=1
	$(BIN)/python -m tests.chaos.soak --jobs $(JOBS) --faults $(FAULTS) --seed $(SEED)

servers: ## install by apt what the tests use and is missing: gearmand, stunnel, iptables and the like
	@{ which gearmand gearadmin gearman ip iptables ss openssl logrotate stunnel4 && perl -MGearman::Client -e1; } >/dev/null 2>&1 || { $(APT) update && $(APT) install -y --no-install-recommends gearman-job-server gearman-tools iproute2 iptables openssl logrotate stunnel4 perl libgearman-client-perl; }

bench: setup servers ## measure the relay against a bare one: about ten minutes; ARGS="--quick plain sync" less
	$(BIN)/python -m tests.bench $(ARGS)

bench-plot: $(VENV)/.bench ## draw the long run in bench.json into docs: make bench ARGS="soak --soak 1800"
	$(BIN)/python -m tests.bench.plot $(ARGS)

# Beds need root. MATRIX=short passes over the slowest part of the role's test: see CONTRIBUTING.md.
AS_ROOT = $(SUDO) env CI="$(CI)" GEVPROXY_BEDS="$(GEVPROXY_BEDS)" GEVPROXY_MATRIX="$(MATRIX)" SOURCE_DATE_EPOCH="$(SOURCE_DATE_EPOCH)" PYTHONDONTWRITEBYTECODE=1

beds: setup ## make Debian 12 and 13 that boot, once, and install what that takes
	$(AS_ROOT) $(BIN)/python -m tests.appliance deps
	$(AS_ROOT) $(BIN)/python -m tests.appliance build

test-appliance: beds $(VENV)/.appliance ## try units, packages and the Ansible role on booted Debians
	$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider -n 4 --dist loadscope --no-loadscope-reorder tests/appliance $(ARGS)

lint: setup ## check style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: setup ## put the code into shape
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

wheel: setup ## build the wheel into dist
	$(BIN)/pip wheel --no-deps --wheel-dir dist .

deb: ## build the Debian packages, one for each release, into dist
	$(PYTHON) packaging/build.py deb $(ARGS)

wheelhouse: ## build the tarball for hosts without an index into dist
	$(PYTHON) packaging/build.py wheelhouse $(ARGS)

clean: ## remove what these verbs have made
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# .venv/.demo and .venv/.dev say that the extra of that name is installed as pyproject.toml has it.
$(VENV)/.%: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --retries 10 --editable '.[$*]'
	@touch $@
