"""Uploads that mean harm or are merely broken, made by code: what is sent as the photo."""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

from tests.data import pictures

PNG = b"\x89PNG\r\n\x1a\n"
HUGE = 100_000
ANY_BAD = (400, 413, 415)


def image(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).bytes(width * height * len(Image.new(mode, (1, 1)).getbands()))
    return Image.frombytes(mode, (width, height), noise)


def encoded(format_name: str, picture: Image.Image | None = None, **options: object) -> bytes:
    return pictures.encoded(picture or image(), format_name, **options)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(*chunks: bytes) -> bytes:
    return PNG + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(bytes(count & 0xFFFFF)), packer.flush()])


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The same JPEG, its frame header telling another size."""
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        at = jpeg.find(marker)
        if at >= 0:
            return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]
    raise AssertionError("no frame header")


def scan_bomb(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each costs a pass over the photo."""
    jpeg = encoded("JPEG", Image.new("RGB", (16, 16)), progressive=True)
    last = jpeg.rfind(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * scans + jpeg[-2:]


def webp_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def canvas(width: int, height: int, flags: int = 0) -> bytes:
    return webp_chunk(
        b"VP8X", bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    )


def animation(format_name: str) -> bytes:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    return encoded(format_name, frames[0], save_all=True, append_images=frames[1:], duration=40)


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.html", content)
    return buffer.getvalue()


def exif_turned(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded("JPEG", exif=exif)


def refused(bytes_max: int) -> Iterator[tuple[str, bytes, tuple[int, ...]]]:
    """(name, content, statuses that are right)."""
    jpeg, plain_png, still_webp = encoded("JPEG"), encoded("PNG"), encoded("WEBP")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    laughs = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + svg

    yield "zero bytes", b"", (400,)
    yield "text", b"hello", (415,)
    yield "an address to fetch", b"http://169.254.169.254/latest/meta-data/", (415,)
    yield "SVG", svg, (415,)
    yield "SVG that expands", laughs, (415,)
    yield "SVG, compressed", gzip.compress(svg), (415,)
    yield "PDF", b"%PDF-1.7\n1 0 obj\n", (415,)
    yield "ZIP", zipped(b"<p>"), (415,)
    yield "ZIP bomb", zipped(bytes(20 << 20)), (415,)
    yield "AVIF", b"\0\0\0\x20ftypavif\0\0\0\0avifmif1", (415,)
    yield "HEIC", b"\0\0\0\x20ftypheic\0\0\0\0mif1heic", (415,)
    yield "GIF", encoded("GIF"), (415,)
    yield "GIF, animated", animation("GIF"), (415,)
    yield "BMP", encoded("BMP"), (415,)
    yield "TIFF", encoded("TIFF"), (415,)
    yield "JPEG behind a GIF's signature", b"GIF89a" + jpeg, (415,)
    yield "JPEG within a PDF", b"%PDF-1.4\n" + jpeg, (415,)

    yield "JPEG: signature alone", b"\xff\xd8\xff", (400,)
    yield "JPEG: signature and noise", b"\xff\xd8\xff" + np.random.default_rng(1).bytes(5000), (400,)
    yield "JPEG: cut in the header", jpeg[:100], (400,)
    yield "JPEG: cut in the pixels", jpeg[: len(jpeg) // 2], (400,)
    yield "JPEG: without pixels", jpeg[: jpeg.find(b"\xff\xda")] + b"\xff\xd9", (400,)
    yield "JPEG: no height", with_size(jpeg, 40, 0), (400,)
    yield "JPEG: 65,500 pixels wide and high", with_size(jpeg, 65500, 65500), (413,)
    yield "JPEG: 500 scans", scan_bomb(500), (400,)
    yield "JPEG: segment longer than the file", jpeg[:2] + b"\xff\xe1\xff\xff" + jpeg[2:40], (400,)
    yield "JPEG: twelve components", jpeg.replace(b"\xff\xc0\x00\x11", b"\xff\xc0\xff\x11", 1), (400,)

    yield "PNG: signature alone", PNG, (400,)
    yield "PNG: cut in the pixels", plain_png[: len(plain_png) // 2], (400,)
    yield "PNG: no pixels", png(header(40, 30)), (400,)
    yield "PNG: no width", png(header(0, 30), chunk(b"IDAT", zeros(100))), (400,)
    yield "PNG: negative size", png(header(0xFFFFFFFF, 0xFFFFFFFF), chunk(b"IDAT", zeros(100))), ANY_BAD
    yield "PNG: 10 thousand million pixels", png(header(HUGE, HUGE), chunk(b"IDAT", zeros(1000))), (413,)
    yield "PNG: bomb of zeros", png(header(20_000, 20_000, 8, 0), chunk(b"IDAT", zeros(60 << 20))), (413,)
    yield "PNG: a line over the limit of a side", png(header(1, 20_001, 8, 0), chunk(b"IDAT", zeros(40_002))), (413,)
    yield "JPEG: a side over the limit", with_size(jpeg, 20_001, 40), (413,)
    yield "WebP: a side over the limit", webp(canvas(20_001, 40), still_webp[12:]), (413,)
    yield "WebP: too much to decode", webp(canvas(1900, 1900), still_webp[12:]), (413,)
    yield "PNG: one long line", png(header(5_000_000, 1, 8, 0), chunk(b"IDAT", zeros(5_000_001))), (413,)
    yield "JPEG: one long line", with_size(jpeg, 20_001, 1), (413,)
    yield ("PNG: a second, huge header", png(header(9, 9), header(HUGE, HUGE), chunk(b"IDAT", zeros(1000))), ANY_BAD)
    yield "PNG: wrong checksum", plain_png[:30] + b"\0\0\0\0" + plain_png[34:], (400,)
    yield "PNG: unknown depth", png(header(9, 9, 7), chunk(b"IDAT", zeros(99))), ANY_BAD
    yield "PNG: pixels that are not compressed", png(header(9, 9), chunk(b"IDAT", bytes(300))), (400,)
    yield "PNG: palette missing", png(header(9, 9, 8, 3)), (400,)
    yield "PNG: text bomb", png(header(9, 9), chunk(b"zTXt", b"a\0\0" + zeros(80 << 20))), (400,)
    yield "PNG: chunk longer than the file", PNG + header(9, 9) + b"\x7f\xff\xff\xffIDAT" + bytes(50), (400,)

    yield "WebP: signature alone", b"RIFF\x04\0\0\0WEBP", (400,)
    yield "WebP: cut in the pixels", still_webp[: len(still_webp) // 2], (400,)
    yield "WebP: lossless, cut", encoded("WEBP", lossless=True)[:60], (400,)
    yield "WebP: huge canvas", webp(canvas(1 << 24, 1 << 24), still_webp[12:]), (413,)
    yield "WebP: canvas other than its picture", webp(canvas(900, 900), still_webp[12:]), (400,)
    yield "WebP: no picture", webp(canvas(9, 9)), (400,)
    yield "WebP: unknown chunk", webp(webp_chunk(b"EVIL", bytes(40))), (400,)

    yield "over the limit of bytes", jpeg + bytes(bytes_max), (413,)


def accepted() -> Iterator[tuple[str, bytes]]:
    """Odd, but photos: they are answered, and nothing but their pixels is looked at."""
    jpeg = encoded("JPEG")
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", "<script>alert(1)</script>")
    yield "JPEG and ZIP in one", jpeg + zipped(b"<p>")
    yield "PNG with a script as text", encoded("PNG", pnginfo=notes)
    yield "CMYK", encoded("JPEG", image(mode="CMYK"))
    yield ("grey, 16 bits", encoded("PNG", Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)))
    yield "palette", encoded("PNG", image(mode="L").convert("P"))
    yield "transparent", encoded("PNG", image(mode="RGBA"))
    yield "JPEG without its end marker", jpeg[:-2]
    yield "PNG with a profile larger than it", encoded("PNG", icc_profile=bytes(2_000_000))
    yield "PNG: animated", animation("PNG")
    yield "WebP: animated", animation("WEBP")
    yield "one pixel", encoded("PNG", image(1, 1))
    yield "as wide as may be", encoded("PNG", Image.new("1", (20_000, 1)))
    yield "orientation that does not exist", exif_turned(4711)
    yield "damaged EXIF", jpeg[:2] + b"\xff\xe1\x00\x10Exif\0\0garbage!" + jpeg[2:]
    yield "JPEG that says to be larger than its pixels", with_size(jpeg, 1900, 1900)
    yield "progressive", encoded("JPEG", progressive=True)
