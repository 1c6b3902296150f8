"""The answer to a search as one self-contained HTML page: the query and what was found, with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2
from PIL import Image

from univert.core.errors import BadInputError
from univert.data.catalogue import uri_to_path
from univert.data.decode import decode_rgb
from univert.models.inputs import ImageLike, as_rgb
from univert.report.thumbnails import data_uri
from univert.search.index import Index
from univert.search.query import Hit, Picture

QUERY_PX = 480
CARD_PX = 320


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
    pictures = index.pictures([hit.id for hit in hits])
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("univert.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("search.html.jinja").render(
        query_name=Path(image).name if isinstance(image, str | Path) else "your image",
        query_picture=_small(query, QUERY_PX),
        cards=[(hit, _hit_picture(picture)) for hit, picture in zip(hits, pictures, strict=True)],
        images=len(index),
        verticals=len(index.verticals),
        vertical=vertical,
        model=index.model_fingerprint[:8],
    )


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
