"""LocalMIM: each depth of the encoder reconstructs at a scale of its own."""

from __future__ import annotations

from collections.abc import Sequence

from mmpretrain.registry import MODELS

from ..necks import MultiScaleDecoder
from ..protocols import MaskedEncoder, NeckPlan
from .base import MaskedImageModel


@MODELS.register_module()
class LocalMIM(MaskedImageModel):
    """Masked image modelling with local reconstruction at several scales.

    Shallow levels of the encoder reconstruct a fine grid of cells, deep ones a coarse
    grid. What the paper adds to the shared algorithm is in the config:
    ``backbone.taps`` names the supervised blocks or stages, the neck is a
    ``MultiScaleDecoder``, and targets without a ``cell_size`` get one per level: the
    patch of the mask over the level's scale, one of ``scales``.

    References:
        - Masked Image Modeling with Local Multi-Scale Reconstruction, 2023,
          https://arxiv.org/abs/2303.05251, section 3
    """

    @staticmethod
    def default_scales(
        plan: NeckPlan, encoder: MaskedEncoder
    ) -> Sequence[float] | None:
        """LocalMIM's, of any neck: one that cannot predict them is refused."""
        return MultiScaleDecoder.plan(encoder).target_scales
