#!/usr/bin/env bash
# Trains on a Slurm cluster, one task per GPU.
#
#   GPUS=16 tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]
#
# GPUS (all), GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS as in OpenMMLab's script; PORT
# is where the processes meet.
#
# A run that needs more than a job's time goes on by itself: Slurm's signal USR1 ends it
# with a checkpoint, and the job is queued again, or, outside of sbatch, started again. It
# goes on from the newest checkpoint that it has saved, and before there is one, as it
# was started (--resume FILE):
#   sbatch --requeue --signal=USR1@120 --wrap "tools/slurm_train.sh …"
#   SRUN_ARGS="--time=24:00:00 --signal=USR1@120" tools/slurm_train.sh …
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options]" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
WORK_DIR=$4
shift 4
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}
TOOLS=$(cd "$(dirname "$0")" && pwd)

export MASTER_PORT=${PORT:-29500}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export MKL_NUM_THREADS=${MKL_NUM_THREADS:-$OMP_NUM_THREADS}
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"

# srun passes signals on to the tasks.
REQUEUE='' SIGNALLED=''
pass() { SIGNALLED=1; kill "-$1" "$CHILD" 2>/dev/null || true; }
trap 'pass TERM' TERM
trap 'pass INT' INT
trap 'REQUEUE=1; pass USR1' USR1

# By this name a run knows, in its work dir, what its earlier attempts have saved.
export MIM_PLUGINS_LAUNCH="slurm ${SLURM_JOB_ID:-$HOSTNAME $$ $(date +%s)}"

train() {
    rm -f "$WORK_DIR/requeue"
    # SRUN_ARGS holds several words.
    # shellcheck disable=SC2086
    srun -p "$PARTITION" \
        --job-name="$JOB_NAME" \
        --gres="gpu:$GPUS_PER_NODE" \
        --ntasks="$GPUS" \
        --ntasks-per-node="$GPUS_PER_NODE" \
        --cpus-per-task="$CPUS_PER_TASK" \
        --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} \
        "${PYTHON:-python}" -u "$TOOLS/train.py" "$CONFIG" \
        --work-dir "$WORK_DIR" --launcher slurm "$@" &
    CHILD=$!
    # A signal ends the waiting, and is followed by more of it.
    while SIGNALLED='' RESULT=0; do
        wait "$CHILD" || RESULT=$?
        [ -n "$SIGNALLED" ] || break
    done
}

while true; do
    REQUEUE=''
    train "$@"
    # The tasks say it, too: Slurm may have signalled them alone.
    if [ -e "$WORK_DIR/requeue" ]; then REQUEUE=1; fi
    if [ -z "$REQUEUE" ] || [ "$RESULT" != 0 ]; then exit "$RESULT"; fi
    rm -f "$WORK_DIR/requeue"
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        echo "tools/slurm_train.sh: queuing job $SLURM_JOB_ID again"
        scontrol requeue "$SLURM_JOB_ID"
        exit 0
    fi
done
