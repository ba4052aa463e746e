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
RAY_READY := $(VENV)/.ray-ready
ANNOTATION_READY := $(VENV)/.annotation-ready
MONAI_LABEL := 0.8.5
# ONNX Runtime's builds report to their maker otherwise, also of what imports it by itself (bench/).
export ORT_DISABLE_TELEMETRY := 1
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes

HOST ?= 127.0.0.1
PORT ?= 8000
DATA ?= ../shared/data/kaggle-lungs
NAME ?= lung-unet
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
SAMPLE ?= 300
SEED ?= 0
MODEL ?= $(shell ls -d models/lung-unet/*/ 2>/dev/null | sort -V | tail -n 1 | sed 's:/$$::')
MODEL_SHA256 = $(shell sha256sum $(MODEL)/model.onnx 2>/dev/null | cut -d' ' -f1)
# The commit, and whether the tree has been changed since.
REVISION = $(or $(shell git describe --match '' --always --abbrev=40 --dirty 2>/dev/null),unknown)

IMAGE ?= lungseg:$(VERSION)
TRAINING_IMAGE ?= lungseg-training:$(VERSION)
PYTHON_IMAGE ?= $(shell sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)
DOCKER_BUILD_FLAGS ?=
# Each keeps a file of tests to itself, so that what these share is made once.
TEST_PROCESSES ?= 2

.PHONY: help setup serve test test-wheel mutants check pip-check fmt lint types imports ray slurm test-annotation bench bench-train load fuzz train screenshots openapi docs bench-page \
        lock image training-image pin-images sbom image-sbom audit hadolint test-container clean

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

# Ray, for one test, in an environment that sees the other one.
$(RAY_READY): requirements/ray.txt | $(DEV_READY)
	$(PY) -m venv $(VENV)/ray
	$(PY) -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > $$($(VENV)/ray/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/other.pth
	$(VENV)/ray/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/ray.txt
	@touch $@

# Programs that ask the service, beside the rest; MONAI Label's client needs nothing that MONAI does.
$(ANNOTATION_READY): requirements/annotation.txt | $(PY)
	$(PY) -m venv $(VENV)/annotation
	$(VENV)/annotation/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/annotation.txt
	$(VENV)/annotation/bin/python -m pip install --quiet --disable-pip-version-check --no-deps monailabel==$(MONAI_LABEL)
	@touch $@

setup: $(DEV_READY) $(KSERVE_READY) ## the whole environment: service, training, tests and checks

# --- use --------------------------------------------------------------------------------------

serve: $(SERVICE_READY) ## serve on HOST:PORT, installing the service alone first
	LUNGSEG_HOST=$(HOST) LUNGSEG_PORT=$(PORT) exec $(PY) -m lungseg serve

train: $(DEV_READY) ## train on DATA and publish the next version of NAME
	$(PY) -m training run --data $(DATA) --out runs/$(NAME) --name $(NAME) $(ARGS)

# --- checks -----------------------------------------------------------------------------------

test: $(DEV_READY) $(KSERVE_READY) ## the test suite
	$(PY) -m pytest -m "not container and not ray and not slurm and not label_studio" --numprocesses $(TEST_PROCESSES) --dist loadfile $(ARGS)

test-annotation: $(DEV_READY) $(ANNOTATION_READY) ## MONAI Label's own client and a real Label Studio against the service (1 GB to install)
	$(PY) -m pytest tests/integrations/test_monailabel.py tests/integrations/test_labelstudio_server.py $(ARGS)

ray: $(RAY_READY) ## a cohort by Ray, and its speed beside one process and two
	$(VENV)/ray/bin/python -m pytest -s -m ray tests/integrations $(ARGS)

slurm: $(DEV_READY) ## a cohort as a job array on a SLURM of one node (Debian: slurm-wlm)
	$(PY) -m pytest -s -m slurm tests/integrations $(ARGS)

test-wheel: $(DEV_READY) ## install the wheel in an environment of its own and segment slices with it
	tests/wheel.sh

mutants: $(DEV_READY) ## SAMPLE small mistakes, or all, in AREA, or everywhere: how many does a test notice?
	$(PY) -m tests.mutants --sample $(SAMPLE) --seed $(SEED) $(if $(AREA),--area $(AREA))

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

pip-check: $(DEV_READY) $(KSERVE_READY) ## whether what is installed fits together, the project's own requirements included
	$(PY) -m pip check --disable-pip-version-check
	$(VENV)/kserve/bin/python -m pip check --disable-pip-version-check

# --- figures ----------------------------------------------------------------------------------

bench: $(DEV_READY) ## start-up, memory, throughput and latency of the service
	$(PY) -m bench

bench-train: $(DEV_READY) ## seconds per epoch, input wait and memory of training
	$(PY) -m training bench $(ARGS)

load: $(DEV_READY) ## four times the sustainable rate for a minute, then the largest slices: what became of them, and peak memory
	$(PY) -m bench load

fuzz: $(DEV_READY) ## the long fuzz run: 50,000 hostile files, as many damaged frames in DICOM, and volumes
	LUNGSEG_FUZZ_INPUTS=50000 $(PY) -m pytest tests/properties/test_fuzz.py tests/properties/test_fuzz_volumes.py $(ARGS)

bench-page: $(DEV_READY) ## size and time of the page's first view, and the time from drop to outline, in Chromium
	$(PY) -m bench page

# --- what is generated ------------------------------------------------------------------------

screenshots: $(DEV_READY) ## docs/screenshots: the page in light and dark, by Chromium
	$(PY) -m bench screenshots

openapi: $(SERVICE_READY) ## write the OpenAPI document that the snapshot test compares with
	$(PY) -m lungseg openapi > tests/golden/openapi.json

docs: $(SERVICE_READY) ## write docs/settings.md from the settings
	$(PY) docs/settings_page.py > docs/settings.md

UV_COMPILE = env -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS $(BIN)/uv pip compile --no-config --quiet \
	--universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links $(UPGRADE)

lock: $(DEV_READY) ## pin every requirement anew (UPGRADE=--upgrade takes newer versions)
	$(UV_COMPILE) pyproject.toml --extra dev -o requirements/dev.txt
	$(UV_COMPILE) pyproject.toml --extra training -c requirements/dev.txt -o requirements/training.txt
	$(UV_COMPILE) pyproject.toml --extra dicom-seg -c requirements/dev.txt -o requirements/service.txt
	$(UV_COMPILE) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	$(UV_COMPILE) requirements/kserve.in -o requirements/kserve.txt
	$(UV_COMPILE) requirements/ray.in -c requirements/dev.txt -o requirements/ray.txt
	$(UV_COMPILE) requirements/annotation.in -o requirements/annotation.txt
	@! grep -nE '://|^--(index|extra-index|find-links)' requirements/*.txt

# --- container --------------------------------------------------------------------------------

image: ## the service's image
	docker build $(DOCKER_BUILD_FLAGS) --tag $(IMAGE) \
	  --build-arg PYTHON_IMAGE=$(PYTHON_IMAGE) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
	  --build-arg MODEL=$(patsubst models/%,%,$(MODEL)) --build-arg MODEL_SHA256=$(MODEL_SHA256) .
	@docker/image-size.sh $(PYTHON_IMAGE) $(IMAGE)

training-image: ## the image that retrains
	docker build $(DOCKER_BUILD_FLAGS) --tag $(TRAINING_IMAGE) --file docker/Dockerfile.training \
	  --build-arg PYTHON_IMAGE=$(PYTHON_IMAGE) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) .

pin-images: ## write the digests of the base images, as their registries have them now, into the files that name them
	docker/pin-images.sh

sbom: $(DEV_READY) ## CycloneDX list of what the service is made of: packages and models, licences, hashes, graph
	$(PY) docker/sbom.py lungseg-$(VERSION).cdx.json

image-sbom: $(DEV_READY) ## the same of the image that `make image` made, with the packages of its system
	$(PY) docker/sbom.py lungseg-$(VERSION)-image.cdx.json $(IMAGE)

audit: $(DEV_READY) ## known vulnerabilities of the service's requirements
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements/service.txt

test-container: $(DEV_READY) ## build and drive the containers with a real engine
	$(PY) -m pytest -m container tests/container $(ARGS)

clean: ## remove what can be made again, runs/ and models/ excepted
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.cdx.json
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
