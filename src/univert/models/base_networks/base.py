"""What every base network offers: feature maps, its normalisation, and its layers in order for freezing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn


class BaseNetwork(nn.Module):
    """A network up to its last feature map.

    Args:
        network: maps normalised images (B, 3, S, S) to features: (B, C, H, W) maps, (B, H, W, C) maps or (B,
            N, C) tokens, as `layout` says.
        feature_size: C.
        layout: `NCHW`, `NHWC` or `NLC`.
        mean_rgb: mean of the pixels (0 to 1) that the network expects to be subtracted.
        std_rgb: deviation it expects to be divided by.
        stages: names of the network's parameters, stage by stage from input to output; for partial
            fine-tuning.
        method: which of the network's methods gives the features.
        prefix_tokens: how many of the first tokens are no places of the image (`NLC` only).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        feature_size: int,
        layout: str,
        mean_rgb: Sequence[float],
        std_rgb: Sequence[float],
        stages: Sequence[Sequence[str]],
        method: str = "forward",
        prefix_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.feature_size = feature_size
        self.mean_rgb = tuple(float(value) for value in mean_rgb)
        self.std_rgb = tuple(float(value) for value in std_rgb)
        self.stages = tuple(tuple(stage) for stage in stages)
        self._layout = layout
        self._method = method
        self._prefix_tokens = prefix_tokens

    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B C H W"]:
        """Feature maps of normalised images; tokens come as a map of width 1."""
        compute = self.network if self._method == "forward" else getattr(self.network, self._method)
        features: Tensor = compute(images)
        if self._layout == "NHWC":
            return features.permute(0, 3, 1, 2)
        if self._layout == "NLC":
            return features[:, self._prefix_tokens :].transpose(1, 2).unsqueeze(-1)
        return features

    def to_channels_last(self) -> Self:
        """Store the weights channels last: on a CPU that makes convolutions several times faster."""
        self.to(memory_format=torch.channels_last)
        return self

    def last_stages(self, count: int) -> list[nn.Parameter]:
        """Parameters of the last `count` stages."""
        parameters = dict(self.network.named_parameters())
        return [parameters[name] for stage in self.stages[len(self.stages) - count :] for name in stage]
