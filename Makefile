# make setup [LOCK=dev|base|gpu|hub|mlflow] [PYTHON=python3.12]   create .venv; needs only Python 3.11 to 3.13 with pip or uv
# make run | test | test-all | lint | docs | bench         set up first if needed; all except `run` need LOCK=dev
# make lock                                                renew all lock files in requirements/

export UV_PYTHON_DOWNLOADS := never
# Python must be able to cache bytecode. Without it, each import of TFX takes 47 s instead of 12 s.
unexport PYTHONDONTWRITEBYTECODE

# Values of LOCK, CURDIR and PYTHON in the last setup. They stay in effect until LOCK or PYTHON is given, or the
# checkout is moved or copied.
READY  := $(shell cat .venv/.ready 2>/dev/null)
LOCK   ?= $(or $(word 1,$(READY)),dev)
PYTHON ?= $(word 3,$(READY))
ifneq ($(strip $(LOCK) $(CURDIR) $(PYTHON)),$(READY))
.PHONY: .venv/.ready
endif

# All Pythons on the path, and for the Python of an environment also its base Python, because an activated environment
# may have no pip. Not every python3.12 runs: pyenv has a script for each version, even for inactive ones.
NAMES   = python3.11 python3.12 python3.13 python3 python
PYTHONS = $(or $(PYTHON),$(wildcard $(foreach name,$(NAMES),$(addsuffix /$(name),$(subst :, ,$(PATH))))))
BASE    = import sys; print(sys._base_executable)
VERSION = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
first   = $(shell for p in $(PYTHONS); do for q in $$p $$($$p -c '$(BASE)' 2>/dev/null); do \
          $$q -c '$(1)' 2>/dev/null && echo $$q && break 2; done; done)
NONE    = No Python 3.11 to 3.13 $(1)runs here (tried $(or $(PYTHONS),$(NAMES))). Install one, on Debian and Ubuntu \
          with "apt install python3 python3-pip", or name it: make setup PYTHON=/path/to/python
FOUND   = $(or $(call first,$(VERSION)),$(error $(call NONE)))
# uv is installed with a Python that has pip, or else with a uv on the path.
PIP     = $(call first,import pip; $(VERSION))
UV      = $(shell command -v uv)
INSTALL = $(or $(PIP:%=% -m pip install --no-user --root-user-action=ignore),$(UV:%=% pip install),\
          $(error $(call NONE,with pip )))

# The wheels of TFDV and ML Metadata require a newer glibc than many hosts have. old_glibc.py patches them.
ifeq ($(shell uname -sm),Linux x86_64)
PLATFORM := --python-platform x86_64-manylinux_2_39
endif

.PHONY: setup run test test-all lint docs bench lock
setup: .venv/.ready

run: .venv/.ready
	.venv/bin/vitpipe data prepare sample --out data/sample
	.venv/bin/vitpipe run -c sample

# One worker for each core, up to four, because each worker loads TensorFlow and TFX. All tests of a file run in one
# worker, which builds their fixtures once.
PYTEST = .venv/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: .venv/.ready
	$(PYTEST) -m "not slow"

# All tests. The dependency makes `make test test-all` run the quick tests only once.
test-all: test
	$(PYTEST) -m slow

lint: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/hadolint kubeflow/images/Dockerfile

# Build the site in build/docs. Every warning is an error, for example a dead link, a page that no list contains, or an
# unknown name.
docs: .venv/.ready
	.venv/bin/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs build/docs

bench: .venv/.ready
	.venv/bin/vitpipe data prepare sample --out data/sample
	for script in prepare data preset input train_step serving; do .venv/bin/python benchmarks/$$script.py || exit 1; done

# The pictures of the documentation, taken in Chromium from a fresh run of the sample.
.PHONY: pictures
pictures: .venv/.ready
	.venv/bin/python docs/pictures.py

COMPILE := .uv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"
lock: .uv/.ready
	$(COMPILE) pyproject.toml -o requirements/base.txt
	$(COMPILE) pyproject.toml --excludes requirements/steps_excludes.txt -c requirements/base.txt \
		-o requirements/steps.txt
	$(COMPILE) pyproject.toml --extra gpu -c requirements/base.txt -o requirements/gpu.txt
	$(COMPILE) pyproject.toml --extra hub -c requirements/base.txt -o requirements/hub.txt
	$(COMPILE) pyproject.toml --extra mlflow -c requirements/base.txt -o requirements/mlflow.txt
	$(COMPILE) pyproject.toml --extra dev -c requirements/base.txt -o requirements/dev.txt
	echo uv | $(COMPILE) - -o requirements/uv.txt
	echo cyclonedx-bom | $(COMPILE) - -o requirements/sbom.txt

# Both .ready files are removed first and written last, so that an interrupted setup is repeated.
.venv/.ready: .uv/.ready requirements/$(LOCK).txt pyproject.toml setup.py requirements/old_glibc.py
	@test -e $@ -a "$(wordlist 2,3,$(READY))" = "$(strip $(CURDIR) $(PYTHON))" || .uv/bin/uv venv --quiet --clear --python $(FOUND) .venv
	@rm -f $@
	.uv/bin/uv pip sync --python .venv/bin/python --require-hashes $(PLATFORM) requirements/$(LOCK).txt
	@rm -rf vitpipe.egg-info # outdated metadata, which would hide the new metadata in this folder
	.uv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
	.venv/bin/python requirements/old_glibc.py
	@echo $(LOCK) $(CURDIR) $(PYTHON) > $@

.uv/.ready: requirements/uv.txt
	@rm -rf .uv
	$(INSTALL) --quiet --target .uv --require-hashes -r requirements/uv.txt
	@touch $@
