"""How well the features of a layer separate classes: k-NN and a linear probe."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..evaluation.knn import knn_predict


def knn_accuracy(
    train: Tensor, train_labels: Tensor, val: Tensor, val_labels: Tensor
) -> float:
    """Accuracy in percent of the weighted k-NN vote (k = 20, temperature 0.07).

    Args:
        train: Features with known classes, (M, C).
        train_labels: Their classes, (M,).
        val: Features to classify, (N, C).
        val_labels: Their classes, (N,).
    """
    predicted = knn_predict(val, train, train_labels)
    return 100 * (predicted == val_labels).double().mean().item()


def linear_accuracy(
    train: Tensor,
    train_labels: Tensor,
    val: Tensor,
    val_labels: Tensor,
    steps: int = 200,
    weight_decay: float = 1e-4,
) -> float:
    """Accuracy in percent of a linear classifier on standardised features.

    Features are standardised by the mean and deviation of the training images, the
    affine-free batch norm of MAE's linear probe; the classifier is then fitted to all
    of them by L-BFGS, which needs neither a learning rate nor a seed. The published
    linear probes train for 90 epochs of augmented crops instead.

    Args:
        train: Features with known classes, (M, C).
        train_labels: Their classes, (M,).
        val: Features to classify, (N, C).
        val_labels: Their classes, (N,).
        steps: Largest number of L-BFGS iterations.
        weight_decay: On the weights, without the bias.
    """
    mean, std = train.mean(dim=0), train.std(dim=0).clamp_min(1e-6)
    train, val = (train - mean) / std, (val - mean) / std
    classes = int(max(train_labels.max(), val_labels.max())) + 1
    linear = nn.Linear(train.shape[1], classes, device=train.device)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimizer = torch.optim.LBFGS(
        linear.parameters(), max_iter=steps, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(linear(train), train_labels)
        loss = loss + weight_decay / 2 * linear.weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    with torch.no_grad():
        predicted = linear(val).argmax(dim=1)
    return 100 * (predicted == val_labels).double().mean().item()
