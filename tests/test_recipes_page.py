"""The trainings of docs/recipes.md run as they stand there, with a small model."""

import re
import runpy
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from samples import ROOT, TINY_ARCH, clip_state_dict

from mim_plugins.checkpoints import convert_file
from mim_plugins.engine import train

PAGE = (ROOT / "docs/recipes.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*)\n((?:(?!^## ).*\n)+)", PAGE, re.M))
SMALL = {
    "model.neck.embed_dims": 16,
    "model.neck.depth": 1,
    "model.neck.num_heads": 2,
    "train_dataloader.batch_size": 2,
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "train_cfg.max_epochs": 1,
}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the configs, photos, and what the page says to save in it."""
    for folder in ("deepmim", "mae"):
        (tmp_path / "configs" / folder).mkdir(parents=True)
        for path in (ROOT / "configs" / folder).glob("*.py"):
            (tmp_path / "configs" / folder / path.name).symlink_to(path)
    shutil.copytree(ROOT / "configs/_base_", tmp_path / "configs/_base_")
    base = tmp_path / "configs/_base_/models/mim_vitb.py"
    text = base.read_text()
    assert 'arch="base"' in text
    base.write_text(text.replace('"base"', repr(TINY_ARCH)))
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        path = tmp_path / block.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(block)
    draw = np.random.default_rng(0)
    for folder in ("photos", "satellite_images", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(8):
        image = draw.integers(0, 255, (160, 240, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"photos/{index}.png"), image)
        image = draw.integers(0, 4096, (240, 240, 4), dtype=np.uint16)
        cv2.imwrite(str(tmp_path / f"satellite_images/{index}.tif"), image)
        mask = draw.permutation(196).reshape(14, 14) < 100
        np.save(tmp_path / f"masks/{index}.npy", mask)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def commands(section):
    """Of a section, lines of the shell without its line ends."""
    blocks = re.findall(r"```sh\n(.*?)```", SECTIONS[section], re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


def run(command, monkeypatch, **changes):
    """Trains for an epoch of four steps as a command says; returns the runner."""
    while "=" in command[0]:
        name, value = command.pop(0).split("=")
        if name != "PYTHONPATH":
            monkeypatch.setenv(name, value)
    assert command[:2] == ["python", "tools/train.py"]
    tool = runpy.run_path(str(ROOT / "tools/train.py"))
    args = tool["parse_args"](command[2:])
    options = dict(args.cfg_options or {})
    data_root = options["data_root"]
    assert Path(data_root).is_dir()
    work_dir = changes.pop("work_dir", None)
    return train(
        args.config,
        work_dir=work_dir,
        cfg_options={**options, **SMALL, **changes},
        log_to=[name for name in tool["SERVICES"] if getattr(args, name)],
        accumulate_batch=not args.no_accumulate,
    )


def test_every_command__is_run_by_a_test():
    known = set(SECTIONS)
    tested = {
        "TensorBoard, Weights & Biases, MLflow",
        "Images that are not square",
        "Many channels, 16 bits",
        "Block masks",
        "Masks of one's own",
        "A large batch on few GPUs",
        "Compiled models",
        "Going on from released weights",
        "Features of DINOv2 or CLIP as targets",
    }
    assert known == tested


def service(name):
    (command,) = (
        command
        for command in commands("TensorBoard, Weights & Biases, MLflow")
        if f"--{name}" in command and (name != "wandb" or "=" in command[0])
    )
    return command


@pytest.mark.usefixtures("unformatted")
def test_tensorboard(checkout, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(service("tensorboard"), monkeypatch, **{"default_hooks.logger.interval": 1})
    (file,) = Path("work_dirs/mae/vitb_1600e").rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file))
    events.Reload()
    assert "loss" in events.Tags()["scalars"]


@pytest.mark.usefixtures("unformatted")
def test_wandb__without_a_network(checkout, monkeypatch):
    pytest.importorskip("wandb")
    run(service("wandb"), monkeypatch, **{"default_hooks.logger.interval": 1})
    import wandb

    wandb.finish()
    assert list(Path("work_dirs/mae/vitb_1600e").rglob("run-*.wandb"))


@pytest.mark.usefixtures("unformatted")
def test_mlflow__values_and_pictures(checkout, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    # A database is made within 20 seconds.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    run(service("mlflow"), monkeypatch, **{"default_hooks.logger.interval": 1})
    mlflow.end_run()
    client = mlflow.MlflowClient()
    experiment = mlflow.get_experiment_by_name("mim_plugins").experiment_id
    (found,) = client.search_runs([experiment])
    assert found.info.run_name == "mae/vitb_1600e"
    assert found.data.metrics["loss"] > 0
    files = [file.path for file in client.list_artifacts(found.info.run_id)]
    assert any(re.fullmatch(r"reconstruction_\d+\.png", file) for file in files)


@pytest.mark.usefixtures("unformatted")
@pytest.mark.parametrize(
    ("section", "images"),
    [
        ("Images that are not square", (3, 64, 160)),
        ("Many channels, 16 bits", (4, 224, 224)),
    ],
)
def test_images(checkout, monkeypatch, section, images):
    (command,) = commands(section)
    runner = run(command, monkeypatch)
    assert runner.iter == 4
    dataset = runner.train_dataloader.dataset
    item = dataset[0]["inputs"]
    assert tuple(item.shape) == images
    if images[0] == 4:
        assert item.dtype == torch.float32 and item.max() > 2000


@pytest.mark.usefixtures("unformatted")
def test_block_masks(checkout, monkeypatch):
    (command,) = commands("Block masks")
    sampler = run(command, monkeypatch).model.mask_sampler
    assert type(sampler).__name__ == "BlockPatchMask" and sampler.mask_ratio == 0.5


@pytest.mark.usefixtures("unformatted")
def test_given_masks(checkout, monkeypatch):
    (command,) = commands("Masks of one's own")
    runner = run(command, monkeypatch)
    index = int(Path(runner.train_dataloader.dataset.get_data_info(1)["img_path"]).stem)
    item = runner.train_dataloader.dataset[1]["data_samples"]
    assert np.array_equal(item["mask"], np.load(f"masks/{index}.npy"))
    samples = {"mask": torch.as_tensor(item["mask"])[None]}
    drawn = runner.model.draw_mask(torch.zeros(1, 3, 224, 224), samples)
    assert drawn.num_masked == 100


@pytest.mark.usefixtures("unformatted")
def test_accumulation(checkout, monkeypatch):
    rate = Config.fromfile("configs/mae/vitb_1600e.py").optim_wrapper.optimizer.lr
    for number, (command, counts, scale) in enumerate(
        zip(
            commands("A large batch on few GPUs"),
            (2, 1, 4),
            (1.0, 0.5, 2.0),
            strict=True,
        )
    ):
        runner = run(
            command,
            monkeypatch,
            work_dir=f"work_dirs/{number}",
            **{"auto_scale_lr.base_batch_size": 4},
        )
        wrapper = runner.cfg.optim_wrapper
        assert wrapper.get("accumulative_counts", 1) == counts
        assert wrapper.optimizer.lr == pytest.approx(rate * scale)


@pytest.mark.usefixtures("unformatted")
def test_compiled_models(checkout, monkeypatch):
    (command,) = commands("Compiled models")
    assert "compile=True" in command
    # Compiled without a compiler.
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    assert run(command, monkeypatch).iter == 4


@pytest.mark.usefixtures("unformatted")
def test_going_on_from_released_weights(checkout, monkeypatch, caplog):
    (command,) = commands("Going on from released weights")
    options = dict(part.split("=", 1) for part in command if "=" in part)
    model = Config.fromfile("configs/mae/vitb_1600e.py").model
    model.neck.update(embed_dims=16, depth=1, num_heads=2)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        trained = MODELS.build(model)
    trained.init_weights()
    torch.save({"state_dict": trained.state_dict()}, "ours.pth")
    convert_file("ours.pth", options["load_from"], to="official", layout="auto")
    runner = run(command, monkeypatch, **{"optim_wrapper.optimizer.lr": 0.0})
    own, theirs = (x.state_dict() for x in (runner.model, trained))
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[key], theirs[key]) for key in own)


@pytest.mark.usefixtures("unformatted")
def test_clip_and_dinov2(checkout, monkeypatch):
    timm = pytest.importorskip("timm")
    clip, dinov2 = commands("Features of DINOv2 or CLIP as targets")
    torch.save(clip_state_dict(), "ViT-B-16.pt")
    assert run(clip, monkeypatch, **{"model.backbone.taps": (0, 1, 2)}).iter == 4
    config = Config.fromfile("configs/mae/dinov2.py").model.target_generator
    small = dict(depth=1, embed_dim=24, num_heads=2)
    teacher = timm.create_model(config.model_name, num_classes=0, **small)
    torch.save(teacher.state_dict(), "dinov2.pth")
    # Its own weights, which timm would download.
    changes = {
        "model.target_generator.pretrained": False,
        "model.target_generator.checkpoint": "dinov2.pth",
        "model.target_generator.model_kwargs": small,
    }
    runner = run(dinov2, monkeypatch, **changes)
    assert runner.model.target_specs[0].width == 24


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_absent_package__is_named_before_anything_is_built(checkout, monkeypatch, name):
    monkeypatch.setattr(
        "mim_plugins.engine.config.log_services.find_spec", lambda name: None
    )
    with pytest.raises(Exception, match=f"not installed: pip install {name}"):
        train("configs/mae/vitb_1600e.py", log_to=[name])
    assert not Path("work_dirs").exists()
