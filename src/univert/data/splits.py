"""Splits that are disjoint by product and depend on nothing but names."""

from __future__ import annotations

import hashlib

SPLITS = ("train", "val", "test")
"""The split names a catalogue knows; an image may also be in none (None)."""

NO_SPLIT = "none"
"""How a source says that an image is in none of them: it is neither learned from nor measured on."""


def split_of(product: str | None, vertical: str, *, train: float = 0.65, val: float = 0.10) -> str:
    """The split of a product: a hash of its name against the shares of train and val; the rest is test.

    The same name always gets the same split, so products added later move none of the old ones. Unlabelled
    images (product None) go to train: nothing else can be measured on them.

    Example:
        >>> split_of("sneaker 12", "shoes") == split_of("sneaker 12", "shoes")
        True
        >>> split_of(None, "shoes")
        'train'
    """
    if product is None:
        return "train"
    # a name that is not UTF-8 is refused later, with all else that is wrong with its row
    name = f"{vertical}\0{product}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(name, digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < train:
        return "train"
    return "val" if place < train + val else "test"
