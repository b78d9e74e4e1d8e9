#!/usr/bin/env bash
# Trains with several processes: one per GPU, or, without GPUs, on the CPU over gloo.
#
#   tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
#
# On several machines run it on each, with NNODES, NODE_RANK (0, 1, …), MASTER_ADDR (the
# first machine) and PORT set. PYTHON chooses the interpreter.
#
# SIGTERM, SIGINT and SIGUSR1 end the run with a checkpoint, and this script with 143,
# 130 and 0, or 1 after a SIGUSR1 if it could not be written; --resume goes on. A second
# Ctrl-C does not wait for it. MAX_RESTARTS=3 lets a run go on by itself after a process
# has died, up to three times.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
TOOLS=$(cd "$(dirname "$0")" && pwd)

# Processes on one machine share its cores instead of each taking all of them.
THREADS=$(($(nproc) / GPUS))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((THREADS > 0 ? THREADS : 1))}
export MKL_NUM_THREADS=${MKL_NUM_THREADS:-$OMP_NUM_THREADS}
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"

# Here the processes say that they have saved, which the launcher does not pass on.
MIM_PLUGINS_STATE=$(mktemp)
export MIM_PLUGINS_STATE
trap 'rm -f "$MIM_PLUGINS_STATE"' EXIT
# How long they may write a large checkpoint; older torch kills them after 30 s.
export PET_SHUTDOWN_TIMEOUT=${PET_SHUTDOWN_TIMEOUT:-600}

# The launcher knows SIGTERM, which it passes on to the processes.
CHILD='' CODE='' SIGNALLED='' SINCE=0
stop() {
    if [ "$1" = 130 ] && [ -n "$CODE" ] && [ "$SECONDS" -gt $((SINCE + 1)) ]; then
        # A second Ctrl-C: they end at once.
        # shellcheck disable=SC2046
        kill -KILL $(cat "/proc/$CHILD/task/$CHILD/children") 2>/dev/null || true
    fi
    CODE=${CODE:-$1} SIGNALLED=1 SINCE=$SECONDS
    kill -TERM "$CHILD" 2>/dev/null || true
}
trap 'stop 143' TERM
trap 'stop 130' INT
trap 'stop 0' USR1

ADDRESS=${MASTER_ADDR:-127.0.0.1}
MEET=(
    --node_rank="${NODE_RANK:-0}"
    --master_addr="$ADDRESS"
    --master_port="${PORT:-29500}"
)
if [ "${MAX_RESTARTS:-0}" -gt 0 ]; then
    # Otherwise processes that are started anew look for each other where those before
    # them were, and wait: newer torch has one store for all attempts.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    HOST=$([ "${NODE_RANK:-0}" = 0 ] && echo 1 || echo 0)
    MEET=(
        --rdzv_backend=c10d
        --rdzv_endpoint="$ADDRESS:${PORT:-29500}"
        --rdzv_conf="is_host=$HOST"
    )
    [ "$HOST" = 0 ] || MEET+=(--local_addr="$ADDRESS")
fi

"${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    "${MEET[@]}" \
    --nproc_per_node="$GPUS" \
    --max_restarts="${MAX_RESTARTS:-0}" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}" &
CHILD=$!
# A signal ends the waiting, and is followed by more of it.
while SIGNALLED='' RESULT=0; do
    wait "$CHILD" || RESULT=$?
    [ -n "$SIGNALLED" ] || break
done
if [ "$CODE" = 0 ] && [ "$RESULT" != 0 ] && grep -q training "$MIM_PLUGINS_STATE"; then
    exit 1
fi
exit "${CODE:-$RESULT}"
