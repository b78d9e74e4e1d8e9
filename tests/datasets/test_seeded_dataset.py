import logging
import os
import random

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, default_collate
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import TRANSFORMS
from torch.utils.data import DataLoader

from mim_plugins.datasets import EndlessSampler, EpochSampler, SeededDataset
from mim_plugins.datasets.seeding import preserve_rng_state, sample_key, seed_rng

PRETRAIN = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(type="TensorRandomResizedCrop", scale=16, crop_ratio_range=(0.2, 1.0)),
    dict(type="DrawFlip"),
    dict(type="PackPretrainInputs"),
]
FINETUNE = [
    dict(type="LoadImageFromFile"),
    dict(type="TensorRandomResizedCrop", scale=16),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(
        type="RandAugment",
        policies="timm_increasing",
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation="bicubic"),
    ),
    dict(type="PackInputs"),
]


def unlabelled(folder, **kwargs):
    inner = dict(type="UnlabelledImages", data_root=str(folder), pipeline=PRETRAIN)
    return SeededDataset(inner, **kwargs)


def labelled(folder, **kwargs):
    inner = dict(
        type="CustomDataset",
        data_root=str(folder),
        data_prefix="train",
        pipeline=FINETUNE,
        _scope_="mmpretrain",
        **kwargs,
    )
    return SeededDataset(inner)


def load_epochs(dataset, workers, epochs=(0, 1), rank=0, world=1, seed=3):
    """Samples of some epochs by key: image and, if there are some, numbers."""
    sampler = EpochSampler(dataset, shuffle=True, seed=seed)
    sampler.rank, sampler.world_size = rank, world
    sampler.num_samples = sampler.total_size // world
    loader = DataLoader(
        dataset,
        batch_size=4,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=default_collate,
    )
    found = {}
    for epoch in epochs:
        sampler.set_epoch(epoch)
        for batch in loader:
            samples = batch["data_samples"]
            if isinstance(samples, dict):
                samples = [
                    {key: values[row].item() for key, values in samples.items()}
                    for row in range(len(batch["inputs"]))
                ]
            for image, sample in zip(batch["inputs"], samples, strict=True):
                found[epoch, sample.get("sample_idx")] = image, sample
    return found


@pytest.fixture
def records():
    """Messages of the current logger."""
    messages = []
    handler = logging.Handler(level=logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def spoil(folder, names=("train/class_0/00.png",), content=b""):
    paths = [folder / name for name in names]
    for path in paths:
        path.write_bytes(content)
    return paths


@pytest.mark.parametrize("make", [unlabelled, labelled])
def test_sample_is_the_same_with_any_workers_ranks_and_restarts(folder, make):
    reference = load_epochs(make(folder), workers=0)
    assert len(reference) == 24
    others = load_epochs(make(folder), workers=2)
    # A restart in epoch 1, on two ranks.
    for rank in range(2):
        others.update(load_epochs(make(folder), 0, epochs=[1], rank=rank, world=2))
    for key, (image, sample) in reference.items():
        assert torch.equal(others[key][0], image)
        if isinstance(sample, dict):
            assert others[key][1] == sample


def test_epochs_and_seeds_draw_differently(folder):
    first = load_epochs(unlabelled(folder), workers=0)
    other = load_epochs(unlabelled(folder), workers=0, seed=4)
    for index in range(12):
        assert not torch.equal(first[0, index][0], first[1, index][0])
        assert not torch.equal(first[0, index][0], other[0, index][0])
        assert first[0, index][1]["seed"] != first[1, index][1]["seed"]
    flips = [sample["flip"] for _, sample in first.values()]
    assert 0 < sum(flips) < len(flips)


def test_loading_in_the_training_process_leaves_its_draws_alone(folder):
    def draws():
        return random.random(), np.random.random(), torch.rand(()).item()

    for seed_all in (random.seed, np.random.seed, torch.manual_seed):
        seed_all(7)
    expected = draws()
    for seed_all in (random.seed, np.random.seed, torch.manual_seed):
        seed_all(7)
    dataset = unlabelled(folder)
    dataset[5]
    dataset.__getitems__([1, 2])
    assert draws() == expected


def test_draws_are_restored_after_an_error():
    state = torch.get_rng_state()
    with pytest.raises(KeyError), preserve_rng_state():
        seed_rng(1)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), state)


def test_sample_keys_do_not_collide():
    keys = {sample_key(s, e, i) for s in range(3) for e in range(9) for i in range(999)}
    assert len(keys) == 3 * 9 * 999
    assert all(0 <= key < 2**63 for key in keys)
    # Resuming a run with a later release must not change its samples.
    assert sample_key(0, 1, 2) == 3384391416029321617


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_unreadable_image_is_replaced_logged_once_and_flagged(folder, records, content):
    dataset = unlabelled(folder)
    (path,) = spoil(folder, content=content or b"")
    if content is None:
        path.unlink()
    for _ in range(2):
        samples = [item["data_samples"] for item in dataset]
        assert [sample["replaced"] for sample in samples] == [1] + 11 * [0]
    assert samples[0]["sample_idx"] != 0
    assert samples[0] == dataset[0]["data_samples"]
    assert len([text for text in records if str(path) in text]) == 1
    assert dataset.unreadable_paths() == [str(path)]


def test_truncated_photograph_is_replaced(photos, tmp_path):
    for index, photo in enumerate(photos[:3]):
        (tmp_path / f"{index}.JPEG").write_bytes(photo.read_bytes())
    data = photos[0].read_bytes()
    half = data[: len(data) // 2]
    if cv2.imdecode(np.frombuffer(half, np.uint8), cv2.IMREAD_COLOR) is not None:
        pytest.skip(f"OpenCV {cv2.__version__} fills truncated files up with grey")
    (tmp_path / "0.JPEG").write_bytes(half)
    assert unlabelled(tmp_path)[0]["data_samples"]["replaced"] == 1


def test_workers_share_what_is_unreadable(folder):
    dataset = unlabelled(folder)
    paths = spoil(folder, ("train/class_0/00.png", "train/class_1/04.png"))
    found = load_epochs(dataset, workers=2, epochs=[0])
    assert sum(sample["replaced"] for _, sample in found.values()) >= 1
    assert sorted(dataset.unreadable_paths()) == sorted(map(str, paths))


def test_replaced_data_sample_carries_the_flag_and_its_own_label(folder):
    dataset = labelled(folder)
    spoil(folder)
    sample = dataset[0]["data_samples"]
    assert sample.replaced == 1
    info = dataset.get_data_info(sample.sample_idx)
    assert sample.gt_label.item() == info["gt_label"]
    assert "replaced" not in dataset[1]["data_samples"]


def test_vanished_folder_ends_in_an_error_that_names_a_file(folder):
    dataset = unlabelled(folder)
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(RuntimeError, match=r"\.png.*Check that the data folder"):
        dataset[0]


def test_test_mode_replaces_nothing(folder):
    dataset = labelled(folder, test_mode=True)
    (path,) = spoil(folder)
    with pytest.raises(RuntimeError, match="00.png"):
        dataset[0]
    assert torch.equal(dataset[1]["inputs"], dataset[1]["inputs"])


def test_fault_of_the_pipeline_is_not_taken_for_a_bad_file(folder):
    dataset = unlabelled(folder)

    def broken(results):
        raise ZeroDivisionError

    dataset.dataset.pipeline.transforms[1] = broken
    with pytest.raises(ZeroDivisionError):
        dataset[0]
    assert dataset.unreadable_paths() == []


def test_sample_turned_down_by_the_pipeline_is_exchanged_without_a_flag(folder):
    dataset = unlabelled(folder)

    def only_odd(results):
        return results if results["sample_idx"] % 2 else None

    dataset.dataset.pipeline.transforms.insert(1, only_odd)
    sample = dataset[0]["data_samples"]
    assert sample["sample_idx"] % 2 == 1
    assert sample["replaced"] == 0


def test_wrapped_data_sets_are_seen_through(folder):
    parts = [
        DATASETS.build(
            dict(type="UnlabelledImages", data_root=str(folder), pipeline=PRETRAIN)
        )
        for _ in range(2)
    ]
    dataset = SeededDataset(ConcatDataset(parts))
    assert len(dataset) == 24
    info = dataset.get_data_info(13)
    assert info["img_path"] == parts[1].get_data_info(1)["img_path"]
    assert dataset[13]["data_samples"]["sample_idx"] == 13


def test_proxies_what_runner_and_model_ask_for(folder):
    dataset = labelled(folder)
    assert len(dataset) == 12
    assert dataset.metainfo["classes"] == ("class_0", "class_1", "class_2")
    assert dataset.get_data_info(12 + 5) == dataset.dataset.get_data_info(5)
    assert len(list(dataset)) == 12


def test_sampler_numbers_samples_when_mmengine_slices_the_data_set(folder):
    loader = Runner.build_dataloader(
        dict(
            dataset=unlabelled(folder),
            sampler=dict(type="EpochSampler", shuffle=False),
            num_batch_per_epoch=2,
            batch_size=3,
            collate_fn=dict(type="default_collate"),
        ),
        seed=5,
    )
    loader.sampler.set_epoch(2)
    assert list(loader.sampler) == [24, 25, 26, 27, 28, 29]
    batch = next(iter(loader))
    assert batch["data_samples"]["sample_idx"].tolist() == [0, 1, 2]
    assert batch["data_samples"]["seed"].tolist() == [
        sample_key(5, 2, index) for index in range(3)
    ]


def test_sampler_needs_a_seeded_data_set(folder):
    plain = CustomDataset(data_root=str(folder), with_label=False)
    with pytest.raises(TypeError, match="SeededDataset"):
        EpochSampler(plain)


@pytest.mark.parametrize("ratio", [-0.1, 1.5])
def test_refuses_a_ratio_that_is_none(folder, ratio):
    with pytest.raises(ValueError, match=str(ratio)):
        unlabelled(folder, max_corrupt_ratio=ratio)


def test_refuses_what_is_no_data_set():
    with pytest.raises(TypeError, match="list"):
        SeededDataset([1, 2, 3])


def test_names_resolve_from_mmpretrain():
    for name in ("TensorRandomResizedCrop", "DrawFlip", "PackPretrainInputs"):
        assert TRANSFORMS.get(name) is not None


def test_image_with_other_channels_is_replaced_and_named(folder, records):
    for path in (folder / "train").rglob("*.png"):
        if path.stem != "00":
            cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    steps = [dict(type="LoadImageFromFile", color_type="unchanged"), *PRETRAIN[1:]]
    inner = dict(type="UnlabelledImages", data_root=str(folder), pipeline=steps)
    dataset = SeededDataset(inner)
    assert dataset[0]["inputs"].shape[0] == 3
    dataset.channels = 1
    items = [dataset[index] for index in range(len(dataset))]
    assert {item["inputs"].shape[0] for item in items} == {1}
    assert [item["data_samples"]["replaced"] for item in items].count(1) == 1
    assert "00.png (ValueError: it has 3 channels instead of 1)" in records[-1]


def test_warning_about_a_name_that_is_not_utf8_reaches_the_log(folder, tmp_path):
    broken = os.fsencode(folder) + b"/train/\xe9t\xe9.png"
    with open(broken, "wb") as file:
        file.write(b"no image")
    log = tmp_path / "run.log"
    handler = logging.FileHandler(log, encoding="utf-8")
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        dataset = unlabelled(folder)
        (index,) = (
            i for i in range(len(dataset)) if "udce9" in ascii(dataset.get_data_info(i))
        )
        dataset[index]
    finally:
        logger.removeHandler(handler)
    assert r"replaced by another one: " in log.read_text()
    assert r"\udce9t\udce9.png" in log.read_text()
    assert dataset.unreadable_paths()[0].isascii()


def rank_of(sampler, rank, world):
    sampler.rank, sampler.world_size = rank, world
    return sampler


@pytest.mark.parametrize("world", [1, 2, 3])
def test_endless_sampler__gives_every_iteration_the_same_images(folder, world):
    dataset = unlabelled(folder)
    sampler = EndlessSampler(dataset, shuffle=True, seed=3)
    wanted = [index for index, _ in zip(sampler, range(36), strict=False)]
    assert [index // 12 for index in wanted] == [0] * 12 + [1] * 12 + [2] * 12
    assert len(set(wanted)) == 36 and dataset.seed == 3
    ranks = [
        iter(rank_of(EndlessSampler(dataset, seed=3), rank, world))
        for rank in range(world)
    ]
    assert [next(ranks[i % world]) for i in range(36)] == wanted


@pytest.mark.parametrize("images", [1, 31, 32, 33])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_epoch_sampler__an_epoch_has_as_many_batches_on_any_number(
    monkeypatch, images, world
):
    inner = BaseDataset(lazy_init=True)
    inner.load_data_list = lambda: [dict(img_path=str(i)) for i in range(images)]
    dataset = SeededDataset(inner)
    monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda: (0, world))
    for drop_last, batches in ((True, images // 8), (False, -(-images // 8))):
        sampler = EpochSampler(dataset, seed=0, drop_last=drop_last)
        loader = DataLoader(dataset, 8 // world, sampler=sampler, drop_last=drop_last)
        assert len(loader) == batches
        assert len(list(loader.batch_sampler)) == batches


def test_samplers__say_what_they_sample(folder):
    for sampler, host in ((EpochSampler, "Default"), (EndlessSampler, "Infinite")):
        with pytest.raises(TypeError, match=f"{sampler.__name__} .* use {host}Sampler"):
            sampler([1, 2])
