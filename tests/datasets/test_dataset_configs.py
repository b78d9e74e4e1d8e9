from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

CONFIGS = Path(__file__).parents[2] / "configs" / "_base_"
NAMES = ["datasets/imagenet_pretrain", "datasets/imagenet_finetune", "recipes/linear"]


def load(name):
    return Config.fromfile(CONFIGS / f"{name}.py")


def data_roots(node):
    """Every ``data_root`` below a config."""
    if isinstance(node, dict):
        own = [node["data_root"]] if "data_root" in node else []
        return own + [root for value in node.values() for root in data_roots(value)]
    if isinstance(node, list | tuple):
        return [root for value in node for root in data_roots(value)]
    return []


@pytest.fixture
def imagenet(tmp_path):
    """Four images in ImageNet's layout, 1,000 classes by name."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / "meta").mkdir(exist_ok=True)
        lines = []
        for index in range(4):
            noise = np.random.default_rng(index).integers(0, 256, (90, 120, 3))
            cv2.imwrite(str(tmp_path / split / f"{index}.JPEG"), noise)
            lines.append(f"{index}.JPEG {index}\n")
        (tmp_path / "meta" / f"{split}.txt").write_text("".join(lines))
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_takes_the_variable(name):
    config = load(name)
    assert set(data_roots(config._cfg_dict.to_dict())) == {config.data_root}


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_what_the_model_takes(name, imagenet):
    text = load(name).pretty_text.replace(load(name).data_root, f"{imagenet}/")
    config = Config.fromstring(text, ".py")
    loaders = [key for key in config if key.endswith("_dataloader")]
    assert len(loaders) == 3
    for key in loaders:
        cfg = config[key]
        cfg.update(batch_size=2, num_workers=0, persistent_workers=False)
        cfg.setdefault("sampler", dict(type="DefaultSampler"))
        cfg.setdefault("collate_fn", dict(type="default_collate"))
        cfg.pin_memory = False
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            batch = next(iter(Runner.build_dataloader(cfg, seed=0)))
        assert batch["inputs"].shape == (2, 3, 224, 224)
        assert batch["inputs"].dtype == torch.uint8
        samples = batch["data_samples"]
        if key == "train_dataloader" and name == NAMES[0]:
            assert samples["seed"].shape == samples["flip"].shape == (2,)
        else:
            assert all(0 <= sample.gt_label.item() < 4 for sample in samples)
