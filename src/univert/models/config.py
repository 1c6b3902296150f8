"""What an embedder is made of. Loads neither torch nor timm, so that recipes are read in no time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from univert.core.errors import BadInputError
from univert.data.transforms import Fit, Preprocessing

PoolingName = Literal["avg", "max", "gem"]
BaseNetworkLearns = Literal["no", "last_blocks", "all"]


@dataclass(frozen=True, kw_only=True)
class EmbedderConfig:
    """What an `Embedder` is made of.

    Attributes:
        base_network: `efficientnet_lite0`, `inception_v2`, or `timm/NAME` for any network of timm; looked up when the
            network is built.
        pretrained: start from its ImageNet weights.
        pooling: `avg`, `max` or `gem`.
        hidden_sizes: widths of the first fully connected set; may be empty.
        size: width of the embedding, the second fully connected set; None means no head at all: the
            embedding is the pooled features, and `hidden_sizes` counts as empty.
        batch_norm: batch normalisation on the embedding, before the L2 norm.
        image_size_px: side of the square that the network sees.
        fit: `pad`, `crop` or `stretch`; see `univert.data.transforms.Preprocessing`.
        background_rgb: the colour of padding and behind transparent pixels.
        centre_share: side of the central part that the network sees, as a share of the whole.

    Raises:
        BadInputError: a value is out of range, or an option has no effect with the others.
    """

    base_network: str = "efficientnet_lite0"
    pretrained: bool = True
    pooling: PoolingName = "avg"
    hidden_sizes: tuple[int, ...] = (1024,)
    size: int | None = 256
    batch_norm: bool = False
    image_size_px: int = 192
    fit: Fit = "pad"
    background_rgb: tuple[int, int, int] = (255, 255, 255)
    centre_share: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_sizes", tuple(self.hidden_sizes) if self.size is not None else ())
        object.__setattr__(self, "background_rgb", tuple(self.background_rgb))
        if self.size is not None and not 1 <= self.size <= 65536:
            raise BadInputError(f"size must lie in 1..65536, got {self.size}; 64 to 512 suit most catalogues")
        if any(hidden < 1 for hidden in self.hidden_sizes):
            raise BadInputError(f"hidden_sizes must be positive, got {self.hidden_sizes}; () leaves the set out")
        if self.size is None and self.batch_norm:
            raise BadInputError("batch_norm belongs to the head; set size, or leave it out")
        self.preprocessing()

    def without_head(self) -> EmbedderConfig:
        """The same base network alone: the embedding is its pooled features."""
        return replace(self, size=None, batch_norm=False)

    def preprocessing(self) -> Preprocessing:
        """The part that concerns images before they enter the network."""
        return Preprocessing(
            image_size_px=self.image_size_px,
            fit=self.fit,
            background_rgb=self.background_rgb,
            centre_share=self.centre_share,
        )
