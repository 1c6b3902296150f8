"""From a finished run to its report."""

from __future__ import annotations

from dataclasses import replace

import univert
from univert.core.files import fingerprint
from univert.report.page import write_report
from univert.training.pipeline import FinishedRun
from univert.training.targets.learning_targets import learning_targets


def report_run(finished: FinishedRun) -> None:
    """Write `report.html` of a run, unless it is there and nothing has changed."""
    workshop, models, test, results = finished.workshop, finished.models, finished.test, finished.results
    path = workshop.run.path / "report.html"
    inputs = fingerprint(univert.__version__, {key: value for key, value in results.items() if key != "finished"})
    if path.exists() and workshop.run.finished("report", inputs) is not None:
        return
    unify, learned_from = workshop.recipe.unify, models.choice.chosen.members
    targets = learning_targets(
        workshop,
        learned_from or [models.own],
        unify.targets if learned_from else replace(unify.targets, offset=0.0),
        unlabelled=unify.unlabelled,
    )
    write_report(
        path,
        results,
        workshop.catalogue.select(split="test", vertical=workshop.vertical_names),
        test.vectors(finished.rows[-1]),
        targets=targets.clean(test.positions),
        targets_title="Learning targets" if learned_from else "Embeddings of the specialists",
        seed=workshop.recipe.seed,
    )
    workshop.run.finish("report", inputs, {})
