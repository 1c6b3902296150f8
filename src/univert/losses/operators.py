"""Operators of our own: opaque to `torch.compile`, which cannot trace sizes that depend on the labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

# Not `torch.library.custom_op`: its first call imports the compiler, seconds and 160 MB that eager runs do not need.
_LIBRARIES: dict[str, torch.library.Library] = {}  # an operator lives as long as its library


def define_operator(schema: str, kernel: Callable[..., Any], shapes: Callable[..., Any]) -> OpOverload:
    """Make a function of tensors an operator that runs as it is on every device, compiled or not.

    Args:
        schema: its name and signature, as in `name(Tensor x, float margin) -> (Tensor, Tensor)`.
        kernel: what it computes; it must not change its arguments.
        shapes: the same signature; gives empty tensors of the shapes and dtypes that the kernel gives.

    Returns:
        the operator, to be called in the place of `kernel`.
    """
    name = f"univert::{schema.partition('(')[0]}"
    if name in _LIBRARIES:  # its module is being loaded again
        _LIBRARIES.pop(name)._destroy()
    library = _LIBRARIES[name] = torch.library.Library("univert", "FRAGMENT")
    library.define(schema)
    library.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(name, shapes, lib=library)
    operator: OpOverload = getattr(torch.ops.univert, name.removeprefix("univert::")).default
    return operator


def define_gradient(
    operator: OpOverload, backward: Callable[..., Any], keep: Callable[[Any, tuple[Any, ...], Any], None]
) -> None:
    """Tell autograd how to differentiate an operator.

    Args:
        operator: what `define_operator` gave.
        backward: `backward(ctx, *gradients by the outputs)` gives the gradients by the inputs.
        keep: `keep(ctx, inputs, output)` saves what `backward` needs.
    """
    torch.library.register_autograd(operator, backward, setup_context=keep, lib=_LIBRARIES[operator.name()])
