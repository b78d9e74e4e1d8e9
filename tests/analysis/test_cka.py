"""CKA: its invariances, and independent arithmetic."""

import pytest
import torch

from mim_plugins.analysis import MinibatchCKA, linear_cka
from mim_plugins.analysis.cka import u_centred_gram
from mim_plugins.analysis.feature_store import FeatureStore


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 6, generator=generator, dtype=torch.float64)


def rotated(features, seed=1):
    generator = torch.Generator().manual_seed(seed)
    width = features.shape[1]
    square = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return features @ torch.linalg.qr(square).Q


def minibatch(first, second, batch_size=10):
    cka = MinibatchCKA(1, 1)
    for x, y in zip(first.split(batch_size), second.split(batch_size), strict=True):
        cka.update([x], [y])
    return cka.compute().item()


def store(features, batch_size=7):
    found = FeatureStore()
    for rows in features.split(batch_size):
        found.append([rows])
    return found


def exact(first, second):
    return linear_cka(store(first), store(second)).item()


@pytest.mark.parametrize("cka", [minibatch, exact])
def test_is_one_for_rotated_and_scaled_features(features, cka):
    assert cka(features, features) == pytest.approx(1, abs=1e-6)
    assert cka(features, 3 * rotated(features)) == pytest.approx(1, abs=1e-5)
    stretched = features * torch.tensor([9.0, 1, 1, 1, 1, 1])
    assert cka(features, stretched) < 0.9


@pytest.mark.parametrize("cka", [minibatch, exact])
def test_is_symmetric(features, cka):
    other = features[:, :4].exp() + 0.5
    assert cka(features, other) == pytest.approx(cka(other, features), abs=1e-6)
    assert cka(features, other + 2) == pytest.approx(cka(features, other), abs=1e-5)


def test_exact_form_equals_gram_matrices_of_all_images(features):
    other = features[:, :3].exp()
    n = len(features)
    centre = torch.eye(n, dtype=torch.float64) - 1 / n
    k, m = (centre @ x @ x.T @ centre for x in (features, other))
    expected = (k * m).sum() / (k.norm() * m.norm())
    assert exact(features, other) == pytest.approx(expected.item(), abs=1e-6)


def test_unbiased_hsic_is_that_of_the_paper(features):
    other = features[:, :3].exp()
    n = len(features)
    k, m = ((x @ x.T).fill_diagonal_(0) for x in (features, other))
    one = torch.ones(n, dtype=torch.float64)
    expected = (k @ m).trace() + (one @ k @ one) * (one @ m @ one) / (n - 1) / (n - 2)
    expected = (expected - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))
    product = (u_centred_gram(features) * u_centred_gram(other)).sum() / (n * (n - 3))
    assert product.item() == pytest.approx(expected.item(), rel=1e-5)


def test_unbiased_form_finds_nothing_alike_in_noise():
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(64, 50, generator=generator) for _ in range(40)]
    cka = MinibatchCKA(1, 1)
    for first, second in zip(noise[::2], noise[1::2], strict=True):
        cka.update([first], [second])
    assert abs(cka.compute().item()) < 0.02
    biased = exact(torch.cat(noise[::2]), torch.cat(noise[1::2]))
    assert biased > 0.02


def test_batches_of_three_are_refused():
    with pytest.raises(ValueError, match="batches of at least 4 images, got 3"):
        MinibatchCKA(1, 1).update([torch.ones(3, 2)], [torch.ones(3, 2)])


def test_exact_form_of_several_layers_reads_them_in_chunks():
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(2500, width, generator=generator) for width in (3, 5, 4)]
    layers[2] = layers[0] @ torch.randn(3, 4, generator=generator) + 0.1 * layers[2]
    features = FeatureStore()
    for start in range(0, 2500, 100):
        features.append([layer[start : start + 100] for layer in layers])
    for index, layer in enumerate(layers):
        assert torch.equal(features.layer(index), layer)
    found = linear_cka(features, features)
    expected = [[exact(x, y) for y in layers] for x in layers]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found[0, 2] > 0.7 > 0.1 > found[0, 1]
