import os
from pathlib import Path

import pytest

from tests.data.pictures import png, write
from univert.core.errors import BadInputError
from univert.data.readers import open_source, read_folder
from univert.data.rows import SourceProblem, SourceRow


def read(root: Path) -> tuple[list[SourceRow], list[SourceProblem]]:
    found = list(read_folder(root))
    return [r for r in found if isinstance(r, SourceRow)], [p for p in found if isinstance(p, SourceProblem)]


def test_the_tree_gives_vertical_and_product(tmp_path):
    for place in ("shoes/b/2.png", "shoes/b/1.png", "shoes/a/1.png", "shoes/loose.png", "bags/c/x.y.png"):
        write(tmp_path / place, png())
    rows, problems = read(tmp_path)
    assert not problems
    assert [(row.id, row.vertical, row.product) for row in rows] == [
        ("bags/c/x.y.png", "bags", "c"),
        ("shoes/a/1.png", "shoes", "a"),
        ("shoes/b/1.png", "shoes", "b"),
        ("shoes/b/2.png", "shoes", "b"),
        ("shoes/loose.png", "shoes", None),
    ]
    assert rows[0].path == tmp_path / "bags/c/x.y.png"
    assert rows[0].origin == str(tmp_path / "bags/c/x.y.png")


def test_hidden_files_and_litter_are_skipped(tmp_path):
    for place in (".git/a/1.png", "shoes/.DS_Store", "shoes/a/Thumbs.db", "shoes/a/._1.png", "__MACOSX/a/1.png"):
        write(tmp_path / place, b"?")
    write(tmp_path / "shoes/a/1.png", png())
    write(tmp_path / "README.txt", b"not an image, and no harm")
    rows, problems = read(tmp_path)
    assert [row.id for row in rows] == ["shoes/a/1.png"]
    assert not problems


def test_links_are_followed_unless_they_loop(tmp_path):
    root = tmp_path / "src"
    write(root / "shoes/a/1.png", png())
    write(tmp_path / "elsewhere/1.png", png())
    (root / "shoes/b").symlink_to(tmp_path / "elsewhere")
    (root / "shoes/up").symlink_to(root)
    (root / "shoes/a/self").symlink_to(root / "shoes/a/self")
    (root / "shoes/a/again").symlink_to(root / "shoes")
    (root / "shoes/a/gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "bags").symlink_to(root / "bags")
    rows, problems = read(root)
    assert [row.id for row in rows] == ["shoes/a/1.png", "shoes/b/1.png"]
    assert {(Path(p.origin).name, p.kind) for p in problems} == {
        ("bags", "symlink loop"),
        ("up", "symlink loop"),
        ("self", "symlink loop"),
        ("again", "symlink loop"),
        ("gone.png", "broken link"),
    }
    assert all(p.fix for p in problems)


def test_what_lies_in_the_wrong_place(tmp_path):
    write(tmp_path / "stray.JPG", png())
    write(tmp_path / "shoes/a/deep/1.png", png())
    (tmp_path / "shoes/b").mkdir()
    os.mkfifo(tmp_path / "shoes/b/pipe.png")
    _, problems = read(tmp_path)
    assert {(Path(p.origin).name, p.kind) for p in problems} == {
        ("stray.JPG", "outside a vertical"),
        ("deep", "folder too deep"),
        ("pipe.png", "unreadable"),
    }


def test_sources_that_are_none(tmp_path):
    with pytest.raises(BadInputError, match="does not exist"):
        open_source(tmp_path / "nothing")
    with pytest.raises(BadInputError, match="unknown kind of file"):
        open_source(write(tmp_path / "archive.zip", b"PK"))
    with pytest.raises(BadInputError, match="no such folder"):
        read_folder(tmp_path / "archive.zip")
