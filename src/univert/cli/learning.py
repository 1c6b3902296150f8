"""Commands that train: the main job, fine-tuning, growing, the demo, public benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from univert.cli.options import Device, Json, Names, Settings, app, load_model
from univert.core.terminal import print_table


@app.command(epilog="Example: univert train shop.lance --out runs/shop --set specialists.loss=proxy-nca")
def train(
    cat: Annotated[Path, typer.Argument(help="A catalogue.")],
    recipe: Annotated[
        Path | None,
        typer.Option(help="A TOML file; what it leaves out takes its default. Without it, a begun run keeps its own."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The run folder; an interrupted run goes on where it was.")] = Path(
        "runs/run"
    ),
    triplets: Annotated[
        Path | None,
        typer.Option(
            help="Clean triplets, as of `finetune`: each group's model learns from them before it is a target."
        ),
    ] = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train specialists, then one unified model; evaluate it and write a report."""
    from univert.core.config import read_settings
    from univert.training.recipe import Recipe

    if seed is not None:
        settings = [*(settings or []), f"seed={seed}"]
    if triplets is not None:
        settings = [*(settings or []), f"triplets.file={json.dumps(str(triplets.absolute()))}"]
    begun = out / "recipe.toml"
    if recipe is None and begun.exists():  # a run goes on with the choices it was begun with
        recipe = begun
    choices = read_settings(Recipe, recipe, settings or [])

    from univert.main_job import train as run_training  # loads PyTorch, which a typo need not wait for

    result = run_training(cat, out, choices, device=device)
    _warn(result.not_exported)
    if as_json:
        typer.echo(json.dumps(result.results, indent=1))
        return
    from univert.report.console import choice_table, combination_table, results_table

    print_table(combination_table(result.finished.models.combination))
    print_table(choice_table(result.finished.models.choice))
    if result.finished.compared:
        print_table(results_table(result.finished.compared, result.finished.comparisons))
    typer.echo(f"model   {out / 'unified'}\nreport  {out / 'report.html'}")


def _warn(problem: str | None) -> None:
    if problem is not None:
        typer.echo(f"univert: {problem}", err=True)


@app.command(epilog="Example: univert finetune runs/shop/unified shop.lance --triplets verified.csv --out runs/tuned")
def finetune(
    model: Annotated[Path, typer.Argument(help="A model folder, specialist or unified.")],
    cat: Annotated[Path, typer.Argument(help="A catalogue.")],
    triplets: Annotated[
        Path, typer.Option(help="Verified image ids: .parquet, .csv or .jsonl with anchor, positive and negative.")
    ],
    out: Annotated[
        Path, typer.Option(help="A folder for model/ and finetune.json; interrupted work goes on where it was.")
    ],
    on_bad: Annotated[
        str, typer.Option(help="Triplets that cannot be used: reject the file, or skip them (see rejected.csv).")
    ] = "reject",
    vertical: Names = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a choice: key=value, such as base_network_learns=all.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Fine-tune a model on verified triplets; exit 1, and keep the old model, if that made it worse."""
    from univert.core.config import read_settings
    from univert.models.runtime.onnx_export import export_published
    from univert.training.finetune import FinetuneConfig
    from univert.training.finetune import finetune as run_finetuning

    chosen = [f"data.verticals={json.dumps(vertical)}"] if vertical else []
    config = read_settings(FinetuneConfig, None, [*(settings or []), *chosen])
    result = run_finetuning(model, cat, triplets, out, config, on_bad=on_bad, device=device)
    _warn(export_published(result.model_path))
    if as_json:
        typer.echo(json.dumps(result.results, indent=1))
    else:
        from univert.report.console import comparison_table

        typer.echo(result.report.summary())
        print_table(comparison_table(result.comparison, titles=("before", "after fine-tuning, val split")))
        before, after = (100 * result.results["triplets_in_order"][when] for when in ("before", "after"))
        typer.echo(f"triplets with the positive nearer than the negative: {before:.1f}% before, {after:.1f}% after")
        typer.echo(f"model   {out / 'model'}{'' if result.kept else '  (the old one)'}")
    if not result.kept:
        lost = "; ".join(result.results["lost"])
        typer.echo(f"univert: fine-tuning made it worse, so the old model was kept: {lost}", err=True)
        raise typer.Exit(1)


@app.command(epilog="Example: univert grow runs/shop shop.lance --vertical hats --index shop.index")
def grow(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    cat: Annotated[Path, typer.Argument(help="A catalogue with images of the new vertical, and of those the run has.")],
    vertical: Annotated[str, typer.Option(help="The vertical to add.")],
    index_path: Annotated[
        str | None, typer.Option("--index", help="Add the vertical to this index, too: a folder or s3://bucket/prefix.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change the run's recipe: grow.key=value.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Publish in spite of a loss.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Add a vertical to a run's model without indexing again; exit 1 if that would lose anything."""
    from univert.core.config import to_plain
    from univert.data.catalogue import Catalogue
    from univert.models.runtime.onnx_export import export_published
    from univert.report.console import growth_table
    from univert.search.index import Index
    from univert.search.indexing import add_vertical_to_index
    from univert.training.grow.growing import grow as run_growth

    catalogue = Catalogue.open(cat)
    indexed_by = None if index_path is None else Index.open(index_path).model_fingerprint
    result = run_growth(
        run, catalogue, vertical, indexed_by=indexed_by, settings=settings or [], force=force, device=device
    )
    if result.published:
        _warn(export_published(result.model_path))
    added = 0
    if index_path is not None and result.published:
        added = add_vertical_to_index(
            load_model(result.index_model_path, device),
            catalogue.select(vertical=vertical),
            index_path,
            vertical,
            compatible_models=result.compatible_models,
        )
    if as_json:
        typer.echo(json.dumps({**to_plain(result), "images_indexed": added}, indent=1))
    else:
        for figures in result.figures.values():
            print_table(growth_table(figures))
        if result.published:
            typer.echo(f"deployed   {result.model_path} ({result.reason})")
        if index_path is not None and result.published:
            typer.echo(f"index      {index_path}: {f'{added:,} images added' if added else 'nothing to add'}")
    if not result.published:
        typer.echo(f"univert: not published: {result.reason}; --force publishes all the same", err=True)
        raise typer.Exit(1)


@app.command(epilog="Example: univert demo --out runs/demo --serve")
def demo(
    out: Annotated[Path, typer.Option(help="Where the catalogue, the run and the index go.")] = Path("runs/demo"),
    serve: Annotated[bool, typer.Option("--serve", help="At the end, run the search page until Ctrl-C.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    device: Device = "auto",
) -> None:
    """Do the whole job on the bundled sample: product pictures, and photos of rooms with those products in them."""
    from univert.cli.demo import run_demo

    run_demo(out, seed=seed, device=device, serve=serve)


@app.command(epilog="Example: univert reproduce cars196 --root data/cars196 --loss proxy-nca --out runs/cars196")
def reproduce(
    dataset: Annotated[str, typer.Argument(help="cub200, cars196, sop or inshop.")],
    root: Annotated[Path, typer.Option(help="The data set's folder, in its official layout.")],
    loss: Annotated[str, typer.Option(help="A loss by name, such as proxy-nca or triplet.")] = "proxy-nca",
    protocol: Annotated[
        str, typer.Option(help="proxies: Inception with BN, 64-d; modern: ResNet-50, 2048-d, ProxyNCA++'s settings.")
    ] = "proxies",
    out: Annotated[
        Path | None, typer.Option(help="The run folder; runs/DATASET-LOSS-PROTOCOL-SEED if not given.")
    ] = None,
    pretrained: Annotated[bool, typer.Option(help="Start from ImageNet weights, or from random ones.")] = True,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training images.")] = None,
    verify: Annotated[
        bool, typer.Option(help="Refuse a data set that is not whole, or leave out what cannot be used.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train and measure on a public benchmark by a published protocol."""
    from univert.report.console import reproduction_table
    from univert.training.reproduce import reproduce as run_reproduction

    result = run_reproduction(
        dataset,
        root,
        out or Path("runs") / f"{dataset}-{loss}-{protocol}-{seed}",
        loss=loss,
        protocol=protocol,
        pretrained=pretrained,
        epochs=epochs,
        seed=seed,
        device=device,
        verify=verify,
    )
    if as_json:
        typer.echo(json.dumps({"figures": result.figures(), "published": result.published}, indent=1))
    else:
        print_table(reproduction_table(f"{dataset}, {loss}, {protocol}", result.figures(), result.published))
        typer.echo(f"model   {result.path / 'model'}")
