"""Means of weights: of models that learned from one start, and of a model and its start.

Along the line between such weights the error hardly rises and often falls, since both lie in one valley of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from univert.models.embedder import Embedder

START_SHARES = (0.25, 0.5)
"""How much of its start a trained model may take back."""


def greedy_soup(models: Sequence[Embedder], score: Callable[[Embedder], float] | None) -> Embedder:
    """The mean of some models' weights: the best model first, another where the mean with it is better still.

    Without a score all are in, as far as they have the shapes of the first.

    Source: Wortsman et al., Model soups, arXiv 2203.05482, recipe 1.
    """
    ranked = sorted(models, key=score, reverse=True) if score else list(models)
    soup, best, taken = ranked[0], score(ranked[0]) if score else 0.0, [ranked[0]]
    for model in ranked[1:]:
        if model.config != ranked[0].config:
            continue
        mean = _mean_of_weights([*taken, model])
        reached = score(mean) if score else best
        if reached >= best:
            soup, best, taken = mean, reached, [*taken, model]
    return soup


def _mean_of_weights(models: Sequence[Embedder]) -> Embedder:
    mean = AveragedModel(models[0], use_buffers=True)
    for model in models:
        mean.update_parameters(model)
    found = mean.module
    assert isinstance(found, Embedder)
    return found.eval()


def back_to_start(
    model: torch.nn.Module, start: Mapping[str, Tensor], score: Callable[[], float], reached: float
) -> tuple[float, float]:
    """Take a quarter or half of the start back into a trained model's weights, where that scores better.

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
        mean = {
            name: torch.lerp(value, start[name], share) if value.is_floating_point() else value
            for name, value in learned.items()
        }
        model.load_state_dict(mean, strict=False)
        found = score()
        if found > best:
            kept, best, kept_share = mean, found, share
    model.load_state_dict(kept, strict=False)
    model.eval()
    return best, kept_share
