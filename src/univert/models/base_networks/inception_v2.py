"""Inception with batch normalisation (BN-Inception, "Inception v2"), and its published ImageNet weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from timm.layers import ConvNormAct  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from univert.core.errors import BadInputError
from univert.models.base_networks.base import BaseNetwork

WEIGHTS_VARIABLE = "UNIVERT_INCEPTION_V2_WEIGHTS"
"""The environment variable that names a safetensors file with ImageNet weights."""

# The published weights were trained on BGR pixels from 0 to 255 with these means subtracted, undivided. Here
# pixels are RGB from 0 to 1 and divided by the usual deviations, for the sake of training from scratch;
# conversion moves the difference into the first convolution.
MEAN_RGB = (128 / 255, 117 / 255, 104 / 255)
STD_RGB = (0.229, 0.224, 0.225)

_STEM = {"conv1": "conv1_7x7_s2", "conv2_reduce": "conv2_3x3_reduce", "conv2": "conv2_3x3"}
_BRANCHES = {
    "one": "1x1",
    "three.0": "3x3_reduce",
    "three.1": "3x3",
    "double_three.0": "double_3x3_reduce",
    "double_three.1": "double_3x3_1",
    "double_three.2": "double_3x3_2",
    "projection": "pool_proj",
}


class _BlockWidths(NamedTuple):
    """One inception block of Figure 5: the widths of its branches; the block halves the map without `one`."""

    one: int
    three: tuple[int, int]
    double_three: tuple[int, int]
    pool: str
    projection: int


_BLOCKS = {
    "3a": _BlockWidths(64, (64, 64), (64, 96), "avg", 32),
    "3b": _BlockWidths(64, (64, 96), (64, 96), "avg", 64),
    "3c": _BlockWidths(0, (128, 160), (64, 96), "max", 0),
    "4a": _BlockWidths(224, (64, 96), (96, 128), "avg", 128),
    "4b": _BlockWidths(192, (96, 128), (96, 128), "avg", 128),
    "4c": _BlockWidths(160, (128, 160), (128, 160), "avg", 128),
    "4d": _BlockWidths(96, (128, 192), (160, 192), "avg", 128),
    "4e": _BlockWidths(0, (128, 192), (192, 256), "max", 0),
    "5a": _BlockWidths(352, (192, 320), (160, 224), "avg", 128),
    "5b": _BlockWidths(352, (192, 320), (192, 224), "max", 128),
}


_STAGES = ("inception_3", "inception_4", "inception_5")


class InceptionBlock(nn.Module):
    """Branches side by side, their maps concatenated.

    The branches are a 1 x 1 convolution, a 3 x 3, two 3 x 3 in a row, and a pooling with a 1 x 1; without the
    first, all others halve the map and the pooling passes the input through (3c and 4e of Figure 5).

    Args:
        size: channels of the input.
        widths: of its branches.

    Attributes:
        size: channels of the output.
    """

    def __init__(self, size: int, widths: _BlockWidths) -> None:
        super().__init__()
        stride = 1 if widths.one else 2
        reduced, wide = widths.three
        self.three = nn.Sequential(ConvNormAct(size, reduced, 1), ConvNormAct(reduced, wide, 3, stride=stride))
        reduced, wide = widths.double_three
        self.double_three = nn.Sequential(
            ConvNormAct(size, reduced, 1), ConvNormAct(reduced, wide, 3), ConvNormAct(wide, wide, 3, stride=stride)
        )
        self.one = ConvNormAct(size, widths.one, 1) if widths.one else None
        self.pool: nn.Module = _HalvingMaxPool()
        if widths.one:
            self.pool = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}[widths.pool](3, stride=1, padding=1)
        self.projection: nn.Module = ConvNormAct(size, widths.projection, 1) if widths.one else nn.Identity()
        self.size = widths.one + widths.three[-1] + widths.double_three[-1] + (widths.projection or size)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D I J"]:
        """The branches' maps, concatenated in the paper's order."""
        branches = [self.three(maps), self.double_three(maps), self.projection(self.pool(maps))]
        if self.one is not None:
            branches.insert(0, self.one(maps))
        return torch.cat(branches, dim=1)


class _HalvingMaxPool(nn.Module):
    """3 x 3, stride 2, onto as many places as the convolutions beside it: half, rounded up.

    Even sides are padded at their end alone, as in the published network.
    """

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C I J"]:
        odd = (maps.shape[-2] % 2, maps.shape[-1] % 2)
        return max_pool2d(maps, 3, stride=2, padding=odd, ceil_mode=True)


class InceptionV2(nn.Sequential):
    """Inception with batch normalisation: Ioffe and Szegedy, 2015 (arXiv 1502.03167), Figure 5.

    Figure 5 contradicts itself: the branches it lists for 4c, 4d and 4e add up to 608, 608 and 1056 channels,
    but its column of outputs says 576, 576 and 1024. This network has the branches, as have the ImageNet
    weights that papers on metric learning start from. All other outputs are as printed: 256, 320, 576 (3a to
    3c), 576 (4a, 4b), 1024 (5a, 5b). 10.3 million weights; the last map has 1/32 of the image's side, 7 x 7
    for 224 and for 227 pixels. There is no classifier.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(3, 64, 7, stride=2)
        self.pool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2_reduce = ConvNormAct(64, 64, 1)
        self.conv2 = ConvNormAct(64, 192, 3)
        self.pool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        size = 192
        for name, widths in _BLOCKS.items():
            block = InceptionBlock(size, widths)
            self.add_module(f"inception_{name}", block)
            size = block.size
        self.feature_size = size
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def make_inception_v2(pretrained: bool, image_size_px: int) -> BaseNetwork:
    """Inception with batch normalisation; its stages are the stem and the blocks 3, 4 and 5.

    Any image size works, papers take 224 or 227. Pretrained weights are those `UNIVERT_INCEPTION_V2_WEIGHTS` names.

    Raises:
        BadInputError: `pretrained`, but there are no weights, or they do not fit.
    """
    network = InceptionV2()
    if pretrained:
        path = os.environ.get(WEIGHTS_VARIABLE)
        if not path:
            raise BadInputError(
                "pretrained: inception_v2 comes without weights; set pretrained = false, or name a safetensors file "
                f"of bn_inception's ImageNet weights in the environment variable {WEIGHTS_VARIABLE}"
            )
        _load_published(network, path)
    names = list(dict(network.named_parameters()))
    stages = [[name for name in names if name.startswith(prefix)] for prefix in ("conv", *_STAGES)]
    return BaseNetwork(
        network, feature_size=network.feature_size, layout="NCHW", mean_rgb=MEAN_RGB, std_rgb=STD_RGB, stages=stages
    )


def _load_published(network: InceptionV2, path: str) -> None:
    """Take over the weights of `bn_inception` as the PyTorch port of the Caffe model names them, from safetensors."""
    try:
        network.load_state_dict(dict(_converted(safetensors.torch.load_file(path), network.state_dict())))
    except (OSError, safetensors.SafetensorError, KeyError, RuntimeError) as error:
        raise BadInputError(
            f"{path}: not bn_inception in safetensors: {' '.join(str(error).split())[:300]}. Convert them "
            "with safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'bn_inception.safetensors')"
        ) from error


def _converted(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for weight_name in expected:
        ours = weight_name.removesuffix(".conv.weight")
        if ours == weight_name:
            continue
        block, _, branch = ours.partition(".")
        theirs = f"{block}_{_BRANCHES[branch]}" if branch else _STEM[ours]
        weight = stored[f"{theirs}.weight"]
        if ours == "conv1":
            weight = weight.flip(1) * 255 * torch.tensor(STD_RGB).view(1, 3, 1, 1)
        yield weight_name, weight
        for part in ("weight", "bias", "running_var"):
            yield f"{ours}.bn.{part}", stored[f"{theirs}_bn.{part}"].flatten()
        # Their convolutions have a bias, which normalisation takes away again: here it is in the mean.
        mean = stored[f"{theirs}_bn.running_mean"].flatten()
        yield f"{ours}.bn.running_mean", mean - stored.get(f"{theirs}.bias", torch.zeros_like(mean))
        yield f"{ours}.bn.num_batches_tracked", torch.tensor(0)
