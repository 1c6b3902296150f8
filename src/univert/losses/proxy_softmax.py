"""The kernel of the soft-max losses: -log of the own proxies' share of a sum over all proxies, and its gradients.

B rows, C proxies, M own proxies a row, D the size of both. Nothing of B x C is held: a few rows of logits at a time
go through one buffer, and the gradients, which are as large as the inputs, are made in the same pass. Three matrix
products in all, the least that exact gradients need.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from univert.core.errors import BadInputError
from univert.core.tensors import SHORTEST
from univert.losses.batch import define_operator
from univert.losses.streaming import rows_per_chunk

Pooling = Literal["soft", "nearest"]

_CHUNK_BYTES = {"cpu": 1 << 26, "cuda": 1 << 28}  # of logits held at a time
_COPY_BYTES = 1 << 27  # proxies above this size are not copied as unit rows: the logits are scaled instead
_BLOCK_BYTES = 1 << 22  # of proxies that are normalised at a time: they stay in the cache


def proxy_softmax_mean(
    queries: Tensor,
    proxies: Tensor,
    own: Tensor,
    *,
    bias: Tensor | None = None,
    unit_proxies: bool = True,
    exclude_own: bool = False,
    pooling: Pooling = "soft",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean over rows of  logsumexp over proxies of z  -  pool over own proxies of z,  with z = q . p + bias.

    Queries (B, D) have any scale already in them; the bias (C) is added to all their logits. `own` (B, M) are the rows
    of each query's own proxies, which are left out of the sum with `exclude_own` (needs C > M); one named twice counts
    once. The caller checks its inputs. Differentiable once; a gradient that nobody wants is not computed. Runs in
    float32 whatever autocast says, and inside `torch.compile` as one opaque step.
    """
    queries, proxies = queries.float(), proxies.float()
    bias = None if bias is None else bias.float()
    wanted = torch.is_grad_enabled()
    total: Tensor = _proxy_softmax(
        queries,
        proxies,
        own.long(),
        bias,
        unit_proxies,
        exclude_own,
        pooling == "nearest",
        label_smoothing,
        wanted and queries.requires_grad,
        wanted and proxies.requires_grad,
        wanted and bias is not None and bias.requires_grad,
    )[0]
    return total / max(len(queries), 1)


def check_smoothing(label_smoothing: float) -> None:
    """Refuse a label smoothing that is not a part of the target, outside 0..1."""
    if not 0 <= label_smoothing <= 1:
        raise BadInputError(f"label_smoothing must lie in 0..1 (ProxyNCA++: 0.1), got {label_smoothing}")


def value_and_gradients(
    queries: Tensor,
    proxies: Tensor,
    own: Tensor,
    bias: Tensor | None,
    unit_proxies: bool,
    exclude_own: bool,
    nearest: bool,
    label_smoothing: float,
    want_queries: bool,
    want_proxies: bool,
    want_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The value and the gradients of queries, proxies and bias; an empty tensor for each that is not wanted."""
    with torch.autocast(queries.device.type, enabled=False):
        rows, count = len(queries), len(proxies)
        keys_CD, inverse_C = proxies, None
        if unit_proxies and proxies.nbytes <= _COPY_BYTES:
            keys_CD = _unit_rows(proxies)
        elif unit_proxies:
            inverse_C = _inverse_lengths(proxies)[:, 0]
        d_queries = torch.empty_like(queries) if want_queries else queries.new_empty(0)
        d_keys = torch.empty_like(proxies) if want_proxies else queries.new_empty(0)
        d_bias = queries.new_zeros(count) if want_bias else queries.new_empty(0)
        total = queries.new_zeros(())
        chunk_rows = even_chunk_rows(rows, count, proxies.shape[1], proxies.device.type)
        buffer = queries.new_empty(min(chunk_rows, rows), count)
        for start in range(0, rows, chunk_rows):
            part = slice(start, start + chunk_rows)
            x_bD, own_bM = queries[part], own[part]
            logits_bC = buffer[: len(x_bD)]
            torch.mm(x_bD, keys_CD.T, out=logits_bC)
            if inverse_C is not None:
                logits_bC *= inverse_C
            if bias is not None:
                logits_bC += bias
            total += _softmax_in_place(logits_bC, own_bM, exclude_own, nearest, label_smoothing)
            if want_proxies:
                d_keys.addmm_(logits_bC.T, x_bD, beta=1 if start else 0)
            if want_bias:
                d_bias += logits_bC.sum(0)
            if want_queries:
                torch.mm(logits_bC if inverse_C is None else logits_bC.mul_(inverse_C), keys_CD, out=d_queries[part])
        del buffer
        if not rows:
            d_keys.zero_()
        if want_proxies and unit_proxies:
            _through_unit_rows_(d_keys, proxies)
    return total, d_queries, d_keys, d_bias


def _softmax_in_place(
    logits_bC: Tensor, own_bM: Tensor, exclude_own: bool, nearest: bool, label_smoothing: float
) -> Tensor:
    """The summed loss of a few rows; the logits become its gradient."""
    own_logits_bM = logits_bC.gather(1, own_bM)
    if own_bM.shape[1] == 1:
        pooled_b, weights_bM = own_logits_bM[:, 0], torch.ones_like(own_logits_bM)
    else:
        repeated_bMM = (own_bM[:, :, None] == own_bM[:, None, :]).tril(-1)
        own_logits_bM.masked_fill_(repeated_bMM.any(2), -torch.inf)
        if nearest:
            pooled_b, best_b = own_logits_bM.max(1)
            weights_bM = torch.zeros_like(own_logits_bM).scatter_(1, best_b[:, None], 1.0)
        else:
            pooled_b, weights_bM = own_logits_bM.logsumexp(1), own_logits_bM.softmax(1)
    smoothed = label_smoothing * (pooled_b - logits_bC.mean(1)).sum() if label_smoothing else 0.0
    if exclude_own:
        logits_bC.scatter_(1, own_bM, -torch.inf)
    top_b = logits_bC.amax(1)
    torch.softmax(logits_bC, 1, out=logits_bC)
    # log-sum-exp as the largest logit over its own share, which is at least 1/C and so never underflows
    loss = ((top_b - pooled_b) - logits_bC.amax(1).log()).sum() + smoothed
    logits_bC.scatter_add_(1, own_bM, weights_bM.mul_(label_smoothing - 1))
    if label_smoothing:
        logits_bC -= label_smoothing / logits_bC.shape[1]
    return loss


def even_chunk_rows(rows: int, count: int, size: int, device_type: str) -> int:
    """Rows of a chunk: tens of megabytes of logits (on a GPU hundreds), or half the size of the proxies if larger.

    A product with too few rows would only wait for the proxies to be read. All chunks are about equally large.
    """
    most = _CHUNK_BYTES.get(device_type, _CHUNK_BYTES["cuda"])
    chunk = max(rows_per_chunk(count, chunk_bytes=most), size // 2)
    chunks = max(1, -(-rows // chunk))
    return max(1, -(-rows // chunks))


def _unit_rows(proxies: Tensor) -> Tensor:
    units = torch.empty_like(proxies)
    for source, target in zip(_blocks(proxies), _blocks(units), strict=True):
        torch.mul(source, _inverse_lengths(source), out=target)
    return units


def _through_unit_rows_(grads: Tensor, proxies: Tensor) -> None:
    """Turn gradients of unit rows u into those of the rows they came from: (g - (g . u) u) / |p|."""
    scratch = torch.empty_like(_blocks(proxies)[0])
    for grad, source in zip(_blocks(grads), _blocks(proxies), strict=True):
        inverse = _inverse_lengths(source)
        along = torch.mul(grad, source, out=scratch[: len(source)]).sum(1, keepdim=True)  # u = p / |p|
        grad.mul_(inverse).addcmul_(source, along * inverse * inverse * inverse, value=-1)


def _inverse_lengths(rows: Tensor) -> Tensor:
    lengths = rows.norm(dim=1, keepdim=True)
    return torch.where(lengths > SHORTEST, 1 / lengths, 0)  # zero rows: zero gradient


def _blocks(rows: Tensor) -> tuple[Tensor, ...]:
    """On the CPU row blocks that fit its cache; elsewhere all at once, since each block costs a launch."""
    if rows.device.type != "cpu":
        return (rows,)
    blocks: tuple[Tensor, ...] = rows.split(max(1, _BLOCK_BYTES // (4 * max(rows.shape[1], 1))))
    return blocks


def _shapes(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the kernel returns, for `torch.compile`."""
    queries, proxies = inputs[:2]
    empty = queries.new_empty(0)
    want_queries, want_proxies, want_bias = inputs[-3:]
    return (
        queries.new_empty(()),
        torch.empty_like(queries) if want_queries else empty,
        torch.empty_like(proxies) if want_proxies else empty.clone(),
        queries.new_empty(len(proxies)) if want_bias else empty.clone(),
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.wanted = inputs[-3:]
    ctx.save_for_backward(*output[1:])


@once_differentiable
def _backward(ctx: Any, grad: Tensor, *_unused: Tensor | None) -> tuple[Tensor | None, ...]:
    d_queries, d_proxies, d_bias = (
        grad * kept if want else None for kept, want in zip(ctx.saved_tensors, ctx.wanted, strict=True)
    )
    return (d_queries, d_proxies, None, d_bias, *([None] * 7))


_proxy_softmax = define_operator(
    "proxy_softmax(Tensor queries, Tensor proxies, Tensor own, Tensor? bias, bool unit_proxies, bool exclude_own, "
    "bool nearest, float label_smoothing, bool want_queries, bool want_proxies, bool want_bias) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    value_and_gradients,
    _shapes,
)
torch.library.register_autograd(_proxy_softmax, _backward, setup_context=_remember)
