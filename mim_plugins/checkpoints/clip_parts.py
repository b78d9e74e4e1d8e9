"""What a CLIP has beside the encoder of its image tower."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .report import listed

# What stands beside the image tower: the text tower, the projections into the common
# space, and mere counts.
_BESIDE_TOWER = re.compile(
    r"(text|text_model|transformer|ln_final|token_embedding)\..+"
    r"|positional_embedding|text_projection(\.weight|\.bias)?|visual_projection\.weight"
    r"|logit_(scale|bias)|input_resolution|context_length|vocab_size|attn_mask"
)


def beside_tower(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What a CLIP has beside its image tower's encoder, and why it is left out.

    Args:
        tensors: Those of a whole CLIP, or of its image tower.

    Raises:
        KeyError: If a key is of no part of a CLIP that is known.
    """
    place = next((k for k in tensors if k.endswith("class_embedding")), "")
    tower = place.removesuffix("class_embedding").removesuffix("embeddings.")
    parent = re.sub(r"(visual|vision_model)\.$", "", tower)
    left, unknown = {}, []
    for key in tensors:
        if key in (f"{tower}proj", f"{parent}visual_projection.weight"):
            left[key] = "the projection into the space of texts"
        elif key.endswith("position_ids"):
            left[key] = "a mere count"
        elif key.startswith(tower):
            continue
        elif key.startswith(parent) and _BESIDE_TOWER.fullmatch(key[len(parent) :]):
            left[key] = "of the text tower, or a mere count"
        else:
            unknown.append(key)
    if unknown:
        raise KeyError(
            f"{len(unknown)} keys are of no part of a CLIP: {listed(unknown, 6)}"
        )
    return left
