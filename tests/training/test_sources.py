from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from univert.core.errors import BadInputError
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.sources import CachedSource, FrontSource, ImageSource


def test_cached_features_give_what_images_give(context: RunContext) -> None:
    embedder = context.new_embedder().eval()
    cached, live = context.features.source, ImageSource(context.features.loader, views=2)
    assert isinstance(cached, CachedSource)
    positions = np.flatnonzero(context.images.is_train)[[5, 0, 9, 5]]
    for views in ([0, 0, 0, 0], [1, 2, 0, 2]):
        expected = live.embed(embedder, positions, np.array(views))
        found = cached.embed(embedder, positions, np.array(views))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0], found[3], atol=1e-4), "two views of one image should differ"


@pytest.fixture
def partial(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> RunContext:
    return RunContext(Run(tmp_path), catalogue, replace(recipe, base_network_learns="last_blocks", last_blocks=2))


def test_maps_of_the_frozen_layers_give_what_images_give(partial: RunContext) -> None:
    embedder = partial.new_embedder()
    embedder.trainable("last_blocks", last_blocks=2)
    maps, live = partial.features.source, ImageSource(partial.features.loader, views=2)
    assert isinstance(maps, FrontSource)
    positions, views = np.flatnonzero(partial.images.is_train)[[5, 0, 9, 5]], np.array([1, 2, 0, 2])
    for mode in (False, True):
        embedder.train(mode)
        expected = live.embed(embedder, positions, views)
        torch.testing.assert_close(maps.embed(embedder, positions, views), expected, atol=5e-3, rtol=5e-2)
    gradients = []
    for source in (live, maps):
        embedder.eval().zero_grad()
        source.embed(embedder, positions, views)[:, 0].sum().backward()
        last = embedder.base_network.last_stages(2)
        assert all(one.grad is not None for one in last)
        gradients.append(torch.cat([one.grad.flatten() for one in last if one.grad is not None]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.999


def test_maps_are_only_kept_where_they_fit(partial: RunContext, tmp_path: Path) -> None:
    for changed in ({"maps_gb": 0.0}, {"maps_gb": 1e-6}, {"base_network_learns": "all"}):
        recipe = replace(partial.recipe, **changed)  # type: ignore[arg-type]
        assert isinstance(RunContext(Run(tmp_path), partial.images.catalogue, recipe).features.source, ImageSource)


def test_networks_whose_layers_pass_no_maps_are_fed_with_images(partial: RunContext, tmp_path: Path) -> None:
    model = replace(partial.recipe.model, base_network="timm/test_vit", image_size_px=160)
    recipe = replace(partial.recipe, model=model, last_blocks=2)
    assert isinstance(RunContext(Run(tmp_path), partial.images.catalogue, recipe).features.source, ImageSource)


def test_members_of_other_seeds_share_the_base_network(partial: RunContext) -> None:
    again = partial.reseeded(1001)
    embedder, first = again.new_embedder().eval(), partial.new_embedder().eval()
    again.features.source.embed_all(embedder, np.arange(3))  # else refused: its front would be another
    again.features.source.embed_all(first, np.arange(3))


def test_maps_are_refused_to_a_model_with_another_front(partial: RunContext) -> None:
    embedder = partial.new_embedder().eval()
    with torch.no_grad():
        next(embedder.base_network.parameters()).mul_(1.01)
    with pytest.raises(BadInputError, match="maps_gb = 0"):
        partial.features.source.embed_all(embedder, np.arange(3))


def test_prefetching_changes_nothing(context: RunContext) -> None:
    embedder = context.new_embedder().eval()
    source = ImageSource(context.features.loader, views=2)
    positions, views = np.array([1, 4]), np.array([1, 2])
    expected = source.embed(embedder, positions, views)
    source.prefetch(positions, views)
    torch.testing.assert_close(source.embed(embedder, positions, views), expected)
    source.prefetch(np.array([0, 2]), views)
    torch.testing.assert_close(source.embed(embedder, positions, views), expected)


def test_other_augmentation_is_other_features(context: RunContext, tmp_path: Path) -> None:
    changed = replace(context.recipe, seed=9)
    other = RunContext(Run(tmp_path), context.images.catalogue, changed)
    position, view = np.flatnonzero(context.images.is_train)[:1], np.array([1])
    assert isinstance(context.features.source, CachedSource)
    assert isinstance(other.features.source, CachedSource)
    assert not np.allclose(
        context.features.source.features.gather(position, view), other.features.source.features.gather(position, view)
    )
