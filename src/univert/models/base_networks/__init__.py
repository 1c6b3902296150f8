"""Base networks: one file each."""

from __future__ import annotations

from collections.abc import Callable

import torch

from univert.core.errors import BadInputError
from univert.models.base_networks.base import BaseNetwork
from univert.models.base_networks.efficientnet_lite0 import make_efficientnet_lite0
from univert.models.base_networks.inception_v2 import make_inception_v2
from univert.models.base_networks.timm_network import make_timm_network

__all__ = ["BASE_NETWORKS", "BaseNetwork", "make_base_network"]

BASE_NETWORKS: dict[str, Callable[[bool, int], BaseNetwork]] = {
    "efficientnet_lite0": make_efficientnet_lite0,
    "inception_v2": make_inception_v2,
}
"""Name to maker (pretrained, image_size_px); add a network with a file and a line here."""


def make_base_network(name: str, *, pretrained: bool, image_size_px: int) -> BaseNetwork:
    """The base network of that name, stored channels last, in evaluation mode.

    Args:
        name: one of `BASE_NETWORKS`, or `timm/NAME` for any network of timm.
        pretrained: with its ImageNet weights; timm's come from the hub, the default network's are installed.
        image_size_px: side of the images it will see.

    Raises:
        BadInputError: no such network, or its weights cannot be had.
    """
    if name.startswith("timm/"):
        network = make_timm_network(name.removeprefix("timm/"), pretrained, image_size_px)
    elif name in BASE_NETWORKS:
        network = BASE_NETWORKS[name](pretrained, image_size_px)
    else:
        known = ", ".join(BASE_NETWORKS)
        raise BadInputError(f"base_network must be one of {known}, or timm/NAME for a network of timm, got {name!r}")
    # channels last: on a CPU that makes convolutions several times faster
    return network.to(memory_format=torch.channels_last).eval()
