"""What is special about dynamic Proxy-NCA: no product labels, relations, collapse and what prevents it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.oracles import dynamic as oracles
from univert.core.errors import BadInputError
from univert.core.tensors import unit_rows
from univert.losses.dynamic_proxy_nca_loss import DynamicProxyNCALoss, dynamic_proxy_nca_loss
from univert.proxies.dynamic import DynamicAssignment, forget_rows, nearest_proxies, start_from_points


def normal(rows: int, size: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


@given(
    seed=st.integers(0, 999),
    examples=st.integers(1, 9),
    proxies=st.integers(2, 6),
    scale=st.sampled_from([1.0, 9.0, 100.0]),
)
def test_any_relation_equals_the_oracle(seed: int, examples: int, proxies: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(3, (4, examples), generator=generator)  # similar, dissimilar, unknown
    assigned = torch.randint(proxies, (examples,), generator=generator)
    results = []
    for naive in (False, True):
        x, p = normal(4, seed=seed).requires_grad_(), normal(proxies, seed=seed + 1).requires_grad_()
        if naive:
            value = oracles.dynamic_proxy_nca(x, p, assigned.tolist(), kind == 0, kind == 1, scale)
        else:
            value = dynamic_proxy_nca_loss(x, p, assigned, kind == 0, kind == 1, softmax_scale=scale)
        value.backward()
        results.append((value.detach().double(), x.grad, p.grad))
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * scale)


def test_triplets_equal_the_oracle() -> None:
    x, y, z = normal(20), normal(20, seed=1), normal(20, seed=2)
    loss = DynamicProxyNCALoss(4, 5, softmax_scale=3.0, seed=0)
    wanted = oracles.triplets(x, y, z, loss.bank.proxies, 3.0)
    rows = torch.arange(60)
    assert loss(torch.cat([x, y, z]), rows, rows.chunk(3)).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_kept_assignment_is_used_and_gaps_are_filled_with_the_nearest() -> None:
    loss = DynamicProxyNCALoss(6, 5, seed=0)
    x, labels = normal(12), torch.arange(12) % 3
    nearest = nearest_proxies(x, loss.bank.proxies)
    torch.testing.assert_close(loss(x, labels), loss(x, labels, assigned=nearest))
    torch.testing.assert_close(loss(x, labels), loss(x, labels, assigned=torch.full((12,), -1)))
    other = (nearest + 1) % 6
    same = labels[:, None] == labels
    wanted = oracles.dynamic_proxy_nca(
        x, loss.bank.proxies, other.tolist(), same & ~torch.eye(12, dtype=torch.bool), ~same
    )
    assert loss(x, labels, assigned=other).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_sparse_gradients_equal_dense_ones() -> None:
    gradients = []
    for sparse in (False, True):
        loss = DynamicProxyNCALoss(50, 5, sparse=sparse, seed=0)
        loss(normal(8), torch.arange(8) % 3).backward()
        assert loss.bank.proxies.grad is not None
        assert loss.bank.proxies.grad.is_sparse == sparse
        gradients.append(loss.bank.proxies.grad.to_dense())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DynamicProxyNCALoss(3, 5)(normal(4), torch.arange(4), assigned=torch.full((4,), 3)), r"0\.\.2"),
        (lambda: DynamicProxyNCALoss(3, 5)(normal(4), torch.arange(4), assigned=torch.full((4,), -2)), r"0\.\.2"),
        (lambda: DynamicProxyNCALoss(3, 5)(normal(4), torch.arange(4), assigned=torch.zeros(4)), "assigned"),
        (lambda: DynamicProxyNCALoss(3, 5)(normal(4), torch.arange(3)), "as many"),
        (lambda: DynamicProxyNCALoss(3, 4)(normal(4), torch.arange(4)), "with 5 columns"),
    ],
)
def test_bad_input_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make()


PRODUCTS, PER_PRODUCT, PROXIES = 12, 12, 18


def toy() -> tuple[Tensor, Tensor]:
    """Products that differ in 6 directions, among 18 with more variance that mean nothing."""
    labels = torch.arange(PRODUCTS).repeat_interleave(PER_PRODUCT)
    telling = 2 * normal(PRODUCTS, 6)[labels] + 0.4 * normal(len(labels), 6, 1)
    return torch.cat([telling, 2 * normal(len(labels), 18, 2)], 1) / 5, labels


def train(*, helped: bool, seed: int = 0, steps: int = 100) -> tuple[float, float]:
    """Share of points in the majority product of their proxy, and whose nearest neighbour is of their product."""
    x, labels = toy()
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 8))
    loss = DynamicProxyNCALoss(PROXIES, 8, seed=seed)
    optimiser = torch.optim.Adam(
        [{"params": network.parameters(), "lr": 3e-3}, {"params": loss.parameters(), "lr": 0.1}]
    )
    assignment = DynamicAssignment(len(x), PROXIES)
    if helped:
        start_from_points(loss.bank, network(x).detach(), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        if helped and step % 10 == 0:
            embeddings = network(x).detach()
            assignment.refresh(embeddings, loss.bank.proxies)
            forget_rows(optimiser, loss.bank.proxies, assignment.reseed(loss.bank, embeddings))
        batch = torch.randperm(len(x), generator=generator)[:48]
        optimiser.zero_grad()
        loss(network(x[batch]), labels[batch]).backward()
        optimiser.step()
    embeddings = unit_rows(network(x).detach())
    table = torch.zeros(PROXIES, PRODUCTS)
    table.index_put_((nearest_proxies(embeddings, loss.bank.proxies), labels), torch.ones(len(x)), accumulate=True)
    neighbour = (embeddings @ embeddings.T).fill_diagonal_(-2).argmax(1)
    return (table.max(1).values.sum() / len(x)).item(), (labels[neighbour] == labels).float().mean().item()


def test_training_collapses_alone_and_learns_with_a_start_from_points_and_reseeding() -> None:
    purity, recall = train(helped=True, seed=1)
    alone_purity, alone_recall = train(helped=False, seed=1)
    assert purity > 0.8
    assert recall > 0.9
    assert alone_purity < purity - 0.3
    assert alone_recall < recall
