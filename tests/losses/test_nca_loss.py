from __future__ import annotations

import pytest
import torch

from tests.losses.watch import LargestTensor
from univert.losses.nca_loss import Form, nca_loss


def test_a_loss_below_float32s_rounding_of_its_parts_is_kept() -> None:
    x, y = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]]), torch.tensor([0, 0, 1, 1])
    assert nca_loss(x, y, softmax_scale=10.0).item() == pytest.approx(2 * torch.tensor(-40.0).exp().item())


@pytest.mark.parametrize("form", ["softmax", "paper"])
def test_not_all_rows_times_rows_is_held(form: Form) -> None:
    x, y = torch.randn(300, 4).requires_grad_(), torch.arange(300) // 3
    with LargestTensor() as watch:
        nca_loss(x, y, form=form, chunk_rows=10).backward()
    assert watch.entries <= 300 * 300  # the comparison of labels, of one byte each
