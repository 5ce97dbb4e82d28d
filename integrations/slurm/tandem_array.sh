#!/usr/bin/env bash
#SBATCH --job-name=tandem
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#
# One shard of a campaign per task of an array; README.md says how to submit it.
#
#   sbatch --array=1-8 tandem_array.sh eval --routes FILE --driver NAME --out DIR
#
# TANDEM            the program [tandem]
# TANDEM_RESTARTS   how often a task may put itself back into the queue [50]
set -uo pipefail

fail() { printf 'tandem_array: %s\n' "$*" >&2; exit 2; }

[ "${1:-}" = eval ] || fail "say what to run, e.g. tandem_array.sh eval --routes FILE --driver autopilot --out DIR"
for name in SLURM_ARRAY_TASK_ID SLURM_ARRAY_TASK_MIN SLURM_ARRAY_TASK_MAX SLURM_ARRAY_TASK_COUNT; do
  [[ "${!name:-}" =~ ^[0-9]+$ ]] || fail "$name is not set: submit with sbatch --array=1-N"
done
first=$SLURM_ARRAY_TASK_MIN count=$SLURM_ARRAY_TASK_COUNT
# Shards of an array with gaps would not be told from those of a smaller one.
[ $((SLURM_ARRAY_TASK_MAX - first + 1)) -eq "$count" ] ||
  fail "the array has gaps: submit --array=$first-N without a step, finished drives are not driven again"
shard=$((SLURM_ARRAY_TASK_ID - first + 1))/$count

pid='' stopped_by=''
stop() {
  stopped_by=limit
  [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null || true
}
# When Slurm ends a job it signals every process of it, and a second signal makes tandem end at once:
# pass on one that only the script was given.
stop_later() {
  stopped_by=slurm
  (sleep 2; [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null) &
}
# USR1 comes before the time limit; TERM when the job is canceled or preempted, and then Slurm
# decides whether it comes back.
trap stop USR1
trap stop_later TERM INT

# Slurm runs a task at most once at a time, so whoever holds a claim of this shard is an earlier run
# of this task, and dead if it was on another node.
"${TANDEM:-tandem}" "$@" --shard "$shard" --take-over &
pid=$!
[ -z "$stopped_by" ] || kill -TERM "$pid"

# A signal ends `wait` before tandem has ended; once tandem was waited for, it is unknown (127).
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
    fail "task $task was restarted ${SLURM_RESTART_COUNT} times and is not done: give it more time, or set TANDEM_RESTARTS"
  fi
  echo "tandem_array: shard $shard goes on after the time limit, in the queue again as $task"
  scontrol requeue "$task" || fail "cannot requeue $task: submit the same array again, finished drives are kept"
fi
exit "$code"
