from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from univert.core.errors import TrainingError
from univert.training.checkpoint import load_checkpoint, save_checkpoint


def test_everything_comes_back(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(3, 2))
    optimiser = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimiser.step()
    state = {
        "optimiser": optimiser.state_dict(),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "none": None,
        "curve": [[1, 0.5], [2, float("-inf")]],
        "empty": {},
    }
    save_checkpoint(tmp_path / "c", state)
    back = load_checkpoint(tmp_path / "c")
    assert back is not None
    assert back["none"] is None
    assert back["curve"] == state["curve"]
    assert back["empty"] == {}
    assert back["half"].equal(state["half"])
    fresh = torch.optim.AdamW([weight], lr=0.3)
    fresh.load_state_dict(back["optimiser"])
    assert fresh.state_dict()["param_groups"][0]["lr"] == 0.1
    assert fresh.state[weight]["exp_avg"].equal(optimiser.state[weight]["exp_avg"])


def test_missing_and_broken_files(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None
    (tmp_path / "broken").write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "broken")


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "c", {"step": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match="disk is full"):
        save_checkpoint(tmp_path / "c", {"step": 2})
    assert load_checkpoint(tmp_path / "c") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
