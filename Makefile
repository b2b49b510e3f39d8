# Verbs for people who work on gatewayd. `make demo` and `make test` need Python >= 3.11, a C compiler and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Whatever changes what is installed or built makes the stamp stale.
BUILD_INPUTS := pyproject.toml setup.py constraints.txt $(wildcard csrc/*.py csrc/include/* csrc/src/*)
STAMP  := $(VENV)/.built

.PHONY: help demo test check format types lint floors c-warnings c-test docs clean

help: ## What each verb does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): $(BUILD_INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,test,check]'
	touch $(STAMP)

demo: $(STAMP) ## The main job on the embedded hub: 500 devices, 30 s tokens, 75 s
	$(BIN)/gatewayd demo $(DEMO)

test: $(STAMP) ## All tests that need only pip; warnings are errors
	$(BIN)/python -m pytest $(TESTS)

check: $(STAMP) lint types floors c-warnings ## Format, lint, types, floors, mirror, C warnings

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

floors: $(STAMP)
	$(BIN)/python -m pytest --quiet tests/test_floors.py tests/test_mirror.py

c-warnings:
	$(MAKE) --no-print-directory -C csrc warnings

c-test: ## The signer's own tests, plain and under sanitizers
	$(MAKE) --no-print-directory -C csrc test asan ubsan

format: $(STAMP) ## Format Python in place
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP) ## Write anew what docs/ takes from the code
	$(BIN)/python -m gatewayd.daemon.config_reference docs
	$(BIN)/python -m tests.support.doc_blocks

clean: ## Remove what was built
	rm -rf $(VENV) build dist csrc/build *.egg-info
	find . -name '*.so' -not -path './$(VENV)/*' -delete
