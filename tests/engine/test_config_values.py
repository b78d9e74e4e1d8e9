"""Tests of the table of values, of names, and of the keys of a config's parts."""

from pathlib import Path

import pytest
from mmengine.config import Config
from samples import ROOT, tiny_model
from toy_run import loader

from mim_plugins.engine import load_config
from mim_plugins.engine.config.arguments import check_arguments
from mim_plugins.engine.config.file import read_config
from mim_plugins.engine.config.names import check_names
from mim_plugins.engine.config.values import check_values

CONFIGS = sorted(
    path for path in (ROOT / "configs").rglob("*.py") if "_base_" not in path.parts
)


def config() -> Config:
    """A config of a small pre-training with a part of every kind."""
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="TensorRandomResizedCrop", scale=32, crop_ratio_range=(0.2, 1.0)),
        dict(type="DrawFlip", prob=0.5),
        dict(type="PackPretrainInputs"),
    ]
    data = loader()
    data["dataset"] = dict(type="UnlabelledImages", data_root="x", pipeline=pipeline)
    return Config(
        dict(
            default_scope="mmpretrain",
            model=tiny_model(),
            train_dataloader=data,
            train_cfg=dict(by_epoch=True, max_epochs=2),
            optim_wrapper=dict(
                type="OptimWrapper",
                constructor="LayerDecayOptimWrapperConstructor",
                optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.95)),
                clip_grad=dict(max_norm=1.0),
                paramwise_cfg=dict(
                    layer_decay_rate=0.75, custom_keys={".ln1": dict(decay_mult=0.0)}
                ),
            ),
            param_scheduler=[
                dict(type="LinearLR", start_factor=0.1, begin=0, end=1),
                dict(type="CosineAnnealingLR", begin=1, T_max=1, eta_min=0.0),
            ],
            auto_scale_lr=dict(base_batch_size=64),
            default_hooks=dict(
                checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=3)
            ),
            custom_hooks=[dict(type="ReconstructionHook", interval=1)],
            randomness=dict(seed=0),
            env_cfg=dict(dist_cfg=dict(backend="nccl")),
            log_level="INFO",
        )
    )


def check(cfg: Config) -> None:
    check_names(cfg)
    check_values(cfg)
    check_arguments(cfg)


def test_check__accepts_what_is_right() -> None:
    check(config())


WRONG = {
    "optim_wrapper.clip_grad.max_norm": [-1, 0, "1", None, True],
    "optim_wrapper.clip_grad.norm_type": [0, "one"],
    "optim_wrapper.paramwise_cfg.layer_decay_rate": [0, -0.5, 1.1, None],
    "optim_wrapper.optimizer.lr": [-1e-3, float("nan"), float("inf"), "1e-3", None],
    "optim_wrapper.optimizer.betas": [(0.9, 1.0), (-0.1, 0.9), 0.9, (0.9,)],
    "optim_wrapper.optimizer.weight_decay": [-0.05, "no"],
    "optim_wrapper.accumulative_counts": [0, -1, 2.5],
    "optim_wrapper": [[], 1],
    "param_scheduler.1.T_max": [0, -5, 1.5],
    "param_scheduler.0.end": [0, -1],
    "param_scheduler.0.start_factor": [0, 1.5],
    "param_scheduler": [3, ["LinearLR"], [dict(end=3)]],
    "train_cfg.max_epochs": [0, -1, 1.5, "ten", True],
    "train_cfg": [[], 7],
    "auto_scale_lr.base_batch_size": [True, 0, -8, 1.5],
    "train_dataloader.batch_size": [0, -1, "8", 2.5, True],
    "train_dataloader.num_workers": [-1, "2", 10**6],
    "train_dataloader.dataset": [None, []],
    "train_dataloader.dataset.pipeline": [None, dict(type="DrawFlip"), [1]],
    "train_dataloader.dataset.pipeline.1.crop_ratio_range": [
        *[(0.2, 1.5), (0.0, 1.0), (1.0, 0.2), 0.5],
    ],
    "train_dataloader.dataset.pipeline.2.prob": [1.5, -0.1],
    "default_hooks.checkpoint.interval": [0, -2, 1.5],
    "default_hooks.checkpoint.max_keep_ckpts": [0, -3],
    "custom_hooks.0.interval": [0, None],
    "custom_hooks": [dict(type="ReconstructionHook"), "x", [dict(interval=1)]],
    "model.backbone.arch.num_heads": [0, -2, "2"],
    "model.backbone.patch_size": [0, -8, (8, 0)],
    "model.backbone.img_size": [0, "32"],
    "model.backbone.drop_path_rate": [1.0, -0.1],
    "model.mask_sampler.mask_ratio": [0, 1, 1.5, -0.5, "0.75"],
    "model.neck.depth": [-1, 1.5],
    "model": [None, [], "DeepMIM"],
    "randomness.seed": [-1, 0.5, 2**32],
    "env_cfg.dist_cfg.backend": ["ncl"],
    "model.neck.type": ["", 3, None],
    "log_level": ["info", 10],
    "resume": ["auto", 1],
    "load_from": [3, ""],
}


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, values in WRONG.items() for value in values],
)
def test_value_that_makes_no_sense__is_refused_by_its_key(key, value) -> None:
    cfg = config()
    parent, _, last = key.rpartition(".")
    node = cfg._cfg_dict
    for name in filter(None, parent.split(".")):
        node = node[int(name)] if isinstance(node, list) else node[name]
    node[last] = value
    with pytest.raises(ValueError) as error:
        check(cfg)
    assert str(error.value).startswith(f"{key} must be ")
    assert "\n" not in str(error.value)


def test_missing__rate_batch_and_optimizer() -> None:
    for path in (
        *("optim_wrapper.optimizer.lr", "optim_wrapper.optimizer"),
        *("optim_wrapper.optimizer.type", "train_dataloader.batch_size"),
    ):
        cfg = config()
        parent, _, last = path.rpartition(".")
        node = cfg._cfg_dict
        for name in parent.split("."):
            node = node[name]
        del node[last]
        with pytest.raises(ValueError, match=rf"{path}.* is missing"):
            check(cfg)


def test_width__divides_by_the_number_of_heads() -> None:
    cfg = config()
    cfg.model.backbone.arch.num_heads = 5
    with pytest.raises(ValueError, match="arch.embed_dims=24 does not divide by"):
        check_values(cfg)


def test_scheduler__that_ends_before_it_begins() -> None:
    cfg = config()
    cfg.param_scheduler[1].update(begin=5, end=5)
    with pytest.raises(ValueError, match="param_scheduler.1.end=5 must be over"):
        check_values(cfg)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("auto_scale_lr.base_batch", "'base_batch' of auto_scale_lr"),
        ("env_cfg.cudnn_benchmrk", "'cudnn_benchmrk' of env_cfg"),
        ("randomness.sed", "'sed' of randomness.*mean 'seed'"),
        ("optim_wrapper.clip_grad.max_nrm", "'max_nrm' of optim_wrapper.clip_grad"),
        ("optim_wrapper.paramwise_cfg.layer_decay_rat", "mean 'layer_decay_rate'"),
        ("default_hooks.checkpoint.intervl", "CheckpointHook has no key 'intervl'"),
        ("default_hooks.checkpoint.foo", "CheckpointHook has no key 'foo'"),
        ("default_hooks.runtim_info", "default_hooks.runtime_info?"),
        ("optim_wrapper.optimizer.weight_deca", "AdamW has no key 'weight_deca'"),
        ("train_cfg.max_epoch", "train_cfg.max_epoch|'max_epochs'"),
    ],
)
def test_key_that_nothing_reads__is_refused(key: str, message: str) -> None:
    cfg = config()
    value = dict(type="CheckpointHook") if key.endswith("info") else 1
    if key.count(".") > 1:
        value = 1
    cfg.train_cfg.type = "EpochBasedTrainLoop"
    cfg.train_cfg.pop("by_epoch")
    cfg.merge_from_dict({key: value})
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        check(cfg)


def test_argument__of_this_packages_classes_has_the_type_of_its_annotation() -> None:
    cfg = config()
    cfg.model.backbone.taps = "last"
    with pytest.raises(ValueError, match=r"model.backbone.taps of .* must be a list"):
        check_arguments(cfg)


def test_type__of_a_hook_that_is_not_registered() -> None:
    cfg = config()
    cfg.custom_hooks[0].type = "ReconstructionHok"
    with pytest.raises(ValueError, match=r"custom_hooks.0.type=.*'ReconstructionHook'"):
        check_arguments(cfg)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cutom_hooks", "custom_hooks"),
        ("parm_scheduler", "param_scheduler"),
        ("randomnes", "randomness"),
        ("load_form", "load_from"),
        ("resmue", "resume"),
        ("train_datalaoder", "train_dataloader"),
        ("optimizer", "optim_wrapper.optimizer"),
        ("total_epochs", "train_cfg.max_epochs"),
    ],
)
def test_name__that_is_misspelt(tmp_path: Path, name: str, meant: str) -> None:
    path = tmp_path / "c.py"
    path.write_text(f"{name} = dict(a=1)\n")
    with pytest.raises(ValueError, match=f"nothing reads {name} .*mean '{meant}'"):
        check_names(Config.fromfile(path))


def test_name__of_a_variable_is_ones_own(tmp_path: Path) -> None:
    base = tmp_path / "base.py"
    base.write_text("custom_hook = dict(type='A')\nmy_train_dataloader = dict(a=1)\n")
    path = tmp_path / "c.py"
    path.write_text(
        "_base_ = 'base.py'\n"
        "width = 3  # of the model\n"
        "resumed = True\n"
        "note = 'a word'\n"
        "custom_hooks = [_base_.custom_hook]\n"
        "model = dict(width=width, other=dict(seen=resumed))\n"
    )
    assert check_names(Config.fromfile(path)) == ["note"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_config__of_this_package_has_nothing_to_refuse(path: Path) -> None:
    cfg = Config.fromfile(path)
    assert check_names(cfg) == []
    check_values(cfg)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = undefined", "line 2: NameError: name 'undefined' is not defined"),
        ("a = (\n", "line 1: SyntaxError: '\\(' was never closed"),
        ("a = 1\n\nb = a / 0", "line 3: ZeroDivisionError"),
        ("_base_ = 'base.py'\na = _base_.q", "line 2: AttributeError: .* 'q'"),
        ("custom_imports = dict(imports=['absent_x'])", "Failed to import"),
        ("custom_imports = 3", "custom_imports must be a dict"),
    ],
)
def test_file__that_is_no_config(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "base.py").write_text("a = 0\n")
    path = tmp_path / "c.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"c.py.*{message}") as error:
        read_config(path)
    assert "\n" not in str(error.value)


def test_file__that_a_config_inherits_from_is_named(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("a = 1\nb = undefined\n")
    (tmp_path / "c.py").write_text("_base_ = 'base.py'\n")
    with pytest.raises(ValueError, match=r"base.py, line 2: NameError"):
        read_config(tmp_path / "c.py")


@pytest.mark.parametrize("text", ["train_cfg = [1, 2]", "train_cfg = 'x'"])
def test_config__whose_length_is_no_dict(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(ValueError, match="^train_cfg must be a dict"):
        load_config(tmp_path / "c.py")


@pytest.mark.parametrize("part", ["dataset", "sampler"])
def test_part_of_a_loader_without_a_type__is_named(part: str) -> None:
    cfg = config()
    cfg.train_dataloader[part] = dict()
    with pytest.raises(ValueError, match=f"^train_dataloader.{part}.type is missing$"):
        check_values(cfg)
