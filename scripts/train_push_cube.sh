#!/usr/bin/env bash
# Re-creates models/zoo/push_cube; about 45 minutes on two idle cores. Usage: scripts/train_push_cube.sh [WORK_FOLDER] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."

task=push_cube
collect=(--random-push 700 --expert 100)
model=(--steps 4000 --dynamics-steps 4000 --dynamics-batch 256)
prior=(--steps 4000)
good=(--protocol goal-image --policies mpc --episodes 200)
behaviours=mpc
data="700 random-push, 100 expert episodes of sim/push_cube.py, randomised colours, light, friction"
. scripts/train.sh
