PYTHON ?= python3
BIN := .venv/bin
export MPLBACKEND ?= Agg

.PHONY: demo test bench study readme docs

demo: .venv/ready  ## Digits with and without label smoothing, numbers and a picture
	$(BIN)/python examples/digits.py

test: .venv/ready  ## The lessons in the notebooks, then the tests
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers 2 --timing --skip-file-re "^[_.]$$($(BIN)/python -c 'import sys; print("" if sys.version_info >= (3, 11) else "|multilabel")')" # river's data need 3.11
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

bench: .venv/ready  ## Speed and memory beside other losses, into benchmarks/README.md
	$(BIN)/python -m pip install -q --prefer-binary -e '.[bench]'
	$(BIN)/python benchmarks/losses.py
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/smoothers.py

study: .venv/ready  ## Which reading of eps is better: into study/results.csv, resumed where it stopped; QUICK=1: a slice in a minute
	$(BIN)/python study/run.py $(if $(QUICK),--quick)

readme: .venv/ready  ## README.md from nbs/index.ipynb
	$(BIN)/python nbs/_readme.py

docs: .venv/ready  ## The site, into _docs/ (Python 3.11+)
	$(BIN)/python -m pip install -q --prefer-binary -e '.[docs]'
	$(BIN)/python nbs/_site.py

.venv/ready: settings.ini setup.cfg setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --prefer-binary -e '.[dev]'
	touch $@
