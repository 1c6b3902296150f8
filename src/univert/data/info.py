"""What a catalogue holds, by vertical and split, and what in it will hurt training or evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from univert.core.terminal import Name, print_table
from univert.data.catalogue import Catalogue
from univert.data.splits import SPLITS
from univert.data.suspicious import SUSPECT_COLUMNS, suspicious
from univert.data.unseen_brands import of_unseen_brands

if TYPE_CHECKING:
    from rich.console import Console

FEW_PRODUCTS = 10
"""A vertical with fewer products with two or more images in train is called small."""

FEW_QUERIES = 10
"""A split with fewer products with two or more images measures next to nothing: of five, no change of all is ever
significant, and with nine verticals of eight (see `univert.metrics.compare`)."""

IMBALANCE = 20.0
"""A vertical with this many times the images of another one is called extreme."""

_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class SplitCount:
    """Images, products and unlabelled images of one vertical in one split.

    `paired_products` have two or more images: only they can be learnt from or asked for.
    """

    images: int = 0
    products: int = 0
    unlabelled: int = 0
    paired_products: int = 0

    def __add__(self, other: SplitCount) -> SplitCount:
        return SplitCount(**{key: value + getattr(other, key) for key, value in vars(self).items()})


_NONE = SplitCount()


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

    @classmethod
    def of(cls, name: str, splits: dict[str, SplitCount]) -> VerticalInfo:
        """Sum up the counts of the splits."""
        total = sum(splits.values(), _NONE)
        return cls(
            name=name,
            images=total.images,
            products=total.products,
            unlabelled=total.unlabelled,
            images_a_product=round((total.images - total.unlabelled) / max(total.products, 1), 2),
            single_image_products=total.products - total.paired_products,
            splits=splits,
        )


@dataclass(frozen=True, kw_only=True)
class CatalogueInfo:
    """What a catalogue holds: counts, of `linked` images kept as a uri too, and `warnings`, each with what to do.

    Among the `images` are `items` of scenes. `unseen_brands` has, for val and test, the number of brands there that no
    train image has, and of their images.
    """

    path: str
    fingerprint: str
    images: int
    products: int
    unlabelled: int
    linked: int
    items: int
    verticals: list[VerticalInfo]
    warnings: list[str]
    unseen_brands: dict[str, tuple[int, int]]


def catalogue_info(catalogue: Catalogue) -> CatalogueInfo:
    """Count a catalogue, or a selection of one, and look for what will hurt."""
    verticals = _count_verticals(catalogue)
    splits, unseen = catalogue.column("split"), of_unseen_brands(catalogue, catalogue)
    brands = {split: catalogue.column("brand")[unseen & (splits == split)] for split in ("val", "test")}
    unused = sum(split is None for split in splits[~unseen])
    return CatalogueInfo(
        path=str(catalogue.path),
        fingerprint=catalogue.fingerprint,
        images=len(catalogue),
        products=sum(vertical.products for vertical in verticals),
        unlabelled=sum(vertical.unlabelled for vertical in verticals),
        items=int(catalogue.in_scene.sum()),
        linked=sum(uri is not None for uri in catalogue.column("uri")),
        verticals=verticals,
        warnings=[]
        if catalogue.in_scene.all()
        else _warnings(verticals, unused) + suspicious(_columns(catalogue, SUSPECT_COLUMNS)),
        unseen_brands={split: (len(set(found)), len(found)) for split, found in brands.items()},
    )


def render(info: CatalogueInfo, console: Console) -> None:
    """Print the counts as a table, one row a vertical, and the warnings below it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    has_none = any("none" in vertical.splits for vertical in info.verticals)
    splits = (*SPLITS, "none") if has_none else SPLITS
    of_scenes = f" ({info.items:,} of them items of scenes)" if info.items else ""
    size = f"images: {info.images:,}{of_scenes}, products: {info.products:,}, verticals: {len(info.verticals):,}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("vertical")
    for heading in ("images", "products", "un-\nlabelled", "images/\nproduct", *splits):
        table.add_column(heading, justify="right", vertical="bottom")
    for vertical in info.verticals:
        table.add_row(Name(vertical.name), *_cells(vertical, splits))
    if len(info.verticals) > 1:
        table.add_section()
        totals = {split: sum((v.splits.get(split, _NONE) for v in info.verticals), _NONE) for split in splits}
        table.add_row("all", *_cells(VerticalInfo.of("all", totals), splits), style="bold")
    console.print(Text(info.path, style="bold"), size, f"fingerprint {info.fingerprint}", sep="\n", highlight=False)
    print_table(table, console)
    console.print(f"{', '.join(splits)}: images (products)", style="dim", highlight=False)
    unseen = [
        f"{count} in {split} ({images:,} images)" for split, (count, images) in info.unseen_brands.items() if count
    ]
    if unseen:
        console.print(f"brands that train never has: {', '.join(unseen)}", highlight=False)
    if info.linked:
        console.print(f"{info.linked:,} images are linked: they must stay where they are.")
    for warning in info.warnings:
        console.print(Text.assemble(("warning: ", "bold yellow"), warning))
    if not info.warnings:
        console.print(Text("Nothing stands out that will hurt.", style="green"))


def _cells(vertical: VerticalInfo, splits: Sequence[str]) -> list[str]:
    counts = [vertical.splits.get(split, _NONE) for split in splits]
    return [
        *(f"{number:,}" for number in (vertical.images, vertical.products, vertical.unlabelled)),
        f"{vertical.images_a_product:.1f}",
        *(f"{count.images:,} ({count.products:,})" if count.images else "-" for count in counts),
    ]


def _columns(catalogue: Catalogue, names: Sequence[str]) -> pa.Table:
    return pa.table({name: pa.array(catalogue.column(name), pa.string()) for name in names})


def _count_verticals(catalogue: Catalogue) -> list[VerticalInfo]:
    names = ["vertical", "split", "product"]
    grouped = _columns(catalogue, names).group_by(names).aggregate([([], "count_all")]).sort_by("vertical")
    found: dict[str, dict[str, SplitCount]] = {}
    for row in grouped.to_pylist():  # a row for each product, and one for what is unlabelled, in each split
        splits, split = found.setdefault(row["vertical"], dict.fromkeys(SPLITS, _NONE)), row["split"] or "none"
        images, labelled = row["count_all"], row["product"] is not None
        splits[split] = splits.get(split, _NONE) + SplitCount(
            images=images,
            products=int(labelled),
            unlabelled=0 if labelled else images,
            paired_products=int(labelled and images > 1),
        )
    return [VerticalInfo.of(name, splits) for name, splits in found.items()]


def _warnings(verticals: Sequence[VerticalInfo], unused: int) -> list[str]:
    found: list[str] = []
    paired = {split: {v.name: v.splits[split].paired_products for v in verticals} for split in SPLITS}
    hopeless = [name for name, count in paired["train"].items() if count < 2]
    if hopeless:
        found.append(
            f"no specialist can be trained for {_listed(hopeless)}: fewer than 2 products in train have 2 or more "
            "images; add images of the same products"
        )
    small = {name: count for name, count in paired["train"].items() if 2 <= count < FEW_PRODUCTS}
    if small:
        found.append(
            f"few products with 2 or more images in train: {_counted(small)}; add products, or train the vertical "
            "together with a similar one"
        )
    single = {v.name: v.single_image_products for v in verticals if v.single_image_products}
    if single:
        worst = dict(sorted(single.items(), key=lambda item: -item[1]))
        found.append(
            f"products with one image only: {sum(single.values()):,}, in {_counted(worst)}; they have no positive to "
            "learn from, and no query in evaluation finds them; add images, or leave their product empty to use them "
            "unlabelled"
        )
    for split, use in (("val", "the choice of steps, groups and models"), ("test", "evaluation")):
        thin = {name: count for name, count in paired[split].items() if count < FEW_QUERIES}
        if thin:
            found.append(
                f"{split} is too small for {use}: {_counted(thin)} have fewer than {FEW_QUERIES} products with 2 or "
                "more images; add products, or give them this split"
            )
    stray = sum(v.splits[split].unlabelled for v in verticals for split in ("val", "test"))
    if stray:
        found.append(
            f"unlabelled images in val or test: {stray:,}; nothing can be measured on them there; put them in train"
        )
    if unused:
        found.append(f"images in no split: {unused:,}; they will not be used; give them one")
    sizes = sorted(verticals, key=lambda v: v.images)
    if sizes and sizes[-1].images >= IMBALANCE * sizes[0].images:
        most, least = sizes[-1], sizes[0]
        found.append(
            f"extreme imbalance: {most.name} has {most.images / least.images:.0f} times the images of {least.name} "
            f"({most.images:,} to {least.images:,}); add images to the smaller one, or expect less of it"
        )
    return found


def _counted(counts: Mapping[str, int]) -> str:
    return _listed([f"{name} ({count})" for name, count in counts.items()])


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
