"""Objectives: a loss together with what it looks up for the images of a batch."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

Positions = Int64[np.ndarray, "B"]


class LabelObjective(nn.Module):
    """A loss over product labels: `loss(embeddings, labels)`, the convention of pytorch-metric-learning.

    Args:
        loss: any such module; its own parameters (proxies) learn with it.
        products: the product code of every image of the catalogue.
        verticals: given, the loss is called with `verticals=` as well, and keeps negatives within them.
    """

    def __init__(
        self,
        loss: nn.Module,
        products: Int64[np.ndarray, "N"],
        verticals: Int64[np.ndarray, "N"] | None = None,
    ) -> None:
        super().__init__()
        self.loss = loss
        self._products = torch.as_tensor(products)
        self._verticals = None if verticals is None else torch.as_tensor(verticals)

    def forward(self, embeddings: Float[Tensor, "B D"], positions: Positions) -> Float[Tensor, ""]:
        """The loss of the images at `positions`."""
        labels = self._products[positions].to(embeddings.device)
        if self._verticals is None:
            value: Tensor = self.loss(embeddings, labels)
        else:
            value = self.loss(embeddings, labels, verticals=self._verticals[positions].to(embeddings.device))
        return value


class TargetObjective(nn.Module):
    """A loss towards the learning target of each image: `loss(embeddings, targets)`.

    Args:
        loss: any such module.
        targets: the learning target of every image of the catalogue (rows of images without one are not asked for).
    """

    def __init__(self, loss: nn.Module, targets: Float[np.ndarray, "N D"]) -> None:
        super().__init__()
        self.loss = loss
        self._targets = targets

    def forward(self, embeddings: Float[Tensor, "B D"], positions: Positions) -> Float[Tensor, ""]:
        """The loss of the images at `positions`."""
        wanted = torch.from_numpy(self._targets[positions]).to(embeddings.device)
        value: Tensor = self.loss(embeddings, wanted)
        return value
