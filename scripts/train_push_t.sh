#!/usr/bin/env bash
# Re-creates models/zoo/push_t; about 75 minutes on two idle cores. Usage: scripts/train_push_t.sh [WORK_FOLDER] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."

task=push_t
collect=(--random-push 3000 --expert 200 --noisy-expert 200)
model=(--steps 6000 --dynamics-steps 12000 --dynamics-batch 256 --views 3)
prior=(--steps 6000)
good=(--policies mpc,expert --goals trained --replan 5 --shrink --episodes 50)
behaviours=mpc,expert
data="3000 random-push, 200 expert, 200 noisy-expert episodes of sim/push_t.py, randomised colours, light, friction"
. scripts/train.sh
