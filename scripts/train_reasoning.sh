#!/usr/bin/env bash
# Re-creates models/zoo/language_reasoning, the adapter that makes instructions into goals, in two parts; about an hour on
# one idle core with bfloat16 instructions. It can be interrupted and goes on. Usage: scripts/train_reasoning.sh [WORK_FOLDER]
#
# The first part of the shipped adapter saw the phrases of an earlier version (8877839), all of which are among today's.
set -euo pipefail
cd "$(dirname "$0")/.."

work="${1:-runs/reasoning}"
train() { OMP_NUM_THREADS=1 .venv/bin/python -m worldpilot.reasoning.train --layers 18 --rank 24 --epochs 1 "$@"; }

train --work "$work/first" --out "$work/first/adapter" --pairs 11000
train --work "$work/second" --start "$work/first/adapter" --pairs 7500 --lr 8e-4 --seed 1
