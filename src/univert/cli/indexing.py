"""Commands for an index: making, updating and checking it, and its published versions."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from typer.core import TyperGroup

from univert.cli.options import Device, Json, Names, Overwrite, app, load_embedder

if TYPE_CHECKING:
    from univert.search.indexing import IndexReport
    from univert.search.versions import IndexStats

_MAKE: Final = "make"


class _MakesByDefault(TyperGroup):
    """`univert index MODEL CATALOGUE INDEX` means `univert index make MODEL CATALOGUE INDEX`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in (*self.commands, "--help"):
            args = [_MAKE, *args]
        return super().parse_args(ctx, args)


index_app = typer.Typer(
    cls=_MakesByDefault,
    help="Make an index of a catalogue, or bring it up to date; check it; publish or roll back a version of it.",
    epilog="Example: univert index runs/shop/unified shop.lance shop.index",
    no_args_is_help=True,
)
app.add_typer(index_app, name="index")

IndexPath = Annotated[str, typer.Argument(metavar="index", help="An index: a folder, or s3://bucket/prefix.")]


@index_app.command(_MAKE, epilog="Example: univert index runs/shop/unified shop.lance shop.index")
def make(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run.")],
    cat: Annotated[Path, typer.Argument(help="A catalogue.")],
    out: Annotated[
        str, typer.Argument(metavar="index", help="The index to make or update: a folder, or s3://bucket/prefix.")
    ],
    vertical: Names = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Only images from this source, such as product pictures; repeatable.")
    ] = None,
    delete_missing: Annotated[
        bool,
        typer.Option(
            "--delete-missing", help="Delete images that the catalogue lacks (of the verticals given, or all)."
        ),
    ] = False,
    names: Annotated[
        Path | None,
        typer.Option(help="A table of product names, to search by words: columns product, name, language, tags."),
    ] = None,
    publish: Annotated[
        bool, typer.Option(help="Show the result to readers; without it, publish later with univert index publish.")
    ] = True,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Make an index hold the images of a catalogue; only new and changed ones are embedded.

    Killed, it goes on where it was when it is run again. A service that has the index open sees all changes at once,
    at the end.
    """
    from univert.core.errors import BadInputError
    from univert.data.catalogue import Catalogue
    from univert.data.names import read_names
    from univert.search.index import Index
    from univert.search.indexing import index_catalogue
    from univert.text_search import TextSearch, text_search_folder

    if names is not None:
        text_search_folder(out)
        if not publish:
            raise BadInputError("--names learns from what is published; leave out --no-publish, or --names")
    named = None if names is None else list(read_names(names))
    if named == []:
        raise BadInputError(f"{names} has no names; give a row for each name of a product")
    report = index_catalogue(
        load_embedder(model, device),
        Catalogue.open(cat).select(vertical=vertical, source=source),
        out,
        overwrite=overwrite,
        delete_missing=delete_missing,
        verticals=vertical,
        publish=publish,
    )
    if named is not None:
        TextSearch.learn(Index.open(out), named).save(out)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report), indent=1))
    else:
        typer.echo(_report_text(report))
        if named is not None:
            typer.echo(f"{out}: searched by words, too, with {len(named):,} names")


@index_app.command(epilog="Example: univert index check shop.index --at-least 0.98")
def check(
    path: IndexPath,
    k: Annotated[int, typer.Option(min=1, help="Neighbours that are asked for.")] = 10,
    queries: Annotated[int, typer.Option(min=1, help="Queries of each kind.")] = 200,
    at_least: Annotated[float, typer.Option(help="Exit with 1 where either recall is lower.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Measure how much of the exact answer the index gives.

    Stored images are asked about, and random directions, which are as unlike them as a photo can be.
    """
    from univert.search.exact import check_recall
    from univert.search.index import Index

    found = check_recall(Index.open(path), k=k, queries=queries)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        kind = "approximate" if found.approximate else "exact"
        typer.echo(
            f"{path}: {found.images:,} images, {kind} search, version {found.version}\n"
            f"recall@{k} {found.recall:.4f} for {found.queries:,} stored images, {found.lowest:.2f} for the worst\n"
            f"recall@{k} {found.recall_unlike:.4f} for {found.queries:,} random directions, "
            f"{found.lowest_unlike:.2f} for the worst"
        )
    if min(found.recall, found.recall_unlike) < at_least:
        raise typer.Exit(1)


@index_app.command(epilog="Example: univert index versions shop.index")
def versions(path: IndexPath, as_json: Json = False) -> None:
    """Show what an index holds and the versions that can be rolled back to."""
    from univert.search.versions import read_stats

    stats = read_stats(path)
    typer.echo(json.dumps(dataclasses.asdict(stats), indent=1) if as_json else _stats_text(stats))


@index_app.command(epilog="Example: univert index publish shop.index")
def publish(path: IndexPath) -> None:
    """Show readers what was added, changed and deleted since the last publication."""
    from univert.search.writer import IndexWriter

    with IndexWriter.open(path) as writer:
        typer.echo(f"{path}: version {writer.publish()} is published, {len(writer):,} images")


@index_app.command(epilog="Example: univert index roll-back shop.index 12")
def roll_back(
    path: IndexPath, version: Annotated[int, typer.Argument(help="A version that was published; see index versions.")]
) -> None:
    """Publish an earlier version again, and go on from there."""
    from univert.search.writer import IndexWriter

    with IndexWriter.open(path) as writer:
        now = writer.roll_back(version)
        typer.echo(f"{path}: version {version} is published again, as version {now}, {len(writer):,} images")


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


def _stats_text(stats: IndexStats) -> str:
    published = "nothing yet"
    if stats.published_version is not None:
        published = f"version {stats.published_version}, {stats.published_images:,} images"
    lines = [
        f"published    {published}",
        f"working copy {stats.images:,} images{', not published' if stats.unpublished_changes else ''}",
        f"model        {', '.join([stats.model_fingerprint, *stats.compatible_models])}",
        f"search       {'approximate' if stats.approximate else 'exact'}",
        *(f"vertical     {name}: {count:,}" for name, count in stats.verticals.items()),
        *(f"version      {entry.version}, written {_time(entry.written_unix_s)}" for entry in stats.versions),
    ]
    return "\n".join(lines)


def _time(unix_s: float) -> str:
    return datetime.datetime.fromtimestamp(unix_s, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
