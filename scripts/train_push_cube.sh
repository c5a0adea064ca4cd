#!/usr/bin/env bash
# Re-creates models/zoo/push_cube: collect, train, export. About 45 minutes on two idle cores; every step
# resumes or is skipped when its result is there. Usage: scripts/train_push_cube.sh [WORK_FOLDER] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-build/push_cube}
seed=${2:-0}
pilot=.venv/bin/worldpilot
zoo=models/zoo/push_cube

collect=(collect push_cube --out "$work/data" --random-push 700 --expert 100 --seed 0)
model=(train world-model --data "$work/data" --out "$work/world_model" --steps 4000 --dynamics-steps 4000
  --dynamics-batch 256 --seed "$seed")
prior=(train action-prior --data "$work/data" --world-model "$work/world_model" --out "$work/prior" --steps 4000
  --seed "$seed")

[ -d "$work/data" ] || "$pilot" "${collect[@]}"
"$pilot" "${model[@]}"
"$pilot" "${prior[@]}"
"$pilot" export push_cube --world-model "$work/world_model" --prior "$work/prior" --out "$zoo" \
  --data "700 random-push, 100 expert episodes of sim/push_cube.py, randomised colours, light, friction" \
  --command "scripts/train_push_cube.sh"
"$pilot" models verify push_cube
