"""What a loss does behind its value: gradients of all its inputs, and the largest tensor it ever makes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def gradients(loss: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    return torch.autograd.grad(loss(*leaves), leaves)


def assert_same_gradients(
    loss: Callable[..., Tensor], oracle: Callable[..., Tensor], *inputs: Tensor, tolerance: float = 1e-4
) -> None:
    found, wanted = gradients(loss, *inputs), gradients(oracle, *inputs)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance / 10)


class LargestTensor(TorchDispatchMode):
    """Remembers how many entries the largest result of any operation had, backward passes included."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(item, Tensor):
                self.entries = max(self.entries, item.untyped_storage().nbytes() // item.element_size())
        return result
