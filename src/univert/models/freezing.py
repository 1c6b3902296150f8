"""Which part of a network learns: what is frozen gets no gradient and stays in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def freeze_all_but(module: nn.Module, learning: Iterable[nn.Parameter]) -> None:
    """Let exactly these parameters of `module` have gradients; gradients of the others are dropped."""
    chosen = {id(parameter) for parameter in learning}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
        if not parameter.requires_grad:
            parameter.grad = None


def evaluate_frozen(module: nn.Module) -> None:
    """Put every frozen part into evaluation mode: a frozen batch normalisation must not move its statistics.

    A part is frozen if it has parameters of which none has gradients; what it contains goes with it.
    """
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    for child in module.children():
        evaluate_frozen(child)
