"""Image classification with checkpoints in any layout."""

from __future__ import annotations

from typing import Any

from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS

from ...checkpoints.loading import convert_when_loaded


@MODELS.register_module()
class MIMImageClassifier(ImageClassifier):
    """mmpretrain's ``ImageClassifier``, which converts official files on load.

    ``get_model(NAME, pretrained=FILE)`` and ``load_checkpoint`` give it a file as it
    is: ours, or one of official code, of which encoder and head are taken.

    Args:
        **kwargs: As mmpretrain's ``ImageClassifier``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        convert_when_loaded(self)
