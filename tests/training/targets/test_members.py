from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.shop import Shop
from univert.core.errors import BadInputError
from univert.training.targets.config import UnifyConfig
from univert.training.targets.member_name import MemberName
from univert.training.targets.members import Member


@pytest.mark.parametrize(
    ("text", "kind", "loss", "number"),
    [
        ("specialists", "specialists", None, 0),
        ("verticals", "verticals", None, 0),
        ("specialists:proxy-nca", "specialists", "proxy-nca", 0),
        ("joint:triplet", "joint", "triplet", 0),
        ("joint:proxy-nca#2", "joint", "proxy-nca", 2),
    ],
)
def test_names_are_read_and_written(text: str, kind: str, loss: str | None, number: int) -> None:
    name = MemberName.parse(text)
    assert (name.kind, name.loss, name.number) == (kind, loss, number)
    assert str(name) == text
    assert name.title


def test_titles_tell_all_members_apart() -> None:
    texts = ("specialists", "verticals", "specialists:triplet", "joint:triplet", "joint:triplet#1")
    assert len({MemberName.parse(text).title for text in texts}) == len(texts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "joint",
        "joint:",
        "joint:cosine",
        "specialist",
        "specialists:",
        "specialists#1",
        "verticals:triplet",
        "joint:triplet#",
        "joint:triplet#two",
        "joint:triplet#-1",
        "Joint:triplet",
        ":triplet",
        "joint:triplet ",
    ],
)
def test_bad_names_are_refused_with_what_a_name_looks_like(text: str) -> None:
    with pytest.raises(BadInputError, match=f"a member is `specialists`.*got {text!r}"):
        MemberName.parse(text)
    with pytest.raises(BadInputError, match="a member is"):
        UnifyConfig(members=("specialists", text))


def test_members_are_named_once_and_there_is_one() -> None:
    for members in ((), ("specialists", "specialists"), ("joint:triplet", "joint:triplet#0")):
        with pytest.raises(BadInputError, match=r"unify\.members must name at least one member and each once"):
            UnifyConfig(members=members)


def test_a_vertical_without_a_specialist_is_named(shop: Shop) -> None:
    specialists = dict(zip(shop.context.images.vertical_names, shop.own.models, strict=True))
    del specialists["squares"]
    with pytest.raises(BadInputError, match="no specialist for: squares; train one, or leave"):
        Member.of_specialists(shop.context, specialists)


def test_a_specialist_of_all_its_verticals_counts_once(shop: Shop) -> None:
    group = replace(shop.own, models=(shop.own.models[0],) * 2)
    assert group.routed
    assert group.distinct == [shop.own.models[0]]
    assert group.key not in (shop.own.key, shop.joint.key)
    assert group.embedders[0] is group.embedders[1]
    assert not shop.joint.routed


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
