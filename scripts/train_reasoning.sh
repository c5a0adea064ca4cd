#!/usr/bin/env bash
# Re-creates models/zoo/language_reasoning, the adapter that makes instructions into goals; about 35 minutes on one
# idle core with bfloat16 instructions. It can be interrupted and goes on. Usage: scripts/train_reasoning.sh [WORK_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."

OMP_NUM_THREADS=1 exec .venv/bin/python -m worldpilot.reasoning.train --work "${1:-runs/reasoning}" \
  --pairs 11000 --layers 18 --rank 24 --epochs 1
