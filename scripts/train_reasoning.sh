#!/usr/bin/env bash
# Re-creates models/zoo/language_reasoning, the adapter that makes instructions into goals: eight minutes on a GPU
# (cuda:0), most of a day on one CPU core. It can be interrupted and goes on.
# Usage: scripts/train_reasoning.sh [WORK_FOLDER] [DEVICE]
set -euo pipefail
cd "$(dirname "$0")/.."

OMP_NUM_THREADS=1 exec "${PYTHON:-.venv/bin/python}" -m worldpilot.reasoning.train --work "${1:-runs/reasoning}" --device "${2:-cpu}" \
  --layers 30 --rank 16 --epochs 2 --pairs 80000 --lr 2e-3 --batch-tokens 2048 --validation 1000
