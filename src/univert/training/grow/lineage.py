"""The lineage of a run: the models it deployed one after the other, and whose vectors an index holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from univert.core.errors import BadInputError
from univert.core.files import write_atomic
from univert.models.embedder import Embedder

GROWTHS_FILE = "growth.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One published growth.

    Attributes:
        number: from 1.
        vertical: what was added.
        folder: of the growth, within the run.
        model_fingerprint: of the grown model.
        grown_from: fingerprint of the model that was deployed before.
        vectors_of: by old vertical, fingerprint of the model whose vectors the grown model was held to.
        forced: published in spite of a loss.
    """

    number: int
    vertical: str
    folder: str
    model_fingerprint: str
    grown_from: str
    vectors_of: dict[str, str]
    forced: bool

    @property
    def model_folder(self) -> str:
        """The grown model's folder within the run."""
        return f"{self.folder}/unified"


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """A run's original model and its published growths.

    Attributes:
        run_path: the run folder.
        original_fingerprint: of the model that the run trained.
        original_verticals: which it was trained on.
        growths: in order.
    """

    run_path: Path
    original_fingerprint: str
    original_verticals: tuple[str, ...]
    growths: tuple[Growth, ...] = ()

    @classmethod
    def read(cls, run_path: Path) -> Lineage:
        """The lineage of a finished run.

        Raises:
            BadInputError: there is no finished run at `run_path`, or it was trained anew since it grew.
        """
        if not (run_path / "unified" / "config.json").exists() or not (run_path / "groups.json").exists():
            raise BadInputError(
                f"{run_path} is not a finished run: it has no unified model; make one with: univert train CAT --out RUN"
            )
        original = Embedder.from_pretrained(run_path / "unified").fingerprint
        stored = _read(run_path)
        if stored is None:
            verticals = _verticals(json.loads((run_path / "groups.json").read_text()))
            return cls(run_path=run_path, original_fingerprint=original, original_verticals=verticals)
        if stored["original"]["model_fingerprint"] != original:
            raise BadInputError(
                f"{run_path} was trained anew since it grew: its model is not the one that {GROWTHS_FILE} names; "
                f"train into another folder, or remove {GROWTHS_FILE} and grow again"
            )
        return cls(
            run_path=run_path,
            original_fingerprint=original,
            original_verticals=tuple(stored["original"]["verticals"]),
            growths=tuple(Growth(**growth) for growth in stored["growths"]),
        )

    @property
    def verticals(self) -> tuple[str, ...]:
        """Those of the deployed model: the original ones, then those added, in order."""
        return (*self.original_verticals, *(growth.vertical for growth in self.growths))

    @property
    def models(self) -> dict[str, Path]:
        """The folder of every model that was deployed, by fingerprint, the oldest first."""
        grown = {growth.model_fingerprint: self.run_path / growth.model_folder for growth in self.growths}
        return {self.original_fingerprint: self.run_path / "unified", **grown}

    @property
    def deployed(self) -> str:
        """Fingerprint of the model that is deployed now."""
        return list(self.models)[-1]

    def models_since(self, indexed_by: str | None = None) -> list[str]:
        """Fingerprints of the models whose queries an index answers: that which made it, and later ones held to it.

        A later model is left out if it was held to other vectors than those of the index: those of an index made by
        another model of the lineage.

        Args:
            indexed_by: the model that made the index; None for the original one.

        Raises:
            BadInputError: a model that is not of the lineage.
        """
        models, first = list(self.models), self.number_of(indexed_by)
        stored = self.vectors_of(indexed_by)
        later = [
            growth.model_fingerprint
            for growth in self.growths[first:]
            if all(stored[vertical] == model for vertical, model in growth.vectors_of.items())
        ]
        return [models[first], *later]

    def number_of(self, model: str | None) -> int:
        """The place of a model among those that were deployed, the original one's is 0; None stands for that.

        Raises:
            BadInputError: a model that is not of the lineage.
        """
        models = list(self.models)
        if model is None:
            return 0
        if model not in models:
            raise BadInputError(
                f"the index was made with model {model}, which is none of {self.run_path}: "
                f"{', '.join(models)}; name the index that serves this run, or make one with the deployed model"
            )
        return models.index(model)

    def vectors_of(self, indexed_by: str | None = None) -> dict[str, str]:
        """By vertical, the fingerprint of the model whose vectors an index holds.

        A vertical's vectors are made by the model that was deployed when it came in, and every later model is held
        to those very vectors, not to those of the model before it: so losses do not add up.

        Args:
            indexed_by: the model that made the index, which gave all verticals of its time their vectors; None for
                the original one.

        Raises:
            BadInputError: a model that is not of the lineage.
        """
        models, first = list(self.models), self.number_of(indexed_by)
        by_number = dict.fromkeys(self.original_verticals, 0)
        by_number |= {growth.vertical: number for number, growth in enumerate(self.growths, start=1)}
        return {vertical: models[max(first, number)] for vertical, number in by_number.items()}

    def growth_of(self, vertical: str) -> Growth | None:
        """The published growth that added a vertical; None if none did."""
        return next((growth for growth in self.growths if growth.vertical == vertical), None)

    def publish(self, growth: Growth) -> Lineage:
        """Make a growth's model the deployed one, in one atomic write."""
        grown = Lineage(
            run_path=self.run_path,
            original_fingerprint=self.original_fingerprint,
            original_verticals=self.original_verticals,
            growths=(*self.growths, growth),
        )
        content: dict[str, Any] = {
            "format": FORMAT,
            "original": {"model_fingerprint": self.original_fingerprint, "verticals": list(self.original_verticals)},
            "growths": [asdict(each) for each in grown.growths],
        }
        write_atomic(self.run_path / GROWTHS_FILE, json.dumps(content, indent=1))
        return grown


def deployed_model(run_path: Path | str) -> Path:
    """The folder of a run's deployed model: the last published growth's, else the unified model's.

    Args:
        run_path: the run folder.

    Raises:
        BadInputError: there is no finished run, or it was trained anew since it grew.
    """
    lineage = Lineage.read(Path(run_path))
    return lineage.models[lineage.deployed]


def _read(run_path: Path) -> dict[str, Any] | None:
    path = run_path / GROWTHS_FILE
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BadInputError(f"{path} cannot be read: {error}; restore it from a copy of the run") from None
    if stored.get("format") != FORMAT:
        raise BadInputError(
            f"{path}: unknown format {stored.get('format')!r}, this version reads {FORMAT}; upgrade univert"
        )
    return stored


def _verticals(groups: Any) -> tuple[str, ...]:
    """The verticals of `groups.json`, in either of its forms."""
    listed = groups["groups"] if isinstance(groups, dict) else groups
    return tuple(sorted(name for group in listed for name in group))
