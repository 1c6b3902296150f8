"""Small pictures for the tests, and the files people really have."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def noise(width: int = 12, height: int = 8, channels: int = 3, *, seed: int = 0) -> np.ndarray:
    """Random pixels, shape (height, width, channels), uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)


def smooth(width: int = 64, height: int = 48) -> np.ndarray:
    """Gradients that survive lossy compression and differ in every corner, uint8 RGB."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 255 - (x + y) / 2], axis=2).astype(np.uint8)


def encoded(image: np.ndarray | Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def png(seed: int = 0, width: int = 6, height: int = 4) -> bytes:
    return encoded(noise(width, height, seed=seed))


def jpeg(seed: int = 0, width: int = 24, height: int = 16) -> bytes:
    return encoded(noise(width, height, seed=seed), "JPEG", quality=90)


def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A few bytes that claim billions of pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
