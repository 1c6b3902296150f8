"""The files of the page as they lie there: nothing inline, nothing from elsewhere, nothing forgotten."""

import re

import pytest

from univert.serving.app import PAGE

FILES = {file.name: file.read_text() for file in PAGE.iterdir()}


PAGES = ("index.html", "rate.html")


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_inline(name: str) -> None:
    page = FILES[name]
    assert "<style" not in page
    assert not re.search(r"\sstyle=|\son\w+=|javascript:", page)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))


def test_nothing_comes_from_elsewhere() -> None:
    for name, text in FILES.items():
        own = text.replace("http://www.w3.org/", "")
        assert not re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+[^\s\"'`)]*", own), name


def test_every_file_is_used_and_every_used_file_is_there() -> None:
    linked = {name for page in PAGES for name in re.findall(r'(?:href|src)="static/([^"#]+)"', FILES[page])}
    assert linked == set(FILES) - {*PAGES}


def test_every_address_is_relative_to_the_page() -> None:
    absolute = r"""(?:href|src)="/|["'`]/(?:search|items|verticals|feedback|static)|url\(/"""
    for name, text in FILES.items():
        assert not re.findall(absolute, text), name


def test_text_never_becomes_markup() -> None:
    for name, text in FILES.items():
        if name.endswith(".js"):
            markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
            assert not re.search(markup, text), name
