import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from univert.core.errors import BadInputError
from univert.identity.feedback import DENIED, Feedback, answers, append_feedback, read_feedback
from univert.search.query import Hit

NEAR = tuple(Hit(id=f"i{n}", distance=0.1 * n, vertical="bags", product=f"p{n}") for n in range(24))
SAID = Feedback(
    same=True, item=NEAR[3], named="p0", neighbours=NEAR, model_fingerprint="m", time="2026-01-01T00:00:00+00:00"
)


def test_lines_that_are_written_at_once_are_all_read_back(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    said = [replace(SAID, time=str(number)) for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: append_feedback(path, one), said))
    append_feedback(path, replace(SAID, model_fingerprint="another"))
    assert sorted(read_feedback(path, "m"), key=lambda one: int(one.time)) == said
    with pytest.raises(BadInputError, match="no feedback on answers of model third"):
        read_feedback(path, "third")


def test_half_a_line_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "said.jsonl"
    append_feedback(path, replace(SAID, named="ü"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: whole.index("ü".encode()) + 1])
    append_feedback(path, SAID)
    assert read_feedback(path, "m") == [replace(SAID, named="ü"), SAID]
    assert "broken lines passed over: 1" in caplog.text


def test_what_is_not_wholly_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:9]))
    with pytest.raises(OSError, match="only a part"):
        append_feedback(tmp_path / "said.jsonl", SAID)


@pytest.mark.parametrize("between", ["\u2028", "\u0085", "\f"])
def test_a_name_may_hold_what_splits_lines_elsewhere(tmp_path: Path, between: str) -> None:
    said = replace(SAID, named=f"a{between}b")
    append_feedback(tmp_path / "said.jsonl", said)
    assert read_feedback(tmp_path / "said.jsonl", "m") == [said]


@pytest.mark.parametrize(
    ("same", "named", "attribute", "told"),
    [
        (True, "p0", "product", ["p3"]),
        (True, None, "vertical", ["bags"]),
        (True, "p0", "brand", []),  # the item has none
        (False, "p3", "product", [DENIED]),  # the answer's guess was wrong
        (False, "p0", "product", []),  # another item was meant: nothing is known of the guess
        (False, None, "product", []),
        (False, "p3", "vertical", []),
    ],
)
def test_what_a_verdict_tells(same: bool, named: str | None, attribute: str, told: list[str]) -> None:
    found = answers([replace(SAID, same=same, named=named)], attribute)
    assert [value for value, _ in found] == told
    assert all(hits == NEAR for _, hits in found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"yes"', "line 2: not a JSON object"),
        ('{"same": 1, "more": 2}', "line 2: .*more"),
        (json.dumps({"same": True}), "line 2: .*item"),
    ],
)
def test_a_line_that_is_no_feedback_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "said.jsonl"
    append_feedback(path, SAID)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(BadInputError, match=message):
        read_feedback(path, "m")
