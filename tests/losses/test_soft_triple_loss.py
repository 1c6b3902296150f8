from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.losses.cases import PRODUCTS, SIZE, proxies
from tests.losses.watch import assert_same_gradients, gradients
from univert.losses.soft_triple_loss import SoftTripleLoss, mean_distance_of_centers


def batch(size: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, SIZE, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(size) % PRODUCTS


def centers(per_product: int) -> Tensor:
    return proxies(PRODUCTS * per_product).view(PRODUCTS, per_product, SIZE)


@settings(max_examples=25)
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
    regularizer = SparseCentersRegularizer(PRODUCTS, per_product)
    theirs = Theirs(
        PRODUCTS, SIZE, per_product, la, gamma, margin, weight_regularizer=regularizer, weight_reg_weight=0.2
    )
    ours = SoftTripleLoss(PRODUCTS, SIZE, per_product, la, gamma, margin, tau=0.2, seed=seed)
    theirs.fc.data = ours.bank.proxies.detach().T.clone()
    torch.testing.assert_close(ours(x, y), theirs(x, y), rtol=1e-4, atol=1e-5)
    assert_same_gradients(lambda x: ours(x, y), lambda x: theirs(x, y), x, tolerance=1e-3)


def test_merged_centers_have_no_distance_and_no_gradient() -> None:
    unit = nn.functional.normalize(centers(1).expand(PRODUCTS, 3, SIZE), dim=2)
    assert mean_distance_of_centers(unit).item() == 0
    (grad,) = gradients(mean_distance_of_centers, unit)
    assert (grad == 0).all()
