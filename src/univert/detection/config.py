"""What a detector is made of. Loads neither torch nor timm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval

from univert.core.errors import BadInputError
from univert.data.transforms import Preprocessing


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """What a detector is made of.

    Attributes:
        network: `ssd`, torchvision's SSD on a base network of ours, or the name of a detection model of
            torchvision, such as `fasterrcnn_mobilenet_v3_large_fpn`, which learns from the start and has no use for
            the next three.
        base_network: as in `univert.models.config.EmbedderConfig`; it must give maps of several sizes, as convolutional
            networks do.
        pretrained: start from its ImageNet weights.
        channels: width of the feature pyramid.
        verticals: what can be told apart; training fills it in.
        image_size_px: side of the square that the network sees; photos are stretched to it.
        least_score: what is less sure than this is not given; training sets it to what suits the validation scenes.

    Raises:
        BadInputError: a value is out of range, or a vertical is given twice.
    """

    network: str = "ssd"
    base_network: str = "efficientnet_lite0"
    pretrained: bool = True
    channels: Annotated[int, Ge(8)] = 96
    verticals: tuple[str, ...] = ()
    image_size_px: Annotated[int, Interval(ge=64, le=2048)] = 384
    least_score: Annotated[float, Interval(ge=0, lt=1)] = 0.3

    def __post_init__(self) -> None:
        object.__setattr__(self, "verticals", tuple(self.verticals))
        if len(set(self.verticals)) < len(self.verticals):
            raise BadInputError(f"verticals: one is given twice in {', '.join(self.verticals)}")

    def preprocessing(self) -> Preprocessing:
        """From a photo of any size to the square that the network sees."""
        return Preprocessing(image_size_px=self.image_size_px, fit="stretch")
