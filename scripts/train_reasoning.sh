#!/usr/bin/env bash
# Re-creates models/zoo/language_reasoning, the adapter that makes instructions into goals, in five parts: one from
# nothing, eight minutes on a GPU (cuda:0), some six hours on two CPU cores; and four that go on from it, mostly about
# robots on legs, an hour each on two CPU cores. Each of the last two ends halfway to the one before it. (The shipped one's
# first part knew no instructions said as a whole yet, its second to fourth fewer of them.)
# It can be interrupted and goes on.
# Usage: scripts/train_reasoning.sh [WORK_FOLDER] [DEVICE]
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-runs/reasoning} device=${2:-cpu}
export OMP_NUM_THREADS=2

train() {
  "${PYTHON:-.venv/bin/python}" -m worldpilot.reasoning.train --device "$device" --threads 2 --layers 30 --rank 16 \
    --batch-tokens 2048 "$@"
}

train --work "$work/first" --out "$work/first/adapter" --epochs 2 --pairs 80000 --lr 2e-3 --validation 1000
train --work "$work/second" --start "$work/first/adapter" --out "$work/second/adapter" --epochs 1 --pairs 24000 --seed 1 \
  --lr 8e-4 --dropout 0 --validation 300
train --work "$work/third" --start "$work/second/adapter" --out "$work/third/adapter" --epochs 1 --pairs 20000 --seed 2 \
  --lr 8e-4 --dropout 0 --validation 300
train --work "$work/fourth" --start "$work/third/adapter" --out "$work/fourth/adapter" --average --epochs 1 --pairs 20000 \
  --seed 3 --lr 8e-4 --dropout 0 --validation 300
train --work "$work/fifth" --start "$work/fourth/adapter" --average --epochs 1 --pairs 20000 --seed 5 --lr 8e-4 \
  --dropout 0 --validation 300 --dtype float32 # quicker than bfloat16 where the CPU has no instructions for that
