import base64
import html
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from tests.report.test_page import Page
from tests.search.conftest import search_image
from tests.small_shop import HOSTILE, PRODUCTS, catalogue, index, model, picture
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow
from univert.detection.engine import FoundItem
from univert.models.embedder import Embedder
from univert.report.search_page import AnsweredItem, render_grid, render_items
from univert.search.index import Index
from univert.search.indexing import index_catalogue

__all__ = ["catalogue", "index", "model"]  # fixtures


def test_shows_query_and_hits(model: Embedder, index: Index, tmp_path: Path) -> None:
    photo = tmp_path / "my <photo>.png"
    photo.write_bytes(picture(4, 1))
    hits = search_image(model, index, photo, 100)
    text = render_grid(photo, hits, index)
    page = Page(text)
    assert page.open == page.problems == []
    images = page.all("img")
    assert len(images) == 1 + 2 * PRODUCTS
    for image in images:
        header, data = image["src"].split(",")
        assert header == "data:image/webp;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).width > 0
    assert images[0]["alt"] == "the query image, my <photo>.png"
    assert [image["alt"] for image in images[1:]] == [
        hit.product if hit.product is not None else hit.id for hit in hits
    ]
    for hit in hits:
        assert f"{hit.distance:.3f}" in text
        assert html.escape(hit.vertical) in text
    assert "Maker &amp; Sons · round" in text
    assert "None" not in text
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|url\(", text)
    boxed = images[1 + next(n for n, hit in enumerate(hits) if hit.id == "p3-1")]["src"]
    assert Image.open(io.BytesIO(base64.b64decode(boxed.split(",")[1]))).size == (24, 40)  # only the box is shown


def test_names_are_only_text(model: Embedder, index: Index, tmp_path: Path) -> None:
    hits = search_image(model, index, picture(2, 0), 2)
    assert hits[0].product == HOSTILE
    photo = tmp_path / '"><script>alert(1)<'
    photo.write_bytes(picture(2, 0))
    page = Page(render_grid(photo, hits, index))
    assert not page.all("script")
    assert HOSTILE in [image["alt"] for image in page.all("img")]
    assert not {"href", "onclick", "onerror", "srcset", "action"} & {name for _, values in page.tags for name in values}


def test_no_hits(model: Embedder, index: Index) -> None:
    hits = search_image(model, index, picture(0, 0), where={"brand": "nobody"})
    text = render_grid(Image.fromarray(np.zeros((9, 9), np.uint8)), hits, index, vertical="shoes & boots")
    assert "Nothing in the index matches" in text
    assert "shoes &amp; boots" in text


def test_a_picture_that_is_gone_is_said_to_be(model: Embedder, tmp_path: Path) -> None:
    photos = [tmp_path / f"{name}.png" for name in "ab"]
    for number, photo in enumerate(photos):
        photo.write_bytes(picture(number, 0))
    rows = [SourceRow(origin="t", id=photo.stem, vertical="v", path=photo) for photo in photos]
    build_catalogue(rows, tmp_path / "catalogue", link=True)
    index_catalogue(model, Catalogue.open(tmp_path / "catalogue"), tmp_path / "index")
    photos[1].unlink()
    index = Index.open(tmp_path / "index")
    page = render_grid(photos[0], search_image(model, index, photos[0]), index)
    assert len(Page(page).all("img")) == 2
    assert page.count("picture not available") == 1


def test_items_are_framed_and_answered(model: Embedder, index: Index) -> None:
    photo = Image.fromarray(np.zeros((50, 200, 3), np.uint8))
    hits = search_image(model, index, picture(4, 1), 3)
    named = [
        {"value": "product 4", "confidence": 0.93, "known": True},
        {"value": HOSTILE, "confidence": 0.2, "known": False},
        None,
    ]
    items = [
        AnsweredItem(
            found=FoundItem(box_xyxy_px=(20.5, 10, 120, 50), vertical="bags", score=0.8, vertical_score=0.6),
            hits=hits,
            identity=product and {"product": product, "vertical": {"value": "hats", "confidence": 0.71}},
        )
        for product in named
    ]
    text = render_items(photo, "room <1>.jpg", items, index)
    page = Page(text)
    assert page.open == page.problems == page.all("script") == []
    assert [frame["href"] for frame in page.all("a")] == ["#item-1", "#item-2", "#item-3"]
    assert "left: 10.25%; top: 20.00%; width: 49.75%; height: 80.00%" in page.all("a")[0]["style"]
    images = page.all("img")
    assert [image["alt"] for image in images[:2]] == ["the photo, room <1>.jpg", "item 1 of the photo"]
    assert len(images) == 1 + 3 * (1 + len(hits))
    shown = [Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))).size for image in images[:2]]
    assert shown == [(200, 50), (100, 40)]
    assert "93% sure of the product</p>" in text
    assert text.count("hats · 71% sure") == 2
    assert text.count("bags · 60% sure") == 1
    assert text.count("no product is sure enough to be named") == 1
    assert text.count(f"like {hits[0].product}") == 2
