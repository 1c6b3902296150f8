"""Proxy-NCA: several proxies a product, and sampled proxies; the rest is in the property grid."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.losses.watch import assert_same_gradients
from univert.losses.proxy_nca_loss import ProxyNCALoss, proxy_nca_loss, sample_proxies
from univert.proxies import StaticAssignment

FORMS = pytest.mark.parametrize("form", ["softmax", "paper"])


def drawn(rows: int, proxies: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, proxies and labels."""
    generator = torch.Generator().manual_seed(0)
    x, p = torch.randn(rows, size, generator=generator), torch.randn(proxies, size, generator=generator) * 2
    return x, p, torch.randint(proxies, (rows,), generator=generator)


def test_sampled_negatives_stand_for_all() -> None:
    """exp of the sampled log-sum has the full sum as its mean."""
    x, _, labels = drawn(5, 40, 4)
    loss = ProxyNCALoss(40, 4, 2.0, negatives=10, form="paper", seed=0)
    exact = loss.eval()(x[:1], labels[:1]).exp()
    torch.manual_seed(0)
    loss.train()
    sampled = torch.stack([loss(x[:1], labels[:1]).exp() for _ in range(400)])
    error = sampled.std() / len(sampled) ** 0.5
    assert abs(sampled.mean() - exact) < 4 * error
    assert sampled.std() > 0


@FORMS
def test_a_weight_of_two_is_a_proxy_there_twice(form: Any) -> None:
    x, p, _ = drawn(5, 6, 3)
    own = torch.arange(5)[:, None] % 4  # the last two proxies are nobody's own
    weights = torch.tensor([1.0, 1, 1, 1, 2, 3]).log()
    assert_same_gradients(
        lambda x, p: proxy_nca_loss(x, p, own, log_weights=weights, form=form, scale=0.5),
        lambda x, p: proxy_nca_loss(x, p[[0, 1, 2, 3, 4, 4, 5, 5, 5]], own, form=form, scale=0.5),
        x,
        p,
    )


@FORMS
@pytest.mark.parametrize("negatives", [36, 1000])
def test_enough_negatives_are_the_whole_sum(form: Any, negatives: int) -> None:
    x, _, labels = drawn(5, 40, 4)
    assignment = StaticAssignment.several(20, 2)
    loss = ProxyNCALoss(20, 4, form=form, assignment=assignment, negatives=negatives, seed=0)
    torch.testing.assert_close(loss(x, labels % 20), loss.eval()(x, labels % 20))


@given(count=st.integers(2, 300), negatives=st.integers(1, 40), rows=st.integers(0, 6), seed=st.integers(0, 99))
def test_samples_hold_each_proxy_once_and_the_own_ones(count: int, negatives: int, rows: int, seed: int) -> None:
    torch.manual_seed(seed)
    own_BM = torch.randint(count, (rows, 2))
    sampled, position, log_weights = sample_proxies(own_BM, count, negatives)
    assert len(sampled.unique()) == len(sampled) == len(log_weights)
    assert torch.equal(sampled[position], own_BM)
    assert 0 <= int(sampled.min()) <= int(sampled.max()) < count
    owned = len(own_BM.unique())
    assert log_weights.exp().sum().item() == pytest.approx(count, rel=1e-5)
    assert len(sampled) - owned == min(max(negatives, 2 - owned), count - owned)


def test_samples_are_uniform_and_follow_the_seed() -> None:
    torch.manual_seed(0)
    own_BM = torch.tensor([[3], [7]])
    counts = torch.zeros(50)
    for _ in range(3000):
        counts[sample_proxies(own_BM, 50, 5)[0]] += 1
    assert counts[own_BM].eq(3000).all()
    others = counts[[i for i in range(50) if i not in (3, 7)]]
    expected = 3000 * 5 / 48
    assert ((others - expected).abs() < 5 * math.sqrt(expected)).all()
    samples = []
    for _ in range(2):
        torch.manual_seed(1)
        samples.append(sample_proxies(own_BM, 50, 5)[0])
    assert torch.equal(*samples)


def test_a_sparse_step_touches_only_what_was_sampled() -> None:
    x, _, labels = drawn(5, 1000, 4)
    loss = ProxyNCALoss(1000, 4, negatives=20, sparse=True, seed=0)
    start = loss.bank.proxies.detach().clone()
    optimiser = torch.optim.SparseAdam(loss.parameters(), lr=0.1)
    loss(x, labels).backward()
    grad = loss.bank.proxies.grad
    assert grad.is_sparse
    touched = grad.coalesce().indices().flatten()
    assert len(touched) == len(labels.unique()) + 20
    optimiser.step()
    moved = (loss.bank.proxies.detach() != start).any(1).nonzero().flatten()
    assert torch.equal(moved, touched)
    assert torch.equal(optimiser.state[loss.bank.proxies]["exp_avg_sq"].any(1).nonzero().flatten(), touched)
    assert loss(torch.empty(0, 4), torch.empty(0, dtype=torch.long)) == 0
