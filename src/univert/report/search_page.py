"""The answer to a search as one self-contained HTML page: the photo, its items, and what was found, with pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from univert.core.errors import BadInputError
from univert.data.catalogue import uri_to_path
from univert.data.decode import BoxXyxyPx, decode_rgb
from univert.detection.engine import FoundItem
from univert.models.inputs import ImageLike, as_rgb
from univert.report.thumbnails import data_uri
from univert.search.index import Index
from univert.search.query import Hit, Picture

QUERY_PX = 480
PHOTO_PX = 1280
CARD_PX = 320


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredItem:
    """An item of a photo, and what answers it.

    Attributes:
        found: where it is, and what kind of thing.
        hits: nearest first.
        identity: what its neighbours say it is, by attribute the fields of an `univert.identity.vote.AttributeAnswer`;
            None where nothing was calibrated.
    """

    found: FoundItem
    hits: Sequence[Hit]
    identity: Mapping[str, Mapping[str, Any]] | None = None

    @property
    def product(self) -> Mapping[str, Any] | None:
        """The neighbours' answer, if one was calibrated and has a name."""
        return self.identity["product"] if self.identity and self.identity["product"]["value"] is not None else None

    @property
    def vertical(self) -> tuple[str, float]:
        """Name and confidence: by its neighbours, who know its kind of product; else by the detector."""
        named = self.identity["vertical"] if self.identity else None
        if named is None or named["value"] is None:
            return self.found.vertical, self.found.vertical_score
        return named["value"], named["confidence"]


def render_grid(image: ImageLike, hits: Sequence[Hit], index: Index, *, vertical: str | None = None) -> str:
    """A page with the query image and a card for each hit: picture, product, vertical, brand, style, distance.

    Pictures are inside the page as small WebP files; it loads nothing from elsewhere and runs no script.

    Args:
        image: the query.
        hits: what the index answers.
        index: the index it came from, for the pictures.
        vertical: the vertical that the search was limited to, if any.

    Raises:
        BadInputError: the query cannot be read as an image, or a hit is not in the index. A hit whose picture is gone
            shows a placeholder.
    """
    query = as_rgb(0, image, background_rgb=(255, 255, 255), draft_px=2 * QUERY_PX)
    name = Path(image).name if isinstance(image, str | Path) else "your image"
    return _page(name, _small(query, QUERY_PX), index, vertical=vertical, cards=_cards(hits, index), items=None)


def render_words(text: str, told: str | None, hits: Sequence[Hit], index: Index, *, vertical: str | None = None) -> str:
    """A page with what words found, and what there is to tell of the words; otherwise as `render_grid`."""
    return _page(text, None, index, vertical=vertical, cards=_cards(hits, index), items=None, told=told)


def render_items(
    photo: Image.Image, name: str, items: Sequence[AnsweredItem], index: Index, *, vertical: str | None = None
) -> str:
    """A page with a photo, a frame on each of its items, and below a row for each: what it is, and its hits.

    A frame is as plain to see as the detector is sure, and leads to the item's row. Otherwise as `render_grid`.

    Args:
        photo: upright, RGB.
        name: of the photo.
        items: what was found in it, in the order in which they are numbered.
        index: the index that answered.
        vertical: as for `render_grid`.

    Raises:
        BadInputError: as `render_grid`.
    """
    rows = [
        {
            "answered": item,
            "frame": _in_per_cent(item.found.box_xyxy_px, photo.size),
            "picture": _small(_crop(photo, item.found.box_xyxy_px), CARD_PX),
            "cards": _cards(item.hits, index),
        }
        for item in items
    ]
    return _page(name, _small(photo.copy(), PHOTO_PX), index, vertical=vertical, cards=[], items=rows)


def _page(name: str, picture: str | None, index: Index, *, told: str | None = None, **content: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("univert.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("search.html.jinja").render(
        query_name=name,
        query_picture=picture,
        told=told,
        images=len(index),
        verticals=len(index.verticals),
        model=index.model_fingerprint[:8],
        **content,
    )


def _crop(photo: Image.Image, box_xyxy_px: BoxXyxyPx) -> Image.Image:
    x0, y0, x1, y1 = box_xyxy_px
    return photo.crop((math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)))


def _in_per_cent(box_xyxy_px: BoxXyxyPx, size: tuple[int, int]) -> dict[str, float]:
    """A box by its edges and sides, as shares of the photo's, for CSS."""
    (x0, y0, x1, y1), (width, height) = box_xyxy_px, size
    values = {"left": x0 / width, "top": y0 / height, "width": (x1 - x0) / width, "height": (y1 - y0) / height}
    return {name: 100 * value for name, value in values.items()}


def _cards(hits: Sequence[Hit], index: Index) -> list[tuple[Hit, str | None]]:
    pictures = index.pictures([hit.id for hit in hits])
    return [(hit, _hit_picture(picture)) for hit, picture in zip(hits, pictures, strict=True)]


def _hit_picture(picture: Picture) -> str | None:
    try:
        content = uri_to_path(picture.uri).read_bytes() if picture.uri is not None else picture.image
        rgb = decode_rgb(content or b"", box_xyxy_px=picture.box_xyxy_px, draft_px=2 * CARD_PX)
    except (OSError, BadInputError):
        return None
    return _small(rgb, CARD_PX)


def _small(rgb: Image.Image, longest_px: int) -> str:
    rgb.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    return data_uri(rgb, quality=90)
