"""Tests of what the command line changes in a config."""

import pytest
from mmengine.config import Config

from mim_plugins.engine.config import settings


def config(**changes) -> Config:
    cfg = dict(
        optim_wrapper=dict(
            type="OptimWrapper", optimizer=dict(type="AdamW", lr=2.4e-3)
        ),
        train_dataloader=dict(batch_size=32, num_workers=2, pin_memory=True),
        auto_scale_lr=dict(base_batch_size=4096),
    )
    return Config({**cfg, **changes})


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(settings, "get_device", lambda: request.param)
    monkeypatch.setattr(settings, "has_fast_bfloat16", lambda: request.param == "cuda")
    return request.param


def test_precision__default_depends_on_the_device(device: str) -> None:
    cfg = config()
    note = settings.apply_precision(cfg)
    expected = {"cpu": "OptimWrapper", "cuda": "AutocastOptimWrapper"}[device]
    assert cfg.optim_wrapper.type == expected
    assert note == f"precision: {'fp32' if device == 'cpu' else 'bf16'} on {device}"


def test_precision__flag_wins_over_the_config(device: str) -> None:
    amp = dict(type="AmpOptimWrapper", loss_scale=1.0, optimizer=dict(lr=1.0))
    cfg = config(optim_wrapper=dict(amp, accumulative_counts=2))
    settings.apply_precision(cfg, "bf16")
    assert cfg.optim_wrapper == dict(
        type="AutocastOptimWrapper",
        dtype="bfloat16",
        optimizer=dict(lr=1.0),
        accumulative_counts=2,
    )
    settings.apply_precision(cfg, "fp32")
    assert cfg.optim_wrapper == dict(
        type="OptimWrapper", optimizer=dict(lr=1.0), accumulative_counts=2
    )


def test_precision__config_is_kept_without_a_flag(device: str) -> None:
    cfg = config(optim_wrapper=dict(type="AutocastOptimWrapper", optimizer=dict(lr=1)))
    settings.apply_precision(cfg)
    assert cfg.optim_wrapper.type == "AutocastOptimWrapper"
    amp = config(optim_wrapper=dict(type="AmpOptimWrapper", optimizer=dict(lr=1)))
    if device == "cuda":
        settings.apply_precision(amp)
        assert amp.optim_wrapper.type == "AmpOptimWrapper"
    else:
        with pytest.raises(ValueError, match="AmpOptimWrapper, which needs a GPU"):
            settings.apply_precision(amp)


def test_precision__fp16_needs_a_gpu(device: str) -> None:
    cfg = config()
    if device == "cuda":
        settings.apply_precision(cfg, "fp16")
        assert cfg.optim_wrapper.type == "AmpOptimWrapper"
    else:
        with pytest.raises(ValueError, match="fp16 needs a GPU"):
            settings.apply_precision(cfg, "fp16")


def test_precision__of_detection_is_fp16_on_a_gpu_and_never_bf16(device: str) -> None:
    """mmcv's RoIAlign and NMS have no bfloat16."""
    cfg = config(default_scope="mmdet")
    settings.apply_precision(cfg)
    assert cfg.optim_wrapper.type == (
        "AmpOptimWrapper" if device == "cuda" else "OptimWrapper"
    )
    assert cfg.optim_wrapper.get("dtype") == ("float16" if device == "cuda" else None)
    with pytest.raises(ValueError, match="RoIAlign and NMS .*; use fp16 on a GPU"):
        settings.apply_precision(cfg, "bf16")
    segmentation = config(default_scope="mmseg")
    settings.apply_precision(segmentation, "bf16")
    assert segmentation.optim_wrapper.type == "AutocastOptimWrapper"


def test_precision__fp16_of_sharded_parameters_has_a_sharded_scaler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "get_device", lambda: "cuda")
    cfg = config(strategy=dict(type="FSDPStrategy"))
    for _ in range(2):  # the config stored with a run is run again
        settings.apply_precision(cfg, "fp16")
        assert cfg.optim_wrapper.use_fsdp is True
    settings.apply_precision(cfg, "bf16")
    assert "use_fsdp" not in cfg.optim_wrapper
    cfg = config()
    settings.apply_precision(cfg, "fp16")
    assert "use_fsdp" not in cfg.optim_wrapper


def test_scale_learning_rate__counts_processes_and_accumulation() -> None:
    cfg = config()
    cfg.optim_wrapper.accumulative_counts = 4
    note = settings.scale_learning_rate(cfg, world_size=2)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(2.4e-3 * 256 / 4096)
    for part in ("4096", "0.0625", "0.00015", "256"):
        assert part in note
    # Neither mmengine nor a second start from the stored config scales again.
    assert cfg.auto_scale_lr == dict(base_batch_size=256, enable=False)
    settings.scale_learning_rate(cfg, world_size=2)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(2.4e-3 * 256 / 4096)


@pytest.mark.parametrize(
    "changes, reason",
    [
        (dict(auto_scale_lr=None), "auto_scale_lr.base_batch_size"),
        (dict(train_dataloader=dict(batch_sampler=dict(type="X"))), "no batch_size"),
    ],
)
def test_scale_learning_rate__says_why_it_does_not(changes: dict, reason: str) -> None:
    cfg = config(**changes)
    assert reason in settings.scale_learning_rate(cfg, 2)
    assert cfg.optim_wrapper.optimizer.lr == 2.4e-3


def test_complete_dataloaders__fits_the_machine(device: str) -> None:
    cfg = config(default_scope="mmpretrain", val_dataloader=dict(num_workers=0))
    settings.complete_dataloaders(cfg)
    assert cfg.train_dataloader.pin_memory == (device == "cuda")
    assert cfg.train_dataloader.persistent_workers is True
    assert cfg.train_dataloader.collate_fn.type == "default_collate"
    assert "persistent_workers" not in cfg.val_dataloader
    detection = config(default_scope="mmdet")
    settings.complete_dataloaders(detection)
    assert "collate_fn" not in detection.train_dataloader
