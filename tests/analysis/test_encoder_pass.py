"""One pass: what it computes, with how much memory, and what probes find in it."""

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from mim_plugins.analysis.encoder_pass import EncoderPass
from mim_plugins.analysis.probes import knn_accuracy, linear_accuracy

ARCH = dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        encoder = MODELS.build(
            dict(
                type="MIMVisionTransformer",
                arch=ARCH,
                img_size=32,
                patch_size=8,
                out_type="featmap",
            )
        )
    encoder.init_weights()
    encoder.eval()
    return encoder


def tokens(encoder):
    return lambda images: encoder(images)[0].flatten(2).transpose(1, 2)


def test_features_are_the_means_of_what_leaves_each_block(encoder):
    images = torch.randn(5, 3, 32, 32)
    outputs = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda m, a, out: outputs.append(out))
    found = EncoderPass(encoder, tokens(encoder))
    features = found.update(images)
    assert len(features) == len(outputs) == found.layers == 3
    for index, (feature, output) in enumerate(zip(features, outputs, strict=True)):
        torch.testing.assert_close(feature, output[:, 1:].mean(dim=1))
        assert torch.equal(found.store.layer(index), feature)
    statistics = found.compute()
    assert [len(block.heads.distance) for block in statistics] == [3, 3, 3]
    assert all(-1 <= block.token_similarity <= 1 for block in statistics)


def test_batches_make_no_difference_but_in_the_papers_figures(encoder):
    images = torch.randn(6, 3, 32, 32)

    def distances(paper_figures, sizes):
        found = EncoderPass(encoder, tokens(encoder), paper_figures)
        for part in images.split(sizes):
            found.update(part)
        return torch.stack([block.heads.distance for block in found.compute()])

    torch.testing.assert_close(distances(False, [6]), distances(False, [4, 2]))
    # 14 per patch instead of 8 pixels.
    official = distances(True, [6])
    torch.testing.assert_close(official, distances(False, [6]) * 14 / 8)
    assert not torch.equal(distances(True, [5, 1]), official)


def test_papers_layers_are_normed_tokens_and_the_final_norm(encoder):
    images = torch.randn(4, 3, 32, 32)
    found = EncoderPass(encoder, tokens(encoder), paper_figures=True)
    features = found.update(images)
    assert [len(feature[0]) for feature in features] == [16 * 24] * 4
    embedded = encoder.layers[0].ln1(
        encoder.patch_embed(images)[0] + encoder.pos_embed[:, 1:]
    )
    torch.testing.assert_close(features[0], embedded.flatten(1))
    last = encoder(images)[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(features[-1], last.flatten(1))


@pytest.mark.parametrize("accuracy", [knn_accuracy, linear_accuracy])
def test_probes_separate_what_can_be_separated(accuracy):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    centres = torch.randn(3, 8, generator=generator)
    features = 5 * centres[labels] + torch.randn(90, 8, generator=generator)
    assert accuracy(features[:60], labels[:60], features[60:], labels[60:]) > 95
    shuffled = labels[torch.randperm(90, generator=generator)]
    assert accuracy(features[:60], shuffled[:60], features[60:], shuffled[60:]) < 60
