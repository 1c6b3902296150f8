import pytest

from univert.core.errors import BadInputError
from univert.training.targets.config import UnifyConfig


def test_bad_names_are_refused_with_what_a_name_looks_like() -> None:
    for text in ("", "joint", "joint:cosine", "specialists:triplet", "specialists#1", "joint:triplet#-1"):
        with pytest.raises(BadInputError, match=f"a member is `specialists`.*got {text!r}"):
            UnifyConfig(members=("specialists", text))


def test_members_are_named_once_and_there_is_one() -> None:
    for members in ((), ("specialists", "specialists"), ("joint:triplet", "joint:triplet#0")):
        with pytest.raises(BadInputError, match=r"unify\.members must name at least one member and each once"):
            UnifyConfig(members=members)
    for way in ("specialists", "online"):
        with pytest.raises(BadInputError, match=rf'unify\.members has no effect where unify\.way is "{way}"'):
            UnifyConfig(way=way, members=("specialists",))
