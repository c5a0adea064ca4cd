#!/usr/bin/env bash
# Re-creates models/zoo/language_draft, the draft of the reasoning service's language model: ten minutes on a GPU
# (cuda:0), about two hours on one CPU core with bfloat16 instructions. It can be interrupted and goes on.
# Usage: scripts/train_draft.sh [WORK_FOLDER] [DEVICE]
set -euo pipefail
cd "$(dirname "$0")/.."

OMP_NUM_THREADS=1 exec .venv/bin/worldpilot train language-draft --target reasoning --out "${1:-runs/draft}" \
  --artifact models/zoo/language_draft --device "${2:-cpu}" --threads 1 \
  --instructions 10000 --questions 60 --steps 9000
