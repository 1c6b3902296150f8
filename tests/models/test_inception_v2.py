"""inception_v2: the widths of the paper's table, and the published weights' names and pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from univert.core.errors import BadInputError
from univert.models.base_networks import make_base_network
from univert.models.base_networks.inception_v2 import (
    MEAN_RGB,
    STD_RGB,
    WEIGHTS_VARIABLE,
    InceptionV2,
    load_inception_v2_weights,
)

# Channels and side after each part for an image of 224 px. Figure 5 of the paper prints 576, 576 and 1024 for
# 4c, 4d and 4e, but its branches add up to this.
FIGURE_5 = {
    "conv1": (64, 112),
    "pool1": (64, 56),
    "conv2_reduce": (64, 56),
    "conv2": (192, 56),
    "pool2": (192, 28),
    "inception_3a": (256, 28),
    "inception_3b": (320, 28),
    "inception_3c": (576, 14),
    "inception_4a": (576, 14),
    "inception_4b": (576, 14),
    "inception_4c": (608, 14),
    "inception_4d": (608, 14),
    "inception_4e": (1056, 7),
    "inception_5a": (1024, 7),
    "inception_5b": (1024, 7),
}
BGR_MEANS = (104.0, 117.0, 128.0)


@pytest.fixture(scope="module")
def network() -> InceptionV2:
    torch.manual_seed(0)
    return InceptionV2().eval()


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Random weights under the published names, scaled so that signals survive, biases and all."""
    torch.manual_seed(1)
    stored: dict[str, Tensor] = {}

    def convolution(name: str, into: int, out: int, side: int) -> int:
        stored[f"{name}.weight"] = torch.randn(out, into, side, side) / (into * side * side) ** 0.5
        stored[f"{name}.bias"] = torch.randn(out)
        stored[f"{name}_bn.weight"] = torch.rand(1, out) + 0.5  # the published ones have an axis too many
        stored[f"{name}_bn.bias"] = torch.randn(1, out) / 3
        stored[f"{name}_bn.running_mean"] = torch.randn(1, out) / 3
        stored[f"{name}_bn.running_var"] = torch.rand(1, out) + 0.5
        return out

    convolution("conv1_7x7_s2", 3, 64, 7)
    stored["conv1_7x7_s2.weight"] /= 60  # pixels reach 255
    convolution("conv2_3x3_reduce", 64, 64, 1)
    size = convolution("conv2_3x3", 64, 192, 3)
    widths = {
        "3a": (64, 64, 64, 64, 96, 32),
        "3b": (64, 64, 96, 64, 96, 64),
        "3c": (0, 128, 160, 64, 96, 0),
        "4a": (224, 64, 96, 96, 128, 128),
        "4b": (192, 96, 128, 96, 128, 128),
        "4c": (160, 128, 160, 128, 160, 128),
        "4d": (96, 128, 192, 160, 192, 128),
        "4e": (0, 128, 192, 192, 256, 0),
        "5a": (352, 192, 320, 160, 224, 128),
        "5b": (352, 192, 320, 192, 224, 128),
    }
    for block, (one, reduce, three, double_reduce, double, projection) in widths.items():
        name = f"inception_{block}"
        if one:
            convolution(f"{name}_1x1", size, one, 1)
            convolution(f"{name}_pool_proj", size, projection, 1)
        convolution(f"{name}_3x3_reduce", size, reduce, 1)
        convolution(f"{name}_3x3", reduce, three, 3)
        convolution(f"{name}_double_3x3_reduce", size, double_reduce, 1)
        convolution(f"{name}_double_3x3_1", double_reduce, double, 3)
        convolution(f"{name}_double_3x3_2", double, double, 3)
        size = one + three + double + (projection or size)
    stored["last_linear.weight"] = torch.randn(1000, size) / size**0.5
    stored["last_linear.bias"] = torch.randn(1000)
    return stored


@pytest.fixture
def weights_file(published: dict[str, Tensor], tmp_path: Path) -> Path:
    safetensors.torch.save_file(published, tmp_path / "bn_inception.safetensors")
    return tmp_path / "bn_inception.safetensors"


def published_network(stored: dict[str, Tensor], pixels_bgr: Tensor) -> Tensor:
    """The published network, naively: BGR pixels from 0 to 255, means subtracted; returns logits."""

    def convolution(name: str, maps: Tensor, stride: int = 1) -> Tensor:
        weight = stored[f"{name}.weight"]
        maps = functional.conv2d(maps, weight, stored[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)
        mean, variance, scale, shift = (
            stored[f"{name}_bn.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((maps - mean) / (variance + 1e-5).sqrt() * scale + shift).relu()

    def halved(maps: Tensor) -> Tensor:
        return functional.max_pool2d(maps, 3, 2, ceil_mode=True)

    def block(name: str, maps: Tensor) -> Tensor:
        name, stride = f"inception_{name}", 2 if name in ("3c", "4e") else 1
        three = convolution(f"{name}_3x3", convolution(f"{name}_3x3_reduce", maps), stride)
        double = convolution(f"{name}_double_3x3_1", convolution(f"{name}_double_3x3_reduce", maps))
        double = convolution(f"{name}_double_3x3_2", double, stride)
        if stride == 2:
            return torch.cat([three, double, halved(maps)], 1)
        pool = functional.max_pool2d if name.endswith("5b") else functional.avg_pool2d
        pooled = convolution(f"{name}_pool_proj", pool(maps, 3, 1, 1))
        return torch.cat([convolution(f"{name}_1x1", maps), three, double, pooled], 1)

    maps = halved(convolution("conv1_7x7_s2", pixels_bgr - torch.tensor(BGR_MEANS).view(3, 1, 1), 2))
    maps = halved(convolution("conv2_3x3", convolution("conv2_3x3_reduce", maps)))
    for name in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        maps = block(name, maps)
    return functional.linear(maps.mean((2, 3)), stored["last_linear.weight"], stored["last_linear.bias"])


def test_every_part_has_the_size_of_figure_5(network: InceptionV2) -> None:
    maps = torch.rand(1, 3, 224, 224)
    for name, module in network.named_children():
        maps = module(maps)
        assert tuple(maps.shape[1:]) == (FIGURE_5[name][0], *[FIGURE_5[name][1]] * 2), name
    assert sum(value.numel() for value in network.parameters()) == 11_285_224 - 1000 * (1024 + 1)  # no classifier


@pytest.mark.parametrize(
    ("size", "places"), [((227, 227), (7, 7)), ((240, 240), (8, 8)), ((129, 64), (4, 2)), ((32, 33), (1, 1))]
)
def test_other_sizes(network: InceptionV2, size: tuple[int, int], places: tuple[int, int]) -> None:
    with torch.inference_mode():
        maps = network(torch.rand(1, 3, *size))
    assert maps.shape == (1, 1024, *places)
    assert maps.isfinite().all()


def test_as_a_base_network_it_has_four_stages_and_learns() -> None:
    torch.manual_seed(0)
    base = make_base_network("inception_v2", pretrained=False, image_size_px=64).train()
    maps = base(torch.rand(4, 3, 64, 64))
    assert maps.shape == (4, 1024, 2, 2)
    maps.square().mean().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in base.parameters())
    named = [name for stage in base.stages for name in stage]
    assert sorted(named) == sorted(name for name, _ in base.network.named_parameters())
    starts = [stage[0].split(".")[0] for stage in base.stages]
    assert starts == ["conv1", "inception_3a", "inception_4a", "inception_5a"]


def test_published_weights_give_the_published_network(
    published: dict[str, Tensor], weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(weights_file))
    pixels = torch.rand(2, 3, 64, 64)  # RGB, from 0 to 1
    expected = published_network(published, pixels.flip(1) * 255)
    base = make_base_network("inception_v2", pretrained=True, image_size_px=64)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN_RGB, STD_RGB))
    with torch.inference_mode():
        pooled = base((pixels - mean) / std).mean((2, 3))
    logits = functional.linear(pooled, published["last_linear.weight"], published["last_linear.bias"])
    assert logits.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)


def test_weights_under_our_own_names(network: InceptionV2, tmp_path: Path) -> None:
    safetensors.torch.save_file(network.state_dict(), tmp_path / "own.safetensors")
    loaded = load_inception_v2_weights(tmp_path / "own.safetensors")
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())


def test_pretrained_without_weights_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)
    with pytest.raises(BadInputError, match=f"set pretrained = false, or name a .* {WEIGHTS_VARIABLE}"):
        make_base_network("inception_v2", pretrained=True, image_size_px=227)


def test_weights_that_do_not_fit(published: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.safetensors"
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(file))
    with pytest.raises(BadInputError, match=r"weights\.safetensors: no such file; .* Convert"):
        make_base_network("inception_v2", pretrained=True, image_size_px=64)
    torch.save(published, file)  # a pickle
    with pytest.raises(BadInputError, match=r"not a safetensors file"):
        load_inception_v2_weights(file)
    safetensors.torch.save_file({"conv1_7x7_s2.weight": torch.zeros(64, 3, 7, 7)}, file)
    with pytest.raises(BadInputError, match=r"there is no tensor 'conv1_7x7_s2_bn\.weight'"):
        load_inception_v2_weights(file)
    wrong = {**published, "inception_4d_1x1.weight": torch.zeros(96, 576, 1, 1)}
    safetensors.torch.save_file(wrong, file)
    message = r"inception_4d.one.conv.weight has shape \(96, 576, 1, 1\), expected \(96, 608, 1, 1\)"
    with pytest.raises(BadInputError, match=message):
        make_base_network("inception_v2", pretrained=True, image_size_px=64)
