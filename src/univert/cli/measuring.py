"""Commands that measure: one model, or two against each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from univert.cli.options import Device, Json, Names, app, load_model, print_table


@app.command(epilog="Example: univert evaluate runs/shop/unified shop.lance --split test")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run.")],
    cat: Annotated[Path, typer.Argument(help="A catalogue.")],
    split: Annotated[str, typer.Option(help="train, val, test, or all.")] = "test",
    vertical: Names = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model within each vertical and in the merged gallery."""
    from univert.data.catalogue import Catalogue
    from univert.metrics.evaluate import evaluate_vectors

    catalogue = Catalogue.open(cat).select(split=None if split == "all" else split, vertical=vertical)
    vectors = load_model(model, device).embed_catalogue(catalogue, progress=True)
    evaluation = evaluate_vectors(vectors, list(catalogue.column("product")), list(catalogue.column("vertical")))
    if as_json:
        typer.echo(json.dumps({"split": split, **evaluation.to_dict()}, indent=1))
    else:
        from univert.report.console import evaluation_table

        print_table(evaluation_table(evaluation))


@app.command(epilog="Example: univert compare runs/old/unified runs/new/unified shop.lance --tolerance 0.01")
def compare(
    a: Annotated[Path, typer.Argument(help="A model, a run, or a folder of specialists: how things are.")],
    b: Annotated[Path, typer.Argument(help="Likewise: what would take its place.")],
    cat: Annotated[Path, typer.Argument(help="A catalogue.")],
    split: Annotated[str, typer.Option(help="train, val, test, or all.")] = "test",
    vertical: Names = None,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Differences up to this much count as the same.")
    ] = 0.01,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap over products.")] = 2000,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare two models on the same queries; exit 1 if the second is worse anywhere."""
    from univert.core.tensors import choose_device
    from univert.data.catalogue import Catalogue
    from univert.metrics.compare import LARGE_FALL, compare_vectors
    from univert.report.compared_models import embed_subject
    from univert.training.grow.lineage import deployed_model

    catalogue = Catalogue.open(cat).select(split=None if split == "all" else split, vertical=vertical)
    places = [deployed_model(place) if (place / "growth.json").exists() else place for place in (a, b)]
    first, second = (embed_subject(place, catalogue, choose_device(device)) for place in places)
    routed = first.routed or second.routed  # specialists know no other way than to search their own vertical
    comparison = compare_vectors(
        first.vectors,
        second.vectors,
        list(catalogue.column("product")),
        list(catalogue.column("vertical")),
        first_routed=routed,
        second_routed=routed,
        tolerance=tolerance,
        resamples=resamples,
    )
    worse = comparison.worse_in_any()
    if as_json:
        typer.echo(json.dumps({"split": split, "worse": worse, **comparison.to_dict()}, indent=1))
    else:
        from univert.report.console import comparison_table

        print_table(comparison_table(comparison, titles=(first.title, second.title)))
    unsure = sorted({name for name, one in comparison.losses(LARGE_FALL) if name not in worse})
    if unsure:
        typer.echo(
            f"univert: {second.title} falls by more than {100 * LARGE_FALL:g} points in {', '.join(unsure)}, "
            "with too few products to tell from chance; label more",
            err=True,
        )
    if worse:
        typer.echo(f"univert: {second.title} is worse in: {', '.join(worse)}", err=True)
        raise typer.Exit(1)
