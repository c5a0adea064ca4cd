# Sourced by scripts/train_TASK.sh, which says: task, collect, model, prior and good (their options), behaviours (of
# `good`) and data (a line for the manifest). Collects, trains, exports, calibrates; every step resumes or is skipped
# when its result is there. The arguments are theirs: [WORK_FOLDER] [SEED].
work=${1:-build/$task}
seed=${2:-0}
pilot=.venv/bin/worldpilot
zoo=models/zoo/$task

[ -d "$work/data" ] || "$pilot" collect "$task" --out "$work/data" --seed 0 "${collect[@]}"
"$pilot" train world-model --data "$work/data" --out "$work/world_model" --seed "$seed" "${model[@]}"
"$pilot" train action-prior --data "$work/data" --world-model "$work/world_model" --out "$work/prior" --seed "$seed" \
  "${prior[@]}"
"$pilot" export "$task" --world-model "$work/world_model" --prior "$work/prior" --out "$zoo" --data "$data" \
  --command "scripts/train_$task.sh"
[ -d "$work/calibration" ] || "$pilot" evaluate "$task" --seed 0 --record "$work/calibration" "${good[@]}"
"$pilot" calibrate monitor --task "$task" --data "$work/calibration" --behaviours "$behaviours" --held-out 1
"$pilot" models verify "$task"
