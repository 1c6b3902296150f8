"""Commands that use a model on single images: their vectors, a search."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from univert.cli.options import Device, Json, Names, app, detector_folder, load_model, model_folder
from univert.core.terminal import print_table

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from rich.table import Table

    from univert.detection.engine import Detector
    from univert.identity.vote import Calibration
    from univert.models.embedder import Embedder
    from univert.report.search_page import AnsweredItem
    from univert.search.index import Index
    from univert.search.query import Hit, Where

_PICTURES_A_PRODUCT: Final = 4
"""So many times as many pictures are asked for as products are shown."""


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


@app.command(
    epilog="Example: univert search runs/shop/unified shop.index room.jpg --detector runs/detector; "
    'univert search runs/shop/unified shop.index --text "blue armchair"'
)
def search(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run.")],
    index_path: Annotated[
        str, typer.Argument(metavar="index", help="An index made with this model: a folder or s3://bucket/prefix.")
    ],
    image: Annotated[Path | None, typer.Argument(help="The photo to search with.")] = None,
    text: Annotated[
        str | None,
        typer.Option(help="Words to search with, alone or with the photo, where the index was made with --names."),
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="How many results; with --detector, products for each item.")] = 10,
    vertical: Names = None,
    detector: Annotated[
        Path | None, typer.Option(help="A detector, or its run: search with each item that it finds in the photo.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the results with pictures as an HTML page.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find the images of an index that are nearest to a photo, to each of the items in it, or to words."""
    from univert.core.errors import BadInputError
    from univert.core.files import write_atomic
    from univert.report.search_page import render_grid, render_items
    from univert.search.index import Index

    if image is None and text is None:
        raise BadInputError("give a photo, or words as --text")
    opened = Index.open(index_path)
    where = {"vertical": vertical} if vertical else None
    within = ", ".join(vertical or []) or None
    if text is not None:
        if detector is not None:
            raise BadInputError("--detector finds the items of a photo; leave it out with --text")
        photo = None
        if image is not None:
            loaded = load_model(model, device)
            opened.check_model(loaded.fingerprint)
            photo = loaded.embed(image)[0]
        _search_words(text, photo, model, opened, k, vertical, out, as_json=as_json)
        return
    assert image is not None
    loaded = load_model(model, device)
    opened.check_model(loaded.fingerprint)
    items: list[AnsweredItem] = []
    if detector is not None:
        from univert.detection.engine import load_detector
        from univert.identity.vote import find_calibration

        naming = find_calibration(index_path, model_folder(model), loaded.fingerprint)
        photo, items = answer_items(image, load_detector(detector_folder(detector)), loaded, opened, k, where, naming)
        page = partial(render_items, photo, image.name, items, opened, vertical=within)
        table, answer = items_table(items), [dataclasses.asdict(item) for item in items]
        if not items:
            typer.echo("univert: no item found; the whole photo is searched", err=True)
    if not items:
        hits = opened.search(loaded.embed(image)[0], k, where=where, model_fingerprint=loaded.fingerprint)
        page = partial(render_grid, image, hits, opened, vertical=within)
        table, answer = hits_table(hits), [dataclasses.asdict(hit) for hit in hits] if detector is None else []
    if out is not None:
        write_atomic(out, page())
    _print(answer, table, out, as_json=as_json)


def _search_words(
    text: str,
    photo: np.ndarray | None,
    model: Path,
    index: Index,
    k: int,
    verticals: list[str] | None,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print what words find, alone or with the vector of a photo, and what there is to tell of them."""
    from univert.core.files import write_atomic
    from univert.models.runtime.engine import saved_fingerprint
    from univert.report.search_page import render_words
    from univert.text_search import TextSearch

    if fingerprint := saved_fingerprint(Path(model_folder(model))):
        index.check_model(fingerprint)
    where = {"vertical": verticals} if verticals else None
    found = TextSearch.load(index).search(index, text, k, where=where, photo=photo)
    told = found.query.told()
    if told is not None:
        typer.echo(f"univert: {told}", err=True)
    if out is not None:
        within = ", ".join(verticals or []) or None
        write_atomic(out, render_words(text, told, found.hits, index, vertical=within))
    answer = {**found.query._asdict(), "hits": [dataclasses.asdict(hit) for hit in found.hits]}
    _print(answer, hits_table(found.hits), out, as_json=as_json)


def _print(answer: Any, table: Table, out: Path | None, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer, indent=1))
    else:
        print_table(table)
        if out is not None:
            typer.echo(f"pictures: {out}")


def answer_items(
    photo: Path,
    detector: Detector,
    model: Embedder,
    index: Index,
    k: int,
    where: Where | None,
    naming: Calibration | None,
) -> tuple[Image.Image, list[AnsweredItem]]:
    """A photo, and each of its items with the nearest picture of each of `k` products."""
    from univert.core.errors import BadInputError
    from univert.data.decode import decode_rgb
    from univert.identity.vote import identify
    from univert.report.search_page import AnsweredItem

    try:
        content = photo.read_bytes()
    except OSError as error:
        raise BadInputError(f"{photo} cannot be read: {error.strerror}; check the path and its rights") from None
    whole = decode_rgb(content)
    found = detector.detect([whole])[0]
    vectors = model.embed([decode_rgb(content, box_xyxy_px=item.box_xyxy_px) for item in found])
    ask = partial(index.search_many, vectors, model_fingerprint=model.fingerprint)
    answers = ask(_PICTURES_A_PRODUCT * k, where=where) if found else []
    identities: list[dict[str, Any] | None] = [None] * len(found)
    if found and naming:
        identities = [identify(hits, naming).model_dump(exclude={"evidence"}) for hits in ask(naming.neighbours)]
    return whole, [
        AnsweredItem(found=item, hits=_one_a_product(hits)[:k], identity=identity)
        for item, hits, identity in zip(found, answers, identities, strict=True)
    ]


def _one_a_product(hits: Sequence[Hit]) -> list[Hit]:
    """The nearest picture of each product; all of those without one."""
    nearest: dict[str, Hit] = {}
    for hit in hits:
        nearest.setdefault(hit.product or f"id {hit.id}", hit)
    return list(nearest.values())


def items_table(items: Sequence[AnsweredItem]) -> Table:
    """What was found in a photo as a table for a terminal: one line an item, the surest first."""
    from univert.core.terminal import Name, new_table
    from univert.report.number_format import count

    columns = ("", "item", "sure", "product", "sure of it", "known", "distance")
    table = new_table(f"{count(len(items), 'item')} found", columns, left=("item", "product", "known"))
    table.caption = "known: sure enough, as calibrated; else the product is the best guess."
    for place, item in enumerate(items, start=1):
        (vertical, sureness), product = item.vertical, item.product
        nearest = item.hits[0] if item.hits else None
        guess = nearest and (nearest.product or nearest.id)
        table.add_row(
            str(place),
            Name(vertical),
            f"{sureness:.0%}",
            Name(product["value"] if product else guess or "-"),
            f"{product['confidence']:.0%}" if product else "-",
            ("yes" if product["known"] else "no") if product else "-",
            f"{nearest.distance:.3f}" if nearest else "-",
        )
    return table


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
