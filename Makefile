# Everything that is done with this repository. `make serve` needs nothing but Python 3.11 or later.
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
BIN := $(VENV)/bin
SERVICE_READY := $(VENV)/.service-ready
DEV_READY := $(VENV)/.dev-ready
KSERVE_READY := $(VENV)/.kserve-ready
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes

HOST ?= 127.0.0.1
PORT ?= 8000
DATA ?= ../shared/data/kaggle-lungs
NAME ?= lung-unet
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
MODEL ?= $(shell ls -d models/lung-unet/*/ 2>/dev/null | sort -V | tail -n 1 | sed 's:/$$::')
MODEL_SHA256 = $(shell sha256sum $(MODEL)/model.onnx 2>/dev/null | cut -d' ' -f1)
REVISION = $(shell git rev-parse HEAD 2>/dev/null)

IMAGE ?= lungseg:$(VERSION)
TRAINING_IMAGE ?= lungseg-training:$(VERSION)
PYTHON_IMAGE ?= python:3.11-slim-bookworm
DOCKER_BUILD_FLAGS ?=

.PHONY: help setup serve test test-wheel check fmt lint types imports bench bench-train load fuzz train demo openapi docs \
        lock image training-image sbom audit hadolint test-container clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

# --- environment ------------------------------------------------------------------------------

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "lungseg needs Python 3.11 or later; say which one with PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(SERVICE_READY): requirements/build.txt requirements/service.txt pyproject.toml | $(PY)
	$(PIP) -r requirements/build.txt -r requirements/service.txt
	PYTHONWARNINGS=ignore $(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  --editable .
	@touch $@

$(DEV_READY): requirements/dev.txt $(SERVICE_READY)
	$(PIP) -r requirements/dev.txt
	@touch $@

# KServe's models, for one test, beside the rest: they want an older protobuf.
$(KSERVE_READY): requirements/kserve.txt | $(PY)
	$(PY) -m venv $(VENV)/kserve
	$(VENV)/kserve/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/kserve.txt
	@touch $@

setup: $(DEV_READY) $(KSERVE_READY) ## the whole environment: service, training, tests and checks

# --- use --------------------------------------------------------------------------------------

serve: $(SERVICE_READY) ## serve on HOST:PORT, installing the service alone first
	LUNGSEG_HOST=$(HOST) LUNGSEG_PORT=$(PORT) exec $(PY) -m lungseg serve

demo: $(SERVICE_READY) ## the README's picture: the sample slice with its lungs outlined
	$(BIN)/lungseg segment "$$($(BIN)/lungseg sample 2>/dev/null)" --format overlay -o - > docs/overlay.png

train: $(DEV_READY) ## train on DATA and publish the next version of NAME
	$(PY) -m training run --data $(DATA) --out runs/$(NAME) --name $(NAME) $(ARGS)

# --- checks -----------------------------------------------------------------------------------

test: $(DEV_READY) $(KSERVE_READY) ## the test suite
	$(PY) -m pytest -m "not container" $(ARGS)

test-wheel: $(DEV_READY) ## install the wheel in an environment of its own and segment slices with it
	tests/wheel.sh

check: lint types imports hadolint ## what must hold before a commit, besides the tests

lint: $(DEV_READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: $(DEV_READY) ## put every file into the common format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

types: $(DEV_READY) ## pyright, strict for the service
	$(BIN)/pyright --project pyproject.toml
	$(BIN)/pyright --project pyright-basic.json

imports: $(DEV_READY) ## the direction of imports
	$(BIN)/lint-imports

hadolint: $(DEV_READY) ## the Dockerfiles
	$(BIN)/hadolint Dockerfile docker/Dockerfile.training

# --- figures ----------------------------------------------------------------------------------

bench: $(DEV_READY) ## start-up, memory, throughput and latency of the service
	$(PY) -m bench

bench-train: $(DEV_READY) ## seconds per epoch, input wait and memory of training
	$(PY) -m training bench $(ARGS)

load: $(DEV_READY) ## four times the sustainable rate for a minute, then the largest slices: what became of them, and peak memory
	$(PY) -m bench load

fuzz: $(DEV_READY) ## the long fuzz run: 50,000 hostile files, and 50,000 damaged frames in DICOM
	LUNGSEG_FUZZ_INPUTS=50000 $(PY) -m pytest tests/properties/test_fuzz.py $(ARGS)

# --- what is generated ------------------------------------------------------------------------

openapi: $(SERVICE_READY) ## write the OpenAPI document that the snapshot test compares with
	$(PY) -m lungseg openapi > tests/golden/openapi.json

docs: $(SERVICE_READY) ## write docs/settings.md from the settings
	$(PY) docs/settings_page.py > docs/settings.md

UV_COMPILE = env -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS $(BIN)/uv pip compile --no-config --quiet \
	--universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links $(UPGRADE)

lock: $(VENV)/.uv-ready ## pin every requirement anew (UPGRADE=--upgrade takes newer versions)
	$(UV_COMPILE) pyproject.toml --all-extras -o requirements/dev.txt
	$(UV_COMPILE) pyproject.toml --extra training -c requirements/dev.txt -o requirements/training.txt
	$(UV_COMPILE) pyproject.toml --extra dicom-seg -c requirements/dev.txt -o requirements/service.txt
	$(UV_COMPILE) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	$(UV_COMPILE) requirements/kserve.in -o requirements/kserve.txt
	@! grep -nE '://|^--(index|extra-index|find-links)' requirements/*.txt

$(VENV)/.uv-ready: | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check "uv>=0.13,<0.14"
	@touch $@

# --- container --------------------------------------------------------------------------------

image: ## the service's image
	docker build $(DOCKER_BUILD_FLAGS) --tag $(IMAGE) \
	  --build-arg PYTHON_IMAGE=$(PYTHON_IMAGE) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
	  --build-arg MODEL=$(patsubst models/%,%,$(MODEL)) --build-arg MODEL_SHA256=$(MODEL_SHA256) .
	@docker/image-size.sh $(PYTHON_IMAGE) $(IMAGE)

training-image: ## the image that retrains
	docker build $(DOCKER_BUILD_FLAGS) --tag $(TRAINING_IMAGE) --file docker/Dockerfile.training \
	  --build-arg PYTHON_IMAGE=$(PYTHON_IMAGE) --build-arg VERSION=$(VERSION) .

sbom: $(DEV_READY) ## CycloneDX list of what the service is made of
	$(BIN)/cyclonedx-py requirements requirements/service.txt --pyproject pyproject.toml \
	  --output-reproducible -o lungseg-$(VERSION).cdx.json
	@echo "lungseg-$(VERSION).cdx.json"

audit: $(DEV_READY) ## known vulnerabilities of the service's requirements
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements/service.txt

test-container: $(DEV_READY) ## build and drive the containers with a real engine
	$(PY) -m pytest -m container tests/container $(ARGS)

clean: ## remove what can be made again, runs/ and models/ excepted
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.cdx.json
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
