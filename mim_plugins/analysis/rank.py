"""How many directions features use, which needs no labels."""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = 1e-7


def rankme(features: Tensor) -> float:
    """RankMe: the effective rank of features, between 1 and min(N, C).

    exp of the entropy of the normalised singular values: "RankMe: Assessing the
    Downstream Performance of Pretrained Self-Supervised Representations by Their Rank"
    (2022, https://arxiv.org/abs/2210.02885, equation 1). Features are not centred.

    Args:
        features: (N, C), one row per image.
    """
    return _effective_rank(torch.linalg.svdvals(features.double()))


def alpha_req(features: Tensor) -> float:
    """α-ReQ: how fast the eigenvalues of the features' covariance decay.

    The exponent of the power law ``λ_i ~ i^-α``, by least squares over the logarithms:
    "α-ReQ: Assessing Representation Quality in Self-Supervised Learning by Measuring
    Eigenspectrum Decay" (2022, https://openreview.net/forum?id=ii9X4vtZGTZ). 0 is an
    equal use of all directions; good features are reported near 1.

    Args:
        features: (N, C), one row per image.

    Returns:
        α; NaN if fewer than two eigenvalues differ from zero.
    """
    centred = features.double() - features.double().mean(dim=0)
    values = torch.linalg.svdvals(centred).square()
    values = values[values > _EPS * values[:1]]
    if len(values) < 2:
        return float("nan")
    x = torch.arange(
        1, len(values) + 1, dtype=torch.float64, device=values.device
    ).log()
    x = x - x.mean()
    return -((x @ values.log()) / x.square().sum()).item()


def lidar(features: Tensor, delta: float = 1e-4) -> float:
    """LiDAR: the effective rank of what tells images apart from their own views.

    The rank of the linear discriminant between images whose classes are the images:
    "LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL Architectures"
    (2023, https://arxiv.org/abs/2312.04000, section 4).

    Args:
        features: (N, views, C), at least two images and two views of each.
        delta: Added to the diagonal of the scatter within images.

    Returns:
        Between 1 and min(N - 1, C).
    """
    features = features.double()
    images, views, width = features.shape
    centres = features.mean(dim=1)
    between = centres - centres.mean(dim=0)
    within = (features - centres[:, None]).flatten(0, 1)
    scatter = within.T @ within / (images * (views - 1))
    scatter += delta * torch.eye(width, dtype=torch.float64, device=features.device)
    values, vectors = torch.linalg.eigh(scatter)
    whitened = between @ (vectors / values.sqrt())
    eigenvalues = torch.linalg.svdvals(whitened).square()
    return _effective_rank(eigenvalues)


def feature_std(features: Tensor) -> float:
    """Standard deviation of normalised features over images, mean of the dimensions.

    ``1 / sqrt(C)`` where directions are spread evenly, 0 where all features are the
    same (collapse): "Exploring Simple Siamese Representation Learning" (2020,
    https://arxiv.org/abs/2011.10566, section 4.1).

    Args:
        features: (N, C), N > 1.
    """
    directions = torch.nn.functional.normalize(features.double(), dim=1)
    return directions.std(dim=0, correction=0).mean().item()


def _effective_rank(values: Tensor) -> float:
    """Exp of the entropy of values that are normalised to a sum of one."""
    total = values.sum()
    if total == 0:
        return 0.0
    return torch.special.entr(values / total).sum().exp().item()
