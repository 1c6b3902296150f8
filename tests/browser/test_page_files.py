"""The files of the page as they lie there: nothing inline, nothing from elsewhere, nothing forgotten."""

import re

import pytest

from univert.serving.app import PAGE

FILES = {file.name: file.read_text() for file in PAGE.iterdir()}
MODULES = sorted(name for name in FILES if name.endswith(".js"))


def test_nothing_is_inline() -> None:
    page = FILES["index.html"]
    assert "<style" not in page
    assert not re.search(r"\sstyle=|\son\w+=|javascript:", page)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_comes_from_elsewhere(name: str) -> None:
    addresses = re.findall(
        r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+[^\s\"'`)]*", FILES[name].replace("http://www.w3.org/", "")
    )
    assert addresses == []


def test_every_file_is_used_and_every_used_file_is_there() -> None:
    linked = set(re.findall(r'(?:href|src)="static/([^"#]+)"', FILES["index.html"]))
    assert linked == set(FILES) - {"index.html"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_address_is_relative_to_the_page(name: str) -> None:
    assert not re.findall(r"""(?:href|src)="/|["'`]/(?:search|items|verticals|feedback|static)|url\(/""", FILES[name])


@pytest.mark.parametrize("name", MODULES)
def test_text_never_becomes_markup(name: str) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", FILES[name])
