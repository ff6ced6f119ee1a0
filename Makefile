# The verbs of the tutorial. `make` alone lists them. Every recipe works in a path with spaces.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup lab tutorial test test-browser bridged style notebooks results lock

PY := .venv/bin/python
# What `make bridged` runs, and behind which Pythons.
NOTEBOOKS := notebooks
PYTHONS := 3.12 3.13
# Tests reach no hub and send no analytics. A reader's own runs may reach the hub.
QUIET := HF_HUB_OFFLINE=1 NM_DISABLE_ANALYTICS=1

help:  ## list these verbs
	@echo "Sparse transfer learning, step by step. First: make setup, then: make lab"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup:  ## .venv on Python 3.11 from requirements.lock, with the Jupyter kernel
	@bash tools/setup.sh

lab: setup  ## open JupyterLab at the notebooks
	$(PY) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks

tutorial: setup  ## run the notebooks in order, at laptop size, and print the table
	$(PY) -m helpers tutorial

# Each file of unit tests runs in one of a few processes. The notebooks, which need each other's models, run beside
# them in one more, on one thread, and are shown after; but for the one that times engines on all cores, which runs
# alone at the end.
UNIT := -n auto --maxprocesses 4 --dist loadfile
SMOKE = $(QUIET) TUTORIAL_TIER=smoke TUTORIAL_RUNS="$(CURDIR)/runs/smoke" \
	$(PY) -m pytest --nbval-lax --nbval-cell-timeout=290
TIMED := notebooks/06_benchmark_deepsparse.ipynb
test: setup style  ## style, then unit tests and every notebook at smoke size, side by side
	@rm -rf runs/smoke; mkdir -p runs; \
	OMP_NUM_THREADS=1 $(SMOKE) notebooks --ignore $(TIMED) > runs/smoke.txt 2>&1 & \
	notebooks=$$!; trap 'kill $$notebooks 2>/dev/null' INT TERM; \
	unit=0; $(QUIET) $(PY) -m pytest tests $(UNIT) || unit=$$?; \
	lessons=0; wait $$notebooks || lessons=$$?; cat runs/smoke.txt; \
	exit $$((unit > lessons ? unit : lessons))
	$(SMOKE) $(TIMED)

test-browser: setup  ## notebooks in JupyterLab and on pages, in a real Chromium; pictures in runs/browser
	$(QUIET) $(PY) -m pytest tests/browser -m browser

bridged: setup  ## every notebook at smoke size on kernels of other Pythons, which pass the cells on
	@set -e; for version in $(PYTHONS); do \
		$(PY) tools/other_kernel.py $$version; \
		rm -rf runs/bridged; \
		$(QUIET) TUTORIAL_TIER=smoke TUTORIAL_RUNS="$(CURDIR)/runs/bridged" \
			JUPYTER_PATH="$(CURDIR)/runs/kernels/$$version/share/jupyter" \
			$(PY) -m pytest --nbval-lax --nbval-cell-timeout=290 \
			--nbval-kernel-name "python-$$version" $(NOTEBOOKS); \
	done

style: setup  ## check format, lint and spelling, change nothing
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	.venv/bin/typos

notebooks: setup  ## run the notebooks at laptop size and store their outputs
	$(PY) -m helpers tutorial --store

results: setup  ## write the tables in README.md and results/README.md from results/
	$(PY) -m helpers results

lock:  ## make requirements.lock from pyproject.toml (UPGRADE=1 takes newer versions)
	@bash tools/make_lock.sh
