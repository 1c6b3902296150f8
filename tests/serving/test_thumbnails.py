import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.pictures import encoded
from tests.search.conftest import build
from univert.search.index import Index
from univert.serving.thumbnails import Thumbnails


def test_an_index_made_anew_has_pictures_of_its_own(tmp_path: Path) -> None:
    thumbnails, path = Thumbnails(), tmp_path / "index"
    columns = {"id": ["a"], "vertical": ["v"]}
    one, other = (encoded(Image.new("RGB", (20, 20), colour)) for colour in ("red", "blue"))
    before = build(path, np.eye(1, 4, dtype=np.float32), columns | {"image": [one]})
    red = thumbnails.render(before, "a", 128)
    assert thumbnails.kept(Index.open(path), "a", 128) == red, "workers and later starts agree"
    shutil.rmtree(path)
    after = build(path, np.eye(1, 4, dtype=np.float32), columns | {"image": [other]})
    assert after.version == before.version
    assert thumbnails.kept(after, "a", 128) is None
    assert thumbnails.render(after, "a", 128) != red
