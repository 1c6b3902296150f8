from __future__ import annotations

import pytest

from univert.core.errors import BadInputError
from univert.training.targets.config import MemberName, UnifyConfig

NAMES = ("specialists", "verticals", "joint:triplet", "joint:proxy-nca", "joint:proxy-nca#2")


def test_names_are_read_and_written() -> None:
    parsed = [MemberName.parse(text) for text in NAMES]
    assert [(name.kind, name.loss, name.number) for name in parsed] == [
        ("specialists", None, 0),
        ("verticals", None, 0),
        ("joint", "triplet", 0),
        ("joint", "proxy-nca", 0),
        ("joint", "proxy-nca", 2),
    ]
    assert tuple(map(str, parsed)) == NAMES
    assert len({name.title for name in parsed}) == len(NAMES)


@pytest.mark.parametrize(
    "text",
    [
        *("", "joint", "joint:", "joint:cosine", "specialist", "specialists:triplet", "specialists#1", ":triplet"),
        *("joint:triplet#", "joint:triplet#two", "joint:triplet#-1", "Joint:triplet", "joint:triplet "),
    ],
)
def test_bad_names_are_refused_with_what_a_name_looks_like(text: str) -> None:
    with pytest.raises(BadInputError, match=f"a member is `specialists`.*got {text!r}"):
        UnifyConfig(members=("specialists", text))


def test_members_are_named_once_and_there_is_one() -> None:
    for members in ((), ("specialists", "specialists"), ("joint:triplet", "joint:triplet#0")):
        with pytest.raises(BadInputError, match=r"unify\.members must name at least one member and each once"):
            UnifyConfig(members=members)
    with pytest.raises(BadInputError, match=r"unify\.members has no effect where unify\.way is"):
        UnifyConfig(way="specialists", members=("specialists",))
