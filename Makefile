# `make help` lists the targets. Everything runs inside .venv, built from requirements.lock.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
INSTALLED := .venv/installed.lock
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONUNBUFFERED := 1

comma := ,
TEMPERATURES := 0.05 0.1 0.2
THRESHOLDS := 0.5 0.98
PAPER := cats_vs_dogs,stanford_dogs,caltech_birds

.PHONY: help env repro paper photos study compare sweep test lint docs check-lock dvc-deps readme bench lock

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-12s  %s\n", $$1, $$2 }'

# The copy of requirements.lock is written last, so that a change is detected. An interrupted install leaves the file
# `installing`; then .venv is rebuilt, because pip treats a half-written package as installed.
# The checkout itself is installed editable, so that `.venv/bin/bla` and `import bla` use it.
env: ## build .venv from requirements.lock, if the lock has changed
	@{ cmp -s requirements.lock $(INSTALLED) && [ -x .venv/bin/bla ]; } || { \
	  set -e; \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "Python 3.11.4 or newer is needed; run make PYTHON=...")'; \
	  echo "installing the packages of requirements.lock into .venv (6.4 GB, some minutes) ..."; \
	  { [ ! -e .venv/installing ] && .venv/bin/python -m pip --version; } >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv; \
	  touch .venv/installing; \
	  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock; \
	  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	  cp requirements.lock $(INSTALLED); rm .venv/installing; }

repro: env ## run the whole pipeline, from images to tables, figures and reports
	@mkdir -p data/study
	@.venv/bin/dvc repro

# `dvc exp run` writes the settings to params.yaml; `git checkout . && dvc checkout --force` restores the old ones.
paper: env ## compute Tables 1 and 2 on the paper's three datasets, after an estimate of downloads and time
	@.venv/bin/python -m pipeline.run.estimate $(subst $(comma), ,$(PAPER))
	@.venv/bin/dvc exp run -S 'datasets=[$(PAPER)]' -S 'unstated_choices.datasets=[]' \
	  -S 'variants=[l2x_f,bla,bla_t,bla_ph,bla_ph_released,bla_ph_reloaded]' \
	  -S faithfulness.images=100 -S faithfulness.slow_images=40 -S faithfulness.check_images=5

photos: env ## compute Tables 1 and 2 on photographs, the Oxford-IIIT Pets (0.8 GB to download), after an estimate
	@.venv/bin/python -m pipeline.run.estimate oxford_pet
	@.venv/bin/dvc exp run -S 'datasets=[oxford_pet]' -S 'learned_explainers=[l_cam_fm]' -S 'explainers=[cam,grad_cam,grad_cam_pp,score_cam,rise,random,constant,centre,edges]'

study: env ## build the questionnaire of the user study, reports/study/questionnaire.html
	@.venv/bin/dvc repro reports/study/dvc.yaml

compare: env ## show the experiments since the last commit: changed settings first, then the metrics that differ
	@.venv/bin/dvc exp show --json | .venv/bin/python -m pipeline.run.experiments

# Each experiment runs in a temporary copy, so that the workspace stays as it is. Finished ones are not run again.
sweep: env ## train BLA-T at some temperatures and thresholds: table and figure in sweep/
	@.venv/bin/dvc repro table1
	@finished=" $$(.venv/bin/dvc exp list --name-only | tr '\n' ' ') "; \
	for temperature in $(TEMPERATURES); do for threshold in $(THRESHOLDS); do \
	  name=sweep-$$temperature-$$threshold; \
	  case "$$finished" in *" $$name "*) continue;; esac; \
	  .venv/bin/dvc exp run --temp -n $$name -S variant.bla_t.temperature=$$temperature \
	    -S variant.bla_t.threshold_factor=$$threshold table1 || exit; \
	done; done
	@.venv/bin/dvc exp show --json | .venv/bin/python -m pipeline.run.experiments sweep

test: env ## run the tests
	@.venv/bin/pytest

lint: env ## check style and types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

docs: env ## build the documentation as a site, in site/; open site/index.html
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict # not --quiet: it hides warnings from --strict

check-lock: env ## check that dvc.lock and reports/tables match the code and the settings
	@.venv/bin/dvc repro --allow-missing --dry 2>&1 | tee /dev/stderr | grep -q '^Data and pipelines are up to date\.$$' || \
	  { echo 'dvc.lock does not match the code: run make repro, then commit dvc.lock and reports' >&2; exit 1; }

dvc-deps: env ## update the lists of source files that each stage depends on, in data/code
	@.venv/bin/dvc repro code

readme: ## copy Table 1 and the pictures into the README
	@cat reports/figures/overview_painted_birds.png > overview.part && mv overview.part reports/overview.png
	@cat reports/figures/figure3.png > figure3.part && mv figure3.part reports/figure3.png
	@sed -e '/<!-- table1:/,/<!-- \/table1 -->/{//!d;}' -e '/<!-- table1:/r reports/tables/table1.md' README.md > README.md.part
	@mv README.md.part README.md

bench: env ## measure speed and append to benchmarks/results.md
	@.venv/bin/python benchmarks/training.py
	@.venv/bin/python benchmarks/training.py --paper --runs 2
	@.venv/bin/python benchmarks/extraction.py
	@.venv/bin/python benchmarks/explainers.py
	@.venv/bin/python benchmarks/learned.py

lock: ## pin the newest versions that pyproject.toml allows (needs uv)
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --upgrade -o requirements.lock
