"""Proxies in training: where they start, and how well they stand for their images as training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import nn

from univert.losses.dynamic_proxy_nca_loss import DynamicProxyNCALoss
from univert.losses.proxy_nca_loss import ProxyNCALoss
from univert.losses.proxy_triplet_loss import ProxyTripletLoss
from univert.models.embedder import Embedder
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bank import ProxyBank
from univert.proxies.bounds import measure_bounds, monitor_points
from univert.proxies.dynamic import start_from_points
from univert.training.run_context import RunContext

WATCHED = {
    "nca_tightness": "NCA bound minus loss",
    "triplet_tightness": "triplet bound minus loss",
    "order_preserved": "triplet order kept by proxies",
    "dead_proxies": "dead proxies",
}
"""What the report shows of a loss with proxies, and its name for people; TensorBoard has more."""


def start_proxies(
    loss: nn.Module, embeddings: Float[np.ndarray, "N D"], products: Int64[np.ndarray, "N"], *, seed: int
) -> None:
    """Move a loss's proxies to where the images are, by the network as it is before training.

    Proxies that belong to products go to the means of their images, dynamic ones among the images.

    Args:
        loss: has a `bank`, and an `assignment` unless it is dynamic.
        embeddings: one row an image.
        products: the product of each, from 0.
        seed: of the split of a product's images between several proxies, and of the choice of images.
    """
    bank, assignment = loss.bank, getattr(loss, "assignment", None)
    assert isinstance(bank, ProxyBank)
    points = torch.from_numpy(embeddings)
    if isinstance(loss, DynamicProxyNCALoss):
        start_from_points(bank, points, seed=seed)
    else:
        assert isinstance(assignment, StaticAssignment)
        bank.fill_(points, torch.from_numpy(products), assignment, seed=seed)


def bounds_monitor(
    context: RunContext, embedder: Embedder, loss: nn.Module, products: Int64[np.ndarray, "N"]
) -> Callable[[], Mapping[str, float]] | None:
    """What watches how tightly a loss with proxies bounds the loss on the images themselves.

    Args:
        context: the run; `evaluation.bounds_images` says on how many labelled training images.
        embedder: looked at as it stands at each call.
        loss: likewise.
        products: the product code of every image of the catalogue, -1 for those that do not count.

    Returns:
        None for a loss without proxies, and where the recipe switches it off.
    """
    bank = getattr(loss, "bank", None)
    count, seed = context.recipe.evaluation.bounds_images, context.recipe.seed
    if not isinstance(bank, ProxyBank) or not count:
        return None
    labelled = np.flatnonzero(products >= 0)
    positions = labelled[monitor_points(torch.from_numpy(products[labelled]), limit=count, seed=seed)]
    labels = torch.from_numpy(products[positions])
    bounded = _bounded(loss)

    def measure() -> Mapping[str, float]:
        vectors = torch.from_numpy(context.source.embed_all(embedder, positions))
        assignment = getattr(loss, "assignment", None)
        own = None if assignment is None else assignment(labels.to(assignment.table.device)).cpu()
        found = measure_bounds(
            vectors, labels, bank().detach().cpu(), own, scale=bounded.scale, margin=bounded.margin, seed=seed
        )
        return {name: value for name, value in found.items() if name.startswith(bounded.figures)}

    return measure


@dataclass(frozen=True, kw_only=True)
class _Bounded:
    """What of the bounds means something for a loss.

    Attributes:
        figures: how the names of those figures begin.
        scale: 1/temperature, where squared distances of unit vectors are multiplied by it.
        margin: of the triplet loss.
    """

    figures: tuple[str, ...] = ("eps", "order")
    scale: float = 1.0
    margin: float = 0.2


def _bounded(loss: nn.Module) -> _Bounded:
    both = ("eps", "order", "ranking", "nca", "triplet")
    if isinstance(loss, ProxyTripletLoss):
        return _Bounded(figures=("eps", "order", "ranking", "triplet"), margin=loss.margin)
    if isinstance(loss, (DynamicProxyNCALoss, ProxyNCALoss)):
        return _Bounded(figures=both, scale=loss.softmax_scale)
    return _Bounded()
