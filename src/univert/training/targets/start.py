"""The start of a unified model: its members as one.

On a frozen base network all members read the same features, and the learning target is, up to the members' norms, the
sum of their mapped embeddings. So one head with the hidden units of all members, side by side, gives that sum as it
stands, and the L2 training goes on from there.

Where the base network learns, each member has its own. But all have learned from one start, and then the mean of their
weights is a model, too, and often a better one than each of them ("model soup", Wortsman et al., arXiv 2203.05482).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from univert.models.embedder import Embedder
from univert.models.head import Head
from univert.training.averaging import greedy_soup
from univert.training.run_context import RunContext
from univert.training.sources import Source
from univert.training.targets.alignment import orthogonal_alignment
from univert.training.targets.map import TargetMap
from univert.training.view_arrays import Positions, ViewArrays

FIT_IMAGES = 2_000
"""Norms, rotations and the statistics of the batch normalisation are taken from at most so many training images."""

Part = tuple[Embedder, Float[np.ndarray, "W D"]]


def embedder_of_members(
    context: RunContext, fitted: TargetMap, targets: ViewArrays, images: Positions
) -> Embedder | None:
    """An embedder made of the members that embed most of the verticals: heads side by side, or the mean of weights.

    Norms and statistics are taken from the training images given.

    Args:
        context: the run.
        fitted: how the members make up the targets.
        targets: of every image.
        images: positions of training images.

    Returns:
        the embedder; None where there is nothing to join: on a frozen base network fewer than two such members, else
        none, or members that do not all have one hidden layer, or none.
    """
    frozen = context.recipe.base_network_learns == "no"
    parts = _parts(fitted)
    layers = {len(_hidden(model)) for model, _ in parts}
    if len(parts) < (2 if frozen else 1) or layers not in ({0}, {1}):
        return None
    positions = images[:: math.ceil(len(images) / FIT_IMAGES)]
    if not frozen:
        soup = greedy_soup([model for model, _ in parts], _validation_score(context))
        vectors = context.features.source.embed_all(soup, positions)
        parts = [(soup, orthogonal_alignment(vectors, targets.clean(positions)))]
    widths = (sum(_hidden(model)[0].out_features for model, _ in parts),) if layers == {1} else ()
    embedder = context.new_embedder(batch_norm=True, size=targets.width, hidden_sizes=widths)
    embedder.base_network.load_state_dict(parts[0][0].base_network.state_dict())
    embedder.pooling.load_state_dict(parts[0][0].pooling.state_dict())
    assert isinstance(embedder.head, Head)
    with torch.no_grad():
        heads = [(model.head, matrix) for model, matrix in parts if isinstance(model.head, Head)]
        _join(embedder.head, heads, _features(context.features.source, embedder.eval(), positions))
    return embedder


def _validation_score(context: RunContext) -> Callable[[Embedder], float] | None:
    """MAP@R of an embedder on all validation images, if any ask."""
    images, positions = context.images, context.images.validation_queries
    if positions is None:
        return None
    return lambda model: images.map_at_r(context.features.source.embed_all(model, positions), positions)


def _features(source: Source, embedder: Embedder, positions: Positions) -> Float[Tensor, "N F"]:
    found = []
    for start in range(0, len(positions), source.batch_size):
        part = positions[start : start + source.batch_size]
        inputs = source.load(part, np.zeros(len(part), np.int64)).to(embedder.device)
        found.append(source.pooled(embedder, inputs))
    return torch.cat(found)


def _parts(targets: TargetMap) -> list[Part]:
    """The models that embed most of the verticals and have a head, with their mean matrix."""
    parts = []
    for member, matrices in zip(targets.members, targets.matrices, strict=True):
        for model in member.distinct:
            own = [number for number, other in enumerate(member.models) if other.key == model.key]
            embedder = member.embedders[own[0]]
            if 2 * len(own) > len(member.models) and isinstance(embedder.head, Head):
                parts.append((embedder, np.mean([matrices[number] for number in own], axis=0)))
    return parts


def _hidden(model: Embedder) -> list[nn.Linear]:
    assert isinstance(model.head, Head)
    return [layer for layer in model.head.first if isinstance(layer, nn.Linear)]


def _join(head: Head, parts: Sequence[tuple[Head, Float[np.ndarray, "W D"]]], features: Float[Tensor, "N F"]) -> None:
    """Fill a head with the hidden units of others, and with a linear map that sums what they give."""
    head.eval()
    shift = torch.zeros(head.second.out_features, device=features.device)
    weights = []
    for part, matrix in parts:
        weight, bias = _linear_part(part)
        norm = part(features).norm(dim=1).mean().clamp_min(1e-6)
        turn = torch.from_numpy(matrix).to(features.device, weight.dtype) / norm
        weights.append(turn.T @ weight)
        shift += bias @ turn
    if len(head.first):
        for name, units in head.first.state_dict().items():
            if units.ndim:
                units.copy_(torch.cat([part.first.state_dict()[name] for part, _ in parts]))
        head.second.weight.copy_(torch.cat(weights, dim=1))
    else:
        head.second.weight.copy_(torch.stack(weights).sum(dim=0))
    # a batch normalisation that changes nothing yet, but for the shift
    outputs = head.second(head.first(features))
    mean, variance = outputs.mean(dim=0), outputs.var(dim=0, unbiased=False)
    after = head.batch_norm
    assert isinstance(after, nn.BatchNorm1d)
    after.running_mean.copy_(mean)  # type: ignore[union-attr]
    after.running_var.copy_(variance)  # type: ignore[union-attr]
    after.weight.copy_((variance + after.eps).sqrt())
    after.bias.copy_(mean + shift)


def _linear_part(head: Head) -> tuple[Float[Tensor, "D H"], Float[Tensor, " D"]]:
    """What a head does behind its hidden units, at inference, as one linear map: weight and bias."""
    weight = head.second.weight
    bias = torch.zeros(len(weight), device=weight.device) if head.second.bias is None else head.second.bias
    after = head.batch_norm
    if isinstance(after, nn.BatchNorm1d):
        assert after.running_mean is not None
        assert after.running_var is not None
        scale = after.weight / (after.running_var + after.eps).sqrt()
        return weight * scale[:, None], after.bias + (bias - after.running_mean) * scale
    return weight, bias
