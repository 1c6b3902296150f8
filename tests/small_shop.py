"""A small shop for tests: twelve products in two verticals, a model with random weights, an index."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import encoded
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow
from univert.models.embedder import Embedder, EmbedderConfig
from univert.search.index import Index
from univert.search.indexing import index_catalogue

PRODUCTS = 12
HOSTILE = "<script>alert('x')</script>"


def picture(product: int, copy: int) -> bytes:
    """A product is a pattern of blocks, a copy of it another brightness."""
    rng = np.random.default_rng(product)
    blocks = rng.integers(0, 200, size=(4, 4, 3), dtype=np.uint8) + np.uint8(20 * copy)
    return encoded(Image.fromarray(blocks).resize((48, 40), Image.Resampling.NEAREST))


def source_row(product: int, copy: int) -> SourceRow:
    return SourceRow(
        origin="test",
        id=f"p{product}-{copy}",
        image=picture(product, copy),
        vertical=["bags", "shoes"][product % 2],
        product=None if product == 1 else HOSTILE if product == 2 else f"product {product}",
        brand="Maker & Sons" if copy else None,
        style="round",
        split="test",
        source="shop",
        box_xyxy_px=(0, 0, 24, 40) if product == 3 and copy else None,
    )


@pytest.fixture(scope="session")
def model() -> Embedder:
    """A small network with random weights: near copies stay near, which is all that serving needs."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = EmbedderConfig(
            base_network="timm/test_resnet", pretrained=False, hidden_sizes=(), size=16, image_size_px=64
        )
        return Embedder(config).eval()


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    path = tmp_path_factory.mktemp("catalogue") / "catalogue"
    build_catalogue((source_row(product, copy) for product in range(PRODUCTS) for copy in range(2)), path)
    return Catalogue.open(path)


@pytest.fixture(scope="session")
def index(model: Embedder, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Index:
    path: Path = tmp_path_factory.mktemp("index") / "index"
    index_catalogue(model, catalogue, path)
    return Index.open(path)
