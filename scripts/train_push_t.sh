#!/usr/bin/env bash
# Re-creates models/zoo/push_t: twenty minutes on a GPU beside eight cores, some six hours on two idle cores. Every step
# resumes or is skipped when its result is there. Usage: scripts/train_push_t.sh [WORK_FOLDER] [SEED]
#
# Twice: a model of recorded behaviours, and with the planner that uses it, what that does itself; then its dynamics
# learn on from both. The shipped artifact is of seed 0, but that its planner's episodes were recorded with a prior of
# 6000 steps and one view that did not read the present, and that its dynamics learned on from 60 of the 160 first shards
# beside them.
set -euo pipefail
cd "$(dirname "$0")/.."

task=push_t
work=${1:-build/$task}
seed=${2:-0}
pilot=.venv/bin/worldpilot
zoo=models/zoo/$task
data="3000 random-push, 600 gentle, 200 expert, 200 noisy-expert episodes of sim/push_t.py, randomised colours, light, \
friction; 300 of its planner's on the whole task with goals drawn"
export_as() { "$pilot" export $task --prior "$work/prior" --data "$data" --command "scripts/train_$task.sh" "$@"; }

[ -d "$work/data" ] || "$pilot" collect $task --out "$work/data" --seed 0 \
  --random-push 3000 --gentle 600 --expert 200 --noisy-expert 200
"$pilot" train world-model --data "$work/data" --out "$work/world_model" --seed "$seed" \
  --steps 8000 --dynamics-steps 24000 --dynamics-batch 512 --views 3 --evaluate-every 4000
"$pilot" train action-prior --data "$work/data" --behaviours expert,noisy_expert,random_push \
  --world-model "$work/world_model" --out "$work/prior" --seed "$seed" --steps 8000 --views 3

# What the planner does itself, its mistakes included.
[ -d "$work/first" ] || export_as --world-model "$work/world_model" --out "$work/first"
if [ ! -d "$work/both" ]; then
  cp -r "$work/data" "$work/both.new"
  "$pilot" evaluate $task --artifact "$work/first" --policies mpc --replan 5 --shrink --episodes 300 --seed 20000 \
    --record "$work/both.new"
  mv "$work/both.new" "$work/both"
fi
"$pilot" train world-model --data "$work/both" --start "$work/world_model" --out "$work/learned_on" --seed "$seed" \
  --dynamics-steps 5000 --dynamics-batch 256 --learning-rate 3e-4 --views 2

export_as --world-model "$work/learned_on" --out "$zoo"
[ -d "$work/calibration" ] || "$pilot" evaluate $task --policies mpc,expert --goals novel --replan 5 --shrink \
  --proposals 128 --correction 0.5 --escape-after 2.5 --episodes 100 --seed 9000 --record "$work/calibration"
"$pilot" calibrate monitor --task $task --data "$work/calibration" --behaviours mpc,expert --held-out 1
"$pilot" models verify $task
