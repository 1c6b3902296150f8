"""The loader: same pixels as the straight way, in order, whatever the threads; errors that name the image."""

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch

from tests.data.pictures import encoded, noise
from univert.core.errors import BadInputError
from univert.core.threads import map_ahead
from univert.data.decode import BoxXyxyPx, decode_rgb
from univert.data.loading import ImageLoader
from univert.data.transforms import Augmentation, Preprocessing, view_rng

PREPROCESSING = Preprocessing(image_size_px=32, background_rgb=(9, 99, 199))


class Images:
    """A source of images in memory, as a catalogue offers them."""

    def __init__(self, contents: list[bytes], boxes: list[BoxXyxyPx | None] | None = None) -> None:
        self.contents = contents
        self._boxes = boxes or [None] * len(contents)

    def __len__(self) -> int:
        return len(self.contents)

    def image_bytes(self, positions: Sequence[int]) -> list[bytes]:
        return [self.contents[position] for position in positions]

    def boxes(self, positions: Sequence[int]) -> list[BoxXyxyPx | None]:
        return [self._boxes[position] for position in positions]

    def column(self, name: str) -> np.ndarray:
        assert name == "id"
        return np.array([f"shoes/{i}" for i in range(len(self))], dtype=object)


@pytest.fixture(scope="module")
def images() -> Images:
    formats = ["PNG", "WEBP", "JPEG"]
    contents = [
        encoded(noise(40 + 3 * i, 60 - 2 * i, 3 if i % 3 else 4, seed=i), formats[i % 3])  # PNG with transparency
        for i in range(13)
    ]
    return Images(contents, [(2.0, 3.0, 30.0, 35.0) if i % 4 == 1 else None for i in range(13)])


def straight(images: Images, position: int, view: int = 0, seed: int = 0) -> np.ndarray:
    image = decode_rgb(
        images.contents[position], box_xyxy_px=images.boxes([position])[0], background_rgb=PREPROCESSING.background_rgb
    )
    if view:
        return Augmentation().apply(image, PREPROCESSING, view_rng(seed, f"shoes/{position}", view))
    return PREPROCESSING(image)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_loads_what_the_straight_way_gives(images: Images, workers: int) -> None:
    loader = ImageLoader(images, PREPROCESSING, Augmentation(), seed=5, workers=workers)
    positions, views = [3, 0, 12, 3, 7], [0, 1, 2, 2, 0]
    batch = loader.load(positions, views)
    assert batch.shape == (5, 3, 32, 32)
    assert batch.dtype == torch.uint8
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for square, position, view in zip(batch, positions, views, strict=True):
        assert np.array_equal(square.permute(1, 2, 0).numpy(), straight(images, position, view, seed=5))


@pytest.mark.parametrize("batch_size", [1, 4, 13, 50])
def test_batches_come_in_order_and_equal_one_load(images: Images, batch_size: int) -> None:
    loader = ImageLoader(images, PREPROCESSING, Augmentation(), workers=3)
    positions, views = list(range(12, -1, -1)), [i % 3 for i in range(13)]
    batches = list(loader.batches(positions, batch_size, views))
    assert [len(batch) for batch in batches] == [min(batch_size, 13 - start) for start in range(0, 13, batch_size)]
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in batches)
    assert torch.equal(torch.cat(batches), loader.load(positions, views))


def test_a_broken_image_is_named(images: Images) -> None:
    contents = list(images.contents)
    contents[5] = contents[5][:60]
    loader = ImageLoader(Images(contents), PREPROCESSING)
    with pytest.raises(BadInputError, match="image shoes/5: "):
        loader.load(range(13))
    batches = loader.batches(range(13), 2)
    assert len([next(batches), next(batches)]) == 2
    with pytest.raises(BadInputError, match="image shoes/5: "):
        next(batches)


def test_map_ahead_raises_in_place_and_stops_when_left() -> None:
    def jobs() -> Iterator[int]:
        yield from range(6)
        raise RuntimeError("the source broke")

    results = map_ahead(lambda number: number, jobs(), workers=1)
    with pytest.raises(RuntimeError, match="the source broke"):
        list(results)
    done: list[int] = []
    for _ in map_ahead(done.append, range(1000), workers=2):
        break
    assert len(done) <= 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("univert-decode")]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (lambda images: ImageLoader(images, PREPROCESSING).load([0, 1], [0]), "views must have one number an image"),
        (lambda images: ImageLoader(images, PREPROCESSING).load([0], [1]), "need an augmentation"),
        (lambda images: ImageLoader(images, PREPROCESSING).batches([0], 0), "batch_size must be at least 1"),
        (lambda images: ImageLoader(images, PREPROCESSING, workers=0), "workers must be at least 1"),
    ],
)
def test_refuses_bad_requests(images: Images, request_: Callable[[Images], object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        request_(images)
