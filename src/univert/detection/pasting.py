"""Cut and paste: scenes made of the pictures of single products, for who has those and no boxes.

Dwibedi et al. 2017, "Cut, Paste and Learn". A product is cut out of its plain (or transparent) background, changed in
size and light, mirrored, and pasted on a background with others; its box is that of the pixels which stay visible.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import scipy.ndimage
from annotated_types import Ge, Interval
from jaxtyping import Bool, UInt8
from PIL import Image, ImageEnhance

from univert.core.errors import BadInputError
from univert.core.threads import decoding_threads, map_ahead
from univert.data.catalogue import Catalogue
from univert.data.decode import BoxXyxyPx, decode_rgb
from univert.data.image_problem import ImageProblem
from univert.data.rows import Item, SourceRow
from univert.data.samplers import step_rng

CUT_OUT_PX = 320
"""Pictures are cut out at this size, at most."""
NEAR_BACKGROUND = 24
"""How far a channel (0 to 255) of the plain background may be from the colour of the picture's border."""
LEAST_VISIBLE = 0.5
"""Share of an item that others may not cover."""
_TRIES = 12
_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, kw_only=True)
class PastingConfig:
    """How scenes are made of the pictures of products.

    Attributes:
        scenes: how many; a seventh of them, of the products of val, is for validation.
        width_px: of a scene.
        height_px: of a scene.
        min_items: pasted into a scene.
        max_items: pasted into a scene, as far as there is room.
        min_share: length of the shortest item as a share of the scene's shorter side.
        max_share: of the longest.
        backgrounds: a folder of photos to paste on; None makes plain, two-coloured and patterned ones, some of them
            of the products' own pictures, blurred.

    Raises:
        BadInputError: smallest and largest are the wrong way round.
    """

    scenes: Annotated[int, Ge(7)] = 700
    width_px: Annotated[int, Ge(64)] = 480
    height_px: Annotated[int, Ge(64)] = 360
    min_items: Annotated[int, Ge(1)] = 3
    max_items: Annotated[int, Ge(1)] = 9
    min_share: Annotated[float, Interval(gt=0, le=1)] = 0.12
    max_share: Annotated[float, Interval(gt=0, le=1)] = 0.75
    backgrounds: str | None = None

    def __post_init__(self) -> None:
        for name in ("items", "share"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high:
                raise BadInputError(f"pasting.min_{name} must not be above max_{name}, got {low} and {high}")


def pasted_scenes(catalogue: Catalogue, config: PastingConfig, *, seed: int = 0) -> Iterator[SourceRow]:
    """Scenes made of a catalogue's product pictures, for `univert.data.build.build_catalogue`.

    A scene shows products of one split alone. The same catalogue, settings and seed give the same scenes.

    Raises:
        BadInputError: train or val has no pictures, the folder of backgrounds has none, or a picture has no plain
            background to be cut out of, for all of a scene's tries.
    """
    splits, verticals = catalogue.column("split"), catalogue.column("vertical")
    pictures = {
        split: {name: np.flatnonzero((splits == split) & (verticals == name)) for name in catalogue.verticals}
        for split in ("train", "val")
    }
    for split, of_vertical in pictures.items():
        pictures[split] = {name: positions for name, positions in of_vertical.items() if len(positions)}
        if not pictures[split]:
            raise BadInputError(f"{catalogue.path}: no pictures in {split}; cut-and-paste scenes need some")
    backgrounds = _background_files(config.backgrounds)
    products = catalogue.column("product")

    def make(number: int) -> SourceRow:
        split = "val" if number % 7 == 6 else "train"
        scene = _Scene(catalogue, config, pictures[split], backgrounds, step_rng(seed, 11, number))
        shown = scene.fill()
        if not shown:
            raise BadInputError(
                f"{catalogue.path}: no picture of {split} could be cut out of its background; cut-and-paste needs "
                "pictures on a plain or transparent one"
            )
        return SourceRow(
            origin=f"scene {number}",
            id=f"pasted-{number:05d}",
            image=scene.encoded(),
            split=split,
            source="cut and paste",
            items=tuple(
                Item(box_xyxy_px=scene.box(place), vertical=name, product=products[position])
                for place, (name, position) in enumerate(shown)
            ),
        )

    return map_ahead(make, range(config.scenes), workers=decoding_threads(None))


def cut_out(content: bytes, longest_px: int = CUT_OUT_PX) -> UInt8[np.ndarray, "H W 4"] | None:
    """A product cut out of its picture, trimmed, as RGBA: by its transparency, else by the colour of its border.

    Returns:
        None where there is no plain background: next to nothing, or nearly all of the picture, would stay.
    """
    white, black = (decode_rgb(content, background_rgb=(tone, tone, tone)) for tone in (255, 0))
    white.thumbnail((longest_px, longest_px))
    black.thumbnail((longest_px, longest_px))
    on_white, on_black = np.asarray(white, np.int32), np.asarray(black, np.int32)
    alpha = 255 - (on_white - on_black).max(2)
    colours = on_white
    if alpha.min() > 250:
        alpha = np.where(_foreground(on_white), 255, 0)
        alpha = scipy.ndimage.gaussian_filter(alpha.astype(np.float32), 0.7)
    else:
        colours = np.clip(on_black * 255 / np.maximum(alpha, 1)[..., None], 0, 255)
    seen = alpha > 127
    if not 0.02 < seen.mean() < 0.97:
        return None
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    picture = np.dstack([colours, alpha]).astype(np.uint8)
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _foreground(pixels: np.ndarray) -> Bool[np.ndarray, "H W"]:
    """What is not the plain background: the border's colour, as far as it hangs together from the border on."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    near = (np.abs(pixels - np.median(border, 0)) <= NEAR_BACKGROUND).all(2)
    parts, _ = scipy.ndimage.label(near)
    outside = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    found = ~np.isin(parts, outside[outside > 0])
    return np.asarray(scipy.ndimage.binary_opening(found, iterations=1))


def _background_files(folder: str | None) -> list[Path]:
    if folder is None:
        return []
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in _PHOTO_SUFFIXES)
    if not found:
        raise BadInputError(f"pasting.backgrounds: {folder} holds no JPEG, PNG or WebP photos")
    return found


class _Scene:
    """One scene in the making; `owners` has for each pixel the number of the item that is seen there, or -1."""

    def __init__(
        self,
        catalogue: Catalogue,
        config: PastingConfig,
        pictures: dict[str, np.ndarray],
        backgrounds: Sequence[Path],
        rng: np.random.Generator,
    ) -> None:
        self._catalogue, self._config, self._pictures, self._rng = catalogue, config, pictures, rng
        self._owners = np.full((config.height_px, config.width_px), -1)
        self._areas: list[int] = []
        self._canvas = self._background(backgrounds)

    def fill(self) -> list[tuple[str, int]]:
        """Paste pictures, every vertical as often as any other; vertical and position of each."""
        rng, config = self._rng, self._config
        wanted, names = int(rng.integers(config.min_items, config.max_items + 1)), list(self._pictures)
        shown: list[tuple[str, int]] = []
        for _ in range(_TRIES * wanted):
            name = names[int(rng.integers(len(names)))]
            position = int(rng.choice(self._pictures[name]))
            if self._paste(position):
                shown.append((name, position))
            if len(shown) == wanted:
                break
        return shown

    def encoded(self) -> bytes:
        """The scene in a light of its own, as JPEG."""
        rng, buffer = self._rng, io.BytesIO()
        picture = ImageEnhance.Brightness(Image.fromarray(self._canvas)).enhance(rng.uniform(0.75, 1.2))
        picture = ImageEnhance.Color(picture).enhance(rng.uniform(0.7, 1.2))
        picture.save(buffer, "JPEG", quality=int(rng.integers(70, 96)))
        return buffer.getvalue()

    def box(self, place: int) -> BoxXyxyPx:
        """The box of what is seen of an item."""
        rows, columns = (np.flatnonzero((self._owners == place).any(axis)) for axis in (1, 0))
        return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)

    def _paste(self, position: int) -> bool:
        """Paste a picture where it leaves enough of the others to be seen; whether there was room."""
        rng, config = self._rng, self._config
        picture = self._changed(position)
        if picture is None:
            return False
        height, width = picture.shape[:2]
        seen = picture[..., 3] > 127
        for _ in range(_TRIES):
            left = int(rng.integers(0, config.width_px - width + 1))
            top = int(rng.integers(0, config.height_px - height + 1))
            owners = self._owners[top : top + height, left : left + width]
            covered = np.bincount(owners[seen & (owners >= 0)], minlength=len(self._areas))
            visible = np.bincount(self._owners[self._owners >= 0], minlength=len(self._areas)) - covered
            if (visible >= LEAST_VISIBLE * np.array(self._areas)).all():
                owners[seen] = len(self._areas)
                self._areas.append(int(seen.sum()))
                alpha = picture[..., 3:].astype(np.float32) / 255
                part = self._canvas[top : top + height, left : left + width]
                part[:] = np.rint(part * (1 - alpha) + picture[..., :3] * alpha)
                return True
        return False

    def _changed(self, position: int) -> UInt8[np.ndarray, "h w 4"] | None:
        """A picture cut out, in a size, a turn and a light of its own."""
        rng, config = self._rng, self._config
        try:
            cut = cut_out(self._catalogue.image_bytes([position])[0])
        except ImageProblem as problem:
            raise BadInputError(f"image {self._catalogue.column('id')[position]}: {problem}") from problem
        if cut is None:
            return None
        shorter = min(config.width_px, config.height_px)
        length = shorter * np.exp(rng.uniform(np.log(config.min_share), np.log(config.max_share)))
        scale = length / max(cut.shape[:2])
        image = Image.fromarray(cut, "RGBA")
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
        image = image.rotate(float(rng.normal(0, 4)), Image.Resampling.BICUBIC, expand=True)
        picture = np.array(image)
        light = rng.uniform(0.65, 1.15) * rng.uniform(0.94, 1.06, 3)
        picture[..., :3] = np.clip(picture[..., :3] * light, 0, 255)
        seen = picture[..., 3] > 127
        if not seen.any() or picture.shape[0] > config.height_px or picture.shape[1] > config.width_px:
            return None
        return picture

    def _background(self, backgrounds: Sequence[Path]) -> UInt8[np.ndarray, "H W 3"]:
        """A crop of a photo; or, without photos, wall and floor with a pattern of noise, or a blurred picture."""
        rng, config = self._rng, self._config
        size = (config.width_px, config.height_px)
        if backgrounds:
            path = backgrounds[int(rng.integers(len(backgrounds)))]
            photo = decode_rgb(path.read_bytes(), draft_px=max(size))
            width = rng.uniform(0.5, 1) * min(photo.width, photo.height * size[0] / size[1])
            height = width * size[1] / size[0]
            left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
            return np.array(photo.resize(size, box=(left, top, left + width, top + height)))
        if rng.random() < 0.25:
            position = int(rng.choice(np.concatenate(list(self._pictures.values()))))
            picture = decode_rgb(self._catalogue.image_bytes([position])[0]).resize(size, Image.Resampling.BICUBIC)
            return np.array(picture.resize((24, 18)).resize(size, Image.Resampling.BICUBIC))
        wall, floor = rng.uniform(60, 250, (2, 1, 1, 3)) * 0.4 + rng.uniform(60, 250, (2, 1, 1, 1)) * 0.6
        edge = int(rng.uniform(0.3, 1.1) * config.height_px)
        canvas = np.where(np.arange(config.height_px)[:, None, None] < edge, wall[0], floor[0])
        canvas = np.broadcast_to(canvas, (config.height_px, config.width_px, 3))
        for cells in (3, 24, 120):
            grain = rng.normal(0, rng.uniform(0, 14), (cells, cells)).astype(np.float32)
            smooth = Image.fromarray(grain).resize(size, Image.Resampling.BICUBIC)
            canvas = canvas + np.asarray(smooth)[..., None]
        return np.asarray(np.clip(canvas, 0, 255), np.uint8)
