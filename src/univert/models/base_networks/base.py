"""What every base network offers: feature maps, its normalisation, and its layers in order for freezing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from univert.core.errors import BadInputError


@dataclass(frozen=True)
class Cut:
    """A network in two parts that run one after the other; they share its modules.

    Attributes:
        front: from normalised images (B, 3, S, S) to the maps in between.
        back: from those to feature maps, as the whole network gives them.
        map_shape: (C, H, W) of the maps in between, of one image.
    """

    front: nn.Module
    back: Callable[[Tensor], Tensor]
    map_shape: tuple[int, ...]


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
        self.mean_rgb, self.std_rgb, self.stages = tuple(mean_rgb), tuple(std_rgb), stages
        self._layout, self._method, self._prefix_tokens = layout, method, prefix_tokens

    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B C H W"]:
        """Feature maps of normalised images; tokens come as a map of width 1."""
        return self._arrange(getattr(self.network, self._method)(images))

    def _arrange(self, features: Tensor) -> Float[Tensor, "B C H W"]:
        if self._layout == "NHWC":
            return features.permute(0, 3, 1, 2)
        if self._layout == "NLC":
            return features[:, self._prefix_tokens :].transpose(1, 2).unsqueeze(-1)
        return features

    def cut(self, count: int, image_size_px: int) -> Cut | None:
        """The network before its last `count` stages, and from there on.

        Args:
            count: of stages.
            image_size_px: side of the images.

        Returns:
            None if the network is more than its modules one after the other, seen by what it makes of noise, or what
            runs between the two is not a map (C, H, W).

        Raises:
            BadInputError: as `last_stages`.
        """
        last = {id(parameter) for parameter in self.last_stages(count)}
        parts = self.parts()
        holds = [any(id(one) in last for one in part.parameters()) for part in parts]
        place = holds.index(True) if True in holds else 0
        front, back = nn.Sequential(*parts[:place]), nn.Sequential(*parts[place:])
        noise = torch.Generator().manual_seed(0)
        images = torch.randn(2, 3, image_size_px, image_size_px, generator=noise)
        modes = [(module, module.training) for module in self.network.modules()]
        self.network.eval()
        try:
            with torch.inference_mode():
                images = images.to(next(self.network.parameters()).device)
                maps, wanted = front(images), self(images)
                found = self._arrange(back(maps))
                same = found.shape == wanted.shape and torch.allclose(
                    found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max())
                )
        except Exception:  # its modules do not fit one behind the other: they may raise whatever they like
            return None
        finally:
            for module, training in modes:
                module.training = training
        if not (same and isinstance(maps, Tensor) and maps.ndim == 4):
            return None
        return Cut(front, lambda maps: self._arrange(back(maps)), tuple(maps.shape[1:]))

    def parts(self) -> list[nn.Module]:
        """The network's modules in the order of their declaration, sequences taken apart."""
        parts: list[nn.Module] = []
        for part in self.network.children():
            parts += part.children() if isinstance(part, nn.Sequential) else [part]
        return parts

    def last_stages(self, count: int) -> list[nn.Parameter]:
        """Parameters of the last `count` stages.

        Raises:
            BadInputError: none, or more stages than there are.
        """
        if not 1 <= count <= len(self.stages):
            raise BadInputError(f"last_blocks must lie in 1..{len(self.stages)} for this base network, got {count}")
        parameters = dict(self.network.named_parameters())
        return [parameters[name] for stage in self.stages[len(self.stages) - count :] for name in stage]
