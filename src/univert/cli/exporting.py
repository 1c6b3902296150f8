"""The command that exports a model for serving, and measures what 8 bits cost."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from univert.cli.options import Json, app, model_folder

if TYPE_CHECKING:
    from univert.core.protocols import Images
    from univert.metrics.compare import Difference
    from univert.models.runtime.engine import Engine


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Cost:
    """What quantising a model costs: quantised queries against the index of the exact model.

    Attributes:
        cosine: mean cosine similarity between an image's quantised vector and its exact one.
        recall_at_1: of exact queries, of quantised ones, and their difference with its interval.
        images: how many images were compared.
    """

    cosine: float
    recall_at_1: Difference
    images: int

    def text(self) -> str:
        """The cost in a line."""
        change = self.recall_at_1
        return (
            f"Recall@1 {change.second:.4f} against {change.first:.4f}, a difference of {change.difference:+.4f} "
            f"(95% interval {change.low:+.4f} to {change.high:+.4f}) over {change.queries:,} queries of "
            f"{change.products:,} products: {change.verdict}; mean cosine with the exact vectors {self.cosine:.4f}"
        )


@app.command(epilog="Example: univert export runs/shop/unified --int8 shop.lance")
def export(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run.")],
    int8: Annotated[
        Path | None, typer.Option(help="Also quantise to 8 bits, with this catalogue's images, and measure.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a model to ONNX for serving, checked against PyTorch; exit 1 if 8 bits cost recall."""
    from univert.models.runtime.onnx_export import export_onnx

    path = export_onnx(model_folder(model))
    answer: dict[str, Any] = {"onnx": str(path)}
    lines = [f"{path}: the same vectors as PyTorch's, to 1e-4"]
    cost = None
    if int8 is not None:
        quantised, cost = quantise(path, int8)
        answer |= {"int8": str(quantised), "cost": dataclasses.asdict(cost)}
        lines.append(f"{quantised}: {cost.text()}")
    typer.echo(json.dumps(answer, indent=1) if as_json else "\n".join(lines))
    if cost is not None and cost.recall_at_1.verdict == "worse":
        raise typer.Exit(1)


def quantise(exact_path: Path, catalogue_path: Path) -> tuple[Path, Int8Cost]:
    """Quantise an exported model with a catalogue's train images, and measure the cost on its test images.

    Where there is no such split, all images are taken.
    """
    import numpy as np

    from univert.data.catalogue import Catalogue
    from univert.models.runtime.engine import OnnxEngine, prepared_batches, share_of_cores
    from univert.models.runtime.int8 import CALIBRATION_IMAGES, export_int8

    whole = Catalogue.open(catalogue_path)
    splits = set(whole.column("split"))
    seen = whole.select(split="train") if "train" in splits else whole
    held_out = whole.select(split="test") if "test" in splits else whole
    exact = OnnxEngine(exact_path, threads=share_of_cores(1))
    chosen = np.sort(np.random.default_rng(0).permutation(len(seen))[:CALIBRATION_IMAGES])
    path = export_int8(
        exact_path, np.concatenate(list(prepared_batches(exact.preprocessing, seen, positions=chosen.tolist())))
    )
    return path, measure_int8(exact, OnnxEngine(path, threads=share_of_cores(1)), held_out)


def measure_int8(exact: Engine, quantised: Engine, catalogue: Images) -> Int8Cost:
    """Recall@1 of quantised queries against exact ones, paired, each image searching all the others' exact vectors."""
    import numpy as np

    from univert.core.terminal import progress_bar
    from univert.metrics.compare import compare_pairs
    from univert.metrics.ranking import rank_queries
    from univert.models.runtime.engine import prepared_batches

    firsts, seconds = list[np.ndarray](), list[np.ndarray]()
    with progress_bar("comparing int8 with exact", len(catalogue)) as advance:
        for pixels in prepared_batches(exact.preprocessing, catalogue):
            firsts.append(exact.run(pixels))
            seconds.append(quantised.run(pixels))
            advance(len(pixels))
    gallery, queries = np.concatenate(firsts), np.concatenate(seconds)
    products = list(catalogue.column("product"))
    outcomes = (
        rank_queries(gallery, products),
        rank_queries(queries, products, gallery_vectors=gallery, leave_one_out=True),
    )
    return Int8Cost(
        cosine=float(np.einsum("bd,bd->b", queries, gallery).mean()),
        recall_at_1=compare_pairs({"merged": outcomes})["merged"]["recall_at_1"],
        images=len(queries),
    )
