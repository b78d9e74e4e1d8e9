"""k-NN accuracy: features of labelled data sets, and their weighted k-NN classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import all_gather, get_world_size
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from ..models.selfsup.base import MaskedImageModel

# The largest chunk of similarities: 2**27 float32 values are 512 MiB.
_MAX_SIMILARITIES = 2**27


def knn_predict(
    features: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    chunk_size: int | None = None,
) -> Tensor:
    """Predict classes by a weighted vote of the most similar known features.

    The protocol is that of "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination" (2018, https://arxiv.org/abs/1805.01978, section 3.4), used by DINO
    as well: cosine similarity, the ``k`` nearest neighbours, each voting for its class
    with weight exp(similarity / temperature).

    Args:
        features: Features to classify, (N, C).
        bank: Features with known classes, (M, C), on the same device.
        bank_labels: Their classes, (M,), int64.
        k: Number of neighbours that vote; no more than M of them do.
        temperature: The lower, the more the nearest ones count.
        chunk_size: Rows of ``features`` compared at once; None chooses it so that the
            similarities take at most 512 MiB.

    Returns:
        The predicted classes, (N,), int64.

    Raises:
        ValueError: If the bank is empty, the shapes do not fit, or ``k`` or
            ``temperature`` is not positive.
    """
    if k < 1 or temperature <= 0:
        raise ValueError(
            "knn_predict: k must be at least 1 and temperature above 0, but got "
            f"k={k} and temperature={temperature}."
        )
    if bank.dim() != 2 or not len(bank) or features.shape[1:] != bank.shape[1:]:
        raise ValueError(
            "knn_predict: features (N, C) are compared with a bank (M, C), M > 0, but "
            f"got {tuple(features.shape)} and {tuple(bank.shape)}."
        )
    if bank_labels.shape != bank.shape[:1]:
        raise ValueError(
            f"knn_predict: {len(bank)} known features need as many labels, but got "
            f"labels of shape {tuple(bank_labels.shape)}."
        )
    k = min(k, len(bank))
    num_classes = int(bank_labels.max()) + 1
    bank = F.normalize(bank.float(), dim=1).T.contiguous()  # (C, M)
    if chunk_size is None:
        chunk_size = max(1, _MAX_SIMILARITIES // bank.shape[1])
    predictions = [torch.empty(0, dtype=torch.int64, device=features.device)]
    for rows in features.split(chunk_size):
        similarities = F.normalize(rows.float(), dim=1) @ bank  # (n, M)
        nearest, indices = similarities.topk(k, dim=1)  # (n, k)
        votes = torch.zeros(len(rows), num_classes, device=rows.device)
        # Similarities are at most 1: subtracting it leaves the vote as it is and keeps
        # a small temperature from overflowing.
        weights = ((nearest - 1) / temperature).exp()
        votes.scatter_add_(1, bank_labels[indices], weights)
        predictions.append(votes.argmax(dim=1))
    return torch.cat(predictions)


def extract_features(
    model: MaskedImageModel, loader: DataLoader
) -> tuple[Tensor, Tensor]:
    """Compute the k-NN feature of every image of a labelled data set.

    The feature is the mean of the patch tokens of the encoder without masking,
    ``model.patch_mean``. In a distributed run every process encodes the samples of its
    sampler, and all of them get all features.

    Args:
        model: A masked image model in evaluation mode, without distributed wrapper.
        loader: Batches ``dict(inputs=…, data_samples=[DataSample, …])``, read in order
            by mmengine's ``DefaultSampler`` without shuffling.

    Returns:
        Features (N, C), float32, and labels (N,), int64, on the model's device, in the
        order of the data set, without samples that replace unreadable images.

    Raises:
        ValueError: If a sample has no label.
    """
    features, labels = [], []
    for batch in loader:
        labels.append(labels_of(batch["data_samples"]))
        inputs = model.data_preprocessor(batch, False)["inputs"]
        features.append(model.patch_mean(inputs).float())
    if not features:
        raise ValueError(
            "The data set for the k-NN accuracy is empty; check the data_root and "
            "ann_file of KNNHook's data loaders."
        )
    total = len(loader.dataset)  # type: ignore[arg-type]  # torch leaves len open
    gathered = in_order(torch.cat(features), total)
    classes = in_order(torch.cat(labels).to(gathered.device), total)
    return gathered[classes >= 0], classes[classes >= 0]


def labels_of(data_samples: Any, hook: str = "KNNHook") -> Tensor:
    """Return the labels of a batch, (N,), -1 for replacements of unreadable images.

    Args:
        data_samples: Data samples of a batch.
        hook: Name of the hook that needs them, for the message.

    Raises:
        ValueError: If a sample has no label.
    """
    samples: Sequence = data_samples if isinstance(data_samples, Sequence) else ()
    if not samples or any("gt_label" not in sample for sample in samples):
        raise ValueError(
            f"{hook} needs labelled images, but got samples without 'gt_label'; its "
            "data loaders take any labelled mmpretrain data set with PackInputs as the "
            "last transform."
        )
    labels = torch.cat([sample.gt_label for sample in samples]).long()
    replaced = [bool(sample.get("replaced", 0)) for sample in samples]
    return labels.masked_fill(torch.tensor(replaced, device=labels.device), -1)


def in_order(local: Tensor, total: int) -> Tensor:
    """Gathers all processes' samples and drops the padding of the sampler.

    Args:
        local: Those of this process, of mmengine's ``DefaultSampler``, (n, ...).
        total: How many there are, N.

    Returns:
        All samples in the order of the data set, (N, ...).
    """
    if get_world_size() == 1:
        return local[:total]
    # Process r reads samples r, r + W, r + 2 W, …, so stacking the parts along a
    # new second axis restores the order.
    parts = torch.stack(all_gather(local.contiguous()), dim=1)
    return parts.flatten(0, 1)[:total]
