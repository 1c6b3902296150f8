"""Words to the unified model's space without a hub: a sentence embedding and one hidden layer learned on names.

The layer's units are known texts: unit k answers exp((cos(x, text k) - 1) / width), and its outgoing weights solve a
ridge regression onto the mean vectors of the products' pictures (kernel ridge regression, Saunders et al. 1998). On the
home sample it found more products by words than linear ridge regression, and than layers trained by symmetric InfoNCE
(Radford et al. 2021): a catalogue has hundreds of names, where contrastive training wants millions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from jaxtyping import Float
from scipy import linalg, sparse
from torch import Tensor

from univert.core.errors import BadInputError
from univert.core.tensors import unit_rows
from univert.models.card import ModelCard
from univert.models.io import SavedModel, read_model

SentenceEncoder = Callable[[Sequence[str]], Float[np.ndarray, "N T"]]
"""Unit vectors of texts."""

_TEXTS_AT_ONCE: Final = 1_024


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig:
    """How a text tower is made.

    Attributes:
        units: known texts that become hidden units; of more, a random choice.
        width: of a unit, in cosine: smaller ones answer to texts that are nearly the same.
        ridge: how strongly the weights are held small, as the error of one product.
        text_size: length of the sentence embeddings; set by `learn`.
        size: length of the vectors; set by `learn`.
        model_fingerprint: of the model in whose space the vectors are; set by `learn`.
    """

    units: int = 4000
    width: float = 0.3
    ridge: float = 1.0
    text_size: int = 0
    size: int = 0
    model_fingerprint: str = ""

    def __post_init__(self) -> None:
        for name in ("units", "width", "ridge"):
            if getattr(self, name) <= 0:
                raise BadInputError(f"{name} must be positive, got {getattr(self, name)}; leave it out for the default")


@dataclass(frozen=True, kw_only=True)
class TextTowerCard(ModelCard):
    """The card of a text tower; see `ModelCard`."""

    TASK: ClassVar[str] = "sentence-similarity"
    ABOUT: ClassVar[str] = (
        "A text tower made with Univert: it maps words to unit vectors of {width}, in the space of an image embedding "
        "model."
    )
    USE: ClassVar[str] = """from univert.models import TextTower

tower = TextTower.from_pretrained("path/to/this/folder")
vectors = tower.embed(["blue armchair"])"""
    name: str = "Univert text tower"


class TextTower(SavedModel):
    """Maps words to unit vectors near those of the pictures that they describe.

    Made by `learn`, saved by `save_pretrained`, loaded by `from_pretrained`.

    Attributes:
        config: what it is made of.

    Example:
        >>> def letters(texts):  # stands in for the sentence encoder
        ...     counts = np.array([[text.count(letter) for letter in "abcdefgh"] for text in texts], np.float32)
        ...     return counts / np.linalg.norm(counts, axis=1, keepdims=True)
        >>> pictures = np.eye(3, dtype=np.float32)
        >>> tower = TextTower.learn(["bed", "face", "ha"], ["a", "b", "c"], pictures, ["a", "b", "c"], encoder=letters)
        >>> int((tower.embed(["beds"]) @ pictures.T).argmax())
        0
    """

    CARD = TextTowerCard
    texts: Tensor
    weights: Tensor

    def __init__(self, config: TextTowerConfig, encoder: SentenceEncoder | None = None) -> None:
        super().__init__()
        self.config: TextTowerConfig = config
        self.encoder = encoder or _default_encoder()
        self.register_buffer("texts", torch.zeros(config.units, config.text_size))
        self.register_buffer("weights", torch.zeros(config.units, config.size))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.device

    @property
    def size(self) -> int:
        """Length D of a vector."""
        return self.config.size

    @classmethod
    def learn(
        cls,
        texts: Sequence[str],
        products: Sequence[str],
        pictures: Float[np.ndarray, "N D"],
        picture_products: Sequence[str],
        *,
        config: TextTowerConfig | None = None,
        encoder: SentenceEncoder | None = None,
        model_fingerprint: str = "",
        seed: int = 0,
    ) -> TextTower:
        """Learn from the names, tags and other texts of products, and vectors of their pictures.

        Each product counts once, whatever the number of its texts and pictures.

        Args:
            texts: several a product are better than one.
            products: of each text; texts of products without a picture are left out.
            pictures: unit vectors of the model.
            picture_products: of each picture.
            config: None takes the defaults.
            encoder: None takes all-MiniLM-L6-v2.
            model_fingerprint: of the model that made the vectors.
            seed: of the choice of units.

        Raises:
            BadInputError: lengths that differ, or no text of a product with a picture.
        """
        if len(texts) != len(products) or len(pictures) != len(picture_products):
            raise BadInputError("texts and products, pictures and picture_products must have the same lengths")
        unique, weight, of_products, directions = _wanted(texts, products, pictures, picture_products)
        encode = encoder or _default_encoder()
        encoded = np.asarray(encode(unique), np.float32)
        config = config or TextTowerConfig()
        units = min(config.units, len(unique))
        chosen = np.sort(np.random.default_rng(seed).permutation(len(unique))[:units])
        solved = _ridge(encoded, encoded[chosen], weight, of_products, directions, config)
        tower = cls(
            replace(
                config,
                units=units,
                text_size=encoded.shape[1],
                size=pictures.shape[1],
                model_fingerprint=model_fingerprint,
            ),
            encode,
        )
        tower.texts.copy_(torch.from_numpy(encoded[chosen]))
        tower.weights.copy_(torch.from_numpy(solved))
        return tower.eval()

    def forward(self, encoded: Float[Tensor, "N T"]) -> Float[Tensor, "N D"]:
        """Unit vectors from sentence embeddings."""
        return unit_rows(torch.exp((encoded @ self.texts.T - 1) / self.config.width) @ self.weights)

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Unit vectors of texts, in the space of the model's pictures; (0, D) for none."""
        some = (texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE))
        parts = [self.embed_encoded(self.encoder(part)) for part in some]
        return np.concatenate([np.zeros((0, self.size), np.float32), *parts])

    @torch.inference_mode()
    def embed_encoded(self, encoded: Float[np.ndarray, "N T"]) -> Float[np.ndarray, "N D"]:
        """Unit vectors from what `encoder` makes of texts."""
        vectors: np.ndarray = self(torch.from_numpy(np.asarray(encoded, np.float32)).to(self.device)).cpu().numpy()
        return vectors

    @classmethod
    def from_pretrained(cls, folder: Path | str, encoder: SentenceEncoder | None = None) -> TextTower:
        """Load a saved tower; the encoder must be the one it was learned with, by default all-MiniLM-L6-v2.

        Raises:
            BadInputError: there is no such tower, or its files are incomplete, damaged or do not fit together.
        """
        config, weights = read_model(folder, config_type=TextTowerConfig)
        return cls(config, encoder).filled_from(config, weights, folder)


def _wanted(
    texts: Sequence[str], products: Sequence[str], pictures: Float[np.ndarray, "N D"], picture_products: Sequence[str]
) -> tuple[list[str], Float[np.ndarray, " T"], sparse.csr_array, Float[np.ndarray, "P D"]]:
    """The different texts, how much each counts, its products (T, P), and where their pictures are, around the mean.

    The vector that a text should have is a row of the third times the fourth; the third's rows sum to one.
    """
    with_text = set(products)
    rows = [row for row, name in enumerate(picture_products) if name in with_text]
    if not rows:
        raise BadInputError("no text belongs to a product with a picture; check the names of the products")
    names, product_of_picture = np.unique([picture_products[row] for row in rows], return_inverse=True)
    sums = np.zeros((len(names), pictures.shape[1]))
    np.add.at(sums, product_of_picture, pictures[rows])
    directions = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    place = {name: row for row, name in enumerate(names.tolist())}
    pairs = sorted({(text, place[name]) for text, name in zip(texts, products, strict=True) if name in place})
    unique, text_of_pair = np.unique([text for text, _ in pairs], return_inverse=True)
    product_of_pair = np.array([row for _, row in pairs])
    share = 1 / np.bincount(product_of_pair)[product_of_pair]
    weight = np.bincount(text_of_pair, share)
    of_products = sparse.csr_array((share / weight[text_of_pair], (text_of_pair, product_of_pair)))
    # around their mean: what all pictures have in common would else attract every query
    return unique.tolist(), weight / weight.mean(), of_products, directions - directions.mean(axis=0)


def _ridge(
    encoded: Float[np.ndarray, "N T"],
    units: Float[np.ndarray, "U T"],
    weight: Float[np.ndarray, " N"],
    of_products: sparse.csr_array,
    directions: Float[np.ndarray, "P D"],
    config: TextTowerConfig,
) -> Float[np.ndarray, "U D"]:
    """Outgoing weights of the units: ridge regression in the space that they span (Nystroem), in constant memory."""

    def answers(texts: np.ndarray) -> np.ndarray:
        found: np.ndarray = texts.astype(np.float64) @ units.T
        found -= 1
        found /= config.width
        np.exp(found, out=found)
        return found

    gram = answers(units)
    gram *= config.ridge
    against = np.zeros((len(units), directions.shape[1]), order="F")
    for start in range(0, len(encoded), _TEXTS_AT_ONCE):
        part = slice(start, start + _TEXTS_AT_ONCE)
        active = answers(encoded[part])
        weighted = active * weight[part, None]
        gram += weighted.T @ active
        against += weighted.T @ (of_products[part] @ directions)
    gram[np.diag_indices_from(gram)] += 1e-6 * np.trace(gram) / len(gram)
    # the transpose of a symmetric matrix is itself, in the order that is overwritten
    solved: np.ndarray = linalg.solve(gram.T, against, assume_a="pos", overwrite_a=True, overwrite_b=True)
    return solved.astype(np.float32)


def _default_encoder() -> Any:
    from univert.models.text_embedding import embed_texts

    return embed_texts
