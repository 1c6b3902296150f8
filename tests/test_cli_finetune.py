"""`univert finetune` as a person and a program see it."""

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import Univert
from tests.training.test_finetune import lost_in_discs, same_weights
from univert.data.catalogue import Catalogue
from univert.models.embedder import Embedder
from univert.training.recipe import Recipe

GOOD = "discs-0-0,discs-0-1,discs-4-0\nsquares-0-0,squares-0-1,squares-4-0\n"
QUICK = [
    *("--set", "loop.epochs=1", "--set", "loop.min_steps=4", "--set", "loop.batch_size=12"),
    *("--set", "data.views=1", "--set", "limit=1.0"),
]


@pytest.fixture
def model(recipe: Recipe, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return Embedder(recipe.model).save_pretrained(tmp_path / "model")


def test_before_and_after_for_a_person_and_for_a_program(
    model: Path,
    catalogue: Catalogue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    univert: Univert,
    published: list[Path],
) -> None:
    file, out = tmp_path / "verified.csv", tmp_path / "out"
    file.write_text(f"anchor,positive,negative\n{GOOD}discs-0-0,nobody,discs-4-0\n")
    command = ["finetune", model, catalogue.path, "--triplets", file, "--out", out, *QUICK]

    status, shown, error = univert(*command)
    assert (status, shown) == (2, "")
    assert "1 x unknown id" in error
    assert "verified.csv:4: positive 'nobody'" in error

    status, shown, error = univert(*command, "--on-bad", "skip")
    assert (status, error) == (0, "")
    for words in ("2 of 3 triplets can be used", "merged", "before", "positive nearer", str(out / "model")):
        assert words in shown, words
    assert published == [out / "model"]
    status, shown, _ = univert(*command, "--on-bad", "skip", "--json")
    assert status == 0
    assert json.loads(shown) == json.loads((out / "finetune.json").read_text())

    monkeypatch.setattr("univert.training.triplet_training.compare_vectors", lost_in_discs)
    command[command.index(out)] = tmp_path / "again"
    status, shown, error = univert(*command, "--on-bad", "skip")
    assert status == 1
    assert "the old one" in shown
    assert same_weights(tmp_path / "again" / "model", model)
    assert "as it was before fine-tuning" in (tmp_path / "again" / "model" / "README.md").read_text()
    assert error == "univert: fine-tuning made it worse, so the old model was kept: discs, map_at_r\n"
