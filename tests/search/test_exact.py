from pathlib import Path

import numpy as np
import pytest

from tests.search.conftest import build, unit
from univert.core.errors import BadInputError
from univert.search.exact import check_recall
from univert.search.index import Index


def test_the_recall_of_an_index_is_what_its_answers_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(60, 8)))
    index = build(tmp_path / "index", vectors, {"id": [f"i{n}" for n in range(60)], "vertical": ["v"] * 60})
    assert check_recall(index, queries=100) == check_recall(index, queries=100, seed=1)
    found = check_recall(index, k=4, queries=20)
    assert (found.images, found.queries, found.recall, found.lowest, found.approximate) == (60, 20, 1.0, 1.0, False)
    assert check_recall(index, k=500).recall == 1, "more than there are"
    answer = Index.search_many

    def worse(self: Index, vectors: np.ndarray, k: int, *, exact: bool = False, **options: object) -> object:
        """The first query's answer lacks its two nearest but itself."""
        answers = answer(self, vectors, k, exact=exact, **options)  # type: ignore[arg-type]
        return answers if exact else [[answers[0][0], *answers[0][3:]], *answers[1:]]

    monkeypatch.setattr(Index, "search_many", worse)
    found = check_recall(index, k=4, queries=20)
    assert (found.recall, found.lowest) == (pytest.approx(1 - 0.5 / 20), 0.5)
    with pytest.raises(BadInputError, match="queries must be at least 1"):
        check_recall(index, queries=0)
