"""The two fully connected sets that turn pooled features into an embedding, and the L2 norm behind them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from univert.core.errors import BadInputError


class Head(nn.Module):
    """First fully connected set, second fully connected set, optional batch normalisation (Unified FIG. 2).

    Args:
        feature_size: width of the pooled features.
        hidden_sizes: widths of the first set; each layer is Linear, batch normalisation, ReLU. May be empty.
        size: width of the embedding: the second set, one Linear.
        batch_norm: normalise the embedding over the batch before the L2 norm, as Unified does for its L2
            training.
        dropout: probability of dropping a unit before the second set.
    """

    def __init__(
        self, feature_size: int, hidden_sizes: Sequence[int], size: int, *, batch_norm: bool, dropout: float
    ) -> None:
        super().__init__()
        first: list[nn.Module] = []
        width = feature_size
        for hidden in hidden_sizes:
            first += [nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
            width = hidden
        if dropout:
            first.append(nn.Dropout(dropout))
        self.first = nn.Sequential(*first)
        self.second = nn.Linear(width, size, bias=not batch_norm)
        self.batch_norm = nn.BatchNorm1d(size) if batch_norm else nn.Identity()
        self._normalises_over_batch = batch_norm or bool(hidden_sizes)

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B D"]:
        """Embeddings before the L2 norm.

        Raises:
            BadInputError: one image alone in training mode, where batch normalisation has nothing to compare
                it with.
        """
        if self.training and self._normalises_over_batch and len(features) == 1:
            raise BadInputError("a training batch must hold at least 2 images, got 1: batch normalisation needs more")
        embedding: Tensor = self.batch_norm(self.second(self.first(features)))
        return embedding


def l2_normalise(vectors: Float[Tensor, "*B D"], eps: float = 1e-12) -> Float[Tensor, "*B D"]:
    """Scale vectors to length 1, in single precision or better; a vector shorter than `eps` is left as it is.

    Unlike `torch.nn.functional.normalize`, a zero vector has a finite gradient of ordinary size.
    """
    vectors = vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors
    squared = vectors.square().sum(-1, keepdim=True)
    safe = torch.where(squared > eps * eps, squared, torch.ones_like(squared))
    return vectors / safe.sqrt()
