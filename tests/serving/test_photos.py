from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from univert.data.decode import BoxXyxyPx
from univert.serving.photos import PhotoLimits, read_photo, upright_size
from univert.serving.problems import Problem
from univert.serving.regions import GivenBox, WholePhoto, clip_box, parse_box

LIMITS = PhotoLimits(pixels_max=1_000_000)


def jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    across = np.linspace(0, 255, width, dtype=np.uint8)[None, :].repeat(height, 0)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(across).convert("RGB").save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_and_pixels_are_upright(orientation: int) -> None:
    content = jpeg(800, 400, orientation)
    size = (400, 800) if orientation >= 5 else (800, 400)
    assert upright_size(content, LIMITS) == size
    photo = read_photo(content, LIMITS, detail_px=64)
    assert (photo.width_px, photo.height_px) == size
    assert 64 <= min(photo.rgb.size) < 400, "a large JPEG is decoded smaller"
    assert not photo.rgb.info
    assert not photo.rgb.getexif()


@pytest.mark.parametrize("box", [(0, 0, 100, 100), (400, 200, 800, 400), (10.5, 20.5, 410, 395)])
def test_a_box_keeps_its_detail(box: BoxXyxyPx) -> None:
    photo = read_photo(jpeg(800, 400), LIMITS, detail_px=64, box_xyxy_px=box)
    part = photo.crop(box)
    assert min(part.size) >= 64
    ramp = np.asarray(part)[..., 0].mean(0)
    assert ramp[0] == pytest.approx(255 * box[0] / 800, abs=6)
    assert ramp[-1] == pytest.approx(255 * box[2] / 800, abs=6)


def test_limits_hold_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("univert.serving.photos.decode_rgb", None)
    with pytest.raises(Problem, match="over the limit of 1,000,000 pixels"):
        read_photo(jpeg(2000, 600), LIMITS, detail_px=64)
    with pytest.raises(Problem, match="more than 0 scans"):
        read_photo(jpeg(20, 20), PhotoLimits(jpeg_scans_max=0), detail_px=64)
    with pytest.raises(Problem, match="zero bytes"):
        read_photo(b"", LIMITS, detail_px=64)


def test_regions() -> None:
    photo = read_photo(jpeg(80, 40), LIMITS, detail_px=8)
    (whole,) = WholePhoto()(photo)
    assert whole.box_xyxy_px is None
    (drawn,) = GivenBox((-5, 10, 20.5, 100))(photo)
    assert drawn.box_xyxy_px == (0, 10, 20.5, 40)
    with pytest.raises(Problem, match="less than a pixel of the 80 x 40 px photo"):
        GivenBox((80, 0, 90, 40))(photo)


def test_boxes() -> None:
    assert parse_box("1, 2.5,3,4e0") == (1, 2.5, 3, 4)
    assert clip_box((0, 0, 5, 5), (3, 4)) == (0, 0, 3, 4)
    for text in ("", "1,2,3", "nan,0,1,1", "0,0,inf,1", "5,5,5,6", "1_0,0,20,20,1"):
        with pytest.raises(Problem) as problem:
            parse_box(text)
        assert problem.value.name == "bad-box"
