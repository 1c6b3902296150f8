from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.search.conftest import build
from univert.search.index import Index
from univert.serving.thumbnails import Thumbnails


def photo(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_index_made_anew_has_pictures_of_its_own(tmp_path: Path) -> None:
    thumbnails, path = Thumbnails(), tmp_path / "index"
    columns = {"id": ["a"], "vertical": ["v"]}
    before = build(path, np.eye(1, 4, dtype=np.float32), columns | {"image": [photo("red")]})
    red = thumbnails.render(before, "a", 128)
    assert thumbnails.kept(Index.open(path), "a", 128) == red, "workers and later starts agree"
    shutil.rmtree(path)
    after = build(path, np.eye(1, 4, dtype=np.float32), columns | {"image": [photo("blue")]})
    assert after.version == before.version
    assert thumbnails.kept(after, "a", 128) is None
    assert thumbnails.render(after, "a", 128) != red
