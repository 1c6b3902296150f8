"""Search by words: products by their names and pictures, by language; a photo and words together; the table words.md.

    python bench/words.py CATALOGUE MODEL NAMES [--vectors .work/words.npy]

CATALOGUE and NAMES are those of the home sample, MODEL a unified model trained on its training split. Needs the extra
`curate`. The vectors of the product pictures are kept in a file.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from common import commit, cpu_name
from picture_rating import Home, vectors_of
from univert.core.files import write_atomic
from univert.data.catalogue import Catalogue
from univert.data.names import ProductName, read_names, texts_of_products
from univert.data.sample import PRODUCT_PICTURES
from univert.metrics.bootstrap import bootstrap_interval
from univert.models.text_embedding import embed_texts
from univert.models.text_tower import TextTower
from univert.search.index import Index
from univert.text_search import PHOTO_WEIGHT, TextSearch

RESULT = Path("bench/results/words.md")
FIRST = ("en", "fr", "de", "es")
TOP, LEAST = 10, 25
WEIGHTS = np.round(np.arange(0, 1.01, 0.1), 1)
FINGERPRINT = "home"
Pairs = list[tuple[str, str]]


class Shop:
    """Products of the validation and test splits, to be found by a tower that was learned from the training split."""

    def __init__(self, home: Home, folder: str) -> None:
        self.home, split = home, home.splits
        self.targets = sorted(product for product in split if split[product] != "train" and product in home.by_language)
        self.place = {product: column for column, product in enumerate(self.targets)}
        self.titles = {product: names["en"].name for product, names in home.by_language.items()}
        self.names = np.array([self.titles[product].lower() for product in self.targets])
        known = {self.titles[product].lower() for product in split if split[product] == "train"}
        self.new = [product for product in self.targets if self.titles[product].lower() not in known]
        self.rows = [np.flatnonzero(home.products == product) for product in self.targets]
        self.languages = sorted({str(name.language) for name in home.names})
        rows = np.concatenate(self.rows)
        columns = {name: home.catalogue.column(name)[rows] for name in ("id", "vertical", "product")}
        with Index.create(folder, size=home.vectors.shape[1], model_fingerprint=FINGERPRINT) as writer:
            writer.upsert(home.vectors[rows], pa.table(columns))
            writer.publish()
        self.index = Index.open(folder)

    def by_picture(self, vectors: np.ndarray) -> np.ndarray:
        """(Q, P): the cosine with each product's best picture."""
        alike = vectors @ self.home.vectors.T
        return np.stack([alike[:, rows].max(1) for rows in self.rows], 1)

    def by_text(self, queries: Sequence[str], names: Sequence[ProductName]) -> np.ndarray:
        """(Q, P): the cosine with each product's text that is most like the query."""
        texts, encoded = texts_of_products(names, tags_together=True), embed_texts(queries)
        return np.stack([(encoded @ embed_texts(texts[product]).T).max(1) for product in self.targets], 1)

    def by_search(self, search: TextSearch, queries: Sequence[str], photos: np.ndarray | None = None) -> np.ndarray:
        """(Q, P): less the distance of each product's nearest picture; minus infinity where none was looked at."""
        scores = np.full((len(queries), len(self.targets)), -np.inf)
        for row, text in enumerate(queries):
            photo = None if photos is None else photos[row]
            for hit in reversed(search.search(self.index, text, len(self.index), photo=photo).hits):
                scores[row, self.place[str(hit.product)]] = -hit.distance
        return scores

    def found(self, scores: np.ndarray, products: Sequence[str]) -> np.ndarray:
        """Whether a product with the right English name is among the first ten; others as near come before it."""
        right = self.names == np.array([self.titles[product].lower() for product in products])[:, None]
        best = np.where(right, scores, -np.inf).max(1, keepdims=True)
        hits: np.ndarray = ((scores >= best) & ~right).sum(1) < TOP
        return hits


def text_search(tower: TextTower, names: Sequence[ProductName]) -> TextSearch:
    texts = {text for some in texts_of_products(names, tags_together=True).values() for text in some}
    return TextSearch(tower, names, embed_texts(sorted(texts)))


def in_english(shop: Shop) -> tuple[list[ProductName], dict[str, Pairs]]:
    """Each product's English name is known, and it is asked for otherwise."""
    queries: dict[str, Pairs] = defaultdict(list)
    for product in shop.new:
        names, title = shop.home.by_language[product], shop.titles[product]
        if names["en"].tags:
            queries["other words: its tags"].append((" ".join(names["en"].tags), product))
        if " " in title:
            queries["the name's last word"].append((title.split()[-1], product))
        for language in FIRST[1:]:
            if language in names:
                queries[f"its name in {language}"].append((names[language].name, product))
    return [ProductName(product, shop.titles[product], "en") for product in shop.targets], queries


def in_all(shop: Shop) -> tuple[list[ProductName], dict[str, Pairs]]:
    """Each product's names in all languages are known, and it is asked for by its tags in one."""
    queries: dict[str, Pairs] = {}
    for language in shop.languages:
        names = [names[language] for product in shop.new if language in (names := shop.home.by_language[product])]
        pairs = [(tags, name.product) for name in names if (tags := " ".join(name.tags)) not in ("", name.name)]
        if len(pairs) >= LEAST:
            queries[f"its tags in {language}"] = pairs
    return [name._replace(tags=()) for name in shop.home.names if name.product in shop.place], queries


def text_table(shop: Shop, tower: TextTower, names: list[ProductName], queries: dict[str, Pairs]) -> Iterator[str]:
    search = text_search(tower, names)
    yield "| asked for by | queries | names alone | pictures alone | both: what ships | both less names |"
    yield "|---|---|---|---|---|---|"
    tables, products = [], []
    for kind, pairs in queries.items():
        texts, wanted = [text for text, _ in pairs], [product for _, product in pairs]
        ways = shop.by_text(texts, names), shop.by_picture(tower.embed(texts)), shop.by_search(search, texts)
        tables.append(np.stack([shop.found(scores, wanted) for scores in ways], 1) * 100.0)
        products.append(np.array(wanted))
        yield table_row(kind, tables[-1], products[-1])
    yield table_row("all of these", np.concatenate(tables), np.concatenate(products))


def table_row(kind: str, found: np.ndarray, products: np.ndarray) -> str:
    difference = found[:, 2] - found[:, 0]
    low, high = bootstrap_interval(difference, np.unique(products, return_inverse=True)[1])
    shown = " | ".join(f"{each:.1f}" for each in found.mean(0))
    return f"| {kind} | {len(found)} | {shown} | {difference.mean():+.1f} [{low:+.1f}, {high:+.1f}] |"


def steering_table(shop: Shop, tower: TextTower) -> Iterator[str]:
    """A picture of a product in one colour and the word for another: right is the product in that colour."""
    home, place = shop.home, shop.place
    names = [name for name in home.names if name.product in place]
    search = text_search(tower, names)
    finishes: dict[str, list[str]] = defaultdict(list)
    for product in shop.targets:
        model, _, colour = product.rpartition("-")
        if model in place and home.by_language[product]["en"].tags[-1:] == (colour,):
            finishes[model].append(product)
    of_split: dict[str, list[tuple[int, str, str]]] = {"val": [], "test": []}
    for model, coloured in finishes.items():
        for wanted in coloured:
            others = [other for other in (model, *coloured) if other != wanted]
            rows = [row for other in others for row in shop.rows[place[other]].tolist()]
            of_split[home.splits[wanted]] += [(row, wanted.rpartition("-")[2], wanted) for row in rows]
    scores, right = {}, {}
    for split, queries in of_split.items():
        words = [word for _, word, _ in queries]
        pictures = home.vectors[[row for row, _, _ in queries]]
        vectors = tower.embed(words)
        right[split] = np.array([place[wanted] for _, _, wanted in queries])
        photo, by_names = shop.by_picture(pictures), shop.by_text(words, names) + shop.by_picture(vectors)
        scores[split] = {
            "photo, and words by pictures": [shop.by_picture(2 * (1 - w) * pictures + w * vectors) for w in WEIGHTS],
            "photo, and words by names and pictures": [2 * (1 - w) * photo + w * by_names for w in WEIGHTS],
        }
    shipped = shop.by_search(search, words, pictures)  # those of the test split

    def hits(split: str, score: np.ndarray, top: int) -> np.ndarray:
        own = score[np.arange(len(score)), right[split]][:, None]
        found: np.ndarray = ((score >= own).sum(1) <= top) * 100.0  # itself is one of them
        return found

    groups = np.unique([wanted for _, _, wanted in of_split["test"]], return_inverse=True)[1]
    yield "| asked with | weight of the words | R@1 | R@5 | R@1 less the better of both alone |"
    yield "|---|---|---|---|---|"
    for way, val in scores["val"].items():
        test = scores["test"][way]
        best = int(np.argmax([hits("val", score, 1).mean() for score in val]))
        alone = max((test[0], test[-1]), key=lambda score: hits("test", score, 1).mean())
        lines = [
            ("the photo alone", 0.0, test[0]),
            ("the words alone", 1.0, test[-1]),
            (way, WEIGHTS[best], test[best]),
        ]
        if way == list(scores["val"])[-1]:
            lines.append(("photo and words: what ships", 1 - PHOTO_WEIGHT, shipped))
        for title, weight, score in lines:
            found = hits("test", score, 1)
            difference = found - hits("test", alone, 1)
            low, high = bootstrap_interval(difference, groups)
            gain = "" if weight in (0, 1) else f"{difference.mean():+.1f} [{low:+.1f}, {high:+.1f}]"
            yield f"| {title} | {weight} | {found.mean():.1f} | {hits('test', score, 5).mean():.1f} | {gain} |"
    counts = len(of_split["val"]), len(of_split["test"]), groups.max() + 1
    yield f"\n{counts[0]} queries of the validation split chose the weights; {counts[1]} of the test split, for"
    yield f"{counts[2]} products, are shown. All {len(shop.targets)} products of both splits are ranked."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("names", type=Path)
    parser.add_argument("--vectors", type=Path, default=Path(".work/words.npy"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    catalogue = Catalogue.open(options.catalogue).select(labelled=True, source=PRODUCT_PICTURES)
    vectors = vectors_of(catalogue, options.model, options.vectors)
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Home(catalogue, vectors, read_names(options.names)), f"{folder}/index")
        tower = shop.home.named("train", tags_together=True).tower(model_fingerprint=FINGERPRINT)
        lines = ["# Search by words", "", HEAD]
        for title, section in {
            f"English names are known: R@{TOP}, %": text_table(shop, tower, *in_english(shop)),
            f"Names are known in all languages: R@{TOP}, %": text_table(shop, tower, *in_all(shop)),
            "A photo and a colour: R@1 and R@5, %": steering_table(shop, tower),
        }.items():
            lines += ["", f"## {title}", "", *section]
            print(*lines[-30:], sep="\n", flush=True)
    lines += ["", f"Made by `python bench/words.py CATALOGUE MODEL NAMES`, {len(shop.targets)} products to be found."]
    lines += [f"Measured at {commit('src/univert', 'bench')} on one thread of {cpu_name()}."]
    write_atomic(RESULT, "\n".join(lines) + "\n")


HEAD = """Home sample. The text tower learned from names, tags and pictures of the training split; products of the
validation and test splits are asked for, of those only products whose English name no training product has. Right is
any product with the same English name. "Names" compares the words with each product's known texts (all-MiniLM-L6-v2,
the best counts), "pictures" compares what the tower makes of them with each product's best picture, and what ships is
`univert search --text`. Products that are as near as the right one come before it. The tower's width and ridge were
chosen on these same products, over a range in which R@10 moved by two points. Intervals are 95%, by bootstrap over
products."""

if __name__ == "__main__":
    main()
