import base64
import io

import numpy as np
import pytest
from PIL import Image

from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow
from univert.report.thumbnails import atlas, thumbnails


def opened(uri):
    head, content = uri.split(",", 1)
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")


@pytest.fixture
def linked(tmp_path):
    """Three linked images: a wide red one, one with a box, and one that is gone."""
    rows = []
    for name, size, box in (("a", (80, 20), None), ("b", (60, 60), (0, 0, 30, 30)), ("c", (10, 10), None)):
        image = Image.new("RGB", size, (255, 0, 0))
        if box:
            image.paste((0, 0, 255), (30, 0, 60, 60))
        image.save(tmp_path / f"{name}.png")
        rows.append(
            SourceRow(origin=name, id=name, vertical="v", path=tmp_path / f"{name}.png", product="p", box_xyxy_px=box)
        )
    build_catalogue(rows, tmp_path / "catalogue", link=True, background_rgb=(0, 255, 0), workers=1)
    (tmp_path / "c.png").unlink()
    return Catalogue.open(tmp_path / "catalogue")


def test_thumbnails_are_square_padded_cropped_and_never_fail(linked):
    wide, boxed, gone, again = thumbnails(linked, [0, 1, 2, 0], size_px=16)
    assert {image.size for image in (wide, boxed, gone, again)} == {(16, 16)}
    assert wide.getpixel((8, 8)) == (255, 0, 0)
    assert wide.getpixel((8, 0)) == (0, 255, 0)
    assert boxed.getpixel((15, 8))[2] < 60
    assert gone.getpixel((0, 0)) == (222, 222, 220)
    assert wide.tobytes() == again.tobytes()


def test_atlas_places_each_picture_where_it_says():
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    uri, columns = atlas((Image.new("RGB", (16, 16), colour) for colour in colours), 5, cell_px=16)
    picture = opened(uri)
    assert (columns, picture.size) == (3, (48, 32))
    for index, colour in enumerate(colours):
        x, y = 16 * (index % columns) + 8, 16 * (index // columns) + 8
        np.testing.assert_allclose(picture.getpixel((x, y)), colour, atol=25)
