"""The two maps of a report as one picture for a paper (Unified FIG. 3), with the numbers of separation below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from univert.core.errors import BadInputError
from univert.metrics.inputs import check_length, check_vectors
from univert.metrics.separation import Separation, separation
from univert.report.map_data import A_VERTICAL, POINTS
from univert.report.map_layout import layouts_of, sample_for_map

_COLOURS = (*("#466be7", "#d2536a", "#5a7206", "#9c4182", "#a19b05"), *("#00a3d5", "#2a32bc", "#7d0005", "#5d2467"))
"""Those of the report's light page: apart under every kind of colour-blindness."""

_MARKS = ("o", "s", "^", "D")
_FORMATS = (".svg", ".png", ".pdf")


def save_map_figure(
    path: Path | str,
    vectors: Float[np.ndarray, "N D"],
    verticals: Sequence[str],
    *,
    targets: Float[np.ndarray, "N E"] | None = None,
    products: Sequence[str | None] | None = None,
    total: int = POINTS,
    seed: int = 0,
) -> list[Separation]:
    """Draw the learning targets and the unified embeddings of the same images side by side.

    The same arguments give the same picture.

    Args:
        path: the file to write: `.svg`, `.png` or `.pdf`. A folder that is missing is made.
        vectors: (N, D) unit vectors by the unified model.
        verticals: N names.
        targets: (N, E) learning targets of the same images; None draws the embeddings alone.
        products: N names, None for an unlabelled image; where given, products are drawn whole or not at all.
        total: the most images to draw; the numbers are over those drawn, too.
        seed: of the sample and t-SNE.

    Returns:
        the numbers of separation, of the targets first where there are any.

    Raises:
        BadInputError: arguments that do not fit, or another file format.
    """
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise BadInputError(f"path must end in {', '.join(_FORMATS)}, got {path.name!r}; choose one of them")
    spaces = {"Unified embeddings": check_vectors(vectors)}
    check_length(verticals, len(vectors), name="verticals", of="vectors")
    if targets is not None:
        check_length(targets, len(vectors), name="targets", of="vectors")
        spaces = {"Learning targets": check_vectors(targets, name="targets"), **spaces}
    names = products if products is not None else [None] * len(vectors)
    rows = sample_for_map(verticals, names, per_vertical=A_VERTICAL, total=total, seed=seed)
    drawn = [verticals[row] for row in rows]
    layouts = layouts_of([np.asarray(space[rows], dtype=np.float32) for space in spaces.values()], seed=seed)
    numbers = [separation(space[rows], drawn) for space in spaces.values()]
    _draw(path, dict(zip(spaces, layouts, strict=True)), numbers, np.asarray(drawn))
    return numbers


def _draw(
    path: Path, layouts: dict[str, Float[np.ndarray, "N 2"]], numbers: Sequence[Separation], verticals: np.ndarray
) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = sorted(set(verticals.tolist()))
    size = 0.5 + 7 / (1 + len(verticals) / 1000)
    # A salt of its own keeps the identifiers of an SVG the same from one writing to the next.
    with rc_context({"svg.hashsalt": "univert", "font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=(5.2 * len(layouts), 6.1), layout="constrained")
        panels = figure.subplots(1, len(layouts), squeeze=False)[0]
        for letter, axes, (title, points), found in zip("ab", panels, layouts.items(), numbers, strict=False):
            for place, name in enumerate(names):
                axes.scatter(
                    *points[verticals == name].T,
                    s=size,
                    color=_COLOURS[place % len(_COLOURS)],
                    marker=_MARKS[place % len(_MARKS)],
                    linewidths=0,
                    rasterized=True,
                    label=f"\N{ZERO WIDTH SPACE}{name}",  # or matplotlib leaves names out that begin with _
                )
            axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal", xticks=[], yticks=[])
            axes.set_title(f"({letter}) {title}" if len(layouts) > 1 else title, loc="left", fontsize=11)
            axes.set_xlabel(_caption(found), loc="left", color="#5c6068")
            for side in axes.spines.values():
                side.set_color("#e4e1d9")
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside lower left",
            ncols=min(len(names), 5 * len(layouts)),
            frameon=False,
            markerscale=(28 / size) ** 0.5,
            handletextpad=0.1,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        # No date and no version: the same picture is the same file.
        bare = {".svg": {"Date": None, "Creator": None}, ".png": {"Software": None}}
        figure.savefig(path, dpi=150, metadata=bare.get(path.suffix, {"CreationDate": None}))


def _caption(found: Separation) -> str:
    if found.purity is None or len(found.verticals) < 2:
        return ""
    return f"nearest other image of the same vertical: {100 * found.purity:.1f}%"
