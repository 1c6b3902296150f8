"""The embedder: what it takes, what it gives, what learns, and that no way of asking changes the answer."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.data.pictures import encoded
from tests.data.test_loading import Images
from univert.core.errors import BadInputError
from univert.models.embedder import Embedder, EmbedderConfig

SIZE_PX = 48


def tiny(**changes: Any) -> EmbedderConfig:
    values: dict[str, Any] = {
        "base_network": "timm/test_efficientnet",
        "pretrained": False,
        "hidden_sizes": (24,),
        "size": 16,
        "image_size_px": SIZE_PX,
    }
    return EmbedderConfig(**(values | changes))


@pytest.fixture(scope="module")
def model() -> Embedder:
    torch.manual_seed(0)
    return Embedder(tiny()).eval()


def picture(seed: int, width: int = 70, height: int = 50) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


def test_features_and_project_make_up_forward(model: Embedder) -> None:
    images = torch.randint(0, 256, (3, 3, SIZE_PX, SIZE_PX), dtype=torch.uint8)
    with torch.no_grad():
        features = model.features(images)
        assert features.shape == (3, model.feature_size)
        assert torch.equal(model(images), model.project(features))
        assert torch.allclose(model(images / 255), model(images), atol=1e-5)
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1)
            for values in (model.base_network.mean_rgb, model.base_network.std_rgb)
        )
        by_hand = model.base_network((images / 255 - mean) / std).mean((2, 3))
    assert torch.allclose(features, by_hand, atol=1e-5)


def as_file(image: Image.Image, folder: Path) -> Path:
    image.save(folder / "image.png")
    return folder / "image.png"


WAYS: dict[str, Callable[[Image.Image, Path], Any]] = {
    "PIL image": lambda image, _: image,
    "path": as_file,
    "bytes": lambda image, _: encoded(image),
    "uint8 array": lambda image, _: np.asarray(image),
    "float array": lambda image, _: np.asarray(image) / 255,
    "RGBA array": lambda image, _: np.asarray(image.convert("RGBA")),
    "tensor": lambda image, _: torch.from_numpy(np.array(image)).permute(2, 0, 1),
    "float tensor": lambda image, _: torch.from_numpy(np.asarray(image) / 255).permute(2, 0, 1),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_hand_over_an_image_gives_the_same_vector(model: Embedder, way: str, tmp_path: Path) -> None:
    image = picture(1)
    expected = model.embed([image])
    given = WAYS[way](image, tmp_path)
    assert expected.shape == (1, 16)
    assert expected.dtype == np.float32
    assert np.linalg.norm(expected) == pytest.approx(1, abs=1e-6)
    for items in (given, [given], (item for item in [given])):
        assert np.array_equal(model.embed(items), expected)


def test_greyscale_transparency_and_orientation(model: Embedder) -> None:
    grey = picture(2).convert("L")
    expected = model.embed(grey.convert("RGB"))
    for same in (grey, np.asarray(grey), np.asarray(grey)[:, :, None]):
        assert np.array_equal(model.embed(same), expected)
    sixteen = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert np.array_equal(model.embed(sixteen), expected)

    seen_through = picture(3).convert("RGBA")
    seen_through.putalpha(0)
    white = Image.new("RGB", seen_through.size, "white")
    assert np.array_equal(model.embed(seen_through), model.embed(white))

    turned = picture(4).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    assert np.array_equal(model.embed(turned), model.embed(picture(4)))


def test_the_batch_size_does_not_matter(model: Embedder) -> None:
    images = [picture(seed, 30 + seed, 60 - seed) for seed in range(21)]
    expected = np.concatenate([model.embed(image) for image in images])
    for batch_size in (1, 5, 20):
        assert np.abs(model.embed(images, batch_size=batch_size) - expected).max() < 1e-6


def test_a_catalogue_gives_what_its_images_give(model: Embedder) -> None:
    pictures = [picture(seed) for seed in range(9)]
    catalogue = Images([encoded(image) for image in pictures])
    for batch_size in (2, 64):
        vectors = model.embed_catalogue(catalogue, batch_size=batch_size)
        assert np.abs(vectors - model.embed(pictures)).max() < 1e-6
    boxed = Images([encoded(pictures[0])], [(5.0, 10.0, 45.0, 40.0)])
    cropped = model.embed(pictures[0].crop((5, 10, 45, 40)))
    assert np.abs(model.embed_catalogue(boxed) - cropped).max() < 1e-6


def test_embedding_leaves_the_mode_and_the_gradients_alone() -> None:
    model = Embedder(tiny())
    model.train()
    before = copy.deepcopy(model.state_dict())
    first = model.embed(picture(0))
    assert model.training
    assert model.head.training
    assert np.array_equal(first, model.embed(picture(0)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(BadInputError):
        model.embed([None])  # type: ignore[list-item]
    assert model.training
    assert model(torch.rand(2, 3, SIZE_PX, SIZE_PX)).requires_grad


BAD_ITEMS: dict[str, tuple[Any, str]] = {
    "nothing": (None, "embed takes paths"),
    "a number": (3, "got a value of type int"),
    "a number within": ([picture(0), 3], "image 1: must be a path"),
    "no such file": (["nowhere.png"], r"image 0: nowhere\.png cannot be read: No such file"),
    "not an image": (b"hello", "image 0: .*not an image"),
    "five channels": (np.zeros((20, 30, 5), np.uint8), r"must have the shape .* got \(20, 30, 5\)"),
    "no pixels": ([np.zeros((0, 3, 3), np.uint8)], "must have the shape .* and pixels"),
    "not a number": (np.full((4, 4, 3), np.nan), "floats from 0 to 1, got float64 in nan"),
    "floats to 255": (np.full((4, 4, 3), 200.0), r"floats from 0 to 1, got float64 in 200\.\.200"),
    "integers": (np.zeros((4, 4, 3), np.int64), "must hold uint8, or floats from 0 to 1, got int64"),
    "channels last tensor": (torch.zeros(20, 30, 3), r"tensor must have the shape \(3, H, W\)"),
    "32 bits": (Image.new("F", (4, 4)), "pixels of kind F"),
    "empty image": (Image.new("RGB", (0, 5)), "has no pixels: 0 x 5"),
}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_what_is_no_image_is_named(model: Embedder, name: str) -> None:
    items, message = BAD_ITEMS[name]
    with pytest.raises(BadInputError, match=message) as caught:
        model.embed(items)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "size must lie in"),
        ({"hidden_sizes": (0,)}, "hidden_sizes must be positive"),
        ({"pooling": "median"}, "pooling must be one of"),
        ({"size": None, "batch_norm": True}, "belongs to the head"),
        ({"image_size_px": 2}, "image_size_px"),
        ({"fit": "squash"}, "fit must be"),
    ],
)
def test_bad_configurations_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        Embedder(tiny(**values))


def statistics(model: Embedder) -> dict[str, torch.Tensor]:
    return {
        name: value.clone()
        for name, value in model.state_dict().items()
        if name.startswith("base_network.") and "running" in name
    }


@pytest.mark.parametrize(("learns", "blocks"), [("no", 1), ("last_blocks", 1), ("last_blocks", 3), ("all", 1)])
def test_only_what_should_learn_does(learns: Any, blocks: int) -> None:
    torch.manual_seed(0)
    model = Embedder(tiny(pooling="gem"))
    groups = model.trainable(learns, last_blocks=blocks)
    assert [group["name"] for group in groups] == (["head"] if learns == "no" else ["head", "base network"])
    chosen = {id(parameter) for group in groups for parameter in group["params"]}
    assert {id(p) for p in model.parameters() if p.requires_grad} == chosen
    stages = model.base_network.stages
    learning = {"no": 0, "last_blocks": blocks, "all": len(stages)}[learns]
    expected = {name for stage in stages[len(stages) - learning :] for name in stage}
    assert {name for name, p in model.base_network.network.named_parameters() if p.requires_grad} == expected

    before, weights = statistics(model), copy.deepcopy(dict(model.named_parameters()))
    optimiser = torch.optim.SGD(groups, lr=0.1)
    for _ in range(2):
        model.train()
        assert model.training
        assert model.head.training
        target = torch.nn.functional.normalize(torch.randn(4, 16), dim=1)
        loss = (model(torch.rand(4, 3, SIZE_PX, SIZE_PX)) - target).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in chosen), name
        if id(parameter) not in chosen:
            assert torch.equal(parameter, weights[name]), name
    after = statistics(model)
    for name, module in model.base_network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            frozen = not module.weight.requires_grad
            assert module.training != frozen
            assert (
                torch.equal(before[f"base_network.{name}.running_mean"], after[f"base_network.{name}.running_mean"])
                == frozen
            )
    if learns == "all":
        assert all(p.requires_grad for p in model.parameters())


def test_impossible_choices_are_refused() -> None:
    model = Embedder(tiny())
    stages = len(model.base_network.stages)
    with pytest.raises(BadInputError, match='base_network_learns must be "no"'):
        model.trainable("half")  # type: ignore[arg-type]
    for count in (0, stages + 1):
        with pytest.raises(BadInputError, match=rf"last_blocks must lie in 1\.\.{stages}"):
            model.trainable("last_blocks", last_blocks=count)
    with pytest.raises(BadInputError, match="nothing would learn"):
        Embedder(tiny(size=None)).trainable("no")


def test_images_and_weights_stay_channels_last(model: Embedder, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    for candidate in (model, Embedder.from_pretrained(tmp_path / "model")):
        weights = [value for value in candidate.parameters() if value.ndim == 4]
        assert all(value.is_contiguous(memory_format=torch.channels_last) for value in weights)
        assert all(_flow_is_channels_last(candidate))


def _flow_is_channels_last(model: Embedder) -> list[bool]:
    seen: list[bool] = []

    def look(_: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen.extend(value.is_contiguous(memory_format=torch.channels_last) for value in (inputs[0], output))

    hooks = [module.register_forward_hook(look) for module in model.modules() if isinstance(module, nn.Conv2d)]
    with torch.inference_mode():
        model.features(torch.rand(2, 3, SIZE_PX, SIZE_PX).to(model.pixel_scale.dtype))
    for hook in hooks:
        hook.remove()
    assert len(seen) > 10
    return seen


@pytest.mark.gpu
def test_a_cuda_device_gives_the_same_vectors(model: Embedder) -> None:
    images = [picture(seed) for seed in range(9)]
    expected = model.embed(images)
    vectors = copy.deepcopy(model).cuda().embed(images, batch_size=4)
    assert np.abs(vectors - expected).max() < 1e-3
