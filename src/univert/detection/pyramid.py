"""The feature pyramid: maps of a base network at several sizes, made equally rich, and smaller ones below them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from univert.core.errors import BadInputError
from univert.models.base_networks.base import BaseNetwork

STRIDES = (8, 16, 32)
"""How many of the photo's pixels a pixel of each map stands for."""
EXTRA_LEVELS = 3
"""Maps below the base network's own, each of half the size of the one before."""


def split_by_stride(network: BaseNetwork, image_size_px: int) -> list[nn.Sequential]:
    """A base network in parts that run one after the other, each up to its last map of one of the `STRIDES`.

    They share the network's modules.

    Raises:
        BadInputError: the network has no maps of these sizes.
    """
    parts = network.parts()
    device = next(network.parameters()).device
    wanted = [-(-image_size_px // stride) for stride in STRIDES]
    last: dict[int, int] = {}
    maps: Tensor = torch.zeros(2, 3, image_size_px, image_size_px, device=device)
    try:
        with torch.inference_mode():
            expected = network(maps)
            for place, part in enumerate(parts):
                maps = part(maps)
                if maps.ndim == 4 and maps.shape[2] == maps.shape[3]:
                    near = next((n for n, side in enumerate(wanted) if abs(side - maps.shape[2]) <= 1), None)
                    if near is not None:
                        last[near] = place + 1
        whole = maps.shape == expected.shape and torch.allclose(maps, expected, rtol=1e-3, atol=1e-3)
    except Exception:  # modules that do not fit one behind the other may raise whatever they like
        whole = False
    if not whole or sorted(last) != list(range(len(STRIDES))):
        raise BadInputError(
            "base_network: an SSD needs a network that runs its layers one after the other, with maps of "
            f"1/{', 1/'.join(map(str, STRIDES))} of the photo's side; take efficientnet_lite0, inception_v2 or a "
            "ResNet of timm"
        )
    ends = [last[number] for number in range(len(STRIDES))]
    return [nn.Sequential(*parts[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


class Pyramid(nn.Module):
    """Maps of one width at all sizes, what the small ones know added to the large ones (Lin et al., 2017).

    Args:
        sizes: channels of the base network's maps, the largest map first.
        channels: of every map that comes out.

    Attributes:
        levels: how many maps come out.
    """

    def __init__(self, sizes: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_conv(size, channels, 1) for size in sizes)
        self.smooth = nn.ModuleList(_conv(channels, channels, 3) for _ in sizes)
        self.extra = nn.ModuleList(_conv(channels, channels, 3, stride=2) for _ in range(EXTRA_LEVELS))
        self.levels = len(sizes) + EXTRA_LEVELS

    def forward(self, maps: Sequence[Float[Tensor, "B C H W"]]) -> list[Float[Tensor, "B D H W"]]:
        """Richer maps from those of the base network, the largest first, and the smaller ones after them."""
        levels = [layer(one) for layer, one in zip(self.lateral, maps, strict=True)]
        for place in reversed(range(len(levels) - 1)):
            levels[place] = levels[place] + interpolate(levels[place + 1], size=levels[place].shape[2:])
        levels = [layer(one) for layer, one in zip(self.smooth, levels, strict=True)]
        for layer in self.extra:
            levels.append(layer(levels[-1]))
        return levels


def _conv(size: int, channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution, depthwise and then pointwise where it is wider than a pixel, with norm and activation."""
    layers: list[nn.Module] = []
    if kernel > 1:
        layers.append(nn.Conv2d(size, size, kernel, stride, kernel // 2, groups=size, bias=False))
    layers.append(nn.Conv2d(size, channels, 1, bias=False))
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())
