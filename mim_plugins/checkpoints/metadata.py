"""What a checkpoint records because it cannot be inferred from the weights.

Entries of a module's metadata in a state dict, which ``torch.save`` keeps.
"""

from __future__ import annotations

from typing import Any

# Attention heads; of a Hiera those of its first stage.
NUM_HEADS = "num_heads"

# Rows and columns of patches that the position embedding is of.
GRID = "grid"

# Where a pre-trained Swin Transformer took its tokens to be: 'official' or 'correct'.
MERGE_COORDINATES = "merge_coordinates"


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
