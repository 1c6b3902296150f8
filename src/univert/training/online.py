"""Online: all specialists and the unified model in one training, as heads on one base network.

Source: Ypsilantis et al., "UDON: Universal Dynamic Online distillatioN for generic image representations", arXiv
2406.08332. What is different here, since it did better (docs/train.md): a batch mixes verticals, and the base network
learns from the unified head alone. The loss of all heads is Proxy-NCA.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from univert.core.config import to_plain
from univert.core.tensors import unit_rows
from univert.data.samplers import PKSampler, Positions, step_rng
from univert.losses.proxy_nca_loss import ProxyNCALoss
from univert.models.embedder import Embedder
from univert.models.head import Head
from univert.training.jobs import TrainedModel, TrainingJob
from univert.training.label_config import SpecialistsConfig
from univert.training.label_training import label_loss, labelled_products
from univert.training.objectives import LabelObjective
from univert.training.run_context import RunContext
from univert.training.sources import PooledSource
from univert.training.specialists import joint_config

TEMPERATURE = 2.0
"""Of the soft-max over a vertical's products that the unified head learns from a specialist."""
SMOOTHING = 0.9
"""So much of a vertical's running loss stays when a batch gives a new one."""
MASTERED = 0.01
"""A vertical whose loss is this share of what chance gives has its turn half as often as one with three times that."""


def train_online(context: RunContext, image_presentations: int, *, name: str) -> TrainedModel:
    """Train (or load) a unified model together with specialists on its own base network, in the folder `name`.

    The loop is that of a joint Proxy-NCA model, which sees as many images at most. The unified model alone is kept, an
    embedder like any other.
    """
    config = online_config(context, image_presentations)
    inputs = {"online": to_plain(config), "specialists": context.images.vertical_names}
    return context.stages.train(name, inputs, lambda: online_job(context, config))


def online_config(context: RunContext, image_presentations: int) -> SpecialistsConfig:
    """The training as that of one Proxy-NCA model: of the specialists' settings, it takes the loop and the scale."""
    config = joint_config(context, "proxy-nca", image_presentations)
    scale = {name: value for name, value in config.loss_options.items() if name == "softmax_scale"}
    return SpecialistsConfig(loss="proxy-nca", loss_options=scale, loop=config.loop)


def online_job(context: RunContext, config: SpecialistsConfig) -> TrainingJob:
    """What a unified model and the specialists on its base network learn together."""
    embedder, loop = context.new_embedder(), config.loop
    products = labelled_products(context, np.ones(len(context.images.catalogue), bool))
    objective = OnlineObjective(context, config, embedder, products)
    sampler = PKSampler(
        products,
        products_per_batch=loop.batch_size // config.images_per_product,
        images_per_product=config.images_per_product,
        turns=lambda: objective.turns.cpu().numpy(),
        seed=context.recipe.seed,
    )
    source = PooledSource(context.features.source)
    return TrainingJob(
        embedder=embedder,
        objective=objective,
        sampler=sampler,
        loop=loop,
        settings="specialists.loop",
        source=source,
        starts_trained=True,
    )


def proxy_nca(config: SpecialistsConfig, size: int, products: int, seed: int) -> ProxyNCALoss:
    """The loss of a head of that width over so many products."""
    loss = label_loss(config, products=products, size=size, seed=seed)
    assert isinstance(loss, ProxyNCALoss)
    return loss


class Specialist(nn.Module):
    """A linear head on the unified model's base network, with proxies for the products of its own vertical.

    Args:
        head: from pooled features to its embedding.
        loss: over its products, in the order of `products`.
        products: their codes, sorted.
    """

    products: Tensor

    def __init__(self, head: Head, loss: ProxyNCALoss, products: Int64[np.ndarray, "C"]) -> None:
        super().__init__()
        self.head, self.loss = head, loss
        self.register_buffer("products", torch.from_numpy(products), persistent=False)

    def forward(
        self, features: Float[Tensor, "B F"], labels: Int64[Tensor, "B"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B C"]]:
        """Its own loss, where labels are places in `products`; and its logits, without gradient."""
        embeddings = unit_rows(self.head(features))
        loss: Tensor = self.loss(embeddings, labels)
        return loss, logits(self.loss, embeddings, self.loss.bank()).detach()


def logits(loss: ProxyNCALoss, embeddings: Float[Tensor, "B D"], proxies: Float[Tensor, "C D"]) -> Float[Tensor, "B C"]:
    """What Proxy-NCA takes the soft-max of, up to a constant: between unit rows |x - p|^2 = 2 - 2 x.p."""
    return 2 * loss.softmax_scale * unit_rows(embeddings) @ unit_rows(proxies).T


def divergence(found: Float[Tensor, "B C"], wanted: Float[Tensor, "B C"]) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence of two soft-maxes at `TEMPERATURE`, of the same size of gradient at any temperature.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.
    """
    mine, theirs = ((each / TEMPERATURE).log_softmax(1) for each in (found, wanted))
    return TEMPERATURE**2 * functional.kl_div(mine, theirs, log_target=True, reduction="batchmean")


class OnlineObjective(LabelObjective):
    """Product labels for all heads, and what the unified one learns from the specialists'.

    It takes pooled features, not embeddings; see `PooledSource`. The unified head learns all products. The specialist
    of each vertical in the batch learns that vertical's. And for its images, the unified head learns the soft-max over
    the vertical's products that the specialist gives (Kullback-Leibler divergence). No gradient of this reaches the
    specialist, and none of the specialist's own loss the base network.

    A product's turn comes again the sooner, the more slowly the unified head learns its vertical: by its loss among the
    vertical's products, as a share of what chance gives, in a running mean. The loop draws a batch once the loss of the
    one before is known, so these two are all that the next batch depends on.

    Attributes:
        running: that mean, of each vertical.
        turns: when the turn of each product comes.
    """

    loss: ProxyNCALoss
    running: Tensor
    turns: Tensor
    specialist_of_product: Tensor

    def __init__(
        self, context: RunContext, config: SpecialistsConfig, embedder: Embedder, products: Int64[np.ndarray, "N"]
    ) -> None:
        seed, codes, verticals = context.recipe.seed, int(products.max()) + 1, context.images.verticals
        new_loss = partial(proxy_nca, config, embedder.size)
        super().__init__(new_loss(codes, seed), products)
        self._project: Callable[[Tensor], Tensor] = embedder.project
        self._specialist_of_image = np.full(len(products), -1)
        specialist_of_product = torch.full((codes,), -1)
        self._specialists: list[Specialist] = []
        for vertical in range(len(context.images.vertical_names)):
            here = (verticals == vertical) & (products >= 0)
            own = np.unique(products[here])
            if len(own) < 2:  # nothing to tell apart
                continue
            self._specialist_of_image[here] = specialist_of_product[own] = len(self._specialists)
            head = Head(embedder.feature_size, (), embedder.size, batch_norm=False)
            head.start_along(*context.features.directions)
            self._specialists.append(Specialist(head, new_loss(len(own), seed + 1 + vertical), own))
        self.specialists = nn.ModuleList(self._specialists)
        self.register_buffer("specialist_of_product", specialist_of_product, persistent=False)
        self.register_buffer("running", torch.ones(len(self.specialists)))
        self.register_buffer("turns", torch.from_numpy(step_rng(seed, 3).random(codes)))

    def head_parameters(self) -> list[nn.Parameter]:
        """See `Objective`."""
        return [parameter for each in self._specialists for parameter in each.head.parameters()]

    def forward(self, features: Float[Tensor, "B F"], positions: Positions, views: Positions) -> Float[Tensor, ""]:
        """The sum of the losses, those of a vertical by its share of the batch."""
        embeddings = self._project(features)
        total = super().forward(embeddings, positions, views)
        labels, proxies = self._products[positions].to(features.device), self.loss.bank()
        self._next_turns(labels.unique())
        whose = self._specialist_of_image[positions]
        for number in np.unique(whose[whose >= 0]).tolist():
            rows = torch.from_numpy(np.flatnonzero(whose == number)).to(features.device)
            specialist = self._specialists[number]
            own = torch.searchsorted(specialist.products, labels[rows])
            own_loss, wanted = specialist(features[rows].detach(), own)
            found = logits(self.loss, embeddings[rows], proxies[specialist.products])
            total = total + len(rows) / len(positions) * (own_loss + divergence(found, wanted))
            difficulty = functional.cross_entropy(found.detach(), own) / math.log(found.shape[1])
            self.running[number].lerp_(difficulty, 1 - SMOOTHING)
        return total

    def _next_turns(self, products: Int64[Tensor, "P"]) -> None:
        """Each product has one turn, at random, in each period; its vertical's period is 1 where it is like the mean.

        So where all verticals learn alike, a period is an epoch, shuffled anew.
        """
        to_learn = self.running + MASTERED
        periods = torch.cat([to_learn.mean() / to_learn, to_learn.new_ones(1)])  # the last: without a specialist
        period = periods[self.specialist_of_product[products]].double()
        begun = (self.turns[products] / period).floor()
        self.turns[products] = period * (begun + 1 + torch.rand(len(products)).to(period))
