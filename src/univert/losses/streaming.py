"""Sums over rows, computed a few rows at a time together with their gradients, so that B x C is never held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

CHUNK_BYTES = 1 << 24  # of one chunk's matrix: large enough for a fast matrix product, small beside the network


def rows_per_chunk(columns: int, *, chunk_bytes: int = CHUNK_BYTES) -> int:
    """How many rows of a float32 matrix with so many columns fill a chunk; at least 1."""
    return max(1, chunk_bytes // (4 * max(columns, 1)))


def streamed_sum(term: Callable[..., Tensor], rows: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Sum over rows of a term of which each row needs all of `others`, without holding rows x others.

    Ordinary autograd keeps some matrices of rows x others until the backward pass. Here value and gradients are
    computed chunk by chunk in the forward pass; only the gradients are kept, which are as large as the inputs. Where
    all rows fit into one chunk, ordinary autograd is used; under `torch.compile` chunks are recomputed backwards.

    Args:
        term: `term(*chunk_of_rows, *others)` gives a scalar, the sum over the rows of the chunk. It runs in float32
            with autocast off. What it needs a gradient for has to come through `rows` or `others`.
        rows: tensors with the same number of rows, which are cut into chunks together.
        others: tensors handed whole to every chunk, which has `rows_per_chunk(len(others[0]))` rows.

    Returns:
        a float32 scalar (float64 for float64 inputs), differentiable once. No rows give 0 with zero gradients.
    """
    count, chunk_rows = len(rows[0]), rows_per_chunk(len(others[0]))
    tensors = [t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in (*rows, *others)]
    rows, others = tensors[: len(rows)], tensors[len(rows) :]
    with torch.autocast(rows[0].device.type, enabled=False):
        if 0 < count <= chunk_rows:
            return term(*rows, *others)
        differentiable = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        if differentiable and not torch.compiler.is_compiling():
            total: Tensor = _StreamedSum.apply(term, chunk_rows, len(rows), *tensors)
            return total
        total = _zero_that_depends_on(tensors)
        for start in range(0, count, chunk_rows):
            chunk = [tensor[start : start + chunk_rows] for tensor in rows]
            if differentiable:
                total = total + checkpoint(term, *chunk, *others, use_reentrant=False)
            else:
                total = total + term(*chunk, *others)
        return total


class _StreamedSum(torch.autograd.Function):
    """Value and gradients of all chunks in the forward pass."""

    @staticmethod
    def forward(ctx: Any, term: Callable[..., Tensor], chunk_rows: int, row_tensors: int, *tensors: Tensor) -> Tensor:
        rows, others = tensors[:row_tensors], tensors[row_tensors:]
        wanted = ctx.needs_input_grad[3:]
        grads = [torch.zeros_like(t) if want else None for t, want in zip(tensors, wanted, strict=True)]
        others = tuple(t.detach().requires_grad_(want) for t, want in zip(others, wanted[row_tensors:], strict=True))
        total = _zero_that_depends_on(tensors)
        for start in range(0, len(rows[0]), chunk_rows):
            part = slice(start, start + chunk_rows)
            leaves = [
                *(t[part].detach().requires_grad_(w) for t, w in zip(rows, wanted[:row_tensors], strict=True)),
                *others,
            ]
            with torch.enable_grad():
                value = term(*leaves)
            total += value.detach()
            needed = [i for i, want in enumerate(wanted) if want]
            found = torch.autograd.grad(value, [leaves[i] for i in needed], materialize_grads=True)
            for i, grad in zip(needed, found, strict=True):
                kept = grads[i]
                assert kept is not None
                if i < row_tensors:
                    kept[part] = grad
                else:
                    kept += grad
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        grads = (None if grad is None else grad * grad_output for grad in ctx.saved_tensors)
        return (None, None, None, *grads)


def _zero_that_depends_on(tensors: Sequence[Tensor]) -> Tensor:
    """A zero of the widest dtype; where gradients are on, with zero gradients for every input that wants one."""
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in floating) else torch.float32
    zero = torch.zeros((), dtype=dtype, device=tensors[0].device)
    if torch.is_grad_enabled():
        for tensor in floating:
            if tensor.requires_grad:
                zero = zero + tensor[:0].sum()  # nothing is read: an infinite entry stays harmless
    return zero
