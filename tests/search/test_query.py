import pytest

from univert.core.errors import BadInputError
from univert.search.query import check_where


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"vertcal": "shoes"}, "filter by one of id, vertical, "),
        ({"1=1) OR (brand": "x"}, "cannot filter by"),
        ({"colour": "x"}, "cannot filter by 'colour'; filter by one of id, vertical, product, brand"),
        ({"brand": []}, "no values"),
        ({"brand": 3}, "must be text"),
        ({"brand": ["x", 3.5]}, "must be text, got 3.5"),
        ({"brand": b"x"}, "must be text"),
        ({"brand": "\ud800"}, "valid Unicode"),
    ],
)
def test_refuses_what_is_no_filter(where: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        check_where(where)  # type: ignore[arg-type]


def test_unknown_vertical_names_the_nearest() -> None:
    check_where({"vertical": ["shoes", "bags"]}, ["bags", "shoes"])
    check_where({"brand": "anything"}, ["bags"])
    with pytest.raises(BadInputError, match="no vertical 'shoe' in the index; did you mean 'shoes'"):
        check_where({"vertical": ["bags", "shoe"]}, ["bags", "shoes"])
    with pytest.raises(BadInputError, match="there are bags, shoes"):
        check_where({"vertical": "qqq"}, ["bags", "shoes"])
