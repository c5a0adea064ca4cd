#!/usr/bin/env bash
# Re-creates models/zoo/push_cube; about 75 minutes on two idle cores. Usage: scripts/train_push_cube.sh [WORK_FOLDER] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."

task=push_cube
collect=(--random-push 2150 --expert 150 --presses 400)
model=(--steps 6000 --dynamics-steps 15000 --dynamics-batch 256)
prior=(--steps 5000 --behaviours random_push,expert) # presses are what the model must know, not what to propose
good=(--protocol goal-image --policies mpc --episodes 200)
behaviours=mpc
data="2150 random-push, 150 expert, 400 pressing episodes of sim/push_cube.py, randomised colours, light, friction"
. scripts/train.sh
