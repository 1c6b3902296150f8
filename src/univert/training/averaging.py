"""Means of weights: of models that learned from one start, and of a model and its start.

Along the line between such weights the error hardly rises and often falls, since both lie in one valley of the loss.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

import torch
from torch import Tensor

from univert.models.embedder import Embedder

START_SHARES = (0.25, 0.5, 0.75)
"""How much of its start a trained model may take back."""


def greedy_soup(models: Sequence[Embedder], score: Callable[[Embedder], float] | None) -> Embedder:
    """The mean of some models' weights: the best model first, another where the mean with it is no worse.

    Without a score all are in, as far as they have the shapes of the first.

    Source: Wortsman et al., Model soups, arXiv 2203.05482, recipe 1.
    """
    scores = [score(model) if score else 0.0 for model in models]
    (best, soup), *others = sorted(zip(scores, models, strict=True), key=itemgetter(0), reverse=True)
    taken = 1
    for _, model in others:
        if model.config != soup.config:
            continue
        mean = towards(soup, model, 1 / (taken + 1))
        reached = score(mean) if score else best
        if reached >= best:
            soup, best, taken = mean, reached, taken + 1
    return soup


def _between(one: Mapping[str, Tensor], other: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The weights at that share of the way to others; what is counted in integers is left as it is."""
    return {
        name: torch.lerp(value, other[name], share) if value.is_floating_point() else value
        for name, value in one.items()
    }


def towards(model: Embedder, other: Embedder, share: float) -> Embedder:
    """A copy of a model, its weights at that share of the way to another's of the same shapes."""
    mean = copy.deepcopy(model).eval()
    mean.load_state_dict(_between(model.state_dict(), other.state_dict(), share))
    return mean


def back_to_start(
    model: torch.nn.Module, start: Mapping[str, Tensor], score: Callable[[], float], reached: float
) -> tuple[float, float]:
    """Take a quarter to three quarters of the start back into a trained model's weights, where that scores better.

    A model of few products forgets less of what it knew so. Source: Wortsman et al., Robust fine-tuning of zero-shot
    models (WiSE-FT), arXiv 2109.01903.

    Args:
        model: changed in place, and left in evaluation mode.
        start: by name, the values before the training of all that learned.
        score: of the model as it stands; larger is better.
        reached: the score of the trained model.

    Returns:
        the score of what is kept, and the share of the start in it.
    """
    learned = {name: value.clone() for name, value in model.state_dict().items() if name in start}
    kept, best, kept_share = learned, reached, 0.0
    for share in START_SHARES:
        mean = _between(learned, start, share)
        model.load_state_dict(mean, strict=False)
        found = score()
        if found > best:
            kept, best, kept_share = mean, found, share
    model.load_state_dict(kept, strict=False)
    model.eval()
    return best, kept_share
