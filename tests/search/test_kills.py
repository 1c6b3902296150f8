"""A writer that is killed at any moment leaves an index that opens, with nothing lost and nothing doubled."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lance.dataset import Tags

from tests.search import generations
from univert.search.index import Index
from univert.search.writer import IndexWriter

WHAT = ("upsert", "publish")


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("univert.search.vector_index.EXACT_ROWS", generations.EXACT_ROWS)


def kill_at(uri: Path, what: str, seconds: float) -> dict[str, int]:
    """Let a writer work and kill it; returns the last upsert and the last publication that it told of."""
    command = [sys.executable, "-m", "tests.search.generations", str(uri), what, "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        process.kill()
        told = process.stdout.read().splitlines(keepends=True)
    words = [line.split() for line in told if line.endswith("\n")]
    return {name: max((int(n) for what, n in words if what == name), default=-1) for name in WHAT}


def kill_and_check(uri: Path, what: str, seconds: float) -> None:
    told = kill_at(uri, what, seconds)
    # First as a reader, who must not need a writer to put things right.
    assert generations.published(Index.open(uri)) >= told["publish"]
    with IndexWriter.open(uri) as writer:
        number = generations.working(writer)
        assert number >= told["upsert"]
        writer.upsert(*generations.generation(number + 1))
        writer.publish()
    assert generations.published(Index.open(uri)) == number + 1


@pytest.mark.parametrize("times", [1, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", WHAT)
def test_killed_now_and_then(what: str, times: int, tmp_path: Path) -> None:
    generations.start(tmp_path / "index")
    for seconds in np.random.default_rng().uniform(0, 0.4, times):
        kill_and_check(tmp_path / "index", what, float(seconds))


class KilledError(Exception):
    """The writer is gone."""


def kill_at_tag(left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a writer move or make so many tags, and no more."""

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            nonlocal left
            if not left:
                raise KilledError
            left -= 1
            return change(*arguments)

        return wrapped

    for name in ("create", "update"):
        monkeypatch.setattr(Tags, name, counted(getattr(Tags, name)))


@pytest.mark.parametrize("earlier", [0, 2])
@pytest.mark.parametrize("tags", [0, 1, 2, 3])
def test_killed_between_tags_only_what_was_published_is_listed(
    earlier: int, tags: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with IndexWriter.create(tmp_path / "index", size=generations.SIZE, model_fingerprint=generations.MODEL) as writer:
        shown = []
        for number in range(earlier):
            writer.upsert(*generations.generation(number))
            shown.append(writer.publish())
        writer.upsert(*generations.generation(earlier))
        with monkeypatch.context() as patch, contextlib.suppress(KilledError):
            kill_at_tag(tags, patch)
            writer.publish()
    with IndexWriter.open(tmp_path / "index") as writer:
        now = writer.stats().published_version
        shown += [now] if now is not None and now not in shown else []
        assert [entry.version for entry in writer.stats().versions] == shown
        writer.upsert(*generations.generation(earlier + 1))
        shown.append(writer.publish())
        listed = [entry.version for entry in writer.stats().versions]
        assert listed[: len(shown)] == shown
        for version in shown:
            generations.published(Index.open(tmp_path / "index", version=version))


def test_killed_while_it_begins(tmp_path: Path) -> None:
    """What is left where nothing was committed is no obstacle to beginning again."""
    folder = tmp_path / "index"
    (folder / "images.lance" / "data").mkdir(parents=True)
    (folder / "images.lance" / "data" / "half.lance").write_bytes(b"half")
    (folder / "writer.lock").write_text("process 1 on nowhere")
    generations.start(folder)
    assert generations.published(Index.open(folder)) == 0
