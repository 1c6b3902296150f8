"""Every loss gives on CUDA what it gives on the CPU, value and gradients."""

import copy

import pytest
import torch
from torch.nn.functional import normalize

from univert.losses.names import LOSSES, LossName, make_loss


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_cuda_equals_the_cpu(name: LossName, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = normalize(torch.randn(64, 32, generator=generator), dim=1).to(dtype)
    labels = torch.arange(64) % 16
    here = make_loss(name, {}, products=16, size=32, seed=0)
    there = copy.deepcopy(here).to("cuda")
    on_cpu, on_cuda = rows.clone().requires_grad_(), rows.to("cuda").requires_grad_()
    here(on_cpu, labels).backward()
    with torch.autocast("cuda", torch.float16, enabled=dtype is torch.float16):
        value = there(on_cuda, labels.to("cuda"))
    value.backward()
    tolerance = {"rtol": 1e-3, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 2e-2, "atol": 1e-3}
    torch.testing.assert_close(value.cpu(), here(on_cpu, labels), **tolerance)
    torch.testing.assert_close(on_cuda.grad.cpu(), on_cpu.grad, **tolerance)  # type: ignore[union-attr]
    for mine, other in zip(here.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(other.grad.cpu(), mine.grad, **tolerance)  # type: ignore[union-attr]
