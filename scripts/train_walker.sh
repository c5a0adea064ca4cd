#!/usr/bin/env bash
# Re-creates models/zoo/walker or models/zoo/hopper; about 20 minutes on one idle core.
# Usage: scripts/train_walker.sh [walker|hopper] [WORK_FOLDER] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."

task=${1:-walker}
work=${2:-build/$task}
seed=${3:-0}
case $task in
  # It is also held and let go, as by its graph: the model knows that, the prior does not propose it.
  walker) behaviours=walk,pace collect=(--walk 600 --pace 800 --halting 200) horizon=8 asked=held_forward ;;
  hopper) behaviours=hop,pace collect=(--hop 600 --pace 600) horizon=12 asked=forward ;;  # model steps; a hop takes 9
  *) echo "walker or hopper, got $task" >&2; exit 2 ;;
esac
pilot=.venv/bin/worldpilot
zoo=models/zoo/$task

[ -d "$work/data" ] || "$pilot" collect "$task" --out "$work/data" --seed 0 "${collect[@]}"
"$pilot" train dynamics --kind step --data "$work/data" --out "$work/nets" --seed "$seed" --steps 6000
# Balance asks for exact controls, and they for a prior of few numbers (plans of 8 model steps, not 16) that is sampled in
# many steps: docs/decisions/0008-a-prior-that-balances.md. Its speeds: 0018-a-prior-that-changes-pace.md.
"$pilot" train action-prior --data "$work/data" --world-model "$work/nets" --out "$work/prior" --seed "$seed" \
  --behaviours $behaviours --hidden 384 --horizon $horizon --sampler-steps 8 --steps 8000 --evaluate-every 1000
"$pilot" export "$task" --world-model "$work/nets" --prior "$work/prior" --out "$zoo" \
  --data "${collect[*]//--/} episodes of sim/planar.py" --command "scripts/train_walker.sh $task"
# The monitor is calibrated on the planner that it will watch.
"$pilot" evaluate "$task" --protocol rewards --rewards-file benchmarks/$asked.json --policies mpc --episodes 100 \
  --seed 1000 --record "$work/calibration"
"$pilot" calibrate monitor --task "$task" --data "$work/calibration" --behaviours mpc --held-out 1
"$pilot" models verify "$task"
