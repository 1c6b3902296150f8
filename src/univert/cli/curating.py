"""The command that makes image triplets from a query log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from univert.cli.options import Device, Json, Settings, app, load_embedder


@app.command(
    epilog="Example: univert curate log.parquet pictures.lance --out runs/curated --model runs/shop/unified "
    "--names names.csv --catalogue shop.lance"
)
def curate(
    log: Annotated[Path, typer.Argument(help="A query log: Parquet, CSV or JSON lines with query, count, results.")],
    images: Annotated[Path, typer.Argument(help="A catalogue with the pictures that the log names.")],
    out: Annotated[Path, typer.Option(help="A folder for the result; goes on where it was.")],
    model: Annotated[Path, typer.Option(help="A model folder, or a run.")],
    names: Annotated[Path, typer.Option(help="What products are called: a table with product and name.")],
    catalogue: Annotated[
        Path | None, typer.Option(help="The labelled pictures of the named products; IMAGES if they are there.")
    ] = None,
    taxonomy: Annotated[Path | None, typer.Option(help="More words for verticals: a TOML file.")] = None,
    settings: Settings = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Make image triplets from a query log: what queries ask for, which of their pictures show it, and why.

    OUT/report.html shows how much is left at each stage, and samples of what is out. OUT/triplets.csv is for univert
    rate. Killed, it goes on where it was when it is run again.
    """
    from univert.core.config import read_settings
    from univert.curation.curate import CurateConfig
    from univert.curation.curate import curate as run
    from univert.data.catalogue import Catalogue
    from univert.report.funnel import report_curation

    done = run(
        log,
        Catalogue.open(images),
        out,
        model=load_embedder(model, device),
        names=names,
        catalogue=None if catalogue is None else Catalogue.open(catalogue),
        taxonomy=taxonomy,
        config=read_settings(CurateConfig, None, settings or []),
    )
    counts = report_curation(done)
    if as_json:
        typer.echo(json.dumps(counts, indent=1))
        return
    for line in counts["stages"]:
        typer.echo(f"{line['count']:>12,}  {line['title']}")
    typer.echo(f"{done.path / 'triplets.csv'}\n{done.path / 'report.html'}")
