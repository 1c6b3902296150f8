"""What all losses over labels share: their call, the pairs of a batch, and what pytorch-metric-learning's losses take.

That library's objects are known by the names of their classes; it is never imported.
"""

from __future__ import annotations

import functools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.tensors import check_indices, unit_rows
from univert.losses.batch import Triplets, check_batch, check_labels, negative_mask
from univert.proxies.bank import check_points

Pairs = tuple[Bool[Tensor, "A R"], Bool[Tensor, "A R"]]
"""Which references are positives of each row of a batch, and which are negatives."""


class Known(StrEnum):
    """The distances of pytorch-metric-learning that losses here can follow, as they are made there."""

    PLAIN = "LpDistance()"
    PLAIN_AS_IS = "LpDistance(normalize_embeddings=False)"
    SQUARED = "LpDistance(power=2)"
    SQUARED_AS_IS = "LpDistance(power=2, normalize_embeddings=False)"
    COSINE = "CosineSimilarity()"
    DOT_AS_IS = "DotProductSimilarity(normalize_embeddings=False)"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a loss is called with, checked; see `LabelLoss.forward` (shapes: A rows, R reference rows)."""

    embeddings: Float[Tensor, "A D"]
    labels: Integer[Tensor, "A"]
    references: Float[Tensor, "R D"] | None = None
    reference_labels: Integer[Tensor, "R"] | None = None
    indices: Sequence[Integer[Tensor, "T"]] | None = None
    verticals: Integer[Tensor, "A"] | None = None
    assigned: Integer[Tensor, "A"] | None = None

    def pairs(self) -> Pairs:
        """The miner's choice, or all pairs by their labels; no row is a positive of itself."""
        alone, others = self.references is None, self.labels if self.reference_labels is None else self.reference_labels
        if self.indices is None:
            positive_AR = self.labels[:, None] == others
            negative_AR = negative_mask(self.labels, others, self.verticals, self.verticals)
            return (positive_AR.fill_diagonal_(False) if alone else positive_AR), negative_AR
        positive_AR = torch.zeros(len(self.labels), len(others), dtype=torch.bool, device=others.device)
        negative_AR = torch.zeros_like(positive_AR)
        positive_AR[self.indices[0], self.indices[1]] = True
        negative_AR[self.indices[-2 if len(self.indices) == 4 else 0], self.indices[-1]] = True
        return positive_AR, negative_AR


def list_triplets(pairs: Pairs) -> Triplets:
    """Every positive pair with every negative of its anchor."""
    positive_AR, negative_AR = pairs
    anchor_P, positive_P = positive_AR.nonzero(as_tuple=True)
    negative_N, count_A = negative_AR.nonzero(as_tuple=True)[1], negative_AR.sum(1)
    first_A, count_P = count_A.cumsum(0) - count_A, count_A[anchor_P]
    pair_T = torch.arange(len(anchor_P), device=anchor_P.device).repeat_interleave(count_P)
    rank_T = torch.arange(len(pair_T), device=pair_T.device) - (count_P.cumsum(0) - count_P)[pair_T]
    anchor_T = anchor_P[pair_T]
    return anchor_T, positive_P[pair_T], negative_N[first_A[anchor_T] + rank_T]


class LabelLoss(nn.Module, ABC):
    """Base of the losses over labels; a loss adds its settings and `_value`.

    Args:
        distance: one of pytorch-metric-learning's that the loss can follow; it then also says whether rows are first
            made unit length.
        reducer: one of pytorch-metric-learning's that the loss can follow.
        embedding_regularizer: called with the embeddings, for a scalar to be added; such as that library's.
        embedding_reg_weight: its weight.

    Raises:
        BadInputError: a distance or reducer that the loss cannot follow.
    """

    takes: ClassVar[tuple[str, ...]] = ()  # which optional arguments of `forward`
    distances: ClassVar[Mapping[str, float | None]] = {}  # the squared length that each gives rows, None as they are
    reducers: ClassVar[tuple[str, ...]] = ("MeanReducer",)
    images_meet: ClassVar[bool] = True  # whether images are compared with each other

    def __init__(
        self,
        *,
        distance: Any = None,
        reducer: Any = None,
        embedding_regularizer: Callable[[Tensor], Tensor] | None = None,
        embedding_reg_weight: float = 1.0,
    ) -> None:
        super().__init__()
        found = None if reducer is None else type(reducer).__name__
        self._reducer = self._follow(found, self.reducers, "reducer")
        self._distance = self._follow(distance_name(distance), self.distances, "distance")
        self._square_length = self.distances.get(self._distance or "")
        self.embedding_regularizer, self.embedding_reg_weight = embedding_regularizer, embedding_reg_weight

    def forward(
        self,
        embeddings: Float[Tensor, "B D"],
        labels: Integer[Tensor, "B"],
        indices_tuple: Sequence[Integer[Tensor, "T"]] | None = None,
        ref_emb: Float[Tensor, "R D"] | None = None,
        ref_labels: Integer[Tensor, "R"] | None = None,
        *,
        verticals: Integer[Tensor, "B"] | None = None,
        assigned: Integer[Tensor, "B"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of one batch.

        Args:
            embeddings: one row an image.
            labels: the product of each row.
            indices_tuple: a miner's choice of rows: (anchors, positives, negatives), or (anchors, positives, anchors,
                negatives) for pairs. Losses that compare pairs of images then look at no others; the rest refuse it.
            ref_emb: rows to find positives and negatives among, in place of the batch.
            ref_labels: their products.
            verticals: the vertical of each row; negatives are then of the anchor's own.
            assigned: the proxy of each row, -1 where it is not known, for `DynamicProxyNCALoss`.

        Returns:
            a float32 scalar; NaN where an embedding is not finite.

        Raises:
            BadInputError: wrong shapes, dtypes or indices, or an argument that this loss has no use for.
        """
        given = {"indices_tuple": indices_tuple, "ref_emb": ref_emb, "verticals": verticals, "assigned": assigned}
        for name, value in given.items():
            if value is not None and name not in self.takes:
                raise BadInputError(
                    f"{type(self).__name__} has no use for {name}: it chooses itself what an image is compared with; "
                    "leave it out"
                )
        check_batch(embeddings, labels, verticals)
        if self.images_meet and not torch.compiler.is_compiling() and _processes() > 1:
            _warn_of_other_processes(type(self).__name__)
        if (ref_emb is None) != (ref_labels is None):
            raise BadInputError("ref_emb and ref_labels must come together, got only one; pass both or none")
        if ref_emb is not None and ref_labels is not None:
            check_points(ref_emb, embeddings.shape[1], name="ref_emb")
            check_labels(ref_labels, ref_emb, name="ref_labels")
        if verticals is not None and (indices_tuple is not None or ref_emb is not None):
            raise BadInputError("verticals go with neither indices_tuple nor ref_emb; mine within them instead")
        if indices_tuple is not None:
            references = labels if ref_emb is None else ref_emb
            indices_tuple = _checked_indices(indices_tuple, len(labels), len(references), embeddings.device)
        batch = Batch(
            embeddings=self._scaled(embeddings),
            labels=labels.to(embeddings.device),
            references=None if ref_emb is None else self._scaled(ref_emb),
            reference_labels=None if ref_labels is None else ref_labels.to(embeddings.device),
            indices=indices_tuple,
            verticals=verticals,
            assigned=assigned,
        )
        value = self._value(batch).float() + 0 * embeddings.float().sum()  # NaN whichever rows the loss looked at
        if self.embedding_regularizer is not None:
            value = value + self.embedding_reg_weight * self.embedding_regularizer(embeddings)
        return value

    @abstractmethod
    def _value(self, batch: Batch) -> Float[Tensor, ""]:
        """The loss of a batch that has been checked."""

    def _scaled(self, rows: Tensor) -> Tensor:
        return rows if self._square_length is None else self._square_length**0.5 * unit_rows(rows)

    def _follow(self, found: str | None, known: Iterable[str], name: str) -> str | None:
        if found is not None and found not in known:
            can = ", ".join(known) or "left out"
            raise BadInputError(f"{name} of {type(self).__name__} must be one of {can}; got {found}")
        return found


def distance_name(distance: Any) -> str | None:
    """How one of pytorch-metric-learning's distances is made there."""
    kind, unit = type(distance).__name__, bool(getattr(distance, "normalize_embeddings", True))
    p, power = getattr(distance, "p", 2), getattr(distance, "power", 1)
    if kind == "LpDistance" and p == 2 and power in (1, 2):
        name = "PLAIN" if power == 1 else "SQUARED"
        return Known[name if unit else f"{name}_AS_IS"]
    if kind in ("CosineSimilarity", "DotProductSimilarity") and p == 2 and power == 1:
        return Known.COSINE if unit else Known.DOT_AS_IS
    return None if distance is None else f"{kind}(p={p}, power={power})"


def _checked_indices(
    given: Sequence[Any], rows: int, references: int, device: torch.device
) -> tuple[Integer[Tensor, "T"], ...]:
    """A miner's choice (tensors, or what can be made one) as int64, or a refusal."""
    try:
        indices = [torch.as_tensor(index, device=device) for index in given]
    except (TypeError, ValueError, RuntimeError):  # no sequence, or no numbers
        indices = []
    shapes, four = [tuple(index.shape) for index in indices], len(indices) == 4
    paired = len(indices) in (3, 4) and shapes[0] == shapes[1] and shapes[-1] == shapes[-2 if four else 0]
    if not paired or any(
        index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool for index in indices
    ):
        raise BadInputError(
            "indices_tuple must be 3 integer vectors of one length (anchors, positives, negatives), or 4 (anchors, "
            f"positives, anchors, negatives) of which the first two and the last two are as long; got shapes {shapes}"
        )
    for place, index in enumerate(indices):
        of_batch = place == 0 or (place == 2 and four)
        rule = "must index rows 0..{} of " + ("the batch" if of_batch or rows == references else "ref_emb")
        check_indices(index, rows if of_batch else references, name="indices_tuple", rule=rule)
    return tuple(index.long() for index in indices)


def _processes() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


@functools.cache
def _warn_of_other_processes(loss: str) -> None:
    warnings.warn(
        f"{loss} compares the images of this process alone, so with several processes it is not the loss of the whole "
        "batch; gather embeddings and labels first, or use a loss of single images such as ProxyNCALoss",
        stacklevel=4,
    )
