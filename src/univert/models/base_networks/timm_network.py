"""Any network of timm as a base network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import huggingface_hub
import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from univert.core.errors import BadInputError, nearest_name
from univert.models.base_networks.base import BaseNetwork


def make_timm_network(name: str, pretrained: bool, image_size_px: int) -> BaseNetwork:
    """A network of timm, without its classifier and pooling.

    Args:
        name: timm's name, optionally with a tag: `resnet50.a1_in1k`.
        pretrained: with weights from the Hugging Face hub, or from its local cache.
        image_size_px: side of the images; networks that are made for one size are made for this one.

    Raises:
        BadInputError: timm has no such network, its weights cannot be fetched, or it cannot take that size.
    """
    defaults = _defaults(name)
    options: dict[str, Any] = {"num_classes": 0}
    if defaults is not None and defaults.fixed_input_size:
        options["img_size"] = image_size_px
    if pretrained:
        weights = _fetch_weights(name, defaults.hf_hub_id if defaults is not None else None)
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": weights}}
    try:
        network, method = _create(name, options)
    except Exception as error:
        raise BadInputError(
            f"base_network: timm/{name} cannot be made for {image_size_px} px: {_reason(error)}"
        ) from error
    config = cast(dict[str, Any], network.pretrained_cfg)
    return wrap_timm(
        network, f"timm/{name}", image_size_px, mean_rgb=config["mean"], std_rgb=config["std"], method=method
    )


def wrap_timm(
    network: nn.Module,
    name: str,
    image_size_px: int,
    *,
    mean_rgb: Sequence[float],
    std_rgb: Sequence[float],
    method: str = "forward",
) -> BaseNetwork:
    """Describe a timm network without classifier as a `BaseNetwork`, which explains the arguments.

    Raises:
        BadInputError: it does not produce feature maps or tokens for images of that size.
    """
    try:
        with torch.inference_mode():
            features = getattr(network.eval(), method)(torch.zeros(1, 3, image_size_px, image_size_px))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BadInputError(
            f"image_size_px: {name} cannot take images of {image_size_px} px ({_reason(error)}); try 224"
        ) from error
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        raise BadInputError(f"base_network: {name} does not give one feature map; take another network")
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
        method=method,
        prefix_tokens=int(getattr(network, "num_prefix_tokens", 0)) if layout == "NLC" else 0,
    )


def _defaults(name: str) -> Any:
    architecture = name.split(".", 1)[0]
    if not timm.is_model(architecture):
        near = nearest_name(architecture, timm.list_models())
        hint = f"did you mean timm/{near}?" if near else "timm.list_models() shows all"
        raise BadInputError(f"base_network: timm has no network {name!r}; {hint}")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise BadInputError(f"base_network: timm has no weights {name!r}; it has: {tags}") from None


def _fetch_weights(name: str, hub_id: str | None) -> str:
    """The weights as safetensors; fetched here, as timm would try many times and then fall back to a pickle."""
    fix = 'set pretrained = false, or use "efficientnet_lite0", whose weights are installed'
    if not hub_id:
        raise BadInputError(f"base_network: timm has no pretrained weights for {name}; {fix}")
    try:
        return huggingface_hub.hf_hub_download(hub_id, "model.safetensors")
    except Exception as error:
        raise BadInputError(
            f"base_network: the weights of timm/{name} cannot be fetched from the Hugging Face hub ({_reason(error)}); "
            f"connect to it, {fix}"
        ) from error


def _create(name: str, options: dict[str, Any]) -> tuple[nn.Module, str]:
    try:
        return timm.create_model(name, global_pool="", **options), "forward"
    except (AssertionError, ValueError, NotImplementedError):
        # A few networks cannot leave out their pooling; their last map is to be had by another way.
        return timm.create_model(name, **options), "forward_features"


def _stages(network: nn.Module) -> list[list[str]]:
    """Parameter names by stage, from the input on, as timm groups them for its layer-wise learning rates."""
    try:
        matcher = network.group_matcher(coarse=True)  # type: ignore[operator]
    except (AttributeError, AssertionError, NotImplementedError):  # a few networks do not say; take their parts
        stages: dict[str, list[str]] = {}
        for name, _ in network.named_parameters():
            stages.setdefault(name.split(".", 1)[0], []).append(name)
        return list(stages.values())
    groups: dict[int, list[str]] = group_parameters(network, matcher, reverse=False)
    return [groups[index] for index in sorted(groups)]


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
