"""Objectives: a loss together with what it looks up for the images of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.data.samplers import Positions
from univert.losses.dynamic_proxy_nca_loss import DynamicProxyNCALoss
from univert.proxies.bank import ProxyBank
from univert.proxies.dynamic import DynamicAssignment
from univert.training.view_arrays import ViewArrays

MovedRows = tuple[nn.Parameter, Tensor]
EmbedAll = Callable[[Positions], Float[np.ndarray, "N D"]]


class Objective(nn.Module, ABC):
    """A loss with the lookup it needs; whatever is a parameter of it learns with the model."""

    @abstractmethod
    def forward(self, embeddings: Float[Tensor, "B D"], positions: Positions, views: Positions) -> Float[Tensor, ""]:
        """The loss of the images at `positions`, shown in `views`."""

    def head_parameters(self) -> list[nn.Parameter]:
        """Those parameters that learn as the model's head does; the others learn as proxies do."""
        return []

    def proxy_parameters(self) -> list[nn.Parameter]:
        """All other parameters."""
        heads = {id(parameter) for parameter in self.head_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in heads]

    def after_step(self, step: int, embed_all: EmbedAll) -> list[MovedRows]:
        """What is to be done after a step (counted from 0); gives rows whose momentum the optimiser is to forget."""
        return []

    def figures(self) -> dict[str, float]:
        """Further figures of the training that are worth watching."""
        return {}


class LabelObjective(Objective):
    """A loss over product labels: `loss(embeddings, labels)`, the convention of pytorch-metric-learning.

    The loss's own parameters (proxies) learn with it. `products` has the code of every image of the catalogue.
    """

    def __init__(self, loss: nn.Module, products: Int64[np.ndarray, "N"]) -> None:
        super().__init__()
        self.loss = loss
        self._products = torch.as_tensor(products)

    def forward(self, embeddings: Float[Tensor, "B D"], positions: Positions, views: Positions) -> Float[Tensor, ""]:
        """The loss of the images at `positions`, whatever their view.

        Raises:
            BadInputError: one of them has no product; the sampler must leave those out.
        """
        labels = self._products[positions]
        if (labels < 0).any():
            raise BadInputError(
                f"a batch of labelled images holds one without a product, at position "
                f"{int(positions[int(labels.argmin())])}; give the sampler the products that the objective has"
            )
        value: Tensor = self.loss(embeddings, labels.to(embeddings.device), **self._given(positions))
        return value

    def _given(self, positions: Positions) -> dict[str, Tensor]:
        """Further arguments of the loss."""
        return {}


class DynamicObjective(LabelObjective):
    """Dynamic assignment (Proxies, method 1000): the images themselves say which proxy stands for them.

    In a batch each image goes to its nearest proxy. Every `reseed_every_steps` steps all images do, and proxies that
    no image chose are put where images are crowded.

    With `random_first`, each image belongs to a random proxy until all are assigned anew for the first time.

    The loss learns from the labels only which images of a batch are of one product.
    """

    dead: Tensor

    def __init__(
        self,
        loss: DynamicProxyNCALoss,
        products: Int64[np.ndarray, "N"],
        *,
        reseed_every_steps: int,
        seed: int,
        random_first: bool = False,
    ) -> None:
        super().__init__(loss, products)
        self._bank: ProxyBank = loss.bank
        self._positions = np.flatnonzero(products >= 0)
        self._every, self._seed, self._random_first = reseed_every_steps, seed, random_first
        self.assignment = DynamicAssignment(len(self._positions), loss.bank.count)
        self.register_buffer("dead", torch.full((), torch.nan))
        if random_first:
            generator = torch.Generator().manual_seed(seed)
            self.assignment.nearest.random_(loss.bank.count, generator=generator)

    def _given(self, positions: Positions) -> dict[str, Tensor]:
        if not self._random_first or self.assignment.refreshes:
            return {}
        places = torch.from_numpy(np.searchsorted(self._positions, positions))
        return {"assigned": self.assignment(places.to(self._bank.proxies.device))}

    def after_step(self, step: int, embed_all: EmbedAll) -> list[MovedRows]:
        """Assign all images anew, where it is time, and put dead proxies to use."""
        if (step + 1) % self._every:
            return []
        proxies = self._bank.proxies
        vectors = torch.from_numpy(embed_all(self._positions)).to(proxies.device)
        self.dead.fill_(self.assignment.refresh(vectors, proxies).dead)
        return [(proxies, self.assignment.reseed(self._bank, vectors, seed=self._seed))]

    def figures(self) -> dict[str, float]:
        """How many proxies no image had chosen when all were last assigned anew; they have been put to use since."""
        return {} if self.dead.isnan() else {"dead_proxies": float(self.dead)}


def label_objective(
    loss: nn.Module,
    products: Int64[np.ndarray, "N"],
    *,
    reseed_every_steps: int = 20,
    seed: int = 0,
    random_first: bool = False,
) -> Objective:
    """The objective that suits a loss over product labels."""
    if isinstance(loss, DynamicProxyNCALoss):
        return DynamicObjective(
            loss, products, reseed_every_steps=reseed_every_steps, seed=seed, random_first=random_first
        )
    return LabelObjective(loss, products)


class TargetObjective(Objective):
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

    def forward(self, embeddings: Float[Tensor, "B D"], positions: Positions, views: Positions) -> Float[Tensor, ""]:
        """The loss of the images at `positions`, shown in `views`."""
        wanted = self._targets.gather(positions, views) if self._consistent else self._targets.clean(positions)
        value: Tensor = self.loss(embeddings, torch.from_numpy(wanted).to(embeddings.device))
        return value
