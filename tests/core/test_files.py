import json
from pathlib import Path

import pytest

from univert.core.errors import BadInputError
from univert.core.files import folder_name, publishing, write_atomic
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


def test_names_of_folders() -> None:
    assert folder_name("b", "a") == folder_name("a", "b") == "a+b"
    assert folder_name("a+b") != folder_name("a", "b")
    assert "/" not in folder_name("a/b", "..")
    many = [f"vertical-{number}" for number in range(90)]
    assert folder_name(*many) != folder_name(*many[:-1])
    alike = ["Shoes", "shoes", "SHOES", "hats"]
    assert len({folder_name(name, among=alike).lower() for name in alike}) == len(alike)
    assert folder_name("hats", among=alike) == "hats"
    assert len({folder_name(name, "hats", among=alike).lower() for name in alike[:3]}) == 3


@pytest.mark.parametrize("vertical", ["女装/外套" * 8, "женская одежда / " * 9, "ร" * 60, "x" * 250])
def test_a_stage_of_any_vertical_can_be_recorded(tmp_path: Path, vertical: str) -> None:
    stage = f"trials/fold-0/{folder_name(vertical)}"
    Run(tmp_path).finish(stage, "x", {"steps": 3})
    assert Run(tmp_path).finished(stage, "x") == {"steps": 3}
    assert folder_name(vertical) != folder_name(vertical + "!")
    with publishing(tmp_path / stage), publishing(tmp_path / ("x" * 250)):
        pass
    write_atomic(tmp_path / ("ร" * 83), "")
