"""What a checkpoint records because it cannot be inferred from the weights.

Entries of a module's metadata in a state dict, which ``torch.save`` keeps.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# Attention heads; of a Hiera those of its first stage.
NUM_HEADS = "num_heads"

# Rows and columns of patches that the position embedding is of.
GRID = "grid"

# Where a pre-trained Swin Transformer took its tokens to be: 'official' or 'correct'.
MERGE_COORDINATES = "merge_coordinates"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageStatistics(NamedTuple):
    """What images are normalised with, channels in RGB order.

    Args:
        mean: Of each channel, for values from 0 to 1.
        std: Standard deviations, likewise.
        recorded: Whether the checkpoint has them; else they are ImageNet's.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    recorded: bool = False


def image_statistics(content: Mapping[str, Any]) -> ImageStatistics:
    """Reads from the config in a run's checkpoint how it normalised images.

    The config is parsed, not executed.

    Args:
        content: Of the file.
    """
    meta = content.get("meta")
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    try:
        tree = ast.parse(text if isinstance(text, str) else "")
    except (SyntaxError, ValueError, RecursionError):
        return ImageStatistics()
    found: dict[str, tuple[float, ...]] = {}
    rgb = True
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
        elif isinstance(node, ast.keyword) and node.arg is not None:
            name, value = node.arg, node.value
        else:
            continue
        if name != "data_preprocessor" or not isinstance(value, ast.Call):
            continue
        for keyword in value.keywords:
            if keyword.arg in ("mean", "std"):
                try:
                    numbers = ast.literal_eval(keyword.value)
                    found[keyword.arg] = tuple(float(x) / 255 for x in numbers)
                except (ValueError, TypeError):
                    return ImageStatistics()
            if keyword.arg in ("to_rgb", "bgr_to_rgb"):
                rgb = bool(getattr(keyword.value, "value", True))
    if len(found) != 2:
        return ImageStatistics()
    step = 1 if rgb else -1
    return ImageStatistics(found["mean"][::step], found["std"][::step], recorded=True)


def recorded_classes(content: Mapping[str, Any]) -> Sequence[str] | None:
    """The names of the classes a checkpoint was trained on, if it has them.

    Args:
        content: Of the file.
    """
    meta = content.get("meta")
    recorded = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    classes = recorded.get("classes") if isinstance(recorded, Mapping) else None
    if not isinstance(classes, Sequence) or isinstance(classes, str):
        return None
    return [str(name) for name in classes]


class RecordsGeometry:
    """A transformer whose state dict records its attention heads and its grid.

    With another number of heads every tensor would fit, and every output be wrong; of
    positions in a row neither their number nor their shape shows the grid: 9 x 16
    patches are as many as 12 x 12.
    """

    layers: Any
    pos_embed: Any
    patch_resolution: Any

    @property
    def position_grid(self) -> tuple[int, int]:
        """Rows and columns of patches that the position embedding is of."""
        rows, cols = self.patch_resolution
        return rows, cols

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Adds them to the metadata next to the module's version."""
        super()._save_to_state_dict(  # type: ignore[misc]  # a mixin of modules
            destination, prefix, keep_vars
        )
        if hasattr(destination, "_metadata"):
            metadata = destination._metadata[prefix[:-1]]
            metadata[NUM_HEADS] = self.layers[0].attn.num_heads
            if f"{prefix}pos_embed" in destination:
                metadata[GRID] = list(self.position_grid)
