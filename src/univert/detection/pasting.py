"""Cut and paste: scenes made of the pictures of single products, for who has those and no boxes.

Dwibedi et al. 2017, "Cut, Paste and Learn". A product is cut out of its plain (or transparent) background, changed in
size and light, mirrored, and pasted on a background with others; its box is that of the pixels which stay visible.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from annotated_types import Ge
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageOps
from scipy.ndimage import binary_fill_holes, binary_opening, find_objects

from univert.core.errors import BadInputError
from univert.core.threads import decoding_threads, map_ahead
from univert.data.catalogue import Catalogue
from univert.data.decode import BoxXyxyPx, decode_rgb
from univert.data.image_problem import ImageProblem
from univert.data.rows import Item, SourceRow
from univert.data.samplers import step_rng
from univert.detection.output import photo_files

CUT_OUT_PX: Final = 320
"""Pictures are cut out at this size, at most."""
NEAR_BACKGROUND: Final = 16
"""How far a channel (0 to 255) of the plain background may be from a surface through the picture's border."""
LEAST_VISIBLE: Final = 0.5
"""Share of an item that others must leave to be seen."""
ITEMS: Final = (3, 9)
"""So many items a scene shows, as far as there is room."""
LENGTHS: Final = (0.12, 0.75)
"""Length of an item, as a share of the scene's height."""
_TRIES: Final = 4


@dataclass(frozen=True, kw_only=True)
class PastingConfig:
    """How scenes are made of the pictures of products.

    Attributes:
        scenes: how many to learn from. Where there are as many real ones to learn from, none are made.
        width_px: of a scene; it is three quarters as high.
        backgrounds: a folder of photos to paste on; None makes plain walls and floors with some grain.
    """

    scenes: Annotated[int, Ge(0)] = 600
    width_px: Annotated[int, Ge(64)] = 480
    backgrounds: str | None = None


def pasted_scenes(
    catalogue: Catalogue, config: PastingConfig, *, split: str = "train", seed: int = 0
) -> Iterator[SourceRow]:
    """Scenes made of a catalogue's product pictures, for `univert.data.build.build_catalogue`.

    They show every vertical as often as any other. For `val` a sixth as many are made. The same catalogue, settings and
    seed give the same scenes. Scenes none of whose pictures has a plain background to be cut out of are left out.

    Args:
        catalogue: of pictures of single products.
        config: how scenes are made.
        split: of the products that are shown.
        seed: of all that is drawn.

    Raises:
        BadInputError: the split has no pictures, no scenes are wanted, the folder of backgrounds has no photos, or no
            picture can be cut out.
    """
    splits, verticals, products = (catalogue.column(name) for name in ("split", "vertical", "product"))
    of_vertical = [np.flatnonzero((splits == split) & (verticals == name)) for name in catalogue.verticals]
    pictures = [positions for positions in of_vertical if len(positions)]
    if not config.scenes:
        raise BadInputError(f"{catalogue.path}: pasting.scenes is 0, so no scenes are made of single products")
    if not pictures:
        raise BadInputError(f"{catalogue.path}: no pictures in {split}; cut-and-paste scenes need some")
    photos = photo_files([Path(config.backgrounds)]) if config.backgrounds else []
    size = (config.width_px, config.width_px * 3 // 4)

    def make(number: int) -> SourceRow | None:
        rng, buffer = step_rng(seed, 11, number), io.BytesIO()
        canvas = _background(photos, size, rng)
        shown = _paste(catalogue, pictures, canvas, rng)
        if not shown:
            return None
        Image.fromarray(canvas.astype(np.uint8)).save(buffer, "JPEG", quality=90)
        items = tuple(Item(box_xyxy_px=box, vertical=verticals[one], product=products[one]) for one, box in shown)
        name = f"pasted-{split}-{number:05d}"
        return SourceRow(
            origin=name, id=name, image=buffer.getvalue(), split=split, source="cut and paste", items=items
        )

    count = config.scenes if split == "train" else -(-config.scenes // 6)
    nothing = True
    for row in map_ahead(make, range(count), workers=decoding_threads(None)):
        if row is not None:
            nothing = False
            yield row
    if nothing:
        raise BadInputError(
            f"{catalogue.path}: no picture of {split} could be cut out of its background; cut-and-paste needs "
            "pictures on a plain or transparent one"
        )


def cut_out(content: bytes) -> UInt8[np.ndarray, "H W 4"] | None:
    """A product cut out of its picture, trimmed: by its transparency, else by the colour of its border.

    Returns:
        RGBA; None where there is no plain background: next to nothing, or nearly all of the picture, would stay.
    """
    white, black = (decode_rgb(content, background_rgb=(tone, tone, tone)) for tone in (255, 0))
    white.thumbnail((CUT_OUT_PX, CUT_OUT_PX))
    black.thumbnail((CUT_OUT_PX, CUT_OUT_PX))
    on_black = np.asarray(black, np.int32)
    alpha = 255 - (np.asarray(white, np.int32) - on_black).max(2)
    colours = np.clip(on_black * 255 / np.maximum(alpha, 1)[..., None], 0, 255)
    if alpha.min() > 250:
        other = (np.abs(colours - _backdrop(colours)) > NEAR_BACKGROUND).any(2)
        alpha = 255 * binary_opening(binary_fill_holes(other))  # with what is enclosed, without specks
    seen = alpha > 127
    if not 0.02 < seen.mean() < 0.97:
        return None
    rows, columns = find_objects(seen.astype(np.int8))[0]
    return np.asarray(np.dstack([colours, alpha])[rows, columns], np.uint8)


def _backdrop(colours: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    """A picture's plain background, in a light that changes smoothly: a quadratic surface through its border."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in colours.shape[:2]), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 2)
    border = np.pad(np.zeros(np.subtract(x.shape, 2), bool), 1, constant_values=True)
    return np.asarray(terms @ np.linalg.lstsq(terms[border], colours[border], rcond=None)[0])


def _paste(
    catalogue: Catalogue, pictures: Sequence[np.ndarray], canvas: Float32[np.ndarray, "H W 3"], rng: np.random.Generator
) -> list[tuple[int, BoxXyxyPx]]:
    """Paste pictures, each where it leaves enough of the others to be seen; position and box of each."""
    positions, areas = list[int](), list[int]()
    owners = np.zeros(canvas.shape[:2], np.int32)  # for each pixel the number, from 1, of the item that is seen there
    wanted = int(rng.integers(*ITEMS, endpoint=True))
    for _ in range(_TRIES * wanted):
        position = int(rng.choice(pictures[int(rng.integers(len(pictures)))]))
        cut = cut_out(catalogue.image_bytes([position])[0])
        if cut is None:
            continue
        picture = _changed(cut, canvas.shape[0], rng)
        top, left = (int(rng.integers(room + 1)) for room in np.subtract(canvas.shape[:2], picture.shape[:2]))
        place = np.s_[top : top + picture.shape[0], left : left + picture.shape[1]]
        seen, changed = picture[..., 3] > 127, owners.copy()
        changed[place][seen] = len(positions) + 1
        visible = np.bincount(changed.ravel(), minlength=len(areas) + 2)[1:]
        if (visible[:-1] >= LEAST_VISIBLE * np.array(areas)).all() and visible[-1]:
            owners = changed
            positions.append(position)
            areas.append(int(seen.sum()))
            canvas[place] += (picture[..., :3] - canvas[place]) * picture[..., 3:] / 255
            if len(positions) == wanted:
                break
    boxes = ((x.start, y.start, x.stop, y.stop) for y, x in find_objects(owners))
    return list(zip(positions, boxes, strict=True))


def _changed(cut: np.ndarray, height_px: int, rng: np.random.Generator) -> Float32[np.ndarray, "h w 4"]:
    """A picture cut out, in a size and a light of its own, mirrored or not."""
    length = height_px * np.exp(rng.uniform(*np.log(LENGTHS)))
    height, width = (max(1, round(side * length / max(cut.shape[:2]))) for side in cut.shape[:2])
    picture = np.array(Image.fromarray(cut).resize((width, height)), np.float32)
    light = rng.uniform(0.65, 1.15) * rng.uniform(0.94, 1.06, 3)
    picture[..., :3] = np.minimum(picture[..., :3] * light, 255)
    return picture[:, ::-1] if rng.random() < 0.5 else picture


def _background(
    photos: Sequence[Path], size: tuple[int, int], rng: np.random.Generator
) -> Float32[np.ndarray, "H W 3"]:
    """Part of a photo; or, without photos, wall and floor with grain of several sizes."""
    if photos:
        path = photos[int(rng.integers(len(photos)))]
        try:
            photo = decode_rgb(path.read_bytes(), draft_px=max(size))
        except ImageProblem as problem:
            raise BadInputError(f"{path}: no background: {problem}") from None
        return np.array(ImageOps.fit(photo, size, centering=tuple(rng.random(2))), np.float32)
    width, height = size
    wall, floor = rng.uniform(60, 250, (2, 3)) * 0.4 + rng.uniform(60, 250, (2, 1)) * 0.6
    edge = np.arange(height)[:, None, None] < rng.uniform(0.3, 1.1) * height
    canvas = np.broadcast_to(np.where(edge, wall, floor), (height, width, 3))
    for cells in (3, 24, 120):
        grain = Image.fromarray(rng.normal(0, rng.uniform(0, 14), (cells, cells)).astype(np.float32))
        canvas = canvas + np.asarray(grain.resize(size))[..., None]
    return np.asarray(np.clip(canvas, 0, 255), np.float32)
