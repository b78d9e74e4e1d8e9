"""What a checkpoint records because it cannot be inferred from the weights.

Entries of a module's metadata in a state dict, which ``torch.save`` keeps.
"""

from __future__ import annotations

from typing import Any

# Attention heads; of a Hiera those of its first stage.
NUM_HEADS = "num_heads"

# Where a pre-trained Swin Transformer took its tokens to be: 'official' or 'correct'.
MERGE_COORDINATES = "merge_coordinates"


class RecordsNumHeads:
    """A transformer whose state dict records its number of attention heads.

    With another number every tensor would fit, and every output be wrong.
    """

    layers: Any

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Adds the number to the metadata next to the module's version."""
        super()._save_to_state_dict(  # type: ignore[misc]  # a mixin of modules
            destination, prefix, keep_vars
        )
        if hasattr(destination, "_metadata"):
            metadata = destination._metadata[prefix[:-1]]
            metadata[NUM_HEADS] = self.layers[0].attn.num_heads
