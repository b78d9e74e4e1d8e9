"""Features and labels of a whole data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import all_gather, get_world_size
from torch import Tensor
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from ..models.selfsup.base import MaskedImageModel


def extract_features(
    model: MaskedImageModel, loader: DataLoader
) -> tuple[Tensor, Tensor]:
    """Compute the k-NN feature of every image of a labelled data set.

    The feature is the mean of the unmasked encoder's patch tokens,
    ``model.patch_mean``. In a distributed run every process computes the part its
    sampler gives it, and all of them receive everything.

    Args:
        model: A masked image model in evaluation mode, without distributed wrapper.
        loader: Batches ``dict(inputs=…, data_samples=[DataSample, …])``, read in order
            by mmengine's ``DefaultSampler`` without shuffling.

    Returns:
        Features (N, C), float32, and labels (N,), int64, on the model's device, in the
        order of the data set.

    Raises:
        ValueError: If a sample has no label.
    """
    features, labels = [], []
    for batch in loader:
        labels.append(_labels(batch["data_samples"]))
        inputs = model.data_preprocessor(batch, False)["inputs"]
        features.append(model.patch_mean(inputs).float())
    if not features:
        raise ValueError(
            "The data set for the k-NN accuracy is empty; check the data_root and "
            "ann_file of KNNHook's data loaders."
        )
    total = len(loader.dataset)  # type: ignore[arg-type]  # torch leaves len open
    gathered = _in_order(torch.cat(features), total)
    return gathered, _in_order(torch.cat(labels).to(gathered.device), total)


def _labels(data_samples: Any) -> Tensor:
    """Return the labels of a batch, (N,)."""
    samples: Sequence = data_samples if isinstance(data_samples, Sequence) else ()
    if not samples or any("gt_label" not in sample for sample in samples):
        raise ValueError(
            "KNNHook needs labelled images, but got samples without 'gt_label'; its "
            "data loaders take any labelled mmpretrain data set with PackInputs as the "
            "last transform."
        )
    return torch.cat([sample.gt_label for sample in samples]).long()


def _in_order(local: Tensor, total: int) -> Tensor:
    """Collect what the processes hold and drop what the sampler added to round up."""
    if get_world_size() == 1:
        return local[:total]
    # Process r reads samples r, r + W, r + 2 W, …, so stacking the parts behind the
    # sample axis restores the order.
    parts = torch.stack(all_gather(local.contiguous()), dim=1)
    return parts.flatten(0, 1)[:total]
