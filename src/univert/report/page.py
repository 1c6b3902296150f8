"""`report.html`: one self-contained page that shows what was trained, how good it is, and where it fails."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from jaxtyping import Float
from markupsafe import Markup

import univert
from univert.core.files import fingerprint, write_atomic
from univert.metrics.inputs import check_length, check_vectors
from univert.report.charts import differences_chart, models_chart, training_panels
from univert.report.map_data import map_section
from univert.report.number_format import change_interval, count, duration, interval, percent, points
from univert.report.retrieval_grids import Columns, retrieval_grids, worst_failures
from univert.report.tables import PairedTable, comparison_table, paired_tables, vertical_table
from univert.report.verdict import findings, headline, refused_by, words_against_specialists
from univert.training.combine.groups import Combination
from univert.training.evaluation import ComparedModel, RowComparison
from univert.training.stages import FinishedRun
from univert.training.targets.choice import Choice
from univert.training.targets.ensemble import Ensemble
from univert.training.targets.learning_targets import learning_targets

if TYPE_CHECKING:
    from univert.data.catalogue import Catalogue

_TEMPLATES = Path(__file__).parent / "templates"
_SECTIONS = ("summary", "comparison", "choice", "groups", "training", "map", "retrieval", "failures", "recipe")
_MEASURED_SECTIONS = ("comparison", "retrieval", "failures")
"""Those that show figures and queries of the test split."""


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What a run found, as the report shows it.

    Attributes:
        compared: the models that were measured, the last is the run's; empty where nothing could be measured.
        comparisons: the run's model against others, query by query.
        choice: how it was chosen.
        ensemble: the members of the learning targets that were tried.
        learned_from_ensemble: whether the run's model learned from them.
        distortion: what reducing the joined learning targets to one size costs.
        combination: which verticals were trained together.
        results: the content of `evaluation.json`, for catalogue, curves, recipe and provenance.
    """

    compared: tuple[ComparedModel, ...]
    comparisons: tuple[RowComparison, ...]
    choice: Choice
    ensemble: Ensemble
    learned_from_ensemble: bool
    distortion: Mapping[str, Any]
    combination: Combination
    results: Mapping[str, Any]


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
        ReportContent(
            compared=finished.compared,
            comparisons=finished.comparisons,
            choice=models.choice,
            ensemble=models.ensemble,
            learned_from_ensemble=learned_from == models.ensemble.members,
            distortion=finished.distortion,
            combination=models.combination,
            results=results,
        ),
        context.images.catalogue.select(split=test.split, vertical=context.images.vertical_names),
        {
            "Learning targets" if learned_from else "Embeddings of the specialists": targets,
            "Unified embeddings": vectors,
        },
        seed=context.recipe.seed,
    )
    context.run.finish("report", inputs, {})


def write_report(
    path: Path,
    content: ReportContent,
    catalogue: Catalogue,
    spaces: dict[str, Float[np.ndarray, "N D"]],
    *,
    seed: int = 0,
) -> None:
    """Write the report of a run as one HTML file that needs no network and nothing beside it.

    Pictures and points are sampled and capped, so the file stays a few megabytes whatever the catalogue's size;
    only the images that are shown are read.

    Args:
        path: the file to write.
        content: what the run found.
        catalogue: the evaluated selection.
        spaces: by title, unit vectors of its rows, for the maps; the last are those of the run's model, in which the
            retrieval examples search.
        seed: of everything sampled: queries, points of the map, t-SNE.

    Raises:
        BadInputError: vectors that do not match the catalogue.
        OSError: the disk is full or not writable.
    """
    for title, space in spaces.items():
        check_vectors(space, name=title)
        check_length(space, len(catalogue), name=title, of="the catalogue")
    columns = Columns.of(catalogue)
    vectors = list(spaces.values())[-1]
    labelled = [product for product in columns.product if product is not None]
    measured = _measured(content, catalogue, columns, vectors, seed) if content.compared else {}
    sections = [name for name in _SECTIONS if measured or name not in _MEASURED_SECTIONS]
    trials = content.combination.trials
    template = _environment().get_template("report.html.jinja")
    page = template.render(
        run=content,
        columns=columns,
        evaluated={
            "verticals": sorted(set(columns.vertical)),
            "images": len(catalogue),
            "products": len(set(labelled)),
            "unlabelled": len(catalogue) - len(labelled),
        },
        sections=sections,
        choice_steps=_choice_steps(content.choice),
        refused=[refused_by(group, trials) for group in content.combination.groups],
        trial_columns=[name for group in content.combination.groups for name in group],
        panels=training_panels(content.results["curves"]),
        map=map_section(catalogue, columns, spaces, seed=seed),
        provenance={
            **{name: content.results[name] for name in ("catalogue_fingerprint", "device", "seed", "finished")},
            **content.results["versions"],
            "evaluated_images": catalogue.fingerprint,
        },
        **{"headline": "A model that was not measured", **measured},
        **_style_and_script(),
    )
    write_atomic(path, page)


def _measured(
    content: ReportContent, catalogue: Catalogue, columns: Columns, vectors: Float[np.ndarray, "N D"], seed: int
) -> dict[str, Any]:
    """What the page shows of figures and of queries."""
    grids, left_out = retrieval_grids(catalogue, columns, vectors, seed=seed)
    figure_columns, comparison = comparison_table(content.compared)
    return {
        "best": content.compared[-1],
        "headline": headline(content.compared[-1]),
        "findings": findings(content.compared, content.comparisons),
        "models_chart": models_chart(content.compared),
        "figure_columns": figure_columns,
        "comparison": comparison,
        "verticals": vertical_table(content.compared),
        "comparisons": paired_tables(content.comparisons, content.compared),
        "grids": grids,
        "grids_left_out": left_out,
        "failures": worst_failures(catalogue, columns, vectors),
    }


def _environment() -> jinja2.Environment:
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
    environment.globals |= {"differences_chart": differences_chart, "against_specialists": words_against_specialists}
    return environment


def _style_and_script() -> dict[str, Any]:
    """The page's own style and script, and the digest by which only that script may run."""
    style, script = (
        "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in names)
        for names in (("page.css", "parts.css", "map.css"), ("page.js", "map.js"))
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    # Our own files, not user data: besides the charts the only text that enters the page unescaped.
    return {"style": Markup(style), "script": Markup(script), "script_digest": f"sha256-{digest}"}  # noqa: S704


def _choice_steps(choice: Choice) -> list[PairedTable]:
    titles = {one.key: one.title for one in choice.candidates}
    return [
        PairedTable(
            title=f"{titles[step.challenger]} against {titles[step.champion]}",
            names=(titles[step.champion], titles[step.challenger]),
            comparison=step.comparison,
        )
        for step in choice.steps
    ]
