"""Tests of the command lines, as a user starts them."""

import importlib.util
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from mim_plugins.engine import InputError
from mim_plugins.models import DeepMIM

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
_base_ = ["{root}/configs/_base_/default_runtime.py"]
data_root = "data/nowhere"
model = dict(
    type="DeepMIM",
    data_preprocessor=dict(
        type="MIMDataPreprocessor", mean=[127.0] * 3, std=[60.0] * 3, bgr_to_rgb=True
    ),
    mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.75),
    backbone=dict(
        type="MIMVisionTransformer",
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
        img_size=16,
        patch_size=4,
        taps=(0,),
    ),
    neck=dict(type="MIMDecoder", embed_dims=16, depth=1, num_heads=2),
    target_generator=dict(type="PixelTarget", norm_pix=True),
    head=dict(type="ReconstructionHead", criterion="L2"),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="EpochSampler", shuffle=True),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="UnlabelledImages",
            data_root=data_root,
            pipeline=[
                dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
                dict(
                    type="TensorRandomResizedCrop",
                    scale=16,
                    crop_ratio_range=(0.2, 1.0),
                ),
                dict(type="DrawFlip", prob=0.5),
                dict(type="PackPretrainInputs"),
            ],
        ),
    ),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=2)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.032, betas=(0.9, 0.95), weight_decay=0.05),
)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=2, end=2, by_epoch=True)]
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(logger=dict(type="LoggerHook", interval=1))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config and eight images, in which the commands run."""
    images = tmp_path / "images" / "nested"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(8):
        picture = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
        cv2.imwrite(str(images / f"{index}.png"), picture)
    (tmp_path / "tiny.py").write_text(CONFIG.format(root=ROOT))
    return tmp_path


def subprocess_run(folder: Path, *command: str, **variables: str) -> tuple[int, str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def tool(name: str) -> ModuleType:
    """Import a command line, which lies outside the package."""
    spec = importlib.util.spec_from_file_location(
        f"tool_{name}", ROOT / f"tools/{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def train(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> Callable[..., str]:
    """Call tools/train.py in this process: ``train(*arguments)`` -> its output."""
    monkeypatch.chdir(folder)
    runs = itertools.count()

    def call(*arguments: str) -> str:
        # Runs that start in the same second would share loggers by their name.
        name = f"experiment_name={folder.name}_{next(runs)}"
        arguments = [*arguments]
        if "--cfg-options" in arguments:
            arguments.append(name)
        else:
            arguments += ["--cfg-options", name]
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        tool("train").main()
        return capfd.readouterr().out

    return call


def logged(work_dir: Path) -> list[dict]:
    """The log lines of all runs in a working directory, in order."""
    files = sorted(work_dir.glob("*/vis_data/scalars.json"))
    return [
        json.loads(line) for file in files for line in file.read_text().splitlines()
    ]


def test_train__then_resume_equals_training_in_one_go(
    folder: Path, train: Callable[..., str]
) -> None:
    images = f"data_root={folder / 'images'}"
    output = train("tiny.py", "--cfg-options", images)
    # Batch 4 of base 64; said in the log.
    assert "learning rate: 0.032 for a batch of 64" in output
    assert "factor 0.0625 = 0.002 for the real batch of 4" in output
    assert "precision: fp32 on cpu" in output
    lines = logged(folder / "work_dirs" / "tiny")
    assert [line["iter"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["lr"] == pytest.approx(0.002)
    assert {"loss", "loss_0", "loss_1", "images_per_s"} <= set(lines[0])

    parts = ["tiny.py", "--work-dir", "parts", "--resume", "--cfg-options", images]
    output = train(*parts, "train_cfg.max_epochs=1")
    assert "no checkpoint in parts, training starts from scratch" in output
    output = train(*parts)
    assert re.search(r"resume: going on from \S*epoch_1.pth", output)
    resumed = logged(folder / "parts")
    assert [line["iter"] for line in resumed] == [1, 2, 3, 4]
    # The log shows means over its window, which the checkpoint carries over.
    for ours, theirs in zip(resumed, lines, strict=True):
        for key in ("lr", "loss", "loss_0", "loss_1"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-6), key


def test_train__a_new_run_leaves_checkpoints_of_another_alone(
    train: Callable[..., str], folder: Path
) -> None:
    images = "data_root=images"
    train("tiny.py", "--cfg-options", images)
    before = (folder / "work_dirs/tiny/epoch_2.pth").read_bytes()
    with pytest.raises(SystemExit, match=r"epoch_2\.pth.*--resume.*--work-dir"):
        train("tiny.py", "--cfg-options", images)
    assert (folder / "work_dirs/tiny/epoch_2.pth").read_bytes() == before
    # A damaged one is repeated from the one before.
    (folder / "work_dirs/tiny/epoch_2.pth").write_bytes(before[:-9])
    output = train("tiny.py", "--resume", "--cfg-options", images)
    assert "resume: epoch_2.pth is skipped:" in output
    assert re.search(r"going on from \S*epoch_1.pth", output)
    whole = torch.load(folder / "work_dirs/tiny/epoch_2.pth", weights_only=False)
    assert whole["meta"]["epoch"] == 2 and whole["meta"]["config_name"] == "tiny"


def test_train__keeps_the_batch_of_the_recipe(
    folder: Path, train: Callable[..., str]
) -> None:
    options = ["--cfg-options", f"data_root={folder / 'images'}"]
    options += ["auto_scale_lr.base_batch_size=8", "train_dataloader.batch_size=2"]
    output = train("tiny.py", *options)
    assert "2 per GPU × 1 × 4 accumulated = 8, as the recipe" in output
    assert "x factor 1 = 0.032 for the real batch of 8" in output
    work_dir = folder / "work_dirs" / "tiny"
    # One step an epoch: its rate is that of the epoch, in the first half of a cosine.
    rates = [line["lr"] for line in logged(work_dir)]
    assert rates == pytest.approx([0.032] * 4 + [0.016] * 4)
    assert "accumulative_counts=4" in (work_dir / "tiny.py").read_text()

    output = train("tiny.py", "--no-accumulate", "--work-dir", "plain", *options)
    assert "accumulated = 8" not in output and "factor 0.25 = 0.008" in output
    options[-1] = "train_dataloader.batch_size=3"
    output = train("tiny.py", "--work-dir", "odd", *options)
    assert "factor 0.375 = 0.012 for the real batch of 3" in output


def test_train__data_of_less_than_a_batch_scale_the_learning_rate(
    folder: Path, train: Callable[..., str]
) -> None:
    output = train("tiny.py", "--cfg-options", f"data_root={folder / 'images'}")
    assert "not accumulated, since the images of an epoch are fewer than" in output
    assert "accumulative_counts=1" in (folder / "work_dirs/tiny/tiny.py").read_text()


def test_train__schedule_follows_the_length_of_the_run(
    folder: Path, train: Callable[..., str]
) -> None:
    warm_up = dict(type="LinearLR", start_factor=1e-3, begin=0, end=1, by_epoch=True)
    cosine = dict(type="CosineAnnealingLR", begin=1, by_epoch=True)
    schedulers = [dict(s, convert_to_iter_based=True) for s in (warm_up, cosine)]
    with (folder / "tiny.py").open("a") as file:
        file.write(f"param_scheduler = {schedulers}\n")
    options = ["--cfg-options", f"data_root={folder / 'images'}"]
    output = train("tiny.py", *options, "train_cfg.max_epochs=5")
    assert (
        "schedule: 5 epochs; LinearLR from epoch 0 to 1; "
        "CosineAnnealingLR from epoch 1 to 5"
    ) in output
    # Two iterations an epoch.
    lrs = [line["lr"] for line in logged(folder / "work_dirs" / "tiny")]
    cosines = [0.002 * 0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert lrs[2:] == pytest.approx(cosines)


def test_train__prints_the_config_and_trains_nothing(
    folder: Path, train: Callable[..., str]
) -> None:
    option = "train_cfg.max_epochs=9"
    output = train("tiny.py", "--print-config", "--cfg-options", option)
    assert "# train_cfg.max_epochs = 9  <- --cfg-options (before: 2)" in output
    assert not (folder / "work_dirs").exists()


@pytest.mark.parametrize("flags", [[], ["--no-auto-scale-lr"]])
def test_train__refuses_to_resume_with_another_batch(
    folder: Path, train: Callable[..., str], flags: list[str]
) -> None:
    options = [*flags, "--cfg-options", f"data_root={folder / 'images'}"]
    train("tiny.py", *options, "train_cfg.max_epochs=1")
    with pytest.raises(SystemExit) as exit_:
        train("tiny.py", "--resume", *options, "train_dataloader.batch_size=2")
    line = exit_.value.code
    assert line.startswith("error: --resume: ") and "\n" not in line
    assert "global batch of 4 (4 per" in line and "this run has 2 (2 per" in line
    # Nothing was trained, and the same batch still goes on.
    train("tiny.py", "--resume", *options)
    assert [x["iter"] for x in logged(folder / "work_dirs" / "tiny")] == [1, 2, 3, 4]


def test_train__a_finished_run_is_extended_with_its_schedule(
    folder: Path, train: Callable[..., str]
) -> None:
    with (folder / "tiny.py").open("a") as file:
        file.write("param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True)]")
    options = ["--cfg-options", f"data_root={folder / 'images'}"]
    train("tiny.py", *options)
    output = train("tiny.py", "--resume", *options, "train_cfg.max_epochs=4")
    assert "train_cfg.max_epochs 2 → 4" in output
    assert "resume: epoch 2 of 4 is done; AdamW, learning rate 0.001 now" in output
    rates = [line["lr"] for line in logged(folder / "work_dirs" / "tiny")][4:]
    expected = [0.001 * (1 + math.cos(math.pi * epoch / 4)) for epoch in (2, 3)]
    assert rates == pytest.approx([x for x in expected for _ in range(2)])

    options.append("optim_wrapper.optimizer.type=Adam")
    with pytest.raises(SystemExit, match="error: --resume: .* AdamW, .* says Adam,"):
        train("tiny.py", "--resume", *options, "train_cfg.max_epochs=6")


def test_train__stops_when_the_loss_is_no_number(
    folder: Path, train: Callable[..., str]
) -> None:
    options = [f"data_root={folder / 'images'}", "optim_wrapper.optimizer.lr=1e12"]
    options += ["train_cfg.max_epochs=20"]
    with pytest.raises(SystemExit) as exit_:
        train("tiny.py", "--no-auto-scale-lr", "--cfg-options", *options)
    line = exit_.value.code
    assert re.match(
        r"error: training stopped after 3 skipped step\(s\) in a row, at iteration \d+ "
        r"\(epoch \d+\): ",
        line,
    )
    assert re.search(r"(loss_\d|the gradient norm) is (nan|inf)", line)
    assert "lower optim_wrapper.optimizer.lr" in line
    assert len(set(re.findall(r"/nested/\d.png", line))) == 4 and "\n" not in line
    for path in (folder / "work_dirs" / "tiny").glob("*.pth"):
        assert all(
            value.isfinite().all()
            for value in torch.load(path, weights_only=False)["state_dict"].values()
        )


def test_train__refuses_to_resume_from_weights_that_are_no_numbers(
    folder: Path, train: Callable[..., str]
) -> None:
    options = ["--cfg-options", f"data_root={folder / 'images'}"]
    train("tiny.py", *options, "train_cfg.max_epochs=1")
    path = folder / "work_dirs" / "tiny" / "epoch_1.pth"
    saved = torch.load(path, weights_only=False)
    saved["state_dict"]["backbone.cls_token"].fill_(torch.nan)
    torch.save(saved, path)
    for how in (["--resume"], ["--resume", str(path)]):
        with pytest.raises(SystemExit, match="epoch_1.pth: 1 of its .* NaN"):
            train("tiny.py", *how, *options)


def test_train__amp_works_on_the_cpu(folder: Path, train: Callable[..., str]) -> None:
    options = [f"data_root={folder / 'images'}", "train_cfg.max_epochs=1"]
    output = train("tiny.py", "--amp", "--no-auto-scale-lr", "--cfg-options", *options)
    assert "precision: bf16 on cpu" in output
    assert logged(folder / "work_dirs" / "tiny")[0]["lr"] == pytest.approx(0.032)


@pytest.mark.parametrize(
    "options, message",
    [
        (["tinny.py"], "config file tinny.py does not exist. Did you mean tiny.py?"),
        (["tiny.py"], "data/nowhere"),
        (["tiny.py", "--resume", "gone.pth"], "checkpoint gone.pth does not exist"),
        (["tiny.py", "--precision", "fp16"], "fp16 needs a GPU"),
        (["tiny.py", "--launcher", "pytorch"], "WORLD_SIZE is not set"),
        (
            ["tiny.py", "--cfg-options", "model.mask_sampler.mask_ration=0.6"],
            "RandomPatchMask has no key 'mask_ration' (model.mask_sampler)",
        ),
        (["tiny.py", "--cfg-options", "model.mask_sampler.mask_ratio=1.5"], "1.5"),
        (["tiny.py", "--cfg-options", "model.type=Deepmim"], "Did you mean 'DeepMIM'?"),
        (
            ["tiny.py", "--cfg-options", "model.backbone.img_size=18"],
            "18",
        ),
        (
            ["tiny.py", "--cfg-options", "train_pipeline.1.scale=32"],
            "train_dataloader.dataset.dataset.pipeline.1.scale",
        ),
        (
            ["tiny.py", "--print-config", "--cfg-options", "max_epochs=32"],
            "Write instead: train_cfg.max_epochs",
        ),
    ],
)
def test_train__a_mistake_is_one_line(
    train: Callable[..., str], options: list[str], message: str
) -> None:
    if options[1:] and options[1] == "--precision" and torch.cuda.is_available():
        pytest.skip("fp16 is no mistake where there is a GPU")
    with pytest.raises(SystemExit) as exit_:
        train(*options)
    # A message as the code is printed to stderr, and the exit status is 1.
    line = exit_.value.code
    assert isinstance(line, str) and line.startswith("error: ") and "\n" not in line
    assert message in line


def test_train__images_of_another_size_than_the_encoders_are_refused(
    folder: Path, train: Callable[..., str]
) -> None:
    images = f"data_root={folder / 'images'}"
    with pytest.raises(SystemExit, match="16x16 pixels.*made for 32x32"):
        train("tiny.py", "--cfg-options", images, "model.backbone.img_size=32")


def test_train__debug_shows_where(train: Callable[..., str]) -> None:
    with pytest.raises(InputError) as error:
        train("tiny.py", "--resume", "gone.pth", "--debug")
    assert isinstance(error.value.__cause__, FileNotFoundError)


def test_train__a_mistake_is_an_exit_status_without_traceback(folder: Path) -> None:
    status, output = subprocess_run(
        folder, sys.executable, str(ROOT / "tools/train.py"), "tinny.py"
    )
    assert status == 1 and "error: The config file tinny.py" in output
    assert "Traceback" not in output


def test_train__an_accident_in_training_keeps_its_traceback(
    folder: Path, train: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = DeepMIM.loss
    steps = itertools.count()

    def fail_later(self, *args, **kwargs):
        if next(steps) == 2:
            raise ValueError("an accident")
        return losses(self, *args, **kwargs)

    monkeypatch.setattr(DeepMIM, "loss", fail_later)
    with pytest.raises(ValueError, match="an accident") as error:
        train("tiny.py", "--cfg-options", f"data_root={folder / 'images'}")
    assert not isinstance(error.value, InputError)


def test_test__refuses_a_pre_training_config(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "some.pth").touch()
    monkeypatch.setattr(sys, "argv", ["test.py", "tiny.py", "some.pth"])
    with pytest.raises(SystemExit, match="describes no test"):
        tool("test").main()


@pytest.mark.slow
def test_dist_train__runs_two_processes_without_a_gpu(folder: Path) -> None:
    status, output = subprocess_run(
        folder,
        str(ROOT / "tools/dist_train.sh"),
        "tiny.py",
        "2",
        "--cfg-options",
        f"data_root={folder / 'images'}",
        "train_dataloader.batch_size=2",
        "train_cfg.max_epochs=1",
        CUDA_VISIBLE_DEVICES="",
        PORT="29617",
    )
    assert status == 0, output[-3000:]
    assert "(2 per process x 2 processes x 1 accumulated)" in output
    # Two processes share eight images: two steps of four each.
    assert len(logged(folder / "work_dirs" / "tiny")) == 2


@pytest.mark.slow
def test_mim_train__runs_our_configs_with_mmpretrain_own_script(folder: Path) -> None:
    pytest.importorskip("mim", reason="openmim or onedl-mim is not installed")
    config = (folder / "tiny.py").read_text()
    # mmpretrain's script keeps workers alive, which needs at least one.
    config = config.replace("num_workers=0", "num_workers=1")
    config = config.replace("data/nowhere", str(folder / "images"))
    # Without an end and a T_max, as in our configs.
    config = config.replace("T_max=2, end=2, ", "")
    (folder / "tiny.py").write_text(config)
    mim = (sys.executable, "-c", "from mim.cli import cli; cli()")
    status, output = subprocess_run(
        folder, *mim, "train", "mmpretrain", "tiny.py", "--gpus", "0"
    )
    assert status == 0, output[-3000:]
    assert (folder / "work_dirs" / "tiny" / "epoch_2.pth").is_file()
