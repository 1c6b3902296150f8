"""From a finished run to its report."""

from __future__ import annotations

import univert
from univert.core.files import fingerprint
from univert.report.page import write_report
from univert.training.stages import FinishedRun
from univert.training.targets.learning_targets import learning_targets


def report_run(finished: FinishedRun) -> None:
    """Write `report.html` of a run, unless it is there and nothing has changed."""
    context, models, test, results = finished.context, finished.models, finished.test, finished.results
    path = context.run.path / "report.html"
    inputs = fingerprint(univert.__version__, {key: value for key, value in results.items() if key != "finished"})
    if path.exists() and context.run.finished("report", inputs) is not None:
        return
    learned_from = models.choice.chosen.members
    targets = learning_targets(context, learned_from or [models.own], context.recipe.unify)
    write_report(
        path,
        results,
        context.images.catalogue.select(split="test", vertical=context.images.vertical_names),
        test.vectors(finished.rows[-1]),
        targets=targets.clean(test.positions),
        targets_title="Learning targets" if learned_from else "Embeddings of the specialists",
        seed=context.recipe.seed,
    )
    context.run.finish("report", inputs, {})
