"""What is special about dynamic Proxy-NCA: relations in place of product labels, assignments that are kept."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.oracles import dynamic as oracles
from univert.core.errors import BadInputError
from univert.losses.dynamic_proxy_nca_loss import DynamicProxyNCALoss, dynamic_proxy_nca_loss
from univert.proxies.dynamic import nearest_proxies


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
