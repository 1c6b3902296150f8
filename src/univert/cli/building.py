"""Commands that build and describe catalogues."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from univert.cli.options import Json, Overwrite, catalogue_app
from univert.core.config import to_plain
from univert.core.terminal import output_console

if TYPE_CHECKING:
    from univert.data.rows import SourceRows


@catalogue_app.command(
    "build", epilog="Example: univert catalogue build products.csv scenes.json shop.lance --skip-bad"
)
def catalogue_build(
    src: Annotated[
        list[Path],
        typer.Argument(
            help="One or more of: a folder vertical/product/image, a manifest (CSV, Parquet, JSON lines), COCO's JSON, "
            "a catalogue, a public benchmark."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The catalogue to write.")],
    link: Annotated[bool, typer.Option("--link", help="Keep the images where they are and store their place.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad rows out and list them in rejected.csv.")
    ] = False,
    overwrite: Overwrite = False,
    unseen_brands: Annotated[
        float | None,
        typer.Option(help="Keep about this share of the brands, such as 0.2, out of train: in val or test alone."),
    ] = None,
    background: Annotated[
        str,
        typer.Option(help="Colour behind transparent images in reports, as RRGGBB; models have model.background_rgb."),
    ] = "ffffff",
    as_json: Json = False,
) -> None:
    """Build a catalogue from folder trees, manifests or other catalogues."""
    from univert.data.build import build_catalogue, parse_background
    from univert.data.readers import count_rows, open_source
    from univert.data.unseen_brands import keep_brands_out_of_train

    def read() -> SourceRows:
        # all are opened first: a typo in the last shows before the first is read
        return itertools.chain.from_iterable([open_source(one, verify=not skip_bad) for one in src])

    rows = read() if unseen_brands is None else keep_brands_out_of_train(read, unseen_brands)
    counts = [count_rows(one) for one in src]
    report = build_catalogue(
        rows,
        out,
        link=link,
        skip_bad=skip_bad,
        overwrite=overwrite,
        background_rgb=parse_background(background),
        total=None if None in counts else sum(filter(None, counts)),
    )
    typer.echo(json.dumps(to_plain(report), indent=1) if as_json else report.summary())


@catalogue_app.command("info", epilog="Example: univert catalogue info shop.lance")
def catalogue_info_command(cat: Annotated[Path, typer.Argument(help="A catalogue.")], as_json: Json = False) -> None:
    """Count what a catalogue holds and flag what will hurt."""
    from univert.data.catalogue import Catalogue
    from univert.data.info import catalogue_info, render

    info = catalogue_info(Catalogue.open(cat))
    if as_json:
        typer.echo(json.dumps(to_plain(info), indent=1))
    else:
        render(info, output_console())
