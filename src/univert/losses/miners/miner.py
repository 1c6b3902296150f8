"""What all miners share: who is near whom in a batch, a block of anchors at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

from univert.core.tensors import squared_distances
from univert.losses.checks import check_embeddings, check_labels

Triplets = tuple[Int64[Tensor, "T"], Int64[Tensor, "T"], Int64[Tensor, "T"]]
"""Rows of a batch: anchors, positives, negatives. A loss takes them as `indices_tuple`."""

ANCHORS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some anchors of a batch against all of its rows (shapes: R anchors, B rows of the batch).

    Attributes:
        size: D of the embeddings.
        distances: squared Euclidean.
        is_positive: of the anchor's product, and not the anchor itself.
        is_negative: of another product (of the same vertical, where verticals were given).
    """

    size: int
    distances: Float[Tensor, "R B"]
    is_positive: Bool[Tensor, "R B"]
    is_negative: Bool[Tensor, "R B"]

    def pairs(self) -> tuple[Int64[Tensor, "P"], Int64[Tensor, "P"], Int64[Tensor, "P"]]:
        """Anchors and positives of the pairs whose anchor has a negative, and the place of each among its anchor's."""
        is_pair_RB = self.is_positive & self.is_negative.any(1, keepdim=True)
        anchor_P, positive_P = is_pair_RB.nonzero(as_tuple=True)
        count_R = is_pair_RB.sum(1)
        first_R = count_R.cumsum(0) - count_R
        return anchor_P, positive_P, torch.arange(len(anchor_P), device=anchor_P.device) - first_R[anchor_P]


class Miner(ABC):
    """Called with a batch, gives rows of it as (anchors, positives, negatives), as pytorch-metric-learning's do.

    Distances are computed in float32 whatever the embeddings' dtype, also under autocast, and without gradients. Memory
    is O(1024 B) beside the triplets themselves; no miner lists all B^3.
    """

    def __call__(
        self,
        embeddings: Float[Tensor, "B D"],
        labels: Integer[Tensor, "B"],
        verticals: Integer[Tensor, "B"] | None = None,
    ) -> Triplets:
        """The triplets of one batch.

        Args:
            embeddings: one row an image.
            labels: the product of each row.
            verticals: the vertical of each row; a negative is then one of the same vertical. Null: all rows share one.

        Returns:
            three vectors of equal length; empty where the batch holds no such triplet.

        Raises:
            BadInputError: wrong shapes or dtypes.
        """
        check_embeddings(embeddings)
        check_labels(labels, embeddings)
        if verticals is not None:
            check_labels(verticals, embeddings, name="verticals")
        parts = [[torch.empty(0, dtype=torch.long, device=embeddings.device)] * 3]
        with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
            points = self.points(embeddings.detach())
            for start in range(0, len(points), ANCHORS_AT_ONCE):
                block = _block(points, labels, verticals, start)
                anchors, positives, negatives = self.mine(block)
                parts.append([anchors + start, positives, negatives])
        anchors, positives, negatives = map(torch.cat, zip(*parts, strict=True))
        return anchors, positives, negatives

    def points(self, embeddings: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The rows between which distances are taken: as they are, in float32."""
        return embeddings.float()

    @abstractmethod
    def mine(self, block: Block) -> Triplets:
        """The triplets of some anchors, which are counted from the start of the block."""


def _block(
    points: Float[Tensor, "B D"], labels: Integer[Tensor, "B"], verticals: Integer[Tensor, "B"] | None, start: int
) -> Block:
    rows = slice(start, start + ANCHORS_AT_ONCE)
    is_positive_RB = labels[rows, None] == labels
    is_negative_RB = ~is_positive_RB
    if verticals is not None:
        is_negative_RB &= verticals[rows, None] == verticals
    # a view of the square block that holds the anchors themselves
    is_positive_RB[:, rows].fill_diagonal_(False)
    return Block(
        size=points.shape[1],
        distances=squared_distances(points[rows], points),
        is_positive=is_positive_RB,
        is_negative=is_negative_RB,
    )
