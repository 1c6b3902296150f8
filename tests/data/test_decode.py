import contextlib
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from tests.data.pictures import encoded, noise, png, png_bomb, smooth
from univert.core.errors import BadInputError
from univert.data.decode import check_image, decode_rgb
from univert.data.headers import MAX_SIDE_PX
from univert.data.image_problem import FORMATS, ImageProblem

LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {}}


def pixels(content: bytes, **options: object) -> np.ndarray:
    image = decode_rgb(content, **options)
    assert type(image) is Image.Image
    assert image.mode == "RGB"
    return np.asarray(image)


def composited(rgba: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """Naive oracle: alpha in floating point."""
    alpha = rgba[..., 3:].astype(float) / 255
    return rgba[..., :3] * alpha + np.array(background) * (1 - alpha)


def problem_of(content: bytes, **options: object) -> str:
    with pytest.raises(ImageProblem) as caught:
        decode_rgb(content, **options)
    with pytest.raises(ImageProblem) as also:
        check_image(content)
    assert also.value.kind == caught.value.kind
    assert caught.value.fix in str(caught.value)
    return caught.value.kind


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_lossless_formats_give_the_very_pixels(file_format):
    image = noise(13, 7)
    content = encoded(image, file_format, **LOSSLESS[file_format])
    assert np.array_equal(pixels(content), image)
    assert check_image(content) == (13, 7)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_counts(file_format):
    frames = [Image.new("RGB", (9, 5), colour) for colour in ((200, 10, 30), (0, 255, 0), (0, 0, 255))]
    options = {"save_all": True, "append_images": frames[1:], "duration": 50}
    content = encoded(frames[0], file_format, **options, **({"lossless": True} if file_format == "WEBP" else {}))
    assert (pixels(content) == (200, 10, 30)).all()
    assert check_image(content) == (9, 5)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(file_format, orientation):
    image = smooth(64, 40)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if file_format == "JPEG" else LOSSLESS[file_format]
    content = encoded(image, file_format, exif=exif, **options)
    # Oracle: the EXIF standard says where the stored rows and columns go.
    upright = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.transpose(1, 0, 2),
        6: image.transpose(1, 0, 2)[:, ::-1],
        7: image[::-1, ::-1].transpose(1, 0, 2),
        8: image.transpose(1, 0, 2)[::-1],
    }[orientation]
    got = pixels(content)
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).max() <= (12 if file_format == "JPEG" else 0)
    assert check_image(content) == (upright.shape[1], upright.shape[0])


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("background", [(0, 0, 0), (12, 200, 90)])
def test_alpha_is_composited_on_the_background(file_format, background):
    image = noise(16, 16, 4)
    image[0], image[1] = image[0] | [0, 0, 0, 255], image[1] & [255, 255, 255, 0]
    content = encoded(image, file_format, **LOSSLESS[file_format], **({"exact": True} if file_format == "WEBP" else {}))
    assert np.abs(pixels(content, background_rgb=background) - composited(image, background)).max() <= 1


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(file_format):
    values = np.array([[0, 255, 256, 1000], [20000, 32768, 65000, 65535]], np.uint16)
    got = pixels(encoded(Image.fromarray(values), file_format))
    expected = np.rint(values.astype(float) / 65535 * 255)
    assert np.abs(got - expected[..., None]).max() <= 0.5


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk(file_format):
    corners = [[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 0, 255], [0, 128, 255, 64], [20, 30, 40, 50]]
    ink = np.repeat(np.repeat(np.array(corners, np.uint8).reshape(2, 3, 4), 16, axis=0), 16, axis=1)
    image = Image.frombytes("CMYK", (48, 32), ink.tobytes())
    content = encoded(image, file_format, **({"quality": 98, "subsampling": 0} if file_format == "JPEG" else {}))
    expected = (255.0 - ink[..., :3]) * (255.0 - ink[..., 3:]) / 255
    assert np.abs(pixels(content) - expected).max() <= (6 if file_format == "JPEG" else 1)


RAMP = np.array([[0, 100, 200, 255]], np.uint8)
PALETTE = Image.fromarray(RAMP // 85).convert("P")
PALETTE.putpalette([9, 8, 7, 50, 60, 70, 0, 0, 255, 255, 255, 0])
SIXTEEN = Image.fromarray(RAMP.astype(np.uint16) * 257)


def white_is_zero(content: bytes) -> bytes:
    return content.replace(struct.pack("<HHII", 262, 3, 1, 1), struct.pack("<HHII", 262, 3, 1, 0))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(PALETTE, transparency=1), [(9, 8, 7), (1, 2, 3), (0, 0, 255), (255, 255, 0)]),
        (encoded(PALETTE, "GIF", transparency=2), [(9, 8, 7), (50, 60, 70), (1, 2, 3), (255, 255, 0)]),
        (encoded(SIXTEEN, transparency=100 * 257), [(0,) * 3, (1, 2, 3), (200,) * 3, (255,) * 3]),
        (white_is_zero(encoded(SIXTEEN, "TIFF")), [(255,) * 3, (155,) * 3, (55,) * 3, (0,) * 3]),
        (white_is_zero(encoded(RAMP, "TIFF")), [(255,) * 3, (155,) * 3, (55,) * 3, (0,) * 3]),
    ],
    ids=["palette", "GIF", "16 bits", "16 bits, white is zero", "white is zero"],
)
def test_rare_kinds_of_pixels(content, expected):
    assert pixels(content, background_rgb=(1, 2, 3))[0].tolist() == [list(pixel) for pixel in expected]


def test_what_is_written_beside_the_pixels_does_not_keep_a_picture_out():
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", "a" * 2_000_000, zip=True)
    damaged = png()[:33] + struct.pack(">I", 4) + b"gAMA" + bytes(8) + png()[33:]
    for content in (encoded(noise(), pnginfo=notes), encoded(noise(), icc_profile=bytes(2_000_000)), damaged):
        assert check_image(content)
        assert len(pixels(content))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_lacks_rows_or_just_its_end_marker(progressive):
    whole = encoded(smooth(200, 150), "JPEG", quality=80, progressive=progressive)
    for rest in (b"", b"\xff", bytes(2000), b"\xff" + bytes(9)):
        assert np.array_equal(pixels(whole[:-2] + rest), pixels(whole))
        assert check_image(whole[:-2] + rest) == (200, 150)
        assert problem_of(whole[: len(whole) * 3 // 4] + rest) == "damaged"


def test_box_is_cut_from_the_upright_image():
    image = noise(20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(image, "PNG", exif=exif)
    upright = image.transpose(1, 0, 2)[:, ::-1]
    assert np.array_equal(pixels(content, box_xyxy_px=(2, 5, 7, 18)), upright[5:18, 2:7])
    assert np.array_equal(pixels(content, box_xyxy_px=(2.4, 5.6, 6.1, 17.2)), upright[5:18, 2:7])
    assert np.array_equal(pixels(content, box_xyxy_px=(-3, -1, 99, 4)), upright[:4])
    for nothing in ((2, 5, 2, 18), (12, 0, 20, 5), (float("nan"), 0, 5, 5)):
        with pytest.raises(BadInputError, match="has no area within the 10 x 20 px image"):
            pixels(content, box_xyxy_px=nothing)


def test_draft_is_smaller_but_never_below_the_asked_size():
    image = smooth(640, 400)
    content = encoded(image, "JPEG", quality=95)
    small = pixels(content, draft_px=60)
    assert 60 <= min(small.shape[:2]) < 120
    expected = np.asarray(Image.fromarray(image).resize((small.shape[1], small.shape[0]), Image.Resampling.BOX))
    assert np.abs(small.astype(int) - expected).max() <= 8
    box = (100, 50, 300, 350)
    crop = pixels(content, draft_px=60, box_xyxy_px=box)
    assert min(crop.shape[:2]) >= 60
    full = Image.fromarray(pixels(content, box_xyxy_px=box)).resize((crop.shape[1], crop.shape[0]))
    assert np.abs(crop.astype(int) - np.asarray(full)).max() <= 8
    assert pixels(content, draft_px=399).shape == (400, 640, 3)
    assert np.array_equal(pixels(png(), draft_px=1), pixels(png()))


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"", "empty", "empty"),
        (b"hello, this is text", "not an image", "not an image"),
        (b"\n<!DOCTYPE html><html><p>403", "not an image", "a web page, not an image; download the picture itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not an image", "run git lfs pull"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "unsupported format", "video"),
        (b"\0\0\0\x1cftypheic\0\0\0\0", "unsupported format", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "unsupported format", "AVIF"),
        (b'<?xml version="1.0"?><svg xmlns="x"/>', "unsupported format", "SVG"),
        (encoded(Image.new("F", (3, 3)), "TIFF"), "unsupported format", "32 bits"),
        (encoded(noise(), "TIFF", tiffinfo={254: 1}), "unsupported format", "raw file"),
        (png_bomb(), "too large", "limit of 64,000,000 pixels"),
        (png_bomb(MAX_SIDE_PX + 1, 1), "too large", "limit of 20,000 pixels a side"),
        (b"BM" + struct.pack("<IIIIiiHHI", 99, 0, 54, 40, 60_000, 60_000, 1, 24, 0) + bytes(45), "too large", "pixels"),
        (png(0, 40, 40)[:60] + b"\xff" + png(0, 40, 40)[61:], "damaged", "damaged"),
    ],
)
def test_bad_content_by_kind(content, kind, said):
    assert problem_of(content) == kind
    with pytest.raises(ImageProblem, match=said):
        check_image(content)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("kept", [0.05, 0.6, 0.9])
def test_truncated_files_are_found(file_format, kept):
    content = encoded(noise(60, 40), file_format)
    assert problem_of(content[: int(len(content) * kept)]) == "damaged"


@settings(max_examples=150, deadline=None)
@given(
    file_format=st.sampled_from(FORMATS),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    kept=st.floats(0, 1),
)
def test_damaged_bytes_never_raise_anything_else(file_format, edits, kept):
    content = bytearray(encoded(noise(17, 11), file_format))
    for place, value in edits:
        content[int(place * (len(content) - 1))] = value
    content = bytes(content[: int(kept * len(content))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for use in (decode_rgb, check_image):
            with contextlib.suppress(ImageProblem):
                use(content, max_pixels=1_000_000)
