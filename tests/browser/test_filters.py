"""Narrowing the search: by mouse, in the address, with nothing left."""

from urllib.parse import parse_qs, quote, urlsplit

from tests.browser import shop
from tests.browser.driving import Visitor


def asked(visitor: Visitor) -> dict[str, list[str]]:
    return parse_qs(urlsplit(visitor.page.url).query)


def test_a_filter_narrows_the_results_and_the_back_button_widens_them(visitor: Visitor) -> None:
    page = visitor.open()
    visitor.upload(shop.photo(0, 0))
    everything = visitor.found()
    page.get_by_role("button", name="Vertical").click()
    page.get_by_role("checkbox", name="shoes").check()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#grid a')].every((one) => one.dataset.like.startsWith('shoes'))"
    )
    page.get_by_role("checkbox", name="lamps").check()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#grid a')].some((one) => one.dataset.like.startsWith('lamps'))"
    )
    visitor.snap("filter")
    assert asked(visitor) == {"vertical": ["shoes", "lamps"]}
    page.get_by_role("button", name="Done").click()
    page.wait_for_function("() => document.activeElement.dataset.facet === 'vertical'")
    assert not any(name.startswith("bags") for name in visitor.found())
    page.get_by_role("button", name="Remove the filter vertical shoes").click()
    visitor.settled()
    assert asked(visitor) == {"vertical": ["lamps"]}
    page.go_back()
    page.go_back()
    page.wait_for_function("() => document.querySelectorAll('#filters .chip').length === 0")
    assert visitor.found() == everything


def test_nothing_left_says_so_and_offers_the_way_out(visitor: Visitor) -> None:
    item = quote(shop.item_id(0, 0, 0), safe="")
    visitor.expected = ["status of 400"]
    for place, filters in (("#more", "vertical=lamps&style=square"), ("#trouble", "style=round&brand=nobody")):
        page = visitor.open(f"/?like={item}&{filters}")
        clear = page.locator(place).get_by_role("button", name="Clear the filters")
        clear.wait_for()
        visitor.snap(f"nothing-found-{place[1:]}")
        clear.click()
        assert len(visitor.found()) == 24
        assert "style" not in asked(visitor)
