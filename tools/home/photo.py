"""From the light that reaches a camera to a JPEG file, as a phone makes it."""

from __future__ import annotations

import io
import random

import numpy as np
from PIL import Image, ImageFilter


def develop(light: np.ndarray, key: float, balance: tuple[float, float, float]) -> np.ndarray:
    """Linear light [H, W, 3] as a picture in [0, 1], exposed so that its mean falls on `key`.

    Args:
        light: linear RGB, any scale.
        key: brightness of the geometric mean, linear; a photo's is near 0.18.
        balance: factor of each colour; what is left of the light's colour after white balance.
    """
    luminance = light @ np.array([0.2126, 0.7152, 0.0722])
    mean = float(np.exp(np.log(luminance.clip(1e-3)).mean()))
    exposed = light * (key / max(mean, 1e-3)) * np.array(balance)
    # The shoulder of a film curve: linear in the shadows, soft towards white.
    curved: np.ndarray = np.where(exposed < 0.5, exposed, 1 - 0.5 * np.exp(-(exposed - 0.5) / 0.5)).clip(0, 1)
    return curved


def with_noise(picture: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Shot and read noise of a sensor over a linear picture [H, W, 3] in [0, 1]."""
    rng = np.random.default_rng(seed)
    sigma = noise * np.sqrt(picture.clip(0, 1) + 0.02)
    noisy: np.ndarray = (picture + rng.normal(size=picture.shape) * sigma).clip(0, 1)
    return noisy


def to_srgb(picture: np.ndarray) -> Image.Image:
    """A linear picture in [0, 1] as 8-bit sRGB."""
    encoded = np.where(picture <= 0.0031308, picture * 12.92, 1.055 * picture.clip(1e-9) ** (1 / 2.4) - 0.055)
    return Image.fromarray((encoded.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def phone_photo(light: np.ndarray, seed: int) -> bytes:
    """A photo of the scene as JPEG: exposure, white balance, vignette, blur, noise and compression from `seed`."""
    rng = random.Random(f"photo/{seed}")  # noqa: S311
    mean = light.reshape(-1, 3).mean(axis=0).clip(1e-3)
    kept = rng.uniform(0.35, 0.85)
    balance = (mean.mean() / mean) ** kept * np.array([rng.uniform(0.95, 1.06), 1.0, rng.uniform(0.94, 1.06)])
    picture = develop(light, rng.uniform(0.09, 0.27), tuple(balance))
    height, width = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    picture = picture * (1 - rng.uniform(0.0, 0.18) * (x**2 + y**2)[..., None])
    picture = with_noise(picture, rng.choice((0.008, 0.015, 0.025, 0.035)), seed)
    image = to_srgb(picture)
    if (blur := rng.uniform(-0.5, 0.6)) > 0.1:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    return jpeg(image, rng.randint(68, 84))


def shop_picture(light: np.ndarray) -> bytes:
    """A product picture as JPEG: the light as it is."""
    return jpeg(to_srgb(light.clip(0, 1)), 75)


def jpeg(image: Image.Image, quality: int) -> bytes:
    """An encoded JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
