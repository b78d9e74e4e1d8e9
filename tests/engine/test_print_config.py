"""Tests of the printed config."""

from mmengine.config import Config
from samples import ROOT

from mim_plugins.engine import annotated_config

CONFIG = str(ROOT / "configs/deepmim/mae_vitl_300e.py")


def test_annotated_config__is_the_config_and_says_who_changed_what(tmp_path) -> None:
    options = {"train_cfg.max_epochs": 50, "train_pipeline.1.scale": 32}
    text = annotated_config(CONFIG, precision="bf16", cfg_options=options)
    (tmp_path / "printed.py").write_text(text)
    cfg = Config.fromfile(tmp_path / "printed.py")
    assert cfg.train_cfg.max_epochs == 50
    assert cfg.work_dir == "work_dirs/deepmim/mae_vitl_300e"
    lines = dict(
        line.removeprefix("# ").split(" = ", 1)
        for line in text.splitlines()
        if line.startswith("# ") and " = " in line
    )
    assert lines["train_cfg.max_epochs"] == "50  <- --cfg-options (before: 300)"
    copied = "train_dataloader.dataset.dataset.pipeline.1.scale"
    assert lines[copied] == "32  <- --cfg-options (before: 224)"
    assert lines["model.backbone.arch"] == f"'large'  <- {CONFIG} (before: 'base')"
    below = ROOT / "configs/_base_/models/deepmim_vitb.py"
    assert lines["model.neck.depth"] == f"4  <- {below} (before: 8)"
    assert "<- precision (before: 'OptimWrapper')" in lines["optim_wrapper.type"]
    assert lines["optim_wrapper.accumulative_counts"] == "32  <- accumulation"
    # What a base file sets and nothing changes is no change.
    assert "model.mask_sampler.mask_ratio" not in lines


def test_annotated_config__says_where_the_learning_rate_is_from() -> None:
    text = annotated_config(CONFIG, accumulate_batch=False)
    assert "# optim_wrapper.optimizer.lr = 7.5e-05  <- scaling of the learning" in text
