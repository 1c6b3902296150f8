from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.models.embedder import Embedder
from univert.report.compared_models import embed_subject
from univert.training.recipe import Recipe

CPU = torch.device("cpu")


def save(recipe: Recipe, folder: Path, *, seed: int = 0, size: int = 8) -> Embedder:
    torch.manual_seed(seed)
    model = Embedder(replace(recipe.model, size=size)).eval()
    model.save_pretrained(folder)
    return model


def test_a_model_and_the_run_it_belongs_to_are_the_same(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    model = save(recipe, tmp_path / "shop" / "unified")
    expected = model.embed_catalogue(catalogue)
    for place, title in ((tmp_path / "shop" / "unified", "shop/unified"), (tmp_path / "shop", "shop/unified")):
        subject = embed_subject(place, catalogue, CPU)
        assert (subject.title, subject.routed) == (title, False)
        np.testing.assert_allclose(subject.vectors, expected, atol=1e-6)


@pytest.mark.parametrize("sizes", [(8, 8), (4, 8), (8, 4)])
def test_specialists_embed_their_own_vertical_whatever_their_size(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path, sizes: tuple[int, int]
) -> None:
    models = {
        name: save(recipe, tmp_path / "specialists" / name, seed=seed, size=sizes[seed])
        for seed, name in enumerate(catalogue.verticals)
    }
    save(recipe, tmp_path / "specialists" / "discs+squares", seed=2)  # a group's, which does not count here
    subject = embed_subject(tmp_path / "specialists", catalogue, CPU)
    assert subject.routed
    assert subject.vectors.shape == (72, 8)
    for name, model in models.items():
        here = catalogue.column("vertical") == name
        own = model.embed_catalogue(catalogue.select(vertical=name))
        np.testing.assert_allclose(subject.vectors[here, : model.size], own, atol=1e-6)
        assert (subject.vectors[here, model.size :] == 0).all()


def test_a_selection_needs_the_specialists_of_its_own_verticals(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    save(recipe, tmp_path / "discs")
    assert embed_subject(tmp_path, catalogue.select(vertical="discs"), CPU).vectors.shape == (36, 8)


def test_what_is_missing_is_named(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    save(recipe, tmp_path / "specialists" / "discs")
    with pytest.raises(BadInputError, match=r"specialists is neither a model.*it has none for: squares"):
        embed_subject(tmp_path / "specialists", catalogue, CPU)
    with pytest.raises(BadInputError, match="it has none for: discs, squares"):
        embed_subject(tmp_path, catalogue, CPU)
    with pytest.raises(BadInputError, match="nowhere"):
        embed_subject(tmp_path / "nowhere", catalogue, CPU)
    with pytest.raises(BadInputError, match="no images"):
        embed_subject(tmp_path, catalogue.select(vertical="discs", split="test", labelled=False), CPU)
