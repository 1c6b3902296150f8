from dataclasses import replace

from tests.training.shop import Shop


def test_a_specialist_of_all_its_verticals_counts_once(shop: Shop) -> None:
    group = replace(shop.own, models=(shop.own.models[0],) * 2)
    assert group.by_vertical
    assert group.distinct == [shop.own.models[0]]
    assert group.key not in (shop.own.key, shop.joint.key)
    assert group.embedders[0] is group.embedders[1]
    assert not shop.joint.by_vertical
