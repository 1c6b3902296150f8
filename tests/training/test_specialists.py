"""Specialists: trained to their last step, with one share of their start for all."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.shop import modified
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.models.embedder import Embedder
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import train_specialists


def state(folder: Path) -> dict[str, torch.Tensor]:
    return Embedder.from_pretrained(folder).head.state_dict()


def test_all_take_back_the_share_of_their_start_that_is_best_in_the_mean(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = RunContext(Run(tmp_path), catalogue, recipe)
    asked = list[np.ndarray]()
    scores = iter([0.2, 0.5, 0.6, 0.1, 0.9, 0.8, 0.3, 0.2])  # discs alone would take a half, squares nothing

    def score_of(model: Embedder, among: np.ndarray) -> object:
        asked.append(among)
        return lambda: next(scores)

    with monkeypatch.context() as patched:
        patched.setattr(context.stages, "score_of", score_of)
        trained = train_specialists(context, ["discs", "squares"])
    assert [int(among.sum()) for among in asked] == [int(context.images.of_vertical("discs").sum())] * 4 + [
        int(context.images.of_vertical("squares").sum())
    ] * 4
    start = context.new_embedder().head.state_dict()
    for name, best in (("discs", 0.5), ("squares", 0.8)):
        record = trained[name].record
        assert (record["start_share"], record["best_score"], record["score_curve"]) == (0.25, best, [])
        last = state(tmp_path / "last_step" / name)
        for key, value in state(tmp_path / "specialists" / name).items():
            if value.is_floating_point():
                torch.testing.assert_close(value, 0.75 * last[key] + 0.25 * start[key])
    written = modified(tmp_path)
    again = train_specialists(RunContext(Run(tmp_path), catalogue, recipe), ["discs", "squares"])
    assert modified(tmp_path) == written, "what is finished is not done again"
    assert [model.key for model in again.values()] == [model.key for model in trained.values()]


def test_without_validation_queries_the_last_weights_stay(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    train = catalogue.select(split="train")
    model = train_specialists(RunContext(Run(tmp_path), train, recipe), ["discs"])["discs"]
    assert (model.record["start_share"], model.record["best_score"]) == (0.0, None)
    last = state(tmp_path / "last_step" / "discs")
    assert all(torch.equal(value, last[key]) for key, value in state(model.folder).items())
