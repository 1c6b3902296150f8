from __future__ import annotations

import json
from pathlib import Path

import pytest

from univert.core.errors import BadInputError
from univert.core.files import publishing, write_atomic
from univert.core.run import Run


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_publishing_is_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with pytest.raises(RuntimeError), publishing(target) as place:
        (place / "half").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with publishing(target) as place:
        (place / "whole").touch()
    with pytest.raises(BadInputError, match="--overwrite"), publishing(target):
        pass
    with publishing(target, overwrite=True) as place:
        (place / "other").touch()
    assert [path.name for path in target.iterdir()] == ["other"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_run_remembers_stages_by_their_inputs(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert run.finished("specialists/bags", "x") is None
    run.finish("specialists/bags", "x", {"steps": 3})
    assert Run(tmp_path / "run").finished("specialists/bags", "x") == {"steps": 3}
    assert run.finished("specialists/bags", "y") is None
    record = next((tmp_path / "run" / "stages").iterdir())
    record.write_text(json.dumps({"inputs": "x"})[:-3])
    assert run.finished("specialists/bags", "x") is None
