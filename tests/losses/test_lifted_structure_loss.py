from __future__ import annotations

import torch
from torch import nn

from tests.losses.watch import LargestTensor
from univert.losses.lifted_structure_loss import lifted_structure_loss


def test_a_large_scale_looks_at_the_nearest_negative_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    x = nn.functional.normalize(torch.randn(20, 5, generator=generator), dim=1)
    y = torch.randint(6, (20,), generator=generator)
    d = (x[:, None] - x).square().sum(2).sqrt()
    same = y[:, None] == y
    nearest = d.masked_fill(same, torch.inf).amin(1)
    pairs = same.fill_diagonal_(False)
    costs = (1 - torch.minimum(nearest[:, None], nearest) + d).clamp_min(0).square()
    torch.testing.assert_close(lifted_structure_loss(x, y, scale=1e4), costs[pairs].mean() / 2, rtol=1e-3, atol=1e-4)


def test_pairs_of_pairs_are_never_listed() -> None:
    x, y = torch.randn(64, 4).requires_grad_(), torch.arange(64) // 8
    with LargestTensor() as watch:
        lifted_structure_loss(x, y).backward()
    assert watch.entries <= 64 * 64
