"""Tests of the one-line explanations."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import MODELS as ROOT_MODELS
from mmpretrain.registry import DATASETS, MODELS
from torch.utils.data import DataLoader, Dataset
from toy_run import TINY_MODEL

from mim_plugins.engine import InputError
from mim_plugins.engine.errors import explain, explained


def build_error(cfg: Config) -> str:
    with pytest.raises(InputError) as caught, explained(cfg):
        MODELS.build(cfg.model)
    assert caught.value.__cause__ is not None
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_unknown_key__names_class_key_place_and_what_is_accepted() -> None:
    cfg = Config(dict(model=TINY_MODEL))
    cfg.model.mask_sampler.mask_ration = 0.6
    message = build_error(cfg)
    assert "RandomPatchMask has no key 'mask_ration' (model.mask_sampler)" in message
    assert "Did you mean 'mask_ratio'?" in message
    assert "Accepted keys: mask_ratio" in message


def test_unknown_key__that_a_parent_class_refuses() -> None:
    cfg = Config(dict(model=TINY_MODEL))
    cfg.model.backbone.drop_rat = 0.1
    message = build_error(cfg)
    assert "MIMVisionTransformer has no key 'drop_rat' (model.backbone)" in message
    assert "'drop_rate'" in message and "taps" in message and "patch_size" in message


def test_unknown_type__suggests_the_nearest_name() -> None:
    cfg = Config(dict(model=dict(TINY_MODEL, type="DeepMIMM")))
    message = build_error(cfg)
    assert "DeepMIMM" in message and "Did you mean 'DeepMIM'?" in message


def test_explain__keeps_the_message_of_a_loading_worker_only() -> None:
    error = ValueError(
        "Caught ValueError in DataLoader worker process 0.\n"
        'Original Traceback (most recent call last):\n  File "x.py", line 1\n'
        "ValueError: image a.png is broken\n"
    )
    assert explain(error) == "ValueError: image a.png is broken"


def test_explain__other_errors_say_their_kind() -> None:
    assert explain(AssertionError("no bottle")) == "AssertionError: no bottle"
    assert explain(KeyError("no bottle")) == "KeyError: no bottle"
    assert explain(FileNotFoundError("no bottle")) == "no bottle"


def test_explained__leaves_accidents_alone() -> None:
    with pytest.raises(ZeroDivisionError), explained():
        1 / 0  # noqa: B018


def test_registries__the_root_ones_are_searched_too() -> None:
    cfg = Config(dict(hook=dict(type="KNNHook", interva=1)))
    error = TypeError("KNNHook.__init__() got an unexpected keyword argument 'interva'")
    assert "Did you mean 'interval'?" in explain(error, cfg)
    assert ROOT_MODELS.get("KNNHook") is None


def data_error(folder: Path) -> str:
    """What a folder of labelled images that cannot be used is called."""
    config = dict(type="CustomDataset", data_root=str(folder), data_prefix="train")
    with pytest.raises(InputError) as caught, explained():
        DATASETS.build(config)
    message = str(caught.value)
    assert "\n" not in message and str(folder / "train") in message
    assert message.endswith("--cfg-options data_root=/path/to/data")
    return message


def test_data__an_empty_folder_of_labelled_images(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    assert data_error(tmp_path).startswith("Found 0 files in subfolders of")


def test_data__a_missing_folder_of_labelled_images(tmp_path: Path) -> None:
    assert "No such file or directory" in data_error(tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_data__images_none_of_which_can_be_read(tmp_path: Path, workers: int) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    dataset = ROOT_DATASETS.build(
        dict(
            type="SeededDataset",
            dataset=dict(
                type="UnlabelledImages",
                data_root=str(tmp_path),
                pipeline=[dict(type="mmpretrain.LoadImageFromFile")],
            ),
        )
    )
    with pytest.raises(InputError, match="No usable sample") as caught, explained():
        next(iter(DataLoader(dataset, num_workers=workers)))
    assert "\n" not in str(caught.value) and "a.png" in str(caught.value)


class Failing(Dataset):
    """Raises what it is given."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, index: int) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: invalid device ordinal"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RecursionError("too deep"),
    ],
)
def test_explained__leaves_devices_and_accidents_in_data_sets_alone(
    error: Exception,
) -> None:
    with pytest.raises(type(error)) as caught, explained():
        Failing(error)[0]
    assert caught.value is error


def test_explained__leaves_a_models_runtime_errors_alone() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), explained():
        torch.nn.Linear(2, 2)(torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("checkpoint", "reason"),
    [
        ("absent/epoch_1.pth", "absent/epoch_1.pth"),
        (None, "has no checkpoint; init_cfg=None starts"),
        ("", "has no checkpoint; init_cfg=None starts"),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_checkpoint_that_is_absent__names_the_option(
    checkpoint: str | None, reason: str, listed: bool
) -> None:
    cfg = Config(dict(model=TINY_MODEL))
    init_cfg = dict(type="Pretrained", checkpoint=checkpoint, prefix="backbone.")
    cfg.model.backbone.init_cfg = [init_cfg] if listed else init_cfg
    with pytest.raises(InputError) as caught, explained(cfg):
        MODELS.build(cfg.model).init_weights()
    message = str(caught.value)
    assert reason in message
    item = ".0" if listed else ""
    option = f"--cfg-options model.backbone.init_cfg{item}.checkpoint=FILE"
    assert message.endswith(option)


def test_explained__names_the_part_and_its_values_where_a_library_fails() -> None:
    cfg = Config(dict(model=TINY_MODEL))
    cfg.model.data_preprocessor.mean = [1.0, 2.0]
    cfg.model.data_preprocessor.std = "wide"
    message = build_error(cfg)
    assert message.startswith("model.data_preprocessor (MIMDataPreprocessor with mean=")


def test_explained__with_a_config_any_error_of_a_part_is_one_of_input() -> None:
    class Broken:
        def __init__(self, size: int) -> None:
            self.size = 1 // size

    ROOT_MODELS.register_module(name="Broken", module=Broken, force=True)
    cfg = Config(dict(model=dict(TINY_MODEL, head=dict(type="Broken", size=0))))
    assert build_error(cfg) == (
        "model.head (Broken with size=0): ZeroDivisionError: "
        "integer division or modulo by zero"
    )
