#!/usr/bin/env bash
# Re-creates models/zoo/language_draft, the draft of the reasoning service's language model: an hour on two
# CPU cores with bfloat16 instructions, some minutes on a GPU (cuda:0) with twelve processes. It can be interrupted and
# goes on.
# Usage: scripts/train_draft.sh [WORK_FOLDER] [DEVICE] [PROCESSES]
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-runs/draft} device=${2:-cpu} processes=${3:-2}

draft() {
  "${PYTHON:-.venv/bin/python}" -m worldpilot.cli.main train language-draft --target reasoning --out "$work" \
    --artifact models/zoo/language_draft --device "$device" --instructions 24000 --questions 60 --target-layers 2 "$@"
}

if [ ! -e "$work/texts.jsonl" ]; then # the target's answers, by several processes
  mkdir -p "$work"
  jobs=()
  for part in $(seq "$processes"); do
    OMP_NUM_THREADS=1 draft --threads 1 --part "$part/$processes" > "$work/part-$part.log" 2>&1 &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job"; done
  cat "$work"/texts-*-of-"$(printf %03d "$processes")".jsonl > "$work/joining.jsonl"
  mv "$work/joining.jsonl" "$work/texts.jsonl"
fi
draft --threads 2 --learning-rate 0.0008 --weight-decay 0.3 --steps 10000 --evaluate-every 2000
