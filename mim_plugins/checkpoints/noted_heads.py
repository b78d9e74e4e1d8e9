"""Says in a state dict how many attention heads its weights were trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Entry of a module's metadata in a state dict, which torch.save keeps.
NUM_HEADS = "num_heads"

# What wrappers put into names.
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")


class NotedHeads:
    """A transformer whose state dict notes its heads, which no tensor's shape tells.

    With another number every tensor fits, and every output is wrong.
    """

    layers: Any

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Notes the heads beside the weights, of a Hiera those of its first stage."""
        super()._save_to_state_dict(  # type: ignore[misc]  # beside a module
            destination, prefix, keep_vars
        )
        if hasattr(destination, "_metadata"):
            metadata = destination._metadata[prefix[:-1]]
            metadata[NUM_HEADS] = self.layers[0].attn.num_heads


def noted_heads(content: Mapping[str, Any], prefix: str | None = None) -> int | None:
    """The attention heads a checkpoint's encoder was trained with, if it says.

    Args:
        content: A checkpoint of mmengine, or a state dict, of a model or an encoder.
        prefix: Of the keys of the encoder, where it is another than ``'backbone.'``.
    """
    metadata = getattr(content.get("state_dict", content), "_metadata", {})
    entries = {}
    for name, entry in metadata.items():
        bare = f"{name}."
        for wrapper in _WRAPPERS:
            bare = bare.replace(wrapper, "")
        entries[bare.rstrip(".")] = entry
    names = ("backbone", "") if prefix is None else (prefix.rstrip("."),)
    heads = (entries.get(name, {}).get(NUM_HEADS) for name in names)
    return next((number for number in heads if isinstance(number, int)), None)
