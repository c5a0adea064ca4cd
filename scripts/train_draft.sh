#!/usr/bin/env bash
# Re-creates models/zoo/language_draft, the draft of the reasoning service's language model: an hour and a half on two
# CPU cores with bfloat16 instructions, ten minutes on a GPU (cuda:0). It can be interrupted and goes on.
# Usage: scripts/train_draft.sh [WORK_FOLDER] [DEVICE]
set -euo pipefail
cd "$(dirname "$0")/.."

exec .venv/bin/worldpilot train language-draft --target reasoning --out "${1:-runs/draft}" \
  --artifact models/zoo/language_draft --device "${2:-cpu}" --threads 2 \
  --instructions 24000 --questions 60 --target-layers 2 --learning-rate 0.0008 --weight-decay 0.3 --steps 15000 --evaluate-every 2000
