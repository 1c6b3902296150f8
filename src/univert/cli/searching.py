"""Commands that use a model on single images: their vectors, a search."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from univert.cli.options import Device, Json, Names, app, load_model
from univert.core.terminal import print_table

if TYPE_CHECKING:
    from rich.table import Table

    from univert.search.query import Hit


@app.command(epilog="Example: univert embed runs/shop/unified photo.jpg other.png --out vectors.npy")
def embed(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Annotated[Path, typer.Option(help="A .npy file: float32, one unit row an image.")],
    device: Device = "auto",
) -> None:
    """Turn image files into vectors."""
    import io

    import numpy as np

    from univert.core.files import write_atomic

    vectors = load_model(model, device).embed(images, progress=True)
    buffer = io.BytesIO()
    np.save(buffer, vectors)
    write_atomic(out, buffer.getvalue())
    typer.echo(f"{out}: vectors: {vectors.shape[0]:,}, of size {vectors.shape[1]}")


@app.command(epilog="Example: univert search runs/shop/unified shop.index photo.jpg --k 5 --out found.html")
def search(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run.")],
    index_path: Annotated[
        str, typer.Argument(metavar="index", help="An index made with this model: a folder or s3://bucket/prefix.")
    ],
    image: Annotated[Path, typer.Argument(help="The photo to search with.")],
    k: Annotated[int, typer.Option(min=1, help="How many results.")] = 10,
    vertical: Names = None,
    out: Annotated[Path | None, typer.Option(help="Write the results with pictures as an HTML page.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find the images of an index that are nearest to a photo."""
    from univert.core.files import write_atomic
    from univert.report.search_page import render_grid
    from univert.search.index import Index

    opened = Index.open(index_path)
    where = {"vertical": vertical} if vertical else None
    loaded = load_model(model, device)
    opened.check_model(loaded.fingerprint)
    hits = opened.search(loaded.embed(image)[0], k, where=where, model_fingerprint=loaded.fingerprint)
    if out is not None:
        write_atomic(out, render_grid(image, hits, opened, vertical=", ".join(vertical or []) or None))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(hit) for hit in hits], indent=1))
    else:
        print_table(hits_table(hits))
        if out is not None:
            typer.echo(f"pictures: {out}")


def hits_table(hits: Sequence[Hit]) -> Table:
    """Search results as a table for a terminal: one line a hit, nearest first."""
    from rich.text import Text

    from univert.core.terminal import Name, new_table

    columns = ("", "product", "vertical", "brand", "style", "distance", "id")
    table = new_table(f"{len(hits)} nearest images", columns, left=(*columns[1:5], "id"))
    for place, hit in enumerate(hits, start=1):
        names = [Name(name or "-") for name in (hit.product, hit.vertical, hit.brand, hit.style)]
        table.add_row(str(place), *names, f"{hit.distance:.3f}", Text(hit.id))
    return table
