"""DeepMIM: masked image modelling with deep supervision."""

from mmpretrain.registry import MODELS

from .base import MaskedImageModel


@MODELS.register_module()
class DeepMIM(MaskedImageModel):
    """Masked image modelling with deep supervision of intermediate blocks.

    Each tapped block of the encoder, and the last one, gets a lightweight decoder of
    its own that solves the same masked reconstruction task; the losses are added.
    What the paper adds to the shared algorithm is in the config:
    ``backbone.taps`` names the supervised blocks, the neck holds one decoder for
    each.

    References:
        - DeepMIM: Deep Supervision for Masked Image Modeling, 2023,
          https://arxiv.org/abs/2303.08817, section 3

    Note:
        The released code supervises CLIP features only; the pixel model follows the
        paper and the official MAE.
    """
