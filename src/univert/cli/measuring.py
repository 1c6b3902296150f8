"""Commands that measure: one model, or two against each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from univert.cli.options import Device, Json, Names, app, load_model, model_folder
from univert.core.config import to_plain
from univert.core.errors import BadInputError
from univert.core.files import folder_name
from univert.core.terminal import print_table

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float

    from univert.data.catalogue import Catalogue
    from univert.metrics.evaluate import Evaluation
    from univert.models.embedder import Embedder

Split = Annotated[str, typer.Option(help="train, val, test, or all.")]


@app.command(epilog="Example: univert evaluate runs/shop/unified shop.lance --split test")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run.")],
    cat: Annotated[Path, typer.Argument(help="A catalogue.")],
    split: Split = "test",
    vertical: Names = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model within each vertical and in the merged gallery, beside its untrained base network.

    In a catalogue of product pictures and scenes, the items of the scenes look for the product pictures. Queries of
    brands that the catalogue's train split lacks are measured by themselves, too.
    """
    from univert.cli.kept_vectors import embed_once
    from univert.metrics.evaluate import evaluate_vectors
    from univert.metrics.inputs import asking

    catalogue, unseen_brands = _selection(cat, split, vertical)

    def measured(network: Embedder) -> Evaluation:
        return evaluate_vectors(
            embed_once(network, catalogue),
            list(catalogue.column("product")),
            list(catalogue.column("vertical")),
            queries=asking(catalogue.product_labels(), catalogue.in_scene),
            unseen_brands=unseen_brands,
        )

    embedder = load_model(model, device)
    evaluation, base = measured(embedder), _untrained(embedder)
    untrained = None if base is None else measured(base)
    if as_json:
        typer.echo(json.dumps({"split": split, **to_plain(evaluation), "untrained": to_plain(untrained)}, indent=1))
    else:
        from univert.report.console import evaluation_table

        print_table(evaluation_table(evaluation, untrained))


def _untrained(embedder: Embedder) -> Embedder | None:
    """A model's base network as it was before any training, without a head; None where it began with random weights."""
    from univert.models.embedder import Embedder

    if not embedder.config.pretrained:
        return None
    try:
        base = Embedder(embedder.config.without_head())
    except BadInputError as error:
        typer.echo(f"univert: not compared with the untrained base network: {error}", err=True)
        return None
    return base.to(embedder.device).eval()


@app.command(epilog="Example: univert compare runs/old/unified runs/new/unified shop.lance --tolerance 0.01")
def compare(
    a: Annotated[Path, typer.Argument(help="A model, a run, or a folder of specialists: the one you have.")],
    b: Annotated[Path, typer.Argument(help="Likewise: the one that may replace it.")],
    cat: Annotated[Path, typer.Argument(help="A catalogue.")],
    split: Split = "test",
    vertical: Names = None,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Differences up to this much count as the same.")
    ] = 0.01,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap over products.")] = 2000,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare two models on the same queries; exit 1 if the second is worse anywhere."""
    from univert.metrics.compare import LARGE_LOSS, compare_vectors
    from univert.metrics.inputs import asking

    catalogue, unseen_brands = _selection(cat, split, vertical)
    (first, first_routed), (second, second_routed) = (embed_with(place, catalogue, device) for place in (a, b))
    routed = first_routed or second_routed  # specialists know no other way than to search their own vertical
    comparison = compare_vectors(
        first,
        second,
        list(catalogue.column("product")),
        list(catalogue.column("vertical")),
        first_routed=routed,
        second_routed=routed,
        queries=asking(catalogue.product_labels(), catalogue.in_scene),
        unseen_brands=unseen_brands,
        tolerance=tolerance,
        resamples=resamples,
    )
    worse = comparison.worse_in_any()
    titles = ("/".join(a.parts[-2:]), "/".join(b.parts[-2:]))
    if as_json:
        typer.echo(json.dumps({"split": split, "worse": worse, **to_plain(comparison)}, indent=1))
    else:
        from univert.report.console import comparison_table

        print_table(comparison_table(comparison, titles=titles))
    unsure = sorted({name for name, one in comparison.losses(LARGE_LOSS) if name not in worse})
    if unsure:
        typer.echo(
            f"univert: {titles[1]} is more than {100 * LARGE_LOSS:g} points below in {', '.join(unsure)}, "
            "with too few products to tell from chance; label more",
            err=True,
        )
    if worse:
        typer.echo(f"univert: {titles[1]} is worse in: {', '.join(worse)}", err=True)
        raise typer.Exit(1)


def embed_with(place: Path, catalogue: Catalogue, device: str) -> tuple[Float[np.ndarray, "N D"], bool]:
    """Embed a catalogue with whatever lies at a place.

    Args:
        place: a model's folder; a run's folder, which stands for its deployed model; or a folder with a model for each
            vertical, such as a run's `specialists`: each then embeds its own vertical.
        catalogue: the images.
        device: as on the command line.

    Returns:
        one row an image, and whether they are by specialists: vectors of different verticals then have nothing to do
        with each other. A narrower specialist's missing columns are zeros.

    Raises:
        BadInputError: there is none of them at the place, or a vertical has no specialist.
    """
    import numpy as np

    from univert.cli.kept_vectors import embed_once

    model = Path(model_folder(place))
    if (model / "config.json").exists() or not model.is_dir():
        return embed_once(load_model(model, device), catalogue), False
    if not len(catalogue):
        raise BadInputError("nothing to compare: the selection of the catalogue has no images")
    folders = {vertical: _specialist_in(place, vertical) for vertical in catalogue.verticals}
    missing = [vertical for vertical, folder in folders.items() if not (folder / "config.json").exists()]
    if missing:
        raise BadInputError(
            f"{place} is neither a model, nor a run, nor a folder with a specialist for every vertical; "
            f"it has none for: {', '.join(missing)}"
        )
    models = {vertical: load_model(folder, device) for vertical, folder in folders.items()}
    vectors = np.zeros((len(catalogue), max(one.size for one in models.values())), np.float32)
    for vertical, specialist in models.items():
        here = np.flatnonzero(catalogue.column("vertical") == vertical)
        own = catalogue.select(vertical=[vertical])
        vectors[here, : specialist.size] = embed_once(specialist, own)
    return vectors, True


def _specialist_in(place: Path, vertical: str) -> Path:
    """The folder of a vertical's specialist; with a hash where the run has two that differ in capitals alone."""
    hashed = place / folder_name(vertical, among=[vertical.swapcase()])
    return hashed if hashed.exists() else place / folder_name(vertical)


def _selection(cat: Path, split: str, vertical: list[str] | None) -> tuple[Catalogue, Bool[np.ndarray, "N"]]:
    """The images to measure on, and which of them have a brand that the catalogue's train split lacks."""
    from univert.data.catalogue import Catalogue
    from univert.data.unseen_brands import of_unseen_brands

    whole = Catalogue.open(cat)
    chosen = whole.select(split=None if split == "all" else split, vertical=vertical)
    return chosen, of_unseen_brands(chosen, whole)
