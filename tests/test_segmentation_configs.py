"""Every segmentation config builds at full size, trains and tests at a small one."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from mmengine.runner import Runner
from samples import ROOT, ade20k_layout, laid_out_only, small_segmentor

from mim_plugins.engine.prepare import training_config

mmseg_models = pytest.importorskip("mmseg.models")

CONFIGS = sorted((ROOT / "configs").glob("*/segmentation/*.py"))


def name(path) -> str:
    return str(path.relative_to(ROOT / "configs"))


def segmentor_of(cfg):
    """The segmentor's own config, inside of one that averages over scales, too."""
    return cfg.model.get("module", cfg.model)


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_config__builds_and_says_what_it_is(path):
    cfg = Config.fromfile(path)
    assert cfg.default_scope == "mmseg"
    assert "mim_plugins" in cfg.custom_imports["imports"]
    assert cfg.resume is False
    header = re.match(r"(#.*\n)+", path.read_text())
    assert header, "the head comment is missing"
    assert name(path) in re.sub(r"\s*\\\n#\s*", " ", header[0]), "no command"
    assert re.search(r"arxiv\.org/abs/\d{4}\.\d{5}", header[0])
    batch = re.search(r"Global batch size: (\d+)", header[0])
    assert batch and int(batch[1]) == cfg.auto_scale_lr.base_batch_size
    warm_up, then = cfg.param_scheduler
    assert then.begin in (0, warm_up.end) and "end" not in then
    segmentor = segmentor_of(cfg)
    assert segmentor.backbone.init_cfg.type == "Pretrained"
    assert segmentor.backbone.init_cfg.checkpoint
    segmentor.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope("mmseg"), laid_out_only():
        model = mmseg_models.build_segmentor(segmentor)
    if "RelPos" in segmentor.backbone.type:
        # What a checkpoint of the pre-training has, it has place for.
        heads = segmentor.backbone.arch.num_heads
        table = model.backbone.layers[0].attn.relative_position_bias_table
        side = 2 * segmentor.backbone.img_size // 16 - 1
        assert table.shape == (side**2 + 3, heads)
        assert heads == {"deepmim/segmentation/mae_vits_upernet_ade20k.py": 6}.get(
            name(path), 16 if model.backbone.embed_dims == 1024 else 12
        )
        assert model.backbone.layers[0].gamma_1.shape == (model.backbone.embed_dims,)


DONE: dict[str, str] = {}


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_config__trains_and_tests(path, tmp_path_factory):
    cfg = Config.fromfile(path)
    classes = segmentor_of(cfg).decode_head.num_classes
    folder = tmp_path_factory.getbasetemp() / f"segmentation-{classes}"
    if not folder.exists():
        ade20k_layout(folder / "data", labels=classes)
    small_segmentor(cfg, folder / "data", folder / "runs")
    cfg.pop("pretrained", None)
    trains = cfg.model.type != "SegTTAModel"
    if not trains:
        for part in ("train_cfg", "train_dataloader", "optim_wrapper"):
            cfg[part] = None
        cfg.param_scheduler = None
    same = DONE.setdefault(cfg.pretty_text, name(path))
    if same != name(path):
        return  # but for what it starts from, it was run a moment ago
    with DefaultScope.overwrite_default_scope("mmseg"):
        runner = Runner.from_cfg(cfg)
        if trains:
            runner.train()
            assert runner.iter == 1
        metrics = runner.test()
    assert 0 <= metrics["mIoU"] <= 100


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        # mmcv: the decay runs from the start, and the warm-up is a factor on it.
        ("deepmim/segmentation/mae-clip_vitb_upernet_ade20k.py", 160000),
        # mmengine: one after the other.
        ("distilled/segmentation/d2-mae_vitt_semantic-fpn_ade20k.py", 158500),
    ],
)
def test_schedule__follows_the_official_formula(path, rest):
    cfg = Config.fromfile(ROOT / "configs" / path)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = [
        PARAM_SCHEDULERS.build({"end": 160000, **options, "optimizer": optimizer})
        for options in cfg.param_scheduler
    ]
    for step in range(1700):
        decay = 1 - max(step - (160000 - rest), 0) / rest
        warm = 1e-6 + (1 - 1e-6) * min(step / 1500, 1)
        # mmengine's warm-up ends one iteration early.
        assert abs(optimizer.param_groups[0]["lr"] - decay * warm) < 1.1 / 1499, step
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


@pytest.mark.parametrize("path", [p for p in CONFIGS if "-ms_" in p.name], ids=name)
def test_test_config__is_not_trained(path):
    plain = path.with_name(path.name.replace("-ms_", "_"))
    assert plain in CONFIGS
    with pytest.raises(ValueError, match=f"only tests.* Train {re.escape(str(plain))}"):
        training_config(path)


@pytest.mark.parametrize("path", [p for p in CONFIGS if "mirl" in p.parts], ids=name)
def test_mirl__has_deepmims_rates(path):
    """However many blocks: those of the embeddings, too."""
    theirs = Config.fromfile(
        ROOT / "configs/deepmim/segmentation/mae-clip_vitb_upernet_ade20k.py"
    )
    ours = Config.fromfile(path)
    assert ours.optim_wrapper.optimizer == theirs.optim_wrapper.optimizer
    shallowest = [
        cfg.optim_wrapper.paramwise_cfg.layer_decay_rate
        ** (segmentor_of(cfg).backbone.arch.num_layers + 1)
        for cfg in (ours, theirs)
    ]
    assert shallowest[0] == pytest.approx(shallowest[1])
