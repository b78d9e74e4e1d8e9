"""Runs that are killed or stopped by a signal, and go on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from samples import ROOT

CONFIG = """
_base_ = ["{root}/configs/_base_/default_runtime.py"]
model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="VisionTransformer",
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=8),
        img_size=16,
        patch_size=8,
        drop_rate=0.2,
    ),
    head=dict(type="LinearClsHead", num_classes=3, in_channels=16),
    data_preprocessor=dict(num_classes=3, mean=[127.0] * 3, std=[60.0] * 3),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="EpochSampler", shuffle=True),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="CustomDataset",
            data_root="images",
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="TensorRandomResizedCrop", scale=16),
                dict(type="RandomFlip", prob=0.5),
                dict(type="PackInputs"),
            ],
        ),
    ),
)
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(by_epoch=True, max_epochs=3)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-2))
param_scheduler = [
    dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True)
]
custom_hooks = [dict(type="StepEMAHook")]
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(by_epoch=False, interval=1, max_keep_ckpts=3),
)
"""


def write_inputs(folder: Path) -> None:
    """A config, and 17 images in three classes."""
    rng = np.random.default_rng(0)
    for index in range(17):
        path = folder / "images" / f"class_{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (20, 24, 3), dtype=np.uint8))
    (folder / "tiny.py").write_text(CONFIG.format(root=ROOT))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_inputs(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The folder of a run that nobody kills, by its number of processes."""

    @cache
    def run(processes: int) -> Path:
        folder = tmp_path_factory.mktemp(f"whole_{processes}")
        write_inputs(folder)
        finish(folder, processes, "--work-dir", "run")
        return folder / "run"

    return run


@pytest.fixture(autouse=True)
def started() -> Iterator[None]:
    """Leaves no process behind, whatever fails."""
    yield
    for process in _started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    _started.clear()


_started: list[subprocess.Popen] = []


def start(
    folder: Path,
    processes: int,
    *arguments: str,
    prefix: tuple[str, ...] = (),
    **variables: str,
) -> subprocess.Popen:
    tools = ROOT / "tools"
    arguments = ("--verbose", *arguments)  # the moments to kill at are log lines
    command = [sys.executable, str(tools / "train.py"), "tiny.py", *arguments]
    if processes > 1 or prefix:
        script = str(tools / "dist_train.sh")
        command = ["bash", script, "tiny.py", str(processes), *arguments]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PORT": str(30000 + os.getpid() % 20000),
        "PYTHON": sys.executable,
        "PYTHONPATH": f"{ROOT}:{folder}",
        **variables,
    }
    process = subprocess.Popen(
        [*prefix, *command],
        cwd=folder,
        env=environment,
        stdout=(folder / "output.txt").open("a"),
        stderr=subprocess.STDOUT,
        # A group of its own, which is killed together.
        start_new_session=True,
    )
    _started.append(process)
    return process


def finish(folder: Path, processes: int, *arguments: str) -> None:
    assert start(folder, processes, *arguments).wait(timeout=120) == 0, (
        folder / "output.txt"
    ).read_text()


def wait_until(folder: Path, ready: Callable[[], Any]) -> None:
    limit = time.monotonic() + 90
    while not ready():
        assert time.monotonic() < limit, (folder / "output.txt").read_text()
        time.sleep(0.01)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_run__goes_on_and_ends_with_the_same_weights(
    folder: Path, whole: Callable[[int], Path], processes: int
) -> None:
    process = start(folder, processes, "--work-dir", "killed")
    wait_until(folder, (folder / "killed" / "iter_5.pth").exists)
    # torchrun starts them in sessions of their own.
    sessions = [process.pid, *(ranks(process.pid) if processes > 1 else [])]
    for session in sessions:
        os.killpg(session, signal.SIGKILL)
    process.wait()
    wait_until(folder, lambda: not any(living(session) for session in sessions))
    finish(folder, processes, "--work-dir", "killed", "--resume")
    # 17 images are two batches of 8: 8 iterations of 2 images, or 4 of 4.
    last = "iter_24.pth" if processes == 1 else "iter_12.pth"
    same_weights(whole(processes) / last, folder / "killed" / last)


def same_weights(one: Path, other: Path) -> None:
    """Compares an uninterrupted run with a killed one."""
    whole, killed = (torch.load(path, weights_only=False) for path in (one, other))
    assert whole["meta"]["iter"] == killed["meta"]["iter"]
    for part in ("state_dict", "ema_state_dict"):
        for key, value in whole[part].items():
            assert torch.equal(killed[part][key], value), key


def test_killed_process__is_restarted_by_torchrun_with_the_same_weights(
    folder: Path, whole: Callable[[int], Path]
) -> None:
    process = start(folder, 2, "--work-dir", "killed", MAX_RESTARTS="1")
    wait_until(folder, (folder / "killed" / "iter_5.pth").exists)
    os.kill(ranks(process.pid)[-1], signal.SIGKILL)
    output = folder / "output.txt"
    assert process.wait(timeout=120) == 0, output.read_text()
    assert "resume: going on from" in output.read_text()
    same_weights(whole(2) / "iter_12.pth", folder / "killed" / "iter_12.pth")


def ranks(launched: int) -> list[int]:
    """Training processes that torchrun, started by a script, has started."""
    (launcher,) = children(launched)
    return children(launcher)


def children(process: int) -> list[int]:
    """Those that were started by the main thread of a process."""
    return [
        *map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
    ]


def living(group: int) -> list[str]:
    """Processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == group and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


LONG = ("--cfg-options", "train_cfg.max_epochs=2000", "default_hooks.checkpoint=None")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 0)],
    ids=["term", "int", "usr1"],
)
def test_signal__writes_a_checkpoint_and_leaves_no_worker(
    folder: Path, number: int, code: int
) -> None:
    output = folder / "output.txt"
    process = start(folder, 1, "--work-dir", "run", *LONG)
    wait_until(folder, lambda: "[2][1/" in output.read_text())
    # As a terminal or a scheduler does, which signal the loading workers, too.
    os.killpg(process.pid, number)
    assert process.wait(timeout=60) == code, output.read_text()
    assert not living(process.pid)
    said = output.read_text()
    assert "Traceback" not in said
    (saved,) = (folder / "run").glob("iter_*.pth")
    assert f"{saved.name} is written, and the same command with --resume goes" in said
    assert (folder / "run" / "requeue").exists() == (number == signal.SIGUSR1)
    meta = torch.load(saved, weights_only=False)["meta"]
    assert meta["epoch"] == meta["iter"] // 8 >= 1


def test_signal__before_the_first_step_ends_the_run(folder: Path) -> None:
    output = folder / "output.txt"
    process = start(folder, 1, "--work-dir", "run", *LONG)
    wait_until(folder, lambda: "Hooks will be executed" in output.read_text())
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130, output.read_text()
    assert "SIGINT" in output.read_text() and "Traceback" not in output.read_text()
    assert not living(process.pid)


SLOW = """
import time
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Slow(Hook):
    def before_train_iter(self, *args, **kwargs):
        print("a step of a minute", flush=True)
        time.sleep(60)
"""


VALIDATION = """
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=train_dataloader["dataset"]["dataset"],
)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="Accuracy")
custom_hooks = [dict(type="StepEMAHook"), dict(type="SlowValidation")]
"""
SLOW_VALIDATION = """
import time
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class SlowValidation(Hook):
    def after_val_iter(self, *args, **kwargs):
        print("validating", flush=True)
        time.sleep(0.5)
"""


def test_signal_during_a_validation__saves_the_weights_in_training(
    folder: Path,
) -> None:
    (folder / "slow.py").write_text(SLOW_VALIDATION)
    config = folder / "tiny.py"
    imports = 'custom_imports = dict(imports=["mim_plugins", "slow"])\n'
    config.write_text(imports + config.read_text() + VALIDATION)
    output = folder / "output.txt"
    process = start(folder, 1, "--work-dir", "run")
    wait_until(folder, lambda: "validating" in output.read_text())
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 143, output.read_text()
    assert not living(process.pid) and "Traceback" not in output.read_text()
    stopped, ended = (
        torch.load(folder / "run" / name, weights_only=False)
        for name in ("iter_8.pth", "iter_7.pth")
    )
    assert (stopped["meta"]["epoch"], stopped["meta"]["iter"]) == (1, 8)
    # One step after the other checkpoint, whose averages are almost the same.
    steps = [int(x["ema_state_dict"]["steps"]) for x in (stopped, ended)]
    assert steps == [2, 1]
    for key, value in stopped["state_dict"].items():
        torch.testing.assert_close(value, ended["state_dict"][key], rtol=0, atol=1e-4)


def test_second_interrupt__ends_at_once(folder: Path) -> None:
    (folder / "slow.py").write_text(SLOW)
    config = folder / "tiny.py"
    imports = 'custom_imports = dict(imports=["mim_plugins", "slow"])\n'
    text = config.read_text().replace('type="StepEMAHook"', 'type="Slow"')
    config.write_text(imports + text)
    output = folder / "output.txt"
    process = start(folder, 1, "--work-dir", "run", *LONG)
    wait_until(folder, lambda: "a step of a minute" in output.read_text())
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=5) == 130, output.read_text()
    wait_until(folder, lambda: not living(process.pid))


def test_signal_to_one_of_two__stops_both_at_the_same_iteration(folder: Path) -> None:
    output = folder / "output.txt"
    process = start(folder, 2, "--work-dir", "run", *LONG)
    wait_until(folder, lambda: "[2][1/" in output.read_text())
    # The agent of torchrun is signalled through the script, and passes it on to both.
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 143, output.read_text()
    (saved,) = (folder / "run").glob("iter_*.pth")
    assert not living(process.pid)
    assert f"{saved.name} is written" in output.read_text()


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    """Two "machines" on this one: network namespaces with a cable between them."""
    names = [f"mim{os.getpid()}{end}" for end in "ab"]

    def ip(*arguments: str) -> bool:
        return not subprocess.run(["ip", *arguments], capture_output=True).returncode

    if not shutil.which("ip") or not all(ip("netns", "add", x) for x in names):
        pytest.skip("network namespaces cannot be made here: it takes root and ip")
    try:
        cable = [f"veth{end}" for end in "ab"]
        first, second = names
        made = ip(
            "-n", first, "link", "add", cable[0], "type", "veth",
            "peer", "name", cable[1], "netns", second,
        )  # fmt: skip
        for number, (name, end) in enumerate(zip(names, cable, strict=True), start=1):
            made = made and ip("-n", name, "addr", "add", f"10.77.0.{number}/24",
                               "dev", end)  # fmt: skip
            made = made and all(
                ip("-n", name, "link", "set", link, "up") for link in ("lo", end)
            )
        if not made:
            pytest.skip("there are no virtual network cables here")
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)


def test_two_nodes__train_together_and_stop_together(
    folder: Path, nodes: list[str]
) -> None:
    output = folder / "output.txt"
    started = [
        start(
            folder,
            1,
            "--work-dir",
            "run",
            *LONG,
            prefix=("ip", "netns", "exec", name),
            NNODES="2",
            NODE_RANK=str(number),
            MASTER_ADDR="10.77.0.1",
            GLOO_SOCKET_IFNAME=f"veth{'ab'[number]}",
        )
        for number, name in enumerate(nodes)
    ]
    wait_until(folder, lambda: "[2][1/" in output.read_text())
    # One node alone is signalled.
    os.kill(started[1].pid, signal.SIGTERM)
    assert started[1].wait(timeout=60) == 143, output.read_text()
    started[0].wait(timeout=60)
    (saved,) = (folder / "run").glob("iter_*.pth")
    assert f"{saved.name} is written" in output.read_text()
