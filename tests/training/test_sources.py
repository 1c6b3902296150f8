from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.training.recipe import Recipe
from univert.training.sources import CachedSource, ImageSource
from univert.training.workshop import Workshop


@pytest.fixture
def workshop(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> Workshop:
    return Workshop(Run(tmp_path), catalogue, recipe)


def test_cached_features_give_what_images_give(workshop: Workshop) -> None:
    embedder = workshop.new_embedder().eval()
    cached, live = workshop.source, ImageSource(workshop.loader, views=2)
    assert isinstance(cached, CachedSource)
    positions = np.flatnonzero(workshop.is_train)[[5, 0, 9, 5]]
    for views in ([0, 0, 0, 0], [1, 2, 0, 2]):
        expected = live.embed(embedder, positions, np.array(views))
        found = cached.embed(embedder, positions, np.array(views))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0], found[3], atol=1e-4), "two views of one image should differ"


def test_prefetching_changes_nothing(workshop: Workshop) -> None:
    embedder = workshop.new_embedder().eval()
    source = ImageSource(workshop.loader, views=2)
    positions, views = np.array([1, 4]), np.array([1, 2])
    expected = source.embed(embedder, positions, views)
    source.prefetch(positions, views)
    torch.testing.assert_close(source.embed(embedder, positions, views), expected)
    source.prefetch(np.array([0, 2]), views)
    torch.testing.assert_close(source.embed(embedder, positions, views), expected)


def test_the_cache_is_read_again_and_finished_where_it_was_cut_off(workshop: Workshop) -> None:
    first = workshop.source.embed_all(workshop.base, np.arange(6))
    files = sorted((workshop.run.path / "cache").rglob("view-*.npy"))
    assert len(files) == 3
    kept = files[0].stat().st_mtime_ns
    files[1].unlink()
    again = Workshop(workshop.run, workshop.catalogue, workshop.recipe)
    np.testing.assert_array_equal(again.source.embed_all(again.base, np.arange(6)), first)
    assert files[0].stat().st_mtime_ns == kept
    assert files[1].exists()


def test_other_augmentation_is_other_features(workshop: Workshop, tmp_path: Path) -> None:
    changed = replace(workshop.recipe, seed=9)
    other = Workshop(Run(tmp_path), workshop.catalogue, changed)
    position, view = np.flatnonzero(workshop.is_train)[:1], np.array([1])
    assert isinstance(workshop.source, CachedSource)
    assert isinstance(other.source, CachedSource)
    assert not np.allclose(
        workshop.source.features.gather(position, view), other.source.features.gather(position, view)
    )


def test_views_of_images_that_are_not_for_training_do_not_exist(workshop: Workshop) -> None:
    assert isinstance(workshop.source, CachedSource)
    with pytest.raises(IndexError, match="view 1"):
        workshop.source.features.gather(np.flatnonzero(~workshop.is_train)[:1], np.array([1]))
