"""Rating the pictures of a query: pixels, overlaid text, and match; the table picture-rating.md.

    python bench/picture_rating.py CATALOGUE MODEL NAMES [--pictures 120] [--vectors .work/picture-rating.npy]

CATALOGUE and NAMES are those of the home sample (names: product, language, name, tags), MODEL a unified model trained
on the catalogue's training split. Needs the extra `curate`. The vectors of the catalogue are kept in a file.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from common import commit, cpu_name
from damaged_pictures import PIXEL_DAMAGE, encoded
from univert.core.files import write_atomic
from univert.curation import OverlayRater, PictureMatch, rate_pixels
from univert.curation.match_practice import NamedPictures, practice_lists
from univert.curation.overlaid_text import OVERLAYS, default_fonts, overlay_features, write_over
from univert.curation.picture_match import FEATURES, match_features
from univert.curation.pixel_quality import measure_pixels
from univert.data.catalogue import Catalogue
from univert.data.decode import decode_rgb
from univert.data.names import ProductName, read_names, texts_of_products
from univert.models.embedder import Embedder
from univert.models.text_tower import TextTower

RESULT = Path("bench/results/picture-rating.md")


class Home:
    """The catalogue with its vectors and names."""

    def __init__(self, catalogue: Catalogue, vectors: np.ndarray, names: Iterable[ProductName]) -> None:
        self.catalogue, self.vectors, self.names = catalogue, vectors, list(names)
        self.products, self.verticals = catalogue.column("product"), catalogue.column("vertical")
        self.splits = dict(zip(self.products, catalogue.column("split"), strict=True))
        self.by_language: dict[str, dict[str | None, ProductName]] = defaultdict(dict)
        for name in self.names:
            self.by_language[name.product][name.language] = name

    def named(self, split: str, *, tags_together: bool = False) -> NamedPictures:
        kept = np.array([self.splits[product] == split for product in self.products])
        names = (name for name in self.names if self.splits.get(name.product) == split)
        return NamedPictures(
            vectors=self.vectors[kept],
            products=self.products[kept].astype(str),
            verticals=self.verticals[kept].astype(str),
            texts=texts_of_products(names, tags_together=tags_together),
        )


def pictures(home: Home, count: int, splits: tuple[str, ...]) -> list[Image.Image]:
    """Different ones: a photo of a room is one picture, however many items are in it."""
    ids = [str(each).partition("#")[0] for each in home.catalogue.column("id")]
    rows = {ids[row]: row for row, product in enumerate(home.products) if home.splits[product] in splits}
    chosen = np.random.default_rng(0).permutation(list(rows.values()))[:count].tolist()
    return [decode_rgb(content) for content in home.catalogue.image_bytes(chosen)]


def pixel_table(home: Home, count: int) -> Iterator[str]:
    rng, images = np.random.default_rng(0), pictures(home, count, ("test",))
    yield "| pictures | left out | by the right reason |\n|---|---|---|"
    clean = [rate_pixels(encoded(image)) for image in images]
    yield f"| clean, saved at JPEG quality 88 | {100 * np.mean([not each.good for each in clean]):.1f}% | |"
    words = {"small": "too small", "blurred": "blurred", "compressed": "over-compressed", "framed": "framed"}
    for kind, ways in PIXEL_DAMAGE.items():
        for way, damage in ways.items():
            rated = [rate_pixels(damage(image.copy(), rng)) for image in images]
            out = 100 * np.mean([not each.good for each in rated])
            right = [
                any(reason.startswith(words.get(kind, ("too dark", "too bright", "flat"))) for reason in each.reasons)
                for each in rated
            ]
            yield f"| {kind}: {way} | {out:.0f}% | {100 * np.mean(right):.0f}% |"
    grey = [np.asarray(image.convert("L")) for image in images]
    start = time.process_time()
    for brightness in grey:
        measure_pixels(brightness)
    yield f"\nMeasuring takes {1000 * (time.process_time() - start) / count:.1f} ms of processor time a picture of"
    yield f"{np.median([image.size[0] * image.size[1] for image in images]) / 1000:.0f} thousand pixels."


def overlay_table(home: Home, count: int) -> Iterator[str]:
    fonts, rng = default_fonts(), np.random.default_rng(1)
    features = {}
    start = time.process_time()
    for split, typeface, wanted in (("train", "DejaVu", 2 * count), ("test", "STIX", count)):
        images, faces = pictures(home, wanted, (split,)), [font for font in fonts if typeface in font]
        features[split, "clean"] = overlay_features(images)
        for way in OVERLAYS:
            copies = (write_over(image, way, str(rng.choice(faces)), rng) for image in images)
            features[split, way] = overlay_features(copies)
    spent = time.process_time() - start
    yield "| way of writing, left out of learning | ROC AUC | found | clean left out |\n|---|---|---|---|"
    every = []
    for way in OVERLAYS:
        written = np.concatenate([features["train", other] for other in OVERLAYS if other != way])
        rater = OverlayRater.fit(features["train", "clean"], written)
        clean, dirty = (rater.probabilities(features["test", each]) for each in ("clean", way))
        area = roc_auc_score(np.repeat([0, 1], count), np.concatenate([clean, dirty]))
        every.append((area, np.mean(dirty > rater.threshold), np.mean(clean > rater.threshold)))
        yield f"| {way} | {area:.3f} | {100 * every[-1][1]:.0f}% | {100 * every[-1][2]:.1f}% |"
    area, found, lost = np.mean(every, axis=0)
    yield f"| mean | {area:.3f} | {100 * found:.0f}% | {100 * lost:.1f}% |"
    each = 1000 * spent / sum(map(len, features.values()))
    yield f"\nWriting and looking take {each:.0f} ms of processor time a picture."


def match_table(home: Home, tower: TextTower) -> Iterator[str]:
    lists, right = practice_lists(home.named("test"), 600, seed=9)
    features = match_features(tower, lists)
    lists_val, right_val = practice_lists(home.named("val"))
    features_val = match_features(tower, lists_val)
    untitled = np.isnan(features[:, 1])
    yield "| features | ROC AUC | with a title | without | right of those kept, at 70% of the right ones |"
    yield "|---|---|---|---|---|"
    for use in (FEATURES[:1], FEATURES[1:2], FEATURES[2:3], FEATURES[:2], FEATURES[1:3], FEATURES[:3]):
        found = PictureMatch.fit(features_val, right_val, use=use).probabilities(features)
        areas = [roc_auc_score(right[rows], found[rows]) for rows in (np.ones(len(right), bool), ~untitled, untitled)]
        kept = found >= np.quantile(found[right], 0.3)
        shown = " | ".join(f"{area:.3f}" for area in areas)
        yield f"| {' + '.join(use)} | {shown} | {100 * right[kept].mean():.1f}% |"
    # the last is what ships
    bins = np.minimum((found * 10).astype(int), 9)
    error = sum(abs(found[bins == b].sum() - right[bins == b].sum()) for b in range(10)) / len(found)
    yield f"\n{len(lists)} lists, {len(right)} pictures, {100 * right.mean():.1f}% of them right. The probabilities"
    yield f"are {100 * error:.1f} points from the shares of right ones on average, in ten bins."


def vectors_of(catalogue: Catalogue, model: Path, kept: Path) -> np.ndarray:
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, Embedder.from_pretrained(model).embed_catalogue(catalogue))
    vectors: np.ndarray = np.load(kept)
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("names", type=Path)
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--vectors", type=Path, default=Path(".work/picture-rating.npy"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    catalogue = Catalogue.open(options.catalogue).select(labelled=True)
    home = Home(catalogue, vectors_of(catalogue, options.model, options.vectors), read_names(options.names))
    sections = {
        "Pixels: what damaged copies are left out": pixel_table(home, options.pictures),
        "Overlaid text: ways, fonts and products left out of learning": overlay_table(home, options.pictures),
        "How well a query describes a picture": match_table(home, home.named("train").tower()),
    }
    lines = ["# Rating the pictures of a query", "", HEAD]
    for title, section in sections.items():
        start = time.perf_counter()
        lines += ["", f"## {title}", "", *section]
        print(*lines[-20:], f"{time.perf_counter() - start:.0f} s", sep="\n", flush=True)
    options_given = f"--pictures {options.pictures}"
    lines += ["", f"Made by `python bench/picture_rating.py CATALOGUE MODEL NAMES {options_given}`."]
    lines += [f"Measured at {commit('src/univert/curation', 'bench')} on one thread of {cpu_name()}."]
    write_atomic(RESULT, "\n".join(lines) + "\n")


HEAD = """Home sample; as in `univert curate`, the tower learned from the training split's pictures, names in all
languages and single tags, the match from the validation split's. It is tested on the test split's. What words find is
in [words](words.md)."""

if __name__ == "__main__":
    main()
