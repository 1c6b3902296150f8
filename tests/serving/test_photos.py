import io
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.data.pictures import encoded, noise
from univert.data.decode import decode_rgb
from univert.data.headers import PhotoHeader, read_header
from univert.data.image_problem import ImageProblem
from univert.serving.photos import memory_bytes


def saved(format_name: str, **options: object) -> bytes:
    return encoded(noise(40, 30), format_name, **options)


def segment(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tags(count: int, bytes_each: int) -> bytes:
    """EXIF in which each of many tags says that it is as long as the block."""
    entries = (struct.pack(">HHII", 500 + number, 7, bytes_each, 8) for number in range(count))
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", count) + b"".join(entries) + bytes(bytes_each)


def jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    across = np.linspace(0, 255, width, dtype=np.uint8)[None, :].repeat(height, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(across).convert("RGB"), "JPEG", quality=95, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_and_pixels_are_upright(orientation: int) -> None:
    content = jpeg(800, 400, orientation)
    size = (400, 800) if orientation >= 5 else (800, 400)
    header = read_header(content)
    assert (header.width_px, header.height_px) == size
    assert 64 <= min(decode_rgb(content, draft_px=64).size) < 400, "a large JPEG is decoded smaller"


@pytest.mark.parametrize(
    "content",
    [
        saved("JPEG", quality=95, comment=b"a comment", icc_profile=bytes(70_000)),
        saved("JPEG", progressive=True, xmp=b'<x tiff:Orientation="6"/>'),
        saved("PNG", exif=b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0"),
        saved("WEBP", lossless=True, exif=b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"),
        saved("WEBP", xmp=b"<tiff:Orientation>5<"),
        *(jpeg(60, 40, orientation) for orientation in range(1, 9)),
    ],
)
def test_the_decoder_gets_less_and_sees_the_same(content: bytes) -> None:
    header = read_header(content)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    assert sum(map(len, header.parts)) <= len(content) + 40
    assert (header.width_px, header.height_px) == expected.size
    photo = decode_rgb(b"".join(header.parts))
    assert np.array_equal(np.asarray(photo), np.asarray(expected))


def test_what_follows_the_picture_is_not_looked_at() -> None:
    film = b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\x02\xff\xe1\0\0" * 10_000
    for progressive in (False, True):
        content = saved("JPEG", progressive=progressive)
        photo = decode_rgb(content + film)
        assert np.array_equal(np.asarray(photo), np.asarray(decode_rgb(content)))


@pytest.mark.parametrize(
    ("content", "bytes_per_pixel"),
    [
        (saved("PNG"), (9, 9)),
        (saved("WEBP"), (17, 17)),
        (saved("JPEG"), (0.5, 8.5)),
        (saved("JPEG", progressive=True), (3.5, 8.5)),
        (saved("JPEG", progressive=True, subsampling=0), (6.5, 10.5)),
    ],
)
def test_what_decoding_takes_is_known_from_the_header(content: bytes, bytes_per_pixel: tuple[float, float]) -> None:
    header = read_header(content)
    for reduced, each in zip((True, False), bytes_per_pixel, strict=True):
        assert memory_bytes(header, 10_000, reduced=reduced) == each * 40 * 30
    in_parts = PhotoHeader(width_px=40, height_px=30, parts=[*header.parts[:-1], b"\xff\xda\0\x08\x01"])
    if content[:2] == b"\xff\xd8":  # a sequential one in several scans is held as coefficients, too
        assert memory_bytes(in_parts, 10_000, reduced=True) > 40 * 30


PLAIN, PASSES, PNG = saved("JPEG"), saved("JPEG", progressive=True), saved("PNG")

REFUSED: dict[str, Callable[[], bytes]] = {
    "EXIF in small pieces": lambda: PLAIN[:2] + segment(0xE1, b"Exif\0\0" + bytes(100)) * 134_000 + PLAIN[2:],
    "empty comments": lambda: PLAIN[:2] + segment(0xFE, b"") * 3_700_000 + PLAIN[2:],
    "empty comments between the passes": lambda: PASSES[:-2] + segment(0xFE, b"") * 3_700_000 + PASSES[-2:],
    "fill bytes": lambda: PLAIN[:2] + b"\xff" * 15_000_000 + PLAIN[2:],
    "junk": lambda: PLAIN[:2] + b"\xff\0" * 7_500_000 + PLAIN[2:],
    "tables": lambda: PLAIN[:2] + segment(0xDB, bytes(65 * 1000)) * 225 + PLAIN[2:],
    "passes": lambda: PASSES[:-2] + PASSES[PASSES.rfind(b"\xff\xda") : -2] * 65 + PASSES[-2:],
    "chunks": lambda: PNG[:33] + chunk(b"teXt", b"") * 1_200_000 + PNG[33:],
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_header_that_is_made_to_cost_time_is_refused_at_once(name: str) -> None:
    content = REFUSED[name]()
    start = time.process_time()
    with pytest.raises(ImageProblem) as problem:
        read_header(content)
    assert time.process_time() - start < 0.2
    assert problem.value.kind == "damaged"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN[:2] + segment(0xE1, b"Exif\0\0" + tags(2700, 33_000)) + PLAIN[2:],
        PNG[:33] + chunk(b"eXIf", tags(65_000, 100_000)) + PNG[33:],
    ],
    ids=["JPEG", "PNG"],
)
def test_tags_that_each_claim_the_whole_block_take_no_memory(content: bytes) -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        decode_rgb(content)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
