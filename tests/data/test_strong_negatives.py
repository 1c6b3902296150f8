from pathlib import Path

import numpy as np
import pytest

from univert.core.errors import BadInputError
from univert.data.strong_negatives import StrongNegatives


def table() -> StrongNegatives:
    return StrongNegatives(
        anchors=np.array([0, 3]),
        positives=np.array([1, 4]),
        negatives=np.array([[5, 6], [7, -1]]),
        protected=np.array([[2, 8]]),
        anchors_searched=4,
    )


@pytest.mark.parametrize("mined", [table(), StrongNegatives.none()], ids=["some", "none"])
def test_what_is_saved_is_loaded(mined: StrongNegatives, tmp_path: Path) -> None:
    path = tmp_path / "new" / "mined.safetensors"
    assert StrongNegatives.load(path) is None
    mined.save(path)
    found = StrongNegatives.load(path)
    assert len(found) == len(mined)
    assert found.anchors_searched == mined.anchors_searched
    for name in ("anchors", "positives", "negatives", "protected"):
        np.testing.assert_array_equal(getattr(found, name), getattr(mined, name))
        assert getattr(found, name).dtype == np.int64
    assert [file.name for file in path.parent.iterdir()] == ["mined.safetensors"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mined.safetensors"
    path.write_bytes(b"\x07nonsense")
    with pytest.raises(BadInputError, match=r"mined\.safetensors: not a readable table"):
        StrongNegatives.load(path)
