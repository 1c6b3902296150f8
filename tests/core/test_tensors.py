import pytest
import torch

from univert.core.errors import BadInputError
from univert.core.tensors import choose_device, squared_distances, unit_rows


def test_unit_rows_have_length_one_and_zero_stays_zero_without_gradient() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    unit = unit_rows(rows)
    assert unit[0].tolist() == pytest.approx([0.6, 0.8])
    assert unit[1].tolist() == [0, 0]
    unit.sum().backward()
    assert rows.grad[1].tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_squared_distances_equal_the_naive_ones(dtype: torch.dtype) -> None:
    x, y = torch.randn(5, 3).to(dtype), torch.randn(4, 3).to(dtype)
    naive = (x.float()[:, None] - y.float()[None]).square().sum(-1)
    found = squared_distances(x, y)
    torch.testing.assert_close(found, naive, atol=1e-5, rtol=1e-5)
    assert float(squared_distances(x, x).min()) >= 0


def test_a_device_that_does_not_work_is_refused_in_one_line() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(BadInputError, match=r"device 'nothing' cannot be used: .*; try auto or cpu"):
        choose_device("nothing")
