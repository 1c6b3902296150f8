"""Published training protocols for the public benchmarks, as recipes."""

from __future__ import annotations

from collections.abc import Callable

from univert.data.transforms import Augmentation
from univert.losses.names import LOSSES, LossName, LossOption
from univert.models.config import EmbedderConfig
from univert.training.label_config import LabelLoopConfig, SpecialistsConfig
from univert.training.recipe import DataConfig, Recipe

BATCH_SIZE = 32

PUBLISHED: dict[str, dict[tuple[str, str], dict[str, float]]] = {
    "proxies": {
        ("cars196", "triplet"): {"R@1": 51.54, "R@2": 63.78, "R@4": 73.52, "R@8": 81.41, "NMI": 53.35},
        ("cars196", "lifted-structure"): {"R@1": 52.98, "R@2": 66.70, "R@4": 76.01, "R@8": 84.27, "NMI": 56.88},
        ("cars196", "n-pairs"): {"R@1": 53.90, "R@2": 66.76, "R@4": 77.75, "R@8": 86.35, "NMI": 57.79},
        ("cars196", "proxy-triplet"): {"R@1": 55.90, "R@2": 67.99, "R@4": 74.04, "R@8": 77.95, "NMI": 54.44},
        ("cars196", "structured-clustering"): {"R@1": 58.11, "R@2": 70.64, "R@4": 80.27, "R@8": 87.81, "NMI": 59.04},
        ("cars196", "proxy-nca"): {"R@1": 73.22, "R@2": 82.42, "R@4": 86.36, "R@8": 88.68, "NMI": 64.90},
        ("cub200", "triplet"): {"R@1": 42.59, "R@2": 55.03, "R@4": 66.44, "R@8": 77.23, "NMI": 55.38},
        ("cub200", "lifted-structure"): {"R@1": 43.57, "R@2": 56.55, "R@4": 68.59, "R@8": 79.63, "NMI": 56.50},
        ("cub200", "n-pairs"): {"R@1": 45.37, "R@2": 58.41, "R@4": 69.51, "R@8": 79.49, "NMI": 57.24},
        ("cub200", "structured-clustering"): {"R@1": 48.18, "R@2": 61.44, "R@4": 71.83, "R@8": 81.92, "NMI": 59.23},
        ("cub200", "proxy-nca"): {"R@1": 49.21, "R@2": 61.90, "R@4": 67.90, "R@8": 72.40, "NMI": 59.53},
        ("sop", "proxy-nca"): {"R@1": 73.73, "NMI": 90.6},
    },
    "modern": {
        ("cub200", "proxy-nca"): {"R@1": 72.2},
        ("cars196", "proxy-nca"): {"R@1": 90.1},
        ("sop", "proxy-nca"): {"R@1": 81.4},
        ("inshop", "proxy-nca"): {"R@1": 90.9},
    },
}
"""By protocol, what its source reports for a data set and loss, per cent. `proxies`: the proxies paper, tables 1 and 2
and FIG. 4. `modern`: ProxyNCA++ with ResNet-50, 2048-d (arXiv 2004.01113), its crops larger than 224 px for some."""


def proxies_recipe(loss: LossName, images: int, *, pretrained: bool = True, epochs: int = 20, seed: int = 0) -> Recipe:
    """The proxies paper's protocol: Inception with BN, 64-d, 256 -> 227 random crop and mirror, batch 32, RMSprop.

    Its "decay 0.94" is read as the learning rates' factor an epoch. Losses on data points get batches of 8 products x 4
    images, since random batches of 32 hold hardly any positives; losses with proxies get random ones. What the paper
    leaves open is ours: the learning rates and their warm-up, the clipped gradient, the number of epochs, early
    stopping, and that the kept weights are those of the best look at a validation split taken from the training
    products.

    Args:
        loss: any of `LOSSES`.
        images: labelled training images there are; an epoch is as many presentations.
        pretrained: start from ImageNet weights, as the paper does.
        epochs: how many.
        seed: of everything random.
    """
    share = 227 / 256
    steps_per_epoch = max(1, images // BATCH_SIZE)
    options: dict[str, LossOption] = {"softmax_scale": 1.0, "form": "paper"} if loss == "proxy-nca" else {}
    return Recipe(
        seed=seed,
        base_network_learns="all",
        data=DataConfig(
            views=10_000, augmentation=Augmentation(min_scale=share**2, max_scale=share**2, max_aspect=1.0, jitter=0.0)
        ),
        model=EmbedderConfig(
            base_network="inception_v2",
            pretrained=pretrained,
            hidden_sizes=(),
            size=64,
            image_size_px=227,
            fit="stretch",
            centre_share=share,
        ),
        specialists=SpecialistsConfig(
            loss=loss,
            loss_options=options,
            reseed_every_steps=_reseed(loss, images),
            loop=LabelLoopConfig(
                epochs=1,
                min_steps=epochs * steps_per_epoch,
                batch_size=BATCH_SIZE,
                images_per_product=1 if LOSSES[loss].proxies in ("own", "assigned") else 4,
                optimiser="rmsprop",
                decay=0.94,
                decay_every_steps=steps_per_epoch,
                learning_rate=1e-3,
                base_network_learning_rate=1e-4,
                proxy_learning_rate=1e-2,
                weight_decay=0.0,
            ),
        ),
    )


def modern_recipe(loss: LossName, images: int, *, pretrained: bool = True, epochs: int = 40, seed: int = 0) -> Recipe:
    """In the manner of ProxyNCA++: ResNet-50, global max pooling, 2048-d, scale 9, fast proxies, label smoothing 0.1.

    Its authors' code differs: a LayerNorm after the pooling, Adam with epsilon 1 and far larger rates, which only
    that epsilon allows, a plateau schedule, and no smoothing in some runs.

    Args:
        loss: any of `LOSSES`; label smoothing is for `proxy-nca`.
        images: labelled training images there are.
        pretrained: start from ImageNet weights.
        epochs: how many.
        seed: of everything random.
    """
    options: dict[str, LossOption] = {"softmax_scale": 9.0, "label_smoothing": 0.1} if loss == "proxy-nca" else {}
    return Recipe(
        seed=seed,
        base_network_learns="all",
        data=DataConfig(views=10_000, augmentation=Augmentation(min_scale=0.16, max_aspect=4 / 3)),
        model=EmbedderConfig(
            base_network="timm/resnet50.tv_in1k",
            pretrained=pretrained,
            pooling="max",
            hidden_sizes=(),
            size=2048,
            image_size_px=256,
            fit="crop",
            centre_share=256 / 288,
        ),
        specialists=SpecialistsConfig(
            loss=loss,
            loss_options=options,
            reseed_every_steps=_reseed(loss, images),
            loop=LabelLoopConfig(
                epochs=1,
                min_steps=epochs * max(1, images // BATCH_SIZE),
                batch_size=BATCH_SIZE,
                images_per_product=4,
                learning_rate=4e-3,
                base_network_learning_rate=4e-5,
                proxy_learning_rate=4e-1,
                weight_decay=0.0,
            ),
        ),
    )


def _reseed(loss: LossName, images: int) -> int:
    """Dynamic proxies are looked at once an epoch: embedding all images oftener would outweigh the training."""
    return max(1, images // BATCH_SIZE) if LOSSES[loss].proxies == "dynamic" else 20


PROTOCOLS: dict[str, Callable[..., Recipe]] = {"proxies": proxies_recipe, "modern": modern_recipe}
"""By name, what makes the recipe."""
