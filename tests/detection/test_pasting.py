from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.detection.rooms import encoded
from univert.core.errors import BadInputError
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow
from univert.detection.pasting import PastingConfig, cut_out, pasted_scenes

SMALL = PastingConfig(scenes=6, width_px=96)


def ring(mode: str = "RGB", background: tuple[int, ...] = (250, 250, 250)) -> Image.Image:
    """A red ring; what is seen through it is background, and not part of the outside."""
    image = Image.new(mode, (80, 60), background)
    pen = ImageDraw.Draw(image)
    pen.ellipse((20, 10, 59, 49), fill=(200, 20, 20, 255)[: len(background)])
    pen.ellipse((32, 22, 47, 37), fill=background)
    return image


def test_a_product_is_cut_out_of_a_plain_or_transparent_background() -> None:
    by_colour, by_transparency = (cut_out(encoded(one)) for one in (ring(), ring("RGBA", (0, 0, 0, 0))))
    for cut in (by_colour, by_transparency):
        assert cut is not None
        assert np.abs(np.array(cut.shape[:2]) - 40).max() <= 2
        assert cut[0, 0, 3] == 0
        assert cut[20, 5].tolist() == [200, 20, 20, 255]
    assert by_colour is not None
    assert by_colour[20, 20, 3] == 255  # the hole does not hang together with the border
    assert by_transparency is not None
    assert by_transparency[20, 20, 3] == 0


def test_scenes_show_products_of_one_split_in_their_boxes(catalogue: Catalogue) -> None:
    split_of = dict(zip(catalogue.column("product"), catalogue.column("split"), strict=True))
    rows = list(pasted_scenes(catalogue, SMALL, seed=1))
    others = list(pasted_scenes(catalogue, SMALL, split="val", seed=1))
    assert [row.split for row in rows + others] == ["train"] * 6 + ["val"]
    for row in rows + others:
        assert row.items
        assert row.image is not None
        pixels = np.asarray(Image.open(io.BytesIO(row.image)))
        assert pixels.shape == (72, 96, 3)
        for item in row.items:
            x0, y0, x1, y1 = item.box_xyxy_px
            assert 0 <= x0 < x1 <= 96
            assert 0 <= y0 < y1 <= 72
            assert item.product is None or split_of[item.product] == row.split
    assert rows == list(pasted_scenes(catalogue, SMALL, seed=1))
    assert rows != list(pasted_scenes(catalogue, SMALL, seed=2))


def test_photos_serve_as_backgrounds(catalogue: Catalogue, tmp_path: Path) -> None:
    Image.new("RGB", (300, 100), (0, 0, 250)).save(tmp_path / "blue.png")
    config = PastingConfig(scenes=6, width_px=96, backgrounds=str(tmp_path))
    for row in pasted_scenes(catalogue, config):
        corner = np.asarray(Image.open(io.BytesIO(row.image or b"")))[:, :, 2]
        assert np.median(corner) > 120
    (tmp_path / "blue.png").write_bytes(b"no photo")
    with pytest.raises(BadInputError, match=r"blue\.png: no background: the content is not an image"):
        list(pasted_scenes(catalogue, config))
    (tmp_path / "blue.png").unlink()
    with pytest.raises(BadInputError, match="no photos in"):
        list(pasted_scenes(catalogue, config))


@pytest.mark.parametrize("contrast", [0, 255])
def test_what_cannot_be_cut_is_said(tmp_path: Path, catalogue: Catalogue, contrast: int) -> None:
    pixels = np.random.default_rng(0).integers(0, contrast + 1, (40, 40, 3)).astype(np.uint8)
    row = SourceRow(
        origin="a", id="a", image=encoded(Image.fromarray(pixels)), vertical="discs", product="a", split="train"
    )
    build_catalogue([row, replace(row, id="b", product="b", split="val")], tmp_path / "plain.lance")
    with pytest.raises(BadInputError, match="could be cut out of its background"):
        list(pasted_scenes(Catalogue.open(tmp_path / "plain.lance"), SMALL))
    with pytest.raises(BadInputError, match="no pictures in val"):
        list(pasted_scenes(catalogue.select(split="train"), SMALL, split="val"))
    with pytest.raises(BadInputError, match=r"pasting\.scenes is 0"):
        list(pasted_scenes(catalogue, PastingConfig(scenes=0)))
