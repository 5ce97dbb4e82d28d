#!/usr/bin/env bash
#SBATCH --job-name=tandem
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#
# Runs one shard of a campaign per array task; README.md describes how to submit it.
#
#   sbatch --array=1-8 tandem_array.sh eval --routes FILE --driver NAME --out DIR
#
# TANDEM            path of the program [tandem]
# TANDEM_RESTARTS   maximum number of times a task requeues itself [50]
set -uo pipefail

fail() { printf 'tandem_array: %s\n' "$*" >&2; exit 2; }

[ "${1:-}" = eval ] || fail "usage: tandem_array.sh eval --routes FILE --driver NAME --out DIR"
for name in SLURM_ARRAY_TASK_ID SLURM_ARRAY_TASK_MIN SLURM_ARRAY_TASK_MAX SLURM_ARRAY_TASK_COUNT; do
  [[ "${!name:-}" =~ ^[0-9]+$ ]] || fail "$name is not set: submit with sbatch --array=1-N"
done
first=$SLURM_ARRAY_TASK_MIN count=$SLURM_ARRAY_TASK_COUNT
# Shards of an array with gaps cannot be distinguished from those of a smaller array.
[ $((SLURM_ARRAY_TASK_MAX - first + 1)) -eq "$count" ] ||
  fail "the array has gaps: submit --array=$first-N without a step; finished drives are kept"
shard=$((SLURM_ARRAY_TASK_ID - first + 1))/$count

pid='' stopped_by=''
stop() {
  stopped_by=limit
  [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null || true
}
# When Slurm ends a job it signals all processes of the job, and a second signal ends tandem at
# once. A signal that only the script received is forwarded after a delay.
stop_later() {
  stopped_by=slurm
  (sleep 2; [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null) &
}
# USR1 precedes the time limit. TERM means that the job is canceled or preempted; Slurm then decides
# whether to requeue it.
trap stop USR1
trap stop_later TERM INT

# Slurm runs a task at most once at a time: a claim on this shard belongs to an earlier run of this
# task, which is dead if it ran on another node.
"${TANDEM:-tandem}" "$@" --shard "$shard" --take-over &
pid=$!
[ -z "$stopped_by" ] || kill -TERM "$pid"

# A signal interrupts `wait` before tandem has ended. After tandem was reaped, its pid is unknown
# (127).
code=2
while :; do
  wait "$pid"
  ended=$?
  [ "$ended" -ne 127 ] || break
  code=$ended
  [ "$ended" -gt 128 ] || break
done

if [ "$stopped_by" = limit ] && [ "$code" -eq 1 ]; then
  task=${SLURM_ARRAY_JOB_ID:?}_$SLURM_ARRAY_TASK_ID
  if [ "${SLURM_RESTART_COUNT:-0}" -ge "${TANDEM_RESTARTS:-50}" ]; then
    fail "task $task was restarted ${SLURM_RESTART_COUNT} times and is not done: increase its time limit, or set TANDEM_RESTARTS"
  fi
  echo "tandem_array: shard $shard continues after the time limit, requeued as $task"
  scontrol requeue "$task" || fail "cannot requeue $task: submit the same array again; finished drives are kept"
fi
exit "$code"
