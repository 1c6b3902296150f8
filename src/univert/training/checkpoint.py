"""Checkpoints: the whole state of a training in one safetensors file. No pickle, written atomically."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from univert.core.errors import TrainingError
from univert.core.files import write_atomic


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write nested dicts and lists of tensors and plain values; the old file stays until the new one is whole.

    Args:
        path: the file.
        state: dicts (string or whole-number keys), lists, tensors, numbers, strings, booleans, None.

    Raises:
        TrainingError: the disk is full; the previous checkpoint is untouched.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _take_tensors(state, tensors, "")
    content = safetensors.torch.save(tensors, metadata={"tree": json.dumps(tree)})
    try:
        write_atomic(path, content)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TrainingError(
            f"{path}: the disk is full; the last checkpoint is kept: free some space and run the same command again"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read what `save_checkpoint` wrote; None if there is no such file.

    Raises:
        TrainingError: the file is there but is not a checkpoint.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tree = json.loads(file.metadata()["tree"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise TrainingError(
            f"{path}: not a readable checkpoint ({error}); delete it to start this stage anew"
        ) from None
    state: dict[str, Any] = _put_tensors(tree, tensors)
    return state


def _take_tensors(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        # items keep the keys' types: an optimiser's state is keyed by whole numbers
        return {"dict": [[key, _take_tensors(item, tensors, f"{name}.{key}")] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_take_tensors(item, tensors, f"{name}.{i}") for i, item in enumerate(value)]}
    return {"plain": value}


def _put_tensors(tree: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _put_tensors(item, tensors) for key, item in value}
    if kind == "list":
        return [_put_tensors(item, tensors) for item in value]
    return value
