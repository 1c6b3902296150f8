"""Calibration of identity: fitted on the val split of a catalogue, measured on its test split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from univert.core.errors import BadInputError
from univert.core.protocols import Images
from univert.core.terminal import progress_bar
from univert.identity.calibration_fit import Sample, fit, measure
from univert.identity.held_out_queries import KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE, Query, Questions, ask
from univert.identity.identify import ATTRIBUTES, AttributeCalibration, Calibration
from univert.models.runtime.engine import Engine
from univert.models.runtime.prepared import prepared_batches
from univert.search.store import VectorIndex

_LEAST_QUESTIONS: Final = 50


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """What is asked of a calibration.

    Attributes:
        neighbours: how many vote.
        precision: share of right answers among those called known, by attribute; 0.9 where none is given.
        new_product_share: of photos whose product is not in the index, among all that will be asked about.
        new_value_share: of photos whose vertical (brand, style) is not in the index.
        assurance: chance that the stated precision is reached on other images.
        max_queries: images of a split that ask; more are left out at random.
        seed: of that choice.

    Raises:
        BadInputError: a value is out of range, or an unknown attribute.
    """

    neighbours: int = 24
    precision: Mapping[str, float] = dataclasses.field(default_factory=dict)
    new_product_share: float = 0.2
    new_value_share: float = 0.1
    assurance: float = 0.8
    max_queries: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("neighbours", "max_queries"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for attribute, precision in self.precision.items():
            if attribute not in ATTRIBUTES:
                raise BadInputError(f"precision: no attribute {attribute!r}; there are {', '.join(ATTRIBUTES)}")
            if not 0 < precision < 1:
                raise BadInputError(f"precision of {attribute} must lie between 0 and 1, got {precision}; 0.9 is usual")
        shares = (self.new_product_share, self.new_value_share)
        if not (min(shares) >= 0 and sum(shares) < 1):
            raise BadInputError(
                f"new_product_share and new_value_share must be at least 0 and below 1 together, got {shares}"
            )
        if not 0.5 <= self.assurance < 1:
            raise BadInputError(f"assurance must lie in 0.5..1, got {self.assurance}; 0.8 is usual")

    def shares(self, attribute: str) -> dict[str, float]:
        """How much of what will be asked about an attribute is in each situation."""
        new_value = 0.0 if attribute == "product" else self.new_value_share
        return {
            KNOWN_PRODUCT: 1 - self.new_product_share - new_value,
            NEW_PRODUCT: self.new_product_share,
            NEW_VALUE: new_value,
        }


def calibrate(
    engine: Engine, index: VectorIndex, catalogue: Images, config: CalibrationConfig | None = None
) -> Calibration:
    """Fit how the neighbours' votes are read, and measure how well that does.

    Args:
        engine: as it will answer queries.
        index: as it will be searched; it may hold the queries' own images, which do not answer themselves.
        catalogue: holds labelled images in the splits `val` (fitted on) and `test` (measured on).
        config: what is asked.

    Raises:
        BadInputError: another model than the index's, no `val` split, or too few labelled images in it.
    """
    config = config or CalibrationConfig()
    index.check_model(engine.fingerprint)
    val = _questions(engine, index, catalogue, "val", config)
    if val is None:
        raise BadInputError(
            "the catalogue has no images in the split val, which the thresholds are fitted on; "
            "give the catalogue that the model was trained with"
        )
    test = _questions(engine, index, catalogue, "test", config)
    attributes: dict[str, AttributeCalibration] = {}
    report: dict[str, Any] = {}
    for name in ATTRIBUTES:
        shares = config.shares(name)
        sample = Sample.of(val[name], shares)
        if len(sample) < _LEAST_QUESTIONS or len(np.unique(sample.truth)) < 2:
            continue
        attributes[name] = fit(sample, precision=config.precision.get(name, 0.9), assurance=config.assurance)
        report[name] = {"val": measure(sample, attributes[name])}
        if test is not None and len(held_out := Sample.of(test[name], shares)):
            report[name]["test"] = measure(held_out, attributes[name])
    if not attributes:
        raise BadInputError(
            f"nothing can be calibrated: no attribute has {_LEAST_QUESTIONS} labelled val images of two values"
        )
    return Calibration(
        model_fingerprint=engine.fingerprint,
        engine=engine.name,
        neighbours=config.neighbours,
        attributes=attributes,
        report={"images": len(index), "config": dataclasses.asdict(config), "attributes": report},
    )


def _questions(
    engine: Engine, index: VectorIndex, catalogue: Images, split: str, config: CalibrationConfig
) -> dict[str, dict[str, Questions]] | None:
    rows = np.flatnonzero(catalogue.column("split") == split)
    if not len(rows):
        return None
    rng = np.random.default_rng(config.seed)
    rows = np.sort(rng.permutation(rows)[: config.max_queries])
    columns = {name: catalogue.column(name)[rows] for name in ("id", *ATTRIBUTES)}
    queries = [
        Query(id=str(columns["id"][i]), labels={name: columns[name][i] for name in ATTRIBUTES})
        for i in range(len(rows))
    ]
    with progress_bar(f"asking about {split}", 2 * len(rows)) as advance:
        vectors = []
        for pixels in prepared_batches(engine, catalogue, positions=rows.tolist()):
            vectors.append(engine.run(pixels))
            advance(len(pixels))
        return ask(
            index,
            queries,
            np.concatenate(vectors),
            neighbours=config.neighbours,
            model_fingerprint=engine.fingerprint,
            advance=advance,
        )
