PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export MPLBACKEND ?= Agg

.PHONY: demo test lint test-oldest bench study readme docs

demo: $(VENV)/ready  ## Digits with and without label smoothing, numbers and a picture
	$(BIN)/python examples/digits.py

test: lint  ## The lessons in the notebooks, then the tests
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers 2 --timing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/ready  ## What is defined twice, unknown or unused
	$(BIN)/ruff check -q

test-oldest:  ## The same with the oldest versions of fastai and torch, in .venv-oldest
	$(MAKE) test VENV=.venv-oldest PIP_CONSTRAINT=$(CURDIR)/tests/oldest.txt

bench: $(VENV)/ready  ## Speed and memory beside other losses, into benchmarks/README.md
	$(BIN)/python -m pip install -q --prefer-binary -e '.[bench]'
	$(BIN)/python benchmarks/losses.py
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/smoothers.py

study: $(VENV)/ready  ## Which reading of eps is better: into study/results.csv, resumed where it stopped; QUICK=1: a slice in a minute
	$(BIN)/python study/run.py $(if $(QUICK),--quick)
	$(BIN)/python study/issues.py $(if $(QUICK),--quick)

readme: $(VENV)/ready  ## README.md from nbs/index.ipynb
	$(BIN)/python nbs/_readme.py

docs: $(VENV)/ready  ## The site, into _docs/ (Python 3.11+)
	$(BIN)/python -m pip install -q --prefer-binary -e '.[docs]'
	$(BIN)/python nbs/_site.py

$(VENV)/ready: settings.ini setup.cfg setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --prefer-binary -e '.[dev]'
	touch $@
