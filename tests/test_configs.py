"""Every config builds, and says of itself what the launcher and a reader need."""

import math
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmpretrain.registry import MODELS
from samples import ROOT, laid_out_only, stand_in_teachers

# Those of the other toolboxes have tests of their own.
ELSEWHERE = {"_base_", "detection", "segmentation", "tracking"}
CONFIGS = sorted(
    path
    for path in (ROOT / "configs").rglob("*.py")
    if ELSEWHERE.isdisjoint(path.relative_to(ROOT).parts)
)


def name(path) -> str:
    return str(path.relative_to(ROOT / "configs"))


# A teacher's weights have nowhere to go in a model that is only laid out.
pytestmark = pytest.mark.filterwarnings("ignore:.*non-meta parameter")


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_config__builds_and_is_complete(path, tmp_path):
    cfg = Config.fromfile(path)
    assert cfg.default_scope == "mmpretrain"
    assert "mim_plugins" in cfg.custom_imports["imports"]
    assert cfg.resume is False
    init_default_scope(cfg.default_scope)
    if "init_cfg" in cfg.model.backbone:
        cfg.model.backbone.init_cfg = None
    stand_in_teachers(cfg.model, tmp_path)
    with laid_out_only():
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert wrapper.optimizer.param_groups
    # Warm-up and what comes then follow each other and end with the training.
    warm_up, then = cfg.param_scheduler
    assert warm_up.end == then.begin < cfg.train_cfg.max_epochs
    assert not {"end", "T_max"} & then.keys()
    assert then.type in ("CosineAnnealingLR", "ConstantLR")
    header = re.match(r"(#.*\n)+", path.read_text())
    assert header, "the head comment is missing"
    batch = re.search(r"Global batch size: (\d+)", header[0])
    assert batch and int(batch[1]) == cfg.auto_scale_lr.base_batch_size
    # The last one: a fine-tuning config may name the epochs of its pre-training before.
    epochs = re.findall(r"[-_](\d+)e(?=\.py|_)", path.name)
    if epochs:
        assert int(epochs[-1]) == cfg.train_cfg.max_epochs


@pytest.mark.parametrize(
    "path", [p for p in CONFIGS if p.parent.name == "deepmim"], ids=name
)
def test_deepmim__supervises_four_levels_of_increasing_depth(path, tmp_path):
    cfg = Config.fromfile(path)
    stand_in_teachers(cfg.model, tmp_path)
    with laid_out_only():
        model = MODELS.build(cfg.model)
    depths = [tap + 1 for tap in model.backbone.taps] + [model.backbone.num_layers]
    relative = [depth / model.backbone.num_layers for depth in depths]
    assert relative == pytest.approx([6 / 12, 8 / 12, 10 / 12, 1])
    assert len(model.neck.decoders[0].decoder_blocks) == 4


@pytest.mark.parametrize(
    ("path", "min_lr"),
    [
        ("deepmim/mae_vitb_300e.py", 0.0),
        ("deepmim/benchmarks/mae_vitb_finetune-100e_in1k.py", 1e-6),
        ("deepmim/benchmarks/mae-clip_vitb_finetune-100e_in1k.py", 1e-6),
    ],
)
def test_schedule__follows_the_official_formula(path, min_lr):
    """Per iteration: lr * e / warm-up, then half a cosine to min_lr, then the scale."""
    cfg = Config.fromfile(ROOT / "configs" / path)
    length, epochs = 7, cfg.train_cfg.max_epochs
    peak, scale = cfg.optim_wrapper.optimizer.lr, 0.65**13
    groups = [dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=peak * scale)]
    optimizer = torch.optim.SGD(groups, lr=peak)
    schedulers = [
        PARAM_SCHEDULERS.get(options.pop("type")).build_iter_from_epoch(
            optimizer, epoch_length=length, **{"end": epochs, **options}
        )
        for options in map(_without_conversion, cfg.param_scheduler)
    ]
    warm = cfg.param_scheduler[0].end
    for step in range(length * epochs):
        epoch = step / length
        if epoch < warm:
            wanted = peak * epoch / warm
        else:
            cosine = math.cos(math.pi * (epoch - warm) / (epochs - warm))
            wanted = min_lr + (peak - min_lr) * 0.5 * (1 + cosine)
        # mmengine's warm-up ends one iteration early: 1 / (iterations of warm-up).
        bound = peak * scale / (warm * length - 1)
        assert abs(optimizer.param_groups[0]["lr"] - wanted * scale) <= bound, step
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def _without_conversion(options):
    options = dict(options)
    options.pop("convert_to_iter_based")
    return options
