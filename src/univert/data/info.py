"""What a catalogue holds, by vertical and split, and what in it will hurt training or evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from univert.data.catalogue import Catalogue
from univert.data.splits import SPLITS

if TYPE_CHECKING:
    from rich.console import Console

FEW_PRODUCTS = 10
"""A vertical with fewer products with two or more images in train is called small."""

FEW_QUERIES = 5
"""A split with fewer products with two or more images measures next to nothing."""

IMBALANCE = 20.0
"""A vertical with this many times the images of another one is called extreme."""

_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class SplitCount:
    """Images, products and unlabelled images of one vertical in one split.

    Attributes:
        images: all images.
        products: products among them.
        unlabelled: images without a product.
        paired_products: products with two or more images, the only ones that can be learnt from or asked for.
    """

    images: int
    products: int
    unlabelled: int
    paired_products: int


@dataclass(frozen=True, kw_only=True)
class VerticalInfo:
    """What one vertical holds; `splits` has a `SplitCount` for each of train, val, test and, if any, none."""

    name: str
    images: int
    products: int
    unlabelled: int
    images_a_product: float
    single_image_products: int
    splits: dict[str, SplitCount]


@dataclass(frozen=True, kw_only=True)
class CatalogueInfo:
    """What a catalogue holds.

    Attributes:
        path: where it is.
        fingerprint: its content fingerprint.
        images: number of images.
        products: number of products.
        unlabelled: number of images without a product.
        linked: number of images kept as a uri.
        verticals: one entry a vertical, by name.
        warnings: one sentence for each thing that will hurt, with what to do.
    """

    path: str
    fingerprint: str
    images: int
    products: int
    unlabelled: int
    linked: int
    verticals: list[VerticalInfo]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return dataclasses.asdict(self)


def catalogue_info(catalogue: Catalogue) -> CatalogueInfo:
    """Count a catalogue, or a selection of one, and look for what will hurt."""
    verticals = [_count_vertical(name, counts) for name, counts in _count(catalogue).items()]
    return CatalogueInfo(
        path=str(catalogue.path),
        fingerprint=catalogue.fingerprint,
        images=len(catalogue),
        products=sum(vertical.products for vertical in verticals),
        unlabelled=sum(vertical.unlabelled for vertical in verticals),
        linked=sum(uri is not None for uri in catalogue.column("uri")),
        verticals=verticals,
        warnings=_warnings(verticals),
    )


def render(info: CatalogueInfo, console: Console) -> None:
    """Print the counts as a table, one row a vertical, and the warnings below it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    has_none = any("none" in vertical.splits for vertical in info.verticals)
    splits = (*SPLITS, "none") if has_none else SPLITS
    size = f"{info.images:,} images, {info.products:,} products, {len(info.verticals):,} verticals"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("vertical", overflow="fold")
    headings = ("images", "products", "un-\nlabelled", "images/\nproduct")
    for heading in (*headings, *splits):
        table.add_column(heading, justify="right", vertical="bottom", overflow="fold")
    for vertical in info.verticals:
        table.add_row(
            Text(vertical.name),
            f"{vertical.images:,}",
            f"{vertical.products:,}",
            f"{vertical.unlabelled:,}",
            f"{vertical.images_a_product:.1f}",
            *(_split_cell(vertical.splits.get(split)) for split in splits),
        )
    if len(info.verticals) > 1:
        table.add_section()
        table.add_row(
            "all",
            f"{info.images:,}",
            f"{info.products:,}",
            f"{info.unlabelled:,}",
            f"{(info.images - info.unlabelled) / max(info.products, 1):.1f}",
            *(_split_cell(_total(info.verticals, split)) for split in splits),
            style="bold",
        )
    console.print(Text(info.path, style="bold"), size, f"fingerprint {info.fingerprint}", sep="\n", highlight=False)
    console.print(table)
    console.print(f"{', '.join(splits)}: images (products)", style="dim", highlight=False)
    if info.linked:
        console.print(f"{info.linked:,} images are linked: they must stay where they are.")
    for warning in info.warnings:
        console.print(Text.assemble(("warning: ", "bold yellow"), warning))
    if not info.warnings:
        console.print(Text("Nothing stands out that will hurt.", style="green"))


def _split_cell(count: SplitCount | None) -> str:
    return "-" if count is None or not count.images else f"{count.images:,} ({count.products:,})"


def _total(verticals: list[VerticalInfo], split: str) -> SplitCount:
    counts = [vertical.splits[split] for vertical in verticals if split in vertical.splits]
    return SplitCount(
        images=sum(count.images for count in counts),
        products=sum(count.products for count in counts),
        unlabelled=sum(count.unlabelled for count in counts),
        paired_products=sum(count.paired_products for count in counts),
    )


_Groups = list[tuple[str | None, str | None, int]]
"""Split, product and number of images, for every pair of split and product that occurs."""


def _count(catalogue: Catalogue) -> dict[str, _Groups]:
    names = ("vertical", "split", "product")
    table = pa.table({name: pa.array(catalogue.column(name), pa.string()) for name in names})
    grouped = table.group_by(list(names)).aggregate([([], "count_all")])
    order = pc.sort_indices(grouped, sort_keys=[("vertical", "ascending")])
    groups: dict[str, _Groups] = {}
    for row in grouped.take(order).to_pylist():
        groups.setdefault(row["vertical"], []).append((row["split"], row["product"], row["count_all"]))
    return groups


def _count_vertical(name: str, groups: _Groups) -> VerticalInfo:
    images_of: dict[str, int] = {}
    for _, product, images in groups:
        if product is not None:
            images_of[product] = images_of.get(product, 0) + images
    unlabelled = sum(images for _, product, images in groups if product is None)
    splits = {split: _count_split(groups, split) for split in SPLITS}
    if any(split is None for split, _, _ in groups):
        splits["none"] = _count_split(groups, None)
    return VerticalInfo(
        name=name,
        images=unlabelled + sum(images_of.values()),
        products=len(images_of),
        unlabelled=unlabelled,
        images_a_product=round(sum(images_of.values()) / max(len(images_of), 1), 2),
        single_image_products=sum(images == 1 for images in images_of.values()),
        splits=splits,
    )


def _count_split(groups: _Groups, wanted: str | None) -> SplitCount:
    inside = [(product, images) for split, product, images in groups if split == wanted]
    labelled = [images for product, images in inside if product is not None]
    return SplitCount(
        images=sum(images for _, images in inside),
        products=len(labelled),
        unlabelled=sum(images for product, images in inside if product is None),
        paired_products=sum(images > 1 for images in labelled),
    )


def _warnings(verticals: list[VerticalInfo]) -> list[str]:
    found: list[str] = []
    hopeless = [v.name for v in verticals if v.splits["train"].paired_products < 2]
    if hopeless:
        found.append(
            f"no specialist can be trained for {_names(hopeless)}: fewer than 2 products in train have 2 or more "
            "images; add images of the same products"
        )
    small = [
        f"{v.name} ({v.splits['train'].paired_products})"
        for v in verticals
        if 2 <= v.splits["train"].paired_products < FEW_PRODUCTS
    ]
    if small:
        found.append(
            f"few products with 2 or more images in train: {_names(small)}; add products, or train the vertical "
            "together with a similar one"
        )
    single = sum(v.single_image_products for v in verticals)
    if single:
        worst = sorted((v for v in verticals if v.single_image_products), key=lambda v: -v.single_image_products)
        where = _names([f"{v.name} ({v.single_image_products})" for v in worst])
        found.append(
            f"products with one image only: {single:,}, in {where}; they have no positive to learn from, and no "
            "query in evaluation finds them; add images, or leave their product empty to use them unlabelled"
        )
    return found + _split_warnings(verticals) + _imbalance(verticals)


def _split_warnings(verticals: list[VerticalInfo]) -> list[str]:
    found: list[str] = []
    for split, use in (("val", "early stopping"), ("test", "evaluation")):
        thin = [
            f"{v.name} ({v.splits[split].paired_products})"
            for v in verticals
            if v.splits[split].paired_products < FEW_QUERIES
        ]
        if thin:
            found.append(
                f"{split} is near-empty for {use}: {_names(thin)} have fewer than {FEW_QUERIES} products with 2 or "
                "more images; add products, or give them this split"
            )
    stray = sum(v.splits[split].unlabelled for v in verticals for split in ("val", "test"))
    if stray:
        found.append(
            f"unlabelled images in val or test: {stray:,}; nothing can be measured on them there; put them in train"
        )
    unused = sum(v.splits["none"].images for v in verticals if "none" in v.splits)
    if unused:
        found.append(f"images in no split: {unused:,}; they will not be used; give them one")
    return found


def _imbalance(verticals: list[VerticalInfo]) -> list[str]:
    if len(verticals) < 2:
        return []
    most, least = max(verticals, key=lambda v: v.images), min(verticals, key=lambda v: v.images)
    ratio = most.images / least.images
    if ratio < IMBALANCE:
        return []
    return [
        f"extreme imbalance: {most.name} has {ratio:.0f} times the images of {least.name} "
        f"({most.images:,} to {least.images:,}); add images to the smaller one, or expect less of it"
    ]


def _names(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
