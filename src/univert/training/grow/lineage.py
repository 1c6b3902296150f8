"""The lineage of a run: the models it deployed one after the other, and whose vectors an index holds.

Neither PyTorch nor weights are loaded here: `univert serve RUN` asks for the deployed model on its way.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from univert.core.config import from_plain, to_plain
from univert.core.errors import BadInputError
from univert.core.files import write_atomic
from univert.models.runtime.engine import saved_fingerprint

GROWTHS_FILE = "growth.json"


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One published growth.

    Attributes:
        number: from 1.
        vertical: what was added.
        folder: of the growth, within the run.
        model_fingerprint: of the grown model.
        vectors_of: by old vertical, fingerprint of the model whose vectors the grown model was held to.
        forced: published in spite of a loss.
    """

    number: int
    vertical: str
    folder: str
    model_fingerprint: str
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
        original = saved_fingerprint(run_path / "unified")
        if original is None:
            raise BadInputError(f"{run_path}/unified/config.json is not that of a model; copy the whole folder again")
        path = run_path / GROWTHS_FILE
        if not path.exists():
            groups = _read_json(run_path / "groups.json")["groups"]
            verticals = tuple(sorted(name for group in groups for name in group))
            return cls(run_path=run_path, original_fingerprint=original, original_verticals=verticals)
        stored = from_plain(cls, {**_read_json(path), "run_path": run_path}, where=str(path))
        if stored.original_fingerprint != original:
            raise BadInputError(
                f"{run_path} was trained anew since it grew: its model is not the one that {GROWTHS_FILE} names; "
                f"train into another folder, or remove {GROWTHS_FILE} and grow again"
            )
        return stored

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

        `indexed_by` is the former; None stands for the original one.

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
        """How many growths there were before a model was deployed: 0 for the original one, which None stands for.

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

        A vertical's vectors are made by the model that was deployed when it came in, or by the one that made the index
        (`indexed_by`; None: the original one) if that is later. Every later model is held to those very vectors, not to
        those of the model before it: so losses do not add up.

        Raises:
            BadInputError: a model that is not of the lineage.
        """
        models, first = list(self.models), self.number_of(indexed_by)
        by_number = dict.fromkeys(self.original_verticals, 0)
        by_number |= {growth.vertical: growth.number for growth in self.growths}
        return {vertical: models[max(first, number)] for vertical, number in by_number.items()}

    def growth_of(self, vertical: str) -> Growth | None:
        """The published growth that added a vertical; None if none did."""
        return next((growth for growth in self.growths if growth.vertical == vertical), None)

    def publish(self, growth: Growth) -> Lineage:
        """Make a growth's model the deployed one, in one atomic write."""
        grown = dataclasses.replace(self, growths=(*self.growths, growth))
        content = to_plain(grown)
        del content["run_path"]
        write_atomic(self.run_path / GROWTHS_FILE, json.dumps(content, indent=1))
        return grown


def deployed_model(run_path: Path | str) -> Path:
    """The folder of a run's deployed model: the last published growth's, else the unified model's.

    Raises:
        BadInputError: there is no finished run, or it was trained anew since it grew.
    """
    lineage = Lineage.read(Path(run_path))
    return lineage.models[lineage.deployed]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read: {error}; restore it from a copy of the run") from None
