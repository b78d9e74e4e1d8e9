"""Strokes of histograms and colours of features."""

import math

import pytest
import torch
from clip_files import save_model_key, tower
from mmpretrain.registry import MODELS
from samples import tiny_model

from mim_plugins.models.masking import PatchMask
from mim_plugins.models.targets import HOGTarget
from mim_plugins.visualization import (
    Components,
    Drawing,
    ReconstructionTable,
    draw_levels,
    draw_strokes,
)

HOG = dict(type="HOGTarget", cell_size=8)


def edge(angle: float, size: int = 48) -> torch.Tensor:
    """Black on one side of a line through the centre, whose slope is an angle up."""
    place = torch.arange(size) - (size - 1) / 2
    across = place * math.sin(angle) + place[:, None] * math.cos(angle)
    return across.sigmoid()[None, None]


@pytest.mark.parametrize("degrees", [10, 30, 50, 70, 110, 130, 150, 170])
def test_strokes__run_along_the_edges(degrees):
    # Bins are 20 degrees wide; the middle of each is drawn.
    angle = math.radians(degrees)
    histograms = HOGTarget(cell_size=48).histograms(edge(angle))[0]
    picture = (draw_strokes(histograms, 9, 63)[0, 0] + 1) / 2
    assert picture.shape == (63, 63) and 0 <= picture.min() < picture.max() <= 1
    rows, cols = torch.where(picture > 0.9 * picture.max())
    rise, run = -(rows - 31.0), cols - 31.0
    # The principal direction of the brightest pixels.
    found = 0.5 * math.atan2(
        float(2 * (rise * run).sum()), float((run**2 - rise**2).sum())
    )
    error = (math.degrees(found) - degrees + 90) % 180 - 90
    assert abs(error) < 4


def test_strokes__have_the_colours_of_the_channels():
    bins = torch.zeros(1, 1, 2, 3, 9)
    bins[0, 0, 0, 0, 4], bins[0, 0, 1, :, 2] = 1.0, 0.5
    picture = draw_strokes(bins.flatten(3), 9, 16)
    assert picture.shape == (1, 3, 16, 32)
    red, grey = picture[0, :, :, :16], picture[0, :, :, 16:]
    assert red[0].max() == 1 and (red[1:] == -1).all()
    assert torch.equal(grey[0], grey[1]) and grey.max() == 0
    assert draw_strokes(bins[:, :, :, :1].flatten(3), 9, 16).shape[1] == 1


def test_components__are_those_of_the_largest_variance():
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(20, 20, generator=generator)).Q[:3]
    values = torch.randn(500, 3, generator=generator) * torch.tensor([9.0, 4.0, 2.0])
    noise = 0.1 * torch.randn(500, 20, generator=generator)
    features = values @ axes + noise + 5
    found = Components(features)
    for ours, axis in zip(found.axes, axes, strict=True):
        assert abs(float(ours @ axis)) > 0.99
    assert 0.99 < found.explained < 1
    picture = found(features.view(1, 20, 25, 20))
    assert picture.shape == (1, 3, 20, 25)
    # One percent at either end is darker than black or brighter than white.
    assert ((picture.abs() > 1).float().mean() - 0.02).abs() < 0.005
    # The same features have the same colours, whatever is next to them.
    alone = found(features[:25].view(1, 1, 25, 20))
    assert torch.allclose(alone, picture[:, :, :1], atol=1e-4)
    assert torch.equal(Components(features).axes, found.axes)
    assert Components(torch.ones(7, 2))(torch.ones(1, 2, 2, 2)).isfinite().all()


def drawn(cfg: dict, perfect: bool = False):
    """A model's drawings of two images; perfect: as if it predicted the targets."""
    model = MODELS.build(cfg)
    model.eval()
    inputs = torch.randn(2, 3, 32, 32)
    result = model.reconstruct(inputs)
    if perfect:
        upper = (torch.arange(16) < 8).float().expand(2, -1)
        halves = [
            model.target_generator(inputs, PatchMask.from_mask(mask, (4, 4)))
            for mask in (upper, 1 - upper)
        ]
        result["predictions"] = [
            torch.cat([above.values, below.values], dim=1)
            for above, below in zip(*halves, strict=True)
        ]
    levels, notes = draw_levels(model, inputs, result)
    assert list(levels) == model.level_names
    table = ReconstructionTable(model, inputs, result)
    return levels, notes, table


def test_hog__is_drawn_next_to_its_target():
    cfg = tiny_model()
    cfg["target_generator"] = [HOG, dict(HOG, cell_size=4), HOG]
    levels, notes, table = drawn(cfg, perfect=True)
    for level in levels.values():
        # Cells of 4 pixels are drawn twice as large.
        assert level.prediction.shape == (2, 3, 64, 64)
        assert torch.allclose(level.prediction, level.target, atol=1e-6)
    first, second, third = levels.values()
    assert first.target is third.target and first.target is not second.target
    assert len(notes) == 1 and notes[0].startswith("HOG")
    # Original, masked, two targets, three predictions, pasted; 128 pixels each.
    assert table.draw().shape[1] == 4 + 8 * 132
    lines = table.draw(max_columns=4)
    assert lines.shape[1] == 4 + 4 * 132
    frames = table.frames()
    assert len(frames) == 3 and len({frame.shape for frame in frames}) == 1


def test_features__are_drawn_in_the_colours_of_their_target(tmp_path):
    clip = dict(type="CLIPTarget", checkpoint=str(save_model_key(tower(), tmp_path)))
    cfg = tiny_model(head=dict(criterion=["cosine", "cosine", "L2"]))
    cfg["target_generator"] = [clip, clip, dict(type="PixelTarget")]
    levels, notes, _ = drawn(cfg)
    first, second, third = levels.values()
    assert isinstance(third, torch.Tensor)
    assert first.target is second.target and first.target.shape == (2, 3, 32, 32)
    assert "block 2" not in notes[0] and "of the target" in notes[0]
    # A patch has one colour.
    patches = first.prediction.unfold(2, 8, 8).unfold(3, 8, 8)
    assert (patches == patches[..., :1, :1]).all()


def test_missing_teacher__leaves_the_predictions():
    clip = dict(type="CLIPTarget", checkpoint="missing.pt", dims=24)
    cfg = tiny_model()
    cfg["target_generator"] = clip
    levels, notes, table = drawn(cfg)
    assert all(level.target is None for level in levels.values())
    assert "lack of a teacher" in notes[0] and "missing.pt" in notes[0]
    assert "prediction of removed patches" in notes[1] and "block 2" in notes[1]
    # Original, masked, three predictions.
    assert table.draw().shape[1] == 4 + 5 * 132


def test_residual__is_the_difference_of_pictures():
    cfg = tiny_model(
        taps=(0, 1, 2),
        backbone=dict(tap_embedding=True),
        neck=dict(type="MIRLDecoder"),
        head=dict(type="ResidualPairHead"),
    )
    cfg |= dict(type="MIRL", target_generator=HOG)
    levels, _, table = drawn(cfg)
    main, rest, total = (levels[k] for k in ("main 1", "residual 4", "sum 1+4"))
    assert torch.equal(rest.prediction, total.prediction - main.prediction)
    assert main.target is rest.target is None and total.target is not None
    assert levels["sum 2+3"].target is total.target
    assert all(isinstance(level, Drawing) for level in levels.values())
    # Original, masked, target, six parts, pasted.
    assert table.draw().shape[1] == 4 + 10 * 132
