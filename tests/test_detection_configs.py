"""Every detection config builds as it is, and trains and tests at reduced width."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest
import torch
from coco_files import CLASSES, write_coco
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import FUNCTIONS, DefaultScope
from mmengine.utils import digit_version
from samples import ROOT, laid_out_only

from mim_plugins import engine
from mim_plugins.engine.config.schedules import check_schedule

pytest.importorskip("mmdet")
pytest.importorskip("mmcv._ext")

CONFIGS = sorted((ROOT / "configs").glob("*/detection/*.py"))
SHARDED = ROOT / "configs/mirl/detection/vitb48_800e_mask-rcnn-fsdp_coco.py"
SIDE = 64  # pixels

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    """Runs leave their scope behind; here it ends with the test."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


def name(path) -> str:
    return str(path.relative_to(ROOT / "configs"))


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_detection_config__builds_and_is_complete(path):
    from mmdet.registry import MODELS

    cfg = Config.fromfile(path)
    assert cfg.default_scope == "mmdet"
    assert "mim_plugins" in cfg.custom_imports["imports"]
    assert cfg.resume is False
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope("mmdet"), laid_out_only():
        model = MODELS.build(cfg.model)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert wrapper.optimizer.param_groups
    # The last rates are those of the last iterations.
    assert not {"end", "T_max"} & cfg.param_scheduler[-1].keys()
    assert cfg.val_evaluator.metric == ["bbox", "segm"]
    # Boxes are learnt as in ViTDet's published code.
    heads = model.roi_head.bbox_head
    heads = heads if isinstance(heads, torch.nn.ModuleList) else [heads]
    assert {type(head.loss_bbox).__name__ for head in heads} == {"L1Loss"}
    # Blocks that attend globally are the last of the quarters.
    blocks = getattr(model.backbone, "global_blocks", (0,))
    assert blocks[-1] in (0, model.backbone.num_layers - 1)
    header = re.match(r"(#.*\n)+", path.read_text())
    assert header, "the head comment is missing"
    batch = re.search(r"Global batch size: (\d+)", header[0])
    assert batch and int(batch[1]) == cfg.auto_scale_lr.base_batch_size
    assert name(path) in header[0], "the command is missing"
    # A schedule in iterations does not scale as the learning rate does.
    gpus = re.search(r"GPUS=(\d+) tools/slurm|\.py (\d+) \\\n", header[0])
    processes = int(gpus[1] or gpus[2]) if gpus else 1
    assert check_schedule(cfg, processes) is None
    assert processes * cfg.train_dataloader.batch_size == int(batch[1])


def reduced(cfg: Config, data_root: Path) -> Config:
    """A config of the same parts with few channels, for images of 64 pixels."""
    model = cfg.model
    backbone, neck, roi = model.backbone, model.neck, model.roi_head
    backbone.init_cfg = None
    widths = {"ViTDet": 8, "Hiera": 4, "MIMSwinTransformer": 8}
    width = widths[backbone.type.split(".")[-1]]
    backbone.arch.embed_dims = width
    if "ViTDet" in backbone.type:
        backbone.arch.update(num_heads=2, feedforward_channels=2 * width)
        backbone.update(img_size=SIDE, pretrain_img_size=32, window_size=3)
        neck.in_channels = width
    else:
        neck.in_channels = [width * 2**stage for stage in range(4)]
    if "Swin" in backbone.type:
        backbone.arch.update(depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 2])
        backbone.window_size = 3
    if "Hiera" in backbone.type:
        backbone.img_size = SIDE
    if model.data_preprocessor.pad_size_divisor > SIDE:
        model.data_preprocessor.pad_size_divisor = SIDE
    neck.out_channels = 8
    model.rpn_head.update(in_channels=8, feat_channels=8)
    heads = roi.bbox_head if isinstance(roi.bbox_head, list) else [roi.bbox_head]
    for head in heads:
        head.update(in_channels=8, fc_out_channels=8, num_classes=len(CLASSES))
        if "conv_out_channels" in head:
            head.conv_out_channels = 8
    roi.mask_head.update(in_channels=8, conv_out_channels=8, num_classes=len(CLASSES))
    roi.bbox_roi_extractor.out_channels = roi.mask_roi_extractor.out_channels = 8
    stages = model.train_cfg.rcnn
    for stage in stages if isinstance(stages, list) else [stages]:
        stage.sampler.num = 16
    for proposals in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
        proposals.update(nms_pre=50, max_per_img=20)

    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=1)
        loader.dataset.metainfo = dict(classes=CLASSES)
        loader.dataset.update(data_root=str(data_root), indices=None)
        loader.dataset.pop("filter_cfg", None)
        shrink_pipeline(loader.dataset.pipeline)
    cfg.train_dataloader.batch_size = 2
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        if "ann_file" in evaluator:
            evaluator.ann_file = str(data_root / "annotations/instances_val2017.json")
    if cfg.train_cfg.type == "IterBasedTrainLoop":
        cfg.train_cfg.update(max_iters=1, val_interval=1)
    else:
        cfg.train_cfg.update(max_epochs=1)
    cfg.log_level = "ERROR"
    cfg.default_hooks.checkpoint.save_begin = 10**6
    cfg.pop("pretrained", None)
    return cfg


def shrink_pipeline(steps) -> None:
    """Makes every size of a pipeline one for images of 64 pixels."""
    for step in steps:
        if isinstance(step, list):
            shrink_pipeline(step)
            continue
        if step.type in ("Resize", "RandomResize"):
            step.scale = (SIDE, SIDE)
        if step.type == "RandomResize":
            step.ratio_range = (0.9, 1.1)
        if step.type == "RandomChoiceResize":
            step.scales = [(SIDE, SIDE)]
        if step.type == "RandomCrop":
            step.crop_size = (SIDE, SIDE)
        if step.type == "RandomChoice":
            shrink_pipeline(step.transforms)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco"))


DONE: dict[str, str] = {}


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_detection_config__trains_and_tests(path, data_root, tmp_path):
    cfg = reduced(Config.fromfile(path), data_root)
    if cfg.get("runner_type"):
        return  # see the test of sharding
    same = DONE.setdefault(cfg.pretty_text, name(path))
    if same != name(path):
        return  # but for the checkpoint it starts from, it was run a moment ago
    cfg.dump(tmp_path / path.name)
    # One iteration, rather than those of the recipe's batch.
    runner = engine.train(
        tmp_path / path.name, work_dir=str(tmp_path / "out"), accumulate_batch=False
    )
    assert runner.iter == 1
    scalars = runner.message_hub.log_scalars
    assert scalars["train/loss"].current() > 0
    assert -1 <= scalars["val/coco/bbox_mAP"].current() <= 1
    # Scores are logged at the iteration, or epoch, after which they were measured.
    file = next((tmp_path / "out").rglob("scalars.json"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [x["step"] for x in lines if "coco/bbox_mAP" in x] == [1]


def test_sharding__shards_the_blocks_and_nothing_else():
    """mmdet calls ``roi_head.loss``: shards of it would never be gathered."""
    from mmdet.registry import MODELS

    cfg = Config.fromfile(SHARDED)
    cfg.model.backbone.init_cfg = None
    with laid_out_only():
        model = MODELS.build(cfg.model)
    policy = FUNCTIONS.get(cfg.strategy.model_wrapper.auto_wrap_policy)
    units = {
        path
        for path, part in model.named_modules()
        if policy(part, False, sum(p.numel() for p in part.parameters()))
    }
    assert units == {f"backbone.layers.{k}" for k in range(48)}


@pytest.mark.slow
@pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version("2.4"),
    reason="this torch shards on GPUs only",
)
def test_sharding__keeps_groups_and_saves_whole_checkpoints(data_root, tmp_path):
    """Two processes on the CPU, started as on GPUs."""
    path = SHARDED
    cfg = reduced(Config.fromfile(path), data_root)
    cfg.model.backbone.arch.num_layers = 2
    cfg.model.backbone.global_blocks = (1,)
    cfg.log_level = "INFO"
    (tmp_path / path.name).write_text(plain(cfg))
    env = dict(os.environ, PYTHON=sys.executable, PORT="29631", OMP_NUM_THREADS="1")
    command = [str(ROOT / "tools/dist_train.sh"), str(tmp_path / path.name), "2"]
    command += ["--no-accumulate"]
    done = subprocess.run(
        [*command, "--work-dir", str(tmp_path / "out"), "--debug"],
        env=env,
        capture_output=True,
        text=True,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    # Embedding and two blocks, each with a weight decay and without, and the rest, all
    # of which is decayed.
    assert "optimiser: 7 parameter groups" in output
    state = torch.load(tmp_path / "out/iter_1.pth", weights_only=False)["state_dict"]
    with DefaultScope.overwrite_default_scope("mmdet"), laid_out_only():
        from mmdet.registry import MODELS

        shapes = {k: x.shape for k, x in MODELS.build(cfg.model).state_dict().items()}
    assert {key: x.shape for key, x in state.items()} == shapes


@pytest.mark.slow
def test_mim_train__runs_our_configs_with_mmdet_own_script(data_root, tmp_path):
    pytest.importorskip("mim", reason="openmim or onedl-mim is not installed")
    path = ROOT / "configs/deepmim/detection/mae_vitb_mask-rcnn_coco.py"
    cfg = reduced(Config.fromfile(path), data_root)
    cfg.log_level = "INFO"
    (tmp_path / path.name).write_text(plain(cfg))
    names = {name.lower() for name in (d.metadata["Name"] for d in distributions())}
    package = "mmdetection" if "onedl-mmdetection" in names else "mmdet"
    mim = [sys.executable, "-c", "from mim.cli import cli; cli()", "train", package]
    done = subprocess.run(
        [*mim, str(tmp_path / path.name), "--gpus", "0", "--work-dir", str(tmp_path)],
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "coco/segm_mAP" in done.stdout + done.stderr


def plain(cfg: Config) -> str:
    """The text of a config file."""
    return "\n".join(f"{key} = {value!r}" for key, value in cfg.to_dict().items())
