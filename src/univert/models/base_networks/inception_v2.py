"""Inception with batch normalisation (BN-Inception, "Inception v2"), registered with timm as `inception_v2`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import timm
import torch
from jaxtyping import Float
from timm.layers import ClassifierHead, ConvNormAct  # type: ignore[attr-defined]
from timm.models import build_model_with_cfg, generate_default_cfgs
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from univert.core.errors import BadInputError
from univert.models.base_networks.base import BaseNetwork
from univert.models.base_networks.inception_v2_weights import (
    MEAN_RGB,
    STD_RGB,
    checked_file,
    to_our_names,
    weights_file,
)
from univert.models.base_networks.timm_network import wrap_timm


class _Row(NamedTuple):
    """One inception block of Figure 5: the widths of its branches; the block halves the map without `one`."""

    one: int
    three: tuple[int, int]
    double_three: tuple[int, int]
    pool: str
    projection: int


_BLOCKS = {
    "3a": _Row(64, (64, 64), (64, 96), "avg", 32),
    "3b": _Row(64, (64, 96), (64, 96), "avg", 64),
    "3c": _Row(0, (128, 160), (64, 96), "max", 0),
    "4a": _Row(224, (64, 96), (96, 128), "avg", 128),
    "4b": _Row(192, (96, 128), (96, 128), "avg", 128),
    "4c": _Row(160, (128, 160), (128, 160), "avg", 128),
    "4d": _Row(96, (128, 192), (160, 192), "avg", 128),
    "4e": _Row(0, (128, 192), (192, 256), "max", 0),
    "5a": _Row(352, (192, 320), (160, 224), "avg", 128),
    "5b": _Row(352, (192, 320), (192, 224), "max", 128),
}


class InceptionBlock(nn.Module):
    """Branches side by side, their maps concatenated.

    The branches are a 1 x 1 convolution, a 3 x 3, two 3 x 3 in a row, and a pooling with a 1 x 1; without the
    first, all others halve the map and the pooling passes the input through (3c and 4e of Figure 5).

    Args:
        size: channels of the input.
        row: the widths.

    Attributes:
        size: channels of the output.
    """

    def __init__(self, size: int, row: _Row) -> None:
        super().__init__()
        stride = 1 if row.one else 2
        reduced, wide = row.three
        self.three = nn.Sequential(ConvNormAct(size, reduced, 1), ConvNormAct(reduced, wide, 3, stride=stride))
        reduced, wide = row.double_three
        self.double_three = nn.Sequential(
            ConvNormAct(size, reduced, 1), ConvNormAct(reduced, wide, 3), ConvNormAct(wide, wide, 3, stride=stride)
        )
        self.one = ConvNormAct(size, row.one, 1) if row.one else None
        self.pool: nn.Module = _HalvingMaxPool()
        if row.one:
            self.pool = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}[row.pool](3, stride=1, padding=1)
        self.projection: nn.Module = ConvNormAct(size, row.projection, 1) if row.one else nn.Identity()
        self.size = row.one + row.three[-1] + row.double_three[-1] + (row.projection or size)

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


class InceptionV2(nn.Module):
    """Inception with batch normalisation: Ioffe and Szegedy, 2015 (arXiv 1502.03167), Figure 5.

    Figure 5 contradicts itself: the branches it lists for 4c, 4d and 4e add up to 608, 608 and 1056 channels,
    but its column of outputs says 576, 576 and 1024. This network has the branches, as have the ImageNet
    weights that papers on metric learning start from. All other outputs are as printed: 256, 320, 576 (3a to
    3c), 576 (4a, 4b), 1024 (5a, 5b). 11.3 million weights; the last map has 1/32 of the image's side, 7 x 7
    for 224 and for 227 pixels. There are no auxiliary classifiers.

    Args:
        num_classes: of the classifier; 0 leaves it out.
        in_chans: channels of the image.
        global_pool: pooling before the classifier; empty leaves it out.
        drop_rate: share of the pooled features dropped in training.
    """

    pretrained_cfg: dict[str, Any]

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = 1024
        self.conv1 = ConvNormAct(in_chans, 64, 7, stride=2)
        self.pool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2_reduce = ConvNormAct(64, 64, 1)
        self.conv2 = ConvNormAct(64, 192, 3)
        self.pool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        size = 192
        self.feature_info = [
            {"num_chs": 64, "reduction": 2, "module": "conv1"},
            {"num_chs": 192, "reduction": 4, "module": "conv2"},
        ]
        for name, row in _BLOCKS.items():
            block = InceptionBlock(size, row)
            self.add_module(f"inception_{name}", block)
            size = block.size
            if name in ("3b", "4d", "5b"):
                reduction = 8 * 2 ** (int(name[0]) - 3)
                self.feature_info.append({"num_chs": size, "reduction": reduction, "module": f"inception_{name}"})
        assert size == self.num_features
        self.head = ClassifierHead(size, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "B C S T"]) -> Tensor:
        """What the head makes of the last map."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Float[Tensor, "B C S T"]) -> Float[Tensor, "B 1024 H W"]:
        """The last map."""
        maps = images
        for name, module in self.named_children():
            if name != "head":
                maps = module(maps)
        return maps

    def forward_head(self, maps: Float[Tensor, "B 1024 H W"], pre_logits: bool = False) -> Tensor:
        """Logits, or pooled features."""
        logits: Tensor = self.head(maps, pre_logits=pre_logits)
        return logits

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        classifier: nn.Module = self.head.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier, and the pooling where one is named."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameters layer by layer for timm: the stem, then each block, or each stage."""
        blocks = [(rf"^inception_{name}\.", (place,)) for place, name in enumerate(_BLOCKS)]
        return {"stem": r"^conv\d", "blocks": r"^inception_(\d)" if coarse else blocks}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Part of timm's interface; there is none for this network."""
        if enable:
            raise BadInputError("inception_v2 has no gradient checkpointing; leave it off")


default_cfgs = generate_default_cfgs(
    {
        "inception_v2": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": MEAN_RGB,
            "std": STD_RGB,
            "first_conv": "conv1.conv",
            "classifier": "head.fc",
        }
    }
)


@timm.models.register_model
def inception_v2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Inception with batch normalisation, for `timm.create_model("inception_v2")`.

    Args:
        pretrained: with the weights that `UNIVERT_INCEPTION_V2_WEIGHTS` names.
        **kwargs: as timm's networks take them, and what `InceptionV2` takes.

    Raises:
        BadInputError: `pretrained`, but there are no weights.
    """
    if pretrained:
        overlay = {"file": str(weights_file()), **(kwargs.get("pretrained_cfg_overlay") or {})}
        kwargs["pretrained_cfg_overlay"] = overlay
    network: nn.Module = build_model_with_cfg(
        InceptionV2, "inception_v2", pretrained, pretrained_filter_fn=_to_our_names, **kwargs
    )
    return network


def make_inception_v2(pretrained: bool, image_size_px: int) -> BaseNetwork:
    """Inception with batch normalisation: 10.3 million weights up to its 1024 feature maps.

    Args:
        pretrained: with the weights that `UNIVERT_INCEPTION_V2_WEIGHTS` names.
        image_size_px: side of the images; any size works, papers take 224 or 227.

    Raises:
        BadInputError: `pretrained`, but there are no weights.
    """
    network = timm.create_model("inception_v2", pretrained=pretrained, num_classes=0, global_pool="")
    return wrap_timm(network, "inception_v2", image_size_px, mean_rgb=MEAN_RGB, std_rgb=STD_RGB)


def load_inception_v2_weights(path: Path | str) -> dict[str, Tensor]:
    """ImageNet weights from a file, classifier included, under this network's names.

    Args:
        path: a safetensors file with the tensors of `bn_inception` as the PyTorch port of the Caffe model
            names them (`conv1_7x7_s2.weight`, `inception_3a_1x1_bn.running_var`, ...), or with this
            network's own names.

    Raises:
        BadInputError: there is no such file, it is no safetensors file, or its tensors do not fit.
    """
    return _to_our_names(safetensors.torch.load_file(checked_file(Path(path))))


def _to_our_names(stored: Mapping[str, Tensor], network: nn.Module | None = None) -> dict[str, Tensor]:
    """The stored weights under our names; `network` is there because timm passes it."""
    with torch.device("meta"):
        expected = InceptionV2().state_dict()
    return to_our_names(stored, expected)
