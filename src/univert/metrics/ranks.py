"""Exact ranks of positives in chunks: no top-k, and never the whole (queries x gallery) matrix.

A rank is a count: one more than the number of items that come before. So the similarities of a query's own
positives are computed first, each block of the similarity matrix is compared with them as it is made, and
only the counts are kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from univert.metrics.inputs import Codes
from univert.metrics.ranking import TIE_TOLERANCE, Layout

_QUERIES_AT_ONCE = 1024
_GALLERY_AT_ONCE = 8192
# Up to this many positives a query, one pass over the block for each is cheaper than a binary search.
_MOST_PASSES = 64
# (queries of a block) x (positives of a query) stays below this: huge products need no huge memory.
_MOST_THRESHOLDS = 1 << 22


@torch.inference_mode()
def rank(layout: Layout, all_positives: bool) -> tuple[Codes, npt.NDArray[np.float64]]:
    """Rank of the first positive and average precision at R of each query, in the layout's order."""
    all_queries, gallery = torch.from_numpy(layout.queries), torch.from_numpy(layout.gallery)
    half_squares = torch.linalg.vector_norm(gallery, dim=1).square_().div_(2)
    largest_norm = float(torch.linalg.vector_norm(all_queries, dim=1).max())
    tolerance = TIE_TOLERANCE * max(2 * float(half_squares.max()), largest_norm**2)
    # One pair of buffers for all blocks: fresh ones each time would cost as much in page faults as the counting.
    buffers = torch.empty(2, min(_QUERIES_AT_ONCE, len(layout.rows)) * min(_GALLERY_AT_ONCE, len(layout.gallery)))
    first = np.empty(len(layout.rows), dtype=np.int64)
    average_precision = np.zeros(len(layout.rows))
    for block in _blocks(layout):
        queries = all_queries[torch.from_numpy(layout.places[block])]
        thresholds = _positives(layout, block, queries, half_squares, all_positives) - tolerance
        relevant = torch.from_numpy(layout.ends[block] - layout.starts[block] - layout.leave_one_out)
        before = _count_before(layout, block, queries, half_squares, thresholds, relevant, buffers)
        first[block] = before[:, 0].numpy() + 1
        if all_positives:
            average_precision[block] = _average_precision(before, relevant).numpy()
    return first, average_precision


def _blocks(layout: Layout) -> list[slice]:
    """Consecutive queries, fewer where large products bring many thresholds."""
    positives = layout.ends - layout.starts
    blocks, start = [], 0
    while start < len(positives):
        widest = np.maximum.accumulate(positives[start : start + _QUERIES_AT_ONCE])
        fits = widest * np.arange(1, len(widest) + 1) <= _MOST_THRESHOLDS
        stop = start + max(1, int(fits.sum()))
        blocks.append(slice(start, stop))
        start = stop
    return blocks


def _positives(layout: Layout, block: slice, queries: Tensor, half_squares: Tensor, all_positives: bool) -> Tensor:
    """(B, R) similarities of each query's positives, nearest first, -inf where a query has fewer than R.

    Unless all are wanted, (B, 1): the nearest.
    """
    starts, ends = layout.starts[block], layout.ends[block]
    places = layout.places[block]
    # NumPy, not torch: thousands of tiny products, each of which torch would spread over its threads.
    similarities = np.full((len(starts), int((ends - starts).max())), -np.inf, dtype=np.float32)
    wanted, gallery, half = queries.numpy(), layout.gallery, half_squares.numpy()
    turns = np.flatnonzero(np.diff(starts, prepend=-1, append=-1))
    for one, other in zip(turns[:-1].tolist(), turns[1:].tolist(), strict=True):
        start, end = int(starts[one]), int(ends[one])
        own = wanted[one:other] @ gallery[start:end].T - half[start:end]
        if layout.leave_one_out:
            own[np.arange(other - one), places[one:other] - start] = -np.inf
        similarities[one:other, : end - start] = own
    if not all_positives:
        return torch.from_numpy(similarities).amax(dim=1, keepdim=True)
    nearest_first = torch.from_numpy(similarities).sort(dim=1, descending=True).values
    return nearest_first[:, : nearest_first.shape[1] - layout.leave_one_out]


def _count_before(
    layout: Layout,
    block: slice,
    queries: Tensor,
    half_squares: Tensor,
    thresholds: Tensor,
    relevant: Tensor,
    buffers: Tensor,
) -> Tensor:
    """(B, R) how many items of other products are at least as near as each threshold."""
    starts = torch.from_numpy(layout.starts[block])[:, None]
    ends = torch.from_numpy(layout.ends[block])[:, None]
    first_own, last_own = int(starts.min()), int(ends.max())
    before = torch.zeros(thresholds.shape, dtype=torch.int64)
    count = _count_by_passes if thresholds.shape[1] <= _MOST_PASSES else _count_by_search
    gallery = torch.from_numpy(layout.gallery)
    for start in range(0, len(gallery), _GALLERY_AT_ONCE):
        part = gallery[start : start + _GALLERY_AT_ONCE]
        similarities, scratch = buffers[:, : len(queries) * len(part)].view(2, len(queries), len(part))
        torch.addmm(-half_squares[start : start + len(part)], queries, part.T, out=similarities)
        if start < last_own and first_own < start + len(part):
            column = torch.arange(start, start + len(part))
            similarities.masked_fill_((column >= starts) & (column < ends), -torch.inf)
        count(similarities, thresholds, relevant, before, scratch)
    # A pass that was left out leaves counts too low; later positives' ranks are never below earlier ones'.
    return before.cummax(dim=1).values


def _count_by_passes(
    similarities: Tensor, thresholds: Tensor, relevant: Tensor, before: Tensor, scratch: Tensor
) -> None:
    """Add to `before`, one positive after the other, until no query has one left that can be within R."""
    for column in range(thresholds.shape[1]):
        # As floats: summing 0.0 and 1.0 is exact here, and ten times faster than counting booleans.
        torch.ge(similarities, thresholds[:, column : column + 1], out=scratch)
        before[:, column] += scratch.sum(dim=1).long()
        if not (before[:, column] + column + 1 < relevant).any():
            break


def _count_by_search(
    similarities: Tensor, thresholds: Tensor, relevant: Tensor, before: Tensor, scratch: Tensor
) -> None:
    """Add to `before` for all positives at once: a histogram of which thresholds each item reaches."""
    # Negated, the thresholds ascend; an item counts for every threshold from the first one that it reaches.
    reached = torch.searchsorted(-thresholds, torch.neg(similarities, out=scratch))
    histogram = torch.zeros((len(thresholds), thresholds.shape[1] + 1), dtype=torch.int64)
    histogram.scatter_add_(1, reached, torch.ones((), dtype=torch.int64).expand_as(reached))
    before += histogram[:, :-1].cumsum(dim=1)


def _average_precision(before: Tensor, relevant: Tensor) -> Tensor:
    """(B,) average precision at R from the (B, R) counts: the j-th positive at rank r <= R adds j / r."""
    number = torch.arange(1, before.shape[1] + 1)
    ranks = number + before
    precision = torch.where(ranks <= relevant[:, None], number.double() / ranks, 0.0)
    return precision.sum(dim=1) / relevant
