"""Commands that make a model ready to be served: export it, calibrate its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from univert.cli.options import Json, app, model_folder


@app.command(epilog="Example: univert export runs/shop/unified --int8 shop.lance")
def export(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run.")],
    int8: Annotated[
        Path | None, typer.Option(help="Also quantise to 8 bits, with this catalogue's images, and measure.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a model to ONNX for serving, checked against PyTorch; `serve` does so by itself when it first starts."""
    from univert.models.runtime.onnx_export import ensure_onnx

    path = ensure_onnx(model_folder(model))
    answer: dict[str, Any] = {"onnx": str(path)}
    if int8 is None:
        typer.echo(json.dumps(answer, indent=1) if as_json else f"{path}: the same vectors as PyTorch's, to 1e-4")
        return
    quantised, cost = _quantise(path, int8)
    answer |= {"int8": str(quantised), "cost": cost.to_dict()}
    if as_json:
        typer.echo(json.dumps(answer, indent=1))
    else:
        change = cost.recall_at_1
        typer.echo(f"{path}: the same vectors as PyTorch's, to 1e-4")
        typer.echo(
            f"{quantised}: Recall@1 {change.second:.4f} against {change.first:.4f}, a difference of "
            f"{change.difference:+.4f} (95% interval {change.low:+.4f} to {change.high:+.4f}) over "
            f"{change.queries:,} queries of {change.products:,} products: {change.verdict}; "
            f"mean cosine with the exact vectors {cost.cosine:.4f}"
        )
    if cost.recall_at_1.verdict == "worse":
        raise typer.Exit(1)


def _quantise(exact_path: Path, catalogue_path: Path) -> tuple[Path, Any]:
    import numpy as np

    from univert.data.catalogue import Catalogue
    from univert.models.runtime.engine import share_of_cores
    from univert.models.runtime.onnx_engine import OnnxEngine
    from univert.models.runtime.prepared import prepared_batches
    from univert.serving.onnx_int8 import CALIBRATION_IMAGES, export_int8, measure_int8

    whole = Catalogue.open(catalogue_path)
    splits = set(whole.column("split"))
    seen = whole.select(split="train") if "train" in splits else whole
    held_out = whole.select(split="test") if "test" in splits else whole
    exact = OnnxEngine(exact_path, threads=share_of_cores(1))
    chosen = np.random.default_rng(0).permutation(len(seen))[:CALIBRATION_IMAGES]
    pixels = np.concatenate(list(prepared_batches(exact, seen, positions=np.sort(chosen).tolist())))
    quantised_path = export_int8(exact_path, exact_path.parent, pixels)
    quantised = OnnxEngine(quantised_path, threads=share_of_cores(1))
    return quantised_path, measure_int8(exact, quantised, held_out)


@app.command(epilog="Example: univert calibrate runs/shop/unified shop.index shop.lance --precision product=0.95")
def calibrate(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run.")],
    index: Annotated[str, typer.Argument(metavar="INDEX", help="An index made with this model.")],
    cat: Annotated[Path, typer.Argument(help="A catalogue with splits: fitted on val, measured on test.")],
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Share of right answers among those called known, such as 0.9 or brand=0.95; repeatable."),
    ] = None,
    neighbours: Annotated[int, typer.Option(min=1, help="How many neighbours vote.")] = 24,
    new_product_share: Annotated[float, typer.Option(help="Share of photos whose product is not in the index.")] = 0.2,
    new_value_share: Annotated[
        float, typer.Option(help="Share of photos whose vertical, brand or style is not in the index.")
    ] = 0.1,
    max_queries: Annotated[int, typer.Option(min=1, help="Images of a split that are asked about.")] = 2000,
    engine: Annotated[str, typer.Option(help="As it will serve: auto, onnx, onnx-int8 or torch.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="The file to write; beside the index where nothing is said.")] = None,
    as_json: Json = False,
) -> None:
    """Calibrate what a service says a photo shows: how sure it is, and from when on it says "unknown"."""
    import dataclasses

    from univert.cli.calibration_table import calibration_table
    from univert.cli.options import print_table
    from univert.data.catalogue import Catalogue
    from univert.identity.calibration import CalibrationConfig
    from univert.identity.calibration import calibrate as fit_calibration
    from univert.identity.identify import calibration_places
    from univert.models.runtime.engine import load_engine
    from univert.search.reader import IndexReader

    config = CalibrationConfig(
        neighbours=neighbours,
        precision=_precisions(precision or []),
        new_product_share=new_product_share,
        new_value_share=new_value_share,
        max_queries=max_queries,
    )
    folder = model_folder(model)
    target = out or calibration_places(index, folder)[0]
    catalogue = Catalogue.open(cat)
    reader = IndexReader.open(index)
    try:
        calibration = fit_calibration(load_engine(folder, engine), reader.current(), catalogue, config)  # type: ignore[arg-type]
    finally:
        reader.close()
    calibration.save(target)
    if as_json:
        typer.echo(json.dumps({"calibration": str(target), **dataclasses.asdict(calibration)}, indent=1))
    else:
        print_table(calibration_table(calibration))
        typer.echo(str(target))


def _precisions(texts: list[str]) -> dict[str, float]:
    """`0.9` for every attribute, `brand=0.95` for one; the latter count whatever the order."""
    from univert.core.errors import BadInputError
    from univert.identity.identify import ATTRIBUTES

    general: dict[str, float] = {}
    special: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise BadInputError(
                f"--precision must be a number, or attribute=number such as brand=0.95, got {text!r}"
            ) from None
        if equals:
            special[name] = value
        else:
            general = dict.fromkeys(ATTRIBUTES, value)
    return {**general, **special}
