import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmpretrain.registry import MODELS as BACKBONES
from mmpretrain.structures import DataSample
from samples import laid_out_only
from torch import nn
from torch.utils.data import DataLoader
from toy_run import TINY_MODEL, loader, make_runner

from mim_plugins.datasets import SeededDataset
from mim_plugins.engine.hooks.data_health import (
    CorruptImageHook,
    UnreadableImagesError,
    check_image,
    count_replaced,
    encoder_size,
)


@MODELS.register_module(force=True)
class OneNumber(BaseModel):
    """The smallest thing that trains."""

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, inputs, data_samples=None, mode="loss"):
        return dict(loss=self.weight * inputs.float().mean())


@pytest.fixture
def images(tmp_path: Path):
    """Makes a folder of images, the first few of them broken."""

    def make(count: int, broken: int) -> Path:
        folder = tmp_path / "images"
        folder.mkdir()
        for index in range(count):
            path = folder / f"{index:03}.png"
            cv2.imwrite(str(path), np.full((20, 24, 3), index, np.uint8))
            if index < broken:
                path.write_bytes(b"broken")
        return folder

    return make


@pytest.fixture
def run(tmp_path: Path):
    """Trains a little, and returns what the log file says."""

    def _run(folder: Path, epochs: int = 1, by_epoch: bool = True, **overrides) -> str:
        cfg = Config(
            dict(
                model=dict(type="OneNumber"),
                train_dataloader=dict(
                    batch_size=4,
                    num_workers=0,
                    drop_last=True,
                    collate_fn=dict(type="default_collate"),
                    sampler=dict(type="EpochSampler"),
                    dataset=dict(
                        type="SeededDataset",
                        dataset=dict(
                            type="UnlabelledImages",
                            data_root=str(folder),
                            pipeline=[
                                dict(type="LoadImageFromFile"),
                                dict(type="TensorRandomResizedCrop", scale=16),
                                dict(type="PackPretrainInputs"),
                            ],
                        ),
                    ),
                ),
                optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
                train_cfg=dict(by_epoch=True, max_epochs=epochs)
                if by_epoch
                else dict(by_epoch=False, max_iters=epochs),
                custom_hooks=[
                    dict(type="CheckInputHook"),
                    dict(type="CorruptImageHook", interval=5),
                ],
                work_dir=str(tmp_path / "work"),
                default_scope="mmpretrain",
                experiment_name=f"health_{tmp_path.name}",
                randomness=dict(seed=0),
                default_hooks=dict(checkpoint=None),
            )
        )
        cfg.merge_from_dict(overrides)
        runner = Runner.from_cfg(cfg)
        try:
            runner.train()
        finally:
            for handler in runner.logger.handlers:
                handler.flush()
        (log,) = (tmp_path / "work").glob("*/*.log")
        return log.read_text()

    return _run


def test_few_bad_images_are_counted_every_epoch_and_named_once(images, run):
    log = run(images(200, broken=2), epochs=2)
    for epoch in (1, 2):
        assert f"epoch {epoch}: 2 of 200 samples (1.00%) were replaced" in log
    assert log.count("000.png") == log.count("001.png") == 1


def test_more_than_one_percent_stop_the_run_before_the_epoch_ends(images, run):
    # At iteration 5 of 50, the first at which processes add up their counts.
    with pytest.raises(
        UnreadableImagesError, match="of 20 samples.*max_corrupt_ratio = 1.00%"
    ) as error:
        run(images(200, broken=40))
    # With the list.
    named = re.findall(r"\S*\d+\.png", str(error.value))
    assert len(named) >= int(str(error.value).split()[0])


def test_the_list_of_bad_images_has_an_end(images, run):
    with pytest.raises(UnreadableImagesError, match=r"\.png and \d+ more$") as error:
        run(images(100, broken=40), **{"custom_hooks.1.interval": 25})
    assert str(error.value).count(".png") == 20


def test_the_share_is_a_choice(images, run):
    run(images(40, broken=8), **{"train_dataloader.dataset.max_corrupt_ratio": 0.25})


def test_one_bad_image_among_few_stops_nothing(images, run):
    log = run(images(20, broken=1), epochs=3)
    assert log.count("1 of 20 samples") == 3


def test_two_bad_images_among_few_stop_the_run(images, run):
    with pytest.raises(RuntimeError, match="2 of 20 samples"):
        run(images(20, broken=2), epochs=3)


def test_loops_over_iterations_count_epochs_too(images, run):
    log = run(images(20, broken=1), epochs=10, by_epoch=False)
    assert log.count("1 of 20 samples") == 2


def _one_of_two_processes(rank: int, folder: Path, results: Any) -> None:
    """Reads the folder's only bad file in process 1, and collects what is logged."""
    torch.distributed.init_process_group(
        "gloo", f"file://{folder.parent}/store", rank=rank, world_size=2
    )
    dataset = SeededDataset(
        dict(
            type="UnlabelledImages",
            data_root=str(folder),
            pipeline=[dict(type="LoadImageFromFile"), dict(type="PackPretrainInputs")],
            _scope_="mmpretrain",
        )
    )
    logged: list[str] = []
    runner = SimpleNamespace(
        train_dataloader=DataLoader(dataset, batch_size=10),
        logger=SimpleNamespace(warning=logged.append),
        iter=0,
    )
    hook = CorruptImageHook()
    hook.before_train(runner)
    indices = range(10) if rank else range(10, 20)
    hook.after_train_iter(runner, 0, default_collate([dataset[i] for i in indices]))
    runner.iter = 1
    hook.after_train_iter(runner, 1, default_collate([dataset[15]] * 10))
    results.put((rank, logged))
    torch.distributed.destroy_process_group()


def test_processes_add_up_and_the_first_one_names_the_files(images):
    folder = images(20, broken=1)
    context = torch.multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    processes = [
        context.Process(target=_one_of_two_processes, args=(rank, folder, results))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    logged = dict(results.get() for _ in processes)
    for process in processes:
        process.join()
    assert "000.png" in logged[0][0]
    for rank in range(2):
        assert "epoch 1: 1 of 40 samples (2.50%)" in logged[rank][-1]


def test_healthy_data_are_not_spoken_of(images, run):
    assert "nreadable" not in run(images(20, broken=0))


def test_flags_are_read_from_any_batch():
    assert (
        count_replaced(dict(data_samples=dict(replaced=torch.tensor([0, 1, 1])))) == 2
    )
    samples = [DataSample(), DataSample(metainfo=dict(replaced=1))]
    assert count_replaced(dict(data_samples=samples)) == 1
    assert count_replaced(dict(inputs=torch.zeros(2))) == 0
    assert count_replaced(dict(data_samples=dict(seed=torch.zeros(2)))) == 0
    assert count_replaced([torch.zeros(2)]) == 0


def test_empty_loader_is_refused(images, run):
    with pytest.raises(ValueError, match="3 training images.*batch of 4.*batch_size"):
        run(images(3, broken=0))


def test_sampler_without_epochs_is_refused(images, run):
    with pytest.raises(ValueError, match="EpochSampler"):
        run(images(8, broken=0), **{"train_dataloader.sampler.type": "DefaultSampler"})


def image(channels=3, height=32, width=32):
    return torch.zeros(channels, height, width, dtype=torch.uint8)


def masked_model(**backbone):
    return MODELS.build(
        dict(
            type="mmpretrain.DeepMIM",
            data_preprocessor=dict(mean=[0.0] * 3, std=[1.0] * 3),
            mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.75),
            backbone=dict(
                type="MIMVisionTransformer",
                arch=dict(
                    embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=16
                ),
                **dict(dict(img_size=32, patch_size=8), **backbone),
            ),
            neck=dict(type="MIMDecoder", embed_dims=16, depth=1, num_heads=2),
            target_generator=dict(type="PixelTarget", norm_pix=True),
            head=dict(type="ReconstructionHead", criterion="L2"),
            _scope_="mmpretrain",
        )
    )


def test_image_that_fits_passes():
    check_image(image(height=48), masked_model(img_size=(48, 32)))


def test_image_of_another_size_than_the_encoders_is_refused():
    with pytest.raises(ValueError, match="48x32 pixels.*made for 32x32.*img_size"):
        check_image(image(height=48), masked_model())


@pytest.mark.parametrize(
    ("encoder", "size"),
    [
        (dict(type="MIMSwinTransformer", arch="tiny", img_size=(64, 128)), (64, 128)),
        (dict(type="MIMHiera", arch="tiny", img_size=(64, 128)), (64, 128)),
        (dict(type="VisionTransformer", arch="deit-tiny", img_size=64), (64, 64)),
        # For images of any size.
        (dict(type="SwinTransformer", arch="tiny", img_size=64), None),
    ],
)
def test_encoder_size__is_that_of_the_images_it_is_built_for(encoder, size):
    if "Swin" in encoder["type"]:
        encoder = dict(encoder, window_size=2)
    with laid_out_only():
        assert encoder_size(BACKBONES.build(encoder)) == size


def test_image_with_other_channels_is_refused():
    with pytest.raises(ValueError, match="4 channels.*in_channels is made for 3"):
        check_image(image(channels=4), masked_model())
    model = masked_model()
    model.data_preprocessor.mean = torch.zeros(4, 1, 1)
    with pytest.raises(ValueError, match="3 channels.*mean.*made for 4"):
        check_image(image(), model)


def test_image_size_that_is_no_multiple_of_the_patch_is_refused():
    with pytest.raises(ValueError, match="30x32 pixels.*8x8.*such as 24x32"):
        check_image(image(height=30), masked_model())


def test_models_without_patches_are_left_alone():
    check_image(image(channels=7, height=31), OneNumber())
    check_image(image(), nn.Linear(1, 1))


def photographs(folder: Path, channels: int = 3) -> None:
    draw = np.random.default_rng(0)
    for index in range(8):
        image = draw.integers(0, 255, (8, 8, channels), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), image)


def small_run(folder: Path, mean: float, std: float, **loading):
    """A run of the toy model on images of a folder."""
    steps = [
        dict(type="LoadImageFromFile", **loading),
        dict(type="PackPretrainInputs"),
    ]
    inner = dict(type="UnlabelledImages", data_root=str(folder), pipeline=steps)
    normalised = dict(type="MIMDataPreprocessor", mean=[mean] * 3, std=[std] * 3)
    return make_runner(
        folder,
        model=dict(TINY_MODEL, data_preprocessor=normalised),
        train_dataloader=dict(
            loader(),
            sampler=dict(type="EpochSampler"),
            dataset=dict(type="SeededDataset", dataset=inner),
        ),
        custom_hooks=[dict(type="CheckInputHook")],
    )


def test_run__with_statistics_of_another_scale_ends_before_the_first_step(tmp_path):
    photographs(tmp_path)
    runner = small_run(tmp_path, 0.485, 0.229)
    with pytest.raises(ValueError, match="do not fit.*those of values from 0 to 1"):
        runner.train()
    assert not list(Path(runner.work_dir).glob("*.pth"))
    runner = small_run(tmp_path, 123.0, 58.0)
    runner.train()
    assert runner.train_dataloader.dataset.channels == 3


def test_run__with_mixed_channels_names_a_file(tmp_path):
    photographs(tmp_path)
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((8, 8), 90, np.uint8))
    runner = small_run(tmp_path, 123.0, 58.0, color_type="unchanged")
    with pytest.raises(ValueError, match="1 with 1 .such as .*grey.png"):
        runner.train()
