"""The example of docs/data.md for images of more than 8 bits."""

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, MODELS
from samples import ROOT, laid_out_only

from mim_plugins.engine.config.overrides import apply_options
from mim_plugins.engine.hooks.data_health import check_image
from mim_plugins.engine.hooks.input_values import (
    check_same_channels,
    check_scale,
    sample_images,
    warn_of_lost_depth,
)


def test_example_of_16_bits__keeps_all_values(tmp_path):
    text = (ROOT / "docs" / "data.md").read_text().split("```python\n")[1]
    base = ROOT / "configs" / "deepmim" / "mae_vitb_300e.py"
    example = text.split("```")[0].replace('"mae_vitb_300e.py"', repr(str(base)))
    (tmp_path / "example.py").write_text(example)
    draw = np.random.default_rng(0)
    for index in range(2):
        image = draw.integers(0, 4096, (240, 240), dtype=np.uint16)
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    cfg = Config.fromfile(tmp_path / "example.py")
    apply_options(cfg, dict(data_root=str(tmp_path)))
    init_default_scope("mmpretrain")
    images = sample_images(DATASETS.build(cfg.train_dataloader.dataset), 2)
    assert [image.dtype for image, _ in images] == [torch.float32] * 2
    assert images[0].image.max() > 2000
    with laid_out_only():
        model = MODELS.build(cfg.model)
    check_same_channels(images)
    check_image(images[0].image, model)
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    check_scale(images, preprocessor)
    assert warn_of_lost_depth(images, preprocessor) is None
