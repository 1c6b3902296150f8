from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from univert.models import Embedder
from univert.models.inputs import ImageLike
from univert.search.index import Index
from univert.search.query import Hit, Where

MODEL = "model-a"


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def build(path: Path, vectors: np.ndarray, columns: dict[str, Sequence[Any]]) -> Index:
    """Create an index in parts that do not divide the number of rows, and open it."""
    table = pa.table({name: pa.array(list(values)) for name, values in columns.items()})
    with Index.create(path, size=vectors.shape[1], model_fingerprint=MODEL) as writer:
        writer.upsert_parts(
            (vectors[start : start + 700], table.slice(start, 700)) for start in range(0, len(vectors), 700)
        )
        writer.publish()
    return Index.open(path)


def search_image(
    model: Embedder, index: Index, image: ImageLike, k: int = 10, *, where: Where | None = None
) -> list[Hit]:
    return index.search(model.embed(image)[0], k, where=where, model_fingerprint=model.fingerprint)


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, np.ndarray, dict[str, np.ndarray]]:
    """2,000 vectors with coordinates +-1/4: distances are exact in float32, and most of them are tied."""
    rng = np.random.default_rng(0)
    vectors = rng.choice(np.array([-0.25, 0.25], np.float32), size=(2000, 16))
    columns: dict[str, np.ndarray] = {
        "id": np.array([f"image-{n}" for n in rng.permutation(2000)], dtype=object),
        "vertical": rng.choice(np.array(["bags", "shoes", "tops"], dtype=object), 2000),
        "brand": rng.choice(np.array(["Aal", "Bär", None], dtype=object), 2000),
        "product": np.array([f"p{n // 5}" for n in range(2000)], dtype=object),
    }
    columns["style"] = np.array(["rare" if n % 400 == 7 else "usual" for n in range(2000)], dtype=object)
    path = tmp_path_factory.mktemp("grid") / "index"
    return build(path, vectors, columns), vectors, columns
