"""Result lists whose truth is known, made from a catalogue's names and pictures, to learn and to test a match on.

A query is one text of a product; right are the pictures of all products that have that text. A third of the wrong ones
are of the same vertical, a third of other verticals, and a third those nearest to a right picture. A title is another
text of the picture's own product; some are missing, and some lie, half of these by repeating the query. There are no
ranks: how much these say depends on the search engine, and only lists that people rated can tell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int

from univert.core.errors import BadInputError
from univert.curation.picture_match import PictureMatch, ResultList, match_features
from univert.models.text_tower import SentenceEncoder, TextTower

_LISTS: Final = 400
_PICTURES: Final = 30
"""In a list, at most."""
_LEAST_RIGHT: Final = 0.2
_MOST_RIGHT: Final = 0.8
"""The share of right pictures; each list draws its own."""
_NO_TITLE: Final = 0.3
_WRONG_TITLE: Final = 0.1
"""Of the titles that there are."""
_NEAREST: Final = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedPictures:
    """Pictures of a catalogue, and the texts of their products.

    Attributes:
        vectors: (N, D) unit vectors of the pictures, by the unified model.
        products: (N,) of each picture.
        verticals: (N,) of each picture.
        texts: product -> its names, tags and other words for it.
    """

    vectors: Float[np.ndarray, "N D"]
    products: np.ndarray
    verticals: np.ndarray
    texts: Mapping[str, Sequence[str]]

    def of(self, products: set[str]) -> NamedPictures:
        """Those of some products."""
        kept = np.array([product in products for product in self.products], dtype=bool)
        texts = {product: words for product, words in self.texts.items() if product in products}
        return NamedPictures(
            vectors=self.vectors[kept], products=self.products[kept], verticals=self.verticals[kept], texts=texts
        )

    def tower(self, encoder: SentenceEncoder | None = None, *, model_fingerprint: str = "") -> TextTower:
        """A text tower learned from all of them; see `TextTower.learn`."""
        pairs = [(text, product) for product, words in self.texts.items() for text in words]
        return TextTower.learn(
            [text for text, _ in pairs],
            [product for _, product in pairs],
            self.vectors,
            list(self.products),
            encoder=encoder,
            model_fingerprint=model_fingerprint,
        )


def practice_lists(
    named: NamedPictures, count: int = _LISTS, *, seed: int = 0
) -> tuple[list[ResultList], Bool[np.ndarray, " P"]]:
    """Draw lists, and say of all their pictures, one list after the other, whether the query describes them.

    Raises:
        BadInputError: no text belongs to a product with a picture, or all pictures are right for all queries.
    """
    rng, have = np.random.default_rng(seed), defaultdict(set)
    for product in sorted(set(named.products)):
        for text in named.texts.get(product, ()):
            have[text].add(product)
    if not have:
        raise BadInputError("no text belongs to a product with a picture; check the names of the products")
    queries, lists, truths = sorted(have), [], []
    for _ in range(count):
        query = queries[rng.integers(len(queries))]
        right = np.isin(named.products, list(have[query]))
        if right.all():
            continue
        share = rng.uniform(_LEAST_RIGHT, _MOST_RIGHT)
        chosen = rng.permutation(np.flatnonzero(right))[: max(1, round(share * _PICTURES))]
        wanted = min(_PICTURES - len(chosen), round(len(chosen) * (1 - share) / share))
        wrong = _wrong_pictures(named, right, int(chosen[0]), max(1, wanted), rng)
        rows = rng.permutation(np.concatenate([chosen, wrong]))
        titles = [_title(named, query, int(row), rng) for row in rows]
        lists.append(ResultList(query=query, vectors=named.vectors[rows], titles=titles))
        truths.append(right[rows])
    if not lists:
        raise BadInputError("every text names all products; a match needs products with different names")
    return lists, np.concatenate(truths)


def learn_match(tower: TextTower, unseen: NamedPictures, lists: int = _LISTS, *, seed: int = 0) -> PictureMatch:
    """Learn a match on products that neither the text tower nor the model has seen, such as the validation split's.

    On those that they learned from they are too sure, so that their cosines would count for too much.

    Raises:
        BadInputError: as `practice_lists`, or vectors that are not of the tower's size.
    """
    practice, right = practice_lists(unseen, lists, seed=seed)
    return PictureMatch.fit(match_features(tower, practice), right)


def _wrong_pictures(
    named: NamedPictures, right: Bool[np.ndarray, " N"], example: int, count: int, rng: np.random.Generator
) -> Int[np.ndarray, " W"]:
    """Some of the same vertical, some of others, some that look most like a right picture."""
    same = named.verticals == named.verticals[example]
    near = np.argsort(np.where(right, -np.inf, named.vectors @ named.vectors[example]))[::-1][:_NEAREST]
    pools = [np.flatnonzero(~right & same), np.flatnonzero(~right & ~same), near[~right[near]]]
    drawn = [rng.permutation(pool)[: -(-count // len(pools))] for pool in pools]
    unique: np.ndarray = np.unique(np.concatenate(drawn))
    return rng.permutation(unique)[:count]


def _title(named: NamedPictures, query: str, row: int, rng: np.random.Generator) -> str | None:
    if rng.random() < _NO_TITLE:
        return None
    if rng.random() < _WRONG_TITLE:
        if rng.random() < 0.5:
            return query
        row = int(rng.integers(len(named.products)))
    words = named.texts.get(named.products[row], ())
    others = [text for text in words if text != query] or list(words)
    return others[rng.integers(len(others))] if others else None
