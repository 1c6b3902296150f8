"""What every base network offers: feature maps, its normalisation, and its layers in order for freezing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Split:
    """A network in two parts.

    Args:
        front: from normalised images to the maps between the two.
        back: from those on.
        arrange: what the network does with its output.
    """

    def __init__(
        self, front: nn.Module, back: nn.Module, arrange: Callable[[Tensor], Float[Tensor, "B C H W"]]
    ) -> None:
        self.front, self._back, self._arrange = front, back, arrange

    def back(self, maps: Tensor) -> Float[Tensor, "B C H W"]:
        """Feature maps, as the whole network gives them, from what `front` gave."""
        return self._arrange(self._back(maps))


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
        self._runs_in_sequence: bool | None = None

    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B C H W"]:
        """Feature maps of normalised images; tokens come as a map of width 1."""
        compute = self.network if self._method == "forward" else getattr(self.network, self._method)
        return self._arrange(compute(images))

    def _arrange(self, features: Tensor) -> Float[Tensor, "B C H W"]:
        if self._layout == "NHWC":
            return features.permute(0, 3, 1, 2)
        if self._layout == "NLC":
            return features[:, self._prefix_tokens :].transpose(1, 2).unsqueeze(-1)
        return features

    def split(self, count: int, image_size_px: int) -> Split | None:
        """The network before its last `count` stages, and from there on; null if it is no plain sequence.

        The two share the network's modules, their weights, and whether they are in training.

        Args:
            count: of stages.
            image_size_px: side of the images.
        """
        last = {id(parameter) for parameter in self.last_stages(count)}
        parts: list[nn.Module] = []
        for part in self.network.children():
            parts += part.children() if isinstance(part, nn.Sequential) else [part]
        for place, part in enumerate(parts):
            if any(id(parameter) in last for parameter in part.parameters()):
                found = Split(nn.Sequential(*parts[:place]), nn.Sequential(*parts[place:]), self._arrange)
                return found if self._runs_as(found, image_size_px) else None
        return None

    @torch.inference_mode()
    def _runs_as(self, split: Split, image_size_px: int) -> bool:
        """Whether the network is no more than its modules one after the other, seen by what it makes of noise."""
        if self._runs_in_sequence is None:
            training = self.network.training
            noise = torch.Generator().manual_seed(0)
            images = torch.randn(2, 3, image_size_px, image_size_px, generator=noise)
            images = images.to(next(self.network.parameters()).device)
            self.network.eval()
            try:
                features, wanted = split.back(split.front(images)), self(images)
                self._runs_in_sequence = features.shape == wanted.shape and torch.allclose(
                    features, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max())
                )
            except (RuntimeError, TypeError, ValueError):  # its modules do not fit one behind the other
                self._runs_in_sequence = False
            self.network.train(training)
        return self._runs_in_sequence

    def to_channels_last(self) -> Self:
        """Store the weights channels last: on a CPU that makes convolutions several times faster."""
        self.to(memory_format=torch.channels_last)
        return self

    def last_stages(self, count: int) -> list[nn.Parameter]:
        """Parameters of the last `count` stages."""
        parameters = dict(self.network.named_parameters())
        return [parameters[name] for stage in self.stages[len(self.stages) - count :] for name in stage]
