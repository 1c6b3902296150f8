"""Near-duplicates: re-encoded pictures are found, other pictures and other colours are not."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.data.pictures import encoded
from univert.data.catalogue import Catalogue
from univert.data.decode import decode_rgb
from univert.data.duplicates import NearDuplicates, colour_grid, near_duplicates, perceptual_hash


def photo(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Something with large and small structure, in colour."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(coarse)
    for _ in range(6):
        x, y = rng.integers(0, 90, 2).tolist()
        draw.ellipse((x, y, x + 20, y + 15), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return coarse


def hashes(pictures: Sequence[Image.Image]) -> NearDuplicates:
    return NearDuplicates(
        bits=np.array([perceptual_hash(picture) for picture in pictures]),
        colours=np.array([colour_grid(picture) for picture in pictures]),
    )


def same(left: Image.Image, right: Image.Image) -> bool:
    return bool(hashes([left, right])(np.array([0]), np.array([1]))[0])


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    return decode_rgb(encoded(picture, "JPEG", quality=quality))


def naive_hash(picture: Image.Image) -> int:
    """Every frequency by its double sum."""
    grey = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BICUBIC), float)
    steps = np.arange(32)
    frequencies = [
        (grey * np.cos(np.pi * (2 * steps[:, None] + 1) * u / 64) * np.cos(np.pi * (2 * steps + 1) * v / 64)).sum()
        for u in range(8)
        for v in range(8)
    ]
    median = np.median(frequencies[1:])
    return int("".join("1" if frequency > median else "0" for frequency in frequencies), 2)


@pytest.mark.parametrize("seed", range(2))
def test_the_hash_is_its_definition(seed: int) -> None:
    assert int(perceptual_hash(photo(seed))) == naive_hash(photo(seed))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda picture: jpeg(picture, 40), id="jpeg 40"),
        pytest.param(lambda picture: picture.resize((60, 45), Image.Resampling.LANCZOS), id="half"),
    ],
)
def test_the_same_picture_once_more(seed: int, change: Callable[[Image.Image], Image.Image]) -> None:
    assert same(photo(seed), change(photo(seed)))


@pytest.mark.parametrize("seed", range(3))
def test_other_pictures_differ(seed: int) -> None:
    picture = photo(seed)
    assert not same(picture, photo(seed + 100))
    assert not same(picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert not same(picture, picture.rotate(180))


def test_colours_tell_apart_what_the_hash_cannot() -> None:
    """Two flags: the same stripes, equally bright, in other colours."""
    flags = []
    for colours in (("#0055a4", "white", "#b06a00"), ("#0a5e2f", "white", "#a86d20")):
        flag = Image.new("RGB", (90, 60), "white")
        for place, colour in enumerate(colours):
            ImageDraw.Draw(flag).rectangle((30 * place, 0, 30 * place + 29, 59), fill=colour)
        flags.append(flag)
    found = hashes(flags)
    assert int(found.bits[0] ^ found.bits[1]).bit_count() <= 4
    assert not same(*flags)


def test_a_catalogue_is_hashed_in_order(catalogue: Catalogue) -> None:
    found = near_duplicates(catalogue)
    expected = hashes([decode_rgb(content) for content in catalogue.image_bytes(range(len(catalogue)))])
    np.testing.assert_array_equal(found.bits, expected.bits)
    np.testing.assert_array_equal(found.colours, expected.colours)
