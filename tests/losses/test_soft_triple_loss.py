from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.losses.case import PRODUCTS, SIZE, proxies
from tests.losses.watch import LargestTensor, assert_same_gradients, gradients
from tests.oracles import proxy_more as oracles
from univert.core.errors import BadInputError
from univert.losses.soft_triple_loss import SoftTripleLoss, mean_distance_of_centers, soft_triple_loss
from univert.proxies.assignment import StaticAssignment


def batch(size: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, SIZE, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(size) % PRODUCTS


def centers(per_product: int) -> Tensor:
    return proxies(PRODUCTS * per_product).view(PRODUCTS, per_product, SIZE)


@pytest.mark.parametrize(("per_product", "tau"), [(1, 0.0), (2, 0.3), (5, 0.0), (5, 0.2)])
@pytest.mark.parametrize("chunk_rows", [None, 1, 4])
def test_gradients_of_embeddings_and_centers(per_product: int, tau: float, chunk_rows: int | None) -> None:
    x, y = batch()
    assert_same_gradients(
        lambda x, w: soft_triple_loss(x, w, y, tau=tau, chunk_rows=chunk_rows),
        lambda x, w: oracles.soft_triple(x, w, y, 20.0, 0.1, 0.01, tau),
        x,
        centers(per_product),
    )


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10_000),
    la=st.floats(0.1, 200),
    gamma=st.floats(0.01, 10),
    margin=st.floats(0, 1),
    per_product=st.integers(2, 6),
)
def test_equals_pytorch_metric_learning(seed: int, la: float, gamma: float, margin: float, per_product: int) -> None:
    from pytorch_metric_learning.losses import SoftTripleLoss as Theirs
    from pytorch_metric_learning.regularizers import SparseCentersRegularizer

    x, y = batch(seed=seed)
    theirs = Theirs(
        PRODUCTS,
        SIZE,
        per_product,
        la,
        gamma,
        margin,
        weight_regularizer=SparseCentersRegularizer(PRODUCTS, per_product),
        weight_reg_weight=0.2,
    )
    ours = SoftTripleLoss(PRODUCTS, SIZE, per_product, la, gamma, margin, tau=0.2, seed=seed)
    theirs.fc.data = ours.bank.proxies.detach().T.clone()
    torch.testing.assert_close(ours(x, y), theirs(x, y), rtol=1e-4, atol=1e-5)
    assert_same_gradients(lambda x: ours(x, y), lambda x: theirs(x, y), x, tolerance=1e-3)


@pytest.mark.parametrize(("la", "gamma"), [(1e4, 0.1), (20.0, 1e-4), (1e4, 1e-4), (1e-4, 1e4)])
def test_exact_at_extremes(la: float, gamma: float) -> None:
    x, y = batch()
    wanted = oracles.soft_triple(x, centers(3), y, la, gamma, 0.01, 0.2)
    found = soft_triple_loss(x, centers(3), y, la=la, gamma=gamma, tau=0.2)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)
    grads = gradients(lambda x, w: soft_triple_loss(x, w, y, la=la, gamma=gamma, tau=0.2), x, centers(3))
    assert all(grad.isfinite().all() for grad in grads)


def test_one_center_a_product_is_normalised_softmax_with_a_margin() -> None:
    x, y = batch()
    w = centers(1)
    cosines = nn.functional.normalize(x) @ nn.functional.normalize(w[:, 0]).T
    cosines[torch.arange(len(y)), y] -= 0.3
    torch.testing.assert_close(
        soft_triple_loss(x, w, y, la=5.0, margin=0.3), nn.functional.cross_entropy(5.0 * cosines, y)
    )


def test_merged_centers_have_no_distance_and_no_gradient() -> None:
    w = centers(1).expand(PRODUCTS, 3, SIZE)
    unit = nn.functional.normalize(w, dim=2)
    assert mean_distance_of_centers(unit).item() == 0
    (grad,) = gradients(mean_distance_of_centers, unit)
    assert (grad == 0).all()


def test_the_regulariser_merges_centers() -> None:
    w = nn.Parameter(nn.functional.normalize(centers(4), dim=2))
    optimiser = torch.optim.SGD([w], lr=0.5)

    def spread() -> Tensor:
        return mean_distance_of_centers(nn.functional.normalize(w, dim=2))

    first = spread().item()
    for _ in range(300):
        optimiser.zero_grad()
        spread().backward()
        optimiser.step()
    assert spread().item() < first / 10


def test_images_times_centers_is_never_held() -> None:
    images, products, per_product, size, chunk = 64, 500, 5, 4, 8
    x = torch.randn(images, size, requires_grad=True)
    w = torch.randn(products, per_product, size, requires_grad=True)
    with LargestTensor() as watch:
        soft_triple_loss(x, w, torch.arange(images), tau=0.2, chunk_rows=chunk).backward()
    assert watch.entries <= (chunk + 1) * products * per_product


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    x, y = batch()
    with torch.autocast("cpu", dtype=dtype):
        lowered = soft_triple_loss(x, centers(3), y, tau=0.2)
    torch.testing.assert_close(lowered, soft_triple_loss(x, centers(3), y, tau=0.2))


@pytest.mark.slow
@pytest.mark.parametrize("chunk_rows", [None, 4])
def test_compiled_equals_eager(chunk_rows: int | None) -> None:
    x, y = batch()

    def loss(x: Tensor, w: Tensor) -> Tensor:
        return soft_triple_loss(x, w, y, tau=0.2, chunk_rows=chunk_rows)

    assert_same_gradients(torch.compile(loss, backend="aot_eager"), loss, x, centers(3))


def test_an_assignment_can_order_the_centers_otherwise() -> None:
    x, y = batch()
    plain = SoftTripleLoss(PRODUCTS, SIZE, 2, seed=0)
    order = torch.randperm(2 * PRODUCTS, generator=torch.Generator().manual_seed(0))
    shuffled = SoftTripleLoss(PRODUCTS, SIZE, 2, assignment=StaticAssignment(order.view(PRODUCTS, 2), 2 * PRODUCTS))
    shuffled.bank.proxies.data[order] = plain.bank.proxies.data
    torch.testing.assert_close(shuffled(x, y), plain(x, y))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoftTripleLoss(1, 4), "at least 2 products"),
        (lambda: SoftTripleLoss(4, 4, 0), "at least 1 centre"),
        (lambda: SoftTripleLoss(4, 4, la=0), "la"),
        (lambda: SoftTripleLoss(4, 4, gamma=0), "gamma"),
        (lambda: SoftTripleLoss(4, 4, margin=-1), "margin"),
        (lambda: SoftTripleLoss(4, 4, tau=-1), "tau"),
        (lambda: SoftTripleLoss(4, 4, 1, tau=0.2), "tau = 0"),
        (lambda: SoftTripleLoss(4, 4, assignment=StaticAssignment.several(4, 2)), "centers_per_class = 10"),
        (lambda: SoftTripleLoss(4, 4, 1, assignment=StaticAssignment.fractional(4, 2)), "not shared"),
        (lambda: SoftTripleLoss(4, 4)(torch.ones(1, 4), torch.tensor([4])), r"0\.\.3, got 4"),
        (lambda: soft_triple_loss(torch.ones(1, 4), torch.ones(4, 4), torch.tensor([0])), "centres x size"),
        (lambda: soft_triple_loss(torch.ones(1, 3), torch.ones(4, 2, 4), torch.tensor([0])), "same size"),
    ],
)
def test_errors(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make()
