# `make demo` and `make test` set up all they need; everything stays inside this folder.
SHELL := /bin/bash
.DEFAULT_GOAL := help
TASK ?= push_t
ARGS ?=

.PHONY: help setup demo test lint format types ros lock clean

help: ## list these targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/make \1\t\2/p' Makefile | expand -t 16

setup: ## .venv with pinned packages and ROS 2 Jazzy, and the built workspace
	@scripts/setup.sh

demo: setup ## the whole story in simulation, with a report: make demo [TASK=push_t] [ARGS=…]
	@.venv/bin/worldpilot demo $(TASK) $(ARGS)

# All: what runs in real time, whole graphs above all, one by one behind the rest.
test: setup ## all tests, or those you say: make test [ARGS="-m 'not slow' tests/unit"]
	@. .venv/ros_env.bash && export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST OMP_NUM_THREADS=1 \
	ROS_DOMAIN_ID=$${ROS_DOMAIN_ID:-$$(.venv/bin/python -c "from worldpilot.demo import host; print(host.free_domain())")} \
	&& $(if $(ARGS),.venv/bin/pytest $(ARGS),.venv/bin/pytest -n logical --maxprocesses 4 --dist loadfile tests/unit \
	tests/property && .venv/bin/pytest tests/integration tests/e2e)

lint: setup ## ruff's rules and format
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check

format: setup ## apply ruff's fixes and format
	@.venv/bin/ruff check --fix
	@.venv/bin/ruff format

types: setup ## pyright
	@.venv/bin/pyright

ros: ## build the workspace against ROS 2 Jazzy from apt: make ros [EXTRAS=cpu]
	@scripts/setup.sh apt

lock: setup ## write constraints.txt from what is installed
	@.venv/bin/python scripts/lock.py

clean: ## remove all that was built, not runs/, data/ or checkpoints/
	rm -rf .venv .venv-ros ros2_ws/build ros2_ws/install ros2_ws/log build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
