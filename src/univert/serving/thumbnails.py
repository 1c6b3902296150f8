"""Small pictures of indexed images: rendered anew, so that nothing but pixels leaves, and kept for a while."""

from __future__ import annotations

import io
import math
import threading
from typing import Final
from urllib.parse import urlsplit

from cachetools import LRUCache
from PIL import Image

from univert.core.errors import BadInputError
from univert.data.catalogue import uri_to_path
from univert.data.decode import decode_bytes, decode_rgb
from univert.data.headers import read_header
from univert.data.image_problem import ImageProblem
from univert.search.index import Index
from univert.search.query import Picture

MEDIA_TYPE: Final = "image/webp"
SIZE_PX_MIN: Final = 32
SIZE_PX_MAX: Final = 1024
SIZE_PX_DEFAULT: Final = 256
SIZES_PX: Final = (128, 256, 512, SIZE_PX_MAX)
"""What is rendered. Were any size to be had, one picture could be asked for a thousand times and never be kept."""
CACHE_BYTES: Final = 32_000_000

_QUALITY: Final = 82
_Key = tuple[str, str, int]


class PictureGoneError(Exception):
    """The index knows the image, but its picture cannot be had or read any more."""


class Thumbnails:
    """Thumbnails of an index's images, the last ones kept in memory. May be called from any thread."""

    def __init__(self) -> None:
        self._kept: LRUCache[_Key, bytes] = LRUCache(CACHE_BYTES, getsizeof=len)
        self._lock = threading.Lock()

    def kept(self, index: Index, item: str, size_px: int) -> bytes | None:
        """The thumbnail if it was rendered lately."""
        with self._lock:
            found: bytes | None = self._kept.get((index.identity, item, size_px))
            return found

    def render(self, index: Index, item: str, size_px: int, bytes_max: float = math.inf) -> bytes | None:
        """The thumbnail of an image, as WebP without metadata; smaller pictures stay as they are.

        None if decoding might take more than `bytes_max`.

        Raises:
            BadInputError: no such image in the index.
            PictureGoneError: its picture is gone or damaged.
            OSError: the index cannot be read.
        """
        try:
            (picture,) = index.pictures([item])
        except BadInputError:
            raise
        except Exception as error:  # whatever the engine met in its storage
            raise OSError(f"{index.uri} cannot be read: {error}".partition("\n")[0]) from None
        content = render_webp(picture, size_px, bytes_max)
        if content is not None and len(content) <= self._kept.maxsize:
            with self._lock:
                self._kept[index.identity, item, size_px] = content
        return content


def rendered_size_px(size_px: int) -> int:
    """The least of `SIZES_PX` that is not below the size asked for."""
    return next(size for size in SIZES_PX if size >= size_px)


def render_tokens(size_px: int) -> float:
    """What rendering costs of a client's rate: the work grows with the area; the largest costs as much as a search."""
    return (size_px / SIZE_PX_MAX) ** 2


def render_webp(picture: Picture, size_px: int, bytes_max: float = math.inf) -> bytes | None:
    """A picture's pixels and nothing else, as WebP whose longer side is at most `size_px`.

    None if decoding might take more than `bytes_max`.

    Raises:
        PictureGoneError: it is gone or damaged.
    """
    try:
        encoded = _content(picture)
        if _memory_bytes(encoded) > bytes_max:
            return None
        rgb = decode_rgb(encoded, box_xyxy_px=picture.box_xyxy_px, draft_px=2 * size_px)
    except (OSError, BadInputError) as error:
        raise PictureGoneError(str(error)) from None
    rgb.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    Image.frombytes("RGB", rgb.size, rgb.tobytes()).save(buffer, format="WEBP", quality=_QUALITY, method=2)
    return buffer.getvalue()


def _memory_bytes(encoded: bytes) -> float:
    """What decoding may take; not known of formats that only catalogues have."""
    try:
        header = read_header(encoded)
    except ImageProblem:
        return math.inf
    return decode_bytes(header.parts, header.width_px * header.height_px, reduced=False)


def _content(picture: Picture) -> bytes:
    if picture.image is not None:
        return picture.image
    uri = picture.uri or ""
    if urlsplit(uri).scheme != "file":  # the service fetches nothing, whatever an index says
        raise BadInputError("the picture is not within reach")
    return uri_to_path(uri).read_bytes()
