"""The one-stream tracker: tokens, maps, losses."""

import math

import pytest
import torch
from mmpretrain.registry import MODELS
from samples import TINY_ARCH

from mim_plugins.models.trackers.centre_head import Maps, hann_window
from mim_plugins.models.trackers.centre_target import centre_heatmap
from mim_plugins.models.trackers.elimination import central_token, keep_rate_at
from mim_plugins.models.trackers.losses import focal_loss, overlaps, to_corners


def tracker_config(**backbone):
    return dict(
        type="OneStreamTracker",
        data_preprocessor=dict(
            mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
        ),
        backbone=dict(
            type="OneStreamVisionTransformer",
            arch=dict(TINY_ARCH),
            img_size=32,
            patch_size=8,
            template_size=32,
            search_size=64,
            elimination_blocks=(1, 2),
            keep_ratios=(0.7, 0.7),
        )
        | backbone,
        head=dict(type="CentreHead", channels=16),
    )


def build(**backbone):
    model = MODELS.build(tracker_config(**backbone))
    model.init_weights()
    return model.eval()


def images(seed=0, number=2):
    generator = torch.Generator().manual_seed(seed)
    template = torch.randn(number, 3, 32, 32, generator=generator)
    return template, torch.randn(number, 3, 64, 64, generator=generator)


def test_elimination__keeps_the_share_rounded_up_and_restores_places():
    model = build()
    encoded = model.backbone(*images())
    # ceil(0.7 * 64) = 45 are kept, then ceil(0.7 * 45) = 32.
    assert [x.shape for x in encoded.removed] == [(2, 19), (2, 13)]
    for sample in range(2):
        gone = torch.cat([x[sample] for x in encoded.removed])
        assert len(gone.unique()) == 32
        empty = (encoded.search[sample] == 0).all(dim=1).nonzero().flatten()
        assert empty.tolist() == gone.sort().values.tolist()


def test_elimination__goes_by_attention_from_the_central_template_token():
    model = build(elimination_blocks=(1,), keep_ratios=(0.5,))
    backbone, pair = model.backbone, images()
    template, search = backbone.embed_template(pair[0]), backbone.embed_search(pair[1])
    tokens = backbone.layers[0](torch.cat([template, search], dim=1))
    attn, normed = backbone.layers[1].attn, backbone.layers[1].ln1(tokens)
    q, k, _ = attn.qkv(normed).reshape(2, 80, 3, 2, 12).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(2, 3) / math.sqrt(12)).softmax(-1)
    # A template of 4 x 4 tokens: token (1, 1).
    scores = weights[:, :, 5, 16:].mean(dim=1)
    gone = scores.topk(32, largest=False).indices.sort().values
    assert encoded_gone(backbone(*pair)) == gone.tolist()


def encoded_gone(encoded):
    return torch.cat(encoded.removed, dim=1).sort().values.tolist()


@pytest.mark.parametrize(
    ("grid", "token"), [((8, 8), 27), ((7, 7), 24), ((12, 12), 65), ((4, 4), 5)]
)
def test_central_token__is_ostracks(grid, token):
    assert central_token(grid) == token


def test_keep_rate__of_the_call_replaces_every_ratio():
    model = build()
    assert [x.shape[1] for x in model.backbone(*images(), 1.0).removed] == [0, 0]
    assert [x.shape[1] for x in model.backbone(*images(), 0.5).removed] == [32, 16]
    plain = build(elimination_blocks=(), keep_ratios=())
    plain.load_state_dict(model.state_dict())
    kept, other = model.predict_maps(*images(), 1.0), plain.predict_maps(*images())
    for a, b in zip(kept, other, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_keep_rate__holds_in_training_alone():
    model = build()
    model.keep_rate = 1.0
    everything = model.predict_maps(*images(), 1.0).score
    assert not torch.equal(model.predict_maps(*images()).score, everything)
    model.train()
    model.head.eval()
    assert torch.allclose(model.predict_maps(*images()).score, everything, atol=1e-6)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(10, 1), (20, 1), (60, 0.85), (99, 0.7001156445638915), (100, 0.7), (300, 0.7)],
)
def test_keep_rate__falls_as_half_a_cosine(epoch, rate):
    assert keep_rate_at(epoch, 20, 100, 0.7) == pytest.approx(rate, abs=1e-12)


def test_boxes__are_read_at_the_highest_score():
    score = torch.zeros(2, 1, 4, 8)
    score[0, 0, 2, 5], score[1, 0, 0, 7] = 0.9, 0.8
    size, offset = torch.rand(2, 2, 2, 4, 8)
    boxes, best = Maps(score, size, offset).boxes()
    ox, oy = offset[0, :, 2, 5]
    w, h = size[0, :, 2, 5]
    assert boxes[0].tolist() == pytest.approx(
        [float((5 + ox) / 8), float((2 + oy) / 4), float(w), float(h)]
    )
    assert best.tolist() == pytest.approx([0.9, 0.8])
    window = torch.zeros(4, 8)
    window[3, 1] = 1
    moved = Maps(score + 0.1, size, offset).boxes(window)[0]
    assert moved[0, 2:].tolist() == pytest.approx(size[0, :, 3, 1].tolist())


def test_hann_window__has_no_zeros():
    window = hann_window((16, 16))
    k = torch.arange(1, 17)
    line = 0.5 * (1 - torch.cos(2 * math.pi * k / 17))
    assert torch.allclose(window, line[:, None] * line[None], atol=1e-6)


def radius_of(width, height, m=0.7):
    """CornerNet's released code, which divides by 2 rather than by 2 a."""
    roots = []
    for a, b, c in (
        (1, height + width, width * height * (1 - m) / (1 + m)),
        (4, 2 * (height + width), (1 - m) * width * height),
        (4 * m, -2 * m * (height + width), (m - 1) * width * height),
    ):
        roots.append((b + math.sqrt(b * b - 4 * a * c)) / 2)
    return max(0, int(min(roots)))


@pytest.mark.parametrize(
    "box",
    [
        (0.4, 0.3, 0.2, 0.25),
        (0.05, 0.9, 0.3, 0.2),
        (0.45, 0.45, 0.01, 0.01),
        (-0.1, -0.1, 1.2, 1.2),
        (0.9, 0.4, 0.4, 0.3),  # its centre is outside
    ],
)
def test_heatmap__is_a_gaussian_cut_at_its_radius_and_the_border(box):
    heat = centre_heatmap(torch.tensor([box]), (16, 16))
    x, y, w, h = (16 * value for value in box)
    column, row = round(x + w / 2), round(y + h / 2)
    radius = radius_of(w, h)
    sigma = (2 * radius + 1) / 6
    for i in range(16):
        for j in range(16):
            near = abs(j - column) <= radius and abs(i - row) <= radius
            distance = (j - column) ** 2 + (i - row) ** 2
            value = math.exp(-distance / (2 * sigma**2)) if near else 0
            assert float(heat[0, 0, i, j]) == pytest.approx(value, abs=1e-6)


def test_focal_loss__is_divided_by_the_number_of_centres():
    scores = torch.tensor([[[[0.9, 0.2], [0.3, 0.6]]]])
    target = torch.tensor([[[[1.0, 0.5], [0.0, 1.0]]]])
    wanted = -(
        0.1**2 * math.log(0.9)
        + 0.4**2 * math.log(0.6)
        + 0.5**4 * 0.2**2 * math.log(0.8)
        + 0.3**2 * math.log(0.7)
    )
    assert float(focal_loss(scores, target)) == pytest.approx(wanted / 2, rel=1e-6)
    # None is in the map: divided by one.
    lone = focal_loss(scores[..., :1], torch.tensor([[[[0.5], [0.0]]]]))
    assert torch.isfinite(lone)


def test_giou__of_boxes_that_do_not_meet_is_negative():
    boxes = to_corners(torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    others = to_corners(torch.tensor([[2.5, 0.5, 1.0, 1.0]]), centred=True)
    iou, giou = overlaps(boxes, others)
    assert iou.tolist() == [0] and giou.tolist() == pytest.approx([-(3 - 2) / 3])


def test_loss__clamps_the_target_and_reaches_every_trained_parameter():
    model = build().train()
    model.keep_rate = 0.7
    template, search = images()
    inputs = dict(template=template, search=search)
    boxes = torch.tensor([[0.8, 0.4, 0.4, 0.3], [0.2, 0.2, 0.5, 0.5]])
    losses = model(inputs, dict(box=boxes), mode="loss")
    assert set(losses) == {"loss_giou", "loss_l1", "loss_focal", "iou"}
    clamped = boxes.clone()
    clamped[0, 2] = 0.2
    maps = model.predict_maps(template, search)
    one, two = (model.loss_by_maps(maps, x) for x in (boxes, clamped))
    assert one["loss_l1"] == two["loss_l1"] and one["loss_focal"] != two["loss_focal"]
    sum(v for k, v in losses.items() if "loss" in k).backward()
    untrained = {n for n, p in model.named_parameters() if p.grad is None}
    assert untrained == {"backbone.cls_token", "backbone.pos_embed"}
    assert all(
        not p.requires_grad for n, p in model.named_parameters() if n in untrained
    )


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        (dict(keep_ratios=(0.7,)), "one value per eliminating block"),
        (dict(elimination_blocks=(1, 4)), "zero-based"),
        (dict(keep_ratios=(0.7, 0.0)), "in \\(0, 1\\]"),
        (dict(search_size=60), "multiple of the patch size"),
    ],
)
def test_backbone__refuses_what_cannot_be(backbone, words):
    with pytest.raises(ValueError, match=words):
        build(**backbone)


def test_images__of_another_size_are_refused():
    model = build()
    template, search = images()
    with pytest.raises(ValueError, match="template is 64x64 pixels, the tracker is"):
        model.predict_maps(search, search)


def test_loss__asks_for_boxes():
    template, search = images()
    with pytest.raises(ValueError, match="data_samples with 'box'"):
        build()(dict(template=template, search=search), mode="loss")


def test_preprocessor__normalises_both_images():
    model = build()
    batch = {
        "inputs": {
            "template": torch.full((1, 3, 32, 32), 100, dtype=torch.uint8),
            "search": torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
        },
        "data_samples": {"box": torch.rand(1, 4)},
    }
    ready = model.data_preprocessor(batch)
    template = ready["inputs"]["template"]
    assert template[0, :, 0, 0].tolist() == pytest.approx(
        [(100 - m) / s for m, s in zip(
            (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), strict=True)],
        abs=1e-5,
    )  # fmt: skip
    assert ready["inputs"]["search"].shape == (1, 3, 64, 64)
    with pytest.raises(TypeError, match="default_collate"):
        model.data_preprocessor({"inputs": torch.zeros(1, 3, 8, 8)})
