import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from tests.data.pictures import encoded
from univert.curation import rate_pixels
from univert.curation.pixel_quality import measure_pixels


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A product on a pale ground, with edges, a texture and a shadow."""
    rng = np.random.default_rng(0)
    ground = np.linspace(225, 250, 240)[:, None, None] + rng.normal(0, 1, (240, 300, 3))
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((70, 40, 230, 210), fill=(150, 60, 40))
    for x in range(90, 210, 12):
        draw.line((x, 90, x, 160), fill=(40, 40, 60), width=3)
    return image


def saved(image: Image.Image, quality: int = 90) -> bytes:
    return encoded(image, "JPEG", quality=quality)


def kinds(content: bytes) -> list[str]:
    return [reason.partition(":")[0] for reason in rate_pixels(content).reasons]


def again(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(saved(image, quality))).convert("RGB")


def framed(image: Image.Image, colour: str = "black") -> Image.Image:
    canvas = Image.new("RGB", (image.width + 60, image.height + 60), colour)
    canvas.paste(image, (30, 30))
    return canvas


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_good_picture_is_good_in_every_format(picture: Image.Image, file_format: str) -> None:
    rating = rate_pixels(encoded(picture, file_format))
    assert rating.good
    assert rating.reasons == ()
    assert (rating.measures["width_px"], rating.measures["height_px"]) == (300, 240)
    assert ("jpeg_quality" in rating.measures) == (file_format == "JPEG")


DAMAGED = {
    "too small": lambda image: saved(image.resize((60, 48))),
    "blurred": lambda image: saved(image.filter(ImageFilter.GaussianBlur(3))),
    "blurred by enlarging": lambda image: saved(image.resize((50, 40)).resize((300, 240))),
    "too dark": lambda image: saved(image.point(lambda value: value // 6)),
    "too bright": lambda image: saved(image.point(lambda value: 240 + value // 17)),
    "flat": lambda image: saved(image.point(lambda value: 120 + value // 16)),
    "over-compressed": lambda image: saved(image, 15),
    "over-compressed, saved again": lambda image: saved(again(image, 4), 95),
    "over-compressed, cropped since": lambda image: encoded(again(image, 4).crop((3, 5, 290, 230))),
    "framed": lambda image: saved(framed(image)),
    "framed, letterbox": lambda image: saved(framed(image, "navy").crop((30, 0, 330, 300))),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_named(picture: Image.Image, damage: str) -> None:
    named = damage.partition(",")[0].replace(" by enlarging", "")
    assert named in kinds(DAMAGED[damage](picture))


def test_a_reason_says_what_was_measured_and_the_limit(picture: Image.Image) -> None:
    assert rate_pixels(DAMAGED["too small"](picture)).reasons == (
        "too small: 60 x 48 px, and 64 px is the least for the longer side",
    )
    assert "quality 15, and 30 is the least" in rate_pixels(saved(picture, 15)).reasons[0]


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95])
def test_jpeg_quality_is_the_one_it_was_saved_with(picture: Image.Image, quality: int) -> None:
    assert rate_pixels(saved(picture, quality)).measures["jpeg_quality"] == pytest.approx(quality, abs=1.5)


def test_edge_width_grows_with_blur(picture: Image.Image) -> None:
    widths = [
        rate_pixels(encoded(picture.filter(ImageFilter.GaussianBlur(radius)))).measures["edge_width_px"]
        for radius in (0, 1, 2, 4)
    ]
    assert widths == sorted(widths)
    assert widths[0] < 2 < widths[2]


def test_measures_do_not_depend_on_orientation(picture: Image.Image) -> None:
    brightness = np.asarray(picture.convert("L"))
    upright, turned = measure_pixels(brightness), measure_pixels(np.rot90(brightness))
    for name in ("dark", "light", "frame_share"):
        assert upright[name] == turned[name]
    assert upright["edge_width_px"] == pytest.approx(turned["edge_width_px"], rel=0.05)


@pytest.mark.parametrize(("shape", "ground"), [("ellipse", "white"), ("ellipse", "black"), ("rectangle", "white")])
def test_the_ground_around_a_product_is_no_frame(shape: str, ground: str) -> None:
    image = Image.new("RGB", (300, 300), ground)
    getattr(ImageDraw.Draw(image), shape)((50, 50, 250, 250), fill="brown")
    assert rate_pixels(encoded(image)).measures["frame_share"] == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (33, 33)])
@pytest.mark.parametrize("colour", ["white", "black", "teal"])
def test_tiny_and_blank_pictures_are_measured(size: tuple[int, int], colour: str) -> None:
    rating = rate_pixels(encoded(Image.new("RGB", size, colour)))
    assert not rating.good
    assert all(np.isfinite(value) for value in rating.measures.values())


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 broken"])
def test_what_cannot_be_read_says_so(content: bytes) -> None:
    rating = rate_pixels(content)
    assert rating.measures == {}
    assert rating.reasons[0].startswith("cannot be read: ")
