"""`report.html`: one self-contained page that shows what was trained, how good it is, and where it fails."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from jaxtyping import Float
from markupsafe import Markup

import univert
from univert.core.files import fingerprint, write_atomic
from univert.report.charts import differences_chart, models_chart, training_panels
from univert.report.map_data import map_section
from univert.report.number_format import change_interval, count, duration, interval, percent, points
from univert.report.retrieval_grids import Columns, retrieval_grids, worst_failures
from univert.report.tables import comparison_table, gallery_lines, vertical_table
from univert.report.verdict import against_specialists, findings, headline, refused_by
from univert.training.stages import FinishedRun
from univert.training.targets.learning_targets import learning_targets

if TYPE_CHECKING:
    from univert.data.catalogue import Catalogue

_TEMPLATES = Path(__file__).parent / "templates"
_SECTIONS = ("summary", "comparison", "choice", "groups", "training", "map", "retrieval", "failures", "recipe")
_MEASURED_SECTIONS = ("comparison", "retrieval", "failures")
"""Those that show figures and queries of the test split."""


def report_run(finished: FinishedRun) -> None:
    """Write `report.html` of a run, unless it is there and nothing has changed."""
    context, models, test, results = finished.context, finished.models, finished.test, finished.results
    path = context.run.path / "report.html"
    inputs = fingerprint(univert.__version__, {key: value for key, value in results.items() if key != "finished"})
    if path.exists() and context.run.finished("report", inputs) is not None:
        return
    learned_from = models.choice.chosen.members
    members = learned_from or [models.own]
    targets = learning_targets(context, members, context.recipe.unify).clean(test.positions)
    vectors = context.features.source.embed_all(models.unified.embedder, test.positions)
    write_report(
        path,
        finished,
        context.images.catalogue.select(split=test.split, vertical=sorted(set(test.verticals))),
        {
            "Learning targets" if learned_from else "Embeddings of the specialists": targets,
            "Unified embeddings": vectors,
        },
        seed=context.recipe.seed,
    )
    context.run.finish("report", inputs, {})


def write_report(
    path: Path,
    finished: FinishedRun,
    catalogue: Catalogue,
    spaces: dict[str, Float[np.ndarray, "N D"]],
    *,
    seed: int = 0,
) -> None:
    """Write the report of a run as one HTML file that needs no network and nothing beside it.

    Pictures and points are sampled and capped, so the file stays a few megabytes whatever the catalogue's size;
    only the images that are shown are read.

    `spaces` has, by title, unit vectors of the catalogue's rows, for the maps; the last are by the run's model, and the
    retrieval examples search in them. The seed is of all that is sampled: queries, points of the map, t-SNE.

    Raises:
        OSError: the disk is full or not writable.
    """
    columns = Columns.of(catalogue)
    vectors = list(spaces.values())[-1]
    labelled = [product for product in columns.product if product is not None]
    measured = _measured(finished, catalogue, columns, vectors, seed) if finished.compared else {}
    sections = [name for name in _SECTIONS if measured or name not in _MEASURED_SECTIONS]
    results, models = finished.results, finished.models
    combination = models.combination
    template = page_environment().get_template("report.html.jinja")
    page = template.render(
        run=finished,
        choice=models.choice,
        ensemble=models.ensemble,
        combination=combination,
        columns=columns,
        evaluated={
            "verticals": sorted(set(columns.vertical)),
            "images": len(catalogue),
            "products": len(set(labelled)),
            "unlabelled": len(catalogue) - len(labelled),
        },
        sections=sections,
        titles={one.key: one.title for one in models.choice.candidates},
        refused=[refused_by(group, combination.trials) for group in combination.groups],
        trial_columns=[name for group in combination.groups for name in group],
        panels=training_panels(results["curves"]),
        map=map_section(catalogue, columns, spaces, seed=seed),
        provenance={
            **{name: results[name] for name in ("catalogue_fingerprint", "device", "seed", "finished")},
            **results["versions"],
            "evaluated_images": catalogue.fingerprint,
        },
        **{"headline": "A model that was not measured", **measured},
        **_style_and_script(),
    )
    write_atomic(path, page)


def _measured(
    finished: FinishedRun, catalogue: Catalogue, columns: Columns, vectors: Float[np.ndarray, "N D"], seed: int
) -> dict[str, Any]:
    """What the page shows of figures and of queries."""
    grids, left_out = retrieval_grids(catalogue, columns, vectors, seed=seed)
    figure_columns, comparison = comparison_table(finished.compared)
    return {
        "best": finished.compared[-1],
        "headline": headline(finished.compared[-1]),
        "findings": findings(finished.compared, finished.comparisons),
        "models_chart": models_chart(finished.compared),
        "figure_columns": figure_columns,
        "comparison": comparison,
        "verticals": vertical_table(finished.compared),
        "rows": {one.row.key: one.row for one in finished.compared},
        "comparisons": finished.comparisons,
        "grids": grids,
        "grids_left_out": left_out,
        "failures": worst_failures(catalogue, columns, vectors),
    }


def page_environment() -> jinja2.Environment:
    """The page's templates, with what they call by name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (percent, points, interval, change_interval, count, duration)
    environment.filters |= {word.__name__: word for word in words}
    environment.globals |= {
        "differences_chart": differences_chart,
        "gallery_lines": gallery_lines,
        "against_specialists": against_specialists,
    }
    return environment


def page_style(*more: str) -> Markup:
    """The style of a report's page, and of further files."""
    return _own_text("page.css", "parts.css", *more)


def _style_and_script() -> dict[str, Any]:
    """The page's own style and script, and the digest by which only that script may run."""
    script = _own_text("page.js", "map.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return {"style": page_style("map.css"), "script": script, "script_digest": f"sha256-{digest}"}


def _own_text(*names: str) -> Markup:
    """Our own files, not user data: besides the charts the only text that enters the page unescaped."""
    return Markup("".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in names))  # noqa: S704
