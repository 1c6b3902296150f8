"""Means of weights, by hand."""

import itertools
from functools import partial

import pytest
import torch

from tests.training.shop import Shop
from univert.models.embedder import Embedder
from univert.training.averaging import back_to_start, greedy_soup


def test_a_soup_takes_models_that_help_and_leaves_out_other_shapes(shop: Shop) -> None:
    models = [shop.context.new_embedder(), shop.context.new_embedder(), shop.context.new_embedder(hidden_sizes=(3,))]
    for model, weight in zip(models, (0.0, 2.0, 5.0), strict=True):
        torch.nn.init.constant_(model.head.second.weight, weight)

        model.head.first[1].num_batches_tracked.fill_(int(weight))

    def weight_of(model: Embedder) -> float:
        return float(model.head.second.weight.detach().mean())

    scored = list[Embedder]()

    def distance(model: Embedder, wanted: float) -> float:
        scored.append(model)
        return -abs(weight_of(model) - wanted)

    for wanted, expected, steps in ((1.0, 1.0, 0), (-1.0, 0.0, 0), (5.0, 5.0, 5)):
        soup = greedy_soup(models, partial(distance, wanted=wanted))
        assert weight_of(soup) == expected
        assert soup.head.first[1].num_batches_tracked == steps, "a count has no mean; a GPU refuses to take one"
    assert len(scored) == 3 + 1 + 3 + 1 + 3, "each model is measured once"
    assert [weight_of(model) for model in models] == [0.0, 2.0, 5.0]


@pytest.mark.parametrize(
    ("scores", "share"),
    [
        ([0.4, 0.6, 0.5], 0.5),
        ([0.7, 0.6, 0.2], 0.25),
        ([0.4, 0.6, 0.8], 0.75),
        ([0.5] * 3, 0.0),
        ([0.1, 0.2, 0.3], 0.0),
    ],
)
def test_some_of_the_start_comes_back_where_that_scores_better(scores: list[float], share: float) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    start = {name: value.clone() for name, value in model[0].state_dict(prefix="0.").items()}
    for number, (name, value) in enumerate(itertools.chain(model.named_parameters(), model.named_buffers())):
        torch.nn.init.constant_(value, number) if value.is_floating_point() else None
        assert name
    learned = {name: value.clone() for name, value in model.state_dict().items()}
    given = iter(scores)
    assert back_to_start(model, start, lambda: next(given), 0.5) == (max(0.5, *scores), share)
    for name, value in model.state_dict().items():
        wanted = learned[name] if name not in start else (1 - share) * learned[name] + share * start[name]
        torch.testing.assert_close(value, wanted)
