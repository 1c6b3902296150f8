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
    """

    def __init__(self, loss: nn.Module, products: Int64[np.ndarray, "N"]) -> None:
        super().__init__()
        self.loss = loss
        self._products = torch.as_tensor(products)

    def forward(
        self, embeddings: Float[Tensor, "B D"], positions: Positions, views: Positions
    ) -> Float[Tensor, ""]:
        """The loss of the images at `positions`, whatever their view."""
        value: Tensor = self.loss(embeddings, self._products[positions].to(embeddings.device))
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
