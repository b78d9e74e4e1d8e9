#!/usr/bin/env bash
# Creates or completes a virtual environment for this repository.
#
#   tools/install.sh [demo|dev|test]
#
#   demo  pre-training and classification; mmcv without compiled operators (default)
#   dev   demo, and what `make lint` and `make type` run
#   test  dev, mmdet and mmseg, `mim`, and mmcv with compiled operators
#
# Environment:
#   STACK   onedl (maintained packages, default) or openmmlab (classic packages)
#   VENV    where to install: .venv, or .venv-openmmlab for STACK=openmmlab
#   TORCH   release of torch: 2.13.0, or 2.1.2 for STACK=openmmlab
#   PYTHON  interpreter to make the environment with (3.10 or newer); by default the
#           first one on the path the packages have wheels for
#   MAX_JOBS  compiler processes; all cores by default
#
# Running it again does nothing when nothing has changed. Compiled mmcv wheels are kept
# below ${XDG_CACHE_HOME:-~/.cache}/mim_plugins/wheels and used again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PROFILE=${1:-demo}
STACK=${STACK:-onedl}
case $STACK in
    onedl)
        VENV=${VENV:-.venv} TORCH=${TORCH:-2.13.0} MMCV=onedl-mmcv
        SETUPTOOLS='setuptools<81' MIM='onedl-mim==0.5.1' EXTRAS=onedl
        TEST_EXTRAS=onedl,det,seg,hf,onnx PYTHONS='python3 python3.13 python3.12 python3.11 python3.10'
        NEWEST=13 ;;  # numpy 2.2 has no wheels for newer ones
    openmmlab)
        VENV=${VENV:-.venv-openmmlab} TORCH=${TORCH:-2.1.2} MMCV=mmcv
        SETUPTOOLS='setuptools<70' MIM='openmim==0.3.9' EXTRAS=openmmlab
        TEST_EXTRAS=openmmlab,onnx PYTHONS='python3.11 python3.10 python3'
        NEWEST=11 ;;  # as for torch 2.1
    *) echo "STACK=$STACK: use onedl or openmmlab" >&2; exit 2 ;;
esac
case $PROFILE in
    demo) STAMPS='demo dev test' EXTRAS=$EXTRAS,demo ;;
    dev) STAMPS='dev test' EXTRAS=$EXTRAS,demo,dev ;;
    test) STAMPS='test' EXTRAS=$TEST_EXTRAS,demo,dev ;;
    *) echo "usage: tools/install.sh [demo|dev|test], not '$PROFILE'" >&2; exit 2 ;;
esac
STATE=$VENV/.mim_plugins
LOG=$STATE/install.log

say() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }
die() { printf 'tools/install.sh: %s\n' "$*" >&2; exit 1; }
run() {  # a command; its output is shown only if it fails
    "$@" >>"$LOG" 2>&1 || {
        tail -n 40 "$LOG" >&2
        die "failed: $* (the whole output is in $LOG)"
    }
}

# A profile is complete when its stamp, or that of a larger one, holds this hash. The
# linked folders count: a new one needs a new link in mim_plugins/.mim.
HASH=$({ echo "$STACK $TORCH"; cat setup.py tools/install.sh
    ls -d configs tools model-index.yml 2>/dev/null || true; } | sha256sum | cut -d' ' -f1)
for stamp in $STAMPS; do
    if [ "$(cat "$STATE/$stamp" 2>/dev/null)" = "$HASH" ]; then
        echo "$VENV is ready ($PROFILE, $STACK)"
        exit 0
    fi
done
echo "Installing into $VENV ($PROFILE, $STACK, torch $TORCH)"

# --- the environment -------------------------------------------------------------------
suits() {  # $1: interpreter, $2: newest minor version
    "$1" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $2))" 2>/dev/null
}
if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
    for python in ${PYTHON:-$PYTHONS}; do
        # A version asked for by name may be newer than what was tried.
        if suits "$python" "${PYTHON:+9}$NEWEST"; then FOUND=$python; break; fi
    done
    [ -n "${FOUND:-}" ] || die \
        "no Python 3.10 to 3.$NEWEST among: ${PYTHON:-$PYTHONS}. Install one, or name it with PYTHON=..."
    "$FOUND" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$FOUND has no venv module (on Debian and Ubuntu: apt install python3-venv)"
    say "making the environment with $("$FOUND" --version)"
    "$FOUND" -m venv "$VENV" || die "cannot make $VENV; if it is there, remove it and try again"
fi
suits "$VENV/bin/python" 999 ||
    die "$VENV holds $("$VENV/bin/python" --version), and 3.10 is needed; remove it or set VENV=..."
mkdir -p "$STATE"
: >"$LOG"
VENV=$(cd "$VENV" && pwd) STATE=$VENV/.mim_plugins LOG=$STATE/install.log
PY=$VENV/bin/python
# Bytecode is made by the first import of what is used, instead of for all of torch now.
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_COMPILE=1
pip_install() { run "$PY" -m pip install "$@"; }

# torch comes first and alone: a resolver that sees the rest may choose another release.
say "torch $TORCH"
pip_install "torch==$TORCH" "$SETUPTOOLS" wheel
INSTALLED_TORCH=$("$PY" -c 'from importlib.metadata import version; print(version("torch"))')
# The build, such as 2.1.2+cu121, which the metadata may leave out; without importing torch.
BUILT_FOR=$("$PY" -c 'import runpy, sysconfig
print(runpy.run_path(sysconfig.get_paths()["platlib"] + "/torch/version.py")["__version__"])')
# torchvision 0.(x + 15).y belongs to torch 2.x.y.
IFS=. read -r _ minor patch <<<"${INSTALLED_TORCH%%[+a-z]*}"
TORCHVISION=0.$((minor + 15)).$patch
printf '%s\n' "torch==$INSTALLED_TORCH" "torchvision==$TORCHVISION" "$SETUPTOOLS" >"$STATE/constraints.txt"
# Also for the environments pip builds source packages in (newer pip: the second name).
export PIP_CONSTRAINT=$STATE/constraints.txt PIP_BUILD_CONSTRAINT=$STATE/constraints.txt

# --- mmcv ------------------------------------------------------------------------------
# One version exists with and without compiled operators, under one name and number.
# The two are kept in folders of their own, and pip's cache, which cannot tell them
# apart, is left out.
VERSION=$(sed -n "s/.*\"$MMCV==\([^\"]*\)\".*/\1/p" setup.py)
[ -n "$VERSION" ] || die "setup.py names no version of $MMCV"
WHEELS=${XDG_CACHE_HOME:-${HOME:-$PWD}/.cache}/mim_plugins/wheels
TAG=$("$PY" -c 'import platform, sys; print("cp%d%d-%s" % (*sys.version_info[:2], platform.machine()))')
find_wheel() { ls "$1"/*.whl 2>/dev/null | head -n 1; }

PART= BUILD_PID=
trap '[ -z "$BUILD_PID" ] || kill -- "-$BUILD_PID" 2>/dev/null; [ -z "$PART" ] || rm -rf "$PART"' EXIT

build_plain_wheel() {  # $1: folder. In an isolated build torch is absent, and so are operators.
    say "mmcv $VERSION without compiled operators"
    # Older releases of pip build what has no pyproject.toml in the environment itself.
    run "$PY" -m pip wheel --use-pep517 --no-deps --no-cache-dir "$MMCV==$VERSION" -w "$1"
}

build_compiled_wheel() {  # $1: folder
    local jobs=${MAX_JOBS:-$(nproc)}
    "${CXX:-c++}" --version >/dev/null 2>&1 || die \
        "mmcv's operators need a C++ compiler (on Debian and Ubuntu: apt install build-essential)"
    "$PY" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' ||
        die "mmcv's operators need Python.h (on Debian and Ubuntu: apt install python3-dev)"
    say "compiling mmcv $VERSION's operators for torch $BUILT_FOR ($DEVICE, $jobs jobs; minutes, once per machine)"
    pip_install ninja packaging
    local hidden=()
    [ "$DEVICE" = cuda ] || hidden=(CUDA_VISIBLE_DEVICES= FORCE_CUDA=0)
    set -m  # a process group of its own, so that an interruption ends the compilers too
    env "${hidden[@]}" PATH="$VENV/bin:$PATH" MMCV_WITH_OPS=1 MAX_JOBS="$jobs" \
        "$PY" -m pip wheel -v --no-build-isolation --no-deps --no-cache-dir \
        "$MMCV==$VERSION" -w "$1" >>"$LOG" 2>&1 &
    BUILD_PID=$!
    set +m
    local next=$((SECONDS + 60))
    while kill -0 "$BUILD_PID" 2>/dev/null; do
        sleep 1
        if [ $SECONDS -ge $next ]; then
            say "  ... $(grep -o '^ *\[[0-9]*/[0-9]*\]' "$LOG" | tail -n 1 | tr -d ' ') files"
            next=$((SECONDS + 60))
        fi
    done
    wait "$BUILD_PID" || {
        tail -n 40 "$LOG" >&2
        die "mmcv's operators did not compile (the whole output is in $LOG)"
    }
    BUILD_PID=
}

DEVICE=cpu
if [ "$PROFILE" = test ]; then
    # With a GPU but no nvcc only the CPU operators can be built.
    DEVICE=$("$PY" -W ignore -c 'import torch; from torch.utils.cpp_extension import CUDA_HOME as home
print("cuda" if torch.cuda.is_available() and home else "cpu")' 2>>"$LOG") || DEVICE=cpu
    KIND=$MMCV-$VERSION-torch$BUILT_FOR-$TAG-$DEVICE BUILD=build_compiled_wheel
else
    KIND=$MMCV-$VERSION-plain BUILD=build_plain_wheel
fi
INSTALLED=$(cat "$STATE/mmcv" 2>/dev/null || true)
# Compiled operators serve the smaller profiles too, if they were built for this torch.
if [ "$INSTALLED" = "$KIND" ] || { [ "$PROFILE" != test ] &&
    [[ $INSTALLED == "$MMCV-$VERSION-torch$BUILT_FOR-"* ]]; }; then
    MMCV_WHEEL=
else
    MMCV_WHEEL=$(find_wheel "$WHEELS/$KIND" || true)
    if [ -z "$MMCV_WHEEL" ]; then
        mkdir -p "$WHEELS"
        # Built aside and moved, so that an interrupted build leaves nothing behind.
        PART=$(mktemp -d "$WHEELS/part.XXXXXX")
        $BUILD "$PART"
        rm -rf "${WHEELS:?}/$KIND"
        mv "$PART" "$WHEELS/$KIND"
        PART=
        MMCV_WHEEL=$(find_wheel "$WHEELS/$KIND") || die "no wheel of mmcv came out of its build; see $LOG"
    else
        say "mmcv $VERSION from $WHEELS/$KIND"
    fi
    rm -f "$STATE/mmcv"
    pip_install --no-deps --force-reinstall "$MMCV_WHEEL"
    echo "$KIND" >"$STATE/mmcv"
fi

# --- the rest, at the versions setup.py gives ------------------------------------------
say "torchvision $TORCHVISION and mim_plugins[$EXTRAS]"
WANTED=("torchvision==$TORCHVISION" -e ".[$EXTRAS]")
# All in one call: a second one could move what the first chose (numpy, for pandas).
[ "$PROFILE" != test ] || WANTED+=(click colorama model-index pandas requests rich tabulate)
pip_install --no-build-isolation "${WANTED[@]}"
if [ "$PROFILE" = test ]; then
    # Without its dependencies, which are above but for one: the client of a data hub
    # that only `mim download --dataset` needs and that wants half of this downgraded.
    say "$MIM"
    pip_install --no-build-isolation --no-deps "$MIM"
    # openmim looks for the model index next to a distribution's metadata, which pip puts
    # into site-packages: with a copy here, `PYTHONPATH=. mim` finds that of the checkout.
    [ "$STACK" != openmmlab ] || run "$PY" setup.py -q egg_info
fi

say "checking"
[ "$PROFILE" = test ] && CHECK='import torch, mmcv._ext, mmcv.ops' || CHECK='import mmcv, mmpretrain'
run "$PY" -W ignore -c "$CHECK"
echo "$HASH" >"$STATE/$PROFILE"
say "$VENV is ready"
