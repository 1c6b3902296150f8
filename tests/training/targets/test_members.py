from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.shop import Shop
from univert.core.errors import BadInputError
from univert.training.targets.members import Member


def test_a_vertical_without_a_specialist_is_named(shop: Shop) -> None:
    with pytest.raises(BadInputError, match="no specialist for: squares; train one, or leave"):
        Member.of_specialists(shop.context, {"discs": shop.own.models[0]})


def test_a_specialist_of_all_its_verticals_counts_once(shop: Shop) -> None:
    group = replace(shop.own, models=(shop.own.models[0],) * 2)
    assert group.by_vertical
    assert group.distinct == [shop.own.models[0]]
    assert group.key not in (shop.own.key, shop.joint.key)
    assert group.embedders[0] is group.embedders[1]
    assert not shop.joint.by_vertical


def test_each_image_is_embedded_by_its_verticals_model(shop: Shop) -> None:
    work, everything = shop.context, shop.everything
    found = shop.mixed.vectors(work).clean(everything)
    assert shop.mixed.width == found.shape[1] == 12
    for name, trained, size in zip(work.images.vertical_names, shop.mixed.models, (4, 12), strict=True):
        here = np.flatnonzero(work.images.of_vertical(name))
        np.testing.assert_allclose(
            found[here, :size], work.features.source.embed_all(trained.embedder, here), atol=1e-6
        )
        assert (found[here, size:] == 0).all()
    own = work.features.source.embed_all(shop.joint.models[0].embedder, everything)
    np.testing.assert_allclose(shop.joint.vectors(work).clean(everything), own, atol=1e-6)
