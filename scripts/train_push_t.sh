#!/usr/bin/env bash
# Re-creates models/zoo/push_t: collect, train, export, calibrate. About 75 minutes on two idle cores; every step
# resumes or is skipped when its result is there. Usage: scripts/train_push_t.sh [WORK_FOLDER] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-build/push_t}
seed=${2:-0}
pilot=.venv/bin/worldpilot
zoo=models/zoo/push_t

collect=(collect push_t --out "$work/data" --random-push 3000 --expert 200 --noisy-expert 200 --seed 0)
model=(train world-model --data "$work/data" --out "$work/world_model" --steps 6000 --dynamics-steps 6000
  --dynamics-batch 256 --seed "$seed")
prior=(train action-prior --data "$work/data" --world-model "$work/world_model" --out "$work/prior" --steps 6000
  --seed "$seed")
good=(evaluate push_t --policies mpc,expert --goals trained --replan 5 --shrink --episodes 50 --seed 0
  --record "$work/calibration")

[ -d "$work/data" ] || "$pilot" "${collect[@]}"
"$pilot" "${model[@]}"
"$pilot" "${prior[@]}"
"$pilot" export push_t --world-model "$work/world_model" --prior "$work/prior" --out "$zoo" \
  --data "3000 random-push, 200 expert, 200 noisy-expert episodes of sim/push_t.py, randomised colours, light, friction" \
  --command "scripts/train_push_t.sh"
[ -d "$work/calibration" ] || "$pilot" "${good[@]}"
"$pilot" calibrate monitor --task push_t --data "$work/calibration" --behaviours mpc,expert --held-out 1
"$pilot" models verify push_t
