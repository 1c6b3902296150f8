"""Search by words: products by their names and pictures, by language; a photo and words together; the table words.md.

    python bench/words.py CATALOGUE MODEL NAMES [--vectors .work/words.npy] [--texts .work/words-texts.npz]

CATALOGUE and NAMES are those of the home sample, MODEL a unified model trained on its training split. Needs the extra
`curate`. The vectors of the product pictures and of the texts are kept in files.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from common import commit, cpu_name
from picture_rating import Home, vectors_of
from univert.core.files import write_atomic
from univert.data.catalogue import Catalogue
from univert.data.sample import PRODUCT_PICTURES
from univert.metrics.bootstrap import bootstrap_interval
from univert.models.text_embedding import embed_texts
from univert.models.text_tower import TextTower

RESULT = Path("bench/results/words.md")
FIRST = ("en", "fr", "de", "es")
TOP, LEAST = 10, 25
WEIGHTS = np.round(np.arange(0, 1.01, 0.1), 1)
Pairs = list[tuple[str, str]]


class Shop:
    """Products of the validation and test splits, to be found by a tower that was learned from the training split."""

    def __init__(self, home: Home, texts: Path) -> None:
        self.home, self._file = home, texts
        self.vector = dict(zip(*np.load(texts).values(), strict=True)) if texts.exists() else {}
        split = home.splits
        self.targets = sorted(product for product in split if split[product] != "train" and product in home.names)
        self.names = np.array([home.title(product).lower() for product in self.targets])
        known = {home.title(product).lower() for product in split if split[product] == "train"}
        self.asked = [product for product in self.targets if home.title(product).lower() not in known]
        self.rows = [np.flatnonzero(home.products == product) for product in self.targets]
        self.languages = sorted({language for names in home.names.values() for language in names})

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if missing := sorted(set(texts) - set(self.vector)):
            self.vector |= dict(zip(missing, embed_texts(missing), strict=True))
            self._file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(self._file, texts=list(self.vector), vectors=np.stack(list(self.vector.values())))
        return np.stack([self.vector[text] for text in texts]).astype(np.float32)

    def by_picture(self, vectors: np.ndarray) -> np.ndarray:
        """(Q, P): the cosine with each product's best picture."""
        alike = vectors @ self.home.vectors.T
        return np.stack([alike[:, rows].max(1) for rows in self.rows], 1)

    def by_text(self, queries: Sequence[str], kept: dict[str, list[str]]) -> np.ndarray:
        """(Q, P): the cosine with each product's text that is most like the query."""
        texts = sorted({text for own in kept.values() for text in own})
        place = {text: column for column, text in enumerate(texts)}
        alike = self.encode(queries) @ self.encode(texts).T
        return np.stack([alike[:, [place[text] for text in kept[product]]].max(1) for product in self.targets], 1)

    def found(self, scores: np.ndarray, products: Sequence[str]) -> np.ndarray:
        """Whether a product with the right English name is among the first ten."""
        right = np.array([self.home.title(product).lower() for product in products])
        best = np.where(self.names == right[:, None], scores, -np.inf).max(1, keepdims=True)
        hits: np.ndarray = (scores > best).sum(1) < TOP
        return hits


def in_english(shop: Shop) -> tuple[dict[str, list[str]], dict[str, Pairs]]:
    """Each product's English name is known, and it is asked for otherwise."""
    asked: dict[str, Pairs] = defaultdict(list)
    for product in shop.asked:
        names, name = shop.home.names[product], shop.home.title(product)
        if names["en"][1]:
            asked["other words: its tags"].append((names["en"][1], product))
        if " " in name:
            asked["the name's last word"].append((name.split()[-1], product))
        for language in FIRST[1:]:
            if language in names:
                asked[f"its name in {language}"].append((names[language][0], product))
    return {product: [shop.home.title(product)] for product in shop.targets}, asked


def in_all(shop: Shop) -> tuple[dict[str, list[str]], dict[str, Pairs]]:
    """Each product's names in all languages are known, and it is asked for by its tags in one."""
    asked: dict[str, Pairs] = defaultdict(list)
    for language in shop.languages:
        told = [(shop.home.names[product].get(language, ("", "")), product) for product in shop.asked]
        pairs = [(tags, product) for (name, tags), product in told if tags and tags != name]
        if len(pairs) >= LEAST:
            asked[f"its tags in {language}"] = pairs
    return {product: [name for name, _ in shop.home.names[product].values()] for product in shop.targets}, asked


def text_table(shop: Shop, tower: TextTower, kept: dict[str, list[str]], asked: dict[str, Pairs]) -> Iterator[str]:
    yield "| asked for by | queries | names alone | pictures alone | both: what ships | both less names |"
    yield "|---|---|---|---|---|---|"
    tables, products = [], []
    for kind, pairs in asked.items():
        texts, wanted = [text for text, _ in pairs], [product for _, product in pairs]
        names, pictures = shop.by_text(texts, kept), shop.by_picture(tower.embed(texts))
        tables.append(np.stack([shop.found(each, wanted) for each in (names, pictures, names + pictures)], 1) * 100.0)
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
    home = shop.home
    kept = {product: home.texts(product, shop.languages) for product in shop.targets}
    place = {product: column for column, product in enumerate(shop.targets)}
    finishes: dict[str, list[str]] = defaultdict(list)
    for product in shop.targets:
        model, _, colour = product.rpartition("-")
        if model in place and home.names[product]["en"][1].split()[-1:] == [colour]:
            finishes[model].append(product)
    asked: dict[str, list[tuple[int, str, str]]] = {"val": [], "test": []}
    for model, coloured in finishes.items():
        for wanted in coloured:
            others = [other for other in (model, *coloured) if other != wanted]
            rows = [row for other in others for row in shop.rows[place[other]].tolist()]
            asked[home.splits[wanted]] += [(row, wanted.rpartition("-")[2], wanted) for row in rows]
    scores, right = {}, {}
    for split, queries in asked.items():
        words = [word for _, word, _ in queries]
        pictures = home.vectors[[row for row, _, _ in queries]]
        tower_says = tower.embed(words)
        right[split] = np.array([place[wanted] for _, _, wanted in queries])
        photo, names = shop.by_picture(pictures), shop.by_text(words, kept)
        scores[split] = {
            "photo, and words by pictures": [shop.by_picture(2 * (1 - w) * pictures + w * tower_says) for w in WEIGHTS],
            "photo, and words by names and pictures: what ships": [
                2 * (1 - w) * photo + w * (names + shop.by_picture(tower_says)) for w in WEIGHTS
            ],
        }

    def hits(split: str, score: np.ndarray, top: int) -> np.ndarray:
        own = score[np.arange(len(score)), right[split]][:, None]
        found: np.ndarray = ((score > own).sum(1) < top) * 100.0
        return found

    groups = np.unique([wanted for _, _, wanted in asked["test"]], return_inverse=True)[1]
    yield "| asked with | weight of the words | R@1 | R@5 | R@1 less the better of both alone |"
    yield "|---|---|---|---|---|"
    for way, val in scores["val"].items():
        test = scores["test"][way]
        best = int(np.argmax([hits("val", score, 1).mean() for score in val]))
        alone = max((test[0], test[-1]), key=lambda score: hits("test", score, 1).mean())
        for title, at in (("the photo alone", 0), ("the words alone", len(WEIGHTS) - 1), (way, best)):
            found = hits("test", test[at], 1)
            difference = found - hits("test", alone, 1)
            low, high = bootstrap_interval(difference, groups)
            gain = f"{difference.mean():+.1f} [{low:+.1f}, {high:+.1f}]" if at == best else ""
            yield f"| {title} | {WEIGHTS[at]} | {found.mean():.1f} | {hits('test', test[at], 5).mean():.1f} | {gain} |"
    counts = len(asked["val"]), len(asked["test"]), groups.max() + 1
    yield f"\n{counts[0]} queries of the validation split chose the weights; {counts[1]} of the test split, for"
    yield f"{counts[2]} products, are shown. All {len(shop.targets)} products of both splits are ranked."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("names", type=Path)
    parser.add_argument("--vectors", type=Path, default=Path(".work/words.npy"))
    parser.add_argument("--texts", type=Path, default=Path(".work/words-texts.npz"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    catalogue = Catalogue.open(options.catalogue).select(labelled=True, source=PRODUCT_PICTURES)
    shop = Shop(
        Home(catalogue, vectors_of(catalogue, options.model, options.vectors), pq.read_table(options.names)),
        options.texts,
    )
    tower = shop.home.named("train", shop.languages).tower(shop.encode)
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
the best counts), "pictures" compares what the tower makes of them with each product's best picture, and both are summed
as `univert search --text` does. The tower's width and ridge were chosen on these same products, over a range in which
R@10 moved by two points. Intervals are 95%, by bootstrap over products."""

if __name__ == "__main__":
    main()
