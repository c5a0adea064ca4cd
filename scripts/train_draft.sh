#!/usr/bin/env bash
# Re-creates models/zoo/language_draft, the draft of the reasoning service's language model; about half an hour
# on one idle core with bfloat16 instructions. It can be interrupted and goes on. Usage: scripts/train_draft.sh [WORK_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."

OMP_NUM_THREADS=1 exec .venv/bin/worldpilot train language-draft --target reasoning --out "${1:-runs/draft}" \
  --artifact models/zoo/language_draft --threads 1 \
  --instructions 3500 --questions 30 --steps 3500
