"""Products with names and pictures whose vectors are known, and a sentence encoder that counts letters."""

from collections.abc import Sequence

import numpy as np

from univert.curation.match_practice import NamedPictures

COLOURS, THINGS = ("red", "blue", "green", "black", "white", "golden"), ("chair", "lamp", "table", "sofa")


def encode(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors of the letters and pairs of letters of each text."""
    found = np.zeros((len(texts), 26 + 26 * 26), np.float32)
    for row, text in enumerate(texts):
        letters = [ord(letter) - ord("a") for letter in text.lower() if "a" <= letter <= "z"]
        for first, second in zip(letters, letters[1:] or letters, strict=False):
            found[row, first] += 1
            found[row, 26 + 26 * first + second] += 1
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def named_pictures(seed: int = 0, pictures: int = 4) -> NamedPictures:
    """Each picture's vector is that of its colour plus that of its thing, with some noise."""
    rng = np.random.default_rng(7)
    parts = {word: rng.normal(size=16) for word in (*COLOURS, *THINGS)}
    noise = np.random.default_rng(seed)
    vectors, products, verticals, texts = [], [], [], {}
    for colour in COLOURS:
        for thing in THINGS:
            product = f"{colour}-{thing}"
            texts[product] = [f"{colour} {thing}", f"{thing} {colour}", f"{thing}s in {colour}"]
            for _ in range(pictures):
                vectors.append(parts[colour] + parts[thing] + noise.normal(scale=0.4, size=16))
                products.append(product)
                verticals.append(thing)
    unit = np.array(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return NamedPictures(
        vectors=unit.astype(np.float32), products=np.array(products), verticals=np.array(verticals), texts=texts
    )
