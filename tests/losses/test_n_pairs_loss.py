from __future__ import annotations

import torch
from torch import nn

from tests.losses.watch import gradients
from univert.losses.n_pairs_loss import n_pairs_loss

ROWS = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))


def test_one_pair_a_product_is_cross_entropy_over_pairs() -> None:
    wanted = nn.functional.cross_entropy(ROWS[:6] @ ROWS[6:].T, torch.arange(6))
    torch.testing.assert_close(n_pairs_loss(ROWS, torch.arange(6).repeat(2), pairs="one", scale=1.0), wanted)


def test_one_pair_a_product_leaves_the_other_images_alone() -> None:
    y = torch.tensor([0, 1, 0, 1, 0, 1, 2, 0, 1, 2, 3, 3])
    (gradient,) = gradients(lambda x: n_pairs_loss(x, y, pairs="one"), ROWS)
    assert {int(i) for i in gradient.any(1).nonzero()} == {0, 2, 1, 3, 6, 9, 10, 11}
