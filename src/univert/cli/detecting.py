"""Commands that find items in photos: training a detector, running one, measuring one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from univert.cli.options import Device, Json, Overwrite, Settings, app, detector_folder
from univert.core.config import to_plain
from univert.core.terminal import print_table, progress_bar

if TYPE_CHECKING:
    from univert.detection.output import PhotoItems
    from univert.metrics.detection import DetectionFigures

detect_app = typer.Typer(
    help="Find the items in photos: train a detector, run one, measure one.",
    epilog="Example: univert detect run runs/detector room.jpg",
    no_args_is_help=True,
)
app.add_typer(detect_app, name="detect")

Model = Annotated[Path, typer.Argument(help="The folder of a detector, or another's ONNX file; see docs/detect.md.")]


@detect_app.command(epilog="Example: univert detect train scenes.lance --out runs/detector")
def train(
    scenes: Annotated[
        Path,
        typer.Argument(
            help="A catalogue of scenes, of pictures of single products, or of both; where scenes are few, more are "
            "made of those pictures by cut and paste."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The run folder; an interrupted run goes on where it was.")],
    recipe: Annotated[Path | None, typer.Option(help="A TOML file; what it leaves out takes its default.")] = None,
    settings: Settings = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a detector on scenes whose items have boxes and verticals."""
    from univert.core.config import from_plain, read_settings
    from univert.training.detection_recipe import DetectionRecipe

    choices = read_settings(DetectionRecipe, recipe, settings or [])

    from univert.detection.scenes import open_scenes
    from univert.metrics.detection import DetectionFigures
    from univert.training.detection import train_detector

    catalogue = open_scenes(scenes, out, choices.pasting, seed=choices.seed)
    done = train_detector(catalogue, out, choices, device=device)
    if done["not_exported"]:
        typer.echo(f"univert: {done['not_exported']}", err=True)
    if as_json:
        typer.echo(json.dumps(done, indent=1))
        return
    if "validation" in done:
        _print_figures(from_plain(DetectionFigures, done["validation"]), "val")
    typer.echo(f"model   {done['model']}")


@detect_app.command(epilog="Example: univert detect run runs/detector photos/ --out items.json --draw seen/")
def run(
    model: Model,
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of them.")],
    out: Annotated[Path | None, typer.Option(help="Write what is found as COCO's JSON.")] = None,
    crops: Annotated[Path | None, typer.Option(help="Write each item as a picture, a folder a vertical.")] = None,
    cat: Annotated[
        Path | None,
        typer.Option("--catalogue", help="Build a catalogue of the items, without products, to train on or to index."),
    ] = None,
    draw_to: Annotated[
        Path | None, typer.Option("--draw", help="Write the photos with a frame on each item to this folder.")
    ] = None,
    least_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out what is less surely an item; the model has a default.")
    ] = None,
    least_vertical_score: Annotated[
        float, typer.Option(min=0, max=1, help="With --catalogue: leave out items whose vertical is less sure.")
    ] = 0.0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Exit 0 though some photos cannot be used.")] = False,
    overwrite: Overwrite = False,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Find the items in photos. If some cannot be used, the others are still answered, and it exits 2."""
    from univert.core.errors import BadInputError
    from univert.core.files import check_free, write_atomic
    from univert.data.build import build_catalogue
    from univert.detection import output
    from univert.detection.engine import load_detector

    if least_vertical_score and cat is None:
        raise BadInputError("--least-vertical-score says what enters a catalogue; give --catalogue, too")
    for place in filter(None, (out, crops, cat, draw_to)):
        check_free(place, overwrite=overwrite)
    detector = load_detector(detector_folder(model), device=device)
    paths = output.photo_files(photos)
    with progress_bar("finding items", len(paths), unit="photos") as advance:
        found, log = output.find_all(detector, paths, least_score=least_score, advance=advance)
    if log.rejected:
        problems = f"{log.rejected:,} of {len(paths):,} photos cannot be used:\n{log.summary()}"
        if not found:
            raise BadInputError(problems)
        typer.echo(f"univert: {problems}", err=True)
    rows = list(output.as_rows(found, least_vertical_score=least_vertical_score))
    if cat is not None and not rows:
        raise BadInputError(f"{cat}: no item was found that is sure enough for a catalogue; lower the least scores")
    content = json.dumps(output.as_coco(found, detector.verticals, out), indent=1)
    if crops is not None:
        output.write_crops(found, crops)
    if draw_to is not None:
        output.write_drawn(found, detector.verticals, draw_to)
    if out is not None:
        write_atomic(out, content)
    if cat is not None:
        build_catalogue(rows, cat, skip_bad=skip_bad, overwrite=overwrite, total=len(rows))
    if as_json:
        typer.echo(content)
    else:
        _print_found(found)
    if log.rejected and not skip_bad:
        raise typer.Exit(2)


@detect_app.command(epilog="Example: univert detect evaluate runs/detector scenes.lance --split test")
def evaluate(
    model: Model,
    scenes: Annotated[Path, typer.Argument(help="A catalogue of scenes.")],
    split: Annotated[str, typer.Option(help="train, val, test, or all.")] = "test",
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Measure a detector: COCO's average precision, recall by size, each vertical."""
    from univert.data.catalogue import Catalogue
    from univert.detection.engine import load_detector
    from univert.detection.scenes import evaluate_detector

    catalogue = Catalogue.open(scenes, scenes=True).select(split=None if split == "all" else split)
    detector = load_detector(detector_folder(model), device=device)
    with progress_bar("finding items", len(catalogue), unit="photos") as advance:
        figures = evaluate_detector(detector, catalogue, advance=advance)
    if as_json:
        typer.echo(json.dumps({"split": split, **to_plain(figures)}, indent=1))
    else:
        _print_figures(figures, split)


def _print_found(found: Sequence[PhotoItems]) -> None:
    """The items of each photo, one line a photo, and their number."""
    from univert.data.rows import printable
    from univert.report.number_format import count

    for photo in found:
        names = ", ".join(f"{item.vertical} {item.score:.2f}" for item in photo.items) or "no item found"
        typer.echo(printable(f"{photo.path}: {names}"))
    items = sum(len(photo.items) for photo in found)
    typer.echo(f"{count(items, 'item')} in {count(len(found), 'photo')}")


def _print_figures(figures: DetectionFigures, split: str) -> None:
    """How well items are found, one line a figure, in per cent."""
    from univert.core.terminal import Name, new_table

    title = f"{split}: {figures.items:,} items in {figures.photos:,} photos, %"
    table = new_table(title, ("figure", "value"), left=("figure",))
    values = {
        "mAP@50": figures.map_50,
        "mAP@50:95": figures.map,
        "AP@50, any vertical": figures.any_vertical_ap_50,
        **{f"recall@50, {name}": value for name, value in figures.recall_50.items()},
        **{f"AP@50, {name}": value for name, value in figures.verticals.items()},
    }
    for name, value in values.items():
        table.add_row(Name(name), "-" if value is None else f"{100 * value:.1f}")
    print_table(table)
