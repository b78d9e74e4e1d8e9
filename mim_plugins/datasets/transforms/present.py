"""Transforms of what a sample may lack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.transforms import Compose
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class WherePresent(Compose):
    """Transforms that are applied only to samples with a certain key.

    mmseg's inferencer removes ``LoadAnnotations`` from a test pipeline, its images
    having no labels, but not from inside ``TestTimeAug``. There it is loaded where
    there are labels: ``dict(type="WherePresent", key="seg_map_path", transforms=[…])``.

    Args:
        key: What a sample must have.
        transforms: Configs of the transforms.
    """

    def __init__(self, key: str, transforms: Sequence[dict]) -> None:
        super().__init__(transforms)
        self.key = key

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Applies the transforms, or returns the sample as it is."""
        return super().transform(results) if self.key in results else results
