# Every target prepares the environment it needs; nothing has to be installed by hand.
#   STACK=openmmlab        classic OpenMMLab packages, in an environment of their own
#   VENV=dir TORCH=2.x.y   where to install, and which torch
#   DATA=folder            images for `make demo`
#   ARGS="-k masking"      further arguments for pytest, or for the demo
STACK ?= onedl
VENV ?= $(if $(filter openmmlab,$(STACK)),.venv-openmmlab,.venv)
WORKERS ?= 2
PY = $(VENV)/bin/python
INSTALL = STACK="$(STACK)" VENV="$(VENV)" TORCH="$(TORCH)" PYTHON="$(PYTHON)" tools/install.sh

.DEFAULT_GOAL := help
.PHONY: help demo test lint format type

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):  ## /  make \1\t/p' Makefile
	@sed -n '2,5s/^# */  /p' Makefile

demo:  ## pre-train on real images and evaluate the encoders
	@$(INSTALL) demo
	@$(PY) tools/demo.py $(if $(DATA),--data "$(DATA)") $(ARGS)

test:  ## run the full test suite (compiles mmcv's operators once)
	@$(INSTALL) test
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --durations=15 $(ARGS)

lint:  ## check style and spelling
	@$(INSTALL) dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/codespell

format:  ## put the code into the common form
	@$(INSTALL) dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

type:  ## check the types of the package
	@$(INSTALL) dev
	$(PY) -m mypy
