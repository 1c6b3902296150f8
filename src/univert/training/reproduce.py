"""Reproduce: one model trained on a public benchmark by a published protocol, and measured as the papers do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from univert.core.config import config_to_toml, to_plain
from univert.core.errors import BadInputError
from univert.core.files import fingerprint, write_atomic
from univert.core.run import Run
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.readers import BENCHMARKS, open_dataset, with_validation
from univert.data.readers.inshop import GALLERY, QUERY
from univert.losses.names import LOSSES, LossName
from univert.metrics.evaluate import Evaluation, evaluate_query_gallery, evaluate_vectors
from univert.models.base_networks.inception_v2 import make_inception_v2
from univert.training.protocols import PROTOCOLS, PUBLISHED
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import train_on_labels

VALIDATION_SHARE = 0.1
RECALL_AT = {"cub200": (1, 2, 4, 8), "cars196": (1, 2, 4, 8), "sop": (1, 10, 100, 1000), "inshop": (1, 10, 20, 30)}
"""The K that papers report."""


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
        verify: refuse a data set whose counts are not the published ones.

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
        return _result(out, dataset, loss, protocol, evaluation)


def _result(out: Path, dataset: str, loss: str, protocol: str, evaluation: Evaluation) -> Reproduction:
    """The figures beside the published ones, also written to `evaluation.json`."""
    published = PUBLISHED[protocol].get((dataset, loss), {})
    result = Reproduction(path=out, evaluation=evaluation, published=published)
    content = {"dataset": dataset, "loss": loss, "protocol": protocol, "figures": result.figures()}
    content |= {"published": published, **to_plain(evaluation)}
    write_atomic(out / "evaluation.json", json.dumps(content, indent=1))
    return result


def _catalogue(run: Run, dataset: str, root: Path, *, verify: bool, seed: int) -> Catalogue:
    """The data set with its validation split; built anew where anything it was made from has changed."""
    path = run.path / "catalogue.lance"
    made_from = fingerprint(dataset, str(root.resolve()), verify, seed, VALIDATION_SHARE)
    if run.finished("catalogue", made_from) is None or not path.exists():
        rows = with_validation(open_dataset(dataset, root, verify=verify), VALIDATION_SHARE, seed=seed)
        build_catalogue(rows, path, link=True, overwrite=True, total=BENCHMARKS[dataset][0].images)
        run.finish("catalogue", made_from, {})
    return Catalogue.open(path)


def _train_and_measure(run: Run, catalogue: Catalogue, recipe: Recipe, dataset: str, device: str) -> Evaluation:
    context = RunContext(run, catalogue, recipe, device=device)
    model = train_on_labels(context, recipe.specialists, name="model")
    columns = {name: catalogue.column(name) for name in ("product", "vertical", "source")}

    def rows(where: Any) -> tuple[Any, list[str], list[str]]:
        positions = np.flatnonzero(where & (context.images.splits == "test"))
        vectors = context.features.source.embed_all(model.embedder, positions)
        return vectors, list(columns["product"][positions]), list(columns["vertical"][positions])

    seed = recipe.seed
    ks = RECALL_AT[dataset]
    if dataset == "inshop":
        sources = columns["source"]
        return evaluate_query_gallery(*rows(sources == QUERY), *rows(sources == GALLERY), ks=ks, seed=seed)
    return evaluate_vectors(*rows(np.ones(len(catalogue), bool)), ks=ks, seed=seed)
