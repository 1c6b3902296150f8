"""What a user hands to `embed` (files, PIL images, arrays, tensors) turned into upright RGB images."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from PIL import Image

from univert.core.errors import BadInputError
from univert.data.decode import Rgb, decode_rgb, to_rgb
from univert.data.image_problem import ImageProblem

ImageLike = Union[str, "os.PathLike[str]", bytes, Image.Image, np.ndarray, torch.Tensor]
"""One image: a file, its content, a PIL image, an (H, W[, 3 or 4]) array, or a (3, H, W) tensor.

Arrays and tensors hold uint8, or floats from 0 to 1.
"""


def single_images(items: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """The single images in whatever was given: one image, a batch array or tensor, or any iterable of images.

    Raises:
        BadInputError: it is none of these.
    """
    if isinstance(items, np.ndarray | torch.Tensor):
        return items if items.ndim == 4 else [items]
    if isinstance(items, str | os.PathLike | bytes | Image.Image):
        return [items]
    if not isinstance(items, Iterable):
        raise BadInputError(
            f"embed takes paths, bytes, PIL images, arrays, tensors, or an iterable of them, got {_kind(items)}"
        )
    return items


def as_rgb(number: int, item: ImageLike, *, background_rgb: Rgb, draft_px: int) -> Image.Image:
    """One image as an upright PIL image in mode RGB, with a colour behind transparent pixels.

    `number` is its place among those given, for messages. A JPEG file may be decoded smaller, as long as no side falls
    below `draft_px`.

    Raises:
        BadInputError: the item is no image, cannot be read, or has a shape, type or values that no image has.
    """
    name = f"image {number}"
    if isinstance(item, str | os.PathLike):
        path = Path(item)
        try:
            item = path.read_bytes()
        except OSError as error:
            raise BadInputError(f"{name}: {path} cannot be read: {error.strerror or error}") from None
        name = str(path)
    if isinstance(item, torch.Tensor):
        if item.ndim != 3 or item.shape[0] != 3:
            raise BadInputError(f"{name}: a tensor must have the shape (3, H, W), got {tuple(item.shape)}")
        item = item.detach().permute(1, 2, 0).cpu()
        item = (item.float() if item.is_floating_point() else item).numpy()
    if isinstance(item, np.ndarray):
        item = Image.fromarray(_uint8(item, name))
    try:
        if isinstance(item, bytes):
            return decode_rgb(item, background_rgb=background_rgb, draft_px=draft_px)
        if isinstance(item, Image.Image):
            return to_rgb(item, background_rgb=background_rgb)
    except ImageProblem as error:
        raise BadInputError(f"{name}: {error}") from error
    raise BadInputError(f"{name}: must be a path, bytes, a PIL image, an array or a tensor, got {_kind(item)}")


def _uint8(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or not array.size:
        raise BadInputError(
            f"{name}: an array must have the shape (H, W), (H, W, 3) or (H, W, 4) and pixels, got {array.shape}"
        )
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating) or not 0 <= array.min() <= array.max() <= 1:  # NaN included
        raise BadInputError(
            f"{name}: an array must hold uint8, or floats from 0 to 1, got {array.dtype} in "
            f"{float(array.min()):.4g}..{float(array.max()):.4g}"
        )
    return np.asarray(np.rint(array * 255.0), np.uint8)


def _kind(item: Any) -> str:
    return "None" if item is None else f"a value of type {type(item).__name__}"
