"""Commands for an index: making and updating it, and its published versions."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from univert.cli.options import Device, Json, Names, Overwrite, app, load_model

if TYPE_CHECKING:
    from univert.search.indexing import IndexReport
    from univert.search.statistics import IndexStatistics

admin_app = typer.Typer(
    help="Look at an index, publish or roll back a version of it, make it compact.", no_args_is_help=True
)
app.add_typer(admin_app, name="index-admin")

IndexPlace = Annotated[str, typer.Argument(metavar="INDEX", help="An index: a folder, or s3://bucket/prefix.")]


@app.command(epilog="Example: univert index runs/shop/unified shop.lance shop.index")
def index(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run.")],
    cat: Annotated[Path, typer.Argument(help="A catalogue.")],
    out: Annotated[
        str, typer.Argument(metavar="INDEX", help="The index to make or update: a folder, or s3://bucket/prefix.")
    ],
    vertical: Names = None,
    delete_missing: Annotated[
        bool,
        typer.Option(
            "--delete-missing", help="Delete images that the catalogue lacks (of the verticals given, or all)."
        ),
    ] = False,
    publish: Annotated[
        bool, typer.Option(help="Show the result to readers; without it, publish later with index-admin.")
    ] = True,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Make an index hold the images of a catalogue; only new and changed ones are embedded.

    Killed, it goes on where it was when it is run again. A service that has the index open sees all changes at once,
    at the end.
    """
    from univert.data.catalogue import Catalogue
    from univert.search.indexing import index_catalogue

    report = index_catalogue(
        load_model(model, device),
        Catalogue.open(cat).select(vertical=vertical),
        out,
        overwrite=overwrite,
        delete_missing=delete_missing,
        verticals=vertical,
        publish=publish,
    )
    typer.echo(json.dumps(report.to_dict(), indent=1) if as_json else _report_text(report))


@admin_app.command(epilog="Example: univert index-admin statistics shop.index")
def statistics(place: IndexPlace, as_json: Json = False) -> None:
    """Show what an index holds and the versions that can be rolled back to."""
    from univert.search.statistics import read_statistics

    figures = read_statistics(place)
    typer.echo(json.dumps(figures.to_dict(), indent=1) if as_json else _statistics_text(figures))


@admin_app.command(epilog="Example: univert index-admin publish shop.index")
def publish(place: IndexPlace) -> None:
    """Show readers what was added, changed and deleted since the last publication."""
    from univert.search.writer import IndexWriter

    with IndexWriter.open(place) as writer:
        typer.echo(f"{place}: version {writer.publish()} is published, {len(writer):,} images")


@admin_app.command(epilog="Example: univert index-admin roll-back shop.index 12")
def roll_back(
    place: IndexPlace,
    version: Annotated[int, typer.Argument(help="A version that was published; statistics lists them.")],
) -> None:
    """Publish an earlier version again, and go on from there."""
    from univert.search.writer import IndexWriter

    with IndexWriter.open(place) as writer:
        now = writer.roll_back(version)
        typer.echo(f"{place}: version {version} is published again, as version {now}, {len(writer):,} images")


@admin_app.command(epilog="Example: univert index-admin compact shop.index")
def compact(place: IndexPlace) -> None:
    """Join small files and remove old versions; this happens by itself, too, when it pays."""
    from univert.search.writer import IndexWriter

    with IndexWriter.open(place) as writer:
        before = writer.statistics()
        writer.compact()
        after = writer.statistics()
    typer.echo(f"{place}: {before.files} files are {after.files}, {_megabytes(before)} are {_megabytes(after)}")


def _report_text(report: IndexReport) -> str:
    kind = "approximate" if report.approximate else "exact"
    done = [
        f"{count:,} {what}"
        for count, what in (
            (report.added, "added"),
            (report.embedded_again, "embedded again"),
            (report.relabelled, "relabelled"),
            (report.deleted, "deleted"),
            (report.unchanged, "unchanged"),
        )
        if count
    ]
    shown = f"published as version {report.version}" if report.version is not None else "not published yet"
    return (
        f"{report.path}: {report.images:,} images of size {report.size} in {report.seconds:.0f} s "
        f"({', '.join(done)}), {kind} search, {shown}"
    )


def _statistics_text(figures: IndexStatistics) -> str:
    published = "nothing yet"
    if figures.published_version is not None:
        published = f"version {figures.published_version}, {figures.published_images:,} images"
    models = [figures.model_fingerprint, *figures.compatible_models]
    kind = "approximate" if figures.approximate else "exact"
    lines = [
        f"published    {published}",
        f"working copy {figures.images:,} images" + (", not published" if figures.unpublished_changes else ""),
        f"model        {', '.join(models)}",
        f"search       {kind}, {figures.unindexed_images:,} images outside of the vector index",
        f"files        {figures.files}, {figures.deleted_rows:,} deleted rows in them, {_megabytes(figures)} in all",
        *(f"vertical     {name}: {count:,}" for name, count in figures.verticals.items()),
        *(
            f"version      {entry.version}, last published {_time(entry.served_until_unix_s)}"
            for entry in figures.publications
        ),
    ]
    return "\n".join(lines)


def _megabytes(figures: IndexStatistics) -> str:
    return "an unknown size" if figures.bytes is None else f"{figures.bytes / 1e6:,.1f} MB"


def _time(unix_s: float) -> str:
    return datetime.datetime.fromtimestamp(unix_s, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
