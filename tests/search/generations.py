"""An index whose state can be judged at a glance: generation g holds 40 + 5 g images, each of them marked with g.

Every generation renews all images of the one before and adds five. So a state is whole if it has one mark, and that
mark's number of images, each once.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from univert.search import vector_index
from univert.search.index import Index
from univert.search.writer import IndexWriter

MODEL = "model-a"
SIZE = 8
EXACT_ROWS = 50  # so that publishing trains a vector index, too


def generation(number: int) -> tuple[np.ndarray, pa.Table]:
    count = 40 + 5 * number
    vectors = np.random.default_rng(number).normal(size=(count, SIZE))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    marks = [str(number)] * count
    names = [f"image-{row}" for row in range(count)]
    return vectors.astype(np.float32), pa.table({"id": names, "vertical": ["v"] * count, "product": marks})


def start(uri: str | Path) -> None:
    with IndexWriter.create(uri, size=SIZE, model_fingerprint=MODEL) as writer:
        writer.upsert(*generation(0))
        writer.publish()


def judge(products: list[str], ids: list[str]) -> int:
    """The generation of a state that is whole; anything else is an error."""
    (mark,) = set(products)
    count = 40 + 5 * int(mark)
    assert Counter(ids) == Counter(f"image-{row}" for row in range(count))
    return int(mark)


def working(writer: IndexWriter) -> int:
    rows = writer.columns(["id", "product"])
    return judge(rows["product"].to_pylist(), rows["id"].to_pylist())


QUERY = generation(0)[0][0]


def answered(index: Index) -> int:
    """The generation that one search finds all images of."""
    hits = index.search(QUERY, 10_000, model_fingerprint=MODEL)
    return judge([str(hit.product) for hit in hits], [hit.id for hit in hits])


def published(index: Index) -> int:
    """The same, through the index and by comparing all."""
    exact = index.search(QUERY, 10_000, model_fingerprint=MODEL, exact=True)
    number = judge([str(hit.product) for hit in exact], [hit.id for hit in exact])
    assert answered(index) == number
    return number


def work(uri: str, what: str, until: int) -> None:
    """Go on from the working copy, saying what is done as soon as it is."""
    with IndexWriter.open(uri) as writer:
        number = working(writer)
        _say("ready")
        while number < until:
            number += 1
            writer.upsert(*generation(number))
            _say(f"upsert {number}")
            if what == "publish" or number % 5 == 0:
                writer.publish()
                _say(f"publish {number}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    vector_index.EXACT_ROWS = EXACT_ROWS  # type: ignore[misc]
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
