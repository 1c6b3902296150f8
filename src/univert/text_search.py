"""Words find products by their names and by their pictures, alone or together with a photo.

A picture's distance is 2 less two cosines: that of the words and the name of its product that is most like them, both
as sentence embeddings, and that of the picture and what a text tower makes of the words. With a photo, it is the mean
of that and the distance to the photo. All that is needed is kept in a folder within the index.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from univert.core.errors import BadInputError
from univert.core.files import publishing
from univert.core.terminal import progress_bar
from univert.data.lexicon import Lexicon, TextReading
from univert.data.names import ProductName, read_names, texts_of_products
from univert.search.index import Index
from univert.search.query import FilterValue, Hit, Where, check_where

if TYPE_CHECKING:  # PyTorch is not even imported until words come
    from univert.models.text_tower import SentenceEncoder, TextTower

FOLDER: Final = "text-search"
_NAMES, _VECTORS, _TOWER = "names.parquet", "texts.npy", "tower"
_TEXTS_AT_ONCE: Final = 1_024
PHOTO_WEIGHT: Final = 0.5
"""Of the distance to a photo that comes with words; chosen by `bench/words.py`, "this, but in red"."""
_PICTURES: Final = 1_000
_PRODUCTS: Final = 200
"""So many pictures nearest by the tower, and so many products nearest by their names, are looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextAnswer:
    """What words find.

    Attributes:
        query: the words, as they were read.
        hits: nearest first; a distance is 2 less the cosine of the names and that of the picture, 0 to 4.
    """

    query: TextReading
    hits: list[Hit]


class TextSearch:
    """Finds images of an index by words; made by `learn` or `load`.

    Args:
        tower: maps words to the space of the index's vectors.
        names: of the products.
        encoded: (T, E) sentence embeddings of the names' different texts, sorted.

    Example:
        >>> index = Index.open("shop.index")  # doctest: +SKIP
        >>> TextSearch.learn(index, read_names("names.parquet")).search(index, "blue armchair", k=5)  # doctest: +SKIP
    """

    def __init__(self, tower: TextTower, names: Sequence[ProductName], encoded: Float[np.ndarray, "T E"]) -> None:
        self.tower = tower
        self._names = names
        self._encoded = encoded.astype(np.float32)
        self._lexicon = Lexicon((text, each.language) for each in names for text in (each.name, *each.tags))
        texts = texts_of_products(names, tags_together=True)
        row = {text: row for row, text in enumerate(_distinct(texts))}
        self._products = np.array(list(texts))
        self._place = {product: place for place, product in enumerate(texts)}
        self._text_of_pair = np.array([row[text] for some in texts.values() for text in some], np.int64)
        self._starts = np.cumsum([0, *map(len, texts.values())])[:-1]

    @classmethod
    def learn(cls, index: Index, names: Iterable[ProductName], *, encoder: SentenceEncoder | None = None) -> TextSearch:
        """Learn the words of an index from the names of its products and its own vectors.

        Args:
            index: its products must have the names' ids.
            names: as many languages as there are.
            encoder: makes sentence embeddings; None takes all-MiniLM-L6-v2.

        Raises:
            BadInputError: no product of the index has a name, or the extra `curate` is not installed.
        """
        from univert.models.text_embedding import embed_texts
        from univert.models.text_tower import TextTower

        names = list(names)
        vectors, products = index.labelled_vectors()
        if not {each.product for each in names}.intersection(products):
            raise BadInputError(
                f"none of the {len(names):,} names belongs to a product of {index.uri}; give its products' names, with "
                "the ids that they have there"
            )
        texts_of = texts_of_products(names, tags_together=True)
        texts = _distinct(texts_of)
        parts = []
        with progress_bar("reading names", len(texts), unit="texts") as advance:
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                some = texts[start : start + _TEXTS_AT_ONCE]
                parts.append(np.asarray((encoder or embed_texts)(some), np.float32))
                advance(len(some))
        encoded = np.concatenate(parts)
        place = {text: row for row, text in enumerate(texts)}
        pairs = [(text, product) for product, some in texts_of.items() for text in some]
        tower = TextTower.learn(
            [text for text, _ in pairs],
            [product for _, product in pairs],
            vectors,
            products,
            encoder=lambda some: encoded[[place[text] for text in some]],
            model_fingerprint=index.model_fingerprint,
        )
        tower.encoder = encoder or embed_texts
        return cls(tower, names, encoded)

    def save(self, index_path: str | Path) -> Path:
        """Write it into the folder of an index, in place of what is there.

        Raises:
            BadInputError: the index is in an object store.
        """
        folder = text_search_folder(index_path)
        with publishing(folder, overwrite=True) as place:
            rows = [each._asdict() for each in self._names]
            schema = pa.schema({"product": pa.string(), "name": pa.string(), "language": pa.string()})
            schema = schema.append(pa.field("tags", pa.list_(pa.string())))
            pq.write_table(pa.Table.from_pylist(rows, schema), place / _NAMES)
            np.save(place / _VECTORS, self._encoded.astype(np.float16))  # cosines move by 1e-3 at most
            self.tower.save_pretrained(place / _TOWER)
        return folder

    @classmethod
    def load(cls, index: Index, *, encoder: SentenceEncoder | None = None) -> TextSearch:
        """What `save` wrote into the folder of an index.

        Raises:
            BadInputError: there is nothing, it is damaged or of another model, or the extra `curate` is not installed.
        """
        folder = text_search_folder(index.uri)
        again = f"run univert index MODEL CATALOGUE {index.uri} --names NAMES"
        if not folder.is_dir():
            raise BadInputError(f"{index.uri} knows no words; to teach it the names of its products, {again}")
        from univert.models.text_embedding import embed_texts
        from univert.models.text_tower import TextTower

        if encoder is None:
            embed_texts(["once"])  # says what to install
        try:
            tower = TextTower.from_pretrained(folder / _TOWER, encoder)
            encoded = np.load(folder / _VECTORS, allow_pickle=False)
            found = cls(tower, list(read_names(folder / _NAMES)), encoded)
        except (OSError, IndexError, ValueError) as error:
            raise BadInputError(f"{folder} is damaged ({error}); {again}") from None
        if tower.config.model_fingerprint not in (index.model_fingerprint, *index.compatible_models):
            raise BadInputError(f"{index.uri} knows the words of another model; {again}")
        return found

    def search(
        self,
        index: Index,
        text: str,
        k: int = 10,
        *,
        where: Where | None = None,
        photo: Float[np.ndarray, " D"] | None = None,
    ) -> TextAnswer:
        """The images that words find, alone or together with a photo, as in "this, but in red".

        Looked at are the pictures nearest but for the names, and those of the products nearest by their names.

        Args:
            index: of the model that this was learned with.
            text: a few words, in any language that the names are in.
            k: how many; more than there are gives all that were looked at.
            where: filters by column, see `Index.search`.
            photo: its unit vector.

        Raises:
            BadInputError: no words, another model, an unknown column or vertical.
        """
        if not text.strip():
            raise BadInputError("there are no words to search with; give some, or search with the photo alone")
        query = self._lexicon.read_text(text)
        encoded = np.asarray(self.tower.encoder([query.words]), np.float32)
        vector, share = self.tower.embed_encoded(encoded)[0], 1.0
        if photo is not None:  # the weighted mean of the distances is one distance but for the names
            share = 1 - PHOTO_WEIGHT
            vector = 2 * PHOTO_WEIGHT * photo + share * vector
        length = float(np.linalg.norm(vector))
        vector = vector / length
        # the cosine of the words and the name of each product that is most like them
        names = np.maximum.reduceat((self._encoded @ encoded[0])[self._text_of_pair], self._starts)
        looked = dict(where or {})
        near = self._products[np.argpartition(-names, min(_PRODUCTS, len(names) - 1))[:_PRODUCTS]].tolist()
        near = _both(looked.get("product", near), near)
        fingerprint = self.tower.config.model_fingerprint
        found = index.search(vector, _PICTURES, where=where, model_fingerprint=fingerprint)
        if near:
            found += index.search(vector, _PICTURES, where=looked | {"product": near}, model_fingerprint=fingerprint)
        unnamed = float(names.mean())  # a product without a name is neither near by it nor far

        def distance(hit: Hit) -> float:
            by_name = float(names[self._place[hit.product]]) if hit.product in self._place else unnamed
            return max(0.0, 2 - length * (1 - hit.distance / 2) - share * by_name)

        hits = {hit.id: dataclasses.replace(hit, distance=distance(hit)) for hit in found}
        return TextAnswer(query=query, hits=sorted(hits.values(), key=lambda hit: (hit.distance, hit.id))[:k])


def text_search_folder(index_path: str | Path) -> Path:
    """Where the words of an index are kept: in its folder.

    Raises:
        BadInputError: it is in an object store, which has no folder.
    """
    if "://" in str(index_path):
        raise BadInputError(f"{index_path}: words are kept in a folder only; index into a folder to search by words")
    return Path(index_path) / FOLDER


def _distinct(texts: Mapping[str, Iterable[str]]) -> list[str]:
    return sorted({text for some in texts.values() for text in some})


def _both(wanted: FilterValue, near: Sequence[str]) -> list[str]:
    """The near products that a filter lets through."""
    allowed = set(check_where({"product": wanted})["product"])
    return [product for product in near if product in allowed]
