"""The command that calibrates what a service says a photo shows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from univert.cli.options import Json, app, model_folder
from univert.core.terminal import print_table

if TYPE_CHECKING:
    from rich.table import Table

    from univert.identity.vote import Calibration


@app.command(epilog="Example: univert calibrate runs/shop/unified shop.index shop.lance --precision product=0.95")
def calibrate(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run.")],
    index: Annotated[str, typer.Argument(metavar="index", help="An index made with this model.")],
    cat: Annotated[Path, typer.Argument(help="A catalogue with splits: fitted on val, measured on test.")],
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Share of right answers among those called known, such as 0.9 or brand=0.95; repeatable."),
    ] = None,
    new_product_share: Annotated[float, typer.Option(help="Share of photos whose product is not in the index.")] = 0.2,
    new_value_share: Annotated[
        float, typer.Option(help="Share of photos whose vertical, brand or style is not in the index.")
    ] = 0.1,
    feedback: Annotated[
        Path | None, typer.Option(help="What people said about answers: the file that a service writes.")
    ] = None,
    engine: Annotated[str, typer.Option(help="As it will serve: auto, onnx, onnx-int8 or torch.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="The file to write; beside the index where nothing is said.")] = None,
    as_json: Json = False,
) -> None:
    """Calibrate what a service says a photo shows: how sure it is, and from when on it says "unknown"."""
    from univert.data.catalogue import Catalogue
    from univert.identity.calibration import calibrate as fit_calibration
    from univert.identity.feedback import read_feedback
    from univert.identity.vote import calibration_places
    from univert.models.runtime.engine import load_engine
    from univert.search.index import Index

    folder = model_folder(model)
    target = out or calibration_places(index, folder)[0]
    loaded = load_engine(folder, engine)  # type: ignore[arg-type]
    calibration = fit_calibration(
        loaded,
        Index.open(index),
        Catalogue.open(cat),
        precision=_precisions(precision or []),
        new_product_share=new_product_share,
        new_value_share=new_value_share,
        feedback=[] if feedback is None else read_feedback(feedback, loaded.fingerprint),
    )
    calibration.save(target)
    if as_json:
        typer.echo(json.dumps({"calibration": str(target), **dataclasses.asdict(calibration)}, indent=1))
    else:
        print_table(calibration_table(calibration))
        typer.echo(str(target))


def _precisions(texts: list[str]) -> dict[str, float]:
    """`0.9` for every attribute, `brand=0.95` for one; the latter count whatever the order."""
    from univert.core.errors import BadInputError
    from univert.identity.vote import ATTRIBUTES

    found: dict[str, float] = {}
    for text in sorted(texts, key=lambda text: "=" in text):
        name, equals, number = text.rpartition("=")
        try:
            found |= dict.fromkeys([name] if equals else ATTRIBUTES, float(number))
        except ValueError:
            raise BadInputError(
                f"--precision must be a number, or attribute=number such as brand=0.95, got {text!r}"
            ) from None
    return found


def calibration_table(calibration: Calibration) -> Table:
    """What a calibration reached, one line an attribute: on the test split where the catalogue had one."""
    from univert.core.terminal import new_table
    from univert.identity.calibration import KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE
    from univert.identity.vote import ATTRIBUTES

    report = calibration.report["attributes"]
    split = "test" if any("test" in figures for figures in report.values()) else "val"
    columns = ("", "known", "right", "asked for", "error", KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE)
    table = new_table(f"What {calibration.neighbours} neighbours tell, on the {split} split", columns, left=("",))
    table.caption = (
        "known: share of answers above the threshold; right: share of those that are right, and what was asked for; "
        "error: mean difference between confidence and share right. Last: share called known of photos whose product "
        "is in the index, whose product is not, and whose vertical (brand, style) is not."
    )
    for name in ATTRIBUTES:
        if name not in calibration.attributes:
            table.add_row(name, "never")  # too few labelled images in val
            continue
        figures = report[name].get("test", report[name]["val"])
        asked = calibration.attributes[name]
        table.add_row(
            name,
            _percent(figures["coverage"]) if asked.threshold is not None else "never",
            _percent(figures["precision"]),
            _percent(asked.precision),
            f"{figures['expected_calibration_error']:.3f}",
            *(_coverage(figures, situation) for situation in (KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE)),
        )
    return table


def _coverage(figures: Mapping[str, Any], situation: str) -> str:
    there = figures["situations"].get(situation)
    return _percent(there["coverage"]) if there else ""


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"
