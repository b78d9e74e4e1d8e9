"""Tests of the weighted nearest-neighbour vote."""

import math

import pytest
import torch
from torch import Tensor

from mim_plugins.evaluation import knn_predict


def naive(features: Tensor, bank: Tensor, labels: Tensor, k: int, t: float) -> Tensor:
    """The definition, one image and one neighbour at a time."""
    predictions = []
    for feature in features:
        similar = [
            (float(feature @ known / feature.norm() / known.norm()), int(label))
            for known, label in zip(bank, labels, strict=True)
        ]
        votes: dict[int, float] = {}
        for similarity, label in sorted(similar, reverse=True)[:k]:
            votes[label] = votes.get(label, 0.0) + math.exp(similarity / t)
        predictions.append(max(votes, key=lambda label: votes[label]))
    return torch.tensor(predictions)


@pytest.mark.parametrize("k, temperature", [(1, 0.07), (5, 0.07), (20, 1.0)])
@pytest.mark.parametrize("chunk_size", [None, 7])
def test_knn_predict__equals_the_definition(
    k: int, temperature: float, chunk_size: int | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(60, 8, generator=generator)
    labels = torch.randint(0, 5, (60,), generator=generator)
    features = torch.randn(25, 8, generator=generator)
    predictions = knn_predict(features, bank, labels, k, temperature, chunk_size)
    expected = naive(features.double(), bank.double(), labels, k, temperature)
    assert predictions.tolist() == expected.tolist()
    assert predictions.unique().numel() > 1


def test_knn_predict__near_neighbours_outvote_many_distant_ones() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.5, 0.9], [0.5, 0.9]])
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([[1.0, 0.05]])
    assert knn_predict(query, bank, labels, k=3, temperature=0.07).item() == 0
    # With equal weights the majority wins.
    assert knn_predict(query, bank, labels, k=3, temperature=1e3).item() == 1


def test_knn_predict__small_temperature_does_not_overflow() -> None:
    bank = torch.eye(3)
    predictions = knn_predict(bank, bank, torch.tensor([0, 1, 2]), 3, 1e-3)
    assert predictions.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(k=0), "k must be at least 1"),
        (dict(temperature=0.0), "temperature above 0"),
        (dict(bank=torch.empty(0, 4), bank_labels=torch.empty(0).long()), "M > 0"),
        (dict(features=torch.ones(2, 5)), r"\(2, 5\)"),
        (dict(bank_labels=torch.zeros(2).long()), "as many labels"),
    ],
)
def test_knn_predict__wrong_input_is_named(arguments: dict, message: str) -> None:
    good = dict(
        features=torch.ones(2, 4), bank=torch.ones(3, 4), bank_labels=torch.arange(3)
    )
    with pytest.raises(ValueError, match=message):
        knn_predict(**{**good, **arguments})
