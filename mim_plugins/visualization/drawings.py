"""Pictures of what is no pixels: strokes of histograms, colours of features."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.masking import PatchMask
from ..models.targets import LevelTarget, Target
from ..models.targets.cells import cells_on_grid
from ..models.targets.hog import HOGTarget
from ..models.targets.teacher import AbsentTeacher

if TYPE_CHECKING:
    from ..models.selfsup.base import MaskedImageModel

# Side in pixels below which the strokes of a cell cannot be told apart.
_MIN_STROKE = 8

_STROKES = (
    "HOG: each cell has a stroke along the edges of every orientation, as bright as "
    "its bin, in red, green and blue for the channels; as every cell has norm 1, flat "
    "ones have bright strokes, too."
)


class Drawing(NamedTuple):
    """Pictures of a level that predicts no pixels, from -1 (black) to 1 (white).

    Args:
        prediction: (N, 1 or 3, H, W), an integer multiple of the images' size.
        target: What it should be, likewise; None where that is not known, or where the
            level is not compared with a target by itself.
    """

    prediction: Tensor
    target: Tensor | None = None


class Components:
    """The first three principal components of features, as red, green and blue.

    Each component runs from black to white over the values it has in the features,
    except the lowest and highest percent, so that whatever else is drawn with the same
    components can be compared with them.

    Args:
        features: (M, D), at least one.
    """

    def __init__(self, features: Tensor) -> None:
        features = features.float()
        self.mean = features.mean(dim=0)
        centred = features - self.mean
        _, strengths, axes = torch.linalg.svd(centred, full_matrices=False)
        axes = axes[:3]
        # The sign of an axis is arbitrary: its largest element is positive.
        largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
        axes = axes * largest.sign()
        self.axes = F.pad(axes, (0, 0, 0, 3 - len(axes)))
        power = strengths.square()
        self.explained = float(power[:3].sum() / power.sum().clamp(min=1e-12))
        values = centred @ self.axes.T  # (M, 3)
        ends = torch.tensor([0.01, 0.99], device=values.device)
        self.low, high = torch.quantile(values, ends, dim=0)
        self.span = (high - self.low).clamp(min=1e-6)

    def __call__(self, features: Tensor) -> Tensor:
        """Features (N, rows, cols, D) as colours (N, 3, rows, cols), about -1 to 1."""
        values = (features.float() - self.mean) @ self.axes.T
        return (2 * (values - self.low) / self.span - 1).permute(0, 3, 1, 2)


def draw_strokes(histograms: Tensor, nbins: int, side: int) -> Tensor:
    """Draws histograms of oriented gradients.

    Args:
        histograms: Of each cell, ordered by channel, then bin, (N, rows, cols, C *
            nbins).
        nbins: Bins over half a turn, of the angle whose tangent is the horizontal over
            the vertical gradient.
        side: Side of a cell in the picture, in pixels.

    Returns:
        (N, 1 or 3, rows * side, cols * side), from -1 to 1; of more than three channels
        the first three.
    """
    bins = histograms.float().unflatten(-1, (-1, nbins))
    bins = bins[..., : 3 if bins.shape[-2] >= 3 else 1, :]
    n, rows, cols, channels, _ = bins.shape
    angles = (torch.arange(nbins, device=bins.device) + 0.5) * (torch.pi / nbins)
    place = torch.arange(side, device=bins.device) - (side - 1) / 2
    # An edge runs across its gradient: the distance from the stroke is along it.
    along = place * angles.sin()[:, None]
    distance = (place[:, None] * angles.cos()[:, None, None] + along[:, None]).abs()
    inside = place[:, None].square() + place.square() <= (side / 2) ** 2
    stamps = (1.5 - distance).clamp(0, 1) * inside  # (nbins, side, side)
    drawn = bins.new_zeros(n, channels, rows, side, cols, side)
    for index, stamp in enumerate(stamps):
        value = bins[..., index].permute(0, 3, 1, 2)[:, :, :, None, :, None]
        drawn = torch.maximum(drawn, value * stamp[:, None, :])
    return 2 * drawn.reshape(n, channels, rows * side, cols * side).clamp(0, 1) - 1


@torch.no_grad()
def draw_levels(
    model: MaskedImageModel, inputs: Tensor, result: dict[str, Any]
) -> tuple[dict[str, Tensor | Drawing], list[str]]:
    """A picture of every level, whatever it predicts.

    Histograms of oriented gradients are drawn as strokes, features by the first three
    principal components of the target, or of the prediction where the file of the
    teacher is missing.

    Args:
        model: The model.
        inputs: Normalised images, (N, C, H, W).
        result: What :meth:`MaskedImageModel.reconstruct` has made of them.

    Returns:
        By caption, images in the space of the inputs, where pixels are predicted, and
        drawings; and sentences that say how to read the latter.
    """
    names, pixels, mask = model.level_names, result["levels"], result["mask"]
    if all(level is not None for level in pixels):
        return dict(zip(names, pixels, strict=True)), []
    # Pictures of a target: one, or main part, residual and their sum, which is compared
    # with it.
    parts = len(names) // len(model.target_specs)
    others = sorted({i // parts for i, level in enumerate(pixels) if level is None})
    predictions = [prediction.float() for prediction in result["predictions"]]
    compared = model.arrange(predictions, list)[parts - 1 :: parts]
    painters = {level: _Painter(model, level, inputs, mask) for level in others}
    # Small strokes are drawn larger, and all other pictures with them.
    zoom = max(painter.zoom for painter in painters.values())
    targets, notes = _targets({i: painters[i].owner for i in others}, inputs, mask)
    for level, painter in painters.items():
        prediction = compared[level]
        assert prediction is not None
        painter.fit(targets[level], prediction)
    captions = names[parts - 1 :: parts]
    notes += _how_to_read({captions[i]: painters[i] for i in others}, targets.values())

    def draw(values: Sequence[Tensor | None]) -> list[Tensor | None]:
        return [
            painters[level].draw(value, zoom)
            if level in painters and value is not None
            else None
            for level, value in enumerate(values)
        ]

    pictures = model.arrange(predictions, draw)
    levels: dict[str, Tensor | Drawing] = {}
    shown: dict[int, Tensor | None] = {}
    for index, (name, level) in enumerate(zip(names, pixels, strict=True)):
        picture, number = pictures[index], index // parts
        if picture is None:
            assert level is not None
            levels[name] = level
            continue
        target = targets.get(number) if index % parts == parts - 1 else None
        if target is not None and id(target) not in shown:
            # Levels with one target share its picture.
            shown[id(target)] = painters[number].draw(target, zoom)
        levels[name] = Drawing(picture, shown.get(id(target)))
    return levels, notes


class _Painter:
    """Draws the targets and predictions of one level that are no pixels."""

    def __init__(
        self, model: MaskedImageModel, level: int, inputs: Tensor, mask: PatchMask
    ) -> None:
        self.owner = model.target_generator.at_level(level)
        self.scale = model.target_specs[level].scale
        self.mask = mask
        self.size = (inputs.shape[2], inputs.shape[3])
        criterion = model.head.criterion
        if not isinstance(criterion, str):
            criterion = criterion[level]
        # The loss then looks at directions alone, and nothing trains the lengths.
        self.directions = criterion == "cosine"
        self.components: Components | None = None

    @property
    def nbins(self) -> int | None:
        """Orientation bins; None for features."""
        target, _ = self.owner
        return target.nbins if isinstance(target, HOGTarget) else None

    @property
    def side(self) -> int:
        """Side of a cell in pixels of the image."""
        return round(self.size[0] / (self.mask.grid[0] * self.scale))

    @property
    def zoom(self) -> int:
        """How much larger than the image the picture has to be."""
        return 1 if self.nbins is None else max(1, -(-_MIN_STROKE // self.side))

    def fit(self, target: Tensor | None, prediction: Tensor) -> None:
        """Chooses the colours of features.

        Args:
            target: (N, L, width), if it is known.
            prediction: Likewise.
        """
        if self.nbins is not None:
            return
        if target is not None:
            self.components = Components(self._cells(target).flatten(0, 2))
        else:
            removed = self.mask.at_scale(self.scale).flatten() > 0.5
            self.components = Components(self._cells(prediction).flatten(0, 2)[removed])

    def draw(self, values: Tensor, zoom: int) -> Tensor:
        """Values (N, L, width) as a picture ``zoom`` times as large as the images."""
        cells = self._cells(values)
        if self.nbins is not None:
            return draw_strokes(cells, self.nbins, self.side * zoom)
        assert self.components is not None, "fit() comes first"
        size = [side * zoom for side in self.size]
        return F.interpolate(self.components(cells), size=size, mode="nearest")

    def _cells(self, values: Tensor) -> Tensor:
        cells = cells_on_grid(values.float(), self.mask.grid, self.scale)
        direct = self.directions and self.nbins is None
        return F.normalize(cells, dim=-1) if direct else cells


def _how_to_read(
    painters: dict[str, _Painter], targets: Collection[Tensor | None]
) -> list[str]:
    """Sentences on the drawings, by the caption of the level."""
    notes = []
    if any(painter.nbins for painter in painters.values()):
        notes.append(_STROKES)
    for whose, known in (("target", True), ("prediction of removed patches", False)):
        shares = {
            name: f"{painter.components.explained:.0%}"
            for (name, painter), target in zip(painters.items(), targets, strict=True)
            if painter.components is not None and (target is not None) == known
        }
        if shares:
            several = len(set(shares.values())) > 1
            each = ", ".join(f"{name} {share}" for name, share in shares.items())
            notes.append(
                "Features: red, green and blue are the first three principal "
                f"components of the {whose}, with this share of its variance: "
                f"{each if several else next(iter(shares.values()))}."
            )
    return notes


def _targets(
    owners: dict[int, tuple[Target, int]], inputs: Tensor, mask: PatchMask
) -> tuple[dict[int, Tensor | None], list[str]]:
    """The target of every patch at some levels, or None, and why it is missing.

    Levels with one target share a tensor.
    """
    everything = PatchMask.of_nothing_visible(len(inputs), mask.grid, inputs.device)
    known: dict[int, Sequence[LevelTarget]] = {}
    targets: dict[int, Tensor | None] = {}
    notes: dict[str, None] = {}
    for level, (target, own) in owners.items():
        absent = [x for x in target.modules() if isinstance(x, AbsentTeacher)]
        if absent:
            note = f"Targets are left out for lack of a teacher: {absent[0].why}"
            notes[note] = None
            targets[level] = None
            continue
        if id(target) not in known:
            known[id(target)] = target(inputs, everything)
        found = known[id(target)]
        targets[level] = found[min(own, len(found) - 1)].values
    return targets, list(notes)
