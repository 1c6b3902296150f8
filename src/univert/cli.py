"""The command line. Heavy modules load inside the commands, so that `--help` is instant."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import univert
from univert.core.allocator import reuse_freed_memory
from univert.core.errors import UnivertError

if TYPE_CHECKING:
    from univert.training.pipeline import TrainResult
    from univert.training.recipe import Recipe

WIDTH = 110  # of tables where nobody says how wide the terminal is
INTERRUPTED = 130  # the shell's convention for Ctrl-C

app = typer.Typer(
    name="univert",
    help="One embedding model, a searchable index and visual search for catalogues with many product verticals.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
)
catalogue_app = typer.Typer(help="Build a catalogue of images, or look at one.", no_args_is_help=True)
app.add_typer(catalogue_app, name="catalogue")
app.add_typer(catalogue_app, name="catalog", hidden=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Device = Annotated[
    str, typer.Option(help="A torch device such as cpu or cuda:1; auto takes CUDA where it is.")
]
Names = Annotated[list[str] | None, typer.Option(help="Only these verticals; give it again for several.")]


def main() -> None:
    """Entry point: errors are one line, and the exit status says what kind (1 a check failed, 2 bad input)."""
    reuse_freed_memory()
    try:
        status = app(standalone_mode=False)
    except UnivertError as error:
        typer.echo(f"univert: {error}", err=True)
        status = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not (full or error.filename):
            raise
        fix = "; free some space and run the same command again" if full else ""
        typer.echo(f"univert: {error.filename or 'output'}: {error.strerror}{fix}", err=True)
        status = 1
    except Exception as error:
        show = getattr(error, "show", None)  # a usage error of the command line parser prints itself
        if show is None:
            raise
        show()
        status = 2
    if status == INTERRUPTED:  # the parser may have caught the interrupt itself
        typer.echo("univert: stopped; nothing is half-written: run the same command again", err=True)
    sys.exit(status)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"univert {univert.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One embedding model for a catalogue with many product verticals."""


@catalogue_app.command("build", epilog="Example: univert catalogue build photos/ shop.lance --skip-bad")
def catalogue_build(
    src: Annotated[
        Path,
        typer.Argument(
            help="A folder vertical/product/image, a CSV or Parquet manifest, or the folder of a public benchmark."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The catalogue to write.")],
    link: Annotated[
        bool, typer.Option("--link", help="Keep the images where they are and store their place.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad rows out and list them in rejected.csv.")
    ] = False,
    overwrite: Overwrite = False,
    background: Annotated[
        str,
        typer.Option(
            help="Colour behind transparent images in reports, as RRGGBB; models have model.background_rgb."
        ),
    ] = "ffffff",
    as_json: Json = False,
) -> None:
    """Build a catalogue from a folder tree or a manifest."""
    from univert.data.build import build_catalogue, parse_background
    from univert.data.readers import count_rows, open_source

    report = build_catalogue(
        open_source(src),
        out,
        link=link,
        skip_bad=skip_bad,
        overwrite=overwrite,
        background_rgb=parse_background(background),
        total=count_rows(src),
    )
    typer.echo(json.dumps(report.to_dict(), indent=1) if as_json else report.summary())


@catalogue_app.command("info", epilog="Example: univert catalogue info shop.lance")
def catalogue_info_command(
    cat: Annotated[Path, typer.Argument(help="A catalogue.")], as_json: Json = False
) -> None:
    """Count what a catalogue holds and flag what will hurt."""
    from univert.data.catalogue import Catalogue
    from univert.data.info import catalogue_info, render

    info = catalogue_info(Catalogue.open(cat))
    if as_json:
        typer.echo(json.dumps(info.to_dict(), indent=1))
    else:
        from rich.console import Console

        render(info, Console(width=None if sys.stdout.isatty() else WIDTH))


@app.command(epilog="Example: univert train shop.lance --out runs/shop --set specialists.loss=proxy-nca")
def train(
    cat: Annotated[Path, typer.Argument(help="A catalogue.")],
    recipe: Annotated[
        Path | None, typer.Option(help="A TOML file; what it leaves out takes its default.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="The run folder; an interrupted run goes on where it was.")
    ] = Path("runs/run"),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe: key=value, dots for tables.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train specialists, then one unified model; evaluate it and write a report."""
    from univert.training.pipeline import train as run_training

    if seed is not None:
        settings = [*(settings or []), f"seed={seed}"]
    result = run_training(cat, out, _recipe(recipe, settings or []), device=device)
    _print_results(result, as_json)


@app.command(epilog="Example: univert evaluate runs/shop/unified shop.lance --split test")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    cat: Annotated[Path, typer.Argument(help="A catalogue.")],
    split: Annotated[str, typer.Option(help="train, val, test, or all.")] = "test",
    vertical: Names = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model within each vertical and in the merged gallery."""
    from univert.data.catalogue import Catalogue
    from univert.evaluation.evaluate import evaluate_vectors

    catalogue = Catalogue.open(cat).select(split=None if split == "all" else split, vertical=vertical)
    vectors = _load_model(model, device).embed_catalogue(catalogue, progress=True)
    evaluation = evaluate_vectors(
        vectors, list(catalogue.column("product")), list(catalogue.column("vertical"))
    )
    if as_json:
        typer.echo(json.dumps({"split": split, **evaluation.to_dict()}, indent=1))
    else:
        from univert.evaluation.console import evaluation_table

        _print_table(evaluation_table(evaluation))


@app.command(epilog="Example: univert embed runs/shop/unified photo.jpg other.png --out vectors.npy")
def embed(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Annotated[Path, typer.Option(help="A .npy file: float32, one unit row an image.")],
    device: Device = "auto",
) -> None:
    """Turn image files into vectors."""
    import io

    import numpy as np

    from univert.core.files import write_atomic

    vectors = _load_model(model, device).embed(images, progress=True)
    buffer = io.BytesIO()
    np.save(buffer, vectors)
    write_atomic(out, buffer.getvalue())
    typer.echo(f"{out}: {vectors.shape[0]} vectors of size {vectors.shape[1]}")


@app.command(epilog="Example: univert index runs/shop/unified shop.lance shop.index")
def index(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    cat: Annotated[Path, typer.Argument(help="A catalogue.")],
    out: Annotated[Path, typer.Argument(metavar="INDEX", help="The index to write.")],
    vertical: Names = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    """Embed a catalogue into a searchable index."""
    from univert.data.catalogue import Catalogue
    from univert.serving.indexing import index_catalogue

    report = index_catalogue(
        _load_model(model, device), Catalogue.open(cat).select(vertical=vertical), out, overwrite=overwrite
    )
    kind = "approximate" if report.approximate else "exact"
    typer.echo(
        f"{report.path}: {report.images:,} images of size {report.size} in {report.seconds:.0f} s, {kind} search"
    )


@app.command(epilog="Example: univert search runs/shop/unified shop.index photo.jpg --k 5 --out found.html")
def search(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    index_path: Annotated[Path, typer.Argument(metavar="INDEX", help="An index made with this model.")],
    image: Annotated[Path, typer.Argument(help="The photo to search with.")],
    k: Annotated[int, typer.Option(min=1, help="How many results.")] = 10,
    vertical: Names = None,
    out: Annotated[Path | None, typer.Option(help="Write the results with pictures as an HTML page.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find the images of an index that are nearest to a photo."""
    from univert.core.files import write_atomic
    from univert.search.lance_store import LanceIndex
    from univert.serving.console import hits_table
    from univert.serving.grid import render_grid
    from univert.serving.lookup import search_image

    opened = LanceIndex.open(index_path)
    where = {"vertical": vertical} if vertical else None
    hits = search_image(_load_model(model, device), opened, image, k=k, where=where)
    if out is not None:
        write_atomic(out, render_grid(image, hits, opened, vertical=", ".join(vertical or []) or None))
    if as_json:
        typer.echo(json.dumps([hit.to_dict() for hit in hits], indent=1))
    else:
        _print_table(hits_table(hits))
        if out is not None:
            typer.echo(f"pictures: {out}")


@app.command(epilog="Example: univert demo --out runs/demo")
def demo(
    out: Annotated[Path, typer.Option(help="Where the catalogue, the run and the index go.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    device: Device = "auto",
) -> None:
    """The whole job on the bundled sample: five artists' emoji, nine verticals."""
    from univert.demo import run_demo

    run_demo(out, seed=seed, device=device, say=typer.echo)


@app.command(
    epilog="Example: univert reproduce cars196 --root data/cars196 --loss proxy-nca --out runs/cars196"
)
def reproduce(
    dataset: Annotated[str, typer.Argument(help="cub200, cars196, sop or inshop.")],
    root: Annotated[Path, typer.Option(help="The data set's folder, in its official layout.")],
    loss: Annotated[str, typer.Option(help="A loss by name, such as proxy-nca or triplet.")] = "proxy-nca",
    protocol: Annotated[
        str,
        typer.Option(
            help="document: Inception with BN, 64-d; modern: ResNet-50, 2048-d, ProxyNCA++'s settings."
        ),
    ] = "document",
    out: Annotated[
        Path | None, typer.Option(help="The run folder; runs/DATASET-LOSS-PROTOCOL-SEED if not given.")
    ] = None,
    pretrained: Annotated[
        bool, typer.Option(help="Start from ImageNet weights, or from random ones.")
    ] = True,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training images.")] = None,
    verify: Annotated[
        bool, typer.Option(help="Refuse a data set whose counts are not the published ones.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train and measure on a public benchmark by a published protocol."""
    from univert.evaluation.console import reproduction_table
    from univert.training.reproduce import check_choices
    from univert.training.reproduce import reproduce as run_reproduction

    choices = check_choices(dataset, loss, protocol)
    result = run_reproduction(
        *(choices.dataset, root, out or Path("runs") / f"{dataset}-{loss}-{protocol}-{seed}"),
        loss=choices.loss,
        protocol=choices.protocol,
        pretrained=pretrained,
        epochs=epochs,
        seed=seed,
        device=device,
        verify=verify,
    )
    if as_json:
        typer.echo(json.dumps({"figures": result.figures(), "published": result.published}, indent=1))
    else:
        _print_table(reproduction_table(f"{dataset}, {loss}, {protocol}", result.figures(), result.published))
        typer.echo(f"model   {result.path / 'model'}")


def _recipe(path: Path | None, settings: list[str]) -> Recipe:
    from univert.core.config import read_settings
    from univert.training.recipe import Recipe

    return read_settings(Recipe, path, settings)


def _load_model(path: Path, device: str) -> Any:
    from univert.core.device import choose_device
    from univert.models.embedder import Embedder

    return Embedder.from_pretrained(path).to(choose_device(device))


def _print_results(result: TrainResult, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.results, indent=1))
        return
    from univert.evaluation.console import results_table

    _print_table(results_table(result.results))
    typer.echo(f"model   {result.model_path}\nreport  {result.path / 'report.html'}")


def _print_table(table: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
