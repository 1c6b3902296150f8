from dataclasses import replace

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
