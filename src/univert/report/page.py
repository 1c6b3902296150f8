"""`report.html`: one self-contained page that shows what was trained, how good it is, and where it fails."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup

import univert
from univert.core.errors import BadInputError
from univert.core.files import write_atomic
from univert.report import number_format as words
from univert.report.charts import training_panels
from univert.report.choice import read_choice, read_ensemble
from univert.report.differences import read_comparisons
from univert.report.groups import read_combination
from univert.report.map_data import TARGETS, map_section
from univert.report.retrieval_grids import Columns, failures, retrieval_groups
from univert.report.summary import ladder, stats, vertical_plot
from univert.report.tables import Row, comparison_table, read_rows, vertical_table
from univert.report.verdict import verdict

if TYPE_CHECKING:
    from univert.data.catalogue import Catalogue

_TEMPLATES = Path(__file__).parent / "templates"

_SHOWN_ELSEWHERE = {
    *("format", "split", "catalogue", "rows", "best_key", "recipe_toml", "curves"),
    *("combination", "choice", "ensemble", "comparisons"),
}
"""Keys of the results with a place of their own on the page; all others are listed as provenance."""


def write_report(
    path: Path,
    results: Mapping[str, Any],
    catalogue: Catalogue,
    vectors: npt.NDArray[np.float32],
    *,
    targets: npt.NDArray[np.float32] | None = None,
    targets_title: str = TARGETS,
    seed: int = 0,
) -> None:
    """Write the report of a run as one HTML file that needs no network and nothing beside it.

    Pictures and points are sampled and capped, so the file stays a few megabytes whatever the catalogue's size;
    only the images that are shown are read.

    Args:
        path: the file to write.
        results: the content of `evaluation.json`. Whatever it holds besides figures, curves and recipe
            (fingerprints, versions, seed, device, times) is listed as provenance.
        catalogue: the evaluated selection.
        vectors: (N, D) unit vectors of the best model, one for each row of `catalogue`.
        targets: (N, D2) learning targets of the same rows, by the specialists of the images' true verticals, alone or
            with whatever joins them. They are drawn beside the model's embeddings (Unified FIG. 3); None leaves
            them out.
        targets_title: what they are called.
        seed: of everything sampled: queries, points of the map, t-SNE.

    Raises:
        BadInputError: `results` is not the content of an `evaluation.json`, or `vectors` or `targets` do not match.
        OSError: the disk is full or not writable.
    """
    vectors = _checked(vectors, len(catalogue), name="vectors")
    targets = None if targets is None else _checked(targets, len(catalogue), name="targets")
    rows = read_rows(results)
    best = _best_row(rows, results.get("best_key"))
    comparisons = read_comparisons(results, rows)
    columns = Columns.of(catalogue)
    render_to(
        path,
        {
            "split": results.get("split"),
            "facts": catalogue_facts(results.get("catalogue") or {}, columns),
            "best": best,
            "verdict": verdict(rows, best, comparisons),
            "stats": stats(rows, best),
            "ladder": ladder(rows, best),
            "comparison": comparison_table(rows),
            "verticals": vertical_table(rows),
            "vertical_plot": vertical_plot(rows, best),
            "rows": rows,
            "comparisons": comparisons,
            "choice": read_choice(results),
            "ensemble": read_ensemble(results),
            "combination": read_combination(results),
            "panels": training_panels(results.get("curves") or {}),
            "map": map_section(catalogue, columns, vectors, targets=targets, targets_title=targets_title, seed=seed),
            "groups": retrieval_groups(catalogue, columns, vectors, seed=seed),
            "failures": failures(catalogue, columns, vectors, seed=seed),
            "recipe": results.get("recipe_toml") or "",
            "provenance": [
                *_flat({key: value for key, value in results.items() if key not in _SHOWN_ELSEWHERE}),
                ("evaluated images", catalogue.fingerprint),
                ("report seed", str(seed)),
                ("Univert", univert.__version__),
            ],
        },
    )


def render_to(path: Path, context: Mapping[str, Any]) -> None:
    """Fill the page's templates and write the file; only the page's own script may run in it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": words.percent,
        "points": words.points,
        "count": words.count,
        "duration": words.duration,
        "toml_lines": toml_lines,
    }
    script = _joined("page.js", "map.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page = environment.get_template("report.html.jinja").render(
        # Our own files, not user data: the only text that enters the page unescaped.
        style=Markup(_joined("page.css", "parts.css", "map.css", "decisions.css")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_digest=f"sha256-{digest}",
        **context,
    )
    write_atomic(path, page)


def _joined(*names: str) -> str:
    return "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in names)


def toml_lines(text: str) -> list[tuple[str, str]]:
    """Lines of a TOML text with their kind: `section`, `comment`, `plain`."""
    kinds = {"[": "section", "#": "comment"}
    return [(kinds.get(line.lstrip()[:1], "plain"), line) for line in text.strip().splitlines()]


def catalogue_facts(info: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """Size of the whole catalogue as its info tells it, and of the evaluated selection as it is."""
    labelled = [product for product in columns.product if product is not None]
    return {
        "images": info.get("images"),
        "products": info.get("products"),
        "unlabelled": info.get("unlabelled"),
        "verticals": sorted(set(columns.vertical)),
        "evaluated_images": len(columns.vertical),
        "evaluated_products": len(set(labelled)),
        "evaluated_unlabelled": len(columns.product) - len(labelled),
    }


def _checked(vectors: npt.NDArray[np.float32], rows: int, *, name: str) -> npt.NDArray[np.float32]:
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != rows or not np.isfinite(vectors).all():
        raise BadInputError(
            f"{name} must be finite, (N, D), one for each of the catalogue's {rows} rows,"
            f" got shape {vectors.shape}; embed the same selection"
        )
    return vectors


def _best_row(rows: Sequence[Row], key: str | None) -> Row | None:
    """The row that the report is about: the one named, else the last, if possible not told the vertical."""
    named = [row for row in rows if row.key == key]
    candidates = named or [row for row in rows if not row.routed] or list(rows)
    return candidates[-1] if candidates else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        title = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            found.extend(_flat(value, prefix=f"{title} \N{MIDDLE DOT} "))
        elif isinstance(value, (list, tuple)):
            found.append((title, ", ".join(str(item) for item in value)))
        elif value is not None:
            found.append((title, str(value)))
    return found
