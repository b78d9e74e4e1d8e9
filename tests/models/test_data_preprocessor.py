import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mim_plugins.models import MIMDataPreprocessor

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def images(channels=3, count=4):
    return torch.randint(0, 256, (count, channels, 6, 10), dtype=torch.uint8)


def reference(batch, mean=MEAN, std=STD):
    mean = torch.tensor(mean, dtype=torch.float64).view(-1, 1, 1)
    std = torch.tensor(std, dtype=torch.float64).view(-1, 1, 1)
    return (batch.double() - mean) / std


def assert_normalised(found, batch, **kwargs):
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    torch.testing.assert_close(
        found.double(), reference(batch, **kwargs), rtol=3e-7, atol=5e-7
    )


def test_normalises_every_value_to_float32_rounding():
    batch = torch.arange(256, dtype=torch.uint8).expand(1, 3, 2, -1).contiguous()
    before = batch.clone()
    out = MIMDataPreprocessor(MEAN, STD)(dict(inputs=batch))
    assert_normalised(out["inputs"], batch)
    assert out["data_samples"] is None
    assert torch.equal(batch, before)


def test_mirrors_the_drawn_images_only():
    batch, flip = images(), torch.tensor([True, False, False, True])
    data = dict(inputs=batch, data_samples=dict(flip=flip, seed=torch.arange(4)))
    out = MIMDataPreprocessor(MEAN, STD, bgr_to_rgb=True)(data, training=True)
    expected = batch.flip(1)
    expected[[0, 3]] = expected[[0, 3]].flip(-1)
    assert_normalised(out["inputs"], expected)
    assert out["data_samples"]["seed"].tolist() == [0, 1, 2, 3]


def test_takes_mmpretrains_batches_and_leaves_their_flips_alone():
    batch = images()
    samples = [DataSample(metainfo=dict(flip=True)) for _ in batch]
    data = dict(inputs=list(batch), data_samples=samples)
    out = MIMDataPreprocessor(MEAN, STD)(data)
    assert_normalised(out["inputs"], batch)
    assert [sample.flip for sample in out["data_samples"]] == [True] * 4


@pytest.mark.parametrize("channels", [1, 4, 12])
def test_any_number_of_channels(channels):
    mean, std = list(range(channels)), list(range(1, channels + 1))
    batch = images(channels)
    out = MIMDataPreprocessor(mean, std)(dict(inputs=batch))
    assert_normalised(out["inputs"], batch, mean=mean, std=std)


def test_one_value_stands_for_all_channels():
    batch = images(5)
    out = MIMDataPreprocessor([127.5], [64.0])(dict(inputs=batch))
    assert_normalised(out["inputs"], batch, mean=[127.5], std=[64.0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_floating_images_are_normalised_likewise(dtype):
    batch = images().to(dtype)
    assert_normalised(
        MIMDataPreprocessor(MEAN, STD)(dict(inputs=batch))["inputs"], batch
    )


def test_without_mean_values_stay():
    batch = images()
    out = MIMDataPreprocessor()(dict(inputs=batch))["inputs"]
    assert out.dtype == torch.float32
    assert torch.equal(out, batch.float())


def test_autocast_does_not_round():
    batch = images()
    with torch.autocast("cpu", torch.bfloat16):
        out = MIMDataPreprocessor(MEAN, STD)(dict(inputs=batch))
    assert_normalised(out["inputs"], batch)


def test_moves_everything_to_its_device():
    preprocessor = MIMDataPreprocessor(MEAN, STD).to("meta")
    data = dict(inputs=images(), data_samples=dict(flip=torch.zeros(4).bool()))
    out = preprocessor(data)
    assert out["inputs"].device.type == "meta"
    assert out["data_samples"]["flip"].device.type == "meta"


def test_adds_nothing_to_checkpoints():
    assert not MIMDataPreprocessor(MEAN, STD).state_dict()


def test_is_found_in_mmpretrains_scope():
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        built = MODELS.build(dict(type="MIMDataPreprocessor", mean=MEAN, std=STD))
    assert built.mean.flatten().tolist() == pytest.approx(MEAN)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(mean=MEAN), "std=None"),
        (dict(mean=MEAN, std=[1.0]), "one value per channel"),
        (dict(mean=[0.0], std=[0.0]), "positive"),
        (dict(mean=[0.0] * 4, std=[1.0] * 4, bgr_to_rgb=True), "4 values"),
    ],
)
def test_refuses_contradictory_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MIMDataPreprocessor(**kwargs)


def test_names_both_counts_when_channels_differ():
    with pytest.raises(ValueError, match="4 channels.*for 3"):
        MIMDataPreprocessor(MEAN, STD)(dict(inputs=images(4)))
    # One channel would broadcast to three without a word.
    with pytest.raises(ValueError, match="1 channels.*for 3"):
        MIMDataPreprocessor(MEAN, STD)(dict(inputs=images(1)))
    with pytest.raises(ValueError, match="images have 4"):
        MIMDataPreprocessor(bgr_to_rgb=True)(dict(inputs=images(4)))


def test_refuses_images_of_several_sizes_and_other_batches():
    preprocessor = MIMDataPreprocessor(MEAN, STD)
    with pytest.raises(ValueError, match=r"\(3, 4, 4\), \(3, 6, 10\)"):
        preprocessor(dict(inputs=[images()[0], torch.zeros(3, 4, 4)]))
    with pytest.raises(ValueError, match=r"\(3, 6, 10\)"):
        preprocessor(dict(inputs=images()[0]))
    with pytest.raises(TypeError, match="default_collate"):
        preprocessor([dict(inputs=images()[0])])
