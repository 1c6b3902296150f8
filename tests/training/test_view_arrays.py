from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from univert.training.view_arrays import ViewArrays


def test_rows_come_back_by_position_and_view(tmp_path: Path) -> None:
    asked: list[int] = []

    def compute(positions: np.ndarray, views: np.ndarray) -> Iterator[np.ndarray]:
        asked.append(int(views[0]))
        for start in range(0, len(positions), 3):
            part = slice(start, start + 3)
            yield np.stack([positions[part], views[part]], axis=1).astype(np.float32)

    def arrays() -> ViewArrays:
        found = ViewArrays(
            tmp_path / "a", "test", count=9, augmented=np.array([1, 4, 8]), views=2, width=2, compute=compute
        )
        found.compute_missing()
        return found

    found = arrays().gather(np.array([8, 0, 4, 8]), np.array([1, 0, 2, 0]))
    np.testing.assert_array_equal(found, [[8, 1], [0, 0], [4, 2], [8, 0]])
    np.testing.assert_array_equal(arrays().clean(np.array([5])), [[5, 0]])
    assert asked == [0, 1, 2], "computed once, then read"
    (tmp_path / "a" / "view-1.npy").unlink()
    arrays()
    assert asked == [0, 1, 2, 1]
    with pytest.raises(IndexError, match="position 0 has no augmented view 2"):
        arrays().gather(np.array([1, 0]), np.array([2, 2]))
