"""inception_v2: the widths of the paper's table, and the published weights' names and pixels."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from univert.core.errors import BadInputError
from univert.models.base_networks import make_base_network
from univert.models.base_networks.inception_v2 import MEAN_RGB, STD_RGB, WEIGHTS_VARIABLE

BGR_MEANS = (104.0, 117.0, 128.0)


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


def test_as_a_base_network_it_has_four_stages_and_learns() -> None:
    torch.manual_seed(0)
    base = make_base_network("inception_v2", pretrained=False, image_size_px=64).train()
    maps = base(torch.rand(4, 3, 64, 64))
    assert maps.shape == (4, 1024, 2, 2)
    assert base(torch.rand(2, 3, 75, 227)).shape == (2, 1024, 3, 7)  # odd sides
    maps.square().mean().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in base.parameters())
    assert sum(value.numel() for value in base.parameters()) == 11_285_224 - 1000 * (1024 + 1)  # no classifier
    named = [name for stage in base.stages for name in stage]
    assert sorted(named) == sorted(name for name, _ in base.network.named_parameters())
    starts = [stage[0].split(".")[0] for stage in base.stages]
    assert starts == ["conv1", "inception_3a", "inception_4a", "inception_5a"]


def test_published_weights_give_the_published_network(
    published: dict[str, Tensor], weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(weights_file))
    base = make_base_network("inception_v2", pretrained=True, image_size_px=64)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN_RGB, STD_RGB))
    for sides in ((64, 64), (96, 32)):
        pixels = torch.rand(2, 3, *sides)  # RGB, from 0 to 1
        with torch.inference_mode():
            pooled = base((pixels - mean) / std).mean((2, 3))
        logits = functional.linear(pooled, published["last_linear.weight"], published["last_linear.bias"])
        assert logits.std() > 0.1
        torch.testing.assert_close(logits, published_network(published, pixels.flip(1) * 255), rtol=1e-3, atol=1e-3)


def test_weights_that_do_not_fit(published: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(match: str) -> None:
        with pytest.raises(BadInputError, match=match):
            make_base_network("inception_v2", pretrained=True, image_size_px=64)

    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)
    refused(f"set pretrained = false, or name a .* {WEIGHTS_VARIABLE}")
    file = tmp_path / "weights.safetensors"
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(file))
    refused(r"weights\.safetensors: not bn_inception in safetensors.*No such file.*Convert")
    torch.save(published, file)  # a pickle
    refused("not bn_inception in safetensors")
    safetensors.torch.save_file({"conv1_7x7_s2.weight": torch.zeros(64, 3, 7, 7)}, file)
    refused(r"safetensors: 'conv1_7x7_s2_bn\.weight'")
    wrong = {**published, "inception_4d_1x1.weight": torch.zeros(96, 576, 1, 1)}
    safetensors.torch.save_file(wrong, file)
    refused(r"size mismatch for inception_4d.one.conv.weight: .*\[96, 576, 1, 1\]")
