"""Splits that are disjoint by product and depend on nothing but names."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from univert.core.errors import BadInputError

SPLITS = ("train", "val", "test")
"""The split names a catalogue knows; an image may also be in none (None)."""


@dataclass(frozen=True, kw_only=True)
class SplitFractions:
    """The share of products that each split gets; they add up to 1.

    Raises:
        BadInputError: a share is negative, or they do not add up to 1.
    """

    train: float = 0.65
    val: float = 0.10
    test: float = 0.25

    def __post_init__(self) -> None:
        shares = (self.train, self.val, self.test)
        if not all(share >= 0 for share in shares) or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
            raise BadInputError(
                f"split fractions: train, val and test must be at least 0 and add up to 1, got {shares}"
            )


def split_of(product: str | None, vertical: str, fractions: SplitFractions | None = None) -> str:
    """The split of a product: a hash of its name against the fractions' thresholds.

    The same name always gets the same split, so products added later move none of the old ones. Unlabelled
    images (product None) go to train: nothing else can be measured on them.

    Args:
        product: the product's name.
        vertical: its vertical's name.
        fractions: the share of each split; None takes the default.

    Returns:
        `train`, `val` or `test`.

    Example:
        >>> split_of("sneaker 12", "shoes") == split_of("sneaker 12", "shoes")
        True
        >>> split_of(None, "shoes")
        'train'
    """
    if product is None:
        return "train"
    fractions = fractions or SplitFractions()
    digest = hashlib.blake2b(f"{vertical}\0{product}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < fractions.train:
        return "train"
    return "val" if place < fractions.train + fractions.val else "test"
