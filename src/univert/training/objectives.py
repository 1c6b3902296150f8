"""Objectives: a loss together with what it looks up for the images of a batch."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from univert.training.views import ViewArrays

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

    def forward(
        self, embeddings: Float[Tensor, "B D"], positions: Positions, views: Positions
    ) -> Float[Tensor, ""]:
        """The loss of the images at `positions`, whatever their view."""
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
        targets: the learning target of every image and view.
        consistent: the target is what the specialist gives for the very view that the model sees; otherwise
            what it gives for the image as it is.
    """

    def __init__(self, loss: nn.Module, targets: ViewArrays, *, consistent: bool = True) -> None:
        super().__init__()
        self.loss = loss
        self._targets, self._consistent = targets, consistent

    def forward(
        self, embeddings: Float[Tensor, "B D"], positions: Positions, views: Positions
    ) -> Float[Tensor, ""]:
        """The loss of the images at `positions`, shown in `views`."""
        wanted = (
            self._targets.gather(positions, views) if self._consistent else self._targets.clean(positions)
        )
        value: Tensor = self.loss(embeddings, torch.from_numpy(wanted).to(embeddings.device))
        return value
