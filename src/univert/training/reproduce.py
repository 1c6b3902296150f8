"""Reproduce: one model trained on a public benchmark by a published protocol, and measured as the papers do."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from univert.core.config import config_to_toml, to_plain
from univert.core.errors import BadInputError
from univert.core.files import fingerprint, write_atomic
from univert.core.run import Run
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.readers import BENCHMARKS, open_dataset, with_validation
from univert.data.readers.inshop import QUERY
from univert.data.rows import CatalogueProblemsError
from univert.data.transforms import Augmentation
from univert.losses.names import LOSSES, LossName, LossOption
from univert.metrics.evaluate import Evaluation, evaluate_vectors
from univert.models.base_networks.inception_v2 import make_inception_v2
from univert.models.config import EmbedderConfig
from univert.training.label_config import LabelLoopConfig, SpecialistsConfig
from univert.training.recipe import DataConfig, Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import train_on_labels

_log = logging.getLogger(__name__)

VALIDATION_SHARE = 0.1
BATCH_SIZE = 32
RECALL_AT = {"cub200": (1, 2, 4, 8), "cars196": (1, 2, 4, 8), "sop": (1, 10, 100, 1000), "inshop": (1, 10, 20, 30)}
"""The K that papers report."""

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
    images, since random batches of 32 hold hardly any positives; losses with proxies get random ones, and their proxies
    start at random, as in its Algorithm 1. The learning rates, their warm-up, the clipped gradient, the epochs and the
    choice of the best step are ours. For the arguments see `reproduce`; `images` counts the labelled training images.
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
            proxy_start="random" if LOSSES[loss].proxies == "assigned" else "data",
            reseed_every_steps=steps_per_epoch if LOSSES[loss].proxies == "dynamic" else 20,
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
    that epsilon allows, a plateau schedule, and no smoothing in some runs. Arguments as for `proxies_recipe`.
    """
    steps_per_epoch = max(1, images // BATCH_SIZE)
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
            proxy_start="random" if LOSSES[loss].proxies == "assigned" else "data",
            reseed_every_steps=steps_per_epoch if LOSSES[loss].proxies == "dynamic" else 20,
            loop=LabelLoopConfig(
                epochs=1,
                min_steps=epochs * steps_per_epoch,
                batch_size=BATCH_SIZE,
                images_per_product=4,
                learning_rate=4e-3,
                base_network_learning_rate=4e-5,
                proxy_learning_rate=4e-1,
                weight_decay=0.0,
            ),
        ),
    )


PROTOCOLS: dict[str, Callable[..., Recipe]] = {"proxies": proxies_recipe, "modern": modern_recipe}
"""By name, what makes the recipe."""


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What a reproduction found.

    Attributes:
        path: the run folder; the model is in `model/`.
        evaluation: on the test split, all products in one gallery (In-shop: queries against the gallery).
        published: what the protocol's source reports for this data set and loss, per cent; empty where it does not.
    """

    path: Path
    evaluation: Evaluation
    published: dict[str, float]

    def figures(self) -> dict[str, float]:
        """What was measured, per cent, under the names of `published`."""
        assert self.evaluation.merged is not None
        merged = self.evaluation.merged
        found = {f"R@{k}": 100 * interval.value for k, interval in merged.recall_at.items()}
        if merged.nmi is not None:
            found["NMI"] = 100 * merged.nmi.value
        return found


def reproduce(
    dataset: str,
    root: Path,
    out: Path,
    *,
    loss: str = "proxy-nca",
    protocol: str = "proxies",
    pretrained: bool = True,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "auto",
    verify: bool = True,
) -> Reproduction:
    """Train on a benchmark's training products and measure on its test products.

    A tenth of the training products is set aside for validation and chooses which weights are kept; the test products
    are looked at once, at the end. Started again, it goes on where it was.

    Args:
        dataset: `cub200`, `cars196`, `sop` or `inshop`.
        root: the data set's folder, in its official layout.
        out: the run folder.
        loss: any of `univert.losses.names.LOSSES`.
        protocol: `proxies` (the proxies paper's: Inception with BN, 64-d) or `modern` (ResNet-50, 2048-d, ProxyNCA++).
        pretrained: start from ImageNet weights.
        epochs: passes over the training images; None takes the protocol's.
        seed: of everything random.
        device: a torch device, or `auto`.
        verify: refuse a data set whose counts are not the published ones, or with an image that cannot be used; else
            what cannot be used is left out, and listed in `catalogue.lance/rejected.csv`.

    Raises:
        BadInputError: a name that does not exist, or the data set or the weights are not there.
        TrainingError: the training failed; what was done is kept.
    """
    for name, value, known in (
        ("dataset", dataset, tuple(BENCHMARKS)),
        ("loss", loss, tuple(LOSSES)),
        ("protocol", protocol, tuple(PROTOCOLS)),
    ):
        if value not in known:
            raise BadInputError(f"{name} must be one of {', '.join(known)}; got {value!r}")
    if protocol == "proxies" and pretrained:
        make_inception_v2(pretrained=True, image_size_px=227)  # said now rather than after a long build
    run = Run(out)
    with run.locked():
        catalogue = _catalogue(run, dataset, root, verify=verify, seed=seed)
        train = (catalogue.column("split") == "train") & (catalogue.product_labels() >= 0)
        make, options = PROTOCOLS[protocol], {"epochs": epochs} if epochs else {}
        recipe = make(cast(LossName, loss), int(train.sum()), pretrained=pretrained, seed=seed, **options)
        write_atomic(run.path / "recipe.toml", config_to_toml(recipe))
        evaluation = _train_and_measure(run, catalogue, recipe, dataset, device)
        published = PUBLISHED[protocol].get((dataset, loss), {})
        result = Reproduction(path=run.path, evaluation=evaluation, published=published)
        content = {"dataset": dataset, "loss": loss, "protocol": protocol, "figures": result.figures()}
        content |= {"published": published, **to_plain(evaluation)}
        write_atomic(run.path / "evaluation.json", json.dumps(content, indent=1))
        return result


def _catalogue(run: Run, dataset: str, root: Path, *, verify: bool, seed: int) -> Catalogue:
    """The data set with its validation split; built anew where anything it was made from has changed."""
    path = run.path / "catalogue.lance"
    made_from = fingerprint(dataset, str(root.resolve()), verify, seed, VALIDATION_SHARE)
    if run.finished("catalogue", made_from) is None or not path.exists():
        rows = with_validation(open_dataset(dataset, root, verify=verify), VALIDATION_SHARE, seed=seed)
        total = BENCHMARKS[dataset][0].images
        try:
            report = build_catalogue(rows, path, link=True, skip_bad=not verify, overwrite=True, total=total)
        except CatalogueProblemsError as error:
            problems = str(error).rpartition("\n")[0] or str(error)
            raise BadInputError(
                f"{root}: {problems}\nUnpack the data set again, or pass --no-verify to leave them out."
            ) from None
        if report.rejected:
            _log.warning("left out %d images, see %s", report.rejected, report.rejected_csv)
        run.finish("catalogue", made_from, {})
    return Catalogue.open(path)


def _train_and_measure(run: Run, catalogue: Catalogue, recipe: Recipe, dataset: str, device: str) -> Evaluation:
    context = RunContext(run, catalogue, recipe, device=device)
    model = train_on_labels(context, recipe.specialists, name="model")
    test = np.flatnonzero(context.images.splits == "test")
    product, vertical, source = (catalogue.column(name)[test] for name in ("product", "vertical", "source"))
    vectors = context.features.source.embed_all(model.embedder, test)
    queries = source == QUERY if dataset == "inshop" else None
    ks = RECALL_AT[dataset]
    return evaluate_vectors(vectors, list(product), list(vertical), queries=queries, ks=ks, seed=recipe.seed)
