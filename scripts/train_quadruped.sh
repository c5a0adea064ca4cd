#!/usr/bin/env bash
# Re-creates models/zoo/quadruped, in about an hour on two idle cores, of which practice takes 22 minutes; then
# docs/results/dynamics_quadruped.json and samplers_quadruped.json, which compare kinds on its first model of a run and a
# jump, in another half. (models/zoo/quadruped_run_jump and the two files as they are were made by this script before the
# robot practised and before it learnt from a mirror: git checkout d06c264.)
# Usage: scripts/train_quadruped.sh [WORK_FOLDER] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."

task=quadruped
work=${1:-build/$task}
seed=${2:-0}
pilot=.venv/bin/worldpilot
zoo=models/zoo/$task

# What it is shown: a run and a jump. A first model of these plans, and the robot practises under it what can be asked of
# it, held back by attitude and disagreement twice as much as its graph now does; from what it did so, beside the run and
# the jump, it is learnt anew: docs/decisions/0020-practice.md.
[ -d "$work/data" ] || "$pilot" collect "$task" --run 600 --jump 600 --out "$work/data" --seed 0
"$pilot" train dynamics --kind step --data "$work/data" --out "$work/first/step" --seed "$seed"
"$pilot" train action-prior --data "$work/data" --world-model "$work/first/step" --out "$work/first/prior" --seed "$seed"
"$pilot" export "$task" --world-model "$work/first/step" --prior "$work/first/prior" --out "$work/first/zoo" \
  --data "600 run and 600 jump episodes of sim/quadruped.py, nothing else" --command "scripts/train_$task.sh"
if [ ! -d "$work/practised" ]; then
  rm -rf "$work/practising" && cp -r "$work/data" "$work/practising"
  "$pilot" practise "$task" --artifact "$work/first/zoo" --out "$work/practising" --episodes 600 --seed 0 \
    --weights '{"hypot": 2, "disagreement": 2}'
  mv "$work/practising" "$work/practised"
fi
"$pilot" train dynamics --kind step --data "$work/practised" --out "$work/step" --seed "$seed"
"$pilot" train action-prior --data "$work/practised" --world-model "$work/step" --out "$work/prior" --seed "$seed" \
  --behaviours run,jump,practice
"$pilot" export "$task" --world-model "$work/step" --prior "$work/prior" --out "$zoo" --command "scripts/train_$task.sh" \
  --data "600 run and 600 jump episodes of sim/quadruped.py, and 600 in which it practised"
# The monitor is calibrated on the planner that it will watch, from the run into rewards as they are swapped in.
"$pilot" evaluate "$task" --protocol rewards --policies mpc --rewards fast,slow,stop,crouch_run,turn_left,turn_right \
  --episodes 22 --seed 1000 --artifact "$zoo" --record "$work/calibration"
"$pilot" calibrate monitor --task "$task" --artifact "$zoo" --data "$work/calibration" --behaviours mpc --held-out 1 \
  --surprise whitened
"$pilot" models verify "$task"

# What the first model's kind is compared with.
"$pilot" train dynamics --kind multi --data "$work/data" --out "$work/first/multi" --seed "$seed" --steps 4000 --batch 128
"$pilot" train dynamics --kind diffusion --data "$work/data" --out "$work/first/diffusion" --seed "$seed" --steps 4000 \
  --batch 128
.venv/bin/python benchmarks/dynamics.py --data "$work/data" --models "$work"/first/{step,multi,diffusion} \
  --prior "$work/first/prior" --json "docs/results/dynamics_$task.json"
"$pilot" train action-prior --data "$work/data" --world-model "$work/first/step" --out "$work/first/prior_noise" \
  --seed "$seed" --sampler ddim
.venv/bin/python benchmarks/samplers.py --data "$work/data" --dynamics "$work/first/step" \
  --priors "$work"/first/{prior,prior_noise} --json "docs/results/samplers_$task.json"
