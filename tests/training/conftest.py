from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from univert.core.records import SourceRow
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.models.embedder import EmbedderConfig
from univert.training.recipe import (
    DataConfig,
    EvaluationConfig,
    LoopConfig,
    Recipe,
    SpecialistsConfig,
    UnifyConfig,
)

VERTICALS = ("discs", "squares")
PRODUCTS = 12
IMAGES = 3


def drawn_rows() -> Iterator[SourceRow]:
    """Products are hues, verticals are shapes; a quarter of the training products has lost its names."""
    for v, vertical in enumerate(VERTICALS):
        for product in range(PRODUCTS):
            split = ("train", "train", "val", "test")[product % 4]
            for image in range(IMAGES):
                rng = np.random.default_rng((v, product, image))
                colour = Image.new(
                    "HSV", (1, 1), (product * 255 // PRODUCTS, 220, int(rng.integers(180, 255)))
                )
                canvas = Image.new("RGB", (32, 32), "white")
                low, high = rng.integers(2, 8), rng.integers(22, 30)
                draw = ImageDraw.Draw(canvas)
                shape = draw.ellipse if vertical == "discs" else draw.rectangle
                shape((low, low, high, high), fill=colour.convert("RGB").getpixel((0, 0)))
                buffer = io.BytesIO()
                canvas.save(buffer, "PNG")
                name = f"{vertical}-{product}"
                yield SourceRow(
                    origin=f"{name}-{image}",
                    id=f"{name}-{image}",
                    vertical=vertical,
                    image=buffer.getvalue(),
                    product=None if product % 8 == 1 else name,
                    brand=f"artist-{image}",
                    split=split,
                )


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    out = tmp_path_factory.mktemp("catalogue") / "drawn.lance"
    build_catalogue(drawn_rows(), out)
    return Catalogue.open(out)


@pytest.fixture
def catalogue_path(catalogue: Catalogue) -> Path:
    return Path(catalogue.path)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    loop = LoopConfig(
        epochs=1, min_steps=12, batch_size=12, images_per_product=3, evaluations=3, checkpoint_every_steps=3
    )
    return Recipe(
        data=DataConfig(views=2),
        model=EmbedderConfig(
            base_network="timm/test_efficientnet",
            pretrained=False,
            hidden_sizes=(16,),
            size=8,
            image_size_px=32,
        ),
        specialists=SpecialistsConfig(loop=loop),
        unify=UnifyConfig(loop=loop),
        evaluation=EvaluationConfig(resamples=20),
    )
