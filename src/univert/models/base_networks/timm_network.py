"""Any network of timm as a base network."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, cast

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.models.base_networks.base import BaseNetwork


def timm_network(name: str, pretrained: bool, image_size_px: int) -> BaseNetwork:
    """A network of timm, without its classifier and pooling.

    Args:
        name: timm's name, optionally with a tag: `resnet50.a1_in1k`.
        pretrained: with weights from the hub.
        image_size_px: side of the images; networks that are made for one size are made for this one.

    Raises:
        BadInputError: timm has no such network, its weights cannot be fetched, or it cannot take that size.
    """
    architecture = name.split(".", 1)[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=1, cutoff=0.4)
        hint = f"did you mean timm/{near[0]}?" if near else "timm.list_models() shows all"
        raise BadInputError(f"base_network: timm has no network {name!r}; {hint}")
    options: dict[str, Any] = {"num_classes": 0, "global_pool": ""}
    defaults = timm.get_pretrained_cfg(name)
    if defaults is not None and defaults.fixed_input_size:
        options["img_size"] = image_size_px
    try:
        network = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if pretrained:
            raise BadInputError(
                f"base_network: the weights of timm/{name} cannot be had ({reason}); connect to the Hugging "
                f'Face hub, set pretrained = false, or use "efficientnet_lite0", whose weights are installed'
            ) from error
        raise BadInputError(
            f"base_network: timm/{name} cannot be made for {image_size_px} px: {reason}"
        ) from error
    config = cast(dict[str, Any], network.pretrained_cfg)
    return wrap_timm(network, f"timm/{name}", image_size_px, mean_rgb=config["mean"], std_rgb=config["std"])


def wrap_timm(
    network: nn.Module, name: str, image_size_px: int, *, mean_rgb: Sequence[float], std_rgb: Sequence[float]
) -> BaseNetwork:
    """Describe a timm network without classifier and pooling as a `BaseNetwork`.

    Raises:
        BadInputError: it does not produce feature maps or tokens for images of that size.
    """
    features = _features_of_blank(network, name, image_size_px)
    layout, feature_size = "NCHW", features.shape[1]
    if features.ndim == 3:
        layout, feature_size = "NLC", features.shape[2]
    elif str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC"):
        layout, feature_size = "NHWC", features.shape[3]
    return BaseNetwork(
        network,
        feature_size=feature_size,
        layout=layout,
        mean_rgb=mean_rgb,
        std_rgb=std_rgb,
        stages=_stages(network),
        prefix_tokens=int(getattr(network, "num_prefix_tokens", 0)) if layout == "NLC" else 0,
    )


def _features_of_blank(network: nn.Module, name: str, image_size_px: int) -> Tensor:
    training = network.training
    try:
        with torch.inference_mode():
            features: Tensor = network.eval()(torch.zeros(1, 3, image_size_px, image_size_px))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInputError(
            f"image_size_px: {name} cannot take images of {image_size_px} px ({reason}); try 224"
        ) from error
    finally:
        network.train(training)
    if features.ndim not in (3, 4):
        raise BadInputError(
            f"base_network: {name} gives no feature maps, but a tensor of {features.ndim} axes"
        )
    return features


def _stages(network: nn.Module) -> list[list[str]]:
    """Parameter names by stage, from the input on, as timm groups them for its layer-wise learning rates."""
    matcher = network.group_matcher(coarse=True)  # type: ignore[operator]
    groups: dict[int, list[str]] = group_parameters(network, matcher, reverse=False)
    return [groups[index] for index in sorted(groups)]
